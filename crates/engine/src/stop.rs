//! The Server stops: Wills first, then DISCONNECT to everyone.
//!
//! Owns: the two steps. Does not own: flushing and the time it may take (the server's).
//! Start reading at [`Engine::begin_stop`]. Invariant: no Will is published twice.

use std::time::Instant;

use proto::packet::ReasonCode;

use crate::Engine;

impl Engine {
    /// Publishes the Wills of all Sessions, connected or waiting for their delay.
    pub fn begin_stop(&mut self, now: Instant) {
        for key in self.sessions.keys() {
            self.publish_will(key, now);
        }
    }

    /// DISCONNECT with 0x8B, or 0x9C where there is another server to use, then Close, for everyone.
    pub fn finish_stop(&mut self, server_reference: Option<&str>, _now: Instant) {
        let reason = if server_reference.is_some() {
            ReasonCode::UseAnotherServer
        } else {
            ReasonCode::ServerShuttingDown
        };
        for key in self.sessions.keys() {
            let link = self
                .sessions
                .get(key)
                .and_then(|session| session.link.as_ref());
            let Some(connection) = link.map(|link| link.connection) else {
                continue;
            };
            self.say_goodbye(connection, reason, server_reference);
        }
    }
}
