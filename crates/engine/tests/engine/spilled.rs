//! Queues whose messages are on the disk of the store, and the way back.

use std::num::{NonZeroU16, NonZeroU32};

use proto::connection::{Delivery, Outgoing};
use proto::packet::{Ack, Connect, ReasonCode};
use proto::{Qos, Version};
use store::{Loaded, Record, SessionId};
use vencejo_engine::{Engine, Limits, OverflowPolicy};

use crate::world::{Client, World, durable, id, payload, publish};

/// A sender, and a Client called "receiver" that has subscribed to everything at QoS 2 and left.
fn with_offline(limits: Limits) -> (World, Client) {
    let mut world = World::with(1, limits);
    let (sender, receiver) = (world.connect_clean("sender"), world.connect("receiver"));
    world.subscribe(receiver, "#", 2);
    world.lose(receiver);
    (world, sender)
}

fn slow(receive_maximum: u16) -> Connect {
    let mut connect = durable("receiver");
    connect.properties.receive_maximum = NonZeroU16::new(receive_maximum);
    connect
}

fn in_memory(engine: &Engine) -> u64 {
    let counters = engine.counters();
    counters.queued_messages - counters.spilled_messages
}

fn texts(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(payload).collect()
}

fn numbers(count: usize) -> Vec<String> {
    (0..count).map(|number| number.to_string()).collect()
}

fn check_empty(world: &World) {
    let counters = world.engines[0].counters();
    let queued = (counters.queued_messages, counters.queued_bytes);
    assert_eq!(queued, (0, 0));
    let spilled = (counters.spilled_messages, counters.spilled_bytes);
    assert_eq!(spilled, (0, 0));
}

/// Verifies [MQTT-4.6.0-6]: in order, however many messages wait.
#[test]
fn of_a_hundred_thousand_queued_messages_a_window_is_in_memory() {
    const MESSAGES: usize = 100_000;
    let (mut world, sender) = with_offline(Limits::default());
    for number in 0..MESSAGES {
        let text = number.to_string();
        let qos = 1 + u8::from(number % 3 == 0);
        world.send_publish(sender, &publish("a", qos, &text, id(1)));
        let now = world.now;
        let ack = Ack::new(id(1), ReasonCode::Success);
        world.engine(sender).on_pubrel(sender.key, &ack, now);
        world.turn();
    }
    assert_eq!(world.engines[0].counters().queued_messages, MESSAGES as u64);
    assert_eq!(in_memory(&world.engines[0]), 0);
    let receiver = world.connect_with(slow(20));
    let (mut heard, mut most) = (Vec::new(), 0);
    loop {
        world.settle();
        most = most.max(in_memory(&world.engines[0]));
        let packets = world.received(receiver);
        if packets.is_empty() {
            break;
        }
        for packet in packets {
            let now = world.now;
            let engine = world.engine(receiver);
            match packet {
                Outgoing::Publish(delivery) => {
                    let packet_id = delivery.packet_id.expect("above QoS 0");
                    let ack = Ack::new(packet_id, ReasonCode::Success);
                    if delivery.qos == Qos::AtLeastOnce {
                        engine.on_puback(receiver.key, &ack, now);
                    } else {
                        engine.on_pubrec(receiver.key, &ack, now);
                    }
                    heard.push(payload(&delivery));
                }
                Outgoing::PubRel(ack) => engine.on_pubcomp(receiver.key, &ack, now),
                _ => {}
            }
        }
    }
    assert_eq!(heard, numbers(MESSAGES));
    assert!((100..=128 + 20).contains(&most), "{most} in memory");
    check_empty(&world);
}

/// The same for a Client that is connected and reads nothing.
#[test]
fn a_congested_client_has_a_window_in_memory_and_gets_all_in_order() {
    let mut world = World::new();
    let (sender, receiver) = (world.connect_clean("sender"), world.connect("receiver"));
    world.subscribe(receiver, "#", 1);
    world.congest(receiver, true);
    for text in numbers(500) {
        world.publish(sender, "a", 1, &text);
    }
    assert_eq!(in_memory(&world.engines[0]), 128);
    world.congest(receiver, false);
    assert_eq!(texts(&world.drain(receiver)), numbers(500));
    check_empty(&world);
}

#[test]
fn a_window_is_bounded_in_bytes_but_takes_one_message_however_large() {
    let limits = Limits {
        window_bytes_max: 1000,
        ..Limits::default()
    };
    let mut world = World::with(1, limits);
    let (sender, receiver) = (world.connect_clean("sender"), world.connect("receiver"));
    world.subscribe(receiver, "#", 1);
    world.congest(receiver, true);
    let large = "x".repeat(5000);
    for _ in 0..3 {
        world.publish(sender, "a", 1, &large);
    }
    assert_eq!(in_memory(&world.engines[0]), 1);
    world.congest(receiver, false);
    assert_eq!(world.drain(receiver).len(), 3);
}

