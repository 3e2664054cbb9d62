//! What is not accepted while the disk runs low.
//!
//! Owns: which PUBLISH would make the log grow. Does not own: when the disk is low (see `store`), how a
//! connection is not read (see the server). Start reading at [`Engine::on_storage_low`].
//! Invariant: what makes room goes on: acknowledgements, the removal of retained messages, the end of
//! connections, of Subscriptions and of Sessions.

use proto::Qos;
use proto::packet::Publish;
use store::Level;

use crate::Engine;
use crate::keys::SessionKey;

impl Engine {
    /// The disk of the store runs low, or has room again.
    pub const fn on_storage_low(&mut self, is_low: bool) {
        self.is_storage_low = is_low;
    }

    /// Whether this PUBLISH would make the log grow while it must not. Another shard alone knows who gets a
    /// message there, so what goes to one counts as stored.
    pub(crate) fn lacks_storage(&mut self, key: SessionKey, publish: &Publish<'_>) -> bool {
        self.is_storage_low && !is_removal(publish) && self.would_store(key, publish)
    }

    fn would_store(&mut self, key: SessionKey, publish: &Publish<'_>) -> bool {
        // Whatever it was to be kept for is kept.
        if self.is_repeated(key, publish) {
            return false;
        }
        let level = self.config.levels.of(publish.topic);
        if publish.retain && level > Level::Memory {
            return true;
        }
        match (publish.qos, publish.packet_id) {
            (Qos::AtMostOnce, _) | (_, None) => false,
            (Qos::AtLeastOnce, _) => self.is_stored_for_anyone(key, level, publish),
            (Qos::ExactlyOnce, Some(_)) => {
                self.keeps_identifiers(key, level) || self.is_stored_for_anyone(key, level, publish)
            }
        }
    }

    fn keeps_identifiers(&self, key: SessionKey, level: Level) -> bool {
        let session = self.sessions.get(key);
        level > Level::Memory && session.is_some_and(|session| session.is_stored)
    }

    fn is_stored_for_anyone(
        &mut self,
        publisher: SessionKey,
        level: Level,
        publish: &Publish<'_>,
    ) -> bool {
        let matches = self.matches(publish.topic);
        let is_worth_it = level > Level::Memory || publish.qos == Qos::ExactlyOnce;
        let stores = |session: SessionKey, granted: Qos| {
            let (qos, session) = (publish.qos.min(granted), self.sessions.get(session));
            qos > Qos::AtMostOnce && session.is_some_and(|session| session.stores(level, qos))
        };
        (is_worth_it && !matches.remote.is_empty())
            || matches.rows.iter().any(|row| {
                let grant = row.for_session(Some(publisher));
                grant.is_some_and(|grant| stores(row.session, grant.qos))
            })
            || matches
                .groups
                .iter()
                .any(|group| self.shared.may_choose(*group, is_worth_it, stores))
    }
}

/// Removing a retained message makes room.
const fn is_removal(publish: &Publish<'_>) -> bool {
    publish.retain && publish.payload.is_empty()
}

/// What a Client is told.
pub(crate) const STORAGE_LOW: &str = "the disk of the server runs low";
