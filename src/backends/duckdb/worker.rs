//! The one thread that writes.
//!
//! It owns the only connection that may change the file and takes commands from a bounded channel,
//! so that no request and no task ever waits inside the library. The file is opened here, behind
//! the start of the server; until then commands are answered with "try again", and after a failure
//! the file is opened anew.
//!
//! A batch and its cursor are one transaction: either both are there after a crash or neither, and
//! a batch that comes again is known by its cursor.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use duckdb::{Connection, params};
use tokio::sync::oneshot;

use super::accounts;
use super::encode::EncodeError;
use super::fault::{self, Fault};
use super::file::{self, Database, OpenError};
use super::reader::Desk;
use crate::backends::{AccountChange, Batch, Entry, SinkError};
use crate::clock::Clock;
use crate::config::DuckDbConfig;
use crate::journal::Position;
use crate::telemetry::chain;

/// Without a command for this long the worker tidies up.
const IDLE: Duration = Duration::from_secs(5);

/// Least time between two attempts to open the file.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// In idle time the write-ahead log is folded into the file from this size on. Below it the groups
/// of rows would become small.
const IDLE_CHECKPOINT_BYTES: u64 = 32 << 20;

/// Cursor rows that are folded at a checkpoint.
const CURSOR_ROWS_MAX: u64 = 10_000;

/// Times the library may report unreadable bytes in a row before the file is set aside.
const CORRUPT_MAX: u32 = 2;

/// Small tables that keep the last row of a key only, and what takes the others away after a batch.
const UPDATED_IN_PLACE: &[(&str, &str)] = &[(
    "redirects",
    "delete from redirects as old using redirects as new where new.urlfrom = old.urlfrom \
     and (new.updated_at, new.rowid) > (old.updated_at, old.rowid)",
)];

/// What the worker is asked.
pub(super) enum Command {
    /// Which file this is.
    Identity(oneshot::Sender<Result<String, SinkError>>),
    /// Store a batch.
    Write(Batch, oneshot::Sender<Result<(), SinkError>>),
    /// Change an account; false when there was none to change.
    Account(AccountChange, oneshot::Sender<Result<bool, SinkError>>),
    /// Do something with the open file, between two batches; the work answers by itself.
    Work(Work),
    /// Checkpoint, close the file and end.
    Close(oneshot::Sender<()>),
}

/// A piece of work on the open file, or why it is not open.
pub(super) type Work = Box<dyn FnOnce(Result<&Connection, SinkError>) + Send>;

/// What an operator should know although writing works.
pub(super) type Notice = Arc<Mutex<Option<String>>>;

/// The state of the thread.
pub(super) struct Worker {
    config: DuckDbConfig,
    clock: Arc<dyn Clock>,
    desks: Vec<Arc<Desk>>,
    notice: Notice,
    database: Option<Database>,
    /// The last failed attempt to open: when, and why.
    failed: Option<(Instant, String)>,
    corrupt: u32,
}

impl Worker {
    pub(super) fn new(
        config: DuckDbConfig,
        clock: Arc<dyn Clock>,
        desks: Vec<Arc<Desk>>,
        notice: Notice,
    ) -> Self {
        Self { config, clock, desks, notice, database: None, failed: None, corrupt: 0 }
    }

