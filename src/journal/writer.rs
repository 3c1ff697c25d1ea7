//! The writer thread: takes all that waits, writes it at once, syncs once, tells everybody.
//!
//! There is no timer. While one commit is on its way to the disk the next gathers, so the disk's
//! own latency decides how large a commit is: alone, a record is committed at once; in a crowd,
//! hundreds share a sync.
//!
//! Any error is final for the segment: after a failed sync the kernel may have dropped what it
//! could not write, so a second sync that succeeds would prove nothing. The segment is sealed at
//! the last known good byte and a fresh one is begun; if that fails too before anything was
//! committed to it, the journal is dead. No room is not such a failure, it passes.

use std::collections::VecDeque;
use std::sync::{Arc, PoisonError};

use super::frame::{self, FRAME_HEADER_BYTES, Stamp};
use super::fs::File;
use super::segment::{FIRST_FRAME, Header, Segment, Spare};
use super::shared::{COMMIT_BYTES_MAX, Gate, Shared, Waiting, locked};
use super::{AppendError, Position};
use crate::config::Durability;

/// Consecutive failures after which the disk is given up: one, and one on a fresh segment.
const FAILURES_MAX: u32 = 2;

/// Why an accepted record was not made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// No room.
    Full,
    /// The disk.
    Failed,
}

impl From<Loss> for AppendError {
    fn from(loss: Loss) -> Self {
        match loss {
            Loss::Full => Self::Full,
            Loss::Failed => Self::Failed,
        }
    }
}

/// The segment being written.
struct Active {
    file: Arc<dyn File>,
    stamp: Stamp,
    /// Where the next frame goes.
    offset: u64,
    /// Length of the file.
    bytes: u64,
}

/// What one write holds.
struct Piece {
    last: Position,
    records: usize,
    bytes: usize,
}

