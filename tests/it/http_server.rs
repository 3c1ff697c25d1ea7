//! Listeners, protocols and the stop.

use std::time::Duration;

use reqwest::Version;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tracker::config::TlsConfig;

use crate::support::{Served, builder, client, until};

#[tokio::test(flavor = "multi_thread")]
async fn both_listeners_speak_both_protocols() {
    let served = Served::start().await;
    let check = async |client: reqwest::Client, url: String, version: Version| {
        let response = client.post(url).body(r#"{"ename":"x"}"#).send().await.unwrap();
        assert_eq!((response.status().as_u16(), response.version()), (200, version));
    };
    let http1 = || builder().http1_only().build().unwrap();
    let prior = builder().http2_prior_knowledge().build().unwrap();
    check(http1(), served.url("/tr/v1/tr"), Version::HTTP_11).await;
    check(prior, served.url("/tr/v1/tr"), Version::HTTP_2).await;
    check(http1(), served.tls_url("/tr/v1/tr"), Version::HTTP_11).await;
    check(client(), served.tls_url("/tr/v1/tr"), Version::HTTP_2).await;
    assert_eq!(served.names(), ["x", "x", "x", "x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generated_certificate_is_believed_once_it_is_trusted() {
    let served = Served::start().await;
    let pem = std::fs::read(served.folder.path().join("tls/cert.pem")).unwrap();
    drop(client());
    let trusting = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()])
        .build()
        .unwrap();
    for host in ["localhost", "127.0.0.1"] {
        let url = format!("https://{host}:{}/ping", served.https.port());
        assert_eq!(trusting.get(url).send().await.unwrap().status(), 200, "{host}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_files_are_served() {
    let made = tempfile::tempdir().unwrap();
    let names = vec!["localhost".to_owned()];
    let pair = rcgen::generate_simple_self_signed(names).unwrap();
    let (cert, key) = (made.path().join("c.pem"), made.path().join("k.pem"));
    std::fs::write(&cert, pair.cert.pem()).unwrap();
    std::fs::write(&key, pair.key_pair.serialize_pem()).unwrap();
    let served = Served::with(|setup| setup.server.tls = TlsConfig::Files { cert, key }).await;
    drop(client());
    let trusting = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([reqwest::Certificate::from_pem(pair.cert.pem().as_bytes()).unwrap()])
        .build()
        .unwrap();
    assert_eq!(trusting.get(served.tls_url("/ping")).send().await.unwrap().status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_lets_a_request_finish_and_closes_idle_connections_at_once() {
    let mut served = Served::start().await;
    let idle = client();
    idle.get(served.url("/ping")).send().await.unwrap();
    idle.get(served.tls_url("/ping")).send().await.unwrap();
    let silent = TcpStream::connect(served.http).await.unwrap();
    let mut busy = TcpStream::connect(served.http).await.unwrap();
    let head = b"POST /tr/v1/tr HTTP/1.1\r\nHost: a\r\nContent-Length: 16\r\n\
                 Expect: 100-continue\r\n\r\n";
    busy.write_all(head).await.unwrap();
    let mut goes_on = [0; 25];
    busy.read_exact(&mut goes_on).await.unwrap();
    assert_eq!(&goes_on, b"HTTP/1.1 100 Continue\r\n\r\n");
    busy.write_all(b"{\"ename\"").await.unwrap();
    until("all four are open", || served.app.metrics.connections.get() == 4).await;
    let address = served.http;
    let finish = async {
        until("the port is closed", || std::net::TcpStream::connect(address).is_err()).await;
        busy.write_all(b":\"last\"}").await.unwrap();
        let mut answer = String::new();
        busy.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let (took, answer) = tokio::join!(served.stop(), finish);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(took < Duration::from_millis(1500), "{took:?}");
    assert_eq!(served.names(), ["last"]);
    drop(silent);
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_cuts_off_who_does_not_finish_by_the_deadline() {
    let mut served =
        Served::with(|setup| setup.server.stop_deadline = Duration::from_millis(300)).await;
    let mut stalled = TcpStream::connect(served.http).await.unwrap();
    stalled
        .write_all(b"POST /tr/v1/tr HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
        .await
        .unwrap();
    until("it is open", || served.app.metrics.connections.get() == 1).await;
    let took = served.stop().await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    let mut rest = Vec::new();
    // Closed or reset, but not answered.
    let _ = stalled.read_to_end(&mut rest).await;
    assert_eq!(rest, b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_in_use_is_named() {
    let served = Served::start().await;
    let config = tracker::config::ServerConfig {
        listen_http: Some(served.http),
        listen_https: None,
        listen_redirect: None,
        public_host: None,
        acme: None,
        tls: TlsConfig::Generated { directory: served.folder.path().join("tls") },
        data_directory: served.folder.path().to_owned(),
        http: tracker::config::HttpConfig::default(),
        stop_deadline: Duration::from_secs(1),
    };
    let error = tracker::http::Server::bind(&config, served.app.clone()).err().unwrap();
    assert_eq!(error.to_string(), format!("listening at {}", served.http));
}
