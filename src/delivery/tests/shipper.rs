//! Shippers against the real journal on a disk in memory, the scripted store, and a clock that moves
//! when told to.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::DateTime;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{Bounds, WIDE, event, limits};
use crate::backends::memory::{Fault, Memory};
use crate::clock::{Clock, ManualClock};
use crate::config::{JournalConfig, LimitsByTable, TableLimits};
use crate::delivery::cursor::highest;
use crate::delivery::replay::put_back;
use crate::delivery::{Cursors, Delivery, SinkHealth, SinkState};
use crate::event::{self, Aim, Body};
use crate::journal::strict_fs::{StrictFs, Survival};
use crate::journal::{Journal, Position};
use crate::telemetry::Metrics;

const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(500);

/// One life of a process on a disk.
struct Rig {
    journal: Journal,
    clock: Arc<ManualClock>,
    metrics: Arc<Metrics>,
    cursors: Cursors,
}

impl Rig {
    fn new() -> Self {
        Self::on(&StrictFs::new(1, 1 << 30))
    }

    fn on(disk: &StrictFs) -> Self {
        let config = JournalConfig {
            segment_bytes: 64 << 10,
            disk_bytes_max: 64 << 20,
            ..JournalConfig::new(PathBuf::from("/journal"))
        };
        let start = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
        let clock = Arc::new(ManualClock::new(start));
        let metrics = Arc::new(Metrics::new().unwrap());
        let cursors = Cursors { fs: Arc::new(disk.clone()), directory: PathBuf::from("/cursors") };
        let resume = highest(disk, Path::new("/cursors")).unwrap();
        let (fs, time) = (Arc::new(disk.clone()), Arc::clone(&clock) as Arc<dyn Clock>);
        let (journal, _) = Journal::open(&config, resume, fs, time, Arc::clone(&metrics)).unwrap();
        Self { journal, clock, metrics, cursors }
    }

    async fn append(&self, numbers: impl IntoIterator<Item = u64>) {
        let numbers: Vec<u64> = numbers.into_iter().collect();
        // Some at a time, so that the journal's queue takes them however busy the machine is.
        for numbers in numbers.chunks(100) {
            let append = |number: &u64| {
                let bytes = event::encode(&event(*number)).unwrap();
                self.journal.append(bytes, |_, _| ()).unwrap()
            };
            let pending: Vec<_> = numbers.iter().map(append).collect();
            for pending in pending {
                pending.durable().await.unwrap();
            }
        }
    }

    fn start(&self, sinks: &[(&str, &Arc<Memory>)], of: TableLimits, bounds: Bounds) -> Delivery {
        let limits = LimitsByTable { default: of, tables: [].into() };
        let backends: Vec<_> =
            sinks.iter().map(|(name, sink)| (sink.backend(name), limits.clone())).collect();
        let clock = Arc::clone(&self.clock) as Arc<dyn Clock>;
        Delivery::start_with(
            &backends,
            &self.journal,
            &self.cursors,
            &clock,
            &self.metrics,
            &|_| bounds,
        )
        .unwrap()
    }

