//! Every limit there is, as one table: its key, its default, what it costs, who hears of it.
//!
//! Owns: the table, the page `docs/limits.md` that is made of it. Does not own: the values (see `limits`, `listeners`,
//! `engine::Limits`). Start reading at [`LIMITS`]. Invariant: every key of `[limits]`, and every limit of a listener, has
//! a row; the defaults are those of the code.

use std::fmt::Write as _;

use super::Config;

mod listeners;
mod topics;

use listeners::LISTENER_LIMITS;
use topics::{FEATURE_LIMITS, RETAINED_LIMITS, TOPIC_LIMITS};

/// One limit.
struct Limit {
    key: &'static str,
    /// What it is counted in.
    unit: &'static str,
    /// What it is where nothing else is said.
    default: Default,
    /// The memory, or the work, it lets peers claim at worst.
    cost: &'static str,
    /// What happens to one more: the Reason Code of 5.0, and what 3.x gets.
    refused: &'static str,
    /// Where a Client is told of it beforehand.
    announced: &'static str,
}

/// What a limit is by default.
enum Default {
    /// A number that the configuration has.
    Number(fn(&Config) -> u64),
    /// A number of bytes.
    Bytes(fn(&Config) -> u64),
    /// A number where 0 is no limit.
    OrNone(fn(&Config) -> u64),
    /// Seconds.
    Seconds(fn(&Config) -> u64),
    /// Anything else.
    Text(&'static str),
}

/// The page that says all this.
#[must_use]
pub fn page() -> String {
    let config = Config::default();
    let mut page = HEAD.to_owned();
    for (title, text, limits) in LIMITS {
        // Writing to a text cannot fail.
        let text = if text.is_empty() {
            String::new()
        } else {
            format!("{text}\n\n")
        };
        write!(page, "\n## {title}\n\n{text}{COLUMNS}").ok();
        for limit in *limits {
            let Limit {
                key,
                unit,
                cost,
                refused,
                announced,
                ..
            } = limit;
            let default = limit.default.shown(&config);
            writeln!(
                page,
                "| `{key}` | {default} | {unit} | {cost} | {refused} | {announced} |"
            )
            .ok();
        }
    }
    page.push_str(FOOT);
    page
}

impl Default {
    fn shown(&self, config: &Config) -> String {
        match self {
            Self::Number(of) => grouped(of(config)),
            Self::Bytes(of) => sized(of(config)),
            Self::OrNone(of) => match of(config) {
                0 => "none".to_owned(),
                number => grouped(number),
            },
            Self::Seconds(of) => format!("{} s", grouped(of(config))),
            Self::Text(text) => (*text).to_owned(),
        }
    }
}

/// The default of the limit at `path` of the configuration, as it would be written; `None` where it is not one number.
pub(super) fn default_of(path: &str) -> Option<String> {
    let config = Config::default();
    match limit(path)?.default {
        Number(of) | OrNone(of) => Some(of(&config).to_string()),
        Bytes(of) => Some(format!("\"{}\"", super::keys::size(of(&config)))),
        Seconds(of) => Some(format!("\"{}\"", super::keys::duration(of(&config) * 1000))),
        Text(_) => None,
    }
}

/// Of what the limit at `path` is, what it costs, and what happens to one more.
pub(super) fn facts(path: &str) -> Option<[&'static str; 3]> {
    limit(path).map(|limit| [limit.unit, limit.cost, limit.refused])
}

fn limit(path: &str) -> Option<&'static Limit> {
    let key = path.strip_prefix("limits.").unwrap_or(path);
    let mut all = LIMITS.iter().flat_map(|(_, _, limits)| *limits);
    all.find(|limit| limit.key == key && (path != key || key.starts_with("listeners.")))
}

/// `1000000` as `1,000,000`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

fn sized(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{} {unit}", bytes >> shift);
        }
    }
    format!("{} B", grouped(bytes))
}

