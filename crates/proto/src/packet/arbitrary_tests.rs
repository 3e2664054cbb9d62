//! Arbitrary packets there and back; arbitrary bytes to an answer, never a panic.
//!
//! Owns: a strategy for each packet. Does not own: the tables (see `tests`).
//! Start reading at [`packet`]. Invariant: a strategy yields only what a sender may send.

use std::num::{NonZeroU16, NonZeroU32};
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::option::of;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::strategy::Union;

use super::*;
use crate::testing::{bytes, id};
use crate::{Message, PacketIdentifier, Qos, Secret};

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];

/// Packets borrow; a test run may keep what they borrow from.
fn kept(text: String) -> &'static str {
    text.leak()
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,8}"
}

fn topic_name() -> impl Strategy<Value = String> {
    "[a-c/$\u{E9}\u{1F600}]{1,9}"
}

fn topic_filter() -> impl Strategy<Value = String> {
    "(\\$share/g/)?(\\+|[a-c$]{1,3})(/(\\+|[a-c]{0,3})){0,3}(/#)?"
}

fn binary() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..200)
}

fn secret() -> impl Strategy<Value = Secret> {
    binary().prop_map(Secret::new)
}

fn packet_id() -> impl Strategy<Value = PacketIdentifier> {
    (1..=u16::MAX).prop_map(id)
}

fn qos() -> impl Strategy<Value = Qos> {
    select(vec![Qos::AtMostOnce, Qos::AtLeastOnce, Qos::ExactlyOnce])
}

fn users() -> impl Strategy<Value = UserProperties> {
    vec((text(), text()), 0..4)
}

fn reason(packet_type: PacketType) -> impl Strategy<Value = ReasonCode> {
    let all = ReasonCode::ALL.iter().copied();
    let allowed: Vec<_> = all
        .filter(|reason| reason.is_allowed_in(packet_type))
        .collect();
    select(allowed)
}

fn explanation() -> impl Strategy<Value = Option<Box<ReasonProperties>>> {
    (of(text()), users()).prop_map(|(reason_string, user_properties)| {
        ReasonProperties {
            reason_string,
            user_properties,
        }
        .boxed()
    })
}

/// The properties a subscriber gets unaltered, encoded.
fn forwarded() -> impl Strategy<Value = Vec<u8>> {
    let users = users();
    (
        of(0..2_u8),
        of(text()),
        of(topic_name()),
        of(binary()),
        users,
    )
        .prop_map(
            |(format, content_type, response_topic, correlation_data, users)| {
                let mut out = Vec::new();
                let properties = [
                    response_topic.as_deref().map(Property::ResponseTopic),
                    format.map(Property::PayloadFormatIndicator),
                    correlation_data.as_deref().map(Property::CorrelationData),
                    content_type.as_deref().map(Property::ContentType),
                ];
                for property in properties.iter().flatten() {
                    property.put(&mut out).unwrap();
                }
                put_all(&users, &mut out);
                out
            },
        )
}

fn put_all(users: &UserProperties, out: &mut Vec<u8>) {
    for (name, value) in users {
        Property::UserProperty(name, value).put(out).unwrap();
    }
}

fn publish(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let special = (
        of(1..=u16::MAX),
        of(any::<u32>()),
        vec(1..268_435_456_u32, 0..3),
    );
    let head = (
        any::<bool>(),
        qos(),
        any::<bool>(),
        packet_id(),
        topic_name(),
    );
    (head, special, forwarded(), binary()).prop_map(move |(head, special, mut raw, payload)| {
        let (dup, qos, retain, packet_id, topic) = head;
        let (alias, expiry, identifiers) = special;
        alias
            .into_iter()
            .for_each(|value| Property::TopicAlias(value).put(&mut raw).unwrap());
        if let Some(value) = expiry {
            Property::MessageExpiryInterval(value)
                .put(&mut raw)
                .unwrap();
        }
        for value in identifiers {
            Property::SubscriptionIdentifier(value)
                .put(&mut raw)
                .unwrap();
        }
        if !version.has_properties() {
            raw.clear();
        }
        let is_acknowledged = qos != Qos::AtMostOnce;
        Packet::Publish(Publish {
            dup: dup && is_acknowledged,
            qos,
            retain,
            topic: kept(topic),
            packet_id: is_acknowledged.then_some(packet_id),
            properties: PublishProperties::parse(raw.leak()).unwrap(),
            payload: payload.leak(),
        })
    })
}

