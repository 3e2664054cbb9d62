//! What the codec promises, by random records and random bytes.
//!
//! Owns: the tests of the parent. Start reading at `a_record_comes_back_as_it_was`.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;
use crate::testing;

fn encoded(record: &Record) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(record, &mut bytes);
    bytes
}

fn message(payload: &'static [u8]) -> MessageRecord {
    MessageRecord {
        topic: Bytes::from_static(b"t"),
        properties: Bytes::new(),
        payload: Bytes::from_static(payload),
        qos: 1,
        retain: false,
        expiry: None,
    }
}

fn targets(count: u64) -> Vec<Target> {
    (0..count)
        .map(|session| Target {
            session: SessionId(session),
            seq: 300,
            qos: 1,
            retain: false,
            subscription_identifiers: None,
        })
        .collect()
}

proptest! {
    #[test]
    fn a_record_comes_back_as_it_was(record in testing::record(), behind in vec(any::<u8>(), 0..9)) {
        let mut bytes = encoded(&record);
        let length = bytes.len();
        bytes.extend_from_slice(&behind);
        let (decoded, rest) = RecordRef::decode(&bytes).expect("it was encoded");
        prop_assert_eq!(decoded.to_record(), record);
        prop_assert_eq!(rest, &bytes[length..]);
        let mut again = Vec::new();
        encode_ref(&decoded, &mut again);
        prop_assert_eq!(&again, &bytes[..length]);
    }

    #[test]
    fn the_fields_before_a_payload_decode_without_it(record in testing::record()) {
        let bytes = encoded(&record);
        let (body, _) = split(&bytes).expect("it was encoded");
        let whole = RecordRef::decode_body(body).expect("it was encoded");
        let head = &body[..body.len() - whole.payload().len()];
        let mut without = RecordRef::decode_body(head).expect("the head stands for itself");
        prop_assert_eq!(without.payload(), b"");
        match &mut without {
            RecordRef::Enqueue(enqueue) => enqueue.message.payload = whole.payload(),
            RecordRef::RetainedPut { message } => message.payload = whole.payload(),
            RecordRef::WillPut(will) => will.message.payload = whole.payload(),
            _ => {}
        }
        prop_assert_eq!(without, whole);
    }

    #[test]
    fn any_bytes_decode_to_a_record_that_encodes_to_them_or_to_an_error(
        kind in 0..16_u8,
        mut bytes in vec(prop_oneof![any::<u8>(), 0..4_u8], 0..64),
    ) {
        check_any(&bytes)?;
        let length = u8::try_from(bytes.len() + 1).expect("short");
        bytes.splice(0..0, [length, kind]);
        check_any(&bytes)?;
    }

    #[test]
    fn mutated_records_decode_to_a_record_that_encodes_to_them_or_to_an_error(
        record in testing::record(),
        changes in vec((any::<Index>(), any::<u8>()), 1..4),
        cut in option_cut(),
    ) {
        let mut bytes = encoded(&record);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        check_any(&bytes)?;
    }

    #[test]
    fn no_part_of_a_record_is_a_whole_record(record in testing::record(), cut in any::<Index>()) {
        let bytes = encoded(&record);
        let cut = cut.index(bytes.len());
        prop_assert_eq!(RecordRef::decode(&bytes[..cut]), Err(DecodeError::Truncated));
    }
}

fn option_cut() -> impl Strategy<Value = Option<Index>> {
    proptest::option::of(any::<Index>())
}

fn check_any(bytes: &[u8]) -> Result<(), TestCaseError> {
    let mut end = 0;
    for found in Records::new(bytes) {
        let Ok((offset, length, record)) = found else {
            return Ok(());
        };
        prop_assert_eq!(offset, end);
        end = offset + length;
        let mut again = Vec::new();
        encode_ref(&record, &mut again);
        prop_assert_eq!(&again, &bytes[offset..end]);
        prop_assert_eq!(encoded(&record.to_record()), again);
    }
    prop_assert_eq!(end, bytes.len());
    Ok(())
}

#[test]
fn the_layout_is_the_one_that_is_written_down() {
    let record = Record::Enqueue {
        message: message(b"hi"),
        targets: targets(2),
        origin: None,
    };
    let bytes = [
        16, ENQUEUE, 1, 1, b't', 0, 1, 0, 0xac, 2, 1, 1, 0xac, 2, 1, b'h', b'i',
    ];
    assert_eq!(encoded(&record), bytes);
    let record = Record::Dequeue {
        session: SessionId(7),
        first_seq: 128,
        count: 1,
    };
    assert_eq!(encoded(&record), [5, DEQUEUE, 7, 0x80, 1, 1]);
}

