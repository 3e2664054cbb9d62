//! Several shards: interest, barriers, order, retained messages, Shared Subscriptions, `$SYS`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proto::connection::Outgoing;
use proto::packet::ReasonCode;
use vencejo_engine::{Limits, Output, ShardMessage, SharedStrategy};

use crate::world::{Client, World, id, payload, publish};

const SHARDS: u16 = 4;

/// Clients with these names, at least one in each shard.
fn spread(world: &mut World, prefix: &str) -> Vec<Client> {
    let clients: Vec<_> = (0..24)
        .map(|number| world.connect(&format!("{prefix}{number}")))
        .collect();
    let shards: BTreeSet<_> = clients.iter().map(|client| client.shard).collect();
    assert_eq!(shards.len(), usize::from(SHARDS));
    clients
}

fn in_other_shard(world: &mut World, than: Client, prefix: &str) -> Client {
    for number in 0..64 {
        let client = world.connect(&format!("{prefix}{number}"));
        if client.shard != than.shard {
            return client;
        }
    }
    panic!("64 names in one shard");
}

#[test]
fn shard_messages_may_cross_threads_and_outputs_are_small() {
    const fn assert_send<T: Send + 'static>() {}
    assert_send::<ShardMessage>();
    assert!(size_of::<Output>() <= 72, "{}", size_of::<Output>());
}

#[test]
fn everyone_in_every_shard_gets_a_message_once() {
    let mut world = World::with(SHARDS, Limits::default());
    let clients = spread(&mut world, "client");
    for client in &clients {
        world.subscribe(*client, "a/#", 1);
        world.subscribe(*client, "a/+", 1);
    }
    for client in &clients {
        world.publish(*client, "a/b", 1, "x");
    }
    for client in &clients {
        assert_eq!(world.drain(*client).len(), clients.len());
    }
}

/// SUBACK waits for all shards, so that what is published after it arrives, wherever it is published.
#[test]
fn suback_waits_until_every_shard_knows_the_interest() {
    let mut world = World::with(SHARDS, Limits::default());
    let clients = spread(&mut world, "client");
    let (first, second) = (
        clients[0],
        clients[1..].iter().find(|c| c.shard == clients[0].shard),
    );
    let second = *second.expect("24 clients in 4 shards");
    world.holds_rings = true;
    assert!(world.subscribe(first, "a", 1).is_empty());
    assert!(world.subscribe(second, "a", 1).is_empty());
    world.holds_rings = false;
    world.settle();
    for client in [first, second] {
        assert!(matches!(world.next(client), Some(Outgoing::SubAck(_))));
    }
    world.holds_rings = true;
    world.subscribe(second, "a", 0);
    assert!(
        world.take(second, |_| Some(())).is_none(),
        "nothing new, so nothing to wait for"
    );
}

/// An acknowledgement to a publisher waits for every shard that took the message.
#[test]
fn puback_waits_for_the_other_shard() {
    let mut world = World::with(SHARDS, Limits::default());
    let sender = world.connect("sender");
    let receiver = in_other_shard(&mut world, sender, "receiver");
    world.subscribe(receiver, "a", 1);
    world.holds_rings = true;
    world.publish(sender, "a", 1, "x");
    world.publish(sender, "nobody", 1, "x");
    assert!(world.received(sender).is_empty());
    world.holds_rings = false;
    world.settle();
    let reasons: Vec<_> = world
        .received(sender)
        .into_iter()
        .map(|packet| match packet {
            Outgoing::PubAck(ack) => ack.reason,
            other => panic!("unexpected {other:?}"),
        })
        .collect();
    assert_eq!(
        reasons,
        [ReasonCode::Success, ReasonCode::NoMatchingSubscribers]
    );
    assert_eq!(world.payloads(receiver), ["x"]);
}

/// The other shard answers only after its own batch is durable.
#[test]
fn puback_waits_for_durability_in_the_other_shard() {
    let mut world = World::with(SHARDS, Limits::default());
    let sender = world.connect_clean("sender");
    let receiver = in_other_shard(&mut world, sender, "receiver");
    world.subscribe(receiver, "a", 1);
    world.holds_store = true;
    world.publish(sender, "a", 1, "x");
    assert!(world.received(sender).is_empty());
    world.persist();
    assert!(matches!(world.next(sender), Some(Outgoing::PubAck(_))));
}

/// A subscriber gets the retained message or the live one, however the shards' messages interleave.
#[test]
fn a_retained_message_is_never_missed_between_two_shards() {
    for order in 0..64_u32 {
        let mut world = World::with(2, Limits::default());
        let sender = world.connect("sender");
        let receiver = in_other_shard(&mut world, sender, "receiver");
        world.holds_rings = true;
        let (mut has_published, mut has_subscribed) = (false, false);
        for step in 0..6 {
            let bit = order >> step & 1 == 1;
            match (bit, has_published, has_subscribed) {
                (true, false, _) => {
                    has_published = true;
                    let packet = proto::packet::Publish {
                        retain: true,
                        ..publish("a", 1, "v", id(1))
                    };
                    world.send_publish(sender, &packet);
                }
                (false, _, false) => {
                    has_subscribed = true;
                    world.subscribe(receiver, "a", 1);
                }
                (true, ..) => drop(world.carry_one((sender.shard, receiver.shard))),
                (false, ..) => drop(world.carry_one((receiver.shard, sender.shard))),
            }
        }
        world.holds_rings = false;
        world.settle();
        let count = world.drain(receiver).len();
        let expected = usize::from(has_published && has_subscribed);
        assert!(count >= expected, "order {order:06b}: {count}");
    }
}

