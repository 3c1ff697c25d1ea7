//! Lanes: what waits for one sink, one queue for each table, and which is due.
//!
//! Pure: it is told the time and does no I/O. Its state is what the cursor file is written from.
//!
//! For each table everything up to [`TableCursor::stored`] is in the store, `sending` is the frozen
//! range, and the rest waits. A table without a waiting row counts as stored up to where the journal
//! was read, so that an idle table never holds the journal; `stored` never moves back, whatever the
//! head is after a restart.
//!
//! A lane due by its limits gives all it has up to the bounds of one batch. After a restart a lane
//! with a frozen range gives exactly that range first, whatever the limits are now.
//!
//! A lane holds where its rows stand, not what they say: that is read when a batch is written. Memory
//! is bounded by [`Bounds`] over all lanes together: when [`Batcher::has_room`] is false the caller
//! stops reading the journal, where the backlog is safe.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

use super::adaptive::Adaptive;
use super::cursor::{Range, TableCursor};
use crate::backends::{Appetite, Batch, Entry, Records};
use crate::config::{Limits, Strategy, TableLimits};
use crate::event::Glance;
use crate::journal::{Location, Position};
use crate::tables::AnyTable;

/// A row waits no longer than this whatever its limits say: a lane that waits holds the journal.
pub(super) const AGE_MAX: Duration = Duration::from_secs(10 * 60);

/// Batches were too large for the store: so many full ones must be stored before they grow again.
const GROW_AFTER: u32 = 64;

/// How much may wait, and how much one batch may hold. A row that waits costs 64 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Rows in all lanes of a sink, what is being sent included.
    pub(super) rows: usize,
    /// Rows of one batch.
    pub(super) batch_rows: usize,
    /// Encoded bytes of one batch.
    pub(super) batch_bytes: usize,
    /// Encoded bytes read from the journal at once, by whose rows `rows` may be exceeded.
    pub(super) read_bytes: usize,
}

impl Bounds {
    /// What a sink of that appetite gets: a lane fills while its batch is on its way, and there is
    /// room for others. What is read at once takes a few milliseconds to look at.
    pub(super) fn of(appetite: Appetite) -> Self {
        let Appetite { rows: batch_rows, bytes: batch_bytes } = appetite;
        Self { rows: 3 * batch_rows, batch_rows, batch_bytes, read_bytes: 1 << 20 }
    }
}

/// Names a lane of one [`Batcher`].
pub(super) type LaneIndex = usize;

/// What a due lane gave.
#[derive(Debug)]
pub(super) enum Taken {
    /// Freeze and send this.
    Batch(Batch),
    /// The frozen range is no longer in the journal as it was frozen; whatever is left of it waits
    /// as ordinary rows.
    Missing(Range),
}

/// All lanes of one sink.
pub(super) struct Batcher {
    sink: Arc<str>,
    /// Where batches are read.
    records: Arc<dyn Records>,
    lanes: Vec<Lane>,
    read: Position,
    bounds: Bounds,
    /// Rows of one batch where the store takes as many.
    rows_most: usize,
    /// Full batches stored since the bound of their rows moved.
    full: u32,
}

struct Lane {
    table: &'static dyn AnyTable,
    limits: TableLimits,
    adaptive: Option<Adaptive>,
    waiting: VecDeque<Waiting>,
    rows_bytes: usize,
    stored: Position,
    state: State,
    /// Not due before, because the store wants a pause between batches of a table.
    rest_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Fills until it is due.
    Filling,
    /// After a restart: collects the frozen range, which is complete once the journal was read up
    /// to `until`.
    Restoring { range: Range, until: Position },
    /// A frozen batch is on its way, or waits to be tried again.
    Sending { range: Range, rows: usize, bytes: usize, oldest: DateTime<Utc> },
}

struct Waiting {
    entry: Entry,
    bytes: usize,
    since: Instant,
}

