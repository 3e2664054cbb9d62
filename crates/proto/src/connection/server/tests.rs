//! The Server's side of a connection, driven by hand.
//!
//! Owns: a Client played by bytes. Does not own: sockets. Start reading at [`Peer`].
//! Invariant: time moves only when a test moves it.

use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;

use bytes::Bytes;

use super::*;
use crate::Message;
use crate::connection::{Delivery, Outgoing};
use crate::packet::{
    ConnAck, ConnAckProperties, Property, ReasonProperties, SubAck, SubscriptionOptions,
    SubscriptionRequest, UnsubAck,
};
use crate::testing::{bytes, id, publish, raw};

const LIMITS: ServerLimits = ServerLimits {
    maximum_packet_size_bytes: 1000,
    receive_maximum: 2,
    topic_alias_maximum: 2,
    topic_alias_maximum_out: 3,
    user_properties_max: 3,
    properties_bytes_max: 100,
    connect_timeout: Duration::from_secs(10),
};

/// A Server's connection with a clock of its own.
struct Peer {
    server: ServerConnection,
    now: Instant,
    out: Vec<u8>,
}

#[allow(
    clippy::disallowed_methods,
    reason = "any instant will do to start from"
)]
fn start() -> Instant {
    Instant::now()
}

fn connect(version: Version) -> Connect {
    Connect::new(version, "c")
}

fn accepted() -> ConnAck {
    ConnAck::refusal(ReasonCode::Success)
}

impl Peer {
    fn new() -> Self {
        let now = start();
        Self {
            server: ServerConnection::new(LIMITS, now),
            now,
            out: Vec::new(),
        }
    }

    /// A Client that sent this CONNECT and waits for the CONNACK.
    fn awaiting(connect: Connect) -> Self {
        let mut peer = Self::new();
        let version = connect.version;
        let input = bytes(&Packet::Connect(Box::new(connect)), version);
        assert_eq!(peer.receive(&input).unwrap(), "CONNECT");
        peer
    }

    fn connected(connect: Connect) -> Self {
        let mut peer = Self::awaiting(connect);
        peer.send(Outgoing::ConnAck(Box::new(accepted())));
        assert!(peer.server.is_connected());
        peer.out.clear();
        peer
    }

    fn v5() -> Self {
        Self::connected(connect(Version::V5))
    }

    fn v311() -> Self {
        Self::connected(connect(Version::V311))
    }

    fn later(&mut self, seconds: f64) {
        self.now += Duration::from_secs_f64(seconds);
    }

    /// Feeds one whole packet; what it was, with the topic of a PUBLISH.
    fn receive(&mut self, input: &[u8]) -> Result<String, ConnectionError> {
        let event = self.server.next_event(input, self.now)?;
        let (event, used) = event.expect("a whole packet");
        assert_eq!(used, input.len());
        Ok(match event {
            Event::Publish(publish) => format!("PUBLISH {}", publish.topic),
            Event::Connect(_) => "CONNECT".to_owned(),
            Event::Auth(auth) => format!("AUTH {:#04X}", auth.reason.value()),
            Event::PingReq => "PINGREQ".to_owned(),
            Event::Disconnect(_) => "DISCONNECT".to_owned(),
            other => format!("{other:?}"),
        })
    }

    /// Feeds one packet that must be refused; the error and what the Client is told.
    fn refused(&mut self, input: &[u8]) -> (ConnectionError, Vec<u8>) {
        let error = self.server.next_event(input, self.now).unwrap_err();
        self.out.clear();
        self.server.refuse(&error, &mut self.out);
        (error, std::mem::take(&mut self.out))
    }

    fn send(&mut self, packet: Outgoing) -> Vec<u8> {
        self.out.clear();
        let is_written = self.server.send(&packet, self.now, &mut self.out);
        assert_eq!(is_written, !self.out.is_empty());
        self.out.clone()
    }

    fn deliver(&mut self, topic: &str) -> Vec<u8> {
        let message = Message::new(
            topic,
            Bytes::from_static(b"x"),
            Qos::AtMostOnce,
            false,
            self.now,
        );
        self.send(Outgoing::Publish(delivery(message)))
    }
}

fn delivery(message: Message) -> Delivery {
    Delivery {
        message: Arc::new(message),
        dup: false,
        qos: Qos::AtMostOnce,
        retain: false,
        packet_id: None,
        subscription_identifiers: None,
    }
}

fn decoded(sent: &[u8], version: Version) -> Packet<'_> {
    let (packet, used) = packet::decode(sent, version, u32::MAX).unwrap().unwrap();
    assert_eq!(used, sent.len());
    packet
}

/// The Reason Code of a CONNACK or DISCONNECT of 5.0.
fn told(sent: &[u8]) -> (PacketType, ReasonCode) {
    match decoded(sent, Version::V5) {
        Packet::ConnAck(connack) => (PacketType::ConnAck, connack.reason),
        Packet::Disconnect(disconnect) => (PacketType::Disconnect, disconnect.reason),
        other => panic!("{other:?}"),
    }
}

fn auth(reason: ReasonCode, method: &str) -> Vec<u8> {
    let auth = Auth::new(reason, method, None);
    bytes(&Packet::Auth(Box::new(auth)), Version::V5)
}

fn connect_with_method() -> Connect {
    let mut connect = connect(Version::V5);
    connect.properties.authentication_method = Some("m".to_owned());
    connect
}

fn connect_with_size(size: u32) -> Connect {
    let mut connect = connect(Version::V5);
    connect.properties.maximum_packet_size_bytes = NonZeroU32::new(size);
    connect
}

fn explained(reason: ReasonCode) -> Ack {
    Ack::new(id(1), reason).with_reason_string("why")
}

const PINGREQ: &[u8] = &[0xC0, 0];

