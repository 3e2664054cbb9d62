//! One message from publisher to subscriber, at each QoS, live and after a lost connection.

use proto::connection::Outgoing;
use proto::packet::{Ack, ReasonCode};
use proto::{Qos, Version};

use crate::world::{World, id, payload, publish};

/// Verifies [MQTT-3.8.4-8]: the delivery has the lower of the published and the granted QoS.
/// Verifies [v3.1.1 MQTT-3.8.4-6]: the same in 3.1.1.
#[test]
fn a_message_arrives_at_the_lower_of_both_qos() {
    for version in [Version::V311, Version::V5] {
        for published in 0..=2 {
            for granted in 0..=2 {
                let mut world = World::speaking(version);
                let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
                world.subscribe(receiver, "a/+", granted);
                world.publish(sender, "a/b", published, "hello");
                let deliveries = world.deliveries(receiver);
                assert_eq!(deliveries.len(), 1);
                assert_eq!(payload(&deliveries[0]), "hello");
                assert_eq!(deliveries[0].qos.level(), published.min(granted));
            }
        }
    }
}

/// Verifies [MQTT-4.3.2-4]: QoS 1 is answered with PUBACK.
/// Verifies [MQTT-4.3.3-8]: QoS 2 is answered with PUBREC, then PUBCOMP.
#[test]
fn each_qos_is_acknowledged_as_it_asks() {
    let mut world = World::new();
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    world.subscribe(receiver, "#", 2);
    world.send_publish(sender, &publish("a", 0, "0", id(1)));
    world.send_publish(sender, &publish("a", 1, "1", id(2)));
    world.send_publish(sender, &publish("a", 2, "2", id(3)));
    world.settle();
    let success = |number| Ack::new(id(number), ReasonCode::Success);
    let expected = [Outgoing::PubAck(success(2)), Outgoing::PubRec(success(3))];
    assert_eq!(world.received(sender), expected);
    world.pubrel(sender, 3);
    assert_eq!(world.received(sender), [Outgoing::PubComp(success(3))]);
    let deliveries = world.drain(receiver);
    assert_eq!(
        deliveries.iter().map(payload).collect::<Vec<_>>(),
        ["0", "1", "2"]
    );
}

/// Verifies [MQTT-4.4.0-1]: a resumed Session gets its unacknowledged PUBLISH again, with DUP and its
/// identifier, before anything that waited.
#[test]
fn a_resumed_session_gets_what_was_in_flight_first() {
    let mut world = World::new();
    let sender = world.connect("sender");
    let receiver = world.connect("receiver");
    world.subscribe(receiver, "a", 2);
    world.publish(sender, "a", 1, "first");
    world.publish(sender, "a", 2, "second");
    let before = world.deliveries(receiver);
    world.lose(receiver);
    world.publish(sender, "a", 1, "third");
    let (receiver, session_present) = world.resume("receiver");
    assert!(session_present);
    let after = world.deliveries(receiver);
    let seen: Vec<_> = after
        .iter()
        .map(|one| (payload(one), one.dup, one.packet_id))
        .collect();
    assert_eq!(seen[0], ("first".to_owned(), true, before[0].packet_id));
    assert_eq!(seen[1], ("second".to_owned(), true, before[1].packet_id));
    assert_eq!((&*seen[2].0, seen[2].1), ("third", false));
    assert_eq!(after[1].qos, Qos::ExactlyOnce);
}

/// Verifies [MQTT-3.3.1-5]: the last retained message replaces the one before and is sent to a new
/// Subscription with RETAIN set, [MQTT-3.3.1-8].
#[test]
fn a_new_subscription_gets_the_last_retained_message() {
    let mut world = World::new();
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    world.publish_retained(sender, "a/b", 1, "old");
    world.publish_retained(sender, "a/b", 1, "new");
    world.subscribe(receiver, "a/#", 1);
    let deliveries = world.deliveries(receiver);
    assert_eq!(deliveries.len(), 1);
    assert_eq!(payload(&deliveries[0]), "new");
    assert!(deliveries[0].retain);
}
