//! What the engine asks for, done: packets written, connections closed, messages sent on.
//!
//! Owns: the outputs of the engine, writing, congestion, every way a connection ends.
//! Does not own: why (the engine, or the packet that was wrong). Start reading at [`Shard::deliver`].
//! Invariant: a refused peer gets its last packet before the connection closes, and the engine hears of
//! every end once.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{ConnectionKey, Output, Packets};
use proto::Qos;
use proto::connection::{ConnectionError, Delivery, DeliveryRef, Outgoing};
use proto::packet::{Ack, Disconnect, ReasonCode};
use store::Store;

use super::Shard;
use super::beginning::Fault;
use super::connection::{Connection, Partial, Stage, find_mut, index_of, printable};
use super::unsent::{Unsent, Written};

impl<S: Store> Shard<S> {
    /// Does all the engine has asked for so far. A panic on the way ends the connection it was for.
    pub(super) fn deliver(&mut self) {
        loop {
            let mut current = None;
            let done = catch_unwind(AssertUnwindSafe(|| self.deliver_all(&mut current)));
            let Err(panic) = done else { return };
            let Some(key) = current else {
                resume_unwind(panic)
            };
            tracing::error!(
                shard = self.links.own().0,
                client_id = self.client_id(key),
                error = "a broken invariant of this Server",
                "connection closed after a panic in a packet to it"
            );
            self.lose(key, None);
        }
    }

    fn deliver_all(&mut self, current: &mut Option<ConnectionKey>) {
        loop {
            while let Some(output) = self.engine.poll_output() {
                match output {
                    Output::Send { connection, packet } => {
                        *current = Some(connection);
                        self.send(connection, &packet);
                        *current = None;
                    }
                    Output::SendAll {
                        connection,
                        packets,
                    } => {
                        *current = Some(connection);
                        self.send_all(connection, &packets);
                        *current = None;
                        self.engine.return_packets(packets);
                    }
                    Output::Close {
                        connection,
                        reason,
                        client_id,
                    } => self.close(connection, reason, client_id.as_deref()),
                    Output::ToShard { to, message } => self.links.push(to, message),
                    Output::Persist(batch) => self.persist(batch),
                    Output::Load(load) => self.store.load(load),
                    Output::Lost(loser) => self.log_lost(&loser),
                    Output::Denied(denied) => self.log_denied(&denied),
                }
            }
            if !self.take_persisted() {
                return;
            }
        }
    }

    /// Puts a packet behind what the connection has still to send.
    pub(super) fn send(&mut self, key: ConnectionKey, packet: &Outgoing) {
        let now = self.now;
        let mark = self.congested_bytes();
        let Some(connection) = self.addressee(key) else {
            return;
        };
        let is_written = match packet {
            Outgoing::Publish(delivery) => put_publish(connection, delivery.into(), now),
            packet => connection
                .protocol
                .send(packet, now, connection.unsent.tail()),
        };
        let is_overdue = connection.unsent.len() > mark && !connection.flags.is_congested;
        self.engine.count_packets(0, u64::from(is_written));
        match packet {
            Outgoing::Publish(delivery) if !is_written => self.skip_delivery(key, delivery),
            // [MQTT-3.2.0-1] A Client that cannot be sent its CONNACK can be sent nothing.
            Outgoing::ConnAck(connack) if !is_written && connack.reason == ReasonCode::Success => {
                let text = "the CONNACK exceeds the Client's Maximum Packet Size";
                let error = ConnectionError::refused(ReasonCode::PacketTooLarge, text);
                self.refuse_now(key, &error);
            }
            // The time for CONNECT is over, Keep Alive begins.
            Outgoing::ConnAck(_) => self.arm(key),
            // Written before the end of the turn, or it would grow too large.
            _ if is_overdue => self.write(key),
            _ => {}
        }
    }

    /// The same of packets that go together.
    fn send_all(&mut self, key: ConnectionKey, packets: &Packets) {
        let now = self.now;
        let mark = self.congested_bytes();
        let Some(connection) = self.addressee(key) else {
            return;
        };
        let mut written = 0;
        let mut skipped = Vec::new();
        for delivery in packets.deliveries() {
            if put_publish(connection, delivery, now) {
                written += 1;
            } else {
                skipped.push(Delivery::from(delivery));
            }
        }
        for ack in packets.acks() {
            let unsent = connection.unsent.tail();
            written += u64::from(connection.protocol.send(&ack, now, unsent));
        }
        let is_overdue = connection.unsent.len() > mark && !connection.flags.is_congested;
        self.engine.count_packets(0, written);
        for delivery in &skipped {
            self.skip_delivery(key, delivery);
        }
        if is_overdue {
            self.write(key);
        }
    }

