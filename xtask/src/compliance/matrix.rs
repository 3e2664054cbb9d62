//! The judgement: statement by statement, what is shown and what is missing.
//!
//! Owns: the verdicts and their counts. Does not own: reading sources, printing.
//! Start reading at [`Matrix::new`]. Invariant: every statement has exactly one [`Verdict`].

use std::collections::BTreeSet;

use super::evidence::Evidence;
use super::state::{State, States};
use crate::spec::{Citation, Spec, Version, Who};

/// Where one statement stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Cited in code and by a test.
    Shown,
    /// We do something else, for this reason.
    Deviates(String),
    /// Known to be missing, for this reason.
    Open(String),
    /// Cannot reach us, for this reason.
    NotApplicable(String),
    /// The client's duty, not (wholly) shown by our client library.
    ClientDuty,
    /// Not cited in code, not tested, or neither, and no reason given.
    Gap { code: bool, test: bool },
}

/// One statement with all that is known of it.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) citation: Citation,
    pub(super) who: Who,
    pub(super) says: String,
    pub(super) code: Vec<String>,
    pub(super) tests: Vec<String>,
    pub(super) verdict: Verdict,
    /// Said to be open, yet cited in code and by a test.
    is_stale: bool,
}

/// The rows in the order of the standards.
#[derive(Clone, Debug)]
pub(super) struct Matrix {
    pub(super) rows: Vec<Row>,
    /// Cited, but in neither standard.
    unknown: BTreeSet<Citation>,
}

impl Matrix {
    pub(super) fn new(spec: &Spec, evidence: &Evidence, states: &States) -> Self {
        let rows = spec.statements.iter().map(|(citation, statement)| {
            let code = evidence.code.get(citation).cloned().unwrap_or_default();
            let tests: Vec<String> = evidence
                .tests
                .get(citation)
                .into_iter()
                .flatten()
                .cloned()
                .collect();
            let (has_code, has_test) = (!code.is_empty(), !tests.is_empty());
            let state = states.of(citation);
            let verdict = match (state, evidence.deviations.get(citation)) {
                (Some(State::Deviates(reason)), _) | (None, Some(reason)) => {
                    Verdict::Deviates(reason.clone())
                }
                (Some(State::Open(reason)), _) => Verdict::Open(reason.clone()),
                (Some(State::NotApplicable(reason)), _) => Verdict::NotApplicable(reason.clone()),
                (None, None) if has_code && has_test => Verdict::Shown,
                (None, None) if statement.who == Who::Client => Verdict::ClientDuty,
                (None, None) => Verdict::Gap {
                    code: has_code,
                    test: has_test,
                },
            };
            let is_stale = matches!(verdict, Verdict::Open(_)) && has_code && has_test;
            let (citation, who, says) = (citation.clone(), statement.who, statement.says.clone());
            Row {
                citation,
                who,
                says,
                code,
                tests,
                verdict,
                is_stale,
            }
        });
        let unknown = evidence.citations().filter(|citation| !spec.has(citation));
        Self {
            rows: rows.collect(),
            unknown: unknown.cloned().collect(),
        }
    }

    /// A line for each statement that fails the check.
    pub(super) fn complaints(&self) -> Vec<String> {
        let complain = |row: &Row| match row.verdict {
            Verdict::Gap { code, test } => {
                let missing = match (code, test) {
                    (true, _) => "no test",
                    (_, true) => "no citation in code",
                    _ => "nothing",
                };
                Some(format!("{}: {missing}: {}", row.citation, row.says))
            }
            _ if row.is_stale => Some(format!(
                "{}: said to be open, yet cited and tested",
                row.citation
            )),
            _ => None,
        };
        let unknown = self.unknown.iter();
        let unknown = unknown.map(|citation| format!("{citation}: cited, but not in docs/spec"));
        unknown
            .chain(self.rows.iter().filter_map(complain))
            .collect()
    }

    /// How many statements of `version` satisfy `wanted`.
    pub(super) fn count(&self, version: Version, wanted: impl Fn(&Verdict) -> bool) -> usize {
        let of_version = self
            .rows
            .iter()
            .filter(|row| row.citation.version == version);
        of_version.filter(|row| wanted(&row.verdict)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::TextFile;
    use crate::spec::Statement;

    fn matrix(source: &str, states: &str) -> Matrix {
        let rows = [("MQTT-3.1.0-1", Who::Both), ("MQTT-3.1.0-2", Who::Client)];
        let statements = rows.map(|(number, who)| {
            let (number, section) = (number.to_owned(), "3.1.0".to_owned());
            let citation = Citation::new(Version::V5, &number);
            (
                citation,
                Statement {
                    number,
                    section,
                    who,
                    says: "a rule".to_owned(),
                },
            )
        });
        let spec = Spec::new(statements.to_vec()).expect("the statements are valid");
        let states = States::from_text(states, &spec).expect("the states are valid");
        let file = TextFile::new("crates/a/src/a.rs", source);
        let evidence = Evidence::gather(&[file]).expect("the source is valid");
        Matrix::new(&spec, &evidence, &states)
    }

    const CODE: &str = "// [MQTT-3.1.0-1] why\n";
    const BOTH: &str = "// [MQTT-3.1.0-1] why\n/// Verifies [MQTT-3.1.0-1]: a.\nfn a() {}\n";
    const OPEN: &str = "[[state]]\nversion = \"5\"\nnumber = \"MQTT-3.1.0-1\"\nopen = \"soon\"\n";

    #[test]
    fn code_and_test_together_show_a_statement() {
        assert_eq!(matrix(BOTH, "").rows[0].verdict, Verdict::Shown);
        assert!(matrix(BOTH, "").complaints().is_empty());
    }

    #[test]
    fn a_statement_without_a_test_is_a_gap() {
        let complaints = matrix(CODE, "").complaints();
        assert_eq!(complaints, ["[MQTT-3.1.0-1]: no test: a rule"]);
    }

    #[test]
    fn a_citation_of_nothing_is_a_complaint() {
        let complaints = matrix(&BOTH.replace("0-1] why", "0-1] [MQTT-3.1.0-7]"), "").complaints();
        assert_eq!(complaints, ["[MQTT-3.1.0-7]: cited, but not in docs/spec"]);
    }

    #[test]
    fn a_clients_duty_is_no_gap() {
        assert_eq!(matrix("", "").rows[1].verdict, Verdict::ClientDuty);
    }

    #[test]
    fn open_with_a_reason_passes_until_it_is_shown() {
        assert!(matrix(CODE, OPEN).complaints().is_empty());
        assert_eq!(matrix(BOTH, OPEN).complaints().len(), 1);
    }
}
