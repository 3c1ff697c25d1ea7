//! The thread that reads batches and encodes them, so that no task of the runtime waits for it.
//!
//! It does not stand back as other threads of delivery do: beside a busy ClickHouse on the same machine
//! it would otherwise take ten times as long, while the connection idles. For the same reason it works
//! ahead: while a batch of a backlog is on its way, the next one is encoded, so that two processors
//! have something to do. What is made ahead is given out only for the very batch it was made of.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;

use super::catalog::Catalog;
use super::encode::{EncodeError, Encoded};
use crate::backends::{Batch, SinkError};
use crate::tables;

/// Wait before the next attempt when there are too many jobs.
const BUSY: Duration = Duration::from_millis(100);

/// The thread, and what it does ahead.
pub(super) struct Encoder {
    jobs: SyncSender<Job>,
    /// By table.
    ahead: Mutex<HashMap<&'static str, Ahead>>,
}

struct Job {
    catalog: Arc<Catalog>,
    batch: Batch,
    stored: HashSet<u64>,
    answer: oneshot::Sender<Result<Vec<Encoded>, EncodeError>>,
}

/// What a job comes to.
type Answer = oneshot::Receiver<Result<Vec<Encoded>, EncodeError>>;

/// What is done ahead for a table. Of two batches the one on its way is always encoded first.
#[derive(Default)]
struct Ahead {
    /// The batch on its way has been encoded.
    is_free: bool,
    /// The one behind it, not begun.
    next: Option<(Arc<Catalog>, Batch)>,
    /// The one behind it, begun.
    begun: Option<Begun>,
}

struct Begun {
    batch: Batch,
    catalog: Arc<Catalog>,
    answer: Answer,
}

impl Encoder {
    /// Starts the thread; it ends with its handle.
    ///
    /// # Errors
    /// When the machine gives no thread.
    pub(super) fn start() -> io::Result<Self> {
        // A table has one batch on its way, and one behind it.
        let (jobs, waiting) = sync_channel::<Job>(2 * tables::ALL.len());
        thread::Builder::new().name("clickhouse-enc".to_owned()).spawn(move || {
            while let Ok(job) = waiting.recv() {
                job.work();
            }
        })?;
        Ok(Self { jobs, ahead: Mutex::default() })
    }

    /// The inserts of `batch` but for the positions in `stored`.
    ///
    /// # Errors
    /// [`SinkError::Reject`] when a row does not fit, else [`SinkError::Retry`].
    pub(super) async fn encode(
        &self,
        catalog: &Arc<Catalog>,
        batch: &Batch,
        stored: &HashSet<u64>,
    ) -> Result<Vec<Encoded>, SinkError> {
        let table = batch.table.name();
        let begun = self.take(batch);
        let begun = begun.filter(|begun| Arc::ptr_eq(&begun.catalog, catalog) && stored.is_empty());
        let answer = match begun {
            Some(begun) => begun.answer,
            None => self.begin(Arc::clone(catalog), batch.clone(), stored.clone())?,
        };
        let encoded = answer.await;
        let mut ahead = self.ahead();
        if let Some(ahead) = ahead.get_mut(table) {
            ahead.is_free = true;
            self.work_ahead(ahead);
        }
        drop(ahead);
        match encoded {
            Ok(Ok(inserts)) => Ok(inserts),
            Ok(Err(error @ EncodeError::Mismatch { .. })) => {
                Err(SinkError::Reject { source: error.into() })
            }
            Ok(Err(EncodeError::Read(error))) => Err(error.into()),
            Ok(Err(error)) => Err(SinkError::Retry { after: None, source: error.into() }),
            Err(_) => Err(busy("the encoder broke")),
        }
    }

    /// Encodes `next` as soon as the batch before it is encoded.
    pub(super) fn expect(&self, catalog: Arc<Catalog>, next: &Batch) {
        let mut ahead = self.ahead();
        let ahead = ahead.entry(next.table.name()).or_default();
        ahead.next = Some((catalog, next.clone()));
        self.work_ahead(ahead);
    }

    /// What was begun of `batch`, which is now to be encoded. What was begun of one behind it stays:
    /// this is another attempt.
    fn take(&self, batch: &Batch) -> Option<Begun> {
        let mut ahead = self.ahead();
        let ahead = ahead.entry(batch.table.name()).or_default();
        ahead.is_free = false;
        let begun = ahead.begun.take_if(|begun| begun.batch.first <= batch.last)?;
        (begun.batch.token() == batch.token()).then_some(begun)
    }

    fn work_ahead(&self, ahead: &mut Ahead) {
        if !ahead.is_free || ahead.begun.is_some() {
            return;
        }
        let Some((catalog, next)) = ahead.next.take() else { return };
        // A busy encoder is asked again when the batch is to be sent.
        let answer = self.begin(Arc::clone(&catalog), next.clone(), HashSet::new()).ok();
        ahead.begun = answer.map(|answer| Begun { batch: next, catalog, answer });
    }

