//! Answers that are still good.
//!
//! Owns: [`Cache`]. Does not own: the clock, how long an answer is good (see `super::back_end`). Start reading
//! at [`Cache::find`]. Invariants: it holds at most `entries_max` answers of each kind, under keyed digests
//! of what was asked; answers that are a no never push out those that are a yes.

use std::collections::{HashMap, VecDeque};
use std::time::Instant;

/// What stands for a question: a keyed digest of it, so that no secret is kept.
pub(crate) type CacheKey = [u8; 32];

/// Which half of the cache an answer lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    Yes,
    No,
}

/// Answers, each with its end.
#[derive(Debug)]
pub(super) struct Cache<T> {
    yes: Answers<T>,
    no: Answers<T>,
}

#[derive(Debug)]
struct Answers<T> {
    entries_max: usize,
    of: HashMap<CacheKey, Entry<T>>,
    /// The same, oldest first, each with the number of its entry: others are stale.
    order: VecDeque<(CacheKey, u64)>,
    number: u64,
}

#[derive(Debug)]
struct Entry<T> {
    answer: T,
    until: Instant,
    number: u64,
}

impl<T: Clone> Cache<T> {
    /// At most `entries_max` of each kind.
    pub(super) fn new(entries_max: usize) -> Self {
        Self {
            yes: Answers::new(entries_max),
            no: Answers::new(entries_max),
        }
    }

    /// The answer that is known, and good until when. O(1).
    pub(super) fn find(&self, key: &CacheKey, now: Instant) -> Option<(T, Instant)> {
        let found = [&self.yes, &self.no]
            .into_iter()
            .filter_map(|half| half.of.get(key));
        let good = found
            .filter(|entry| now < entry.until)
            .max_by_key(|entry| entry.until)?;
        Some((good.answer.clone(), good.until))
    }

    /// Keeps `answer` until then, in the place of any other one to the same question.
    pub(super) fn keep(&mut self, key: CacheKey, answer: T, half: Half, until: Instant) {
        let (own, other) = match half {
            Half::Yes => (&mut self.yes, &mut self.no),
            Half::No => (&mut self.no, &mut self.yes),
        };
        other.of.remove(&key);
        own.keep(key, answer, until);
    }

    /// There is no answer to that any more.
    pub(super) fn forget(&mut self, key: &CacheKey) {
        self.yes.of.remove(key);
        self.no.of.remove(key);
    }
}

impl<T> Answers<T> {
    fn new(entries_max: usize) -> Self {
        Self {
            entries_max,
            of: HashMap::new(),
            order: VecDeque::new(),
            number: 0,
        }
    }

    /// The oldest gives way where there are too many.
    fn keep(&mut self, key: CacheKey, answer: T, until: Instant) {
        if self.entries_max == 0 {
            return;
        }
        self.number += 1;
        let number = self.number;
        self.of.insert(
            key,
            Entry {
                answer,
                until,
                number,
            },
        );
        self.order.push_back((key, number));
        // What was kept anew or forgotten leaves its old place behind.
        while self.order.len() > self.entries_max {
            let Some((oldest, number)) = self.order.pop_front() else {
                return;
            };
            if self
                .of
                .get(&oldest)
                .is_some_and(|entry| entry.number == number)
            {
                self.of.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(number: usize) -> CacheKey {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&number.to_be_bytes());
        key
    }

    #[test]
    fn answer_is_good_until_its_end_and_a_newer_one_takes_its_place() {
        let now = Instant::now();
        let mut cache = Cache::new(8);
        cache.keep(key(1), "no", Half::No, now + 10 * SECOND);
        assert_eq!(cache.find(&key(1), now), Some(("no", now + 10 * SECOND)));
        assert_eq!(cache.find(&key(2), now), None);
        cache.keep(key(1), "yes", Half::Yes, now + 5 * SECOND);
        assert_eq!(
            cache.find(&key(1), now).map(|(answer, _)| answer),
            Some("yes")
        );
        let before_the_end = now + 5 * SECOND - Duration::from_millis(1);
        assert!(cache.find(&key(1), before_the_end).is_some());
        assert_eq!(cache.find(&key(1), now + 5 * SECOND), None);
        cache.keep(key(1), "no", Half::No, now + 9 * SECOND);
        cache.forget(&key(1));
        assert_eq!(cache.find(&key(1), now), None);
    }

    #[test]
    fn cache_is_bounded_and_a_flood_of_wrong_guesses_pushes_nobody_out() {
        let now = Instant::now();
        let mut cache = Cache::new(100);
        for user in 0..100 {
            cache.keep(key(user), true, Half::Yes, now + SECOND);
        }
        for guess in 1000..3000 {
            cache.keep(key(guess), false, Half::No, now + SECOND);
        }
        assert!((0..100).all(|user| cache.find(&key(user), now).is_some()));
        assert!(cache.find(&key(2999), now).is_some());
        assert!(cache.find(&key(2899), now).is_none());
        assert_eq!((cache.no.of.len(), cache.no.order.len()), (100, 100));
        // One that is kept again and again is one entry.
        for _ in 0..1000 {
            cache.keep(key(7), true, Half::Yes, now + SECOND);
        }
        assert!(cache.yes.of.len() <= 100 && cache.yes.order.len() <= 100);
        assert!(cache.find(&key(7), now).is_some());
        let mut none = Cache::new(0);
        none.keep(key(1), true, Half::Yes, now + SECOND);
        assert_eq!(none.find(&key(1), now), None);
    }
}
