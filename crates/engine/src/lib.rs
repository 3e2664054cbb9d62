//! One shard's mind: sessions, subscriptions, retained messages, wills. Deterministic, no IO.
//!
//! Owns: everything MQTT asks of a Server beyond one Network Connection.
//! Does not own: sockets, clocks, threads, files; bytes on the wire (see `proto::connection`).
//! Start reading at [`Engine`], then `publish`. Invariant: the same calls with the same times give the
//! same outputs, and a mistake of one Client never reaches another's Session.
#![warn(clippy::indexing_slicing, clippy::iter_over_hash_type)]

mod arena;
mod asked;
mod commits;
mod config;
mod connect;
mod connections;
mod counters;
mod delivery;
mod disconnect;
mod filters;
mod full;
mod full_elsewhere;
mod keys;
mod limits;
mod loads;
mod losses;
mod memory;
mod memory_short;
mod output;
mod parted_table;
mod pending;
mod principal;
mod publish;
mod queue;
mod relimited;
mod replay;
mod restore;
mod retained;
mod rights;
mod routing;
mod rules;
mod runs;
mod sessions;
mod shared_delivery;
mod shared_subscriptions;
mod slices;
mod stop;
mod storage_low;
mod subscribe;
mod subscriptions;
mod sys_topics;
#[cfg(test)]
mod testing;
mod timers;
mod users;
mod will;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::BuildHasher;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::packet::ReasonCode;
use proto::{Message, Version};
use store::{Batch, Level, Record, Seq, SessionId, Target, UnixMillis};

pub use asked::{Answer, Question};
pub use config::{Config, Levels};
pub use connect::ConnectRequest;
pub use counters::Counters;
pub use full::Hold;
pub use keys::{ConnectionKey, SHARD_COUNT_MAX, SessionKey, ShardIndex};
pub use limits::{Limits, LimitsByListener, OverflowPolicy};
pub use losses::{Loser, Loss, Lost};
pub use memory::Memory;
pub use memory_short::Keeps;
pub use output::{Denied, DeniedAction, Output};
pub use principal::Principal;
pub use retained::{RetainedLimits, RetainedRefusal, Stamp};
pub use routing::ShardMessage;
pub use rules::{
    Actions, Decision, Effect, Network, NetworkError, Notation, PatternError, Request, Rule, Rules,
    Subject, TopicPattern, Topics, Who,
};
pub use runs::Packets;
pub use shared_subscriptions::SharedStrategy;
pub use users::UserTotals;

use commits::Commits;
use connections::Connections;
use full::Full;
use keys::{KeyedState, keyed_state};
use loads::Loads;
use retained::Retained;
use rights::Rights;
use routing::Routing;
use runs::{OpenRun, Run};
use sessions::Sessions;
use shared_subscriptions::SharedSubscriptions;
use slices::Sliced;
use subscriptions::Subscriptions;
use sys_topics::Sys;
use timers::{Due, Timers};
use users::Users;

