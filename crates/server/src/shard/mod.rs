//! One shard: a thread with its own event loop, listeners, connections and engine.
//!
//! Owns: the order of work in one turn. Does not own: what packets mean (see `engine`), anything
//! another shard touches but the rings of `links`. Start reading at [`Shard::turn`].
//! Invariant: each connection that has something to say is written once per turn, and no lock but that of
//! the store is taken on the way of a message.

mod accept;
mod admit;
mod asking;
mod beginning;
mod commands;
mod connection;
mod deadlines;
mod deliver;
mod denied;
pub(crate) mod fuzzed;
mod giving_back;
mod governed;
mod links;
mod mounted;
mod pace;
mod parked;
mod proxied;
mod reauthentication;
mod receive;
mod relimited;
mod shared;
mod socket;
mod stalled;
mod starting;
mod stopping;
mod storing;
mod unsent;
mod websocket;

use std::collections::VecDeque;
use std::io;
use std::num::NonZeroU64;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use engine::{ConnectionKey, Engine, Principal, ShardIndex};
use mio::{Events, Poll, Token};
use proto::connection::ConnectionError;
use proto::packet::ReasonCode;
use slab::Slab;
use store::{MessageRecord, RestoredSession, Store};

use asking::Reasks;
use connection::{Connection, Connections};
use deadlines::Deadlines;
use governed::Governed;
use links::Parcel;
use starting::Starting;
use stopping::Stopping;
use storing::Stored;
use unsent::BufferPool;

pub(crate) use accept::{Acceptor, Door, REFUSALS_MAX};
pub(crate) use commands::{Command, resident_bytes};
#[cfg(feature = "quic")]
pub(crate) use connection::Accepted;
pub(crate) use links::{Links, Mailbox};
pub(crate) use pace::{PaceLimits, PacesLimits};
pub(crate) use shared::{Settings, Shared};

use crate::reload::Policy;

/// One shard.
#[derive(Debug)]
pub(crate) struct Shard<S> {
    poll: Poll,
    engine: Engine,
    store: S,
    stored: Stored,
    connections: Connections,
    generation: u32,
    acceptor: Acceptor,
    links: Links,
    deadlines: Deadlines,
    pool: BufferPool,
    scratch: Box<[u8]>,
    now: Instant,
    /// Connections with something unsent.
    dirty: Vec<ConnectionKey>,
    /// Connections that may have more to read without another event.
    ready: Vec<ConnectionKey>,
    /// Connections that have said something after silence, and were not read in that turn: they are in the next one.
    unheard: Vec<ConnectionKey>,
    /// Publishers, and those whose packets wait, not read while a ring is full, or the store has too much to write.
    paused: Vec<ConnectionKey>,
    /// A CONNECT just taken whose connection is to move.
    moving: Option<(ShardIndex, Box<connection::Moving>)>,
    /// Whether a ring was full at the end of the last turn.
    is_pressed: bool,
    /// Whether the engine was told something since its last `end_turn`.
    has_news: bool,
    assigned_client_ids: u64,
    /// Whom the last Client to be let in is known as: the next may be the same to all rules.
    last_principal: Arc<Principal>,
    /// Steps of TLS handshakes that may still be made in this turn.
    handshake_steps: u32,
    /// Since when they are.
    handshakes_since: Instant,
    /// Connections without a CONNECT that may still be read in this turn.
    connects_left: u32,
    /// The engine's work at which nothing more is read in this turn.
    turn_ends_at: u64,
    /// Work that the packets of one connection may make in this turn.
    connection_work_max: u64,
    /// Connections that were not written in the turns before, because so many were.
    unwritten: VecDeque<ConnectionKey>,
    starting: Starting,
    stopping: Stopping,
    /// Whether this shard has still to be counted at the barrier it stands at.
    owes_barrier: bool,
    /// What is asked of this shard from outside.
    commands: mpsc::Receiver<Command>,
    /// For those that answer this shard.
    commander: mpsc::Sender<Command>,
    governed: Governed,
    /// When `$SYS` was last told what only the server can measure.
    measured_at: Option<Instant>,
    /// What a reload replaces.
    policy: Arc<Policy>,
    reasks: Reasks,
    shared: Arc<Shared>,
}

