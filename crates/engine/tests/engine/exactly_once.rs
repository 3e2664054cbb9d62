//! QoS 2 messages that several shards take: in which order their records are written, and who waits.
//!
//! Start reading at [`Pair`]. The crash tests are in `crashes`.

use std::collections::BTreeSet;

use bytes::Bytes;
use proto::Qos;
use proto::connection::Outgoing;
use proto::packet::{Connect, Disconnect, ReasonCode, Will, WillProperties};
use store::{Origin, Record};
use vencejo_engine::Limits;

use crate::world::{Client, World, durable, id, payload, publish};

/// A publisher in one shard and a subscriber in another, both with Sessions that never expire. Stores
/// hold back what is given to them.
struct Pair {
    world: World,
    sender: Client,
    receiver: Client,
}

impl Pair {
    fn new() -> Self {
        let mut world = World::with(2, Limits::default());
        let sender = world.connect("sender");
        let receiver = in_shard(&mut world, 1 - sender.shard, "receiver");
        world.subscribe(receiver, "a", 2);
        world.holds_store = true;
        Self {
            world,
            sender,
            receiver,
        }
    }

    fn publish(&mut self, topic: &str, text: &str, packet_id: u16) {
        self.world
            .send_publish(self.sender, &publish(topic, 2, text, id(packet_id)));
        self.world.settle();
    }

    /// The identifiers of the PUBRECs that have come.
    fn pubrecs(&mut self) -> Vec<u16> {
        let packets = self.world.received(self.sender).into_iter();
        packets
            .filter_map(|packet| match packet {
                Outgoing::PubRec(ack) => Some(ack.packet_id.get()),
                _ => None,
            })
            .collect()
    }
}

fn in_shard(world: &mut World, shard: usize, prefix: &str) -> Client {
    (0..64)
        .map(|number| world.connect(&format!("{prefix}{number}")))
        .find(|client| client.shard == shard)
        .expect("64 names in two shards")
}

fn records(world: &World, shard: usize) -> Vec<Record> {
    let batches = world.stores[shard].batches().iter();
    batches.flat_map(|batch| batch.records.clone()).collect()
}

/// The origins of the messages queued in a shard.
fn origins(world: &World, shard: usize) -> Vec<Option<Origin>> {
    let records = records(world, shard).into_iter();
    records
        .filter_map(|record| match record {
            Record::Enqueue { origin, .. } => Some(origin),
            _ => None,
        })
        .collect()
}

/// The InboundPuts (with their number) and InboundDeletes (without) of a shard.
fn inbound(world: &World, shard: usize) -> Vec<(u16, Option<u64>)> {
    let records = records(world, shard).into_iter();
    records
        .filter_map(|record| match record {
            Record::InboundPut {
                packet_id, number, ..
            } => Some((packet_id, Some(number))),
            Record::InboundDelete { packet_id, .. } => Some((packet_id, None)),
            _ => None,
        })
        .collect()
}

/// Its own shard says that a message is accepted only when the others have it, and its subscriber and its
/// publisher hear of it only when that is durable.
#[test]
fn a_message_for_another_shard_counts_when_both_have_written_it() {
    let mut pair = Pair::new();
    pair.publish("a", "x", 1);
    let [Some(origin)] = origins(&pair.world, pair.receiver.shard)[..] else {
        panic!("not one message with an origin");
    };
    assert_eq!(origin.number, 1);
    assert_eq!(inbound(&pair.world, pair.sender.shard), []);
    assert_eq!(pair.pubrecs(), []);
    assert!(pair.world.received(pair.receiver).is_empty());

    pair.world.persist();
    assert_eq!(inbound(&pair.world, pair.sender.shard), [(1, Some(1))]);
    assert_eq!(pair.pubrecs(), []);
    assert!(pair.world.received(pair.receiver).is_empty());

    pair.world.persist();
    assert_eq!(pair.pubrecs(), [1]);
    assert_eq!(pair.world.payloads(pair.receiver), ["x"]);
}

