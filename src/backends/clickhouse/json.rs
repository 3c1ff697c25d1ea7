//! JSON objects in the binary form of ClickHouse's type `JSON(max_dynamic_paths=0)`.
//!
//! As text the server parses each object again, which is most of what an insert costs it: 60 µs of a
//! row of 16 members, where the other 79 columns cost 7. In this form it copies them. An object is its
//! leaves, each with its path (`a.b`), its type and its value, in the order of the paths; null is no
//! leaf. The types are those that the server infers itself: `Int64`, `UInt64` where that is too small,
//! `Float64`, `Bool`, `String`; lists of one of these, of lists, of objects; else of anything. Dates
//! are not looked for in texts.
//!
//! Sources: ClickHouse's "Data types binary encoding specification", its `RowBinary` of `JSON`, and version 1
//! of `SerializationObject` with no dynamic path, of which only the shared data is left.

use std::ops::Range;

use serde_json::{Map, Number, Value};

use super::wire::{push_bytes, push_length};

/// Type codes of the specification.
mod code {
    pub(super) const NOTHING: u8 = 0x00;
    pub(super) const UINT64: u8 = 0x04;
    pub(super) const INT64: u8 = 0x0a;
    pub(super) const FLOAT64: u8 = 0x0e;
    pub(super) const STRING: u8 = 0x15;
    pub(super) const ARRAY: u8 = 0x1e;
    pub(super) const NULLABLE: u8 = 0x23;
    pub(super) const BOOL: u8 = 0x2d;
    /// `Dynamic(max_types=32)`.
    pub(super) const DYNAMIC: &[u8] = &[0x2b, 32];
    /// `JSON(max_dynamic_types=16, max_dynamic_paths=0)`, no typed and no skipped paths.
    pub(super) const JSON: &[u8] = &[0x30, 0, 0, 16, 0, 0, 0];
}

/// What stands before the values of a column: version 1 (written as 0), no dynamic path, at most none.
pub(super) const PREFIX: &[u8] = &[0; 10];

/// An object that is not one value for each path, such as `{"a.b": 1, "a": {"b": 2}}`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TwoValues;

/// The leaves of an object, while they are put in order.
#[derive(Default)]
struct Leaves {
    paths: Vec<u8>,
    values: Vec<u8>,
    /// A path and a value each.
    pairs: Vec<(Range<usize>, Range<usize>)>,
}

/// Appends the paths of `object` to `paths` and its values to `values`, each behind its length; how
/// many.
///
/// # Errors
/// When there are two values at one path; then nothing was appended.
pub(super) fn push(
    object: &Map<String, Value>,
    paths: &mut Vec<u8>,
    values: &mut Vec<u8>,
) -> Result<usize, TwoValues> {
    let leaves = Leaves::of(object)?;
    for (path, value) in leaves.ordered() {
        push_bytes(paths, path);
        push_bytes(values, value);
    }
    Ok(leaves.pairs.len())
}

impl Leaves {
    fn of(object: &Map<String, Value>) -> Result<Self, TwoValues> {
        let mut found = Self::default();
        found.collect(object, &mut String::new(), true)?;
        let Self { paths, pairs, .. } = &mut found;
        let path = |pair: &(Range<usize>, Range<usize>)| paths.get(pair.0.clone());
        pairs.sort_unstable_by(|one, other| path(one).cmp(&path(other)));
        let is_twice = pairs.windows(2).any(|two| match two {
            [one, other] => path(one) == path(other),
            _ => false,
        });
        if is_twice { Err(TwoValues) } else { Ok(found) }
    }

    fn collect(
        &mut self,
        object: &Map<String, Value>,
        above: &mut String,
        is_root: bool,
    ) -> Result<(), TwoValues> {
        let length = above.len();
        for (key, value) in object {
            if !is_root {
                above.push('.');
            }
            above.push_str(key);
            match value {
                Value::Null => {}
                Value::Object(inner) => self.collect(inner, above, false)?,
                leaf => {
                    let from = (self.paths.len(), self.values.len());
                    self.paths.extend_from_slice(above.as_bytes());
                    push_dynamic(leaf, &mut self.values)?;
                    self.pairs.push((from.0..self.paths.len(), from.1..self.values.len()));
                }
            }
            above.truncate(length);
        }
        Ok(())
    }

