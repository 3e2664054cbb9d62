//! Retained messages across shards and crashes: a write that was acknowledged is never undone.
//!
//! Owns: [`Register`], the model: each topic is a register that several Clients write at once.
//! Start reading at [`Register::check`]. Invariants: after a crash all shards have the same value of a
//! topic, and no write that was acknowledged before it began is lost to it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proto::connection::Outgoing;
use proto::packet::Publish;
use vencejo_engine::Limits;

use crate::world::{Client, World, publish};

#[derive(Clone, Copy, Debug)]
enum Event {
    /// A Client stores a new value, or removes what there is.
    Write {
        who: usize,
        topic: usize,
        is_removal: bool,
    },
    Turn,
    Carry(usize),
    Persist(usize),
    /// Up to so many batches are found that were not known to be durable.
    Crash {
        shards: u16,
        more: usize,
    },
}

const CLIENTS: usize = 5;
const TOPICS: [&str; 3] = ["a", "b/c", "d"];

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0..CLIENTS, 0..TOPICS.len(), prop::bool::weighted(0.3))
            .prop_map(|(who, topic, is_removal)| Event::Write { who, topic, is_removal }),
        6 => Just(Event::Turn),
        6 => (0_usize..9).prop_map(Event::Carry),
        4 => (0_usize..3).prop_map(Event::Persist),
        1 => (1_u16..4, 0_usize..5).prop_map(|(shards, more)| Event::Crash { shards, more }),
    ]
}

/// One write to a topic.
#[derive(Clone, Debug)]
struct Write {
    payload: String,
    began: usize,
    acknowledged: Option<usize>,
}

/// What is known of the writes to one topic.
#[derive(Clone, Debug, Default)]
struct Register {
    writes: Vec<Write>,
}

impl Register {
    /// Whether a reader may find `value` ("" for nothing) after a crash.
    fn check(&self, value: &str) {
        let is_overwritten = |ended: Option<usize>| {
            ended.is_some_and(|ended| {
                let mut later = self.writes.iter().filter(|write| write.began > ended);
                later.any(|write| write.acknowledged.is_some())
            })
        };
        let mut candidates = self.writes.iter().filter(|write| write.payload == value);
        let is_never_written = value.is_empty() && !is_overwritten(Some(0));
        assert!(
            is_never_written || candidates.any(|write| !is_overwritten(write.acknowledged)),
            "{value:?} in {self:?}"
        );
    }
}

struct Model {
    world: World,
    clients: Vec<Client>,
    registers: BTreeMap<usize, Register>,
    /// Writes that are not answered: who, and the Packet Identifier, to topic and index.
    open: BTreeMap<(usize, u16), (usize, usize)>,
    step: usize,
}

impl Model {
    fn new(shards: u16) -> Self {
        let mut model = Self {
            world: World::with(shards, Limits::default()),
            clients: Vec::new(),
            registers: (0..TOPICS.len())
                .map(|topic| (topic, Register::default()))
                .collect(),
            open: BTreeMap::new(),
            step: 0,
        };
        model.connect();
        model
    }

    fn connect(&mut self) {
        let client = |who| format!("client-{who}");
        (self.world.holds_rings, self.world.holds_store) = (false, false);
        self.clients = (0..CLIENTS)
            .map(|who| self.world.connect_clean(&client(who)))
            .collect();
        (self.world.holds_rings, self.world.holds_store) = (true, true);
    }

    fn apply(&mut self, event: Event) {
        self.step += 1;
        match event {
            Event::Write {
                who,
                topic,
                is_removal,
            } => self.write(who, topic, is_removal),
            Event::Turn => drop(self.world.turn()),
            Event::Carry(choice) => {
                let links = self.world.loaded_links();
                if !links.is_empty() {
                    self.world.carry_one(links[choice % links.len()]);
                }
            }
            Event::Persist(shard) => {
                self.world.persist_shard(shard % self.world.engines.len());
            }
            Event::Crash { shards, more } => self.crash(shards, more),
        }
        self.read();
    }

