//! What the index has of one Retained Message beside the message.
//!
//! Owns: [`Entry`], how it is packed. Does not own: what a stamp decides (see the parent). Start reading at [`Entry::new`].
//! Invariant: an entry has 14 bytes, and gives back what it was made of.

use super::Stamp;
use crate::keys::ShardIndex;

/// What is known about one Retained Message beside itself, in 14 bytes: with two more a node of the index would take the
/// next size that allocators have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    counter: Small,
    shard: ShardIndex,
    /// The number of its write among those that took effect in this shard.
    arrival: Small,
}

/// A number in six bytes: enough for two million writes a second over four years.
#[derive(Clone, Copy, Debug)]
pub(super) struct Small([u16; 3]);

impl Small {
    pub(super) const MAX: u64 = (1 << 48) - 1;

    /// What is larger is the largest: no clock of ours gets there.
    const fn new(number: u64) -> Self {
        let number = if number > Self::MAX {
            Self::MAX
        } else {
            number
        };
        let [_, _, sixth, fifth, fourth, third, second, first] = number.to_be_bytes();
        Self([
            u16::from_be_bytes([sixth, fifth]),
            u16::from_be_bytes([fourth, third]),
            u16::from_be_bytes([second, first]),
        ])
    }

    fn number(self) -> u64 {
        let Self(parts) = self;
        parts
            .iter()
            .fold(0, |all, &part| all << 16 | u64::from(part))
    }
}

impl Entry {
    pub(super) const fn new(stamp: Stamp, arrival: u64) -> Self {
        Self {
            counter: Small::new(stamp.counter),
            shard: stamp.shard,
            arrival: Small::new(arrival),
        }
    }

    pub(super) fn stamp(&self) -> Stamp {
        Stamp {
            counter: self.counter.number(),
            shard: self.shard,
        }
    }

    pub(super) fn arrival(&self) -> u64 {
        self.arrival.number()
    }
}
