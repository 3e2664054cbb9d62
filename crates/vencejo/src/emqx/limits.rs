//! The limits of an emqx.conf, and what else holds for the whole broker.
//!
//! Owns: [`take_over`]: `mqtt`, `retainer`, `flapping_detect`, `sys_topics`. Does not own: limits of listeners (see `doors`). Start
//! reading at [`take_over`]. Invariant: a limit that somebody relies on stays one, or is said not to.

use super::Work;
use crate::import::hocon::{Key, units};
use crate::import::rows::Outcome;

/// Takes over what there is.
pub(super) fn take_over(work: &mut Work) {
    for (name, to, least, most) in NUMBERS {
        number(work, &Key::of("mqtt").then(name), to, least, most);
    }
    for (name, to) in TRUTHS {
        let at = Key::of("mqtt").then(name);
        if let Some(truth) = work.settings.truth(&at) {
            work.target.limits.raw(to, truth);
            work.settings.kept(&at, format!("limits.{to}"));
        }
    }
    sessions(work);
    times(work);
    habits(work);
    retainer(work);
    flapping(work);
    shared(work);
    others(work);
}

/// A number with its key in `[limits]`. `infinity` is our default, which is a limit.
fn number(work: &mut Work, at: &Key, to: &'static str, least: u64, most: u64) {
    let Some(text) = work.settings.text(at).map(str::to_owned) else {
        return;
    };
    if ["infinity", "0"].contains(&text.as_str()) && least > 0 {
        let why = format!("limits.{to}: the default, which is a limit");
        return work.settings.changed(at, why);
    }
    let Some(number) = units::size_bytes(&text) else {
        return work.settings.ignored(at, "it is no number");
    };
    let value = number.clamp(least, most);
    work.target.limits.raw(to, value);
    match value == number {
        true => work.settings.kept(at, format!("limits.{to}")),
        false => work.settings.changed(at, format!("limits.{to} = {value}")),
    }
}

fn sessions(work: &mut Work) {
    let at = Key::of("mqtt.max_inflight");
    if let Some(number @ 1..=65_535) = work
        .settings
        .text(&at)
        .and_then(|text| text.parse::<u64>().ok())
    {
        work.target.limits.raw("maximum_inflight_messages", number);
        work.target.limits.raw("receive_maximum", number);
        let why =
            "limits.maximum_inflight_messages, and receive_maximum, which EMQX announces by it";
        work.settings.kept(&at, why);
    }
    let at = Key::of("mqtt.max_mqueue_len");
    match work.settings.text(&at) {
        Some("infinity" | "0") => {
            work.settings.changed(
                &at,
                "limits.queued_messages_max: the default, which is a limit",
            );
        }
        Some(text) => match text.parse::<u64>() {
            Ok(number) if number <= u64::from(u32::MAX) => {
                work.target.limits.raw("queued_messages_max", number);
                work.target.limits.text("overflow_policy", "drop-oldest");
                work.settings.kept(
                    &at,
                    "limits.queued_messages_max; the oldest go, as with EMQX: overflow_policy",
                );
            }
            _ => work.settings.ignored(&at, "it is no number that fits"),
        },
        None => {}
    }
    let at = Key::of("mqtt.session_expiry_interval");
    match seconds(work, &at) {
        Some(seconds) if seconds <= u64::from(u32::MAX) => {
            work.target.limits.raw("session_expiry_3x_seconds", seconds);
            work.settings.kept(
                &at,
                "limits.session_expiry_3x_seconds: clients of 5.0 say it themselves",
            );
        }
        Some(_) => work
            .settings
            .changed(&at, "limits.session_expiry_3x_seconds: the default"),
        None => {}
    }
}

fn seconds(work: &mut Work, at: &Key) -> Option<u64> {
    let text = work.settings.text(at)?;
    let seconds = units::duration_seconds(text, 1);
    if seconds.is_none() {
        work.settings.ignored(at, "it is no time");
    }
    seconds
}

fn times(work: &mut Work) {
    let at = Key::of("mqtt.idle_timeout");
    if let Some(text) = work.settings.text(&at).map(str::to_owned) {
        match units::duration_ms(&text, 1) {
            Some(ms @ 100..=3_600_000) => {
                work.target
                    .limits
                    .text("connect_timeout", format!("{ms}ms"));
                work.settings.kept(&at, "limits.connect_timeout");
            }
            _ => work
                .settings
                .changed(&at, "limits.connect_timeout: the default"),
        }
    }
    let at = Key::of("mqtt.server_keepalive");
    match work.settings.text(&at) {
        Some("disabled") => work.settings.kept(&at, "clients say it themselves"),
        Some(text) => match units::duration_seconds(text, 1000) {
            Some(seconds @ 1..=65_535) => {
                work.target
                    .limits
                    .raw("server_keep_alive_max_seconds", seconds);
                let why = "limits.server_keep_alive_max_seconds: who says less keeps that";
                work.settings.changed(&at, why);
            }
            _ => work.settings.ignored(&at, "it is no time that fits"),
        },
        None => {}
    }
    for (name, usual) in [
        ("keepalive_multiplier", "1.5"),
        ("keepalive_backoff", "0.75"),
    ] {
        let at = Key::of("mqtt").then(name);
        match work.settings.text(&at) {
            Some(text) if text == usual => work.settings.kept(&at, "as always here"),
            _ => work.settings.changed(&at, "a client is gone after one and a half times its Keep Alive, as the standard has it"),
        }
    }
}

