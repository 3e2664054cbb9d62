//! STYLE rule 6 and 7: comments say why; code that is commented out is gone.
//!
//! Owns: the guess what is commented-out code; TODO needs an issue or ADR number.
//! Does not own: citations (see `citations`). Start reading at [`check`].

use super::{Finding, RustFile};

/// Finds commented-out code and TODOs that belong to nothing.
pub(super) fn check(file: &RustFile<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in file.masked.comments.lines().enumerate() {
        let comment = line.trim();
        if is_code(comment) {
            findings.push(Finding::new(
                file.file,
                at + 1,
                "commented-out code (rule 7)",
            ));
        }
        if is_loose_todo(comment) {
            let says = "a TODO names its issue (#12) or ADR 0012";
            findings.push(Finding::new(file.file, at + 1, says));
        }
    }
    findings
}

/// Whether a `//` comment (documentation is prose or an example) reads like Rust, not English.
fn is_code(comment: &str) -> bool {
    let Some(text) = comment.strip_prefix("//") else {
        return false;
    };
    if text.starts_with(['/', '!']) {
        return false;
    }
    let text = text.trim();
    let ends_like_code = text.ends_with(';') || text.ends_with('{') || text.ends_with("},");
    let has_code = ["::", " = ", "();", ");", "let ", "fn ", "->", "=>"]
        .iter()
        .any(|sign| text.contains(sign));
    let is_attribute = text.starts_with("#[") && text.ends_with(']');
    (ends_like_code && has_code) || text == "}" || text == "});" || is_attribute
}

fn is_loose_todo(comment: &str) -> bool {
    let words = || comment.split(|next: char| !(next.is_alphanumeric() || next == '_'));
    let is_todo = words().any(|word| MARKS.contains(&word));
    let has_issue = comment
        .match_indices('#')
        .any(|(at, _)| comment[at + 1..].starts_with(|next: char| next.is_ascii_digit()));
    is_todo && !has_issue && !comment.contains("ADR ")
}

/// Spelled so that this file does not find itself.
const MARKS: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commented_out_code_is_found() {
        for line in [
            "// let a = b;",
            "// self.send(packet);",
            "// if a == b => {",
            "//}",
        ] {
            assert!(is_code(line), "{line}");
        }
    }

    #[test]
    fn prose_and_documentation_are_left_alone() {
        for line in [
            "// [MQTT-3.3.1-2] A QoS 0 PUBLISH never carries DUP;",
            "/// let a = b;",
            "//! use a::b;",
            "// the limit is a = 3, by default",
            "// first this; then that",
        ] {
            assert!(!is_code(line), "{line}");
        }
    }

    #[test]
    fn a_todo_needs_a_number() {
        let mark = MARKS[0];
        assert!(is_loose_todo(&format!("// {mark}: later")));
        assert!(!is_loose_todo(&format!("// {mark} #12: later")));
        assert!(!is_loose_todo(&format!("// {mark}: ADR 0003 says when")));
        assert!(!is_loose_todo("// todo lists are fine"));
    }
}
