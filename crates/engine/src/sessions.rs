//! Sessions of one shard: client identifier -> Session, and the part of a Session that is ours.
//!
//! Owns: [`Session`], [`Link`] (what a Session knows of its Network Connection), [`Sessions`].
//! Does not own: when a Session begins and ends (see `connect`), its delivery state (see
//! `proto::session`). Start reading at [`Session`].
//! Invariant: a Client Identifier has at most one Session, and a Session at most one connection.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;
use proto::packet::Will;
use proto::session::{Inbound, Outbound};
use proto::{Message, PacketIdentifier, Version};
use slab::Slab;
use store::{Level, Seq, SessionId, UnixMillis};

use crate::asked::Asked;
use crate::connections::is_sparse;
use crate::filters::Filters;
use crate::keys::{KeyedState, SessionKey};
use crate::loads::Loading;
use crate::losses::Lost;
use crate::memory::{PackedBytes, SessionBytes};
use crate::pending::{HeldQueue, Wait};
use crate::retained::Replay;
use crate::rights::Applying;
use crate::timers::Deadline;
use crate::{ConnectionKey, Principal};

/// One Session, connected or not.
#[derive(Debug)]
pub(crate) struct Session {
    /// What the store knows it by.
    pub(crate) id: SessionId,
    pub(crate) client_id: Arc<str>,
    /// Who its Client is, or was when it connected last.
    pub(crate) principal: Arc<Principal>,
    /// The rules for some Clients only that are for it.
    pub(crate) applying: Applying,
    /// What waits up to this number was let in under other rights, and is looked at again before it leaves.
    pub(crate) recheck_through: u64,
    /// Session Expiry Interval in seconds; 0 ends with the connection, `u32::MAX` never ends.
    pub(crate) expiry_seconds: u32,
    pub(crate) link: Option<Link>,
    /// When its connection ended, as the store knows it; `None` while it has one.
    pub(crate) disconnected_at: Option<UnixMillis>,
    pub(crate) outbound: Outbound,
    /// Bytes of the messages in `outbound` that are in memory.
    pub(crate) queued_bytes: usize,
    /// Where it stands with those that are not.
    pub(crate) loading: Loading,
    /// The last number of a QoS 2 message of its Client that is recorded.
    pub(crate) inbound_number: u64,
    /// What is open of the messages of its Client; most Clients have nothing open at most times.
    receiving: Option<Box<Receiving>>,
    pub(crate) will_in_store: WillInStore,
    pub(crate) filters: Filters,
    /// Retained Messages still to be sent, by the Topic Filter of their Subscription.
    pub(crate) replays: BTreeMap<Arc<str>, Replay>,
    /// Whether it is in the engine's list of replays to go on with.
    pub(crate) is_replaying: bool,
    /// Whether it is in the engine's list of queues to go on with.
    pub(crate) is_paced: bool,
    pub(crate) will: Option<Box<Will>>,
    /// What others have said about it, where no rule does.
    pub(crate) asked: Option<Box<Asked>>,
    /// Whether the store knows it.
    pub(crate) is_stored: bool,
    /// Since when its queue is full, as long as half of it is not taken, see `full`.
    pub(crate) full_since: Option<Instant>,
    /// Messages that it has lost, see `losses`.
    pub(crate) lost: Option<Box<Lost>>,
    /// What it was when it was last counted, see `memory`.
    pub(crate) counted: PackedBytes,
    /// Whether it is in the engine's list of those to be counted again.
    pub(crate) is_touched: bool,
    pub(crate) expiry_deadline: Option<Deadline>,
    pub(crate) will_deadline: Option<Deadline>,
}

/// What a Session knows of messages from its Client that are not done with.
#[derive(Debug, Default)]
pub(crate) struct Receiving {
    pub(crate) inbound: Inbound,
    /// Identifiers in `inbound` that the store does not know, of messages that are not recorded.
    pub(crate) volatile: BTreeSet<PacketIdentifier>,
    /// How many messages after the last recorded number wait for other shards, see `commits`.
    pub(crate) open: u64,
    /// How many of these are released already.
    pub(crate) released: u32,
    /// The last commit of a message of this Session.
    pub(crate) gate: u64,
}

/// What the store has in the one place for the Will of a Session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WillInStore {
    /// Nothing.
    None,
    /// The Will of the Session.
    Current,
    /// One that is published, and goes with the commit of this number: until then there is no place for another.
    Published(u64),
}

/// What a delivery needs to know about the Network Connection of a Session.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) connection: ConnectionKey,
    pub(crate) version: Version,
    pub(crate) maximum_packet_size_bytes: Option<u32>,
    /// Unsent bytes are above the mark: QoS 0 is dropped, the rest waits.
    /// Bytes at the front of all Topic Names that its Client does not see.
    pub(crate) hidden_topic_bytes: usize,
    pub(crate) is_congested: bool,
    /// The batch that holds the last message dropped from its queue: should that be lost, nothing that
    /// came after it must have been sent.
    pub(crate) dropped_in: (Seq, Level),
    /// What was sent to it from its queue since the server last took the outputs.
    pub(crate) burst: Burst,
    /// Packets that wait for durability or other shards, in order.
    pub(crate) held: HeldQueue,
}

impl Link {
    /// What has to be safe before anything that came after a dropped message is sent.
    pub(crate) fn wait_for_dropped(&self) -> Wait {
        let (seq, level) = self.dropped_in;
        Wait::for_batch(seq, level)
    }
}

/// Bytes of one burst.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Burst {
    /// Which: the engine's `taken` when it began.
    pub(crate) began: u64,
    pub(crate) bytes: usize,
}

