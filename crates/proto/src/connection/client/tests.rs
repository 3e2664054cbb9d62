//! The Client's side of a connection, driven by hand.
//!
//! Owns: a Server played by packets. Does not own: sockets. Start reading at [`Peer`].
//! Invariant: time moves only when a test moves it.

use std::num::{NonZeroU16, NonZeroU32};

use super::*;
use crate::packet::{PublishProperties, SubscriptionOptions, SubscriptionRequest};

/// A Client and what it has sent, with a clock of its own.
struct Peer {
    client: ClientConnection,
    now: Instant,
    out: Vec<u8>,
    version: Version,
}

impl Peer {
    fn new(connect: &Connect, session: Option<ClientSession>) -> Self {
        let now = start();
        let mut out = Vec::new();
        let client =
            ClientConnection::new(connect, session, ClientTimeouts::default(), now, &mut out)
                .unwrap();
        Self {
            client,
            now,
            out,
            version: connect.version,
        }
    }

    /// A Client that got this CONNACK.
    fn connected(connect: &Connect, connack: ConnAck) -> Self {
        let mut peer = Self::new(connect, None);
        peer.receive(&Packet::ConnAck(Box::new(connack))).unwrap();
        peer.sent();
        peer
    }

    fn default_connected() -> Self {
        Self::connected(&connect(), connack(ConnAckProperties::default()))
    }

    /// Feeds a packet; what the Client made of it, as text.
    fn receive(&mut self, packet: &Packet<'_>) -> Result<String, ClientError> {
        let mut input = Vec::new();
        packet::encode(packet, self.version, &mut input).unwrap();
        let event = self.client.next_event(&input, self.now, &mut self.out)?;
        let (event, used) = event.expect("a whole packet");
        assert_eq!(used, input.len());
        Ok(match event {
            ClientEvent::Publish(publish) => format!("Publish {}", publish.topic),
            ClientEvent::Published {
                packet_id, reason, ..
            } => {
                format!("Published {packet_id} {}", reason.value())
            }
            ClientEvent::Handled(packet_type) => format!("Handled {}", packet_type.name()),
            ClientEvent::Received(packet_id) => format!("Received {packet_id}"),
            ClientEvent::Connected(_) => "Connected".to_owned(),
            ClientEvent::Refused(connack) => format!("Refused {}", connack.reason.value()),
            ClientEvent::SubAck(_) => "SubAck".to_owned(),
            other => format!("{other:?}"),
        })
    }

    /// What was sent since the last call: name, Packet Identifier, DUP.
    fn sent(&mut self) -> Vec<String> {
        let out = std::mem::take(&mut self.out);
        let mut rest = out.as_slice();
        let mut sent = Vec::new();
        while let Some((packet, used)) = packet::decode(rest, self.version, u32::MAX).unwrap() {
            let name = packet.packet_type().name();
            sent.push(match packet {
                Packet::Publish(publish) => {
                    let id = publish.packet_id.map_or(0, PacketIdentifier::get);
                    format!("{name} {id}{}", if publish.dup { " DUP" } else { "" })
                }
                Packet::PubAck(ack)
                | Packet::PubRec(ack)
                | Packet::PubRel(ack)
                | Packet::PubComp(ack) => {
                    let reason = ack.reason.value();
                    let reason = if reason == 0 {
                        String::new()
                    } else {
                        format!(" 0x{reason:02X}")
                    };
                    format!("{name} {}{reason}", ack.packet_id)
                }
                Packet::Disconnect(disconnect) => {
                    format!("{name} 0x{:02X}", disconnect.reason.value())
                }
                _ => name.to_owned(),
            });
            rest = &rest[used..];
        }
        sent
    }

    fn publish(&mut self, topic: &str, qos: Qos) -> Result<Option<PacketIdentifier>, SendError> {
        self.client
            .publish(&publish(topic, qos, None), self.now, &mut self.out)
    }

    fn acknowledge(&mut self) {
        self.client.acknowledge(self.now, &mut self.out);
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a test needs a first moment; it advances from there"
)]
fn start() -> Instant {
    Instant::now()
}

fn connect() -> Connect {
    Connect::new(Version::V5, "me")
}

fn connack(properties: ConnAckProperties) -> ConnAck {
    ConnAck {
        session_present: false,
        reason: ReasonCode::Success,
        properties,
    }
}

fn id(number: u16) -> PacketIdentifier {
    PacketIdentifier::new(number).unwrap()
}

