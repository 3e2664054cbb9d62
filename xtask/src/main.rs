//! The house's own checks, run as `cargo xtask tidy` and `cargo xtask compliance [--check]`.
//!
//! Owns: the command line of these checks and their exit codes.
//! Does not own: formatting, lints and tests (cargo has them), the order of stages (`./test`).
//! Start reading at [`main`]. Invariant: a check that finds something exits with 1 and says where.

mod compliance;
mod files;
mod lexer;
mod spec;
mod tidy;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let root = workspace_root();
    let outcome = match words.as_slice() {
        ["tidy"] => tidy::run(root),
        ["compliance"] => compliance::run(root, compliance::Mode::Write),
        ["compliance", "--check"] => compliance::run(root, compliance::Mode::Check),
        _ => Err("usage: cargo xtask tidy | compliance [--check]".to_owned()),
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