/// The thread's state.
pub(super) struct Writer {
    shared: Arc<Shared>,
    active: Option<Active>,
    /// Frames of one write.
    buffer: Vec<u8>,
    failures: u32,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, active: None, buffer: Vec::new(), failures: 0 }
    }

    /// Works until the journal is closed or dead.
    pub(super) fn run(&mut self) {
        let _watch = self.shared.watch_thread();
        let mut batch = VecDeque::new();
        while self.shared.take(&mut batch) {
            while let Some(first) = batch.front() {
                let bytes = frame_bytes(first);
                match self.make_room(bytes, first.position) {
                    Ok(()) => self.commit_some(&mut batch),
                    Err(loss) => self.lose(batch.drain(..), loss),
                }
            }
        }
        self.finish();
    }

    /// Writes as many of `batch` as fit into the segment.
    fn commit_some(&mut self, batch: &mut VecDeque<Waiting>) {
        let Some(active) = &self.active else { return };
        let room = active.bytes - active.offset;
        self.buffer.clear();
        // After a commit of a few very large records the memory goes back.
        self.buffer.shrink_to(2 * COMMIT_BYTES_MAX);
        let mut piece = Piece { last: Position(0), records: 0, bytes: 0 };
        for waiting in batch.iter() {
            if self.buffer.len() as u64 + frame_bytes(waiting) > room {
                break;
            }
            frame::encode(&mut self.buffer, active.stamp, waiting.position, &waiting.record);
            piece.last = waiting.position;
            piece.records += 1;
            piece.bytes += waiting.record.len();
        }
        debug_assert!(piece.records > 0, "there was no room for the first record");
        match self.write() {
            Ok(()) => self.publish(&piece, batch.drain(..piece.records)),
            Err(loss) => {
                self.lose(batch.drain(..piece.records), loss);
                self.fail_segment(Position(piece.last.0 + 1), loss);
            }
        }
    }

    /// Puts the buffer on the disk.
    fn write(&mut self) -> Result<(), Loss> {
        let Some(active) = &mut self.active else { return Err(Loss::Failed) };
        let shared = &self.shared;
        let began = shared.clock.monotonic();
        let mut done = active.file.write_all_at(&self.buffer, active.offset);
        if done.is_ok() && shared.durability == Durability::Disk {
            done = active.file.sync_data();
        }
        done.map_err(|error| shared.note_error("cannot write a segment", &error))?;
        active.offset += self.buffer.len() as u64;
        let took = shared.clock.monotonic().saturating_duration_since(began);
        shared.metrics.journal_commit_seconds.observe(took.as_secs_f64());
        shared.metrics.journal_commits.inc();
        Ok(())
    }

    /// The piece is as durable as configured: readers first, then the callers.
    fn publish(&mut self, piece: &Piece, written: impl Iterator<Item = Waiting>) {
        let Some(active) = &self.active else { return };
        self.failures = 0;
        let shared = &self.shared;
        let mut table = locked(&shared.table);
        if let Some(segment) = table.segments.back_mut() {
            segment.end = active.offset;
        }
        (table.tail, table.durable) = (piece.last, piece.last);
        drop(table);
        shared.durable.send_replace(piece.last);
        shared.metrics.journal_records.inc_by(piece.records as u64);
        shared.metrics.journal_bytes.inc_by(piece.bytes as u64);
        for waiting in written {
            shared.settle(waiting, Ok(()));
        }
    }

    fn lose(&self, waiting: impl Iterator<Item = Waiting>, loss: Loss) {
        for waiting in waiting {
            self.shared.settle(waiting, Err(loss));
        }
    }

    /// Seals the segment after an error, and proves at once that a fresh one works; until then
    /// `next` is not written.
    fn fail_segment(&mut self, next: Position, loss: Loss) {
        let Some(active) = self.active.take() else { return };
        // What a failed write left behind the last good byte was never acknowledged. If cutting it
        // off fails too, a reader after the next start may find some of it; that is allowed.
        let is_cut = active.file.set_len(active.offset).is_ok();
        let bytes = if is_cut { active.offset } else { active.bytes };
        locked(&self.shared.table).seal(active.offset, bytes);
        self.shared.wake_keeper();
        if loss == Loss::Full {
            self.shared.set_gate(Gate::Full);
            return;
        }
        if !self.count_failure() {
            // A failure here is counted and told by the next append that meets it.
            let _ = self.make_room(FRAME_HEADER_BYTES as u64, next);
        }
    }

    /// True when that was one failure too many.
    fn count_failure(&mut self) -> bool {
        self.failures += 1;
        let is_dead = self.failures >= FAILURES_MAX;
        if is_dead {
            self.shared.die();
        }
        is_dead
    }

    /// Sees to it that a frame of `bytes` fits into the segment; if a new one is begun, its first
    /// position is `next`.
    fn make_room(&mut self, bytes: u64, next: Position) -> Result<(), Loss> {
        loop {
            if let Some(active) = &self.active {
                if active.bytes - active.offset >= bytes {
                    return Ok(());
                }
                // The next header says that everything before it is durable, whatever `durability`
                // says.
                if self.shared.durability != Durability::Disk
                    && let Err(error) = active.file.sync_data()
                {
                    let loss = self.shared.note_error("cannot sync a segment", &error);
                    self.fail_segment(next, loss);
                    continue;
                }
            }
            let spare = self.wait_for_spare(FIRST_FRAME + bytes)?;
            match self.begin(spare, next) {
                Ok(()) => return Ok(()),
                Err(Loss::Full) => {
                    self.shared.set_gate(Gate::Full);
                    return Err(Loss::Full);
                }
                Err(Loss::Failed) if self.count_failure() => return Err(Loss::Failed),
                Err(Loss::Failed) => {}
            }
        }
    }

    /// Takes a spare of at least `bytes`; the keeper makes one at once if there is none.
    fn wait_for_spare(&mut self, bytes: u64) -> Result<Spare, Loss> {
        let shared = Arc::clone(&self.shared);
        let mut table = locked(&shared.table);
        table.refused = None;
        let loss = loop {
            if let Some(spare) = table.take_spare(bytes) {
                table.wanted = None;
                table.wake_keeper();
                shared.work.notify_one();
                return Ok(spare);
            }
            if table.is_dead {
                break Loss::Failed;
            }
            if let Some(loss) = table.refused.take() {
                break loss;
            }
            table.wanted = Some(bytes);
            shared.work.notify_one();
            table = shared.spare_ready.wait(table).unwrap_or_else(PoisonError::into_inner);
        };
        table.wanted = None;
        drop(table);
        match loss {
            Loss::Full => shared.set_gate(Gate::Full),
            Loss::Failed => {
                self.count_failure();
            }
        }
        Err(loss)
    }

    /// Begins the first segment of this process.
    pub(super) fn begin_first(&mut self) -> Result<(), Loss> {
        let mut table = locked(&self.shared.table);
        let next = Position(table.durable.0 + 1);
        let spare = table.take_spare(0).ok_or(Loss::Full)?;
        drop(table);
        self.begin(spare, next)
    }

    /// Begins a segment in `spare`, with `next` as its first position. The segment written before
    /// is sealed; it is durable to its end.
    fn begin(&mut self, spare: Spare, next: Position) -> Result<(), Loss> {
        let shared = &self.shared;
        let (epoch, after) = {
            let mut table = locked(&shared.table);
            table.epoch += 1;
            (table.epoch, table.tail)
        };
        let header = Header {
            identity: shared.identity,
            epoch,
            base: next,
            after,
            created_ms: shared.clock.wall().timestamp_millis(),
            was_blank: spare.is_blank,
        };
        if let Err(error) = header.write(&*spare.file) {
            // The file is left as it is and looked at by the next start.
            locked(&shared.table).taken_bytes = 0;
            return Err(shared.note_error("cannot begin a segment", &error));
        }
        let mut table = locked(&shared.table);
        if let Some(active) = self.active.take() {
            table.seal(active.offset, active.bytes);
        }
        table.taken_bytes = 0;
        table.segments.push_back(Segment {
            name: spare.name,
            epoch,
            base: next,
            after,
            created_ms: header.created_ms,
            end: FIRST_FRAME,
            end_is_exact: true,
            bytes: spare.bytes,
            counted_to: 0,
        });
        table.is_writing = true;
        drop(table);
        let stamp = Stamp { key: shared.identity.key(), epoch };
        self.active =
            Some(Active { file: spare.file, stamp, offset: FIRST_FRAME, bytes: spare.bytes });
        Ok(())
    }

    /// The end: everything is durable, and the file as long as what is in it, so that the next
    /// start has nothing to look for behind it.
    fn finish(&mut self) {
        let Some(active) = self.active.take() else { return };
        if active.offset == FIRST_FRAME {
            // Nothing is in it; the next start uses it again.
            return;
        }
        let cut = active.file.set_len(active.offset);
        if let Err(error) = cut.and_then(|()| active.file.sync_data()) {
            self.shared.note_error("cannot close a segment", &error);
            return;
        }
        locked(&self.shared.table).seal(active.offset, active.offset);
    }
}

/// Bytes a record takes in a segment.
fn frame_bytes(waiting: &Waiting) -> u64 {
    (FRAME_HEADER_BYTES + waiting.record.len()) as u64
}
