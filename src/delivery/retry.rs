//! Back-off of one lane: quick attempts first, then full jitter below a ceiling that doubles.
//!
//! Pure: chance comes as a number. Nothing is ever dropped for having been tried too often, so there
//! is no last attempt.

use std::time::Duration;

use crate::config::TableLimits;

/// First ceiling after the quick attempts.
const CEILING_MIN: Duration = Duration::from_millis(100);
/// Last ceiling: how late a store that came back may be noticed.
const CEILING_MAX: Duration = Duration::from_secs(30);
/// Bound of a store's own wish, so that a wrong header cannot park a lane for a day.
const AFTER_MAX: Duration = Duration::from_secs(10 * 60);

/// When a lane tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Retry {
    /// Attempts that wait at most `quick_delay`.
    quick_attempts: u32,
    quick_delay: Duration,
}

impl Retry {
    pub(super) fn new(limits: &TableLimits) -> Self {
        Self { quick_attempts: limits.retry_attempts, quick_delay: limits.retry_backoff }
    }

    /// How long to wait after the `failures`-th failure in a row (from 1). `after` is the store's
    /// wish, `chance` a number in 0..1.
    pub(super) fn delay(self, failures: u32, after: Option<Duration>, chance: f64) -> Duration {
        let ceiling = match failures.saturating_sub(self.quick_attempts) {
            0 => self.quick_delay.min(CEILING_MAX),
            // 100 ms doubled nine times is above the last ceiling.
            doublings => (CEILING_MIN * (1 << (doublings - 1).min(9))).min(CEILING_MAX),
        };
        let own = ceiling.mul_f64(chance.clamp(0.0, 1.0));
        own.max(after.unwrap_or_default().min(AFTER_MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const QUICK: Retry = Retry { quick_attempts: 3, quick_delay: Duration::from_millis(50) };

    #[test]
    fn quick_attempts_come_first_and_then_the_ceiling_doubles_to_thirty_seconds() {
        let ceilings: Vec<_> =
            (1..=14).map(|failures| QUICK.delay(failures, None, 1.0).as_millis()).collect();
        assert_eq!(
            ceilings,
            [50, 50, 50, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000]
        );
    }

    #[test]
    fn the_stores_wish_is_kept_within_a_bound() {
        let wish = Duration::from_secs(90);
        assert_eq!(QUICK.delay(1, Some(wish), 0.5), wish);
        assert_eq!(QUICK.delay(1, Some(Duration::from_secs(86_400)), 0.5), AFTER_MAX);
    }

    proptest! {
        #[test]
        fn a_delay_is_never_above_its_ceiling(
            failures in 1u32..=u32::MAX,
            quick_attempts in 0u32..10,
            chance in 0.0f64..1.0,
        ) {
            let retry = Retry { quick_attempts, quick_delay: Duration::from_millis(70) };
            let delay = retry.delay(failures, None, chance);
            prop_assert!(delay <= retry.delay(failures, None, 1.0));
            prop_assert!(delay <= CEILING_MAX);
        }
    }
}
