//! Random events over one to three shards, with losses of connection anywhere, against a simple model.
//!
//! Owns: [`Peer`], a Client that keeps its side of every handshake. Start reading at [`Run::check`].
//! Invariant: QoS 1 arrives at least once, QoS 2 exactly once, nobody sees a publisher's topic out of
//! order, and no packet promises what is not durable yet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU16;
use std::time::Duration;

use proptest::prelude::*;
use proto::connection::{Delivery, Outgoing};
use proto::packet::{Ack, Publish, ReasonCode};
use proto::{Qos, Version};
use store::{Record, SessionId, Store, Target};
use vencejo_engine::Limits;

use crate::world::{Client, World, durable, id, payload, publish};

#[derive(Clone, Debug)]
enum Event {
    /// A publisher sends a message; if it `is_lost`, the connection breaks before the Server has it.
    Publish {
        publisher: usize,
        topic: usize,
        qos: u8,
        is_lost: bool,
    },
    Lose(usize),
    /// Also while it is connected: take-over. In 5.0 or in 3.1.1.
    Connect(usize, Version),
    /// Whether its unsent bytes are above the mark.
    Congest(usize, bool),
    /// A Client reads this many packets and answers them.
    Read(usize, usize),
    /// One message goes from one shard to another.
    Carry(usize),
    /// What one shard has given its store becomes durable.
    Persist(usize),
    /// The store answers one shard.
    Answer(usize),
    Turn,
}

const PUBLISHERS: usize = 2;
const PEERS: usize = 4;
const TOPICS: [&str; 2] = ["a/b", "a/c"];

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (0..PUBLISHERS, 0..TOPICS.len(), 1_u8..=2, prop::bool::weighted(0.1)).prop_map(
            |(publisher, topic, qos, is_lost)| Event::Publish { publisher, topic, qos, is_lost }
        ),
        1 => (0..PEERS).prop_map(Event::Lose),
        2 => (0..PEERS, version()).prop_map(|(peer, version)| Event::Connect(peer, version)),
        1 => (0..PEERS, any::<bool>()).prop_map(|(peer, congested)| Event::Congest(peer, congested)),
        8 => (0..PEERS, 1_usize..4).prop_map(|(peer, count)| Event::Read(peer, count)),
        8 => (0_usize..6).prop_map(Event::Carry),
        3 => (0_usize..3).prop_map(Event::Persist),
        3 => (0_usize..3).prop_map(Event::Answer),
        4 => Just(Event::Turn),
    ]
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![3 => Just(Version::V5), 1 => Just(Version::V311)]
}

/// A message on its way to the Server.
#[derive(Debug)]
struct Sent {
    packet_id: u16,
    topic: &'static str,
    qos: u8,
    text: String,
    is_released: bool,
}

/// A Client: what it has sent and not finished, what it has got.
#[derive(Debug)]
struct Peer {
    name: String,
    client: Option<Client>,
    has_connack: bool,
    sent: VecDeque<Sent>,
    next_packet_id: u16,
    unreleased: BTreeSet<u16>,
    /// The QoS 2 message that each identifier stood for last.
    text_of: BTreeMap<u16, String>,
    got: Vec<Delivery>,
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
    /// Two publishers and two subscribers, of which the second is granted QoS 1 only.
    /// With a `window`, only so many messages that wait stay in memory.
    fn new(shards: u16, receive_maximum: u16, window: Option<usize>) -> Self {
        let limits = Limits {
            window_messages_max: window.unwrap_or(1),
            ..Limits::default()
        };
        let world = World::with_config(shards, limits, |config| {
            config.sys_interval = Duration::ZERO;
            config.can_load = window.is_some();
        });
        let mut run = Self {
            world,
            peers: Vec::new(),
            published: BTreeMap::new(),
            count: 0,
        };
        for index in 0..PEERS {
            run.peers.push(Peer {
                name: format!("peer-{index}"),
                client: None,
                has_connack: false,
                sent: VecDeque::new(),
                next_packet_id: 1,
                unreleased: BTreeSet::new(),
                text_of: BTreeMap::new(),
                got: Vec::new(),
            });
            run.connect(index, Version::V5, receive_maximum);
            run.read(index, usize::MAX);
        }
        for (index, qos) in [(PUBLISHERS, 2), (PUBLISHERS + 1, 1)] {
            let client = run.peers[index].client.expect("connected");
            let reasons = run.world.subscribe(client, "a/#", qos);
            assert_eq!(reasons.len(), 1);
        }
        run.world.holds_rings = true;
        run.world.holds_store = true;
        run.world.holds_loads = true;
        run
    }

    fn apply(&mut self, event: &Event, receive_maximum: u16) {
        match *event {
            Event::Publish {
                publisher,
                topic,
                qos,
                is_lost,
            } => self.publish(publisher, topic, qos, is_lost),
            Event::Lose(peer) => self.lose(peer),
            Event::Connect(peer, version) => self.connect(peer, version, receive_maximum),
            Event::Congest(peer, congested) => {
                if let Some(client) = self.peers[peer].client {
                    self.world.congest(client, congested);
                }
            }
            Event::Read(peer, count) => {
                self.read(peer, count);
            }
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
            Event::Answer(shard) => {
                let shard = shard % self.world.engines.len();
                self.world.answer_loads(shard);
            }
            Event::Turn => {
                self.world.turn();
            }
        }
    }