fn ack(number: u16) -> Ack {
    Ack::new(id(number), ReasonCode::Success)
}

fn publish(topic: &str, qos: Qos, packet_id: Option<u16>) -> Publish<'_> {
    Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: packet_id.map(id),
        properties: PublishProperties::default(),
        payload: b"x",
    }
}

/// Verifies [MQTT-3.1.0-1]: the first packet a Client sends is CONNECT.
#[test]
fn connect_comes_first() {
    let mut peer = Peer::new(&connect(), None);
    assert_eq!(
        peer.publish("a", Qos::AtMostOnce),
        Err(SendError::NotConnected)
    );
    assert_eq!(peer.sent(), ["CONNECT"]);
}

/// Verifies [MQTT-3.1.2-30]: until CONNACK a Client with an Authentication Method sends AUTH only.
/// Verifies [MQTT-4.12.0-3] [MQTT-4.12.0-5]: its AUTH continues with the method of CONNECT.
#[test]
fn only_auth_is_sent_before_connack() {
    let mut connect = connect();
    connect.properties.authentication_method = Some("M".into());
    let mut peer = Peer::new(&connect, None);
    peer.sent();
    let challenge = Auth::new(ReasonCode::ContinueAuthentication, "M", None);
    assert!(
        peer.receive(&Packet::Auth(Box::new(challenge.clone())))
            .unwrap()
            .starts_with("Auth")
    );
    assert_eq!(
        peer.publish("a", Qos::AtMostOnce),
        Err(SendError::NotConnected)
    );
    let other = Auth::new(ReasonCode::ContinueAuthentication, "N", None);
    let refused = peer.client.send_auth(&other, peer.now, &mut peer.out);
    assert_eq!(refused, Err(SendError::AuthenticationMethod));
    peer.client
        .send_auth(&challenge, peer.now, &mut peer.out)
        .unwrap();
    assert_eq!(peer.sent(), ["AUTH"]);
}

/// Verifies [MQTT-4.12.0-7] [MQTT-4.12.1-1]: no AUTH without, or with another, method.
#[test]
fn auth_without_a_method_is_not_sent() {
    let mut peer = Peer::default_connected();
    let auth = Auth::new(ReasonCode::ReAuthenticate, "M", None);
    let refused = peer.client.send_auth(&auth, peer.now, &mut peer.out);
    assert_eq!(refused, Err(SendError::AuthenticationMethod));
    let received = peer.receive(&Packet::Auth(Box::new(auth)));
    assert_eq!(received, Err(ClientError::AuthenticationMethod));
}

/// Verifies [MQTT-3.2.2-4]: Session Present without Session State closes the connection.
#[test]
fn session_present_without_state_is_refused() {
    let mut connack = connack(ConnAckProperties::default());
    connack.session_present = true;
    let mut connect = connect();
    connect.clean_start = false;
    let mut peer = Peer::new(&connect, None);
    peer.sent();
    let error = peer
        .receive(&Packet::ConnAck(Box::new(connack.clone())))
        .unwrap_err();
    assert_eq!(error, ClientError::SessionPresentWithoutState);
    peer.client.refuse(&error, peer.now, &mut peer.out);
    assert_eq!(peer.sent(), ["DISCONNECT 0x82"]);
    let mut peer = Peer::new(&connect, Some(ClientSession::default()));
    assert_eq!(
        peer.receive(&Packet::ConnAck(Box::new(connack))).unwrap(),
        "Connected"
    );
}

/// Verifies [MQTT-3.2.2-5]: without Session Present the Client drops its own state.
/// Verifies [MQTT-3.1.2-4]: so does Clean Start.
#[test]
fn a_lost_session_is_dropped() {
    for clean_start in [false, true] {
        let mut peer = Peer::default_connected();
        peer.publish("a", Qos::AtLeastOnce).unwrap();
        let session = peer.client.into_session();
        assert_eq!(session.unacknowledged_count(), 1);
        let mut connect = connect();
        connect.clean_start = clean_start;
        let mut peer = Peer::new(&connect, Some(session));
        peer.sent();
        let connack = connack(ConnAckProperties::default());
        peer.receive(&Packet::ConnAck(Box::new(connack))).unwrap();
        assert_eq!(peer.sent(), Vec::<String>::new());
        assert_eq!(peer.client.into_session().unacknowledged_count(), 0);
    }
}

