//! Bisecting a refused batch finds exactly the refused rows.

use std::collections::BTreeSet;
use std::fmt;

use proptest::prelude::*;

use super::{ALL, cases, event};
use crate::backends::{Batch, memory};
use crate::delivery::poison::{Parts, refused};
use crate::event::{Body, Event, Reason};
use crate::telemetry::chain;

fn batch(first: u64, last: u64) -> Batch {
    let events = (first..=last).map(event).collect();
    memory::batch(&ALL, events).unwrap()
}

/// Sends every part to a store that refuses parts with a bad row: what it took, what was found, and
/// the tokens it saw.
fn bisect(batch: Batch, bad: &BTreeSet<u64>) -> (Vec<u64>, Vec<u64>, Vec<String>) {
    let (mut stored, mut found, mut tokens) = (vec![], vec![], vec![]);
    let mut parts = Parts::new(batch);
    while let Some(part) = parts.next().cloned() {
        tokens.push(part.token());
        let rows: Vec<u64> = part.entries.iter().map(|entry| entry.position().0).collect();
        if !rows.iter().any(|row| bad.contains(row)) {
            stored.extend(rows);
            parts.settled();
        } else if let [row] = rows.as_slice() {
            found.push(*row);
            parts.settled();
        } else {
            parts.split();
        }
    }
    (stored, found, tokens)
}

#[test]
fn one_bad_row_of_a_thousand_is_found_in_ten_cuts() {
    let (stored, found, tokens) = bisect(batch(1, 1_000), &BTreeSet::from([700]));
    assert_eq!((stored.len(), found), (999, vec![700]));
    assert_eq!(tokens.len(), 21, "one refused and one stored half for each cut");
}

#[test]
fn a_refused_row_keeps_its_text_its_tenant_and_the_stores_words() {
    let event = event(42);
    let record = refused(&event, "duckdb", "events", "no such column");
    let Body::Quarantine(quarantine) = &record.body else { panic!("{record:?}") };
    assert_eq!(quarantine.reason, Reason::Refused);
    assert_eq!(quarantine.message, "no such column");
    assert_eq!(
        (quarantine.sink.as_deref(), quarantine.table.as_deref()),
        (Some("duckdb"), Some("events"))
    );
    let raw = quarantine.raw.as_ref().unwrap();
    assert_eq!(quarantine.length, raw.len() as u64);
    let mut again: Event = serde_json::from_str(raw).unwrap();
    again.ingest = event.ingest.clone();
    assert_eq!(again, *event);
    assert_eq!((record.received_at, &record.host), (event.received_at, &event.host));
}

#[test]
fn the_id_of_a_quarantine_record_follows_from_what_was_refused_and_by_whom() {
    let id = |seq, sink, table| refused(&event(seq), sink, table, "any").id;
    assert_eq!(id(1, "a", "t"), id(1, "a", "t"));
    let ids = [id(1, "a", "t"), id(2, "a", "t"), id(1, "b", "t"), id(1, "a", "u")];
    for (index, one) in ids.iter().enumerate() {
        assert!(!ids[index + 1..].contains(one));
    }
}

#[test]
fn a_message_beyond_its_bound_is_cut_between_characters() {
    let record = refused(&event(1), "s", "t", &"ä".repeat(4_000));
    let Body::Quarantine(quarantine) = &record.body else { panic!("{record:?}") };
    assert_eq!(quarantine.message, "ä".repeat(2_048));
}

#[test]
fn the_words_of_an_error_are_those_of_all_its_causes() {
    #[derive(Debug)]
    struct Outer(fmt::Error);
    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("writing")
        }
    }
    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.0)
        }
    }
    assert_eq!(chain(&Outer(fmt::Error)), format!("writing: {}", fmt::Error));
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn exactly_the_bad_rows_are_found_and_the_rest_is_stored_in_order_and_the_same_way_again(
        length in 1u64..200,
        bad in prop::collection::btree_set(1u64..200, 0..12),
    ) {
        let bad: BTreeSet<u64> = bad.into_iter().filter(|row| *row <= length).collect();
        let (stored, found, tokens) = bisect(batch(1, length), &bad);
        prop_assert_eq!(&found, &bad.iter().copied().collect::<Vec<_>>());
        let good: Vec<u64> = (1..=length).filter(|row| !bad.contains(row)).collect();
        prop_assert_eq!(&stored, &good);
        prop_assert_eq!(tokens.iter().collect::<BTreeSet<_>>().len(), tokens.len());
        prop_assert_eq!(bisect(batch(1, length), &bad).2, tokens);
    }
}
