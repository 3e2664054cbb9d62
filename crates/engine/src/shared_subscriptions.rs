//! Shared Subscriptions: each message to exactly one member, wherever in the Server it is (4.8.2).
//!
//! Owns: groups (one per ShareName and Topic Filter), members here, how many members the other
//! shards have, the choice among them. Does not own: which groups a Topic Name matches (see
//! [`crate::subscriptions`]), the chosen session's queue.
//! Start reading at [`SharedSubscriptions::choose`]. Invariant: a group exists exactly as long as
//! it has a member on any shard.

use std::collections::BTreeMap;
use std::rc::Rc;

use hashbrown::HashMap;
use proto::Qos;
use slab::Slab;

use crate::keys::{KeyedState, SessionKey, ShardIndex, ShardSet};
use crate::sessions::map_bytes;
use crate::subscriptions::Subscription;

/// A Shared Subscription on this shard: its place in the slab of groups, used again after it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct GroupKey(pub(crate) u32);

/// How the member that gets a message is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SharedStrategy {
    /// Each in turn.
    #[default]
    RoundRobin,
    /// The one with the fewest messages in flight, on a shard chosen in turn.
    LeastInFlight,
    /// The same one as long as it is there.
    Sticky,
    /// The same one for a Topic Name, as long as the members stay the same.
    HashTopic,
    /// The same one for a publisher's Client Identifier, as long as the members stay the same.
    HashClientId,
}

impl SharedStrategy {
    /// Whether it looks at the Topic Name.
    pub(crate) const fn needs_topic(self) -> bool {
        matches!(self, Self::HashTopic)
    }

    /// Whether it looks at who has published.
    pub(crate) const fn needs_publisher(self) -> bool {
        matches!(self, Self::HashClientId)
    }
}

/// Members of one group on one shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct MemberCounts {
    /// Members whose session has a Network Connection.
    pub(crate) online: u32,
    /// All members.
    pub(crate) total: u32,
}

/// What a change did to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupChange {
    /// Group; already gone if `is_gone`.
    pub(crate) group: GroupKey,
    /// The session was a member before.
    pub(crate) existed: bool,
    /// The group began with this change: hang it into the Subscriptions.
    pub(crate) is_new: bool,
    /// The group ended with this change: take it out of the Subscriptions.
    pub(crate) is_gone: bool,
    /// This shard's members, to be announced to the other shards if they have changed.
    pub(crate) local: MemberCounts,
    /// Whether `local` differs from what it was.
    pub(crate) is_announced_anew: bool,
}

/// What a choice may depend on; both hashes keyed alike on all shards.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ChooseInput {
    /// Hash of the Topic Name, where the strategy needs it.
    pub(crate) topic_hash: u64,
    /// Hash of the publisher's Client Identifier, where the strategy needs it.
    pub(crate) publisher_hash: u64,
}

/// Who gets the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice {
    /// A session of this shard, by this Subscription.
    Local(SessionKey, Subscription),
    /// A member on that shard: it chooses with [`SharedSubscriptions::choose_local`].
    Remote(ShardIndex),
}

/// All Shared Subscriptions this shard knows of.
#[derive(Debug)]
pub(crate) struct SharedSubscriptions {
    groups: Slab<Group>,
    by_key: HashMap<Rc<str>, GroupKey, KeyedState>,
    /// Members here, of all groups.
    members: usize,
    /// Bytes of the names.
    key_bytes: usize,
    strategy: SharedStrategy,
    shard: ShardIndex,
}

impl SharedSubscriptions {
    /// None yet, on `shard`; names are hashed with `hash`.
    pub(crate) fn new(strategy: SharedStrategy, shard: ShardIndex, hash: KeyedState) -> Self {
        Self {
            groups: Slab::new(),
            by_key: HashMap::with_hasher(hash),
            members: 0,
            key_bytes: 0,
            strategy,
            shard,
        }
    }

    /// Makes `session` a member of `key` (`$share/ShareName/filter`, well-formed), or replaces its
    /// Subscription there. O(log n), plus O(n) moves of four bytes.
    pub(crate) fn join(
        &mut self,
        key: &str,
        session: SessionKey,
        subscription: Subscription,
        is_online: bool,
    ) -> GroupChange {
        self.change(key, true, |group| {
            let before = group.members.insert(session, subscription);
            group.place(session, Some(is_online));
            before.is_some()
        })
        .expect("invariant: joining makes the group it joins")
    }

