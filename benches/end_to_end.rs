//! From socket to DuckDB beside the least a server can do, in one run on one machine.
//!
//! The baseline is an axum handler that reads the body and answers 200. Ours is the program as
//! built, with everything on and `Durability: disk`. Both are driven by `wrk` (which must be
//! installed) in turn, A B A B, so that a machine whose speed drifts does not favour either; the
//! medians of the rounds are printed, and their ratio. Absolute numbers on shared machines mean
//! little; the ratio travels.
//!
//! `cargo bench --bench end_to_end -- [seconds per round] [rounds]` (default 6 and 3).

#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what fails here should fail the run, with the reason in words"
)]
mod bare;
mod load;
#[path = "../tests/support/mod.rs"]
mod support;

use std::time::Instant;

use bare::Bare;
use load::{median, middle, watching, wrk};
use serde_json::json;
use support::{Server, Site};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tracker");
const CONNECTIONS: [u32; 3] = [64, 128, 256];
const STORED: &str = "tracker_sink_rows_total{sink=\"duckdb\",table=\"events\"}";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if args.first().is_some_and(|arg| arg == "--bare") {
        bare::serve(routes());
        return;
    }
    let seconds = args.first().and_then(|n| n.parse().ok()).unwrap_or(6);
    let rounds = args.get(1).and_then(|n| n.parse().ok()).unwrap_or(3);
    println!("{seconds} s a round, {rounds} rounds of each, medians");
    for connections in CONNECTIONS {
        compare(connections, seconds, rounds);
    }
}

fn compare(connections: u32, seconds: u32, rounds: usize) {
    let (mut bare_rounds, mut our_rounds) = (Vec::new(), Vec::new());
    let (mut stored_rates, mut lags, mut drain_rates) = (Vec::new(), Vec::new(), Vec::new());
    let (mut peaks, mut starts) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let baseline = Bare::start();
        bare_rounds.push(wrk(baseline.address, connections, seconds, "/"));
        drop(baseline);

        let site = Site::new(PROGRAM, json!({"JournalSegmentBytes": "64MiB"}));
        let server = site.start();
        starts.push(server.listening.as_secs_f64() * 1e3);
        // DuckDB opens behind the listener; the round measures the steady state.
        support::Client::connect(server.address)
            .and_then(|mut client| {
                client.request("POST", "/tr/v1/tr/", &[], b"{\"ename\":\"warm\"}")
            })
            .expect("a first event");
        server.drained();
        let before = server.metric(STORED);
        let started = Instant::now();
        let (round, peak) = watching(
            || server.memory(&site),
            || wrk(server.address, connections, seconds, "/tr/v1/tr/"),
        );
        peaks.push(peak as f64 / f64::from(1 << 20));
        let stored = server.metric(STORED) - before;
        stored_rates.push(stored as f64 / started.elapsed().as_secs_f64());
        our_rounds.push(round);
        let lag = lag(&server);
        lags.push(lag as f64);
        let draining = Instant::now();
        server.drained();
        drain_rates.push(lag as f64 / draining.elapsed().as_secs_f64().max(0.001));
        let received = server.metric("tracker_events_received_total");
        assert_eq!(
            received,
            server.metric("tracker_events_stored_total")
                + server.metric("tracker_events_quarantined_total")
                + server.metric_sum("tracker_events_rejected_total")
                + server.metric("tracker_events_in_flight"),
            "received is not stored + quarantined + rejected + in flight"
        );
        server.stop();
    }
    let (bare, ours) = (middle(&bare_rounds), middle(&our_rounds));
    println!("\n{connections} connections");
    bare.print("  bare handler ");
    ours.print("  tracker      ");
    println!("  ratio          {:>10.2}   (reach: 0.40 or more)", ours.rate / bare.rate);
    println!("  p99 ratio      {:>10.1}   (reach: 10 or less)", ours.p99_ms / bare.p99_ms);
    println!(
        "  DuckDB         {:>10.0} rows/s under load, then {:.0} rows behind, drained at {:.0} rows/s",
        median(stored_rates),
        median(lags),
        median(drain_rates)
    );
    println!(
        "  memory         {:>10.0} MiB peak without DuckDB's pool (reach: 128)",
        median(peaks)
    );
    println!("  start          {:>10.0} ms to listening (reach: 150)", median(starts));
}

fn lag(server: &Server) -> u64 {
    server.health()["sinks"][0]["lag_events"].as_u64().expect("a lag")
}

/// The least a server can do with a POST.
fn routes() -> axum::Router {
    axum::Router::new()
        .route("/", axum::routing::post(|body: bytes::Bytes| async move { drop(body) }))
}
