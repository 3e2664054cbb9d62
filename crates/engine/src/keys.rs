//! Names for things inside one Server: sessions, connections, shards; and the keyed hash.
//!
//! Owns: [`SessionKey`], [`ConnectionKey`], [`ShardIndex`], [`ShardSet`], [`KeyedState`].
//! Does not own: what they name. Start reading at [`ShardSet`].
//! Invariant: a map whose keys strangers choose hashes them with a secret seed, [`keyed_state`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use foldhash::SharedSeed;
use foldhash::quality::SeedableRandomState;

/// A Session of this shard: its place in the slab of sessions. Used again after the Session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionKey(pub u32);

/// A Network Connection of this shard. The caller chooses it and never uses one again while
/// anything may still speak of the old one: slab index in the low 32 bits, generation above.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionKey(pub u64);

/// A shard of this Server, counted from zero; less than [`SHARD_COUNT_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardIndex(pub u16);

impl fmt::Display for ShardIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of shards, as a bit mask; iterates in ascending order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ShardSet(u64);

impl ShardSet {
    /// No shard.
    pub(crate) const EMPTY: Self = Self(0);

    /// Adds `shard`; returns whether it was not in the set.
    /// # Panics
    /// `shard` is not less than [`SHARD_COUNT_MAX`].
    pub(crate) const fn insert(&mut self, shard: ShardIndex) -> bool {
        let before = self.0;
        self.0 |= bit(shard);
        self.0 != before
    }

    /// Takes `shard` out; returns whether it was in the set.
    /// # Panics
    /// `shard` is not less than [`SHARD_COUNT_MAX`].
    pub(crate) const fn remove(&mut self, shard: ShardIndex) -> bool {
        let before = self.0;
        self.0 &= !bit(shard);
        self.0 != before
    }

    /// Whether `shard` is in the set.
    /// # Panics
    /// `shard` is not less than [`SHARD_COUNT_MAX`].
    pub(crate) const fn contains(self, shard: ShardIndex) -> bool {
        self.0 & bit(shard) != 0
    }

    /// The shards in either set.
    pub(crate) const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The shards that are not in `other`.
    pub(crate) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether no shard is in the set.
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// How many shards are in the set.
    #[cfg(test)]
    pub(crate) const fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// The shards in the set, ascending. O(these).
    pub(crate) fn iter(self) -> impl Iterator<Item = ShardIndex> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let lowest = u16::try_from(left.trailing_zeros()).ok()?;
            left &= left.checked_sub(1)?;
            Some(ShardIndex(lowest))
        })
    }
}

impl FromIterator<ShardIndex> for ShardSet {
    fn from_iter<I: IntoIterator<Item = ShardIndex>>(shards: I) -> Self {
        let mut set = Self::EMPTY;
        for shard in shards {
            set.insert(shard);
        }
        set
    }
}

const fn bit(shard: ShardIndex) -> u64 {
    assert!(
        shard.0 < SHARD_COUNT_MAX,
        "invariant: a shard index is less than SHARD_COUNT_MAX"
    );
    1 << shard.0
}

/// How this crate hashes strings that strangers choose.
pub(crate) type KeyedState = SeedableRandomState;

/// The hash keyed by `seed`; equal seeds hash alike.
///
/// The whole state follows from `seed`, not only the part mixed in per map: with the public
/// constants of the crate, inputs that collide under every seed can be written down.
/// The crate wants that state for the life of the process, so one is kept per seed ever used.
pub(crate) fn keyed_state(seed: u64) -> KeyedState {
    static SHARED: Mutex<BTreeMap<u64, &'static SharedSeed>> = Mutex::new(BTreeMap::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    let state = *shared
        .entry(seed)
        .or_insert_with(|| Box::leak(Box::new(SharedSeed::from_u64(seed))));
    KeyedState::with_seed(seed, state)
}

/// A Server has at most this many shards: the bits of a shard set.
pub const SHARD_COUNT_MAX: u16 = 64;

#[cfg(test)]
mod tests {
    use std::hash::BuildHasher;

    use super::*;

    #[test]
    fn shard_set_holds_the_first_and_the_last_shard_in_order() {
        let mut set = ShardSet::EMPTY;
        assert!(set.insert(ShardIndex(63)));
        assert!(set.insert(ShardIndex(0)));
        assert!(!set.insert(ShardIndex(0)));
        assert_eq!(
            set.iter().collect::<Vec<_>>(),
            [ShardIndex(0), ShardIndex(63)]
        );
        assert!(set.remove(ShardIndex(0)));
        assert_eq!(set, [ShardIndex(63)].into_iter().collect());
        assert_eq!(set.len(), 1);
    }

    #[test]
    fn equal_seeds_hash_alike_and_others_do_not() {
        assert_eq!(
            keyed_state(7).hash_one("a/b"),
            keyed_state(7).hash_one("a/b")
        );
        assert_ne!(
            keyed_state(7).hash_one("a/b"),
            keyed_state(8).hash_one("a/b")
        );
    }
}