/// What only its own shard takes is one batch, and waits for one.
#[test]
fn a_message_for_its_own_shard_alone_needs_no_origin() {
    let mut pair = Pair::new();
    pair.world.holds_store = false;
    let near = in_shard(&mut pair.world, pair.sender.shard, "near");
    pair.world.subscribe(near, "near", 2);
    pair.world.holds_store = true;
    pair.publish("near", "x", 1);
    assert_eq!(origins(&pair.world, pair.sender.shard), [None]);
    assert_eq!(inbound(&pair.world, pair.sender.shard), [(1, Some(1))]);
    assert_eq!(pair.pubrecs(), []);
    pair.world.persist();
    assert_eq!(pair.pubrecs(), [1]);
    assert_eq!(pair.world.payloads(near), ["x"]);
}

/// A Client whose Session ends with the crash does not send its messages again.
#[test]
fn a_clean_publisher_has_no_origin() {
    let mut pair = Pair::new();
    pair.world.holds_store = false;
    let mut clean = durable("sender");
    clean.clean_start = true;
    clean.properties.session_expiry_interval_seconds = None;
    pair.sender = pair.world.connect_with(clean);
    pair.world.received(pair.sender);
    pair.world.holds_store = true;
    pair.publish("a", "x", 1);
    assert_eq!(origins(&pair.world, pair.receiver.shard), [None]);
    pair.world.persist();
    assert_eq!(pair.pubrecs(), [1]);
    assert_eq!(pair.world.payloads(pair.receiver), ["x"]);
    assert_eq!(inbound(&pair.world, pair.sender.shard), []);
}

/// A Session that ends with the crash cannot see a message twice, and QoS 1 may.
#[test]
fn clean_subscribers_and_qos_1_do_not_wait_for_the_commit() {
    let mut pair = Pair::new();
    pair.world.holds_store = false;
    let clean = (0..64)
        .map(|number| pair.world.connect_clean(&format!("clean{number}")))
        .find(|client| client.shard == pair.receiver.shard)
        .expect("64 names in two shards");
    pair.world.subscribe(clean, "a", 2);
    let other = in_shard(&mut pair.world, pair.receiver.shard, "other");
    pair.world.subscribe(other, "a", 1);
    pair.world.holds_store = true;
    pair.publish("a", "x", 1);
    assert_eq!(pair.world.payloads(clean), ["x"]);
    assert_eq!(pair.world.payloads(other), ["x"]);
    assert!(pair.world.received(pair.receiver).is_empty());
}

/// A message that nobody else takes does not overtake one that others do.
#[test]
fn commits_of_a_session_keep_their_order() {
    let mut pair = Pair::new();
    pair.world.holds_store = false;
    let near = in_shard(&mut pair.world, pair.sender.shard, "near");
    pair.world.subscribe(near, "+", 2);
    pair.world.holds_store = true;
    pair.publish("a", "far and near", 1);
    pair.publish("near", "near", 2);
    let numbers = |world: &World, shard| -> Vec<_> {
        let origins = origins(world, shard).into_iter().flatten();
        origins.map(|origin| origin.number).collect()
    };
    assert_eq!(numbers(&pair.world, pair.sender.shard), [1, 2]);
    assert_eq!(numbers(&pair.world, pair.receiver.shard), [1]);
    assert_eq!(inbound(&pair.world, pair.sender.shard), []);
    pair.world.persist();
    let puts = [(1, Some(1)), (2, Some(2))];
    assert_eq!(inbound(&pair.world, pair.sender.shard), puts);
    assert!(pair.world.received(near).is_empty());
    assert_eq!(pair.pubrecs(), []);
    pair.world.persist();
    assert_eq!(pair.pubrecs(), [1, 2]);
    assert_eq!(pair.world.payloads(near), ["far and near", "near"]);
    // Nothing is open any more, so the next one needs no origin.
    pair.publish("near", "later", 3);
    assert_eq!(
        inbound(&pair.world, pair.sender.shard).last(),
        Some(&(3, Some(3)))
    );
    assert_eq!(origins(&pair.world, pair.sender.shard).last(), Some(&None));
}

/// The Client may ask as often as it likes: one delivery, and no answer before its time.
#[test]
fn a_repeated_publish_waits_for_the_commit_of_the_first() {
    let mut pair = Pair::new();
    pair.publish("a", "x", 1);
    pair.world.lose(pair.sender);
    pair.sender = pair.world.connect_with(durable("sender"));
    pair.publish("a", "x", 1);
    assert!(pair.world.received(pair.sender).is_empty());
    pair.world.persist();
    let connack = pair.world.received(pair.sender);
    assert!(matches!(connack[..], [Outgoing::ConnAck(_)]), "{connack:?}");
    pair.world.persist();
    assert_eq!(pair.pubrecs(), [1]);
    assert_eq!(inbound(&pair.world, pair.sender.shard), [(1, Some(1))]);
    assert_eq!(pair.world.payloads(pair.receiver), ["x"]);
}

