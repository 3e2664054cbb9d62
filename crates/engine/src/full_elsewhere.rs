//! What other shards say of their full Sessions.
//!
//! Owns: of which Topic Filters and Shared Subscriptions some are full in which shard, and since when. Does not own: what
//! is made of it, and what this shard says of its own (see `full`). Start reading at [`FullElsewhere::hear`].
//! Invariant: what is said of one Topic Filter of a shard changes nothing for its others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use slab::Slab;

use crate::ShardIndex;
use crate::keys::{KeyedState, SessionKey};
use crate::subscriptions::{Subscription, Subscriptions};

/// Full Sessions of other shards.
#[derive(Debug)]
pub(crate) struct FullElsewhere {
    /// Finds entries by topic: the number of an entry stands where that of a Session is else.
    by_topic: Subscriptions,
    by_filter: BTreeMap<(ShardIndex, Arc<str>), SessionKey>,
    entries: Slab<Entry>,
    /// Shared Subscriptions of which a shard has full members only.
    groups: BTreeMap<(ShardIndex, Arc<str>), Instant>,
}

/// Some Sessions of a shard with one Topic Filter are full.
#[derive(Clone, Copy, Debug)]
struct Entry {
    shard: ShardIndex,
    /// Since when the last of them is.
    since: Instant,
}

impl FullElsewhere {
    pub(crate) fn new(hasher: KeyedState) -> Self {
        Self {
            by_topic: Subscriptions::new(hasher),
            by_filter: BTreeMap::new(),
            entries: Slab::new(),
            groups: BTreeMap::new(),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.groups.is_empty()
    }

    /// What was looked at so far, in units of [`crate::Engine::work`].
    pub(crate) const fn visited(&self) -> u64 {
        self.by_topic.visited()
    }

    /// Whether some Sessions of `shard` that have this Topic Filter are full, and since when the last of them is.
    pub(crate) fn hear(&mut self, shard: ShardIndex, filter: &Arc<str>, since: Option<Instant>) {
        let key = (shard, Arc::clone(filter));
        let known = self.by_filter.get(&key).copied();
        match (known, since) {
            (Some(known), Some(since)) => {
                if let Some(entry) = self.entries.get_mut(known.0 as usize) {
                    entry.since = since;
                }
            }
            (Some(known), None) => {
                self.by_topic.unsubscribe(known, filter);
                self.by_filter.remove(&key);
                self.entries.remove(known.0 as usize);
            }
            (None, Some(since)) => {
                let number = self.entries.insert(Entry { shard, since });
                let number = u32::try_from(number);
                let number = SessionKey(number.expect("invariant: fewer than 2^32 fit in memory"));
                let subscription = Subscription::default();
                self.by_topic.subscribe(number, filter, subscription);
                self.by_filter.insert(key, number);
            }
            (None, None) => {}
        }
    }

    /// Whether all members of a Shared Subscription that `shard` has are full, and since when the last of them is.
    pub(crate) fn hear_of_group(
        &mut self,
        shard: ShardIndex,
        group: &Arc<str>,
        since: Option<Instant>,
    ) {
        let key = (shard, Arc::clone(group));
        match since {
            Some(since) => self.groups.insert(key, since),
            None => self.groups.remove(&key),
        };
    }

    /// The shards of which some Sessions that want `topic` are full, each as often as it has such a Topic Filter, and since
    /// when. O(those).
    pub(crate) fn of_topic(&mut self, topic: &str) -> Vec<(ShardIndex, Instant)> {
        if self.entries.is_empty() {
            return Vec::new();
        }
        let matches = self.by_topic.matches_for(topic, |_, _| true);
        let entries = matches.rows.iter();
        let entries = entries.filter_map(|row| self.entries.get(row.session.0 as usize));
        entries.map(|entry| (entry.shard, entry.since)).collect()
    }

    /// Since when all members are full that `shard` has of this Shared Subscription; `None` if some are not.
    pub(crate) fn of_group(&self, shard: ShardIndex, group: &str) -> Option<Instant> {
        self.groups.get(&(shard, group.into())).copied()
    }
}