/// What a restart found for one shard.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// Sessions whose home it is.
    pub(crate) sessions: Vec<RestoredSession>,
    /// All retained messages.
    pub(crate) retained: Vec<MessageRecord>,
}

/// What a shard is made of, on its way to the shard's thread.
#[derive(Debug)]
pub(crate) struct Parts<S> {
    pub(crate) poll: Poll,
    pub(crate) engine: engine::Config,
    pub(crate) store: S,
    /// What a restart found for this shard.
    pub(crate) found: Found,
    pub(crate) links: Links,
    pub(crate) acceptor: Acceptor,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) commander: mpsc::Sender<Command>,
    /// Hears that this shard accepts.
    pub(crate) started: mpsc::Sender<()>,
    pub(crate) policy: Arc<Policy>,
    pub(crate) shared: Arc<Shared>,
}

impl<S: Store> Shard<S> {
    /// A shard that accepts on its listeners once all shards are ready. It stays on the thread that makes it.
    pub(crate) fn new(parts: Parts<S>, now: Instant) -> Self {
        let Parts {
            poll,
            engine,
            store,
            found,
            links,
            acceptor,
            commands,
            commander,
            started,
            policy,
            shared,
        } = parts;
        let mut engine = Engine::new(engine, now);
        engine.restore(found.sessions, found.retained, now);
        Self {
            poll,
            engine,
            store,
            stored: Stored::default(),
            connections: Slab::new(),
            generation: 0,
            acceptor,
            links,
            deadlines: Deadlines::new(now),
            pool: BufferPool::default(),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            now,
            dirty: Vec::new(),
            ready: Vec::new(),
            unheard: Vec::new(),
            paused: Vec::new(),
            moving: None,
            is_pressed: false,
            has_news: true,
            assigned_client_ids: 0,
            last_principal: Arc::default(),
            handshake_steps: 0,
            handshakes_since: Instant::now(),
            connects_left: 0,
            turn_ends_at: u64::MAX,
            connection_work_max: CONNECTION_WORK_MAX,
            unwritten: VecDeque::new(),
            starting: Starting::new(started),
            stopping: Stopping::No,
            owes_barrier: false,
            commands,
            commander,
            governed: Governed::default(),
            measured_at: None,
            policy,
            reasks: Reasks::default(),
            shared,
        }
    }

