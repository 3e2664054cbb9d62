//! Measures brokers side by side.
//!
//! Owns: the command line. Does not own: what is measured (see [`scenarios`]), how (see [`suite`]).
//! Start reading at [`measure`]. Invariant: every broker that is started is stopped.

mod beside;
mod brokers;
mod door;
mod flow;
mod latency;
mod peer;
mod process;
mod relay;
mod report;
mod scenarios;
mod soak;
mod standing;
mod suite;
mod wire;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::brokers::{Broker, Kind, Programs, Setup};
use crate::scenarios::{SCENARIOS, Scenario};
use crate::suite::{Extent, Figures};

/// Measures brokers side by side, one core for the broker and one for what it is given to do.
#[derive(Debug, Parser)]
struct Command {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Runs scenarios on brokers in turn and prints the table.
    Run(RunArgs),
    /// Traffic of every kind on ours: nothing may be lost, memory has to stay flat.
    Soak(SoakArgs),
    /// Lists the scenarios.
    List,
    /// Serves as the bare relay, on a port that it prints.
    Relay,
}

#[derive(Debug, Args)]
struct RunArgs {
    /// Scenarios whose name begins so; all of them if none is given.
    names: Vec<String>,
    /// Which brokers.
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = [Kind::Vencejo, Kind::Mosquitto, Kind::Rumqttd, Kind::Relay])]
    brokers: Vec<Kind>,
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seconds that are measured in each run.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// Where every run is written, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// A page in which the table takes the place of the one between its marks.
    #[arg(long)]
    page: Option<PathBuf>,
    /// What stands above the table there: command, commit, machine.
    #[arg(long, default_value = "")]
    note: String,
    #[command(flatten)]
    programs: ProgramArgs,
}

#[derive(Debug, Args)]
struct SoakArgs {
    /// How long.
    #[arg(long, default_value_t = 3600.0)]
    seconds: f64,
    #[command(flatten)]
    programs: ProgramArgs,
}

#[derive(Debug, Args)]
struct ProgramArgs {
    #[arg(long, default_value = "vencejo")]
    vencejo: PathBuf,
    #[arg(long, default_value = "/usr/sbin/mosquitto")]
    mosquitto: PathBuf,
    #[arg(long, default_value = "rumqttd")]
    rumqttd: PathBuf,
    /// Goes before the command line of every broker.
    #[arg(long, default_value = "")]
    prefix: String,
    /// The same where it has two shards.
    #[arg(long, default_value = "")]
    prefix_of_shards: String,
}

impl ProgramArgs {
    fn programs(&self) -> Programs {
        // A broker runs in a folder of its own.
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect();
        let path = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        Programs {
            vencejo: path(&self.vencejo),
            mosquitto: path(&self.mosquitto),
            rumqttd: path(&self.rumqttd),
            prefix: words(&self.prefix),
            prefix_of_shards: words(&self.prefix_of_shards),
        }
    }
}

fn main() -> ExitCode {
    // Both ends of a connection are in one machine, but not in one process.
    if let Err(error) = rlimit::increase_nofile_limit(FILES) {
        eprintln!("bench: {error}");
    }
    let outcome = match Command::parse().what {
        What::Run(args) => measure(&args),
        What::Soak(args) => soak(&args),
        What::Relay => relay().map_err(|error| error.to_string()),
        What::List => {
            for one in SCENARIOS {
                println!("{:16} {}", one.name, one.says);
            }
            Ok(true)
        }
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::from(2)
        }
    }
}

/// Prints where it is, and serves until it is killed.
fn relay() -> std::io::Result<bool> {
    let listener = relay::listen()?;
    println!("relay://{}", listener.local_addr()?);
    relay::serve(listener).map(|()| true)
}

/// A folder of this process, gone when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        Self(std::env::temp_dir().join(format!("bench-{}", std::process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn measure(args: &RunArgs) -> Result<bool, String> {
    let is_wanted = |one: &Scenario| {
        args.names.is_empty() || args.names.iter().any(|name| one.name.starts_with(&**name))
    };
    let wanted: Vec<Scenario> = SCENARIOS
        .iter()
        .filter(|one| is_wanted(one))
        .copied()
        .collect();
    if wanted.is_empty() {
        let names: Vec<_> = SCENARIOS.iter().map(|one| one.name).collect();
        return Err(format!("no name begins so of {}", names.join(", ")));
    }
    let extent = Extent {
        rounds: args.rounds,
        measured: Duration::from_secs_f64(args.seconds),
    };
    let folder = Folder::new();
    let programs = args.programs.programs();
    let mut failed = 0;
    let runs = suite::run(
        &wanted,
        &args.brokers,
        &programs,
        &folder.0,
        extent,
        |name, kind, result| {
            failed += u32::from(result.is_err() && kind == Kind::Vencejo);
            tell(name, kind, result);
        },
    );
    let table = report::markdown(&wanted, &runs);
    println!("\n{table}");
    if let Some(path) = &args.json {
        let json = serde_json::to_string_pretty(&runs).map_err(|error| error.to_string())?;
        std::fs::write(path, json).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if let Some(path) = &args.page {
        let text = |error: std::io::Error| format!("{}: {error}", path.display());
        let page = std::fs::read_to_string(path).map_err(text)?;
        let table = format!("{}\n\n{table}", args.note);
        let page = report::inserted(&page, table.trim_start())
            .ok_or_else(|| format!("{}: there is no place for a table", path.display()))?;
        std::fs::write(path, page).map_err(text)?;
    }
    let faults = suite::faults(&runs);
    for (name, (lost, misplaced)) in &faults {
        eprintln!("bench: {name}: ours has lost {lost} and misplaced {misplaced}");
    }
    Ok(faults.is_empty() && failed == 0)
}

fn tell(name: &str, kind: Kind, result: &Result<Figures, String>) {
    let shown = |value: Option<f64>, unit: &str| {
        value.map_or_else(String::new, |value| format!(" {value:.2} {unit}"))
    };
    let kind = kind.name();
    match result {
        Ok(figures) => eprintln!(
            "{name:16} {kind:10}{}{}{}{}{}{}{}{}",
            shown(figures.cpu_us, "us"),
            shown(figures.rate.map(|rate| rate / 1000.0), "k/s"),
            shown(figures.calls, "calls"),
            shown(figures.bytes, "bytes"),
            shown(figures.p99_us, "us p99"),
            shown(figures.most_us, "us at most"),
            shown(figures.beside_seconds, "s beside"),
            shown(
                figures.generator.map(|part| part * 100.0),
                "% of the generator's core"
            ),
        ),
        Err(error) => eprintln!("{name:16} {kind:10} FAILED: {error}"),
    }
}

fn soak(args: &SoakArgs) -> Result<bool, String> {
    let folder = Folder::new();
    let setup = Setup {
        level: "synced",
        is_secured: true,
        ..Setup::PLAIN
    };
    let broker = Broker::start(Kind::Vencejo, setup, &args.programs.programs(), &folder.0)?;
    let time = Duration::from_secs_f64(args.seconds);
    soak::run(&broker, time).map_err(|error| error.to_string())
}

const FILES: u64 = 65_536;
