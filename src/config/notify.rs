//! `Notify`: which systems take the events, and when a lane of which table is due.
//!
//! Numbers of an entry change every table that waits at all; tables that the documentation sends
//! at once (payments, lifetime values) stay so unless a line below `Tables`, or
//! `"BatchingEnabled": false` for all, says otherwise.

use std::path::Path;
use std::time::Duration;

use super::backends::documented_tables;
use super::section::{Bare, Section};
use super::{
    BackendConfig, ClickHouseConfig, ClientTlsConfig, DuckDbConfig, Limits, LimitsByTable,
    PruneRule, Strategy, TableLimits, clickhouse, prune,
};

/// Types whose sink is not in this version.
const LATER: [&str; 3] = ["cassandra", "nats", "facebook"];

/// What an entry of a later type may hold; its values are not looked at.
const LATER_KEYS: [&str; 24] = [
    "Host",
    "Hosts",
    "Port",
    "HTTPPort",
    "Keyspace",
    "Context",
    "Database",
    "Username",
    "Password",
    "Key",
    "Cert",
    "CACert",
    "Secure",
    "Unencrypted",
    "Timeout",
    "Connections",
    "Retries",
    "AttemptAll",
    "Filter",
    "Prune",
    "BatchFlushInterval",
    "MessageLimit",
    "ByteLimit",
    "Format",
];

/// What every type may hold beside its own keys.
const BATCHING_KEYS: [&str; 9] = [
    "BatchingEnabled",
    "Strategy",
    "MaxBatchSize",
    "MaxBatchTime",
    "MaxMemoryMB",
    "Priority",
    "RetryAttempts",
    "RetryBackoffMs",
    "Tables",
];

/// Where what an entry names is, and what it is when the entry is silent.
pub(super) struct Around<'f> {
    /// Relative paths are below it.
    pub(super) folder: &'f Path,
    /// `DataDirectory`.
    pub(super) data_directory: &'f Path,
    /// What the whole file says about outgoing connections.
    pub(super) outgoing: &'f ClientTlsConfig,
    /// `Database` of the whole file.
    pub(super) database: Option<&'f str>,
    /// After how many days rows go.
    pub(super) retention_days: Option<u32>,
}

/// Reads `Notify` and `Consume`; the embedded store when nothing is switched on.
pub(super) fn read(file: &mut Section<'_>, around: &Around<'_>) -> Vec<BackendConfig> {
    let mut backends: Vec<BackendConfig> = Vec::new();
    let entries = file.sections("Notify");
    let written = entries.len();
    let mut refused = false;
    for mut entry in entries {
        entry.accept(&["Note"]);
        let kind = entry.filled("Type");
        let skip = entry.flag("Skip", false);
        match kind.as_deref() {
            Some(kind @ ("duckdb" | "clickhouse")) => {
                let backend = if kind == "duckdb" {
                    BackendConfig::DuckDb(duckdb(&mut entry, around))
                } else {
                    BackendConfig::ClickHouse(clickhouse(&mut entry, around))
                };
                if !skip && backends.iter().any(|before| is_twin(before, &backend)) {
                    entry.error_here("has the Name or the place of an entry before it");
                }
                if !skip {
                    backends.push(backend);
                }
            }
            Some(kind) if LATER.contains(&kind) => {
                refused |= !skip;
                later(&mut entry, kind, skip);
            }
            Some(kind) => {
                refused = true;
                let known = format!("duckdb, clickhouse, {}", LATER.join(", "));
                entry.error("Type", format!("{kind:?} is none of {known}"));
                accept_any(&mut entry);
            }
            None => {
                refused = true;
                entry.error("Type", "is missing: which system is this, for example \"duckdb\"?");
                accept_any(&mut entry);
            }
        }
        entry.finish(|_| None);
    }
    consume(file);
    if backends.is_empty() && !refused {
        if written > 0 {
            file.note("every entry of Notify is skipped: events go to the embedded DuckDB");
        }
        backends.push(BackendConfig::DuckDb(standard(around.data_directory)));
    }
    backends
}

