//! A translated page says what the page it translates says, as far as a machine can see.
//!
//! Owns: that rule. Does not own: whether the words are right. Start reading at [`check`].

use super::Finding;
use crate::files::TextFile;

/// Finds code, links, headings and rows of tables that only one of two pages has.
pub(super) fn check(files: &[TextFile]) -> Vec<Finding> {
    let page = |path: &str| files.iter().find(|file| file.path == path);
    let mut findings = Vec::new();
    for (original, translation) in PAGES {
        let (Some(original), Some(translation)) = (page(original), page(translation)) else {
            continue;
        };
        let (from, to) = (Shape::of(&original.text), Shape::of(&translation.text));
        let mut compare = |what: &str, from: &[String], to: &[String]| {
            for (says, has, lacks) in [("has no", from, to), ("has its own", to, from)] {
                for line in has.iter().filter(|line| !lacks.contains(*line)) {
                    let says = format!("{says} {what} of {}: {line}", original.path);
                    findings.push(Finding::new(translation, 0, says));
                }
            }
        };
        compare("code", &from.code, &to.code);
        compare("link", &from.links, &to.links);
        if from.code != to.code {
            let says = format!("has not the code of {}, in its order", original.path);
            findings.push(Finding::new(translation, 0, says));
        }
        if from.headings != to.headings || from.rows != to.rows {
            let says = format!("has not the headings and rows of {}", original.path);
            findings.push(Finding::new(translation, 0, says));
        }
    }
    findings
}

/// What stays the same in every language.
#[derive(Debug, Default, PartialEq, Eq)]
struct Shape {
    /// Lines of code, without the comments behind them.
    code: Vec<String>,
    /// Other pages and places in them.
    links: Vec<String>,
    /// How deep each heading is.
    headings: Vec<usize>,
    /// Rows of tables.
    rows: usize,
}

impl Shape {
    fn of(text: &str) -> Self {
        let mut shape = Self::default();
        let mut is_code = false;
        for line in text.lines() {
            if line.starts_with("```") {
                is_code = !is_code;
                shape.code.push(line.to_owned());
            } else if is_code {
                shape.code.push(without_comment(line).to_owned());
            } else {
                shape.read(line);
            }
        }
        shape
    }

    fn read(&mut self, line: &str) {
        if line.starts_with('#') {
            let rest = line.trim_start_matches('#');
            self.headings.push(line.len() - rest.len());
        }
        self.rows += usize::from(line.starts_with('|'));
        let links = line.split("](").skip(1);
        let targets = links.filter_map(|rest| Some(rest.split_once(')')?.0));
        let is_elsewhere = |target: &str| !target.starts_with('#') && !is_a_page(target);
        let elsewhere = targets.filter(|target| is_elsewhere(target));
        self.links.extend(elsewhere.map(str::to_owned));
    }
}

/// Pages lead to their translations and back.
fn is_a_page(target: &str) -> bool {
    let pages = PAGES.iter();
    pages
        .flat_map(|(from, to)| [from, to])
        .any(|page| *page == target)
}

/// A comment stands behind two spaces at least.
fn without_comment(line: &str) -> &str {
    let starts = ["  #", "  //"].into_iter();
    let start = starts.filter_map(|start| line.find(start)).min();
    start.map_or(line, |at| &line[..at]).trim_end()
}

/// A page, and the one that says the same in another language.
const PAGES: &[(&str, &str)] = &[("README.md", "README.es.md")];

#[cfg(test)]
mod tests {
    use super::*;

    fn says(original: &str, translation: &str) -> Vec<String> {
        let files = [
            TextFile::new("README.md", original),
            TextFile::new("README.es.md", translation),
        ];
        let findings = check(&files).into_iter();
        findings.map(|finding| finding.says).collect()
    }

    #[test]
    fn a_translation_may_differ_in_its_words_only() {
        let original = "# A\n[b](c.md) [here](#a)\n| d |\n```sh\nrun it    # now\n```\n";
        let translation =
            "# Z\n[y](c.md) [acá](#z) [en](README.md)\n| x |\n```sh\nrun it  # ya\n```\n";
        assert!(says(original, translation).is_empty());
    }

    #[test]
    fn code_that_only_one_page_has_is_found() {
        let original = "```sh\nrun it\n```\n";
        let translation = "```sh\nrun that\n```\n";
        assert_eq!(
            says(original, translation),
            [
                "has no code of README.md: run it",
                "has its own code of README.md: run that",
                "has not the code of README.md, in its order",
            ]
        );
        let twice = "```sh\nrun it\n```\n```sh\nrun it\n```\n";
        assert_eq!(says(twice, original).len(), 1);
    }

    #[test]
    fn links_headings_and_rows_that_only_one_page_has_are_found() {
        assert_eq!(says("[a](b.md)\n", "a\n").len(), 1);
        assert_eq!(says("## a\n", "a\n").len(), 1);
        assert_eq!(says("| a |\n| b |\n", "| a |\n").len(), 1);
    }
}
