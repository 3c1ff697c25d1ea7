//! How a batch is sent that may have been sent before, so that it neither counts twice nor is lost.
//!
//! The fast path is the same bytes under the same token. It needs a memory of tokens that can be
//! believed, and it cannot always be:
//! - A server that was killed may know the token of rows it never stored: its log of tokens is
//!   written before the part is (about 1 of 100 kills in the middle of an insert, whatever is
//!   synced). The resend would be answered 200, and the batch lost.
//! - A machine that lost power may have forgotten the last tokens (ClickHouse#111577).
//! - A window ends: after so many inserts, and where tables are replicated after some days as well.
//! - The parts of a batch that was cut have other tokens than the whole.
//!
//! In the last three cases the **audit** asks which positions of the batch are stored, and only the
//! others are sent, under a token of their own. The first case cannot be known before. So after every
//! success of a batch that may have been tried (but where Keeper keeps the tokens, together with the
//! rows) the audit asks whether it is stored, and what the server claimed to know and does not have
//! goes out under another token. The old one always goes first: it is in the log whenever rows are
//! stored under another, and a later repeat under it, even by another process, adds nothing to them.
//! Batches that nobody can have tried are not asked about.
//!
//! Where tables are replicated the audit asks every replica, because what one has stored another may
//! not have fetched, and what seems to lack would be sent twice. A replica that is away is not waited
//! for: what it alone has is sent again.
//!
//! An attempt that still runs is no danger: its query has the same id, which the server refuses. The
//! parts of a batch that was too large have other ids, so a batch is cut only when the server itself
//! said that it is too large, and long after the last attempt without an answer: the server ends
//! inserts by its own clock (`max_execution_time`).
//!
//! Known weakness: the log of a table of counters may know a token without its rows as well. Then the
//! counters lack the batch; and where the log of the facts did, they have it twice. The facts are
//! right.

use std::collections::HashSet;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use super::ClickHouse;
use super::catalog::{AWAY, Described, UPTIME, Window, number};
use super::fault::Fault;
use super::transport::Question;
use crate::backends::{Batch, Entry, SinkError};
use crate::journal::Position;
use crate::tables::Kind;

/// Wait before rows are sent under another token, so that whatever the server still does is over.
const FORGOTTEN: Duration = Duration::from_secs(1);

/// What is known of a table's last batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lane {
    /// It is stored.
    Settled,
    /// It may have been stored, wholly or in part.
    Tried(Attempt),
    /// The server refused it; what of it is stored has the tokens of the whole.
    Refused,
    /// The server took a repeat of it for known, and does not have all of it.
    Forgotten(Attempt),
}

/// One way to send a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attempt {
    /// Its range.
    first: Position,
    last: Position,
    /// By which a repeat is known.
    pub(super) token: String,
    /// Positions that are not sent, because they are stored.
    pub(super) stored: HashSet<u64>,
    /// The batch may have been tried before, so success does not say that it is stored.
    pub(super) is_repeat: bool,
}

