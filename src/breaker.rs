//! Circuit breaker: stops asking a system that fails, and asks again with one probe.
//!
//! Pure: it is told the time and never waits. Closed lets everything through. It opens after
//! [`CONSECUTIVE_MAX`] failures in a row, or when at least half of [`SAMPLES_MIN`] or more outcomes
//! of the last [`WINDOW`] failed. Open lets one probe through after a pause; a probe that succeeds
//! closes it, one that fails doubles the pause from [`PAUSE_MIN`] to [`PAUSE_MAX`]. The pause starts
//! short because one probe costs little and a restart of a store takes seconds; it ends at the same
//! 30 s as a single lane's back-off.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How far back outcomes count.
pub const WINDOW: Duration = Duration::from_secs(30);
/// Fewer outcomes than this say nothing about a rate.
pub const SAMPLES_MIN: usize = 20;
/// So many failures in a row open it whatever the rate.
pub const CONSECUTIVE_MAX: u32 = 5;
/// Pause before the first probe.
pub const PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest pause between probes.
pub const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Outcomes remembered; with more than this within [`WINDOW`] the newest decide.
const SAMPLES_MAX: usize = 256;

/// One system's breaker.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    samples: VecDeque<Sample>,
    consecutive: u32,
    pause: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    /// Nothing before `until`. While `probing`, one attempt is out; should its outcome never be
    /// told, the next one is let through at `until`.
    Open {
        until: Instant,
        probing: bool,
    },
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    failed: bool,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Closed, samples: VecDeque::new(), consecutive: 0, pause: PAUSE_MIN }
    }
}

impl Breaker {
    /// Whether an attempt may start now. While open, the first caller after the pause is the probe.
    ///
    /// # Errors
    /// The moment before which asking again is useless.
    pub fn admit(&mut self, now: Instant) -> Result<(), Instant> {
        match self.state {
            State::Closed => Ok(()),
            State::Open { until, .. } if now < until => Err(until),
            State::Open { .. } => {
                self.state = State::Open { until: now + PAUSE_MAX, probing: true };
                Ok(())
            }
        }
    }

    /// The system answered: also when it refused what it was given.
    pub fn succeeded(&mut self, now: Instant) {
        if self.state != State::Closed {
            *self = Self::default();
        }
        self.consecutive = 0;
        self.sample(now, false);
    }

    /// The system did not answer, or could not take it.
    pub fn failed(&mut self, now: Instant) {
        self.consecutive = self.consecutive.saturating_add(1);
        self.sample(now, true);
        match self.state {
            State::Open { probing: true, .. } => {
                self.pause = (self.pause * 2).min(PAUSE_MAX);
                self.open(now);
            }
            State::Closed if self.consecutive >= CONSECUTIVE_MAX || self.rate_is_bad() => {
                self.pause = PAUSE_MIN;
                self.open(now);
            }
            // Open and not probing: an attempt from before it opened, which says nothing new.
            State::Open { probing: false, .. } | State::Closed => {}
        }
    }

    /// Whether everything is let through.
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    fn open(&mut self, now: Instant) {
        self.state = State::Open { until: now + self.pause, probing: false };
    }

    fn sample(&mut self, now: Instant, failed: bool) {
        let old = |sample: &Sample| now.saturating_duration_since(sample.at) > WINDOW;
        while self.samples.front().is_some_and(old) || self.samples.len() >= SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back(Sample { at: now, failed });
    }

    fn rate_is_bad(&self) -> bool {
        let failures = self.samples.iter().filter(|sample| sample.failed).count();
        self.samples.len() >= SAMPLES_MIN && failures * 2 >= self.samples.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::default();
        for _ in 0..CONSECUTIVE_MAX {
            assert_eq!(breaker.admit(now), Ok(()));
            breaker.failed(now);
        }
        breaker
    }

    #[test]
    fn five_failures_in_a_row_open_it_and_four_do_not() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..CONSECUTIVE_MAX - 1 {
            breaker.failed(now);
        }
        assert_eq!(breaker.admit(now), Ok(()));
        breaker.succeeded(now);
        breaker.failed(now);
        assert_eq!(breaker.admit(now), Ok(()), "a success begins the row again");
        assert_eq!(opened(now).admit(now), Err(now + PAUSE_MIN));
    }

    #[test]
    fn half_of_twenty_outcomes_open_it_though_none_follow_each_other() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..SAMPLES_MIN / 2 - 1 {
            breaker.succeeded(now);
            breaker.failed(now);
        }
        breaker.succeeded(now);
        assert!(breaker.is_closed());
        breaker.failed(now);
        assert!(!breaker.is_closed());
    }

    #[test]
    fn outcomes_older_than_the_window_do_not_count() {
        let now = Instant::now();
        let mut breaker = Breaker::default();
        for _ in 0..SAMPLES_MIN / 2 - 1 {
            breaker.succeeded(now);
            breaker.failed(now);
        }
        let later = now + WINDOW + SECOND;
        breaker.succeeded(later);
        breaker.failed(later);
        assert!(breaker.is_closed());
    }

    #[test]
    fn one_probe_follows_the_pause_and_its_success_closes() {
        let now = Instant::now();
        let mut breaker = opened(now);
        let probe = now + PAUSE_MIN;
        assert_eq!(breaker.admit(probe), Ok(()));
        assert_eq!(breaker.admit(probe), Err(probe + PAUSE_MAX), "one probe at a time");
        breaker.succeeded(probe);
        assert_eq!(breaker.admit(probe), Ok(()));
    }

    #[test]
    fn a_failed_probe_doubles_the_pause_up_to_its_bound() {
        let mut now = Instant::now();
        let mut breaker = opened(now);
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            let until = now + SECOND * seconds;
            assert_eq!(breaker.admit(now), Err(until));
            now = until;
            assert_eq!(breaker.admit(now), Ok(()));
            breaker.failed(now);
        }
    }

    #[test]
    fn a_late_failure_from_before_it_opened_does_not_prolong_the_pause() {
        let now = Instant::now();
        let mut breaker = opened(now);
        breaker.failed(now + SECOND / 2);
        assert_eq!(breaker.admit(now), Err(now + PAUSE_MIN));
    }
}
