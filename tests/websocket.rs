//! Events by `WebSocket` through the program as built: the clients there are, and what an answer is worth.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what fails here should fail the run with its reason"
)]
#[path = "support/socket.rs"]
mod socket;
mod support;

use serde_json::{Value, json};
use socket::Socket;
use support::{Client, Site};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tracker");

#[test]
fn the_documented_frame_is_a_row() {
    let site = Site::new(PROGRAM, json!({}));
    let server = site.start();
    let mut socket = Socket::open(server.address, "/tr/v1/ws?ack=1", &[]);
    socket.text(r#"{"vid":"user-123","ename":"websocket_event","etyp":"stream"}"#);
    assert_eq!(socket.reply(), json!({"ack": 1}));
    server.drained();
    let rows = site.query("select ename, etyp, origin, vid is not null as known from events");
    let row =
        json!({"ename": "websocket_event", "etyp": "stream", "origin": "client", "known": true});
    assert_eq!(rows, [row]);
    server.stop();
}

/// What the Go tracker's clients send: `track.js` text frames, the parcel client LZ4 blocks with every
/// field once more in `params`.
#[test]
fn clients_of_the_go_tracker_are_understood_and_a_post_says_the_same() {
    let site = Site::new(PROGRAM, json!({}));
    let server = site.start();
    let vid = "14fb0860-b4bf-11e9-8971-7b80435315ac";
    let event = |name: &str| {
        json!({
            "last": "https://shop.example/a", "url": "https://shop.example/b?utm_source=Mail",
            "ename": name, "etyp": "page", "sid": vid, "first": "true", "tz": "Europe/Berlin",
            "device": "mobile", "os": "ios", "w": 390, "h": 844, "vid": vid, "auth": "a.jwt.token",
            "plan": "pro", "params": {"firsttext": "Buy", "plan": "pro", "w": 390},
        })
    };
    let headers = [("user-agent", "Probe/1.0"), ("accept-language", "de-DE")];
    let mut socket = Socket::open(server.address, "/tr/v1/ws?ack=1", &headers);
    socket.text(event("text").to_string());
    socket.lz4(&event("lz4").to_string());
    assert_eq!((socket.reply(), socket.reply()), (json!({"ack": 1}), json!({"ack": 2})));
    let mut client = Client::connect(server.address).expect("connecting");
    let body = event("post").to_string();
    let answer =
        client.request("POST", "/tr/v1/tr/", &headers, body.as_bytes()).expect("an answer");
    assert_eq!(answer.status, 200);
    server.drained();
    let columns = "url, last, etyp, source, sid, vid, tz, device, os, vp_w, vp_h, params, \
                   culture, user_agent";
    let rows = site.query(&format!("select {columns} from events order by ename"));
    assert_eq!(rows.len(), 3);
    assert_eq!((&rows[0], &rows[1]), (&rows[1], &rows[2]), "lz4, post and text");
    assert_eq!(rows[0]["source"], "mail");
    assert!(!rows[0].to_string().contains("jwt"), "{}", rows[0]);
    server.stop();
}

#[test]
fn what_was_acknowledged_survives_a_kill_and_what_was_not_may_be_sent_again() {
    let site = Site::new(PROGRAM, json!({}));
    let server = site.start();
    let mut socket = Socket::open(server.address, "/tr/v1/ws?ack=1", &[]);
    let frame = |number: u64| json!([{"ename": "kept", "number": number}, {"ename": "twin"}]);
    for number in 1..=50 {
        socket.text(frame(number).to_string());
    }
    let mut acknowledged = 0;
    while acknowledged < 30 {
        acknowledged = socket.reply()["ack"].as_u64().expect("an acknowledgement");
    }
    server.kill();
    let server = site.start();
    server.drained();
    let kept =
        site.query("select distinct params->>'number' as n from events where ename = 'kept'");
    let kept: Vec<u64> = kept.iter().filter_map(|row| row["n"].as_str()?.parse().ok()).collect();
    for number in 1..=acknowledged {
        assert!(kept.contains(&number), "{number} was acknowledged: {kept:?}");
    }
    server.stop();
}

#[test]
fn unreadable_frames_are_rows_of_quarantine_and_the_connection_goes_on() {
    let site = Site::new(PROGRAM, json!({"QuarantineRaw": true}));
    let server = site.start();
    let mut socket = Socket::open(server.address, "/tr/v1/ws?ack=1", &[]);
    socket.text("no json");
    socket.binary(b"\x08\0\0\0no block".to_vec());
    socket.text(r#"[{"ename":"good"},"bad"]"#);
    let replies: Vec<Value> = (0..3).map(|_| socket.reply()).collect();
    assert_eq!(replies[0]["error"]["code"], "malformed");
    assert_eq!(replies[1]["error"]["code"], "malformed");
    assert_eq!(replies[2]["accepted"], 1);
    server.drained();
    assert_eq!(site.number("select count(*) as n from events"), 1);
    assert_eq!(site.number("select count(*) as n from quarantine"), 3);
    assert_eq!(server.metric("tracker_events_quarantined_total"), 3);
    server.stop();
}

#[test]
fn a_stop_ends_sockets_with_a_goodbye_and_within_its_deadline() {
    let site = Site::new(PROGRAM, json!({}));
    let server = site.start();
    let mut sockets: Vec<Socket> =
        (0..50).map(|_| Socket::open(server.address, "/tr/v1/ws?ack=1", &[])).collect();
    for socket in &mut sockets {
        socket.text(r#"{"ename":"before"}"#);
        assert_eq!(socket.reply(), json!({"ack": 1}));
    }
    let clients = std::thread::spawn(move || {
        sockets.iter_mut().map(Socket::closed).filter(|code| *code == Some(1001)).count()
    });
    let took = server.stop();
    assert!(took.as_millis() < 2000, "{took:?}");
    assert_eq!(clients.join().expect("the clients"), 50);
}
