//! What delivery asks of a system: take this frozen batch, and tolerate being given it again.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use thiserror::Error;

use super::batch::Batch;
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

    /// Tells of the batch that comes next for its table, should the one on its way be stored, so that
    /// the sink can encode it meanwhile. It may never come.
    fn expect(&self, _next: &Batch) {}

    /// How long at least one table must rest between two batches; the store decides, because each
    /// batch costs it the same whatever its size.
    fn rest(&self) -> Duration {
        Duration::ZERO
    }

    /// How large its batches may be.
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

/// How large a batch a sink likes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appetite {
    /// Rows.
    pub rows: usize,
    /// Bytes in the journal.
    pub bytes: usize,
}

impl Default for Appetite {
    /// Enough that what a batch costs beside its rows is forgotten in most stores, and little enough
    /// that a store without bounds of its own may hold it in memory.
    fn default() -> Self {
        Self { rows: 4_096, bytes: 8 << 20 }
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
    /// Try again, and if that fails too, with fewer rows: it took more time or memory than the store
    /// gives.
    #[error("the store cannot take so much at once")]
    TooLarge {
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
