//! Records as bytes: the form they have in the log.
//!
//! Owns: the bytes of a [`Record`], [`RecordRef`] that borrows from them. Does not own: frames and files
//! (see `log`), what records mean (see `index`). Start reading at [`RecordRef`], then [`encode()`].
//! Invariants: any bytes decode to a record or to a [`DecodeError`]; a record that decodes encodes to the
//! same bytes; nothing is allocated by a length that the bytes claim.
//!
//! ```text
//! record  = length varint (of what follows, at least 1) | kind u8 | fields
//! varint  = LEB128, shortest form, at most 10 bytes
//! message = flags u8 (QoS 0..1, RETAIN 2, expiry 3, origin 4) | [accepted_at varint, interval varint]
//!           | [origin: session varint, number varint] | topic, properties (each: length varint, bytes)
//! target  = session varint | seq varint | flags u8 (QoS 0..1, RETAIN 2, identifiers 3)
//!           | [identifiers: count varint, each varint]
//! texts   = length varint (of what follows) | each: length varint, UTF-8
//! owner   = flags u8 (administrator 0, listed 2, rules 3) | user: length varint, UTF-8 | groups: texts
//!           | attributes: texts (name and value in turn) | [rules: texts]
//! peer    = address: length varint (0, 4 or 16), bytes | listener: length varint, UTF-8
//!           | mount point: length varint (0 where there is none), UTF-8
//!
//!  1 SessionPut         session | flags u8 (disconnected 0, owner 2, peer 3) | [disconnected_at] | expiry_seconds
//!                       | queue_seq | inbound_number | [owner] | [peer] | client_id
//!  2 SessionDelete      session
//!  3 SubscriptionPut    session | flags u8 (QoS 0..1, no_local 2, retain_as_published 3, identifier 4)
//!                       | [subscription_identifier] | filter
//!  4 SubscriptionDelete session | filter
//!  5 Enqueue            message | target count - 1 u8 | targets | payload
//!  6 Dequeue            session | first_seq | count
//!  7 Release            session | seq
//!  8 RetainedPut        message | payload
//!  9 RetainedDelete     topic
//! 10 InboundPut         session | packet_id | number
//! 11 InboundDelete      session | packet_id
//! 12 WillPut            session | delay_seconds | message | payload
//! 13 WillDelete         session
//! ```
//! What comes last has no length of its own: it is the rest of the record. So the fields before a payload
//! can be decoded without it, see [`RecordRef::payload`].

mod decode;
mod encode;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

pub use decode::{Records, split};
pub use encode::{Identifiers, TargetRef, Texts, encode, encode_enqueue, encode_ref};

use crate::{
    Expiry, MessageRecord, Origin, OwnerRecord, PeerRecord, Record, SessionId, SessionRecord,
    SubscriptionRecord, Target, UnixMillis, WillRecord,
};