/// Where memory ends, the disk begins: what a Session may have recorded is not dropped.
#[test]
fn no_memory_left_drops_nothing_that_can_be_on_disk() {
    let limits = Limits {
        queued_bytes_total_max: 4096,
        overflow_policy: OverflowPolicy::DropNewest,
        ..Limits::default()
    };
    let mut world = World::with(1, limits);
    let (sender, receiver) = (world.connect_clean("sender"), world.connect("receiver"));
    let clean = world.connect_clean("clean");
    for client in [receiver, clean] {
        world.subscribe(client, "#", 1);
        world.congest(client, true);
    }
    for text in numbers(100) {
        world.publish(sender, "a", 1, &text);
    }
    let counters = world.engines[0].counters();
    assert!(counters.queued_bytes - counters.spilled_bytes <= 4096);
    assert!(counters.dropped_queue_full > 50);
    world.congest(receiver, false);
    assert_eq!(texts(&world.drain(receiver)), numbers(100));
    world.congest(clean, false);
    let kept = world.drain(clean).len();
    assert!(kept > 1 && kept < 50, "{kept}");
    check_empty(&world);
}

/// Verifies [MQTT-4.4.0-1]: after a restart, too, with the identifiers of old and DUP, PUBRELs first.
#[test]
fn what_was_in_flight_at_a_crash_is_sent_again_as_it_was() {
    let (mut world, sender) = with_offline(Limits::default());
    for (number, text) in numbers(10).iter().enumerate() {
        world.publish(sender, "a", 1 + u8::from(number > 0), text);
    }
    let receiver = world.connect_with(slow(3));
    let ids = |deliveries: &[Delivery]| -> Vec<u16> {
        let ids = deliveries.iter().filter_map(|one| one.packet_id);
        ids.map(proto::PacketIdentifier::get).collect()
    };
    assert_eq!(ids(&world.deliveries(receiver)), [1, 2, 3]);
    world.pubrec(receiver, 2);
    assert!(matches!(world.next(receiver), Some(Outgoing::PubRel(_))));
    for shard_count in [1, 3] {
        world.crash(shard_count);
        let (receiver, _) = world.resume("receiver");
        let packets = world.received(receiver);
        let pubrel = Outgoing::PubRel(Ack::new(id(2), ReasonCode::Success));
        assert_eq!(packets[0], pubrel);
        let again: Vec<_> = packets
            .into_iter()
            .filter_map(|packet| match packet {
                Outgoing::Publish(delivery) => Some(delivery),
                _ => None,
            })
            .collect();
        assert_eq!(ids(&again), [1, 3, 4, 5, 6, 7, 8, 9, 10]);
        assert!(again.iter().all(|one| one.dup), "may have been in flight");
    }
    let (receiver, _) = world.resume("receiver");
    assert_eq!(world.drain(receiver).len(), 9);
    world.crash(1);
    let (receiver, _) = world.resume("receiver");
    assert!(world.received(receiver).is_empty());
    check_empty(&world);
}

/// Verifies [MQTT-3.3.1-1]: DUP is for what may have been sent, and no more than that can have been.
#[test]
fn what_cannot_have_been_in_flight_at_a_crash_goes_without_dup() {
    let limits = Limits {
        maximum_inflight_messages: 2,
        ..Limits::default()
    };
    let (mut world, sender) = with_offline(limits);
    for text in numbers(5) {
        world.publish(sender, "a", 1, &text);
    }
    world.crash(1);
    let receiver = world.connect("receiver");
    let deliveries = world.drain(receiver);
    let dups: Vec<_> = deliveries.iter().map(|one| one.dup).collect();
    assert_eq!(dups, [true, true, false, false, false]);
    assert_eq!(texts(&deliveries), numbers(5));
}

