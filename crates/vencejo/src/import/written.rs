//! What an import writes and prints.
//!
//! Owns: [`Taken`], its files, whether a server starts with it, the table. Does not own: what becomes of a configuration (see
//! `mosquitto`, `emqx`, `nanomq`). Start reading at [`finish`]. Invariant: nothing that is there is written over.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use server::config::Layers;

use super::rows::{Row, table};
use crate::serve::{self, EX_CONFIG};
use crate::tools::Failure;

/// Where an import goes, and how it is told.
#[derive(Args, Clone, Debug)]
pub(crate) struct OutputArgs {
    /// Where vencejo.toml is written, and a password file if one is needed
    #[arg(short = 'o', long, value_name = "DIR", default_value = ".")]
    pub(crate) output: PathBuf,
    /// Write nothing, print what would be written
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What a configuration has become.
#[derive(Debug)]
pub(crate) struct Taken {
    /// The vencejo.toml.
    pub(crate) toml: String,
    pub(crate) rows: Vec<Row>,
    /// Files with secrets that have to be written, with their paths: passwords, keys.
    pub(crate) files: Vec<(PathBuf, String)>,
    /// Whether the vencejo.toml itself holds what not everybody may read.
    pub(crate) is_secret: bool,
}

/// Writes it, unless nothing is to be written, and prints what became of each line.
/// # Errors
/// A file is there already or cannot be written, or no server would start with it.
pub(crate) fn finish(args: &OutputArgs, taken: &Taken) -> Result<(), Failure> {
    let path = args.output.join("vencejo.toml");
    if !args.dry_run {
        for (path, text) in &taken.files {
            write_new(path, text, 0o600)?;
        }
        let mode = if taken.is_secret { 0o600 } else { 0o644 };
        write_new(&path, &taken.toml, mode)?;
    }
    let problems = if args.dry_run && !taken.files.is_empty() {
        // What it names is not there yet.
        Vec::new()
    } else {
        problems(&taken.toml, &path)
    };
    print(args, taken, &path, &problems);
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Failure {
            text: problems.join("\n"),
            code: EX_CONFIG,
        }),
    }
}

/// What keeps a server from starting with it.
fn problems(toml: &str, path: &Path) -> Vec<String> {
    let mut layers = Layers::new();
    layers.text(toml, path);
    match layers.check() {
        Ok(config) => server::check_files(&config),
        Err(error) => vec![error.to_string()],
    }
}

fn print(args: &OutputArgs, taken: &Taken, path: &Path, problems: &[String]) {
    if args.json {
        let rows = taken.rows.iter().map(|row| {
            json!({ "place": row.place, "option": row.option, "outcome": row.outcome.word(), "why": row.why })
        });
        let rows: Vec<_> = rows.collect();
        let others = taken.files.iter().map(|(path, _)| path.as_path());
        let files = others.chain([path]).filter(|_| !args.dry_run);
        let files: Vec<_> = files.map(|path| path.display().to_string()).collect();
        let said = json!({
            "rows": rows, "toml": taken.toml, "problems": problems,
            "files_written": files, "dry_run": args.dry_run,
        });
        return serve::print(&format!("{said:#}\n"));
    }
    let mut text = table(&taken.rows);
    // Writing to a text cannot fail.
    if args.dry_run {
        writeln!(text, "\n{}", taken.toml).ok();
    } else if !problems.is_empty() {
        let path = path.display();
        writeln!(text, "{path} is written, and does not serve yet").ok();
    } else {
        let (program, path) = (serve::program(), path.display());
        writeln!(
            text,
            "{path} is written; {program} serve -c {path} serves with it"
        )
        .ok();
    }
    serve::print(&text);
}

fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), Failure> {
    if let Some(folder) = path.parent() {
        let made = fs::create_dir_all(folder);
        made.map_err(|error| Failure::new(format!("error: {}: {error}", folder.display())))?;
    }
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path);
    let written = opened.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => Failure::new(format!(
            "error: {} is there already; -o DIR writes elsewhere",
            path.display()
        )),
        _ => Failure::new(format!("error: {}: {error}", path.display())),
    })
}