/// Verifies [MQTT-4.6.0-5]: the order per publisher and topic is kept across shards, in any interleaving.
#[test]
fn order_is_kept_across_shards_in_any_interleaving() {
    for seed in 0..12_u64 {
        let mut world = World::with(SHARDS, Limits::default());
        let clients = spread(&mut world, "client");
        for client in &clients {
            world.subscribe(*client, "t/#", 2);
        }
        world.holds_rings = true;
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut next = |bound: usize| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            usize::try_from(random >> 33).expect("31 bits") % bound
        };
        let mut sent = BTreeMap::<usize, u32>::new();
        for _ in 0..200 {
            let who = next(4);
            let number = sent.entry(who).or_default();
            let text = format!("{who}:{number}");
            *number += 1;
            let topic = format!("t/{who}");
            let qos = u8::try_from(1 + next(2)).expect("1 or 2");
            let packet_id = world.packet_id();
            world.send_publish(clients[who], &publish(&topic, qos, &text, packet_id));
            if next(3) == 0 {
                world.turn();
            }
            let loaded = world.loaded_links();
            if !loaded.is_empty() && next(2) == 0 {
                world.carry_one(loaded[next(loaded.len())]);
            }
        }
        world.holds_rings = false;
        world.settle();
        for client in &clients {
            let mut seen = BTreeMap::<String, u32>::new();
            for delivery in world.drain(*client) {
                let text = payload(&delivery);
                let (who, number) = text.split_once(':').expect("who:number");
                let expected = seen.entry(who.to_owned()).or_default();
                assert_eq!(number, expected.to_string(), "seed {seed}");
                *expected += 1;
            }
            assert_eq!(seen.values().sum::<u32>(), 200, "seed {seed}");
        }
    }
}

#[test]
fn a_shared_subscription_over_all_shards_delivers_to_one_member() {
    let mut world = World::with(SHARDS, Limits::default());
    let clients = spread(&mut world, "client");
    for client in &clients {
        world.subscribe(*client, "$share/g/a/+", 1);
    }
    for number in 0..240 {
        world.publish(
            clients[number % clients.len()],
            "a/b",
            1,
            &number.to_string(),
        );
    }
    let mut seen = BTreeSet::new();
    for client in &clients {
        let payloads: Vec<_> = world.drain(*client).iter().map(payload).collect();
        assert!(!payloads.is_empty(), "every member has its share");
        for text in payloads {
            assert!(seen.insert(text), "delivered twice");
        }
    }
    assert_eq!(seen.len(), 240);
}

/// A shard whose members leave while a message for them is under way passes it on.
#[test]
fn a_shared_message_goes_on_when_the_chosen_shard_lost_its_members() {
    let mut world = World::with(SHARDS, Limits::default());
    let sender = world.connect("sender");
    let leaving = in_other_shard(&mut world, sender, "leaving");
    world.subscribe(leaving, "$share/g/a", 1);
    world.holds_rings = true;
    world.publish(sender, "a", 1, "x");
    world.unsubscribe(leaving, "$share/g/a");
    let staying = loop {
        let number = world.packet_id();
        let client = world.connect(&format!("staying{number}"));
        if client.shard != leaving.shard && client.shard != sender.shard {
            break client;
        }
    };
    world.subscribe(staying, "$share/g/a", 1);
    // The news of the new member reaches the shard that lost its own first.
    while world.carry_one((staying.shard, leaving.shard)) {}
    world.holds_rings = false;
    world.settle();
    let seen: Vec<_> = world.drain(staying).iter().map(payload).collect();
    assert_eq!(seen, ["x"]);
    let answered = world.take(sender, |packet| match packet {
        Outgoing::PubAck(ack) => Some(ack.reason),
        _ => None,
    });
    assert_eq!(answered, Some(ReasonCode::Success));
}

/// Two shards that pass messages on to each other answer each other's batches all the same.
#[test]
fn shards_that_pass_messages_on_to_each_other_answer_both_publishers() {
    let mut world = World::with(2, Limits::default());
    let senders = [
        world.connect("sender"),
        world.connect("sender2"),
        world.connect("sender3"),
        world.connect("sender4"),
    ];
    let here = world.connect("member");
    let there = in_other_shard(&mut world, here, "member");
    world.subscribe(here, "$share/g/a", 1);
    world.subscribe(there, "$share/g/a", 1);
    world.holds_rings = true;
    for sender in senders {
        for _ in 0..4 {
            world.publish(sender, "a", 1, "x");
        }
    }
    world.unsubscribe(here, "$share/g/a");
    world.unsubscribe(there, "$share/g/a");
    world.holds_rings = false;
    world.settle();
    for sender in senders {
        let answers = world.received(sender);
        let acks = answers
            .iter()
            .filter(|packet| matches!(packet, Outgoing::PubAck(_)));
        assert_eq!(acks.count(), 4);
    }
}

