//! Cells into blocks of ClickHouse's format `Native`, compressed.
//!
//! A block is column after column: `count of columns, count of rows`, then for each its name, its
//! type and its values (numbers little-endian, texts behind their length, lists as ends and items).
//! Lengths are LEB128. The source is ClickHouse's `NativeWriter` at protocol revision 0, which is
//! what HTTP speaks. Types come from the server's catalog, not from a second list here; the server
//! converts what is sent simpler than it is stored (a text to a `LowCardinality`, a `DateTime64` to
//! its precision).
//!
//! `JSON` is sent in its binary form (`json`), or, where somebody else made the table, as texts behind
//! [`JSON_AS_TEXT`]. Sent as `String` it would be converted without a look at the settings of the
//! insert: "2026-02-30" became the second of March.
//!
//! `Native` and not `RowBinary`, because the server reads it with two thirds of the work
//! (`benches/clickhouse.rs` prints both).

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};

use bytes::Bytes;
use chrono::{DateTime, Datelike, Utc};
use lz4_flex::frame::{BlockSize, FrameEncoder, FrameInfo};
use serde_json::{Map, Value};
use thiserror::Error;
use uuid::Uuid;

use super::json;
use super::wire::{push_bytes, push_length};
use crate::backends::{Batch, Events, ReadError};
use crate::tables::{AnyTable, Cell};

/// Rows of one block, or bytes if those are more. The server joins blocks again, up to a million rows;
/// here a block bounds what is uncompressed at a time.
const BLOCK_ROWS: usize = 8_192;
/// Bytes of one block, which one row more may exceed.
const BLOCK_BYTES: usize = 16 << 20;
/// Partitions of one insert: the server refuses more (`max_partitions_per_insert_block`).
const PARTITIONS_MAX: usize = 100;
/// Says before the values of a `JSON` column that they are texts: its serialization number 1.
const JSON_AS_TEXT: &[u8] = &1u64.to_le_bytes();
/// Days from 1 January of year 1 to 1 January 1970.
const EPOCH_DAYS: i32 = 719_163;

/// A row that does not fit its table.
#[derive(Debug, Error)]
pub(super) enum EncodeError {
    /// The cell is of another kind than its column.
    #[error("{cell} does not fit column {column} of type {kind:?}")]
    Mismatch {
        /// The column.
        column: &'static str,
        /// The kind of the cell; never its value.
        cell: &'static str,
        /// What the column takes.
        kind: Kind,
    },
    /// An event was not read.
    #[error("reading an event")]
    Read(#[from] ReadError),
    /// The compressor failed.
    #[error("compressing a batch")]
    Compress(#[source] io::Error),
}

/// The columns of one table as they are written.
pub(super) struct Layout {
    table: &'static dyn AnyTable,
    columns: Vec<Column>,
    partition: Vec<PartitionBy>,
}

/// One column.
#[derive(Debug, Clone)]
struct Column {
    name: &'static str,
    kind: Kind,
    nullable: bool,
    /// The type that is announced.
    announced: String,
}

/// The families of column types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `String`, and what the server makes of one: `LowCardinality`, `FixedString`, `Enum`.
    Text,
    /// `JSON(max_dynamic_paths=0)`, as this program's tables have it, which is sent in binary form.
    Paths,
    /// Another `JSON`, which is sent as text.
    Json,
    /// `UUID`.
    Uuid,
    /// `Bool`.
    Bool,
    /// A whole number of so many bits.
    Int {
        /// 8, 16, 32 or 64.
        bits: u8,
        /// Whether it has a sign.
        signed: bool,
    },
    /// `Float32` or `Float64`.
    Float,
    /// `Decimal`.
    Money,
    /// `DateTime64` or `DateTime`.
    Time,
    /// `Date` or `Date32`.
    Date,
    /// `Array(String)`.
    Texts,
    /// `Array(UUID)`.
    Uuids,
}

/// A part of a partition's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PartitionBy {
    /// The value of the column.
    Value(usize),
    /// Its month.
    Month(usize),
    /// Its day.
    Day(usize),
}

/// The data of one insert.
pub(super) struct Encoded {
    /// Blocks of `Native` in one LZ4 frame.
    pub(super) body: Bytes,
    /// Rows in it.
    pub(super) rows: usize,
}

