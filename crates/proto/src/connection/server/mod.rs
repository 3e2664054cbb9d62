//! The Server's side of one Network Connection (sections 3.1, 4.9, 4.12, 4.13).
//!
//! Owns: which packet may come when, Topic Aliases, Maximum Packet Size and Receive Maximum both
//! ways, Keep Alive, the frame of an authentication exchange, what a refused peer is told.
//! Does not own: the decision on CONNECT and AUTH, the Session. Start reading at
//! [`ServerConnection::next_event`]. Invariant: nothing is written after DISCONNECT or a refusal.

mod send;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::error::ConnectionError;
use super::topic_alias::{InboundAliases, OutboundAliases};
use crate::packet::{
    self, Ack, Auth, Connect, Disconnect, Malformed, Packet, PacketType, Publish, ReasonCode,
    Subscribe, Unsubscribe,
};
use crate::{PacketIdentifier, Qos, Version};

/// What a listener allows a Connection and announces in CONNACK.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Largest packet accepted, in bytes, Fixed Header included.
    pub maximum_packet_size_bytes: u32,
    /// How many QoS 1 and 2 PUBLISH packets a 5.0 Client may have open.
    pub receive_maximum: u16,
    /// Largest Topic Alias accepted.
    pub topic_alias_maximum: u16,
    /// Most Topic Aliases used towards the Client, whatever it allows.
    pub topic_alias_maximum_out: u16,
    /// User Properties of one PUBLISH; other packets carry up to [`packet::USER_PROPERTIES_MAX`].
    pub user_properties_max: u32,
    /// Bytes of all properties of one PUBLISH.
    pub properties_bytes_max: usize,
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
    limits: Arc<ServerLimits>,
    version: Version,
    state: State,
    request_problem_information: bool,
    is_session_expiry_zero: bool,
    client_packet_size_max: u32,
    keep_alive_seconds: u16,
    deadline_base: Instant,
    authentication: Option<Box<Authentication>>,
    open_qos1: u16,
    /// Most Topic Aliases used towards the Client.
    outbound_aliases_max: u16,
    /// What most Connections do not need.
    seldom: Option<Box<Seldom>>,
    /// Bytes at the front of all Topic Names that the Client is not sent.
    hidden_topic_bytes: u16,
    /// The Topic Name of its last PUBLISH, if it is not long: the next one is likely to have the same.
    last_topic: String,
}

/// Made when a 5.0 Client publishes at QoS 2, a Topic Alias is used, a CONNECT cannot be read, or a PINGREQ follows one at
/// once.
#[derive(Debug, Default)]
struct Seldom {
    /// Level byte of a CONNECT that was refused for it.
    refused_level: Option<u8>,
    /// PINGRESP packets that wait for the CONNACK.
    pingresps_owed: u16,
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
    /// A Connection accepted at `now`, from which a CONNECT is awaited. The limits can be those of many.
    #[must_use]
    pub fn new(limits: impl Into<Arc<ServerLimits>>, now: Instant) -> Self {
        Self {
            limits: limits.into(),
            version: Version::V311,
            state: State::AwaitingConnect,
            request_problem_information: true,
            is_session_expiry_zero: true,
            client_packet_size_max: packet::PACKET_BYTES_MAX,
            keep_alive_seconds: 0,
            deadline_base: now,
            authentication: None,
            open_qos1: 0,
            outbound_aliases_max: 0,
            seldom: None,
            hidden_topic_bytes: 0,
            last_topic: String::new(),
        }
    }

    /// From now on `bytes` at the front of each Topic Name are left out: what all of them begin with, up to a `/`.
    pub const fn hide_topic_prefix(&mut self, bytes: u16) {
        self.hidden_topic_bytes = bytes;
    }

    /// Other limits count from now on; those that CONNACK announces are to be set before it is sent,
    /// and not after it, but for what the Client is not told: how much of properties a PUBLISH may hold.
    pub fn set_limits(&mut self, limits: Arc<ServerLimits>) {
        self.limits = limits;
    }

    /// Those that count.
    #[must_use]
    pub const fn limits(&self) -> &Arc<ServerLimits> {
        &self.limits
    }