    fn publish(&mut self, index: usize, topic: usize, qos: u8, is_lost: bool) {
        let peer = &mut self.peers[index];
        let (Some(client), true) = (peer.client, peer.has_connack) else {
            return;
        };
        self.count += 1;
        let text = format!("{}", self.count);
        let packet_id = peer.next_packet_id;
        peer.next_packet_id += 1;
        peer.sent.push_back(Sent {
            packet_id,
            topic: TOPICS[topic],
            qos,
            text: text.clone(),
            is_released: false,
        });
        let all = self.published.entry((index, topic)).or_default();
        all.push((text.clone(), qos));
        if is_lost {
            self.lose(index);
        } else {
            let packet = publish(TOPICS[topic], qos, &text, id(packet_id));
            self.world.send_publish(client, &packet);
        }
    }

    fn lose(&mut self, index: usize) {
        if let Some(client) = self.peers[index].client.take() {
            self.world.lose(client);
        }
    }

    fn connect(&mut self, index: usize, version: Version, receive_maximum: u16) {
        let mut connect = durable(&self.peers[index].name);
        connect.version = version;
        connect.properties.receive_maximum = NonZeroU16::new(receive_maximum);
        let client = self.world.connect_with(connect);
        let peer = &mut self.peers[index];
        (peer.client, peer.has_connack) = (Some(client), false);
    }

    /// Reads up to `count` packets; returns how many there were.
    fn read(&mut self, index: usize, count: usize) -> usize {
        let mut done = 0;
        while done < count {
            let Some(client) = self.peers[index].client else {
                break;
            };
            let Some(packet) = self.world.next(client) else {
                break;
            };
            self.answer(index, client, packet);
            done += 1;
        }
        done
    }

