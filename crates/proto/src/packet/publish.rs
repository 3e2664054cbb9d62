//! PUBLISH (section 3.3), the hot path: decoding borrows, encoding copies each byte once.
//!
//! Owns: [`Publish`] as it arrives, [`OutgoingPublish`] as it leaves.
//! Does not own: Topic Alias tables, handshakes. Start reading at [`Publish::read`].
//! Invariant: the properties a subscriber must get unaltered travel as the publisher's own bytes.

use super::acks::read_packet_id;
use super::property::{Allowed, Property, PropertyIter, read_properties};
use super::wire::{
    Reader, VARIABLE_BYTE_INTEGER_MAX, put_prefixed, put_u16, put_u32, put_variable_byte_integer,
    text, variable_byte_integer_len,
};
use super::{EncodeError, Malformed, PacketType};
use crate::topic;
use crate::{Message, PacketIdentifier, Qos, Version};

/// PUBLISH as decoded, borrowing from the input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Publish<'a> {
    /// DUP.
    pub dup: bool,
    /// QoS.
    pub qos: Qos,
    /// RETAIN.
    pub retain: bool,
    /// A valid Topic Name, or empty where a Topic Alias stands for it.
    pub topic: &'a str,
    /// Present exactly if QoS is above 0.
    pub packet_id: Option<PacketIdentifier>,
    /// Properties; empty in 3.x.
    pub properties: PublishProperties<'a>,
    /// Application Message payload.
    pub payload: &'a [u8],
}

/// PUBLISH properties: the checked section as it came, with what the receiver acts on taken out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PublishProperties<'a> {
    raw: &'a [u8],
    /// Topic Alias, never 0.
    pub topic_alias: Option<u16>,
    /// Message Expiry Interval in seconds.
    pub message_expiry_interval_seconds: Option<u32>,
    /// Whether there is a Subscription Identifier, which a Client may not send.
    pub has_subscription_identifier: bool,
    /// How many User Properties there are.
    pub user_property_count: u32,
}

impl<'a> PublishProperties<'a> {
    /// All of them, in order.
    #[must_use]
    pub const fn iter(&self) -> PropertyIter<'a> {
        PropertyIter::new(self.raw)
    }

    /// All of them as encoded bytes.
    #[must_use]
    pub const fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Bytes of all of them.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        self.raw.len()
    }

    /// How many bytes [`Self::put_forwarded`] appends, at most.
    pub(crate) const fn forwarded_len_max(&self) -> usize {
        self.raw.len()
    }

    /// Whether every property is to be forwarded, so that [`Self::raw`] can be taken as a whole.
    const fn is_all_forwarded(&self) -> bool {
        self.topic_alias.is_none()
            && self.message_expiry_interval_seconds.is_none()
            && !self.has_subscription_identifier
    }

    /// Appends the properties subscribers get unaltered and in order: all but Topic Alias, Message
    /// Expiry Interval and Subscription Identifiers.
    /// [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
    pub fn put_forwarded(&self, out: &mut Vec<u8>) {
        if self.is_all_forwarded() {
            out.extend_from_slice(self.raw);
            return;
        }
        for property in self.iter() {
            if !matches!(
                property,
                Property::TopicAlias(_)
                    | Property::MessageExpiryInterval(_)
                    | Property::SubscriptionIdentifier(_)
            ) {
                let written = property.put(out);
                debug_assert!(written.is_ok(), "invariant: what was read can be written");
            }
        }
    }

    /// The same, which have no Topic Alias, with one; `scratch` holds them.
    pub(crate) fn with_topic_alias<'b>(
        &self,
        alias: u16,
        scratch: &'b mut Vec<u8>,
    ) -> PublishProperties<'b> {
        scratch.clear();
        scratch.push(0x23);
        put_u16(scratch, alias);
        scratch.extend_from_slice(self.raw);
        PublishProperties {
            raw: scratch,
            topic_alias: Some(alias),
            message_expiry_interval_seconds: self.message_expiry_interval_seconds,
            has_subscription_identifier: self.has_subscription_identifier,
            user_property_count: self.user_property_count,
        }
    }

    /// Properties from encoded bytes, for a sender.
    /// # Errors
    /// `raw` is not a section that a PUBLISH may carry.
    pub fn parse(raw: &'a [u8]) -> Result<Self, Malformed> {
        if raw.is_empty() {
            return Ok(Self::default());
        }
        let mut framed = Vec::with_capacity(raw.len() + 4);
        let len = u32::try_from(raw.len())
            .ok()
            .filter(|len| *len <= VARIABLE_BYTE_INTEGER_MAX);
        put_variable_byte_integer(&mut framed, len.ok_or(Malformed::PacketTooLarge)?);
        framed.extend_from_slice(raw);
        let read = Self::read(&mut Reader::new(&framed))?;
        Ok(Self {
            raw,
            topic_alias: read.topic_alias,
            message_expiry_interval_seconds: read.message_expiry_interval_seconds,
            has_subscription_identifier: read.has_subscription_identifier,
            user_property_count: read.user_property_count,
        })
    }

    fn read<'b>(reader: &mut Reader<'b>) -> Result<PublishProperties<'b>, Malformed> {
        let mut topic_alias = None;
        let mut message_expiry_interval_seconds = None;
        let mut has_subscription_identifier = false;
        let mut user_property_count = 0_u32;
        let raw = read_properties(reader, Allowed::PUBLISH, |property| match property {
            Property::TopicAlias(value) => topic_alias = Some(value),
            Property::MessageExpiryInterval(value) => {
                message_expiry_interval_seconds = Some(value);
            }
            Property::SubscriptionIdentifier(_) => has_subscription_identifier = true,
            // Each takes five bytes of a packet, so they are fewer than 2^32.
            Property::UserProperty(..) => user_property_count += 1,
            _ => {}
        })?;
        Ok(PublishProperties {
            raw,
            topic_alias,
            message_expiry_interval_seconds,
            has_subscription_identifier,
            user_property_count,
        })
    }
}

