//! What a restart finds becomes Sessions, Subscriptions, Wills and retained messages again.
//!
//! Owns: [`Engine::restore`], [`Engine::is_ready`], how intervals go on counting over a restart.
//! Does not own: how it is found (see `store`), queued messages, which stay on disk (see `queue`).
//! Start reading at [`Engine::restore`]. Invariants: every shard restores the same retained messages in
//! the same order; a clock that went back makes no interval longer than it was at its beginning.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::packet::{Will, WillProperties};
use proto::session::{Outbound, Spilled};
use proto::topic::split_shared;
use proto::{Message, PacketIdentifier, Qos};
use store::{
    MessageRecord, RestoredSession, SessionRecord, SubscriptionRecord, UnixMillis, WillRecord,
};

use crate::keys::SessionKey;
use crate::retained::Stamp;
use crate::sessions::{Session, WillInStore};
use crate::subscriptions::Subscription;
use crate::{Engine, Principal, ShardIndex};

impl Engine {
    /// Takes what a restart found: the `sessions` whose home is this shard, in any order, and all
    /// `retained` messages, in the same order in every shard. To be called in every shard before
    /// anything else. O(everything found).
    pub fn restore(
        &mut self,
        mut sessions: Vec<RestoredSession>,
        retained: Vec<MessageRecord>,
        now: Instant,
    ) {
        self.routing.begin_restore();
        for (number, record) in (1..).zip(&retained) {
            self.restore_retained(record, number, now);
        }
        self.count_retained();
        // In the order in which they began, so that the last one of a Client has its name.
        sessions.sort_by_key(|found| found.session.session);
        let mut principal = Arc::default();
        for found in sessions {
            // Many are of one user, or of nobody from one place.
            let of_this_one = Principal::from_record(&found.session);
            if *principal != of_this_one {
                principal = Arc::new(of_this_one);
            }
            self.restore_session(found, &principal, now);
            if self.batch.len() >= RECORDS_PER_BATCH_MAX {
                self.cut_batch();
            }
        }
        self.counters.sessions = self.sessions.len() as u64;
        self.routing.finish_restore();
    }

