//! What drives the program in benches, and what is made of the figures.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::missing_panics_doc,
    reason = "shared by benches, each of which uses its part"
)]

use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What `wrk` saw in one round.
#[derive(Clone, Copy)]
pub struct Round {
    /// Answers a second.
    pub rate: f64,
    /// Of the answers' latency.
    pub p50_ms: f64,
    /// Of the answers' latency.
    pub p99_ms: f64,
    /// Answers that are no success.
    pub refused: u64,
    /// Requests without an answer.
    pub broken: u64,
}

impl Round {
    /// Prints a line.
    pub fn print(self, name: &str) {
        println!(
            "{name}  {:>10.0} requests/s   p50 {:.2} ms   p99 {:.2} ms   refused {}   broken {}",
            self.rate, self.p50_ms, self.p99_ms, self.refused, self.broken
        );
    }
}

/// One page view after the other on each of so many connections.
pub fn wrk(address: SocketAddr, connections: u32, seconds: u32, path: &str) -> Round {
    let output = Command::new("wrk")
        .args(["-t", "1", "-c", &connections.to_string(), "-d", &format!("{seconds}s")])
        .args(["-s", concat!(env!("CARGO_MANIFEST_DIR"), "/benches/post.lua")])
        .arg(format!("http://{address}{path}"))
        .output()
        .expect("wrk must be installed (Debian: apt-get install wrk)");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let numbers: Vec<f64> = text
        .lines()
        .find_map(|line| line.strip_prefix("RESULT "))
        .unwrap_or_else(|| panic!("wrk said:\n{text}"))
        .split(' ')
        .filter_map(|n| n.parse().ok())
        .collect();
    Round {
        rate: numbers[0],
        p50_ms: numbers[1],
        p99_ms: numbers[2],
        refused: numbers[3] as u64,
        broken: numbers[4] as u64,
    }
}

/// Runs `work` and takes the peak of `measure` meanwhile, four times a second.
pub fn watching<T>(measure: impl Fn() -> u64 + Sync, work: impl FnOnce() -> T) -> (T, u64) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(measure());
                std::thread::sleep(Duration::from_millis(250));
            }
            peak
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        (result, watch.join().expect("the watch"))
    })
}

/// The middle of the figures.
pub fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// The round of the middle rate.
pub fn middle(rounds: &[Round]) -> Round {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    sorted[sorted.len() / 2]
}
