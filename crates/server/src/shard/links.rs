//! The way from shard to shard: one bounded single-producer ring for each ordered pair.
//!
//! Owns: [`Links`], [`Mailbox`], the wake-up of a shard that sleeps. Does not own: what a message
//! means (the engine knows). Start reading at [`Links::flush`]. Invariant: order is kept from one
//! shard to another, and no shard ever waits for another: what a full ring does not take stays here.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::{ShardIndex, ShardMessage};
use rtrb::{Consumer, Producer, RingBuffer};

use super::connection::{Accepted, Moving};

/// One thing on its way to another shard.
#[derive(Debug)]
pub(super) enum Parcel {
    /// What one turn had to say, in order.
    Messages(Vec<ShardMessage>),
    /// A connection whose Session lives there.
    Moving(Box<Moving>),
    /// A socket accepted here that is that shard's to serve.
    Accepted(Accepted),
}

/// How others wake a shard.
#[derive(Debug)]
pub(crate) struct Mailbox {
    is_parked: AtomicBool,
    waker: mio::Waker,
}

impl Mailbox {
    pub(crate) const fn new(waker: mio::Waker) -> Self {
        Self {
            is_parked: AtomicBool::new(false),
            waker,
        }
    }

    /// Wakes the shard if it sleeps. Called after something was left for it.
    pub(crate) fn notify(&self) {
        // Pairs with the store in `Links::park`: either this sees the shard parked, or the shard,
        // which looks at its rings after parking, sees what was left.
        std::sync::atomic::fence(Ordering::SeqCst);
        if self.is_parked.load(Ordering::SeqCst) && self.is_parked.swap(false, Ordering::SeqCst) {
            self.wake();
        }
    }

    /// Wakes the shard, whether it sleeps or not.
    pub(crate) fn wake(&self) {
        if let Err(error) = self.waker.wake() {
            tracing::error!(%error, "cannot wake a shard");
        }
    }
}

#[derive(Debug)]
struct Outbound {
    ring: Producer<Parcel>,
    messages: Vec<ShardMessage>,
    /// Bytes of these.
    messages_bytes: usize,
    parcels: VecDeque<Parcel>,
    /// Bytes of each parcel that was put into the ring and may be in it still, oldest first.
    in_ring: VecDeque<usize>,
    in_ring_bytes: usize,
}

/// One shard's ends of all rings.
#[derive(Debug)]
pub(crate) struct Links {
    own: ShardIndex,
    outbound: Vec<Option<Outbound>>,
    inbound: Vec<Option<Consumer<Parcel>>>,
    mailboxes: Arc<[Mailbox]>,
}

impl Links {
    /// The links of all shards, in order; `mailboxes` has one for each shard.
    pub(crate) fn mesh(mailboxes: &Arc<[Mailbox]>) -> Vec<Self> {
        let count = mailboxes.len();
        let mut links: Vec<Self> = (0..count)
            .map(|own| Self {
                own: index(own),
                outbound: Vec::with_capacity(count),
                inbound: (0..count).map(|_| None).collect(),
                mailboxes: Arc::clone(mailboxes),
            })
            .collect();
        for from in 0..count {
            for to in 0..count {
                let outbound = (from != to).then(|| {
                    let (ring, consumer) = RingBuffer::new(RING_PARCELS);
                    links[to].inbound[from] = Some(consumer);
                    Outbound {
                        ring,
                        messages: Vec::new(),
                        messages_bytes: 0,
                        parcels: VecDeque::new(),
                        in_ring: VecDeque::new(),
                        in_ring_bytes: 0,
                    }
                });
                links[from].outbound.push(outbound);
            }
        }
        links
    }

    pub(super) const fn own(&self) -> ShardIndex {
        self.own
    }

    /// How many shards there are.
    pub(super) fn shard_count(&self) -> usize {
        self.mailboxes.len()
    }

    /// Queues `message` for the next [`Self::flush`].
    /// # Panics
    /// `to` is this shard or none.
    pub(super) fn push(&mut self, to: ShardIndex, message: ShardMessage) {
        let outbound = self.outbound_to(to);
        outbound.messages_bytes += message.memory_bytes();
        outbound.messages.push(message);
    }

    /// Queues `parcel`; it may overtake messages, but no other parcel.
    /// # Panics
    /// `to` is this shard or none.
    pub(super) fn push_parcel(&mut self, to: ShardIndex, parcel: Parcel) {
        self.outbound_to(to).parcels.push_back(parcel);
    }

    fn outbound_to(&mut self, to: ShardIndex) -> &mut Outbound {
        self.outbound
            .get_mut(usize::from(to.0))
            .and_then(Option::as_mut)
            .expect("invariant: a message goes to another shard that exists")
    }

    /// Puts what is queued into the rings, as far as they take it, and wakes the receivers.
    /// Returns whether everything is on its way.
    pub(super) fn flush(&mut self) -> bool {
        let mut is_all = true;
        for (outbound, mailbox) in self.outbound.iter_mut().zip(self.mailboxes.iter()) {
            let Some(outbound) = outbound else { continue };
            let (is_empty, has_sent) = outbound.flush();
            is_all &= is_empty;
            if has_sent {
                mailbox.notify();
            }
        }
        is_all
    }

