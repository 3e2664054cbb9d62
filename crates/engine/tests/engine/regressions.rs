//! What other brokers got wrong in recent years, one named test for each.
//!
//! Owns: the list. Does not own: the rules, whose other tests are with their subject.

use std::num::NonZeroU32;

use proto::connection::Outgoing;
use proto::packet::{
    Ack, Connect, Disconnect, Publish, PublishProperties, ReasonCode, RetainHandling,
    SubscriptionOptions,
};
use proto::{Qos, Version};
use vencejo_engine::Limits;

use crate::wills::with_will;
use crate::world::{Client, World, durable, id, options, payload, publish};

fn watched(will_subscriber: &str) -> (World, Client) {
    let mut world = World::new();
    let watcher = world.connect(will_subscriber);
    world.subscribe(watcher, "will", 1);
    (world, watcher)
}

/// A QoS 2 message, with its properties, as its publisher sends it.
fn with_properties<'a>(topic: &'a str, qos: u8, text: &'a str, raw: &'a [u8]) -> Publish<'a> {
    Publish {
        properties: PublishProperties::parse(raw).expect("valid"),
        ..publish(topic, qos, text, id(1))
    }
}

/// Verifies [MQTT-3.1.2-4]: a Session with expiry 0 ends with its connection, also at take-over.
/// Verifies [MQTT-3.1.2-8]: so its Will is published, and nothing of it is resumed.
#[test]
fn take_over_of_a_session_with_expiry_zero_publishes_its_will_and_resumes_nothing() {
    for delay in [0, 60] {
        for is_clean in [false, true] {
            let (mut world, watcher) = watched("watcher");
            let mut connect = with_will(Connect::new(Version::V5, "client"), delay);
            connect.clean_start = is_clean;
            let old = world.connect_with(connect.clone());
            world.connack(old);
            world.subscribe(old, "a", 1);
            connect.will = None;
            let new = world.connect_with(connect);
            assert!(!world.connack(new).session_present);
            assert_eq!(world.payloads(watcher), ["gone"]);
            assert_eq!(world.closed(old), Some(ReasonCode::SessionTakenOver));
            world.publish(watcher, "a", 1, "x");
            assert!(world.received(new).is_empty());
        }
    }
}

/// Verifies [MQTT-4.3.3-10]: a repeated QoS 2 PUBLISH with DUP before PUBREL is not delivered again.
#[test]
fn repeated_qos2_publish_with_dup_is_not_delivered_twice_to_anyone() {
    for shards in 1..=3 {
        let mut world = World::with(shards, Limits::default());
        let sender = world.connect("sender");
        let receivers = ["one", "two", "three", "four"].map(|name| world.connect(name));
        for receiver in receivers {
            world.subscribe(receiver, "a", 2);
        }
        world.send_publish(sender, &publish("a", 2, "x", id(1)));
        for _ in 0..3 {
            world.lose(sender);
            world.connect("sender");
            let sender = world.connect("sender");
            let again = Publish {
                dup: true,
                ..publish("a", 2, "x", id(1))
            };
            world.send_publish(sender, &again);
            world.settle();
        }
        for receiver in receivers {
            assert_eq!(world.drain(receiver).len(), 1);
        }
    }
}

/// Verifies [MQTT-2.2.1-4]: identifiers of open messages are not used again after a resume.
/// Verifies [MQTT-4.3.3-5]: which would destroy the state of QoS 2.
#[test]
fn packet_identifiers_in_use_are_not_given_to_new_messages_after_a_resume() {
    let mut world = World::new();
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    world.subscribe(receiver, "a", 2);
    world.publish(sender, "a", 2, "released");
    world.publish(sender, "a", 2, "open");
    let open = world.deliveries(receiver);
    let used: Vec<_> = open.iter().filter_map(|one| one.packet_id).collect();
    world.pubrec(receiver, used[0].get());
    for _ in 0..3 {
        world.lose(receiver);
        let receiver = world.connect("receiver");
        world.publish(sender, "a", 2, "new");
        let new = world.deliveries(receiver);
        for delivery in new.iter().filter(|one| payload(one) == "new" && !one.dup) {
            let packet_id = delivery.packet_id.expect("QoS 2");
            assert!(!used.contains(&packet_id));
        }
        world.lose(receiver);
    }
    let receiver = world.connect("receiver");
    let pubrel = Outgoing::PubRel(Ack::new(used[0], ReasonCode::Success));
    assert_eq!(world.next(receiver), Some(pubrel));
}

