//! Limits that change under Clients that were told others, and under what is there already.

use proto::Version;
use proto::connection::Outgoing;
use proto::packet::{Connect, ReasonCode};
use proto::{PacketIdentifier, Qos};
use vencejo_engine::{Limits, OverflowPolicy};

use crate::world::{Client, World, durable, payload, publish};

/// What the PUBACK to a message at QoS 1 says.
fn answer(world: &mut World, sender: Client, topic: &str, text: &str) -> Option<ReasonCode> {
    world.publish(sender, topic, 1, text);
    let packets = world.received(sender).into_iter();
    packets
        .filter_map(|packet| match packet {
            Outgoing::PubAck(ack) => Some(ack.reason),
            _ => None,
        })
        .next()
}

fn away(world: &mut World, client_id: &str, topic: &str) {
    let client = world.connect_with(durable(client_id));
    world.subscribe(client, topic, 1);
    world.lose(client);
}

/// Verifies [MQTT-3.2.2-10], [MQTT-3.2.2-11], [MQTT-3.2.2-14]: a Client is judged by what its own CONNACK has said.
#[test]
fn what_connack_has_announced_holds_until_the_connection_ends() {
    let mut world = World::new();
    let told = world.connect("told");
    world.set_limits(Limits {
        maximum_qos: Qos::AtMostOnce,
        retain_available: false,
        wildcard_subscription_available: false,
        shared_subscription_available: false,
        receive_maximum: 1,
        ..Limits::default()
    });
    assert_eq!(
        world.subscribe(told, "a/#", 2),
        [ReasonCode::GrantedQos2],
        "as it was told"
    );
    let shared = world.subscribe(told, "$share/g/a", 1);
    assert_eq!(shared, [ReasonCode::GrantedQos1]);
    world.publish_retained(told, "a/b", 1, "kept");
    for number in 1..=3 {
        let packet_id = PacketIdentifier::new(number).expect("not zero");
        world.send_publish(told, &publish("c", 2, "x", packet_id));
    }
    world.settle();
    assert_eq!(world.closed(told), None);

    let fresh = world.connect_with(Connect::new(Version::V5, "fresh"));
    let said = world.connack(fresh).properties;
    assert_eq!(said.maximum_qos, Some(Qos::AtMostOnce));
    assert_eq!(said.retain_available, Some(false));
    let refused = world.subscribe(fresh, "a/#", 0);
    assert_eq!(refused, [ReasonCode::WildcardSubscriptionsNotSupported]);
    let granted = world.subscribe(fresh, "a", 2);
    assert_eq!(granted, [ReasonCode::Success]);
    world.publish(fresh, "c", 1, "x");
    assert_eq!(world.closed(fresh), Some(ReasonCode::QosNotSupported));
}

#[test]
fn topics_and_subscriptions_have_other_bounds_at_once() {
    let mut world = World::new();
    let client = world.connect("client");
    world.subscribe(client, "one", 1);
    world.subscribe(client, "two", 1);
    // What it may publish is known from here on.
    let first = answer(&mut world, client, "a/b/c", "x");
    assert_eq!(first, Some(ReasonCode::NoMatchingSubscribers));
    world.set_limits(Limits {
        topic_levels_max: 2,
        subscriptions_per_session_max: 1,
        client_id_length_max: 8,
        ..Limits::default()
    });
    let deep = answer(&mut world, client, "a/b/c", "x");
    assert_eq!(deep, Some(ReasonCode::TopicNameInvalid));
    let more = world.subscribe(client, "three", 1);
    assert_eq!(more, [ReasonCode::QuotaExceeded]);
    let again = world.subscribe(client, "two", 1);
    assert_eq!(again, [ReasonCode::GrantedQos1], "what is there stays");
    let long = world.connect_with(Connect::new(Version::V5, "nine-char"));
    assert_eq!(
        world.connack(long).reason,
        ReasonCode::ClientIdentifierNotValid
    );
    world.set_limits(Limits::default());
    assert_eq!(
        world.subscribe(client, "three", 1),
        [ReasonCode::GrantedQos1]
    );
}

