//! Messages on their way to the application, and the acknowledgements that are owed for them.
//!
//! Owns: which messages are taken, in which order they are acknowledged, QoS 2 messages that the application already
//! has when the Server sends them again. Does not own: whose they are (see `subscriptions`).
//! Start reading at [`Incoming::on_publish`]. Invariant: acknowledgements leave in the order of the messages; a QoS 2
//! message is given to the application once, however many connections it takes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proto::connection::ClientConnection;
use proto::{PacketIdentifier, Qos};
use tokio::sync::mpsc;

use super::subscriptions::{Subscriptions, Takers};
use crate::{Inbox, ReceivedMessage, WhenInboxFull};

/// A message for one stream.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) message: ReceivedMessage,
    /// What [`Taken`] has to say for it to be acknowledged; none at QoS 0.
    pub(crate) seq: Option<u64>,
}

/// What a stream has done with a message.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Taken {
    /// Bytes that no longer wait; none if the message did not wait.
    pub(crate) waited_bytes: Option<usize>,
    /// The message to acknowledge.
    pub(crate) acknowledged: Option<u64>,
}

/// An acknowledgement that this connection owes, in the order of its messages.
#[derive(Clone, Copy, Debug)]
struct Owed {
    seq: u64,
    packet_id: PacketIdentifier,
    qos: Qos,
    /// Streams that have not taken it.
    takers: u32,
}

/// A QoS 2 message that the application got on an earlier connection, which ended before PUBREC.
#[derive(Clone, Copy, Debug)]
struct Held {
    seq: u64,
    takers: u32,
}

/// A message that no subscription of this program stands for: of an earlier one, perhaps.
#[derive(Debug)]
struct Orphan {
    delivery: Delivery,
    until: Instant,
}

#[derive(Debug)]
pub(super) struct Incoming {
    inbox: Inbox,
    last_seq: u64,
    owed: VecDeque<Owed>,
    held: BTreeMap<PacketIdentifier, Held>,
    orphans: VecDeque<Orphan>,
    others: Option<mpsc::UnboundedSender<Delivery>>,
    takers: Takers,
    waiting: usize,
    waiting_bytes: usize,
    /// Messages that were dropped for want of room or of a subscription.
    dropped: Arc<AtomicU64>,
}

impl Incoming {
    pub(super) fn new(inbox: Inbox) -> Self {
        Self {
            inbox,
            last_seq: 0,
            owed: VecDeque::new(),
            held: BTreeMap::new(),
            orphans: VecDeque::new(),
            others: None,
            takers: Takers::default(),
            waiting: 0,
            waiting_bytes: 0,
            dropped: Arc::default(),
        }
    }

    /// Whether so much waits for the application that nothing more is read.
    pub(super) const fn is_full(&self) -> bool {
        self.waiting >= self.inbox.messages_max.get() as usize
            || self.waiting_bytes >= self.inbox.bytes_max.get() as usize
    }

    /// Whether so much waits that a message at QoS 0 is dropped, if it may be. Some room is left for those above.
    const fn is_filling(&self) -> bool {
        self.waiting >= self.inbox.messages_max.get() as usize / 2
            || self.waiting_bytes >= self.inbox.bytes_max.get() as usize / 2
    }

