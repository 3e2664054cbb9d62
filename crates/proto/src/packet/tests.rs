//! The codec against the tables of the standard.
//!
//! Owns: what is refused, and why. Does not own: what may come when.
//! Start reading at [`refusal`]. Invariant: tables are copied from the standard, not from the code.

use super::wire::{put_variable_byte_integer, read_variable_byte_integer};
use super::*;
use crate::Qos;
use crate::testing::{bytes, id, publish, raw};

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];
const V5: Version = Version::V5;
const V311: Version = Version::V311;

/// Why `input` is refused.
fn refusal(input: &[u8], version: Version) -> Malformed {
    match decode(input, version, u32::MAX) {
        Err(malformed) => malformed,
        Ok(other) => panic!("{input:02X?} is {other:?}"),
    }
}

fn accepted(input: &[u8], version: Version) -> Packet<'_> {
    match decode(input, version, u32::MAX) {
        Ok(Some((packet, used))) => {
            assert_eq!(used, input.len());
            packet
        }
        other => panic!("{input:02X?} {version} is {other:?}"),
    }
}

// Fixed Header.

/// Verifies [MQTT-1.5.5-1]: a Variable Byte Integer has as few bytes as its value needs.
#[test]
fn variable_byte_integers_are_minimal() {
    for (value, encoded) in [
        (0, &[0x00][..]),
        (127, &[0x7F]),
        (128, &[0x80, 0x01]),
        (16_383, &[0xFF, 0x7F]),
        (16_384, &[0x80, 0x80, 0x01]),
        (2_097_151, &[0xFF, 0xFF, 0x7F]),
        (2_097_152, &[0x80, 0x80, 0x80, 0x01]),
        (268_435_455, &[0xFF, 0xFF, 0xFF, 0x7F]),
    ] {
        let mut out = Vec::new();
        put_variable_byte_integer(&mut out, value);
        assert_eq!(out, encoded);
        assert_eq!(
            read_variable_byte_integer(encoded),
            Ok(Some((value, encoded.len())))
        );
        assert_eq!(wire::variable_byte_integer_len(value), encoded.len());
        assert_eq!(
            read_variable_byte_integer(&encoded[..encoded.len() - 1]),
            Ok(None)
        );
    }
    for encoded in [
        &[0x80, 0x00][..],
        &[0xFF, 0x80, 0x00],
        &[0x80, 0x80, 0x80, 0x00],
    ] {
        let found = read_variable_byte_integer(encoded);
        assert_eq!(found, Err(Malformed::VariableByteIntegerNotMinimal));
    }
    for encoded in [&[0x80; 4][..], &[0xFF; 5]] {
        let found = read_variable_byte_integer(encoded);
        assert_eq!(found, Err(Malformed::VariableByteIntegerTooLong));
    }
}

/// Verifies [MQTT-2.1.3-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1] [MQTT-3.15.1-1]: other
/// flags than the listed ones are refused.
/// Verifies [v3.1.1 MQTT-2.2.2-1] [v3.1.1 MQTT-2.2.2-2] [v3.1.1 MQTT-3.6.1-1]
/// [v3.1.1 MQTT-3.8.1-1] [v3.1.1 MQTT-3.10.1-1] [v3.1.1 MQTT-3.14.1-1]: the same in 3.1.1.
/// Verifies [MQTT-3.6.1-1]: PUBREL has the flags 0010.
#[test]
fn reserved_flags_are_refused() {
    for version in VERSIONS {
        for packet_type in (1..=15_u8).filter(|packet_type| *packet_type != 3) {
            let listed = if [6, 8, 10].contains(&packet_type) {
                0b0010
            } else {
                0
            };
            for flags in (0..16_u8).filter(|flags| *flags != listed) {
                let is_dup_of_3_1 = version == Version::V31 && listed != 0 && flags == 0b1010;
                let found = refusal(&[packet_type << 4 | flags, 0], version);
                assert_eq!(found != Malformed::ReservedFlags, is_dup_of_3_1);
            }
        }
    }
    assert_eq!(refusal(&[0x00], V5), Malformed::ReservedPacketType);
}

/// Bytes after the last field, and fields beyond the packet, are refused.
#[test]
fn a_packet_has_exactly_its_fields() {
    for version in VERSIONS {
        assert_eq!(refusal(&[0xC0, 1, 0], version), Malformed::TrailingBytes);
        assert_eq!(refusal(&[0x40, 1, 0], version), Malformed::Truncated);
        assert_eq!(
            refusal(&raw(0x30, b"\x00\x05abc"), version),
            Malformed::Truncated
        );
    }
    assert_eq!(refusal(&[0x40, 3, 0, 1, 0], V311), Malformed::TrailingBytes);
    assert_eq!(refusal(&[0xE0, 1, 0], V311), Malformed::TrailingBytes);
}

