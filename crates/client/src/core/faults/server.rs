//! A Server of one Client, as simple as one can be that keeps the rules.
//!
//! Owns: its Session, what it accepted, what it sends. Does not own: the network. Start reading at [`Server::receive`].
//! Invariant: a QoS 2 Packet Identifier is accepted once until PUBREL; what is unacknowledged is sent again first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU16;

use proto::packet::{
    self, Ack, ConnAck, ConnAckProperties, Connect, Packet, Property, Publish, PublishProperties,
    ReasonCode, SubAck,
};
use proto::{PacketIdentifier, Qos, Version};

use super::{Plan, Random, number};

#[derive(Debug)]
struct Sent {
    qos: Qos,
    number: u32,
    packet_id: PacketIdentifier,
    is_released: bool,
    is_on_wire: bool,
    was_on_wire: bool,
}

/// Session State.
#[derive(Debug, Default)]
struct Session {
    identifier: Option<u32>,
    is_subscribed: bool,
    open_qos2: BTreeSet<u16>,
    unacknowledged: VecDeque<Sent>,
    last_packet_id: u16,
}

#[derive(Debug)]
pub(super) struct Server {
    version: Version,
    loses_sessions: bool,
    receive_maximum: u16,
    aliases_max: u16,
    session: Option<Session>,
    is_new: bool,
    input: Vec<u8>,
    is_connected: bool,
    aliases: BTreeMap<u16, String>,
    client_maximum: u16,
    /// PUBLISH packets above QoS 0 that the Client has open with us on this connection.
    open: BTreeSet<u16>,
    accepted: Vec<(Qos, u32)>,
    to_send: u32,
    sent: Vec<(Qos, u32)>,
}

impl Server {
    pub(super) fn new(plan: Plan, random: &mut Random) -> Self {
        let small = |random: &mut Random, bound| u16::try_from(random.below(bound)).expect("small");
        Self {
            version: plan.version,
            loses_sessions: plan.loses_sessions,
            receive_maximum: 1 + small(random, 8),
            aliases_max: small(random, 4),
            session: None,
            is_new: false,
            input: Vec::new(),
            is_connected: false,
            aliases: BTreeMap::new(),
            client_maximum: 1,
            open: BTreeSet::new(),
            accepted: Vec::new(),
            to_send: plan.messages,
            sent: Vec::new(),
        }
    }

    pub(super) fn accepted(&self) -> &[(Qos, u32)] {
        &self.accepted
    }

    pub(super) fn sent(&self) -> impl Iterator<Item = (Qos, u32)> {
        self.sent.iter().copied()
    }

    pub(super) fn is_done(&self) -> bool {
        let session = self.session.as_ref();
        self.sent.len() == self.to_send as usize
            && session.is_some_and(|session| {
                session.unacknowledged.is_empty() && session.open_qos2.is_empty()
            })
    }

    /// A Session that was lost and made anew stays lost until the Client has heard of that: otherwise no Client could
    /// know, and QoS 2 would be beyond what the protocol can do.
    pub(super) fn on_lost(&mut self, was_seen: bool, random: &mut Random) {
        let is_unseen = std::mem::take(&mut self.is_new) && !was_seen;
        self.is_connected = false;
        self.input.clear();
        self.aliases.clear();
        self.open.clear();
        if is_unseen || (self.loses_sessions && random.one_in(3)) {
            self.session = None;
        }
    }

    pub(super) fn receive(&mut self, bytes: &[u8], down: &mut VecDeque<u8>) {
        self.input.extend_from_slice(bytes);
        let input = std::mem::take(&mut self.input);
        let mut rest = input.as_slice();
        while let Some((packet, used)) =
            packet::decode(rest, self.version, u32::MAX).expect("well-formed")
        {
            self.on_packet(packet, down);
            rest = &rest[used..];
        }
        self.input = rest.to_vec();
    }

    fn on_packet(&mut self, packet: Packet<'_>, down: &mut VecDeque<u8>) {
        assert_eq!(self.is_connected, !matches!(packet, Packet::Connect(_)));
        match packet {
            Packet::Connect(connect) => self.on_connect(&connect, down),
            Packet::Publish(publish) => self.on_publish(&publish, down),
            Packet::PubRel(ack) => {
                self.open.remove(&ack.packet_id.get());
                self.session_mut().open_qos2.remove(&ack.packet_id.get());
                self.say(&Packet::PubComp(success(ack.packet_id)), down);
            }
            Packet::PubAck(ack) | Packet::PubComp(ack) => {
                let unacknowledged = &mut self.session_mut().unacknowledged;
                unacknowledged.retain(|sent| sent.packet_id != ack.packet_id);
            }
            Packet::PubRec(ack) => {
                let sent = self.session_mut().unacknowledged.iter_mut();
                for sent in sent.filter(|sent| sent.packet_id == ack.packet_id) {
                    sent.is_released = true;
                }
                self.say(&Packet::PubRel(success(ack.packet_id)), down);
            }
            Packet::Subscribe(subscribe) => {
                let session = self.session_mut();
                session.is_subscribed = true;
                session.identifier = subscribe.subscription_identifier;
                let suback = SubAck {
                    packet_id: subscribe.packet_id,
                    reasons: vec![ReasonCode::GrantedQos2],
                    properties: None,
                };
                self.say(&Packet::SubAck(suback), down);
            }
            Packet::PingReq => self.say(&Packet::PingResp, down),
            other => panic!("not expected: {other:?}"),
        }
    }

