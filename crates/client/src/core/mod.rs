//! One Client across all its connections: bytes, requests and `now` in; bytes, messages and the next deadline out.
//!
//! Owns: what is handed to the Client and what it owes, between connections too; when it connects again.
//! Does not own: sockets and clocks (see `run`), packet rules (see `proto::connection`).
//! Start reading at [`Core::next`]. Invariant: a publication above QoS 0 that was accepted is waiting, in flight,
//! or answered; it is never in two of these, and never in none.

mod backoff;
#[cfg(test)]
pub(crate) mod faults;
#[cfg(test)]
pub(crate) mod hostile;
mod incoming;
mod journal;
mod outgoing;
mod subscriptions;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

use bytes::{Buf, BytesMut};
use proto::Version;
use proto::connection::{
    ClientConnection, ClientError, ClientEvent, ClientSession, ClientTimeouts, SendError,
};
use proto::packet::{Auth, ConnAck, Connect, Disconnect};

use crate::error::Error;
use crate::{DisconnectCause, Options, ReceivedMessage};

use backoff::Backoff;
pub use backoff::Reconnect;
use incoming::Incoming;
pub(crate) use incoming::{Delivery, Taken, taken};
pub(crate) use journal::{Journal, Kept, KeptPublication, Record};
use outgoing::Outgoing;
pub(crate) use outgoing::ToPublish;
use subscriptions::Subscriptions;
pub(crate) use subscriptions::{Answer, ToSubscribe};

/// What happened that the owner of the socket has to know.
#[derive(Debug)]
pub(crate) enum Happening {
    /// CONNACK with Success: call [`Core::on_connected`] if the Server is the one we want.
    Connected(Box<ConnAck>),
    /// CONNACK with a failure.
    Refused(Box<ConnAck>),
    /// AUTH.
    Auth(Box<Auth>),
    /// Nothing for the owner.
    Handled,
}

/// Between two connections, or how far the present one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No connection; the next one is due then, or never.
    Offline { due: Option<Instant> },
    /// A socket is being opened, or CONNACK is awaited.
    Connecting,
    /// CONNACK has come, then.
    Connected { since: Instant },
}

#[derive(Debug)]
pub(crate) struct Core {
    connect: Connect,
    timeouts: ClientTimeouts,
    topic_aliases_max: u16,
    phase: Phase,
    connection: Option<ClientConnection>,
    /// While there is no connection.
    session: Option<ClientSession>,
    /// As it was before this connection, while the Server has not proven who it is.
    unproven: Option<ClientSession>,
    /// Whether any CONNACK has come.
    was_connected: bool,
    /// A CONNECT of ours had no answer: its Server may have made a new Session, and now call that present.
    is_doubtful: bool,
    is_resumable: bool,
    /// Nobody has asked for a Session that outlives us: it ends when we leave.
    leaves_nothing: bool,
    backoff: Backoff,
    outgoing: Outgoing,
    incoming: Incoming,
    subscriptions: Subscriptions,
}

impl Core {
    /// `seed` is for the jitter.
    pub(crate) fn new(options: &Options, seed: u64, now: Instant) -> Self {
        let mut connect = options.connect.clone();
        let properties = &mut connect.properties;
        let has_outbox = options.outbox.is_some();
        // What an earlier program has sent means something in its Session only.
        connect.clean_start &= !has_outbox;
        let leaves_nothing = properties.session_expiry_interval_seconds.is_none() && !has_outbox;
        let expiry = if has_outbox {
            OUTBOX_SESSION_EXPIRY_SECONDS
        } else {
            SESSION_EXPIRY_SECONDS
        };
        if connect.version == Version::V5 {
            properties.receive_maximum = properties.receive_maximum.or(RECEIVE_MAXIMUM);
            properties.maximum_packet_size_bytes = properties
                .maximum_packet_size_bytes
                .or(Some(options.bounds.inbox.bytes_max));
            // What requests are answered to may be for the Server to say.
            properties.request_response_information = true;
            properties.session_expiry_interval_seconds =
                properties.session_expiry_interval_seconds.or(Some(expiry));
        }
        let is_resumable = if connect.version == Version::V5 {
            properties.session_expiry_interval_seconds != Some(0)
        } else {
            // 3.x forgets it with the connection, or never.
            !connect.clean_start
        };
        Self {
            connect,
            timeouts: options.timeouts,
            topic_aliases_max: options.bounds.topic_aliases_max,
            phase: Phase::Offline { due: Some(now) },
            connection: None,
            session: Some(options.session.clone().unwrap_or_default()),
            unproven: None,
            was_connected: false,
            is_doubtful: false,
            is_resumable,
            leaves_nothing,
            backoff: Backoff::new(options.reconnect, seed),
            outgoing: Outgoing::new(options),
            incoming: Incoming::new(options.bounds.inbox),
            subscriptions: Subscriptions::default(),
        }
    }

    /// Takes up what an earlier program has left, and keeps a journal from now on. Before the first connection.
    pub(crate) fn restore(&mut self, kept: Kept) {
        let session = self.session.get_or_insert_default();
        self.outgoing.restore(kept, self.connect.version, session);
    }