impl Kind {
    /// The family of a type, and whether it takes NULL; `None` when nothing of ours fits it.
    pub(super) fn of(data_type: &str) -> Option<(Self, bool)> {
        let Some(item) = inside(data_type, "Array") else { return Self::of_one(data_type) };
        match Self::of_one(item)? {
            (Self::Text, _) => Some((Self::Texts, false)),
            (Self::Uuid, _) => Some((Self::Uuids, false)),
            _ => None,
        }
    }

    /// The same of what is no list. The server wraps a type in these at most, in this order.
    fn of_one(data_type: &str) -> Option<(Self, bool)> {
        let dictionary = inside(data_type, "LowCardinality");
        let data_type = dictionary.unwrap_or(data_type);
        let nullable = inside(data_type, "Nullable");
        let kind = Self::bare(nullable.unwrap_or(data_type))?;
        let is_fit = dictionary.is_none() || kind == Self::Text;
        is_fit.then_some((kind, nullable.is_some()))
    }

    fn bare(data_type: &str) -> Option<Self> {
        let int = |bits, signed| Self::Int { bits, signed };
        let name = data_type.split('(').next().unwrap_or(data_type);
        Some(match name {
            "String" | "FixedString" | "Enum8" | "Enum16" => Self::Text,
            "JSON" if data_type.replace(' ', "") == "JSON(max_dynamic_paths=0)" => Self::Paths,
            "JSON" | "Object" => Self::Json,
            "UUID" => Self::Uuid,
            "Bool" => Self::Bool,
            "Int8" => int(8, true),
            "Int16" => int(16, true),
            "Int32" => int(32, true),
            "Int64" => int(64, true),
            "UInt8" => int(8, false),
            "UInt16" => int(16, false),
            "UInt32" => int(32, false),
            "UInt64" => int(64, false),
            "Float32" | "Float64" => Self::Float,
            "Decimal" | "Decimal64" => Self::Money,
            "DateTime64" | "DateTime" => Self::Time,
            "Date" | "Date32" => Self::Date,
            _ => return None,
        })
    }

    /// The type that is announced for a column of `data_type`.
    fn announced(self, data_type: &str) -> String {
        match self {
            Self::Paths => data_type.to_owned(),
            Self::Json if data_type.starts_with("JSON") => data_type.to_owned(),
            Self::Text | Self::Json => "String".to_owned(),
            Self::Uuid => "UUID".to_owned(),
            Self::Bool => "Bool".to_owned(),
            Self::Int { bits, signed } => format!("{}Int{bits}", if signed { "" } else { "U" }),
            Self::Float => "Float64".to_owned(),
            Self::Money => "Decimal(18, 4)".to_owned(),
            Self::Time => "DateTime64(3, 'UTC')".to_owned(),
            Self::Date => "Date32".to_owned(),
            Self::Texts => "Array(String)".to_owned(),
            Self::Uuids => "Array(UUID)".to_owned(),
        }
    }
}

/// What `outer` wraps, such as the `String` of `Nullable(String)`.
pub(super) fn inside<'t>(data_type: &'t str, outer: &str) -> Option<&'t str> {
    data_type.strip_prefix(outer)?.strip_prefix('(')?.strip_suffix(')').map(str::trim)
}

impl Column {
    /// How a column of `data_type` is written; `None` when nothing of ours fits it.
    fn of(name: &'static str, data_type: &str) -> Option<Self> {
        let (kind, nullable) = Kind::of(data_type)?;
        let announced = kind.announced(data_type);
        let announced = if nullable { format!("Nullable({announced})") } else { announced };
        Some(Self { name, kind, nullable, announced })
    }

    /// What stands between its type and its values.
    fn prefix(&self) -> &'static [u8] {
        match self.kind {
            Kind::Paths => json::PREFIX,
            Kind::Json if self.announced.starts_with("JSON") => JSON_AS_TEXT,
            _ => &[],
        }
    }
}

impl Layout {
    /// How `table` is written when its columns have `types`, by name, and its partitions are by
    /// `partition_key`.
    ///
    /// # Errors
    /// What stands in the way, in words: every column that is missing or of a type that cannot be
    /// written.
    pub(super) fn new(
        table: &'static dyn AnyTable,
        types: &HashMap<String, String>,
        partition_key: &str,
    ) -> Result<Self, String> {
        let mut columns = Vec::new();
        let mut wrong = Vec::new();
        for name in table.columns() {
            match types.get(name).map(|data_type| (data_type, Column::of(name, data_type))) {
                Some((_, Some(column))) => columns.push(column),
                Some((found, None)) => wrong.push(format!("{name} has the type {found}")),
                None => wrong.push(format!("{name} is missing")),
            }
        }
        if !wrong.is_empty() {
            return Err(wrong.join(", "));
        }
        let partition = partition_by(partition_key, &columns);
        Ok(Self { table, columns, partition })
    }

