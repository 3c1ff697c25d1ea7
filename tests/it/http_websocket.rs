//! Events over a WebSocket.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use reqwest::Version;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tracker::config::DntPolicy;
use tracker::event::{Body, Origin};

use crate::socket::Socket;
use crate::support::{Served, builder, client, until};

const VID: &str = "14fb0860-b4bf-11e9-8971-7b80435315ac";
const PATH: &str = "/tr/v1/ws";
/// What takes a second or two, on a machine that does much else besides.
const SOON: Duration = Duration::from_secs(15);

fn open(served: &Served, path: &str) -> Socket {
    Socket::open(served.http, path, &[])
}

/// A masked text frame, as a browser sends it.
fn frame(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).ok().filter(|length| *length < 126).unwrap();
    [&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_is_an_event_with_the_facts_of_the_handshake() {
    let served = Served::start().await;
    let headers = [("user-agent", "Probe/1.0"), ("user", r#"{"uid":"user-7"}"#)];
    let mut socket = Socket::open(served.http, "/tr/v1/ws?utm_source=Query&ack=1", &headers);
    let text = json!({
        "vid": VID, "ename": "Frame", "source": "frame", "Plan": "Pro", "params": {"Deep": {"n": 1}},
    });
    socket.text(text.to_string());
    assert_eq!(socket.reply(), json!({"ack": 1}));
    let event = served.events().remove(0);
    assert_eq!(event.origin, Origin::Client);
    assert_eq!(event.who.vid.unwrap().to_string(), VID);
    assert!(event.who.uid.is_some(), "the header counts for every frame");
    assert_eq!(event.agent.user_agent.as_deref(), Some("Probe/1.0"));
    assert_eq!(event.campaign.source.as_deref(), Some("query"), "the query wins over the frame");
    assert_eq!(Value::Object(event.params), json!({"Plan": "Pro", "Deep": {"n": 1}}));
    let Body::Track(track) = event.body else { panic!("not tracked") };
    assert_eq!(track.ename.as_deref(), Some("frame"), "folded as in a POST");
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_asking_nothing_is_answered_and_everything_is_stored() {
    let served = Served::start().await;
    let mut socket = open(&served, PATH);
    for n in 0..200 {
        socket.text(json!({"ename": format!("n{n}")}).to_string());
    }
    socket.text(r#"[{"ename":"a"},{"ename":"b"}]"#);
    until("all are stored", || served.app.metrics.events_stored.get() == 202).await;
    let names = served.names();
    assert_eq!((names[0].as_str(), names[199].as_str(), names[201].as_str()), ("n0", "n199", "b"));
    assert_eq!(served.app.metrics.websocket_frames.get(), 201);
    assert_eq!(served.app.metrics.websockets.get(), 1);
    socket.stream().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let nothing = socket.stream().read(&mut [0; 8]);
    assert!(nothing.is_err(), "{nothing:?}");
    socket.stream().set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    socket.close();
    until("it is closed", || served.app.metrics.websockets.get() == 0).await;
    until("its connection too", || served.app.metrics.connections.get() == 0).await;
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_frame_is_answered_in_order_with_its_fate() {
    let served = Served::with(|setup| setup.intake.event_bytes_max = 2000).await;
    let mut socket = open(&served, "/tr/v1/ws/?ack=1");
    let mut check = |frame: &str, expect: Value| {
        socket.text(frame);
        let mut reply = socket.reply();
        if let Some(error) = reply.get_mut("error") {
            *error = error["code"].take();
        }
        for result in reply.get_mut("results").and_then(Value::as_array_mut).into_iter().flatten() {
            *result = result["status"].take();
        }
        assert_eq!(reply, expect, "{frame:.40}");
    };
    check(r#"{"ename":"one"}"#, json!({"ack": 1}));
    check(r#"[{"ename":"two"},{"ename":"three"}]"#, json!({"ack": 2}));
    check("nonsense", json!({"ack": 3, "error": "malformed"}));
    check("", json!({"ack": 4, "error": "malformed"}));
    check("17", json!({"ack": 5, "error": "malformed"}));
    check(
        r#"[{"ename":"four"},17]"#,
        json!({"ack": 6, "accepted": 1, "results": ["stored", "rejected"]}),
    );
    check("[1,2]", json!({"ack": 7, "accepted": 0, "results": ["rejected", "rejected"]}));
    let large = json!({"ename": "x".repeat(2000)}).to_string();
    check(&large, json!({"ack": 8, "error": "too_large"}));
    check("null", json!({"ack": 9}));
    check(r#"{"ename":"last"}"#, json!({"ack": 10}));
    assert_eq!(
        served.names(),
        [
            "one",
            "two",
            "three",
            "!malformed",
            "!malformed",
            "!malformed",
            "four",
            "!malformed",
            "!malformed",
            "!malformed",
            "",
            "last"
        ]
    );
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_could_not_be_stored_is_to_be_sent_again() {
    let served = Served::start().await;
    let mut socket = open(&served, "/tr/v1/ws?ack=1");
    let journal = served.app.journal.clone();
    tokio::task::spawn_blocking(move || journal.close()).await.unwrap();
    socket.text("{}");
    let reply = socket.reply();
    assert_eq!((&reply["nack"], &reply["retry_after"]), (&json!(1), &json!(1)));
    assert_eq!(reply["error"]["code"], "journal_failed");
    socket.text("[{},{}]");
    let reply = socket.reply();
    assert_eq!((&reply["nack"], &reply["accepted"]), (&json!(2), &json!(0)));
    assert_eq!(reply["results"][1]["status"], "retry");
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn binary_frames_are_lz4_blocks_and_damaged_ones_are_set_aside() {
    let served = Served::with(|setup| setup.server.http.inflated_bytes_max = 100_000).await;
    let mut socket = open(&served, "/tr/v1/ws?ack=1");
    socket.lz4(r#"{"ename":"block"}"#);
    assert_eq!(socket.reply(), json!({"ack": 1}));
    // Above the size that is inflated at once, in many events.
    let many: Vec<_> = (0..2500).map(|n| json!({"ename": "many", "number": n})).collect();
    let many = json!(many).to_string();
    assert!(many.len() > 64 << 10 && many.len() < 100_000, "{}", many.len());
    socket.lz4(&many);
    assert_eq!(socket.reply(), json!({"ack": 2}));
    let mut refused = |bytes: Vec<u8>, code: &str| {
        socket.binary(bytes);
        let reply = socket.reply();
        assert_eq!(reply["error"]["code"], code, "{reply}");
        assert!(reply["ack"].is_u64(), "{reply}");
    };
    refused(Vec::new(), "malformed");
    refused(vec![1, 0], "malformed");
    refused(0_u32.to_le_bytes().to_vec(), "malformed");
    refused(b"{\"ename\":\"plain\"}".to_vec(), "too_large");
    refused([&20_u32.to_le_bytes()[..], b"\xff\xff\xff"].concat(), "malformed");
    let whole = lz4_flex::block::compress_prepend_size(br#"{"ename":"torn"}"#);
    refused(whole[..whole.len() - 3].to_vec(), "malformed");
    let longer = [&17_u32.to_le_bytes()[..], &whole[4..]].concat();
    refused(longer, "malformed");
    // 2 GB in forty bytes.
    refused([&0x7e00_0000_u32.to_le_bytes()[..], &[0; 36]].concat(), "too_large");
    refused(lz4_flex::block::compress_prepend_size(&vec![b' '; 100_001]), "too_large");
    socket.lz4(r#"{"ename":"after"}"#);
    assert_eq!(socket.reply(), json!({"ack": 12}));
    let aside = served.names().iter().filter(|name| *name == "!malformed").count();
    assert_eq!(aside, 6);
    assert_eq!(served.app.metrics.events_rejected.with_label_values(&["too_large"]).get(), 3);
    assert_eq!(served.app.metrics.events_stored.get(), 2502);
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_handshake_sets_the_visitor_cookie_that_its_frames_have() {
    let served = Served::start().await;
    let mut socket = open(&served, "/tr/v1/ws?ack=1");
    let cookie = socket.response.headers()["set-cookie"].to_str().unwrap().to_owned();
    let vid = cookie.strip_prefix("vid=").unwrap().split(';').next().unwrap().to_owned();
    assert_eq!(cookie, format!("vid={vid}; Path=/; Max-Age=34560000; HttpOnly; SameSite=Lax"));
    for _ in 0..2 {
        socket.text("{}");
        socket.reply();
    }
    let mut again = Socket::open(served.http, "/tr/v1/ws?ack=1", &[("cookie", &cookie)]);
    again.text("{}");
    again.reply();
    again.text(json!({"vid": VID}).to_string());
    again.reply();
    let seen: Vec<_> = served
        .events()
        .into_iter()
        .map(|event| (event.who.vid.unwrap().to_string(), event.who.is_new))
        .collect();
    let expect = [(&vid, true), (&vid, false), (&vid, false), (&VID.to_owned(), false)];
    assert_eq!(seen, expect.map(|(vid, is_new)| (vid.clone(), is_new)));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_be_remembered_gets_no_cookie() {
    for policy in [DntPolicy::Anonymous, DntPolicy::Drop] {
        let served = Served::with(|setup| setup.intake.dnt_policy = policy).await;
        let mut socket = Socket::open(served.http, "/tr/v1/ws?ack=1", &[("dnt", "1")]);
        assert!(socket.response.headers().get("set-cookie").is_none(), "{policy:?}");
        socket.text(r#"{"ename":"quiet"}"#);
        assert_eq!(socket.reply(), json!({"ack": 1}));
        assert_eq!(served.names().len(), usize::from(policy == DntPolicy::Anonymous));
        served.balance();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_allowed_origins_open_a_websocket() {
    let listed = "https://site.example";
    let served = Served::with(|setup| setup.server.http.allow_origins = vec![listed.into()]).await;
    let check = |origin: &str, status: u16| {
        let answer = Socket::try_open(served.http, PATH, &[("origin", origin)]);
        let found = match answer {
            Ok(socket) => socket.response.status(),
            Err(response) => response.status(),
        };
        assert_eq!(found.as_u16(), status, "{origin}");
    };
    check(listed, 101);
    for origin in ["null", "https://site.example.evil", "http://site.example", ""] {
        check(origin, 403);
    }
    // A program names no origin, and a page of our own needs no listing.
    drop(open(&served, PATH));
    check(&format!("http://{}", served.http), 101);
    check(&format!("http://{}.evil", served.http), 403);
    let anyone = Served::start().await;
    drop(Socket::open(anyone.http, PATH, &[("origin", "https://any.example")]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_handshake_is_answered_as_http() {
    let served = Served::start().await;
    for url in [served.url(PATH), served.tls_url(PATH)] {
        let response = client().get(url).send().await.unwrap();
        assert_eq!(response.status(), 400);
        assert_eq!(response.headers()["sec-websocket-version"], "13");
    }
    let response = client().post(served.url(PATH)).body("{}").send().await.unwrap();
    assert_eq!(response.status(), 405);
    assert_eq!(response.headers()["allow"], "GET");
    let old = "GET /tr/v1/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, close\r\n\
               Upgrade: websocket\r\nSec-WebSocket-Version: 8\r\nSec-WebSocket-Key: AAAA\r\n\r\n";
    assert!(served.raw(old.as_bytes()).await.starts_with("HTTP/1.1 400"));
    assert!(served.names().is_empty());
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tls_listener_takes_websockets_over_http_1() {
    let served = Served::start().await;
    let response = builder()
        .http1_only()
        .build()
        .unwrap()
        .get(served.tls_url(PATH))
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")
        .send()
        .await
        .unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (101, Version::HTTP_11));
    // The example of RFC 6455 §1.3.
    assert_eq!(response.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert!(response.headers()["set-cookie"].to_str().unwrap().ends_with("; Secure"));
    let mut socket = response.upgrade().await.unwrap();
    socket.write_all(&frame(r#"{"ename":"secret"}"#)).await.unwrap();
    until("it is stored", || served.app.metrics.events_stored.get() == 1).await;
    assert_eq!(served.names(), ["secret"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_byte_over_a_frame_ends_the_connection() {
    let served = Served::with(|setup| setup.server.http.websocket.frame_bytes_max = 1024).await;
    let of = |bytes: usize| {
        let text = json!({"ename": ""}).to_string();
        json!({"ename": "x".repeat(bytes - text.len())}).to_string()
    };
    let mut socket = open(&served, "/tr/v1/ws?ack=1");
    socket.text(of(1024));
    assert_eq!(socket.reply(), json!({"ack": 1}));
    socket.text(of(1025));
    assert_eq!(socket.closed(), Some(1009));
    // The same in two pieces, each of a permitted size.
    let mut socket = open(&served, PATH);
    let piece = |head: u8| {
        let bytes = u16::try_from(600).unwrap().to_be_bytes();
        [&[head, 0xfe, bytes[0], bytes[1], 0, 0, 0, 0][..], &[b' '; 600]].concat()
    };
    socket.stream().write_all(&[piece(0x01), piece(0x80)].concat()).unwrap();
    assert_eq!(socket.closed(), Some(1009));
    until("both are counted", || served.app.metrics.rejected() == 2).await;
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_frame_that_is_no_text_is_set_aside_and_ends_the_connection() {
    let served = Served::start().await;
    let mut socket = open(&served, PATH);
    socket.stream().write_all(&[0x81, 0x82, 0, 0, 0, 0, 0xff, 0xfe]).unwrap();
    assert_eq!(socket.closed(), Some(1007));
    let mut socket = open(&served, PATH);
    socket.stream().write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert_eq!(socket.closed(), Some(1002));
    until("it is set aside", || served.names() == ["!malformed"]).await;
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_sign_of_life_is_dropped_and_who_answers_pings_stays() {
    let idle = Duration::from_millis(600);
    let served = Served::with(|setup| setup.server.http.websocket.idle = idle).await;
    let mut alive = open(&served, "/tr/v1/ws?ack=1");
    let address = served.http;
    let silent = tokio::task::spawn_blocking(move || {
        let mut socket = Socket::open(address, PATH, &[]);
        let started = Instant::now();
        let mut bytes = Vec::new();
        // A ping, then the goodbye, and nothing is said back.
        let _ = socket.stream().read_to_end(&mut bytes);
        (started.elapsed(), bytes)
    });
    let answering = tokio::task::spawn_blocking(move || {
        let ends = Instant::now() + 4 * idle;
        alive.stream().set_read_timeout(Some(idle)).unwrap();
        let mut pings = 0;
        while Instant::now() < ends {
            pings += u32::from(alive.ping());
        }
        alive.text("{}");
        (pings, alive.reply())
    });
    let (took, bytes) = silent.await.unwrap();
    assert!(took >= idle / 2 && took < SOON, "{took:?}");
    assert_eq!(bytes[..2], [0x89, 0], "a ping");
    assert_eq!((bytes[2], &bytes[4..6]), (0x88, &1001_u16.to_be_bytes()[..]), "a goodbye");
    let (pings, reply) = answering.await.unwrap();
    assert!(pings >= 2, "{pings}");
    assert_eq!(reply, json!({"ack": 1}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_not_finished_ends_the_connection_whatever_stands_between() {
    let idle = Duration::from_millis(600);
    let served = Served::with(|setup| setup.server.http.websocket.idle = idle).await;
    let mut socket = open(&served, PATH);
    let started = Instant::now();
    // A first piece, and then pongs for ever, as fast as they are taken.
    socket.stream().write_all(&[0x01, 0x81, 0, 0, 0, 0, b'{']).unwrap();
    let mut stream = socket.stream().try_clone().unwrap();
    std::thread::spawn(move || while stream.write_all(&[0x8a, 0x80, 0, 0, 0, 0]).is_ok() {});
    assert_eq!(socket.closed(), Some(1008));
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_keeps_its_place_among_the_connections_until_it_ends() {
    let served = Served::with(|setup| setup.server.http.connections_max = 2).await;
    let first = open(&served, PATH);
    let mut second = open(&served, "/tr/v1/ws?ack=1");
    let refused = |address| match TcpStream::connect(address) {
        Ok(mut stream) => {
            let mut answer = String::new();
            let _ = stream.write_all(b"GET /ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
            let _ = stream.read_to_string(&mut answer);
            answer.starts_with("HTTP/1.1 503")
        }
        Err(_) => false,
    };
    assert!(refused(served.http));
    second.text("{}");
    assert_eq!(second.reply(), json!({"ack": 1}), "both are open all the while");
    first.close();
    let address = served.http;
    until("a place is free again", || !refused(address)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn above_its_rate_a_connection_is_read_more_slowly_and_loses_nothing() {
    let served = Served::with(|setup| {
        setup.server.http.websocket.frames_per_second = 50;
        setup.server.http.websocket.events_per_second = 100;
    })
    .await;
    let check = |frames: usize, text: &str, events: u64| {
        let mut socket = open(&served, "/tr/v1/ws?ack=1");
        let before = served.app.metrics.events_stored.get();
        let started = Instant::now();
        for _ in 0..frames {
            socket.text(text);
        }
        for number in 1..=frames {
            assert_eq!(socket.reply(), json!({"ack": number}));
        }
        assert_eq!(served.app.metrics.events_stored.get() - before, events);
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(750) && took < SOON, "{took:?}");
    };
    // One second's worth is free; most of a second is waited for.
    check(100, "{}", 100);
    check(4, &json!(vec![json!({}); 60]).to_string(), 240);
    assert!(served.app.metrics.websocket_paused.get() > 0);
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_answers_what_was_sent_and_says_goodbye() {
    let mut served = Served::start().await;
    let mut socket = open(&served, "/tr/v1/ws?ack=1");
    let mut quiet = open(&served, PATH);
    socket.text(r#"{"ename":"last"}"#);
    until("it is taken", || served.app.metrics.events_received.get() == 1).await;
    let client =
        tokio::task::spawn_blocking(move || (socket.reply(), socket.closed(), quiet.closed()));
    let took = served.stop().await;
    assert!(took < Duration::from_millis(1500), "{took:?}");
    assert_eq!(client.await.unwrap(), (json!({"ack": 1}), Some(1001), Some(1001)));
    assert_eq!(served.names(), ["last"]);
    served.balance();
}
