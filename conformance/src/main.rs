//! Conformance: rows of bytes in and bytes out, against our broker or any other.
//!
//! Owns: the command line, the worker threads, the report.
//! Does not own: the rows (`cases/*.toml`), their language (`bytes`, `steps`, `expectation`).
//! Start reading at [`main`]. Invariant: the exit code is 0 only if no case failed.

mod broker;
mod bytes;
mod cases;
mod expectation;
mod packet;
mod runner;
mod seeds;
mod steps;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Parser;

use crate::broker::Broker;
use crate::cases::Case;
use crate::runner::{Target, Verdict};

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
    let mut cases = cases::load(&arguments.cases, &nonce())?;
    if let Some(filter) = &arguments.filter {
        cases.retain(|case| case.name.contains(filter.as_str()));
    }
    if arguments.list {
        for case in &cases {
            println!("{}  [{}]", case.name, case.statements.join(", "));
        }
        println!("conformance: {} cases", cases.len());
        return Ok(true);
    }
    if let Some(folder) = &arguments.seeds {
        println!("conformance: {} seeds", seeds::write(&cases, folder)?);
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
    let target = Target {
        address,
        is_lenient: arguments.lenient,
    };
    Ok(run_all(&cases, target, arguments.jobs))
}

/// Runs the cases on `jobs` threads, prints the failures in the order of the rows, and the total.
fn run_all(cases: &[Case], target: Target, jobs: usize) -> bool {
    let next = AtomicUsize::new(0);
    let verdicts: Mutex<Vec<(usize, Verdict)>> = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(index) else { return };
                    let verdict = runner::run(case, target);
                    if let Ok(mut verdicts) = verdicts.lock() {
                        verdicts.push((index, verdict));
                    }
                }
            });
        }
    });
    let mut verdicts = verdicts.into_inner().unwrap_or_default();
    verdicts.sort_by_key(|(index, _)| *index);
    report(cases, &verdicts)
}

fn report(cases: &[Case], verdicts: &[(usize, Verdict)]) -> bool {
    let (mut passed, mut skipped) = (0, 0);
    for (index, verdict) in verdicts {
        match verdict {
            Verdict::Passed => passed += 1,
            Verdict::Skipped => skipped += 1,
            Verdict::Failed(reason) => {
                let Some(case) = cases.get(*index) else {
                    continue;
                };
                println!(
                    "FAILED {} [{}]\n  {reason}",
                    case.name,
                    case.statements.join(", ")
                );
            }
        }
    }
    let failed = cases.len() - passed - skipped;
    let mut total = format!("conformance: {} cases, {passed} passed", cases.len());
    if skipped > 0 {
        total.push_str(&format!(", {skipped} skipped (no such limit announced)"));
    }
    if failed > 0 {
        total.push_str(&format!(", {failed} failed"));
    }
    println!("{total}");
    failed == 0
}

fn resolve(host: &str) -> Result<SocketAddr, String> {
    let mut addresses = host
        .to_socket_addrs()
        .map_err(|error| format!("{host}: {error}"))?;
    addresses
        .next()
        .ok_or_else(|| format!("{host}: no address"))
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

/// Four letters that differ from run to run, so that runs do not meet in one broker.
fn nonce() -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut value = since.as_millis();
    let mut letters = String::new();
    for _ in 0..5 {
        letters.push(char::from(b'a' + u8::try_from(value % 26).unwrap_or(0)));
        value /= 26;
    }
    letters
}