/// One shard of the Server. Feed it events, then call [`Engine::end_turn`], then take its outputs.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    limits: Arc<Limits>,
    limits_by_listener: LimitsByListener,
    /// The largest packet that anybody may send.
    packet_size_max_bytes: usize,
    hasher: KeyedState,
    started_at: Instant,
    /// An instant, and what the calendar said at it.
    calendar: (Instant, UnixMillis),
    connections: Connections,
    sessions: Sessions,
    next_session: SessionId,
    subscriptions: Subscriptions,
    shared: SharedSubscriptions,
    retained: Retained,
    /// Topics whose retained message is in the store, from an earlier process, and not recorded any more.
    retained_before: BTreeSet<Box<str>>,
    /// Sessions whose replays can go on.
    replaying: VecDeque<SessionKey>,
    /// Empty; its room is used again and again.
    replay_batch: Vec<Arc<Message>>,
    /// Replays whose SUBACK is not due yet, by Session and Topic Filter.
    replays_waiting: BTreeMap<(SessionKey, Arc<str>), replay::Waiting>,
    loads: Loads,
    full: Full,
    rights: Rights,
    users: Users,
    routing: Routing,
    commits: Commits,
    timers: Timers,
    sys: Sys,
    counters: Counters,
    /// This shard's part of what the process may queue.
    queued_bytes_shard_max: usize,
    outputs: VecDeque<Output>,
    /// PUBLISH packets that wait for the next one, which comes at once.
    open_run: Option<OpenRun>,
    /// Empty; its room is used again.
    spare_run: Option<Rc<Run>>,
    /// Packets that are done a slice a turn.
    sliced: VecDeque<Sliced>,
    /// Queues of Sessions that have ended, which go a part a turn.
    shedding: VecDeque<proto::session::Outbound>,
    /// What was done so far: packets, deliveries, Subscriptions that were looked at.
    work: u64,
    /// How often the server has taken all outputs.
    taken: u64,
    /// Sessions whose queue goes on when the outputs are taken.
    paced: Vec<SessionKey>,
    /// Durable effects of this turn.
    batch: Vec<Record>,
    /// The highest level that one of them asks for.
    batch_level: Level,
    last_batch: Seq,
    /// The last batch that is to be on the disk before something is acknowledged.
    last_synced: Seq,
    /// Handed to the operating system; at least `persisted`.
    written: Seq,
    persisted: Seq,
    /// Durable Sessions that took the message being routed.
    targets: Vec<Target>,
    /// How often the Session that is looked at may be among them, at most.
    copies: u64,
    /// How safe that message is to be.
    level: Level,
    /// Nothing is accepted that makes the log grow.
    is_storage_low: bool,
    /// Nothing is accepted that grows in memory.
    is_memory_short: bool,
    /// Sessions whose connection has packets that wait.
    sessions_holding: Vec<SessionKey>,
    /// Those that have got room for such packets since the last look at who needs it no more.
    roomy: Vec<SessionKey>,
    /// Nobody has more packets that wait.
    most_held: usize,
    /// Connections to be closed when the turn ends.
    closing: Vec<(ConnectionKey, ReasonCode)>,
    /// Sessions to be counted when the turn ends.
    touched: Vec<SessionKey>,
    /// The last message that was dropped and not told of.
    last_loss: Option<(SessionKey, Loss)>,
    loss_told_at: Option<Instant>,
}

impl Engine {
    /// A shard without sessions, started at `now`.
    #[must_use]
    pub fn new(config: Config, now: Instant) -> Self {
        let hasher = keyed_state(config.hash_seed);
        let limits = Arc::clone(&config.limits);
        let limits_by_listener = config.limits_by_listener.clone();
        let retained_limits = RetainedLimits::from(&*limits);
        let (shard, shard_count) = (config.shard, config.shard_count);
        let mut timers = Timers::new(now);
        if !config.sys_interval.is_zero() && shard == ShardIndex(0) {
            timers.set(Due::Sys, now);
        }
        Self {
            connections: Connections::default(),
            sessions: Sessions::new(hasher.clone()),
            next_session: SessionId(config.first_session.0 + u64::from(shard.0)),
            subscriptions: Subscriptions::new(hasher.clone()),
            shared: SharedSubscriptions::new(config.shared_strategy, shard, hasher.clone()),
            retained: Retained::new(retained_limits, shard, shard_count, hasher.clone()),
            retained_before: BTreeSet::new(),
            replaying: VecDeque::new(),
            replay_batch: Vec::new(),
            replays_waiting: BTreeMap::new(),
            loads: Loads::new(hasher.clone()),
            full: Full::new(hasher.clone()),
            rights: Rights::new(Arc::clone(&config.rules), now),
            users: Users::new(Arc::clone(&config.user_totals), &limits, hasher.clone()),
            routing: Routing::new(&config),
            commits: Commits::new(&config),
            timers,
            sys: Sys::new(&config),
            counters: Counters::default(),
            queued_bytes_shard_max: limits.queued_bytes_of_shard(shard_count),
            outputs: VecDeque::new(),
            open_run: None,
            spare_run: None,
            sliced: VecDeque::new(),
            shedding: VecDeque::new(),
            work: 0,
            taken: 0,
            paced: Vec::new(),
            batch: Vec::new(),
            batch_level: Level::Written,
            last_batch: Seq(0),
            last_synced: Seq(0),
            written: Seq(0),
            persisted: Seq(0),
            targets: Vec::new(),
            copies: 0,
            level: Level::default(),
            is_storage_low: false,
            is_memory_short: false,
            sessions_holding: Vec::new(),
            roomy: Vec::new(),
            most_held: 0,
            closing: Vec::new(),
            touched: Vec::new(),
            last_loss: None,
            loss_told_at: None,
            started_at: now,
            calendar: (now, config.started_at),
            packet_size_max_bytes: limits_by_listener
                .packet_size_max_bytes(limits.maximum_packet_size_bytes),
            config,
            limits,
            limits_by_listener,
            hasher,
        }
    }

