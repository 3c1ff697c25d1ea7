//! Agreements: what `ppi/agree` reads beyond the fields of any event.
//!
//! A consent without the visitor who gave it proves nothing, so a missing or malformed `vid` is an
//! error that names it. It is recorded whatever `DNT` says: it is the visitor's own act, and the
//! only proof of it.

use serde_json::{Map, Value};

use super::IntakeError;
use super::build::{Bounds, Draft, id};
use super::fields;
use super::keys::Keys;
use crate::event::{Agreement, Body, Event, EventId, OtherId};

/// Takes the agreement out of `fields`.
///
/// # Errors
/// When `vid` names no visitor, or `cflags` is there and says no flags: it would be in force.
pub(super) fn take(
    fields: &mut Map<String, Value>,
    keys: &Keys,
    bounds: &Bounds,
) -> Result<Agreement, IntakeError> {
    let vid = fields.get("vid").cloned().unwrap_or_default();
    let message = match id(vid, keys) {
        Ok(Some(_)) => None,
        Ok(None) if !fields.contains_key("vid") => Some("is missing: who agreed?"),
        Ok(None) | Err(_) => Some("is no id: a UUID, or a text of at most 128 bytes"),
    };
    if let Some(message) = message {
        let (field, message) = ("vid".to_owned(), message.to_owned());
        return Err(IntakeError::Invalid { field, message });
    }
    let flags = fields.get("cflags").cloned().map(fields::whole);
    if let Some(Err(_) | Ok(Some(i64::MIN..=-1))) = flags {
        let (field, message) = ("cflags".to_owned(), "is no whole number of flags".to_owned());
        return Err(IntakeError::Invalid { field, message });
    }
    let mut named = |name: &str| {
        let read = id(fields.swap_remove(name)?, keys);
        match read {
            Ok(found) => found.map(|(id, _)| OtherId::from(id)),
            Err(value) => {
                fields.insert(name.to_owned(), value);
                None
            }
        }
    };
    let (avid, owner) = (named("avid"), named("owner"));
    let mut object = |name: &str| {
        let read = fields::object(fields.swap_remove(name)?, bounds.nesting_max);
        match read {
            Ok(found) => found,
            Err(value) => {
                fields.insert(name.to_owned(), value);
                None
            }
        }
    };
    let (compliances, loc) = (object("compliances"), object("loc"));
    let (compliances, loc) = (compliances.unwrap_or_default(), loc.unwrap_or_default());
    Ok(Agreement { avid, owner, compliances, loc })
}

/// The event of this agreement.
pub(super) fn finish(draft: Draft, agreement: Agreement) -> Event {
    let mut event = draft.event;
    if event.id.uuid().is_nil() {
        event.id = EventId::generate();
    }
    event.body = Body::Agreement(Box::new(agreement));
    event
}