/// A Client that does not wait for PUBREC: its identifier is free afterwards, here and on disk.
#[test]
fn a_pubrel_before_pubrec_is_recorded_after_the_identifier() {
    let mut pair = Pair::new();
    pair.publish("a", "x", 1);
    pair.world.pubrel(pair.sender, 1);
    pair.publish("a", "y", 1);
    pair.world.pubrel(pair.sender, 1);
    pair.world.pubrel(pair.sender, 1);
    assert!(pair.world.received(pair.sender).is_empty());
    pair.world.persist();
    let both = [(1, Some(1)), (1, None), (1, Some(2)), (1, None)];
    assert_eq!(inbound(&pair.world, pair.sender.shard), both);
    assert!(pair.world.received(pair.sender).is_empty());
    pair.world.persist();
    let packets = pair.world.received(pair.sender);
    let comps = packets
        .iter()
        .filter(|packet| matches!(packet, Outgoing::PubComp(_)));
    assert_eq!((packets.len(), comps.count()), (5, 3));
    assert_eq!(pair.world.payloads(pair.receiver), ["x", "y"]);
    assert_eq!(inbound(&pair.world, pair.sender.shard), both);
}

/// A Client that neither waits for PUBREC nor stops is stopped.
#[test]
fn no_more_messages_wait_for_a_commit_than_a_client_may_send() {
    let limits = Limits {
        receive_maximum: 3,
        ..Limits::default()
    };
    let mut world = World::with(2, limits);
    let sender = world.connect("sender");
    let receiver = in_shard(&mut world, 1 - sender.shard, "receiver");
    world.subscribe(receiver, "a", 2);
    world.holds_rings = true;
    for _ in 0..4 {
        assert_eq!(world.closed(sender), None);
        world.send_publish(sender, &publish("a", 2, "x", id(1)));
        world.pubrel(sender, 1);
    }
    assert_eq!(
        world.closed(sender),
        Some(ReasonCode::ReceiveMaximumExceeded)
    );
    world.holds_rings = false;
    world.settle();
    assert_eq!(world.drain(receiver).len(), 3);
}

/// The Session that has published ends: what it has published counts once that is durable.
#[test]
fn the_end_of_the_publishers_session_commits_what_it_has_published() {
    let mut pair = Pair::new();
    pair.publish("a", "x", 1);
    let ends = Disconnect {
        session_expiry_interval_seconds: Some(0),
        ..Disconnect::new(ReasonCode::Success)
    };
    pair.world.disconnect(pair.sender, &ends);
    assert!(pair.world.received(pair.receiver).is_empty());
    assert_eq!(endings(&pair.world, pair.sender.shard), (false, false));
    pair.world.persist();
    assert_eq!(endings(&pair.world, pair.sender.shard), (false, true));
    assert!(pair.world.received(pair.receiver).is_empty());
    pair.world.persist();
    assert_eq!(pair.world.payloads(pair.receiver), ["x"]);
    assert_eq!(inbound(&pair.world, pair.sender.shard), []);
}

/// A gate is closed for the next connection of the subscriber, too.
#[test]
fn a_subscriber_that_returns_waits_for_the_commit_as_well() {
    let mut pair = Pair::new();
    pair.publish("a", "x", 1);
    pair.world.lose(pair.receiver);
    let name = (0..64)
        .map(|number| format!("receiver{number}"))
        .find(|name| {
            let home = vencejo_engine::home_shard(name, 7, 2);
            usize::from(home.0) == pair.receiver.shard
        })
        .expect("64 names in two shards");
    pair.receiver = pair.world.connect_with(durable(&name));
    assert!(pair.world.received(pair.receiver).is_empty());
    pair.world.persist();
    let connack = pair.world.received(pair.receiver);
    assert!(matches!(connack[..], [Outgoing::ConnAck(_)]), "{connack:?}");
    pair.world.persist();
    assert_eq!(pair.world.payloads(pair.receiver), ["x"]);
}