fn will() -> impl Strategy<Value = Will> {
    let properties = (any::<u32>(), of(any::<u32>()), forwarded());
    (topic_name(), binary(), qos(), any::<bool>(), properties).prop_map(
        |(topic, payload, qos, retain, (delay, expiry, forwarded))| Will {
            topic,
            payload: payload.into(),
            qos,
            retain,
            properties: WillProperties {
                delay_interval_seconds: delay,
                message_expiry_interval_seconds: expiry,
                forwarded: forwarded.into(),
            },
        },
    )
}

fn connect_properties() -> impl Strategy<Value = ConnectProperties> {
    let numbers = (of(any::<u32>()), 0..4_u16, 0..4_u32, any::<u16>());
    let flags = (any::<bool>(), any::<bool>());
    (numbers, flags, users(), of((text(), of(secret())))).prop_map(
        |(numbers, flags, user_properties, authentication)| {
            let (expiry, receive_maximum, size, topic_alias_maximum) = numbers;
            let (authentication_method, authentication_data) = authentication.unzip();
            ConnectProperties {
                session_expiry_interval_seconds: expiry,
                receive_maximum: NonZeroU16::new(receive_maximum),
                maximum_packet_size_bytes: NonZeroU32::new(size),
                topic_alias_maximum,
                request_response_information: flags.0,
                request_problem_information: flags.1,
                user_properties,
                authentication_method,
                authentication_data: authentication_data.flatten(),
            }
        },
    )
}

fn connect(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let head = (any::<bool>(), any::<u16>(), text());
    let names = (of(text()), of(secret()));
    (head, of(will()), names, connect_properties()).prop_map(
        move |(head, mut will, (user_name, password), properties)| {
            let (clean_start, keep_alive_seconds, client_id) = head;
            let mut connect = Connect::new(version, client_id);
            if version.has_properties() {
                connect.properties = properties;
            } else if let Some(will) = &mut will {
                will.properties = WillProperties::default();
            }
            let keeps_password = version.has_properties() || user_name.is_some();
            Packet::Connect(Box::new(Connect {
                clean_start,
                keep_alive_seconds,
                will,
                user_name,
                password: password.filter(|_| keeps_password),
                ..connect
            }))
        },
    )
}

fn connack() -> impl Strategy<Value = Packet<'static>> {
    let flag = || of(any::<bool>());
    let numbers = (
        of(any::<u32>()),
        0..4_u16,
        0..4_u32,
        of(any::<u16>()),
        of(any::<u16>()),
    );
    let flags = (
        flag(),
        flag(),
        flag(),
        flag(),
        of(select(vec![Qos::AtMostOnce, Qos::AtLeastOnce])),
    );
    let texts = (
        of(text()),
        of(text()),
        of(text()),
        of(text()),
        of(text()),
        of(secret()),
    );
    let head = (any::<bool>(), reason(PacketType::ConnAck), users());
    (head, numbers, flags, texts).prop_map(|(head, numbers, flags, texts)| {
        let (session_present, reason, user_properties) = head;
        Packet::ConnAck(Box::new(ConnAck {
            session_present: session_present && reason == ReasonCode::Success,
            reason,
            properties: ConnAckProperties {
                session_expiry_interval_seconds: numbers.0,
                receive_maximum: NonZeroU16::new(numbers.1),
                maximum_packet_size_bytes: NonZeroU32::new(numbers.2),
                topic_alias_maximum: numbers.3,
                server_keep_alive_seconds: numbers.4,
                retain_available: flags.0,
                wildcard_subscription_available: flags.1,
                subscription_identifier_available: flags.2,
                shared_subscription_available: flags.3,
                maximum_qos: flags.4,
                assigned_client_id: texts.0,
                reason_string: texts.1,
                response_information: texts.2,
                server_reference: texts.3,
                authentication_method: texts.4,
                authentication_data: texts.5,
                user_properties,
            },
        }))
    })
}

