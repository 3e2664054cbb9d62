//! What all shards of a Server see, and what they are told once.
//!
//! Owns: [`Shared`], [`Settings`]. Does not own: what a shard has for itself (see [`super::Shard`]).
//! Start reading at [`Shared`]. Invariant: nothing here is locked on the way of a message.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, mpsc};
use std::time::Instant;

use super::accept::REFUSALS_MAX;
use super::commands::Command;
#[cfg(feature = "quic")]
use super::connection::Accepted;
use super::governed::Unproven;
use super::links::Mailbox;
use super::pace::PacesLimits;
use super::stopping::Barriers;
use crate::authentication::{Accounts, Ban, Bans, Known, Users, Verifiers};
use crate::common_pace::CommonPaces;
use crate::config::ServerBounds;
use crate::governor::{Budget, Governor};
use crate::outbound::Outbound;
use crate::peer::Origin;
use crate::persist::Figures;
use crate::reload::{ListenerPolicy, Policy};
use crate::server::Kept;
use crate::standing::Standing;
use crate::turnstile::{CrowdLimits, Turnstile};

/// What all shards of a Server see.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) is_stop_requested: AtomicBool,
    /// Whether the store has failed: nothing is acknowledged any more.
    pub(crate) is_failed: AtomicBool,
    /// Why the Server stops by itself, once it does.
    pub(crate) failure: OnceLock<String>,
    pub(crate) barriers: Barriers,
    /// Connections served at once.
    connections_max: AtomicUsize,
    /// Sockets open in all shards.
    pub(crate) connections: AtomicUsize,
    /// The same by listener.
    entered: Box<[AtomicUsize]>,
    pub(crate) mailboxes: Arc<[Mailbox]>,
    pub(crate) settings: Settings,
    /// Where logins are verified.
    pub(crate) verifiers: Verifiers,
    /// Where other machines are asked.
    pub(crate) outbound: Arc<Outbound>,
    /// Who has failed too often.
    pub(crate) bans: Bans,
    /// Who comes and goes too often.
    pub(crate) flapping: Bans,
    /// Who comes in now.
    pub(crate) turnstile: Turnstile,
    /// What users, and all there are, have said lately.
    pub(crate) common_paces: CommonPaces,
    /// What the store says of itself; `None` where everything is in memory.
    pub(crate) figures: Option<Arc<Figures>>,
    /// The users of the data folder.
    pub(crate) users: Option<Arc<Users>>,
    /// Those of the password file.
    file: Mutex<Option<Arc<Accounts>>>,
    /// How often users have changed.
    user_changes: AtomicU64,
    /// How all shards are told something, once they run.
    pub(crate) commanders: OnceLock<Vec<mpsc::Sender<Command>>>,
    /// Alarms that hold as long as what they tell of.
    pub(crate) standing: Standing,
    /// Makes what is written durable at once, where there is a log.
    pub(crate) hurry: OnceLock<crate::persist::Hurry>,
    /// The endpoints of QUIC, if there are some.
    #[cfg(feature = "quic")]
    pub(crate) quic: OnceLock<crate::quic::Handle>,
    /// How much memory there is, and what is done about it.
    pub(crate) governor: Governor,
    /// Connections that have shown nothing yet.
    pub(super) unproven: Unproven,
}

impl Shared {
    /// The users there are now.
    pub(crate) fn known(&self) -> Known {
        let file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        Known::now(self.users.as_ref(), file.as_ref())
    }

    /// What `policy` knows of users is what counts from now on.
    pub(crate) fn remember(&self, policy: &Policy) {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.clone_from(&policy.file);
    }

    /// How often users have changed up to now.
    pub(crate) fn user_changes(&self) -> u64 {
        self.user_changes.load(Ordering::SeqCst)
    }

