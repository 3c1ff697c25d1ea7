//! `payments` and `ltv`: what was paid, line by line, and what each line adds to whose value.
//!
//! Both are appended to. A payment that was told again has the same `id`, so the latest telling
//! counts: the views `payments_latest` and `ltv_totals` see to that, whatever was stored when.

use super::{Cell, Column, Kind, ListTable, maybe};
use crate::event::{Body, Credit, Event, Payment, Payments};

/// Line items.
pub(super) static PAYMENTS: ListTable<Payment> = ListTable {
    name: "payments",
    kind: Kind::Upsert,
    parts: |e| payments(e).map_or(&[], |payments| &payments.lines),
    columns: &[
        Column { name: "id", cell: |_, p| p.id.into() },
        Column { name: "eid", cell: |e, _| e.id.into() },
        Column { name: "oid", cell: |e, _| maybe(e.who.oid) },
        Column { name: "org", cell: |e, _| maybe(e.who.org.as_ref()) },
        Column { name: "tid", cell: |_, p| maybe(p.tid) },
        Column { name: "uid", cell: |e, _| maybe(e.who.uid) },
        Column { name: "vid", cell: |e, _| maybe(e.who.vid) },
        Column { name: "sid", cell: |e, _| maybe(e.who.sid) },
        Column { name: "invid", cell: |_, p| maybe(p.invid) },
        Column { name: "orid", cell: |_, p| maybe(p.orid) },
        Column { name: "product_id", cell: |_, p| maybe(p.product_id) },
        Column { name: "product", cell: |_, p| maybe(p.product.as_ref()) },
        Column { name: "pcat", cell: |_, p| maybe(p.pcat.as_ref()) },
        Column { name: "man", cell: |_, p| maybe(p.man.as_ref()) },
        Column { name: "model", cell: |_, p| maybe(p.model.as_ref()) },
        Column { name: "qty", cell: |_, p| maybe(p.qty) },
        Column { name: "duration", cell: |_, p| maybe(p.duration) },
        Column { name: "price", cell: |_, p| maybe(p.price) },
        Column { name: "discount", cell: |_, p| maybe(p.discount) },
        Column { name: "revenue", cell: |_, p| maybe(p.revenue) },
        Column { name: "margin", cell: |_, p| maybe(p.margin) },
        Column { name: "cost", cell: |_, p| maybe(p.cost) },
        Column { name: "tax", cell: |_, p| maybe(p.tax) },
        Column { name: "tax_rate", cell: |_, p| maybe(p.tax_rate) },
        Column { name: "commission", cell: |_, p| maybe(p.commission) },
        Column { name: "referral", cell: |_, p| maybe(p.referral) },
        Column { name: "fees", cell: |_, p| maybe(p.fees) },
        Column { name: "subtotal", cell: |_, p| maybe(p.subtotal) },
        Column { name: "total", cell: |_, p| maybe(p.total) },
        Column { name: "payment", cell: |_, p| maybe(p.payment) },
        Column { name: "currency", cell: |_, p| (&p.currency).into() },
        Column { name: "country", cell: |_, p| maybe(p.country.as_ref()) },
        Column { name: "rcode", cell: |_, p| maybe(p.rcode.as_ref()) },
        Column { name: "region", cell: |_, p| maybe(p.region.as_ref()) },
        Column { name: "campaign_id", cell: |_, p| maybe(p.campaign_id.as_ref()) },
        Column { name: "invoiced_at", cell: |_, p| maybe(p.invoiced_at) },
        Column { name: "starts", cell: |_, p| maybe(p.starts) },
        Column { name: "ends", cell: |_, p| maybe(p.ends) },
        Column { name: "paid_at", cell: |_, p| maybe(p.paid_at) },
        Column { name: "created_at", cell: |e, _| e.created_at.into() },
        Column { name: "updated_at", cell: |e, _| e.received_at.into() },
        Column { name: "hhash", cell: |e, _| (&e.hhash).into() },
        Column { name: "params", cell: |_, p| Cell::Json(&p.params) },
        Column { name: "ingest_node", cell: |e, _| (&*e.ingest.node).into() },
        Column { name: "ingest_seq", cell: |e, _| e.ingest.seq.cast_signed().into() },
    ],
};

/// What was paid, for each payment and holder.
pub(super) static LTV: ListTable<Credit> = ListTable {
    name: "ltv",
    kind: Kind::Counter,
    parts: |e| payments(e).map_or(&[], |payments| &payments.credits),
    columns: &[
        Column { name: "hhash", cell: |e, _| (&e.hhash).into() },
        Column { name: "id", cell: |_, c| c.id.into() },
        Column { name: "id_type", cell: |_, c| c.of.as_str().into() },
        Column { name: "paid", cell: |_, c| c.paid.into() },
        Column { name: "currency", cell: |_, c| (&c.currency).into() },
        Column { name: "payment_id", cell: |_, c| c.payment.into() },
        Column { name: "oid", cell: |e, _| maybe(e.who.oid) },
        Column { name: "org", cell: |e, _| maybe(e.who.org.as_ref()) },
        Column { name: "updater", cell: |e, _| maybe(payments(e).and_then(|p| p.updater)) },
        Column { name: "owner", cell: |e, _| maybe(payments(e).and_then(|p| p.owner)) },
        Column { name: "updated_at", cell: |e, _| e.received_at.into() },
        Column { name: "created_at", cell: |e, _| e.created_at.into() },
        Column { name: "ingest_node", cell: |e, _| (&*e.ingest.node).into() },
        Column { name: "ingest_seq", cell: |e, _| e.ingest.seq.cast_signed().into() },
    ],
};

fn payments(event: &Event) -> Option<&Payments> {
    match &event.body {
        Body::Payment(payments) => Some(payments),
        Body::Track(_) | Body::Agreement(_) | Body::Link(_) | Body::Quarantine(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::{AnyTable, samples};
    use super::*;

    #[test]
    fn no_column_of_a_full_payment_is_empty() {
        let event = samples::payment(1);
        for table in [&PAYMENTS as &dyn AnyTable, &LTV] {
            let mut cells = Vec::new();
            assert_eq!(table.rows(&event, &mut cells), 1, "{}", table.name());
            let named = table.columns().into_iter().zip(&cells);
            let empty: Vec<_> = named.filter(|(_, cell)| **cell == Cell::Null).collect();
            assert_eq!(empty, [], "{}", table.name());
            assert!(!table.has_row(&samples::event(1)), "{}", table.name());
        }
    }
}
