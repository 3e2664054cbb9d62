//! Tests of which write is the last, limits, expiry, and of replays, beside a naive filter.
//!
//! Owns: these tests. Does not own: those of a whole shard (see `tests/engine/retained.rs`). Start reading at
//! `replay_all`. Invariant: a replay finds what comparing each topic with its Topic Filter finds.

use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;
use proptest::sample::select;
use proto::Qos;
use proto::packet::{Publish, PublishProperties};

use super::entry::Small;
use super::tombstones::TOMBSTONE_TOPIC_BYTES_MAX;
use super::*;
use crate::keys::keyed_state;

const LIMITS: RetainedLimits = RetainedLimits {
    retained_messages_max: 100_000,
    retained_bytes_max: 1 << 30,
    age_max: None,
};

fn retained_on(shard: u16) -> Retained {
    Retained::new(LIMITS, ShardIndex(shard), 2, keyed_state(1))
}

fn message(topic: &str, payload: &'static str, now: Instant) -> Arc<Message> {
    Arc::new(Message::new(
        topic,
        Bytes::from_static(payload.as_bytes()),
        Qos::AtMostOnce,
        true,
        now,
    ))
}

fn expiring(topic: &str, seconds: u32, now: Instant) -> Arc<Message> {
    let mut properties = PublishProperties::default();
    properties.message_expiry_interval_seconds = Some(seconds);
    let publish = Publish {
        dup: false,
        qos: Qos::AtMostOnce,
        retain: true,
        topic,
        packet_id: None,
        properties,
        payload: b"x",
    };
    Arc::new(Message::from_publish(&publish, None, now))
}

fn now() -> Instant {
    // Any instant will do; the crate's code takes it as an argument.
    #[expect(
        clippy::disallowed_methods,
        reason = "tests have no other way to make an Instant"
    )]
    Instant::now()
}

fn payload_of(retained: &Retained, topic: &str, now: Instant) -> Option<Vec<u8>> {
    retained
        .find(topic, now)
        .map(|message| message.payload().to_vec())
}

/// The next of a replay that looks at so many topics.
fn next(
    replay: &mut Replay,
    retained: &Retained,
    now: Instant,
    looks: &mut usize,
) -> Vec<Arc<Message>> {
    let (mut batch, bytes) = (Vec::new(), usize::MAX);
    let mut budget = Budget {
        looks: *looks,
        bytes,
    };
    replay.next_batch(retained, now, &mut budget, &mut batch);
    *looks = budget.looks;
    batch
}

fn replay_all(retained: &Retained, filter: &str, now: Instant, budget: usize) -> Vec<String> {
    let mut replay = Replay::new(filter);
    let mut topics = Vec::new();
    while !replay.is_done() {
        let batch = next(&mut replay, retained, now, &mut { budget });
        assert!(batch.len() <= budget);
        topics.extend(batch.iter().map(|message| message.topic().to_owned()));
    }
    topics
}

/// Verifies [MQTT-3.3.1-5]: a Retained Message takes the place of the one before.
/// Verifies [MQTT-3.3.1-6]: an empty payload removes it.
/// Verifies [MQTT-3.3.1-7]: and is not retained itself.
/// Verifies [v3.1.1 MQTT-3.3.1-5]: the same in 3.1.1.
/// Verifies [v3.1.1 MQTT-3.3.1-7]: one with QoS 0 takes the place of another, too.
/// Verifies [v3.1.1 MQTT-3.3.1-10]: the same in 3.1.1.
/// Verifies [v3.1.1 MQTT-3.3.1-11]: the same in 3.1.1.
#[test]
fn last_message_of_a_topic_is_retained_until_an_empty_one() {
    let (mut retained, now) = (retained_on(0), now());
    retained.publish(&message("a", "1", now)).unwrap();
    let (_, applied) = retained.publish(&message("a", "2", now)).unwrap();
    assert_eq!(applied, Applied::Stored(Some(message("a", "1", now))));
    assert_eq!(payload_of(&retained, "a", now), Some(b"2".to_vec()));
    let (_, applied) = retained.publish(&message("a", "", now)).unwrap();
    assert_eq!(applied, Applied::Removed(Some(message("a", "2", now))));
    assert_eq!(
        (retained.find("a", now), retained.len(), retained.bytes()),
        (None, 0, 0)
    );
}

