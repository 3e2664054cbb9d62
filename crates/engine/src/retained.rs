//! Retained Messages: the last one per Topic Name, the same on every shard (section 3.3.1.3).
//!
//! Owns: which write of several shards is the last, tombstones of removals, expiry, limits, the
//! paced replay to a new Subscription. Does not own: sending, Retain Handling, durability.
//! Start reading at [`Retained::publish`], then [`Replay::next_batch`].
//! Invariants: of two writes to a topic the one with the greater [`Stamp`] wins on every shard;
//! a replay never looks at a topic twice and its work per call is bounded.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hashbrown::HashMap;
use proto::Message;

use crate::keys::{KeyedState, ShardIndex};
use crate::limits::Limits;
use crate::sessions::map_bytes;

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
    /// Bytes of the messages as all messages are counted.
    message_bytes: usize,
    counter: u64,
    /// Writes that have taken effect here.
    arrivals: u64,
    shard: ShardIndex,
    limits: RetainedLimits,
}

/// What is known about one Retained Message beside itself, in 14 bytes: with two more a node of the index would take the
/// next size that allocators have.
#[derive(Clone, Copy, Debug)]
struct Entry {
    counter: Small,
    shard: ShardIndex,
    /// The number of its write among those that took effect in this shard.
    arrival: Small,
}

/// A number in six bytes: enough for two million writes a second over four years.
#[derive(Clone, Copy, Debug)]
struct Small([u16; 3]);

impl Small {
    const MAX: u64 = (1 << 48) - 1;

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
    const fn new(stamp: Stamp, arrival: u64) -> Self {
        Self {
            counter: Small::new(stamp.counter),
            shard: stamp.shard,
            arrival: Small::new(arrival),
        }
    }

    fn stamp(&self) -> Stamp {
        Stamp {
            counter: self.counter.number(),
            shard: self.shard,
        }
    }

