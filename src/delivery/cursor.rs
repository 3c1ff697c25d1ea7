//! What a sink has, on disk: one small file for each store, written in place and never torn.
//!
//! The file is two slots of [`SLOT_BYTES`]. A write goes to the slot that does not hold the newest
//! state, then the file is synced; whatever a power cut leaves of it, the other slot is whole. Each
//! slot is
//!
//! | bytes | what |
//! |---|---|
//! | 4 | `TCUR` |
//! | 4 | CRC-32C of all that follows up to the end of the content |
//! | 8 | generation; the higher whole slot counts |
//! | 4 | length of the content |
//! | … | content: JSON, so that a person can read it in an incident |
//!
//! Numbers are little-endian. The content names the store's identity and the journal, and has one
//! line for each table: `stored`, and while a batch is on its way `sending`, its frozen range. A
//! range is synced before its first attempt. That it was stored is written with the next range or
//! within a second: a lost line only means that the same range is sent again with the same token,
//! which changes nothing in a store that counts tokens and is a repeat, as promised, in one that
//! does not.
//!
//! Should both slots be unreadable, everything the journal still has is sent again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::journal::{File, Fs, Position, RealFs};

/// Bytes of one slot: a line for each of a hundred tables, and a multiple of a disk block.
pub(super) const SLOT_BYTES: usize = 16 << 10;
const HEAD_BYTES: usize = 20;
const MAGIC: &[u8; 4] = b"TCUR";
const EXTENSION: &str = "cursor";

/// First and last position of a frozen batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Range {
    pub(super) first: Position,
    pub(super) last: Position,
}

/// How far one table is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct TableCursor {
    /// Everything up to here is in the store.
    pub(super) stored: Position,
    /// The frozen range that is on its way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sending: Option<Range>,
}

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// The store, as [`crate::backends::Sink::identity`] names it.
    identity: String,
    /// The journal whose positions these are.
    node: String,
    tables: BTreeMap<String, TableCursor>,
}

/// What a cursor must not be told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MovedBack {
    pub(super) from: Position,
    pub(super) to: Position,
}

impl Cursor {
    /// A store that has nothing yet.
    pub(super) fn new(identity: &str, node: &str) -> Self {
        Self { identity: identity.to_owned(), node: node.to_owned(), tables: BTreeMap::new() }
    }

    /// Where `table` stands; a table that was never sent has nothing before `origin`.
    pub(super) fn table(&self, table: &str, origin: Position) -> TableCursor {
        let new = TableCursor { stored: origin, sending: None };
        self.tables.get(table).copied().unwrap_or(new)
    }

    /// Notes where `table` stands.
    ///
    /// # Errors
    /// When `stored` would move back, which changes nothing.
    pub(super) fn set(&mut self, table: &str, to: TableCursor) -> Result<(), MovedBack> {
        match self.tables.get_mut(table) {
            Some(at) if to.stored < at.stored => Err(MovedBack { from: at.stored, to: to.stored }),
            Some(at) => {
                *at = to;
                Ok(())
            }
            None => {
                self.tables.insert(table.to_owned(), to);
                Ok(())
            }
        }
    }

    /// Positions stay, but a range frozen in another journal can never be found again. Gives the
    /// tables that lost one.
    pub(super) fn adopt(&mut self, node: &str) -> Vec<(String, Range)> {
        if self.node == node {
            return Vec::new();
        }
        node.clone_into(&mut self.node);
        let tables = self.tables.iter_mut();
        tables.filter_map(|(table, at)| at.sending.take().map(|it| (table.clone(), it))).collect()
    }

    /// The highest position named.
    fn highest(&self) -> Position {
        let ends = self
            .tables
            .values()
            .map(|at| at.sending.map_or(at.stored, |range| range.last.max(at.stored)));
        ends.max().unwrap_or_default()
    }
}

/// The bytes of a slot; `None` when the content does not fit.
fn encode(cursor: &Cursor, generation: u64) -> Option<Vec<u8>> {
    let content = serde_json::to_vec(cursor).ok()?;
    let length = u32::try_from(content.len()).ok()?;
    if content.len() > SLOT_BYTES - HEAD_BYTES {
        return None;
    }
    let mut body = Vec::with_capacity(SLOT_BYTES);
    body.extend_from_slice(&generation.to_le_bytes());
    body.extend_from_slice(&length.to_le_bytes());
    body.extend_from_slice(&content);
    let mut slot = Vec::with_capacity(SLOT_BYTES);
    slot.extend_from_slice(MAGIC);
    slot.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    slot.extend_from_slice(&body);
    slot.resize(SLOT_BYTES, 0);
    Some(slot)
}

/// Generation and content of a slot, if it is whole.
fn decode(slot: &[u8]) -> Option<(u64, Cursor)> {
    let (magic, rest) = slot.split_first_chunk::<4>()?;
    let (crc, body) = rest.split_first_chunk::<4>()?;
    let (generation, rest) = body.split_first_chunk::<8>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let content = rest.get(..length)?;
    let whole =
        magic == MAGIC && crc32c::crc32c(body.get(..12 + length)?) == u32::from_le_bytes(*crc);
    let cursor = whole.then(|| serde_json::from_slice(content).ok()).flatten()?;
    Some((u64::from_le_bytes(*generation), cursor))
}

/// The newest whole slot of a file's bytes, with its index and generation.
fn newest(bytes: &[u8]) -> Option<(usize, u64, Cursor)> {
    let slots = bytes.chunks(SLOT_BYTES).take(2).enumerate();
    slots
        .filter_map(|(index, slot)| decode(slot).map(|(generation, it)| (index, generation, it)))
        .max_by_key(|(_, generation, _)| *generation)
}

