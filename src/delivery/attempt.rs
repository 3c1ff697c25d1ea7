//! One attempt at one part of a frozen batch, up to an outcome the lane can act on.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;

use super::poison;
use crate::backends::{Batch, ReadError, Sink, SinkError};
use crate::clock::Clock;
use crate::event::Event;
use crate::journal::Journal;
use crate::tables::AnyTable;
use crate::telemetry::chain;

/// A write that takes longer failed, whatever became of it. Longer than any store needs for the
/// largest batch; a store's own time-outs come before.
const WRITE_TIME_MAX: Duration = Duration::from_secs(120);

/// What became of an attempt: one variant for each reaction of the lane.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// In the store.
    Stored,
    /// Refused for good, and more than one row: cut it.
    Refused(String),
    /// The one row was refused and is in quarantine.
    SetAside(String),
    /// The one row was refused and cannot go to quarantine, because it came from there.
    GivenUp(String),
    /// The one row was refused, and the journal does not take it now.
    Unkept(String),
    /// Try again; should that fail too, with fewer rows.
    TooLarge(String),
    /// Try again when somebody has changed the table; the store is well.
    Unfit { after: Duration, message: String },
    /// Try again.
    Failed { after: Option<Duration>, message: String },
}

/// What an attempt needs.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) name: Arc<str>,
    pub(super) sink: Arc<dyn Sink>,
    pub(super) journal: Journal,
    pub(super) clock: Arc<dyn Clock>,
}

impl Target {
    /// Sends `part`. Cancel-safe in the sense of the frozen range: what was sent is sent again.
    pub(super) async fn attempt(self, part: Arc<Batch>) -> Outcome {
        let deadline = self.clock.monotonic() + WRITE_TIME_MAX;
        let written = tokio::select! {
            written = self.sink.write(&part) => written,
            () = self.clock.sleep_until(deadline) => {
                let message = format!("no answer within {} s", WRITE_TIME_MAX.as_secs());
                return Outcome::Failed { after: None, message };
            }
        };
        match written {
            Ok(()) => Outcome::Stored,
            Err(SinkError::Retry { after, source }) => {
                Outcome::Failed { after, message: chain(&*source) }
            }
            Err(SinkError::TooLarge { source }) => Outcome::TooLarge(chain(&*source)),
            Err(SinkError::Unfit { after, source }) => {
                Outcome::Unfit { after, message: chain(&*source) }
            }
            Err(SinkError::Reject { source }) => self.refused(&part, chain(&*source)).await,
        }
    }

    async fn refused(&self, part: &Arc<Batch>, message: String) -> Outcome {
        if part.entries.len() > 1 {
            return Outcome::Refused(message);
        }
        if is_quarantine(part.table) {
            return Outcome::GivenUp(message);
        }
        let record = match self.read_again(part).await {
            Ok(Some(event)) => poison::refused(&event, &self.name, part.table.name(), &message),
            // Damaged since it was refused, and counted as that.
            Ok(None) => return Outcome::GivenUp(message),
            Err(ReadError::Undecodable { position, bytes, source }) => {
                let (node, now) = (self.journal.node(), self.clock.wall());
                poison::undecodable(&node, position, &bytes, &chain(&source), now)
            }
            Err(ReadError::Journal(error)) => {
                return Outcome::Unkept(format!("{error}, to read a refused row: {message}"));
            }
        };
        match poison::keep(&self.journal, &record).await {
            Ok(()) => Outcome::SetAside(message),
            Err(error) => {
                Outcome::Unkept(format!("{error}, to set aside a refused row: {message}"))
            }
        }
    }

    /// The one event of `part`.
    async fn read_again(&self, part: &Arc<Batch>) -> Result<Option<Arc<Event>>, ReadError> {
        let part = Arc::clone(part);
        let read = spawn_blocking(move || part.events().next().transpose()).await;
        read.unwrap_or_else(|error| Err(ReadError::Journal(io::Error::other(error))))
    }
}

fn is_quarantine(table: &dyn AnyTable) -> bool {
    table.name() == "quarantine"
}
