//! QoS 1 and QoS 2 as sender (sections 4.3.2, 4.3.3, 4.4, 4.6, 4.9).
//!
//! Owns: messages that wait, messages in flight, PUBRELs that wait for PUBCOMP, the send quota.
//! Does not own: how much may wait, whether a message has expired or is too large for the peer.
//! Start reading at [`Outbound::push`], then [`Outbound::start_next`].
//! Invariant: waiting messages are started in the order they were pushed; on a new Network Connection
//! everything that was in flight is sent again before anything that waits.

use std::collections::VecDeque;
use std::sync::Arc;

use super::packet_identifier::{PACKET_IDENTIFIERS, derived, first_free};
use crate::{Message, PacketIdentifier, Qos};

/// One message for the peer, above QoS 0.
#[derive(Clone, Debug)]
pub struct Queued {
    /// What is delivered.
    pub message: Arc<Message>,
    /// Subscription Identifiers of the Subscriptions it is delivered for.
    pub subscription_identifiers: Option<Arc<[u32]>>,
    /// Number of this message in its Session, counted from 1; set by [`Outbound::push`].
    pub seq: u64,
    /// QoS of this delivery: 1 or 2.
    pub qos: Qos,
    /// RETAIN of this delivery.
    pub retain: bool,
}

/// A message that was sent and is not acknowledged yet.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// Its Packet Identifier.
    pub packet_id: PacketIdentifier,
    /// The message.
    pub queued: Queued,
}

/// A QoS 2 message that the peer has, until PUBCOMP.
#[derive(Clone, Copy, Debug)]
struct Released {
    packet_id: PacketIdentifier,
    seq: u64,
}

/// What has to be sent again on a new Network Connection.
#[derive(Clone, Debug)]
pub enum Resend {
    /// A PUBREL.
    PubRel(PacketIdentifier),
    /// A PUBLISH with DUP set.
    Publish(InFlight),
}

/// What a PUBREC asks of the sender.
#[derive(Debug)]
pub enum PubRecOutcome {
    /// The peer has the message: it may be forgotten, then PUBREL is sent.
    Release(Queued),
    /// PUBREL was sent before and is sent again.
    ReleaseAgain,
    /// The peer refused the message: the handshake is over.
    Refused(Queued),
    /// No such identifier.
    Unknown,
}

/// The sender's half of the delivery state of a Session.
/// [MQTT-4.6.0-5] [MQTT-4.6.0-6] [v3.1.1 MQTT-4.6.0-5] [v3.1.1 MQTT-4.6.0-6] One queue for all topics.
#[derive(Clone, Debug, Default)]
pub struct Outbound {
    /// Sent and not acknowledged, in the order they were first sent.
    in_flight: VecDeque<InFlight>,
    /// After PUBREC and before PUBCOMP, in the order of the PUBRECs.
    released: VecDeque<Released>,
    /// Not sent yet, in order.
    waiting: VecDeque<Queued>,
    next_seq: u64,
    /// No open message has a smaller sequence number.
    lowest_open_seq: u64,
    /// Whether some message in flight could not get the identifier its number gives.
    has_displaced: bool,
    send_quota: u16,
    send_quota_initial: u16,
    resend_released: usize,
    resend_in_flight: usize,
}

impl Outbound {
    /// Appends a message to those that wait; gives it its number, which is returned. O(1).
    pub fn push(&mut self, mut queued: Queued) -> u64 {
        self.next_seq += 1;
        queued.seq = self.next_seq;
        self.waiting.push_back(queued);
        self.next_seq
    }

    /// A Network Connection begins: fills the quota and marks everything in flight to be sent again.
    pub fn on_connected(&mut self, send_quota: u16) {
        // Owed PUBRELs count as if they were open, or a Client that never completes could pile them up
        // with every new connection. [MQTT-4.9.0-1] Not zero, and not above its Receive Maximum.
        let owed = u16::try_from(self.released.len()).unwrap_or(u16::MAX);
        self.send_quota = send_quota.saturating_sub(owed).max(1).min(send_quota);
        self.send_quota_initial = send_quota;
        self.resend_released = 0;
        self.resend_in_flight = 0;
    }

