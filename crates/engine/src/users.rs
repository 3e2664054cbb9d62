//! What one user has in all shards together: how many Sessions, how many Subscriptions.
//!
//! Owns: [`UserTotals`], which the engines of a process share, and the part of one engine in it. Does not own: the limits
//! (see `limits`), what a refused Client is told (see `connect`, `subscribe`). Start reading at [`UserTotals`].
//! Invariants: nobody is counted, and nothing is shared, where no such limit is set; a total is the sum of what the engines
//! have; what is refused here is refused before anything else is done for it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use proto::packet::ReasonCode;

use crate::keys::{KeyedState, SessionKey};
use crate::limits::Limits;
use crate::sessions::{Session, map_bytes};
use crate::{ConnectRequest, Engine};

/// What users have, for all engines of one process: each is given the same in its [`crate::Config`]. It is all that engines
/// share. Whether there is room for one more is an answer that an engine is given, as it is given the time; engines that
/// take turns in one thread are given the same ones each time.
#[derive(Debug, Default)]
pub struct UserTotals(Mutex<BTreeMap<Arc<str>, Arc<Total>>>);

/// What one user has.
#[derive(Debug, Default)]
struct Total {
    sessions: AtomicUsize,
    subscriptions: AtomicUsize,
}

/// What is counted of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Had {
    /// Sessions, connected or not.
    Session,
    /// Subscriptions of all of these.
    Subscription,
}

impl UserTotals {
    /// How many Sessions and how many Subscriptions are counted for `user`. O(log users).
    #[must_use]
    pub fn of(&self, user: &str) -> (usize, usize) {
        let users = self.lock();
        users.get(user).map_or((0, 0), |total| {
            let count = |what| total.count(what).load(Ordering::Relaxed);
            (count(Had::Session), count(Had::Subscription))
        })
    }