    /// What has to be kept before anything that was written leaves.
    pub(crate) const fn journal_mut(&mut self) -> Option<&mut Journal> {
        self.outgoing.journal_mut()
    }

    /// CONNECT as the next connection says it, without a proof.
    pub(crate) fn connect(&self) -> Connect {
        let mut connect = self.connect.clone();
        if self.was_connected {
            connect.clean_start = !self.is_resumable;
        }
        connect
    }

    /// The Client Identifier, once it is known.
    pub(crate) fn client_id(&self) -> &str {
        &self.connect.client_id
    }

    pub(crate) const fn version(&self) -> Version {
        self.connect.version
    }

    /// Whether a connection is to be opened now.
    pub(crate) fn wants_connection(&self, now: Instant) -> bool {
        matches!(self.phase, Phase::Offline { due: Some(due) } if due <= now)
    }

    /// A socket is being opened.
    pub(crate) const fn on_dial(&mut self) {
        self.phase = Phase::Connecting;
    }

    /// The socket is open: begins with `connect`.
    pub(crate) fn begin(
        &mut self,
        connect: &Connect,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        let session = self.session.take();
        if connect.properties.authentication_method.is_some() {
            self.unproven.clone_from(&session);
        }
        let mut connection = ClientConnection::new(connect, session, self.timeouts, now, out)?;
        connection.use_topic_aliases(self.topic_aliases_max);
        self.connection = Some(connection);
        self.phase = Phase::Connecting;
        Ok(())
    }

    /// Whether the application has to take messages before more is read.
    pub(crate) fn is_paused(&self) -> bool {
        self.incoming.is_full()
    }

    /// Deals with the next packet in `input`, if it is whole and may be read.
    pub(crate) fn next(
        &mut self,
        input: &mut BytesMut,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<Option<Happening>, DisconnectCause> {
        if self.is_paused() {
            return Ok(None);
        }
        let Some(connection) = &mut self.connection else {
            return Ok(None);
        };
        let (event, used) = match connection.next_event(input, now, out) {
            Ok(Some(next)) => next,
            Ok(None) => return Ok(None),
            Err(error) => return Err(refuse(connection, error, now, out)),
        };
        let happening = match event {
            ClientEvent::Connected(connack) => Happening::Connected(connack),
            ClientEvent::Refused(connack) => Happening::Refused(connack),
            ClientEvent::Auth(auth) => Happening::Auth(auth),
            ClientEvent::Disconnect(disconnect) => {
                return Err(DisconnectCause::ByServer(disconnect));
            }
            ClientEvent::Publish(publish) => {
                let delivery = ReceivedMessage::from_publish(&publish);
                self.incoming.on_publish(delivery, &self.subscriptions, now);
                self.incoming.put_acks(connection, now, out);
                Happening::Handled
            }
            ClientEvent::Published {
                packet_id,
                reason,
                properties,
            } => {
                self.outgoing.on_published(packet_id, reason, properties);
                Happening::Handled
            }
            ClientEvent::SubAck(suback) => {
                self.subscriptions.on_suback(&suback);
                Happening::Handled
            }
            ClientEvent::UnsubAck(unsuback) => {
                self.subscriptions.on_unsuback(&unsuback);
                Happening::Handled
            }
            ClientEvent::Received(packet_id) => {
                self.outgoing.on_received(packet_id);
                Happening::Handled
            }
            ClientEvent::Handled(_) => Happening::Handled,
        };
        input.advance(used);
        self.pump(now, out);
        Ok(Some(happening))
    }

    /// The Server has shown what it had to: what waits goes to it.
    pub(crate) fn on_connected(&mut self, connack: &ConnAck, now: Instant, out: &mut Vec<u8>) {
        self.phase = Phase::Connected { since: now };
        self.was_connected = true;
        self.unproven = None;
        if let Some(client_id) = &connack.properties.assigned_client_id {
            self.connect.client_id.clone_from(client_id);
        }
        // MQTT 3.1 cannot say whether a Session is present.
        let is_resumed = connack.session_present || self.connect.version == Version::V31;
        if !is_resumed {
            self.outgoing.on_session_lost();
            self.incoming.on_session_lost();
        }
        let is_doubtful = std::mem::take(&mut self.is_doubtful);
        self.subscriptions
            .on_connected(is_resumed, is_doubtful, &connack.properties);
        self.pump(now, out);
    }

    /// Sends what may be sent.
    pub(crate) fn pump(&mut self, now: Instant, out: &mut Vec<u8>) {
        if !matches!(self.phase, Phase::Connected { .. }) {
            return;
        }
        if let Some(connection) = &mut self.connection {
            self.subscriptions.pump(connection, now, out);
            self.outgoing.pump(connection, now, out);
        }
    }

    /// Takes a publication; it goes with the next [`Self::pump`].
    pub(crate) fn publish(&mut self, to_publish: ToPublish) {
        self.outgoing.push(to_publish);
    }

    /// Takes a subscription.
    pub(crate) fn subscribe(&mut self, to_subscribe: ToSubscribe) {
        let key = self.subscriptions.add(to_subscribe);
        self.incoming.on_subscribed(&self.subscriptions, key);
    }

    /// Whoever took its messages is gone, or wants no more.
    pub(crate) fn unsubscribe(&mut self, key: u32, done: Option<Answer<()>>) {
        self.subscriptions.remove(key, done);
    }

    /// Whoever took its messages is gone, and the Session keeps them for another time.
    pub(crate) fn keep(&mut self, key: u32) {
        self.subscriptions.keep(key);
    }

    /// All messages that no subscription of this program stands for.
    pub(crate) fn take_others(&mut self, others: tokio::sync::mpsc::UnboundedSender<Delivery>) {
        self.incoming.take_others(others);
    }

    /// The application has taken or acknowledged a message.
    pub(crate) fn on_taken(&mut self, taken: Taken, now: Instant, out: &mut Vec<u8>) {
        self.incoming.on_taken(taken);
        if let (Some(connection), Phase::Connected { .. }) = (&mut self.connection, self.phase) {
            self.incoming.put_acks(connection, now, out);
        }
    }

    pub(crate) fn send_auth(
        &mut self,
        auth: &Auth,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        let connection = self.connection.as_mut();
        connection
            .ok_or(SendError::NotConnected)?
            .send_auth(auth, now, out)
    }

    /// DISCONNECT; nothing is sent after it.
    pub(crate) fn disconnect(
        &mut self,
        mut disconnect: Disconnect,
        now: Instant,
        out: &mut Vec<u8>,
    ) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        let expiry = &mut disconnect.session_expiry_interval_seconds;
        if self.leaves_nothing && connection.version() == Version::V5 {
            *expiry = expiry.or(Some(0));
        }
        // Not connected: then nobody needs to hear it.
        connection.disconnect(&disconnect, now, out).ok();
    }

