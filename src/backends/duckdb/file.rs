//! Opening the database file, whatever state it is in.
//!
//! The settings at open are the walls around every statement: no extension is loaded, no other file
//! is touched, memory and temporary space are bounded, and from then on nothing can change that.
//!
//! A file that cannot be read is **set aside**: renamed with its companions to
//! `<name>.corrupt-<time>` and replaced by a new one. If only the write-ahead log cannot be read,
//! only that is set aside, and the file goes on from its last checkpoint. Either way it has a new
//! identity, so delivery starts over, and the cursors in the file keep out what is still there.
//! A refusal of the machine (a lock, rights, a full disk) is no reason to set a file aside.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use duckdb::{AccessMode, Config, Connection, params};
use thiserror::Error;
use uuid::Uuid;

use super::encode::{Layout, LayoutError};
use super::fault;
use super::migrate::{self, Applied};
use crate::config::DuckDbConfig;
use crate::tables;

/// The write-ahead log, and its names during a checkpoint.
const LOGS: &[&str] = &[".wal", ".wal.checkpoint", ".wal.recovery"];

/// Marks that the file lost commits and must take a new identity at the next open. A file of its
/// own, because it has to be there before the log is moved away.
const LOST_COMMITS: &str = ".lost-commits";

/// Size of the write-ahead log at which a commit also checkpoints. Bounds the time to open after a
/// crash to under a second, and is large enough that the last, half-filled group of rows is
/// rewritten only once in some ten thousand events.
const CHECKPOINT_BYTES: u64 = 64 << 20;

/// Space for sorting and joining beyond memory, beside the file.
const TEMP_BYTES_MAX: u64 = 4 << 30;

/// Bytes before the first block of a file: the main header and two database headers.
const HEADER_BYTES: u64 = 3 * 4096;

/// More rows than this in `sink_cursor` are folded when the file is opened.
const CURSOR_ROWS_MAX: u64 = 1000;

