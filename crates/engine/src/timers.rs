//! Deadlines: a coarse ordered map of ticks to what is due.
//!
//! Owns: [`Timers`]. Does not own: the clock. Start reading at [`Timers::set`].
//! Invariant: nothing fires early; it may fire up to one tick late.

use std::collections::BTreeSet;
use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use crate::SessionKey;

/// What is due at a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// A Session's expiry.
    SessionExpiry(SessionKey),
    /// A Session's Will Delay Interval.
    WillDelay(SessionKey),
    /// `$SYS` topics.
    Sys,
}

/// Deadlines of one shard.
#[derive(Debug)]
pub(crate) struct Timers {
    start: Instant,
    due: BTreeSet<(u64, Due)>,
}

/// A set deadline, needed to clear it: one more than its tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline(NonZeroU64);

impl Timers {
    pub(crate) const fn new(start: Instant) -> Self {
        Self {
            start,
            due: BTreeSet::new(),
        }
    }

    /// O(log n).
    pub(crate) fn set(&mut self, due: Due, at: Instant) -> Deadline {
        let after = at.saturating_duration_since(self.start);
        let tick =
            u64::try_from(after.as_millis().div_ceil(u128::from(TICK_MS))).unwrap_or(u64::MAX - 1);
        self.due.insert((tick, due));
        Deadline(NonZeroU64::MIN.saturating_add(tick))
    }

    pub(crate) fn clear(&mut self, due: Due, deadline: Deadline) {
        self.due.remove(&(deadline.0.get() - 1, due));
    }

    /// When [`Self::pop`] has something next.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        let (tick, _) = self.due.first()?;
        let after = Duration::from_millis(tick.saturating_mul(TICK_MS));
        self.start.checked_add(after)
    }

    /// Takes out one thing that is due at `now`, the oldest first.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<Due> {
        if self.next_at()? > now {
            return None;
        }
        self.due.pop_first().map(|(_, due)| due)
    }
}

const TICK_MS: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> Instant {
        crate::testing::start()
    }

    #[test]
    fn nothing_fires_early_and_everything_within_a_tick() {
        let start = start();
        let mut timers = Timers::new(start);
        timers.set(Due::Sys, start + Duration::from_millis(150));
        assert_eq!(timers.pop(start + Duration::from_millis(150)), None);
        assert_eq!(timers.next_at(), Some(start + Duration::from_millis(200)));
        assert_eq!(
            timers.pop(start + Duration::from_millis(200)),
            Some(Due::Sys)
        );
        assert_eq!(timers.next_at(), None);
    }
}
