//! Pruning the embedded file, month after month: by the thread that writes it, or without a server.
//!
//! A month is done in chunks, each one transaction, so that batches are stored between them. A row
//! that was changed no longer answers the condition it was found by. What `params` become is
//! computed here. Views follow their facts.

use std::fmt::Write as _;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::hmac;
use duckdb::{Connection, params};
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use super::file::{self, Database, OpenError};
use super::worker::Command;
use crate::backends::{Job, Portion, PruneError, Pruner};
use crate::config::{DuckDbConfig, PruneAction, PruneBlank};

/// Tables whose rows have an age, and the column it is counted from.
const AGED: &[(&str, &str)] = &[
    ("events", "created_at"),
    ("quarantine", "received_at"),
    ("mthreads", "created_at"),
    ("mstore", "created_at"),
    ("mtriage", "created_at"),
    ("impression_daily", "day"),
    ("payments", "created_at"),
    ("ltv", "created_at"),
    ("agreed", "created_at"),
    ("logs", "created_at"),
];

/// Rows of one transaction.
const CHUNK_ROWS: usize = 10_000;

/// Bytes of a hash: 32 hex characters, as everywhere.
const HASH_BYTES: usize = 16;

/// Between two attempts to hand work to a thread that has much of it, and how many there are.
const BUSY: Duration = Duration::from_millis(100);
const ATTEMPTS_MAX: u32 = 300;

/// The pruner of one file.
pub(super) struct DuckDbPruner {
    access: Access,
}

/// How the file is reached.
enum Access {
    /// Held open here.
    File(Box<Mutex<Database>>),
    /// By the thread that writes it.
    Worker(SyncSender<Command>),
}

impl DuckDbPruner {
    /// Opens the file. Blocks.
    ///
    /// # Errors
    /// [`PruneError::Unavailable`] when a tracker runs on it or it cannot be opened.
    pub(super) fn open(config: &DuckDbConfig) -> Result<Self, PruneError> {
        let database = file::open(config).map_err(|error| match error {
            OpenError::Locked(_) => PruneError::Unavailable(
                "another process has the file, and no tracker answers for it".into(),
            ),
            other => PruneError::Unavailable(other.into()),
        })?;
        Ok(Self { access: Access::File(Box::new(Mutex::new(database))) })
    }

    /// The pruner of a file that the worker has.
    pub(super) fn of_worker(commands: SyncSender<Command>) -> Self {
        Self { access: Access::Worker(commands) }
    }

    async fn with<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, PruneError> + Send + 'static,
    ) -> Result<T, PruneError> {
        let commands = match &self.access {
            Access::File(database) => {
                let database = database.lock().unwrap_or_else(PoisonError::into_inner);
                return work(&database.connection);
            }
            Access::Worker(commands) => commands,
        };
        let closed = || PruneError::Unavailable("the database is closed".into());
        let (reply, answer) = oneshot::channel();
        let mut command = Command::Work(Box::new(move |connection| {
            let done = match connection {
                Ok(connection) => work(connection),
                Err(error) => Err(PruneError::Unavailable(error.into())),
            };
            drop(reply.send(done));
        }));
        for _ in 0..ATTEMPTS_MAX {
            match commands.try_send(command) {
                Ok(()) => return answer.await.unwrap_or_else(|_| Err(closed())),
                Err(TrySendError::Disconnected(_)) => return Err(closed()),
                Err(TrySendError::Full(again)) => command = again,
            }
            tokio::time::sleep(BUSY).await;
        }
        Err(PruneError::Unavailable("the database is busy".into()))
    }
}

impl From<duckdb::Error> for PruneError {
    fn from(error: duckdb::Error) -> Self {
        Self::Unavailable(error.into())
    }
}

#[async_trait]
impl Pruner for DuckDbPruner {
    fn tables(&self) -> Vec<String> {
        AGED.iter().map(|(table, _)| (*table).to_owned()).collect()
    }