    /// The version of the Client's CONNECT; 3.1.1 until there is one.
    #[must_use]
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The largest packet that is taken, in bytes.
    #[must_use]
    pub fn maximum_packet_size_bytes(&self) -> u32 {
        self.limits.maximum_packet_size_bytes
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
    #[inline]
    pub fn next_event<'a>(
        &'a mut self,
        input: &'a [u8],
        now: Instant,
    ) -> Result<Option<(Event<'a>, usize)>, ConnectionError> {
        if self.state == State::Closing {
            return Ok(None);
        }
        if self.state == State::Connected {
            if input.first().copied().is_some_and(is_publish) {
                let publish = self.next_publish(input, now)?;
                return Ok(publish.map(|(publish, used)| (Event::Publish(publish), used)));
            }
            if let Some((packet_type, packet_id)) = self.next_short_ack(input, now) {
                let ack = Ack::new(packet_id, ReasonCode::Success);
                let event = match packet_type {
                    PacketType::PubAck => Event::PubAck(ack),
                    PacketType::PubRec => Event::PubRec(ack),
                    PacketType::PubRel => Event::PubRel(ack),
                    _ => Event::PubComp(ack),
                };
                return Ok(Some((event, SHORT_ACK_BYTES)));
            }
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
            Packet::Publish(publish) => Event::Publish(self.on_publish(publish, false)?),
            Packet::PubAck(ack) => Event::PubAck(ack),
            Packet::PubRec(ack) => Event::PubRec(ack),
            Packet::PubRel(ack) => Event::PubRel(ack),
            Packet::PubComp(ack) => Event::PubComp(ack),
            Packet::Subscribe(subscribe) => Event::Subscribe(subscribe),
            Packet::Unsubscribe(unsubscribe) => Event::Unsubscribe(unsubscribe),
            Packet::PingReq => Event::PingReq,
            Packet::Connect(connect) => Event::Connect(self.on_connect(connect)?),
            Packet::Disconnect(disconnect) => Event::Disconnect(self.on_disconnect(disconnect)?),
            Packet::Auth(auth) => Event::Auth(self.on_auth(auth)?),
            Packet::ConnAck(_) | Packet::SubAck(_) | Packet::UnsubAck(_) | Packet::PingResp => {
                return Err(ConnectionError::ServerPacketFromClient(
                    packet.packet_type(),
                ));
            }
        };
        Ok(Some((event, used)))
    }

