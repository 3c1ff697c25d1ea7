//! What delivery asks of a system: take this frozen batch, and tolerate being given it again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use thiserror::Error;

use crate::event::Event;
use crate::journal::Position;
use crate::tables::AnyTable;

/// Any error of a driver.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Takes batches.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Which store this is, beyond its address: changes when the data behind it was lost or
    /// replaced, so that delivery starts over from the oldest record. Connects where it must.
    ///
    /// # Errors
    /// [`SinkError::Retry`] while the store cannot be reached.
    async fn identity(&self) -> Result<String, SinkError>;

    /// Whether rows of `table` belong here.
    fn accepts(&self, table: &dyn AnyTable) -> bool;

    /// What a repeat of a batch does to `table`.
    fn guarantee(&self, table: &dyn AnyTable) -> Guarantee;

    /// Stores every row of `batch`, or none. The same batch may come again, with the same
    /// [`Batch::token`]; batches of one table come one at a time and in order.
    ///
    /// # Errors
    /// [`SinkError::Retry`] when the same batch may succeed later, [`SinkError::Reject`] when it
    /// never will.
    async fn write(&self, batch: &Batch) -> Result<(), SinkError>;

    /// How long at least one table must rest between two batches; the store decides, because each
    /// batch costs it the same whatever its size.
    fn rest(&self) -> Duration {
        Duration::ZERO
    }

    /// How much it is worth to hold for this store.
    fn appetite(&self) -> Appetite {
        Appetite::default()
    }

    /// What an operator should know although writing works, for `/health`; none as a rule.
    fn notice(&self) -> Option<String> {
        None
    }

    /// Ends the connection after what was written is safe. Called once, last.
    async fn close(&self) {}
}

/// How much of its rows a sink wants held in memory, in estimated bytes; the rest of a backlog is safe
/// in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appetite {
    /// In all lanes, what is being sent included.
    pub memory: usize,
    /// In one batch.
    pub batch_memory: usize,
}

impl Default for Appetite {
    /// 12 MiB, so that a sink with a backlog of any length leaves the process below 128 MB while its
    /// batch is encoded; that is some thousand events.
    fn default() -> Self {
        Self { memory: 12 << 20, batch_memory: 12 << 20 }
    }
}

/// What the caller should do about a failed write: one variant for each reaction.
#[derive(Debug, Error)]
pub enum SinkError {
    /// Try the same batch again, not before `after` where the store named it.
    #[error("the store cannot take the batch now")]
    Retry {
        /// The store's own wish.
        after: Option<Duration>,
        /// The driver's error.
        source: BoxError,
    },
    /// The store is well, and this table cannot take the batch until somebody changes it. Other tables
    /// go on.
    #[error("the table cannot take the batch")]
    Unfit {
        /// When to look again.
        after: Duration,
        /// What has to change.
        source: BoxError,
    },
    /// The store refuses the batch for good: look for the row.
    #[error("the store refuses the batch")]
    Reject {
        /// The driver's error.
        source: BoxError,
    },
}

/// What a repeat of a batch does, printed in `/health`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Guarantee {
    /// A repeat changes nothing.
    ExactlyOnce,
    /// A repeat may be visible, and why.
    AtLeastOnce(String),
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ExactlyOnce => f.write_str("exactly-once"),
            Self::AtLeastOnce(why) => write!(f, "at-least-once: {why}"),
        }
    }
}

/// A contiguous range of the journal for one table. Rows are computed while encoding, never kept.
#[derive(Clone)]
pub struct Batch {
    /// The table every event here has a row for.
    pub table: &'static dyn AnyTable,
    /// First position of the range.
    pub first: Position,
    /// Last position of the range; equals the last event's.
    pub last: Position,
    /// The events in order of position; each knows its position in [`Event::ingest`].
    pub events: Vec<Arc<Event>>,
}

impl Batch {
    /// Equal for every attempt at the same range, different for any other range.
    pub fn token(&self) -> String {
        let node = self.events.first().map_or("", |event| &*event.ingest.node);
        format!("{node}/{}/{}-{}", self.table.name(), self.first, self.last)
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} rows)", self.token(), self.events.len())
    }
}
