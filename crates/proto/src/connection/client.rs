//! One Network Connection, Client side: bytes from the Server in, events and bytes for it out.
//!
//! Owns: CONNECT and CONNACK, keep alive, Topic Aliases, both Receive Maximum quotas, Maximum Packet
//! Size, the QoS 1 and 2 handshakes, acknowledgements in order.
//! Does not own: sockets, clocks, reconnecting (see the client crate).
//! Start reading at [`ClientConnection::next_event`]. Invariant: acknowledgements leave in the order
//! in which the PUBLISH packets came, whatever the application does.

mod error;
mod requests;
mod session;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

pub use error::{ClientError, SendError};
use session::Awaits;
pub use session::ClientSession;

use super::topic_alias::{InboundAliases, OutboundAliases};
use crate::packet::{
    self, Ack, Auth, ConnAck, ConnAckProperties, Connect, ConnectProperties, Disconnect, Packet,
    PacketType, Publish, ReasonCode, ReasonProperties, SubAck, UnsubAck,
};
use crate::{PacketIdentifier, Qos, Version};

/// How long the Client waits for the Server.
#[derive(Clone, Copy, Debug)]
pub struct ClientTimeouts {
    /// From CONNECT to CONNACK.
    pub connack: Duration,
    /// From PINGREQ to PINGRESP.
    pub ping: Duration,
}

impl Default for ClientTimeouts {
    fn default() -> Self {
        Self {
            connack: Duration::from_secs(30),
            ping: Duration::from_secs(30),
        }
    }
}

/// What happened on the connection.
#[derive(Clone, Debug, PartialEq)]
pub enum ClientEvent<'a> {
    /// CONNACK with Success.
    Connected(Box<ConnAck>),
    /// CONNACK with a failure; the connection is over.
    Refused(Box<ConnAck>),
    /// A message. Above QoS 0, call [`ClientConnection::acknowledge`] once it is taken.
    Publish(Publish<'a>),
    /// A QoS 1 or 2 PUBLISH of ours has reached its end.
    Published {
        /// Its Packet Identifier, free again from now on.
        packet_id: PacketIdentifier,
        /// From PUBACK, PUBCOMP, or a PUBREC that refused it.
        reason: ReasonCode,
        /// Reason String and User Properties.
        properties: Option<Box<ReasonProperties>>,
    },
    /// PUBREC for a QoS 2 PUBLISH of ours: the Server has it, and it is not sent again.
    Received(PacketIdentifier),
    /// SUBACK.
    SubAck(SubAck),
    /// UNSUBACK.
    UnsubAck(UnsubAck),
    /// AUTH; answer with [`ClientConnection::send_auth`].
    Auth(Box<Auth>),
    /// The Server's DISCONNECT; the connection is over.
    Disconnect(Disconnect),
    /// A packet that needs nothing from the application.
    Handled(PacketType),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    AwaitingConnAck,
    Connected,
    Closed,
}

/// An acknowledgement we owe, in the order the PUBLISH packets came.
#[derive(Clone, Copy, Debug)]
struct Owed {
    packet_id: PacketIdentifier,
    qos: Qos,
    /// False for a QoS 2 repeat, which the application never sees.
    is_delivered: bool,
}

/// One Network Connection, Client side.
#[derive(Debug)]
pub struct ClientConnection {
    version: Version,
    phase: Phase,
    has_session_state: bool,
    session: ClientSession,
    authentication_method: Option<String>,
    started_at: Instant,
    timeouts: ClientTimeouts,
    keep_alive: Duration,
    last_sent_at: Instant,
    ping_sent_at: Option<Instant>,
    maximum_packet_size_in: u32,
    receive_maximum_in: u16,
    /// PUBLISH packets above QoS 0 the Server has open with us.
    received_open: u16,
    owed: VecDeque<Owed>,
    topic_alias_maximum_in: u16,
    topic_aliases_in: InboundAliases,
    topic_aliases_out: BTreeMap<u16, String>,
    /// Our own bound for Topic Aliases that are chosen here.
    automatic_aliases_max: u16,
    automatic_aliases: OutboundAliases,
    /// The properties of one PUBLISH with the Topic Alias that was chosen for it.
    scratch: Vec<u8>,
    send_quota: u16,
    announced: ConnAckProperties,
}