    /// When [`Self::on_timeout`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let due = match self.phase {
            Phase::Offline { due } => due,
            Phase::Connecting | Phase::Connected { .. } => None,
        };
        let connection = self.connection.as_ref();
        let connection = connection.and_then(ClientConnection::poll_timeout);
        [due, connection, self.incoming.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    pub(crate) fn on_timeout(
        &mut self,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), DisconnectCause> {
        self.incoming.on_timeout(now);
        let is_paused = self.is_paused();
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        self.incoming.put_acks(connection, now, out);
        match connection.on_timeout(now, out) {
            Ok(()) => Ok(()),
            // The PINGRESP may wait in the socket we do not read: our fault, not the Server's.
            Err(ClientError::PingTimeout) if is_paused => {
                connection.forget_ping(now);
                Ok(())
            }
            Err(error) => Err(refuse(connection, error, now, out)),
        }
    }

    /// There is no connection (any more). Returns when the next one is tried, or `None` if there will be none.
    pub(crate) fn on_lost(&mut self, ends: bool, now: Instant) -> Option<Instant> {
        if let Phase::Connected { since } = self.phase {
            self.backoff.on_connection_of(now.duration_since(since));
        }
        if let Some(connection) = self.connection.take() {
            self.is_doubtful |= self.phase == Phase::Connecting;
            let proven = self.unproven.take();
            self.session = Some(proven.unwrap_or_else(|| connection.into_session()));
        }
        self.incoming.on_lost();
        self.subscriptions.on_lost();
        let due = if ends { None } else { self.backoff.next(now) };
        self.phase = Phase::Offline { due };
        due
    }

    /// Nothing goes on: everyone who waits is told why.
    pub(crate) fn end(&mut self, why: &Error) {
        self.phase = Phase::Offline { due: None };
        self.outgoing.end(why);
        self.subscriptions.end(why);
        self.incoming.end();
    }

    /// Publications that are neither answered nor given up.
    pub(crate) fn unanswered_count(&self) -> usize {
        self.outgoing.len()
    }

    /// Messages that wait for the application and their bytes; acknowledgements that the connection owes.
    pub(crate) fn kept(&self) -> (usize, usize, usize) {
        let (messages, bytes) = self.incoming.waiting();
        let connection = self.connection.as_ref();
        let owed = connection.map_or(0, ClientConnection::owed_count);
        (messages, bytes, owed)
    }

    /// Counts messages that were dropped for want of room or of a subscription.
    pub(crate) fn dropped(&self) -> Arc<AtomicU64> {
        self.incoming.dropped()
    }
}

fn refuse(
    connection: &mut ClientConnection,
    error: ClientError,
    now: Instant,
    out: &mut Vec<u8>,
) -> DisconnectCause {
    connection.refuse(&error, now, out);
    DisconnectCause::Protocol(error)
}

/// Messages above QoS 0 that a Server may have open with us, if the application does not say.
const RECEIVE_MAXIMUM: Option<std::num::NonZeroU16> = std::num::NonZeroU16::new(256);
/// How long the Server keeps the Session of a lost connection, if the application does not say.
const SESSION_EXPIRY_SECONDS: u32 = 300;
/// The same with an outbox: a program that was ended may come back the next day.
const OUTBOX_SESSION_EXPIRY_SECONDS: u32 = 24 * 60 * 60;