/// Verifies [MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-3.3.1-1] [MQTT-3.3.1-3]: on resume the open PUBREL and
/// PUBLISH packets go again, in order, with DUP.
/// Verifies [v3.1.1 MQTT-4.4.0-1] [v3.1.1 MQTT-2.3.1-3]: under their own identifiers, in 3.1.1 as well.
#[test]
fn a_resumed_session_sends_what_is_open() {
    for version in [Version::V311, Version::V5] {
        let first = Connect::new(version, "me");
        let mut peer = Peer::connected(&first, connack(ConnAckProperties::default()));
        for qos in [
            Qos::ExactlyOnce,
            Qos::AtLeastOnce,
            Qos::ExactlyOnce,
            Qos::AtMostOnce,
        ] {
            peer.publish("a", qos).unwrap();
        }
        assert_eq!(
            peer.sent(),
            ["PUBLISH 1", "PUBLISH 2", "PUBLISH 3", "PUBLISH 0"]
        );
        peer.receive(&Packet::PubRec(ack(1))).unwrap();
        assert_eq!(peer.sent(), ["PUBREL 1"]);
        let mut again = Connect::new(version, "me");
        again.clean_start = false;
        let mut peer = Peer::new(&again, Some(peer.client.into_session()));
        peer.sent();
        let mut present = connack(ConnAckProperties::default());
        present.session_present = true;
        peer.receive(&Packet::ConnAck(Box::new(present))).unwrap();
        assert_eq!(peer.sent(), ["PUBREL 1", "PUBLISH 2 DUP", "PUBLISH 3 DUP"]);
        assert_eq!(peer.publish("b", Qos::AtLeastOnce).unwrap(), Some(id(4)));
    }
}

/// Verifies [MQTT-3.1.2-20] [v3.1.1 MQTT-3.1.2-23]: a silent Client sends PINGREQ within Keep Alive.
#[test]
fn a_silent_client_pings() {
    let mut peer = Peer::default_connected();
    let due = peer.client.poll_timeout().unwrap();
    assert_eq!(due, peer.now + Duration::from_secs(60));
    peer.client.on_timeout(peer.now, &mut peer.out).unwrap();
    assert_eq!(peer.sent(), Vec::<String>::new());
    peer.now = due;
    peer.client.on_timeout(due, &mut peer.out).unwrap();
    assert_eq!(peer.sent(), ["PINGREQ"]);
    peer.receive(&Packet::PingResp).unwrap();
    assert_eq!(
        peer.client.poll_timeout(),
        Some(due + Duration::from_secs(60))
    );
    peer.publish("a", Qos::AtMostOnce).unwrap();
    peer.client
        .on_timeout(due + Duration::from_secs(60), &mut peer.out)
        .unwrap();
    let late = peer.client.poll_timeout().unwrap();
    let missing = peer.client.on_timeout(late, &mut peer.out);
    assert_eq!(missing, Err(ClientError::PingTimeout));
}

/// Verifies [MQTT-3.1.2-21] [MQTT-3.2.2-21]: Server Keep Alive replaces the Client's own.
#[test]
fn server_keep_alive_wins() {
    let properties = ConnAckProperties {
        server_keep_alive_seconds: Some(7),
        ..ConnAckProperties::default()
    };
    let peer = Peer::connected(&connect(), connack(properties));
    assert_eq!(
        peer.client.poll_timeout(),
        Some(peer.now + Duration::from_secs(7))
    );
}

/// Verifies [MQTT-3.2.2-11] [MQTT-3.2.2-14] [MQTT-3.2.2-15]: Maximum QoS, Retain Available and Maximum
/// Packet Size of the Server hold for what we send.
#[test]
fn what_the_server_does_not_take_is_not_sent() {
    let properties = ConnAckProperties {
        maximum_qos: Some(Qos::AtLeastOnce),
        retain_available: Some(false),
        maximum_packet_size_bytes: NonZeroU32::new(10),
        shared_subscription_available: Some(false),
        ..ConnAckProperties::default()
    };
    let mut peer = Peer::connected(&connect(), connack(properties));
    assert_eq!(
        peer.publish("a", Qos::ExactlyOnce),
        Err(SendError::QosNotSupported)
    );
    let retained = Publish {
        retain: true,
        ..publish("a", Qos::AtMostOnce, None)
    };
    let refused = peer.client.publish(&retained, peer.now, &mut peer.out);
    assert_eq!(refused, Err(SendError::RetainNotAvailable));
    assert_eq!(
        peer.publish("a/long/topic", Qos::AtLeastOnce),
        Err(SendError::PacketTooLarge)
    );
    let request = SubscriptionRequest {
        filter: "$share/g/a",
        options: SubscriptionOptions::default(),
    };
    let refused = peer
        .client
        .subscribe(&[request], None, &Vec::new(), peer.now, &mut peer.out);
    assert_eq!(refused, Err(SendError::SharedSubscriptionNotAvailable));
    assert_eq!(peer.sent(), Vec::<String>::new());
    assert_eq!(peer.publish("a", Qos::AtLeastOnce).unwrap(), Some(id(2)));
}

