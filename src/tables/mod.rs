//! What is stored where, as data: a table is a list of (column name, how to compute it).
//!
//! No SQL and no driver here: a sink asks for the columns of a table and for the cells of an event,
//! and puts them into its own form. Adding a column is one line here and one migration a store.

mod agreements;
mod events;
mod links;
mod messages;
mod payments;
mod quarantine;
#[cfg(test)]
pub(crate) mod samples;

use std::borrow::Cow;

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::{Map, Value};
use uuid::Uuid;

use crate::event::{Event, Money};

/// Every table, in the order in which sinks see them.
pub static ALL: &[&dyn AnyTable] = &[
    &events::EVENTS,
    &messages::MTHREADS,
    &messages::MSTORE,
    &messages::MTRIAGE,
    &messages::IMPRESSION_DAILY,
    &payments::PAYMENTS,
    &payments::LTV,
    &agreements::AGREEMENTS,
    &agreements::AGREED,
    &links::REDIRECTS,
    &links::REDIRECT_HISTORY,
    &quarantine::QUARANTINE,
];

/// The table of that name.
pub fn find(name: &str) -> Option<&'static dyn AnyTable> {
    ALL.iter().copied().find(|table| table.name() == name)
}

/// How rows of a table combine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Every row stands for itself.
    Append,
    /// The last row of a key wins.
    Upsert,
    /// Rows of a key are added up.
    Counter,
}

/// One value of one row; borrows from the event.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell<'e> {
    /// Absent.
    Null,
    /// Text.
    Text(Cow<'e, str>),
    /// Whole number.
    Int(i64),
    /// Number.
    Float(f64),
    /// Money, exact.
    Money(Money),
    /// Truth.
    Bool(bool),
    /// Identifier.
    Uuid(Uuid),
    /// Moment, millisecond precision.
    Time(DateTime<Utc>),
    /// Day.
    Date(NaiveDate),
    /// JSON object.
    Json(&'e Map<String, Value>),
    /// List of texts.
    List(Cow<'e, [String]>),
}

impl Cell<'_> {
    /// The form it has in answers, whichever store gives them.
    pub fn json(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Text(text) => Value::from(text.as_ref()),
            Self::Int(number) => Value::from(*number),
            Self::Float(number) => Value::from(*number),
            Self::Money(amount) => Value::from(amount.to_string()),
            Self::Bool(truth) => Value::from(*truth),
            Self::Uuid(id) => Value::from(id.to_string()),
            Self::Time(moment) => {
                Value::from(moment.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
            }
            Self::Date(day) => Value::from(day.to_string()),
            Self::Json(object) => Value::Object((*object).clone()),
            Self::List(texts) => Value::from(texts.to_vec()),
        }
    }
}

impl Cell<'_> {
    /// Names the kind of value in messages, which never repeat the value itself.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Text(_) => "text",
            Self::Int(_) => "whole number",
            Self::Float(_) => "number",
            Self::Money(_) => "money",
            Self::Bool(_) => "truth",
            Self::Uuid(_) => "uuid",
            Self::Time(_) => "moment",
            Self::Date(_) => "day",
            Self::Json(_) => "json",
            Self::List(_) => "list",
        }
    }
}

/// A table over the part `P` of an event.
pub struct Table<P: 'static> {
    /// Name in every store.
    pub name: &'static str,
    /// How rows combine.
    pub kind: Kind,
    /// The part the row is about; `None` means this event has no row here. It may look at nothing but
    /// what a [`Glance`](crate::event::Glance) has.
    pub part: fn(&Event) -> Option<&P>,
    /// Columns in order.
    pub columns: &'static [Column<P>],
}

/// A column: its name and how to compute it.
pub struct Column<P: 'static> {
    /// Name in every store.
    pub name: &'static str,
    /// The value for an event.
    pub cell: for<'e> fn(&'e Event, &'e P) -> Cell<'e>,
}

/// A [`Table`] with its part hidden: what the batcher and the sinks see.
pub trait AnyTable: Sync {
    /// Name in every store.
    fn name(&self) -> &'static str;
    /// How rows combine.
    fn kind(&self) -> Kind;
    /// Column names in order.
    fn columns(&self) -> Vec<&'static str>;
    /// Whether `event` has a row here; a glance at it is enough.
    fn has_row(&self, event: &Event) -> bool;
    /// Appends the cells of `event`'s rows to `cells`, row after row; how many rows.
    fn rows<'e>(&self, event: &'e Event, cells: &mut Vec<Cell<'e>>) -> usize;
}

