//! Lanes fill, become due and are taken, told the time.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{ALL, EVEN, SEVENTH, WIDE, at, cases, limits, made, range};
use crate::backends::Batch;
use crate::config::{Limits, Strategy, TableLimits};
use crate::delivery::batcher::{Batcher, Bounds, Taken};
use crate::delivery::cursor::TableCursor;
use crate::journal::Position;

const LONG: Duration = Duration::from_secs(300);

fn batcher(limits: TableLimits) -> Batcher {
    Batcher::new("sink".into(), made(), [(&ALL as _, limits, at(0))], Position(0), WIDE)
}

fn push(batcher: &mut Batcher, seqs: impl IntoIterator<Item = u64>, now: Instant) {
    for seq in seqs {
        super::push(batcher, seq, 100, now);
    }
}

fn take(batcher: &mut Batcher, lane: usize) -> Batch {
    match batcher.take(lane) {
        Some(Taken::Batch(batch)) => batch,
        other => panic!("{other:?}"),
    }
}

fn commit(batcher: &mut Batcher, lane: usize, now: Instant) {
    batcher.committed(lane, now, Duration::ZERO, Duration::ZERO);
}

fn seqs(batch: &Batch) -> Vec<u64> {
    batch.entries.iter().map(|entry| entry.position().0).collect()
}

#[test]
fn each_strategy_is_due_exactly_when_its_own_limit_is_reached() {
    let now = Instant::now();
    let age = Duration::from_secs(3);
    // Limits: 4 rows, 250 bytes, 3 s; a row is 100 bytes.
    for (strategy, due_after_rows, due_after_age) in [
        (Strategy::Immediate, Some(1), false),
        (Strategy::Time, None, true),
        (Strategy::Size, Some(4), false),
        (Strategy::Memory, Some(3), false),
        (Strategy::Hybrid, Some(3), true),
        (Strategy::Adaptive, Some(3), true),
    ] {
        let mut limits = limits(1, 1, age);
        limits.strategy = strategy;
        limits.limits = Limits::of(strategy, 4, 250, age);
        let mut lanes = batcher(limits);
        let due = (1..=9).find(|seq| {
            push(&mut lanes, [*seq], now);
            !lanes.due(now).is_empty()
        });
        assert_eq!(due, due_after_rows, "{strategy:?}");

        let mut lanes = batcher(limits);
        push(&mut lanes, [1], now);
        let just_before = (now + age).checked_sub(Duration::from_nanos(1)).unwrap();
        let immediate = strategy == Strategy::Immediate;
        assert_eq!(lanes.due(just_before).is_empty(), !immediate, "{strategy:?}");
        assert_eq!(!lanes.due(now + age).is_empty(), due_after_age || immediate, "{strategy:?}");
        if due_after_age {
            assert_eq!(lanes.next_due(now), Some(now + age), "{strategy:?}");
        }
    }
}

#[test]
fn a_due_lane_gives_all_that_waits_up_to_the_bounds_of_a_batch() {
    let now = Instant::now();
    let bounds = Bounds { batch_rows: 5, batch_bytes: 350, ..WIDE };
    let mut lanes = Batcher::new(
        "sink".into(),
        made(),
        [(&ALL as _, limits(2, usize::MAX, LONG), at(0))],
        Position(0),
        bounds,
    );
    push(&mut lanes, 1..=9, now);
    assert_eq!(seqs(&take(&mut lanes, 0)), [1, 2, 3], "three rows are 300 bytes");
    assert_eq!(lanes.due(now), [] as [usize; 0], "one batch of a table at a time");
    commit(&mut lanes, 0, now);
    assert_eq!(seqs(&take(&mut lanes, 0)), [4, 5, 6]);
}

#[test]
fn a_row_larger_than_a_batch_goes_alone() {
    let now = Instant::now();
    let bounds = Bounds { batch_bytes: 10, ..WIDE };
    let mut lanes = Batcher::new(
        "sink".into(),
        made(),
        [(&ALL as _, limits(9, 9, LONG), at(0))],
        Position(0),
        bounds,
    );
    push(&mut lanes, 1..=2, now);
    assert_eq!(seqs(&take(&mut lanes, 0)), [1]);
}

#[test]
fn no_row_waits_longer_than_the_bound_of_waiting() {
    let now = Instant::now();
    let mut lanes = batcher(limits(usize::MAX, usize::MAX, Duration::MAX));
    push(&mut lanes, [1], now);
    assert_eq!(lanes.next_due(now), Some(now + Duration::from_secs(600)));
}

#[test]
fn lanes_are_due_by_priority() {
    let now = Instant::now();
    let with = |priority| TableLimits { priority, ..limits(1, 1, LONG) };
    let tables = [(&ALL as _, with(4), at(0)), (&EVEN as _, with(1), at(0))];
    let mut lanes = Batcher::new("sink".into(), made(), tables, Position(0), WIDE);
    push(&mut lanes, [2], now);
    assert_eq!(lanes.due(now), [1, 0]);
}