/// Whoever ends up with a message for a Shared Subscription waits for the commit of its publisher.
#[test]
fn a_message_that_is_passed_on_keeps_its_origin() {
    let mut world = World::with(3, Limits::default());
    let sender = world.connect("sender");
    let leaving = in_shard(&mut world, (sender.shard + 1) % 3, "leaving");
    let staying = in_shard(&mut world, (sender.shard + 2) % 3, "staying");
    world.subscribe(leaving, "$share/g/a", 2);
    world.holds_rings = true;
    world.send_publish(sender, &publish("a", 2, "x", id(1)));
    world.turn();
    world.unsubscribe(leaving, "$share/g/a");
    world.subscribe(staying, "$share/g/a", 2);
    while world.carry_one((staying.shard, leaving.shard)) {}
    world.holds_store = true;
    world.holds_rings = false;
    world.settle();
    let [Some(origin)] = origins(&world, staying.shard)[..] else {
        panic!("not one message with an origin");
    };
    assert_eq!(origin.number, 1);
    let mut steps = 0;
    loop {
        let deliveries = world.deliveries(staying);
        if let [delivery] = &deliveries[..] {
            assert_eq!(payload(delivery), "x");
            break;
        }
        world.persist();
        steps += 1;
    }
    assert_eq!(steps, 2, "the queue, then the commit");
    let shards: BTreeSet<_> = [sender, leaving, staying].map(|one| one.shard).into();
    assert_eq!(shards.len(), 3);
}

fn with_will(client_id: &str, qos: u8) -> Connect {
    let mut connect = durable(client_id);
    connect.will = Some(Will {
        topic: "a".to_owned(),
        payload: Bytes::from_static(b"gone"),
        qos: Qos::from_level(qos).expect("0, 1 or 2"),
        retain: false,
        properties: WillProperties::default(),
    });
    connect
}

/// Whether the store of this shard has heard of the end of a Will, and of a Session.
fn endings(world: &World, shard: usize) -> (bool, bool) {
    let records = records(world, shard);
    let has = |fits: fn(&Record) -> bool| records.iter().any(fits);
    (
        has(|record| matches!(record, Record::WillDelete { .. })),
        has(|record| matches!(record, Record::SessionDelete { .. })),
    )
}

/// A message at QoS 1 does not count before the QoS 2 message that came before it.
#[test]
fn qos_1_does_not_overtake_a_message_that_is_not_committed() {
    let mut pair = Pair::new();
    pair.publish("a", "x", 1);
    let (sender, mut numbers) = (pair.sender, Vec::new());
    pair.world.publish(sender, "a", 1, "y");
    pair.world.persist();
    // The commit of the first is recorded, but not durable.
    pair.world.publish(sender, "a", 1, "z");
    for origin in origins(&pair.world, pair.receiver.shard) {
        numbers.push(origin.map(|origin| origin.number));
    }
    assert_eq!(numbers, [Some(1), Some(2), Some(3)]);
    for _ in 0..3 {
        pair.world.persist();
    }
    assert_eq!(pair.world.received(sender).len(), 3);
    assert_eq!(pair.world.payloads(pair.receiver), ["x", "y", "z"]);
    pair.world.publish(sender, "a", 1, "alone");
    assert_eq!(
        origins(&pair.world, pair.receiver.shard).last(),
        Some(&None)
    );
    let last = records(&pair.world, sender.shard)
        .into_iter()
        .rev()
        .find_map(|record| match record {
            Record::SessionPut(record) => Some(record.inbound_number),
            _ => None,
        });
    assert_eq!(last, Some(3));
}

/// A Will for another shard is forgotten when that has written it, in one batch with its number.
#[test]
fn a_will_is_forgotten_when_every_shard_has_it() {
    for qos in 1..=2 {
        let mut pair = Pair::new();
        let dies = pair.world.connect_with(with_will("sender", qos));
        pair.world.persist();
        pair.world.lose(dies);
        let [Some(origin)] = origins(&pair.world, pair.receiver.shard)[..] else {
            panic!("not one message with an origin");
        };
        assert_eq!(origin.number, 1);
        assert_eq!(endings(&pair.world, dies.shard), (false, false));
        pair.world.persist();
        assert_eq!(endings(&pair.world, dies.shard), (true, false));
        let batches = pair.world.stores[dies.shard].batches();
        let last = &batches.last().expect("a commit").records[..];
        assert!(
            matches!(last, [Record::SessionPut(put), Record::WillDelete { .. }]
                if put.inbound_number == 1 && put.disconnected_at.is_some()),
            "{last:?}"
        );
        // Seen before at QoS 1, at QoS 2 only now.
        pair.world.persist();
        assert_eq!(pair.world.payloads(pair.receiver), ["gone"]);
    }
}

