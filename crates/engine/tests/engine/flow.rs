//! Handshakes, the Receive Maximum, order, sizes, expiry, full queues.

use std::num::{NonZeroU16, NonZeroU32};

use proto::connection::Outgoing;
use proto::packet::{Ack, Connect, Publish, PublishProperties, ReasonCode};
use proto::{Qos, Version};
use vencejo_engine::{Engine, Limits, Output, OverflowPolicy};

use crate::world::{Client, World, durable, id, payload, publish};

fn pair(version: Version) -> (World, Client, Client) {
    let mut world = World::speaking(version);
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    world.subscribe(receiver, "#", 2);
    (world, sender, receiver)
}

fn packet_ids(deliveries: &[proto::connection::Delivery]) -> Vec<u16> {
    deliveries
        .iter()
        .filter_map(|one| one.packet_id)
        .map(proto::PacketIdentifier::get)
        .collect()
}

/// Verifies [MQTT-4.3.1-1]: QoS 0 goes out without DUP and without Packet Identifier.
/// Verifies [MQTT-2.2.1-2]: so it has none.
/// Verifies [v3.1.1 MQTT-4.3.1-1]: the same in 3.1.1.
/// Verifies [v3.1.1 MQTT-2.3.1-5]: the same in 3.1.1.
#[test]
fn qos_0_has_neither_dup_nor_packet_identifier() {
    for version in [Version::V311, Version::V5] {
        let (mut world, sender, receiver) = pair(version);
        world.publish(sender, "a", 0, "x");
        let deliveries = world.deliveries(receiver);
        assert_eq!((deliveries[0].dup, deliveries[0].packet_id), (false, None));
        assert_eq!(deliveries[0].qos, Qos::AtMostOnce);
    }
}

/// Verifies [MQTT-2.2.1-4]: each message in flight has an identifier of its own.
/// Verifies [v3.1.1 MQTT-2.3.1-4]: the same in 3.1.1.
/// Verifies [MQTT-4.3.2-1]: QoS 1 takes a free one.
/// Verifies [MQTT-4.3.2-2]: and DUP is 0 at first.
/// Verifies [MQTT-4.3.2-3]: it stays in flight until PUBACK.
/// Verifies [MQTT-4.3.3-1]: QoS 2 takes a free one.
/// Verifies [MQTT-4.3.3-2]: and DUP is 0 at first.
/// Verifies [MQTT-4.3.3-3]: it stays in flight until PUBREC.
/// Verifies [MQTT-4.3.3-4]: PUBREC is answered with PUBREL.
/// Verifies [MQTT-2.2.1-5]: which has the same identifier.
/// Verifies [v3.1.1 MQTT-2.3.1-6]: the same in 3.1.1.
/// Verifies [v3.1.1 MQTT-4.3.2-1]: the QoS 1 sender of 3.1.1.
/// Verifies [v3.1.1 MQTT-4.3.3-1]: the QoS 2 sender of 3.1.1.
#[test]
fn the_sender_keeps_a_message_until_it_is_acknowledged() {
    for version in [Version::V311, Version::V5] {
        let (mut world, sender, receiver) = pair(version);
        world.publish(sender, "a", 1, "one");
        world.publish(sender, "a", 2, "two");
        let first = world.deliveries(receiver);
        assert!(first.iter().all(|one| !one.dup));
        let ids = packet_ids(&first);
        assert_ne!(ids[0], ids[1]);
        world.lose(receiver);
        let receiver = world.connect("receiver");
        assert_eq!(packet_ids(&world.deliveries(receiver)), ids);
        world.puback(receiver, ids[0]);
        world.pubrec(receiver, ids[1]);
        let pubrel = Outgoing::PubRel(Ack::new(id(ids[1]), ReasonCode::Success));
        assert_eq!(world.received(receiver), [pubrel]);
    }
}

