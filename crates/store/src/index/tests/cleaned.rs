//! A log that is written, cleaned and started again, in any order, against what it should still say.
//!
//! Owns: a log in memory, an engine that writes plausible records. Does not own: files (see `log`).
//! Start reading at `cleaning_and_starting_again_change_nothing`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::codec::{RecordRef, Records};
use crate::{
    Batch, EncodedGroup, HashKeys, Index, Level, Location, MessageRecord, Origin, QueueExtent,
    Record, Restoring, Seq, SessionId, SessionRecord, SubscriptionRecord, Target, UnixMillis,
    WillRecord,
};

/// Segments of a log, the oldest first, without frames.
struct Log {
    segments: VecDeque<(u32, Vec<u8>)>,
    index: Index,
}

impl Log {
    fn new() -> Self {
        Self {
            segments: VecDeque::from([(1, Vec::new())]),
            index: Index::new(HashKeys([3, 4])),
        }
    }

    fn write(&mut self, record: Record) {
        let mut group = EncodedGroup::new();
        group.push(&Batch {
            seq: Seq(1),
            records: vec![record],
            level: Level::Synced,
        });
        self.write_group(&group);
    }

    fn write_group(&mut self, group: &EncodedGroup) {
        let (segment, bytes) = self.segments.back_mut().expect("never without a segment");
        for found in Records::new(group.bytes()) {
            let (offset, len, record) = found.expect("just encoded");
            let offset = u32::try_from(bytes.len() + offset).expect("small");
            let len = u32::try_from(len).expect("small");
            let at = Location {
                segment: *segment,
                offset,
                len,
            };
            self.index.apply(at, &record);
        }
        bytes.extend_from_slice(group.bytes());
    }

    fn begin_segment(&mut self) {
        let next = self.segments.back().expect("never without").0 + 1;
        self.segments.push_back((next, Vec::new()));
    }

    fn records(segment: &(u32, Vec<u8>)) -> impl Iterator<Item = (Location, RecordRef<'_>)> {
        Records::new(&segment.1).map(|found| {
            let (offset, len, record) = found.expect("just encoded");
            let offset = u32::try_from(offset).expect("small");
            let len = u32::try_from(len).expect("small");
            let segment = segment.0;
            (
                Location {
                    segment,
                    offset,
                    len,
                },
                record,
            )
        })
    }

    /// Moves the live records of the oldest segment, not more than `records_max`; frees it if none is left.
    fn clean(&mut self, records_max: usize) {
        if self.segments.len() < 2 {
            return;
        }
        let oldest = self.segments.pop_front().expect("checked");
        let mut group = EncodedGroup::new();
        let kept = Self::records(&oldest).filter_map(|(at, record)| self.index.kept(at, &record));
        for kept in kept.take(records_max) {
            group.push_kept(&kept);
        }
        assert_eq!(group.level(), Level::Memory);
        self.write_group(&group);
        if self.index.live_bytes_of(oldest.0) > 0 {
            self.segments.push_front(oldest);
        }
    }

    /// As after a crash. Returns how many messages were taken out for want of a commit.
    fn start_again(&mut self) {
        self.index = Index::new(HashKeys([5, 6]));
        for segment in &self.segments {
            for (at, record) in Self::records(segment) {
                self.index.apply(at, &record);
            }
        }
        for dequeue in self.index.uncommitted() {
            self.write(dequeue);
        }
        assert_eq!(self.index.uncommitted(), []);
        self.index.finish_recovery();
    }

    fn record_at(&self, at: Location) -> RecordRef<'_> {
        let segment = self.segments.iter().find(|of| of.0 == at.segment);
        let (offset, len) = (at.offset as usize, at.len as usize);
        let bytes = &segment.expect("a segment that is there").1[offset..offset + len];
        let (record, rest) = RecordRef::decode(bytes).expect("just encoded");
        assert_eq!(rest, b"");
        record
    }
}

/// What the log should say.
#[derive(Default)]
struct Model {
    sessions: BTreeMap<SessionId, ModelSession>,
    retained: BTreeMap<Bytes, MessageRecord>,
    last_session: u64,
    last_payload: u64,
}

