//! What was freed, and when the allocator is asked to give it back to the system.
//!
//! Owns: [`GivingBack`], how the allocator is asked. Does not own: what is held (see `governed`). Start reading at
//! [`GivingBack::on_held`]. Invariants: who holds ever more or ever less is not asked, for an allocator gives back on its own
//! as it goes, and what it gives back it may want again; who is idle is asked once, and then sleeps on.

use std::hint::black_box;
use std::time::{Duration, Instant};

/// That a shard has come to hold more or less, and what was freed on the way was not given back.
#[derive(Debug, Default)]
pub(super) struct GivingBack {
    /// What it held when it last had changed by much, in bytes.
    seen: i64,
    /// When that was; `None` once what was freed is given back.
    changed_at: Option<Instant>,
}

impl GivingBack {
    /// The shard holds so many bytes `now`. Returns whether it is time to [`give_back`].
    pub(super) fn on_held(&mut self, held: i64, now: Instant) -> bool {
        if held.abs_diff(self.seen) >= CHANGE_BYTES {
            self.seen = held;
            self.changed_at = Some(now);
        }
        let is_due = self.next().is_some_and(|at| at <= now);
        if is_due {
            self.changed_at = None;
        }
        is_due
    }

    /// When it has to be looked at again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.changed_at?.checked_add(CALM)
    }
}

/// Asks the allocator to give back what is free on this thread: a table that has grown leaves the one it was before, and a
/// rush that is over its buffers. mimalloc looks at that only while something is allocated, so an idle thread keeps it. Its
/// `mi_collect` can be called by `unsafe` only; it calls the same itself before it says that there is no memory. So it is
/// asked for more than any machine of 64 bits has; other allocators say no, and that is all. Takes about a tenth of a
/// millisecond, and as long as the system takes for what is given back.
pub(super) fn give_back() {
    let mut wanted = Vec::<u8>::new();
    // Nobody uses it: a compiler might leave out the asking.
    let refused = black_box(&mut wanted).try_reserve_exact(black_box(MORE_THAN_THERE_IS));
    drop(black_box(refused));
}

/// What is worth to ask.
const CHANGE_BYTES: u64 = 1024 * 1024;
/// For so long nothing has changed by that much before it is asked.
const CALM: Duration = Duration::from_secs(1);
/// In bytes. Less than the most that may be asked for: that is refused before anything is given back.
const MORE_THAN_THERE_IS: usize = 1 << (usize::BITS - 2);

#[cfg(test)]
mod tests {
    use super::*;

    const MUCH: i64 = 1024 * 1024;

    #[test]
    fn is_asked_once_when_nothing_has_changed_by_much_for_a_second() {
        let start = Instant::now();
        let mut giving_back = GivingBack::default();
        assert!(!giving_back.on_held(MUCH - 1, start));
        assert_eq!(giving_back.next(), None, "too little");
        assert!(!giving_back.on_held(2 * MUCH, start));
        assert_eq!(giving_back.next(), Some(start + CALM));
        // It goes on.
        let later = start + CALM / 2;
        assert!(!giving_back.on_held(0, later));
        assert!(!giving_back.on_held(MUCH / 2, start + CALM));
        assert!(giving_back.on_held(MUCH / 2, later + CALM));
        assert_eq!(giving_back.next(), None);
        assert!(!giving_back.on_held(MUCH / 2, later + 2 * CALM));
    }

    #[test]
    fn allocator_refuses_and_nothing_else_happens() {
        give_back();
    }
}
