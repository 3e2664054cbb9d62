//! Pages of `docs/` that the Server's tables make: all of `limits.md`, the end of `configuration.md`.
//!
//! Owns: where they are, and whether they are what the tables make. Does not own: the tables (see `server::config`).
//! Start reading at [`run`]. Invariant: a check writes nothing, and what a page has before its made part stays.

use std::fs;
use std::path::Path;
use std::process::Command;

/// What is done with a page.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It is written.
    Write,
    /// It has to be there already.
    Check,
}

/// A page, or its end.
pub(crate) struct Page {
    path: &'static str,
    /// The example of the Server that prints it, and the command that writes it.
    name: &'static str,
    /// The line after which its made part begins; `None` where all of it is made.
    after: Option<&'static str>,
}

pub(crate) const LIMITS: Page = Page {
    path: "docs/limits.md",
    name: "limits",
    after: None,
};
pub(crate) const CONFIGURATION: Page = Page {
    path: "docs/configuration.md",
    name: "configuration",
    after: Some("<!-- Made by `cargo xtask configuration` from here on. -->\n"),
};

/// Makes the page and writes it, or compares it; whether it is as it should be.
pub(crate) fn run(root: &Path, page: &Page, mode: Mode) -> Result<bool, String> {
    let Page { path, name, after } = page;
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let made = Command::new(cargo)
        .args(["run", "--quiet", "--package", "vencejo-server"])
        .args(["--example", name])
        .current_dir(root)
        .output()
        .map_err(|error| format!("cargo run: {error}"))?;
    if !made.status.success() {
        return Err(String::from_utf8_lossy(&made.stderr).into_owned());
    }
    let made = String::from_utf8_lossy(&made.stdout);
    let file = root.join(path);
    let written = fs::read_to_string(&file).unwrap_or_default();
    let before = match after {
        None => "",
        Some(after) => {
            let at = written.find(after).map(|at| at + after.len());
            let at = at.ok_or_else(|| format!("{path}: there is no line {after}"))?;
            written.get(..at).unwrap_or_default()
        }
    };
    let wanted = format!("{before}{made}");
    if mode == Mode::Write {
        fs::write(&file, wanted).map_err(|error| format!("{path}: {error}"))?;
        return Ok(true);
    }
    let is_right = written == wanted;
    if !is_right {
        super::say(&format!(
            "{path} is not what the table says: run `cargo xtask {name}`\n"
        ));
    }
    Ok(is_right)
}
