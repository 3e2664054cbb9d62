//! While the disk runs low: what is refused, what waits, what goes on.

use std::time::Duration;

use proto::Version;
use proto::connection::Outgoing;
use proto::packet::{Ack, ReasonCode};
use store::Level;
use vencejo_engine::{Hold, Levels, Limits};

use crate::world::{Client, World, id, publish};

/// Topics under `mem/` are not worth to be stored.
fn world(shards: u16, version: Version) -> World {
    let mut world = World::with_config(shards, Limits::default(), |config| {
        config.sys_interval = Duration::ZERO;
        config.levels = Levels {
            default: Level::Synced,
            filters: vec![("mem/#".to_owned(), Level::Memory)],
        };
    });
    world.version = version;
    world
}

fn set_low(world: &mut World, is_low: bool) {
    for engine in &mut world.engines {
        engine.on_storage_low(is_low);
    }
}

fn refused(world: &World) -> u64 {
    let engines = world.engines.iter();
    engines
        .map(|engine| engine.counters().dropped_storage_low)
        .sum()
}

fn answer(world: &mut World, client: Client) -> Ack {
    match world.next(client) {
        Some(Outgoing::PubAck(ack) | Outgoing::PubRec(ack)) => ack,
        other => panic!("expected PUBACK or PUBREC, found {other:?}"),
    }
}

/// Verifies [MQTT-4.3.2-4] [MQTT-4.3.3-8] and sections 3.4.2.1 and 3.5.2.1: what cannot be kept is not taken,
/// and the answer says why.
#[test]
fn a_message_that_would_be_stored_is_refused_until_there_is_room() {
    for shards in [1, 3] {
        let mut world = world(shards, Version::V5);
        let (sender, receiver) = (world.connect_clean("sender"), world.connect("receiver"));
        world.subscribe(receiver, "#", 1);
        world.lose(receiver);
        set_low(&mut world, true);
        let before = world.records().len();
        for qos in 1..=2 {
            world.publish(sender, "a", qos, "x");
            let ack = answer(&mut world, sender);
            assert_eq!(ack.reason, ReasonCode::QuotaExceeded);
            let why = ack
                .properties
                .and_then(|properties| properties.reason_string);
            assert_eq!(why.as_deref(), Some("the disk of the server runs low"));
        }
        assert_eq!((refused(&world), world.records().len()), (2, before));
        set_low(&mut world, false);
        for qos in 1..=2 {
            world.publish(sender, "a", qos, "y");
            assert_eq!(answer(&mut world, sender).reason, ReasonCode::Success);
        }
        let receiver = world.connect("receiver");
        let texts: Vec<_> = world
            .drain(receiver)
            .iter()
            .map(crate::world::payload)
            .collect();
        assert_eq!(texts, ["y", "y"]);
        assert_eq!(refused(&world), 2);
    }
}

/// What is not stored is not refused, whoever gets it.
#[test]
fn what_is_not_stored_goes_on() {
    let mut world = world(1, Version::V5);
    let (sender, receiver) = (world.connect_clean("sender"), world.connect("receiver"));
    let online = world.connect_clean("online");
    world.subscribe(online, "#", 2);
    world.subscribe(receiver, "kept/#", 1);
    world.subscribe(receiver, "mem/#", 1);
    set_low(&mut world, true);
    let before = world.records().len();
    for (topic, qos) in [("a", 0), ("a", 1), ("a", 2), ("mem/a", 2), ("kept/a", 0)] {
        world.publish(sender, topic, qos, "x");
    }
    world.publish_retained(sender, "mem/b", 1, "x");
    assert_eq!(world.drain(online).len(), 6);
    assert_eq!(refused(&world), 0);
    assert_eq!(world.records().len(), before);
    world.publish(sender, "kept/a", 1, "x");
    world.publish_retained(sender, "b", 0, "x");
    world.publish_retained(sender, "b", 1, "x");
    assert_eq!(refused(&world), 3);
    assert_eq!(world.records().len(), before);
}

/// A QoS 2 identifier of a Session that is kept makes the log grow as well.
#[test]
fn a_qos2_message_of_a_durable_session_is_refused() {
    let mut world = world(1, Version::V5);
    let sender = world.connect("sender");
    set_low(&mut world, true);
    for (topic, expected) in [
        ("a", ReasonCode::QuotaExceeded),
        ("mem/a", ReasonCode::NoMatchingSubscribers),
    ] {
        world.publish(sender, topic, 2, "x");
        assert_eq!(answer(&mut world, sender).reason, expected);
    }
    world.publish(sender, "a", 1, "x");
    assert_eq!(
        answer(&mut world, sender).reason,
        ReasonCode::NoMatchingSubscribers
    );
}

