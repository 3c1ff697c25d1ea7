//! Any sequence of what callers and fate can do, against a list in memory.
//!
//! `TRACKER_PROPTEST_CASES` sets how many sequences are tried.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    Append {
        bytes: usize,
    },
    /// Waits for all appends so far.
    Commit,
    Crash {
        survival: Survival,
    },
    Reopen,
    /// The follower reads on.
    Read {
        bytes_max: usize,
    },
    /// Gives up a share of what the follower has read, in percent.
    Forget {
        percent: u64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let survival =
        prop_oneof![Just(Survival::Nothing), Just(Survival::Some), Just(Survival::Killed)];
    prop_oneof![
        12 => (8_usize..6000).prop_map(|bytes| Step::Append { bytes }),
        4 => Just(Step::Commit),
        1 => survival.prop_map(|survival| Step::Crash { survival }),
        1 => Just(Step::Reopen),
        3 => (1_usize..20_000).prop_map(|bytes_max| Step::Read { bytes_max }),
        1 => (0_u64..=100).prop_map(|percent| Step::Forget { percent }),
    ]
}

/// What must be true of the journal.
#[derive(Default)]
struct Model {
    next_id: u64,
    /// Told to be stored: position and id.
    stored: BTreeMap<u64, u64>,
    pending: Vec<(u64, Pending)>,
    /// What the follower has seen.
    seen: BTreeMap<u64, u64>,
    forgotten: Position,
}

impl Model {
    fn commit(&mut self) {
        for (id, pending) in self.pending.drain(..) {
            if let Ok(position) = wait(pending) {
                assert_eq!(self.stored.insert(position.0, id), None, "a position given twice");
            }
        }
    }

    fn append(&mut self, journal: &Journal, bytes: usize) {
        self.next_id += 1;
        match journal.append(record(self.next_id, bytes), settle) {
            Ok(pending) => self.pending.push((self.next_id, pending)),
            Err(AppendError::Busy | AppendError::Full) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn read(&mut self, reader: &mut Reader, bytes_max: usize) {
        for record in reader.read(bytes_max).unwrap() {
            let id = id_of(&record);
            assert!(
                self.seen.last_key_value().is_none_or(|(at, _)| *at < record.location.position.0)
            );
            assert!(self.seen.values().all(|seen| *seen < id), "order, or twice");
            self.seen.insert(record.location.position.0, id);
        }
    }

    /// Everything stored and not forgotten is there, and nothing else but what was accepted.
    fn check(&self, journal: &Journal) {
        let records = read_all(&mut journal.reader(self.forgotten)).unwrap();
        let found: BTreeMap<u64, u64> =
            records.iter().map(|record| (record.location.position.0, id_of(record))).collect();
        // Each by its place too, from the last to the first, which no reading gains from.
        let mut fetcher = journal.fetcher();
        for Record { location, bytes } in records.iter().rev() {
            assert_eq!(fetcher.fetch(*location).unwrap(), Some(bytes.as_slice()));
        }
        for (position, id) in self.stored.range(self.forgotten.0 + 1..) {
            assert_eq!(found.get(position), Some(id), "stored and lost");
        }
        for (position, id) in self.seen.range(self.forgotten.0 + 1..) {
            assert_eq!(found.get(position), Some(id), "seen and gone");
        }
        assert!(found.values().is_sorted_by(|a, b| a < b));
        assert!(found.values().all(|id| *id <= self.next_id));
    }
}

fn run(seed: u64, steps: Vec<Step>) {
    let mut rig = Rig::new(seed);
    let mut model = Model::default();
    let (mut journal, _) = rig.open();
    let mut reader = journal.reader(Position(0));
    for step in steps {
        match step {
            Step::Append { bytes } => model.append(&journal, bytes),
            Step::Commit => model.commit(),
            Step::Read { bytes_max } => model.read(&mut reader, bytes_max),
            Step::Forget { percent } => {
                let position = reader.position().0 * percent / 100;
                model.forgotten = model.forgotten.max(Position(position));
                journal.forget(model.forgotten);
            }
            Step::Crash { survival } => {
                rig.restart(survival);
                model.commit();
                drop(journal);
                journal = reopen(&rig, &mut model, &mut reader);
            }
            Step::Reopen => {
                journal.close();
                model.commit();
                drop(journal);
                journal = reopen(&rig, &mut model, &mut reader);
            }
        }
    }
    model.commit();
    model.check(&journal);
    assert_eq!(rig.corrupt_frames(), 0);
}

fn reopen(rig: &Rig, model: &mut Model, reader: &mut Reader) -> Journal {
    // The follower's cursor is durable; it may be ahead of a journal that lost its tail.
    let cursor = reader.position();
    let (journal, recovered) = rig.try_open(cursor.0).unwrap();
    assert!(recovered.last >= cursor);
    *reader = journal.reader(cursor);
    model.check(&journal);
    journal
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("TRACKER_PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(48)
    ))]

    #[test]
    fn the_journal_is_a_list(seed: u64, steps in prop::collection::vec(step(), 1..80)) {
        run(seed, steps);
    }
}
