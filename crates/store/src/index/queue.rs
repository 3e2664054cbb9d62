//! The numbers of the messages in one Session's queue, and which message each is.
//!
//! Owns: [`Queue`]: 8 bytes an entry, in sorted chunks. Does not own: the messages (see `messages`).
//! Start reading at [`Queue::insert`]. Invariants: entries are in ascending order of their numbers, within
//! a chunk and from chunk to chunk; no chunk is empty but the tail of an empty queue.
//!
//! Entries come at the end and go at the front, but for recovery: there the messages that the cleaner has
//! moved come late, in order among themselves. Chunks make that cheap, too.

use std::collections::VecDeque;

use super::messages::SlotNumber;

#[derive(Debug, Default)]
pub(super) struct Queue {
    older: VecDeque<Chunk>,
    tail: Chunk,
    count: u64,
    /// The chunk of the last insertion that was not at the end: the next is often behind it.
    recent: u32,
    /// Bytes of the records of its messages, kept by the owner.
    pub(super) bytes: u64,
}

/// Entries whose numbers are within 2^32 of each other.
#[derive(Debug, Default)]
struct Chunk {
    base: u64,
    entries: VecDeque<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// Above the base.
    delta: u32,
    slot: SlotNumber,
}

impl Queue {
    /// Puts `slot` at the number `seq`; returns what was there.
    /// O(1) at the end, O(log entries + a chunk) elsewhere.
    pub(super) fn insert(&mut self, seq: u64, slot: SlotNumber) -> Option<SlotNumber> {
        if self.tail.last().is_none_or(|last| last < seq) {
            self.append(seq, slot);
            self.count += 1;
            return None;
        }
        let number = self.chunk_near_recent(seq);
        let chunk = self.chunk_mut(number);
        match chunk.search(seq) {
            Ok(place) => {
                let before = chunk.entries[place].slot;
                chunk.entries[place].slot = slot;
                return Some(before);
            }
            Err(0) => self.insert_between(number, seq, slot),
            Err(place) if chunk.entries.len() < CHUNK_ENTRIES_MAX => {
                chunk.insert(place, seq, slot);
            }
            Err(_) => {
                self.halve(number);
                return self.insert(seq, slot);
            }
        }
        self.count += 1;
        None
    }

    pub(super) fn at(&self, seq: u64) -> Option<SlotNumber> {
        let chunk = self.chunk(self.chunk_of(seq))?;
        let place = chunk.search(seq).ok()?;
        chunk.entries.get(place).map(|entry| entry.slot)
    }

    /// Takes out the numbers from `first` to `last`, those included; gives each slot to `on_removed`.
    /// O(log entries) and what is taken out.
    pub(super) fn remove(&mut self, first: u64, last: u64, mut on_removed: impl FnMut(SlotNumber)) {
        let mut number = self.chunk_of(first);
        while let Some(chunk) = self.chunk(number) {
            if chunk.first().is_none_or(|lowest| lowest > last) {
                break;
            }
            let chunk = self.chunk_mut(number);
            let removed = chunk.remove(first, last, &mut on_removed);
            let is_empty = chunk.entries.is_empty();
            self.count -= removed as u64;
            if is_empty {
                self.remove_chunk(number);
            } else {
                number += 1;
            }
        }
    }

    /// The entries from `seq` on.
    pub(super) fn entries_from(&self, seq: u64) -> impl Iterator<Item = (u64, SlotNumber)> {
        let number = self.chunk_of(seq);
        let place = self
            .chunk(number)
            .map_or(0, |chunk| chunk.search(seq).unwrap_or_else(|place| place));
        (number..=self.older.len())
            .filter_map(|number| self.chunk(number))
            .flat_map(Chunk::iter)
            .skip(place)
    }

    pub(super) fn first(&self) -> Option<u64> {
        self.chunk(0)?.first()
    }

    pub(super) fn last(&self) -> Option<u64> {
        self.tail.last()
    }

    pub(super) const fn len(&self) -> u64 {
        self.count
    }

    /// The first chunk whose last number is not below `seq`; one past the tail if there is none.
    fn chunk_of(&self, seq: u64) -> usize {
        let is_below = |chunk: &Chunk| chunk.last().is_none_or(|last| last < seq);
        // Most questions are about the front.
        if self.older.front().is_some_and(|first| !is_below(first)) {
            return 0;
        }
        if is_below(&self.tail) {
            return self.older.len() + 1;
        }
        self.older.partition_point(is_below)
    }

    /// As [`Self::chunk_of`], but looks first where the last insertion was; for a `seq` that is not behind all.
    fn chunk_near_recent(&mut self, seq: u64) -> usize {
        let is_below = |number: usize| {
            let last = self.chunk(number).and_then(Chunk::last);
            last.is_some_and(|last| last < seq)
        };
        let recent = self.recent as usize;
        let number = (recent..recent + 2)
            .find(|&number| (number == 0 || is_below(number - 1)) && !is_below(number))
            .filter(|&number| number <= self.older.len())
            .unwrap_or_else(|| self.chunk_of(seq));
        self.recent = u32::try_from(number).unwrap_or(0);
        number
    }

