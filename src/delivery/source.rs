//! The journal as a shipper reads it: first a glance at every record, by which it finds its lanes, then
//! the events of a batch, whole.
//!
//! A record that is no event is counted and set aside in the journal, and never stops anything. It
//! is set aside once for all sinks of a run: the first to come by claims its position. Should the
//! journal not take the quarantine record, the shipper goes on after a few attempts; the bytes stay
//! in the journal as long as it keeps them, and the log names the position.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;

use super::poison;
use crate::backends::{Entry, Events, ReadError, Records};
use crate::background;
use crate::clock::Clock;
use crate::event::{self, Event, Glance, Ingest};
use crate::journal::{AppendError, Fetcher, Journal, Location, Position, Reader, Record};
use crate::telemetry::{Metrics, chain};

/// Attempts to set an undecodable record aside …
const ATTEMPTS_MAX: u32 = 3;
/// … and the pause between them.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(100);

/// The position up to which undecodable records have been set aside in this run.
#[derive(Debug, Default)]
pub(super) struct Claims(AtomicU64);

impl Claims {
    /// True for the first caller with `position`. Whoever comes by with a lower position than one
    /// claimed passes what another sink has set aside, in this run or before it.
    fn claim(&self, position: Position) -> bool {
        self.0.fetch_max(position.0, Ordering::Relaxed) < position.0
    }
}

/// Glances in order of position.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    /// Each with where it stands and its bytes there.
    pub(super) events: Vec<(Glance, Location, usize)>,
    /// The position up to which the journal was read.
    pub(super) read: Position,
}

/// A record that is no event.
struct Undecodable {
    position: Position,
    bytes: Vec<u8>,
    message: String,
}

/// A thread that reads and decodes, so that no worker does and requests go first.
#[derive(Clone)]
pub(super) struct Decoder(SyncSender<Job>);

/// One read; its reader comes back with the answer.
struct Job {
    reader: Reader,
    bytes_max: usize,
    journal: Journal,
    answer: oneshot::Sender<(Reader, io::Result<Decoded>)>,
}

type Decoded = (Chunk, Vec<Undecodable>);

impl Decoder {
    /// Starts the thread; it ends with its last handle.
    ///
    /// # Errors
    /// When the machine gives no thread.
    pub(super) fn start(sink: &str) -> io::Result<Self> {
        // A sink has one reader, so at most one job waits.
        let (jobs, waiting) = sync_channel::<Job>(1);
        background::spawn(&format!("decode-{sink}"), move || {
            while let Ok(job) = waiting.recv() {
                job.work();
            }
        })?;
        Ok(Self(jobs))
    }
}

impl Job {
    /// A panic costs the read, which is tried again.
    fn work(self) {
        let Self { mut reader, bytes_max, journal, answer } = self;
        let (node, from) = (journal.node(), reader.position());
        let decoded = catch_unwind(AssertUnwindSafe(move || {
            let decoded = decode(&mut reader, &node, bytes_max);
            (reader, decoded)
        }));
        let decoded = decoded.unwrap_or_else(|_| {
            (journal.reader(from), Err(io::Error::other("reading the journal panicked")))
        });
        // Nobody to answer: the shipper has stopped.
        drop(answer.send(decoded));
    }
}

/// What reading needs.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) sink: Arc<str>,
    pub(super) journal: Journal,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) claims: Arc<Claims>,
    pub(super) decoder: Decoder,
}

impl Source {
    /// Reads on, about `bytes_max`. The reader comes back also when the disk said no; `None` only
    /// when the process is ending.
    pub(super) async fn read(
        self,
        reader: Reader,
        bytes_max: usize,
    ) -> Option<(Reader, io::Result<Chunk>)> {
        let (answer, answered) = oneshot::channel();
        let journal = self.journal.clone();
        self.decoder.0.try_send(Job { reader, bytes_max, journal, answer }).ok()?;
        let (reader, chunk) = answered.await.ok()?;
        match chunk {
            Ok((chunk, undecodable)) => {
                self.set_aside(undecodable).await;
                Some((reader, Ok(chunk)))
            }
            Err(error) => Some((reader, Err(error))),
        }
    }

    async fn set_aside(&self, records: Vec<Undecodable>) {
        for record in records {
            self.metrics.sink_undecodable.with_label_values(&[&*self.sink]).inc();
            if !self.claims.claim(record.position) {
                continue;
            }
            let position = record.position.0;
            match self.append(&record).await {
                Ok(()) => tracing::warn!(
                    position,
                    error = record.message,
                    "journal record is no event and was set aside"
                ),
                Err(error) => tracing::error!(
                    position,
                    error = record.message,
                    journal = %error,
                    "journal record is no event and could not be set aside"
                ),
            }
        }
    }

    async fn append(&self, record: &Undecodable) -> Result<(), AppendError> {
        let Undecodable { position, bytes, message } = record;
        let node = self.journal.node();
        let event = poison::undecodable(&node, *position, bytes, message, self.clock.wall());
        let mut attempt = 1;
        loop {
            match poison::keep(&self.journal, &event).await {
                Err(error) if attempt == ATTEMPTS_MAX => return Err(error),
                Err(_) => {
                    attempt += 1;
                    self.clock.sleep_until(self.clock.monotonic() + ATTEMPT_PAUSE).await;
                }
                Ok(()) => return Ok(()),
            }
        }
    }
}

fn decode(reader: &mut Reader, node: &Arc<str>, bytes_max: usize) -> io::Result<Decoded> {
    let records = reader.read(bytes_max)?;
    let mut chunk = Chunk { events: Vec::with_capacity(records.len()), read: reader.position() };
    let mut undecodable = Vec::new();
    for record in records {
        let Record { location, bytes } = record;
        let ingest = Ingest { node: Arc::clone(node), seq: location.position.0 };
        match Glance::of(&bytes, ingest) {
            Ok(glance) => chunk.events.push((glance, location, bytes.len())),
            Err(error) => {
                let (position, message) = (location.position, chain(&error));
                undecodable.push(Undecodable { position, bytes, message });
            }
        }
    }
    Ok((chunk, undecodable))
}

impl Records for Source {
    fn node(&self) -> Arc<str> {
        self.journal.node()
    }

    fn read<'r>(&'r self, entries: &'r [Entry]) -> Events<'r> {
        let (node, mut fetcher) = (self.journal.node(), self.journal.fetcher());
        Box::new(entries.iter().filter_map(move |entry| {
            let event = event_at(&mut fetcher, entry.location, &node).transpose();
            if event.is_none() {
                let (sink, position) = (&*self.sink, entry.position().0);
                self.metrics.sink_lost.with_label_values(&[sink, "damaged"]).inc();
                tracing::error!(sink, position, "record was damaged since it was found");
            }
            event
        }))
    }
}

fn event_at(
    fetcher: &mut Fetcher,
    at: Location,
    node: &Arc<str>,
) -> Result<Option<Arc<Event>>, ReadError> {
    let Some(bytes) = fetcher.fetch(at)? else { return Ok(None) };
    match event::decode(bytes) {
        Ok(mut event) => {
            event.ingest = Ingest { node: Arc::clone(node), seq: at.position.0 };
            Ok(Some(Arc::new(event)))
        }
        Err(source) => {
            let (position, bytes) = (at.position, bytes.to_vec());
            Err(ReadError::Undecodable { position, bytes, source })
        }
    }
}