/// Verifies [MQTT-3.3.2-5]: expired while it was on disk.
/// Verifies [MQTT-3.1.2-25]: too large for this Client.
#[test]
fn what_is_expired_or_too_large_when_it_is_loaded_is_discarded_for_good() {
    let (mut world, sender) = with_offline(Limits::default());
    world.publish(sender, "a", 1, "first");
    let mut expiring = publish("a", 1, "expired", id(50));
    expiring.properties.message_expiry_interval_seconds = Some(5);
    world.send_publish(sender, &expiring);
    world.publish(sender, "a", 2, &"x".repeat(500));
    world.publish(sender, "a", 2, "last");
    world.advance(6);
    let mut connect = durable("receiver");
    connect.properties.maximum_packet_size_bytes = NonZeroU32::new(100);
    let receiver = world.connect_with(connect);
    assert_eq!(texts(&world.drain(receiver)), ["first", "last"]);
    let counters = world.engines[0].counters();
    assert_eq!(
        (counters.messages_expired, counters.dropped_too_large),
        (1, 1)
    );
    check_empty(&world);
    world.crash(1);
    let receiver = world.connect("receiver");
    assert!(world.deliveries(receiver).is_empty());
}

/// Verifies [MQTT-3.3.2-6]: the time on disk counts.
#[test]
fn the_expiry_interval_goes_on_while_a_message_is_on_disk() {
    let (mut world, sender) = with_offline(Limits::default());
    let mut expiring = publish("a", 1, "x", id(50));
    expiring.properties.message_expiry_interval_seconds = Some(50);
    world.send_publish(sender, &expiring);
    world.advance(20);
    let receiver = world.connect("receiver");
    let deliveries = world.deliveries(receiver);
    let left = deliveries[0].message.remaining_expiry_seconds(world.now);
    assert_eq!(left, Some(30));
}

#[test]
fn the_oldest_are_dropped_on_disk_by_their_numbers() {
    let limits = Limits {
        overflow_policy: OverflowPolicy::DropOldest,
        queued_messages_max: 5,
        ..Limits::default()
    };
    let (mut world, sender) = with_offline(limits);
    for text in numbers(20) {
        world.publish(sender, "a", 1, &text);
    }
    assert_eq!(world.engines[0].counters().dropped_queue_full, 15);
    let receiver = world.connect("receiver");
    assert_eq!(texts(&world.drain(receiver)), numbers(20)[15..]);
    let records = world.stores[0].batches().iter();
    let dequeued: u64 = records
        .flat_map(|batch| &batch.records)
        .map(|record| match record {
            Record::Dequeue { count, .. } => *count,
            _ => 0,
        })
        .sum();
    assert_eq!(dequeued, 20);
    check_empty(&world);
}

/// Dropped while the store was reading it: the answer still has it.
#[test]
fn what_is_dropped_before_the_answer_comes_is_not_delivered() {
    let limits = Limits {
        overflow_policy: OverflowPolicy::DropOldest,
        queued_messages_max: 3,
        maximum_inflight_messages: 1,
        ..Limits::default()
    };
    let (mut world, sender) = with_offline(limits);
    for text in ["0", "1", "2"] {
        world.publish(sender, "a", 1, text);
    }
    world.holds_loads = true;
    let receiver = world.connect("receiver");
    for text in ["3", "4"] {
        world.publish(sender, "a", 1, text);
    }
    world.holds_loads = false;
    assert_eq!(world.answer_loads(0), 1);
    world.settle();
    assert_eq!(texts(&world.drain(receiver)), ["2", "3", "4"]);
    check_empty(&world);
}

#[test]
fn what_is_not_written_yet_is_asked_for_again_once_it_is() {
    let mut world = World::new();
    let (sender, receiver) = (world.connect_clean("sender"), world.connect("receiver"));
    world.subscribe(receiver, "#", 1);
    world.congest(receiver, true);
    world.holds_store = true;
    for text in numbers(300) {
        world.publish(sender, "a", 1, &text);
    }
    world.congest(receiver, false);
    assert_eq!(texts(&world.drain(receiver)), numbers(128));
    assert!(world.loading.is_empty());
    world.persist();
    assert_eq!(texts(&world.drain(receiver)), numbers(300)[128..]);
    world.persist();
    check_empty(&world);
}

/// Verifies [MQTT-4.3.3-6]: what the Client has taken is not sent again, although the store still has it
/// when the Client comes back.
#[test]
fn what_was_acknowledged_before_a_loss_is_not_loaded_again() {
    let (mut world, sender) = with_offline(Limits::default());
    for text in numbers(4) {
        world.publish(sender, "a", 2, &text);
    }
    let receiver = world.connect("receiver");
    assert_eq!(world.deliveries(receiver).len(), 4);
    world.holds_store = true;
    world.pubrec(receiver, 2);
    world.lose(receiver);
    let mut connect = durable("receiver");
    connect.properties.receive_maximum = NonZeroU16::new(10);
    let receiver = world.connect_with(connect);
    world.persist();
    let packets = world.received(receiver);
    let pubrel = Outgoing::PubRel(Ack::new(id(2), ReasonCode::Success));
    assert_eq!(packets[1], pubrel);
    let again = packets.iter().filter_map(|packet| match packet {
        Outgoing::Publish(delivery) => delivery.packet_id,
        _ => None,
    });
    assert!(again.eq([id(1), id(3), id(4)]));
}

