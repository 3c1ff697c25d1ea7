//! What operators see of one sink: its state in `/health` and its gauges.

use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use serde::Serialize;

use crate::journal::Position;

/// What a sink is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SinkState {
    /// Not reached since start.
    Connecting,
    /// Takes batches.
    Up,
    /// Takes batches, but one is being tried again.
    Retrying,
    /// Does not take batches; the backlog stays in the journal.
    Down,
    /// Its shipper broke; the process must be restarted.
    Failed,
    /// Closed by stop.
    Stopped,
}

impl SinkState {
    /// The word in `/health`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Up => "up",
            Self::Retrying => "retrying",
            Self::Down => "down",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
        }
    }
}

/// One sink as `/health` shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SinkHealth {
    /// Its configured name.
    pub name: String,
    /// Its configured type.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// What it is doing.
    pub state: SinkState,
    /// What a repeat of a batch does, in words: the weakest of its tables.
    pub guarantee: String,
    /// Journal records it does not have yet.
    pub lag_events: u64,
    /// Age of the oldest event it does not have, in seconds; 0 when it has all.
    #[serde(rename = "lag_s")]
    pub lag_seconds: u64,
    /// The last failure in words, since the last success; without one, what the store has to say.
    pub last_error: Option<String>,
}

/// Shared by a shipper, which writes, and [`super::Delivery::health`], which reads.
#[derive(Debug)]
pub(super) struct Status(Mutex<Seen>);

/// The latest of what a shipper knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) state: SinkState,
    pub(super) stored: Position,
    /// When the oldest event that is not stored was received, where one was read.
    pub(super) oldest: Option<DateTime<Utc>>,
    pub(super) last_error: Option<String>,
}

impl Status {
    /// A sink that is not reached yet and lags since `now`.
    pub(super) fn new(now: DateTime<Utc>) -> Self {
        Self(Mutex::new(Seen {
            state: SinkState::Connecting,
            stored: Position(0),
            oldest: Some(now),
            last_error: None,
        }))
    }

    pub(super) fn seen(&self) -> Seen {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}