/// Verifies [MQTT-4.3.3-5]: PUBREL is unacknowledged until PUBCOMP.
/// Verifies [MQTT-4.3.3-6]: after PUBREL the PUBLISH is not sent again.
/// Verifies [MQTT-4.4.0-1]: the PUBREL is sent again, before anything that waits.
/// Verifies [v3.1.1 MQTT-4.4.0-1]: the same in 3.1.1.
#[test]
fn resumed_session_sends_an_owed_pubrel_first() {
    for version in [Version::V311, Version::V5] {
        let (mut world, sender, receiver) = pair(version);
        world.publish(sender, "a", 2, "two");
        let ids = packet_ids(&world.deliveries(receiver));
        world.pubrec(receiver, ids[0]);
        world.lose(receiver);
        world.publish(sender, "a", 1, "later");
        let receiver = world.connect("receiver");
        let packets = world.received(receiver);
        assert_eq!(
            packets[0],
            Outgoing::PubRel(Ack::new(id(ids[0]), ReasonCode::Success))
        );
        assert!(matches!(&packets[1], Outgoing::Publish(one) if payload(one) == "later"));
        world.pubcomp(receiver, ids[0]);
        world.lose(receiver);
        let receiver = world.connect("receiver");
        assert_eq!(world.payloads(receiver), ["later"]);
    }
}

/// Verifies [MQTT-4.6.0-4]: PUBRELs keep the order of the PUBRECs, also when they are sent again.
#[test]
fn pubrels_are_sent_again_in_the_order_of_the_pubrecs() {
    let (mut world, sender, receiver) = pair(Version::V5);
    world.publish(sender, "a", 2, "1");
    world.publish(sender, "a", 2, "2");
    let ids = packet_ids(&world.deliveries(receiver));
    world.pubrec(receiver, ids[1]);
    world.pubrec(receiver, ids[0]);
    world.lose(receiver);
    let receiver = world.connect("receiver");
    let success = |number| Outgoing::PubRel(Ack::new(id(number), ReasonCode::Success));
    assert_eq!(world.received(receiver), [success(ids[1]), success(ids[0])]);
}

/// Verifies [MQTT-4.3.3-10]: a repeat before PUBREL is acknowledged, not delivered again, also on a
/// new connection.
/// Verifies [MQTT-4.3.3-11]: PUBREL is answered with PUBCOMP.
/// Verifies [MQTT-4.3.3-12]: after that the identifier stands for a new message.
/// Verifies [v3.1.1 MQTT-4.3.3-2]: the QoS 2 receiver of 3.1.1.
/// Verifies [MQTT-3.3.1-3]: what goes out has DUP 0, whatever came in.
/// Verifies [v3.1.1 MQTT-3.3.1-3]: the same in 3.1.1.
#[test]
fn repeated_qos2_publish_before_pubrel_is_delivered_once() {
    for version in [Version::V311, Version::V5] {
        let (mut world, sender, receiver) = pair(version);
        let again = |dup| Publish {
            dup,
            ..publish("a", 2, "x", id(7))
        };
        world.send_publish(sender, &again(false));
        world.send_publish(sender, &again(true));
        world.settle();
        assert_eq!(world.received(sender).len(), 2);
        world.lose(sender);
        let sender = world.connect("sender");
        world.send_publish(sender, &again(true));
        world.settle();
        let success = Ack::new(id(7), ReasonCode::Success);
        assert_eq!(world.received(sender), [Outgoing::PubRec(success.clone())]);
        assert_eq!(world.deliveries(receiver).len(), 1);
        world.pubrel(sender, 7);
        assert_eq!(world.received(sender), [Outgoing::PubComp(success)]);
        world.send_publish(sender, &again(true));
        world.settle();
        let deliveries = world.deliveries(receiver);
        assert_eq!(deliveries.len(), 1);
        assert!(!deliveries[0].dup);
    }
}

/// Verifies [MQTT-4.3.2-5]: after PUBACK the identifier stands for a new message, DUP or not.
/// Verifies [v3.1.1 MQTT-4.3.2-2]: the QoS 1 receiver of 3.1.1.
/// Verifies [MQTT-3.3.4-1]: PUBLISH is answered as its QoS says.
/// Verifies [v3.1.1 MQTT-3.3.4-1]: the same in 3.1.1.
#[test]
fn a_qos1_publish_after_its_puback_is_a_new_message() {
    for version in [Version::V311, Version::V5] {
        let (mut world, sender, receiver) = pair(version);
        for _ in 0..2 {
            let again = Publish {
                dup: true,
                ..publish("a", 1, "x", id(7))
            };
            world.send_publish(sender, &again);
            world.settle();
        }
        assert_eq!(world.deliveries(receiver).len(), 2);
        assert_eq!(world.received(sender).len(), 2);
    }
}

