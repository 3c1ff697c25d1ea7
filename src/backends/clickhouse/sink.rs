//! Batches into tables, each once.
//!
//! Every insert carries the token of its frozen batch, and a table forgets a token later than the
//! batch after it is sent. So a batch whose answer was lost is sent again as it was, and the server
//! keeps one of both, in the table and in what is derived from it.
//!
//! That fast path needs a window that surely still holds the token. Where it may not (an outage
//! outlasted it; the machine was restarted, whose log of tokens was not on the disk; the batch was
//! cut and has other tokens; the table has no window) the **audit** asks which of the batch's
//! positions are stored, and only the others are sent.
//!
//! Both are for batches that may have been tried: those of an attempt without a clear answer, and
//! the first of each table when its records are older than this process.
//!
//! Known weakness: when the server is killed between storing a batch and what is derived from it,
//! *and* stays away longer than the window, the audit finds the batch whole, and counters of derived
//! tables lack it. The facts do not.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::oneshot;

use super::ClickHouse;
use super::catalog::{Catalog, Described, UPTIME, Window, number};
use super::encode::{EncodeError, Encoded};
use super::fault::{About, Fault, about};
use super::transport::Question;
use crate::backends::{Batch, Guarantee, Sink, SinkError};
use crate::background;
use crate::event::Event;
use crate::journal::Position;
use crate::tables::{self, AnyTable};

/// At least so long between two inserts into a table that does not drain a backlog: every insert
/// makes a part, which the server has to merge.
const REST: Duration = Duration::from_secs(1);
/// Wait before the next attempt when the encoder has too many jobs.
const BUSY: Duration = Duration::from_millis(100);
/// Wait before a table is looked at again that could not be written.
const UNFIT: Duration = Duration::from_secs(5);

/// Tokens that a table takes in a second at most, for windows that count inserts: one of each of
/// several trackers, some of which have several partitions.
const INSERTS_PER_SECOND: u64 = 16;

/// What the sink remembers between batches.
#[derive(Default)]
pub(super) struct Memory {
    catalog: Option<Arc<Catalog>>,
    lanes: HashMap<&'static str, Lane>,
}

/// What is known of a table's last batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lane {
    /// It is stored.
    Settled,
    /// It may have been stored, wholly or in part.
    Tried {
        /// Its range.
        first: Position,
        /// Its range.
        last: Position,
        /// All of it was sent, under the token of the whole.
        whole: bool,
    },
    /// The server refused it; what of it is stored has the tokens of the whole.
    Refused,
}

/// A thread that encodes, so that nothing that answers requests waits for it.
pub(super) struct Encoder(SyncSender<Job>);

struct Job {
    catalog: Arc<Catalog>,
    table: &'static str,
    events: Vec<Arc<Event>>,
    stored: HashSet<u64>,
    answer: oneshot::Sender<Result<Vec<Encoded>, EncodeError>>,
}

impl Encoder {
    /// Starts the thread; it ends with its handle.
    ///
    /// # Errors
    /// When the machine gives no thread.
    pub(super) fn start() -> io::Result<Self> {
        // A table has one batch on its way.
        let (jobs, waiting) = sync_channel::<Job>(tables::ALL.len());
        background::spawn("clickhouse-enc", move || {
            while let Ok(Job { catalog, table, events, stored, answer }) = waiting.recv() {
                let layout = catalog.table(table).and_then(|table| table.layout.as_ref().ok());
                let encoded =
                    layout.map_or(Ok(Vec::new()), |layout| layout.encode(&events, &stored));
                // Nobody to answer: the attempt was given up.
                drop(answer.send(encoded));
            }
        })?;
        Ok(Self(jobs))
    }

