//! Rows of bytes in and bytes out, against any server that speaks MQTT.
//!
//! Owns: [`Suite`], the worker threads, the report.
//! Does not own: the rows (`cases/*.toml`), their language (`bytes`, `steps`, `expectation`).
//! Start reading at [`Suite::run`]. Invariant: what is not skipped has passed or failed.

mod bytes;
mod cases;
mod expectation;
mod packet;
mod runner;
mod seeds;
mod steps;

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::cases::Case;
use crate::runner::Target;
pub use crate::runner::Verdict;

/// Rows to run.
#[derive(Debug)]
pub struct Suite {
    cases: Vec<Case>,
}

/// What became of a case.
#[derive(Debug)]
pub struct Outcome {
    /// File, version and sentence.
    pub name: String,
    /// The statements that it shows.
    pub statements: Vec<String>,
    /// Whether it holds.
    pub verdict: Verdict,
}

/// What became of all of them.
#[derive(Debug)]
pub struct Report {
    /// In the order of the rows.
    pub outcomes: Vec<Outcome>,
}

impl Suite {
    /// The rows that this was built with.
    /// # Errors
    /// They are not valid, which the tests would have found.
    pub fn embedded() -> Result<Self, String> {
        let files = ROWS
            .iter()
            .map(|(stem, text)| ((*stem).to_owned(), (*text).to_owned()));
        let cases = cases::read_all(files, &nonce())?;
        Ok(Self { cases })
    }

    /// The rows in the `.toml` files of a folder.
    /// # Errors
    /// They cannot be read, or are not valid.
    pub fn load(folder: &Path) -> Result<Self, String> {
        let cases = cases::load(folder, &nonce())?;
        Ok(Self { cases })
    }

    /// Leaves out every case whose name does not contain `part`.
    pub fn keep(&mut self, part: &str) {
        self.cases.retain(|case| case.name.contains(part));
    }

    /// The names of the cases, each with its statements.
    pub fn names(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.cases
            .iter()
            .map(|case| (case.name.as_str(), case.statements.as_slice()))
    }

    /// Writes the rows' bytes into a folder, as seeds for fuzz targets; how many there are.
    /// # Errors
    /// It cannot be written.
    pub fn write_seeds(&self, folder: &Path) -> Result<usize, String> {
        seeds::write(&self.cases, folder)
    }

    /// Runs the cases on `jobs` threads against the server at `address`. `is_lenient`: it may refuse with another code than
    /// the row's, or close without a word.
    #[must_use]
    pub fn run(&self, address: SocketAddr, is_lenient: bool, jobs: usize) -> Report {
        let target = Target {
            address,
            is_lenient,
        };
        let next = AtomicUsize::new(0);
        let verdicts: Mutex<BTreeMap<usize, Verdict>> = Mutex::new(BTreeMap::new());
        thread::scope(|scope| {
            for _ in 0..jobs.max(1) {
                scope.spawn(|| {
                    loop {
                        let index = next.fetch_add(1, Ordering::Relaxed);
                        let Some(case) = self.cases.get(index) else {
                            return;
                        };
                        let verdict = runner::run(case, target);
                        if let Ok(mut verdicts) = verdicts.lock() {
                            verdicts.insert(index, verdict);
                        }
                    }
                });
            }
        });
        let verdicts = verdicts.into_inner().unwrap_or_default();
        let outcomes = verdicts.into_iter().filter_map(|(index, verdict)| {
            let case = self.cases.get(index)?;
            Some(Outcome {
                name: case.name.clone(),
                statements: case.statements.clone(),
                verdict,
            })
        });
        Report {
            outcomes: outcomes.collect(),
        }
    }
}

impl Report {
    /// How many cases have passed, were skipped, and have failed.
    #[must_use]
    pub fn counts(&self) -> [usize; 3] {
        let count = |is: fn(&Verdict) -> bool| {
            self.outcomes
                .iter()
                .filter(|outcome| is(&outcome.verdict))
                .count()
        };
        [
            count(|verdict| matches!(verdict, Verdict::Passed)),
            count(|verdict| matches!(verdict, Verdict::Skipped)),
            count(|verdict| matches!(verdict, Verdict::Failed(_))),
        ]
    }

    /// The failures in the order of the rows, and the total.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for outcome in &self.outcomes {
            if let Verdict::Failed(reason) = &outcome.verdict {
                let statements = outcome.statements.join(", ");
                text.push_str(&format!(
                    "FAILED {} [{statements}]\n  {reason}\n",
                    outcome.name
                ));
            }
        }
        let [passed, skipped, failed] = self.counts();
        text.push_str(&format!(
            "conformance: {} cases, {passed} passed",
            self.outcomes.len()
        ));
        if skipped > 0 {
            text.push_str(&format!(", {skipped} skipped (no such limit announced)"));
        }
        if failed > 0 {
            text.push_str(&format!(", {failed} failed"));
        }
        text.push('\n');
        text
    }
}

/// The first address of `HOST:PORT`.
/// # Errors
/// It has none.
pub fn resolve(host: &str) -> Result<SocketAddr, String> {
    let mut addresses = host
        .to_socket_addrs()
        .map_err(|error| format!("{host}: {error}"))?;
    addresses
        .next()
        .ok_or_else(|| format!("{host}: no address"))
}

/// Four letters that differ from run to run, so that runs do not meet in one broker.
fn nonce() -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let mut value = since.as_millis();
    let mut letters = String::new();
    for _ in 0..5 {
        letters.push(char::from(b'a' + u8::try_from(value % 26).unwrap_or(0)));
        value /= 26;
    }
    letters
}

/// Every file of `cases`, by its name.
const ROWS: &[(&str, &str)] = &[
    ("connect", include_str!("../cases/connect.toml")),
    ("fixed_header", include_str!("../cases/fixed_header.toml")),
    ("flow", include_str!("../cases/flow.toml")),
    ("limits", include_str!("../cases/limits.toml")),
    ("properties", include_str!("../cases/properties.toml")),
    ("publish", include_str!("../cases/publish.toml")),
    ("retained", include_str!("../cases/retained.toml")),
    ("session", include_str!("../cases/session.toml")),
    ("subscribe", include_str!("../cases/subscribe.toml")),
    ("utf8", include_str!("../cases/utf8.toml")),
    ("will", include_str!("../cases/will.toml")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_that_are_built_in_are_all_there_are() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
        let names = |suite: &Suite| {
            suite
                .names()
                .map(|(name, _)| name.to_owned())
                .collect::<Vec<_>>()
        };
        let embedded = Suite::embedded().expect("is valid");
        let loaded = Suite::load(&folder).expect("is valid");
        assert_eq!(names(&embedded), names(&loaded));
    }
}
