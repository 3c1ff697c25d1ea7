//! The bytes of one record on disk, and how to find the next one among damaged bytes; pure but for
//! reading.
//!
//! ```text
//! 0   len       u32   bytes of the payload
//! 4   crc32c    u32   of len, epoch, position and payload, seeded with the journal's key
//! 8   epoch     u64   of the segment when this was written
//! 16  position  u64
//! 24  payload
//! ```
//!
//! All numbers are little-endian. A segment file is used again and again without being wiped, so
//! behind the last frame stand frames of earlier epochs; they differ in their epoch and are never
//! taken for data. The key is random and never leaves the folder: without it nobody can put bytes
//! into a payload that would be taken for a frame when the bytes before them are damaged.

use std::io;
use std::sync::Arc;

use super::Position;
use super::fs::{File, read_full};

/// Bytes before the payload.
pub(super) const FRAME_HEADER_BYTES: usize = 24;

/// Longest payload of any journal. An inflated request body is at most 8 MiB; twice that leaves
/// room for its envelope, and bounds what a damaged length can make a reader load.
pub(super) const RECORD_BYTES_MAX: usize = 16 << 20;

/// Payload bytes after which a commit takes no further record.
pub(super) const COMMIT_BYTES_MAX: usize = 4 << 20;

/// What a scanner loads at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// What is given up when it cannot be read.
const BLOCK_BYTES: usize = 4096;

/// No segment holds as many records as this, so a position that is further above the one before
/// is no position. It keeps chance and malice from making a scan load payloads that are none.
const GAP_MAX: u64 = 1 << 32;

/// What ties a frame to one use of one segment of one journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    /// Seed of the checksum.
    pub(super) key: u32,
    /// Use of the segment.
    pub(super) epoch: u64,
}

/// What stands at the front of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Decoded {
    /// A whole, intact frame.
    Frame { position: Position, payload_bytes: usize },
    /// Perhaps a frame; it takes this many bytes to know.
    Short(usize),
    /// No frame of this stamp.
    Invalid,
}

/// Appends one frame to `out`. The payload is at most [`RECORD_BYTES_MAX`] long.
pub(super) fn encode(out: &mut Vec<u8>, stamp: Stamp, position: Position, payload: &[u8]) {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut place = [0; 16];
    let (epoch, number) = place.split_at_mut(8);
    epoch.copy_from_slice(&stamp.epoch.to_le_bytes());
    number.copy_from_slice(&position.0.to_le_bytes());
    let crc = checksum(stamp.key, &len, &place, payload);
    out.reserve(FRAME_HEADER_BYTES + payload.len());
    out.extend_from_slice(&len);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&place);
    out.extend_from_slice(payload);
}

/// Reads the frame at the front of `bytes`.
pub(super) fn decode(bytes: &[u8], stamp: Stamp) -> Decoded {
    let Some((header, rest)) = bytes.split_first_chunk::<FRAME_HEADER_BYTES>() else {
        return Decoded::Short(FRAME_HEADER_BYTES);
    };
    let (len, tail) = header.split_at(4);
    let (crc, place) = tail.split_at(4);
    let payload_bytes = u32_of(len) as usize;
    if payload_bytes > RECORD_BYTES_MAX || u64_of(place, 0) != stamp.epoch {
        return Decoded::Invalid;
    }
    let Some(payload) = rest.get(..payload_bytes) else {
        return Decoded::Short(FRAME_HEADER_BYTES + payload_bytes);
    };
    if checksum(stamp.key, len, place, payload) != u32_of(crc) {
        return Decoded::Invalid;
    }
    Decoded::Frame { position: Position(u64_of(place, 8)), payload_bytes }
}

/// The epoch and position a frame at the front of `bytes` would have.
pub(super) fn place_at_front(bytes: &[u8]) -> (u64, Position) {
    (u64_of(bytes, 8), Position(u64_of(bytes, 16)))
}

fn checksum(key: u32, len: &[u8], place: &[u8], payload: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c_append(key, len), place), payload)
}

fn u32_of(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

fn u64_of(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..).and_then(|bytes| bytes.first_chunk()).map_or(0, |b| u64::from_le_bytes(*b))
}

