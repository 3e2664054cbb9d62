//! The compliance matrix: each normative statement, where it is kept, what tests it, what is open.
//!
//! Owns: `cargo xtask compliance`, which writes docs/compliance.md, and its `--check`.
//! Does not own: the statements (see `spec`), whether a citation exists (see `tidy`).
//! Start reading at [`run`]. Invariant: the same sources give the same docs/compliance.md.

mod evidence;
mod matrix;
mod report;
mod state;

use std::fs;
use std::path::Path;

use crate::files;
use crate::spec::Spec;
use evidence::Evidence;
use matrix::Matrix;
use state::States;

/// What to do with the matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Write docs/compliance.md, print every statement and the totals.
    Write,
    /// Compare docs/compliance.md, print what is missing and the totals.
    Check,
}

/// Builds the matrix; `false` in [`Mode::Check`] if the file is stale or a statement has a gap.
///
/// # Errors
/// A sentence if a file cannot be read, or `docs/spec` is wrong in itself.
pub(crate) fn run(root: &Path, mode: Mode) -> Result<bool, String> {
    let spec = Spec::load(root)?;
    let states = States::load(root, &spec)?;
    let files = files::read_all(root)?;
    let matrix = Matrix::new(&spec, &Evidence::gather(&files)?, &states);
    let document = report::markdown(&matrix);
    let path = root.join(DOCUMENT);
    if mode == Mode::Write {
        fs::write(&path, document).map_err(|error| format!("{DOCUMENT}: {error}"))?;
        crate::say(&report::lines(&matrix));
        crate::say(&report::totals(&matrix));
        return Ok(true);
    }
    let is_fresh = fs::read_to_string(&path).is_ok_and(|found| found == document);
    if !is_fresh {
        crate::say(&format!(
            "{DOCUMENT} is stale: run `cargo xtask compliance`\n"
        ));
    }
    let complaints = matrix.complaints();
    for complaint in &complaints {
        crate::say(&format!("{complaint}\n"));
    }
    crate::say(&report::totals(&matrix));
    Ok(is_fresh && complaints.is_empty())
}

const DOCUMENT: &str = "docs/compliance.md";
