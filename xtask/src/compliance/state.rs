//! What docs/spec/state.toml says of statements that code and tests do not show.
//!
//! Owns: that file as values, each with exactly one state and a reason.
//! Does not own: deviations written beside the code (see `evidence`).
//! Start reading at [`States::load`].

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::spec::{Citation, Spec, Version};

/// Why a statement is not simply kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// We do something else, for this reason.
    Deviates(String),
    /// This is missing.
    Open(String),
    /// The rule cannot reach us, for this reason.
    NotApplicable(String),
}

/// The stated exceptions by statement.
#[derive(Debug, Default)]
pub(super) struct States {
    rows: BTreeMap<Citation, State>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    state: Vec<RawState>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawState {
    version: Version,
    number: String,
    deviates: Option<String>,
    open: Option<String>,
    not_applicable: Option<String>,
}

impl States {
    /// Reads the file.
    ///
    /// # Errors
    /// A sentence that names the row which has no statement, no single state, or no reason.
    pub(super) fn load(root: &Path, spec: &Spec) -> Result<Self, String> {
        let path = root.join("docs/spec/state.toml");
        let text = fs::read_to_string(&path).map_err(|error| format!("state.toml: {error}"))?;
        Self::from_text(&text, spec)
    }

    pub(super) fn from_text(text: &str, spec: &Spec) -> Result<Self, String> {
        let file: RawFile = toml::from_str(text).map_err(|error| format!("state.toml: {error}"))?;
        let mut rows = BTreeMap::new();
        for raw in file.state {
            let citation = Citation::new(raw.version, &raw.number);
            if !spec.has(&citation) {
                return Err(format!("state.toml: {citation} is not in docs/spec"));
            }
            let state = match (raw.deviates, raw.open, raw.not_applicable) {
                (Some(reason), None, None) => State::Deviates(reason),
                (None, Some(reason), None) => State::Open(reason),
                (None, None, Some(reason)) => State::NotApplicable(reason),
                _ => return Err(format!("state.toml: {citation} needs exactly one state")),
            };
            if state.reason().trim().is_empty() {
                return Err(format!("state.toml: {citation} has no reason"));
            }
            if rows.insert(citation.clone(), state).is_some() {
                return Err(format!("state.toml: {citation} stands twice"));
            }
        }
        Ok(Self { rows })
    }

    pub(super) fn of(&self, citation: &Citation) -> Option<&State> {
        self.rows.get(citation)
    }
}

impl State {
    /// The words of the file.
    pub(super) fn reason(&self) -> &str {
        match self {
            Self::Deviates(reason) | Self::Open(reason) | Self::NotApplicable(reason) => reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rest: &str) -> Result<States, String> {
        let spec = Spec::load(crate::workspace_root()).expect("docs/spec is readable");
        States::from_text(&format!("[[state]]\nversion = \"5\"\n{rest}"), &spec)
    }

    #[test]
    fn a_state_has_a_statement_and_one_reason() {
        assert!(read("number = \"MQTT-3.1.0-1\"\nopen = \"not yet\"").is_ok());
        assert!(read("number = \"MQTT-3.1.0-9\"\nopen = \"not yet\"").is_err());
        assert!(read("number = \"MQTT-3.1.0-1\"\nopen = \"\"").is_err());
        assert!(read("number = \"MQTT-3.1.0-1\"").is_err());
        assert!(read("number = \"MQTT-3.1.0-1\"\nopen = \"a\"\ndeviates = \"b\"").is_err());
    }
}
