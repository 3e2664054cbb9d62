//! PUBACK, PUBREC, PUBREL, PUBCOMP (sections 3.4 to 3.7): one shape, four meanings.
//!
//! Owns: [`Ack`] in short and long form, and [`ReasonProperties`] which other packets share.
//! Does not own: the handshakes (see `session`). Start reading at [`Ack`].
//! Invariant: a packet carries only the Reason Codes its own table lists.

use super::property::{
    Allowed, Property, UserProperties, UserPropertyCollector, put_user_properties, read_properties,
};
use super::wire::{Reader, put_packet, put_prefixed, put_u16};
use super::{EncodeError, Malformed, PacketType, ReasonCode};
use crate::{PacketIdentifier, Version};

/// An acknowledgement of a PUBLISH or of an acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The Packet Identifier of the PUBLISH, [MQTT-2.2.1-5], [v3.1.1 MQTT-2.3.1-6].
    pub packet_id: PacketIdentifier,
    /// Reason Code; always Success in 3.x.
    pub reason: ReasonCode,
    /// Reason String and User Properties, if there are any.
    pub properties: Option<Box<ReasonProperties>>,
}

/// A Reason String and User Properties.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReasonProperties {
    /// Reason String: for people, not to be parsed.
    pub reason_string: Option<String>,
    /// User Properties, in order.
    pub user_properties: UserProperties,
}

impl Ack {
    /// An acknowledgement with this Reason Code and nothing else.
    #[must_use]
    pub const fn new(packet_id: PacketIdentifier, reason: ReasonCode) -> Self {
        Self {
            packet_id,
            reason,
            properties: None,
        }
    }

    /// The same with a Reason String.
    #[must_use]
    pub fn with_reason_string(mut self, text: impl Into<String>) -> Self {
        self.properties = Some(Box::new(ReasonProperties {
            reason_string: Some(text.into()),
            user_properties: UserProperties::new(),
        }));
        self
    }

    #[inline]
    pub(crate) fn read(
        reader: &mut Reader<'_>,
        packet_type: PacketType,
        version: Version,
    ) -> Result<Self, Malformed> {
        let packet_id = read_packet_id(reader)?;
        // Sections 3.4.2.1 and 3.4.2.2.1: the Reason Code and the Property Length may be left out.
        if !version.has_properties() || reader.is_empty() {
            return Ok(Self::new(packet_id, ReasonCode::Success));
        }
        let reason = read_reason(reader, packet_type)?;
        let properties = if reader.is_empty() {
            None
        } else {
            ReasonProperties::read(reader)?.boxed()
        };
        Ok(Self {
            packet_id,
            reason,
            properties,
        })
    }

    /// Writes the shortest form. `packet_type` is one of the four.
    pub(crate) fn put(
        &self,
        packet_type: PacketType,
        version: Version,
        out: &mut Vec<u8>,
    ) -> Result<(), EncodeError> {
        let id = self.packet_id.get().to_be_bytes();
        let short = self.reason == ReasonCode::Success && self.properties.is_none();
        if short || !version.has_properties() {
            out.extend_from_slice(&[packet_type.first_byte(), 2, id[0], id[1]]);
            return Ok(());
        }
        // [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.6.2-1] [MQTT-3.7.2-1]
        debug_assert!(self.reason.is_allowed_in(packet_type), "{:?}", self.reason);
        let Some(properties) = &self.properties else {
            out.extend_from_slice(&[
                packet_type.first_byte(),
                3,
                id[0],
                id[1],
                self.reason.value(),
            ]);
            return Ok(());
        };
        put_packet(out, packet_type.first_byte(), |out| {
            put_u16(out, self.packet_id.get());
            out.push(self.reason.value());
            put_prefixed(out, |out| properties.put(out))
        })
    }
}

impl ReasonProperties {
    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut reason_string = None;
        let mut users = UserPropertyCollector::default();
        read_properties(
            reader,
            Allowed::ACKNOWLEDGEMENT,
            |property| match property {
                Property::ReasonString(text) => reason_string = Some(text.to_owned()),
                Property::UserProperty(name, value) => users.add(name, value),
                _ => {}
            },
        )?;
        Ok(Self {
            reason_string,
            user_properties: users.finish()?,
        })
    }

    pub(crate) fn boxed(self) -> Option<Box<Self>> {
        (self.reason_string.is_some() || !self.user_properties.is_empty()).then(|| Box::new(self))
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if let Some(text) = &self.reason_string {
            Property::ReasonString(text).put(out)?;
        }
        put_user_properties(out, &self.user_properties)
    }
}

/// [MQTT-2.2.1-3] [v3.1.1 MQTT-2.3.1-1] A Packet Identifier is not zero.
pub(crate) fn read_packet_id(reader: &mut Reader<'_>) -> Result<PacketIdentifier, Malformed> {
    PacketIdentifier::new(reader.u16()?).ok_or(Malformed::PacketIdentifierZero)
}

pub(crate) fn read_reason(
    reader: &mut Reader<'_>,
    packet_type: PacketType,
) -> Result<ReasonCode, Malformed> {
    ReasonCode::from_value(reader.u8()?)
        .filter(|reason| reason.is_allowed_in(packet_type))
        .ok_or(Malformed::ReasonCodeInvalid)
}