    /// Ends the membership of `session` in `key`; `None` if it was no member. O(log n), plus O(n)
    /// moves of four bytes.
    pub(crate) fn leave(&mut self, key: &str, session: SessionKey) -> Option<GroupChange> {
        self.change(key, false, |group| {
            group.place(session, None);
            group.members.remove(&session).is_some()
        })
        .filter(|change| change.existed)
    }

    /// Notes that a member's session has gained or lost its Network Connection; `None` if it is no
    /// member. O(log n), plus O(n) moves of four bytes.
    pub(crate) fn set_online(
        &mut self,
        key: &str,
        session: SessionKey,
        is_online: bool,
    ) -> Option<GroupChange> {
        self.change(key, false, |group| {
            let is_member = group.members.contains_key(&session);
            if is_member {
                group.place(session, Some(is_online));
            }
            is_member
        })
        .filter(|change| change.existed)
    }

    /// Notes how many members another shard has; `None` if it has none of an unknown group.
    pub(crate) fn set_remote(
        &mut self,
        key: &str,
        shard: ShardIndex,
        counts: MemberCounts,
    ) -> Option<GroupChange> {
        self.change(key, counts.total > 0, |group| {
            if counts.total > 0 {
                group.remote.insert(shard, counts);
            } else {
                group.remote.remove(&shard);
            }
            false
        })
    }

    /// The member, or the shard with the member, that gets one message; `None` if the group has
    /// ended. Online members before offline ones, over all shards. `in_flight` says how many
    /// messages a session of this shard has in flight, `is_one` whether it may be sent this one; if none here
    /// may, another shard is asked. O(shards), or O(members looked at).
    pub(crate) fn choose(
        &mut self,
        group: GroupKey,
        input: ChooseInput,
        in_flight: impl Fn(SessionKey) -> u32,
        is_one: impl Fn(SessionKey) -> bool,
    ) -> Option<Choice> {
        let (strategy, here) = (self.strategy, self.shard);
        let group = self.groups.get_mut(slot_of(group))?;
        let shard = group.choose_shard(strategy, here, input)?;
        if shard != here {
            return Some(Choice::Remote(shard));
        }
        match group.choose_member(strategy, input, in_flight, is_one) {
            Some((session, subscription)) => Some(Choice::Local(session, subscription)),
            None => {
                let next = group.shard_after(here, ShardSet::EMPTY);
                next.map(Choice::Remote)
            }
        }
    }

    /// The shard that is asked for a member after those that were `tried`, and after this one, which has none either. So
    /// a message that goes on and on comes to all that have members, to those with online ones first. `None` if it has.
    pub(crate) fn choose_next(
        &mut self,
        group: GroupKey,
        input: ChooseInput,
        tried: ShardSet,
    ) -> Option<ShardIndex> {
        let here = self.shard;
        // Where members have left a moment ago: whom the strategy would have chosen without them.
        match self.choose(group, input, |_| 0, |_| false)? {
            Choice::Remote(shard) if !tried.contains(shard) => Some(shard),
            _ => self.groups.get(slot_of(group))?.shard_after(here, tried),
        }
    }

    /// The member here that gets a message another shard sent for this group; `None` if the
    /// members here have left meanwhile.
    pub(crate) fn choose_local(
        &mut self,
        group: GroupKey,
        input: ChooseInput,
        in_flight: impl Fn(SessionKey) -> u32,
        is_one: impl Fn(SessionKey) -> bool,
    ) -> Option<(SessionKey, Subscription)> {
        let strategy = self.strategy;
        self.groups
            .get_mut(slot_of(group))?
            .choose_member(strategy, input, in_flight, is_one)
    }

