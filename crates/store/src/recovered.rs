//! What a restart finds, as plain values for the engines.
//!
//! Owns: [`RestoredSession`]. Does not own: how it is found (see `log`), what is made of it (see the
//! engine). Start reading at [`RestoredSession`].
//! Invariant: everything that was acknowledged is here, or is named as missing.

use crate::{SessionRecord, SubscriptionRecord, WillRecord};

/// A Session with all that belongs to it but the messages of its queue, which stay on disk until they
/// are wanted (see [`crate::Store::load`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoredSession {
    /// The Session, with the highest numbers any record has told.
    pub session: SessionRecord,
    /// Its Subscriptions, by Topic Filter.
    pub subscriptions: Vec<SubscriptionRecord>,
    /// Its queued messages, if there are any.
    pub queue: Option<QueueExtent>,
    /// Numbers of QoS 2 messages the Client has, and whose PUBREL is owed, ascending.
    pub released: Vec<u64>,
    /// Packet Identifiers of QoS 2 messages from the Client that wait for PUBREL, ascending.
    pub inbound: Vec<u16>,
    /// Its Will Message.
    pub will: Option<WillRecord>,
}

/// The messages of a queue on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueExtent {
    /// Number of the first.
    pub first_seq: u64,
    /// Number of the last.
    pub last_seq: u64,
    /// How many there are; not every number need have one.
    pub count: u64,
    /// Bytes of their records in the log, for limits.
    pub bytes: u64,
}