/// Verifies [MQTT-3.2.2-15]: the maximum counts every byte of the packet.
#[test]
fn the_maximum_packet_size_counts_the_fixed_header() {
    let input = publish("a").bytes(V311);
    let len = u32::try_from(input.len()).unwrap();
    assert!(decode(&input, V311, len).unwrap().is_some());
    assert_eq!(
        decode(&input[..2], V311, len - 1),
        Err(Malformed::PacketTooLarge)
    );
}

// Strings.

/// Verifies [MQTT-1.5.4-1]: ill-formed UTF-8 and surrogates are refused.
/// Verifies [MQTT-1.5.4-2]: so is U+0000.
/// Verifies [v3.1.1 MQTT-1.5.3-1] [v3.1.1 MQTT-1.5.3-2]: the same in 3.1.1.
/// Verifies [MQTT-3.3.2-1] [v3.1.1 MQTT-3.3.2-1]: a Topic Name is such a string.
#[test]
fn strings_are_well_formed_utf_8_without_null() {
    let topic = |text: &[u8]| {
        let len = u8::try_from(text.len()).unwrap();
        raw(0x30, &[&[0, len], text, &[0]].concat())
    };
    for version in VERSIONS {
        for text in [
            &b"\xED\xA0\x80"[..],
            b"\xED\xBF\xBF",
            b"\xC0\x80",
            b"a\xFF",
            b"\xF4\x90\x80\x80",
            b"\xE2\x82",
        ] {
            assert_eq!(
                refusal(&topic(text), version),
                Malformed::Utf8,
                "{text:02X?}"
            );
        }
        assert_eq!(refusal(&topic(b"a\0"), version), Malformed::NullCharacter);
    }
}

/// Verifies [MQTT-1.5.4-3]: U+FEFF is kept wherever it stands.
/// Verifies [v3.1.1 MQTT-1.5.3-3]: the same in 3.1.1.
#[test]
fn a_byte_order_mark_is_kept() {
    for version in VERSIONS {
        let input = publish("\u{FEFF}a").bytes(version);
        let Packet::Publish(publish) = accepted(&input, version) else {
            panic!("not a PUBLISH");
        };
        assert_eq!(publish.topic, "\u{FEFF}a");
    }
}

/// Verifies [MQTT-1.5.7-1]: both halves of a User Property are such strings.
#[test]
fn both_halves_of_a_user_property_are_strings() {
    for section in [
        &b"\x26\x00\x01\xFF\x00\x00"[..],
        b"\x26\x00\x00\x00\x01\xFF",
    ] {
        let mut body = vec![0, 1, 0, u8::try_from(section.len()).unwrap()];
        body.extend_from_slice(section);
        assert_eq!(refusal(&raw(0x40, &body), V5), Malformed::Utf8);
    }
}

/// Verifies [MQTT-4.7.3-3]: a string of more than 65,535 bytes is not written.
/// Verifies [v3.1.1 MQTT-4.7.3-3]: the same in 3.1.1.
#[test]
fn a_string_too_long_leaves_nothing_behind() {
    let long = "x".repeat(65_536);
    let packet = Packet::Connect(Box::new(Connect::new(V5, long)));
    let mut out = vec![1];
    assert_eq!(
        encode(&packet, V5, &mut out),
        Err(EncodeError::FieldTooLong)
    );
    assert_eq!(out, [1]);
}

// Properties.

/// Table 2-4: identifier, a value, where it may stand (C CONNECT, W Will, K CONNACK, P PUBLISH,
/// A PUBACK PUBREC PUBREL PUBCOMP SUBACK UNSUBACK, S SUBSCRIBE, U UNSUBSCRIBE, D DISCONNECT, X AUTH).
const TABLE_2_4: [(u8, &[u8], &str); 27] = [
    (0x01, &[1], "PW"),
    (0x02, &[0, 0, 0, 1], "PW"),
    (0x03, b"\x00\x01a", "PW"),
    (0x08, b"\x00\x01a", "PW"),
    (0x09, b"\x00\x01a", "PW"),
    (0x0B, &[1], "PS"),
    (0x11, &[0, 0, 0, 1], "CKD"),
    (0x12, b"\x00\x01a", "K"),
    (0x13, &[0, 1], "K"),
    (0x15, b"\x00\x01a", "CKX"),
    (0x16, b"\x00\x01a", "CKX"),
    (0x17, &[1], "C"),
    (0x18, &[0, 0, 0, 1], "W"),
    (0x19, &[1], "C"),
    (0x1A, b"\x00\x01a", "K"),
    (0x1C, b"\x00\x01a", "KD"),
    (0x1F, b"\x00\x01a", "KAXD"),
    (0x21, &[0, 1], "CK"),
    (0x22, &[0, 1], "CK"),
    (0x23, &[0, 1], "P"),
    (0x24, &[1], "K"),
    (0x25, &[1], "K"),
    (0x26, b"\x00\x01a\x00\x01b", "CKPWASUDX"),
    (0x27, &[0, 0, 0, 1], "CK"),
    (0x28, &[1], "K"),
    (0x29, &[1], "K"),
    (0x2A, &[1], "K"),
];

