//! The Server's side of one Network Connection (sections 3.1, 4.9, 4.12, 4.13).
//!
//! Owns: which packet may come when, Topic Aliases, Maximum Packet Size and Receive Maximum both
//! ways, Keep Alive, the frame of an authentication exchange, what a refused peer is told.
//! Does not own: the decision on CONNECT and AUTH, the Session. Start reading at
//! [`ServerConnection::next_event`]. Invariant: nothing is written after DISCONNECT or a refusal.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::error::ConnectionError;
use super::outgoing::{Delivery, Outgoing};
use super::topic_alias::{InboundAliases, OutboundAliases};
use crate::message::SHARED_PAYLOAD_BYTES_MIN;
use crate::packet::{
    self, Ack, Auth, ConnAck, Connect, Disconnect, Malformed, OutgoingPublish, Packet, PacketType,
    Publish, ReasonCode, Subscribe, TopicAliasUse, Unsubscribe,
};
use crate::{Qos, Version};

/// What a listener allows a Connection and announces in CONNACK.
#[derive(Clone, Copy, Debug)]
pub struct ServerLimits {
    /// Largest packet accepted, in bytes, Fixed Header included.
    pub maximum_packet_size_bytes: u32,
    /// How many QoS 1 and 2 PUBLISH packets a 5.0 Client may have open.
    pub receive_maximum: u16,
    /// Largest Topic Alias accepted, and most aliases used towards the Client.
    pub topic_alias_maximum: u16,
    /// Time from accepting the socket to the CONNACK.
    pub connect_timeout: Duration,
}

