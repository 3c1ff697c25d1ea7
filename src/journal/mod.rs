//! Durable log of opaque records: what it said is stored is there after the plug was pulled.
//!
//! ```text
//! append ─▶ queue ─▶ writer: one write, one sync for all that wait ─▶ Pending, readers
//!                      ▲ spares
//!                    keeper: makes, takes back and removes files, watches the room
//! ```
//!
//! The folder holds segments (`segment.rs` has their header, `frame.rs` their frames), the
//! journal's identity, and a lock. One process has it open at a time.
//!
//! **What is taken for true of the disk**: after `fdatasync` returned without an error, what was
//! written before is there for good; a name is there after its folder was synced; what was not
//! synced may be there in part, by sectors of 512 bytes, in any order. [`strict_fs`] is these
//! sentences as code, and the tests run on it.
//!
//! **What follows for the order of things**
//!
//! 1. A file is wiped, synced, named, and its folder synced, before it can become a segment.
//! 2. A segment's header, with an epoch no frame on disk has, is synced before its first frame.
//! 3. A commit is synced before a caller or a reader hears of it.
//! 4. A commit is synced before the next segment begins; so only the newest can be torn.
//! 5. A segment is taken out of the table before its file is used again; a reader that still stands
//!    in it finds frames of a foreign epoch, looks into the table, and goes on elsewhere.
//! 6. A process never writes into a segment that an earlier process has written.
//!
//! **Positions** are given when a record enters the queue. They grow and are never given twice to
//! durable records; numbers may be missing where a commit failed.

mod fetcher;
mod frame;
pub mod fs;
mod keeper;
mod reader;
mod recovery;
mod segment;
mod shared;
pub mod strict_fs;
mod table;
#[cfg(test)]
mod tests;
mod writer;

use std::fmt;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::oneshot;

pub use self::fetcher::Fetcher;
pub use self::fs::{File, Fs, RealFs};
pub use self::reader::Reader;
pub use self::segment::scan_bytes;

use self::keeper::Keeper;
use self::shared::{Gate, Outside, Shared, locked};
use self::writer::{Loss, Writer};
use crate::background;
use crate::clock::Clock;
use crate::config::{Durability, JournalConfig};
use crate::telemetry::Metrics;

/// Above this is no position: it leaves room to add to one, and no journal lives so long.
const POSITION_MAX: Position = Position(1 << 62);

/// The file whose lock says that the folder is in use.
const LOCK_FILE: &str = "lock";

/// Where a record stands: 1, 2, 3 … for the life of the journal; 0 is before the first.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The log. Cheap to clone; the last clone dropped or [`Journal::close`] ends the threads, which
/// blocks until what is queued is written.
#[derive(Clone)]
pub struct Journal {
    shared: Arc<Shared>,
    threads: Arc<Threads>,
}

/// Where a record is, so that it can be read again without those before it. Good for as long as the
/// process runs; a place that was used for something else since is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// Which record.
    pub position: Position,
    /// The use of the segment.
    epoch: u64,
    /// Where in its file.
    offset: u64,
}

impl Location {
    /// Of a record that is in no file.
    pub fn nowhere(position: Position) -> Self {
        Self { position, epoch: 0, offset: 0 }
    }
}

/// One record as read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it stands.
    pub location: Location,
    /// What was appended.
    pub bytes: Vec<u8>,
}

/// What opening found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Last position in the journal, or `resume_after` if that is above it.
    pub last: Position,
    /// Bytes of a torn tail.
    pub torn_bytes: u64,
    /// Damaged ranges in the newest segment, and files that could not be read.
    pub corrupt_frames: u64,
}

/// State for `/health`.
#[derive(Debug, Clone, PartialEq)]
pub struct Stats {
    /// False while an append cannot be made durable.
    pub healthy: bool,
    /// The last failure in words.
    pub last_error: Option<String>,
    /// Oldest record still there.
    pub first: Position,
    /// Last durable record.
    pub durable: Position,
    /// Bytes of segments on disk.
    pub disk_bytes: u64,
    /// Bound of `disk_bytes`.
    pub disk_bytes_max: u64,
}

/// Why an append was refused at once.
#[derive(Debug, Error)]
pub enum AppendError {
    /// Too many appends wait for the writer.
    #[error("the journal's queue is full")]
    Busy,
    /// The disk or the journal's share of it is full.
    #[error("the journal is full")]
    Full,
    /// The journal was closed or its disk failed.
    #[error("the journal cannot write")]
    Failed,
    /// The record is larger than a segment can hold.
    #[error("record of {0} bytes is larger than the journal takes")]
    TooLarge(usize),
}

