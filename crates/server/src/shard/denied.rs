//! What a Client was not allowed, and what it has lost, in the log.
//!
//! Owns: the words. Does not own: the decision, nor how often it is told (see `engine`).
//! Start reading at [`Shard::log_denied`]. Invariant: bytes of a peer are escaped.

use engine::{Denied, DeniedAction, Loser};
use store::Store;

use super::Shard;
use super::connection::{find_mut, printable};

impl<S: Store> Shard<S> {
    pub(super) fn log_lost(&mut self, loser: &Loser) {
        let connection = loser.connection;
        let connection = connection.and_then(|key| find_mut(&mut self.connections, key));
        let peer = connection.map(|found| tracing::field::display(found.peer));
        let client_id = printable(&loser.client_id);
        let reason = loser.loss.words();
        let seq = loser.total;
        tracing::warn!(
            peer,
            client_id,
            reason,
            seq,
            "messages for a session are dropped"
        );
    }

    pub(super) fn log_denied(&mut self, denied: &Denied) {
        let connection = denied.connection;
        let connection = connection.and_then(|key| find_mut(&mut self.connections, key));
        let peer = connection.map(|found| tracing::field::display(found.peer));
        let client_id = printable(&denied.client_id);
        let topic = printable(&denied.topic);
        let reason = &*denied.rule;
        match denied.action {
            DeniedAction::Publish => {
                tracing::warn!(peer, client_id, topic, reason, "publish not allowed");
            }
            DeniedAction::Subscribe => {
                tracing::warn!(
                    peer,
                    client_id,
                    filter = topic,
                    reason,
                    "subscription not allowed"
                );
            }
            // Who subscribes to more than it may read has not done anything wrong.
            DeniedAction::Receive => {
                tracing::debug!(
                    peer,
                    client_id,
                    topic,
                    reason,
                    "message not sent: not allowed"
                );
            }
        }
    }
}
