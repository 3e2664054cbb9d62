//! Limits that a listener has of its own: for whoever connects by it, and for the Sessions of those who did last.

use std::sync::Arc;

use proto::connection::Outgoing;
use proto::packet::{Connect, Disconnect, ReasonCode, Will};
use proto::{PacketIdentifier, Qos, Version};
use vencejo_engine::{Limits, Principal};

use crate::world::{Client, World, durable, payload, publish, with_will_at};

/// Whoever connects from now on does so by this listener.
fn by(world: &mut World, listener: &str) {
    world.principal = Arc::new(Principal {
        listener: Some(listener.into()),
        ..Principal::default()
    });
}

/// A Server whose listener `narrow` has these limits.
fn with_narrow(shards: u16, narrow: Limits) -> World {
    let mut world = World::with(shards, Limits::default());
    world.set_limits_of(Limits::default(), [("narrow", narrow)]);
    world
}

/// What the PUBACK to a message at QoS 1 says.
fn answer(world: &mut World, sender: Client, topic: &str, text: &str) -> Option<ReasonCode> {
    world.publish(sender, topic, 1, text);
    world
        .received(sender)
        .into_iter()
        .find_map(|packet| match packet {
            Outgoing::PubAck(ack) => Some(ack.reason),
            _ => None,
        })
}

/// Verifies [MQTT-3.2.2-9], [MQTT-3.2.2-10], [MQTT-3.2.2-11]: each Client is told the limits of its own listener, and held
/// to what it was told.
#[test]
fn a_client_is_told_the_limits_of_its_listener_and_held_to_them() {
    let mut world = with_narrow(
        1,
        Limits {
            maximum_packet_size_bytes: 200,
            receive_maximum: 2,
            topic_alias_maximum: 3,
            server_keep_alive_max_seconds: Some(30),
            session_expiry_max_seconds: 60,
            maximum_qos: Qos::AtLeastOnce,
            wildcard_subscription_available: false,
            ..Limits::default()
        },
    );
    by(&mut world, "narrow");
    let narrow = world.connect_with(durable("narrow"));
    let said = world.connack(narrow).properties;
    assert_eq!(said.maximum_packet_size_bytes.map(u32::from), Some(200));
    assert_eq!(said.receive_maximum.map(u16::from), Some(2));
    assert_eq!(said.topic_alias_maximum, Some(3));
    assert_eq!(said.server_keep_alive_seconds, Some(30));
    assert_eq!(said.session_expiry_interval_seconds, Some(60));
    assert_eq!(said.maximum_qos, Some(Qos::AtLeastOnce));
    assert_eq!(said.wildcard_subscription_available, Some(false));
    by(&mut world, "wide");
    let wide = world.connect_with(durable("wide"));
    let said = world.connack(wide).properties;
    assert_eq!(said.maximum_packet_size_bytes.map(u32::from), Some(1 << 20));
    assert_eq!(said.receive_maximum.map(u16::from), Some(1024));
    assert_eq!(said.server_keep_alive_seconds, None);
    assert_eq!(said.session_expiry_interval_seconds, None);

    let refused = [ReasonCode::WildcardSubscriptionsNotSupported];
    assert_eq!(world.subscribe(narrow, "a/#", 2), refused);
    assert_eq!(
        world.subscribe(narrow, "a", 2),
        [ReasonCode::GrantedQos1],
        "as much as is spoken there"
    );
    assert_eq!(world.subscribe(wide, "a/#", 2), [ReasonCode::GrantedQos2]);
    world.publish(wide, "a", 2, "x");
    assert_eq!(world.closed(wide), None);
    world.publish(narrow, "a", 2, "x");
    assert_eq!(world.closed(narrow), Some(ReasonCode::QosNotSupported));
}

