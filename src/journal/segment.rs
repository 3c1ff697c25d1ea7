//! One segment file: its name, its header, and the journal's identity that every header repeats.
//!
//! ```text
//! 0    magic      8 bytes
//! 8    version    u32
//! 12   crc32c     u32   of the bytes before and behind it
//! 16   identity   16 bytes of the journal
//! 32   epoch      u64   1, 2, 3 … counts every use of any segment
//! 40   base       u64   positions in here are this or above; 0 = a spare, no data
//! 48   after      u64   last durable position when this use began
//! 56   created    i64   milliseconds since 1970 when this use began
//! 64   was_blank  u8    1 = all zero before this use
//! ```
//!
//! The rest of the 4,096 bytes is zero; frames begin behind it. The header is durable before the
//! first frame is written, and stands in one disk sector, so it is the old one or the new one.
//! A spare keeps the epoch of its last use, so that the next epoch is above every frame on disk.
//! `after` makes loss visible: when the segment before ends lower, something of it is missing.
//! The folder's names carry no meaning but their endings.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::fs::{File, Fs};
use super::{POSITION_MAX, Position, frame};

/// Bytes of the header.
pub(super) const HEADER_BYTES: usize = 4096;
/// Offset of the first frame.
pub(super) const FIRST_FRAME: u64 = HEADER_BYTES as u64;

/// Ending of a segment's name.
pub(super) const SUFFIX: &str = ".segment";
/// Ending while the file is being made; it never held data and is removed at start.
pub(super) const SUFFIX_NEW: &str = ".new";
/// Ending of a file that cannot be read and is kept for a human.
pub(super) const SUFFIX_DAMAGED: &str = ".damaged";
/// Name of the file with the identity.
const IDENTITY_FILE: &str = "journal.id";

const MAGIC: [u8; 8] = *b"TRKJRNL\0";
const VERSION: u32 = 1;
/// As with positions: no journal gets there.
pub(super) const EPOCH_MAX: u64 = 1 << 62;
/// Bytes of the header that carry something.
const FIELDS_BYTES: usize = 72;

/// What makes a journal this one: six public bytes, and the rest known to nobody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity([u8; 16]);

impl Identity {
    /// A new random one.
    pub(super) fn random() -> Self {
        Self(rand::random())
    }

    /// The public part: twelve lower-case hex digits.
    pub(super) fn node(self) -> String {
        let (public, _) = self.0.split_at(6);
        hex(public)
    }

    /// Seed of every frame's checksum.
    pub(super) fn key(self) -> u32 {
        let [_, _, _, _, _, _, _, _, a, b, c, d, ..] = self.0;
        u32::from_le_bytes([a, b, c, d])
    }

