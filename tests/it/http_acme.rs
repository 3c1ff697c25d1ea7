//! Certificates by ACME from a real authority: Pebble, Let's Encrypt's own test server.
//!
//! Where it is not installed the tests say so and what to install; in CI that is a failure.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use reqwest::Certificate;
use tempfile::TempDir;
use tracker::config::{AcmeChallenge, AcmeConfig, TlsConfig};

use crate::support::{Served, Setup, client, json, until};

const PATIENCE: Duration = Duration::from_secs(60);
const NAMES: [&str; 2] = ["one.example.net", "two.example.net"];

/// A port that was free a moment ago: the authority must know ours before we listen. Below those
/// that the system gives to the tests beside this one.
fn free_port() -> u16 {
    let mut ports = std::iter::repeat_with(|| rand::random_range(15_000..30_000));
    ports.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).unwrap()
}

/// The running authority; ends with this value.
struct Authority {
    child: Child,
    folder: TempDir,
    directory: u16,
    roots: u16,
    tls: u16,
    http: u16,
}

impl Authority {
    /// `None` where Pebble is not installed and need not be.
    fn start(nonce_reject: &str, valid_seconds: &str) -> Option<Self> {
        let found = Command::new("pebble").arg("-version").output().is_ok();
        if !found {
            assert!(std::env::var_os("CI").is_none(), "pebble is not installed; run .ci/services");
            eprintln!("not tested: certificates by ACME; apt-get install -y pebble");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let [directory, roots, dns, tls, http] = [(); 5].map(|()| free_port());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/services/pebble");
        let mut child = Command::new(script)
            .arg(folder.path())
            .args([directory, roots, dns, tls, http].map(|port| port.to_string()))
            .env("NONCEREJECT", nonce_reject)
            .env("VALID_SECONDS", valid_seconds)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Some(Self { child, folder, directory, roots, tls, http })
    }

    fn config(&self, challenge: AcmeChallenge, folder: PathBuf) -> AcmeConfig {
        AcmeConfig {
            domains: NAMES.map(str::to_owned).into(),
            email: Some("admin@example.net".to_owned()),
            directory_url: format!("https://localhost:{}/dir", self.directory),
            ca_cert: Some(self.folder.path().join("ca.pem")),
            challenge,
            folder,
        }
    }

    /// The root of what it issues.
    async fn root(&self) -> Certificate {
        let url = format!("https://localhost:{}/roots/0", self.roots);
        let pem = client().get(url).send().await.unwrap().bytes().await.unwrap();
        Certificate::from_pem(&pem).unwrap()
    }

    /// A server whose names this authority finds, with its data in `data`.
    async fn served(&self, challenge: AcmeChallenge, data: &Path) -> Served {
        let (acme, local) = (data.join("tls/acme"), data.join("tls"));
        let config = self.config(challenge, acme);
        let (tls, http) = (self.tls, self.http);
        Served::with(|setup: &mut Setup| {
            setup.server.listen_https = Some((Ipv4Addr::LOCALHOST, tls).into());
            setup.server.listen_redirect = Some((Ipv4Addr::LOCALHOST, http).into());
            setup.server.public_host = Some("one.example.net".to_owned());
            setup.server.tls = TlsConfig::Generated { directory: local };
            setup.server.acme = Some(config);
        })
        .await
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        drop(Command::new("kill").args(["-s", "TERM", &pid]).status());
        drop(self.child.wait());
    }
}

/// Whether a client that believes only `root` gets an answer as `host`.
async fn is_believed(root: &Certificate, host: &str, address: SocketAddr) -> bool {
    let client = reqwest::Client::builder()
        .no_proxy()
        .resolve(host, address)
        .tls_certs_only([root.clone()])
        .build()
        .unwrap();
    let url = format!("https://{host}:{}/ping", address.port());
    client.get(url).send().await.is_ok_and(|response| response.status() == 200)
}

async fn until_believed(root: &Certificate, host: &str, address: SocketAddr) {
    let deadline = Instant::now() + PATIENCE;
    while !is_believed(root, host, address).await {
        assert!(Instant::now() < deadline, "no certificate for {host}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// From nothing to a certificate for both names, kept with the right modes, and found again.
async fn orders_and_keeps(challenge: AcmeChallenge, nonce_reject: &str) {
    let Some(authority) = Authority::start(nonce_reject, "7776000") else { return };
    drop(client());
    let root = authority.root().await;
    let data = tempfile::tempdir().unwrap();
    let mut served = authority.served(challenge, data.path()).await;
    let local = std::fs::read(data.path().join("tls/cert.pem")).unwrap();
    let local = Certificate::from_pem(&local).unwrap();
    assert!(is_believed(&local, "localhost", served.https).await, "the local one serves meanwhile");
    for name in NAMES {
        until_believed(&root, name, served.https).await;
    }
    assert!(is_believed(&local, "localhost", served.https).await, "and goes on for its own names");
    let health = json(client().get(served.url("/health")).send().await.unwrap()).await;
    let issued = &health["tls"]["certificates"][1];
    assert_eq!(issued["source"], "acme", "{health}");
    assert_eq!(issued["names"], serde_json::json!(NAMES));
    let end = served.app.metrics.certificate_end.with_label_values(&["acme"]).get();
    let days = (end - chrono::Utc::now().timestamp()) / 86_400;
    assert!((88..=90).contains(&days), "{days}");

    let folder = data.path().join("tls/acme");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    let kept = || -> Vec<PathBuf> {
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect()
    };
    let is_kept = |path: &PathBuf| path.extension().is_some_and(|end| end == "pem");
    until("it is kept", || kept().iter().any(is_kept)).await;
    let kept = kept();
    assert_eq!(kept.len(), 2, "{kept:?}");
    assert!(kept.iter().all(|path| mode(path) == 0o600), "{kept:?}");

    let config = AcmeConfig { ca_cert: None, ..authority.config(challenge, folder) };
    served.stop().await;
    drop(authority);
    let again = Served::with(|setup| {
        setup.server.tls = TlsConfig::Generated { directory: data.path().join("tls") };
        setup.server.acme = Some(config);
    })
    .await;
    assert!(is_believed(&root, NAMES[1], again.https).await, "the kept one serves from the start");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_had_by_tls_alpn_01_and_kept() {
    orders_and_keeps(AcmeChallenge::TlsAlpn, "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_had_by_http_01_and_kept() {
    orders_and_keeps(AcmeChallenge::Http, "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_nonces_cost_another_attempt_and_no_more() {
    orders_and_keeps(AcmeChallenge::TlsAlpn, "5").await;
    orders_and_keeps(AcmeChallenge::Http, "5").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_renewed_before_its_end_without_a_failed_handshake() {
    let Some(authority) = Authority::start("0", "15") else { return };
    drop(client());
    let root = authority.root().await;
    let data = tempfile::tempdir().unwrap();
    let served = authority.served(AcmeChallenge::TlsAlpn, data.path()).await;
    until_believed(&root, NAMES[0], served.https).await;
    let end = || served.app.metrics.certificate_end.with_label_values(&["acme"]).get();
    let first = end();
    let deadline = Instant::now() + PATIENCE;
    while end() == first {
        assert!(is_believed(&root, NAMES[0], served.https).await, "it serves all the while");
        assert!(Instant::now() < deadline, "not renewed");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(chrono::Utc::now().timestamp() < first, "renewed before its end");
    assert!(is_believed(&root, NAMES[0], served.https).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_authority_the_local_certificate_serves_and_the_failure_is_named() {
    let nobody = free_port();
    let served = Served::with(|setup| {
        setup.server.acme = Some(AcmeConfig {
            domains: vec!["one.example.net".to_owned()],
            email: None,
            directory_url: format!("https://localhost:{nobody}/dir"),
            ca_cert: None,
            challenge: AcmeChallenge::TlsAlpn,
            folder: setup.server.data_directory.join("tls/acme"),
        });
    })
    .await;
    until("a failure is counted", || served.app.metrics.acme_failures.get() > 0).await;
    let health = json(client().get(served.tls_url("/health")).send().await.unwrap()).await;
    assert_eq!(health["status"], "ok");
    assert!(health["tls"]["acme_error"].as_str().is_some_and(|error| !error.is_empty()));
    assert_eq!(health["tls"]["certificates"].as_array().unwrap().len(), 1);
}
