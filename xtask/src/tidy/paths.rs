//! No file names the machine it was written on.
//!
//! Owns: home folders, and the place of this checkout, as text in a file.
//! Does not own: paths that are the same everywhere (`/etc`, `/usr`). Start reading at [`check`].

use std::path::Path;

use super::Finding;
use crate::files::TextFile;

/// Paths that mean this machine only: the checkout, the folder it stands in, the home folder.
pub(super) fn personal_roots(root: &Path) -> Vec<String> {
    let parents = [Some(root), root.parent().filter(|path| !is_common(path))];
    let mut roots: Vec<String> = parents
        .into_iter()
        .flatten()
        .map(|path| path.display().to_string() + "/")
        .collect();
    roots.extend(HOMES.iter().map(|home| (*home).to_owned()));
    roots
}

/// Finds text that starts with one of `roots`.
pub(super) fn check(files: &[TextFile], roots: &[String]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files
        .iter()
        .filter(|file| !file.path.starts_with("xtask/src/tidy/paths.rs"))
    {
        for (at, line) in file.text.lines().enumerate() {
            if let Some(root) = roots.iter().find(|root| names(line, root)) {
                findings.push(Finding::new(
                    file,
                    at + 1,
                    format!("names a place of one machine: {root}"),
                ));
            }
        }
    }
    findings
}

/// Whether `root` stands in `line` as the start of a path, not in the middle of one.
fn names(line: &str, root: &str) -> bool {
    line.match_indices(root).any(|(at, _)| {
        !line[..at].ends_with(|last: char| last.is_alphanumeric() || "._-/}".contains(last))
    })
}

/// Folders that stand on every machine, so that a checkout beside them gives nothing away.
fn is_common(path: &Path) -> bool {
    let common = [
        "/", "/tmp", "/src", "/usr/src", "/opt", "/srv", "/var/tmp", "/mnt",
    ];
    common.iter().any(|folder| path == Path::new(folder))
}

const HOMES: &[&str] = &["/home/", "/root/", "/Users/"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_home_folder_is_found_and_a_topic_is_not() {
        let roots = personal_roots(Path::new("/build/here/vencejo"));
        let file = TextFile::new(
            "a.md",
            "see /home/me/x\nsport/home/x\n/build/here/other\n/etc/x\n",
        );
        let lines: Vec<usize> = check(&[file], &roots)
            .iter()
            .map(|found| found.line)
            .collect();
        assert_eq!(lines, [1, 3]);
    }
}
