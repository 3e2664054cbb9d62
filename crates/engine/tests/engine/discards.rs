//! Messages that leave a queue without being delivered, and what the store is told of them.

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use proto::packet::{Disconnect, Publish, PublishProperties, ReasonCode};
use store::{Record, SessionId};
use vencejo_engine::{Limits, OverflowPolicy};

use crate::wills::with_will;
use crate::world::{Client, World, durable, publish};

/// How a connection or its Will ends.
type Ending = fn(&mut World, Client);

/// Replays what the store was told: an entry is made before it is taken back. Returns those left.
fn open_entries(world: &World) -> BTreeSet<(SessionId, u64)> {
    let mut open = BTreeSet::new();
    let batches = world.stores.iter().flat_map(|store| store.batches());
    for record in batches.flat_map(|batch| &batch.records) {
        match record {
            Record::Enqueue { targets, .. } => {
                for target in targets {
                    open.insert((target.session, target.seq));
                }
            }
            Record::Dequeue {
                session,
                first_seq,
                count,
            } => {
                for seq in *first_seq..first_seq + count {
                    assert!(open.remove(&(*session, seq)), "{record:?}");
                }
            }
            _ => {}
        }
    }
    open
}

/// A message too large for its only receiver leaves nothing behind in the store: were its end recorded
/// before its beginning, a restart would bring it back.
#[test]
fn a_message_discarded_at_once_is_not_queued_durably() {
    for shards in 1..=3 {
        let mut world = World::with(shards, Limits::default());
        let sender = world.connect("sender");
        let mut connect = durable("receiver");
        connect.properties.maximum_packet_size_bytes = NonZeroU32::new(50);
        let receiver = world.connect_with(connect);
        world.connack(receiver);
        world.subscribe(receiver, "a", 2);
        for qos in [1, 2] {
            world.publish(sender, "a", qos, &"x".repeat(100));
            world.publish(sender, "a", qos, "fits");
        }
        assert_eq!(world.drain(receiver).len(), 2);
        assert_eq!(open_entries(&world), BTreeSet::new());
    }
}

/// The same for one whose Message Expiry Interval is zero, which has passed when it arrives.
#[test]
fn a_message_expired_on_arrival_is_not_queued_durably() {
    let mut world = World::new();
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    world.subscribe(receiver, "a", 2);
    let packet_id = world.packet_id();
    let expired = Publish {
        properties: PublishProperties::parse(&[2, 0, 0, 0, 0]).expect("valid"),
        ..publish("a", 1, "x", packet_id)
    };
    world.send_publish(sender, &expired);
    world.settle();
    assert!(world.deliveries(receiver).is_empty());
    assert_eq!(open_entries(&world), BTreeSet::new());
}

/// What a full queue pushes out is taken back in the store, also if the same message pushes itself out:
/// a Client that is in a Shared Subscription and has a plain one gets it twice.
#[test]
fn what_a_full_queue_pushes_out_is_taken_back() {
    let limits = Limits {
        queued_messages_max: 1,
        overflow_policy: OverflowPolicy::DropOldest,
        ..Limits::default()
    };
    let mut world = World::with(1, limits);
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    world.subscribe(receiver, "a", 1);
    world.subscribe(receiver, "$share/g/a", 1);
    world.lose(receiver);
    for text in ["one", "two", "three"] {
        world.publish(sender, "a", 1, text);
    }
    let left = open_entries(&world);
    assert_eq!(left.len(), 1);
    let (receiver, _) = world.resume("receiver");
    let deliveries = world.drain(receiver);
    assert_eq!(deliveries.len(), 1);
    assert_eq!(open_entries(&world), BTreeSet::new());
    assert_eq!(world.engines[0].counters().dropped_queue_full, 5);
}

/// Verifies [MQTT-3.1.2-10]: a Will that was published or discarded is gone from the store as well, or a
/// restart would publish it again.
#[test]
fn a_will_leaves_the_store_when_it_is_published_or_discarded() {
    let endings: [(u32, Ending); 5] = [
        (0, |world, client| world.lose(client)),
        (5, |world, client| {
            world.lose(client);
            world.advance(5);
        }),
        (5, |world, client| {
            world.lose(client);
            world.connect("client");
        }),
        (5, |world, _| {
            world.connect("client");
        }),
        (0, |world, client| {
            world.disconnect(client, &Disconnect::new(ReasonCode::Success));
        }),
    ];
    let wills = |world: &World| {
        let batches = world.stores[0].batches().iter();
        let mut kept = false;
        for record in batches.flat_map(|batch| &batch.records) {
            match record {
                Record::WillPut(_) => kept = true,
                Record::WillDelete { .. } | Record::SessionDelete { .. } => kept = false,
                _ => {}
            }
        }
        kept
    };
    for (delay, end) in endings {
        let mut world = World::new();
        let client = world.connect_with(with_will(durable("client"), delay));
        assert!(wills(&world));
        end(&mut world, client);
        assert!(!wills(&world));
    }
}