/// A [`Record`] that borrows from the bytes it was decoded from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordRef<'a> {
    /// See [`Record::SessionPut`].
    SessionPut(SessionRef<'a>),
    /// See [`Record::SessionDelete`].
    SessionDelete {
        /// Whose.
        session: SessionId,
    },
    /// See [`Record::SubscriptionPut`].
    SubscriptionPut(SubscriptionRef<'a>),
    /// See [`Record::SubscriptionDelete`].
    SubscriptionDelete {
        /// Whose.
        session: SessionId,
        /// Topic Filter.
        filter: &'a str,
    },
    /// See [`Record::Enqueue`].
    Enqueue(EnqueueRef<'a>),
    /// See [`Record::Dequeue`].
    Dequeue {
        /// Whose.
        session: SessionId,
        /// Number of the first.
        first_seq: u64,
        /// How many.
        count: u64,
    },
    /// See [`Record::Release`].
    Release {
        /// Whose.
        session: SessionId,
        /// Its number.
        seq: u64,
    },
    /// See [`Record::RetainedPut`].
    RetainedPut {
        /// The message.
        message: MessageRef<'a>,
    },
    /// See [`Record::RetainedDelete`].
    RetainedDelete {
        /// Topic Name.
        topic: &'a [u8],
    },
    /// See [`Record::InboundPut`].
    InboundPut {
        /// Whose.
        session: SessionId,
        /// Packet Identifier.
        packet_id: u16,
        /// Number of the message.
        number: u64,
    },
    /// See [`Record::InboundDelete`].
    InboundDelete {
        /// Whose.
        session: SessionId,
        /// Packet Identifier.
        packet_id: u16,
    },
    /// See [`Record::WillPut`].
    WillPut(WillRef<'a>),
    /// See [`Record::WillDelete`].
    WillDelete {
        /// Whose.
        session: SessionId,
    },
}

impl<'a> RecordRef<'a> {
    /// The payload of the message in it, empty if it has none. It is the end of the record's bytes: they
    /// decode without it, too, to the same record with an empty payload (see [`Self::decode_body`]).
    #[must_use]
    pub const fn payload(&self) -> &'a [u8] {
        match self {
            Self::Enqueue(enqueue) => enqueue.message.payload,
            Self::RetainedPut { message } => message.payload,
            Self::WillPut(will) => will.message.payload,
            _ => &[],
        }
    }

    /// The same as a value of its own. Copies all.
    #[must_use]
    pub fn to_record(&self) -> Record {
        match *self {
            Self::SessionPut(session) => Record::SessionPut(Box::new(session.to_record())),
            Self::SessionDelete { session } => Record::SessionDelete { session },
            Self::SubscriptionPut(subscription) => {
                Record::SubscriptionPut(Box::new(subscription.to_record()))
            }
            Self::SubscriptionDelete { session, filter } => Record::SubscriptionDelete {
                session,
                filter: filter.into(),
            },
            Self::Enqueue(enqueue) => Record::Enqueue {
                message: enqueue.message.to_record(),
                targets: enqueue.targets().map(|target| target.to_record()).collect(),
                origin: enqueue.origin,
            },
            Self::Dequeue {
                session,
                first_seq,
                count,
            } => Record::Dequeue {
                session,
                first_seq,
                count,
            },
            Self::Release { session, seq } => Record::Release { session, seq },
            Self::RetainedPut { message } => Record::RetainedPut {
                message: message.to_record(),
            },
            Self::RetainedDelete { topic } => Record::RetainedDelete {
                topic: Bytes::copy_from_slice(topic),
            },
            Self::InboundPut {
                session,
                packet_id,
                number,
            } => Record::InboundPut {
                session,
                packet_id,
                number,
            },
            Self::InboundDelete { session, packet_id } => {
                Record::InboundDelete { session, packet_id }
            }
            Self::WillPut(will) => Record::WillPut(Box::new(will.to_record())),
            Self::WillDelete { session } => Record::WillDelete { session },
        }
    }
}

/// A [`SessionRecord`] that borrows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRef<'a> {
    /// Its own number.
    pub session: SessionId,
    /// Client Identifier.
    pub client_id: &'a str,
    /// Session Expiry Interval in seconds.
    pub expiry_seconds: u32,
    /// When its connection ended.
    pub disconnected_at: Option<UnixMillis>,
    /// The last number given in its queue.
    pub queue_seq: u64,
    /// The last number given to a QoS 2 message of its Client.
    pub inbound_number: u64,
    /// Whose it is.
    pub owner: Option<OwnerRef<'a>>,
    /// Where its Client connected from.
    pub peer: Option<PeerRef<'a>>,
}

/// A [`PeerRecord`] that borrows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerRef<'a> {
    /// Its address.
    pub address: Option<IpAddr>,
    /// The name of the listener.
    pub listener: &'a str,
    /// What stands before all topics of the Client; empty where nothing does.
    pub mount_point: &'a str,
}

/// An [`OwnerRecord`] that borrows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerRef<'a> {
    /// Its name.
    pub user: &'a str,
    /// Whether it is an administrator.
    pub is_administrator: bool,
    /// Its groups.
    pub groups: Texts<'a>,
    /// Names and values of what else is known of it, in turn.
    pub attributes: Texts<'a>,
    /// Whether all that stands in the Server's own list of users.
    pub is_listed: bool,
    /// Rules that have come with its proof.
    pub rules: Option<Texts<'a>>,
}

impl OwnerRef<'_> {
    /// The same as a value of its own.
    #[must_use]
    pub fn to_record(&self) -> OwnerRecord {
        OwnerRecord {
            user: self.user.into(),
            is_administrator: self.is_administrator,
            groups: self.groups.iter().map(Arc::from).collect(),
            attributes: self.attributes.iter().map(Arc::from).collect(),
            is_listed: self.is_listed,
            rules: self
                .rules
                .map(|rules| rules.iter().map(Arc::from).collect()),
        }
    }
}

impl SessionRef<'_> {
    /// The same as a value of its own.
    #[must_use]
    pub fn to_record(&self) -> SessionRecord {
        SessionRecord {
            session: self.session,
            client_id: self.client_id.into(),
            expiry_seconds: self.expiry_seconds,
            disconnected_at: self.disconnected_at,
            queue_seq: self.queue_seq,
            inbound_number: self.inbound_number,
            owner: self.owner.map(|owner| owner.to_record()),
            peer: self.peer.map(|peer| PeerRecord {
                address: peer.address,
                listener: peer.listener.into(),
                mount_point: Some(peer.mount_point)
                    .filter(|mount_point| !mount_point.is_empty())
                    .map(Arc::from),
            }),
        }
    }
}

/// A [`SubscriptionRecord`] that borrows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionRef<'a> {
    /// Whose.
    pub session: SessionId,
    /// Topic Filter.
    pub filter: &'a str,
    /// Maximum QoS.
    pub qos: u8,
    /// No Local.
    pub no_local: bool,
    /// Retain As Published.
    pub retain_as_published: bool,
    /// Subscription Identifier.
    pub subscription_identifier: Option<u32>,
}

impl SubscriptionRef<'_> {
    /// The same as a value of its own.
    #[must_use]
    pub fn to_record(&self) -> SubscriptionRecord {
        SubscriptionRecord {
            session: self.session,
            filter: self.filter.into(),
            qos: self.qos,
            no_local: self.no_local,
            retain_as_published: self.retain_as_published,
            subscription_identifier: self.subscription_identifier,
        }
    }
}