    /// Serves commands until the channel or the store is closed.
    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        let _ = self.guarded(Self::ready);
        loop {
            match commands.recv_timeout(IDLE) {
                Ok(Command::Identity(reply)) => {
                    let identity = self.guarded(Self::identity);
                    let _ = reply.send(identity);
                }
                Ok(Command::Write(batch, reply)) => {
                    let stored = self.guarded(|worker| worker.write(&batch));
                    let _ = reply.send(stored);
                }
                Ok(Command::Account(change, reply)) => {
                    let changed = self.guarded(|worker| worker.change_account(&change));
                    let _ = reply.send(changed);
                }
                Ok(Command::Work(work)) => {
                    let _ = self.guarded(|worker| {
                        work(worker.open_database().map(|database| &database.connection));
                        Ok(())
                    });
                }
                Ok(Command::Close(reply)) => {
                    let _ = self.guarded(Self::checkpoint);
                    self.close();
                    let _ = reply.send(());
                    return;
                }
                Err(RecvTimeoutError::Timeout) => {
                    let _ = self.guarded(Self::tidy);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    self.close();
                    return;
                }
            }
        }
    }

    /// Runs `work`; a panic in the library closes the file, to be opened anew, and is answered.
    fn guarded<T>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<T, SinkError>,
    ) -> Result<T, SinkError> {
        catch_unwind(AssertUnwindSafe(|| work(self))).unwrap_or_else(|_| {
            tracing::error!(sink = %self.config.name, "the database library panicked");
            self.close();
            Err(fault::retry("the database library panicked"))
        })
    }

    /// Opens the file unless it is open; not more often than [`REOPEN_AFTER`].
    fn ready(&mut self) -> Result<(), SinkError> {
        if self.desks.iter().any(|desk| desk.take_broken()) {
            self.close();
        }
        if self.database.is_some() {
            return Ok(());
        }
        let now = self.clock.monotonic();
        if let Some((at, why)) = &self.failed
            && now.saturating_duration_since(*at) < REOPEN_AFTER
        {
            return Err(fault::retry(why.clone()));
        }
        match self.open() {
            Ok(database) => {
                tracing::info!(sink = %self.config.name, "database opened");
                self.failed = None;
                self.database = Some(database);
                Ok(())
            }
            Err(error) => {
                let why = chain(&error);
                tracing::warn!(sink = %self.config.name, error = %why, "database cannot be opened");
                self.failed = Some((now, why.clone()));
                Err(fault::retry(why))
            }
        }
    }

    fn open(&mut self) -> Result<Database, OpenError> {
        let opened = if self.corrupt >= CORRUPT_MAX {
            Err(OpenError::Unusable("it is read with errors".to_owned()))
        } else {
            file::open(&self.config)
        };
        let opened = match opened {
            Err(OpenError::Log(why)) => self.without_log(&why),
            other => other,
        };
        let database = match opened {
            Err(OpenError::Unusable(why) | OpenError::Log(why)) => self.start_over(&why)?,
            other => other?,
        };
        for desk in &self.desks {
            desk.attach(database.connection.try_clone().map_err(OpenError::Database)?);
        }
        Ok(database)
    }

    /// Sets the write-ahead log aside and opens the file as it was at its last checkpoint.
    fn without_log(&self, why: &str) -> Result<Database, OpenError> {
        let aside = file::set_log_aside(&self.config.path, self.clock.wall())?;
        self.announce(
            &aside,
            why,
            "the newest rows of the database could not be read and were set aside",
        );
        file::open(&self.config)
    }

    /// Sets the file aside and opens a new one.
    fn start_over(&mut self, why: &str) -> Result<Database, OpenError> {
        let aside = file::set_aside(&self.config.path, self.clock.wall())?;
        self.corrupt = 0;
        self.announce(&aside, why, "the database could not be read and was set aside");
        file::open(&self.config)
    }

    /// Tells the log why, and `/health` without what the library says, which has paths in it.
    fn announce(&self, aside: &Path, why: &str, what: &str) {
        let aside = aside.file_name().map_or_else(PathBuf::new, PathBuf::from);
        tracing::error!(
            sink = %self.config.name, aside = %aside.display(), error = %why,
            "database set aside, it is filled again from the journal"
        );
        let notice =
            format!("{what} as {}; filled again with what the journal holds", aside.display());
        *self.notice.lock().unwrap_or_else(PoisonError::into_inner) = Some(notice);
    }

    /// Closes every connection, so that the file can be opened again.
    fn close(&mut self) {
        for desk in &self.desks {
            desk.detach();
        }
        self.database = None;
    }

    /// Unreadable bytes were met: open the file again, and set it aside if that does not help.
    fn suspect(&mut self, why: &str) {
        tracing::error!(sink = %self.config.name, error = %why, "database is read with errors");
        self.corrupt += 1;
        self.close();
    }

    /// What to do with the open file after `error`, before it is answered.
    fn note(&mut self, error: &duckdb::Error) {
        match fault::of(error) {
            Fault::Corrupt => self.suspect(&error.to_string()),
            Fault::Closed => self.close(),
            Fault::Refused | Fault::Interrupted | Fault::Passing => {}
        }
    }

    fn open_database(&mut self) -> Result<&mut Database, SinkError> {
        self.ready()?;
        self.database.as_mut().ok_or_else(|| fault::retry("the database is closed"))
    }

    fn identity(&mut self) -> Result<String, SinkError> {
        Ok(self.open_database()?.identity.clone())
    }

    fn write(&mut self, batch: &Batch) -> Result<(), SinkError> {
        match store(self.open_database()?, batch) {
            Ok(()) => Ok(()),
            Err(WriteError::Encode(EncodeError::Read { source, .. })) => Err(source.into()),
            Err(WriteError::Encode(error)) => Err(SinkError::Reject { source: error.into() }),
            Err(WriteError::Database(error)) => {
                self.note(&error);
                Err(fault::sink_error(error))
            }
        }
    }

    fn change_account(&mut self, change: &AccountChange) -> Result<bool, SinkError> {
        let connection = &self.open_database()?.connection;
        accounts::change(connection, change).map_err(|error| {
            self.note(&error);
            fault::sink_error(error)
        })
    }

    /// In idle time: reopens a closed file, and shortens the write-ahead log.
    fn tidy(&mut self) -> Result<(), SinkError> {
        self.ready()?;
        if file::wal_bytes(&self.config.path) >= IDLE_CHECKPOINT_BYTES {
            self.checkpoint()?;
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), SinkError> {
        let Some(database) = &mut self.database else { return Ok(()) };
        let folded =
            if database.cursor_rows > CURSOR_ROWS_MAX { database.fold_cursors() } else { Ok(()) };
        let done = folded.and_then(|()| database.connection.execute_batch("checkpoint"));
        match done {
            Ok(()) => {
                self.corrupt = 0;
                Ok(())
            }
            Err(error) => {
                tracing::warn!(sink = %self.config.name, %error, "checkpoint failed");
                self.note(&error);
                Err(fault::sink_error(error))
            }
        }
    }
}