/// A cursor's place on disk.
pub(super) struct CursorFile {
    file: Arc<dyn File>,
    /// The slot with the newest state known to be durable.
    index: usize,
    generation: u64,
}

/// What was found when a cursor file was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// A state.
    Whole,
    /// No file: a store that was never sent anything.
    Nothing,
    /// A file of which no slot is readable.
    Damaged,
}

impl CursorFile {
    /// Opens the file of the store `identity` of the sink `name`, or makes it. Blocks.
    ///
    /// # Errors
    /// When the disk says no.
    pub(super) fn open(
        fs: &dyn Fs,
        directory: &Path,
        name: &str,
        identity: &str,
        node: &str,
    ) -> io::Result<(Self, Cursor, Found)> {
        fs.create_folder(directory)?;
        let path = path(directory, name, identity);
        let (file, without) = match fs.open(&path) {
            Ok(file) => (file, Found::Damaged),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                (fs.create(&path)?, Found::Nothing)
            }
            Err(error) => return Err(error),
        };
        let (mut file, cursor) = Self::over(file)?;
        if let Some(cursor) = cursor {
            // A process killed between its write and its sync left a state that can be read and
            // still be lost by a power cut. What is acted upon from here on must stay true.
            file.file.sync_data()?;
            fs.sync_folder(directory)?;
            return Ok((file, cursor, Found::Whole));
        }
        let cursor = Cursor::new(identity, node);
        // Both slots exist from the start, so that later writes change contents only.
        file.write(&cursor)?;
        file.write(&cursor)?;
        fs.sync_folder(directory)?;
        Ok((file, cursor, without))
    }

    /// Over an open `file`, with the newest whole state in it.
    pub(super) fn over(file: Arc<dyn File>) -> io::Result<(Self, Option<Cursor>)> {
        Ok(match newest(&read(&*file)?) {
            Some((index, generation, cursor)) => (Self { file, index, generation }, Some(cursor)),
            None => (Self { file, index: 1, generation: 0 }, None),
        })
    }

    /// Makes `cursor` durable. Blocks for one sync.
    ///
    /// # Errors
    /// When the disk says no; the state before stays, and the next write goes to the same slot.
    pub(super) fn write(&mut self, cursor: &Cursor) -> io::Result<()> {
        let generation = self.generation + 1;
        let slot = encode(cursor, generation)
            .ok_or_else(|| io::Error::other("the cursor is larger than its slot"))?;
        let index = 1 - self.index.min(1);
        self.file.write_all_at(&slot, (index * SLOT_BYTES) as u64)?;
        self.file.sync_data()?;
        (self.index, self.generation) = (index, generation);
        Ok(())
    }
}

/// One file for each store a sink ever had: the sink's name for people, a hash of both for the
/// program.
fn path(directory: &Path, name: &str, identity: &str) -> PathBuf {
    let readable = readable(name);
    let hash = Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("{name}\n{identity}").as_bytes());
    directory.join(format!("{readable}-{}.{EXTENSION}", hash.simple()))
}

/// A sink's name as files have it.
fn readable(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    name.chars().take(40).map(plain).collect()
}

/// Both slots, as far as the file has them.
fn read(file: &dyn File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 2 * SLOT_BYTES];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

/// The highest position any cursor in `directory` names: a new or shortened journal goes on above
/// it. Unreadable cursors count for nothing; their sinks start over.
///
/// # Errors
/// When the folder is there and cannot be read.
pub fn highest_cursor(directory: &Path) -> io::Result<Position> {
    highest(&RealFs, directory)
}

/// The position up to which every store the sink `name` ever had holds all rows of `table`; 0 when one
/// of them never had any. For whoever has to read what a store may lack before it can be asked.
///
/// # Errors
/// When the folder is there and cannot be read.
pub fn stored_cursor(directory: &Path, name: &str, table: &str) -> io::Result<Position> {
    let fs = RealFs;
    let entries = match fs.list(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Position(0)),
        entries => entries?,
    };
    let prefix = format!("{}-", readable(name));
    let mut lowest: Option<Position> = None;
    for entry in entries.into_iter().map(|entry| entry.name) {
        if Path::new(&entry).extension().is_some_and(|extension| extension == EXTENSION)
            && entry.starts_with(&prefix)
        {
            let bytes = read(&*fs.open(&directory.join(entry))?)?;
            let stored =
                newest(&bytes).map(|(_, _, cursor)| cursor.table(table, Position(0)).stored);
            let stored = stored.unwrap_or_default();
            lowest = Some(lowest.map_or(stored, |lowest| lowest.min(stored)));
        }
    }
    Ok(lowest.unwrap_or_default())
}

/// The highest position that the bytes of one cursor file name; `None` when no slot is whole. For
/// fuzzing and inspection: takes any bytes whatever, without a panic.
pub fn scan_cursor(bytes: &[u8]) -> Option<Position> {
    newest(bytes).map(|(_, _, cursor)| cursor.highest())
}

pub(super) fn highest(fs: &dyn Fs, directory: &Path) -> io::Result<Position> {
    let entries = match fs.list(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Position(0)),
        entries => entries?,
    };
    let mut highest = Position(0);
    for name in entries.into_iter().map(|entry| entry.name) {
        if Path::new(&name).extension().is_some_and(|extension| extension == EXTENSION) {
            // The older slot may name a higher end: of a range that was found missing later.
            let bytes = read(&*fs.open(&directory.join(name))?)?;
            for slot in bytes.chunks(SLOT_BYTES) {
                highest = decode(slot).map_or(highest, |(_, it)| highest.max(it.highest()));
            }
        }
    }
    Ok(highest)
}
