//! Messages that several shards take and that must be there once: from when on they count.
//!
//! Owns: [`Gate`], [`Provisional`], the commits of this shard, which deliveries wait for one.
//! Does not own: who takes a message (see `publish`), who has taken it (see `routing`).
//! Start reading at [`Engine::commit_publish`], or at docs/decisions/0011.
//! Invariant: what the publisher's Session writes of a message comes after everything that was written
//! of it elsewhere, and in the order of publication; nobody who outlives a crash sees it before that.

use std::collections::{BTreeMap, VecDeque};

use proto::PacketIdentifier;
use store::{Level, Origin, Record, SessionId};

use crate::keys::SessionKey;
use crate::pending::Wait;
use crate::{Config, Engine, ShardIndex};

/// A commit of one shard, by its place among all commits of that shard. It opens when it is durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gate {
    pub(crate) shard: ShardIndex,
    pub(crate) number: u64,
}

impl Gate {
    /// The one that opens later. Commits of one shard open in order; what waits for two shards' does not
    /// exist, since a message has one publisher.
    pub(crate) fn later(self, other: Self) -> Self {
        assert_eq!(
            self.shard, other.shard,
            "invariant: nothing waits for commits of two shards"
        );
        if self.number < other.number {
            other
        } else {
            self
        }
    }
}

/// What a message is known by until it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Provisional {
    /// To the store.
    pub(crate) origin: Origin,
    /// To those who wait for it.
    pub(crate) gate: Gate,
}

/// What a message asks of the Session that publishes it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Publisher {
    /// Nothing: it is not sent again, or may arrive again in any order.
    None,
    /// Not to count before those that came before it: QoS 1.
    InOrder(SessionKey),
    /// To count once, whatever happens: QoS 2, and Wills.
    Once(SessionKey),
}

/// What is recorded when a message is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Its Packet Identifier is known.
    Inbound {
        packet_id: PacketIdentifier,
        /// Whether its PUBREL came already, from a Client that does not wait for PUBREC.
        is_released: bool,
    },
    /// Nothing but its number.
    Number,
    /// It was the Session's Will.
    Will,
    /// The Session has ended.
    End,
}

/// A message that is not committed yet.
#[derive(Debug)]
struct Commit {
    key: SessionKey,
    origin: Origin,
    effect: Effect,
    /// How safe the message is to be.
    level: Level,
    /// Who must have taken it first.
    wait: Wait,
}

impl Commit {
    const fn packet(&self) -> Option<(SessionId, PacketIdentifier)> {
        match self.effect {
            Effect::Inbound { packet_id, .. } => Some((self.origin.session, packet_id)),
            _ => None,
        }
    }
}

/// The commits of this shard, and how far the others are with theirs.
#[derive(Debug)]
pub(crate) struct Commits {
    own: ShardIndex,
    /// The last number given to one of ours.
    last: u64,
    /// Ours that wait for other shards, oldest first; the newest has the number `last`.
    open: VecDeque<Commit>,
    /// The newest open one of each Packet Identifier.
    of_packet: BTreeMap<(SessionId, PacketIdentifier), u64>,
    /// Ours that wait for the store, by number.
    recorded: VecDeque<(Wait, u64)>,
    /// Up to which number the commits of each shard are durable.
    durable: Vec<u64>,
    /// Deliveries that wait, by Session and number in its queue.
    gated: BTreeMap<(SessionId, u64), Gate>,
    /// The same for each shard whose commits they wait for, in the order of these.
    by_gate: Vec<VecDeque<(u64, SessionId, u64)>>,
}

impl Commits {
    pub(crate) fn new(config: &Config) -> Self {
        let shards = usize::from(config.shard_count);
        Self {
            own: config.shard,
            last: 0,
            open: VecDeque::new(),
            of_packet: BTreeMap::new(),
            recorded: VecDeque::new(),
            durable: vec![0; shards],
            gated: BTreeMap::new(),
            by_gate: vec![VecDeque::new(); shards],
        }
    }

    pub(crate) fn is_open(&self, gate: Gate) -> bool {
        self.durable
            .get(usize::from(gate.shard.0))
            .is_none_or(|durable| *durable >= gate.number)
    }

    /// The delivery `seq` of `session` waits for `gate`.
    pub(crate) fn hold(&mut self, session: SessionId, seq: u64, gate: Gate) {
        if let Some(waiting) = self.by_gate.get_mut(usize::from(gate.shard.0)) {
            waiting.push_back((gate.number, session, seq));
            self.gated.insert((session, seq), gate);
        }
    }

    /// What the delivery `seq` of `session` waits for.
    pub(crate) fn wait_of_delivery(&self, session: SessionId, seq: u64) -> Wait {
        let gate = self.gated.get(&(session, seq)).copied();
        Wait {
            gate,
            ..Wait::default()
        }
    }

