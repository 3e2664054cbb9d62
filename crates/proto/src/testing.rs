//! Packets as tests like to write them.
//!
//! Owns: [`publish`] and [`raw`]. Does not own: any rule. Start reading at [`publish`].
//! Invariant: writes what it is told, also what the standard forbids.

use crate::packet::{Packet, Property, encode};
use crate::{PacketIdentifier, Version};

/// The packet's bytes as `version` writes them.
pub(crate) fn bytes(packet: &Packet<'_>, version: Version) -> Vec<u8> {
    let mut out = Vec::new();
    encode(packet, version, &mut out).unwrap();
    out
}

/// A packet with this first byte and this body of less than 128 bytes.
pub(crate) fn raw(first_byte: u8, body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 128);
    let mut out = vec![first_byte, u8::try_from(body.len()).unwrap()];
    out.extend_from_slice(body);
    out
}

pub(crate) fn id(number: u16) -> PacketIdentifier {
    PacketIdentifier::new(number).unwrap()
}

/// A PUBLISH to `topic`, QoS 0.
pub(crate) fn publish(topic: &str) -> PublishBuilder {
    PublishBuilder {
        topic: topic.to_owned(),
        flags: 0,
        packet_id: None,
        properties: Vec::new(),
    }
}

pub(crate) struct PublishBuilder {
    topic: String,
    flags: u8,
    packet_id: Option<u16>,
    properties: Vec<u8>,
}

impl PublishBuilder {
    pub(crate) fn qos1(mut self, packet_id: u16) -> Self {
        self.flags |= 0x02;
        self.packet_id = Some(packet_id);
        self
    }

    pub(crate) fn qos2(mut self, packet_id: u16) -> Self {
        self.flags |= 0x04;
        self.packet_id = Some(packet_id);
        self
    }

    pub(crate) fn dup(mut self) -> Self {
        self.flags |= 0x08;
        self
    }

    pub(crate) fn property(mut self, property: Property<'_>) -> Self {
        property.put(&mut self.properties).unwrap();
        self
    }

    pub(crate) fn alias(self, alias: u16) -> Self {
        self.property(Property::TopicAlias(alias))
    }

    pub(crate) fn bytes(self, version: Version) -> Vec<u8> {
        let mut body = u16::try_from(self.topic.len())
            .unwrap()
            .to_be_bytes()
            .to_vec();
        body.extend_from_slice(self.topic.as_bytes());
        if let Some(packet_id) = self.packet_id {
            body.extend_from_slice(&packet_id.to_be_bytes());
        }
        if version.has_properties() {
            body.push(u8::try_from(self.properties.len()).unwrap());
            body.extend_from_slice(&self.properties);
        }
        body.push(b'x');
        raw(0x30 | self.flags, &body)
    }
}