    /// A connection to which something is said, if it still hears: it is written when the turn ends.
    fn addressee(&mut self, key: ConnectionKey) -> Option<&mut Connection> {
        let Self {
            connections,
            pool,
            dirty,
            ready,
            ..
        } = self;
        let connection = find_mut(connections, key)?;
        if matches!(connection.stage, Stage::Lingering { .. }) {
            return None;
        }
        let has_waited = connection.flags.is_leaving || connection.flags.is_laden;
        if has_waited && !std::mem::replace(&mut connection.flags.is_ready, true) {
            ready.push(key);
        }
        connection.unsent.borrow_from(pool);
        if !std::mem::replace(&mut connection.flags.is_dirty, true) {
            dirty.push(key);
        }
        Some(connection)
    }

    /// [MQTT-3.1.2-25] A message too large for the Client counts as delivered.
    fn skip_delivery(&mut self, key: ConnectionKey, delivery: &Delivery) {
        let is_connected = self
            .connection_mut(key)
            .is_some_and(|found| found.protocol.is_connected());
        let Some(packet_id) = delivery.packet_id.filter(|_| is_connected) else {
            return;
        };
        self.has_news = true;
        if delivery.qos == Qos::ExactlyOnce {
            let ack = Ack::new(packet_id, ReasonCode::QuotaExceeded);
            self.engine.on_pubrec(key, &ack, self.now);
        } else {
            let ack = Ack::new(packet_id, ReasonCode::Success);
            self.engine.on_puback(key, &ack, self.now);
        }
    }

    /// Writes every connection that was touched, once. Of very many some wait for the next turns: whoever is
    /// touched then does not stand behind all of them, nor they behind whoever comes.
    pub(super) fn write_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        let waiting = self.unwritten.len().min(WRITES_MAX / 2);
        let (mut written, fresh) = (0, WRITES_MAX - waiting);
        for key in dirty.drain(..) {
            if written < fresh {
                self.write_touched(key);
            } else {
                self.unwritten.push_back(key);
            }
            written += 1;
        }
        for _ in written.min(fresh)..WRITES_MAX {
            let Some(key) = self.unwritten.pop_front() else {
                break;
            };
            self.write_touched(key);
        }
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    fn write_touched(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connection_mut(key) {
            connection.flags.is_dirty = false;
            self.write(key);
        }
    }

    fn write(&mut self, key: ConnectionKey) {
        let Self {
            connections, pool, ..
        } = self;
        let Some(connection) = find_mut(connections, key) else {
            return;
        };
        if matches!(connection.stage, Stage::Lingering { .. }) {
            return;
        }
        if !connection.flags.is_blocked {
            let before = connection.unsent.len();
            let written = match connection.unsent.write_to(&mut connection.socket) {
                Ok(Written::All) => connection.socket.push(),
                written => written,
            };
            let sent = before.saturating_sub(connection.unsent.len());
            self.engine.count_bytes(0, sent as u64);
            if sent > 0 {
                connection.took_at = self.now;
            }
            match written {
                Ok(Written::All) => connection.unsent.return_to(pool),
                Ok(Written::Blocked) => connection.flags.is_blocked = true,
                Err(error) if connection.is_read() && is_closed_there(&error) => {
                    // It takes nothing any more. What it said before that is still here to be read, a DISCONNECT
                    // perhaps, and then its end.
                    connection.unsent = Unsent::default();
                    connection.flags.is_peer_done = true;
                    self.mark_ready(key);
                }
                Err(error) => return self.lose(key, Some(&error)),
            }
        }
        self.judge_congestion(key);
        self.shut_if_flushed(key);
        self.count(key);
    }

    /// Tells the engine when a reader falls behind or has caught up; gives up on one that never will.
    pub(super) fn judge_congestion(&mut self, key: ConnectionKey) {
        self.tell_congestion(key);
        let max = self.policy.bounds.unsent_bytes_max;
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        let peer = connection.peer;
        let own_len = connection.unsent.own_len();
        if own_len > max && own_len > connection.unsent_bytes_kept() {
            let client_id = self.client_id(key);
            let reason = ReasonCode::QuotaExceeded;
            tracing::warn!(%peer, client_id, %reason, bytes = own_len, "reader too slow, closed");
            self.forget(key);
            self.remove(key);
        } else if own_len <= max {
            connection.leave_unsent_bytes_kept();
        }
    }