    /// What an answer about this Packet Identifier waits for.
    pub(crate) fn wait_of_packet(&self, session: SessionId, packet_id: PacketIdentifier) -> Wait {
        let number = self.of_packet.get(&(session, packet_id));
        Wait {
            gate: number.map(|number| self.gate(*number)),
            ..Wait::default()
        }
    }

    /// What depends on this commit of ours waits for this.
    pub(crate) fn wait_of(&self, number: u64) -> Wait {
        Wait {
            gate: Some(self.gate(number)),
            ..Wait::default()
        }
    }

    const fn gate(&self, number: u64) -> Gate {
        Gate {
            shard: self.own,
            number,
        }
    }

    fn push(&mut self, commit: Commit) -> Wait {
        self.last += 1;
        if let Some(packet) = commit.packet() {
            self.of_packet.insert(packet, self.last);
        }
        self.open.push_back(commit);
        self.wait_of(self.last)
    }

    /// Takes the oldest open commit and its number.
    fn pop(&mut self) -> Option<(u64, Commit)> {
        let number = self.oldest();
        let commit = self.open.pop_front()?;
        if let Some(packet) = commit.packet()
            && self.of_packet.get(&packet) == Some(&number)
        {
            self.of_packet.remove(&packet);
        }
        Some((number, commit))
    }

    /// The number of the oldest open commit, or the next one to be given.
    fn oldest(&self) -> u64 {
        self.last + 1 - self.open.len() as u64
    }

    /// PUBREL came for an open commit; returns whether there is one.
    fn release(&mut self, session: SessionId, packet_id: PacketIdentifier) -> bool {
        let Some(number) = self.of_packet.get(&(session, packet_id)) else {
            return false;
        };
        let index = usize::try_from(number - self.oldest()).unwrap_or(usize::MAX);
        if let Some(Effect::Inbound { is_released, .. }) =
            self.open.get_mut(index).map(|commit| &mut commit.effect)
        {
            *is_released = true;
        }
        true
    }

    /// The commits of `shard` are durable up to `number`.
    fn open_gates(&mut self, shard: ShardIndex, number: u64) {
        let index = usize::from(shard.0);
        if let Some(durable) = self.durable.get_mut(index) {
            *durable = number.max(*durable);
        }
        let Some(waiting) = self.by_gate.get_mut(index) else {
            return;
        };
        while waiting.front().is_some_and(|(at, ..)| *at <= number) {
            if let Some((_, session, seq)) = waiting.pop_front() {
                self.gated.remove(&(session, seq));
            }
        }
    }
}

impl Engine {
    /// The number of a message that has to be committed after others have taken it: because they do, or
    /// because an earlier one of its Session still has to. Followed by [`Self::commit`].
    pub(crate) fn provisional(
        &mut self,
        publisher: Publisher,
        is_elsewhere: bool,
    ) -> Option<Provisional> {
        let (key, is_once) = match publisher {
            Publisher::None => return None,
            Publisher::InOrder(key) => (key, false),
            Publisher::Once(key) => (key, true),
        };
        let session = self.sessions.get_mut(key)?;
        // A Session that ends with the crash has a Client that does not send the message again.
        if !session.is_stored {
            return None;
        }
        // In another shard's log it could come before a commit that is not durable yet.
        let before = session.receiving();
        let may_overtake = is_elsewhere && !self.commits.is_open(self.commits.gate(before.gate));
        if before.open == 0 && !may_overtake && !(is_once && is_elsewhere) {
            return None;
        }
        let gate = self.commits.gate(self.commits.last + 1);
        let receiving = session.receiving_mut();
        receiving.open += 1;
        receiving.gate = gate.number;
        let open = receiving.open;
        let origin = Origin {
            session: session.id,
            number: session.inbound_number + open,
        };
        Some(Provisional { origin, gate })
    }

    /// Records the `effect` of a message when `wait` is over. What depends on it waits for the returned.
    pub(crate) fn commit(
        &mut self,
        key: SessionKey,
        effect: Effect,
        provisional: Provisional,
        wait: Wait,
    ) -> Wait {
        let Provisional { origin, gate } = provisional;
        assert_eq!(
            gate.number,
            self.commits.last + 1,
            "invariant: a message is routed and its commit opened in one go"
        );
        self.commits.push(Commit {
            key,
            origin,
            effect,
            level: self.level.max(Level::Written),
            // What this shard has written of it is before in the log.
            wait: wait.elsewhere(),
        })
    }

