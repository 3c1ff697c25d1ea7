//! What the handles, the writer, the keeper and the readers share: settings, the queue, the table.
//!
//! Two locks, never held together: `queue` for what waits to be written, `table` for the files.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use super::frame::{COMMIT_BYTES_MAX, FRAME_HEADER_BYTES, RECORD_BYTES_MAX};
use super::fs::Fs;
use super::keeper::loss_of;
use super::segment::{FIRST_FRAME, Identity};
use super::table::Table;
use super::writer::Loss;
use super::{AppendError, Position, Settle};
use crate::clock::Clock;
use crate::config::{Durability, JournalConfig};
use crate::telemetry::Metrics;

/// Payload bytes that may wait for the writer. With the default queue of 16,384 records it is
/// reached only by records above 4 KiB, and bounds what those can take.
const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Records of one commit.
const COMMIT_RECORDS_MAX: usize = 4096;

/// What the journal may take when nothing is said and the volume is small.
const DISK_BYTES_DEFAULT: u64 = 1 << 30;
/// A segment is at most this part of all the journal may take.
const SEGMENTS_MIN: u64 = 16;

/// Whether appends are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    /// Yes.
    Open,
    /// Not before there is room.
    Full,
    /// Never again.
    Dead,
}

/// One append on its way.
pub(super) struct Waiting {
    pub(super) position: Position,
    pub(super) record: Vec<u8>,
    pub(super) settle: Settle,
    /// Told the outcome; absent when the caller was told at once.
    pub(super) waiter: Option<oneshot::Sender<Result<(), AppendError>>>,
}

/// Appends in the order of their positions.
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
    next: Position,
    gate: Gate,
    is_closed: bool,
    /// The writer sleeps and must be woken; otherwise it looks by itself.
    is_idle: bool,
}

/// What is not the journal's.
pub(super) struct Outside {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
}

/// See the module.
pub(super) struct Shared {
    pub(super) fs: Arc<dyn Fs>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) folder: PathBuf,
    pub(super) identity: Identity,
    pub(super) node: Arc<str>,
    pub(super) durability: Durability,
    pub(super) segment_bytes: u64,
    pub(super) record_bytes_max: usize,
    pub(super) disk_bytes_max: u64,
    pub(super) keep: Duration,
    pub(super) keep_bytes_max: u64,
    pub(super) queue_records_max: usize,
    pub(super) queue: Mutex<Queue>,
    /// Something was put into the empty queue.
    pub(super) arrived: Condvar,
    pub(super) table: Mutex<Table>,
    /// The keeper granted the writer's wish, or never will.
    pub(super) spare_ready: Condvar,
    /// There is work for the keeper.
    pub(super) work: Condvar,
    /// Last durable position.
    pub(super) durable: watch::Sender<Position>,
    /// True once nothing can be appended any more.
    pub(super) dead: watch::Sender<bool>,
    pub(super) last_error: Mutex<Option<String>>,
}

/// A lock whose holder panicked is still good: every change under it is a few assignments.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    /// Empty; the first append gets position `next`.
    fn new(next: Position) -> Self {
        let waiting = VecDeque::new();
        Self { waiting, bytes: 0, next, gate: Gate::Open, is_closed: false, is_idle: false }
    }
}

impl Shared {
    /// Everything but the threads.
    pub(super) fn new(
        config: &JournalConfig,
        outside: Outside,
        identity: Identity,
        table: Table,
    ) -> Self {
        let Outside { fs, clock, metrics } = outside;
        let folder = config.directory.clone();
        let volume = fs.space(&folder).map_or(u64::MAX, |space| space.total);
        let disk_bytes_max = match config.disk_bytes_max {
            0 => (volume / 10).max(DISK_BYTES_DEFAULT),
            bytes => bytes,
        }
        .min(volume);
        // Room is taken and given back by whole segments, so there must be some.
        let segment_bytes = config.segment_bytes.min(disk_bytes_max / SEGMENTS_MIN);
        let segment_bytes = (segment_bytes - segment_bytes % 4096).max(2 * FIRST_FRAME);
        let payload = segment_bytes - FIRST_FRAME - FRAME_HEADER_BYTES as u64;
        Self {
            fs,
            clock,
            metrics,
            folder,
            identity,
            node: identity.node().into(),
            durability: config.durability,
            segment_bytes,
            record_bytes_max: usize::try_from(payload).map_or(0, |b| b.min(RECORD_BYTES_MAX)),
            disk_bytes_max,
            keep: config.keep,
            keep_bytes_max: config.keep_bytes_max,
            queue_records_max: config.queue_records_max,
            queue: Mutex::new(Queue::new(Position(table.durable.0 + 1))),
            arrived: Condvar::new(),
            durable: watch::Sender::new(table.durable),
            table: Mutex::new(table),
            spare_ready: Condvar::new(),
            work: Condvar::new(),
            dead: watch::Sender::new(false),
            last_error: Mutex::new(None),
        }
    }

