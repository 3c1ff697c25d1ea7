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
/// Fields for which room is made at once.
const FIELDS_USUAL: usize = 48;
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
    let query = query.filter(|_| facts.method == "GET");
    // From the last source to the first, each filling what the later ones left: the largest, which
    // is nearly always the body, then stays as it is.
    let mut fields = query.map(|query| query_fields(query, ignore_query_key)).unwrap_or_default();
    if facts.query_has_key {
        fields.swap_remove("key");
    }
    let body = body.map(said).unwrap_or_default();
    if fields.is_empty() {
        fields = body;
    } else {
        body.into_iter().for_each(|(name, value)| fill(&mut fields, name, value));
    }
    for (name, value) in said(path_fields(path_rest)) {
        fill(&mut fields, name, value);
    }
    fill_cookies(&mut fields, facts);
    for (name, value) in said(header_fields(facts)) {
        fill(&mut fields, name, value);
    }
    let is_named = fields.get("ename").is_some_and(Value::is_string);
    if !is_named && fields.get("content").is_some_and(Value::is_string) {
        let content = fields.swap_remove("content").unwrap_or_default();
        fields.insert("ename".to_owned(), content);
    }
    for name in ["ref", "xid"] {
        let value = facts.cookies.get(name).map(|value| decode(value));
        // The shipped snippet keeps the last address in its `ref` cookie; that is no id.
        if let Some(value) = value.filter(|value| !value.contains("://")) {
            fill(&mut fields, name.to_owned(), Value::String(value));
        }
    }
    fields
}

/// The fields of the `User` header; anything but an object says nothing.
fn header_fields(facts: &RequestFacts) -> Map<String, Value> {
    match facts.user.as_deref().map(|text| parse_json(text.as_bytes(), HEADER_NESTING_MAX)) {
        Some(Ok(Value::Object(object))) => object,
        _ => Map::new(),
    }
}

fn fill_cookies(fields: &mut Map<String, Value>, facts: &RequestFacts) {
    for name in ["vid", "ehash", "sid"] {
        if let Some(value) = facts.cookies.get(name) {
            fill(fields, name.to_owned(), Value::String(decode(value)));
        }
    }
    let flags = facts.cookies.get("CookieConsent").and_then(|text| text.trim().parse::<i64>().ok());
    if let Some(flags) = flags {
        fill(fields, "cflags".to_owned(), Value::from(flags));
    }
}

/// Pairs of path segments; the last of a key wins, a dangling key is ignored.
fn path_fields(path_rest: &str) -> Map<String, Value> {
    let mut segments = path_rest.split('/').skip_while(|segment| segment.is_empty());
    let mut pairs = Map::new();
    for _ in 0..PAIRS_MAX {
        let (Some(key), Some(value)) = (segments.next(), segments.next()) else { break };
        pairs.insert(decode(key), Value::String(decode(value)));
    }
    pairs
}

/// The query's pairs, the first of each key, with every `utm_` taken out of the key.
fn query_fields(query: &str, ignore_key: Option<&str>) -> Map<String, Value> {
    let pairs = || url::form_urlencoded::parse(query.as_bytes());
    let mut first = Map::new();
    if let Some(ignore) = ignore_key.filter(|key| !key.is_empty())
        && pairs().any(|(key, _)| key == ignore)
    {
        return first;
    }
    for (key, value) in pairs() {
        let key = without_utm(key);
        if !first.contains_key(&*key) {
            first.insert(key.into_owned(), Value::String(clean(value)));
        }
    }
    said(first)
}

/// One source with the names its fields are known by, and without what says nothing. A source that
/// is so already, as programs write it, is not touched.
fn said(source: Map<String, Value>) -> Map<String, Value> {
    if source.iter().all(|(name, value)| canonical(name).is_none() && says(name, value)) {
        return source;
    }
    let named = source.into_iter().map(|(name, value)| (canonical(&name).unwrap_or(name), value));
    named.filter(|(name, value)| says(name, value)).collect()
}

/// Whether a value says anything: `null` does not, nor does an empty id.
fn says(name: &str, value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) if text.trim().is_empty() => {
            !matches!(name, "" | "vid" | "sid" | "uid" | "eid" | "ehash" | "oid")
        }
        _ => !name.is_empty(),
    }
}

/// Sets a field that no later source has set; objects of one name are merged one level deep.
fn fill(fields: &mut Map<String, Value>, name: String, value: Value) {
    match (fields.get_mut(&name), value) {
        (None, value) if says(&name, &value) => drop(fields.insert(name, value)),
        (Some(Value::Object(later)), Value::Object(earlier)) => {
            for (name, value) in earlier {
                later.entry(name).or_insert(value);
            }
        }
        _ => {}
    }
}

