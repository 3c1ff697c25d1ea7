//! So many in a second, and so many at once: the generic cell rate algorithm, as `governor` has it.
//!
//! `governor` counts in nanoseconds since a limiter was made, by the clock the rest of the program
//! goes by ([`Time`]). Where it keeps what is spent is ours: `limits.rs` bounds that.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use governor::Quota;
use governor::nanos::Nanos;

use crate::clock::Clock;

const SECOND: Duration = Duration::from_secs(1);

/// `per_second` lastingly and `burst` at once, each at least one; `None` when nothing is limited.
pub(super) fn quota(per_second: u32, burst: u32) -> Option<Quota> {
    let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
    Some(Quota::per_second(NonZeroU32::new(per_second)?).allow_burst(burst))
}

/// The program's clock, counted from a start.
#[derive(Clone)]
pub(super) struct Time {
    clock: Arc<dyn Clock>,
    start: Instant,
}

impl Time {
    /// Starts now.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let start = clock.monotonic();
        Self { clock, start }
    }
}

impl governor::clock::Clock for Time {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.clock.monotonic().saturating_duration_since(self.start).into()
    }
}

/// How fast one connection may send. `governor` can refuse but not be owed: what is beyond a burst it
/// never takes, and what a connection has sent is taken already. So this is one moment of ours, the
/// one at which everything is paid off.
pub(super) struct Pace {
    /// What one costs; zero when nothing is limited.
    cost: Duration,
    paid_off: Instant,
}

impl Pace {
    /// `per_second` lastingly, and as much at once; 0 is no limit.
    pub(super) fn new(per_second: u32, start: Instant) -> Self {
        let cost = quota(per_second, per_second).map(|quota| quota.replenish_interval());
        Self { cost: cost.unwrap_or_default(), paid_off: start }
    }

    /// Takes `count` whether they are allowed or not, and says how long to wait before the next.
    pub(super) fn owe(&mut self, now: Instant, count: usize) -> Duration {
        let price = self.cost.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
        self.paid_off = self.paid_off.max(now) + price;
        self.paid_off.saturating_duration_since(now).saturating_sub(SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_waits_for_what_is_owed_beyond_a_second() {
        let start = Instant::now();
        let mut pace = Pace::new(10, start);
        assert_eq!(pace.owe(start, 10), Duration::ZERO);
        assert_eq!(pace.owe(start, 5), Duration::from_millis(500));
        assert_eq!(pace.owe(start + Duration::from_millis(500), 1), Duration::from_millis(100));
        let later = start + Duration::from_secs(60);
        assert_eq!(pace.owe(later, 45), Duration::from_millis(3500));
        assert_eq!(pace.owe(later + Duration::from_millis(3500), 1), Duration::from_millis(100));
        assert_eq!(Pace::new(0, start).owe(start, usize::MAX), Duration::ZERO);
    }
}
