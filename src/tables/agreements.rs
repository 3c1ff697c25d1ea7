//! `agreements` and `agreed`: what visitors agreed to. Both tables have every agreement; the first is
//! read for the newest, the second for the history.

use super::events::ip;
use super::{Cell, Column, Kind, Table, maybe};
use crate::event::{Agreement, Body, Event};

/// Agreements, of which the newest of a visitor is in force.
pub(super) static AGREEMENTS: Table<Agreement> =
    Table { name: "agreements", kind: Kind::Upsert, part: agreement, columns: COLUMNS };

/// Agreements, all of them.
pub(super) static AGREED: Table<Agreement> =
    Table { name: "agreed", kind: Kind::Append, part: agreement, columns: COLUMNS };

fn agreement(event: &Event) -> Option<&Agreement> {
    match &event.body {
        Body::Agreement(agreement) => Some(agreement),
        Body::Track(_) | Body::Payment(_) | Body::Link(_) | Body::Quarantine(_) => None,
    }
}

const COLUMNS: &[Column<Agreement>] = &[
    Column { name: "vid", cell: |e, _| maybe(e.who.vid) },
    Column { name: "created_at", cell: |e, _| e.created_at.into() },
    Column { name: "updated_at", cell: |e, _| e.received_at.into() },
    Column { name: "compliances", cell: |_, a| Cell::Json(&a.compliances) },
    Column { name: "cflags", cell: |e, _| maybe(e.consent.cflags) },
    Column { name: "sid", cell: |e, _| maybe(e.who.sid) },
    Column { name: "uid", cell: |e, _| maybe(e.who.uid) },
    Column { name: "avid", cell: |_, a| maybe(a.avid) },
    Column { name: "hhash", cell: |e, _| (&e.hhash).into() },
    Column { name: "app", cell: |e, _| maybe(e.page.app.as_ref()) },
    Column { name: "rel", cell: |e, _| maybe(e.page.rel.as_ref()) },
    Column { name: "url", cell: |e, _| maybe(e.page.url.as_ref()) },
    Column { name: "ip", cell: |e, _| ip(e) },
    Column { name: "iphash", cell: |e, _| maybe(e.place.iphash.as_ref()) },
    Column { name: "gaid", cell: |e, _| maybe(e.who.gaid.as_ref()) },
    Column { name: "idfa", cell: |e, _| maybe(e.who.idfa.as_ref()) },
    Column { name: "msid", cell: |e, _| maybe(e.who.msid.as_ref()) },
    Column { name: "fbid", cell: |e, _| maybe(e.who.fbid.as_ref()) },
    Column { name: "country", cell: |e, _| maybe(e.place.country.as_ref()) },
    Column { name: "region", cell: |e, _| maybe(e.place.region.as_ref()) },
    Column { name: "culture", cell: |e, _| maybe(e.agent.culture.as_ref()) },
    Column { name: "source", cell: |e, _| maybe(e.campaign.source.as_ref()) },
    Column { name: "medium", cell: |e, _| maybe(e.campaign.medium.as_ref()) },
    Column { name: "campaign", cell: |e, _| maybe(e.campaign.campaign.as_ref()) },
    Column { name: "term", cell: |e, _| maybe(e.campaign.term.as_ref()) },
    Column { name: "ref", cell: |e, _| maybe(e.campaign.referral) },
    Column { name: "rcode", cell: |e, _| maybe(e.campaign.rcode.as_ref()) },
    Column { name: "aff", cell: |e, _| maybe(e.campaign.aff.as_ref()) },
    Column { name: "browser", cell: |e, _| maybe(e.agent.user_agent.as_ref()) },
    Column { name: "bhash", cell: |e, _| maybe(e.agent.bhash.as_ref()) },
    Column { name: "device", cell: |e, _| maybe(e.agent.device.as_ref()) },
    Column { name: "os", cell: |e, _| maybe(e.agent.os.as_ref()) },
    Column { name: "tz", cell: |e, _| maybe(e.place.tz.as_ref()) },
    Column { name: "vp_w", cell: |e, _| maybe(e.page.vp_w) },
    Column { name: "vp_h", cell: |e, _| maybe(e.page.vp_h) },
    Column { name: "loc", cell: |_, a| Cell::Json(&a.loc) },
    Column { name: "lat", cell: |e, _| maybe(e.place.lat) },
    Column { name: "lon", cell: |e, _| maybe(e.place.lon) },
    Column { name: "zip", cell: |e, _| maybe(e.place.zip.as_ref()) },
    Column { name: "owner", cell: |_, a| maybe(a.owner) },
    Column { name: "oid", cell: |e, _| maybe(e.who.oid) },
    Column { name: "org", cell: |e, _| maybe(e.who.org.as_ref()) },
    Column { name: "params", cell: |e, _| Cell::Json(&e.params) },
    Column { name: "ingest_node", cell: |e, _| (&*e.ingest.node).into() },
    Column { name: "ingest_seq", cell: |e, _| e.ingest.seq.cast_signed().into() },
];

#[cfg(test)]
mod tests {
    use super::super::{AnyTable, samples};
    use super::*;

    #[test]
    fn no_column_of_a_full_agreement_is_empty() {
        let event = samples::agreement(1);
        let mut cells = Vec::new();
        assert_eq!(AGREEMENTS.rows(&event, &mut cells), 1);
        let named = AGREEMENTS.columns().into_iter().zip(&cells);
        let empty: Vec<_> = named.filter(|(_, cell)| **cell == Cell::Null).collect();
        assert_eq!(empty, []);
        assert!(!AGREED.has_row(&samples::event(1)));
    }
}