// What may come when.

/// Verifies [MQTT-3.1.0-1]: the first packet is a CONNECT, or the connection ends without a word.
/// Verifies [v3.1.1 MQTT-3.1.0-1]: the same in 3.1.1.
#[test]
fn every_other_first_packet_is_refused_by_its_first_byte() {
    for packet_type in 2..=15_u8 {
        let (error, sent) = Peer::new().refused(&[packet_type << 4]);
        assert_eq!(error, ConnectionError::FirstPacketNotConnect);
        assert!(sent.is_empty());
    }
}

/// Verifies [MQTT-3.1.0-2]: a second CONNECT ends the connection with Protocol Error.
/// Verifies [v3.1.1 MQTT-3.1.0-2]: a second CONNECT ends the connection.
#[test]
fn a_second_connect_is_refused_by_its_first_byte() {
    let (error, sent) = Peer::v5().refused(&[0x10]);
    assert_eq!(error, ConnectionError::SecondConnect);
    assert_eq!(
        told(&sent),
        (PacketType::Disconnect, ReasonCode::ProtocolError)
    );
    let (error, sent) = Peer::v311().refused(&[0x10]);
    assert_eq!(error, ConnectionError::SecondConnect);
    assert!(sent.is_empty());
}

/// Verifies [MQTT-4.13.1-1]: a packet only a Server sends ends the connection.
/// Verifies [v3.1.1 MQTT-4.8.0-1]: the same in 3.1.1.
#[test]
fn packets_of_a_server_are_refused() {
    for first_byte in [0x20, 0x90, 0xB0, 0xD0] {
        let (error, sent) = Peer::v5().refused(&[first_byte]);
        assert!(matches!(error, ConnectionError::ServerPacketFromClient(_)));
        assert_eq!(
            told(&sent),
            (PacketType::Disconnect, ReasonCode::ProtocolError)
        );
        assert!(Peer::v311().refused(&[first_byte]).1.is_empty());
    }
}

/// Verifies [v3.1.1 MQTT-4.8.0-1]: AUTH does not exist in 3.1.1.
#[test]
fn auth_is_refused_in_3_1_1() {
    let (error, sent) = Peer::v311().refused(&[0xF0, 0]);
    assert_eq!(error, Malformed::VersionHasNoSuchPacket.into());
    assert!(sent.is_empty());
}

/// Verifies [MQTT-3.14.4-1]: nothing is sent after DISCONNECT; nothing is read after the Client's.
#[test]
fn a_disconnect_ends_both_directions() {
    let mut peer = Peer::v5();
    assert_eq!(peer.receive(&[0xE0, 0]).unwrap(), "DISCONNECT");
    assert!(peer.server.next_event(PINGREQ, peer.now).unwrap().is_none());
    assert!(peer.send(Outgoing::PingResp).is_empty());

    let mut peer = Peer::v5();
    let disconnect = Disconnect::new(ReasonCode::ServerShuttingDown);
    let sent = peer.send(Outgoing::Disconnect(Box::new(disconnect)));
    assert_eq!(
        told(&sent),
        (PacketType::Disconnect, ReasonCode::ServerShuttingDown)
    );
    assert!(peer.deliver("t").is_empty());
    assert!(peer.send(Outgoing::PingResp).is_empty());
}

/// Verifies [MQTT-3.14.0-1]: no DISCONNECT from the Server before its CONNACK.
#[test]
fn a_disconnect_before_the_connack_is_not_written() {
    let mut peer = Peer::awaiting(connect(Version::V5));
    let disconnect = Disconnect::new(ReasonCode::ServerShuttingDown);
    assert!(
        peer.send(Outgoing::Disconnect(Box::new(disconnect)))
            .is_empty()
    );
}

/// Section 3.14 of 3.1.1: DISCONNECT comes from the Client only.
#[test]
fn a_disconnect_is_never_written_to_a_3_1_1_client() {
    let disconnect = Disconnect::new(ReasonCode::ServerShuttingDown);
    let mut peer = Peer::v311();
    assert!(
        peer.send(Outgoing::Disconnect(Box::new(disconnect)))
            .is_empty()
    );
    assert!(!peer.server.is_connected());
}

/// Verifies [MQTT-3.14.2-1]: a Client that sends a Reason Code of the Server's is told of its protocol error.
#[test]
fn a_disconnect_with_a_reason_of_the_server_is_refused() {
    let disconnects = ReasonCode::ALL
        .iter()
        .filter(|reason| reason.is_allowed_in(PacketType::Disconnect));
    let (of_client, of_server): (Vec<_>, Vec<_>) =
        disconnects.partition(|reason| Peer::v5().receive(&[0xE0, 1, reason.value()]).is_ok());
    let values = |reasons: Vec<&ReasonCode>| -> Vec<u8> {
        reasons.into_iter().map(|reason| reason.value()).collect()
    };
    assert_eq!(
        values(of_client),
        [
            0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x8C, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98,
            0x99
        ]
    );
    for value in values(of_server) {
        let (error, sent) = Peer::v5().refused(&[0xE0, 1, value]);
        assert!(matches!(error, ConnectionError::ServerReasonFromClient(_)));
        let expected = (PacketType::Disconnect, ReasonCode::ProtocolError);
        assert_eq!(told(&sent), expected, "{value:#04X}");
    }
}

