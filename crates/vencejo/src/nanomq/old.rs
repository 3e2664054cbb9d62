//! A nanomq.conf of lines with `key=value`, as NanoMQ had it before 0.14.
//!
//! Owns: [`read`]: such lines under the keys of today. Does not own: what these mean (see the parent). Start reading at [`read`].
//! Invariant: a row shows the line as it is written.

use std::path::Path;

use crate::import::hocon::{self, Fault, Key, Settings, Value};

/// Whether a file has this form: no objects but in rules, and a key that only this form has.
pub(super) fn is_old(text: &str) -> bool {
    let mut lines = lines(text).map(|(_, line)| line);
    let has_objects = lines.clone().any(|line| {
        let is_rule = line.starts_with("acl.rule.") || line.starts_with("web.hook.rule.");
        !is_rule && (line.ends_with('{') || line.starts_with('}'))
    });
    let is_of_old = |line: &str| {
        let key = line.split_once('=').map_or("", |(key, _)| key.trim());
        ONLY_OLD.contains(&key)
            || [
                "acl.rule.",
                "auth.http.",
                "web.hook.",
                "bridge.mqtt.",
                "websocket.",
                "tls.",
            ]
            .iter()
            .any(|of| key.starts_with(of))
            || key.starts_with("auth.") && key.ends_with(".login")
    };
    !has_objects && lines.any(is_of_old)
}

fn lines(text: &str) -> impl Iterator<Item = (usize, &str)> + Clone {
    let numbered = (1..).zip(text.lines().map(str::trim));
    numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'))
}

/// Reads `text` of the file at `path`.
/// # Errors
/// A line has no `=`, or a rule is not made as rules are.
pub(super) fn read(path: &Path, text: &str, settings: &mut Settings) -> Result<(), Fault> {
    let name = path.file_name().unwrap_or_default().display().to_string();
    let mut logins: Vec<(String, String)> = Vec::new();
    for (_, line) in lines(text) {
        if let Some((key, value)) = line.split_once('=')
            && let Some(user) = key
                .trim()
                .strip_prefix("auth.")
                .and_then(|rest| rest.strip_suffix(".login"))
        {
            logins.push((user.to_owned(), unquoted(value)));
        }
    }
    for (number, line) in lines(text) {
        let place = format!("{name}:{number}");
        let Some((written, value)) = line.split_once('=') else {
            return Err(Fault::of(format!("{place}: wanted key=value: {line}")));
        };
        let (written, value) = (written.trim(), unquoted(value));
        let shown = Key::of(written);
        if let Some(rule) = written.strip_prefix("acl.rule.") {
            let key = Key::of("auth.acl.rules").then(rule);
            hocon::read_line(path, number, &value, &key, settings)?;
            continue;
        }
        if let Some(user) = written.strip_prefix("auth.") {
            if user.ends_with(".login") {
                settings.set_as(shown.clone(), &shown, place, Value::Text(value));
                settings.kept(&shown, "password_file");
                continue;
            }
            let login = user.strip_suffix(".password").and_then(|user| {
                let login = logins.iter().find(|(known, _)| known == user);
                login.map(|(_, login)| login.clone())
            });
            if let Some(login) = login {
                let key = Key::of("auth.password").with(login);
                settings.set_as(key, &shown, place, Value::Text(value));
                continue;
            }
        }
        let (key, value) = today(written, value);
        // What turns WebSocket off turns it off with TLS, too.
        if written == "websocket.enable" && value != "true" {
            let twin = Key::of("listeners.wss.enable");
            settings.set_as(twin, &shown, place.clone(), Value::Text(value.clone()));
        }
        settings.set_as(key, &shown, place, Value::Text(value));
    }
    Ok(())
}

fn unquoted(value: &str) -> String {
    let value = value.trim();
    let inner = value
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    inner.unwrap_or(value).to_owned()
}

/// The key of today, and its value.
fn today(written: &str, value: String) -> (Key, String) {
    let same = |key: &str| Key::of(key);
    match written {
        "url" => (same("listeners.tcp.bind"), value),
        "websocket.url" => (same("listeners.ws.bind"), value),
        "websocket.enable" => (same("listeners.ws.enable"), value),
        "websocket.tls_url" => (same("listeners.wss.bind"), value),
        "tls.url" => (same("listeners.ssl.bind"), value),
        "allow_anonymous" => (same("auth.allow_anonymous"), value),
        "acl_enable" => (same("auth.acl.enable"), value),
        "acl_nomatch" => (same("auth.no_match"), value),
        "acl_deny_action" => (same("auth.deny_action"), value),
        "enable_acl_cache" => (same("auth.cache.enable"), value),
        "acl_cache_max_size" => (same("auth.cache.max_size"), value),
        "acl_cache_ttl" => (same("auth.cache.ttl"), value),
        // Of KB.
        "max_packet_size" => (same("mqtt.max_packet_size"), format!("{value}KB")),
        "msq_len" => (same("mqtt.max_mqueue_len"), value),
        "qos_duration" => (same("mqtt.retry_interval"), value),
        "client_max_packet_size" | "property_size" | "keepalive_backoff" => {
            (same("mqtt").then(written), value)
        }
        "daemon" | "num_taskq_thread" | "max_taskq_thread" | "parallel" | "enable_ipc_internal" => {
            (same("system").then(written), value)
        }
        _ => {
            for (old, new) in [
                ("tls.", "listeners.ssl."),
                ("auth.http.", "auth.http_auth."),
                ("bridge.", "bridges."),
            ] {
                if let Some(rest) = written.strip_prefix(old) {
                    return (Key::of(&format!("{new}{rest}")), value);
                }
            }
            (same(written), value)
        }
    }
}

/// Keys that stand alone in this form only.
const ONLY_OLD: [&str; 8] = [
    "url",
    "daemon",
    "msq_len",
    "qos_duration",
    "num_taskq_thread",
    "allow_anonymous",
    "acl_enable",
    "acl_nomatch",
];
