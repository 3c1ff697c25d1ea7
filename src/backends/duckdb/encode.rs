//! Cells into Arrow columns, which DuckDB appends a vector at a time.
//!
//! The types come from the catalog of the open file, not from a second list here. An Arrow column
//! has the widest type of its family; DuckDB narrows it and refuses what does not fit.

use std::collections::HashMap;
use std::sync::Arc;

use duckdb::Connection;
use duckdb::arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Decimal128Builder, FixedSizeBinaryBuilder,
    Float64Builder, Int64Builder, ListBuilder, StringBuilder, TimestampMicrosecondBuilder,
};
use duckdb::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use duckdb::arrow::error::ArrowError;
use duckdb::arrow::record_batch::RecordBatch;
use thiserror::Error;

use crate::backends::ReadError;
use crate::event::{Event, Money};
use crate::tables::{AnyTable, Cell};

/// Rows of one Arrow batch: four vectors of DuckDB, enough to forget the cost of a call and little
/// enough that the copy stays in the cache.
pub(super) const BATCH_ROWS: usize = 8192;

/// Money as Arrow has it.
#[expect(clippy::cast_possible_truncation, reason = "18 and 4")]
const MONEY: DataType = DataType::Decimal128(Money::PRECISION as u8, Money::SCALE as i8);

/// Days from 1 January of year 1 to 1 January 1970.
const EPOCH_DAYS: i32 = 719_163;

/// A file whose table is not what this program writes.
#[derive(Debug, Error)]
pub(super) enum LayoutError {
    /// The catalog could not be read.
    #[error("reading the columns of {table}")]
    Catalog {
        /// The table.
        table: &'static str,
        /// The library's error.
        source: duckdb::Error,
    },
    /// The table or the column is not there.
    #[error("{table} has no column {column}")]
    Missing {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
    },
    /// The column has a type that no cell fits.
    #[error("column {column} of {table} has type {found}, which cannot be written")]
    Type {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The type in the catalog.
        found: String,
    },
}

/// A row that does not fit its table.
#[derive(Debug, Error)]
pub(super) enum EncodeError {
    /// An event was not read.
    #[error("reading an event for {table}")]
    Read {
        /// The table.
        table: &'static str,
        /// Why.
        source: ReadError,
    },
    /// The cell is of another kind than its column.
    #[error("{cell} does not fit column {column} of {table}")]
    Mismatch {
        /// The table.
        table: &'static str,
        /// The column.
        column: &'static str,
        /// The kind of the cell; never its value.
        cell: &'static str,
    },
    /// Arrow refused the columns.
    #[error("columns of {table} do not fit together")]
    Arrow {
        /// The table.
        table: &'static str,
        /// Arrow's error.
        source: ArrowError,
    },
}

/// The columns of one table as they are written.
pub(super) struct Layout {
    /// The table.
    pub(super) table: &'static dyn AnyTable,
    /// Names in the order of the table's cells.
    pub(super) columns: Vec<&'static str>,
    kinds: Vec<Kind>,
    schema: SchemaRef,
}

/// The families of column types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Uuid,
    Bool,
    Int,
    Float,
    Money,
    Time,
    Date,
    Texts,
}

impl Kind {
    fn of(data_type: &str) -> Option<Self> {
        Some(match data_type {
            "VARCHAR" | "JSON" => Self::Text,
            "UUID" => Self::Uuid,
            "BOOLEAN" => Self::Bool,
            "SMALLINT" | "INTEGER" | "BIGINT" | "UBIGINT" | "HUGEINT" => Self::Int,
            "DOUBLE" => Self::Float,
            "DECIMAL(18,4)" => Self::Money,
            "TIMESTAMP" => Self::Time,
            "DATE" => Self::Date,
            "VARCHAR[]" | "UUID[]" => Self::Texts,
            _ => return None,
        })
    }

    fn field(self, name: &str) -> Field {
        let field = |data_type| Field::new(name, data_type, true);
        match self {
            Self::Text => field(DataType::Utf8),
            Self::Uuid => field(DataType::FixedSizeBinary(16)).with_metadata(HashMap::from([(
                "ARROW:extension:name".to_owned(),
                "arrow.uuid".to_owned(),
            )])),
            Self::Bool => field(DataType::Boolean),
            Self::Int => field(DataType::Int64),
            Self::Float => field(DataType::Float64),
            Self::Money => field(MONEY),
            Self::Time => field(DataType::Timestamp(TimeUnit::Microsecond, None)),
            Self::Date => field(DataType::Date32),
            Self::Texts => field(DataType::new_list(DataType::Utf8, true)),
        }
    }

    fn builder(self, rows: usize) -> Builder {
        match self {
            Self::Text => Builder::Text(StringBuilder::with_capacity(rows, rows * 16)),
            Self::Uuid => Builder::Uuid(FixedSizeBinaryBuilder::with_capacity(rows, 16)),
            Self::Bool => Builder::Bool(BooleanBuilder::with_capacity(rows)),
            Self::Int => Builder::Int(Int64Builder::with_capacity(rows)),
            Self::Float => Builder::Float(Float64Builder::with_capacity(rows)),
            Self::Money => {
                Builder::Money(Decimal128Builder::with_capacity(rows).with_data_type(MONEY))
            }
            Self::Time => Builder::Time(TimestampMicrosecondBuilder::with_capacity(rows)),
            Self::Date => Builder::Date(Date32Builder::with_capacity(rows)),
            Self::Texts => Builder::Texts(ListBuilder::new(StringBuilder::new())),
        }
    }
}