impl<P: 'static> AnyTable for Table<P> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn columns(&self) -> Vec<&'static str> {
        self.columns.iter().map(|column| column.name).collect()
    }

    fn has_row(&self, event: &Event) -> bool {
        (self.part)(event).is_some()
    }

    fn rows<'e>(&self, event: &'e Event, cells: &mut Vec<Cell<'e>>) -> usize {
        let Some(part) = (self.part)(event) else { return 0 };
        cells.extend(self.columns.iter().map(|column| (column.cell)(event, part)));
        1
    }
}

/// A table over the parts `P` of an event, each of which is a row. A sink takes or refuses the rows
/// of an event together.
pub struct ListTable<P: 'static> {
    /// Name in every store.
    pub name: &'static str,
    /// How rows combine.
    pub kind: Kind,
    /// What the rows are about; none means this event has no row here. It may look at nothing but what
    /// a [`Glance`](crate::event::Glance) has.
    pub parts: fn(&Event) -> &[P],
    /// Columns in order.
    pub columns: &'static [Column<P>],
}

impl<P: 'static> AnyTable for ListTable<P> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn kind(&self) -> Kind {
        self.kind
    }

    fn columns(&self) -> Vec<&'static str> {
        self.columns.iter().map(|column| column.name).collect()
    }

    fn has_row(&self, event: &Event) -> bool {
        !(self.parts)(event).is_empty()
    }

    fn rows<'e>(&self, event: &'e Event, cells: &mut Vec<Cell<'e>>) -> usize {
        let parts = (self.parts)(event);
        for part in parts {
            cells.extend(self.columns.iter().map(|column| (column.cell)(event, part)));
        }
        parts.len()
    }
}

impl std::fmt::Debug for dyn AnyTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl<'e> From<&'e str> for Cell<'e> {
    fn from(text: &'e str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl<'e> From<&'e String> for Cell<'e> {
    fn from(text: &'e String) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<i64> for Cell<'_> {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}

impl From<i32> for Cell<'_> {
    fn from(number: i32) -> Self {
        Self::Int(i64::from(number))
    }
}

impl From<f64> for Cell<'_> {
    fn from(number: f64) -> Self {
        Self::Float(number)
    }
}

impl From<Money> for Cell<'_> {
    fn from(amount: Money) -> Self {
        Self::Money(amount)
    }
}

impl From<bool> for Cell<'_> {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl<K> From<crate::event::Id<K>> for Cell<'_> {
    fn from(id: crate::event::Id<K>) -> Self {
        Self::Uuid(id.uuid())
    }
}

impl From<DateTime<Utc>> for Cell<'_> {
    fn from(moment: DateTime<Utc>) -> Self {
        Self::Time(moment)
    }
}

/// The cell of a value that may be absent; texts are borrowed.
fn maybe<'e, T>(value: Option<T>) -> Cell<'e>
where
    Cell<'e>: From<T>,
{
    value.map_or(Cell::Null, Cell::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Body, Glance, Quarantine, Reason, Thread, encode};

    #[test]
    fn what_is_seen_at_a_glance_tells_in_which_tables_an_event_has_rows() {
        let mut threaded = samples::event(1);
        let Body::Track(track) = &mut threaded.body else { unreachable!() };
        let (tid, mid) = (Uuid::from_u128(7).into(), Uuid::from_u128(8).into());
        track.thread = Some(Box::new(Thread { tid, mid, fields: Map::new() }));
        let mut of_nobody = threaded.clone();
        of_nobody.who.oid = None;
        let quarantine = Quarantine {
            reason: Reason::Malformed,
            message: "no json".into(),
            length: 3,
            raw: None,
            sink: None,
            table: None,
        };
        let set_aside = Event::bare(samples::noon(), Body::Quarantine(Box::new(quarantine)));
        let events = [
            samples::event(1),
            threaded,
            of_nobody,
            set_aside,
            samples::payment(1),
            samples::agreement(1),
            samples::link(1, "/a", "https://example.net/b"),
        ];
        for event in &events {
            let glance = Glance::of(&encode(event).unwrap(), event.ingest.clone()).unwrap();
            assert_eq!(glance.event().received_at, event.received_at);
            for table in ALL {
                let (seen, has) = (table.has_row(glance.event()), table.has_row(event));
                assert_eq!(seen, has, "{} of {:?}", table.name(), event.body);
            }
        }
        assert!(ALL.iter().all(|table| events.iter().any(|event| table.has_row(event))));
    }
}
