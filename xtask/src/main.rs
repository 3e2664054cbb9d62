//! The house's own checks, run as `cargo xtask tidy`, `cargo xtask compliance [--check]`, `cargo xtask limits [--check]`,
//! `cargo xtask configuration [--check]`, `cargo xtask rooms [--check]`; `cargo xtask bench`,
//! `cargo xtask soak` and `cargo xtask sim` take longer; `cargo xtask dist` makes packages.
//!
//! Owns: the command line of these checks and their exit codes.
//! Does not own: formatting, lints and tests (cargo has them), the order of stages (`./test`).
//! Start reading at [`main`]. Invariant: a check that finds something exits with 1 and says where.

mod bench;
mod compliance;
mod dist;
mod files;
mod lexer;
mod pages;
mod rooms;
mod spec;
mod tidy;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use pages::Mode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = workspace_root();
    let outcome = match words.as_slice() {
        ["tidy"] => tidy::run(root),
        ["compliance"] => compliance::run(root, compliance::Mode::Write),
        ["compliance", "--check"] => compliance::run(root, compliance::Mode::Check),
        ["limits"] => pages::run(root, &pages::LIMITS, Mode::Write),
        ["limits", "--check"] => pages::run(root, &pages::LIMITS, Mode::Check),
        ["configuration"] => pages::run(root, &pages::CONFIGURATION, Mode::Write),
        ["configuration", "--check"] => pages::run(root, &pages::CONFIGURATION, Mode::Check),
        ["rooms"] => rooms::run(root, Mode::Write),
        ["rooms", "--check"] => rooms::run(root, Mode::Check),
        ["bench", rest @ ..] => bench::run(root, rest),
        ["soak", rest @ ..] => bench::soak(root, rest),
        ["sim", rest @ ..] => simulate(root, rest),
        ["dist", rest @ ..] => dist::run(root, rest),
        _ => Err(
            "usage: cargo xtask tidy | compliance [--check] | limits [--check] | configuration [--check] | rooms [--check] | bench [--help] | soak [--help] | sim [--help] | dist [--help]"
                .to_owned(),
        ),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::from(2)
        }
    }
}

/// Runs the simulation, built for speed, with the rest of the command line.
fn simulate(root: &Path, arguments: &[&str]) -> Result<bool, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let status = Command::new(cargo)
        .args([
            "run",
            "--quiet",
            "--release",
            "--package",
            "vencejo-sim",
            "--",
        ])
        .args(arguments)
        .current_dir(root)
        .status()
        .map_err(|error| format!("cargo run: {error}"))?;
    Ok(status.success())
}

/// Prints `text`. A reader that has seen enough (`| head`) is no failure of a check.
fn say(text: &str) {
    std::io::stdout().write_all(text.as_bytes()).ok();
}

/// The folder above this crate's own.
fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("invariant: xtask is a folder of the workspace")
}
