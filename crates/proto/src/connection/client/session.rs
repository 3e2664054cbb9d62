//! Session State a Client keeps (section 4.1): what survives when its Network Connection breaks.
//!
//! Owns: free Packet Identifiers, unacknowledged PUBLISH packets in order, QoS 2 identifiers received.
//! Does not own: the Receive Maximum quota (it dies with the connection), Subscriptions.
//! Start reading at [`ClientSession`]. Invariant: a Packet Identifier stands for one exchange at a time.

use std::collections::{BTreeSet, VecDeque};

use crate::{PacketIdentifier, Qos};

/// Session State of a Client. An empty one counts as state: it accepts Session Present.
#[derive(Clone, Debug, Default)]
pub struct ClientSession {
    last_packet_id: u16,
    /// PUBLISH packets not yet acknowledged for good, in the order they were first sent.
    pub(super) outbound: VecDeque<Outbound>,
    /// SUBSCRIBE and UNSUBSCRIBE of this connection that wait for their acknowledgement.
    pub(super) requests: BTreeSet<PacketIdentifier>,
    /// QoS 2 identifiers between our PUBREC and the Server's PUBREL.
    pub(super) received_qos2: BTreeSet<PacketIdentifier>,
}

/// One QoS 1 or 2 PUBLISH on its way to the Server.
#[derive(Clone, Debug)]
pub(super) struct Outbound {
    pub(super) packet_id: PacketIdentifier,
    pub(super) awaits: Awaits,
    /// The packet without Topic Alias and with DUP 0, to send again after a reconnect.
    pub(super) packet: Vec<u8>,
    /// Whether it was sent on this connection.
    pub(super) is_sent: bool,
    /// Whether it takes a place of this connection's send quota: a PUBREL of an earlier one does not.
    pub(super) takes_quota: bool,
}

/// What the Server owes for an [`Outbound`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Awaits {
    /// PUBACK, for QoS 1.
    Acknowledgement,
    /// PUBREC, for QoS 2.
    Receipt,
    /// PUBCOMP, after PUBREL.
    Completion,
}

impl ClientSession {
    /// How many QoS 1 and 2 PUBLISH packets are not acknowledged for good.
    #[must_use]
    pub fn unacknowledged_count(&self) -> usize {
        self.outbound.len()
    }

    /// Takes up a PUBLISH that an earlier program has sent and that is not acknowledged: the whole packet, with DUP 0 and
    /// without Topic Alias. In the order in which they were sent; one whose Packet Identifier is in use is refused.
    pub fn restore_publish(
        &mut self,
        packet_id: PacketIdentifier,
        qos: Qos,
        packet: Vec<u8>,
    ) -> bool {
        let awaits = if qos == Qos::ExactlyOnce {
            Awaits::Receipt
        } else {
            Awaits::Acknowledgement
        };
        self.restore(packet_id, awaits, packet)
    }

    /// The same for one whose PUBREC has come: what is left of it is PUBREL.
    pub fn restore_release(&mut self, packet_id: PacketIdentifier) -> bool {
        self.restore(packet_id, Awaits::Completion, Vec::new())
    }

    fn restore(&mut self, packet_id: PacketIdentifier, awaits: Awaits, packet: Vec<u8>) -> bool {
        if self.position(packet_id).is_some() {
            return false;
        }
        self.last_packet_id = packet_id.get();
        self.outbound.push_back(Outbound {
            packet_id,
            awaits,
            packet,
            is_sent: false,
            takes_quota: false,
        });
        true
    }

    /// [MQTT-2.2.1-3] [v3.1.1 MQTT-2.3.1-2] A Packet Identifier that is not zero and not in use; `None` if all are.
    pub(super) fn free_packet_id(&mut self) -> Option<PacketIdentifier> {
        for _ in 0..=u16::MAX {
            self.last_packet_id = self.last_packet_id.wrapping_add(1);
            let Some(packet_id) = PacketIdentifier::new(self.last_packet_id) else {
                continue;
            };
            let is_used = self.requests.contains(&packet_id) || self.position(packet_id).is_some();
            if !is_used {
                return Some(packet_id);
            }
        }
        None
    }

    pub(super) fn position(&self, packet_id: PacketIdentifier) -> Option<usize> {
        self.outbound
            .iter()
            .position(|outbound| outbound.packet_id == packet_id)
    }

    /// Prepares for a new connection: nothing was sent on it, and requests died with the old one.
    pub(super) fn begin_connection(&mut self) {
        self.requests.clear();
        for outbound in &mut self.outbound {
            outbound.is_sent = false;
            outbound.takes_quota = false;
        }
    }
}