    fn arrival(&self) -> u64 {
        self.arrival.number()
    }
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
        let last = self.stamp_of(topic).or_else(|| self.tombstones.find(topic));
        if last.is_some_and(|last| last >= stamp) {
            return Applied::Superseded;
        }
        let before = self.remove(topic);
        // [MQTT-3.3.1-6] [MQTT-3.3.1-7] [v3.1.1 MQTT-3.3.1-10] [v3.1.1 MQTT-3.3.1-11]
        // An empty payload removes, and is itself not retained.
        if message.payload().is_empty() {
            self.tombstones.insert(topic, stamp);
            return Applied::Removed(before);
        }
        // [MQTT-3.3.1-5] [v3.1.1 MQTT-3.3.1-5] Retained in place of the one before, whatever the
        // QoS of either, [v3.1.1 MQTT-3.3.1-7].
        self.tombstones.remove(topic);
        self.bytes += cost_bytes(message);
        self.message_bytes += message.live_bytes();
        if let Some(at) = self.ends_at(message) {
            self.expiries.insert((at, stamp), Arc::clone(message));
        }
        self.arrivals += 1;
        let arrival = self.arrivals;
        self.messages
            .insert(TopicKey(Arc::clone(message)), Entry::new(stamp, arrival));
        Applied::Stored(before)
    }

    /// The Retained Message of `topic`, unless it has expired. O(log n).
    #[cfg(test)]
    pub(crate) fn find(&self, topic: &str, now: Instant) -> Option<&Arc<Message>> {
        let (key, _) = self.messages.get_key_value(topic)?;
        // [MQTT-3.3.2-5] An expired message goes to nobody.
        (!key.0.is_expired(now)).then_some(&key.0)
    }

    /// The stamp of the Retained Message of `topic`.
    pub(crate) fn stamp_of(&self, topic: &str) -> Option<Stamp> {
        self.messages.get(topic).map(Entry::stamp)
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
            self.remove(message.topic());
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
        let before = self.messages.get_key_value(message.topic());
        let before = before.map_or(0, |(key, _)| cost_bytes(&key.0));
        cost_bytes(message).saturating_sub(before)
    }

    /// Whether something is retained on `topic`.
    pub(crate) fn has(&self, topic: &str) -> bool {
        self.messages.contains_key(topic)
    }

    /// Whether a limit refuses a message of about `bytes` on `topic`.
    pub(crate) fn lacks_room(&self, topic: &str, bytes: usize) -> bool {
        let before = self.messages.get_key_value(topic);
        let before_bytes = before.map_or(0, |(key, _)| cost_bytes(&key.0));
        before.is_none() && self.messages.len() >= self.limits.retained_messages_max
            || self.bytes - before_bytes + bytes + ENTRY_BYTES > self.limits.retained_bytes_max
    }

    /// Whether there is room to retain `message`; what has expired takes some until
    /// [`Retained::remove_expired`] removes it.
    /// # Errors
    /// A limit refuses it.
    pub(crate) fn check_limits(&self, message: &Message) -> Result<(), RetainedRefusal> {
        if message.payload().is_empty() {
            return Ok(());
        }
        let before = self
            .messages
            .get_key_value(message.topic())
            .map(|(key, _)| cost_bytes(&key.0));
        if before.is_none() && self.messages.len() >= self.limits.retained_messages_max {
            return Err(RetainedRefusal::TooManyMessages);
        }
        let bytes = self.bytes - before.unwrap_or(0) + cost_bytes(message);
        if bytes > self.limits.retained_bytes_max {
            return Err(RetainedRefusal::TooManyBytes);
        }
        Ok(())
    }

    fn remove(&mut self, topic: &str) -> Option<Arc<Message>> {
        let (TopicKey(message), entry) = self.messages.remove_entry(topic)?;
        self.bytes -= cost_bytes(&message);
        self.message_bytes -= message.live_bytes();
        if let Some(at) = self.ends_at(&message) {
            self.expiries.remove(&(at, entry.stamp()));
        }
        Some(message)
    }

    /// When it goes by itself. The same for the same message, or it would stay among `expiries`.
    fn ends_at(&self, message: &Message) -> Option<Instant> {
        let aged = self.limits.age_max;
        let aged = aged.and_then(|age| message.accepted_at().checked_add(age));
        message.expires_at().into_iter().chain(aged).min()
    }

    /// The first message whose topic is not below `from`.
    fn first_from(&self, from: Bound<&str>) -> Option<(&Arc<Message>, u64)> {
        self.messages
            .range::<str, _>((from, Bound::Unbounded))
            .next()
            .map(|(key, entry)| (&key.0, entry.arrival()))
    }
}

/// Where a replay of the Retained Messages that match one Topic Filter has got to.
#[derive(Clone, Debug)]
pub(crate) struct Replay {
    filter: Box<str>,
    next: Next,
    /// The last write, by its arrival, that is part of it.
    until: u64,
}

impl Replay {
    /// A replay of everything that matches `filter` (well-formed, not shared).
    pub(crate) fn new(filter: &str) -> Self {
        let mut from = String::new();
        push_until_wildcard(&mut from, filter.split('/'));
        Self {
            filter: filter.into(),
            next: Next::From(from),
            until: u64::MAX,
        }
    }

    /// Leaves out what is written after the write `arrival`: the Subscription gets it as it comes,
    /// and must not get it again, or an older one after it.
    pub(crate) const fn end_at(&mut self, arrival: u64) {
        self.until = arrival;
    }

    /// Goes to the first topic that matches, or as near to it as so many looks bring it. O(looks log n).
    pub(crate) fn seek(&mut self, retained: &Retained, looks: usize) {
        for _ in 0..looks {
            let Some(bound) = self.next.bound() else {
                return;
            };
            self.next = match retained.first_from(bound) {
                None => Next::Done,
                Some((message, _)) if proto::topic::matches(&self.filter, message.topic()) => {
                    return;
                }
                Some((message, _)) => next_possible(&self.filter, message.topic()),
            };
        }
    }