/// Verifies [MQTT-3.7.2-1]: an unknown identifier is answered with 0x92.
#[test]
fn unknown_identifiers_are_answered_with_0x92() {
    let (mut world, _, receiver) = pair(Version::V5);
    world.pubrel(receiver, 99);
    world.pubrec(receiver, 98);
    let unknown = |number| Ack::new(id(number), ReasonCode::PacketIdentifierNotFound);
    let expected = [
        Outgoing::PubComp(unknown(99)),
        Outgoing::PubRel(unknown(98)),
    ];
    assert_eq!(world.received(receiver), expected);
    world.puback(receiver, 97);
    world.pubcomp(receiver, 96);
    assert!(world.received(receiver).is_empty());
}

/// Verifies [MQTT-4.4.0-2]: PUBACK or PUBREC of 0x80 or more ends the PUBLISH.
/// Verifies [MQTT-4.9.0-1]: and gives its quota back.
#[test]
fn a_refused_delivery_is_over() {
    let (mut world, sender, receiver) = pair(Version::V5);
    world.publish(sender, "a", 1, "one");
    world.publish(sender, "a", 2, "two");
    let ids = packet_ids(&world.deliveries(receiver));
    let now = world.now;
    let refusal = |number| Ack::new(id(number), ReasonCode::QuotaExceeded);
    world
        .engine(receiver)
        .on_puback(receiver.key, &refusal(ids[0]), now);
    world
        .engine(receiver)
        .on_pubrec(receiver.key, &refusal(ids[1]), now);
    world.lose(receiver);
    let receiver = world.connect("receiver");
    assert!(world.received(receiver).is_empty());
    assert_eq!(world.engines[0].counters().queued_bytes, 0);
}

/// Verifies [MQTT-3.3.4-9]: no more are open than the Client's Receive Maximum.
/// Verifies [MQTT-4.9.0-2]: at quota zero no QoS 1 or 2 PUBLISH goes out.
/// Verifies [MQTT-4.9.0-3]: everything else does.
/// Verifies [MQTT-3.3.4-10]: only PUBLISH is delayed.
/// Verifies [MQTT-4.6.0-5]: the order per publisher and topic is kept.
/// Verifies [MQTT-4.6.0-6]: by default, for every topic.
#[test]
fn a_backlog_beyond_the_receive_maximum_keeps_its_order() {
    let mut world = World::new();
    let sender = world.connect("sender");
    let mut connect = durable("receiver");
    connect.properties.receive_maximum = NonZeroU16::new(3);
    let receiver = world.connect_with(connect.clone());
    world.connack(receiver);
    world.subscribe(receiver, "a", 2);
    let texts: Vec<_> = (0..20).map(|number| number.to_string()).collect();
    for (number, text) in (0..).zip(&texts) {
        world.publish(sender, "a", 1 + number % 2, text);
    }
    world.publish(sender, "a", 0, "overtakes");
    assert_eq!(world.subscribe(receiver, "b", 0), [ReasonCode::Success]);
    let open = world.deliveries(receiver);
    assert_eq!(
        open.iter().map(payload).collect::<Vec<_>>(),
        ["0", "1", "2", "overtakes"]
    );
    world.lose(receiver);
    let receiver = world.connect_with(connect);
    world.connack(receiver);
    let seen: Vec<_> = world.drain(receiver).iter().map(payload).collect();
    assert_eq!(seen, texts);
    assert_eq!(world.engines[0].counters().queued_messages, 0);
}

#[test]
fn a_congested_receiver_loses_qos0_and_nothing_else() {
    let (mut world, sender, receiver) = pair(Version::V5);
    world.congest(receiver, true);
    for (qos, text) in [(1, "1"), (0, "0"), (2, "2"), (1, "3")] {
        world.publish(sender, "a", qos, text);
    }
    assert!(world.received(receiver).is_empty());
    assert_eq!(world.engines[0].counters().dropped_congested, 1);
    world.congest(receiver, false);
    let seen: Vec<_> = world.drain(receiver).iter().map(payload).collect();
    assert_eq!(seen, ["1", "2", "3"]);
}

