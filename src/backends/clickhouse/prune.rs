//! Pruning in ClickHouse: one mutation for each job and partition, waited for.
//!
//! A mutation writes parts anew and goes on by itself when nobody waits, so a run that was ended has
//! at most one of them left behind it; the next run finds what is left to do by the same condition.
//! Columns of a sorting key cannot be changed, which is said before anything is done.
//!
//! What is derived. Views follow their facts. Targets that hold a value under its own key (an
//! address in `ips` and `dailies`, a visitor in `reqs` …) cannot forget it and keep the row, and
//! know no consent flags, so their rows of that age go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;

use super::fault::Fault;
use super::migrate::{Database, files, stored};
use super::schema::Kind;
use super::transport::Transport;
use crate::backends::{Job, Portion, PruneError, PruneKey, Pruner};
use crate::clock::SystemClock;
use crate::config::{ClickHouseConfig, PruneAction, PruneBlank};

/// Between two looks at a mutation.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Looks in a row that may fail before a run gives up; the mutation goes on all the same.
const BLIND_LOOKS_MAX: u32 = 300;
/// Bytes of the block of SHA-256, which HMAC pads keys to.
const BLOCK_BYTES: usize = 64;

/// Which derived tables hold the values of a column of `events` under a key of their own.
const HOLDERS: &[(&str, &[&str])] = &[
    ("ip", &["ips", "dailies"]),
    ("url", &["hits", "outcomes"]),
    ("last", &["referrers"]),
    ("outcome", &["outcomes"]),
    ("bhash", &["browsers"]),
    ("browser", &["browsers"]),
    ("host", &["hosts"]),
    ("uid", &["userhosts"]),
    ("sid", &["userhosts", "usernames", "emails", "cells"]),
    ("nhash", &["usernames"]),
    ("ehash", &["emails"]),
    ("chash", &["cells"]),
];

/// Those that are about persons, and so go with rows that go.
const PERSONAL: &[&str] = &["ips", "dailies", "reqs", "userhosts", "usernames", "emails", "cells"];

/// The pruner of one configured store.
pub(super) struct ClickHousePruner {
    config: ClickHouseConfig,
    transport: Transport,
}

impl ClickHousePruner {
    /// Prepares it; nothing is asked.
    ///
    /// # Errors
    /// When the files of TLS cannot be used.
    pub(super) fn new(config: &ClickHouseConfig) -> Result<Self, PruneError> {
        let transport = Transport::new(config, Arc::new(SystemClock))
            .map_err(|error| PruneError::Unavailable(error.into()))?;
        Ok(Self { config: config.clone(), transport })
    }