    /// Waits for `condition` while time goes by in steps of `step`.
    async fn until_after(&self, step: Duration, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !condition() {
            assert!(Instant::now() < deadline, "the condition did not come true");
            self.clock.advance(step);
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Waits for `condition` while no time goes by.
    async fn until(&self, condition: impl Fn() -> bool) {
        self.until_after(Duration::ZERO, condition).await;
    }
}

/// Numbers of the events in `table`.
fn numbers(sink: &Memory, table: &str) -> Vec<u64> {
    let id = |id: uuid::Uuid| u64::try_from(id.as_u128()).unwrap();
    sink.rows(table).iter().map(|row| id(row.event.id.uuid())).collect()
}

fn immediate() -> TableLimits {
    limits(1, usize::MAX, LONG)
}

fn never() -> TableLimits {
    limits(usize::MAX, usize::MAX, LONG)
}

fn health(delivery: &Delivery, index: usize) -> SinkHealth {
    delivery.health().swap_remove(index)
}

#[tokio::test]
async fn rows_reach_the_store_in_order_and_the_sink_is_up_without_lag() {
    let (rig, sink) = (Rig::new(), Memory::new());
    let delivery = rig.start(&[("a", &sink)], immediate(), WIDE);
    rig.append(1..=50).await;
    rig.until(|| sink.rows("events").len() == 50).await;
    rig.until(|| health(&delivery, 0).lag_events == 0).await;
    assert_eq!(numbers(&sink, "events"), (1..=50).collect::<Vec<_>>());
    let health = health(&delivery, 0);
    assert_eq!((health.name.as_str(), health.kind), ("a", "memory"));
    assert_eq!((health.state, health.guarantee.as_str()), (SinkState::Up, "exactly-once"));
    assert_eq!((health.lag_seconds, health.last_error), (0, None));
    assert_eq!(rig.metrics.sink("a", "events").rows.get(), 50);
}

#[tokio::test]
async fn lanes_of_age_wait_for_it_and_lag_is_seen_meanwhile() {
    let (rig, sink) = (Rig::new(), Memory::new());
    let delivery = rig.start(&[("a", &sink)], limits(99, usize::MAX, 5 * SECOND), WIDE);
    rig.append(0..3).await;
    rig.until(|| rig.metrics.sink_queued_rows.with_label_values(&["a"]).get() == 3).await;
    rig.clock.advance(4 * SECOND);
    rig.until(|| health(&delivery, 0).lag_seconds == 4).await;
    assert_eq!((health(&delivery, 0).lag_events, sink.writes().len()), (3, 0));
    rig.clock.advance(SECOND);
    rig.until(|| sink.rows("events").len() == 3).await;
    assert_eq!(sink.writes().len(), 1);
}

#[tokio::test]
async fn a_hanging_sink_does_not_hold_another() {
    let (rig, stuck, free) = (Rig::new(), Memory::new(), Memory::new());
    stuck.always(Some(Fault::Hang));
    let delivery = rig.start(&[("stuck", &stuck), ("free", &free)], immediate(), WIDE);
    rig.append(1..=30).await;
    rig.until(|| free.rows("events").len() == 30).await;
    rig.until(|| stuck.hanging() == 1).await;
    assert_eq!(stuck.rows("events").len(), 0);
    assert_eq!(rig.journal.first(), Position(1));
    rig.until(|| health(&delivery, 1).lag_events == 0).await;
    assert_eq!(health(&delivery, 0).lag_events, 30);
    stuck.always(None);
    stuck.release();
    rig.until(|| stuck.rows("events").len() == 30).await;
}

#[tokio::test]
async fn an_outage_fills_memory_to_its_bound_and_no_further_and_all_is_delivered_after_it() {
    let (rig, sink) = (Rig::new(), Memory::new());
    let bounds = Bounds { rows: 150, read_bytes: 4_000, ..WIDE };
    sink.always(Some(Fault::Refuse));
    let delivery = rig.start(&[("a", &sink)], immediate(), bounds);
    let queued = rig.metrics.sink_queued_rows.with_label_values(&["a"]);
    // One reading more than the bound.
    let rows_max = 150 + 40;
    let all = 2_000;
    for first in (1..=all).step_by(100) {
        rig.append(first..(first + 100).min(all + 1)).await;
        assert!(usize::try_from(queued.get()).unwrap() <= rows_max);
    }
    rig.until_after(SECOND, || health(&delivery, 0).state == SinkState::Down).await;
    let health = health(&delivery, 0);
    assert_eq!(health.last_error.as_deref(), Some("events: a scripted fault"));
    assert_eq!(rig.metrics.sink_up.with_label_values(&["a"]).get(), 0);
    rig.until_after(SECOND, || queued.get() > 20).await;
    assert!(usize::try_from(queued.get()).unwrap() <= rows_max);
    sink.always(None);
    rig.until_after(SECOND, || sink.rows("events").len() as u64 == all).await;
    assert_eq!(numbers(&sink, "events"), (1..=all).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_answer_lost_after_the_commit_stores_nothing_twice() {
    let (rig, sink) = (Rig::new(), Memory::new());
    sink.fault(Fault::LoseAnswer);
    sink.fault(Fault::LoseAnswer);
    let _delivery = rig.start(&[("a", &sink)], immediate(), WIDE);
    rig.append(1..=20).await;
    rig.until_after(SECOND, || sink.writes().iter().any(|write| write.acknowledged)).await;
    rig.until(|| sink.rows("events").len() == 20).await;
    assert_eq!(numbers(&sink, "events"), (1..=20).collect::<Vec<_>>());
    let tokens: Vec<_> = sink.writes().into_iter().take(3).map(|write| write.token).collect();
    assert_eq!((&tokens[0], &tokens[1]), (&tokens[1], &tokens[2]));
}

#[tokio::test]
async fn a_store_is_not_asked_again_before_the_pause_it_wanted() {
    let (rig, sink) = (Rig::new(), Memory::new());
    sink.fault(Fault::RetryAfter(7 * SECOND));
    let delivery = rig.start(&[("a", &sink)], immediate(), WIDE);
    rig.append([1]).await;
    rig.until(|| health(&delivery, 0).state == SinkState::Retrying).await;
    rig.clock.advance((7 * SECOND).checked_sub(Duration::from_nanos(1)).unwrap());
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(sink.writes().len(), 1);
    rig.clock.advance(Duration::from_nanos(1));
    rig.until(|| sink.rows("events").len() == 1).await;
    rig.until(|| health(&delivery, 0).state == SinkState::Up).await;
}

#[tokio::test]
async fn exactly_the_bad_rows_go_to_quarantine_and_the_rest_is_delivered() {
    let (rig, sink) = (Rig::new(), Memory::new());
    let bad = [3, 17, 18, 40];
    let is_bad = move |event: &event::Event| {
        matches!(event.body, Body::Track(_)) && bad.contains(&event.id.uuid().as_u128())
    };
    sink.reject(is_bad);
    let _delivery = rig.start(&[("a", &sink)], limits(40, usize::MAX, SECOND), WIDE);
    rig.append(1..=40).await;
    rig.until_after(SECOND, || sink.rows("quarantine").len() == 4).await;
    let good: Vec<u64> = (1..=40).filter(|n| !bad.contains(&u128::from(*n))).collect();
    rig.until_after(SECOND, || sink.rows("events").len() == good.len()).await;
    assert_eq!(numbers(&sink, "events"), good);
    let quarantined = sink.rows("quarantine");
    let raw = |n: usize| quarantined[n].cells["raw"].as_str().unwrap().to_owned();
    assert_eq!(quarantined[0].cells["reason"], "refused");
    assert_eq!(quarantined[0].cells["sink"], "a");
    assert_eq!(quarantined[0].cells["table_name"], "events");
    assert_eq!(quarantined[0].cells["message"], "row 3 is not welcome");
    assert_eq!(rig.metrics.sink("a", "events").quarantined.get(), 4);
    assert_eq!(rig.metrics.quarantined.with_label_values(&["refused"]).get(), 4);

    // What refused them was mended: they are put back as they were.
    sink.reject_nothing();
    let aim = |sink: &str| Aim { sink: sink.to_owned(), table: "events".to_owned() };
    for (index, text) in [raw(0), raw(1), raw(2), raw(3)].into_iter().enumerate() {
        let eid = uuid::Uuid::from_u128(index as u128).to_string();
        assert!(
            put_back(&rig.journal, &eid, aim("a"), &text.into(), rig.clock.wall()).await.unwrap()
        );
    }
    let eid = uuid::Uuid::nil().to_string();
    let now = rig.clock.wall();
    let (elsewhere, nonsense) = (raw(0).into(), "no event".into());
    assert!(put_back(&rig.journal, &eid, aim("b"), &elsewhere, now).await.unwrap());
    assert!(!put_back(&rig.journal, &eid, aim("a"), &nonsense, now).await.unwrap());
    rig.until_after(SECOND, || sink.rows("events").len() == 40).await;
    assert_eq!(numbers(&sink, "events")[36..], [3, 17, 18, 40]);
}

#[tokio::test]
async fn a_batch_that_stays_too_large_is_cut_until_it_fits_and_never_into_crumbs() {
    let (rig, sink) = (Rig::new(), Memory::new());
    sink.set_rows_max(1_200);
    let _delivery = rig.start(&[("a", &sink)], limits(4_000, usize::MAX, LONG), WIDE);
    rig.append(1..=4_000).await;
    rig.until(|| !sink.writes().is_empty()).await;
    rig.until_after(SECOND, || sink.rows("events").len() == 4_000).await;
    assert_eq!(numbers(&sink, "events"), (1..=4_000).collect::<Vec<_>>());
    let rows = || sink.writes().iter().map(|write| write.rows).collect::<Vec<_>>();
    let cut = [4_000, 4_000, 2_000, 1_000, 1_000, 2_000, 2_000, 1_000, 1_000];
    assert_eq!(rows(), cut);

    sink.set_rows_max(10);
    rig.append(4_001..=8_000).await;
    rig.until(|| rows().len() > cut.len()).await;
    rig.until_after(SECOND, || rows().len() > cut.len() + 5).await;
    let after: Vec<_> = rows().split_off(cut.len());
    assert_eq!(after, [1_000, 1_000, 500, 500, 500, 500], "as many as were taken, then the least");
    sink.set_rows_max(usize::MAX);
    rig.until_after(SECOND, || sink.rows("events").len() == 8_000).await;
    assert_eq!(numbers(&sink, "events"), (1..=8_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_refused_quarantine_row_is_given_up_and_counted() {
    let (rig, sink) = (Rig::new(), Memory::new());
    sink.reject(|event| event.id.uuid().as_u128() != 2);
    let _delivery = rig.start(&[("a", &sink)], limits(3, usize::MAX, SECOND), WIDE);
    rig.append(1..=3).await;
    let lost = rig.metrics.sink_lost.with_label_values(&["a", "refused_quarantine"]);
    rig.until_after(SECOND, || lost.get() == 2).await;
    assert_eq!(numbers(&sink, "events"), [2]);
    assert_eq!(rig.journal.durable(), Position(5), "no quarantine of quarantine");
}

#[tokio::test]
async fn a_record_that_is_no_event_is_set_aside_once_and_stops_nothing() {
    let (rig, one, two) = (Rig::new(), Memory::new(), Memory::new());
    let delivery = rig.start(&[("one", &one), ("two", &two)], immediate(), WIDE);
    rig.append([1]).await;
    rig.journal.append(b"\x09nonsense".to_vec(), |_, _| ()).unwrap().durable().await.unwrap();
    rig.append([3]).await;
    rig.until(|| one.rows("quarantine").len() == 1 && two.rows("quarantine").len() == 1).await;
    rig.until(|| numbers(&one, "events") == [1, 3] && numbers(&two, "events") == [1, 3]).await;
    rig.until(|| delivery.health().iter().all(|sink| sink.lag_events == 0)).await;
    assert_eq!(rig.journal.durable(), Position(4));
    assert_eq!(one.rows("quarantine")[0].cells["message"], "unknown event version 9");
    assert_eq!(one.rows("quarantine")[0].cells["raw"], "\tnonsense");
    for sink in ["one", "two"] {
        assert_eq!(rig.metrics.sink_undecodable.with_label_values(&[sink]).get(), 1);
    }
    assert_eq!(rig.metrics.quarantined.with_label_values(&["undecodable"]).get(), 1);
}

#[tokio::test]
async fn a_record_that_is_no_whole_event_is_found_among_the_others_and_set_aside() {
    let (rig, sink) = (Rig::new(), Memory::new());
    let delivery = rig.start(&[("a", &sink)], limits(9, usize::MAX, SECOND), WIDE);
    rig.append(1..=4).await;
    let whole = String::from_utf8(event::encode(&event(5)).unwrap()).unwrap();
    let part = whole.replace(r#""host":"example.com""#, r#""host":5"#);
    rig.journal.append(part.into_bytes(), |_, _| ()).unwrap().durable().await.unwrap();
    rig.append(6..=9).await;
    rig.until_after(SECOND, || sink.rows("quarantine").len() == 1).await;
    rig.until_after(SECOND, || health(&delivery, 0).lag_events == 0).await;
    assert_eq!(numbers(&sink, "events"), [1, 2, 3, 4, 6, 7, 8, 9]);
    let cells = &sink.rows("quarantine")[0].cells;
    assert_eq!(cells["reason"], "undecodable");
    assert!(cells["raw"].as_str().unwrap().contains(r#""host":5"#), "{cells:?}");
}

#[tokio::test]
async fn a_store_that_cannot_be_reached_at_start_is_tried_until_it_can() {
    let (rig, sink) = (Rig::new(), Memory::new());
    sink.set_reachable(false);
    let delivery = rig.start(&[("a", &sink)], immediate(), WIDE);
    rig.append(1..=3).await;
    rig.until(|| health(&delivery, 0).last_error.is_some()).await;
    let health = health(&delivery, 0);
    assert_eq!((health.state, health.lag_events), (SinkState::Connecting, 3));
    sink.set_reachable(true);
    rig.until_after(SECOND, || sink.rows("events").len() == 3).await;
}

#[tokio::test]
async fn a_replaced_store_gets_all_the_journal_has() {
    let disk = StrictFs::new(2, 1 << 30);
    let sink = Memory::new();
    for life in 1..=2 {
        let rig = Rig::on(&disk);
        let delivery = rig.start(&[("a", &sink)], immediate(), WIDE);
        if life == 1 {
            rig.append(1..=9).await;
        }
        rig.until(|| sink.rows("events").len() == 9).await;
        delivery.stop(SECOND).await;
        rig.journal.close();
        sink.replace("another");
    }
}

#[tokio::test]
async fn stop_sends_what_waits_and_closes_the_sink_and_a_restart_repeats_nothing() {
    let disk = StrictFs::new(3, 1 << 30);
    let sink = Memory::new();
    let rig = Rig::on(&disk);
    let delivery = rig.start(&[("a", &sink)], never(), WIDE);
    rig.append(1..=9).await;
    rig.journal.close();
    delivery.stop(SECOND).await;
    assert_eq!(numbers(&sink, "events"), (1..=9).collect::<Vec<_>>());
    assert!(sink.is_closed());
    assert_eq!(health(&delivery, 0).state, SinkState::Stopped);

    let rig = Rig::on(&disk);
    let delivery = rig.start(&[("a", &sink)], immediate(), WIDE);
    rig.append([10]).await;
    rig.until(|| sink.rows("events").len() == 10).await;
    delivery.stop(SECOND).await;
    assert_eq!(sink.writes().len(), 2);
}

#[tokio::test]
async fn stop_keeps_its_deadline_though_the_store_hangs_and_the_range_is_repeated_unchanged() {
    let disk = StrictFs::new(4, 1 << 30);
    let sink = Memory::new();
    sink.fault(Fault::Hang);
    let rig = Rig::on(&disk);
    let delivery = rig.start(&[("a", &sink)], limits(5, usize::MAX, LONG), WIDE);
    rig.append(1..=5).await;
    rig.until(|| sink.hanging() == 1).await;
    rig.append(6..=7).await;
    let before = rig.clock.monotonic();
    tokio::join!(delivery.stop(2 * SECOND), async {
        tokio::task::yield_now().await;
        rig.clock.advance(2 * SECOND);
    });
    assert_eq!(rig.clock.monotonic() - before, 2 * SECOND, "no grace was needed");
    assert_eq!((sink.rows("events").len(), sink.hanging(), sink.is_closed()), (0, 0, true));
    rig.journal.close();

    let rig = Rig::on(&disk);
    let _delivery = rig.start(&[("a", &sink)], limits(2, usize::MAX, LONG), WIDE);
    rig.until(|| sink.rows("events").len() == 7).await;
    let writes: Vec<_> = sink.writes().into_iter().map(|write| (write.token, write.rows)).collect();
    let node = rig.journal.node();
    let expect = [(format!("{node}/events/1-5"), 5), (format!("{node}/events/6-7"), 2)];
    assert_eq!(writes, expect);
}

#[tokio::test]
async fn stop_does_not_wait_for_a_store_that_was_never_reached() {
    let (rig, sink) = (Rig::new(), Memory::new());
    sink.set_reachable(false);
    let delivery = rig.start(&[("a", &sink)], immediate(), WIDE);
    rig.append(1..=3).await;
    delivery.stop(LONG).await;
    assert_eq!((sink.writes().len(), sink.is_closed()), (0, true));
}

#[tokio::test]
async fn stop_does_not_wait_for_a_store_that_fails() {
    let (rig, sink) = (Rig::new(), Memory::new());
    sink.always(Some(Fault::Refuse));
    let delivery = rig.start(&[("a", &sink)], never(), WIDE);
    rig.append(1..=3).await;
    rig.until(|| rig.metrics.sink_queued_rows.with_label_values(&["a"]).get() == 3).await;
    delivery.stop(LONG).await;
    assert_eq!((sink.writes().len(), sink.is_closed()), (1, true));
}

#[tokio::test]
async fn a_panic_in_a_sink_is_seen_and_others_go_on() {
    let (rig, broken, good) = (Rig::new(), Memory::new(), Memory::new());
    broken.fault(Fault::Panic);
    let delivery = rig.start(&[("broken", &broken), ("good", &good)], immediate(), WIDE);
    rig.append([1]).await;
    delivery.failed().await;
    assert_eq!(health(&delivery, 0).state, SinkState::Failed);
    rig.until(|| good.rows("events").len() == 1).await;
    assert_eq!(health(&delivery, 1).state, SinkState::Up);
}

#[tokio::test]
async fn the_journal_forgets_only_what_every_sink_has() {
    let (rig, slow, quick) = (Rig::new(), Memory::new(), Memory::new());
    slow.always(Some(Fault::Hang));
    let _delivery = rig.start(&[("slow", &slow), ("quick", &quick)], immediate(), WIDE);
    // Several segments of 64 KiB; the keep time is long over at the end.
    rig.append(1..=600).await;
    rig.until(|| quick.rows("events").len() == 600).await;
    rig.until(|| slow.hanging() == 1).await;
    rig.clock.advance(Duration::from_secs(100_000));
    slow.always(None);
    assert_eq!(rig.journal.first(), Position(1));
    // The write that hung took longer than it may; it is tried again.
    rig.until_after(SECOND, || slow.rows("events").len() == 600).await;
    rig.until_after(100_000 * SECOND, || rig.journal.first() > Position(300)).await;
}

/// Random lives of the whole of delivery with the power cut at a random operation of the disk, in
/// the journal's files or the cursor's: what was acknowledged is in the store once.
#[test]
fn what_was_acknowledged_is_in_the_store_once_whenever_the_power_goes() {
    for seed in 0..25 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut disk = StrictFs::new(seed, 1 << 30);
        let sink = Memory::new();
        let mut acknowledged = BTreeSet::new();
        let (mut number, mut cuts) = (0, 0);
        for life in 0..5 {
            let calm = life == 4;
            let of = limits(random.random_range(1..30), usize::MAX, SECOND);
            if !calm {
                for _ in 0..random.random_range(0..3) {
                    sink.fault(
                        [Fault::LoseAnswer, Fault::Refuse][random.random_range(0..2)].clone(),
                    );
                }
            }
            tokio::runtime::Runtime::new().unwrap().block_on(async {
                let rig = Rig::on(&disk);
                if !calm {
                    disk.cut_power_at(disk.operations() + random.random_range(1..80));
                }
                let delivery = rig.start(&[("a", &sink)], of, WIDE);
                let rounds = random.random_range(1..30);
                // How many operations a round takes is chance, so the first life goes on until the
                // power does, which every round brings nearer.
                for round in 0.. {
                    if round >= rounds && (life > 0 || !disk.is_powered()) {
                        break;
                    }
                    let mut pending = Vec::new();
                    for _ in 0..random.random_range(1..10) {
                        number += 1;
                        let bytes = event::encode(&event(number)).unwrap();
                        if let Ok(it) = rig.journal.append(bytes, |_, _| ()) {
                            pending.push((number, it));
                        }
                    }
                    for (number, pending) in pending {
                        if pending.durable().await.is_ok() {
                            acknowledged.insert(number);
                        }
                    }
                    rig.clock.advance(SECOND / 3);
                }
                if calm {
                    rig.until_after(SECOND, || health(&delivery, 0).lag_events == 0).await;
                }
            });
            cuts += u32::from(!disk.is_powered());
            let survival = [Survival::Nothing, Survival::Some, Survival::Killed];
            disk = disk.restart(survival[random.random_range(0..3)]);
        }
        assert!(cuts > 0 && !acknowledged.is_empty(), "run {seed} tries something");
        let stored = numbers(&sink, "events");
        let once: BTreeSet<u64> = stored.iter().copied().collect();
        assert_eq!(once.len(), stored.len(), "run {seed}: nothing is twice");
        assert!(once.is_superset(&acknowledged), "run {seed}: nothing acknowledged is lost");
    }
}