impl ClientConnection {
    /// A connection that begins with `connect`, which is appended to `out`. `session` is the state kept
    /// from earlier connections, if there is any; Clean Start throws it away.
    /// # Errors
    /// `connect` cannot be written.
    pub fn new(
        connect: &Connect,
        session: Option<ClientSession>,
        timeouts: ClientTimeouts,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<Self, SendError> {
        // [v3.1.1 MQTT-3.1.3-7] MQTT 5 lifted this: its Server assigns a name that can be kept.
        if connect.client_id.is_empty() && !connect.clean_start && connect.version != Version::V5 {
            return Err(SendError::ClientIdMissing);
        }
        // [MQTT-3.1.0-1] [v3.1.1 MQTT-3.1.0-1] CONNECT comes first.
        packet::encode(
            &Packet::Connect(Box::new(connect.clone())),
            connect.version,
            out,
        )?;
        // [MQTT-3.1.2-4] Clean Start discards the Client's state as well.
        let kept = session.filter(|_| !connect.clean_start);
        // 3.x has no properties: what stands there binds nobody.
        let none = ConnectProperties::default();
        let properties = if connect.version.has_properties() {
            &connect.properties
        } else {
            &none
        };
        let has_session_state = kept.is_some();
        let mut session_state = kept.unwrap_or_default();
        session_state.begin_connection();
        Ok(Self {
            version: connect.version,
            phase: Phase::AwaitingConnAck,
            has_session_state,
            session: session_state,
            authentication_method: properties.authentication_method.clone(),
            started_at: now,
            timeouts,
            keep_alive: Duration::from_secs(u64::from(connect.keep_alive_seconds)),
            last_sent_at: now,
            ping_sent_at: None,
            maximum_packet_size_in: properties
                .maximum_packet_size_bytes
                .map_or(u32::MAX, std::num::NonZeroU32::get),
            receive_maximum_in: properties
                .receive_maximum
                .map_or(u16::MAX, std::num::NonZeroU16::get),
            received_open: 0,
            owed: VecDeque::new(),
            topic_alias_maximum_in: properties.topic_alias_maximum,
            topic_aliases_in: InboundAliases::EMPTY,
            topic_aliases_out: BTreeMap::new(),
            automatic_aliases_max: 0,
            automatic_aliases: OutboundAliases::new(0),
            scratch: Vec::new(),
            send_quota: 0,
            announced: ConnAckProperties::default(),
        })
    }

    /// Chooses Topic Aliases for what is published, so many at most, where the Server takes them. Before CONNACK.
    pub const fn use_topic_aliases(&mut self, maximum: u16) {
        self.automatic_aliases_max = maximum;
    }

    /// The version spoken.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Whether CONNACK said Success and nothing has ended the connection.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.phase == Phase::Connected
    }

    /// Acknowledgements that are owed, and the messages of the Server that stay open until PUBREL.
    #[must_use]
    pub fn owed_count(&self) -> usize {
        self.owed.len() + self.session.received_qos2.len()
    }

    /// The Session State, to continue with on the next connection.
    #[must_use]
    pub fn into_session(mut self) -> ClientSession {
        self.session.begin_connection();
        self.session
    }

