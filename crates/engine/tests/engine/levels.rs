//! Levels: what is recorded, and how long an acknowledgement waits.

use proto::connection::Outgoing;
use store::{Level, Record};
use vencejo_engine::{Levels, Limits};

use crate::world::{Client, World, durable};

/// Topics under `mem/`, `os/` and `disk/` at their levels, the rest at `default`.
fn world(shards: u16, default: Level) -> World {
    World::with_config(shards, Limits::default(), move |config| {
        config.sys_interval = std::time::Duration::ZERO;
        config.levels = Levels {
            default,
            filters: vec![
                ("mem/#".to_owned(), Level::Memory),
                ("os/#".to_owned(), Level::Written),
                ("disk/#".to_owned(), Level::Synced),
                ("disk/mem".to_owned(), Level::Memory),
            ],
        };
    })
}

/// Which of the messages named after a topic survive as what a kind of record says.
fn recorded(world: &World) -> Vec<(String, &'static str)> {
    let records = world.records();
    let named = records.iter().filter_map(|record| match record {
        Record::Enqueue { message, .. } => Some((&message.topic, "queued")),
        Record::RetainedPut { message } => Some((&message.topic, "retained")),
        _ => None,
    });
    named
        .map(|(topic, kind)| (String::from_utf8_lossy(topic).into_owned(), kind))
        .collect()
}

fn acks(world: &mut World, client: Client) -> usize {
    world.received(client).len()
}

#[test]
fn an_acknowledgement_waits_as_long_as_its_level_says() {
    for (shards, qos) in [(1, 1), (1, 2), (3, 1), (3, 2)] {
        let mut world = world(shards, Level::Synced);
        let sender = world.connect("sender");
        let receivers: Vec<_> = (0..4)
            .map(|number| world.connect(&format!("receiver-{number}")))
            .collect();
        for receiver in receivers {
            world.subscribe(receiver, "#", 1);
        }
        world.holds_store = true;
        world.publish(sender, "mem/x", qos, "x");
        assert_eq!(acks(&mut world, sender), 1, "not at all");
        world.publish(sender, "os/x", qos, "x");
        assert_eq!(acks(&mut world, sender), 0);
        world.write();
        world.write();
        assert_eq!(acks(&mut world, sender), 1, "until it is written");
        for topic in ["disk/x", "disk/mem", "other"] {
            world.publish(sender, topic, qos, "x");
            world.write();
            assert_eq!(acks(&mut world, sender), 0, "{topic}");
            world.persist();
            world.persist();
            assert_eq!(acks(&mut world, sender), 1, "until it is on the disk");
        }
    }
}

#[test]
fn only_what_is_worth_it_is_recorded() {
    for shards in [1, 3] {
        let mut world = world(shards, Level::Synced);
        let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
        world.subscribe(receiver, "#", 1);
        world.lose(receiver);
        for topic in ["mem/x", "os/x", "disk/x"] {
            world.publish_retained(sender, topic, 1, "x");
            world.publish_retained(sender, topic, 2, "y");
        }
        let mut recorded = recorded(&world);
        recorded.sort();
        recorded.dedup();
        let expected = [
            ("disk/x", "queued"),
            ("disk/x", "retained"),
            ("os/x", "queued"),
            ("os/x", "retained"),
        ];
        assert_eq!(
            recorded,
            expected.map(|(topic, kind)| (topic.to_owned(), kind))
        );
        // All the same, whoever is there gets everything.
        let receiver = world.connect("receiver");
        assert_eq!(world.drain(receiver).len(), 6);
        world.crash(shards);
        let late = world.connect_clean("late");
        world.subscribe(late, "#", 0);
        assert_eq!(world.payloads(late), ["y", "y"]);
    }
}

