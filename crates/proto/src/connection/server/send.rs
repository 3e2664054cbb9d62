//! The sending side of a [`ServerConnection`]: packets as the Client's version and limits allow them.
//!
//! Owns: what is left out for a Client's Maximum Packet Size and Request Problem Information, what a
//! refused peer is told. Does not own: the receiving rules (see the parent).
//! Start reading at [`ServerConnection::send`]. Invariant: nothing is written once the state is Closing.

use std::time::Instant;

use bytes::Bytes;

use super::{OutboundAliases, ServerConnection, State};
use crate::Version;
use crate::connection::{ConnectionError, DeliveryRef, Outgoing};
use crate::message::SHARED_PAYLOAD_BYTES_MIN;
use crate::packet::{
    self, Ack, Auth, ConnAck, Disconnect, EncodeError, Malformed, OutgoingPublish, Packet,
    PacketType, ReasonCode, TopicAliasUse,
};

impl ServerConnection {
    /// Appends `packet` to `out` as this Client's version writes it. Reason String and User Properties
    /// are left out where the Client did not ask for them or has no room. Returns whether anything was
    /// written: not if the packet is too large for the Client, or its version has no such packet.
    pub fn send(&mut self, packet: &Outgoing, now: Instant, out: &mut Vec<u8>) -> bool {
        if !self.may_send(packet) {
            return false;
        }
        match packet {
            Outgoing::Publish(delivery) => {
                let start = out.len();
                if let Some(payload) = self.send_publish(delivery.into(), now, out) {
                    out.extend_from_slice(&payload);
                }
                out.len() > start
            }
            Outgoing::PingResp => self.send_pingresp(out),
            Outgoing::ConnAck(connack) => self.send_connack(connack, now, out),
            Outgoing::PubAck(ack) => {
                self.open_qos1 = self.open_qos1.saturating_sub(1);
                self.send_ack(PacketType::PubAck, ack, out)
            }
            Outgoing::PubRec(ack) => {
                if ack.reason.is_error() {
                    self.close_qos2(ack.packet_id);
                }
                self.send_ack(PacketType::PubRec, ack, out)
            }
            Outgoing::PubRel(ack) => self.send_ack(PacketType::PubRel, ack, out),
            Outgoing::PubComp(ack) => {
                self.close_qos2(ack.packet_id);
                self.send_ack(PacketType::PubComp, ack, out)
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

    /// [MQTT-3.2.0-1] Before the CONNACK only AUTH goes out; a PINGRESP is kept until then.
    const fn may_send(&self, packet: &Outgoing) -> bool {
        match self.state {
            State::Connected => true,
            State::AwaitingConnAck => matches!(
                packet,
                Outgoing::ConnAck(_)
                    | Outgoing::Auth(_)
                    | Outgoing::Disconnect(_)
                    | Outgoing::PingResp
            ),
            State::AwaitingConnect => matches!(packet, Outgoing::Disconnect(_)),
            State::Closing => false,
        }
    }

    /// [MQTT-3.12.4-1] [v3.1.1 MQTT-3.12.4-1] The answer to PINGREQ.
    fn send_pingresp(&mut self, out: &mut Vec<u8>) -> bool {
        if self.state == State::AwaitingConnAck {
            let owed = &mut self.seldom.get_or_insert_default().pingresps_owed;
            *owed = owed.saturating_add(1);
            return false;
        }
        self.write(&Packet::PingResp, out)
    }

    /// Appends a PUBLISH to `out`, all but a large payload that is already shared, which is returned
    /// and must follow at once on the wire. Nothing is written if the packet is too large.
    pub fn send_publish(
        &mut self,
        delivery: DeliveryRef<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Option<Bytes> {
        // [MQTT-3.2.0-1]
        if self.state != State::Connected {
            return None;
        }
        let message = &**delivery.message;
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
            subscription_identifiers: delivery.subscription_identifiers.map_or(&[], |all| &**all),
            hidden_topic_bytes: self.hidden_topic_bytes,
        };
        if has_properties && self.outbound_aliases_max > 0 {
            self.add_topic_alias(&mut publish);
        }
        // [MQTT-3.1.2-24]
        let is_limited = self.client_packet_size_max < packet::PACKET_BYTES_MAX;
        let is_too_large =
            is_limited && publish.encoded_len(self.version) > self.client_packet_size_max;
        if is_too_large || publish.put_head(self.version, out).is_err() {
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
        let aliases = &mut self.seldom.get_or_insert_default().outbound_aliases;
        if !aliases.is_enabled() {
            *aliases = OutboundAliases::new(self.outbound_aliases_max);
        }
        publish.topic_alias = aliases.assign(publish.message.topic());
        if let Some(TopicAliasUse::Define(alias)) = publish.topic_alias
            && publish.encoded_len(self.version) > self.client_packet_size_max
        {
            aliases.forget(alias);
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
        // [MQTT-3.1.2-21] [MQTT-3.2.2-21] [MQTT-3.2.2-22] A 3.x Client is not told, so its own holds.
        if let Some(seconds) = connack.properties.server_keep_alive_seconds
            && self.version.has_properties()
        {
            self.keep_alive_seconds = seconds;
        }
        let is_written = self.write_with_fallback(
            &Packet::ConnAck(Box::new(connack.clone())),
            || {
                let mut small = connack.clone();
                // [MQTT-3.2.2-19] [MQTT-3.2.2-20]
                small.properties.reason_string = None;
                small.properties.user_properties.clear();
                Packet::ConnAck(Box::new(small))
            },
            out,
        );
        // [MQTT-3.2.0-1] A Client with no room for the CONNACK gets nothing else.
        if !is_written {
            self.state = State::Closing;
        }
        let seldom = self.seldom.as_mut();
        let owed = seldom.map_or(0, |seldom| std::mem::take(&mut seldom.pingresps_owed));
        for _ in 0..owed {
            if self.state == State::Connected {
                self.send_pingresp(out);
            }
        }
        is_written
    }

    fn send_ack(&self, packet_type: PacketType, ack: &Ack, out: &mut Vec<u8>) -> bool {
        // [MQTT-3.1.2-29]
        let may_explain = ack.properties.is_none() || self.request_problem_information;
        let bare = Ack::new(ack.packet_id, ack.reason);
        (may_explain && self.write_ack(packet_type, ack, out))
            || self.write_ack(packet_type, &bare, out)
    }

    fn write_ack(&self, packet_type: PacketType, ack: &Ack, out: &mut Vec<u8>) -> bool {
        self.write_with(out, |out| ack.put(packet_type, self.version, out))
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
        self.write_with(out, |out| packet::encode(packet, self.version, out))
    }

    fn write_with(
        &self,
        out: &mut Vec<u8>,
        put: impl FnOnce(&mut Vec<u8>) -> Result<(), EncodeError>,
    ) -> bool {
        let start = out.len();
        let written = put(out).is_ok();
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
        let mut reason = error.reason_code();
        // [MQTT-3.14.2-1] Only a Disconnect Reason Code stands in DISCONNECT.
        if !reason.is_allowed_in(PacketType::Disconnect) {
            reason = ReasonCode::UnspecifiedError;
        }
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
        let refused_level = self.seldom.as_ref().and_then(|seldom| seldom.refused_level);
        match (error, refused_level) {
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
}