    pub(super) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }

    /// A message has come.
    pub(super) fn on_publish(
        &mut self,
        message: ReceivedMessage,
        subscriptions: &Subscriptions,
        now: Instant,
    ) {
        let Some(packet_id) = message.packet_id else {
            if self.inbox.when_full == WhenInboxFull::DropNewest && self.is_filling() {
                self.dropped.fetch_add(1, Ordering::Relaxed);
                return;
            }
            self.route(Delivery { message, seq: None }, subscriptions, now);
            return;
        };
        let qos = message.qos;
        if qos == Qos::ExactlyOnce
            && let Some(Held { seq, takers }) = self.held.remove(&packet_id)
            && message.dup
        {
            // [MQTT-4.3.3-10] The application has it already, from the connection before.
            self.owed.push_back(Owed {
                seq,
                packet_id,
                qos,
                takers,
            });
            return;
        }
        self.last_seq += 1;
        let seq = self.last_seq;
        self.owed.push_back(Owed {
            seq,
            packet_id,
            qos,
            takers: 0,
        });
        let delivery = Delivery {
            message,
            seq: Some(seq),
        };
        self.route(delivery, subscriptions, now);
    }

    /// Gives a message to all it is for, or keeps it a while.
    fn route(&mut self, delivery: Delivery, subscriptions: &Subscriptions, now: Instant) {
        subscriptions.takers(&delivery.message, &mut self.takers);
        let senders = &mut self.takers.senders;
        if senders.is_empty() {
            senders.extend(self.others.clone());
        }
        let bytes = delivery.message.len_bytes();
        if senders.is_empty() {
            if delivery.seq.is_some() {
                self.expect(delivery.seq, 1, 1, bytes);
                let until = now + ORPHAN_GRACE;
                self.orphans.push_back(Orphan { delivery, until });
            } else {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            return;
        }
        self.give(delivery, bytes);
    }

    fn give(&mut self, delivery: Delivery, bytes: usize) {
        let Delivery { message, seq } = delivery;
        let mut given = 0;
        let mut senders = self.takers.senders.drain(..).peekable();
        let mut message = Some(message);
        while let Some(sender) = senders.next() {
            let copy = if senders.peek().is_some() {
                message.clone()
            } else {
                message.take()
            };
            let Some(message) = copy else { break };
            // Whoever has gone takes nothing.
            if sender.send(Delivery { message, seq }).is_ok() {
                given += 1;
            }
        }
        drop(senders);
        self.expect(seq, given, given, bytes);
    }

    /// So many streams have yet to take a message, which waits in so many.
    fn expect(&mut self, seq: Option<u64>, takers: u32, waiting: u32, bytes: usize) {
        self.waiting += waiting as usize;
        self.waiting_bytes += bytes * waiting as usize;
        if let Some(owed) = self.owed.back_mut().filter(|owed| Some(owed.seq) == seq) {
            owed.takers = takers;
        }
    }

    /// A subscription has come: what waits for one like it goes there.
    pub(super) fn on_subscribed(&mut self, subscriptions: &Subscriptions, key: u32) {
        let Some(sender) = subscriptions.sender(key) else {
            return;
        };
        let mut left = VecDeque::new();
        for orphan in std::mem::take(&mut self.orphans) {
            if subscriptions.is_for(key, &orphan.delivery.message) {
                self.pass_on(orphan.delivery, &sender);
            } else {
                left.push_back(orphan);
            }
        }
        self.orphans = left;
    }

    /// Whoever takes what is for nobody else.
    pub(super) fn take_others(&mut self, others: mpsc::UnboundedSender<Delivery>) {
        for orphan in std::mem::take(&mut self.orphans) {
            self.pass_on(orphan.delivery, &others);
        }
        self.others = Some(others);
    }

    /// An orphan counts as waiting for one stream already.
    fn pass_on(&mut self, delivery: Delivery, sender: &mpsc::UnboundedSender<Delivery>) {
        if let Err(mpsc::error::SendError(delivery)) = sender.send(delivery) {
            self.on_taken(taken(&delivery));
        }
    }

    /// When the first orphan is given up.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.orphans.front().map(|orphan| orphan.until)
    }

    /// Orphans that nobody has asked for are acknowledged, so that others can come.
    pub(super) fn on_timeout(&mut self, now: Instant) {
        while let Some(orphan) = self.orphans.pop_front_if(|orphan| orphan.until <= now) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(
                topic = orphan.delivery.message.topic,
                "message dropped: nothing in this program subscribes to it"
            );
            self.on_taken(taken(&orphan.delivery));
        }
    }

    /// A stream has taken or acknowledged a message.
    pub(super) fn on_taken(&mut self, taken: Taken) {
        if let Some(bytes) = taken.waited_bytes {
            self.waiting = self.waiting.saturating_sub(1);
            self.waiting_bytes = self.waiting_bytes.saturating_sub(bytes);
        }
        let Some(seq) = taken.acknowledged else {
            return;
        };
        if let Some(owed) = self.owed.iter_mut().find(|owed| owed.seq == seq) {
            owed.takers = owed.takers.saturating_sub(1);
        } else if let Some(held) = self.held.values_mut().find(|held| held.seq == seq) {
            held.takers = held.takers.saturating_sub(1);
        }
    }

    /// Acknowledges what is taken, up to the first message that is not.
    pub(super) fn put_acks(
        &mut self,
        connection: &mut ClientConnection,
        now: Instant,
        out: &mut Vec<u8>,
    ) {
        while self.owed.pop_front_if(|owed| owed.takers == 0).is_some() {
            connection.acknowledge(now, out);
        }
    }

    /// The connection is gone: the Server will send again what is not acknowledged.
    pub(super) fn on_lost(&mut self) {
        for owed in self.owed.drain(..) {
            if owed.qos == Qos::ExactlyOnce {
                let Owed {
                    seq,
                    packet_id,
                    takers,
                    ..
                } = owed;
                self.held.insert(packet_id, Held { seq, takers });
            }
        }
    }

    /// The Server has forgotten what it sent: an identifier stands for something new.
    pub(super) fn on_session_lost(&mut self) {
        self.held.clear();
    }

    /// Acknowledgements that are owed.
    #[cfg(test)]
    pub(super) fn owed_count(&self) -> usize {
        self.owed.len()
    }

    /// Messages that wait for the application, and their bytes.
    pub(super) const fn waiting(&self) -> (usize, usize) {
        (self.waiting, self.waiting_bytes)
    }

    /// Whether nothing is kept for anyone.
    #[cfg(test)]
    pub(super) fn is_idle(&self) -> bool {
        let Self {
            owed,
            held,
            orphans,
            waiting,
            waiting_bytes,
            ..
        } = self;
        let is_empty = owed.is_empty() && held.is_empty() && orphans.is_empty();
        is_empty && (*waiting, *waiting_bytes) == (0, 0)
    }

    pub(super) fn end(&mut self) {
        self.orphans.clear();
        self.others = None;
    }
}

/// What is said of a delivery that nobody will take.
pub(crate) fn taken(delivery: &Delivery) -> Taken {
    Taken {
        waited_bytes: Some(delivery.message.len_bytes()),
        acknowledged: delivery.seq,
    }
}

/// How long a message waits for a subscription of this program: long enough to start, too short to block for good.
const ORPHAN_GRACE: Duration = Duration::from_secs(60);