/// Verifies [MQTT-3.2.2-17] [MQTT-3.2.2-18] [MQTT-3.3.2-9]: Topic Aliases stay within the Server's maximum.
#[test]
fn topic_aliases_out_stay_within_the_maximum() {
    fn alias(number: u8) -> [u8; 3] {
        [0x23, 0, number]
    }
    let properties = ConnAckProperties {
        topic_alias_maximum: Some(2),
        ..ConnAckProperties::default()
    };
    let mut with = Peer::connected(&connect(), connack(properties));
    let mut without = Peer::default_connected();
    let (two, three) = (alias(2), alias(3));
    let within = Publish {
        properties: PublishProperties::parse(&two).unwrap(),
        ..publish("a", Qos::AtLeastOnce, None)
    };
    let above = Publish {
        properties: PublishProperties::parse(&three).unwrap(),
        ..within
    };
    let invalid = Err(SendError::TopicAliasInvalid);
    assert_eq!(
        without
            .client
            .publish(&within, without.now, &mut without.out),
        invalid
    );
    assert_eq!(
        with.client.publish(&above, with.now, &mut with.out),
        invalid
    );
    let unnamed = Publish {
        topic: "",
        ..within
    };
    assert_eq!(
        with.client.publish(&unnamed, with.now, &mut with.out),
        invalid
    );
    with.client
        .publish(&within, with.now, &mut with.out)
        .unwrap();
    with.client
        .publish(&unnamed, with.now, &mut with.out)
        .unwrap();
    assert_eq!(with.sent(), ["PUBLISH 1", "PUBLISH 2"]);
}

/// Verifies [MQTT-3.3.2-7]: a PUBLISH that is sent again has its Topic Name, not an alias of old.
#[test]
fn a_topic_alias_dies_with_its_connection() {
    let properties = ConnAckProperties {
        topic_alias_maximum: Some(2),
        ..ConnAckProperties::default()
    };
    let mut peer = Peer::connected(&connect(), connack(properties));
    let raw = [0x23, 0, 1];
    let parsed = PublishProperties::parse(&raw).unwrap();
    let named = Publish {
        properties: parsed,
        ..publish("a/b", Qos::AtMostOnce, None)
    };
    peer.client
        .publish(&named, peer.now, &mut peer.out)
        .unwrap();
    let unnamed = Publish {
        topic: "",
        qos: Qos::AtLeastOnce,
        ..named
    };
    peer.client
        .publish(&unnamed, peer.now, &mut peer.out)
        .unwrap();
    let mut again = connect();
    again.clean_start = false;
    let mut peer = Peer::new(&again, Some(peer.client.into_session()));
    peer.sent();
    let mut present = connack(ConnAckProperties::default());
    present.session_present = true;
    peer.receive(&Packet::ConnAck(Box::new(present))).unwrap();
    let (packet, _) = packet::decode(&peer.out, Version::V5, u32::MAX)
        .unwrap()
        .unwrap();
    let Packet::Publish(publish) = packet else {
        panic!("a PUBLISH")
    };
    assert_eq!((publish.topic, publish.dup), ("a/b", true));
    assert_eq!(publish.properties.topic_alias, None);
}