fn ack(
    packet_type: PacketType,
    wrap: fn(Ack) -> Packet<'static>,
) -> impl Strategy<Value = Packet<'static>> {
    (packet_id(), reason(packet_type), explanation()).prop_map(
        move |(packet_id, reason, properties)| {
            wrap(Ack {
                packet_id,
                reason,
                properties,
            })
        },
    )
}

fn options(version: Version) -> impl Strategy<Value = SubscriptionOptions> {
    let handling = select(vec![
        RetainHandling::Send,
        RetainHandling::SendIfNew,
        RetainHandling::DoNotSend,
    ]);
    (qos(), any::<bool>(), any::<bool>(), handling).prop_map(
        move |(qos, no_local, retain_as_published, retain_handling)| {
            if version.has_properties() {
                SubscriptionOptions {
                    qos,
                    no_local,
                    retain_as_published,
                    retain_handling,
                }
            } else {
                SubscriptionOptions {
                    qos,
                    ..SubscriptionOptions::default()
                }
            }
        },
    )
}

fn subscribe(version: Version) -> impl Strategy<Value = Packet<'static>> {
    let requests = vec((topic_filter(), options(version)), 1..4);
    (packet_id(), of(1..268_435_456_u32), users(), requests).prop_map(
        move |(packet_id, identifier, users, requests)| {
            let requests = requests.into_iter().map(|(filter, mut options)| {
                options.no_local &= !filter.starts_with("$share/");
                SubscriptionRequest {
                    filter: kept(filter),
                    options,
                }
            });
            let has_properties = version.has_properties();
            Packet::Subscribe(Subscribe {
                packet_id,
                subscription_identifier: identifier.filter(|_| has_properties),
                user_properties: if has_properties { users } else { Vec::new() },
                requests: requests.collect(),
            })
        },
    )
}

fn unsubscribe(version: Version) -> impl Strategy<Value = Packet<'static>> {
    (packet_id(), users(), vec(topic_filter(), 1..4)).prop_map(
        move |(packet_id, users, filters)| {
            let has_properties = version.has_properties();
            Packet::Unsubscribe(Unsubscribe {
                packet_id,
                user_properties: if has_properties { users } else { Vec::new() },
                filters: filters.into_iter().map(kept).collect(),
            })
        },
    )
}

fn suback() -> impl Strategy<Value = Packet<'static>> {
    let reasons = vec(reason(PacketType::SubAck), 1..4);
    (packet_id(), reasons, explanation()).prop_map(|(packet_id, reasons, properties)| {
        Packet::SubAck(SubAck {
            packet_id,
            reasons,
            properties,
        })
    })
}

fn unsuback() -> impl Strategy<Value = Packet<'static>> {
    let reasons = vec(reason(PacketType::UnsubAck), 1..4);
    (packet_id(), reasons, explanation()).prop_map(|(packet_id, reasons, properties)| {
        Packet::UnsubAck(UnsubAck {
            packet_id,
            reasons,
            properties,
        })
    })
}

fn disconnect() -> impl Strategy<Value = Packet<'static>> {
    let head = (reason(PacketType::Disconnect), of(any::<u32>()));
    (head, of(text()), of(text()), users()).prop_map(|(head, why, server_reference, users)| {
        Packet::Disconnect(Disconnect {
            reason: head.0,
            session_expiry_interval_seconds: head.1,
            reason_string: why,
            user_properties: users,
            server_reference,
        })
    })
}

fn auth() -> impl Strategy<Value = Packet<'static>> {
    (
        reason(PacketType::Auth),
        text(),
        of(secret()),
        of(text()),
        users(),
    )
        .prop_map(|(reason, method, data, reason_string, user_properties)| {
            Packet::Auth(Box::new(Auth {
                reason_string,
                user_properties,
                ..Auth::new(reason, method, data)
            }))
        })
}

