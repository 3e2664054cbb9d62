//! The machine loses its power at any moment, and starts again with any number of shards.
//!
//! Owns: [`Peer`], a Client that keeps its side of every handshake over crashes of the Server.
//! Start reading at [`Run::check`]. Invariant: whatever is published at QoS 2 arrives once at every durable
//! Session and at one member of a group, in order; QoS 1 arrives in order, perhaps again; a Will arrives at
//! most once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU16;

use bytes::Bytes;
use proptest::prelude::*;
use proto::Qos;
use proto::connection::{Delivery, Outgoing};
use proto::packet::{Ack, Publish, ReasonCode, Will, WillProperties};
use store::Store;
use vencejo_engine::Limits;

use crate::world::{Client, World, durable, id, payload, publish};

#[derive(Clone, Debug)]
enum Event {
    Publish {
        publisher: usize,
        topic: usize,
        qos: u8,
        retain: bool,
    },
    Lose(usize),
    /// Also while it is connected: take-over.
    Connect(usize),
    /// A Client reads this many packets and answers them.
    Read(usize, usize),
    /// One message goes from one shard to another.
    Carry(usize),
    /// One shard hears that all it has appended is durable.
    Persist(usize),
    Turn,
    /// Up to `more` batches are found that nobody knew to be durable.
    Crash {
        shards: u16,
        more: usize,
    },
}

const PUBLISHERS: usize = 2;
/// Subscribers of everything, with the QoS they are granted.
const SUBSCRIBERS: [(usize, u8); 3] = [(2, 2), (3, 2), (4, 1)];
const MEMBERS: [usize; 2] = [5, 6];
const PEERS: usize = 7;
const TOPICS: [&str; 2] = ["t/a", "t/b"];

fn event() -> impl Strategy<Value = Event> {
    let publish = (
        0..PUBLISHERS,
        0..TOPICS.len(),
        prop_oneof![1 => Just(1_u8), 3 => Just(2)],
        prop::bool::weighted(0.1),
    );
    prop_oneof![
        6 => publish.prop_map(|(publisher, topic, qos, retain)| Event::Publish {
            publisher, topic, qos, retain
        }),
        1 => (0..PEERS).prop_map(Event::Lose),
        3 => (0..PEERS).prop_map(Event::Connect),
        8 => (0..PEERS, 1_usize..4).prop_map(|(peer, count)| Event::Read(peer, count)),
        8 => (0_usize..6).prop_map(Event::Carry),
        4 => (0_usize..3).prop_map(Event::Persist),
        5 => Just(Event::Turn),
        1 => (1_u16..=3, 0_usize..6).prop_map(|(shards, more)| Event::Crash { shards, more }),
    ]
}

/// A message on its way to the Server.
#[derive(Debug)]
struct Sent {
    packet_id: u16,
    topic: &'static str,
    qos: u8,
    retain: bool,
    text: String,
    is_released: bool,
}

/// A Client: what it has sent and not finished, what it has got.
#[derive(Debug, Default)]
struct Peer {
    name: String,
    client: Option<Client>,
    has_connack: bool,
    /// Whether it knows that the Server keeps its Session.
    is_known: bool,
    sent: VecDeque<Sent>,
    unreleased: BTreeMap<u16, String>,
    got: Vec<Delivery>,
}

impl Peer {
    /// The lowest identifier that stands for nothing.
    fn free_id(&self) -> u16 {
        let is_free = |id: &u16| self.sent.iter().all(|sent| sent.packet_id != *id);
        (1..).find(is_free).expect("few are open")
    }
}

#[derive(Debug)]
struct Run {
    world: World,
    peers: Vec<Peer>,
    /// Every message published, by publisher and topic, in order.
    published: BTreeMap<(usize, usize), Vec<(String, u8)>>,
    count: usize,
}

impl Run {
    fn new(shards: u16) -> Self {
        let mut run = Self {
            world: World::with(shards, Limits::default()),
            peers: Vec::new(),
            published: BTreeMap::new(),
            count: 0,
        };
        for index in 0..PEERS {
            run.peers.push(Peer {
                name: format!("peer-{index}"),
                ..Peer::default()
            });
            run.connect(index);
            run.read(index, usize::MAX);
        }
        for (index, qos) in SUBSCRIBERS {
            run.subscribe(index, "t/#", qos);
            run.subscribe(index, "will", qos);
        }
        for index in MEMBERS {
            run.subscribe(index, "$share/g/t/+", 2);
        }
        run.world.holds_rings = true;
        run.world.holds_store = true;
        run
    }

