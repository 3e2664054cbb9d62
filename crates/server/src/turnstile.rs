//! Who comes in now: how many at once from one address or of one user, and how fast.
//!
//! Owns: [`Turnstile`], the seats that connections hold, what those are told who are put off. Does not own: the limits (see
//! `config`), who is let in at all (see `crate::authentication`), who comes too often (its bans). Start reading at
//! [`Turnstile::pass`]. Invariants: a seat is given back when its connection is dropped, whatever ends it; what peers can
//! make grow here is bounded by connections, or by a number.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use proto::connection::ConnectionError;
use proto::packet::ReasonCode;

use crate::config::ServerBounds;
use crate::peer::Origin;

/// Counts who comes in, for all shards.
#[derive(Debug)]
pub(crate) struct Turnstile {
    began: Instant,
    limits: RwLock<CrowdLimits>,
    /// All who connect.
    all: Rate,
    /// Those who connect beyond that, and whose Session is there.
    known: Rate,
    /// The same of each listener.
    listeners: Box<[Rate]>,
    addresses: Rates<Origin>,
    users: Rates<Arc<str>>,
    seats: Seats,
    /// No two are told the same time to come again.
    jitter: RandomState,
    put_off: AtomicU64,
    /// Clients refused because there are as many connections as there may be.
    pub(crate) over_connections: AtomicU64,
    over_address: AtomicU64,
    over_user: AtomicU64,
    /// How often a publisher was not read because of its rate.
    pub(crate) paused: AtomicU64,
}

/// What [`ServerBounds`] says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CrowdLimits {
    connections_per_address_max: u32,
    connections_per_user_max: u32,
    connect_rate_max: u32,
    connect_rate_per_address_max: u32,
    connect_rate_per_user_max: u32,
}

impl From<&ServerBounds> for CrowdLimits {
    fn from(bounds: &ServerBounds) -> Self {
        Self {
            connections_per_address_max: bounds.connections_per_address_max,
            connections_per_user_max: bounds.connections_per_user_max,
            connect_rate_max: bounds.connect_rate_max,
            connect_rate_per_address_max: bounds.connect_rate_per_address_max,
            connect_rate_per_user_max: bounds.connect_rate_per_user_max,
        }
    }
}

/// Whether a CONNECT is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// It is.
    Yes,
    /// It is, but counts only if its Session is there.
    IfKnown,
    /// Not now.
    No,
}

impl Turnstile {
    pub(crate) fn new(limits: CrowdLimits, listener_count: usize, began: Instant) -> Self {
        Self {
            began,
            limits: RwLock::new(limits),
            all: Rate::default(),
            known: Rate::default(),
            listeners: (0..listener_count).map(|_| Rate::default()).collect(),
            addresses: Rates::default(),
            users: Rates::default(),
            seats: Seats::default(),
            jitter: RandomState::new(),
            put_off: AtomicU64::new(0),
            over_connections: AtomicU64::new(0),
            over_address: AtomicU64::new(0),
            over_user: AtomicU64::new(0),
            paused: AtomicU64::new(0),
        }
    }

