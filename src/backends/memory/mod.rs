//! A backend in memory with every ability and a script of faults: the double that tests of the
//! halves before it run against. It keeps all it is given and is never configured.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::{
    Account, AccountChange, Agreement, Backend, Batch, BoxError, Entry, Events, Guarantee, Link,
    Records, Rows, ShortLink, Sink, SinkError, Store, StoreError,
};
use crate::event::{Event, OrgId, UserId, VisitorId};
use crate::journal::{Location, Position};
use crate::tables::{self, AnyTable, Cell};

/// What a write does instead of storing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Fails before anything is stored; the batch may come again.
    Refuse,
    /// The same, and names the pause it wants.
    RetryAfter(Duration),
    /// Stores the batch, then says it failed: the answer was lost after the commit.
    LoseAnswer,
    /// Waits for [`Memory::release`], then stores.
    Hang,
    /// Panics.
    Panic,
}

/// One row that was stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    /// The event it was computed from.
    pub event: Arc<Event>,
    /// Cells by column name.
    pub cells: Map<String, Value>,
}

/// One call of [`Sink::write`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The batch's token.
    pub token: String,
    /// Its rows.
    pub rows: usize,
    /// Whether the writer was told that it is stored.
    pub acknowledged: bool,
}

type Predicate = Arc<dyn Fn(&Event) -> bool + Send + Sync>;

/// The backend. Shared: what is scripted through one handle is met by all.
pub struct Memory {
    state: Mutex<State>,
    released: watch::Sender<u64>,
}

struct State {
    identity: String,
    reachable: bool,
    tables: BTreeMap<&'static str, Vec<Stored>>,
    tokens: HashSet<String>,
    writes: Vec<Written>,
    hanging: usize,
    closed: bool,
    /// One for each write to come, before `always`.
    faults: VecDeque<Fault>,
    always: Option<Fault>,
    rejects: Option<Predicate>,
    accepts: Option<Vec<String>>,
    rest: Duration,
    rows_max: usize,
    links: Vec<Link>,
    agreements: BTreeMap<String, Vec<Agreement>>,
    jurisdictions: Vec<Map<String, Value>>,
    accounts: BTreeMap<String, Account>,
}

impl Memory {
    /// An empty store that answers everything.
    pub fn new() -> Arc<Self> {
        let state = State {
            identity: "memory".to_owned(),
            reachable: true,
            tables: BTreeMap::new(),
            tokens: HashSet::new(),
            writes: Vec::new(),
            hanging: 0,
            closed: false,
            faults: VecDeque::new(),
            always: None,
            rejects: None,
            accepts: None,
            rest: Duration::ZERO,
            rows_max: usize::MAX,
            links: Vec::new(),
            agreements: BTreeMap::new(),
            jurisdictions: Vec::new(),
            accounts: BTreeMap::new(),
        };
        Arc::new(Self { state: Mutex::new(state), released: watch::Sender::new(0) })
    }

    /// It as a configured backend called `name`.
    pub fn backend(self: &Arc<Self>, name: &str) -> Backend {
        Backend {
            name: name.to_owned(),
            kind: "memory",
            sink: Some(Arc::clone(self) as Arc<dyn Sink>),
            store: Some(Arc::clone(self) as Arc<dyn Store>),
            pruner: None,
        }
    }

    /// The next write meets `fault`; several wait in line.
    pub fn fault(&self, fault: Fault) {
        self.state().faults.push_back(fault);
    }

    /// Every write meets `fault`, or none any more.
    pub fn always(&self, fault: Option<Fault>) {
        self.state().always = fault;
    }

    /// Writes that hang now.
    pub fn hanging(&self) -> usize {
        self.state().hanging
    }

    /// Lets writes that hang now go on.
    pub fn release(&self) {
        self.released.send_modify(|count| *count += 1);
    }

    /// Batches with an event for which `predicate` holds are refused for good.
    pub fn reject(&self, predicate: impl Fn(&Event) -> bool + Send + Sync + 'static) {
        self.state().rejects = Some(Arc::new(predicate));
    }