#[test]
fn two_shards_agree_in_whatever_order_writes_arrive() {
    let now = now();
    let (mut here, mut there) = (retained_on(0), retained_on(1));
    let set = message("a", "set", now);
    let clear = message("a", "", now);
    let (set_at, _) = here.publish(&set).unwrap();
    let (clear_at, _) = there.publish(&clear).unwrap();
    assert!(set_at < clear_at, "equal counters: the shard settles it");
    assert_eq!(
        here.apply(&clear, clear_at),
        Applied::Removed(Some(Arc::clone(&set)))
    );
    assert_eq!(there.apply(&set, set_at), Applied::Superseded);
    assert_eq!((here.find("a", now), there.find("a", now)), (None, None));

    let (again_at, _) = here.publish(&set).unwrap();
    assert!(again_at > clear_at, "what a shard has seen is in its past");
    assert_eq!(there.apply(&set, again_at), Applied::Stored(None));
    assert_eq!(there.apply(&set, again_at), Applied::Superseded);
    assert_eq!(payload_of(&there, "a", now), Some(b"set".to_vec()));
}

#[test]
fn stamp_and_arrival_are_kept_whole_in_14_bytes() {
    for arrival in [0, 1, 0xffff, 0x1_0000, 0x1234_5678_9abc, (1 << 48) - 1] {
        let stamp = Stamp {
            counter: Small::MAX - arrival,
            shard: ShardIndex(63),
        };
        let entry = Entry::new(stamp, arrival);
        assert_eq!((entry.stamp(), entry.arrival()), (stamp, arrival));
    }
    assert_eq!(size_of::<Entry>(), 14);
}

#[test]
fn tombstones_are_bounded() {
    let (mut retained, now) = (retained_on(0), now());
    for number in 0..TOMBSTONES_MAX + 100 {
        retained
            .publish(&message(&number.to_string(), "", now))
            .unwrap();
    }
    assert_eq!(retained.tombstones.order.len(), TOMBSTONES_MAX);
    assert_eq!(retained.tombstones.by_topic.len(), TOMBSTONES_MAX);
    let long = "x".repeat(60_000);
    for number in 0..100 {
        retained
            .publish(&message(&format!("{number}{long}"), "", now))
            .unwrap();
    }
    assert!(retained.tombstones.topic_bytes <= TOMBSTONE_TOPIC_BYTES_MAX + 2 * long.len());
}

#[test]
fn filter_that_nothing_retained_matches_is_done_after_two_looks_and_another_loses_nothing() {
    let (mut retained, now) = (retained_on(0), now());
    for topic in ["$SYS/a", "a/b", "a/c/d", "b/1/x", "b/2/x"] {
        retained.publish(&message(topic, "1", now)).unwrap();
    }
    for filter in ["c/#", "a/d", "z/+"] {
        let mut replay = Replay::new(filter);
        replay.seek(&retained, 2);
        assert!(replay.is_done(), "{filter}");
    }
    for (filter, count) in [("#", 4), ("b/+/x", 2), ("a/#", 2), ("a/c/d", 1)] {
        let mut replay = Replay::new(filter);
        replay.seek(&retained, 2);
        let mut budget = 20;
        let found = next(&mut replay, &retained, now, &mut budget);
        assert_eq!(found.len(), count, "{filter}");
        assert!(replay.is_done() && budget > 0, "{filter}: {budget} left");
    }
}

/// Verifies [MQTT-3.3.2-5]: a message whose Message Expiry Interval has passed goes to nobody.
#[test]
fn expired_message_is_neither_found_nor_replayed_and_then_removed() {
    let (mut retained, start) = (retained_on(0), now());
    retained.publish(&expiring("a/1", 10, start)).unwrap();
    retained.publish(&expiring("a/2", 5, start)).unwrap();
    retained.publish(&message("a/3", "x", start)).unwrap();
    let later = start + Duration::from_secs(10);
    assert_eq!(retained.next_expiry(), Some(start + Duration::from_secs(5)));
    assert_eq!(retained.find("a/1", later), None);
    assert_eq!(replay_all(&retained, "a/+", later, 7), ["a/3"]);
    let removed = retained.remove_expired(later, 1);
    assert_eq!(
        removed
            .iter()
            .map(|message| message.topic())
            .collect::<Vec<_>>(),
        ["a/2"]
    );
    assert_eq!(retained.remove_expired(later, 10).len(), 1);
    assert_eq!((retained.next_expiry(), retained.len()), (None, 1));
}