/// Verifies [MQTT-3.2.2-12], [MQTT-3.2.2-13]: a Will that its listener has no room for is refused there, and not elsewhere.
#[test]
fn a_will_is_judged_by_the_listener_it_came_by() {
    let mut world = with_narrow(
        1,
        Limits {
            maximum_qos: Qos::AtMostOnce,
            retain_available: false,
            client_id_length_max: 8,
            ..Limits::default()
        },
    );
    let answered = |world: &mut World, listener: &str, connect: Connect| {
        by(world, listener);
        let client = world.connect_with(connect);
        world.connack(client).reason
    };
    let with = |change: fn(&mut Will)| {
        let mut connect = with_will_at("client", "will", 0);
        change(connect.will.as_mut().expect("has one"));
        connect
    };
    let at_qos_1 = || with(|will| (will.qos, will.retain) = (Qos::AtLeastOnce, false));
    let retained = || with(|will| (will.qos, will.retain) = (Qos::AtMostOnce, true));
    let long = || Connect::new(Version::V5, "nine-char");
    for (connect, reason) in [
        (at_qos_1(), ReasonCode::QosNotSupported),
        (retained(), ReasonCode::RetainNotSupported),
        (long(), ReasonCode::ClientIdentifierNotValid),
    ] {
        assert_eq!(answered(&mut world, "narrow", connect.clone()), reason);
        assert_eq!(
            answered(&mut world, "wide", connect),
            ReasonCode::Success,
            "{reason:?}"
        );
    }
}

/// Promise P5: the queue of a Session is that of the listener by which its Client came last, also after a restart.
#[test]
fn a_session_waits_by_the_limits_of_the_listener_its_client_came_by_last() {
    for (shards, restarts) in [(1, false), (2, false), (1, true)] {
        let mut world = with_narrow(
            shards,
            Limits {
                queued_messages_max: 2,
                ..Limits::default()
            },
        );
        for listener in ["narrow", "wide"] {
            by(&mut world, listener);
            let client = world.connect_with(durable("receiver"));
            world.subscribe(client, "a", 1);
            world.lose(client);
            if restarts {
                world.crash(shards);
            }
            by(&mut world, "wide");
            let sender = world.connect("sender");
            let mut kept = Vec::new();
            for number in 0..6 {
                let text = number.to_string();
                match answer(&mut world, sender, "a", &text) {
                    Some(ReasonCode::Success) => kept.push(text),
                    reason => assert_eq!(reason, Some(ReasonCode::QuotaExceeded)),
                }
            }
            // On their way between shards more are kept, see `queue`.
            let expected = if listener == "narrow" { 2..=3 } else { 6..=6 };
            assert!(expected.contains(&kept.len()), "{listener} {kept:?}");
            let receiver = world.connect_with(durable("receiver"));
            let seen: Vec<_> = world.drain(receiver).iter().map(payload).collect();
            assert_eq!(seen, kept, "{listener}");
        }
    }
}

/// A full queue holds publishers up; whoever comes back by a listener with more room does not any more.
#[test]
fn a_full_queue_has_room_once_its_client_comes_by_a_listener_with_more() {
    let mut world = with_narrow(
        1,
        Limits {
            queued_messages_max: 1,
            maximum_inflight_messages: 1,
            ..Limits::default()
        },
    );
    by(&mut world, "narrow");
    let client = world.connect_with(durable("receiver"));
    world.subscribe(client, "a", 1);
    world.lose(client);
    by(&mut world, "wide");
    let sender = world.connect("sender");
    assert_eq!(
        answer(&mut world, sender, "a", "0"),
        Some(ReasonCode::Success)
    );
    let full = Some(ReasonCode::QuotaExceeded);
    assert_eq!(answer(&mut world, sender, "a", "1"), full);
    // It takes nothing of it.
    let mut connect = durable("receiver");
    connect.properties.receive_maximum = std::num::NonZeroU16::new(1);
    let receiver = world.connect_with(connect.clone());
    for text in ["2", "3", "4"] {
        assert_eq!(
            answer(&mut world, sender, "a", text),
            Some(ReasonCode::Success)
        );
    }
    world.lose(receiver);
    by(&mut world, "narrow");
    world.connect_with(connect);
    assert_eq!(answer(&mut world, sender, "a", "5"), full);
}