/// A [`MessageRecord`] that borrows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageRef<'a> {
    /// Topic Name.
    pub topic: &'a [u8],
    /// Forwarded properties, encoded.
    pub properties: &'a [u8],
    /// Payload; empty if only the fields before it were read.
    pub payload: &'a [u8],
    /// QoS it was published at.
    pub qos: u8,
    /// RETAIN as published.
    pub retain: bool,
    /// Its Message Expiry Interval, if it has one.
    pub expiry: Option<Expiry>,
}

impl MessageRef<'_> {
    /// The same as a value of its own. Copies it, once, so that it holds no more memory than it has bytes.
    #[must_use]
    pub fn to_record(&self) -> MessageRecord {
        let all = Bytes::from([self.topic, self.properties, self.payload].concat());
        let payload_at = self.topic.len() + self.properties.len();
        MessageRecord {
            topic: all.slice(..self.topic.len()),
            properties: all.slice(self.topic.len()..payload_at),
            payload: all.slice(payload_at..),
            qos: self.qos,
            retain: self.retain,
            expiry: self.expiry,
        }
    }
}

/// A [`Record::Enqueue`] that borrows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EnqueueRef<'a> {
    /// The message.
    pub message: MessageRef<'a>,
    /// What it counts with.
    pub origin: Option<Origin>,
    target_count: u16,
    /// Encoded, checked by the decoder.
    targets: &'a [u8],
}

impl<'a> EnqueueRef<'a> {
    /// For whom it was queued: 1 to [`TARGETS_MAX`].
    pub fn targets(&self) -> impl Iterator<Item = TargetRef<'a>> + Clone + use<'a> {
        decode::Targets::new(self.targets)
    }

    /// How many [`Self::targets`] there are.
    #[must_use]
    pub const fn target_count(&self) -> usize {
        self.target_count as usize
    }
}

impl TargetRef<'_> {
    /// The same as a value of its own.
    #[must_use]
    pub fn to_record(&self) -> Target {
        Target {
            session: self.session,
            seq: self.seq,
            qos: self.qos,
            retain: self.retain,
            subscription_identifiers: self
                .subscription_identifiers
                .map(|identifiers| identifiers.iter().collect::<Vec<u32>>())
                .map(Arc::from),
        }
    }
}

/// A [`WillRecord`] that borrows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WillRef<'a> {
    /// Whose.
    pub session: SessionId,
    /// The message.
    pub message: MessageRef<'a>,
    /// Will Delay Interval in seconds.
    pub delay_seconds: u32,
}

impl WillRef<'_> {
    /// The same as a value of its own.
    #[must_use]
    pub fn to_record(&self) -> WillRecord {
        WillRecord {
            session: self.session,
            message: self.message.to_record(),
            delay_seconds: self.delay_seconds,
        }
    }
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodeError {
    /// They end before the record does.
    Truncated,
    /// The kind is not known: written by a later version, or not a record.
    UnknownKind(u8),
    /// A field holds what no encoder writes.
    Invalid {
        /// Which.
        field: &'static str,
    },
}

impl std::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Truncated => f.write_str("the record ends before its fields do"),
            Self::UnknownKind(kind) => write!(f, "records of kind {kind} are not known"),
            Self::Invalid { field } => write!(f, "the record's {field} is not valid"),
        }
    }
}

impl std::error::Error for DecodeError {}

/// An Enqueue record has no more targets than this; more are written as several records.
pub const TARGETS_MAX: usize = 256;

const SESSION_PUT: u8 = 1;
const SESSION_DELETE: u8 = 2;
const SUBSCRIPTION_PUT: u8 = 3;
const SUBSCRIPTION_DELETE: u8 = 4;
const ENQUEUE: u8 = 5;
const DEQUEUE: u8 = 6;
const RELEASE: u8 = 7;
const RETAINED_PUT: u8 = 8;
const RETAINED_DELETE: u8 = 9;
const INBOUND_PUT: u8 = 10;
const INBOUND_DELETE: u8 = 11;
const WILL_PUT: u8 = 12;
const WILL_DELETE: u8 = 13;

/// Bits of a flags byte.
const QOS: u8 = 0b11;
const RETAIN: u8 = 1 << 2;
const MESSAGE_EXPIRY: u8 = 1 << 3;
const MESSAGE_ORIGIN: u8 = 1 << 4;
const TARGET_IDENTIFIERS: u8 = 1 << 3;
const NO_LOCAL: u8 = 1 << 2;
const RETAIN_AS_PUBLISHED: u8 = 1 << 3;
const SUBSCRIPTION_IDENTIFIER: u8 = 1 << 4;
const DISCONNECTED: u8 = 1;
// Bits 0 and 1 together are taken for a QoS.
const OWNER: u8 = 1 << 2;
const PEER: u8 = 1 << 3;
const ADMINISTRATOR: u8 = 1;
const RULES: u8 = 1 << 3;
const LISTED: u8 = 1 << 2;

#[cfg(test)]
mod tests;
