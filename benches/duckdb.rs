//! What one event costs in DuckDB as the table grows: processor time a row on an empty table beside
//! that at five million rows, in one run.
//!
//! Batches go through the sink as delivery sends them, so encoding, the write-ahead log and
//! checkpoints are in the figure. The ratio is what counts; it must stay below 1.3.
//!
//! `cargo bench --bench duckdb -- [rows]` (default 5,000,000).

#![expect(
    clippy::cast_precision_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench that cannot run should stop, and its figures are not exact"
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use chrono::Utc;
use tracker::backends::{self, Backend, memory};
use tracker::clock::SystemClock;
use tracker::config::Config;
use tracker::event::{Event, EventId, Ingest};
use tracker::tables;

/// As in the program: allocation is a good part of the cost.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BATCH_ROWS: u64 = 5_000;
/// Rows over which one figure is taken: several checkpoints long.
const WINDOW_ROWS: u64 = 500_000;

#[tokio::main]
async fn main() {
    let rows = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(5_000_000);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let backend = open(folder.path());
    let sink = backend.sink.as_ref().expect("a sink");
    let model: Event = serde_json::from_str(include_str!("event.json")).expect("an event");
    let node: Arc<str> = "bench".into();
    let mut figures = Vec::new();
    let (mut window, mut started) = (processor_seconds(), Instant::now());
    let mut stored = 0;
    while stored < rows {
        let events = (stored + 1..=stored + BATCH_ROWS)
            .map(|seq| {
                let ingest = Ingest { node: Arc::clone(&node), seq };
                let now = Utc::now();
                let event = Event { id: EventId::generate(), received_at: now, ..model.clone() };
                Arc::new(Event { created_at: now, ingest, ..event })
            })
            .collect();
        let table = tables::find("events").expect("the table");
        let batch = memory::batch(table, events).expect("some events");
        sink.write(&batch).await.expect("a stored batch");
        stored += BATCH_ROWS;
        if stored % WINDOW_ROWS == 0 {
            let used = processor_seconds() - window;
            let microseconds = used * 1e6 / WINDOW_ROWS as f64;
            let rate = WINDOW_ROWS as f64 / started.elapsed().as_secs_f64();
            println!(
                "{stored:>10} rows   {microseconds:>6.1} us of processor a row   {rate:>8.0} rows/s"
            );
            figures.push(microseconds);
            (window, started) = (processor_seconds(), Instant::now());
        }
    }
    sink.close().await;
    let ratio = figures[figures.len() - 1] / figures[0];
    println!("last window / first window: {ratio:.2}   (must be 1.3 or less)");
}

fn open(folder: &Path) -> Backend {
    let loaded = Config::parse("{}", folder, &BTreeMap::new()).expect("the defaults");
    std::fs::create_dir_all(&loaded.config.server.data_directory).expect("a data folder");
    backends::connect(&loaded.config.backends[0], Arc::new(SystemClock)).expect("threads")
}

/// Processor time of this process so far, all threads, user and system.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("/proc");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<f64>().expect("a number");
    // proc(5): utime and stime are fields 14 and 15, in hundredths of a second on Linux.
    (ticks(11) + ticks(12)) / 100.0
}