/// Verifies [MQTT-3.2.2-17] [MQTT-3.2.2-18] [MQTT-3.3.2-9]: aliases that are chosen here stay within both maxima, are
/// defined before they are used, and are not kept for another connection.
#[test]
fn topic_aliases_are_chosen_where_the_server_takes_them() {
    let mut announced = connack(ConnAckProperties {
        topic_alias_maximum: Some(2),
        ..ConnAckProperties::default()
    });
    announced.properties.maximum_packet_size_bytes = NonZeroU32::new(40);
    let mut peer = Peer::new(&connect(), None);
    peer.client.use_topic_aliases(16);
    peer.sent();
    let connected = Packet::ConnAck(Box::new(announced));
    peer.receive(&connected).unwrap();
    let too_long = "d".repeat(50);
    let refused = peer.publish(&too_long, Qos::AtMostOnce);
    assert_eq!(refused, Err(SendError::PacketTooLarge));
    for topic in ["a/1", "a/1", "b/2", "c/3", "a/1", "c/3"] {
        peer.publish(topic, Qos::AtLeastOnce).unwrap();
    }
    assert_eq!(
        aliases(&peer.out),
        ["a/1 2", " 2", "b/2 1", "c/3 2", "a/1 1", " 2"]
    );
    let mut again = connect();
    again.clean_start = false;
    let mut peer = Peer::new(&again, Some(peer.client.into_session()));
    peer.sent();
    let mut present = connack(ConnAckProperties::default());
    present.session_present = true;
    peer.receive(&Packet::ConnAck(Box::new(present))).unwrap();
    assert_eq!(
        aliases(&peer.out),
        ["a/1 0", "a/1 0", "b/2 0", "c/3 0", "a/1 0", "c/3 0"]
    );
}

/// A Topic Alias that the application chooses means what it says, whatever was chosen for it before.
#[test]
fn a_topic_alias_of_the_application_wins() {
    let properties = ConnAckProperties {
        topic_alias_maximum: Some(1),
        ..ConnAckProperties::default()
    };
    let mut peer = Peer::new(&connect(), None);
    peer.client.use_topic_aliases(1);
    peer.receive(&Packet::ConnAck(Box::new(connack(properties))))
        .unwrap();
    peer.sent();
    peer.publish("a", Qos::AtMostOnce).unwrap();
    let raw = [0x23, 0, 1];
    let own = Publish {
        properties: PublishProperties::parse(&raw).unwrap(),
        ..publish("b", Qos::AtMostOnce, None)
    };
    peer.client.publish(&own, peer.now, &mut peer.out).unwrap();
    peer.publish("a", Qos::AtMostOnce).unwrap();
    assert_eq!(aliases(&peer.out), ["a 1", "b 1", "a 1"]);
}

/// Topic Name and Topic Alias of each PUBLISH.
fn aliases(mut out: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while let Some((packet, used)) = packet::decode(out, Version::V5, u32::MAX).unwrap() {
        if let Packet::Publish(publish) = packet {
            let alias = publish.properties.topic_alias.unwrap_or(0);
            found.push(format!("{} {alias}", publish.topic));
        }
        out = &out[used..];
    }
    found
}

/// Verifies [MQTT-3.3.2-10]: every Topic Alias up to our maximum is accepted, none above.
#[test]
fn topic_aliases_in_are_resolved() {
    let mut connect = connect();
    connect.properties.topic_alias_maximum = 3;
    let mut peer = Peer::connected(&connect, connack(ConnAckProperties::default()));
    for number in 1..=3_u8 {
        let raw = [0x23, 0, number];
        let properties = PublishProperties::parse(&raw).unwrap();
        let topic = format!("t/{number}");
        let named = Publish {
            properties,
            ..publish(&topic, Qos::AtMostOnce, None)
        };
        assert_eq!(
            peer.receive(&Packet::Publish(named)).unwrap(),
            format!("Publish t/{number}")
        );
        let unnamed = Publish { topic: "", ..named };
        assert_eq!(
            peer.receive(&Packet::Publish(unnamed)).unwrap(),
            format!("Publish t/{number}")
        );
    }
    let properties = PublishProperties::parse(&[0x23, 0, 4]).unwrap();
    let above = Publish {
        properties,
        ..publish("t", Qos::AtMostOnce, None)
    };
    let error = peer.receive(&Packet::Publish(above)).unwrap_err();
    assert_eq!(error.reason_code(), ReasonCode::TopicAliasInvalid);
}

