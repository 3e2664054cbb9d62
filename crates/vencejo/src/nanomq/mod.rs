//! `vencejo import nanomq`: a nanomq.conf, with the files it includes, taken over.
//!
//! Owns: the command, limits, what is left of other sections. Does not own: listeners (see `doors`), who gets in and what one may
//! do (see `people`), the form of NanoMQ before 0.14 (see `old`). Start reading at [`translate`]. Invariants: no value goes
//! without a row; what cannot be kept never opens more than it did.

mod doors;
mod old;
mod people;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use clap::Args;

use crate::import::hocon::{self, Key, Settings, units};
use crate::import::rows::Outcome;
use crate::import::target::Target;
use crate::import::written::{self, OutputArgs, Taken};
use crate::serve::EX_CONFIG;
use crate::tools::Failure;

/// Take over a nanomq.conf: writes a vencejo.toml, and says what became of each value
#[derive(Args, Clone, Debug)]
pub(crate) struct NanomqArgs {
    /// The file, in HOCON or, as before NanoMQ 0.14, in lines of key=value
    #[arg(value_name = "FILE", default_value = "/etc/nanomq.conf")]
    file: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
    /// Print help
    #[arg(long, short = 'h', short_alias = '?', action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// `vencejo import nanomq ...`.
pub(crate) fn run(args: &NanomqArgs) -> Result<(), Failure> {
    let settings = read(&args.file).map_err(|fault| Failure {
        text: format!("error: {fault}"),
        code: EX_CONFIG,
    })?;
    let taken = translate(settings, &args.file, &args.output.output);
    written::finish(&args.output, &taken)
}

fn read(path: &Path) -> Result<Settings, hocon::Fault> {
    let mut settings = Settings::default();
    match hocon::text_of(path) {
        Ok(text) if old::is_old(&text) => old::read(path, &text, &mut settings)?,
        _ => hocon::read(path, &mut settings)?,
    }
    Ok(settings)
}

/// What is collected on the way.
#[derive(Debug)]
struct Work {
    settings: Settings,
    target: Target,
    files: Vec<(PathBuf, String)>,
    /// Where files are written.
    output: PathBuf,
    /// Where the nanomq.conf is.
    folder: PathBuf,
}

/// Makes a configuration of `settings`, which come from `from`; files that are needed are to be in `output`.
fn translate(settings: Settings, from: &Path, output: &Path) -> Taken {
    let mut work = Work {
        settings,
        target: Target::default(),
        files: Vec::new(),
        output: output.to_owned(),
        folder: from.parent().unwrap_or_else(|| Path::new("")).to_owned(),
    };
    doors::open(&mut work);
    limits(&mut work);
    people::let_in(&mut work);
    bridges(&mut work);
    for (section, why) in SECTIONS {
        work.settings.rest(&Key::of(section), Outcome::Ignored, why);
    }
    Taken {
        toml: work.target.toml("nanomq", &from.display().to_string()),
        rows: work.settings.into_rows(),
        files: work.files,
        is_secret: false,
    }
}

fn limits(work: &mut Work) {
    // From 0.14 to 0.18 they stood one deeper.
    for section in ["mqtt", "mqtt.session"] {
        let section = Key::of(section);
        packets(work, &section.then("max_packet_size"));
        for (name, to, most) in [
            ("max_mqueue_len", "queued_messages_max", u64::from(u32::MAX)),
            ("msq_len", "queued_messages_max", u64::from(u32::MAX)),
            ("max_inflight_window", "maximum_inflight_messages", 65_535),
        ] {
            let at = section.then(name);
            match work
                .settings
                .text(&at)
                .and_then(|text| text.parse::<u64>().ok())
            {
                Some(number) if number > 0 => {
                    work.target.limits.raw(to, number.min(most));
                    work.settings.changed(
                        &at,
                        format!(
                            "limits.{to}, of one session: overflow_policy says what happens then"
                        ),
                    );
                }
                _ => work.settings.ignored(&at, "it is no number that fits"),
            }
        }
        for name in ["keepalive_multiplier", "keepalive_backoff"] {
            let at = section.then(name);
            match work.settings.text(&at) {
                Some("1.5" | "1500") => work.settings.kept(&at, "as always here"),
                _ => work.settings.changed(&at, "a client is gone after one and a half times its Keep Alive, as the standard has it"),
            }
        }
        for (name, why) in [
            (
                "property_size",
                "limits.user_properties_max and properties_bytes_max bound properties",
            ),
            (
                "retry_interval",
                "nothing is sent again while a client is connected, as the standard has it",
            ),
            (
                "qos_duration",
                "nothing is sent again while a client is connected, as the standard has it",
            ),
            (
                "max_awaiting_rel",
                "QoS 2 messages count in limits.receive_maximum",
            ),
            (
                "await_rel_timeout",
                "a QoS 2 message waits for its PUBREL as long as its session lasts",
            ),
            (
                "client_max_packet_size",
                "a client says itself what it takes",
            ),
        ] {
            work.settings
                .rest(&section.then(name), Outcome::Ignored, why);
        }
    }
    let at = Key::of("mqtt.retain_available");
    if let Some(truth) = work.settings.truth(&at) {
        work.target.limits.raw("retain_available", truth);
        work.settings.kept(&at, "limits.retain_available");
    }
}

fn packets(work: &mut Work, at: &Key) {
    let Some(text) = work.settings.text(at).map(str::to_owned) else {
        return;
    };
    // From 0.14 to 0.18 it was a number of KB.
    let is_of_kb = at.holds("session") && text.parse::<u64>().is_ok();
    let text = if is_of_kb { format!("{text}KB") } else { text };
    let Some(bytes) = units::size_bytes(&text) else {
        return work.settings.ignored(at, "it is no size");
    };
    let value = bytes.clamp(128, 268_435_460);
    work.target.limits.raw("maximum_packet_size_bytes", value);
    match value == bytes {
        true => work.settings.kept(at, "limits.maximum_packet_size_bytes"),
        false => work
            .settings
            .changed(at, format!("limits.maximum_packet_size_bytes = {value}")),
    }
}

/// Bridges, each with where it went.
fn bridges(work: &mut Work) {
    for section in ["bridges", "bridge"] {
        for kind in work.settings.names_below(&Key::of(section)) {
            let all = Key::of(section).with(&kind);
            for name in work.settings.names_below(&all) {
                let key = all.with(&name);
                for server in ["server", "connector.server", "address", "host"] {
                    let at = key.then(server);
                    if work.settings.has(&at) {
                        let why =
                            format!("bridges are not there yet: this one, {name:?}, is left out");
                        work.settings.ignored(&at, why);
                    }
                }
                work.settings.rest(&key, Outcome::Ignored, "of a bridge");
            }
        }
    }
}

/// What is left of a section, and why.
const SECTIONS: [(&str, &str); 19] = [
    ("auth", "not needed here"),
    ("authorization", "not needed here"),
    ("bridges", "bridges are not there yet"),
    ("bridge", "bridges are not there yet"),
    ("aws_bridge", "bridges are not there yet"),
    ("blf", "there is nothing like it here"),
    ("exchange_client", "there is nothing like it here"),
    ("gateway", "MQTT is all that is spoken"),
    ("http_server", "there is no HTTP API yet"),
    (
        "listeners",
        "the TLS and the sockets here have nothing to set like it",
    ),
    (
        "log",
        "the log goes to standard error, for whoever started the server to keep",
    ),
    ("parquet", "there is nothing like it here"),
    ("plugin", "plugins are not asked"),
    ("preset_sessions", "clients make their sessions"),
    (
        "rules",
        "there is no engine of rules: messages go to clients only",
    ),
    (
        "sqlite",
        "[storage]: what is acknowledged is on the disk already",
    ),
    (
        "system",
        "shards are threads that serve; whoever starts the server knows its process",
    ),
    ("webhook", "there is nothing like it here"),
    ("web", "there is nothing like it here"),
];
