//! Every bound the engine keeps, by name.
//!
//! Owns: [`Limits`], its defaults, which overflow policy a queue has, and where listeners have limits of their own.
//! Does not own: bounds of one Network Connection (see `proto::connection::ServerLimits`).
//! Start reading at [`Limits`]. Invariant: what is announced in CONNACK comes from here.

use std::sync::Arc;
use std::time::Duration;

use proto::Qos;
use proto::topic::level_count;

use crate::Principal;

/// What happens to a message for a Session whose queue is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OverflowPolicy {
    /// The publisher hears of it: with 0x97 where its version has that, else it is not read for a while. Nobody gets the
    /// message then. A Session that stays full for long loses alone what others take.
    #[default]
    Refuse,
    /// The new message is dropped.
    DropNewest,
    /// The oldest waiting messages are dropped until the new one fits.
    DropOldest,
    /// The Client is disconnected with 0x97; offline Sessions drop the new message.
    Disconnect,
}

/// Bounds and switches of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest packet accepted and announced, in bytes. Default 1 MiB. Section 3.2.2.3.6.
    pub maximum_packet_size_bytes: u32,
    /// QoS 1 and 2 PUBLISH packets a Client may have open, announced. Default 1024. Section 3.2.2.3.3.
    pub receive_maximum: u16,
    /// Messages in flight to one Client; the Client's Receive Maximum may be lower. Default 1024.
    pub maximum_inflight_messages: u16,
    /// Topic Aliases a Client may define, announced. Default 16. Section 3.2.2.3.8.
    pub topic_alias_maximum: u16,
    /// Topic Aliases used towards a Client; its own maximum may be lower. Default 16.
    pub topic_alias_maximum_out: u16,
    /// Levels of a Topic Name or Topic Filter; more are refused with 0x90 or 0x8F. Default 128.
    pub topic_levels_max: usize,
    /// Bytes of a Topic Name or Topic Filter; more are refused with 0x90 or 0x8F. Default 65,535, the most there
    /// can be.
    pub topic_length_max: usize,
    /// Messages that wait for one Session, in memory or only on disk. Default 1,000,000.
    pub queued_messages_max: usize,
    /// Bytes of messages that wait or are in flight for one Session, in memory or only on disk.
    /// Default 1 GiB.
    pub queued_bytes_max: usize,
    /// Of these, bytes in memory; what the store has goes to the disk beyond that. Default 64 MiB.
    pub queued_bytes_memory_max: usize,
    /// Bytes of messages in memory that wait or are in flight for all Sessions of the process; a quarter
    /// of it is kept for Sessions that have little queued. What the store has goes to the disk beyond
    /// that. Default 1 GiB.
    pub queued_bytes_total_max: usize,
    /// Messages the store has that wait in memory for one connected Session. Default 128.
    pub window_messages_max: usize,
    /// Bytes of these, but at least one message. Default 256 KiB.
    pub window_bytes_max: usize,
    /// What happens when a queue is full. Default: refuse.
    pub overflow_policy: OverflowPolicy,
    /// So long a full queue holds up publishers, until half of it is taken; a 3.x publisher that nobody can take a
    /// message from waits no longer either, then its connection is closed. Default 10 s.
    pub overflow_patience: Duration,
    /// Subscriptions of one Session; more are refused with 0x97. Default 10,000.
    pub subscriptions_per_session_max: usize,
    /// Subscriptions of all Sessions; more are refused with 0x97. Each shard has an equal part of them.
    /// Default 10,000,000.
    pub subscriptions_max: usize,
    /// Sessions of the process, connected or not; a new one beyond that is refused with 0x97.
    /// Default 1,000,000.
    pub sessions_max: usize,
    /// Sessions of one user in all shards, connected or not; one more is refused with 0x97. Who has proven no user is
    /// counted nowhere. Default: any number.
    pub sessions_per_user_max: Option<usize>,
    /// Subscriptions of all of these; one more is refused with 0x97. Default: any number.
    pub subscriptions_per_user_max: Option<usize>,
    /// Longest Session Expiry Interval granted, in seconds. Default unlimited.
    pub session_expiry_max_seconds: u32,
    /// Session Expiry Interval of a 3.x Session without Clean Session, in seconds. Default 7 days.
    pub session_expiry_3x_seconds: u32,
    /// Retained messages kept. One more is refused with 0x97 and goes to nobody; where there is no answer
    /// (QoS 0, 3.x) it is dropped and counted. Default 1,000,000.
    pub retained_messages_max: usize,
    /// Bytes of retained messages kept; beyond that as with their number. Default 1 GiB.
    pub retained_bytes_max: usize,
    /// A retained message goes after so many seconds, if it has no shorter Message Expiry Interval. Default: never.
    pub retained_age_max_seconds: Option<u32>,
    /// Retained messages sent in one turn for new Subscriptions. Default 1024.
    pub retained_replay_per_turn: usize,
    /// Longest Client Identifier, in bytes; longer is refused with 0x85. Default 1024.
    pub client_id_length_max: usize,
    /// Maximum QoS announced. Default 2. Section 3.2.2.3.4.
    pub maximum_qos: Qos,
    /// Retain Available. Default true. Section 3.2.2.3.5.
    pub retain_available: bool,
    /// Wildcard Subscription Available. Default true. Section 3.2.2.3.11.
    pub wildcard_subscription_available: bool,
    /// Subscription Identifiers Available. Default true. Section 3.2.2.3.12.
    pub subscription_identifiers_available: bool,
    /// Shared Subscription Available. Default true. Section 3.2.2.3.13.
    pub shared_subscription_available: bool,
    /// Longest Keep Alive in seconds; a longer one, or none, is replaced by this. Default: any.
    pub server_keep_alive_max_seconds: Option<u16>,
}

