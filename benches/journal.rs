//! Appending records of 1 KiB until they are durable, beside a plain file in the same run.
//!
//! The baseline is what one would write without a journal: append to a file, `fdatasync`. What is
//! compared is the ratio; absolute times are those of the disk. Criterion's own report is per
//! commit of `K` records; the ratio at the end is of medians over interleaved rounds.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a bench that fails may stop")]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput};
use tokio::runtime::Runtime;
use tracker::clock::SystemClock;
use tracker::config::JournalConfig;
use tracker::journal::{AppendError, Journal, Position, RealFs};
use tracker::telemetry::Metrics;

const RECORD_BYTES: usize = 1024;
const RECORDS: [usize; 3] = [1, 64, 512];
const ROUNDS: usize = 60;

fn settle(_: &Metrics, _: Result<(), &AppendError>) {}

struct Bench {
    journal: Journal,
    plain: File,
    record: Vec<u8>,
    runtime: Runtime,
}

impl Bench {
    fn new(folder: &Path) -> Self {
        let mut config = JournalConfig::new(folder.join("journal"));
        config.keep = Duration::ZERO;
        config.disk_bytes_max = 2 << 30;
        let (clock, metrics) = (Arc::new(SystemClock), Arc::new(Metrics::new().unwrap()));
        let (journal, _) =
            Journal::open(&config, Position(0), Arc::new(RealFs), clock, metrics).unwrap();
        let bench = Self {
            journal,
            plain: File::create(folder.join("plain")).unwrap(),
            record: vec![b'x'; RECORD_BYTES],
            runtime: tokio::runtime::Builder::new_current_thread().build().unwrap(),
        };
        // Segments are made behind the first; what is measured is the steady state.
        while bench.journal.stats().disk_bytes < 2 * config.segment_bytes {
            std::thread::sleep(Duration::from_millis(50));
        }
        bench
    }

    fn commit(&self, records: usize) {
        let pending: Vec<_> = (0..records)
            .map(|_| self.journal.append(self.record.clone(), settle).unwrap())
            .collect();
        self.runtime.block_on(async {
            for pending in pending {
                pending.durable().await.unwrap();
            }
        });
        self.journal.forget(self.journal.durable());
    }

    fn baseline(&mut self, records: usize) {
        let bytes = self.record.repeat(records);
        self.plain.write_all(&bytes).unwrap();
        self.plain.sync_data().unwrap();
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

fn main() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut bench = Bench::new(folder.path());
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("journal");
    group.sample_size(20).measurement_time(Duration::from_secs(3));
    for records in RECORDS {
        group.throughput(Throughput::Elements(records as u64));
        group.bench_function(BenchmarkId::new("append", records), |b| {
            b.iter(|| bench.commit(records));
        });
        group.bench_function(BenchmarkId::new("plain_file", records), |b| {
            b.iter(|| bench.baseline(records));
        });
    }
    group.finish();
    for records in RECORDS {
        let (mut ours, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            ours.push(timed(|| bench.commit(records)));
            plain.push(timed(|| bench.baseline(records)));
        }
        let (ours, plain) = (median(ours), median(plain));
        let ratio = ours.as_secs_f64() / plain.as_secs_f64();
        println!("journal K={records}: {ours:?}, plain file {plain:?}, ratio {ratio:.2}");
    }
}