/// Why a batch was not stored.
#[derive(Debug)]
enum WriteError {
    Encode(EncodeError),
    Database(duckdb::Error),
}

impl From<duckdb::Error> for WriteError {
    fn from(error: duckdb::Error) -> Self {
        Self::Database(error)
    }
}

/// Stores what of `batch` is not stored yet. After a failure nothing of it is.
fn store(database: &mut Database, batch: &Batch) -> Result<(), WriteError> {
    database.connection.execute_batch("begin transaction")?;
    let stored = append(database, batch).and_then(|moved| {
        database.connection.execute_batch("commit")?;
        Ok(moved)
    });
    match stored {
        Ok(moved) => {
            database.cursor_rows += u64::from(moved.is_some());
            database.cursors.extend(moved);
            Ok(())
        }
        Err(error) => {
            // Whether a failed commit took hold is known only to the file.
            let _ = database.connection.execute_batch("rollback");
            let _ = database.read_cursors();
            Err(error)
        }
    }
}

/// A cursor and where it moved to.
type Moved = ((String, String), u64);

/// `None` when all of it was stored before.
fn append(database: &Database, batch: &Batch) -> Result<Option<Moved>, WriteError> {
    let table = batch.table.name();
    let key = (table.to_owned(), batch.records.node().to_string());
    let stored = Position(database.cursors.get(&key).copied().unwrap_or(0));
    if stored >= batch.last {
        return Ok(None);
    }
    let from = batch.entries.partition_point(|entry| entry.position() <= stored);
    append_rows(database, batch, batch.entries.get(from..).unwrap_or_default())?;
    let last = batch.last.0;
    database
        .connection
        .execute("insert into sink_cursor values (?, ?, ?)", params![key.0, key.1, last])?;
    Ok(Some((key, last)))
}

fn append_rows(database: &Database, batch: &Batch, entries: &[Entry]) -> Result<(), WriteError> {
    let table = batch.table.name();
    let Some(layout) = database.layouts.get(table) else {
        return Err(WriteError::Database(duckdb::Error::InvalidColumnName(table.to_owned())));
    };
    let mut appender = database.connection.appender_with_columns(table, &layout.columns)?;
    let mut events = batch.records.read(entries).peekable();
    while events.peek().is_some() {
        appender.append_record_batch(layout.encode(&mut events).map_err(WriteError::Encode)?)?;
    }
    appender.flush()?;
    drop(appender);
    if let Some((_, fold)) = UPDATED_IN_PLACE.iter().find(|(name, _)| *name == table) {
        database.connection.execute_batch(fold)?;
    }
    Ok(())
}
