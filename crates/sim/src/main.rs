//! `vencejo-sim`: many seeds, one after the other, and what the first bad one says.
//!
//! Owns: the command line and the threads. Does not own: what a run is (see the library).
//! Start reading at [`main`]. Invariant: exit code 0 means that every run was as it should be, or, with bugs,
//! that each was found.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use vencejo_sim::{Bug, Figures, simulate};

/// Runs a whole Server, its disk, its network and its Clients, from seeds.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// How many seeds.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// This seed alone, with every step.
    #[arg(long)]
    seed: Option<u64>,
    /// With this bug planted: `list` names them.
    #[arg(long)]
    bug: Option<String>,
    /// With each bug in turn, to the first seed that finds it.
    #[arg(long)]
    bugs: bool,
    /// How many at once.
    #[arg(long, default_value_t = 2)]
    threads: usize,
}

/// What is known of many runs.
#[derive(Debug, Default)]
struct Found {
    figures: Figures,
    /// The lowest seed that failed, and why.
    failure: Option<(u64, String)>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let bug = match arguments
        .bug
        .as_deref()
        .map(|name| (name, Bug::named(name)))
    {
        Some((_, None)) => {
            let names = Bug::ALL.map(Bug::name);
            println!("bugs: {}", names.join(" "));
            return ExitCode::from(2);
        }
        Some((_, bug)) => bug,
        None => None,
    };
    if let Some(seed) = arguments.seed {
        return run_one(seed, bug);
    }
    if arguments.bugs {
        return find_bugs(&arguments);
    }
    let began = Instant::now();
    let found = run_all(&arguments, bug);
    let seconds = began.elapsed().as_secs_f64().max(0.001);
    let runs = f64::from(u32::try_from(found.figures.runs).unwrap_or(u32::MAX));
    print!("{}", found.figures);
    println!(
        "{runs} seeds in {seconds:.1} s: {:.0} seeds/s",
        runs / seconds
    );
    match found.failure {
        None => ExitCode::SUCCESS,
        Some((seed, says)) => {
            println!("seed {seed} FAILED: {says}");
            println!("again, with every step: --seed {seed}");
            ExitCode::FAILURE
        }
    }
}

fn run_one(seed: u64, bug: Option<Bug>) -> ExitCode {
    let outcome = simulate(seed, bug, true);
    for line in outcome.trace {
        println!("{line}");
    }
    print!("{}", outcome.figures);
    match outcome.violation {
        None => ExitCode::SUCCESS,
        Some(says) => {
            println!("seed {seed} FAILED: {says}");
            ExitCode::FAILURE
        }
    }
}

fn find_bugs(arguments: &Arguments) -> ExitCode {
    let mut is_each_found = true;
    for bug in Bug::ALL {
        match run_all(arguments, Some(bug)).failure {
            Some((seed, says)) => {
                let says: String = says.chars().take(100).collect();
                println!("{:<24} found by seed {seed}: {says}", bug.name());
            }
            None => {
                is_each_found = false;
                println!("{:<24} NOT FOUND", bug.name());
            }
        }
    }
    if is_each_found {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Runs seed after seed on all threads, to the first failure.
fn run_all(arguments: &Arguments, bug: Option<Bug>) -> Found {
    let next = AtomicU64::new(0);
    let has_failed = AtomicBool::new(false);
    let found = Mutex::new(Found::default());
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.max(1) {
            scope.spawn(|| {
                let mut figures = Figures::default();
                let mut failure = None;
                while !has_failed.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= arguments.seeds {
                        break;
                    }
                    let seed = arguments.first + number;
                    let outcome = simulate(seed, bug, false);
                    figures.add(&outcome.figures);
                    if let Some(says) = outcome.violation {
                        has_failed.store(true, Ordering::Relaxed);
                        failure = Some((seed, says));
                    }
                }
                let mut found = found
                    .lock()
                    .unwrap_or_else(std::sync::PoisonError::into_inner);
                found.figures.add(&figures);
                let is_lower = |(seed, _): &(u64, String)| {
                    found
                        .failure
                        .as_ref()
                        .is_none_or(|(lowest, _)| seed < lowest)
                };
                if failure.as_ref().is_some_and(is_lower) {
                    found.failure = failure;
                }
            });
        }
    });
    found
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
