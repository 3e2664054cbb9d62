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
pub(crate) use self::matches::Matches;
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
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;
    use crate::keys::{ShardSet, keyed_state};

    const ONE: SessionKey = SessionKey(1);
    const TWO: SessionKey = SessionKey(2);

    fn subscriptions() -> Subscriptions {
        Subscriptions::new(keyed_state(1))
    }

    fn at(qos: Qos) -> Subscription {
        Subscription {
            qos,
            ..Subscription::default()
        }
    }

    fn is_cached(subscriptions: &Subscriptions, topic: &str) -> bool {
        let hash = text_hash(&subscriptions.hash, topic);
        subscriptions.cache.find(hash, topic).is_some()
    }

    fn sessions(matches: &Matches) -> Vec<u32> {
        matches.rows.iter().map(|row| row.session.0).collect()
    }

    /// Verifies [MQTT-3.3.4-2]: overlapping Subscriptions deliver at the maximum QoS of them.
    /// Verifies [v3.1.1 MQTT-3.3.5-1]: the same in 3.1.1.
    /// Verifies [MQTT-3.3.4-4]: one copy bears the Subscription Identifiers of all of them.
    /// Verifies [MQTT-3.3.4-3]: and does so if any of them has one.
    #[test]
    fn overlapping_subscriptions_become_one_delivery_with_all_identifiers() {
        let mut subscriptions = subscriptions();
        let with = |qos, id| Subscription {
            subscription_identifier: id,
            ..at(qos)
        };
        subscriptions.subscribe(ONE, "a/#", with(Qos::AtMostOnce, Some(7)));
        subscriptions.subscribe(ONE, "a/+", with(Qos::ExactlyOnce, None));
        subscriptions.subscribe(ONE, "a/b", with(Qos::AtLeastOnce, Some(7)));
        let matches = subscriptions.matches("a/b");
        assert_eq!(sessions(&matches), [1]);
        let grant = matches.rows[0].for_session(None).unwrap();
        assert_eq!(grant.qos, Qos::ExactlyOnce);
        assert_eq!(
            grant.subscription_identifiers.map(|all| all.to_vec()),
            Some(vec![7, 7])
        );
    }

    /// Verifies [MQTT-3.8.3-3]: nothing goes back to its publisher by a No Local Subscription.
    #[test]
    fn no_local_holds_back_only_what_it_grants_and_only_from_the_publisher() {
        let mut subscriptions = subscriptions();
        let no_local = Subscription {
            no_local: true,
            subscription_identifier: Some(1),
            retain_as_published: true,
            ..at(Qos::ExactlyOnce)
        };
        subscriptions.subscribe(ONE, "a/b", no_local);
        let matches = subscriptions.matches("a/b");
        assert_eq!(matches.rows[0].for_session(Some(ONE)), None);
        assert!(matches.rows[0].for_session(Some(TWO)).is_some());

        subscriptions.subscribe(ONE, "a/#", at(Qos::AtLeastOnce));
        let matches = subscriptions.matches("a/b");
        let own = matches.rows[0].for_session(Some(ONE)).unwrap();
        assert_eq!(
            (own.qos, own.retain_as_published),
            (Qos::AtLeastOnce, false)
        );
        assert_eq!(own.subscription_identifiers, None);
        let others = matches.rows[0].for_session(None).unwrap();
        assert_eq!(
            (others.qos, others.retain_as_published),
            (Qos::ExactlyOnce, true)
        );
        assert_eq!(
            others.subscription_identifiers.map(|all| all.to_vec()),
            Some(vec![1])
        );
    }

    /// Verifies [MQTT-4.7.2-1]: a wildcard in front does not match a `$` topic.
    /// Verifies [v3.1.1 MQTT-4.7.2-1]: the same in 3.1.1.
    #[test]
    fn wildcard_in_front_does_not_match_a_dollar_topic() {
        let mut subscriptions = subscriptions();
        subscriptions.subscribe(ONE, "#", at(Qos::AtMostOnce));
        subscriptions.subscribe(ONE, "+/x", at(Qos::AtMostOnce));
        subscriptions.subscribe(TWO, "$SYS/#", at(Qos::AtMostOnce));
        assert_eq!(sessions(&subscriptions.matches("$SYS/x")), [2]);
        assert_eq!(sessions(&subscriptions.matches("a/$SYS")), [1]);
    }

    /// Verifies [MQTT-3.8.4-3]: the same Topic Filter again replaces the Subscription.
    /// Verifies [v3.1.1 MQTT-3.8.4-3]: the same in 3.1.1.
    #[test]
    fn same_filter_again_replaces_the_subscription() {
        let mut subscriptions = subscriptions();
        let first = subscriptions.subscribe(ONE, "a", at(Qos::AtMostOnce));
        assert_eq!(
            first,
            Placed {
                existed: false,
                is_new_interest: true
            }
        );
        drop(subscriptions.matches("a"));
        let again = subscriptions.subscribe(ONE, "a", at(Qos::ExactlyOnce));
        assert_eq!(
            again,
            Placed {
                existed: true,
                is_new_interest: false
            }
        );
        let matches = subscriptions.matches("a");
        assert_eq!(
            matches.rows[0].for_session(None).unwrap().qos,
            Qos::ExactlyOnce
        );
        assert_eq!(subscriptions.len(), 1);
    }

    #[test]
    fn interest_begins_with_the_first_session_and_ends_with_the_last() {
        let mut subscriptions = subscriptions();
        subscriptions.set_remote("a/+", ShardIndex(3), true);
        assert!(
            subscriptions
                .subscribe(ONE, "a/+", at(Qos::AtMostOnce))
                .is_new_interest
        );
        assert!(
            !subscriptions
                .subscribe(TWO, "a/+", at(Qos::AtMostOnce))
                .is_new_interest
        );
        let removed = |is_last| {
            Some(Removed {
                was_last_interest: is_last,
            })
        };
        assert_eq!(subscriptions.unsubscribe(ONE, "a/+"), removed(false));
        assert_eq!(subscriptions.unsubscribe(ONE, "a/+"), None);
        assert_eq!(subscriptions.unsubscribe(TWO, "a/b"), None);
        assert_eq!(subscriptions.unsubscribe(TWO, "a/+"), removed(true));
        assert_eq!(
            subscriptions.matches("a/x").remote,
            [ShardIndex(3)].into_iter().collect()
        );
    }

    #[test]
    fn change_drops_only_the_answers_it_could_change() {
        let mut subscriptions = subscriptions();
        let topics = ["a", "a/b", "a/c", "a-b", "a0", "b/c"];
        for (filter, dropped) in [
            ("a/b", vec!["a/b"]),
            ("a/+", vec!["a", "a/b", "a/c"]),
            ("a-b/#", vec!["a-b"]),
            ("+/c", topics.to_vec()),
            ("#", topics.to_vec()),
            ("x", vec![]),
        ] {
            let before = topics.map(|topic| subscriptions.matches(topic));
            subscriptions.subscribe(ONE, filter, at(Qos::AtMostOnce));
            let gone = before
                .iter()
                .filter(|matches| !subscriptions.cache.is_current(matches));
            assert_eq!(
                gone.map(|matches| matches.topic()).collect::<Vec<_>>(),
                dropped
            );
            let before = topics.map(|topic| subscriptions.matches(topic));
            subscriptions.subscribe(ONE, filter, at(Qos::AtMostOnce));
            assert!(
                before
                    .iter()
                    .all(|matches| subscriptions.cache.is_current(matches)),
                "nothing has changed"
            );
        }
    }

    #[test]
    fn cache_keeps_its_limits_and_what_it_drops_is_not_recalled() {
        let limits = CacheLimits {
            topics_max: 3,
            bytes_max: 10_000,
        };
        let mut subscriptions = Subscriptions::with_cache(keyed_state(1), limits);
        let mut memos = Vec::new();
        for number in 0..10 {
            let mut memo = PublisherMemo::default();
            drop(subscriptions.matches_with(&mut memo, &format!("t/{number}"), |_, _| true));
            memos.push(memo);
        }
        assert_eq!(subscriptions.cache.len(), 3);
        let recalled = memos
            .iter()
            .zip(0..)
            .filter(|(memo, n)| subscriptions.recall(memo, &format!("t/{n}")).is_some());
        assert_eq!(recalled.count(), 3);

        (0..1_000).for_each(|number| {
            subscriptions.subscribe(SessionKey(number), "#", at(Qos::AtMostOnce));
        });
        drop(subscriptions.matches("t/1"));
        assert_eq!(subscriptions.cache.len(), 1);
        assert_eq!(subscriptions.matches("t/2").rows.len(), 1_000);
        assert_eq!(subscriptions.cache.len(), 1);
    }

    #[test]
    fn topics_that_go_by_push_out_nobody_and_one_that_comes_again_finds_a_place() {
        let limits = CacheLimits {
            topics_max: 3,
            bytes_max: 100_000,
        };
        let mut subscriptions = Subscriptions::with_cache(keyed_state(1), limits);
        let is_kept = |subscriptions: &mut Subscriptions, topic: &str| {
            let matches = subscriptions.matches(topic);
            subscriptions.cache.is_current(&matches)
        };
        for topic in ["a", "b", "c"] {
            assert!(is_kept(&mut subscriptions, topic));
        }
        for number in 0..1000 {
            assert!(!is_kept(&mut subscriptions, &format!("t/{number}")));
        }
        for topic in ["a", "b", "c"] {
            assert!(is_cached(&subscriptions, topic));
        }
        assert!(!is_kept(&mut subscriptions, "again"));
        assert!(is_kept(&mut subscriptions, "again"));
        assert_eq!(subscriptions.cache.len(), 3);
    }

    #[test]
    fn topics_that_are_asked_for_once_take_no_memory_beyond_a_crowd() {
        let mut subscriptions = subscriptions();
        let ask = |subscriptions: &mut Subscriptions| {
            for number in 0..20_000 {
                drop(subscriptions.matches(&format!("retained/{number}")));
            }
            subscriptions.cache.len()
        };
        assert_eq!(ask(&mut subscriptions), 4_096);
        assert!(ask(&mut subscriptions) > 12_000, "asked for again");
    }

    #[test]
    fn row_is_no_larger_than_half_a_cache_line() {
        assert!(size_of::<MatchRow>() <= 32);
    }

    #[test]
    fn places_of_a_rush_that_is_over_are_given_back() {
        let mut subscriptions = subscriptions();
        let filter = |number: u32| format!("site/{number}/+/device-{number}/#");
        for number in 0..20_000 {
            subscriptions.subscribe(ONE, &filter(number), at(Qos::AtLeastOnce));
        }
        let most = subscriptions.memory_bytes();
        for number in 10..20_000 {
            assert!(subscriptions.unsubscribe(ONE, &filter(number)).is_some());
        }
        let left = subscriptions.memory_bytes();
        assert!(left < most / 4, "{left} of {most}");
        for number in 0..10 {
            let matches = subscriptions.matches(&format!("site/{number}/x/device-{number}/y"));
            assert_eq!(sessions(&matches), [1]);
            assert!(subscriptions.unsubscribe(ONE, &filter(number)).is_some());
        }
        assert_eq!(subscriptions.index.counts(), (1, 0, 0));
    }

    #[test]
    fn depth_of_a_filter_costs_no_stack() {
        let mut subscriptions = subscriptions();
        let deep = "/".repeat(60_000);
        subscriptions.subscribe(ONE, &deep, at(Qos::AtMostOnce));
        subscriptions.subscribe(TWO, &format!("{deep}#"), at(Qos::AtMostOnce));
        assert_eq!(sessions(&subscriptions.matches(&deep)), [1, 2]);
        subscriptions.unsubscribe(ONE, &deep);
        subscriptions.unsubscribe(TWO, &format!("{deep}#"));
        assert_eq!(subscriptions.index.counts(), (1, 0, 0));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Compact,
        Subscribe(u32, String, Subscription),
        Unsubscribe(u32, String),
        Remote(String, u16, bool),
        Group(String, u32, bool),
        Match(String, Option<u32>),
    }

    fn any_subscription() -> impl Strategy<Value = Subscription> {
        let qos = select(vec![Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce]);
        (
            qos,
            any::<bool>(),
            any::<bool>(),
            proptest::option::of(1..4_u32),
        )
            .prop_map(
                |(qos, no_local, retain_as_published, subscription_identifier)| Subscription {
                    qos,
                    no_local,
                    retain_as_published,
                    subscription_identifier,
                },
            )
    }

    fn any_topic() -> impl Strategy<Value = String> {
        let level = select(vec!["a", "a", "b", "a-", "a0", "", "$s"]);
        proptest::collection::vec(level, 1..4).prop_map(|levels| levels.join("/"))
    }

    fn any_filter() -> impl Strategy<Value = String> {
        let level = select(vec!["a", "a", "b", "a-", "", "$s", "+", "+"]);
        (proptest::collection::vec(level, 0..4), any::<bool>()).prop_map(
            |(mut levels, has_rest)| {
                if has_rest || levels.is_empty() {
                    levels.push("#");
                }
                levels.join("/")
            },
        )
    }

    fn any_step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..3_u32, any_filter(), any_subscription())
                .prop_map(|(session, filter, with)| Step::Subscribe(session, filter, with)),
            2 => (0..3_u32, any_filter()).prop_map(|(session, filter)| Step::Unsubscribe(session, filter)),
            1 => (any_filter(), 0..3_u16, any::<bool>()).prop_map(|(filter, shard, is)| Step::Remote(filter, shard, is)),
            1 => (any_filter(), 0..3_u32, any::<bool>()).prop_map(|(filter, group, is)| Step::Group(filter, group, is)),
            1 => Just(Step::Compact),
            5 => (any_topic(), proptest::option::of(0..3_u32)).prop_map(|(topic, from)| Step::Match(topic, from)),
        ]
    }

    /// The same by brute force.
    #[derive(Default)]
    struct Model {
        subscriptions: BTreeMap<(u32, String), Subscription>,
        remote: BTreeSet<(String, u16)>,
        groups: BTreeSet<(String, u32)>,
    }

    type Delivery = (u32, Qos, bool, Vec<u32>);

    impl Model {
        fn deliveries(&self, topic: &str, publisher: Option<u32>) -> Vec<Delivery> {
            let mut merged = BTreeMap::<u32, Delivery>::new();
            for ((session, filter), with) in &self.subscriptions {
                let is_held_back = with.no_local && publisher == Some(*session);
                if is_held_back || !proto::topic::matches(filter, topic) {
                    continue;
                }
                let row =
                    merged
                        .entry(*session)
                        .or_insert((*session, Qos::AtMostOnce, false, vec![]));
                row.1 = row.1.max(with.qos);
                row.2 |= with.retain_as_published;
                row.3.extend(with.subscription_identifier);
                row.3.sort_unstable();
            }
            merged.into_values().collect()
        }

        fn remote(&self, topic: &str) -> ShardSet {
            let matching = self
                .remote
                .iter()
                .filter(|(filter, _)| proto::topic::matches(filter, topic));
            matching.map(|(_, shard)| ShardIndex(*shard)).collect()
        }

        fn groups(&self, topic: &str) -> Vec<GroupKey> {
            let matching = self
                .groups
                .iter()
                .filter(|(filter, _)| proto::topic::matches(filter, topic));
            matching
                .map(|(_, group)| GroupKey(*group))
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect()
        }

        fn is_wanted(&self, filter: &str) -> bool {
            self.subscriptions.keys().any(|(_, other)| other == filter)
        }
    }

    fn deliveries(matches: &Matches, publisher: Option<u32>) -> Vec<Delivery> {
        let delivery = |row: &MatchRow| {
            let grant = row.for_session(publisher.map(SessionKey))?;
            let mut identifiers = grant
                .subscription_identifiers
                .map_or(vec![], |all| all.to_vec());
            identifiers.sort_unstable();
            Some((
                row.session.0,
                grant.qos,
                grant.retain_as_published,
                identifiers,
            ))
        };
        matches.rows.iter().filter_map(delivery).collect()
    }

    /// Does one step on both and compares what they answer.
    fn step(
        subscriptions: &mut Subscriptions,
        model: &mut Model,
        memo: &mut PublisherMemo,
        step: &Step,
    ) -> Result<(), TestCaseError> {
        match step.clone() {
            Step::Subscribe(session, filter, with) => {
                let is_new_interest = !model.is_wanted(&filter);
                let placed = subscriptions.subscribe(SessionKey(session), &filter, with);
                let existed = model
                    .subscriptions
                    .insert((session, filter), with)
                    .is_some();
                prop_assert_eq!(
                    placed,
                    Placed {
                        existed,
                        is_new_interest
                    }
                );
            }
            Step::Unsubscribe(session, filter) => {
                let removed = subscriptions.unsubscribe(SessionKey(session), &filter);
                let before = model.subscriptions.remove(&(session, filter.clone()));
                let was_last_interest = !model.is_wanted(&filter);
                prop_assert_eq!(removed, before.map(|_| Removed { was_last_interest }));
            }
            Step::Remote(filter, shard, is_wanted) => {
                subscriptions.set_remote(&filter, ShardIndex(shard), is_wanted);
                change(&mut model.remote, (filter, shard), is_wanted);
            }
            Step::Group(filter, group, true) => {
                subscriptions.add_group(&filter, GroupKey(group));
                change(&mut model.groups, (filter, group), true);
            }
            Step::Group(filter, group, false) => {
                subscriptions.remove_group(&filter, GroupKey(group));
                change(&mut model.groups, (filter, group), false);
            }
            Step::Compact => subscriptions.index.trie.compact(),
            Step::Match(topic, publisher) => {
                let matches = subscriptions.matches_with(memo, &topic, |_, _| true);
                let kept = subscriptions
                    .cache
                    .find(text_hash(&subscriptions.hash, &topic), &topic);
                let is_kept = kept.is_some_and(|kept| Rc::ptr_eq(kept, &matches));
                prop_assert_eq!(subscriptions.cache.is_current(&matches), is_kept);
                prop_assert_eq!(
                    deliveries(&matches, publisher),
                    model.deliveries(&topic, publisher)
                );
                prop_assert_eq!(matches.remote, model.remote(&topic));
                prop_assert_eq!(&*matches.groups, &*model.groups(&topic));
            }
        }
        Ok(())
    }

    fn change<T: Ord>(set: &mut BTreeSet<T>, of: T, is_in: bool) {
        if is_in {
            set.insert(of);
        } else {
            set.remove(&of);
        }
    }

    proptest! {
        #[test]
        fn answers_are_those_of_a_naive_matcher(
            steps in proptest::collection::vec(any_step(), 1..60),
            topics_max in 1..6_usize,
            seed in any::<u64>(),
        ) {
            let limits = CacheLimits { topics_max, bytes_max: 2_000 };
            let mut subscriptions = Subscriptions::with_cache(keyed_state(seed % 16), limits);
            let mut model = Model::default();
            let mut memo = PublisherMemo::default();
            for each in &steps {
                step(&mut subscriptions, &mut model, &mut memo, each)?;
                prop_assert_eq!(subscriptions.len(), model.subscriptions.len());
            }
            for (session, filter) in std::mem::take(&mut model.subscriptions).into_keys() {
                prop_assert!(subscriptions.unsubscribe(SessionKey(session), &filter).is_some());
            }
            for (filter, shard) in std::mem::take(&mut model.remote) {
                subscriptions.set_remote(&filter, ShardIndex(shard), false);
            }
            for (filter, group) in std::mem::take(&mut model.groups) {
                subscriptions.remove_group(&filter, GroupKey(group));
            }
            prop_assert_eq!(subscriptions.index.counts(), (1, 0, 0));
            prop_assert_eq!(subscriptions.len(), 0);
        }
    }
}
