//! Which sessions, Shared Subscriptions and other shards want what is published on a Topic Name.
//!
//! Owns: the Non-shared Subscriptions of this shard's sessions, a summary of the other shards'
//! Topic Filters, where Shared Subscriptions hang; overlap, No Local, the cached answers.
//! Does not own: members of Shared Subscriptions (see [`crate::shared_subscriptions`]), sessions,
//! limits per session, Topic Filter syntax (see [`proto::topic`]).
//! Start reading at [`Subscriptions::matches_for`]. Invariant: a cached answer equals a fresh one.

mod cache;
mod index;
mod interest;
mod matches;
mod plain;
mod session_set;
mod trie;

use std::rc::Rc;

use proto::Qos;

pub(crate) use self::cache::PublisherMemo;
use self::cache::{Cache, CacheLimits};
use self::index::Index;
use self::interest::Interest;
use self::matches::Collector;
#[cfg(test)]
use self::matches::MatchRow;
pub(crate) use self::matches::{Grant, Matches};
use self::plain::text_hash;
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
    index: Index,
    cache: Cache,
    /// Kept from answer to answer for its memory only.
    collector: Collector,
    /// The same: the last answer that found no place in the cache.
    unkept: Option<Rc<Matches>>,
    hash: KeyedState,
    count: usize,
    /// What was looked at for answers that were not known, in units of [`Self::visited`].
    visited: u64,
}

impl Subscriptions {
    /// None yet; names are hashed with `hash`.
    pub(crate) fn new(hash: KeyedState) -> Self {
        Self::with_cache(hash, CacheLimits::default())
    }

    fn with_cache(hash: KeyedState, limits: CacheLimits) -> Self {
        Self {
            index: Index::new(hash.clone()),
            cache: Cache::new(hash.clone(), limits),
            collector: Collector::default(),
            unkept: None,
            hash,
            count: 0,
            visited: 0,
        }
    }

    /// Who gets a message on `topic`. O(topic length) while it is cached, else O(Topic Filters
    /// that match a beginning of `topic` + Subscriptions that match).
    /// Of the sessions only those for which `may_receive` says so; a change to that has to be followed by
    /// [`Self::forget_matches`].
    pub(crate) fn matches_for(
        &mut self,
        topic: &str,
        may_receive: impl Fn(SessionKey, &str) -> bool,
    ) -> Rc<Matches> {
        let hash = text_hash(&self.hash, topic);
        if let Some(matches) = self.cache.find(hash, topic) {
            return Rc::clone(matches);
        }
        let collector = &mut self.collector;
        let walked = self.index.visit(hash, topic, |held| collector.add(held));
        self.visited += collector.len() as u64 + walked / NODES_PER_UNIT;
        let stamp = self.cache.stamp(topic);
        let mut answer = self.unkept.take().unwrap_or_default();
        // Its memory is used again, unless somebody still looks at it.
        if Rc::get_mut(&mut answer).is_none() {
            answer = Rc::default();
        }
        if let Some(matches) = Rc::get_mut(&mut answer) {
            collector.finish(topic, stamp, may_receive, matches);
            if self.cache.make_room(hash, matches) {
                matches.shrink();
                self.cache.insert(hash, &answer);
            } else {
                self.unkept = Some(Rc::clone(&answer));
            }
        }
        answer
    }

    /// The same, asking `memo` first and leaving the answer there.
    pub(crate) fn matches_with(
        &mut self,
        memo: &mut PublisherMemo,
        topic: &str,
        may_receive: impl Fn(SessionKey, &str) -> bool,
    ) -> Rc<Matches> {
        if let Some(matches) = self.recall(memo, topic) {
            return matches;
        }
        let matches = self.matches_for(topic, may_receive);
        if matches.is_kept() {
            memo.remember(&matches);
        }
        matches
    }

    /// What `memo` remembers, if it is about `topic` and no change since could have changed it. O(topic length).
    pub(crate) fn recall(&self, memo: &PublisherMemo, topic: &str) -> Option<Rc<Matches>> {
        memo.recall(topic)
            .filter(|matches| self.cache.is_current(matches))
    }

