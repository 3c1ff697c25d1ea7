//! The loop of one sink: read, lane, freeze, write, commit.
//!
//! Order is what makes a row stored once: a range is durable in the cursor file *before* its first
//! attempt, every attempt carries the same token, and only then the cursor moves. At most one batch
//! of a table is on its way, and at most [`WRITES_MAX`] of a sink.
//!
//! Everything that waits (a read, a write, a probe) is a task of its own or a moment; the loop
//! itself awaits nothing but its `select!` and the sync of the cursor. Every branch of the `select!`
//! is cancel-safe: joining a task set, waiting for the journal, a moment, or a watch.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::task::{JoinError, JoinSet, spawn_blocking};

use super::attempt::{Outcome, Target};
use super::batcher::{Batcher, LaneIndex, Taken};
use super::cursor::{Cursor, CursorFile};
use super::poison::Parts;
use super::retry::Retry;
use super::shipper::{PAUSE, Shipper, Stop};
use super::source::{Chunk, Source};
use super::status::SinkState;
use crate::breaker::Breaker;
use crate::journal::{Position, Reader};
use crate::tables;
use crate::telemetry::SinkMetrics;

/// Batches of one sink on their way at once: enough that a slow table does not hold the others.
const WRITES_MAX: usize = 4;
/// How long a commit may be known to memory only; a repeat of what was stored meanwhile is all that
/// a crash costs.
const COMMIT_AGE_MAX: Duration = Duration::from_secs(1);
/// A batch that is too large is cut after so many failures in a row: the first may be the moment's …
const CUT_AFTER: u32 = 2;
/// … and not when it has so few rows: what is then too large is so for other reasons than its length.
const CUT_ROWS_MIN: usize = 512;
/// Nothing is waited for longer than this without looking again.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// A shipper whose store is known.
pub(super) struct Running {
    shipper: Shipper,
    batcher: Batcher,
    lanes: Vec<LaneState>,
    breaker: Breaker,
    /// When the breaker lets the next attempt through, while it is open.
    admits_at: Option<Instant>,
    writes: JoinSet<(LaneIndex, Outcome)>,
    /// `None` while it is away reading.
    reader: Option<Reader>,
    reading: JoinSet<Option<(Reader, io::Result<Chunk>)>>,
    /// No reading before, after the disk refused.
    read_at: Instant,
    cursor: Cursor,
    /// `None` only if the process is ending.
    file: Option<CursorFile>,
    sync: Sync,
    /// Set by stop.
    deadline: Option<Instant>,
    /// A write failed while stopping.
    gave_up: bool,
}

/// How the cursor file stands to `cursor`.
struct Sync {
    /// The file says something else.
    dirty: bool,
    /// No sync before, unless a batch waits for it.
    at: Instant,
    /// The last sync failed; nothing is tried before `at`.
    failed: bool,
}

/// One lane's way to the store.
struct LaneState {
    table: &'static str,
    metrics: SinkMetrics,
    retry: Retry,
    flight: Option<Flight>,
    /// Where the batch begins that the sink was told of before its time.
    expected: Position,
}

/// A frozen batch on its way.
struct Flight {
    parts: Parts,
    phase: Phase,
    /// Failures in a row.
    failures: u32,
    last: Position,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Its range is not durable yet.
    Freezing,
    /// To be sent.
    Ready,
    /// Sent at that moment.
    Writing(Instant),
    /// To be sent again then.
    Waiting(Instant),
}

impl Running {
    pub(super) fn new(shipper: Shipper, cursor: Cursor, file: CursorFile) -> Self {
        let Source { sink, journal, clock, metrics, .. } = &shipper.source;
        let origin = Position(journal.first().0.saturating_sub(1));
        let accepted = tables::ALL.iter().filter(|table| shipper.sink.accepts(**table));
        let (mut lanes, mut cursors) = (Vec::new(), Vec::new());
        for &table in accepted {
            let (name, limits) = (table.name(), shipper.limits.of(table.name()));
            lanes.push(LaneState {
                table: name,
                metrics: metrics.sink(sink, name),
                retry: Retry::new(&limits),
                flight: None,
                expected: Position(0),
            });
            cursors.push((table, limits, cursor.table(name, origin)));
        }
        let batcher = Batcher::new(
            Arc::clone(sink),
            Arc::new(shipper.source.clone()),
            cursors,
            journal.durable(),
            shipper.bounds,
        );
        let now = clock.monotonic();
        let reader = Some(journal.reader(batcher.read()));
        Self {
            batcher,
            lanes,
            breaker: Breaker::default(),
            admits_at: None,
            writes: JoinSet::new(),
            reader,
            reading: JoinSet::new(),
            read_at: now,
            cursor,
            file: Some(file),
            sync: Sync { dirty: true, at: now, failed: false },
            deadline: None,
            gave_up: false,
            shipper,
        }
    }

