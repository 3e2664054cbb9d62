//! Conformance: rows of bytes in and bytes out, against our broker or any other.
//!
//! Owns: the command line, our own broker as a child. Does not own: rows and running them (see the library).
//! Start reading at [`main`]. Invariant: the exit code is 0 only if no case failed.

mod broker;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use conformance::{Suite, resolve};

use crate::broker::Broker;

/// Runs the conformance rows against a broker and prints what failed.
#[derive(Debug, Parser)]
#[command(name = "conformance")]
struct Arguments {
    /// The broker to ask, ADDRESS:PORT; without it our own is started.
    #[arg(long)]
    host: Option<String>,
    /// The binary of our own broker.
    #[arg(long, default_value_os_t = default_broker())]
    broker: PathBuf,
    /// Only cases whose name contains this.
    #[arg(long)]
    filter: Option<String>,
    /// How many cases run at a time.
    #[arg(long, default_value_t = 16)]
    jobs: usize,
    /// Let a broker refuse with another code than the row's, or close without a word.
    #[arg(long)]
    lenient: bool,
    /// Print the names and statements of the cases, and run none.
    #[arg(long)]
    list: bool,
    /// Write the rows' bytes into this folder as seeds for the fuzz targets, and run none.
    #[arg(long)]
    seeds: Option<PathBuf>,
    /// The folder with the rows.
    #[arg(long, default_value_os_t = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases"))]
    cases: PathBuf,
}

fn main() -> ExitCode {
    match execute(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error}");
            ExitCode::from(2)
        }
    }
}

fn execute(arguments: &Arguments) -> Result<bool, String> {
    let mut suite = Suite::load(&arguments.cases)?;
    if let Some(filter) = &arguments.filter {
        suite.keep(filter);
    }
    if arguments.list {
        for (name, statements) in suite.names() {
            println!("{name}  [{}]", statements.join(", "));
        }
        println!("conformance: {} cases", suite.names().count());
        return Ok(true);
    }
    if let Some(folder) = &arguments.seeds {
        println!("conformance: {} seeds", suite.write_seeds(folder)?);
        return Ok(true);
    }
    let (_broker, address) = match &arguments.host {
        Some(host) => (None, resolve(host)?),
        None => {
            let broker = Broker::start(&arguments.broker)?;
            let address = broker.address;
            (Some(broker), address)
        }
    };
    let report = suite.run(address, arguments.lenient, arguments.jobs);
    // A reader that has seen enough is no failure.
    std::io::stdout().write_all(report.text().as_bytes()).ok();
    let [_, _, failed] = report.counts();
    Ok(failed == 0)
}

/// `vencejo` beside this program.
fn default_broker() -> PathBuf {
    let beside = std::env::current_exe()
        .unwrap_or_default()
        .with_file_name("vencejo");
    if beside.exists() {
        beside
    } else {
        PathBuf::from("target/debug/vencejo")
    }
}
