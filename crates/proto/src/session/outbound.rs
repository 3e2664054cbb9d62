//! QoS 1 and QoS 2 as sender (sections 4.3.2, 4.3.3, 4.4, 4.6, 4.9).
//!
//! Owns: messages that wait, messages in flight, PUBRELs that wait for PUBCOMP, the send quota.
//! Does not own: how much may wait and where, whether a message has expired or is too large for the peer.
//! Start reading at [`Outbound::push`], then [`Outbound::start_next`].
//! Invariants: waiting messages are started in the order they were pushed; on a new Network Connection
//! everything that was in flight is sent again before anything that waits; a message always has the
//! Packet Identifier that its number gives.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Spilled;
use super::packet_identifier::{PACKET_IDENTIFIERS, derived};
use super::spilled::Sent;
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
    /// Whether a store has it, too, under `seq`: it need not stay in memory.
    pub is_stored: bool,
}

/// A message that was sent and is not acknowledged yet.
#[derive(Clone, Debug)]
pub struct InFlight {
    /// Its Packet Identifier.
    pub packet_id: PacketIdentifier,
    /// The message.
    pub queued: Queued,
}

/// The same of one that is never sent again, of which nothing but this is kept.
#[derive(Clone, Copy, Debug)]
struct SentOnce {
    packet_id: PacketIdentifier,
    qos: Qos,
    seq: u64,
}

/// A QoS 2 message that the peer has, until PUBCOMP.
#[derive(Clone, Copy, Debug)]
struct Released {
    packet_id: PacketIdentifier,
    seq: u64,
    /// Its PUBLISH was sent on this Network Connection and spent one of its quota.
    has_spent: bool,
    is_stored: bool,
}

/// A handshake that PUBCOMP has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completed {
    /// Number of the message.
    pub seq: u64,
    /// Whether a store knows of it.
    pub is_stored: bool,
}

/// What has to be sent again on a new Network Connection.
#[derive(Clone, Debug)]
pub enum Resend {
    /// A PUBREL.
    PubRel(PacketIdentifier),
    /// A PUBLISH with DUP set.
    Publish(InFlight),
}

/// A message that the peer has answered.
#[derive(Debug)]
pub enum Answered {
    /// One that was kept until now.
    Kept(Queued),
    /// One that was sent by [`Outbound::start_at_once`].
    SentOnce,
}

/// What a PUBREC asks of the sender.
#[derive(Debug)]
pub enum PubRecOutcome {
    /// The peer has the message: it may be forgotten, then PUBREL is sent.
    Release(Answered),
    /// PUBREL was sent before and is sent again.
    ReleaseAgain,
    /// The peer refused the message: the handshake is over.
    Refused(Answered),
    /// No such identifier.
    Unknown,
}

/// What has become of a loaded message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLoaded {
    /// It is in memory.
    Queued,
    /// It has expired and is gone.
    Expired,
    /// It has expired, but the peer may have it: only its PUBREL is left to send.
    Released,
    /// It was dropped meanwhile, or is in memory already.
    Unwanted,
}

/// The sender's half of the delivery state of a Session.
/// [MQTT-4.6.0-5] [MQTT-4.6.0-6] [v3.1.1 MQTT-4.6.0-5] [v3.1.1 MQTT-4.6.0-6] One queue for all topics.
#[derive(Clone, Debug, Default)]
pub struct Outbound {
    /// What there is of them; most Sessions have none at most times.
    queues: Option<Box<Queues>>,
    /// What follows those that wait and is not in memory.
    spilled: Option<Box<Spilled>>,
    last_seq: u64,
    /// No open message has a smaller sequence number.
    lowest_open_seq: u64,
    send_quota: u16,
    send_quota_initial: u16,
    /// Part of the quota that PUBRELs owed from before keep until they are completed.
    send_quota_withheld: u16,
}

/// Messages in memory.
#[derive(Clone, Debug)]
struct Queues {
    /// Sent and not acknowledged, in the order they were first sent.
    in_flight: VecDeque<InFlight>,
    /// The same of those that are not kept, on this Network Connection.
    sent_once: VecDeque<SentOnce>,
    /// After PUBREC and before PUBCOMP, in the order of the PUBRECs.
    released: VecDeque<Released>,
    /// Not sent yet, in order.
    waiting: VecDeque<Queued>,
    /// Bytes of the messages that wait.
    waiting_bytes: usize,
    /// How many of `released` and of `in_flight` were sent on this Network Connection.
    resend_released: usize,
    resend_in_flight: usize,
}

impl Queues {
    const EMPTY: Self = Self {
        in_flight: VecDeque::new(),
        sent_once: VecDeque::new(),
        released: VecDeque::new(),
        waiting: VecDeque::new(),
        waiting_bytes: 0,
        resend_released: 0,
        resend_in_flight: 0,
    };

    fn is_resending(&self) -> bool {
        self.resend_released < self.released.len() || self.resend_in_flight < self.in_flight.len()
    }

    fn open_len(&self) -> usize {
        self.in_flight.len() + self.sent_once.len() + self.released.len()
    }

    fn table_bytes(&self) -> usize {
        size_of::<Self>()
            + self.in_flight.capacity() * size_of::<InFlight>()
            + self.sent_once.capacity() * size_of::<SentOnce>()
            + self.released.capacity() * size_of::<Released>()
            + self.waiting.capacity() * size_of::<Queued>()
    }

    fn pop_waiting(&mut self) -> Option<Queued> {
        let first = self.waiting.pop_front()?;
        self.waiting_bytes -= first.message.memory_bytes();
        Some(first)
    }

