//! `docs/limits.md`, as the Server's table of limits has it.
//!
//! Owns: where the page is, and whether it is the one that the table makes. Does not own: the table (see `server::config`).
//! Start reading at [`run`]. Invariant: a check writes nothing.

use std::fs;
use std::path::Path;
use std::process::Command;

/// What is done with the page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It is written.
    Write,
    /// It has to be there already.
    Check,
}

/// Makes the page and writes it, or compares it; whether it is as it should be.
pub(crate) fn run(root: &Path, mode: Mode) -> Result<bool, String> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let made = Command::new(cargo)
        .args(["run", "--quiet", "--package", "vencejo-server"])
        .args(["--example", "limits"])
        .current_dir(root)
        .output()
        .map_err(|error| format!("cargo run: {error}"))?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into_owned());
    }
    let path = root.join(PAGE);
    if mode == Mode::Write {
        fs::write(&path, &made.stdout).map_err(|error| format!("{PAGE}: {error}"))?;
        return Ok(true);
    }
    let is_right = fs::read(&path).is_ok_and(|written| written == made.stdout);
    if !is_right {
        super::say(&format!(
            "{PAGE} is not what the table says: run `cargo xtask limits`\n"
        ));
    }
    Ok(is_right)
}

const PAGE: &str = "docs/limits.md";