/// Section 3.14.2.2.2: an expiry of 0 cannot be raised at the end.
#[test]
fn a_disconnect_does_not_start_an_expiry_from_zero() {
    let mut disconnect = Disconnect::new(ReasonCode::Success);
    disconnect.session_expiry_interval_seconds = Some(5);
    let input = bytes(&Packet::Disconnect(disconnect), Version::V5);
    let (error, sent) = Peer::v5().refused(&input);
    assert_eq!(error, ConnectionError::SessionExpiryFromZero);
    assert_eq!(
        told(&sent),
        (PacketType::Disconnect, ReasonCode::ProtocolError)
    );

    let mut lasting = connect(Version::V5);
    lasting.properties.session_expiry_interval_seconds = Some(1);
    assert_eq!(
        Peer::connected(lasting).receive(&input).unwrap(),
        "DISCONNECT"
    );
}

// CONNACK.

/// Verifies [MQTT-3.2.0-1]: before the CONNACK only AUTH is written; a PINGRESP follows the CONNACK.
/// Verifies [v3.1.1 MQTT-3.2.0-1]: the CONNACK is the first packet.
#[test]
fn nothing_but_auth_is_written_before_the_connack() {
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut peer = Peer::awaiting(connect(version));
        assert!(peer.deliver("t").is_empty());
        assert!(
            peer.send(Outgoing::PubRel(Ack::new(id(1), ReasonCode::Success)))
                .is_empty()
        );
        assert_eq!(peer.receive(PINGREQ).unwrap(), "PINGREQ");
        assert!(peer.send(Outgoing::PingResp).is_empty());
        let sent = peer.send(Outgoing::ConnAck(Box::new(accepted())));
        assert_eq!(sent[0], 0x20);
        assert!(sent.ends_with(&[0xD0, 0]));
    }
}

/// Verifies [MQTT-3.2.0-2]: a second CONNACK is not written.
#[test]
fn a_connack_is_written_once() {
    let mut peer = Peer::v5();
    assert!(
        peer.send(Outgoing::ConnAck(Box::new(accepted())))
            .is_empty()
    );
    assert!(peer.server.is_connected());
}

/// Verifies [MQTT-3.2.2-7]: a CONNACK with a failure ends the connection.
/// Verifies [v3.1.1 MQTT-3.2.2-5]: the same for a return code.
#[test]
fn a_connack_with_a_failure_ends_the_connection() {
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut peer = Peer::awaiting(connect(version));
        let connack = ConnAck::refusal(ReasonCode::NotAuthorized);
        assert!(!peer.send(Outgoing::ConnAck(Box::new(connack))).is_empty());
        assert!(!peer.server.is_connected());
        assert!(peer.send(Outgoing::PingResp).is_empty());
    }
}

/// Verifies [v3.1.1 MQTT-3.2.2-6]: where no return code applies there is no CONNACK.
#[test]
fn a_failure_without_return_code_has_no_3_1_1_connack() {
    let mut peer = Peer::awaiting(connect(Version::V311));
    let connack = ConnAck::refusal(ReasonCode::UnspecifiedError);
    assert!(peer.send(Outgoing::ConnAck(Box::new(connack))).is_empty());
    assert!(!peer.server.is_connected());
}

/// Verifies [MQTT-3.1.2-24]: a Client with no room for a CONNACK gets none, and nothing after it.
#[test]
fn a_connack_that_does_not_fit_ends_the_connection() {
    let mut peer = Peer::awaiting(connect_with_size(4));
    assert!(
        peer.send(Outgoing::ConnAck(Box::new(accepted())))
            .is_empty()
    );
    assert!(!peer.server.is_connected());
    assert!(peer.send(Outgoing::PingResp).is_empty());
}

/// Verifies [MQTT-3.2.2-19]: the Reason String is left out where it does not fit.
/// Verifies [MQTT-3.2.2-20]: so are User Properties.
#[test]
fn a_connack_loses_its_reason_string_before_it_is_too_large() {
    let mut peer = Peer::awaiting(connect_with_size(20));
    let mut connack = accepted();
    connack.properties.receive_maximum = NonZeroU16::new(7);
    let bare = connack.clone();
    connack.properties.reason_string = Some("a long explanation".to_owned());
    connack.properties.user_properties = vec![("name".to_owned(), "value".to_owned())];
    let sent = peer.send(Outgoing::ConnAck(Box::new(connack)));
    assert_eq!(decoded(&sent, Version::V5), Packet::ConnAck(Box::new(bare)));
}

// Keep Alive.

/// Verifies [MQTT-3.1.2-22]: one and a half Keep Alive times after the last complete packet it is over.
/// Verifies [v3.1.1 MQTT-3.1.2-24]: the same in 3.1.1.
#[test]
fn keep_alive_is_measured_from_the_last_complete_packet() {
    for version in [Version::V31, Version::V311, Version::V5] {
        let mut connect = connect(version);
        connect.keep_alive_seconds = 3;
        let mut peer = Peer::connected(connect);
        peer.later(4.0);
        assert_eq!(peer.receive(PINGREQ).unwrap(), "PINGREQ");
        peer.later(4.0);
        // Half a packet shows no life.
        assert!(
            peer.server
                .next_event(&PINGREQ[..1], peer.now)
                .unwrap()
                .is_none()
        );
        assert_eq!(peer.server.on_timeout(peer.now), None);
        peer.later(0.5);
        let error = peer.server.on_timeout(peer.now).unwrap();
        assert_eq!(error, ConnectionError::KeepAliveTimeout);
        peer.server.refuse(&error, &mut peer.out);
        if version == Version::V5 {
            assert_eq!(
                told(&peer.out),
                (PacketType::Disconnect, ReasonCode::KeepAliveTimeout)
            );
        } else {
            assert!(peer.out.is_empty());
        }
    }
}

/// Section 3.1.2.10: a Keep Alive of 0 turns the mechanism off.
#[test]
fn keep_alive_zero_never_ends() {
    let mut connect = connect(Version::V311);
    connect.keep_alive_seconds = 0;
    assert_eq!(Peer::connected(connect).server.poll_timeout(), None);
}