const fn row(
    key: &'static str,
    unit: &'static str,
    default: Default,
    cost: &'static str,
    (refused, announced): (&'static str, &'static str),
) -> Limit {
    Limit {
        key,
        unit,
        default,
        cost,
        refused,
        announced,
    }
}

use Default::{Bytes, Number, OrNone, Seconds, Text};

/// The limits, by what they are about.
const LIMITS: &[(&str, &str, &[Limit])] = &[
    ("Connections", CONNECTIONS, CONNECTION_LIMITS),
    ("Logins", "", LOGIN_LIMITS),
    ("Packets", "", PACKET_LIMITS),
    ("Rates", RATES, RATE_LIMITS),
    ("Sessions and what waits for them", "", SESSION_LIMITS),
    ("Subscriptions and topics", "", TOPIC_LIMITS),
    ("Retained messages", "", RETAINED_LIMITS),
    ("What is spoken at all", "", FEATURE_LIMITS),
    ("Listeners", LISTENERS, LISTENER_LIMITS),
];

const CONNECTIONS: &str = "A 5.0 Client that is put off for a while (0x89) finds in the Reason String in how many \
seconds to come again, another number for each. Clients whose Session is there go first: they have a rate of their own \
beside `connect_rate_max`, and are never put off because CONNECT packets had to wait for 2 s and more.";
const RATES: &str = "A connection that is ahead of its rate by a second's worth is not read until it is ahead by half a \
second's worth: nothing is dropped, and its Keep Alive does not run meanwhile. Where several connections together are \
ahead, each goes on with at least one packet in its turn, and with an equal share of the rate where it has more to say.";
const LISTENERS: &str = "Each replaces, for one listener, what `[limits]` says for all, or counts beside it. A Session belongs to the listener \
that its Client has connected by last, also while the Client is gone and after a restart; the name of the listener is \
what counts.";

const CONNECTION_LIMITS: &[Limit] = &[
    row(
        "connections_max",
        "sockets",
        Number(|c| c.bounds.connections_max as u64),
        "2.7 KiB each while idle, with a Session (`interop/idle`); never more than the limit on open files has room for",
        ("0x97, 3.x: 3", "-"),
    ),
    row(
        "connections_per_address_max",
        "connections",
        OrNone(|c| c.bounds.connections_per_address_max.into()),
        "-",
        ("0x97, 3.x: 3", "-"),
    ),
    row(
        "connections_per_user_max",
        "connections",
        OrNone(|c| c.bounds.connections_per_user_max.into()),
        "-",
        ("0x97, 3.x: 3", "-"),
    ),
    row(
        "connect_rate_max",
        "a second",
        OrNone(|c| c.bounds.connect_rate_max.into()),
        "-",
        ("0x89, 3.x: 3", "Reason String"),
    ),
    row(
        "connect_rate_per_address_max",
        "a second",
        OrNone(|c| c.bounds.connect_rate_per_address_max.into()),
        "65,536 addresses",
        ("0x89, 3.x: 3", "Reason String"),
    ),
    row(
        "connect_rate_per_user_max",
        "a second, of those that have logged in as one user",
        OrNone(|c| c.bounds.connect_rate_per_user_max.into()),
        "65,536 users",
        ("0x89, 3.x: 3", "Reason String"),
    ),
    row(
        "connect_timeout",
        "time",
        Seconds(|c| c.bounds.connect_timeout.as_secs()),
        "what a CONNECT may hold for so long",
        ("closed", "-"),
    ),
    row(
        "flapping_max",
        "connects",
        OrNone(|c| c.bounds.flapping.connects_max.into()),
        "65,536 names of 64 characters",
        ("0x8A, 3.x: 5", "-"),
    ),
    row(
        "flapping_per_address_max",
        "connects",
        OrNone(|c| c.bounds.flapping.connects_per_address_max.into()),
        "the same",
        ("0x8A, 3.x: 5", "-"),
    ),
    row(
        "flapping_window",
        "time",
        Seconds(|c| c.bounds.flapping.window.as_secs()),
        "-",
        ("-", "-"),
    ),
    row(
        "flapping_ban",
        "time",
        Seconds(|c| c.bounds.flapping.lasts.as_secs()),
        "-",
        ("-", "-"),
    ),
    row(
        "unsent_bytes_max",
        "bytes of one connection",
        Bytes(|c| c.bounds.unsent_bytes_max as u64),
        "itself for each connection, shared payloads not counted",
        ("closed", "-"),
    ),
    row(
        "congested_bytes",
        "bytes of one connection",
        Bytes(|c| c.bounds.congested_bytes as u64),
        "itself for each connection",
        ("QoS 0 is dropped, the rest waits in the queue", "-"),
    ),
];