/// Whether two entries would be one sink: under one name, or in one place.
fn is_twin(one: &BackendConfig, other: &BackendConfig) -> bool {
    let same_place = match (one, other) {
        (BackendConfig::DuckDb(one), BackendConfig::DuckDb(other)) => one.path == other.path,
        (BackendConfig::ClickHouse(one), BackendConfig::ClickHouse(other)) => {
            one.database == other.database
                && one.addresses.iter().any(|address| other.addresses.contains(address))
        }
        _ => false,
    };
    same_place || one.name() == other.name()
}

fn later(entry: &mut Section<'_>, kind: &str, skip: bool) {
    accept_any(entry);
    if skip {
        let path = entry.path_of("Type");
        entry.note(format!("skipped: {path} {kind} (not in this version yet)"));
    } else {
        entry.error(
            "Type",
            format!(
                "{kind} is not in this version yet; set \"Skip\": true in this entry to go on without it"
            ),
        );
    }
}

fn accept_any(entry: &mut Section<'_>) {
    entry.accept(&["Name", "Critical", "Consumer", "Ephemeral", "EnableCompression"]);
    entry.accept(&LATER_KEYS);
    entry.accept(&BATCHING_KEYS);
    entry.accept(&["Path", "MemoryLimitMB", "Threads", "QueryTimeout", "QueryMaxRows"]);
}

/// Queues that are read from: none in this version.
fn consume(file: &mut Section<'_>) {
    for mut entry in file.sections("Consume") {
        entry.accept(&["Note"]);
        accept_any(&mut entry);
        let kind = entry.filled("Type").unwrap_or_default();
        let skip = entry.flag("Skip", false);
        if skip {
            let path = entry.path_of("Type");
            entry.note(format!("skipped: {path} {kind} (consuming is not in this version yet)"));
        } else {
            entry.error_here(
                "consuming from a queue is not in this version yet; set \"Skip\": true in this \
                 entry to go on without it",
            );
        }
        entry.finish(|_| None);
    }
}

fn standard(data_directory: &Path) -> DuckDbConfig {
    DuckDbConfig {
        name: "duckdb".to_owned(),
        path: data_directory.join("tracker.duckdb"),
        memory_mb: 256,
        threads: 1,
        critical: false,
        query_time_max: Duration::from_secs(30),
        query_rows_max: 100_000,
        prune: Vec::new(),
        limits: LimitsByTable::documented(),
    }
}

/// What entries of every store may hold.
struct OfStore {
    name: Option<String>,
    critical: bool,
    query_time_max: Option<Duration>,
    query_rows_max: Option<usize>,
    prune: Vec<PruneRule>,
    limits: LimitsByTable,
}

fn of_store(entry: &mut Section<'_>) -> OfStore {
    let name = entry.filled("Name");
    if name.as_deref().is_some_and(|name| !is_name(name)) {
        entry.error("Name", "expected 1 to 64 letters, digits, \"-\" and \"_\"");
    }
    OfStore {
        name,
        critical: entry.flag("Critical", false),
        query_time_max: entry.duration(
            "QueryTimeout",
            Bare::Seconds,
            Duration::from_millis(100)..=Duration::from_secs(3_600),
        ),
        query_rows_max: entry.count("QueryMaxRows", 1..=10_000_000),
        prune: prune::rules(entry),
        limits: limits(entry),
    }
}

fn duckdb(entry: &mut Section<'_>, around: &Around<'_>) -> DuckDbConfig {
    let standard = standard(around.data_directory);
    let store = of_store(entry);
    let threads = entry.number("Threads", 1..=64).and_then(|n| u32::try_from(n).ok());
    DuckDbConfig {
        name: store.name.unwrap_or(standard.name),
        path: entry
            .filled("Path")
            .map_or(standard.path, |path| super::dialect::below(around.folder, &path)),
        memory_mb: entry.number("MemoryLimitMB", 64..=1 << 20).unwrap_or(standard.memory_mb),
        threads: threads.unwrap_or(standard.threads),
        critical: store.critical,
        query_time_max: store.query_time_max.unwrap_or(standard.query_time_max),
        query_rows_max: store.query_rows_max.unwrap_or(standard.query_rows_max),
        prune: store.prune,
        limits: store.limits,
    }
}

