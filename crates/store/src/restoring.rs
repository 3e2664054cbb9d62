//! The live records with text in them, put together for the engines.
//!
//! Owns: [`Restoring`]. Does not own: which records are live (see `index`), reading them (see `log`).
//! Start reading at [`Restoring::take`]. Invariant: a Session is given with the highest numbers that any
//! record told, and only with records that count.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::codec::RecordRef;
use crate::{
    Index, Location, MessageRecord, RestoredSession, SessionId, SessionRecord, SubscriptionRecord,
    WillRecord,
};

/// Takes records in any order, each once, and gives whole Sessions.
#[derive(Debug, Default)]
pub struct Restoring {
    /// Places in `parts`.
    sessions: HashMap<SessionId, usize, FixedState>,
    parts: Vec<(SessionId, Parts)>,
    retained: Vec<MessageRecord>,
}

#[derive(Debug, Default)]
struct Parts {
    put: Option<SessionRecord>,
    subscriptions: Vec<SubscriptionRecord>,
    will: Option<Box<WillRecord>>,
}

impl Restoring {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing yet, with room for all that counts in `index`.
    pub(crate) fn with_capacity(index: &Index) -> Self {
        let counts = index.counts();
        Self {
            sessions: HashMap::with_capacity_and_hasher(counts.sessions, FixedState::default()),
            parts: Vec::with_capacity(counts.sessions),
            retained: Vec::with_capacity(counts.retained),
        }
    }

    /// Takes the record at `at`, whole, if it counts in `index` and has text in it (see
    /// [`Index::keyed_locations`]). Others are passed over.
    pub fn take(&mut self, index: &Index, at: Location, record: &RecordRef<'_>) {
        if index.is_live(at, record) {
            self.take_live(record);
        }
    }

    /// Takes a record of which it is known that it counts, such as one at one of the
    /// [`Index::keyed_locations`].
    pub(crate) fn take_live(&mut self, record: &RecordRef<'_>) {
        match record {
            RecordRef::SessionPut(put) => self.of(put.session).put = Some(put.to_record()),
            RecordRef::SubscriptionPut(put) => {
                self.of(put.session).subscriptions.push(put.to_record());
            }
            RecordRef::WillPut(will) => {
                self.of(will.session).will = Some(Box::new(will.to_record()));
            }
            RecordRef::RetainedPut { message } => self.retained.push(message.to_record()),
            _ => {}
        }
    }

    /// The Sessions, in the order of their numbers, and the retained messages, in the order in which they
    /// were taken. Queues and handshakes are those of `index`.
    #[must_use]
    pub fn finish(self, index: &Index) -> (Vec<RestoredSession>, Vec<MessageRecord>) {
        let mut parts = self.parts;
        parts.sort_unstable_by_key(|(session, _)| *session);
        let mut sessions = Vec::with_capacity(parts.len());
        sessions.extend(
            parts
                .into_iter()
                .filter_map(|(_, parts)| parts.finish(index)),
        );
        (sessions, self.retained)
    }

    fn of(&mut self, session: SessionId) -> &mut Parts {
        let next = self.parts.len();
        let place = *self.sessions.entry(session).or_insert(next);
        if place == next {
            self.parts.push((session, Parts::default()));
        }
        &mut self.parts[place].1
    }
}

impl Parts {
    /// `None` if there is no SessionPut: what is left of a Session whose own record was lost.
    fn finish(self, index: &Index) -> Option<RestoredSession> {
        let mut session = self.put?;
        let (queue_seq, inbound_number) = index.numbers(session.session)?;
        session.queue_seq = queue_seq;
        session.inbound_number = inbound_number;
        let mut subscriptions = self.subscriptions;
        subscriptions.sort_unstable_by(|left, right| left.filter.cmp(&right.filter));
        Some(RestoredSession {
            queue: index.queue_extent(session.session),
            released: index.released(session.session).collect(),
            inbound: index.inbound(session.session).collect(),
            will: self.will.map(|will| *will),
            session,
            subscriptions,
        })
    }
}
