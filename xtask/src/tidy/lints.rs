//! The lint settings of the crates agree with the workspace's.
//!
//! Owns: a crate's own `clippy.toml` repeats the root's lines; every member takes the workspace's
//! lints; proto and engine have the two lints of their own.
//! Does not own: the lints. Start reading at [`check`].

use super::Finding;
use crate::files::TextFile;

/// Finds members that left the common lint settings.
pub(super) fn check(files: &[TextFile]) -> Vec<Finding> {
    let text_of = |path: &str| {
        files
            .iter()
            .find(|file| file.path == path)
            .map(|file| &file.text)
    };
    let root = text_of("clippy.toml").map_or("", |text| text.as_str());
    let mut findings = Vec::new();
    for file in files {
        if file.path.ends_with("/clippy.toml") {
            let missing = root
                .lines()
                .filter(|wanted| !file.text.lines().any(|line| line == *wanted));
            findings.extend(missing.map(|line| {
                Finding::new(
                    file,
                    0,
                    format!("replaces the root's file and lacks `{line}`"),
                )
            }));
        }
        // A workspace of its own (fuzz, a real client) keeps its own house.
        let is_member = file.path.ends_with("/Cargo.toml") && !file.text.contains("[workspace]");
        if is_member && !file.text.contains("[lints]\nworkspace = true") {
            findings.push(Finding::new(file, 0, "does not take the workspace's lints"));
        }
        if DETERMINISTIC.contains(&file.path.as_str()) {
            let missing = STRICT.iter().filter(|lint| !file.text.contains(*lint));
            findings.extend(
                missing.map(|lint| Finding::new(file, 1, format!("lacks `#![warn({lint})]`"))),
            );
        }
    }
    findings
}

const DETERMINISTIC: &[&str] = &["crates/proto/src/lib.rs", "crates/engine/src/lib.rs"];
const STRICT: &[&str] = &["clippy::indexing_slicing", "clippy::iter_over_hash_type"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_that_lacks_a_line_of_the_root_is_found() {
        let files = [
            TextFile::new("clippy.toml", "a = 1\nb = 2\n"),
            TextFile::new("crates/x/clippy.toml", "a = 1\nc = 3\n"),
        ];
        assert_eq!(check(&files).len(), 1);
    }

    #[test]
    fn a_member_without_the_workspace_lints_is_found() {
        let files = [
            TextFile::new("crates/x/Cargo.toml", "[package]\n"),
            TextFile::new("fuzz/Cargo.toml", "[workspace]\n[package]\n"),
        ];
        assert_eq!(check(&files).len(), 1);
    }

    #[test]
    fn proto_and_engine_have_their_own_lints() {
        let files = [TextFile::new("crates/engine/src/lib.rs", "//! The mind.\n")];
        assert_eq!(check(&files).len(), 2);
    }
}