/// Verifies [MQTT-3.2.2-21]: Server Keep Alive replaces the Client's.
/// Verifies [MQTT-3.2.2-22]: without it the Client's holds.
#[test]
fn server_keep_alive_counts_only_where_the_client_is_told() {
    for (version, seconds) in [(Version::V5, 15), (Version::V311, 90), (Version::V31, 90)] {
        let mut peer = Peer::awaiting(connect(version));
        let properties = ConnAckProperties {
            server_keep_alive_seconds: Some(10),
            ..ConnAckProperties::default()
        };
        let connack = ConnAck {
            properties,
            ..accepted()
        };
        peer.send(Outgoing::ConnAck(Box::new(connack)));
        let due = peer.server.poll_timeout().unwrap();
        assert_eq!(due, peer.now + Duration::from_secs(seconds));
    }
}

/// Section 3.1.4: a socket without CONNECT does not stay.
#[test]
fn the_time_for_connect_runs_until_the_connack() {
    let mut peer = Peer::awaiting(connect(Version::V5));
    peer.later(9.0);
    assert_eq!(peer.server.on_timeout(peer.now), None);
    peer.later(1.0);
    let error = peer.server.on_timeout(peer.now).unwrap();
    assert_eq!(error, ConnectionError::ConnectTimeout);
    peer.server.refuse(&error, &mut peer.out);
    // [MQTT-3.2.2-8] Maximum connect time is no Connect Reason Code.
    assert_eq!(
        told(&peer.out),
        (PacketType::ConnAck, ReasonCode::UnspecifiedError)
    );
}

// Topic Aliases.

/// Verifies [MQTT-3.3.2-12]: every alias up to the announced maximum is accepted.
/// Verifies [MQTT-3.3.2-7]: the table belongs to one connection.
#[test]
fn an_alias_stands_for_the_topic_it_was_last_sent_with() {
    let mut peer = Peer::v5();
    let v5 = Version::V5;
    assert_eq!(
        peer.receive(&publish("a").alias(1).bytes(v5)).unwrap(),
        "PUBLISH a"
    );
    assert_eq!(
        peer.receive(&publish("b").alias(2).bytes(v5)).unwrap(),
        "PUBLISH b"
    );
    assert_eq!(
        peer.receive(&publish("").alias(1).bytes(v5)).unwrap(),
        "PUBLISH a"
    );
    assert_eq!(
        peer.receive(&publish("").alias(2).bytes(v5)).unwrap(),
        "PUBLISH b"
    );
    assert_eq!(
        peer.receive(&publish("c").alias(1).bytes(v5)).unwrap(),
        "PUBLISH c"
    );
    assert_eq!(
        peer.receive(&publish("").alias(1).bytes(v5)).unwrap(),
        "PUBLISH c"
    );
    let (error, _) = Peer::v5().refused(&publish("").alias(1).bytes(v5));
    assert_eq!(error, ConnectionError::TopicAliasUnknown);
}

/// Verifies [MQTT-3.2.2-17]: an alias above the maximum ends the connection with 0x94.
/// Verifies [MQTT-3.3.2-9]: the same.
/// Verifies [MQTT-3.3.2-8]: so does alias 0.
#[test]
fn an_alias_outside_the_announced_range_is_refused() {
    for alias in [0, 3, u16::MAX] {
        let (_, sent) = Peer::v5().refused(&publish("a").alias(alias).bytes(Version::V5));
        assert_eq!(
            told(&sent),
            (PacketType::Disconnect, ReasonCode::TopicAliasInvalid)
        );
    }
}

fn alias_of(sent: &[u8]) -> (String, Option<u16>) {
    let Packet::Publish(publish) = decoded(sent, Version::V5) else {
        panic!("not a PUBLISH");
    };
    (publish.topic.to_owned(), publish.properties.topic_alias)
}

/// Verifies [MQTT-3.1.2-26]: no alias above the Client's maximum; the least recently used is reused.
#[test]
fn outgoing_aliases_are_reused_in_order_of_use() {
    let mut asking = connect(Version::V5);
    asking.properties.topic_alias_maximum = 2;
    let mut peer = Peer::connected(asking);
    let mut sent = |topic: &str| alias_of(&peer.deliver(topic));
    assert_eq!(sent("a"), ("a".to_owned(), Some(1)));
    assert_eq!(sent("b"), ("b".to_owned(), Some(2)));
    assert_eq!(sent("a"), (String::new(), Some(1)));
    assert_eq!(sent("c"), ("c".to_owned(), Some(2)));
    assert_eq!(sent("b"), ("b".to_owned(), Some(1)));
    assert_eq!(sent("c"), (String::new(), Some(2)));
}

/// Our own bound holds whatever the Client allows, and whatever we accept.
#[test]
fn outgoing_aliases_stay_within_our_own_bound() {
    let mut asking = Connect::new(Version::V5, "c");
    asking.properties.topic_alias_maximum = 100;
    let mut peer = Peer::connected(asking);
    let mut highest = 0;
    for topic in ["a", "b", "c", "d", "e"] {
        highest = highest.max(alias_of(&peer.deliver(topic)).1.unwrap_or(0));
    }
    assert_eq!(highest, LIMITS.topic_alias_maximum_out);
}

/// Verifies [MQTT-3.1.2-27]: no alias for a Client that announced none, nor for 3.1.1.
/// Verifies [MQTT-3.3.2-11]: the same.
#[test]
fn no_alias_is_sent_to_a_client_that_takes_none() {
    let mut peer = Peer::v5();
    for _ in 0..2 {
        assert_eq!(alias_of(&peer.deliver("a")), ("a".to_owned(), None));
    }
    let mut peer = Peer::v311();
    let first = peer.deliver("a");
    assert_eq!(peer.deliver("a"), first);
}