    /// The next event from the front of `input` and the bytes it used; `None` = more bytes are needed.
    /// Answers that the standard asks for are appended to `out`. Topic Aliases are resolved.
    /// # Errors
    /// The Server broke a rule: send what [`Self::refuse`] writes and close.
    pub fn next_event<'a>(
        &'a mut self,
        input: &'a [u8],
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<Option<(ClientEvent<'a>, usize)>, ClientError> {
        if let Some(refusal) = self.refused_in_old_words(input) {
            self.phase = Phase::Closed;
            return Ok(Some((
                ClientEvent::Refused(Box::new(refusal)),
                OLD_CONNACK_LEN,
            )));
        }
        let decoded = packet::decode(input, self.version, self.maximum_packet_size_in)?;
        let Some((packet, used)) = decoded else {
            return Ok(None);
        };
        let packet_type = packet.packet_type();
        let event = match (self.phase, packet) {
            (Phase::AwaitingConnAck, Packet::ConnAck(connack)) => {
                self.on_connack(connack, now, out)?
            }
            (Phase::AwaitingConnAck | Phase::Connected, Packet::Auth(auth)) => {
                self.on_auth(auth)?
            }
            (Phase::Connected, Packet::Publish(publish)) => {
                return self
                    .on_publish(publish, now, out)
                    .map(|event| Some((event, used)));
            }
            (Phase::Connected, Packet::PubAck(ack)) => self.on_puback(ack, now, out)?,
            (Phase::Connected, Packet::PubRec(ack)) => self.on_pubrec(ack, now, out)?,
            (Phase::Connected, Packet::PubRel(ack)) => self.on_pubrel(&ack, now, out)?,
            (Phase::Connected, Packet::PubComp(ack)) => self.on_pubcomp(ack, now, out)?,
            (Phase::Connected, Packet::SubAck(suback)) => {
                self.session.requests.remove(&suback.packet_id);
                ClientEvent::SubAck(suback)
            }
            (Phase::Connected, Packet::UnsubAck(unsuback)) => {
                self.session.requests.remove(&unsuback.packet_id);
                ClientEvent::UnsubAck(unsuback)
            }
            (Phase::Connected, Packet::PingResp) => {
                self.ping_sent_at = None;
                ClientEvent::Handled(packet_type)
            }
            (Phase::Connected, Packet::Disconnect(disconnect)) if self.version == Version::V5 => {
                self.phase = Phase::Closed;
                ClientEvent::Disconnect(disconnect)
            }
            // [MQTT-3.2.0-1] [v3.1.1 MQTT-3.2.0-1] The first packet from the Server is CONNACK.
            _ => return Err(ClientError::UnexpectedPacket(packet_type)),
        };
        Ok(Some((event, used)))
    }

    /// A Server that knows no 5.0 refuses a 5.0 CONNECT with a 3.x CONNACK.
    fn refused_in_old_words(&self, input: &[u8]) -> Option<ConnAck> {
        let is_awaited = self.phase == Phase::AwaitingConnAck && self.version == Version::V5;
        match input {
            [0x20, 2, 0, code @ 1..=5, ..] if is_awaited => {
                ReasonCode::from_connack_return_code(*code).map(ConnAck::refusal)
            }
            _ => None,
        }
    }

    fn on_connack(
        &mut self,
        connack: Box<ConnAck>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<ClientEvent<'static>, ClientError> {
        if connack.reason != ReasonCode::Success {
            self.phase = Phase::Closed;
            return Ok(ClientEvent::Refused(connack));
        }
        // [MQTT-4.12.0-5] The method in CONNACK is the one we asked for.
        let method = &connack.properties.authentication_method;
        if method.is_some() && *method != self.authentication_method {
            return Err(ClientError::AuthenticationMethod);
        }
        if connack.session_present && !self.has_session_state {
            // [MQTT-3.2.2-4] The Server resumes what we do not have.
            return Err(ClientError::SessionPresentWithoutState);
        }
        // MQTT 3.1 cannot say whether a Session is present, so its Client assumes what it asked for.
        let resumed =
            connack.session_present || (self.version == Version::V31 && self.has_session_state);
        if !resumed {
            // [MQTT-3.2.2-5] The Server has no Session, so ours is discarded.
            self.session = ClientSession::default();
        }
        self.announced = connack.properties.clone();
        // [MQTT-3.1.2-21] [MQTT-3.2.2-21] Server Keep Alive wins.
        if let Some(seconds) = self.announced.server_keep_alive_seconds {
            self.keep_alive = Duration::from_secs(u64::from(seconds));
        }
        // [MQTT-3.2.2-17] [MQTT-3.2.2-18] None above the Server's Topic Alias Maximum.
        let aliases_max = self.announced.topic_alias_maximum.unwrap_or(0);
        self.automatic_aliases = OutboundAliases::new(aliases_max.min(self.automatic_aliases_max));
        self.send_quota = self.send_quota_max();
        self.phase = Phase::Connected;
        self.resume(now, out);
        Ok(ClientEvent::Connected(connack))
    }

