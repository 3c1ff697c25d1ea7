//! Tolerant typed reading of loose values: coerced where nothing is lost, else given back.
//!
//! A value that is given back keeps its place in `params` under its name, so that no input is lost
//! because a client sent a number as a list. Absent is `null`.

use serde_json::{Map, Value};

/// A typed reading: absent, the value, or the input itself when it is of another kind.
pub(super) type Read<T> = Result<Option<T>, Value>;

/// Bytes of a text that stands for an id; a longer one is no id.
pub(super) const ID_BYTES_MAX: usize = 128;

/// Text as it is; numbers and truth values in their JSON spelling.
pub(super) fn text(value: Value, bytes_max: usize) -> Read<String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(tidy(text, bytes_max)).filter(|text| !text.is_empty())),
        Value::Number(number) => Ok(Some(number.to_string())),
        Value::Bool(truth) => Ok(Some(truth.to_string())),
        Value::Array(_) | Value::Object(_) => Err(value),
    }
}

/// A whole number, or a text or float that is exactly one.
pub(super) fn whole(value: Value) -> Read<i64> {
    let found = match &value {
        Value::Null => return Ok(None),
        Value::Number(number) => number.as_i64().or_else(|| exact(number.as_f64()?)),
        Value::String(text) if text.trim().is_empty() => return Ok(None),
        Value::String(text) => {
            let text = text.trim();
            text.parse().ok().or_else(|| exact(text.parse().ok()?))
        }
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    found.map(Some).ok_or(value)
}

/// A finite number, or a text that is one.
pub(super) fn number(value: Value) -> Read<f64> {
    let found = match &value {
        Value::Null => return Ok(None),
        Value::Number(number) => number.as_f64(),
        Value::String(text) if text.trim().is_empty() => return Ok(None),
        Value::String(text) => text.trim().parse().ok(),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    found.filter(|number| number.is_finite()).map(Some).ok_or(value)
}

/// An object, or a text that holds one.
pub(super) fn object(value: Value, nesting_max: usize) -> Read<Map<String, Value>> {
    match value {
        Value::Null => Ok(None),
        Value::Object(object) => Ok(Some(object)),
        Value::String(text) => match super::hit::parse_json(text.as_bytes(), nesting_max) {
            Ok(Value::Object(object)) => Ok(Some(object)),
            _ if text.is_empty() => Ok(None),
            _ => Err(Value::String(text)),
        },
        Value::Bool(_) | Value::Number(_) | Value::Array(_) => Err(value),
    }
}

/// The text of an id, which may be any UUID or any short text. An empty one is absent, another
/// malformed one is given back.
pub(super) fn id(value: Value) -> Read<String> {
    let text = match value {
        Value::Null => return Ok(None),
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        Value::Bool(_) | Value::Array(_) | Value::Object(_) => return Err(value),
    };
    let trimmed = text.trim();
    if trimmed.len() > ID_BYTES_MAX || trimmed.chars().any(char::is_control) {
        return Err(Value::String(text));
    }
    Ok((!trimmed.is_empty()).then(|| trimmed.to_owned()))
}

/// `text` without NUL, which no store takes, and cut to `bytes_max` at a character.
pub(super) fn tidy(mut text: String, bytes_max: usize) -> String {
    if text.as_bytes().contains(&0) {
        text.retain(|character| character != '\0');
    }
    cut(&mut text, bytes_max);
    text
}

/// Cuts `text` to at most `bytes_max` bytes at a character.
pub(super) fn cut(text: &mut String, bytes_max: usize) {
    if text.len() > bytes_max {
        let end = (0..=bytes_max).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
    }
}

/// `text` in lower case; without a copy when it is already.
pub(super) fn fold(text: String) -> String {
    if text.is_ascii() {
        let mut text = text;
        text.make_ascii_lowercase();
        text
    } else {
        text.to_lowercase()
    }
}

/// The whole number that `number` is, within the range where a float is exact.
fn exact(number: f64) -> Option<i64> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53")]
    (number.fract() == 0.0 && number.abs() <= EXACT_MAX).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_is_coerced_where_nothing_is_lost() {
        for (value, expect) in [
            (json!("a"), Ok(Some("a".to_owned()))),
            (json!(1), Ok(Some("1".to_owned()))),
            (json!(1.5), Ok(Some("1.5".to_owned()))),
            (json!(true), Ok(Some("true".to_owned()))),
            (json!(null), Ok(None)),
            (json!(""), Ok(None)),
            (json!([1]), Err(json!([1]))),
            (json!({"a": 1}), Err(json!({"a": 1}))),
        ] {
            assert_eq!(text(value.clone(), 100), expect, "{value}");
        }
    }

    #[test]
    fn whole_numbers_come_from_numbers_and_texts_that_are_exactly_one() {
        for (value, expect) in [
            (json!(3), Ok(Some(3))),
            (json!(-3.0), Ok(Some(-3))),
            (json!(" 42 "), Ok(Some(42))),
            (json!("1e3"), Ok(Some(1000))),
            (json!(""), Ok(None)),
            (json!(3.5), Err(json!(3.5))),
            (json!(1e300), Err(json!(1e300))),
            (json!(u64::MAX), Err(json!(u64::MAX))),
            (json!("nan"), Err(json!("nan"))),
            (json!(true), Err(json!(true))),
        ] {
            assert_eq!(whole(value.clone()), expect, "{value}");
        }
    }

    #[test]
    fn numbers_are_finite() {
        for (value, expect) in [
            (json!(1.5), Ok(Some(1.5))),
            (json!("-2.5"), Ok(Some(-2.5))),
            (json!("inf"), Err(json!("inf"))),
            (json!("NaN"), Err(json!("NaN"))),
            (json!([]), Err(json!([]))),
        ] {
            assert_eq!(number(value.clone()), expect, "{value}");
        }
    }

    #[test]
    fn an_empty_id_is_absent_and_a_malformed_one_given_back() {
        for (value, expect) in [
            (json!("user-123"), Ok(Some("user-123".to_owned()))),
            (json!(42), Ok(Some("42".to_owned()))),
            (json!("  "), Ok(None)),
            (json!("a\u{7}b"), Err(json!("a\u{7}b"))),
            (json!("x".repeat(128)), Ok(Some("x".repeat(128)))),
            (json!("x".repeat(129)), Err(json!("x".repeat(129)))),
            (json!(["a"]), Err(json!(["a"]))),
        ] {
            assert_eq!(id(value.clone()), expect, "{value}");
        }
    }

    #[test]
    fn a_text_is_cut_at_a_character_and_loses_nul() {
        assert_eq!(tidy("a\0b".to_owned(), 9), "ab");
        assert_eq!(tidy("aüb".to_owned(), 2), "a");
        assert_eq!(tidy("aüb".to_owned(), 3), "aü");
        assert_eq!(tidy("ü".to_owned(), 0), "");
    }
}
