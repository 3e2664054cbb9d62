//! Packets that may not leave before something is durable or other shards have it.
//!
//! Owns: [`Wait`], [`Held`], and when they are released. Does not own: what waits for what.
//! Start reading at [`Engine::emit`]. Invariant: packets of one connection leave in the order in
//! which they were emitted, held or not.

use std::collections::VecDeque;

use proto::connection::Outgoing;
use store::{Level, Record, Seq};

use crate::commits::Gate;
use crate::keys::{SessionKey, ShardSet};
use crate::output::Output;
use crate::{ConnectionKey, Engine};

/// What must have happened first.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wait {
    /// This batch of ours is handed to the operating system; 0 for none.
    pub(crate) written: Seq,
    /// This batch of ours is durable; 0 for none.
    pub(crate) persisted: Seq,
    /// These shards have taken everything we sent them up to `turn`.
    pub(crate) shards: ShardSet,
    pub(crate) turn: u64,
    /// This commit is durable.
    pub(crate) gate: Option<Gate>,
}

impl Wait {
    /// Until the batch `seq` is as safe as `level` says.
    pub(crate) fn for_batch(seq: Seq, level: Level) -> Self {
        let mut wait = Self::default();
        match level {
            Level::Memory => {}
            Level::Written => wait.written = seq,
            Level::Synced => wait.persisted = seq,
        }
        wait
    }

    pub(crate) fn and(mut self, other: Self) -> Self {
        self.written = self.written.max(other.written);
        self.persisted = self.persisted.max(other.persisted);
        self.turn = self.turn.max(other.turn);
        self.shards = self.shards.union(other.shards);
        self.gate = match (self.gate, other.gate) {
            (Some(one), Some(another)) => Some(one.later(another)),
            (one, another) => one.or(another),
        };
        self
    }

    /// Only what happens in other shards.
    pub(crate) fn elsewhere(self) -> Self {
        Self {
            shards: self.shards,
            turn: self.turn,
            ..Self::default()
        }
    }
}

/// A packet that waits.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) packet: Outgoing,
    pub(crate) wait: Wait,
}

/// Those of one connection, in order. No room is made before there is one.
#[derive(Debug, Default)]
pub(crate) struct HeldQueue(Option<Box<Queue>>);

#[derive(Debug, Default)]
struct Queue(VecDeque<Held>);

impl HeldQueue {
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| queue.0.len())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn front(&self) -> Option<&Held> {
        self.0.as_ref()?.0.front()
    }

    /// Whether there is room, for one or more.
    const fn has_room(&self) -> bool {
        self.0.is_some()
    }

    /// Bytes it holds beside itself.
    pub(crate) fn table_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |queue| {
            size_of::<Queue>() + queue.0.capacity() * size_of::<Held>()
        })
    }

    fn push_back(&mut self, held: Held) {
        self.0.get_or_insert_default().0.push_back(held);
    }

    fn pop_front(&mut self) -> Option<Held> {
        self.0.as_mut()?.0.pop_front()
    }
}

impl Engine {
    /// Adds a durable effect of this turn that belongs to a Session; what depends on it waits for the
    /// returned.
    pub(crate) fn record(&mut self, record: Record) -> Wait {
        self.record_at(self.config.levels.of_sessions(), record)
    }

    /// The same at a level that something else asks for, above [`Level::Memory`].
    pub(crate) fn record_at(&mut self, level: Level, record: Record) -> Wait {
        self.batch.push(record);
        self.batch_level = self.batch_level.max(level);
        self.wait_at(level)
    }

    /// Everything recorded of Sessions up to now.
    pub(crate) fn wait_for_batch(&self) -> Wait {
        self.wait_at(self.config.levels.of_sessions())
    }

    /// Everything up to now that was recorded at `level` or a higher one: nothing waits for the disk
    /// because of what need not be there.
    pub(crate) fn wait_at(&self, level: Level) -> Wait {
        Wait::for_batch(self.batch_at(level), level)
    }

    /// The batch that has it.
    pub(crate) fn batch_at(&self, level: Level) -> Seq {
        match level {
            Level::Written if self.batch.is_empty() => self.last_batch,
            Level::Synced if self.batch_level < level => self.last_synced,
            _ => self.next_batch(),
        }
    }

    /// Everything that this shard has done up to now, here and elsewhere.
    pub(crate) fn wait_for_all(&self) -> Wait {
        self.wait_for_batch().and(self.routing.wait_for_others())
    }

