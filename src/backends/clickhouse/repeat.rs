//! How a batch is sent that may have been sent before, so that it neither counts twice nor is lost.
//!
//! The fast path is the same bytes under the same token. It needs a memory of tokens that can be
//! believed, and it cannot always be:
//! - A server that was killed may know the token of rows it never stored: its log of tokens is
//!   written before the part is (about 1 of 100 kills in the middle of an insert, whatever is
//!   synced). The resend would be answered 200, and the batch lost.
//! - A machine that lost power may have forgotten the last tokens (ClickHouse#111577).
//! - A window ends: of seconds where tables are replicated, of inserts where they are not.
//! - The parts of a batch that was cut have other tokens than the whole.
//!
//! In these cases the **audit** asks which of its positions are stored. None: it is sent under a new
//! token. All: it is sent under the old one, which completes what is derived. Some: the others are
//! sent, under a token of their own. Batches that nobody can have tried are not asked about.
//!
//! Known weakness: a server killed between storing a batch and counting it may have noted the token
//! in the table of counters too. Then the counters lack the batch, and no token helps. The facts do
//! not.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};

use super::ClickHouse;
use super::catalog::{Described, UPTIME, Window, number};
use super::fault::Fault;
use super::transport::Question;
use crate::backends::{Batch, SinkError};
use crate::journal::Position;

/// Tokens that a table takes in a second at most, for windows that count inserts: one of each of
/// several trackers, some of which have several partitions.
const INSERTS_PER_SECOND: u64 = 16;
/// What two clocks, one of which counts seconds, may differ by.
const CLOCK_SLACK: TimeDelta = TimeDelta::seconds(2);

/// What is known of a table's last batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lane {
    /// It is stored.
    Settled,
    /// It may have been stored, wholly or in part.
    Tried(Attempt),
    /// The server refused it; what of it is stored has the tokens of the whole.
    Refused,
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
    /// The server it is sent to; `None` where Keeper keeps the tokens, which does not end with it.
    boot: Option<Boot>,
}

/// One life of a server's process.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Boot {
    /// The id of a database in memory, made anew at each start; `None` where the server has none.
    id: Option<String>,
    started_at: DateTime<Utc>,
}

impl Boot {
    fn is(&self, other: &Self) -> bool {
        if let (Some(one), Some(other)) = (&self.id, &other.id) {
            return one == other;
        }
        self.started_at.signed_duration_since(other.started_at).abs() <= CLOCK_SLACK
    }
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
        let boot = match described.window {
            Window::Inserts(_) => Some(self.boot().await?),
            Window::None | Window::Seconds(_) => None,
        };
        let (first, last) = (batch.first, batch.last);
        let attempt = |token, stored| Attempt { first, last, token, stored, boot: boot.clone() };
        let whole = attempt(batch.token(), HashSet::new());
        let newest = batch.events.last().map_or(self.started_at, |event| event.received_at);
        let is_first = lane.is_none();
        // What was tried, and whether the server that it was tried with still lives.
        let (tried, lives) = match lane {
            Some(Lane::Settled) => return Ok(whole),
            // Not older than this process, so nobody can have sent it.
            None if newest >= self.started_at => return Ok(whole),
            // The process before this one may have, after its newest record came.
            None => {
                let lives = boot.as_ref().is_none_or(|boot| boot.started_at + CLOCK_SLACK < newest);
                (Some(whole), lives)
            }
            Some(Lane::Tried(tried)) if (tried.first, tried.last) == (first, last) => {
                let boots = tried.boot.as_ref().zip(boot.as_ref());
                let lives = boots.is_none_or(|(then, now)| then.is(now));
                (Some(tried), lives)
            }
            Some(Lane::Tried(_) | Lane::Refused) => (None, true),
        };
        let holds = self.window_holds(described.window, newest).await?;
        let again = tried.filter(|tried| holds && tried.stored.is_empty());
        if let Some(again) = again.as_ref().filter(|_| lives && !is_first) {
            return Ok(attempt(again.token.clone(), HashSet::new()));
        }
        let stored = self.audit(batch).await.map_err(Fault::into_sink_error)?;
        let life = boot.as_ref().filter(|_| !lives);
        let life = life.map_or(String::new(), |boot| format!("@{}", boot.started_at.timestamp()));
        Ok(match (again, stored.len()) {
            (_, 0) => attempt(format!("{}{life}", batch.token()), stored),
            (Some(again), all) if all == batch.events.len() => attempt(again.token, HashSet::new()),
            (_, some) => attempt(format!("{}{life}~{some}", batch.token()), stored),
        })
    }

    /// Whether the token of a batch whose newest record is of `newest` is surely still known, if it
    /// ever was.
    async fn window_holds(&self, window: Window, newest: DateTime<Utc>) -> Result<bool, SinkError> {
        let age = self.clock.wall().signed_duration_since(newest);
        let within = |seconds: u64| {
            age <= TimeDelta::seconds(i64::try_from(seconds).unwrap_or(i64::MAX / 1_000))
        };
        Ok(match window {
            Window::None => false,
            // Half of it: there are two clocks, and the repeat itself takes time.
            Window::Seconds(seconds) => within(seconds / 2),
            Window::Inserts(inserts) => {
                within(inserts / INSERTS_PER_SECOND) && !self.machine_started_after(newest).await?
            }
        })
    }

    /// Which life of the server this is.
    async fn boot(&self) -> Result<Boot, SinkError> {
        let sql = "select toUInt64(uptime()), toString(any(uuid)) from system.databases \
                   where name = 'information_schema'";
        let rows = self.transport.rows(sql, &[]).await.map_err(Fault::into_sink_error)?;
        let row = rows.rows.first();
        let uptime = number(row.and_then(|row| row.first())).unwrap_or_default();
        let id = row.and_then(|row| row.get(1)?.as_str());
        Ok(Boot {
            id: id.filter(|id| !id.starts_with("00000000-0000")).map(str::to_owned),
            started_at: self.clock.wall() - seconds(uptime),
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
    async fn audit(&self, batch: &Batch) -> Result<HashSet<u64>, Fault> {
        let (database, table) = (&self.config.database, batch.table.name());
        let node = batch.events.first().map_or("", |event| &*event.ingest.node);
        let sql = format!(
            "select distinct ingest_seq from `{database}`.`{table}` \
             where ingest_node = {{node:String}} and ingest_seq between {} and {}",
            batch.first, batch.last
        );
        let question = Question {
            sql: &sql,
            parameters: &[("node", node)],
            settings: &[],
            time_max: self.config.insert_time_max,
        };
        let answer = self.transport.ask(question, "RowBinary").await?;
        let stored: HashSet<u64> =
            answer.as_chunks().0.iter().map(|bytes| u64::from_le_bytes(*bytes)).collect();
        if !stored.is_empty() {
            tracing::info!(
                sink = self.config.name,
                table,
                rows = batch.events.len(),
                stored = stored.len(),
                "a batch that may have been sent is stored, at least in part"
            );
        }
        Ok(stored)
    }
}

/// Seconds as a server tells them.
fn seconds(told: f64) -> TimeDelta {
    let told = std::time::Duration::try_from_secs_f64(told.max(0.0)).unwrap_or_default();
    TimeDelta::from_std(told).unwrap_or_default()
}