#[test]
fn a_store_that_wants_a_rest_gets_it() {
    let (now, rest) = (Instant::now(), Duration::from_secs(1));
    let mut lanes = batcher(limits(1, 1, LONG));
    push(&mut lanes, [1], now);
    take(&mut lanes, 0);
    lanes.committed(0, now, Duration::ZERO, rest);
    push(&mut lanes, [2], now);
    assert!(lanes.due((now + rest).checked_sub(Duration::from_nanos(1)).unwrap()).is_empty());
    assert_eq!(lanes.next_due(now), Some(now + rest));
    assert_eq!(lanes.due(now + rest), [0]);
}

#[test]
fn a_full_batch_does_not_rest_so_a_backlog_drains() {
    let (now, rest) = (Instant::now(), Duration::from_secs(1));
    let bounds = Bounds { batch_bytes: 1_000, ..WIDE };
    let mut lanes = Batcher::new(
        "sink".into(),
        made(),
        [(&ALL as _, limits(1, 1, LONG), at(0))],
        Position(0),
        bounds,
    );
    push(&mut lanes, 1..=35, now);
    let first = take(&mut lanes, 0).entries.len();
    assert_eq!(first, 10, "rows of 100 bytes");
    lanes.committed(0, now, Duration::ZERO, rest);
    assert_eq!(lanes.due(now), [0], "more than a batch is left");
    while take(&mut lanes, 0).entries.len() == first {
        lanes.committed(0, now, Duration::ZERO, rest);
        if lanes.due(now).is_empty() {
            break;
        }
    }
    assert_eq!(lanes.next_due(now), Some(now + rest), "what is left rests");
}

#[test]
fn batches_that_were_too_large_are_smaller_until_many_were_stored() {
    let now = Instant::now();
    let bounds = Bounds { batch_rows: 8, ..WIDE };
    let of = limits(1, 1, LONG);
    let mut lanes =
        Batcher::new("sink".into(), made(), [(&ALL as _, of, at(0))], Position(0), bounds);
    push(&mut lanes, 1..=600, now);
    let send = |lanes: &mut Batcher| {
        let rows = take(lanes, 0).entries.len();
        commit(lanes, 0, now);
        rows
    };
    assert_eq!(send(&mut lanes), 8);
    lanes.shrink(3);
    let sizes: Vec<_> = (0..=2 * 64).map(|_| send(&mut lanes)).collect();
    assert_eq!(sizes, [vec![3; 64], vec![6; 64], vec![8]].concat());
}

#[test]
fn with_no_room_every_lane_with_rows_is_due_and_reading_stops() {
    let now = Instant::now();
    let bounds = Bounds { rows: 20, ..WIDE };
    let never = limits(usize::MAX, usize::MAX, LONG);
    let mut lanes =
        Batcher::new("sink".into(), made(), [(&ALL as _, never, at(0))], Position(0), bounds);
    let mut seq = 0;
    while lanes.has_room() {
        seq += 1;
        push(&mut lanes, [seq], now);
    }
    assert_eq!(lanes.rows(), 20);
    assert_eq!(lanes.due(now), [0]);
    take(&mut lanes, 0);
    assert!(!lanes.has_room(), "what is being sent is still in memory");
    commit(&mut lanes, 0, now);
    assert!(lanes.has_room());
    assert_eq!((lanes.rows(), lanes.bytes()), (0, 0));
}

#[test]
fn an_idle_table_counts_as_stored_up_to_what_was_read() {
    let now = Instant::now();
    let tables = [
        (&ALL as _, limits(9, 9_999, LONG), at(0)),
        (&SEVENTH as _, limits(9, 9_999, LONG), at(0)),
    ];
    let mut lanes = Batcher::new("sink".into(), made(), tables, Position(0), WIDE);
    push(&mut lanes, 1..=5, now);
    assert_eq!((lanes.cursor(0), lanes.cursor(1)), (at(0), at(5)));
    assert_eq!(lanes.low_water(), Position(0));
    take(&mut lanes, 0);
    commit(&mut lanes, 0, now);
    assert_eq!(lanes.low_water(), Position(5));
    lanes.read_to(Position(6));
    assert_eq!((lanes.cursor(0), lanes.cursor(1)), (at(6), at(6)));
    push(&mut lanes, [7], now);
    assert_eq!((lanes.cursor(0), lanes.cursor(1)), (at(6), at(6)));
}

#[test]
fn a_cursor_never_moves_back_when_the_head_is_lower_or_another_table_is_behind() {
    let now = Instant::now();
    let tables =
        [(&ALL as _, limits(1, 1, LONG), at(90)), (&EVEN as _, limits(1, 1, LONG), at(100))];
    // The journal was shortened to 50.
    let mut lanes = Batcher::new("sink".into(), made(), tables, Position(50), WIDE);
    assert_eq!(lanes.read(), Position(90));
    lanes.read_to(Position(50));
    assert_eq!((lanes.cursor(0), lanes.cursor(1)), (at(90), at(100)));
    push(&mut lanes, [92], now);
    assert_eq!(seqs(&take(&mut lanes, 0)), [92]);
    assert!(lanes.take(1).is_none(), "92 is stored there");
    commit(&mut lanes, 0, now);
    assert_eq!((lanes.cursor(0), lanes.cursor(1)), (at(92), at(100)));
}