/// Verifies [MQTT-3.3.4-7] [MQTT-4.9.0-1] [MQTT-4.9.0-2]: never more open than the Server's Receive Maximum.
/// Verifies [MQTT-3.3.4-8] [MQTT-4.9.0-3]: a full quota holds back nothing but PUBLISH above QoS 0.
/// Verifies [MQTT-4.4.0-2]: a PUBREC that refuses ends the PUBLISH.
#[test]
fn the_send_quota_is_kept() {
    let properties = ConnAckProperties {
        receive_maximum: NonZeroU16::new(2),
        ..ConnAckProperties::default()
    };
    let mut peer = Peer::connected(&connect(), connack(properties));
    peer.publish("a", Qos::AtLeastOnce).unwrap();
    peer.publish("a", Qos::ExactlyOnce).unwrap();
    assert_eq!(
        peer.publish("a", Qos::AtLeastOnce),
        Err(SendError::QuotaExhausted)
    );
    peer.publish("a", Qos::AtMostOnce).unwrap();
    let request = SubscriptionRequest {
        filter: "a",
        options: SubscriptionOptions::default(),
    };
    peer.client
        .subscribe(&[request], None, &Vec::new(), peer.now, &mut peer.out)
        .unwrap();
    assert_eq!(
        peer.sent(),
        ["PUBLISH 1", "PUBLISH 2", "PUBLISH 0", "SUBSCRIBE"]
    );
    assert_eq!(
        peer.receive(&Packet::PubAck(ack(1))).unwrap(),
        "Published 1 0"
    );
    peer.publish("a", Qos::AtLeastOnce).unwrap();
    assert_eq!(
        peer.publish("a", Qos::AtLeastOnce),
        Err(SendError::QuotaExhausted)
    );
    let refusal = Ack::new(id(2), ReasonCode::QuotaExceeded);
    assert_eq!(
        peer.receive(&Packet::PubRec(refusal)).unwrap(),
        "Published 2 151"
    );
    peer.publish("a", Qos::AtLeastOnce).unwrap();
    assert_eq!(peer.sent(), ["PUBLISH 4", "PUBLISH 5"]);
}

/// Verifies [MQTT-3.3.4-7] [MQTT-4.9.0-1]: the PUBCOMP that ends an exchange of an earlier connection, for which nothing
/// but PUBREL was sent on this one, makes no room for a PUBLISH.
#[test]
fn a_pubcomp_of_an_earlier_connection_gives_no_quota() {
    let properties = ConnAckProperties {
        receive_maximum: NonZeroU16::new(2),
        ..ConnAckProperties::default()
    };
    let mut peer = Peer::connected(&connect(), connack(properties.clone()));
    peer.publish("a", Qos::ExactlyOnce).unwrap();
    peer.receive(&Packet::PubRec(ack(1))).unwrap();
    peer.publish("a", Qos::ExactlyOnce).unwrap();
    let mut again = connect();
    again.clean_start = false;
    let mut peer = Peer::new(&again, Some(peer.client.into_session()));
    let mut present = connack(properties);
    present.session_present = true;
    peer.receive(&Packet::ConnAck(Box::new(present))).unwrap();
    peer.publish("a", Qos::ExactlyOnce).unwrap();
    peer.receive(&Packet::PubComp(ack(1))).unwrap();
    assert_eq!(
        peer.publish("a", Qos::ExactlyOnce),
        Err(SendError::QuotaExhausted)
    );
}

/// Verifies [MQTT-4.4.0-1] [MQTT-4.6.0-1]: what an earlier program has sent is sent again, as what an earlier connection
/// has.
#[test]
fn what_an_earlier_program_has_sent_is_sent_again() {
    let mut session = ClientSession::default();
    let mut packet = Vec::new();
    let message = publish("a", Qos::ExactlyOnce, Some(3));
    packet::encode(&Packet::Publish(message), Version::V5, &mut packet).unwrap();
    assert!(session.restore_release(id(7)));
    assert!(session.restore_publish(id(3), Qos::ExactlyOnce, packet.clone()));
    assert!(!session.restore_publish(id(7), Qos::ExactlyOnce, packet));
    let mut again = connect();
    again.clean_start = false;
    let mut peer = Peer::new(&again, Some(session));
    peer.sent();
    let mut present = connack(ConnAckProperties::default());
    present.session_present = true;
    peer.receive(&Packet::ConnAck(Box::new(present))).unwrap();
    assert_eq!(peer.sent(), ["PUBREL 7", "PUBLISH 3 DUP"]);
    assert_eq!(peer.publish("a", Qos::AtLeastOnce).unwrap(), Some(id(4)));
}

