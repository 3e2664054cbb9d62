//! Every door in any order, with tight limits: whatever Clients do, the books balance.
//!
//! Owns: [`Chaos`], [`Books`] (what a restart would find). Start reading at [`Chaos::check_end`].
//! Invariants: nothing is sent after Close, every request on a living connection is answered, all
//! gauges return to zero, and the store forgets what the engine forgets.

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use proto::connection::Outgoing;
use proto::packet::{
    Ack, Connect, Disconnect, Publish, ReasonCode, RetainHandling, Subscribe, SubscriptionOptions,
    SubscriptionRequest, Unsubscribe, Will, WillProperties,
};
use proto::{Qos, Version};
use store::{Record, SessionId};
use vencejo_engine::{Limits, OverflowPolicy};

use crate::world::{Client, World, id, publish};

#[derive(Clone, Debug)]
enum Event {
    Connect(usize, Terms),
    Lose(usize),
    Disconnect(usize, ReasonCode, Option<u32>),
    Publish {
        who: usize,
        topic: usize,
        qos: u8,
        retain: bool,
        payload_bytes: usize,
        packet_id: u16,
    },
    Release(usize, u16),
    Subscribe(usize, usize, SubscriptionOptions),
    Unsubscribe(usize, usize),
    /// Reads this many packets and answers the deliveries, some of them with a refusal.
    Read(usize, usize, bool),
    /// An answer to nothing.
    OddAck(usize, u8, u16),
    Congest(usize, bool),
    Advance(u64),
    Carry(usize),
    Persist(usize),
    Answer(usize),
    Turn,
}

/// What a Client asks for in CONNECT.
#[derive(Clone, Copy, Debug)]
struct Terms {
    version: Version,
    clean_start: bool,
    expiry_seconds: u32,
    receive_maximum: u16,
    is_small: bool,
    will_delay_seconds: Option<u32>,
}

const CLIENTS: usize = 5;
const TOPICS: [&str; 3] = ["t/a", "t/b", "u/b"];
const FILTERS: [&str; 6] = [
    "t/#",
    "t/a",
    "+/b",
    "$share/g/t/#",
    "$share/g/t/a",
    "$share/h/+/+",
];

fn terms() -> impl Strategy<Value = Terms> {
    let version = prop_oneof![Just(Version::V5), Just(Version::V311)];
    let expiry = prop_oneof![Just(0), Just(10), Just(u32::MAX)];
    let will = prop::option::of(prop_oneof![Just(0), Just(5), Just(20)]);
    let rest = (any::<bool>(), 1_u16..4, prop::bool::weighted(0.2));
    (version, expiry, will, rest).prop_map(|(version, expiry_seconds, will_delay_seconds, rest)| {
        Terms {
            version,
            clean_start: rest.0,
            expiry_seconds,
            receive_maximum: rest.1,
            is_small: rest.2,
            will_delay_seconds,
        }
    })
}

