//! How fast one connection may publish and subscribe.
//!
//! Owns: [`Pace`]. Does not own: the limits (see `config`), that nothing is read (see `receive`). Start reading at
//! [`Pace::charge`]. Invariant: nothing is dropped for being too fast; what was read counts, and no more is read until it
//! is paid for.

use std::time::{Duration, Instant};

use proto::connection::Event;

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

/// What one connection has used up.
#[derive(Debug)]
pub(super) struct Pace {
    limits: PaceLimits,
    /// When what was charged is paid for: packets, bytes, filters.
    paid_at: [Instant; 3],
}

impl Pace {
    /// `None` where nothing is limited, so that it costs nothing.
    pub(super) fn new(limits: PaceLimits, now: Instant) -> Option<Self> {
        (limits != PaceLimits::default()).then_some(Self {
            limits,
            paid_at: [now; 3],
        })
    }

    /// A packet of `len` bytes has come. O(1).
    pub(super) fn charge(&mut self, event: &Event<'_>, len: usize, now: Instant) {
        let (publishes, bytes, filters) = match event {
            Event::Publish(_) => (1, len, 0),
            Event::Subscribe(subscribe) => (0, 0, subscribe.requests.len()),
            Event::Unsubscribe(unsubscribe) => (0, 0, unsubscribe.filters.len()),
            _ => return,
        };
        let PaceLimits {
            publishes: publishes_max,
            bytes: bytes_max,
            filters: filters_max,
        } = self.limits;
        let used = [
            (publishes, publishes_max),
            (bytes as u64, bytes_max),
            (filters as u64, filters_max),
        ];
        for (paid_at, (count, max)) in self.paid_at.iter_mut().zip(used) {
            let nanos = u128::from(count) * NANOS / u128::from(max.max(1));
            if max > 0 && count > 0 {
                let nanos = u64::try_from(nanos).unwrap_or(u64::MAX);
                let from = (*paid_at).max(now);
                *paid_at = from
                    .checked_add(Duration::from_nanos(nanos).min(AHEAD_MAX))
                    .unwrap_or(from);
            }
        }
    }

    /// Until when nothing is read, if it is too far ahead.
    pub(super) fn pause(&self, now: Instant) -> Option<Instant> {
        let paid_at = self.paid_at.into_iter().max()?;
        let is_ahead = paid_at.saturating_duration_since(now) > BURST;
        is_ahead.then(|| paid_at.checked_sub(BURST / 2).unwrap_or(paid_at))
    }
}

const NANOS: u128 = 1_000_000_000;
/// So far it may be ahead; half of it has to be paid for before it goes on.
const BURST: Duration = Duration::from_secs(1);
/// One packet is paid for in this time at most.
const AHEAD_MAX: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests {
    use proto::PacketIdentifier;
    use proto::packet::{Subscribe, SubscriptionOptions, SubscriptionRequest};

    use super::*;

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

    #[test]
    fn a_second_s_worth_is_read_at_once_and_the_rest_when_half_of_it_is_paid_for() {
        let now = Instant::now();
        let limits = PaceLimits {
            filters: 10,
            ..PaceLimits::default()
        };
        let mut pace = Pace::new(limits, now).expect("something is limited");
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
        assert!(Pace::new(PaceLimits::default(), Instant::now()).is_none());
    }
}
