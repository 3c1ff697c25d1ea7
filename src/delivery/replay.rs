//! Puts refused rows back on the way to the store that refused them, after the cause was mended.
//!
//! The event goes into the journal again under its own id, aimed at that one sink and table: every
//! other place has it already. Behind it goes a quarantine record that names the refused row, so a
//! second replay passes over it. A row that is refused again is quarantined again, as a new row.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use thiserror::Error;
use uuid::Uuid;

use super::poison;
use crate::backends::{Store, StoreError};
use crate::event::{self, Aim, Event};
use crate::journal::{AppendError, Journal};

/// Rows asked for at once; more come with the next question.
const ROWS_MAX: usize = 1_000;
/// Longest a store may take to name them.
const TIME_MAX: Duration = Duration::from_secs(30);

/// Refused rows that were not put back yet, oldest first; in words that every store reads.
const WAITING: &str = "select cast(eid as varchar) as eid, sink, table_name, raw from quarantine \
     where reason = 'refused' and raw <> '' and cast(eid as varchar) > '{after}' \
     and cast(eid as varchar) not in (select message from quarantine where reason = 'replayed' \
     and message is not null) group by all order by eid";

/// What became of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replayed {
    /// Durable in the journal again.
    pub appended: u64,
    /// Texts that are no event; left where they are.
    pub undecodable: u64,
}

/// Why not all rows were put back; those before are durable.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// The store does not name its refused rows.
    #[error("reading the quarantine")]
    Store(#[from] StoreError),
    /// The journal does not take them.
    #[error("appending to the journal")]
    Journal(#[from] AppendError),
    /// An event cannot be written as bytes.
    #[error("encoding an event")]
    Encode(#[from] event::EncodeError),
}

/// Puts back every refused row that `store` keeps. Returns when all are durable in `journal`.
///
/// # Errors
/// See [`ReplayError`].
pub async fn replay(
    store: &dyn Store,
    journal: &Journal,
    now: DateTime<Utc>,
) -> Result<Replayed, ReplayError> {
    let mut done = Replayed::default();
    let mut after = String::new();
    loop {
        let page = store.query(&WAITING.replace("{after}", &after), ROWS_MAX, TIME_MAX).await?;
        for row in &page.rows {
            let [Value::String(eid), Value::String(sink), Value::String(table), raw] = &**row
            else {
                continue;
            };
            after.clone_from(eid);
            let aim = Aim { sink: sink.clone(), table: table.clone() };
            if put_back(journal, eid, aim, raw, now).await? {
                done.appended += 1;
            } else {
                done.undecodable += 1;
            }
        }
        if !page.truncated || page.rows.is_empty() {
            return Ok(done);
        }
    }
}

/// Appends the refused row `eid`, whose event is `raw`, aimed at the place that lacks it, and then
/// the note that it was put back: a crash between the two means a second replay of that row, never
/// a lost one. False when `raw` is no event.
pub(super) async fn put_back(
    journal: &Journal,
    eid: &str,
    aim: Aim,
    raw: &Value,
    now: DateTime<Utc>,
) -> Result<bool, ReplayError> {
    // The store may give JSON as text or as a value.
    let event: Option<Event> = match raw {
        Value::String(text) => serde_json::from_str(text).ok(),
        value => serde_json::from_value(value.clone()).ok(),
    };
    let (Some(event), Ok(eid)) = (event, Uuid::parse_str(eid)) else { return Ok(false) };
    for record in [Event { aim: Some(aim), ..event }, poison::replayed(eid, now)] {
        // Not counted as arrived: nothing came from outside.
        journal.append(event::encode(&record)?, |_, _| ())?.durable().await?;
    }
    Ok(true)
}
