//! PUBLISH packets that come together, against the same packets one by one.
//!
//! Owns: two Servers that are told the same, one of them that another PUBLISH follows. Start reading at [`Twins::check`].
//! Invariant: nobody can tell from what they are sent, nor from what is counted, which of the two it is.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use proptest::prelude::*;
use proto::connection::Outgoing;
use proto::packet::{Connect, Publish, SubscriptionOptions};
use proto::{PacketIdentifier, Qos, Version};
use store::Level;
use vencejo_engine::{Limits, Output, OverflowPolicy};

use crate::world::{Client, World, durable, id, options, payload, publish};

const TOPICS: [&str; 4] = ["a", "a/b", "nobody", "shared"];
const PUBLISHERS: usize = 3;

/// What one PUBLISH is like.
#[derive(Clone, Debug)]
struct Said {
    topic: usize,
    qos: u8,
    is_retained: bool,
    expires: bool,
    /// Whether its Packet Identifier is that of the one before.
    is_repeated: bool,
    bytes: usize,
}

#[derive(Clone, Debug)]
enum Event {
    /// All of it is said at once, each so many times.
    Publish(usize, Vec<(Said, usize)>),
    /// A subscriber answers so many packets.
    Read(usize, usize),
    Congest(usize, bool),
    Lose(usize),
    Connect(usize),
    Persist,
}

fn said() -> impl Strategy<Value = Said> {
    let topic = prop_oneof![4 => Just(0), 2 => Just(1), 1 => Just(2), 2 => Just(3)];
    // All of it is less than one burst of a queue, which is looked at once in a run.
    let bytes = prop_oneof![8 => 0_usize..100, 1 => 400_usize..1900];
    let rarely = || prop::bool::weighted(0.05);
    (topic, 0_u8..3, rarely(), rarely(), rarely(), bytes).prop_map(
        |(topic, qos, is_retained, expires, is_repeated, bytes)| Said {
            topic,
            qos,
            is_retained,
            expires,
            is_repeated,
            bytes,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let burst = prop::collection::vec((said(), 1_usize..40), 1..4);
    prop_oneof![
        6 => (0..PUBLISHERS, burst).prop_map(|(publisher, all)| Event::Publish(publisher, all)),
        6 => (0..CONNECTS, 1_usize..40).prop_map(|(client, count)| Event::Read(client, count)),
        2 => (0..CONNECTS, any::<bool>()).prop_map(|(client, is_so)| Event::Congest(client, is_so)),
        1 => (0..CONNECTS).prop_map(Event::Lose),
        1 => (0..CONNECTS).prop_map(Event::Connect),
        2 => Just(Event::Persist),
    ]
}

/// How many kinds of Clients there are.
const CONNECTS: usize = 8;

/// The Clients: three that publish, the last of them to itself, too, and is kept; others that get it, each in its way.
fn connect(number: usize) -> Connect {
    let name = format!("c{number}");
    let mut connect = Connect::new(Version::V5, &name);
    match number {
        0 => connect.version = Version::V311,
        2 => connect = durable(&name),
        4 => connect.properties.receive_maximum = NonZeroU16::new(5),
        5 => connect.properties.maximum_packet_size_bytes = NonZeroU32::new(80),
        6 => connect = durable(&name),
        _ => {}
    }
    connect
}

/// What each of them wants.
fn filters(number: usize) -> &'static [(&'static str, u8)] {
    match number {
        1 => &[("a", 1)],
        2 => &[("a", 2), ("a/#", 0)],
        3 => &[("a/#", 2), ("$share/g/shared", 1)],
        4 => &[("a", 1), ("a/b", 2), ("$share/g/shared", 2)],
        5 => &[("a/#", 1)],
        6 => &[("a/b", 1)],
        7 => &[("a", 0), ("a/b", 1), ("$share/h/shared", 0)],
        _ => &[],
    }
}

#[derive(Debug)]
struct Twins {
    /// The first is told that more follows.
    worlds: [World; 2],
    clients: Vec<Option<Client>>,
    /// What each has still to answer.
    owed: Vec<Vec<Outgoing>>,
    packet_id: PacketIdentifier,
}

