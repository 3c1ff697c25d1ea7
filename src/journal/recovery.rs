//! Opening after anything: what stands in the folder becomes a table, or is set aside.
//!
//! - Only headers are read, and the newest segment to its end; the others are checked when they are
//!   read. Damage is counted and logged and never keeps the journal from starting.
//! - Behind the last intact frame of the newest segment is a torn tail, or nothing. It is cut off
//!   and the segment is never written again: frames that were on their way in any order could
//!   otherwise come to stand behind new ones of the same epoch.
//! - What was read is synced before anyone is told of it: after a kill it may still be in memory
//!   only, and a power cut would take back what a sink has already been given.
//! - A header can be lost. The first frame behind it tells the epoch, and the checksum that it is
//!   of this journal; so nothing else is lost with it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::frame::{self, Found, Scanner, Stamp};
use super::fs::{Entry, File, Fs, read_full};
use super::segment::{
    EPOCH_MAX, FIRST_FRAME, HEADER_BYTES, Header, Identity, Parsed, SUFFIX, SUFFIX_DAMAGED,
    SUFFIX_NEW, Segment, Spare,
};
use super::table::Table;
use super::{POSITION_MAX, Position};

/// Shortest file that is worth a segment: the smallest that the settings allow.
const SPARE_BYTES_MIN: u64 = 2 * FIRST_FRAME;

/// What stood in the folder.
pub(super) struct Recovery<'a> {
    fs: &'a dyn Fs,
    folder: &'a Path,
    pub(super) identity: Identity,
    pub(super) table: Table,
    /// Last position that was given.
    pub(super) tail: Position,
    pub(super) torn_bytes: u64,
    pub(super) corrupt_frames: u64,
}

/// A file that calls itself a segment.
struct Candidate {
    name: String,
    bytes: u64,
    file: Arc<dyn File>,
    parsed: Parsed,
}

/// Reads the folder.
///
/// # Errors
/// When it cannot be listed, or what was read cannot be made durable.
pub(super) fn recover<'a>(fs: &'a dyn Fs, folder: &'a Path) -> io::Result<Recovery<'a>> {
    let stored = Identity::read(fs, folder)?;
    let mut table = Table::new();
    let mut candidates = Vec::new();
    for entry in fs.list(folder)? {
        table.name_next = table.name_next.max(number_of(&entry.name) + 1);
        if entry.name.ends_with(SUFFIX_NEW) {
            fs.remove(&folder.join(&entry.name))?;
        } else if entry.name.ends_with(SUFFIX) {
            candidates.push(candidate(fs, folder, entry)?);
        }
    }
    let identity = stored.or_else(|| identity_of(&candidates)).unwrap_or_else(Identity::random);
    if stored != Some(identity)
        && let Err(error) = identity.write(fs, folder)
    {
        // Every segment repeats it; a full disk must not keep the journal from starting.
        if !super::fs::is_no_space(&error) {
            return Err(error);
        }
        tracing::warn!(%error, "cannot store the journal's identity");
    }
    let tail = Position(0);
    let mut recovery =
        Recovery { fs, folder, identity, table, tail, torn_bytes: 0, corrupt_frames: 0 };
    recovery.sort(candidates);
    recovery.read_newest()?;
    Ok(recovery)
}

fn candidate(fs: &dyn Fs, folder: &Path, entry: Entry) -> io::Result<Candidate> {
    let Entry { name, bytes } = entry;
    let file = fs.open(&folder.join(&name))?;
    let mut front = vec![0; HEADER_BYTES];
    let parsed = match read_full(&*file, &mut front, 0) {
        Ok(filled) => Header::parse(front.get(..filled).unwrap_or_default()),
        Err(error) => {
            tracing::warn!(name, %error, "cannot read a segment's header");
            Parsed::Damaged
        }
    };
    Ok(Candidate { name, bytes, file, parsed })
}

/// The identity that the newest segment repeats.
fn identity_of(candidates: &[Candidate]) -> Option<Identity> {
    let headers = candidates.iter().filter_map(|candidate| match candidate.parsed {
        Parsed::Header(header) => Some(header),
        Parsed::Unknown(_) | Parsed::Damaged => None,
    });
    headers.max_by_key(|header| header.epoch).map(|header| header.identity)
}

/// The number a name begins with.
fn number_of(name: &str) -> u64 {
    let digits = name.split('.').next().unwrap_or_default();
    digits.parse().ok().filter(|number| *number < u64::MAX).unwrap_or(0)
}

