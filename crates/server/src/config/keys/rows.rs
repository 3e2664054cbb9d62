//! The rows of every key that is no limit, and says nothing of who gets in and who may do what.
//!
//! Owns: their texts. Does not own: what they mean to the program (see `checked` and beside it). Start reading at
//! [`GROUPS`]. Invariant: rows stand in the order of the documentation.

use super::Kind::{
    self, Duration, File, Size, Table, Tables, Text, TextOrNumber, Texts, Truth, Whole, Word, Words,
};

/// One key, below its table.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// As it would be written; empty for none, or for that of the table of limits.
    pub(super) default: &'static str,
    pub(super) meaning: &'static str,
}

pub(super) const fn row(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    meaning: &'static str,
) -> Row {
    Row {
        name,
        kind,
        default,
        meaning,
    }
}

/// The tables, and their keys.
pub(super) const GROUPS: &[(&str, &[Row])] = &[
    ("", TOP),
    ("listeners", LISTENERS),
    ("listeners.tls", TLS),
    ("listeners.tls.certificates", CERTIFICATES),
    ("listeners.quic", QUIC),
    ("storage", STORAGE),
    ("storage.levels", LEVELS),
    ("stop", STOP),
];

const MAX: u64 = u64::MAX;
const U16: u64 = u16::MAX as u64;
const U32: u64 = u32::MAX as u64;
const SECOND: u64 = 1000;
const DAY: u64 = 86_400_000;
pub(super) const ANONYMOUS: Kind = Word(&["never", "loopback", "always"]);
const LEVEL: Kind = Word(&["memory", "written", "synced"]);
const RATE_MAX: u64 = 1_000_000_000;

const TOP: &[Row] = &[
    row(
        "shards",
        Whole(1, 64),
        "",
        "Threads that serve, each with a part of the sessions; by default one for each core.",
    ),
    row(
        "sys_interval",
        Duration(0, MAX),
        "\"10s\"",
        "How often `$SYS/broker/...` is published; 0 turns it off.",
    ),
    row(
        "response_topic_prefix",
        Text,
        "\"response/\"",
        "What Response Information begins with; empty gives none.",
    ),
    row(
        "shared_strategy",
        Word(&[
            "round-robin",
            "least-in-flight",
            "sticky",
            "hash-topic",
            "hash-client-id",
        ]),
        "\"round-robin\"",
        "How the member of a shared subscription that gets a message is chosen.",
    ),
    row(
        "listeners",
        Tables,
        "[{ address = \"127.0.0.1:1883\" }]",
        "Where clients can connect.",
    ),
    row(
        "limits",
        Table,
        "",
        "Where everything that a peer can make grow ends.",
    ),
    row("authentication", Table, "", "Who is let in."),
    row(
        "authorization",
        Table,
        "",
        "What clients may do; without it everything, but that `$SYS` is for administrators.",
    ),
    row("storage", Table, "", "Where state is kept, and how safely."),
    row("stop", Table, "", "How the server stops."),
];

