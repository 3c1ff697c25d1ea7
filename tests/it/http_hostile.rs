//! One malformed or hostile request costs no more than itself.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Served, client, json, until};

fn post(headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST /tr/v1/tr/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_requests_are_answered_and_the_server_goes_on() {
    let served = Served::start().await;
    let check = async |what: &str, request: &[u8], status: &str| {
        let answer = served.raw(request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{what}: {answer}");
    };
    check("user null", &post("User: null\r\n", "{}"), "200").await;
    check("user text", &post("User: \"x\"\r\n", "{}"), "200").await;
    check("user no json", &post("User: {{{\r\n", "{}"), "200").await;
    check("no json", &post("", "{"), "400").await;
    check("nul in json", &post("", "{\"ename\":\"a\\u0000b\"}"), "200").await;
    check("raw nul in json", &post("", "{\"ename\":\"a\0b\"}"), "400").await;
    check("brackets", &post("", &"[".repeat(10_000)), "400").await;
    let closed = "[".repeat(10_000) + &"]".repeat(10_000);
    check("closed brackets", &post("", &closed), "400").await;
    let deep = format!("{{\"a\":{}1{}}}", "[".repeat(100), "]".repeat(100));
    check("deep", &post("", &deep), "400").await;
    let keys: Vec<String> = (0..100_000).map(|n| format!("\"k{n}\":1")).collect();
    check("many keys", &post("", &format!("{{{}}}", keys.join(","))), "413").await;
    check("bad encoding", &post("Content-Encoding: gzip\r\n", "{}"), "400").await;
    let get = |line: &str| format!("{line}\r\nHost: a\r\nConnection: close\r\n\r\n").into_bytes();
    check("one letter", &get("A /tr/v1/tr/ HTTP/1.1"), "405").await;
    check("bad percent", &get("GET /tr/v1/tr/ename/%zz%f?x=%&y=%ff HTTP/1.1"), "200").await;
    check("nul in path", &get("GET /tr/v1/tr/\0 HTTP/1.1"), "400").await;
    check("empty host", b"GET /tr/v1/tr/ HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n", "200")
        .await;
    let old = served.raw(b"GET /tr/v1/tr/ename/old HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200"), "{old}");
    let huge = format!("X-Huge: {}\r\n", "x".repeat(70_000));
    check("huge header", &post(&huge, "{}"), "431").await;
    let many = "X-Many: 1\r\n".repeat(200);
    check("many headers", &post(&many, "{}"), "431").await;
    check("smuggled", &post("Transfer-Encoding: chunked\r\n", "0\r\n\r\n"), "").await;
    check("garbage", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", "400").await;
    let response = client().get(served.url("/ping")).send().await.unwrap();
    assert_eq!(response.status(), 200);
    until("no connection is left behind", || served.app.metrics.connections.get() <= 1).await;
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_one_byte_too_large_is_a_413_before_it_is_sent() {
    let served = Served::with(|setup| setup.server.http.body_bytes_max = 100).await;
    let head = "POST /tr/v1/tr HTTP/1.1\r\nHost: a\r\n";
    let body = format!("{{\"a\":\"{}\"}}", "x".repeat(100 - 8));
    assert_eq!(body.len(), 100);
    let fits = format!("{head}Connection: close\r\nContent-Length: 100\r\n\r\n{body}");
    assert!(served.raw(fits.as_bytes()).await.starts_with("HTTP/1.1 200"));
    let promised = format!("{head}Content-Length: 101\r\n\r\n");
    let answer = served.raw(promised.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n65\r\n{body}x\r\n0\r\n\r\n");
    assert!(served.raw(chunked.as_bytes()).await.starts_with("HTTP/1.1 413"));
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_sends_slowly_is_cut_off() {
    let limit = Duration::from_millis(300);
    let served = Served::with(|setup| setup.server.http.timeout = limit).await;
    let started = Instant::now();
    let (silent, head, body) = tokio::join!(
        served.raw(b""),
        served.raw(b"POST /tr/v1/tr HTTP/1.1\r\nHost: a\r\nX-Slow"),
        served.raw(b"POST /tr/v1/tr HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{\"a\""),
    );
    assert_eq!(silent, "");
    assert_eq!(head, "");
    assert!(body.starts_with("HTTP/1.1 408"), "{body}");
    assert!(started.elapsed() >= limit && started.elapsed() < Duration::from_secs(5));
    until("permits are given back", || served.app.metrics.connections.get() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_too_many_is_told_so_and_the_permits_come_back() {
    let served = Served::with(|setup| setup.server.http.connections_max = 2).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(TcpStream::connect(served.http).await.unwrap());
    }
    until("both are held", || served.app.metrics.connections.get() == 2).await;
    let response = client().get(served.url("/ping")).send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(json(response).await["error"]["code"], "too_many_connections");
    assert_eq!(client().get(served.tls_url("/ping")).send().await.unwrap().status(), 503);
    assert_eq!(served.app.metrics.connections_refused.get(), 2);
    drop(held);
    until("both are free", || served.app.metrics.connections.get() == 0).await;
    assert_eq!(client().get(served.url("/ping")).send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let served = Served::start().await;
    let one = "GET /tr/v1/tr/ename/p HTTP/1.1\r\nHost: a\r\n\r\n";
    let last = "GET /ping HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = served.raw(format!("{}{last}", one.repeat(20)).as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200").count(), 21);
    assert!(answer.ends_with("pong"), "{answer}");
    assert_eq!(served.names().len(), 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_goes_away_leaves_no_event_uncounted() {
    let served = Served::start().await;
    for _ in 0..20 {
        let mut stream = TcpStream::connect(served.http).await.unwrap();
        stream.write_all(&post("", "{\"ename\":\"gone\"}")).await.unwrap();
    }
    until("all are stored", || served.app.metrics.events_stored.get() == 20).await;
    served.balance();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_closed_connection_still_gets_its_answer() {
    let served = Served::start().await;
    let mut stream = TcpStream::connect(served.http).await.unwrap();
    stream.write_all(&post("", "{}")).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