#[test]
fn sys_topics_have_the_names_that_monitoring_knows_and_count_all_shards() {
    let mut world = World::with_config(2, Limits::default(), |config| {
        config.sys_interval = Duration::from_secs(10);
    });
    let clients: Vec<_> = (0..8)
        .map(|number| world.connect(&format!("client{number}")))
        .collect();
    world.publish_retained(clients[1], "kept", 1, "x");
    world.subscribe(clients[0], "$SYS/#", 0);
    world.advance(11);
    let values: BTreeMap<_, _> = world
        .deliveries(clients[0])
        .iter()
        .map(|one| (one.message.topic().to_owned(), payload(one)))
        .collect();
    assert_eq!(values["$SYS/broker/clients/connected"], "8");
    assert_eq!(values["$SYS/broker/publish/messages/received"], "1");
    assert!(values["$SYS/broker/uptime"].ends_with(" seconds"));
    let names = [
        "version",
        "retained messages/count",
        "load/messages/received/1min",
    ];
    for name in names {
        assert!(
            values.contains_key(&format!("$SYS/broker/{name}")),
            "{name}"
        );
    }
    world.subscribe(clients[2], "#", 0);
    assert_eq!(
        world.payloads(clients[2]),
        ["x"],
        "`#` does not reach `$SYS`"
    );
}

/// The counts of one moment: what the others had counted an interval ago is no use.
#[test]
fn sys_topics_wait_for_the_counts_of_the_other_shards() {
    let mut world = World::with_config(3, Limits::default(), |config| {
        config.sys_interval = Duration::from_secs(10);
    });
    let first = world.connect("client0");
    let others: Vec<_> = (1..8)
        .map(|number| world.connect(&format!("client{number}")))
        .collect();
    world.subscribe(first, "$SYS/broker/clients/connected", 0);
    world.payloads(first);
    world.advance(11);
    assert_eq!(world.payloads(first), ["8"]);
    for client in others {
        world.lose(client);
    }
    world.advance(10);
    assert_eq!(world.payloads(first), ["1"]);
    // A shard that does not answer holds back one report, and no more.
    world.holds_rings = true;
    world.advance(10);
    assert!(world.payloads(first).is_empty());
    world.advance(10);
    world.holds_rings = false;
    world.settle();
    assert_eq!(world.payloads(first), ["1", "1"]);
}

#[test]
fn a_will_reaches_the_other_shards() {
    let mut world = World::with(SHARDS, Limits::default());
    let clients = spread(&mut world, "client");
    for client in &clients {
        world.subscribe(*client, "will", 1);
    }
    let connect = crate::wills::with_will(crate::world::durable("dies"), 0);
    let dies = world.connect_with(connect);
    world.lose(dies);
    for client in clients {
        assert_eq!(world.payloads(client), ["gone"]);
    }
}

/// Each strategy keeps its promise over several shards, and every message has one taker.
#[test]
fn every_strategy_delivers_to_one_member_as_it_promises() {
    let all = [
        SharedStrategy::RoundRobin,
        SharedStrategy::LeastInFlight,
        SharedStrategy::Sticky,
        SharedStrategy::HashTopic,
        SharedStrategy::HashClientId,
    ];
    for strategy in all {
        let mut world = World::with_config(SHARDS, Limits::default(), |config| {
            config.shared_strategy = strategy;
            config.sys_interval = Duration::ZERO;
        });
        let publishers = [world.connect("publisher0"), world.connect("publisher1")];
        let members = spread(&mut world, "member");
        for member in &members {
            world.subscribe(*member, "$share/g/t/#", 1);
        }
        for number in 0..40 {
            let who = number % 2;
            let text = format!("{who}:{}", number / 2 % 2);
            world.publish(publishers[who], &format!("t/{}", number / 2 % 2), 1, &text);
        }
        let mut takers = BTreeMap::<String, BTreeSet<usize>>::new();
        let mut total = 0;
        for (index, member) in members.iter().enumerate() {
            for delivery in world.drain(*member) {
                total += 1;
                takers.entry(payload(&delivery)).or_default().insert(index);
            }
        }
        assert_eq!(total, 40, "{strategy:?}");
        let of = |text: &str| takers[text].clone();
        match strategy {
            SharedStrategy::HashTopic => {
                assert_eq!(of("0:0").len(), 1);
                assert_eq!(of("0:0"), of("1:0"));
            }
            SharedStrategy::HashClientId => {
                assert_eq!(of("0:0").len(), 1);
                assert_eq!(of("0:0"), of("0:1"));
            }
            _ => {}
        }
    }
}