/// Verifies [MQTT-3.1.2-24]: an alias is not sent where its three bytes are too many.
#[test]
fn an_alias_that_was_not_sent_is_not_used() {
    let mut asking = connect_with_size(10);
    asking.properties.topic_alias_maximum = 1;
    let mut peer = Peer::connected(asking);
    // Two bytes of header, two of length, one of Property Length, one of payload.
    for _ in 0..2 {
        assert_eq!(alias_of(&peer.deliver("abcd")), ("abcd".to_owned(), None));
    }
    assert_eq!(alias_of(&peer.deliver("a")), ("a".to_owned(), Some(1)));
    assert_eq!(alias_of(&peer.deliver("abcd")), ("abcd".to_owned(), None));
    assert!(peer.deliver("abcde").is_empty());
}

// Receive Maximum.

/// Verifies [MQTT-3.3.4-7]: more open PUBLISH packets than announced end the connection with 0x93.
#[test]
fn a_publish_beyond_the_receive_maximum_is_refused() {
    let v5 = Version::V5;
    let mut peer = Peer::v5();
    peer.receive(&publish("a").qos1(1).bytes(v5)).unwrap();
    peer.receive(&publish("a").qos2(2).bytes(v5)).unwrap();
    peer.receive(&publish("a").bytes(v5)).unwrap();
    // The same QoS 2 message again takes no more of it.
    peer.receive(&publish("a").qos2(2).dup().bytes(v5)).unwrap();
    let (error, sent) = peer.refused(&publish("a").qos1(3).bytes(v5));
    assert_eq!(
        error,
        ConnectionError::ReceiveMaximumExceeded { maximum: 2 }
    );
    assert_eq!(
        told(&sent),
        (PacketType::Disconnect, ReasonCode::ReceiveMaximumExceeded)
    );
}

/// Found by a publisher that was slowed down while memory ran low: each look at its PUBLISH took from its quota.
#[test]
fn a_publish_that_was_put_back_takes_from_the_quota_once() {
    let v5 = Version::V5;
    let mut peer = Peer::v5();
    for _ in 0..5 {
        peer.receive(&publish("a").qos1(1).bytes(v5)).unwrap();
        peer.server.put_back(Qos::AtLeastOnce);
        peer.receive(&publish("a").qos2(2).bytes(v5)).unwrap();
        peer.server.put_back(Qos::ExactlyOnce);
        peer.receive(&publish("a").bytes(v5)).unwrap();
        peer.server.put_back(Qos::AtMostOnce);
    }
    peer.receive(&publish("a").qos1(1).bytes(v5)).unwrap();
    peer.refused(&publish("a").qos1(3).bytes(v5));
}

type Answer = fn(Ack) -> Outgoing;

/// Section 4.9: PUBACK, PUBCOMP and a PUBREC with a failure give back what a PUBLISH took.
#[test]
fn acknowledgements_give_the_quota_back() {
    let v5 = Version::V5;
    let answers: [(bool, Answer, ReasonCode, bool); 5] = [
        (true, Outgoing::PubAck, ReasonCode::Success, true),
        (true, Outgoing::PubAck, ReasonCode::QuotaExceeded, true),
        (false, Outgoing::PubRec, ReasonCode::Success, false),
        (false, Outgoing::PubRec, ReasonCode::QuotaExceeded, true),
        (false, Outgoing::PubComp, ReasonCode::Success, true),
    ];
    for (is_qos1, answer, reason, gives_back) in answers {
        let mut peer = Peer::v5();
        for number in [1, 2] {
            let publish = publish("a");
            let publish = if is_qos1 {
                publish.qos1(number)
            } else {
                publish.qos2(number)
            };
            peer.receive(&publish.bytes(v5)).unwrap();
        }
        peer.send(answer(Ack::new(id(1), reason)));
        let next = peer.receive(&publish("a").qos2(3).bytes(v5));
        assert_eq!(next.is_ok(), gives_back, "{reason:?}");
    }
}

/// Section 4.9 is of 5.0; a 3.1.1 Client is told no maximum.
#[test]
fn a_3_1_1_client_has_no_receive_maximum() {
    let mut peer = Peer::v311();
    for number in 1..10 {
        peer.receive(&publish("a").qos1(number).bytes(Version::V311))
            .unwrap();
    }
}

/// Verifies [MQTT-3.3.4-6]: a Client's PUBLISH has no Subscription Identifier.
#[test]
fn a_subscription_identifier_from_a_client_is_refused() {
    let input = publish("a").property(Property::SubscriptionIdentifier(1));
    let (error, sent) = Peer::v5().refused(&input.bytes(Version::V5));
    assert_eq!(error, ConnectionError::SubscriptionIdentifierFromClient);
    assert_eq!(
        told(&sent),
        (PacketType::Disconnect, ReasonCode::ProtocolError)
    );
}

/// Class U: what a PUBLISH carries beside its payload is bounded by number and by bytes.
#[test]
fn properties_of_a_publish_beyond_their_limits_are_refused() {
    let v5 = Version::V5;
    let with = |count: usize, value: &str| {
        let publish = (0..count).fold(publish("a"), |publish, _| {
            publish.property(Property::UserProperty("n", value))
        });
        publish.bytes(v5)
    };
    Peer::v5().receive(&with(3, "")).unwrap();
    for input in [with(4, ""), with(1, &"v".repeat(100))] {
        let (error, sent) = Peer::v5().refused(&input);
        assert_eq!(error, ConnectionError::TooManyProperties);
        assert_eq!(
            told(&sent),
            (PacketType::Disconnect, ReasonCode::QuotaExceeded)
        );
    }
}

// Maximum Packet Size and Request Problem Information.

