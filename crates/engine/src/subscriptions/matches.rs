//! Who gets a message on one Topic Name.
//!
//! Owns: [`Matches`], its rows with overlapping Subscriptions merged. Does not own: the tree it is worked out from, how
//! long it is kept (see `cache`). Start reading at [`Matches`].
//! Invariant: rows ascend by [`SessionKey`], one per session.

use std::cell::Cell;
use std::ops::Deref;
use std::sync::Arc;

use proto::Qos;

use super::Subscription;
use super::cache::Stamp;
use super::interest::Held;
use crate::keys::{SessionKey, ShardSet};
use crate::shared_subscriptions::GroupKey;

/// Everyone who gets a message on one Topic Name.
#[derive(Debug, Default)]
pub(crate) struct Matches {
    topic: String,
    stamp: Stamp,
    is_kept: Cell<bool>,
    /// Sessions of this shard, ascending, each at most once.
    pub(crate) rows: Rows,
    /// Shared Subscriptions, ascending; each gets the message for one of its members.
    pub(crate) groups: Vec<GroupKey>,
    /// Other shards with at least one Non-shared Subscription that matches.
    pub(crate) remote: ShardSet,
    /// Of these, those of which some may have room.
    pub(crate) remote_free: ShardSet,
}

impl Matches {
    /// The Topic Name.
    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    /// When it was worked out.
    pub(super) const fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Whether the cache has it: else nobody says that it is old.
    pub(super) const fn is_kept(&self) -> bool {
        self.is_kept.get()
    }

    /// The cache takes it, or lets it go.
    pub(super) fn keep(&self, is_kept: bool) {
        self.is_kept.set(is_kept);
    }

    /// Whether nobody at all gets the message.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.groups.is_empty() && self.remote.is_empty()
    }

    /// Gives back what it has room for beyond what it holds.
    pub(super) fn shrink(&mut self) {
        self.topic.shrink_to_fit();
        self.rows.shrink();
        self.groups.shrink_to_fit();
    }

    /// Bytes it costs to keep, about.
    pub(super) fn memory_bytes(&self) -> usize {
        let identifiers: usize = self.rows.iter().map(MatchRow::identifier_bytes).sum();
        size_of::<Self>()
            + COUNTS_BYTES
            + self.topic.len()
            + self.rows.extra_bytes()
            + self.groups.len() * size_of::<GroupKey>()
            + identifiers
    }
}

/// Rows. Two have their place in the answer, as most answers have no more: what lies elsewhere is one more thing that may
/// have left the caches of the processor.
#[derive(Debug, Default)]
pub(crate) enum Rows {
    #[default]
    None,
    One([MatchRow; 1]),
    Two([MatchRow; 2]),
    Many(Vec<MatchRow>),
}

impl Deref for Rows {
    type Target = [MatchRow];

    fn deref(&self) -> &[MatchRow] {
        match self {
            Self::None => &[],
            Self::One(row) => row,
            Self::Two(rows) => rows,
            Self::Many(rows) => rows,
        }
    }
}

impl Rows {
    /// Others in the place of those that were there.
    fn refill(&mut self, mut rows: impl Iterator<Item = MatchRow>) {
        *self = match (rows.next(), rows.next(), rows.next()) {
            (None, ..) => Self::None,
            (Some(one), None, _) => Self::One([one]),
            (Some(one), Some(other), None) => Self::Two([one, other]),
            (Some(one), Some(other), Some(third)) => {
                let mut many = match std::mem::take(self) {
                    Self::Many(many) => many,
                    Self::None | Self::One(_) | Self::Two(_) => Vec::new(),
                };
                refill(&mut many, [one, other, third].into_iter().chain(rows));
                Self::Many(many)
            }
        };
    }

    fn shrink(&mut self) {
        if let Self::Many(rows) = self {
            rows.shrink_to_fit();
        }
    }

    /// Bytes beside its own place.
    fn extra_bytes(&self) -> usize {
        match self {
            Self::None | Self::One(_) | Self::Two(_) => 0,
            Self::Many(rows) => rows.len() * size_of::<MatchRow>(),
        }
    }
}

/// What one session gets: all its Subscriptions that match, merged into one delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MatchRow {
    subscription_identifiers: Option<Arc<[u32]>>,
    /// Only where `has_no_local`: what the Subscriptions without No Local grant, if there are any.
    for_publisher: Option<Box<OwnedGrant>>,
    /// Session.
    pub(crate) session: SessionKey,
    qos: Qos,
    retain_as_published: bool,
    has_no_local: bool,
}

impl MatchRow {
    /// What this session gets of a message that `publisher` (a session of this shard, if it is
    /// one) published; `None` if nothing. O(1).
    pub(crate) fn for_session(&self, publisher: Option<SessionKey>) -> Option<Grant<'_>> {
        // [MQTT-3.8.3-3] A message does not go back to its publisher by a No Local Subscription.
        if self.has_no_local && publisher == Some(self.session) {
            return self.for_publisher.as_deref().map(OwnedGrant::borrow);
        }
        Some(Grant {
            qos: self.qos,
            retain_as_published: self.retain_as_published,
            subscription_identifiers: self.subscription_identifiers.as_ref(),
        })
    }

    fn merge(session: SessionKey, subscriptions: &[(SessionKey, Subscription)]) -> Self {
        let all = OwnedGrant::merge(subscriptions.iter().map(|(_, subscription)| subscription));
        let has_no_local = subscriptions
            .iter()
            .any(|(_, subscription)| subscription.no_local);
        let mut others = subscriptions
            .iter()
            .map(|(_, subscription)| subscription)
            .filter(|subscription| !subscription.no_local)
            .peekable();
        let for_publisher =
            (has_no_local && others.peek().is_some()).then(|| Box::new(OwnedGrant::merge(others)));
        Self {
            session,
            qos: all.qos,
            retain_as_published: all.retain_as_published,
            subscription_identifiers: all.subscription_identifiers,
            for_publisher,
            has_no_local,
        }
    }

    fn identifier_bytes(&self) -> usize {
        let identifiers = self
            .subscription_identifiers
            .as_ref()
            .map_or(0, |all| all.len());
        identifiers * size_of::<u32>()
    }
}

