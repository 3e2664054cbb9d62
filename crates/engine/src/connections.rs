//! Network Connections of one shard that have a Session.
//!
//! Owns: [`Connection`], [`Connections`]. Does not own: sockets; what a delivery needs (see
//! `sessions::Link`). Start reading at [`Connections`].
//! Invariant: a key that is not here any more is ignored, whatever still arrives for it.

use std::sync::Arc;

use proto::packet::Publish;
use proto::{Qos, Version};

use crate::ConnectionKey;
use crate::keys::SessionKey;
use crate::limits::Limits;
use crate::subscriptions::PublisherMemo;

/// The engine's side of one Network Connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) key: ConnectionKey,
    pub(crate) session: SessionKey,
    pub(crate) version: Version,
    /// Whether the Session Expiry Interval of CONNECT was 0 or absent, [MQTT-3.14.2-2].
    pub(crate) connected_with_expiry_zero: bool,
    /// The limits at the time of its CONNACK.
    pub(crate) told: Arc<Limits>,
    /// Who gets what it publishes to its last topic.
    pub(crate) memo: PublisherMemo,
    /// What it may publish to that topic.
    pub(crate) grant: Option<Grant>,
    /// Whether a packet of it is done in slices.
    pub(crate) is_slicing: bool,
}

/// That a Client may publish, found out once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// By which rules, see `rights`.
    pub(crate) epoch: u32,
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
}

impl Grant {
    pub(crate) const fn of(publish: &Publish<'_>, epoch: u32) -> Self {
        Self {
            epoch,
            qos: publish.qos,
            retain: publish.retain,
        }
    }
}

/// The connections by the slab index in their key.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    slots: Vec<Option<Connection>>,
    len: usize,
}

impl Connections {
    pub(crate) fn get(&self, key: ConnectionKey) -> Option<&Connection> {
        self.slots
            .get(slot(key))?
            .as_ref()
            .filter(|connection| connection.key == key)
    }

    pub(crate) fn get_mut(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        self.slots
            .get_mut(slot(key))?
            .as_mut()
            .filter(|connection| connection.key == key)
    }

    pub(crate) fn insert(&mut self, connection: Connection) {
        let index = slot(connection.key);
        if self.slots.len() <= index {
            if self.slots.capacity() <= index {
                let wanted = index + 1 - self.slots.len();
                self.slots.reserve_exact(wanted.max(more_places(index)));
            }
            self.slots.resize_with(index + 1, || None);
        }
        if let Some(place) = self.slots.get_mut(index) {
            self.len += usize::from(place.is_none());
            *place = Some(connection);
        }
    }

    pub(crate) fn remove(&mut self, key: ConnectionKey) -> Option<Connection> {
        self.get(key)?;
        self.len -= 1;
        self.slots.get_mut(slot(key))?.take()
    }

    /// What each may publish is looked at again.
    pub(crate) fn forget_grants(&mut self) {
        for connection in self.slots.iter_mut().flatten() {
            connection.grant = None;
        }
    }

    /// Gives back the places of a rush that is over. O(places).
    pub(crate) fn shrink(&mut self) {
        if is_sparse(self.len, self.slots.capacity()) {
            let last = self.slots.iter().rposition(Option::is_some);
            self.slots.truncate(last.map_or(0, |last| last + 1));
            self.slots.shrink_to(self.len * 2);
        }
    }

    /// Bytes of the table.
    pub(crate) fn table_bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Option<Connection>>()
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }
}

/// The low 32 bits of the key: the server's slab index.
const fn slot(key: ConnectionKey) -> usize {
    (key.0 & 0xFFFF_FFFF) as usize
}

/// By how many places a table grows that has `len`, all in use: by an eighth, for doubled half of it would be free.
pub(crate) const fn more_places(len: usize) -> usize {
    let part = len / 8;
    if part < PLACES_MIN { PLACES_MIN } else { part }
}

/// Whether a table with so many places has few in use, and is worth it to give some back.
pub(crate) const fn is_sparse(used: usize, capacity: usize) -> bool {
    capacity > KEPT_MAX && used < capacity / SPARSE
}

/// Fewer are not worth it.
const PLACES_MIN: usize = 64;
/// Places that a table keeps though they are free.
const KEPT_MAX: usize = 1024;
/// With more, at least one in so many is in use.
const SPARSE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_takes_40_bytes_at_most() {
        assert!(size_of::<Option<Connection>>() <= 40);
    }
}