const LOGIN_LIMITS: &[Limit] = &[
    row(
        "login_threads",
        "threads",
        Text("one for every two cores"),
        "19 MiB each",
        ("waits", "-"),
    ),
    row(
        "logins_waiting_max",
        "logins",
        Number(|c| c.bounds.logins_waiting_max as u64),
        "its CONNECT each",
        ("0x89, 3.x: 3", "-"),
    ),
    row(
        "memory_max_bytes",
        "bytes of the process",
        Text("3/4 of the control group or the machine"),
        "itself",
        ("in steps, see ADR 0025", "-"),
    ),
    row(
        "unauthenticated_bytes_max",
        "bytes of all that have not logged in; at most 1/32 of `memory_max_bytes`",
        Bytes(|c| c.bounds.unauthenticated_bytes_max as u64),
        "itself, and 4 KiB for each",
        ("closed", "-"),
    ),
    row(
        "unauthenticated_max",
        "connections that have not logged in",
        Number(|c| c.bounds.unauthenticated_max as u64),
        "as a connection, with TLS its handshake",
        ("the oldest is closed", "-"),
    ),
];

const PACKET_LIMITS: &[Limit] = &[
    row(
        "maximum_packet_size_bytes",
        "bytes",
        Bytes(|c| c.limits.maximum_packet_size_bytes.into()),
        "itself for each connection, as far as it has arrived",
        ("0x95, 3.x: closed", "Maximum Packet Size"),
    ),
    row(
        "receive_maximum",
        "QoS 1 and 2 messages of one Client; at QoS 2 until PUBREL",
        Number(|c| c.limits.receive_maximum.into()),
        "an identifier each for each Session",
        ("0x93, 3.x at QoS 2: closed", "Receive Maximum"),
    ),
    row(
        "maximum_inflight_messages",
        "messages to one Client",
        Number(|c| c.limits.maximum_inflight_messages.into()),
        "counted with what is queued",
        ("waits", "-"),
    ),
    row(
        "topic_alias_maximum",
        "aliases of one Client",
        Number(|c| c.limits.topic_alias_maximum.into()),
        "a Topic Name each for each connection",
        ("0x94", "Topic Alias Maximum"),
    ),
    row(
        "topic_alias_maximum_out",
        "aliases to one Client",
        Number(|c| c.limits.topic_alias_maximum_out.into()),
        "a Topic Name each for each connection",
        ("none is used", "-"),
    ),
    row(
        "user_properties_max",
        "User Properties of a PUBLISH (1,024 of every other packet)",
        Number(|c| c.bounds.user_properties_max.into()),
        "-",
        ("0x97", "-"),
    ),
    row(
        "properties_bytes_max",
        "bytes of all properties of a PUBLISH",
        Bytes(|c| c.bounds.properties_bytes_max as u64),
        "itself for each message",
        ("0x97", "-"),
    ),
    row(
        "server_keep_alive_max_seconds",
        "time",
        Text("none"),
        "a connection for one and a half of it",
        ("replaced by it; 3.x: as asked", "Server Keep Alive"),
    ),
];

