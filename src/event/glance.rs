//! What of an event decides where it goes, read without the rest.
//!
//! Delivery looks at every record twice: once to find the tables it has rows in, and once more when
//! a batch is written. The first look needs a third of what reading the whole event costs.

use chrono::{DateTime, Utc};
use serde::Deserialize;

use super::codec::{DecodeError, content};
use super::{Aim, Body, Event, Ingest, OrgId, Who};

/// An event of which only these fields are set: `received_at`, `who.oid`, `body`, `aim`, `ingest`.
#[derive(Debug)]
pub struct Glance(Event);

impl Glance {
    /// Looks at the bytes of the event that stands at `ingest`.
    ///
    /// # Errors
    /// When the version is unknown, or what is looked at is unreadable. Bytes that pass may still be
    /// no whole event.
    pub fn of(bytes: &[u8], ingest: Ingest) -> Result<Self, DecodeError> {
        let Looked { received_at, who, body, aim } =
            serde_json::from_slice(content(bytes)?).map_err(DecodeError::Content)?;
        let who = Who { oid: who.oid, ..Who::default() };
        Ok(Self(Event { who, aim, ingest, ..Event::bare(received_at, body) }))
    }

    /// What the parts of tables are found in, and nothing else.
    pub fn event(&self) -> &Event {
        &self.0
    }
}

/// The fields of an [`Event`] that are looked at, by their names there.
#[derive(Deserialize)]
struct Looked {
    #[serde(with = "chrono::serde::ts_milliseconds")]
    received_at: DateTime<Utc>,
    #[serde(default)]
    who: Whose,
    body: Body,
    #[serde(default)]
    aim: Option<Aim>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Whose {
    oid: Option<OrgId>,
}