    /// How many users are counted at all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether nobody is counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn enter(&self, user: &Arc<str>) -> Arc<Total> {
        let mut users = self.lock();
        Arc::clone(users.entry(Arc::clone(user)).or_default())
    }

    /// An engine has nothing of `user` any more.
    fn leave(&self, user: &str, total: Arc<Total>) {
        let mut users = self.lock();
        drop(total);
        // One is that of the table, and others are made of it only here.
        if users.get(user).is_some_and(|of| Arc::strong_count(of) == 1) {
            users.remove(user);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, Arc<Total>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Total {
    const fn count(&self, what: Had) -> &AtomicUsize {
        match what {
            Had::Session => &self.sessions,
            Had::Subscription => &self.subscriptions,
        }
    }

    /// Takes one more, unless there are as many as there may be.
    fn take(&self, what: Had, max: Option<usize>) -> bool {
        let one_more = |count: usize| max.is_none_or(|max| count < max).then_some(count + 1);
        let count = self.count(what);
        let taken = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.is_ok()
    }

    fn give(&self, what: Had, number: usize) {
        self.count(what).fetch_sub(number, Ordering::Relaxed);
    }
}

/// What the users of one engine have there.
#[derive(Debug)]
pub(crate) struct Users {
    totals: Arc<UserTotals>,
    /// `None` where nothing of users is limited.
    own: Option<HashMap<Arc<str>, Own, KeyedState>>,
    hasher: KeyedState,
}

/// What one of them has there.
#[derive(Debug)]
struct Own {
    total: Arc<Total>,
    sessions: usize,
    subscriptions: usize,
}

impl Own {
    const fn count(&mut self, what: Had) -> &mut usize {
        match what {
            Had::Session => &mut self.sessions,
            Had::Subscription => &mut self.subscriptions,
        }
    }
}

impl Users {
    pub(crate) fn new(totals: Arc<UserTotals>, limits: &Limits, hasher: KeyedState) -> Self {
        let mut users = Self {
            totals,
            own: None,
            hasher,
        };
        users.set_counting(limits.count_users());
        users
    }

    /// Whether `user` may have one more, which is counted then. Who is nobody may have any number. O(1).
    fn take(&mut self, user: Option<&Arc<str>>, what: Had, max: Option<usize>) -> bool {
        let (Some(own), Some(user)) = (&mut self.own, user) else {
            return true;
        };
        let of = own.entry(Arc::clone(user)).or_insert_with(|| Own {
            total: self.totals.enter(user),
            sessions: 0,
            subscriptions: 0,
        });
        let is_taken = of.total.take(what, max);
        *of.count(what) += usize::from(is_taken);
        if !is_taken {
            self.forget_if_idle(user);
        }
        is_taken
    }

    /// `user` has one less.
    fn give(&mut self, user: Option<&Arc<str>>, what: Had) {
        let (Some(own), Some(user)) = (&mut self.own, user) else {
            return;
        };
        let Some(of) = own.get_mut(user) else {
            return;
        };
        let count = of.count(what);
        *count = count
            .checked_sub(1)
            .expect("invariant: whatever a user gives back was counted");
        of.total.give(what, 1);
        self.forget_if_idle(user);
    }

    fn forget_if_idle(&mut self, user: &Arc<str>) {
        let Some(own) = &mut self.own else {
            return;
        };
        let is_idle = |of: &Own| of.sessions == 0 && of.subscriptions == 0;
        if own.get(user).is_some_and(is_idle)
            && let Some(of) = own.remove(user)
        {
            self.totals.leave(user, of.total);
        }
    }

    /// Begins to count, from nothing, or forgets everything.
    fn set_counting(&mut self, is_counting: bool) {
        let anew = is_counting.then(|| HashMap::with_hasher(self.hasher.clone()));
        let before = std::mem::replace(&mut self.own, anew);
        for (user, of) in before.into_iter().flatten() {
            of.total.give(Had::Session, of.sessions);
            of.total.give(Had::Subscription, of.subscriptions);
            self.totals.leave(&user, of.total);
        }
    }

    /// Bytes of the tables, this engine's part of the shared one with them.
    pub(crate) fn table_bytes(&self) -> usize {
        self.own.as_ref().map_or(0, |own| {
            map_bytes(own.capacity(), size_of::<(Arc<str>, Own)>()) + own.len() * TOTAL_BYTES
        })
    }
}

impl Drop for Users {
    /// Other engines may go on with the same totals.
    fn drop(&mut self) {
        self.set_counting(false);
    }
}

impl Engine {
    /// Other limits count: who is there is counted if one of them is about users, and nobody else. O(Sessions) where that
    /// changes.
    pub(crate) fn count_users(&mut self) {
        let is_counting = self.limits.count_users();
        if is_counting == self.users.own.is_some() {
            return;
        }
        self.users.set_counting(is_counting);
        if !is_counting {
            return;
        }
        for key in self.sessions.keys() {
            let Some(session) = self.sessions.get(key) else {
                continue;
            };
            let user = session.principal.user.as_ref();
            self.users.take(user, Had::Session, None);
            for _ in 0..session.filters.len() {
                self.users.take(user, Had::Subscription, None);
            }
        }
    }

    /// Counts the Session that this CONNECT makes, if it will make one. Returns whether it has counted one.
    /// # Errors
    /// Its user has as many as it may have.
    pub(crate) fn reserve_session(&mut self, request: &ConnectRequest) -> Result<bool, ReasonCode> {
        if self.users.own.is_none() {
            return Ok(false);
        }
        let (connect, principal) = (&request.connect, &request.principal);
        let user = principal.user.as_ref();
        let found = self.sessions.find(&connect.client_id);
        let found = found.and_then(|key| self.sessions.get(key));
        let own = found.filter(|session| session.principal.user.as_ref() == user);
        let goes_on = |session: &Session| {
            let has_lived_on = session.link.is_none() || session.is_durable();
            let is_at_home = session.principal.mount_point == principal.mount_point;
            has_lived_on && is_at_home && !connect.clean_start
        };
        if own.is_some_and(goes_on) {
            return Ok(false);
        }
        // One that takes the place of another one of its user is not one more.
        let max = self.limits.sessions_per_user_max;
        let max = max.filter(|_| own.is_none());
        if self.users.take(user, Had::Session, max) {
            Ok(true)
        } else {
            Err(ReasonCode::QuotaExceeded)
        }
    }

    /// What has become of the Session that was counted or not: it is new, or was there.
    pub(crate) fn settle_reserved(&mut self, request: &ConnectRequest, reserved: bool, new: bool) {
        let user = request.principal.user.as_ref();
        match (reserved, new) {
            (true, false) => self.users.give(user, Had::Session),
            (false, true) => {
                self.users.take(user, Had::Session, None);
            }
            (true, true) | (false, false) => {}
        }
    }

    /// A Session that a restart has found.
    pub(crate) fn count_session(&mut self, session: SessionKey) {
        let session = self.sessions.get(session);
        let user = session.and_then(|session| session.principal.user.as_ref());
        self.users.take(user, Had::Session, None);
    }

    /// It has ended.
    pub(crate) fn discount_session(&mut self, session: &Session) {
        let user = session.principal.user.as_ref();
        self.users.give(user, Had::Session);
    }

    /// Whether the user of a Session may have one Subscription more, of `max`, which is counted then.
    pub(crate) fn take_subscription(&mut self, session: SessionKey, max: Option<usize>) -> bool {
        let session = self.sessions.get(session);
        let user = session.and_then(|session| session.principal.user.as_ref());
        self.users.take(user, Had::Subscription, max)
    }

    /// A Subscription of a Session is gone.
    pub(crate) fn give_subscription(&mut self, session: SessionKey) {
        let session = self.sessions.get(session);
        let user = session.and_then(|session| session.principal.user.as_ref());
        self.users.give(user, Had::Subscription);
    }
}

/// A user in the table that is shared: its name, its counts, their places.
const TOTAL_BYTES: usize = 192;

#[cfg(test)]
#[allow(
    clippy::disallowed_methods,
    reason = "what threads do to a total is what is tested"
)]
mod tests {
    use super::*;
    use crate::keys::keyed_state;