    async fn portions(&self, job: &Job, after: &[Job]) -> Result<Vec<Portion>, PruneError> {
        let before = after.iter().filter(|done| done.table == job.table);
        let (job, before) = (job.clone(), before.cloned().collect::<Vec<_>>());
        self.with(move |connection| portions(connection, &job, &before)).await
    }

    async fn apply(
        &self,
        job: &Job,
        portion: &Portion,
        waiting: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), PruneError> {
        let mut left = portion.rows;
        loop {
            let (job, name) = (job.clone(), portion.name.clone());
            let changed = self.with(move |connection| chunk(connection, &job, &name)).await?;
            if changed < CHUNK_ROWS {
                return Ok(());
            }
            left = left.saturating_sub(changed as u64);
            waiting(left);
        }
    }

    fn followers(&self, _job: &Job) -> Vec<Job> {
        Vec::new()
    }
}

fn portions(
    connection: &Connection,
    job: &Job,
    before: &[Job],
) -> Result<Vec<Portion>, PruneError> {
    let target = Target::of(connection, job)?;
    let mut rows = job.table.clone();
    for done in before {
        rows = rows_after(&rows, done, &Target::of(connection, done)?);
    }
    let sql = format!(
        "select strftime({}, '%Y%m') as portion, count(*) from {rows} where {} group by all \
         order by all",
        target.moment, target.condition
    );
    let mut statement = connection.prepare(&sql)?;
    let portions = statement.query_map([], |row| {
        Ok(Portion { name: row.get(0)?, rows: row.get::<_, i64>(1)?.unsigned_abs() })
    })?;
    Ok(portions.collect::<Result<_, _>>()?)
}

/// The rows of a table or subquery, as `job` would leave them. A hash is any text.
fn rows_after(rows: &str, job: &Job, target: &Target) -> String {
    let condition = &target.condition;
    let PruneAction::Blank(blank) = &job.action else {
        return format!("(select * from {rows} where not ({condition}))");
    };
    let mut columns: Vec<(&str, String)> =
        blank.fields.iter().map(|field| (field.column.as_str(), "null".to_owned())).collect();
    if target.asks_params {
        let kept = match taken(blank) {
            Some(taken) => format!(
                "(select json_group_object(key, value) from json_each(params) where not ({taken}))"
            ),
            None => "params".to_owned(),
        };
        let told =
            hashes(blank).fold(format!("coalesce({kept}, '{{}}')"), |params, (from, name)| {
                let hash = format!("if(\"{from}\" is null, '{{}}', '{{\"{name}\":\"\"}}')");
                format!("json_merge_patch({params}, {hash})")
            });
        columns.push(("params", told));
    }
    let column = |(name, value): (&str, String)| {
        format!("case when {condition} then {value} else \"{name}\" end as \"{name}\"")
    };
    let columns: Vec<String> = columns.into_iter().map(column).collect();
    format!("(select * replace ({}) from {rows})", columns.join(", "))
}

/// Changes up to [`CHUNK_ROWS`] rows of one month; how many.
fn chunk(connection: &Connection, job: &Job, month: &str) -> Result<usize, PruneError> {
    let target = Target::of(connection, job)?;
    let (table, moment, condition) = (&job.table, target.moment, &target.condition);
    let found = format!(
        "select rowid as row from {table} where {condition} and strftime({moment}, '%Y%m') = ? \
         limit {CHUNK_ROWS}"
    );
    connection.execute_batch("begin transaction")?;
    let changed = match &job.action {
        PruneAction::Delete => connection
            .execute(&format!("delete from {table} where rowid in ({found})"), params![month]),
        PruneAction::Blank(blank) => {
            let key = hmac::Key::new(hmac::HMAC_SHA256, &job.key.0);
            blank_rows(connection, table, blank, &target, (&found, month), &key)
        }
    };
    connection.execute_batch(if changed.is_ok() { "commit" } else { "rollback" })?;
    Ok(changed?)
}