    /// Everything up to the batch `written` is handed to the operating system, and everything up to the
    /// batch `durable` is on the disk.
    pub fn on_persisted(&mut self, written: Seq, durable: Seq, _now: Instant) {
        self.end_run();
        self.persisted = self.persisted.max(durable);
        self.written = self.written.max(written).max(self.persisted);
        self.release();
        self.retry_loads();
    }

    /// The calendar says `calendar` at `now`. To be told now and then: what is recorded from here on counts from
    /// it, so that a clock that is set while the Server runs ends no Session and no message after a restart.
    pub const fn on_calendar(&mut self, calendar: UnixMillis, now: Instant) {
        self.calendar = (now, calendar);
    }

    /// Does what is due at `now`, as much of it as one turn may hold; [`Self::poll_timeout`] says whether there is more.
    pub fn on_timeout(&mut self, now: Instant) {
        self.end_run();
        // What a Will reaches depends on what the other shards have announced.
        if !self.is_ready() {
            return;
        }
        let enough = self.work() + TIMERS_WORK_MAX;
        while self.work() < enough
            && let Some(due) = self.timers.pop(now)
        {
            self.work += 1;
            match due {
                Due::SessionExpiry(key) => self.on_session_expiry(key, now),
                Due::WillDelay(key) => self.publish_will(key, now),
                Due::Sys => self.on_sys_timer(now),
            }
        }
        self.expire_retained(now);
    }

