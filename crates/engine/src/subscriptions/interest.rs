//! Who wants what one Topic Filter matches, in eight bytes where that is one Session or one other shard.
//!
//! Owns: [`Interest`], [`Interests`], [`Holder`]. Does not own: which Topic Filter it is (see `trie`).
//! Start reading at [`Interests::change`]. Invariant: what fits into a [`Holder`] is nowhere else.

use proto::Qos;

use super::Subscription;
use super::session_set::SessionSet;
use crate::arena::Arena;
use crate::keys::{SessionKey, ShardIndex, ShardSet};
use crate::shared_subscriptions::GroupKey;

/// Everyone who wants what one Topic Filter matches.
#[derive(Debug, Default)]
pub(super) struct Interest {
    /// Sessions of this shard with a Non-shared Subscription.
    pub(super) sessions: SessionSet,
    /// Other shards that have such a session.
    pub(super) remote: ShardSet,
    rare: Option<Box<Rare>>,
}

/// What few Topic Filters have.
#[derive(Debug, Default)]
struct Rare {
    /// Other shards whose sessions are all full.
    full: ShardSet,
    /// Shared Subscriptions of this Topic Filter, ascending.
    groups: Vec<GroupKey>,
}

impl Interest {
    /// Shared Subscriptions of this Topic Filter, ascending.
    pub(super) fn groups(&self) -> &[GroupKey] {
        self.rare.as_ref().map_or(&[], |rare| &rare.groups)
    }

    /// Other shards whose sessions are all full.
    pub(super) fn full(&self) -> ShardSet {
        self.rare.as_ref().map_or(ShardSet::EMPTY, |rare| rare.full)
    }

    /// Returns whether that is news.
    pub(super) fn set_full(&mut self, shard: ShardIndex, is_full: bool) -> bool {
        if is_full == self.full().contains(shard) {
            return false;
        }
        self.change(|rare| {
            if is_full {
                rare.full.insert(shard);
            } else {
                rare.full.remove(shard);
            }
        });
        true
    }

    /// Returns whether that is news.
    pub(super) fn set_group(&mut self, group: GroupKey, is_there: bool) -> bool {
        match (self.groups().binary_search(&group), is_there) {
            (Err(at), true) => self.change(|rare| rare.groups.insert(at, group)),
            (Ok(at), false) => self.change(|rare| {
                rare.groups.remove(at);
            }),
            (Ok(_), true) | (Err(_), false) => return false,
        }
        true
    }

    fn change(&mut self, change: impl FnOnce(&mut Rare)) {
        let rare = self.rare.get_or_insert_default();
        change(rare);
        if rare.full.is_empty() && rare.groups.is_empty() {
            self.rare = None;
        }
    }

    /// Itself, where it fits into a [`Holder`].
    fn packed(&self) -> Option<Holder> {
        if self.rare.is_some() {
            return None;
        }
        match (&self.sessions, self.remote.is_empty()) {
            (SessionSet::None, true) => Some(Holder::NOBODY),
            (SessionSet::One(session, subscription), true) => Holder::one(*session, *subscription),
            (SessionSet::None, false) => {
                let mut shards = self.remote.iter();
                let first = shards.next().filter(|_| shards.next().is_none());
                first.map(Holder::shard)
            }
            _ => None,
        }
    }
}

/// What is known of the interest in one Topic Filter. Most have one Session, or one other shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    /// Session, shard or number of the [`Interest`].
    key: u32,
    /// Which of them; of a Session its Subscription: QoS in two bits, of which both are set for all else, No Local, Retain
    /// As Published, and 28 bits of Subscription Identifier, of which none is zero (2.2.2.2, section 3.8.2.1.2).
    what: u32,
}

/// The same, to be looked at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Held<'a> {
    Nobody,
    One(SessionKey, Subscription),
    Shard(ShardIndex),
    More(&'a Interest),
}