/// Verifies [MQTT-3.1.2-24]: nothing larger than the Client's Maximum Packet Size is sent.
/// Verifies [MQTT-3.1.2-25]: it counts as delivered, and what follows goes on.
#[test]
fn a_message_too_large_for_the_client_is_discarded_as_if_sent() {
    let mut world = World::new();
    let sender = world.connect("sender");
    let mut connect = durable("receiver");
    connect.properties.maximum_packet_size_bytes = NonZeroU32::new(40);
    let receiver = world.connect_with(connect);
    world.connack(receiver);
    world.subscribe(receiver, "a", 2);
    let large = "x".repeat(100);
    for qos in 0..=2 {
        world.publish(sender, "a", qos, &large);
        world.publish(sender, "a", qos, "small");
    }
    let seen: Vec<_> = world.drain(receiver).iter().map(payload).collect();
    assert_eq!(seen, ["small", "small", "small"]);
    assert_eq!(world.engines[0].counters().dropped_too_large, 3);
    assert_eq!(world.engines[0].counters().queued_bytes, 0);
}

/// What was in flight may have become too large for the Client that comes back.
#[test]
fn a_resumed_client_with_a_smaller_maximum_gets_only_what_fits() {
    let (mut world, sender, receiver) = pair(Version::V5);
    world.publish(sender, "a", 1, &"x".repeat(100));
    world.publish(sender, "a", 2, "small");
    world.lose(receiver);
    let mut connect = durable("receiver");
    connect.properties.maximum_packet_size_bytes = NonZeroU32::new(40);
    let receiver = world.connect_with(connect);
    world.connack(receiver);
    let seen: Vec<_> = world.drain(receiver).iter().map(payload).collect();
    assert_eq!(seen, ["small"]);
    assert_eq!(world.engines[0].counters().queued_messages, 0);
}

/// Verifies [MQTT-3.3.2-5]: a message whose interval has passed is not started.
/// Verifies [MQTT-3.3.2-6]: and what is left of it goes out.
/// Verifies [MQTT-4.3.3-7]: once it was sent it is finished, expired or not.
/// Verifies [MQTT-4.3.3-13]: as receiver too.
#[test]
fn expiry_is_checked_when_a_delivery_starts_and_never_after() {
    let (mut world, sender, receiver) = pair(Version::V5);
    let raw = [0x02, 0, 0, 0, 10];
    let properties = PublishProperties::parse(&raw).expect("a Message Expiry Interval");
    let expiring = |payload, number| Publish {
        properties,
        ..publish("a", 2, payload, id(number))
    };
    world.send_publish(sender, &expiring("in flight", 7));
    world.settle();
    let ids = packet_ids(&world.deliveries(receiver));
    world.lose(receiver);
    world.send_publish(sender, &expiring("waiting", 8));
    world.settle();
    world.advance(5);
    world.send_publish(sender, &expiring("younger", 9));
    world.settle();
    world.advance(6);
    let receiver = world.connect("receiver");
    let deliveries = world.deliveries(receiver);
    let seen: Vec<_> = deliveries.iter().map(payload).collect();
    assert_eq!(seen, ["in flight", "younger"]);
    assert_eq!(packet_ids(&deliveries)[0], ids[0]);
    assert_eq!(
        deliveries[1].message.remaining_expiry_seconds(world.now),
        Some(4)
    );
    world.pubrel(sender, 8);
    let done = world.take(sender, |packet| match packet {
        Outgoing::PubComp(ack) => Some(ack.reason),
        _ => None,
    });
    assert_eq!(done, Some(ReasonCode::Success));
}

#[test]
fn qos0_is_not_kept_for_an_offline_session() {
    let (mut world, sender, receiver) = pair(Version::V5);
    world.lose(receiver);
    world.publish(sender, "a", 0, "x");
    let receiver = world.connect("receiver");
    assert!(world.received(receiver).is_empty());
}

