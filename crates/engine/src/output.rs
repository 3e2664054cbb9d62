//! What the engine asks the server to do.
//!
//! Owns: [`Output`]. Does not own: how it is done. Start reading at [`Output`].
//! Invariant: outputs for one connection, and messages for one shard, are to be kept in order.

use std::sync::Arc;

use proto::connection::Outgoing;
use proto::packet::ReasonCode;

use crate::{ConnectionKey, ShardIndex, ShardMessage};

/// One thing to do.
#[derive(Debug)]
pub enum Output {
    /// Send a packet.
    Send {
        /// On which Network Connection.
        connection: ConnectionKey,
        /// The packet.
        packet: Outgoing,
    },
    /// Flush, then close a Network Connection; [`crate::Engine::on_closed`] may follow or not.
    Close {
        /// Which.
        connection: ConnectionKey,
        /// Why, for the log.
        reason: ReasonCode,
        /// Whose it was, for the log; `None` if it never had a Session.
        client_id: Option<Arc<str>>,
    },
    /// Carry a message to another shard, in order.
    ToShard {
        /// Which.
        to: ShardIndex,
        /// The message.
        message: ShardMessage,
    },
    /// Give the durable effects of this turn to the store, then call
    /// [`crate::Engine::on_persisted`] when they are durable.
    Persist(store::Batch),
    /// Ask the store for queued messages, then call [`crate::Engine::on_loaded`] with its answer.
    Load(store::Load),
}