impl Held<'_> {
    pub(super) const fn is_nobody(self) -> bool {
        matches!(self, Self::Nobody)
    }

    /// The Subscription of a Session, if it has one.
    pub(super) fn find(self, session: SessionKey) -> Option<Subscription> {
        match self {
            Self::One(key, subscription) => (key == session).then_some(subscription),
            Self::More(interest) => interest.sessions.find(session).copied(),
            Self::Nobody | Self::Shard(_) => None,
        }
    }

    /// How many Sessions there are.
    pub(super) fn session_count(self) -> usize {
        match self {
            Self::One(..) => 1,
            Self::More(interest) => interest.sessions.len(),
            Self::Nobody | Self::Shard(_) => 0,
        }
    }
}

impl Holder {
    /// No interest.
    pub(super) const NOBODY: Self = Self {
        key: 0,
        what: NOBODY,
    };

    /// Whether there is no interest.
    pub(super) const fn is_nobody(self) -> bool {
        self.what == NOBODY
    }

    /// `None` where its identifier is larger than a packet can have it.
    fn one(session: SessionKey, subscription: Subscription) -> Option<Self> {
        let identifier = subscription.subscription_identifier;
        let is_one = identifier.is_none_or(|it| (1..=IDENTIFIER_MAX).contains(&it));
        is_one.then(|| Self {
            key: session.0,
            what: (u32::from(subscription.qos.level()) << QOS_SHIFT)
                | (u32::from(subscription.no_local) << NO_LOCAL_SHIFT)
                | (u32::from(subscription.retain_as_published) << RETAIN_AS_PUBLISHED_SHIFT)
                | identifier.unwrap_or(0),
        })
    }

    fn shard(shard: ShardIndex) -> Self {
        Self {
            key: u32::from(shard.0),
            what: SHARD,
        }
    }

    /// The number of its [`Interest`], if it has one.
    const fn number(self) -> Option<u32> {
        if self.what == MORE {
            Some(self.key)
        } else {
            None
        }
    }

    const fn subscription(self) -> Option<Subscription> {
        let qos = match self.what >> QOS_SHIFT {
            0 => Qos::AtMostOnce,
            1 => Qos::AtLeastOnce,
            2 => Qos::ExactlyOnce,
            _ => return None,
        };
        let identifier = self.what & IDENTIFIER_MAX;
        Some(Subscription {
            qos,
            no_local: (self.what >> NO_LOCAL_SHIFT) & 1 != 0,
            retain_as_published: (self.what >> RETAIN_AS_PUBLISHED_SHIFT) & 1 != 0,
            subscription_identifier: if identifier == 0 {
                None
            } else {
                Some(identifier)
            },
        })
    }
}

/// Those that are more than one Session or shard, by number.
#[derive(Debug, Default)]
pub(super) struct Interests {
    more: Arena<Interest>,
    /// Bytes of the sets of Sessions beside their places.
    set_bytes: usize,
}

impl Interests {
    /// What `holder` holds.
    pub(super) fn of(&self, holder: Holder) -> Held<'_> {
        if let Some(subscription) = holder.subscription() {
            return Held::One(SessionKey(holder.key), subscription);
        }
        match holder.what {
            SHARD => Held::Shard(ShardIndex(u16::try_from(holder.key).unwrap_or(0))),
            MORE => self.more.get(holder.key).map_or(Held::Nobody, Held::More),
            _ => Held::Nobody,
        }
    }

    /// Changes what `holder` holds.
    pub(super) fn change<R>(
        &mut self,
        holder: &mut Holder,
        change: impl FnOnce(&mut Interest) -> R,
    ) -> R {
        let Some(number) = holder.number() else {
            let mut interest = match self.of(*holder) {
                Held::One(session, subscription) => Interest {
                    sessions: SessionSet::One(session, subscription),
                    ..Interest::default()
                },
                Held::Shard(shard) => Interest {
                    remote: [shard].into_iter().collect(),
                    ..Interest::default()
                },
                Held::Nobody | Held::More(_) => Interest::default(),
            };
            let changed = change(&mut interest);
            *holder = interest.packed().unwrap_or_else(|| {
                self.set_bytes += interest.sessions.extra_bytes();
                Holder {
                    key: self.more.insert(interest),
                    what: MORE,
                }
            });
            return changed;
        };
        let interest = self.more.get_mut(number);
        let interest = interest.expect("invariant: a holder's number is that of an interest");
        self.set_bytes -= interest.sessions.extra_bytes();
        let changed = change(interest);
        if let Some(packed) = interest.packed() {
            self.more.remove(number);
            *holder = packed;
        } else {
            self.set_bytes += interest.sessions.extra_bytes();
        }
        changed
    }

    /// Bytes of it, without the holders. O(1).
    pub(super) fn memory_bytes(&self) -> usize {
        self.more.memory_bytes() + self.set_bytes
    }
}

