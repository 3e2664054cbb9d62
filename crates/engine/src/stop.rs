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
        self.end_run();
        for key in self.sessions.keys() {
            self.publish_will(key, now);
        }
    }

    /// DISCONNECT with `reason`, then Close, for everyone: 0x8B, or where there is a `server_reference`
    /// 0x9C or 0x9D.
    pub fn finish_stop(&mut self, reason: ReasonCode, server_reference: Option<&str>) {
        self.end_run();
        for key in self.sessions.keys() {
            let link = self.sessions.link(key);
            let Some(connection) = link.map(|link| link.connection) else {
                continue;
            };
            self.say_goodbye(connection, reason, server_reference);
        }
    }
}
