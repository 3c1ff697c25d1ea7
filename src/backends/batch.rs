//! Batches: what a sink is given, and how it reads the events in it.
//!
//! A batch knows where its events stand and reads them when it is asked, one at a time. So the size of
//! a batch costs no memory but what the sink makes of it, and a repeat reads the same bytes again.

use std::sync::Arc;
use std::{fmt, io};

use chrono::{DateTime, Utc};
use thiserror::Error;

use super::sink::SinkError;
use crate::event::{DecodeError, Event};
use crate::journal::{Location, Position};
use crate::tables::AnyTable;

/// A contiguous range of the journal for one table.
#[derive(Clone)]
pub struct Batch {
    /// The table every event here has a row for.
    pub table: &'static dyn AnyTable,
    /// First position of the range.
    pub first: Position,
    /// Last position of the range; equals the last event's.
    pub last: Position,
    /// Its events in order of position; at least one.
    pub entries: Arc<[Entry]>,
    /// Where they are read.
    pub records: Arc<dyn Records>,
}

/// One event of a batch, as it is known before it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub location: Location,
    /// When this server took it.
    pub received_at: DateTime<Utc>,
}

impl Entry {
    /// Which record it is.
    pub fn position(&self) -> Position {
        self.location.position
    }
}

/// Where the events of a batch are read.
pub trait Records: Send + Sync + 'static {
    /// The journal's identity.
    fn node(&self) -> Arc<str>;

    /// The events of `entries`, in their order, one at a time; each knows its position in
    /// [`Event::ingest`]. One that was damaged since it was found is counted and passed over. Blocking: use it off the async workers.
    fn read<'r>(&'r self, entries: &'r [Entry]) -> Events<'r>;
}

/// Events as they are read.
pub type Events<'r> = Box<dyn Iterator<Item = Result<Arc<Event>, ReadError>> + 'r>;

/// Why an event of a batch was not read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The disk says no; another time it may say yes.
    #[error("reading the journal")]
    Journal(#[from] io::Error),
    /// It is no event, and never will be.
    #[error("record {position} is no event")]
    Undecodable {
        /// Which one.
        position: Position,
        /// As it stands in the journal.
        bytes: Vec<u8>,
        /// What is wrong with it.
        source: DecodeError,
    },
}

impl From<ReadError> for SinkError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Journal(_) => Self::Retry { after: None, source: error.into() },
            ReadError::Undecodable { .. } => Self::Reject { source: error.into() },
        }
    }
}

impl Batch {
    /// The batch of `entries`; `None` when there are none.
    pub fn new(
        table: &'static dyn AnyTable,
        entries: &[Entry],
        records: Arc<dyn Records>,
    ) -> Option<Self> {
        let (first, last) = (entries.first()?.position(), entries.last()?.position());
        Some(Self { table, first, last, entries: entries.into(), records })
    }

    /// Equal for every attempt at the same range, different for any other range.
    pub fn token(&self) -> String {
        format!("{}/{}/{}-{}", self.records.node(), self.table.name(), self.first, self.last)
    }

    /// All its events, as [`Records::read`] has them.
    pub fn events(&self) -> Events<'_> {
        self.records.read(&self.entries)
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} rows)", self.token(), self.entries.len())
    }
}
