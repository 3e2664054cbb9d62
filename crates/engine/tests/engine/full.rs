//! Subscribers that have no room: what their publishers hear, and who loses what.

use std::num::NonZeroU16;
use std::time::Duration;

use proto::Version;
use proto::connection::Outgoing;
use proto::packet::ReasonCode;
use vencejo_engine::{Hold, Limits, OverflowPolicy};

use crate::world::{Client, World, durable, id, name_in, payload, publish};

/// Two messages have a place in each queue.
fn limits() -> Limits {
    Limits {
        queued_messages_max: 2,
        overflow_patience: PATIENCE,
        ..Limits::default()
    }
}

const PATIENCE: Duration = Duration::from_secs(10);

/// What a PUBACK or PUBREC to each of these messages says.
fn answers(world: &mut World, sender: Client, qos: u8, texts: &[&str]) -> Vec<ReasonCode> {
    for text in texts {
        world.publish(sender, "a", qos, text);
    }
    let packets = world.received(sender).into_iter();
    let reasons = packets.filter_map(|packet| match packet {
        Outgoing::PubAck(ack) | Outgoing::PubRec(ack) => Some(ack.reason),
        _ => None,
    });
    reasons.collect()
}

fn away(world: &mut World, client_id: &str) {
    let client = world.connect_with(durable(client_id));
    world.subscribe(client, "a", 1);
    world.lose(client);
}

fn texts(world: &mut World, client_id: &str) -> Vec<String> {
    let client = world.connect_with(durable(client_id));
    world.drain(client).iter().map(payload).collect()
}

/// Promise P5.
#[test]
fn publisher_hears_that_a_queue_is_full_and_what_was_acknowledged_is_kept() {
    for (shards, qos) in [(1, 1), (1, 2), (2, 1)] {
        let mut world = World::with(shards, limits());
        away(&mut world, "receiver");
        let sender = world.connect("sender");
        let answers = answers(&mut world, sender, qos, &["0", "1", "2", "3", "4"]);
        let kept = answers.iter().filter(|reason| !reason.is_error()).count();
        assert!((2..=3).contains(&kept), "{answers:?}");
        assert!(
            answers[kept..]
                .iter()
                .all(|one| *one == ReasonCode::QuotaExceeded)
        );
        assert_eq!(texts(&mut world, "receiver"), ["0", "1", "2"][..kept]);
        let lost: u64 = world
            .engines
            .iter()
            .map(|one| one.counters().dropped_queue_full)
            .sum();
        assert_eq!(lost, 0);
    }
}

#[test]
fn publisher_of_an_older_version_waits_for_room_and_others_do_not() {
    let mut world = World::with(1, limits());
    world.version = Version::V311;
    let sender = world.connect_311("sender", true);
    away(&mut world, "receiver");
    let now = world.now;
    let engine = |world: &mut World, topic, qos| {
        let publish = publish(topic, qos, "x", id(9));
        world.engines[0].must_wait(sender.key, &publish, now)
    };
    assert_eq!(engine(&mut world, "a", 1), None);
    answers(&mut world, sender, 1, &["0", "1"]);
    assert_eq!(engine(&mut world, "a", 1), Some(Hold::Room));
    assert_eq!(engine(&mut world, "a", 2), Some(Hold::Room));
    assert_eq!(engine(&mut world, "a", 0), None, "promises nothing");
    assert_eq!(engine(&mut world, "b", 1), None, "is for nobody");
    assert_eq!(texts(&mut world, "receiver"), ["0", "1"]);
    assert_eq!(engine(&mut world, "a", 1), None);
}

/// Promise P2: one Session that nobody empties holds up the others for a while and no longer, and loses alone.
#[test]
fn full_session_is_waited_for_only_so_long_and_then_loses_alone() {
    for shards in [1, 2] {
        let mut world = World::with(shards, limits());
        away(&mut world, "dead");
        let healthy = world.connect_with(durable("healthy"));
        world.subscribe(healthy, "a", 1);
        let sender = world.connect("sender");
        let before = answers(&mut world, sender, 1, &["0", "1", "2", "3"]);
        assert_eq!(before.last(), Some(&ReasonCode::QuotaExceeded));
        world.drain(healthy);
        world.advance(PATIENCE.as_secs());
        let after = answers(&mut world, sender, 1, &["4", "5", "6"]);
        assert_eq!(after, [ReasonCode::Success; 3], "{shards}");
        let seen: Vec<_> = world.drain(healthy).iter().map(payload).collect();
        assert_eq!(seen, ["4", "5", "6"]);
        let losers: Vec<_> = world
            .engines
            .iter()
            .flat_map(|one| one.losers(10))
            .collect();
        assert_eq!(losers.len(), 1);
        assert_eq!((&*losers[0].0, losers[0].1.queue_full), ("dead", 3));
        // Nobody else is there: what would be lost is refused.
        world.lose(healthy);
        let healthy = world.connect_with(durable("healthy"));
        world.unsubscribe(healthy, "a");
        assert_eq!(
            answers(&mut world, sender, 1, &["7"]),
            [ReasonCode::QuotaExceeded]
        );
    }
}