#[test]
fn message_without_an_expiry_goes_at_the_greatest_age() {
    let limits = RetainedLimits {
        age_max: Some(Duration::from_secs(8)),
        ..LIMITS
    };
    let (mut retained, start) = (
        Retained::new(limits, ShardIndex(0), 1, keyed_state(1)),
        now(),
    );
    retained.publish(&expiring("long", 10, start)).unwrap();
    retained.publish(&expiring("short", 5, start)).unwrap();
    retained.publish(&message("none", "x", start)).unwrap();
    let mut gone: Vec<Vec<String>> = Vec::new();
    for seconds in [4, 5, 7, 8] {
        let later = start + Duration::from_secs(seconds);
        let removed = retained.remove_expired(later, 9);
        gone.push(removed.iter().map(|one| one.topic().to_owned()).collect());
    }
    let expected: [Vec<&str>; 4] = [vec![], vec!["short"], vec![], vec!["long", "none"]];
    assert_eq!(gone, expected);
    assert_eq!((retained.len(), retained.next_expiry()), (0, None));
    assert!(retained.expiries.is_empty());
}

#[test]
fn limits_refuse_one_more_but_not_a_replacement_or_a_removal() {
    let now = now();
    let one = cost_bytes(&message("a", "1", now));
    let limits = RetainedLimits {
        retained_messages_max: 2,
        retained_bytes_max: 3 * one,
        age_max: None,
    };
    let mut retained = Retained::new(limits, ShardIndex(0), 1, keyed_state(1));
    retained.publish(&expiring("a", 1, now)).unwrap();
    retained.publish(&message("b", "1", now)).unwrap();
    let refused = retained.publish(&message("c", "1", now));
    assert_eq!(refused, Err(RetainedRefusal::TooManyMessages));
    assert!(retained.publish(&message("b", "2", now)).is_ok());
    let long = message(&"b".repeat(4 * one), "1", now);
    assert!(retained.publish(&message("b", "", now)).is_ok());
    assert_eq!(retained.publish(&long), Err(RetainedRefusal::TooManyBytes));
    retained.publish(&message("b", "1", now)).unwrap();
    let later = now + Duration::from_secs(1);
    assert_eq!(retained.remove_expired(later, 9).len(), 1);
    assert!(
        retained.publish(&message("c", "1", later)).is_ok(),
        "room by expiry"
    );
}

#[test]
fn replay_of_one_level_among_many_does_not_look_at_all_topics() {
    let (mut retained, now) = (retained_on(0), now());
    for (device, value) in (0..50).flat_map(|device| (0..50).map(move |value| (device, value))) {
        retained
            .publish(&message(&format!("d{device}/v{value}"), "x", now))
            .unwrap();
    }
    retained.publish(&message("$SYS/v7", "x", now)).unwrap();
    let mut replay = Replay::new("+/v7");
    let found = next(&mut replay, &retained, now, &mut { 50 * 3 + 2 });
    assert_eq!((found.len(), replay.is_done()), (50, true));
    let mut replay = Replay::new("d9/#");
    assert_eq!(next(&mut replay, &retained, now, &mut { 51 }).len(), 50);
}

#[test]
fn replay_goes_on_over_changes_in_between() {
    let (mut retained, now) = (retained_on(0), now());
    for topic in ["a/1", "a/2", "a/3"] {
        retained.publish(&message(topic, "x", now)).unwrap();
    }
    let mut replay = Replay::new("a/+");
    assert_eq!(
        next(&mut replay, &retained, now, &mut { 1 }),
        [message("a/1", "x", now)]
    );
    retained.publish(&message("a/1", "", now)).unwrap();
    retained.publish(&message("a/2", "new", now)).unwrap();
    let rest = next(&mut replay, &retained, now, &mut { 9 });
    assert_eq!(rest, [message("a/2", "new", now), message("a/3", "x", now)]);
    assert!(replay.is_done());
}