    fn ordered(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let bytes = |of, range: &Range<usize>| <[u8]>::get(of, range.clone()).unwrap_or_default();
        self.pairs
            .iter()
            .map(move |(path, value)| (bytes(&self.paths, path), bytes(&self.values, value)))
    }
}

/// The type of a value.
#[derive(Debug, Clone, PartialEq)]
enum Type {
    Bool,
    Int,
    UInt,
    Float,
    Text,
    List(Box<Type>),
    Object,
    /// Of several types; each item says its own.
    Any,
}

impl Type {
    /// `None` for null.
    fn of(value: &Value) -> Option<Self> {
        Some(match value {
            Value::Null => return None,
            Value::Bool(_) => Self::Bool,
            Value::Number(number) if number.is_i64() => Self::Int,
            Value::Number(number) if number.is_u64() => Self::UInt,
            Value::Number(_) => Self::Float,
            Value::String(_) => Self::Text,
            Value::Array(items) => Self::List(Box::new(Self::of_items(items))),
            Value::Object(_) => Self::Object,
        })
    }

    fn of_items(items: &[Value]) -> Self {
        let has_null = items.contains(&Value::Null);
        let mut types = items.iter().filter_map(Self::of);
        let Some(first) = types.next() else { return Self::Text };
        let common = types.try_fold(first, |one, other| match (&one, &other) {
            _ if one == other => Some(one),
            (Self::Int | Self::Float, Self::Int | Self::Float) => Some(Self::Float),
            _ => None,
        });
        // Only what is a single value may be NULL.
        let may_be_null = |kind: &Self| !matches!(kind, Self::List(_) | Self::Object | Self::Any);
        common.filter(|kind| !has_null || may_be_null(kind)).unwrap_or(Self::Any)
    }

    fn push(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Bool => bytes.push(code::BOOL),
            Self::Int => bytes.push(code::INT64),
            Self::UInt => bytes.push(code::UINT64),
            Self::Float => bytes.push(code::FLOAT64),
            Self::Text => bytes.push(code::STRING),
            Self::Object => bytes.extend_from_slice(code::JSON),
            Self::Any => bytes.extend_from_slice(code::DYNAMIC),
            Self::List(of) => {
                bytes.push(code::ARRAY);
                if of.is_nullable() {
                    bytes.push(code::NULLABLE);
                }
                of.push(bytes);
            }
        }
    }

    /// Items of a list that are single values stand as nullable ones.
    fn is_nullable(&self) -> bool {
        matches!(self, Self::Bool | Self::Int | Self::UInt | Self::Float | Self::Text)
    }
}

/// A type and a value of it.
fn push_dynamic(value: &Value, bytes: &mut Vec<u8>) -> Result<(), TwoValues> {
    let Some(kind) = Type::of(value) else {
        bytes.push(code::NOTHING);
        return Ok(());
    };
    kind.push(bytes);
    push_value(value, &kind, bytes)
}

/// A value of `kind`, which is its own or, for a number in a list, wider.
fn push_value(value: &Value, kind: &Type, bytes: &mut Vec<u8>) -> Result<(), TwoValues> {
    match (value, kind) {
        (Value::Bool(truth), _) => bytes.push(u8::from(*truth)),
        (Value::Number(number), kind) => push_number(number, kind, bytes),
        (Value::String(text), _) => push_bytes(bytes, text.as_bytes()),
        (Value::Array(items), Type::List(of)) => {
            push_length(bytes, items.len());
            for item in items {
                match &**of {
                    Type::Any => push_dynamic(item, bytes)?,
                    of if of.is_nullable() => {
                        bytes.push(u8::from(item.is_null()));
                        push_value(item, of, bytes)?;
                    }
                    of => push_value(item, of, bytes)?,
                }
            }
        }
        (Value::Object(object), _) => {
            let leaves = Leaves::of(object)?;
            push_length(bytes, leaves.pairs.len());
            for (path, value) in leaves.ordered() {
                push_bytes(bytes, path);
                bytes.extend_from_slice(value);
            }
        }
        // NULL has no value behind its mark; a list has the type of a list.
        (Value::Null | Value::Array(_), _) => {}
    }
    Ok(())
}