    fn limits(&self) -> CrowdLimits {
        *self.limits.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Other limits count from now on, see also [`Self::seat_again`].
    pub(crate) fn set_limits(&self, limits: CrowdLimits) {
        *self.limits.write().unwrap_or_else(PoisonError::into_inner) = limits;
    }

    /// Counts a connection that came when there was no limit, if there is one now. It stays in any case.
    pub(crate) fn seat_again(
        &self,
        seat: Option<Box<Seat>>,
        origin: Origin,
        user: Option<&Arc<str>>,
    ) -> Option<Box<Seat>> {
        let limits = self.limits();
        let mut seat = seat.unwrap_or_else(|| Box::new(self.unoccupied()));
        let [of_address, of_user] = &mut seat.places;
        let mut taken = lock(&self.seats.0);
        let mut take = |place: Place| {
            *taken.entry(place.clone()).or_default() += 1;
            place
        };
        if limits.connections_per_address_max > 0 && of_address.is_none() {
            *of_address = Some(take(Place::Address(origin.block())));
        }
        if let Some(user) = user.filter(|_| limits.connections_per_user_max > 0)
            && of_user.is_none()
        {
            *of_user = Some(take(Place::User(Arc::clone(user))));
        }
        drop(taken);
        seat.is_counted().then_some(seat)
    }

    fn unoccupied(&self) -> Seat {
        Seat {
            seats: Seats(Arc::clone(&self.seats.0)),
            places: [None, None],
        }
    }

    /// A CONNECT has come by a `listener` that takes so many a second, from an `origin`, and has waited for so long
    /// because others were served. O(1).
    pub(crate) fn pass(
        &self,
        (listener, listener_max): (u16, u32),
        origin: Origin,
        waited: Duration,
        now: Instant,
    ) -> Passed {
        let at = self.at(now);
        let limits = self.limits();
        let max = limits.connect_rate_per_address_max;
        if !self.addresses.take(&origin.block(), max, at) {
            return Passed::No;
        }
        let listener = self.listeners.get(usize::from(listener));
        if !listener.is_none_or(|rate| rate.take(listener_max, at)) {
            return Passed::No;
        }
        let max = limits.connect_rate_max;
        if self.all.take(max, at) {
            return if waited < WAITED_MAX {
                Passed::Yes
            } else {
                Passed::IfKnown
            };
        }
        if self.known.has_room(max, at) {
            Passed::IfKnown
        } else {
            Passed::No
        }
    }

    /// One that had to be known is known. Whether it is let in.
    pub(crate) fn pass_known(&self, now: Instant) -> bool {
        let max = self.limits().connect_rate_max;
        self.known.take(max, self.at(now))
    }

    /// One of `user` has logged in. Whether that is not ahead of its rate.
    pub(crate) fn pass_user(&self, user: &Arc<str>, now: Instant) -> bool {
        let max = self.limits().connect_rate_per_user_max;
        self.users.take(user, max, self.at(now))
    }

    /// Gives a seat to a connection of `origin` and `user`, if any are counted. One that `takes_over` has room: the one
    /// before it leaves.
    /// # Errors
    /// There is none.
    pub(crate) fn sit(
        &self,
        origin: Origin,
        user: Option<&Arc<str>>,
        takes_over: bool,
    ) -> Result<Option<Box<Seat>>, ConnectionError> {
        let mut seat = self.unoccupied();
        let limits = self.limits();
        let per_address = limits.connections_per_address_max;
        let per_user = limits.connections_per_user_max;
        let [of_address, of_user] = &mut seat.places;
        let mut taken = lock(&self.seats.0);
        let mut take = |place: Place, max: u32| {
            let count = taken.entry(place.clone()).or_default();
            if *count >= max && !takes_over {
                return None;
            }
            *count += 1;
            Some(place)
        };
        let mut refused = None;
        if per_address > 0 {
            *of_address = take(Place::Address(origin.block()), per_address);
            if of_address.is_none() {
                self.over_address.fetch_add(1, Ordering::Relaxed);
                refused = Some("limit of connections of this address reached");
            }
        }
        if let Some(user) = user.filter(|_| per_user > 0 && refused.is_none()) {
            *of_user = take(Place::User(Arc::clone(user)), per_user);
            if of_user.is_none() {
                self.over_user.fetch_add(1, Ordering::Relaxed);
                refused = Some("limit of connections of this user reached");
            }
        }
        drop(taken);
        match refused {
            None if seat.is_counted() => Ok(Some(Box::new(seat))),
            None => Ok(None),
            Some(text) => Err(ConnectionError::refused(ReasonCode::QuotaExceeded, text)),
        }
    }

    /// What one is told who is put off: when to come again, at another time than all the others.
    pub(crate) fn put_off(&self) -> ConnectionError {
        let number = self.put_off.fetch_add(1, Ordering::Relaxed);
        let spread = self.jitter.hash_one(number) % (AGAIN_MAX_SECONDS - AGAIN_MIN_SECONDS + 1);
        let seconds = AGAIN_MIN_SECONDS + spread;
        let text = format!("too many connect at once: try again in {seconds} s");
        ConnectionError::refused(ReasonCode::ServerBusy, text)
    }

    /// What it has refused so far, for `$SYS`.
    pub(crate) fn topics(&self) -> Vec<(&'static str, String)> {
        let counts = [
            ("limits/connections/refused", &self.over_connections),
            ("limits/connections/address/refused", &self.over_address),
            ("limits/connections/user/refused", &self.over_user),
            ("limits/connects/put_off", &self.put_off),
            ("limits/publish/paused", &self.paused),
        ];
        let shown = counts.map(|(name, count)| (name, count.load(Ordering::Relaxed).to_string()));
        shown.to_vec()
    }

    /// Nanoseconds since it began, as rates count.
    fn at(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.began);
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX / 2)
    }
}

/// A rate that many threads ask.
#[derive(Debug, Default)]
struct Rate {
    free_at: AtomicU64,
    is_ahead: AtomicBool,
}

