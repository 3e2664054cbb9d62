//! `vencejo config`: what a configuration comes to, what is wrong with it, what a key means.
//!
//! Owns: its commands and what they print. Does not own: keys, values and their origin (see `server::config`).
//! Start reading at [`run`]. Invariant: exit code 0 where all is well, 1 where `diff` finds something or a file is there
//! already, 78 where a configuration is wrong.

pub(crate) mod sources;

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};
use server::config::keys::{self, Key, Kind};
use server::config::{self, Layers, Origin, Value};

use crate::serve::{self, EX_CONFIG};
use crate::tools::Failure;
use sources::{SourceArgs, wrong};

/// Check, show, explain, compare and begin a configuration
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
    /// Print help
    #[arg(long, short = 'h', short_alias = '?', action = clap::ArgAction::Help, global = true)]
    help: Option<bool>,
}

#[derive(Subcommand, Clone, Debug)]
enum ConfigCommand {
    /// Say everything that is wrong; exit code 78 if something is
    Check(Box<CheckArgs>),
    /// Print every value that counts
    Show(Box<ShowArgs>),
    /// Say what a key means, its range, its default, and whether a reload changes it
    Explain(Box<ExplainArgs>),
    /// Write a first file, with every key and its default; never over one that is there
    Init(InitArgs),
    /// Print what differs from the defaults, or between two files; exit code 1 if something does
    Diff(Box<DiffArgs>),
    /// Print a JSON Schema of the file, for editors
    Schema,
}

#[derive(Args, Clone, Debug)]
struct CheckArgs {
    #[command(flatten)]
    sources: SourceArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Clone, Debug)]
struct ShowArgs {
    /// Only keys that begin with this
    #[arg(value_name = "KEY")]
    key: Option<String>,
    #[command(flatten)]
    sources: SourceArgs,
    /// Print where each value comes from
    #[arg(long)]
    origin: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Clone, Debug)]
struct ExplainArgs {
    /// A key like limits.receive_maximum, its last word, or a table
    #[arg(value_name = "KEY")]
    key: String,
    #[command(flatten)]
    sources: SourceArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Clone, Debug)]
