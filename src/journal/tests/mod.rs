//! The journal on a file system that keeps nothing that was not synced.

mod behaviour;
mod crash_points;
mod known_faults;
mod model;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::DateTime;

use super::segment::{Header, Parsed};
use super::strict_fs::{StrictFs, Survival};
use super::{AppendError, Journal, Location, Pending, Position, Reader, Record, Recovered};
use crate::clock::ManualClock;
use crate::config::JournalConfig;
use crate::telemetry::Metrics;

const FOLDER: &str = "/journal";
/// Small, so that a test rolls, recycles and fills within a few records.
const SEGMENT_BYTES: u64 = 16 << 10;

/// A journal, what it stands on, and what it counted.
struct Rig {
    fs: StrictFs,
    clock: Arc<ManualClock>,
    config: JournalConfig,
    metrics: Arc<Metrics>,
}

impl Rig {
    fn new(seed: u64) -> Self {
        let mut config = JournalConfig::new(PathBuf::from(FOLDER));
        config.segment_bytes = SEGMENT_BYTES;
        config.disk_bytes_max = 1 << 20;
        config.keep = Duration::ZERO;
        Self {
            fs: StrictFs::new(seed, 8 << 20),
            clock: Arc::new(ManualClock::new(DateTime::UNIX_EPOCH)),
            config,
            metrics: Arc::new(Metrics::new().unwrap()),
        }
    }

    fn try_open(&self, resume_after: u64) -> Result<(Journal, Recovered), super::OpenError> {
        let (fs, clock) = (Arc::new(self.fs.clone()), Arc::clone(&self.clock) as Arc<_>);
        let metrics = Arc::clone(&self.metrics);
        Journal::open(&self.config, Position(resume_after), fs, clock, metrics)
    }

    fn open(&self) -> (Journal, Recovered) {
        self.try_open(0).unwrap()
    }

    /// A process that died with its memory, on a disk that kept what `survival` says.
    fn restart(&mut self, survival: Survival) {
        self.fs = self.fs.restart(survival);
        self.metrics = Arc::new(Metrics::new().unwrap());
    }

    /// The segment files that hold data, oldest first: what they are called and how long they are.
    fn segments(&self) -> Vec<(PathBuf, u64)> {
        let mut segments = Vec::new();
        for name in self.fs.names(Path::new(FOLDER)) {
            let path = Path::new(FOLDER).join(name);
            self.edit(&path, |bytes| {
                if let Parsed::Header(header) = Header::parse(bytes)
                    && !header.is_spare()
                {
                    segments.push((header.epoch, path.clone(), bytes.len() as u64));
                }
            });
        }
        segments.sort();
        segments.into_iter().map(|(_, path, bytes)| (path, bytes)).collect()
    }

    fn edit(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        self.fs.edit(path, change).unwrap();
    }

    fn corrupt_frames(&self) -> u64 {
        self.metrics.journal_corrupt_frames.get()
    }
}

/// Counts outcomes where a test can see them.
fn settle(metrics: &Metrics, outcome: Result<(), &AppendError>) {
    let reason = match outcome {
        Ok(()) => return metrics.events_stored.inc(),
        Err(AppendError::Full) => "journal_full",
        Err(_) => "journal_failed",
    };
    metrics.events_rejected.with_label_values(&[reason]).inc();
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(future)
}

fn wait(pending: Pending) -> Result<Position, AppendError> {
    block_on(pending.durable())
}

/// A record that says which it is; about `bytes` long.
fn record(id: u64, bytes: usize) -> Vec<u8> {
    let mut record = id.to_le_bytes().to_vec();
    record.resize(bytes.max(8), u8::try_from(id % 251).unwrap());
    record
}

fn id_of(record: &Record) -> u64 {
    let id = u64::from_le_bytes(*record.bytes.first_chunk().unwrap());
    assert_eq!(record.bytes, self::record(id, record.bytes.len()), "foreign bytes in a record");
    id
}

/// Appends and waits.
fn store(journal: &Journal, id: u64, bytes: usize) -> Position {
    wait(journal.append(record(id, bytes), settle).unwrap()).unwrap()
}

fn read_all(reader: &mut Reader) -> io::Result<Vec<Record>> {
    let mut all: Vec<Record> = Vec::new();
    loop {
        let records = reader.read(4096)?;
        if records.is_empty() {
            assert!(
                all.windows(2).all(|pair| pair[0].location.position < pair[1].location.position)
            );
            return Ok(all);
        }
        all.extend(records);
    }
}

/// Ids of everything after `after`.
fn ids(journal: &Journal, after: u64) -> Vec<u64> {
    let records = read_all(&mut journal.reader(Position(after))).unwrap();
    records.iter().map(id_of).collect()
}

/// Waits for what another thread does; the deadline only ends a test that fails.
fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::yield_now();
    }
}
