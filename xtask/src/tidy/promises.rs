//! What `docs/promises.md` says is shown by a test is shown by one.
//!
//! Owns: that rule. Does not own: what is promised. Start reading at [`check`].

use super::Finding;
use crate::files::TextFile;

/// Finds tests that `docs/promises.md` names and nobody has, and promises without a test.
pub(super) fn check(files: &[TextFile]) -> Vec<Finding> {
    let Some(page) = files.iter().find(|file| file.path == PAGE) else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    for (at, line) in page.text.lines().enumerate() {
        let Some(shown) = last_cell(line) else {
            continue;
        };
        let names: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        if names.is_empty() {
            findings.push(Finding::new(page, at + 1, "names no test"));
        }
        for name in names {
            let (path, test) = name.split_once("::").unwrap_or((name, ""));
            let is_there = |file: &TextFile| {
                file.path == path && (test.is_empty() || has_test(&file.text, test))
            };
            if !files.iter().any(is_there) {
                findings.push(Finding::new(page, at + 1, format!("there is no `{name}`")));
            }
        }
    }
    findings
}

/// The last cell of a row of a table; `None` for other lines, headings and rules.
fn last_cell(line: &str) -> Option<&str> {
    let row = line.strip_prefix('|')?.strip_suffix('|')?;
    let cell = row.rsplit('|').next()?.trim();
    (cell != HEADING && !cell.starts_with("---")).then_some(cell)
}

/// Whether `text` has a function of this name, in Rust or in Python.
fn has_test(text: &str, name: &str) -> bool {
    let starts = ["fn ", "def "].map(|word| format!("{word}{name}("));
    starts.iter().any(|start| text.contains(start))
}

const PAGE: &str = "docs/promises.md";
/// What stands over the tests.
const HEADING: &str = "shown by";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_is_not_there_and_a_promise_without_one_are_found() {
        let page = "| promise | shown by |\n|---|---|\n| a | `a.rs::one`, `b.py::two`, `run` |\n\
                    | b | `a.rs::on` |\n| c | nothing |\n| d | `c.rs` |\n";
        let files = [
            TextFile::new(PAGE, page),
            TextFile::new("a.rs", "fn one() {}\n"),
            TextFile::new("b.py", "def two():\n"),
            TextFile::new("run", ""),
        ];
        let lines: Vec<usize> = check(&files).iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [4, 5, 6]);
    }
}
