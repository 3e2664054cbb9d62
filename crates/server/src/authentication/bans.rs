//! Who has failed to log in too often, and is not listened to for a while.
//!
//! Owns: [`Bans`], [`BanLimits`], [`Ban`]. Does not own: what a failure is (see `shard::admit`). Start reading at
//! [`Bans::on_failure`]. Invariants: what a peer can make grow here has a limit; an address that is shared by
//! many is banned for one User Name long before it is banned as a whole.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::peer::Origin;

/// How often is too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BanLimits {
    /// Failures of one User Name from one address within the window. Default 10; 0 bans nobody.
    pub failures_max: u32,
    /// Failures of one address within the window, whatever the User Name; this machine is left out, where a
    /// proxy may stand for everyone. Default 100; 0 bans no address.
    pub failures_per_address_max: u32,
    /// The window, from the first failure. Default: a minute.
    pub window: Duration,
    /// How long a ban lasts. Default: a minute.
    pub lasts: Duration,
}

impl Default for BanLimits {
    fn default() -> Self {
        Self {
            failures_max: 10,
            failures_per_address_max: 100,
            window: Duration::from_secs(60),
            lasts: Duration::from_secs(60),
        }
    }
}

/// A ban that is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ban {
    /// Of which address, or user of this machine; of an IPv6 address its /64.
    pub address: Origin,
    /// Of which User Name, its first characters if it is long; `None` bans all of the address.
    pub user: Option<String>,
    /// Of which Client Identifier, because it connects too often.
    #[serde(default)]
    pub client_id: Option<String>,
    /// When it ends by itself, in seconds.
    pub ends_in_seconds: u64,
}

/// Failures and bans.
#[derive(Debug, Default)]
pub(crate) struct Bans {
    /// User Names are long where somebody wants to fill the memory, so their hashes stand for them.
    hasher: RandomState,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    entries: HashMap<Key, Entry>,
    failures: u64,
}

/// An address or a user of this machine, and the hash of a User Name or none.
type Key = (Origin, Option<u64>);

#[derive(Debug)]
struct Entry {
    user: Option<Box<str>>,
    failures: u32,
    since: Instant,
    banned_until: Option<Instant>,
}

impl Entry {
    fn is_over(&self, limits_window: Duration, now: Instant) -> bool {
        match self.banned_until {
            Some(until) => until <= now,
            None => now.saturating_duration_since(self.since) >= limits_window,
        }
    }
}

impl Bans {
    /// Whether a login of `user` from `peer` is refused at once. O(1).
    pub(crate) fn is_banned(&self, peer: Origin, user: &str, now: Instant) -> bool {
        let state = self.lock();
        // The usual case costs no hashing.
        if state.entries.is_empty() {
            return false;
        }
        self.keys(peer, user).any(|key| {
            let entry = state.entries.get(&key);
            entry.is_some_and(|entry| entry.banned_until.is_some_and(|until| until > now))
        })
    }

    /// A login of `user` from `peer` has failed. Whether that begins a ban.
    pub(crate) fn on_failure(
        &self,
        peer: Origin,
        user: &str,
        limits: &BanLimits,
        now: Instant,
    ) -> bool {
        let address_max = if peer.is_local() {
            0
        } else {
            limits.failures_per_address_max
        };
        let counted = self.keys(peer, user).map(|key| match key {
            (_, Some(_)) => (key, limits.failures_max),
            (_, None) => (key, address_max),
        });
        let mut state = self.lock();
        state.failures += 1;
        let mut begins = false;
        for (key, failures_max) in counted.filter(|(_, max)| *max > 0) {
            if !state.has_room(&key, limits.window, now) {
                continue;
            }
            let entry = state
                .entries
                .entry(key)
                .or_insert_with(|| Entry::new(key, user, now));
            if entry.is_over(limits.window, now) {
                *entry = Entry::new(key, user, now);
            }
            entry.failures = entry.failures.saturating_add(1);
            if entry.failures >= failures_max && entry.banned_until.is_none() {
                entry.banned_until = Some(now + limits.lasts);
                begins = true;
            }
        }
        begins
    }