const LISTENERS: &[Row] = &[
    row(
        "name",
        Text,
        "",
        "Its name in the log and in rules; by default its address.",
    ),
    row(
        "address",
        Text,
        "",
        "An address and a port, `127.0.0.1:1883` or `[::1]:1883`, or a Unix socket, `unix:/run/vencejo/mqtt.sock`.",
    ),
    row(
        "activation",
        Text,
        "",
        "In place of an address: the name of a socket that systemd has opened.",
    ),
    row(
        "transport",
        Word(&["stream", "websocket", "quic"]),
        "\"stream\"",
        "What carries packets.",
    ),
    row(
        "sniff",
        Truth,
        "false",
        "Whether the first bytes of each connection say what it speaks: MQTT, WebSocket, or either inside of TLS.",
    ),
    row(
        "tls",
        Table,
        "",
        "How its connections are secured; without it they are not.",
    ),
    row("quic", Table, "", "How QUIC keeps connections alive."),
    row(
        "anonymous",
        ANONYMOUS,
        "",
        "From where clients are let in without proof here; by default as `[authentication]` has it.",
    ),
    row(
        "authentication",
        Words(&[
            "test_method",
            "certificate",
            "tokens",
            "scram",
            "passwords",
            "http",
            "postgres",
            "mysql",
            "redis",
            "ldap",
        ]),
        "",
        "Whom of `[authentication]` is asked here, in this order; by default all there are.",
    ),
    row(
        "client_id_from_user",
        Truth,
        "false",
        "Whether each client here is called as its user, whatever client identifier it asks for.",
    ),
    row(
        "versions",
        Words(&["3.1", "3.1.1", "5.0"]),
        "[\"3.1\", \"3.1.1\", \"5.0\"]",
        "Versions of MQTT that are spoken here.",
    ),
    row(
        "mount_point",
        Text,
        "",
        "What stands before all topics of the clients here, ending with `/`; they do not see it.",
    ),
    row(
        "proxy",
        Texts,
        "",
        "Addresses of proxies, or `unix`: only they may connect, each with a header of the PROXY protocol.",
    ),
    row(
        "connections_max",
        Whole(1, 100_000_000),
        "",
        "Connections at once here.",
    ),
    row(
        "connect_rate_max",
        Whole(0, RATE_MAX),
        "",
        "Clients that connect here in one second; 0 is no limit.",
    ),
    row(
        "maximum_packet_size_bytes",
        Size(128, 268_435_460),
        "",
        "Largest packet accepted and announced here.",
    ),
    row(
        "publish_rate_max",
        Whole(0, RATE_MAX),
        "",
        "PUBLISH packets a second of one connection here; 0 is no limit.",
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
        "Topic filters a second of one connection here; 0 is no limit.",
    ),
    row(
        "receive_maximum",
        Whole(1, U16),
        "",
        "QoS 1 and 2 messages that a client here may have open.",
    ),
    row(
        "maximum_inflight_messages",
        Whole(1, U16),
        "",
        "Messages in flight to one client here; its Receive Maximum may be lower.",
    ),
    row(
        "topic_alias_maximum",
        Whole(0, U16),
        "",
        "Topic aliases that a client here may define.",
    ),
    row(
        "topic_alias_maximum_out",
        Whole(0, U16),
        "",
        "Topic aliases used towards a client here.",
    ),
    row(
        "server_keep_alive_max_seconds",
        Duration(0, U16 * SECOND),
        "",
        "Longest keep alive here; a longer one, or none, is replaced by this.",
    ),
    row(
        "session_expiry_max_seconds",
        Duration(0, U32 * SECOND),
        "",
        "Longest session expiry interval that is granted here.",
    ),
    row(
        "session_expiry_3x_seconds",
        Duration(0, U32 * SECOND),
        "",
        "How long a 3.x session without Clean Session is kept that was here last.",
    ),
    row(
        "client_id_length_max",
        Whole(0, MAX),
        "",
        "Longest client identifier here, in bytes.",
    ),
    row(
        "queued_messages_max",
        Whole(0, MAX),
        "",
        "Messages that wait for one session that was here last, in memory or on disk.",
    ),
    row(
        "queued_bytes_max",
        Size(0, MAX),
        "",
        "Bytes of messages that wait for one session that was here last, in memory or on disk.",
    ),
    row(
        "queued_bytes_memory_max",
        Size(0, MAX),
        "",
        "Of these, bytes in memory.",
    ),
    row(
        "subscriptions_per_session_max",
        Whole(0, MAX),
        "",
        "Subscriptions of one session that is here.",
    ),
    row(
        "maximum_qos",
        Whole(0, 2),
        "",
        "Highest QoS that is spoken here.",
    ),
    row(
        "retain_available",
        Truth,
        "",
        "Whether messages can be retained by clients here.",
    ),
    row(
        "wildcard_subscription_available",
        Truth,
        "",
        "Whether filters may have wildcards here.",
    ),
    row(
        "subscription_identifiers_available",
        Truth,
        "",
        "Whether subscriptions may have identifiers here (5.0).",
    ),
    row(
        "shared_subscription_available",
        Truth,
        "",
        "Whether subscriptions may be shared here.",
    ),
    row(
        "mode",
        Text,
        "\"0660\"",
        "Mode of a Unix socket: who may write to it may connect.",
    ),
    row(
        "owner",
        TextOrNumber,
        "",
        "Owner of a Unix socket, by name or number.",
    ),
    row(
        "group",
        TextOrNumber,
        "",
        "Group of a Unix socket, by name or number.",
    ),
];

const TLS: &[Row] = &[
    row(
        "certificate",
        File,
        "",
        "The server's certificate (PEM), followed by what leads to a root that clients know.",
    ),
    row("key", File, "", "Its private key (PEM)."),
    row(
        "certificates",
        Tables,
        "",
        "More of them, for other names: the first that fits the name a client asks for is shown.",
    ),
    row(
        "client_ca",
        File,
        "",
        "Certificates (PEM) that may have signed those of clients.",
    ),
    row(
        "client_certificates",
        Word(&["none", "optional", "required"]),
        "",
        "Whether clients have to show a certificate; by default `required` with a `client_ca`, else `none`.",
    ),
    row(
        "crl",
        File,
        "",
        "Certificates of clients that were revoked (PEM).",
    ),
    row(
        "min_version",
        Word(&["1.2", "1.3"]),
        "\"1.2\"",
        "The oldest version of TLS that is spoken.",
    ),
];

const CERTIFICATES: &[Row] = &[
    row("certificate", File, "", "A certificate (PEM)."),
    row("key", File, "", "Its private key (PEM)."),
];

const QUIC: &[Row] = &[
    row(
        "idle_timeout",
        Duration(SECOND, DAY),
        "\"60s\"",
        "A client from which nothing has come for so long is gone.",
    ),
    row(
        "keep_alive",
        Duration(0, MAX),
        "\"15s\"",
        "How often a silent client is asked for a sign of life; 0 is never.",
    ),
];

const STORAGE: &[Row] = &[
    row(
        "data",
        File,
        "\"vencejo-data\"",
        "The data folder; made if it is not there.",
    ),
    row(
        "level",
        LEVEL,
        "\"synced\"",
        "How safe something is before it is acknowledged: on the disk, handed to the system, or only in memory.",
    ),
    row(
        "levels",
        Tables,
        "[]",
        "The level of some topics; the first filter that matches counts.",
    ),
    row(
        "recovery",
        Word(&["set-aside", "strict"]),
        "\"set-aside\"",
        "What a start does that finds damage: goes on without the damaged part, or not at all.",
    ),
    row(
        "segment_bytes",
        Size(1 << 20, 1 << 30),
        "\"64MiB\"",
        "Size of a file of the log.",
    ),
    row("spares", Whole(0, 64), "2", "Files kept ready."),
    row(
        "disk_low_bytes",
        Size(0, MAX),
        "\"192MiB\"",
        "With less free space nothing is taken that makes the log grow; by default 64 MiB and two files of the log.",
    ),
];

const LEVELS: &[Row] = &[
    row("filter", Text, "", "A topic filter."),
    row("level", LEVEL, "", "The level of what it matches."),
];

const STOP: &[Row] = &[
    row(
        "server_reference",
        Text,
        "",
        "Where 5.0 clients are sent (0x9C) when this server stops.",
    ),
    row(
        "server_moved",
        Truth,
        "false",
        "Whether they are to go there for good (0x9D).",
    ),
];