/// What is as it is here.
fn habits(work: &mut Work) {
    for (name, is_as_here, otherwise) in [
        (
            "upgrade_qos",
            false,
            "a message is delivered at the lower of both QoS, as the standard has it",
        ),
        (
            "mqueue_store_qos0",
            false,
            "QoS 0 messages do not wait for clients that are away",
        ),
        (
            "ignore_loop_deliver",
            false,
            "only No Local of 5.0 keeps a client from getting what it publishes",
        ),
        (
            "strict_mode",
            true,
            "what breaks the standard is refused, always",
        ),
        (
            "exclusive_subscription",
            false,
            "$exclusive/ is a topic like any other",
        ),
        ("peer_cert_as_clientid", false, "not needed here"),
    ] {
        let at = Key::of("mqtt").then(name);
        let text = work.settings.text(&at);
        let is_off = text == Some("disabled");
        match work.settings.truth(&at).or_else(|| is_off.then_some(false)) {
            Some(truth) if truth == is_as_here => work.settings.kept(&at, "as always here"),
            Some(_) => work.settings.ignored(&at, otherwise),
            None => {}
        }
    }
    let at = Key::of("mqtt.mqueue_priorities");
    if work.settings.text(&at) == Some("disabled") {
        work.settings.kept(&at, "as always here");
    }
    let at = Key::of("mqtt.response_information");
    if let Some(text) = work.settings.text(&at).map(str::to_owned) {
        work.target.top.text("response_topic_prefix", text);
        work.settings.kept(&at, "response_topic_prefix");
    }
    for (name, why) in NOT_HERE {
        work.settings
            .rest(&Key::of("mqtt").then(name), Outcome::Ignored, why);
    }
}

fn retainer(work: &mut Work) {
    let at = Key::of("retainer.enable");
    match work.settings.truth(&at) {
        Some(false) => {
            work.target.limits.raw("retain_available", false);
            work.settings.kept(&at, "limits.retain_available = false");
        }
        Some(true) => work.settings.kept(&at, "limits.retain_available"),
        None => {}
    }
    let at = Key::of("retainer.msg_expiry_interval");
    match seconds(work, &at) {
        Some(0) => work
            .settings
            .kept(&at, "they stay: limits.retained_age_max is not said"),
        Some(seconds) if seconds <= u64::from(u32::MAX) => {
            work.target.limits.raw("retained_age_max", seconds);
            work.settings.kept(&at, "limits.retained_age_max");
        }
        Some(_) => work
            .settings
            .changed(&at, "they stay: limits.retained_age_max is not said"),
        None => {}
    }
    let at = Key::of("retainer.backend.max_retained_messages");
    number(work, &at, "retained_messages_max", 1, u64::from(u32::MAX));
    let at = Key::of("retainer.backend.storage_type");
    match work.settings.text(&at) {
        Some("disc") => work
            .settings
            .kept(&at, "[storage]: on the disk before it is acknowledged"),
        _ => work.settings.changed(
            &at,
            "[storage]: on the disk like everything else, unless levels says otherwise",
        ),
    }
    let at = Key::of("retainer.stop_publish_clear_msg");
    match work.settings.truth(&at) {
        Some(false) => work.settings.kept(
            &at,
            "who clears a topic is heard by its subscribers, as the standard has it",
        ),
        _ => work.settings.ignored(
            &at,
            "who clears a topic is heard by its subscribers, as the standard has it",
        ),
    }
    for (name, why) in [
        (
            "max_payload_size",
            "limits.maximum_packet_size_bytes is for every message",
        ),
        ("msg_clear_interval", "what is too old goes by itself"),
        ("flow_control", "limits.retained_replay_per_turn"),
        ("delivery_rate", "limits.retained_replay_per_turn"),
    ] {
        work.settings
            .rest(&Key::of("retainer").then(name), Outcome::Ignored, why);
    }
}

