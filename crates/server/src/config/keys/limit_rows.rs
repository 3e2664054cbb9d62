//! The rows of `[limits]`.
//!
//! Owns: what each limit means, and between what it may be. Does not own: defaults, costs, what is refused (see
//! `limit_table`). Start reading at [`GROUPS`]. Invariant: a default that `limit_table` knows does not stand here again.

use super::Kind::{Duration, Size, Truth, Whole, Word};
use super::rows::{Row, row};

/// The one table.
pub(super) const GROUPS: &[(&str, &[Row])] = &[("limits", LIMITS)];

const MAX: u64 = u64::MAX;
const U16: u64 = u16::MAX as u64;
const U32: u64 = u32::MAX as u64;
const SECOND: u64 = 1000;
const DAY: u64 = 86_400_000;
const RATE_MAX: u64 = 1_000_000_000;
/// Largest packet MQTT can say.
const PACKET_MAX: u64 = 268_435_460;
const BUFFER_MAX: u64 = 1 << 31;

const LIMITS: &[Row] = &[
    row(
        "connections_max",
        Whole(1, 100_000_000),
        "",
        "Connections at once.",
    ),
    row(
        "connections_per_address_max",
        Whole(0, U32),
        "",
        "Connections at once of one address (of IPv6 a /64); 0 is no limit.",
    ),
    row(
        "connections_per_user_max",
        Whole(0, U32),
        "",
        "Connections at once of one user; 0 is no limit.",
    ),
    row(
        "connect_rate_max",
        Whole(0, RATE_MAX),
        "",
        "Clients that connect in one second; 0 is no limit.",
    ),
    row(
        "connect_rate_per_address_max",
        Whole(0, RATE_MAX),
        "",
        "The same from one address; 0 is no limit.",
    ),
    row(
        "connect_rate_per_user_max",
        Whole(0, RATE_MAX),
        "",
        "The same of one user; 0 is no limit.",
    ),
    row(
        "memory_max_bytes",
        Size(32 << 20, 1 << 50),
        "",
        "Memory of the process; by default three quarters of what the control group or the machine has.",
    ),
    row(
        "unauthenticated_bytes_max",
        Size(65_536, BUFFER_MAX),
        "",
        "Bytes held for all connections together that have not logged in; never more than 1/32 of memory_max_bytes.",
    ),
    row(
        "unauthenticated_max",
        Whole(1, 100_000_000),
        "",
        "Connections that have not logged in.",
    ),
    row(
        "connect_timeout",
        Duration(100, 3_600_000),
        "",
        "Time from accepting a socket to its CONNACK.",
    ),
    row(
        "flapping_max",
        Whole(0, U32),
        "",
        "Connects of one client identifier from one address in `flapping_window` that begin a ban; 0 bans nobody.",
    ),
    row(
        "flapping_per_address_max",
        Whole(0, U32),
        "",
        "The same of one address, whatever the client identifier; 0 bans nobody.",
    ),
    row(
        "flapping_window",
        Duration(SECOND, 30 * DAY),
        "",
        "The time in which connects are counted, from the first one.",
    ),
    row(
        "flapping_ban",
        Duration(SECOND, 30 * DAY),
        "",
        "How long such a ban lasts.",
    ),
    row(
        "unsent_bytes_max",
        Size(0, BUFFER_MAX),
        "",
        "Unsent bytes of one connection above which it is closed; more than `congested_bytes`.",
    ),
    row(
        "congested_bytes",
        Size(1024, BUFFER_MAX),
        "",
        "Unsent bytes of one connection above which QoS 0 messages to it are dropped and others wait.",
    ),
    row(
        "login_threads",
        Whole(1, 64),
        "",
        "Threads that verify passwords; by default one for every two cores.",
    ),
    row(
        "logins_waiting_max",
        Whole(1, 1_000_000),
        "",
        "Logins that wait for such a thread.",
    ),
    row(
        "maximum_packet_size_bytes",
        Size(128, PACKET_MAX),
        "",
        "Largest packet accepted and announced.",
    ),
    row(
        "receive_maximum",
        Whole(1, U16),
        "",
        "QoS 1 and 2 messages that a client may have open.",
    ),
    row(
        "maximum_inflight_messages",
        Whole(1, U16),
        "",
        "Messages in flight to one client; its Receive Maximum may be lower.",
    ),
    row(
        "topic_alias_maximum",
        Whole(0, U16),
        "",
        "Topic aliases that a client may define.",
    ),
    row(
        "topic_alias_maximum_out",
        Whole(0, U16),
        "",
        "Topic aliases used towards a client.",
    ),
    row(
        "user_properties_max",
        Whole(0, U32),
        "",
        "User properties of one PUBLISH.",
    ),
    row(
        "properties_bytes_max",
        Size(0, MAX),
        "",
        "Bytes of all properties of one PUBLISH.",
    ),
    row(
        "server_keep_alive_max_seconds",
        Duration(0, U16 * SECOND),
        "",
        "Longest keep alive; a longer one, or none, is replaced by this. By default any.",
    ),
    row(
        "publish_rate_max",
        Whole(0, RATE_MAX),
        "",
        "PUBLISH packets a second of one connection; 0 is no limit.",
    ),
    row(
        "publish_bytes_rate_max",
        Size(0, 1 << 40),
        "",
        "Bytes of these a second; 0 is no limit.",
    ),
    row(
        "subscribe_rate_max",
        Whole(0, RATE_MAX),
        "",
        "Topic filters a second that one connection subscribes to or unsubscribes from; 0 is no limit.",
    ),
    row(
        "publish_rate_per_user_max",
        Whole(0, RATE_MAX),
        "",
        "PUBLISH packets a second of all connections of one user; 0 is no limit.",
    ),
    row(
        "publish_bytes_rate_per_user_max",
        Size(0, 1 << 40),
        "",
        "Bytes of these a second; 0 is no limit.",
    ),
    row(
        "subscribe_rate_per_user_max",
        Whole(0, RATE_MAX),
        "",
        "Topic filters a second of all connections of one user; 0 is no limit.",
    ),
    row(
        "publish_rate_total_max",
        Whole(0, RATE_MAX),
        "",
        "PUBLISH packets a second of all connections; 0 is no limit.",
    ),
    row(
        "publish_bytes_rate_total_max",
        Size(0, 1 << 40),
        "",
        "Bytes of these a second; 0 is no limit.",
    ),
    row(
        "subscribe_rate_total_max",
        Whole(0, RATE_MAX),
        "",
        "Topic filters a second of all connections; 0 is no limit.",
    ),
    row(
        "sessions_max",
        Whole(0, MAX),
        "",
        "Sessions, connected or not.",
    ),
    row(
        "sessions_per_user_max",
        Whole(0, MAX),
        "",
        "Sessions of one user, connected or not; 0 is no limit.",
    ),
    row(
        "client_id_length_max",
        Whole(0, MAX),
        "",
        "Longest client identifier, in bytes.",
    ),
    row(
        "session_expiry_max_seconds",
        Duration(0, U32 * SECOND),
        "",
        "Longest session expiry interval that is granted; by default any.",
    ),
    row(
        "session_expiry_3x_seconds",
        Duration(0, U32 * SECOND),
        "",
        "How long a 3.x session without Clean Session is kept.",
    ),
    row(
        "queued_messages_max",
        Whole(0, MAX),
        "",
        "Messages that wait for one session, in memory or on disk.",
    ),
    row(
        "queued_bytes_max",
        Size(0, MAX),
        "",
        "Bytes of messages that wait for one session, in memory or on disk.",
    ),
    row(
        "queued_bytes_memory_max",
        Size(0, MAX),
        "",
        "Of these, bytes in memory.",
    ),
    row(
        "queued_bytes_total_max",
        Size(0, MAX),
        "",
        "Bytes of messages in memory that wait for all sessions.",
    ),
    row(
        "window_messages_max",
        Whole(0, MAX),
        "",
        "Messages of the disk that wait in memory for one connected session.",
    ),
    row(
        "window_bytes_max",
        Size(0, MAX),
        "",
        "Bytes of these, but at least one message.",
    ),
    row(
        "overflow_policy",
        Word(&["refuse", "drop-newest", "drop-oldest", "disconnect"]),
        "\"refuse\"",
        "What happens when a queue is full.",
    ),
    row(
        "overflow_patience",
        Duration(SECOND, 30 * DAY),
        "",
        "So long a full queue holds up publishers, until half of it is taken.",
    ),
    row(
        "subscriptions_per_session_max",
        Whole(0, MAX),
        "",
        "Subscriptions of one session.",
    ),
    row(
        "subscriptions_max",
        Whole(0, MAX),
        "",
        "Subscriptions of all sessions.",
    ),
    row(
        "subscriptions_per_user_max",
        Whole(0, MAX),
        "",
        "Subscriptions of all sessions of one user; 0 is no limit.",
    ),
    row(
        "topic_levels_max",
        Whole(1, U16),
        "",
        "Levels of a topic name or filter.",
    ),
    row(
        "topic_length_max",
        Whole(1, U16),
        "",
        "Bytes of a topic name or filter.",
    ),
    row(
        "retained_messages_max",
        Whole(0, MAX),
        "",
        "Retained messages kept.",
    ),
    row(
        "retained_bytes_max",
        Size(0, MAX),
        "",
        "Bytes of retained messages kept.",
    ),
    row(
        "retained_age_max",
        Duration(0, U32 * SECOND),
        "",
        "A retained message goes after so long; by default never.",
    ),
    row(
        "retained_replay_per_turn",
        Whole(1, U16),
        "",
        "Retained messages sent in one turn of a shard for new subscriptions.",
    ),
    row(
        "maximum_qos",
        Whole(0, 2),
        "2",
        "Highest QoS that is spoken.",
    ),
    row(
        "retain_available",
        Truth,
        "true",
        "Whether messages can be retained.",
    ),
    row(
        "wildcard_subscription_available",
        Truth,
        "true",
        "Whether filters may have wildcards.",
    ),
    row(
        "subscription_identifiers_available",
        Truth,
        "true",
        "Whether subscriptions may have identifiers (5.0).",
    ),
    row(
        "shared_subscription_available",
        Truth,
        "true",
        "Whether subscriptions may be shared.",
    ),
];
