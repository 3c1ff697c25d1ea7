//! One body, many events: a JSON array, or one JSON value a line (NDJSON).

use std::fmt;

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use serde::de::{Deserializer as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;
use thiserror::Error;

/// How a body is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Nothing but white space: an event without fields.
    Empty,
    /// One event.
    Single,
    /// An array of events.
    Array,
    /// An event a line.
    Lines,
}

/// Why a body cannot be cut into events.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum SplitError {
    /// The array as a whole is not JSON.
    #[error("{0}")]
    Malformed(String),
    /// More events than one request may carry.
    #[error("more than {0} events in one request")]
    TooMany(usize),
}

/// What `body` holds. The declared type decides about lines; without it a body is read as lines when
/// its first line alone is a whole object and something follows, because beacons cannot declare it.
pub fn form(headers: &HeaderMap, body: &[u8]) -> Form {
    let body = trimmed(body);
    if declares_lines(headers) {
        return Form::Lines;
    }
    match body.first() {
        None => Form::Empty,
        Some(b'[') => Form::Array,
        Some(_) if starts_with_whole_line(body) => Form::Lines,
        Some(_) => Form::Single,
    }
}

/// The events of a batch, each as its own bytes of `body`; what one of them holds is not looked at.
///
/// # Errors
/// When an array is broken as a whole, or there are more than `events_max` events.
pub fn split(form: Form, body: &Bytes, events_max: usize) -> Result<Vec<Bytes>, SplitError> {
    match form {
        Form::Empty => Ok(Vec::new()),
        Form::Single => Ok(vec![body.clone()]),
        Form::Array => array(body, events_max),
        Form::Lines => lines(body, events_max),
    }
}

fn lines(body: &Bytes, events_max: usize) -> Result<Vec<Bytes>, SplitError> {
    let mut items = Vec::new();
    for line in trimmed(body).split(|&byte| byte == b'\n') {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        if items.len() == events_max {
            return Err(SplitError::TooMany(events_max));
        }
        items.push(body.slice_ref(line));
    }
    Ok(items)
}

fn array(body: &Bytes, events_max: usize) -> Result<Vec<Bytes>, SplitError> {
    let text = std::str::from_utf8(trimmed(body))
        .map_err(|error| SplitError::Malformed(format!("the body is not UTF-8: {error}")))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let items = reader
        .deserialize_seq(Items { body, events_max })
        .and_then(|items| reader.end().map(|()| items))
        .map_err(|error| SplitError::Malformed(format!("the body is not JSON: {error}")))?;
    items.ok_or(SplitError::TooMany(events_max))
}

/// Collects at most `events_max` items; `None` when there are more.
struct Items<'b> {
    body: &'b Bytes,
    events_max: usize,
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = Option<Vec<Bytes>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(item) = items.next_element::<&'de RawValue>()? {
            if found.len() == self.events_max {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                return Ok(None);
            }
            found.push(self.body.slice_ref(item.get().as_bytes()));
        }
        Ok(Some(found))
    }
}

/// Without white space around and without the mark that some editors put before UTF-8.
fn trimmed(body: &[u8]) -> &[u8] {
    body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii()
}

fn declares_lines(headers: &HeaderMap) -> bool {
    let declared = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = declared.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    [
        "application/x-ndjson",
        "application/ndjson",
        "application/jsonl",
        "application/x-jsonlines",
        "application/json-lines",
        "application/jsonlines",
    ]
    .iter()
    .any(|known| known.eq_ignore_ascii_case(kind))
}

/// The first line is a whole object, and it is not the last line.
fn starts_with_whole_line(body: &[u8]) -> bool {
    let Some(end) = body.iter().position(|&byte| byte == b'\n') else { return false };
    let line = body.get(..end).unwrap_or_default().trim_ascii();
    line.first() == Some(&b'{')
        && line.last() == Some(&b'}')
        && serde_json::from_slice::<IgnoredAny>(line).is_ok()
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn check(kind: &'static str, body: &'static str, expect: Form, items: &[&str]) {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        let found = form(&headers, body.as_bytes());
        assert_eq!(found, expect, "{kind} {body}");
        let body = Bytes::from_static(body.as_bytes());
        let found: Vec<_> = split(found, &body, 3)
            .unwrap()
            .into_iter()
            .map(|item| String::from_utf8(item.to_vec()).unwrap())
            .collect();
        assert_eq!(found, items, "{kind} {body:?}");
    }

    #[test]
    fn a_body_is_read_as_what_it_is() {
        let (json, text, lines) = ("application/json", "text/plain", "application/x-ndjson");
        check(json, r#"{"a":1}"#, Form::Single, &[r#"{"a":1}"#]);
        check(json, "", Form::Empty, &[]);
        check(text, " \r\n ", Form::Empty, &[]);
        check(json, "{\n \"a\": 1\n}\n", Form::Single, &["{\n \"a\": 1\n}\n"]);
        check(text, r#" [ {"a":1}, 2 ,"x,]"] "#, Form::Array, &[r#"{"a":1}"#, "2", r#""x,]""#]);
        check(json, "[]", Form::Array, &[]);
        check(text, "{\"a\":1}\n{\"b\":2}\n", Form::Lines, &[r#"{"a":1}"#, r#"{"b":2}"#]);
        check(text, "{\"a\":1}\r\n\r\nbad", Form::Lines, &[r#"{"a":1}"#, "bad"]);
        check(lines, "{\"a\":1}", Form::Lines, &[r#"{"a":1}"#]);
        check("Application/X-NDJSON; charset=utf-8", "bad\n[1]", Form::Lines, &["bad", "[1]"]);
        check(json, "\u{feff}[{}]", Form::Array, &["{}"]);
    }

    #[test]
    fn a_broken_array_is_refused_as_a_whole() {
        let brackets = "[".repeat(10_000);
        for text in ["[", "[{},]", "[{}] x", "[{}][{}]", "[1 2]", brackets.as_str()] {
            let outcome = split(Form::Array, &Bytes::from(text.to_owned()), 10);
            assert!(matches!(outcome, Err(SplitError::Malformed(_))), "{text:.20} {outcome:?}");
        }
        let outcome = split(Form::Array, &Bytes::from_static(b"[\"\xff\"]"), 10);
        let message = outcome.unwrap_err().to_string();
        assert!(message.contains("not UTF-8"), "{message}");
    }

    #[test]
    fn one_event_too_many_is_refused() {
        let refused = Err(SplitError::TooMany(3));
        assert_eq!(split(Form::Array, &Bytes::from_static(b"[1,2,3,4]"), 3), refused);
        assert_eq!(split(Form::Lines, &Bytes::from_static(b"1\n2\n3\n4"), 3), refused);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn any_bytes_are_cut_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let body = Bytes::from(bytes);
            let found = form(&HeaderMap::new(), &body);
            let _ = split(found, &body, 5);
        }

        #[test]
        fn an_array_gives_back_its_items(numbers in prop::collection::vec(any::<i64>(), 0..20)) {
            let body = Bytes::from(serde_json::to_vec(&numbers).unwrap());
            let items = split(Form::Array, &body, 20).unwrap();
            let back: Vec<i64> =
                items.iter().map(|item| serde_json::from_slice(item).unwrap()).collect();
            prop_assert_eq!(back, numbers);
        }
    }
}
