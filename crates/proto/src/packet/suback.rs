//! SUBACK and UNSUBACK (sections 3.9 and 3.11): one Reason Code for each Topic Filter asked.
//!
//! Owns: [`SubAck`], [`UnsubAck`]. Does not own: Subscriptions. Start reading at [`SubAck`].
//! Invariant: the Reason Codes stand in the order of the filters, [MQTT-3.9.3-1], [MQTT-3.11.3-1].

use super::acks::{ReasonProperties, read_packet_id, read_reason};
use super::wire::{Reader, put_packet, put_prefixed, put_u16};
use super::{EncodeError, Malformed, PacketType, ReasonCode};
use crate::{PacketIdentifier, Version};

/// SUBACK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubAck {
    /// Packet Identifier of the SUBSCRIBE.
    pub packet_id: PacketIdentifier,
    /// One for each Topic Filter; in 3.x every failure is written 0x80.
    pub reasons: Vec<ReasonCode>,
    /// Reason String and User Properties.
    pub properties: Option<Box<ReasonProperties>>,
}

/// UNSUBACK.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsubAck {
    /// Packet Identifier of the UNSUBSCRIBE.
    pub packet_id: PacketIdentifier,
    /// One for each Topic Filter; 3.x has none.
    pub reasons: Vec<ReasonCode>,
    /// Reason String and User Properties.
    pub properties: Option<Box<ReasonProperties>>,
}

impl SubAck {
    pub(crate) fn read(reader: &mut Reader<'_>, version: Version) -> Result<Self, Malformed> {
        let packet_id = read_packet_id(reader)?;
        let properties = read_optional_properties(reader, version)?;
        let reasons = read_reasons(reader, PacketType::SubAck)?;
        // [v3.1.1 MQTT-3.9.3-2] Of the failures, 3.x has 0x80 only.
        let is_reserved = |reason: &ReasonCode| reason.value() > 0x80;
        if !version.has_properties() && reasons.iter().any(is_reserved) {
            return Err(Malformed::ReasonCodeInvalid);
        }
        Ok(Self {
            packet_id,
            reasons,
            properties,
        })
    }

    pub(crate) fn put(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_packet(out, PacketType::SubAck.first_byte(), |out| {
            put_u16(out, self.packet_id.get());
            put_optional_properties(self.properties.as_deref(), version, out)?;
            out.extend(self.reasons.iter().map(|reason| {
                match version {
                    // MQTT 3.1, section 3.8: a refusal cannot be told, the answer is positive.
                    Version::V31 if reason.is_error() => 0,
                    // [v3.1.1 MQTT-3.9.3-2] 0, 1, 2 or 0x80.
                    Version::V311 if reason.is_error() => 0x80,
                    _ => reason.value(),
                }
            }));
            Ok(())
        })
    }
}

impl UnsubAck {
    pub(crate) fn read(reader: &mut Reader<'_>, version: Version) -> Result<Self, Malformed> {
        let packet_id = read_packet_id(reader)?;
        if !version.has_properties() {
            return Ok(Self {
                packet_id,
                reasons: Vec::new(),
                properties: None,
            });
        }
        let properties = read_optional_properties(reader, version)?;
        let reasons = read_reasons(reader, PacketType::UnsubAck)?;
        Ok(Self {
            packet_id,
            reasons,
            properties,
        })
    }

    pub(crate) fn put(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_packet(out, PacketType::UnsubAck.first_byte(), |out| {
            put_u16(out, self.packet_id.get());
            if version.has_properties() {
                put_optional_properties(self.properties.as_deref(), version, out)?;
                out.extend(self.reasons.iter().map(|reason| reason.value()));
            }
            Ok(())
        })
    }
}

fn read_optional_properties(
    reader: &mut Reader<'_>,
    version: Version,
) -> Result<Option<Box<ReasonProperties>>, Malformed> {
    if version.has_properties() {
        Ok(ReasonProperties::read(reader)?.boxed())
    } else {
        Ok(None)
    }
}

fn put_optional_properties(
    properties: Option<&ReasonProperties>,
    version: Version,
    out: &mut Vec<u8>,
) -> Result<(), EncodeError> {
    match properties {
        _ if !version.has_properties() => Ok(()),
        Some(properties) => put_prefixed(out, |out| properties.put(out)),
        // [MQTT-2.2.2-1] No properties are written as length zero.
        None => {
            out.push(0);
            Ok(())
        }
    }
}

fn read_reasons(
    reader: &mut Reader<'_>,
    packet_type: PacketType,
) -> Result<Vec<ReasonCode>, Malformed> {
    let mut reasons = Vec::new();
    while !reader.is_empty() {
        reasons.push(read_reason(reader, packet_type)?);
    }
    if reasons.is_empty() {
        Err(Malformed::SubAckEmpty)
    } else {
        Ok(reasons)
    }
}
