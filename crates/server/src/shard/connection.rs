//! One Network Connection as a shard holds it.
//!
//! Owns: [`Connection`], its [`Stage`], and the forms in which one travels to another shard.
//! Does not own: what its packets mean (see `proto::connection` and `engine`).
//! Start reading at [`Connection`]. Invariant: it holds no buffer while it is idle.

use std::num::NonZeroU64;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use engine::{ConnectionKey, Principal};
use proto::Secret;
use proto::connection::ServerConnection;
use proto::packet::Connect;
use slab::Slab;

use super::governed::{Heard, Held};
use super::pace::Pace;
use super::socket::Socket;
use super::stalled::Stall;
use super::unsent::Unsent;
use crate::authentication::{Attempt, ClientCertificate, Exchange, Ticket};
use crate::byte_stream::ByteStream;
use crate::peer::Peer;
use crate::reload::Policy;
use crate::turnstile::Seat;

/// How far a connection is.
#[derive(Debug)]
pub(super) enum Stage {
    /// No complete CONNECT yet.
    AwaitingConnect,
    /// CONNECT was taken, its authentication goes on.
    Authenticating(Box<Pending>),
    /// CONNECT was taken and is verified on another thread; nothing is read meanwhile.
    Parked(Box<Pending>),
    /// It was let in; what it may do with its Will and its Session is asked elsewhere. Nothing is read meanwhile.
    Asking(Box<Admission>),
    /// The engine was told of it.
    Served,
    /// Nothing is read any more; what is unsent is written, then the sending side is shut.
    Flushing {
        /// Until when, at most. In a place of its own: each connection has room for a stage, few are in this one.
        until: Box<Instant>,
    },
    /// The sending side is shut; the peer has time to take what was sent and to close.
    Lingering {
        /// Until when, at most.
        until: Box<Instant>,
    },
}

/// A CONNECT that waits for the end of its authentication.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) connect: Box<Connect>,
    /// Authentication Data of this step.
    pub(super) data: Option<Secret>,
    pub(super) exchange: Exchange,
    /// Who is asked: the rules of one exchange are those it began with.
    pub(super) policy: Arc<Policy>,
    /// Tells a thread that verifies whether this connection is still there.
    pub(super) ticket: Ticket,
    /// By which of the configured listeners it came.
    pub(super) listener: u16,
    /// Whether what is verified does not count any more.
    pub(super) is_stale: bool,
    /// Whether only a Client whose Session is there is let in.
    pub(super) has_to_be_known: bool,
    /// How often users had changed when it was asked who this is.
    pub(super) user_changes: u64,
    /// The certificate that it has shown.
    pub(super) certificate: Option<ClientCertificate>,
    /// Whether it may speak for somebody who is not of this machine, wherever it comes from.
    pub(super) is_for_others: bool,
}

impl Pending {
    /// Bytes it holds, about.
    pub(super) fn memory_bytes(&self) -> usize {
        let connect = &self.connect;
        let secret = |one: &Option<Secret>| one.as_ref().map_or(0, |one| one.expose().len());
        let will = connect.will.as_ref().map_or(0, |will| {
            will.topic.len() + will.payload.len() + will.properties.forwarded.len()
        });
        size_of::<Self>()
            + size_of::<Connect>()
            + connect.client_id.len()
            + connect.user_name.as_ref().map_or(0, String::len)
            + secret(&connect.password)
            + secret(&self.data)
            + will
    }

    /// What is asked, and what was noted about it before.
    pub(super) fn attempt(&mut self, peer: Peer) -> (Attempt<'_>, &mut Exchange) {
        let attempt = Attempt {
            client_id: &self.connect.client_id,
            user_name: self.connect.user_name.as_deref(),
            password: self.connect.password.as_ref(),
            data: self.data.as_ref(),
            peer,
            listener: self.policy.listener_name(self.listener),
            anonymous: self.policy.anonymous(self.listener),
            is_for_others: self.is_for_others,
            certificate: self.certificate.as_ref(),
            version: self.connect.version,
        };
        (attempt, &mut self.exchange)
    }
}