    /// Ships until told to stop, then flushes until the deadline.
    pub(super) async fn run(&mut self, mut stop: Stop) {
        let clock = Arc::clone(&self.shipper.source.clock);
        let journal = self.shipper.source.journal.clone();
        loop {
            let now = clock.monotonic();
            self.freeze(now).await;
            self.launch(now);
            self.look_ahead();
            self.report();
            if self.is_done(now) {
                return;
            }
            let wake = self.wake(now);
            let may_read = self.reader.is_some() && self.batcher.has_room() && now >= self.read_at;
            tokio::select! {
                Some(joined) = self.writes.join_next() => {
                    let (lane, outcome) = unless_panicked(joined);
                    self.settle(lane, &outcome);
                }
                Some(joined) = self.reading.join_next() => {
                    if let Some((reader, chunk)) = unless_panicked(joined) {
                        self.take_in(reader, chunk);
                    }
                }
                () = journal.wait_after(self.batcher.read()), if may_read => self.read(),
                () = clock.sleep_until(wake) => {}
                told = stop.wait_for(Option::is_some), if self.deadline.is_none() => {
                    // The sender gone means that nobody waits for a flush.
                    let deadline = told.ok().and_then(|deadline| *deadline);
                    self.flush(deadline.unwrap_or(now));
                }
            }
        }
    }

    fn name(&self) -> &str {
        &self.shipper.source.sink
    }

    /// Takes the batches of due lanes and makes their ranges durable, all with one sync; without a
    /// due lane, notes what was stored, at most once a second.
    async fn freeze(&mut self, now: Instant) {
        if self.sync.failed && now < self.sync.at {
            return;
        }
        let due =
            if self.deadline.is_some() { self.batcher.waiting() } else { self.batcher.due(now) };
        for index in due {
            match (self.batcher.take(index), self.lanes.get_mut(index)) {
                (Some(Taken::Batch(batch)), Some(lane)) => {
                    tracing::debug!(
                        sink = &*self.shipper.source.sink,
                        table = lane.table,
                        rows = batch.entries.len(),
                        first = batch.first.0,
                        last = batch.last.0,
                        "batch frozen"
                    );
                    let (phase, last) = (Phase::Freezing, batch.last);
                    lane.flight =
                        Some(Flight { parts: Parts::new(batch), phase, failures: 0, last });
                }
                (Some(Taken::Missing(range)), Some(lane)) => {
                    self.shipper.missing(lane.table, range);
                }
                (_, _) => {}
            }
        }
        let freezing = self.flights().any(|flight| flight.phase == Phase::Freezing);
        self.note();
        if freezing || (self.sync.dirty && now >= self.sync.at) {
            self.sync(now).await;
        }
    }

    /// Copies the lanes' state into the cursor.
    fn note(&mut self) {
        for index in self.batcher.lanes() {
            let Some(lane) = self.lanes.get(index) else { continue };
            let at = self.batcher.cursor(index);
            if self.cursor.table(lane.table, Position(0)) == at {
                continue;
            }
            match self.cursor.set(lane.table, at) {
                Ok(()) => self.sync.dirty = true,
                Err(error) => {
                    debug_assert!(false, "a cursor never moves back: {error:?}");
                    tracing::error!(table = lane.table, ?error, "cursor would have moved back");
                }
            }
        }
    }

