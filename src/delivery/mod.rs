//! From the journal to the sinks: one shipper for each, and the low water that lets the journal
//! forget.
//!
//! A shipper reads the journal, sorts events into one lane for each table, freezes a due lane's rows
//! as a batch, writes it, and commits. Its memory is bounded whatever its store does; the backlog is
//! the journal. Sinks know nothing of each other: the slowest one decides what the journal keeps,
//! and nothing else.

mod adaptive;
mod attempt;
mod batcher;
mod cursor;
mod poison;
mod replay;
mod retry;
mod running;
mod shipper;
mod source;
mod status;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::backends::{Backend, Guarantee, Sink};
use crate::clock::Clock;
use crate::config::LimitsByTable;
use crate::journal::{Fs, Journal, Position, RealFs};
use crate::tables;
use crate::telemetry::{LOST_REASONS, Metrics};
use batcher::Bounds;
pub use cursor::{highest_cursor, scan_cursor, stored_cursor};
pub use replay::{ReplayError, Replayed, replay};
use shipper::Shipper;
use source::{Claims, Decoder, Source};
use status::Status;
pub use status::{SinkHealth, SinkState};

/// How long a sink may take to close after the deadline of stop.
const CLOSE_TIME_MAX: Duration = Duration::from_millis(250);

/// All shippers of the process.
pub struct Delivery {
    sinks: Vec<Entry>,
    journal: Journal,
    clock: Arc<dyn Clock>,
    stop: watch::Sender<Option<Instant>>,
    failed: CancellationToken,
    tasks: TaskTracker,
}

/// Where cursor files are.
#[derive(Clone)]
struct Cursors {
    fs: Arc<dyn Fs>,
    directory: PathBuf,
}

/// One sink, as `health` sees it.
struct Entry {
    name: String,
    kind: &'static str,
    sink: Arc<dyn Sink>,
    status: Arc<Status>,
}

impl Delivery {
    /// Starts one shipper for each of `backends` that is a sink, with its limits. Never waits: a
    /// sink that cannot be reached is tried again for as long as it takes. Call it within a runtime.
    ///
    /// # Errors
    /// When the machine gives no thread.
    pub fn start(
        backends: &[(Backend, LimitsByTable)],
        journal: &Journal,
        cursors_directory: &Path,
        clock: &Arc<dyn Clock>,
        metrics: &Arc<Metrics>,
    ) -> io::Result<Self> {
        let cursors = Cursors { fs: Arc::new(RealFs), directory: cursors_directory.to_owned() };
        Self::start_with(backends, journal, &cursors, clock, metrics, &|sink| {
            Bounds::of(sink.appetite())
        })
    }

    fn start_with(
        backends: &[(Backend, LimitsByTable)],
        journal: &Journal,
        cursors: &Cursors,
        clock: &Arc<dyn Clock>,
        metrics: &Arc<Metrics>,
        bounds: &dyn Fn(&dyn Sink) -> Bounds,
    ) -> io::Result<Self> {
        let stop = watch::Sender::new(None);
        let failed = CancellationToken::new();
        let tasks = TaskTracker::new();
        let sinks: Vec<_> = backends
            .iter()
            .filter_map(|(backend, limits)| Some((backend, backend.sink.as_ref()?, limits)))
            .collect();
        let low_water = Arc::new(LowWater::new(sinks.len()));
        let claims = Arc::new(Claims::default());
        let mut entries = Vec::with_capacity(sinks.len());
        for (index, (backend, sink, limits)) in sinks.into_iter().enumerate() {
            for reason in LOST_REASONS {
                metrics.sink_lost.with_label_values(&[&*backend.name, reason]);
            }
            let status = Arc::new(Status::new(clock.wall()));
            let shipper = Shipper {
                sink: Arc::clone(sink),
                limits: limits.clone(),
                source: Source {
                    sink: backend.name.as_str().into(),
                    journal: journal.clone(),
                    clock: Arc::clone(clock),
                    metrics: Arc::clone(metrics),
                    claims: Arc::clone(&claims),
                    decoder: Decoder::start(&backend.name)?,
                },
                cursors: cursors.clone(),
                status: Arc::clone(&status),
                low_water: Share { all: Arc::clone(&low_water), index },
                bounds: bounds(&**sink),
            };
            tasks.spawn(supervise(shipper, stop.subscribe(), Arc::clone(&status), failed.clone()));
            entries.push(Entry {
                name: backend.name.clone(),
                kind: backend.kind,
                sink: Arc::clone(sink),
                status,
            });
        }
        tasks.close();
        let (journal, clock) = (journal.clone(), Arc::clone(clock));
        Ok(Self { sinks: entries, journal, clock, stop, failed, tasks })
    }

