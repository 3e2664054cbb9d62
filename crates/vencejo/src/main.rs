//! The one binary: the server, and the tools around it.
//!
//! Owns: the command line, exit codes, the allocator. Does not own: any MQTT.
//! Start reading at [`main`]. Invariant: data on standard output, diagnostics on standard error.

mod tools;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use tools::Failure;
use tools::args::{PubArgs, SubArgs};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An MQTT server (3.1, 3.1.1 and 5.0) and its tools. Without a command it serves with the defaults.
#[derive(Parser, Debug)]
#[command(
    name = "vencejo",
    version,
    disable_help_flag = true,
    disable_help_subcommand = true
)]
struct Cli {
    /// Print help
    #[arg(long, short = '?', action = clap::ArgAction::Help)]
    help: Option<bool>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    Pub(PubArgs),
    Sub(SubArgs),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return on_parse_error(&error),
    };
    match cli.command {
        Some(Command::Pub(args)) => {
            let quiet = args.connection.quiet;
            report(run(tools::publish::run(&args)), quiet)
        }
        Some(Command::Sub(args)) => {
            let quiet = args.connection.quiet;
            report(run(tools::subscribe::run(&args)), quiet)
        }
        None => ExitCode::FAILURE,
    }
}

/// Runs a tool on one thread.
fn run(tool: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("Error: {error}.")))?;
    let result = runtime.block_on(tool);
    // A thread may still wait for standard input, which nobody wants to wait for.
    runtime.shutdown_background();
    result
}

fn report(result: Result<(), Failure>, quiet: bool) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { text, code }) => {
            if !quiet && !text.is_empty() {
                eprintln!("{text}");
            }
            ExitCode::from(code)
        }
    }
}

/// mosquitto's tools leave with 1 where a flag is wrong; everything else with 2.
fn on_parse_error(error: &clap::Error) -> ExitCode {
    // Nothing can be said where standard error is closed.
    error.print().ok();
    let is_tool = std::env::args()
        .nth(1)
        .is_some_and(|name| name == "pub" || name == "sub");
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if is_tool => ExitCode::FAILURE,
        _ => ExitCode::from(2),
    }
}