    async fn encode(
        &self,
        catalog: &Arc<Catalog>,
        batch: &Batch,
        stored: HashSet<u64>,
    ) -> Result<Vec<Encoded>, SinkError> {
        let (answer, answered) = oneshot::channel();
        let job = Job {
            catalog: Arc::clone(catalog),
            table: batch.table.name(),
            events: batch.events.clone(),
            stored,
            answer,
        };
        let busy = |words: &str| SinkError::Retry { after: Some(BUSY), source: words.into() };
        self.0.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => busy("the encoder is busy"),
            TrySendError::Disconnected(_) => busy("the encoder has ended"),
        })?;
        match answered.await {
            Ok(Ok(inserts)) => Ok(inserts),
            Ok(Err(error @ EncodeError::Mismatch { .. })) => {
                Err(SinkError::Reject { source: error.into() })
            }
            Ok(Err(error)) => Err(SinkError::Retry { after: None, source: error.into() }),
            Err(_) => Err(busy("the encoder broke")),
        }
    }
}

#[async_trait]
impl Sink for ClickHouse {
    async fn identity(&self) -> Result<String, SinkError> {
        let identity = self.identify().await?;
        self.catalog().await.map_err(Fault::into_sink_error)?;
        Ok(identity)
    }

    fn accepts(&self, _table: &dyn AnyTable) -> bool {
        true
    }

    fn guarantee(&self, table: &dyn AnyTable) -> Guarantee {
        let memory = self.memory();
        let catalog = memory.catalog.as_ref();
        let described = catalog.and_then(|catalog| catalog.table(table.name()));
        described.map_or_else(
            || Guarantee::AtLeastOnce("it was not reached yet".to_owned()),
            |table| table.guarantee.clone(),
        )
    }

    async fn write(&self, batch: &Batch) -> Result<(), SinkError> {
        let catalog = self.catalog().await.map_err(Fault::into_sink_error)?;
        let table = batch.table.name();
        let Some(described) = catalog.table(table) else {
            return Err(SinkError::Reject { source: format!("{table} is no table").into() });
        };
        if let Err(words) = &described.layout {
            self.look_again();
            let words = format!("{table} cannot be written: {words}; run tracker migrate");
            return Err(SinkError::Unfit { after: UNFIT, source: words.into() });
        }
        let stored = self.stored_of(described, batch).await?;
        let token = match stored.len() {
            0 => batch.token(),
            // What is left is another insert than the whole.
            stored => format!("{}~{stored}", batch.token()),
        };
        let whole = stored.is_empty();
        let inserts = self.encoder.encode(&catalog, batch, stored).await;
        let inserts = inserts.inspect_err(|error| {
            if matches!(error, SinkError::Reject { .. }) {
                self.note(table, Lane::Refused);
            }
        })?;
        let tried = Lane::Tried { first: batch.first, last: batch.last, whole };
        let layout = described
            .layout
            .as_ref()
            .map_err(|words| SinkError::Unfit { after: UNFIT, source: words.clone().into() })?;
        let statement = layout.statement(&self.config.database);
        for (index, insert) in inserts.iter().enumerate() {
            tracing::debug!(
                sink = self.config.name,
                table,
                rows = insert.rows,
                bytes = insert.body.len(),
                "inserting"
            );
            // One insert as a rule; those of a batch of many months are numbered.
            let token = if index == 0 { token.clone() } else { format!("{token}#{index}") };
            let mut settings = catalog.settings.clone();
            settings.push(("insert_deduplication_token", &token));
            let sent = self.transport.insert(&statement, &settings, &insert.body).await;
            sent.map_err(|fault| self.failed(table, fault, tried, index > 0))?;
        }
        self.note(table, Lane::Settled);
        Ok(())
    }

    fn rest(&self) -> Duration {
        REST
    }

    fn notice(&self) -> Option<String> {
        let memory = self.memory();
        memory.catalog.as_ref().and_then(|catalog| catalog.unfit())
    }
}