    /// The statement whose data [`Self::encode`] gives.
    pub(super) fn statement(&self, database: &str) -> String {
        let names: Vec<String> =
            self.columns.iter().map(|column| format!("`{}`", column.name)).collect();
        let table = self.table.name();
        format!("INSERT INTO `{database}`.`{table}` ({}) FORMAT Native", names.join(", "))
    }

    /// The rows of `batch`, but those whose position is in `stored`; one insert, or several where
    /// the rows are of more partitions than one insert may have. The same events always give the
    /// same inserts. Reads the journal, so it blocks.
    ///
    /// # Errors
    /// When an event cannot be read, or a cell is of another kind than its column.
    pub(super) fn encode(
        &self,
        batch: &Batch,
        stored: &HashSet<u64>,
    ) -> Result<Vec<Encoded>, EncodeError> {
        let mut inserts = Vec::with_capacity(1);
        let mut left = batch.entries.to_vec();
        left.retain(|entry| !stored.contains(&entry.position().0));
        while !left.is_empty() {
            let (insert, later) = self.insert(batch.records.read(&left))?;
            inserts.push(insert);
            left.retain(|entry| later.contains(&entry.position().0));
        }
        Ok(inserts)
    }

    /// One insert of as many of `events` as share [`PARTITIONS_MAX`] partitions, and the positions of
    /// the others.
    fn insert(&self, events: Events<'_>) -> Result<(Encoded, HashSet<u64>), EncodeError> {
        let mut frame = FrameEncoder::with_frame_info(
            FrameInfo::new().block_size(BlockSize::Max256KB),
            Vec::new(),
        );
        let mut block = Block::new(&self.columns);
        let mut partitions = HashSet::new();
        let (mut later, mut rows) = (HashSet::new(), 0);
        for event in events {
            let event = event?;
            let mut cells = Vec::with_capacity(self.columns.len());
            self.table.rows(&event, &mut cells);
            let key = self.partition_of(&cells);
            if partitions.len() >= PARTITIONS_MAX && !partitions.contains(&key) {
                later.insert(event.ingest.seq);
                continue;
            }
            partitions.insert(key);
            for row in cells.chunks(self.columns.len().max(1)) {
                block.push(row)?;
                rows += 1;
            }
            if block.rows >= BLOCK_ROWS || block.bytes() >= BLOCK_BYTES {
                block.write(&mut frame).map_err(EncodeError::Compress)?;
            }
        }
        if block.rows > 0 {
            block.write(&mut frame).map_err(EncodeError::Compress)?;
        }
        let body = frame.finish().map_err(|error| EncodeError::Compress(error.into()))?;
        Ok((Encoded { body: body.into(), rows }, later))
    }

    /// Names the partition of a row among those of an insert.
    fn partition_of(&self, row: &[Cell<'_>]) -> u64 {
        let mut hasher = DefaultHasher::new();
        for by in &self.partition {
            let (PartitionBy::Value(at) | PartitionBy::Month(at) | PartitionBy::Day(at)) = *by;
            match (by, row.get(at)) {
                (PartitionBy::Month(_), Some(Cell::Time(at))) => {
                    (at.year(), at.month()).hash(&mut hasher);
                }
                (PartitionBy::Month(_), Some(Cell::Date(at))) => {
                    (at.year(), at.month()).hash(&mut hasher);
                }
                (PartitionBy::Day(_), Some(Cell::Time(at))) => at.date_naive().hash(&mut hasher),
                (_, Some(Cell::Uuid(id))) => id.hash(&mut hasher),
                (_, Some(Cell::Text(text))) => text.hash(&mut hasher),
                (_, Some(Cell::Date(day))) => day.hash(&mut hasher),
                (_, _) => {}
            }
        }
        hasher.finish()
    }
}

/// Reads keys of the form `toYYYYMM(created_at)` or `(oid, toYYYYMM(created_at))`. A part that is
/// not known here is left out: the server then refuses what has too many partitions.
fn partition_by(key: &str, columns: &[Column]) -> Vec<PartitionBy> {
    let index = |name: &str| columns.iter().position(|column| column.name == name);
    let key = key.strip_prefix("tuple").unwrap_or(key).trim();
    let is_list = key.starts_with('(') && key.ends_with(')');
    let key = if is_list { key.get(1..key.len() - 1).unwrap_or(key) } else { key };
    let part = |part: &str| {
        let (function, of) = part.trim().split_once('(').unwrap_or(("", part));
        let at = index(of.trim_end_matches(')').trim())?;
        match function {
            "" => Some(PartitionBy::Value(at)),
            "toYYYYMM" | "toStartOfMonth" => Some(PartitionBy::Month(at)),
            "toYYYYMMDD" | "toDate" | "toStartOfDay" => Some(PartitionBy::Day(at)),
            _ => None,
        }
    };
    key.split(',').filter_map(part).collect()
}

/// A block being filled.
struct Block<'l> {
    columns: &'l [Column],
    values: Vec<Values>,
    rows: usize,
}

