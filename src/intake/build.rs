//! Hit → event: every loose field read once, by the table in [`super::names`].
//!
//! What has no column goes to `params` with its name and JSON type. So does a value of the wrong
//! type, under the name of the column it was meant for. Personal values (`email`, `cell`, `uname`)
//! are held apart in [`Said`] and never enter the event.

use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

use super::fields::{self, Read};
use super::keys::Keys;
use super::names::{COPIES, MESSAGE, Slot, slot};
use super::{Hit, RequestFacts};
use crate::event::{Body, Consent, Event, EventId, Origin, OtherId, Thread, Track};

/// Years in which a time may lie: what every store can hold.
const YEARS: std::ops::RangeInclusive<i32> = 1900..=2261;

/// An event in the making.
pub(super) struct Draft {
    /// The event; its body is a placeholder until [`Draft::finish`].
    pub(super) event: Event,
    /// The body.
    pub(super) track: Track,
    /// What was said and is not stored as such.
    pub(super) said: Said,
}

/// What was said and must not reach the event in this form.
#[derive(Default)]
pub(super) struct Said {
    /// `url` with its query.
    pub(super) url: Option<String>,
    /// `last` with its query.
    pub(super) last: Option<String>,
    /// E-mail address.
    pub(super) email: Option<String>,
    /// Telephone number.
    pub(super) cell: Option<String>,
    /// User name.
    pub(super) uname: Option<String>,
    /// Value of the account check.
    pub(super) account: Option<String>,
    /// When it happened, as sent; `Some` even when unreadable.
    pub(super) created: Option<Value>,
    /// The thread's id was a UUID, not a text.
    pub(super) is_thread: bool,
}

/// What building needs to know.
pub(super) struct Bounds {
    /// Bytes of one text.
    pub(super) text_bytes_max: usize,
    /// Nesting of JSON inside texts.
    pub(super) nesting_max: usize,
}

/// Whether `name` (lower case) is a field with a place of its own.
pub(super) fn is_known(name: &str) -> bool {
    slot(name).is_some()
}

/// Reads every field of `hit`.
pub(super) fn build(hit: Hit, keys: &Keys, bounds: &Bounds) -> Draft {
    let mut draft = Draft {
        event: blank(&hit.facts, hit.origin),
        track: Track::default(),
        said: Said::default(),
    };
    let mut params = None;
    for (name, value) in hit.fields {
        let Some(slot) = slot(&name) else {
            draft.event.params.insert(name, value);
            continue;
        };
        if let Slot::Params = slot {
            params = Some(value);
        } else if let Err(value) = draft.read(slot, &name, value, keys, bounds) {
            draft.event.params.insert(name, value);
        }
    }
    if let Some(value) = params {
        draft.add_params(value, bounds);
    }
    draft
}

/// An event that says only where and when it was received.
pub(super) fn blank(facts: &RequestFacts, origin: Origin) -> Event {
    // Milliseconds are what is stored; an event must read back as it was written.
    let millis = facts.received_at.timestamp_millis();
    let received_at = DateTime::from_timestamp_millis(millis).unwrap_or(facts.received_at);
    Event {
        origin,
        host: facts.host.clone(),
        consent: Consent { gpc: facts.gpc, dnt: facts.dnt, ..Consent::default() },
        ..Event::bare(received_at, Body::Track(Box::default()))
    }
}

