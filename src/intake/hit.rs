//! What was said, nothing believed: reading JSON within bounds, and merging the sources of fields.
//!
//! The order of sources is the contract's: `User` header, cookies, path pairs, then the query of a
//! GET over what came with it (a frame, a link's own fields) or the body of a POST. A later source
//! wins, except that `null` never replaces anything, and an empty id never replaces one. The cookies
//! `ref` and `xid` fill what is still missing at the end.
//!
//! Names of known fields are read in any case; custom names keep theirs. Values keep their case and
//! JSON type here; folding is [`super::build`]'s.

use std::borrow::Cow;
use std::cell::RefCell;
use std::fmt;

use percent_encoding::percent_decode_str;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use thiserror::Error;

use super::RequestFacts;
use super::build::is_known;

/// Nesting that the parser's own stack allows; a larger setting has no effect.
const NESTING_HARD_MAX: usize = 120;
/// Nesting of the `User` header: it carries flat fields.
const HEADER_NESTING_MAX: usize = 8;
/// Path pairs read from one request; more are ignored.
const PAIRS_MAX: usize = 256;

/// Why bytes are no JSON that is taken.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct ParseError {
    /// The top-level field in which it happened, when there is one.
    pub field: Option<String>,
    /// What is wrong and where; never the content itself.
    pub message: String,
}

/// Reads one JSON value nested at most `nesting_max` deep. The work is linear in the bytes. Of equal
/// keys the last wins; NUL is taken out of texts; numbers beyond 64 bits become floats, and those
/// beyond a float are an error.
///
/// # Errors
/// When the bytes are not UTF-8, not JSON, more than one value, or nested too deep.
pub fn parse_json(bytes: &[u8], nesting_max: usize) -> Result<Value, ParseError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let field = RefCell::new(None);
    let tree = Tree { left: nesting_max.min(NESTING_HARD_MAX), root: Some(&field) };
    let parsed = tree.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    parsed.map_err(|error| ParseError { field: field.take(), message: error.to_string() })
}

/// Merges what a request says into one map of fields (contract §2.4).
///
/// `path_rest` is the part of the path after the route, still percent-encoded: it is split first and
/// decoded then, so a value may hold an encoded slash. `query` counts for GET only; `body` is the
/// object of a POST, a frame, or the fields a link brings. A query with the key `ignore_query_key`
/// is not read.
pub fn fields(
    facts: &RequestFacts,
    path_rest: &str,
    query: Option<&str>,
    body: Option<Map<String, Value>>,
    ignore_query_key: Option<&str>,
) -> Map<String, Value> {
    let mut fields = user_header(facts);
    for (cookie, field) in [("vid", "vid"), ("ehash", "ehash"), ("sid", "sid")] {
        if let Some(value) = facts.cookies.get(cookie) {
            put(&mut fields, Cow::Borrowed(field), Value::String(decode(value)));
        }
    }
    let flags = facts.cookies.get("CookieConsent").and_then(|text| text.trim().parse::<i64>().ok());
    if let Some(flags) = flags {
        put(&mut fields, Cow::Borrowed("cflags"), Value::from(flags));
    }
    let mut segments = path_rest.split('/').skip_while(|segment| segment.is_empty());
    for _ in 0..PAIRS_MAX {
        let (Some(key), Some(value)) = (segments.next(), segments.next()) else { break };
        put(&mut fields, Cow::Owned(decode(key).to_lowercase()), Value::String(decode(value)));
    }
    for (key, value) in body.into_iter().flatten() {
        put(&mut fields, Cow::Owned(key), value);
    }
    if facts.method == "GET"
        && let Some(query) = query
    {
        put_query(&mut fields, query, ignore_query_key);
    }
    finish(&mut fields, facts);
    fields
}

/// The fields of the `User` header; anything but an object says nothing.
fn user_header(facts: &RequestFacts) -> Map<String, Value> {
    let mut fields = Map::new();
    let Some(text) = facts.user.as_deref().filter(|text| !text.is_empty()) else { return fields };
    if let Ok(Value::Object(object)) = parse_json(text.as_bytes(), HEADER_NESTING_MAX) {
        for (key, value) in object {
            put(&mut fields, Cow::Owned(key), value);
        }
    }
    fields
}

/// The query's pairs, the first of each key, with every `utm_` taken out of the key.
fn put_query(fields: &mut Map<String, Value>, query: &str, ignore_key: Option<&str>) {
    let pairs = || url::form_urlencoded::parse(query.as_bytes());
    if let Some(ignore) = ignore_key.filter(|key| !key.is_empty())
        && pairs().any(|(key, _)| key == ignore)
    {
        return;
    }
    let mut seen = Map::new();
    for (key, value) in pairs() {
        let key = without_utm(key);
        if !seen.contains_key(&*key) {
            seen.insert(key.into_owned(), Value::String(clean(value)));
        }
    }
    for (key, value) in seen {
        put(fields, Cow::Owned(key), value);
    }
}

