//! A mosquitto.conf as a vencejo.toml, and what becomes of each of its lines.
//!
//! Owns: [`translate`], the options of the whole broker. Does not own: listeners (see `doors`), users and rights
//! (see `people`), the lines (see `lines`). Start reading at [`translate`]. Invariants: no line goes without a row; what
//! cannot be kept never opens more than it did.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::doors::{self, Door};
use super::lines::Line;
use super::people;
use crate::import::rows::{Outcome, Row};
use crate::import::target::Target;

/// All that a mosquitto.conf becomes.
#[derive(Debug)]
pub(crate) struct Translation {
    /// The vencejo.toml.
    pub(crate) toml: String,
    pub(crate) rows: Vec<Row>,
    /// A password file that has to be written, and its path.
    pub(crate) passwords: Option<(PathBuf, String)>,
}

/// What is collected on the way.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub(super) target: Target,
    pub(super) rows: Vec<Row>,
    pub(super) per_listener: bool,
    pub(super) passwords: Option<(PathBuf, String)>,
    /// What all Client Identifiers have to begin with.
    pub(super) prefix: Option<String>,
}

impl Work {
    /// The pattern of all Client Identifiers that may be.
    pub(super) fn open_pattern(&self) -> String {
        format!("{}*", self.prefix.as_deref().unwrap_or_default())
    }

    pub(super) fn kept(&mut self, line: &Line, why: impl Into<String>) {
        self.row(line, Outcome::Kept, why);
    }

    /// The same of a line that names a file, which has to be there.
    pub(super) fn kept_file(&mut self, line: &Line, why: &str) {
        match File::open(&line.value) {
            Ok(_) => self.kept(line, why),
            Err(error) => {
                let file = &line.value;
                self.kept(
                    line,
                    format!("{why}; {file}: {error}: no server starts without it"),
                );
            }
        }
    }

    pub(super) fn changed(&mut self, line: &Line, why: impl Into<String>) {
        self.row(line, Outcome::Changed, why);
    }

    pub(super) fn ignored(&mut self, line: &Line, why: impl Into<String>) {
        self.row(line, Outcome::Ignored, why);
    }

    fn row(&mut self, line: &Line, outcome: Outcome, why: impl Into<String>) {
        self.rows.push(Row {
            place: line.place(),
            option: line.shown(),
            outcome,
            why: why.into(),
        });
    }

    /// Says what no line says.
    pub(super) fn note(&mut self, option: &str, outcome: Outcome, why: impl Into<String>) {
        self.rows.push(Row {
            place: String::new(),
            option: option.to_owned(),
            outcome,
            why: why.into(),
        });
    }
}

/// Lines by what they are about.
struct Sorted {
    broker: Vec<Line>,
    /// The first is the listener that no line `listener` begins.
    doors: Vec<Door>,
    bridges: Vec<Vec<Line>>,
}

/// Makes a configuration of `lines`; `from` is the file they come from, and `folder` where a password file may be written.
pub(crate) fn translate(lines: &[Line], from: &Path, folder: &Path) -> Translation {
    let mut work = Work {
        per_listener: is_per_listener(lines),
        ..Work::default()
    };
    let (lines, empty): (Vec<Line>, Vec<Line>) = lines
        .iter()
        .cloned()
        .partition(|line| !line.value.is_empty());
    for line in &empty {
        work.ignored(line, "it says nothing; mosquitto does not start with it");
    }
    let sorted = sort(&lines, work.per_listener);
    for line in &sorted.broker {
        if !people::is_about_people(&line.word) {
            broker_option(&mut work, line);
        }
    }
    let doors = doors::used(&mut work, sorted.doors);
    let opened = doors::open(&mut work, &doors);
    people::let_in(&mut work, &sorted.broker, &opened, folder);
    for bridge in &sorted.bridges {
        bridge_left_out(&mut work, bridge);
    }
    if lines
        .iter()
        .any(|line| line.word == "persistence" && line.truth() == Some(true))
    {
        work.note(
            "mosquitto.db",
            Outcome::Ignored,
            "it is not read: `vencejo import retained` copies retained messages from the old server while it runs; queues of clients \
             that are away stay behind",
        );
    }
    let from = from.display().to_string();
    Translation {
        toml: work.target.toml("mosquitto", &from),
        rows: work.rows,
        passwords: work.passwords,
    }
}

