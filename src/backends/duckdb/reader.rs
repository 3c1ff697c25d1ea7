//! A thread that answers questions, one after the other, each with a deadline.
//!
//! Its connection is another view of the same open file, made by the worker and taken away by it
//! before the file is closed: two open handles of one file in one process would not exclude each
//! other. A second thread watches the running question and interrupts it at its deadline or when
//! nobody waits for the answer any more; it goes on interrupting until the question has ended,
//! because an interrupt that comes before the library has begun is lost.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use duckdb::{Connection, InterruptHandle};
use tokio::sync::oneshot;

use super::fault;
use crate::backends::StoreError;
use crate::background;

/// Questions that may wait; more are refused, as their deadlines would pass in the queue.
const WAITING_MAX: usize = 64;

/// Time between two interrupts of the same question.
const INTERRUPT_AGAIN: Duration = Duration::from_millis(20);

/// What worker and reader share.
#[derive(Default)]
pub(super) struct Desk {
    connection: Mutex<Option<Connection>>,
    attached: Condvar,
    running: Mutex<Running>,
    changed: Condvar,
    broken: AtomicBool,
}

#[derive(Default)]
struct Running {
    job: Option<Watched>,
    ended: bool,
}

struct Watched {
    deadline: Instant,
    cancelled: Arc<AtomicBool>,
    interrupt: Arc<InterruptHandle>,
}

/// Who waits for the answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AskedBy {
    /// Requests in flight.
    Requests,
    /// People with a statement of their own.
    People,
}

/// Asks; the last clone dropped ends the threads.
pub(super) struct Reader {
    jobs: SyncSender<Job>,
    desk: Arc<Desk>,
}

struct Job {
    deadline: Instant,
    cancelled: Arc<AtomicBool>,
    work: Box<dyn FnOnce(&Connection) + Send>,
}

/// Cancels the question when the one who asks goes away.
struct Cancel {
    cancelled: Arc<AtomicBool>,
    desk: Arc<Desk>,
}

impl Drop for Cancel {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::SeqCst);
        // Taken so that the watcher cannot miss it between looking and waiting.
        drop(lock(&self.desk.running));
        self.desk.changed.notify_all();
    }
}

impl Reader {
    /// Starts the two threads, below those that answer requests where only people wait.
    ///
    /// # Errors
    /// When the machine gives no threads.
    pub(super) fn start(name: &str, asked_by: AskedBy) -> std::io::Result<Self> {
        let (jobs, waiting) = sync_channel(WAITING_MAX);
        let desk = Arc::new(Desk::default());
        let watched = Arc::clone(&desk);
        thread::Builder::new().name(format!("{name}-watch")).spawn(move || watched.watch())?;
        let served = Arc::clone(&desk);
        let serve = move || serve(&served, &waiting);
        match asked_by {
            AskedBy::Requests => thread::Builder::new().name(name.to_owned()).spawn(serve)?,
            AskedBy::People => background::spawn(name, serve)?,
        };
        Ok(Self { jobs, desk })
    }

    /// What the worker needs of it.
    pub(super) fn desk(&self) -> Arc<Desk> {
        Arc::clone(&self.desk)
    }

    /// Runs `work` on the reader's thread and answers within `time_max`.
    ///
    /// # Errors
    /// [`StoreError::Timeout`] at the deadline, [`StoreError::Unavailable`] when too many wait or
    /// the file is not open, or what `work` answers.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        time_max: Duration,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let cancelled = Arc::new(AtomicBool::new(false));
        let desk = Arc::clone(&self.desk);
        let job = Job {
            deadline: Instant::now() + time_max,
            cancelled: Arc::clone(&cancelled),
            work: Box::new(move |connection| {
                let answer = work(connection);
                if matches!(&answer, Err(error) if fault::database_is_closed(error)) {
                    desk.broken.store(true, Ordering::SeqCst);
                }
                let _ = reply.send(answer);
            }),
        };
        let _cancel = Cancel { cancelled, desk: Arc::clone(&self.desk) };
        self.jobs
            .try_send(job)
            .map_err(|_| StoreError::Unavailable("too many questions wait".into()))?;
        match tokio::time::timeout(time_max, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(StoreError::Unavailable("the database is not open".into())),
            Err(_) => Err(StoreError::Timeout(time_max)),
        }
    }
}

