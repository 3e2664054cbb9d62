//! Waiting for memory once for many records, not once for each.
//!
//! Owns: [`Index::apply_all`]. Does not own: what a record means (see the parent). Start reading there.
//! Invariant: it does what [`Index::apply`] does for each record, one after the other.
//!
//! With a million Sessions, what a record changes is in no cache of the processor, and four reads depend on each
//! other before it can be changed: a start spent a third of its time there. Here each of the four is done
//! for many records before the next, so that the processor has them all under way at once.

use crate::codec::{RecordRef, TargetRef};
use crate::{Index, Location, SessionId};

impl Index {
    /// Takes in the next records of the log. A few at a time: what they touch has to stay in the cache.
    pub fn apply_all(&mut self, records: &[(Location, RecordRef<'_>)]) {
        self.look_ahead(records);
        for (at, record) in records {
            self.apply(*at, record);
        }
    }

    /// Touches what they will change, and changes nothing.
    fn look_ahead(&self, records: &[(Location, RecordRef<'_>)]) {
        let wanted = records.iter().filter_map(|(_, record)| session_of(record));
        let sessions: Vec<_> = wanted.filter_map(|id| self.sessions.get(&id)).collect();
        let queues: Vec<_> = sessions
            .iter()
            .filter_map(|session| session.queue.as_deref())
            .collect();
        for queue in queues {
            std::hint::black_box(queue.last());
        }
    }
}

/// The Session in whose queue something changes; of several, the first: the others are looked up when it is their
/// turn.
fn session_of(record: &RecordRef<'_>) -> Option<SessionId> {
    match record {
        RecordRef::Enqueue(enqueue) => {
            let first: Option<TargetRef<'_>> = enqueue.targets().next();
            first.map(|target| target.session)
        }
        RecordRef::Dequeue { session, .. } | RecordRef::Release { session, .. } => Some(*session),
        _ => None,
    }
}

/// Records that [`Index::apply_all`] is best given at a time: what they touch has to stay in the cache until it is
/// changed.
pub(crate) const AHEAD: usize = 64;

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::codec::{self, Records};
    use crate::{HashKeys, MessageRecord, Record, SessionRecord, Target};

    /// Sessions that come, get messages, lose them and go, so that one run of records touches the same ones often.
    fn records() -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in 0..3000_u64 {
            let session = SessionId(1 + number % 7);
            let target = |of: u64| Target {
                session: SessionId(1 + (number + of) % 9),
                seq: number,
                qos: 1,
                retain: false,
                subscription_identifiers: None,
            };
            let record = match number % 13 {
                0 => Record::SessionPut(Box::new(SessionRecord {
                    owner: None,
                    peer: None,
                    session,
                    client_id: "client".into(),
                    expiry_seconds: 1,
                    disconnected_at: None,
                    queue_seq: 0,
                    inbound_number: 0,
                })),
                1 => Record::Dequeue {
                    session,
                    first_seq: number.saturating_sub(200),
                    count: 100,
                },
                2 => Record::Release {
                    session,
                    seq: number - 2,
                },
                3 if number % 5 == 0 => Record::SessionDelete { session },
                _ => Record::Enqueue {
                    message: MessageRecord {
                        topic: "topic".into(),
                        properties: Bytes::new(),
                        payload: Bytes::new(),
                        qos: 1,
                        retain: false,
                        expiry: None,
                    },
                    targets: (0..number % 3 + 1).map(target).collect(),
                    origin: None,
                },
            };
            codec::encode(&record, &mut bytes);
        }
        bytes
    }

    #[test]
    fn many_at_a_time_are_the_same_as_one_after_the_other() {
        let bytes = records();
        let records: Vec<_> = Records::new(&bytes)
            .map(|found| {
                let (start, len, record) = found.unwrap();
                let [offset, len] = [start, len].map(|number| u32::try_from(number).unwrap());
                let segment = 1 + offset / 20_000;
                (
                    Location {
                        segment,
                        offset,
                        len,
                    },
                    record,
                )
            })
            .collect();
        let keys = HashKeys([1, 2]);
        let (mut one, mut many) = (Index::new(keys), Index::new(keys));
        for run in records.chunks(AHEAD) {
            for (at, record) in run {
                one.apply(*at, record);
            }
            many.apply_all(run);
            assert_eq!(one.counts(), many.counts());
            assert_eq!(one.live_bytes(), many.live_bytes());
        }
        assert!(one.counts().entries > 500);
        for session in (1..10).map(SessionId) {
            assert_eq!(one.queue_extent(session), many.queue_extent(session));
            assert_eq!(one.numbers(session), many.numbers(session));
            assert!(one.entries(session, 0).eq(many.entries(session, 0)));
            assert!(one.released(session).eq(many.released(session)));
        }
    }
}