impl ClickHouse {
    /// What the server says of its tables, asked once until something is found changed.
    async fn catalog(&self) -> Result<Arc<Catalog>, Fault> {
        if let Some(catalog) = self.memory().catalog.clone() {
            return Ok(catalog);
        }
        let catalog = Arc::new(Catalog::read(&self.transport, &self.config.database).await?);
        self.memory().catalog = Some(Arc::clone(&catalog));
        Ok(catalog)
    }

    /// The next batch describes the tables anew.
    fn look_again(&self) {
        self.memory().catalog = None;
    }

    /// Remembers what a failed insert may have left; `begun` says that a part of the batch is stored.
    fn failed(&self, table: &'static str, fault: Fault, tried: Lane, begun: bool) -> SinkError {
        let about = about(fault.code());
        if matches!(about, About::Table | About::Setting) {
            self.look_again();
        }
        if about == About::Rows {
            self.note(table, Lane::Refused);
        } else if begun || fault.is_ambiguous() {
            self.note(table, tried);
        }
        match about {
            About::Table => SinkError::Unfit { after: UNFIT, source: fault.into() },
            About::Rows | About::Moment | About::Setting => fault.into_sink_error(),
        }
    }

    /// The positions of `batch` that may not be sent again, because the server would not recognise
    /// the repeat.
    async fn stored_of(
        &self,
        described: &Described,
        batch: &Batch,
    ) -> Result<HashSet<u64>, SinkError> {
        let nothing = HashSet::new();
        let lane = self.memory().lanes.get(batch.table.name()).copied();
        let Some(newest) = batch.events.last().map(|event| event.received_at) else {
            return Ok(nothing);
        };
        match lane {
            Some(Lane::Settled) => Ok(nothing),
            // Not older than this process, so nobody can have sent it.
            None if newest >= self.started_at => Ok(nothing),
            None => {
                let stored = self.audit(batch).await.map_err(Fault::into_sink_error)?;
                let at_once = stored.is_empty() || stored.len() == batch.events.len();
                let holds = at_once && self.window_holds(described.window, newest).await?;
                // The repeat completes what is derived, should the server have been killed between.
                Ok(if holds { nothing } else { stored })
            }
            Some(Lane::Tried { first, last, whole: true })
                if (first, last) == (batch.first, batch.last)
                    && self.window_holds(described.window, newest).await? =>
            {
                Ok(nothing)
            }
            Some(Lane::Tried { .. } | Lane::Refused) => {
                self.audit(batch).await.map_err(Fault::into_sink_error)
            }
        }
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

    /// Whether the machine of the server was started after `moment`. The server does not sync its log
    /// of tokens (ClickHouse#111577), so the log survives an end of the server but not of the
    /// machine. False where the server does not say.
    async fn machine_started_after(&self, moment: DateTime<Utc>) -> Result<bool, SinkError> {
        let rows = match self.transport.rows_of(UPTIME).await {
            Ok(rows) => rows,
            // It has no such table, or we may not read it.
            Err(Fault::Refused { .. }) => return Ok(false),
            Err(fault) => return Err(fault.into_sink_error()),
        };
        let uptime = number(rows.rows.first().and_then(|row| row.first()));
        let Some(uptime) = uptime.filter(|seconds| seconds.is_finite() && *seconds >= 0.0) else {
            return Ok(false);
        };
        let uptime = Duration::try_from_secs_f64(uptime).unwrap_or(Duration::MAX);
        let started = TimeDelta::from_std(uptime)
            .ok()
            .and_then(|uptime| self.clock.wall().checked_sub_signed(uptime));
        Ok(started.is_some_and(|started| started > moment))
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
        tracing::info!(
            sink = self.config.name,
            table,
            rows = batch.events.len(),
            stored = stored.len(),
            "asked what is stored of a batch that may have been sent"
        );
        Ok(stored)
    }

    fn note(&self, table: &'static str, lane: Lane) {
        self.memory().lanes.insert(table, lane);
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) type Remembered = Mutex<Memory>;