    /// Runs until the Server has stopped.
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_PER_TURN);
        while !self.has_stopped() {
            if let Err(error) = self.turn(&mut events) {
                tracing::error!(shard = self.links.own().0, %error, "event loop failed");
                self.shared
                    .stop_because(&format!("an event loop failed: {error}"));
                return;
            }
        }
    }

    /// One turn: everything that can be read is read, then everything is settled, then each touched
    /// connection is written.
    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        self.wait(events)?;
        self.now = Instant::now();
        self.measure();
        self.read_all(events);
        self.accept_again();
        self.take_parcels();
        self.take_from_store();
        self.take_commands();
        self.on_deadlines();
        self.ask_again();
        if self.engine.has_work() || self.engine.poll_timeout().is_some_and(|at| at <= self.now) {
            self.guarded(Engine::on_timeout);
            self.has_news = true;
        }
        self.go_on_stopping();
        self.settle();
        self.is_pressed = !self.links.flush();
        self.judge_store();
        self.go_on_starting();
        if !self.is_pressed && !self.stored.is_pressed {
            self.resume_paused();
        }
        self.write_dirty();
        self.govern();
        Ok(())
    }

    /// Sleeps until there is something to do.
    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let mut timeout = self.sleep_max();
        // Who leaves something in a ring, or has written, wakes us only if we said that we sleep.
        if timeout != Some(Duration::ZERO) && !(self.links.park() && self.is_store_quiet()) {
            timeout = Some(Duration::ZERO);
        }
        let polled = self.poll.poll(events, timeout);
        self.links.unpark();
        match polled {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                events.clear();
                Ok(())
            }
            polled => polled,
        }
    }

    /// How long there is nothing to do unless something happens; `None` is for ever.
    fn sleep_max(&self) -> Option<Duration> {
        if self.has_news
            || !self.ready.is_empty()
            || !self.unheard.is_empty()
            || !self.unwritten.is_empty()
            || self.acceptor.has_more
            || self.engine.has_work()
        {
            return Some(Duration::ZERO);
        }
        let next = [
            self.engine.poll_timeout(),
            self.deadlines.next(),
            self.reasks.next(self.now),
            self.acceptor.resumes_at,
            self.governs_at(),
        ]
        .into_iter()
        .flatten()
        .min();
        let until_next = next.map(|at| at.saturating_duration_since(Instant::now()));
        let is_hurried = self.is_pressed || !matches!(self.stopping, Stopping::No);
        let hurried = is_hurried.then_some(HURRIED_SLEEP);
        [until_next, hurried].into_iter().flatten().min()
    }

    fn on_event(&mut self, event: &mio::event::Event) {
        let Token(token) = event.token();
        if event.token() == WAKER {
            return;
        }
        if let Some(listener) = token.checked_sub(LISTENERS_FROM) {
            self.accept(listener);
            return;
        }
        let Some(connection) = self.connections.get_mut(token) else {
            return;
        };
        let key = connection.key;
        // It is not read, so nothing else would show that it is gone. Who has only closed has said all it had to say, as
        // over TCP, where nothing tells whether it still reads: a Unix socket hangs up.
        let is_not_read = connection.is_parked() || connection.flags.is_asking;
        if is_not_read && event.is_error() {
            return self.lose(key, None);
        }
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        if event.is_writable() && connection.flags.is_blocked {
            connection.flags.is_blocked = false;
            self.mark_dirty(key);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            let is_over = self.is_turn_over();
            if let Some(connection) = self.connection_mut(key) {
                connection.flags.is_peer_done |= event.is_read_closed() || event.is_error();
                // It has its turn after those that have not waited for one.
                if connection.flags.is_ready {
                    return;
                }
                if is_over {
                    connection.flags.is_ready = true;
                    return self.unheard.push(key);
                }
            }
            self.read(key);
        }
    }

    /// Reads from those that have something to say. Who has said nothing lately goes before those that were not done in
    /// the turn before, or a few words would wait behind all that a crowd has to say; for three quarters of a turn at most.
    fn read_all(&mut self, events: &Events) {
        let begins_at = self.engine.work();
        let again = std::mem::take(&mut self.ready);
        let unheard = std::mem::take(&mut self.unheard);
        let (end, is_first) = if again.is_empty() {
            (TURN_WORK_MAX, 1)
        } else {
            (TURN_WORK_MAX / 4 * 3, 0)
        };
        self.turn_ends_at = begins_at + end;
        // Who has just spoken up may be done soon: a thousand acknowledgements are no crowd, and where a publisher is stopped
        // after each message, each subscriber is written for each message.
        self.connection_work_max = connection_work_max(unheard.len() + again.len());
        // Logins go in the order in which they came.
        self.handshake_steps = HANDSHAKE_STEPS_MAX * is_first;
        self.handshakes_since = Instant::now();
        self.connects_left = CONNECTS_MAX * is_first;
        self.unheard = self.read_some(unheard);
        for event in events {
            self.on_event(event);
        }
        if again.is_empty() {
            return;
        }
        self.turn_ends_at = begins_at + TURN_WORK_MAX;
        self.handshake_steps = HANDSHAKE_STEPS_MAX;
        self.handshakes_since = Instant::now();
        self.connects_left = CONNECTS_MAX;
        let late = std::mem::take(&mut self.ready);
        let mut again = self.read_some(again);
        // Whose turn it was not goes first the next time.
        again.append(&mut self.ready);
        again.extend(late);
        self.ready = again;
    }

    /// Reads from these, as long as it is not over; returns the rest.
    fn read_some(&mut self, keys: Vec<ConnectionKey>) -> Vec<ConnectionKey> {
        let mut keys = keys.into_iter();
        while !self.is_turn_over()
            && let Some(key) = keys.next()
        {
            self.read_again(key);
        }
        keys.collect()
    }

    fn read_again(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connection_mut(key)
            && std::mem::take(&mut connection.flags.is_ready)
        {
            self.read(key);
        }
    }

    /// Takes what the other shards left here. Bounded: a ring is finite.
    fn take_parcels(&mut self) {
        for from in 0..self.links.shard_count() {
            for _ in 0..links::RING_PARCELS {
                let Some(parcel) = self.links.pop(from) else {
                    break;
                };
                self.on_parcel(from, parcel);
            }
        }
    }

    /// Tells the engine something that no packet of this shard led to. What it fails on is skipped: the
    /// other sessions of the shard are worth more than that.
    fn guarded(&mut self, tell: impl FnOnce(&mut Engine, Instant)) {
        let told = panic::catch_unwind(AssertUnwindSafe(|| tell(&mut self.engine, self.now)));
        if told.is_err() {
            let shard = self.links.own().0;
            tracing::error!(
                shard,
                error = "a broken invariant of this Server",
                "event skipped"
            );
        }
    }

    fn on_parcel(&mut self, from: usize, parcel: Parcel) {
        match parcel {
            Parcel::Messages(messages) => {
                let from = ShardIndex(u16::try_from(from).unwrap_or(u16::MAX));
                self.has_news = true;
                for message in messages {
                    self.guarded(|engine, now| engine.on_shard_message(from, message, now));
                }
                self.deliver();
            }
            Parcel::Moving(moving) => self.on_moving(*moving),
            Parcel::Accepted(accepted) => self.insert_accepted(accepted),
        }
    }

    /// Ends the engine's turn and does what it asks, until it asks for nothing more.
    fn settle(&mut self) {
        for _ in 0..SETTLE_ROUNDS_MAX {
            if !std::mem::take(&mut self.has_news) {
                return;
            }
            self.engine.end_turn(self.now);
            self.deliver();
        }
    }

    /// Looks at every connection whose deadline may have passed.
    fn on_deadlines(&mut self) {
        while let Some((tick, keys)) = self.deadlines.pop_due(self.now) {
            for key in keys {
                let Some(connection) = self.connection_mut(key) else {
                    continue;
                };
                if connection.armed.map(NonZeroU64::get) == Some(tick) {
                    connection.armed = None;
                    self.on_deadline(key);
                }
            }
        }
    }

    fn on_deadline(&mut self, key: ConnectionKey) {
        let now = self.now;
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        if connection.closes_at().is_some_and(|until| until <= now) {
            self.remove(key);
            return;
        }
        if connection.is_open() && connection.expires_at().is_some_and(|at| at <= now) {
            let text = "what the Client has shown has expired";
            let error = ConnectionError::refused(ReasonCode::MaximumConnectTime, text);
            return self.refuse(key, &error);
        }
        if connection.flags.is_ahead {
            if connection.is_open() && connection.resumes_at().is_some_and(|at| at <= now) {
                connection.flags.is_ahead = false;
                self.mark_ready(key);
            }
            return self.arm(key);
        }
        // While we do not read from it, its silence is our own doing.
        let is_ours = connection.flags.is_paused
            || connection.flags.is_stalled
            || connection.flags.is_asking
            || connection.flags.is_laden
            || connection.flags.is_choked
                && now.saturating_duration_since(connection.took_at) < TAKING_PAUSE_MAX;
        let is_heard = connection.is_open() && !is_ours;
        match connection.protocol.on_timeout(now).filter(|_| is_heard) {
            Some(error) => self.refuse(key, &error),
            None if is_heard => self.arm(key),
            None => self.arm_from(key, now + OVERDUE_PAUSE),
        }
    }

    /// Sees to it that the connection is looked at when its next deadline passes.
    fn arm(&mut self, key: ConnectionKey) {
        self.arm_from(key, self.now);
    }

    /// The same, but not before `earliest`: a deadline may have passed that does not count now.
    fn arm_from(&mut self, key: ConnectionKey, earliest: Instant) {
        let Some(connection) = self.connections.get_mut(connection::index_of(key)) else {
            return;
        };
        let expires_at = connection.expires_at().filter(|_| connection.is_open());
        // Its Keep Alive does not run while it is not read because of its rate.
        let heard_by = match connection
            .resumes_at()
            .filter(|_| connection.flags.is_ahead)
        {
            Some(resumes_at) => Some(resumes_at),
            None => connection.protocol.poll_timeout(),
        };
        let deadlines = [heard_by, expires_at];
        let next = deadlines.into_iter().flatten().min();
        let deadline = connection.closes_at().or(next);
        let Some(deadline) = deadline.filter(|_| connection.key == key) else {
            return;
        };
        // Looked at again before it is far away, so that entries of closed connections go soon.
        let deadline = deadline.clamp(earliest, self.now + ARMED_AHEAD_MAX);
        let is_early_enough = connection
            .armed
            .is_some_and(|tick| tick.get() <= self.deadlines.tick_of(deadline) + 1);
        if !is_early_enough {
            connection.armed = NonZeroU64::new(self.deadlines.arm(key, deadline));
        }
    }

    /// The connection with this key, if it is still here.
    fn connection_mut(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        connection::find_mut(&mut self.connections, key)
    }

    fn mark_dirty(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connection_mut(key)
            && !std::mem::replace(&mut connection.flags.is_dirty, true)
        {
            self.dirty.push(key);
        }
    }

    fn mark_ready(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connection_mut(key)
            && !std::mem::replace(&mut connection.flags.is_ready, true)
        {
            self.ready.push(key);
        }
    }
}

