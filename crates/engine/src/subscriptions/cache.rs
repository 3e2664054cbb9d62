//! The answers for recent Topic Names, dropped when a change could change them.
//!
//! Owns: [`Cache`], [`PublisherMemo`], which answers a change makes old. Does not own: how an answer is worked out (see
//! `matches`). Start reading at [`Cache::find`].
//! Invariants: it never holds more than [`CACHED_TOPICS_MAX`] and [`CACHED_BYTES_MAX`], except one single entry larger
//! than that; what a change costs does not grow with what is kept, so an answer that is old may stay until its place is
//! wanted, and is never given.

use std::rc::{Rc, Weak};

use super::index::has_wildcard;
use super::matches::Matches;
use super::plain::text_hash;
use super::trie::first_level_bytes;
use crate::keys::KeyedState;
use crate::parted_table::{Cursor, PartedTable};

/// A publisher's last [`Matches`], so that its next message on the same Topic Name looks nothing
/// up. Does not keep it alive: dropped by the cache is dropped.
#[derive(Clone, Debug, Default)]
pub(crate) struct PublisherMemo(Weak<Matches>);

impl PublisherMemo {
    /// Remembers `matches`.
    pub(crate) fn remember(&mut self, matches: &Rc<Matches>) {
        self.0 = Rc::downgrade(matches);
    }

    /// What was remembered, if it is about `topic`. O(topic length).
    pub(super) fn recall(&self, topic: &str) -> Option<Rc<Matches>> {
        self.0.upgrade().filter(|matches| matches.topic() == topic)
    }
}

/// When an answer was worked out: the changes until then that could have changed it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    /// By the first level of the topic.
    bucket: usize,
    changes: u64,
}

/// The [`Matches`] of recent Topic Names.
#[derive(Debug)]
pub(super) struct Cache {
    by_topic: PartedTable<Rc<Matches>>,
    /// Where the next to leave is looked for.
    next_to_leave: Cursor,
    /// Marks of topics that found no place, by their hash; none before there was a crowd once.
    unplaced: Box<[u32]>,
    /// Answers that were not found, round and round.
    asked: u32,
    /// Whether there are some that are old: there was a change, or the last look has found one.
    is_aged: bool,
    bytes: usize,
    /// Changes that concern all topics.
    changes: u64,
    /// Changes that concern the topics under one first level, by its hash; several first levels may share a place.
    changes_under: Box<[u64]>,
    limits: CacheLimits,
    hash: KeyedState,
}

/// How much a [`Cache`] holds.
#[derive(Clone, Copy, Debug)]
pub(super) struct CacheLimits {
    pub(super) topics_max: usize,
    pub(super) bytes_max: usize,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self {
            topics_max: CACHED_TOPICS_MAX,
            bytes_max: CACHED_BYTES_MAX,
        }
    }
}

impl Cache {
    pub(super) fn new(hash: KeyedState, limits: CacheLimits) -> Self {
        Self {
            by_topic: PartedTable::default(),
            next_to_leave: Cursor::default(),
            unplaced: Box::default(),
            asked: 0,
            is_aged: false,
            bytes: 0,
            changes: 0,
            changes_under: vec![0; FIRST_LEVELS].into_boxed_slice(),
            limits,
            hash,
        }
    }

    /// The answer for `topic`, whose hash is `hash`, if it is known and still the truth. O(topic length).
    pub(super) fn find(&self, hash: u64, topic: &str) -> Option<&Rc<Matches>> {
        let is_it = |matches: &Rc<Matches>| matches.topic() == topic;
        let found = self.by_topic.find(hash, is_it)?;
        self.is_current(found).then_some(found)
    }

    /// Whether an answer is kept and still the truth: no change since could have changed it. O(1).
    pub(super) fn is_current(&self, matches: &Matches) -> bool {
        let Stamp { bucket, changes } = matches.stamp();
        matches.is_kept() && changes == self.changes_of(bucket)
    }

    /// The stamp of an answer for `topic` that is worked out now.
    pub(super) fn stamp(&self, topic: &str) -> Stamp {
        let bucket = self.bucket_of(topic);
        Stamp {
            bucket,
            changes: self.changes_of(bucket),
        }
    }

    /// Whether an answer that is not found is to be kept, and makes room for it then. When there are many, of a topic that
    /// was asked for lately, too: others go by too fast to be found again, would take memory for nothing, and push out those
    /// that are.
    pub(super) fn make_room(&mut self, hash: u64, matches: &Matches) -> bool {
        // An old answer.
        self.remove(hash, matches.topic());
        self.asked = self.asked.wrapping_add(1);
        // To look at one costs more than a small answer: it lies where nobody has been for long.
        if self.is_aged || self.asked.is_multiple_of(ASKED_PER_LOOK) {
            let before = self.by_topic.len();
            for _ in 0..OLD_LOOKED_FOR {
                self.drop_next_if(|cache, next| !cache.is_current(next));
            }
            self.is_aged = self.by_topic.len() < before;
        }
        let bytes = matches.memory_bytes();
        let is_crowded = self.by_topic.len() >= CROWD || self.is_over(bytes);
        if is_crowded && !self.was_asked_for(hash) {
            return false;
        }
        while self.is_over(bytes) {
            self.drop_next_if(|_, _| true);
        }
        true
    }