#[test]
fn a_full_queue_follows_its_policy() {
    let cases = [
        (OverflowPolicy::DropNewest, ["0", "1"], None),
        (OverflowPolicy::DropOldest, ["2", "3"], None),
        (
            OverflowPolicy::Disconnect,
            ["0", "1"],
            Some(ReasonCode::QuotaExceeded),
        ),
    ];
    for (overflow_policy, kept, closed) in cases {
        let limits = Limits {
            overflow_policy,
            queued_messages_max: 2,
            ..Limits::default()
        };
        let mut world = World::with(1, limits);
        let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
        world.subscribe(receiver, "a", 1);
        world.congest(receiver, true);
        for text in ["0", "1", "2", "3"] {
            world.publish(sender, "a", 1, text);
        }
        assert_eq!(world.closed(receiver), closed);
        let receiver = world.connect("receiver");
        let seen: Vec<_> = world.drain(receiver).iter().map(payload).collect();
        assert_eq!(seen, kept);
        assert_eq!(world.engines[0].counters().dropped_queue_full, 2);
    }
}

#[test]
fn queued_bytes_are_bounded_per_session_and_per_process() {
    let tight = Limits {
        queued_bytes_max: 4096,
        ..Limits::default()
    };
    let shared = Limits {
        queued_bytes_total_max: 4096,
        ..Limits::default()
    };
    for limits in [tight, shared] {
        let mut world = World::without_loads(limits);
        let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
        world.subscribe(receiver, "a", 1);
        world.lose(receiver);
        for _ in 0..10 {
            world.publish(sender, "a", 1, &"x".repeat(1000));
        }
        assert!(world.engines[0].counters().queued_bytes <= 4096);
        assert!(world.engines[0].counters().refused_queue_full > 5);
        assert_eq!(world.engines[0].counters().dropped_queue_full, 0);
        let receiver = world.connect("receiver");
        world.drain(receiver);
        assert_eq!(world.engines[0].counters().queued_bytes, 0);
    }
}

/// Slow readers fill their own part of what is kept for all, not that of a reader that keeps up; and for a while only are
/// publishers held up by them.
#[test]
fn full_queues_of_others_cost_a_reader_that_keeps_up_nothing() {
    let mut world = World::without_loads(Limits {
        queued_bytes_total_max: 1024 * 1024,
        ..Limits::default()
    });
    let (slow, slower) = (world.connect("slow"), world.connect("slower"));
    let (sender, reader) = (world.connect("sender"), world.connect("reader"));
    for client in [reader, slow, slower] {
        world.subscribe(client, "a", 1);
    }
    world.lose(slow);
    world.congest(slower, true);
    let mut refused = 0;
    for number in 0..1000 {
        world.publish(sender, "a", 1, &format!("{number:01000}"));
        if world.drain(reader).is_empty() {
            refused += 1;
            world.advance(10);
        }
    }
    assert!((1..=2).contains(&refused), "{refused}");
    let counters = world.engines[0].counters();
    assert_eq!(counters.refused_queue_full, refused);
    assert!(counters.dropped_queue_full > 0);
}

/// Verifies [MQTT-3.2.2-11]: a QoS above the Maximum QoS closes with 0x9B.
/// Verifies [MQTT-3.2.2-14]: RETAIN without Retain Available with 0x9A.
#[test]
fn a_publish_beyond_what_is_available_closes() {
    let limits = Limits {
        maximum_qos: Qos::AtLeastOnce,
        retain_available: false,
        ..Limits::default()
    };
    let mut world = World::with(1, limits);
    let client = world.connect("client");
    world.publish(client, "a", 2, "x");
    assert_eq!(world.closed(client), Some(ReasonCode::QosNotSupported));
    let client = world.connect("client");
    world.publish_retained(client, "a", 1, "x");
    assert_eq!(world.closed(client), Some(ReasonCode::RetainNotSupported));
}