fn any_text(levels: Vec<&'static str>) -> impl Strategy<Value = String> {
    proptest::collection::vec(select(levels), 1..5).prop_map(|levels| levels.join("/"))
}

fn any_filter() -> impl Strategy<Value = String> {
    let level = vec!["a", "b", "a-", "a0", "", "$s", "+", "+"];
    (any_text(level), any::<bool>())
        .prop_map(|(text, has_rest)| if has_rest { format!("{text}/#") } else { text })
}

proptest! {
    #[test]
    fn replay_finds_what_a_naive_filter_finds(
        topics in proptest::collection::btree_set(
            any_text(vec!["a", "b", "a-", "a0", "a!", "", "$s", "%", "\u{10ffff}"]), 0..60),
        filters in proptest::collection::vec(any_filter(), 1..8),
        budget in 1..9_usize,
    ) {
        let (mut retained, now) = (retained_on(0), now());
        let topics: BTreeSet<_> = topics.into_iter().filter(|topic| !topic.is_empty()).collect();
        for topic in &topics {
            prop_assert!(retained.publish(&message(topic, "x", now)).is_ok());
        }
        for filter in filters.iter().map(String::as_str).chain(["#", "+", "+/#"]) {
            if filter.is_empty() {
                continue;
            }
            let naive = topics.iter().filter(|topic| proto::topic::matches(filter, topic));
            let naive: Vec<_> = naive.cloned().collect();
            prop_assert_eq!(replay_all(&retained, filter, now, budget), naive, "{}", filter);
        }
    }
}

#[test]
fn what_the_server_says_of_itself_takes_no_room_from_others() {
    let now = now();
    let one = cost_bytes(&message("a", "1", now));
    let limits = RetainedLimits {
        retained_messages_max: 2,
        retained_bytes_max: 2 * one,
        age_max: None,
    };
    let mut retained = Retained::new(limits, ShardIndex(0), 1, keyed_state(1));
    let put = |retained: &mut Retained, topic: &str, payload| {
        retained.publish(&message(topic, payload, now)).is_ok()
    };
    for number in 0..9 {
        assert!(put(&mut retained, &format!("$SYS/{number}"), "1"));
        assert!(put(&mut retained, &format!("$SYS/{number}"), "2"));
    }
    assert!(put(&mut retained, "a", "1") && put(&mut retained, "b", "1"));
    assert!(!put(&mut retained, "c", "1") && !retained.lacks_room("b", 0));
    assert!(retained.lacks_room("c", 0));
    assert!(put(&mut retained, "$SYS", "full, and it is still said"));
    // What is gone gives back what it took.
    for number in 0..9 {
        assert!(put(&mut retained, &format!("$SYS/{number}"), ""));
    }
    assert!(put(&mut retained, "a", "") && put(&mut retained, "c", "1"));
    assert!(!put(&mut retained, "d", "1"));
}

/// A Client may ask about such a topic before it hears that it may not publish there.
#[test]
fn topic_of_the_server_lacks_no_room_where_clients_have_none() {
    let now = now();
    let limits = RetainedLimits {
        retained_messages_max: 0,
        retained_bytes_max: 0,
        age_max: None,
    };
    let mut retained = Retained::new(limits, ShardIndex(0), 1, keyed_state(1));
    assert!(retained.publish(&message("$SYS/a", "1", now)).is_ok());
    assert!(!retained.lacks_room("$SYS/a", 0) && !retained.lacks_room("$SYS/b", 9));
    assert!(retained.lacks_room("a", 0));
}

#[test]
fn replay_stops_where_its_bytes_are_used_up_and_goes_on_there() {
    let (mut retained, now) = (retained_on(0), now());
    let one = message("a/1", "x", now);
    for number in 1..=7 {
        retained
            .publish(&message(&format!("a/{number}"), "x", now))
            .unwrap();
    }
    let mut replay = Replay::new("a/#");
    let mut batches = Vec::new();
    while !replay.is_done() {
        let mut batch = Vec::new();
        let mut budget = Budget {
            looks: 100,
            bytes: 2 * one.memory_bytes() + 1,
        };
        replay.next_batch(&retained, now, &mut budget, &mut batch);
        batches.push(batch.len());
    }
    assert_eq!(batches, [3, 3, 1]);
}
