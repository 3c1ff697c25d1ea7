//! DuckDB: the embedded store. It takes every table exactly once and answers every question.
//!
//! Assumed: one tracker has the file; batches of a table come in order. Promised:
//! - a batch and its cursor are one transaction (`worker`);
//! - nothing the worker writes has a key or an index, so a file opens after any crash;
//! - a file that cannot be read is set aside and replaced, and never keeps the tracker from
//!   starting (`file`);
//! - a query of a person reads, and nothing else (`query`);
//! - no thread that serves requests waits in the library: one thread writes, one answers small
//!   questions, one answers queries.

mod accounts;
mod encode;
mod fault;
mod file;
mod migrate;
mod prune;
mod query;
mod reader;
mod sink;
mod store;
#[cfg(test)]
mod tests;
mod values;
mod worker;

use std::io;
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub use migrate::{Applied, MIGRATIONS, Migration};

use self::file::OpenError;
use self::reader::{AskedBy, Desk, Reader};
use self::worker::{Command, Notice, Worker};
use super::{AccountChange, Backend, PruneError, Pruner, Rows, StoreError};
use crate::background;
use crate::clock::Clock;
use crate::config::DuckDbConfig;

/// Commands that may wait for the worker: a batch of each table, and room for as many again.
const COMMANDS_MAX: usize = 64;

/// Memory of the pool when a file is read without a server.
const OFFLINE_MEMORY_MB: u64 = 512;

/// The store: handles to its threads.
struct DuckDb {
    commands: SyncSender<Command>,
    questions: Reader,
    queries: Reader,
    notice: Notice,
    clock: Arc<dyn Clock>,
}

/// Starts the threads of the store and answers at once; the file is opened behind.
///
/// # Errors
/// When the machine gives no threads.
pub fn connect(config: &DuckDbConfig, clock: Arc<dyn Clock>) -> io::Result<Backend> {
    let questions = Reader::start("duckdb-ask", AskedBy::Requests)?;
    let queries = Reader::start("duckdb-query", AskedBy::People)?;
    let notice: Notice = Arc::new(Mutex::new(None));
    let (commands, waiting) = sync_channel(COMMANDS_MAX);
    let worker = Worker::new(
        config.clone(),
        Arc::clone(&clock),
        vec![questions.desk(), queries.desk()],
        Arc::clone(&notice),
    );
    background::spawn("duckdb", move || worker.run(&waiting))?;
    let pruner = prune::DuckDbPruner::of_worker(commands.clone());
    let store = Arc::new(DuckDb { commands, questions, queries, notice, clock });
    Ok(Backend {
        name: config.name.clone(),
        kind: "duckdb",
        sink: Some(store.clone()),
        store: Some(store),
        pruner: Some(Arc::new(pruner)),
    })
}

/// The rows of a read-only query on a file that no server has open, within the same bounds as
/// [`super::Store::query`]. Blocks for up to `time_max`.
///
/// # Errors
/// [`StoreError::Unavailable`] when a tracker runs on it or there is no such file, and those of
/// [`super::Store::query`].
pub fn query_file(
    path: &Path,
    sql: &str,
    rows_max: usize,
    time_max: Duration,
) -> Result<Rows, StoreError> {
    let connection =
        file::open_read_only(path, OFFLINE_MEMORY_MB).map_err(|error| match error {
            OpenError::Locked(_) => StoreError::Unavailable(
                "a running tracker has the file; ask it, or stop it first".into(),
            ),
            other => StoreError::Unavailable(other.into()),
        })?;
    Arc::new(Desk::default()).run(&connection, time_max, |connection| {
        query::run(connection, sql, rows_max).map_err(|error| error.into_store_error(time_max))
    })
}

/// Changes an account in a file that no server has open; false when there was none to change. Blocks.
///
/// # Errors
/// [`StoreError::Unavailable`] when the file cannot be opened or written.
pub fn change_account_file(
    config: &DuckDbConfig,
    change: &AccountChange,
) -> Result<bool, StoreError> {
    let database = file::open(config).map_err(|error| StoreError::Unavailable(error.into()))?;
    accounts::change(&database.connection, change)
        .map_err(|error| StoreError::Unavailable(error.into()))
}

/// What prunes the file, which it holds open. Blocks.
///
/// # Errors
/// [`PruneError::Unavailable`] when a tracker runs on it or it cannot be opened.
pub fn pruner(config: &DuckDbConfig) -> Result<Box<dyn Pruner>, PruneError> {
    Ok(Box::new(prune::DuckDbPruner::open(config)?))
}

/// Opens the file, brings its schema up to date and closes it. `None` when a running tracker has the
/// file, which did so when it opened it.
///
/// # Errors
/// When it cannot be opened; nothing is set aside here.
pub fn migrate_file(config: &DuckDbConfig) -> Result<Option<Applied>, StoreError> {
    match file::open(config) {
        Ok(database) => Ok(Some(database.applied)),
        Err(OpenError::Locked(_)) => Ok(None),
        Err(error) => Err(StoreError::Unavailable(error.into())),
    }
}