    /// Whether this shard may serve: what it found at its start is known to the other shards, and what
    /// they found is known here.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.routing.is_ready()
    }

    /// A message as it was kept; `None` if it is none.
    pub(crate) fn message_from(&self, record: &MessageRecord, now: Instant) -> Option<Message> {
        let qos = Qos::from_level(record.qos)?;
        let expiry = record.expiry.map(|expiry| {
            let waited = self.waited(expiry.accepted_at, now);
            let seconds = expiry.interval_seconds;
            match now.checked_sub(waited) {
                Some(accepted_at) => (accepted_at, seconds),
                // Before the beginning of this machine's time: what is left begins now.
                None => (now, seconds.saturating_sub(whole_seconds(waited))),
            }
        });
        Message::from_parts(
            &record.topic,
            &record.properties,
            &record.payload,
            (qos, record.retain),
            expiry,
            now,
        )
    }

    /// How long ago `since` was; zero if the clock has gone back behind it.
    fn waited(&self, since: UnixMillis, now: Instant) -> Duration {
        Duration::from_millis(self.unix_millis(now).0.saturating_sub(since.0))
    }

    /// When an interval that began at `since`, or begins now, ends: `now` if that is past already.
    fn end_of(&self, seconds: u32, since: Option<UnixMillis>, now: Instant) -> Option<Instant> {
        let waited = since.map_or(Duration::ZERO, |since| self.waited(since, now));
        let left = Duration::from_secs(u64::from(seconds)).saturating_sub(waited);
        now.checked_add(left)
    }

    fn restore_retained(&mut self, record: &MessageRecord, number: u64, now: Instant) {
        let Some(message) = self.message_from(record, now) else {
            return;
        };
        let stamp = Stamp {
            counter: number,
            shard: ShardIndex(0),
        };
        self.note_retained_before(message.topic());
        drop(self.retained.apply(&Arc::new(message), stamp));
    }

    fn restore_session(
        &mut self,
        found: RestoredSession,
        principal: &Arc<Principal>,
        now: Instant,
    ) {
        let record = &found.session;
        // An older Session of the same Client has ended, but for its Will.
        let older = self.sessions.find(&record.client_id);
        let mut session = Session::new(
            record.session,
            Arc::clone(&record.client_id),
            record.expiry_seconds,
        );
        session.is_stored = true;
        session.principal = Arc::clone(principal);
        let sent_max = u64::from(self.limits_for(principal).maximum_inflight_messages);
        let spilled = found.queue.map(|queue| {
            self.counters.spilled_messages += queue.count;
            self.counters.queued_messages += queue.count;
            self.counters.spilled_bytes += queue.bytes;
            self.counters.queued_bytes += queue.bytes;
            let numbers = (queue.first_seq, queue.last_seq);
            Spilled::restored(numbers, queue.count, queue.bytes, sent_max)
        });
        session.outbound = Outbound::restored(&found.released, spilled, record.queue_seq);
        session.inbound_number = record.inbound_number;
        session.disconnected_at = record.disconnected_at;
        for packet_id in found.inbound {
            if let Some(packet_id) = PacketIdentifier::new(packet_id) {
                session.receiving_mut().inbound.on_publish(packet_id);
            }
        }
        session.will = found.will.as_ref().and_then(restored_will);
        if found.will.is_some() {
            session.will_in_store = WillInStore::Current;
        }
        let key = self.sessions.insert(session);
        self.count_session(key);
        if let Some(older) = older {
            self.end_at_start(older, now);
        }
        for subscription in &found.subscriptions {
            self.restore_subscription(key, subscription);
        }
        self.restore_deadlines(key, record, now);
    }

    /// The Session has ended already: nothing is sent to it any more, and its Will is due.
    fn end_at_start(&mut self, key: SessionKey, now: Instant) {
        self.drop_subscriptions(key);
        let session = self.sessions.get_mut(key);
        if let Some(deadline) = session.and_then(|session| session.expiry_deadline.take()) {
            self.timers
                .clear(crate::timers::Due::SessionExpiry(key), deadline);
        }
        self.set_expiry_deadline(key, now);
    }

    fn restore_subscription(&mut self, key: SessionKey, record: &SubscriptionRecord) {
        let filter = &*record.filter;
        let subscription = Subscription {
            qos: Qos::from_level(record.qos).unwrap_or(Qos::AtMostOnce),
            no_local: record.no_local,
            retain_as_published: record.retain_as_published,
            subscription_identifier: record.subscription_identifier,
        };
        let is_shared = split_shared(filter).is_some();
        self.hang_in(key, filter, subscription, false);
        self.counters.subscriptions += 1;
        self.counters.shared_subscriptions += u64::from(is_shared);
        self.take_subscription(key, None);
        if let Some(session) = self.sessions.get_mut(key) {
            session.filters.insert(filter);
            self.touch(key);
        }
    }

    /// Session Expiry and Will Delay go on, or begin now if the Client was connected to the end.
    fn restore_deadlines(&mut self, key: SessionKey, record: &SessionRecord, now: Instant) {
        let since = record.disconnected_at;
        if since.is_none() {
            // Or another restart would let them begin once more.
            self.record_disconnected(key, now);
        }
        // [MQTT-3.1.2-11] [MQTT-4.1.0-2]
        if record.expiry_seconds != u32::MAX
            && let Some(at) = self.end_of(record.expiry_seconds, since, now)
        {
            self.set_expiry_deadline(key, at);
        }
        let will = self.sessions.get(key).and_then(|found| found.will.as_ref());
        let delay = will.map(|will| will.properties.delay_interval_seconds);
        if let Some(at) = delay.and_then(|delay| self.end_of(delay, since, now)) {
            self.set_will_deadline(key, at);
        }
    }
}

fn restored_will(record: &WillRecord) -> Option<Box<Will>> {
    let message = &record.message;
    Some(Box::new(Will {
        topic: std::str::from_utf8(&message.topic).ok()?.to_owned(),
        payload: message.payload.clone(),
        qos: Qos::from_level(message.qos)?,
        retain: message.retain,
        properties: WillProperties {
            delay_interval_seconds: record.delay_seconds,
            message_expiry_interval_seconds: message.expiry.map(|expiry| expiry.interval_seconds),
            forwarded: message.properties.clone(),
        },
    }))
}

fn whole_seconds(span: Duration) -> u32 {
    u32::try_from(span.as_secs()).unwrap_or(u32::MAX)
}

/// A batch is cut when it has this many records, so that the store can write it in pieces.
const RECORDS_PER_BATCH_MAX: usize = 1024;
