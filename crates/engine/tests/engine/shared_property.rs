//! Random lives of the members of a Shared Subscription over one to four shards.
//!
//! Owns: [`Group`]. Start reading at [`Group::check`]. Invariant: as long as one member is subscribed,
//! each message is delivered to exactly one.

use std::collections::BTreeMap;

use proptest::prelude::*;
use vencejo_engine::{Limits, SharedStrategy};

use crate::world::{Client, World, payload, publish};

#[derive(Clone, Debug)]
enum Event {
    Publish(usize, u8),
    Join(usize),
    Leave(usize),
    Lose(usize),
    Resume(usize),
    Read(usize),
    Carry(usize),
    Turn,
}

const MEMBERS: usize = 5;
const PUBLISHERS: usize = 3;
const FILTER: &str = "$share/group/a/+";

fn event() -> impl Strategy<Value = Event> {
    let member = || 0..MEMBERS;
    prop_oneof![
        6 => (0..PUBLISHERS, 1_u8..=2).prop_map(|(publisher, qos)| Event::Publish(publisher, qos)),
        2 => member().prop_map(Event::Join),
        2 => member().prop_map(Event::Leave),
        1 => member().prop_map(Event::Lose),
        1 => member().prop_map(Event::Resume),
        2 => member().prop_map(Event::Read),
        8 => (0_usize..12).prop_map(Event::Carry),
        4 => Just(Event::Turn),
    ]
}

fn strategy() -> impl Strategy<Value = SharedStrategy> {
    prop_oneof![
        Just(SharedStrategy::RoundRobin),
        Just(SharedStrategy::LeastInFlight),
        Just(SharedStrategy::Sticky),
        Just(SharedStrategy::HashTopic),
        Just(SharedStrategy::HashClientId),
    ]
}

struct Group {
    world: World,
    names: u32,
    publishers: Vec<Client>,
    members: Vec<Option<Client>>,
    sent: usize,
    got: BTreeMap<String, usize>,
}

impl Group {
    /// The first member never leaves, though it may lose its connection; `names` decides who is where.
    fn new(shards: u16, shared_strategy: SharedStrategy, names: u32) -> Self {
        let mut world = World::with_config(shards, Limits::default(), |config| {
            config.shared_strategy = shared_strategy;
            config.sys_interval = std::time::Duration::ZERO;
        });
        let publishers = (0..PUBLISHERS)
            .map(|index| world.connect(&format!("publisher-{names}-{index}")))
            .collect();
        let members: Vec<_> = (0..MEMBERS)
            .map(|index| Some(world.connect(&format!("member-{names}-{index}"))))
            .collect();
        world.subscribe(members[0].expect("connected"), FILTER, 2);
        world.holds_rings = true;
        Self {
            world,
            names,
            publishers,
            members,
            sent: 0,
            got: BTreeMap::new(),
        }
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Publish(publisher, qos) => {
                let text = self.sent.to_string();
                self.sent += 1;
                let packet_id = self.world.packet_id();
                let publish = publish("a/b", qos, &text, packet_id);
                self.world
                    .send_publish(self.publishers[publisher], &publish);
            }
            Event::Join(member) => {
                if let Some(client) = self.members[member] {
                    self.world.subscribe(client, FILTER, 2);
                }
            }
            Event::Leave(0) => {}
            Event::Leave(member) => {
                if let Some(client) = self.members[member] {
                    self.world.unsubscribe(client, FILTER);
                }
            }
            Event::Lose(member) => {
                if let Some(client) = self.members[member].take() {
                    self.world.lose(client);
                }
            }
            Event::Resume(member) => self.resume(member),
            Event::Read(member) => self.read(member),
            Event::Carry(choice) => {
                let links = self.world.loaded_links();
                if !links.is_empty() {
                    self.world.carry_one(links[choice % links.len()]);
                }
            }
            Event::Turn => {
                self.world.turn();
            }
        }
    }

    fn resume(&mut self, member: usize) {
        let name = format!("member-{}-{member}", self.names);
        self.members[member] = Some(self.world.connect(&name));
    }

    fn read(&mut self, member: usize) {
        if let Some(client) = self.members[member] {
            for delivery in self.world.drain(client) {
                *self.got.entry(payload(&delivery)).or_default() += 1;
            }
        }
    }

    fn finish(&mut self) {
        self.world.holds_rings = false;
        self.world.settle();
        for member in 0..MEMBERS {
            self.resume(member);
            self.read(member);
        }
    }

    fn check(&self) {
        for number in 0..self.sent {
            let count = self.got.get(&number.to_string()).copied();
            assert_eq!(count, Some(1), "message {number}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Verifies [MQTT-4.5.0-1]: a message joins one Session of a Shared Subscription, whoever leaves it,
    /// loses its connection or comes back while the message travels between shards.
    #[test]
    fn a_shared_message_reaches_exactly_one_member(
        shards in 1_u16..=4,
        strategy in strategy(),
        names in 0_u32..8,
        events in prop::collection::vec(event(), 1..100),
    ) {
        let mut group = Group::new(shards, strategy, names);
        for event in &events {
            group.apply(event);
        }
        group.finish();
        group.check();
    }
}

/// A Client with a name of this kind in this shard.
fn in_shard(world: &mut World, kind: &str, shard: usize) -> Client {
    for number in 0..1000 {
        let client = world.connect(&format!("{kind}{number}"));
        if client.shard == shard {
            return client;
        }
    }
    panic!("1000 names miss shard {shard}");
}

/// A message goes round all shards whose members left before it came, back to where it was published.
#[test]
fn a_shared_message_finds_the_last_member_also_where_it_was_published() {
    const SHARDS: usize = 4;
    let mut world = World::with(4, Limits::default());
    let anchor = in_shard(&mut world, "anchor", 0);
    world.subscribe(anchor, FILTER, 1);
    let leaving: Vec<_> = (1..SHARDS)
        .map(|shard| in_shard(&mut world, &format!("leaving{shard}-"), shard))
        .collect();
    for client in &leaving {
        world.subscribe(*client, FILTER, 1);
    }
    let sender = in_shard(&mut world, "sender", 0);
    world.lose(anchor);
    world.holds_rings = true;
    world.publish(sender, "a/b", 1, "x");
    for client in &leaving {
        world.unsubscribe(*client, FILTER);
    }
    // Only the message moves on, with the news of the shards it has passed.
    let mut current = 0;
    for _ in 0..SHARDS {
        let sent = |world: &World| -> Vec<_> {
            let engines = world.engines.iter();
            engines
                .map(|engine| engine.counters().shard_messages_sent)
                .collect()
        };
        let before = sent(&world);
        for to in (0..SHARDS).filter(|to| *to != current) {
            while world.carry_one((current, to)) {}
        }
        world.turn();
        let after = sent(&world);
        current = (0..SHARDS)
            .find(|shard| after[*shard] > before[*shard])
            .unwrap_or(current);
    }
    world.holds_rings = false;
    world.settle();
    let anchor_number = (0..1000).find_map(|number| {
        let (client, session_present) = world.resume(&format!("anchor{number}"));
        (client.shard == 0 && session_present).then_some(client)
    });
    let anchor = anchor_number.expect("it was there");
    assert_eq!(world.payloads(anchor), ["x"]);
}
