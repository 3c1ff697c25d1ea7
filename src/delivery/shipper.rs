//! One sink's shipper: finds out which store it is and how far it is, ships, and closes it.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::batcher::Bounds;
use super::cursor::{Cursor, CursorFile, Found, Range};
use super::running::Running;
use super::source::Source;
use super::status::{SinkState, Status};
use super::{CLOSE_TIME_MAX, Cursors, Share};
use crate::backends::Sink;
use crate::clock::Clock;
use crate::config::LimitsByTable;
use crate::telemetry::chain;

/// Pause after the disk refused a read or a sync, and after a store could not say who it is.
pub(super) const PAUSE: Duration = Duration::from_secs(1);
/// Everything one sink's loop is made of.
pub(super) struct Shipper {
    pub(super) sink: Arc<dyn Sink>,
    pub(super) limits: LimitsByTable,
    pub(super) source: Source,
    pub(super) cursors: Cursors,
    pub(super) status: Arc<Status>,
    pub(super) low_water: Share,
    pub(super) bounds: Bounds,
}

/// Told once, when the process stops: the moment by which to be done.
pub(super) type Stop = watch::Receiver<Option<Instant>>;

impl Shipper {
    /// Ships until told to stop, then flushes until the deadline and closes the sink.
    pub(super) async fn run(self, mut stop: Stop) {
        let opened = self.open(&mut stop).await;
        let sink = Arc::clone(&self.sink);
        let clock = Arc::clone(&self.source.clock);
        let status = Arc::clone(&self.status);
        if let Some((cursor, file)) = opened {
            let mut running = Running::new(self, cursor, file);
            running.run(stop).await;
            running.end().await;
        }
        tokio::select! {
            () = sink.close() => {}
            () = clock.sleep_until(clock.monotonic() + CLOSE_TIME_MAX) => {}
        }
        status.change(|seen| seen.state = SinkState::Stopped);
    }

    /// Asks the store who it is, for as long as it takes, and opens its cursor. `None` when the
    /// process stops before.
    async fn open(&self, stop: &mut Stop) -> Option<(Cursor, CursorFile)> {
        let name = &*self.source.sink;
        let clock = &self.source.clock;
        self.source.metrics.sink_up.with_label_values(&[name]).set(0);
        let mut told = String::new();
        loop {
            let mut stopping = stop.clone();
            let message = tokio::select! {
                opened = self.try_open() => match opened {
                    Ok(opened) => return Some(opened),
                    Err(message) => message,
                },
                () = deadline(&mut stopping, &**clock) => return None,
            };
            if told != message {
                tracing::warn!(sink = name, error = message, "sink is not reached yet");
                told.clone_from(&message);
            }
            self.status.change(|seen| seen.last_error = Some(message));
            tokio::select! {
                () = clock.sleep_until(clock.monotonic() + PAUSE) => {}
                _ = stop.wait_for(Option::is_some) => return None,
            }
        }
    }

    async fn try_open(&self) -> Result<(Cursor, CursorFile), String> {
        let identity = self.sink.identity().await.map_err(|error| chain(&error))?;
        let opened = self.open_cursor(identity).await;
        opened.map_err(|error| format!("opening the cursor: {error}"))
    }

    async fn open_cursor(&self, identity: String) -> io::Result<(Cursor, CursorFile)> {
        let Cursors { fs, directory } = self.cursors.clone();
        let (name, node) = (self.source.sink.to_string(), self.source.journal.node());
        let open = move || CursorFile::open(&*fs, &directory, &name, &identity, &node);
        let opened = spawn_blocking(open).await.map_err(io::Error::other)?;
        let (file, mut cursor, found) = opened?;
        let sink = &*self.source.sink;
        match found {
            Found::Whole => {}
            Found::Nothing => tracing::info!(sink, "new store, sending all the journal has"),
            Found::Damaged => {
                tracing::warn!(sink, "cursor is unreadable, sending all the journal has");
            }
        }
        for (table, range) in cursor.adopt(&self.source.journal.node()) {
            self.missing(&table, range);
        }
        Ok((cursor, file))
    }

    /// A frozen range cannot be sent again as it was.
    pub(super) fn missing(&self, table: &str, range: Range) {
        let Source { sink, metrics, .. } = &self.source;
        metrics.sink_lost.with_label_values(&[&**sink, "missing_range"]).inc();
        tracing::error!(
            sink = &**sink,
            table,
            first = range.first.0,
            last = range.last.0,
            "frozen range is no longer whole in the journal"
        );
    }
}

/// Returns at the deadline of a stop, once there is one.
async fn deadline(stop: &mut Stop, clock: &dyn Clock) {
    let told = stop.wait_for(Option::is_some).await.ok().and_then(|deadline| *deadline);
    if let Some(deadline) = told {
        clock.sleep_until(deadline).await;
    }
}