    /// The last one that waits and that a store has.
    fn pop_stored(&mut self) -> Option<Queued> {
        let last = self.waiting.pop_back_if(|last| last.is_stored)?;
        self.waiting_bytes -= last.message.memory_bytes();
        Some(last)
    }
}

impl Outbound {
    fn queues(&self) -> &Queues {
        static EMPTY: Queues = Queues::EMPTY;
        self.queues.as_deref().unwrap_or(&EMPTY)
    }

    fn queues_mut(&mut self) -> &mut Queues {
        self.queues.get_or_insert_with(|| Box::new(Queues::EMPTY))
    }

    /// The queue of a Session after a restart: the numbers of messages whose PUBREL is owed, ascending, what
    /// is left to load, and the last number ever given.
    #[must_use]
    pub fn restored(released: &[u64], spilled: Option<Spilled>, last_seq: u64) -> Self {
        let released = released.iter().map(|seq| Released {
            packet_id: derived(*seq),
            seq: *seq,
            has_spent: false,
            is_stored: true,
        });
        let spilled = spilled.filter(|spilled| !spilled.is_over());
        let last_on_disk = spilled.map_or(0, |spilled| spilled.last_seq);
        let released: VecDeque<_> = released.collect();
        let queues = (!released.is_empty()).then(|| {
            Box::new(Queues {
                released,
                ..Queues::EMPTY
            })
        });
        let mut restored = Self {
            queues,
            spilled: spilled.map(Box::new),
            last_seq: last_seq.max(last_on_disk),
            ..Self::default()
        };
        restored.keep_released();
        restored
    }

    /// Appends a message to those that wait; gives it its number, which is returned. O(1).
    /// # Panics
    /// Messages are spilled: it would overtake them.
    pub fn push(&mut self, mut queued: Queued) -> u64 {
        assert!(
            self.spilled.is_none(),
            "invariant: no message overtakes those that are spilled"
        );
        self.last_seq += 1;
        queued.seq = self.last_seq;
        let queues = self.queues_mut();
        queues.waiting_bytes += queued.message.memory_bytes();
        queues.waiting.push_back(queued);
        self.last_seq
    }

    /// Appends a message that stays with the store; only its number, which is returned, is kept. O(1).
    pub fn push_spilled(&mut self, bytes: u64) -> u64 {
        self.last_seq += 1;
        let seq = self.last_seq;
        self.spilled
            .get_or_insert_with(|| Box::new(Spilled::beginning_at(seq)))
            .push_back(seq, bytes);
        seq
    }

    /// Leaves to the store what it has, from the last message on; `charge` says for how many bytes. Only
    /// while there is no Network Connection.
    pub fn spill(&mut self, mut charge: impl FnMut(&Queued) -> u64) {
        let Some(mut queues) = self.queues.take() else {
            return;
        };
        while let Some(last) = queues.pop_stored() {
            self.spill_one(last.seq, charge(&last), false);
        }
        if queues.waiting.is_empty() {
            queues.waiting = VecDeque::new();
            // Between what was sent and what was not, messages may have been dropped.
            if let Some(spilled) = &mut self.spilled
                && spilled.sent_count == 0
            {
                spilled.keep_through(spilled.first_seq - 1);
            }
            let of_store = |last: &mut InFlight| last.queued.is_stored;
            while let Some(last) = queues.in_flight.pop_back_if(of_store) {
                self.spill_one(last.queued.seq, charge(&last.queued), true);
            }
            queues.in_flight.shrink_to_fit();
        }
        self.queues = Some(queues);
        self.keep_released();
        self.leave_queues();
    }

    /// Leaves to the store what it has of the messages that wait beyond the first `keep`, from the last one on; `charge`
    /// says for how many bytes. What was sent stays.
    pub fn spill_beyond(&mut self, keep: usize, mut charge: impl FnMut(&Queued) -> u64) {
        while self.queues().waiting.len() > keep
            && let Some(last) = self.queues_mut().pop_stored()
        {
            self.spill_one(last.seq, charge(&last), false);
        }
        if let Some(queues) = &mut self.queues {
            queues.waiting.shrink_to(keep);
        }
    }

    /// What is dropped by its number only must not be a message whose PUBREL is owed.
    fn keep_released(&mut self) {
        let released = &self.queues().released;
        let released = released.iter().map(|released| released.seq).max();
        if let (Some(spilled), Some(seq)) = (&mut self.spilled, released) {
            spilled.keep_through(seq);
        }
    }

    fn spill_one(&mut self, seq: u64, bytes: u64, is_sent: bool) {
        self.spilled
            .get_or_insert_with(|| Box::new(Spilled::beginning_at(seq)))
            .push_front(seq, bytes, is_sent);
    }

    /// What is not in memory, if anything.
    #[must_use]
    pub fn spilled(&self) -> Option<&Spilled> {
        self.spilled.as_deref()
    }

