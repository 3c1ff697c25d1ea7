//! The answer to a query as text: for people, for spreadsheets, for programs.

use std::fmt::Write as _;
use std::io::{self, Write};

use clap::ValueEnum;
use serde_json::Value;

use crate::backends::Rows;

/// Widest cell of a table, in characters; the other formats cut nothing.
const CELL_WIDTH_MAX: usize = 100;

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Aligned columns and a row count, for people.
    Table,
    /// RFC 4180 with a header line; text that a spreadsheet would run as a formula gets a leading
    /// apostrophe.
    Csv,
    /// One JSON list of objects.
    Json,
    /// One JSON object a line.
    Ndjson,
}

/// Writes `rows` to `out`.
///
/// # Errors
/// When `out` cannot be written to.
pub(super) fn write(rows: &Rows, format: Format, out: &mut dyn Write) -> io::Result<()> {
    match format {
        Format::Table => table(rows, out),
        Format::Csv => csv(rows, out),
        Format::Json => json(rows, out),
        Format::Ndjson => ndjson(rows, out),
    }
}

fn table(rows: &Rows, out: &mut dyn Write) -> io::Result<()> {
    let header: Vec<String> = rows.columns.iter().map(|name| visible(name)).collect();
    let body: Vec<Vec<String>> =
        rows.rows.iter().map(|row| row.iter().map(|cell| visible(&text(cell))).collect()).collect();
    let mut widths: Vec<usize> = header.iter().map(|cell| cell.chars().count()).collect();
    for row in &body {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let numeric: Vec<bool> = (0..widths.len()).map(|index| is_numeric(rows, index)).collect();
    let line = |cells: &[String]| {
        let mut line = String::new();
        for (index, ((cell, width), right)) in cells.iter().zip(&widths).zip(&numeric).enumerate() {
            line.push_str(if index == 0 { " " } else { " | " });
            let width = *width;
            let written = if *right {
                write!(line, "{cell:>width$}")
            } else {
                write!(line, "{cell:<width$}")
            };
            debug_assert!(written.is_ok(), "writing to memory");
        }
        line.truncate(line.trim_end().len());
        line
    };
    writeln!(out, "{}", line(&header))?;
    let rules: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
    writeln!(out, "{}", rules.join("+"))?;
    for row in &body {
        writeln!(out, "{}", line(row))?;
    }
    let count = body.len();
    let more = if rows.truncated { ", more were cut" } else { "" };
    writeln!(out, "({count} {}{more})", if count == 1 { "row" } else { "rows" })
}

fn is_numeric(rows: &Rows, column: usize) -> bool {
    let mut cells =
        rows.rows.iter().filter_map(|row| row.get(column)).filter(|cell| !cell.is_null());
    let mut any = false;
    cells.all(|cell| {
        any = true;
        cell.is_number()
    }) && any
}

/// A value as people write it; absent is `NULL` only in tables.
fn text(cell: &Value) -> String {
    match cell {
        Value::Null => "NULL".to_owned(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => cell.to_string(),
    }
}

/// Stored text comes from strangers: what would move the cursor or colour the screen is escaped.
pub(super) fn printable(text: &str) -> String {
    let mut seen = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { seen.extend(c.escape_default()) } else { seen.push(c) }
    }
    seen
}

/// A cell of a table: printable, and not wider than a cell may be.
fn visible(text: &str) -> String {
    match text.char_indices().nth(CELL_WIDTH_MAX) {
        Some((end, _)) => printable(text.get(..end).unwrap_or(text)) + "…",
        None => printable(text),
    }
}

fn csv(rows: &Rows, out: &mut dyn Write) -> io::Result<()> {
    let header: Vec<String> = rows.columns.iter().map(|name| csv_text(name)).collect();
    writeln!(out, "{}", header.join(","))?;
    for row in &rows.rows {
        let cells: Vec<String> = row.iter().map(csv_cell).collect();
        writeln!(out, "{}", cells.join(","))?;
    }
    Ok(())
}

fn csv_cell(cell: &Value) -> String {
    match cell {
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) => cell.to_string(),
        Value::String(text) => csv_text(text),
        Value::Array(_) | Value::Object(_) => csv_text(&cell.to_string()),
    }
}

