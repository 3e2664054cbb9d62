//! What a restart finds in a log, by the plainest means: the reference that tests restart engines with.
//!
//! Owns: [`Found`]. Does not own: what is made of it. Start reading at [`Found::in_log`].
//! Invariant: follows the meaning of each [`Record`], and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use store::{
    MessageRecord, Origin, QueueExtent, Record, RestoredSession, SessionId, SessionRecord,
    SubscriptionRecord, WillRecord,
};

/// What a restart finds.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) sessions: Vec<RestoredSession>,
    pub(crate) retained: Vec<MessageRecord>,
    pub(crate) next_session: SessionId,
    /// What recovery itself writes: what does not count is gone for good.
    pub(crate) repairs: Vec<Record>,
}

#[derive(Debug)]
struct FoundSession {
    record: SessionRecord,
    subscriptions: BTreeMap<String, SubscriptionRecord>,
    queue: BTreeMap<u64, (usize, Option<Origin>)>,
    released: BTreeSet<u64>,
    inbound: BTreeSet<u16>,
    will: Option<WillRecord>,
}

#[derive(Debug, Default)]
struct Folded {
    sessions: BTreeMap<SessionId, FoundSession>,
    retained: BTreeMap<Vec<u8>, MessageRecord>,
    last_session: SessionId,
}

impl Found {
    /// Folds `records`, oldest first.
    pub(crate) fn in_log(records: &[Record]) -> Self {
        let mut folded = Folded::default();
        for record in records {
            folded.enter(record);
        }
        let mut repairs = folded.drop_uncommitted();
        folded.sessions.retain(|session, found| {
            let is_kept = found.record.expiry_seconds > 0;
            if !is_kept {
                let session = *session;
                repairs.push(Record::SessionDelete { session });
            }
            is_kept
        });
        let sessions = folded.sessions.into_values();
        Self {
            sessions: sessions.map(FoundSession::restored).collect(),
            retained: folded.retained.into_values().collect(),
            next_session: SessionId(folded.last_session.0 + 1),
            repairs,
        }
    }
}

impl Folded {
    fn enter(&mut self, record: &Record) {
        match record {
            Record::SessionPut(record) => self.put(record),
            Record::SessionDelete { session } => drop(self.sessions.remove(session)),
            Record::Enqueue {
                message,
                targets,
                origin,
            } => {
                for target in targets {
                    if let Some(found) = self.sessions.get_mut(&target.session) {
                        let bytes = message.payload.len() + message.topic.len();
                        found.queue.insert(target.seq, (bytes, *origin));
                        found.used(target.seq);
                    }
                }
            }
            Record::RetainedPut { message } => {
                self.retained
                    .insert(message.topic.to_vec(), message.clone());
            }
            Record::RetainedDelete { topic } => drop(self.retained.remove(&topic[..])),
            Record::SubscriptionPut(of) => {
                if let Some(found) = self.sessions.get_mut(&of.session) {
                    found.enter(record);
                }
            }
            Record::WillPut(of) => {
                if let Some(found) = self.sessions.get_mut(&of.session) {
                    found.will = Some((**of).clone());
                }
            }
            Record::SubscriptionDelete { session, .. }
            | Record::Dequeue { session, .. }
            | Record::Release { session, .. }
            | Record::InboundPut { session, .. }
            | Record::InboundDelete { session, .. }
            | Record::WillDelete { session } => {
                if let Some(found) = self.sessions.get_mut(session) {
                    found.enter(record);
                }
            }
        }
    }

    fn put(&mut self, record: &SessionRecord) {
        self.last_session = self.last_session.max(record.session);
        let found = self
            .sessions
            .entry(record.session)
            .or_insert_with(|| FoundSession {
                record: record.clone(),
                subscriptions: BTreeMap::new(),
                queue: BTreeMap::new(),
                released: BTreeSet::new(),
                inbound: BTreeSet::new(),
                will: None,
            });
        let (queue_seq, inbound_number) = (found.record.queue_seq, found.record.inbound_number);
        found.record = record.clone();
        found.used(queue_seq);
        let number = &mut found.record.inbound_number;
        *number = inbound_number.max(*number);
    }

    /// Takes out what other shards took of a message whose publisher was not answered.
    fn drop_uncommitted(&mut self) -> Vec<Record> {
        let committed: BTreeMap<_, _> = self
            .sessions
            .iter()
            .map(|(session, found)| (*session, found.record.inbound_number))
            .collect();
        let counts = |origin: &Option<Origin>| {
            origin.is_none_or(|origin| {
                committed
                    .get(&origin.session)
                    .is_none_or(|number| origin.number <= *number)
            })
        };
        let mut repairs = Vec::new();
        for (session, found) in &mut self.sessions {
            found.queue.retain(|seq, (_, origin)| {
                let is_kept = counts(origin);
                if !is_kept {
                    repairs.push(Record::Dequeue {
                        session: *session,
                        first_seq: *seq,
                        count: 1,
                    });
                }
                is_kept
            });
        }
        repairs
    }
}

impl FoundSession {
    fn enter(&mut self, record: &Record) {
        match record {
            Record::SubscriptionPut(record) => {
                let filter = record.filter.to_string();
                self.subscriptions.insert(filter, (**record).clone());
            }
            Record::SubscriptionDelete { filter, .. } => {
                self.subscriptions.remove(&**filter);
            }
            Record::Dequeue {
                first_seq, count, ..
            } => {
                let numbers = *first_seq..first_seq + count;
                self.queue.retain(|seq, _| !numbers.contains(seq));
                self.released.retain(|seq| !numbers.contains(seq));
                self.used(numbers.end - 1);
            }
            Record::Release { seq, .. } => {
                self.queue.remove(seq);
                self.released.insert(*seq);
                self.used(*seq);
            }
            Record::InboundPut {
                packet_id, number, ..
            } => {
                self.inbound.insert(*packet_id);
                let last = &mut self.record.inbound_number;
                *last = (*last).max(*number);
            }
            Record::InboundDelete { packet_id, .. } => drop(self.inbound.remove(packet_id)),
            Record::WillDelete { .. } => self.will = None,
            other => panic!("not of one Session alone: {other:?}"),
        }
    }

    fn used(&mut self, seq: u64) {
        self.record.queue_seq = self.record.queue_seq.max(seq);
    }

    fn restored(self) -> RestoredSession {
        let numbers = self.queue.keys();
        let queue = numbers.clone().next().zip(numbers.last());
        RestoredSession {
            queue: queue.map(|(first, last)| QueueExtent {
                first_seq: *first,
                last_seq: *last,
                count: self.queue.len() as u64,
                bytes: self.queue.values().map(|(bytes, _)| *bytes as u64).sum(),
            }),
            session: self.record,
            subscriptions: self.subscriptions.into_values().collect(),
            released: self.released.into_iter().collect(),
            inbound: self.inbound.into_iter().collect(),
            will: self.will,
        }
    }
}
