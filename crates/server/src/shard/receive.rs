//! From bytes that were read to the engine.
//!
//! Owns: reading, packets that arrive in pieces, what a panic costs. Does not own: CONNECT and AUTH
//! (see `admit`). Start reading at [`Shard::read`]. Invariant: a buffer grows with what has arrived,
//! never by a length a peer claimed, and one connection's failure is its own.

use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;
use engine::{ConnectionKey, Engine, Hold};
use proto::connection::{ConnectionError, Event, SHORT_ACK_BYTES, is_publish};
use proto::packet::{self, Ack, Auth, Connect, Disconnect, PacketType, Publish, ReasonCode};
use store::Store;

use super::asking;
use super::connection::{Connection, Seldom, Stage, find_mut, leave};
use super::governed::{Governed, Heard};
use super::stalled::{Stall, Stalled};
use super::{HANDSHAKE_STEPS_MAX, HANDSHAKES_TIME_MAX, Shard, mounted};

/// What is left to do once the engine, or nobody, has seen the event.
enum Next {
    Nothing,
    Connect(Box<Connect>),
    Auth(Box<Auth>),
    Disconnect(Disconnect),
}

/// What was done with the front of what was read.
enum Taken {
    /// Nothing yet: it is not as plain as that.
    NotPlain,
    /// It is not complete, has to wait, or was refused.
    Nothing,
    /// A packet of so many bytes was taken.
    Bytes(usize),
}