    fn on_connect(&mut self, connect: &Connect, down: &mut VecDeque<u8>) {
        self.is_connected = true;
        self.client_maximum = connect
            .properties
            .receive_maximum
            .map_or(u16::MAX, NonZeroU16::get);
        if connect.clean_start {
            self.session = None;
        }
        let session_present = self.session.is_some();
        self.is_new = !session_present;
        let session = self.session.get_or_insert_default();
        for sent in &mut session.unacknowledged {
            sent.is_on_wire = false;
        }
        let connack = ConnAck {
            session_present,
            reason: ReasonCode::Success,
            properties: ConnAckProperties {
                receive_maximum: NonZeroU16::new(self.receive_maximum),
                topic_alias_maximum: Some(self.aliases_max),
                ..ConnAckProperties::default()
            },
        };
        self.say(&Packet::ConnAck(Box::new(connack)), down);
    }

    fn on_publish(&mut self, publish: &Publish<'_>, down: &mut VecDeque<u8>) {
        let number = number(publish.payload);
        let topic = self.resolve(publish);
        assert_eq!(topic, format!("up/{}", number % 3));
        let packet_id = publish.packet_id.expect("above QoS 0");
        self.open.insert(packet_id.get());
        if self.version == Version::V5 {
            assert!(
                self.open.len() <= usize::from(self.receive_maximum),
                "Receive Maximum"
            );
        }
        if publish.qos == Qos::AtLeastOnce {
            self.open.remove(&packet_id.get());
            self.accepted.push((publish.qos, number));
            self.say(&Packet::PubAck(success(packet_id)), down);
            return;
        }
        if self.session_mut().open_qos2.insert(packet_id.get()) {
            self.accepted.push((publish.qos, number));
        } else {
            assert!(publish.dup, "a repeat says so");
        }
        self.say(&Packet::PubRec(success(packet_id)), down);
    }

    fn resolve(&mut self, publish: &Publish<'_>) -> String {
        let Some(alias) = publish.properties.topic_alias else {
            return publish.topic.to_owned();
        };
        assert!(alias <= self.aliases_max, "Topic Alias Maximum");
        if !publish.topic.is_empty() {
            self.aliases.insert(alias, publish.topic.to_owned());
        }
        self.aliases[&alias].clone()
    }

    /// Sends again what an earlier connection left, then something new.
    pub(super) fn pump(&mut self, random: &mut Random, down: &mut VecDeque<u8>) {
        if !self.is_connected {
            return;
        }
        let next = u32::try_from(self.sent.len()).expect("few");
        let wants_new = next < self.to_send && random.one_in(3);
        let client_maximum = usize::from(self.client_maximum.min(16));
        let session = self.session_mut();
        let is_new =
            wants_new && session.is_subscribed && session.unacknowledged.len() < client_maximum;
        if is_new {
            session.last_packet_id = session.last_packet_id % 40 + 1;
            let packet_id = PacketIdentifier::new(session.last_packet_id).expect("not 0");
            let qos = [Qos::AtLeastOnce, Qos::ExactlyOnce][random.below(2)];
            session.unacknowledged.push_back(Sent {
                qos,
                number: next,
                packet_id,
                is_released: false,
                is_on_wire: false,
                was_on_wire: false,
            });
            self.sent.push((qos, next));
        }
        let session = self.session_mut();
        let identifier = session.identifier;
        let mut again = Vec::new();
        for sent in &mut session.unacknowledged {
            if !std::mem::replace(&mut sent.is_on_wire, true) {
                let dup = std::mem::replace(&mut sent.was_on_wire, true);
                again.push((sent.qos, sent.number, sent.packet_id, sent.is_released, dup));
            }
        }
        for (qos, number, packet_id, is_released, dup) in again {
            if is_released {
                self.say(&Packet::PubRel(success(packet_id)), down);
            } else {
                self.say_publish((qos, number, packet_id, dup), identifier, down);
            }
        }
    }

    fn say_publish(
        &self,
        (qos, number, packet_id, dup): (Qos, u32, PacketIdentifier, bool),
        identifier: Option<u32>,
        down: &mut VecDeque<u8>,
    ) {
        let mut raw = Vec::new();
        if let Some(identifier) = identifier {
            let property = Property::SubscriptionIdentifier(identifier);
            property.put(&mut raw).expect("a small number");
        }
        let publish = Publish {
            dup,
            qos,
            retain: false,
            topic: &format!("down/{}", number % 3),
            packet_id: Some(packet_id),
            properties: PublishProperties::parse(&raw).expect("allowed"),
            payload: &number.to_be_bytes(),
        };
        self.say(&Packet::Publish(publish), down);
    }

    fn say(&self, packet: &Packet<'_>, down: &mut VecDeque<u8>) {
        let mut bytes = Vec::new();
        packet::encode(packet, self.version, &mut bytes).expect("can be written");
        down.extend(bytes);
    }

    fn session_mut(&mut self) -> &mut Session {
        self.session.get_or_insert_default()
    }
}

fn success(packet_id: PacketIdentifier) -> Ack {
    Ack::new(packet_id, ReasonCode::Success)
}