/// A packet of each type with these properties: letter of the table, bytes.
fn packets_with(section: &[u8]) -> Vec<(char, Vec<u8>)> {
    let len = [u8::try_from(section.len()).unwrap()];
    let packet = |first_byte, before: &[u8], after: &[u8]| {
        raw(first_byte, &[before, &len, section, after].concat())
    };
    let mut packets = vec![
        ('C', packet(0x10, b"\x00\x04MQTT\x05\x02\x00\x00", &[0, 0])),
        (
            'W',
            packet(
                0x10,
                b"\x00\x04MQTT\x05\x06\x00\x00\x00\x00\x00",
                b"\x00\x01w\x00\x00",
            ),
        ),
        ('K', packet(0x20, &[0, 0], &[])),
        ('P', packet(0x30, b"\x00\x01t", &[])),
        ('S', packet(0x82, &[0, 1], b"\x00\x01f\x00")),
        ('A', packet(0x90, &[0, 1], &[0])),
        ('U', packet(0xA2, &[0, 1], b"\x00\x01f")),
        ('A', packet(0xB0, &[0, 1], &[0])),
        ('D', packet(0xE0, &[0], &[])),
        ('X', packet(0xF0, &[0x18], &[])),
    ];
    for first_byte in [0x40, 0x50, 0x62, 0x70] {
        packets.push(('A', packet(first_byte, &[0, 1, 0], &[])));
    }
    packets
}

/// What a packet needs beside the property under test.
fn with_method(letter: char, identifier: u8, section: &mut Vec<u8>) {
    if (letter == 'X' || (letter == 'C' && identifier == 0x16)) && identifier != 0x15 {
        section.extend_from_slice(b"\x15\x00\x01m");
    }
}

fn packet_with(letter: char, index: usize, section: &[u8]) -> Vec<u8> {
    let (found, packet) = packets_with(section).swap_remove(index);
    assert_eq!(found, letter);
    packet
}

/// Section 2.2.2.2: a property in a packet that table 2-4 does not list is Malformed Packet.
#[test]
fn all_27_properties_stand_where_the_table_says_and_nowhere_else() {
    for (identifier, value, places) in TABLE_2_4 {
        let section = [&[identifier], value].concat();
        let letters = packets_with(&section);
        for (index, (letter, _)) in letters.into_iter().enumerate() {
            let mut section = section.clone();
            with_method(letter, identifier, &mut section);
            let input = packet_with(letter, index, &section);
            if places.contains(letter) {
                let packet = accepted(&input, V5);
                assert!(bytes(&packet, V5).len() <= input.len());
            } else {
                assert_eq!(refusal(&input, V5), Malformed::PropertyNotAllowed);
            }
        }
    }
    assert_eq!(
        Malformed::PropertyNotAllowed.reason_code(),
        ReasonCode::MalformedPacket
    );
}

/// Sections 3.1.2.11 to 3.15.2.2: a property twice is a Protocol Error, but for User Property, and
/// Subscription Identifier in PUBLISH.
#[test]
fn only_user_properties_and_identifiers_in_publish_repeat() {
    for (identifier, value, places) in TABLE_2_4 {
        let section = [&[identifier], value, &[identifier], value].concat();
        for (index, (letter, _)) in packets_with(&section).into_iter().enumerate() {
            if !places.contains(letter) {
                continue;
            }
            let mut section = section.clone();
            with_method(letter, identifier, &mut section);
            let input = packet_with(letter, index, &section);
            if identifier == 0x26 || (identifier == 0x0B && letter == 'P') {
                accepted(&input, V5);
            } else {
                assert_eq!(refusal(&input, V5), Malformed::PropertyRepeated);
            }
        }
    }
    assert_eq!(
        Malformed::PropertyRepeated.reason_code(),
        ReasonCode::ProtocolError
    );
}

/// Section 2.2.2.2: there are 27 properties.
#[test]
fn every_other_property_identifier_is_unknown() {
    for identifier in 0..128_u8 {
        if TABLE_2_4.iter().all(|(known, ..)| *known != identifier) {
            for (_, input) in packets_with(&[identifier, 0, 0, 0, 0]) {
                assert_eq!(refusal(&input, V5), Malformed::PropertyUnknown);
            }
        }
    }
}

