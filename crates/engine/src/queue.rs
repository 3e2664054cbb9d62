//! How much may wait for a Session, where it waits, and what happens beyond that.
//!
//! Owns: message and byte limits, what goes to the disk instead of memory, the overflow policy, the count of
//! queued bytes. Does not own: the queue itself (see `proto::session::Outbound`), the way back from the disk
//! (see `loads`). Start reading at [`Engine::enqueue`].
//! Invariants: every byte charged to a Session and to the shard is given back exactly once; what the store
//! has stays in memory only for a Session that is connected, and within its window.

use std::sync::Arc;
use std::time::Instant;

use proto::Qos;
use proto::packet::ReasonCode;
use proto::session::{Outbound, Queued};
use store::{Level, Record, SessionId, Target};

use crate::Engine;
use crate::keys::SessionKey;
use crate::limits::OverflowPolicy;
use crate::losses::Loss;
use crate::sessions::Session;

/// Where a message waits.
pub(crate) enum Place {
    Memory,
    /// Only the store has it; its number stays in memory.
    Disk,
}

impl Session {
    /// Whether the store has to have a message of `level` that is delivered to it at `qos`. A QoS 2
    /// handshake is kept whatever the level: its identifier, once forgotten, would hide a later message. So
    /// is what follows messages that are only on disk, also if the Session is not kept any more: they must
    /// not be overtaken.
    pub(crate) fn stores(&self, level: Level, qos: Qos) -> bool {
        let is_worth_it = level > Level::Memory || qos == Qos::ExactlyOnce;
        (self.is_stored && self.is_durable() && is_worth_it) || self.outbound.spilled().is_some()
    }

    /// Bytes of its queue, in memory or not.
    pub(crate) fn queued_bytes_all(&self) -> usize {
        let spilled = self.outbound.spilled().map_or(0, |spilled| spilled.bytes);
        let spilled = usize::try_from(spilled).unwrap_or(usize::MAX);
        self.queued_bytes.saturating_add(spilled)
    }
}

impl Engine {
    /// Queues a message above QoS 0 for a Session within its limits. Returns its number in the queue, or
    /// `None` if it was dropped.
    pub(crate) fn enqueue(&mut self, key: SessionKey, queued: Queued, now: Instant) -> Option<u64> {
        let charge = Session::charge(&queued.message);
        let is_stored = queued.is_stored;
        let place = match self.place_for(key, charge, is_stored) {
            Some(place) => Some(place),
            None => self.make_room(key, charge, is_stored, now),
        };
        let Some(place) = place else {
            self.lose(key, Loss::QueueFull);
            return None;
        };
        let seq = match place {
            Place::Memory => {
                self.touch(key);
                let session = self.sessions.get_mut(key)?;
                session.queued_bytes += charge;
                self.counters.queued_bytes += charge as u64;
                self.counters.queued_messages += 1;
                Some(session.outbound.push(queued))
            }
            Place::Disk => self.change_spilled(key, |queue| queue.push_spilled(charge as u64)),
        };
        self.judge_full(key, now);
        seq
    }

    /// A queued message is finished, in whichever way: gives back its bytes and forgets it durably.
    pub(crate) fn on_dequeued(&mut self, key: SessionKey, queued: &Queued) {
        let charge = Session::charge(&queued.message);
        self.touch(key);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.queued_bytes = session.queued_bytes.saturating_sub(charge);
        self.counters.queued_bytes = self.counters.queued_bytes.saturating_sub(charge as u64);
        self.counters.queued_messages = self.counters.queued_messages.saturating_sub(1);
        if queued.is_stored {
            let (id, last_seq) = (session.id, session.outbound.last_seq());
            self.forget((id, queued.seq), last_seq);
        }
    }

    /// A queued message is finished without having been sent. After a crash that does not know it, it would
    /// be sent: what follows it has to wait.
    pub(crate) fn on_dropped(&mut self, key: SessionKey, queued: &Queued) {
        self.on_dequeued(key, queued);
        if queued.is_stored {
            self.hold_followers(key);
        }
    }

    fn hold_followers(&mut self, key: SessionKey) {
        let level = self.config.levels.of_sessions();
        if !self.batch.is_empty() {
            self.batch_level = self.batch_level.max(level);
        }
        let dropped_in = self.batch_at(level);
        if let Some(link) = self.sessions.link_mut(key) {
            link.dropped_in = dropped_in;
            link.dropped_at = level;
        }
    }

    /// An entry of a Session's queue, whose last one is `last_seq`, need not be kept.
    fn forget(&mut self, (session, seq): (SessionId, u64), last_seq: u64) {
        // Of a message that is still being routed the store does not know yet, and need not. It is among the last of the
        // queue then: for older ones nobody looks through all who get the message.
        if seq.saturating_add(self.copies) > last_seq {
            let is_queued = |target: &Target| target.seq == seq && target.session == session;
            let found = self.targets.iter().rposition(is_queued);
            self.work += (self.targets.len() - found.unwrap_or(0)) as u64 / TARGETS_PER_UNIT;
            if let Some(index) = found {
                self.targets.remove(index);
                return;
            }
        }
        self.record_dequeued(session, seq);
    }