/// A handshake that its Client remembers is remembered here: its identifier would hide a later message.
#[test]
fn a_qos2_delivery_to_a_durable_session_is_recorded_at_any_level() {
    let mut world = world(1, Level::Synced);
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    world.subscribe(receiver, "#", 2);
    world.holds_store = true;
    world.publish(sender, "mem/x", 2, "x");
    assert_eq!(
        acks(&mut world, sender),
        1,
        "but its publisher need not wait"
    );
    assert!(world.deliveries(receiver).is_empty());
    world.persist();
    let packet_id = world.deliveries(receiver)[0].packet_id.expect("QoS 2");
    world.pubrec(receiver, packet_id.get());
    assert_eq!(world.next(receiver), None);
    world.persist();
    assert!(matches!(world.next(receiver), Some(Outgoing::PubRel(_))));
    world.holds_store = false;
    world.crash(1);
    let receiver = world.connect("receiver");
    assert!(matches!(world.next(receiver), Some(Outgoing::PubRel(_))));
}

/// Nothing of a QoS 2 exchange with a publisher is recorded below its level, and nothing is taken back.
#[test]
fn a_volatile_publish_leaves_no_trace_of_its_identifier() {
    let mut world = world(1, Level::Synced);
    let sender = world.connect("sender");
    world.holds_store = true;
    let before = world.records().len();
    world.publish(sender, "mem/x", 2, "x");
    let Some(Outgoing::PubRec(pubrec)) = world.next(sender) else {
        panic!("no PUBREC")
    };
    let again = crate::world::publish("mem/x", 2, "x", pubrec.packet_id);
    world.send_publish(sender, &again);
    world.settle();
    assert!(matches!(world.next(sender), Some(Outgoing::PubRec(_))));
    world.pubrel(sender, pubrec.packet_id.get());
    assert!(matches!(world.next(sender), Some(Outgoing::PubComp(_))));
    assert_eq!(world.records().len(), before);
}

#[test]
fn with_memory_as_default_no_session_is_recorded_and_nothing_waits() {
    for shards in [1, 3] {
        let mut world = world(shards, Level::Memory);
        world.holds_store = true;
        let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
        assert_eq!(world.subscribe(receiver, "#", 2).len(), 1);
        world.lose(receiver);
        for qos in 1..=2 {
            world.publish(sender, "disk/x", qos, "x");
            world.publish(sender, "other", qos, "x");
        }
        assert_eq!(acks(&mut world, sender), 4);
        assert!(world.records().is_empty());
        let (receiver, is_present) = world.resume("receiver");
        assert!(is_present);
        assert_eq!(world.drain(receiver).len(), 4);
        // A retained message may still be worth keeping.
        world.publish_retained(sender, "disk/x", 1, "x");
        assert_eq!(acks(&mut world, sender), 0);
        world.persist();
        assert_eq!(acks(&mut world, sender), 1);
        world.crash(shards);
        assert!(!world.resume("receiver").1);
        let late = world.connect_clean("late");
        world.subscribe(late, "#", 0);
        assert_eq!(world.payloads(late), ["x"]);
    }
}

/// Acknowledgements of subscribers and lost connections alone never cost a sync.
#[test]
fn a_batch_asks_for_what_its_records_need() {
    let mut world = world(1, Level::Synced);
    let (sender, receiver) = (world.connect("sender"), world.connect("receiver"));
    world.subscribe(receiver, "#", 1);
    let mut levels = Vec::new();
    let mut last = |world: &World, what| {
        let batch = world.stores[0].batches().last().expect("a batch");
        levels.push((what, batch.level));
    };
    world.publish(sender, "disk/x", 1, "x");
    last(&world, "publish");
    world.publish(sender, "os/x", 1, "x");
    last(&world, "publish");
    world.drain(receiver);
    last(&world, "acknowledge");
    world.lose(receiver);
    last(&world, "lose");
    world.connect("receiver");
    last(&world, "connect");
    let expected = [
        ("publish", Level::Synced),
        ("publish", Level::Written),
        ("acknowledge", Level::Written),
        ("lose", Level::Written),
        ("connect", Level::Synced),
    ];
    assert_eq!(levels, expected);
}

