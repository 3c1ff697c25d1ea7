//! A value of an answer as JSON.
//!
//! ClickHouse writes JSON by itself; what it writes differently from the other stores is mended by the
//! type of the column. Whole numbers up to 64 bits are numbers, wider ones are text when they do not
//! fit; so are decimals with more digits than every reader keeps. Moments are
//! `YYYY-MM-DDTHH:MM:SS.mmmZ`.

use chrono::{DateTime, NaiveDateTime, Utc};
use serde_json::Value;
use serde_json::value::RawValue;

use super::transport::Table;
use crate::backends::Rows;

/// Decimal digits that a number of JSON holds exactly in every reader.
const EXACT_DIGITS: usize = 15;

/// Types that say nothing about the form of their values.
const WRAPPERS: [&str; 2] = ["Nullable(", "LowCardinality("];

/// The rows of a table; what cannot be read as JSON is null.
pub(super) fn rows(table: Table) -> Rows {
    let Table { columns, types, rows, truncated } = table;
    let types: Vec<&str> = types.iter().map(|written| bare(written)).collect();
    let row = |row: Vec<Box<RawValue>>| {
        row.iter().zip(&types).map(|(written, of)| value(of, written.get())).collect()
    };
    Rows { columns, rows: rows.into_iter().map(row).collect(), truncated }
}

/// The type inside of what only wraps it.
fn bare(written: &str) -> &str {
    let mut inner = written;
    while let Some(rest) = WRAPPERS.iter().find_map(|wrapper| inner.strip_prefix(wrapper)) {
        inner = rest.strip_suffix(')').unwrap_or(rest);
    }
    inner
}

fn value(of: &str, written: &str) -> Value {
    if written != "null" && (of.starts_with("Int") || of.starts_with("UInt")) {
        return whole(written);
    }
    if written != "null" && of.starts_with("Decimal") {
        return decimal(written);
    }
    let value = serde_json::from_str(written).unwrap_or_default();
    match value {
        Value::String(text) if of.starts_with("DateTime") => moment(of, text).into(),
        other => other,
    }
}

/// Older servers quote the wide ones.
fn whole(written: &str) -> Value {
    let digits = written.trim_matches('"');
    let number = digits.parse::<i64>().map(Value::from);
    number.or_else(|_| digits.parse::<u64>().map(Value::from)).unwrap_or_else(|_| digits.into())
}

fn decimal(written: &str) -> Value {
    let written = written.trim_matches('"');
    let digits = written.bytes().filter(u8::is_ascii_digit).count();
    match written.parse::<f64>() {
        Ok(number) if digits <= EXACT_DIGITS => number.into(),
        _ => written.into(),
    }
}

/// As asked for it is written in ISO 8601; a user who may not ask gets the local form, which is a
/// moment only where the type says that it is UTC's.
fn moment(of: &str, text: String) -> String {
    let known =
        text.parse::<DateTime<Utc>>().ok().or_else(|| of.contains("'UTC'").then(|| utc(&text))?);
    known.map_or(text, |moment| moment.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

/// A moment of UTC in the local form.
pub(super) fn utc(text: &str) -> Option<DateTime<Utc>> {
    NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").ok().map(|local| local.and_utc())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_has_the_form_that_every_store_gives_it() {
        for (of, written, expect) in [
            ("UInt64", "18446744073709551615", json!(u64::MAX)),
            ("Int64", "\"-9\"", json!(-9)),
            ("UInt128", "1180591620717411303424", json!("1180591620717411303424")),
            ("Nullable(Int64)", "null", json!(null)),
            ("Decimal(18, 4)", "1.5", json!(1.5)),
            ("Nullable(Decimal(18, 4))", "null", json!(null)),
            ("Decimal(38, 4)", "12345678901234.5678", json!("12345678901234.5678")),
            (
                "DateTime64(3, 'UTC')",
                "\"2026-01-02T03:04:05.678Z\"",
                json!("2026-01-02T03:04:05.678Z"),
            ),
            ("DateTime", "\"2026-01-02T03:04:05Z\"", json!("2026-01-02T03:04:05.000Z")),
            (
                "DateTime64(6, 'UTC')",
                "\"2026-01-02 03:04:05.678901\"",
                json!("2026-01-02T03:04:05.678Z"),
            ),
            ("DateTime64(3)", "\"2026-01-02 03:04:05.678\"", json!("2026-01-02 03:04:05.678")),
            ("LowCardinality(Nullable(String))", "\"x\"", json!("x")),
            ("JSON(max_dynamic_paths=0)", r#"{"a":{"b":1}}"#, json!({"a": {"b": 1}})),
            ("Array(UInt64)", "[1]", json!([1])),
            ("Float64", "null", json!(null)),
        ] {
            assert_eq!(value(bare(of), written), expect, "{of} {written}");
        }
    }
}