    /// The next messages in ascending order of topic, looking at no more than `budget` topics, which are taken off it; may
    /// be empty though there is more, see [`Replay::is_done`]. Messages that come, go or change
    /// between calls are seen as they then are, up to [`Replay::end_at`]. O(budget (log n + topic length)).
    pub(crate) fn next_batch(
        &mut self,
        retained: &Retained,
        now: Instant,
        budget: &mut usize,
    ) -> Vec<Arc<Message>> {
        let mut batch = Vec::new();
        while *budget > 0 {
            let Some(bound) = self.next.bound() else {
                break;
            };
            *budget -= 1;
            let Some((message, arrival)) = retained.first_from(bound) else {
                self.next = Next::Done;
                break;
            };
            let topic = message.topic();
            self.next = if proto::topic::matches(&self.filter, topic) {
                // [MQTT-3.3.2-5] An expired message goes to nobody.
                if !message.is_expired(now) && arrival <= self.until {
                    batch.push(Arc::clone(message));
                }
                Next::After(topic.into())
            } else {
                next_possible(&self.filter, topic)
            };
        }
        batch
    }

    /// Whether everything has been seen.
    pub(crate) const fn is_done(&self) -> bool {
        matches!(self.next, Next::Done)
    }

    /// The Topic Filter.
    pub(crate) fn filter(&self) -> &str {
        &self.filter
    }
}

/// What of the topics, in order, is still to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Next {
    From(String),
    After(String),
    Done,
}

impl Next {
    fn bound(&self) -> Option<Bound<&str>> {
        match self {
            Self::From(topic) => Some(Bound::Included(topic)),
            Self::After(topic) => Some(Bound::Excluded(topic)),
            Self::Done => None,
        }
    }
}

/// Where, after `topic` which does not match, the next topic that could match `filter` may be.
/// Never beyond one that does match; usually many topics further on.
///
/// Topics are in the order of their bytes, so all topics under one first level lie together
/// (between `a/` and `a0`, the character after `/`), but `a-b/x` lies before `a/x`.
fn next_possible(filter: &str, topic: &str) -> Next {
    // [MQTT-4.7.2-1] [v3.1.1 MQTT-4.7.2-1] A wildcard in front does not reach a `$` topic.
    if topic.starts_with('$') && filter.starts_with(['+', '#']) {
        return Next::From(AFTER_DOLLAR.into());
    }
    // Ends of the levels of `topic` that an any-level wildcard took.
    let mut any_level_end = None;
    let mut start = 0;
    let mut levels = filter.split('/');
    while let Some(level) = levels.next() {
        let rest = topic.get(start..).unwrap_or_default();
        let (found, is_last) = match rest.split_once('/') {
            Some((found, _)) => (found, false),
            None => (rest, true),
        };
        let end = start + found.len();
        if level != "+" && level != found {
            let prefix = topic.get(..start).unwrap_or_default();
            if let Some(from) = first_with_level(prefix, level, levels, topic) {
                return Next::From(from);
            }
            break;
        }
        if level == "+" && is_last {
            // Too short; but `a-b/x` lies between `a` and `a/x`.
            return Next::After(topic.into());
        }
        if is_last {
            let mut from = format!("{topic}/");
            push_until_wildcard(&mut from, levels);
            return Next::From(from);
        }
        if level == "+" {
            any_level_end = Some(end);
        }
        start = end + 1;
    }
    // Nothing more with these levels: on to another one where any will do.
    match any_level_end.and_then(|end| topic.get(..end)) {
        Some(prefix) => Next::From(format!("{prefix}{AFTER_SEPARATOR}")),
        None => Next::Done,
    }
}

/// The first text above `topic` that begins with `prefix` and `level` as a whole level and could
/// match the `rest` of the filter; `None` if all such are below `topic`.
fn first_with_level<'a>(
    prefix: &str,
    level: &str,
    rest: impl Iterator<Item = &'a str> + Clone,
    topic: &str,
) -> Option<String> {
    let mut from = format!("{prefix}{level}");
    let mut after = rest.clone();
    if after.next() == Some("#") {
        // Both the level itself and what is below it.
        if from.as_str() > topic {
            return Some(from);
        }
        from.push('/');
    } else if rest.clone().next().is_some() {
        from.push('/');
        push_until_wildcard(&mut from, rest);
    }
    (from.as_str() > topic).then_some(from)
}