struct InitArgs {
    /// The file
    #[arg(value_name = "FILE", default_value = "vencejo.toml")]
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Args, Clone, Debug)]
struct DiffArgs {
    /// Two files to compare; one is compared with the defaults, and none is what -c names
    #[arg(value_name = "FILE", num_args = 0..=2)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    sources: SourceArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// `vencejo config ...`.
pub(crate) fn run(args: &ConfigArgs) -> Result<(), Failure> {
    match &args.command {
        ConfigCommand::Check(args) => check(args),
        ConfigCommand::Show(args) => show(args),
        ConfigCommand::Explain(args) => explain(args),
        ConfigCommand::Init(args) => init(&args.file, args.json),
        ConfigCommand::Diff(args) => diff(args),
        ConfigCommand::Schema => {
            print_json(&config::schema());
            Ok(())
        }
    }
}

fn check(args: &CheckArgs) -> Result<(), Failure> {
    let problems: Vec<String> = match args.sources.layers() {
        Err(failure) if failure.code == EX_CONFIG => vec![failure.text],
        Err(failure) => return Err(failure),
        Ok(layers) => {
            let problems = layers.problems();
            match layers.check() {
                Ok(config) if problems.is_empty() => server::check_files(&config),
                _ => problems.iter().map(ToString::to_string).collect(),
            }
        }
    };
    let is_right = problems.is_empty();
    if args.json {
        print_json(&json!({ "valid": is_right, "problems": problems }));
    } else if is_right {
        let of = args.sources.file.config.as_ref();
        let of = of.map_or_else(String::new, |path| format!("{}: ", path.display()));
        serve::print(&format!("{of}the configuration is right\n"));
    }
    if is_right {
        return Ok(());
    }
    Err(Failure {
        text: if args.json {
            String::new()
        } else {
            problems.join("\n\n")
        },
        code: EX_CONFIG,
    })
}

fn show(args: &ShowArgs) -> Result<(), Failure> {
    let values = args.sources.layers()?.values().map_err(wrong)?;
    let wanted = |value: &&Value| match args.key.as_deref() {
        Some(key) => {
            value.path == key
                || value
                    .path
                    .starts_with(&format!("{}.", key.trim_end_matches('.')))
        }
        None => true,
    };
    let values: Vec<&Value> = values.iter().filter(wanted).collect();
    if let (true, Some(key)) = (values.is_empty(), &args.key) {
        key_at(key)?;
    }
    if args.json {
        print_json(&values.into_iter().map(json_of).collect());
        return Ok(());
    }
    let line = |value: &Value| format!("{} = {}", value.path, value.shown);
    let width = values.iter().map(|value| line(value).chars().count());
    let width = width.filter(|width| *width <= 60).max().unwrap_or(0);
    let mut text = String::new();
    for value in values {
        if args.origin {
            // Writing to a text cannot fail.
            writeln!(text, "{:<width$}  # {}", line(value), value.origin).ok();
        } else {
            writeln!(text, "{}", line(value)).ok();
        }
    }
    serve::print(&text);
    Ok(())
}

fn explain(args: &ExplainArgs) -> Result<(), Failure> {
    let mut found = key_at(&args.key)?;
    // What is said for all goes before what one listener may say.
    found.sort_by_key(|key| key.path.starts_with("listeners."));
    let values = args.sources.layers()?.values().map_err(wrong)?;
    if args.json {
        print_json(
            &found
                .into_iter()
                .map(|key| json_of_key(key, &values))
                .collect(),
        );
        return Ok(());
    }
    let texts: Vec<String> = found
        .into_iter()
        .map(|key| explained(key, &values))
        .collect();
    serve::print(&texts.join("\n"));
    Ok(())
}

fn explained(key: &Key, values: &[Value]) -> String {
    let mut text = format!("{}\n  {}\n\n", key.path, key.meaning);
    let mut line = |name: &str, what: &str| {
        // Writing to a text cannot fail.
        writeln!(text, "  {name:<12}{what}").ok();
    };
    line("form", &key.kind.words().replace('`', ""));
    if let Some(default) = &key.default {
        line("default", default);
    }
    let reload = match key.is_reloaded() {
        true => "SIGHUP takes a change over",
        false => "a change counts from the next start",
    };
    line("reload", reload);
    if let Some([unit, cost, refused]) = key.limit() {
        for (name, what) in [("of what", unit), ("at worst", cost), ("one more", refused)] {
            if what != "-" {
                line(name, &what.replace('`', ""));
            }
        }
    }
    if !key.path.starts_with("listeners.") && key.kind != Kind::Map {
        line("environment", &key.variable());
    }
    let mut now = values
        .iter()
        .filter(|value| is_of(value, key) && value.origin != Origin::Default);
    if let Some(value) = now.next() {
        line("now", &format!("{} ({})", value.shown, value.origin));
    }
    if matches!(key.kind, Kind::Table | Kind::Tables) {
        let below = format!("{}.", key.path);
        let inside = keys::all()
            .iter()
            .filter_map(|key| key.path.strip_prefix(&below));
        let inside: Vec<&str> = inside.filter(|name| !name.contains('.')).collect();
        line("keys", &inside.join(", "));
    }
    text
}

fn is_of(value: &Value, key: &Key) -> bool {
    keys::find(&value.path).is_some_and(|of| of.path == key.path)
}

/// The keys that a person means by a path, or by the last word of one.
fn key_at(text: &str) -> Result<Vec<&'static Key>, Failure> {
    if let Some(key) = keys::find(text) {
        return Ok(vec![key]);
    }
    let last = |key: &&Key| key.path.rsplit('.').next() == Some(text);
    let found: Vec<&Key> = keys::all().iter().filter(last).collect();
    if !found.is_empty() {
        return Ok(found);
    }
    let hint = keys::nearest(text);
    let hint = hint.map_or_else(String::new, |near| format!(", did you mean {near}?"));
    Err(Failure::new(format!("error: there is no key {text}{hint}")))
}