/// Values the standard calls a Protocol Error, in every packet that takes the property.
/// Verifies [MQTT-3.3.2-8]: a Topic Alias is not 0.
/// Verifies [MQTT-3.3.2-14]: a Response Topic has no wildcards.
#[test]
fn property_values_outside_their_range_are_refused() {
    let forbidden: [(u8, &[u8]); 15] = [
        (0x01, &[2]),
        (0x17, &[2]),
        (0x19, &[2]),
        (0x24, &[2]),
        (0x25, &[2]),
        (0x28, &[2]),
        (0x29, &[2]),
        (0x2A, &[2]),
        (0x21, &[0, 0]),
        (0x27, &[0, 0, 0, 0]),
        (0x0B, &[0]),
        (0x23, &[0, 0]),
        (0x08, b"\x00\x01#"),
        (0x08, b"\x00\x01+"),
        (0x08, b"\x00\x00"),
    ];
    for (identifier, value) in forbidden {
        let (.., places) = TABLE_2_4.iter().find(|row| row.0 == identifier).unwrap();
        let section = [&[identifier], value].concat();
        for (letter, input) in packets_with(&section) {
            if places.contains(letter) {
                let expected = match identifier {
                    0x23 => Malformed::TopicAliasZero,
                    0x08 => Malformed::WildcardInResponseTopic,
                    _ => Malformed::PropertyValue,
                };
                assert_eq!(refusal(&input, V5), expected);
            }
        }
    }
}

/// Verifies [MQTT-2.2.2-1]: no properties are written as a length of zero.
#[test]
fn an_empty_property_section_is_a_zero() {
    let connack = ConnAck::refusal(ReasonCode::Success);
    assert_eq!(
        bytes(&Packet::ConnAck(Box::new(connack)), V5),
        [0x20, 3, 0, 0, 0]
    );
    let suback = SubAck {
        packet_id: id(1),
        reasons: vec![ReasonCode::Success],
        properties: None,
    };
    assert_eq!(bytes(&Packet::SubAck(suback), V5), [0x90, 4, 0, 1, 0, 0]);
}

/// Section 4.13.2: a packet with more User Properties than we keep is refused, not cut.
#[test]
fn too_many_user_properties_are_refused() {
    let mut section = b"\x26\x00\x00\x00\x00".repeat(USER_PROPERTIES_MAX);
    for is_too_many in [false, true] {
        if is_too_many {
            section.extend_from_slice(b"\x26\x00\x00\x00\x00");
        }
        let mut input = vec![0xE0];
        let mut body = vec![0];
        put_variable_byte_integer(&mut body, u32::try_from(section.len()).unwrap());
        body.extend_from_slice(&section);
        put_variable_byte_integer(&mut input, u32::try_from(body.len()).unwrap());
        input.extend_from_slice(&body);
        if is_too_many {
            assert_eq!(refusal(&input, V5), Malformed::TooManyUserProperties);
        } else {
            accepted(&input, V5);
        }
    }
}

/// Class U: one packet asks for so many Topic Filters and no more.
#[test]
fn too_many_topic_filters_are_refused() {
    for (first_byte, filter) in [(0x82, &b"\x00\x01a\x00"[..]), (0xA2, b"\x00\x01a")] {
        for count in [FILTERS_MAX, FILTERS_MAX + 1] {
            let body = [b"\x00\x01\x00", &*filter.repeat(count)].concat();
            let mut input = vec![first_byte];
            put_variable_byte_integer(&mut input, u32::try_from(body.len()).unwrap());
            input.extend_from_slice(&body);
            if count > FILTERS_MAX {
                assert_eq!(refusal(&input, V5), Malformed::TooManyFilters);
            } else {
                accepted(&input, V5);
            }
        }
    }
}

// Reason Codes.

/// Sections 3.2.2.2 to 3.15.2.1: the Reason Codes of each packet.
/// Verifies [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1] [MQTT-3.9.3-2]
/// [MQTT-3.11.3-2] [MQTT-3.14.2-1] [MQTT-3.15.2-1]: no other one is taken.
#[test]
fn every_packet_takes_the_reason_codes_of_its_table() {
    let tables: [(&[u8], &[u8], &[u8]); 9] = [
        (
            &[0x20, 3, 0],
            &[0],
            &[
                0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C, 0x90,
                0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F,
            ],
        ),
        (
            &[0x40, 3, 0, 1],
            &[],
            &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99],
        ),
        (
            &[0x50, 3, 0, 1],
            &[],
            &[0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99],
        ),
        (&[0x62, 3, 0, 1], &[], &[0x00, 0x92]),
        (&[0x70, 3, 0, 1], &[], &[0x00, 0x92]),
        (
            &[0x90, 4, 0, 1, 0],
            &[],
            &[
                0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2,
            ],
        ),
        (
            &[0xB0, 4, 0, 1, 0],
            &[],
            &[0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91],
        ),
        (
            &[0xE0, 1],
            &[],
            &[
                0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x90,
                0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F, 0xA0,
                0xA1, 0xA2,
            ],
        ),
        (&[0xF0, 6], b"\x04\x15\x00\x01m", &[0x00, 0x18, 0x19]),
    ];
    for (before, after, allowed) in tables {
        for code in 0..=255_u8 {
            let mut input = [before, &[code], after].concat();
            input[1] = u8::try_from(input.len() - 2).unwrap();
            let is_allowed = decode(&input, V5, u32::MAX).is_ok();
            assert_eq!(is_allowed, allowed.contains(&code), "{input:02X?}");
            if !is_allowed {
                assert_eq!(refusal(&input, V5), Malformed::ReasonCodeInvalid);
            }
        }
    }
}