/// Verifies [MQTT-3.2.2-15]: a packet above the announced size is refused by its header alone.
#[test]
fn a_packet_above_our_maximum_is_refused_before_it_has_arrived() {
    let (error, sent) = Peer::v5().refused(&[0x30, 0xE8, 0x07]);
    assert_eq!(error, Malformed::PacketTooLarge.into());
    assert_eq!(
        told(&sent),
        (PacketType::Disconnect, ReasonCode::PacketTooLarge)
    );
    // 3 + 997 bytes are exactly the maximum.
    assert!(
        Peer::v5()
            .server
            .next_event(&[0x30, 0xE5, 0x07], start())
            .unwrap()
            .is_none()
    );
}

fn explained_packets() -> Vec<Outgoing> {
    let properties = || {
        Some(Box::new(ReasonProperties {
            reason_string: Some("why".to_owned()),
            user_properties: vec![("n".to_owned(), "v".to_owned())],
        }))
    };
    let mut auth = Auth::new(ReasonCode::ContinueAuthentication, "m", None);
    auth.reason_string = Some("why".to_owned());
    let mut disconnect = Disconnect::new(ReasonCode::ServerBusy);
    disconnect.reason_string = Some("why".to_owned());
    vec![
        Outgoing::PubAck(explained(ReasonCode::NotAuthorized)),
        Outgoing::PubRec(explained(ReasonCode::NotAuthorized)),
        Outgoing::PubRel(explained(ReasonCode::PacketIdentifierNotFound)),
        Outgoing::PubComp(explained(ReasonCode::PacketIdentifierNotFound)),
        Outgoing::SubAck(SubAck {
            packet_id: id(1),
            reasons: vec![ReasonCode::NotAuthorized],
            properties: properties(),
        }),
        Outgoing::UnsubAck(UnsubAck {
            packet_id: id(1),
            reasons: vec![ReasonCode::NotAuthorized],
            properties: properties(),
        }),
        Outgoing::Auth(Box::new(auth)),
        Outgoing::Disconnect(Box::new(disconnect)),
    ]
}

/// Verifies [MQTT-3.4.2-2] [MQTT-3.5.2-2] [MQTT-3.6.2-2] [MQTT-3.7.2-2] [MQTT-3.9.2-1]
/// [MQTT-3.11.2-1] [MQTT-3.14.2-3] [MQTT-3.15.2-2]: a Reason String is dropped to fit.
/// Verifies [MQTT-3.4.2-3] [MQTT-3.5.2-3] [MQTT-3.6.2-3] [MQTT-3.7.2-3] [MQTT-3.9.2-2]
/// [MQTT-3.11.2-2] [MQTT-3.14.2-4] [MQTT-3.15.2-3]: so are User Properties.
/// Verifies [MQTT-3.1.2-24]: what does not fit even then is not sent.
#[test]
fn every_packet_loses_its_reason_string_before_it_is_too_large() {
    let sized = |size| {
        let mut connect = connect_with_method();
        connect.properties.maximum_packet_size_bytes = NonZeroU32::new(size);
        Peer::connected(connect)
    };
    for packet in explained_packets() {
        let full = sized(1000).send(packet.clone());
        let full_size = u32::try_from(full.len()).unwrap();
        assert!(full.windows(3).any(|window| window == b"why"));
        assert_eq!(sized(full_size).send(packet.clone()), full);

        let bare = sized(full_size - 1).send(packet.clone());
        assert!(!bare.is_empty() && bare.len() < full.len(), "{packet:?}");
        assert!(!bare.windows(3).any(|window| window == b"why"));
        let bare_size = u32::try_from(bare.len()).unwrap();
        if bare_size > 5 {
            assert!(sized(bare_size - 1).send(packet).is_empty());
        }
    }
}

/// Verifies [MQTT-3.1.2-29]: Request Problem Information 0 leaves it to CONNACK and DISCONNECT.
#[test]
fn problem_information_goes_only_to_clients_that_want_it() {
    for packet in explained_packets() {
        let mut connect = connect_with_method();
        connect.properties.request_problem_information = false;
        let sent = Peer::connected(connect).send(packet.clone());
        let is_told = sent.windows(3).any(|window| window == b"why");
        assert_eq!(
            is_told,
            matches!(packet, Outgoing::Disconnect(_)),
            "{packet:?}"
        );
    }
}

/// Verifies [MQTT-3.1.2-24]: a PUBLISH above the Client's maximum is not sent, one of that size is.
#[test]
fn a_publish_above_the_clients_maximum_is_not_sent() {
    let mut peer = Peer::connected(connect_with_size(10));
    assert_eq!(peer.deliver("abcd").len(), 10);
    assert!(peer.deliver("abcde").is_empty());
}

/// Verifies [MQTT-3.3.2-6]: the interval that is sent is what is left of it.
#[test]
fn the_message_expiry_interval_counts_down_while_it_waits() {
    let input = publish("a")
        .property(Property::MessageExpiryInterval(10))
        .bytes(Version::V5);
    let mut peer = Peer::v5();
    let Packet::Publish(received) = decoded(&input, Version::V5) else {
        panic!("not a PUBLISH");
    };
    let message = Message::from_publish(&received, None, peer.now);
    peer.later(3.9);
    let sent = peer.send(Outgoing::Publish(delivery(message)));
    let Packet::Publish(sent) = decoded(&sent, Version::V5) else {
        panic!("not a PUBLISH");
    };
    assert_eq!(sent.properties.message_expiry_interval_seconds, Some(7));
}

// AUTH.