    fn users(totals: &Arc<UserTotals>, max: Option<usize>) -> Users {
        let limits = Limits {
            sessions_per_user_max: max,
            ..Limits::default()
        };
        Users::new(Arc::clone(totals), &limits, keyed_state(1))
    }

    /// Class M: engines in threads that take at once never have more than there may be, and what is left is nothing.
    #[test]
    fn engines_never_have_more_together_than_there_may_be() {
        let totals = Arc::<UserTotals>::default();
        let ann: Arc<str> = "ann".into();
        let engines = (0..4).map(|_| {
            let (mut users, ann) = (users(&totals, Some(10)), Arc::clone(&ann));
            std::thread::spawn(move || {
                let mut most = 0;
                for _ in 0..2_000 {
                    let taken = (0..6)
                        .filter(|_| users.take(Some(&ann), Had::Session, Some(10)))
                        .count();
                    most = most.max(users.totals.of("ann").0);
                    for _ in 0..taken {
                        users.give(Some(&ann), Had::Session);
                    }
                }
                most
            })
        });
        let engines: Vec<_> = engines.collect();
        for engine in engines {
            let most = engine.join().expect("no panic");
            assert!((1..=10).contains(&most), "{most}");
        }
        assert!(totals.is_empty(), "{totals:?}");
    }

    #[test]
    fn nothing_is_shared_where_no_such_limit_is_set() {
        let totals = Arc::<UserTotals>::default();
        let mut users = users(&totals, None);
        assert!(users.take(Some(&"ann".into()), Had::Subscription, None));
        assert!(totals.is_empty());
        users.give(Some(&"ann".into()), Had::Subscription);
        assert_eq!(users.table_bytes(), 0);
    }

    #[test]
    fn an_engine_that_ends_gives_back_its_own_part() {
        let totals = Arc::<UserTotals>::default();
        let ann: Arc<str> = "ann".into();
        let (mut one, mut other) = (users(&totals, Some(9)), users(&totals, Some(9)));
        for _ in 0..3 {
            assert!(one.take(Some(&ann), Had::Session, Some(9)));
            assert!(one.take(Some(&ann), Had::Subscription, None));
        }
        assert!(other.take(Some(&ann), Had::Session, Some(9)));
        assert_eq!(totals.of("ann"), (4, 3));
        drop(one);
        assert_eq!(totals.of("ann"), (1, 0));
        drop(other);
        assert_eq!(totals.len(), 0);
    }
}
