//! How a Network Connection and a Session end.
//!
//! Owns: DISCONNECT, lost connections, the end of a Session, closing for a reason of ours.
//! Does not own: when a Will is published (see `will`). Start reading at [`Engine::on_closed`].
//! Invariant: whatever ends a connection passes through [`Engine::on_closed`] once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::Version;
use proto::packet::{Disconnect, ReasonCode};
use store::{Level, Record, SessionRecord, UnixMillis};

use crate::commits::{Effect, Publisher};
use crate::keys::SessionKey;
use crate::pending::Wait;
use crate::timers::Due;
use crate::{ConnectionKey, Engine};

impl Engine {
    /// The Client's DISCONNECT. The server closes the socket afterwards.
    pub fn on_disconnect(
        &mut self,
        connection: ConnectionKey,
        disconnect: &Disconnect,
        now: Instant,
    ) {
        let Some(key) = self.on_packet(connection) else {
            return;
        };
        if let Some(asked) = disconnect.session_expiry_interval_seconds {
            let was_zero = self
                .connections
                .get(connection)
                .is_some_and(|connection| connection.connected_with_expiry_zero);
            // Section 3.14.2.2.2: an interval of zero in CONNECT cannot be lengthened afterwards.
            if was_zero && asked != 0 {
                self.close(connection, ReasonCode::ProtocolError, now);
                return;
            }
            let granted = asked.min(self.limits_of(key).session_expiry_max_seconds);
            self.change_expiry(key, granted);
        }
        // [MQTT-3.14.4-3] [MQTT-3.1.2-10] [v3.1.1 MQTT-3.1.2-10] [v3.1.1 MQTT-3.14.4-3]
        if disconnect.reason == ReasonCode::Success || self.version_of(connection) != Version::V5 {
            self.discard_will(key);
        }
        self.on_closed(connection, now);
    }