    /// Whether a message for this group may go to a member for whom `is_one` says so, or, if `or_elsewhere`,
    /// to a member in another shard. O(members here).
    pub(crate) fn may_choose(
        &self,
        group: GroupKey,
        or_elsewhere: bool,
        is_one: impl Fn(SessionKey, Qos) -> bool,
    ) -> bool {
        let Some(group) = self.groups.get(slot_of(group)) else {
            return false;
        };
        let is_one =
            |(key, subscription): (&SessionKey, &Subscription)| is_one(*key, subscription.qos);
        (or_elsewhere && !group.remote.is_empty()) || group.members.iter().any(is_one)
    }

    /// The members here and the QoS that each was granted.
    pub(crate) fn members(&self, group: GroupKey) -> impl Iterator<Item = (SessionKey, Qos)> + '_ {
        let group = self.groups.get(slot_of(group));
        let members = group.into_iter().flat_map(|group| &group.members);
        members.map(|(key, subscription)| (*key, subscription.qos))
    }

    /// How many members there are here.
    pub(crate) fn member_count(&self, group: GroupKey) -> usize {
        let group = self.groups.get(slot_of(group));
        group.map_or(0, |group| group.members.len())
    }

    /// The other shards that have members.
    pub(crate) fn others(&self, group: GroupKey) -> impl Iterator<Item = ShardIndex> + '_ {
        let group = self.groups.get(slot_of(group));
        group
            .into_iter()
            .flat_map(|group| group.remote.keys().copied())
    }

    /// The group of `key`, if it exists.
    pub(crate) fn find(&self, key: &str) -> Option<GroupKey> {
        self.by_key.get(key).copied()
    }

    /// `$share/ShareName/filter` of a group.
    pub(crate) fn key_of(&self, group: GroupKey) -> Option<&str> {
        self.groups.get(slot_of(group)).map(|group| &*group.key)
    }

    /// Bytes of all. O(1).
    pub(crate) fn memory_bytes(&self) -> usize {
        self.key_bytes
            + self.groups.capacity() * (size_of::<Group>() + size_of::<usize>())
            + self.groups.len() * GROUP_BYTES
            + self.members * MEMBER_BYTES
            + map_bytes(self.by_key.capacity(), size_of::<(Rc<str>, GroupKey)>())
    }

    /// How many groups there are.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.groups.len()
    }

    /// Applies `change` to the group of `key`, made first if `or_insert`; ends it if it is empty
    /// then. `None` if there is no such group.
    fn change(
        &mut self,
        key: &str,
        or_insert: bool,
        change: impl FnOnce(&mut Group) -> bool,
    ) -> Option<GroupChange> {
        let (group_key, is_new) = match self.find(key) {
            Some(group) => (group, false),
            None if or_insert => (self.insert_group(key), true),
            None => return None,
        };
        let group = self.groups.get_mut(slot_of(group_key))?;
        let before = group.counts();
        let existed = change(group);
        let local = group.counts();
        let is_gone = group.is_empty();
        self.members = self.members + local.total as usize - before.total as usize;
        if is_gone {
            self.groups.remove(slot_of(group_key));
            self.by_key.remove(key);
            self.key_bytes -= key.len();
        }
        let is_announced_anew = before != local;
        Some(GroupChange {
            group: group_key,
            existed,
            is_new,
            is_gone,
            local,
            is_announced_anew,
        })
    }

    fn insert_group(&mut self, key: &str) -> GroupKey {
        self.key_bytes += key.len();
        let key: Rc<str> = key.into();
        let slot = self.groups.insert(Group::new(Rc::clone(&key)));
        let group = u32::try_from(slot).expect("invariant: fewer than 2^32 groups fit in memory");
        self.by_key.insert(key, GroupKey(group));
        GroupKey(group)
    }
}

#[derive(Debug)]
struct Group {
    key: Rc<str>,
    members: BTreeMap<SessionKey, Subscription>,
    /// Members by whether their session is online; both ascending, for a choice by number.
    online: Vec<SessionKey>,
    offline: Vec<SessionKey>,
    remote: BTreeMap<ShardIndex, MemberCounts>,
    /// Turns taken: shards by messages from here, members by messages that end here.
    shard_turn: u64,
    member_turn: u64,
    sticky_shard: Option<ShardIndex>,
    sticky_member: Option<SessionKey>,
}