struct ModelSession {
    /// With its numbers of today.
    put: SessionRecord,
    queue: BTreeMap<u64, (Target, MessageRecord, Option<Origin>)>,
    released: BTreeSet<u64>,
    inbound: BTreeSet<u16>,
    subscriptions: BTreeMap<String, SubscriptionRecord>,
    will: Option<WillRecord>,
    /// The last number given to a QoS 2 message, committed or not.
    last_origin: u64,
}

#[derive(Clone, Debug)]
enum Op {
    CreateSession,
    PutSession(usize),
    DeleteSession(usize),
    Subscribe(usize, u8),
    Unsubscribe(usize, u8),
    Publish { to: Vec<usize>, from: Option<usize> },
    Commit(usize, u16),
    Dequeue(usize, u64, u64),
    Release(usize, u64),
    DeleteInbound(usize, u16),
    PutWill(usize),
    DeleteWill(usize),
    Retain(u8),
    Unretain(u8),
    BeginSegment,
    Clean(usize),
    StartAgain,
}

fn op() -> impl Strategy<Value = Op> {
    let of = 0..8_usize;
    prop_oneof![
        3 => Just(Op::CreateSession),
        1 => of.clone().prop_map(Op::PutSession),
        1 => of.clone().prop_map(Op::DeleteSession),
        2 => (of.clone(), 0..3_u8).prop_map(|(of, filter)| Op::Subscribe(of, filter)),
        1 => (of.clone(), 0..3_u8).prop_map(|(of, filter)| Op::Unsubscribe(of, filter)),
        12 => (vec(0..8_usize, 1..4), prop::option::of(0..8_usize))
            .prop_map(|(to, from)| Op::Publish { to, from }),
        4 => (of.clone(), 1..4_u16).prop_map(|(of, id)| Op::Commit(of, id)),
        4 => (of.clone(), 0..6_u64, 1..6_u64).prop_map(|(of, skip, count)| Op::Dequeue(of, skip, count)),
        2 => (of.clone(), 0..6_u64).prop_map(|(of, skip)| Op::Release(of, skip)),
        2 => (of.clone(), 1..4_u16).prop_map(|(of, id)| Op::DeleteInbound(of, id)),
        1 => of.clone().prop_map(Op::PutWill),
        1 => of.prop_map(Op::DeleteWill),
        1 => (0..3_u8).prop_map(Op::Retain),
        1 => (0..3_u8).prop_map(Op::Unretain),
        5 => Just(Op::BeginSegment),
        5 => prop_oneof![Just(usize::MAX), 0..3_usize].prop_map(Op::Clean),
        1 => Just(Op::StartAgain),
    ]
}

impl Model {
    fn session(&mut self, number: usize) -> Option<&mut ModelSession> {
        let number = number.checked_rem(self.sessions.len())?;
        self.sessions.values_mut().nth(number)
    }

    fn message(&mut self, topic: &'static [u8]) -> MessageRecord {
        self.last_payload += 1;
        MessageRecord {
            topic: Bytes::from_static(topic),
            properties: Bytes::new(),
            payload: Bytes::from(self.last_payload.to_string()),
            qos: 2,
            retain: false,
            expiry: None,
        }
    }

    /// Does `op`; returns the record that says so.
    fn apply(&mut self, op: &Op) -> Option<Record> {
        match op {
            Op::CreateSession => Some(self.create_session()),
            Op::PutSession(of) => {
                let session = self.session(*of)?;
                session.put.disconnected_at = Some(UnixMillis(session.put.queue_seq));
                Some(Record::SessionPut(Box::new(session.put.clone())))
            }
            Op::DeleteSession(of) => {
                let session = self.session(*of)?.put.session;
                self.sessions.remove(&session);
                // What it published counts from now on, also if its number is given again.
                let others = self.sessions.values_mut();
                for (_, _, origin) in others.flat_map(|of| of.queue.values_mut()) {
                    *origin = origin.filter(|origin| origin.session != session);
                }
                Some(Record::SessionDelete { session })
            }
            Op::Publish { to, from } => self.publish(to, *from),
            Op::Retain(topic) => {
                let message = self.message(topic_of(*topic));
                self.retained.insert(message.topic.clone(), message.clone());
                Some(Record::RetainedPut { message })
            }
            Op::Unretain(topic) => {
                let topic = Bytes::from_static(topic_of(*topic));
                self.retained.remove(&topic);
                Some(Record::RetainedDelete { topic })
            }
            Op::PutWill(of) => {
                let message = self.message(b"will");
                let session = self.session(*of)?;
                let will = WillRecord {
                    session: session.put.session,
                    message,
                    delay_seconds: 5,
                };
                session.will = Some(will.clone());
                Some(Record::WillPut(Box::new(will)))
            }
            Op::BeginSegment | Op::Clean(_) | Op::StartAgain => None,
            Op::Subscribe(of, _)
            | Op::Unsubscribe(of, _)
            | Op::Commit(of, _)
            | Op::Dequeue(of, ..)
            | Op::Release(of, _)
            | Op::DeleteInbound(of, _)
            | Op::DeleteWill(of) => self.session(*of)?.apply(op),
        }
    }