fn clickhouse(entry: &mut Section<'_>, around: &Around<'_>) -> ClickHouseConfig {
    let store = of_store(entry);
    let standard = clickhouse::read(entry, around.folder, around.outgoing, around.database);
    ClickHouseConfig {
        name: store.name.unwrap_or_else(|| "clickhouse".to_owned()),
        critical: store.critical,
        query_time_max: store.query_time_max.unwrap_or(standard.query_time_max),
        query_rows_max: store.query_rows_max.unwrap_or(standard.query_rows_max),
        retention_days: around.retention_days,
        prune: store.prune,
        limits: store.limits,
        ..standard
    }
}

/// A name goes into metrics' labels and names of cursor files.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

/// The numbers written for an entry or a table; what is absent stays as it was.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Written {
    strategy: Option<Strategy>,
    rows: Option<usize>,
    age: Option<Duration>,
    bytes: Option<usize>,
    priority: Option<u8>,
    retry_attempts: Option<u32>,
    retry_backoff: Option<Duration>,
}

fn limits(entry: &mut Section<'_>) -> LimitsByTable {
    let mut limits = LimitsByTable::documented();
    let batching = entry.flag("BatchingEnabled", true);
    let all = written(entry);
    let apply = |table: &mut TableLimits| {
        if !batching {
            let at_once = Written { strategy: Some(Strategy::Immediate), ..all };
            *table = at_once.over(*table);
        } else if table.strategy != Strategy::Immediate {
            *table = all.over(*table);
        }
    };
    apply(&mut limits.default);
    limits.tables.values_mut().for_each(apply);
    let Some(mut tables) = entry.section("Tables") else { return limits };
    for (name, mut table) in tables.entries(&documented_tables()) {
        let line = written(&mut table).over(limits.of(name));
        limits.tables.insert(name.to_owned(), line);
        table.finish(|_| None);
    }
    tables.finish(|_| None);
    limits
}

fn written(section: &mut Section<'_>) -> Written {
    // Compression belongs to sinks that send over a network; the documentation sets it anywhere.
    section.accept(&["EnableCompression"]);
    let strategies = [
        ("immediate", Strategy::Immediate),
        ("time", Strategy::Time),
        ("size", Strategy::Size),
        ("hybrid", Strategy::Hybrid),
        ("memory", Strategy::Memory),
        ("adaptive", Strategy::Adaptive),
    ];
    let day = Duration::from_secs(86_400);
    Written {
        strategy: section.choice("Strategy", &strategies),
        rows: section.count("MaxBatchSize", 1..=200_000),
        age: section.duration("MaxBatchTime", Bare::Refused, Duration::ZERO..=day),
        bytes: section.count("MaxMemoryMB", 1..=64).map(|megabytes| megabytes << 20),
        priority: section.number("Priority", 1..=9).and_then(|n| u8::try_from(n).ok()),
        retry_attempts: section
            .number("RetryAttempts", 0..=1_000)
            .and_then(|n| u32::try_from(n).ok()),
        retry_backoff: section.duration(
            "RetryBackoffMs",
            Bare::Milliseconds,
            Duration::from_millis(1)..=Duration::from_secs(60),
        ),
    }
}

impl Written {
    /// These numbers where they are written, `table`'s elsewhere. A limit that was no reason to
    /// send becomes one at the size of events', the documentation's usual.
    fn over(self, table: TableLimits) -> TableLimits {
        let usual = LimitsByTable::documented().of("events").limits;
        let known = |limit: usize, usual: usize| if limit == usize::MAX { usual } else { limit };
        let (was, fresh) = (table.limits, self.strategy.is_some_and(|s| s != table.strategy));
        let age = if fresh || was.age == Duration::MAX { usual.age } else { was.age };
        let rows = if fresh { usual.rows } else { known(was.rows, usual.rows) };
        let bytes = if fresh { usual.bytes } else { known(was.bytes, usual.bytes) };
        let strategy = self.strategy.unwrap_or(table.strategy);
        let limits = Limits::of(
            strategy,
            self.rows.unwrap_or(rows),
            self.bytes.unwrap_or(bytes),
            self.age.unwrap_or(age),
        );
        TableLimits {
            strategy,
            limits,
            priority: self.priority.unwrap_or(table.priority),
            retry_attempts: self.retry_attempts.unwrap_or(table.retry_attempts),
            retry_backoff: self.retry_backoff.unwrap_or(table.retry_backoff),
        }
    }
}