    fn chunk(&self, number: usize) -> Option<&Chunk> {
        if number == self.older.len() {
            return Some(&self.tail);
        }
        self.older.get(number)
    }

    fn chunk_mut(&mut self, number: usize) -> &mut Chunk {
        self.older.get_mut(number).unwrap_or(&mut self.tail)
    }

    fn append(&mut self, seq: u64, slot: SlotNumber) {
        if !self.tail.push_back(seq, slot) {
            let full = std::mem::replace(&mut self.tail, Chunk::with(seq, slot));
            self.older.push_back(full);
        }
    }

    /// Inserts before the first entry of chunk `number` and behind the last of the one before it.
    fn insert_between(&mut self, number: usize, seq: u64, slot: SlotNumber) {
        let before = number.checked_sub(1);
        if before.is_some_and(|before| self.chunk_mut(before).push_back(seq, slot)) {
            return;
        }
        if !self.chunk_mut(number).push_front(seq, slot) {
            self.older.insert(number, Chunk::with(seq, slot));
        }
    }

    fn halve(&mut self, number: usize) {
        let upper = self.chunk_mut(number).split_off_upper_half();
        if number < self.older.len() {
            self.older.insert(number + 1, upper);
        } else {
            let lower = std::mem::replace(&mut self.tail, upper);
            self.older.push_back(lower);
        }
    }

    fn remove_chunk(&mut self, number: usize) {
        if number < self.older.len() {
            self.older.remove(number);
        } else {
            self.tail = self.older.pop_back().unwrap_or_default();
        }
        if self.older.capacity() > 4 * self.older.len().max(8) {
            self.older.shrink_to(2 * self.older.len());
        }
    }
}

impl Chunk {
    fn with(seq: u64, slot: SlotNumber) -> Self {
        let mut chunk = Self::default();
        chunk.push_back(seq, slot);
        chunk
    }

    fn first(&self) -> Option<u64> {
        self.entries.front().map(|entry| self.seq(entry))
    }

    fn last(&self) -> Option<u64> {
        self.entries.back().map(|entry| self.seq(entry))
    }

    fn seq(&self, entry: &Entry) -> u64 {
        self.base + u64::from(entry.delta)
    }

    fn iter(&self) -> impl Iterator<Item = (u64, SlotNumber)> {
        let pair = |entry: &Entry| (self.seq(entry), entry.slot);
        self.entries.iter().map(pair)
    }

    fn search(&self, seq: u64) -> Result<usize, usize> {
        if self.first() == Some(seq) {
            return Ok(0);
        }
        self.entries
            .binary_search_by(|entry| self.seq(entry).cmp(&seq))
    }

    /// Whether there was room for it.
    fn push_back(&mut self, seq: u64, slot: SlotNumber) -> bool {
        if self.entries.is_empty() {
            self.base = seq;
        }
        let Ok(delta) = u32::try_from(seq - self.base) else {
            return false;
        };
        if self.entries.len() == CHUNK_ENTRIES_MAX {
            return false;
        }
        self.grow();
        self.entries.push_back(Entry { delta, slot });
        true
    }

    /// Whether there was room for it, which is before the first entry.
    fn push_front(&mut self, seq: u64, slot: SlotNumber) -> bool {
        let shift = self.base.saturating_sub(seq);
        let span = self.last().map_or(0, |last| last - self.base);
        let (Ok(shift), Ok(_)) = (u32::try_from(shift), u32::try_from(span + shift)) else {
            return false;
        };
        if self.entries.len() == CHUNK_ENTRIES_MAX {
            return false;
        }
        self.grow();
        self.base -= u64::from(shift);
        for entry in &mut self.entries {
            entry.delta += shift;
        }
        self.insert(0, seq, slot);
        true
    }

    /// Inserts an entry whose number is within those of the chunk.
    fn insert(&mut self, place: usize, seq: u64, slot: SlotNumber) {
        let delta =
            u32::try_from(seq - self.base).expect("invariant: a chunk spans less than 2^32");
        self.grow();
        self.entries.insert(place, Entry { delta, slot });
    }

    /// Grows by less than the doubling of the standard library: most of the memory is here.
    fn grow(&mut self) {
        let len = self.entries.len();
        if len == self.entries.capacity() {
            let more = (len / 2).clamp(4, (CHUNK_ENTRIES_MAX - len).max(4));
            self.entries.reserve_exact(more);
        }
    }

    fn split_off_upper_half(&mut self) -> Self {
        let upper = self.entries.split_off(self.entries.len() / 2);
        self.entries.shrink_to_fit();
        Self {
            base: self.base,
            entries: upper,
        }
    }