    /// The Network Connection is gone: nothing can be sent until the next begins.
    pub fn on_disconnected(&mut self) {
        self.on_connected(0);
    }

    /// The next packet to send again on this Network Connection, if one is left and the quota allows it.
    /// [MQTT-4.4.0-1] [v3.1.1 MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-4.6.0-4] PUBRELs in the order of the
    /// PUBRECs, then PUBLISH packets in their original order, all with their original identifiers.
    pub fn poll_resend(&mut self) -> Option<Resend> {
        if self.send_quota_initial == 0 {
            return None;
        }
        if let Some(released) = self.released.get(self.resend_released) {
            self.resend_released += 1;
            return Some(Resend::PubRel(released.packet_id));
        }
        if self.send_quota == 0 {
            return None;
        }
        let again = self.in_flight.get(self.resend_in_flight)?.clone();
        self.resend_in_flight += 1;
        self.send_quota -= 1;
        Some(Resend::Publish(again))
    }

    /// The message that [`Self::start_next`] would send, if the quota allows one and nothing has to be
    /// sent again first. [MQTT-3.3.4-9] [MQTT-4.9.0-2] Nothing but PUBLISH is held back,
    /// [MQTT-3.3.4-10] [MQTT-4.9.0-3].
    #[must_use]
    pub fn next_waiting(&self) -> Option<&Queued> {
        let is_resending = self.resend_released < self.released.len()
            || self.resend_in_flight < self.in_flight.len();
        if self.send_quota == 0 || is_resending {
            None
        } else {
            self.waiting.front()
        }
    }

    /// Moves the first waiting message into flight, under a free identifier, and spends one of the quota.
    /// [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT-4.3.3-3] [v3.1.1 MQTT-4.3.2-1] [v3.1.1 MQTT-4.3.3-1]
    /// Call it after
    /// [`Self::next_waiting`] gave the message. `None` also if all identifiers are in use.
    pub fn start_next(&mut self) -> Option<&InFlight> {
        let seq = self.next_waiting()?.seq;
        let packet_id = self.free_packet_id(seq)?;
        let queued = self.waiting.pop_front()?;
        self.send_quota -= 1;
        self.in_flight.push_back(InFlight { packet_id, queued });
        self.resend_in_flight = self.in_flight.len();
        self.in_flight.back()
    }

    /// Takes the first waiting message away: expired, too large, or pushed out.
    pub fn discard_next(&mut self) -> Option<Queued> {
        self.waiting.pop_front()
    }

    /// Takes the message with this identifier out of flight without an answer of the peer, because it
    /// cannot be sent again. Gives its quota back.
    pub fn discard_in_flight(&mut self, packet_id: PacketIdentifier) -> Option<Queued> {
        let queued = self.take_in_flight(packet_id, |_| true)?;
        self.give_back();
        Some(queued)
    }

    /// PUBACK: returns the message it acknowledges, or `None` if there is none of QoS 1.
    pub fn on_puback(&mut self, packet_id: PacketIdentifier) -> Option<Queued> {
        let queued = self.take_in_flight(packet_id, |qos| qos == Qos::AtLeastOnce)?;
        self.give_back();
        Some(queued)
    }

