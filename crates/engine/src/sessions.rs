//! Sessions of one shard: client identifier -> Session, and the part of a Session that is ours.
//!
//! Owns: [`Session`], [`Link`] (what a Session knows of its Network Connection), [`Sessions`].
//! Does not own: when a Session begins and ends (see `connect`), its delivery state (see
//! `proto::session`). Start reading at [`Session`].
//! Invariant: a Client Identifier has at most one Session, and a Session at most one connection.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::BuildHasher as _;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use proto::packet::Will;
use proto::session::{Inbound, Outbound};
use proto::{Message, PacketIdentifier, Version};
use slab::Slab;
use store::{Level, Seq, SessionId, UnixMillis};

use crate::asked::Asked;
use crate::connections::{is_sparse, more_places};
use crate::filters::Filters;
use crate::keys::{KeyedState, SessionKey};
use crate::loads::Loading;
use crate::losses::Lost;
use crate::memory::{PackedBytes, SessionBytes};
use crate::parted_table::PartedTable;
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
    /// Whether it is in the engine's list of replays to go on with.
    pub(crate) is_replaying: bool,
    /// Whether it is in the engine's list of queues to go on with.
    pub(crate) is_paced: bool,
    pub(crate) will: Option<Box<Will>>,
    /// Whether the store knows it.
    pub(crate) is_stored: bool,
    seldom: Option<Box<Seldom>>,
    /// What it was when it was last counted, see `memory`.
    pub(crate) counted: PackedBytes,
    /// Whether it is in the engine's list of those to be counted again.
    pub(crate) is_touched: bool,
    pub(crate) expiry_deadline: Option<Deadline>,
    pub(crate) will_deadline: Option<Deadline>,
}

/// What most Sessions do not need.
#[derive(Debug, Default)]
pub(crate) struct Seldom {
    /// Retained Messages still to be sent, by the Topic Filter of their Subscription.
    pub(crate) replays: BTreeMap<Arc<str>, Replay>,
    /// What others have said about it, where no rule does.
    pub(crate) asked: Option<Box<Asked>>,
    /// Since when its queue is full, as long as half of it is not taken, see `full`.
    pub(crate) full_since: Option<Instant>,
    /// Messages that it has lost, see `losses`.
    pub(crate) lost: Option<Box<Lost>>,
}

impl Seldom {
    const NOTHING: Self = Self {
        replays: BTreeMap::new(),
        asked: None,
        full_since: None,
        lost: None,
    };

    fn is_needed(&self) -> bool {
        let Self {
            replays,
            asked,
            full_since,
            lost,
        } = self;
        !replays.is_empty() || asked.is_some() || full_since.is_some() || lost.is_some()
    }
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
    pub(crate) maximum_packet_size_bytes: Option<NonZeroU32>,
    /// Bytes at the front of all Topic Names that its Client does not see.
    pub(crate) hidden_topic_bytes: u16,
    /// Unsent bytes are above the mark: QoS 0 is dropped, the rest waits.
    pub(crate) is_congested: bool,
    /// The batch that holds the last message dropped from its queue: should that be lost, nothing that
    /// came after it must have been sent.
    pub(crate) dropped_in: Seq,
    /// Of which level it is.
    pub(crate) dropped_at: Level,
    /// Which burst goes on: the engine's `taken` when it began.
    pub(crate) burst_began: u64,
    /// Bytes that were sent to it from its queue in that burst; of more than 4 GiB that much counts.
    pub(crate) burst_bytes: u32,
    /// Packets that wait for durability or other shards, in order.
    pub(crate) held: HeldQueue,
}

impl Link {
    /// Whether it can be sent several messages without a look at each.
    pub(crate) fn takes_all_at_once(&self) -> bool {
        !self.is_congested
            && self.held.is_empty()
            && self.maximum_packet_size_bytes.is_none()
            && self.dropped_in == Seq(0)
    }

    /// What has to be safe before anything that came after a dropped message is sent.
    pub(crate) fn wait_for_dropped(&self) -> Wait {
        Wait::for_batch(self.dropped_in, self.dropped_at)
    }
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
            is_replaying: false,
            is_paced: false,
            will: None,
            is_stored: false,
            seldom: None,
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

    /// What it has of what most do not need.
    pub(crate) fn seldom(&self) -> &Seldom {
        static NOTHING: Seldom = Seldom::NOTHING;
        self.seldom.as_deref().unwrap_or(&NOTHING)
    }

    /// The same to be changed, if it has some.
    pub(crate) fn seldom_if_any(&mut self) -> Option<&mut Seldom> {
        self.seldom.as_deref_mut()
    }

    /// A place for it. What is put there is to be touched.
    pub(crate) fn seldom_mut(&mut self) -> &mut Seldom {
        self.seldom.get_or_insert_default()
    }

    /// Bytes of that place.
    pub(crate) const fn seldom_bytes(&self) -> usize {
        if self.seldom.is_some() {
            size_of::<Seldom>()
        } else {
            0
        }
    }

    /// Gives that place back if nothing is in it.
    pub(crate) fn leave_seldom(&mut self) {
        if self.seldom.as_ref().is_some_and(|one| !one.is_needed()) {
            self.seldom = None;
        }
    }

    /// What others have said about it, if they have.
    pub(crate) fn asked_mut(&mut self) -> Option<&mut Asked> {
        self.seldom_if_any()?.asked.as_deref_mut()
    }

