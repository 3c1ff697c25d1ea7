//! `redirects` and `redirect_history`: short links as they are, and every change of them.

use super::{Column, Kind, Table, maybe};
use crate::event::{Body, Event, Link};

/// Short links by `urlfrom`; the last change wins.
pub(super) static REDIRECTS: Table<Link> = Table {
    name: "redirects",
    kind: Kind::Upsert,
    part: link,
    columns: &[
        Column { name: "hhash", cell: |e, _| (&e.hhash).into() },
        Column { name: "urlfrom", cell: |_, l| (&l.urlfrom).into() },
        Column { name: "urlto", cell: |_, l| (&l.urlto).into() },
        Column { name: "oid", cell: |e, _| maybe(e.who.oid) },
        Column { name: "org", cell: |e, _| maybe(e.who.org.as_ref()) },
        Column { name: "updater", cell: |_, l| l.updater.into() },
        Column { name: "updated_at", cell: |e, _| e.created_at.into() },
        Column { name: "created_at", cell: |e, _| e.created_at.into() },
        Column { name: "ingest_node", cell: |e, _| (&*e.ingest.node).into() },
        Column { name: "ingest_seq", cell: |e, _| e.ingest.seq.cast_signed().into() },
    ],
};

/// Every change of a short link.
pub(super) static REDIRECT_HISTORY: Table<Link> = Table {
    name: "redirect_history",
    kind: Kind::Append,
    part: link,
    columns: &[
        Column { name: "urlfrom", cell: |_, l| (&l.urlfrom).into() },
        Column { name: "hostfrom", cell: |_, l| (&l.hostfrom).into() },
        Column { name: "slugfrom", cell: |_, l| (&l.slugfrom).into() },
        Column { name: "urlto", cell: |_, l| (&l.urlto).into() },
        Column { name: "hostto", cell: |_, l| (&l.hostto).into() },
        Column { name: "pathto", cell: |_, l| (&l.pathto).into() },
        Column { name: "searchto", cell: |_, l| maybe(l.searchto.as_ref()) },
        Column { name: "oid", cell: |e, _| maybe(e.who.oid) },
        Column { name: "org", cell: |e, _| maybe(e.who.org.as_ref()) },
        Column { name: "updater", cell: |_, l| l.updater.into() },
        Column { name: "updated_at", cell: |e, _| e.created_at.into() },
        Column { name: "ingest_node", cell: |e, _| (&*e.ingest.node).into() },
        Column { name: "ingest_seq", cell: |e, _| e.ingest.seq.cast_signed().into() },
    ],
};

fn link(event: &Event) -> Option<&Link> {
    match &event.body {
        Body::Link(link) => Some(link),
        Body::Track(_) | Body::Payment(_) | Body::Agreement(_) | Body::Quarantine(_) => None,
    }
}
