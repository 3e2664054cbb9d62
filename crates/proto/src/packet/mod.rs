//! MQTT Control Packets: bytes to values and values to bytes, for three protocol versions.
//!
//! Owns: the packet types, [`decode`], [`encode`], Reason Codes, properties.
//! Does not own: what may be sent when (see `connection`), delivery state (see `session`).
//! Start reading at [`decode`]. Invariant: decoding never panics, never reads past its input and
//! allocates nothing by a length the peer claimed; a payload is borrowed, not copied.

mod acks;
#[cfg(test)]
mod arbitrary_tests;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod malformed;
#[cfg(test)]
mod oracle_tests;
mod property;
mod publish;
mod reason_code;
mod suback;
mod subscribe;
#[cfg(test)]
mod tests;
mod wire;

pub use acks::{Ack, ReasonProperties};
pub use auth::Auth;
pub use connack::{ConnAck, ConnAckProperties};
pub use connect::{Connect, ConnectProperties, Will, WillProperties};
pub use disconnect::Disconnect;
pub use malformed::Malformed;
pub use property::{Property, PropertyIter, USER_PROPERTIES_MAX, UserProperties};
pub use publish::{OutgoingPublish, Publish, PublishProperties, TopicAliasUse};
pub use reason_code::ReasonCode;
pub use suback::{SubAck, UnsubAck};
pub use subscribe::{
    FILTERS_MAX, RetainHandling, Subscribe, SubscriptionOptions, SubscriptionRequest, Unsubscribe,
};

use crate::Version;
use wire::Reader;

/// The packet type of the Fixed Header's high nibble, section 2.1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are the standard's, table 2-1")]
#[repr(u8)]
pub enum PacketType {
    Connect = 1,
    ConnAck = 2,
    Publish = 3,
    PubAck = 4,
    PubRec = 5,
    PubRel = 6,
    PubComp = 7,
    Subscribe = 8,
    SubAck = 9,
    Unsubscribe = 10,
    UnsubAck = 11,
    PingReq = 12,
    PingResp = 13,
    Disconnect = 14,
    Auth = 15,
}

impl PacketType {
    /// The type in this first byte, or `None` for the reserved type 0.
    #[must_use]
    pub const fn from_first_byte(first_byte: u8) -> Option<Self> {
        Some(match first_byte >> 4 {
            1 => Self::Connect,
            2 => Self::ConnAck,
            3 => Self::Publish,
            4 => Self::PubAck,
            5 => Self::PubRec,
            6 => Self::PubRel,
            7 => Self::PubComp,
            8 => Self::Subscribe,
            9 => Self::SubAck,
            10 => Self::Unsubscribe,
            11 => Self::UnsubAck,
            12 => Self::PingReq,
            13 => Self::PingResp,
            14 => Self::Disconnect,
            15 => Self::Auth,
            _ => return None,
        })
    }

    /// The first byte of such a packet with the flags the standard lists, table 2-2.
    #[must_use]
    pub const fn first_byte(self) -> u8 {
        let flags = match self {
            // [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [v3.1.1 MQTT-3.6.1-1]
            // [v3.1.1 MQTT-3.8.1-1] [v3.1.1 MQTT-3.10.1-1]
            Self::PubRel | Self::Subscribe | Self::Unsubscribe => 0b0010,
            _ => 0,
        };
        (self as u8) << 4 | flags
    }

    /// The standard's name, in capitals.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "CONNECT",
            Self::ConnAck => "CONNACK",
            Self::Publish => "PUBLISH",
            Self::PubAck => "PUBACK",
            Self::PubRec => "PUBREC",
            Self::PubRel => "PUBREL",
            Self::PubComp => "PUBCOMP",
            Self::Subscribe => "SUBSCRIBE",
            Self::SubAck => "SUBACK",
            Self::Unsubscribe => "UNSUBSCRIBE",
            Self::UnsubAck => "UNSUBACK",
            Self::PingReq => "PINGREQ",
            Self::PingResp => "PINGRESP",
            Self::Disconnect => "DISCONNECT",
            Self::Auth => "AUTH",
        }
    }
}

/// The largest packet there can be, in bytes: first byte, four bytes of Remaining Length, and the rest.
pub const PACKET_BYTES_MAX: u32 = 1 + 4 + wire::VARIABLE_BYTE_INTEGER_MAX;

/// One MQTT Control Packet. PUBLISH, SUBSCRIBE and UNSUBSCRIBE borrow from the input.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are the standard's")]
pub enum Packet<'a> {
    Connect(Box<Connect>),
    ConnAck(Box<ConnAck>),
    Publish(Publish<'a>),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    Subscribe(Subscribe<'a>),
    SubAck(SubAck),
    Unsubscribe(Unsubscribe<'a>),
    UnsubAck(UnsubAck),
    PingReq,
    PingResp,
    Disconnect(Disconnect),
    Auth(Box<Auth>),
}

