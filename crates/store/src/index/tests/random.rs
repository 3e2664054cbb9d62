//! Any records in any order, also such as no engine writes, against maps of everything.
//!
//! Owns: the naive model of an [`Index`]. Start reading at `the_index_agrees_with_a_naive_model`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::codec::{self, RecordRef};
use crate::{HashKeys, Index, Location, Origin, QueueExtent, Record, SessionId, testing};

#[derive(Default)]
struct Model {
    sessions: BTreeMap<SessionId, ModelSession>,
    retained: BTreeMap<Bytes, Location>,
    origins: Vec<(Origin, Location)>,
    is_recovered: bool,
    highest: u64,
}

#[derive(Default)]
struct ModelSession {
    put: Option<Location>,
    will: Option<Location>,
    queue_seq: u64,
    inbound_number: u64,
    queue: BTreeMap<u64, Location>,
    released: BTreeMap<u64, Location>,
    inbound: BTreeMap<u16, Location>,
    subscriptions: BTreeMap<String, Location>,
}

impl Model {
    fn of(&mut self, id: SessionId) -> Option<&mut ModelSession> {
        if self.is_recovered {
            return self.sessions.get_mut(&id);
        }
        self.highest = self.highest.max(id.0);
        Some(self.sessions.entry(id).or_default())
    }

    fn apply(&mut self, at: Location, record: &Record) {
        match record {
            Record::SessionPut(put) => {
                self.highest = self.highest.max(put.session.0);
                let of = self.sessions.entry(put.session).or_default();
                of.put = Some(at);
                of.queue_seq = of.queue_seq.max(put.queue_seq);
                of.inbound_number = of.inbound_number.max(put.inbound_number);
            }
            Record::SessionDelete { session } => {
                self.highest = self.highest.max(session.0);
                self.sessions.remove(session);
                self.origins
                    .retain(|(origin, _)| origin.session != *session);
            }
            Record::SubscriptionPut(put) => {
                if let Some(of) = self.of(put.session) {
                    of.subscriptions.insert(put.filter.to_string(), at);
                }
            }
            Record::SubscriptionDelete { session, filter } => {
                if let Some(of) = self.sessions.get_mut(session) {
                    of.subscriptions.remove(&**filter);
                }
            }
            Record::RetainedPut { message } => {
                self.retained.insert(message.topic.clone(), at);
            }
            Record::RetainedDelete { topic } => {
                self.retained.remove(topic);
            }
            Record::InboundPut {
                session,
                packet_id,
                number,
            } => {
                if let Some(of) = self.of(*session) {
                    of.inbound_number = of.inbound_number.max(*number);
                    of.inbound.insert(*packet_id, at);
                }
            }
            Record::InboundDelete { session, packet_id } => {
                if let Some(of) = self.sessions.get_mut(session) {
                    of.inbound.remove(packet_id);
                }
            }
            Record::WillPut(will) => {
                if let Some(of) = self.of(will.session) {
                    of.will = Some(at);
                }
            }
            Record::WillDelete { session } => {
                if let Some(of) = self.sessions.get_mut(session) {
                    of.will = None;
                }
            }
            _ => self.apply_to_queue(at, record),
        }
    }

    fn apply_to_queue(&mut self, at: Location, record: &Record) {
        match record {
            Record::Enqueue {
                targets, origin, ..
            } => {
                for target in targets {
                    if let Some(of) = self.of(target.session) {
                        of.queue_seq = of.queue_seq.max(target.seq);
                        if !of.released.contains_key(&target.seq) {
                            of.queue.insert(target.seq, at);
                        }
                    }
                }
                if let Some(origin) = origin {
                    self.highest = self.highest.max(origin.session.0);
                    self.origins.push((*origin, at));
                }
            }
            Record::Dequeue {
                session,
                first_seq,
                count,
            } => {
                let is_meant = |seq: &u64| *seq >= *first_seq && seq - first_seq < *count;
                if let Some(of) = self.sessions.get_mut(session) {
                    of.queue.retain(|seq, _| !is_meant(seq));
                    of.released.retain(|seq, _| !is_meant(seq));
                }
            }
            Record::Release { session, seq } => {
                if let Some(of) = self.of(*session) {
                    of.queue_seq = of.queue_seq.max(*seq);
                    of.queue.remove(seq);
                    of.released.insert(*seq, at);
                }
            }
            other => panic!("not of a queue: {other:?}"),
        }
    }

