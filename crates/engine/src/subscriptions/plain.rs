//! The Topic Filters without a wildcard: each matches one Topic Name, and is found by its whole text at once.
//!
//! Owns: [`PlainFilters`], their texts. Does not own: those with a wildcard (see `trie`), what an interest means (see
//! `interest`). Start reading at [`PlainFilters::interest`]. Invariant: what is here is of interest to somebody.

use super::interest::{Held, Holder, Interest, Interests};
use crate::keys::KeyedState;
use crate::parted_table::PartedTable;

/// A table of them. A lookup touches a line of the table, an entry and a text, however many there are: beyond the caches of
/// the processor it is these that cost.
#[derive(Debug, Default)]
pub(super) struct PlainFilters {
    by_text: PartedTable<PlainFilter>,
    interests: Interests,
    text_bytes: usize,
}

/// In 24 bytes, for there may be millions of them.
#[derive(Debug)]
struct PlainFilter {
    text: Box<str>,
    holder: Holder,
}

impl PlainFilters {
    /// Who wants what is published to `name`, whose hash is `hash`. O(length of it).
    pub(super) fn interest(&self, hash: u64, name: &str) -> Held<'_> {
        // [MQTT-4.7.3-4] Compared byte by byte, nothing normalised.
        let found = self.by_text.find(hash, |filter| *filter.text == *name);
        found.map_or(Held::Nobody, |filter| self.interests.of(filter.holder))
    }

    /// Changes that; nobody's interest takes no place. O(length of it).
    pub(super) fn change<R>(
        &mut self,
        (hash, name): (u64, &str),
        state: &KeyedState,
        change: impl FnOnce(&mut Interest) -> R,
    ) -> R {
        let is_it = |filter: &PlainFilter| *filter.text == *name;
        let hash_of = |filter: &PlainFilter| text_hash(state, &filter.text);
        if let Some(filter) = self.by_text.find_mut(hash, is_it) {
            let changed = self.interests.change(&mut filter.holder, change);
            if filter.holder.is_nobody() {
                self.by_text.remove(hash, is_it, hash_of);
                self.text_bytes -= name.len();
            }
            return changed;
        }
        let mut holder = Holder::NOBODY;
        let changed = self.interests.change(&mut holder, change);
        if !holder.is_nobody() {
            let text = name.into();
            let filter = PlainFilter { text, holder };
            self.by_text.insert_unique(hash, filter, hash_of);
            self.text_bytes += name.len();
        }
        changed
    }

    /// Bytes of it. O(1).
    pub(super) fn memory_bytes(&self) -> usize {
        self.by_text.memory_bytes() + self.interests.memory_bytes() + self.text_bytes
    }

    #[cfg(test)]
    pub(super) const fn len(&self) -> usize {
        self.by_text.len()
    }
}

/// The hash of a Topic Name, or of a Topic Filter without a wildcard.
pub(super) fn text_hash(state: &KeyedState, text: &str) -> u64 {
    use std::hash::BuildHasher as _;
    state.hash_one(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_takes_24_bytes() {
        assert!(size_of::<PlainFilter>() <= 24);
    }
}