/// Verifies [MQTT-2.2.1-3] [v3.1.1 MQTT-2.3.1-2]: a Packet Identifier in use is not taken again.
#[test]
fn packet_identifiers_are_free_ones() {
    let mut peer = Peer::default_connected();
    assert_eq!(peer.publish("a", Qos::AtLeastOnce).unwrap(), Some(id(1)));
    for number in 2..=u16::MAX {
        assert_eq!(
            peer.publish("a", Qos::AtLeastOnce).unwrap(),
            Some(id(number))
        );
        peer.receive(&Packet::PubAck(ack(number))).unwrap();
    }
    assert_eq!(peer.publish("a", Qos::AtLeastOnce).unwrap(), Some(id(2)));
}

/// Verifies [MQTT-4.3.3-4] [MQTT-4.3.3-5] [MQTT-4.3.3-6] [MQTT-4.6.0-4] [v3.1.1 MQTT-4.6.0-4]: PUBREL
/// answers each PUBREC, in their order, and the PUBLISH is not sent again.
#[test]
fn pubrels_keep_the_order_of_pubrecs() {
    let mut peer = Peer::default_connected();
    for _ in 0..3 {
        peer.publish("a", Qos::ExactlyOnce).unwrap();
    }
    peer.sent();
    for number in [2, 1, 3, 1] {
        assert_eq!(
            peer.receive(&Packet::PubRec(ack(number))).unwrap(),
            format!("Received {number}")
        );
    }
    assert_eq!(
        peer.sent(),
        ["PUBREL 2", "PUBREL 1", "PUBREL 3", "PUBREL 1"]
    );
    assert_eq!(
        peer.receive(&Packet::PubComp(ack(1))).unwrap(),
        "Published 1 0"
    );
    assert_eq!(
        peer.receive(&Packet::PubRec(ack(9))).unwrap(),
        "Handled PUBREC"
    );
    assert_eq!(peer.sent(), ["PUBREL 9 0x92"]);
}

/// Verifies [MQTT-4.5.0-2] [MQTT-4.6.0-2] [MQTT-4.6.0-3] [v3.1.1 MQTT-4.5.0-2] [v3.1.1 MQTT-4.6.0-2]
/// [v3.1.1 MQTT-4.6.0-3]: every message is acknowledged, in the order they came.
#[test]
fn acknowledgements_keep_the_order_of_messages() {
    for version in [Version::V311, Version::V5] {
        let connect = Connect::new(version, "me");
        let mut peer = Peer::connected(&connect, connack(ConnAckProperties::default()));
        for (number, qos) in [
            (7, Qos::AtLeastOnce),
            (3, Qos::ExactlyOnce),
            (5, Qos::AtLeastOnce),
            (4, Qos::ExactlyOnce),
        ] {
            peer.receive(&Packet::Publish(publish("a", qos, Some(number))))
                .unwrap();
        }
        assert_eq!(peer.sent(), Vec::<String>::new());
        for _ in 0..4 {
            peer.acknowledge();
        }
        assert_eq!(
            peer.sent(),
            ["PUBACK 7", "PUBREC 3", "PUBACK 5", "PUBREC 4"]
        );
    }
}

/// Verifies [MQTT-4.3.3-8] [MQTT-4.3.3-10] [MQTT-4.3.3-11] [MQTT-4.3.3-12]: a repeat before PUBREL is
/// acknowledged and not delivered; after PUBCOMP the identifier stands for a new message.
#[test]
fn a_repeated_qos2_publish_is_delivered_once() {
    let mut peer = Peer::default_connected();
    let first = publish("a", Qos::ExactlyOnce, Some(1));
    assert_eq!(peer.receive(&Packet::Publish(first)).unwrap(), "Publish a");
    peer.acknowledge();
    let repeat = Publish { dup: true, ..first };
    assert_eq!(
        peer.receive(&Packet::Publish(repeat)).unwrap(),
        "Handled PUBLISH"
    );
    assert_eq!(peer.sent(), ["PUBREC 1", "PUBREC 1"]);
    peer.receive(&Packet::PubRel(ack(1))).unwrap();
    peer.receive(&Packet::PubRel(ack(1))).unwrap();
    assert_eq!(peer.sent(), ["PUBCOMP 1", "PUBCOMP 1 0x92"]);
    assert_eq!(peer.receive(&Packet::Publish(first)).unwrap(), "Publish a");
}

