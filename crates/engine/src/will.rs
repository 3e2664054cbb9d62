//! Will Messages: kept for a Client, published when it is lost.
//!
//! Owns: when a Will is published, delayed, discarded. Does not own: how it is delivered (see `publish`).
//! Start reading at [`Engine::start_will_delay`]. Invariant: a Will is published at most once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::Message;
use proto::packet::Will;
use store::{Record, WillRecord};

use crate::commits::{Effect, Publisher};
use crate::keys::SessionKey;
use crate::pending::Wait;
use crate::publish::Routed;
use crate::sessions::WillInStore;
use crate::timers::Due;
use crate::{Engine, Request};

impl Engine {
    /// The connection is gone without a DISCONNECT that discards the Will: publishes it now or later.
    /// [MQTT-3.1.2-8] [MQTT-3.1.3-9] [v3.1.1 MQTT-3.1.2-8]
    pub(crate) fn start_will_delay(&mut self, key: SessionKey, now: Instant) {
        let session = self.sessions.get(key);
        let Some(will) = session.and_then(|session| session.will.as_ref()) else {
            return;
        };
        let delay_seconds = u64::from(will.properties.delay_interval_seconds);
        match now.checked_add(Duration::from_secs(delay_seconds)) {
            Some(at) if delay_seconds > 0 => self.set_will_deadline(key, at),
            _ => self.publish_will(key, now),
        }
    }

    /// The Will is published at `at`, or by the first [`Self::on_timeout`] after it.
    pub(crate) fn set_will_deadline(&mut self, key: SessionKey, at: Instant) {
        let deadline = self.timers.set(Due::WillDelay(key), at);
        if let Some(session) = self.sessions.get_mut(key) {
            session.will_deadline = Some(deadline);
        }
    }

    /// Publishes the Will of this Session, if it has one.
    pub(crate) fn publish_will(&mut self, key: SessionKey, now: Instant) {
        if let Some(routed) = self.route_will(key, now)
            && let Some(provisional) = routed.provisional
        {
            if let Some(session) = self.sessions.get_mut(key)
                && session.will_in_store == WillInStore::Current
            {
                session.will_in_store = WillInStore::Published(provisional.gate.number);
            }
            self.commit(key, Effect::Will, provisional, routed.wait);
        }
    }

    /// The same, but for the commit of a message that other shards take: forgotten before, it could be
    /// lost there in a crash, and forgotten afterwards without one, it could be published again.
    pub(crate) fn route_will(&mut self, key: SessionKey, now: Instant) -> Option<Routed> {
        let will = self.take_will(key)?;
        let request = Request::Publish {
            topic: &will.topic,
            qos: will.qos,
            retain: will.retain,
        };
        // Now, and not when the Client connected: its rights may have changed since.
        let session = self.sessions.get(key)?;
        let decision = self.rights.decide(session, request);
        // What is asked is asked when the Client connects: afterwards it may be too late.
        let is_asked = self.rights.asks()
            && session.is_will_allowed_by_answer()
            && self.rights.is_open_for(session, request);
        if !decision.is_allowed && !is_asked {
            let rule = decision.reason();
            self.counters.publishes_dropped += 1;
            self.counters.dropped_not_authorized += 1;
            self.tell_denied(key, request, rule, now);
            self.record_will_gone(key);
            return None;
        }
        self.counters.wills_published += 1;
        // [MQTT-3.1.3-10] [MQTT-3.1.2-14] [MQTT-3.1.2-15] [v3.1.1 MQTT-3.1.2-16] [v3.1.1 MQTT-3.1.2-17]
        let message = Arc::new(Message::from_will(&will, now));
        let routed = self.route(&message, Some(key), Publisher::Once(key), now);
        if routed.provisional.is_none() {
            self.record_will_gone(key);
        }
        Some(routed)
    }

    /// [MQTT-3.1.2-10] [v3.1.1 MQTT-3.1.2-10] The Will is not published any more.
    pub(crate) fn discard_will(&mut self, key: SessionKey) {
        if self.take_will(key).is_some() {
            self.record_will_gone(key);
        }
    }

    fn take_will(&mut self, key: SessionKey) -> Option<Box<Will>> {
        let session = self.sessions.get_mut(key)?;
        let deadline = session.will_deadline.take();
        let will = session.will.take();
        self.touch(key);
        if let Some(deadline) = deadline {
            self.timers.clear(Due::WillDelay(key), deadline);
        }
        will
    }

    /// The Will of the Session is none any more; one before it that is published goes with its commit.
    fn record_will_gone(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(key)
            && session.will_in_store == WillInStore::Current
        {
            session.will_in_store = WillInStore::None;
            let session = session.id;
            self.record(Record::WillDelete { session });
        }
    }

    /// Keeps the Will of a durable Session in the store, now or with the commit of the one before.
    pub(crate) fn record_will(&mut self, key: SessionKey) -> Option<Wait> {
        let session = self.sessions.get(key)?;
        session.will.as_ref()?;
        match session.will_in_store {
            WillInStore::Published(number) => Some(self.commits.wait_of(number)),
            WillInStore::None | WillInStore::Current => self.put_will(key),
        }
    }

    /// The commit `number` of a Will is recorded: if that is the one in the store, the one after it takes its place.
    pub(crate) fn record_will_committed(&mut self, key: SessionKey, number: u64) {
        if let Some(session) = self.sessions.get_mut(key)
            && session.will_in_store == WillInStore::Published(number)
        {
            session.will_in_store = WillInStore::Current;
            if self.put_will(key).is_none() {
                self.record_will_gone(key);
            }
        }
    }

    fn put_will(&mut self, key: SessionKey) -> Option<Wait> {
        let session = self.sessions.get_mut(key)?;
        session.will.as_ref()?;
        session.will_in_store = WillInStore::Current;
        let session = self.sessions.get(key)?;
        let will = session.will.as_ref()?;
        let now = self.started_at;
        let record = WillRecord {
            session: session.id,
            message: self.message_record(&Message::from_will(will, now)),
            delay_seconds: will.properties.delay_interval_seconds,
        };
        Some(self.record(Record::WillPut(Box::new(record))))
    }
}