impl Packet<'_> {
    /// Which packet this is.
    #[must_use]
    pub const fn packet_type(&self) -> PacketType {
        match self {
            Self::Connect(_) => PacketType::Connect,
            Self::ConnAck(_) => PacketType::ConnAck,
            Self::Publish(_) => PacketType::Publish,
            Self::PubAck(_) => PacketType::PubAck,
            Self::PubRec(_) => PacketType::PubRec,
            Self::PubRel(_) => PacketType::PubRel,
            Self::PubComp(_) => PacketType::PubComp,
            Self::Subscribe(_) => PacketType::Subscribe,
            Self::SubAck(_) => PacketType::SubAck,
            Self::Unsubscribe(_) => PacketType::Unsubscribe,
            Self::UnsubAck(_) => PacketType::UnsubAck,
            Self::PingReq => PacketType::PingReq,
            Self::PingResp => PacketType::PingResp,
            Self::Disconnect(_) => PacketType::Disconnect,
            Self::Auth(_) => PacketType::Auth,
        }
    }
}

/// Why a packet could not be written: our own side asked for the impossible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodeError {
    /// A string or binary field has more than 65,535 bytes.
    FieldTooLong,
    /// The packet is larger than a Remaining Length can say.
    PacketTooLarge,
    /// This protocol version cannot say that.
    NotInThisVersion,
}

impl std::fmt::Display for EncodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::FieldTooLong => "a string or binary field has more than 65,535 bytes",
            Self::PacketTooLarge => "the packet has more than 268,435,455 bytes",
            Self::NotInThisVersion => "this protocol version has no such packet or return code",
        })
    }
}

impl std::error::Error for EncodeError {}

/// The Fixed Header of the packet at the front of `input`: first byte, length of the header, and length
/// of the whole packet, all in bytes; `None` if more bytes are needed.
/// # Errors
/// The Remaining Length is malformed, or the whole packet exceeds `maximum_packet_size`.
pub fn fixed_header(
    input: &[u8],
    maximum_packet_size: u32,
) -> Result<Option<(u8, usize, usize)>, Malformed> {
    let Some((first_byte, rest)) = input.split_first() else {
        return Ok(None);
    };
    if PacketType::from_first_byte(*first_byte).is_none() {
        return Err(Malformed::ReservedPacketType);
    }
    let Some((remaining_length, used)) = wire::read_variable_byte_integer(rest)? else {
        return Ok(None);
    };
    let header_len = 1 + used;
    let Ok(remaining_length) = usize::try_from(remaining_length) else {
        return Err(Malformed::PacketTooLarge);
    };
    let packet_len = header_len + remaining_length;
    // [MQTT-3.2.2-15] Known from the header alone, so nothing is read or kept for such a packet.
    if u32::try_from(packet_len).map_or(true, |len| len > maximum_packet_size) {
        return Err(Malformed::PacketTooLarge);
    }
    Ok(Some((*first_byte, header_len, packet_len)))
}

/// Decodes one packet from the front of `input`, which may hold less or more than one. A CONNECT brings
/// its own version; every other packet is read as `version`. Returns the packet and the bytes it
/// used, or `None` if more bytes are needed. O(packet); payloads are not copied.
/// # Errors
/// [`Malformed`]: these bytes can never become a packet. Source: sections 2.1 and 4.13.
#[inline(always)]
pub fn decode(
    input: &[u8],
    version: Version,
    maximum_packet_size: u32,
) -> Result<Option<(Packet<'_>, usize)>, Malformed> {
    let Some((first_byte, header_len, packet_len)) = fixed_header(input, maximum_packet_size)?
    else {
        return Ok(None);
    };
    let Some(body) = input.get(header_len..packet_len) else {
        return Ok(None);
    };
    let packet_type =
        PacketType::from_first_byte(first_byte).ok_or(Malformed::ReservedPacketType)?;
    check_flags(packet_type, first_byte, version)?;
    let mut reader = Reader::new(body);
    let packet = decode_body(packet_type, first_byte, &mut reader, version)?;
    if reader.is_empty() {
        Ok(Some((packet, packet_len)))
    } else {
        Err(Malformed::TrailingBytes)
    }
}

/// The same where the first byte is that of a PUBLISH, the packet that comes most: it is not moved through [`Packet`].
/// `known` is a Topic Name that was found well-formed before, or empty; whether the packet has that very one is returned,
/// too, and then its topic is left empty and was not looked at again.
#[inline(always)]
pub(crate) fn decode_publish<'a>(
    input: &'a [u8],
    version: Version,
    maximum_packet_size: u32,
    known: &str,
) -> Result<Option<(Publish<'a>, bool, usize)>, Malformed> {
    let Some((first_byte, header_len, packet_len)) = fixed_header(input, maximum_packet_size)?
    else {
        return Ok(None);
    };
    let Some(body) = input.get(header_len..packet_len) else {
        return Ok(None);
    };
    // Nothing can be left over: the payload is all the rest.
    let (publish, is_known) = Publish::read(&mut Reader::new(body), first_byte, version, known)?;
    Ok(Some((publish, is_known, packet_len)))
}

