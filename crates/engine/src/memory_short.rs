//! What is not kept in memory while the process has little of it.
//!
//! Owns: how short windows are then, what may still grow. Does not own: when memory is short (see the server's governor),
//! what is counted (see `memory`). Start reading at [`Engine::on_memory_short`].
//! Invariant: what was taken is kept, in memory or on the disk; what is not taken is refused.

use std::time::Instant;

use proto::Message;

use crate::keys::SessionKey;
use crate::pending::HeldQueue;
use crate::sessions::Session;
use crate::{ConnectionKey, Engine};

/// What is kept for a Client that is away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Keeps {
    /// Nothing to speak of.
    Nothing,
    /// Its Subscriptions.
    Subscriptions,
    /// Messages, too: when it comes, they go.
    Messages,
}

impl Engine {
    /// The process runs short of memory, or has enough again. What the store has and waits for a Client goes to the
    /// disk, but for a short window; what would grow in memory is refused.
    pub fn on_memory_short(&mut self, is_short: bool, now: Instant) {
        self.end_run();
        self.is_memory_short = is_short;
        let keys = self.sessions.keys();
        for key in keys {
            if is_short {
                self.spill_beyond_window(key);
            } else {
                self.want_load(key);
                self.resume_replays(key);
            }
        }
        self.run_paced(now);
    }

    /// Bytes in memory that wait or are in flight for the Session of a connection, and that its end would free: what is
    /// kept for a Client that comes back is not. Packets that wait for the store or other shards go with the connection.
    #[must_use]
    pub fn bytes_freed_without(&self, connection: ConnectionKey) -> usize {
        let session = self.connections.get(connection).map(|found| found.session);
        let session = session.and_then(|key| self.sessions.get(key));
        let ends = session.filter(|session| !session.is_durable());
        let held = self.held_of(connection).map_or(0, HeldQueue::table_bytes);
        held + ends.map_or(0, |session| session.queued_bytes)
    }

    /// What is kept for the Client of this name while it is away.
    #[must_use]
    pub fn keeps_for(&self, client_id: &str) -> Keeps {
        let session = self.sessions.find(client_id);
        match session.and_then(|key| self.sessions.get(key)) {
            Some(session) if !session.outbound.is_empty() => Keeps::Messages,
            Some(session) if session.is_durable() && !session.filters.is_empty() => {
                Keeps::Subscriptions
            }
            _ => Keeps::Nothing,
        }
    }

    /// Whether a connection has been sent something that it has to acknowledge.
    #[must_use]
    pub fn is_awaiting(&self, connection: ConnectionKey) -> bool {
        let session = self.connections.get(connection).map(|found| found.session);
        let session = session.and_then(|key| self.sessions.get(key));
        session.is_some_and(|session| session.outbound.open_len() > 0)
    }

    /// How many messages the store has may wait in memory for one connected Session, and their bytes.
    pub(crate) fn window_max(&self) -> (usize, usize) {
        let (messages, bytes) = (
            self.limits.window_messages_max,
            self.limits.window_bytes_max,
        );
        if self.is_memory_short {
            (
                messages.min(SHORT_WINDOW_MESSAGES),
                bytes.min(SHORT_WINDOW_BYTES),
            )
        } else {
            (messages, bytes)
        }
    }

    /// Whether what only memory can hold may grow by this much for the Session.
    pub(crate) const fn may_grow(&self, session: &Session, bytes: usize) -> bool {
        let after = session.queued_bytes + bytes;
        !self.is_memory_short || session.link.is_some() && after <= SHORT_QUEUE_BYTES
    }

    /// Whether a message may be retained: one that takes no more than the one before it always.
    pub(crate) fn may_retain(&self, message: &Message) -> bool {
        !self.is_memory_short || self.retained.growth(message) == 0
    }

    fn spill_beyond_window(&mut self, key: SessionKey) {
        if !self.config.can_load {
            return;
        }
        let (keep, _) = self.window_max();
        let is_connected = self.sessions.link(key).is_some();
        if is_connected {
            self.spill_with(key, |queue, charge| queue.spill_beyond(keep, charge));
        }
    }
}

/// Messages in a window while memory is short.
const SHORT_WINDOW_MESSAGES: usize = 8;
/// Their bytes.
const SHORT_WINDOW_BYTES: usize = 16 * 1024;
/// What may wait in memory only for a Client that is there, while memory is short.
pub(crate) const SHORT_QUEUE_BYTES: usize = 16 * 1024;