    /// Refuses nothing for good any more.
    pub fn reject_nothing(&self) {
        self.state().rejects = None;
    }

    /// Batches of more rows are too large.
    pub fn set_rows_max(&self, rows_max: usize) {
        self.state().rows_max = rows_max;
    }

    /// Takes these tables only.
    pub fn accept_only(&self, tables: &[&str]) {
        self.state().accepts = Some(tables.iter().map(|table| (*table).to_owned()).collect());
    }

    /// Whether the store can say who it is.
    pub fn set_reachable(&self, reachable: bool) {
        self.state().reachable = reachable;
    }

    /// Asks for `rest` between two batches of a table.
    pub fn set_rest(&self, rest: Duration) {
        self.state().rest = rest;
    }

    /// Becomes another, empty store.
    pub fn replace(&self, identity: &str) {
        let mut state = self.state();
        identity.clone_into(&mut state.identity);
        state.tables.clear();
        state.tokens.clear();
    }

    /// Rows of `table` in the order in which they were stored.
    pub fn rows(&self, table: &str) -> Vec<Stored> {
        self.state().tables.get(table).cloned().unwrap_or_default()
    }

    /// Every write so far.
    pub fn writes(&self) -> Vec<Written> {
        self.state().writes.clone()
    }

    /// Whether [`Sink::close`] was called.
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Adds a short link; `fields` holds at least `urlfrom` and `urlto`.
    pub fn add_link(&self, fields: Map<String, Value>) {
        self.state().links.push(Link { fields });
    }

    /// The state, for a question; an unreachable store answers none.
    fn answering(&self) -> Result<MutexGuard<'_, State>, StoreError> {
        let state = self.state();
        if state.reachable {
            return Ok(state);
        }
        Err(StoreError::Unavailable("scripted to be out of reach".into()))
    }

    /// Adds an agreement of `visitor`.
    pub fn add_agreement(&self, visitor: VisitorId, fields: Map<String, Value>) {
        let mut state = self.state();
        state.agreements.entry(visitor.to_string()).or_default().push(Agreement { fields });
    }

    /// Adds a regulation.
    pub fn add_jurisdiction(&self, fields: Map<String, Value>) {
        self.state().jurisdictions.push(fields);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_fault(&self) -> Option<Fault> {
        let mut state = self.state();
        state.faults.pop_front().or_else(|| state.always.clone())
    }

    fn store(&self, batch: &Batch) -> Result<(), SinkError> {
        if batch.entries.len() > self.state().rows_max {
            return Err(SinkError::TooLarge { source: "so many rows".into() });
        }
        let events = batch.events().collect::<Result<Vec<_>, _>>()?;
        let mut state = self.state();
        if let Some(rejects) = &state.rejects
            && let Some(event) = events.iter().find(|event| rejects(event))
        {
            let source = format!("row {} is not welcome", event.ingest.seq).into();
            return Err(SinkError::Reject { source });
        }
        if state.tokens.insert(batch.token()) {
            let columns = batch.table.columns();
            let rows = events.iter().flat_map(|event| stored(batch.table, &columns, event));
            state.tables.entry(batch.table.name()).or_default().extend(rows);
        }
        Ok(())
    }

    fn note(&self, batch: &Batch, acknowledged: bool) {
        let written = Written { token: batch.token(), rows: batch.entries.len(), acknowledged };
        self.state().writes.push(written);
    }
}

/// A batch of `events` for `table`, all of one journal; `None` when there are none.
pub fn batch(table: &'static dyn AnyTable, events: Vec<Arc<Event>>) -> Option<Batch> {
    let entry = |event: &Arc<Event>| Entry {
        location: Location::nowhere(Position(event.ingest.seq)),
        received_at: event.received_at,
    };
    let entries: Vec<Entry> = events.iter().map(entry).collect();
    Batch::new(table, &entries, Arc::new(events))
}

impl Records for Vec<Arc<Event>> {
    fn node(&self) -> Arc<str> {
        self.first().map_or_else(Arc::default, |event| Arc::clone(&event.ingest.node))
    }

