//! A link in a page leads somewhere.
//!
//! Owns: that rule, for links within the repository. Does not own: links in Rust's documentation (rustdoc's).
//! Start reading at [`check`].

use std::path::Path;

use super::Finding;
use crate::files::TextFile;

/// Finds links to files and headings that are not there.
pub(super) fn check(page: &TextFile, root: &Path) -> Vec<Finding> {
    if !page.path.ends_with(".md") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    let mut is_code = false;
    for (at, line) in page.text.lines().enumerate() {
        is_code ^= line.starts_with("```");
        let links = line.split("](").skip(1);
        let targets = links.filter_map(|rest| Some(rest.split_once(')')?.0));
        for target in targets.filter(|target| !is_code && !target.contains("://")) {
            if !leads_somewhere(page, root, target) {
                findings.push(Finding::new(
                    page,
                    at + 1,
                    format!("no such place: {target}"),
                ));
            }
        }
    }
    findings
}

fn leads_somewhere(page: &TextFile, root: &Path, target: &str) -> bool {
    let (path, heading) = target.split_once('#').unwrap_or((target, ""));
    let here = root.join(&page.path);
    let there = match path {
        "" => here,
        path => here.parent().unwrap_or(root).join(path),
    };
    if heading.is_empty() {
        return there.exists();
    }
    let text = std::fs::read_to_string(there).unwrap_or_default();
    let mut headings = text.lines().filter(|line| line.starts_with('#'));
    headings.any(|line| anchor_of(line) == heading)
}

/// What a heading is called in a link.
fn anchor_of(line: &str) -> String {
    let words = line.trim_start_matches('#').trim().to_lowercase();
    let kept = words
        .chars()
        .filter(|one| one.is_alphanumeric() || " -_".contains(*one));
    kept.map(|one| if one == ' ' { '-' } else { one }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_to_nowhere_are_found() {
        let text = "# A `page`, of two\n[a](#a-page-of-two) [b](#b) [c](../README.md) [d](e.md)\n\
                    [f](../README.md#use) [g](../README.md#nothing) [h](https://a.example/b)\n\
                    ```\n[i](j)\n```\n";
        let page = TextFile::new("docs/page.md", text);
        let root = crate::workspace_root();
        let of_itself = anchor_of("# A `page`, of two");
        assert_eq!(of_itself, "a-page-of-two");
        let says = |finding: &Finding| (finding.line, finding.says.clone());
        let found: Vec<_> = check(&page, root).iter().map(says).collect();
        let no = |line, target: &str| (line, format!("no such place: {target}"));
        // The page itself is not on the disk.
        let expected = [
            no(2, "#a-page-of-two"),
            no(2, "#b"),
            no(2, "e.md"),
            no(3, "../README.md#nothing"),
        ];
        assert_eq!(found, expected);
    }
}
