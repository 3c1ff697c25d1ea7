//! Reads durable records in order, while segments are written, sealed and recycled around it.
//!
//! A reader never goes beyond what is durable, and holds one chunk in memory. When the segment it
//! stands in is recycled under it, the bytes it then reads carry another epoch and are not taken
//! for frames; it sees in the table that the segment is gone, and goes on with the oldest there is.

use std::io;
use std::sync::Arc;

use super::frame::{Found, Scanner, Stamp};
use super::segment::{FIRST_FRAME, Segment};
use super::shared::{Shared, locked};
use super::table::Table;
use super::{Location, Position, Record};

/// Reads durable records in order.
pub struct Reader {
    shared: Arc<Shared>,
    position: Position,
    scanner: Option<Scanner>,
}

/// What to do before the next frame can be read.
enum Next {
    /// All that is durable was read.
    Nothing,
    /// The open segment has more.
    Here,
    /// This segment comes next.
    Open { name: String, epoch: u64, base: Position, end: u64 },
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, position: Position) -> Self {
        Self { shared, position, scanner: None }
    }

    /// Position of the last record read or skipped.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Up to about `bytes_max` bytes of records after the last one read (at least one record when
    /// there is one); empty at the head. Damaged records are skipped and counted, recycled ones
    /// are skipped. Blocking: call it off the async workers. The first call looks for its place and
    /// may read a whole segment.
    ///
    /// # Errors
    /// When the disk cannot be read; the next call tries again at the same place.
    pub fn read(&mut self, bytes_max: usize) -> io::Result<Vec<Record>> {
        let mut records = Vec::new();
        let mut bytes = 0;
        while bytes < bytes_max || records.is_empty() {
            match self.next() {
                Next::Nothing => break,
                Next::Here => self.scan(bytes_max, &mut bytes, &mut records)?,
                Next::Open { name, epoch, base, end } => self.open(&name, epoch, base, end)?,
            }
        }
        Ok(records)
    }

    fn next(&mut self) -> Next {
        let shared = Arc::clone(&self.shared);
        let mut table = locked(&shared.table);
        if self.position >= table.durable {
            return Next::Nothing;
        }
        let Some(scanner) = &mut self.scanner else { return self.locate(&table) };
        let epoch = scanner.epoch();
        let Some(segment) = table.segment_mut(epoch) else { return self.locate(&table) };
        scanner.extend(segment.end);
        if scanner.offset() < segment.end {
            return Next::Here;
        }
        let (end, is_exact) = (segment.end, segment.end_is_exact);
        let Some(after) = table.after(epoch) else {
            // Between the last record and the durable position there is nothing: the journal went
            // on above a cursor when it was opened.
            self.position = table.durable;
            return Next::Nothing;
        };
        // Where the end was exact, what is missing has been counted while scanning.
        let is_lost = !is_exact && after.after > self.position;
        let base = after.base;
        let next = open(after);
        if is_lost {
            count_damage(&shared, &mut table, epoch, end);
        }
        self.position = self.position.max(Position(base.0 - 1));
        next
    }

    /// The segment where the next position is, or the oldest.
    fn locate(&mut self, table: &Table) -> Next {
        self.scanner = None;
        let Some(segment) = table.locate(self.position) else {
            // A journal without a segment, above a cursor: there is nothing in between.
            self.position = table.durable;
            return Next::Nothing;
        };
        open(segment)
    }

    fn open(&mut self, name: &str, epoch: u64, base: Position, end: u64) -> io::Result<()> {
        match scanner(&self.shared, name, epoch, end, Position(base.0.saturating_sub(1))) {
            Ok(scanner) => {
                self.scanner = Some(scanner);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.skip_missing(epoch, error)
            }
            Err(error) => Err(error),
        }
    }

    /// The file is not there. If it was recycled, the table knows by now; otherwise somebody took
    /// it away, and what was in it is lost.
    fn skip_missing(&mut self, epoch: u64, error: io::Error) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let mut table = locked(&shared.table);
        self.scanner = None;
        if table.segment_mut(epoch).is_none() {
            return Ok(());
        }
        let Some(base) = table.after(epoch).map(|after| after.base) else { return Err(error) };
        count_damage(&shared, &mut table, epoch, 0);
        self.position = self.position.max(Position(base.0 - 1));
        Ok(())
    }

    /// Reads frames until there is enough, or the segment has no more for now.
    fn scan(
        &mut self,
        bytes_max: usize,
        bytes: &mut usize,
        records: &mut Vec<Record>,
    ) -> io::Result<()> {
        let Some(scanner) = &mut self.scanner else { return Ok(()) };
        while *bytes < bytes_max || records.is_empty() {
            match scanner.next()? {
                Found::Frame { offset, position, payload } => {
                    if position > self.position {
                        *bytes += payload.len();
                        let bytes = payload.to_vec();
                        let location = Location { position, epoch: scanner.epoch(), offset };
                        records.push(Record { location, bytes });
                        self.position = position;
                    }
                }
                Found::Damage { from } => {
                    let epoch = scanner.epoch();
                    count_damage(&self.shared, &mut locked(&self.shared.table), epoch, from);
                }
                Found::Rest { from } => {
                    let skipped_bytes = scanner.skip_rest();
                    if skipped_bytes > 0 {
                        count_unreadable_end(&self.shared, scanner.epoch(), from);
                    }
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Opens the file `name` to scan the frames of `epoch` above position `after`, up to `end`.
pub(super) fn scanner(
    shared: &Shared,
    name: &str,
    epoch: u64,
    end: u64,
    after: Position,
) -> io::Result<Scanner> {
    let file = shared.fs.open(&shared.folder.join(name))?;
    let stamp = Stamp { key: shared.identity.key(), epoch };
    Ok(Scanner::new(file, stamp, FIRST_FRAME, end, after))
}

fn open(segment: &Segment) -> Next {
    let Segment { name, epoch, base, end, .. } = segment;
    Next::Open { name: name.clone(), epoch: *epoch, base: *base, end: *end }
}

/// Counts what is damaged at `offset` of a segment, once for all readers; not when the segment was
/// recycled meanwhile, for then nothing is damaged.
pub(super) fn count_damage(shared: &Shared, table: &mut Table, epoch: u64, offset: u64) {
    let Some(segment) = table.segment_mut(epoch) else { return };
    if offset < segment.counted_to {
        return;
    }
    segment.counted_to = offset + 1;
    shared.metrics.journal_corrupt_frames.inc();
    tracing::warn!(name = segment.name, offset, "skipped damaged bytes of the journal");
}

/// No intact frame stands between `from` and where the segment ended when it was looked at. Where
/// that end is known to be behind a frame, something is lost; elsewhere the next segment's header
/// tells.
fn count_unreadable_end(shared: &Shared, epoch: u64, from: u64) {
    let mut table = locked(&shared.table);
    if table.segment_mut(epoch).is_some_and(|segment| segment.end_is_exact) {
        count_damage(shared, &mut table, epoch, from);
    }
}