const RATE_LIMITS: &[Limit] = &[
    row(
        "publish_rate_max",
        "PUBLISH packets a second of one connection",
        OrNone(|c| c.bounds.publish_rate_max.into()),
        "-",
        ("not read", "-"),
    ),
    row(
        "publish_bytes_rate_max",
        "bytes of these a second",
        OrNone(|c| c.bounds.publish_bytes_rate_max as u64),
        "-",
        ("not read", "-"),
    ),
    row(
        "subscribe_rate_max",
        "Topic Filters a second of one connection",
        OrNone(|c| c.bounds.subscribe_rate_max.into()),
        "-",
        ("not read", "-"),
    ),
    row(
        "publish_rate_per_user_max",
        "PUBLISH packets a second of all connections of one user",
        OrNone(|c| c.bounds.rates_per_user.publishes.into()),
        "65,536 users beside those that are connected",
        ("not read", "-"),
    ),
    row(
        "publish_bytes_rate_per_user_max",
        "bytes of these a second",
        OrNone(|c| c.bounds.rates_per_user.publish_bytes as u64),
        "the same",
        ("not read", "-"),
    ),
    row(
        "subscribe_rate_per_user_max",
        "Topic Filters a second of all connections of one user",
        OrNone(|c| c.bounds.rates_per_user.filters.into()),
        "the same",
        ("not read", "-"),
    ),
    row(
        "publish_rate_total_max",
        "PUBLISH packets a second of all connections",
        OrNone(|c| c.bounds.rates_total.publishes.into()),
        "-",
        ("not read", "-"),
    ),
    row(
        "publish_bytes_rate_total_max",
        "bytes of these a second",
        OrNone(|c| c.bounds.rates_total.publish_bytes as u64),
        "-",
        ("not read", "-"),
    ),
    row(
        "subscribe_rate_total_max",
        "Topic Filters a second of all connections",
        OrNone(|c| c.bounds.rates_total.filters.into()),
        "-",
        ("not read", "-"),
    ),
];

const SESSION_LIMITS: &[Limit] = &[
    row(
        "sessions_max",
        "Sessions, connected or not",
        Number(|c| c.limits.sessions_max as u64),
        "less than a connection each",
        ("0x97, 3.x: 3", "-"),
    ),
    row(
        "sessions_per_user_max",
        "Sessions of one user, connected or not",
        OrNone(|c| c.limits.sessions_per_user_max.unwrap_or(0) as u64),
        "a count for each user",
        ("0x97, 3.x: 3", "-"),
    ),
    row(
        "client_id_length_max",
        "bytes",
        Number(|c| c.limits.client_id_length_max as u64),
        "itself for each Session",
        ("0x85, 3.x: 2", "-"),
    ),
    row(
        "session_expiry_max_seconds",
        "time",
        Text("none"),
        "a Session for so long",
        ("cut", "Session Expiry Interval"),
    ),
    row(
        "session_expiry_3x_seconds",
        "time",
        Seconds(|c| c.limits.session_expiry_3x_seconds.into()),
        "a Session of 3.x without Clean Session for so long",
        ("-", "-"),
    ),
    row(
        "queued_messages_max",
        "messages for one Session",
        Number(|c| c.limits.queued_messages_max as u64),
        "by bytes, below",
        ("as `overflow_policy` says", "-"),
    ),
    row(
        "queued_bytes_max",
        "bytes for one Session, in memory or on disk",
        Bytes(|c| c.limits.queued_bytes_max as u64),
        "on disk: itself for each Session",
        ("as `overflow_policy` says", "-"),
    ),
    row(
        "queued_bytes_memory_max",
        "of these, bytes in memory",
        Bytes(|c| c.limits.queued_bytes_memory_max as u64),
        "itself for each Session, below the next",
        ("goes to the disk, or as `overflow_policy` says", "-"),
    ),
    row(
        "queued_bytes_total_max",
        "bytes in memory for all Sessions",
        Bytes(|c| c.limits.queued_bytes_total_max as u64),
        "itself",
        ("goes to the disk, or as `overflow_policy` says", "-"),
    ),
    row(
        "window_messages_max",
        "messages of the disk in memory for one connected Session",
        Number(|c| c.limits.window_messages_max as u64),
        "by bytes, below",
        ("stays on the disk", "-"),
    ),
    row(
        "window_bytes_max",
        "bytes of these",
        Bytes(|c| c.limits.window_bytes_max as u64),
        "itself, or one message, for each connection",
        ("stays on the disk", "-"),
    ),
    row(
        "overflow_policy",
        "-",
        Text("refuse"),
        "-",
        ("0x97 for the publisher, 3.x: not read", "-"),
    ),
    row(
        "overflow_patience",
        "seconds",
        Seconds(|c| c.limits.overflow_patience.as_secs()),
        "-",
        ("the full Session loses alone", "-"),
    ),
];

