//! What happens to a PUBLISH for whom a subscriber has no room: its publisher is told, or waits.
//!
//! Owns: which Sessions are full, for how long they hold up publishers, what other shards know of it. Does not own: how
//! much may wait (see `queue`), how a connection is not read (see the server). Start reading at [`Engine::lacks_room`].
//! Invariants: where the policy is to refuse, nothing is acknowledged with success that nobody keeps; a Session holds up
//! publishers for [`crate::Limits::overflow_patience`] at most until it has taken half of its queue, and after that it
//! alone loses what others take.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use proto::packet::Publish;
use proto::topic::split_shared;
use proto::{Qos, Version};
use store::Level;

use crate::full_elsewhere::FullElsewhere;
use crate::keys::{KeyedState, SessionKey};
use crate::limits::{Limits, OverflowPolicy};
use crate::publish::may_receive;
use crate::routing::ShardItem;
use crate::sessions::Session;
use crate::subscriptions::Matches;
use crate::{ConnectionKey, Engine, ShardIndex};

/// What a PUBLISH has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Room on the disk.
    Disk,
    /// Room in a queue, or among the retained messages. Not for longer than [`crate::Limits::overflow_patience`].
    Room,
}

/// Which Sessions are full, here and elsewhere.
#[derive(Debug)]
pub(crate) struct Full {
    /// Sessions of this shard, and since when they are.
    sessions: BTreeMap<SessionKey, Instant>,
    /// Whether memory was tight when the last turn ended.
    was_memory_tight: bool,
    /// Sessions so near to a limit that each message is weighed.
    near: BTreeSet<SessionKey>,
    /// Sessions that have room again, and have not taken half of their queue yet.
    emptying: BTreeSet<SessionKey>,
    /// Their Topic Filters, and Shared Subscriptions.
    filters: BTreeMap<Arc<str>, FullFilter>,
    /// Sessions of other shards.
    elsewhere: FullElsewhere,
}

/// Full Sessions of one Topic Filter.
#[derive(Debug, Default)]
struct FullFilter {
    /// In the order in which they became so.
    sessions: BTreeSet<(Instant, SessionKey)>,
    /// What the other shards know, and since when the last of them is full.
    announced: Option<(FullThere, Instant)>,
}

/// Whether Sessions of a shard that want a Topic Filter are full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FullThere {
    None,
    Some,
    All,
}

/// Whether a Session can take one message more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Free,
    /// It cannot, and publishers wait for it.
    Full,
    /// It cannot, and nobody waits for it any more.
    GivenUp,
}

/// What several Sessions say together.
#[derive(Clone, Copy, Debug, Default)]
struct Rooms {
    has_free: bool,
    has_full: bool,
    has_given_up: bool,
}

impl Rooms {
    const fn add(&mut self, room: Room) {
        match room {
            Room::Free => self.has_free = true,
            Room::Full => self.has_full = true,
            Room::GivenUp => self.has_given_up = true,
        }
    }

    /// Whether a message is not taken: somebody has to be waited for, or there is nobody else who takes it.
    const fn refuses(self) -> bool {
        self.has_full || self.has_given_up && !self.has_free
    }
}

impl Full {
    pub(crate) fn new(hasher: KeyedState) -> Self {
        Self {
            sessions: BTreeMap::new(),
            was_memory_tight: false,
            near: BTreeSet::new(),
            emptying: BTreeSet::new(),
            filters: BTreeMap::new(),
            elsewhere: FullElsewhere::new(hasher),
        }
    }

    /// A Session ends.
    pub(crate) fn forget(&mut self, key: SessionKey) {
        self.near.remove(&key);
        self.emptying.remove(&key);
    }

    /// What was looked at so far of what other shards have said, in units of [`Engine::work`].
    pub(crate) const fn visited(&self) -> u64 {
        self.elsewhere.visited()
    }

    fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.near.is_empty() && self.elsewhere.is_empty()
    }
}

impl Session {
    /// Whether its queue is at its limits.
    fn is_at_limit(&self, limits: &Limits) -> bool {
        self.outbound.waiting_len() >= limits.queued_messages_max
            || self.queued_bytes_all() >= limits.queued_bytes_max
    }

    /// Whether no more of its queue is left than so many eighths of its limits.
    fn is_below(&self, limits: &Limits, eighths: usize) -> bool {
        let part = |all: usize| all / 8 * eighths + all % 8 * eighths / 8;
        let messages = self.outbound.waiting_len();
        let bytes = self.queued_bytes_all();
        (messages <= part(limits.queued_messages_max) && messages < limits.queued_messages_max)
            && (bytes <= part(limits.queued_bytes_max) && bytes < limits.queued_bytes_max)
            && self.queued_bytes <= part(limits.queued_bytes_memory_max)
    }