/// Counts the outcome of an accepted append. A plain function, so that an append allocates nothing
/// for it, and a caller that went away cannot leave an event uncounted.
pub type Settle = fn(&Metrics, Result<(), &AppendError>);

/// Why the journal cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has the folder.
    #[error("another tracker uses {0}")]
    Locked(std::path::PathBuf),
    /// The disk said no.
    #[error("opening the journal")]
    Io(#[source] std::io::Error),
}

/// A record that was accepted and is on its way to disk. Dropping it changes nothing.
#[must_use = "the record is not durable yet"]
pub struct Pending {
    position: Position,
    outcome: Option<oneshot::Receiver<Result<(), AppendError>>>,
}

impl Pending {
    /// Whether it is not known yet how it ended; for whoever answers without waiting.
    pub fn is_open(mut self) -> bool {
        let open = |outcome: &mut oneshot::Receiver<_>| {
            matches!(outcome.try_recv(), Err(oneshot::error::TryRecvError::Empty))
        };
        self.outcome.as_mut().is_some_and(open)
    }

    /// Where it stands, once it is as durable as configured. Cancel-safe.
    ///
    /// # Errors
    /// When it could not be made durable; it may or may not be read later.
    pub async fn durable(self) -> Result<Position, AppendError> {
        if let Some(outcome) = self.outcome {
            outcome.await.unwrap_or(Err(AppendError::Failed))?;
        }
        Ok(self.position)
    }
}

/// The journal's threads and its lock, which end together.
struct Threads {
    shared: Arc<Shared>,
    running: Mutex<Option<Running>>,
}

struct Running {
    writer: JoinHandle<()>,
    keeper: JoinHandle<()>,
    lock: fs::Lock,
}

impl Threads {
    fn close(&self) {
        // Held to the end, so that whoever closes second returns when all is closed as well.
        let mut running = locked(&self.running);
        let Some(Running { writer, keeper, lock }) = running.take() else { return };
        self.shared.close_queue();
        // A panic was logged by the hook and has made the journal dead.
        let _ = writer.join();
        locked(&self.shared.table).keeper = table::Told::Stop;
        self.shared.work.notify_all();
        let _ = keeper.join();
        drop(lock);
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.close();
    }
}

