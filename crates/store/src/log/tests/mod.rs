//! Tests of the log, from its files up.
//!
//! Owns: a model of what the records add up to, random work. Does not own: the disks (see `disk::fault`).
//! Start reading at [`Model`]. Invariant: random tests print their seed.

mod cleaning;
mod errors;
mod files;
mod hints;
mod inspect;
mod records;
mod sick;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use crate::disk::Disk;
use crate::{
    Batch, EncodedGroup, Level, Load, Log, LogOptions, MessageRecord, Record, Recovered, Seq,
    SessionId, SessionRecord, SubscriptionRecord, Target, WillRecord,
};

/// What records add up to, by the plainest means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Model {
    sessions: BTreeMap<SessionId, ModelSession>,
    retained: BTreeMap<Bytes, MessageRecord>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct ModelSession {
    put: SessionRecord,
    subscriptions: BTreeMap<String, SubscriptionRecord>,
    queue: BTreeMap<u64, (Target, MessageRecord)>,
    released: BTreeSet<u64>,
    inbound: BTreeSet<u16>,
    will: Option<WillRecord>,
}

impl ModelSession {
    fn new(put: SessionRecord) -> Self {
        Self {
            put,
            subscriptions: BTreeMap::new(),
            queue: BTreeMap::new(),
            released: BTreeSet::new(),
            inbound: BTreeSet::new(),
            will: None,
        }
    }
}

impl Model {
    fn apply(&mut self, record: &Record) {
        match record {
            Record::SessionPut(put) => {
                let session = self.sessions.entry(put.session);
                let session = session.or_insert_with(|| ModelSession::new((**put).clone()));
                let (queue_seq, inbound) = (session.put.queue_seq, session.put.inbound_number);
                session.put = (**put).clone();
                session.put.queue_seq = put.queue_seq.max(queue_seq);
                session.put.inbound_number = put.inbound_number.max(inbound);
            }
            Record::SessionDelete { session } => {
                self.sessions.remove(session);
            }
            Record::Enqueue {
                message, targets, ..
            } => {
                for target in targets {
                    if let Some(session) = self.sessions.get_mut(&target.session) {
                        let entry = (target.clone(), message.clone());
                        session.queue.insert(target.seq, entry);
                        session.put.queue_seq = session.put.queue_seq.max(target.seq);
                    }
                }
            }
            Record::RetainedPut { message } => {
                self.retained.insert(message.topic.clone(), message.clone());
            }
            Record::RetainedDelete { topic } => {
                self.retained.remove(topic);
            }
            _ => self.apply_to_session(record),
        }
    }

    fn apply_to_session(&mut self, record: &Record) {
        let id = match record {
            Record::SubscriptionPut(put) => put.session,
            Record::WillPut(put) => put.session,
            Record::SubscriptionDelete { session, .. }
            | Record::Dequeue { session, .. }
            | Record::Release { session, .. }
            | Record::InboundPut { session, .. }
            | Record::InboundDelete { session, .. }
            | Record::WillDelete { session } => *session,
            _ => return,
        };
        let Some(session) = self.sessions.get_mut(&id) else {
            return;
        };
        match record {
            Record::SubscriptionPut(put) => {
                let filter = put.filter.to_string();
                session.subscriptions.insert(filter, (**put).clone());
            }
            Record::SubscriptionDelete { filter, .. } => {
                session.subscriptions.remove(&**filter);
            }
            Record::Dequeue {
                first_seq, count, ..
            } => {
                let range = *first_seq..first_seq + count;
                session.queue.retain(|seq, _| !range.contains(seq));
                session.released.retain(|seq| !range.contains(seq));
            }
            Record::Release { seq, .. } => {
                session.queue.remove(seq);
                session.released.insert(*seq);
                session.put.queue_seq = session.put.queue_seq.max(*seq);
            }
            Record::InboundPut {
                packet_id, number, ..
            } => {
                session.inbound.insert(*packet_id);
                session.put.inbound_number = session.put.inbound_number.max(*number);
            }
            Record::InboundDelete { packet_id, .. } => {
                session.inbound.remove(packet_id);
            }
            Record::WillPut(put) => session.will = Some((**put).clone()),
            _ => session.will = None,
        }
    }

