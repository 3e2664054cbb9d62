//! What waits until it is durable.

use proto::connection::Outgoing;
use store::Record;

use crate::world::{World, durable};

fn records(world: &World) -> Vec<&Record> {
    world.stores[0]
        .batches()
        .iter()
        .flat_map(|batch| &batch.records)
        .collect()
}

#[test]
fn an_acknowledgement_waits_for_the_batch_of_its_message() {
    for qos in 1..=2 {
        let mut world = World::new();
        let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
        world.subscribe(receiver, "a", 2);
        world.holds_store = true;
        world.publish(sender, "a", qos, "x");
        assert!(world.received(sender).is_empty());
        world.publish(sender, "nobody", qos, "later, so not before the first");
        assert!(world.received(sender).is_empty());
        world.persist();
        assert_eq!(world.received(sender).len(), 2);
        assert_eq!(world.deliveries(receiver).len(), 1);
    }
}

#[test]
fn a_clean_session_waits_for_nothing() {
    let mut world = World::new();
    let (sender, receiver) = (
        world.connect_clean("sender"),
        world.connect_clean("receiver"),
    );
    world.holds_store = true;
    assert_eq!(world.subscribe(receiver, "a", 2).len(), 1);
    for qos in 0..=2 {
        world.publish(sender, "a", qos, "x");
    }
    assert_eq!(world.received(sender).len(), 2);
    assert_eq!(world.drain(receiver).len(), 3);
    world.lose(receiver);
    assert!(records(&world).is_empty());
}

#[test]
fn connack_suback_and_unsuback_of_a_durable_session_wait() {
    let mut world = World::new();
    world.holds_store = true;
    let client = world.connect_with(durable("client"));
    assert_eq!(world.next(client), None);
    world.persist();
    assert!(matches!(world.next(client), Some(Outgoing::ConnAck(_))));
    assert!(world.subscribe(client, "a", 1).is_empty());
    world.persist();
    assert!(matches!(world.next(client), Some(Outgoing::SubAck(_))));
    assert!(world.unsubscribe(client, "a").is_empty());
    world.persist();
    assert!(matches!(world.next(client), Some(Outgoing::UnsubAck(_))));
}

/// The discard that PUBREC allows is durable before PUBREL is sent, and the release of an inbound
/// identifier before PUBCOMP.
#[test]
fn pubrel_and_pubcomp_wait_for_what_they_forget() {
    let mut world = World::new();
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    world.subscribe(receiver, "a", 2);
    world.publish(sender, "a", 2, "x");
    let packet_id = world.deliveries(receiver)[0]
        .packet_id
        .expect("QoS 2")
        .get();
    world.received(sender);
    world.holds_store = true;
    world.pubrec(receiver, packet_id);
    assert_eq!(world.next(receiver), None);
    world.pubrel(sender, 1);
    world.persist();
    assert!(matches!(world.next(receiver), Some(Outgoing::PubRel(_))));
    world.received(sender);
    world.publish(sender, "b", 2, "y");
    world.persist();
    let Some(Outgoing::PubRec(pubrec)) = world.next(sender) else {
        panic!("no PUBREC")
    };
    world.pubrel(sender, pubrec.packet_id.get());
    assert_eq!(world.next(sender), None);
    world.persist();
    assert!(matches!(world.next(sender), Some(Outgoing::PubComp(_))));
}

#[test]
fn a_message_for_many_durable_sessions_is_one_record() {
    let mut world = World::new();
    let sender = world.connect_clean("sender");
    for number in 0..5 {
        let receiver = world.connect(&format!("receiver{number}"));
        world.subscribe(receiver, "a", 1);
    }
    world.publish(sender, "a", 1, "x");
    let targets: Vec<_> = records(&world)
        .into_iter()
        .filter_map(|record| match record {
            Record::Enqueue { targets, .. } => Some(targets.len()),
            _ => None,
        })
        .collect();
    assert_eq!(targets, [5]);
}

/// Everything that was queued is dequeued once, and a Session that ends is deleted.
#[test]
fn every_queued_record_is_taken_back() {
    let mut world = World::new();
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    world.subscribe(receiver, "a", 2);
    for qos in [1, 2, 1, 2] {
        world.publish(sender, "a", qos, "x");
    }
    world.drain(receiver);
    let mut clean = durable("receiver");
    clean.clean_start = true;
    world.connect_with(clean);
    let (mut queued, mut dequeued, mut deleted) = (0, 0, 0);
    for record in records(&world) {
        match record {
            Record::Enqueue { targets, .. } => queued += targets.len(),
            Record::Dequeue { count, .. } => dequeued += count,
            Record::SessionDelete { .. } => deleted += 1,
            _ => {}
        }
    }
    assert_eq!((queued, dequeued, deleted), (4, 4, 1));
}

/// Verifies [MQTT-3.2.0-1]: nothing leaves before the CONNACK, not even an answer to PINGREQ.
#[test]
fn a_ping_is_not_answered_before_the_connack() {
    let mut world = World::new();
    world.holds_store = true;
    let client = world.connect_with(durable("client"));
    world.engine(client).on_pingreq(client.key);
    world.settle();
    assert!(world.received(client).is_empty());
    world.persist();
    let received = world.received(client);
    assert!(matches!(
        received[..],
        [Outgoing::ConnAck(_), Outgoing::PingResp]
    ));
}