/// Offset of the first place in `bytes`, from `from` on, where the header of a frame with this
/// epoch may stand. The place may be so near the end that only the epoch is there.
fn candidate(bytes: &[u8], from: usize, epoch: u64) -> Option<usize> {
    memchr::memmem::find(bytes.get(from + 8..)?, &epoch.to_le_bytes()).map(|at| from + at)
}

/// What a [`Scanner`] came upon.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// The next intact frame.
    Frame {
        /// Where it stands in the file.
        offset: u64,
        /// Its position, above all before it.
        position: Position,
        /// What was appended.
        payload: &'a [u8],
    },
    /// Damaged bytes with an intact frame behind them.
    Damage {
        /// Offset of the first damaged byte.
        from: u64,
    },
    /// No intact frame from this offset to the end. Said again and again.
    Rest {
        /// Offset behind the last intact frame.
        from: u64,
    },
}

/// Walks the frames of one segment in constant memory: a chunk, or one frame if that is larger.
pub(super) struct Scanner {
    file: Arc<dyn File>,
    stamp: Stamp,
    /// Where the next frame stands.
    offset: u64,
    /// Where to stop.
    end: u64,
    /// Highest position seen; lower ones are not data.
    last: Position,
    chunk: Vec<u8>,
    /// Offset of `chunk` in the file.
    chunk_at: u64,
}

impl Scanner {
    /// Scans `file` from `offset` to `end` for frames of `stamp` above position `after`, which is
    /// one below the segment's base.
    pub(super) fn new(
        file: Arc<dyn File>,
        stamp: Stamp,
        offset: u64,
        end: u64,
        after: Position,
    ) -> Self {
        Self { file, stamp, offset, end, last: after, chunk: Vec::new(), chunk_at: offset }
    }

    /// Where the next frame stands, or would.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// The use of the segment that is read.
    pub(super) fn epoch(&self) -> u64 {
        self.stamp.epoch
    }

    /// Position of the last frame found, or where the scan began.
    pub(super) fn last(&self) -> Position {
        self.last
    }

    /// Where it stops.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// More of the file may be read from now on.
    pub(super) fn extend(&mut self, end: u64) {
        self.end = self.end.max(end);
    }

    /// Gives up what is left before the end, and says how much that was.
    pub(super) fn skip_rest(&mut self) -> u64 {
        let skipped_bytes = self.end.saturating_sub(self.offset);
        self.offset = self.end;
        skipped_bytes
    }