    /// [MQTT-4.4.0-1] [MQTT-4.6.0-1] [v3.1.1 MQTT-4.4.0-1] [v3.1.1 MQTT-4.6.0-1] PUBREL and
    /// unacknowledged PUBLISH again, in order.
    fn resume(&mut self, now: Instant, out: &mut Vec<u8>) {
        let pubrels: Vec<_> = self
            .session
            .outbound
            .iter_mut()
            .filter(|outbound| outbound.awaits == Awaits::Completion)
            .map(|outbound| {
                outbound.is_sent = true;
                outbound.packet_id
            })
            .collect();
        for packet_id in pubrels {
            self.put_ack(PacketType::PubRel, packet_id, ReasonCode::Success, now, out);
        }
        self.resend(now, out);
    }

    /// Sends what an earlier connection left unacknowledged, as far as the quota allows.
    fn resend(&mut self, now: Instant, out: &mut Vec<u8>) {
        for outbound in self
            .session
            .outbound
            .iter_mut()
            .filter(|outbound| !outbound.is_sent)
        {
            if self.send_quota == 0 {
                return;
            }
            self.send_quota -= 1;
            outbound.is_sent = true;
            outbound.takes_quota = true;
            let start = out.len();
            out.extend_from_slice(&outbound.packet);
            // [MQTT-3.3.1-1] [v3.1.1 MQTT-3.3.1-1] [v3.1.1 MQTT-2.3.1-3] DUP on every further attempt,
            // and the identifier it had.
            if let Some(first_byte) = out.get_mut(start) {
                *first_byte |= 0x08;
            }
            self.last_sent_at = now;
        }
    }

