//! Retained messages: storing what is published, and sending it to new Subscriptions at a pace.
//!
//! Owns: which replays are under way, and how much of them one turn does.
//! Does not own: the messages (see `retained`), when there is a replay (see `subscribe`).
//! Start reading at [`Engine::start_replay`]. Invariants: a replay begins when its SUBACK is due, brings
//! nothing that was written later, and stands still while its Session cannot take more.

use std::sync::Arc;
use std::time::Instant;

use proto::Message;
use store::Record;

use crate::Engine;
use crate::delivery::Terms;
use crate::keys::SessionKey;
use crate::pending::Wait;
use crate::publish::message_record;
use crate::retained::{Applied, Replay, Stamp};

/// A replay, waiting for its SUBACK or under way.
#[derive(Debug)]
pub(crate) struct ReplayJob {
    session: SessionKey,
    replay: Replay,
    wait: Wait,
}

impl ReplayJob {
    fn is_of(&self, session: SessionKey, filter: &str) -> bool {
        self.session == session && self.replay.filter() == filter
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
        let Ok((stamp, applied)) = self.retained.publish(message, now) else {
            // Full: it is delivered, but not kept.
            self.counters.dropped_queue_full += 1;
            return (None, Wait::default());
        };
        self.count_retained();
        let of = (stamp.counter, stamp.shard.0);
        // What the Server says about itself is not kept over a restart.
        if crate::publish::is_server_topic(message.topic()) {
            return (Some(stamp), Wait::default());
        }
        let record = match applied {
            Applied::Stored(_) => Record::RetainedPut {
                message: message_record(message, now),
                stamp: of,
            },
            Applied::Removed(_) => {
                let topic = bytes::Bytes::copy_from_slice(message.topic().as_bytes());
                Record::RetainedDelete { topic, stamp: of }
            }
            Applied::Superseded => return (Some(stamp), Wait::default()),
        };
        let wait = self.record(record);
        (Some(stamp), wait)
    }

    /// Another shard has stored it.
    pub(crate) fn apply_retained(&mut self, message: &Arc<Message>, stamp: Stamp) {
        drop(self.retained.apply(message, stamp));
        self.count_retained();
    }

    /// Removes some of what has expired.
    pub(crate) fn expire_retained(&mut self, now: Instant) {
        let expired = self.retained.remove_expired(now, EXPIRED_PER_TURN_MAX);
        if !expired.is_empty() {
            self.counters.messages_expired += expired.len() as u64;
            self.count_retained();
        }
    }

    fn count_retained(&mut self) {
        self.counters.retained_messages = self.retained.len() as u64;
        self.counters.retained_bytes = self.retained.bytes() as u64;
    }

    /// Sends what is retained for `filter` once `wait` is over. A replay of the same filter starts anew.
    pub(crate) fn start_replay(&mut self, session: SessionKey, filter: &str, wait: Wait) {
        self.cancel_replay(session, filter);
        self.replays_waiting.push(ReplayJob {
            session,
            replay: Replay::new(filter),
            wait,
        });
        self.begin_replays();
    }

    /// Begins what no longer has to wait. From here on every shard knows the Subscription, so it gets
    /// what is written now as it comes, and the replay ends with what was written before.
    pub(crate) fn begin_replays(&mut self) {
        if self.replays_waiting.is_empty() {
            return;
        }
        for mut job in std::mem::take(&mut self.replays_waiting) {
            if self.is_over(&job.wait) {
                job.replay.end_at(self.retained.arrivals());
                self.replays.push_back(job);
            } else {
                self.replays_waiting.push(job);
            }
        }
    }

    pub(crate) fn cancel_replay(&mut self, session: SessionKey, filter: &str) {
        self.replays_waiting
            .retain(|job| !job.is_of(session, filter));
        self.replays.retain(|job| !job.is_of(session, filter));
    }

    pub(crate) fn cancel_replays(&mut self, session: SessionKey) {
        self.replays_waiting.retain(|job| job.session != session);
        self.replays.retain(|job| job.session != session);
    }

    pub(crate) fn has_runnable_replay(&self) -> bool {
        self.replays.iter().any(|job| self.is_runnable(job))
    }

    /// Whether its Session can take more.
    fn is_runnable(&self, job: &ReplayJob) -> bool {
        self.sessions.get(job.session).is_none_or(|session| {
            session.link.as_ref().is_none_or(|link| !link.is_congested)
                && session.outbound.waiting_len() < WAITING_MAX
        })
    }

    /// Does one turn's share of the replays, in turn.
    pub(crate) fn run_replays(&mut self, now: Instant) {
        let mut budget = self.limits.retained_replay_per_turn;
        for _ in 0..self.replays.len() {
            let Some(mut job) = self.replays.pop_front() else {
                return;
            };
            if budget > 0 && self.is_runnable(&job) {
                let share = budget.min(SHARE_MAX);
                budget -= share;
                if !self.advance(&mut job, share, now) {
                    continue;
                }
            }
            self.replays.push_back(job);
        }
    }

    /// Returns whether there is more to do for this one.
    fn advance(&mut self, job: &mut ReplayJob, share: usize, now: Instant) -> bool {
        let Some(subscription) = self
            .subscriptions
            .find(job.session, job.replay.filter())
            .copied()
        else {
            return false;
        };
        let identifiers: Option<Arc<[u32]>> = subscription
            .subscription_identifier
            .map(|identifier| Arc::from([identifier]));
        for message in job.replay.next_batch(&self.retained, now, share) {
            let terms = Terms {
                qos: message.qos().min(subscription.qos),
                // [MQTT-3.3.1-8] [v3.1.1 MQTT-3.3.1-8]
                retain: true,
                subscription_identifiers: identifiers.clone(),
            };
            self.deliver(job.session, &message, terms, now);
            self.record_enqueued(&message, now);
        }
        !job.replay.is_done()
    }
}

/// Topics looked at for one replay before it is the next one's turn.
const SHARE_MAX: usize = 64;

/// A Session with this many messages waiting gets no more retained ones until some have left.
const WAITING_MAX: usize = 1024;

/// Retained messages removed in one go because they have expired.
const EXPIRED_PER_TURN_MAX: usize = 256;