// Acknowledgements.

/// Sections 3.4.2.1 and 3.4.2.2.1: Success is left out, then the Property Length.
#[test]
fn acknowledgements_are_written_in_their_shortest_form() {
    let ack = |reason| Packet::PubAck(Ack::new(id(258), reason));
    assert_eq!(bytes(&ack(ReasonCode::Success), V5), [0x40, 2, 1, 2]);
    assert_eq!(
        bytes(&ack(ReasonCode::QuotaExceeded), V5),
        [0x40, 3, 1, 2, 0x97]
    );
    assert_eq!(
        bytes(&ack(ReasonCode::QuotaExceeded), V311),
        [0x40, 2, 1, 2]
    );
    let explained = Ack::new(id(258), ReasonCode::Success).with_reason_string("w");
    let written = bytes(&Packet::PubAck(explained.clone()), V5);
    assert_eq!(written, b"\x40\x08\x01\x02\x00\x04\x1F\x00\x01w");
    assert_eq!(bytes(&Packet::PubAck(explained), V311), [0x40, 2, 1, 2]);
    for form in [
        &[0x40, 2, 1, 2][..],
        &[0x40, 3, 1, 2, 0],
        &[0x40, 4, 1, 2, 0, 0],
    ] {
        assert_eq!(accepted(form, V5), ack(ReasonCode::Success));
    }
}

/// Verifies [MQTT-2.2.1-3]: a Packet Identifier is not zero.
/// Verifies [v3.1.1 MQTT-2.3.1-1]: the same in 3.1.1.
#[test]
fn a_packet_identifier_of_zero_is_refused() {
    for version in VERSIONS {
        for first_byte in [0x40, 0x50, 0x62, 0x70, 0x82, 0x90, 0xA2, 0xB0] {
            let input = raw(first_byte, &[0, 0, 0]);
            assert_eq!(refusal(&input, version), Malformed::PacketIdentifierZero);
        }
        let input = publish("a").qos1(0).bytes(version);
        assert_eq!(refusal(&input, version), Malformed::PacketIdentifierZero);
    }
}

// CONNECT.

fn connect(level: u8, flags: u8, rest: &[u8]) -> Vec<u8> {
    let name: &[u8] = if level == 3 {
        b"\x00\x06MQIsdp"
    } else {
        b"\x00\x04MQTT"
    };
    let properties: &[u8] = if level == 5 { &[0] } else { &[] };
    raw(
        0x10,
        &[name, &[level, flags, 0, 9], properties, rest].concat(),
    )
}

/// Verifies [MQTT-3.1.2-3]: the reserved flag is 0.
/// Verifies [MQTT-3.1.2-11] [MQTT-3.1.2-12] [MQTT-3.1.2-13]: Will QoS and Will Retain fit the Will Flag.
/// Verifies [v3.1.1 MQTT-3.1.2-3] [v3.1.1 MQTT-3.1.2-13] [v3.1.1 MQTT-3.1.2-14]
/// [v3.1.1 MQTT-3.1.2-15]: the same in 3.1.1.
/// Verifies [v3.1.1 MQTT-3.1.2-22]: before 5.0 there is no Password without a User Name.
#[test]
fn connect_flags_fit_each_other() {
    for level in [3, 4, 5] {
        let found = |flags| refusal(&connect(level, flags, b"\x00\x00"), V311);
        assert_eq!(found(0x03), Malformed::ConnectReservedFlag);
        assert_eq!(found(0x08), Malformed::WillQosWithoutWill);
        assert_eq!(found(0x20), Malformed::WillRetainWithoutWill);
        assert_eq!(found(0x1E), Malformed::WillQosThree);
        let password = connect(level, 0x42, b"\x00\x00\x00\x01p");
        if level == 5 {
            accepted(&password, V311);
        } else {
            assert_eq!(refusal(&password, V311), Malformed::PasswordWithoutUserName);
        }
    }
}