impl ClickHouse {
    /// How to send `batch`, when `lane` is what is known of the table's last one.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub(super) async fn plan(
        &self,
        described: &Described,
        batch: &Batch,
        lane: Option<Lane>,
    ) -> Result<Attempt, SinkError> {
        let (first, last) = (batch.first, batch.last);
        let attempt = |token, stored, is_repeat| Attempt { first, last, token, stored, is_repeat };
        let whole = |is_repeat| attempt(batch.token(), HashSet::new(), is_repeat);
        let newest = batch.entries.last().map_or(self.started_at, |entry| entry.received_at);
        let is_same = |tried: &Attempt| (tried.first, tried.last) == (first, last);
        let is_first = lane.is_none();
        let again = match lane {
            Some(Lane::Settled) => return Ok(whole(false)),
            // Not older than this process, so nobody can have sent it.
            None if newest >= self.started_at => return Ok(whole(false)),
            // The process before this one may have.
            None => Some(whole(true)),
            Some(Lane::Tried(tried)) if is_same(&tried) => Some(tried),
            Some(Lane::Forgotten(tried)) if is_same(&tried) => {
                let stored = self.audit(described, batch).await.map_err(Fault::into_sink_error)?;
                // No log can know this token, so its success is the truth; what is folded by its key
                // while it is inserted would otherwise be looked for without end.
                return Ok(attempt(self.other_token(&tried.token), stored, false));
            }
            Some(Lane::Tried(_) | Lane::Refused | Lane::Forgotten(_)) => None,
        };
        let again = match again {
            Some(again) if self.window_holds(described, newest).await? => Some(again),
            _ => None,
        };
        if let Some(again) = again.as_ref().filter(|_| !is_first) {
            return Ok(Attempt { is_repeat: true, ..again.clone() });
        }
        let stored = self.audit(described, batch).await.map_err(Fault::into_sink_error)?;
        Ok(match (again, stored.len()) {
            (_, 0) => whole(true),
            // Completes what is derived, should the server have been killed between.
            (Some(again), all) if all == batch.entries.len() => again,
            (_, some) => attempt(format!("{}~{some}", batch.token()), stored, true),
        })
    }

    /// Whether all of `batch` is stored after `attempt` at it succeeded.
    ///
    /// # Errors
    /// When it is not, or the server cannot be asked; the next attempt then sends the rest.
    pub(super) async fn prove(
        &self,
        described: &Described,
        batch: &Batch,
        attempt: &Attempt,
    ) -> Result<(), SinkError> {
        // Keeper takes token and rows together.
        if !attempt.is_repeat || matches!(described.window, Window::Keeper { .. }) {
            return Ok(());
        }
        let stored = self.audit(described, batch).await.map_err(Fault::into_sink_error)?;
        let is_stored = |entry: &Entry| stored.contains(&entry.position().0);
        // Rows of one key are folded while they are inserted, so some of them are never found.
        let folds = batch.table.kind() != Kind::Append;
        if batch.entries.iter().all(is_stored) || (folds && batch.entries.iter().any(is_stored)) {
            return Ok(());
        }
        let table = batch.table.name();
        tracing::warn!(
            sink = self.config.name,
            table,
            rows = batch.entries.len(),
            stored = stored.len(),
            "the server knows the token of rows that it does not have; they go out again"
        );
        self.note(table, Lane::Forgotten(attempt.clone()));
        let words = format!("{table}: the server knows the token of rows that it does not have");
        Err(SinkError::Retry { after: Some(FORGOTTEN), source: words.into() })
    }

    /// A token that was not used before: neither by this process nor by one before it.
    fn other_token(&self, token: &str) -> String {
        format!("{token}@{}", self.started_at.timestamp_micros())
    }

    /// Whether the token of a batch whose newest record is of `newest` is surely still known, if it
    /// ever was.
    async fn window_holds(
        &self,
        described: &Described,
        newest: DateTime<Utc>,
    ) -> Result<bool, SinkError> {
        let age = self.clock.wall().signed_duration_since(newest);
        let known = described.window.known_seconds();
        if known == 0 || age > TimeDelta::seconds(i64::try_from(known).unwrap_or(i64::MAX / 1_000))
        {
            return Ok(false);
        }
        Ok(match described.window {
            Window::None => false,
            Window::Keeper { .. } => true,
            // Only the machine that answers says since when it runs.
            Window::Inserts(_) if described.is_spread => false,
            Window::Inserts(_) => !self.machine_started_after(newest).await?,
        })
    }

    /// Whether the server's machine was started after `moment`. False where the server does not say.
    async fn machine_started_after(&self, moment: DateTime<Utc>) -> Result<bool, SinkError> {
        let rows = match self.transport.rows_of(UPTIME).await {
            Ok(rows) => rows,
            // It has no such table, or we may not read it.
            Err(Fault::Refused { .. }) => return Ok(false),
            Err(fault) => return Err(fault.into_sink_error()),
        };
        let uptime = number(rows.rows.first().and_then(|row| row.first()));
        Ok(uptime.is_some_and(|uptime| self.clock.wall() - seconds(uptime) > moment))
    }

    /// The positions of `batch` that are stored.
    async fn audit(&self, described: &Described, batch: &Batch) -> Result<HashSet<u64>, Fault> {
        let (table, everywhere) = (batch.table.name(), &described.everywhere);
        let node = batch.records.node();
        let sql = format!(
            "select distinct ingest_seq from {everywhere} \
             where ingest_node = {{node:String}} and ingest_seq between {} and {}",
            batch.first, batch.last
        );
        let question = Question {
            sql: &sql,
            parameters: &[("node", &node)],
            settings: if described.is_spread { AWAY } else { &[] },
            time_max: self.config.insert_time_max,
        };
        let answer = self.transport.ask(question, "RowBinary").await?;
        let stored: HashSet<u64> =
            answer.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        if !stored.is_empty() {
            tracing::info!(
                sink = self.config.name,
                table,
                rows = batch.entries.len(),
                stored = stored.len(),
                "a batch that may have been sent is stored, at least in part"
            );
        }
        Ok(stored)
    }
}

/// Seconds as a server tells them.
fn seconds(told: f64) -> TimeDelta {
    let told = Duration::try_from_secs_f64(told.max(0.0)).unwrap_or_default();
    TimeDelta::from_std(told).unwrap_or_default()
}
