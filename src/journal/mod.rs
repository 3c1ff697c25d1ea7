//! Durable log of opaque records.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::clock::Clock;
use crate::config::JournalConfig;
use crate::telemetry::Metrics;

/// Where a record stands: 1, 2, 3 … for the life of the journal; 0 is before the first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// File system (fleshed out by the journal's author).
pub trait Fs: Send + Sync + 'static {}

/// The real file system.
pub struct RealFs;
impl Fs for RealFs {}

/// The log. Cheap to clone; the last clone dropped or [`Journal::close`] ends the writer.
#[derive(Clone)]
pub struct Journal {}

/// One record as read.
pub struct Record {
    /// Where it stands.
    pub position: Position,
    /// What was appended.
    pub bytes: Vec<u8>,
}

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Last position in the journal.
    pub last: Position,
    /// Bytes of a torn tail.
    pub torn_bytes: u64,
    /// Damaged frames seen.
    pub corrupt_frames: u64,
}

/// State for `/health`.
#[derive(Debug, Clone, PartialEq)]
pub struct Stats {
    /// False while an append cannot be made durable.
    pub healthy: bool,
    /// The last failure in words.
    pub last_error: Option<String>,
    /// Oldest record still there.
    pub first: Position,
    /// Last durable record.
    pub durable: Position,
    /// Bytes of segments on disk.
    pub disk_bytes: u64,
    /// Bound of `disk_bytes`.
    pub disk_bytes_max: u64,
}

/// Why an append was refused at once.
#[derive(Debug, Error)]
pub enum AppendError {
    /// Too many appends wait for the writer.
    #[error("the journal's queue is full")]
    Busy,
    /// The disk or the journal's share of it is full.
    #[error("the journal is full")]
    Full,
    /// The journal was closed or its disk failed.
    #[error("the journal cannot write")]
    Failed,
    /// The record is larger than a segment can hold.
    #[error("record of {0} bytes is larger than the journal takes")]
    TooLarge(usize),
}

/// Counts the outcome of an accepted append. A plain function, so that an append allocates nothing
/// for it, and a caller that went away cannot leave an event uncounted.
pub type Settle = fn(&Metrics, Result<(), &AppendError>);

/// Why the journal cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has the folder.
    #[error("another tracker uses {0}")]
    Locked(std::path::PathBuf),
    /// The disk said no.
    #[error("opening the journal")]
    Io(#[source] std::io::Error),
}

/// A record that was accepted and is on its way to disk.
pub struct Pending {}

impl Pending {
    /// Where it stands, once it is as durable as configured.
    ///
    /// # Errors
    /// When it could not be made durable; it may or may not be read later.
    pub async fn durable(self) -> Result<Position, AppendError> {
        unimplemented!()
    }
}

/// Reads durable records in order.
pub struct Reader {}

impl Reader {
    /// Up to about `bytes_max` bytes of records after the last one read (at least one record when
    /// there is one); empty at the head. Blocking: call it off the async workers.
    ///
    /// # Errors
    /// When the disk cannot be read; damaged frames are skipped and counted instead.
    pub fn read(&mut self, bytes_max: usize) -> std::io::Result<Vec<Record>> {
        let _ = bytes_max;
        unimplemented!()
    }
    /// Position of the last record read or skipped.
    pub fn position(&self) -> Position {
        unimplemented!()
    }
}

impl Journal {
    /// Opens after anything. Positions go on above `resume_after` (the highest cursor known) even
    /// if the journal is new or was shortened.
    ///
    /// # Errors
    /// See [`OpenError`]; damage is never an error.
    pub fn open(
        _config: &JournalConfig,
        _resume_after: Position,
        _fs: Arc<dyn Fs>,
        _clock: Arc<dyn Clock>,
        _metrics: Arc<Metrics>,
    ) -> Result<(Self, Recovered), OpenError> {
        unimplemented!()
    }
    /// Hands a record to the writer; never waits. `settle` is called once, from the writer, when
    /// the outcome is known, even if nobody awaits the [`Pending`]; not when `append` itself fails.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append(&self, _record: Vec<u8>, _settle: Settle) -> Result<Pending, AppendError> {
        unimplemented!()
    }
    /// The journal's identity, for tokens and `ingest_node`.
    pub fn node(&self) -> Arc<str> {
        unimplemented!()
    }
    /// A reader of everything after `after`.
    pub fn reader(&self, _after: Position) -> Reader {
        unimplemented!()
    }
    /// Last durable position.
    pub fn durable(&self) -> Position {
        unimplemented!()
    }
    /// Oldest record still there (one above `durable` when there is none).
    pub fn first(&self) -> Position {
        unimplemented!()
    }
    /// Waits until something after `position` is durable. Cancel-safe.
    pub async fn wait_after(&self, _position: Position) {
        unimplemented!()
    }
    /// Every sink has everything up to and including `position`: segments below may be recycled
    /// once the keep time is over.
    pub fn forget(&self, _position: Position) {
        unimplemented!()
    }
    /// For `/health`.
    pub fn stats(&self) -> Stats {
        unimplemented!()
    }
    /// Writes what is queued, syncs, and refuses everything after. Blocking.
    pub fn close(&self) {
        unimplemented!()
    }
}