/// What a complete packet of the Client means to the Server. Topic Aliases are resolved.
#[derive(Debug)]
#[allow(missing_docs, reason = "the names are the standard's")]
pub enum Event<'a> {
    Connect(Box<Connect>),
    Publish(Publish<'a>),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    Subscribe(Subscribe<'a>),
    Unsubscribe(Unsubscribe<'a>),
    PingReq,
    Disconnect(Disconnect),
    Auth(Box<Auth>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    AwaitingConnect,
    /// CONNECT was taken; CONNACK is not sent yet.
    AwaitingConnAck,
    Connected,
    /// DISCONNECT was received or sent, or the peer was refused.
    Closing,
}

/// One Network Connection as the Server sees it.
#[derive(Debug)]
pub struct ServerConnection {
    limits: ServerLimits,
    version: Version,
    state: State,
    /// Level byte of a CONNECT that was refused for it.
    refused_level: Option<u8>,
    request_problem_information: bool,
    client_packet_size_max: u32,
    keep_alive: Duration,
    deadline_base: Instant,
    authentication: Option<Box<Authentication>>,
    open_qos1: u16,
    open_qos2: BTreeSet<u16>,
    inbound_aliases: InboundAliases,
    outbound_aliases: OutboundAliases,
}

#[derive(Debug)]
struct Authentication {
    method: String,
    /// Whether our AUTH 0x18 waits for the Client's answer.
    awaits_client: bool,
}

impl ServerConnection {
    /// A Connection accepted at `now`, from which a CONNECT is awaited.
    #[must_use]
    pub const fn new(limits: ServerLimits, now: Instant) -> Self {
        Self {
            limits,
            version: Version::V311,
            state: State::AwaitingConnect,
            refused_level: None,
            request_problem_information: true,
            client_packet_size_max: u32::MAX,
            keep_alive: Duration::ZERO,
            deadline_base: now,
            authentication: None,
            open_qos1: 0,
            open_qos2: BTreeSet::new(),
            inbound_aliases: InboundAliases::EMPTY,
            outbound_aliases: OutboundAliases::new(0),
        }
    }

    /// The version of the Client's CONNECT; 3.1.1 until there is one.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// Whether a CONNACK with Success was sent and nothing has ended the Connection since.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.state == State::Connected
    }

    /// Takes one packet from the front of `input`: what it means and the bytes it used, or `None` if
    /// more bytes are needed. After an error or a DISCONNECT, call it no more.
    /// # Errors
    /// The peer broke a rule: send what [`Self::refuse`] writes, then close, [MQTT-4.13.1-1],
    /// [v3.1.1 MQTT-4.8.0-1].
    pub fn next_event<'a>(
        &'a mut self,
        input: &'a [u8],
        now: Instant,
    ) -> Result<Option<(Event<'a>, usize)>, ConnectionError> {
        if self.state == State::Closing {
            return Ok(None);
        }
        self.check_packet_type(input)?;
        let decoded = packet::decode(input, self.version, self.limits.maximum_packet_size_bytes);
        let decoded = match decoded {
            Ok(decoded) => decoded,
            Err(malformed) => {
                self.sniff_connect(input);
                return Err(malformed.into());
            }
        };
        let Some((packet, used)) = decoded else {
            return Ok(None);
        };
        // [MQTT-3.1.2-22] [v3.1.1 MQTT-3.1.2-24] Only a complete packet shows life.
        if self.state == State::Connected {
            self.deadline_base = now;
        }
        let event = match packet {
            Packet::Publish(publish) => Event::Publish(self.on_publish(publish)?),
            Packet::PubAck(ack) => Event::PubAck(ack),
            Packet::PubRec(ack) => Event::PubRec(ack),
            Packet::PubRel(ack) => Event::PubRel(ack),
            Packet::PubComp(ack) => Event::PubComp(ack),
            Packet::Subscribe(subscribe) => Event::Subscribe(subscribe),
            Packet::Unsubscribe(unsubscribe) => Event::Unsubscribe(unsubscribe),
            Packet::PingReq => Event::PingReq,
            Packet::Connect(connect) => Event::Connect(self.on_connect(connect)?),
            Packet::Disconnect(disconnect) => {
                self.state = State::Closing;
                Event::Disconnect(disconnect)
            }
            Packet::Auth(auth) => Event::Auth(self.on_auth(auth)?),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                return Err(ConnectionError::ServerPacketFromClient(
                    packet.packet_type(),
                ));
            }
        };
        Ok(Some((event, used)))
    }

    /// Refuses by the first byte alone what may not come now, before anything else is believed.
    fn check_packet_type(&self, input: &[u8]) -> Result<(), ConnectionError> {
        let Some(first_byte) = input.first() else {
            return Ok(());
        };
        let packet_type =
            PacketType::from_first_byte(*first_byte).ok_or(Malformed::ReservedPacketType)?;
        match (self.state, packet_type) {
            (State::AwaitingConnect, PacketType::Connect) => Ok(()),
            // [MQTT-3.1.0-1] [v3.1.1 MQTT-3.1.0-1]
            (State::AwaitingConnect, _) => Err(ConnectionError::FirstPacketNotConnect),
            // [MQTT-3.1.0-2] [v3.1.1 MQTT-3.1.0-2]
            (_, PacketType::Connect) => Err(ConnectionError::SecondConnect),
            (
                _,
                PacketType::ConnAck
                | PacketType::SubAck
                | PacketType::UnsubAck
                | PacketType::PingResp,
            ) => Err(ConnectionError::ServerPacketFromClient(packet_type)),
            (_, PacketType::Auth | PacketType::Disconnect) => Ok(()),
            // [MQTT-3.1.2-30]
            (State::AwaitingConnAck, _) if self.authentication.is_some() => {
                Err(ConnectionError::PacketDuringAuthentication(packet_type))
            }
            _ => Ok(()),
        }
    }

    fn on_connect(&mut self, connect: Box<Connect>) -> Result<Box<Connect>, ConnectionError> {
        self.version = connect.version;
        self.state = State::AwaitingConnAck;
        self.keep_alive = Duration::from_secs(u64::from(connect.keep_alive_seconds));
        let properties = &connect.properties;
        self.request_problem_information = properties.request_problem_information;
        if let Some(size) = properties.maximum_packet_size_bytes {
            self.client_packet_size_max = size.get();
        }
        // [MQTT-3.1.2-26] [MQTT-3.1.2-27]
        let aliases = properties
            .topic_alias_maximum
            .min(self.limits.topic_alias_maximum);
        self.outbound_aliases = OutboundAliases::new(aliases);
        self.authentication = properties.authentication_method.clone().map(|method| {
            Box::new(Authentication {
                method,
                awaits_client: false,
            })
        });
        Ok(connect)
    }

    fn on_publish<'a>(
        &'a mut self,
        mut publish: Publish<'a>,
    ) -> Result<Publish<'a>, ConnectionError> {
        if !self.version.has_properties() {
            return Ok(publish);
        }
        // [MQTT-3.3.4-6]
        if publish.properties.has_subscription_identifier {
            return Err(ConnectionError::SubscriptionIdentifierFromClient);
        }
        self.count_open(&publish)?;
        if let Some(alias) = publish.properties.topic_alias {
            // [MQTT-3.2.2-17] [MQTT-3.2.2-18] [MQTT-3.3.2-9] [MQTT-3.3.2-12]
            let maximum = self.limits.topic_alias_maximum;
            if alias > maximum {
                return Err(ConnectionError::TopicAliasAboveMaximum { maximum });
            }
            if publish.topic.is_empty() {
                publish.topic = self
                    .inbound_aliases
                    .resolve(alias)
                    .ok_or(ConnectionError::TopicAliasUnknown)?;
            } else {
                self.inbound_aliases.define(alias, publish.topic);
            }
        }
        Ok(publish)
    }

    /// [MQTT-3.3.4-7] The Client keeps to the Receive Maximum we announced.
    fn count_open(&mut self, publish: &Publish<'_>) -> Result<(), ConnectionError> {
        match (publish.qos, publish.packet_id) {
            (Qos::AtLeastOnce, _) => self.open_qos1 = self.open_qos1.saturating_add(1),
            (Qos::ExactlyOnce, Some(packet_id)) => {
                self.open_qos2.insert(packet_id.get());
            }
            _ => return Ok(()),
        }
        let maximum = self.limits.receive_maximum;
        if usize::from(self.open_qos1) + self.open_qos2.len() > usize::from(maximum) {
            return Err(ConnectionError::ReceiveMaximumExceeded { maximum });
        }
        Ok(())
    }

    fn on_auth(&mut self, auth: Box<Auth>) -> Result<Box<Auth>, ConnectionError> {
        // [MQTT-4.12.0-7]
        let exchange = self
            .authentication
            .as_mut()
            .ok_or(ConnectionError::AuthWithoutMethod)?;
        // [MQTT-4.12.0-5] [MQTT-4.12.1-1]
        if auth.method.as_deref() != Some(exchange.method.as_str()) {
            return Err(ConnectionError::AuthMethodChanged);
        }
        let fits = match auth.reason {
            // [MQTT-4.12.0-3]
            ReasonCode::ContinueAuthentication => std::mem::take(&mut exchange.awaits_client),
            // [MQTT-4.12.1-1]
            ReasonCode::ReAuthenticate => self.state == State::Connected && !exchange.awaits_client,
            _ => false,
        };
        if fits {
            Ok(auth)
        } else {
            Err(ConnectionError::AuthReasonCode)
        }
    }

    /// When [`Self::on_timeout`] has something to say: the time for CONNECT, then one and a half Keep
    /// Alive times after the last complete packet; `None` if Keep Alive is off.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::AwaitingConnect | State::AwaitingConnAck => {
                Some(self.deadline_base + self.limits.connect_timeout)
            }
            State::Connected if !self.keep_alive.is_zero() => {
                Some(self.deadline_base + self.keep_alive.mul_f32(1.5))
            }
            State::Connected | State::Closing => None,
        }
    }

    /// The error that is due at `now`, if a deadline has passed.
    #[must_use]
    pub fn on_timeout(&self, now: Instant) -> Option<ConnectionError> {
        if self.poll_timeout()? > now {
            return None;
        }
        Some(if self.state == State::Connected {
            ConnectionError::KeepAliveTimeout
        } else {
            ConnectionError::ConnectTimeout
        })
    }

    /// Appends `packet` to `out` as this Client's version writes it. Reason String and User Properties
    /// are left out where the Client did not ask for them or has no room. Returns whether anything was
    /// written: not if the packet is too large for the Client, or its version has no such packet.
    pub fn send(&mut self, packet: &Outgoing, now: Instant, out: &mut Vec<u8>) -> bool {
        if self.state == State::Closing {
            return false;
        }
        match packet {
            Outgoing::Publish(delivery) => {
                let start = out.len();
                if let Some(payload) = self.send_publish(delivery, now, out) {
                    out.extend_from_slice(&payload);
                }
                out.len() > start
            }
            Outgoing::PingResp => packet::encode(&Packet::PingResp, self.version, out).is_ok(),
            Outgoing::ConnAck(connack) => self.send_connack(connack, now, out),
            Outgoing::PubAck(ack) => {
                self.open_qos1 = self.open_qos1.saturating_sub(1);
                self.send_ack(Packet::PubAck, ack, out)
            }
            Outgoing::PubRec(ack) => {
                if ack.reason.is_error() {
                    self.open_qos2.remove(&ack.packet_id.get());
                }
                self.send_ack(Packet::PubRec, ack, out)
            }
            Outgoing::PubRel(ack) => self.send_ack(Packet::PubRel, ack, out),
            Outgoing::PubComp(ack) => {
                self.open_qos2.remove(&ack.packet_id.get());
                self.send_ack(Packet::PubComp, ack, out)
            }
            Outgoing::SubAck(suback) => self.send_with_fallback(
                || Packet::SubAck(suback.clone()),
                || {
                    Packet::SubAck(packet::SubAck {
                        properties: None,
                        ..suback.clone()
                    })
                },
                out,
            ),
            Outgoing::UnsubAck(unsuback) => self.send_with_fallback(
                || Packet::UnsubAck(unsuback.clone()),
                || {
                    Packet::UnsubAck(packet::UnsubAck {
                        properties: None,
                        ..unsuback.clone()
                    })
                },
                out,
            ),
            Outgoing::Disconnect(disconnect) => self.send_disconnect(disconnect, out),
            Outgoing::Auth(auth) => self.send_auth(auth, out),
        }
    }

    /// Appends a PUBLISH to `out`, all but a large payload that is already shared, which is returned
    /// and must follow at once on the wire. Nothing is written if the packet is too large.
    pub fn send_publish(
        &mut self,
        delivery: &Delivery,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Option<Bytes> {
        if self.state == State::Closing {
            return None;
        }
        let message = &*delivery.message;
        let has_properties = self.version.has_properties();
        let mut publish = OutgoingPublish {
            message,
            dup: delivery.dup,
            qos: delivery.qos,
            retain: delivery.retain,
            packet_id: delivery.packet_id,
            topic_alias: None,
            message_expiry_interval_seconds: if has_properties {
                message.remaining_expiry_seconds(now)
            } else {
                None
            },
            subscription_identifiers: delivery.subscription_identifiers.as_deref().unwrap_or(&[]),
        };
        if has_properties {
            self.add_topic_alias(&mut publish);
        }
        // [MQTT-3.1.2-24]
        let fits = publish.encoded_len(self.version) <= self.client_packet_size_max;
        if !fits || publish.put_head(self.version, out).is_err() {
            return None;
        }
        match message.shared_payload() {
            Some(payload) if payload.len() >= SHARED_PAYLOAD_BYTES_MIN => Some(payload.clone()),
            _ => {
                out.extend_from_slice(message.payload());
                None
            }
        }
    }

    fn add_topic_alias(&mut self, publish: &mut OutgoingPublish<'_>) {
        publish.topic_alias = self.outbound_aliases.assign(publish.message.topic());
        if let Some(TopicAliasUse::Define(alias)) = publish.topic_alias
            && publish.encoded_len(self.version) > self.client_packet_size_max
        {
            self.outbound_aliases.forget(alias);
            publish.topic_alias = None;
        }
    }

    fn send_connack(&mut self, connack: &ConnAck, now: Instant, out: &mut Vec<u8>) -> bool {
        // [MQTT-3.2.0-2] Never a second one.
        if self.state != State::AwaitingConnAck {
            return false;
        }
        let accepted = connack.reason == ReasonCode::Success;
        // [MQTT-3.2.2-7] [v3.1.1 MQTT-3.2.2-5] After a refusal the Connection closes.
        self.state = if accepted {
            State::Connected
        } else {
            State::Closing
        };
        self.deadline_base = now;
        // [MQTT-3.1.2-21] [MQTT-3.2.2-21] [MQTT-3.2.2-22]
        if let Some(seconds) = connack.properties.server_keep_alive_seconds {
            self.keep_alive = Duration::from_secs(u64::from(seconds));
        }
        self.write_with_fallback(
            &Packet::ConnAck(Box::new(connack.clone())),
            || {
                let mut small = connack.clone();
                // [MQTT-3.2.2-19] [MQTT-3.2.2-20]
                small.properties.reason_string = None;
                small.properties.user_properties.clear();
                Packet::ConnAck(Box::new(small))
            },
            out,
        )
    }

    fn send_ack(
        &self,
        packet: impl Fn(Ack) -> Packet<'static>,
        ack: &Ack,
        out: &mut Vec<u8>,
    ) -> bool {
        let bare = || packet(Ack::new(ack.packet_id, ack.reason));
        if ack.properties.is_none() {
            return self.write(&bare(), out);
        }
        self.send_with_fallback(|| packet(ack.clone()), bare, out)
    }

    /// [MQTT-3.1.2-29] Problem information goes only to Clients that want it.
    fn send_with_fallback<'a>(
        &self,
        full: impl FnOnce() -> Packet<'a>,
        bare: impl FnOnce() -> Packet<'a>,
        out: &mut Vec<u8>,
    ) -> bool {
        if self.request_problem_information {
            self.write_with_fallback(&full(), bare, out)
        } else {
            self.write(&bare(), out)
        }
    }

    /// [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-2] [MQTT-3.5.2-3] [MQTT-3.6.2-2] [MQTT-3.6.2-3]
    /// [MQTT-3.7.2-2] [MQTT-3.7.2-3] [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2]
    /// [MQTT-3.14.2-3] [MQTT-3.14.2-4] [MQTT-3.15.2-2] [MQTT-3.15.2-3]: what would make the packet too
    /// large is left out.
    fn write_with_fallback<'a>(
        &self,
        full: &Packet<'_>,
        bare: impl FnOnce() -> Packet<'a>,
        out: &mut Vec<u8>,
    ) -> bool {
        self.write(full, out) || self.write(&bare(), out)
    }

    /// [MQTT-3.1.2-24] Writes nothing that exceeds the Client's Maximum Packet Size.
    fn write(&self, packet: &Packet<'_>, out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let written = packet::encode(packet, self.version, out).is_ok();
        let len = u32::try_from(out.len() - start).unwrap_or(u32::MAX);
        if !written || len > self.client_packet_size_max {
            out.truncate(start);
            return false;
        }
        true
    }

    fn send_disconnect(&mut self, disconnect: &Disconnect, out: &mut Vec<u8>) -> bool {
        // [MQTT-3.14.0-1] Only after a CONNACK; 3.x has no DISCONNECT from the Server.
        let may_send = self.state == State::Connected && self.version.has_properties();
        // [MQTT-3.14.4-1]
        self.state = State::Closing;
        may_send
            && self.write_with_fallback(
                &Packet::Disconnect(disconnect.clone()),
                || {
                    Packet::Disconnect(Disconnect {
                        reason_string: None,
                        user_properties: packet::UserProperties::new(),
                        ..disconnect.clone()
                    })
                },
                out,
            )
    }

    fn send_auth(&mut self, auth: &Auth, out: &mut Vec<u8>) -> bool {
        // [MQTT-4.12.0-6] No AUTH to a Client that named no method.
        let Some(exchange) = self.authentication.as_mut() else {
            return false;
        };
        // [MQTT-4.12.0-2]
        exchange.awaits_client = auth.reason == ReasonCode::ContinueAuthentication;
        self.send_with_fallback(
            || Packet::Auth(Box::new(auth.clone())),
            || {
                Packet::Auth(Box::new(Auth {
                    reason_string: None,
                    user_properties: packet::UserProperties::new(),
                    ..auth.clone()
                }))
            },
            out,
        )
    }

    /// Appends what the peer is told before the Connection closes because of `error`: CONNACK or
    /// DISCONNECT with Reason Code and Reason String (5.0), a CONNACK return code (3.x, where there is
    /// one), or nothing. Whatever is still to be sent for earlier packets must be sent before.
    pub fn refuse(&mut self, error: &ConnectionError, out: &mut Vec<u8>) {
        let reason = error.reason_code();
        match self.state {
            State::Closing => {}
            State::AwaitingConnect => self.refuse_unread(error, out),
            State::AwaitingConnAck => self.write_refusal(error, out),
            State::Connected => {
                let mut disconnect = Disconnect::new(reason);
                disconnect.reason_string = Some(self.reason_string(error));
                self.send_disconnect(&disconnect, out);
            }
        }
        self.state = State::Closing;
    }

    /// Refuses before a CONNECT was understood.
    fn refuse_unread(&mut self, error: &ConnectionError, out: &mut Vec<u8>) {
        match (error, self.refused_level) {
            (ConnectionError::ConnectTimeout | ConnectionError::FirstPacketNotConnect, _)
            | (ConnectionError::Malformed(Malformed::ProtocolName), _)
            | (_, None) => {}
            (ConnectionError::Malformed(Malformed::ProtocolVersion), Some(level)) => {
                // [MQTT-3.1.2-2] from version 6 on; [v3.1.1 MQTT-3.1.2-2] for all others.
                self.version = if (6..0x80).contains(&level) {
                    Version::V5
                } else {
                    Version::V311
                };
                let connack = ConnAck::refusal(ReasonCode::UnsupportedProtocolVersion);
                self.write(&Packet::ConnAck(Box::new(connack)), out);
            }
            // [v3.1.1 MQTT-3.1.4-1] A 3.x CONNECT that does not conform gets no CONNACK.
            (_, Some(level)) if level == Version::V5.level() => {
                self.version = Version::V5;
                self.write_refusal(error, out);
            }
            _ => {}
        }
    }

    fn write_refusal(&self, error: &ConnectionError, out: &mut Vec<u8>) {
        let mut reason = error.reason_code();
        // [MQTT-3.2.2-8] Only a Connect Reason Code stands in CONNACK.
        if !reason.is_allowed_in(PacketType::ConnAck) {
            reason = ReasonCode::UnspecifiedError;
        }
        let bare = ConnAck::refusal(reason);
        let mut connack = bare.clone();
        connack.properties.reason_string = Some(self.reason_string(error));
        self.write_with_fallback(
            &Packet::ConnAck(Box::new(connack)),
            || Packet::ConnAck(Box::new(bare)),
            out,
        );
    }

    fn reason_string(&self, error: &ConnectionError) -> String {
        let statement = error.statement(self.version);
        if statement.is_empty() {
            error.to_string()
        } else {
            format!("{error} [{statement}]")
        }
    }

    /// Remembers the level of a CONNECT that could not be read, for the answer to it.
    fn sniff_connect(&mut self, input: &[u8]) {
        if self.state != State::AwaitingConnect {
            return;
        }
        let Ok(Some((_, header_len, _))) = packet::fixed_header(input, u32::MAX) else {
            return;
        };
        let body = input.get(header_len..).unwrap_or_default();
        let Some((name_len, rest)) = body.split_first_chunk::<2>() else {
            return;
        };
        self.refused_level = rest
            .get(usize::from(u16::from_be_bytes(*name_len)))
            .copied();
        if self.refused_level == Some(Version::V5.level()) {
            self.version = Version::V5;
        }
    }
}
