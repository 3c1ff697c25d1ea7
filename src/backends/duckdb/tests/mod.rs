//! The store as a whole, over files in temporary folders.

mod open;
mod query;
mod questions;
mod views;
mod write;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::connect;
use crate::backends::{Backend, Batch, Sink, Store, memory};
use crate::clock::ManualClock;
use crate::config::{DuckDbConfig, Limits, LimitsByTable, Strategy, TableLimits};
use crate::event::Event;
use crate::tables::{self, samples};

/// Long enough for any query here on a busy machine.
const TIME_MAX: Duration = Duration::from_secs(60);

fn config(path: &Path) -> DuckDbConfig {
    let limits = Limits { rows: 1000, bytes: usize::MAX, age: Duration::from_secs(1) };
    let default = TableLimits {
        strategy: Strategy::Hybrid,
        limits,
        priority: 1,
        retry_attempts: 3,
        retry_backoff: Duration::from_millis(10),
    };
    DuckDbConfig {
        name: "duckdb".into(),
        path: path.to_owned(),
        memory_mb: 256,
        threads: 1,
        critical: false,
        query_time_max: TIME_MAX,
        query_rows_max: 1000,
        prune: Vec::new(),
        limits: LimitsByTable { default, tables: BTreeMap::new() },
    }
}

/// A store on `path`, at noon.
fn started(path: &Path) -> Backend {
    connect(&config(path), Arc::new(ManualClock::new(samples::noon()))).unwrap()
}

fn sink(backend: &Backend) -> &dyn Sink {
    backend.sink.as_deref().unwrap()
}

fn store(backend: &Backend) -> &dyn Store {
    backend.store.as_deref().unwrap()
}

/// The events of `table` as one batch.
fn batch(table: &str, events: impl IntoIterator<Item = Event>) -> Batch {
    let events = events.into_iter().map(Arc::new).collect();
    memory::batch(tables::find(table).unwrap(), events).unwrap()
}

/// Full events at positions `from` to `to`.
fn events(from: u64, to: u64) -> Batch {
    batch("events", (from..=to).map(samples::event))
}

async fn rows(backend: &Backend, sql: &str) -> Vec<Vec<Value>> {
    store(backend).query(sql, 1000, TIME_MAX).await.unwrap().rows
}