fn is_per_listener(lines: &[Line]) -> bool {
    let said = lines
        .iter()
        .rev()
        .find(|line| line.word == "per_listener_settings");
    said.and_then(Line::truth).unwrap_or(false)
}

fn sort(lines: &[Line], per_listener: bool) -> Sorted {
    let mut sorted = Sorted {
        broker: Vec::new(),
        doors: vec![Door::default()],
        bridges: Vec::new(),
    };
    let mut in_bridge = false;
    for line in lines {
        let is_of_door = doors::OPTIONS.contains(&line.word.as_str())
            || per_listener && people::is_about_people(&line.word);
        match line.word.as_str() {
            "listener" => {
                in_bridge = false;
                sorted.doors.push(Door::at(line.clone()));
            }
            "connection" => {
                in_bridge = true;
                sorted.bridges.push(vec![line.clone()]);
            }
            word if in_bridge && is_of_bridge(word) => {
                if let Some(bridge) = sorted.bridges.last_mut() {
                    bridge.push(line.clone());
                }
            }
            _ if is_of_door => {
                if let Some(door) = sorted.doors.last_mut() {
                    door.options.push(line.clone());
                }
            }
            _ => sorted.broker.push(line.clone()),
        }
    }
    sorted
}

fn is_of_bridge(word: &str) -> bool {
    BRIDGE.contains(&word) || BRIDGE_PREFIXES.iter().any(|of| word.starts_with(of))
}

fn broker_option(work: &mut Work, line: &Line) {
    match line.word.as_str() {
        "per_listener_settings" => work.kept(line, "what is said of a listener is for it only"),
        "persistence"
        | "persistence_location"
        | "persistence_file"
        | "autosave_interval"
        | "autosave_on_changes"
        | "persistent_client_expiration" => storage_option(work, line),
        "max_queued_messages"
        | "max_queued_bytes"
        | "max_inflight_messages"
        | "max_inflight_bytes"
        | "max_packet_size"
        | "packet_max_size"
        | "message_size_limit"
        | "max_keepalive"
        | "memory_limit"
        | "global_max_connections"
        | "global_max_clients"
        | "retain_available" => {
            limit_option(work, line);
        }
        "sys_interval" => match line.value.parse::<u32>() {
            Ok(seconds) => {
                work.target.top.raw("sys_interval", seconds);
                work.kept(line, "sys_interval");
            }
            Err(_) => work.ignored(line, "it is no number of seconds"),
        },
        "clientid_prefixes" => {
            work.prefix = Some(line.value.clone());
            work.kept(line, "[[authentication.client_ids]]");
        }
        _ => other_option(work, line),
    }
}

/// Options of which nothing is left to say.
fn other_option(work: &mut Work, line: &Line) {
    let truth = line.truth();
    match line.word.as_str() {
        "log_type" if ["all", "debug"].contains(&line.value.as_str()) => {
            work.changed(line, "vencejo serve --log-level debug");
        }
        word if word.starts_with("log_")
            || word == "connection_messages"
            || word == "websockets_log_level" =>
        {
            work.ignored(
                line,
                "the log goes to standard error, for whoever started the server to keep",
            );
        }
        "user" => work.ignored(
            line,
            "the server runs as whoever starts it: see docs/systemd",
        ),
        "pid_file" => work.ignored(line, "whoever starts the server knows its process"),
        "set_tcp_nodelay" if truth == Some(true) => work.kept(line, "as always here"),
        "set_tcp_nodelay" => work.changed(line, "small packets are sent at once, always"),
        "queue_qos0_messages" if truth == Some(true) => {
            work.ignored(line, "QoS 0 messages do not wait for clients that are away");
        }
        "upgrade_outgoing_qos" if truth == Some(true) => {
            work.ignored(
                line,
                "a message is delivered at the lower of both QoS, as the standard has it",
            );
        }
        "queue_qos0_messages" | "upgrade_outgoing_qos" => work.kept(line, "as always here"),
        "check_retain_source" if truth == Some(true) => work.kept(line, "as always here"),
        "check_retain_source" => {
            work.changed(
                line,
                "a retained message is judged by the rights of who gets it, always",
            );
        }
        "allow_duplicate_messages" => work.ignored(
            line,
            "overlapping subscriptions bring a message once, as the standard allows",
        ),
        word if is_of_bridge(word) => {
            work.ignored(line, "bridges are not there yet");
        }
        _ => work.ignored(line, "there is nothing like it here"),
    }
}

