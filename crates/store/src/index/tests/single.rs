//! Single rules of the index, each by its name.
//!
//! Owns: what random records meet too seldom. Start reading anywhere.

use bytes::Bytes;

use crate::codec::{self, RecordRef};
use crate::{
    HashKeys, Index, Location, MessageRecord, Origin, Record, SessionId, SessionRecord, Target,
};

const PUBLISHER: SessionId = SessionId(9);
const SUBSCRIBER: SessionId = SessionId(2);

fn at(offset: u32) -> Location {
    Location {
        segment: 1,
        offset,
        len: 20,
    }
}

fn apply(index: &mut Index, offset: u32, record: &Record) {
    let mut bytes = Vec::new();
    codec::encode(record, &mut bytes);
    let (record, _) = RecordRef::decode(&bytes).expect("encoded");
    index.apply(at(offset), &record);
}

fn put(session: SessionId) -> Record {
    Record::SessionPut(Box::new(SessionRecord {
        owner: None,
        peer: None,
        session,
        client_id: "client".into(),
        expiry_seconds: 1,
        disconnected_at: None,
        queue_seq: 0,
        inbound_number: 0,
    }))
}

fn enqueue(number: u64) -> Record {
    Record::Enqueue {
        message: MessageRecord {
            topic: Bytes::from_static(b"t"),
            properties: Bytes::new(),
            payload: Bytes::from_static(b"p"),
            qos: 2,
            retain: false,
            expiry: None,
        },
        targets: vec![Target {
            session: SUBSCRIBER,
            seq: number,
            qos: 2,
            retain: false,
            subscription_identifiers: None,
        }],
        origin: Some(Origin {
            session: PUBLISHER,
            number,
        }),
    }
}

/// What is written for the record at `offset` when it is moved.
fn moved(index: &Index, offset: u32, record: &Record) -> Option<Record> {
    let mut bytes = Vec::new();
    codec::encode(record, &mut bytes);
    let (record, _) = RecordRef::decode(&bytes).expect("encoded");
    let mut moved = Vec::new();
    index.kept(at(offset), &record)?.encode(&mut moved);
    let (moved, _) = RecordRef::decode(&moved).expect("encoded");
    Some(moved.to_record())
}

fn origin_of(record: Option<Record>) -> Option<Origin> {
    match record {
        Some(Record::Enqueue { origin, .. }) => origin,
        other => panic!("no message: {other:?}"),
    }
}

/// Otherwise a new Session with that number, and with no message committed, would undo a message that the
/// one before it had published, at the next start.
#[test]
fn a_session_number_that_only_an_origin_names_is_not_given_again() {
    let mut index = Index::new(HashKeys([1, 2]));
    apply(&mut index, 0, &put(SUBSCRIBER));
    apply(&mut index, 20, &enqueue(1));
    assert_eq!(index.next_session(), SessionId(PUBLISHER.0 + 1));
}

#[test]
fn a_moved_message_keeps_its_origin_until_that_is_committed_or_gone() {
    let mut index = Index::new(HashKeys([1, 2]));
    apply(&mut index, 0, &put(SUBSCRIBER));
    apply(&mut index, 20, &put(PUBLISHER));
    for number in [1, 2] {
        apply(&mut index, 20 + 20 * number, &enqueue(number.into()));
    }
    index.finish_recovery();
    assert!(origin_of(moved(&index, 40, &enqueue(1))).is_some());
    let commit = Record::InboundPut {
        session: PUBLISHER,
        packet_id: 1,
        number: 1,
    };
    apply(&mut index, 80, &commit);
    assert_eq!(origin_of(moved(&index, 40, &enqueue(1))), None);
    assert!(origin_of(moved(&index, 60, &enqueue(2))).is_some());
    let delete = Record::SessionDelete { session: PUBLISHER };
    apply(&mut index, 100, &delete);
    assert_eq!(origin_of(moved(&index, 60, &enqueue(2))), None);
}

#[test]
fn what_is_uncommitted_at_a_start_is_taken_out_in_runs() {
    let mut index = Index::new(HashKeys([1, 2]));
    apply(&mut index, 0, &put(SUBSCRIBER));
    apply(&mut index, 20, &put(PUBLISHER));
    for number in [1, 2, 3, 5] {
        apply(&mut index, 20 + 20 * number, &enqueue(number.into()));
    }
    let commit = Record::InboundPut {
        session: PUBLISHER,
        packet_id: 1,
        number: 1,
    };
    apply(&mut index, 200, &commit);
    let dequeue = |first_seq, count| Record::Dequeue {
        session: SUBSCRIBER,
        first_seq,
        count,
    };
    let uncommitted = index.uncommitted();
    assert_eq!(uncommitted, [dequeue(2, 2), dequeue(5, 1)]);
    for record in &uncommitted {
        apply(&mut index, 220, record);
    }
    index.finish_recovery();
    let left: Vec<u64> = index.entries(SUBSCRIBER, 0).map(|of| of.0).collect();
    assert_eq!(left, [1]);
    assert_eq!(index.live_bytes(), 4 * 20);
}

#[test]
fn after_the_recovery_records_of_a_session_that_has_ended_count_for_nothing() {
    let mut index = Index::new(HashKeys([1, 2]));
    index.finish_recovery();
    apply(&mut index, 0, &put(SUBSCRIBER));
    apply(
        &mut index,
        20,
        &Record::SessionDelete {
            session: SUBSCRIBER,
        },
    );
    apply(&mut index, 40, &enqueue(1));
    let release = Record::Release {
        session: SUBSCRIBER,
        seq: 1,
    };
    apply(&mut index, 60, &release);
    assert_eq!(index.live_bytes(), 0);
    assert_eq!(index.counts(), crate::Counts::default());
}
