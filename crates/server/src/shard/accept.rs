//! From a listener to a connection that awaits its CONNECT.
//!
//! Owns: accepting, its pauses, the limit on connections. Does not own: how listeners are opened
//! (see `crate::listener`). Start reading at [`Shard::accept`].
//! Invariant: a Client over the limit still hears why; one for whom there is no file descriptor waits.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mio::{Interest, Registry, Token};
use proto::connection::ServerConnection;
use store::Store;

use super::connection::{Accepted, Connection, key_of};
use super::links::Parcel;
use super::socket::Socket;
use super::stopping::Stopping;
use super::{LISTENERS_FROM, Shard};
use crate::listener::Listening;

/// One socket that Clients come by.
#[derive(Debug)]
pub(crate) struct Door {
    /// Its number among the listeners that are configured.
    pub(crate) listener: u16,
    pub(crate) socket: Listening,
    /// Whether there is only this one of it, so that what comes by it is for all shards.
    pub(crate) is_for_all: bool,
}

/// The listeners of one shard.
#[derive(Debug)]
pub(crate) struct Acceptor {
    doors: Vec<Door>,
    /// Whether a listener may have more without another event.
    pub(super) has_more: bool,
    /// When to try again after there was no room.
    pub(super) resumes_at: Option<Instant>,
    /// Whether somebody waits for whom there is no room.
    is_waiting: bool,
    /// When that was said last, so that it is not said all the time.
    said_at: Option<Instant>,
    next_shard: u16,
}

impl Acceptor {
    /// Of `doors`, not watched yet.
    pub(crate) const fn new(doors: Vec<Door>) -> Self {
        Self {
            doors,
            has_more: false,
            resumes_at: None,
            is_waiting: false,
            said_at: None,
            next_shard: 0,
        }
    }

    /// Watches the listeners with `registry`.
    /// # Errors
    /// A listener cannot be watched.
    pub(super) fn open(&mut self, registry: &Registry) -> io::Result<()> {
        for (index, door) in self.doors.iter_mut().enumerate() {
            door.socket
                .register(registry, Token(LISTENERS_FROM + index))?;
        }
        Ok(())
    }

    /// Accepts no more.
    pub(super) fn close(&mut self) {
        self.doors.clear();
        self.has_more = false;
        self.resumes_at = None;
    }
}

impl<S: Store> Shard<S> {
    /// Accepts what waits at this listener, a bounded number at once.
    pub(super) fn accept(&mut self, listener: usize) {
        if self.acceptor.resumes_at.is_some() {
            return;
        }
        for _ in 0..ACCEPTS_PER_TURN {
            if self.is_full() {
                self.pause_accepting("the limit of connections is reached");
                return;
            }
            let Some(door) = self.acceptor.doors.get(listener) else {
                return;
            };
            match door.socket.accept() {
                Ok((stream, peer)) => {
                    let (listener, is_for_all) = (door.listener, door.is_for_all);
                    let of = self.policy.listener(listener);
                    if of.is_some_and(|of| !of.takes_from(&peer)) {
                        tracing::warn!(%peer, "not a proxy that is listed, closed");
                        continue;
                    }
                    let Some(is_over_limit) = self.shared.let_in(listener, of) else {
                        // Not even room to be told so.
                        continue;
                    };
                    let accepted = Accepted {
                        stream,
                        listener,
                        peer,
                        certificate: None,
                        is_over_limit,
                        since: self.now,
                    };
                    self.place(accepted, is_for_all);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.say_goes_on();
                    return;
                }
                Err(error) if is_for_one_client(&error) => {}
                Err(error) => {
                    self.pause_accepting(&error.to_string());
                    return;
                }
            }
        }
        self.acceptor.has_more = true;
    }

    /// Goes on where the last turn stopped, or after a pause.
    pub(super) fn accept_again(&mut self) {
        let is_over = self.acceptor.resumes_at.is_some_and(|at| at <= self.now);
        if is_over {
            self.acceptor.resumes_at = None;
        }
        if std::mem::take(&mut self.acceptor.has_more) || is_over {
            for listener in 0..self.acceptor.doors.len() {
                self.accept(listener);
            }
        }
    }

    /// Whether there is not even room for a Client that is only told that there is no room.
    fn is_full(&self) -> bool {
        let open = self.shared.connections.load(Ordering::Relaxed);
        let refusals_max = self.shared.settings.refusals_max;
        open >= self.shared.connections_max().saturating_add(refusals_max)
    }

