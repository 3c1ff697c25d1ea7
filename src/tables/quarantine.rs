//! `quarantine`: what could not take the ordinary way, with the reason in words.

use super::{Column, Kind, Table, maybe};
use crate::event::{Body, Quarantine};

/// Input and rows that were set aside.
pub(super) static QUARANTINE: Table<Quarantine> = Table {
    name: "quarantine",
    kind: Kind::Append,
    part: |e| match &e.body {
        Body::Quarantine(quarantine) => Some(quarantine),
        Body::Track(_) | Body::Payment(_) | Body::Agreement(_) | Body::Link(_) => None,
    },
    columns: &[
        Column { name: "eid", cell: |e, _| e.id.into() },
        Column { name: "received_at", cell: |e, _| e.received_at.into() },
        Column { name: "oid", cell: |e, _| maybe(e.who.oid) },
        Column { name: "host", cell: |e, _| (&e.host).into() },
        Column { name: "reason", cell: |_, q| q.reason.as_str().into() },
        Column { name: "message", cell: |_, q| (&q.message).into() },
        Column { name: "length", cell: |_, q| q.length.cast_signed().into() },
        Column { name: "raw", cell: |_, q| maybe(q.raw.as_ref()) },
        Column { name: "sink", cell: |_, q| maybe(q.sink.as_ref()) },
        Column { name: "table_name", cell: |_, q| maybe(q.table.as_ref()) },
        Column { name: "ingest_node", cell: |e, _| (&*e.ingest.node).into() },
        Column { name: "ingest_seq", cell: |e, _| e.ingest.seq.cast_signed().into() },
    ],
};