/// An answer for a Session that has ended, for one that was taken over, and one too many.
#[test]
fn a_late_answer_is_used_only_as_far_as_it_is_wanted() {
    let (mut world, sender) = with_offline(Limits::default());
    for text in numbers(3) {
        world.publish(sender, "a", 1, &text);
    }
    world.holds_loads = true;
    world.connect("receiver");
    let receiver = world.connect("receiver");
    assert_eq!(world.loading.len(), 1);
    assert_eq!(world.answer_loads(0), 1);
    world.settle();
    assert_eq!(texts(&world.deliveries(receiver)), numbers(3));
    world.lose(receiver);
    // Asked again after the end of that connection; the Session ends before the answer comes.
    world.connect("receiver");
    let mut clean = durable("receiver");
    clean.clean_start = true;
    let receiver = world.connect_with(clean);
    assert!(!world.connack(receiver).session_present);
    assert_eq!(world.answer_loads(0), 1);
    world.settle();
    assert!(world.received(receiver).is_empty());
    let nobody_asked = Loaded {
        session: SessionId(2),
        from_seq: 1,
        messages: Vec::new(),
    };
    let now = world.now;
    world.engines[0].on_loaded(nobody_asked, now);
    world.settle();
    check_empty(&world);
}

/// However many Clients come back at once, what is asked for is bounded, and all are served.
#[test]
fn a_thousand_clients_that_come_back_are_loaded_in_turn() {
    const CLIENTS: usize = 1000;
    let mut world = World::new();
    let sender = world.connect_clean("sender");
    for number in 0..CLIENTS {
        let client = world.connect(&format!("client-{number}"));
        world.subscribe(client, "a", 1);
        world.lose(client);
    }
    world.publish(sender, "a", 1, &"x".repeat(1000));
    world.holds_loads = true;
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| world.connect(&format!("client-{number}")))
        .collect();
    let mut rounds = 0;
    loop {
        let asked: usize = world.loading.values().map(|load| load.bytes_max).sum();
        assert!(asked <= 16 * 1024 * 1024, "{asked} bytes asked for");
        if world.answer_loads(0) == 0 {
            break;
        }
        world.settle();
        rounds += 1;
    }
    assert!(rounds > 1);
    for client in clients {
        assert_eq!(world.drain(client).len(), 1);
    }
    check_empty(&world);
}

/// A Session that is not kept any more, but whose older messages are on disk.
#[test]
fn nothing_overtakes_what_is_on_disk_when_a_session_is_about_to_end() {
    let (mut world, sender) = with_offline(Limits::default());
    world.publish(sender, "a", 1, "0");
    world.holds_loads = true;
    let mut connect = Connect::new(Version::V5, "receiver");
    connect.clean_start = false;
    let receiver = world.connect_with(connect);
    assert!(world.connack(receiver).session_present);
    world.publish(sender, "a", 1, "1");
    assert!(world.deliveries(receiver).is_empty());
    world.holds_loads = false;
    world.answer_loads(0);
    world.settle();
    assert_eq!(texts(&world.drain(receiver)), ["0", "1"]);
    check_empty(&world);
}

/// A store that has lost what it had goes on with what follows.
#[test]
fn numbers_without_a_message_are_passed_over() {
    let (mut world, sender) = with_offline(Limits::default());
    for text in numbers(4) {
        world.publish(sender, "a", 1, &text);
    }
    world.crash(1);
    world.stores[0] = store::HeldStore::new();
    let receiver = world.connect("receiver");
    assert!(world.deliveries(receiver).is_empty());
    check_empty(&world);
    let sender = world.connect_clean("sender");
    world.publish(sender, "a", 1, "new");
    assert_eq!(texts(&world.drain(receiver)), ["new"]);
}

/// Retained messages wait behind what is on disk.
#[test]
fn a_replay_keeps_its_place_behind_what_is_on_disk() {
    let (mut world, sender) = with_offline(Limits::default());
    world.publish_retained(sender, "b", 1, "retained");
    for text in numbers(200) {
        world.publish(sender, "a", 1, &text);
    }
    let receiver = world.connect_with(slow(1));
    world.subscribe(receiver, "b", 1);
    let seen = texts(&world.drain(receiver));
    let expected: Vec<_> = std::iter::once("retained".to_owned())
        .chain(numbers(200))
        .chain(["retained".to_owned()])
        .collect();
    assert_eq!(seen, expected);
}