impl Batcher {
    /// Lanes of `sink` for `tables`, going on where their cursors stand. `head` is the last position of the
    /// journal now: no more of a frozen range than that can be found.
    pub(super) fn new(
        sink: Arc<str>,
        records: Arc<dyn Records>,
        tables: impl IntoIterator<Item = (&'static dyn AnyTable, TableLimits, TableCursor)>,
        head: Position,
        bounds: Bounds,
    ) -> Self {
        let lanes: Vec<Lane> = tables
            .into_iter()
            .map(|(table, limits, at)| Lane::new(table, limits, at, head))
            .collect();
        let read = lanes.iter().map(|lane| lane.stored).min().unwrap_or(head);
        Self { sink, records, lanes, read, bounds, rows_most: bounds.batch_rows, full: 0 }
    }

    /// The position up to which the journal was read.
    pub(super) fn read(&self) -> Position {
        self.read
    }

    pub(super) fn lanes(&self) -> std::ops::Range<LaneIndex> {
        0..self.lanes.len()
    }

    /// Puts an event, `bytes` long at `location`, into every lane that has a row for it and does
    /// not have it stored. Events come in order of position.
    pub(super) fn push(&mut self, glance: &Glance, location: Location, bytes: usize, now: Instant) {
        let (event, position) = (glance.event(), location.position);
        debug_assert!(position > self.read, "positions only grow");
        let entry = Entry { location, received_at: event.received_at };
        for lane in &mut self.lanes {
            let is_new = position > lane.stored;
            if is_new && lane.table.has_row(event) && event.is_for(&self.sink, lane.table.name()) {
                lane.waiting.push_back(Waiting { entry, bytes, since: now });
                lane.rows_bytes = lane.rows_bytes.saturating_add(bytes);
            }
        }
        self.read_to(position);
    }

    /// Everything up to `position` was read; what had no row, or could not be read, counts as
    /// stored.
    pub(super) fn read_to(&mut self, position: Position) {
        self.read = self.read.max(position);
        for lane in &mut self.lanes {
            lane.advance(self.read);
        }
    }

    /// Whether more of the journal may be read.
    pub(super) fn has_room(&self) -> bool {
        // A frozen range was held within the bound by the run that froze it, so it fits again.
        self.rows() < self.bounds.rows || self.lanes.iter().any(|lane| lane.restores(self.read))
    }

    /// Lanes that should send now, by priority. With no room left every lane with rows is due:
    /// limits that together exceed the bound must not wait for each other.
    pub(super) fn due(&self, now: Instant) -> Vec<LaneIndex> {
        self.by_priority(|lane| self.due_at(lane, now).is_some_and(|at| at <= now))
    }

    /// All lanes with rows that are not being sent, by priority, due or not: for stop.
    pub(super) fn waiting(&self) -> Vec<LaneIndex> {
        self.by_priority(|lane| lane.can_give(self.read))
    }

    /// When the next lane is to be sent if nothing else happens.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        self.lanes.iter().filter_map(|lane| self.due_at(lane, now)).min()
    }

    fn due_at(&self, lane: &Lane, now: Instant) -> Option<Instant> {
        lane.due_at(now, self.read, !self.has_room(), &self.bounds)
    }