#[test]
fn a_topic_with_too_many_levels_is_refused_politely() {
    let deep = "/".repeat(128);
    for (version, qos, closes) in [
        (Version::V5, 0, true),
        (Version::V5, 1, false),
        (Version::V5, 2, false),
        (Version::V311, 1, true),
    ] {
        let mut world = World::new();
        let client = world.connect_with(Connect::new(version, "client"));
        world.connack(client);
        world.publish(client, &deep, qos, "x");
        let answer = world.next(client);
        if closes {
            assert_eq!(world.closed(client), Some(ReasonCode::TopicNameInvalid));
        } else {
            let Some(Outgoing::PubAck(ack) | Outgoing::PubRec(ack)) = answer else {
                panic!("unexpected {answer:?}")
            };
            assert_eq!(ack.reason, ReasonCode::TopicNameInvalid);
        }
    }
    let mut world = World::new();
    let client = world.connect("client");
    assert_eq!(
        world.subscribe(client, &deep, 0),
        [ReasonCode::TopicFilterInvalid]
    );
}

#[test]
fn more_unreleased_qos2_messages_than_allowed_close() {
    let mut world = World::with(
        1,
        Limits {
            receive_maximum: 3,
            ..Limits::default()
        },
    );
    let client = world.connect("client");
    for number in 1..=3 {
        world.send_publish(client, &publish("a", 2, "x", id(number)));
    }
    world.lose(client);
    let client = world.connect("client");
    world.send_publish(client, &publish("a", 2, "x", id(3)));
    world.settle();
    assert_eq!(world.closed(client), None);
    world.send_publish(client, &publish("a", 2, "x", id(4)));
    world.settle();
    assert_eq!(
        world.closed(client),
        Some(ReasonCode::ReceiveMaximumExceeded)
    );
}

/// A Client that answers PUBREC, never PUBCOMP, and comes again and again.
#[test]
fn owed_pubrels_do_not_pile_up_over_many_connections() {
    let mut world = World::new();
    let sender = world.connect("sender");
    let mut connect = durable("receiver");
    connect.properties.receive_maximum = NonZeroU16::new(10);
    let receiver = world.connect_with(connect.clone());
    world.subscribe(receiver, "a", 2);
    world.lose(receiver);
    for number in 0..300 {
        world.publish(sender, "a", 2, &number.to_string());
    }
    let mut owed = 0;
    for _ in 0..10 {
        let receiver = world.connect_with(connect.clone());
        let packets = world.received(receiver);
        owed = packets
            .iter()
            .filter(|packet| matches!(packet, Outgoing::PubRel(_)))
            .count();
        for packet in packets {
            if let Outgoing::Publish(delivery) = packet {
                world.pubrec(receiver, delivery.packet_id.expect("QoS 2").get());
            }
        }
        world.lose(receiver);
    }
    assert!(owed < 20, "{owed} PUBRELs are owed");
}

/// A client whose first message stays open for 65,534 others: then the next one has to wait, since it would
/// take the identifier of the first.
#[test]
fn a_message_waits_while_its_identifier_is_in_use() {
    let (mut world, sender, receiver) = pair(Version::V5);
    world.publish(sender, "a", 1, "stays");
    let stuck = packet_ids(&world.deliveries(receiver))[0];
    for _ in 1..65_535 {
        world.send_publish(sender, &publish("a", 1, "x", id(1)));
        world.turn();
        let delivered = packet_ids(&world.deliveries(receiver));
        assert_eq!(delivered.len(), 1);
        assert_ne!(delivered[0], stuck);
        let (now, ack) = (world.now, Ack::new(id(delivered[0]), ReasonCode::Success));
        world.engine(receiver).on_puback(receiver.key, &ack, now);
        world.received(sender);
    }
    world.publish(sender, "a", 1, "waits");
    world.publish(sender, "a", 1, "too");
    assert!(world.deliveries(receiver).is_empty());
    world.puback(receiver, stuck);
    let delivered = world.deliveries(receiver);
    assert_eq!(packet_ids(&delivered), [stuck, stuck + 1]);
    assert_eq!(payload(&delivered[0]), "waits");
}