    fn on_auth(&self, auth: Box<Auth>) -> Result<ClientEvent<'static>, ClientError> {
        // [MQTT-4.12.0-5] [MQTT-4.12.0-6] No AUTH without a method, and always the same method.
        if self.authentication_method.is_none() || auth.method != self.authentication_method {
            return Err(ClientError::AuthenticationMethod);
        }
        Ok(ClientEvent::Auth(auth))
    }

    fn on_publish<'a>(
        &'a mut self,
        publish: Publish<'a>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<ClientEvent<'a>, ClientError> {
        if let Some(alias) = publish.properties.topic_alias {
            // [MQTT-3.3.2-10] All up to the maximum we announced are accepted, and no other.
            if alias > self.topic_alias_maximum_in {
                return Err(ClientError::TopicAliasInvalid);
            }
            if !publish.topic.is_empty() {
                self.topic_aliases_in.define(alias, publish.topic);
            }
        }
        if let (Some(packet_id), qos) = (publish.packet_id, publish.qos) {
            let is_repeat = self.session.received_qos2.contains(&packet_id)
                || self.owed.iter().any(|owed| owed.packet_id == packet_id);
            let is_repeat = is_repeat && qos == Qos::ExactlyOnce;
            if !is_repeat {
                // [MQTT-3.3.4-9] seen from here: the Server keeps to our Receive Maximum.
                if self.received_open >= self.receive_maximum_in {
                    return Err(ClientError::ReceiveMaximumExceeded);
                }
                self.received_open += 1;
            }
            // Repeats that wait are answered by one PUBREC: a Server that repeats without end would fill our memory.
            let waits = |owed: &Owed| owed.packet_id == packet_id && !owed.is_delivered;
            if !is_repeat || !self.owed.iter().any(waits) {
                self.owed.push_back(Owed {
                    packet_id,
                    qos,
                    is_delivered: !is_repeat,
                });
            }
            if is_repeat {
                // [MQTT-4.3.3-10] A repeat before PUBREL is acknowledged, not delivered again.
                self.put_undelivered(now, out);
                return Ok(ClientEvent::Handled(PacketType::Publish));
            }
        }
        self.resolve_topic(publish).map(ClientEvent::Publish)
    }

    fn resolve_topic<'a>(&'a self, publish: Publish<'a>) -> Result<Publish<'a>, ClientError> {
        match publish.properties.topic_alias {
            Some(alias) if publish.topic.is_empty() => {
                let topic = self
                    .topic_aliases_in
                    .resolve(alias)
                    .ok_or(ClientError::TopicAliasInvalid)?;
                Ok(Publish { topic, ..publish })
            }
            _ => Ok(publish),
        }
    }

    /// Acknowledges the oldest message above QoS 0 that was delivered and not acknowledged yet.
    /// [MQTT-4.5.0-2] [MQTT-4.6.0-2] [MQTT-4.6.0-3] Every one, and in the order they came.
    /// [v3.1.1 MQTT-4.5.0-2] [v3.1.1 MQTT-4.6.0-2] [v3.1.1 MQTT-4.6.0-3] The same in 3.1.1.
    pub fn acknowledge(&mut self, now: Instant, out: &mut Vec<u8>) {
        if let Some(owed) = self.owed.pop_front() {
            self.put_owed(owed, now, out);
        }
        self.put_undelivered(now, out);
    }

    fn put_undelivered(&mut self, now: Instant, out: &mut Vec<u8>) {
        while let Some(owed) = self.owed.pop_front_if(|owed| !owed.is_delivered) {
            self.put_owed(owed, now, out);
        }
    }

    fn put_owed(&mut self, owed: Owed, now: Instant, out: &mut Vec<u8>) {
        let Owed { packet_id, qos, .. } = owed;
        if qos == Qos::ExactlyOnce {
            // [MQTT-4.3.3-8] [v3.1.1 MQTT-4.3.3-2]
            self.session.received_qos2.insert(packet_id);
            self.put_ack(PacketType::PubRec, packet_id, ReasonCode::Success, now, out);
        } else {
            // [MQTT-4.3.2-4] [v3.1.1 MQTT-4.3.2-2]
            self.received_open = self.received_open.saturating_sub(1);
            self.put_ack(PacketType::PubAck, packet_id, ReasonCode::Success, now, out);
        }
    }

    fn on_puback(
        &mut self,
        ack: Ack,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<ClientEvent<'static>, ClientError> {
        self.finish(ack, PacketType::PubAck, Awaits::Acknowledgement, now, out)
    }

    fn on_pubcomp(
        &mut self,
        ack: Ack,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<ClientEvent<'static>, ClientError> {
        self.finish(ack, PacketType::PubComp, Awaits::Completion, now, out)
    }

    fn on_pubrec(
        &mut self,
        ack: Ack,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<ClientEvent<'static>, ClientError> {
        let position = self.session.position(ack.packet_id);
        let Some(outbound) = position.and_then(|at| self.session.outbound.get_mut(at)) else {
            // [MQTT-4.3.3-4] A PUBREC is answered; 0x92 says that the identifier is unknown.
            let reason = ReasonCode::PacketIdentifierNotFound;
            self.put_ack(PacketType::PubRel, ack.packet_id, reason, now, out);
            return Ok(ClientEvent::Handled(PacketType::PubRec));
        };
        if outbound.awaits == Awaits::Acknowledgement {
            return Err(ClientError::UnexpectedPacket(PacketType::PubRec));
        }
        if ack.reason.is_error() {
            // [MQTT-4.4.0-2] No PUBREL after a refusal; the identifier is free again.
            let awaits = outbound.awaits;
            return self.finish(ack, PacketType::PubRec, awaits, now, out);
        }
        // [MQTT-4.3.3-5] [MQTT-4.3.3-6] Not sent again from here on, only PUBREL.
        // [MQTT-4.6.0-4] [v3.1.1 MQTT-4.6.0-4] PUBRELs leave as the PUBRECs come.
        outbound.awaits = Awaits::Completion;
        outbound.packet = Vec::new();
        self.put_ack(
            PacketType::PubRel,
            ack.packet_id,
            ReasonCode::Success,
            now,
            out,
        );
        Ok(ClientEvent::Received(ack.packet_id))
    }

    fn on_pubrel(
        &mut self,
        ack: &Ack,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<ClientEvent<'static>, ClientError> {
        let reason = if self.session.received_qos2.remove(&ack.packet_id) {
            self.received_open = self.received_open.saturating_sub(1);
            ReasonCode::Success
        } else {
            ReasonCode::PacketIdentifierNotFound
        };
        // [MQTT-4.3.3-11] [v3.1.1 MQTT-4.3.3-2]
        self.put_ack(PacketType::PubComp, ack.packet_id, reason, now, out);
        Ok(ClientEvent::Handled(PacketType::PubRel))
    }

    fn finish(
        &mut self,
        ack: Ack,
        packet_type: PacketType,
        awaited: Awaits,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<ClientEvent<'static>, ClientError> {
        let Some(at) = self.session.position(ack.packet_id) else {
            return Ok(ClientEvent::Handled(packet_type));
        };
        if self
            .session
            .outbound
            .get(at)
            .is_none_or(|outbound| outbound.awaits != awaited)
        {
            return Err(ClientError::UnexpectedPacket(packet_type));
        }
        let finished = self.session.outbound.remove(at);
        if finished.is_some_and(|outbound| outbound.takes_quota) {
            // [MQTT-4.9.0-1] The quota never goes above where it began.
            self.send_quota = self.send_quota.saturating_add(1).min(self.send_quota_max());
        }
        self.resend(now, out);
        let Ack {
            packet_id,
            reason,
            properties,
        } = ack;
        Ok(ClientEvent::Published {
            packet_id,
            reason,
            properties,
        })
    }

    /// Appends what is sent before closing because of `error`: a 5.0 DISCONNECT, or nothing.
    pub fn refuse(&mut self, error: &ClientError, now: Instant, out: &mut Vec<u8>) {
        let was_connected = self.phase == Phase::Connected
            || matches!(error, ClientError::SessionPresentWithoutState);
        self.phase = Phase::Closed;
        if self.version == Version::V5 && was_connected {
            let disconnect = Packet::Disconnect(Disconnect::new(error.reason_code()));
            let written = self.put(&disconnect, now, out);
            debug_assert!(
                written.is_ok(),
                "invariant: a DISCONNECT without properties fits"
            );
        }
    }

    /// When [`Self::on_timeout`] has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match (self.phase, self.ping_sent_at) {
            (Phase::AwaitingConnAck, _) => Some(self.started_at + self.timeouts.connack),
            (Phase::Connected, Some(at)) => Some(at + self.timeouts.ping),
            (Phase::Connected, None) if !self.keep_alive.is_zero() => {
                Some(self.last_sent_at + self.keep_alive)
            }
            _ => None,
        }
    }

    /// Sends PINGREQ when Keep Alive asks for it. [MQTT-3.1.2-20] [v3.1.1 MQTT-3.1.2-23]
    /// # Errors
    /// The Server did not answer in time.
    pub fn on_timeout(&mut self, now: Instant, out: &mut Vec<u8>) -> Result<(), ClientError> {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return Ok(());
        }
        if self.phase == Phase::AwaitingConnAck {
            return Err(ClientError::ConnAckTimeout);
        }
        if self.ping_sent_at.is_some() {
            return Err(ClientError::PingTimeout);
        }
        let written = self.put(&Packet::PingReq, now, out);
        debug_assert!(written.is_ok(), "invariant: a PINGREQ fits");
        self.ping_sent_at = Some(now);
        Ok(())
    }

    /// Waits no longer for the PINGRESP, because our own side does not read at the moment.
    pub fn forget_ping(&mut self, now: Instant) {
        self.ping_sent_at = None;
        self.last_sent_at = now;
    }

    fn send_quota_max(&self) -> u16 {
        self.announced
            .receive_maximum
            .map_or(u16::MAX, std::num::NonZeroU16::get)
    }

    fn put_ack(
        &mut self,
        packet_type: PacketType,
        packet_id: PacketIdentifier,
        reason: ReasonCode,
        now: Instant,
        out: &mut Vec<u8>,
    ) {
        let ack = Ack::new(packet_id, reason);
        let packet = match packet_type {
            PacketType::PubAck => Packet::PubAck(ack),
            PacketType::PubRec => Packet::PubRec(ack),
            PacketType::PubRel => Packet::PubRel(ack),
            _ => Packet::PubComp(ack),
        };
        let written = self.put(&packet, now, out);
        debug_assert!(
            written.is_ok(),
            "invariant: an acknowledgement without properties fits"
        );
    }

    fn put(
        &mut self,
        packet: &Packet<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        let start = out.len();
        packet::encode(packet, self.version, out)?;
        let maximum = self.announced.maximum_packet_size_bytes;
        let len = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
        // [MQTT-3.2.2-15] Nothing larger than the Server's Maximum Packet Size.
        if maximum.is_some_and(|maximum| len > maximum.get()) {
            out.truncate(start);
            return Err(SendError::PacketTooLarge);
        }
        self.last_sent_at = now;
        Ok(())
    }
}

/// Bytes of a 3.x CONNACK.
const OLD_CONNACK_LEN: usize = 4;

#[cfg(test)]
mod tests;
