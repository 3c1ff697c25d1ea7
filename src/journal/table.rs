//! What the journal knows of its files while it runs: one list, behind one lock, held for
//! microseconds and never during file operations.

use std::collections::VecDeque;

use super::Position;
use super::segment::{Segment, Spare};
use super::writer::Loss;

/// What the keeper is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// To look when it is time.
    Nothing,
    /// To look at once.
    Look,
    /// To end.
    Stop,
}

/// The list, and what the threads tell each other with it.
pub(super) struct Table {
    /// Segments with data by epoch, which is also by position. The last one may be written.
    pub(super) segments: VecDeque<Segment>,
    /// Files that are ready to be the next segment.
    pub(super) spares: VecDeque<Spare>,
    /// Length of the spare that the writer has taken and is about to make a segment.
    pub(super) taken_bytes: u64,
    /// True while the last of `segments` is being written.
    pub(super) is_writing: bool,
    /// Highest epoch ever used.
    pub(super) epoch: u64,
    /// Number in the name of the next file.
    pub(super) name_next: u64,
    /// Everything up to here may be read.
    pub(super) durable: Position,
    /// Last durable record; `durable` is above it when the journal goes on above a cursor.
    pub(super) tail: Position,
    /// Everything up to here is no longer needed.
    pub(super) forgotten: Position,
    /// The writer waits for a spare of at least this many bytes.
    pub(super) wanted: Option<u64>,
    /// Why the writer's wish cannot be granted.
    pub(super) refused: Option<Loss>,
    /// What the keeper is told.
    pub(super) keeper: Told,
    /// No more wishes are granted.
    pub(super) is_dead: bool,
}

impl Table {
    /// Nothing yet.
    pub(super) fn new() -> Self {
        Self {
            segments: VecDeque::new(),
            spares: VecDeque::new(),
            taken_bytes: 0,
            is_writing: false,
            epoch: 0,
            name_next: 1,
            durable: Position(0),
            tail: Position(0),
            forgotten: Position(0),
            wanted: None,
            refused: None,
            keeper: Told::Nothing,
            is_dead: false,
        }
    }

    /// The keeper shall look at once; whoever calls this notifies it.
    pub(super) fn wake_keeper(&mut self) {
        if self.keeper == Told::Nothing {
            self.keeper = Told::Look;
        }
    }

    /// Bytes of all files.
    pub(super) fn disk_bytes(&self) -> u64 {
        let spares: u64 = self.spares.iter().map(|spare| spare.bytes).sum();
        spares + self.taken_bytes + self.segments.iter().map(|segment| segment.bytes).sum::<u64>()
    }

    /// Bytes that data has: whole files, but of the one being written only the front.
    pub(super) fn used_bytes(&self) -> u64 {
        let files: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
        files - self.room_bytes()
    }

    /// Bytes left in the segment being written.
    pub(super) fn room_bytes(&self) -> u64 {
        let written = self.segments.back().filter(|_| self.is_writing);
        written.map_or(0, |segment| segment.bytes.saturating_sub(segment.end))
    }

    /// Position of the oldest record, or the one after `durable`.
    pub(super) fn first(&self) -> Position {
        let next = Position(self.durable.0 + 1);
        self.segments.front().map_or(next, |segment| segment.base.min(next))
    }

    /// The use of a segment with this epoch, if it has not ended.
    pub(super) fn segment_mut(&mut self, epoch: u64) -> Option<&mut Segment> {
        let at = self.segments.binary_search_by_key(&epoch, |segment| segment.epoch).ok()?;
        self.segments.get_mut(at)
    }

    /// The segment after the one with this epoch.
    pub(super) fn after(&self, epoch: u64) -> Option<&Segment> {
        self.segments.get(self.segments.partition_point(|segment| segment.epoch <= epoch))
    }

    /// The segment to read for what stands behind `position`.
    pub(super) fn locate(&self, position: Position) -> Option<&Segment> {
        let at = self.segments.partition_point(|segment| segment.base.0 <= position.0 + 1);
        self.segments.get(at.saturating_sub(1))
    }

    /// Takes a spare of at least `bytes`, to be pushed to `segments` soon.
    pub(super) fn take_spare(&mut self, bytes: u64) -> Option<Spare> {
        let place = self.spares.iter().position(|spare| spare.bytes >= bytes)?;
        let spare = self.spares.remove(place)?;
        self.taken_bytes = spare.bytes;
        Some(spare)
    }

    /// The segment being written is written no more; it ends at `end`, and its file at `bytes`.
    pub(super) fn seal(&mut self, end: u64, bytes: u64) {
        self.is_writing = false;
        if let Some(segment) = self.segments.back_mut() {
            segment.end = end;
            segment.bytes = bytes;
        }
    }

    /// Takes the oldest segment out if nothing in it is needed, given how old it is allowed to be.
    pub(super) fn release(&mut self, rule: &Release) -> Option<Segment> {
        let (front, next) = (self.segments.front()?, self.segments.get(1)?);
        let is_empty = front.end_is_exact && front.end <= super::segment::FIRST_FRAME;
        if is_empty {
            return self.segments.pop_front();
        }
        if next.after > self.forgotten {
            return None;
        }
        let is_old = next.created_ms <= rule.created_before_ms;
        let is_much = self.forgotten_bytes() > rule.bytes_max;
        let is_tight = rule.is_volume_short || self.disk_bytes() > rule.disk_bytes_max;
        if is_old || is_much || is_tight { self.segments.pop_front() } else { None }
    }

    /// Bytes of the segments of which nothing is needed.
    fn forgotten_bytes(&self) -> u64 {
        let pairs = self.segments.iter().zip(self.segments.iter().skip(1));
        pairs
            .take_while(|(_, next)| next.after <= self.forgotten)
            .map(|(segment, _)| segment.bytes)
            .sum()
    }
}

/// How long what nobody needs is kept.
pub(super) struct Release {
    /// Sealed before this time: no longer.
    pub(super) created_before_ms: i64,
    /// No more than this.
    pub(super) bytes_max: u64,
    /// Not when all files have more than this.
    pub(super) disk_bytes_max: u64,
    /// Not when the volume is nearly full.
    pub(super) is_volume_short: bool,
}