    fn change_expiry(&mut self, key: SessionKey, expiry_seconds: u32) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.expiry_seconds = expiry_seconds;
        // A Session that is about to end is deleted, once its Will is published.
        if session.is_stored && expiry_seconds > 0 {
            self.record_session(key, None);
        }
    }

    /// Keeps what is to be known of a Session after a restart.
    pub(crate) fn record_session(
        &mut self,
        key: SessionKey,
        disconnected_at: Option<UnixMillis>,
    ) -> Wait {
        self.record_session_at(self.config.levels.of_sessions(), key, disconnected_at)
    }

    /// Keeps when its connection ended; nobody waits for that.
    pub(crate) fn record_disconnected(&mut self, key: SessionKey, now: Instant) {
        let stored = self.sessions.get(key).is_some_and(|found| found.is_stored);
        if stored {
            let at = self.unix_millis(now);
            self.record_session_at(Level::Written, key, Some(at));
        }
    }

    pub(crate) fn record_session_at(
        &mut self,
        level: Level,
        key: SessionKey,
        disconnected_at: Option<UnixMillis>,
    ) -> Wait {
        let Some(session) = self.sessions.get_mut(key) else {
            return Wait::default();
        };
        session.disconnected_at = disconnected_at;
        let record = SessionRecord {
            session: session.id,
            client_id: Arc::clone(&session.client_id),
            expiry_seconds: session.expiry_seconds,
            disconnected_at,
            queue_seq: session.outbound.last_seq(),
            inbound_number: session.inbound_number,
            owner: session.principal.to_owner(),
            peer: session.principal.to_peer(),
        };
        self.record_at(level, Record::SessionPut(Box::new(record)))
    }

    /// The Network Connection is gone in any other way; does nothing if the engine closed it.
    pub fn on_closed(&mut self, connection: ConnectionKey, now: Instant) {
        self.end_run();
        let Some(connection) = self.connections.remove(connection) else {
            return;
        };
        self.counters.clients_connected = self.connections.len() as u64;
        let key = connection.session;
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        session.link = None;
        session.outbound.on_disconnected();
        let expiry_seconds = session.expiry_seconds;
        self.touch(key);
        // [MQTT-3.1.2-23] [MQTT-4.1.0-1] [v3.1.1 MQTT-4.1.0-2] An interval of zero ends the Session with its connection.
        if expiry_seconds == 0 {
            self.end_session(key, now);
            return;
        }
        self.spill(key);
        self.set_members_online(key, false);
        self.record_disconnected(key, now);
        self.start_will_delay(key, now);
        if expiry_seconds == u32::MAX {
            return;
        }
        let after = Duration::from_secs(u64::from(expiry_seconds));
        if let Some(at) = now.checked_add(after) {
            self.set_expiry_deadline(key, at);
        }
    }

    /// The Session ends at `at`, or by the first [`Self::on_timeout`] after it.
    pub(crate) fn set_expiry_deadline(&mut self, key: SessionKey, at: Instant) {
        let deadline = self.timers.set(Due::SessionExpiry(key), at);
        if let Some(session) = self.sessions.get_mut(key) {
            session.expiry_deadline = Some(deadline);
        }
    }

    /// [MQTT-4.1.0-2]
    pub(crate) fn on_session_expiry(&mut self, key: SessionKey, now: Instant) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.expiry_deadline = None;
        }
        self.counters.sessions_expired += 1;
        self.end_session(key, now);
    }

    /// Ends a Session without a connection: its Will is published, and all that was kept for it goes. Who
    /// relies on it waits for the returned.
    pub(crate) fn end_session(&mut self, key: SessionKey, now: Instant) -> Wait {
        // [MQTT-3.1.2-8] The end of the Session publishes a Will that is still waiting.
        let will = self.route_will(key, now).unwrap_or_default();
        // What it has published comes first, or a crash could keep its end and lose that in another shard.
        let provisional = will
            .provisional
            .or_else(|| self.provisional(Publisher::InOrder(key), false));
        self.forget_full(key);
        self.drop_subscriptions(key);
        // [MQTT-4.8.2-5] What it held for a Shared Subscription goes with it, to nobody else.
        let Some(session) = self.sessions.remove(key) else {
            return Wait::default();
        };
        self.discount_session(&session);
        if let Some(deadline) = session.expiry_deadline {
            self.timers.clear(Due::SessionExpiry(key), deadline);
        }
        if let Some(deadline) = session.will_deadline {
            self.timers.clear(Due::WillDelay(key), deadline);
        }
        let spilled = session.outbound.spilled().copied().unwrap_or_default();
        let queued = session.outbound.iter().count() as u64 + spilled.count;
        let counters = &mut self.counters;
        counters.sessions = self.sessions.len() as u64;
        counters.queued_messages = counters.queued_messages.saturating_sub(queued);
        counters.queued_bytes = counters
            .queued_bytes
            .saturating_sub(session.queued_bytes as u64 + spilled.bytes);
        counters.spilled_messages = counters.spilled_messages.saturating_sub(spilled.count);
        counters.spilled_bytes = counters.spilled_bytes.saturating_sub(spilled.bytes);
        let is_stored = session.is_stored;
        let (session, outbound) = (session.id, session.outbound);
        self.shed(outbound);
        match provisional {
            Some(provisional) => self.commit(key, Effect::End, provisional, will.wait),
            None if is_stored => self.record(Record::SessionDelete { session }),
            None => Wait::default(),
        }
    }

    /// Disconnects a Client for a `reason` of the operator's, such as 0x98: it is told, and its Will is
    /// published as for every end but its own DISCONNECT. Returns whether it was connected.
    pub fn disconnect(&mut self, client_id: &str, reason: ReasonCode, now: Instant) -> bool {
        self.end_run();
        let session = self.sessions.find(client_id);
        let link = session.and_then(|key| self.sessions.link(key));
        let Some(connection) = link.map(|link| link.connection) else {
            return false;
        };
        // [MQTT-4.13.2-1]
        self.close(connection, reason, now);
        true
    }

    /// Closes the connection of a Session when this turn ends.
    pub(crate) fn close_later(&mut self, key: SessionKey, reason: ReasonCode) {
        let Some(link) = self.sessions.link(key) else {
            return;
        };
        let closing = (link.connection, reason);
        if !self.closing.contains(&closing) {
            self.closing.push(closing);
        }
    }

    pub(crate) fn close_marked(&mut self, now: Instant) {
        while let Some((connection, reason)) = self.closing.pop() {
            if self.connections.get(connection).is_some() {
                self.close(connection, reason, now);
            }
        }
    }
}
