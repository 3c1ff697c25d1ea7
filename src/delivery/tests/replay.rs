//! Refused rows are put back once, to the one place that lacks them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::event;
use crate::backends::{self, Backend, memory};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, JournalConfig};
use crate::delivery::poison::refused;
use crate::delivery::{Replayed, replay};
use crate::event::{self as codec, Event, Ingest};
use crate::journal::strict_fs::StrictFs;
use crate::journal::{Journal, Position};
use crate::tables;
use crate::telemetry::Metrics;

fn store(folder: &std::path::Path) -> Backend {
    let loaded = Config::parse("{}", folder, &BTreeMap::new()).unwrap();
    std::fs::create_dir_all(&loaded.config.server.data_directory).unwrap();
    backends::connect(&loaded.config.backends[0], Arc::new(SystemClock)).unwrap()
}

fn journal() -> Journal {
    let config = JournalConfig {
        segment_bytes: 64 << 10,
        disk_bytes_max: 64 << 20,
        ..JournalConfig::new(PathBuf::from("/journal"))
    };
    let (fs, clock) = (Arc::new(StrictFs::new(1, 1 << 30)), Arc::new(SystemClock));
    let metrics = Arc::new(Metrics::new().unwrap());
    Journal::open(&config, Position(0), fs, clock, metrics).unwrap().0
}

/// Stores the quarantine rows among `events` as delivery would.
async fn quarantine(backend: &Backend, first: u64, events: Vec<Event>) {
    let at = |(index, event): (usize, Event)| {
        let ingest = Ingest { node: "node".into(), seq: first + index as u64 };
        Arc::new(Event { ingest, ..event })
    };
    let events: Vec<_> = events.into_iter().enumerate().map(at).collect();
    let batch = memory::batch(tables::find("quarantine").unwrap(), events).unwrap();
    backend.sink.as_ref().unwrap().write(&batch).await.unwrap();
}

#[tokio::test]
async fn a_refused_row_is_put_back_once_and_only_to_the_store_that_lacks_it() {
    let folder = tempfile::tempdir().unwrap();
    let (backend, journal) = (store(folder.path()), journal());
    let kept = backend.store.as_ref().unwrap();
    let rows = [1, 2, 3].map(|seq| refused(&event(seq), "duckdb", "events", "no such day"));
    quarantine(&backend, 10, rows.to_vec()).await;

    let now = SystemClock.wall();
    let done = replay(&**kept, &journal, now).await.unwrap();
    assert_eq!(done, Replayed { appended: 3, undecodable: 0 });

    let records = journal.reader(Position(0)).read(1 << 20).unwrap();
    let written: Vec<Event> =
        records.iter().map(|record| codec::decode(&record.bytes).unwrap()).collect();
    let back: Vec<&Event> = written.iter().filter(|event| event.aim.is_some()).collect();
    let mut ids: Vec<u128> = back.iter().map(|event| event.id.uuid().as_u128()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3], "each under its own id");
    for event in back {
        assert!(event.is_for("duckdb", "events"));
        assert!(!event.is_for("duckdb", "mthreads") && !event.is_for("other", "events"));
    }

    // The notes reach the store the same way; from then on there is nothing to put back.
    let notes: Vec<Event> = written.into_iter().filter(|event| event.aim.is_none()).collect();
    assert_eq!(notes.len(), 3);
    quarantine(&backend, 20, notes).await;
    let again = replay(&**kept, &journal, now).await.unwrap();
    assert_eq!(again, Replayed::default());
}