/// Why there is no open database.
#[derive(Debug, Error)]
pub(super) enum OpenError {
    /// The file is unreadable; it can be set aside.
    #[error("the file cannot be read: {0}")]
    Unusable(String),
    /// The write-ahead log is unreadable; it can be set aside alone.
    #[error("the write-ahead log cannot be read: {0}")]
    Log(String),
    /// Another process has it.
    #[error("another process has the file: {0}")]
    Locked(String),
    /// Its tables are not what this program writes.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The machine refuses; may pass.
    #[error("opening the database: {0}")]
    Database(#[source] duckdb::Error),
    /// The folder cannot be made or a file not renamed.
    #[error("preparing the folder of the database")]
    Io(#[from] io::Error),
}

/// An open file, ready to be written.
pub(super) struct Database {
    /// The one connection that writes.
    pub(super) connection: Connection,
    /// Which file this is.
    pub(super) identity: String,
    /// What was migrated when it was opened.
    pub(super) applied: Applied,
    /// How each table is written, by name.
    pub(super) layouts: HashMap<&'static str, Layout>,
    /// Last stored position by table and node.
    pub(super) cursors: HashMap<(String, String), u64>,
    /// Rows of `sink_cursor`, folded ones not counted.
    pub(super) cursor_rows: u64,
}

/// Opens the file for writing, making or migrating it as needed.
///
/// # Errors
/// [`OpenError::Unusable`] when the file itself is at fault.
pub(super) fn open(config: &DuckDbConfig) -> Result<Database, OpenError> {
    if let Some(folder) = config.path.parent() {
        fs::create_dir_all(folder)?;
    }
    let log_bytes = wal_bytes(&config.path);
    let connection = connect(config)?;
    if log_bytes == 0 {
        check_length(&connection, &config.path)?;
    }
    let applied = migrate::apply(&connection, migrate::MIGRATIONS).map_err(judge)?;
    let identity = identity(&connection, &with_suffix(&config.path, LOST_COMMITS))?;
    let mut layouts = HashMap::new();
    for &table in tables::ALL {
        layouts.insert(table.name(), Layout::read(&connection, table)?);
    }
    let mut database = Database {
        connection,
        identity,
        applied,
        layouts,
        cursors: HashMap::new(),
        cursor_rows: 0,
    };
    database.read_cursors().map_err(judge)?;
    if database.cursor_rows > CURSOR_ROWS_MAX {
        database.fold_cursors().map_err(judge)?;
    }
    database.connection.execute_batch("set lock_configuration = true").map_err(judge)?;
    Ok(database)
}

/// Opens the file for reading while no other process writes it.
///
/// # Errors
/// [`OpenError::Locked`] when a tracker runs.
pub(super) fn open_read_only(path: &Path, memory_mb: u64) -> Result<Connection, OpenError> {
    let connection = settings(path, memory_mb, 1)
        .and_then(|settings| settings.access_mode(AccessMode::ReadOnly))
        .and_then(|settings| Connection::open_with_flags(path, settings))
        .map_err(judge)?;
    use_utc(&connection);
    connection.execute_batch("set lock_configuration = true").map_err(judge)?;
    Ok(connection)
}

/// Moves the file and its log to `<name>.corrupt-<now>` and answers that path.
///
/// # Errors
/// When one cannot be renamed.
pub(super) fn set_aside(path: &Path, now: DateTime<Utc>) -> io::Result<PathBuf> {
    let aside = aside(path, now, "");
    // The file last: until it is gone, a crash in between sets aside again.
    for suffix in LOGS.iter().chain(&[""]) {
        rename(path, &aside, suffix)?;
    }
    Ok(aside)
}

/// Moves only the log to `<name>.corrupt-<now>.wal` and answers that path. The file itself takes a
/// new identity when it is opened.
///
/// # Errors
/// When it cannot be renamed.
pub(super) fn set_log_aside(path: &Path, now: DateTime<Utc>) -> io::Result<PathBuf> {
    let aside = aside(path, now, ".wal");
    fs::File::create(with_suffix(path, LOST_COMMITS))?.sync_all()?;
    for suffix in LOGS {
        rename(path, &aside, suffix)?;
    }
    Ok(with_suffix(&aside, ".wal"))
}

/// A name that nothing set aside in the same second has.
fn aside(path: &Path, now: DateTime<Utc>, suffix: &str) -> PathBuf {
    let stamp = now.format("%Y%m%dT%H%M%SZ");
    let mut aside = with_suffix(path, &format!(".corrupt-{stamp}"));
    let mut again = 0;
    while with_suffix(&aside, suffix).exists() {
        again += 1;
        aside = with_suffix(path, &format!(".corrupt-{stamp}-{again}"));
    }
    aside
}

fn rename(path: &Path, aside: &Path, suffix: &str) -> io::Result<()> {
    match fs::rename(with_suffix(path, suffix), with_suffix(aside, suffix)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Bytes in the write-ahead log.
pub(super) fn wal_bytes(path: &Path) -> u64 {
    fs::metadata(with_suffix(path, ".wal")).map_or(0, |metadata| metadata.len())
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

fn connect(config: &DuckDbConfig) -> Result<Connection, OpenError> {
    let connection = settings(&config.path, config.memory_mb, config.threads)
        .and_then(|settings| Connection::open_with_flags(&config.path, settings))
        .map_err(judge)?;
    use_utc(&connection);
    Ok(connection)
}

/// `temp_directory` stands before `enable_external_access`, which forbids to set it.
fn settings(path: &Path, memory_mb: u64, threads: u32) -> Result<Config, duckdb::Error> {
    Config::default()
        .with("temp_directory", with_suffix(path, ".tmp").to_string_lossy())?
        .with("max_temp_directory_size", format!("{TEMP_BYTES_MAX}B"))?
        .enable_autoload_extension(false)?
        .enable_external_access(false)?
        .max_memory(&format!("{memory_mb}MiB"))?
        .threads(i64::from(threads.max(1)))?
        .with("checkpoint_threshold", format!("{CHECKPOINT_BYTES}B"))
}

/// The time zone belongs to an extension that not every build has; without it all is UTC anyway.
fn use_utc(connection: &Connection) {
    let _ = connection.execute_batch("set global TimeZone = 'UTC'");
}

fn judge(error: duckdb::Error) -> OpenError {
    if fault::file_is_locked(&error) {
        OpenError::Locked(error.to_string())
    } else if fault::log_is_unusable(&error) {
        OpenError::Log(error.to_string())
    } else if fault::file_is_unusable(&error) {
        OpenError::Unusable(error.to_string())
    } else {
        OpenError::Database(error)
    }
}

/// The library reads blocks only when they are asked for; a file that lost its end would open, and
/// fail at the first question.
fn check_length(connection: &Connection, path: &Path) -> Result<(), OpenError> {
    let (block_bytes, blocks): (u64, u64) = connection
        .query_row("select block_size, total_blocks from pragma_database_size()", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .map_err(judge)?;
    let expected = HEADER_BYTES + block_bytes * blocks;
    let found = fs::metadata(path)?.len();
    if blocks > 0 && found < expected {
        return Err(OpenError::Unusable(format!(
            "it has {found} bytes and should have {expected}"
        )));
    }
    Ok(())
}

/// The identity of the file; a new one for a new file and for one that lost commits.
fn identity(connection: &Connection, lost_commits: &Path) -> Result<String, OpenError> {
    let lost = lost_commits.exists();
    let stored: Option<String> = connection
        .query_row("select max(id)::varchar from store_identity", [], |row| row.get(0))
        .map_err(judge)?;
    if let Some(stored) = stored
        && !lost
    {
        return Ok(stored);
    }
    let made = Uuid::new_v4().to_string();
    connection
        .execute_batch("begin transaction; delete from store_identity")
        .and_then(|()| {
            connection.execute(
                "insert into store_identity values (?, make_timestamp(epoch_us(now())))",
                params![made],
            )
        })
        .and_then(|_| connection.execute_batch("commit; checkpoint"))
        .map_err(judge)?;
    if lost {
        fs::remove_file(lost_commits)?;
    }
    Ok(made)
}

impl Database {
    /// Reads what is stored so far.
    pub(super) fn read_cursors(&mut self) -> Result<(), duckdb::Error> {
        self.cursors = self
            .connection
            .prepare("select table_name, node, max(last) from sink_cursor group by all")?
            .query_map([], |row| Ok(((row.get(0)?, row.get(1)?), row.get(2)?)))?
            .collect::<Result<_, _>>()?;
        self.cursor_rows =
            self.connection.query_row("select count(*) from sink_cursor", [], |row| row.get(0))?;
        Ok(())
    }

    /// Leaves one row for each table and node.
    pub(super) fn fold_cursors(&mut self) -> Result<(), duckdb::Error> {
        self.connection.execute_batch("begin transaction")?;
        let folded = self.replace_cursors();
        self.connection.execute_batch(if folded.is_ok() { "commit" } else { "rollback" })?;
        folded?;
        self.cursor_rows = u64::try_from(self.cursors.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    fn replace_cursors(&self) -> Result<(), duckdb::Error> {
        self.connection.execute_batch("delete from sink_cursor")?;
        for ((table, node), last) in &self.cursors {
            self.connection
                .execute("insert into sink_cursor values (?, ?, ?)", params![table, node, last])?;
        }
        Ok(())
    }
}
