//! A connection's right to be open, for whoever keeps it open after its last request.
//!
//! A permit and a count, given back when the last holder lets go of the lease. hyper lets go of a
//! connection that changes its protocol; the WebSocket that goes on with it holds the lease, and with
//! it the permit, the count, and the wait of the server's stop for this connection.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};

use prometheus::IntGauge;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::body::Share;
use super::connection::Stop;
use super::error::ApiError;

/// A share in an open connection.
#[derive(Clone)]
pub(super) struct Lease(Arc<Held>);

struct Held {
    _permit: OwnedSemaphorePermit,
    /// The server's stop waits for it.
    _task: TaskTrackerToken,
    gauge: IntGauge,
    stop: Stop,
    /// Bytes that arrived and are not yet worked off, once somebody asked to count them.
    unread: OnceLock<Share>,
}

impl Lease {
    /// Counts the connection in `gauge` from now on.
    pub(super) fn new(
        permit: OwnedSemaphorePermit,
        task: TaskTrackerToken,
        gauge: IntGauge,
        stop: Stop,
    ) -> Self {
        gauge.inc();
        Self(Arc::new(Held { _permit: permit, _task: task, gauge, stop, unread: OnceLock::new() }))
    }

    /// How the holder learns that the server stops.
    pub(super) fn stop(&self) -> &Stop {
        &self.0.stop
    }

    /// From now on the bytes that arrive count against the memory of `all` bodies, until they are
    /// worked off ([`Share::release`]).
    pub(super) fn count_unread(&self, all: &Arc<AtomicUsize>) -> &Share {
        self.0.unread.get_or_init(|| Share::of(all))
    }

    /// Bytes arrived.
    ///
    /// # Errors
    /// When they count and the bound is reached.
    pub(super) fn arrived(&self, bytes: usize) -> Result<(), ApiError> {
        self.0.unread.get().map_or(Ok(()), |unread| unread.take(bytes))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}