fn csv_text(text: &str) -> String {
    let formula = text.starts_with(['=', '+', '-', '@', '\t', '\r']);
    let safe = if formula { format!("'{text}") } else { text.to_owned() };
    if safe.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", safe.replace('"', "\"\""))
    } else {
        safe
    }
}

fn json(rows: &Rows, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "[")?;
    let names = unique(&rows.columns);
    let last = rows.rows.len().saturating_sub(1);
    for (index, row) in rows.rows.iter().enumerate() {
        writeln!(out, "  {}{}", object(&names, row), if index == last { "" } else { "," })?;
    }
    writeln!(out, "]")
}

fn ndjson(rows: &Rows, out: &mut dyn Write) -> io::Result<()> {
    let names = unique(&rows.columns);
    rows.rows.iter().try_for_each(|row| writeln!(out, "{}", object(&names, row)))
}

fn object(names: &[String], row: &[Value]) -> Value {
    Value::Object(names.iter().cloned().zip(row.iter().cloned()).collect())
}

/// A query may name two columns alike; an object cannot, so a later one gets its number.
fn unique(columns: &[String]) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(columns.len());
    for (index, column) in columns.iter().enumerate() {
        let twin = names.contains(column);
        names.push(if twin { format!("{column}_{}", index + 1) } else { column.clone() });
    }
    names
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rows(columns: &[&str], rows: &[Value], truncated: bool) -> Rows {
        let columns = columns.iter().map(|name| (*name).to_owned()).collect();
        let rows = rows.iter().map(|row| row.as_array().unwrap().clone()).collect();
        Rows { columns, rows, truncated }
    }

    fn check(format: Format, rows: &Rows, expect: &str) {
        let mut out = Vec::new();
        write(rows, format, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    #[test]
    fn a_table_is_aligned_with_numbers_to_the_right_and_counts_its_rows() {
        let two = rows(&["ename", "n"], &[json!(["page_view", 7]), json!([null, 12_345])], false);
        check(
            Format::Table,
            &two,
            " ename     |     n\n-----------+-------\n page_view |     7\n NULL      | 12345\n(2 rows)\n",
        );
        let one = rows(&["a"], &[json!([true])], true);
        check(Format::Table, &one, " a\n------\n true\n(1 row, more were cut)\n");
        check(Format::Table, &rows(&["a"], &[], false), " a\n---\n(0 rows)\n");
    }

    #[test]
    fn a_table_shows_control_characters_instead_of_obeying_them() {
        let row = rows(&["a"], &[json!(["x\u{1b}[2Jy\n"])], false);
        check(Format::Table, &row, " a\n---------------\n x\\u{1b}[2Jy\\n\n(1 row)\n");
    }

    #[test]
    fn csv_is_quoted_and_no_text_is_a_formula() {
        for (cell, expect) in [
            (json!("=1+1"), "'=1+1"),
            (json!("+1"), "'+1"),
            (json!("-x"), "'-x"),
            (json!("@a"), "'@a"),
            (json!("\ta"), "'\ta"),
            (json!("\ra"), "\"'\ra\""),
            (json!(-5), "-5"),
            (json!(null), ""),
            (json!("a,b"), "\"a,b\""),
            (json!("say \"x\""), "\"say \"\"x\"\"\""),
            (json!("two\nlines"), "\"two\nlines\""),
            (json!({"a": 1}), "\"{\"\"a\"\":1}\""),
            (json!(""), ""),
        ] {
            assert_eq!(csv_cell(&cell), expect, "{cell}");
        }
        check(Format::Csv, &rows(&["=a", "b"], &[json!([1, 2])], false), "'=a,b\n1,2\n");
    }

    #[test]
    fn json_forms_name_every_column_even_two_of_one_name() {
        let two = rows(&["a", "a"], &[json!([1, "x"]), json!([2, null])], false);
        check(Format::Json, &two, "[\n  {\"a\":1,\"a_2\":\"x\"},\n  {\"a\":2,\"a_2\":null}\n]\n");
        check(Format::Ndjson, &two, "{\"a\":1,\"a_2\":\"x\"}\n{\"a\":2,\"a_2\":null}\n");
        check(Format::Json, &rows(&["a"], &[], false), "[\n]\n");
    }
}
