//! STYLE rule 2: every source file opens with what it owns.
//!
//! Owns: the rule that `//!` comes first. Does not own: what the header says.
//! Start reading at [`check`].

use super::{Finding, RustFile};

/// Finds a source file of a crate or tool whose first line is no `//!`.
pub(super) fn check(file: &RustFile<'_>) -> Option<Finding> {
    let is_source = ["/src/", "/tests/", "/benches/", "/examples/", "fuzz/"]
        .iter()
        .any(|folder| file.file.path.contains(folder));
    let first = file.file.text.lines().next().unwrap_or_default();
    (is_source && !first.starts_with("//! "))
        .then(|| Finding::new(file.file, 1, "no module header: start with `//!` (rule 2)"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::TextFile;

    #[test]
    fn a_file_without_a_header_is_found() {
        let bare = TextFile::new("crates/proto/src/a.rs", "use std::fmt;\n");
        assert!(check(&RustFile::new(&bare)).is_some());
        let good = TextFile::new("crates/proto/src/a.rs", "//! Owns: a.\n");
        assert!(check(&RustFile::new(&good)).is_none());
    }
}