    /// Bytes on their way to other shards, the messages of publishers not counted.
    pub(super) fn held_bytes(&self) -> usize {
        let outbound = self.outbound.iter().flatten();
        outbound
            .map(|one| one.messages_bytes + one.in_ring_bytes)
            .sum()
    }

    /// Takes the next parcel of the shard `from`.
    pub(super) fn pop(&mut self, from: usize) -> Option<Parcel> {
        self.inbound.get_mut(from)?.as_mut()?.pop().ok()
    }

    /// Says that this shard is about to sleep; returns whether it may.
    pub(super) fn park(&self) -> bool {
        let Some(mailbox) = self.mailboxes.get(usize::from(self.own.0)) else {
            return false;
        };
        mailbox.is_parked.store(true, Ordering::SeqCst);
        std::sync::atomic::fence(Ordering::SeqCst);
        self.inbound.iter().flatten().all(Consumer::is_empty)
    }

    /// Says that this shard is awake.
    pub(super) fn unpark(&self) {
        if let Some(mailbox) = self.mailboxes.get(usize::from(self.own.0)) {
            mailbox.is_parked.store(false, Ordering::SeqCst);
        }
    }

    /// Wakes all other shards.
    pub(super) fn notify_all(&self) {
        for (shard, mailbox) in self.mailboxes.iter().enumerate() {
            if shard != usize::from(self.own.0) {
                mailbox.wake();
            }
        }
    }
}

impl Outbound {
    /// Returns whether nothing is left, and whether anything was put into the ring.
    fn flush(&mut self) -> (bool, bool) {
        let mut has_sent = false;
        while let Some(parcel) = self.parcels.pop_front() {
            match self.ring.push(parcel) {
                Ok(()) => has_sent = true,
                Err(rtrb::PushError::Full(parcel)) => {
                    self.parcels.push_front(parcel);
                    return (false, has_sent);
                }
            }
        }
        self.forget_taken();
        if self.messages.is_empty() {
            return (true, has_sent);
        }
        match self
            .ring
            .push(Parcel::Messages(std::mem::take(&mut self.messages)))
        {
            Ok(()) => {
                let bytes = std::mem::take(&mut self.messages_bytes);
                self.in_ring.push_back(bytes);
                self.in_ring_bytes += bytes;
                (true, true)
            }
            Err(rtrb::PushError::Full(Parcel::Messages(messages))) => {
                self.messages = messages;
                (false, has_sent)
            }
            Err(rtrb::PushError::Full(_)) => unreachable!("the ring gives back what it got"),
        }
    }
}

impl Outbound {
    /// What the other shard has taken out of the ring is not ours any more.
    fn forget_taken(&mut self) {
        let held = RING_PARCELS.saturating_sub(self.ring.slots());
        while self.in_ring.len() > held
            && let Some(bytes) = self.in_ring.pop_front()
        {
            self.in_ring_bytes -= bytes;
        }
    }
}

fn index(shard: usize) -> ShardIndex {
    ShardIndex(u16::try_from(shard).expect("invariant: a shard count fits 16 bits"))
}

/// Parcels one ring holds; a turn puts in one batch.
pub(super) const RING_PARCELS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    /// Two shards; only the second one's event queue is looked at.
    fn two() -> (mio::Poll, Vec<Links>) {
        let mailbox = |poll: &mio::Poll| {
            Mailbox::new(mio::Waker::new(poll.registry(), mio::Token(1)).expect("a waker"))
        };
        let first = mio::Poll::new().expect("a poll");
        let second = mio::Poll::new().expect("a poll");
        let mailboxes: Arc<[Mailbox]> = vec![mailbox(&first), mailbox(&second)].into();
        (second, Links::mesh(&mailboxes))
    }

    #[test]
    fn what_a_full_ring_does_not_take_stays_and_goes_later() {
        let (_poll, mut links) = two();
        let to = ShardIndex(1);
        for _ in 0..RING_PARCELS + 3 {
            links[0].push_parcel(to, Parcel::Messages(Vec::new()));
        }
        assert!(!links[0].flush());
        let taken = std::iter::from_fn(|| links[1].pop(0)).count();
        assert_eq!(taken, RING_PARCELS);
        assert!(links[0].flush());
        assert_eq!(std::iter::from_fn(|| links[1].pop(0)).count(), 3);
    }

    #[test]
    fn shard_sleeps_only_with_empty_rings_and_is_woken_once() {
        let (mut poll, mut links) = two();
        let mut events = mio::Events::with_capacity(8);
        let mut woken = |links: &mut Vec<Links>| {
            links[0].push_parcel(ShardIndex(1), Parcel::Messages(Vec::new()));
            assert!(links[0].flush());
            poll.poll(&mut events, Some(std::time::Duration::ZERO))
                .expect("polls");
            events
                .iter()
                .map(mio::event::Event::token)
                .collect::<Vec<_>>()
        };
        assert!(links[1].park());
        assert_eq!(woken(&mut links), [mio::Token(1)]);
        assert_eq!(woken(&mut links), []);
        assert!(!links[1].park());
        links[1].unpark();
        assert_eq!(woken(&mut links), []);
        assert_eq!(std::iter::from_fn(|| links[1].pop(0)).count(), 3);
        assert!(links[1].park());
    }
}
