//! QoS 1 and QoS 2 in both directions: repeats, unknown identifiers, refusals, resume, Receive Maximum.

use std::num::NonZeroU16;

use proto::connection::{Delivery, Outgoing};
use proto::packet::{Ack, Connect, Publish, ReasonCode};
use proto::{PacketIdentifier, Qos, Version};
use vencejo_engine::Limits;

use crate::world::{Client, World, durable, id, payload, publish};

fn ack(number: u16, reason: ReasonCode) -> Ack {
    Ack::new(id(number), reason)
}

fn again<'a>(topic: &'a str, qos: u8, text: &'a str, number: u16) -> Publish<'a> {
    Publish {
        dup: true,
        ..publish(topic, qos, text, id(number))
    }
}

fn with_receive_maximum(client_id: &str, receive_maximum: u16) -> Connect {
    let mut connect = durable(client_id);
    connect.properties.receive_maximum = NonZeroU16::new(receive_maximum);
    connect
}

fn number_of(delivery: &Delivery) -> u16 {
    delivery.packet_id.map_or(0, PacketIdentifier::get)
}

/// A sender, and a receiver subscribed to `#` at QoS 2.
fn pair(version: Version) -> (World, Client, Client) {
    let mut world = World::speaking(version);
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    world.subscribe(receiver, "#", 2);
    (world, sender, receiver)
}

/// Verifies [MQTT-4.3.3-10]: a repeat before PUBREL is acknowledged, not delivered again.
/// Verifies [MQTT-4.3.3-12]: after PUBCOMP the identifier means a new message.
/// Verifies [MQTT-4.3.3-11]: PUBREL is answered with PUBCOMP.
/// Verifies [MQTT-2.2.1-5]: each answer has the identifier of the PUBLISH.
/// Verifies [v3.1.1 MQTT-4.3.3-2]: the same in 3.1.1.
/// Verifies [v3.1.1 MQTT-2.3.1-6]: the same in 3.1.1.
#[test]
fn repeated_qos2_publish_before_pubrel_is_delivered_once() {
    for version in [Version::V311, Version::V5] {
        let (mut world, sender, receiver) = pair(version);
        world.send_publish(sender, &publish("a", 2, "one", id(7)));
        world.send_publish(sender, &again("a", 2, "one", 7));
        // The DUP flag does not decide, the identifier does.
        world.send_publish(sender, &publish("a", 2, "one", id(7)));
        world.settle();
        let pubrec = Outgoing::PubRec(ack(7, ReasonCode::Success));
        assert_eq!(
            world.received(sender),
            [pubrec.clone(), pubrec.clone(), pubrec.clone()]
        );
        world.pubrel(sender, 7);
        let pubcomp = Outgoing::PubComp(ack(7, ReasonCode::Success));
        assert_eq!(world.received(sender), [pubcomp]);
        world.send_publish(sender, &publish("a", 2, "two", id(7)));
        world.settle();
        assert_eq!(world.received(sender), [pubrec]);
        let payloads: Vec<_> = world.drain(receiver).iter().map(payload).collect();
        assert_eq!(payloads, ["one", "two"]);
    }
}

/// Verifies [MQTT-4.3.3-10]: also when the connection was lost between the PUBLISH and its repeat.
/// Verifies [v3.1.1 MQTT-4.3.3-2]: the same in 3.1.1.
#[test]
fn repeated_qos2_publish_after_a_reconnect_is_delivered_once() {
    for version in [Version::V31, Version::V311, Version::V5] {
        let (mut world, _, receiver) = pair(Version::V5);
        let mut connect = durable("client");
        connect.version = version;
        let client = world.connect_with(connect.clone());
        world.send_publish(client, &publish("a", 2, "one", id(7)));
        world.lose(client);
        let client = world.connect_with(connect.clone());
        world.connack(client);
        world.send_publish(client, &again("a", 2, "one", 7));
        world.settle();
        let pubrec = Outgoing::PubRec(ack(7, ReasonCode::Success));
        assert_eq!(world.received(client), [pubrec]);
        world.lose(client);
        let client = world.connect_with(connect);
        world.connack(client);
        world.pubrel(client, 7);
        let pubcomp = Outgoing::PubComp(ack(7, ReasonCode::Success));
        assert_eq!(world.received(client), [pubcomp]);
        assert_eq!(world.drain(receiver).len(), 1);
    }
}