/// One Network Connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) key: ConnectionKey,
    pub(super) socket: Socket,
    /// Which of the configured listeners it came by.
    pub(super) listener: u16,
    pub(super) protocol: ServerConnection,
    pub(super) stage: Stage,
    pub(super) peer: Peer,
    /// Who it is, once it is served.
    pub(super) principal: Option<Arc<Principal>>,
    /// The beginning of a packet, whose rest is not here yet.
    pub(super) partial: Partial,
    pub(super) unsent: Unsent,
    /// When it last took some of what it is sent.
    pub(super) took_at: Instant,
    /// The tick at which it is looked at; other entries are stale.
    pub(super) armed: Option<NonZeroU64>,
    /// That it is counted, while it is served and something is.
    pub(super) seat: Option<Box<Seat>>,
    /// What few need.
    pub(super) seldom: Option<Box<Seldom>>,
    /// What it has published in this window.
    pub(super) heard: Heard,
    /// What it counts for.
    pub(super) held: Held,
    pub(super) flags: Flags,
}

/// What a connection needs while it logs in, waits or is limited, and else not.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    /// Shows others that it is still there; made when it is needed.
    pub(super) ticket: Option<Ticket>,
    /// The Client Identifier of a CONNECT the engine has not seen yet, for the log.
    pub(super) claimed_client_id: Option<Box<str>>,
    /// When what the Client has shown ends, and the connection with it.
    pub(super) expires_at: Option<Instant>,
    /// The exchange of a re-authentication.
    pub(super) reauthentication: Option<Box<Exchange>>,
    /// How fast it is, where that is limited.
    pub(super) pace: Option<Pace>,
    /// When it is read again, while it is ahead.
    pub(super) resumes_at: Option<Instant>,
    /// What a PUBLISH at the front of `partial` waits for, while it is stalled.
    pub(super) stall: Option<Stall>,
    /// How many bytes of `partial` are packets that wait, while it is stalled.
    pub(super) behind: usize,
    /// Since when a PUBLISH waits for room in a queue.
    pub(super) held_since: Option<Instant>,
    /// Bytes that may be unsent by limits that were there before, while more is than may be by those that are there now.
    pub(super) unsent_bytes_max: Option<usize>,
}

impl Seldom {
    const fn is_needed(&self) -> bool {
        let Self {
            ticket,
            claimed_client_id,
            expires_at,
            reauthentication,
            pace,
            resumes_at,
            stall,
            behind: _,
            held_since,
            unsent_bytes_max,
        } = self;
        ticket.is_some()
            || claimed_client_id.is_some()
            || expires_at.is_some()
            || reauthentication.is_some()
            || pace.is_some()
            || resumes_at.is_some()
            || stall.is_some()
            || held_since.is_some()
            || unsent_bytes_max.is_some()
    }
}

/// Gives a place back in which nothing is.
pub(super) fn leave(seldom: &mut Option<Box<Seldom>>) {
    if seldom.as_ref().is_some_and(|seldom| !seldom.is_needed()) {
        *seldom = None;
    }
}

/// The beginning of a packet. While there is none, which is nearly always, it takes one word and no memory.
#[derive(Debug, Default)]
pub(super) struct Partial(
    #[expect(
        clippy::box_collection,
        reason = "few have any, and each has the place"
    )]
    Option<Box<Vec<u8>>>,
);

impl Partial {
    /// As bytes that can be changed.
    pub(super) fn bytes_mut(&mut self) -> &mut Vec<u8> {
        self.0.get_or_insert_default()
    }

    /// Appends `bytes`.
    pub(super) fn extend_from_slice(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.bytes_mut().extend_from_slice(bytes);
        }
    }

    /// Takes all of it out.
    pub(super) fn take(&mut self) -> Vec<u8> {
        self.0.take().map(|bytes| *bytes).unwrap_or_default()
    }

    /// What it holds.
    pub(super) fn memory_bytes(&self) -> usize {
        let bytes = self.0.as_ref();
        bytes.map_or(0, |bytes| size_of::<Vec<u8>>() + bytes.capacity())
    }
}

impl From<Vec<u8>> for Partial {
    fn from(bytes: Vec<u8>) -> Self {
        Self((!bytes.is_empty()).then(|| Box::new(bytes)))
    }
}

impl Deref for Partial {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.0.as_ref().map_or(&[], |bytes| bytes)
    }
}

/// All of a shard. Each has a place of its own in memory: were they in one table, it would be copied when it grows,
/// and the places it had before stay with the allocator.
pub(super) type Connections = Slab<Box<Connection>>;