    fn database(&self) -> Database<'_> {
        Database::of(&self.transport, &self.config)
    }

    /// What is known of the job's table; refuses what can never be done to it.
    async fn target(&self, job: &Job) -> Result<Target, PruneError> {
        let Some(moment) = moment_of(&job.table) else {
            return Err(PruneError::Unfit(format!(
                "{} has no rows of its own that grow old; the rule belongs to what it derives \
                 from, for example events",
                job.table
            )));
        };
        let catalog = self.database().catalog().await?;
        let kept_in = stored(&job.table, &catalog).map_or(&*job.table, |(name, _)| name).to_owned();
        let sql = format!(
            "select name, type, is_in_sorting_key or is_in_partition_key from system.columns \
             where database = {{database:String}} and table = '{kept_in}'"
        );
        let mut columns = BTreeMap::new();
        for row in self.database().ask(&sql).await? {
            let text = |at: usize| row.get(at).and_then(Value::as_str).map(str::to_owned);
            let is_key = row.get(2).and_then(Value::as_u64) == Some(1);
            if let (Some(name), Some(kind)) = (text(0), text(1)) {
                columns.insert(name, Column { kind, is_key });
            }
        }
        let target = Target { moment, kept_in, columns };
        target.check(job)?;
        Ok(target)
    }

    /// Mutations of `table` that are not done: what is left, why the last try failed.
    async fn unfinished(&self, table: &str) -> Result<BTreeMap<Mutation, (u64, String)>, Fault> {
        // Each server numbers its own.
        let (server, from) = match &self.config.cluster {
            Some(cluster) => {
                ("_shard_num", format!("clusterAllReplicas('{cluster}', system.mutations)"))
            }
            None => ("0", "system.mutations".to_owned()),
        };
        let sql = format!(
            "select {server} as server, mutation_id, sum(parts_to_do), max(latest_fail_reason) \
             from {from} where database = {{database:String}} and table = '{table}' and not \
             is_done group by server, mutation_id"
        );
        let mut found = BTreeMap::new();
        for row in self.database().ask(&sql).await? {
            let text = |at: usize| row.get(at).and_then(Value::as_str).unwrap_or("").to_owned();
            let number = |at: usize| row.get(at).and_then(Value::as_u64).unwrap_or(0);
            let mutation = Mutation { server: number(0), id: text(1) };
            found.insert(mutation, (number(2), text(3)));
        }
        Ok(found)
    }

    /// Waits until no mutation is left that was not there `before`.
    async fn wait(
        &self,
        table: &str,
        before: &BTreeSet<Mutation>,
        waiting: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), PruneError> {
        let mut blind = 0;
        loop {
            match self.unfinished(table).await {
                Ok(mut left) => {
                    blind = 0;
                    left.retain(|mutation, _| !before.contains(mutation));
                    if left.is_empty() {
                        return Ok(());
                    }
                    let failed = left.iter().find(|(_, (_, reason))| !reason.is_empty());
                    if let Some((mutation, (_, reason))) = failed {
                        self.kill(table, &mutation.id).await?;
                        return Err(PruneError::GaveUp(reason.clone()));
                    }
                    waiting(left.values().map(|(parts, _)| parts).sum());
                }
                Err(fault) if blind < BLIND_LOOKS_MAX => {
                    tracing::debug!(error = %fault, "a mutation cannot be looked at");
                    blind += 1;
                }
                Err(fault) => return Err(fault.into()),
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// A mutation that fails is tried forever and keeps later ones from being done.
    async fn kill(&self, table: &str, id: &str) -> Result<(), PruneError> {
        let database = self.database();
        let sql = format!(
            "kill mutation{} where database = '{}' and table = '{table}' and mutation_id = '{id}' \
             and latest_fail_reason <> ''",
            database.form.on(),
            self.config.database
        );
        Ok(database.run(&sql).await?)
    }
}

#[async_trait]
impl Pruner for ClickHousePruner {
    fn tables(&self) -> Vec<String> {
        let aged = files().filter(|statement| statement.retention.is_some());
        aged.map(|statement| statement.name.to_owned()).collect()
    }

    async fn portions(&self, job: &Job, after: &[Job]) -> Result<Vec<Portion>, PruneError> {
        let target = self.target(job).await?;
        let table = format!("`{}`.`{}`", self.config.database, job.table);
        let stored = format!("(select *, _partition_id as portion from {table})");
        let before = after.iter().filter(|done| done.table == job.table);
        let sql = format!(
            "select portion, count() from {} where {} group by 1 order by 1",
            before.fold(stored, |rows, done| target.rows_after(&rows, done)),
            target.condition(job)
        );
        let rows = self.database().ask_at_length(&sql).await?;
        let portion = |row: Vec<Value>| {
            let name = row.first()?.as_str()?.to_owned();
            Some(Portion { name, rows: row.get(1)?.as_u64()? })
        };
        Ok(rows.into_iter().filter_map(portion).collect())
    }

    async fn apply(
        &self,
        job: &Job,
        portion: &Portion,
        waiting: &mut (dyn FnMut(u64) + Send),
    ) -> Result<(), PruneError> {
        let target = self.target(job).await?;
        let database = self.database();
        let change = match &job.action {
            PruneAction::Delete => "delete".to_owned(),
            PruneAction::Blank(blank) => {
                let updates = target.updates(blank, &job.key).into_iter();
                let updates = updates.map(|(column, value)| format!("`{column}` = {value}"));
                format!("update {}", updates.collect::<Vec<_>>().join(", "))
            }
        };
        let sql = format!(
            "alter table `{}`{} {change} in partition id '{}' where {}",
            target.kept_in,
            database.form.on(),
            portion.name,
            target.condition(job)
        );
        let before = self.unfinished(&target.kept_in).await?.into_keys().collect();
        database.run(&sql).await?;
        self.wait(&target.kept_in, &before, waiting).await
    }

    fn followers(&self, job: &Job) -> Vec<Job> {
        // The retention names every table itself.
        if job.table != "events" || job.why == "DataRetentionDays" {
            return Vec::new();
        }
        let tables: BTreeSet<&str> = match &job.action {
            PruneAction::Delete => PERSONAL.iter().copied().collect(),
            PruneAction::Blank(blank) => HOLDERS
                .iter()
                .filter(|(column, _)| blank.fields.iter().any(|field| field.column == *column))
                .flat_map(|(_, tables)| tables.iter().copied())
                .collect(),
        };
        let follower = |table: &str| Job {
            why: format!("{}, what holds the same", job.why),
            table: table.to_owned(),
            spared_flags: 0,
            action: PruneAction::Delete,
            ..job.clone()
        };
        tables.into_iter().map(follower).collect()
    }
}

impl From<Fault> for PruneError {
    fn from(fault: Fault) -> Self {
        Self::Unavailable(fault.into())
    }
}

/// The column from which the age of a table's rows is counted.
fn moment_of(table: &str) -> Option<&'static str> {
    files().find(|made| made.kind == Kind::Table && made.name == table)?.retention
}

/// One change that a server makes to a table.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Mutation {
    /// Its number among those of the cluster; 0 where there is one.
    server: u64,
    id: String,
}