    /// The next thing in the file.
    pub(super) fn next(&mut self) -> io::Result<Found<'_>> {
        let offset = self.offset;
        if let Some((position, payload_bytes)) = self.frame_at(offset)? {
            self.offset = offset + (FRAME_HEADER_BYTES + payload_bytes) as u64;
            self.last = position;
            let payload = self.payload(offset, payload_bytes);
            return Ok(Found::Frame { offset, position, payload });
        }
        let from = self.offset;
        if let Some(next) = self.resync(from + 1)? {
            self.offset = next;
            return Ok(Found::Damage { from });
        }
        Ok(Found::Rest { from })
    }

    /// Loads the frame of `position` at `offset`: the bytes of its payload, or `None` when it is not
    /// there intact.
    pub(super) fn seek(&mut self, offset: u64, position: Position) -> io::Result<Option<usize>> {
        self.last = Position(position.0.saturating_sub(1));
        let frame = self.frame_at(offset)?;
        Ok(frame.filter(|(found, _)| *found == position).map(|(_, payload_bytes)| payload_bytes))
    }

    /// The payload of the frame at `offset`, so many bytes long, which is loaded.
    pub(super) fn payload(&self, offset: u64, payload_bytes: usize) -> &[u8] {
        let loaded = self.loaded(offset + FRAME_HEADER_BYTES as u64);
        loaded.get(..payload_bytes).unwrap_or_default()
    }

    /// The intact frame at `offset`, left in the chunk.
    fn frame_at(&mut self, offset: u64) -> io::Result<Option<(Position, usize)>> {
        let mut wanted = FRAME_HEADER_BYTES;
        loop {
            if offset + wanted as u64 > self.end {
                return Ok(None);
            }
            self.load(offset, wanted)?;
            let loaded = self.loaded(offset);
            let gap = u64_of(loaded, 16).checked_sub(self.last.0);
            if !gap.is_some_and(|gap| (1..GAP_MAX).contains(&gap)) {
                return Ok(None);
            }
            match decode(loaded, self.stamp) {
                Decoded::Frame { position, payload_bytes } => {
                    return Ok(Some((position, payload_bytes)));
                }
                Decoded::Short(bytes) if bytes > wanted => wanted = bytes,
                Decoded::Short(_) | Decoded::Invalid => return Ok(None),
            }
        }
    }

    /// Offset of the first intact frame at or behind `from`.
    fn resync(&mut self, mut from: u64) -> io::Result<Option<u64>> {
        while from + FRAME_HEADER_BYTES as u64 <= self.end {
            self.load(from, FRAME_HEADER_BYTES)?;
            let loaded = self.loaded(from);
            if loaded.len() < FRAME_HEADER_BYTES {
                break;
            }
            match candidate(loaded, 0, self.stamp.epoch) {
                Some(at) => {
                    let offset = from + at as u64;
                    if self.frame_at(offset)?.is_some() {
                        return Ok(Some(offset));
                    }
                    from = offset + 1;
                }
                // The last fifteen bytes may be the beginning of a header.
                None => from += (loaded.len() - 15) as u64,
            }
        }
        Ok(None)
    }

    /// What of the file is in memory from `offset` on.
    fn loaded(&self, offset: u64) -> &[u8] {
        let at = offset.checked_sub(self.chunk_at).and_then(|at| usize::try_from(at).ok());
        at.and_then(|at| self.chunk.get(at..)).unwrap_or_default()
    }

    /// Makes `wanted` bytes at `offset` present, as far as the file has them.
    fn load(&mut self, offset: u64, wanted: usize) -> io::Result<()> {
        if self.loaded(offset).len() >= wanted {
            return Ok(());
        }
        let left = usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX);
        self.chunk.clear();
        self.chunk_at = offset;
        if self.chunk.capacity() > 2 * CHUNK_BYTES && wanted <= CHUNK_BYTES {
            self.chunk = Vec::new();
        }
        self.chunk.resize(wanted.max(CHUNK_BYTES).min(left), 0);
        let filled = read_full(&*self.file, &mut self.chunk, offset)
            .or_else(|error| read_blocks(&*self.file, &mut self.chunk, offset, error));
        self.chunk.truncate(*filled.as_ref().unwrap_or(&0));
        filled.map(|_| ())
    }
}

/// Reads what can be read by blocks, after `error`: a bad sector must not hide its neighbours, nor
/// stop a reader for ever. Blocks that cannot be read are zeros, which are never frames. If none
/// can, it is not a matter of sectors, and nothing may be skipped.
fn read_blocks(
    file: &dyn File,
    buffer: &mut [u8],
    offset: u64,
    error: io::Error,
) -> io::Result<usize> {
    let mut is_any_read = false;
    let mut filled = 0;
    for (number, block) in buffer.chunks_mut(BLOCK_BYTES).enumerate() {
        match read_full(file, block, offset + (number * BLOCK_BYTES) as u64) {
            Ok(0) => break,
            Ok(bytes) => {
                filled += bytes;
                is_any_read = true;
            }
            Err(_) => {
                block.fill(0);
                filled += block.len();
            }
        }
    }
    if is_any_read { Ok(filled) } else { Err(error) }
}

