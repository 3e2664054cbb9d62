//! How fast one connection may publish and subscribe.
//!
//! Owns: [`Pace`]. Does not own: the limits (see `config`), what is used up together with others (see `common_pace`), that
//! nothing is read (see `receive`). Start reading at [`Pace::charge`]. Invariant: nothing is dropped for being too fast;
//! what was read counts, and no more is read until it is paid for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::connection::Event;

use crate::common_pace::{CommonPace, nanos_since, repriced};
use crate::config::{Rates, ServerBounds};

/// Limits a second; 0 is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PaceLimits {
    /// PUBLISH packets.
    pub(crate) publishes: u64,
    /// Bytes of these.
    pub(crate) bytes: u64,
    /// Topic Filters of SUBSCRIBE and UNSUBSCRIBE.
    pub(crate) filters: u64,
}

/// What a connection may say alone, and what it may say together with others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PacesLimits {
    pub(crate) own: PaceLimits,
    pub(crate) of_user: PaceLimits,
    pub(crate) of_all: PaceLimits,
}

/// What one connection has used up.
#[derive(Debug)]
pub(super) struct Pace {
    /// From when time is counted.
    began: Instant,
    limits: PaceLimits,
    /// When what was charged is paid for: packets, bytes, filters.
    paid_at: [u64; 3],
    /// What it shares with other connections.
    shares: Vec<Share>,
}

/// What a connection has of a rate that is not its own.
#[derive(Debug)]
struct Share {
    limits: PaceLimits,
    of: Arc<CommonPace>,
    /// What this connection has used of it since it last had to wait.
    used: u64,
}

impl PaceLimits {
    const NONE: Self = Self {
        publishes: 0,
        bytes: 0,
        filters: 0,
    };

    /// In this order: packets, bytes, filters.
    pub(crate) const fn rates(&self) -> [u64; 3] {
        let Self {
            publishes,
            bytes,
            filters,
        } = *self;
        [publishes, bytes, filters]
    }

    pub(super) fn is_none(&self) -> bool {
        *self == Self::NONE
    }

    /// How long it takes to pay for so many of each, in nanoseconds.
    fn nanos(&self, counts: [u64; 3]) -> [u64; 3] {
        let mut nanos = counts;
        for (count, max) in nanos.iter_mut().zip(self.rates()) {
            let each = u128::from(*count) * NANOS;
            let all = each.checked_div(u128::from(max)).unwrap_or(0);
            *count = u64::try_from(all).unwrap_or(u64::MAX).min(AHEAD_MAX);
        }
        nanos
    }
}

impl From<&Rates> for PaceLimits {
    fn from(rates: &Rates) -> Self {
        Self {
            publishes: rates.publishes.into(),
            bytes: rates.publish_bytes as u64,
            filters: rates.filters.into(),
        }
    }
}

impl From<&ServerBounds> for PacesLimits {
    fn from(bounds: &ServerBounds) -> Self {
        Self {
            own: PaceLimits {
                publishes: bounds.publish_rate_max.into(),
                bytes: bounds.publish_bytes_rate_max as u64,
                filters: bounds.subscribe_rate_max.into(),
            },
            of_user: (&bounds.rates_per_user).into(),
            of_all: (&bounds.rates_total).into(),
        }
    }
}

impl Pace {
    /// Of a connection that has these rates in common with others, each with its limits. `None` where nothing is limited,
    /// so that it costs nothing.
    pub(super) fn new(
        limits: PaceLimits,
        common: impl IntoIterator<Item = (PaceLimits, Arc<CommonPace>)>,
        began: Instant,
    ) -> Option<Self> {
        let shares = common.into_iter().filter(|(limits, _)| !limits.is_none());
        let shares: Vec<Share> = shares
            .map(|(limits, of)| Share {
                limits,
                of,
                used: 0,
            })
            .collect();
        (!limits.is_none() || !shares.is_empty()).then_some(Self {
            began,
            limits,
            paid_at: [0; 3],
            shares,
        })
    }

    /// A packet of `len` bytes has come. O(1).
    pub(super) fn charge(&mut self, event: &Event<'_>, len: usize, now: Instant) {
        let counts = match event {
            Event::Publish(_) => [1, len as u64, 0],
            Event::Subscribe(subscribe) => [0, 0, subscribe.requests.len() as u64],
            Event::Unsubscribe(unsubscribe) => [0, 0, unsubscribe.filters.len() as u64],
            _ => return,
        };
        let at = nanos_since(self.began, now);
        for (paid_at, nanos) in self.paid_at.iter_mut().zip(self.limits.nanos(counts)) {
            if nanos > 0 {
                *paid_at = at.max(*paid_at).saturating_add(nanos);
            }
        }
        for share in &mut self.shares {
            let nanos = share.limits.nanos(counts);
            share.of.charge(nanos, at);
            let most = nanos.into_iter().max().unwrap_or(0);
            share.used = share.used.saturating_add(most);
        }
    }

    /// Until when nothing is read, if it is too far ahead.
    pub(super) fn pause(&self, now: Instant) -> Option<Instant> {
        let at = nanos_since(self.began, now);
        let own = self.paid_at.into_iter().max().unwrap_or(0);
        let own = (own.saturating_sub(at) > BURST).then_some(own);
        let shared = self.shares.iter().filter_map(|share| share.paid_at(at));
        let paid_at = own.into_iter().chain(shared).max()?;
        let until = paid_at.saturating_sub(BURST / 2).max(at);
        self.began.checked_add(Duration::from_nanos(until))
    }