/// Appends the levels up to the first wildcard: no topic that matches is below the result.
fn push_until_wildcard<'a>(from: &mut String, levels: impl Iterator<Item = &'a str>) {
    for (number, level) in levels.enumerate() {
        match level {
            // `a/#` also matches `a`, which `a/` would leave out.
            "#" => return,
            "+" => {
                if number > 0 {
                    from.push('/');
                }
                return;
            }
            level => {
                if number > 0 {
                    from.push('/');
                }
                from.push_str(level);
            }
        }
    }
}

/// A message as a map key: its Topic Name, without a copy of it.
#[derive(Debug)]
struct TopicKey(Arc<Message>);

impl Borrow<str> for TopicKey {
    fn borrow(&self) -> &str {
        self.0.topic()
    }
}

impl Ord for TopicKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.topic().cmp(other.0.topic())
    }
}

impl PartialOrd for TopicKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for TopicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.topic() == other.0.topic()
    }
}

impl Eq for TopicKey {}

/// Removals a late older write must not undo. Only the most recent: writes cross between two shards
/// in order and within a few turns, so a removal this many removals ago has met them all.
#[derive(Debug)]
struct Tombstones {
    by_topic: HashMap<Arc<str>, Stamp, KeyedState>,
    /// Oldest first; with entries that `by_topic` has since replaced or dropped.
    order: VecDeque<(Arc<str>, Stamp)>,
    topic_bytes: usize,
    max: usize,
}

impl Tombstones {
    fn new(max: usize, hash: KeyedState) -> Self {
        Self {
            by_topic: HashMap::with_hasher(hash),
            order: VecDeque::new(),
            topic_bytes: 0,
            max,
        }
    }

    fn memory_bytes(&self) -> usize {
        self.topic_bytes
            + self.order.len() * ARC_OVERHEAD_BYTES
            + self.order.capacity() * size_of::<(Arc<str>, Stamp)>()
            + map_bytes(self.by_topic.capacity(), size_of::<(Arc<str>, Stamp)>())
    }

    fn find(&self, topic: &str) -> Option<Stamp> {
        self.by_topic.get(topic).copied()
    }

    fn insert(&mut self, topic: &str, stamp: Stamp) {
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

    fn remove(&mut self, topic: &str) {
        self.by_topic.remove(topic);
    }
}

fn cost_bytes(message: &Message) -> usize {
    message.memory_bytes() + ENTRY_BYTES
}

/// Most removals remembered.
pub(crate) const TOMBSTONES_MAX: usize = 4_096;

/// Bytes of topics after which removals are forgotten earlier.
pub(crate) const TOMBSTONE_TOPIC_BYTES_MAX: usize = 1 << 20;

/// One entry of the index: a node of it is two thirds full.
const INDEX_BYTES: usize = 44;
/// One entry of what will expire.
const EXPIRY_BYTES: usize = 60;
/// The two counts of an `Arc`.
const ARC_OVERHEAD_BYTES: usize = 16;

/// What one message costs here beside itself, about.
const ENTRY_BYTES: usize = 128;

/// The character after `/`.
const AFTER_SEPARATOR: char = '0';

/// The character after `$`.
const AFTER_DOLLAR: &str = "%";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytes::Bytes;
    use proptest::prelude::*;
    use proptest::sample::select;
    use proto::Qos;
    use proto::packet::{Publish, PublishProperties};

    use super::*;
    use crate::keys::keyed_state;

    const LIMITS: RetainedLimits = RetainedLimits {
        retained_messages_max: 100_000,
        retained_bytes_max: 1 << 30,
        age_max: None,
    };

    fn retained_on(shard: u16) -> Retained {
        Retained::new(LIMITS, ShardIndex(shard), 2, keyed_state(1))
    }

    fn message(topic: &str, payload: &'static str, now: Instant) -> Arc<Message> {
        Arc::new(Message::new(
            topic,
            Bytes::from_static(payload.as_bytes()),
            Qos::AtMostOnce,
            true,
            now,
        ))
    }

    fn expiring(topic: &str, seconds: u32, now: Instant) -> Arc<Message> {
        let mut properties = PublishProperties::default();
        properties.message_expiry_interval_seconds = Some(seconds);
        let publish = Publish {
            dup: false,
            qos: Qos::AtMostOnce,
            retain: true,
            topic,
            packet_id: None,
            properties,
            payload: b"x",
        };
        Arc::new(Message::from_publish(&publish, None, now))
    }