/// How many of the bytes from `from` to `end`, where no intact frame stands, are remains of frames
/// that were being written, which is one commit. In a segment that was blank before, whatever is
/// not zero; in one that was used before, what the headers that got through announce.
pub(super) fn torn_bytes(
    file: &Arc<dyn File>,
    stamp: Stamp,
    from: u64,
    end: u64,
    was_blank: bool,
) -> io::Result<u64> {
    let end = end.min(from + COMMIT_BYTES_MAX as u64 + RECORD_BYTES_MAX as u64);
    let mut scan = Scanner::new(Arc::clone(file), stamp, from, end, Position(0));
    let mut torn_end = from;
    let mut at = from;
    while at < end {
        scan.load(at, FRAME_HEADER_BYTES)?;
        let loaded = scan.loaded(at);
        if loaded.is_empty() {
            break;
        }
        if was_blank && let Some(last) = loaded.iter().rposition(|byte| *byte != 0) {
            torn_end = torn_end.max(at + last as u64 + 1);
        }
        let mut next = 0;
        while let Some(place) = candidate(loaded, next, stamp.epoch) {
            let len = u64::from(u32_of(loaded.get(place..).unwrap_or_default()));
            if len <= RECORD_BYTES_MAX as u64 {
                let frame_end = at + place as u64 + FRAME_HEADER_BYTES as u64 + len;
                torn_end = torn_end.max(frame_end.min(end));
            }
            next = place + 1;
        }
        at += loaded.len().saturating_sub(15).max(1) as u64;
    }
    Ok(torn_end - from)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::fs::InMemory;
    use super::*;

    const STAMP: Stamp = Stamp { key: 0xDEAD_BEEF, epoch: 7 };

    fn frames(payloads: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (position, payload) in (1..).map(Position).zip(payloads) {
            encode(&mut bytes, STAMP, position, payload);
        }
        bytes
    }

    /// Positions and payloads of all intact frames, and whether anything was damaged.
    fn scan(bytes: Vec<u8>) -> (Vec<(u64, Vec<u8>)>, bool) {
        let end = bytes.len() as u64;
        let mut scanner = Scanner::new(Arc::new(InMemory(bytes)), STAMP, 0, end, Position(0));
        let (mut found, mut is_damaged) = (Vec::new(), false);
        loop {
            match scanner.next().unwrap() {
                Found::Frame { position, payload, .. } => {
                    found.push((position.0, payload.to_vec()));
                }
                Found::Damage { .. } => is_damaged = true,
                Found::Rest { from } => return (found, is_damaged || from < end),
            }
        }
    }

    #[test]
    fn the_bytes_of_a_frame_are_fixed() {
        let mut bytes = Vec::new();
        encode(&mut bytes, Stamp { key: 0, epoch: 2 }, Position(3), b"hello");
        let crc = crc32c::crc32c(b"\x05\0\0\0\x02\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0hello");
        let expected = [
            &[5, 0, 0, 0][..],
            &crc.to_le_bytes(),
            &[2, 0, 0, 0, 0, 0, 0, 0],
            &[3, 0, 0, 0, 0, 0, 0, 0],
            b"hello",
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn remains_of_a_torn_write_are_measured() {
        let whole = frames(&[vec![1; 100], vec![2; 100]]);
        let measure = |bytes: &[u8], was_blank| {
            let file: Arc<dyn File> = Arc::new(InMemory(bytes.to_vec()));
            torn_bytes(&file, STAMP, 124, bytes.len() as u64, was_blank).unwrap()
        };
        let mut torn = whole.clone();
        torn[200..].fill(0);
        torn.resize(1000, 0);
        assert_eq!(measure(&torn, false), 124, "the header tells how much was on its way");
        assert_eq!(measure(&torn, true), 124);
        torn[124..148].fill(0);
        assert_eq!(measure(&torn, false), 0, "old bytes and new ones look alike");
        assert_eq!(measure(&torn, true), 76, "what is not zero was written");
        assert_eq!(measure(&whole[..124], true), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_was_encoded_is_found(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..20),
            garbage in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let bytes = [frames(&payloads), garbage].concat();
            let expected: Vec<_> = (1..).zip(payloads).collect();
            prop_assert_eq!(scan(bytes).0, expected);
        }

        #[test]
        fn any_one_damaged_byte_costs_one_frame(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 1..20),
            place: prop::sample::Index,
            flip in 1_u8..,
        ) {
            let mut bytes = frames(&payloads);
            let place = place.index(bytes.len());
            bytes[place] ^= flip;
            let mut end = 0;
            let hit = payloads.iter().position(|payload| {
                end += FRAME_HEADER_BYTES + payload.len();
                place < end
            });
            let hit = hit.map(|at| at as u64 + 1);
            let expected: Vec<_> =
                (1..).zip(payloads).filter(|(number, _)| Some(*number) != hit).collect();
            prop_assert_eq!(scan(bytes), (expected, true));
        }

        #[test]
        fn no_bytes_make_a_scan_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            prop_assert!(scan(bytes).0.is_empty());
        }

        #[test]
        fn another_key_or_epoch_finds_nothing(payload in prop::collection::vec(any::<u8>(), 0..99)) {
            let mut bytes = Vec::new();
            encode(&mut bytes, Stamp { key: 1, ..STAMP }, Position(1), &payload);
            encode(&mut bytes, Stamp { epoch: 6, ..STAMP }, Position(2), &payload);
            prop_assert!(scan(bytes).0.is_empty());
        }
    }
}
