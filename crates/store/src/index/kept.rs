//! What still counts of a record that is to be moved.
//!
//! Owns: [`Kept`], what the cleaner writes. Does not own: when it cleans (see `log`).
//! Start reading at [`Index::kept`]. Invariant: a record that is written again says what its Session has
//! come to since: the log before it can go.

use super::{Index, Location};
use crate::codec::{self, EnqueueRef, RecordRef};
use crate::{EncodedGroup, Level, Origin};

/// A record with only that in it that still counts.
#[derive(Clone, Copy, Debug)]
pub struct Kept<'a> {
    record: RecordRef<'a>,
    /// Of an Enqueue.
    targets: TargetSet,
}

/// Which of the targets of a record, by their places.
#[derive(Clone, Copy, Debug, Default)]
struct TargetSet([u128; 2]);

impl Index {
    /// Whether something of the record at `at` still counts.
    #[must_use]
    pub fn is_live(&self, at: Location, record: &RecordRef<'_>) -> bool {
        match record {
            RecordRef::Enqueue(enqueue) => enqueue
                .targets()
                .any(|target| self.is_queued_target(&target, at)),
            _ => self.current(record) == Some(at),
        }
    }

    /// What is to be written if the record at `at` is moved: a Session with its numbers of today, a
    /// message for those who still have it in their queues, without its origin once that is committed.
    /// `None` if nothing of it counts.
    #[must_use]
    pub fn kept<'a>(&self, at: Location, record: &RecordRef<'a>) -> Option<Kept<'a>> {
        let (record, targets) = match *record {
            RecordRef::Enqueue(mut enqueue) => {
                let targets = self.queued_targets(at, &enqueue)?;
                enqueue.origin = enqueue.origin.filter(|&origin| self.is_open(origin));
                (RecordRef::Enqueue(enqueue), targets)
            }
            _ if self.current(record) != Some(at) => return None,
            RecordRef::SessionPut(mut put) => {
                let (queue_seq, inbound_number) = self.numbers(put.session)?;
                put.queue_seq = queue_seq;
                put.inbound_number = inbound_number;
                (RecordRef::SessionPut(put), TargetSet::default())
            }
            other => (other, TargetSet::default()),
        };
        Some(Kept { record, targets })
    }

    /// Where the record is that took the place of `record`, or is it. Not for an Enqueue.
    fn current(&self, record: &RecordRef<'_>) -> Option<Location> {
        let session = |id| self.sessions.get(&id);
        match *record {
            RecordRef::SessionPut(put) => session(put.session)?.put,
            RecordRef::SubscriptionPut(put) => {
                session(put.session)?.subscription(self.keys.filter(put.filter))
            }
            RecordRef::Release { session: id, seq } => session(id)?.released_at(seq),
            RecordRef::RetainedPut { message } => {
                let topic = self.keys.topic(message.topic);
                self.retained.get(&topic).copied()
            }
            RecordRef::InboundPut {
                session: id,
                packet_id,
                ..
            } => session(id)?.inbound_at(packet_id),
            RecordRef::WillPut(will) => session(will.session)?.will,
            RecordRef::Enqueue(_)
            | RecordRef::SessionDelete { .. }
            | RecordRef::SubscriptionDelete { .. }
            | RecordRef::Dequeue { .. }
            | RecordRef::RetainedDelete { .. }
            | RecordRef::InboundDelete { .. }
            | RecordRef::WillDelete { .. } => None,
        }
    }

    fn queued_targets(&self, at: Location, enqueue: &EnqueueRef<'_>) -> Option<TargetSet> {
        let mut set = TargetSet::default();
        for (place, target) in enqueue.targets().enumerate() {
            if self.is_queued_target(&target, at) {
                set.insert(place);
            }
        }
        (set.0 != [0; 2]).then_some(set)
    }

    /// Whether it is not known yet that what came from `origin` counts.
    fn is_open(&self, origin: Origin) -> bool {
        match self.put_session_of(origin.session) {
            Some(publisher) => origin.number > publisher.inbound_number,
            // Gone, unless its SessionPut is still to come.
            None => self.origins.is_some(),
        }
    }
}

impl Kept<'_> {
    /// Appends it to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let RecordRef::Enqueue(enqueue) = &self.record else {
            codec::encode_ref(&self.record, out);
            return;
        };
        let targets = enqueue.targets().enumerate();
        let kept = targets.filter(|&(place, _)| self.targets.contains(place));
        let kept = kept.map(|(_, target)| target);
        codec::encode_enqueue(&enqueue.message, enqueue.origin, kept, out);
    }
}

impl EncodedGroup {
    /// Adds a record that is moved, as a batch of its own. It asks for no level: it was safe where it was.
    pub fn push_kept(&mut self, kept: &Kept<'_>) {
        self.push_with(Level::Memory, |out| kept.encode(out));
    }
}

impl TargetSet {
    fn insert(&mut self, place: usize) {
        if let Some(bits) = self.0.get_mut(place / 128) {
            *bits |= 1 << (place % 128);
        }
    }

    fn contains(&self, place: usize) -> bool {
        let bits = self.0.get(place / 128);
        bits.is_some_and(|bits| bits & (1 << (place % 128)) != 0)
    }
}