/// Verifies [MQTT-4.3.2-5]: after PUBACK the identifier means a new message, whatever DUP says.
/// Verifies [v3.1.1 MQTT-4.3.2-2]: the same in 3.1.1.
/// Verifies [MQTT-3.3.1-3]: the publisher's DUP is not passed on.
/// Verifies [v3.1.1 MQTT-3.3.1-3]: the same in 3.1.1.
/// Verifies [MQTT-4.3.2-2]: the first sending has no DUP.
/// Verifies [MQTT-4.3.3-2]: at QoS 2 too.
#[test]
fn dup_of_the_publisher_neither_discards_nor_is_passed_on() {
    for version in [Version::V311, Version::V5] {
        let (mut world, sender, receiver) = pair(version);
        world.send_publish(sender, &publish("a", 1, "one", id(7)));
        world.send_publish(sender, &again("a", 1, "two", 7));
        world.send_publish(sender, &again("a", 2, "three", 8));
        world.settle();
        let deliveries = world.deliveries(receiver);
        let seen: Vec<_> = deliveries
            .iter()
            .map(|one| (payload(one), one.dup))
            .collect();
        let expected = ["one", "two", "three"].map(|text| (text.to_owned(), false));
        assert_eq!(seen, expected);
    }
}

/// Verifies [MQTT-4.3.1-1]: QoS 0 is sent at QoS 0, without DUP.
/// Verifies [v3.1.1 MQTT-4.3.1-1]: the same in 3.1.1.
/// Verifies [MQTT-2.2.1-2]: and without a Packet Identifier.
/// Verifies [v3.1.1 MQTT-2.3.1-5]: the same in 3.1.1.
/// Verifies [MQTT-3.3.4-1]: and is not answered.
/// Verifies [v3.1.1 MQTT-3.3.4-1]: the same in 3.1.1.
#[test]
fn qos0_is_delivered_bare_and_not_answered() {
    for version in [Version::V311, Version::V5] {
        let (mut world, sender, receiver) = pair(version);
        world.publish(sender, "a", 0, "x");
        assert!(world.received(sender).is_empty());
        let deliveries = world.deliveries(receiver);
        assert_eq!(deliveries.len(), 1);
        assert!(!deliveries[0].dup);
        assert_eq!(deliveries[0].packet_id, None);
        assert_eq!(deliveries[0].qos, Qos::AtMostOnce);
    }
}

/// Verifies [MQTT-3.7.2-1]: PUBREL for an unknown identifier is answered with PUBCOMP 0x92.
/// Verifies [MQTT-3.6.2-1]: PUBREC for an unknown identifier is answered with PUBREL 0x92.
/// Verifies [MQTT-4.3.3-4]: but one that refuses is not answered.
#[test]
fn unknown_identifiers_are_answered_with_0x92_and_harm_nothing() {
    let (mut world, sender, receiver) = pair(Version::V5);
    let unknown = ReasonCode::PacketIdentifierNotFound;
    world.pubrel(sender, 9);
    assert_eq!(world.received(sender), [Outgoing::PubComp(ack(9, unknown))]);
    world.pubrec(sender, 9);
    assert_eq!(world.received(sender), [Outgoing::PubRel(ack(9, unknown))]);
    let now = world.now;
    let refused = ack(9, ReasonCode::UnspecifiedError);
    world.engine(sender).on_pubrec(sender.key, &refused, now);
    world.puback(sender, 9);
    world.pubcomp(sender, 9);
    assert!(world.received(sender).is_empty());
    world.publish(sender, "a", 1, "still here");
    assert_eq!(world.payloads(receiver), ["still here"]);
    assert_eq!(world.closed(sender), None);
}