    fn write(&mut self, who: usize, topic: usize, is_removal: bool) {
        let payload = if is_removal {
            String::new()
        } else {
            format!("{}", self.step)
        };
        let number = self.world.packet_id();
        let packet = Publish {
            retain: true,
            ..publish(TOPICS[topic], 1, &payload, number)
        };
        self.world.send_publish(self.clients[who], &packet);
        let register = self.registers.entry(topic).or_default();
        self.open
            .insert((who, number.get()), (topic, register.writes.len()));
        register.writes.push(Write {
            payload,
            began: self.step,
            acknowledged: None,
        });
    }

    fn read(&mut self) {
        for who in 0..CLIENTS {
            for packet in self.world.received(self.clients[who]) {
                let Outgoing::PubAck(ack) = packet else {
                    continue;
                };
                if let Some((topic, index)) = self.open.remove(&(who, ack.packet_id.get())) {
                    let register = self.registers.entry(topic).or_default();
                    register.writes[index].acknowledged = Some(self.step);
                }
            }
        }
    }

    fn crash(&mut self, shards: u16, more: usize) {
        self.world.holds_store = false;
        self.world.crash_keeping(shards, more);
        self.open.clear();
        self.connect();
        (self.world.holds_rings, self.world.holds_store) = (false, false);
        for (topic, register) in &self.registers {
            let mut found = Vec::new();
            for number in 0..4 {
                let reader = self.world.connect_clean(&format!("reader-{number}"));
                self.world.subscribe(reader, TOPICS[*topic], 0);
                let values = self.world.payloads(reader);
                found.push(values.first().cloned().unwrap_or_default());
                self.world.lose(reader);
            }
            found.dedup();
            assert_eq!(found.len(), 1, "{found:?}");
            register.check(&found[0]);
        }
        self.world.settle();
        (self.world.holds_rings, self.world.holds_store) = (true, true);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_acknowledged_write_is_undone_by_a_crash(
        shards in 1_u16..=3,
        events in prop::collection::vec(event(), 1..120),
        after in 1_u16..=3,
    ) {
        let mut model = Model::new(shards);
        for event in events {
            model.apply(event);
        }
        model.apply(Event::Crash { shards: after, more: 0 });
    }
}

/// Whichever shard accepts the writes, those of one topic are recorded by one.
#[test]
fn the_writes_of_one_topic_are_recorded_by_one_shard() {
    let mut world = World::with(3, Limits::default());
    for number in 0..6 {
        let sender = world.connect_clean(&format!("sender-{number}"));
        for topic in TOPICS {
            world.publish_retained(sender, topic, 1, "x");
        }
    }
    for topic in TOPICS {
        let keepers = world.stores.iter().filter(|store| {
            let mut records = store.batches().iter().flat_map(|batch| &batch.records);
            records.any(|record| {
                matches!(record, store::Record::RetainedPut { message } if message.topic == topic)
            })
        });
        assert_eq!(keepers.count(), 1, "{topic}");
    }
}

/// A write that comes too late to take effect is answered when the one that prevailed is durable: else a
/// crash could leave neither.
#[test]
fn a_superseded_write_waits_for_the_one_that_prevailed() {
    let mut world = World::with(3, Limits::default());
    let senders: Vec<_> = (0..8)
        .map(|number| world.connect_clean(&format!("sender-{number}")))
        .collect();
    for topic in TOPICS {
        world.publish_retained(senders[0], topic, 1, "old");
        world.received(senders[0]);
        (world.holds_rings, world.holds_store) = (true, true);
        for sender in &senders {
            world.publish_retained(*sender, topic, 1, "new");
        }
        world.holds_rings = false;
        world.settle();
        let answered = senders
            .iter()
            .filter(|sender| world.next(**sender).is_some());
        assert_eq!(answered.count(), 0);
        world.holds_store = false;
        world.persist();
        for sender in &senders {
            world.received(*sender);
        }
    }
}
