//! Retained Messages: the last one per Topic Name, the same on every shard (section 3.3.1.3).
//!
//! Owns: which write of several shards is the last, expiry, limits. Does not own: the way of a replay (see `replay`),
//! removals that are remembered (see `tombstones`), sending, Retain Handling, durability.
//! Start reading at [`Retained::publish`], then [`Replay::next_batch`].
//! Invariant: of two writes to a topic the one with the greater [`Stamp`] wins on every shard.

mod entry;
mod replay;
#[cfg(test)]
mod tests;
mod tombstones;

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry as Place;
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::Message;

use crate::keys::{KeyedState, ShardIndex};
use crate::limits::Limits;
use crate::publish::is_server_topic;
use entry::Entry;
pub(crate) use replay::{Budget, Replay};
use tombstones::{TOMBSTONES_MAX, Tombstones};

/// When a retained PUBLISH happened, in the order all shards agree on (a Lamport clock).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp {
    /// One more than any counter its shard had seen.
    pub counter: u64,
    /// Shard that accepted it; settles ties.
    pub shard: ShardIndex,
}

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetainedLimits {
    /// Most Retained Messages.
    pub retained_messages_max: usize,
    /// Most bytes they may take, with their topics and bookkeeping.
    pub retained_bytes_max: usize,
    /// After so long one goes, if it does not expire before.
    pub age_max: Option<Duration>,
}

impl From<&Limits> for RetainedLimits {
    fn from(limits: &Limits) -> Self {
        let age = limits.retained_age_max_seconds;
        Self {
            retained_messages_max: limits.retained_messages_max,
            retained_bytes_max: limits.retained_bytes_max,
            age_max: age.map(|seconds| Duration::from_secs(u64::from(seconds))),
        }
    }
}

/// Why a Retained Message was refused; Quota exceeded (0x97) says so to the publisher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainedRefusal {
    /// There are as many as `retained_messages_max`.
    TooManyMessages,
    /// They would take more than `retained_bytes_max`.
    TooManyBytes,
}

/// What a write did.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Applied {
    /// The message is retained now, instead of the older one if there was one.
    Stored(Option<Arc<Message>>),
    /// Its payload is empty: the older one, if there was one, is gone.
    Removed(Option<Arc<Message>>),
    /// A later write is known already; nothing has changed.
    Superseded,
}

/// The Retained Messages.
#[derive(Debug)]
pub(crate) struct Retained {
    messages: BTreeMap<TopicKey, Entry>,
    /// What will expire, soonest first.
    expiries: BTreeMap<(Instant, Stamp), Arc<Message>>,
    tombstones: Tombstones,
    bytes: usize,
    /// What the Server says of itself, which no limit counts: it has to be said, and takes no more than it takes.
    of_server: Part,
    /// Bytes of the messages as all messages are counted.
    message_bytes: usize,
    counter: u64,
    /// Writes that have taken effect here.
    arrivals: u64,
    shard: ShardIndex,
    limits: RetainedLimits,
}

/// Some of the Retained Messages.
#[derive(Debug, Default)]
struct Part {
    messages: usize,
    bytes: usize,
}

impl Retained {
    /// None yet, on `shard` of `shard_count`; names are hashed with `hash`.
    pub(crate) fn new(
        limits: RetainedLimits,
        shard: ShardIndex,
        shard_count: u16,
        hash: KeyedState,
    ) -> Self {
        // A shard alone sees its own writes in order and needs no memory of removals.
        let tombstones_max = if shard_count > 1 { TOMBSTONES_MAX } else { 0 };
        Self {
            messages: BTreeMap::new(),
            expiries: BTreeMap::new(),
            tombstones: Tombstones::new(tombstones_max, hash),
            bytes: 0,
            of_server: Part::default(),
            message_bytes: 0,
            counter: 0,
            arrivals: 0,
            shard,
            limits,
        }
    }

    /// Other limits count from now on; what is there beyond them stays until it is removed. O(messages) if their age has
    /// changed.
    pub(crate) fn set_limits(&mut self, limits: RetainedLimits) {
        let has_other_age = limits.age_max != self.limits.age_max;
        self.limits = limits;
        if !has_other_age {
            return;
        }
        let ends = self.messages.iter().filter_map(|(key, entry)| {
            let TopicKey(message) = key;
            Some(((self.ends_at(message)?, entry.stamp()), Arc::clone(message)))
        });
        self.expiries = ends.collect();
    }

