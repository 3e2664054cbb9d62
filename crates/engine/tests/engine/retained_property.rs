//! Retained messages written in every shard at once, in any interleaving.
//!
//! Owns: [`Writers`]. Start reading at [`Writers::check`]. Invariant: all shards end with the same
//! message of a topic, and it is none that was replaced after its acknowledgement.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proto::connection::Outgoing;
use proto::packet::Publish;
use vencejo_engine::Limits;

use crate::world::{Client, World, id, payload, publish};

#[derive(Clone, Debug)]
enum Event {
    Publish {
        writer: usize,
        topic: usize,
        is_empty: bool,
    },
    Carry(usize),
    Turn,
}

const WRITERS: usize = 4;
const TOPICS: [&str; 2] = ["a", "b"];

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..WRITERS, 0..TOPICS.len(), prop::bool::weighted(0.3))
            .prop_map(|(writer, topic, is_empty)| Event::Publish { writer, topic, is_empty }),
        8 => (0_usize..12).prop_map(Event::Carry),
        4 => Just(Event::Turn),
    ]
}

/// A write; the times are counted in events.
#[derive(Debug)]
struct Write {
    topic: usize,
    text: String,
    sent_at: usize,
    acknowledged_at: Option<usize>,
}

struct Writers {
    world: World,
    clients: Vec<Client>,
    names: u32,
    writes: Vec<Write>,
    time: usize,
}

impl Writers {
    fn new(shards: u16, names: u32) -> Self {
        let mut world = World::with(shards, Limits::default());
        let clients = (0..WRITERS)
            .map(|index| world.connect(&format!("writer-{names}-{index}")))
            .collect();
        world.holds_rings = true;
        Self {
            world,
            clients,
            names,
            writes: Vec::new(),
            time: 0,
        }
    }

    fn apply(&mut self, event: &Event) {
        self.time += 1;
        match *event {
            Event::Publish {
                writer,
                topic,
                is_empty,
            } => {
                let number = u16::try_from(self.writes.len() + 1).expect("few events");
                let text = if is_empty {
                    String::new()
                } else {
                    number.to_string()
                };
                let packet = Publish {
                    retain: true,
                    ..publish(TOPICS[topic], 1, &text, id(number))
                };
                self.world.send_publish(self.clients[writer], &packet);
                self.writes.push(Write {
                    topic,
                    text,
                    sent_at: self.time,
                    acknowledged_at: None,
                });
            }
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
        for client in self.clients.clone() {
            for packet in self.world.received(client) {
                let Outgoing::PubAck(ack) = packet else {
                    panic!("unexpected {packet:?}")
                };
                let index = usize::from(ack.packet_id.get()) - 1;
                self.writes[index].acknowledged_at = Some(self.time);
            }
        }
    }

    fn check(&mut self) {
        self.world.holds_rings = false;
        self.world.settle();
        for number in 0..8 {
            let reader = self
                .world
                .connect(&format!("reader-{}-{number}", self.names));
            self.world.subscribe(reader, "#", 1);
            let mut seen = BTreeMap::new();
            for delivery in self.world.drain(reader) {
                let topic = delivery.message.topic().to_owned();
                assert_eq!(seen.insert(topic, payload(&delivery)), None);
            }
            for (topic, name) in TOPICS.iter().enumerate() {
                let text = seen.get(*name).map_or("", String::as_str);
                assert!(self.is_possible(topic, text), "{text:?} of {name}");
            }
            let kept = self.world.engines[reader.shard]
                .counters()
                .retained_messages;
            assert_eq!(kept, seen.len() as u64);
            self.world.lose(reader);
        }
    }

    /// Whether some write of `text` was not followed by another after its acknowledgement.
    fn is_possible(&self, topic: usize, text: &str) -> bool {
        let of_topic = || self.writes.iter().filter(move |write| write.topic == topic);
        let is_last = |write: &Write| {
            let acknowledged_at = write.acknowledged_at.unwrap_or(usize::MAX);
            of_topic().all(|other| other.sent_at <= acknowledged_at)
        };
        let mut candidates = of_topic().filter(|write| is_last(write));
        of_topic().next().is_none() && text.is_empty() || candidates.any(|write| write.text == text)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Verifies [MQTT-3.3.1-5]: the last retained message replaces the one before, in every shard.
    /// Verifies [MQTT-3.3.1-6]: an empty one removes it, in every shard.
    #[test]
    fn shards_agree_on_what_is_retained(
        shards in 1_u16..=4,
        names in 0_u32..8,
        events in prop::collection::vec(event(), 1..60),
    ) {
        let mut writers = Writers::new(shards, names);
        for event in &events {
            writers.apply(event);
        }
        writers.check();
    }
}