/// A Server that repeats a message while the application has not taken it gets one answer for all repeats: nothing grows
/// with each.
#[test]
fn repeats_without_end_take_no_memory() {
    let mut peer = Peer::default_connected();
    let first = publish("a", Qos::ExactlyOnce, Some(1));
    peer.receive(&Packet::Publish(first)).unwrap();
    let repeat = Publish { dup: true, ..first };
    for _ in 0..1000 {
        let handled = peer.receive(&Packet::Publish(repeat)).unwrap();
        assert_eq!(handled, "Handled PUBLISH");
    }
    assert_eq!(peer.client.owed_count(), 2);
    peer.acknowledge();
    assert_eq!(peer.sent(), ["PUBREC 1", "PUBREC 1"]);
}

/// Verifies [MQTT-3.3.4-9]: the Server is held to the Receive Maximum of our CONNECT.
#[test]
fn more_messages_than_announced_are_refused() {
    let mut connect = connect();
    connect.properties.receive_maximum = NonZeroU16::new(1);
    let mut peer = Peer::connected(&connect, connack(ConnAckProperties::default()));
    peer.receive(&Packet::Publish(publish("a", Qos::AtLeastOnce, Some(1))))
        .unwrap();
    peer.acknowledge();
    peer.receive(&Packet::Publish(publish("a", Qos::ExactlyOnce, Some(2))))
        .unwrap();
    peer.acknowledge();
    let one_more = Packet::Publish(publish("a", Qos::AtLeastOnce, Some(3)));
    let error = peer.receive(&one_more).unwrap_err();
    assert_eq!(error.reason_code(), ReasonCode::ReceiveMaximumExceeded);
}

/// A Server of 3.1.1 is not held to a Receive Maximum that it never saw.
#[test]
fn properties_bind_no_server_that_does_not_see_them() {
    let mut connect = Connect::new(Version::V311, "me");
    connect.properties.receive_maximum = NonZeroU16::new(1);
    connect.properties.maximum_packet_size_bytes = NonZeroU32::new(1);
    let mut peer = Peer::connected(&connect, connack(ConnAckProperties::default()));
    for number in 1..=3 {
        let message = publish("a", Qos::AtLeastOnce, Some(number));
        peer.receive(&Packet::Publish(message)).unwrap();
    }
}

/// Verifies [MQTT-3.14.4-1] [v3.1.1 MQTT-3.14.4-2]: nothing is sent after DISCONNECT.
#[test]
fn disconnect_is_the_last_packet() {
    let mut peer = Peer::default_connected();
    let disconnect = Disconnect::new(ReasonCode::DisconnectWithWillMessage);
    peer.client
        .disconnect(&disconnect, peer.now, &mut peer.out)
        .unwrap();
    assert_eq!(peer.sent(), ["DISCONNECT 0x04"]);
    assert_eq!(
        peer.publish("a", Qos::AtMostOnce),
        Err(SendError::NotConnected)
    );
    assert_eq!(peer.client.poll_timeout(), None);
}

/// Verifies [v3.1.1 MQTT-3.1.3-7]: an empty Client Identifier comes with Clean Session.
#[test]
fn a_kept_session_needs_a_name_before_5() {
    let mut connect = Connect::new(Version::V311, "");
    connect.clean_start = false;
    let made = ClientConnection::new(
        &connect,
        None,
        ClientTimeouts::default(),
        start(),
        &mut Vec::new(),
    );
    assert_eq!(made.unwrap_err(), SendError::ClientIdMissing);
}

/// Verifies [MQTT-3.2.0-1] [v3.1.1 MQTT-3.2.0-1]: the Server's first packet is CONNACK.
#[test]
fn the_first_packet_from_the_server_is_connack() {
    let mut peer = Peer::new(&connect(), None);
    let early = peer.receive(&Packet::Publish(publish("a", Qos::AtMostOnce, None)));
    assert_eq!(
        early,
        Err(ClientError::UnexpectedPacket(PacketType::Publish))
    );
}

#[test]
fn an_old_server_refuses_in_its_own_words() {
    let mut peer = Peer::new(&connect(), None);
    let event = peer
        .client
        .next_event(&[0x20, 2, 0, 1], peer.now, &mut peer.out);
    let Ok(Some((ClientEvent::Refused(connack), 4))) = event else {
        panic!("{event:?}")
    };
    assert_eq!(connack.reason, ReasonCode::UnsupportedProtocolVersion);
}

#[test]
fn a_server_that_does_not_answer_connect_is_given_up() {
    let mut peer = Peer::new(&connect(), None);
    let late = peer.client.poll_timeout().unwrap();
    let given_up = peer.client.on_timeout(late, &mut peer.out);
    assert_eq!(given_up, Err(ClientError::ConnAckTimeout));
}
