//! What a WebSocket frame holds, and what it is answered with.
//!
//! | Answer | Meaning |
//! |---|---|
//! | `{"ack":n}` | every event of the frame is durable |
//! | `{"ack":n,"error":{…}}` | the frame cannot be used; sending it again will not help |
//! | `{"ack":n,"accepted":k,"results":[…]}` | of many events some cannot be used |
//! | `{"nack":n,"retry_after":s,"error":{…}}` | not stored: send it again, after so many seconds |
//! | `{"nack":n,"accepted":k,"results":[…]}` | send those again whose status is `retry` |

use axum::http::HeaderMap;
use bytes::Bytes;
use serde::Serialize;

use super::batch::{self, Form};
use super::body;
use super::error::{ApiError, Detail};
use super::track::{Outcome, Results, Taken};

/// A frame with events, as it was sent.
#[derive(Debug, Clone)]
pub enum Frame {
    /// JSON.
    Text(Bytes),
    /// An LZ4 block of JSON behind its inflated length.
    Binary(Bytes),
}

impl Frame {
    pub(super) fn bytes(&self) -> &Bytes {
        let (Self::Text(bytes) | Self::Binary(bytes)) = self;
        bytes
    }

    /// Bytes once inflated, as declared.
    pub(super) fn inflated_bytes(&self) -> usize {
        match self {
            Self::Text(bytes) => bytes.len(),
            Self::Binary(block) => match block.first_chunk() {
                Some(length) => usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX),
                None => 0,
            },
        }
    }
}

/// The events of a binary frame, inflated to at most `inflated_bytes_max`, or of a text frame as they
/// are; and the form they have.
///
/// # Errors
/// When the block is damaged or too large, or the frame is empty.
pub fn payload(frame: Frame, inflated_bytes_max: usize) -> Result<(Form, Bytes), ApiError> {
    let bytes = match frame {
        Frame::Text(text) => text,
        Frame::Binary(block) => body::inflate_block(&block, inflated_bytes_max)?,
    };
    match batch::form(&HeaderMap::new(), &bytes) {
        Form::Empty => {
            let message = "the frame holds nothing".to_owned();
            Err(ApiError::Malformed { field: None, message })
        }
        form => Ok((form, bytes)),
    }
}

/// What a frame is answered with, where answers are wanted.
#[derive(Default, Serialize)]
pub(super) struct Reply {
    #[serde(skip_serializing_if = "Option::is_none")]
    ack: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nack: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Detail>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    results: Option<Results>,
}

impl Reply {
    /// Waits for the fate of frame `number`.
    pub(super) async fn of(number: u64, outcome: Result<Outcome, ApiError>) -> Self {
        let (settled, again) = (Some(number), Some(number));
        let error = match outcome {
            Ok(Outcome::Nothing) => return Self { ack: settled, ..Self::default() },
            Ok(Outcome::One(taken)) => match Taken::durable(taken.pending).await {
                Ok(_) => return Self { ack: settled, ..Self::default() },
                Err(error) => error,
            },
            Ok(Outcome::Many(items)) => {
                let results = Results::of(items).await;
                return match (results.is_whole(), results.is_retry()) {
                    (true, _) => Self { ack: settled, ..Self::default() },
                    (_, true) => Self { nack: again, results: Some(results), ..Self::default() },
                    _ => Self { ack: settled, results: Some(results), ..Self::default() },
                };
            }
            Err(error) => error,
        };
        let retry_after = error.retry_seconds();
        let error = Some(error.detail());
        match retry_after {
            Some(_) => Self { nack: again, retry_after, error, ..Self::default() },
            None => Self { ack: settled, error, ..Self::default() },
        }
    }
}