/// Every packet that `version` has.
pub(super) fn packet_of(version: Version) -> BoxedStrategy<Packet<'static>> {
    let mut packets = vec![
        connect(version).boxed(),
        publish(version).boxed(),
        ack(PacketType::PubAck, Packet::PubAck).boxed(),
        ack(PacketType::PubRec, Packet::PubRec).boxed(),
        ack(PacketType::PubRel, Packet::PubRel).boxed(),
        ack(PacketType::PubComp, Packet::PubComp).boxed(),
        subscribe(version).boxed(),
        suback().boxed(),
        unsubscribe(version).boxed(),
        unsuback().boxed(),
        disconnect().boxed(),
        Just(Packet::PingReq).boxed(),
        Just(Packet::PingResp).boxed(),
    ];
    if version.has_properties() {
        packets.push(connack().boxed());
        packets.push(auth().boxed());
    }
    Union::new(packets).boxed()
}

fn packet() -> impl Strategy<Value = (Version, Packet<'static>)> {
    select(VERSIONS.to_vec())
        .prop_flat_map(|version| packet_of(version).prop_map(move |packet| (version, packet)))
}

/// Whatever it is, the answer is one of three, and a packet can be written and read again.
fn check_any_input(input: &[u8], version: Version) {
    let Ok(Some((packet, used))) = decode(input, version, u32::MAX) else {
        return;
    };
    assert!(used <= input.len());
    let version = match &packet {
        Packet::Connect(connect) => connect.version,
        _ => version,
    };
    let written = bytes(&packet, version);
    let (again, _) = decode(&written, version, u32::MAX).unwrap().unwrap();
    assert_eq!(again, packet);
}

#[allow(
    clippy::disallowed_methods,
    reason = "any instant will do to start from"
)]
fn start() -> Instant {
    Instant::now()
}