/// What need not be on the disk at once holds up nobody who waits for the disk.
#[test]
fn nobody_waits_for_a_batch_that_need_not_be_synced() {
    let mut world = world(1, Level::Synced);
    let (sender, receiver) = (world.connect_clean("sender"), world.connect("receiver"));
    world.subscribe(receiver, "#", 1);
    world.publish(sender, "disk/x", 1, "x");
    world.holds_store = true;
    world.drain(receiver);
    world.received(sender);
    world.publish(sender, "$nobody", 2, "x");
    let Some(Outgoing::PubRec(pubrec)) = world.next(sender) else {
        panic!("no PUBREC")
    };
    world.pubrel(sender, pubrec.packet_id.get());
    assert!(matches!(world.next(sender), Some(Outgoing::PubComp(_))));
}

/// A level that was lowered does not let an older retained message come back.
#[test]
fn an_older_retained_message_does_not_come_back_in_place_of_a_volatile_one() {
    for shards in [1, 3] {
        let mut world = world(shards, Level::Synced);
        let sender = world.connect_clean("sender");
        for topic in ["later/replaced", "later/kept"] {
            world.publish_retained(sender, topic, 1, "old");
        }
        world.change_config(|config| {
            config.levels.filters = vec![("later/#".to_owned(), Level::Memory)];
        });
        world.crash(shards);
        let sender = world.connect_clean("sender");
        world.publish_retained(sender, "later/replaced", 1, "new");
        world.crash(shards);
        let late = world.connect_clean("late");
        world.subscribe(late, "later/#", 0);
        let deliveries = world.deliveries(late);
        assert_eq!(deliveries.len(), 1);
        assert_eq!(deliveries[0].message.topic(), "later/kept");
    }
}

/// A Session that the store knows is kept up to date whatever the default has become.
#[test]
fn a_restored_session_is_kept_when_the_default_is_lowered() {
    let mut world = world(1, Level::Synced);
    let client = world.connect("client");
    world.subscribe(client, "a", 1);
    world.change_config(|config| config.levels.default = Level::Memory);
    world.crash(1);
    let client = world.connect("client");
    world.unsubscribe(client, "a");
    world.connect_with(durable("new"));
    world.crash(1);
    let sessions = world.engines[0].counters().sessions;
    assert_eq!(
        (sessions, world.engines[0].counters().subscriptions),
        (1, 0)
    );
}

/// Nothing overtakes what is on disk, so what comes after it has to go there as well.
#[test]
fn behind_messages_on_disk_a_volatile_one_keeps_its_place() {
    let mut world = world(1, Level::Synced);
    let (sender, receiver) = (world.connect_clean("sender"), world.connect("receiver"));
    let hasty = world.connect_clean("hasty");
    world.subscribe(receiver, "#", 1);
    world.lose(receiver);
    let topics = ["mem/1", "disk/2", "mem/3", "os/4", "mem/5"];
    world.holds_store = true;
    for topic in topics {
        let is_volatile = topic.starts_with("mem");
        let from = if is_volatile { hasty } else { sender };
        world.publish(from, topic, 1, topic);
        // Its publisher waits for nothing all the same.
        assert_eq!(acks(&mut world, from), usize::from(is_volatile), "{topic}");
    }
    world.persist();
    world.holds_store = false;
    let on_disk = recorded(&world).into_iter().map(|(topic, _)| topic);
    assert_eq!(on_disk.collect::<Vec<_>>(), topics[1..]);
    let receiver = world.connect("receiver");
    let received = world.drain(receiver);
    let received: Vec<_> = received.iter().map(|one| one.message.topic()).collect();
    assert_eq!(received, topics);
    // With nothing on disk any more, it is not recorded either.
    world.publish(hasty, "mem/6", 1, "x");
    assert_eq!(recorded(&world).len(), topics.len() - 1);
}