/// The reader's thread.
fn serve(desk: &Desk, jobs: &Receiver<Job>) {
    while let Ok(job) = jobs.recv() {
        let Some(connection) = desk.connection_until(&job) else { continue };
        let Some(open) = connection.as_ref() else { continue };
        desk.answer(open, job);
    }
    lock(&desk.running).ended = true;
    desk.changed.notify_all();
}

impl Desk {
    /// Gives the reader its connection.
    pub(super) fn attach(&self, connection: Connection) {
        *lock(&self.connection) = Some(connection);
        self.attached.notify_all();
    }

    /// Ends the running question and takes the connection away.
    pub(super) fn detach(&self) {
        loop {
            if let Ok(mut connection) = self.connection.try_lock() {
                *connection = None;
                return;
            }
            if let Some(job) = &lock(&self.running).job {
                job.interrupt.interrupt();
            }
            thread::sleep(INTERRUPT_AGAIN);
        }
    }

    /// Whether the library gave up on the open file in a question since this was last asked.
    pub(super) fn take_broken(&self) -> bool {
        self.broken.swap(false, Ordering::SeqCst)
    }

    /// Runs `work` here and now, watched like any other question.
    pub(super) fn run<T>(
        self: &Arc<Self>,
        connection: &Connection,
        time_max: Duration,
        work: impl FnOnce(&Connection) -> Result<T, StoreError> + Send,
    ) -> Result<T, StoreError> {
        let desk = Arc::clone(self);
        let watcher = thread::spawn(move || desk.watch());
        let deadline = Instant::now() + time_max;
        self.begin(connection, deadline, Arc::default());
        let answer = work(connection);
        let mut running = lock(&self.running);
        (running.job, running.ended) = (None, true);
        drop(running);
        self.changed.notify_all();
        let _ = watcher.join();
        answer
    }

    fn begin(&self, connection: &Connection, deadline: Instant, cancelled: Arc<AtomicBool>) {
        let interrupt = connection.interrupt_handle();
        lock(&self.running).job = Some(Watched { deadline, cancelled, interrupt });
        self.changed.notify_all();
    }

    fn answer(&self, connection: &Connection, job: Job) {
        self.begin(connection, job.deadline, Arc::clone(&job.cancelled));
        if !job.cancelled.load(Ordering::SeqCst) {
            // A panic drops the reply, which answers; the library's state is not trusted after it.
            let work = job.work;
            if catch_unwind(AssertUnwindSafe(|| work(connection))).is_err() {
                tracing::error!("the database library panicked in a question");
                self.broken.store(true, Ordering::SeqCst);
            }
        }
        lock(&self.running).job = None;
        self.changed.notify_all();
    }

    /// Waits for the file to be open, until the question's deadline.
    fn connection_until(&self, job: &Job) -> Option<MutexGuard<'_, Option<Connection>>> {
        let left = job.deadline.checked_duration_since(Instant::now())?;
        let (connection, waited) = self
            .attached
            .wait_timeout_while(lock(&self.connection), left, |connection| {
                connection.is_none() && !job.cancelled.load(Ordering::SeqCst)
            })
            .unwrap_or_else(PoisonError::into_inner);
        (!waited.timed_out()).then_some(connection)
    }

    /// The watcher's thread.
    fn watch(&self) {
        let mut running = lock(&self.running);
        while !running.ended {
            let Some(job) = &running.job else {
                running = self.changed.wait(running).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = job.deadline.saturating_duration_since(Instant::now());
            let due = left.is_zero() || job.cancelled.load(Ordering::SeqCst);
            if due {
                job.interrupt.interrupt();
            }
            let wait = if due { INTERRUPT_AGAIN } else { left };
            (running, _) =
                self.changed.wait_timeout(running, wait).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