    /// A spilled message has been loaded. If it has expired, it is in the queue afterwards only if it was sent
    /// for sure: the peer may have it, and its handshake goes on, [MQTT-4.3.3-7].
    pub fn push_loaded(&mut self, queued: Queued, bytes: u64, is_expired: bool) -> OnLoaded {
        let seq = queued.seq;
        let taken = self.change_spilled(|spilled| spilled.take(seq, bytes));
        let Some(sent) = taken.flatten() else {
            return OnLoaded::Unwanted;
        };
        // What is that far above an open message has waited for it and was not sent.
        let packet_id = self.packet_id_of(seq).filter(|_| sent != Sent::No);
        if is_expired && sent != Sent::Yes {
            return match packet_id.filter(|_| queued.qos == Qos::ExactlyOnce) {
                // Had it been sent, the peer would keep its identifier until PUBREL.
                Some(packet_id) => {
                    self.queues_mut().released.push_back(Released {
                        packet_id,
                        seq,
                        has_spent: false,
                        is_stored: queued.is_stored,
                    });
                    OnLoaded::Released
                }
                None => OnLoaded::Expired,
            };
        }
        if let Some(packet_id) = packet_id {
            let in_flight = &mut self.queues_mut().in_flight;
            in_flight.push_back(InFlight { packet_id, queued });
            return OnLoaded::Queued;
        }
        if let Some(spilled) = &mut self.spilled {
            spilled.sent_count = 0;
        }
        let queues = self.queues_mut();
        queues.waiting_bytes += queued.message.memory_bytes();
        queues.waiting.push_back(queued);
        OnLoaded::Queued
    }

    /// Drops the oldest spilled message that was not sent. Returns its number.
    pub fn drop_spilled(&mut self) -> Option<u64> {
        self.change_spilled(Spilled::drop_oldest).flatten()
    }

    /// The store has no spilled message with this number or a lower one.
    pub fn pass_over(&mut self, through_seq: u64) {
        self.change_spilled(|spilled| spilled.pass_over(through_seq));
    }

    fn change_spilled<T>(&mut self, change: impl FnOnce(&mut Spilled) -> T) -> Option<T> {
        let spilled = self.spilled.as_mut()?;
        let changed = change(spilled);
        if spilled.is_over() {
            self.spilled = None;
        }
        Some(changed)
    }

    /// Bytes its own tables take, the messages not counted. O(1).
    #[must_use]
    pub fn table_bytes(&self) -> usize {
        let spilled = self.spilled.as_ref().map_or(0, |_| size_of::<Spilled>());
        spilled
            + self
                .queues
                .as_ref()
                .map_or(0, |queues| queues.table_bytes())
    }

    /// Gives back the space of a rush that is over. O(1) but for the one time in which it does.
    pub fn shrink(&mut self) {
        let Some(queues) = &mut self.queues else {
            return;
        };
        if queues.waiting.is_empty() && queues.waiting.capacity() > KEPT_MAX {
            queues.waiting = VecDeque::new();
        }
        if queues.in_flight.is_empty() && queues.in_flight.capacity() > KEPT_MAX {
            queues.in_flight = VecDeque::new();
        }
        if queues.sent_once.is_empty() && queues.sent_once.capacity() > KEPT_MAX {
            queues.sent_once = VecDeque::new();
        }
        if queues.released.is_empty() && queues.released.capacity() > KEPT_MAX {
            queues.released = VecDeque::new();
        }
    }

    /// Keeps no room for messages if there are none: the next ones make it anew.
    pub fn leave_queues(&mut self) {
        let is_over = |queues: &Queues| queues.waiting.is_empty() && queues.open_len() == 0;
        if self.queues.as_deref().is_some_and(is_over) {
            self.queues = None;
        }
    }

    /// How many messages and bytes in memory wait for quota, those to be sent again included. O(these).
    #[must_use]
    pub fn window(&self) -> (usize, usize) {
        let queues = self.queues();
        let again = queues.in_flight.iter().skip(queues.resend_in_flight);
        let (mut count, mut bytes) = (queues.waiting.len(), queues.waiting_bytes);
        for in_flight in again {
            count += 1;
            bytes += in_flight.queued.message.memory_bytes();
        }
        (count, bytes)
    }

    /// A Network Connection begins: fills the quota and marks everything in flight to be sent again.
    pub fn on_connected(&mut self, send_quota: u16) {
        // Owed PUBRELs keep their part of the quota, or a Client that never completes could pile them
        // up with every new connection. [MQTT-4.9.0-1] Not zero, not above its Receive Maximum.
        if let Some(queues) = &mut self.queues {
            queues.sent_once.clear();
            for owed in &mut queues.released {
                owed.has_spent = false;
            }
            queues.resend_released = 0;
            queues.resend_in_flight = 0;
        }
        let owed = u16::try_from(self.queues().released.len()).unwrap_or(u16::MAX);
        self.send_quota = send_quota.saturating_sub(owed).max(1).min(send_quota);
        self.send_quota_initial = send_quota;
        self.send_quota_withheld = send_quota - self.send_quota;
    }

    /// The Network Connection is gone: nothing can be sent until the next begins.
    pub fn on_disconnected(&mut self) {
        self.on_connected(0);
        self.leave_queues();
    }

    /// The next packet to send again on this Network Connection, if one is left and the quota allows it.
    /// [MQTT-4.4.0-1] [v3.1.1 MQTT-4.4.0-1] [MQTT-4.6.0-1] [MQTT-4.6.0-4] PUBRELs in the order of the
    /// PUBRECs, then PUBLISH packets in their original order, all with their original identifiers.
    pub fn poll_resend(&mut self) -> Option<Resend> {
        if self.send_quota_initial == 0 {
            return None;
        }
        let queues = self.queues.as_mut()?;
        if let Some(released) = queues.released.get(queues.resend_released) {
            queues.resend_released += 1;
            return Some(Resend::PubRel(released.packet_id));
        }
        if self.send_quota == 0 {
            return None;
        }
        let again = queues.in_flight.get(queues.resend_in_flight)?.clone();
        queues.resend_in_flight += 1;
        self.send_quota -= 1;
        Some(Resend::Publish(again))
    }

