//! `vencejo import mosquitto`: a mosquitto.conf, with the files it names, taken over.
//!
//! Owns: the command, a server that runs with such a file. Does not own: what becomes of it (see `translate`), what is written
//! and printed (see `import`). Start reading at [`run`]. Invariant: the file itself stays as it is.

mod acl;
mod doors;
mod dynsec;
mod lines;
mod passwords;
mod people;
pub(crate) mod translate;

pub(crate) use doors::has_ipv6;

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use clap::Args;
use server::config::{self, Layers};

use crate::import::rows::Row;
use crate::import::written::{self, OutputArgs, Taken};
use crate::serve::EX_CONFIG;
use crate::tools::Failure;
use translate::Translation;

/// Take over a mosquitto.conf: writes a vencejo.toml, and says what became of each line
#[derive(Args, Clone, Debug)]
pub(crate) struct MosquittoArgs {
    /// The file, with the folders that it includes
    #[arg(value_name = "FILE", default_value = "/etc/mosquitto/mosquitto.conf")]
    file: PathBuf,
    #[command(flatten)]
    output: OutputArgs,
    /// Print help
    #[arg(long, short = 'h', short_alias = '?', action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// `vencejo import mosquitto ...`.
pub(crate) fn run(args: &MosquittoArgs) -> Result<(), Failure> {
    let translation = read(&args.file, &args.output.output)?;
    let taken = Taken {
        toml: translation.toml,
        rows: translation.rows,
        files: translation.passwords.into_iter().collect(),
        is_secret: false,
    };
    written::finish(&args.output, &taken)
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
