//! What must survive a restart, one value for each thing that happened.
//!
//! Owns: [`Record`] and the plain values in it. Does not own: how they are written (see `codec`).
//! Start reading at [`Record`]. Invariant: nothing here knows a packet, a socket or a clock.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

/// A durable Session, from its creation to its end. Never given to another one, so that no record of a
/// Session that has ended can touch a later one with the same Client Identifier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// A point in time that means the same after a restart: milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixMillis(pub u64);

/// One durable effect. Records of one Session mean what they say only in their order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A Session exists, or has changed. Its numbers never go back, whatever an older record says.
    SessionPut(Box<SessionRecord>),
    /// A Session and all that belongs to it has ended.
    SessionDelete {
        /// Whose.
        session: SessionId,
    },
    /// A Subscription was made or replaced.
    SubscriptionPut(Box<SubscriptionRecord>),
    /// A Subscription was removed.
    SubscriptionDelete {
        /// Whose.
        session: SessionId,
        /// Topic Filter, with its `$share/` prefix if it has one.
        filter: Arc<str>,
    },
    /// A message was queued for one or more Sessions.
    Enqueue {
        /// The message, once.
        message: MessageRecord,
        /// For whom.
        targets: Vec<Target>,
        /// Set if it counts only once its publisher's [`Record::InboundPut`] is there: a QoS 2 message
        /// that other shards take, too.
        origin: Option<Origin>,
    },
    /// Queued messages are finished: acknowledged, expired, discarded.
    Dequeue {
        /// Whose.
        session: SessionId,
        /// Number of the first in the Session's queue.
        first_seq: u64,
        /// How many consecutive numbers, at least 1; those of no message are passed over.
        count: u64,
    },
    /// PUBREC arrived for a queued QoS 2 message: only its PUBREL is left.
    Release {
        /// Whose.
        session: SessionId,
        /// Its number in the Session's queue.
        seq: u64,
    },
    /// A retained message was stored or replaced. Records of one topic come from one shard, in order.
    RetainedPut {
        /// The message.
        message: MessageRecord,
    },
    /// A retained message was removed.
    RetainedDelete {
        /// Topic Name.
        topic: Bytes,
    },
    /// A QoS 2 PUBLISH with this Packet Identifier was accepted from the Client.
    InboundPut {
        /// Whose.
        session: SessionId,
        /// Packet Identifier.
        packet_id: u16,
        /// Number of the message among the QoS 2 messages of this Session; see [`Origin`].
        number: u64,
    },
    /// The Client released this Packet Identifier.
    InboundDelete {
        /// Whose.
        session: SessionId,
        /// Packet Identifier.
        packet_id: u16,
    },
    /// The Session has a Will Message.
    WillPut(Box<WillRecord>),
    /// The Session's Will Message was removed or published.
    WillDelete {
        /// Whose.
        session: SessionId,
    },
}

/// A Session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its own number.
    pub session: SessionId,
    /// Client Identifier.
    pub client_id: Arc<str>,
    /// Session Expiry Interval in seconds; 0 ends with the connection, `u32::MAX` never ends.
    pub expiry_seconds: u32,
    /// When its connection ended; `None` while it has one.
    pub disconnected_at: Option<UnixMillis>,
    /// The last number given in its queue.
    pub queue_seq: u64,
    /// The last number given to a QoS 2 message of its Client whose [`Record::InboundPut`] is written.
    pub inbound_number: u64,
    /// Whose it is; `None` where its Client is anonymous.
    pub owner: Option<OwnerRecord>,
    /// Where its Client connected from, for rules that ask; `None` in a log from before that was kept.
    pub peer: Option<PeerRecord>,
}

/// Where a Client connected from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerRecord {
    /// Its address; `None` if that is none of IP.
    pub address: Option<IpAddr>,
    /// The name of the listener.
    pub listener: Arc<str>,
    /// What stands before all topics of the Client, if anything does; not empty.
    pub mount_point: Option<Arc<str>>,
}

/// The user that a Session belongs to, as it was when its Client connected last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnerRecord {
    /// Its name.
    pub user: Arc<str>,
    /// Whether it is an administrator.
    pub is_administrator: bool,
    /// Its groups.
    pub groups: Vec<Arc<str>>,
    /// Names and values of what else is known of it, in turn.
    pub attributes: Vec<Arc<str>>,
    /// Whether all that stands in the Server's own list of users, which may say something else by now.
    pub is_listed: bool,
    /// Rules that have come with its proof, in the form the engine gives them.
    pub rules: Option<Vec<Arc<str>>>,
}

/// An Application Message as plain values.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// Its Message Expiry Interval, if it has one.
    pub expiry: Option<Expiry>,
}

/// A Message Expiry Interval that has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// When.
    pub accepted_at: UnixMillis,
    /// The interval as published.
    pub interval_seconds: u32,
}

/// One Session that a queued message is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whose queue.
    pub session: SessionId,
    /// Its number in the Session's queue.
    pub seq: u64,
    /// QoS of the delivery: 1 or 2.
    pub qos: u8,
    /// RETAIN of the delivery.
    pub retain: bool,
    /// Subscription Identifiers of the delivery.
    pub subscription_identifiers: Option<Arc<[u32]>>,
}

/// Which QoS 2 message of which publisher an [`Record::Enqueue`] is part of.
///
/// Several shards take one message, each with an `Enqueue` of its own; the publisher's shard writes
/// `InboundPut` with the same number only when all of these are written. An `Enqueue` whose number is
/// above all that its publisher's Session has written counts for nothing at recovery: the publisher was not
/// answered, and sends the message again. If that Session is gone, it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The publisher's Session.
    pub session: SessionId,
    /// Number of the message among the QoS 2 messages of that Session.
    pub number: u64,
}

/// A Subscription.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriptionRecord {
    /// Whose.
    pub session: SessionId,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WillRecord {
    /// Whose.
    pub session: SessionId,
    /// The message; its expiry begins when it is published, so only the interval of it counts.
    pub message: MessageRecord,
    /// Will Delay Interval in seconds.
    pub delay_seconds: u32,
}