fn storage_option(work: &mut Work, line: &Line) {
    let storage = &mut work.target.storage;
    match (line.word.as_str(), line.truth()) {
        ("persistence", Some(true)) => {
            work.kept(line, "storage.level: on the disk before it is acknowledged");
        }
        ("persistence", _) => {
            storage.text("level", "memory");
            work.kept(line, "storage.level = \"memory\"");
        }
        ("persistence_location", _) => {
            let folder = Path::new(&line.value).join("vencejo");
            storage.text("data", folder.to_string_lossy());
            let why = format!(
                "storage.data = {:?}, beside what mosquitto left there",
                folder.display().to_string()
            );
            work.changed(line, why);
        }
        ("persistent_client_expiration", _) => match seconds_of(&line.value) {
            Some(seconds) => {
                work.target.limits.raw("session_expiry_3x_seconds", seconds);
                work.target
                    .limits
                    .raw("session_expiry_max_seconds", seconds);
                work.kept(
                    line,
                    "limits.session_expiry_3x_seconds, session_expiry_max_seconds",
                );
            }
            None => work.ignored(line, "it is no number with h, d, w, m or y"),
        },
        _ => work.ignored(line, "what is acknowledged is on the disk already"),
    }
}

fn limit_option(work: &mut Work, line: &Line) {
    if line.word == "retain_available" {
        work.target
            .limits
            .raw("retain_available", line.truth().unwrap_or(true));
        return work.kept(line, "limits.retain_available");
    }
    let Ok(number) = line.value.parse::<i64>() else {
        return work.ignored(line, "it is no number");
    };
    let Some((key, most)) = limit_key(&line.word) else {
        return work.ignored(line, "messages in flight are counted, not their bytes");
    };
    let number = u64::try_from(number).unwrap_or(0);
    // With mosquitto 0 is no limit; here the default is as good as none.
    if number == 0 {
        return match line.word.as_str() {
            "max_inflight_messages" => {
                work.target.limits.raw(key, most);
                work.changed(
                    line,
                    format!("limits.{key}: {most}, the most that MQTT has"),
                );
            }
            _ => work.changed(line, format!("limits.{key}: the default, which is a limit")),
        };
    }
    let wanted = match line.word.as_str() {
        // Of a payload; what stands before it has room, too.
        "message_size_limit" => number.saturating_add(HEAD_BYTES),
        _ => number,
    };
    let value = wanted.clamp(least_of(key), most);
    work.target.limits.raw(key, value);
    match value == number {
        true => work.kept(line, format!("limits.{key}")),
        false => work.changed(line, format!("limits.{key} = {value}")),
    }
}

/// The key of `[limits]` that an option becomes, and the most it may be.
fn limit_key(word: &str) -> Option<(&'static str, u64)> {
    Some(match word {
        "max_queued_messages" => ("queued_messages_max", u64::from(u32::MAX)),
        "max_queued_bytes" => ("queued_bytes_max", 1 << 50),
        "max_inflight_messages" => ("maximum_inflight_messages", 65_535),
        "max_packet_size" | "packet_max_size" | "message_size_limit" => {
            ("maximum_packet_size_bytes", 268_435_460)
        }
        "max_keepalive" => ("server_keep_alive_max_seconds", 65_535),
        "memory_limit" => ("memory_max_bytes", 1 << 50),
        "global_max_connections" => ("connections_max", 100_000_000),
        "global_max_clients" => ("sessions_max", u64::from(u32::MAX)),
        _ => return None,
    })
}

fn least_of(key: &str) -> u64 {
    match key {
        "maximum_packet_size_bytes" => 128,
        "memory_max_bytes" => 32 << 20,
        _ => 1,
    }
}

/// `14d`, `2m` (months), `1y`, as mosquitto counts them.
fn seconds_of(text: &str) -> Option<u32> {
    let unit = text.chars().last()?;
    let number: u32 = text.strip_suffix(unit)?.trim().parse().ok()?;
    let day = 86_400;
    let factor = match unit {
        'h' => 3600,
        'd' => day,
        'w' => 7 * day,
        'm' => 30 * day,
        'y' => 365 * day,
        _ => return None,
    };
    number.checked_mul(factor)
}