impl<'a> Publish<'a> {
    /// `known` is a Topic Name that was found well-formed before, or empty. If the packet has that very one, it is not
    /// looked at again: then its topic is left empty, and `true` returned with it.
    #[inline(always)]
    pub(crate) fn read(
        reader: &mut Reader<'a>,
        first_byte: u8,
        version: Version,
        known: &str,
    ) -> Result<(Self, bool), Malformed> {
        let dup = first_byte & 0x08 != 0;
        let retain = first_byte & 0x01 != 0;
        // [MQTT-3.3.1-4] [v3.1.1 MQTT-3.3.1-4]
        let qos = Qos::from_level((first_byte >> 1) & 0b11).ok_or(Malformed::QosThree)?;
        // [MQTT-3.3.1-2] [v3.1.1 MQTT-3.3.1-2] A QoS 0 PUBLISH never carries DUP.
        if dup && qos == Qos::AtMostOnce {
            return Err(Malformed::DupOnQos0);
        }
        // [MQTT-3.3.2-1] [v3.1.1 MQTT-3.3.2-1]
        let topic_bytes = reader.binary()?;
        let is_known = topic_bytes == known.as_bytes() && !known.is_empty();
        let topic_name = if is_known { "" } else { text(topic_bytes)? };
        // [MQTT-2.2.1-2] [v3.1.1 MQTT-2.3.1-5] Only above QoS 0.
        let packet_id = if qos == Qos::AtMostOnce {
            None
        } else {
            Some(read_packet_id(reader)?)
        };
        let properties = if version.has_properties() {
            PublishProperties::<'a>::read(reader)?
        } else {
            PublishProperties::default()
        };
        if !is_known && (!topic_name.is_empty() || properties.topic_alias.is_none()) {
            topic::check_name(topic_name)?;
        }
        let payload = reader.rest();
        let publish = Self {
            dup,
            qos,
            retain,
            topic: topic_name,
            packet_id,
            properties,
            payload,
        };
        Ok((publish, is_known))
    }

    pub(crate) fn put(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let first_byte = first_byte(self.dup, self.qos, self.retain);
        super::wire::put_packet(out, first_byte, |out| {
            super::wire::put_string(out, self.topic)?;
            if let Some(packet_id) = self.packet_id {
                put_u16(out, packet_id.get());
            }
            if version.has_properties() {
                put_prefixed(out, |out| {
                    out.extend_from_slice(self.properties.raw);
                    Ok(())
                })?;
            }
            out.extend_from_slice(self.payload);
            Ok(())
        })
    }
}

const fn first_byte(dup: bool, qos: Qos, retain: bool) -> u8 {
    PacketType::Publish.first_byte() | (dup as u8) << 3 | qos.level() << 1 | retain as u8
}

/// How a Topic Alias stands in an outgoing PUBLISH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicAliasUse {
    /// The Topic Name is sent with the alias, which from now on stands for it.
    Define(u16),
    /// The alias stands for the Topic Name, which is left empty.
    Replace(u16),
}