/// Small facts about a connection.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flags {
    /// Over the limit of connections: to be refused when its CONNECT is here.
    pub(super) is_over_limit: bool,
    /// In the list of connections to be written.
    pub(super) is_dirty: bool,
    /// The socket took less than it was given.
    pub(super) is_blocked: bool,
    /// In the list of connections to be read again.
    pub(super) is_ready: bool,
    /// In the list of connections not read while a ring is full.
    pub(super) is_paused: bool,
    /// Not read until it takes more of what it is owed.
    pub(super) is_choked: bool,
    /// Its DISCONNECT waits in `partial` until it was sent what it is owed.
    pub(super) is_leaving: bool,
    /// A PUBLISH of it waits in `partial`, see `stall`.
    pub(super) is_stalled: bool,
    /// It waits for its turn to connect, since `took_at`.
    pub(super) is_queued: bool,
    /// Not read until some of what waits for the store or other shards was sent to it.
    pub(super) is_laden: bool,
    /// Not read because it is ahead of its rate.
    pub(super) is_ahead: bool,
    /// What it has said before is not all looked at: others come first.
    pub(super) is_unfinished: bool,
    /// Not read until it is known whether it may do what waits in `partial`.
    pub(super) is_asking: bool,
    /// `held` counts as what one holds that has shown nothing yet.
    pub(super) is_held_unproven: bool,
    /// It has sent a PUBLISH.
    pub(super) is_publisher: bool,
    /// The engine knows that it is congested.
    pub(super) is_congested: bool,
    /// The peer has shut its sending side, or the socket failed.
    pub(super) is_peer_done: bool,
}

impl Flags {
    /// Whether the packet at the front of `partial` has to wait.
    pub(super) const fn has_to_wait(self) -> bool {
        self.is_leaving || self.is_stalled || self.is_asking
    }
}

impl Connection {
    /// One that waits for its CONNECT and has no key yet.
    pub(super) fn new(
        socket: Socket,
        listener: u16,
        protocol: ServerConnection,
        peer: Peer,
        now: Instant,
    ) -> Self {
        Self {
            key: ConnectionKey(0),
            socket,
            listener,
            protocol,
            stage: Stage::AwaitingConnect,
            peer,
            principal: None,
            partial: Partial::default(),
            unsent: Unsent::default(),
            took_at: now,
            armed: None,
            seat: None,
            seldom: None,
            heard: Heard::default(),
            held: Held::default(),
            flags: Flags::default(),
        }
    }

    /// A place for what few need.
    pub(super) fn seldom(&mut self) -> &mut Seldom {
        self.seldom.get_or_insert_default()
    }

    /// Gives that place back if nothing is in it.
    pub(super) fn leave_seldom(&mut self) {
        leave(&mut self.seldom);
    }

    /// How many bytes may be unsent because as many could be before the limits changed.
    pub(super) fn unsent_bytes_kept(&self) -> usize {
        let seldom = self.seldom.as_ref();
        seldom
            .and_then(|seldom| seldom.unsent_bytes_max)
            .unwrap_or(0)
    }

    /// As many are not, any more.
    pub(super) fn leave_unsent_bytes_kept(&mut self) {
        if let Some(seldom) = &mut self.seldom
            && seldom.unsent_bytes_max.take().is_some()
        {
            self.leave_seldom();
        }
    }

    /// When what the Client has shown ends.
    pub(super) fn expires_at(&self) -> Option<Instant> {
        self.seldom.as_ref()?.expires_at
    }

    /// When it is read again.
    pub(super) fn resumes_at(&self) -> Option<Instant> {
        self.seldom.as_ref()?.resumes_at
    }

    /// Whether its packets are the engine's as they come: it was sent its CONNACK, its topics are those of all, nothing of it
    /// is limited and nothing of it waits.
    pub(super) fn is_plain(&self) -> bool {
        self.seldom.is_none()
            && self.is_served()
            && self.protocol.is_connected()
            && self.mount_point().is_none()
    }

    /// What stands before all its topics, once it is served.
    pub(super) fn mount_point(&self) -> Option<&Arc<str>> {
        self.principal.as_ref()?.mount_point.as_ref()
    }

    /// Whether what it says is read as it comes.
    pub(super) const fn is_read(&self) -> bool {
        self.is_open() && !self.is_parked() && !self.flags.is_asking
    }

    /// Whether what it has said has to be paid for before it says more.
    pub(super) fn has_to_pay(&self, now: Instant) -> bool {
        let pace = self.seldom.as_ref().and_then(|seldom| seldom.pace.as_ref());
        pace.is_some_and(|pace| pace.pause(now).is_some())
    }

