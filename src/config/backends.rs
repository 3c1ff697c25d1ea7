//! Settings of the systems outside: which, and when a lane of which table is due.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::{ClickHouseConfig, PruneRule};

/// One entry of `Notify`.
#[derive(Debug, Clone, PartialEq)]
pub enum BackendConfig {
    /// `"Type": "duckdb"`.
    DuckDb(DuckDbConfig),
    /// `"Type": "clickhouse"`.
    ClickHouse(ClickHouseConfig),
}

impl BackendConfig {
    /// Its name in metrics and `/health`.
    pub fn name(&self) -> &str {
        match self {
            Self::DuckDb(duckdb) => &duckdb.name,
            Self::ClickHouse(clickhouse) => &clickhouse.name,
        }
    }

    /// Whether the start fails when it cannot be reached.
    pub fn critical(&self) -> bool {
        match self {
            Self::DuckDb(duckdb) => duckdb.critical,
            Self::ClickHouse(clickhouse) => clickhouse.critical,
        }
    }

    /// When its lanes are due.
    pub fn limits(&self) -> &LimitsByTable {
        match self {
            Self::DuckDb(duckdb) => &duckdb.limits,
            Self::ClickHouse(clickhouse) => &clickhouse.limits,
        }
    }

    /// What becomes of its old rows, in order.
    pub fn prune_rules(&self) -> &[PruneRule] {
        match self {
            Self::DuckDb(duckdb) => &duckdb.prune,
            Self::ClickHouse(clickhouse) => &clickhouse.prune,
        }
    }

    /// Where its data is, for people.
    pub fn place(&self) -> String {
        match self {
            Self::DuckDb(duckdb) => duckdb.path.display().to_string(),
            Self::ClickHouse(clickhouse) => {
                format!("{}, database {}", clickhouse.addresses.join(", "), clickhouse.database)
            }
        }
    }

    /// Most rows and longest time of a query through `tracker query`.
    pub fn query_bounds(&self) -> (usize, Duration) {
        match self {
            Self::DuckDb(duckdb) => (duckdb.query_rows_max, duckdb.query_time_max),
            Self::ClickHouse(clickhouse) => (clickhouse.query_rows_max, clickhouse.query_time_max),
        }
    }
}

/// The embedded store.
#[derive(Debug, Clone, PartialEq)]
pub struct DuckDbConfig {
    /// Its name in metrics and `/health`. Default `duckdb`.
    pub name: String,
    /// `Path`: the database file (`DataDirectory/tracker.duckdb`).
    pub path: PathBuf,
    /// `MemoryLimitMB`: DuckDB's own buffer pool. Default 256.
    pub memory_mb: u64,
    /// `Threads` of DuckDB. Default 1.
    pub threads: u32,
    /// `Critical`: no connection at start ends the start with an error.
    pub critical: bool,
    /// `QueryTimeout`: longest query through `tracker query`. Default 30 s.
    pub query_time_max: Duration,
    /// `QueryMaxRows`. Default 100,000.
    pub query_rows_max: usize,
    /// `Prune`: what becomes of old rows.
    pub prune: Vec<PruneRule>,
    /// When lanes are due.
    pub limits: LimitsByTable,
}

/// The six documented strategies; each is one way to fill [`Limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Every row at once.
    Immediate,
    /// By age.
    Time,
    /// By rows.
    Size,
    /// By rows, bytes or age, whichever comes first.
    Hybrid,
    /// By bytes.
    Memory,
    /// Rows and age moved between bounds by lag and latency.
    Adaptive,
}

/// When a lane is due: the first limit reached wins. A due lane takes all that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rows waiting; `usize::MAX` = not a reason.
    pub rows: usize,
    /// Bytes waiting, as encoded in the journal; `usize::MAX` = not a reason.
    pub bytes: usize,
    /// Age of the oldest row waiting; `Duration::MAX` = not a reason.
    pub age: Duration,
}

/// How one table is batched into one sink.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TableLimits {
    /// The strategy named in the configuration.
    pub strategy: Strategy,
    /// What the strategy makes of the numbers; for `Adaptive`, where it starts.
    pub limits: Limits,
    /// 1 is served first.
    pub priority: u8,
    /// Quick attempts before back-off begins (`RetryAttempts`).
    pub retry_attempts: u32,
    /// First back-off (`RetryBackoffMs`).
    pub retry_backoff: Duration,
}

/// A sink's limits for every table.
#[derive(Debug, Clone, PartialEq)]
pub struct LimitsByTable {
    /// Tables without a line of their own.
    pub default: TableLimits,
    /// By table name.
    pub tables: BTreeMap<String, TableLimits>,
}