/// Verifies [MQTT-3.1.3-8]: an empty Client Identifier that was not assigned is refused with 0x85.
/// Verifies [v3.1.1 MQTT-3.1.3-8]: with 0x02 in 3.1.1, where Clean Session is 0.
#[test]
fn an_empty_client_id_with_clean_session_0_is_refused() {
    for version in [Version::V31, Version::V311] {
        let mut world = World::new();
        let mut connect = Connect::new(version, "");
        connect.clean_start = false;
        let client = world.connect_with(connect);
        let reason = world.connack(client).reason;
        assert_eq!(reason, ReasonCode::ClientIdentifierNotValid);
        assert_eq!(reason.connack_return_code(), Some(2));
        assert!(world.closed(client).is_some());
    }
}

/// Verifies [MQTT-3.2.2-13]: a retained Will where there is no Retain Available is refused with 0x9A.
#[test]
fn a_retained_will_without_retain_available_is_refused() {
    let limits = Limits {
        retain_available: false,
        ..Limits::default()
    };
    let mut world = World::with(1, limits);
    let mut connect = with_will(durable("client"), 0);
    if let Some(will) = &mut connect.will {
        will.retain = true;
    }
    let client = world.connect_with(connect);
    let connack = world.connack(client);
    assert_eq!(connack.reason, ReasonCode::RetainNotSupported);
    assert_eq!(world.closed(client), Some(ReasonCode::RetainNotSupported));
}

/// Verifies [MQTT-4.5.0-1]: an offline Session takes part in routing, so that a message acknowledged to
/// its publisher is there when the Client returns.
#[test]
fn a_message_acknowledged_while_the_receiver_is_away_is_there_when_it_returns() {
    for shards in 1..=3 {
        let mut world = World::with(shards, Limits::default());
        let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
        world.subscribe(receiver, "a/#", 1);
        world.lose(receiver);
        world.publish(sender, "a/b", 1, "x");
        let expected = Outgoing::PubAck(Ack::new(id(2), ReasonCode::Success));
        assert_eq!(world.received(sender), [expected]);
        let (receiver, session_present) = world.resume("receiver");
        assert!(session_present);
        assert_eq!(world.payloads(receiver), ["x"]);
    }
}

/// A Will its Client may not publish is dropped, however the connection ends.
#[test]
fn a_will_that_may_not_be_published_is_not() {
    let (mut world, watcher) = watched("watcher");
    world.limit(Some("mine/#"), Some("mine/#"));
    let endings: [fn(&mut World, Client); 3] = [
        |world, client| world.lose(client),
        |world, client| {
            let reason = ReasonCode::DisconnectWithWillMessage;
            world.disconnect(client, &Disconnect::new(reason));
        },
        |world, _| {
            world.connect("client");
        },
    ];
    for end in endings {
        let client = world.connect_with(with_will(Connect::new(Version::V5, "client"), 0));
        world.connack(client);
        end(&mut world, client);
    }
    assert!(world.received(watcher).is_empty());
    assert_eq!(world.engines[0].counters().wills_published, 0);
}

/// Verifies [MQTT-3.14.4-3]: DISCONNECT discards the Will before the closed connection could publish it.
#[test]
fn a_will_discarded_by_disconnect_stays_discarded_when_the_connection_closes() {
    for delay in [0, 10] {
        let (mut world, watcher) = watched("watcher");
        let client = world.connect_with(with_will(durable("client"), delay));
        world.connack(client);
        world.disconnect(client, &Disconnect::new(ReasonCode::Success));
        world.lose(client);
        world.advance(100);
        assert!(world.received(watcher).is_empty());
    }
}

/// Verifies [MQTT-3.1.2-24]: the Client's Maximum Packet Size counts the whole packet.
/// Verifies [MQTT-3.1.2-25]: what does not fit is dropped, and nothing else.
#[test]
fn the_maximum_packet_size_is_exact_at_every_qos() {
    for qos in 0..=2_u8 {
        // Fixed header 2, topic 3, Packet Identifier, Property Length 1, payload 20.
        let size = 2 + 3 + 2 * u32::from(qos > 0) + 1 + 20;
        for (maximum, expected) in [(size, 1), (size - 1, 0)] {
            let mut world = World::new();
            let sender = world.connect("sender");
            let mut connect = durable("receiver");
            connect.properties.maximum_packet_size_bytes = NonZeroU32::new(maximum);
            let receiver = world.connect_with(connect);
            world.connack(receiver);
            world.subscribe(receiver, "a", 2);
            world.publish(sender, "a", qos, &"x".repeat(20));
            assert_eq!(world.drain(receiver).len(), expected, "{qos} {maximum}");
            world.publish(sender, "a", qos, "short");
            assert_eq!(world.drain(receiver).len(), 1);
            let dropped = world.engines[0].counters().dropped_too_large;
            assert_eq!(dropped, 1 - expected as u64);
        }
    }
}