#[test]
fn member_with_room_is_chosen_and_only_if_none_has_any_the_publisher_hears_of_it() {
    for shards in [1, 2] {
        let mut world = World::with(shards, limits());
        for client_id in ["one", "two", "three"] {
            let client = world.connect_with(durable(client_id));
            world.subscribe(client, "$share/group/a", 1);
            world.lose(client);
        }
        let sender = world.connect("sender");
        let texts: Vec<_> = (0..20).map(|number| number.to_string()).collect();
        let texts: Vec<_> = texts.iter().map(String::as_str).collect();
        let answers = answers(&mut world, sender, 1, &texts);
        let kept = texts
            .iter()
            .zip(&answers)
            .filter(|(_, one)| !one.is_error());
        let mut kept: Vec<_> = kept.map(|(text, _)| (*text).to_owned()).collect();
        assert!((6..=9).contains(&kept.len()), "{shards}: {answers:?}");
        let mut seen: Vec<_> = ["one", "two", "three"]
            .into_iter()
            .flat_map(|client_id| self::texts(&mut world, client_id))
            .collect();
        seen.sort();
        kept.sort();
        assert_eq!(seen, kept);
    }
}

#[test]
fn room_is_there_again_once_some_of_the_queue_is_taken() {
    let mut world = World::with(2, limits());
    away(&mut world, "receiver");
    let sender = world.connect("sender");
    answers(&mut world, sender, 1, &["0", "1", "2", "3"]);
    assert!(texts(&mut world, "receiver").len() >= 2);
    assert_eq!(
        answers(&mut world, sender, 1, &["4"]),
        [ReasonCode::Success]
    );
}

#[test]
fn short_memory_refuses_what_would_grow_and_keeps_what_was_taken() {
    let mut world = World::without_loads(Limits::default());
    let receiver = world.connect_with(durable("receiver"));
    world.subscribe(receiver, "a", 1);
    world.lose(receiver);
    let sender = world.connect("sender");
    assert_eq!(
        answers(&mut world, sender, 1, &["0"]),
        [ReasonCode::Success]
    );
    let now = world.now;
    world.engines[0].on_memory_short(true, now);
    assert_eq!(
        answers(&mut world, sender, 1, &["1"]),
        [ReasonCode::QuotaExceeded]
    );
    assert_eq!(
        world.subscribe(sender, "new", 1),
        [ReasonCode::QuotaExceeded]
    );
    world.publish_retained(sender, "b", 1, "x");
    assert!(matches!(
        world.received(sender).as_slice(),
        [Outgoing::PubAck(ack)] if ack.reason == ReasonCode::QuotaExceeded
    ));
    world.engines[0].on_memory_short(false, now);
    world.settle();
    assert_eq!(
        answers(&mut world, sender, 1, &["2"]),
        [ReasonCode::Success]
    );
    assert_eq!(texts(&mut world, "receiver"), ["0", "2"]);
}

/// Found by a flood for a Session that is away, with memory short: it was full and then not, and what came in between was
/// acknowledged and lost.
#[test]
fn session_without_memory_stays_full_for_other_shards_however_long_it_takes() {
    let mut world = World::with_config(2, Limits::default(), |config| {
        config.sys_interval = Duration::ZERO;
        config.can_load = false;
    });
    let receiver = world.connect_with(durable("receiver"));
    world.subscribe(receiver, "a", 1);
    world.lose(receiver);
    let senders = (0..).map(|number| world.connect(&format!("sender-{number}")));
    let elsewhere = |sender: &Client| sender.shard != receiver.shard;
    let sender = senders.into_iter().find(elsewhere).expect("two shards");
    let big = "x".repeat(100_000);
    assert_eq!(
        answers(&mut world, sender, 1, &[&big]),
        [ReasonCode::Success]
    );
    let now = world.now;
    for engine in &mut world.engines {
        engine.on_memory_short(true, now);
    }
    // The first may be on its way when the other shard is asked for it, and is kept.
    answers(&mut world, sender, 1, &[&big]);
    for _ in 0..5 {
        let answers = answers(&mut world, sender, 1, &[&big, &big, &big]);
        assert_eq!(answers, [ReasonCode::QuotaExceeded; 3]);
        world.advance(PATIENCE.as_secs());
    }
    let lost = world
        .engines
        .iter()
        .map(|one| one.counters().dropped_queue_full);
    assert_eq!(lost.sum::<u64>(), 0);
}

