//! What the engine asks the server to do.
//!
//! Owns: [`Output`], [`Denied`]. Does not own: how it is done. Start reading at [`Output`].
//! Invariant: outputs for one connection, and messages for one shard, are to be kept in order.

use std::sync::Arc;

use proto::connection::Outgoing;
use proto::packet::ReasonCode;

use crate::losses::Loser;
use crate::{ConnectionKey, Packets, Request, ShardIndex, ShardMessage};

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
    /// Send packets that go together, in their order; then call [`crate::Engine::return_packets`].
    SendAll {
        /// On which Network Connection.
        connection: ConnectionKey,
        /// The packets.
        packets: Packets,
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
    /// Log that a Session has lost messages. Told once in a second only.
    Lost(Box<Loser>),
    /// Log that a Client was not allowed something. Told a few times a second only.
    Denied(Box<Denied>),
}

/// What a Client was not allowed, and by which rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The Client Identifier.
    pub client_id: Arc<str>,
    /// Its Network Connection, if it has one.
    pub connection: Option<ConnectionKey>,
    /// What it was not allowed to do.
    pub action: DeniedAction,
    /// Where: a Topic Name or a Topic Filter.
    pub topic: Box<str>,
    /// The rule, in words.
    pub rule: Arc<str>,
}

/// What a Client was not allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeniedAction {
    /// To publish.
    Publish,
    /// To make a Subscription.
    Subscribe,
    /// To be sent a message.
    Receive,
}

impl Denied {
    pub(crate) fn new(
        client_id: Arc<str>,
        connection: Option<ConnectionKey>,
        request: Request<'_>,
        rule: Arc<str>,
    ) -> Self {
        let (action, topic) = match request {
            Request::Publish { topic, .. } => (DeniedAction::Publish, topic),
            Request::Subscribe { filter } => (DeniedAction::Subscribe, filter),
            Request::Receive { topic } => (DeniedAction::Receive, topic),
        };
        Self {
            client_id,
            connection,
            action,
            topic: topic.into(),
            rule,
        }
    }
}