struct Column {
    kind: String,
    is_key: bool,
}

/// The table of a job, as the server has it.
struct Target {
    moment: &'static str,
    /// The name of the table that has the rows, on each server.
    kept_in: String,
    columns: BTreeMap<String, Column>,
}

impl Target {
    fn check(&self, job: &Job) -> Result<(), PruneError> {
        let table = &job.table;
        let unfit = |words: String| Err(PruneError::Unfit(words));
        if !self.columns.contains_key(self.moment) {
            return unfit(format!("{table} is not there, or has no {}", self.moment));
        }
        if job.spared_flags != 0 && !self.columns.contains_key("cflags") {
            return unfit(format!("{table} has no cflags, so CFlagsIgnore cannot be honoured"));
        }
        let PruneAction::Blank(blank) = &job.action else { return Ok(()) };
        for field in &blank.fields {
            match self.columns.get(&field.column) {
                None => return unfit(format!("{table} has no column {}", field.column)),
                Some(column) if column.is_key => {
                    return unfit(format!(
                        "{table} is sorted by {}, which therefore cannot be blanked; ClearAll \
                         removes such rows",
                        field.column
                    ));
                }
                Some(_) => {}
            }
        }
        let is_hashed = blank.fields.iter().any(|field| field.hash.is_some());
        let asks_params = blank.texts || blank.numbers || is_hashed;
        if asks_params && !self.columns.contains_key("params") {
            return unfit(format!("{table} has no params"));
        }
        Ok(())
    }

    /// Which rows still have to be changed.
    fn condition(&self, job: &Job) -> String {
        let is_day = self.columns.get(self.moment).is_some_and(|column| column.kind == "Date");
        let moment = |moment: chrono::DateTime<chrono::Utc>| {
            if is_day {
                format!("toDate('{}')", moment.format("%Y-%m-%d"))
            } else {
                format!("fromUnixTimestamp64Milli({}, 'UTC')", moment.timestamp_millis())
            }
        };
        let mut all = vec![format!("`{}` < {}", self.moment, moment(job.before))];
        if let Some(from) = job.not_before {
            all.push(format!("`{}` >= {}", self.moment, moment(from)));
        }
        if job.spared_flags != 0 {
            all.push(format!("bitAnd(ifNull(cflags, 0), {}) = 0", job.spared_flags));
        }
        if let PruneAction::Blank(blank) = &job.action {
            let fields = blank.fields.iter().map(|field| self.says(&field.column));
            let any: Vec<String> = fields.chain(params_say(blank)).collect();
            all.push(format!("({})", any.join(" or ")));
        }
        all.join(" and ")
    }