    async fn sync(&mut self, now: Instant) {
        let Some(mut file) = self.file.take() else { return };
        let cursor = self.cursor.clone();
        let low_water = self.batcher.low_water();
        let written = spawn_blocking(move || {
            let written = file.write(&cursor);
            (file, written)
        });
        // The task can only fail while the runtime shuts down.
        let Ok((file, written)) = written.await else { return };
        self.file = Some(file);
        match written {
            Ok(()) => {
                self.sync = Sync { dirty: false, at: now + COMMIT_AGE_MAX, failed: false };
                for lane in &mut self.lanes {
                    if let Some(flight) = &mut lane.flight
                        && flight.phase == Phase::Freezing
                    {
                        flight.phase = Phase::Ready;
                    }
                }
                let all = self.shipper.low_water.raise(low_water);
                self.shipper.source.journal.forget(all);
            }
            Err(error) => {
                self.sync = Sync { dirty: true, at: now + PAUSE, failed: true };
                self.failure("writing the cursor", &error.to_string());
            }
        }
    }

    /// Starts the attempts that may start now, lanes of a lower priority number first.
    fn launch(&mut self, now: Instant) {
        self.admits_at = None;
        let mut ready: Vec<(u8, LaneIndex)> = Vec::new();
        for (index, lane) in self.lanes.iter().enumerate() {
            let Some(flight) = &lane.flight else { continue };
            let is_ready = match flight.phase {
                Phase::Ready => true,
                Phase::Waiting(until) => now >= until,
                Phase::Freezing | Phase::Writing(_) => false,
            };
            if is_ready {
                ready.push((self.shipper.limits.of(lane.table).priority, index));
            }
        }
        ready.sort_unstable();
        for (_, index) in ready {
            if self.writes.len() >= WRITES_MAX {
                return;
            }
            if let Err(until) = self.breaker.admit(now) {
                self.admits_at = Some(until);
                return;
            }
            self.start(index, now);
        }
    }

