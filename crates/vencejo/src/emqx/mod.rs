//! `vencejo import emqx`: an emqx.conf of EMQX 5, with the files it names, taken over.
//!
//! Owns: the command, paths as EMQX means them, [`Work`]. Does not own: listeners (`doors`), limits (`limits`), who gets in
//! (`people` and what it asks), what one may do (`rights`). Start reading at [`translate`]. Invariants: no value goes without a
//! row; what cannot be kept never opens more than it did.

pub(crate) mod acl;
mod bootstrap;
mod directories;
mod doors;
mod limits;
mod people;
mod rights;
mod services;
mod terms;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use clap::Args;

use crate::import::hocon::{self, Key, Settings};
use crate::import::rows::Outcome;
use crate::import::target::Target;
use crate::import::written::{self, OutputArgs, Taken};
use crate::serve::EX_CONFIG;
use crate::tools::Failure;
pub(crate) use bootstrap::is_name;
use doors::Door;
pub(crate) use services::is_here;

/// Take over an emqx.conf of EMQX 5: writes a vencejo.toml, and says what became of each value
#[derive(Args, Clone, Debug)]
pub(crate) struct EmqxArgs {
    /// The file; of several the later ones count, as with EMQX: base.hocon, data/configs/cluster.hocon, emqx.conf
    #[arg(value_name = "FILE", default_value = "/etc/emqx/emqx.conf")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
    /// Print help
    #[arg(long, short = 'h', short_alias = '?', action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// `vencejo import emqx ...`.
pub(crate) fn run(args: &EmqxArgs) -> Result<(), Failure> {
    let mut settings = Settings::default();
    for file in &args.files {
        hocon::read(file, &mut settings).map_err(|fault| Failure {
            text: format!("error: {fault}"),
            code: EX_CONFIG,
        })?;
    }
    let taken = translate(settings, &args.files, &args.output.output);
    written::finish(&args.output, &taken)
}

/// What is collected on the way.
#[derive(Debug)]
struct Work {
    settings: Settings,
    target: Target,
    doors: Vec<Door>,
    /// Secrets that have files of their own.
    files: Vec<(PathBuf, String)>,
    is_secret: bool,
    /// Whether a chain has the link "passwords".
    has_passwords: bool,
    /// Users that may do everything.
    superusers: Vec<String>,
    /// Whether somebody who is asked says who may do everything.
    has_administrators: bool,
    /// Where the emqx.conf is.
    etc: PathBuf,
    data: Option<PathBuf>,
    /// Where files are written.
    output: PathBuf,
}

/// Makes a configuration of `settings`, which come from `from`; files that are needed are to be in `output`.
fn translate(settings: Settings, from: &[PathBuf], output: &Path) -> Taken {
    let etc = from.last().and_then(|file| file.parent());
    let data = settings.text(&Key::of("node.data_dir")).map(PathBuf::from);
    let mut work = Work {
        settings,
        target: Target::default(),
        doors: Vec::new(),
        files: Vec::new(),
        is_secret: false,
        has_passwords: false,
        superusers: Vec::new(),
        has_administrators: false,
        etc: etc.unwrap_or_else(|| Path::new("")).to_owned(),
        data: data.filter(|data| data.is_absolute()),
        output: output.to_owned(),
    };
    doors::open(&mut work);
    limits::take_over(&mut work);
    let chain = people::let_in(&mut work);
    rights::take_over(&mut work, &chain);
    for (section, why) in SECTIONS {
        work.settings.rest(&Key::of(section), Outcome::Ignored, why);
    }
    for (path, _) in &work.files {
        let why = "is written, for its owner only: what it holds stood in the configuration";
        work.settings
            .note(path.display().to_string(), Outcome::Changed, why);
    }
    let from: Vec<String> = from.iter().map(|file| file.display().to_string()).collect();
    Taken {
        toml: work.target.toml("emqx", &from.join(", ")),
        rows: work.settings.into_rows(),
        files: work.files,
        is_secret: work.is_secret,
    }
}

impl Work {
    /// A path as EMQX means it.
    fn path(&self, written: &str) -> Result<PathBuf, String> {
        let written = written.trim();
        if written.starts_with("-----BEGIN") {
            return Err("it stands in the configuration itself: put it into a file".to_owned());
        }
        let path = match written.strip_prefix("${EMQX_ETC_DIR}") {
            Some(rest) => self.etc.join(rest.trim_start_matches('/')),
            None => match written.strip_prefix("${EMQX_DATA_DIR}") {
                Some(rest) => {
                    let data = self
                        .data
                        .as_ref()
                        .ok_or("node.data_dir says nowhere where that is")?;
                    data.join(rest.trim_start_matches('/'))
                }
                // With EMQX etc is the folder of its configuration, wherever that is.
                None => match written.strip_prefix("etc/") {
                    Some(rest) => self.etc.join(rest),
                    None => self.etc.join(written),
                },
            },
        };
        match path.to_string_lossy().contains("${") {
            true => Err(format!("what {written} stands for is not known here")),
            false => Ok(std::path::absolute(&path).unwrap_or(path)),
        }
    }

