//! One JSON object of the configuration, read key by key.
//!
//! Asking for a key makes it known; [`Section::finish`] then reports every key nobody asked for,
//! with the nearest known one. Nothing here stops at the first mistake: a wrong value is noted and
//! the default is used, so that one run names all that is wrong.

use std::cell::RefCell;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde_json::{Map, Value};

use super::units;

/// One mistake in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// Where: `Notify[0].MaxBatchSize`; empty for the file as a whole.
    pub path: String,
    /// What is wrong and, where it is known, what to write instead.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            return f.write_str(&self.message);
        }
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// What reading found: mistakes, and what the reader of the log should know.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) errors: Vec<ConfigError>,
    pub(super) notes: Vec<String>,
}

impl Findings {
    /// A mistake of the file as a whole.
    pub(super) fn whole(message: String) -> Self {
        let error = ConfigError { path: String::new(), message };
        Self { errors: vec![error], notes: Vec::new() }
    }
}

/// What a number without a unit means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bare {
    /// Seconds, as the documentation has it for this key.
    Seconds,
    /// Milliseconds, as the documentation has it for this key.
    Milliseconds,
    /// Nothing: a text with a unit is asked for.
    Refused,
}

/// The shape a key of a later version must already have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Number,
    Text,
}

/// A JSON object, with its place in the file.
pub(super) struct Section<'a> {
    path: String,
    object: &'a Map<String, Value>,
    known: Vec<&'static str>,
    findings: &'a RefCell<Findings>,
}

impl<'a> Section<'a> {
    /// The file as a whole.
    pub(super) fn root(object: &'a Map<String, Value>, findings: &'a RefCell<Findings>) -> Self {
        Self { path: String::new(), object, known: Vec::new(), findings }
    }

    /// The place of `key` in the file.
    pub(super) fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// Reports a mistake at `key`.
    pub(super) fn error(&self, key: &str, message: impl Into<String>) {
        let (path, message) = (self.path_of(key), message.into());
        self.findings.borrow_mut().errors.push(ConfigError { path, message });
    }

    /// Reports a mistake of the object as a whole.
    pub(super) fn error_here(&self, message: impl Into<String>) {
        let (path, message) = (self.path.clone(), message.into());
        self.findings.borrow_mut().errors.push(ConfigError { path, message });
    }

    /// Adds a line for the log.
    pub(super) fn note(&self, text: impl Into<String>) {
        self.findings.borrow_mut().notes.push(text.into());
    }