impl Limits {
    /// What one of so many shards may keep in memory of what waits.
    pub(crate) fn queued_bytes_of_shard(&self, shard_count: u16) -> usize {
        self.queued_bytes_total_max / usize::from(shard_count.max(1))
    }

    /// Whether it has to be known how much a user has.
    pub(crate) const fn count_users(&self) -> bool {
        self.sessions_per_user_max.is_some() || self.subscriptions_per_user_max.is_some()
    }

    /// Whether a Topic Name or Topic Filter is longer or deeper than is taken.
    pub(crate) fn exceeds_topic(&self, text: &str) -> bool {
        text.len() > self.topic_length_max || level_count(text) > self.topic_levels_max
    }
}

/// Limits that listeners have in place of those of all, by the names of these listeners. A Client is held to those of the
/// listener that it has connected by, a Session to those of the listener that its Client has connected by last, also while
/// it is gone. Of these counts what is about one connection or one Session; what is about all of them, and what happens to
/// a full queue, is said for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitsByListener(Box<[(Arc<str>, Arc<Limits>)]>);

impl LimitsByListener {
    /// Whether there is no such listener.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Those of the listener that `principal` has connected by. O(listeners that have some).
    pub(crate) fn of(&self, principal: &Principal) -> Option<&Arc<Limits>> {
        if self.is_empty() {
            return None;
        }
        let name = principal.listener.as_ref()?;
        let mut all = self.0.iter();
        all.find_map(|(of, limits)| (of == name).then_some(limits))
    }

    /// The largest packet that anybody may send, where all others may send one of `of_all` bytes.
    pub(crate) fn packet_size_max_bytes(&self, of_all: u32) -> usize {
        let own = self.0.iter();
        let own = own.map(|(_, limits)| limits.maximum_packet_size_bytes);
        let largest = own.fold(of_all, u32::max);
        usize::try_from(largest).unwrap_or(usize::MAX)
    }
}

impl FromIterator<(Arc<str>, Arc<Limits>)> for LimitsByListener {
    fn from_iter<I: IntoIterator<Item = (Arc<str>, Arc<Limits>)>>(limits: I) -> Self {
        Self(limits.into_iter().collect())
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            maximum_packet_size_bytes: 1024 * 1024,
            receive_maximum: 1024,
            maximum_inflight_messages: 1024,
            topic_alias_maximum: 16,
            topic_alias_maximum_out: 16,
            topic_levels_max: 128,
            topic_length_max: 65_535,
            queued_messages_max: 1_000_000,
            queued_bytes_max: 1024 * MIB,
            queued_bytes_memory_max: 64 * MIB,
            queued_bytes_total_max: 1024 * MIB,
            window_messages_max: 128,
            window_bytes_max: MIB / 4,
            overflow_policy: OverflowPolicy::Refuse,
            overflow_patience: Duration::from_secs(10),
            subscriptions_per_session_max: 10_000,
            subscriptions_max: 10_000_000,
            sessions_max: 1_000_000,
            sessions_per_user_max: None,
            subscriptions_per_user_max: None,
            session_expiry_max_seconds: u32::MAX,
            session_expiry_3x_seconds: 7 * 24 * 3600,
            retained_messages_max: 1_000_000,
            retained_bytes_max: 1024 * MIB,
            retained_age_max_seconds: None,
            retained_replay_per_turn: 1024,
            client_id_length_max: 1024,
            maximum_qos: Qos::ExactlyOnce,
            retain_available: true,
            wildcard_subscription_available: true,
            subscription_identifiers_available: true,
            shared_subscription_available: true,
            server_keep_alive_max_seconds: None,
        }
    }
}

const MIB: usize = 1024 * 1024;
