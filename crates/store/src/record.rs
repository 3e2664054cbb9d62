//! What must survive a restart, one value for each thing that happened.
//!
//! Owns: [`Record`] and the plain values in it. Does not own: how they are written.
//! Start reading at [`Record`]. Invariant: nothing here knows a packet, a socket or a clock.

use std::sync::Arc;

use bytes::Bytes;

/// One durable effect.
#[derive(Clone, Debug)]
pub enum Record {
    /// A Session exists, with this Session Expiry Interval.
    SessionPut {
        /// Client Identifier.
        client_id: Arc<str>,
        /// Session Expiry Interval in seconds.
        expiry_seconds: u32,
    },
    /// A Session and all that belongs to it has ended.
    SessionDelete {
        /// Client Identifier.
        client_id: Arc<str>,
    },
    /// A Subscription was made or replaced.
    SubscriptionPut(Box<SubscriptionRecord>),
    /// A Subscription was removed.
    SubscriptionDelete {
        /// Client Identifier.
        client_id: Arc<str>,
        /// Topic Filter, with its `$share/` prefix if it has one.
        filter: Arc<str>,
    },
    /// A message was queued for one or more Sessions.
    Enqueue {
        /// The message, once.
        message: MessageRecord,
        /// For whom.
        targets: Vec<Target>,
    },
    /// A queued message is finished: acknowledged, expired, discarded.
    Dequeue {
        /// Client Identifier.
        client_id: Arc<str>,
        /// Its number in the Session's queue.
        seq: u64,
    },
    /// PUBREC arrived for a queued QoS 2 message: only its PUBREL is left.
    Release {
        /// Client Identifier.
        client_id: Arc<str>,
        /// Its number in the Session's queue.
        seq: u64,
    },
    /// A retained message was stored or replaced.
    RetainedPut {
        /// The message.
        message: MessageRecord,
        /// Logical time of the write, then the shard that wrote.
        stamp: (u64, u16),
    },
    /// A retained message was removed.
    RetainedDelete {
        /// Topic Name.
        topic: Bytes,
        /// Logical time of the write, then the shard that wrote.
        stamp: (u64, u16),
    },
    /// A QoS 2 PUBLISH with this Packet Identifier was accepted from the Client.
    InboundPut {
        /// Client Identifier.
        client_id: Arc<str>,
        /// Packet Identifier.
        packet_id: u16,
    },
    /// The Client released this Packet Identifier.
    InboundDelete {
        /// Client Identifier.
        client_id: Arc<str>,
        /// Packet Identifier.
        packet_id: u16,
    },
    /// The Session has a Will Message.
    WillPut(Box<WillRecord>),
    /// The Session's Will Message was removed or published.
    WillDelete {
        /// Client Identifier.
        client_id: Arc<str>,
    },
}

/// An Application Message as plain values.
#[derive(Clone, Debug)]
pub struct MessageRecord {
    /// Topic Name.
    pub topic: Bytes,
    /// Forwarded properties, encoded.
    pub properties: Bytes,
    /// Payload.
    pub payload: Bytes,
    /// QoS it was published at.
    pub qos: u8,
    /// RETAIN as published.
    pub retain: bool,
    /// What is left of its Message Expiry Interval, in seconds, when the record was made.
    pub expiry_seconds: Option<u32>,
}

/// One Session that a queued message is for.
#[derive(Clone, Debug)]
pub struct Target {
    /// Client Identifier.
    pub client_id: Arc<str>,
    /// Its number in the Session's queue.
    pub seq: u64,
    /// QoS of the delivery.
    pub qos: u8,
    /// RETAIN of the delivery.
    pub retain: bool,
    /// Subscription Identifiers of the delivery.
    pub subscription_identifiers: Option<Arc<[u32]>>,
}

/// A Subscription.
#[derive(Clone, Debug)]
pub struct SubscriptionRecord {
    /// Client Identifier.
    pub client_id: Arc<str>,
    /// Topic Filter, with its `$share/` prefix if it has one.
    pub filter: Arc<str>,
    /// Maximum QoS.
    pub qos: u8,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Subscription Identifier.
    pub subscription_identifier: Option<u32>,
}

/// A Will Message.
#[derive(Clone, Debug)]
pub struct WillRecord {
    /// Client Identifier.
    pub client_id: Arc<str>,
    /// The message.
    pub message: MessageRecord,
    /// Will Delay Interval in seconds.
    pub delay_seconds: u32,
}