/// Verifies [MQTT-4.3.3-4]: PUBREC is followed by PUBREL.
/// Verifies [MQTT-4.3.3-6]: PUBLISH is not sent again after PUBREC, also after a reconnect.
/// Verifies [MQTT-4.3.3-5]: PUBREL stays open until PUBCOMP.
/// Verifies [MQTT-4.4.0-1]: and is sent again on resume, under its identifier.
/// Verifies [v3.1.1 MQTT-4.3.3-1]: the same in 3.1.1.
/// Verifies [v3.1.1 MQTT-4.4.0-1]: the same in 3.1.1.
#[test]
fn after_pubrec_only_pubrel_is_sent_again() {
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut world = World::new();
        let sender = world.connect("sender");
        let mut connect = durable("receiver");
        connect.version = version;
        let receiver = world.connect_with(connect.clone());
        world.subscribe(receiver, "a", 2);
        world.publish(sender, "a", 2, "x");
        let number = number_of(&world.deliveries(receiver)[0]);
        let pubrel = Outgoing::PubRel(ack(number, ReasonCode::Success));
        world.pubrec(receiver, number);
        assert_eq!(world.received(receiver), std::slice::from_ref(&pubrel));
        for _ in 0..2 {
            world.lose(receiver);
        }
        let receiver = world.connect_with(connect.clone());
        world.connack(receiver);
        assert_eq!(world.received(receiver), std::slice::from_ref(&pubrel));
        // A PUBREC once more is answered, and PUBCOMP ends it.
        world.pubrec(receiver, number);
        assert_eq!(world.received(receiver), [pubrel]);
        world.pubcomp(receiver, number);
        world.lose(receiver);
        let receiver = world.connect_with(connect);
        world.connack(receiver);
        assert!(world.received(receiver).is_empty());
    }
}

/// Verifies [MQTT-4.4.0-2]: a PUBACK or PUBREC that refuses ends the PUBLISH.
/// Verifies [MQTT-4.3.2-3]: until then it is open.
#[test]
fn a_refusing_answer_ends_the_message() {
    let (mut world, sender, receiver) = pair(Version::V5);
    world.publish(sender, "a", 1, "one");
    world.publish(sender, "a", 2, "two");
    let deliveries = world.deliveries(receiver);
    let now = world.now;
    let refusal = |one: &Delivery| ack(number_of(one), ReasonCode::QuotaExceeded);
    let engine = world.engine(receiver);
    engine.on_puback(receiver.key, &refusal(&deliveries[0]), now);
    engine.on_pubrec(receiver.key, &refusal(&deliveries[1]), now);
    world.settle();
    assert!(world.received(receiver).is_empty());
    world.lose(receiver);
    let (receiver, _) = world.resume("receiver");
    assert!(world.received(receiver).is_empty());
    assert_eq!(world.engines[0].counters().queued_messages, 0);
}

/// Verifies [MQTT-4.4.0-1]: nothing is sent again without a new Network Connection.
#[test]
fn time_alone_sends_nothing_again() {
    let (mut world, sender, receiver) = pair(Version::V5);
    world.publish(sender, "a", 1, "x");
    assert_eq!(world.deliveries(receiver).len(), 1);
    world.advance(100_000);
    assert!(world.received(receiver).is_empty());
}

/// Verifies [MQTT-3.3.4-9]: no more open than the Client's Receive Maximum.
/// Verifies [MQTT-4.9.0-1]: the quota starts there.
/// Verifies [MQTT-4.9.0-2]: at zero no further PUBLISH above QoS 0 leaves.
/// Verifies [MQTT-4.9.0-3]: other packets do.
/// Verifies [MQTT-3.3.4-10]: and QoS 0 does.
#[test]
fn receive_maximum_bounds_what_is_open_and_nothing_else() {
    let mut world = World::new();
    let sender = world.connect("sender");
    let receiver = world.connect_with(with_receive_maximum("receiver", 2));
    world.connack(receiver);
    world.subscribe(receiver, "a", 2);
    for text in ["1", "2", "3", "4"] {
        world.publish(sender, "a", 1 + u8::from(text == "2"), text);
    }
    world.publish(sender, "a", 0, "at once");
    let first = world.deliveries(receiver);
    let texts: Vec<_> = first.iter().map(payload).collect();
    assert_eq!(texts, ["1", "2", "at once"]);
    assert_eq!(world.unsubscribe(receiver, "none").len(), 1);
    // PUBREC does not give the quota back, PUBCOMP does; so does PUBACK.
    world.pubrec(receiver, number_of(&first[1]));
    assert!(world.deliveries(receiver).is_empty());
    world.puback(receiver, number_of(&first[0]));
    assert_eq!(world.payloads(receiver), ["3"]);
    world.pubcomp(receiver, number_of(&first[1]));
    assert_eq!(world.payloads(receiver), ["4"]);
}

