//! What the records of one Session add up to.
//!
//! Owns: [`Session`]. Does not own: the messages in its queue (see `messages`).
//! Start reading at [`Session`]. Invariant: what is empty costs a pointer at most, since there may be
//! a million Sessions.

use std::collections::BTreeMap;

use super::hash::FilterHash;
use super::messages::SlotNumber;
use super::queue::Queue;
use super::{Live, Location};

#[derive(Debug, Default)]
pub(super) struct Session {
    pub(super) put: Option<Location>,
    pub(super) will: Option<Location>,
    pub(super) queue_seq: u64,
    pub(super) inbound_number: u64,
    /// `None` if it is empty.
    pub(super) queue: Option<Box<Queue>>,
    /// `None` if there is none.
    handshakes: Option<Box<Handshakes>>,
    /// Ascending.
    subscriptions: Vec<(FilterHash, Location)>,
}

/// QoS 2 messages half way.
#[derive(Debug, Default)]
struct Handshakes {
    /// By number in the queue.
    released: BTreeMap<u64, Location>,
    /// By Packet Identifier.
    inbound: BTreeMap<u16, Location>,
}

impl Session {
    pub(super) fn raise_numbers(&mut self, queue_seq: u64, inbound_number: u64) {
        self.queue_seq = self.queue_seq.max(queue_seq);
        self.inbound_number = self.inbound_number.max(inbound_number);
    }

    pub(super) fn put_subscription(&mut self, filter: FilterHash, at: Location, live: &mut Live) {
        live.segments.add(at);
        match self.search(filter) {
            Ok(place) => {
                live.segments.subtract(self.subscriptions[place].1);
                self.subscriptions[place].1 = at;
            }
            Err(place) => {
                let len = self.subscriptions.len();
                if len == self.subscriptions.capacity() {
                    self.subscriptions.reserve_exact((len / 2).max(1));
                }
                self.subscriptions.insert(place, (filter, at));
            }
        }
    }

    pub(super) fn delete_subscription(&mut self, filter: FilterHash, live: &mut Live) {
        if let Ok(place) = self.search(filter) {
            live.segments.subtract(self.subscriptions.remove(place).1);
            if self.subscriptions.capacity() > 4 * self.subscriptions.len() {
                self.subscriptions.shrink_to_fit();
            }
        }
    }

    /// Queues the message in `slot`, which is at `at`, under the number `seq`. One written again takes
    /// the place of the one before it; one that the Client has, by a Release, stays out.
    pub(super) fn enqueue(&mut self, seq: u64, slot: SlotNumber, at: Location, live: &mut Live) {
        self.queue_seq = self.queue_seq.max(seq);
        if self.is_released(seq) {
            return;
        }
        live.messages.refer(slot);
        let queue = self.queue.get_or_insert_default();
        queue.bytes += u64::from(at.len);
        match queue.insert(seq, slot) {
            Some(before) => {
                let mut bytes = queue.bytes;
                live.forget(before, &mut bytes);
                queue.bytes = bytes;
            }
            None => live.entry_count += 1,
        }
    }

    /// Takes the messages with the numbers from `first` to `last` out.
    pub(super) fn dequeue(&mut self, first: u64, last: u64, live: &mut Live) {
        self.remove_entries(first, last, live);
        if let Some(handshakes) = &mut self.handshakes {
            while let Some((&seq, &at)) = handshakes.released.range(first..=last).next() {
                handshakes.released.remove(&seq);
                live.segments.subtract(at);
            }
            self.drop_empty_handshakes();
        }
    }

    /// The Client has the message with the number `seq`; its PUBREL is owed.
    pub(super) fn release(&mut self, seq: u64, at: Location, live: &mut Live) {
        self.queue_seq = self.queue_seq.max(seq);
        self.remove_entries(seq, seq, live);
        let handshakes = self.handshakes.get_or_insert_default();
        live.segments.add(at);
        if let Some(before) = handshakes.released.insert(seq, at) {
            live.segments.subtract(before);
        }
    }

    pub(super) fn put_inbound(
        &mut self,
        packet_id: u16,
        number: u64,
        at: Location,
        live: &mut Live,
    ) {
        self.inbound_number = self.inbound_number.max(number);
        let handshakes = self.handshakes.get_or_insert_default();
        live.segments.add(at);
        if let Some(before) = handshakes.inbound.insert(packet_id, at) {
            live.segments.subtract(before);
        }
    }

    pub(super) fn delete_inbound(&mut self, packet_id: u16, live: &mut Live) {
        if let Some(handshakes) = &mut self.handshakes {
            if let Some(before) = handshakes.inbound.remove(&packet_id) {
                live.segments.subtract(before);
            }
            self.drop_empty_handshakes();
        }
    }

    /// Forgets all that belongs to it.
    pub(super) fn clear(&mut self, live: &mut Live) {
        self.remove_entries(0, u64::MAX, live);
        live.clear(&mut self.put);
        live.clear(&mut self.will);
        for (_, at) in self.subscriptions.drain(..) {
            live.segments.subtract(at);
        }
        if let Some(handshakes) = self.handshakes.take() {
            let released = handshakes.released.into_values();
            for at in released.chain(handshakes.inbound.into_values()) {
                live.segments.subtract(at);
            }
        }
    }

    pub(super) fn subscription(&self, filter: FilterHash) -> Option<Location> {
        let place = self.search(filter).ok()?;
        self.subscriptions.get(place).map(|of| of.1)
    }

    pub(super) fn released_at(&self, seq: u64) -> Option<Location> {
        self.handshakes.as_ref()?.released.get(&seq).copied()
    }

    pub(super) fn inbound_at(&self, packet_id: u16) -> Option<Location> {
        self.handshakes.as_ref()?.inbound.get(&packet_id).copied()
    }

    pub(super) fn released(&self) -> impl Iterator<Item = u64> {
        let handshakes = self.handshakes.iter();
        handshakes.flat_map(|of| of.released.keys().copied())
    }

    pub(super) fn inbound(&self) -> impl Iterator<Item = u16> {
        let handshakes = self.handshakes.iter();
        handshakes.flat_map(|of| of.inbound.keys().copied())
    }

    pub(super) fn keyed_locations(&self) -> impl Iterator<Item = Location> {
        let subscriptions = self.subscriptions.iter().map(|of| of.1);
        self.put.into_iter().chain(self.will).chain(subscriptions)
    }

    fn is_released(&self, seq: u64) -> bool {
        self.released_at(seq).is_some()
    }

    fn search(&self, filter: FilterHash) -> Result<usize, usize> {
        self.subscriptions.binary_search_by_key(&filter, |of| of.0)
    }

    fn remove_entries(&mut self, first: u64, last: u64, live: &mut Live) {
        let Some(queue) = &mut self.queue else {
            return;
        };
        let mut bytes = queue.bytes;
        queue.remove(first, last, |slot| {
            live.entry_count -= 1;
            live.forget(slot, &mut bytes);
        });
        queue.bytes = bytes;
        if queue.len() == 0 {
            self.queue = None;
        }
    }

    fn drop_empty_handshakes(&mut self) {
        let is_empty = |of: &Handshakes| of.released.is_empty() && of.inbound.is_empty();
        if self.handshakes.as_deref().is_some_and(is_empty) {
            self.handshakes = None;
        }
    }
}

impl Live {
    /// An entry of a queue with `bytes` no longer refers to `slot`.
    fn forget(&mut self, slot: SlotNumber, bytes: &mut u64) {
        let at = self.messages.location(slot);
        *bytes -= u64::from(at.len);
        if self.messages.release(slot).is_some() {
            self.segments.subtract(at);
        }
    }
}
