//! Connections whose PUBLISH waits until there is room for it.
//!
//! Owns: what is taken from them meanwhile. Does not own: which PUBLISH has to wait (see `engine` and `governed`), when
//! the disk is low (see `storing`). Start reading at [`Shard::read_stalled`].
//! Invariant: a PUBLISH that waits is at the front of `partial`, and what is kept behind it is bounded.

use engine::ConnectionKey;
use proto::Qos;
use proto::connection::ConnectionError;
use proto::packet::{PacketType, ReasonCode, fixed_header};
use store::Store;

use super::Shard;
use super::connection::Connection;

/// What is to be done with a stalled connection that may have something to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stalled {
    /// It is read: what makes room, or only says that it is there, does not wait behind its PUBLISH.
    Read,
    /// It is left alone.
    Wait,
}

/// What a PUBLISH waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stall {
    /// Room on the disk.
    Disk,
    /// The window after this one: its publisher is one of the loudest, and memory runs low.
    Window(u32),
    /// Room in a queue or among retained messages; looked at in each window.
    Room(u32),
}

impl Connection {
    /// Whether so much is kept behind the PUBLISH that waits that no more is read.
    fn is_full_behind(&self) -> bool {
        let publish_bytes = match fixed_header(&self.partial, u32::MAX) {
            Ok(Some((_, _, len))) => len,
            _ => 0,
        };
        self.partial.len().saturating_sub(publish_bytes) >= BEHIND_BYTES_MAX
    }

    /// Whether a DISCONNECT waits with the PUBLISH: nothing is read behind it, not even the end.
    fn is_leaving_behind(&self) -> bool {
        let behind = self.seldom.as_ref().map_or(0, |seldom| seldom.behind);
        self.partial.get(behind).copied().is_some_and(is_disconnect)
    }

    /// The packet behind those that wait, if it need not wait with them: a Client that also subscribes must
    /// be able to acknowledge, or it would never get more, and make no room.
    fn next_behind(&mut self) -> Option<Vec<u8>> {
        let seldom = self.seldom.get_or_insert_default();
        let is_brief = matches!(seldom.stall, Some(Stall::Window(_)));
        let behind = &mut seldom.behind;
        loop {
            let rest = self.partial.get(*behind..)?;
            let (is_first, len) = match fixed_header(rest, u32::MAX) {
                // What waits for a window only is taken, and at QoS 0 nobody would hear that it was not.
                Ok(Some((first_byte, ..))) if is_brief && is_disconnect(first_byte) => return None,
                Ok(Some((first_byte, _, len))) => (goes_first(first_byte), len),
                Ok(None) => return None,
                // Whatever is wrong with it is found now.
                Err(_) => (true, rest.len()),
            };
            if is_first {
                return rest.get(..len).map(<[u8]>::to_vec);
            }
            if rest.len() < len {
                return None;
            }
            *behind += len;
        }
    }
}

impl<S: Store> Shard<S> {
    /// A PUBLISH has waited. What its peer has not been answered, it has not lost.
    pub(super) fn read_stalled(&mut self, key: ConnectionKey) -> Stalled {
        let Some(connection) = self.connection_mut(key) else {
            return Stalled::Wait;
        };
        let (is_over, is_read) = match connection.seldom().stall.unwrap_or(Stall::Disk) {
            Stall::Disk => (!self.stored.is_low, true),
            // Soon over: what makes no room waits in the socket.
            Stall::Window(window) | Stall::Room(window) => {
                let is_leaving = connection.is_leaving_behind();
                let is_read = !is_leaving && self.engine.is_awaiting(key);
                (!self.is_window(window), is_read)
            }
        };
        if is_over {
            self.look_again(key);
            return Stalled::Wait;
        }
        let Some(connection) = self.connection_mut(key).filter(|_| is_read) else {
            return Stalled::Wait;
        };
        if !connection.is_full_behind() {
            return Stalled::Read;
        }
        if connection.flags.is_peer_done {
            self.lose(key, None);
        }
        Stalled::Wait
    }

    /// A PUBLISH at the front of what is here has to wait. For room in a queue it does not wait for ever: its publisher
    /// would not come to anything else; that it is not acknowledged is what it hears.
    pub(super) fn stall(&mut self, key: ConnectionKey, stall: Stall, qos: Qos) {
        let now = self.now;
        let patience = self.policy.bounds.engine.overflow_patience;
        // Who is full may have to be told to other shards.
        self.has_news = true;
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        connection.protocol.put_back(qos);
        if let Stall::Room(_) = stall {
            let since = *connection.seldom().held_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= patience {
                let text = "nobody has room for what the Client publishes";
                let error = ConnectionError::refused(ReasonCode::QuotaExceeded, text);
                return self.refuse(key, &error);
            }
        }
        connection.flags.is_stalled = true;
        let seldom = connection.seldom();
        seldom.stall = Some(stall);
        seldom.behind = 0;
    }

    /// Handles what is behind the PUBLISH that waits and need not wait with it.
    pub(super) fn look_behind(&mut self, key: ConnectionKey) {
        loop {
            let Some(connection) = self.connection_mut(key) else {
                return;
            };
            // Nothing is looked at behind a DISCONNECT.
            if !connection.is_open() || !connection.flags.is_stalled || connection.flags.is_leaving
            {
                return;
            }
            let Some(packet) = connection.next_behind() else {
                return;
            };
            let used = self.on_packets(key, &packet, None);
            let connection = self.connection_mut(key).filter(|found| found.is_open());
            let Some(connection) = connection.filter(|_| used > 0) else {
                return;
            };
            let behind = connection.seldom().behind;
            connection.partial.bytes_mut().drain(behind..behind + used);
        }
    }
}

const fn is_disconnect(first_byte: u8) -> bool {
    first_byte == PacketType::Disconnect.first_byte()
}

/// Whether such a packet is taken before a PUBLISH that came earlier. No order is promised between them
/// [v3.1.1 MQTT-4.6.0-1], and none of them makes the log grow. A PUBREL waits: its PUBLISH may be among those in front.
const fn goes_first(first_byte: u8) -> bool {
    matches!(
        PacketType::from_first_byte(first_byte),
        Some(
            PacketType::PubAck
                | PacketType::PubRec
                | PacketType::PubComp
                | PacketType::PingReq
                | PacketType::Disconnect
        )
    )
}

/// No more bytes are read behind a PUBLISH that waits.
const BEHIND_BYTES_MAX: usize = 64 * 1024;