    /// Tells the engine when a reader falls behind or has caught up.
    pub(super) fn tell_congestion(&mut self, key: ConnectionKey) {
        let mark = self.congested_bytes();
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        let len = connection.unsent.len();
        let was_congested = connection.flags.is_congested;
        let is_congested = if was_congested {
            len > mark / 2
        } else {
            len > mark
        };
        connection.flags.is_congested = is_congested;
        if connection.flags.is_choked && !is_congested {
            connection.flags.is_choked = false;
            self.mark_ready(key);
        }
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        if is_congested != was_congested && connection.is_served() {
            self.has_news = true;
            self.engine.on_congested(key, is_congested, self.now);
        }
    }

    /// Ends the connection of a reader that makes us hold `bytes`, for which there is no room. What it takes it is told.
    pub(super) fn end_slow(&mut self, key: ConnectionKey, bytes: usize) {
        let client_id = self.client_id(key);
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        let peer = connection.peer;
        let is_taking = connection.unsent.is_empty();
        let reason = ReasonCode::QuotaExceeded;
        tracing::warn!(%peer, client_id, %reason, bytes, "memory runs low, slowest reader closed");
        if is_taking {
            let text = "the server runs low on memory";
            self.refuse_now(key, &ConnectionError::refused(reason, text));
        } else {
            self.forget(key);
            self.remove(key);
        }
    }

    /// The engine closes the connection; its last packet was sent before.
    fn close(&mut self, key: ConnectionKey, reason: ReasonCode, client_id: Option<&str>) {
        // The engine may have forgotten whose it was.
        let client_id = client_id.map_or_else(|| self.client_id(key), printable);
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        let peer = connection.peer;
        if connection.is_open() {
            tracing::info!(%peer, client_id, %reason, "connection closed by the Server");
        }
        self.forget(key);
        self.begin_flushing(key);
    }

    /// The Client's DISCONNECT.
    pub(super) fn on_disconnect(&mut self, key: ConnectionKey, disconnect: &Disconnect) {
        let client_id = self.client_id(key);
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        let (peer, is_served) = (connection.peer, connection.is_served());
        let reason = disconnect.reason_text();
        tracing::info!(%peer, client_id, reason, "client disconnects");
        if is_served {
            self.has_news = true;
            self.engine.on_disconnect(key, disconnect, self.now);
        }
        // [MQTT-3.14.4-3] [v3.1.1 MQTT-3.14.4-2] The engine knows already; only the socket is left.
        self.begin_flushing(key);
    }

    /// Ends a connection whose peer broke a rule or is not wanted: tells it why, then closes.
    pub(super) fn refuse(&mut self, key: ConnectionKey, error: &ConnectionError) {
        // What earlier packets are owed goes first.
        self.deliver();
        self.refuse_now(key, error);
    }

    pub(super) fn refuse_now(&mut self, key: ConnectionKey, error: &ConnectionError) {
        let client_id = self.client_id(key);
        let Self {
            connections, pool, ..
        } = self;
        let Some(connection) = find_mut(connections, key) else {
            return;
        };
        connection.unsent.borrow_from(pool);
        let before = connection.unsent.len();
        connection.protocol.refuse(error, connection.unsent.tail());
        let is_told = connection.unsent.len() > before;
        let version = connection.protocol.version();
        tracing::warn!(
            peer = %connection.peer,
            client_id,
            reason = %error.reason_code(),
            protocol = %version,
            error = %Cause(error.statement(version), error),
            "connection refused"
        );
        self.engine.count_packets(0, u64::from(is_told));
        self.forget(key);
        self.begin_flushing(key);
    }

    /// The connection is gone without a word.
    pub(super) fn lose(&mut self, key: ConnectionKey, error: Option<&io::Error>) {
        let client_id = self.client_id(key);
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        let peer = connection.peer;
        let is_handshaking = connection.socket.is_handshaking();
        let is_fault = error.is_some_and(|error| error.kind() == io::ErrorKind::InvalidData);
        // What TLS or WebSocket has to say to that, if it was not said before.
        let is_owed =
            connection.is_open() && (is_fault || error.is_none() && connection.socket.is_pending());
        let fault = error.and_then(Fault::in_error);
        match error {
            Some(error) if is_handshaking && fault.is_none() => {
                tracing::warn!(%peer, %error, "TLS handshake failed");
            }
            Some(error) if is_fault && fault.is_none() => {
                tracing::warn!(%peer, client_id, %error, "a rule of TLS or WebSocket is broken");
            }
            Some(error) => match fault {
                Some(fault) => fault.log(peer),
                None => tracing::info!(%peer, client_id, %error, "connection lost"),
            },
            None => tracing::info!(%peer, client_id, "connection ended by the peer"),
        }
        self.forget(key);
        if is_owed {
            self.begin_flushing(key);
        } else {
            self.remove(key);
        }
    }

