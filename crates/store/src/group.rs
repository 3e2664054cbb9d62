//! The batches that are written together, as bytes.
//!
//! Owns: [`EncodedGroup`]. Does not own: frames, files (see `log`), whose batches they are (see the server).
//! Start reading at [`EncodedGroup::push`]. Invariant: the bytes are whole batches in the order in which
//! they were pushed, each of whole records.

use crate::codec::{self, RecordRef};
use crate::{Batch, Level};

/// Batches, encoded one behind the other. Cleared and filled again it allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct EncodedGroup {
    bytes: Vec<u8>,
    /// Where each batch ends.
    ends: Vec<usize>,
    level: Option<Level>,
}

impl EncodedGroup {
    /// A group without batches.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            ends: Vec::new(),
            level: None,
        }
    }

    /// Adds `batch`. O(its bytes), nothing allocated but what the group grows by.
    pub fn push(&mut self, batch: &Batch) {
        for record in &batch.records {
            codec::encode(record, &mut self.bytes);
        }
        self.end_batch(batch.level);
    }

    /// Adds one record as a batch of its own.
    pub fn push_record(&mut self, record: &RecordRef<'_>, level: Level) {
        codec::encode_ref(record, &mut self.bytes);
        self.end_batch(level);
    }

    /// Adds the batches of `other` behind its own. O(their bytes), a copy and nothing else.
    pub fn append(&mut self, other: &Self) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&other.bytes);
        self.ends.extend(other.ends.iter().map(|end| start + end));
        self.level = self.level.max(other.level);
    }

    /// Adds a batch of what `encode` appends.
    pub(crate) fn push_with(&mut self, level: Level, encode: impl FnOnce(&mut Vec<u8>)) {
        encode(&mut self.bytes);
        self.end_batch(level);
    }

    /// The bytes of each batch, in order; those of one without records are empty.
    pub fn batches(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let batch = self.bytes.get(start..end).unwrap_or_default();
            start = end;
            batch
        })
    }

    /// The bytes of all batches.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many batches there are, those without records included.
    #[must_use]
    pub const fn batch_count(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no batch.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The highest level that a batch asks for; [`Level::Memory`] if there is none.
    #[must_use]
    pub fn level(&self) -> Level {
        self.level.unwrap_or(Level::Memory)
    }

    /// Takes all batches out and keeps the space they had, up to `capacity_max_bytes`.
    pub fn clear(&mut self, capacity_max_bytes: usize) {
        self.bytes.clear();
        self.bytes.shrink_to(capacity_max_bytes);
        self.ends.clear();
        self.level = None;
    }

    fn end_batch(&mut self, level: Level) {
        self.ends.push(self.bytes.len());
        self.level = self.level.max(Some(level));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Records;
    use crate::{Record, Seq, SessionId};

    fn batch(sessions: &[u64], level: Level) -> Batch {
        let records = sessions.iter().map(|&id| Record::SessionDelete {
            session: SessionId(id),
        });
        Batch {
            seq: Seq(1),
            records: records.collect(),
            level,
        }
    }

    #[test]
    fn batches_come_back_in_order_with_their_bounds_and_the_highest_level() {
        let mut group = EncodedGroup::new();
        assert_eq!(group.level(), Level::Memory);
        group.push(&batch(&[1, 2], Level::Written));
        assert_eq!(group.level(), Level::Written);
        group.push(&batch(&[], Level::Synced));
        group.push(&batch(&[3], Level::Written));
        assert_eq!(group.level(), Level::Synced);
        let sessions: Vec<Vec<RecordRef<'_>>> = group
            .batches()
            .map(|bytes| Records::new(bytes).map(|found| found.unwrap().2).collect())
            .collect();
        let delete = |id| RecordRef::SessionDelete {
            session: SessionId(id),
        };
        assert_eq!(
            sessions,
            [vec![delete(1), delete(2)], vec![], vec![delete(3)]]
        );
    }

    #[test]
    fn a_cleared_group_keeps_no_more_space_than_it_may() {
        let mut group = EncodedGroup::new();
        let many: Vec<u64> = (0..10_000).collect();
        group.push(&batch(&many, Level::Synced));
        group.clear(100);
        assert!(group.is_empty() && group.bytes().is_empty());
        assert!(group.bytes.capacity() < 1_000);
        assert_eq!(group.level(), Level::Memory);
    }

    #[test]
    fn group_takes_the_batches_of_another_behind_its_own() {
        let mut group = EncodedGroup::new();
        group.push(&batch(&[1], Level::Written));
        let mut other = EncodedGroup::new();
        other.push(&batch(&[2, 3], Level::Synced));
        other.push(&batch(&[], Level::Written));
        group.append(&other);
        let mut whole = EncodedGroup::new();
        for (sessions, level) in [
            (&[1][..], Level::Written),
            (&[2, 3], Level::Synced),
            (&[], Level::Written),
        ] {
            whole.push(&batch(sessions, level));
        }
        assert_eq!(group.bytes(), whole.bytes());
        let batches =
            |group: &EncodedGroup| group.batches().map(<[u8]>::to_vec).collect::<Vec<_>>();
        assert_eq!(batches(&group), batches(&whole));
        assert_eq!(group.level(), Level::Synced);
    }
}