    fn remove(&mut self, first: u64, last: u64, on_removed: &mut impl FnMut(SlotNumber)) -> usize {
        let from = self.search(first).unwrap_or_else(|place| place);
        let to = self
            .search(last)
            .map_or_else(|place| place, |place| place + 1);
        for entry in self.entries.drain(from..to) {
            on_removed(entry.slot);
        }
        let len = self.entries.len();
        if self.entries.capacity() > 4 * len.max(8) {
            self.entries.shrink_to(2 * len);
        }
        to - from
    }
}

/// 4 KiB.
const CHUNK_ENTRIES_MAX: usize = 512;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u64, SlotNumber),
        Append(u64, SlotNumber),
        InsertRun(u64, u64),
        Remove(u64, u64),
    }

    fn seq() -> impl Strategy<Value = u64> {
        prop_oneof![
            8 => 0..3000_u64,
            1 => any::<u64>(),
            1 => (0..4_u64, 0..100_u64).prop_map(|(high, low)| (high << 32) + low),
        ]
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            4 => (seq(), any::<SlotNumber>()).prop_map(|(seq, slot)| Op::Insert(seq, slot)),
            4 => (0..3_u64, any::<SlotNumber>()).prop_map(|(gap, slot)| Op::Append(gap, slot)),
            2 => (seq(), 0..1500_u64).prop_map(|(seq, count)| Op::InsertRun(seq, count)),
            2 => (seq(), 0..1000_u64).prop_map(|(seq, count)| Op::Remove(seq, count)),
            1 => (seq(), any::<u64>()).prop_map(|(seq, count)| Op::Remove(seq, count)),
        ]
    }

    fn check(
        queue: &Queue,
        model: &BTreeMap<u64, SlotNumber>,
        from: u64,
    ) -> Result<(), TestCaseError> {
        prop_assert_eq!(queue.len(), model.len() as u64);
        prop_assert_eq!(queue.first(), model.keys().next().copied());
        prop_assert_eq!(queue.last(), model.keys().last().copied());
        prop_assert_eq!(queue.at(from), model.get(&from).copied());
        let expected = model.range(from..).map(|(&seq, &slot)| (seq, slot));
        prop_assert!(queue.entries_from(from).eq(expected));
        let is_full = |chunk: &Chunk| chunk.entries.len() <= CHUNK_ENTRIES_MAX;
        prop_assert!(
            queue
                .older
                .iter()
                .all(|chunk| is_full(chunk) && !chunk.entries.is_empty())
        );
        prop_assert!(!queue.tail.entries.is_empty() || model.is_empty());
        Ok(())
    }

    proptest! {
        #[test]
        fn a_queue_is_a_map_from_numbers_to_slots(ops in vec((op(), seq()), 1..60)) {
            let mut queue = Queue::default();
            let mut model = BTreeMap::new();
            for (op, probe) in ops {
                match op {
                    Op::Insert(seq, slot) => {
                        prop_assert_eq!(queue.insert(seq, slot), model.insert(seq, slot));
                    }
                    Op::Append(gap, slot) => {
                        let seq = model.keys().last().map_or(0, |last: &u64| last.saturating_add(1 + gap));
                        prop_assert_eq!(queue.insert(seq, slot), model.insert(seq, slot));
                    }
                    Op::InsertRun(first, count) => {
                        for seq in first..first.saturating_add(count) {
                            prop_assert_eq!(queue.insert(seq, 7), model.insert(seq, 7));
                        }
                    }
                    Op::Remove(first, count) => {
                        let last = first.saturating_add(count);
                        let (mut removed, mut expected) = (Vec::new(), Vec::new());
                        queue.remove(first, last, |slot| removed.push(slot));
                        model.retain(|&seq, &mut slot| {
                            let is_removed = (first..=last).contains(&seq);
                            expected.extend(is_removed.then_some(slot));
                            !is_removed
                        });
                        prop_assert_eq!(removed, expected);
                    }
                }
                check(&queue, &model, probe)?;
            }
        }
    }

    #[test]
    fn moved_messages_that_come_late_fill_their_chunks() {
        let mut queue = Queue::default();
        for seq in (50_001..100_001).chain(1..50_001) {
            assert_eq!(queue.insert(seq, 1), None);
        }
        assert_eq!(queue.len(), 100_000);
        let chunks = queue.older.len() + 1;
        assert!(chunks <= 100_000 / CHUNK_ENTRIES_MAX + 3, "{chunks} chunks");
    }

    #[test]
    fn a_drained_queue_holds_little_memory() {
        let mut queue = Queue::default();
        for seq in 0..100_000 {
            queue.insert(seq, 1);
        }
        queue.remove(0, 99_998, |_| ());
        assert_eq!(queue.first(), Some(99_999));
        assert!(queue.tail.entries.capacity() <= 32);
        assert!(queue.older.capacity() <= 32);
    }
}
