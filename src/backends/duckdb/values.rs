//! A value of an answer as JSON.
//!
//! Whole numbers up to 64 bits are numbers; wider ones are text when they do not fit. What JSON
//! cannot say (not a number, infinities) is null. Moments are `YYYY-MM-DDTHH:MM:SS.mmmZ`, days
//! `YYYY-MM-DD`, bytes hexadecimal text.

use chrono::{DateTime, NaiveDate};
use duckdb::arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, DictionaryArray, MapArray, StructArray,
};
use duckdb::arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use duckdb::arrow::error::ArrowError;
use duckdb::arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::{Map, Value};

/// Days from 1 January of year 1 to 1 January 1970.
const EPOCH_DAYS: i32 = 719_163;

/// Decimal digits that a number of JSON holds exactly in every reader.
const EXACT_DIGITS: usize = 15;

/// The value at `at`; `json` says that the text is itself JSON.
///
/// # Errors
/// When Arrow has no text for a type that has no form here.
pub(super) fn value(array: &dyn Array, at: usize, json: bool) -> Result<Value, ArrowError> {
    if array.is_null(at) {
        return Ok(Value::Null);
    }
    Ok(match array.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => array.as_boolean().value(at).into(),
        DataType::Int8 => array.as_primitive::<Int8Type>().value(at).into(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(at).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(at).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(at).into(),
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(at).into(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(at).into(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(at).into(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(at).into(),
        DataType::Float32 => f64::from(array.as_primitive::<Float32Type>().value(at)).into(),
        DataType::Float64 => array.as_primitive::<Float64Type>().value(at).into(),
        DataType::Decimal128(_, _) => decimal(array.as_primitive::<Decimal128Type>(), at),
        DataType::Utf8 => text(array.as_string::<i32>().value(at), json),
        DataType::LargeUtf8 => text(array.as_string::<i64>().value(at), json),
        DataType::Binary => hex(array.as_binary::<i32>().value(at)),
        DataType::LargeBinary => hex(array.as_binary::<i64>().value(at)),
        DataType::FixedSizeBinary(_) => bytes_or_id(array.as_fixed_size_binary().value(at)),
        DataType::Date32 => day(array.as_primitive::<Date32Type>().value(at)),
        DataType::Timestamp(unit, _) => moment(array, at, *unit),
        DataType::List(_) => items(&array.as_list::<i32>().value(at))?,
        DataType::LargeList(_) => items(&array.as_list::<i64>().value(at))?,
        DataType::FixedSizeList(_, _) => items(&array.as_fixed_size_list().value(at))?,
        DataType::Struct(_) => object(array.as_struct(), at)?,
        DataType::Map(_, _) => entries(array.as_map(), at)?,
        DataType::Dictionary(_, _) => word(array, at)?,
        _ => written(array, at)?,
    })
}

/// Roughly the memory `value` takes, for a bound.
pub(super) fn bytes(value: &Value) -> usize {
    size_of::<Value>()
        + match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(bytes).sum(),
            Value::Object(map) => map.iter().map(|(name, value)| name.len() + bytes(value)).sum(),
        }
}

fn text(text: &str, json: bool) -> Value {
    if json && let Ok(value) = serde_json::from_str(text) {
        return value;
    }
    text.into()
}

fn hex(bytes: &[u8]) -> Value {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text.into()
}

fn bytes_or_id(bytes: &[u8]) -> Value {
    uuid::Uuid::from_slice(bytes).map_or_else(|_| hex(bytes), |id| id.to_string().into())
}

/// A whole number where it fits, a number where it is exact, else text.
fn decimal(array: &Decimal128Array, at: usize) -> Value {
    if array.scale() == 0 {
        // The widest whole numbers have a digit more than Arrow's decimals write.
        let whole = array.value(at);
        return i64::try_from(whole).map_or_else(|_| whole.to_string().into(), Value::from);
    }
    let written = array.value_as_string(at);
    let digits = written.bytes().filter(u8::is_ascii_digit).count();
    match written.parse::<f64>() {
        Ok(number) if digits <= EXACT_DIGITS => number.into(),
        _ => written.into(),
    }
}

fn day(days: i32) -> Value {
    days.checked_add(EPOCH_DAYS)
        .and_then(NaiveDate::from_num_days_from_ce_opt)
        .map_or(Value::Null, |day| day.to_string().into())
}

fn moment(array: &dyn Array, at: usize, unit: TimeUnit) -> Value {
    let moment = match unit {
        TimeUnit::Second => {
            DateTime::from_timestamp(array.as_primitive::<TimestampSecondType>().value(at), 0)
        }
        TimeUnit::Millisecond => {
            let at = array.as_primitive::<TimestampMillisecondType>().value(at);
            DateTime::from_timestamp_millis(at)
        }
        TimeUnit::Microsecond => {
            let at = array.as_primitive::<TimestampMicrosecondType>().value(at);
            DateTime::from_timestamp_micros(at)
        }
        TimeUnit::Nanosecond => {
            let at = array.as_primitive::<TimestampNanosecondType>().value(at);
            Some(DateTime::from_timestamp_nanos(at))
        }
    };
    moment.map_or(Value::Null, |moment| moment.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string().into())
}

fn items(array: &ArrayRef) -> Result<Value, ArrowError> {
    (0..array.len()).map(|at| value(array.as_ref(), at, false)).collect()
}

fn object(array: &StructArray, at: usize) -> Result<Value, ArrowError> {
    let mut object = Map::new();
    for (name, column) in array.column_names().into_iter().zip(array.columns()) {
        object.insert(name.to_owned(), value(column.as_ref(), at, false)?);
    }
    Ok(object.into())
}

fn entries(array: &MapArray, at: usize) -> Result<Value, ArrowError> {
    let entries = array.value(at);
    let [keys, values] = entries.columns() else { return Ok(Value::Null) };
    let mut object = Map::new();
    for at in 0..entries.len() {
        let name = match value(keys.as_ref(), at, false)? {
            Value::String(name) => name,
            other => other.to_string(),
        };
        object.insert(name, value(values.as_ref(), at, false)?);
    }
    Ok(object.into())
}

/// A word of an enumeration.
fn word(array: &dyn Array, at: usize) -> Result<Value, ArrowError> {
    fn of<K: duckdb::arrow::datatypes::ArrowDictionaryKeyType>(
        array: &dyn Array,
        at: usize,
    ) -> Option<Result<Value, ArrowError>> {
        let array = array.as_any().downcast_ref::<DictionaryArray<K>>()?;
        Some(value(array.values().as_ref(), array.key(at)?, false))
    }
    of::<UInt8Type>(array, at)
        .or_else(|| of::<UInt16Type>(array, at))
        .or_else(|| of::<UInt32Type>(array, at))
        .unwrap_or(Ok(Value::Null))
}

fn written(array: &dyn Array, at: usize) -> Result<Value, ArrowError> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(array, &options)?;
    Ok(formatter.value(at).try_to_string()?.into())
}