    /// A file for a secret, beside the vencejo.toml; returns its path.
    fn file(&mut self, name: &str, text: impl Into<String>) -> String {
        let path = self.output.join(name);
        let path = std::path::absolute(&path).unwrap_or(path);
        let shown = path.to_string_lossy().into_owned();
        self.files.push((path, text.into()));
        shown
    }
}

/// What is left of a section, and why.
const SECTIONS: [(&str, &str); 36] = [
    (
        "actions",
        "there is no engine of rules: messages go to clients only",
    ),
    (
        "sources",
        "there is no engine of rules: messages come from clients only",
    ),
    ("alarm", "alarms are $SYS/broker/alarms"),
    ("api_key", "there is no HTTP API yet"),
    ("authentication", "not needed here"),
    ("authorization", "not needed here"),
    ("auto_subscribe", "clients subscribe themselves"),
    ("bridges", "bridges are not there yet"),
    ("broker", "there is nothing like it here"),
    ("cluster", "there is one node"),
    ("cluster_rpc", "there is one node"),
    (
        "conn_congestion",
        "see $SYS/broker/alarms and `vencejo losses`",
    ),
    (
        "connectors",
        "there is no engine of rules; bridges are not there yet",
    ),
    ("dashboard", "there is no page and no HTTP API yet"),
    ("delayed", "messages are published when they come"),
    ("exhook", "plugins are not asked"),
    ("file_transfer", "there is nothing like it here"),
    ("force_gc", "there is no garbage to collect"),
    (
        "force_shutdown",
        "limits.queued_bytes_max and memory_max_bytes bound what a client can hold",
    ),
    ("gateway", "MQTT is all that is spoken"),
    ("license", "there is none to be had"),
    (
        "log",
        "the log goes to standard error, for whoever started the server to keep",
    ),
    ("modules", "there is nothing like it here"),
    ("node", "there is one node, whose process is its own"),
    ("opentelemetry", "$SYS is what is measured"),
    (
        "overload_protection",
        "limits.memory_max_bytes and rates protect it, always",
    ),
    ("plugins", "plugins are not asked"),
    ("prometheus", "$SYS is what is measured"),
    (
        "psk_authentication",
        "TLS is there with certificates only, not with PSK",
    ),
    ("rewrite", "topics stay as they are"),
    ("rpc", "there is one node"),
    (
        "rule_engine",
        "there is no engine of rules: messages go to clients only",
    ),
    ("stats", "$SYS is always there"),
    ("sysmon", "`vencejo doctor` looks at the machine"),
    ("telemetry", "nothing is sent to anybody"),
    (
        "zones",
        "limits are those of all listeners: what a zone says is not taken over",
    ),
];