impl Twins {
    fn new(level: Level, policy: OverflowPolicy) -> Self {
        let world = || {
            let limits = Limits {
                queued_messages_max: 20,
                receive_maximum: 30,
                overflow_policy: policy,
                ..Limits::default()
            };
            World::with_config(1, limits, |config| {
                config.sys_interval = Duration::ZERO;
                config.levels.default = level;
            })
        };
        let mut twins = Self {
            worlds: [world(), world()],
            clients: vec![None; CONNECTS],
            owed: vec![Vec::new(); CONNECTS],
            packet_id: PacketIdentifier::FIRST,
        };
        for number in 0..CONNECTS {
            twins.connect(number);
        }
        twins
    }

    fn connect(&mut self, number: usize) {
        let clients = self.worlds.each_mut().map(|world| {
            let client = world.connect_with(connect(number));
            for (filter, qos) in filters(number) {
                let asked = SubscriptionOptions {
                    // It gets nothing of its own by this one.
                    no_local: number == 1,
                    ..options(*qos)
                };
                world.subscribe_with(client, filter, asked, None);
            }
            client
        });
        assert_eq!(clients[0].key, clients[1].key);
        self.owed[number].clear();
        self.clients[number] = Some(clients[0]);
    }

    fn burst(&mut self, client: Client, all: &[(Said, usize)]) {
        let mut texts = Vec::new();
        for (said, count) in all {
            for number in 0..*count {
                if !said.is_repeated || number == 0 {
                    self.packet_id = self.packet_id.following();
                }
                let text = format!("{:>1$}", self.packet_id, said.bytes);
                texts.push((said, self.packet_id, text));
            }
        }
        let publishes: Vec<_> = texts
            .iter()
            .map(|(said, packet_id, text)| {
                let mut one = publish(TOPICS[said.topic], said.qos, text, *packet_id);
                one.retain = said.is_retained;
                one.properties.message_expiry_interval_seconds = said.expires.then_some(60);
                one
            })
            .collect();
        let [together, apart] = &mut self.worlds;
        for (number, one) in publishes.iter().enumerate() {
            let now = together.now;
            let engine = together.engine(client);
            if number + 1 < publishes.len() {
                engine.on_publish_of_many(client.key, one, None, now);
            } else {
                engine.on_publish(client.key, one, None, now);
            }
            apart.engine(client).on_publish(client.key, one, None, now);
        }
        for world in &mut self.worlds {
            world.settle();
        }
    }

    fn answer(&mut self, number: usize, client: Client, count: usize) {
        let count = count.min(self.owed[number].len());
        for packet in self.owed[number].drain(..count).collect::<Vec<_>>() {
            for world in &mut self.worlds {
                match &packet {
                    Outgoing::Publish(one) => match (one.qos, one.packet_id) {
                        (Qos::AtLeastOnce, Some(id)) => world.puback(client, id.get()),
                        (Qos::ExactlyOnce, Some(id)) => world.pubrec(client, id.get()),
                        _ => {}
                    },
                    Outgoing::PubRel(ack) => world.pubcomp(client, ack.packet_id.get()),
                    Outgoing::PubRec(ack) if !ack.reason.is_error() => {
                        world.pubrel(client, ack.packet_id.get());
                    }
                    _ => {}
                }
            }
        }
    }

    fn step(&mut self, event: &Event) {
        match event {
            Event::Publish(number, all) => {
                if let Some(client) = self.clients[*number] {
                    self.burst(client, all);
                }
            }
            Event::Read(number, count) => {
                if let Some(client) = self.clients[*number] {
                    self.answer(*number, client, *count);
                }
            }
            Event::Congest(number, is_congested) => {
                if let Some(client) = self.clients[*number] {
                    for world in &mut self.worlds {
                        world.congest(client, *is_congested);
                    }
                }
            }
            Event::Lose(number) => {
                if let Some(client) = self.clients[*number].take() {
                    for world in &mut self.worlds {
                        world.lose(client);
                    }
                }
            }
            Event::Connect(number) => self.connect(*number),
            Event::Persist => {
                for world in &mut self.worlds {
                    world.persist();
                }
            }
        }
    }

    /// What has come for each is the same, and so is what is counted.
    fn check(&mut self) -> Result<(), TestCaseError> {
        for number in 0..CONNECTS {
            let Some(client) = self.clients[number] else {
                continue;
            };
            let [together, apart] = self.worlds.each_mut().map(|world| {
                let packets = world.received(client);
                let is_message = |packet: &Outgoing| matches!(packet, Outgoing::Publish(_));
                // Who publishes to itself may hear its messages before all of its acknowledgements.
                let split: (Vec<_>, Vec<_>) = packets.into_iter().partition(is_message);
                (split, world.closed(client))
            });
            prop_assert_eq!(&together, &apart, "client {}", number);
            let ((messages, others), closed) = together;
            self.owed[number].extend(messages.into_iter().chain(others));
            if closed.is_some() {
                self.clients[number] = None;
            }
        }
        let counted = self
            .worlds
            .each_ref()
            .map(|world| format!("{:?}", world.engines[0].counters()));
        prop_assert_eq!(&counted[0], &counted[1]);
        let records = self.worlds.each_ref().map(recorded);
        prop_assert_eq!(&records[0], &records[1]);
        Ok(())
    }
}