    fn read<'r>(&'r self, entries: &'r [Entry]) -> Events<'r> {
        Box::new(entries.iter().filter_map(|entry| {
            let at = self.binary_search_by_key(&entry.position().0, |event| event.ingest.seq);
            self.get(at.ok()?).cloned().map(Ok)
        }))
    }
}

/// One write that hangs, until it goes on or is given up.
struct Hanging<'m>(&'m Memory);

impl<'m> Hanging<'m> {
    fn new(memory: &'m Memory) -> Self {
        memory.state().hanging += 1;
        Self(memory)
    }
}

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.state().hanging -= 1;
    }
}

#[async_trait]
impl Sink for Memory {
    async fn identity(&self) -> Result<String, SinkError> {
        let state = self.state();
        if state.reachable { Ok(state.identity.clone()) } else { Err(retry(None)) }
    }

    fn accepts(&self, table: &dyn AnyTable) -> bool {
        let state = self.state();
        let accepts = state.accepts.as_ref();
        accepts.is_none_or(|tables| tables.iter().any(|name| name == table.name()))
    }

    fn guarantee(&self, _table: &dyn AnyTable) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn write(&self, batch: &Batch) -> Result<(), SinkError> {
        let mut released = self.released.subscribe();
        let outcome = match self.next_fault() {
            None => self.store(batch),
            Some(Fault::Refuse) => Err(retry(None)),
            Some(Fault::RetryAfter(after)) => Err(retry(Some(after))),
            Some(Fault::LoseAnswer) => self.store(batch).and(Err(retry(None))),
            Some(Fault::Hang) => {
                let _hanging = Hanging::new(self);
                // The sender lives as long as `self`.
                let _ = released.changed().await;
                self.store(batch)
            }
            #[expect(clippy::panic, reason = "the fault a test asked for")]
            Some(Fault::Panic) => panic!("a scripted panic"),
        };
        self.note(batch, outcome.is_ok());
        outcome
    }

    fn rest(&self) -> Duration {
        self.state().rest
    }

    async fn close(&self) {
        self.state().closed = true;
    }
}

fn short(fields: &Map<String, Value>) -> ShortLink {
    ShortLink {
        urlfrom: text(fields, "urlfrom").to_owned(),
        urlto: text(fields, "urlto").to_owned(),
        oid: text(fields, "oid").parse().ok(),
        org: None,
    }
}

#[async_trait]
impl Store for Memory {
    async fn redirect(&self, from: &str) -> Result<Option<ShortLink>, StoreError> {
        let state = self.state();
        let link = state.links.iter().rev().find(|link| text(&link.fields, "urlfrom") == from);
        Ok(link.map(|link| short(&link.fields)))
    }

    async fn redirects_at(&self, path: &str) -> Result<Vec<ShortLink>, StoreError> {
        let state = self.state();
        let links = state.links.iter().map(|link| short(&link.fields));
        Ok(links
            .filter(|link| {
                link.urlfrom.find('/').is_some_and(|at| link.urlfrom.get(at..) == Some(path))
            })
            .take(2)
            .collect())
    }

    async fn redirects(&self, host: &str, of: Option<OrgId>) -> Result<Vec<Link>, StoreError> {
        let state = self.state();
        let of_host = |link: &&Link| {
            let from = text(&link.fields, "urlfrom");
            let is_own = of.is_none() || short(&link.fields).oid == of;
            is_own && from.split('/').next() == Some(host)
        };
        Ok(state.links.iter().rev().filter(of_host).cloned().collect())
    }

    async fn agreements(&self, visitor: VisitorId) -> Result<Vec<Agreement>, StoreError> {
        let state = self.answering()?;
        let mut agreements =
            state.agreements.get(&visitor.to_string()).cloned().unwrap_or_default();
        agreements.reverse();
        Ok(agreements)
    }

    async fn jurisdictions(&self) -> Result<Vec<Map<String, Value>>, StoreError> {
        Ok(self.answering()?.jurisdictions.clone())
    }

    async fn account(&self, uid: UserId) -> Result<Option<Account>, StoreError> {
        Ok(self.state().accounts.get(&uid.to_string()).cloned())
    }