    /// PUBREC; `is_error` if its Reason Code is 0x80 or greater.
    /// [MQTT-4.3.3-4] [v3.1.1 MQTT-4.3.3-1]
    pub fn on_pubrec(&mut self, packet_id: PacketIdentifier, is_error: bool) -> PubRecOutcome {
        if self
            .released
            .iter()
            .any(|released| released.packet_id == packet_id)
        {
            return PubRecOutcome::ReleaseAgain;
        }
        let Some(queued) = self.take_in_flight(packet_id, |qos| qos == Qos::ExactlyOnce) else {
            return PubRecOutcome::Unknown;
        };
        if is_error {
            // [MQTT-4.9.0-2] A PUBREC that refuses gives the quota back.
            self.give_back();
            return PubRecOutcome::Refused(queued);
        }
        // [MQTT-4.3.3-5] [MQTT-4.3.3-6] From now on only PUBREL is sent, until PUBCOMP.
        let is_resending = self.resend_released < self.released.len();
        self.released.push_back(Released {
            packet_id,
            seq: queued.seq,
        });
        if !is_resending {
            self.resend_released = self.released.len();
        }
        PubRecOutcome::Release(queued)
    }

    /// PUBCOMP: returns the number of the message whose handshake it ends, or `None` for an unknown one.
    pub fn on_pubcomp(&mut self, packet_id: PacketIdentifier) -> Option<u64> {
        let index = self
            .released
            .iter()
            .position(|released| released.packet_id == packet_id)?;
        let released = self.released.remove(index)?;
        if index < self.resend_released {
            self.resend_released -= 1;
        }
        self.give_back();
        self.on_closed_one();
        Some(released.seq)
    }

    /// How many messages wait to be sent for the first time.
    #[must_use]
    pub fn waiting_len(&self) -> usize {
        self.waiting.len()
    }

    /// How many messages were sent and are not finished: in flight, or released and not completed.
    #[must_use]
    pub fn open_len(&self) -> usize {
        self.in_flight.len() + self.released.len()
    }

    /// Whether there is nothing to deliver and nothing unfinished.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.open_len() == 0
    }

    /// Every message that waits or is in flight, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Queued> + '_ {
        self.in_flight
            .iter()
            .map(|in_flight| &in_flight.queued)
            .chain(&self.waiting)
    }

    fn take_in_flight(
        &mut self,
        packet_id: PacketIdentifier,
        fits: impl Fn(Qos) -> bool,
    ) -> Option<Queued> {
        // Peers acknowledge in order, so this is the first; the length is bounded by the quota.
        let index = self
            .in_flight
            .iter()
            .position(|open| open.packet_id == packet_id)?;
        if !fits(self.in_flight.get(index)?.queued.qos) {
            return None;
        }
        let taken = self.in_flight.remove(index)?;
        if index < self.resend_in_flight {
            self.resend_in_flight -= 1;
        }
        self.on_closed_one();
        Some(taken.queued)
    }

    /// [MQTT-4.9.0-1] Never above what the Network Connection began with.
    fn give_back(&mut self) {
        self.send_quota = self
            .send_quota
            .saturating_add(1)
            .min(self.send_quota_initial);
    }

    fn on_closed_one(&mut self) {
        if self.open_len() == 0 {
            self.lowest_open_seq = self.next_seq;
            self.has_displaced = false;
        }
    }

    fn free_packet_id(&mut self, seq: u64) -> Option<PacketIdentifier> {
        if self.open_len() == 0 {
            self.lowest_open_seq = seq;
        }
        let is_far = |lowest: u64| seq.saturating_sub(lowest) >= PACKET_IDENTIFIERS;
        if !self.has_displaced && !is_far(self.lowest_open_seq) {
            return Some(derived(seq));
        }
        self.lowest_open_seq = self
            .in_flight
            .iter()
            .map(|open| open.queued.seq)
            .chain(self.released.iter().map(|released| released.seq))
            .min()
            .unwrap_or(seq);
        let packet_id = first_free(seq, |id| self.is_in_use(id))?;
        self.has_displaced |= packet_id != derived(seq);
        Some(packet_id)
    }

    fn is_in_use(&self, packet_id: PacketIdentifier) -> bool {
        self.in_flight
            .iter()
            .any(|open| open.packet_id == packet_id)
            || self
                .released
                .iter()
                .any(|released| released.packet_id == packet_id)
    }
}