/// Verifies [MQTT-3.1.3-1]: Client Identifier, Will, User Name, Password, in this order.
/// Verifies [MQTT-3.1.2-9] [MQTT-3.1.2-17] [MQTT-3.1.2-19]: what a flag names is there.
/// Verifies [MQTT-3.1.2-16] [MQTT-3.1.2-18]: what no flag names is not.
/// Verifies [MQTT-3.1.3-3] [MQTT-3.1.3-4] [MQTT-3.1.3-11] [MQTT-3.1.3-12]: strings are strings.
/// Verifies [v3.1.1 MQTT-3.1.3-1] [v3.1.1 MQTT-3.1.3-3] [v3.1.1 MQTT-3.1.3-4]
/// [v3.1.1 MQTT-3.1.3-10] [v3.1.1 MQTT-3.1.3-11]: the same in 3.1.1.
/// Verifies [v3.1.1 MQTT-3.1.2-9] [v3.1.1 MQTT-3.1.2-18] [v3.1.1 MQTT-3.1.2-19]
/// [v3.1.1 MQTT-3.1.2-20] [v3.1.1 MQTT-3.1.2-21]: the same in 3.1.1.
#[test]
fn the_payload_of_connect_follows_its_flags() {
    for level in [3, 4, 5] {
        let will: &[u8] = if level == 5 {
            b"\x00\x00\x01t\x00\x01m"
        } else {
            b"\x00\x01t\x00\x01m"
        };
        let rest = [b"\x00\x01c", will, b"\x00\x01u\x00\x01p"].concat();
        let input = connect(level, 0xF6, &rest);
        let Packet::Connect(read) = accepted(&input, V311) else {
            panic!("not a CONNECT");
        };
        let will = read.will.as_ref().unwrap();
        assert_eq!((read.client_id.as_str(), will.topic.as_str()), ("c", "t"));
        assert_eq!(
            (&will.payload[..], will.qos, will.retain),
            (&b"m"[..], Qos::ExactlyOnce, true)
        );
        assert_eq!(read.user_name.as_deref(), Some("u"));
        assert_eq!(read.password.as_ref().unwrap().expose(), b"p");
        assert_eq!(bytes(&Packet::Connect(read), V311), input);
        // One field less than the flags promise, one field more.
        let short = connect(level, 0xF6, &rest[..rest.len() - 3]);
        if level == 3 {
            accepted(&short, V311);
        } else {
            assert_eq!(refusal(&short, V311), Malformed::Truncated);
        }
        let found = refusal(&connect(level, 0xB6, &rest), V311);
        assert_eq!(found, Malformed::TrailingBytes);
        assert_eq!(
            refusal(&connect(level, 2, b"\x00\x01\xFF"), V311),
            Malformed::Utf8
        );
        let user_name = connect(level, 0x82, b"\x00\x00\x00\x01\xFF");
        assert_eq!(refusal(&user_name, V311), Malformed::Utf8);
        assert_eq!(refusal(&connect(level, 2, b""), V311), Malformed::Truncated);
    }
    let will = connect(4, 0x06, b"\x00\x00\x00\x01\xFF\x00\x00");
    assert_eq!(refusal(&will, V311), Malformed::Utf8);
}

/// Section 3.1.2.11.10: no Authentication Data without a method.
#[test]
fn authentication_data_needs_a_method() {
    let input = raw(
        0x10,
        b"\x00\x04MQTT\x05\x02\x00\x00\x04\x16\x00\x01d\x00\x00",
    );
    assert_eq!(
        refusal(&input, V311),
        Malformed::AuthenticationDataWithoutMethod
    );
}

/// Verifies [MQTT-3.1.2-1] [MQTT-3.1.2-2]: name and version are known.
/// Verifies [v3.1.1 MQTT-3.1.2-1] [v3.1.1 MQTT-3.1.2-2]: the same in 3.1.1.
#[test]
fn three_pairs_of_name_and_version_are_known() {
    let found = |text: &[u8]| refusal(&raw(0x10, text), V311);
    assert_eq!(
        found(b"\x00\x04mqtt\x04\x02\x00\x00\x00\x00"),
        Malformed::ProtocolName
    );
    assert_eq!(
        found(b"\x00\x04MQTT\x03\x02\x00\x00\x00\x00"),
        Malformed::ProtocolVersion
    );
    assert_eq!(
        found(b"\x00\x06MQIsdp\x04\x02\x00\x00\x00\x00"),
        Malformed::ProtocolVersion
    );
    assert_eq!(
        found(b"\x00\x04MQTT\x06\x02\x00\x00\x00\x00"),
        Malformed::ProtocolVersion
    );
}

// CONNACK.

/// Verifies [MQTT-3.2.2-6]: Session Present is 0 in a refusal.
/// Verifies [v3.1.1 MQTT-3.2.2-4]: the same in 3.1.1; 3.1 has no such flag.
/// Verifies [MQTT-3.2.2-1]: the other flags are 0.
#[test]
fn session_present_is_written_only_with_success() {
    let connack = |reason| {
        let mut connack = ConnAck::refusal(reason);
        connack.session_present = true;
        Packet::ConnAck(Box::new(connack))
    };
    assert_eq!(bytes(&connack(ReasonCode::Success), V5), [0x20, 3, 1, 0, 0]);
    assert_eq!(
        bytes(&connack(ReasonCode::NotAuthorized), V5),
        [0x20, 3, 0, 0x87, 0]
    );
    assert_eq!(bytes(&connack(ReasonCode::Success), V311), [0x20, 2, 1, 0]);
    assert_eq!(
        bytes(&connack(ReasonCode::NotAuthorized), V311),
        [0x20, 2, 0, 5]
    );
    assert_eq!(
        bytes(&connack(ReasonCode::Success), Version::V31),
        [0x20, 2, 0, 0]
    );
    assert_eq!(refusal(&[0x20, 3, 2, 0, 0], V5), Malformed::ConnAckFlags);
}