    /// Tells the sink of full batches that wait for the one before them.
    fn look_ahead(&mut self) {
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if let Some(next) = self.batcher.next_full(index, lane.expected) {
                lane.expected = next.first;
                self.shipper.sink.expect(&next);
            }
        }
    }

    fn start(&mut self, index: LaneIndex, now: Instant) {
        let flight = self.lanes.get_mut(index).and_then(|lane| lane.flight.as_mut());
        let Some(flight) = flight else { return };
        let Some(part) = flight.parts.next().map(Arc::clone) else { return };
        flight.phase = Phase::Writing(now);
        let Source { sink, journal, clock, .. } = &self.shipper.source;
        let target = Target {
            name: Arc::clone(sink),
            sink: Arc::clone(&self.shipper.sink),
            journal: journal.clone(),
            clock: Arc::clone(clock),
        };
        self.writes.spawn(async move { (index, target.attempt(part).await) });
    }

    /// One attempt is over.
    fn settle(&mut self, index: LaneIndex, outcome: &Outcome) {
        let now = self.shipper.source.clock.monotonic();
        let stamp = self.shipper.source.clock.wall().timestamp();
        let Some(lane) = self.lanes.get_mut(index) else { return };
        let Some(flight) = &mut lane.flight else { return };
        let started = if let Phase::Writing(at) = flight.phase { at } else { now };
        let latency = now.saturating_duration_since(started);
        flight.phase = Phase::Ready;
        let rows = flight.parts.next().map_or(0, |part| part.entries.len());
        match outcome {
            Outcome::Stored => {
                let milliseconds = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
                lane.metrics.rows.inc_by(rows as u64);
                lane.metrics.batches.inc();
                lane.metrics.write_milliseconds.inc_by(milliseconds);
                flight.parts.settled();
                let Source { sink, metrics, .. } = &self.shipper.source;
                metrics.sink_last_stored.with_label_values(&[&**sink]).set(stamp);
            }
            Outcome::Refused(_) => flight.parts.split(),
            Outcome::SetAside(_) => {
                lane.metrics.quarantined.inc();
                flight.parts.settled();
            }
            Outcome::GivenUp(_) => {
                let Source { sink, metrics, .. } = &self.shipper.source;
                metrics.sink_lost.with_label_values(&[&**sink, "refused_quarantine"]).inc();
                flight.parts.settled();
            }
            Outcome::Unkept(_) => {
                flight.failures = flight.failures.saturating_add(1);
                let delay = lane.retry.delay(flight.failures, None, rand::random());
                flight.phase = Phase::Waiting(now + delay);
            }
            Outcome::Unfit { after, .. } => {
                lane.metrics.failures.inc();
                flight.failures = flight.failures.saturating_add(1);
                flight.phase = Phase::Waiting(now + *after);
            }
            Outcome::TooLarge(_) => {
                lane.metrics.failures.inc();
                flight.failures = flight.failures.saturating_add(1);
                if flight.failures >= CUT_AFTER && rows > CUT_ROWS_MIN {
                    let (sink, table) = (&*self.shipper.source.sink, lane.table);
                    tracing::info!(sink, table, rows, "batch is too large and is cut");
                    flight.parts.split();
                    self.batcher.shrink(rows / 2);
                }
                let delay = lane.retry.delay(flight.failures, None, rand::random());
                flight.phase = Phase::Waiting(now + delay);
            }
            Outcome::Failed { after, .. } => {
                lane.metrics.failures.inc();
                flight.failures = flight.failures.saturating_add(1);
                let delay = lane.retry.delay(flight.failures, *after, rand::random());
                flight.phase = Phase::Waiting(now + delay);
            }
        }
        self.tell(index, outcome, now);
        self.commit(index, now, latency);
    }

    /// Breaker, health and log of an outcome.
    fn tell(&mut self, index: LaneIndex, outcome: &Outcome, now: Instant) {
        let table = self.lanes.get(index).map_or("", |lane| lane.table);
        let sink = Arc::clone(&self.shipper.source.sink);
        let sink = &*sink;
        match outcome {
            Outcome::Stored => {
                self.answered(index, now);
                self.shipper.status.change(|seen| seen.last_error = None);
            }
            Outcome::Refused(error) => {
                self.answered(index, now);
                tracing::debug!(sink, table, error, "batch refused, looking for the row");
            }
            Outcome::SetAside(error) => {
                self.answered(index, now);
                tracing::warn!(sink, table, error, "row refused and set aside");
            }
            Outcome::GivenUp(error) => {
                self.answered(index, now);
                tracing::error!(sink, table, error, "quarantine row refused and given up");
            }
            // Neither says anything about the store.
            Outcome::Unkept(error) | Outcome::Unfit { message: error, .. } => {
                self.breaker.succeeded(now);
                self.gave_up |= self.deadline.is_some();
                self.failure(table, error);
            }
            Outcome::TooLarge(message) | Outcome::Failed { message, .. } => {
                self.breaker.failed(now);
                self.gave_up |= self.deadline.is_some();
                self.failure(table, message);
            }
        }
    }

    /// The store answered, whatever it said.
    fn answered(&mut self, index: LaneIndex, now: Instant) {
        self.breaker.succeeded(now);
        let flight = self.lanes.get_mut(index).and_then(|lane| lane.flight.as_mut());
        if let Some(flight) = flight {
            flight.failures = 0;
        }
    }

    /// Moves the cursor past a batch of which every part is settled.
    fn commit(&mut self, index: LaneIndex, now: Instant, latency: Duration) {
        let Some(lane) = self.lanes.get_mut(index) else { return };
        let settled = lane.flight.as_ref().is_some_and(|flight| flight.parts.next().is_none());
        if settled && let Some(flight) = lane.flight.take() {
            tracing::debug!(
                sink = &*self.shipper.source.sink,
                table = lane.table,
                last = flight.last.0,
                elapsed_ms = latency.as_millis(),
                "batch stored"
            );
            self.batcher.committed(index, now, latency, self.shipper.sink.rest());
        }
    }

    fn read(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.reading
                .spawn(self.shipper.source.clone().read(reader, self.shipper.bounds.read_bytes));
        }
    }

    fn take_in(&mut self, reader: Reader, chunk: io::Result<Chunk>) {
        let now = self.shipper.source.clock.monotonic();
        self.reader = Some(reader);
        match chunk {
            Ok(chunk) => {
                if chunk.read <= self.batcher.read() {
                    // Nothing to be read though something is durable: a journal without a segment.
                    self.read_at = now + PAUSE;
                }
                for (glance, location, bytes) in &chunk.events {
                    self.batcher.push(glance, *location, *bytes, now);
                }
                self.batcher.read_to(chunk.read);
            }
            Err(error) => {
                self.read_at = now + PAUSE;
                self.failure("reading the journal", &error.to_string());
            }
        }
    }

    fn failure(&self, doing: &str, error: &str) {
        let last_error = format!("{doing}: {error}");
        let mut changed = false;
        self.shipper.status.change(|seen| {
            changed = seen.last_error.as_deref() != Some(&last_error);
            seen.last_error = Some(last_error);
        });
        // An outage is one line, not one for each attempt.
        if changed {
            tracing::warn!(sink = self.name(), doing, error, "sink does not get on");
        }
    }

    /// Stop was told: every lane is due, and what waits to be tried again is tried at once.
    fn flush(&mut self, deadline: Instant) {
        self.deadline = Some(deadline);
        self.gave_up = !self.breaker.is_closed();
        for lane in &mut self.lanes {
            if let Some(flight) = &mut lane.flight
                && let Phase::Waiting(_) = flight.phase
            {
                flight.phase = Phase::Ready;
            }
        }
    }

    /// Whether stop may end the loop.
    fn is_done(&self, now: Instant) -> bool {
        let Some(deadline) = self.deadline else { return false };
        let flushed = self.flights().next().is_none()
            && self.batcher.waiting().is_empty()
            && self.batcher.read() >= self.shipper.source.journal.durable();
        now >= deadline || self.gave_up || self.sync.failed || flushed
    }

    fn flights(&self) -> impl Iterator<Item = &Flight> {
        self.lanes.iter().filter_map(|lane| lane.flight.as_ref())
    }

    /// When to look again if nothing happens.
    fn wake(&self, now: Instant) -> Instant {
        let waiting = self.flights().filter_map(|flight| match flight.phase {
            Phase::Waiting(until) => Some(until),
            Phase::Freezing | Phase::Ready | Phase::Writing(_) => None,
        });
        let sync = (self.sync.dirty || self.sync.failed).then_some(self.sync.at);
        let read = (self.read_at > now).then_some(self.read_at);
        // While no batch can be frozen, a due lane is no reason to look.
        let due = self.batcher.next_due(now).filter(|_| !self.sync.failed);
        let moments = [self.admits_at, sync, read, due, self.deadline].into_iter().flatten();
        // What is past waits for a write to end, and that wakes the loop itself.
        let ahead = moments.chain(waiting).filter(|at| *at > now);
        ahead.fold(now + IDLE_MAX, Instant::min)
    }

    /// Brings health and gauges up to date.
    fn report(&self) {
        let Source { sink, journal, metrics, .. } = &self.shipper.source;
        let labels = [&**sink];
        let retrying = self.flights().any(|flight| flight.failures > 0) || self.sync.failed;
        let state = match (self.breaker.is_closed(), retrying) {
            (false, _) => SinkState::Down,
            (true, true) => SinkState::Retrying,
            (true, false) => SinkState::Up,
        };
        let stored = self.batcher.low_water();
        let oldest = self.batcher.oldest();
        let lag = journal.durable().0.saturating_sub(stored.0);
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        metrics.sink_up.with_label_values(&labels).set(i64::from(state != SinkState::Down));
        metrics.sink_lag.with_label_values(&labels).set(gauge(lag));
        metrics.sink_queued_rows.with_label_values(&labels).set(gauge(self.batcher.rows() as u64));
        metrics
            .sink_queued_bytes
            .with_label_values(&labels)
            .set(gauge(self.batcher.bytes() as u64));
        self.shipper.status.change(|seen| {
            (seen.state, seen.stored, seen.oldest) = (state, stored, oldest);
        });
    }

    /// Leaves writes that did not end in time to be repeated, and notes what was stored.
    pub(super) async fn end(&mut self) {
        self.writes.abort_all();
        self.reading.abort_all();
        self.note();
        if self.sync.dirty {
            self.sync(self.shipper.source.clock.monotonic()).await;
        }
        self.report();
        self.shipper.source.metrics.sink_up.with_label_values(&[self.name()]).set(0);
    }
}

/// What a task gave. A panic in it is one in the shipper; tasks are cancelled only after the loop.
fn unless_panicked<T>(joined: Result<T, JoinError>) -> T {
    match joined {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => std::panic::resume_unwind(Box::new(error.to_string())),
        },
    }
}
