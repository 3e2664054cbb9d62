//! `vencejo import mosquitto`: a mosquitto.conf, with the files it names, taken over.
//!
//! Owns: the command, what is written, the table of what became of each line. Does not own: what becomes of it (see
//! `translate`). Start reading at [`run`]. Invariant: nothing that is there is written over.

mod acl;
mod doors;
mod dynsec;
mod lines;
mod passwords;
mod people;
mod target;
pub(crate) mod translate;

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use server::config::{self, Layers};

use crate::serve::{self, EX_CONFIG};
use crate::tools::Failure;
use translate::{Outcome, Row, Translation};

/// Take over a mosquitto.conf: writes a vencejo.toml, and says what became of each line
#[derive(Args, Clone, Debug)]
pub(crate) struct MosquittoArgs {
    /// The file, with the folders that it includes
    #[arg(value_name = "FILE", default_value = "/etc/mosquitto/mosquitto.conf")]
    file: PathBuf,
    /// Where vencejo.toml is written, and a password file if one is needed
    #[arg(short = 'o', long, value_name = "DIR", default_value = ".")]
    output: PathBuf,
    /// Write nothing, print what would be written
    #[arg(long)]
    dry_run: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print help
    #[arg(long, short = 'h', short_alias = '?', action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// `vencejo import mosquitto ...`.
pub(crate) fn run(args: &MosquittoArgs) -> Result<(), Failure> {
    let translation = read(&args.file, &args.output)?;
    let path = args.output.join("vencejo.toml");
    if !args.dry_run {
        if let Some((path, text)) = &translation.passwords {
            write_new(path, text, 0o600)?;
        }
        write_new(&path, &translation.toml, 0o644)?;
    }
    let problems = if args.dry_run && translation.passwords.is_some() {
        // The file it names is not there yet.
        Vec::new()
    } else {
        problems(&translation.toml, &path)
    };
    print(args, &translation, &path, &problems);
    match problems.is_empty() {
        true => Ok(()),
        false => Err(Failure {
            text: problems.join("\n"),
            code: EX_CONFIG,
        }),
    }
}

/// What the file at `path` becomes; a password file that is needed is to be in `folder`.
fn read(path: &Path, folder: &Path) -> Result<Translation, Failure> {
    let lines = lines::read(path).map_err(|error| Failure {
        text: format!("error: {error}"),
        code: EX_CONFIG,
    })?;
    Ok(translate::translate(&lines, path, folder))
}

/// The layers of a server that runs with the mosquitto.conf at `path`. A password file that is needed is written anew.
pub(crate) fn put_on(layers: &mut Layers, path: &Path) -> Result<Vec<Row>, Failure> {
    let folder = std::env::temp_dir();
    let mut translation = read(path, &folder)?;
    if translation.passwords.is_some() {
        // It stands with the state, for its owner only.
        let config =
            config::parse(&translation.toml, path).map_err(crate::config::sources::wrong)?;
        let folder = config.storage.data;
        fs::create_dir_all(&folder)
            .map_err(|error| Failure::new(format!("error: {}: {error}", folder.display())))?;
        translation = read(path, &folder)?;
        if let Some((file, text)) = &translation.passwords {
            replace(file, text)?;
        }
    }
    // Its lines are not those of the file.
    let shown = format!("{} (as vencejo.toml)", path.display());
    layers.text(translation.toml, shown.as_ref());
    Ok(translation.rows)
}

/// The file and those that it includes, as far as they can be read.
pub(crate) fn files(path: &Path) -> Vec<PathBuf> {
    let mut files = vec![path.to_owned()];
    for line in lines::read(path).unwrap_or_default() {
        if files.last() != Some(&*line.file) && !files.contains(&line.file) {
            files.push(line.file.to_path_buf());
        }
    }
    files
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

fn print(args: &MosquittoArgs, translation: &Translation, path: &Path, problems: &[String]) {
    if args.json {
        let rows = translation.rows.iter().map(|row| {
            json!({ "place": row.place, "option": row.option, "outcome": row.outcome.word(), "why": row.why })
        });
        let rows: Vec<_> = rows.collect();
        let passwords = translation.passwords.iter().map(|(path, _)| path.as_path());
        let files = passwords.chain([path]).filter(|_| !args.dry_run);
        let files: Vec<_> = files.map(|path| path.display().to_string()).collect();
        let said = json!({
            "rows": rows, "toml": translation.toml, "problems": problems,
            "files_written": files, "dry_run": args.dry_run,
        });
        return serve::print(&format!("{said:#}\n"));
    }
    let mut text = table(&translation.rows);
    let count = |outcome| {
        translation
            .rows
            .iter()
            .filter(|row| row.outcome == outcome)
            .count()
    };
    let (kept, changed) = (count(Outcome::Kept), count(Outcome::Changed));
    let ignored = count(Outcome::Ignored);
    // Writing to a text cannot fail.
    writeln!(text, "\n{kept} kept, {changed} changed, {ignored} ignored").ok();
    if args.dry_run {
        writeln!(text, "\n{}", translation.toml).ok();
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

/// Rows under one another; long lines go on behind the last column.
fn table(rows: &[Row]) -> String {
    let width = |of: fn(&Row) -> usize, most| rows.iter().map(of).max().unwrap_or(0).min(most);
    let place = width(|row| row.place.chars().count(), 24);
    let option = width(|row| row.option.chars().count(), 44);
    let mut text = String::new();
    for row in rows {
        let outcome = row.outcome.word();
        // Writing to a text cannot fail.
        writeln!(
            text,
            "{:<place$}  {:<option$}  {outcome:<7}  {}",
            row.place, row.option, row.why
        )
        .ok();
    }
    text
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

/// Writes a file as a whole, for its owner only.
fn replace(path: &Path, text: &str) -> Result<(), Failure> {
    let new = path.with_extension("new");
    let failed =
        |error: std::io::Error| Failure::new(format!("error: {}: {error}", path.display()));
    fs::remove_file(&new).ok();
    let opened = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new);
    opened
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(failed)?;
    fs::rename(&new, path).map_err(failed)
}