/// Promise P5: whatever the limit becomes, what was acknowledged is kept, and what is not kept is not acknowledged.
#[test]
fn a_full_queue_has_room_at_once_where_its_limit_is_raised_and_none_where_it_is_lowered() {
    for shards in [1, 2] {
        let limited = |queued_messages_max| Limits {
            queued_messages_max,
            ..Limits::default()
        };
        let mut world = World::with(shards, limited(2));
        away(&mut world, "receiver", "a");
        let sender = world.connect("sender");
        let mut kept = Vec::new();
        for (number, max) in [2, 6, 3].into_iter().enumerate() {
            world.set_limits(limited(max));
            for at in 0..5 {
                let text = format!("{number}-{at}");
                let reason = answer(&mut world, sender, "a", &text).expect("an answer");
                if reason == ReasonCode::Success {
                    kept.push(text);
                } else {
                    assert_eq!(reason, ReasonCode::QuotaExceeded);
                }
            }
            // On their way between shards more are kept, see `queue`.
            match max {
                6 => assert!((6..=7).contains(&kept.len()), "{shards}: {kept:?}"),
                2 => assert!((2..=3).contains(&kept.len()), "{shards}: {kept:?}"),
                _ => assert!(kept.iter().all(|text| !text.starts_with("2-")), "{kept:?}"),
            }
        }
        let receiver = world.connect_with(durable("receiver"));
        let seen: Vec<_> = world.drain(receiver).iter().map(payload).collect();
        assert_eq!(seen, kept, "{shards}");
    }
}

#[test]
fn another_overflow_policy_counts_for_queues_that_are_full() {
    let limited = |overflow_policy| Limits {
        queued_messages_max: 2,
        overflow_policy,
        ..Limits::default()
    };
    let mut world = World::with(1, limited(OverflowPolicy::Refuse));
    away(&mut world, "receiver", "a");
    let sender = world.connect("sender");
    for text in ["0", "1"] {
        assert_eq!(
            answer(&mut world, sender, "a", text),
            Some(ReasonCode::Success)
        );
    }
    let refused = answer(&mut world, sender, "a", "2");
    assert_eq!(refused, Some(ReasonCode::QuotaExceeded));
    world.set_limits(limited(OverflowPolicy::DropOldest));
    let taken = answer(&mut world, sender, "a", "3");
    assert_eq!(taken, Some(ReasonCode::Success));
    world.set_limits(limited(OverflowPolicy::Refuse));
    let refused = answer(&mut world, sender, "a", "4");
    assert_eq!(refused, Some(ReasonCode::QuotaExceeded));
    let receiver = world.connect_with(durable("receiver"));
    let seen: Vec<_> = world.drain(receiver).iter().map(payload).collect();
    assert_eq!(seen, ["1", "3"]);
}

#[test]
fn retained_messages_have_another_age_and_another_number_at_once() {
    for shards in [1, 2] {
        let mut world = World::with(shards, Limits::default());
        let sender = world.connect("sender");
        world.publish_retained(sender, "a", 1, "old");
        world.publish_retained(sender, "b", 1, "old");
        world.received(sender);
        world.set_limits(Limits {
            retained_messages_max: 1,
            retained_age_max_seconds: Some(60),
            ..Limits::default()
        });
        world.publish_retained(sender, "c", 1, "one more");
        let packets = world.received(sender);
        assert!(
            packets.iter().any(|packet| matches!(
                packet,
                Outgoing::PubAck(ack) if ack.reason == ReasonCode::QuotaExceeded
            )),
            "{packets:?}"
        );
        assert_eq!(world.engines[0].counters().retained_messages, 2, "stay");
        world.advance(61);
        for engine in &world.engines {
            assert_eq!(engine.counters().retained_messages, 0, "{shards}");
        }
        world.set_limits(Limits::default());
        world.publish_retained(sender, "d", 1, "new");
        world.advance(3600);
        assert_eq!(world.engines[0].counters().retained_messages, 1);
    }
}