fn push_number(number: &Number, kind: &Type, bytes: &mut Vec<u8>) {
    match (kind, number.as_i64(), number.as_u64()) {
        (Type::Int, Some(number), _) => bytes.extend(number.to_le_bytes()),
        (Type::UInt, _, Some(number)) => bytes.extend(number.to_le_bytes()),
        _ => bytes.extend(number.as_f64().unwrap_or_default().to_le_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths and values as the server writes them itself, in hexadecimal digits.
    fn pushed(text: &str) -> Result<(usize, String), TwoValues> {
        let object: Map<String, Value> = serde_json::from_str(text).unwrap();
        let (mut paths, mut values) = (Vec::new(), Vec::new());
        let count = push(&object, &mut paths, &mut values)?;
        paths.extend(values);
        let digits: Vec<String> = paths.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok((count, digits.concat()))
    }

    /// What ClickHouse 26.9 gives for `select '…'::JSON(max_dynamic_paths=0) format Native`, behind
    /// the prefix and the count.
    const GIVEN: &[(&str, usize, &str)] = &[
        ("{}", 0, ""),
        (r#"{"n":null}"#, 0, ""),
        (r#"{"a":1}"#, 1, "0161090a0100000000000000"),
        (r#"{"b":"x","a":1}"#, 2, "01610162090a010000000000000003150178"),
        (r#"{"d":{"e":true,"f":1.5}}"#, 2, "03642e6503642e66022d01090e000000000000f83f"),
        (r#"{"c":[1,2]}"#, 1, "0163161e230a02000100000000000000000200000000000000"),
        (r#"{"i":[]}"#, 1, "0169041e231500"),
        (r#"{"k":[null]}"#, 1, "016b051e23150101"),
        (r#"{"k":[null,1]}"#, 1, "016b0e1e230a0201000100000000000000"),
        (r#"{"k":[1.5,1]}"#, 1, "016b161e230e0200000000000000f83f00000000000000f03f"),
        (r#"{"k":[true,false]}"#, 1, "016b081e232d0200010000"),
        (r#"{"k":["a","b"]}"#, 1, "016b0a1e231502000161000162"),
        (
            r#"{"k":[[1],[2,3]]}"#,
            1,
            "016b221e1e230a020100010000000000000002000200000000000000000300000000000000",
        ),
        (r#"{"k":18446744073709551615}"#, 1, "016b0904ffffffffffffffff"),
        (r#"{"g":[1,"a"]}"#, 1, "0167101e2b20020a0100000000000000150161"),
        (
            r#"{"f":[{"x":1},{"y":"s"}]}"#,
            1,
            "01661b1e30000010000000020101780a0100000000000000010179150173",
        ),
        (r#"{"k":[{}]}"#, 1, "016b0a1e300000100000000100"),
    ];

    #[test]
    fn an_object_is_what_the_server_makes_of_it() {
        for &(text, count, digits) in GIVEN {
            assert_eq!(pushed(text), Ok((count, digits.to_owned())), "{text}");
        }
    }

    #[test]
    fn two_values_at_one_path_are_refused_wherever_they_are() {
        for text in [r#"{"a.b":1,"a":{"b":2}}"#, r#"{"k":[{"a.b":1,"a":{"b":2}}]}"#] {
            assert_eq!(pushed(text), Err(TwoValues), "{text}");
        }
        assert!(pushed(r#"{"a":1,"a.b":2}"#).is_ok());
    }
}