    fn create_session(&mut self) -> Record {
        self.last_session += 1;
        let session = SessionId(self.last_session);
        let put = SessionRecord {
            owner: None,
            peer: None,
            session,
            client_id: format!("client {}", self.last_session).into(),
            expiry_seconds: 60,
            disconnected_at: None,
            queue_seq: 0,
            inbound_number: 0,
        };
        let model = ModelSession {
            put: put.clone(),
            queue: BTreeMap::new(),
            released: BTreeSet::new(),
            inbound: BTreeSet::new(),
            subscriptions: BTreeMap::new(),
            will: None,
            last_origin: 0,
        };
        self.sessions.insert(session, model);
        Record::SessionPut(Box::new(put))
    }

    fn publish(&mut self, to: &[usize], from: Option<usize>) -> Option<Record> {
        let message = self.message(b"topic");
        let origin = from.and_then(|from| self.session(from)).map(|from| {
            from.last_origin += 1;
            Origin {
                session: from.put.session,
                number: from.last_origin,
            }
        });
        let mut targets = Vec::new();
        for &to in to {
            let session = self.session(to)?;
            session.put.queue_seq += 1 + u64::from(to == 3);
            let target = Target {
                session: session.put.session,
                seq: session.put.queue_seq,
                qos: 2,
                retain: false,
                subscription_identifiers: (to == 1).then(|| [7, 300].into()),
            };
            let entry = (target.clone(), message.clone(), origin);
            session.queue.insert(target.seq, entry);
            targets.push(target);
        }
        Some(Record::Enqueue {
            message,
            targets,
            origin,
        })
    }

    /// What a crash does: nobody knows of messages that were not committed.
    fn crash(&mut self) {
        let committed: BTreeMap<SessionId, u64> = self
            .sessions
            .iter()
            .map(|(&id, of)| (id, of.put.inbound_number))
            .collect();
        for session in self.sessions.values_mut() {
            session.last_origin = session.put.inbound_number;
            session.queue.retain(|_, (_, _, origin)| {
                let number = origin.and_then(|origin| {
                    let committed = committed.get(&origin.session)?;
                    Some((origin.number, *committed))
                });
                number.is_none_or(|(number, committed)| number <= committed)
            });
        }
    }
}