    /// The message that [`Self::start_next`] would send, if the quota allows one and nothing has to be
    /// sent again first. [MQTT-3.3.4-9] [MQTT-4.9.0-2] Nothing but PUBLISH is held back,
    /// [MQTT-3.3.4-10] [MQTT-4.9.0-3].
    #[must_use]
    pub fn next_waiting(&self) -> Option<&Queued> {
        let queues = self.queues.as_ref()?;
        if self.send_quota == 0 || queues.is_resending() {
            None
        } else {
            queues.waiting.front()
        }
    }

    /// Moves the first waiting message into flight, under the identifier of its number, and spends one of
    /// the quota. [MQTT-4.3.2-1] [MQTT-4.3.3-1] [MQTT-4.3.3-3] [v3.1.1 MQTT-4.3.2-1] [v3.1.1 MQTT-4.3.3-1]
    /// Call it after [`Self::next_waiting`] gave the message. `None` also while a message so old is open
    /// that the identifier may be in use.
    pub fn start_next(&mut self) -> Option<&InFlight> {
        let seq = self.next_waiting()?.seq;
        let packet_id = self.packet_id_of(seq)?;
        let queued = self.discard_next()?;
        self.send_quota -= 1;
        let queues = self.queues_mut();
        queues.in_flight.push_back(InFlight { packet_id, queued });
        queues.resend_in_flight = queues.in_flight.len();
        queues.in_flight.back()
    }

    /// So many messages that need not wait, and are never sent again, for the Session ends with this Network Connection:
    /// the identifier that the first is sent with, each other one with that which follows; all that is kept of them. `None`
    /// if one has to wait; then nothing has changed. O(count).
    pub fn start_at_once(&mut self, qos: Qos, count: u16) -> Option<PacketIdentifier> {
        let first = self.last_seq + 1;
        let packet_id = self.packet_id_of(first)?;
        if count == 0 || count > self.at_once_max() {
            return None;
        }
        self.send_quota -= count;
        self.last_seq += u64::from(count);
        let sent = (first..=self.last_seq).map(|seq| SentOnce {
            packet_id: derived(seq),
            qos,
            seq,
        });
        self.queues_mut().sent_once.extend(sent);
        Some(packet_id)
    }

    /// How many messages need not wait. O(1).
    #[must_use]
    pub fn at_once_max(&self) -> u16 {
        let queues = self.queues();
        let has_to_wait = !queues.waiting.is_empty() || queues.is_resending();
        if has_to_wait || self.spilled.is_some() {
            return 0;
        }
        // Beyond that an identifier could be in use.
        let seq_max = if self.open_len() == 0 {
            u64::MAX
        } else {
            self.lowest_open_seq.saturating_add(PACKET_IDENTIFIERS - 1)
        };
        let free = seq_max.saturating_sub(self.last_seq);
        self.send_quota.min(u16::try_from(free).unwrap_or(u16::MAX))
    }

    /// Whether an acknowledgement lets nothing leave: nothing waits, here or on the disk, or has to be sent again.
    #[must_use]
    pub fn has_nothing_to_send(&self) -> bool {
        let queues = self.queues();
        queues.waiting.is_empty() && self.spilled.is_none() && !queues.is_resending()
    }

    /// Takes the first waiting message away: expired, too large, or pushed out.
    pub fn discard_next(&mut self) -> Option<Queued> {
        self.queues.as_mut()?.pop_waiting()
    }

    /// Takes the message with this identifier out of flight without an answer of the peer, because it
    /// cannot be sent again. Gives its quota back.
    pub fn discard_in_flight(&mut self, packet_id: PacketIdentifier) -> Option<Queued> {
        let (queued, has_spent) = self.take_in_flight(packet_id, |_| true)?;
        self.give_back(has_spent);
        Some(queued)
    }

    /// PUBACK: returns the message it acknowledges, or `None` if there is none of QoS 1.
    pub fn on_puback(&mut self, packet_id: PacketIdentifier) -> Option<Answered> {
        if self.take_sent_once(packet_id, Qos::AtLeastOnce).is_some() {
            self.give_back(true);
            return Some(Answered::SentOnce);
        }
        let (queued, has_spent) = self.take_in_flight(packet_id, |qos| qos == Qos::AtLeastOnce)?;
        self.give_back(has_spent);
        Some(Answered::Kept(queued))
    }

    /// PUBREC; `is_error` if its Reason Code is 0x80 or greater.
    /// [MQTT-4.3.3-4] [v3.1.1 MQTT-4.3.3-1]
    pub fn on_pubrec(&mut self, packet_id: PacketIdentifier, is_error: bool) -> PubRecOutcome {
        let (answered, released) =
            if let Some(sent) = self.take_sent_once(packet_id, Qos::ExactlyOnce) {
                let released = Released {
                    packet_id,
                    seq: sent.seq,
                    has_spent: true,
                    is_stored: false,
                };
                (Answered::SentOnce, released)
            } else if let Some((queued, has_spent)) =
                self.take_in_flight(packet_id, |qos| qos == Qos::ExactlyOnce)
            {
                let released = Released {
                    packet_id,
                    seq: queued.seq,
                    has_spent,
                    is_stored: queued.is_stored,
                };
                (Answered::Kept(queued), released)
            } else if self
                .queues()
                .released
                .iter()
                .any(|released| released.packet_id == packet_id)
            {
                return PubRecOutcome::ReleaseAgain;
            } else {
                return PubRecOutcome::Unknown;
            };
        if is_error {
            // [MQTT-4.9.0-2] A PUBREC that refuses gives the quota back.
            self.give_back(released.has_spent);
            return PubRecOutcome::Refused(answered);
        }
        // [MQTT-4.3.3-5] [MQTT-4.3.3-6] From now on only PUBREL is sent, until PUBCOMP.
        let queues = self.queues_mut();
        let is_resending = queues.resend_released < queues.released.len();
        queues.released.push_back(released);
        if !is_resending {
            queues.resend_released = queues.released.len();
        }
        PubRecOutcome::Release(answered)
    }

