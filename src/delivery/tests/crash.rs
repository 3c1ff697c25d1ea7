//! A power cut at every step of freeze → write → commit, with other limits after each restart.
//!
//! The same lanes, cursor and bisection as the shipper's, driven step by step against a journal that
//! is a number, a disk that keeps only what was synced, and a store that knows tokens. What is not checked here is
//! the shipper's own waiting; `shipper.rs` beside this does that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::{ALL, EVEN, NODE, SEVENTH, WIDE, event, limits, made, push};
use crate::backends::Batch;
use crate::delivery::batcher::{Batcher, Bounds, Taken};
use crate::delivery::cursor::{Cursor, CursorFile, Found};
use crate::delivery::poison::{Parts, refused};
use crate::journal::Position;
use crate::journal::strict_fs::{StrictFs, Survival};
use crate::tables::AnyTable;

const RUNS: u64 = 600;
const TABLES: [&dyn AnyTable; 3] = [&ALL, &EVEN, &SEVENTH];

/// The process died; whatever was in memory is gone.
struct Died;

/// What survives a power cut.
struct World {
    random: StdRng,
    head: u64,
    disk: StrictFs,
    /// Rows by table, as the store has them.
    rows: BTreeMap<&'static str, Vec<u64>>,
    tokens: BTreeSet<String>,
    /// Ids of rows set aside; the journal may hold one twice.
    set_aside: BTreeSet<String>,
    bad: BTreeSet<u64>,
    /// Steps fail at random; off for the last, calm run.
    stormy: bool,
    knows_tokens: bool,
    keeps_ranges: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let bad = (0..random.random_range(0..6)).map(|_| random.random_range(1..400)).collect();
        Self {
            random,
            head: 0,
            disk: StrictFs::new(seed, 1 << 30),
            rows: BTreeMap::new(),
            tokens: BTreeSet::new(),
            set_aside: BTreeSet::new(),
            bad,
            stormy: true,
            knows_tokens: true,
            keeps_ranges: true,
        }
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.stormy && self.random.random_range(0..100) < percent
    }

    fn cut(&mut self) -> Result<(), Died> {
        if self.chance(2) { Err(Died) } else { Ok(()) }
    }

    /// The store: `Err` when the answer did not come, `Ok(false)` when it refuses.
    fn write(&mut self, part: &Batch) -> Result<bool, ()> {
        if self.chance(10) {
            return Err(());
        }
        if part.entries.iter().any(|entry| self.bad.contains(&entry.position().0)) {
            return Ok(false);
        }
        if self.tokens.insert(part.token()) || !self.knows_tokens {
            let rows = self.rows.entry(part.table.name()).or_default();
            rows.extend(part.entries.iter().map(|entry| entry.position().0));
        }
        if self.chance(10) { Err(()) } else { Ok(true) }
    }
}

/// One life of the process.
struct Life {
    lanes: Batcher,
    flights: Vec<Option<Parts>>,
    cursor: Cursor,
    file: CursorFile,
    now: Instant,
}

impl Life {
    fn begin(world: &mut World) -> Self {
        let survival = world.random.random_range(0..3);
        let survival = [Survival::Nothing, Survival::Some, Survival::Killed][survival];
        world.disk = world.disk.restart(survival);
        let folder = Path::new("/cursors");
        let opened = CursorFile::open(&world.disk, folder, "memory", "store", NODE);
        let (file, cursor, found) = opened.unwrap();
        assert_ne!(found, Found::Damaged, "one slot is always whole");
        let tables = TABLES.map(|table| {
            let rows = world.random.random_range(1..40);
            let of = limits(rows, 10_000, Duration::from_secs(5));
            let mut at = cursor.table(table.name(), Position(0));
            if !world.keeps_ranges {
                at.sending = None;
            }
            (table, of, at)
        });
        let bounds = Bounds {
            rows: world.random.random_range(10..100),
            batch_rows: world.random.random_range(1..60),
            ..WIDE
        };
        let lanes = Batcher::new("sink".into(), made(), tables, Position(world.head), bounds);
        Self { lanes, flights: vec![None, None, None], cursor, file, now: Instant::now() }
    }

    fn step(&mut self, world: &mut World) -> Result<(), Died> {
        world.cut()?;
        for _ in 0..world.random.random_range(0..30) {
            if self.lanes.read().0 < world.head && self.lanes.has_room() {
                let next = self.lanes.read().0 + 1;
                push(&mut self.lanes, next, 100, self.now);
            }
        }
        self.now += Duration::from_millis(world.random.random_range(0..2_000));
        self.freeze(world)?;
        for lane in self.lanes.lanes() {
            self.send(lane, world)?;
        }
        Ok(())
    }