/// One delivery of a [`Message`] to one peer.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingPublish<'a> {
    /// What is delivered.
    pub message: &'a Message,
    /// DUP: whether this PUBLISH was sent before, [MQTT-3.3.1-3].
    pub dup: bool,
    /// QoS of this delivery.
    pub qos: Qos,
    /// RETAIN of this delivery.
    pub retain: bool,
    /// Present exactly if `qos` is above 0.
    pub packet_id: Option<PacketIdentifier>,
    /// Topic Alias, if one is used.
    pub topic_alias: Option<TopicAliasUse>,
    /// What is left of the Message Expiry Interval, in seconds, [MQTT-3.3.2-6].
    pub message_expiry_interval_seconds: Option<u32>,
    /// Subscription Identifiers of all matching Subscriptions that have one, [MQTT-3.3.4-4].
    pub subscription_identifiers: &'a [u32],
    /// So many bytes at the front of the Topic Name are not for the peer to see: none, or all up to a `/`.
    pub hidden_topic_bytes: u16,
}

impl OutgoingPublish<'_> {
    /// The Topic Name as it is sent.
    fn sent_topic(&self) -> &[u8] {
        match self.topic_alias {
            Some(TopicAliasUse::Replace(_)) => &[],
            _ => {
                let field = self.message.topic_field();
                let hidden = usize::from(self.hidden_topic_bytes);
                field.get(2 + hidden..).unwrap_or_default()
            }
        }
    }

    fn properties_len(&self) -> usize {
        let alias = if self.topic_alias.is_some() { 3 } else { 0 };
        let expiry = if self.message_expiry_interval_seconds.is_some() {
            5
        } else {
            0
        };
        let identifiers: usize = self
            .subscription_identifiers
            .iter()
            .map(|identifier| 1 + variable_byte_integer_len(*identifier))
            .sum();
        alias + expiry + identifiers + self.message.forwarded_properties().len()
    }

    /// Remaining Length of the packet as `version` writes it, in bytes; saturates at `u32::MAX`.
    fn remaining_len(&self, version: Version) -> u32 {
        let mut len = 2 + self.sent_topic().len() + self.message.payload().len();
        if self.packet_id.is_some() {
            len += 2;
        }
        if version.has_properties() {
            let properties = self.properties_len();
            len += properties + variable_byte_integer_len(len_u32(properties));
        }
        len_u32(len)
    }

    fn put_topic(&self, out: &mut Vec<u8>) {
        if self.hidden_topic_bytes == 0 && self.topic_alias.is_none() {
            return out.extend_from_slice(self.message.topic_field());
        }
        let topic = self.sent_topic();
        let len = u16::try_from(topic.len()).expect("invariant: a part of a Topic Name");
        put_u16(out, len);
        out.extend_from_slice(topic);
    }

    /// Size of the whole packet as `version` writes it, in bytes; saturates at `u32::MAX`.
    #[must_use]
    pub fn encoded_len(&self, version: Version) -> u32 {
        let remaining = self.remaining_len(version);
        remaining.saturating_add(1 + len_u32(variable_byte_integer_len(remaining)))
    }

    /// Appends everything before the payload to `out`; the payload follows on the wire.
    /// # Errors
    /// The packet is larger than a Remaining Length can say; `out` is as it was.
    pub fn put_head(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let remaining = self.remaining_len(version);
        if remaining > VARIABLE_BYTE_INTEGER_MAX {
            return Err(EncodeError::PacketTooLarge);
        }
        out.push(first_byte(self.dup, self.qos, self.retain));
        put_variable_byte_integer(out, remaining);
        self.put_topic(out);
        if let Some(packet_id) = self.packet_id {
            put_u16(out, packet_id.get());
        }
        if version.has_properties() {
            self.put_properties(out);
        }
        Ok(())
    }

    /// Appends the whole packet to `out`.
    /// # Errors
    /// The packet is larger than a Remaining Length can say; `out` is as it was.
    pub fn put(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.put_head(version, out)?;
        out.extend_from_slice(self.message.payload());
        Ok(())
    }

    fn put_properties(&self, out: &mut Vec<u8>) {
        put_variable_byte_integer(out, len_u32(self.properties_len()));
        if let Some(TopicAliasUse::Define(alias) | TopicAliasUse::Replace(alias)) = self.topic_alias
        {
            out.push(0x23);
            put_u16(out, alias);
        }
        if let Some(seconds) = self.message_expiry_interval_seconds {
            out.push(0x02);
            put_u32(out, seconds);
        }
        for identifier in self.subscription_identifiers {
            out.push(0x0B);
            put_variable_byte_integer(out, *identifier);
        }
        out.extend_from_slice(self.message.forwarded_properties());
    }
}

fn len_u32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}
