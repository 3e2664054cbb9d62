//! When to connect again: exponential, with jitter, so that a thousand clients do not come at one moment.
//!
//! Owns: [`Reconnect`] and the numbers it leads to. Does not own: why a connection ended.
//! Start reading at [`Backoff::next`]. Invariant: the same seed gives the same delays.

use std::time::{Duration, Instant};

/// How a [`crate::Client`] connects again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reconnect {
    /// The first delay is between half of this and this. Default 500 ms.
    pub delay_min: Duration,
    /// No delay is longer. Default 30 s.
    pub delay_max: Duration,
    /// After so many attempts in a row without a lasting connection it gives up. Default: never.
    pub attempts_max: Option<u32>,
}

impl Default for Reconnect {
    fn default() -> Self {
        Self {
            delay_min: Duration::from_millis(500),
            delay_max: Duration::from_secs(30),
            attempts_max: None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Backoff {
    reconnect: Reconnect,
    attempts: u32,
    random: u64,
}

impl Backoff {
    pub(super) const fn new(reconnect: Reconnect, seed: u64) -> Self {
        Self {
            reconnect,
            attempts: 0,
            random: seed,
        }
    }

    /// A connection has lasted so long: if that is long enough, the next delay is the first again.
    pub(super) fn on_connection_of(&mut self, duration: Duration) {
        if duration >= LASTING {
            self.attempts = 0;
        }
    }

    /// When to try next; `None` if that was the last attempt.
    pub(super) fn next(&mut self, now: Instant) -> Option<Instant> {
        let Reconnect {
            delay_min,
            delay_max,
            attempts_max,
        } = self.reconnect;
        self.attempts = self.attempts.saturating_add(1);
        if attempts_max.is_some_and(|maximum| self.attempts > maximum) {
            return None;
        }
        let doubled = 1_u32 << (self.attempts - 1).min(DOUBLINGS_MAX);
        let whole = delay_min.saturating_mul(doubled).min(delay_max);
        let part = self.random_below_1024();
        Some(now + whole / 2 + whole / 2 / 1024 * part)
    }

    /// SplitMix64.
    fn random_below_1024(&mut self) -> u32 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        u32::try_from((mixed ^ (mixed >> 31)) & 1023).unwrap_or_default()
    }
}

/// A connection of this length is no part of a series of failures.
const LASTING: Duration = Duration::from_secs(5);
/// 2^16 times the first delay is more than any longest one that makes sense.
const DOUBLINGS_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn delays(seed: u64, count: usize) -> Vec<Duration> {
        let mut backoff = Backoff::new(Reconnect::default(), seed);
        let now = Instant::now();
        let next = |_| backoff.next(now).expect("another attempt") - now;
        (0..count).map(next).collect()
    }

    #[test]
    fn delays_double_up_to_the_longest_and_differ_by_seed() {
        for seed in 0..100 {
            for (attempt, delay) in delays(seed, 12).into_iter().enumerate() {
                let whole = Duration::from_millis(500 << attempt).min(Duration::from_secs(30));
                assert!(delay >= whole / 2 && delay <= whole, "{attempt}: {delay:?}");
            }
        }
        assert_ne!(delays(1, 5), delays(2, 5));
        assert_eq!(delays(1, 5), delays(1, 5));
    }

    #[test]
    fn only_a_lasting_connection_ends_a_series_of_failures() {
        let reconnect = Reconnect {
            attempts_max: Some(2),
            ..Reconnect::default()
        };
        let mut backoff = Backoff::new(reconnect, 1);
        let now = Instant::now();
        assert!(backoff.next(now).is_some());
        backoff.on_connection_of(Duration::from_millis(10));
        assert!(backoff.next(now).is_some());
        assert!(backoff.next(now).is_none());
        backoff.on_connection_of(LASTING);
        assert!(backoff.next(now).is_some());
    }
}