proptest! {
    #[test]
    fn every_packet_comes_back_as_it_was((version, packet) in packet()) {
        let written = bytes(&packet, version);
        let (read, used) = decode(&written, version, u32::MAX).unwrap().unwrap();
        prop_assert_eq!(used, written.len());
        if version.has_properties() {
            prop_assert_eq!(&read, &packet);
        }
        prop_assert_eq!(bytes(&read, version), written);
    }

    #[test]
    fn a_packet_ends_where_it_ends((version, packet) in packet(), more in binary()) {
        let mut input = bytes(&packet, version);
        let len = input.len();
        input.extend_from_slice(&more);
        let (_, used) = decode(&input, version, u32::MAX).unwrap().unwrap();
        prop_assert_eq!(used, len);
    }

    #[test]
    fn the_beginning_of_a_packet_asks_for_more((version, packet) in packet()) {
        let written = bytes(&packet, version);
        for len in 0..written.len() {
            prop_assert_eq!(decode(&written[..len], version, u32::MAX), Ok(None));
        }
    }

    #[test]
    fn any_bytes_have_an_answer(input in binary(), first_byte in any::<u8>()) {
        for version in VERSIONS {
            check_any_input(&input, version);
            // With a header that fits, the body is looked at.
            let body = &input[..input.len().min(127)];
            let mut framed = vec![first_byte, u8::try_from(body.len()).unwrap()];
            framed.extend_from_slice(body);
            check_any_input(&framed, version);
        }
    }

    #[test]
    fn a_spoilt_packet_has_an_answer(
        (version, packet) in packet(),
        changes in vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut input = bytes(&packet, version);
        for (index, byte) in changes {
            let at = index.index(input.len());
            input[at] = byte;
        }
        check_any_input(&input, version);
    }

    #[test]
    fn a_delivery_is_as_long_as_it_says_and_reads_back(
        packet in publish(Version::V5),
        (qos, retain, dup, packet_id) in (qos(), any::<bool>(), any::<bool>(), packet_id()),
        (expiry, identifiers) in (of(any::<u32>()), vec(1..268_435_456_u32, 0..3)),
        alias in of((any::<bool>(), 1..=u16::MAX)),
        shared in any::<bool>(),
    ) {
        let Packet::Publish(received) = packet else { unreachable!("a PUBLISH strategy") };
        let buffer = Bytes::from_static(received.payload);
        let message = Message::from_publish(
            &Publish { payload: &buffer, ..received },
            shared.then_some(&buffer),
            start(),
        );
        let is_acknowledged = qos != Qos::AtMostOnce;
        let alias = alias.map(|(is_known, alias)| if is_known {
            TopicAliasUse::Replace(alias)
        } else {
            TopicAliasUse::Define(alias)
        });
        for version in VERSIONS {
            let has_properties = version.has_properties();
            let delivery = OutgoingPublish {
                hidden_topic_bytes: 0,
                message: &message,
                dup: dup && is_acknowledged,
                qos,
                retain,
                packet_id: is_acknowledged.then_some(packet_id),
                topic_alias: alias.filter(|_| has_properties),
                message_expiry_interval_seconds: expiry.filter(|_| has_properties),
                subscription_identifiers: &identifiers,
            };
            let mut written = Vec::new();
            delivery.put(version, &mut written).unwrap();
            prop_assert_eq!(u32::try_from(written.len()).unwrap(), delivery.encoded_len(version));
            let (read, _) = decode(&written, version, u32::MAX).unwrap().unwrap();
            let Packet::Publish(read) = read else { unreachable!("a PUBLISH was written") };
            let is_replaced = matches!(delivery.topic_alias, Some(TopicAliasUse::Replace(_)));
            prop_assert_eq!(read.topic, if is_replaced { "" } else { received.topic });
            prop_assert_eq!(
                (read.dup, read.qos, read.retain, read.packet_id, read.payload),
                (delivery.dup, qos, retain, delivery.packet_id, received.payload)
            );
            let mut forwarded = Vec::new();
            read.properties.put_forwarded(&mut forwarded);
            let expected = if has_properties { message.forwarded_properties() } else { &[] };
            prop_assert_eq!(forwarded, expected);
            let read_expiry = read.properties.message_expiry_interval_seconds;
            prop_assert_eq!(read_expiry, delivery.message_expiry_interval_seconds);
        }
    }

    /// Verifies [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18]
    /// [MQTT-3.3.2-20]: what is to be forwarded is forwarded unaltered and in order.
    #[test]
    fn a_message_keeps_its_properties_in_order(packet in publish(Version::V5)) {
        let Packet::Publish(received) = packet else { unreachable!("a PUBLISH strategy") };
        let message = Message::from_publish(&received, None, start());
        let expected: Vec<_> = received
            .properties
            .iter()
            .filter(|property| !matches!(property.identifier(), 0x02 | 0x0B | 0x23))
            .collect();
        prop_assert_eq!(message.properties().collect::<Vec<_>>(), expected);
        prop_assert_eq!((message.topic(), message.payload()), (received.topic, received.payload));
    }

    /// Verifies [MQTT-3.3.2-6]: an interval never grows while it waits, and ends.
    /// Verifies [MQTT-3.3.2-5]: then the message is expired.
    #[test]
    fn an_expiry_interval_runs_down(seconds in any::<u32>(), waited in any::<u32>()) {
        let mut raw = Vec::new();
        Property::MessageExpiryInterval(seconds).put(&mut raw).unwrap();
        let publish = Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            topic: "t",
            packet_id: None,
            properties: PublishProperties::parse(&raw).unwrap(),
            payload: b"",
        };
        let now = start();
        let message = Message::from_publish(&publish, None, now);
        let later = now + Duration::from_secs(u64::from(waited));
        let left = seconds.saturating_sub(waited);
        prop_assert_eq!(message.remaining_expiry_seconds(later), Some(left));
        prop_assert_eq!(message.is_expired(later), left == 0);
    }
}