    /// A PUBLISH with RETAIN that this shard accepts: retains it, or with an empty payload removes
    /// what is retained. Returns the stamp with which every other shard is to
    /// [`Retained::apply`] it. O(log n).
    ///
    /// `message` is to own its payload (made without a shared buffer): one that shares the buffer
    /// it came in would keep all of that alive for as long as it is retained.
    /// # Errors
    /// A limit refuses one message more; nothing has changed and nothing is to be sent on.
    pub(crate) fn publish(
        &mut self,
        message: &Arc<Message>,
    ) -> Result<(Stamp, Applied), RetainedRefusal> {
        self.check_limits(message)?;
        let stamp = Stamp {
            counter: self.counter.saturating_add(1),
            shard: self.shard,
        };
        let applied = self.apply(message, stamp);
        Ok((stamp, applied))
    }

    /// A write another shard has accepted, or one the store remembers. Never refused, so that all
    /// shards end up with the same. O(log n).
    pub(crate) fn apply(&mut self, message: &Arc<Message>, stamp: Stamp) -> Applied {
        self.counter = self.counter.max(stamp.counter);
        let topic = message.topic();
        let is_removal = message.payload().is_empty();
        let before = match self.messages.entry(TopicKey(Arc::clone(message))) {
            Place::Occupied(place) if place.get().stamp() >= stamp => return Applied::Superseded,
            Place::Occupied(place) => Some(place.remove_entry()),
            Place::Vacant(place) => {
                if self
                    .tombstones
                    .find(topic)
                    .is_some_and(|last| last >= stamp)
                {
                    return Applied::Superseded;
                }
                if !is_removal {
                    place.insert(Entry::new(stamp, self.arrivals + 1));
                }
                None
            }
        };
        let is_new = before.is_none();
        let before = before.map(|(TopicKey(message), entry)| {
            self.discount(&message, &entry);
            message
        });
        // [MQTT-3.3.1-6] [MQTT-3.3.1-7] [v3.1.1 MQTT-3.3.1-10] [v3.1.1 MQTT-3.3.1-11]
        // An empty payload removes, and is itself not retained.
        if is_removal {
            self.tombstones.insert(topic, stamp);
            return Applied::Removed(before);
        }
        // [MQTT-3.3.1-5] [v3.1.1 MQTT-3.3.1-5] Retained in place of the one before, whatever the
        // QoS of either, [v3.1.1 MQTT-3.3.1-7].
        self.tombstones.remove(topic);
        self.arrivals += 1;
        if !is_new {
            let entry = Entry::new(stamp, self.arrivals);
            self.messages.insert(TopicKey(Arc::clone(message)), entry);
        }
        self.count(message, stamp);
        Applied::Stored(before)
    }

    /// One message more is in the index.
    fn count(&mut self, message: &Arc<Message>, stamp: Stamp) {
        self.bytes += cost_bytes(message);
        self.message_bytes += message.live_bytes();
        if is_server_topic(message.topic_bytes()) {
            self.of_server.messages += 1;
            self.of_server.bytes += cost_bytes(message);
        }
        if let Some(at) = self.ends_at(message) {
            self.expiries.insert((at, stamp), Arc::clone(message));
        }
    }

    /// It is there no more.
    fn discount(&mut self, message: &Message, entry: &Entry) {
        self.bytes -= cost_bytes(message);
        self.message_bytes -= message.live_bytes();
        if is_server_topic(message.topic_bytes()) {
            self.of_server.messages -= 1;
            self.of_server.bytes -= cost_bytes(message);
        }
        if let Some(at) = self.ends_at(message) {
            self.expiries.remove(&(at, entry.stamp()));
        }
    }

    /// The Retained Message of `topic`, unless it has expired. O(log n).
    #[cfg(test)]
    pub(crate) fn find(&self, topic: &str, now: Instant) -> Option<&Arc<Message>> {
        let (key, _) = self.messages.get_key_value(topic.as_bytes())?;
        // [MQTT-3.3.2-5] An expired message goes to nobody.
        (!key.0.is_expired(now)).then_some(&key.0)
    }

    /// Removes at most `budget` messages that have expired, and returns them, soonest expired
    /// first. O(budget log n).
    pub(crate) fn remove_expired(&mut self, now: Instant, budget: usize) -> Vec<Arc<Message>> {
        let mut expired = Vec::new();
        while expired.len() < budget
            && let Some((&(at, stamp), message)) = self.expiries.first_key_value()
            && at <= now
        {
            let message = Arc::clone(message);
            self.remove(message.topic_bytes());
            // An older write may still be on its way here.
            self.tombstones.insert(message.topic(), stamp);
            expired.push(message);
        }
        expired
    }

    /// When the next Retained Message expires. O(log n).
    pub(crate) fn next_expiry(&self) -> Option<Instant> {
        self.expiries.first_key_value().map(|(&(at, _), _)| at)
    }

    /// How many there are, those expired but not yet removed included.
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Writes that have taken effect here; one that comes later has a greater number.
    pub(crate) const fn arrivals(&self) -> u64 {
        self.arrivals
    }