    /// Publishers do not wait for it.
    fn leave_full(&mut self) {
        if let Some(seldom) = self.seldom_if_any() {
            seldom.full_since = None;
            self.leave_seldom();
        }
    }

    /// Whether it may have no place for a packet of so many bytes, the largest there can be.
    fn is_near_limit(&self, limits: &Limits, packet: usize) -> bool {
        let after = |bytes: usize| bytes.saturating_add(packet);
        self.outbound.waiting_len() >= limits.queued_messages_max
            || after(self.queued_bytes_all()) >= limits.queued_bytes_max
            || after(self.queued_bytes) >= limits.queued_bytes_memory_max
    }
}

impl Engine {
    /// Whether a PUBLISH is not to be given to [`Self::on_publish`] before something has room, for its version knows no
    /// refusal. One of MQTT 5 is refused, with Quota exceeded. 3.4.2.1, 3.5.2.1.
    #[must_use]
    pub fn must_wait(
        &mut self,
        connection: ConnectionKey,
        publish: &Publish<'_>,
        now: Instant,
    ) -> Option<Hold> {
        let lacks_retained_room = self.lacks_retained_room(publish);
        if !self.is_storage_low && !lacks_retained_room && !self.may_lack_room(publish) {
            return None;
        }
        let found = self.connections.get(connection)?;
        let (version, session) = (found.version, found.session);
        // What is refused anyway need not wait for that.
        if version == Version::V5 || self.check_publish(connection, publish).is_err() {
            return None;
        }
        if self.lacks_storage(session, publish) {
            return Some(Hold::Disk);
        }
        let lacks_room = lacks_retained_room && !self.is_repeated(session, publish)
            || self.lacks_room(session, publish, now);
        lacks_room.then_some(Hold::Room)
    }

    /// Whether it is worth a look.
    fn may_lack_room(&self, publish: &Publish<'_>) -> bool {
        publish.qos != Qos::AtMostOnce
            && self.limits.overflow_policy == OverflowPolicy::Refuse
            && (!self.full.is_empty() || self.is_memory_tight())
    }

    /// Whether nobody would keep a message that its publisher could believe to be kept, or somebody who is still waited
    /// for would not.
    pub(crate) fn lacks_room(
        &mut self,
        publisher: SessionKey,
        publish: &Publish<'_>,
        now: Instant,
    ) -> bool {
        if !self.may_lack_room(publish) || self.is_repeated(publisher, publish) {
            return false;
        }
        let matches = self.matches(publish.topic);
        let mut rooms = self.rooms_elsewhere(&matches, now);
        let level = self.config.levels.of(publish.topic);
        let bytes = charge_of(publish);
        let mut newly_full = Vec::new();
        self.work += matches.rows.len() as u64 / LOOKS_PER_UNIT;
        for row in matches.rows.iter() {
            let Some(grant) = row.for_session(Some(publisher)) else {
                continue;
            };
            let qos = publish.qos.min(grant.qos);
            if let Some(room) = self.room_of(row.session, (level, qos, bytes), now) {
                rooms.add(room);
                if room == Room::Full {
                    newly_full.push(row.session);
                }
            }
        }
        for group in &matches.groups {
            let mut of_group = Rooms::default();
            let mut looks = 0;
            for (key, granted) in self.shared.members(*group) {
                looks += 1;
                if !may_receive(&self.rights, &self.sessions, key, publish.topic) {
                    continue;
                }
                let qos = publish.qos.min(granted);
                // QoS 0 promises nothing.
                let room = self.room_of(key, (level, qos, bytes), now);
                of_group.add(room.unwrap_or(Room::Free));
                // One member is enough.
                if of_group.has_free {
                    break;
                }
            }
            self.work += 1 + looks / LOOKS_PER_UNIT;
            if !of_group.has_free {
                let name = self.shared.key_of(*group).unwrap_or_default();
                for shard in self.shared.others(*group) {
                    let since = self.full.elsewhere.of_group(shard, name);
                    of_group.add(since.map_or(Room::Free, |since| self.room_since(since, now)));
                }
            }
            if of_group.has_free {
                rooms.has_free = true;
            } else {
                rooms.has_full |= of_group.has_full;
                rooms.has_given_up |= of_group.has_given_up;
            }
        }
        // From now on its time runs.
        for key in newly_full {
            self.mark_full(key, now);
        }
        rooms.refuses()
    }