    /// What a log holds, read through all of its ways out.
    fn read<D: Disk>(log: &Log<D>, recovered: &Recovered) -> Self {
        let mut model = Self::default();
        for restored in &recovered.sessions {
            let mut session = ModelSession::new(restored.session.clone());
            for subscription in &restored.subscriptions {
                let filter = subscription.filter.to_string();
                session.subscriptions.insert(filter, subscription.clone());
            }
            session.queue = load_all(log, restored.session.session);
            assert_eq!(
                restored
                    .queue
                    .map(|extent| (extent.first_seq, extent.last_seq, extent.count)),
                session.queue.first_key_value().map(|(first, _)| {
                    let last = session.queue.last_key_value().unwrap().0;
                    (*first, *last, session.queue.len() as u64)
                })
            );
            session.released = restored.released.iter().copied().collect();
            session.inbound = restored.inbound.iter().copied().collect();
            session.will.clone_from(&restored.will);
            model.sessions.insert(restored.session.session, session);
        }
        for message in &recovered.retained {
            model
                .retained
                .insert(message.topic.clone(), message.clone());
        }
        model
    }
}

/// The whole queue of a Session, a few messages at a time.
fn load_all<D: Disk>(log: &Log<D>, session: SessionId) -> BTreeMap<u64, (Target, MessageRecord)> {
    let (mut queue, mut from_seq) = (BTreeMap::new(), 0);
    loop {
        let loaded = log.reader().load(Load {
            session,
            from_seq,
            messages_max: 7,
            bytes_max: 2000,
        });
        let messages = loaded.unwrap().messages;
        let Some(last) = messages.last() else {
            return queue;
        };
        from_seq = last.target.seq + 1;
        for one in messages {
            queue.insert(one.target.seq, (one.target, one.message));
        }
    }
}

/// Random work, the same for the same seed.
#[derive(Clone, Debug)]
struct Work {
    state: u64,
    next_session: u64,
    next_seq: BTreeMap<u64, u64>,
    next_number: BTreeMap<u64, u64>,
    payload_bytes_max: u64,
}

impl Work {
    fn new(seed: u64) -> Self {
        Self {
            state: seed,
            next_session: 1,
            next_seq: BTreeMap::new(),
            next_number: BTreeMap::new(),
            payload_bytes_max: 300,
        }
    }