/// The values of one column of a block.
#[derive(Default)]
struct Values {
    /// 1 for each NULL; empty when the column takes none.
    nulls: Vec<u8>,
    /// Where each list ends, in items.
    ends: Vec<u8>,
    items: u64,
    bytes: Vec<u8>,
    /// Of objects, the values of the paths that are in `bytes`.
    second: Vec<u8>,
}

impl<'l> Block<'l> {
    fn new(columns: &'l [Column]) -> Self {
        let values = columns.iter().map(|_| Values::default()).collect();
        Self { columns, values, rows: 0 }
    }

    fn push(&mut self, row: &[Cell<'_>]) -> Result<(), EncodeError> {
        for ((values, column), cell) in self.values.iter_mut().zip(self.columns).zip(row) {
            values.push(column, cell).map_err(|cell| EncodeError::Mismatch {
                column: column.name,
                cell,
                kind: column.kind,
            })?;
        }
        self.rows += 1;
        Ok(())
    }

    /// Bytes of all values.
    fn bytes(&self) -> usize {
        let of = |it: &Values| it.nulls.len() + it.ends.len() + it.bytes.len() + it.second.len();
        self.values.iter().map(of).sum()
    }

    /// Writes the block and empties it.
    fn write(&mut self, into: &mut impl Write) -> io::Result<()> {
        let mut head = Vec::with_capacity(64);
        push_length(&mut head, self.columns.len());
        push_length(&mut head, self.rows);
        into.write_all(&head)?;
        for (column, values) in self.columns.iter().zip(&mut self.values) {
            head.clear();
            push_bytes(&mut head, column.name.as_bytes());
            push_bytes(&mut head, column.announced.as_bytes());
            head.extend_from_slice(column.prefix());
            for part in [&head, &values.nulls, &values.ends, &values.bytes, &values.second] {
                into.write_all(part)?;
            }
            values.clear();
        }
        self.rows = 0;
        Ok(())
    }
}

impl Values {
    fn clear(&mut self) {
        self.nulls.clear();
        self.ends.clear();
        self.items = 0;
        self.bytes.clear();
        self.second.clear();
    }