#[test]
fn a_shared_subscription_with_a_durable_member_counts_as_stored() {
    for shards in [1, 3] {
        let mut world = world(shards, Version::V5);
        let sender = world.connect_clean("sender");
        for number in 0..4 {
            let member = world.connect(&format!("member-{number}"));
            world.subscribe(member, "$share/g/a", 1);
        }
        set_low(&mut world, true);
        world.publish(sender, "a", 1, "x");
        let ack = answer(&mut world, sender);
        assert_eq!(ack.reason, ReasonCode::QuotaExceeded);
    }
}

/// A repeat is answered as what it is, before it is asked whether there is room: if it was refused, its Client would
/// use the identifier for another message, and that one would be taken for the repeat.
/// Verifies [MQTT-4.3.3-10]: the repeat is not a message of its own.
#[test]
fn a_repeated_qos2_message_to_be_retained_is_not_refused() {
    let mut world = world(1, Version::V5);
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    world.subscribe(receiver, "r", 2);
    let mut retained = publish("r", 2, "x", id(7));
    retained.retain = true;
    for is_low in [false, true] {
        set_low(&mut world, is_low);
        world.send_publish(sender, &retained);
        world.settle();
        assert_eq!(answer(&mut world, sender).reason, ReasonCode::Success);
    }
    world.pubrel(sender, 7);
    assert!(matches!(world.next(sender), Some(Outgoing::PubComp(_))));
    set_low(&mut world, false);
    world.send_publish(sender, &publish("r", 2, "y", id(7)));
    world.settle();
    answer(&mut world, sender);
    assert_eq!(world.payloads(receiver), ["x", "y"]);
}

/// Verifies [MQTT-4.3.3-4] [MQTT-4.3.3-10] [MQTT-4.3.3-11]: what was taken is brought to its end.
#[test]
fn what_makes_room_goes_on() {
    let mut world = world(1, Version::V5);
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    world.subscribe(receiver, "#", 2);
    world.publish_retained(sender, "r", 1, "x");
    answer(&mut world, sender);
    world.send_publish(sender, &publish("a", 2, "x", id(7)));
    world.settle();
    answer(&mut world, sender);
    set_low(&mut world, true);
    // The same once more, its end, the deliveries, and a removal.
    world.send_publish(sender, &publish("a", 2, "x", id(7)));
    world.settle();
    assert_eq!(answer(&mut world, sender).reason, ReasonCode::Success);
    world.pubrel(sender, 7);
    assert!(matches!(world.next(sender), Some(Outgoing::PubComp(_))));
    assert_eq!(world.drain(receiver).len(), 2);
    assert_eq!(world.engines[0].counters().queued_messages, 0);
    world.publish_retained(sender, "r", 1, "");
    assert_eq!(answer(&mut world, sender).reason, ReasonCode::Success);
    assert_eq!(world.unsubscribe(receiver, "#").len(), 1);
    assert_eq!(world.engines[0].counters().retained_messages, 0);
    assert_eq!(refused(&world), 0);
}

/// 3.x has no Reason Code in PUBACK: section 3.4 of 3.1.1. Its connection is not read instead.
#[test]
fn a_message_of_an_older_version_waits() {
    for version in [Version::V31, Version::V311] {
        let mut world = world(1, version);
        let (sender, receiver) = (world.connect_clean("sender"), world.connect("receiver"));
        world.subscribe(receiver, "a", 1);
        let now = world.now;
        let stored = publish("a", 1, "x", id(1));
        let others = [
            publish("a", 0, "x", id(1)),
            publish("nobody", 1, "x", id(1)),
            publish("$SYS/a", 1, "x", id(1)),
        ];
        assert_eq!(world.engines[0].must_wait(sender.key, &stored, now), None);
        set_low(&mut world, true);
        assert_eq!(
            world.engines[0].must_wait(sender.key, &stored, now),
            Some(Hold::Disk)
        );
        for publish in others {
            assert_eq!(world.engines[0].must_wait(sender.key, &publish, now), None);
        }
        set_low(&mut world, false);
        assert_eq!(world.engines[0].must_wait(sender.key, &stored, now), None);
        assert_eq!(refused(&world), 0);
    }
}
