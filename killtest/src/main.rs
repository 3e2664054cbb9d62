//! Ends a broker again and again under load, and audits what it had acknowledged.
//!
//! Owns: the command line, what is printed. Does not own: the course of a run (`stage`), how the broker ends
//! (`kills`, `power`), what damage does (`damage`). Start reading at [`main`]. Invariant: the exit code is 0 only if nothing acknowledged
//! was lost, no QoS 2 message repeated, nothing out of order, and every start succeeded.

mod broker;
mod client;
mod damage;
mod kills;
mod ledger;
mod power;
mod random;
mod roles;
mod spoil;
mod stage;

use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::broker::{Kind, Plan};
use crate::damage::Damages;
use crate::kills::Killed;
use crate::power::{Powered, Promise};
use crate::stage::Script;

/// Ends a broker again and again under load, and audits what it had acknowledged.
#[derive(Debug, Parser)]
#[command(name = "killtest")]
struct Arguments {
    #[command(subcommand)]
    end: End,
}

#[derive(Debug, Subcommand)]
enum End {
    Kill(KillArguments),
    Power(PowerArguments),
    Damage(DamageArguments),
}

/// SIGKILL while it serves, and while it recovers
#[derive(Args, Debug)]
struct KillArguments {
    /// Which broker.
    #[arg(long, value_enum, default_value = "vencejo")]
    kind: Kind,
    /// Its binary [default: our debug build; mosquitto of the PATH]
    #[arg(long)]
    broker: Option<PathBuf>,
    /// How often it is killed while it serves.
    #[arg(long, default_value_t = 20)]
    kills: u32,
    /// Keep the folder with the broker's data and log.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    common: Common,
}

/// Loss of power: our server in this process, on a disk in memory that forgets what was not synced
#[derive(Args, Debug)]
struct PowerArguments {
    /// How often the power goes while it serves.
    #[arg(long, default_value_t = 20)]
    cuts: u32,
    /// What the server promises; with `written`, the exit code is 0 only if something acknowledged was lost,
    /// which shows that this test can see it.
    #[arg(long, value_enum, default_value = "synced")]
    level: Promise,
    #[command(flatten)]
    common: Common,
}

/// Damage to acknowledged segments of its log, each time another one, and a start on what is left
#[derive(Args, Debug)]
struct DamageArguments {
    /// Our binary [default: the debug build]
    #[arg(long)]
    broker: Option<PathBuf>,
    /// How often a segment is damaged.
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Messages queued for each of two Sessions; with more than 512 MiB of them a start reads hints.
    #[arg(long, default_value_t = 6000)]
    messages: u32,
    /// Bytes of a message.
    #[arg(long, default_value_t = 1024)]
    payload_bytes: usize,
    /// MiB of a segment.
    #[arg(long, default_value_t = 1)]
    segment_mib: u32,
    /// Shards.
    #[arg(long, default_value = "2")]
    shards: NonZeroU16,
    /// For what is random here.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Keep the folder with the log that was not damaged.
    #[arg(long)]
    keep: bool,
}

#[derive(Args, Debug)]
struct Common {
    /// Shards of our own broker.
    #[arg(long, default_value = "2")]
    shards: NonZeroU16,
    /// For what is random here.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Publishers.
    #[arg(long, default_value_t = 4)]
    publishers: u32,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().end {
        End::Kill(arguments) => kill(&arguments),
        End::Power(arguments) => cut_power(&arguments),
        End::Damage(arguments) => damage(&arguments),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("killtest: {error}");
            ExitCode::from(2)
        }
    }
}

fn kill(arguments: &KillArguments) -> Result<bool, String> {
    let folder = temporary_folder()?;
    let plan = Plan {
        kind: arguments.kind,
        program: arguments
            .broker
            .clone()
            .unwrap_or_else(|| program(arguments.kind)),
        folder: folder.clone(),
        address: broker::free_address()?,
        shards: arguments.common.shards.get(),
        config: None,
    };
    let script = Script {
        address: plan.address,
        seed: arguments.common.seed,
        ends: arguments.kills,
        publishers: arguments.common.publishers,
    };
    let mut killed = Killed::new(plan);
    let outcome = stage::run(script, &mut killed);
    let spoilt = killed.spoilt();
    drop(killed);
    let kept = keep(&folder, arguments.keep)?;
    let outcome = outcome?;
    println!(
        "killtest: seed {}, {} kills, {} during recovery, {spoilt}, {}{kept}",
        script.seed,
        outcome.ends,
        outcome.ends_in_start,
        outcome.counts(),
    );
    Ok(outcome.is_clean())
}

fn cut_power(arguments: &PowerArguments) -> Result<bool, String> {
    let Common { shards, seed, .. } = arguments.common;
    let address = broker::free_address()?;
    let script = Script {
        address,
        seed,
        ends: arguments.cuts,
        publishers: arguments.common.publishers,
    };
    let mut powered = Powered::new(address, shards, arguments.level, seed);
    let outcome = stage::run(script, &mut powered)?;
    println!(
        "killtest: seed {seed}, level {}, {} losses of power, {} of them in a call, {} more during recovery, {}",
        arguments.level.name(),
        outcome.ends,
        powered.in_call,
        outcome.ends_in_start,
        outcome.counts(),
    );
    Ok(match arguments.level {
        Promise::Synced => outcome.is_clean(),
        Promise::Written => !outcome.findings.lost.is_empty() && outcome.failed_starts == 0,
    })
}

fn damage(arguments: &DamageArguments) -> Result<bool, String> {
    let folder = temporary_folder()?;
    let damages = Damages {
        program: arguments
            .broker
            .clone()
            .unwrap_or_else(|| program(Kind::Vencejo)),
        folder: folder.clone(),
        shards: arguments.shards.get(),
        seed: arguments.seed,
        rounds: arguments.rounds,
        messages: arguments.messages,
        payload_bytes: arguments.payload_bytes,
        segment_mib: arguments.segment_mib,
    };
    let report = damage::run(&damages);
    let kept = keep(&folder, arguments.keep)?;
    let report = report?;
    println!("killtest: seed {}, {}{kept}", arguments.seed, report.text());
    Ok(report.is_clean())
}

fn temporary_folder() -> Result<PathBuf, String> {
    let folder = std::env::temp_dir().join(format!("killtest-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    Ok(folder)
}

fn keep(folder: &Path, is_kept: bool) -> Result<String, String> {
    if is_kept {
        return Ok(format!(", kept: {}", folder.display()));
    }
    std::fs::remove_dir_all(folder).map_err(|error| error.to_string())?;
    Ok(String::new())
}

fn program(kind: Kind) -> PathBuf {
    match kind {
        Kind::Vencejo => {
            let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
                || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")),
                PathBuf::from,
            );
            target.join("debug/vencejo")
        }
        Kind::Mosquitto | Kind::MosquittoAutosave => PathBuf::from("mosquitto"),
    }
}