    /// Adds one cell; the error is the kind of cell that does not fit.
    fn push(&mut self, column: &Column, cell: &Cell<'_>) -> Result<(), &'static str> {
        if column.nullable {
            self.nulls.push(u8::from(*cell == Cell::Null));
        }
        let bytes = &mut self.bytes;
        match (column.kind, cell) {
            (kind, Cell::Null) => self.push_default(kind),
            (Kind::Text | Kind::Json, Cell::Text(text)) => push_bytes(bytes, text.as_bytes()),
            (Kind::Text | Kind::Json, Cell::Json(map)) => {
                push_bytes(bytes, &serde_json::to_vec(map).map_err(|_| "json")?);
            }
            (Kind::Paths, Cell::Json(map)) => self.push_object(map)?,
            (Kind::Paths, Cell::Text(text)) => {
                self.push_object(
                    &serde_json::from_str(text).map_err(|_| "text that is no object")?,
                )?;
            }
            (Kind::Text, Cell::Uuid(id)) => push_bytes(bytes, id.to_string().as_bytes()),
            (Kind::Text, Cell::Int(number)) => push_bytes(bytes, number.to_string().as_bytes()),
            (Kind::Text, Cell::Money(amount)) => push_bytes(bytes, amount.to_string().as_bytes()),
            (Kind::Uuid, Cell::Uuid(id)) => push_uuid(bytes, *id),
            (Kind::Bool, Cell::Bool(truth)) => bytes.push(u8::from(*truth)),
            (Kind::Int { bits, signed }, Cell::Int(number)) => {
                push_int(bytes, bits, signed, *number).ok_or("whole number beyond the type")?;
            }
            (Kind::Int { bits, signed }, Cell::Bool(truth)) => {
                push_int(bytes, bits, signed, i64::from(*truth)).ok_or("truth")?;
            }
            (Kind::Float, Cell::Float(number)) => bytes.extend(number.to_le_bytes()),
            (Kind::Float, Cell::Int(number)) => {
                #[expect(clippy::cast_precision_loss, reason = "the column is a Float64")]
                bytes.extend((*number as f64).to_le_bytes());
            }
            (Kind::Float, Cell::Money(amount)) => {
                #[expect(clippy::cast_precision_loss, reason = "the column is a Float64")]
                bytes.extend((amount.units() as f64 / 10_000.0).to_le_bytes());
            }
            (Kind::Money, Cell::Money(amount)) => bytes.extend(amount.units().to_le_bytes()),
            (Kind::Time, Cell::Time(moment)) => bytes.extend(milliseconds(*moment).to_le_bytes()),
            (Kind::Date, Cell::Date(day)) => {
                bytes.extend((day.num_days_from_ce() - EPOCH_DAYS).to_le_bytes());
            }
            (Kind::Texts, Cell::List(texts)) => {
                for text in texts.iter() {
                    push_bytes(bytes, text.as_bytes());
                }
                self.end_list(texts.len());
            }
            (Kind::Uuids, Cell::List(texts)) => {
                for text in texts.iter() {
                    push_uuid(bytes, text.parse().map_err(|_| "text that is no id")?);
                }
                self.end_list(texts.len());
            }
            (_, cell) => return Err(cell.kind()),
        }
        Ok(())
    }

    /// What stands where nothing is: below a NULL, or in a column that takes none.
    fn push_default(&mut self, kind: Kind) {
        let width = match kind {
            Kind::Json => return push_bytes(&mut self.bytes, b"{}"),
            Kind::Texts | Kind::Uuids | Kind::Paths => return self.end_list(0),
            Kind::Text | Kind::Bool => 1,
            Kind::Uuid => 16,
            Kind::Int { bits, .. } => usize::from(bits / 8),
            Kind::Date => 4,
            Kind::Float | Kind::Money | Kind::Time => 8,
        };
        self.bytes.resize(self.bytes.len() + width, 0);
    }

    fn push_object(&mut self, object: &Map<String, Value>) -> Result<(), &'static str> {
        let pushed = json::push(object, &mut self.bytes, &mut self.second);
        self.end_list(pushed.map_err(|json::TwoValues| "an object with two values at one path")?);
        Ok(())
    }

    fn end_list(&mut self, items: usize) {
        self.items += items as u64;
        self.ends.extend(self.items.to_le_bytes());
    }
}

fn milliseconds(moment: DateTime<Utc>) -> i64 {
    moment.timestamp_millis()
}

/// A UUID is two halves, each little-endian.
fn push_uuid(bytes: &mut Vec<u8>, id: Uuid) {
    let (high, low) = id.as_u64_pair();
    bytes.extend(high.to_le_bytes());
    bytes.extend(low.to_le_bytes());
}

/// `None` when the number is beyond the type.
fn push_int(bytes: &mut Vec<u8>, bits: u8, signed: bool, number: i64) -> Option<()> {
    let (least, most) = match (bits, signed) {
        (64, true) => (i64::MIN, i64::MAX),
        (64, false) => (0, i64::MAX),
        (bits, true) => (-(1 << (bits - 1)), (1 << (bits - 1)) - 1),
        (bits, false) => (0, (1 << bits) - 1),
    };
    let fits = (least..=most).contains(&number);
    let width = usize::from(bits / 8);
    bytes.extend(number.to_le_bytes().get(..width).filter(|_| fits)?);
    Some(())
}

#[cfg(test)]
pub(super) mod tests;