    /// PUBCOMP: returns the message whose handshake it ends, or `None` for an unknown one.
    pub fn on_pubcomp(&mut self, packet_id: PacketIdentifier) -> Option<Completed> {
        let queues = self.queues.as_mut()?;
        let index = queues
            .released
            .iter()
            .position(|released| released.packet_id == packet_id)?;
        let released = queues.released.remove(index)?;
        if index < queues.resend_released {
            queues.resend_released -= 1;
        }
        let has_withheld = !released.has_spent && self.send_quota_withheld > 0;
        self.send_quota_withheld -= u16::from(has_withheld);
        self.give_back(released.has_spent || has_withheld);
        Some(Completed {
            seq: released.seq,
            is_stored: released.is_stored,
        })
    }

    /// The last number given; 0 if none was.
    #[must_use]
    pub const fn last_seq(&self) -> u64 {
        self.last_seq
    }

    /// How many messages wait to be sent for the first time, in memory or not.
    #[must_use]
    pub fn waiting_len(&self) -> usize {
        let on_disk = self.spilled.as_ref().map_or(0, |spilled| {
            spilled.count.saturating_sub(spilled.sent_count)
        });
        self.queues().waiting.len() + usize::try_from(on_disk).unwrap_or(usize::MAX / 2)
    }

    /// How many messages were sent and are not finished: in flight, or released and not completed.
    #[must_use]
    pub fn open_len(&self) -> usize {
        self.queues().open_len()
    }

    /// Whether there is nothing to deliver and nothing unfinished.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let queues = self.queues();
        queues.waiting.is_empty() && queues.open_len() == 0 && self.spilled.is_none()
    }

    /// Lets go of so many messages that wait, of a queue that nobody will be sent any more. Whether some are left.
    /// O(count).
    pub fn shed(&mut self, count: usize) -> bool {
        let Some(queues) = &mut self.queues else {
            return false;
        };
        let left = queues.waiting.len().saturating_sub(count);
        queues.waiting.truncate(left);
        left > 0
    }

    /// Every message in memory that waits or is in flight, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Queued> + '_ {
        let queues = self.queues();
        let in_flight = queues.in_flight.iter();
        in_flight
            .map(|in_flight| &in_flight.queued)
            .chain(&queues.waiting)
    }

    /// Peers acknowledge in order, so it is the first; the length is bounded by the quota.
    fn take_sent_once(&mut self, packet_id: PacketIdentifier, qos: Qos) -> Option<SentOnce> {
        let sent_once = &mut self.queues.as_mut()?.sent_once;
        let mut sent = sent_once.iter();
        let index = sent.position(|open| open.packet_id == packet_id)?;
        if sent_once.get(index)?.qos != qos {
            return None;
        }
        sent_once.remove(index)
    }

    fn take_in_flight(
        &mut self,
        packet_id: PacketIdentifier,
        fits: impl Fn(Qos) -> bool,
    ) -> Option<(Queued, bool)> {
        // Peers acknowledge in order, so this is the first; the length is bounded by the quota.
        let queues = self.queues.as_mut()?;
        let index = queues
            .in_flight
            .iter()
            .position(|open| open.packet_id == packet_id)?;
        if !fits(queues.in_flight.get(index)?.queued.qos) {
            return None;
        }
        let taken = queues.in_flight.remove(index)?;
        let has_spent = index < queues.resend_in_flight;
        if has_spent {
            queues.resend_in_flight -= 1;
        }
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

    /// [MQTT-2.2.1-4] [v3.1.1 MQTT-2.3.1-4] The identifier that the number `seq` gives, unless a message so
    /// much older is open that it may have the same. It is not written down: a message sent again after a
    /// restart has the one it had.
    fn packet_id_of(&mut self, seq: u64) -> Option<PacketIdentifier> {
        if self.open_len() == 0 {
            self.lowest_open_seq = seq;
        }
        let is_far = |lowest: u64| seq.saturating_sub(lowest) >= PACKET_IDENTIFIERS;
        if is_far(self.lowest_open_seq) {
            let queues = self.queues();
            let first = queues.in_flight.front().map(|open| open.queued.seq);
            let once = queues.sent_once.front().map(|open| open.seq);
            let released = queues.released.iter().map(|released| released.seq);
            let open = released.chain(first).chain(once);
            self.lowest_open_seq = open.min().unwrap_or(seq);
        }
        (!is_far(self.lowest_open_seq)).then(|| derived(seq))
    }
}