/// Verifies [MQTT-4.12.0-7]: AUTH without a method in CONNECT ends the connection.
/// Verifies [MQTT-4.12.0-6]: nor does the Server send one.
#[test]
fn there_is_no_auth_without_a_method_in_connect() {
    let (error, _) = Peer::v5().refused(&auth(ReasonCode::ReAuthenticate, "m"));
    assert_eq!(error, ConnectionError::AuthWithoutMethod);
    let answer = Auth::new(ReasonCode::ContinueAuthentication, "m", None);
    assert!(Peer::v5().send(Outgoing::Auth(Box::new(answer))).is_empty());
}

fn challenge() -> Outgoing {
    Outgoing::Auth(Box::new(Auth::new(
        ReasonCode::ContinueAuthentication,
        "m",
        None,
    )))
}

/// Verifies [MQTT-4.12.0-2]: the Server may answer CONNECT with AUTH 0x18.
/// Verifies [MQTT-4.12.0-3]: the Client's answer is AUTH 0x18, once for each of ours.
/// Verifies [MQTT-4.12.0-5]: with the method of CONNECT.
#[test]
fn an_exchange_alternates_with_one_method() {
    let mut peer = Peer::awaiting(connect_with_method());
    let answer = auth(ReasonCode::ContinueAuthentication, "m");
    assert!(!peer.send(challenge()).is_empty());
    assert_eq!(peer.receive(&answer).unwrap(), "AUTH 0x18");
    assert_eq!(peer.receive(&answer), Err(ConnectionError::AuthReasonCode));

    let mut peer = Peer::awaiting(connect_with_method());
    peer.send(challenge());
    let other = auth(ReasonCode::ContinueAuthentication, "n");
    let (error, sent) = peer.refused(&other);
    assert_eq!(error, ConnectionError::AuthMethodChanged);
    assert_eq!(
        told(&sent),
        (PacketType::ConnAck, ReasonCode::ProtocolError)
    );
}

/// Verifies [MQTT-3.1.2-30]: only AUTH and DISCONNECT come before the CONNACK of an exchange.
#[test]
fn nothing_but_auth_and_disconnect_comes_during_authentication() {
    let mut peer = Peer::awaiting(connect_with_method());
    let (error, sent) = peer.refused(PINGREQ);
    assert_eq!(
        error,
        ConnectionError::PacketDuringAuthentication(PacketType::PingReq)
    );
    assert_eq!(
        told(&sent),
        (PacketType::ConnAck, ReasonCode::ProtocolError)
    );
    let mut peer = Peer::awaiting(connect_with_method());
    assert_eq!(peer.receive(&[0xE0, 0]).unwrap(), "DISCONNECT");
    // Without a method a Client need not wait for the CONNACK.
    let mut peer = Peer::awaiting(connect(Version::V5));
    assert_eq!(peer.receive(PINGREQ).unwrap(), "PINGREQ");
}

/// Verifies [MQTT-4.12.1-1]: re-authentication begins with AUTH 0x19 of the same method.
#[test]
fn a_client_may_authenticate_again_once_connected() {
    let again = auth(ReasonCode::ReAuthenticate, "m");
    let mut peer = Peer::awaiting(connect_with_method());
    assert_eq!(peer.receive(&again), Err(ConnectionError::AuthReasonCode));

    let mut peer = Peer::connected(connect_with_method());
    assert_eq!(peer.receive(&again).unwrap(), "AUTH 0x19");
    peer.send(challenge());
    // The connection goes on meanwhile.
    assert_eq!(peer.receive(PINGREQ).unwrap(), "PINGREQ");
    let answer = auth(ReasonCode::ContinueAuthentication, "m");
    assert_eq!(peer.receive(&answer).unwrap(), "AUTH 0x18");
    let other = auth(ReasonCode::ReAuthenticate, "n");
    assert_eq!(
        peer.receive(&other),
        Err(ConnectionError::AuthMethodChanged)
    );
    let success = auth(ReasonCode::Success, "m");
    assert_eq!(peer.receive(&success), Err(ConnectionError::AuthReasonCode));
}

// What a refused peer is told.

fn refusal_of(input: &[u8]) -> Vec<u8> {
    Peer::new().refused(input).1
}

/// Verifies [MQTT-3.1.2-2]: a version we do not speak is told so with 0x84.
/// Verifies [v3.1.1 MQTT-3.1.2-2]: an older one with return code 1.
#[test]
fn an_unknown_version_is_told_in_the_nearest_version() {
    let connect = |level| [b"\x00\x04MQTT", &[level, 2, 0, 0, 0, 0][..]].concat();
    let sent = refusal_of(&raw(0x10, &connect(6)));
    assert_eq!(
        told(&sent),
        (PacketType::ConnAck, ReasonCode::UnsupportedProtocolVersion)
    );
    assert_eq!(refusal_of(&raw(0x10, &connect(2))), [0x20, 2, 0, 1]);
    assert_eq!(refusal_of(&raw(0x10, &connect(3))), [0x20, 2, 0, 1]);
    // MQTT 3.1 bridges of some Servers set the high bit.
    assert_eq!(refusal_of(&raw(0x10, &connect(0x84))), [0x20, 2, 0, 1]);
}

/// Verifies [MQTT-3.1.2-1]: another protocol name gets no answer.
/// Verifies [v3.1.1 MQTT-3.1.2-1]: the same in 3.1.1.
#[test]
fn another_protocol_gets_no_answer() {
    assert!(refusal_of(&raw(0x10, b"\x00\x04HTTP\x05\x02\x00\x00\x00\x00\x00")).is_empty());
}

/// Verifies [MQTT-3.1.4-1]: a CONNECT that does not conform ends the connection, with CONNACK 0x81.
/// Verifies [v3.1.1 MQTT-3.1.4-1]: in 3.1.1 without CONNACK.
#[test]
fn a_malformed_connect_is_told_in_5_0_only() {
    let connect = |level| [b"\x00\x04MQTT", &[level, 3, 0, 0, 0, 0, 0][..]].concat();
    let sent = refusal_of(&raw(0x10, &connect(5)));
    assert_eq!(
        told(&sent),
        (PacketType::ConnAck, ReasonCode::MalformedPacket)
    );
    assert!(refusal_of(&raw(0x10, &connect(4))).is_empty());
}