/// Verifies [MQTT-3.1.2-8]: a Session with expiry 0 does not wait for the Will Delay Interval.
#[test]
fn a_will_delay_does_not_outlive_a_session_with_expiry_zero() {
    let (mut world, watcher) = watched("watcher");
    let mut connect = with_will(durable("client"), 100);
    connect.properties.session_expiry_interval_seconds = None;
    let client = world.connect_with(connect);
    world.lose(client);
    assert_eq!(world.payloads(watcher), ["gone"]);
    // Nor if DISCONNECT sets it to 0.
    let client = world.connect_with(with_will(durable("client"), 100));
    let mut disconnect = Disconnect::new(ReasonCode::DisconnectWithWillMessage);
    disconnect.session_expiry_interval_seconds = Some(0);
    world.disconnect(client, &disconnect);
    assert_eq!(world.payloads(watcher), ["gone"]);
    world.advance(1000);
    assert!(world.received(watcher).is_empty());
}

/// Verifies [MQTT-3.3.1-10]: Retain Handling is not ignored, whatever it was before.
#[test]
fn retain_handling_of_the_last_subscribe_counts() {
    let mut world = World::new();
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    world.publish_retained(sender, "a", 1, "kept");
    let mut seen = Vec::new();
    for retain_handling in [
        RetainHandling::DoNotSend,
        RetainHandling::SendIfNew,
        RetainHandling::Send,
        RetainHandling::SendIfNew,
    ] {
        let with = SubscriptionOptions {
            retain_handling,
            ..options(1)
        };
        world.subscribe_with(receiver, "a", with, None);
        seen.push(world.drain(receiver).len());
    }
    assert_eq!(seen, [0, 0, 1, 0]);
}

/// Verifies [MQTT-3.3.2-6]: the Message Expiry Interval goes out minus the time a message waited.
/// Verifies [MQTT-3.3.2-16]: and Correlation Data as it came in.
#[test]
fn a_message_that_waited_keeps_its_correlation_data_and_loses_time() {
    let raw: &[u8] = b"\x02\0\0\0\x3C\x08\0\x01r\x09\0\x03\0\x01\xFF";
    let mut world = World::with(2, Limits::default());
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    world.subscribe(receiver, "a", 2);
    world.lose(receiver);
    world.send_publish(sender, &with_properties("a", 2, "x", raw));
    world.settle();
    world.advance(25);
    let (receiver, _) = world.resume("receiver");
    let deliveries = world.deliveries(receiver);
    assert_eq!(deliveries.len(), 1);
    let message = &deliveries[0].message;
    assert_eq!(message.remaining_expiry_seconds(world.now), Some(35));
    assert_eq!(message.forwarded_properties(), &raw[5..]);
    assert_eq!(deliveries[0].qos, Qos::ExactlyOnce);
}

/// Verifies [MQTT-4.3.3-5]: PUBREL is sent again at every reconnect until PUBCOMP, also if the
/// connection is lost before it could be read.
#[test]
fn an_outgoing_pubrel_is_not_lost_over_reconnects() {
    let mut world = World::new();
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    world.subscribe(receiver, "a", 2);
    world.publish(sender, "a", 2, "x");
    let packet_id = world.deliveries(receiver)[0].packet_id.expect("QoS 2");
    world.pubrec(receiver, packet_id.get());
    world.lose(receiver);
    let pubrel = Outgoing::PubRel(Ack::new(packet_id, ReasonCode::Success));
    for _ in 0..3 {
        let receiver = world.connect("receiver");
        assert_eq!(world.received(receiver), std::slice::from_ref(&pubrel));
        world.lose(receiver);
    }
    let receiver = world.connect("receiver");
    world.pubcomp(receiver, packet_id.get());
    world.lose(receiver);
    let receiver = world.connect("receiver");
    assert!(world.received(receiver).is_empty());
}
