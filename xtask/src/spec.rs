//! The normative statements of both standards, and how source text cites them.
//!
//! Owns: `docs/spec/mqtt5.toml`, `docs/spec/mqtt311.toml` as values; the shape of a citation.
//! Does not own: which statement is kept where (see `compliance`).
//! Start reading at [`Spec::load`]. Invariant: a [`Citation`] is well formed, not yet known to exist.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::Path;

use serde::Deserialize;

/// Which standard a statement stands in. MQTT 3.1 is cited as 3.1.1, its successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
pub(crate) enum Version {
    #[serde(rename = "5")]
    V5,
    #[serde(rename = "3.1.1")]
    V311,
}

impl Version {
    /// Reads "5", "5.0", "3.1.1" or "3.1".
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        match text {
            "5" | "5.0" => Some(Self::V5),
            "3.1.1" | "3.1" => Some(Self::V311),
            _ => None,
        }
    }
}

/// A statement's name: `[MQTT-3.1.0-1]`, or `[v3.1.1 MQTT-3.1.0-1]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Citation {
    /// The standard.
    pub(crate) version: Version,
    /// `MQTT-3.1.0-1`.
    pub(crate) number: String,
}

impl Citation {
    pub(crate) fn new(version: Version, number: &str) -> Self {
        Self {
            version,
            number: number.to_owned(),
        }
    }
}

impl fmt::Display for Citation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            Version::V5 => write!(formatter, "[{}]", self.number),
            Version::V311 => write!(formatter, "[v3.1.1 {}]", self.number),
        }
    }
}

/// Who must keep a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Who {
    Server,
    Client,
    Both,
}

/// One normative statement.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Statement {
    /// `MQTT-3.1.0-1`.
    pub(crate) number: String,
    /// The section it stands in; part of the number, written out for readers of the file.
    pub(crate) section: String,
    /// Who must keep it.
    pub(crate) who: Who,
    /// Our own line.
    pub(crate) says: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StatementFile {
    statements: Vec<Statement>,
}

/// Every statement of both standards, in the order of the files.
#[derive(Debug)]
pub(crate) struct Spec {
    /// The statements with their names.
    pub(crate) statements: Vec<(Citation, Statement)>,
    index: BTreeMap<Citation, usize>,
}

impl Spec {
    /// Reads `docs/spec`.
    ///
    /// # Errors
    /// A sentence that names the file, and the row that is twice there or in the wrong section.
    pub(crate) fn load(root: &Path) -> Result<Self, String> {
        let mut statements = Vec::new();
        for (name, version) in [("mqtt5.toml", Version::V5), ("mqtt311.toml", Version::V311)] {
            let path = root.join("docs/spec").join(name);
            let text = fs::read_to_string(&path).map_err(|error| format!("{name}: {error}"))?;
            let file: StatementFile =
                toml::from_str(&text).map_err(|error| format!("{name}: {error}"))?;
            for statement in file.statements {
                statements.push((Citation::new(version, &statement.number), statement));
            }
        }
        Self::new(statements)
    }

    pub(crate) fn new(statements: Vec<(Citation, Statement)>) -> Result<Self, String> {
        let mut index = BTreeMap::new();
        for (at, (citation, statement)) in statements.iter().enumerate() {
            if !statement
                .number
                .starts_with(&format!("MQTT-{}-", statement.section))
            {
                return Err(format!(
                    "{citation} does not stand in {}",
                    statement.section
                ));
            }
            if index.insert(citation.clone(), at).is_some() {
                return Err(format!("{citation} stands twice in docs/spec"));
            }
        }
        Ok(Self { statements, index })
    }

    /// Whether the statement exists.
    pub(crate) fn has(&self, citation: &Citation) -> bool {
        self.index.contains_key(citation)
    }
}

/// The citations in one line: in brackets, or alone in a string (a table of refusals, a row's
/// statements). `Err` holds what starts like one in brackets and is none.
pub(crate) fn citations_in(line: &str) -> Vec<Result<Citation, String>> {
    let mut found = Vec::new();
    for (at, open) in line.match_indices(['[', '"']) {
        let close = if open == "[" { "]" } else { open };
        let inside = &line[at + 1..];
        let (version, rest) = match inside.strip_prefix("v3.1.1 ") {
            Some(rest) => (Version::V311, rest),
            None => (Version::V5, inside),
        };
        let Some(number) = rest.strip_prefix("MQTT-") else {
            continue;
        };
        if !number.starts_with(|first: char| first.is_ascii_digit()) {
            continue;
        }
        let length = number
            .find(|next: char| !(next.is_ascii_digit() || next == '.' || next == '-'))
            .unwrap_or(number.len());
        let number = &number[..length];
        let closes = rest["MQTT-".len() + length..].starts_with(close);
        if closes && is_number(number) {
            found.push(Ok(Citation::new(version, &format!("MQTT-{number}"))));
        } else if open == "[" {
            let end = inside.find(close).map_or(inside.len(), |end| end + 1);
            found.push(Err(format!("[{}", &inside[..end])));
        }
    }
    found
}

/// Whether `text` looks like `3.1.0-1`.
fn is_number(text: &str) -> bool {
    let Some((section, row)) = text.split_once('-') else {
        return false;
    };
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    section.split('.').all(is_digits) && is_digits(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_citation_carries_its_version() {
        let found = citations_in("// [MQTT-3.1.0-1] and [v3.1.1 MQTT-4.2-1]: why");
        let wanted = [
            Ok(Citation::new(Version::V5, "MQTT-3.1.0-1")),
            Ok(Citation::new(Version::V311, "MQTT-4.2-1")),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn placeholders_and_links_are_no_citations() {
        assert!(citations_in("[MQTT-x.y.z-n] [MQTT.js](url) [`Spec`]").is_empty());
    }

    #[test]
    fn a_string_that_is_only_a_number_is_a_citation() {
        let found = citations_in("Empty => 0x81, \"v3.1.1 MQTT-4.7.3-1\", \"MQTT-4 is\";");
        assert_eq!(found, [Ok(Citation::new(Version::V311, "MQTT-4.7.3-1"))]);
    }

    #[test]
    fn two_numbers_in_one_bracket_are_refused() {
        let found = citations_in("[MQTT-3.1.0-1, MQTT-3.1.0-2] [MQTT-3.1.0] [MQTT-3.1.0-1");
        let wanted = [
            Err("[MQTT-3.1.0-1, MQTT-3.1.0-2]".to_owned()),
            Err("[MQTT-3.1.0]".to_owned()),
            Err("[MQTT-3.1.0-1".to_owned()),
        ];
        assert_eq!(found, wanted);
    }

    #[test]
    fn the_files_of_this_repository_load() {
        let spec = Spec::load(crate::workspace_root()).expect("docs/spec is readable");
        let of = |version| {
            spec.statements
                .iter()
                .filter(|row| row.0.version == version)
                .count()
        };
        assert_eq!((of(Version::V5), of(Version::V311)), (251, 141));
    }
}
