//! Who gets a message on one Topic Name: worked out once, kept until a change could change it.
//!
//! Owns: [`Matches`], its rows with overlapping Subscriptions merged, the cache by Topic Name.
//! Does not own: the tree it is worked out from. Start reading at [`Matches`].
//! Invariants: rows ascend by [`SessionKey`], one per session; a `Matches` outside the cache is
//! not current; the cache never holds more than [`CACHED_TOPICS_MAX`] and [`CACHED_BYTES_MAX`],
//! except one single entry larger than that.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::hash::BuildHasher;
use std::ops::Bound;
use std::rc::{Rc, Weak};
use std::sync::Arc;

use hashbrown::HashMap;
use proto::Qos;

use super::Subscription;
use super::trie::Interest;
use crate::keys::{KeyedState, SessionKey, ShardSet};
use crate::sessions::map_bytes;
use crate::shared_subscriptions::GroupKey;

/// Everyone who gets a message on one Topic Name.
#[derive(Debug)]
pub(crate) struct Matches {
    topic: Rc<str>,
    is_current: Cell<bool>,
    /// Sessions of this shard, ascending, each at most once.
    pub(crate) rows: Vec<MatchRow>,
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

    /// Whether it still tells the truth: no change since could have changed it. O(1).
    pub(crate) fn is_current(&self) -> bool {
        self.is_current.get()
    }

    /// Whether nobody at all gets the message.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.groups.is_empty() && self.remote.is_empty()
    }

    /// Bytes it costs to keep, about.
    fn memory_bytes(&self) -> usize {
        let identifiers: usize = self.rows.iter().map(MatchRow::identifier_bytes).sum();
        size_of::<Self>()
            + 2 * self.topic.len()
            + self.rows.len() * size_of::<MatchRow>()
            + self.groups.len() * size_of::<GroupKey>()
            + identifiers
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

/// A publisher's last [`Matches`], so that its next message on the same Topic Name looks nothing
/// up. Does not keep it alive: dropped by the cache is dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct PublisherMemo(Weak<Matches>);

impl PublisherMemo {
    /// Remembers `matches`.
    pub(crate) fn remember(&mut self, matches: &Rc<Matches>) {
        self.0 = Rc::downgrade(matches);
    }

    /// What was remembered, if it is about `topic` and still current. O(topic length).
    pub(crate) fn recall(&self, topic: &str) -> Option<Rc<Matches>> {
        self.0
            .upgrade()
            .filter(|matches| matches.is_current() && matches.topic() == topic)
    }
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

    pub(super) fn add(&mut self, interest: &Interest) {
        self.subscriptions.extend(interest.sessions.iter());
        self.groups.extend_from_slice(interest.groups());
        self.remote = self.remote.union(interest.remote);
        self.remote_free = self
            .remote_free
            .union(interest.remote.without(interest.full()));
    }

    pub(super) fn finish(
        mut self,
        topic: &str,
        may_receive: impl Fn(SessionKey, &str) -> bool,
    ) -> Matches {
        // Each interest came in order: a stable sort merges those runs.
        self.subscriptions.sort_by_key(|&(session, _)| session);
        self.groups.sort_unstable();
        self.groups.dedup();
        let rows = self
            .subscriptions
            .chunk_by(|(left, _), (right, _)| left == right)
            .filter_map(|of_one| Some((of_one.first()?.0, of_one)))
            .filter(|(session, _)| may_receive(*session, topic))
            .map(|(session, of_one)| MatchRow::merge(session, of_one))
            .collect();
        Matches {
            topic: topic.into(),
            is_current: Cell::new(true),
            rows,
            groups: self.groups,
            remote: self.remote,
            remote_free: self.remote_free,
        }
    }
}

/// The [`Matches`] of recent Topic Names.
#[derive(Debug)]
pub(super) struct Cache {
    by_topic: HashMap<Rc<str>, Rc<Matches>, KeyedState>,
    /// The same topics in order, to find those under one first level, and the next to leave.
    in_order: BTreeSet<Rc<str>>,
    /// Entries leave in this order, round and round, one at a time.
    last_evicted: Option<Rc<str>>,
    /// Marks of topics that found no place, by their hash; none before it was full once.
    unplaced: Box<[u32]>,
    bytes: usize,
    limits: CacheLimits,
}

/// How much a [`Cache`] holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct CacheLimits {
    pub(super) topics_max: usize,
    pub(super) bytes_max: usize,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self {
            topics_max: CACHED_TOPICS_MAX,
            bytes_max: CACHED_BYTES_MAX,
        }
    }
}