/// What the store has, without the times: the two have not begun at the same one.
fn recorded(world: &World) -> String {
    let all = format!("{:?}", world.records());
    let mut parts = all.split("UnixMillis(");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| {
        text + part.trim_start_matches(|c: char| c.is_ascii_digit())
    })
}

fn level() -> impl Strategy<Value = Level> {
    prop_oneof![
        Just(Level::Memory),
        Just(Level::Written),
        Just(Level::Synced)
    ]
}

fn policy() -> impl Strategy<Value = OverflowPolicy> {
    prop_oneof![
        Just(OverflowPolicy::Refuse),
        Just(OverflowPolicy::DropOldest),
        Just(OverflowPolicy::DropNewest)
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn messages_that_come_together_are_delivered_as_one_by_one(
        level in level(),
        policy in policy(),
        events in prop::collection::vec(event(), 1..30),
    ) {
        let mut twins = Twins::new(level, policy);
        twins.check()?;
        for event in &events {
            twins.step(event);
            twins.check()?;
        }
    }
}

/// That there are runs at all: one output for all messages to a subscriber, and one for all acknowledgements.
#[test]
fn messages_that_come_together_make_one_output_for_each_client() {
    for (qos, kinds) in [(0, 1), (1, 2), (2, 2)] {
        let mut world = World::new();
        let (from, to) = (world.connect_clean("from"), world.connect_clean("to"));
        world.subscribe(to, "a", 2);
        // Who gets it is known from the second on.
        world.publish(from, "a", qos, "0");
        world.received(to);
        let now = world.now;
        for number in 1..=10 {
            let text = number.to_string();
            let one = publish("a", qos, &text, id(100 + number));
            world
                .engine(from)
                .on_publish_of_many(from.key, &one, None, now);
        }
        let engine = world.engine(from);
        assert_eq!(engine.outputs_len(), 0, "it waits for the next one");
        engine.end_run();
        assert_eq!(engine.outputs_len(), kinds, "QoS {qos}");
        while let Some(output) = engine.poll_output() {
            let Output::SendAll {
                connection,
                packets,
            } = output
            else {
                panic!("{output:?}");
            };
            let all: Vec<_> = packets.packets().collect();
            assert_eq!(all.len(), 10);
            for (number, packet) in (1..).zip(&all) {
                match packet {
                    Outgoing::Publish(one) => {
                        assert_eq!((connection, payload(one)), (to.key, number.to_string()));
                        let expected = (qos > 0).then(|| id(number + 1));
                        assert_eq!(one.packet_id, expected);
                    }
                    Outgoing::PubAck(ack) | Outgoing::PubRec(ack) => {
                        assert_eq!((connection, ack.packet_id), (from.key, id(100 + number)));
                    }
                    other => panic!("{other:?}"),
                }
            }
            engine.return_packets(packets);
        }
    }
}

/// One that is large, or is kept, or expires, goes by itself, after those that wait.
#[test]
fn message_that_does_not_fit_ends_the_run_in_its_place() {
    let mut world = World::new();
    let (from, to) = (world.connect_clean("from"), world.connect_clean("to"));
    world.subscribe(to, "a", 0);
    world.publish(from, "a", 0, "0");
    world.received(to);
    let large = "x".repeat(20_000);
    let is_kept = |one| Publish {
        retain: true,
        ..one
    };
    let now = world.now;
    for number in 1..=4 {
        let text = number.to_string();
        let one = publish("a", 0, &text, id(1));
        world
            .engine(from)
            .on_publish_of_many(from.key, &one, None, now);
        let one = match number {
            1 => publish("a", 0, &large, id(1)),
            2 => is_kept(publish("a", 0, "kept", id(1))),
            _ => publish("a", 0, "next", id(1)),
        };
        world
            .engine(from)
            .on_publish_of_many(from.key, &one, None, now);
    }
    world.settle();
    let expected = ["1", &large, "2", "kept", "3", "next", "4", "next"];
    assert_eq!(world.payloads(to), expected);
}
