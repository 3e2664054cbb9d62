//! The rules of STYLE.md that a machine can hold.
//!
//! Owns: the list of rules, the findings and how they are printed.
//! Does not own: what rustfmt and clippy hold already.
//! Start reading at [`run`]. Invariant: a rule is a function from files to findings.

mod arrows;
mod citations;
mod comments;
mod header;
mod length;
mod links;
mod lints;
mod log_fields;
mod paths;
mod promises;
mod translations;

use std::fmt;
use std::path::Path;

use crate::files::{self, TextFile};
use crate::lexer::Masked;
use crate::spec::Spec;

/// One place that breaks one rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    path: String,
    /// From 1; 0 means the whole file.
    line: usize,
    says: String,
}

impl Finding {
    fn new(file: &TextFile, line: usize, says: impl Into<String>) -> Self {
        Self {
            path: file.path.clone(),
            line,
            says: says.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(formatter, "{}: {}", self.path, self.says),
            line => write!(formatter, "{}:{line}: {}", self.path, self.says),
        }
    }
}

/// A Rust file with its two views.
struct RustFile<'a> {
    file: &'a TextFile,
    masked: Masked,
}

impl<'a> RustFile<'a> {
    fn new(file: &'a TextFile) -> Self {
        Self {
            file,
            masked: Masked::new(&file.text),
        }
    }

    /// Whether this is shipped code, not a test or a tool.
    fn is_crate_source(&self) -> bool {
        self.file.path.starts_with("crates/") && self.file.path.contains("/src/")
    }
}

/// Checks the workspace and prints what it finds; `true` if that is nothing.
///
/// # Errors
/// A sentence if files or `cargo metadata` cannot be read.
pub(crate) fn run(root: &Path) -> Result<bool, String> {
    let files = files::read_all(root)?;
    let rust: Vec<RustFile<'_>> = files
        .iter()
        .filter(|file| file.is_rust())
        .map(RustFile::new)
        .collect();
    let spec = Spec::load(root)?;
    let ratchet = length::Ratchet::load(root)?;
    let mut findings = length::check(&rust, &ratchet);
    for file in &rust {
        findings.extend(header::check(file));
        findings.extend(comments::check(file));
        findings.extend(log_fields::check(file));
        findings.extend(arrows::check_imports(file));
    }
    for file in &files {
        findings.extend(citations::check(file, &spec));
        findings.extend(links::check(file, root));
    }
    findings.extend(lints::check(&files));
    findings.extend(promises::check(&files));
    findings.extend(translations::check(&files));
    findings.extend(paths::check(&files, &paths::personal_roots(root)));
    findings.extend(arrows::check(&arrows::load(root)?));
    findings.sort();
    findings.dedup();
    for finding in &findings {
        crate::say(&format!("{finding}\n"));
    }
    if !findings.is_empty() {
        crate::say(&format!(
            "tidy: {} finding(s), see STYLE.md\n",
            findings.len()
        ));
    }
    Ok(findings.is_empty())
}