    /// Makes keys known without reading them.
    pub(super) fn accept(&mut self, keys: &[&'static str]) {
        self.known.extend_from_slice(keys);
    }

    fn get(&mut self, key: &'static str) -> Option<&'a Value> {
        self.known.push(key);
        self.object.get(key).filter(|value| !value.is_null())
    }

    /// Whether anything stands at `key`.
    pub(super) fn says(&self, key: &str) -> bool {
        self.object.get(key).is_some_and(|value| !value.is_null())
    }

    fn wrong(&self, key: &str, expected: &str, found: &Value) {
        let found = match found {
            Value::Null => "null",
            Value::Bool(_) => "true or false",
            Value::Number(_) => "a number",
            Value::String(_) => "a text",
            Value::Array(_) => "a list",
            Value::Object(_) => "an object",
        };
        self.error(key, format!("expected {expected}, found {found}"));
    }

    /// A text; `None` when absent.
    pub(super) fn text(&mut self, key: &'static str) -> Option<String> {
        let value = self.get(key)?;
        let text = value.as_str().map(str::to_owned);
        if text.is_none() {
            self.wrong(key, "a text", value);
        }
        text
    }

    /// A text that says something; `None` when absent or empty.
    pub(super) fn filled(&mut self, key: &'static str) -> Option<String> {
        self.text(key).filter(|text| !text.is_empty())
    }

    /// True or false.
    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        let Some(value) = self.get(key) else { return default };
        value.as_bool().unwrap_or_else(|| {
            self.wrong(key, "true or false", value);
            default
        })
    }

    /// A whole number; `None` when absent or wrong.
    pub(super) fn number(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let value = self.get(key)?;
        let Some(number) = value.as_u64() else {
            self.wrong(key, "a whole number that is not negative", value);
            return None;
        };
        self.within(key, number, range)
    }

    /// A whole number that fits the machine's size, for bounds of collections and buffers.
    pub(super) fn count(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<usize> {
        self.number(key, range).and_then(|number| usize::try_from(number).ok())
    }

    /// Bytes: a number or a text with a unit.
    pub(super) fn size(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<u64> {
        let value = self.get(key)?;
        let bytes = value.as_u64().or_else(|| value.as_str().and_then(units::size));
        let Some(bytes) = bytes else {
            self.error(key, "expected bytes, as a number or like \"64MiB\"");
            return None;
        };
        self.within(key, bytes, range)
    }

    fn within(&self, key: &str, number: u64, range: RangeInclusive<u64>) -> Option<u64> {
        if range.contains(&number) {
            return Some(number);
        }
        self.error(key, format!("{number} is not within {} to {}", range.start(), range.end()));
        None
    }

    /// A duration: a text with units, or a number where `bare` gives it a meaning.
    pub(super) fn duration(
        &mut self,
        key: &'static str,
        bare: Bare,
        range: RangeInclusive<Duration>,
    ) -> Option<Duration> {
        let value = self.get(key)?;
        let read = match (value, bare) {
            (Value::String(text), _) => units::duration(text),
            (Value::Number(number), Bare::Seconds) => number.as_u64().map(Duration::from_secs),
            (Value::Number(number), Bare::Milliseconds) => {
                number.as_u64().map(Duration::from_millis)
            }
            _ => None,
        };
        let Some(read) = read else {
            let number = match bare {
                Bare::Seconds => " or a number of seconds",
                Bare::Milliseconds => " or a number of milliseconds",
                Bare::Refused => "",
            };
            self.error(key, format!("expected a duration like \"2s\" or \"500ms\"{number}"));
            return None;
        };
        if range.contains(&read) {
            return Some(read);
        }
        let (start, end) = range.into_inner();
        self.error(key, format!("{read:?} is not within {start:?} to {end:?}"));
        None
    }

    /// A list of texts; `None` when absent or wrong.
    pub(super) fn list(&mut self, key: &'static str) -> Option<Vec<String>> {
        let value = self.get(key)?;
        let Some(items) = value.as_array() else {
            self.wrong(key, "a list of texts", value);
            return None;
        };
        let texts: Vec<String> =
            items.iter().filter_map(|item| item.as_str().map(str::to_owned)).collect();
        if texts.len() < items.len() {
            self.error(key, "expected a list of texts only");
            return None;
        }
        Some(texts)
    }

    /// The bits of all numbers of a list; none when absent or wrong.
    pub(super) fn flags(&mut self, key: &'static str) -> i64 {
        let Some(value) = self.get(key) else { return 0 };
        let numbers = value.as_array().map(|items| items.iter().map(Value::as_i64));
        let bits = numbers.and_then(|mut numbers| {
            numbers.try_fold(0, |bits, number| Some(bits | number.filter(|n| *n >= 0)?))
        });
        bits.unwrap_or_else(|| {
            self.error(key, "expected a list of whole numbers that are not negative");
            0
        })
    }

    /// One word of a closed set.
    pub(super) fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let text = self.text(key)?;
        let found = words.iter().find(|(word, _)| *word == text);
        if found.is_none() {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.error(key, format!("expected one of {}", words.join(", ")));
        }
        found.map(|(_, value)| *value)
    }

    /// The object at `key`.
    pub(super) fn section(&mut self, key: &'static str) -> Option<Self> {
        let value = self.get(key)?;
        let Some(object) = value.as_object() else {
            self.wrong(key, "an object", value);
            return None;
        };
        Some(self.below(self.path_of(key), object))
    }

    /// The objects of the list at `key`.
    pub(super) fn sections(&mut self, key: &'static str) -> Vec<Self> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let Some(items) = value.as_array() else {
            self.wrong(key, "a list of objects", value);
            return Vec::new();
        };
        let mut sections = Vec::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let path = self.path_of(&format!("{key}[{index}]"));
            match item.as_object() {
                Some(object) => sections.push(self.below(path, object)),
                None => self.wrong(&format!("{key}[{index}]"), "an object", item),
            }
        }
        sections
    }

