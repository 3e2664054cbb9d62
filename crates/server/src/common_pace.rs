//! Rates that many connections share: those of one user, and all there are.
//!
//! Owns: [`CommonPaces`], what each of these rates has used up, what that costs by another rate. Does not own: the limits
//! (see `config`), who waits for how long (see `shard::pace`). Start reading at [`CommonPaces::of_user`]. Invariant: what a user has used up is known for as
//! long as it is ahead, also between two connections; users that are neither connected nor ahead are forgotten.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::shard::PaceLimits;

/// All of them, for all shards.
#[derive(Debug)]
pub(crate) struct CommonPaces {
    pub(crate) began: Instant,
    pub(crate) of_all: Arc<CommonPace>,
    users: Mutex<Users>,
}

#[derive(Debug)]
struct Users {
    paces: HashMap<Arc<str>, Arc<CommonPace>>,
    /// With so many it is looked for some to forget.
    swept_at: usize,
}

/// What many connections have used up together.
#[derive(Debug, Default)]
pub(crate) struct CommonPace {
    /// When what was charged is paid for, in nanoseconds since [`CommonPaces::began`]: packets, bytes, filters.
    paid_at: [AtomicU64; 3],
}

impl CommonPaces {
    pub(crate) fn new(began: Instant) -> Self {
        Self {
            began,
            of_all: Arc::default(),
            users: Mutex::new(Users {
                paces: HashMap::new(),
                swept_at: SWEPT_FROM,
            }),
        }
    }

    /// That of `user`. O(1), but for a look at all of them when there are twice as many as at the last one.
    pub(crate) fn of_user(&self, user: &Arc<str>, now: Instant) -> Arc<CommonPace> {
        let mut users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pace) = users.paces.get(user) {
            return Arc::clone(pace);
        }
        if users.paces.len() >= users.swept_at {
            users.sweep(nanos_since(self.began, now));
        }
        let pace = Arc::<CommonPace>::default();
        users.paces.insert(Arc::clone(user), Arc::clone(&pace));
        pace
    }
}

impl CommonPaces {
    /// What has used up a rate before is paid for by the one that is there now, of users and of all. O(users).
    pub(crate) fn reprice(
        &self,
        of_user: [&PaceLimits; 2],
        of_all: [&PaceLimits; 2],
        now: Instant,
    ) {
        let at = nanos_since(self.began, now);
        self.of_all.reprice(of_all, at);
        if of_user[0] != of_user[1] {
            let users = self.users.lock().unwrap_or_else(PoisonError::into_inner);
            for pace in users.paces.values() {
                pace.reprice(of_user, at);
            }
        }
    }
}

impl Users {
    fn sweep(&mut self, at: u64) {
        let mut kept = 0;
        self.paces.retain(|_, pace| {
            if pace.sharers() > 0 {
                return true;
            }
            let is_kept = pace.paid_at() > at && kept < AHEAD_MAX;
            kept += usize::from(is_kept);
            is_kept
        });
        self.swept_at = (2 * self.paces.len()).max(SWEPT_FROM);
        self.paces.shrink_to(self.swept_at);
    }
}

impl CommonPace {
    /// How many connections share it.
    pub(crate) fn sharers(self: &Arc<Self>) -> usize {
        // One is that of the table.
        Arc::strong_count(self).saturating_sub(1)
    }

    /// Something has come that takes so many `nanos` to pay for, for each kind. O(1).
    pub(crate) fn charge(&self, nanos: [u64; 3], at: u64) {
        for (paid_at, nanos) in self.paid_at.iter().zip(nanos) {
            let later = |paid_at: u64| Some(paid_at.max(at).saturating_add(nanos));
            if nanos > 0 {
                paid_at
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, later)
                    .ok();
            }
        }
    }

    fn reprice(&self, [before, after]: [&PaceLimits; 2], at: u64) {
        let rates = before.rates().into_iter().zip(after.rates());
        for (paid_at, rates) in self.paid_at.iter().zip(rates) {
            let sooner = |paid_at: u64| Some(repriced(paid_at, rates, at));
            paid_at
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, sooner)
                .ok();
        }
    }

    /// When all of it is paid for.
    pub(crate) fn paid_at(&self) -> u64 {
        let all = self.paid_at.iter();
        all.map(|paid_at| paid_at.load(Ordering::Relaxed))
            .max()
            .unwrap_or(0)
    }
}

/// When something is paid for that would be at `paid_at` by the first of these rates, and is by the second, if that is
/// sooner: nobody waits for longer because of a rate that was not there when it was said. A rate of 0 is none. All in
/// nanoseconds since the same moment; `at` is now.
pub(crate) fn repriced(paid_at: u64, (before, after): (u64, u64), at: u64) -> u64 {
    let owed = u128::from(paid_at.saturating_sub(at)) * u128::from(before);
    let owed = owed.checked_div(u128::from(after)).unwrap_or(0);
    let owed = u64::try_from(owed).unwrap_or(u64::MAX);
    paid_at.min(at.saturating_add(owed))
}

/// Nanoseconds from `began` to `now`.
pub(crate) fn nanos_since(began: Instant, now: Instant) -> u64 {
    let since = now.saturating_duration_since(began).as_nanos();
    u64::try_from(since).unwrap_or(u64::MAX)
}

/// Fewer users are not looked through.
const SWEPT_FROM: usize = 1024;
/// So many users that are ahead and not connected are remembered.
const AHEAD_MAX: usize = 65_536;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn user_is_remembered_while_it_is_connected_or_ahead() {
        let began = Instant::now();
        let paces = CommonPaces::new(began);
        let name = |number: usize| Arc::<str>::from(format!("user-{number}"));
        let connected = paces.of_user(&name(0), began);
        let second = 1_000_000_000;
        paces
            .of_user(&name(1), began)
            .charge([0, 9 * second, 0], second);
        let later = began + Duration::from_secs(5);
        for number in 2..10_000 {
            drop(paces.of_user(&name(number), later));
        }
        assert_eq!(connected.sharers(), 1);
        assert!(Arc::ptr_eq(&connected, &paces.of_user(&name(0), later)));
        let ahead = paces.of_user(&name(1), later);
        assert_eq!(ahead.paid_at(), 10 * second);
        let known = |paces: &CommonPaces| paces.users.lock().expect("not poisoned").paces.len();
        assert!(known(&paces) <= SWEPT_FROM + 2, "{}", known(&paces));
    }

    #[test]
    fn what_is_owed_is_paid_for_at_the_new_rate_if_that_is_sooner() {
        for (rates, paid_at) in [
            ((1, 10), 1_100),
            // A rate that was never there, and one that is there no more.
            ((0, 10), 1_000),
            ((10, 0), 1_000),
            // Nobody waits for longer.
            ((10, 1), 2_000),
            ((1, 1), 2_000),
        ] {
            assert_eq!(repriced(2_000, rates, 1_000), paid_at, "{rates:?}");
            assert_eq!(repriced(900, rates, 1_000), 900, "nothing is owed");
        }
    }

    /// Class M: whatever users come, what is kept of them stays bounded.
    #[test]
    fn users_that_are_ahead_and_gone_are_bounded() {
        let began = Instant::now();
        let paces = CommonPaces::new(began);
        for number in 0..300_000_usize {
            let user = Arc::from(number.to_string());
            paces.of_user(&user, began).charge([1 << 40, 0, 0], 0);
        }
        let known = paces.users.lock().expect("not poisoned").paces.len();
        assert!(known <= 2 * (AHEAD_MAX + 1), "{known}");
    }
}