const QOS_SHIFT: u32 = 30;
const NO_LOCAL_SHIFT: u32 = 29;
const RETAIN_AS_PUBLISHED_SHIFT: u32 = 28;
/// The largest Subscription Identifier, a Variable Byte Integer of four bytes.
const IDENTIFIER_MAX: u32 = (1 << 28) - 1;
/// Nobody.
const NOBODY: u32 = 3 << QOS_SHIFT;
/// Another shard.
const SHARD: u32 = NOBODY | 1;
/// An [`Interest`] with a number.
const MORE: u32 = NOBODY | 2;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn subscription(qos: Qos, marks: (bool, bool), identifier: Option<u32>) -> Subscription {
        Subscription {
            qos,
            no_local: marks.0,
            retain_as_published: marks.1,
            subscription_identifier: identifier,
        }
    }

    proptest! {
        /// What a holder is given it holds, in itself wherever that is one Session or one shard.
        #[test]
        fn holder_holds_what_an_interest_would(
            steps in proptest::collection::vec((0..3_u32, any::<bool>(), any::<bool>(), any::<(bool, bool)>()), 0..30),
            qos in select(vec![Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]),
            identifier in proptest::option::of(select(vec![1, 7, IDENTIFIER_MAX, IDENTIFIER_MAX + 1, u32::MAX])),
        ) {
            let (mut interests, mut holder) = (Interests::default(), Holder::NOBODY);
            let mut model = Interest::default();
            for (key, is_shard, is_in, marks) in steps {
                let with = subscription(qos, marks, identifier);
                let change = |interest: &mut Interest| match (is_shard, is_in) {
                    (true, true) => interest.remote.insert(ShardIndex(u16::try_from(key).unwrap())),
                    (true, false) => interest.remote.remove(ShardIndex(u16::try_from(key).unwrap())),
                    (false, true) => interest.sessions.insert(SessionKey(key), with).is_some(),
                    (false, false) => interest.sessions.remove(SessionKey(key)).is_some(),
                };
                prop_assert_eq!(interests.change(&mut holder, change), change(&mut model));
                let held = interests.of(holder);
                let (sessions, remote) = match held {
                    Held::Nobody => (vec![], ShardSet::EMPTY),
                    Held::One(session, subscription) => (vec![(session, subscription)], ShardSet::EMPTY),
                    Held::Shard(shard) => (vec![], [shard].into_iter().collect()),
                    Held::More(interest) => (interest.sessions.iter().collect(), interest.remote),
                };
                prop_assert_eq!(&sessions, &model.sessions.iter().collect::<Vec<_>>());
                prop_assert_eq!(remote, model.remote);
                let is_small = sessions.len() + remote.len() as usize <= 1;
                let is_named = sessions.iter().all(|(_, of)| of.subscription_identifier <= Some(IDENTIFIER_MAX));
                prop_assert_eq!(holder.number().is_none(), is_small && is_named);
                prop_assert_eq!(holder.is_nobody(), sessions.is_empty() && remote.is_empty());
                let set_bytes = if holder.number().is_some() { model.sessions.extra_bytes() } else { 0 };
                prop_assert_eq!(interests.set_bytes, set_bytes);
                prop_assert_eq!(interests.more.len(), usize::from(holder.number().is_some()));
            }
        }
    }
}