impl Recovery<'_> {
    /// Puts each file where it belongs.
    fn sort(&mut self, candidates: Vec<Candidate>) {
        let mut segments = Vec::new();
        for candidate in candidates {
            match candidate.parsed {
                Parsed::Header(header) if header.identity != self.identity => {
                    self.corrupt_frames += 1;
                    tracing::warn!(name = candidate.name, "a segment of another journal");
                }
                Parsed::Unknown(version) => {
                    self.corrupt_frames += 1;
                    tracing::warn!(name = candidate.name, version, "a segment of another version");
                }
                Parsed::Header(header) if header.is_spare() => {
                    self.table.epoch = self.table.epoch.max(header.epoch);
                    let Candidate { name, bytes, file, .. } = candidate;
                    self.add_spare(Spare { name, file, bytes, is_blank: header.was_blank });
                }
                Parsed::Header(header) => segments.push((header, candidate)),
                Parsed::Damaged => {
                    self.corrupt_frames += 1;
                    match self.salvage(&candidate) {
                        Some(header) => segments.push((header, candidate)),
                        None => self.set_aside(&candidate.name),
                    }
                }
            }
        }
        // The newest first, and only what is older than that behind it: of two copies of one
        // segment the longer stays.
        segments.sort_by_key(|(header, candidate)| (header.epoch, candidate.bytes));
        for (header, candidate) in segments.into_iter().rev() {
            let next = self.table.segments.front();
            if next.is_some_and(|next| next.epoch == header.epoch || next.base < header.base) {
                self.corrupt_frames += 1;
                self.set_aside(&candidate.name);
                continue;
            }
            self.table.segments.push_front(Segment {
                name: candidate.name,
                epoch: header.epoch,
                base: header.base,
                after: header.after,
                created_ms: header.created_ms,
                end: candidate.bytes.max(FIRST_FRAME),
                end_is_exact: false,
                bytes: candidate.bytes,
                counted_to: 0,
            });
        }
        let newest = self.table.segments.back();
        let (epoch, base) = newest.map_or((0, 1), |newest| (newest.epoch, newest.base.0));
        self.table.epoch = self.table.epoch.max(epoch);
        self.tail = Position(base - 1);
    }

    /// The header that a segment whose header is lost must have had.
    fn salvage(&self, candidate: &Candidate) -> Option<Header> {
        let mut front = [0; frame::FRAME_HEADER_BYTES];
        read_full(&*candidate.file, &mut front, FIRST_FRAME).ok()?;
        let (epoch, base) = frame::place_at_front(&front);
        if epoch > EPOCH_MAX || base > POSITION_MAX {
            return None;
        }
        let before = Position(base.0.checked_sub(1)?);
        let stamp = Stamp { key: self.identity.key(), epoch };
        let file = Arc::clone(&candidate.file);
        let mut scanner = Scanner::new(file, stamp, FIRST_FRAME, candidate.bytes, before);
        match scanner.next() {
            Ok(Found::Frame { .. }) => {
                tracing::warn!(
                    name = candidate.name,
                    "a segment's header is lost, its data is not"
                );
                let (created_ms, was_blank) = (0, false);
                let identity = self.identity;
                Some(Header { identity, epoch, base, after: before, created_ms, was_blank })
            }
            Ok(Found::Damage { .. } | Found::Rest { .. }) | Err(_) => None,
        }
    }

    /// Takes a file without data; one that was cut too short to be of use goes.
    fn add_spare(&mut self, spare: Spare) {
        if spare.bytes >= SPARE_BYTES_MIN {
            self.table.spares.push_front(spare);
        } else if let Err(error) = self.fs.remove(&self.folder.join(&spare.name)) {
            tracing::warn!(name = spare.name, %error, "cannot remove a file without data");
        }
    }

    /// Leaves a file to a human.
    fn set_aside(&self, name: &str) {
        tracing::warn!(name, "set an unreadable segment aside");
        let aside = self.folder.join(format!("{name}{SUFFIX_DAMAGED}"));
        if let Err(error) = self.fs.rename(&self.folder.join(name), &aside) {
            tracing::warn!(name, %error, "cannot rename a damaged segment");
        }
    }

    /// Finds the last position, cuts off a torn tail, and makes durable what is before it.
    fn read_newest(&mut self) -> io::Result<()> {
        let Some(newest) = self.table.segments.pop_back() else { return Ok(()) };
        let path = self.folder.join(&newest.name);
        let file = self.fs.open(&path)?;
        let stamp = Stamp { key: self.identity.key(), epoch: newest.epoch };
        let mut scanner =
            Scanner::new(Arc::clone(&file), stamp, FIRST_FRAME, newest.bytes, self.tail);
        let end = loop {
            match scanner.next()? {
                Found::Frame { .. } => {}
                Found::Damage { from } => {
                    self.corrupt_frames += 1;
                    tracing::warn!(name = newest.name, from, "damaged bytes in the newest segment");
                }
                Found::Rest { from } => break from,
            }
        };
        self.tail = self.tail.max(scanner.last());
        let was_blank = was_blank(&*file);
        let torn = frame::torn_bytes(&file, stamp, end, newest.bytes, was_blank)?;
        self.torn_bytes += torn;
        if end == FIRST_FRAME {
            // Nothing was committed here. The next epoch is another one, so it can be used again.
            let Segment { name, bytes, .. } = newest;
            let is_blank = was_blank && torn == 0;
            self.add_spare(Spare { name, file, bytes, is_blank });
            return Ok(());
        }
        let is_cut = newest.bytes > end && file.set_len(end).is_ok();
        let bytes = if is_cut { end } else { newest.bytes };
        file.sync_data()?;
        let counted_to = end + 1;
        let sealed = Segment { end, end_is_exact: true, bytes, counted_to, ..newest };
        self.table.segments.push_back(sealed);
        Ok(())
    }
}

fn was_blank(file: &dyn File) -> bool {
    let mut front = vec![0; HEADER_BYTES];
    let is_read = read_full(file, &mut front, 0).is_ok();
    is_read && matches!(Header::parse(&front), Parsed::Header(header) if header.was_blank)
}