/// The name a field is known by, where it is written in another way: with capitals, or with `utm_`
/// before a campaign's field.
fn canonical(name: &str) -> Option<String> {
    let is_plain = |byte: u8| !byte.is_ascii_uppercase();
    if name.bytes().all(is_plain) && !name.starts_with("utm_") {
        return None;
    }
    let folded = name.to_ascii_lowercase();
    match folded.strip_prefix("utm_") {
        Some(bare @ ("source" | "medium" | "campaign" | "content" | "term")) => {
            Some(bare.to_owned())
        }
        _ => (folded != name && is_known(&folded)).then_some(folded),
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
        // The top level of an event has some dozens of fields; what is inside has few.
        let mut object = Map::with_capacity(if self.root.is_some() { FIELDS_USUAL } else { 0 });
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

#[cfg(test)]
mod tests {
    use super::super::tests::facts;
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(object) => object,
            other => panic!("{other}"),
        }
    }

    #[test]
    fn hostile_json_is_an_error_with_a_place_and_never_a_panic() {
        let deep = "[".repeat(10_000);
        let deep_in_field = format!("{{\"a\":1,\"b\":{}", "{\"x\":".repeat(200));
        for (text, field, message) in [
            (deep.as_str(), None, "nested too deep at line 1 column 65"),
            (deep_in_field.as_str(), Some("b"), "nested too deep"),
            ("{\"a\":1e999}", Some("a"), "number out of range at line 1 column 10"),
            ("{\"a\":\"\\ud800\"}", Some("a"), "unexpected end of hex escape"),
            ("", None, "EOF while parsing a value"),
            ("{\"a\":1} x", None, "trailing characters"),
            ("{a:1}", None, "key must be a string"),
            ("nuul", None, "expected ident"),
        ] {
            let error = parse_json(text.as_bytes(), 64).unwrap_err();
            assert_eq!(error.field.as_deref(), field, "{error}");
            assert!(error.message.starts_with(message), "{error}");
        }
        let error = parse_json(b"{\"a\":\"\xff\"}", 64).unwrap_err();
        assert!(error.message.starts_with("invalid unicode code point"), "{error}");
    }

    #[test]
    fn a_setting_above_the_stack_does_not_move_the_bound() {
        let text = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        assert!(parse_json(text.as_bytes(), usize::MAX).is_err());
        let text = format!("{}{}", "[".repeat(64), "]".repeat(64));
        assert!(parse_json(text.as_bytes(), 64).is_ok());
        assert!(parse_json(text.as_bytes(), 63).is_err());
    }

    #[test]
    fn json_is_read_with_the_last_of_equal_keys_and_without_nul() {
        let text = b"\xef\xbb\xbf {\"a\":1,\"a\":2,\"b\\u0000c\":\"x\\u0000y\",\"n\":18446744073709551616}";
        let expect = json!({"a": 2, "bc": "xy", "n": 18_446_744_073_709_551_616_f64});
        assert_eq!(parse_json(text, 64).unwrap(), expect);
    }

    #[test]
    fn later_sources_win_in_the_order_of_the_contract() {
        let mut facts = facts();
        facts.user = Some(r#"{"vid":"header","A":"header","b":"header","uid":"u"}"#.to_owned());
        facts.cookies.insert("vid".to_owned(), "cookie".to_owned());
        facts.cookies.insert("CookieConsent".to_owned(), "4096".to_owned());
        facts.cookies.insert("jwt".to_owned(), "never".to_owned());
        facts.cookies.insert("xid".to_owned(), "late".to_owned());
        facts.cookies.insert("ref".to_owned(), "https://example.com/".to_owned());
        let body = object(json!({"b": "body", "c": "body", "sid": "", "uid": null}));
        facts.method = "GET".to_owned();
        let query = "c=query&C2=Kept&d=1&d=2&Utm_Source=News&utm_id=7";
        let got = fields(&facts, "/ROCK/ON/b/path/odd", Some(query), Some(body), None);
        let expect = json!({
            "vid": "cookie", "A": "header", "b": "body", "uid": "u", "cflags": 4096,
            "ROCK": "ON", "c": "query", "C2": "Kept", "d": "1", "source": "News", "id": "7",
            "xid": "late",
        });
        assert_eq!(Value::Object(got), expect);
    }

    #[test]
    fn the_query_of_a_post_and_of_an_ignored_key_is_not_read() {
        let mut facts = facts();
        facts.method = "POST".to_owned();
        assert_eq!(fields(&facts, "", Some("a=1"), None, None), Map::new());
        facts.method = "GET".to_owned();
        assert_eq!(fields(&facts, "", Some("a=1&igqp"), None, Some("igqp")), Map::new());
        assert_eq!(fields(&facts, "", Some("a=1&IGQP"), None, Some("igqp")).len(), 2);
    }

    #[test]
    fn a_user_header_that_is_no_object_says_nothing() {
        for text in ["null", "[1]", "3", "\"a\"", "{", "", "{\"vid\":null}"] {
            let mut facts = facts();
            facts.user = Some(text.to_owned());
            assert_eq!(
                fields(&facts, "a/b", None, None, None),
                object(json!({"a": "b"})),
                "{text}"
            );
        }
    }

    #[test]
    fn content_names_an_event_that_has_no_name() {
        let facts = facts();
        let read = |body| Value::Object(fields(&facts, "", None, Some(object(body)), None));
        assert_eq!(read(json!({"content": "Hero"})), json!({"ename": "Hero"}));
        assert_eq!(
            read(json!({"content": "Hero", "ename": "view"})),
            json!({"content": "Hero", "ename": "view"})
        );
        assert_eq!(read(json!({"utm_content": "Hero"})), json!({"ename": "Hero"}));
    }

    #[test]
    fn known_names_are_read_in_any_case_and_values_of_paths_are_decoded_once() {
        let facts = facts();
        let body = object(json!({"EName": "View", "MyField": 5}));
        let got = fields(&facts, "url/https%3A%2F%2Fa.com%2Fx%2525", None, Some(body), None);
        let expect = json!({"url": "https://a.com/x%25", "ename": "View", "MyField": 5});
        assert_eq!(Value::Object(got), expect);
    }

    #[test]
    fn a_key_made_of_prefixes_is_read_in_one_pass() {
        assert_eq!(without_utm("utm_UTM_a".into()), "a");
        assert_eq!(without_utm("uutm_tm_a".into()), "utm_a");
        assert_eq!(without_utm("ü_utm_ü".into()), "ü_ü");
        assert_eq!(without_utm(Cow::Owned("utm_".repeat(10_000))), "");
    }
}