fn flapping(work: &mut Work) {
    let section = Key::of("flapping_detect");
    let enable = section.then("enable");
    match work.settings.truth(&enable) {
        Some(false) => {
            work.target.limits.raw("flapping_max", 0);
            work.settings.kept(&enable, "limits.flapping_max = 0");
            return work
                .settings
                .rest(&section, Outcome::Ignored, "it is not enabled");
        }
        Some(true) => work.settings.kept(&enable, "limits.flapping_max"),
        None => {}
    }
    number(
        work,
        &section.then("max_count"),
        "flapping_max",
        1,
        u64::from(u32::MAX),
    );
    for (name, to) in [
        ("window_time", "flapping_window"),
        ("ban_time", "flapping_ban"),
    ] {
        let at = section.then(name);
        match seconds(work, &at) {
            Some(seconds @ 1..=2_592_000) => {
                work.target.limits.text(to, format!("{seconds}s"));
                work.settings.kept(&at, format!("limits.{to}"));
            }
            Some(_) => work
                .settings
                .changed(&at, format!("limits.{to}: the default")),
            None => {}
        }
    }
}

/// How the member of a shared subscription is chosen.
fn shared(work: &mut Work) {
    for at in [
        "mqtt.shared_subscription_strategy",
        "broker.shared_subscription_strategy",
    ] {
        let at = Key::of(at);
        let Some(text) = work.settings.text(&at).map(str::to_owned) else {
            continue;
        };
        let (to, is_same) = match text.as_str() {
            "round_robin" | "round_robin_per_group" => ("round-robin", true),
            "sticky" => ("sticky", true),
            "hash_topic" => ("hash-topic", true),
            "hash_clientid" | "hash" => ("hash-client-id", true),
            _ => ("round-robin", false),
        };
        work.target.top.text("shared_strategy", to);
        let why = format!("shared_strategy = \"{to}\"");
        match is_same {
            true => work.settings.kept(&at, why),
            false => work.settings.changed(&at, why),
        }
    }
}

fn others(work: &mut Work) {
    for at in ["sys_topics.sys_msg_interval", "broker.sys_msg_interval"] {
        let at = Key::of(at);
        let text = work.settings.text(&at).map(str::to_owned);
        match text.as_deref() {
            Some("disabled") => {
                work.target.top.raw("sys_interval", 0);
                work.settings.kept(&at, "sys_interval = 0");
            }
            Some(_) => {
                if let Some(seconds) =
                    seconds(work, &at).filter(|seconds| *seconds <= u64::from(u32::MAX))
                {
                    work.target.top.raw("sys_interval", seconds);
                    work.settings.kept(&at, "sys_interval");
                }
            }
            None => {}
        }
    }
    let why = "$SYS/broker has the names of mosquitto here, not those of EMQX";
    work.settings
        .rest(&Key::of("sys_topics"), Outcome::Ignored, why);
    let at = Key::of("durable_sessions.enable");
    match work.settings.truth(&at) {
        Some(true) => work
            .settings
            .kept(&at, "[storage]: on the disk before it is acknowledged"),
        Some(false) => work.settings.changed(
            &at,
            "[storage]: sessions are on the disk, unless level = \"memory\"",
        ),
        None => {}
    }
    let why = "[storage] says how sessions are kept";
    work.settings
        .rest(&Key::of("durable_sessions"), Outcome::Ignored, why);
    let at = Key::of("node.data_dir");
    let data = work.settings.text(&at).map(std::path::PathBuf::from);
    if let Some(data) = data.filter(|data| data.is_absolute()) {
        let folder = data.join("vencejo");
        work.target.storage.text("data", folder.to_string_lossy());
        let why = format!(
            "storage.data = {:?}, beside what EMQX left there",
            folder.display().to_string()
        );
        work.settings.changed(&at, why);
    }
}

/// Keys of `mqtt` of which nothing is left, and why.
const NOT_HERE: [(&str, &str); 7] = [
    ("mqueue_priorities", "messages wait in their order"),
    ("mqueue_default_priority", "messages wait in their order"),
    (
        "retry_interval",
        "nothing is sent again while a client is connected, as the standard has it",
    ),
    (
        "await_rel_timeout",
        "a QoS 2 message waits for its PUBREL as long as its session lasts",
    ),
    (
        "max_awaiting_rel",
        "QoS 2 messages count in limits.receive_maximum",
    ),
    (
        "client_attrs_init",
        "attributes come with the proof of a client: see docs/users.md",
    ),
    (
        "clientid_override",
        "a client is called as it says, or as its user",
    ),
];
/// Keys of `mqtt` that are numbers, with those of `[limits]`, the least and the most.
const NUMBERS: [(&str, &str, u64, u64); 6] = [
    (
        "max_packet_size",
        "maximum_packet_size_bytes",
        128,
        268_435_460,
    ),
    ("max_clientid_len", "client_id_length_max", 1, 65_535),
    ("max_topic_levels", "topic_levels_max", 1, 65_535),
    ("max_qos_allowed", "maximum_qos", 0, 2),
    ("max_topic_alias", "topic_alias_maximum", 0, 65_535),
    (
        "max_subscriptions",
        "subscriptions_per_session_max",
        1,
        4_294_967_295,
    ),
];
/// The same of those that are true or false.
const TRUTHS: [(&str, &str); 3] = [
    ("retain_available", "retain_available"),
    ("wildcard_subscription", "wildcard_subscription_available"),
    ("shared_subscription", "shared_subscription_available"),
];