impl Layout {
    /// Reads the types of `table`'s columns in the open file.
    ///
    /// # Errors
    /// When a column is missing or has a type that cannot be written.
    pub(super) fn read(
        connection: &Connection,
        table: &'static dyn AnyTable,
    ) -> Result<Self, LayoutError> {
        let name = table.name();
        let types = column_types(connection, name)
            .map_err(|source| LayoutError::Catalog { table: name, source })?;
        let columns = table.columns();
        let mut kinds = Vec::with_capacity(columns.len());
        for &column in &columns {
            let Some(found) = types.get(column) else {
                return Err(LayoutError::Missing { table: name, column });
            };
            let Some(kind) = Kind::of(found) else {
                let found = found.clone();
                return Err(LayoutError::Type { table: name, column, found });
            };
            kinds.push(kind);
        }
        let fields: Vec<Field> =
            columns.iter().zip(&kinds).map(|(column, kind)| kind.field(column)).collect();
        Ok(Self { table, columns, kinds, schema: Arc::new(Schema::new(fields)) })
    }

    /// The rows of the next `events` as columns, those of [`BATCH_ROWS`] events at most.
    ///
    /// # Errors
    /// When an event cannot be read, or a cell is of another kind than its column.
    pub(super) fn encode(
        &self,
        events: impl Iterator<Item = Result<Arc<Event>, ReadError>>,
    ) -> Result<RecordBatch, EncodeError> {
        let table = self.table.name();
        let rows = events.size_hint().1.map_or(BATCH_ROWS, |most| most.min(BATCH_ROWS));
        let mut builders: Vec<Builder> = self.kinds.iter().map(|kind| kind.builder(rows)).collect();
        for event in events.take(BATCH_ROWS) {
            let event = event.map_err(|source| EncodeError::Read { table, source })?;
            let mut cells = Vec::with_capacity(self.columns.len());
            self.table.rows(&event, &mut cells);
            for row in cells.chunks(self.columns.len().max(1)) {
                for ((builder, cell), &column) in builders.iter_mut().zip(row).zip(&self.columns) {
                    builder.append(cell).map_err(|cell| EncodeError::Mismatch {
                        table,
                        column,
                        cell,
                    })?;
                }
            }
        }
        let columns = builders.into_iter().map(Builder::finish).collect();
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
            .map_err(|source| EncodeError::Arrow { table, source })
    }
}

fn column_types(
    connection: &Connection,
    table: &str,
) -> Result<HashMap<String, String>, duckdb::Error> {
    connection
        .prepare(
            "select column_name, data_type from duckdb_columns() \
             where schema_name = 'main' and database_name = current_database() \
             and table_name = ?",
        )?
        .query_map([table], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect()
}

/// A column being filled.
enum Builder {
    Text(StringBuilder),
    Uuid(FixedSizeBinaryBuilder),
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Float(Float64Builder),
    Money(Decimal128Builder),
    Time(TimestampMicrosecondBuilder),
    Date(Date32Builder),
    Texts(ListBuilder<StringBuilder>),
}

impl Builder {
    /// Adds one cell; the error is the kind of cell that does not fit.
    fn append(&mut self, cell: &Cell<'_>) -> Result<(), &'static str> {
        match (self, cell) {
            (builder, Cell::Null) => builder.append_null(),
            (Self::Text(builder), Cell::Text(text)) => builder.append_value(text),
            (Self::Text(builder), Cell::Json(map)) => {
                builder.append_value(serde_json::to_string(map).map_err(|_| "json")?);
            }
            (Self::Uuid(builder), Cell::Uuid(id)) => {
                builder.append_value(id.as_bytes()).map_err(|_| "uuid")?;
            }
            (Self::Bool(builder), Cell::Bool(truth)) => builder.append_value(*truth),
            (Self::Int(builder), Cell::Int(number)) => builder.append_value(*number),
            (Self::Float(builder), Cell::Float(number)) => builder.append_value(*number),
            (Self::Money(builder), Cell::Money(amount)) => {
                builder.append_value(i128::from(amount.units()));
            }
            (Self::Time(builder), Cell::Time(moment)) => {
                builder.append_value(moment.timestamp_micros());
            }
            (Self::Date(builder), Cell::Date(day)) => {
                builder.append_value(chrono::Datelike::num_days_from_ce(day) - EPOCH_DAYS);
            }
            (Self::Texts(builder), Cell::List(texts)) => {
                for text in texts.iter() {
                    builder.values().append_value(text);
                }
                builder.append(true);
            }
            (_, cell) => return Err(cell.kind()),
        }
        Ok(())
    }

    fn append_null(&mut self) {
        match self {
            Self::Text(builder) => builder.append_null(),
            Self::Uuid(builder) => builder.append_null(),
            Self::Bool(builder) => builder.append_null(),
            Self::Int(builder) => builder.append_null(),
            Self::Float(builder) => builder.append_null(),
            Self::Money(builder) => builder.append_null(),
            Self::Time(builder) => builder.append_null(),
            Self::Date(builder) => builder.append_null(),
            Self::Texts(builder) => builder.append_null(),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::Text(mut builder) => Arc::new(builder.finish()),
            Self::Uuid(mut builder) => Arc::new(builder.finish()),
            Self::Bool(mut builder) => Arc::new(builder.finish()),
            Self::Int(mut builder) => Arc::new(builder.finish()),
            Self::Float(mut builder) => Arc::new(builder.finish()),
            Self::Money(mut builder) => Arc::new(builder.finish()),
            Self::Time(mut builder) => Arc::new(builder.finish()),
            Self::Date(mut builder) => Arc::new(builder.finish()),
            Self::Texts(mut builder) => Arc::new(builder.finish()),
        }
    }
}
