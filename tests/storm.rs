//! More than the program can take, and everything it must still be true to: honest answers, bounded
//! memory, and books that balance.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "what fails here should fail the run, with the reason in words"
)]
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use support::{Client, Server, Site};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tracker");

/// What came back in a storm.
#[derive(Default)]
struct Tally {
    durable: AtomicU64,
    refused: AtomicU64,
    client_faults: AtomicU64,
    quarantined: AtomicU64,
}

/// `received = stored + quarantined + rejected + in flight`, read in one answer so that it must hold
/// at any time, not only at rest.
fn check_books(server: &Server) {
    let mut client = Client::connect(server.address).expect("connecting");
    let answer = client.request("GET", "/metrics?format=prometheus", &[], b"").expect("an answer");
    let text = String::from_utf8(answer.body).expect("text");
    let value = |name: &str| -> i64 {
        text.lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with([' ', '{'])))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<i64>().ok())
            .sum()
    };
    assert_eq!(
        value("tracker_events_received_total"),
        value("tracker_events_stored_total")
            + value("tracker_events_quarantined_total")
            + value("tracker_events_rejected_total")
            + value("tracker_events_in_flight"),
        "the books do not balance:\n{text}"
    );
}

/// One client that sends good events, batches, bad bodies and bad pixels, and judges each answer.
fn storm(address: SocketAddr, stop: &AtomicBool, tally: &Tally) {
    let mut client = Client::connect(address).expect("connecting");
    let mut turn = 0_u32;
    let large = json!({"ename": "large", "params": {"text": "x".repeat(60_000)}}).to_string();
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        let (method, path, body) = match turn % 8 {
            0 => ("POST", "/tr/v1/tr/", "{\"ename\":".to_owned()),
            1 => ("GET", "/tr/v1/img/?ename=seen&utm_source=storm", String::new()),
            2 => {
                let events: Vec<_> = (0..50).map(|n| json!({"ename": "many", "n": n})).collect();
                ("POST", "/tr/v1/tr/", json!(events).to_string())
            }
            3 => ("POST", "/tr/v1/str/", "{\"ename\":\"server\"}".to_owned()),
            4 => ("POST", "/tr/v1/tr/", large.clone()),
            5 => ("POST", "/tr/v1/tr/", "{\"ename\":\"good\"}\nno json\n".to_owned()),
            _ => ("POST", "/tr/v1/tr/", json!({"ename": "one", "turn": turn}).to_string()),
        };
        let answer = client.request(method, path, &[], body.as_bytes()).expect("an answer");
        match answer.status {
            200 => tally.durable.fetch_add(1, Ordering::Relaxed),
            207 => tally.quarantined.fetch_add(1, Ordering::Relaxed),
            400 => tally.client_faults.fetch_add(1, Ordering::Relaxed),
            429 | 503 => {
                assert!(answer.header("retry-after").is_some(), "a refusal without Retry-After");
                tally.refused.fetch_add(1, Ordering::Relaxed)
            }
            status => panic!("{method} {path} was answered {status}"),
        };
    }
}

fn run(site: &Site, clients: usize, length: Duration) -> (Server, Arc<Tally>, u64) {
    let server = site.start();
    let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Tally::default()));
    let threads: Vec<_> = (0..clients)
        .map(|_| {
            let (address, stop, tally) = (server.address, Arc::clone(&stop), Arc::clone(&tally));
            std::thread::spawn(move || storm(address, &stop, &tally))
        })
        .collect();
    let ends = Instant::now() + length;
    let mut peak = 0;
    while Instant::now() < ends {
        peak = peak.max(server.memory(site));
        check_books(&server);
        std::thread::sleep(Duration::from_millis(100));
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("a client");
    }
    (server, tally, peak)
}

#[test]
fn ten_times_too_much_is_answered_durably_or_refused_with_retry_after() {
    // A journal that takes eight appends at a time: most of what 80 clients send is too much.
    let site = Site::new(PROGRAM, json!({"JournalQueueRecords": 8}));
    let (server, tally, peak) = run(&site, 80, Duration::from_secs(5));
    let (durable, refused) =
        (tally.durable.load(Ordering::Relaxed), tally.refused.load(Ordering::Relaxed));
    assert!(durable > 0, "nothing was taken");
    assert!(refused > 0, "nothing was refused: the storm was none");
    server.drained();
    check_books(&server);
    assert!(peak < 256 << 20, "{} MiB of memory beside DuckDB's pool", peak >> 20);
    server.stop();
}

#[test]
fn after_a_storm_every_event_is_in_the_store_or_in_a_counter_with_its_reason() {
    let site = Site::new(PROGRAM, json!({}));
    let (server, tally, _) = run(&site, 16, Duration::from_secs(4));
    server.drained();
    check_books(&server);
    assert_eq!(server.metric("tracker_events_in_flight"), 0);
    let stored = server.metric("tracker_events_stored_total");
    let quarantined = server.metric("tracker_events_quarantined_total");
    assert_eq!(
        server.metric("tracker_events_rejected_total{reason=\"malformed\"}"),
        tally.client_faults.load(Ordering::Relaxed)
    );
    assert_eq!(quarantined, tally.quarantined.load(Ordering::Relaxed));
    assert_eq!(site.number("select count(*) as n from events"), stored);
    assert_eq!(site.number("select count(distinct eid) as n from events"), stored);
    assert_eq!(site.number("select count(*) as n from quarantine"), quarantined);
    server.stop();
}