impl ModelSession {
    fn apply(&mut self, op: &Op) -> Option<Record> {
        let session = self.put.session;
        match op {
            Op::Subscribe(_, filter) => {
                let subscription = SubscriptionRecord {
                    session,
                    filter: filter.to_string().into(),
                    qos: u8::try_from(self.put.queue_seq % 3).expect("small"),
                    no_local: false,
                    retain_as_published: true,
                    subscription_identifier: None,
                };
                self.subscriptions
                    .insert(filter.to_string(), subscription.clone());
                Some(Record::SubscriptionPut(Box::new(subscription)))
            }
            Op::Unsubscribe(_, filter) => {
                self.subscriptions.remove(&filter.to_string());
                Some(Record::SubscriptionDelete {
                    session,
                    filter: filter.to_string().into(),
                })
            }
            Op::Commit(_, packet_id) => {
                let number = self.put.inbound_number + 1;
                if number > self.last_origin {
                    return None;
                }
                self.put.inbound_number = number;
                self.inbound.insert(*packet_id);
                Some(Record::InboundPut {
                    session,
                    packet_id: *packet_id,
                    number,
                })
            }
            Op::Dequeue(_, skip, count) => {
                let lowest = self.queue.keys().chain(&self.released).min();
                let first_seq = lowest.copied().unwrap_or(1) + skip;
                let range = first_seq..first_seq + count;
                self.queue.retain(|seq, _| !range.contains(seq));
                self.released.retain(|seq| !range.contains(seq));
                Some(Record::Dequeue {
                    session,
                    first_seq,
                    count: *count,
                })
            }
            Op::Release(_, skip) => {
                let number = usize::try_from(*skip).expect("small");
                let seq = *self.queue.keys().nth(number)?;
                self.queue.remove(&seq);
                self.released.insert(seq);
                Some(Record::Release { session, seq })
            }
            Op::DeleteInbound(_, packet_id) => {
                self.inbound.remove(packet_id);
                Some(Record::InboundDelete {
                    session,
                    packet_id: *packet_id,
                })
            }
            Op::DeleteWill(_) => {
                self.will = None;
                Some(Record::WillDelete { session })
            }
            other => panic!("not of one session: {other:?}"),
        }
    }
}

fn topic_of(number: u8) -> &'static [u8] {
    [&b"one"[..], b"two", b"three"][usize::from(number)]
}

fn check(log: &Log, model: &Model) -> Result<(), TestCaseError> {
    let mut restoring = Restoring::new();
    for at in log.index.keyed_locations() {
        restoring.take(&log.index, at, &log.record_at(at));
    }
    let (sessions, mut retained) = restoring.finish(&log.index);
    retained.sort_by(|left, right| left.topic.cmp(&right.topic));
    prop_assert_eq!(retained, Vec::from_iter(model.retained.values().cloned()));
    prop_assert_eq!(sessions.len(), model.sessions.len());
    for (restored, of) in sessions.iter().zip(model.sessions.values()) {
        prop_assert_eq!(&restored.session, &of.put);
        let subscriptions: Vec<&SubscriptionRecord> = of.subscriptions.values().collect();
        prop_assert_eq!(Vec::from_iter(&restored.subscriptions), subscriptions);
        prop_assert_eq!(&restored.will, &of.will);
        prop_assert!(restored.released.iter().eq(&of.released));
        prop_assert!(restored.inbound.iter().eq(&of.inbound));
        let id = of.put.session;
        let entries: Vec<(u64, Location)> = log.index.entries(id, 0).collect();
        let extent = of.queue.keys().next().map(|&first_seq| QueueExtent {
            first_seq,
            last_seq: *of.queue.keys().last().expect("not empty"),
            count: of.queue.len() as u64,
            bytes: entries.iter().map(|(_, at)| u64::from(at.len)).sum(),
        });
        prop_assert_eq!(restored.queue, extent);
        for (&(seq, at), (expected_seq, expected)) in entries.iter().zip(&of.queue) {
            prop_assert_eq!(seq, *expected_seq);
            let Record::Enqueue {
                message, targets, ..
            } = log.record_at(at).to_record()
            else {
                panic!("no message at {at:?}");
            };
            prop_assert_eq!(message, expected.1.clone());
            prop_assert!(targets.contains(&expected.0));
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn cleaning_and_starting_again_change_nothing(ops in vec(op(), 1..150)) {
        let mut log = Log::new();
        log.index.finish_recovery();
        let mut model = Model::default();
        for op in ops {
            if let Some(record) = model.apply(&op) {
                log.write(record);
            }
            match op {
                Op::BeginSegment => log.begin_segment(),
                Op::Clean(records_max) => log.clean(records_max),
                Op::StartAgain => {
                    model.crash();
                    log.start_again();
                    check(&log, &model)?;
                    // The highest number may be gone with all that was said of its Session.
                    let next = log.index.next_session().0;
                    prop_assert!(next <= model.last_session + 1);
                    model.last_session = next - 1;
                }
                _ => {}
            }
        }
        check(&log, &model)?;
        model.crash();
        log.start_again();
        check(&log, &model)?;
    }
}
