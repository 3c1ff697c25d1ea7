//! Settings of the systems outside: which, and when a lane of which table is due.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// One entry of `Notify`.
#[derive(Debug, Clone, PartialEq)]
pub enum BackendConfig {
    /// `"Type": "duckdb"`.
    DuckDb(DuckDbConfig),
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

impl LimitsByTable {
    /// The limits of `table`.
    pub fn of(&self, table: &str) -> TableLimits {
        self.tables.get(table).copied().unwrap_or(self.default)
    }
}
