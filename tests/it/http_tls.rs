//! Changed certificates, TLS versions, and the way from plain HTTP to HTTPS.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Certificate;
use tokio::net::TcpStream;
use tracker::config::TlsConfig;

use crate::support::{Served, builder, client, json, until};

/// A new pair for `localhost` in `folder`; the certificate's text.
fn write_pair(folder: &Path) -> String {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("k.pem"), made.key_pair.serialize_pem()).unwrap();
    std::fs::write(folder.join("c.pem"), made.cert.pem()).unwrap();
    made.cert.pem()
}

async fn with_files(folder: &Path) -> Served {
    let (cert, key) = (folder.join("c.pem"), folder.join("k.pem"));
    Served::with(|setup| setup.server.tls = TlsConfig::Files { cert, key }).await
}

async fn is_shown(served: &Served, pem: &str) -> bool {
    drop(client());
    let trusting = reqwest::Client::builder()
        .no_proxy()
        .tls_certs_only([Certificate::from_pem(pem.as_bytes()).unwrap()])
        .build()
        .unwrap();
    trusting.get(served.tls_url("/ping")).send().await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_pair_is_taken_up_while_every_handshake_succeeds() {
    let folder = tempfile::tempdir().unwrap();
    let first = write_pair(folder.path());
    let served = Arc::new(with_files(folder.path()).await);
    assert!(is_shown(&served, &first).await);
    let done = Arc::new(AtomicBool::new(false));
    let knocking = tokio::spawn({
        let (served, done) = (Arc::clone(&served), Arc::clone(&done));
        async move {
            let mut handshakes = 0;
            while !done.load(Ordering::Relaxed) {
                // A client of its own each time, so that each shakes hands.
                let answer = client().get(served.tls_url("/ping")).send().await;
                assert_eq!(answer.unwrap().status(), 200);
                handshakes += 1;
            }
            handshakes
        }
    });
    let second = write_pair(folder.path());
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while !is_shown(&served, &second).await {
        assert!(std::time::Instant::now() < deadline, "the new certificate is not shown");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    done.store(true, Ordering::Relaxed);
    assert!(knocking.await.unwrap() > 10);
    assert!(!is_shown(&served, &first).await);
    assert_eq!(served.app.metrics.certificate_failures.get(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_does_not_fit_is_refused_and_the_one_before_stays() {
    let folder = tempfile::tempdir().unwrap();
    let first = write_pair(folder.path());
    let served = with_files(folder.path()).await;
    std::fs::write(folder.path().join("c.pem"), "nothing").unwrap();
    assert!(served.app.reload_certificates().is_err());
    assert_eq!(served.app.metrics.certificate_failures.get(), 1);
    assert!(is_shown(&served, &first).await);
    write_pair(folder.path());
    let other = rcgen::KeyPair::generate().unwrap();
    std::fs::write(folder.path().join("k.pem"), other.serialize_pem()).unwrap();
    assert!(served.app.reload_certificates().is_err());
    assert!(is_shown(&served, &first).await);
    let second = write_pair(folder.path());
    served.app.reload_certificates().unwrap();
    assert!(is_shown(&served, &second).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_certificate_is_a_fact_of_health_and_a_metric() {
    let served = Served::start().await;
    let health = json(client().get(served.url("/health")).send().await.unwrap()).await;
    let certificate = &health["tls"]["certificates"][0];
    assert_eq!(certificate["source"], "generated");
    assert_eq!(certificate["names"], serde_json::json!(["localhost", "127.0.0.1", "::1"]));
    let end: chrono::DateTime<chrono::Utc> =
        certificate["expires_at"].as_str().unwrap().parse().unwrap();
    let metric = served.app.metrics.certificate_end.with_label_values(&["generated"]).get();
    assert_eq!(metric, end.timestamp());
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_1_2_and_1_3_are_spoken_and_nothing_older() {
    let served = Served::start().await;
    for version in [reqwest::tls::Version::TLS_1_2, reqwest::tls::Version::TLS_1_3] {
        let only = builder().tls_version_min(version).tls_version_max(version).build().unwrap();
        assert_eq!(only.get(served.tls_url("/ping")).send().await.unwrap().status(), 200);
    }
    // A client hello of TLS 1.0, as `openssl s_client -tls1` begins it: no supported_versions.
    let mut hello = vec![0x16, 3, 1, 0, 45, 1, 0, 0, 41, 3, 1];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0, 0x2f, 1, 0]);
    let mut stream = TcpStream::connect(served.https).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, &hello).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer);
    tokio::time::timeout(Duration::from_secs(10), read).await.unwrap().unwrap();
    assert_eq!(answer.first(), Some(&0x15), "an alert: {answer:?}");
}

async fn redirecting() -> Served {
    Served::with(|setup| {
        setup.server.listen_redirect = Some((Ipv4Addr::LOCALHOST, 0).into());
        setup.server.public_host = Some("t.example.com:8443".to_owned());
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_sent_on_to_the_configured_host_whatever_they_say() {
    let served = redirecting().await;
    let address = served.redirect.unwrap();
    for (name, value) in [
        ("Host", "evil.example"),
        ("X-Forwarded-Host", "evil.example"),
        ("X-Original-Host", "evil.example"),
        ("Forwarded", "host=evil.example"),
    ] {
        for method in [reqwest::Method::GET, reqwest::Method::POST] {
            let url = format!("http://{address}/tr/v1/tr/?a=b%20c");
            let request = client().request(method.clone(), url).header(name, value);
            let response = request.body("x").send().await.unwrap();
            assert_eq!(response.status(), 308, "a {method} stays one");
            let target = &response.headers()["location"];
            assert_eq!(target, "https://t.example.com:8443/tr/v1/tr/?a=b%20c", "{name}");
        }
    }
    assert_eq!(served.names(), [""; 0], "nothing is stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_and_challenges_are_answered_where_they_ask() {
    let served = redirecting().await;
    let at = |path: &str| format!("http://{}{path}", served.redirect.unwrap());
    let status = async |path: &str| client().get(at(path)).send().await.unwrap().status().as_u16();
    assert_eq!(status("/ping").await, 200);
    assert_eq!(status("/health").await, 200);
    assert_eq!(status("/.well-known/acme-challenge/none").await, 404);
    assert_eq!(status("/metrics").await, 308);
    until("it is counted", || {
        served.app.metrics.requests.with_label_values(&["none", "308"]).get() == 1
    })
    .await;
}