fn bridge_left_out(work: &mut Work, lines: &[Line]) {
    let Some((connection, options)) = lines.split_first() else {
        return;
    };
    let topics = options.iter().filter(|line| line.word == "topic");
    let topics: Vec<&str> = topics.map(|line| line.value.as_str()).collect();
    let to = options.iter().find(|line| line.word.starts_with("address"));
    let to = to.map_or("nowhere", |line| line.value.as_str());
    work.ignored(
        connection,
        format!(
            "bridges are not there yet: this one goes to {to} with {}",
            topics.join("; ")
        ),
    );
    for line in options {
        work.ignored(line, "of a bridge");
    }
}

/// Options of a bridge.
const BRIDGE: [&str; 16] = [
    "address",
    "addresses",
    "cleansession",
    "clientid",
    "idle_timeout",
    "keepalive_interval",
    "password",
    "restart_timeout",
    "round_robin",
    "start_type",
    "threshold",
    "topic",
    "try_private",
    "username",
    "notifications",
    "notification_topic",
];
/// What others of them begin with.
const BRIDGE_PREFIXES: [&str; 4] = ["bridge_", "local_", "notifications_", "remote_"];
/// Room for what stands before a payload.
const HEAD_BYTES: u64 = 70_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_counted_as_mosquitto_does() {
        for (text, seconds) in [
            ("1h", Some(3600)),
            ("14d", Some(14 * 86_400)),
            ("2w", Some(14 * 86_400)),
            ("1m", Some(30 * 86_400)),
            ("1y", Some(365 * 86_400)),
            ("14", None),
            ("d", None),
            ("999999y", None),
            ("é", None),
        ] {
            assert_eq!(seconds_of(text), seconds, "{text}");
        }
    }

    /// Options of mosquitto 2, but for those that need another one beside them to be told from nonsense.
    const EVERY: &str = "acl_file allow_anonymous allow_duplicate_messages allow_zero_length_clientid auth_opt_x \
        auth_plugin auth_plugin_deny_special_chars auto_id_prefix autosave_interval autosave_on_changes bind_address \
        bind_interface cafile capath certfile check_retain_source ciphers ciphers_tls1.3 clientid_prefixes \
        connection_messages crlfile dhparamfile global_max_clients global_plugin http_dir keyfile log_dest log_facility \
        log_timestamp log_timestamp_format log_type max_connections max_inflight_bytes max_inflight_messages \
        max_keepalive max_packet_size max_qos max_queued_bytes max_queued_messages max_topic_alias memory_limit \
        message_size_limit mount_point password_file per_listener_settings persistence persistence_file \
        persistence_location persistent_client_expiration pid_file plugin plugin_opt_x port protocol psk_file psk_hint \
        queue_qos0_messages require_certificate retain_available set_tcp_nodelay socket_domain sys_interval tls_engine \
        tls_keyform tls_version upgrade_outgoing_qos use_identity_as_username use_subject_as_username \
        use_username_as_clientid user websockets_headers_size websockets_log_level";

    #[test]
    fn no_line_goes_without_a_row_whatever_it_says() {
        for per_listener in ["true", "false"] {
            for value in [
                "",
                "true",
                "false",
                "0",
                "1",
                "-1",
                "x",
                "/nowhere",
                "18446744073709551616",
            ] {
                for word in EVERY.split_whitespace() {
                    let text = format!("per_listener_settings {per_listener}");
                    let words = [
                        text.as_str(),
                        "listener 0 127.0.0.1",
                        &format!("{word} {value}"),
                    ];
                    let lines: Vec<Line> = (1..)
                        .zip(words)
                        .map(|(number, text)| Line::of(number, text.trim()))
                        .collect();
                    let made = translate(&lines, Path::new("m"), Path::new("/nowhere"));
                    let place = "mosquitto.conf:3";
                    let is_there = made.rows.iter().any(|row| row.place == place);
                    assert!(
                        is_there,
                        "{word} {value} ({per_listener}): {:#?}",
                        made.rows
                    );
                    // A file that it names need not be there, but the form is right.
                    let parsed = server::config::parse(&made.toml, Path::new("t"));
                    assert!(parsed.is_ok(), "{word} {value}: {}", parsed.unwrap_err());
                }
            }
        }
    }
}