    /// Bytes they take.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the messages, each counted as `proto::live_message_bytes` does.
    pub(crate) const fn message_bytes(&self) -> usize {
        self.message_bytes
    }

    /// Bytes of the index.
    pub(crate) fn table_bytes(&self) -> usize {
        self.messages.len() * INDEX_BYTES
            + self.expiries.len() * EXPIRY_BYTES
            + self.tombstones.memory_bytes()
    }

    /// By how many bytes `message` would be more than what is retained on its topic.
    pub(crate) fn growth(&self, message: &Message) -> usize {
        if message.payload().is_empty() {
            return 0;
        }
        let before = self.messages.get_key_value(message.topic_bytes());
        let before = before.map_or(0, |(key, _)| cost_bytes(&key.0));
        cost_bytes(message).saturating_sub(before)
    }

    /// Whether something is retained on `topic`.
    pub(crate) fn has(&self, topic: &str) -> bool {
        self.messages.contains_key(topic.as_bytes())
    }

    /// Whether a limit refuses a message of about `bytes` on `topic`. What is the Server's is refused by no limit.
    pub(crate) fn lacks_room(&self, topic: &str, bytes: usize) -> bool {
        !is_server_topic(topic)
            && self
                .check_room(topic.as_bytes(), bytes + ENTRY_BYTES)
                .is_err()
    }

    /// Whether there is room to retain `message`; what has expired takes some until
    /// [`Retained::remove_expired`] removes it. What the Server says of itself takes none.
    /// # Errors
    /// A limit refuses it.
    pub(crate) fn check_limits(&self, message: &Message) -> Result<(), RetainedRefusal> {
        let topic = message.topic_bytes();
        if message.payload().is_empty() || is_server_topic(topic) {
            return Ok(());
        }
        self.check_room(topic, cost_bytes(message))
    }

    /// Of a topic that is not the Server's.
    fn check_room(&self, topic: &[u8], cost: usize) -> Result<(), RetainedRefusal> {
        let RetainedLimits {
            retained_messages_max: messages_max,
            retained_bytes_max: bytes_max,
            age_max: _,
        } = self.limits;
        let messages = self.messages.len() - self.of_server.messages;
        let bytes = self.bytes - self.of_server.bytes;
        if messages < messages_max && bytes + cost <= bytes_max {
            return Ok(());
        }
        let before = self.messages.get_key_value(topic);
        let before_bytes = before.map_or(0, |(key, _)| cost_bytes(&key.0));
        if before.is_none() && messages >= messages_max {
            return Err(RetainedRefusal::TooManyMessages);
        }
        if bytes - before_bytes + cost > bytes_max {
            return Err(RetainedRefusal::TooManyBytes);
        }
        Ok(())
    }

    fn remove(&mut self, topic: &[u8]) -> Option<Arc<Message>> {
        let (TopicKey(message), entry) = self.messages.remove_entry(topic)?;
        self.discount(&message, &entry);
        Some(message)
    }

    /// When it goes by itself. The same for the same message, or it would stay among `expiries`.
    fn ends_at(&self, message: &Message) -> Option<Instant> {
        let aged = self.limits.age_max;
        let aged = aged.and_then(|age| message.accepted_at().checked_add(age));
        message.expires_at().into_iter().chain(aged).min()
    }

    /// Messages in the order of their topics, from the first one that is not below `from`, with their arrivals. O(log n),
    /// and O(1) for one more.
    fn onward<'a>(
        &'a self,
        from: Bound<&str>,
    ) -> impl Iterator<Item = (&'a Arc<Message>, u64)> + use<'a> {
        self.messages
            .range::<[u8], _>((from.map(str::as_bytes), Bound::Unbounded))
            .map(|(key, entry)| (&key.0, entry.arrival()))
    }
}

/// A message as a map key: the bytes of its Topic Name, without a copy of them.
#[derive(Debug)]
struct TopicKey(Arc<Message>);

impl Borrow<[u8]> for TopicKey {
    fn borrow(&self) -> &[u8] {
        self.0.topic_bytes()
    }
}

impl Ord for TopicKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.topic_bytes().cmp(other.0.topic_bytes())
    }
}

impl PartialOrd for TopicKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for TopicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.topic_bytes() == other.0.topic_bytes()
    }
}

impl Eq for TopicKey {}

fn cost_bytes(message: &Message) -> usize {
    message.memory_bytes() + ENTRY_BYTES
}

/// One entry of the index: a node of it is two thirds full.
const INDEX_BYTES: usize = 44;
/// One entry of what will expire.
const EXPIRY_BYTES: usize = 60;
/// What one message costs here beside itself, about.
const ENTRY_BYTES: usize = 128;
