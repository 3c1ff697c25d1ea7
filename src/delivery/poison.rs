//! A batch the store refuses: find the rows, set them aside, deliver the rest.
//!
//! A refused range is cut into halves until single rows are refused. The cuts depend on the frozen
//! range alone, so that after a crash the same halves go out with the same tokens. Parts go in
//! order of position, so a store that keeps its own last position may skip what it has.
//!
//! A refused row becomes a quarantine record in the journal, durable before the cursor passes it.
//! Its id is computed from what was refused and by whom: after a crash the record may be there
//! twice, as the same event. A refused quarantine row is given up with a line in the log, because
//! quarantining it would be refused again without end.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::backends::{Batch, Entry};
use crate::event::{self, Body, Event, Ingest, Origin, Quarantine, Reason, Who};
use crate::journal::{AppendError, Journal, Position, Settle};
use crate::telemetry::Metrics;

/// Namespace of computed quarantine ids.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f3c_52b1_9d0e_4c57_8f14_2a7b_e0d9_c361);
/// Bytes of a store's message that are kept; some repeat the whole row.
const MESSAGE_BYTES_MAX: usize = 4 << 10;

/// What is left to send of a frozen batch; the next part is last.
#[derive(Debug)]
pub(super) struct Parts(Vec<Arc<Batch>>);

impl Parts {
    /// The batch in one part.
    pub(super) fn new(batch: Batch) -> Self {
        Self(vec![Arc::new(batch)])
    }

    /// The part to send now; `None` when all are settled.
    pub(super) fn next(&self) -> Option<&Arc<Batch>> {
        self.0.last()
    }

    /// The next part is stored or set aside.
    pub(super) fn settled(&mut self) {
        self.0.pop();
    }

    /// The next part was refused: its halves are next. A single row stays as it is.
    pub(super) fn split(&mut self) {
        let Some(part) = self.0.pop() else { return };
        match halves(&part) {
            Some([left, right]) => self.0.extend([Arc::new(right), Arc::new(left)]),
            None => self.0.push(part),
        }
    }
}

fn halves(batch: &Batch) -> Option<[Batch; 2]> {
    let (left, right) = batch.entries.split_at(batch.entries.len() / 2);
    let part = |entries: &[Entry]| Batch::new(batch.table, entries, Arc::clone(&batch.records));
    Some([part(left)?, part(right)?])
}

/// The quarantine record of `event`, which `sink` refused for `table` with `message`.
pub(super) fn refused(event: &Event, sink: &str, table: &str, message: &str) -> Event {
    let Ingest { node, seq } = &event.ingest;
    let raw = serde_json::to_string(event).unwrap_or_default();
    let id = Uuid::new_v5(&NAMESPACE, format!("{node}/{sink}/{table}/{seq}").as_bytes());
    let quarantine = Quarantine {
        reason: Reason::Refused,
        message: cut(message),
        length: raw.len() as u64,
        raw: Some(raw),
        sink: Some(sink.to_owned()),
        table: Some(table.to_owned()),
    };
    Event {
        created_at: event.created_at,
        origin: event.origin,
        host: event.host.clone(),
        hhash: event.hhash.clone(),
        // The tenant stays; the person is in `raw` only.
        who: Who { oid: event.who.oid, ..Who::default() },
        ..record(id, event.received_at, quarantine)
    }
}

/// The quarantine record of the record at `position` of journal `node`, which is no event.
pub(super) fn undecodable(
    node: &str,
    position: Position,
    bytes: &[u8],
    message: &str,
    now: DateTime<Utc>,
) -> Event {
    let id = Uuid::new_v5(&NAMESPACE, format!("{node}/{position}").as_bytes());
    let quarantine = Quarantine {
        reason: Reason::Undecodable,
        message: cut(message),
        length: bytes.len() as u64,
        // It has passed privacy when it was written; bytes that are no text cannot be a column.
        raw: std::str::from_utf8(bytes).ok().map(str::to_owned),
        sink: None,
        table: None,
    };
    record(id, now, quarantine)
}

/// The note that the refused row `eid` was put back.
pub(super) fn replayed(eid: Uuid, now: DateTime<Utc>) -> Event {
    let quarantine = Quarantine {
        reason: Reason::Replayed,
        message: eid.to_string(),
        length: 0,
        raw: None,
        sink: None,
        table: None,
    };
    record(Uuid::new_v5(&NAMESPACE, eid.as_bytes()), now, quarantine)
}

/// An event that is nothing but `quarantine`.
fn record(id: Uuid, received_at: DateTime<Utc>, quarantine: Quarantine) -> Event {
    let body = Body::Quarantine(Box::new(quarantine));
    Event { id: id.into(), origin: Origin::Server, ..Event::bare(received_at, body) }
}

/// Makes a quarantine record durable in the journal. A row whose own text is too large for a record
/// is kept without it.
///
/// # Errors
/// When the journal does not take it, or cannot make it durable.
pub(super) async fn keep(journal: &Journal, event: &Event) -> Result<(), AppendError> {
    let settle = settle_of(event);
    let pending = match journal.append(bytes(event), settle) {
        Err(AppendError::TooLarge(_)) => {
            let mut event = event.clone();
            if let Body::Quarantine(quarantine) = &mut event.body {
                quarantine.raw = None;
            }
            journal.append(bytes(&event), settle)?
        }
        other => other?,
    };
    pending.durable().await.map(|_| ())
}

fn bytes(event: &Event) -> Vec<u8> {
    // Nothing in a quarantine record is beyond JSON; an empty record would be quarantined itself.
    event::encode(event).unwrap_or_default()
}

/// Counts the record by its reason; `events_received` knows nothing of it, because it did not
/// arrive.
fn settle_of(event: &Event) -> Settle {
    fn count(metrics: &Metrics, reason: Reason, outcome: Result<(), &AppendError>) {
        if outcome.is_ok() {
            metrics.quarantined.with_label_values(&[reason.as_str()]).inc();
        }
    }
    match &event.body {
        Body::Quarantine(it) if it.reason == Reason::Undecodable => {
            |metrics, outcome| count(metrics, Reason::Undecodable, outcome)
        }
        _ => |metrics, outcome| count(metrics, Reason::Refused, outcome),
    }
}

fn cut(text: &str) -> String {
    let mut end = text.len().min(MESSAGE_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}