/// After a crash that does not know of the drop, the dropped message would be sent: what was sent after it
/// must not have overtaken it.
#[test]
fn what_follows_a_dropped_message_waits_until_the_drop_is_durable() {
    for level in [Level::Written, Level::Synced] {
        let mut world = world(1, level);
        let sender = world.connect_clean("sender");
        let mut connect = durable("receiver");
        connect.properties.maximum_packet_size_bytes = std::num::NonZeroU32::new(100);
        connect.properties.receive_maximum = std::num::NonZeroU16::new(1);
        let receiver = world.connect_with(connect.clone());
        world.connack(receiver);
        world.subscribe(receiver, "a", 1);
        world.lose(receiver);
        for text in ["x".repeat(200), "fits".to_owned()] {
            world.publish(sender, "a", 1, &text);
        }
        world.holds_loads = true;
        let receiver = world.connect_with(connect);
        world.holds_loads = false;
        world.holds_store = true;
        world.connack(receiver);
        assert_eq!(world.answer_loads(0), 1);
        world.settle();
        assert!(world.deliveries(receiver).is_empty(), "{level:?}");
        world.write();
        let is_enough = level == Level::Written;
        let delivered = world.deliveries(receiver).len();
        assert_eq!(delivered, usize::from(is_enough), "{level:?}");
        world.persist();
        let delivered = delivered + world.deliveries(receiver).len();
        assert_eq!(delivered, 1, "{level:?}");
    }
}

/// Two shards, `os` as default: a sender, and a receiver of everything in each shard, its own first. The store
/// of the other shard is at once durable, that of the sender's hands to the operating system and no more.
fn with_a_slow_disk() -> (World, Client) {
    let mut world = world(2, Level::Written);
    let sender = world.connect("sender");
    let mut homes: Vec<usize> = (0..8)
        .map(|number| {
            let receiver = world.connect(&format!("receiver-{number}"));
            world.subscribe(receiver, "#", 1);
            receiver.shard
        })
        .collect();
    homes.sort_unstable();
    homes.dedup();
    assert_eq!(homes, [0, 1]);
    world.holds_store = true;
    (world, sender)
}

fn write_here_sync_there(world: &mut World, sender: Client) {
    for _ in 0..4 {
        world.write();
        world.persist_shard(1 - sender.shard);
        world.settle();
    }
}

/// A commit that need not be on the disk is followed by a message that has to be.
#[test]
fn a_puback_behind_a_commit_of_a_lower_level_waits_for_its_own() {
    let (mut world, sender) = with_a_slow_disk();
    world.publish(sender, "other", 2, "x");
    world.publish(sender, "disk/x", 1, "x");
    write_here_sync_there(&mut world, sender);
    let early = world.received(sender);
    assert!(
        matches!(&early[..], [Outgoing::PubRec(_)]),
        "PUBREC is due when it is written, PUBACK is not: {early:?}"
    );
    world.persist();
    let late = world.received(sender);
    assert!(matches!(&late[..], [Outgoing::PubAck(_)]), "{late:?}");
}

/// The record of a PUBREL that came early is of the Session's level, its message is not.
#[test]
fn a_pubrec_waits_for_its_message_when_pubrel_came_before_it() {
    let (mut world, sender) = with_a_slow_disk();
    let packet_id = crate::world::id(9);
    world.send_publish(sender, &crate::world::publish("disk/x", 2, "x", packet_id));
    world.pubrel(sender, packet_id.get());
    write_here_sync_there(&mut world, sender);
    let early = world.received(sender);
    assert!(early.is_empty(), "{early:?}");
    world.persist();
    let late = world.received(sender);
    assert!(
        matches!(&late[..], [Outgoing::PubRec(_), Outgoing::PubComp(_)]),
        "{late:?}"
    );
}