    fn finish_recovery(&mut self) -> Vec<SessionId> {
        self.is_recovered = true;
        let without_put = self.sessions.iter().filter(|(_, of)| of.put.is_none());
        let without_put: Vec<SessionId> = without_put.map(|(&id, _)| id).collect();
        self.sessions.retain(|_, of| of.put.is_some());
        without_put
    }

    fn keyed(&self) -> BTreeSet<Location> {
        let mut all: BTreeSet<Location> = self.retained.values().copied().collect();
        for of in self.sessions.values() {
            all.extend(of.put.into_iter().chain(of.will));
            all.extend(of.subscriptions.values());
        }
        all
    }

    fn live(&self) -> BTreeSet<Location> {
        let mut all = self.keyed();
        for of in self.sessions.values() {
            all.extend(of.queue.values());
            all.extend(of.released.values().chain(of.inbound.values()));
        }
        all
    }

    fn uncommitted(&self, log: &[(Location, Record)]) -> BTreeSet<(SessionId, u64)> {
        let mut found = BTreeSet::new();
        for (origin, at) in &self.origins {
            let publisher = self.sessions.get(&origin.session);
            let publisher = publisher.filter(|publisher| publisher.put.is_some());
            if publisher.is_none_or(|publisher| origin.number <= publisher.inbound_number) {
                continue;
            }
            for target in targets_at(log, *at) {
                let queue = self.sessions.get(&target.0).map(|of| &of.queue);
                if queue.and_then(|queue| queue.get(&target.1)) == Some(at) {
                    found.insert(target);
                }
            }
        }
        found
    }
}

fn targets_at(log: &[(Location, Record)], at: Location) -> Vec<(SessionId, u64)> {
    match log.iter().find(|of| of.0 == at) {
        Some((_, Record::Enqueue { targets, .. })) => {
            targets.iter().map(|of| (of.session, of.seq)).collect()
        }
        other => panic!("no Enqueue but {other:?}"),
    }
}

/// The same record among few Sessions, numbers, filters and topics, so that records meet.
fn narrowed(mut record: Record) -> Record {
    let session = |id: &mut SessionId| id.0 %= 4;
    match &mut record {
        Record::SessionPut(put) => {
            session(&mut put.session);
            (put.queue_seq, put.inbound_number) = (put.queue_seq % 50, put.inbound_number % 10);
        }
        Record::SubscriptionPut(put) => {
            session(&mut put.session);
            put.filter = narrow_text(&put.filter).into();
        }
        Record::SubscriptionDelete {
            session: of,
            filter,
        } => {
            session(of);
            *filter = narrow_text(filter).into();
        }
        Record::Enqueue {
            targets, origin, ..
        } => {
            for target in targets {
                session(&mut target.session);
                target.seq %= 40;
            }
            if let Some(origin) = origin {
                session(&mut origin.session);
                origin.number %= 14;
            }
        }
        Record::Dequeue {
            session: of,
            first_seq,
            count,
        } => {
            session(of);
            *first_seq %= 40;
            if *count > 4 && *count < 1 << 40 {
                *count %= 12;
            }
        }
        Record::Release { session: of, seq } => {
            session(of);
            *seq %= 40;
        }
        Record::RetainedPut { message } => narrow_topic(&mut message.topic),
        Record::RetainedDelete { topic } => narrow_topic(topic),
        Record::InboundPut {
            session: of,
            packet_id,
            number,
        } => {
            session(of);
            (*packet_id, *number) = (*packet_id % 5, *number % 12);
        }
        Record::InboundDelete {
            session: of,
            packet_id,
        } => {
            session(of);
            *packet_id %= 5;
        }
        Record::WillPut(will) => session(&mut will.session),
        Record::SessionDelete { session: of } | Record::WillDelete { session: of } => session(of),
    }
    record
}

fn narrow_text(text: &str) -> String {
    text.chars().next().map(String::from).unwrap_or_default()
}

fn narrow_topic(topic: &mut Bytes) {
    topic.truncate(1);
    *topic = topic.iter().map(|byte| byte % 3).collect();
}