    /// The entry `seq` of a Session's queue is finished; consecutive ones share a record.
    pub(crate) fn record_dequeued(&mut self, session: SessionId, seq: u64) {
        if let Some(Record::Dequeue {
            session: last,
            first_seq,
            count,
        }) = self.batch.last_mut()
            && *last == session
            && *first_seq + *count == seq
        {
            *count += 1;
            return;
        }
        // Lost, it costs a repeat at most, or a PUBREL: nobody waits for it but after a drop.
        let dequeue = Record::Dequeue {
            session,
            first_seq: seq,
            count: 1,
        };
        self.record_at(Level::Written, dequeue);
    }

    /// The Session has no connection: what the store has need not stay in memory.
    pub(crate) fn spill(&mut self, key: SessionKey) {
        if !self.config.can_load {
            return;
        }
        self.spill_with(key, |queue, charge| queue.spill(charge));
    }

    /// Lets `spill` leave a part of the queue to the store, with what each message is charged for.
    pub(crate) fn spill_with(
        &mut self,
        key: SessionKey,
        spill: impl FnOnce(&mut Outbound, &mut dyn FnMut(&Queued) -> u64),
    ) {
        let (mut messages, mut bytes) = (0, 0);
        self.change_spilled(key, |queue| {
            spill(queue, &mut |queued| {
                let charge = Session::charge(&queued.message);
                messages += 1;
                bytes += charge;
                charge as u64
            });
        });
        if let Some(session) = self.sessions.get_mut(key) {
            session.queued_bytes = session.queued_bytes.saturating_sub(bytes);
            let counters = &mut self.counters;
            counters.queued_bytes = counters.queued_bytes.saturating_sub(bytes as u64);
            counters.queued_messages = counters.queued_messages.saturating_sub(messages);
        }
        if messages > 0 {
            self.hold_loads(key);
        }
    }

    /// Every change of what only the store has goes through here, so that it is counted.
    pub(crate) fn change_spilled<T>(
        &mut self,
        key: SessionKey,
        change: impl FnOnce(&mut Outbound) -> T,
    ) -> Option<T> {
        self.touch(key);
        let session = self.sessions.get_mut(key)?;
        let (messages, bytes) = spilled_of(&session.outbound);
        let changed = change(&mut session.outbound);
        let (messages_after, bytes_after) = spilled_of(&session.outbound);
        let counters = &mut self.counters;
        for (count, before, after) in [
            (&mut counters.spilled_messages, messages, messages_after),
            (&mut counters.queued_messages, messages, messages_after),
            (&mut counters.spilled_bytes, bytes, bytes_after),
            (&mut counters.queued_bytes, bytes, bytes_after),
        ] {
            *count = count.saturating_add(after).saturating_sub(before);
        }
        Some(changed)
    }

    /// Where one more message may wait; `None` if nowhere.
    pub(crate) fn place_for(
        &self,
        key: SessionKey,
        charge: usize,
        is_stored: bool,
    ) -> Option<Place> {
        let session = self.sessions.get(key)?;
        let limits = self.limits_for(&session.principal);
        let queue = &session.outbound;
        if queue.waiting_len() >= limits.queued_messages_max
            || session.queued_bytes_all().saturating_add(charge) > limits.queued_bytes_max
        {
            return None;
        }
        self.place_within(key, charge, is_stored)
    }

    /// The same without its own limits.
    fn place_within(&self, key: SessionKey, charge: usize, is_stored: bool) -> Option<Place> {
        let session = self.sessions.get(key)?;
        let queue = &session.outbound;
        // Nothing overtakes what is on disk.
        if queue.spilled().is_some() {
            return Some(Place::Disk);
        }
        let is_in_memory = self.may_hold(session, charge) && self.has_memory(session, charge);
        if !is_stored || !self.config.can_load {
            let is_in_memory = is_in_memory && self.may_grow(session, charge);
            return is_in_memory.then_some(Place::Memory);
        }
        let (messages, bytes) = queue.window();
        let (messages_max, bytes_max) = self.window_max();
        let is_in_window =
            messages == 0 || messages < messages_max && bytes.saturating_add(charge) <= bytes_max;
        let is_in_memory = is_in_memory && is_in_window && session.link.is_some();
        Some(if is_in_memory {
            Place::Memory
        } else {
            Place::Disk
        })
    }

    /// Whether the Session may have this many bytes more in memory.
    pub(crate) fn may_hold(&self, session: &Session, bytes: usize) -> bool {
        let limits = self.limits_for(&session.principal);
        session.queued_bytes.saturating_add(bytes) <= limits.queued_bytes_memory_max
    }