impl Session {
    pub(crate) fn new(id: SessionId, client_id: Arc<str>, expiry_seconds: u32) -> Self {
        Self {
            id,
            client_id,
            principal: Arc::default(),
            applying: Applying::default(),
            recheck_through: 0,
            expiry_seconds,
            link: None,
            outbound: Outbound::default(),
            queued_bytes: 0,
            loading: Loading::Idle,
            inbound_number: 0,
            receiving: None,
            will_in_store: WillInStore::None,
            disconnected_at: None,
            filters: Filters::default(),
            replays: BTreeMap::new(),
            is_replaying: false,
            is_paced: false,
            will: None,
            asked: None,
            is_stored: false,
            full_since: None,
            lost: None,
            counted: PackedBytes::default(),
            is_touched: false,
            expiry_deadline: None,
            will_deadline: None,
        }
    }

    pub(crate) fn receiving(&self) -> &Receiving {
        static NOTHING: Receiving = Receiving {
            inbound: Inbound::EMPTY,
            volatile: BTreeSet::new(),
            open: 0,
            released: 0,
            gate: 0,
        };
        self.receiving.as_deref().unwrap_or(&NOTHING)
    }

    pub(crate) fn receiving_mut(&mut self) -> &mut Receiving {
        self.receiving.get_or_insert_default()
    }

    /// Whether it outlives its Network Connection.
    pub(crate) const fn is_durable(&self) -> bool {
        self.expiry_seconds > 0
    }

    /// Bytes of `message` as the queue counts them.
    pub(crate) fn charge(message: &Message) -> usize {
        message.memory_bytes() + QUEUED_OVERHEAD_BYTES
    }
}

/// Bookkeeping of one queued message beyond its bytes.
const QUEUED_OVERHEAD_BYTES: usize = 64;

/// The Sessions of a shard.
#[derive(Debug)]
pub(crate) struct Sessions {
    /// Each in a place of its own: a table of all would be copied when it grows, and leave behind what it was.
    slab: Slab<Box<Session>>,
    by_client_id: HashMap<Arc<str>, SessionKey, KeyedState>,
    /// All of them as they were last counted, see `memory`.
    pub(crate) counted: SessionBytes,
}

impl Sessions {
    pub(crate) fn new(hasher: KeyedState) -> Self {
        Self {
            slab: Slab::new(),
            by_client_id: HashMap::with_hasher(hasher),
            counted: SessionBytes::default(),
        }
    }

    pub(crate) fn find(&self, client_id: &str) -> Option<SessionKey> {
        self.by_client_id.get(client_id).copied()
    }

    pub(crate) fn get(&self, key: SessionKey) -> Option<&Session> {
        self.slab.get(index(key)).map(|session| &**session)
    }

    pub(crate) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Session> {
        self.slab.get_mut(index(key)).map(|session| &mut **session)
    }

    /// The Network Connection of a Session.
    pub(crate) fn link(&self, key: SessionKey) -> Option<&Link> {
        self.get(key)?.link.as_ref()
    }

    pub(crate) fn link_mut(&mut self, key: SessionKey) -> Option<&mut Link> {
        self.get_mut(key)?.link.as_mut()
    }

    pub(crate) fn insert(&mut self, session: Session) -> SessionKey {
        let client_id = Arc::clone(&session.client_id);
        let key = key_of(self.slab.insert(Box::new(session)));
        self.by_client_id.insert(client_id, key);
        self.count(key);
        key
    }

    pub(crate) fn remove(&mut self, key: SessionKey) -> Option<Box<Session>> {
        let session = self.slab.try_remove(index(key))?;
        self.discount(&session);
        // Another one may have its name by now.
        if self.find(&session.client_id) == Some(key) {
            self.by_client_id.remove(&session.client_id);
        }
        Some(session)
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Bytes of the tables.
    pub(crate) fn table_bytes(&self) -> usize {
        self.slab.capacity() * (size_of::<Box<Session>>() + size_of::<usize>())
            + self.slab.len() * size_of::<Session>()
            + map_bytes(
                self.by_client_id.capacity(),
                size_of::<(Arc<str>, SessionKey)>(),
            )
    }

    /// Gives back the places of a rush that is over, as far as nobody sits behind them. O(places).
    pub(crate) fn shrink(&mut self) {
        if is_sparse(self.slab.len(), self.slab.capacity()) {
            self.slab.shrink_to_fit();
        }
        let names = &mut self.by_client_id;
        if is_sparse(names.len(), names.capacity()) {
            names.shrink_to(names.len() * 2);
        }
    }

    /// The keys of all Sessions, in slab order.
    pub(crate) fn keys(&self) -> Vec<SessionKey> {
        self.slab.iter().map(|(index, _)| key_of(index)).collect()
    }
}

/// Bytes of a hash table that takes `capacity` entries of `entry` bytes: one place in eight stays free, and each has a
/// byte of its own.
pub(crate) const fn map_bytes(capacity: usize, entry: usize) -> usize {
    (capacity + capacity / 7) * (entry + 1)
}

const fn index(key: SessionKey) -> usize {
    key.0 as usize
}

fn key_of(index: usize) -> SessionKey {
    SessionKey(u32::try_from(index).expect("invariant: fewer than 2^32 Sessions in a shard"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One byte more, and the allocator takes 448 for it.
    #[test]
    fn session_takes_384_bytes_at_most() {
        let bytes = size_of::<Session>();
        assert!(bytes <= 384, "{bytes}");
    }
}
