//! The same bytes to another codec: `mqtt-protocol-core` accepts and refuses what we do.
//!
//! Owns: the comparison and the list of known differences. Does not own: the packets (see
//! `arbitrary_tests`), the Fixed Header, which theirs reads in its connection.
//! Start reading at [`compare`]. Invariant: every difference has a reason, in [`difference`].

use mqtt_protocol_core::mqtt::packet::{v3_1_1, v5_0};
use mqtt_protocol_core::mqtt::result_code::MqttError;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{RngAlgorithm, TestRng, TestRunner};

use super::arbitrary_tests::packet_of;
use super::*;
use crate::testing::bytes;

/// What theirs says of a packet with this first byte and this body: bytes used, or why not.
fn theirs(first_byte: u8, body: &[u8], version: Version) -> Result<usize, MqttError> {
    let flags = first_byte & 0x0F;
    let packet_type = PacketType::from_first_byte(first_byte).expect("a packet's first byte");
    macro_rules! used_by {
        ($v3:ident, $v5:ident) => {
            if version.has_properties() {
                v5_0::$v5::parse(body).map(|(_, used)| used)
            } else {
                v3_1_1::$v3::parse(body).map(|(_, used)| used)
            }
        };
        ($name:ident) => {
            used_by!($name, $name)
        };
    }
    match packet_type {
        PacketType::Connect => used_by!(Connect),
        PacketType::ConnAck => used_by!(Connack),
        PacketType::Publish if version.has_properties() => {
            v5_0::Publish::parse(flags, body.into()).map(|(_, used)| used)
        }
        PacketType::Publish => v3_1_1::Publish::parse(flags, body.into()).map(|(_, used)| used),
        PacketType::PubAck => used_by!(Puback),
        PacketType::PubRec => used_by!(Pubrec),
        PacketType::PubRel => used_by!(Pubrel),
        PacketType::PubComp => used_by!(Pubcomp),
        PacketType::Subscribe => used_by!(Subscribe),
        PacketType::SubAck => used_by!(Suback),
        PacketType::Unsubscribe => used_by!(Unsubscribe),
        PacketType::UnsubAck => used_by!(Unsuback),
        PacketType::PingReq => used_by!(Pingreq),
        PacketType::PingResp => used_by!(Pingresp),
        PacketType::Disconnect => used_by!(Disconnect),
        PacketType::Auth => v5_0::Auth::parse(body).map(|(_, used)| used),
    }
}

/// What both say of one whole packet, and whether they may differ.
fn compare(input: &[u8], version: Version) {
    let Ok(Some((first_byte, header_len, packet_len))) = fixed_header(input, u32::MAX) else {
        return;
    };
    if packet_len != input.len() {
        return;
    }
    let ours = decode(input, version, u32::MAX).map(|decoded| decoded.expect("a whole packet").0);
    if matches!(&ours, Ok(Packet::Connect(connect)) if connect.version != version) {
        return;
    }
    let body = &input[header_len..];
    let theirs = theirs(first_byte, body, version);
    if ours.is_ok() != (theirs == Ok(body.len())) {
        let known = difference(&ours, version);
        assert!(
            known.is_some(),
            "{version:?} {input:?}: {ours:?} {theirs:?}"
        );
    }
}

/// Why theirs answers otherwise than we do, where it does.
fn difference(ours: &Result<Packet<'_>, Malformed>, version: Version) -> Option<&'static str> {
    Some(match ours {
        Err(Malformed::NullCharacter) => "theirs takes U+0000 in a string, against [MQTT-1.5.4-2]",
        Err(
            Malformed::TopicFilterMultiLevel
            | Malformed::TopicFilterSingleLevel
            | Malformed::ShareNameInvalid
            | Malformed::NoLocalOnShared,
        ) => "theirs takes any string as a Topic Filter and leaves it to the application",
        Err(Malformed::WildcardInTopicName) => "theirs leaves a Topic Name to the application, too",
        Err(Malformed::ConnectReservedFlag) => "theirs masks it, against [MQTT-3.1.2-3]",
        Err(Malformed::ConnAckFlags) => "theirs masks them, against [MQTT-3.2.2-1]",
        Err(Malformed::SubscriptionOptions) if version == Version::V311 => {
            "theirs reads the options of 5.0 in 3.1.1, against [v3.1.1 MQTT-3.8.3-4]"
        }
        Err(Malformed::PacketIdentifierZero) => "theirs takes 0 in an UNSUBACK of 3.1.1",
        Ok(Packet::Connect(connect)) if connect.password.is_some() => {
            "theirs asks for a user name before a password in 5.0, where 3.1.2.9 lifted that"
        }
        Ok(Packet::Disconnect(disconnect))
            if disconnect.reason == ReasonCode::BadAuthenticationMethod =>
        {
            "0x8C is for DISCONNECT in table 2-6, and missing in that of 3.14.2.1"
        }
        _ => return None,
    })
}

/// The same packets on every run, so that a new rare difference in theirs stops nobody;
/// `PROPTEST_CASES=100000` looks further.
#[test]
fn another_codec_takes_and_refuses_the_same() {
    let packets = select(vec![Version::V311, Version::V5])
        .prop_flat_map(|version| packet_of(version).prop_map(move |packet| (version, packet)));
    let mut config = ProptestConfig::default();
    config.cases = config.cases.max(1000);
    config.failure_persistence = None;
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let checked = runner.run(
        &(packets, any::<Index>(), any::<u8>()),
        |((version, packet), at, byte)| {
            let mut input = bytes(&packet, version);
            compare(&input, version);
            let (_, header_len, packet_len) = fixed_header(&input, u32::MAX)?.expect("a header");
            if packet_len > header_len {
                input[header_len + at.index(packet_len - header_len)] = byte;
                compare(&input, version);
            }
            Ok(())
        },
    );
    checked.unwrap();
}