    /// Tells the engine that the connection is gone, if it was ever told that it is there.
    fn forget(&mut self, key: ConnectionKey) {
        if self
            .connection_mut(key)
            .is_some_and(|found| found.is_served())
        {
            self.has_news = true;
            let until = Box::new(self.now + CLOSE_TIME_MAX);
            if let Some(connection) = self.connection_mut(key) {
                connection.stage = Stage::Flushing { until };
            }
            self.engine.on_closed(key, self.now);
        }
    }

    /// Reads no more; writes what is left, then closes.
    pub(super) fn begin_flushing(&mut self, key: ConnectionKey) {
        let until = Box::new(self.now + CLOSE_TIME_MAX);
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        // It may come again before its socket is closed.
        connection.seat = None;
        if matches!(connection.stage, Stage::Lingering { .. }) {
            return;
        }
        connection.stage = Stage::Flushing { until };
        connection.partial = Partial::default();
        self.mark_dirty(key);
        self.arm(key);
    }

    /// Shuts our side once everything is written. A socket closed with unread bytes in it would be
    /// reset, and the peer could lose our last packet; so the rest is read, for a while.
    fn shut_if_flushed(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        let Stage::Flushing { until } = &connection.stage else {
            return;
        };
        let until = until.clone();
        if !connection.unsent.is_empty() || connection.socket.is_pending() {
            return;
        }
        match connection.socket.shut() {
            Ok(Written::All) => {
                connection.stage = Stage::Lingering { until };
                self.discard_input(key);
            }
            Ok(Written::Blocked) => connection.flags.is_blocked = true,
            Err(_) => self.remove(key),
        }
    }

    /// Reads what a peer still says to a closed connection, until it closes too.
    pub(super) fn discard_input(&mut self, key: ConnectionKey) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut own = [0; 4096];
        // The scratch buffer is in use while a packet is handled.
        let buffer = if scratch.is_empty() {
            &mut own[..]
        } else {
            &mut scratch[..]
        };
        for _ in 0..DISCARDS_MAX {
            let Some(connection) = self.connection_mut(key) else {
                break;
            };
            match connection.socket.discard(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(len) if len > 0 => {}
                Ok(_) | Err(_) => self.remove(key),
            }
        }
        if !scratch.is_empty() {
            self.scratch = scratch;
        }
    }

    /// Closes the socket and gives everything back.
    pub(super) fn remove(&mut self, key: ConnectionKey) {
        if self.connection_mut(key).is_none() {
            return;
        }
        self.reasks.forget(key);
        let mut connection = self.connections.remove(index_of(key));
        self.discount(&mut connection);
        connection.unsent.return_to(&mut self.pool);
        self.shared.leave(connection.listener);
        if let Err(error) = self.poll.registry().deregister(connection.socket.source()) {
            tracing::debug!(peer = %connection.peer, %error, "socket was not watched");
        }
    }

    /// The Client Identifier for the log, empty before CONNECT.
    fn client_id(&self, key: ConnectionKey) -> String {
        let claimed = || {
            self.connections
                .get(index_of(key))?
                .seldom
                .as_ref()?
                .claimed_client_id
                .as_deref()
        };
        self.engine
            .client_id_of(key)
            .or_else(claimed)
            .map(printable)
            .unwrap_or_default()
    }
}

/// Returns whether anything was written.
fn put_publish(connection: &mut Connection, delivery: DeliveryRef<'_>, now: Instant) -> bool {
    let unsent = &mut connection.unsent;
    let before = unsent.len();
    if let Some(payload) = connection
        .protocol
        .send_publish(delivery, now, unsent.tail())
    {
        unsent.push_shared(payload, Arc::clone(delivery.message));
    }
    unsent.len() > before
}

impl Connection {
    /// When it is closed whatever the peer does; `None` while it is open.
    pub(super) fn closes_at(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Flushing { until } | Stage::Lingering { until } => Some(**until),
            _ => None,
        }
    }
}

/// A broken rule with its number, for the log.
struct Cause<'a>(&'static str, &'a ConnectionError);

impl std::fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.0.is_empty() {
            write!(f, "[{}] ", self.0)?;
        }
        self.1.fmt(f)
    }
}

/// Whether a write has failed because the peer has closed its socket.
fn is_closed_there(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

/// Connections written in one turn: each is a call of the system.
const WRITES_MAX: usize = 2048;
/// Time for the peer to take what was sent and to close.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);
/// Reads of a closed connection's input at one time.
const DISCARDS_MAX: usize = 16;