impl Group {
    const fn new(key: Rc<str>) -> Self {
        Self {
            key,
            members: BTreeMap::new(),
            online: Vec::new(),
            offline: Vec::new(),
            remote: BTreeMap::new(),
            shard_turn: 0,
            member_turn: 0,
            sticky_shard: None,
            sticky_member: None,
        }
    }

    fn is_empty(&self) -> bool {
        self.members.is_empty() && self.remote.is_empty()
    }

    fn counts(&self) -> MemberCounts {
        MemberCounts {
            online: count_of(self.online.len()),
            total: count_of(self.members.len()),
        }
    }

    /// Puts `session` into the list that `is_online` says, or into neither.
    fn place(&mut self, session: SessionKey, is_online: Option<bool>) {
        for (list, is_wanted) in [
            (&mut self.online, is_online == Some(true)),
            (&mut self.offline, is_online == Some(false)),
        ] {
            match list.binary_search(&session) {
                Ok(at) if !is_wanted => drop(list.remove(at)),
                Err(at) if is_wanted => list.insert(at, session),
                _ => {}
            }
        }
    }

    /// The shard whose member gets the message, weighted by members. The number runs over the
    /// shards in ascending order, so that equal hashes mean equal shards wherever it is asked.
    fn choose_shard(
        &mut self,
        strategy: SharedStrategy,
        here: ShardIndex,
        input: ChooseInput,
    ) -> Option<ShardIndex> {
        if self.remote.is_empty() {
            self.sticky_shard = Some(here);
            return (!self.members.is_empty()).then_some(here);
        }
        let is_any_online = self.shards(here).any(|(_, counts)| counts.online > 0);
        let weight = |counts: MemberCounts| {
            u64::from(if is_any_online {
                counts.online
            } else {
                counts.total
            })
        };
        let number = match strategy {
            SharedStrategy::Sticky => {
                let is_there = |&(_, counts): &(ShardIndex, MemberCounts)| weight(counts) > 0;
                let stays = self
                    .shards(here)
                    .find(|&(shard, _)| self.sticky_shard == Some(shard));
                let chosen = stays
                    .filter(is_there)
                    .or_else(|| self.shards(here).find(is_there));
                self.sticky_shard = chosen.map(|(shard, _)| shard);
                return self.sticky_shard;
            }
            SharedStrategy::HashTopic => input.topic_hash >> 32,
            SharedStrategy::HashClientId => input.publisher_hash >> 32,
            SharedStrategy::RoundRobin | SharedStrategy::LeastInFlight => {
                take_turn(&mut self.shard_turn)
            }
        };
        let total: u64 = self.shards(here).map(|(_, counts)| weight(counts)).sum();
        let mut left = number.checked_rem(total)?;
        for (shard, counts) in self.shards(here) {
            match left.checked_sub(weight(counts)) {
                None => return Some(shard),
                Some(rest) => left = rest,
            }
        }
        None
    }

    /// The next other shard that was not `tried`, in a circle: one with online members if there is one.
    fn shard_after(&self, here: ShardIndex, tried: ShardSet) -> Option<ShardIndex> {
        let after = self.remote.range(here..).chain(self.remote.range(..here));
        let mut after = after.filter(|(shard, _)| !tried.contains(**shard));
        let online = after.clone().find(|(_, counts)| counts.online > 0);
        online.or_else(|| after.next()).map(|(shard, _)| *shard)
    }

    /// Members on every shard that may have some, ascending.
    fn shards(&self, here: ShardIndex) -> impl Iterator<Item = (ShardIndex, MemberCounts)> {
        let below = self
            .remote
            .range(..here)
            .map(|(&shard, &counts)| (shard, counts));
        let above = self
            .remote
            .range(here..)
            .map(|(&shard, &counts)| (shard, counts));
        below.chain([(here, self.counts())]).chain(above)
    }