    fn freeze(&mut self, world: &mut World) -> Result<(), Died> {
        let due = if world.stormy { self.lanes.due(self.now) } else { self.lanes.waiting() };
        for lane in due.iter().copied() {
            match self.lanes.take(lane) {
                Some(Taken::Batch(batch)) => self.flights[lane] = Some(Parts::new(batch)),
                other => panic!("{other:?}"),
            }
        }
        for (lane, table) in TABLES.iter().enumerate() {
            self.cursor.set(table.name(), self.lanes.cursor(lane)).expect("it never moves back");
        }
        if !due.is_empty() || world.chance(30) {
            if world.chance(5) {
                // Right after the write, or right after the sync.
                let operation = world.random.random_range(1..=2);
                world.disk.cut_power_at(world.disk.operations() + operation);
            }
            self.file.write(&self.cursor).map_err(|_| Died)?;
            if !world.disk.is_powered() {
                return Err(Died);
            }
        }
        world.cut()
    }

    fn send(&mut self, lane: usize, world: &mut World) -> Result<(), Died> {
        let Some(parts) = &mut self.flights[lane] else { return Ok(()) };
        while let Some(part) = parts.next().cloned() {
            world.cut()?;
            let answer = world.write(&part);
            world.cut()?;
            match (answer, &*part.entries) {
                (Err(()), _) => return Ok(()),
                (Ok(true), _) => parts.settled(),
                (Ok(false), [entry]) => {
                    let record =
                        refused(&event(entry.position().0), "memory", part.table.name(), "bad");
                    world.set_aside.insert(record.id.to_string());
                    world.cut()?;
                    parts.settled();
                }
                (Ok(false), _) => parts.split(),
            }
        }
        self.flights[lane] = None;
        self.lanes.committed(lane, self.now, Duration::ZERO, Duration::ZERO);
        Ok(())
    }

    fn is_done(&self, world: &World) -> bool {
        self.lanes.read().0 == world.head
            && self.lanes.rows() == 0
            && self.flights.iter().all(Option::is_none)
    }
}

/// Lives through a storm of crashes, then one calm life to the end.
fn live(world: &mut World) {
    for _ in 0..world.random.random_range(3..12) {
        let mut life = Life::begin(world);
        for _ in 0..world.random.random_range(1..40) {
            world.head += world.random.random_range(0..20);
            if life.step(world).is_err() {
                break;
            }
        }
    }
    world.stormy = false;
    let mut life = Life::begin(world);
    while !life.is_done(world) {
        assert!(life.step(world).is_ok());
    }
}

/// Rows that `table` should have, and rows that it has.
fn rows(world: &World, table: &dyn AnyTable) -> (Vec<u64>, Vec<u64>) {
    let wanted = |seq: &u64| table.has_row(&event(*seq)) && !world.bad.contains(seq);
    let have = world.rows.get(table.name()).cloned().unwrap_or_default();
    ((1..=world.head).filter(wanted).collect(), have)
}

#[test]
fn nothing_is_lost_and_nothing_is_twice_whatever_step_is_cut() {
    for seed in 0..RUNS {
        let mut world = World::new(seed);
        live(&mut world);
        for table in TABLES {
            let (expect, have) = rows(&world, table);
            assert_eq!(have, expect, "table {} of run {seed}", table.name());
            for seq in world.bad.iter().filter(|seq| **seq <= world.head) {
                let id = refused(&event(*seq), "memory", table.name(), "bad").id.to_string();
                let expect = table.has_row(&event(*seq));
                assert_eq!(world.set_aside.contains(&id), expect, "run {seed}");
            }
        }
    }
}

/// The simulation can fail: without tokens, or with tokens whose ranges move, rows are repeated.
#[test]
fn tokens_without_kept_ranges_and_ranges_without_tokens_both_repeat_rows() {
    for (knows_tokens, keeps_ranges) in [(false, true), (true, false)] {
        let mut repeated = 0;
        for seed in 0..40 {
            let mut world = World::new(seed);
            (world.knows_tokens, world.keeps_ranges) = (knows_tokens, keeps_ranges);
            live(&mut world);
            for table in TABLES {
                let (expect, mut have) = rows(&world, table);
                let all = have.len();
                have.sort_unstable();
                have.dedup();
                assert_eq!(have, expect, "nothing is lost even so");
                repeated += all - have.len();
            }
        }
        assert!(repeated > 0, "tokens {knows_tokens}, ranges {keeps_ranges}");
    }
}
