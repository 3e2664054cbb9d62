//! How often something happens, told from when it has happened.
//!
//! Owns: [`Rate`]. Does not own: a clock. Start reading at [`Rate::at`]. Invariant: what does not happen any more tends to
//! 0, and one number is kept, however often it has happened.

use std::time::{Duration, Instant};

/// Events in a second; those of the last seconds count most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    /// What the events before `last` come to, at `last`.
    weight: f64,
    last: Option<Instant>,
}

impl Rate {
    /// One more.
    pub(super) fn count(&mut self, now: Instant) {
        self.weight = self.decayed(now) + 1.0 / MEMORY.as_secs_f64();
        self.last = Some(now);
    }

    /// Events in a second at `now`, if nobody has looked before `began`.
    pub(super) fn at(&self, now: Instant, began: Instant) -> f64 {
        let watched = now.saturating_duration_since(began).max(SHORTEST);
        // So much of the memory has been filled.
        let filled = 1.0 - (-watched.as_secs_f64() / MEMORY.as_secs_f64()).exp();
        self.decayed(now) / filled
    }

    fn decayed(&self, now: Instant) -> f64 {
        let Some(last) = self.last else { return 0.0 };
        let silent = now.saturating_duration_since(last);
        self.weight * (-silent.as_secs_f64() / MEMORY.as_secs_f64()).exp()
    }
}

/// After so long an event counts for a third of a new one.
const MEMORY: Duration = Duration::from_secs(10);
/// Less time than this says nothing of a rate.
const SHORTEST: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_beat_is_its_rate_at_once_and_silence_ends_it() {
        let began = Instant::now();
        let at = |milliseconds| began + Duration::from_millis(milliseconds);
        let mut rate = Rate::default();
        assert!(rate.at(at(5000), began).abs() < 0.001);
        for beat in 1..=20 {
            rate.count(at(beat * 250));
        }
        let seen = rate.at(at(5000), began);
        assert!((3.8..4.2).contains(&seen), "{seen}");
        for beat in 21..=400 {
            rate.count(at(beat * 250));
        }
        let seen = rate.at(at(100_000), began);
        assert!((3.8..4.2).contains(&seen), "{seen}");
        let seen = rate.at(at(200_000), began);
        assert!(seen < 0.01, "{seen}");
    }
}