/// Verifies [MQTT-3.3.4-9]: on resume the new connection's Receive Maximum counts, also for repeats.
/// Verifies [MQTT-4.6.0-5]: and what waits follows what is repeated.
#[test]
fn a_smaller_receive_maximum_on_resume_is_respected_for_repeats() {
    let (mut world, sender, receiver) = pair(Version::V5);
    for text in ["1", "2", "3", "4"] {
        world.publish(sender, "a", 1, text);
    }
    assert_eq!(world.deliveries(receiver).len(), 4);
    world.lose(receiver);
    world.publish(sender, "a", 1, "5");
    let receiver = world.connect_with(with_receive_maximum("receiver", 1));
    world.connack(receiver);
    for expected in ["1", "2", "3", "4", "5"] {
        let deliveries = world.deliveries(receiver);
        assert_eq!(deliveries.len(), 1);
        assert_eq!(payload(&deliveries[0]), expected);
        world.puback(receiver, number_of(&deliveries[0]));
    }
}

/// Verifies [MQTT-2.2.1-4]: what is open has identifiers of its own, not zero.
/// Verifies [v3.1.1 MQTT-2.3.1-4]: the same in 3.1.1.
/// Verifies [v3.1.1 MQTT-2.3.1-1]: the same in 3.1.1.
/// Verifies [MQTT-4.3.2-1]: at QoS 1.
/// Verifies [MQTT-4.3.3-1]: and at QoS 2.
/// Verifies [v3.1.1 MQTT-4.3.2-1]: the same in 3.1.1.
#[test]
fn open_messages_have_identifiers_of_their_own_also_after_a_resume() {
    for version in [Version::V311, Version::V5] {
        let (mut world, sender, receiver) = pair(version);
        for round in 0..3 {
            for qos in [1, 2, 1, 2] {
                world.publish(sender, "a", qos, "x");
            }
            if round == 1 {
                // Someone answers in the middle.
                let open = world.deliveries(receiver);
                world.puback(receiver, number_of(&open[2]));
                world.pubrec(receiver, number_of(&open[1]));
            }
        }
        world.lose(receiver);
        world.publish(sender, "a", 2, "x");
        let (receiver, _) = world.resume("receiver");
        let mut numbers = Vec::new();
        for packet in world.received(receiver) {
            match packet {
                Outgoing::Publish(delivery) => numbers.push(number_of(&delivery)),
                Outgoing::PubRel(ack) => numbers.push(ack.packet_id.get()),
                other => panic!("unexpected {other:?}"),
            }
        }
        assert_eq!(numbers.len(), 12);
        assert!(!numbers.contains(&0));
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 12);
    }
}

/// Verifies [MQTT-4.3.3-10]: QoS 2 messages that nobody releases are bounded by our Receive Maximum.
#[test]
fn more_unreleased_qos2_than_our_receive_maximum_closes() {
    let limits = Limits {
        receive_maximum: 2,
        ..Limits::default()
    };
    let mut world = World::with(1, limits);
    let sender = world.connect("sender");
    for number in 1..=3 {
        world.send_publish(sender, &publish("a", 2, "x", id(number)));
    }
    world.settle();
    let expected = Some(ReasonCode::ReceiveMaximumExceeded);
    assert_eq!(world.closed(sender), expected);
}

/// Verifies [MQTT-3.4.2-1]: PUBACK says 0x10 where nobody subscribes, 0x00 otherwise.
/// Verifies [MQTT-3.5.2-1]: so does PUBREC.
#[test]
fn a_publisher_hears_whether_there_are_subscribers() {
    for shards in 1..=3 {
        let mut world = World::with(shards, Limits::default());
        let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
        world.subscribe(receiver, "there", 0);
        for (topic, reason) in [
            ("there", ReasonCode::Success),
            ("nobody", ReasonCode::NoMatchingSubscribers),
        ] {
            world.send_publish(sender, &publish(topic, 1, "x", id(1)));
            world.send_publish(sender, &publish(topic, 2, "x", id(2)));
            world.settle();
            let expected = [
                Outgoing::PubAck(ack(1, reason)),
                Outgoing::PubRec(ack(2, reason)),
            ];
            assert_eq!(world.received(sender), expected);
            world.pubrel(sender, 2);
            world.received(sender);
        }
    }
}
