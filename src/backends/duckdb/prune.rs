//! Pruning the embedded file, month after month, while no server has it.
//!
//! Rows are deleted in one statement a month. Rows that lose values are read in chunks, because what
//! their `params` become is computed here; a chunk is one transaction, and a row that was changed no
//! longer answers the condition it was found by. Views follow their facts.

use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use aws_lc_rs::hmac;
use duckdb::{Connection, params};
use serde_json::{Map, Value};

use super::file::{self, Database, OpenError};
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

/// The pruner of one file, which it holds open.
pub(super) struct DuckDbPruner {
    database: Mutex<Database>,
    key: hmac::Key,
}

impl DuckDbPruner {
    /// Opens the file. `key` is for hashes of values that are taken away. Blocks.
    ///
    /// # Errors
    /// [`PruneError::Unavailable`] when a tracker runs on it or it cannot be opened.
    pub(super) fn open(config: &DuckDbConfig, key: [u8; 32]) -> Result<Self, PruneError> {
        let database = file::open(config).map_err(|error| match error {
            OpenError::Locked(_) => PruneError::Unavailable(
                "a running tracker has the file; stop it while pruning".into(),
            ),
            other => PruneError::Unavailable(other.into()),
        })?;
        let key = hmac::Key::new(hmac::HMAC_SHA256, &key);
        Ok(Self { database: Mutex::new(database), key })
    }

    fn database(&self) -> MutexGuard<'_, Database> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<duckdb::Error> for PruneError {
    fn from(error: duckdb::Error) -> Self {
        Self::Unavailable(error.into())
    }
}

#[async_trait]
impl Pruner for DuckDbPruner {
    fn tables(&self) -> Vec<&'static str> {
        AGED.iter().map(|(table, _)| *table).collect()
    }

    async fn portions(&self, job: &Job) -> Result<Vec<Portion>, PruneError> {
        let database = self.database();
        let target = Target::of(&database.connection, job)?;
        let sql = format!(
            "select strftime({}, '%Y%m') as portion, count(*) from {} where {} group by all \
             order by all",
            target.moment, job.table, target.condition
        );
        let mut statement = database.connection.prepare(&sql)?;
        let portions = statement.query_map([], |row| {
            Ok(Portion { name: row.get(0)?, rows: row.get::<_, i64>(1)?.unsigned_abs() })
        })?;
        Ok(portions.collect::<Result<_, _>>()?)
    }

    async fn apply(
        &self,
        job: &Job,
        portion: &Portion,
        waiting: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), PruneError> {
        let database = self.database();
        let connection = &database.connection;
        let target = Target::of(connection, job)?;
        let found = format!(
            "{} and strftime({}, '%Y%m') = '{}'",
            target.condition, target.moment, portion.name
        );
        let PruneAction::Blank(blank) = &job.action else {
            connection.execute(&format!("delete from {} where {found}", job.table), [])?;
            return Ok(());
        };
        let mut left = portion.rows;
        loop {
            connection.execute_batch("begin transaction")?;
            let changed = blank_chunk(connection, &job.table, blank, &target, &found, &self.key);
            connection.execute_batch(if changed.is_ok() { "commit" } else { "rollback" })?;
            let changed = changed?;
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
        let says: Vec<String> = fields.chain(params_say(blank, &names)).collect();
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

/// Whether `params` say anything that the rule takes away; `None` when it takes nothing from them.
fn params_say(blank: &PruneBlank, names: &[&str]) -> Option<String> {
    if !blank.texts && !blank.numbers {
        return None;
    }
    let names: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
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
    Some(format!("exists (select 1 from json_each(params) where {hashes}{taken})"))
}

/// Blanks up to [`CHUNK_ROWS`] of the rows that `found` describes; how many.
fn blank_chunk(
    connection: &Connection,
    table: &str,
    blank: &PruneBlank,
    target: &Target,
    found: &str,
    key: &hmac::Key,
) -> Result<usize, duckdb::Error> {
    let rows = format!("select rowid as row from {table} where {found} limit {CHUNK_ROWS}");
    connection.execute_batch(&format!(
        "create or replace temp table pruned_rows as select row, null::varchar as said from ({rows})"
    ))?;
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