    /// What other shards say.
    fn rooms_elsewhere(&mut self, matches: &Matches, now: Instant) -> Rooms {
        let mut rooms = Rooms::default();
        if matches.remote.is_empty() {
            return rooms;
        }
        rooms.has_free = !matches.remote_free.is_empty();
        let full = self.full.elsewhere.of_topic(matches.topic());
        self.work += full.len() as u64 / LOOKS_PER_UNIT;
        for (shard, since) in full {
            if matches.remote.contains(shard) {
                rooms.add(self.room_since(since, now));
            }
        }
        rooms
    }

    fn room_since(&self, since: Instant, now: Instant) -> Room {
        if now.saturating_duration_since(since) >= self.limits.overflow_patience {
            Room::GivenUp
        } else {
            Room::Full
        }
    }

    /// Whether this Session has room for a message; `None` if it gets none that is kept.
    fn room_of(
        &self,
        key: SessionKey,
        (level, qos, bytes): (Level, Qos, usize),
        now: Instant,
    ) -> Option<Room> {
        let session = self.sessions.get(key)?;
        if qos == Qos::AtMostOnce || session.link.is_none() && !session.is_durable() {
            return None;
        }
        if let Some(since) = self.full.sessions.get(&key) {
            return Some(self.room_since(*since, now));
        }
        Some(
            match self.place_for(key, bytes, session.stores(level, qos)) {
                Some(_) => Room::Free,
                // It is not for its own sake that there is no memory, so it is not given up.
                None => Room::Full,
            },
        )
    }

    /// Whether a message could not be retained, and its publisher could believe that it is. One of MQTT 5 hears of it
    /// when it is taken.
    fn lacks_retained_room(&self, publish: &Publish<'_>) -> bool {
        let is_promised = publish.retain
            && publish.qos != Qos::AtMostOnce
            && self.limits.overflow_policy == OverflowPolicy::Refuse;
        if !is_promised || publish.payload.is_empty() {
            return false;
        }
        let bytes = charge_of(publish);
        self.retained.lacks_room(publish.topic, bytes)
            || self.is_memory_short && !self.retained.has(publish.topic)
    }

    /// Whether a Session is full now that was not; publishers hear of it from here on.
    pub(crate) fn judge_full(&mut self, key: SessionKey, now: Instant) {
        if self.limits.overflow_policy != OverflowPolicy::Refuse {
            return;
        }
        let limits = Arc::clone(self.limits_of(key));
        let packet = self.packet_size_max_bytes;
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.is_at_limit(&limits) {
            self.mark_full(key, now);
        } else if session.is_near_limit(&limits, packet) {
            self.full.near.insert(key);
        }
    }

    pub(crate) fn mark_full(&mut self, key: SessionKey, now: Instant) {
        self.touch(key);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let since = *session.seldom_mut().full_since.get_or_insert(now);
        if self.full.sessions.contains_key(&key) {
            return;
        }
        self.full.sessions.insert(key, since);
        let filters: Vec<_> = session.filters.iter().collect();
        for filter in filters {
            self.change_full_filter(&filter, (since, key), true);
        }
    }

    /// Those that were full for want of memory have room when there is memory again.
    pub(crate) fn judge_memory(&mut self) {
        if self.full.sessions.is_empty() {
            return;
        }
        let is_tight = self.is_memory_tight();
        if std::mem::replace(&mut self.full.was_memory_tight, is_tight) && !is_tight {
            let keys: Vec<_> = self.full.sessions.keys().copied().collect();
            for key in keys {
                self.judge_room(key);
            }
        }
    }

    /// Whether a Session has room again.
    pub(crate) fn judge_room(&mut self, key: SessionKey) {
        let full = &self.full;
        if full.sessions.is_empty() && full.near.is_empty() && full.emptying.is_empty() {
            return;
        }
        let limits = Arc::clone(self.limits_of(key));
        let packet = self.packet_size_max_bytes;
        let is_memory_tight = self.is_memory_tight();
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        // Who has taken the memory of all is not waited for again before it has given nearly all of it back.
        let is_modest = !is_memory_tight || session.queued_bytes <= LITTLE_BYTES;
        if is_modest && session.is_below(&limits, WAITED_FOR_AGAIN) {
            session.leave_full();
            self.full.emptying.remove(&key);
        }
        if !session.is_near_limit(&limits, packet) {
            self.full.near.remove(&key);
        }
        if is_modest && session.is_below(&limits, HAS_ROOM) {
            self.unmark_full(key);
        }
    }

