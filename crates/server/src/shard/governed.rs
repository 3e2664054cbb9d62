//! What a shard counts for the governor, and how it carries out the governor's steps.
//!
//! Owns: [`Governed`], what of a connection counts where, which publisher waits for the next window, which reader has to
//! go, the budget of connections that have shown nothing yet. Does not own: when a step is taken (see
//! `crate::governor`), what the engine counts. Start reading at [`Shard::govern`].
//! Invariants: what a connection counts for is given back when it goes; a publisher that waits is looked at again in the
//! next window, and what makes room, its acknowledgements, does not wait with it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use engine::{ConnectionKey, Keeps};
use proto::packet::ReasonCode;
use store::Store;

use super::Shard;
use super::connection::{Connection, Stage, find_mut};
use super::giving_back::{GivingBack, give_back};
use super::stalled::Stall;
use super::unsent::BufferPool;
use crate::governor::{Kind, Step, Sums, WINDOW};

/// What a shard knows of the governor's.
#[derive(Debug)]
pub(super) struct Governed {
    /// Bytes of all connections.
    counted: Counted,
    /// The window as this shard knows it.
    window: u32,
    step: Step,
    /// What a publisher may say in it.
    allowance: u64,
    /// What the loudest has said in it.
    loudest: u64,
    /// Publishers that wait for the next.
    throttled: Vec<ConnectionKey>,
    /// Connections that had shown nothing yet, oldest first.
    waiting_room: VecDeque<ConnectionKey>,
    giving_back: GivingBack,
}

impl Default for Governed {
    fn default() -> Self {
        Self {
            counted: Counted::default(),
            window: 0,
            step: Step::Calm,
            allowance: u64::MAX,
            loudest: 0,
            throttled: Vec::new(),
            waiting_room: VecDeque::new(),
            giving_back: GivingBack::default(),
        }
    }
}

impl Governed {
    /// What a PUBLISH of `bytes` has to wait for, if `heard` is what its publisher has said; if for nothing, it is counted.
    pub(super) fn stall_of(
        &mut self,
        heard: &mut Heard,
        key: ConnectionKey,
        bytes: usize,
    ) -> Option<Stall> {
        let before = heard.in_window(self.window);
        if before >= self.allowance {
            self.throttled.push(key);
            return Some(Stall::Window(self.window));
        }
        heard.window = self.window;
        let heard_now = before + bytes as u64;
        heard.bytes = u32::try_from(heard_now).unwrap_or(u32::MAX);
        self.loudest = self.loudest.max(heard_now);
        None
    }
}

impl Governed {
    /// A PUBLISH has to wait for room that comes without a word: it is looked at again in the next window.
    pub(super) fn wait_for_room(&mut self, key: ConnectionKey) -> Stall {
        self.throttled.push(key);
        Stall::Room(self.window)
    }
}

/// What one connection counts for, in bytes; of more than 4 GiB that much counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    input: u32,
    unsent: u32,
    transport: u32,
}

impl Held {
    const fn input(self) -> usize {
        self.input as usize
    }

    /// `is_unproven` if it has shown nothing yet.
    const fn counted(self, is_unproven: bool) -> Counted {
        let input = self.input();
        Counted {
            input,
            unsent: self.unsent as usize,
            transport: self.transport as usize,
            unproven: if is_unproven { input } else { 0 },
            unproven_count: is_unproven as usize,
        }
    }
}

/// Bytes of all connections, or of one.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    input: usize,
    unsent: usize,
    transport: usize,
    /// Of `input`, that of connections that have shown nothing yet.
    unproven: usize,
    /// How many of these there are.
    unproven_count: usize,
}

impl Counted {
    const fn change(&mut self, before: Self, after: Self) {
        self.input = self.input + after.input - before.input;
        self.unsent = self.unsent + after.unsent - before.unsent;
        self.transport = self.transport + after.transport - before.transport;
        self.unproven = self.unproven + after.unproven - before.unproven;
        self.unproven_count = self.unproven_count + after.unproven_count - before.unproven_count;
    }
}

/// What a publisher has said in a window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heard {
    window: u32,
    /// Of more than 4 GiB that much counts.
    bytes: u32,
}

impl Heard {
    const fn in_window(self, window: u32) -> u64 {
        if self.window == window {
            self.bytes as u64
        } else {
            0
        }
    }
}

impl Connection {
    fn held_now(&self) -> Held {
        let pending = match &self.stage {
            Stage::Authenticating(pending) | Stage::Parked(pending) => pending.memory_bytes(),
            _ => 0,
        };
        let bytes = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        Held {
            input: bytes(self.partial.memory_bytes() + pending),
            unsent: bytes(self.unsent.table_bytes()),
            transport: bytes(self.socket.state_bytes()),
        }
    }

    /// Whether the engine has been told of it, or it is on its way out.
    const fn is_proven(&self) -> bool {
        !matches!(
            self.stage,
            Stage::AwaitingConnect | Stage::Authenticating(_) | Stage::Parked(_)
        )
    }
}

