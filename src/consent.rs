//! What visitors agreed to, and the regulations that ask for it, as the store knows them.
//!
//! An agreement is shown to its visitor as soon as it is durable: until the store has it, it stands
//! among the fresh ones. What the store answered is believed for a moment, so that a page which asks
//! again and again costs one question. An answer that was asked for while something fresh was known
//! is not kept: it may lack what the next one has.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use moka::sync::Cache;
use serde_json::{Map, Value};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::backends::{Store, StoreError};
use crate::clock::Clock;
use crate::event::{Body, Event, Ingest, VisitorId};
use crate::fresh::{FRESH_AGE_MIN, Fresh, StoredUpTo};
use crate::journal::Position;
use crate::tables;

/// One row of an answer, by the names of its columns.
pub type Row = Map<String, Value>;

/// Longest a caller waits for the store.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Questions to the store at a time; half of what the queue of an embedded one takes.
const QUESTIONS_MAX: usize = 32;
/// How long agreements are believed without asking again; not longer than a fresh one stays, or an
/// answer from before it could outlive it.
const AGREEMENTS_AGE_MAX: Duration = FRESH_AGE_MIN;
/// Agreements that are known at a time, of all visitors; some 30 MB.
const KNOWN_ROWS_MAX: u64 = 10_000;
/// How long the regulations are believed: an operator changes them some times in a year.
const REGULATIONS_AGE_MAX: Duration = Duration::from_secs(60);

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum Unanswered {
    /// There is no store that answers questions.
    #[error("no configured store answers questions")]
    NoStore,
    /// It did not in time.
    #[error("the store did not answer in time")]
    Slow,
    /// It cannot.
    #[error("the store did not answer")]
    Store(#[from] StoreError),
}

/// Agreements and regulations. Shared by every connection.
pub struct Consent {
    store: Option<Arc<dyn Store>>,
    clock: Arc<dyn Clock>,
    /// The journal's name, as rows have it.
    node: Arc<str>,
    fresh: Fresh<VisitorId, Arc<Row>>,
    known: Cache<VisitorId, Arc<Vec<Row>>>,
    regulations: Mutex<Option<(Instant, Arc<Vec<Row>>)>>,
    asking: Semaphore,
}

impl Consent {
    /// Over `store`, the one that answers questions; `node` is the journal's name.
    pub fn new(
        store: Option<Arc<dyn Store>>,
        stored: StoredUpTo,
        clock: Arc<dyn Clock>,
        node: Arc<str>,
    ) -> Self {
        let rows = |_: &VisitorId, rows: &Arc<Vec<Row>>| {
            u32::try_from(rows.len()).unwrap_or(u32::MAX).max(1)
        };
        let known = Cache::builder().max_capacity(KNOWN_ROWS_MAX).weigher(rows);
        Self {
            store,
            fresh: Fresh::new(stored, Arc::clone(&clock)),
            clock,
            node,
            known: known.time_to_live(AGREEMENTS_AGE_MAX).build(),
            regulations: Mutex::default(),
            asking: Semaphore::new(QUESTIONS_MAX),
        }
    }

    /// Announces that agreements are going to be remembered from the journal: nothing is answered
    /// before [`Self::recovered`].
    pub fn will_recover(&self) {
        self.fresh.will_recover();
    }

    /// What there was to recover is remembered.
    pub fn recovered(&self) {
        self.fresh.recovered();
    }

    /// Remembers the agreement that is durable in the journal at `position`; other events are none.
    pub fn remember(&self, event: &Event, position: Position) {
        let (Body::Agreement(_), Some(visitor)) = (&event.body, event.who.vid) else { return };
        let Some(table) = tables::find("agreements") else { return };
        let ingest = Ingest { node: Arc::clone(&self.node), seq: position.0 };
        let event = Event { ingest, ..event.clone() };
        let mut cells = Vec::new();
        table.rows(&event, &mut cells);
        let named = table.columns().into_iter().map(str::to_owned);
        let row = named.zip(cells.iter().map(tables::Cell::json)).collect();
        self.fresh.insert(visitor, Arc::new(row), position);
        self.known.invalidate(&visitor);
    }

    /// What `visitor` agreed to, newest first. While the store cannot be asked, what is fresh is
    /// answered alone: the newest is in force, the others are its history.
    ///
    /// # Errors
    /// See [`Unanswered`].
    pub async fn agreements(&self, visitor: VisitorId) -> Result<Vec<Row>, Unanswered> {
        let mut rows = self.with_origin(visitor).await?;
        for row in &mut rows {
            // Keeps the order of the others.
            row.retain(|name, _| !ORIGIN.contains(&name.as_str()));
        }
        Ok(rows)
    }

    async fn with_origin(&self, visitor: VisitorId) -> Result<Vec<Row>, Unanswered> {
        let before = self.fresh_of(visitor).await;
        if before.is_empty()
            && let Some(known) = self.known.get(&visitor)
        {
            return Ok(known.to_vec());
        }
        let store = self.store.as_ref().ok_or(Unanswered::NoStore)?;
        let asked = self.ask(store.agreements(visitor)).await;
        let mut fresh = self.fresh_of(visitor).await;
        for one in before {
            if !fresh.iter().any(|other| is_same(other, &one)) {
                fresh.push(one);
            }
        }
        let stored: Vec<Row> = match asked {
            Ok(stored) => stored.into_iter().map(|one| one.fields).collect(),
            Err(_) if !fresh.is_empty() => Vec::new(),
            Err(error) => return Err(error),
        };
        if fresh.is_empty() {
            self.known.insert(visitor, Arc::new(stored.clone()));
            return Ok(stored);
        }
        fresh.retain(|one| !stored.iter().any(|other| is_same(other, one)));
        let fresh = fresh.iter().map(|row| Row::clone(row));
        Ok(fresh.chain(stored).collect())
    }

    /// The regulations that the store keeps; none without one. Those of before, where it does not
    /// answer now.
    ///
    /// # Errors
    /// See [`Unanswered`].
    pub async fn regulations(&self) -> Result<Arc<Vec<Row>>, Unanswered> {
        let Some(store) = &self.store else { return Ok(Arc::default()) };
        let now = self.clock.monotonic();
        let known = self.known_regulations().clone();
        if let Some((since, rows)) = &known
            && now.saturating_duration_since(*since) < REGULATIONS_AGE_MAX
        {
            return Ok(Arc::clone(rows));
        }
        match (self.ask(store.jurisdictions()).await, known) {
            (Ok(rows), _) => {
                let rows = Arc::new(rows);
                *self.known_regulations() = Some((now, Arc::clone(&rows)));
                Ok(rows)
            }
            (Err(_), Some((_, rows))) => Ok(rows),
            (Err(error), None) => Err(error),
        }
    }

    async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, Unanswered> {
        let asked = timeout(WAIT_MAX, async {
            let _permit = self.asking.acquire().await.map_err(|_| Unanswered::Slow)?;
            question.await.map_err(Unanswered::Store)
        });
        asked.await.unwrap_or(Err(Unanswered::Slow))
    }

    /// What the store may lack of `visitor`'s, newest first.
    async fn fresh_of(&self, visitor: VisitorId) -> Vec<Arc<Row>> {
        self.fresh.all_recovered().await;
        self.fresh.lacking().of(&visitor).cloned().collect()
    }

    fn known_regulations(&self) -> MutexGuard<'_, Option<(Instant, Arc<Vec<Row>>)>> {
        self.regulations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The columns that say which record of which journal a row is of; for us, not for who asks.
const ORIGIN: [&str; 2] = ["ingest_seq", "ingest_node"];

/// Whether two rows are of one record.
fn is_same(one: &Row, other: &Row) -> bool {
    ORIGIN.iter().all(|name| one.get(*name) == other.get(*name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::memory::Memory;
    use crate::clock::SystemClock;
    use crate::tables::samples;

    fn over(store: Option<Arc<dyn Store>>) -> Consent {
        Consent::new(store, Arc::new(|| Position(0)), Arc::new(SystemClock), "node".into())
    }

    #[tokio::test]
    async fn an_agreement_is_shown_before_the_store_has_it_and_once_when_it_has() {
        let memory = Memory::new();
        let consent = over(Some(memory.clone()));
        let event = samples::agreement(7);
        let visitor = event.who.vid.unwrap();
        assert_eq!(consent.agreements(visitor).await.unwrap(), Vec::<Row>::new());
        consent.remember(&event, Position(7));
        consent.remember(&samples::event(8), Position(8));
        let rows = consent.agreements(visitor).await.unwrap();
        assert_eq!(rows.len(), 1);
        assert_eq!(rows[0]["vid"], visitor.to_string());
        let mut stored = rows[0].clone();
        stored.insert("ingest_seq".to_owned(), 7.into());
        stored.insert("ingest_node".to_owned(), "node".into());
        memory.add_agreement(visitor, stored);
        assert_eq!(consent.agreements(visitor).await.unwrap(), rows);
    }
}
