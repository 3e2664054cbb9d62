//! What the sources say about statements: places in code, tests, deviations.
//!
//! Owns: reading citations in crates, `Verifies` lines in tests, statements in conformance rows.
//! Does not own: what is enough (see `matrix`). Start reading at [`Evidence::gather`].

use std::collections::{BTreeMap, BTreeSet};

use crate::files::TextFile;
use crate::lexer::Masked;
use crate::spec::{Citation, Version, citations_in};

/// All citations of the workspace, by statement.
#[derive(Debug, Default)]
pub(super) struct Evidence {
    /// `path:line` of each citation in shipped code.
    pub(super) code: BTreeMap<Citation, Vec<String>>,
    /// `path::test` of each test, or the path of the conformance rows.
    pub(super) tests: BTreeMap<Citation, BTreeSet<String>>,
    /// Reasons written at `deviates [...]:` in the code.
    pub(super) deviations: BTreeMap<Citation, String>,
}

impl Evidence {
    /// Every statement that something was said about.
    pub(super) fn citations(&self) -> impl Iterator<Item = &Citation> {
        self.code
            .keys()
            .chain(self.tests.keys())
            .chain(self.deviations.keys())
    }

    /// Reads every file that can speak for a statement.
    ///
    /// # Errors
    /// A sentence that names the conformance table that is no TOML or names no statement.
    pub(super) fn gather(files: &[TextFile]) -> Result<Self, String> {
        let mut evidence = Self::default();
        for file in files.iter().filter(|file| !file.path.starts_with("xtask/")) {
            if file.is_rust() {
                evidence.read_rust(file);
            } else if file.path.starts_with("conformance/cases/") && file.path.ends_with(".toml") {
                evidence.read_cases(file)?;
            } else if file.path.starts_with("interop/") {
                evidence.read_script(file);
            }
        }
        Ok(evidence)
    }

    fn read_rust(&mut self, file: &TextFile) {
        let tests_start = Masked::new(&file.text).tests_start();
        let lines: Vec<&str> = file.text.lines().collect();
        let is_shipped = file.path.starts_with("crates/")
            && file.path.contains("/src/")
            && !file.path.ends_with("/tests.rs")
            && !file.path.contains("/tests/");
        let mut at = 0;
        while at < lines.len() {
            if is_comment(lines[at]) && lines[at].contains("Verifies [") {
                at = self.read_verifies(file, &lines, at);
                continue;
            }
            if is_shipped && at < tests_start {
                self.read_code_line(file, &lines, at);
            }
            at += 1;
        }
    }

    /// Reads the comment that starts at line `at` and says what the next function verifies.
    fn read_verifies(&mut self, file: &TextFile, lines: &[&str], at: usize) -> usize {
        let end = (at..lines.len())
            .find(|&next| !is_comment(lines[next]))
            .unwrap_or(lines.len());
        let name = lines[end..]
            .iter()
            .take(LINES_TO_NAME_MAX)
            .find_map(|line| function_name(line));
        let test = match name {
            Some(name) => format!("{}::{name}", file.path),
            None => file.path.clone(),
        };
        for citation in lines[at..end]
            .iter()
            .flat_map(|line| citations_in(line))
            .flatten()
        {
            self.tests.entry(citation).or_default().insert(test.clone());
        }
        end
    }

    fn read_code_line(&mut self, file: &TextFile, lines: &[&str], at: usize) {
        for citation in citations_in(lines[at]).into_iter().flatten() {
            if lines[at].contains(&format!("deviates {citation}")) {
                self.deviations
                    .insert(citation, deviation_reason(&lines[at..]));
                continue;
            }
            self.code
                .entry(citation)
                .or_default()
                .push(format!("{}:{}", file.path, at + 1));
        }
    }

    fn read_script(&mut self, file: &TextFile) {
        for line in file.text.lines().filter(|line| line.contains("Verifies [")) {
            for citation in citations_in(line).into_iter().flatten() {
                self.tests
                    .entry(citation)
                    .or_default()
                    .insert(file.path.clone());
            }
        }
    }

    fn read_cases(&mut self, file: &TextFile) -> Result<(), String> {
        let table: toml::Table = file
            .text
            .parse()
            .map_err(|error| format!("{}: {error}", file.path))?;
        self.read_table(file, &table, Version::V5)
    }