    /// Whether packets are still taken from it.
    pub(super) const fn is_open(&self) -> bool {
        matches!(
            self.stage,
            Stage::AwaitingConnect
                | Stage::Authenticating(_)
                | Stage::Parked(_)
                | Stage::Asking(_)
                | Stage::Served
        )
    }

    /// Whether its CONNECT is verified on another thread.
    pub(super) const fn is_parked(&self) -> bool {
        matches!(self.stage, Stage::Parked(_) | Stage::Asking(_))
    }

    /// Whether the engine knows it.
    pub(super) const fn is_served(&self) -> bool {
        matches!(self.stage, Stage::Served)
    }
}

/// A socket that was accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) stream: ByteStream,
    pub(crate) listener: u16,
    pub(crate) peer: Peer,
    /// The certificate it has shown to what was in front of us.
    pub(crate) certificate: Option<Box<ClientCertificate>>,
    pub(crate) is_over_limit: bool,
    /// When it began: the time for CONNECT runs from there.
    pub(crate) since: Instant,
}

/// A connection on its way to its home shard, with everything read from it so far.
#[derive(Debug)]
pub(super) struct Moving {
    pub(super) socket: Socket,
    pub(super) listener: u16,
    pub(super) protocol: ServerConnection,
    pub(super) peer: Peer,
    pub(super) admission: Admission,
    /// What an authentication exchange has still to send.
    pub(super) unsent: Unsent,
    /// Bytes after the CONNECT.
    pub(super) rest: Vec<u8>,
}

/// Who has chosen the Client Identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// The Client.
    Itself,
    /// The Server: nobody else had this one.
    Anew,
    /// The Server: it is the user's name, and not what the Client said.
    ByUser,
}

/// A CONNECT that passed authentication.
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) connect: Box<Connect>,
    pub(super) named: Named,
    pub(super) data: Option<Secret>,
    pub(super) principal: Arc<Principal>,
    /// Whether only a Client whose Session is there is let in.
    pub(super) has_to_be_known: bool,
    /// How often users had changed when that was found out.
    pub(super) user_changes: u64,
    /// When what it has shown ends.
    pub(super) expires_at: Option<SystemTime>,
    /// Whether what its rights rest on was asked.
    pub(super) is_asked: bool,
}

/// The slab index in a key.
pub(super) fn index_of(key: ConnectionKey) -> usize {
    usize::try_from(key.0 & u64::from(u32::MAX)).unwrap_or(usize::MAX)
}

/// The connection with this key, if it is still there. Apart from the shard, whose other parts are often
/// needed with it.
pub(super) fn find_mut(
    connections: &mut Connections,
    key: ConnectionKey,
) -> Option<&mut Connection> {
    let found = connections.get_mut(index_of(key))?;
    (found.key == key).then_some(&mut **found)
}

/// The key of the connection in this place of the slab, the `generation`th of the shard.
pub(super) fn key_of(index: usize, generation: u32) -> ConnectionKey {
    let index = u32::try_from(index).expect("invariant: a shard has fewer than 2^32 connections");
    ConnectionKey(u64::from(generation) << 32 | u64::from(index))
}

/// Peer bytes as they may stand in a log: escaped and bounded.
pub(super) fn printable(text: &str) -> String {
    let mut printed: String = text.escape_debug().take(PRINTED_CHARACTERS_MAX).collect();
    if text.escape_debug().nth(PRINTED_CHARACTERS_MAX).is_some() {
        printed.push_str("...");
    }
    printed
}

/// Characters of a peer's text that are logged.
const PRINTED_CHARACTERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_text_is_escaped_and_bounded() {
        assert_eq!(printable("a\n\u{1b}[31m"), "a\\n\\u{1b}[31m");
        assert_eq!(
            printable(&"x".repeat(100)).len(),
            PRINTED_CHARACTERS_MAX + 3
        );
    }

    /// The allocator takes 320 for what is 312 at most, and 384 for what is 320. What `mio` adds to a socket where it checks
    /// itself is not in a Server.
    #[test]
    fn connection_takes_312_bytes_at_most() {
        let of_checks = size_of::<mio::net::TcpStream>() - size_of::<std::net::TcpStream>();
        let bytes = size_of::<Connection>() - of_checks.next_multiple_of(8);
        assert!(bytes <= 312, "{bytes}");
    }

    #[test]
    fn key_holds_index_and_generation() {
        let key = key_of(5, 7);
        assert_eq!((key.0, index_of(key)), (7 << 32 | 5, 5));
    }
}