/// How a message goes to one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant<'a> {
    /// Maximum QoS over all matching Subscriptions.
    pub(crate) qos: Qos,
    /// Whether any of them has Retain As Published.
    pub(crate) retain_as_published: bool,
    /// Their Subscription Identifiers, if any has one.
    pub(crate) subscription_identifiers: Option<&'a Arc<[u32]>>,
}

/// Collects the interests that match one Topic Name.
#[derive(Debug, Default)]
pub(super) struct Collector {
    subscriptions: Vec<(SessionKey, Subscription)>,
    groups: Vec<GroupKey>,
    remote: ShardSet,
    remote_free: ShardSet,
}

impl Collector {
    /// Subscriptions and groups collected.
    pub(super) fn len(&self) -> usize {
        self.subscriptions.len() + self.groups.len()
    }

    pub(super) fn add(&mut self, held: Held<'_>) {
        match held {
            Held::Nobody => {}
            Held::One(session, subscription) => self.subscriptions.push((session, subscription)),
            Held::Shard(shard) => {
                self.remote.insert(shard);
                self.remote_free.insert(shard);
            }
            Held::More(interest) => {
                self.subscriptions.extend(interest.sessions.iter());
                self.groups.extend_from_slice(interest.groups());
                self.remote = self.remote.union(interest.remote);
                let free = interest.remote.without(interest.full());
                self.remote_free = self.remote_free.union(free);
            }
        }
    }

    /// Makes of `matches` what was collected, of the sessions only those for which `may_receive` says so. Nothing is
    /// collected then.
    pub(super) fn finish(
        &mut self,
        topic: &str,
        stamp: Stamp,
        may_receive: impl Fn(SessionKey, &str) -> bool,
        matches: &mut Matches,
    ) {
        // Each interest came in order: a stable sort merges those runs.
        self.subscriptions.sort_by_key(|&(session, _)| session);
        self.groups.sort_unstable();
        self.groups.dedup();
        let rows = self
            .subscriptions
            .chunk_by(|(left, _), (right, _)| left == right)
            .filter_map(|of_one| Some((of_one.first()?.0, of_one)))
            .filter(|(session, _)| may_receive(*session, topic))
            .map(|(session, of_one)| MatchRow::merge(session, of_one));
        matches.rows.refill(rows);
        refill(&mut matches.groups, self.groups.iter().copied());
        self.subscriptions.clear();
        // What a crowd has left behind.
        self.subscriptions.shrink_to(COLLECTED_KEPT);
        self.groups.clear();
        matches.topic.clear();
        matches.topic.push_str(topic);
        matches.stamp = stamp;
        matches.is_kept.set(false);
        matches.remote = std::mem::take(&mut self.remote);
        matches.remote_free = std::mem::take(&mut self.remote_free);
    }
}

/// Puts others into the memory of what was there.
fn refill<T>(all: &mut Vec<T>, others: impl Iterator<Item = T>) {
    all.clear();
    all.shrink_to(COLLECTED_KEPT);
    all.extend(others);
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct OwnedGrant {
    qos: Qos,
    retain_as_published: bool,
    subscription_identifiers: Option<Arc<[u32]>>,
}

impl OwnedGrant {
    fn merge<'a>(subscriptions: impl Iterator<Item = &'a Subscription>) -> Self {
        let mut grant = Self {
            qos: Qos::AtMostOnce,
            retain_as_published: false,
            subscription_identifiers: None,
        };
        let mut identifiers = Vec::new();
        for subscription in subscriptions {
            // [MQTT-3.3.4-2] [v3.1.1 MQTT-3.3.5-1] The maximum QoS of all that match.
            grant.qos = grant.qos.max(subscription.qos);
            grant.retain_as_published |= subscription.retain_as_published;
            // [MQTT-3.3.4-3] [MQTT-3.3.4-4] All of them; one used twice is sent twice (3.3.4).
            identifiers.extend(subscription.subscription_identifier);
        }
        grant.subscription_identifiers = (!identifiers.is_empty()).then(|| identifiers.into());
        grant
    }

    const fn borrow(&self) -> Grant<'_> {
        Grant {
            qos: self.qos,
            retain_as_published: self.retain_as_published,
            subscription_identifiers: self.subscription_identifiers.as_ref(),
        }
    }
}

/// The counts of an `Rc`.
const COUNTS_BYTES: usize = 16;
/// So many places of collected Subscriptions are kept for the next time.
const COLLECTED_KEPT: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_last_ones_given_however_many_there_were_before() {
        let row = |session| MatchRow::merge(SessionKey(session), &[]);
        let mut rows = Rows::default();
        for count in [3, 0, 2, 5, 1, 4, 3] {
            rows.refill((0..count).map(row));
            let given: Vec<_> = (0..count).map(row).collect();
            assert_eq!(*rows, *given);
            let has_own_place = rows.extra_bytes() == 0;
            assert_eq!(has_own_place, count <= 2);
            rows.shrink();
            assert_eq!(*rows, *given);
        }
    }
}
