//! A shard without its sockets: what happens between the bytes that were read and those that are written.
//!
//! Owns: [`Bed`], the order in which a shard calls its rooms. Does not own: sockets, the loop around them (see the server's
//! `shard`), what is counted (see `main`, `tests`). Start reading at [`Bed::take`].
//! Invariant: the rooms are called as `server/src/shard` does it, and nothing else is done in between.
#![allow(
    clippy::expect_used,
    reason = "a bench has nobody to report to but who reads its panic"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{
    Config, ConnectRequest, ConnectionKey, Engine, Limits, Output, Principal, Rules, ShardIndex,
    SharedStrategy,
};
use proto::Version;
use proto::connection::{Event, Outgoing, ServerConnection, ServerLimits, is_publish};
use proto::packet::{
    self, Connect, Packet, RetainHandling, Subscribe, SubscriptionOptions, SubscriptionRequest,
};
use proto::{PacketIdentifier, Qos};
use store::{EncodedGroup, Level, Seq};

/// One Client and its Network Connection.
#[derive(Debug)]
struct Client {
    connection: ServerConnection,
    out: Vec<u8>,
}

/// A shard with its Clients, the first of which publishes.
#[derive(Debug)]
pub struct Bed {
    /// The shard's mind.
    pub engine: Engine,
    clients: Vec<Client>,
    group: EncodedGroup,
    now: Instant,
}

impl Bed {
    /// A shard at `level` without Clients.
    #[must_use]
    pub fn new(level: Level) -> Self {
        let now = now();
        let mut config = Config::new(ShardIndex(0), 1, 1883);
        config.sys_interval = Duration::ZERO;
        config.levels.default = level;
        config.rules = Arc::new(Rules::allow_all());
        config.shared_strategy = SharedStrategy::RoundRobin;
        // Few, so that a few hundred are several turns.
        config.limits = Arc::new(Limits {
            retained_replay_per_turn: 100,
            ..Limits::default()
        });
        Self {
            engine: Engine::new(config, now),
            clients: Vec::new(),
            group: EncodedGroup::new(),
            now,
        }
    }

    /// Connects a Client, whose Session outlives its connection if `keeps`; returns its number.
    pub fn connect(&mut self, version: Version, keeps: bool) -> usize {
        let number = self.clients.len();
        let mut connect = Connect::new(version, format!("client-{number}"));
        connect.clean_start = !keeps;
        if keeps {
            connect.properties.session_expiry_interval_seconds = Some(3600);
        }
        let mut client = Client {
            connection: ServerConnection::new(limits(), self.now),
            out: Vec::new(),
        };
        let bytes = encoded(&Packet::Connect(Box::new(connect)), version);
        let taken = client.connection.next_event(&bytes, self.now);
        let Ok(Some((Event::Connect(connect), _))) = taken else {
            unreachable!("invariant: a CONNECT of ours is taken");
        };
        self.clients.push(client);
        let request = ConnectRequest {
            connection: key_of(number),
            connect,
            assigned_client_id: false,
            authentication_data: None,
            principal: Arc::new(Principal::default()),
        };
        self.engine.on_connect(request, self.now);
        self.end_turn();
        self.sent(number).clear();
        number
    }

    /// Subscribes a Client to `filter`, and lets go of what it is sent in that turn.
    pub fn subscribe(&mut self, number: usize, filter: &str, qos: Qos) {
        self.ask(number, filter, qos);
        self.end_turn();
        self.sent(number).clear();
    }

    /// The SUBSCRIBE alone.
    pub fn ask(&mut self, number: usize, filter: &str, qos: Qos) {
        let options = SubscriptionOptions {
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Send,
        };
        let subscribe = Subscribe {
            packet_id: PacketIdentifier::FIRST,
            subscription_identifier: None,
            user_properties: Vec::new(),
            requests: vec![SubscriptionRequest { filter, options }],
        };
        let version = self.version(number);
        self.take(number, &encoded(&Packet::Subscribe(subscribe), version));
    }

    /// Takes what a Client says: whole packets.
    /// # Panics
    /// They are not well-formed.
    pub fn take(&mut self, number: usize, mut input: &[u8]) {
        let key = key_of(number);
        let now = self.now;
        while let Some(client) = self.clients.get_mut(number) {
            let taken = client.connection.next_event(input, now);
            let Some((event, len)) = taken.expect("a packet of ours is well-formed") else {
                break;
            };
            let engine = &mut self.engine;
            engine.count_packets(1, 0);
            match event {
                Event::Publish(publish) => {
                    assert_eq!(engine.must_wait(key, &publish, now), None);
                    if input.get(len).copied().is_some_and(is_publish) {
                        engine.on_publish_of_many(key, &publish, None, now);
                    } else {
                        engine.on_publish(key, &publish, None, now);
                    }
                }
                Event::PubAck(ack) => engine.on_puback(key, &ack, now),
                Event::PubRec(ack) => engine.on_pubrec(key, &ack, now),
                Event::PubRel(ack) => engine.on_pubrel(key, &ack, now),
                Event::PubComp(ack) => engine.on_pubcomp(key, &ack, now),
                Event::Subscribe(subscribe) => engine.on_subscribe(key, &subscribe, now),
                _ => {}
            }
            input = input.get(len..).unwrap_or_default();
        }
        self.deliver();
    }

