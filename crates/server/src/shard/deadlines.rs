//! When which connection is to be looked at: coarse, and re-armed only when looked at.
//!
//! Owns: [`Deadlines`]. Does not own: what is due (the connection knows).
//! Start reading at [`Deadlines::arm`]. Invariant: an entry may come early or twice, never late by
//! more than one tick.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use engine::ConnectionKey;

/// Ticks since the shard began.
pub(super) type Tick = u64;

/// Connections by the tick at which to look at them.
#[derive(Debug)]
pub(super) struct Deadlines {
    began: Instant,
    ticks: BTreeMap<Tick, Vec<ConnectionKey>>,
}

impl Deadlines {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            began: now,
            ticks: BTreeMap::new(),
        }
    }

    /// Adds `key` at `deadline`, rounded up to a tick, which is returned.
    pub(super) fn arm(&mut self, key: ConnectionKey, deadline: Instant) -> Tick {
        let tick = self.tick_of(deadline) + 1;
        self.ticks.entry(tick).or_default().push(key);
        tick
    }

    /// The tick in which `at` lies.
    pub(super) fn tick_of(&self, at: Instant) -> Tick {
        let ticks = at.saturating_duration_since(self.began).as_millis() / TICK.as_millis();
        Tick::try_from(ticks).unwrap_or(Tick::MAX - 1)
    }

    /// When [`Self::pop_due`] has something next.
    pub(super) fn next(&self) -> Option<Instant> {
        let (tick, _) = self.ticks.first_key_value()?;
        let ticks = u32::try_from(*tick).unwrap_or(u32::MAX);
        self.began.checked_add(TICK.saturating_mul(ticks))
    }

    /// One tick that has passed, with the connections to look at.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Tick, Vec<ConnectionKey>)> {
        if self.next()? > now {
            return None;
        }
        self.ticks.pop_first()
    }
}

/// The grain of all connection deadlines.
const TICK: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_due_at_its_deadline_and_at_most_a_tick_later() {
        let now = Instant::now();
        let mut deadlines = Deadlines::new(now);
        let deadline = now + Duration::from_millis(1234);
        let tick = deadlines.arm(ConnectionKey(7), deadline);
        assert_eq!(deadlines.pop_due(deadline - Duration::from_millis(1)), None);
        let due = deadlines.pop_due(deadline + TICK);
        assert_eq!(due, Some((tick, vec![ConnectionKey(7)])));
        assert_eq!(deadlines.next(), None);
    }
}
