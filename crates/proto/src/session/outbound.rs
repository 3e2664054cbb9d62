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
    /// Its PUBLISH was sent on this Network Connection and spent one of its quota.
    has_spent: bool,
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
    /// Part of the quota that PUBRELs owed from before keep until they are completed.
    send_quota_withheld: u16,
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
        // Owed PUBRELs keep their part of the quota, or a Client that never completes could pile them
        // up with every new connection. [MQTT-4.9.0-1] Not zero, not above its Receive Maximum.
        for owed in &mut self.released {
            owed.has_spent = false;
        }
        let owed = u16::try_from(self.released.len()).unwrap_or(u16::MAX);
        self.send_quota = send_quota.saturating_sub(owed).max(1).min(send_quota);
        self.send_quota_initial = send_quota;
        self.send_quota_withheld = send_quota - self.send_quota;
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
        let (queued, has_spent) = self.take_in_flight(packet_id, |_| true)?;
        self.give_back(has_spent);
        Some(queued)
    }

    /// PUBACK: returns the message it acknowledges, or `None` if there is none of QoS 1.
    pub fn on_puback(&mut self, packet_id: PacketIdentifier) -> Option<Queued> {
        let (queued, has_spent) = self.take_in_flight(packet_id, |qos| qos == Qos::AtLeastOnce)?;
        self.give_back(has_spent);
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
        let Some((queued, has_spent)) =
            self.take_in_flight(packet_id, |qos| qos == Qos::ExactlyOnce)
        else {
            return PubRecOutcome::Unknown;
        };
        if is_error {
            // [MQTT-4.9.0-2] A PUBREC that refuses gives the quota back.
            self.give_back(has_spent);
            return PubRecOutcome::Refused(queued);
        }
        // [MQTT-4.3.3-5] [MQTT-4.3.3-6] From now on only PUBREL is sent, until PUBCOMP.
        let is_resending = self.resend_released < self.released.len();
        self.released.push_back(Released {
            packet_id,
            seq: queued.seq,
            has_spent,
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
        let has_withheld = !released.has_spent && self.send_quota_withheld > 0;
        self.send_quota_withheld -= u16::from(has_withheld);
        self.give_back(released.has_spent || has_withheld);
        self.on_closed_one();
        Some(released.seq)
    }

    /// The last number given; 0 if none was.
    #[must_use]
    pub const fn last_seq(&self) -> u64 {
        self.next_seq
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
    ) -> Option<(Queued, bool)> {
        // Peers acknowledge in order, so this is the first; the length is bounded by the quota.
        let index = self
            .in_flight
            .iter()
            .position(|open| open.packet_id == packet_id)?;
        if !fits(self.in_flight.get(index)?.queued.qos) {
            return None;
        }
        let taken = self.in_flight.remove(index)?;
        let has_spent = index < self.resend_in_flight;
        if has_spent {
            self.resend_in_flight -= 1;
        }
        self.on_closed_one();
        Some((taken.queued, has_spent))
    }

    /// [MQTT-4.9.0-1] Never above what the Network Connection began with, and only what it has spent.
    fn give_back(&mut self, has_spent: bool) {
        if has_spent {
            self.send_quota = self
                .send_quota
                .saturating_add(1)
                .min(self.send_quota_initial);
        }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Instant;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Push { is_qos2: bool },
        Send,
        Acknowledge { pick: usize, is_error: bool },
        Complete { pick: usize },
        Reconnect { quota: u16 },
        Unknown { packet_id: u16 },
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => any::<bool>().prop_map(|is_qos2| Event::Push { is_qos2 }),
            6 => Just(Event::Send),
            4 => (any::<usize>(), prop::bool::weighted(0.2))
                .prop_map(|(pick, is_error)| Event::Acknowledge { pick, is_error }),
            3 => any::<usize>().prop_map(|pick| Event::Complete { pick }),
            1 => (1..5_u16).prop_map(|quota| Event::Reconnect { quota }),
            1 => (60_000..60_010_u16).prop_map(|packet_id| Event::Unknown { packet_id }),
        ]
    }

    /// What the peer knows: PUBLISH packets it has not answered on this connection, and all that is open.
    #[derive(Default)]
    struct Peer {
        unanswered: Vec<(PacketIdentifier, Qos)>,
        owed: Vec<PacketIdentifier>,
        open: BTreeSet<PacketIdentifier>,
        first_sent: Vec<u64>,
        quota: usize,
    }

    impl Peer {
        fn send(&mut self, outbound: &mut Outbound) -> Result<(), TestCaseError> {
            match outbound.poll_resend() {
                Some(Resend::PubRel(packet_id)) => {
                    prop_assert!(self.owed.contains(&packet_id));
                    return Ok(());
                }
                Some(Resend::Publish(again)) => {
                    prop_assert!(self.open.contains(&again.packet_id), "never sent before");
                    self.unanswered.push((again.packet_id, again.queued.qos));
                }
                None => {
                    if outbound.next_waiting().is_some()
                        && let Some(started) = outbound.start_next()
                    {
                        prop_assert!(self.open.insert(started.packet_id), "identifier in use");
                        self.unanswered
                            .push((started.packet_id, started.queued.qos));
                        self.first_sent.push(started.queued.seq);
                    }
                }
            }
            prop_assert!(
                self.unanswered.len() <= self.quota,
                "above the Receive Maximum"
            );
            Ok(())
        }

        fn acknowledge(&mut self, outbound: &mut Outbound, pick: usize, is_error: bool) {
            if self.unanswered.is_empty() {
                return;
            }
            let (packet_id, qos) = self.unanswered.remove(pick % self.unanswered.len());
            if qos == Qos::AtLeastOnce {
                assert!(outbound.on_puback(packet_id).is_some());
                self.open.remove(&packet_id);
                return;
            }
            match outbound.on_pubrec(packet_id, is_error) {
                PubRecOutcome::Release(_) => self.owed.push(packet_id),
                PubRecOutcome::Refused(_) => {
                    self.open.remove(&packet_id);
                }
                other => panic!("unexpected {other:?}"),
            }
        }

        fn complete(&mut self, outbound: &mut Outbound, pick: usize) {
            if !self.owed.is_empty() {
                let packet_id = self.owed.remove(pick % self.owed.len());
                assert!(outbound.on_pubcomp(packet_id).is_some());
                self.open.remove(&packet_id);
            }
        }
    }

    fn queued(is_qos2: bool, now: Instant) -> Queued {
        let qos = if is_qos2 {
            Qos::ExactlyOnce
        } else {
            Qos::AtLeastOnce
        };
        let message = Arc::new(Message::new("t", Bytes::new(), qos, false, now));
        Queued {
            message,
            subscription_identifiers: None,
            seq: 0,
            qos,
            retain: false,
        }
    }

    fn live(outbound: &mut Outbound, peer: &mut Peer, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::Push { is_qos2 } => {
                outbound.push(queued(is_qos2, start()));
            }
            Event::Send => peer.send(outbound)?,
            Event::Acknowledge { pick, is_error } => peer.acknowledge(outbound, pick, is_error),
            Event::Complete { pick } => peer.complete(outbound, pick),
            Event::Reconnect { quota } => {
                peer.unanswered.clear();
                peer.quota = usize::from(quota);
                outbound.on_connected(quota);
            }
            Event::Unknown { packet_id } => {
                let packet_id = PacketIdentifier::new(packet_id).expect("not zero");
                prop_assert!(outbound.on_puback(packet_id).is_none());
                prop_assert!(outbound.on_pubcomp(packet_id).is_none());
                let outcome = outbound.on_pubrec(packet_id, false);
                prop_assert!(matches!(outcome, PubRecOutcome::Unknown));
            }
        }
        Ok(())
    }

    proptest! {
        /// Verifies [MQTT-2.2.1-4]: no two open messages share an identifier.
        /// Verifies [MQTT-4.9.0-2]: the quota is never exceeded, whatever the peer does.
        /// Verifies [MQTT-4.6.0-6]: messages are first sent in the order they came.
        #[test]
        fn any_peer_sees_free_identifiers_a_kept_quota_and_the_order(
            events in prop::collection::vec(event(), 0..300),
        ) {
            let mut outbound = Outbound::default();
            let mut peer = Peer { quota: 3, ..Peer::default() };
            outbound.on_connected(3);
            for event in events {
                live(&mut outbound, &mut peer, event)?;
            }
            live(&mut outbound, &mut peer, Event::Reconnect { quota: 2 })?;
            while !outbound.is_empty() {
                live(&mut outbound, &mut peer, Event::Send)?;
                live(&mut outbound, &mut peer, Event::Acknowledge { pick: 0, is_error: false })?;
                live(&mut outbound, &mut peer, Event::Complete { pick: 0 })?;
            }
            prop_assert!(peer.open.is_empty());
            prop_assert!(peer.first_sent.is_sorted());
            let count = u64::try_from(peer.first_sent.len()).expect("few");
            prop_assert_eq!(peer.first_sent.last().copied().unwrap_or(0), count);
        }
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "tests need one instant to begin from"
    )]
    fn start() -> Instant {
        Instant::now()
    }
}