/// A Client that is back before its Will is committed: the store has one place for both, and the new Will takes it
/// with the commit of the old one; CONNACK says that it is there.
#[test]
fn the_next_will_takes_the_place_of_one_that_is_committed() {
    let mut pair = Pair::new();
    let dies = pair.world.connect_with(with_will("sender", 1));
    pair.world.persist();
    pair.world.lose(dies);
    let before = wills(&pair.world, dies.shard);
    let back = pair.world.connect_with(with_will("sender", 1));
    assert_eq!(wills(&pair.world, dies.shard), before, "the old one counts");
    assert_eq!(pair.world.next(back), None);
    pair.world.persist();
    assert_eq!(wills(&pair.world, dies.shard), before + "+");
    assert_eq!(pair.world.next(back), None);
    pair.world.persist();
    assert!(pair.world.connack(back).session_present);
}

/// Of Wills that are published before the one in the store is committed, no Client was told that they are kept.
#[test]
fn a_will_published_behind_another_leaves_that_in_the_store() {
    let mut pair = Pair::new();
    let dies = pair.world.connect_with(with_will("sender", 1));
    pair.world.persist();
    pair.world.lose(dies);
    let before = wills(&pair.world, dies.shard);
    for _ in 0..2 {
        let dies = pair.world.connect_with(with_will("sender", 1));
        pair.world.lose(dies);
        assert_eq!(pair.world.next(dies), None);
    }
    assert_eq!(wills(&pair.world, dies.shard), before);
    pair.world.persist();
    pair.world.persist();
    assert_eq!(wills(&pair.world, dies.shard), "+-");
    assert_eq!(pair.world.payloads(pair.receiver), ["gone"; 3]);
}

/// Every Will recorded (+) and forgotten (-) by this shard.
fn wills(world: &World, shard: usize) -> String {
    let records = records(world, shard).into_iter();
    records
        .filter_map(|record| match record {
            Record::WillPut(_) => Some('+'),
            Record::WillDelete { .. } => Some('-'),
            _ => None,
        })
        .collect()
}

/// A Session whose Will goes to another shard is deleted when that has written it; whoever relies on its
/// end waits for that.
#[test]
fn the_end_of_a_session_waits_for_its_will_in_other_shards() {
    for qos in 0..=2 {
        let mut pair = Pair::new();
        let dies = pair.world.connect_with(with_will("sender", qos));
        pair.world.persist();
        pair.world.send_publish(dies, &publish("a", 2, "x", id(1)));
        let mut clean = durable("sender");
        clean.clean_start = true;
        clean.properties.session_expiry_interval_seconds = None;
        let next = pair.world.connect_with(clean);
        assert_eq!(endings(&pair.world, dies.shard), (false, false));
        assert!(pair.world.received(next).is_empty());
        pair.world.persist();
        assert_eq!(endings(&pair.world, dies.shard), (false, true), "{qos}");
        assert!(pair.world.received(next).is_empty());
        pair.world.persist();
        assert!(matches!(
            pair.world.received(next)[..],
            [Outgoing::ConnAck(_)]
        ));
        assert_eq!(pair.world.payloads(pair.receiver), ["x", "gone"], "{qos}");
    }
}

/// [MQTT-3.1.2-4] What a clean start has ended does not come back after a crash.
#[test]
fn the_connack_of_a_clean_start_waits_for_the_end_of_the_session() {
    let mut world = World::new();
    world.connect("client");
    world.holds_store = true;
    let mut clean = durable("client");
    clean.clean_start = true;
    clean.properties.session_expiry_interval_seconds = None;
    let client = world.connect_with(clean);
    assert!(world.received(client).is_empty());
    world.persist();
    assert!(matches!(world.received(client)[..], [Outgoing::ConnAck(_)]));
}