impl Limits {
    /// What `strategy` makes of the numbers of one configuration entry: those it does not name are
    /// no reason to send. Zero counts as one, so that no lane is due without a row.
    pub fn of(strategy: Strategy, rows: usize, bytes: usize, age: Duration) -> Self {
        let never = Self { rows: usize::MAX, bytes: usize::MAX, age: Duration::MAX };
        let (rows, bytes) = (rows.max(1), bytes.max(1));
        match strategy {
            Strategy::Immediate => Self { rows: 1, ..never },
            Strategy::Time => Self { age, ..never },
            Strategy::Size => Self { rows, ..never },
            Strategy::Memory => Self { bytes, ..never },
            Strategy::Hybrid | Strategy::Adaptive => Self { rows, bytes, age },
        }
    }
}

/// One line of the documented defaults: table, strategy, rows, seconds, megabytes, priority, quick
/// attempts, milliseconds of first back-off.
type Line = (&'static str, Strategy, usize, u64, usize, u8, u32, u64);

/// The documented defaults, table by table.
const DOCUMENTED: [Line; 15] = [
    ("events", Strategy::Hybrid, 1_000, 2, 10, 3, 3, 100),
    ("payments", Strategy::Immediate, 1, 0, 1, 1, 5, 100),
    ("ltv", Strategy::Immediate, 1, 0, 1, 1, 5, 50),
    ("mthreads", Strategy::Time, 100, 5, 5, 2, 3, 200),
    ("mstore", Strategy::Hybrid, 500, 3, 8, 4, 2, 150),
    ("mtriage", Strategy::Hybrid, 50, 2, 2, 1, 5, 50),
    ("impression_daily", Strategy::Hybrid, 250, 4, 6, 3, 3, 200),
    ("agreements", Strategy::Hybrid, 100, 3, 2, 3, 3, 100),
    ("agreed", Strategy::Hybrid, 100, 3, 2, 3, 3, 100),
    ("redirects", Strategy::Hybrid, 200, 2, 3, 2, 3, 100),
    ("redirect_history", Strategy::Hybrid, 500, 5, 5, 4, 2, 150),
    ("counters", Strategy::Hybrid, 300, 3, 3, 3, 3, 100),
    ("updates", Strategy::Hybrid, 200, 4, 3, 4, 3, 150),
    ("logs", Strategy::Hybrid, 1_000, 5, 8, 4, 2, 200),
    ("quarantine", Strategy::Hybrid, 200, 5, 3, 4, 3, 100),
];

/// The tables that a sink is given, and so may have limits; what a store derives has no batches.
pub(super) fn documented_tables() -> Vec<&'static str> {
    DOCUMENTED.iter().map(|line| line.0).collect()
}

impl TableLimits {
    fn documented(line: Line) -> (String, Self) {
        let (table, strategy, rows, seconds, megabytes, priority, attempts, backoff) = line;
        let limits = Self {
            strategy,
            limits: Limits::of(strategy, rows, megabytes << 20, Duration::from_secs(seconds)),
            priority,
            retry_attempts: attempts,
            retry_backoff: Duration::from_millis(backoff),
        };
        (table.to_owned(), limits)
    }
}

impl LimitsByTable {
    /// The documented defaults. A table without a line of its own is sent after 300 rows, 4 MB or
    /// 3 s.
    pub fn documented() -> Self {
        let (_, default) = TableLimits::documented(("", Strategy::Hybrid, 300, 3, 4, 3, 3, 100));
        Self { default, tables: DOCUMENTED.into_iter().map(TableLimits::documented).collect() }
    }

    /// The limits of `table`.
    pub fn of(&self, table: &str) -> TableLimits {
        self.tables.get(table).copied().unwrap_or(self.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strategy_is_the_limits_it_names() {
        let (rows, bytes, age) = (7, 900, Duration::from_secs(3));
        let (many, long) = (usize::MAX, Duration::MAX);
        for (strategy, expect) in [
            (Strategy::Immediate, (1, many, long)),
            (Strategy::Time, (many, many, age)),
            (Strategy::Size, (rows, many, long)),
            (Strategy::Memory, (many, bytes, long)),
            (Strategy::Hybrid, (rows, bytes, age)),
            (Strategy::Adaptive, (rows, bytes, age)),
        ] {
            let limits = Limits::of(strategy, rows, bytes, age);
            assert_eq!((limits.rows, limits.bytes, limits.age), expect, "{strategy:?}");
        }
    }

    #[test]
    fn the_documented_defaults_are_those_of_the_documentation() {
        let limits = LimitsByTable::documented();
        let events = limits.of("events");
        assert_eq!(events.limits.rows, 1_000);
        assert_eq!(events.limits.bytes, 10 << 20);
        assert_eq!(events.limits.age, Duration::from_secs(2));
        let payments = limits.of("payments");
        assert_eq!((payments.limits.rows, payments.priority, payments.retry_attempts), (1, 1, 5));
        assert_eq!(limits.of("mthreads").limits.age, Duration::from_secs(5));
        assert_eq!(limits.of("no such table"), limits.default);
    }
}
