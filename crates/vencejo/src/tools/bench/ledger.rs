//! Which messages have come: for the first time, again, or behind later ones.
//!
//! Owns: [`Seen`], [`Receiver`], [`Book`], what a message carries ([`Mark`]). Does not own: sockets, clocks.
//! Start reading at [`Receiver::hear`]. Invariant: a message counts as come at most once, however often it comes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// What a payload begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// Of this run, so that messages of another are known as such.
    pub(super) run: u32,
    pub(super) sender: u32,
    pub(super) sequence: u64,
}

impl Mark {
    /// A payload of `size` bytes that begins with it.
    pub(super) fn payload(self, size: usize) -> Vec<u8> {
        let mut payload = Vec::with_capacity(size.max(MARK_BYTES));
        payload.extend_from_slice(&self.run.to_le_bytes());
        payload.extend_from_slice(&self.sender.to_le_bytes());
        payload.extend_from_slice(&self.sequence.to_le_bytes());
        payload.resize(size.max(MARK_BYTES), b'.');
        payload
    }

    /// The mark of a payload; `None` if there is none.
    pub(super) fn of(payload: &[u8]) -> Option<Self> {
        let (run, rest) = payload.split_first_chunk()?;
        let (sender, rest) = rest.split_first_chunk()?;
        let (sequence, _) = rest.split_first_chunk()?;
        Some(Self {
            run: u32::from_le_bytes(*run),
            sender: u32::from_le_bytes(*sender),
            sequence: u64::from_le_bytes(*sequence),
        })
    }
}

/// The least payload that has room for a [`Mark`].
pub(super) const MARK_BYTES: usize = 16;

/// Numbers that have come, as ranges: one, where nothing is missing.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// First of a range -> the number behind its last.
    ranges: BTreeMap<u64, u64>,
}

impl Seen {
    /// Whether it has not come before.
    pub(super) fn add(&mut self, number: u64) -> bool {
        let before = self.ranges.range_mut(..=number).next_back();
        let behind = number.saturating_add(1);
        let joined = match before {
            Some((_, end)) if number < *end => return false,
            Some((first, end)) if number == *end => {
                *end = behind;
                *first
            }
            _ => {
                self.ranges.insert(number, behind);
                number
            }
        };
        // The gap to the next range may be closed now.
        if let Some(end) = self.ranges.remove(&behind) {
            self.ranges.insert(joined, end);
        }
        true
    }
}

/// What came, by sender.
#[derive(Debug, Default)]
pub(super) struct Book(HashMap<u32, Seen>);

/// A book that one receiver has, or that those of a Shared Subscription have together.
pub(super) type Shelf = Arc<Mutex<Book>>;

/// What a message is to its receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It comes for the first time.
    First {
        /// One that was sent later has come before.
        is_overtaken: bool,
    },
    /// It has come before, here or to another of the group.
    Repeated,
}

/// One subscriber.
#[derive(Debug)]
pub(super) struct Receiver {
    shelf: Shelf,
    highest: HashMap<u32, u64>,
}

impl Receiver {
    pub(super) fn new(shelf: Shelf) -> Self {
        Self {
            shelf,
            highest: HashMap::new(),
        }
    }

    /// A message comes.
    pub(super) fn hear(&mut self, sender: u32, sequence: u64) -> Arrival {
        let mut book = self.shelf.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = book.0.entry(sender).or_default().add(sequence);
        drop(book);
        if !is_new {
            return Arrival::Repeated;
        }
        let highest = self.highest.entry(sender).or_insert(sequence);
        let is_overtaken = sequence < *highest;
        *highest = sequence.max(*highest);
        Arrival::First { is_overtaken }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_seen_once_in_any_order() {
        // Random orders, some numbers twice, against a plain list.
        for seed in 0..200_u64 {
            let mut random = seed;
            let (mut seen, mut plain) = (Seen::default(), Vec::new());
            for _ in 0..300 {
                random = random
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let number = (random >> 33) % 128;
                assert_eq!(seen.add(number), !plain.contains(&number), "seed {seed}");
                if !plain.contains(&number) {
                    plain.push(number);
                }
                let count: u64 = seen.ranges.iter().map(|(first, end)| end - first).sum();
                assert_eq!(count, plain.len() as u64, "seed {seed}");
            }
        }
    }

    #[test]
    fn a_stream_without_gaps_is_one_range() {
        let mut seen = Seen::default();
        for number in [0, 1, 2, 5, 4, 3, 6] {
            assert!(seen.add(number));
        }
        assert_eq!(seen.ranges, BTreeMap::from([(0, 7)]));
        assert!(seen.add(u64::MAX - 1));
    }

    #[test]
    fn what_comes_twice_or_late_is_known_as_such() {
        let mut receiver = Receiver::new(Shelf::default());
        let first = |is_overtaken| Arrival::First { is_overtaken };
        assert_eq!(receiver.hear(7, 0), first(false));
        assert_eq!(receiver.hear(7, 2), first(false));
        assert_eq!(receiver.hear(7, 2), Arrival::Repeated);
        assert_eq!(receiver.hear(7, 1), first(true));
        // The same number of another sender is another message.
        assert_eq!(receiver.hear(8, 2), first(false));
    }

    #[test]
    fn members_of_a_group_share_what_has_come() {
        let shelf = Shelf::default();
        let mut members = [Receiver::new(Arc::clone(&shelf)), Receiver::new(shelf)];
        let first = Arrival::First {
            is_overtaken: false,
        };
        assert_eq!(members[0].hear(0, 1), first);
        // Between two members there is no order.
        assert_eq!(members[1].hear(0, 0), first);
        assert_eq!(members[1].hear(0, 1), Arrival::Repeated);
    }

    #[test]
    fn a_mark_is_read_from_its_payload_only() {
        let mark = Mark {
            run: 3,
            sender: 4,
            sequence: u64::MAX,
        };
        for size in [0, MARK_BYTES, 100] {
            let payload = mark.payload(size);
            assert_eq!(
                (Mark::of(&payload), payload.len()),
                (Some(mark), size.max(MARK_BYTES))
            );
        }
        assert_eq!(Mark::of(&[0; 15]), None);
    }
}
