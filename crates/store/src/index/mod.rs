//! What the records in the log add up to, and where in the log it is. No text and no payload is kept.
//!
//! Owns: which record still counts, the queues, the numbers of each Session, live bytes per segment.
//! Does not own: reading and writing (see `log`), what is given to the engines (see `restoring`).
//! Start reading at [`Index::apply`]: the same function for a record that is written and for one that is
//! found at a start, always in the order of the log.
//! Invariants: live bytes are those of the records for which [`Index::is_live`] is true; removing the oldest
//! segment after its live records were written again (see [`Index::kept`]) changes nothing that a later
//! recovery finds.
//!
//! A record of a Session can come before its SessionPut: the cleaner writes that one again, at the end. So
//! until [`Index::finish_recovery`] Sessions come to be by any record, and those of which none was put are dropped then.

mod ahead;
mod hash;
mod kept;
mod messages;
mod origins;
mod queue;
mod segments;
mod session;

use std::collections::{BTreeSet, HashMap};

use foldhash::fast::FixedState;

pub(crate) use ahead::AHEAD;
pub use hash::HashKeys;
pub use kept::Kept;

use crate::codec::{EnqueueRef, RecordRef, TargetRef};
use crate::{QueueExtent, Record, SessionId};
use hash::TopicHash;
use messages::Messages;
use origins::Origins;
use segments::Segments;
use session::Session;

/// Where a record is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// Number of its segment. A later segment has a higher one.
    pub segment: u32,
    /// Its first byte in the segment's file: its length, as `codec` writes it.
    pub offset: u32,
    /// All of its bytes, those of the length included.
    pub len: u32,
}

/// The sum of all records.
#[derive(Debug)]
pub struct Index {
    keys: HashKeys,
    sessions: HashMap<SessionId, Box<Session>, FixedState>,
    retained: HashMap<TopicHash, Location, FixedState>,
    live: Live,
    /// Only until the end of the recovery.
    origins: Option<Origins>,
    highest_session: SessionId,
}

/// The messages, and the bytes of all that counts.
#[derive(Debug, Default)]
struct Live {
    messages: Messages,
    segments: Segments,
    entry_count: u64,
}

impl Index {
    /// An index of no records, at the beginning of a recovery. `keys` are to be known to nobody else.
    #[must_use]
    pub fn new(keys: HashKeys) -> Self {
        Self {
            keys,
            sessions: HashMap::default(),
            retained: HashMap::default(),
            live: Live::default(),
            origins: Some(Origins::default()),
            highest_session: SessionId(0),
        }
    }

    /// Takes in the next record of the log, which is at `at`. Its payload is not looked at.
    pub fn apply(&mut self, at: Location, record: &RecordRef<'_>) {
        match record {
            RecordRef::SessionPut(put) => {
                let (session, live) = self.put_session(put.session);
                session.raise_numbers(put.queue_seq, put.inbound_number);
                live.replace(&mut session.put, at);
                self.commit(put.session, put.inbound_number);
            }
            RecordRef::SessionDelete { session } => self.delete_session(*session),
            RecordRef::SubscriptionPut(put) => {
                let filter = self.keys.filter(put.filter);
                if let Some((session, live)) = self.session(put.session) {
                    session.put_subscription(filter, at, live);
                }
            }
            RecordRef::SubscriptionDelete { session, filter } => {
                let filter = self.keys.filter(filter);
                if let Some((session, live)) = self.known_session(*session) {
                    session.delete_subscription(filter, live);
                }
            }
            RecordRef::Enqueue(enqueue) => self.enqueue(at, enqueue),
            RecordRef::Dequeue {
                session,
                first_seq,
                count,
            } => {
                if let Some((session, live)) = self.known_session(*session)
                    && let Some(more) = count.checked_sub(1)
                {
                    session.dequeue(*first_seq, first_seq.saturating_add(more), live);
                }
            }
            RecordRef::Release { session, seq } => {
                if let Some((session, live)) = self.session(*session) {
                    session.release(*seq, at, live);
                }
            }
            RecordRef::RetainedPut { message } => self.put_retained(message.topic, at),
            RecordRef::RetainedDelete { topic } => self.delete_retained(topic),
            RecordRef::InboundPut {
                session,
                packet_id,
                number,
            } => {
                if let Some((session, live)) = self.session(*session) {
                    session.put_inbound(*packet_id, *number, at, live);
                }
                self.commit(*session, *number);
            }
            RecordRef::InboundDelete { session, packet_id } => {
                if let Some((session, live)) = self.known_session(*session) {
                    session.delete_inbound(*packet_id, live);
                }
            }
            RecordRef::WillPut(will) => {
                if let Some((session, live)) = self.session(will.session) {
                    live.replace(&mut session.will, at);
                }
            }
            RecordRef::WillDelete { session } => {
                if let Some((session, live)) = self.known_session(*session) {
                    live.clear(&mut session.will);
                }
            }
        }
    }