    /// The same with what the connection has used up `before`, by other limits. It is paid for by these, if that is sooner.
    pub(super) fn after(mut self, before: Option<Self>, now: Instant) -> Self {
        let Some(before) = before else {
            return self;
        };
        let at = nanos_since(self.began, now);
        let rates = before.limits.rates().into_iter().zip(self.limits.rates());
        let used = before.paid_at.into_iter().zip(rates);
        for (paid_at, (before, rates)) in self.paid_at.iter_mut().zip(used) {
            *paid_at = repriced(before, rates, at);
        }
        self
    }

    /// It has to wait now, and has its share again afterwards.
    pub(super) fn waits(&mut self) {
        for share in &mut self.shares {
            share.used = 0;
        }
    }
}

impl Share {
    /// When all is paid for of a rate that is ahead, if it is the others' turn.
    fn paid_at(&self, at: u64) -> Option<u64> {
        let paid_at = self.of.paid_at();
        let ahead = paid_at.saturating_sub(at);
        // However far the others are ahead, each says something in its turn.
        let is_over = self.used > 0 && (ahead > BURST || ahead > BURST / 2 && self.is_used_up());
        is_over.then_some(paid_at)
    }

    /// Whether it has had as much as there is for each of those who wait together.
    fn is_used_up(&self) -> bool {
        let sharers = self.of.sharers().max(1) as u64;
        sharers > 1 && self.used >= BURST / 2 / sharers
    }
}

const NANOS: u128 = 1_000_000_000;
/// So far it may be ahead, in nanoseconds; half of it has to be paid for before it goes on.
const BURST: u64 = 1_000_000_000;
/// One packet is paid for in this time at most.
const AHEAD_MAX: u64 = 3600 * BURST;

#[cfg(test)]
mod tests {
    use proto::PacketIdentifier;
    use proto::packet::{Subscribe, SubscriptionOptions, SubscriptionRequest};

    use super::*;
    use crate::common_pace::CommonPaces;

    fn subscribe(count: usize) -> Event<'static> {
        let request = SubscriptionRequest {
            filter: "a",
            options: SubscriptionOptions::default(),
        };
        Event::Subscribe(Subscribe {
            packet_id: PacketIdentifier::new(1).expect("not zero"),
            subscription_identifier: None,
            user_properties: Vec::new(),
            requests: vec![request; count],
        })
    }

    fn filters(filters: u64) -> PaceLimits {
        PaceLimits {
            filters,
            ..PaceLimits::NONE
        }
    }

    #[test]
    fn a_second_s_worth_is_read_at_once_and_the_rest_when_half_of_it_is_paid_for() {
        let now = Instant::now();
        let mut pace = Pace::new(filters(10), [], now).expect("something is limited");
        pace.charge(&subscribe(10), 0, now);
        assert_eq!(pace.pause(now), None);
        pace.charge(&subscribe(1), 0, now);
        assert_eq!(pace.pause(now), Some(now + Duration::from_millis(600)));
        let later = now + Duration::from_millis(600);
        assert_eq!(pace.pause(later), None);
        // Other packets cost nothing.
        pace.charge(&Event::PingReq, 2, later);
        assert_eq!(pace.pause(later), None);
        pace.charge(&subscribe(1_000_000), 0, later);
        let until = pace.pause(later).expect("far ahead");
        assert!(until < later + Duration::from_secs(3601), "not for ever");
    }

    #[test]
    fn what_is_not_limited_costs_nothing() {
        let now = Instant::now();
        let common = [(PaceLimits::NONE, Arc::default())];
        assert!(Pace::new(PaceLimits::NONE, common, now).is_none());
    }

    /// Says one thing after the other until it has to wait; how many, and until when.
    fn burst(pace: &mut Pace, now: Instant) -> (usize, Instant) {
        let mut count = 0;
        loop {
            if let Some(until) = pace.pause(now) {
                pace.waits();
                return (count, until);
            }
            pace.charge(&subscribe(1), 0, now);
            count += 1;
        }
    }

    #[test]
    fn connections_that_share_a_rate_keep_it_together_and_each_has_its_share() {
        let now = Instant::now();
        let paces = CommonPaces::new(now);
        let pace = || {
            let common = [(filters(100), Arc::clone(&paces.of_all))];
            Pace::new(PaceLimits::NONE, common, now).expect("something is limited")
        };
        let mut all = [pace(), pace(), pace(), pace()];
        let mut said = [0; 4];
        let mut waits: [Option<Instant>; 4] = [None; 4];
        for millis in (0..20_000).step_by(50) {
            let now = now + Duration::from_millis(millis);
            for ((pace, said), until) in all.iter_mut().zip(&mut said).zip(&mut waits) {
                if until.is_none_or(|until| until <= now) {
                    let (count, waits_until) = burst(pace, now);
                    *said += count;
                    *until = Some(waits_until);
                }
            }
        }
        let sum: usize = said.iter().sum();
        assert!((1900..=2150).contains(&sum), "{said:?}");
        assert!(said.iter().all(|said| *said > 400), "{said:?}");
    }

    #[test]
    fn one_that_says_little_waits_for_its_turn_only() {
        let now = Instant::now();
        let paces = CommonPaces::new(now);
        let pace = || {
            let common = [(filters(10), Arc::clone(&paces.of_all))];
            Pace::new(PaceLimits::NONE, common, now).expect("something is limited")
        };
        let (mut loud, mut quiet) = (pace(), pace());
        loud.charge(&subscribe(500), 0, now);
        assert!(loud.pause(now).is_some());
        assert_eq!(quiet.pause(now), None);
        assert_eq!(burst(&mut quiet, now).0, 1);
    }
}