    fn kind(&self, column: &str) -> &str {
        self.columns.get(column).map_or("", |column| column.kind.as_str())
    }

    /// Whether the column says anything.
    fn says(&self, column: &str) -> String {
        match self.kind(column) {
            kind if kind.starts_with("Nullable(") => format!("`{column}` is not null"),
            kind if kind.starts_with("JSON") => format!("toJSONString(`{column}`) <> '{{}}'"),
            kind => format!("`{column}` <> {}", nothing(kind)),
        }
    }

    /// The subquery `rows`, as `job` would leave them.
    fn rows_after(&self, rows: &str, job: &Job) -> String {
        let condition = self.condition(job);
        let PruneAction::Blank(blank) = &job.action else {
            return format!("(select * from {rows} where not ({condition}))");
        };
        let updates = self.updates(blank, &job.key).into_iter();
        let columns = updates
            .map(|(column, value)| format!("if({condition}, {value}, `{column}`) as `{column}`"));
        format!("(select * replace ({}) from {rows})", columns.collect::<Vec<_>>().join(", "))
    }

    /// What columns become, `params` among them.
    fn updates<'b>(&self, blank: &'b PruneBlank, key: &PruneKey) -> Vec<(&'b str, String)> {
        let mut updates: Vec<(&str, String)> = blank
            .fields
            .iter()
            .map(|field| (field.column.as_str(), nothing(self.kind(&field.column))))
            .collect();
        let hashed: Vec<(&str, &str)> = blank
            .fields
            .iter()
            .filter_map(|field| Some((field.column.as_str(), field.hash.as_deref()?)))
            .collect();
        if !blank.texts && !blank.numbers && hashed.is_empty() {
            return updates;
        }
        let mut kept = vec![keeps(blank)];
        let mut told = Vec::new();
        for (column, name) in hashed {
            let says = self.says(column);
            kept.push(format!("not (pair.1 = '{name}' and {says})"));
            let mut hash = hash_of(&format!("toString(`{column}`)"), key);
            // The hash that intake made is the one that other rows have.
            if self.kind(name).contains("String") {
                hash = format!("if(`{name}` <> '', `{name}`, {hash})");
            }
            told.push(format!("if({says}, [('{name}', assumeNotNull(toJSONString({hash})))], [])"));
        }
        let pairs = format!(
            "arrayFilter(pair -> {}, JSONExtractKeysAndValuesRaw(toJSONString(params)))",
            kept.join(" and ")
        );
        let pairs =
            told.into_iter().fold(pairs, |pairs, more| format!("arrayConcat({pairs}, {more})"));
        let params = format!(
            "concat('{{', arrayStringConcat(arrayMap(pair -> concat(toJSONString(pair.1), ':', \
             pair.2), {pairs}), ','), '}}')::{}",
            self.kind("params")
        );
        updates.push(("params", params));
        updates
    }
}

/// What a column of that type holds when nothing was said.
fn nothing(kind: &str) -> String {
    if kind.starts_with("Nullable(") {
        return "NULL".to_owned();
    }
    let inner = kind.strip_prefix("LowCardinality(").and_then(|kind| kind.strip_suffix(')'));
    match inner.unwrap_or(kind) {
        "String" => "''".to_owned(),
        kind if kind.starts_with("JSON") => format!("'{{}}'::{kind}"),
        kind => format!("defaultValueOfTypeName('{}')", kind.replace('\'', "\\'")),
    }
}

/// Whether a pair of `params` stays: hashes do, numbers and others as the rule says.
fn keeps(blank: &PruneBlank) -> String {
    let (numbers, texts) = (u8::from(!blank.numbers), u8::from(!blank.texts));
    format!("({} or if(match(pair.2, '^-?[0-9]'), {numbers}, {texts}) = 1)", is_hash(blank))
}

