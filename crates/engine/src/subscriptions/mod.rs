//! Which sessions, Shared Subscriptions and other shards want what is published on a Topic Name.
//!
//! Owns: the Non-shared Subscriptions of this shard's sessions, a summary of the other shards'
//! Topic Filters, where Shared Subscriptions hang; overlap, No Local, the cached answers.
//! Does not own: members of Shared Subscriptions (see [`crate::shared_subscriptions`]), sessions,
//! limits per session, Topic Filter syntax (see [`proto::topic`]).
//! Start reading at [`Subscriptions::matches`]. Invariant: a cached answer equals a fresh one.

mod matches;
mod trie;

use std::rc::Rc;

use proto::Qos;

use self::matches::{Cache, CacheLimits, Collector};
pub(crate) use self::matches::{Grant, MatchRow, Matches, PublisherMemo};
use self::trie::Trie;
use crate::keys::{KeyedState, SessionKey, ShardIndex};
use crate::shared_subscriptions::GroupKey;

/// The Subscription Options of one Topic Filter that matter after SUBACK. Section 3.8.3.1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// Maximum QoS granted.
    pub(crate) qos: Qos,
    /// No Local.
    pub(crate) no_local: bool,
    /// Retain As Published.
    pub(crate) retain_as_published: bool,
    /// Subscription Identifier, if the SUBSCRIBE packet had one.
    pub(crate) subscription_identifier: Option<u32>,
}

/// What [`Subscriptions::subscribe`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    /// The session already had a Subscription with this Topic Filter (Retain Handling 1 asks).
    pub(crate) existed: bool,
    /// It is the first of this shard with this Topic Filter: the other shards must learn of it.
    pub(crate) is_new_interest: bool,
}

/// What [`Subscriptions::unsubscribe`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Removed {
    /// It was the last of this shard with this Topic Filter: the other shards may forget it.
    pub(crate) was_last_interest: bool,
}

/// All Subscriptions this shard knows of.
#[derive(Debug)]
pub(crate) struct Subscriptions {
    trie: Trie,
    cache: Cache,
    count: usize,
}

impl Subscriptions {
    /// None yet; names are hashed with `hash`.
    pub(crate) fn new(hash: KeyedState) -> Self {
        Self::with_cache(hash, CacheLimits::default())
    }

    fn with_cache(hash: KeyedState, limits: CacheLimits) -> Self {
        Self {
            trie: Trie::new(hash.clone()),
            cache: Cache::new(hash, limits),
            count: 0,
        }
    }

    /// Who gets a message on `topic`. O(topic length) while it is cached, else O(Topic Filters
    /// that match a beginning of `topic` + Subscriptions that match).
    pub(crate) fn matches(&mut self, topic: &str) -> Rc<Matches> {
        if let Some(matches) = self.cache.find(topic) {
            return Rc::clone(matches);
        }
        let mut collector = Collector::default();
        self.trie.visit(topic, |interest| collector.add(interest));
        let matches = Rc::new(collector.finish(topic));
        self.cache.insert(&matches);
        matches
    }

    /// The same, asking `memo` first and leaving the answer there.
    pub(crate) fn matches_with(&mut self, memo: &mut PublisherMemo, topic: &str) -> Rc<Matches> {
        if let Some(matches) = memo.recall(topic) {
            return matches;
        }
        let matches = self.matches(topic);
        memo.remember(&matches);
        matches
    }

    /// Gives `session` a Non-shared Subscription to `filter` (well-formed). O(levels + log n).
    pub(crate) fn subscribe(
        &mut self,
        session: SessionKey,
        filter: &str,
        subscription: Subscription,
    ) -> Placed {
        let node = self.trie.find_or_insert(filter);
        let sessions = &mut self.trie.interest_mut(node).sessions;
        let is_new_interest = sessions.is_empty();
        // [MQTT-3.8.4-3] [v3.1.1 MQTT-3.8.4-3] The same Topic Filter again replaces; with no gap
        // in between nothing is lost, [MQTT-3.8.4-4].
        let before = sessions.insert(session, subscription);
        if before != Some(subscription) {
            self.cache.invalidate(filter);
        }
        self.count += usize::from(before.is_none());
        Placed {
            existed: before.is_some(),
            is_new_interest,
        }
    }

    /// Takes the Non-shared Subscription of `session` to `filter` away; `None` if there is none.
    /// O(levels + log n).
    pub(crate) fn unsubscribe(&mut self, session: SessionKey, filter: &str) -> Option<Removed> {
        let node = self.trie.find(filter)?;
        // [MQTT-3.10.4-1] [v3.1.1 MQTT-3.10.4-1] Compared character by character.
        self.trie.interest(node)?.sessions.get(&session)?;
        let sessions = &mut self.trie.interest_mut(node).sessions;
        sessions.remove(&session);
        let was_last_interest = sessions.is_empty();
        self.trie.prune(node);
        self.cache.invalidate(filter);
        self.count -= 1;
        Some(Removed { was_last_interest })
    }

    /// The Subscription of `session` to `filter`, if there is one.
    pub(crate) fn find(&self, session: SessionKey, filter: &str) -> Option<&Subscription> {
        self.trie
            .interest(self.trie.find(filter)?)?
            .sessions
            .get(&session)
    }

    /// Notes whether another shard wants what `filter` matches. O(levels).
    pub(crate) fn set_remote(&mut self, filter: &str, shard: ShardIndex, is_wanted: bool) {
        let has_changed = if is_wanted {
            let node = self.trie.find_or_insert(filter);
            self.trie.interest_mut(node).remote.insert(shard)
        } else if let Some(node) = self.trie.find(filter) {
            let was_wanted = self.trie.interest_mut(node).remote.remove(shard);
            self.trie.prune(node);
            was_wanted
        } else {
            false
        };
        if has_changed {
            self.cache.invalidate(filter);
        }
    }

    /// Hangs a Shared Subscription at `filter` (without `$share/` and ShareName). O(levels).
    pub(crate) fn add_group(&mut self, filter: &str, group: GroupKey) {
        let node = self.trie.find_or_insert(filter);
        let groups = &mut self.trie.interest_mut(node).groups;
        if let Err(at) = groups.binary_search(&group) {
            groups.insert(at, group);
            self.cache.invalidate(filter);
        }
    }

    /// Takes a Shared Subscription away from `filter`. O(levels).
    pub(crate) fn remove_group(&mut self, filter: &str, group: GroupKey) {
        let Some(node) = self.trie.find(filter) else {
            return;
        };
        let groups = &mut self.trie.interest_mut(node).groups;
        if let Ok(at) = groups.binary_search(&group) {
            groups.remove(at);
            self.cache.invalidate(filter);
        }
        self.trie.prune(node);
    }

    /// How many Non-shared Subscriptions this shard's sessions have.
    pub(crate) const fn len(&self) -> usize {
        self.count
    }
}
