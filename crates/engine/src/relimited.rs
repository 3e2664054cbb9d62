//! Limits that change while the Server runs.
//!
//! Owns: [`Engine::set_limits`], by what a Client is judged that was told other ones. Does not own: the limits (see
//! `limits`), what is done at one of them. Start reading at [`Engine::set_limits`]. Invariant: what CONNACK has announced
//! holds until the connection ends; what is kept beyond a limit that was lowered stays.

use std::sync::Arc;
use std::time::Instant;

use crate::keys::SessionKey;
use crate::limits::{Limits, OverflowPolicy};
use crate::retained::RetainedLimits;
use crate::{ConnectionKey, Engine};

impl Engine {
    /// Other limits count from now on: those that CONNACK announces, and the messages in flight to one Client, for
    /// connections from here on, all others at once. O(Sessions), and O(Retained Messages) if their age has changed.
    pub fn set_limits(&mut self, limits: Arc<Limits>, now: Instant) {
        if limits == self.limits {
            return;
        }
        self.retained.set_limits(RetainedLimits::from(&*limits));
        self.queued_bytes_shard_max = limits.queued_bytes_of_shard(self.config.shard_count);
        let is_refusing = limits.overflow_policy == OverflowPolicy::Refuse;
        self.limits = limits;
        self.connections.forget_grants();
        for key in self.sessions.keys() {
            if is_refusing {
                self.judge_room(key);
                self.judge_full(key, now);
            } else {
                self.unmark_full(key);
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
        link.map_or(&self.limits, |link| self.told(link.connection))
    }
}
