//! Keyed hashes that stand for text.
//!
//! Owns: [`HashKeys`]. Does not own: what is done with equal hashes: they are taken for equal text.
//! Start reading at [`HashKeys`]. Invariant: the keys are secret, so nobody can make two texts collide; by
//! chance, 128 bits collide among 10^9 topics, and 64 bits among 10^4 filters of a Session, less than once in 10^11 cases.

use siphasher::sip128::SipHasher13;

/// Keys of the hashes of one start. They are not kept: no hash is ever written.
#[derive(Clone, Copy)]
pub struct HashKeys(pub [u64; 2]);

impl std::fmt::Debug for HashKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HashKeys(..)")
    }
}

/// A Topic Name. As bytes it asks for no padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct TopicHash([u8; 16]);

/// A Topic Filter, among those of one Session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FilterHash([u8; 8]);

impl HashKeys {
    pub(super) fn topic(self, topic: &[u8]) -> TopicHash {
        TopicHash(self.hash(topic).to_le_bytes())
    }

    pub(super) fn filter(self, filter: &str) -> FilterHash {
        let [hash @ .., _, _, _, _, _, _, _, _] = self.hash(filter.as_bytes()).to_le_bytes();
        FilterHash(hash)
    }

    fn hash(self, bytes: &[u8]) -> u128 {
        let Self([key0, key1]) = self;
        SipHasher13::new_with_keys(key0, key1).hash(bytes).as_u128()
    }
}