    fn subscribe(&mut self, index: usize, filter: &str, qos: u8) {
        let client = self.peers[index].client.expect("connected");
        assert_eq!(self.world.subscribe(client, filter, qos).len(), 1);
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Publish {
                publisher,
                topic,
                qos,
                retain,
            } => self.publish(publisher, topic, qos, retain),
            Event::Lose(peer) => {
                if let Some(client) = self.peers[peer].client.take() {
                    self.world.lose(client);
                }
            }
            Event::Connect(peer) => self.connect(peer),
            Event::Read(peer, count) => drop(self.read(peer, count)),
            Event::Carry(choice) => {
                let links = self.world.loaded_links();
                if !links.is_empty() {
                    self.world.carry_one(links[choice % links.len()]);
                }
            }
            Event::Persist(shard) => {
                let shard = shard % self.world.engines.len();
                self.world.persist_shard(shard);
            }
            Event::Turn => drop(self.world.turn()),
            Event::Crash { shards, more } => self.crash(shards, more),
        }
    }

    fn publish(&mut self, index: usize, topic: usize, qos: u8, retain: bool) {
        self.count += 1;
        let peer = &mut self.peers[index];
        let (Some(client), true) = (peer.client, peer.has_connack) else {
            return;
        };
        let sent = Sent {
            packet_id: peer.free_id(),
            topic: TOPICS[topic],
            qos,
            retain,
            text: self.count.to_string(),
            is_released: false,
        };
        let all = self.published.entry((index, topic)).or_default();
        all.push((sent.text.clone(), qos));
        self.world.send_publish(client, &packet(&sent, false));
        self.peers[index].sent.push_back(sent);
    }

    fn crash(&mut self, shards: u16, more: usize) {
        for peer in &mut self.peers {
            peer.client = None;
        }
        self.world.crash_keeping(shards, more);
    }

    /// A publisher has a Will, another one with each connection.
    fn connect(&mut self, index: usize) {
        self.count += 1;
        let peer = &self.peers[index];
        let mut connect = durable(&peer.name);
        connect.properties.receive_maximum = NonZeroU16::new(3);
        connect.will = (index < PUBLISHERS).then(|| Will {
            topic: "will".to_owned(),
            payload: Bytes::from(self.count.to_string()),
            qos: Qos::ExactlyOnce,
            retain: false,
            properties: WillProperties::default(),
        });
        let client = self.world.connect_with(connect);
        let peer = &mut self.peers[index];
        (peer.client, peer.has_connack) = (Some(client), false);
    }

    /// Reads up to `count` packets; returns how many there were.
    fn read(&mut self, index: usize, count: usize) -> usize {
        for done in 0..count {
            let client = self.peers[index].client;
            let packet = client.and_then(|client| Some((client, self.world.next(client)?)));
            let Some((client, packet)) = packet else {
                return done;
            };
            self.answer(index, client, packet);
        }
        count
    }

    fn answer(&mut self, index: usize, client: Client, packet: Outgoing) {
        let now = self.world.now;
        let peer = &mut self.peers[index];
        let engine = &mut self.world.engines[client.shard];
        match packet {
            Outgoing::ConnAck(connack) => {
                assert_eq!(connack.reason, ReasonCode::Success);
                assert_eq!(connack.session_present, peer.is_known, "{}", peer.name);
                (peer.has_connack, peer.is_known) = (true, true);
                self.send_again(index, client);
            }
            Outgoing::PubAck(ack) => {
                assert!(!ack.reason.is_error(), "{ack:?}");
                let id = ack.packet_id.get();
                peer.sent.retain(|sent| sent.packet_id != id);
            }
            Outgoing::PubRec(ack) => {
                assert!(!ack.reason.is_error(), "{ack:?}");
                let id = ack.packet_id.get();
                let found = peer.sent.iter_mut().find(|sent| sent.packet_id == id);
                found.expect("it was sent").is_released = true;
                engine.on_pubrel(client.key, &success(id), now);
            }
            Outgoing::PubComp(ack) => {
                let id = ack.packet_id.get();
                peer.sent.retain(|sent| sent.packet_id != id);
            }
            Outgoing::Publish(delivery) => {
                let id = delivery.packet_id.expect("above QoS 0").get();
                if delivery.qos == Qos::AtLeastOnce {
                    peer.got.push(delivery);
                    engine.on_puback(client.key, &success(id), now);
                    return;
                }
                let text = payload(&delivery);
                match peer.unreleased.insert(id, text.clone()) {
                    None => peer.got.push(delivery),
                    Some(before) => assert_eq!(before, text, "{id} stands for both"),
                }
                engine.on_pubrec(client.key, &success(id), now);
            }
            Outgoing::PubRel(ack) => {
                let id = ack.packet_id.get();
                peer.unreleased.remove(&id);
                engine.on_pubcomp(client.key, &success(id), now);
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    /// After CONNACK: everything that is not finished, in order.
    fn send_again(&mut self, index: usize, client: Client) {
        let now = self.world.now;
        let engine = self.world.engine(client);
        for sent in &self.peers[index].sent {
            if sent.is_released {
                engine.on_pubrel(client.key, &success(sent.packet_id), now);
            } else {
                engine.on_publish(client.key, &packet(sent, true), None, now);
            }
        }
    }

    /// Everyone returns, and everything is carried, made durable, read and answered.
    fn finish(&mut self) {
        self.world.holds_rings = false;
        self.world.holds_store = false;
        self.world.persist();
        for index in 0..PEERS {
            self.connect(index);
        }
        loop {
            self.world.settle();
            let read: usize = (0..PEERS).map(|index| self.read(index, usize::MAX)).sum();
            if read == 0 {
                return;
            }
        }
    }

    fn check(&self) {
        for publisher in &self.peers[..PUBLISHERS] {
            assert!(publisher.sent.is_empty(), "unfinished: {publisher:?}");
        }
        for (subscriber, granted) in SUBSCRIBERS {
            for messages in self.published.values() {
                self.check_flow(subscriber, granted, messages);
            }
            self.check_wills(subscriber, granted);
        }
        self.check_group();
        for engine in &self.world.engines {
            assert_eq!(engine.counters().queued_messages, 0);
            assert_eq!(engine.counters().queued_bytes, 0);
        }
    }

    fn check_flow(&self, subscriber: usize, granted: u8, sent: &[(String, u8)]) {
        let of_flow: BTreeSet<_> = sent.iter().map(|(text, _)| text).collect();
        let got = self.peers[subscriber].got.iter().map(payload);
        let (mut first, mut seen) = (Vec::new(), BTreeMap::<_, usize>::new());
        for text in got.filter(|text| of_flow.contains(text)) {
            let count = seen.entry(text.clone()).or_default();
            *count += 1;
            if *count == 1 {
                first.push(text);
            }
        }
        let expected: Vec<_> = sent.iter().map(|(text, _)| text.clone()).collect();
        assert_eq!(first, expected, "lost or out of order at {subscriber}");
        for (text, qos) in sent {
            let is_once = granted.min(*qos) == 2;
            assert!(!is_once || seen[text] == 1, "{text} twice at {subscriber}");
        }
    }

    fn check_wills(&self, subscriber: usize, granted: u8) {
        let got = self.peers[subscriber].got.iter();
        let wills = got.filter(|delivery| delivery.message.topic() == "will");
        let mut seen = BTreeSet::new();
        for will in wills {
            let is_new = seen.insert(payload(will));
            assert!(is_new || granted < 2, "a Will twice: {}", payload(will));
        }
    }

    fn check_group(&self) {
        let got = MEMBERS.iter().flat_map(|index| &self.peers[*index].got);
        let mut seen = BTreeMap::<_, usize>::new();
        for delivery in got {
            *seen.entry(payload(delivery)).or_default() += 1;
        }
        for (text, qos) in self.published.values().flatten() {
            let count = seen.get(text).copied().unwrap_or(0);
            assert!(count == 1 || (*qos == 1 && count > 1), "{text}: {count}");
        }
    }
}

fn packet(sent: &Sent, dup: bool) -> Publish<'_> {
    Publish {
        dup,
        retain: sent.retain,
        ..publish(sent.topic, sent.qos, &sent.text, id(sent.packet_id))
    }
}

fn success(number: u16) -> Ack {
    Ack::new(id(number), ReasonCode::Success)
}

/// A message at QoS 2 to every subscriber, step by step; returns how many steps there were before the crash.
fn crash_after(steps: usize, shards: (u16, u16), more: usize) -> usize {
    let mut run = Run::new(shards.0);
    run.publish(0, 0, 2, false);
    run.publish(0, 0, 2, false);
    let mut done = 0;
    while done < steps && run.step(done) {
        done += 1;
    }
    run.crash(shards.1, more);
    run.finish();
    run.check();
    done
}

impl Run {
    /// Does the next of the things that can be done; `false` if there is none.
    fn step(&mut self, number: usize) -> bool {
        if self.world.turn() {
            return true;
        }
        let links = self.world.loaded_links();
        if let Some(link) = links.first() {
            return self.world.carry_one(*link);
        }
        if (0..PEERS).any(|peer| self.read(peer, 1) > 0) {
            return true;
        }
        let shards = self.world.engines.len();
        let has_more = |shard: &usize| {
            let store = &self.world.stores[*shard];
            let last = store.batches().last();
            last.is_some_and(|batch| batch.seq > store.durable())
        };
        let mut volatile = (0..shards).map(|of| (of + number) % shards);
        match volatile.find(has_more) {
            Some(shard) => {
                self.world.persist_shard(shard);
                true
            }
            None => false,
        }
    }
}

/// Every place in the way of a message, from PUBLISH to the last PUBCOMP, on both sides.
#[test]
fn a_crash_at_any_step_neither_loses_nor_repeats() {
    for shards in [(2, 2), (3, 3), (3, 1), (2, 3)] {
        for more in 0..3 {
            let steps = (0..).find(|steps| crash_after(*steps, shards, more) < *steps);
            assert!(steps.expect("it ends") > 20, "{steps:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn crashes_at_any_time_neither_lose_nor_repeat_nor_reorder(
        shards in 1_u16..=3,
        events in prop::collection::vec(event(), 1..200),
    ) {
        let mut run = Run::new(shards);
        for event in &events {
            run.apply(event);
        }
        run.finish();
        run.check();
    }
}
