//! How much may wait for a Session, and what happens beyond that.
//!
//! Owns: message and byte limits, the overflow policy, the count of queued bytes.
//! Does not own: the queue itself (see `proto::session::Outbound`). Start reading at [`Engine::enqueue`].
//! Invariant: every byte charged to a Session and to the shard is given back exactly once.

use proto::packet::ReasonCode;
use proto::session::Queued;
use store::{Record, SessionId, Target};

use crate::Engine;
use crate::keys::SessionKey;
use crate::limits::OverflowPolicy;
use crate::sessions::Session;

impl Engine {
    /// Queues a message above QoS 0 for a Session within its limits. Returns its number in the queue, or
    /// `None` if it was dropped.
    pub(crate) fn enqueue(&mut self, key: SessionKey, queued: Queued) -> Option<u64> {
        let charge = Session::charge(&queued.message);
        if !self.has_room(key, charge) && !self.make_room(key, charge) {
            self.counters.publishes_dropped += 1;
            self.counters.dropped_queue_full += 1;
            return None;
        }
        let session = self.sessions.get_mut(key)?;
        session.queued_bytes += charge;
        self.counters.queued_bytes += charge as u64;
        self.counters.queued_messages += 1;
        Some(session.outbound.push(queued))
    }

    /// A queued message is finished, in whichever way: gives back its bytes and forgets it durably.
    pub(crate) fn on_dequeued(&mut self, key: SessionKey, queued: &Queued) {
        let charge = Session::charge(&queued.message);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.queued_bytes = session.queued_bytes.saturating_sub(charge);
        self.counters.queued_bytes = self.counters.queued_bytes.saturating_sub(charge as u64);
        self.counters.queued_messages = self.counters.queued_messages.saturating_sub(1);
        if !queued.is_stored {
            return;
        }
        let session = session.id;
        let seq = queued.seq;
        // Of a message that is still being routed the store does not know yet, and need not.
        let is_queued = |target: &Target| target.seq == seq && target.session == session;
        if let Some(index) = self.targets.iter().rposition(is_queued) {
            self.targets.remove(index);
        } else {
            self.record_dequeued(session, seq);
        }
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
        self.record(Record::Dequeue {
            session,
            first_seq: seq,
            count: 1,
        });
    }

    fn has_room(&self, key: SessionKey, charge: usize) -> bool {
        let Some(session) = self.sessions.get(key) else {
            return false;
        };
        let total = usize::try_from(self.counters.queued_bytes).unwrap_or(usize::MAX);
        // What the slow may not fill is left for those that keep up.
        let reserved = if session.queued_bytes > KEEPS_UP_BYTES_MAX {
            self.queued_bytes_shard_max / RESERVED_SHARE
        } else {
            0
        };
        let total_max = self.queued_bytes_shard_max - reserved;
        session.outbound.waiting_len() < self.limits.queued_messages_max
            && session.queued_bytes + charge <= self.limits.queued_bytes_max
            && total.saturating_add(charge) <= total_max
    }

    fn make_room(&mut self, key: SessionKey, charge: usize) -> bool {
        match self.limits.overflow_policy {
            OverflowPolicy::DropNewest => false,
            OverflowPolicy::DropOldest => {
                while !self.has_room(key, charge) {
                    let Some(session) = self.sessions.get_mut(key) else {
                        return false;
                    };
                    let Some(oldest) = session.outbound.discard_next() else {
                        return false;
                    };
                    self.counters.publishes_dropped += 1;
                    self.counters.dropped_queue_full += 1;
                    self.on_dequeued(key, &oldest);
                }
                true
            }
            OverflowPolicy::Disconnect => {
                // Closing may end the Session, which the caller is still looking at: done at turn's end.
                self.close_later(key, ReasonCode::QuotaExceeded);
                false
            }
        }
    }
}

/// A Session with no more bytes queued than this keeps up.
const KEEPS_UP_BYTES_MAX: usize = 64 * 1024;

/// One part in this many of the bytes for all Sessions is kept for those that keep up.
const RESERVED_SHARE: usize = 4;