/// Records, mostly of queues, with now and then a new segment.
fn records() -> impl Strategy<Value = Vec<(Record, bool)>> {
    let record = testing::record().prop_map(narrowed);
    let often = testing::record()
        .prop_map(narrowed)
        .prop_filter("not the end", |record| {
            !matches!(record, Record::SessionDelete { .. })
        });
    vec(
        (
            prop_oneof![1 => record, 4 => often],
            prop::bool::weighted(0.1),
        ),
        1..80,
    )
}

fn check(index: &Index, model: &Model, log: &[(Location, Record)]) -> Result<(), TestCaseError> {
    let live = model.live();
    for (at, record) in log {
        let mut bytes = Vec::new();
        codec::encode(record, &mut bytes);
        let (record, _) = RecordRef::decode(&bytes).expect("encoded");
        prop_assert_eq!(index.is_live(*at, &record), live.contains(at), "{:?}", at);
        prop_assert_eq!(index.kept(*at, &record).is_some(), live.contains(at));
    }
    prop_assert_eq!(index.keyed_locations(), Vec::from_iter(model.keyed()));
    let bytes = |segment: Option<u32>| -> u64 {
        let meant = live
            .iter()
            .filter(|at| segment.is_none_or(|of| at.segment == of));
        meant.map(|at| u64::from(at.len)).sum()
    };
    prop_assert_eq!(index.live_bytes(), bytes(None));
    for segment in 0..20 {
        prop_assert_eq!(index.live_bytes_of(segment), bytes(Some(segment)));
    }
    prop_assert_eq!(index.next_session().0, model.highest + 1);
    prop_assert_eq!(index.counts().sessions, model.sessions.len());
    for id in (0..5).map(SessionId) {
        check_session(index, id, model.sessions.get(&id))?;
    }
    Ok(())
}

fn check_session(
    index: &Index,
    id: SessionId,
    model: Option<&ModelSession>,
) -> Result<(), TestCaseError> {
    let numbers = model.map(|of| (of.queue_seq, of.inbound_number));
    prop_assert_eq!(index.numbers(id), numbers);
    let empty = ModelSession::default();
    let of = model.unwrap_or(&empty);
    prop_assert_eq!(index.contains(id), of.put.is_some());
    let extent = of
        .queue
        .first_key_value()
        .map(|(&first_seq, _)| QueueExtent {
            first_seq,
            last_seq: *of.queue.last_key_value().expect("not empty").0,
            count: of.queue.len() as u64,
            bytes: of.queue.values().map(|at| u64::from(at.len)).sum(),
        });
    prop_assert_eq!(index.queue_extent(id), extent);
    for from in [0, 1, 7, 39, 41, u64::MAX] {
        let expected = of.queue.range(from..).map(|(&seq, &at)| (seq, at));
        prop_assert!(index.entries(id, from).eq(expected));
    }
    prop_assert!(index.released(id).eq(of.released.keys().copied()));
    prop_assert!(index.inbound(id).eq(of.inbound.keys().copied()));
    Ok(())
}

proptest! {
    #[test]
    fn the_index_agrees_with_a_naive_model(records in records(), recovered_after in 0..200_usize) {
        let mut index = Index::new(HashKeys([1, 2]));
        let mut model = Model::default();
        let mut log = Vec::new();
        let mut at = Location::default();
        for (count, (record, is_new_segment)) in records.into_iter().enumerate() {
            let mut bytes = Vec::new();
            codec::encode(&record, &mut bytes);
            at.offset += at.len;
            at.len = u32::try_from(bytes.len()).expect("small");
            if is_new_segment {
                (at.segment, at.offset) = (at.segment + 1, 0);
            }
            let (decoded, _) = RecordRef::decode(&bytes).expect("encoded");
            index.apply(at, &decoded);
            model.apply(at, &record);
            log.push((at, record));
            if count == recovered_after {
                let mut uncommitted = BTreeSet::new();
                for dequeue in index.uncommitted() {
                    let Record::Dequeue { session, first_seq, count } = dequeue else {
                        panic!("{dequeue:?}");
                    };
                    for seq in first_seq..first_seq + count {
                        prop_assert!(uncommitted.insert((session, seq)));
                    }
                }
                prop_assert_eq!(uncommitted, model.uncommitted(&log));
                prop_assert_eq!(index.finish_recovery(), model.finish_recovery());
                prop_assert_eq!(index.uncommitted(), []);
            }
            if count % 32 == 0 {
                check(&index, &model, &log)?;
            }
        }
        check(&index, &model, &log)?;
    }
}
