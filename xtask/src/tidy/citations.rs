//! STYLE rule 6: a cited statement exists.
//!
//! Owns: that rule, for every text file outside the tools. Does not own: coverage (`compliance`).
//! Start reading at [`check`].

use super::Finding;
use crate::files::TextFile;
use crate::spec::{Spec, citations_in};

/// Finds citations that are misspelt, or of a statement that is not in `docs/spec`.
pub(super) fn check(file: &TextFile, spec: &Spec) -> Vec<Finding> {
    if SKIPPED.iter().any(|folder| file.path.starts_with(folder)) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (at, line) in file.text.lines().enumerate() {
        for citation in citations_in(line) {
            let says = match citation {
                Ok(citation) if spec.has(&citation) => continue,
                Ok(citation) => format!("{citation} is not in docs/spec"),
                Err(text) => format!("{text} is no citation: write [MQTT-3.1.0-1], one a bracket"),
            };
            findings.push(Finding::new(file, at + 1, says));
        }
    }
    findings
}

/// The statements themselves, and tests that cite what must not be found.
const SKIPPED: &[&str] = &["docs/spec/", "xtask/"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_that_does_not_exist_is_found() {
        let spec = Spec::load(crate::workspace_root()).expect("docs/spec is readable");
        let text = "// [MQTT-3.1.0-1] good\n// [MQTT-3.1.0-9] bad\n// [v3.1.1 MQTT-4.7.0-1] bad\n";
        let found = check(&TextFile::new("crates/a.rs", text), &spec);
        assert_eq!(
            found.iter().map(|finding| finding.line).collect::<Vec<_>>(),
            [2, 3]
        );
    }
}