/// How many of these are taken before the first that is refused, and whether it is.
fn taken(answers: &[ReasonCode]) -> (usize, Option<ReasonCode>) {
    let refused = answers.iter().position(|one| one.is_error());
    let count = refused.unwrap_or(answers.len());
    (count, answers.get(count).copied())
}

/// Eight messages have a place in the queue of `reader`, which is away, and somebody else takes them at once.
fn world_of_eight() -> (World, Client) {
    let mut world = World::with(1, eight(OverflowPolicy::Refuse));
    away(&mut world, "reader");
    let healthy = world.connect_clean("healthy");
    world.subscribe(healthy, "a", 1);
    let sender = world.connect("sender");
    (world, sender)
}

fn eight(overflow_policy: OverflowPolicy) -> Limits {
    Limits {
        queued_messages_max: 8,
        overflow_policy,
        ..limits()
    }
}

const TEN: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
const NINTH_IS_REFUSED: (usize, Option<ReasonCode>) = (8, Some(ReasonCode::QuotaExceeded));

/// Promise P5: who was full, has taken everything and is full again later is waited for again.
#[test]
fn session_that_has_emptied_its_queue_is_waited_for_as_if_it_were_the_first_time() {
    let (mut world, sender) = world_of_eight();
    assert_eq!(
        taken(&answers(&mut world, sender, 1, &TEN)),
        NINTH_IS_REFUSED
    );
    let mut connect = durable("reader");
    connect.properties.receive_maximum = NonZeroU16::new(1);
    let reader = world.connect_with(connect);
    assert_eq!(world.drain(reader).len(), 8);
    world.lose(reader);
    world.advance(3600);
    assert_eq!(
        taken(&answers(&mut world, sender, 1, &TEN)),
        NINTH_IS_REFUSED
    );
}

/// The same of who was full when the policy was another one for a while.
#[test]
fn session_is_waited_for_anew_after_another_policy_was_in_force() {
    let (mut world, sender) = world_of_eight();
    assert_eq!(
        taken(&answers(&mut world, sender, 1, &TEN)),
        NINTH_IS_REFUSED
    );
    world.set_limits(eight(OverflowPolicy::DropNewest));
    world.advance(3600);
    world.set_limits(eight(OverflowPolicy::Refuse));
    let refused = (0, Some(ReasonCode::QuotaExceeded));
    assert_eq!(taken(&answers(&mut world, sender, 1, &TEN)), refused);
}

/// A Session of shard 1 that is away.
fn away_in_other(world: &mut World, what: &str, filter: &str) -> String {
    let name = name_in(1, 2, what);
    let client = world.connect_with(durable(&name));
    world.subscribe(client, filter, 1);
    world.lose(client);
    name
}

/// Publishes to `topic` until somebody has no room.
fn fill(world: &mut World, sender: Client, topic: &str) {
    for _ in 0..10 {
        world.publish(sender, topic, 1, "x");
        let refused = world.take(sender, |packet| match packet {
            Outgoing::PubAck(ack) => Some(ack.reason.is_error()),
            _ => None,
        });
        if refused.expect("a PUBACK") {
            return;
        }
    }
    panic!("{topic}: there is always room");
}

/// Promises P2, P5: publishers in another shard do not wait for who was given up because somebody else has become full there.
#[test]
fn session_that_is_given_up_stays_so_whoever_else_is_full_in_its_shard() {
    // A Topic Filter of its own, the same one, and Shared Subscriptions.
    for (dead, late, late_topic) in [
        ("a", "b", "b"),
        ("a", "a", "a"),
        ("$share/one/a", "$share/two/b", "b"),
    ] {
        let mut world = World::with(2, limits());
        let sender = world.connect(&name_in(0, 2, "sender"));
        away_in_other(&mut world, "dead", dead);
        fill(&mut world, sender, "a");
        let healthy = world.connect_clean(&name_in(0, 2, "healthy"));
        world.subscribe(healthy, "a", 1);
        for _ in 0..3 {
            world.advance(PATIENCE.as_secs());
            let name = away_in_other(&mut world, "late", late);
            fill(&mut world, sender, late_topic);
            if late_topic == "a" {
                // This one is waited for, and comes and takes all.
                let late = world.resume(&name).0;
                world.drain(late);
            }
            let answers = answers(&mut world, sender, 1, &["1"]);
            assert_eq!(answers, [ReasonCode::Success], "{dead} {late}");
            let late = world.resume(&name).0;
            world.drain(late);
        }
    }
}
