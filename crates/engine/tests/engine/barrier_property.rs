//! Subscriptions that come and go while messages are published in every shard, in any interleaving.
//!
//! Owns: [`Barrier`]. Start reading at [`Barrier::check`]. Invariant: whatever is published after
//! SUBACK and before UNSUBSCRIBE arrives once, and no retained message is missed.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proto::Version;
use proto::connection::Outgoing;
use proto::packet::{Publish, Subscribe, SubscriptionRequest};
use vencejo_engine::Limits;

use crate::world::{Client, World, id, options, payload, publish};

#[derive(Clone, Debug)]
enum Event {
    /// On a topic that everyone's filter matches.
    Publish(usize),
    /// On a topic of its own.
    PublishRetained(usize),
    Subscribe(usize),
    Unsubscribe(usize),
    Carry(usize),
    Turn,
}

const PUBLISHERS: usize = 3;
/// What each subscriber subscribes to; there are more than shards, so some share one.
const FILTERS: [&str; 6] = ["a/b", "#", "a/+", "a/b", "#", "+/#"];

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0..PUBLISHERS).prop_map(Event::Publish),
        2 => (0..PUBLISHERS).prop_map(Event::PublishRetained),
        3 => (0..FILTERS.len()).prop_map(Event::Subscribe),
        2 => (0..FILTERS.len()).prop_map(Event::Unsubscribe),
        10 => (0_usize..12).prop_map(Event::Carry),
        5 => Just(Event::Turn),
    ]
}

struct Subscriber {
    client: Client,
    /// SUBSCRIBE packets not answered yet.
    pending: usize,
    is_wanted: bool,
    is_subscribed: bool,
    must_get: BTreeSet<String>,
    got: BTreeMap<String, usize>,
    /// Since the last SUBSCRIBE.
    got_retained: BTreeSet<String>,
}

struct Barrier {
    world: World,
    publishers: Vec<Client>,
    subscribers: Vec<Subscriber>,
    sent: usize,
    retained: BTreeSet<String>,
}

impl Barrier {
    fn new(shards: u16, names: u32, retained_replay_per_turn: usize, version: Version) -> Self {
        let limits = Limits {
            retained_replay_per_turn,
            ..Limits::default()
        };
        let mut world = World::with(shards, limits);
        world.version = version;
        let publishers = (0..PUBLISHERS)
            .map(|index| world.connect_clean(&format!("publisher-{names}-{index}")))
            .collect();
        let subscribers = (0..FILTERS.len())
            .map(|index| Subscriber {
                client: world.connect_clean(&format!("subscriber-{names}-{index}")),
                pending: 0,
                is_wanted: false,
                is_subscribed: false,
                must_get: BTreeSet::new(),
                got: BTreeMap::new(),
                got_retained: BTreeSet::new(),
            })
            .collect();
        world.holds_rings = true;
        Self {
            world,
            publishers,
            subscribers,
            sent: 0,
            retained: BTreeSet::new(),
        }
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Publish(publisher) => {
                self.sent += 1;
                let text = self.sent.to_string();
                let packet = publish("a/b", 1, &text, id(1));
                self.world.send_publish(self.publishers[publisher], &packet);
                for subscriber in &mut self.subscribers {
                    if subscriber.is_subscribed {
                        subscriber.must_get.insert(text.clone());
                    }
                }
            }
            Event::PublishRetained(publisher) => {
                self.sent += 1;
                let topic = format!("r/{}", self.sent);
                let packet = Publish {
                    retain: true,
                    ..publish(&topic, 1, &topic, id(1))
                };
                self.world.send_publish(self.publishers[publisher], &packet);
                self.retained.insert(topic);
            }
            Event::Subscribe(index) => self.subscribe(index),
            Event::Unsubscribe(index) => self.unsubscribe(index),
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
        for index in 0..FILTERS.len() {
            self.read(index);
        }
    }

    fn subscribe(&mut self, index: usize) {
        let subscribe = Subscribe {
            packet_id: self.world.packet_id(),
            subscription_identifier: None,
            user_properties: Vec::new(),
            requests: vec![SubscriptionRequest {
                filter: FILTERS[index],
                options: options(1),
            }],
        };
        let subscriber = &mut self.subscribers[index];
        subscriber.pending += 1;
        subscriber.is_wanted = true;
        subscriber.got_retained.clear();
        let (client, now) = (subscriber.client, self.world.now);
        let engine = self.world.engine(client);
        engine.on_subscribe(client.key, &subscribe, now);
    }

    /// What is still on its way to this shard is not owed any more.
    fn unsubscribe(&mut self, index: usize) {
        self.read(index);
        let subscriber = &mut self.subscribers[index];
        (subscriber.is_wanted, subscriber.is_subscribed) = (false, false);
        let got = &subscriber.got;
        subscriber.must_get.retain(|text| got.contains_key(text));
        self.world.unsubscribe(subscriber.client, FILTERS[index]);
    }

    fn read(&mut self, index: usize) {
        let client = self.subscribers[index].client;
        while let Some(packet) = self.world.next(client) {
            let subscriber = &mut self.subscribers[index];
            match packet {
                Outgoing::SubAck(_) => {
                    subscriber.pending -= 1;
                    let is_last = subscriber.pending == 0;
                    subscriber.is_subscribed |= subscriber.is_wanted && is_last;
                }
                Outgoing::Publish(delivery) => {
                    let text = payload(&delivery);
                    if self.retained.contains(&text) {
                        subscriber.got_retained.insert(text);
                    } else {
                        *subscriber.got.entry(text).or_default() += 1;
                    }
                    let packet_id = delivery.packet_id.expect("QoS 1").get();
                    self.world.puback(client, packet_id);
                }
                _ => {}
            }
        }
    }

    fn finish(&mut self) {
        self.world.holds_rings = false;
        self.world.settle();
        for index in 0..FILTERS.len() {
            self.read(index);
        }
    }

    fn check(&self) {
        for (subscriber, filter) in self.subscribers.iter().zip(FILTERS) {
            for text in &subscriber.must_get {
                let count = subscriber.got.get(text).copied();
                assert_eq!(count, Some(1), "{text} for {filter}");
            }
            assert!(subscriber.got.values().all(|count| *count == 1));
            if subscriber.is_subscribed && filter.contains('#') {
                assert_eq!(subscriber.got_retained, self.retained, "{filter}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Verifies [MQTT-3.8.4-4]: replacing a Subscription loses nothing.
    /// Verifies [v3.1.1 MQTT-3.8.4-3]: the same in 3.1.1.
    #[test]
    fn what_is_published_after_suback_arrives_in_any_interleaving(
        shards in 1_u16..=4,
        names in 0_u32..8,
        retained_replay_per_turn in 1_usize..4,
        version in prop::sample::select(vec![Version::V311, Version::V5]),
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut barrier = Barrier::new(shards, names, retained_replay_per_turn, version);
        for event in &events {
            barrier.apply(event);
        }
        barrier.finish();
        barrier.check();
    }
}