    /// The queued messages that do not count, as the records that take them out: their publishers were
    /// never answered, see [`crate::Origin`]. To be asked when all records were applied; to be written and
    /// applied before [`Self::finish_recovery`].
    #[must_use]
    pub fn uncommitted(&self) -> Vec<Record> {
        let is_uncommitted = |origin| {
            let session: Option<&Session> = self.put_session_of(origin);
            session.map(|session| session.inbound_number)
        };
        let Some(origins) = &self.origins else {
            return Vec::new();
        };
        let queued = origins
            .above(is_uncommitted)
            .filter(|(at, session, seq)| self.is_queued(*session, *seq, *at))
            .map(|(_, session, seq)| (session, seq));
        dequeues(&queued.collect())
    }

    /// Ends the recovery: what belongs to Sessions of which there is no SessionPut is dropped, and from
    /// now on records of unknown Sessions count for nothing. Returns those Sessions, ascending: if nothing
    /// of the log was lost, they ended before the oldest segment.
    pub fn finish_recovery(&mut self) -> Vec<SessionId> {
        self.origins = None;
        let without_put = self.sessions.iter().filter(|of| of.1.put.is_none());
        let mut unknown: Vec<SessionId> = without_put.map(|(&id, _)| id).collect();
        unknown.sort_unstable();
        for &session in &unknown {
            self.delete_session(session);
        }
        unknown
    }

    /// A number that no record in the log has given to a Session, nor any above it.
    #[must_use]
    pub const fn next_session(&self) -> SessionId {
        SessionId(self.highest_session.0.saturating_add(1))
    }

    /// Bytes of the records of `segment` that count.
    #[must_use]
    pub fn live_bytes_of(&self, segment: u32) -> u64 {
        self.live.segments.live_bytes(segment)
    }

    /// Bytes of all records that count.
    #[must_use]
    pub const fn live_bytes(&self) -> u64 {
        self.live.segments.total()
    }

