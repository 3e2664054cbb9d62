//! `vencejo backup`, `restore` and `store`: what an operator does to a data folder.
//!
//! Owns: their flags and what they print. Does not own: what is done (see `server::persist`, `store`).
//! Start reading at [`back_up`]. Invariant: a folder that a server uses is touched by that server only.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use server::persist::{
    self, BackedUp, BackupError, ControlAnswer, ControlRequest, DataFolder, FolderError,
};

use crate::inspect;
use crate::printing::OneObject;
use crate::serve::{self, EX_IOERR, EX_UNAVAILABLE};
use crate::tools::Failure;

/// Copy the log and the users of a data folder, also while a server uses it
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct BackupArgs {
    /// Where to; made if it is not there, and empty if it is
    #[arg(value_name = "DIR")]
    target: PathBuf,
    /// The data folder
    #[arg(long, value_name = "DIR", default_value = DATA)]
    data: PathBuf,
    #[command(flatten)]
    printing: OneObject,
}

/// Make a data folder of a backup
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct RestoreArgs {
    /// What `vencejo backup` has made
    #[arg(value_name = "BACKUP")]
    backup: PathBuf,
    /// The data folder to make; if it is there, it has to be empty
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    #[command(flatten)]
    printing: OneObject,
}

/// Look at a data folder, mend it, acknowledge its alarms
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct StoreArgs {
    #[command(subcommand)]
    command: StoreCommand,
    /// Print help
    #[arg(long, short = 'h', short_alias = '?', action = clap::ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Subcommand, Clone, Debug)]
enum StoreCommand {
    /// Read and check every byte; exit code 65 if there is damage that no start has told yet
    Check(FolderArgs),
    /// Count what is in it: segments, records of each kind, Sessions, messages
    Stat(FolderArgs),
    /// Write what is intact to a new folder, and an alarm there for each place where something is missing
    Salvage(SalvageArgs),
    /// Say that the alarms were read: they are not shown any more
    Acknowledge(FolderArgs),
}

#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
struct FolderArgs {
    /// The data folder
    #[arg(value_name = "DIR", default_value = DATA)]
    data: PathBuf,
    #[command(flatten)]
    printing: OneObject,
}

#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
struct SalvageArgs {
    /// The data folder; it is only read
    #[arg(value_name = "DIR")]
    data: PathBuf,
    /// The folder to make; if it is there, it has to be empty
    #[arg(value_name = "NEW")]
    target: PathBuf,
    #[command(flatten)]
    printing: OneObject,
}

/// `vencejo backup`: through the server that uses the folder, or from the folder itself.
pub(crate) fn back_up(args: &BackupArgs) -> Result<(), Failure> {
    let target = std::path::absolute(&args.target).map_err(|error| failed(&error))?;
    let request = ControlRequest::Backup {
        dir: target.clone(),
    };
    let done = match ask(&args.data, &request)? {
        Some(ControlAnswer::Backup(done)) => done,
        Some(other) => return Err(unexpected(&other)),
        None => {
            let folder = DataFolder::lock_existing(&args.data).map_err(|error| in_use(&error))?;
            persist::copy_folder(&folder, &target).map_err(|error| failed(&error))?
        }
    };
    serve::print(&match args.printing.json {
        true => object(&target, &args.data, done),
        false => line(&target, done, "is a backup of", &args.data),
    });
    Ok(())
}

/// `vencejo restore`.
pub(crate) fn restore(args: &RestoreArgs) -> Result<(), Failure> {
    let done = persist::restore(&args.backup, &args.data).map_err(|error| match error {
        BackupError::Folder(error) => in_use(&error),
        error => failed(&error),
    })?;
    serve::print(&match args.printing.json {
        true => object(&args.backup, &args.data, done),
        false => line(&args.data, done, "is made of", &args.backup),
    });
    Ok(())
}

/// `vencejo store ...`.
pub(crate) fn run(args: &StoreArgs) -> Result<(), Failure> {
    match &args.command {
        StoreCommand::Check(folder) => inspect::check(&folder.data, folder.printing.json),
        StoreCommand::Stat(folder) => inspect::stat(&folder.data, folder.printing.json),
        StoreCommand::Salvage(args) => {
            inspect::salvage(&args.data, &args.target, args.printing.json)
        }
        StoreCommand::Acknowledge(folder) => acknowledge(&folder.data, folder.printing.json),
    }
}

fn acknowledge(data: &Path, as_json: bool) -> Result<(), Failure> {
    let alarms = match ask(data, &ControlRequest::Acknowledge)? {
        Some(ControlAnswer::Alarms { alarms }) => alarms,
        Some(other) => return Err(unexpected(&other)),
        None => {
            let folder = DataFolder::lock_existing(data).map_err(|error| in_use(&error))?;
            persist::acknowledge(&folder).map_err(|error| failed(&error))?
        }
    };
    if as_json {
        serve::print(&format!("{}\n", json!({ "acknowledged": alarms })));
        return Ok(());
    }
    let count = alarms.len();
    let mut text = match count {
        0 => "no alarms\n".to_owned(),
        1 => "1 alarm acknowledged:\n".to_owned(),
        _ => format!("{count} alarms acknowledged:\n"),
    };
    for alarm in alarms {
        text.push_str(&format!("  {alarm}\n"));
    }
    serve::print(&text);
    Ok(())
}

/// Asks the server that uses `data`, if one does.
pub(crate) fn ask(data: &Path, request: &ControlRequest) -> Result<Option<ControlAnswer>, Failure> {
    let answer = persist::ask(data, request).map_err(|error| Failure {
        text: format!(
            "Error: the server of {} does not answer: {error}.",
            data.display()
        ),
        code: EX_UNAVAILABLE,
    })?;
    match answer {
        Some(ControlAnswer::Refused { error }) => Err(failed(&error)),
        Some(ControlAnswer::Unfit { error }) => Err(unfit(&error)),
        answer => Ok(answer),
    }
}

fn line(made: &Path, done: BackedUp, how: &str, of: &Path) -> String {
    let (made, of, BackedUp { files, bytes }) = (made.display(), of.display(), done);
    format!("{made} {how} {of}: {files} files, {bytes} bytes\n")
}

/// The same of `backup` and of `restore`, whichever of the two folders was made.
fn object(backup: &Path, data: &Path, done: BackedUp) -> String {
    let value = json!({
        "backup": backup.display().to_string(),
        "data": data.display().to_string(),
        "files": done.files,
        "bytes": done.bytes,
    });
    format!("{value}\n")
}

pub(crate) fn in_use(error: &FolderError) -> Failure {
    Failure {
        text: format!("Error: {error}."),
        code: EX_UNAVAILABLE,
    }
}

pub(crate) fn failed(error: &dyn std::fmt::Display) -> Failure {
    Failure {
        text: format!("Error: {error}."),
        code: EX_IOERR,
    }
}

/// What was asked does not fit what is there, and would not the next time.
pub(crate) fn unfit(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(format!("Error: {error}."))
}

pub(crate) fn unexpected(answer: &ControlAnswer) -> Failure {
    Failure::new(format!(
        "Error: the server answers something else: {answer:?}."
    ))
}

/// The data folder where no other is named.
pub(crate) const DATA: &str = "vencejo-data";
