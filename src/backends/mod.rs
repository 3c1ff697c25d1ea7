//! The systems outside, one folder each, behind five small contracts: a backend shows what it can do
//! by what is present, never by "not implemented".

mod accounts;
mod answering;
mod batch;
pub mod clickhouse;
#[cfg(feature = "duckdb")]
pub mod duckdb;
pub mod memory;
mod pruner;
mod sink;
mod store;

use std::io;
use std::sync::Arc;

use crate::clock::Clock;
use crate::config::BackendConfig;
pub use accounts::{Account, AccountChange};
pub use answering::answering;
pub use batch::{Batch, Entry, Events, ReadError, Records};
pub use pruner::{Job, Portion, PruneError, PruneKey, Pruner};
pub use sink::{Appetite, BoxError, Guarantee, Sink, SinkError};
pub use store::{Agreement, Link, Rows, ShortLink, Store, StoreError};

/// One configured system, with its abilities.
#[derive(Clone)]
pub struct Backend {
    /// Its name in metrics, `/health` and cursor files; unique in the process.
    pub name: String,
    /// The configured type, for example `duckdb`.
    pub kind: &'static str,
    /// Takes batches.
    pub sink: Option<Arc<dyn Sink>>,
    /// Answers questions.
    pub store: Option<Arc<dyn Store>>,
    /// Prunes it, where only the process that serves may change it.
    pub pruner: Option<Arc<dyn Pruner>>,
}

/// Names the configured system; connecting happens behind, so this never waits for it.
///
/// # Errors
/// When the program was built without it, its files cannot be used, or the machine gives no threads.
pub fn connect(config: &BackendConfig, clock: Arc<dyn Clock>) -> io::Result<Backend> {
    match config {
        BackendConfig::ClickHouse(config) => clickhouse::connect(config, clock),
        #[cfg(feature = "duckdb")]
        BackendConfig::DuckDb(config) => duckdb::connect(config, clock),
        #[cfg(not(feature = "duckdb"))]
        BackendConfig::DuckDb(_) => {
            drop(clock);
            Err(io::Error::other("this program was built without DuckDB"))
        }
    }
}

/// Whether the files that `config` names can be used, found without connecting or making anything.
///
/// # Errors
/// When they cannot.
pub fn rehearse(config: &BackendConfig) -> io::Result<()> {
    match config {
        BackendConfig::ClickHouse(config) => {
            crate::tls::client(&config.tls).map(drop).map_err(io::Error::other)
        }
        BackendConfig::DuckDb(_) => Ok(()),
    }
}

/// What prunes the configured store from outside the server.
///
/// # Errors
/// [`PruneError::Unfit`] for a store that cannot be pruned, else what keeps it from being asked.
pub fn pruner(config: &BackendConfig) -> Result<Box<dyn Pruner>, PruneError> {
    match config {
        BackendConfig::ClickHouse(config) => clickhouse::pruner(config),
        #[cfg(feature = "duckdb")]
        BackendConfig::DuckDb(config) => duckdb::pruner(config),
        #[cfg(not(feature = "duckdb"))]
        BackendConfig::DuckDb(_) => {
            Err(PruneError::Unfit("this program was built without DuckDB".to_owned()))
        }
    }
}
