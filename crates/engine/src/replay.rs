//! Retained messages: storing what is published, and sending it to new Subscriptions at a pace.
//!
//! Owns: which shard keeps what is retained for a topic, which replays are under way, and how much of
//! them one turn does.
//! Does not own: the messages (see `retained`), when there is a replay (see `subscribe`).
//! Start reading at [`Engine::start_replay`]. Invariants: a replay begins when its SUBACK is due, brings
//! nothing that was written later, and stands still while its Session cannot take more.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use proto::{Message, Qos};
use store::{Level, Record};

use crate::Engine;
use crate::delivery::{BURST_BYTES_MAX, HELD_MAX, Terms};
use crate::keys::SessionKey;
use crate::limits::Limits;
use crate::memory_short::SHORT_QUEUE_BYTES;
use crate::pending::Wait;
use crate::publish::is_server_topic;
use crate::retained::{Applied, Budget, Replay, Stamp};
use crate::sessions::Session;

/// A replay whose SUBACK is not due yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    replay: Replay,
    wait: Wait,
}

impl Session {
    /// Whether its replays need not stand still.
    fn can_take_replay(&self, limits: &Limits, is_memory_short: bool) -> bool {
        !self.replay_room(limits, is_memory_short).is_none()
    }

    /// What of the retained messages it can take now. They fill half of its queue at most: the other half is for what is
    /// published, and what is retained can wait where it is. Nor do they fill what may wait for the store. While memory is
    /// short, they fill half of what little may still wait, and of a Client that is away nothing.
    fn replay_room(&self, limits: &Limits, is_memory_short: bool) -> Budget {
        let half_left = |bytes: usize, bytes_max: usize| (bytes_max / 2 + 1).saturating_sub(bytes);
        let mut bytes = half_left(self.queued_bytes_all(), limits.queued_bytes_max)
            .min(half_left(self.queued_bytes, limits.queued_bytes_memory_max));
        if is_memory_short {
            bytes = bytes.min(half_left(self.queued_bytes, SHORT_QUEUE_BYTES));
        }
        let waiting_max = WAITING_MAX.min(limits.queued_messages_max / 2).max(1);
        let queue = waiting_max.saturating_sub(self.outbound.waiting_len());
        let looks = match &self.link {
            Some(link) if link.is_congested => 0,
            Some(link) => queue.min((HELD_MAX / 2).saturating_sub(link.held.len())),
            None if is_memory_short => 0,
            None => queue,
        };
        Budget { looks, bytes }
    }
}

impl Engine {
    /// A PUBLISH with RETAIN accepted in this shard: stores it. Returns the stamp for the other shards.
    pub(crate) fn retain(&mut self, message: &Arc<Message>, now: Instant) -> (Option<Stamp>, Wait) {
        // [v3.1.1 MQTT-3.3.1-12] Only RETAIN touches what is retained, and it outlives every Session,
        // [v3.1.1 MQTT-3.1.2-7].
        if !message.retain() {
            return (None, Wait::default());
        }
        self.work += WORK_PER_RETAINED;
        self.make_retained_room(now);
        let Ok((stamp, applied)) = self.retained.publish(message) else {
            // Full: a Will is delivered, but not kept; there is no one to be told.
            self.counters.dropped_retained_full += 1;
            return (None, Wait::default());
        };
        self.count_retained();
        (Some(stamp), self.record_retained(message, &applied))
    }

    /// Another shard has stored it; its answer waits for the returned.
    pub(crate) fn apply_retained(&mut self, message: &Arc<Message>, stamp: Stamp) -> Wait {
        let applied = self.retained.apply(message, stamp);
        self.count_retained();
        self.record_retained(message, &applied)
    }

    /// Keeps a write, if this shard is the one that keeps those of its topic: so the log has them in the
    /// order in which they took effect, and the last one is the last one everywhere.
    fn record_retained(&mut self, message: &Message, applied: &Applied) -> Wait {
        let (topic, level) = (message.topic(), self.level);
        if !self.keeps_retained(topic) {
            return Wait::default();
        }
        if level == Level::Memory {
            // What an earlier process kept does not come back in place of this.
            if self.retained_before.remove(topic) {
                self.record_retained_gone(topic, Level::Written);
            }
            return Wait::default();
        }
        match applied {
            Applied::Stored(_) => {
                let message = self.message_record(message);
                self.record_at(level, Record::RetainedPut { message })
            }
            Applied::Removed(Some(_)) => self.record_retained_gone(topic, level),
            // What it would have changed was changed before, and has to be safe as well.
            Applied::Removed(None) | Applied::Superseded => self.wait_at(level),
        }
    }