/// [MQTT-2.1.3-1] [MQTT-3.15.1-1] [MQTT-3.14.1-1] [v3.1.1 MQTT-2.2.2-1] [v3.1.1 MQTT-2.2.2-2]
/// [v3.1.1 MQTT-3.14.1-1]
fn check_flags(packet_type: PacketType, first_byte: u8, version: Version) -> Result<(), Malformed> {
    let expected = packet_type.first_byte();
    let flags_fit = match packet_type {
        PacketType::Publish => true,
        // MQTT 3.1, section 2.1: these may carry DUP when they are sent again.
        PacketType::PubRel | PacketType::Subscribe | PacketType::Unsubscribe
            if version == Version::V31 =>
        {
            first_byte & !0x08 == expected
        }
        _ => first_byte == expected,
    };
    if flags_fit {
        Ok(())
    } else {
        Err(Malformed::ReservedFlags)
    }
}

// Inlined so that a packet is built where it is used, and not moved there: this, `decode` and the
// readers of what comes most.
#[inline(always)]
fn decode_body<'a>(
    packet_type: PacketType,
    first_byte: u8,
    reader: &mut Reader<'a>,
    version: Version,
) -> Result<Packet<'a>, Malformed> {
    Ok(match packet_type {
        PacketType::Connect => Packet::Connect(Box::new(Connect::read(reader)?)),
        PacketType::ConnAck => Packet::ConnAck(Box::new(ConnAck::read(reader, version)?)),
        PacketType::Publish => Packet::Publish(Publish::read(reader, first_byte, version, "")?.0),
        PacketType::PubAck => Packet::PubAck(Ack::read(reader, packet_type, version)?),
        PacketType::PubRec => Packet::PubRec(Ack::read(reader, packet_type, version)?),
        PacketType::PubRel => Packet::PubRel(Ack::read(reader, packet_type, version)?),
        PacketType::PubComp => Packet::PubComp(Ack::read(reader, packet_type, version)?),
        PacketType::Subscribe => Packet::Subscribe(Subscribe::read(reader, version)?),
        PacketType::SubAck => Packet::SubAck(SubAck::read(reader, version)?),
        PacketType::Unsubscribe => Packet::Unsubscribe(Unsubscribe::read(reader, version)?),
        PacketType::UnsubAck => Packet::UnsubAck(UnsubAck::read(reader, version)?),
        PacketType::PingReq => Packet::PingReq,
        PacketType::PingResp => Packet::PingResp,
        PacketType::Disconnect => Packet::Disconnect(Disconnect::read(reader, version)?),
        PacketType::Auth if version.has_properties() => Packet::Auth(Box::new(Auth::read(reader)?)),
        PacketType::Auth => return Err(Malformed::VersionHasNoSuchPacket),
    })
}

/// Appends `packet` to `out` as `version` writes it; on an error `out` is as it was.
/// Reason Codes, Reason Strings and properties that a 3.x packet cannot carry are left out.
/// # Errors
/// A field is too long, or the version has no such packet.
pub fn encode(packet: &Packet<'_>, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    match packet {
        Packet::Connect(connect) => connect.put(out),
        Packet::ConnAck(connack) => connack.put(version, out),
        Packet::Publish(publish) => publish.put(version, out),
        Packet::PubAck(ack) => ack.put(PacketType::PubAck, version, out),
        Packet::PubRec(ack) => ack.put(PacketType::PubRec, version, out),
        Packet::PubRel(ack) => ack.put(PacketType::PubRel, version, out),
        Packet::PubComp(ack) => ack.put(PacketType::PubComp, version, out),
        Packet::Subscribe(subscribe) => subscribe.put(version, out),
        Packet::SubAck(suback) => suback.put(version, out),
        Packet::Unsubscribe(unsubscribe) => unsubscribe.put(version, out),
        Packet::UnsubAck(unsuback) => unsuback.put(version, out),
        Packet::PingReq => {
            out.extend_from_slice(&[PacketType::PingReq.first_byte(), 0]);
            Ok(())
        }
        Packet::PingResp => {
            out.extend_from_slice(&[PacketType::PingResp.first_byte(), 0]);
            Ok(())
        }
        Packet::Disconnect(disconnect) => disconnect.put(version, out),
        Packet::Auth(auth) => auth.put(version, out),
    }
}
