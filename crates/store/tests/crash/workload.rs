//! Records as an engine would write them, from small numbers that shrink well.
//!
//! Owns: [`Op`], [`Writer`], their strategies. Does not own: what is checked (see `main`).
//! Start reading at [`Writer::batch`]. Invariant: numbers are given as the engine gives them: those of a
//! queue and of inbound messages follow on what was last known, and a Session's number is given once.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use vencejo_store::{
    Batch, Level, MessageRecord, Origin, Record, Seq, SessionId, SessionRecord, SubscriptionRecord,
    Target, UnixMillis, WillRecord,
};

use crate::model::Model;

/// One thing an engine does. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    NewSession {
        ends_with_connection: bool,
    },
    PutSession(u8),
    DeleteSession(u8),
    Subscribe(u8, u8),
    Unsubscribe(u8, u8),
    Enqueue {
        sessions: u8,
        size: u16,
    },
    /// A QoS 2 message that other shards take, too.
    EnqueueOfOrigin {
        publisher: u8,
        sessions: u8,
        size: u16,
    },
    /// The publisher of the first of those is answered.
    Commit(u8),
    Dequeue {
        session: u8,
        count: u8,
    },
    Release(u8),
    Retain(u8, u16),
    Unretain(u8),
    InboundDelete(u8),
    PutWill(u8, u16),
    DeleteWill(u8),
}

pub(crate) fn op() -> impl Strategy<Value = Op> {
    let size = || prop_oneof![6 => 0..200_u16, 2 => 0..3000_u16];
    prop_oneof![
        2 => prop::bool::weighted(0.1)
            .prop_map(|ends_with_connection| Op::NewSession { ends_with_connection }),
        1 => any::<u8>().prop_map(Op::PutSession),
        1 => prop::option::weighted(0.2, any::<u8>())
            .prop_map(|at| at.map_or(Op::Commit(0), Op::DeleteSession)),
        2 => (any::<u8>(), 0..3_u8).prop_map(|(at, filter)| Op::Subscribe(at, filter)),
        1 => (any::<u8>(), 0..3_u8).prop_map(|(at, filter)| Op::Unsubscribe(at, filter)),
        12 => (any::<u8>(), size()).prop_map(|(sessions, size)| Op::Enqueue { sessions, size }),
        3 => (any::<u8>(), any::<u8>(), size()).prop_map(|(publisher, sessions, size)| {
            Op::EnqueueOfOrigin { publisher, sessions, size }
        }),
        2 => any::<u8>().prop_map(Op::Commit),
        8 => (any::<u8>(), 1..5_u8).prop_map(|(session, count)| Op::Dequeue { session, count }),
        2 => any::<u8>().prop_map(Op::Release),
        3 => (0..4_u8, size()).prop_map(|(topic, size)| Op::Retain(topic, size)),
        1 => (0..4_u8).prop_map(Op::Unretain),
        1 => any::<u8>().prop_map(Op::InboundDelete),
        1 => (any::<u8>(), size()).prop_map(|(at, size)| Op::PutWill(at, size)),
        1 => any::<u8>().prop_map(Op::DeleteWill),
    ]
}

/// Writes records as an engine does, and keeps the model of them.
#[derive(Debug)]
pub(crate) struct Writer {
    /// What holds if all that was written so far is there.
    pub(crate) model: Model,
    next_session: u64,
    batches: u64,
    messages: u64,
    /// The last number that a publisher's messages were given, committed or not.
    inbound_given: BTreeMap<SessionId, u64>,
}

impl Writer {
    /// Goes on from what a start has found.
    pub(crate) fn new(model: Model, next_session: SessionId, messages: u64) -> Self {
        Self {
            model,
            next_session: next_session.0,
            batches: 0,
            messages,
            inbound_given: BTreeMap::new(),
        }
    }

    /// Numbers that make each message another one.
    pub(crate) const fn messages(&self) -> u64 {
        self.messages
    }

    /// The records of `ops`, applied to the model.
    pub(crate) fn batch(&mut self, ops: &[Op], level: Level) -> Batch {
        let mut records = Vec::new();
        for op in ops {
            let made = self.records(op);
            for record in &made {
                self.model.apply(record);
            }
            records.extend(made);
        }
        self.batches += 1;
        Batch {
            seq: Seq(self.batches),
            records,
            level,
        }
    }