    fn pause_accepting(&mut self, error: &str) {
        self.acceptor.resumes_at = Some(self.now + ACCEPT_PAUSE);
        let is_recent = |at| self.now.saturating_duration_since(at) < SAID_PAUSE;
        let was_waiting = std::mem::replace(&mut self.acceptor.is_waiting, true);
        if !was_waiting && !self.acceptor.said_at.is_some_and(is_recent) {
            self.acceptor.said_at = Some(self.now);
            let shard = self.links.own().0;
            tracing::error!(shard, error, "accepting pauses until there is room");
        }
    }

    /// Everybody who waited is let in.
    fn say_goes_on(&mut self) {
        if std::mem::take(&mut self.acceptor.is_waiting) && self.acceptor.said_at.is_some() {
            let shard = self.links.own().0;
            tracing::info!(shard, "accepting goes on");
        }
    }

    /// Gives the socket to the shard that is to serve it first.
    fn place(&mut self, accepted: Accepted, is_for_all: bool) {
        if !is_for_all {
            self.insert_accepted(accepted);
            return;
        }
        let to = self.acceptor.next_shard;
        self.acceptor.next_shard = (to + 1) % self.shared.settings.shard_count;
        let to = engine::ShardIndex(to);
        if to == self.links.own() {
            self.insert_accepted(accepted);
        } else {
            self.links.push_parcel(to, Parcel::Accepted(accepted));
        }
    }

    /// Begins to serve a socket.
    pub(super) fn insert_accepted(&mut self, accepted: Accepted) {
        let Accepted {
            stream,
            listener,
            peer,
            certificate,
            is_over_limit,
            since,
        } = accepted;
        if !matches!(self.stopping, Stopping::No) {
            self.shared.leave(listener);
            return;
        }
        self.engine.count_socket();
        tracing::debug!(%peer, shard = self.links.own().0, "socket accepted");
        let of = self.policy.listener(listener);
        let Some(limits) = of.map(|of| Arc::clone(&of.server_limits)) else {
            return self.shared.leave(listener);
        };
        let protocol = ServerConnection::new(limits, since);
        let tls = of.and_then(|of| of.tls.as_ref());
        let is_proxied = of.is_some_and(|of| of.proxies.is_some());
        let transport = of.map(|of| of.transport).unwrap_or_default();
        let sniffs = of.is_some_and(|of| of.sniffs);
        let socket = match Socket::new(stream, is_proxied, tls, transport, sniffs) {
            Ok(socket) => socket.shown_before(certificate),
            Err(error) => {
                tracing::error!(%peer, %error, "a connection cannot be secured");
                self.shared.leave(listener);
                return;
            }
        };
        let mut connection = Connection::new(socket, listener, protocol, peer, self.now);
        connection.flags.is_over_limit = is_over_limit;
        if let Some(key) = self.insert(connection) {
            self.arm(key);
            self.enter_waiting_room(key);
        }
    }

    /// Gives the connection a place and a key, and watches its socket.
    pub(super) fn insert(&mut self, mut connection: Connection) -> Option<engine::ConnectionKey> {
        self.generation = self.generation.wrapping_add(1);
        let len = self.connections.len();
        if len == self.connections.capacity() {
            // By an eighth: doubled, half of it would be free.
            self.connections.reserve_exact((len / 8).max(PLACES_MIN));
        }
        let entry = self.connections.vacant_entry();
        let key = key_of(entry.key(), self.generation);
        connection.key = key;
        let interest = Interest::READABLE | Interest::WRITABLE;
        let token = Token(entry.key());
        if let Err(error) =
            self.poll
                .registry()
                .register(connection.socket.source(), token, interest)
        {
            tracing::error!(peer = %connection.peer, %error, "socket cannot be watched");
            self.shared.leave(connection.listener);
            return None;
        }
        entry.insert(Box::new(connection));
        Some(key)
    }
}

/// The table grows by so many places at least.
const PLACES_MIN: usize = 64;

/// Whether accepting failed for this Client only.
fn is_for_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::PermissionDenied
    )
}

/// Sockets accepted from one listener in one turn.
const ACCEPTS_PER_TURN: usize = 256;
/// That it pauses is said so often at most.
const SAID_PAUSE: Duration = Duration::from_secs(60);
/// How long accepting pauses when there is no room.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Clients over the limit that may be told so at the same time.
pub(crate) const REFUSALS_MAX: usize = 128;