    /// The same, or a place for it.
    pub(crate) fn asked_or_default(&mut self) -> &mut Asked {
        self.seldom_mut().asked.get_or_insert_default()
    }

    /// Whether there are Retained Messages still to be sent.
    pub(crate) fn is_replay_due(&self) -> bool {
        !self.seldom().replays.is_empty()
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
    /// By the Client Identifier, which is in the Session. Each of them is in `slab`.
    by_client_id: PartedTable<SessionKey>,
    hasher: KeyedState,
    /// All of them as they were last counted, see `memory`.
    pub(crate) counted: SessionBytes,
}

impl Sessions {
    pub(crate) fn new(hasher: KeyedState) -> Self {
        Self {
            slab: Slab::new(),
            by_client_id: PartedTable::default(),
            hasher,
            counted: SessionBytes::default(),
        }
    }

    pub(crate) fn find(&self, client_id: &str) -> Option<SessionKey> {
        let hash = self.hasher.hash_one(client_id);
        let has_it = |key: &SessionKey| {
            self.get(*key)
                .is_some_and(|one| &*one.client_id == client_id)
        };
        self.by_client_id.find(hash, has_it).copied()
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

    /// Another one of its Client Identifier is not found by that any more.
    pub(crate) fn insert(&mut self, session: Session) -> SessionKey {
        if let Some(other) = self.find(&session.client_id) {
            self.forget_name(other);
        }
        let hash = self.hasher.hash_one(&*session.client_id);
        reserve_some(&mut self.slab);
        let key = key_of(self.slab.insert(Box::new(session)));
        let (slab, hasher) = (&self.slab, &self.hasher);
        self.by_client_id
            .insert_unique(hash, key, |key| name_hash(slab, hasher, *key));
        self.count(key);
        key
    }

    /// It is not found by its Client Identifier any more, if it was.
    fn forget_name(&mut self, key: SessionKey) {
        let (slab, hasher) = (&self.slab, &self.hasher);
        let hash_of = |key: &SessionKey| name_hash(slab, hasher, *key);
        self.by_client_id
            .remove(hash_of(&key), |one| *one == key, hash_of);
    }

    pub(crate) fn remove(&mut self, key: SessionKey) -> Option<Box<Session>> {
        self.get(key)?;
        self.forget_name(key);
        let session = self.slab.try_remove(index(key))?;
        self.discount(&session);
        Some(session)
    }

    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Bytes of the tables.
    pub(crate) fn table_bytes(&self) -> usize {
        self.slab.capacity() * (size_of::<Box<Session>>() + size_of::<usize>())
            + self.slab.len() * size_of::<Session>()
            + self.by_client_id.memory_bytes()
    }

    /// Gives back the places of a rush that is over, as far as nobody sits behind them. O(places).
    pub(crate) fn shrink(&mut self) {
        if is_sparse(self.slab.len(), self.slab.capacity()) {
            self.slab.shrink_to_fit();
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

/// The hash of the Client Identifier of a Session that is there.
fn name_hash(slab: &Slab<Box<Session>>, hasher: &KeyedState, key: SessionKey) -> u64 {
    let session = slab.get(index(key));
    let session = session.expect("invariant: who has a name is there");
    hasher.hash_one(&*session.client_id)
}

/// Makes room for some more in a table that is full: it grows by an eighth, and not to the double.
fn reserve_some<T>(slab: &mut Slab<T>) {
    let len = slab.len();
    if len == slab.capacity() {
        slab.reserve_exact(more_places(len));
    }
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
    use crate::keys::keyed_state;

    /// The allocator takes 320 for what is 312 at most, and 384 for what is 320.
    #[test]
    fn session_takes_312_bytes_at_most() {
        let bytes = size_of::<Session>();
        assert!(bytes <= 312, "{bytes}");
    }

    #[test]
    fn name_is_that_of_the_last_session_whichever_ends_first() {
        let session = |id, name: &str| Session::new(SessionId(id), name.into(), 0);
        let mut sessions = Sessions::new(keyed_state(7));
        for id in 0..1000 {
            sessions.insert(session(id, &format!("c{id}")));
        }
        let old = sessions.find("c500").expect("is there");
        let new = sessions.insert(session(1000, "c500"));
        assert_eq!(sessions.find("c500"), Some(new));
        assert!(sessions.remove(old).is_some(), "is there without a name");
        assert_eq!(sessions.find("c500"), Some(new));
        assert!(sessions.remove(new).is_some() && sessions.remove(new).is_none());
        assert_eq!(sessions.find("c500"), None);
        for key in sessions.keys() {
            let name = Arc::clone(&sessions.get(key).expect("is there").client_id);
            assert_eq!(sessions.find(&name), Some(key));
            sessions.remove(key);
            assert_eq!(sessions.find(&name), None);
        }
    }

    /// Half of what a table that doubles has may be free.
    #[test]
    fn table_that_is_full_grows_by_an_eighth() {
        let mut sessions = Sessions::new(keyed_state(7));
        for id in 0..10_000 {
            sessions.insert(Session::new(SessionId(id), format!("c{id}").into(), 0));
        }
        let capacity = sessions.slab.capacity();
        assert!(capacity <= 10_000 + 10_000 / 8, "{capacity}");
    }
}
