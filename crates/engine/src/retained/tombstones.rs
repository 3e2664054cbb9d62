//! Removals that are remembered, so that an older write that comes late does not undo them.
//!
//! Owns: [`Tombstones`], how many there are. Does not own: which write is the later one (see the parent). Start reading at
//! [`Tombstones::insert`]. Invariant: their number and their topics are bounded.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;

use super::Stamp;
use crate::keys::KeyedState;
use crate::sessions::map_bytes;

/// Removals a late older write must not undo. Only the most recent: writes cross between two shards
/// in order and within a few turns, so a removal this many removals ago has met them all.
#[derive(Debug)]
pub(super) struct Tombstones {
    pub(super) by_topic: HashMap<Arc<str>, Stamp, KeyedState>,
    /// Oldest first; with entries that `by_topic` has since replaced or dropped.
    pub(super) order: VecDeque<(Arc<str>, Stamp)>,
    pub(super) topic_bytes: usize,
    max: usize,
}

impl Tombstones {
    pub(super) fn new(max: usize, hash: KeyedState) -> Self {
        Self {
            by_topic: HashMap::with_hasher(hash),
            order: VecDeque::new(),
            topic_bytes: 0,
            max,
        }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.topic_bytes
            + self.order.len() * ARC_OVERHEAD_BYTES
            + self.order.capacity() * size_of::<(Arc<str>, Stamp)>()
            + map_bytes(self.by_topic.capacity(), size_of::<(Arc<str>, Stamp)>())
    }

    pub(super) fn find(&self, topic: &str) -> Option<Stamp> {
        self.by_topic.get(topic).copied()
    }

    pub(super) fn insert(&mut self, topic: &str, stamp: Stamp) {
        if self.max == 0 {
            return;
        }
        while self.order.len() >= self.max || self.topic_bytes > TOMBSTONE_TOPIC_BYTES_MAX {
            let Some((oldest, of)) = self.order.pop_front() else {
                break;
            };
            self.topic_bytes -= oldest.len();
            if self.find(&oldest) == Some(of) {
                self.by_topic.remove(&oldest);
            }
        }
        self.topic_bytes += topic.len();
        let topic: Arc<str> = topic.into();
        self.by_topic.insert(Arc::clone(&topic), stamp);
        self.order.push_back((topic, stamp));
    }

    pub(super) fn remove(&mut self, topic: &str) {
        self.by_topic.remove(topic);
    }
}

/// Most removals remembered.
pub(super) const TOMBSTONES_MAX: usize = 4_096;

/// Bytes of topics after which removals are forgotten earlier.
pub(super) const TOMBSTONE_TOPIC_BYTES_MAX: usize = 1 << 20;

/// The two counts of an `Arc`.
const ARC_OVERHEAD_BYTES: usize = 16;