impl Rate {
    /// Takes one of `per_second`, of which there are a second's worth at once; 0 is no limit.
    fn take(&self, per_second: u32, at: u64) -> bool {
        let mut is_ahead = self.is_ahead.load(Ordering::Relaxed);
        let taken = self
            .free_at
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |free_at| {
                let mut pace = Pace { free_at, is_ahead };
                let is_taken = pace.take(per_second, at);
                is_ahead = pace.is_ahead;
                is_taken.then_some(pace.free_at)
            });
        self.is_ahead.store(is_ahead, Ordering::Relaxed);
        taken.is_ok()
    }

    fn has_room(&self, per_second: u32, at: u64) -> bool {
        let mut pace = Pace {
            free_at: self.free_at.load(Ordering::Relaxed),
            is_ahead: self.is_ahead.load(Ordering::Relaxed),
        };
        pace.take(per_second, at)
    }
}

/// A rate of each of many.
#[derive(Debug)]
struct Rates<K>(Mutex<HashMap<K, Pace>>);

impl<K> Default for Rates<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Clone + Eq + Hash> Rates<K> {
    /// Takes one of `per_second` of `who`; 0 is no limit.
    fn take(&self, who: &K, per_second: u32, at: u64) -> bool {
        if per_second == 0 {
            return true;
        }
        let mut paces = lock(&self.0);
        if let Some(pace) = paces.get_mut(who) {
            return pace.take(per_second, at);
        }
        if paces.len() >= RATES_MAX {
            paces.retain(|_, pace| pace.free_at > at);
            // So many are not one peer, and the limits on all hold.
            if paces.len() >= RATES_MAX {
                return true;
            }
        }
        paces.entry(who.clone()).or_default().take(per_second, at)
    }
}

/// How far a rate is ahead, in nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    /// When nothing of it is used up any more.
    free_at: u64,
    /// It has run ahead by a second's worth, and takes no more before half of that is over.
    is_ahead: bool,
}

impl Pace {
    fn take(&mut self, per_second: u32, at: u64) -> bool {
        let Some(each) = NANOS.checked_div(u64::from(per_second)) else {
            return true;
        };
        let free_at = self.free_at.max(at).saturating_add(each);
        // One alone is never too many.
        let most = if self.is_ahead { NANOS / 2 } else { NANOS }.max(each);
        self.is_ahead = free_at - at > most;
        if !self.is_ahead {
            self.free_at = free_at;
        }
        !self.is_ahead
    }
}

/// What is counted together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Place {
    Address(Origin),
    User(Arc<str>),
}

#[derive(Clone, Debug, Default)]
struct Seats(Arc<Mutex<HashMap<Place, u32>>>);

/// That a connection is counted; until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Seats,
    places: [Option<Place>; 2],
}

