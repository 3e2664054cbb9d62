//! Tests of who gets what: overlap, changes, answers that are kept, and all of it beside a naive matcher.
//!
//! Owns: these tests. Does not own: those of one part (see there). Start reading at the naive matcher, `Model`.
//! Invariant: what the index answers is what comparing each Topic Filter answers.

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
    assert!(ask(&mut subscriptions) > 8_000, "asked for again");
}

#[test]
fn answer_that_is_not_kept_stays_as_it_is_while_somebody_has_it() {
    let limits = CacheLimits {
        topics_max: 1,
        bytes_max: 100_000,
    };
    let mut subscriptions = Subscriptions::with_cache(keyed_state(1), limits);
    for (session, filter) in [(1, "a"), (2, "b"), (3, "b"), (4, "b"), (1, "c")] {
        subscriptions.subscribe(SessionKey(session), filter, at(Qos::AtMostOnce));
    }
    drop(subscriptions.matches("kept"));
    let first = subscriptions.matches("b");
    let second = subscriptions.matches("a");
    assert_eq!((first.topic(), sessions(&first)), ("b", vec![2, 3, 4]));
    assert_eq!((second.topic(), sessions(&second)), ("a", vec![1]));
    let place = Rc::as_ptr(&second);
    drop((first, second));
    let third = subscriptions.matches("c");
    assert_eq!((third.topic(), sessions(&third)), ("c", vec![1]));
    assert_eq!(Rc::as_ptr(&third), place, "its memory is used again");
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
    (proptest::collection::vec(level, 0..4), any::<bool>()).prop_map(|(mut levels, has_rest)| {
        if has_rest || levels.is_empty() {
            levels.push("#");
        }
        levels.join("/")
    })
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
            let row = merged
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