    fn by_priority(&self, wanted: impl Fn(&Lane) -> bool) -> Vec<LaneIndex> {
        let lanes = self.lanes.iter().enumerate().filter(|(_, lane)| wanted(lane));
        let mut found: Vec<_> = lanes.map(|(index, lane)| (lane.limits.priority, index)).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, index)| index).collect()
    }

    /// Takes what `lane` gives as one batch; until [`Batcher::committed`] it gives nothing else.
    pub(super) fn take(&mut self, lane: LaneIndex) -> Option<Taken> {
        let (read, bounds) = (self.read, self.bounds);
        let lane = self.lanes.get_mut(lane).filter(|lane| lane.can_give(read))?;
        lane.take(read, &bounds, &self.records)
    }

    /// What `lane` will give when the batch on its way is stored, if that is settled already and it
    /// begins behind `after`.
    pub(super) fn next_full(&self, lane: LaneIndex, after: Position) -> Option<Batch> {
        let lane = self.lanes.get(lane)?;
        let is_next = matches!(lane.state, State::Sending { .. }) && lane.is_full(&self.bounds);
        if !is_next || lane.waiting.front()?.entry.position() <= after {
            return None;
        }
        let entries: Vec<Entry> =
            lane.waiting.iter().take(lane.batch_rows(&self.bounds)).map(|row| row.entry).collect();
        Batch::new(lane.table, &entries, Arc::clone(&self.records))
    }

    /// A batch was too large: the next ones have `rows` at most, until many of them were stored.
    pub(super) fn shrink(&mut self, rows: usize) {
        self.bounds.batch_rows = self.bounds.batch_rows.min(rows.max(1));
        self.full = 0;
    }

    fn grow(&mut self) {
        self.full += 1;
        if self.full >= GROW_AFTER && self.bounds.batch_rows < self.rows_most {
            self.bounds.batch_rows = self.bounds.batch_rows.saturating_mul(2).min(self.rows_most);
            self.full = 0;
        }
    }

    /// The batch of `lane` is stored. The next one is not due before `rest` is over, unless it is
    /// large; `latency` teaches an adaptive lane.
    pub(super) fn committed(
        &mut self,
        lane: LaneIndex,
        now: Instant,
        latency: Duration,
        rest: Duration,
    ) {
        let read = self.read;
        let Some(lane) = self.lanes.get_mut(lane) else { return };
        let State::Sending { range, rows, .. } = lane.state else { return };
        lane.state = State::Filling;
        lane.stored = lane.stored.max(range.last);
        lane.advance(read);
        lane.rest_until = (!rest.is_zero()).then(|| now + rest);
        if let Some(adaptive) = &mut lane.adaptive {
            adaptive.observe(lane.waiting.len(), latency);
            lane.limits.limits = adaptive.limits();
        }
        if rows == self.bounds.batch_rows {
            self.grow();
        }
    }

    /// What the cursor file should say of `lane`.
    pub(super) fn cursor(&self, lane: LaneIndex) -> TableCursor {
        self.lanes.get(lane).map_or_else(TableCursor::default, Lane::cursor)
    }

    /// Everything up to here is in the store, whatever its table.
    pub(super) fn low_water(&self) -> Position {
        self.lanes.iter().map(|lane| lane.stored).min().unwrap_or(self.read)
    }

    /// When the oldest row that is not stored was received.
    pub(super) fn oldest(&self) -> Option<DateTime<Utc>> {
        self.lanes.iter().filter_map(Lane::oldest).min()
    }

    /// Rows in lanes, what is being sent included.
    pub(super) fn rows(&self) -> usize {
        self.lanes.iter().map(|lane| lane.waiting.len() + lane.sending().0).sum()
    }

    /// Encoded bytes in lanes, what is being sent included.
    pub(super) fn bytes(&self) -> usize {
        self.lanes.iter().map(|lane| lane.rows_bytes + lane.sending().1).sum()
    }
}

impl Lane {
    fn new(
        table: &'static dyn AnyTable,
        mut limits: TableLimits,
        at: TableCursor,
        head: Position,
    ) -> Self {
        let adaptive =
            (limits.strategy == Strategy::Adaptive).then(|| Adaptive::new(limits.limits));
        limits.limits.rows = limits.limits.rows.max(1);
        let state = at.sending.map_or(State::Filling, |range| State::Restoring {
            range,
            until: range.last.min(head),
        });
        Self {
            table,
            limits,
            adaptive,
            waiting: VecDeque::new(),
            rows_bytes: 0,
            stored: at.stored,
            state,
            rest_until: None,
        }
    }

    /// Rows and bytes on their way.
    fn sending(&self) -> (usize, usize) {
        match self.state {
            State::Sending { rows, bytes, .. } => (rows, bytes),
            State::Filling | State::Restoring { .. } => (0, 0),
        }
    }

    fn oldest(&self) -> Option<DateTime<Utc>> {
        match self.state {
            State::Sending { oldest, .. } => Some(oldest),
            State::Filling | State::Restoring { .. } => {
                self.waiting.front().map(|row| row.entry.received_at)
            }
        }
    }