    fn answer(&mut self, index: usize, client: Client, packet: Outgoing) {
        self.check_durable(index, client, &packet);
        let now = self.world.now;
        let peer = &mut self.peers[index];
        let engine = self.world.engine(client);
        match packet {
            Outgoing::ConnAck(connack) => {
                assert_eq!(connack.reason, ReasonCode::Success);
                peer.has_connack = true;
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
                found.into_iter().for_each(|sent| sent.is_released = true);
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
                } else {
                    peer.text_of.insert(id, payload(&delivery));
                    if peer.unreleased.insert(id) {
                        peer.got.push(delivery);
                    }
                    engine.on_pubrec(client.key, &success(id), now);
                }
            }
            Outgoing::PubRel(ack) => {
                let id = ack.packet_id.get();
                peer.unreleased.remove(&id);
                engine.on_pubcomp(client.key, &success(id), now);
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Whatever `packet` lets its receiver forget, the Server would still know after a crash now.
    fn check_durable(&self, index: usize, client: Client, packet: &Outgoing) {
        let peer = &self.peers[index];
        let home = client.shard;
        match packet {
            Outgoing::PubAck(ack) | Outgoing::PubRec(ack) => {
                let id = ack.packet_id.get();
                let sent = peer.sent.iter().find(|sent| sent.packet_id == id);
                for subscriber in sent.iter().flat_map(|_| PUBLISHERS..PEERS) {
                    let text = sent.map_or("", |sent| &sent.text);
                    assert!(self.queued(subscriber, text).is_some(), "{packet:?}");
                }
                let accepted = |record: &Record| matches!(record, Record::InboundPut { session, packet_id, .. } if self.is_of(*session, &peer.name) && *packet_id == id);
                let is_qos2 = matches!(packet, Outgoing::PubRec(_));
                assert!(!is_qos2 || self.durable(home).any(accepted), "{packet:?}");
            }
            Outgoing::PubComp(ack) => {
                let id = ack.packet_id.get();
                let is_known = peer.sent.iter().any(|sent| sent.packet_id == id);
                let released = |record: &Record| matches!(record, Record::InboundDelete { session, packet_id } if self.is_of(*session, &peer.name) && *packet_id == id);
                assert!(!is_known || self.durable(home).any(released), "{packet:?}");
            }
            Outgoing::Publish(delivery) if delivery.qos == Qos::ExactlyOnce => {
                let text = payload(delivery);
                assert!(self.queued(index, &text).is_some(), "{text} to {index}");
            }
            Outgoing::PubRel(ack) => {
                let Some(text) = peer.text_of.get(&ack.packet_id.get()) else {
                    panic!("{ack:?} without PUBLISH");
                };
                let number = self.queued(index, text).map(|target| target.seq);
                let released = |record: &Record| matches!(record, Record::Release { session, seq } if self.is_of(*session, &peer.name) && Some(*seq) == number);
                assert!(self.durable(home).any(released), "{packet:?}");
            }
            _ => {}
        }
    }

    fn durable(&self, shard: usize) -> impl Iterator<Item = &Record> {
        let store = &self.world.stores[shard];
        let durable = store.durable();
        let batches = store.batches().iter();
        batches
            .take_while(move |batch| batch.seq <= durable)
            .flat_map(|batch| &batch.records)
    }

    /// Whether this is the number of the Session of the Client called `name`.
    fn is_of(&self, session: SessionId, name: &str) -> bool {
        let stores = self.world.stores.iter();
        let mut records =
            stores.flat_map(|store| store.batches().iter().flat_map(|of| &of.records));
        records.any(|record| matches!(record, Record::SessionPut(of) if of.session == session && &*of.client_id == name))
    }

    /// The durable entry of the message `text` in the queue of this Client's Session.
    fn queued(&self, index: usize, text: &str) -> Option<&Target> {
        let name = &*self.peers[index].name;
        let shards = 0..self.world.stores.len();
        let mut records = shards.flat_map(|shard| self.durable(shard));
        records.find_map(|record| match record {
            Record::Enqueue {
                message, targets, ..
            } if message.payload == text.as_bytes() => targets
                .iter()
                .find(|target| self.is_of(target.session, name)),
            _ => None,
        })
    }

    /// In every store an entry of a queue is made before it is taken back, and none is left.
    fn check_records(&self) {
        let mut open = BTreeSet::new();
        let shards = 0..self.world.stores.len();
        for record in shards.flat_map(|shard| self.durable(shard)) {
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
        assert_eq!(open, BTreeSet::new());
    }

    /// After CONNACK: everything that is not finished, in order.
    fn send_again(&mut self, index: usize, client: Client) {
        let now = self.world.now;
        let engine = self.world.engine(client);
        for sent in &self.peers[index].sent {
            if sent.is_released {
                engine.on_pubrel(client.key, &success(sent.packet_id), now);
            } else {
                let packet = publish(sent.topic, sent.qos, &sent.text, id(sent.packet_id));
                let again = Publish {
                    dup: true,
                    ..packet
                };
                engine.on_publish(client.key, &again, None, now);
            }
        }
    }

    /// Everyone returns, and everything is carried, made durable, read and answered.
    fn finish(&mut self, receive_maximum: u16) {
        self.world.holds_rings = false;
        self.world.holds_store = false;
        self.world.holds_loads = false;
        for shard in 0..self.world.engines.len() {
            self.world.answer_loads(shard);
        }
        self.world.persist();
        for index in 0..PEERS {
            self.connect(index, Version::V5, receive_maximum);
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
        for (subscriber, granted) in [(PUBLISHERS, 2), (PUBLISHERS + 1, 1)] {
            for (&(_, topic), messages) in &self.published {
                self.check_flow(subscriber, granted, topic, messages);
            }
        }
        self.check_records();
        for engine in &self.world.engines {
            assert_eq!(engine.counters().queued_messages, 0);
            assert_eq!(engine.counters().queued_bytes, 0);
            assert_eq!(engine.counters().spilled_messages, 0);
            assert_eq!(engine.counters().spilled_bytes, 0);
        }
    }

    fn check_flow(&self, subscriber: usize, granted: u8, topic: usize, sent: &[(String, u8)]) {
        let mut first = Vec::new();
        let mut counts = BTreeMap::<String, usize>::new();
        for delivery in &self.peers[subscriber].got {
            let text = payload(delivery);
            if sent.iter().any(|(of, _)| *of == text) {
                assert_eq!(delivery.message.topic(), TOPICS[topic]);
                let count = counts.entry(text.clone()).or_default();
                *count += 1;
                if *count == 1 {
                    first.push(text);
                }
            }
        }
        let expected: Vec<_> = sent.iter().map(|(text, _)| text.clone()).collect();
        assert_eq!(first, expected, "lost or out of order");
        for (text, qos) in sent {
            assert!(granted.min(*qos) < 2 || counts[text] == 1, "{text} twice");
        }
    }
}

fn success(number: u16) -> Ack {
    Ack::new(id(number), ReasonCode::Success)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Verifies [MQTT-4.6.0-5]: per publisher, topic and QoS the order is kept.
    /// Verifies [MQTT-4.6.0-6]: for every topic.
    /// Verifies [v3.1.1 MQTT-4.6.0-5]: for every topic.
    /// Verifies [v3.1.1 MQTT-4.6.0-6]: per publisher, topic and QoS the order is kept.
    /// Verifies [MQTT-4.5.0-1]: a message joins every matching Session.
    /// Verifies [MQTT-3.3.4-9]: also with a Receive Maximum smaller than what waits.
    #[test]
    fn nothing_is_lost_doubled_or_reordered_by_any_interleaving_and_loss(
        shards in 1_u16..=3,
        receive_maximum in 1_u16..=4,
        window in prop::option::weighted(0.8, 1_usize..5),
        events in prop::collection::vec(event(), 1..120),
    ) {
        let mut run = Run::new(shards, receive_maximum, window);
        for event in &events {
            run.apply(event, receive_maximum);
        }
        run.finish(receive_maximum);
        run.check();
    }
}