    /// When [`Self::on_timeout`] has to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        if !self.is_ready() {
            return None;
        }
        let expiry = self.retained.next_expiry();
        self.timers.next_at().into_iter().chain(expiry).min()
    }

    /// Whether another turn has something to do although nothing happens: replays and queues at their pace.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.paced.is_empty()
            || !self.sliced.is_empty()
            || !self.shedding.is_empty()
            || self.has_runnable_replay()
    }

    /// Ends a turn: does its share of the replays, sends the batches to other shards and to the store.
    pub fn end_turn(&mut self, now: Instant) {
        self.end_run();
        self.close_marked(now);
        self.run_slices(now);
        self.run_shedding();
        self.run_paced(now);
        self.run_replays(now);
        self.close_marked(now);
        // Other shards hear in this turn what it finds.
        self.count_touched();
        self.judge_memory();
        self.flush_shards();
        self.cut_batch();
        self.run_loads();
        self.tell_loss(now);
    }

    /// Gives the durable effects up to now to the store.
    fn cut_batch(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let seq = self.next_batch();
        self.last_batch = seq;
        let level = std::mem::replace(&mut self.batch_level, Level::Written);
        if level == Level::Synced {
            self.last_synced = seq;
        }
        let records = std::mem::take(&mut self.batch);
        self.outputs.push_back(Output::Persist(Batch {
            seq,
            records,
            level,
        }));
    }

    /// The next thing to do for the server, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.end_run();
        let output = self.outputs.pop_front();
        self.taken += u64::from(output.is_none());
        output
    }

    /// How many outputs wait to be taken.
    #[must_use]
    pub fn outputs_len(&self) -> usize {
        self.outputs.len()
    }

    /// The server has read and written this many bytes more, for `$SYS`.
    pub const fn count_bytes(&mut self, received: u64, sent: u64) {
        self.counters.bytes_received += received;
        self.counters.bytes_sent += sent;
    }

    /// The server has decoded and written this many packets more, whatever they were, for `$SYS`.
    pub const fn count_packets(&mut self, received: u64, sent: u64) {
        self.counters.packets_received += received;
        self.counters.packets_sent += sent;
    }

    /// The server has accepted one socket more in this shard, for `$SYS`.
    pub const fn count_socket(&mut self) {
        self.counters.sockets += 1;
    }

    /// What the server has measured, for `$SYS`: sockets open in this shard, and in one shard the memory
    /// of the process and the most there ever was of it, in bytes.
    pub const fn measure(&mut self, sockets_open: u64, (memory, memory_max): (u64, u64)) {
        self.counters.sockets_open = sockets_open;
        self.counters.memory_bytes = memory;
        self.counters.memory_bytes_maximum = memory_max;
    }

    /// What this shard has counted.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The Client Identifier of a connection's Session.
    #[must_use]
    pub fn client_id_of(&self, connection: ConnectionKey) -> Option<&str> {
        let session = self.connections.get(connection)?.session;
        self.sessions
            .get(session)
            .map(|session| &*session.client_id)
    }

    /// What was done so far, in units that take about as long as one delivery. Only grows; how much it grew by says how
    /// long a packet kept the others waiting.
    #[must_use]
    pub const fn work(&self) -> u64 {
        self.work + self.subscriptions.visited() + self.full.visited()
    }

    /// Whether there is a Session of this Client Identifier.
    #[must_use]
    pub fn has_session(&self, client_id: &str) -> bool {
        self.sessions.find(client_id).is_some()
    }

    /// Whether the Client of such a Session is connected.
    #[must_use]
    pub fn is_connected(&self, client_id: &str) -> bool {
        let session = self.sessions.find(client_id);
        session.is_some_and(|key| self.sessions.link(key).is_some())
    }

    /// A packet arrived: the Session of its connection, if the connection is still ours. What came before is done first.
    fn on_packet(&mut self, connection: ConnectionKey) -> Option<SessionKey> {
        self.end_run();
        self.session_of(connection)
    }

    /// The Session of a connection, if it is still ours.
    fn session_of(&self, connection: ConnectionKey) -> Option<SessionKey> {
        self.connections
            .get(connection)
            .map(|connection| connection.session)
    }

    /// A number no Session of any shard has had.
    fn new_session_id(&mut self) -> SessionId {
        let id = self.next_session;
        self.next_session.0 += u64::from(self.config.shard_count);
        id
    }

    /// What the calendar says at `at`, which may be before it was last looked at.
    fn unix_millis(&self, at: Instant) -> UnixMillis {
        let millis = |span: Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        let (looked_at, says) = self.calendar;
        let after = millis(at.saturating_duration_since(looked_at));
        let before = millis(looked_at.saturating_duration_since(at));
        UnixMillis(says.0.saturating_add(after).saturating_sub(before))
    }

    fn version_of(&self, connection: ConnectionKey) -> Version {
        self.connections
            .get(connection)
            .map_or(Version::V311, |connection| connection.version)
    }
}

/// What is due at once is done by so much in one turn.
const TIMERS_WORK_MAX: u64 = 4096;

/// The shard where the Session of this Client Identifier lives. The same for the same arguments.
#[must_use]
pub fn home_shard(client_id: &str, hash_seed: u64, shard_count: u16) -> ShardIndex {
    let hash = keyed_state(hash_seed).hash_one(client_id);
    let shard = hash % u64::from(shard_count.max(1));
    ShardIndex(u16::try_from(shard).unwrap_or(0))
}
