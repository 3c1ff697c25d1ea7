//! Puts refused rows back on the way to the sinks, after what refused them was mended.
//!
//! The event goes into the journal again under its own id, so every sink gets it once more: a store
//! that tells events apart by id shows it once.

use std::collections::VecDeque;

use thiserror::Error;

use crate::event::{self, Event};
use crate::journal::{AppendError, Journal, Pending};

/// Appends on their way at once: well below the queue of the journal, which requests share.
const PENDING_MAX: usize = 256;

/// What became of the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requeued {
    /// Durable in the journal again.
    pub appended: u64,
    /// Texts that are no event; left where they are.
    pub undecodable: u64,
}

/// The journal did not take all rows.
#[derive(Debug, Error)]
#[error("after {} rows", done.appended)]
pub struct RequeueError {
    /// What became of the rows before.
    pub done: Requeued,
    /// Why.
    pub source: AppendError,
}

/// Appends the events in `rows`, the column `raw` of quarantined rows with the reason `refused`, to
/// `journal` again. Returns when all are durable.
///
/// # Errors
/// When the journal does not take one; those before it are durable.
pub async fn requeue(journal: &Journal, rows: Vec<String>) -> Result<Requeued, RequeueError> {
    let mut done = Requeued::default();
    let mut pending = VecDeque::new();
    let outcome = append_all(journal, &rows, &mut done, &mut pending).await;
    let settled = settle(&mut pending, &mut done, 0).await;
    match outcome.and(settled) {
        Ok(()) => Ok(done),
        Err(source) => Err(RequeueError { done, source }),
    }
}

async fn append_all(
    journal: &Journal,
    rows: &[String],
    done: &mut Requeued,
    pending: &mut VecDeque<Pending>,
) -> Result<(), AppendError> {
    for row in rows {
        let Some(bytes) = bytes(row) else {
            done.undecodable += 1;
            continue;
        };
        settle(pending, done, PENDING_MAX - 1).await?;
        // Counted by whoever asked: nothing arrived from outside.
        pending.push_back(journal.append(bytes, |_, _| ())?);
    }
    Ok(())
}

/// Waits until at most `left` appends are on their way.
async fn settle(
    pending: &mut VecDeque<Pending>,
    done: &mut Requeued,
    left: usize,
) -> Result<(), AppendError> {
    while pending.len() > left {
        let Some(first) = pending.pop_front() else { break };
        first.durable().await?;
        done.appended += 1;
    }
    Ok(())
}

/// The row's event as the journal keeps events.
fn bytes(row: &str) -> Option<Vec<u8>> {
    let event: Event = serde_json::from_str(row).ok()?;
    event::encode(&event).ok()
}