    /// Keeps the identifier of a QoS 2 message for a Session that is kept: now, in the batch that holds
    /// the message, or when it is committed.
    pub(crate) fn commit_publish(
        &mut self,
        key: SessionKey,
        packet_id: PacketIdentifier,
        provisional: Option<Provisional>,
        wait: Wait,
    ) -> Wait {
        if let Some(provisional) = provisional {
            let effect = Effect::Inbound {
                packet_id,
                is_released: false,
            };
            return self.commit(key, effect, provisional, wait);
        }
        let Some(session) = self.sessions.get_mut(key).filter(|found| found.is_stored) else {
            return wait;
        };
        if self.level == Level::Memory {
            session.receiving_mut().volatile.insert(packet_id);
            return wait;
        }
        session.inbound_number += 1;
        let (session, number) = (session.id, session.inbound_number);
        let record = Record::InboundPut {
            session,
            packet_id: packet_id.get(),
            number,
        };
        wait.and(self.record_at(self.level, record))
    }

    /// The Client has released this identifier; returns what its answer waits for.
    pub(crate) fn release_inbound(
        &mut self,
        key: SessionKey,
        packet_id: PacketIdentifier,
        is_known: bool,
    ) -> Wait {
        let stored = self.sessions.get_mut(key).filter(|found| found.is_stored);
        let Some(session) = stored else {
            return self.wait_for_batch();
        };
        if session.receiving_mut().volatile.remove(&packet_id) {
            return Wait::default();
        }
        let id = session.id;
        // Never recorded before the identifier itself is.
        if is_known && self.commits.release(id, packet_id) {
            session.receiving_mut().released += 1;
        } else if is_known {
            self.record(Record::InboundDelete {
                session: id,
                packet_id: packet_id.get(),
            });
        }
        let wait = self.commits.wait_of_packet(id, packet_id);
        self.wait_for_batch().and(wait)
    }

    /// What an answer to a repeated PUBLISH waits for.
    pub(crate) fn wait_of_inbound(&self, key: SessionKey, packet_id: PacketIdentifier) -> Wait {
        self.sessions
            .get(key)
            .map(|session| self.commits.wait_of_packet(session.id, packet_id))
            .unwrap_or_default()
    }

    /// Records what all have taken, in order, and says what is durable.
    pub(crate) fn advance_commits(&mut self) {
        while let Some(front) = self.commits.open.front()
            && self.is_over(&front.wait)
        {
            if let Some((number, commit)) = self.commits.pop()
                && let Some(wait) = self.record_commit(number, &commit)
            {
                self.commits.recorded.push_back((wait, number));
            }
        }
        let mut up_to = None;
        while let Some((wait, number)) = self.commits.recorded.front()
            && self.is_over(wait)
        {
            up_to = Some(*number);
            self.commits.recorded.pop_front();
        }
        if let Some(up_to) = up_to {
            self.commits.open_gates(self.config.shard, up_to);
            self.tell_committed(up_to);
        }
    }

    /// Returns what its gate waits for. A Session that is not there any more has its end among the commits
    /// that follow: `None`, since once that is durable, everything of it counts.
    fn record_commit(&mut self, number: u64, commit: &Commit) -> Option<Wait> {
        let (key, origin) = (commit.key, commit.origin);
        let id = origin.session;
        // What this shard has written of the message is as safe as this: at least as the message is to be.
        let level = commit.level.max(self.config.levels.of_sessions());
        if commit.effect == Effect::End {
            return Some(self.record_at(level, Record::SessionDelete { session: id }));
        }
        let session = self.sessions.get_mut(key);
        let session = session.filter(|session| session.id == id)?;
        session.inbound_number = origin.number;
        session.receiving_mut().open -= 1;
        let disconnected_at = session.disconnected_at;
        let wait = match commit.effect {
            Effect::Inbound {
                packet_id,
                is_released,
            } => {
                session.receiving_mut().released -= u32::from(is_released);
                self.record_inbound(commit, packet_id, is_released)
            }
            Effect::Will => {
                // One batch: the Will has gone when it counts, and its successor is there.
                let wait = self.record_session_at(level, key, disconnected_at);
                self.record_will_committed(key, number);
                wait
            }
            Effect::Number | Effect::End => self.record_session_at(level, key, disconnected_at),
        };
        Some(wait)
    }

    fn record_inbound(
        &mut self,
        commit: &Commit,
        packet_id: PacketIdentifier,
        is_released: bool,
    ) -> Wait {
        let (session, packet_id) = (commit.origin.session, packet_id.get());
        let record = Record::InboundPut {
            session,
            packet_id,
            number: commit.origin.number,
        };
        let wait = self.record_at(commit.level, record);
        if !is_released {
            return wait;
        }
        wait.and(self.record(Record::InboundDelete { session, packet_id }))
    }

    /// Another shard says up to where its commits are durable.
    pub(crate) fn on_committed(&mut self, from: ShardIndex, up_to: u64) {
        self.commits.open_gates(from, up_to);
        self.release();
    }
}