    /// Ends the turn, and what that leads to; what was to be written is durable at once.
    pub fn end_turn(&mut self) {
        self.engine.end_turn(self.now);
        self.deliver();
    }

    /// What a Client would be sent.
    /// # Panics
    /// There is no such Client.
    pub fn sent(&mut self, number: usize) -> &mut Vec<u8> {
        let client = self.clients.get_mut(number);
        &mut client.expect("a Client of this bed").out
    }

    fn version(&self, number: usize) -> Version {
        let client = self.clients.get(number);
        client.map_or(Version::V311, |client| client.connection.version())
    }

    fn deliver(&mut self) {
        let mut durable = Seq(0);
        loop {
            while let Some(output) = self.engine.poll_output() {
                match output {
                    Output::Send { connection, packet } => {
                        send(&mut self.clients, connection, &packet, self.now);
                        self.engine.count_packets(0, 1);
                    }
                    Output::SendAll {
                        connection,
                        packets,
                    } => {
                        for packet in packets.packets() {
                            send(&mut self.clients, connection, &packet, self.now);
                        }
                        self.engine.return_packets(packets);
                    }
                    Output::Persist(batch) => {
                        durable = batch.seq;
                        self.group.clear(usize::MAX);
                        self.group.push(&batch);
                    }
                    _ => {}
                }
            }
            if durable == Seq(0) {
                return;
            }
            self.engine.on_persisted(durable, durable, self.now);
            durable = Seq(0);
        }
    }
}

fn send(clients: &mut [Client], key: ConnectionKey, packet: &Outgoing, now: Instant) {
    let number = usize::try_from(key.0 & 0xFFFF_FFFF).unwrap_or(usize::MAX);
    let Some(client) = clients.get_mut(number) else {
        return;
    };
    if let Outgoing::Publish(delivery) = packet {
        let rest = client
            .connection
            .send_publish(delivery.into(), now, &mut client.out);
        client.out.extend_from_slice(&rest.unwrap_or_default());
    } else {
        client.connection.send(packet, now, &mut client.out);
    }
}

/// A packet of ours, encoded.
/// # Panics
/// It cannot be.
#[must_use]
pub fn encoded(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    packet::encode(packet, version, &mut out).expect("a packet of ours can be written");
    out
}

/// A PUBLISH to `topic`, with 64 bytes of payload.
#[must_use]
pub fn publish(version: Version, topic: &str, qos: Qos, packet_id: u16) -> Vec<u8> {
    let publish = packet::Publish {
        packet_id: PacketIdentifier::new(packet_id).filter(|_| qos > Qos::AtMostOnce),
        ..plain_publish(topic, qos)
    };
    encoded(&Packet::Publish(publish), version)
}

/// So many of them, one after the other.
#[must_use]
pub fn publishes(version: Version, topic: &str, qos: Qos, count: u16) -> Vec<u8> {
    (1..=count)
        .flat_map(|packet_id| publish(version, topic, qos, packet_id))
        .collect()
}

/// The same with RETAIN.
#[must_use]
pub fn retained(version: Version, topic: &str, qos: Qos) -> Vec<u8> {
    let publish = packet::Publish {
        retain: true,
        packet_id: (qos > Qos::AtMostOnce).then_some(PacketIdentifier::FIRST),
        ..plain_publish(topic, qos)
    };
    encoded(&Packet::Publish(publish), version)
}

fn plain_publish(topic: &str, qos: Qos) -> packet::Publish<'_> {
    packet::Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: None,
        properties: packet::PublishProperties::default(),
        payload: &[b'.'; 64],
    }
}

/// What a Client answers to what it was sent: PUBACK, PUBREC and PUBCOMP, as it comes.
pub fn answers(sent: &[u8], version: Version, answers: &mut Vec<u8>) {
    let mut rest = sent;
    while let Ok(Some((packet, used))) = packet::decode(rest, version, packet::PACKET_BYTES_MAX) {
        let (first, packet_id) = match packet {
            Packet::Publish(publish) => match (publish.qos, publish.packet_id) {
                (Qos::AtLeastOnce, Some(id)) => (0x40, id),
                (Qos::ExactlyOnce, Some(id)) => (0x50, id),
                _ => (0, PacketIdentifier::FIRST),
            },
            Packet::PubRec(ack) => (0x62, ack.packet_id),
            Packet::PubRel(ack) => (0x70, ack.packet_id),
            _ => (0, PacketIdentifier::FIRST),
        };
        if first != 0 {
            let [high, low] = packet_id.get().to_be_bytes();
            answers.extend_from_slice(&[first, 2, high, low]);
        }
        rest = rest.get(used..).unwrap_or_default();
    }
}

fn key_of(number: usize) -> ConnectionKey {
    ConnectionKey(1 << 32 | number as u64)
}

/// What a Connection may do.
#[must_use]
pub const fn limits() -> ServerLimits {
    ServerLimits {
        maximum_packet_size_bytes: 1 << 20,
        receive_maximum: 1024,
        topic_alias_maximum: 10,
        topic_alias_maximum_out: 10,
        user_properties_max: 64,
        properties_bytes_max: 1 << 16,
        connect_timeout: Duration::from_secs(10),
    }
}

fn now() -> Instant {
    Instant::now()
}