impl<S: Store> Shard<S> {
    /// Reads once from the connection and handles all packets that are complete.
    pub(super) fn read(&mut self, key: ConnectionKey) {
        if self.is_turn_over() {
            return self.mark_ready(key);
        }
        let is_pressed = self.is_pressed || self.stored.is_pressed;
        // What it says next could be held as well, or recorded: it need not publish for that.
        let is_holding = is_pressed && self.engine.is_holding(key);
        let is_laden = self.engine.is_laden(key);
        let choking_bytes = self.congested_bytes();
        let read_bytes_max = self.read_bytes_max();
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        match connection.stage {
            Stage::Lingering { .. } => return self.discard_input(key),
            // What a parked one sends waits in the socket.
            Stage::Flushing { .. } | Stage::Parked(_) | Stage::Asking(_) => return,
            _ if connection.flags.is_asking => return,
            _ => {}
        }
        if std::mem::take(&mut connection.flags.is_leaving) {
            return self.look_again(key);
        }
        if connection.flags.is_stalled && self.read_stalled(key) == Stalled::Wait {
            return;
        }
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        let makes_more = connection.flags.is_publisher || is_holding;
        if connection.flags.is_paused || (is_pressed && makes_more) {
            return self.pause(key);
        }
        connection.flags.is_laden = is_laden;
        if is_laden {
            return;
        }
        // A peer that does not take its answers is not asked for more, so that they stay bounded.
        if connection.unsent.len() > choking_bytes && !connection.flags.is_peer_done {
            connection.flags.is_choked = true;
            return;
        }
        if connection.flags.is_ahead {
            return;
        }
        if std::mem::take(&mut connection.flags.is_unfinished) {
            self.look_again(key);
            return self.judge_pace(key);
        }
        if !self.has_turn(key) {
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let most = scratch.len().min(read_bytes_max);
        let room = scratch.get_mut(..most).unwrap_or_default();
        let read = self
            .connection_mut(key)
            .map(|found| found.socket.read(room));
        self.take_source(key);
        if let Some(read) = read {
            self.on_read(key, scratch.get(..most).unwrap_or_default(), read);
        }
        self.scratch = scratch;
        self.deliver();
        self.count(key);
        if self.is_unproven_too_large(key) {
            self.refuse_now(
                key,
                &ConnectionError::refused(ReasonCode::QuotaExceeded, CROWDED),
            );
        }
        self.judge_pace(key);
    }

    /// From where the Client comes, once the proxy in front of it has said so.
    fn take_source(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connection_mut(key)
            && let Some(client) = connection.socket.take_source()
        {
            let peer = client.address;
            let proxy = std::mem::replace(&mut connection.peer, peer.into());
            let host = client.host.unwrap_or_default();
            tracing::debug!(%peer, reason = %format_args!("through {proxy} {host}"), "client comes through a proxy");
        }
    }

    /// Whether it may go on in this turn. One without a CONNECT waits until others are served: a step of a handshake
    /// costs as much as some hundred packets, and a CONNECT as some ten.
    fn has_turn(&mut self, key: ConnectionKey) -> bool {
        let now = self.now;
        let Self {
            connections,
            handshake_steps,
            handshakes_since,
            connects_left,
            ..
        } = self;
        let Some(connection) = find_mut(connections, key) else {
            return false;
        };
        let left = if connection.socket.is_handshaking() {
            if *handshake_steps < HANDSHAKE_STEPS_MAX
                && handshakes_since.elapsed() >= HANDSHAKES_TIME_MAX
            {
                *handshake_steps = 0;
            }
            handshake_steps
        } else if matches!(connection.stage, Stage::AwaitingConnect) {
            connects_left
        } else {
            return true;
        };
        if *left > 0 {
            *left -= 1;
            return true;
        }
        if !std::mem::replace(&mut connection.flags.is_queued, true) {
            connection.took_at = now;
        }
        self.mark_ready(key);
        false
    }

    /// After a read: it is not read again before what it has read is paid for.
    fn judge_pace(&mut self, key: ConnectionKey) {
        let now = self.now;
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        if matches!(connection.stage, Stage::AwaitingConnect) {
            connection.flags.is_queued = false;
        }
        let Some(seldom) = &mut connection.seldom else {
            return;
        };
        let Some(pace) = &mut seldom.pace else {
            return;
        };
        let pause = pace.pause(now);
        if pause.is_some() && !connection.flags.is_ahead {
            pace.waits();
            connection.flags.is_ahead = true;
            seldom.resumes_at = pause;
            self.shared.turnstile.paused.fetch_add(1, Ordering::Relaxed);
            self.arm(key);
        }
    }

    fn on_read(&mut self, key: ConnectionKey, scratch: &[u8], read: io::Result<usize>) {
        // What TLS or WebSocket has to answer.
        if self
            .connection_mut(key)
            .is_some_and(|found| found.socket.is_pending())
        {
            self.mark_dirty(key);
        }
        match read {
            Ok(0) => self.lose(key, None),
            Ok(len) => {
                self.engine.count_bytes(len as u64, 0);
                self.on_bytes(key, scratch.get(..len).unwrap_or_default());
                let Some(connection) = self.connection_mut(key) else {
                    return;
                };
                // After a short read nothing is left; the next bytes bring an event.
                let is_all = len < scratch.len() && !connection.socket.has_more();
                if !is_all || connection.flags.is_peer_done {
                    self.mark_ready(key);
                }
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock => {}
                io::ErrorKind::Interrupted => self.mark_ready(key),
                _ => self.lose(key, Some(&error)),
            },
        }
    }

    /// Does not read from this publisher until the rings and the store take what it says.
    fn pause(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connection_mut(key)
            && !std::mem::replace(&mut connection.flags.is_paused, true)
        {
            self.paused.push(key);
        }
    }

    pub(super) fn resume_paused(&mut self) {
        for key in std::mem::take(&mut self.paused) {
            if let Some(connection) = self.connection_mut(key) {
                connection.flags.is_paused = false;
                self.mark_ready(key);
            }
        }
    }

    /// Handles `input` as what follows the bytes the connection has kept.
    pub(super) fn on_bytes(&mut self, key: ConnectionKey, input: &[u8]) {
        match self.connection_mut(key) {
            Some(connection) if connection.flags.is_stalled || connection.flags.is_asking => {
                connection.partial.extend_from_slice(input);
            }
            _ => self.on_bytes_in_order(key, input),
        }
        self.look_behind(key);
    }

    fn on_bytes_in_order(&mut self, key: ConnectionKey, mut input: &[u8]) {
        loop {
            let Some(connection) = self.connection_mut(key).filter(|found| found.is_open()) else {
                return;
            };
            if connection.partial.is_empty() {
                let used = self.on_packets(key, input, None);
                return self.keep(key, input.get(used..).unwrap_or_default());
            }
            let is_complete = complete_packet(connection.partial.bytes_mut(), &mut input);
            let partial = connection.partial.take();
            if !is_complete {
                // An error may show before the packet is complete.
                self.on_packets(key, &partial, None);
                if let Some(connection) = self.connection_mut(key) {
                    connection.partial = partial.into();
                }
                return;
            }
            let packet = Bytes::from(partial);
            self.on_packets(key, &packet, Some(&packet));
            if let Some(connection) = self.connection_mut(key)
                && (connection.flags.has_to_wait() || connection.flags.is_unfinished)
            {
                connection.partial.extend_from_slice(&packet);
                connection.partial.extend_from_slice(input);
                return;
            }
            if self.moving.is_some() {
                return self.send_moving(input);
            }
            if let Some(connection) = self.connection_mut(key)
                && connection.is_parked()
            {
                return connection.partial.extend_from_slice(input);
            }
        }
    }

    /// Keeps the beginning of a packet until its rest is here.
    fn keep(&mut self, key: ConnectionKey, rest: &[u8]) {
        if self.moving.is_some() {
            self.send_moving(rest);
        } else if let Some(connection) = self.connection_mut(key)
            && connection.is_open()
        {
            connection.partial.extend_from_slice(rest);
        }
    }

    /// Handles all complete packets at the front of `input`; returns the bytes they used. No run is open afterwards.
    pub(super) fn on_packets(
        &mut self,
        key: ConnectionKey,
        input: &[u8],
        buffer: Option<&Bytes>,
    ) -> usize {
        let mut used = 0;
        let handled = catch_unwind(AssertUnwindSafe(|| {
            self.decode_all(key, input, buffer, &mut used);
            self.engine.end_run();
        }));
        if handled.is_err() {
            // What it said before that was taken.
            self.guarded(|engine, _| engine.end_run());
            self.on_panic(key, input, used);
        }
        used
    }

    fn decode_all(
        &mut self,
        key: ConnectionKey,
        input: &[u8],
        buffer: Option<&Bytes>,
        used: &mut usize,
    ) {
        let enough = self.engine.work() + self.connection_work_max;
        loop {
            let rest = input.get(*used..).unwrap_or_default();
            if self.has_to_stop(key, rest, enough) {
                return;
            }
            let taken = match self.take_plain(key, rest, buffer) {
                Taken::NotPlain => self.take_any(key, rest, buffer),
                Taken::Nothing => None,
                Taken::Bytes(len) => Some(len),
            };
            let Some(len) = taken else { return };
            *used += len;
        }
    }

    /// Whether nothing of `rest` is looked at now.
    fn has_to_stop(&mut self, key: ConnectionKey, rest: &[u8], enough: u64) -> bool {
        if !rest.is_empty() && self.is_turn_of_others(key, enough) {
            return true;
        }
        if rest.first() == Some(&PacketType::Disconnect.first_byte()) && self.is_owed(key) {
            return true;
        }
        let now = self.now;
        // [MQTT-3.1.4-6] Nothing after a refused CONNECT is looked at, and nothing before it is decided.
        let is_heard = |found: &&mut Connection| found.is_open() && !found.is_parked();
        let Some(connection) = self.connection_mut(key).filter(is_heard) else {
            return true;
        };
        let has_to_pay = !rest.is_empty() && connection.has_to_pay(now);
        if has_to_pay {
            connection.flags.is_unfinished = true;
            self.mark_ready(key);
        }
        has_to_pay
    }

    /// Takes what comes most from the front of `rest`, with what is looked at for that alone: a PUBLISH, or an
    /// acknowledgement of Success, of a Client of whom nothing else is to be known.
    #[inline]
    fn take_plain(&mut self, key: ConnectionKey, rest: &[u8], buffer: Option<&Bytes>) -> Taken {
        let now = self.now;
        let is_asking_service = self.policy.asked.is_some();
        let Self {
            connections,
            engine,
            governed,
            ..
        } = self;
        let connection = find_mut(connections, key).filter(|found| found.is_plain());
        let Some(connection) = connection.filter(|_| !is_asking_service) else {
            return Taken::NotPlain;
        };
        let len = if rest.first().copied().is_some_and(is_publish) {
            let taken = connection.protocol.next_publish(rest, now);
            // Borrowed: a copy would have to wait for what was just written.
            let (publish, len) = match &taken {
                Ok(Some((publish, len))) => (publish, *len),
                Ok(None) => return Taken::Nothing,
                Err(error) => {
                    self.refuse(key, error);
                    return Taken::Nothing;
                }
            };
            let heard = (&mut connection.heard, len);
            if let Some(stall) = stall_of(engine, governed, key, publish, heard, now) {
                let qos = publish.qos;
                self.stall(key, stall, qos);
                return Taken::Nothing;
            }
            connection.flags.is_publisher = true;
            let is_followed = rest.get(len).copied().is_some_and(is_publish);
            publish_shared(engine, key, publish, buffer, (is_followed, now));
            len
        } else {
            let ack = connection.protocol.next_short_ack(rest, now);
            let Some((packet_type, packet_id)) = ack else {
                return Taken::NotPlain;
            };
            let ack = Ack::new(packet_id, ReasonCode::Success);
            match packet_type {
                PacketType::PubAck => engine.on_puback(key, &ack, now),
                PacketType::PubRec => engine.on_pubrec(key, &ack, now),
                PacketType::PubRel => engine.on_pubrel(key, &ack, now),
                _ => engine.on_pubcomp(key, &ack, now),
            }
            SHORT_ACK_BYTES
        };
        engine.count_packets(1, 0);
        self.has_news = true;
        self.on_rest(key, Next::Nothing);
        Taken::Bytes(len)
    }

    /// Takes whatever packet is at the front of `rest`; returns its length, if it was taken.
    fn take_any(
        &mut self,
        key: ConnectionKey,
        rest: &[u8],
        buffer: Option<&Bytes>,
    ) -> Option<usize> {
        let (now, is_asking_service) = (self.now, self.policy.asked.is_some());
        let Self {
            connections,
            engine,
            reasks,
            governed,
            ..
        } = self;
        let connection = find_mut(connections, key)?;
        let mut names = Vec::new();
        let principal = connection.principal.as_deref();
        let mount_point = principal.and_then(|of| of.mount_point.as_deref());
        let protocol = &mut connection.protocol;
        let event = mounted::next_event(protocol, mount_point, rest, now, &mut names);
        let (event, len) = match event {
            Ok(event) => event?,
            Err(error) => {
                self.refuse(key, &error);
                return None;
            }
        };
        if let Event::Publish(publish) = &event {
            let heard = (&mut connection.heard, len);
            if let Some(stall) = stall_of(engine, governed, key, publish, heard, now) {
                let qos = publish.qos;
                self.stall(key, stall, qos);
                return None;
            }
            if let Some(seldom) = &mut connection.seldom {
                seldom.held_since = None;
                leave(&mut connection.seldom);
            }
        }
        if is_asking_service && let Some(open) = asking::questions(engine, key, &event, now) {
            connection.protocol.take_back(open.qos, open.packet_id);
            self.await_answers(key, open.questions);
            return None;
        }
        engine.count_packets(1, 0);
        connection.flags.is_publisher |= matches!(event, Event::Publish(_));
        charge(&mut connection.seldom, &event, len, now);
        let mut next = Next::Nothing;
        match event {
            Event::Publish(publish) => {
                let is_followed = rest.get(len).copied().is_some_and(is_publish);
                publish_shared(engine, key, &publish, buffer, (is_followed, now));
            }
            Event::PubAck(ack) => engine.on_puback(key, &ack, now),
            Event::PubRec(ack) => engine.on_pubrec(key, &ack, now),
            Event::PubRel(ack) => engine.on_pubrel(key, &ack, now),
            Event::PubComp(ack) => engine.on_pubcomp(key, &ack, now),
            Event::Subscribe(subscribe) => engine.on_subscribe(key, &subscribe, now),
            Event::Unsubscribe(gone) => reasks.unsubscribe(engine, key, &gone, now),
            Event::Connect(connect) => next = Next::Connect(connect),
            Event::Auth(auth) => next = Next::Auth(auth),
            Event::Disconnect(disconnect) => next = Next::Disconnect(disconnect),
            Event::PingReq => engine.on_pingreq(key),
        }
        self.has_news = true;
        self.on_rest(key, next);
        Some(len)
    }

    /// What is left to do after a packet.
    fn on_rest(&mut self, key: ConnectionKey, next: Next) {
        match next {
            Next::Nothing if self.engine.outputs_len() >= OUTPUTS_MAX => self.deliver(),
            Next::Nothing => {}
            Next::Connect(connect) => self.on_connect(key, connect),
            Next::Auth(auth) => self.on_auth(key, *auth),
            Next::Disconnect(disconnect) => self.on_disconnect(key, &disconnect),
        }
    }

    /// Whether enough was done for those that have said something in this turn: what is left is the next one's.
    pub(super) fn is_turn_over(&self) -> bool {
        self.engine.work() >= self.turn_ends_at
    }

    /// Whether others come first, or what the connection has said before: it goes on later.
    fn is_turn_of_others(&mut self, key: ConnectionKey, enough: u64) -> bool {
        if self.engine.is_laden(key) {
            if let Some(connection) = self.connection_mut(key) {
                connection.flags.is_unfinished = true;
                connection.flags.is_laden = true;
            }
            return true;
        }
        let is_later = self.engine.work() >= enough || self.engine.is_slicing(key);
        if is_later {
            if let Some(connection) = self.connection_mut(key) {
                connection.flags.is_unfinished = true;
            }
            self.mark_ready(key);
        }
        is_later
    }

    /// Sends what earlier packets are owed, for nothing is sent once a DISCONNECT is taken. Returns whether
    /// some of it has still to wait, if only for the end of the turn, and so has the DISCONNECT: what is done once in a
    /// turn is not done for each that leaves in it.
    fn is_owed(&mut self, key: ConnectionKey) -> bool {
        self.deliver();
        let is_owed = self.engine.is_holding(key);
        if let Some(connection) = self.connection_mut(key) {
            connection.flags.is_leaving = is_owed;
        }
        is_owed
    }

    /// Looks again at a packet that had to wait.
    pub(super) fn look_again(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        let kept = connection.partial.take();
        connection.flags.is_stalled = false;
        if let Some(seldom) = &mut connection.seldom {
            seldom.stall = None;
            connection.leave_seldom();
        }
        self.on_bytes(key, &kept);
        self.deliver();
        let connection = self.connection_mut(key);
        if connection.is_some_and(|found| found.is_open() && !found.flags.has_to_wait()) {
            // It was not complete: the rest may be in the socket.
            self.mark_ready(key);
        }
    }

    /// A failed invariant ends the connection whose packet led to it, and no other.
    /// [v3.1.1 MQTT-4.8.0-2]
    pub(super) fn on_panic(&mut self, key: ConnectionKey, input: &[u8], offset: usize) {
        let packet = input.get(offset..).unwrap_or_default();
        let header = packet::fixed_header(packet, u32::MAX).ok().flatten();
        let packet_type = header.and_then(|(first, ..)| PacketType::from_first_byte(first));
        let peer = self
            .connection_mut(key)
            .map(|found| found.peer.to_string())
            .unwrap_or_default();
        tracing::error!(
            peer,
            shard = self.links.own().0,
            reason = packet_type.map_or("no packet", PacketType::name),
            bytes = header.map_or(0, |(_, _, len)| len),
            seq = offset,
            error = "a broken invariant of this Server",
            "connection closed after a panic in its packet"
        );
        if let Some((_, moving)) = self.moving.take() {
            self.shared.leave(moving.listener);
        }
        let error = ConnectionError::refused(
            ReasonCode::ImplementationSpecificError,
            "the Server failed on this packet",
        );
        let closed = catch_unwind(AssertUnwindSafe(|| self.refuse_now(key, &error)));
        if closed.is_err() {
            self.remove(key);
        }
    }
}

/// A packet of `len` bytes counts by the rates of its connection, if it has some.
fn charge(seldom: &mut Option<Box<Seldom>>, event: &Event<'_>, len: usize, now: Instant) {
    if let Some(pace) = seldom.as_mut().and_then(|seldom| seldom.pace.as_mut()) {
        pace.charge(event, len, now);
    }
}

/// For what a PUBLISH has to wait, if it has to; `heard` is what its connection has said, and how much this one says.
fn stall_of(
    engine: &mut Engine,
    governed: &mut Governed,
    key: ConnectionKey,
    publish: &Publish<'_>,
    (heard, len): (&mut Heard, usize),
    now: Instant,
) -> Option<Stall> {
    match engine.must_wait(key, publish, now) {
        Some(Hold::Disk) => Some(Stall::Disk),
        Some(Hold::Room) => Some(governed.wait_for_room(key)),
        None => governed.stall_of(heard, key, len),
    }
}

/// Hands a PUBLISH to the engine, with its payload in a shared buffer if it is large: then it is written to
/// each subscriber from there, not copied for each.
fn publish_shared(
    engine: &mut Engine,
    key: ConnectionKey,
    publish: &Publish<'_>,
    buffer: Option<&Bytes>,
    (is_followed, now): (bool, Instant),
) {
    let mut give = |publish: &Publish<'_>, buffer: Option<&Bytes>| {
        if is_followed {
            engine.on_publish_of_many(key, publish, buffer, now);
        } else {
            engine.on_publish(key, publish, buffer, now);
        }
    };
    if buffer.is_some() || publish.payload.len() < SHARED_BYTES_MIN {
        return give(publish, buffer);
    }
    let shared = Bytes::copy_from_slice(publish.payload);
    let publish = Publish {
        payload: &shared,
        ..*publish
    };
    give(&publish, Some(&shared));
}

