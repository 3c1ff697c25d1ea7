//! A server in a temporary folder, and the means to talk to it and to read what it stored.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use chrono::Utc;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracker::backends::Store;
use tracker::clock::{Clock, SystemClock};
use tracker::config::{
    Durability, IntakeConfig, JournalConfig, LinksConfig, ServerConfig, TlsConfig,
};
use tracker::consent::Consent;
use tracker::delivery::SinkHealth;
use tracker::event::{self, Body, Event};
use tracker::geo::GeoDb;
use tracker::http::{AppState, Certificates, Proxies, Reading, Server};
use tracker::intake::Intake;
use tracker::journal::{Journal, Position, RealFs};
use tracker::links::Links;
use tracker::links::accounts::Accounts;
use tracker::telemetry::Metrics;

/// Everything a test may change before the start.
pub struct Setup {
    /// Listeners and bounds; both listeners have free ports.
    pub server: ServerConfig,
    /// Fields and privacy.
    pub intake: IntakeConfig,
    /// Destinations and files.
    pub links: LinksConfig,
    /// What routes ask; none.
    pub store: Option<Arc<dyn Store>>,
    /// Where an address is; knows nothing.
    pub geo: GeoDb,
}

/// A running server; stops and removes its folder when dropped.
pub struct Served {
    pub http: SocketAddr,
    pub https: SocketAddr,
    pub redirect: Option<SocketAddr>,
    pub app: AppState,
    pub sinks: Arc<Mutex<Vec<SinkHealth>>>,
    pub folder: TempDir,
    stop: CancellationToken,
    task: Option<JoinHandle<()>>,
}

impl Served {
    /// With the defaults.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let mut setup = Setup {
            server: ServerConfig {
                listen_http: Some(([127, 0, 0, 1], 0).into()),
                listen_https: Some(([127, 0, 0, 1], 0).into()),
                listen_redirect: None,
                public_host: None,
                tls: TlsConfig::Generated { directory: at("tls") },
                acme: None,
                data_directory: folder.path().to_owned(),
                http: tracker::config::HttpConfig::default(),
                stop_deadline: Duration::from_millis(1500),
            },
            intake: IntakeConfig::new(at("keys")),
            links: LinksConfig::default(),
            store: None,
            geo: GeoDb::none(),
        };
        change(&mut setup);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut journal = JournalConfig::new(at("journal"));
        journal.segment_bytes = 1 << 20;
        let (journal, _) = Journal::open(
            &journal,
            Position(0),
            Arc::new(RealFs),
            Arc::clone(&clock),
            Arc::clone(&metrics),
        )
        .unwrap();
        let intake = Intake::open(
            &setup.intake,
            Arc::new(setup.geo.clone()),
            journal.clone(),
            Arc::clone(&metrics),
        )
        .unwrap();
        let sinks = Arc::new(Mutex::new(Vec::new()));
        let health = Arc::clone(&sinks);
        let certificates = Certificates::open(
            &setup.server,
            &setup.intake.domains,
            Arc::clone(&clock),
            Arc::clone(&metrics),
        )
        .unwrap();
        let proxies = Proxies::open(&setup.server.http.proxies, &metrics).unwrap();
        let stored: tracker::fresh::StoredUpTo = Arc::new(|| Position(0));
        let consent = Consent::new(setup.store.clone(), stored, Arc::clone(&clock), journal.node());
        let app = AppState {
            intake: Arc::new(intake),
            links: Arc::new(Links::new(
                setup.store.clone(),
                Arc::new(|| Position(0)),
                Arc::clone(&clock),
            )),
            accounts: Arc::new(Accounts::new(setup.store.clone(), Arc::clone(&clock))),
            site: setup.links.clone(),
            journal,
            consent: Arc::new(consent),
            geo: Arc::new(setup.geo),
            health: Arc::new(move || health.lock().unwrap().clone()),
            metrics,
            clock,
            http: setup.server.http.clone(),
            reading: Reading::from(&setup.intake),
            started_at: Utc::now(),
            durability: Durability::Disk,
            certificates,
            proxies,
            disbelieved: Arc::default(),
        };
        let server = Server::bind(&setup.server, app.clone()).unwrap();
        let (http, https) = (server.http_address().unwrap(), server.https_address().unwrap());
        let redirect = server.redirect_address();
        let stop = CancellationToken::new();
        let task = Some(tokio::spawn(server.serve(stop.clone())));
        Self { http, https, redirect, app, sinks, folder, stop, task }
    }

    /// `http://…` and the path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.http)
    }

    pub fn tls_url(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.https.port())
    }

    /// Stops the server and says how long that took.
    pub async fn stop(&mut self) -> Duration {
        let started = Instant::now();
        self.stop.cancel();
        self.task.take().unwrap().await.unwrap();
        started.elapsed()
    }

    /// Every event in the journal, in order.
    pub fn events(&self) -> Vec<Event> {
        let mut reader = self.app.journal.reader(Position(0));
        let mut events = Vec::new();
        loop {
            let records = reader.read(1 << 20).unwrap();
            if records.is_empty() {
                return events;
            }
            events.extend(records.iter().map(|record| event::decode(&record.bytes).unwrap()));
        }
    }

    /// The names of the tracked events, in order; quarantine is `!` and its reason.
    pub fn names(&self) -> Vec<String> {
        let name = |event: Event| match event.body {
            Body::Track(track) => track.ename.unwrap_or_default(),
            Body::Payment(_) => "!payment".to_owned(),
            Body::Agreement(_) => "!agreement".to_owned(),
            Body::Link(link) => link.urlfrom,
            Body::Quarantine(quarantine) => format!("!{}", quarantine.reason.as_str()),
        };
        self.events().into_iter().map(name).collect()
    }

    /// What this connection answers to these bytes, until it is closed.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.http).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let outcome = tokio::time::timeout(Duration::from_secs(10), read).await;
        outcome.expect("the server closes the connection").unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// The identity that must hold whenever nothing is in flight. What is set aside is not waited for
    /// by its answer, so it may still be on its way.
    pub fn balance(&self) {
        let metrics = &self.app.metrics;
        let deadline = Instant::now() + Duration::from_secs(10);
        while metrics.events_in_flight.get() != 0 {
            assert!(Instant::now() < deadline, "events are in flight for ever");
            std::thread::sleep(Duration::from_millis(2));
        }
        let known =
            metrics.events_stored.get() + metrics.events_quarantined.get() + metrics.rejected();
        assert_eq!(metrics.events_received.get(), known, "every event has an outcome");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A client that believes any certificate and follows nothing.
pub fn client() -> reqwest::Client {
    builder().build().unwrap()
}

pub fn builder() -> reqwest::ClientBuilder {
    // A second installation in this process finds the first, which is the same.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    reqwest::Client::builder()
        .danger_accept_invalid_certs(true)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
}

/// The body as JSON.
pub async fn json(response: reqwest::Response) -> Value {
    let text = response.text().await.unwrap();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Waits until `done`, or fails with `what`.
pub async fn until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