    /// It has room, or ends.
    pub(crate) fn unmark_full(&mut self, key: SessionKey) {
        let Some(since) = self.full.sessions.remove(&key) else {
            return;
        };
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        if session.seldom().full_since.is_some() {
            self.full.emptying.insert(key);
        }
        let filters: Vec<_> = session.filters.iter().collect();
        for filter in filters {
            self.change_full_filter(&filter, (since, key), false);
        }
    }

    /// Publishers do not wait for what is full any more: whoever is full later is so for the first time.
    pub(crate) fn forget_full(&mut self, key: SessionKey) {
        self.unmark_full(key);
        self.full.forget(key);
        if let Some(session) = self.sessions.get_mut(key) {
            session.leave_full();
            self.touch(key);
        }
    }

    /// A Session gains a Subscription, or has lost one.
    pub(crate) fn on_filter(&mut self, key: SessionKey, filter: &str, is_there: bool) {
        if self.full.filters.is_empty() && self.full.sessions.is_empty() {
            return;
        }
        if let Some(since) = self.full.sessions.get(&key) {
            self.change_full_filter(filter, (*since, key), is_there);
        } else {
            // All may be some now, or the other way round.
            self.announce_full(filter);
        }
    }

    fn change_full_filter(&mut self, filter: &str, full: (Instant, SessionKey), is_full: bool) {
        let entry = self.full.filters.entry(filter.into()).or_default();
        if is_full {
            entry.sessions.insert(full);
        } else {
            entry.sessions.remove(&full);
        }
        self.announce_full(filter);
    }

    /// Tells the other shards what has changed of this Topic Filter, if anything.
    fn announce_full(&mut self, filter: &str) {
        let count = if split_shared(filter).is_some() {
            let group = self.shared.find(filter);
            group.map_or(0, |group| self.shared.member_count(group))
        } else {
            self.subscriptions.session_count(filter)
        };
        let Some(entry) = self.full.filters.get_mut(filter) else {
            return;
        };
        // Who is full for longest may be given up already, and is not the one that is waited for.
        let now = entry.sessions.last().map(|(since, _)| {
            let is_some = entry.sessions.len() < count;
            let is_full = if is_some {
                FullThere::Some
            } else {
                FullThere::All
            };
            (is_full, *since)
        });
        let before = std::mem::replace(&mut entry.announced, now);
        let Some((name, _)) = self.full.filters.get_key_value(filter) else {
            return;
        };
        let name = Arc::clone(name);
        if now.is_none() {
            self.full.filters.remove(filter);
        }
        if before != now {
            let (is_full, since) = now.unwrap_or((FullThere::None, self.started_at));
            self.routing.announce(|| ShardItem::Full {
                filter: Arc::clone(&name),
                is_full,
                since,
            });
        }
    }

    /// Another shard says whether its Sessions of this Topic Filter are full.
    pub(crate) fn on_full_elsewhere(
        &mut self,
        from: ShardIndex,
        filter: &Arc<str>,
        (is_full, since): (FullThere, Instant),
    ) {
        let is_all = is_full == FullThere::All;
        if split_shared(filter).is_some() {
            let since = is_all.then_some(since);
            self.full.elsewhere.hear_of_group(from, filter, since);
            return;
        }
        self.subscriptions.set_remote_full(filter, from, is_all);
        let since = (is_full != FullThere::None).then_some(since);
        self.full.elsewhere.hear(from, filter, since);
    }

    /// Whether this Session is full, for a choice among members.
    pub(crate) fn is_full(full: &Full, key: SessionKey) -> bool {
        full.sessions.contains_key(&key)
    }
}

/// What a PUBLISH will be charged for, about.
fn charge_of(publish: &Publish<'_>) -> usize {
    size_of::<proto::Message>() + publish.topic.len() + publish.payload.len() + EXTRA_BYTES
}

/// At so many Sessions is looked, for room, in the time that a delivery takes.
const LOOKS_PER_UNIT: u64 = 8;
/// Properties and the place in a queue, about.
const EXTRA_BYTES: usize = 128;
/// What a Session may have in memory that is waited for although memory is tight.
const LITTLE_BYTES: usize = 64 * 1024;
/// Eighths of its limits: with so much or less in its queue, a Session has room.
const HAS_ROOM: usize = 7;
/// With so much or less, publishers wait for it again.
const WAITED_FOR_AGAIN: usize = 4;

/// What a publisher is told.
pub(crate) const QUEUE_FULL: &str =
    "a subscriber's queue, or the store of retained messages, is full";