/// Appends to `partial` what is missing of its packet, from the front of `input`; returns whether the
/// packet is complete. Then `partial` holds exactly it.
fn complete_packet(partial: &mut Vec<u8>, input: &mut &[u8]) -> bool {
    loop {
        match packet::fixed_header(partial, u32::MAX) {
            Ok(Some((_, _, packet_len))) => {
                let missing = packet_len.saturating_sub(partial.len());
                let (now, later) = input.split_at(missing.min(input.len()));
                // Doubles with what has arrived, but ends with the packet.
                let room = missing
                    .min(partial.len().max(GROWTH_BYTES_MIN))
                    .max(now.len());
                if partial.capacity() - partial.len() < now.len() {
                    partial.reserve_exact(room);
                }
                partial.extend_from_slice(now);
                *input = later;
                return partial.len() >= packet_len;
            }
            Ok(None) => {
                let Some((byte, later)) = input.split_first() else {
                    return false;
                };
                partial.push(*byte);
                *input = later;
            }
            Err(_) => return false,
        }
    }
}

/// So many outputs of the engine are taken before the next packet: a message is then still in the cache.
const OUTPUTS_MAX: usize = 32;
/// Why a CONNECT that grows too large while many others do is given up.
const CROWDED: &str = "too much is held for connections that have not logged in";
/// From this length on a payload that came with others is given a buffer of its own.
const SHARED_BYTES_MIN: usize = 4096;
/// A growing packet's buffer gets at least this much more, or what is missing.
const GROWTH_BYTES_MIN: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    /// A PUBLISH of `len` payload bytes.
    fn publish(len: usize) -> Vec<u8> {
        let mut packet = vec![0x30];
        let mut rest = len + 3;
        while rest > 0 {
            let more = if rest > 127 { 0x80 } else { 0 };
            packet.push(u8::try_from(rest & 0x7F).expect("7 bits") | more);
            rest >>= 7;
        }
        packet.extend_from_slice(b"\x00\x01a");
        packet.resize(packet.len() + len, b'x');
        packet
    }

    #[test]
    fn packet_completes_at_its_end_whatever_the_pieces() {
        let packet = publish(300);
        let mut stream = packet.clone();
        stream.extend_from_slice(b"next");
        for piece in [1, 2, 3, 7, 100, 400] {
            let mut partial = vec![stream[0]];
            let mut rest = &stream[1..];
            while !rest.is_empty() {
                let (mut now, later) = rest.split_at(piece.min(rest.len()));
                rest = later;
                if complete_packet(&mut partial, &mut now) {
                    assert_eq!([now, rest].concat(), b"next", "piece {piece}");
                    break;
                }
            }
            assert_eq!(partial, packet, "piece {piece}");
        }
    }

    #[test]
    fn claimed_length_alone_allocates_little() {
        let mut partial = vec![0x30, 0xFF, 0xFF, 0xFF, 0x7F];
        assert!(!complete_packet(&mut partial, &mut &[0; 100][..]));
        assert!(partial.capacity() <= 2 * GROWTH_BYTES_MIN);
    }
}