    /// Users have changed, and the shards are about to be told.
    pub(crate) fn users_changed(&self) {
        self.user_changes.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn new(mailboxes: Arc<[Mailbox]>, settings: Settings, kept: Kept) -> Self {
        Self {
            is_stop_requested: AtomicBool::new(false),
            is_failed: AtomicBool::new(false),
            failure: OnceLock::new(),
            barriers: Barriers::default(),
            connections_max: AtomicUsize::new(settings.connections_max),
            connections: AtomicUsize::new(0),
            entered: settings
                .is_quic
                .iter()
                .map(|_| AtomicUsize::new(0))
                .collect(),
            mailboxes,
            verifiers: Verifiers::new(settings.login_threads, settings.logins_waiting_max),
            outbound: kept.outbound,
            common_paces: CommonPaces::new(Instant::now()),
            turnstile: Turnstile::new(settings.crowds, settings.is_quic.len(), Instant::now()),
            governor: Governor::new(settings.memory_budget, settings.shard_count, Instant::now()),
            unproven: Unproven::default(),
            settings,
            bans: Bans::default(),
            flapping: Bans::default(),
            figures: kept.figures,
            users: kept.users,
            file: Mutex::default(),
            user_changes: AtomicU64::new(0),
            commanders: OnceLock::new(),
            standing: Standing::default(),
            hurry: OnceLock::new(),
            #[cfg(feature = "quic")]
            quic: OnceLock::new(),
        }
    }

    /// All bans: of those that have failed to log in, and of those that come and go.
    pub(crate) fn bans_in_force(&self, now: Instant) -> Vec<Ban> {
        let mut bans = self.bans.list(now);
        bans.extend(self.flapping.list(now).into_iter().map(|ban| Ban {
            client_id: ban.user,
            user: None,
            ..ban
        }));
        bans.sort_by_key(|ban| ban.ends_in_seconds);
        bans
    }

    /// Ends those of an address, or all; how many there were.
    pub(crate) fn lift_bans(&self, address: Option<Origin>, now: Instant) -> usize {
        self.bans.lift(address, now) + self.flapping.lift(address, now)
    }

    /// Counts a socket that came in by a listener; returns whether it is over the limit and is to be told so, or
    /// nothing if there is not even room for that.
    pub(crate) fn let_in(&self, listener: u16, of: Option<&ListenerPolicy>) -> Option<bool> {
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        let there = self.entered.get(usize::from(listener));
        let before_there = there.map_or(0, |there| there.fetch_add(1, Ordering::Relaxed));
        let max_there = of.map_or(usize::MAX, |of| of.connections_max);
        let is_full = |before: usize, max: usize| before >= max.saturating_add(REFUSALS_MAX);
        let max = self.connections_max();
        if is_full(before_there, max_there) || is_full(before, max) {
            self.depart(listener);
            return None;
        }
        Some(before >= max || before_there >= max_there)
    }

    /// Connections served at once.
    pub(crate) fn connections_max(&self) -> usize {
        self.connections_max.load(Ordering::Relaxed)
    }

    /// What all shards share of these bounds counts from now on, in place of those `before`. Who is there stays, though
    /// there be more than that.
    pub(crate) fn take_over(&self, before: &ServerBounds, bounds: &ServerBounds) {
        let (old, new) = (PacesLimits::from(before), PacesLimits::from(bounds));
        let (of_user, of_all) = ([&old.of_user, &new.of_user], [&old.of_all, &new.of_all]);
        self.common_paces.reprice(of_user, of_all, Instant::now());
        let connections_max = bounds.connections_max.min(self.settings.connections_room);
        self.connections_max
            .store(connections_max, Ordering::Relaxed);
        self.turnstile.set_limits(bounds.into());
        self.verifiers.set_waiting_max(bounds.logins_waiting_max);
        self.governor
            .set_budget(Budget::new(bounds.memory_max_bytes));
    }

    /// A shard is through with such a socket. A connection over QUIC goes on a little longer, until its last bytes
    /// have arrived, and is counted as long.
    pub(crate) fn leave(&self, listener: u16) {
        let is_quic = self.settings.is_quic.get(usize::from(listener));
        if is_quic != Some(&true) {
            self.depart(listener);
        }
    }

    /// Counts the end of such a socket.
    pub(crate) fn depart(&self, listener: u16) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
        if let Some(there) = self.entered.get(usize::from(listener)) {
            there.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Gives a connection that was let in to a shard; `turn` goes round all of them.
    #[cfg(feature = "quic")]
    pub(crate) fn hand_over(&self, turn: usize, accepted: Accepted) {
        let listener = accepted.listener;
        let place = turn % self.mailboxes.len().max(1);
        let commanders = self.commanders.get();
        let commander = commanders.and_then(|all| all.get(place));
        let is_sent = commander.is_some_and(|commander| {
            let command = Command::Accepted(accepted);
            commander.send(command).is_ok()
        });
        match self.mailboxes.get(place) {
            Some(mailbox) if is_sent => mailbox.wake(),
            // It has ended, and what was given to it is closed.
            _ => self.leave(listener),
        }
    }

    /// The store has failed: nothing is acknowledged any more, and the Server stops.
    pub(crate) fn fail_store(&self, reason: &str) {
        self.is_failed.store(true, Ordering::SeqCst);
        self.stop_because(reason);
    }

    /// Asks all shards to stop for a reason nobody asked for; the first one is kept.
    pub(crate) fn stop_because(&self, reason: &str) {
        if self.failure.set(reason.to_owned()).is_ok() {
            tracing::error!(error = reason, "the Server stops by itself");
        }
        self.request_stop();
    }

    /// Gives every shard a command. One that has ended takes none.
    pub(crate) fn tell_all(&self, command: impl Fn() -> Command) {
        let commanders = self.commanders.get().into_iter().flatten();
        for (commander, mailbox) in commanders.zip(self.mailboxes.iter()) {
            if commander.send(command()).is_ok() {
                mailbox.wake();
            }
        }
    }

    /// Asks all shards to stop.
    pub(crate) fn request_stop(&self) {
        self.is_stop_requested.store(true, Ordering::SeqCst);
        if let Some(hurry) = self.hurry.get() {
            hurry.hurry();
        }
        #[cfg(feature = "quic")]
        if let Some(quic) = self.quic.get() {
            quic.stop();
        }
        for mailbox in self.mailboxes.iter() {
            mailbox.wake();
        }
    }
}

/// What a shard is told once.
#[derive(Debug)]
pub(crate) struct Settings {
    /// Of each listener, by its number, whether it speaks QUIC.
    pub(crate) is_quic: Box<[bool]>,
    /// Connections served at once.
    pub(crate) connections_max: usize,
    /// As many connections as there are open files for.
    pub(crate) connections_room: usize,
    /// Clients over the limit that may be told so at the same time.
    pub(crate) refusals_max: usize,
    pub(crate) hash_seed: u64,
    pub(crate) shard_count: u16,
    /// What Client Identifiers given by this process begin with.
    pub(crate) client_id_prefix: String,
    /// Memory that all peers together may take.
    pub(crate) memory_budget: Budget,
    /// Threads that verify logins.
    pub(crate) login_threads: usize,
    /// Logins that wait for them.
    pub(crate) logins_waiting_max: usize,
    /// How many at once, and how fast.
    pub(crate) crowds: CrowdLimits,
}