fn subscription_options() -> impl Strategy<Value = SubscriptionOptions> {
    let handling = prop_oneof![
        Just(RetainHandling::Send),
        Just(RetainHandling::SendIfNew),
        Just(RetainHandling::DoNotSend)
    ];
    (0_u8..=2, any::<bool>(), any::<bool>(), handling).prop_map(
        |(qos, no_local, retain_as_published, retain_handling)| SubscriptionOptions {
            qos: Qos::from_level(qos).expect("0, 1 or 2"),
            no_local,
            retain_as_published,
            retain_handling,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let who = || 0..CLIENTS;
    let reason = prop_oneof![
        Just(ReasonCode::Success),
        Just(ReasonCode::DisconnectWithWillMessage)
    ];
    let expiry = prop::option::of(prop_oneof![Just(0), Just(7)]);
    let size = prop_oneof![Just(0_usize), Just(3), Just(60), Just(600)];
    let publish = (
        who(),
        0..TOPICS.len(),
        0_u8..=2,
        any::<bool>(),
        size,
        1_u16..7,
    );
    prop_oneof![
        6 => (who(), terms()).prop_map(|(who, terms)| Event::Connect(who, terms)),
        1 => who().prop_map(Event::Lose),
        1 => (who(), reason, expiry).prop_map(|(who, reason, expiry)| Event::Disconnect(who, reason, expiry)),
        10 => publish.prop_map(|(who, topic, qos, retain, payload_bytes, packet_id)| {
            Event::Publish { who, topic, qos, retain, payload_bytes, packet_id }
        }),
        3 => (who(), 1_u16..7).prop_map(|(who, packet_id)| Event::Release(who, packet_id)),
        6 => (who(), 0..FILTERS.len(), subscription_options())
            .prop_map(|(who, filter, options)| Event::Subscribe(who, filter, options)),
        2 => (who(), 0..FILTERS.len()).prop_map(|(who, filter)| Event::Unsubscribe(who, filter)),
        8 => (who(), 1_usize..5, prop::bool::weighted(0.2))
            .prop_map(|(who, count, refuses)| Event::Read(who, count, refuses)),
        1 => (who(), 0_u8..4, 1_u16..9).prop_map(|(who, kind, id)| Event::OddAck(who, kind, id)),
        2 => (who(), any::<bool>()).prop_map(|(who, congested)| Event::Congest(who, congested)),
        2 => (1_u64..8).prop_map(Event::Advance),
        8 => (0_usize..12).prop_map(Event::Carry),
        4 => (0_usize..3).prop_map(Event::Persist),
        3 => (0_usize..3).prop_map(Event::Answer),
        5 => Just(Event::Turn),
    ]
}

fn policy() -> impl Strategy<Value = OverflowPolicy> {
    prop_oneof![
        Just(OverflowPolicy::DropNewest),
        Just(OverflowPolicy::DropOldest),
        Just(OverflowPolicy::Disconnect)
    ]
}

struct Chaos {
    world: World,
    clients: Vec<Option<Client>>,
    /// Requests that have to be answered on the current connection.
    owed: Vec<usize>,
}

impl Chaos {
    fn new(shards: u16, overflow_policy: OverflowPolicy, can_load: bool) -> Self {
        let limits = Limits {
            overflow_policy,
            queued_messages_max: 3,
            queued_bytes_max: 2500,
            window_messages_max: 2,
            retained_messages_max: 2,
            retained_replay_per_turn: 1,
            subscriptions_per_session_max: 4,
            session_expiry_3x_seconds: 15,
            receive_maximum: 5,
            ..Limits::default()
        };
        let mut world = World::with_config(shards, limits, |config| {
            config.sys_interval = Duration::ZERO;
            config.can_load = can_load;
        });
        (world.holds_rings, world.holds_store) = (true, true);
        world.holds_loads = true;
        Self {
            world,
            clients: vec![None; CLIENTS],
            owed: vec![0; CLIENTS],
        }
    }

    fn apply(&mut self, event: &Event) {
        match *event {
            Event::Connect(who, terms) => self.connect(who, terms),
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
            Event::Turn => drop(self.world.turn()),
            Event::Advance(seconds) => self.world.advance(seconds),
            Event::Lose(who)
            | Event::Disconnect(who, ..)
            | Event::Publish { who, .. }
            | Event::Release(who, _)
            | Event::Subscribe(who, ..)
            | Event::Unsubscribe(who, _)
            | Event::Read(who, ..)
            | Event::OddAck(who, ..)
            | Event::Congest(who, _) => {
                if let Some(client) = self.clients[who] {
                    self.apply_connected(who, client, event);
                }
            }
        }
    }

    fn connect(&mut self, who: usize, terms: Terms) {
        let mut connect = Connect::new(terms.version, format!("client-{who}"));
        connect.clean_start = terms.clean_start;
        let properties = &mut connect.properties;
        if terms.version == Version::V5 {
            properties.session_expiry_interval_seconds = Some(terms.expiry_seconds);
            properties.receive_maximum = NonZeroU16::new(terms.receive_maximum);
            properties.maximum_packet_size_bytes = NonZeroU32::new(50).filter(|_| terms.is_small);
        }
        connect.will = terms.will_delay_seconds.map(|delay_interval_seconds| Will {
            topic: TOPICS[who % TOPICS.len()].to_owned(),
            payload: Bytes::from_static(b"gone"),
            qos: Qos::AtLeastOnce,
            retain: terms.is_small,
            properties: WillProperties {
                delay_interval_seconds,
                ..WillProperties::default()
            },
        });
        self.clients[who] = Some(self.world.connect_with(connect));
        self.owed[who] = 1;
    }

    fn apply_connected(&mut self, who: usize, client: Client, event: &Event) {
        let now = self.world.now;
        let packet_id = self.world.packet_id();
        match *event {
            Event::Lose(_) => {
                self.world.lose(client);
                self.clients[who] = None;
            }
            Event::Disconnect(_, reason, expiry) => {
                let mut disconnect = Disconnect::new(reason);
                disconnect.session_expiry_interval_seconds = expiry;
                self.world.disconnect(client, &disconnect);
                self.clients[who] = None;
            }
            Event::Publish {
                topic,
                qos,
                retain,
                payload_bytes,
                packet_id,
                ..
            } => {
                let text = "x".repeat(payload_bytes);
                let packet = Publish {
                    retain,
                    ..publish(TOPICS[topic], qos, &text, id(packet_id))
                };
                self.world.send_publish(client, &packet);
                self.owed[who] += usize::from(qos > 0);
            }
            Event::Release(_, number) => {
                let engine = self.world.engine(client);
                engine.on_pubrel(client.key, &success(number), now);
                self.owed[who] += 1;
            }
            Event::Subscribe(_, filter, options) => {
                let mut options = options;
                options.no_local &= !FILTERS[filter].starts_with('$');
                let subscribe = Subscribe {
                    packet_id,
                    subscription_identifier: Some(u32::from(packet_id.get())),
                    user_properties: Vec::new(),
                    requests: vec![SubscriptionRequest {
                        filter: FILTERS[filter],
                        options,
                    }],
                };
                let engine = self.world.engine(client);
                engine.on_subscribe(client.key, &subscribe, now);
                self.owed[who] += 1;
            }
            Event::Unsubscribe(_, filter) => {
                let unsubscribe = Unsubscribe {
                    packet_id,
                    user_properties: Vec::new(),
                    filters: vec![FILTERS[filter]],
                };
                let engine = self.world.engine(client);
                engine.on_unsubscribe(client.key, &unsubscribe, now);
                self.owed[who] += 1;
            }
            Event::Read(_, count, refuses) => drop(self.read(who, count, refuses)),
            Event::OddAck(_, kind, number) => self.odd_ack(client, kind, &success(number)),
            Event::Congest(_, congested) => self.world.congest(client, congested),
            _ => {}
        }
    }

    /// As its Client sends it; PUBREC to nothing is answered, but that is not counted.
    fn odd_ack(&mut self, client: Client, kind: u8, ack: &Ack) {
        let now = self.world.now;
        let engine = self.world.engine(client);
        match kind {
            0 => engine.on_puback(client.key, ack, now),
            1 => engine.on_pubrec(client.key, ack, now),
            2 => engine.on_pubcomp(client.key, ack, now),
            _ => engine.on_puback(
                client.key,
                &Ack::new(ack.packet_id, ReasonCode::QuotaExceeded),
                now,
            ),
        }
    }

    fn read(&mut self, who: usize, count: usize, refuses: bool) -> usize {
        let Some(client) = self.clients[who] else {
            return 0;
        };
        for done in 0..count {
            let Some(packet) = self.world.next(client) else {
                return done;
            };
            let now = self.world.now;
            let engine = self.world.engine(client);
            match packet {
                Outgoing::Publish(delivery) => {
                    let Some(packet_id) = delivery.packet_id else {
                        continue;
                    };
                    let reason = if refuses {
                        ReasonCode::ImplementationSpecificError
                    } else {
                        ReasonCode::Success
                    };
                    let ack = Ack::new(packet_id, reason);
                    if delivery.qos == Qos::AtLeastOnce {
                        engine.on_puback(client.key, &ack, now);
                    } else {
                        engine.on_pubrec(client.key, &ack, now);
                    }
                }
                Outgoing::PubRel(ack) => {
                    engine.on_pubcomp(client.key, &success(ack.packet_id.get()), now);
                }
                Outgoing::Disconnect(_) => {}
                _ => self.owed[who] -= 1,
            }
        }
        count
    }

    /// Everything is carried, made durable, read and answered.
    fn quiet(&mut self) {
        (self.world.holds_rings, self.world.holds_store) = (false, false);
        self.world.holds_loads = false;
        for shard in 0..self.world.engines.len() {
            self.world.answer_loads(shard);
        }
        self.world.persist();
        for client in self.clients.clone().into_iter().flatten() {
            self.world.congest(client, false);
        }
        loop {
            self.world.settle();
            let read: usize = (0..CLIENTS)
                .map(|who| self.read(who, usize::MAX, false))
                .sum();
            if read == 0 {
                return;
            }
        }
    }

    fn check_quiet(&self) {
        for (client, owed) in self.clients.iter().zip(&self.owed) {
            let is_closed = client.is_none_or(|client| self.world.closed(client).is_some());
            assert!(is_closed || *owed == 0, "{owed} not answered");
        }
        for engine in &self.world.engines {
            assert!(!engine.has_work());
            let retained = engine.counters().retained_messages;
            assert_eq!(retained, self.world.engines[0].counters().retained_messages);
        }
    }

    /// Everyone leaves for good.
    fn end(&mut self) {
        for who in 0..CLIENTS {
            let client = self
                .world
                .connect_with(Connect::new(Version::V5, format!("client-{who}")));
            self.world
                .disconnect(client, &Disconnect::new(ReasonCode::Success));
        }
    }

    fn check_end(&mut self) {
        for engine in &self.world.engines {
            let counters = engine.counters();
            assert_eq!(counters.clients_connected, 0);
            assert_eq!(counters.sessions, 0);
            assert_eq!(counters.subscriptions, 0);
            assert_eq!(counters.shared_subscriptions, 0);
            assert_eq!(counters.queued_messages, 0);
            assert_eq!(counters.queued_bytes, 0);
            assert_eq!((counters.spilled_messages, counters.spilled_bytes), (0, 0));
        }
        for store in &self.world.stores {
            let mut books = Books::default();
            for record in store.batches().iter().flat_map(|batch| &batch.records) {
                books.enter(record);
            }
            books.check_empty();
        }
        // Nobody is left in any index either.
        for number in 0..8 {
            let client = self.world.connect_clean(&format!("last-{number}"));
            for topic in TOPICS {
                self.world.publish(client, topic, 1, "x");
                let reason = self.world.take(client, |packet| match packet {
                    Outgoing::PubAck(ack) => Some(ack.reason),
                    _ => None,
                });
                assert_eq!(reason, Some(ReasonCode::NoMatchingSubscribers));
            }
        }
    }
}

/// What the records of one shard come to.
#[derive(Debug, Default)]
struct Books {
    sessions: BTreeSet<SessionId>,
    subscriptions: BTreeSet<(SessionId, String)>,
    queued: BTreeMap<(SessionId, u64), bool>,
    inbound: BTreeSet<(SessionId, u16)>,
    wills: BTreeSet<SessionId>,
}

impl Books {
    fn enter(&mut self, record: &Record) {
        match record {
            Record::SessionPut(of) => {
                self.sessions.insert(of.session);
            }
            Record::SessionDelete { session } => self.delete(*session),
            Record::SubscriptionPut(of) => {
                let key = (of.session, of.filter.to_string());
                assert!(self.sessions.contains(&key.0), "{of:?}");
                self.subscriptions.insert(key);
            }
            Record::SubscriptionDelete { session, filter } => {
                let key = (*session, filter.to_string());
                assert!(self.subscriptions.remove(&key), "{record:?}");
            }
            Record::Enqueue { targets, .. } => {
                for target in targets {
                    let key = (target.session, target.seq);
                    assert!(self.sessions.contains(&key.0), "{target:?}");
                    assert_eq!(self.queued.insert(key, false), None, "{target:?}");
                }
            }
            Record::Dequeue {
                session,
                first_seq,
                count,
            } => {
                for seq in *first_seq..first_seq + count {
                    let entry = self.queued.remove(&(*session, seq));
                    assert!(entry.is_some(), "{record:?}");
                }
            }
            Record::Release { session, seq } => {
                let key = (*session, *seq);
                assert_eq!(self.queued.insert(key, true), Some(false), "{record:?}");
            }
            Record::InboundPut {
                session, packet_id, ..
            } => {
                let key = (*session, *packet_id);
                assert!(self.inbound.insert(key), "{record:?}");
            }
            Record::InboundDelete { session, packet_id } => {
                let key = (*session, *packet_id);
                assert!(self.inbound.remove(&key), "{record:?}");
            }
            Record::WillPut(of) => {
                assert!(self.sessions.contains(&of.session), "{of:?}");
                self.wills.insert(of.session);
            }
            Record::WillDelete { session } => {
                assert!(self.wills.remove(session), "{record:?}");
            }
            Record::RetainedPut { .. } | Record::RetainedDelete { .. } => {}
        }
    }

    fn delete(&mut self, session: SessionId) {
        assert!(self.sessions.remove(&session), "{session:?}");
        self.subscriptions.retain(|(of, _)| *of != session);
        self.queued.retain(|(of, _), _| *of != session);
        self.inbound.retain(|(of, _)| *of != session);
        self.wills.remove(&session);
    }

    fn check_empty(&self) {
        let is_empty = self.sessions.is_empty()
            && self.subscriptions.is_empty()
            && self.queued.is_empty()
            && self.inbound.is_empty()
            && self.wills.is_empty();
        assert!(is_empty, "{self:?}");
    }
}

fn success(number: u16) -> Ack {
    Ack::new(id(number), ReasonCode::Success)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_books_balance_whatever_clients_do(
        shards in 1_u16..=3,
        overflow_policy in policy(),
        can_load in prop::bool::weighted(0.8),
        events in prop::collection::vec(event(), 1..150),
    ) {
        let mut chaos = Chaos::new(shards, overflow_policy, can_load);
        for event in &events {
            chaos.apply(event);
        }
        chaos.quiet();
        chaos.check_quiet();
        chaos.end();
        chaos.check_end();
    }
}