    /// The bans in force, those that end first in front.
    pub(crate) fn list(&self, now: Instant) -> Vec<Ban> {
        let state = self.lock();
        let bans = state.entries.iter().filter_map(|((address, _), entry)| {
            let left = entry.banned_until?.checked_duration_since(now)?;
            Some(Ban {
                address: *address,
                user: entry.user.as_deref().map(str::to_owned),
                client_id: None,
                ends_in_seconds: left.as_secs(),
            })
        });
        let mut bans: Vec<Ban> = bans.collect();
        bans.sort_by(|a, b| {
            let order = |ban: &Ban| (ban.ends_in_seconds, ban.address, ban.user.clone());
            order(a).cmp(&order(b))
        });
        bans
    }

    /// Forgets the failures of an address, or all; how many bans that has lifted.
    pub(crate) fn lift(&self, address: Option<Origin>, now: Instant) -> usize {
        let block = address.map(Origin::block);
        let mut lifted = 0;
        self.lock().entries.retain(|(of, _), entry| {
            let is_kept = block.is_some_and(|block| block != *of);
            if !is_kept && entry.banned_until.is_some_and(|until| until > now) {
                lifted += 1;
            }
            is_kept
        });
        lifted
    }

    /// Failed logins since the start, and the bans in force. O(entries).
    pub(crate) fn counts(&self, now: Instant) -> (u64, usize) {
        let state = self.lock();
        let in_force = |entry: &&Entry| entry.banned_until.is_some_and(|until| until > now);
        let bans = state.entries.values().filter(in_force).count();
        (state.failures, bans)
    }

    /// What a login is counted by. Who says no User Name is nobody in particular, and shares a count with nobody.
    fn keys(&self, peer: Origin, user: &str) -> impl Iterator<Item = Key> + use<> {
        let block = peer.block();
        let of_user = (!user.is_empty()).then(|| self.hasher.hash_one(user));
        let of_user = of_user.map(|hash| (block, Some(hash)));
        of_user.into_iter().chain([(block, None)])
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether this one can be counted. Where there is no room, what is over goes first, then what is no ban.
    fn has_room(&mut self, key: &Key, window: Duration, now: Instant) -> bool {
        if self.entries.len() < ENTRIES_MAX || self.entries.contains_key(key) {
            return true;
        }
        self.entries.retain(|_, entry| !entry.is_over(window, now));
        if self.entries.len() >= ENTRIES_MAX {
            self.entries.retain(|_, entry| entry.banned_until.is_some());
        }
        self.entries.len() < ENTRIES_MAX
    }
}

impl Entry {
    fn new((_, user_hash): Key, user: &str, now: Instant) -> Self {
        Self {
            user: user_hash.map(|_| user.chars().take(USER_CHARACTERS_MAX).collect()),
            failures: 0,
            since: now,
            banned_until: None,
        }
    }
}

/// So many addresses and User Names are counted.
const ENTRIES_MAX: usize = 65_536;
/// So much of a User Name is kept.
const USER_CHARACTERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Origin {
        Origin::Address([192, 0, 2, last].into())
    }

    const LIMITS: BanLimits = BanLimits {
        failures_max: 3,
        failures_per_address_max: 5,
        window: Duration::from_secs(60),
        lasts: Duration::from_secs(30),
    };

    fn fail(bans: &Bans, last: u8, user: &str, now: Instant) -> bool {
        bans.on_failure(address(last), user, &LIMITS, now)
    }

