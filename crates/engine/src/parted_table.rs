//! A hash table that grows and shrinks by parts, so that no insertion moves more than one of them.
//!
//! Owns: [`PartedTable`]. Does not own: hashes, which the caller makes, nor what is equal. Start reading at
//! [`PartedTable::insert_unique`]. Invariants: there are so many parts that one holds [`MEAN`] entries or less, on average;
//! an entry is in the part that [`place_of`] names (linear hashing: with one part more, that of one place is divided).

use hashbrown::HashTable;

/// Entries that are found by a hash. Uses other bits of it for the part than the part does inside.
#[derive(Debug)]
pub(crate) struct PartedTable<T> {
    parts: Vec<HashTable<T>>,
    len: usize,
    /// Bytes of all parts.
    bytes: usize,
}

/// Where in a table somebody is who goes round and round in it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cursor {
    part: usize,
    bucket: usize,
}

impl<T> Default for PartedTable<T> {
    fn default() -> Self {
        Self {
            parts: vec![HashTable::new()],
            len: 0,
            bytes: 0,
        }
    }
}

impl<T> PartedTable<T> {
    /// Bytes of it. O(1).
    pub(crate) fn memory_bytes(&self) -> usize {
        self.parts.capacity() * size_of::<HashTable<T>>() + self.bytes
    }