    /// Moves `stored` up to just before the first row that is not stored, never back.
    fn advance(&mut self, read: Position) {
        let first = match self.state {
            State::Sending { range, .. } | State::Restoring { range, .. } => Some(range.first),
            State::Filling => self.waiting.front().map(|row| row.entry.position()),
        };
        let stored = first.map_or(read, |first| Position(first.0.saturating_sub(1)));
        self.stored = self.stored.max(stored);
    }

    fn cursor(&self) -> TableCursor {
        let sending = match self.state {
            State::Sending { range, .. } | State::Restoring { range, .. } => Some(range),
            State::Filling => None,
        };
        TableCursor { stored: self.stored, sending }
    }

    /// Whether a frozen range is still being collected.
    fn restores(&self, read: Position) -> bool {
        matches!(self.state, State::Restoring { until, .. } if read < until)
    }

    fn can_give(&self, read: Position) -> bool {
        match self.state {
            State::Filling => !self.waiting.is_empty(),
            State::Restoring { until, .. } => read >= until,
            State::Sending { .. } => false,
        }
    }

    /// When it is to be sent if nothing else happens; not after `now` when that is already so.
    fn due_at(&self, now: Instant, read: Position, full: bool, bounds: &Bounds) -> Option<Instant> {
        if !self.can_give(read) {
            return None;
        }
        let Limits { rows, bytes, age } = self.limits.limits;
        let reached = full
            || matches!(self.state, State::Restoring { .. })
            || self.waiting.len() >= rows
            || self.rows_bytes >= bytes
            || self.is_full(bounds);
        let at = if reached { now } else { self.waiting.front()?.since + age.min(AGE_MAX) };
        // A full batch is worth its cost at any time: a backlog drains.
        let rest = self.rest_until.filter(|_| !self.is_full(bounds));
        Some(rest.map_or(at, |rest| rest.max(at)))
    }

    /// Whether what waits fills a batch.
    fn is_full(&self, bounds: &Bounds) -> bool {
        self.waiting.len() >= bounds.batch_rows || self.rows_bytes >= bounds.batch_bytes
    }

    fn take(
        &mut self,
        read: Position,
        bounds: &Bounds,
        records: &Arc<dyn Records>,
    ) -> Option<Taken> {
        let count = match self.state {
            State::Sending { .. } => return None,
            State::Filling => self.batch_rows(bounds),
            State::Restoring { range, .. } => {
                let within = |row: &Waiting| row.entry.position() <= range.last;
                self.waiting.iter().take_while(|row| within(row)).count()
            }
        };
        let found = self.range(count);
        if let State::Restoring { range, .. } = self.state
            && found != Some(range)
        {
            self.state = State::Filling;
            self.advance(read);
            return Some(Taken::Missing(range));
        }
        let (range, oldest) = (found?, self.oldest()?);
        let taken: Vec<Waiting> = self.waiting.drain(..count).collect();
        let bytes = taken.iter().map(|row| row.bytes).sum();
        self.rows_bytes = self.rows_bytes.saturating_sub(bytes);
        self.state = State::Sending { range, rows: count, bytes, oldest };
        let entries: Vec<Entry> = taken.into_iter().map(|row| row.entry).collect();
        Batch::new(self.table, &entries, Arc::clone(records)).map(Taken::Batch)
    }

    /// How many waiting rows fit into one batch: at least one.
    fn batch_rows(&self, bounds: &Bounds) -> usize {
        let mut bytes = 0usize;
        let fits = |row: &&Waiting| {
            bytes = bytes.saturating_add(row.bytes);
            bytes <= bounds.batch_bytes
        };
        self.waiting.iter().take(bounds.batch_rows).take_while(fits).count().max(1)
    }

    /// Positions of the first and the last of the first `count` waiting rows.
    fn range(&self, count: usize) -> Option<Range> {
        let first = self.waiting.front()?.entry.position();
        let last = self.waiting.get(count.checked_sub(1)?)?.entry.position();
        Some(Range { first, last })
    }
}