/// Places that an empty table of a queue keeps.
const KEPT_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Instant;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Push { is_qos2: bool, is_stored: bool },
        Send,
        AtOnce { is_qos2: bool, count: u16 },
        Acknowledge { pick: usize, is_error: bool },
        Complete { pick: usize },
        Reconnect { quota: u16, is_spilled: bool },
        Restart { quota: u16 },
        Load { count: usize },
        Drop,
        Unknown { packet_id: u16 },
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => (any::<bool>(), prop::bool::weighted(0.8))
                .prop_map(|(is_qos2, is_stored)| Event::Push { is_qos2, is_stored }),
            6 => Just(Event::Send),
            3 => (any::<bool>(), 1_u16..6)
                .prop_map(|(is_qos2, count)| Event::AtOnce { is_qos2, count }),
            4 => (any::<usize>(), prop::bool::weighted(0.2))
                .prop_map(|(pick, is_error)| Event::Acknowledge { pick, is_error }),
            3 => any::<usize>().prop_map(|pick| Event::Complete { pick }),
            1 => (1..5_u16, any::<bool>())
                .prop_map(|(quota, is_spilled)| Event::Reconnect { quota, is_spilled }),
            1 => (1..5_u16).prop_map(|quota| Event::Restart { quota }),
            3 => (0..4_usize).prop_map(|count| Event::Load { count }),
            1 => Just(Event::Drop),
            1 => (60_000..60_010_u16).prop_map(|packet_id| Event::Unknown { packet_id }),
        ]
    }

    /// What the peer knows: PUBLISH packets it has not answered on this connection, and all that is open;
    /// and what the store has: messages, and numbers released.
    #[derive(Default)]
    struct Peer {
        unanswered: Vec<(PacketIdentifier, Qos)>,
        owed: Vec<PacketIdentifier>,
        open: BTreeMap<PacketIdentifier, u64>,
        once: BTreeSet<PacketIdentifier>,
        first_sent: Vec<u64>,
        gone: BTreeSet<u64>,
        quota: usize,
        stored: BTreeMap<u64, Queued>,
        stored_released: BTreeSet<u64>,
    }

    impl Peer {
        fn send(&mut self, outbound: &mut Outbound) -> Result<(), TestCaseError> {
            match outbound.poll_resend() {
                Some(Resend::PubRel(packet_id)) => {
                    prop_assert!(self.owed.contains(&packet_id));
                    return Ok(());
                }
                Some(Resend::Publish(again)) => self.take(again, true)?,
                None => {
                    if outbound.next_waiting().is_some()
                        && let Some(started) = outbound.start_next()
                    {
                        self.take(started.clone(), false)?;
                    }
                }
            }
            prop_assert!(
                self.unanswered.len() <= self.quota,
                "above the Receive Maximum"
            );
            Ok(())
        }

        fn take(&mut self, sent: InFlight, dup: bool) -> Result<(), TestCaseError> {
            let seq = sent.queued.seq;
            prop_assert_eq!(u64::from(sent.packet_id.get()), (seq - 1) % 65_535 + 1);
            match self.open.insert(sent.packet_id, seq) {
                Some(open) => {
                    prop_assert_eq!(open, seq, "identifier in use");
                    prop_assert!(dup, "sent again without DUP");
                }
                None => self.first_sent.push(seq),
            }
            self.unanswered.push((sent.packet_id, sent.queued.qos));
            Ok(())
        }

        fn acknowledge(&mut self, outbound: &mut Outbound, pick: usize, is_error: bool) {
            if self.unanswered.is_empty() {
                return;
            }
            let (packet_id, qos) = self.unanswered.remove(pick % self.unanswered.len());
            let is_once = self.once.remove(&packet_id);
            let seq_of = |answered| match answered {
                Answered::Kept(queued) if !is_once => queued.seq,
                Answered::SentOnce if is_once => self.open[&packet_id],
                other => panic!("unexpected {other:?}"),
            };
            if qos == Qos::AtLeastOnce {
                let seq = seq_of(outbound.on_puback(packet_id).expect("it is in flight"));
                self.stored.remove(&seq);
                self.open.remove(&packet_id);
                return;
            }
            match outbound.on_pubrec(packet_id, is_error) {
                PubRecOutcome::Release(answered) => {
                    let seq = seq_of(answered);
                    self.owed.push(packet_id);
                    if self.stored.remove(&seq).is_some() {
                        self.stored_released.insert(seq);
                    }
                }
                PubRecOutcome::Refused(answered) => {
                    let seq = seq_of(answered);
                    self.stored.remove(&seq);
                    self.open.remove(&packet_id);
                }
                other => panic!("unexpected {other:?}"),
            }
        }

        fn send_at_once(&mut self, outbound: &mut Outbound, is_qos2: bool, count: u16) {
            let is_waited_for = outbound.waiting_len() > 0 || outbound.spilled().is_some();
            let qos = queued(is_qos2, start()).qos;
            let (before, may_be) = (outbound.last_seq(), outbound.at_once_max());
            let Some(first) = outbound.start_at_once(qos, count) else {
                assert!(count > may_be, "{count} of {may_be}");
                assert_eq!(outbound.last_seq(), before, "nothing has changed");
                return;
            };
            assert!(count <= may_be && !is_waited_for, "it has overtaken");
            assert_eq!(outbound.last_seq(), before + u64::from(count));
            let mut packet_id = first;
            for seq in before + 1..=outbound.last_seq() {
                assert!(self.open.insert(packet_id, seq).is_none(), "in use");
                self.first_sent.push(seq);
                self.once.insert(packet_id);
                self.unanswered.push((packet_id, qos));
                packet_id = packet_id.following();
            }
        }

        fn complete(&mut self, outbound: &mut Outbound, pick: usize) {
            if !self.owed.is_empty() {
                let packet_id = self.owed.remove(pick % self.owed.len());
                let completed = outbound.on_pubcomp(packet_id).expect("it is owed");
                assert_eq!(
                    self.stored_released.remove(&completed.seq),
                    completed.is_stored
                );
                self.open.remove(&packet_id);
            }
        }

        fn push(&mut self, outbound: &mut Outbound, mut queued: Queued) {
            let is_spilled = outbound.spilled().is_some();
            queued.is_stored |= is_spilled;
            queued.seq = if is_spilled {
                outbound.push_spilled(1)
            } else {
                outbound.push(queued.clone())
            };
            if queued.is_stored {
                self.stored.insert(queued.seq, queued);
            }
        }

        fn load(&self, outbound: &mut Outbound, count: usize) {
            let Some(spilled) = outbound.spilled().copied() else {
                return;
            };
            let found = self.stored.range(spilled.first_seq..).take(count);
            let found: Vec<_> = found.map(|(_, queued)| queued.clone()).collect();
            if found.is_empty() && count > 0 {
                outbound.pass_over(spilled.last_seq);
            }
            for queued in found {
                outbound.push_loaded(queued, 1, false);
            }
        }

        fn drop_oldest(&mut self, outbound: &mut Outbound) {
            let dropped = match outbound.discard_next() {
                Some(queued) => queued.seq,
                None => match outbound.drop_spilled() {
                    Some(seq) => seq,
                    None => return,
                },
            };
            assert!(!self.open.values().any(|open| *open == dropped));
            self.stored.remove(&dropped);
            self.gone.insert(dropped);
        }

        /// The process ends, and what is not stored with it.
        fn restart(&mut self, outbound: &mut Outbound) {
            let last_seq = outbound.last_seq();
            let is_kept =
                |seq: &u64| self.stored.contains_key(seq) || self.stored_released.contains(seq);
            let lost: Vec<_> = self.open.iter().filter(|(_, seq)| !is_kept(seq)).collect();
            let lost: BTreeSet<_> = lost.into_iter().map(|(id, _)| *id).collect();
            self.gone.extend((1..=last_seq).filter(|seq| !is_kept(seq)));
            // The Client forgets what nobody will come back to.
            self.open.retain(|id, _| !lost.contains(id));
            self.owed.retain(|id| !lost.contains(id));
            let released: Vec<_> = self.stored_released.iter().copied().collect();
            let bounds = self.stored.keys().next().zip(self.stored.keys().last());
            let spilled = bounds.map(|(first, last)| {
                let count = self.stored.len() as u64;
                Spilled::restored((*first, *last), count, count, 1024)
            });
            *outbound = Outbound::restored(&released, spilled, last_seq);
        }

        fn reconnect(&mut self, outbound: &mut Outbound, quota: u16) {
            self.unanswered.clear();
            // Nothing is left of them but what the peer was told.
            for packet_id in std::mem::take(&mut self.once) {
                self.open.remove(&packet_id);
            }
            self.quota = usize::from(quota);
            outbound.on_connected(quota);
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
            is_stored: false,
        }
    }

    fn live(outbound: &mut Outbound, peer: &mut Peer, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::Push { is_qos2, is_stored } => {
                let mut queued = queued(is_qos2, start());
                queued.is_stored = is_stored;
                peer.push(outbound, queued);
            }
            Event::Send => peer.send(outbound)?,
            Event::AtOnce { is_qos2, count } => peer.send_at_once(outbound, is_qos2, count),
            Event::Acknowledge { pick, is_error } => peer.acknowledge(outbound, pick, is_error),
            Event::Complete { pick } => peer.complete(outbound, pick),
            Event::Reconnect { quota, is_spilled } => {
                outbound.on_disconnected();
                if is_spilled {
                    outbound.spill(|_| 1);
                }
                peer.reconnect(outbound, quota);
            }
            Event::Restart { quota } => {
                peer.restart(outbound);
                peer.reconnect(outbound, quota);
            }
            Event::Load { count } => peer.load(outbound, count),
            Event::Drop => peer.drop_oldest(outbound),
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
        /// Verifies [MQTT-3.3.1-1]: what is sent again has DUP set, also after a restart.
        #[test]
        fn any_peer_sees_its_identifiers_a_kept_quota_and_the_order(
            events in prop::collection::vec(event(), 0..300),
        ) {
            let mut outbound = Outbound::default();
            let mut peer = Peer { quota: 3, ..Peer::default() };
            outbound.on_connected(3);
            for event in events {
                live(&mut outbound, &mut peer, event)?;
            }
            live(&mut outbound, &mut peer, Event::Reconnect { quota: 2, is_spilled: true })?;
            while !outbound.is_empty() {
                live(&mut outbound, &mut peer, Event::Load { count: 2 })?;
                live(&mut outbound, &mut peer, Event::Send)?;
                live(&mut outbound, &mut peer, Event::Acknowledge { pick: 0, is_error: false })?;
                live(&mut outbound, &mut peer, Event::Complete { pick: 0 })?;
            }
            prop_assert!(peer.open.is_empty());
            prop_assert!(peer.stored.is_empty());
            prop_assert!(peer.first_sent.is_sorted());
            let seen: BTreeSet<_> = peer.first_sent.iter().copied().collect();
            let never = (1..=outbound.last_seq()).filter(|seq| !seen.contains(seq));
            prop_assert!(never.clone().all(|seq| peer.gone.contains(&seq)), "{never:?}");
        }
    }

    /// Verifies [MQTT-2.2.1-4]: an identifier is not used again while it is open, however long that is.
    #[test]
    fn a_message_waits_for_the_one_whose_identifier_it_would_take() {
        let mut outbound = Outbound::default();
        outbound.on_connected(3);
        outbound.push(queued(true, start()));
        assert!(outbound.start_next().is_some());
        outbound.on_pubrec(PacketIdentifier::FIRST, false);
        for _ in 1..65_535 {
            outbound.push(queued(false, start()));
            let started = outbound.start_next().expect("its identifier is free");
            let packet_id = started.packet_id;
            outbound.on_puback(packet_id);
        }
        outbound.push(queued(false, start()));
        assert!(outbound.next_waiting().is_some());
        assert!(outbound.start_next().is_none());
        assert!(outbound.on_pubcomp(PacketIdentifier::FIRST).is_some());
        let started = outbound.start_next().expect("now it is free");
        assert_eq!(started.packet_id, PacketIdentifier::FIRST);
    }

    #[test]
    fn a_restored_message_keeps_its_identifier_and_an_owed_pubrel_goes_first() {
        let spilled = Spilled::restored((70_000, 70_002), 3, 300, 2);
        let mut outbound = Outbound::restored(&[69_998, 69_999], Some(spilled), 0);
        assert_eq!(outbound.last_seq(), 70_002);
        assert_eq!((outbound.waiting_len(), outbound.open_len()), (1, 2));
        outbound.on_connected(10);
        for seq in 70_000..=70_002 {
            let queued = Queued {
                seq,
                is_stored: true,
                ..queued(true, start())
            };
            outbound.push_loaded(queued, 100, false);
        }
        assert_eq!(outbound.spilled(), None);
        for expected in [4463, 4464] {
            let Some(Resend::PubRel(packet_id)) = outbound.poll_resend() else {
                panic!("no PUBREL")
            };
            assert_eq!(packet_id.get(), expected);
        }
        for expected in [4465, 4466] {
            let Some(Resend::Publish(again)) = outbound.poll_resend() else {
                panic!("not sent again")
            };
            assert_eq!(again.packet_id.get(), expected);
        }
        assert!(outbound.poll_resend().is_none());
        let started = outbound.start_next().expect("it was never sent");
        assert_eq!(started.packet_id.get(), 4467);
    }

    /// Between the numbers of what is dropped unseen there may be one whose PUBREL is owed.
    #[test]
    fn dropping_spilled_messages_leaves_a_released_one_alone() {
        let mut outbound = Outbound::default();
        outbound.on_connected(10);
        for is_qos2 in [false, true] {
            let queued = Queued {
                is_stored: true,
                ..queued(is_qos2, start())
            };
            outbound.push(queued);
            assert!(outbound.start_next().is_some());
        }
        let second = PacketIdentifier::new(2).expect("not zero");
        outbound.on_pubrec(second, false);
        outbound.on_disconnected();
        outbound.spill(|_| 1);
        outbound.push_spilled(1);
        assert_eq!(outbound.drop_spilled(), Some(3));
        assert_eq!(outbound.drop_spilled(), None);
    }

    #[test]
    fn dropping_restored_messages_leaves_a_released_one_alone() {
        let mut outbound = Outbound::restored(&[2], Some(Spilled::restored((1, 1), 1, 1, 9)), 3);
        outbound.push_spilled(1);
        assert_eq!(outbound.drop_spilled(), Some(3));
        assert_eq!(outbound.drop_spilled(), Some(4));
        assert_eq!(outbound.drop_spilled(), None);
    }

    /// Verifies [MQTT-4.3.3-7]: no expiry once PUBLISH was sent; where that is not known, the identifier is
    /// set free.
    #[test]
    fn what_has_expired_on_disk_is_gone_unless_it_was_sent() {
        let stored = |seq, is_qos2| Queued {
            seq,
            is_stored: true,
            ..queued(is_qos2, start())
        };
        let mut outbound = Outbound::default();
        outbound.on_connected(10);
        outbound.push(stored(0, false));
        assert!(outbound.start_next().is_some());
        outbound.push(stored(0, false));
        outbound.on_disconnected();
        outbound.spill(|_| 1);
        outbound.on_connected(10);
        let taken = [1, 2].map(|seq| outbound.push_loaded(stored(seq, false), 1, true));
        assert_eq!(taken, [OnLoaded::Queued, OnLoaded::Expired]);
        let spilled = Spilled::restored((1, 3), 3, 3, 2);
        let mut outbound = Outbound::restored(&[], Some(spilled), 3);
        outbound.on_connected(10);
        let taken = [(1, false), (2, true), (3, true)]
            .map(|(seq, is_qos2)| outbound.push_loaded(stored(seq, is_qos2), 1, true));
        let expected = [OnLoaded::Expired, OnLoaded::Released, OnLoaded::Expired];
        assert_eq!(taken, expected);
        let Some(Resend::PubRel(packet_id)) = outbound.poll_resend() else {
            panic!("no PUBREL")
        };
        assert!(outbound.on_pubcomp(packet_id).is_some());
        assert!(outbound.is_empty());
    }

    /// What a restart finds may lie further apart than what can have been open.
    #[test]
    fn a_restored_message_far_above_an_open_one_was_not_sent() {
        let spilled = Spilled::restored((65_536, 65_536), 1, 1, 1024);
        let mut outbound = Outbound::restored(&[1], Some(spilled), 65_536);
        outbound.on_connected(10);
        assert!(matches!(outbound.poll_resend(), Some(Resend::PubRel(_))));
        let queued = Queued {
            seq: 65_536,
            is_stored: true,
            ..queued(false, start())
        };
        outbound.push_loaded(queued, 1, false);
        assert!(outbound.poll_resend().is_none());
        assert!(outbound.start_next().is_none());
        assert!(outbound.on_pubcomp(PacketIdentifier::FIRST).is_some());
        assert!(outbound.start_next().is_some());
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "tests need one instant to begin from"
    )]
    fn start() -> Instant {
        Instant::now()
    }
}