    /// What was looked at so far for answers that were not known, in Subscriptions; the way to them counts, too, also
    /// where there are none at its end.
    pub(crate) const fn visited(&self) -> u64 {
        self.visited
    }

    /// Forgets every answer: who may be sent what has changed.
    pub(crate) fn forget_matches(&mut self) {
        self.cache.clear();
    }

    #[cfg(test)]
    fn matches(&mut self, topic: &str) -> Rc<Matches> {
        self.matches_for(topic, |_, _| true)
    }

    /// Gives `session` a Non-shared Subscription to `filter` (well-formed). O(levels + log n).
    pub(crate) fn subscribe(
        &mut self,
        session: SessionKey,
        filter: &str,
        subscription: Subscription,
    ) -> Placed {
        // [MQTT-3.8.4-3] [v3.1.1 MQTT-3.8.4-3] The same Topic Filter again replaces; with no gap
        // in between nothing is lost, [MQTT-3.8.4-4].
        let (is_new_interest, before) = self.index.change(filter, |interest| {
            let sessions = &mut interest.sessions;
            (sessions.is_empty(), sessions.insert(session, subscription))
        });
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
        // [MQTT-3.10.4-1] [v3.1.1 MQTT-3.10.4-1] Compared character by character.
        self.index.interest(filter).find(session)?;
        let was_last_interest = self.index.change(filter, |interest| {
            interest.sessions.remove(session);
            interest.sessions.is_empty()
        });
        self.cache.invalidate(filter);
        self.count -= 1;
        Some(Removed { was_last_interest })
    }

    /// The Subscription of `session` to `filter`, if there is one.
    pub(crate) fn find(&self, session: SessionKey, filter: &str) -> Option<Subscription> {
        self.index.interest(filter).find(session)
    }

    /// Notes whether another shard wants what `filter` matches. O(levels).
    /// Returns whether that is news.
    pub(crate) fn set_remote(&mut self, filter: &str, shard: ShardIndex, is_wanted: bool) -> bool {
        let has_changed = if is_wanted {
            self.index
                .change(filter, |interest| interest.remote.insert(shard))
        } else if self.index.interest(filter).is_nobody() {
            false
        } else {
            self.index.change(filter, |interest| {
                interest.set_full(shard, false);
                interest.remote.remove(shard)
            })
        };
        if has_changed {
            self.cache.invalidate(filter);
        }
        has_changed
    }

    /// Notes whether all sessions of another shard that want this Topic Filter are full. O(levels).
    pub(crate) fn set_remote_full(&mut self, filter: &str, shard: ShardIndex, is_full: bool) {
        if self.index.interest(filter).is_nobody() {
            return;
        }
        let change = |interest: &mut Interest| interest.set_full(shard, is_full);
        if self.index.change(filter, change) {
            self.cache.invalidate(filter);
        }
    }

    /// How many sessions of this shard have a Non-shared Subscription to this Topic Filter. O(levels).
    pub(crate) fn session_count(&self, filter: &str) -> usize {
        self.index.interest(filter).session_count()
    }

    /// Hangs a Shared Subscription at `filter` (without `$share/` and ShareName). O(levels).
    pub(crate) fn add_group(&mut self, filter: &str, group: GroupKey) {
        let change = |interest: &mut Interest| interest.set_group(group, true);
        if self.index.change(filter, change) {
            self.cache.invalidate(filter);
        }
    }

    /// Takes a Shared Subscription away from `filter`. O(levels).
    pub(crate) fn remove_group(&mut self, filter: &str, group: GroupKey) {
        if self.index.interest(filter).is_nobody() {
            return;
        }
        let change = |interest: &mut Interest| interest.set_group(group, false);
        if self.index.change(filter, change) {
            self.cache.invalidate(filter);
        }
    }

    /// Bytes of the index and of the answers that are kept. O(1).
    pub(crate) fn memory_bytes(&self) -> usize {
        self.index.memory_bytes() + self.cache.memory_bytes()
    }

    /// How many Non-shared Subscriptions this shard's sessions have.
    #[cfg(test)]
    pub(crate) const fn len(&self) -> usize {
        self.count
    }
}

/// So many nodes of the tree are walked in the time that a Subscription takes which is found.
const NODES_PER_UNIT: u64 = 8;

#[cfg(test)]
mod tests;