/// Verifies [MQTT-3.14.2-1]: DISCONNECT has only Disconnect Reason Codes.
#[test]
fn a_refusal_without_disconnect_reason_code_is_told_as_unspecified() {
    let mut peer = Peer::v5();
    let error = ConnectionError::refused(ReasonCode::BadUserNameOrPassword, "no");
    peer.server.refuse(&error, &mut peer.out);
    assert_eq!(
        told(&peer.out),
        (PacketType::Disconnect, ReasonCode::UnspecifiedError)
    );
}

/// Verifies [MQTT-4.13.1-1]: a peer is refused once, and nothing follows.
#[test]
fn a_refusal_is_the_last_thing_written() {
    let mut peer = Peer::v5();
    let (error, sent) = peer.refused(&[0x00]);
    assert_eq!(
        told(&sent),
        (PacketType::Disconnect, ReasonCode::MalformedPacket)
    );
    peer.server.refuse(&error, &mut peer.out);
    assert!(peer.out.is_empty());
    assert!(peer.deliver("t").is_empty());
    assert!(peer.send(Outgoing::PingResp).is_empty());
    assert_eq!(peer.server.poll_timeout(), None);
}

/// The Reason String names the statement, as the Client's version numbers it.
#[test]
fn the_reason_string_names_the_statement() {
    let (_, sent) = Peer::v5().refused(&[0x10]);
    let Packet::Disconnect(disconnect) = decoded(&sent, Version::V5) else {
        panic!("not a DISCONNECT");
    };
    assert!(
        disconnect
            .reason_string
            .unwrap()
            .ends_with("[MQTT-3.1.0-2]")
    );
}

/// Bytes in any pieces give the same events.
#[test]
fn a_packet_in_pieces_is_taken_when_it_is_whole() {
    let subscribe = Subscribe {
        packet_id: id(1),
        subscription_identifier: None,
        user_properties: Vec::new(),
        requests: vec![SubscriptionRequest {
            filter: "a/#",
            options: SubscriptionOptions::default(),
        }],
    };
    let input = bytes(&Packet::Subscribe(subscribe), Version::V5);
    let mut peer = Peer::v5();
    for len in 0..input.len() {
        assert!(
            peer.server
                .next_event(&input[..len], peer.now)
                .unwrap()
                .is_none()
        );
    }
    assert!(peer.receive(&input).is_ok());
}

/// Verifies [MQTT-3.3.2-2]: a Topic Name is not believed because the one before it was well-formed.
#[test]
fn topic_that_is_said_again_is_the_same_and_any_other_is_looked_at() {
    for version in [Version::V311, Version::V5] {
        let mut peer = Peer::connected(connect(version));
        let publish = |topic: &str| {
            let mut body = vec![0, u8::try_from(topic.len()).expect("short")];
            body.extend_from_slice(topic.as_bytes());
            body.extend_from_slice(if version == Version::V5 { b"\0p" } else { b"p" });
            let mut packet = vec![0x30, u8::try_from(body.len()).expect("short")];
            packet.append(&mut body);
            packet
        };
        for topic in ["a/b", "a/b", "a/bc", "a/b", "a", "a/b", "a/b"] {
            let received = peer.receive(&publish(topic));
            assert_eq!(received, Ok(format!("PUBLISH {topic}")));
        }
        for wrong in ["a/+", "", "a/\0"] {
            let mut peer = Peer::connected(connect(version));
            assert!(peer.receive(&publish("a/b")).is_ok());
            let (error, _) = peer.refused(&publish(wrong));
            assert!(matches!(error, ConnectionError::Malformed(_)), "{wrong:?}");
        }
        let long = "t".repeat(100);
        assert_eq!(peer.receive(&publish(&long)), Ok(format!("PUBLISH {long}")));
    }
}

/// Verifies [MQTT-3.3.2-12]: an alias stands for the Topic Name it came with, also if that had come before.
#[test]
fn alias_that_comes_with_the_last_topic_again_is_defined() {
    let mut peer = Peer::v5();
    let plain = b"\x30\x05\0\x01a\0p";
    let defining = b"\x30\x08\0\x01a\x03\x23\0\x01p";
    let defined = b"\x30\x07\0\0\x03\x23\0\x01p";
    for packet in [&plain[..], defining, defined, plain, defined] {
        assert_eq!(peer.receive(packet), Ok("PUBLISH a".to_owned()));
    }
}

/// Every packet of four bytes means what `packet::decode` reads in it, and what is refused is refused with the same cause.
#[test]
fn packet_of_four_bytes_is_what_decode_reads_in_it() {
    for version in [Version::V31, Version::V311, Version::V5] {
        for first in 0x40..=0x7F_u8 {
            for packet_id in [[0, 0], [0, 1], [0xFF, 0xFF]] {
                let input = [first, 2, packet_id[0], packet_id[1]];
                let decoded = packet::decode(&input, version, 1000);
                let expected = decoded.map(|packet| {
                    let (packet, used) = packet.expect("a whole packet");
                    (format!("{packet:?}"), used)
                });
                let mut peer = Peer::connected(connect(version));
                let event = peer.server.next_event(&input, peer.now);
                let found = event.map(|event| {
                    let (event, used) = event.expect("a whole packet");
                    (format!("{event:?}"), used)
                });
                assert_eq!(
                    found,
                    expected.map_err(Into::into),
                    "{version:?} {input:02X?}"
                );
            }
        }
    }
}