#[test]
fn subscriptions_are_counted_by_the_listener_of_the_session() {
    let mut world = with_narrow(
        1,
        Limits {
            subscriptions_per_session_max: 1,
            ..Limits::default()
        },
    );
    by(&mut world, "narrow");
    let narrow = world.connect("narrow");
    assert_eq!(world.subscribe(narrow, "a", 1), [ReasonCode::GrantedQos1]);
    assert_eq!(world.subscribe(narrow, "b", 1), [ReasonCode::QuotaExceeded]);
    by(&mut world, "wide");
    let wide = world.connect("wide");
    for filter in ["a", "b"] {
        assert_eq!(world.subscribe(wide, filter, 1), [ReasonCode::GrantedQos1]);
    }
    let (narrow, _) = world.resume("narrow");
    assert_eq!(world.subscribe(narrow, "b", 1), [ReasonCode::GrantedQos1]);
}

/// Verifies [MQTT-3.1.2-11], [MQTT-3.14.2-2]: the interval is cut by the listener, in CONNECT and in DISCONNECT, and for 3.x.
#[test]
fn a_session_is_kept_for_as_long_as_its_listener_grants() {
    let mut world = with_narrow(
        1,
        Limits {
            session_expiry_max_seconds: 60,
            session_expiry_3x_seconds: 30,
            ..Limits::default()
        },
    );
    by(&mut world, "narrow");
    let client = world.connect_with(durable("longer"));
    let mut disconnect = Disconnect::new(ReasonCode::Success);
    disconnect.session_expiry_interval_seconds = Some(3600);
    world.disconnect(client, &disconnect);
    let client = world.connect_311("older", false);
    world.lose(client);
    by(&mut world, "wide");
    let client = world.connect_311("elsewhere", false);
    world.lose(client);
    let left = |world: &World| {
        ["longer", "older", "elsewhere"].map(|name| world.engines[0].has_session(name))
    };
    world.advance(29);
    assert_eq!(left(&world), [true, true, true]);
    world.advance(2);
    assert_eq!(left(&world), [true, false, true]);
    world.advance(30);
    assert_eq!(left(&world), [false, false, true]);
}

/// What is about one connection holds as it was announced; all else is another limit at once, also of whoever is away.
#[test]
fn a_reload_changes_the_limits_of_one_listener_alone() {
    let mut world = World::new();
    by(&mut world, "narrow");
    let told = world.connect_with(durable("told"));
    world.subscribe(told, "told", 1);
    let away = world.connect_with(durable("away"));
    world.subscribe(away, "a", 1);
    world.lose(away);
    by(&mut world, "wide");
    let sender = world.connect("sender");
    world.set_limits_of(
        Limits::default(),
        [(
            "narrow",
            Limits {
                maximum_qos: Qos::AtMostOnce,
                subscriptions_per_session_max: 1,
                queued_messages_max: 0,
                ..Limits::default()
            },
        )],
    );
    let packet_id = PacketIdentifier::new(1).expect("not zero");
    world.send_publish(told, &publish("x", 2, "x", packet_id));
    world.settle();
    assert_eq!(world.closed(told), None, "as it was told");
    let more = world.subscribe(told, "more", 1);
    assert_eq!(more, [ReasonCode::QuotaExceeded]);
    let full = Some(ReasonCode::QuotaExceeded);
    assert_eq!(answer(&mut world, sender, "a", "x"), full);
    for filter in ["one", "two"] {
        assert_eq!(
            world.subscribe(sender, filter, 1),
            [ReasonCode::GrantedQos1]
        );
    }
    world.set_limits(Limits::default());
    let taken = Some(ReasonCode::Success);
    assert_eq!(answer(&mut world, sender, "a", "y"), taken);
}
