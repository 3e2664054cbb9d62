//! The Sessions of one Topic Filter. Most have one.
//!
//! Owns: [`SessionSet`], what it takes beside itself. Does not own: which Topic Filter it is (see `trie`).
//! Start reading at [`SessionSet::insert`]. Invariant: many are two at least, so one takes no allocation.

use std::collections::BTreeMap;

use super::Subscription;
use crate::keys::SessionKey;

/// Sessions with a Non-shared Subscription, in their order.
#[derive(Debug, Default)]
pub(super) enum SessionSet {
    #[default]
    None,
    One(SessionKey, Subscription),
    #[expect(
        clippy::box_collection,
        reason = "few have many, and each has the place"
    )]
    Many(Box<BTreeMap<SessionKey, Subscription>>),
}

impl SessionSet {
    pub(super) const fn is_empty(&self) -> bool {
        matches!(self, Self::None)
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::None => 0,
            Self::One(..) => 1,
            Self::Many(all) => all.len(),
        }
    }

    pub(super) fn find(&self, session: SessionKey) -> Option<&Subscription> {
        match self {
            Self::One(key, subscription) if *key == session => Some(subscription),
            Self::None | Self::One(..) => None,
            Self::Many(all) => all.get(&session),
        }
    }

    /// Returns what it had before. O(log n).
    pub(super) fn insert(
        &mut self,
        session: SessionKey,
        subscription: Subscription,
    ) -> Option<Subscription> {
        match self {
            Self::None => {
                *self = Self::One(session, subscription);
                None
            }
            Self::One(key, before) if *key == session => {
                Some(std::mem::replace(before, subscription))
            }
            Self::One(key, other) => {
                let both = [(*key, *other), (session, subscription)];
                *self = Self::Many(Box::new(BTreeMap::from(both)));
                None
            }
            Self::Many(all) => all.insert(session, subscription),
        }
    }

    /// Returns what it had. O(log n).
    pub(super) fn remove(&mut self, session: SessionKey) -> Option<Subscription> {
        match self {
            Self::One(key, subscription) if *key == session => {
                let removed = *subscription;
                *self = Self::None;
                Some(removed)
            }
            Self::None | Self::One(..) => None,
            Self::Many(all) => {
                let removed = all.remove(&session);
                if all.len() == 1
                    && let Some((key, subscription)) = all.pop_first()
                {
                    *self = Self::One(key, subscription);
                }
                removed
            }
        }
    }

    /// In ascending order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SessionKey, Subscription)> {
        let (one, many) = match self {
            Self::None => (None, None),
            Self::One(key, subscription) => (Some((*key, *subscription)), None),
            Self::Many(all) => (None, Some(all.iter())),
        };
        one.into_iter().chain(
            many.into_iter()
                .flatten()
                .map(|(key, value)| (*key, *value)),
        )
    }

    /// Bytes beside its own place. O(1).
    pub(super) fn extra_bytes(&self) -> usize {
        match self {
            Self::None | Self::One(..) => 0,
            Self::Many(all) => MAP_BYTES + (all.len() * EACH_BYTES).max(NODE_BYTES),
        }
    }
}

/// The map itself.
const MAP_BYTES: usize = 24;
/// Its first node, for eleven.
const NODE_BYTES: usize = 192;
/// One of many: nodes are two thirds full.
const EACH_BYTES: usize = 26;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn set_is_as_small_as_one_subscription_and_a_tag() {
        assert!(size_of::<SessionSet>() <= 24, "{}", size_of::<SessionSet>());
    }

    proptest! {
        #[test]
        fn set_is_a_map(steps in proptest::collection::vec((0..4_u32, any::<bool>()), 0..40)) {
            let (mut set, mut map) = (SessionSet::default(), BTreeMap::new());
            for (number, (key, is_in)) in (0..).zip(steps) {
                let key = SessionKey(key);
                let subscription = Subscription {
                    subscription_identifier: Some(number),
                    ..Subscription::default()
                };
                if is_in {
                    prop_assert_eq!(set.insert(key, subscription), map.insert(key, subscription));
                } else {
                    prop_assert_eq!(set.remove(key), map.remove(&key));
                }
                let all: Vec<_> = map.iter().map(|(key, value)| (*key, *value)).collect();
                prop_assert_eq!(set.iter().collect::<Vec<_>>(), all);
                prop_assert_eq!((set.len(), set.is_empty()), (map.len(), map.is_empty()));
                prop_assert_eq!(set.find(key), map.get(&key));
                prop_assert_eq!(set.extra_bytes() > 0, map.len() > 1);
            }
        }
    }
}