/// MQTT 3.1, section 3.2: the byte is reserved. In a refusal it means nothing, either.
#[test]
fn session_present_is_read_only_where_it_can_stand() {
    for (version, code, expected) in [
        (Version::V31, 0, false),
        (V311, 0, true),
        (V311, 5, false),
        (V5, 0, true),
        (V5, 0x87, false),
    ] {
        let Packet::ConnAck(connack) = accepted(&[0x20, 2, 1, code], version) else {
            panic!("not a CONNACK");
        };
        assert_eq!(connack.session_present, expected, "{version:?} {code}");
    }
}

/// Section 3.2.2.3 of 3.1.1: six return codes, and no CONNACK for the rest.
/// Verifies [v3.1.1 MQTT-3.2.2-6]: where none applies, none is sent.
#[test]
fn every_reason_code_becomes_a_3_1_1_return_code_or_none() {
    for reason in ReasonCode::ALL {
        let mut out = Vec::new();
        let packet = Packet::ConnAck(Box::new(ConnAck::refusal(*reason)));
        match encode(&packet, V311, &mut out) {
            Ok(()) => assert!(out[3] <= 5 && (out[3] == 0) == (*reason == ReasonCode::Success)),
            Err(error) => {
                assert_eq!(error, EncodeError::NotInThisVersion);
                assert!(out.is_empty());
            }
        }
    }
}

// PUBLISH.

/// Verifies [MQTT-3.3.1-2]: no DUP at QoS 0.
/// Verifies [MQTT-3.3.1-4]: no QoS 3.
/// Verifies [v3.1.1 MQTT-3.3.1-2] [v3.1.1 MQTT-3.3.1-4]: the same in 3.1.1.
/// Verifies [MQTT-2.2.1-2] [v3.1.1 MQTT-2.3.1-5]: a Packet Identifier only above QoS 0.
#[test]
fn publish_flags_fit_each_other() {
    for version in VERSIONS {
        let found = refusal(&publish("a").qos1(1).qos2(1).bytes(version), version);
        assert_eq!(found, Malformed::QosThree);
        let found = refusal(&publish("a").dup().bytes(version), version);
        assert_eq!(found, Malformed::DupOnQos0);
        for (input, packet_id) in [
            (publish("a"), None),
            (publish("a").qos1(7).dup(), Some(id(7))),
            (publish("a").qos2(7), Some(id(7))),
        ] {
            let input = input.bytes(version);
            let Packet::Publish(read) = accepted(&input, version) else {
                panic!("not a PUBLISH");
            };
            assert_eq!((read.packet_id, read.payload), (packet_id, &b"x"[..]));
            assert_eq!(bytes(&Packet::Publish(read), version), input);
        }
    }
}

/// Section 3.3.2.1: an empty Topic Name needs a Topic Alias.
#[test]
fn an_empty_topic_name_needs_an_alias() {
    for version in VERSIONS {
        assert_eq!(
            refusal(&publish("").bytes(version), version),
            Malformed::TopicNameEmpty
        );
    }
    accepted(&publish("").alias(1).bytes(V5), V5);
}

// SUBSCRIBE and UNSUBSCRIBE.

/// Verifies [MQTT-3.8.3-2] [MQTT-3.10.3-2]: at least one Topic Filter.
/// Verifies [v3.1.1 MQTT-3.8.3-3] [v3.1.1 MQTT-3.10.3-2]: the same in 3.1.1.
/// Verifies [MQTT-3.8.3-1] [MQTT-3.10.3-1]: filters are UTF-8 Encoded Strings.
/// Verifies [v3.1.1 MQTT-3.8.3-1] [v3.1.1 MQTT-3.10.3-1]: the same in 3.1.1.
#[test]
fn a_request_names_at_least_one_filter() {
    for version in VERSIONS {
        let head: &[u8] = if version == V5 { &[0, 1, 0] } else { &[0, 1] };
        assert_eq!(
            refusal(&raw(0x82, head), version),
            Malformed::SubscribeEmpty
        );
        assert_eq!(
            refusal(&raw(0xA2, head), version),
            Malformed::UnsubscribeEmpty
        );
        for first_byte in [0x82, 0xA2] {
            let input = raw(first_byte, &[head, b"\x00\x01\xFF\x00"].concat());
            assert_eq!(refusal(&input, version), Malformed::Utf8);
        }
    }
}

/// Verifies [MQTT-3.8.3-5]: reserved Subscription Options are 0.
/// Verifies [MQTT-3.8.3-4]: No Local is not for Shared Subscriptions.
/// Verifies [v3.1.1 MQTT-3.8.3-4]: in 3.1.1 there is only the QoS.
#[test]
fn subscription_options_are_in_range() {
    for options in 0..=255_u8 {
        let v311 = raw(0x82, &[0, 1, 0, 1, b'a', options]);
        assert_eq!(decode(&v311, V311, u32::MAX).is_ok(), options <= 2);
        let v5 = raw(0x82, &[0, 1, 0, 0, 1, b'a', options]);
        let is_valid = options & 0xC0 == 0 && options & 3 != 3 && options & 0x30 != 0x30;
        assert_eq!(decode(&v5, V5, u32::MAX).is_ok(), is_valid);
        if is_valid {
            assert_eq!(bytes(&accepted(&v5, V5), V5), v5);
        }
    }
    let shared = |options| {
        raw(
            0x82,
            &[b"\x00\x01\x00\x00\x0A$share/a/b", &[options][..]].concat(),
        )
    };
    accepted(&shared(0), V5);
    assert_eq!(refusal(&shared(4), V5), Malformed::NoLocalOnShared);
}