    pub(crate) const fn next_batch(&self) -> Seq {
        Seq(self.last_batch.0 + 1)
    }

    pub(crate) fn is_over(&self, wait: &Wait) -> bool {
        self.persisted >= wait.persisted
            && self.written >= wait.written
            && wait.gate.is_none_or(|gate| self.commits.is_open(gate))
            && self.routing.is_taken(wait)
    }

    /// Sends `packet` on the connection of this Session once `wait` is over and everything emitted before
    /// has left. Without a connection it is dropped.
    pub(crate) fn emit(&mut self, session: SessionKey, packet: Outgoing, wait: Wait) {
        let is_over = self.is_over(&wait);
        let Some(link) = self.sessions.link_mut(session) else {
            return;
        };
        if link.held.is_empty() && is_over {
            self.outputs.push_back(Output::Send {
                connection: link.connection,
                packet,
            });
            return;
        }
        if link.held.is_empty() {
            self.sessions_holding.push(session);
        }
        if !link.held.has_room() {
            self.roomy.push(session);
        }
        link.held.push_back(Held { packet, wait });
        self.most_held = self.most_held.max(link.held.len());
        self.touch(session);
    }

    /// Who is idle holds no room for packets that wait. O(Sessions that had some since this was called last).
    pub(crate) fn give_room_back(&mut self) {
        for session in std::mem::take(&mut self.roomy) {
            let Some(link) = self.sessions.link_mut(session) else {
                continue;
            };
            if link.held.is_empty() {
                link.held = HeldQueue::default();
                self.touch(session);
            } else {
                self.roomy.push(session);
            }
        }
    }

    /// PINGREQ from the Client. [MQTT-3.12.4-1] [v3.1.1 MQTT-3.12.4-1] Answered in its turn: what came
    /// before it may have to wait, CONNACK too, and nothing may leave before that, [MQTT-3.2.0-1].
    pub fn on_pingreq(&mut self, connection: ConnectionKey) {
        if let Some(key) = self.on_packet(connection) {
            self.emit(key, Outgoing::PingResp, Wait::default());
        }
    }

    /// Whether packets to this Client still wait for durability or other shards.
    #[must_use]
    pub fn is_holding(&self, connection: ConnectionKey) -> bool {
        self.held_of(connection)
            .is_some_and(|held| !held.is_empty())
    }

    /// Whether so many packets to this Client wait that nothing more should be taken from it that leads to others: once
    /// some of them leave, it may be.
    #[must_use]
    pub fn is_laden(&self, connection: ConnectionKey) -> bool {
        // Nearly always that is nobody.
        self.most_held >= HELD_ENOUGH
            && self
                .held_of(connection)
                .is_some_and(|held| held.len() >= HELD_ENOUGH)
    }

    pub(crate) fn held_of(&self, connection: ConnectionKey) -> Option<&HeldQueue> {
        let session = self.connections.get(connection)?.session;
        Some(&self.sessions.link(session)?.held)
    }

    /// Lets go what no longer has to wait.
    pub(crate) fn release(&mut self) {
        self.advance_commits();
        let holding = std::mem::take(&mut self.sessions_holding);
        self.most_held = 0;
        for session in holding {
            self.release_session(session);
        }
        self.begin_replays();
        self.answer_shards();
    }

    fn release_session(&mut self, key: SessionKey) {
        self.release_held(key);
        // Its replays stand still while much waits.
        self.resume_replays(key);
    }

    fn release_held(&mut self, key: SessionKey) {
        loop {
            let Some(link) = self.sessions.link_mut(key) else {
                return;
            };
            let Some(held) = link.held.front() else {
                return;
            };
            let wait = held.wait;
            if !self.is_over(&wait) {
                self.sessions_holding.push(key);
                if let Some(link) = self.sessions.link(key) {
                    self.most_held = self.most_held.max(link.held.len());
                }
                return;
            }
            let Some(link) = self.sessions.link_mut(key) else {
                return;
            };
            if let Some(held) = link.held.pop_front() {
                let connection = link.connection;
                self.outputs.push_back(Output::Send {
                    connection,
                    packet: held.packet,
                });
            }
        }
    }
}

/// So many packets to one Client may wait before nothing more is taken from it: as many as the PUBLISH packets that may be
/// open at once where nothing else is configured.
const HELD_ENOUGH: usize = 1024;