    /// The same of the PUBLISH at the front of `input`, once [`Self::is_connected`]: most of what comes, and an [`Event`] is a
    /// copy more. Before that nothing is taken.
    /// # Errors
    /// As of [`Self::next_event`].
    #[inline]
    pub fn next_publish<'a>(
        &'a mut self,
        input: &'a [u8],
        now: Instant,
    ) -> Result<Option<(Publish<'a>, usize)>, ConnectionError> {
        if self.state != State::Connected {
            return Ok(None);
        }
        let size_max = self.limits.maximum_packet_size_bytes;
        let decoded = packet::decode_publish(input, self.version, size_max, &self.last_topic)?;
        let Some((publish, is_last_topic, used)) = decoded else {
            return Ok(None);
        };
        // [MQTT-3.1.2-22] [v3.1.1 MQTT-3.1.2-24]
        self.deadline_base = now;
        if !is_last_topic {
            self.last_topic.clear();
            if publish.topic.len() <= LAST_TOPIC_BYTES_MAX {
                self.last_topic.push_str(publish.topic);
            }
        }
        let publish = self.on_publish(publish, is_last_topic)?;
        Ok(Some((publish, used)))
    }

    /// The same of the acknowledgement at the front of `input`, once [`Self::is_connected`], if it is one of
    /// [`SHORT_ACK_BYTES`]: of Success, whatever the version.
    #[inline]
    pub fn next_short_ack(
        &mut self,
        input: &[u8],
        now: Instant,
    ) -> Option<(PacketType, PacketIdentifier)> {
        let [first, 2, high, low, ..] = *input else {
            return None;
        };
        let packet_type = match first {
            0x40 => PacketType::PubAck,
            0x50 => PacketType::PubRec,
            0x62 => PacketType::PubRel,
            0x70 => PacketType::PubComp,
            _ => return None,
        };
        let packet_id = PacketIdentifier::new(u16::from_be_bytes([high, low]))?;
        if self.state != State::Connected {
            return None;
        }
        // [MQTT-3.1.2-22] [v3.1.1 MQTT-3.1.2-24]
        self.deadline_base = now;
        Some((packet_type, packet_id))
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
        self.keep_alive_seconds = connect.keep_alive_seconds;
        let properties = &connect.properties;
        self.request_problem_information = properties.request_problem_information;
        self.is_session_expiry_zero = properties.session_expiry_interval_seconds.unwrap_or(0) == 0;
        if let Some(size) = properties.maximum_packet_size_bytes {
            self.client_packet_size_max = size.get().min(packet::PACKET_BYTES_MAX);
        }
        // [MQTT-3.1.2-26] [MQTT-3.1.2-27]
        self.outbound_aliases_max = properties
            .topic_alias_maximum
            .min(self.limits.topic_alias_maximum_out);
        self.authentication = properties.authentication_method.clone().map(|method| {
            Box::new(Authentication {
                method,
                awaits_client: false,
            })
        });
        Ok(connect)
    }

    fn on_disconnect(&mut self, disconnect: Disconnect) -> Result<Disconnect, ConnectionError> {
        // [MQTT-3.14.2-1] The table says whose each Reason Code is.
        if !disconnect.reason.is_for_disconnect_of_client() {
            return Err(ConnectionError::ServerReasonFromClient(disconnect.reason));
        }
        // Section 3.14.2.2.2: an expiry that was zero stays zero.
        let asked_seconds = disconnect.session_expiry_interval_seconds.unwrap_or(0);
        if self.is_session_expiry_zero && asked_seconds != 0 {
            return Err(ConnectionError::SessionExpiryFromZero);
        }
        self.state = State::Closing;
        Ok(disconnect)
    }

    /// `is_last_topic` if `last_topic` is its Topic Name, and not in it.
    #[inline(always)]
    fn on_publish<'a>(
        &'a mut self,
        mut publish: Publish<'a>,
        is_last_topic: bool,
    ) -> Result<Publish<'a>, ConnectionError> {
        if self.version.has_properties() {
            self.check_properties(&publish)?;
        }
        if is_last_topic {
            publish.topic = &self.last_topic;
        }
        if let Some(alias) = publish.properties.topic_alias {
            // [MQTT-3.2.2-17] [MQTT-3.2.2-18] [MQTT-3.3.2-9] [MQTT-3.3.2-12]
            let maximum = self.limits.topic_alias_maximum;
            if alias > maximum {
                return Err(ConnectionError::TopicAliasAboveMaximum { maximum });
            }
            if publish.topic.is_empty() {
                publish.topic = self
                    .seldom
                    .as_ref()
                    .and_then(|seldom| seldom.inbound_aliases.resolve(alias))
                    .ok_or(ConnectionError::TopicAliasUnknown)?;
            } else {
                let seldom = self.seldom.get_or_insert_default();
                seldom.inbound_aliases.define(alias, publish.topic);
            }
        }
        Ok(publish)
    }

    fn check_properties(&mut self, publish: &Publish<'_>) -> Result<(), ConnectionError> {
        // [MQTT-3.3.4-6]
        if publish.properties.has_subscription_identifier {
            return Err(ConnectionError::SubscriptionIdentifierFromClient);
        }
        let properties = &publish.properties;
        if properties.user_property_count > self.limits.user_properties_max
            || properties.len_bytes() > self.limits.properties_bytes_max
        {
            return Err(ConnectionError::TooManyProperties);
        }
        self.count_open(publish)
    }

    /// The PUBLISH with this QoS and Packet Identifier that was just taken is not handled yet: it will be given again.
    pub fn take_back(&mut self, qos: Qos, packet_id: Option<PacketIdentifier>) {
        if !self.version.has_properties() {
            return;
        }
        match (qos, packet_id) {
            (Qos::AtLeastOnce, _) => self.open_qos1 = self.open_qos1.saturating_sub(1),
            (Qos::ExactlyOnce, Some(packet_id)) => self.close_qos2(packet_id),
            _ => {}
        }
    }

    /// The handshake of this identifier counts no longer.
    fn close_qos2(&mut self, packet_id: PacketIdentifier) {
        if let Some(seldom) = &mut self.seldom {
            seldom.open_qos2.remove(&packet_id.get());
        }
    }

    /// [MQTT-3.3.4-7] The Client keeps to the Receive Maximum we announced.
    fn count_open(&mut self, publish: &Publish<'_>) -> Result<(), ConnectionError> {
        match (publish.qos, publish.packet_id) {
            (Qos::AtLeastOnce, _) => self.open_qos1 = self.open_qos1.saturating_add(1),
            (Qos::ExactlyOnce, Some(packet_id)) => {
                let seldom = self.seldom.get_or_insert_default();
                seldom.open_qos2.insert(packet_id.get());
            }
            _ => return Ok(()),
        }
        let maximum = self.limits.receive_maximum;
        let open_qos2 = self
            .seldom
            .as_ref()
            .map_or(0, |seldom| seldom.open_qos2.len());
        if usize::from(self.open_qos1) + open_qos2 > usize::from(maximum) {
            return Err(ConnectionError::ReceiveMaximumExceeded { maximum });
        }
        Ok(())
    }

    /// A PUBLISH of this QoS that [`Self::next_event`] has just given is not taken now: it will be given again, and then
    /// counts anew.
    pub const fn put_back(&mut self, qos: Qos) {
        // At QoS 2 the identifier counts, however often it comes.
        if matches!(qos, Qos::AtLeastOnce) {
            self.open_qos1 = self.open_qos1.saturating_sub(1);
        }
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
            State::Connected if self.keep_alive_seconds > 0 => {
                let keep_alive_ms = u64::from(self.keep_alive_seconds) * 1000;
                Some(self.deadline_base + Duration::from_millis(keep_alive_ms + keep_alive_ms / 2))
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
        let level = rest.get(usize::from(u16::from_be_bytes(*name_len)));
        if level == Some(&Version::V5.level()) {
            self.version = Version::V5;
        }
        self.seldom.get_or_insert_default().refused_level = level.copied();
    }
}

/// Whether a packet that begins so is a PUBLISH.
#[must_use]
pub const fn is_publish(first_byte: u8) -> bool {
    first_byte >> 4 == PacketType::Publish as u8
}

/// Bytes of an acknowledgement that says nothing but its Packet Identifier; no Maximum Packet Size is smaller.
pub const SHORT_ACK_BYTES: usize = 4;
/// A longer Topic Name is looked at each time it comes.
const LAST_TOPIC_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests;