    /// Keeps an answer for which there is room.
    pub(super) fn insert(&mut self, hash: u64, matches: &Rc<Matches>) {
        self.bytes += matches.memory_bytes();
        matches.keep(true);
        let hash_of = |matches: &Rc<Matches>| text_hash(&self.hash, matches.topic());
        self.by_topic
            .insert_unique(hash, Rc::clone(matches), hash_of);
    }

    /// Makes old what a change to the Subscriptions of `filter` could change: without a wildcard, its own topic; with a
    /// named first level, the topics under that; else all. O(levels).
    pub(super) fn invalidate(&mut self, filter: &str) {
        if !has_wildcard(filter) {
            return self.remove(text_hash(&self.hash, filter), filter);
        }
        if filter.starts_with(['+', '#']) {
            return self.clear();
        }
        let bucket = self.bucket_of(filter);
        if let Some(changes) = self.changes_under.get_mut(bucket) {
            *changes += 1;
        }
        self.is_aged = true;
    }

    /// Makes all of them old. O(1).
    pub(super) const fn clear(&mut self) {
        self.changes += 1;
        self.is_aged = true;
    }

    /// Those that are old and still there included.
    #[cfg(test)]
    pub(super) const fn len(&self) -> usize {
        self.by_topic.len()
    }

    /// Bytes of it.
    pub(super) fn memory_bytes(&self) -> usize {
        self.bytes
            + size_of_val(&*self.unplaced)
            + size_of_val(&*self.changes_under)
            + self.by_topic.memory_bytes()
    }

    fn changes_of(&self, bucket: usize) -> u64 {
        // Both only grow: with the same sum both are the same.
        self.changes + self.changes_under.get(bucket).copied().unwrap_or(0)
    }

    /// The place of the first level of a Topic Name or Filter.
    fn bucket_of(&self, topic: &str) -> usize {
        let len = first_level_bytes(topic.as_bytes());
        let first = topic.get(..len).unwrap_or_default();
        let hash = text_hash(&self.hash, first) % FIRST_LEVELS as u64;
        usize::try_from(hash).unwrap_or(0)
    }

    /// Whether there is no room for so many bytes more.
    const fn is_over(&self, bytes: usize) -> bool {
        let is_empty = self.by_topic.len() == 0;
        !is_empty
            && (self.by_topic.len() >= self.limits.topics_max
                || self.bytes + bytes > self.limits.bytes_max)
    }

    /// Whether the topic of this hash has found no place lately; it has now.
    fn was_asked_for(&mut self, hash: u64) -> bool {
        if self.unplaced.is_empty() {
            self.unplaced = vec![0; UNPLACED_MARKS].into_boxed_slice();
        }
        let place = usize::try_from(hash % UNPLACED_MARKS as u64).unwrap_or(0);
        // From other bits than the place, and never the mark of none.
        let mark = u32::try_from(hash >> 32).unwrap_or(0) | 1;
        self.unplaced
            .get_mut(place)
            .is_some_and(|known| std::mem::replace(known, mark) == mark)
    }

    /// Looks at the next one, round and round.
    fn drop_next_if(&mut self, is_to_go: impl Fn(&Self, &Matches) -> bool) {
        let Some(next) = self.by_topic.next_of(&mut self.next_to_leave) else {
            return;
        };
        if is_to_go(self, next) {
            let next = Rc::clone(next);
            self.remove(text_hash(&self.hash, next.topic()), next.topic());
        }
    }

    fn remove(&mut self, hash: u64, topic: &str) {
        let is_it = |matches: &Rc<Matches>| matches.topic() == topic;
        let hash_of = |matches: &Rc<Matches>| text_hash(&self.hash, matches.topic());
        if let Some(matches) = self.by_topic.remove(hash, is_it, hash_of) {
            self.bytes -= matches.memory_bytes();
            matches.keep(false);
        }
    }
}

/// Places for the changes under one first level.
const FIRST_LEVELS: usize = 1024;
/// With an answer that comes so many are looked at, and go if they are old.
const OLD_LOOKED_FOR: usize = 2;
/// That is done for one of so many answers, where the last look has found none that was old.
const ASKED_PER_LOOK: u32 = 16;
/// With so many topics another one finds a place when it is asked for again.
const CROWD: usize = 4096;
/// Topics that found no place and are remembered. Fewer than are kept: of more topics than these two together hardly one
/// that comes would be met again before it has to leave.
const UNPLACED_MARKS: usize = 16_384;

/// The cache keeps at most this many Topic Names.
pub(crate) const CACHED_TOPICS_MAX: usize = 65_536;

/// The cache keeps at most about this many bytes.
pub(crate) const CACHED_BYTES_MAX: usize = 32 << 20;