    /// Whether the shard has memory for this many bytes more, the Session being one that keeps up or not.
    pub(crate) fn has_memory(&self, session: &Session, bytes: usize) -> bool {
        let total = self.counters.queued_bytes - self.counters.spilled_bytes;
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        // What the slow may not fill is left for those that keep up.
        let reserved = if session.queued_bytes > KEEPS_UP_BYTES_MAX {
            self.queued_bytes_shard_max / RESERVED_SHARE
        } else {
            0
        };
        let total_max = self.queued_bytes_shard_max - reserved;
        total.saturating_add(bytes) <= total_max
    }

    fn make_room(
        &mut self,
        key: SessionKey,
        charge: usize,
        is_stored: bool,
        now: Instant,
    ) -> Option<Place> {
        match self.limits.overflow_policy {
            OverflowPolicy::Refuse => self.place_beyond(key, charge, is_stored, now),
            OverflowPolicy::DropNewest => None,
            OverflowPolicy::DropOldest => loop {
                self.drop_oldest(key)?;
                if let Some(place) = self.place_for(key, charge, is_stored) {
                    return Some(place);
                }
            },
            OverflowPolicy::Disconnect => {
                // Closing may end the Session, which the caller is still looking at: done at turn's end.
                self.close_later(key, ReasonCode::QuotaExceeded);
                None
            }
        }
    }

    /// Its publisher could not know that there is no room: another shard took the message before it heard of it, or it is
    /// a Will. It is kept beyond the limits, but not beyond twice of them, unless nobody waits for the Session any more.
    fn place_beyond(
        &mut self,
        key: SessionKey,
        charge: usize,
        is_stored: bool,
        now: Instant,
    ) -> Option<Place> {
        let limits = Arc::clone(self.limits_of(key));
        let session = self.sessions.get(key)?;
        let patience = self.limits.overflow_patience;
        let is_over = |since| now.saturating_duration_since(since) >= patience;
        let is_given_up = session.seldom().full_since.is_some_and(is_over);
        let messages_max = limits.queued_messages_max.saturating_mul(2);
        let bytes_max = limits.queued_bytes_max.saturating_mul(2);
        let is_too_much = is_given_up
            || session.outbound.waiting_len() >= messages_max.saturating_add(BEYOND_MESSAGES)
            || session.queued_bytes_all() >= bytes_max;
        // Whoever publishes in another shard hears of it in any case.
        self.mark_full(key, now);
        if is_too_much {
            return None;
        }
        if let Some(place) = self.place_within(key, charge, is_stored) {
            return Some(place);
        }
        let session = self.sessions.get(key)?;
        let beyond = limits.queued_bytes_memory_max.saturating_mul(2);
        let total = self.counters.queued_bytes - self.counters.spilled_bytes;
        let is_within = session.queued_bytes < beyond
            && usize::try_from(total).unwrap_or(usize::MAX)
                < self.queued_bytes_shard_max.saturating_mul(2);
        is_within.then_some(Place::Memory)
    }

    /// Whether the shard has so little memory for queues left that some have to be looked at.
    pub(crate) fn is_memory_tight(&self) -> bool {
        let total = self.counters.queued_bytes - self.counters.spilled_bytes;
        let total = usize::try_from(total).unwrap_or(usize::MAX);
        let packet = self.packet_size_max_bytes;
        let free = self.queued_bytes_shard_max - self.queued_bytes_shard_max / RESERVED_SHARE;
        self.is_memory_short || total.saturating_add(packet) > free
    }

    /// Drops the oldest message that was not sent yet. One that is on disk is known by its number only, and
    /// that is enough.
    fn drop_oldest(&mut self, key: SessionKey) -> Option<()> {
        let session = self.sessions.get_mut(key)?;
        let id = session.id;
        if let Some(oldest) = session.outbound.discard_next() {
            self.on_dropped(key, &oldest);
        } else {
            let last_seq = session.outbound.last_seq();
            let dropped = self.change_spilled(key, Outbound::drop_spilled);
            self.forget((id, dropped.flatten()?), last_seq);
            self.hold_followers(key);
        }
        self.lose(key, Loss::QueueFull);
        Some(())
    }
}

/// How many messages only the store has, and their bytes.
fn spilled_of(queue: &Outbound) -> (u64, u64) {
    queue
        .spilled()
        .map_or((0, 0), |spilled| (spilled.count, spilled.bytes))
}

/// So many Sessions that get a message are looked through in the time that a delivery takes.
const TARGETS_PER_UNIT: u64 = 8;

/// Messages beyond twice the limit of a queue: with a limit of few, what is on its way has to fit.
const BEYOND_MESSAGES: usize = 1024;

/// A Session with no more bytes queued than this keeps up.
const KEEPS_UP_BYTES_MAX: usize = 64 * 1024;

/// One part in this many of the bytes for all Sessions is kept for those that keep up.
const RESERVED_SHARE: usize = 4;