    fn record_retained_gone(&mut self, topic: &str, level: Level) -> Wait {
        let topic = Bytes::copy_from_slice(topic.as_bytes());
        self.record_at(level, Record::RetainedDelete { topic })
    }

    /// A restart has found a retained message of `topic`, whatever its level is now.
    pub(crate) fn note_retained_before(&mut self, topic: &str) {
        if self.keeps_retained(topic) && self.config.levels.of(topic) == Level::Memory {
            self.retained_before.insert(topic.into());
        }
    }

    /// Whether the records of this topic are this shard's to write. What the Server says about itself is
    /// not kept over a restart.
    fn keeps_retained(&self, topic: &str) -> bool {
        let hash = self.hasher.hash_one(topic);
        let keeper = hash % u64::from(self.config.shard_count);
        keeper == u64::from(self.config.shard.0) && !is_server_topic(topic)
    }

    /// Removes some of what has expired.
    pub(crate) fn expire_retained(&mut self, now: Instant) {
        self.remove_expired_retained(now, EXPIRED_PER_TURN_MAX);
    }

    /// The same before one more is retained.
    pub(crate) fn make_retained_room(&mut self, now: Instant) {
        self.remove_expired_retained(now, EXPIRED_PER_WRITE_MAX);
    }

    fn remove_expired_retained(&mut self, now: Instant, budget: usize) {
        let expired = self.retained.remove_expired(now, budget);
        if expired.is_empty() {
            return;
        }
        self.counters.messages_expired += expired.len() as u64;
        self.count_retained();
        for message in expired {
            let topic = message.topic();
            let is_recorded = self.config.levels.of(topic) > Level::Memory;
            if self.keeps_retained(topic) && (is_recorded || self.retained_before.remove(topic)) {
                // Found again, it has expired again.
                self.record_retained_gone(topic, Level::Written);
            }
        }
    }

    pub(crate) fn count_retained(&mut self) {
        self.counters.retained_messages = self.retained.len() as u64;
        self.counters.retained_bytes = self.retained.bytes() as u64;
    }

    /// Sends what is retained for `filter` once `wait` is over. A replay of the same filter starts anew.
    /// Followed by [`Self::begin_replays`].
    pub(crate) fn start_replay(&mut self, key: SessionKey, filter: &str, wait: Wait) {
        self.cancel_replay(key, filter);
        let replay = Replay::new(filter);
        self.replays_waiting
            .insert((key, filter.into()), Waiting { replay, wait });
    }

    /// Begins what no longer has to wait. From here on every shard knows the Subscription, so it gets
    /// what is written now as it comes, and the replay ends with what was written before.
    pub(crate) fn begin_replays(&mut self) {
        if self.replays_waiting.is_empty() {
            return;
        }
        let mut waiting = std::mem::take(&mut self.replays_waiting);
        let is_due = |_: &_, waiting: &mut Waiting| self.is_over(&waiting.wait);
        let due: Vec<_> = waiting.extract_if(.., is_due).collect();
        self.replays_waiting = waiting;
        for ((key, filter), Waiting { mut replay, .. }) in due {
            replay.end_at(self.retained.arrivals());
            // Most filters of a crowd match nothing that is retained.
            replay.seek(&self.retained, SEEK_MAX);
            if replay.is_done() {
                continue;
            }
            if let Some(session) = self.sessions.get_mut(key) {
                session.seldom_mut().replays.insert(filter, replay);
                self.touch(key);
                self.resume_replays(key);
            }
        }
    }

    pub(crate) fn cancel_replay(&mut self, key: SessionKey, filter: &str) {
        if !self.replays_waiting.is_empty() {
            self.replays_waiting.remove(&(key, filter.into()));
        }
        let session = self.sessions.get_mut(key);
        if let Some(seldom) = session.and_then(Session::seldom_if_any) {
            seldom.replays.remove(filter);
            self.touch(key);
        }
    }

    /// The Session may be able to take more: its replays, if it has some, are looked at again.
    pub(crate) fn resume_replays(&mut self, key: SessionKey) {
        if self.is_runnable(key)
            && let Some(session) = self.sessions.get_mut(key)
            && !std::mem::replace(&mut session.is_replaying, true)
        {
            self.replaying.push_back(key);
        }
    }

    pub(crate) fn has_runnable_replay(&self) -> bool {
        self.replaying.iter().any(|key| self.is_runnable(*key))
    }

    /// Whether the Session has a replay to go on with, and can take more.
    fn is_runnable(&self, key: SessionKey) -> bool {
        self.sessions.get(key).is_some_and(|session| {
            session.is_replay_due()
                && session
                    .can_take_replay(self.limits_for(&session.principal), self.is_memory_short)
        })
    }