    /// Every sink, in the order of the configuration.
    pub fn health(&self) -> Vec<SinkHealth> {
        let durable = self.journal.durable();
        let before_first = self.journal.first().0.saturating_sub(1);
        let now = self.clock.wall();
        self.sinks
            .iter()
            .map(|entry| {
                let seen = entry.status.seen();
                let lag_events = durable.0.saturating_sub(seen.stored.0.max(before_first));
                let age = seen.oldest.filter(|_| lag_events > 0).map_or(0, |oldest| {
                    now.signed_duration_since(oldest).num_seconds().max(0).unsigned_abs()
                });
                SinkHealth {
                    name: entry.name.clone(),
                    kind: entry.kind,
                    state: seen.state,
                    guarantee: guarantee(&*entry.sink),
                    lag_events,
                    lag_seconds: age,
                    last_error: seen.last_error.or_else(|| entry.sink.notice()),
                }
            })
            .collect()
    }

    /// Up to which position the sink `name` has everything; 0 while it is not reached.
    pub fn stored(&self, name: &str) -> Position {
        let entry = self.sinks.iter().find(|entry| entry.name == name);
        entry.map_or(Position(0), |entry| entry.status.seen().stored)
    }

    /// Returns when a shipper broke, which it never does by a sink's fault: the process should end
    /// with an error. Cancel-safe.
    pub async fn failed(&self) {
        self.failed.cancelled().await;
    }

    /// Sends what waits until `deadline` is over, then closes the sinks. A sink that fails meanwhile
    /// is not tried again. Nothing is lost with the deadline: what was not sent is in the journal.
    pub async fn stop(&self, deadline: Duration) {
        let deadline = self.clock.monotonic() + deadline;
        self.stop.send_replace(Some(deadline));
        // Shippers keep the deadline themselves; this one is for a sink that does not close.
        tokio::select! {
            () = self.tasks.wait() => {}
            () = self.clock.sleep_until(deadline + CLOSE_TIME_MAX * 2) => {
                tracing::warn!("stopped without waiting for a sink to close");
            }
        }
    }
}

/// Runs a shipper; a panic in it becomes visible.
async fn supervise(
    shipper: Shipper,
    stop: watch::Receiver<Option<Instant>>,
    status: Arc<Status>,
    failed: CancellationToken,
) {
    let name = Arc::clone(&shipper.source.sink);
    let metrics = Arc::clone(&shipper.source.metrics);
    if let Err(error) = tokio::spawn(shipper.run(stop)).await {
        tracing::error!(sink = &*name, %error, "shipper broke");
        metrics.sink_up.with_label_values(&[&*name]).set(0);
        status.change(|seen| {
            seen.state = SinkState::Failed;
            seen.last_error = Some("its shipper broke".to_owned());
        });
        failed.cancel();
    }
}

/// The weakest guarantee of the tables a sink takes.
fn guarantee(sink: &dyn Sink) -> String {
    let accepted = tables::ALL.iter().filter(|table| sink.accepts(**table));
    let weakest = accepted
        .map(|table| sink.guarantee(*table))
        .find(|guarantee| *guarantee != Guarantee::ExactlyOnce);
    weakest.unwrap_or(Guarantee::ExactlyOnce).to_string()
}

/// What every sink has durably noted as stored; the journal may forget up to the least of it.
#[derive(Debug)]
struct LowWater(Vec<AtomicU64>);

impl LowWater {
    /// A sink that has not been reached yet holds everything.
    fn new(sinks: usize) -> Self {
        Self((0..sinks).map(|_| AtomicU64::new(0)).collect())
    }
}

/// One sink's share of the low water.
struct Share {
    all: Arc<LowWater>,
    index: usize,
}

impl Share {
    /// This sink's cursor durably says `position`; gives what all have.
    fn raise(&self, position: Position) -> Position {
        if let Some(own) = self.all.0.get(self.index) {
            own.fetch_max(position.0, Ordering::AcqRel);
        }
        let all = self.all.0.iter().map(|sink| sink.load(Ordering::Acquire));
        Position(all.min().unwrap_or_default())
    }
}
