//! How many bytes one shard's engine holds for its peers, by kind.
//!
//! Owns: [`Memory`], what of a Session counts where, when a Session is counted again. Does not own: the messages
//! themselves, which are counted once however many Sessions wait for them (see `proto::live_message_bytes`); what is
//! done about it (see the server's governor). Start reading at [`Engine::memory`].
//! Invariant: the sums are those of what was last counted, and whatever was touched in a turn is counted at its end.

use proto::packet::Will;

use crate::Engine;
use crate::keys::SessionKey;
use crate::sessions::{Session, Sessions};

/// Bytes by kind. What is shared with other shards is in none of them but `retained_messages`, which is the same in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Records of Sessions: names, handshakes that are not finished, packets that wait for the disk.
    pub sessions: u64,
    /// Wills.
    pub wills: u64,
    /// Subscriptions: the index, those of other shards in it, and what each Session knows of its own.
    pub subscriptions: u64,
    /// The index of retained messages.
    pub retained: u64,
    /// Retained messages. In all shards the same ones.
    pub retained_messages: u64,
    /// Places in queues; the messages in them are counted with all messages.
    pub queues: u64,
}

/// The same of one Session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SessionBytes {
    record: usize,
    will: usize,
    filters: usize,
    queue: usize,
}

/// The same, packed; of more than 4 GiB that much counts.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PackedBytes([u32; 4]);

impl PackedBytes {
    const fn unpacked(self) -> SessionBytes {
        let [record, will, filters, queue] = self.0;
        SessionBytes {
            record: record as usize,
            will: will as usize,
            filters: filters as usize,
            queue: queue as usize,
        }
    }
}

impl SessionBytes {
    fn packed(self) -> PackedBytes {
        let all = [self.record, self.will, self.filters, self.queue];
        PackedBytes(all.map(|bytes| u32::try_from(bytes).unwrap_or(u32::MAX)))
    }

    fn of(session: &Session) -> Self {
        let held = session
            .link
            .as_ref()
            .map_or(0, |link| link.held.table_bytes());
        let replays: usize = session.seldom().replays.len() * REPLAY_BYTES;
        let receiving = session.receiving();
        Self {
            record: session.client_id.len()
                + SESSION_EXTRA_BYTES
                + receiving.inbound.len() * IDENTIFIER_BYTES
                + receiving.volatile.len() * IDENTIFIER_BYTES
                + held
                + replays
                + session.seldom_bytes(),
            will: session.will.as_deref().map_or(0, will_bytes),
            filters: session.filters.table_bytes(),
            queue: session.outbound.table_bytes(),
        }
    }

    const fn add(&mut self, other: Self) {
        self.record += other.record;
        self.will += other.will;
        self.filters += other.filters;
        self.queue += other.queue;
    }

    const fn take(&mut self, other: Self) {
        self.record -= other.record;
        self.will -= other.will;
        self.filters -= other.filters;
        self.queue -= other.queue;
    }
}

impl Sessions {
    /// Counts one as it is now.
    pub(crate) fn count(&mut self, key: SessionKey) {
        let Some(session) = self.get_mut(key) else {
            return;
        };
        session.is_touched = false;
        let now = SessionBytes::of(session).packed();
        let before = std::mem::replace(&mut session.counted, now);
        self.counted.take(before.unpacked());
        self.counted.add(now.unpacked());
    }

    /// One is gone.
    pub(crate) const fn discount(&mut self, session: &Session) {
        self.counted.take(session.counted.unpacked());
    }
}

impl Engine {
    /// What this shard holds. O(1). As it was when the last turn ended.
    #[must_use]
    pub fn memory(&self) -> Memory {
        let of_sessions = self.sessions.counted;
        let bytes = |bytes: usize| bytes as u64;
        Memory {
            sessions: bytes(
                self.sessions.table_bytes()
                    + self.connections.table_bytes()
                    + self.users.table_bytes()
                    + of_sessions.record,
            ),
            wills: bytes(of_sessions.will),
            subscriptions: bytes(
                self.subscriptions.memory_bytes()
                    + self.shared.memory_bytes()
                    + of_sessions.filters,
            ),
            retained: bytes(self.retained.table_bytes()),
            retained_messages: bytes(self.retained.message_bytes()),
            queues: bytes(of_sessions.queue),
        }
    }

    /// Something of this Session has changed: it is counted when the turn ends.
    pub(crate) fn touch(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(key)
            && !std::mem::replace(&mut session.is_touched, true)
        {
            self.touched.push(key);
        }
    }

    /// Gives back what tables keep of a rush that is over, and what was needed for packets that waited; to be called now
    /// and then. O(places of such tables and Sessions that were not idle).
    pub fn shrink(&mut self) {
        self.give_room_back();
        self.connections.shrink();
        self.sessions.shrink();
    }

    pub(crate) fn count_touched(&mut self) {
        while let Some(key) = self.touched.pop() {
            if let Some(session) = self.sessions.get_mut(key) {
                session.outbound.shrink();
                session.leave_seldom();
            }
            self.judge_room(key);
            self.sessions.count(key);
        }
    }
}

fn will_bytes(will: &Will) -> usize {
    size_of::<Will>() + will.topic.len() + will.payload.len() + will.properties.forwarded.len()
}

/// A Session beside its place and its name: the counts of its name, its place among the deadlines, and its Principal by half,
/// for those that are alike share one.
const SESSION_EXTRA_BYTES: usize = 128;
/// A Packet Identifier in a set.
const IDENTIFIER_BYTES: usize = 6;
/// A replay of retained messages that goes on.
const REPLAY_BYTES: usize = 256;
