//! Tests of delivery: its pure parts, a simulated crash at every step, and the real thing.

mod batcher;
mod crash;
mod cursor;
mod poison;
#[cfg(feature = "duckdb")]
mod replay;
mod shipper;

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::DateTime;
use proptest::test_runner::Config as Cases;

use super::batcher::{Batcher, Bounds};
use super::cursor::{Range, TableCursor};
use crate::backends::{Entry, Events, Records};
use crate::config::{Limits, Strategy, TableLimits};
use crate::event::{Body, Event, Glance, Ingest, Track};
use crate::journal::{Location, Position};
use crate::tables::{Column, Kind, Table};

/// Journal id of events made here.
const NODE: &str = "node-1";

/// Three tables whose rows differ: every event, every second, every seventh.
static ALL: Table<Event> = table("all", |e| Some(e));
static EVEN: Table<Event> = table("even", |e| e.ingest.seq.is_multiple_of(2).then_some(e));
static SEVENTH: Table<Event> = table("seventh", |e| e.ingest.seq.is_multiple_of(7).then_some(e));

const fn table(name: &'static str, part: fn(&Event) -> Option<&Event>) -> Table<Event> {
    static COLUMNS: &[Column<Event>] = &[Column { name: "eid", cell: |e, _| e.id.into() }];
    Table { name, kind: Kind::Append, part, columns: COLUMNS }
}

/// As many random cases as `PROPTEST_CASES` says, and no files of failures.
fn cases() -> Cases {
    Cases { failure_persistence: None, ..Cases::default() }
}

/// A tracked event at a position.
fn event(seq: u64) -> Arc<Event> {
    let at = DateTime::from_timestamp(1_700_000_000 + seq.cast_signed(), 0).unwrap();
    let track = Track { ename: Some(format!("e{seq}")), ..Track::default() };
    Arc::new(Event {
        id: uuid::Uuid::from_u128(u128::from(seq)).into(),
        host: "example.com".to_owned(),
        ingest: Ingest { node: NODE.into(), seq },
        ..Event::bare(at, Body::Track(Box::new(track)))
    })
}

/// Gives a lane's batches the events made here, whatever their positions.
struct Made;

fn made() -> Arc<dyn Records> {
    Arc::new(Made)
}

impl Records for Made {
    fn node(&self) -> Arc<str> {
        NODE.into()
    }

    fn read<'r>(&'r self, entries: &'r [Entry]) -> Events<'r> {
        Box::new(entries.iter().map(|entry| Ok(event(entry.position().0))))
    }
}

/// Reads the event of position `seq`, so many bytes long, into `lanes`.
fn push(lanes: &mut Batcher, seq: u64, bytes: usize, now: Instant) {
    let event = event(seq);
    let glance = Glance::of(&crate::event::encode(&event).unwrap(), event.ingest.clone()).unwrap();
    lanes.push(&glance, Location::nowhere(Position(seq)), bytes, now);
}

fn limits(rows: usize, bytes: usize, age: Duration) -> TableLimits {
    TableLimits {
        strategy: Strategy::Hybrid,
        limits: Limits { rows, bytes, age },
        priority: 3,
        retry_attempts: 2,
        retry_backoff: Duration::from_millis(10),
    }
}

fn at(stored: u64) -> TableCursor {
    TableCursor { stored: Position(stored), sending: None }
}

fn range(first: u64, last: u64) -> Range {
    Range { first: Position(first), last: Position(last) }
}

/// Bounds so wide that they are no reason for anything.
const WIDE: Bounds = Bounds {
    rows: usize::MAX,
    batch_rows: usize::MAX,
    batch_bytes: usize::MAX,
    read_bytes: 1 << 20,
};