    fn now() -> Instant {
        // Any instant will do; the crate's code takes it as an argument.
        #[expect(
            clippy::disallowed_methods,
            reason = "tests have no other way to make an Instant"
        )]
        Instant::now()
    }

    fn payload_of(retained: &Retained, topic: &str, now: Instant) -> Option<Vec<u8>> {
        retained
            .find(topic, now)
            .map(|message| message.payload().to_vec())
    }

    fn replay_all(retained: &Retained, filter: &str, now: Instant, budget: usize) -> Vec<String> {
        let mut replay = Replay::new(filter);
        let mut topics = Vec::new();
        while !replay.is_done() {
            let batch = replay.next_batch(retained, now, &mut { budget });
            assert!(batch.len() <= budget);
            topics.extend(batch.iter().map(|message| message.topic().to_owned()));
        }
        topics
    }

    /// Verifies [MQTT-3.3.1-5]: a Retained Message takes the place of the one before.
    /// Verifies [MQTT-3.3.1-6]: an empty payload removes it.
    /// Verifies [MQTT-3.3.1-7]: and is not retained itself.
    /// Verifies [v3.1.1 MQTT-3.3.1-5]: the same in 3.1.1.
    /// Verifies [v3.1.1 MQTT-3.3.1-7]: one with QoS 0 takes the place of another, too.
    /// Verifies [v3.1.1 MQTT-3.3.1-10]: the same in 3.1.1.
    /// Verifies [v3.1.1 MQTT-3.3.1-11]: the same in 3.1.1.
    #[test]
    fn last_message_of_a_topic_is_retained_until_an_empty_one() {
        let (mut retained, now) = (retained_on(0), now());
        retained.publish(&message("a", "1", now)).unwrap();
        let (_, applied) = retained.publish(&message("a", "2", now)).unwrap();
        assert_eq!(applied, Applied::Stored(Some(message("a", "1", now))));
        assert_eq!(payload_of(&retained, "a", now), Some(b"2".to_vec()));
        let (_, applied) = retained.publish(&message("a", "", now)).unwrap();
        assert_eq!(applied, Applied::Removed(Some(message("a", "2", now))));
        assert_eq!(
            (retained.find("a", now), retained.len(), retained.bytes()),
            (None, 0, 0)
        );
    }

    #[test]
    fn two_shards_agree_in_whatever_order_writes_arrive() {
        let now = now();
        let (mut here, mut there) = (retained_on(0), retained_on(1));
        let set = message("a", "set", now);
        let clear = message("a", "", now);
        let (set_at, _) = here.publish(&set).unwrap();
        let (clear_at, _) = there.publish(&clear).unwrap();
        assert!(set_at < clear_at, "equal counters: the shard settles it");
        assert_eq!(
            here.apply(&clear, clear_at),
            Applied::Removed(Some(Arc::clone(&set)))
        );
        assert_eq!(there.apply(&set, set_at), Applied::Superseded);
        assert_eq!((here.find("a", now), there.find("a", now)), (None, None));

        let (again_at, _) = here.publish(&set).unwrap();
        assert!(again_at > clear_at, "what a shard has seen is in its past");
        assert_eq!(there.apply(&set, again_at), Applied::Stored(None));
        assert_eq!(there.apply(&set, again_at), Applied::Superseded);
        assert_eq!(payload_of(&there, "a", now), Some(b"set".to_vec()));
    }

    #[test]
    fn stamp_and_arrival_are_kept_whole_in_14_bytes() {
        for arrival in [0, 1, 0xffff, 0x1_0000, 0x1234_5678_9abc, (1 << 48) - 1] {
            let stamp = Stamp {
                counter: Small::MAX - arrival,
                shard: ShardIndex(63),
            };
            let entry = Entry::new(stamp, arrival);
            assert_eq!((entry.stamp(), entry.arrival()), (stamp, arrival));
        }
        assert_eq!(size_of::<Entry>(), 14);
    }

    #[test]
    fn tombstones_are_bounded() {
        let (mut retained, now) = (retained_on(0), now());
        for number in 0..TOMBSTONES_MAX + 100 {
            retained
                .publish(&message(&number.to_string(), "", now))
                .unwrap();
        }
        assert_eq!(retained.tombstones.order.len(), TOMBSTONES_MAX);
        assert_eq!(retained.tombstones.by_topic.len(), TOMBSTONES_MAX);
        let long = "x".repeat(60_000);
        for number in 0..100 {
            retained
                .publish(&message(&format!("{number}{long}"), "", now))
                .unwrap();
        }
        assert!(retained.tombstones.topic_bytes <= TOMBSTONE_TOPIC_BYTES_MAX + 2 * long.len());
    }

    #[test]
    fn filter_that_nothing_retained_matches_is_done_after_two_looks_and_another_loses_nothing() {
        let (mut retained, now) = (retained_on(0), now());
        for topic in ["$SYS/a", "a/b", "a/c/d", "b/1/x", "b/2/x"] {
            retained.publish(&message(topic, "1", now)).unwrap();
        }
        for filter in ["c/#", "a/d", "z/+"] {
            let mut replay = Replay::new(filter);
            replay.seek(&retained, 2);
            assert!(replay.is_done(), "{filter}");
        }
        for (filter, count) in [("#", 4), ("b/+/x", 2), ("a/#", 2), ("a/c/d", 1)] {
            let mut replay = Replay::new(filter);
            replay.seek(&retained, 2);
            let mut budget = 20;
            let found = replay.next_batch(&retained, now, &mut budget);
            assert_eq!(found.len(), count, "{filter}");
            assert!(replay.is_done() && budget > 0, "{filter}: {budget} left");
        }
    }

    /// Verifies [MQTT-3.3.2-5]: a message whose Message Expiry Interval has passed goes to nobody.
    #[test]
    fn expired_message_is_neither_found_nor_replayed_and_then_removed() {
        let (mut retained, start) = (retained_on(0), now());
        retained.publish(&expiring("a/1", 10, start)).unwrap();
        retained.publish(&expiring("a/2", 5, start)).unwrap();
        retained.publish(&message("a/3", "x", start)).unwrap();
        let later = start + Duration::from_secs(10);
        assert_eq!(retained.next_expiry(), Some(start + Duration::from_secs(5)));
        assert_eq!(retained.find("a/1", later), None);
        assert_eq!(replay_all(&retained, "a/+", later, 7), ["a/3"]);
        let removed = retained.remove_expired(later, 1);
        assert_eq!(
            removed
                .iter()
                .map(|message| message.topic())
                .collect::<Vec<_>>(),
            ["a/2"]
        );
        assert_eq!(retained.remove_expired(later, 10).len(), 1);
        assert_eq!((retained.next_expiry(), retained.len()), (None, 1));
    }

    #[test]
    fn message_without_an_expiry_goes_at_the_greatest_age() {
        let limits = RetainedLimits {
            age_max: Some(Duration::from_secs(8)),
            ..LIMITS
        };
        let (mut retained, start) = (
            Retained::new(limits, ShardIndex(0), 1, keyed_state(1)),
            now(),
        );
        retained.publish(&expiring("long", 10, start)).unwrap();
        retained.publish(&expiring("short", 5, start)).unwrap();
        retained.publish(&message("none", "x", start)).unwrap();
        let mut gone: Vec<Vec<String>> = Vec::new();
        for seconds in [4, 5, 7, 8] {
            let later = start + Duration::from_secs(seconds);
            let removed = retained.remove_expired(later, 9);
            gone.push(removed.iter().map(|one| one.topic().to_owned()).collect());
        }
        let expected: [Vec<&str>; 4] = [vec![], vec!["short"], vec![], vec!["long", "none"]];
        assert_eq!(gone, expected);
        assert_eq!((retained.len(), retained.next_expiry()), (0, None));
        assert!(retained.expiries.is_empty());
    }

    #[test]
    fn limits_refuse_one_more_but_not_a_replacement_or_a_removal() {
        let now = now();
        let one = cost_bytes(&message("a", "1", now));
        let limits = RetainedLimits {
            retained_messages_max: 2,
            retained_bytes_max: 3 * one,
            age_max: None,
        };
        let mut retained = Retained::new(limits, ShardIndex(0), 1, keyed_state(1));
        retained.publish(&expiring("a", 1, now)).unwrap();
        retained.publish(&message("b", "1", now)).unwrap();
        let refused = retained.publish(&message("c", "1", now));
        assert_eq!(refused, Err(RetainedRefusal::TooManyMessages));
        assert!(retained.publish(&message("b", "2", now)).is_ok());
        let long = message(&"b".repeat(4 * one), "1", now);
        assert!(retained.publish(&message("b", "", now)).is_ok());
        assert_eq!(retained.publish(&long), Err(RetainedRefusal::TooManyBytes));
        retained.publish(&message("b", "1", now)).unwrap();
        let later = now + Duration::from_secs(1);
        assert_eq!(retained.remove_expired(later, 9).len(), 1);
        assert!(
            retained.publish(&message("c", "1", later)).is_ok(),
            "room by expiry"
        );
    }

    #[test]
    fn replay_of_one_level_among_many_does_not_look_at_all_topics() {
        let (mut retained, now) = (retained_on(0), now());
        for (device, value) in (0..50).flat_map(|device| (0..50).map(move |value| (device, value)))
        {
            retained
                .publish(&message(&format!("d{device}/v{value}"), "x", now))
                .unwrap();
        }
        retained.publish(&message("$SYS/v7", "x", now)).unwrap();
        let mut replay = Replay::new("+/v7");
        let found = replay.next_batch(&retained, now, &mut { 50 * 3 + 2 });
        assert_eq!((found.len(), replay.is_done()), (50, true));
        let mut replay = Replay::new("d9/#");
        assert_eq!(replay.next_batch(&retained, now, &mut { 51 }).len(), 50);
    }

    #[test]
    fn replay_goes_on_over_changes_in_between() {
        let (mut retained, now) = (retained_on(0), now());
        for topic in ["a/1", "a/2", "a/3"] {
            retained.publish(&message(topic, "x", now)).unwrap();
        }
        let mut replay = Replay::new("a/+");
        assert_eq!(
            replay.next_batch(&retained, now, &mut { 1 }),
            [message("a/1", "x", now)]
        );
        retained.publish(&message("a/1", "", now)).unwrap();
        retained.publish(&message("a/2", "new", now)).unwrap();
        let rest = replay.next_batch(&retained, now, &mut { 9 });
        assert_eq!(rest, [message("a/2", "new", now), message("a/3", "x", now)]);
        assert!(replay.is_done());
    }

    fn any_text(levels: Vec<&'static str>) -> impl Strategy<Value = String> {
        proptest::collection::vec(select(levels), 1..5).prop_map(|levels| levels.join("/"))
    }

    fn any_filter() -> impl Strategy<Value = String> {
        let level = vec!["a", "b", "a-", "a0", "", "$s", "+", "+"];
        (any_text(level), any::<bool>())
            .prop_map(|(text, has_rest)| if has_rest { format!("{text}/#") } else { text })
    }

    proptest! {
        #[test]
        fn replay_finds_what_a_naive_filter_finds(
            topics in proptest::collection::btree_set(
                any_text(vec!["a", "b", "a-", "a0", "a!", "", "$s", "%", "\u{10ffff}"]), 0..60),
            filters in proptest::collection::vec(any_filter(), 1..8),
            budget in 1..9_usize,
        ) {
            let (mut retained, now) = (retained_on(0), now());
            let topics: BTreeSet<_> = topics.into_iter().filter(|topic| !topic.is_empty()).collect();
            for topic in &topics {
                prop_assert!(retained.publish(&message(topic, "x", now)).is_ok());
            }
            for filter in filters.iter().map(String::as_str).chain(["#", "+", "+/#"]) {
                if filter.is_empty() {
                    continue;
                }
                let naive = topics.iter().filter(|topic| proto::topic::matches(filter, topic));
                let naive: Vec<_> = naive.cloned().collect();
                prop_assert_eq!(replay_all(&retained, filter, now, budget), naive, "{}", filter);
            }
        }
    }
}