/// Whether `params` say anything that the rule takes away; `None` when it takes nothing from them.
fn params_say(blank: &PruneBlank) -> Option<String> {
    (blank.texts || blank.numbers).then(|| {
        format!(
            "arrayExists(pair -> not {}, JSONExtractKeysAndValuesRaw(toJSONString(params)))",
            keeps(blank)
        )
    })
}

fn is_hash(blank: &PruneBlank) -> String {
    let names: Vec<String> = blank
        .fields
        .iter()
        .filter_map(|field| field.hash.as_ref())
        .map(|name| format!("'{name}'"))
        .collect();
    if names.is_empty() { "0".to_owned() } else { format!("pair.1 in ({})", names.join(", ")) }
}

/// HMAC-SHA-256 (RFC 2104) of a text, 32 hex digits of it, in functions that every version has.
fn hash_of(text: &str, key: &PruneKey) -> String {
    let pad = |with: u8| -> String {
        let key = key.0.iter().copied().chain(std::iter::repeat(0)).take(BLOCK_BYTES);
        key.fold(String::new(), |mut hex, byte| {
            let _ = std::fmt::Write::write_fmt(&mut hex, format_args!("{:02x}", byte ^ with));
            hex
        })
    };
    format!(
        "lower(substring(hex(SHA256(concat(unhex('{}'), SHA256(concat(unhex('{}'), {text}))))), 1, \
         32))",
        pad(0x5c),
        pad(0x36)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PruneField;

    #[test]
    fn what_holds_a_value_is_derived_and_has_an_age() {
        let named = HOLDERS.iter().flat_map(|(_, tables)| *tables).chain(PERSONAL);
        for table in named {
            assert!(moment_of(table).is_some(), "{table}");
            assert!(crate::tables::find(table).is_none(), "{table} is a fact");
        }
    }

    #[test]
    fn a_row_is_found_by_its_age_its_flags_and_what_it_still_says() {
        let column = |kind: &str| Column { kind: kind.to_owned(), is_key: false };
        let columns = [
            ("created_at", "DateTime64(3, 'UTC')"),
            ("cflags", "Nullable(Int64)"),
            ("ip", "String"),
            ("lat", "Nullable(Float64)"),
            ("uid", "UUID"),
            ("params", "JSON(max_dynamic_paths = 0)"),
        ];
        let columns = columns.map(|(name, kind)| (name.to_owned(), column(kind)));
        let target = Target {
            moment: "created_at",
            kept_in: String::new(),
            columns: BTreeMap::from(columns),
        };
        let field = |name: &str| PruneField { column: name.to_owned(), hash: None };
        let fields = ["ip", "lat", "uid"].map(field).to_vec();
        let job = Job {
            why: String::new(),
            table: "events".to_owned(),
            before: chrono::DateTime::from_timestamp(1_000, 0).unwrap(),
            not_before: chrono::DateTime::from_timestamp(10, 0),
            spared_flags: 6,
            action: PruneAction::Blank(PruneBlank { fields, texts: false, numbers: false }),
            key: PruneKey([0; 32]),
        };
        assert!(target.check(&job).is_ok());
        assert_eq!(
            target.condition(&job),
            "`created_at` < fromUnixTimestamp64Milli(1000000, 'UTC') and `created_at` >= \
             fromUnixTimestamp64Milli(10000, 'UTC') and bitAnd(ifNull(cflags, 0), 6) = 0 and \
             (`ip` <> '' or `lat` is not null or `uid` <> defaultValueOfTypeName('UUID'))"
        );
        let PruneAction::Blank(blank) = &job.action else { unreachable!() };
        assert_eq!(
            target.updates(blank, &job.key),
            [("ip", "''"), ("lat", "NULL"), ("uid", "defaultValueOfTypeName('UUID')")]
                .map(|(column, value)| (column, value.to_owned()))
        );
    }
}
