//! The adaptive strategy: moves a lane's rows and age between bounds after every write.
//!
//! Pure, and the same answer to the same history. Three rules: *behind* (more waits than a batch
//! takes) doubles rows, because larger batches cost less a row; *slow* (the write took more than
//! half the age) doubles the age, so that the store is asked less often; otherwise both shrink by
//! an eighth, because smaller and younger batches are fresher.

use std::time::Duration;

use crate::config::Limits;

/// Rows and age move at most this factor below where they start …
const SHRINK_MAX: u32 = 8;
/// … and this factor above.
const GROW_MAX: u32 = 16;

/// One lane's controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Adaptive {
    start: Limits,
    now: Limits,
}

impl Adaptive {
    /// Begins with, and stays around, `start`.
    pub(super) fn new(start: Limits) -> Self {
        Self { start, now: start }
    }

    pub(super) fn limits(&self) -> Limits {
        self.now
    }

    /// Learns from one write that took `latency`, after which `waiting` rows were in the lane.
    pub(super) fn observe(&mut self, waiting: usize, latency: Duration) {
        let Limits { rows, age, .. } = self.now;
        let (rows, age) = match (waiting > rows, latency > age / 2) {
            (true, true) => (rows.saturating_mul(2), age.saturating_mul(2)),
            (true, false) => (rows.saturating_mul(2), age),
            (false, true) => (rows, age.saturating_mul(2)),
            (false, false) => (rows - rows / 8, age.saturating_sub(age / 8)),
        };
        let (least, most) = self.bounds();
        self.now.rows = rows.clamp(least.rows, most.rows);
        self.now.age = age.clamp(least.age, most.age);
    }

    fn bounds(&self) -> (Limits, Limits) {
        let Limits { rows, bytes, age } = self.start;
        let least =
            Limits { rows: (rows / SHRINK_MAX as usize).max(1), bytes, age: age / SHRINK_MAX };
        let most = Limits {
            rows: rows.saturating_mul(GROW_MAX as usize),
            bytes,
            age: age.saturating_mul(GROW_MAX),
        };
        (least, most)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Limits = Limits { rows: 800, bytes: 1 << 20, age: Duration::from_secs(2) };
    const FAST: Duration = Duration::from_millis(5);
    const SLOW: Duration = Duration::from_secs(600);

    fn after(observations: &[(usize, Duration)]) -> (usize, Duration) {
        let mut adaptive = Adaptive::new(START);
        for &(waiting, latency) in observations {
            adaptive.observe(waiting, latency);
        }
        (adaptive.limits().rows, adaptive.limits().age)
    }

    #[test]
    fn a_backlog_grows_batches_a_slow_store_is_asked_less_often_and_calm_shrinks_both() {
        assert_eq!(after(&[(801, FAST)]), (1_600, Duration::from_secs(2)));
        assert_eq!(after(&[(800, SLOW)]), (800, Duration::from_secs(4)));
        assert_eq!(after(&[(0, FAST)]), (700, Duration::from_millis(1_750)));
    }

    #[test]
    fn each_bound_is_reached_and_kept() {
        assert_eq!(after(&[(usize::MAX, SLOW); 40]), (12_800, Duration::from_secs(32)));
        assert_eq!(after(&[(0, FAST); 80]), (100, Duration::from_millis(250)));
    }

    proptest! {
        #[test]
        fn no_history_leaves_the_bounds(
            rows in 1usize..=usize::MAX,
            age in 0u64..=u64::MAX,
            history in prop::collection::vec((0usize..1_000_000, 0u64..100_000), 0..60),
        ) {
            let age = Duration::from_nanos(age);
            let mut adaptive = Adaptive::new(Limits { rows, bytes: 9, age });
            for (waiting, latency) in history {
                adaptive.observe(waiting, Duration::from_millis(latency));
                let now = adaptive.limits();
                prop_assert!(now.rows >= (rows / 8).max(1) && now.rows <= rows.saturating_mul(16));
                prop_assert!(now.age >= age / 8 && now.age <= age.saturating_mul(16));
                prop_assert_eq!(now.bytes, 9);
            }
        }
    }
}