    fn records(&mut self, op: &Op) -> Vec<Record> {
        let record = match *op {
            Op::NewSession {
                ends_with_connection,
            } => Some(self.new_session(ends_with_connection)),
            Op::PutSession(at) => self.session(at).map(|session| {
                let mut put = self.model.sessions[&session].record.clone();
                put.disconnected_at = Some(UnixMillis(1_000_000 + self.messages));
                Record::SessionPut(Box::new(put))
            }),
            Op::DeleteSession(at) => self
                .session(at)
                .map(|session| Record::SessionDelete { session }),
            Op::Subscribe(at, filter) => self
                .session(at)
                .map(|session| subscription(session, filter)),
            Op::Unsubscribe(at, filter) => self.session(at).map(|session| {
                let filter = format!("filter/{filter}").into();
                Record::SubscriptionDelete { session, filter }
            }),
            Op::Enqueue { sessions, size } => self.enqueue(sessions, size, None),
            Op::EnqueueOfOrigin {
                publisher,
                sessions,
                size,
            } => self.session(publisher).and_then(|session| {
                let number = self.given(session) + 1;
                let record = self.enqueue(sessions, size, Some(Origin { session, number }))?;
                self.inbound_given.insert(session, number);
                Some(record)
            }),
            Op::Commit(at) => self.commit(at),
            Op::Dequeue { session, count } => self.dequeue(session, count),
            Op::Release(at) => self.session(at).and_then(|session| {
                // What waits for its publisher's answer is not sent, so nothing of it is released.
                let mut queue = self.model.sessions[&session].queue.iter();
                let (&seq, _) = queue.find(|(_, queued)| queued.origin.is_none())?;
                Some(Record::Release { session, seq })
            }),
            Op::Retain(topic, size) => {
                let mut message = self.message(size);
                message.topic = Bytes::from(format!("retained/{topic}"));
                message.retain = true;
                Some(Record::RetainedPut { message })
            }
            Op::Unretain(topic) => {
                let topic = Bytes::from(format!("retained/{topic}"));
                Some(Record::RetainedDelete { topic })
            }
            Op::InboundDelete(at) => self.session(at).and_then(|session| {
                let &packet_id = self.model.sessions[&session].inbound.iter().next()?;
                Some(Record::InboundDelete { session, packet_id })
            }),
            Op::PutWill(at, size) => self.session(at).map(|session| {
                let will = WillRecord {
                    session,
                    message: self.message(size),
                    delay_seconds: 7,
                };
                Record::WillPut(Box::new(will))
            }),
            Op::DeleteWill(at) => self
                .session(at)
                .map(|session| Record::WillDelete { session }),
        };
        record.into_iter().collect()
    }

    fn session(&self, at: u8) -> Option<SessionId> {
        let sessions = &self.model.sessions;
        let at = usize::from(at).checked_rem(sessions.len())?;
        sessions.keys().nth(at).copied()
    }

    fn given(&self, session: SessionId) -> u64 {
        let committed = self.model.sessions[&session].record.inbound_number;
        let given = self.inbound_given.get(&session).copied();
        given.unwrap_or(0).max(committed)
    }

    fn new_session(&mut self, ends_with_connection: bool) -> Record {
        let session = SessionId(self.next_session);
        self.next_session += 1;
        Record::SessionPut(Box::new(SessionRecord {
            owner: None,
            peer: None,
            session,
            client_id: format!("client-{}", session.0).into(),
            expiry_seconds: if ends_with_connection { 0 } else { u32::MAX },
            disconnected_at: None,
            queue_seq: 0,
            inbound_number: 0,
        }))
    }

    fn enqueue(&mut self, sessions: u8, size: u16, origin: Option<Origin>) -> Option<Record> {
        let chosen = self.model.sessions.values().enumerate();
        let chosen = chosen.filter(|(at, _)| sessions >> (at % 8) & 1 == 1);
        let targets: Vec<Target> = chosen
            .map(|(_, session)| Target {
                session: session.record.session,
                seq: session.record.queue_seq + 1,
                qos: if origin.is_some() { 2 } else { 1 },
                retain: false,
                subscription_identifiers: size
                    .is_multiple_of(3)
                    .then(|| Arc::from([u32::from(size)])),
            })
            .collect();
        let message = self.message(size);
        (!targets.is_empty()).then_some(Record::Enqueue {
            message,
            targets,
            origin,
        })
    }

    fn commit(&self, at: u8) -> Option<Record> {
        let session = self.session(at)?;
        let number = self.model.sessions[&session].record.inbound_number + 1;
        let packet_id = u16::try_from(number % 65_535).ok()? + 1;
        Some(Record::InboundPut {
            session,
            packet_id,
            number,
        })
    }

    fn dequeue(&self, session: u8, count: u8) -> Option<Record> {
        let session = self.session(session)?;
        let of = &self.model.sessions[&session];
        let first_seq = of.queue.keys().chain(&of.released).min().copied()?;
        let given = of.record.queue_seq + 1 - first_seq;
        Some(Record::Dequeue {
            session,
            first_seq,
            count: given.min(count.into()),
        })
    }

    fn message(&mut self, size: u16) -> MessageRecord {
        self.messages += 1;
        let mut payload = self.messages.to_le_bytes().to_vec();
        payload.resize(8 + usize::from(size), self.messages.to_le_bytes()[0]);
        MessageRecord {
            topic: Bytes::from(format!("topic/{}", self.messages % 5)),
            properties: Bytes::from_static(b"p"),
            payload: payload.into(),
            qos: 1,
            retain: false,
            expiry: None,
        }
    }
}

fn subscription(session: SessionId, filter: u8) -> Record {
    Record::SubscriptionPut(Box::new(SubscriptionRecord {
        session,
        filter: format!("filter/{filter}").into(),
        qos: filter % 3,
        no_local: false,
        retain_as_published: true,
        subscription_identifier: Some(u32::from(filter) + 1),
    }))
}