    #[test]
    fn user_of_an_address_that_fails_too_often_is_banned_for_a_while() {
        let (bans, now) = (Bans::default(), Instant::now());
        assert!(!fail(&bans, 1, "anna", now) && !fail(&bans, 1, "anna", now));
        assert!(!bans.is_banned(address(1), "anna", now));
        assert!(fail(&bans, 1, "anna", now));
        assert!(bans.is_banned(address(1), "anna", now));
        // Neither another one there, nor the same user elsewhere.
        assert!(!bans.is_banned(address(1), "otto", now));
        assert!(!bans.is_banned(address(2), "anna", now));
        let late = now + Duration::from_secs(30);
        assert!(!bans.is_banned(address(1), "anna", late));
        // And it begins anew.
        assert!(!fail(&bans, 1, "anna", late));
        assert_eq!(bans.counts(late), (4, 0));
    }

    /// One device with an old token and no User Name would lock out all others there that say none.
    #[test]
    fn who_says_no_user_name_shares_a_count_with_nobody() {
        let (bans, now) = (Bans::default(), Instant::now());
        for _ in 0..4 {
            assert!(!fail(&bans, 1, "", now));
        }
        assert!(!bans.is_banned(address(1), "", now));
        // But its address is counted.
        assert!(fail(&bans, 1, "", now));
        assert!(bans.is_banned(address(1), "", now));
    }

    #[test]
    fn failures_far_apart_are_forgiven() {
        let (bans, now) = (Bans::default(), Instant::now());
        for n in 0..10 {
            let now = now + Duration::from_secs(30) * n;
            assert!(!fail(&bans, 1, "anna", now), "{n}");
        }
    }

    #[test]
    fn address_that_tries_many_users_is_banned_but_not_this_machine() {
        let (bans, now) = (Bans::default(), Instant::now());
        let users = ["a", "b", "c", "d", "e"];
        let begun: Vec<bool> = users.iter().map(|user| fail(&bans, 1, user, now)).collect();
        assert_eq!(begun, [false, false, false, false, true]);
        assert!(bans.is_banned(address(1), "nobody yet", now));
        for here in ["127.0.0.1", "::1", "uid:1000"] {
            let here: Origin = here.parse().expect("an origin");
            for n in 0..20 {
                assert!(!bans.on_failure(here, &format!("user-{n}"), &LIMITS, now));
            }
            assert!(!bans.is_banned(here, "another", now));
        }
        let off = BanLimits {
            failures_max: 0,
            failures_per_address_max: 0,
            ..LIMITS
        };
        for _ in 0..200 {
            assert!(!bans.on_failure(address(9), "anna", &off, now));
        }
    }

    #[test]
    fn bans_are_listed_and_lifted() {
        let (bans, now) = (Bans::default(), Instant::now());
        for _ in 0..3 {
            fail(&bans, 1, "anna", now);
            fail(&bans, 2, &"o".repeat(100), now + Duration::from_secs(1));
        }
        fail(&bans, 3, "emil", now);
        let ban = |last, user: &str, ends_in_seconds| Ban {
            address: address(last),
            user: Some(user.to_owned()),
            client_id: None,
            ends_in_seconds,
        };
        let now = now + Duration::from_secs(1);
        let expected = [ban(1, "anna", 29), ban(2, &"o".repeat(64), 30)];
        assert_eq!(bans.list(now), expected);
        assert_eq!(bans.lift(Some(address(1)), now), 1);
        assert!(!bans.is_banned(address(1), "anna", now));
        assert_eq!(bans.list(now), expected[1..]);
        assert_eq!(bans.lift(None, now), 1);
        assert!(bans.list(now).is_empty());
    }

    /// Class M: whatever names and addresses are tried, this stays bounded, and a ban stays a ban.
    #[test]
    fn it_stays_bounded() {
        let (bans, now) = (Bans::default(), Instant::now());
        for _ in 0..3 {
            fail(&bans, 1, "anna", now);
        }
        let many = u32::try_from(ENTRIES_MAX).expect("fits") + 100;
        for n in 0..many {
            let peer = Origin::Address(n.to_be_bytes().into());
            bans.on_failure(peer, "anna", &LIMITS, now);
        }
        assert!(bans.lock().entries.len() <= ENTRIES_MAX);
        assert!(bans.is_banned(address(1), "anna", now));
    }
}
