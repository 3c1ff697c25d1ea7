//! Facts that are durable in the journal and that a store may lack: kept until it has them, and read
//! from the end of the journal after a restart.
//!
//! They are what makes a change visible to whoever made it, at once: the store has it seconds later,
//! or hours when it is down.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::clock::Clock;
use crate::event::{self, Event};
use crate::journal::{Journal, Position};

/// Facts of one kind that are kept; a few kB each.
pub const FRESH_MAX: usize = 10_000;
/// A fact stays at least so long, so that an answer that was on its way when the store took it cannot
/// hide it.
pub const FRESH_AGE_MIN: Duration = Duration::from_secs(5);
/// Bytes of the journal read at a time.
const READ_BYTES: usize = 1 << 20;
/// What the records hold that are looked for, by the names of their kinds.
const MARKS: [&str; 2] = ["\"kind\":\"link\"", "\"kind\":\"agreement\""];

/// Up to which position of the journal the store has everything.
pub type StoredUpTo = Arc<dyn Fn() -> Position + Send + Sync>;

/// The facts that one store may lack. Shared by every connection.
pub struct Fresh<K, T> {
    facts: Mutex<Facts<K, T>>,
    stored: StoredUpTo,
    clock: Arc<dyn Clock>,
    recovered: watch::Sender<bool>,
}

impl<K: Eq + Hash + Clone, T> Fresh<K, T> {
    /// None yet, and none to wait for.
    pub fn new(stored: StoredUpTo, clock: Arc<dyn Clock>) -> Self {
        Self { facts: Mutex::default(), stored, clock, recovered: watch::Sender::new(true) }
    }

    /// Announces facts of before the start: [`Self::all_recovered`] waits for [`Self::recovered`].
    pub fn will_recover(&self) {
        self.recovered.send_replace(false);
    }

    /// Those facts are here.
    pub fn recovered(&self) {
        self.recovered.send_replace(true);
    }

    /// Waits until no fact of before the start is missing.
    pub async fn all_recovered(&self) {
        // The sender lives as long as `self`.
        let _ = self.recovered.subscribe().wait_for(|done| *done).await;
    }

    /// Takes in a fact that is durable at `position`.
    pub fn insert(&self, key: K, what: T, position: Position) {
        self.lock().insert(key, what, position, self.clock.monotonic());
    }

    /// All of them, some of which the store may have by now.
    pub fn lock(&self) -> MutexGuard<'_, Facts<K, T>> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that the store lacks, or had not long ago.
    pub fn lacking(&self) -> MutexGuard<'_, Facts<K, T>> {
        let (stored, now) = ((self.stored)(), self.clock.monotonic());
        let mut facts = self.lock();
        facts.forget_stored(stored, now);
        facts
    }
}

/// Facts about things that are named by `K`.
pub struct Facts<K, T> {
    /// By position in the journal.
    facts: BTreeMap<u64, Fact<K, T>>,
    /// Positions by name, in order.
    of: HashMap<K, Vec<u64>>,
}

struct Fact<K, T> {
    key: K,
    what: T,
    since: Instant,
}

impl<K, T> Default for Facts<K, T> {
    fn default() -> Self {
        Self { facts: BTreeMap::new(), of: HashMap::new() }
    }
}

impl<K: Eq + Hash + Clone, T> Facts<K, T> {
    /// Whether another fact would push out the oldest.
    pub fn is_full(&self) -> bool {
        self.facts.len() >= FRESH_MAX
    }

    /// Takes a fact in; the oldest goes where there are too many: it is found again when the store
    /// has it.
    fn insert(&mut self, key: K, what: T, position: Position, now: Instant) {
        if self.is_full() {
            tracing::warn!(max = FRESH_MAX, "more facts wait for the store than are kept at hand");
            self.forget_first();
        }
        let positions = self.of.entry(key.clone()).or_default();
        if let Err(at) = positions.binary_search(&position.0) {
            positions.insert(at, position.0);
        }
        self.facts.insert(position.0, Fact { key, what, since: now });
    }

    /// The facts about `key`, newest first.
    pub fn of<Q>(&self, key: &Q) -> impl Iterator<Item = &T>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let positions = self.of.get(key).into_iter().flatten().rev();
        positions.filter_map(|position| self.facts.get(position)).map(|fact| &fact.what)
    }

    /// What facts are about.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.of.keys()
    }

    /// Every fact, newest first.
    pub fn all(&self) -> impl Iterator<Item = &T> {
        self.facts.values().rev().map(|fact| &fact.what)
    }

    /// Takes away what the store has, which is everything up to `stored`.
    fn forget_stored(&mut self, stored: Position, now: Instant) {
        while self.facts.first_key_value().is_some_and(|(position, fact)| {
            *position <= stored.0 && now.saturating_duration_since(fact.since) >= FRESH_AGE_MIN
        }) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        let Some((position, fact)) = self.facts.pop_first() else { return };
        let Some(positions) = self.of.get_mut(&fact.key) else { return };
        positions.retain(|other| *other != position);
        if positions.is_empty() {
            self.of.remove(&fact.key);
        }
    }
}

/// Tells `take` the links and agreements behind `after`. Blocks; a few milliseconds unless the store
/// was down for long.
///
/// # Errors
/// When the journal cannot be read.
pub fn read_behind(
    journal: &Journal,
    after: Position,
    mut take: impl FnMut(&Event, Position),
) -> io::Result<()> {
    let marks = MARKS.map(memchr::memmem::Finder::new);
    let mut reader = journal.reader(after);
    loop {
        let records = reader.read(READ_BYTES)?;
        if records.is_empty() {
            return Ok(());
        }
        for record in records {
            if marks.iter().any(|mark| mark.find(&record.bytes).is_some())
                && let Ok(event) = event::decode(&record.bytes)
            {
                take(&event, record.location.position);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_is_kept_until_the_store_has_it_and_for_a_while() {
        let start = Instant::now();
        let mut fresh = Facts::default();
        for (key, what, position) in [("a", 1, 10), ("b", 2, 11), ("a", 3, 12), ("a", 3, 12)] {
            fresh.insert(key, what, Position(position), start);
        }
        let of = |fresh: &Facts<&str, i32>, key: &str| fresh.of(key).copied().collect::<Vec<_>>();
        assert_eq!((of(&fresh, "a"), of(&fresh, "b")), (vec![3, 1], vec![2]));
        assert_eq!(fresh.all().copied().collect::<Vec<_>>(), [3, 2, 1]);
        fresh.forget_stored(Position(11), start);
        assert_eq!(of(&fresh, "a"), [3, 1], "too young to be forgotten");
        fresh.forget_stored(Position(11), start + FRESH_AGE_MIN);
        assert_eq!((of(&fresh, "a"), of(&fresh, "b")), (vec![3], vec![]));
        fresh.forget_stored(Position(12), start + FRESH_AGE_MIN);
        assert_eq!(fresh.keys().count(), 0);
    }

    #[test]
    fn of_too_many_facts_the_newest_stay() {
        let mut fresh = Facts::default();
        let last = FRESH_MAX as u64 + 5;
        for position in 1..=last {
            fresh.insert(position, position, Position(position), Instant::now());
        }
        assert_eq!(fresh.keys().count(), FRESH_MAX);
        assert_eq!((fresh.of(&5).next(), fresh.of(&6).next()), (None, Some(&6)));
    }
}