/// Verifies [MQTT-4.6.0-6]: in order, however many bursts it takes.
#[test]
fn a_queue_leaves_in_bursts_so_that_congestion_is_noticed() {
    const MESSAGES: usize = 64;
    const BURST_BYTES_MAX: usize = 512 * 1024;
    let mut world = World::without_loads(Limits::default());
    let (subscriber, publisher) = (world.connect("subscriber"), world.connect("publisher"));
    world.subscribe(subscriber, "a", 1);
    world.received(subscriber);
    world.congest(subscriber, true);
    let rest = "x".repeat(64 * 1024);
    for n in 0..MESSAGES {
        world.publish(publisher, "a", 1, &format!("{n:02} {rest}"));
    }
    let now = world.now;
    let engine = world.engine(subscriber);
    engine.on_congested(subscriber.key, false, now);
    let mut heard = Vec::new();
    let mut take = |engine: &mut Engine| {
        let before = heard.len();
        while let Some(output) = engine.poll_output() {
            if let Output::Send {
                packet: Outgoing::Publish(delivery),
                ..
            } = output
            {
                heard.push(payload(&delivery));
            }
        }
        heard.len() - before
    };
    let first = take(engine);
    assert!(
        first > 0 && first * rest.len() <= BURST_BYTES_MAX,
        "{first}"
    );
    assert!(engine.has_work());
    // The server has nothing against it: the next turn goes on.
    engine.end_turn(now);
    assert_eq!(take(engine), first);
    engine.on_congested(subscriber.key, true, now);
    engine.end_turn(now);
    assert_eq!(take(engine), 0);
    assert!(!engine.has_work());
    world.congest(subscriber, false);
    heard.extend(world.payloads(subscriber));
    let numbers: Vec<String> = heard
        .iter()
        .map(|payload| payload[..2].to_owned())
        .collect();
    let expected: Vec<String> = (0..MESSAGES).map(|n| format!("{n:02}")).collect();
    assert_eq!(numbers, expected);
}

/// A Session that ends with its connection is never sent anything again: of what it was sent only identifiers stay.
#[test]
fn session_that_ends_with_its_connection_keeps_nothing_of_what_it_was_sent() {
    for version in [Version::V311, Version::V5] {
        let mut world = World::speaking(version);
        let sender = world.connect("sender");
        let receiver = world.connect_clean("receiver");
        world.subscribe(receiver, "#", 2);
        world.publish(sender, "a", 1, "one");
        world.publish(sender, "a", 2, "two");
        let counters = world.engine(receiver).counters().clone();
        assert_eq!((counters.queued_messages, counters.queued_bytes), (0, 0));
        let deliveries = world.deliveries(receiver);
        let ids = packet_ids(&deliveries);
        assert_ne!(ids[0], ids[1]);
        // Handshakes go on as ever.
        world.puback(receiver, ids[0]);
        world.pubrec(receiver, ids[1]);
        let pubrel = Outgoing::PubRel(Ack::new(id(ids[1]), ReasonCode::Success));
        assert_eq!(world.received(receiver), [pubrel]);
        world.pubcomp(receiver, ids[1]);
        assert_eq!(world.received(receiver), []);
    }
}

/// Verifies [MQTT-3.3.4-9]: also then no more are sent than the Client's Receive Maximum.
#[test]
fn window_of_a_session_that_ends_with_its_connection_is_kept() {
    let mut world = World::new();
    let sender = world.connect("sender");
    let mut connect = durable("receiver");
    connect.properties.session_expiry_interval_seconds = None;
    connect.properties.receive_maximum = NonZeroU16::new(2);
    let receiver = world.connect_with(connect);
    world.connack(receiver);
    world.subscribe(receiver, "#", 2);
    for text in ["1", "2", "3", "4", "5"] {
        world.publish(sender, "a", 1, text);
    }
    let first = world.deliveries(receiver);
    assert_eq!(
        first.iter().map(payload).collect::<Vec<_>>(),
        ["1", "2"],
        "the window is 2"
    );
    for id in packet_ids(&first) {
        world.puback(receiver, id);
    }
    // What has waited was queued, and nothing overtakes it.
    let second = world.deliveries(receiver);
    world.publish(sender, "a", 1, "6");
    for id in packet_ids(&second) {
        world.puback(receiver, id);
    }
    let third = world.deliveries(receiver);
    let all: Vec<_> = second.iter().chain(&third).map(payload).collect();
    assert_eq!(all, ["3", "4", "5", "6"]);
}
