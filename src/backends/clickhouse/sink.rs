//! Batches into tables, each once.
//!
//! Every insert carries the token of its frozen batch, and a table forgets a token later than the
//! batch after it is sent. So a batch whose answer was lost is sent again as it was, and the server
//! keeps one of both, in the table and in what is derived from it. What is sent when a batch may
//! have been tried before is `repeat`'s to say.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::ClickHouse;
use super::catalog::{Catalog, Described};
use super::fault::{About, Fault, about};
use super::repeat::{Attempt, Lane};
use crate::backends::{Appetite, Batch, Guarantee, Sink, SinkError};
use crate::tables::AnyTable;

/// At least so long between two inserts into a table that does not drain a backlog: every insert
/// makes a part, which the server has to merge.
const REST: Duration = Duration::from_secs(1);
/// What a batch may have. An insert costs the server some 250 ms of a processor beside its rows, of
/// which 100,000 take it 600 ms.
/// Two batches are in memory, compressed; what cannot be compressed is why bytes are bounded.
const APPETITE: Appetite = Appetite { rows: 100_000, bytes: 96 << 20 };
/// How much of the time for an insert the server itself has.
const SERVERS_SHARE: f64 = 0.75;
/// What the server says of its tables is asked again when it is so old, so that `/health` tells what is
/// true after somebody changed it.
const CATALOG_AGE_MAX: Duration = Duration::from_secs(60);
/// Wait before a table is looked at again that could not be written.
const UNFIT: Duration = Duration::from_secs(5);

/// What the sink remembers between batches.
#[derive(Default)]
pub(super) struct Memory {
    catalog: Option<Arc<Catalog>>,
    /// When it was asked for.
    catalog_at: Option<Instant>,
    /// By table; none before the first batch.
    lanes: HashMap<&'static str, Lane>,
    /// When an insert into a table went without an answer last; none since this process began.
    unanswered: HashMap<&'static str, Instant>,
}

/// Behind a lock that is held for a copy, never during a request.
pub(super) type Remembered = Mutex<Memory>;

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
        let attempt = self.plan(described, batch, self.lane(table)).await?;
        self.send(&catalog, described, batch, &attempt).await?;
        self.prove(described, batch, &attempt).await?;
        self.note(table, Lane::Settled);
        Ok(())
    }

    fn expect(&self, next: &Batch) {
        let catalog = self.memory().catalog.clone();
        if let Some(catalog) = catalog {
            self.encoder.expect(catalog, next);
        }
    }

    fn rest(&self) -> Duration {
        REST
    }

    fn appetite(&self) -> Appetite {
        APPETITE
    }

    fn notice(&self) -> Option<String> {
        self.memory().catalog.as_ref().and_then(|catalog| catalog.unfit())
    }
}

impl ClickHouse {
    /// What the server says of its tables, asked again when it is old or something is found changed.
    async fn catalog(&self) -> Result<Arc<Catalog>, Fault> {
        let now = self.clock.monotonic();
        if let Some(catalog) = self.fresh_catalog(now) {
            return Ok(catalog);
        }
        // Less than we wait for an answer, so that it is the server that ends what takes too long: then it
        // has surely ended.
        let insert_time_max = self.config.insert_time_max.mul_f64(SERVERS_SHARE);
        let database = &self.config.database;
        let catalog = Catalog::read(&self.transport, database, insert_time_max).await?;
        let catalog = Arc::new(catalog);
        let mut memory = self.memory();
        (memory.catalog, memory.catalog_at) = (Some(Arc::clone(&catalog)), Some(now));
        Ok(catalog)
    }

    fn fresh_catalog(&self, now: Instant) -> Option<Arc<Catalog>> {
        let memory = self.memory();
        let age = now.saturating_duration_since(memory.catalog_at?);
        memory.catalog.clone().filter(|_| age < CATALOG_AGE_MAX)
    }

    /// The next batch describes the tables anew.
    fn look_again(&self) {
        self.memory().catalog = None;
    }

    async fn send(
        &self,
        catalog: &Arc<Catalog>,
        described: &Described,
        batch: &Batch,
        attempt: &Attempt,
    ) -> Result<(), SinkError> {
        let table = batch.table.name();
        let statement = match &described.layout {
            Ok(layout) => layout.statement(&self.config.database),
            Err(words) => {
                self.look_again();
                let words = format!(
                    "{table} cannot be written: {words}; run tracker migrate, and change by hand what \
                     it says does not fit"
                );
                return Err(SinkError::Unfit { after: UNFIT, source: words.into() });
            }
        };
        let inserts = self.encoder.encode(catalog, batch, &attempt.stored).await;
        let inserts = inserts.inspect_err(|error| {
            if matches!(error, SinkError::Reject { .. }) {
                self.note(table, Lane::Refused);
            }
        })?;
        // The server refuses a second attempt at a batch while the first still runs.
        let query_id = batch.token();
        for (index, insert) in inserts.iter().enumerate() {
            let (rows, bytes) = (insert.rows, insert.body.len());
            tracing::debug!(sink = self.config.name, table, rows, bytes, "inserting");
            // One insert as a rule; those of a batch of many months are numbered.
            let number = if index == 0 { String::new() } else { format!("#{index}") };
            let token = format!("{}{number}", attempt.token);
            let settings = catalog.settings.iter().map(|(name, value)| (*name, &**value));
            let mut settings: Vec<(&str, &str)> = settings.collect();
            settings.push(("insert_deduplication_token", &token));
            settings.push(("query_id", &query_id));
            let sent = self.transport.insert(&statement, &settings, &insert.body).await;
            sent.map_err(|fault| self.failed(table, fault, attempt, index > 0))?;
        }
        Ok(())
    }

    /// Remembers what a failed insert may have left; `begun` says that a part of the batch is stored.
    fn failed(
        &self,
        table: &'static str,
        fault: Fault,
        attempt: &Attempt,
        begun: bool,
    ) -> SinkError {
        let about = about(fault.code());
        if matches!(about, About::Table | About::Setting) {
            self.look_again();
        }
        if about == About::Rows {
            self.note(table, Lane::Refused);
        } else if begun || fault.is_ambiguous() {
            self.note(table, Lane::Tried(attempt.clone()));
        }
        match about {
            About::Table => SinkError::Unfit { after: UNFIT, source: fault.into() },
            About::Size if self.may_cut(table) => SinkError::TooLarge { source: fault.into() },
            About::Rows | About::Size | About::Moment | About::Setting => {
                if fault.is_unanswered() {
                    let now = self.clock.monotonic();
                    self.memory().unanswered.insert(table, now);
                }
                fault.into_sink_error()
            }
        }
    }

    /// Whether the batch of `table` may go out in parts. The whole and its parts have different tokens,
    /// so no attempt at the whole may still run: neither one of this process nor one of the process
    /// before it.
    fn may_cut(&self, table: &str) -> bool {
        let unanswered = self.memory().unanswered.get(table).copied().unwrap_or(self.began);
        let over = unanswered + 2 * self.config.insert_time_max;
        self.clock.monotonic() >= over
    }

    fn lane(&self, table: &str) -> Option<Lane> {
        self.memory().lanes.get(table).cloned()
    }

    pub(super) fn note(&self, table: &'static str, lane: Lane) {
        self.memory().lanes.insert(table, lane);
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