/// What holds for every source: the alias of `content`, and the cookies that come last.
fn finish(fields: &mut Map<String, Value>, facts: &RequestFacts) {
    let named = fields.get("ename").is_some_and(Value::is_string);
    if !named && fields.get("content").is_some_and(Value::is_string) {
        let content = fields.shift_remove("content").unwrap_or_default();
        fields.insert("ename".to_owned(), content);
    }
    for name in ["ref", "xid"] {
        let Some(value) = facts.cookies.get(name).map(|value| decode(value)) else { continue };
        // The shipped snippet keeps the last address in its `ref` cookie; that is no id.
        if !value.contains("://") && !fields.contains_key(name) {
            put(fields, Cow::Borrowed(name), Value::String(value));
        }
    }
}

/// Sets one field. `null` and empty ids say nothing; objects of one name are merged one level deep.
fn put(fields: &mut Map<String, Value>, name: Cow<'_, str>, value: Value) {
    if name.is_empty() || value.is_null() {
        return;
    }
    let name = canonical(name);
    let is_empty = value.as_str().is_some_and(|text| text.trim().is_empty());
    if is_empty && matches!(&*name, "vid" | "sid" | "uid" | "eid" | "ehash" | "oid") {
        return;
    }
    if let Value::Object(new) = value {
        if let Some(Value::Object(old)) = fields.get_mut(&*name) {
            old.extend(new);
        } else {
            fields.insert(name.into_owned(), Value::Object(new));
        }
    } else {
        fields.insert(name.into_owned(), value);
    }
}

/// The name a field is known by: lower case and without `utm_` where that is a known field.
fn canonical(name: Cow<'_, str>) -> Cow<'_, str> {
    let folded = if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(&*name)
    };
    let bare = folded.strip_prefix("utm_").unwrap_or(&folded);
    let is_campaign = matches!(bare, "source" | "medium" | "campaign" | "content" | "term");
    if bare.len() < folded.len() && is_campaign {
        return Cow::Owned(bare.to_owned());
    }
    match folded {
        Cow::Owned(folded) if is_known(&folded) => Cow::Owned(folded),
        _ => name,
    }
}

/// `key` with every occurrence of `utm_`, in any case, taken out; one pass.
fn without_utm(key: Cow<'_, str>) -> Cow<'_, str> {
    const PREFIX: &str = "utm_";
    let mut kept = String::new();
    let mut rest = &*key;
    let position = |text: &str| {
        text.as_bytes()
            .windows(PREFIX.len())
            .position(|w| w.eq_ignore_ascii_case(PREFIX.as_bytes()))
    };
    while let Some((before, after)) =
        position(rest).and_then(|at| Some((rest.get(..at)?, rest.get(at + PREFIX.len()..)?)))
    {
        kept.push_str(before);
        rest = after;
    }
    if rest.len() == key.len() {
        return if key.contains('\0') { Cow::Owned(clean(key)) } else { key };
    }
    kept.push_str(rest);
    Cow::Owned(clean(Cow::Owned(kept)))
}

fn decode(text: &str) -> String {
    clean(percent_decode_str(text).decode_utf8_lossy())
}

fn clean(text: Cow<'_, str>) -> String {
    if text.as_bytes().contains(&0) { text.replace('\0', "") } else { text.into_owned() }
}

/// Reads any JSON, `left` levels deep; the root notes the field in which an error happened.
#[derive(Clone, Copy)]
struct Tree<'a> {
    left: usize,
    root: Option<&'a RefCell<Option<String>>>,
}

impl Tree<'_> {
    fn inside<E: serde::de::Error>(self) -> Result<Self, E> {
        match self.left.checked_sub(1) {
            Some(left) => Ok(Self { left, root: None }),
            None => Err(E::custom("nested too deep")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Tree<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Tree<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::from(number))
    }

    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Value, E> {
        Number::from_f64(number).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(clean(Cow::Borrowed(text))))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(clean(Cow::Owned(text))))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let inside = self.inside::<A::Error>()?;
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(inside)? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inside = self.inside::<A::Error>()?;
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let key = clean(Cow::Owned(key));
            match map.next_value_seed(inside) {
                Ok(value) => {
                    object.insert(key, value);
                }
                Err(error) => {
                    self.root.map(|field| field.replace(Some(key)));
                    return Err(error);
                }
            }
        }
        Ok(Value::Object(object))
    }
}