impl<S: Store> Shard<S> {
    /// Counts a connection as it is now.
    pub(super) fn count(&mut self, key: ConnectionKey) {
        let Some(connection) = find_mut(&mut self.connections, key) else {
            return;
        };
        let now = (connection.held_now(), !connection.is_proven());
        let before = (connection.held, connection.flags.is_held_unproven);
        if before != now {
            (connection.held, connection.flags.is_held_unproven) = now;
            let counted = |(held, is_unproven): (Held, bool)| held.counted(is_unproven);
            let (before, now) = (counted(before), counted(now));
            self.governed.counted.change(before, now);
            self.shared.unproven.change(before, now);
        }
    }

    /// A connection has left its place.
    pub(super) fn discount(&mut self, connection: &mut Connection) {
        let is_unproven = std::mem::take(&mut connection.flags.is_held_unproven);
        let before = std::mem::take(&mut connection.held).counted(is_unproven);
        self.governed.counted.change(before, Counted::default());
        self.shared.unproven.change(before, Counted::default());
    }

    /// Once in a turn: says what this shard holds, and does what the governor wants.
    pub(super) fn govern(&mut self) {
        let own = usize::from(self.links.own().0);
        let sums = self.sums();
        let governor = &self.shared.governor;
        governor.publish(own, &sums, self.governed.loudest, self.now);
        let window = governor.window();
        if window != self.governed.window {
            self.governed.window = window;
            self.governed.allowance = governor.allowance();
            self.governed.loudest = 0;
            let step = governor.step();
            let before = std::mem::replace(&mut self.governed.step, step);
            self.begin_window(before, step);
        }
        if self
            .governed
            .giving_back
            .on_held(sums.iter().sum(), self.now)
        {
            // What the rush was sent from.
            self.pool = BufferPool::default();
            give_back();
        }
    }

    fn sums(&self) -> Sums {
        let of_engine = self.engine.memory();
        let counted = &self.governed.counted;
        let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let is_first = self.links.own().0 == 0;
        // The same in all shards.
        let retained = signed(of_engine.retained_messages);
        let retained = if is_first { retained } else { 0 };
        let places = self.connections.capacity()
            * (size_of::<Box<Connection>>() + size_of::<usize>())
            + self.connections.len() * size_of::<Connection>();
        let log = if is_first { self.store.held_bytes() } else { 0 };
        Kind::ALL.map(|kind| match kind {
            Kind::Connections => signed((places + counted.transport) as u64),
            Kind::Input => signed(counted.input as u64),
            Kind::Unsent => signed((counted.unsent + self.pool.bytes()) as u64),
            Kind::Sessions => signed(of_engine.sessions),
            Kind::Wills => signed(of_engine.wills),
            Kind::Subscriptions => signed(of_engine.subscriptions),
            Kind::Retained => signed(of_engine.retained) + retained,
            Kind::Messages => proto::live_message_bytes() - retained,
            Kind::Queues => signed(of_engine.queues),
            Kind::Rings => signed(self.links.held_bytes() as u64),
            Kind::Log => signed(log as u64),
        })
    }

    fn begin_window(&mut self, before: Step, step: Step) {
        for key in std::mem::take(&mut self.governed.throttled) {
            self.mark_ready(key);
        }
        if before == step && step < Step::Shed {
            return;
        }
        if (before >= Step::Spill) != (step >= Step::Spill) {
            self.has_news = true;
            self.guarded(|engine, now| engine.on_memory_short(step >= Step::Spill, now));
        }
        if (before >= Step::Shed) != (step >= Step::Shed) {
            self.judge_all();
        }
        if step == Step::Disconnect {
            self.disconnect_slowest();
        } else if before == Step::Disconnect {
            let own = usize::from(self.links.own().0);
            self.shared.governor.is_slowest(own, 0);
        }
    }

    /// The mark for congestion has changed.
    fn judge_all(&mut self) {
        let keys: Vec<_> = self.connections.iter().map(|(_, one)| one.key).collect();
        for key in keys {
            self.judge_congestion(key);
        }
    }

    /// Unsent bytes of one connection above which it is congested.
    pub(super) fn congested_bytes(&self) -> usize {
        let configured = self.policy.bounds.congested_bytes;
        let most = match self.governed.step {
            Step::Calm | Step::Throttle | Step::Refuse => configured,
            Step::Shed | Step::Spill => SHED_BYTES,
            Step::Disconnect => SHED_BYTES / 4,
        };
        configured.min(most)
    }