    /// Reads one table of rows. A row without a version has the version of the table around it.
    fn read_table(
        &mut self,
        file: &TextFile,
        table: &toml::Table,
        around: Version,
    ) -> Result<(), String> {
        let given = table.get("version").and_then(toml::Value::as_str);
        let version = given.and_then(Version::from_text).unwrap_or(around);
        for key in ["statement", "statements"] {
            for text in table.get(key).map(texts).unwrap_or_default() {
                let bracketed = match (text.starts_with("MQTT-"), version) {
                    (true, Version::V311) => format!("[v3.1.1 {text}]"),
                    _ => format!("[{}]", text.trim_matches(['[', ']'])),
                };
                match citations_in(&bracketed).pop() {
                    Some(Ok(citation)) => {
                        self.tests
                            .entry(citation)
                            .or_default()
                            .insert(file.path.clone());
                    }
                    _ => return Err(format!("{}: `{text}` names no statement", file.path)),
                }
            }
        }
        for value in table.values() {
            match value {
                toml::Value::Table(inner) => self.read_table(file, inner, version)?,
                toml::Value::Array(rows) => {
                    for row in rows.iter().filter_map(toml::Value::as_table) {
                        self.read_table(file, row, version)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn texts(value: &toml::Value) -> Vec<&str> {
    match value {
        toml::Value::String(text) => vec![text],
        toml::Value::Array(rows) => rows.iter().filter_map(toml::Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// `f` in `fn f(`.
fn function_name(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let starts_word = before.is_empty() || before.ends_with(' ');
    let length = after.find(|next: char| !(next.is_alphanumeric() || next == '_'))?;
    (starts_word && length > 0 && !is_comment(line)).then(|| &after[..length])
}

/// The words after `deviates [...]:`, to the end of the comment or its next citation.
fn deviation_reason(lines: &[&str]) -> String {
    let mut words = Vec::new();
    for (at, line) in lines.iter().take_while(|line| is_comment(line)).enumerate() {
        let text = line.trim_start().trim_start_matches(['/', '!']).trim();
        let text = match text.split_once("]:") {
            Some((_, reason)) if at == 0 => reason.trim(),
            _ if text.starts_with('[') || text.starts_with("deviates") => break,
            _ => text,
        };
        words.push(text);
    }
    words.join(" ")
}

/// Attributes between a test's doc line and its name.
const LINES_TO_NAME_MAX: usize = 12;

#[cfg(test)]
mod tests {
    use super::*;

    fn v5(number: &str) -> Citation {
        Citation::new(Version::V5, number)
    }

    fn gather(path: &str, text: &str) -> Evidence {
        Evidence::gather(&[TextFile::new(path, text)]).expect("the test's file is valid")
    }

    const SOURCE: &str = "//! Header.\n\
        // [MQTT-3.1.0-1] why\n\
        fn a() {}\n\
        // deviates [MQTT-3.1.0-2]: we wait,\n\
        // because. ADR 0007.\n\
        #[cfg(test)]\n\
        mod tests {\n\
            /// Verifies [MQTT-3.1.2-1] and\n\
            /// [v3.1.1 MQTT-3.1.2-2]: a sentence.\n\
            #[test]\n\
            fn sentence() { /* [MQTT-3.1.2-3] */ }\n\
        }\n";

    #[test]
    fn code_tests_and_deviations_are_told_apart() {
        let found = gather("crates/a/src/a.rs", SOURCE);
        let code: Vec<_> = found.code.into_iter().collect();
        assert_eq!(
            code,
            [(v5("MQTT-3.1.0-1"), vec!["crates/a/src/a.rs:2".to_owned()])]
        );
        let reasons: Vec<_> = found.deviations.into_iter().collect();
        assert_eq!(
            reasons,
            [(v5("MQTT-3.1.0-2"), "we wait, because. ADR 0007.".to_owned())]
        );
        let tests: Vec<String> = found.tests.into_values().flatten().collect();
        assert_eq!(
            tests,
            ["crates/a/src/a.rs::sentence", "crates/a/src/a.rs::sentence"]
        );
    }

    #[test]
    fn conformance_rows_take_the_version_around_them() {
        let text = "version = \"3.1.1\"\n[[case]]\nstatements = [\"MQTT-3.1.0-1\"]\n\
            [[case]]\nversion = \"5\"\nstatement = \"MQTT-3.1.0-2\"\n";
        let found: Vec<_> = gather("conformance/cases/a.toml", text)
            .tests
            .into_keys()
            .collect();
        let wanted = [
            v5("MQTT-3.1.0-2"),
            Citation::new(Version::V311, "MQTT-3.1.0-1"),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn a_row_that_names_no_statement_is_refused() {
        let file = TextFile::new(
            "conformance/cases/a.toml",
            "[[case]]\nstatement = \"3.1\"\n",
        );
        assert!(Evidence::gather(&[file]).is_err());
    }
}
