//! So many in a second, and so many at once: the generic cell rate algorithm (ITU-T I.371).
//!
//! The state of one client is one moment: the one at which everything it spent is paid off.

use std::time::{Duration, Instant};

const SECOND_NANOS: u64 = 1_000_000_000;

/// So much at once, and so much lastingly.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quota {
    /// Nanoseconds that one costs.
    cost: u64,
    /// Nanoseconds that may be owed.
    credit: u64,
}

impl Quota {
    /// `None` when nothing is limited.
    pub(super) fn new(per_second: u32, burst: u32) -> Option<Self> {
        let cost = SECOND_NANOS.checked_div(u64::from(per_second))?.max(1);
        Some(Self { cost, credit: cost.saturating_mul(u64::from(burst.max(1))) })
    }

    pub(super) fn burst(self) -> u64 {
        self.credit / self.cost.max(1)
    }

    /// Spends `count` if all of them are left, and says how many are left then, else how long until
    /// they are.
    pub(super) fn spend(self, paid_off: &mut u64, now: u64, count: u64) -> Result<u64, Duration> {
        let owed = self.owed(*paid_off, now, count);
        match owed.checked_sub(self.credit) {
            None | Some(0) => {
                *paid_off = now.saturating_add(owed);
                Ok((self.credit - owed) / self.cost.max(1))
            }
            Some(excess) => Err(Duration::from_nanos(excess)),
        }
    }

    fn owed(self, paid_off: u64, now: u64, count: u64) -> u64 {
        paid_off.saturating_sub(now).saturating_add(self.cost.saturating_mul(count))
    }
}

/// How fast one connection may send.
pub(super) struct Pace {
    quota: Option<Quota>,
    start: Instant,
    paid_off: u64,
}

impl Pace {
    /// `per_second` lastingly, and as much at once; 0 is no limit.
    pub(super) fn new(per_second: u32, start: Instant) -> Self {
        Self { quota: Quota::new(per_second, per_second), start, paid_off: 0 }
    }

    /// Spends `count` whether they are left or not, and says how long to wait before the next.
    pub(super) fn owe(&mut self, now: Instant, count: usize) -> Duration {
        let Some(quota) = self.quota else { return Duration::ZERO };
        let now = nanos(now.saturating_duration_since(self.start));
        let owed = quota.owed(self.paid_off, now, u64::try_from(count).unwrap_or(u64::MAX));
        self.paid_off = now.saturating_add(owed);
        Duration::from_nanos(owed.saturating_sub(quota.credit))
    }
}

/// Nanoseconds, as a quota counts.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pace_waits_for_what_is_owed_beyond_a_second() {
        let start = Instant::now();
        let mut pace = Pace::new(10, start);
        assert_eq!(pace.owe(start, 10), Duration::ZERO);
        assert_eq!(pace.owe(start, 5), Duration::from_millis(500));
        assert_eq!(pace.owe(start + Duration::from_millis(500), 1), Duration::from_millis(100));
        assert_eq!(pace.owe(start + Duration::from_secs(60), 1), Duration::ZERO);
        assert_eq!(Pace::new(0, start).owe(start, usize::MAX), Duration::ZERO);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn no_second_is_given_more_than_the_burst_and_the_rate(
            steps in prop::collection::vec(0_u64..400, 1..200),
            per_second in 1_u32..50,
            burst in 1_u32..20,
        ) {
            let quota = Quota::new(per_second, burst).unwrap();
            let (mut paid_off, mut now, mut taken) = (0, 0, 0_u64);
            for step in steps {
                now += step * 1_000_000;
                taken += u64::from(quota.spend(&mut paid_off, now, 1).is_ok());
                let most = u128::from(burst) * 1_000_000_000
                    + u128::from(now) * u128::from(per_second);
                prop_assert!(u128::from(taken) * u128::from(quota.cost) * u128::from(per_second) <= most);
            }
        }
    }
}
