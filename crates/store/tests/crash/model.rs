//! What the records mean, told simply: maps, and every rule of recovery as a sentence.
//!
//! Owns: [`Model`]. Does not own: how the log does it. Start reading at [`Model::apply`].
//! Invariant: shares no code with the log but the records themselves.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use vencejo_store::{
    MessageRecord, Origin, Record, SessionId, SessionRecord, SubscriptionRecord, Target, WillRecord,
};

/// All that is durable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Model {
    pub(crate) sessions: BTreeMap<SessionId, ModelSession>,
    pub(crate) retained: BTreeMap<Bytes, MessageRecord>,
}

/// A Session and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelSession {
    pub(crate) record: SessionRecord,
    pub(crate) subscriptions: BTreeMap<String, SubscriptionRecord>,
    pub(crate) queue: BTreeMap<u64, Queued>,
    pub(crate) released: BTreeSet<u64>,
    pub(crate) inbound: BTreeSet<u16>,
    pub(crate) will: Option<WillRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Queued {
    pub(crate) target: Target,
    pub(crate) message: MessageRecord,
    pub(crate) origin: Option<Origin>,
}

impl Model {
    /// Takes one record.
    pub(crate) fn apply(&mut self, record: &Record) {
        match record {
            Record::SessionPut(put) => self.put_session(put),
            Record::SessionDelete { session } => {
                self.sessions.remove(session);
            }
            Record::Enqueue {
                message,
                targets,
                origin,
            } => self.enqueue(message, targets, *origin),
            Record::RetainedPut { message } => {
                self.retained.insert(message.topic.clone(), message.clone());
            }
            Record::RetainedDelete { topic } => {
                self.retained.remove(topic);
            }
            Record::SubscriptionPut(put) => self.with(put.session, |of| {
                of.subscriptions
                    .insert(put.filter.to_string(), (**put).clone());
            }),
            Record::SubscriptionDelete { session, filter } => self.with(*session, |of| {
                of.subscriptions.remove(&**filter);
            }),
            Record::Dequeue {
                session,
                first_seq,
                count,
            } => self.with(*session, |of| {
                let is_finished = |seq: u64| (*first_seq..first_seq + count).contains(&seq);
                of.queue.retain(|seq, _| !is_finished(*seq));
                of.released.retain(|seq| !is_finished(*seq));
            }),
            Record::Release { session, seq } => self.with(*session, |of| {
                of.queue.remove(seq);
                of.released.insert(*seq);
            }),
            Record::InboundPut {
                session,
                packet_id,
                number,
            } => self.with(*session, |of| {
                of.inbound.insert(*packet_id);
                of.record.inbound_number = of.record.inbound_number.max(*number);
            }),
            Record::InboundDelete { session, packet_id } => self.with(*session, |of| {
                of.inbound.remove(packet_id);
            }),
            Record::WillPut(will) => {
                self.with(will.session, |of| of.will = Some((**will).clone()));
            }
            Record::WillDelete { session } => self.with(*session, |of| of.will = None),
        }
    }

    /// What a start makes of it.
    pub(crate) fn recovered(&self) -> Self {
        let mut after = self.clone();
        // A Session that ends with its connection has ended.
        after
            .sessions
            .retain(|_, session| session.record.expiry_seconds > 0);
        // What its publisher was not answered for will be sent again.
        let is_committed = |origin: Option<Origin>| {
            let Some(origin) = origin else { return true };
            let publisher = self.sessions.get(&origin.session);
            publisher.is_none_or(|of| origin.number <= of.record.inbound_number)
        };
        for session in after.sessions.values_mut() {
            session
                .queue
                .retain(|_, queued| is_committed(queued.origin));
            for queued in session.queue.values_mut() {
                queued.origin = None;
            }
        }
        after
    }

    fn put_session(&mut self, put: &SessionRecord) {
        let session = self
            .sessions
            .entry(put.session)
            .or_insert_with(|| ModelSession {
                record: put.clone(),
                subscriptions: BTreeMap::new(),
                queue: BTreeMap::new(),
                released: BTreeSet::new(),
                inbound: BTreeSet::new(),
                will: None,
            });
        let before = std::mem::replace(&mut session.record, put.clone());
        // Its numbers never go back.
        session.record.queue_seq = before.queue_seq.max(put.queue_seq);
        session.record.inbound_number = before.inbound_number.max(put.inbound_number);
    }

    fn enqueue(&mut self, message: &MessageRecord, targets: &[Target], origin: Option<Origin>) {
        for target in targets {
            self.with(target.session, |of| {
                of.record.queue_seq = of.record.queue_seq.max(target.seq);
                let (target, message) = (target.clone(), message.clone());
                let seq = target.seq;
                of.queue.insert(
                    seq,
                    Queued {
                        target,
                        message,
                        origin,
                    },
                );
            });
        }
    }

    /// Records of a Session that is not there mean nothing.
    fn with(&mut self, session: SessionId, change: impl FnOnce(&mut ModelSession)) {
        if let Some(session) = self.sessions.get_mut(&session) {
            change(session);
        }
    }
}