impl Draft {
    /// Puts `value` where `slot` says; gives it back when it is of another kind.
    fn read(
        &mut self,
        slot: &Slot,
        name: &str,
        value: Value,
        keys: &Keys,
        bounds: &Bounds,
    ) -> Result<(), Value> {
        let text = |value| fields::text(value, bounds.text_bytes_max);
        match slot {
            Slot::Text(place) => keep(place(self), text(value)?),
            Slot::Folded(place) => keep(place(self), text(value)?.map(fields::fold)),
            Slot::Address(place) => keep(place(self), fields::text(value, usize::MAX)?),
            Slot::Whole(place) => keep(place(self), fields::whole(value)?),
            Slot::Number(place) => keep(place(self), fields::number(value)?),
            Slot::Object(place) => {
                if let Some(object) = fields::object(value, bounds.nesting_max)? {
                    *place(self) = object;
                }
            }
            Slot::Id(place) => {
                if let Some((id, _)) = id(value, keys)? {
                    place(self, id);
                }
            }
            Slot::Thread => {
                if let Some((id, text)) = id(value, keys)? {
                    self.track.tid = Some(id.into());
                    self.said.is_thread = text.is_none();
                }
            }
            Slot::Invoice => {
                if let Some((id, text)) = id(value, keys)? {
                    self.track.invoice_id = Some(id.into());
                    if let Some(text) = text {
                        self.event.params.insert(name.to_owned(), Value::String(text));
                    }
                }
            }
            // A token under this name is nobody's id and is not stored anywhere.
            Slot::Author => {
                if let Some(id) = value.as_str().and_then(|text| Uuid::parse_str(text.trim()).ok())
                {
                    self.event.who.auth_id = Some(id.into());
                }
            }
            Slot::Account => self.said.account = text(value).unwrap_or_default(),
            Slot::Created => {
                if name == "created_at" || self.said.created.is_none() {
                    self.said.created = Some(value);
                }
            }
            Slot::Version => {
                let version =
                    fields::whole(value)?.map(|wide| i32::try_from(wide).map_err(|_| wide));
                keep(&mut self.event.page.ver, version.transpose().map_err(Value::from)?);
            }
            Slot::Params | Slot::Dropped => {}
        }
        Ok(())
    }

    /// Adds an object of custom fields; what is no object is itself a custom field.
    fn add_params(&mut self, value: Value, bounds: &Bounds) {
        match fields::object(value, bounds.nesting_max) {
            Ok(object) => {
                for (name, value) in object.into_iter().flatten() {
                    if COPIES.binary_search(&&*name).is_err() {
                        self.event.params.insert(name, value);
                    }
                }
            }
            Err(value) => {
                self.event.params.insert("params".to_owned(), value);
            }
        }
    }

    /// Decides when it happened (D27). True when the sender's word was not believed.
    pub(super) fn settle_time(&mut self, is_trusted: bool) -> bool {
        const DRIFT_MAX: chrono::TimeDelta = chrono::TimeDelta::hours(72);
        let Some(said) = self.said.created.take() else { return false };
        let received_at = self.event.received_at;
        let is_believed =
            |time: &DateTime<Utc>| is_trusted || (*time - received_at).abs() <= DRIFT_MAX;
        match moment(&said).filter(is_believed) {
            Some(time) => {
                self.event.created_at = time;
                false
            }
            None => true,
        }
    }

    /// The event, with its id and, for a named event of a thread, its message. The message's fields
    /// stay in `params` too: `events` is complete by itself.
    pub(super) fn finish(mut self) -> Event {
        if self.event.id.uuid().is_nil() {
            self.event.id = EventId::generate();
        }
        let is_named = self.track.ename.is_some();
        if let Some(tid) = self.track.tid.filter(|_| self.said.is_thread && is_named) {
            let fields = MESSAGE
                .iter()
                .filter_map(|name| {
                    Some(((*name).to_owned(), self.event.params.get(*name)?.clone()))
                })
                .collect();
            let thread = Thread { tid, mid: OtherId::generate(), fields };
            self.track.thread = Some(Box::new(thread));
        }
        self.event.body = Body::Track(Box::new(self.track));
        self.event
    }
}

/// Sets `place` unless nothing was said.
fn keep<T>(place: &mut Option<T>, value: Option<T>) {
    if value.is_some() {
        *place = value;
    }
}

/// The UUID that `value` is or stands for, and the text when it is none. The zero id means absent.
pub(super) fn id(value: Value, keys: &Keys) -> Read<(Uuid, Option<String>)> {
    if let Value::String(text) = &value
        && let Ok(id) = Uuid::parse_str(text.trim())
    {
        return Ok((!id.is_nil()).then_some((id, None)));
    }
    Ok(fields::id(value)?.map(|text| (keys.id(&text), Some(text))))
}

/// A moment in RFC 3339 or in milliseconds since 1970, as number or text.
pub(super) fn moment(value: &Value) -> Option<DateTime<Utc>> {
    use chrono::Datelike;

    let time = match value {
        Value::String(text) => {
            let text = text.trim();
            match DateTime::parse_from_rfc3339(text) {
                Ok(time) => time.with_timezone(&Utc),
                Err(_) => DateTime::from_timestamp_millis(text.parse().ok()?)?,
            }
        }
        other => DateTime::from_timestamp_millis(fields::whole(other.clone()).ok()??)?,
    };
    // Milliseconds are what is stored; an event must read back as it was written.
    let time = DateTime::from_timestamp_millis(time.timestamp_millis())?;
    YEARS.contains(&time.year()).then_some(time)
}
