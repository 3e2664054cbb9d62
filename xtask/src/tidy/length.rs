//! STYLE rule 3 and 8: files and functions have an end.
//!
//! Owns: 600 code lines before the unit tests; the ratchet list `xtask/ratchet.toml`.
//! Does not own: the 70 lines of a function, which clippy counts; only leave to exceed them.
//! Start reading at [`check`]. Invariant: a ratchet entry that is no longer needed is a finding.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::{Finding, RustFile};

/// The giants that exist, with their reasons.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Ratchet {
    #[serde(default)]
    file: Vec<LongFile>,
    #[serde(default)]
    long_functions: Vec<LongFunctions>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LongFile {
    path: String,
    lines: usize,
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LongFunctions {
    path: String,
    count: usize,
    reason: String,
}

impl Ratchet {
    /// Reads `xtask/ratchet.toml`.
    ///
    /// # Errors
    /// A sentence that names the file and what is wrong with it.
    pub(super) fn load(root: &Path) -> Result<Self, String> {
        let path = root.join("xtask/ratchet.toml");
        let text =
            fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Self::from_text(&text)
    }

    fn from_text(text: &str) -> Result<Self, String> {
        let ratchet: Self =
            toml::from_str(text).map_err(|error| format!("ratchet.toml: {error}"))?;
        let reasons = ratchet
            .file
            .iter()
            .map(|entry| (&entry.path, &entry.reason));
        let others = ratchet
            .long_functions
            .iter()
            .map(|entry| (&entry.path, &entry.reason));
        match reasons
            .chain(others)
            .find(|(_, reason)| reason.trim().is_empty())
        {
            Some((path, _)) => Err(format!("ratchet.toml: {path} has no reason")),
            None => Ok(ratchet),
        }
    }

    fn lines(&self, path: &str) -> Option<usize> {
        self.file
            .iter()
            .find(|entry| entry.path == path)
            .map(|entry| entry.lines)
    }

    fn functions(&self, path: &str) -> usize {
        self.long_functions
            .iter()
            .filter(|entry| entry.path == path)
            .map(|entry| entry.count)
            .sum()
    }

    fn paths(&self) -> impl Iterator<Item = &String> {
        let functions = self.long_functions.iter().map(|entry| &entry.path);
        self.file.iter().map(|entry| &entry.path).chain(functions)
    }
}

/// Finds files that are too long, and ratchet entries that allow more than they must.
pub(super) fn check(files: &[RustFile<'_>], ratchet: &Ratchet) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files {
        findings.extend(check_lines(file, ratchet.lines(&file.file.path)));
        findings.extend(check_functions(file, ratchet.functions(&file.file.path)));
    }
    for path in ratchet.paths() {
        if !files.iter().any(|file| &file.file.path == path) {
            let says = "in xtask/ratchet.toml, but there is no such file".to_owned();
            findings.push(Finding {
                path: path.clone(),
                line: 0,
                says,
            });
        }
    }
    findings
}

fn check_lines(file: &RustFile<'_>, ratchet: Option<usize>) -> Option<Finding> {
    let lines = code_lines(file);
    let says = match ratchet {
        None if lines > FILE_LINES_MAX => {
            format!("{lines} code lines before the tests, {FILE_LINES_MAX} at most: split by noun")
        }
        Some(_) if lines <= FILE_LINES_MAX => "needs no ratchet any more: take it out".to_owned(),
        Some(limit) if lines > limit => {
            format!("{lines} code lines before the tests, the ratchet says {limit}")
        }
        Some(limit) if lines + SLACK_LINES < limit => {
            format!("{lines} code lines: lower the ratchet from {limit}")
        }
        _ => return None,
    };
    Some(Finding::new(file.file, 0, says))
}

fn check_functions(file: &RustFile<'_>, ratchet: usize) -> Option<Finding> {
    let allowed = file.masked.code.matches("clippy::too_many_lines").count();
    (allowed != ratchet).then(|| {
        let says = format!("{allowed} function(s) allowed to be long, the ratchet says {ratchet}");
        Finding::new(file.file, 0, says)
    })
}

/// Lines with code on them, up to the unit tests. A file of tests has none before them.
fn code_lines(file: &RustFile<'_>) -> usize {
    let path = &file.file.path;
    if path.ends_with("/tests.rs") || path.contains("/tests/") {
        return 0;
    }
    let before_tests = file.masked.code.lines().take(file.masked.tests_start());
    before_tests.filter(|line| !line.trim().is_empty()).count()
}

const FILE_LINES_MAX: usize = 600;
/// How far a giant may be below its entry before the entry must follow.
const SLACK_LINES: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::TextFile;

    fn file_of(lines: usize) -> TextFile {
        let tests = "// a comment\n\n#[cfg(test)]\nmod tests {\nfn a() {}\n}\n";
        TextFile::new("crates/a/src/a.rs", &("fn a() {}\n".repeat(lines) + tests))
    }

    fn findings(lines: usize, ratchet: &str) -> usize {
        let file = file_of(lines);
        let ratchet = Ratchet::from_text(ratchet).expect("the ratchet is valid");
        check(&[RustFile::new(&file)], &ratchet).len()
    }

    fn entry(lines: usize) -> String {
        format!("[[file]]\npath = \"crates/a/src/a.rs\"\nlines = {lines}\nreason = \"a table\"\n")
    }

    #[test]
    fn six_hundred_lines_of_code_are_enough() {
        assert_eq!(findings(600, ""), 0);
        assert_eq!(findings(601, ""), 1);
    }

    #[test]
    fn a_ratchet_may_only_shrink() {
        assert_eq!(findings(700, &entry(700)), 0);
        assert_eq!(findings(701, &entry(700)), 1);
        assert_eq!(findings(650, &entry(700)), 1);
        assert_eq!(findings(500, &entry(700)), 1);
    }

    #[test]
    fn a_long_function_needs_a_reason_in_the_list() {
        let text = "#[allow(clippy::too_many_lines, reason = \"a table\")]\nfn a() {}\n";
        let file = TextFile::new("crates/a/src/a.rs", text);
        assert_eq!(check(&[RustFile::new(&file)], &Ratchet::default()).len(), 1);
    }

    #[test]
    fn an_entry_without_a_reason_is_refused() {
        assert!(Ratchet::from_text("[[file]]\npath = \"a\"\nlines = 1\nreason = \" \"").is_err());
    }
}