    /// How many entries there are.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// O(1).
    pub(crate) fn find(&self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&T> {
        let part = self.parts.get(place_of(hash, self.parts.len()))?;
        part.find(hash, is_it)
    }

    /// The same, to be changed in what its hash does not depend on. O(1).
    pub(crate) fn find_mut(&mut self, hash: u64, is_it: impl FnMut(&T) -> bool) -> Option<&mut T> {
        let place = place_of(hash, self.parts.len());
        self.parts.get_mut(place)?.find_mut(hash, is_it)
    }

    /// Takes an entry that is not there yet; `hash_of` says the hash of one that is. O(1), and now and then O(entries of a
    /// part).
    pub(crate) fn insert_unique(&mut self, hash: u64, entry: T, hash_of: impl Fn(&T) -> u64) {
        let place = place_of(hash, self.parts.len());
        let part = self.parts.get_mut(place);
        let part = part.expect("invariant: a place is that of a part");
        self.bytes -= part.allocation_size();
        part.insert_unique(hash, entry, &hash_of);
        self.bytes += part.allocation_size();
        self.len += 1;
        if self.len > self.parts.len() * MEAN {
            self.divide(&hash_of);
        }
    }

    /// Takes one away. O(1), and moves as many as an insertion.
    pub(crate) fn remove(
        &mut self,
        hash: u64,
        is_it: impl FnMut(&T) -> bool,
        hash_of: impl Fn(&T) -> u64,
    ) -> Option<T> {
        let place = place_of(hash, self.parts.len());
        let part = self.parts.get_mut(place)?;
        let (entry, _) = part.find_entry(hash, is_it).ok()?.remove();
        let buckets = part.num_buckets();
        if buckets > KEPT_MAX && part.len() < buckets / 4 {
            self.bytes -= part.allocation_size();
            part.shrink_to(part.len() * 2, &hash_of);
            self.bytes += part.allocation_size();
        }
        self.len -= 1;
        if self.parts.len() > 1 && self.len < self.parts.len() * (MEAN / 4) {
            self.unite(&hash_of);
        }
        Some(entry)
    }

    /// The entry at `cursor` or behind it, after the last one the first; `cursor` is behind it then. None is left out for
    /// ever, and what comes meanwhile may be met or not. O(1) on average.
    pub(crate) fn next_of(&self, cursor: &mut Cursor) -> Option<&T> {
        if self.len == 0 {
            return None;
        }
        // Twice, since it begins in the middle.
        for _ in 0..=2 * self.parts.len() {
            let part = self.parts.get(cursor.part);
            while let Some(part) = part.filter(|part| cursor.bucket < part.num_buckets()) {
                let entry = part.get_bucket(cursor.bucket);
                cursor.bucket += 1;
                if entry.is_some() {
                    return entry;
                }
            }
            let next = (cursor.part + 1) % self.parts.len();
            (cursor.part, cursor.bucket) = (next, 0);
        }
        None
    }

    /// One part more: takes from the part whose turn it is what belongs there.
    fn divide(&mut self, hash_of: &impl Fn(&T) -> u64) {
        let new = self.parts.len();
        let from = self.parts.get_mut(of_fewer(new));
        let from = from.expect("invariant: the part to divide is there");
        let before = from.allocation_size();
        let all = std::mem::take(from);
        let is_leaving = |entry: &&T| place_of(hash_of(entry), new + 1) == new;
        let leaving = all.iter().filter(is_leaving).count();
        let mut part = HashTable::with_capacity(leaving);
        let mut rest = HashTable::with_capacity(all.len() - leaving);
        for entry in all {
            let hash = hash_of(&entry);
            let is_leaving = place_of(hash, new + 1) == new;
            let place = if is_leaving { &mut part } else { &mut rest };
            place.insert_unique(hash, entry, hash_of);
        }
        self.bytes = self.bytes - before + part.allocation_size() + rest.allocation_size();
        *from = rest;
        self.parts.push(part);
    }

    /// One part less: the last one goes back to where it came from.
    fn unite(&mut self, hash_of: &impl Fn(&T) -> u64) {
        let Some(last) = self.parts.pop() else {
            return;
        };
        let came_from = of_fewer(self.parts.len());
        let to = self.parts.get_mut(came_from);
        let to = to.expect("invariant: it came from a part that is there");
        self.bytes -= last.allocation_size() + to.allocation_size();
        to.reserve(last.len(), hash_of);
        for entry in last {
            let hash = hash_of(&entry);
            to.insert_unique(hash, entry, hash_of);
        }
        self.bytes += to.allocation_size();
        self.parts.shrink_to(self.parts.len() * 4);
    }
}

/// Where an entry is if there are so many parts.
fn place_of(hash: u64, parts: usize) -> usize {
    // A part takes the lowest bits and the seven highest.
    let bits = usize::try_from(hash >> 24 & u64::from(u32::MAX)).unwrap_or(0);
    let mask = parts.next_power_of_two() - 1;
    let place = bits & mask;
    if place < parts {
        place
    } else {
        place & mask >> 1
    }
}

/// The part that has what belongs to part `number` before there is that.
const fn of_fewer(number: usize) -> usize {
    match number.checked_ilog2() {
        Some(highest) => number - (1 << highest),
        None => 0,
    }
}

/// Entries of a part, on average; the largest part has twice as many. Some less than the 448 and 896 that tables have room
/// for, or half of the parts would have just too many.
const MEAN: usize = 384;
/// So much room a part keeps though it is not used.
const KEPT_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// SplitMix64.
    fn hash(number: u32) -> u64 {
        let mixed = u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn insert(table: &mut PartedTable<u32>, number: u32) {
        table.insert_unique(hash(number), number, |number| hash(*number));
    }

    fn remove(table: &mut PartedTable<u32>, number: u32) -> Option<u32> {
        table.remove(hash(number), |it| *it == number, |number| hash(*number))
    }

    #[test]
    fn no_insertion_and_no_removal_moves_more_than_a_part_or_two() {
        let mut table = PartedTable::default();
        let (moved, mut most) = (std::cell::Cell::new(0), 0);
        let counted = |number: &u32| {
            moved.set(moved.get() + 1);
            hash(*number)
        };
        for number in 0..60_000_u32 {
            table.insert_unique(hash(number), number, counted);
            most = most.max(moved.take());
        }
        for number in 0..60_000_u32 {
            let removed = table.remove(hash(number), |it| *it == number, counted);
            assert_eq!(removed, Some(number));
            most = most.max(moved.take());
        }
        assert!(most < 8 * MEAN, "{most}");
        assert_eq!((table.len(), table.parts.len()), (0, 1));
        assert!(table.memory_bytes() < 10_000, "{}", table.memory_bytes());
    }

    #[test]
    fn entry_of_four_bytes_takes_eleven_at_most_in_a_large_table() {
        let mut table = PartedTable::default();
        for number in 0..200_000 {
            insert(&mut table, number);
            if number > 10_000 {
                let each = table.memory_bytes() * 10 / table.len();
                assert!(each <= 110, "{each} tenths of a byte with {number}");
            }
        }
    }

    proptest! {
        #[test]
        fn parted_table_is_a_set(
            spans in proptest::collection::vec((any::<bool>(), 0..3_000_u32, 0..3_000_u32), 1..6),
        ) {
            let (mut table, mut model) = (PartedTable::default(), BTreeSet::new());
            for (is_in, from, len) in spans {
                for number in from..from + len {
                    if is_in && model.insert(number) {
                        insert(&mut table, number);
                    } else if !is_in {
                        prop_assert_eq!(remove(&mut table, number).is_some(), model.remove(&number));
                    }
                }
                prop_assert_eq!(table.len(), model.len());
                let bytes: usize = table.parts.iter().map(HashTable::allocation_size).sum();
                prop_assert_eq!(table.bytes, bytes);
                let (mut cursor, mut met) = (Cursor::default(), BTreeSet::new());
                (0..table.len()).for_each(|_| met.extend(table.next_of(&mut cursor)));
                prop_assert_eq!(&met, &model);
                for number in (0..6_000).step_by(7) {
                    let found = table.find(hash(number), |it| *it == number);
                    prop_assert_eq!(found.is_some(), model.contains(&number));
                }
            }
        }
    }
}