    /// The objects of this object, each under its own key, where `names` are the keys that may be.
    pub(super) fn entries(&mut self, names: &[&'static str]) -> Vec<(&'static str, Self)> {
        names.iter().filter_map(|name| Some((*name, self.section(name)?))).collect()
    }

    fn below(&self, path: String, object: &'a Map<String, Value>) -> Self {
        Self { path, object, known: Vec::new(), findings: self.findings }
    }

    /// Accepts keys whose feature comes with a later version: their shape is checked, and a value
    /// that would do something is named in a note, so that it is never ignored in silence.
    pub(super) fn later(&mut self, feature: &str, keys: &[(&'static str, Shape)]) {
        for (key, shape) in keys {
            let Some(value) = self.get(key) else { continue };
            let active = match (shape, value) {
                (Shape::Number, Value::Number(number)) => number.as_u64() != Some(0),
                (Shape::Text, Value::String(text)) => !text.is_empty(),
                _ => {
                    let expected = match shape {
                        Shape::Number => "a number",
                        Shape::Text => "a text",
                    };
                    self.wrong(key, expected, value);
                    false
                }
            };
            if active {
                self.note(format!("not in this version yet: {} ({feature})", self.path_of(key)));
            }
        }
    }

    /// Reports every key nobody asked for. `hint` may know more about one than its spelling.
    pub(super) fn finish(self, hint: fn(&str) -> Option<String>) {
        for key in self.object.keys().filter(|key| !self.known.contains(&key.as_str())) {
            let advice = hint(key)
                .or_else(|| nearest(key, &self.known).map(|near| format!("did you mean {near}?")));
            match advice {
                Some(advice) => self.error(key, format!("unknown key; {advice}")),
                None => self.error(key, "unknown key"),
            }
        }
    }
}

/// The known key that differs least, if it is near enough to have been meant.
pub(super) fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let wanted = key.to_ascii_lowercase();
    let bound = (key.len() / 3).max(2);
    known
        .iter()
        .map(|candidate| (distance(&wanted, &candidate.to_ascii_lowercase()), *candidate))
        .filter(|(distance, _)| *distance <= bound)
        .min()
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions and replacements that turn one text into the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (line, a) in from.chars().enumerate() {
        let mut corner = line;
        let mut left = line + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(&to) {
            let above = *cell;
            let replaced = corner + usize::from(a != *b);
            left = replaced.min(above + 1).min(left + 1);
            corner = above;
            *cell = left;
        }
        if let Some(first) = row.first_mut() {
            *first = line + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_insertions_deletions_and_replacements() {
        let check = |a, b, n| assert_eq!(distance(a, b), n, "{a} {b}");
        check("", "", 0);
        check("abc", "", 3);
        check("", "abc", 3);
        check("kitten", "sitting", 3);
        check("maxbatchsiz", "maxbatchsize", 1);
        check("flaw", "lawn", 2);
    }

    #[test]
    fn the_nearest_key_ignores_case_and_refuses_what_is_far() {
        let known = ["ListenHTTP", "ListenHTTPS", "DataDirectory"];
        assert_eq!(nearest("listenhttp", &known), Some("ListenHTTP"));
        assert_eq!(nearest("DataDirectry", &known), Some("DataDirectory"));
        assert_eq!(nearest("Colour", &known), None);
    }

    #[test]
    fn every_mistake_is_found_in_one_pass_with_its_place() {
        let Value::Object(object) = serde_json::json!({
            "A": 1, "B": "x", "C": [1], "D": 5, "E": "12", "Lists": [{"F": true}, 3], "Zz": 0
        }) else {
            unreachable!()
        };
        let findings = RefCell::default();
        let mut section = Section::root(&object, &findings);
        assert_eq!(section.text("A"), None);
        assert!(section.flag("B", true));
        assert_eq!(section.list("C"), None);
        assert_eq!(section.number("D", 0..=4), None);
        let range = Duration::ZERO..=Duration::from_secs(1);
        assert_eq!(section.duration("E", Bare::Seconds, range), None);
        let mut entries = section.sections("Lists");
        assert_eq!(entries.len(), 1);
        assert_eq!(entries[0].number("F", 0..=1), None);
        section.finish(|_| None);
        let found: Vec<String> = findings.borrow().errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            found,
            [
                "A: expected a text, found a number",
                "B: expected true or false, found a text",
                "C: expected a list of texts only",
                "D: 5 is not within 0 to 4",
                "E: expected a duration like \"2s\" or \"500ms\" or a number of seconds",
                "Lists[1]: expected an object, found a number",
                "Lists[0].F: expected a whole number that is not negative, found true or false",
                "Zz: unknown key; did you mean A?",
            ]
        );
    }
}
