//! Time as an argument: everything that waits, ages or stamps asks a [`Clock`], so tests decide what time it is.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio::sync::watch;

/// A source of monotonic and wall-clock time.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// Never goes back; for ages, deadlines and back-off.
    fn monotonic(&self) -> Instant;
    /// Coordinated universal time; for stamps that leave the process. May step either way.
    fn wall(&self) -> DateTime<Utc>;
    /// Returns once [`Clock::monotonic`] has reached `moment`. Cancel-safe.
    async fn sleep_until(&self, moment: Instant);
}

/// The machine's own clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn monotonic(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> DateTime<Utc> {
        Utc::now()
    }

    async fn sleep_until(&self, moment: Instant) {
        tokio::time::sleep_until(moment.into()).await;
    }
}

/// A clock that moves only when told to.
#[derive(Debug)]
pub struct ManualClock {
    start: Instant,
    state: Mutex<(Duration, DateTime<Utc>)>,
    moved: watch::Sender<Duration>,
}

impl ManualClock {
    /// Starts at `wall`, with a monotonic time of now.
    pub fn new(wall: DateTime<Utc>) -> Self {
        Self {
            start: Instant::now(),
            state: Mutex::new((Duration::ZERO, wall)),
            moved: watch::Sender::new(Duration::ZERO),
        }
    }

    /// Moves both clocks forward by `step`.
    pub fn advance(&self, step: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += step;
        state.1 += step;
        self.moved.send_replace(state.0);
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn monotonic(&self) -> Instant {
        self.start + self.state.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn wall(&self) -> DateTime<Utc> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1
    }

    async fn sleep_until(&self, moment: Instant) {
        let rest = moment.saturating_duration_since(self.start);
        // The sender lives as long as `self`, so that waiting cannot fail.
        let _ = self.moved.subscribe().wait_for(|moved| *moved >= rest).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_both_times_by_the_same_step() {
        let clock = ManualClock::new(DateTime::UNIX_EPOCH);
        let before = clock.monotonic();
        clock.advance(Duration::from_secs(90));
        assert_eq!(clock.monotonic() - before, Duration::from_secs(90));
        assert_eq!(clock.wall().timestamp(), 90);
    }
}
