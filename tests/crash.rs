//! The sentence of the product, tried: the real program under load, killed at random moments.
//!
//! The client keeps the ledger. Whatever was answered with a durable 200 must stand in DuckDB
//! exactly once when the program has come back, however often it was killed on the way.
//! `TRACKER_CRASH_CYCLES` sets the number of kills (default 100).

#![expect(
    clippy::expect_used,
    reason = "what fails here should fail the run, with the reason in words"
)]
mod support;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use support::{Client, Site};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tracker");
const CLIENTS: usize = 4;

/// Posts events until the connection breaks or `stop` is set; the ids that were acknowledged.
fn load(address: SocketAddr, stop: &AtomicBool) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let Ok(mut client) = Client::connect(address) else { return acknowledged };
    let mut turn = 0_u32;
    while !stop.load(Ordering::Relaxed) {
        turn += 1;
        // Every eighth request is a batch, so that both answers are in the ledger.
        let ids: Vec<String> = (0..if turn.is_multiple_of(8) { 5 } else { 1 })
            .map(|_| uuid::Uuid::now_v7().to_string())
            .collect();
        let events: Vec<_> = ids
            .iter()
            .map(|id| json!({"eid": id, "ename": "load", "etyp": "crash", "n": turn}))
            .collect();
        let body = match events.as_slice() {
            [single] => single.to_string(),
            many => json!(many).to_string(),
        };
        match client.request("POST", "/tr/v1/tr/", &[], body.as_bytes()) {
            Ok(answer) if answer.status == 200 => acknowledged.extend(ids),
            Ok(answer) => assert_eq!(answer.status, 503, "neither stored nor refused"),
            Err(_) => break,
        }
    }
    acknowledged
}

/// Runs the load for `length` and then does `then` to the server; the ids acknowledged meanwhile.
fn under_load(
    server: support::Server,
    length: Duration,
    then: impl FnOnce(support::Server),
) -> Vec<String> {
    let stop = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let (address, stop) = (server.address, Arc::clone(&stop));
            std::thread::spawn(move || load(address, &stop))
        })
        .collect();
    std::thread::sleep(length);
    then(server);
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
}

fn check_ledger(site: &Site, ledger: &HashSet<String>) {
    let stored: Vec<String> = site
        .query("select eid::varchar as eid from events")
        .iter()
        .map(|row| row["eid"].as_str().expect("an id").to_owned())
        .collect();
    let distinct: HashSet<&String> = stored.iter().collect();
    assert_eq!(distinct.len(), stored.len(), "events that stand more than once");
    let lost: Vec<_> = ledger.iter().filter(|id| !distinct.contains(id)).collect();
    assert!(
        lost.is_empty(),
        "{} of {} acknowledged events are lost: {lost:?}\n{}",
        lost.len(),
        ledger.len(),
        evidence(site)
    );
}

/// What the data folder holds, and what servers complained of.
fn evidence(site: &Site) -> String {
    let folder = std::fs::read_dir(site.path().join("data")).expect("the data folder");
    let names: Vec<_> = folder.filter_map(Result::ok).map(|entry| entry.file_name()).collect();
    let log = std::fs::read_to_string(site.path().join("log")).expect("the log");
    let is_complaint = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
    let complaints: Vec<&str> = log.lines().filter(is_complaint).collect();
    format!("{names:?}\n{}", complaints.join("\n"))
}

fn cycles() -> usize {
    std::env::var("TRACKER_CRASH_CYCLES").ok().and_then(|n| n.parse().ok()).unwrap_or(100)
}

fn site() -> Site {
    Site::new(
        PROGRAM,
        json!({"Notify": [{"Type": "duckdb", "MaxBatchTime": "50ms", "QueryMaxRows": 10_000_000}]}),
    )
}

#[test]
fn nothing_acknowledged_is_lost_by_kill_and_nothing_stands_twice() {
    let site = site();
    let mut ledger = HashSet::new();
    for cycle in 0..cycles() {
        let length = Duration::from_millis(rand::random_range(5..250));
        let server = site.start();
        ledger.extend(under_load(server, length, support::Server::kill));
        if cycle % 10 == 9 {
            let server = site.start();
            server.drained();
            server.stop();
            check_ledger(&site, &ledger);
        }
    }
    let server = site.start();
    server.drained();
    server.stop();
    assert!(ledger.len() > cycles(), "the load was no load: {} events", ledger.len());
    check_ledger(&site, &ledger);
}

#[test]
fn one_duckdb_file_opens_with_the_same_rows_after_every_kill_and_stop() {
    let site = site();
    // A file that is killed while it is made holds nothing, and may be set aside.
    let server = site.start();
    server.drained();
    server.stop();
    let mut ledger = HashSet::new();
    for cycle in 0..cycles().div_ceil(5) {
        let killed = under_load(site.start(), Duration::from_millis(60), support::Server::kill);
        ledger.extend(killed);
        let server = site.start();
        server.drained();
        server.stop();
        let server = site.start();
        check_ledger(&site, &ledger);
        let rows = site.number("select count(*) as n from events");
        server.stop();
        assert_eq!(site.number("select count(*) as n from events"), rows, "cycle {cycle}");
    }
    let aside = std::fs::read_dir(site.path().join("data"))
        .expect("the data folder")
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_string_lossy().contains("corrupt"))
        .count();
    assert_eq!(aside, 0, "a file was set aside");
}

#[test]
fn stop_under_load_loses_nothing_and_takes_two_seconds_at_most() {
    let site = site();
    let mut ledger = HashSet::new();
    for _ in 0..5 {
        let server = site.start();
        let mut took = Duration::ZERO;
        ledger
            .extend(under_load(server, Duration::from_millis(200), |server| took = server.stop()));
        assert!(took <= Duration::from_secs(2), "stop took {took:?}");
    }
    let asked = Instant::now();
    let server = site.start();
    server.drained();
    server.stop();
    assert!(asked.elapsed() < support::PATIENCE);
    check_ledger(&site, &ledger);
}