    /// A member here: an online one if there is one, else an offline one.
    fn choose_member(
        &mut self,
        strategy: SharedStrategy,
        input: ChooseInput,
        in_flight: impl Fn(SessionKey) -> u32,
        is_one: impl Fn(SessionKey) -> bool,
    ) -> Option<(SessionKey, Subscription)> {
        let (list, rest) = if self.online.is_empty() {
            (&self.offline, [].as_slice())
        } else {
            (&self.online, self.offline.as_slice())
        };
        let count = list.len();
        let at = |number: u64| {
            let number = number.checked_rem(u64::try_from(count).ok()?)?;
            list.get(usize::try_from(number).ok()?).copied()
        };
        let session = match strategy {
            SharedStrategy::RoundRobin => at(take_turn(&mut self.member_turn)),
            SharedStrategy::HashTopic => at(input.topic_hash & u64::from(u32::MAX)),
            SharedStrategy::HashClientId => at(input.publisher_hash & u64::from(u32::MAX)),
            SharedStrategy::LeastInFlight => {
                // In turn among equals: the first looked at moves on with every message.
                let turn = take_turn(&mut self.member_turn);
                let looked_at = count.min(LEAST_IN_FLIGHT_MEMBERS_MAX);
                (0..)
                    .take(looked_at)
                    .filter_map(|step: u64| at(turn.wrapping_add(step)))
                    .min_by_key(|&session| in_flight(session))
            }
            SharedStrategy::Sticky => {
                let stays = self
                    .sticky_member
                    .filter(|session| list.binary_search(session).is_ok());
                self.sticky_member = stays.or_else(|| at(0));
                self.sticky_member
            }
        }?;
        let session = if is_one(session) {
            session
        } else {
            // Whoever is after it in the list, from its beginning at the end.
            let at = list.partition_point(|one| *one <= session);
            let others = list.iter().cycle().skip(at).take(count);
            let mut others = others.chain(rest).copied();
            others.find(|one| is_one(*one))?
        };
        Some((session, *self.members.get(&session)?))
    }
}

const fn take_turn(turn: &mut u64) -> u64 {
    let taken = *turn;
    *turn = turn.wrapping_add(1);
    taken
}

const fn slot_of(group: GroupKey) -> usize {
    group.0 as usize
}

fn count_of(members: usize) -> u32 {
    u32::try_from(members).unwrap_or(u32::MAX)
}

/// A group beside its place and its name: its set of members, that of other shards, the counts of its name.
const GROUP_BYTES: usize = 360;
/// A member in the set and in a list.
const MEMBER_BYTES: usize = 34;