    /// Ends the connection of whoever makes us hold most, if there is none that holds more in another shard.
    fn disconnect_slowest(&mut self) {
        let held = |connection: &Connection| {
            let queued = self.engine.bytes_freed_without(connection.key);
            connection.unsent.len() + queued
        };
        // Who takes what it is sent makes room.
        let takes = |connection: &Connection| {
            self.now.saturating_duration_since(connection.took_at) < SLOW_AFTER
        };
        let served = self.connections.iter();
        let served = served.filter(|(_, one)| one.is_served() && !takes(one));
        let slowest = served.map(|(_, one)| (held(one), one.key)).max();
        let (bytes, key) = slowest.unwrap_or((0, ConnectionKey(0)));
        let own = usize::from(self.links.own().0);
        let is_slowest = self.shared.governor.is_slowest(own, bytes as u64);
        if !is_slowest || bytes < SLOWEST_BYTES_MIN {
            return;
        }
        self.end_slow(key, bytes);
    }

    /// Whether a publisher that was too loud in the window `window` has to wait still.
    pub(super) const fn is_window(&self, window: u32) -> bool {
        self.governed.window == window
    }

    /// How many bytes are read at once: less from each where there is little room.
    pub(super) fn read_bytes_max(&self) -> usize {
        let allowed = usize::try_from(self.governed.allowance).unwrap_or(usize::MAX);
        allowed.max(READ_BYTES_MIN)
    }

    /// When the shard has to look again although nothing happens.
    pub(super) fn governs_at(&self) -> Option<Instant> {
        let is_waited_for = !self.governed.throttled.is_empty();
        let window = (self.governed.step > Step::Calm || is_waited_for).then(|| self.now + WINDOW);
        window
            .into_iter()
            .chain(self.governed.giving_back.next())
            .min()
    }

    /// Why a connection that has shown who it is gets in no more.
    pub(super) fn lacks_memory(&self, client_id: &str) -> Option<(ReasonCode, &'static str)> {
        let keeps = match self.governed.step {
            Step::Calm | Step::Throttle => return None,
            Step::Refuse | Step::Shed | Step::Spill => Keeps::Subscriptions,
            Step::Disconnect => Keeps::Messages,
        };
        let is_refused = self.engine.keeps_for(client_id) < keeps && !self.shared.governor.let_in();
        is_refused.then_some((ReasonCode::ServerBusy, "the server runs low on memory"))
    }

    /// A connection has come that has shown nothing yet. If there are too many of them, the oldest here goes: whoever means
    /// to log in has done so long before.
    pub(super) fn enter_waiting_room(&mut self, key: ConnectionKey) {
        self.count(key);
        self.governed.waiting_room.push_back(key);
        while let Some(oldest) = self.governed.waiting_room.front().copied() {
            let is_unproven = self
                .connection_mut(oldest)
                .is_some_and(|one| !one.is_proven());
            let count = self.shared.unproven.count.load(Ordering::Relaxed);
            if is_unproven && count <= self.policy.bounds.unproven_max {
                return;
            }
            self.governed.waiting_room.pop_front();
            if is_unproven {
                let peer = self.connection_mut(oldest).map(|one| one.peer);
                let peer = peer.map(|peer| peer.to_string()).unwrap_or_default();
                tracing::warn!(
                    peer,
                    "too many connections have not logged in, oldest closed"
                );
                self.remove(oldest);
            }
        }
    }

    /// Whether a connection that has shown nothing yet holds more than is left for all such.
    pub(super) fn is_unproven_too_large(&mut self, key: ConnectionKey) -> bool {
        let unproven = self.shared.unproven.bytes.load(Ordering::Relaxed);
        let is_over = unproven > self.policy.bounds.unproven_bytes_max
            || unproven as u64 > self.shared.governor.unproven_max();
        is_over
            && self.connection_mut(key).is_some_and(|one| {
                one.flags.is_held_unproven && one.held.input() > UNPROVEN_BYTES_FREE
            })
    }
}

/// Connections of all shards that have shown nothing yet.
#[derive(Debug, Default)]
pub(super) struct Unproven {
    count: AtomicUsize,
    /// Bytes of input held for them.
    bytes: AtomicUsize,
}

impl Unproven {
    fn change(&self, before: Counted, after: Counted) {
        for (sum, before, after) in [
            (&self.count, before.unproven_count, after.unproven_count),
            (&self.bytes, before.unproven, after.unproven),
        ] {
            if after > before {
                sum.fetch_add(after - before, Ordering::Relaxed);
            } else if before > after {
                sum.fetch_sub(before - after, Ordering::Relaxed);
            }
        }
    }
}

/// Unsent bytes of one connection above which it is congested, once less is kept for slow readers.
const SHED_BYTES: usize = 256 * 1024;
/// Who has taken nothing for so long is slow.
const SLOW_AFTER: Duration = Duration::from_secs(1);
/// Nobody is slow who makes us hold less than this.
const SLOWEST_BYTES_MIN: usize = 16 * 1024;
/// At least so many bytes are read at once.
const READ_BYTES_MIN: usize = 4096;
/// A connection that has shown nothing yet may always hold so much.
const UNPROVEN_BYTES_FREE: usize = 4096;
