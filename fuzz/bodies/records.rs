//! Any bytes as records of the log, taken in by an index.

use vencejo_store::codec::{Records, encode, encode_ref};
use vencejo_store::{HashKeys, Index, Location, Record, Restoring};

/// Decodes, encodes again, applies, and asks for all that an index answers; the recovery ends after the
/// record whose number the first byte gives.
pub(crate) fn run(data: &[u8]) {
    let Some((&recovered_after, data)) = data.split_first() else {
        return;
    };
    let mut index = Index::new(HashKeys([1, 2]));
    let mut all = Vec::new();
    for (number, found) in Records::new(data).enumerate() {
        let Ok((offset, len, record)) = found else {
            break;
        };
        let mut again = Vec::new();
        encode_ref(&record, &mut again);
        assert_eq!(Some(&again[..]), data.get(offset..offset + len));
        again.clear();
        encode(&record.to_record(), &mut again);
        assert_eq!(Some(&again[..]), data.get(offset..offset + len));
        let at = Location {
            segment: u32::try_from(number / 8).unwrap_or(0),
            offset: u32::try_from(offset).unwrap_or(0),
            len: u32::try_from(len).unwrap_or(0),
        };
        index.apply(at, &record);
        all.push((at, record));
        if number == usize::from(recovered_after) {
            check_uncommitted(&index);
            index.finish_recovery();
        }
    }
    check_uncommitted(&index);
    let mut restoring = Restoring::new();
    let mut live_bytes = 0;
    for (at, record) in &all {
        restoring.take(&index, *at, record);
        if let Some(kept) = index.kept(*at, record) {
            live_bytes += u64::from(at.len);
            let mut moved = Vec::new();
            kept.encode(&mut moved);
            assert!(Records::new(&moved).all(|record| record.is_ok()));
        }
    }
    assert_eq!(index.live_bytes(), live_bytes);
    let (sessions, _) = restoring.finish(&index);
    for session in sessions {
        let entries = index.entries(session.session.session, 0).count() as u64;
        assert_eq!(session.queue.map_or(0, |queue| queue.count), entries);
        assert!(session.released.is_sorted() && session.inbound.is_sorted());
    }
}

/// What is to be taken out is there.
fn check_uncommitted(index: &Index) {
    for record in index.uncommitted() {
        let Record::Dequeue {
            session,
            first_seq,
            count,
        } = record
        else {
            unreachable!("{record:?} takes nothing out");
        };
        let mut entries = index.entries(session, first_seq);
        assert!(
            (first_seq..first_seq + count).all(|seq| entries.next().map(|of| of.0) == Some(seq))
        );
    }
}