#[test]
fn after_a_restart_a_lane_gives_exactly_the_frozen_range_first() {
    let now = Instant::now();
    let frozen = TableCursor { stored: Position(3), sending: Some(range(4, 8)) };
    // One row is due by the new limits, and one row is a batch; the range was frozen by others.
    let bounds = Bounds { rows: 1, batch_rows: 1, batch_bytes: 1, ..WIDE };
    let tables = [(&EVEN as _, limits(1, 1, LONG), frozen)];
    let mut lanes = Batcher::new("sink".into(), made(), tables, Position(20), bounds);
    push(&mut lanes, 4..=7, now);
    assert!(lanes.due(now).is_empty(), "the range is not complete");
    assert!(lanes.has_room(), "the range must be read whatever it takes");
    push(&mut lanes, 8..=10, now);
    assert_eq!(lanes.due(now), [0]);
    assert_eq!(lanes.cursor(0), frozen);
    let batch = take(&mut lanes, 0);
    assert_eq!((seqs(&batch), batch.token()), (vec![4, 6, 8], "node-1/even/4-8".to_owned()));
    commit(&mut lanes, 0, now);
    assert_eq!(seqs(&take(&mut lanes, 0)), [10]);
}

#[test]
fn a_frozen_range_that_is_no_longer_whole_is_named_and_its_rest_goes_on() {
    let now = Instant::now();
    let frozen = TableCursor { stored: Position(3), sending: Some(range(4, 8)) };
    // The journal ends at 6 and goes on above every cursor.
    let tables = [(&EVEN as _, limits(1, 1, LONG), frozen)];
    let mut lanes = Batcher::new("sink".into(), made(), tables, Position(6), WIDE);
    push(&mut lanes, 4..=6, now);
    assert_eq!(lanes.due(now), [0]);
    assert!(matches!(lanes.take(0), Some(Taken::Missing(it)) if it == range(4, 8)));
    assert_eq!(seqs(&take(&mut lanes, 0)), [4, 6]);

    let mut lanes = Batcher::new(
        "sink".into(),
        made(),
        [(&EVEN as _, limits(1, 1, LONG), frozen)],
        Position(3),
        WIDE,
    );
    assert!(matches!(lanes.take(0), Some(Taken::Missing(_))), "nothing of it is left");
    push(&mut lanes, [10], now);
    assert_eq!(seqs(&take(&mut lanes, 0)), [10]);
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn nothing_is_lost_repeated_or_reordered_and_bounds_hold(
        rows in 1usize..20,
        bytes in 1usize..3_000,
        batch_rows in 1usize..15,
        batch_bytes in 1usize..2_000,
        sizes in prop::collection::vec(1usize..400, 1..120),
        takes in prop::collection::vec(any::<bool>(), 120),
    ) {
        let start = Instant::now();
        let bounds = Bounds { rows: 30, batch_rows, batch_bytes, ..WIDE };
        let of = limits(rows, bytes, Duration::from_millis(40));
        let tables =
            [(&ALL as _, of, at(0)), (&EVEN as _, of, at(0)), (&SEVENTH as _, of, at(0))];
        let mut lanes = Batcher::new("sink".into(), made(), tables, Position(0), bounds);
        let mut got = [vec![], vec![], vec![]];
        let mut stored = [0; 3];
        for (step, size) in sizes.iter().enumerate() {
            let now = start + Duration::from_millis(step as u64);
            if lanes.has_room() {
                let next = lanes.read().0 + 1;
                super::push(&mut lanes, next, *size, now);
            }
            prop_assert!(lanes.rows() < 30 + 3);
            let due = if takes[step] { lanes.due(now) } else { vec![] };
            for lane in due {
                let batch = take(&mut lanes, lane);
                prop_assert!(batch.entries.len() <= batch_rows);
                prop_assert_eq!(batch.first.0, seqs(&batch)[0]);
                prop_assert_eq!(Some(batch.last.0), seqs(&batch).last().copied());
                prop_assert!(lanes.cursor(lane).stored < batch.first);
                got[lane].extend(seqs(&batch));
                commit(&mut lanes, lane, now);
            }
            for lane in lanes.lanes() {
                let at = lanes.cursor(lane).stored.0;
                prop_assert!(at >= stored[lane], "a cursor never moves back");
                stored[lane] = at;
            }
        }
        while let Some(&lane) = lanes.waiting().first() {
            got[lane].extend(seqs(&take(&mut lanes, lane)));
            commit(&mut lanes, lane, start);
        }
        let read = lanes.read().0;
        for (lane, step) in [(0, 1), (1, 2), (2, 7)] {
            let expect: Vec<u64> = (1..=read).filter(|seq| seq % step == 0).collect();
            prop_assert_eq!(&got[lane], &expect);
        }
        prop_assert_eq!((lanes.rows(), lanes.bytes()), (0, 0));
        prop_assert_eq!(lanes.low_water(), Position(read));
    }
}