impl Cache {
    pub(super) fn new(hash: KeyedState, limits: CacheLimits) -> Self {
        Self {
            by_topic: HashMap::with_hasher(hash),
            in_order: BTreeSet::new(),
            last_evicted: None,
            unplaced: Box::default(),
            bytes: 0,
            limits,
        }
    }

    pub(super) fn find(&self, topic: &str) -> Option<&Rc<Matches>> {
        self.by_topic.get(topic)
    }

    /// Keeps an answer. When it is full, of a topic that was asked for lately, too: others go by too fast to be found
    /// again, and would push out those that are.
    pub(super) fn insert(&mut self, matches: &Rc<Matches>) {
        self.remove(matches.topic());
        let bytes = self.bytes + matches.memory_bytes();
        let is_full =
            self.by_topic.len() >= self.limits.topics_max || bytes > self.limits.bytes_max;
        if is_full && !self.by_topic.is_empty() && !self.was_asked_for(matches.topic()) {
            matches.is_current.set(false);
            return;
        }
        self.bytes = bytes;
        while !self.by_topic.is_empty() && self.is_over(self.by_topic.len() + 1) {
            self.evict_one();
        }
        self.in_order.insert(Rc::clone(&matches.topic));
        self.by_topic
            .insert(Rc::clone(&matches.topic), Rc::clone(matches));
    }

    /// Whether this topic has found no place lately; it has now.
    fn was_asked_for(&mut self, topic: &str) -> bool {
        if self.unplaced.is_empty() {
            self.unplaced = vec![0; UNPLACED_MARKS].into_boxed_slice();
        }
        let hash = self.by_topic.hasher().hash_one(topic);
        let place = usize::try_from(hash % UNPLACED_MARKS as u64).unwrap_or(0);
        // From other bits than the place, and never the mark of none.
        let mark = u32::try_from(hash >> 32).unwrap_or(0) | 1;
        self.unplaced
            .get_mut(place)
            .is_some_and(|known| std::mem::replace(known, mark) == mark)
    }

    /// Drops what a change to the Subscriptions of `filter` could change, and no more than:
    /// without a wildcard, its own topic; with a named first level, the topics under that; else all.
    pub(super) fn invalidate(&mut self, filter: &str) {
        let first_level = filter.split('/').next().unwrap_or_default();
        if !filter.contains(['+', '#']) {
            self.remove(filter);
        } else if first_level == "+" || first_level == "#" {
            self.clear();
        } else {
            self.remove(first_level);
            let from = format!("{first_level}/");
            while let Some(topic) = self.first_from(Bound::Included(&from))
                && topic.starts_with(&from)
            {
                self.remove(&topic);
            }
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// Bytes of it.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes
            + size_of_val(&*self.unplaced)
            + self.by_topic.len() * CACHE_ENTRY_BYTES
            + map_bytes(
                self.by_topic.capacity(),
                size_of::<(Rc<str>, Rc<Matches>)>(),
            )
    }

    const fn is_over(&self, topics: usize) -> bool {
        topics > self.limits.topics_max || self.bytes > self.limits.bytes_max
    }

    fn evict_one(&mut self) {
        let next = match &self.last_evicted {
            Some(last) => self.first_from(Bound::Excluded(last)),
            None => None,
        };
        if let Some(topic) = next.or_else(|| self.in_order.first().cloned()) {
            self.remove(&topic);
            self.last_evicted = Some(topic);
        }
    }

    fn first_from(&self, from: Bound<&str>) -> Option<Rc<str>> {
        self.in_order
            .range::<str, _>((from, Bound::Unbounded))
            .next()
            .cloned()
    }

    fn remove(&mut self, topic: &str) {
        if let Some(matches) = self.by_topic.remove(topic) {
            self.in_order.remove(topic);
            self.bytes -= matches.memory_bytes();
            matches.is_current.set(false);
        }
    }

    pub(super) fn clear(&mut self) {
        while let Some(topic) = self.in_order.pop_first() {
            self.remove(&topic);
        }
    }
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

/// An answer beside its own bytes and its place in the table: its place in the order of topics.
const CACHE_ENTRY_BYTES: usize = 30;

/// Topics that found no place and are remembered.
const UNPLACED_MARKS: usize = 65_536;

/// The cache keeps at most this many Topic Names.
pub(crate) const CACHED_TOPICS_MAX: usize = 65_536;

/// The cache keeps at most about this many bytes.
pub(crate) const CACHED_BYTES_MAX: usize = 32 << 20;