/// Work that the packets of one connection may make in a turn where so many wait from the turn before: all of them have a
/// slice in a few turns.
fn connection_work_max(crowd: usize) -> u64 {
    let share = 4 * TURN_WORK_MAX / u64::try_from(crowd).unwrap_or(u64::MAX).max(1);
    share.clamp(CONNECTION_WORK_MIN, CONNECTION_WORK_MAX)
}

/// The token of other shards' wake-ups.
pub(crate) const WAKER: Token = Token(usize::MAX);
/// Steps of TLS handshakes in one turn, in which nobody else is served.
const HANDSHAKE_STEPS_MAX: u32 = 8;
/// None is begun later in a turn, but for the first one: a signature with an RSA key takes as long as ten with an ECDSA key.
const HANDSHAKES_TIME_MAX: Duration = Duration::from_millis(2);
/// Work that packets may make in one turn, in units of the engine: some ten milliseconds.
const TURN_WORK_MAX: u64 = 65_536;
/// Of these, those of one connection: some milliseconds.
const CONNECTION_WORK_MAX: u64 = 16_384;
/// The same in a crowd, where who comes last waits for a slice of each of the others.
const CONNECTION_WORK_MIN: u64 = 256;
/// Connections without a CONNECT that are read in one turn: each is a login, and a line in the log.
const CONNECTS_MAX: u32 = 64;
/// Tokens from here on are listeners; below are places in the slab.
const LISTENERS_FROM: usize = usize::MAX / 2;
/// One read takes at most this many bytes.
const SCRATCH_BYTES: usize = 64 * 1024;
/// Events taken from one poll.
const EVENTS_PER_TURN: usize = 1024;
/// No entry for a connection's deadline lies further ahead.
const ARMED_AHEAD_MAX: Duration = Duration::from_secs(60);
/// A connection whose deadline does not count now is looked at again after this.
const OVERDUE_PAUSE: Duration = Duration::from_secs(1);
/// A peer that takes nothing for so long is not slow but gone.
const TAKING_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Sleep at most this long while a ring is full or the Server stops.
const HURRIED_SLEEP: Duration = Duration::from_millis(1);
/// What is still unsettled after this many rounds is settled in the next turn.
const SETTLE_ROUNDS_MAX: usize = 8;