    async fn accounts(&self) -> Result<Vec<Account>, StoreError> {
        Ok(self.state().accounts.values().cloned().collect())
    }

    async fn change_account(&self, change: AccountChange) -> Result<bool, StoreError> {
        let accounts = &mut self.state().accounts;
        let uid = change.uid().to_string();
        Ok(match change {
            AccountChange::Add(_) if accounts.contains_key(&uid) => false,
            AccountChange::Add(account) | AccountChange::Put(account) => {
                accounts.insert(uid, account);
                true
            }
            AccountChange::Remove(_) => accounts.remove(&uid).is_some(),
        })
    }

    /// Understands `select * from <table>` and nothing else.
    async fn query(
        &self,
        sql: &str,
        rows_max: usize,
        _time_max: Duration,
    ) -> Result<Rows, StoreError> {
        let words: Vec<String> = sql.split_whitespace().map(str::to_lowercase).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ["select", "*", "from", name] = words.as_slice() else {
            return Err(StoreError::Invalid("only: select * from <table>".to_owned()));
        };
        let Some(table) = tables::find(name) else {
            return Err(StoreError::Invalid(format!("no table {name}")));
        };
        let stored = self.rows(name);
        let columns: Vec<String> = table.columns().into_iter().map(str::to_owned).collect();
        let rows = stored.iter().take(rows_max);
        let rows = rows.map(|row| row.cells.values().cloned().collect()).collect();
        Ok(Rows { columns, rows, truncated: stored.len() > rows_max })
    }
}

fn retry(after: Option<Duration>) -> SinkError {
    let source: BoxError = "a scripted fault".into();
    SinkError::Retry { after, source }
}

fn text<'m>(fields: &'m Map<String, Value>, name: &str) -> &'m str {
    fields.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn stored(table: &dyn AnyTable, columns: &[&'static str], event: &Arc<Event>) -> Vec<Stored> {
    let mut cells = Vec::with_capacity(columns.len());
    table.rows(event, &mut cells);
    let row = |row: &[Cell<'_>]| {
        let names = columns.iter().map(|name| (*name).to_owned());
        Stored { event: Arc::clone(event), cells: names.zip(row.iter().map(Cell::json)).collect() }
    };
    cells.chunks(columns.len().max(1)).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Body, Ingest};

    fn batch(first: u64, last: u64) -> Batch {
        let event = |seq: u64| {
            Arc::new(Event {
                id: uuid::Uuid::from_u128(u128::from(seq)).into(),
                ingest: Ingest { node: "n".into(), seq },
                ..Event::bare(chrono::DateTime::UNIX_EPOCH, Body::Track(Box::default()))
            })
        };
        let events = (first..=last).map(event).collect();
        super::batch(tables::find("events").unwrap(), events).unwrap()
    }

    #[tokio::test]
    async fn a_token_is_stored_once_and_a_lost_answer_is_a_stored_batch() {
        let memory = Memory::new();
        memory.fault(Fault::LoseAnswer);
        assert!(matches!(memory.write(&batch(1, 3)).await, Err(SinkError::Retry { .. })));
        memory.write(&batch(1, 3)).await.unwrap();
        memory.write(&batch(1, 2)).await.unwrap();
        assert_eq!(memory.rows("events").len(), 5, "another range is another token");
        let acknowledged: Vec<_> = memory.writes().iter().map(|it| it.acknowledged).collect();
        assert_eq!(acknowledged, [false, true, true]);
    }

    #[tokio::test]
    async fn a_batch_with_an_unwelcome_row_is_refused_whole() {
        let memory = Memory::new();
        memory.reject(|event| event.ingest.seq == 2);
        assert!(matches!(memory.write(&batch(1, 3)).await, Err(SinkError::Reject { .. })));
        memory.write(&batch(3, 3)).await.unwrap();
        let rows = memory.query("SELECT * FROM events", 10, Duration::MAX).await.unwrap();
        assert_eq!((rows.rows.len(), rows.truncated), (1, false));
        assert_eq!(rows.rows[0].len(), rows.columns.len());
    }
}