/// The table of a job, as the file has it.
struct Target {
    moment: &'static str,
    /// Rows that still have to be changed.
    condition: String,
    /// Whether `params` become something else.
    asks_params: bool,
    /// Columns of hashes that intake made, by the name of the hash.
    own_hashes: Vec<String>,
}

impl Target {
    fn of(connection: &Connection, job: &Job) -> Result<Self, PruneError> {
        let table = &job.table;
        let unfit = |words: String| Err(PruneError::Unfit(words));
        let aged = AGED.iter().find(|(name, _)| name == table);
        let Some(&(_, moment)) = aged else {
            return unfit(format!(
                "{table} has no rows of its own that grow old; the rule belongs to what it \
                 derives from, for example events"
            ));
        };
        let columns = columns(connection, table)?;
        let has = |column: &str| columns.iter().any(|found| found == column);
        if job.spared_flags != 0 && !has("cflags") {
            return unfit(format!("{table} has no cflags, so CFlagsIgnore cannot be honoured"));
        }
        let time = |time: chrono::DateTime<chrono::Utc>| {
            format!("make_timestamp({}::bigint)", time.timestamp_micros())
        };
        let mut condition = format!("{moment} < {}", time(job.before));
        if let Some(from) = job.not_before {
            let _ = write!(condition, " and {moment} >= {}", time(from));
        }
        if job.spared_flags != 0 {
            let _ = write!(condition, " and coalesce(cflags, 0) & {} = 0", job.spared_flags);
        }
        let mut target = Self { moment, condition, asks_params: false, own_hashes: Vec::new() };
        let PruneAction::Blank(blank) = &job.action else { return Ok(target) };
        if let Some(field) = blank.fields.iter().find(|field| !has(&field.column)) {
            return unfit(format!("{table} has no column {}", field.column));
        }
        // As in ClickHouse, where such columns are the key: one rule for both.
        if let Some(field) = blank.fields.iter().find(|field| is_key(moment, &field.column)) {
            return unfit(format!(
                "{table}.{} tells rows apart and cannot be blanked; ClearAll removes such rows",
                field.column
            ));
        }
        let names: Vec<&str> = hashes(blank).map(|(_, name)| name).collect();
        target.asks_params = blank.texts || blank.numbers || !names.is_empty();
        if target.asks_params && !has("params") {
            return unfit(format!("{table} has no params"));
        }
        let own = names.iter().filter(|name| has(name));
        target.own_hashes = own.map(|&name| name.to_owned()).collect();
        let fields = blank.fields.iter().map(|field| format!("\"{}\" is not null", field.column));
        let takes = |taken| format!("exists (select 1 from json_each(params) where {taken})");
        let says: Vec<String> = fields.chain(taken(blank).map(takes)).collect();
        let _ = write!(target.condition, " and ({})", says.join(" or "));
        Ok(target)
    }
}

fn is_key(moment: &str, column: &str) -> bool {
    column == moment || ["eid", "vid", "oid", "ingest_node", "ingest_seq"].contains(&column)
}

fn columns(connection: &Connection, table: &str) -> Result<Vec<String>, duckdb::Error> {
    connection
        .prepare("select column_name from duckdb_columns() where table_name = ? and not internal")?
        .query_map(params![table], |row| row.get(0))?
        .collect()
}

/// Fields that leave a hash, with its name.
fn hashes(blank: &PruneBlank) -> impl Iterator<Item = (&str, &str)> {
    let fields = blank.fields.iter();
    fields.filter_map(|field| Some((field.column.as_str(), field.hash.as_deref()?)))
}

