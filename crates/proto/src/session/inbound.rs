//! QoS 2 as receiver (section 4.3.3): which Packet Identifiers were received and not yet released.
//!
//! Owns: the identifiers between PUBLISH and PUBREL. Does not own: the messages (method A: they are
//! passed on at PUBLISH). Start reading at [`Inbound::on_publish`].
//! Invariant: a message is passed on once between its first PUBLISH and its PUBREL.

use std::collections::BTreeSet;

use crate::PacketIdentifier;

/// The receiver's half of the QoS 2 state of a Session; survives the Network Connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inbound {
    unreleased: BTreeSet<PacketIdentifier>,
}

/// What a QoS 2 PUBLISH is to its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InboundPublish {
    /// Its identifier was free: pass the message on, then send PUBREC.
    New,
    /// The message was passed on before: send PUBREC only.
    Repeated,
}

impl Inbound {
    /// Of a Session that has received nothing.
    pub const EMPTY: Self = Self {
        unreleased: BTreeSet::new(),
    };

    /// A QoS 2 PUBLISH arrived; remembers its identifier.
    /// [MQTT-4.3.3-10] [MQTT-4.3.3-12] [v3.1.1 MQTT-4.3.3-2] Until PUBREL the identifier is a repeat,
    /// whatever its DUP flag says.
    pub fn on_publish(&mut self, packet_id: PacketIdentifier) -> InboundPublish {
        if self.unreleased.insert(packet_id) {
            InboundPublish::New
        } else {
            InboundPublish::Repeated
        }
    }

    /// PUBREL arrived; returns whether its identifier was known, and forgets it.
    /// [MQTT-4.3.3-12] After PUBREL the identifier is free for a new message.
    pub fn on_pubrel(&mut self, packet_id: PacketIdentifier) -> bool {
        self.unreleased.remove(&packet_id)
    }

    /// The message was refused in PUBREC: the handshake is over, [MQTT-4.3.3-9].
    pub fn forget(&mut self, packet_id: PacketIdentifier) {
        self.unreleased.remove(&packet_id);
    }

    /// Whether a PUBLISH with this identifier would be a repeat.
    #[must_use]
    pub fn contains(&self, packet_id: PacketIdentifier) -> bool {
        self.unreleased.contains(&packet_id)
    }

    /// How many messages wait for PUBREL.
    #[must_use]
    pub fn len(&self) -> usize {
        self.unreleased.len()
    }

    /// Whether none waits for PUBREL.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.unreleased.is_empty()
    }

    /// The identifiers that wait for PUBREL, in numeric order.
    pub fn iter(&self) -> impl Iterator<Item = PacketIdentifier> + '_ {
        self.unreleased.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Verifies [MQTT-4.3.3-10]: a repeat before PUBREL is acknowledged, not delivered again.
    /// Verifies [MQTT-4.3.3-12]: after PUBREL the identifier stands for a new message.
    #[test]
    fn an_identifier_is_a_repeat_until_it_is_released() {
        let mut inbound = Inbound::default();
        let id = PacketIdentifier::FIRST;
        assert_eq!(inbound.on_publish(id), InboundPublish::New);
        assert_eq!(inbound.on_publish(id), InboundPublish::Repeated);
        assert!(inbound.on_pubrel(id));
        assert!(!inbound.on_pubrel(id));
        assert_eq!(inbound.on_publish(id), InboundPublish::New);
    }
}