    /// Queues an append, and says where it will stand.
    pub(super) fn push(
        &self,
        record: Vec<u8>,
        settle: Settle,
        waiter: Option<oneshot::Sender<Result<(), AppendError>>>,
    ) -> Result<Position, AppendError> {
        let mut queue = locked(&self.queue);
        if queue.is_closed {
            return Err(AppendError::Failed);
        }
        match queue.gate {
            Gate::Open => {}
            Gate::Full => return Err(AppendError::Full),
            Gate::Dead => return Err(AppendError::Failed),
        }
        // What is acknowledged in memory is lost by a crash, so less of it may wait.
        let share = if waiter.is_some() { 1 } else { 2 };
        if queue.waiting.len() >= (self.queue_records_max / share).max(1)
            || queue.bytes + record.len() > QUEUE_BYTES_MAX / share
        {
            return Err(AppendError::Busy);
        }
        let position = queue.next;
        queue.next = Position(position.0 + 1);
        queue.bytes += record.len();
        queue.waiting.push_back(Waiting { position, record, settle, waiter });
        let was_idle = std::mem::replace(&mut queue.is_idle, false);
        self.metrics.journal_queue.inc();
        drop(queue);
        if was_idle {
            self.arrived.notify_one();
        }
        Ok(position)
    }

    /// Moves what one commit takes into the empty `batch`; waits for at least one. False when the
    /// journal is closed and everything was taken.
    pub(super) fn take(&self, batch: &mut VecDeque<Waiting>) -> bool {
        let mut queue = locked(&self.queue);
        while queue.waiting.is_empty() {
            if queue.is_closed || queue.gate == Gate::Dead {
                return false;
            }
            queue.is_idle = true;
            queue = self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.is_idle = false;
        if queue.waiting.len() <= COMMIT_RECORDS_MAX && queue.bytes <= COMMIT_BYTES_MAX {
            std::mem::swap(&mut queue.waiting, batch);
            queue.bytes = 0;
        } else {
            let mut bytes = 0;
            while batch.len() < COMMIT_RECORDS_MAX && bytes < COMMIT_BYTES_MAX {
                let Some(waiting) = queue.waiting.pop_front() else { break };
                bytes += waiting.record.len();
                batch.push_back(waiting);
            }
            queue.bytes -= bytes;
        }
        drop(queue);
        self.metrics.journal_queue.sub(i64::try_from(batch.len()).unwrap_or(i64::MAX));
        true
    }

    /// Opens or closes the door; a dead journal stays dead.
    pub(super) fn set_gate(&self, gate: Gate) {
        let mut queue = locked(&self.queue);
        let before = queue.gate;
        if before == Gate::Dead || before == gate {
            return;
        }
        queue.gate = gate;
        drop(queue);
        match gate {
            Gate::Open => tracing::info!("journal takes events again"),
            Gate::Full => {
                *locked(&self.last_error) = Some("no room for another segment".to_owned());
                tracing::error!("journal is full");
            }
            Gate::Dead => {}
        }
    }

    /// True while appends are taken.
    pub(super) fn is_open(&self) -> bool {
        let queue = locked(&self.queue);
        queue.gate == Gate::Open && !queue.is_closed
    }

    /// Takes no more appends; the writer ends when it has written those that wait.
    pub(super) fn close_queue(&self) {
        locked(&self.queue).is_closed = true;
        self.arrived.notify_one();
    }

    /// Ends all appends for good; those that wait are lost.
    pub(super) fn die(&self) {
        let mut queue = locked(&self.queue);
        let was_dead = std::mem::replace(&mut queue.gate, Gate::Dead) == Gate::Dead;
        let waiting = std::mem::take(&mut queue.waiting);
        queue.bytes = 0;
        drop(queue);
        self.arrived.notify_one();
        self.metrics.journal_queue.sub(i64::try_from(waiting.len()).unwrap_or(i64::MAX));
        for waiting in waiting {
            self.settle(waiting, Err(Loss::Failed));
        }
        locked(&self.table).is_dead = true;
        self.spare_ready.notify_all();
        self.dead.send_replace(true);
        if !was_dead {
            tracing::error!("journal cannot write any more");
        }
    }

    /// Tells everybody who must know how an append ended.
    pub(super) fn settle(&self, waiting: Waiting, outcome: Result<(), Loss>) {
        match outcome {
            Ok(()) => (waiting.settle)(&self.metrics, Ok(())),
            Err(loss) => (waiting.settle)(&self.metrics, Err(&loss.into())),
        }
        if let Some(waiter) = waiting.waiter {
            // The caller may have gone; the outcome is counted all the same.
            let _ = waiter.send(outcome.map_err(AppendError::from));
        }
    }

    /// Counts, keeps and logs an error of the disk.
    pub(super) fn note_error(&self, what: &'static str, error: &io::Error) -> Loss {
        self.metrics.journal_errors.inc();
        *locked(&self.last_error) = Some(format!("{what}: {error}"));
        tracing::error!(%error, what, "journal's disk failed");
        loss_of(error)
    }

    /// The last failure as an error.
    pub(super) fn last_error(&self) -> io::Error {
        io::Error::other(locked(&self.last_error).clone().unwrap_or_default())
    }

    /// Sends the keeper to work.
    pub(super) fn wake_keeper(&self) {
        locked(&self.table).wake_keeper();
        self.work.notify_one();
    }

    pub(super) fn wait_timeout<'a, T>(
        condition: &Condvar,
        guard: MutexGuard<'a, T>,
        timeout: Duration,
    ) -> MutexGuard<'a, T> {
        condition.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner).0
    }

    /// Kept by a thread while it runs: if it panics, nobody waits for it for ever.
    pub(super) fn watch_thread(self: &Arc<Self>) -> impl Drop + use<> {
        struct Watch(Arc<Shared>);
        impl Drop for Watch {
            fn drop(&mut self) {
                if std::thread::panicking() {
                    self.0.die();
                }
            }
        }
        Watch(Arc::clone(self))
    }
}