    /// How much there is.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            sessions: self.sessions.len(),
            retained: self.retained.len(),
            messages: self.live.messages.len(),
            entries: self.live.entry_count,
        }
    }

    /// Whether there is a SessionPut of `session`.
    #[must_use]
    pub fn contains(&self, session: SessionId) -> bool {
        self.put_session_of(session).is_some()
    }

    /// The last number in the queue of `session` and of its QoS 2 messages, the highest of all records.
    #[must_use]
    pub fn numbers(&self, session: SessionId) -> Option<(u64, u64)> {
        let session = self.sessions.get(&session)?;
        Some((session.queue_seq, session.inbound_number))
    }

    /// The queue of `session`; `None` if it is empty.
    #[must_use]
    pub fn queue_extent(&self, session: SessionId) -> Option<QueueExtent> {
        let queue = self.sessions.get(&session)?.queue.as_ref()?;
        Some(QueueExtent {
            first_seq: queue.first()?,
            last_seq: queue.last()?,
            count: queue.len(),
            bytes: queue.bytes,
        })
    }

    /// The queued messages of `session` from the number `from_seq` on: number and where it is.
    pub fn entries(
        &self,
        session: SessionId,
        from_seq: u64,
    ) -> impl Iterator<Item = (u64, Location)> {
        let session = self.sessions.get(&session);
        let queue = session.and_then(|session| session.queue.as_deref());
        queue
            .into_iter()
            .flat_map(move |queue| queue.entries_from(from_seq))
            .map(|(seq, slot)| (seq, self.live.messages.location(slot)))
    }

    /// Numbers of the QoS 2 messages of `session` whose PUBREL is owed, ascending.
    pub fn released(&self, session: SessionId) -> impl Iterator<Item = u64> {
        let session = self.sessions.get(&session);
        session.into_iter().flat_map(|session| session.released())
    }

    /// Packet Identifiers of QoS 2 messages from the Client that wait for PUBREL, ascending.
    pub fn inbound(&self, session: SessionId) -> impl Iterator<Item = u16> {
        let session = self.sessions.get(&session);
        session.into_iter().flat_map(|session| session.inbound())
    }

    /// Where the records are that hold text: of Sessions, Subscriptions, Wills and retained messages, in
    /// the order of the log. For a start: 12 bytes each.
    #[must_use]
    pub fn keyed_locations(&self) -> Vec<Location> {
        let sessions = self.sessions.values();
        let of_sessions = sessions.flat_map(|session| session.keyed_locations());
        let mut locations: Vec<Location> =
            of_sessions.chain(self.retained.values().copied()).collect();
        locations.sort_unstable();
        locations
    }

    fn enqueue(&mut self, at: Location, enqueue: &EnqueueRef<'_>) {
        if let Some(origin) = enqueue.origin {
            self.highest_session = self.highest_session.max(origin.session);
        }
        let slot = self.live.messages.insert(at);
        for target in enqueue.targets() {
            if let Some((session, live)) = self.session(target.session) {
                session.enqueue(target.seq, slot, at, live);
            }
        }
        if self.live.messages.free_unused(slot) {
            return;
        }
        self.live.segments.add(at);
        if let Some(origin) = enqueue.origin {
            let known = self.sessions.get(&origin.session);
            let inbound_number = known.map_or(0, |session| session.inbound_number);
            if let Some(origins) = &mut self.origins
                && origin.number > inbound_number
            {
                let targets = enqueue.targets().map(|target| (target.session, target.seq));
                origins.add(origin, at, targets);
            }
        }
    }

    fn put_retained(&mut self, topic: &[u8], at: Location) {
        self.live.segments.add(at);
        if let Some(before) = self.retained.insert(self.keys.topic(topic), at) {
            self.live.segments.subtract(before);
        }
    }

    fn delete_retained(&mut self, topic: &[u8]) {
        if let Some(before) = self.retained.remove(&self.keys.topic(topic)) {
            self.live.segments.subtract(before);
        }
    }

    fn commit(&mut self, session: SessionId, inbound_number: u64) {
        if let Some(origins) = &mut self.origins {
            origins.commit(session, inbound_number);
        }
    }

    fn delete_session(&mut self, id: SessionId) {
        self.highest_session = self.highest_session.max(id);
        // Its messages count, as it has ended.
        self.commit(id, u64::MAX);
        if let Some(mut session) = self.sessions.remove(&id) {
            session.clear(&mut self.live);
        }
    }

    /// The Session `id`, if records of it count.
    fn session(&mut self, id: SessionId) -> Option<(&mut Session, &mut Live)> {
        if self.origins.is_some() {
            return Some(self.put_session(id));
        }
        self.known_session(id)
    }

    fn known_session(&mut self, id: SessionId) -> Option<(&mut Session, &mut Live)> {
        let session = self.sessions.get_mut(&id)?;
        Some((session, &mut self.live))
    }

    fn put_session(&mut self, id: SessionId) -> (&mut Session, &mut Live) {
        self.highest_session = self.highest_session.max(id);
        (self.sessions.entry(id).or_default(), &mut self.live)
    }

    fn put_session_of(&self, id: SessionId) -> Option<&Session> {
        let session = self.sessions.get(&id)?;
        session.put.is_some().then_some(session)
    }

    fn is_queued(&self, session: SessionId, seq: u64, at: Location) -> bool {
        let session = self.sessions.get(&session);
        let queue = session.and_then(|session| session.queue.as_ref());
        let slot = queue.and_then(|queue| queue.at(seq));
        slot.is_some_and(|slot| self.live.messages.location(slot) == at)
    }

    fn is_queued_target(&self, target: &TargetRef<'_>, at: Location) -> bool {
        self.is_queued(target.session, target.seq, at)
    }
}

/// What an [`Index`] holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sessions.
    pub sessions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Queued messages, each once.
    pub messages: usize,
    /// Entries of all queues.
    pub entries: u64,
}

/// The records that take `entries` out, one for each run of consecutive numbers.
fn dequeues(entries: &BTreeSet<(SessionId, u64)>) -> Vec<Record> {
    let mut records = Vec::new();
    for &(of, seq) in entries {
        if let Some(Record::Dequeue {
            session,
            first_seq,
            count,
        }) = records.last_mut()
            && *session == of
            && seq - *first_seq == *count
        {
            *count += 1;
        } else {
            records.push(Record::Dequeue {
                session: of,
                first_seq: seq,
                count: 1,
            });
        }
    }
    records
}

impl Live {
    fn replace(&mut self, place: &mut Option<Location>, at: Location) {
        self.segments.add(at);
        if let Some(before) = place.replace(at) {
            self.segments.subtract(before);
        }
    }

    fn clear(&mut self, place: &mut Option<Location>) {
        if let Some(before) = place.take() {
            self.segments.subtract(before);
        }
    }
}

#[cfg(test)]
mod tests;