    /// Reads the identity of the journal in `folder`; `None` when there is none, or it is damaged.
    pub(super) fn read(fs: &dyn Fs, folder: &Path) -> io::Result<Option<Self>> {
        let file = match fs.open(&folder.join(IDENTITY_FILE)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut text = [0; 42];
        let filled = super::fs::read_full(&*file, &mut text, 0)?;
        Ok(Self::parse(text.get(..filled).unwrap_or_default()))
    }

    /// Makes the identity durable. A power cut leaves no file or the whole one.
    pub(super) fn write(self, fs: &dyn Fs, folder: &Path) -> io::Result<()> {
        let new = folder.join(format!("{IDENTITY_FILE}{SUFFIX_NEW}"));
        match fs.remove(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let file = fs.create(&new)?;
        file.write_all_at(self.text().as_bytes(), 0)?;
        file.sync_data()?;
        fs.rename(&new, &folder.join(IDENTITY_FILE))?;
        fs.sync_folder(folder)
    }

    /// 32 hex digits, a blank, 8 hex digits of their checksum, a line feed.
    fn text(self) -> String {
        let digits = hex(&self.0);
        format!("{digits} {:08x}\n", crc32c::crc32c(digits.as_bytes()))
    }

    fn parse(text: &[u8]) -> Option<Self> {
        let digits = std::str::from_utf8(text.get(..32)?).ok()?;
        let identity = Self(u128::from_str_radix(digits, 16).ok()?.to_be_bytes());
        (identity.text().as_bytes() == text).then_some(identity)
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |half: u8| char::from_digit(u32::from(half), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The fields of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) identity: Identity,
    pub(super) epoch: u64,
    pub(super) base: Position,
    pub(super) after: Position,
    pub(super) created_ms: i64,
    pub(super) was_blank: bool,
}

/// What the front of a file says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Parsed {
    /// An intact header.
    Header(Header),
    /// An intact header of a format this version does not know.
    Unknown(u32),
    /// Anything else.
    Damaged,
}

impl Header {
    /// The header of a file that holds no data; `epoch` is that of its last use.
    pub(super) fn spare(identity: Identity, epoch: u64, is_blank: bool) -> Self {
        let nowhere = Position(0);
        Self { identity, epoch, base: nowhere, after: nowhere, created_ms: 0, was_blank: is_blank }
    }

    /// True when the file holds no data.
    pub(super) fn is_spare(&self) -> bool {
        self.base == Position(0)
    }

    /// The bytes, as long as the header.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut behind = Vec::with_capacity(FIELDS_BYTES);
        behind.extend_from_slice(&self.identity.0);
        for number in [self.epoch, self.base.0, self.after.0] {
            behind.extend_from_slice(&number.to_le_bytes());
        }
        behind.extend_from_slice(&self.created_ms.to_le_bytes());
        behind.push(u8::from(self.was_blank));
        behind.resize(HEADER_BYTES - 16, 0);
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        let crc = checksum(&bytes, &behind);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.extend_from_slice(&behind);
        bytes
    }

    /// Reads a header from the front of a file.
    pub(super) fn parse(bytes: &[u8]) -> Parsed {
        Self::fields(bytes).unwrap_or(Parsed::Damaged)
    }

    fn fields(bytes: &[u8]) -> Option<Parsed> {
        let (front, rest) = bytes.get(..HEADER_BYTES)?.split_at_checked(12)?;
        let (crc, behind) = rest.split_first_chunk::<4>()?;
        let (magic, version) = front.split_first_chunk::<8>()?;
        if *magic != MAGIC || u32::from_le_bytes(*crc) != checksum(front, behind) {
            return None;
        }
        let version = u32::from_le_bytes(*version.first_chunk()?);
        if version != VERSION {
            return Some(Parsed::Unknown(version));
        }
        let (identity, numbers) = behind.split_first_chunk::<16>()?;
        let (epoch, numbers) = numbers.split_first_chunk()?;
        let (base, numbers) = numbers.split_first_chunk()?;
        let (after, numbers) = numbers.split_first_chunk()?;
        let (created, numbers) = numbers.split_first_chunk()?;
        let header = Self {
            identity: Identity(*identity),
            epoch: u64::from_le_bytes(*epoch),
            base: Position(u64::from_le_bytes(*base)),
            after: Position(u64::from_le_bytes(*after)),
            created_ms: i64::from_le_bytes(*created),
            was_blank: *numbers.first()? == 1,
        };
        let is_possible =
            header.base.max(header.after) <= POSITION_MAX && header.epoch <= EPOCH_MAX;
        is_possible.then_some(Parsed::Header(header))
    }

    /// Makes the header durable.
    pub(super) fn write(&self, file: &dyn File) -> io::Result<()> {
        file.write_all_at(&self.encode(), 0)?;
        file.sync_data()
    }
}

fn checksum(front: &[u8], behind: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(front), behind)
}

/// A segment that holds data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// Its file name.
    pub(super) name: String,
    pub(super) epoch: u64,
    pub(super) base: Position,
    pub(super) after: Position,
    pub(super) created_ms: i64,
    /// Offset behind the last durable frame; for a segment sealed by an earlier process that was
    /// not the newest, the length of the file.
    pub(super) end: u64,
    /// True when `end` is known to be behind a frame.
    pub(super) end_is_exact: bool,
    /// Length of the file.
    pub(super) bytes: u64,
    /// Damage before this offset has been counted.
    pub(super) counted_to: u64,
}

/// A file that is ready to become a segment.
pub(super) struct Spare {
    pub(super) name: String,
    pub(super) file: Arc<dyn File>,
    pub(super) bytes: u64,
    pub(super) is_blank: bool,
}

/// How many intact frames the bytes of one segment file hold. For fuzzing and inspection: takes
/// any bytes whatever, without a panic.
pub fn scan_bytes(bytes: &[u8]) -> usize {
    let key_and_epoch = |header: Header| (header.identity.key(), header.epoch);
    let (key, epoch) = match Header::parse(bytes) {
        Parsed::Header(header) => key_and_epoch(header),
        Parsed::Unknown(_) | Parsed::Damaged => {
            let front = bytes.get(HEADER_BYTES..).unwrap_or_default();
            (0, frame::place_at_front(front).0)
        }
    };
    let file: Arc<dyn File> = Arc::new(super::fs::InMemory(bytes.to_vec()));
    let stamp = frame::Stamp { key, epoch };
    let end = bytes.len() as u64;
    let mut scanner = frame::Scanner::new(file, stamp, FIRST_FRAME, end, Position(0));
    let mut frames = 0;
    loop {
        match scanner.next() {
            Ok(frame::Found::Frame { .. }) => frames += 1,
            Ok(frame::Found::Damage { .. }) => {}
            Ok(frame::Found::Rest { .. }) | Err(_) => return frames,
        }
    }
}