    /// Does one turn's share of the replays, in turn. A Session that can take no more leaves the list
    /// until [`Self::resume_replays`], so that it costs the others nothing.
    pub(crate) fn run_replays(&mut self, now: Instant) {
        let mut budget = self.limits.retained_replay_per_turn;
        // Few share all of it, many wait for their turn.
        let share_max = SHARE_MIN.max(budget / self.replaying.len().max(1));
        for _ in 0..self.replaying.len() {
            let Some(key) = self.replaying.pop_front() else {
                return;
            };
            if budget > 0 && self.is_runnable(key) {
                let share = budget.min(share_max);
                budget -= self.advance_first(key, share, now).clamp(1, share);
            }
            let is_runnable = self.is_runnable(key);
            // The key may stand for another Session by now.
            let Some(session) = self.sessions.get_mut(key).filter(|one| one.is_replaying) else {
                continue;
            };
            if is_runnable {
                self.replaying.push_back(key);
            } else {
                session.is_replaying = false;
            }
        }
    }

    /// Does a share of the Session's first replay; returns at how many topics it has looked.
    fn advance_first(&mut self, key: SessionKey, share: usize, now: Instant) -> usize {
        let first = self
            .sessions
            .get_mut(key)
            .and_then(Session::seldom_if_any)
            .and_then(|seldom| seldom.replays.pop_first());
        let Some((filter, mut replay)) = first else {
            return 0;
        };
        let mut left = share;
        if self.advance(key, &mut replay, &mut left, now)
            && let Some(session) = self.sessions.get_mut(key)
        {
            session.seldom_mut().replays.insert(filter, replay);
        }
        self.touch(key);
        share - left
    }

    /// Returns whether there is more to do for this one.
    fn advance(
        &mut self,
        key: SessionKey,
        replay: &mut Replay,
        share: &mut usize,
        now: Instant,
    ) -> bool {
        let subscription = self.subscriptions.find(key, replay.filter());
        let Some(subscription) = subscription else {
            return false;
        };
        let identifiers: Option<Arc<[u32]>> = subscription
            .subscription_identifier
            .map(|identifier| Arc::from([identifier]));
        let session = self.sessions.get(key);
        let may_receive_all = session.is_some_and(|session| {
            let limits = self.limits_for(&session.principal);
            let room = session.replay_room(limits, self.is_memory_short);
            // Rules are looked at as often as topics, at most.
            let looks = room.looks.min(*share);
            self.rights.may_receive_all(session, replay.filter(), looks)
        });
        let mut bytes = BURST_BYTES_MAX;
        let mut batch = std::mem::take(&mut self.replay_batch);
        while !replay.is_done() {
            let session = self.sessions.get(key);
            let Some(room) = session.map(|session| {
                session.replay_room(self.limits_for(&session.principal), self.is_memory_short)
            }) else {
                break;
            };
            let budget = Budget {
                looks: room.looks.min(*share).min(LOOKS_AT_ONCE),
                bytes: room.bytes.min(bytes),
            };
            if budget.is_none() {
                break;
            }
            let mut left = budget;
            replay.next_batch(&self.retained, now, &mut left, &mut batch);
            *share -= budget.looks - left.looks;
            bytes -= budget.bytes - left.bytes;
            for message in batch.drain(..) {
                let terms = Terms {
                    qos: message.qos().min(subscription.qos),
                    // [MQTT-3.3.1-8] [v3.1.1 MQTT-3.3.1-8]
                    retain: true,
                    subscription_identifiers: identifiers.clone(),
                    gate: None,
                };
                if !may_receive_all && !self.check_receive(key, &message, now) {
                    continue;
                }
                if terms.qos == Qos::AtMostOnce {
                    self.deliver(key, &message, terms, now);
                    continue;
                }
                self.begin_routing(&message);
                self.deliver(key, &message, terms, now);
                self.record_enqueued(&message, None);
            }
        }
        self.replay_batch = batch;
        !replay.is_done()
    }
}

/// Topics looked at to find out whether there is something to replay at all.
const SEEK_MAX: usize = 2;

/// Topics looked at for one replay, at least, before it is the next one's turn.
const SHARE_MIN: usize = 64;

/// A Session with this many messages waiting gets no more retained ones until some have left.
const WAITING_MAX: usize = 1024;

/// After so many topics it is looked at again whether the Session can take more.
const LOOKS_AT_ONCE: usize = 64;

/// Expired retained messages that one write may remove.
const EXPIRED_PER_WRITE_MAX: usize = 8;

/// Retained messages removed in one go because they have expired.
const EXPIRED_PER_TURN_MAX: usize = 256;

/// What a message that is retained counts as, in deliveries.
const WORK_PER_RETAINED: u64 = 16;
