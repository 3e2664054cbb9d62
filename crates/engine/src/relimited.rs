//! Limits that change while the Server runs.
//!
//! Owns: [`Engine::set_limits`], by what a Client is judged that was told other ones. Does not own: the limits (see
//! `limits`), what is done at one of them. Start reading at [`Engine::set_limits`]. Invariant: what CONNACK has announced
//! holds until the connection ends; what is kept beyond a limit that was lowered stays.

use std::sync::Arc;
use std::time::Instant;

use crate::keys::SessionKey;
use crate::limits::{Limits, LimitsByListener, OverflowPolicy};
use crate::retained::RetainedLimits;
use crate::{ConnectionKey, Engine, Principal};

impl Engine {
    /// Other limits count from now on, also those that listeners have of their own: those that CONNACK announces, and the
    /// messages in flight to one Client, for connections from here on, all others at once. O(Sessions), and O(Retained
    /// Messages) if their age has changed.
    pub fn set_limits(
        &mut self,
        limits: Arc<Limits>,
        limits_by_listener: LimitsByListener,
        now: Instant,
    ) {
        self.end_run();
        if limits == self.limits && limits_by_listener == self.limits_by_listener {
            return;
        }
        self.packet_size_max_bytes =
            limits_by_listener.packet_size_max_bytes(limits.maximum_packet_size_bytes);
        self.limits_by_listener = limits_by_listener;
        self.retained.set_limits(RetainedLimits::from(&*limits));
        self.queued_bytes_shard_max = limits.queued_bytes_of_shard(self.config.shard_count);
        let is_refusing = limits.overflow_policy == OverflowPolicy::Refuse;
        self.limits = limits;
        self.count_users();
        self.connections.forget_grants();
        for key in self.sessions.keys() {
            if is_refusing {
                self.judge_room(key);
                self.judge_full(key, now);
            } else {
                self.forget_full(key);
            }
        }
    }

    /// The limits that the Client on this connection was told.
    pub(crate) fn told(&self, connection: ConnectionKey) -> &Arc<Limits> {
        let found = self.connections.get(connection);
        found.map_or(&self.limits, |found| &found.told)
    }

    /// The same of the Client of a Session, if it is connected.
    pub(crate) fn told_of(&self, key: SessionKey) -> &Arc<Limits> {
        let link = self.sessions.link(key);
        link.map_or_else(|| self.limits_of(key), |link| self.told(link.connection))
    }

    /// The limits of whoever connects as `principal`: those of its listener, if that has some.
    pub(crate) fn limits_for(&self, principal: &Principal) -> &Arc<Limits> {
        let own = self.limits_by_listener.of(principal);
        own.unwrap_or(&self.limits)
    }

    /// Those of a Session, see [`LimitsByListener`].
    pub(crate) fn limits_of(&self, key: SessionKey) -> &Arc<Limits> {
        let session = self.sessions.get(key);
        session.map_or(&self.limits, |session| self.limits_for(&session.principal))
    }

    /// The Client of a Session has connected by a listener that may have other limits than the last one: its queue is
    /// judged again.
    pub(crate) fn judge_by_listener(&mut self, key: SessionKey, now: Instant) {
        if !self.limits_by_listener.is_empty() {
            self.judge_room(key);
            self.judge_full(key, now);
        }
    }
}