fn init(path: &Path, as_json: bool) -> Result<(), Failure> {
    let opened = OpenOptions::new().write(true).create_new(true).open(path);
    let written = opened.and_then(|mut file| {
        file.write_all(config::first_file().as_bytes())?;
        file.sync_all()
    });
    let path = path.display();
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::new(format!("error: {path} is there already")),
        _ => Failure::new(format!("error: {path}: {error}")),
    })?;
    if as_json {
        print_json(&json!({ "file": path.to_string(), "outcome": "written" }));
        return Ok(());
    }
    let program = serve::program();
    serve::print(&format!(
        "{path} is written; {program} serve -c {path} serves with it\n"
    ));
    Ok(())
}

fn diff(args: &DiffArgs) -> Result<(), Failure> {
    let of_file = |path: &PathBuf| -> Result<Vec<Value>, Failure> {
        let mut layers = Layers::new();
        layers.file(path).map_err(wrong)?;
        layers.values().map_err(wrong)
    };
    let (before, after) = match args.files.as_slice() {
        [] => (Vec::new(), args.sources.layers()?.values().map_err(wrong)?),
        [file] => (Vec::new(), of_file(file)?),
        [before, after, ..] => (of_file(before)?, of_file(after)?),
    };
    let before = match args.files.len() {
        2.. => before,
        _ => Layers::new().values().map_err(wrong)?,
    };
    let found = config::differences(&before, &after);
    if args.json {
        let found = found.iter().map(|one| {
            let shown = |value: &Option<Value>| value.as_ref().map(|value| value.shown.clone());
            json!({ "key": one.path, "before": shown(&one.before), "after": shown(&one.after) })
        });
        print_json(&found.collect());
    } else {
        let mut text = String::new();
        for one in &found {
            let sides = [('-', &one.before), ('+', &one.after)];
            for (sign, value) in sides
                .into_iter()
                .filter_map(|(sign, of)| Some((sign, of.as_ref()?)))
            {
                // Writing to a text cannot fail.
                writeln!(text, "{sign} {} = {}", one.path, value.shown).ok();
            }
        }
        serve::print(&text);
    }
    match found.is_empty() {
        true => Ok(()),
        false => Err(Failure::new("")),
    }
}

fn json_of(value: &Value) -> Json {
    let origin = match &value.origin {
        Origin::Default => json!({ "kind": "default" }),
        Origin::File(path, line) => {
            json!({ "kind": "file", "file": path.display().to_string(), "line": line })
        }
        Origin::Variable(name) => json!({ "kind": "environment", "name": name }),
        Origin::Set => json!({ "kind": "set" }),
        Origin::Flag(name) => json!({ "kind": "flag", "name": name }),
    };
    json!({ "key": value.path, "value": plain(&value.shown), "origin": origin })
}

fn json_of_key(key: &Key, values: &[Value]) -> Json {
    let values = values.iter().filter(|value| is_of(value, key)).map(json_of);
    json!({
        "key": key.path,
        "meaning": key.meaning,
        "form": key.kind.words().replace('`', ""),
        "default": key.default.as_deref().map(plain),
        "reload": key.is_reloaded(),
        "values": values.collect::<Vec<_>>(),
    })
}

/// A value as it is written in TOML, as one of JSON.
fn plain(text: &str) -> Json {
    serde_json::from_str(text).unwrap_or_else(|_| json!(text))
}

/// Prints it for machines that may be read by people.
fn print_json(value: &Json) {
    serve::print(&format!("{value:#}\n"));
}