impl Seat {
    fn is_counted(&self) -> bool {
        self.places.iter().any(Option::is_some)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if !self.is_counted() {
            return;
        }
        let mut seats = lock(&self.seats.0);
        for place in self.places.iter().flatten() {
            if let Some(count) = seats.get_mut(place) {
                *count = count.saturating_sub(1);
                if *count == 0 {
                    seats.remove(place);
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const NANOS: u64 = 1_000_000_000;
/// A CONNECT that had to wait for so long because of others has to be of a Client that is known: the Server is behind.
const WAITED_MAX: Duration = Duration::from_secs(2);
/// So many addresses, and as many users, have a rate of their own at once.
const RATES_MAX: usize = 65_536;
/// Who is put off is to come again after so many seconds at least, and at most.
const AGAIN_MIN_SECONDS: u64 = 2;
const AGAIN_MAX_SECONDS: u64 = 30;

#[cfg(test)]
mod tests {
    use super::*;

    fn turnstile(limits: CrowdLimits) -> (Turnstile, Instant) {
        let began = Instant::now();
        (Turnstile::new(limits, 2, began), began)
    }

    const NONE: CrowdLimits = CrowdLimits {
        connections_per_address_max: 0,
        connections_per_user_max: 0,
        connect_rate_max: 0,
        connect_rate_per_address_max: 0,
        connect_rate_per_user_max: 0,
    };

    fn origin(last: u8) -> Origin {
        Origin::Address([192, 0, 2, last].into())
    }

    /// How many of a hundred CONNECTs at one moment pass.
    fn burst(turnstile: &Turnstile, listener: (u16, u32), last: u8, now: Instant) -> usize {
        let pass =
            |_: &u32| turnstile.pass(listener, origin(last), Duration::ZERO, now) == Passed::Yes;
        (0..100).filter(pass).count()
    }

    #[test]
    fn a_rate_lets_a_second_s_worth_in_at_once_and_goes_on_when_half_of_it_is_over() {
        let (turnstile, began) = turnstile(CrowdLimits {
            connect_rate_max: 10,
            ..NONE
        });
        let at = |millis| began + Duration::from_millis(millis);
        assert_eq!(burst(&turnstile, (0, 0), 1, at(0)), 10);
        assert_eq!(burst(&turnstile, (0, 0), 1, at(300)), 0, "hysteresis");
        assert_eq!(burst(&turnstile, (0, 0), 1, at(700)), 7);
        assert_eq!(burst(&turnstile, (0, 0), 1, at(5000)), 10);
    }

    #[test]
    fn listeners_and_addresses_have_rates_of_their_own() {
        let (turnstile, now) = turnstile(CrowdLimits {
            connect_rate_per_address_max: 20,
            ..NONE
        });
        assert_eq!(burst(&turnstile, (0, 7), 1, now), 7);
        assert_eq!(burst(&turnstile, (1, 0), 2, now), 20);
        assert_eq!(burst(&turnstile, (1, 0), 3, now), 20);
        // Even one in a long time is a rate.
        assert_eq!(
            burst(&turnstile, (0, 1), 4, now + Duration::from_secs(9)),
            1
        );
    }

    #[test]
    fn users_have_rates_of_their_own() {
        let (turnstile, now) = turnstile(CrowdLimits {
            connect_rate_per_user_max: 3,
            ..NONE
        });
        let [anna, otto] = ["anna", "otto"].map(Arc::<str>::from);
        let burst = |user, now| (0..9).filter(|_| turnstile.pass_user(user, now)).count();
        assert_eq!(burst(&anna, now), 3);
        assert_eq!(burst(&otto, now), 3);
        assert_eq!(burst(&anna, now + Duration::from_secs(9)), 3);
    }

    #[test]
    fn known_sessions_have_as_much_again_and_all_others_are_put_off() {
        let (turnstile, now) = turnstile(CrowdLimits {
            connect_rate_max: 10,
            ..NONE
        });
        assert_eq!(burst(&turnstile, (0, 0), 1, now), 10);
        let pass = || turnstile.pass((0, 0), origin(1), Duration::ZERO, now);
        for _ in 0..10 {
            assert_eq!(pass(), Passed::IfKnown);
            assert!(turnstile.pass_known(now));
        }
        assert_eq!(pass(), Passed::No);
        assert!(!turnstile.pass_known(now));
    }

    #[test]
    fn who_had_to_wait_for_long_has_to_be_known() {
        let (turnstile, now) = turnstile(NONE);
        let pass = |waited| turnstile.pass((0, 0), origin(1), waited, now);
        assert_eq!(pass(Duration::from_millis(1999)), Passed::Yes);
        assert_eq!(pass(Duration::from_secs(2)), Passed::IfKnown);
        assert!(turnstile.pass_known(now));
    }

    #[test]
    fn seats_are_given_back_and_a_take_over_has_room() {
        let (turnstile, _) = turnstile(CrowdLimits {
            connections_per_address_max: 3,
            connections_per_user_max: 2,
            ..NONE
        });
        let anna: Arc<str> = "anna".into();
        let sit = |last, takes_over| turnstile.sit(origin(last), Some(&anna), takes_over);
        let first = sit(1, false).expect("a seat");
        let second = sit(1, false).expect("a seat");
        assert!(sit(1, false).is_err(), "the user has no more");
        assert!(turnstile.sit(origin(1), None, false).is_ok());
        let again = sit(1, true).expect("the one before it leaves");
        drop(first);
        assert!(sit(2, false).is_err());
        drop((second, again));
        assert!(lock(&turnstile.seats.0).is_empty());
        assert!(sit(2, false).is_ok());
        let shown = turnstile.topics();
        assert_eq!(
            shown[2],
            ("limits/connections/user/refused", "2".to_owned())
        );
    }

    /// Class M: whatever addresses come, what is kept of them stays bounded, and nobody is shut out by that.
    #[test]
    fn addresses_are_bounded() {
        let (turnstile, now) = turnstile(CrowdLimits {
            connect_rate_per_address_max: 1,
            ..NONE
        });
        for number in 0..70_000_u32 {
            let origin = Origin::Address(std::net::IpAddr::from(number.to_be_bytes()));
            assert_eq!(
                turnstile.pass((0, 0), origin, Duration::ZERO, now),
                Passed::Yes
            );
        }
        assert!(lock(&turnstile.addresses.0).len() <= RATES_MAX);
    }

    #[test]
    fn who_is_put_off_hears_when_to_come_again() {
        let (turnstile, _) = turnstile(NONE);
        let texts: std::collections::BTreeSet<String> =
            (0..100).map(|_| turnstile.put_off().to_string()).collect();
        assert!(texts.len() > 10, "{texts:?}");
        let seconds = texts.iter().filter_map(|text| {
            let (_, rest) = text.split_once("again in ")?;
            rest.strip_suffix(" s")?.parse::<u64>().ok()
        });
        let seconds: Vec<u64> = seconds.collect();
        assert_eq!(seconds.len(), texts.len());
        assert!(seconds.iter().all(|seconds| (2..=30).contains(seconds)));
    }
}