    /// A number below `below`.
    fn below(&mut self, below: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ self.state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ mixed >> 31) % below
    }

    fn batch(&mut self, model: &mut Model) -> Batch {
        let count = 1 + self.below(5);
        let records: Vec<Record> = (0..count)
            .map(|_| {
                let record = self.record(model);
                model.apply(&record);
                record
            })
            .collect();
        let level = if self.below(3) == 0 {
            Level::Written
        } else {
            Level::Synced
        };
        Batch {
            seq: Seq(0),
            records,
            level,
        }
    }

    fn session(&mut self, model: &Model) -> Option<SessionId> {
        let count = model.sessions.len() as u64;
        let place = usize::try_from(self.below(count.max(1))).unwrap();
        model.sessions.keys().nth(place).copied()
    }

    fn record(&mut self, model: &Model) -> Record {
        let Some(session) = self.session(model).filter(|_| self.below(40) > 0) else {
            let id = self.next_session;
            self.next_session += 1;
            return Record::SessionPut(Box::new(session_put(id)));
        };
        let id = session.0;
        match self.below(20) {
            0 => Record::SessionPut(Box::new(SessionRecord {
                owner: None,
                peer: None,
                // What an engine writes is never less than what it wrote before.
                queue_seq: self.next_seq.get(&id).copied().unwrap_or(0),
                inbound_number: self.next_number.get(&id).copied().unwrap_or(0),
                ..session_put(id)
            })),
            1 if self.below(8) == 0 => Record::SessionDelete { session },
            2 => Record::SubscriptionPut(Box::new(SubscriptionRecord {
                session,
                filter: format!("a/{}", self.below(4)).into(),
                qos: 1,
                no_local: false,
                retain_as_published: true,
                subscription_identifier: Some(3),
            })),
            3 => Record::SubscriptionDelete {
                session,
                filter: format!("a/{}", self.below(4)).into(),
            },
            4 => Record::RetainedPut {
                message: self.message(),
            },
            5 => Record::RetainedDelete {
                topic: self.message().topic,
            },
            6 => Record::WillPut(Box::new(WillRecord {
                session,
                message: self.message(),
                delay_seconds: 5,
            })),
            7 => Record::WillDelete { session },
            8 => {
                let number = self.next_number.entry(id).or_default();
                *number += 1;
                let number = *number;
                let packet_id = u16::try_from(number % 5).unwrap();
                Record::InboundPut {
                    session,
                    packet_id,
                    number,
                }
            }
            9 => Record::InboundDelete {
                session,
                packet_id: u16::try_from(self.below(5)).unwrap(),
            },
            10..=14 => self.enqueue(model),
            15 => release(model, session),
            _ => self.dequeue(model, session),
        }
    }

    fn message(&mut self) -> MessageRecord {
        let bytes = usize::try_from(self.below(self.payload_bytes_max)).unwrap();
        MessageRecord {
            topic: format!("topic/{}", self.below(6)).into(),
            properties: Bytes::new(),
            payload: vec![self.below(256).to_le_bytes()[0]; bytes].into(),
            qos: 1,
            retain: false,
            expiry: None,
        }
    }

    fn enqueue(&mut self, model: &Model) -> Record {
        let mut targets = Vec::new();
        for &session in model.sessions.keys() {
            if targets.is_empty() || self.below(3) == 0 {
                let seq = self.next_seq.entry(session.0).or_default();
                *seq += 1;
                targets.push(Target {
                    session,
                    seq: *seq,
                    qos: 1,
                    retain: false,
                    subscription_identifiers: None,
                });
            }
        }
        Record::Enqueue {
            message: self.message(),
            targets,
            origin: None,
        }
    }

    fn dequeue(&mut self, model: &Model, session: SessionId) -> Record {
        let session_of = &model.sessions[&session];
        let first = session_of.queue.first_key_value().map(|(&seq, _)| seq);
        let released = session_of.released.first().copied();
        let first_seq = released.into_iter().chain(first).min().unwrap_or(1);
        Record::Dequeue {
            session,
            first_seq,
            count: 1 + self.below(9),
        }
    }
}

/// The first message of the queue is released; it is dequeued if there is none.
fn release(model: &Model, session: SessionId) -> Record {
    let queue = &model.sessions[&session].queue;
    match queue.first_key_value() {
        Some((&seq, _)) => Record::Release { session, seq },
        None => Record::Dequeue {
            session,
            first_seq: 1,
            count: 1,
        },
    }
}

fn session_put(id: u64) -> SessionRecord {
    SessionRecord {
        owner: None,
        peer: None,
        session: SessionId(id),
        client_id: format!("client {id}").into(),
        expiry_seconds: 100,
        disconnected_at: None,
        queue_seq: 0,
        inbound_number: 0,
    }
}

/// A message of `payload_bytes` that these Sessions take under the same number.
fn enqueue(sessions: &[u64], seq: u64, payload_bytes: usize) -> Record {
    let target = |&session: &u64| Target {
        session: SessionId(session),
        seq,
        qos: 1,
        retain: false,
        subscription_identifiers: None,
    };
    Record::Enqueue {
        message: message(seq, payload_bytes),
        targets: sessions.iter().map(target).collect(),
        origin: None,
    }
}

fn message(number: u64, payload_bytes: usize) -> MessageRecord {
    MessageRecord {
        topic: format!("t/{number}").into(),
        properties: "".into(),
        payload: vec![number.to_le_bytes()[0]; payload_bytes].into(),
        qos: 1,
        retain: false,
        expiry: None,
    }
}

fn group(batch: &Batch) -> EncodedGroup {
    let mut group = EncodedGroup::new();
    group.push(batch);
    group
}

fn records(records: Vec<Record>) -> EncodedGroup {
    group(&Batch {
        seq: Seq(1),
        records,
        level: Level::Synced,
    })
}

/// Small segments, on a disk that never runs low.
fn options() -> LogOptions {
    LogOptions {
        disk_low_bytes: 0,
        ..LogOptions::with_segments_of(4096)
    }
}

fn open<D: Disk>(disk: &D) -> (Log<D>, Recovered) {
    Log::open(disk.clone(), options()).unwrap()
}