impl Journal {
    /// Opens after anything. Positions go on above `resume_after` (the highest cursor known) even
    /// if the journal is new or was shortened. On a full disk it opens and refuses appends until
    /// there is room.
    ///
    /// # Errors
    /// See [`OpenError`]; damage is never an error.
    pub fn open(
        config: &JournalConfig,
        resume_after: Position,
        fs: Arc<dyn Fs>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<(Self, Recovered), OpenError> {
        let folder = &config.directory;
        fs.create_folder(folder).map_err(OpenError::Io)?;
        if let Some(parent) = folder.parent()
            && let Err(error) = fs.sync_folder(parent)
        {
            tracing::warn!(%error, "cannot sync the folder above the journal's");
        }
        let lock = fs.lock(&folder.join(LOCK_FILE)).map_err(OpenError::Io)?;
        let Some(lock) = lock else { return Err(OpenError::Locked(folder.clone())) };
        let recovery = recovery::recover(&*fs, folder).map_err(OpenError::Io)?;
        let (identity, mut table) = (recovery.identity, recovery.table);
        let recovered = Recovered {
            last: recovery.tail.max(resume_after).min(POSITION_MAX),
            torn_bytes: recovery.torn_bytes,
            corrupt_frames: recovery.corrupt_frames,
        };
        (table.tail, table.durable) = (recovery.tail, recovered.last);
        metrics.journal_torn_bytes.inc_by(recovered.torn_bytes);
        metrics.journal_corrupt_frames.inc_by(recovered.corrupt_frames);
        let shared = Arc::new(Shared::new(config, Outside { fs, clock, metrics }, identity, table));
        let mut writer = Writer::new(Arc::clone(&shared));
        let keeper = Keeper::new(Arc::clone(&shared));
        match keeper.make_first().and_then(|()| writer.begin_first()) {
            Ok(()) => {}
            Err(Loss::Full) => shared.set_gate(Gate::Full),
            Err(Loss::Failed) => return Err(OpenError::Io(shared.last_error())),
        }
        tracing::info!(
            last = recovered.last.0,
            torn_bytes = recovered.torn_bytes,
            corrupt_frames = recovered.corrupt_frames,
            "journal is open"
        );
        // The writer goes first, for the processor and, where the scheduler derives it, for the disk.
        let keeper =
            background::spawn("journal-keeper", move || keeper.run()).map_err(OpenError::Io)?;
        let writer = thread::Builder::new()
            .name("journal-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(OpenError::Io)?;
        let running = Mutex::new(Some(Running { writer, keeper, lock }));
        let threads = Arc::new(Threads { shared: Arc::clone(&shared), running });
        Ok((Self { shared, threads }, recovered))
    }

    /// Hands a record to the writer; never waits. `settle` is called once, from the writer, when
    /// the outcome is known, even if nobody awaits the [`Pending`]; not when `append` itself fails.
    ///
    /// With [`Durability::Memory`] the record counts as done at once, and fewer may wait.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub fn append(&self, record: Vec<u8>, settle: Settle) -> Result<Pending, AppendError> {
        if record.len() > self.shared.record_bytes_max {
            return Err(AppendError::TooLarge(record.len()));
        }
        let (waiter, outcome) = match self.shared.durability {
            Durability::Disk | Durability::Os => {
                let (waiter, outcome) = oneshot::channel();
                (Some(waiter), Some(outcome))
            }
            Durability::Memory => (None, None),
        };
        let position = self.shared.push(record, settle, waiter)?;
        Ok(Pending { position, outcome })
    }

    /// The journal's identity, for tokens and `ingest_node`: twelve hex digits, random, the same
    /// for the life of the folder.
    pub fn node(&self) -> Arc<str> {
        Arc::clone(&self.shared.node)
    }

    /// A reader of everything after `after`.
    pub fn reader(&self, after: Position) -> Reader {
        Reader::new(Arc::clone(&self.shared), after)
    }

    /// Reads records again whose places are known.
    pub fn fetcher(&self) -> Fetcher {
        Fetcher::new(Arc::clone(&self.shared))
    }

    /// Last durable position. With [`Durability::Os`] and [`Durability::Memory`] the last written.
    pub fn durable(&self) -> Position {
        *self.shared.durable.borrow()
    }

    /// Oldest record still there (one above `durable` when there is none).
    pub fn first(&self) -> Position {
        locked(&self.shared.table).first()
    }

    /// Waits until something after `position` is durable; for ever when nothing will be.
    /// Cancel-safe.
    pub async fn wait_after(&self, position: Position) {
        let mut durable = self.shared.durable.subscribe();
        // An error would mean that the sender is gone; `self` holds it.
        let _ = durable.wait_for(|durable| *durable > position).await;
    }

    /// Waits until the journal cannot write any more and never will: its disk failed twice in a
    /// row. The process must exit with an error then. Cancel-safe.
    pub async fn failed(&self) {
        let mut dead = self.shared.dead.subscribe();
        let _ = dead.wait_for(|is_dead| *is_dead).await;
    }

    /// Every sink has everything up to and including `position`: segments below may be recycled
    /// once the keep time is over. Lower than before has no effect.
    pub fn forget(&self, position: Position) {
        let mut table = locked(&self.shared.table);
        if position <= table.forgotten {
            return;
        }
        table.forgotten = position;
        // The keeper looks each second; it is hurried only when a segment may have become free.
        let may_release = table.segments.get(1).is_some_and(|next| next.after <= position);
        if may_release {
            table.wake_keeper();
        }
        drop(table);
        if may_release {
            self.shared.work.notify_one();
        }
    }

    /// For `/health`.
    pub fn stats(&self) -> Stats {
        let healthy = self.shared.is_open();
        let last_error = locked(&self.shared.last_error).clone();
        let table = locked(&self.shared.table);
        Stats {
            healthy,
            last_error,
            first: table.first(),
            durable: table.durable,
            disk_bytes: table.disk_bytes(),
            disk_bytes_max: self.shared.disk_bytes_max,
        }
    }

    /// Writes what is queued, syncs, and refuses everything after; then another process may open
    /// the folder. Readers go on. Blocking; a second call returns when the first is done.
    pub fn close(&self) {
        self.threads.close();
    }
}
