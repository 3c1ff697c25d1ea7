//! Requests per second of the whole server against those of a bare axum handler, in one run.
//!
//! All answer the same POST over the same kind of connections from the same clients in this
//! process, in turns: a bare handler that takes the body; our `/ping`, which shows what listeners,
//! router and layer cost; and an event, which is read, built, enriched and journalled, and answered
//! after `fdatasync`. The last ratio is what a change may not lower.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails by panicking")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::any;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tracker::clock::{Clock, SystemClock};
use tracker::config::{
    Durability, HttpConfig, IntakeConfig, JournalConfig, ServerConfig, TlsConfig,
};
use tracker::geo::GeoDb;
use tracker::http::{AppState, Reading, Server};
use tracker::intake::Intake;
use tracker::journal::{Journal, Position, RealFs};
use tracker::telemetry::Metrics;

const ROUND: Duration = Duration::from_secs(2);
const ROUNDS: usize = 5;
const EVENT: &str = "/tr/v1/tr/";
const BODY: &str = r#"{"vid":"14fb0860-b4bf-11e9-8971-7b80435315ac","ename":"page_view","etyp":"view","url":"https://example.com/page?utm_source=news","tz":"America/Los_Angeles","device":"Desktop","os":"macOS"}"#;

#[tokio::main]
async fn main() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, app) = ours(folder.path());
    let bare = bare().await;
    println!("connections  bare req/s  ping req/s  event req/s  ping ratio  event ratio");
    for connections in [64, 256] {
        let (mut of_bare, mut of_ping, mut of_event) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            of_bare.push(load(bare, EVENT, connections).await);
            of_ping.push(load(ours, "/ping", connections).await);
            of_event.push(load(ours, EVENT, connections).await);
        }
        let (bare, ping, event) = (median(of_bare), median(of_ping), median(of_event));
        println!(
            "{connections:>11}  {bare:>10.0}  {ping:>10.0}  {event:>11.0}  {:>10.2}  {:>11.2}",
            ping / bare,
            event / bare
        );
    }
    println!(
        "{} events stored in {} commits",
        app.metrics.events_stored.get(),
        app.metrics.journal_commits.get()
    );
}

async fn bare() -> SocketAddr {
    let handler = any(|_: Bytes| async {});
    let router = Router::new().route(EVENT, handler);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    address
}

fn ours(folder: &std::path::Path) -> (SocketAddr, AppState) {
    let config = ServerConfig {
        listen_http: Some(([127, 0, 0, 1], 0).into()),
        listen_https: None,
        tls: TlsConfig::Generated { directory: folder.join("tls") },
        data_directory: folder.to_owned(),
        http: HttpConfig::default(),
        stop_deadline: Duration::from_secs(1),
    };
    let intake = IntakeConfig::new(folder.join("keys"));
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let metrics = Arc::new(Metrics::new().unwrap());
    let settings = JournalConfig::new(folder.join("journal"));
    let (c, m) = (Arc::clone(&clock), Arc::clone(&metrics));
    let (journal, _) = Journal::open(&settings, Position(0), Arc::new(RealFs), c, m).unwrap();
    let (c, m) = (Arc::clone(&clock), Arc::clone(&metrics));
    let geo = Arc::new(GeoDb::open(None).unwrap());
    let taker = Intake::open(&intake, geo, journal.clone(), c, m).unwrap();
    let app = AppState {
        intake: Arc::new(taker),
        journal,
        health: Arc::new(Vec::new),
        metrics,
        started_at: clock.wall(),
        clock,
        http: config.http.clone(),
        reading: Reading::from(&intake),
        durability: Durability::Disk,
        domains: Vec::new(),
    };
    let server = Server::bind(&config, app.clone()).unwrap();
    let address = server.http_address().unwrap();
    tokio::spawn(server.serve(CancellationToken::new()));
    (address, app)
}

/// Answers per second over `connections` that each ask again as soon as they are answered.
async fn load(address: SocketAddr, path: &'static str, connections: usize) -> f64 {
    let (answers, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let mut streams = Vec::new();
    for _ in 0..connections {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        streams.push(stream);
    }
    let started = Instant::now();
    let clients: Vec<_> = streams
        .into_iter()
        .map(|stream| tokio::spawn(ask(stream, path, Arc::clone(&answers), Arc::clone(&over))))
        .collect();
    tokio::time::sleep(ROUND).await;
    over.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let answers = u32::try_from(answers.load(Ordering::Relaxed)).unwrap();
    f64::from(answers) / started.elapsed().as_secs_f64()
}

async fn ask(mut stream: TcpStream, path: &str, answers: Arc<AtomicU64>, over: Arc<AtomicBool>) {
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: example.com\r\nContent-Type: application/json\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
         Accept-Language: en-US,en;q=0.5\r\nContent-Length: {}\r\n\r\n{BODY}",
        BODY.len()
    );
    let mut answer = [0; 2048];
    while !over.load(Ordering::Relaxed) {
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut read = 0;
        // An empty body, or `pong`: the end of the head is within the last eight bytes.
        while !ends(answer.get(..read).unwrap()) {
            read += stream.read(answer.get_mut(read..).unwrap()).await.unwrap();
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        answers.fetch_add(1, Ordering::Relaxed);
    }
}

fn ends(answer: &[u8]) -> bool {
    answer.ends_with(b"\r\n\r\n") || answer.ends_with(b"\r\n\r\npong")
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap()
}
