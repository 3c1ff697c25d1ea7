//! A statement of a person, run so that it can only read.
//!
//! Four walls, each enough for what it is meant for:
//! 1. DuckDB's own parser must see exactly one statement and it must be a `select` (which `from`,
//!    `with`, `values`, `describe`, `show` and `summarize` are to it). This comes before anything
//!    is prepared, since preparing several statements runs all but the last.
//! 2. Every function that stands in place of a table must be on a list. Some of them change the
//!    library's state or read files, and they count as reading.
//! 3. The transaction is read-only.
//! 4. The file was opened without access to other files, and its settings are locked
//!    ([`super::file`]).
//!
//! Rows and bytes of the answer are bounded here, time by [`super::reader`], memory by the pool of
//! the database.

use duckdb::arrow::array::{Array, StructArray};
use duckdb::core::LogicalTypeId;
use duckdb::{Connection, Params};
use serde_json::Value;

use super::values;
use crate::backends::{Rows, StoreError};

/// Bytes of one answer; a row more is cut, as with too many rows.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Functions that may stand in place of a table: they make rows from their arguments or describe
/// the catalog.
const TABLE_FUNCTIONS: &[&str] = &[
    "duckdb_columns",
    "duckdb_constraints",
    "duckdb_databases",
    "duckdb_functions",
    "duckdb_indexes",
    "duckdb_keywords",
    "duckdb_memory",
    "duckdb_schemas",
    "duckdb_sequences",
    "duckdb_settings",
    "duckdb_tables",
    "duckdb_temporary_files",
    "duckdb_types",
    "duckdb_views",
    "generate_series",
    "json_each",
    "json_tree",
    "pragma_database_size",
    "pragma_storage_info",
    "pragma_table_info",
    "pragma_version",
    "range",
    "repeat",
    "summary",
    "unnest",
];

/// Why a query has no rows.
#[derive(Debug)]
pub(super) enum QueryError {
    /// It may not run; the text says why.
    Refused(String),
    /// The library failed at it.
    Database(duckdb::Error),
}

impl From<duckdb::Error> for QueryError {
    fn from(error: duckdb::Error) -> Self {
        Self::Database(error)
    }
}

impl QueryError {
    /// The reaction of a route to a query that could take `time_max`.
    pub(super) fn into_store_error(self, time_max: std::time::Duration) -> StoreError {
        match self {
            Self::Refused(text) => StoreError::Invalid(text),
            Self::Database(error) => super::fault::store_error(error, time_max),
        }
    }
}

/// The rows of `sql`.
///
/// # Errors
/// When it is not one reading statement, or fails.
pub(super) fn run(connection: &Connection, sql: &str, rows_max: usize) -> Result<Rows, QueryError> {
    check(connection, sql)?;
    connection.execute_batch("begin transaction read only")?;
    let rows = select(connection, sql, [], rows_max);
    connection.execute_batch("rollback")?;
    rows
}

/// Refuses what is not one reading statement.
fn check(connection: &Connection, sql: &str) -> Result<(), QueryError> {
    let tree: String = connection.query_row(
        "select json_serialize_sql(?::varchar)::varchar",
        [without_explain(sql)],
        |row| row.get(0),
    )?;
    let tree: Value = serde_json::from_str(&tree)
        .map_err(|_| QueryError::Refused("the query is nested too deeply".to_owned()))?;
    if tree.get("error").and_then(Value::as_bool) != Some(false) {
        return Err(QueryError::Refused(parser_message(&tree)));
    }
    match tree.get("statements").and_then(Value::as_array).map(Vec::as_slice) {
        Some([statement]) => check_functions(statement),
        _ => Err(QueryError::Refused("one statement at a time".to_owned())),
    }
}

/// The statement behind `explain` and `explain analyze`, which the parser cannot write as a tree.
/// If this is mistaken about the words, the parser still has to accept what is left.
fn without_explain(sql: &str) -> &str {
    let Some(rest) = after_word(sql, "explain") else { return sql };
    after_word(rest, "analyze").unwrap_or(rest)
}

fn after_word<'s>(text: &'s str, word: &str) -> Option<&'s str> {
    let (start, rest) = text.trim_start().split_at_checked(word.len())?;
    (start.eq_ignore_ascii_case(word) && rest.starts_with(char::is_whitespace)).then_some(rest)
}

fn parser_message(tree: &Value) -> String {
    let told = tree.get("error_message").and_then(Value::as_str).unwrap_or_default();
    match tree.get("error_type").and_then(Value::as_str) {
        Some("not implemented") => "only a query that reads is allowed here".to_owned(),
        _ if told.is_empty() => "the query cannot be read".to_owned(),
        _ => told.to_owned(),
    }
}

fn check_functions(node: &Value) -> Result<(), QueryError> {
    match node {
        Value::Array(nodes) => nodes.iter().try_for_each(check_functions),
        Value::Object(fields) => {
            if fields.get("type").and_then(Value::as_str) == Some("TABLE_FUNCTION") {
                check_function(fields.get("function"))?;
            }
            fields.values().try_for_each(check_functions)
        }
        _ => Ok(()),
    }
}

fn check_function(function: Option<&Value>) -> Result<(), QueryError> {
    let name = function
        .and_then(|function| function.get("function_name"))
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_lowercase();
    if TABLE_FUNCTIONS.contains(&name.as_str()) {
        Ok(())
    } else {
        Err(QueryError::Refused(format!("the function {name} is not allowed here")))
    }
}

/// The rows of a statement that is known to be harmless.
///
/// # Errors
/// When it fails.
pub(super) fn select(
    connection: &Connection,
    sql: &str,
    parameters: impl Params,
    rows_max: usize,
) -> Result<Rows, QueryError> {
    let mut statement = connection.prepare(sql)?;
    // The iterator panics where `step` answers an error, so only the latter is used.
    drop(statement.stream_arrow(parameters)?);
    let mut rows = Rows { columns: statement.column_names(), ..Rows::default() };
    let json: Vec<bool> = (0..rows.columns.len())
        .map(|at| {
            let column = statement.column_logical_type(at);
            column.id() == LogicalTypeId::Varchar && column.get_alias().as_deref() == Some("JSON")
        })
        .collect();
    let mut bytes = 0;
    while let Some(chunk) = statement.step()? {
        take(&mut rows, &chunk, &json, rows_max, &mut bytes)?;
        if rows.truncated {
            break;
        }
    }
    Ok(rows)
}

fn take(
    rows: &mut Rows,
    chunk: &StructArray,
    json: &[bool],
    rows_max: usize,
    bytes: &mut usize,
) -> Result<(), QueryError> {
    for at in 0..chunk.len() {
        if rows.rows.len() >= rows_max || *bytes >= ANSWER_BYTES_MAX {
            rows.truncated = true;
            return Ok(());
        }
        let mut row = Vec::with_capacity(json.len());
        for (column, json) in chunk.columns().iter().zip(json) {
            let value = values::value(column.as_ref(), at, *json)
                .map_err(|error| QueryError::Refused(error.to_string()))?;
            *bytes += values::bytes(&value);
            row.push(value);
        }
        rows.rows.push(row);
    }
    Ok(())
}
