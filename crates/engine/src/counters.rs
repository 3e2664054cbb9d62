//! What a shard has counted since its start, and how much it holds now.
//!
//! Owns: [`Counters`]. Does not own: how they are published (see `sys_topics`).
//! Start reading at [`Counters`]. Invariant: all but the gauges only grow.

/// Counts of one shard, or of all shards added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Gauge: Clients connected now.
    pub clients_connected: u64,
    /// Gauge: Sessions, connected or not.
    pub sessions: u64,
    /// The most Clients that were connected at once.
    pub clients_maximum: u64,
    /// Sessions that ended because their Session Expiry Interval passed.
    pub sessions_expired: u64,
    /// Connections accepted.
    pub connections: u64,
    /// Packets of every type received, as the server says.
    pub packets_received: u64,
    /// Packets of every type sent, as the server says.
    pub packets_sent: u64,
    /// PUBLISH packets received.
    pub publishes_received: u64,
    /// PUBLISH packets sent.
    pub publishes_sent: u64,
    /// Messages not delivered: queue full, receiver too slow at QoS 0, not authorised.
    pub publishes_dropped: u64,
    /// Of those, QoS 0 messages to a receiver that did not keep up.
    pub dropped_congested: u64,
    /// Of those, messages that did not fit a full queue.
    pub dropped_queue_full: u64,
    /// Of those, messages that were refused, for somebody would not have kept them.
    pub refused_queue_full: u64,
    /// Of those, messages larger than the Client's Maximum Packet Size.
    pub dropped_too_large: u64,
    /// Of those, messages a Client may not publish.
    pub dropped_not_authorized: u64,
    /// Of those, retained messages for which the limits had no room.
    pub dropped_retained_full: u64,
    /// Of those, messages that would have been stored while the disk was low.
    pub dropped_storage_low: u64,
    /// Clients refused because there are, or their user has, as many Sessions as there may be.
    pub refused_sessions: u64,
    /// Subscriptions refused because their Session, its user, or the Server has as many as there may be.
    pub refused_subscriptions: u64,
    /// Topic Names and Topic Filters refused because they are too long or too deep.
    pub refused_topics: u64,
    /// Messages whose Message Expiry Interval passed before they were sent.
    pub messages_expired: u64,
    /// Payload bytes received in PUBLISH packets.
    pub publish_bytes_received: u64,
    /// Payload bytes sent in PUBLISH packets.
    pub publish_bytes_sent: u64,
    /// Bytes read from all connections, as the server says.
    pub bytes_received: u64,
    /// Bytes written to all connections, as the server says.
    pub bytes_sent: u64,
    /// Sockets accepted, as the server says.
    pub sockets: u64,
    /// Gauge: sockets open, as the server says.
    pub sockets_open: u64,
    /// Gauge: memory of the process in bytes, as the server says in one shard.
    pub memory_bytes: u64,
    /// The most there ever was of it.
    pub memory_bytes_maximum: u64,
    /// Gauge: messages that wait or are in flight.
    pub queued_messages: u64,
    /// Gauge: bytes of these.
    pub queued_bytes: u64,
    /// Gauge: of the messages that wait, those that only the store has.
    pub spilled_messages: u64,
    /// Gauge: bytes of these.
    pub spilled_bytes: u64,
    /// Gauge: Subscriptions, Shared Subscriptions included.
    pub subscriptions: u64,
    /// Gauge: Shared Subscriptions.
    pub shared_subscriptions: u64,
    /// Gauge: retained messages.
    pub retained_messages: u64,
    /// Gauge: bytes of retained messages.
    pub retained_bytes: u64,
    /// Wills published.
    pub wills_published: u64,
    /// Connections closed because of their Client's mistake.
    pub protocol_errors: u64,
    /// Messages sent to other shards.
    pub shard_messages_sent: u64,
}

impl Counters {
    /// Adds the counts of another shard. Retained messages are the same in all shards and not added.
    pub const fn add(&mut self, other: &Self) {
        self.clients_connected += other.clients_connected;
        self.sessions += other.sessions;
        self.clients_maximum += other.clients_maximum;
        self.sessions_expired += other.sessions_expired;
        self.connections += other.connections;
        self.packets_received += other.packets_received;
        self.packets_sent += other.packets_sent;
        self.publishes_received += other.publishes_received;
        self.publishes_sent += other.publishes_sent;
        self.publishes_dropped += other.publishes_dropped;
        self.dropped_congested += other.dropped_congested;
        self.dropped_queue_full += other.dropped_queue_full;
        self.refused_queue_full += other.refused_queue_full;
        self.dropped_too_large += other.dropped_too_large;
        self.dropped_not_authorized += other.dropped_not_authorized;
        self.dropped_retained_full += other.dropped_retained_full;
        self.dropped_storage_low += other.dropped_storage_low;
        self.refused_sessions += other.refused_sessions;
        self.refused_subscriptions += other.refused_subscriptions;
        self.refused_topics += other.refused_topics;
        self.messages_expired += other.messages_expired;
        self.publish_bytes_received += other.publish_bytes_received;
        self.publish_bytes_sent += other.publish_bytes_sent;
        self.bytes_received += other.bytes_received;
        self.bytes_sent += other.bytes_sent;
        self.sockets += other.sockets;
        self.sockets_open += other.sockets_open;
        self.memory_bytes += other.memory_bytes;
        self.memory_bytes_maximum += other.memory_bytes_maximum;
        self.queued_messages += other.queued_messages;
        self.queued_bytes += other.queued_bytes;
        self.spilled_messages += other.spilled_messages;
        self.spilled_bytes += other.spilled_bytes;
        self.subscriptions += other.subscriptions;
        self.shared_subscriptions += other.shared_subscriptions;
        self.wills_published += other.wills_published;
        self.protocol_errors += other.protocol_errors;
        self.shard_messages_sent += other.shard_messages_sent;
    }
}
