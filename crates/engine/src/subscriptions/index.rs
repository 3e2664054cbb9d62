//! Who wants what, by Topic Filter: those without a wildcard in a table, the others in a tree.
//!
//! Owns: [`Index`], which of both a Topic Filter is in. Does not own: the two (see `plain`, `trie`), answers that are kept
//! (see `cache`). Start reading at [`Index::visit`]. Invariant: what nobody is interested in takes no place.

use super::interest::{Held, Interest};
use super::plain::{PlainFilters, text_hash};
use super::trie::Trie;
use crate::keys::KeyedState;

/// All Topic Filters.
#[derive(Debug)]
pub(super) struct Index {
    plain: PlainFilters,
    pub(super) trie: Trie,
    hash: KeyedState,
}

impl Index {
    /// None yet; names are hashed with `hash`.
    pub(super) fn new(hash: KeyedState) -> Self {
        Self {
            plain: PlainFilters::default(),
            trie: Trie::new(hash.clone()),
            hash,
        }
    }

    /// Calls `found` with each interest whose Topic Filter matches `topic`, in no order a caller may lean on. `hash` is
    /// that of [`text_hash`]. Returns at how many nodes of the tree it has looked. O(that).
    pub(super) fn visit(&mut self, hash: u64, topic: &str, mut found: impl FnMut(Held<'_>)) -> u64 {
        let named = self.plain.interest(hash, topic);
        if !named.is_nobody() {
            found(named);
        }
        self.trie.visit(topic, found)
    }

    /// Who wants what this Topic Filter matches. O(levels).
    pub(super) fn interest(&self, filter: &str) -> Held<'_> {
        if has_wildcard(filter) {
            let id = self.trie.find(filter);
            id.map_or(Held::Nobody, |id| self.trie.interest(id))
        } else {
            self.plain.interest(text_hash(&self.hash, filter), filter)
        }
    }

    /// Changes that. O(levels + log n); the caller limits how many levels a Topic Filter may have.
    pub(super) fn change<R>(&mut self, filter: &str, change: impl FnOnce(&mut Interest) -> R) -> R {
        if has_wildcard(filter) {
            let id = self.trie.find_or_insert(filter);
            let changed = self.trie.change(id, change);
            self.trie.prune(id);
            changed
        } else {
            let hash = text_hash(&self.hash, filter);
            self.plain.change((hash, filter), &self.hash, change)
        }
    }

    /// Bytes of it. O(1).
    pub(super) fn memory_bytes(&self) -> usize {
        self.plain.memory_bytes() + self.trie.memory_bytes()
    }

    /// Nodes of the tree, the root included, names of levels in it, and Topic Filters that are not in it.
    #[cfg(test)]
    pub(super) const fn counts(&self) -> (usize, usize, usize) {
        (
            self.trie.node_count(),
            self.trie.level_count(),
            self.plain.len(),
        )
    }
}

/// Whether a Topic Filter matches more than the Topic Name that it is.
pub(super) fn has_wildcard(filter: &str) -> bool {
    filter.contains(['+', '#'])
}
