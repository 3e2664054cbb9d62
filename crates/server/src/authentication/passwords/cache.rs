//! Passwords that were verified lately, so that a storm of reconnects does not verify them all again.
//!
//! Owns: [`VerifiedPasswords`]. Does not own: verifying. Start reading at [`VerifiedPasswords::knows`].
//! Invariant: it holds keyed digests only, under a key that ends with the process; one that stands for a
//! hash that is not that of the user any more is never found again.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::{hmac, rand};

use super::stored::StoredPassword;

/// What is remembered of a verified login.
pub(in crate::authentication) type Mark = [u8; 32];

/// Which passwords were verified, and when.
pub(in crate::authentication) struct VerifiedPasswords {
    /// `None` where the system has no randomness: then nothing is remembered.
    key: Option<hmac::Key>,
    lifetime: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    verified: HashMap<Mark, Instant>,
    /// The same, oldest first.
    order: VecDeque<Mark>,
}

impl VerifiedPasswords {
    /// Remembers each for `lifetime`.
    pub(in crate::authentication) fn new(lifetime: Duration) -> Self {
        let mut secret = [0; 32];
        let key = rand::fill(&mut secret)
            .ok()
            .map(|()| hmac::Key::new(hmac::HMAC_SHA256, &secret));
        Self {
            key,
            lifetime,
            state: Mutex::default(),
        }
    }

    /// What stands for this `password` of `user`, as long as it is `stored` like that.
    pub(in crate::authentication) fn mark(
        &self,
        user: &str,
        password: &[u8],
        stored: &StoredPassword,
    ) -> Option<Mark> {
        let mut context = hmac::Context::with_key(self.key.as_ref()?);
        for part in [user.as_bytes(), password, stored.expose().as_bytes()] {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        context.sign().as_ref().try_into().ok()
    }

    /// Whether that was verified lately. O(1), under a lock that is held for as long.
    pub(in crate::authentication) fn knows(&self, mark: &Mark, now: Instant) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let verified_at = state.verified.get(mark);
        verified_at.is_some_and(|at| now.saturating_duration_since(*at) < self.lifetime)
    }

    /// That is verified now. The oldest gives way where there are too many.
    pub(in crate::authentication) fn remember(&self, mark: Mark, now: Instant) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.verified.insert(mark, now).is_none() {
            state.order.push_back(mark);
        }
        if state.order.len() > VERIFIED_MAX
            && let Some(oldest) = state.order.pop_front()
        {
            state.verified.remove(&oldest);
        }
    }
}

impl fmt::Debug for VerifiedPasswords {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VerifiedPasswords")
    }
}

/// So many logins are remembered.
const VERIFIED_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_password_of_the_same_user_and_hash_is_known_and_not_for_ever() {
        let cache = VerifiedPasswords::new(Duration::from_secs(10));
        let stored = StoredPassword::dummy();
        let mark = |user: &str, password: &[u8]| cache.mark(user, password, &stored);
        let anna = mark("anna", b"word").expect("there is randomness");
        let now = Instant::now();
        assert!(!cache.knows(&anna, now));
        cache.remember(anna, now);
        assert!(cache.knows(&anna, now + Duration::from_secs(9)));
        assert!(!cache.knows(&anna, now + Duration::from_secs(10)));
        let changed = StoredPassword::new(b"word").expect("is hashed");
        let others = [
            mark("anna", b"ward"),
            mark("ann", b"aword"),
            cache.mark("anna", b"word", &changed),
            VerifiedPasswords::new(Duration::from_secs(10)).mark("anna", b"word", &stored),
        ];
        for other in others {
            assert!(!cache.knows(&other.expect("there is randomness"), now));
        }
    }

    #[test]
    fn it_stays_bounded_and_forgets_the_oldest() {
        let cache = VerifiedPasswords::new(Duration::from_secs(10));
        let now = Instant::now();
        let mark = |number: usize| {
            let mut mark = Mark::default();
            mark[..8].copy_from_slice(&number.to_be_bytes());
            mark
        };
        for number in 0..=VERIFIED_MAX {
            cache.remember(mark(number), now);
        }
        assert!(!cache.knows(&mark(0), now) && cache.knows(&mark(1), now));
        assert!(cache.knows(&mark(VERIFIED_MAX), now));
    }
}