#[test]
fn an_enqueue_for_many_is_several_records_and_one_for_nobody_is_none() {
    let enqueue = |count| Record::Enqueue {
        message: message(b"payload"),
        targets: targets(count),
        origin: None,
    };
    let bytes = encoded(&enqueue(600));
    let found: Vec<(usize, Vec<Target>)> = Records::new(&bytes)
        .map(|found| match found.expect("valid").2 {
            RecordRef::Enqueue(enqueue) => {
                assert_eq!(enqueue.message.payload, b"payload");
                let targets = enqueue.targets().map(|target| target.to_record());
                (enqueue.target_count(), targets.collect())
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        found.iter().map(|of| of.0).collect::<Vec<_>>(),
        [256, 256, 88]
    );
    let all: Vec<Target> = found.into_iter().flat_map(|of| of.1).collect();
    assert_eq!(all, targets(600));
    assert_eq!(encoded(&enqueue(0)), []);
}

#[test]
fn zeros_are_no_record() {
    let error = DecodeError::Invalid { field: "length" };
    assert_eq!(RecordRef::decode(&[0; 64]), Err(error));
}

#[test]
fn a_length_near_the_largest_number_is_an_error() {
    let mut bytes = vec![0xff; 9];
    bytes.push(1);
    bytes.extend_from_slice(&[SESSION_DELETE, 1]);
    assert_eq!(RecordRef::decode(&bytes), Err(DecodeError::Truncated));
    // Inside a record: identifiers, a topic.
    let mut huge = vec![0xff; 9];
    huge.push(1);
    let topic = [&[ENQUEUE, 0][..], &huge].concat();
    assert_eq!(RecordRef::decode_body(&topic), Err(DecodeError::Truncated));
    let identifiers = [&[ENQUEUE, 0, 0, 0, 0, 1, 1, TARGET_IDENTIFIERS][..], &huge].concat();
    assert_eq!(
        RecordRef::decode_body(&identifiers),
        Err(DecodeError::Truncated)
    );
}

/// A log from before Sessions had owners, byte for byte.
#[test]
fn session_without_an_owner_is_read_and_written_as_before() {
    let bytes = [9, SESSION_PUT, 7, DISCONNECTED, 5, 60, 2, 3, b'i', b'd'];
    let record = SessionRecord {
        session: SessionId(7),
        client_id: "id".into(),
        expiry_seconds: 60,
        disconnected_at: Some(UnixMillis(5)),
        queue_seq: 2,
        inbound_number: 3,
        owner: None,
        peer: None,
    };
    let record = Record::SessionPut(Box::new(record));
    assert_eq!(encoded(&record), bytes);
    let (found, _) = RecordRef::decode(&bytes).expect("a record");
    assert_eq!(found.to_record(), record);
}

#[test]
fn attribute_without_a_value_is_no_owner() {
    let names = [2, 1, b'n'];
    let owner = [&[0, 1, b'u', 0][..], &names].concat();
    let body = [&[SESSION_PUT, 7, OWNER, 60, 2, 3][..], &owner, b"id"].concat();
    let field = "attributes";
    assert_eq!(
        RecordRef::decode_body(&body),
        Err(DecodeError::Invalid { field })
    );
}

/// A log from before rules came with a proof, and from before it was kept where a Client was: byte for byte.
#[test]
fn owner_without_rules_is_read_and_written_as_before() {
    let owner = [ADMINISTRATOR, 1, b'u', 0, 0];
    let body = [&[SESSION_PUT, 7, OWNER, 60, 2, 3][..], &owner, b"id"].concat();
    let found = RecordRef::decode_body(&body).expect("a record").to_record();
    let Record::SessionPut(session) = &found else {
        panic!("{found:?}");
    };
    let owner = session.owner.as_ref().expect("an owner");
    assert!(owner.is_administrator && !owner.is_listed);
    assert_eq!((&owner.rules, &session.peer), (&None, &None));
    assert_eq!(encoded(&found)[1..], body);
}

#[test]
fn address_of_another_length_than_those_of_ip_is_none() {
    for length in [1, 5, 15, 17] {
        let peer = [&[length][..], &vec![1; usize::from(length)], &[0]].concat();
        let body = [&[SESSION_PUT, 7, PEER, 60, 2, 3][..], &peer, b"id"].concat();
        let field = "address";
        let found = RecordRef::decode_body(&body);
        assert_eq!(found, Err(DecodeError::Invalid { field }), "{length}");
    }
}