/// [`SharedStrategy::LeastInFlight`] looks at no more members than this per message.
pub(crate) const LEAST_IN_FLIGHT_MEMBERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::keys::keyed_state;

    const KEY: &str = "$share/g/a/+";
    const STRATEGIES: [SharedStrategy; 5] = [
        SharedStrategy::RoundRobin,
        SharedStrategy::LeastInFlight,
        SharedStrategy::Sticky,
        SharedStrategy::HashTopic,
        SharedStrategy::HashClientId,
    ];

    fn shared(strategy: SharedStrategy) -> SharedSubscriptions {
        SharedSubscriptions::new(strategy, ShardIndex(1), keyed_state(1))
    }

    fn with_members(
        strategy: SharedStrategy,
        members: &[(u32, bool)],
    ) -> (SharedSubscriptions, GroupKey) {
        let mut shared = shared(strategy);
        for &(session, is_online) in members {
            shared.join(KEY, SessionKey(session), Subscription::default(), is_online);
        }
        let group = shared.find(KEY).unwrap();
        (shared, group)
    }

    fn input(hash: u64) -> ChooseInput {
        ChooseInput {
            topic_hash: hash,
            publisher_hash: hash.rotate_left(17),
        }
    }

    /// Chooses `times` times, with other hashes each time.
    fn choices(shared: &mut SharedSubscriptions, group: GroupKey, times: u64) -> Vec<Choice> {
        let hash = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (0..times)
            .filter_map(|number| shared.choose(group, input(hash(number)), |_| 0, |_| true))
            .collect()
    }

    fn local(session: u32) -> Choice {
        Choice::Local(SessionKey(session), Subscription::default())
    }

    #[test]
    fn round_robin_takes_each_member_in_turn() {
        let (mut shared, group) = with_members(
            SharedStrategy::RoundRobin,
            &[(7, true), (2, true), (5, true)],
        );
        assert_eq!(
            choices(&mut shared, group, 4),
            [local(2), local(5), local(7), local(2)]
        );
    }

    #[test]
    fn round_robin_weighs_shards_by_their_online_members() {
        let (mut shared, group) = with_members(SharedStrategy::RoundRobin, &[(1, true), (2, true)]);
        shared.set_remote(
            KEY,
            ShardIndex(0),
            MemberCounts {
                online: 1,
                total: 5,
            },
        );
        shared.set_remote(
            KEY,
            ShardIndex(2),
            MemberCounts {
                online: 3,
                total: 3,
            },
        );
        let chosen = choices(&mut shared, group, 60);
        let count = |choice| chosen.iter().filter(|&&other| other == choice).count();
        let remote = |shard| Choice::Remote(ShardIndex(shard));
        assert_eq!(
            [
                count(local(1)),
                count(local(2)),
                count(remote(0)),
                count(remote(2))
            ],
            [10, 10, 10, 30]
        );
    }

    #[test]
    fn offline_member_is_chosen_only_if_no_shard_has_one_online() {
        for strategy in STRATEGIES {
            let (mut shared, group) = with_members(strategy, &[(1, false), (2, true)]);
            assert!(
                choices(&mut shared, group, 9)
                    .iter()
                    .all(|&choice| choice == local(2))
            );
            let away = shared.set_online(KEY, SessionKey(2), false).unwrap();
            assert_eq!(
                away.local,
                MemberCounts {
                    online: 0,
                    total: 2
                }
            );
            shared.set_remote(
                KEY,
                ShardIndex(3),
                MemberCounts {
                    online: 1,
                    total: 1,
                },
            );
            let remote = Choice::Remote(ShardIndex(3));
            assert!(
                choices(&mut shared, group, 9)
                    .iter()
                    .all(|&choice| choice == remote)
            );
            shared.set_remote(
                KEY,
                ShardIndex(3),
                MemberCounts {
                    online: 0,
                    total: 1,
                },
            );
            assert_eq!(
                choices(&mut shared, group, 9).len(),
                9,
                "{strategy:?} queues for one of them"
            );
            shared.set_remote(KEY, ShardIndex(3), MemberCounts::default());
            let is_local = |choice: &Choice| matches!(choice, Choice::Local(..));
            assert!(choices(&mut shared, group, 9).iter().all(is_local));
        }
    }

    #[test]
    fn least_in_flight_takes_the_idlest_and_turns_among_equals() {
        let (mut shared, group) = with_members(
            SharedStrategy::LeastInFlight,
            &[(1, true), (2, true), (3, true)],
        );
        let busy = |session: SessionKey| if session == SessionKey(2) { 0 } else { 9 };
        assert_eq!(
            shared.choose(group, input(0), busy, |_| true),
            Some(local(2))
        );
        let all: BTreeSet<_> = choices(&mut shared, group, 3)
            .iter()
            .map(|c| format!("{c:?}"))
            .collect();
        assert_eq!(all.len(), 3);
    }

    #[test]
    fn sticky_stays_until_the_member_is_away() {
        let (mut shared, group) = with_members(SharedStrategy::Sticky, &[(5, true)]);
        assert_eq!(choices(&mut shared, group, 1), [local(5)]);
        shared.join(KEY, SessionKey(1), Subscription::default(), true);
        shared.set_remote(
            KEY,
            ShardIndex(0),
            MemberCounts {
                online: 1,
                total: 1,
            },
        );
        assert_eq!(choices(&mut shared, group, 2), [local(5), local(5)]);
        shared.set_online(KEY, SessionKey(5), false);
        assert_eq!(choices(&mut shared, group, 2), [local(1), local(1)]);
        shared.leave(KEY, SessionKey(1));
        assert_eq!(
            choices(&mut shared, group, 2),
            [Choice::Remote(ShardIndex(0)); 2]
        );
        shared.join(KEY, SessionKey(1), Subscription::default(), true);
        assert_eq!(
            choices(&mut shared, group, 2),
            [Choice::Remote(ShardIndex(0)); 2]
        );
    }

    #[test]
    fn equal_hashes_choose_the_same_member_wherever_they_are_asked() {
        for strategy in [SharedStrategy::HashTopic, SharedStrategy::HashClientId] {
            let (mut here, group) = with_members(strategy, &[(1, true), (2, true), (3, true)]);
            here.set_remote(
                KEY,
                ShardIndex(0),
                MemberCounts {
                    online: 2,
                    total: 2,
                },
            );
            let mut there = SharedSubscriptions::new(strategy, ShardIndex(0), keyed_state(1));
            there.join(KEY, SessionKey(8), Subscription::default(), true);
            there.join(KEY, SessionKey(9), Subscription::default(), true);
            there.set_remote(
                KEY,
                ShardIndex(1),
                MemberCounts {
                    online: 3,
                    total: 3,
                },
            );
            let there_group = there.find(KEY).unwrap();
            for number in 0..100_u64 {
                let input = input(number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                let from_there = there.choose(there_group, input, |_| 0, |_| true);
                match here.choose(group, input, |_| 0, |_| true).unwrap() {
                    Choice::Local(session, _) => {
                        assert_eq!(from_there, Some(Choice::Remote(ShardIndex(1))));
                        let chosen = here.choose_local(group, input, |_| 0, |_| true).unwrap();
                        assert_eq!(chosen.0, session);
                    }
                    Choice::Remote(_) => assert!(matches!(from_there, Some(Choice::Local(..)))),
                }
            }
        }
    }

    #[test]
    fn group_lasts_from_the_first_member_anywhere_to_the_last() {
        let mut shared = shared(SharedStrategy::RoundRobin);
        let counts = MemberCounts {
            online: 1,
            total: 1,
        };
        assert!(
            shared
                .set_remote(KEY, ShardIndex(0), counts)
                .unwrap()
                .is_new
        );
        let joined = shared.join(KEY, SessionKey(1), Subscription::default(), true);
        assert_eq!(
            (joined.is_new, joined.existed, joined.local),
            (false, false, counts)
        );
        let again = shared.join(KEY, SessionKey(1), Subscription::default(), true);
        assert_eq!((again.existed, again.is_announced_anew), (true, false));
        assert!(
            !shared
                .set_remote(KEY, ShardIndex(0), MemberCounts::default())
                .unwrap()
                .is_gone
        );
        assert_eq!(shared.leave(KEY, SessionKey(2)), None);
        let left = shared.leave(KEY, SessionKey(1)).unwrap();
        assert_eq!((left.is_gone, left.local), (true, MemberCounts::default()));
        assert_eq!((shared.find(KEY), shared.len()), (None, 0));
        assert_eq!(shared.choose(left.group, input(0), |_| 0, |_| true), None);
        assert_eq!(
            shared.set_remote(KEY, ShardIndex(0), MemberCounts::default()),
            None
        );
    }

    proptest! {
        #[test]
        fn choice_is_always_a_member_and_there_is_one_while_there_are_members(
            steps in proptest::collection::vec((0..5_u32, 0..4_u8, any::<u64>()), 1..80),
            strategy in select(STRATEGIES.to_vec()),
        ) {
            let mut shared = shared(strategy);
            let mut members = BTreeMap::new();
            let mut remote = 0;
            for (session, what, hash) in steps {
                let key = SessionKey(session);
                match what {
                    0 | 1 => {
                        shared.join(KEY, key, Subscription::default(), what == 0);
                        members.insert(session, what == 0);
                    }
                    2 => {
                        prop_assert_eq!(shared.leave(KEY, key).is_some(), members.remove(&session).is_some());
                    }
                    _ => {
                        remote = session % 2;
                        shared.set_remote(KEY, ShardIndex(9), MemberCounts { online: remote, total: remote });
                    }
                }
                let group = shared.find(KEY);
                prop_assert_eq!(group.is_some(), !members.is_empty() || remote > 0);
                let Some(group) = group else {
                    continue;
                };
                let is_any_online = remote > 0 || members.values().any(|&is_online| is_online);
                match shared.choose(group, input(hash), |_| 0, |_| true) {
                    Some(Choice::Local(SessionKey(chosen), _)) => {
                        prop_assert_eq!(members.get(&chosen), Some(&is_any_online));
                    }
                    Some(Choice::Remote(shard)) => prop_assert_eq!((shard, remote), (ShardIndex(9), 1)),
                    None => prop_assert!(false, "nobody chosen"),
                }
            }
        }
    }
}
