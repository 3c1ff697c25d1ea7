//! How long a visitor of a short link waits, beside the least a server can do, in one run on one
//! machine.
//!
//! The baseline is an axum handler that answers a 302; ours is the program as built, with
//! `Durability: disk` and DuckDB taking every visit meanwhile. Both are driven in turn, A B A B, at the
//! same fixed rate over kept connections: latency at a rate a machine bears says more about a redirect
//! than at its limit. The aim is a 99th percentile at most 1 ms above the baseline's.
//!
//! `cargo bench --bench redirect -- [seconds per round] [rounds] [requests/s]` (default 5, 3, 2000).

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    clippy::panic,
    reason = "what fails here should fail the run, with the reason in words"
)]
mod bare;
#[path = "../tests/support/mod.rs"]
mod support;

use std::io::Write as _;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use bare::Bare;
use serde_json::json;
use support::{Client, Server, Site};

const PROGRAM: &str = env!("CARGO_BIN_EXE_tracker");
const CONNECTIONS: u32 = 16;
const PASSWORD: &str = "correct horse battery";
/// `bench` and the password, as `Authorization: Basic` has them.
const BASIC: &str = "Basic YmVuY2g6Y29ycmVjdCBob3JzZSBiYXR0ZXJ5";
const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if args.first().is_some_and(|arg| arg == "--bare") {
        bare::serve(routes());
        return;
    }
    let number = |at: usize, default: u32| -> u32 {
        args.get(at).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (seconds, rounds, rate) = (number(0, 5), number(1, 3), number(2, 2000));
    println!("{rate} visits/s over {CONNECTIONS} connections, {rounds} rounds of {seconds} s each");
    let (mut bare_waits, mut our_waits) = (Vec::new(), Vec::new());
    let site = Site::new(PROGRAM, json!({"JournalSegmentBytes": "64MiB"}));
    add_account(&site);
    let server = site.start();
    make_link(&server);
    for _ in 0..rounds {
        let baseline = Bare::start();
        bare_waits.extend(drive(baseline.address, seconds, rate));
        drop(baseline);
        our_waits.extend(drive(server.address, seconds, rate));
    }
    server.drained();
    let stored = site.number("select count(*) from link_visits");
    assert_eq!(stored, our_waits.len() as u64, "every visit is in the store");
    let (bare, ours) = (Waits::of(bare_waits), Waits::of(our_waits));
    bare.print("bare handler");
    ours.print("short link");
    let over = ours.p99.as_secs_f64() - bare.p99.as_secs_f64();
    println!("  p99 over the bare handler's  {:.2} ms   (aim: 1.00 or less)", over * 1e3);
    server.stop();
}

/// Percentiles of one side.
struct Waits {
    p50: Duration,
    p99: Duration,
    p999: Duration,
    count: usize,
}

impl Waits {
    fn of(mut waits: Vec<Duration>) -> Self {
        waits.sort_unstable();
        let at = |part: f64| waits[((waits.len() - 1) as f64 * part) as usize];
        Self { p50: at(0.5), p99: at(0.99), p999: at(0.999), count: waits.len() }
    }

    fn print(&self, name: &str) {
        let ms = |wait: Duration| wait.as_secs_f64() * 1e3;
        println!(
            "  {name:<13} p50 {:.2} ms   p99 {:.2} ms   p99.9 {:.2} ms   ({} answers)",
            ms(self.p50),
            ms(self.p99),
            ms(self.p999),
            self.count
        );
    }
}

/// What each visitor waited, at `rate` in all.
fn drive(address: SocketAddr, seconds: u32, rate: u32) -> Vec<Duration> {
    let pause = Duration::from_secs(1) * CONNECTIONS / rate;
    let visits = rate * seconds / CONNECTIONS;
    let visitors: Vec<_> = (0..CONNECTIONS)
        .map(|number| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address).expect("connecting");
                let mut due = Instant::now() + pause * number / CONNECTIONS;
                let mut waits = Vec::with_capacity(visits as usize);
                let headers = [("User-Agent", AGENT), ("Accept-Language", "en")];
                for _ in 0..visits {
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    let sent = Instant::now();
                    let answer = client.request("GET", "/bench", &headers, b"").expect("an answer");
                    waits.push(sent.elapsed());
                    assert_eq!(answer.status, 302);
                    due += pause;
                }
                waits
            })
        })
        .collect();
    visitors.into_iter().flat_map(|visitor| visitor.join().expect("a visitor")).collect()
}

fn add_account(site: &Site) {
    let mut child = Command::new(PROGRAM)
        .args(["account", "add", "bench", "--password-stdin", "--config"])
        .arg(site.path().join("config.json"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("adding an account");
    let mut input = child.stdin.take().expect("its input");
    input.write_all(PASSWORD.as_bytes()).expect("writing the password");
    drop(input);
    assert!(child.wait().expect("its end").success());
}

fn make_link(server: &Server) {
    let deadline = Instant::now() + support::PATIENCE;
    let link = br#"{"urlfrom":"localhost/bench","urlto":"https://example.com/landing?a=b"}"#;
    let headers = [("Authorization", BASIC)];
    loop {
        let mut client = Client::connect(server.address).expect("connecting");
        let made = client.request("POST", "/tr/v1/rpi/redirect", &headers, link);
        // The store that knows the account opens behind the listener.
        if made.expect("an answer").status == 200 {
            return;
        }
        assert!(Instant::now() < deadline, "the link cannot be made");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The least a server can do for a visitor.
fn routes() -> axum::Router {
    let to = [("location", "https://example.com/landing?a=b")];
    let answer = move || async move { (axum::http::StatusCode::FOUND, to) };
    axum::Router::new().route("/bench", axum::routing::get(answer))
}