const HEAD: &str = "# Limits

Everything that a peer can make grow, and where it ends. Made by `cargo xtask limits` from the table in
`crates/server/src/config/limit_table.rs`; the defaults are those of the code. Keys are those of `[limits]` in the
configuration, but for those of listeners. What is counted when it is refused stands in `$SYS/broker/limits/...`.
";

const FOOT: &str = "
## What has no key

| limit | value | why |
|---|---|---|
| shards | 64 | sets of shards are words of 64 bits |
| Topic Filters of a SUBSCRIBE or UNSUBSCRIBE | 10,000 | more are refused with 0x97; 512 of them are looked at in one turn |
| User Properties of a packet that is no PUBLISH | 1,024 | more are refused with 0x97 |
| bytes of a WebSocket request | 8 KiB | more are refused with 431 |
| failed logins, banned names and addresses | 65,536 | what is no ban goes first |
| packets to one Client that wait for the disk or other shards | 1,024 | nothing more is read from it until some have left; nor from whoever has any while the log or a ring is full |
| work of one connection in one turn of a shard | 16,384 units, in a crowd four times its share and at least 256: messages, deliveries, Subscriptions looked at, and the way to them | the rest waits for the next turn |
| work of all of them | 65,536 units | who has waited goes first in the next turn |
| connections written in one turn | 2,048 | the others in the next, and who is new beside them |
| Sessions and Wills that are due at one moment | 4,096 units a turn | the others in the next |
| CONNECT packets in one turn of a shard | 64 | the others wait, in their order |
| steps of TLS handshakes in one turn of a shard | 8, and none begun 2 ms after the first | the others wait, in their order |
";

const COLUMNS: &str = "\
| key | default | of what | costs at worst | one more | announced in CONNACK |
|---|---|---|---|---|---|
";

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Keys of a listener that are no limits.
    const NO_LIMITS: [&str; 16] = [
        "client_id_from_user",
        "authentication",
        "sniff",
        "activation",
        "quic",
        "name",
        "address",
        "tls",
        "transport",
        "anonymous",
        "versions",
        "proxy",
        "mode",
        "mount_point",
        "owner",
        "group",
    ];

    #[test]
    fn every_key_of_limits_and_every_limit_of_a_listener_has_one_row() {
        let file: toml::Table =
            toml::from_str(include_str!("every_key.toml")).expect("is valid TOML");
        let limits = file["limits"].as_table().expect("a table");
        let listeners = file["listeners"].as_array().expect("a list");
        let of_listeners = listeners
            .iter()
            .flat_map(|one| one.as_table().expect("a table").keys())
            .filter(|key| !NO_LIMITS.contains(&key.as_str()))
            .map(|key| format!("listeners.{key}"));
        let expected: BTreeSet<String> = limits.keys().cloned().chain(of_listeners).collect();
        let rows = LIMITS.iter().flat_map(|(_, _, limits)| *limits);
        let keys: Vec<String> = rows.map(|limit| limit.key.to_owned()).collect();
        let distinct: BTreeSet<String> = keys.iter().cloned().collect();
        assert_eq!(distinct, expected);
        assert_eq!(keys.len(), distinct.len(), "each once");
    }

    #[test]
    fn the_page_is_what_the_table_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/limits.md");
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == page(), "run `cargo xtask limits`");
    }

    #[test]
    fn numbers_are_shown_for_people() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [512, 1024, 1536, 1 << 30].map(sized),
            ["512 B", "1 KiB", "1,536 B", "1 GiB"]
        );
    }
}