    fn begin(
        &self,
        catalog: Arc<Catalog>,
        batch: Batch,
        stored: HashSet<u64>,
    ) -> Result<Answer, SinkError> {
        let (answer, answered) = oneshot::channel();
        self.jobs.try_send(Job { catalog, batch, stored, answer }).map_err(
            |error| match error {
                TrySendError::Full(_) => busy("the encoder is busy"),
                TrySendError::Disconnected(_) => busy("the encoder has ended"),
            },
        )?;
        Ok(answered)
    }

    fn ahead(&self) -> MutexGuard<'_, HashMap<&'static str, Ahead>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Job {
    fn work(self) {
        let Self { catalog, batch, stored, answer } = self;
        // The attempt was given up, or another batch came instead.
        if answer.is_closed() {
            return;
        }
        let table = catalog.table(batch.table.name());
        let layout = table.and_then(|table| table.layout.as_ref().ok());
        let encoded = layout.map_or(Ok(Vec::new()), |layout| layout.encode(&batch, &stored));
        drop(answer.send(encoded));
    }
}

fn busy(words: &str) -> SinkError {
    SinkError::Retry { after: Some(BUSY), source: words.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::clickhouse::encode;
    use crate::backends::{Entry, Events, Records, memory};
    use crate::event::Event;
    use crate::tables::samples;

    /// Ten events, and which ranges were read.
    struct Watched {
        events: Vec<Arc<Event>>,
        reads: Mutex<Vec<(u64, u64)>>,
    }

    impl Watched {
        /// Until so many ranges were read: what nobody waits for any more would not be begun.
        async fn wait(&self, reads: usize) {
            while self.reads.lock().unwrap().len() < reads {
                tokio::task::yield_now().await;
            }
        }
    }

    impl Records for Watched {
        fn node(&self) -> Arc<str> {
            self.events.node()
        }

        fn read<'r>(&'r self, entries: &'r [Entry]) -> Events<'r> {
            let [first, .., last] = entries else { unreachable!() };
            self.reads.lock().unwrap().push((first.position().0, last.position().0));
            self.events.read(entries)
        }
    }

    fn watched() -> Arc<Watched> {
        let events = (1..=10).map(|seq| Arc::new(samples::event(seq))).collect();
        Arc::new(Watched { events, reads: Mutex::default() })
    }

    /// The events from `first` to `last` as a batch that reads from `records`.
    fn batch(records: &Arc<Watched>, first: usize, last: usize) -> Batch {
        let events = records.events[first - 1..last].to_vec();
        let batch = memory::batch(tables::find("events").unwrap(), events).unwrap();
        Batch { records: Arc::clone(records) as Arc<dyn Records>, ..batch }
    }

    fn catalog() -> Arc<Catalog> {
        Arc::new(Catalog::of(encode::tests::events()))
    }

    async fn bodies(encoder: &Encoder, catalog: &Arc<Catalog>, batch: &Batch) -> Vec<bytes::Bytes> {
        let inserts = encoder.encode(catalog, batch, &HashSet::new()).await.unwrap();
        inserts.into_iter().map(|insert| insert.body).collect()
    }

    #[tokio::test]
    async fn a_batch_that_was_told_of_is_read_once_and_after_the_one_before_it() {
        let (records, catalog, encoder) = (watched(), catalog(), Encoder::start().unwrap());
        let (one, two) = (batch(&records, 1, 4), batch(&records, 5, 10));
        encoder.expect(Arc::clone(&catalog), &two);
        bodies(&encoder, &catalog, &one).await;
        let ahead = bodies(&encoder, &catalog, &two).await;
        assert_eq!(*records.reads.lock().unwrap(), [(1, 4), (5, 10)]);
        assert_eq!(ahead, bodies(&Encoder::start().unwrap(), &catalog, &two).await);
    }

    #[tokio::test]
    async fn what_was_made_ahead_outlives_another_attempt_at_the_batch_before_it() {
        let (records, catalog, encoder) = (watched(), catalog(), Encoder::start().unwrap());
        let (one, two) = (batch(&records, 1, 4), batch(&records, 5, 10));
        bodies(&encoder, &catalog, &one).await;
        encoder.expect(Arc::clone(&catalog), &two);
        bodies(&encoder, &catalog, &one).await;
        bodies(&encoder, &catalog, &two).await;
        assert_eq!(*records.reads.lock().unwrap(), [(1, 4), (5, 10), (1, 4)]);
    }

    #[tokio::test]
    async fn what_was_made_ahead_is_for_that_batch_and_that_catalog_alone() {
        let (records, one_catalog, encoder) = (watched(), catalog(), Encoder::start().unwrap());
        bodies(&encoder, &one_catalog, &batch(&records, 1, 2)).await;
        encoder.expect(Arc::clone(&one_catalog), &batch(&records, 3, 6));
        records.wait(2).await;
        bodies(&encoder, &one_catalog, &batch(&records, 3, 5)).await;
        encoder.expect(Arc::clone(&one_catalog), &batch(&records, 6, 8));
        records.wait(4).await;
        bodies(&encoder, &catalog(), &batch(&records, 6, 8)).await;
        let reads = records.reads.lock().unwrap().clone();
        assert_eq!(reads, [(1, 2), (3, 6), (3, 5), (6, 8), (6, 8)]);
    }
}
