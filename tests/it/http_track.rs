//! The routes that take events.

use std::io::Write as _;

use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, SET_COOKIE};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tracker::event::{Body, Origin};

use crate::support::{Served, client, json, until};

const VID: &str = "14fb0860-b4bf-11e9-8971-7b80435315ac";

async fn post(served: &Served, path: &str, kind: &str, body: impl Into<reqwest::Body>) -> Response {
    let request = client().post(served.url(path)).header(CONTENT_TYPE, kind).body(body);
    request.send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_documented_post_is_stored_and_answered_with_nothing() {
    let served = Served::start().await;
    let body =
        format!(r#"{{"vid":"{VID}","sid":"session-123","ename":"page_view","etyp":"view"}}"#);
    for path in ["/tr/v1/tr/", "/tr/v1/tr"] {
        let response = post(&served, path, "application/json", body.clone()).await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["x-ack"], "durable");
        assert_eq!(response.headers()["content-length"], "0");
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
        assert_eq!(response.text().await.unwrap(), "");
    }
    assert_eq!(served.names(), ["page_view", "page_view"]);
    let event = served.events().remove(0);
    assert_eq!(event.origin, Origin::Client);
    assert_eq!(event.who.vid.unwrap().to_string(), VID);
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_documented_get_takes_path_pairs_and_query() {
    let served = Served::start().await;
    let path = format!("/tr/v1/tr/vid/{VID}/ename/page_view?etyp=view&Plan=Pro");
    let response = client().get(served.url(&path)).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let event = served.events().remove(0);
    let Body::Track(track) = event.body else { panic!("not tracked") };
    assert_eq!((track.ename.as_deref(), track.etyp.as_deref()), (Some("page_view"), Some("view")));
    assert_eq!(event.who.vid.unwrap().to_string(), VID);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_is_answered_with_a_redirect_and_double_slashes_survive() {
    let served = Served::start().await;
    for path in ["/tr/v1/tr", "/tr/v1/tr/", "/tr/v1/tr//", "/tr/v1/tr/ename/a//b/c/../d"] {
        let response = client().get(served.url(path)).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
    }
    let raw = served
        .raw(b"GET /tr/v1/str/ename/x/p//q//r HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    assert!(raw.starts_with("HTTP/1.1 200"), "{raw}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_records_nothing_is_refused() {
    let served = Served::start().await;
    let send = async |method: Method, path: &str, body: &'static str| {
        client().request(method, served.url(path)).body(body).send().await.unwrap()
    };
    // A PUT is read as a POST is.
    assert_eq!(
        send(Method::PUT, "/tr/v1/tr/ename/put?ename=q", r#"{"ename":"b"}"#).await.status(),
        200
    );
    assert_eq!(send(Method::POST, "/tr/v1/tr/ename/post?etyp=q", "{}").await.status(), 200);
    for method in [Method::HEAD, Method::DELETE, Method::PATCH] {
        for route in ["tr", "str", "ltv"] {
            let path = format!("/tr/v1/{route}/ename/none");
            let refused = send(method.clone(), &path, "").await;
            assert_eq!(refused.status(), 405, "{method} {path}");
            assert_eq!(refused.headers()["allow"], "GET, POST, PUT");
        }
    }
    assert_eq!(send(Method::HEAD, "/tr/v1/img/ename/none", "").await.status(), 200);
    assert_eq!(served.names(), ["b", "post"]);
    let Body::Track(post) = served.events().remove(1).body else { panic!("not tracked") };
    assert_eq!(post.etyp, None, "a POST ignores the query");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_event_is_answered_with_its_id() {
    let served = Served::start().await;
    let eid = "0191d2f0-0000-7000-8000-00000000abcd";
    let body = json!({ "eid": eid, "ename": "server_event", "oid": "org-id", "revenue": "99.99" });
    let response = post(&served, "/tr/v1/str/", "application/json", body.to_string()).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
    assert!(response.headers().get(SET_COOKIE).is_none(), "servers have no cookies");
    assert_eq!(response.text().await.unwrap(), format!("\"{eid}\""));
    let response = post(&served, "/tr/v1/str", "application/json", r#"{"ename":"x"}"#).await;
    let id = response.text().await.unwrap();
    let events = served.events();
    assert_eq!(id, format!("\"{}\"", events[1].id));
    assert_eq!((events[0].id.to_string().as_str(), events[0].origin), (eid, Origin::Server));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pixel_is_a_picture_whatever_happened() {
    let served = Served::start().await;
    let check = async |method: Method, path: &str, body: &'static str| {
        let request = client().request(method, served.url(path)).body(body);
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        assert_eq!(response.headers()[CONTENT_TYPE], "image/gif");
        assert!(response.headers()["cache-control"].to_str().unwrap().contains("no-store"));
        response.bytes().await.unwrap()
    };
    let gif = check(Method::GET, "/tr/v1/img/ename/open?medium=email", "").await;
    assert_eq!((gif.len(), &gif[..6]), (43, &b"GIF89a"[..]));
    assert!(check(Method::HEAD, "/tr/v1/img/ename/head", "").await.is_empty());
    assert_eq!(check(Method::POST, "/tr/v1/img", "not json").await, gif);
    served.app.journal.wait_after(tracker::journal::Position(1)).await;
    assert_eq!(served.names(), ["open", "!malformed"]);
    until("both are counted", || served.app.metrics.events_in_flight.get() == 0).await;
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_post_is_an_event_and_an_unreadable_one_is_a_400() {
    let served = Served::start().await;
    assert_eq!(post(&served, "/tr/v1/tr/ename/empty", "text/plain", "").await.status(), 200);
    for (body, word) in
        [("not json", "expected"), ("{\"a\":", "EOF"), ("17", "a number"), ("\"text\"", "a text")]
    {
        let response = post(&served, "/tr/v1/tr", "application/json", body).await;
        assert_eq!(response.status(), 400, "{body}");
        let error = json(response).await["error"].take();
        assert_eq!(error["code"], "malformed");
        assert!(error["message"].as_str().unwrap().contains(word), "{error}");
    }
    let response = post(&served, "/tr/v1/tr", "text/plain", &b"{\"a\":\"\xff\"}"[..]).await;
    assert_eq!(response.status(), 400);
    let message = json(response).await["error"]["message"].as_str().unwrap().to_lowercase();
    assert!(message.contains("utf-8") || message.contains("unicode"), "{message}");
    assert_eq!(served.names(), ["empty"]);
    let malformed = served.app.metrics.events_rejected.with_label_values(&["malformed"]);
    assert_eq!(malformed.get(), 5);
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_is_answered_event_by_event() {
    let served = Served::start().await;
    let check = async |body: &'static str, status: u16, accepted: u64, states: &[&str]| {
        let response = post(&served, "/tr/v1/tr", "application/json", body).await;
        assert_eq!(response.status(), status, "{body}");
        let answer = json(response).await;
        assert_eq!(answer["accepted"], accepted, "{body}");
        let results = answer["results"].as_array().unwrap().clone();
        let found: Vec<&str> = results.iter().map(|r| r["status"].as_str().unwrap()).collect();
        assert_eq!(found, states, "{body}");
        results
    };
    let all = check(r#"[{"ename":"a"},{"ename":"b"}]"#, 200, 2, &["stored", "stored"]).await;
    assert_eq!(all[1]["eid"], served.events()[1].id.to_string());
    let mixed =
        check(r#"[{"ename":"c"},7,{"ename":"d"}]"#, 207, 2, &["stored", "rejected", "stored"])
            .await;
    assert_eq!((&mixed[1]["eid"], &mixed[1]["error"]["code"]), (&Value::Null, &json!("malformed")));
    check("[1,2]", 400, 0, &["rejected", "rejected"]).await;
    check("[]", 200, 0, &[]).await;
    check("{\"ename\":\"e\"}\n\n{\"ename\":\"f\"}\n", 200, 2, &["stored", "stored"]).await;
    check("{\"ename\":\"g\"}\nnonsense", 207, 1, &["stored", "rejected"]).await;
    served.app.journal.wait_after(tracker::journal::Position(10)).await;
    assert_eq!(
        served.names(),
        ["a", "b", "c", "!malformed", "d", "!malformed", "!malformed", "e", "f", "g", "!malformed"]
    );
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_batch_is_stored_whole_and_one_event_more_is_refused() {
    let served = Served::with(|setup| setup.server.http.batch_events_max = 1000).await;
    let lines = |count: usize| {
        let lines: Vec<_> = (0..count).map(|n| format!(r#"{{"ename":"n{n}"}}"#)).collect();
        lines.join("\n")
    };
    let body = lines(1000);
    let response = post(&served, "/tr/v1/str", "application/x-ndjson", body).await;
    assert_eq!(response.status(), 200);
    assert_eq!(json(response).await["accepted"], 1000);
    let names = served.names();
    assert_eq!((names.len(), names[0].as_str(), names[999].as_str()), (1000, "n0", "n999"));
    let body = lines(1001);
    let response = post(&served, "/tr/v1/str", "application/x-ndjson", body).await;
    assert_eq!(response.status(), 413);
    assert_eq!(served.names().len(), 1000);
}

#[tokio::test(flavor = "multi_thread")]
async fn compressed_bodies_are_read_and_bombs_are_refused() {
    let served = Served::with(|setup| setup.server.http.inflated_bytes_max = 1000).await;
    let gzip = |text: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    };
    let send = async |encoding: &str, body: Vec<u8>| {
        let request = client().post(served.url("/tr/v1/tr")).header(CONTENT_ENCODING, encoding);
        request.body(body).send().await.unwrap().status()
    };
    assert_eq!(send("gzip", gzip(br#"{"ename":"g"}"#)).await, 200);
    // One uncompressed brotli block.
    let brotli = [&[0xc0, 0x00, 0x10], &br#"{"ename":"b"}"#[..], &[0x03]].concat();
    assert_eq!(send("br", brotli).await, 200);
    assert_eq!(send("gzip", gzip(&[b' '; 1001])).await, 413);
    assert_eq!(send("gzip", b"{}".to_vec()).await, 400);
    assert_eq!(send("zstd", b"{}".to_vec()).await, 415);
    assert_eq!(served.names(), ["g", "b"]);
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn only_clients_get_the_visitor_cookie_with_the_flags_of_their_transport() {
    let origin = "https://site.example";
    let served = Served::with(|setup| setup.server.http.allow_origins = vec![origin.into()]).await;
    let cookie = async |url: String, headers: &[(&'static str, &str)]| {
        let mut request = client().post(url).body("{}");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = request.send().await.unwrap();
        response.headers().get(SET_COOKIE).map(|value| value.to_str().unwrap().to_owned())
    };
    let plain = cookie(served.url("/tr/v1/tr"), &[]).await.unwrap();
    let id = plain.strip_prefix("vid=").unwrap().split(';').next().unwrap();
    assert_eq!(served.events()[0].who.vid.unwrap().to_string(), id);
    assert_eq!(plain, format!("vid={id}; Path=/; Max-Age=34560000; HttpOnly; SameSite=Lax"));
    let tls = cookie(served.tls_url("/tr/v1/tr"), &[]).await.unwrap();
    assert!(tls.ends_with("; HttpOnly; SameSite=Lax; Secure"), "{tls}");
    let cross = [("origin", origin), ("sec-fetch-site", "cross-site")];
    let cross = cookie(served.tls_url("/tr/v1/tr"), &cross).await.unwrap();
    assert!(cross.ends_with("; HttpOnly; SameSite=None; Secure"), "{cross}");
    let hostile = [("origin", "https://site.example.evil"), ("sec-fetch-site", "cross-site")];
    let hostile = cookie(served.tls_url("/tr/v1/tr"), &hostile).await.unwrap();
    assert!(hostile.ends_with("; SameSite=Lax; Secure"), "{hostile}");
    let same = [("cookie", format!("vid={VID}"))];
    let same: Vec<_> = same.iter().map(|(name, value)| (*name, value.as_str())).collect();
    if let Some(again) = cookie(served.url("/tr/v1/tr"), &same).await {
        assert!(again.starts_with(&format!("vid={VID};")), "a known visitor keeps the id: {again}");
    }
    assert_eq!(cookie(served.url("/tr/v1/str"), &[]).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_or_closed_journal_is_a_503_with_a_time_to_try_again() {
    let served = Served::start().await;
    let journal = served.app.journal.clone();
    tokio::task::spawn_blocking(move || journal.close()).await.unwrap();
    let response = post(&served, "/tr/v1/tr", "application/json", "{}").await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()[RETRY_AFTER], "1");
    assert_eq!(json(response).await["error"]["code"], "journal_failed");
    let response = post(&served, "/tr/v1/tr", "application/json", "[{},{}]").await;
    assert_eq!(response.status(), 503);
    let answer = json(response).await;
    assert_eq!(
        (&answer["accepted"], &answer["results"][0]["status"]),
        (&json!(0), &json!("retry"))
    );
    let response = client().get(served.url("/tr/v1/img")).send().await.unwrap();
    assert_eq!(response.status(), 503, "a 200 would say that it is stored");
    assert_eq!(response.headers()[CONTENT_TYPE], "image/gif");
    let response = client().get(served.url("/health")).send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(json(response).await["status"], "failing");
    served.balance();
}
