//! The bytes of an event in the journal: one version byte, then JSON.
//!
//! JSON because a record must be readable by an older and a newer program and by a person in an
//! incident. The version byte lets another form replace it without a migration.

use thiserror::Error;

use super::Event;

/// Version byte of the JSON form.
const JSON: u8 = 1;

/// Why an event could not be written as bytes.
#[derive(Debug, Error)]
#[error("event cannot be encoded")]
pub struct EncodeError(#[source] serde_json::Error);

/// Why bytes are no event.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// Written by a newer program, or no event at all.
    #[error("unknown event version {0}")]
    Version(u8),
    /// An empty record.
    #[error("empty record")]
    Empty,
    /// The version is known, the content is not readable.
    #[error("unreadable event")]
    Content(#[source] serde_json::Error),
}

/// The bytes of `event`.
///
/// # Errors
/// Only when a map holds something JSON cannot say, which no parser of ours produces.
pub fn encode(event: &Event) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = Vec::with_capacity(1024);
    bytes.push(JSON);
    serde_json::to_writer(&mut bytes, event).map_err(EncodeError)?;
    Ok(bytes)
}

/// The event in `bytes`; its [`super::Ingest`] is left empty.
///
/// # Errors
/// When the version is unknown or the content is unreadable.
pub fn decode(bytes: &[u8]) -> Result<Event, DecodeError> {
    serde_json::from_slice(content(bytes)?).map_err(DecodeError::Content)
}

/// The JSON behind the version byte.
pub(super) fn content(bytes: &[u8]) -> Result<&[u8], DecodeError> {
    match bytes.split_first() {
        None => Err(DecodeError::Empty),
        Some((&JSON, content)) => Ok(content),
        Some((&version, _)) => Err(DecodeError::Version(version)),
    }
}