/// Verifies [v3.1.1 MQTT-3.9.3-2]: a 3.1.1 SUBACK holds 0, 1, 2 or 0x80.
/// Verifies [MQTT-3.8.4-6] [v3.1.1 MQTT-3.8.4-5]: one for each filter.
#[test]
fn a_suback_is_written_as_its_version_knows_it() {
    let suback = Packet::SubAck(SubAck {
        packet_id: id(1),
        reasons: vec![ReasonCode::GrantedQos1, ReasonCode::NotAuthorized],
        properties: None,
    });
    assert_eq!(bytes(&suback, V5), [0x90, 5, 0, 1, 0, 1, 0x87]);
    assert_eq!(bytes(&suback, V311), [0x90, 4, 0, 1, 1, 0x80]);
    // MQTT 3.1, section 3.8: a refusal cannot be told.
    assert_eq!(bytes(&suback, Version::V31), [0x90, 4, 0, 1, 1, 0]);
    assert_eq!(
        refusal(&[0x90, 3, 0, 1, 0x87], V311),
        Malformed::ReasonCodeInvalid
    );
    assert_eq!(refusal(&[0x90, 2, 0, 1], V311), Malformed::SubAckEmpty);
}

/// MQTT 3.1 has no code for a refusal; Servers that send 0x80 all the same are understood.
#[test]
fn a_refusal_in_a_suback_of_3_1_is_read_and_never_written() {
    let input = [0x90, 4, 0, 1, 0x80, 2];
    let read = accepted(&input, Version::V31);
    let Packet::SubAck(suback) = &read else {
        panic!("not a SUBACK");
    };
    let reasons = [ReasonCode::UnspecifiedError, ReasonCode::GrantedQos2];
    assert_eq!(suback.reasons, reasons);
    assert_eq!(bytes(&read, Version::V31), [0x90, 4, 0, 1, 0, 2]);
}

/// Section 3.11 of 3.1.1: UNSUBACK has no payload.
#[test]
fn an_unsuback_has_reason_codes_in_5_0_only() {
    let unsuback = Packet::UnsubAck(UnsubAck {
        packet_id: id(1),
        reasons: vec![ReasonCode::NoSubscriptionExisted],
        properties: None,
    });
    assert_eq!(bytes(&unsuback, V5), [0xB0, 4, 0, 1, 0, 0x11]);
    assert_eq!(bytes(&unsuback, V311), [0xB0, 2, 0, 1]);
}

// DISCONNECT and AUTH.

/// Sections 3.14.2.1 and 3.15.2.1: what may be left out.
#[test]
fn disconnect_and_auth_have_short_forms() {
    let normal = Packet::Disconnect(Disconnect::new(ReasonCode::Success));
    for form in [&[0xE0, 0][..], &[0xE0, 1, 0], &[0xE0, 2, 0, 0]] {
        assert_eq!(accepted(form, V5), normal);
    }
    assert_eq!(bytes(&normal, V5), [0xE0, 0]);
    let Packet::Auth(auth) = accepted(&[0xF0, 0], V5) else {
        panic!("not an AUTH");
    };
    assert_eq!((auth.reason, auth.method), (ReasonCode::Success, None));
    assert_eq!(refusal(&[0xF0, 1, 0x18], V5), Malformed::Truncated);
    assert_eq!(
        refusal(&[0xF0, 2, 0x18, 0], V5),
        Malformed::AuthenticationMethodMissing
    );
    assert_eq!(refusal(&[0xF0, 0], V311), Malformed::VersionHasNoSuchPacket);
}

/// The length of a packet is known when its body is written: the body makes room for it.
#[test]
fn a_length_of_one_to_four_bytes_stands_before_its_body() {
    for len in [
        0, 100, 121, 122, 16_000, 16_376, 16_377, 2_097_144, 2_097_145,
    ] {
        let payload: Vec<u8> = (0..len).map(|at: u32| at.to_le_bytes()[1]).collect();
        let publish = Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: false,
            topic: "a/b",
            packet_id: None,
            properties: PublishProperties::default(),
            payload: &payload,
        };
        let mut out = vec![0xFF];
        encode(&Packet::Publish(publish), Version::V5, &mut out).unwrap();
        let (packet, used) = decode(&out[1..], Version::V5, u32::MAX).unwrap().unwrap();
        assert_eq!((packet, used), (Packet::Publish(publish), out.len() - 1));
    }
}
