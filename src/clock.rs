//! Time as an argument: everything that waits, ages or stamps asks a [`Clock`], so tests decide what time it is.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};

/// A source of monotonic and wall-clock time.
pub trait Clock: Send + Sync + 'static {
    /// Never goes back; for ages, deadlines and back-off.
    fn monotonic(&self) -> Instant;
    /// Coordinated universal time; for stamps that leave the process. May step either way.
    fn wall(&self) -> DateTime<Utc>;
}

/// The machine's own clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn monotonic(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> DateTime<Utc> {
        Utc::now()
    }
}

/// A clock that moves only when told to.
#[derive(Debug)]
pub struct ManualClock {
    start: Instant,
    state: Mutex<(Duration, DateTime<Utc>)>,
}

impl ManualClock {
    /// Starts at `wall`, with a monotonic time of now.
    pub fn new(wall: DateTime<Utc>) -> Self {
        Self { start: Instant::now(), state: Mutex::new((Duration::ZERO, wall)) }
    }

    /// Moves both clocks forward by `step`.
    pub fn advance(&self, step: Duration) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += step;
        state.1 += step;
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Instant {
        self.start + self.state.lock().unwrap_or_else(PoisonError::into_inner).0
    }

    fn wall(&self) -> DateTime<Utc> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1
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