/// Whether the rule takes away what `json_each` finds; `None` when it takes nothing from `params`.
fn taken(blank: &PruneBlank) -> Option<String> {
    if !blank.texts && !blank.numbers {
        return None;
    }
    let names: Vec<String> = hashes(blank).map(|(_, name)| format!("'{name}'")).collect();
    let hashes = if names.is_empty() {
        String::new()
    } else {
        format!("key not in ({}) and ", names.join(", "))
    };
    let number = "type in ('BIGINT', 'UBIGINT', 'HUGEINT', 'UHUGEINT', 'DOUBLE')";
    let taken = match (blank.texts, blank.numbers) {
        (true, true) => "true".to_owned(),
        (true, false) => format!("not {number}"),
        (false, _) => number.to_owned(),
    };
    Some(format!("{hashes}{taken}"))
}

/// Blanks the rows that a query with one parameter names; how many.
fn blank_rows(
    connection: &Connection,
    table: &str,
    blank: &PruneBlank,
    target: &Target,
    (found, month): (&str, &str),
    key: &hmac::Key,
) -> Result<usize, duckdb::Error> {
    connection
        .execute_batch("create or replace temp table pruned_rows (row bigint, said varchar)")?;
    connection.execute(
        &format!("insert into pruned_rows select row, null from ({found})"),
        params![month],
    )?;
    if target.asks_params {
        say_anew(connection, table, blank, target, key)?;
    }
    let mut sets: Vec<String> =
        blank.fields.iter().map(|field| format!("\"{}\" = null", field.column)).collect();
    if target.asks_params {
        sets.push("params = pruned_rows.said::json".to_owned());
    }
    connection.execute(
        &format!(
            "update {table} set {} from pruned_rows where {table}.rowid = pruned_rows.row",
            sets.join(", ")
        ),
        [],
    )
}

/// Computes what the `params` of the chosen rows become.
fn say_anew(
    connection: &Connection,
    table: &str,
    blank: &PruneBlank,
    target: &Target,
    key: &hmac::Key,
) -> Result<(), duckdb::Error> {
    let hashed: Vec<(&str, &str)> = hashes(blank).collect();
    let mut select = "select row, params::varchar".to_owned();
    for (column, name) in &hashed {
        let is_own = target.own_hashes.iter().any(|own| own == name);
        let own = if is_own { format!("\"{name}\"") } else { "null".to_owned() };
        let _ = write!(select, ", \"{column}\"::varchar, {own}::varchar");
    }
    let from = format!("from pruned_rows join {table} on {table}.rowid = pruned_rows.row");
    let mut statement = connection.prepare(&format!("{select} {from}"))?;
    let mut rows = statement.query([])?;
    let mut told: Vec<(i64, String)> = Vec::new();
    while let Some(row) = rows.next()? {
        let said: Option<String> = row.get(1)?;
        let mut params = kept(said.as_deref(), blank);
        for (at, (_, name)) in hashed.iter().enumerate() {
            let value: Option<String> = row.get(2 + 2 * at)?;
            let own: Option<String> = row.get(3 + 2 * at)?;
            let hash = value.map(|value| own.unwrap_or_else(|| hash_of(&value, key)));
            params.extend(hash.map(|hash| ((*name).to_owned(), Value::String(hash))));
        }
        told.push((row.get(0)?, Value::Object(params).to_string()));
    }
    connection.execute_batch("delete from pruned_rows")?;
    let mut appender = connection.appender("pruned_rows")?;
    for (row, said) in told {
        appender.append_row(params![row, said])?;
    }
    appender.flush()
}

/// What is left of `params`: hashes stay, numbers and others as the rule says.
fn kept(said: Option<&str>, blank: &PruneBlank) -> Map<String, Value> {
    let said = said.and_then(|said| serde_json::from_str(said).ok()).unwrap_or_default();
    let stays = |(name, value): &(String, Value)| {
        let goes = if value.is_number() { blank.numbers } else { blank.texts };
        !goes || hashes(blank).any(|(_, hash)| hash == name)
    };
    let said: Map<String, Value> = said;
    said.into_iter().filter(stays).collect()
}

fn hash_of(value: &str, key: &hmac::Key) -> String {
    let tag = hmac::sign(key, value.as_bytes());
    tag.as_ref().iter().take(HASH_BYTES).fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
