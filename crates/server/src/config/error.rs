//! What is wrong with a configuration, and where: for the person who wrote it.
//!
//! Owns: [`ConfigError`], its place in the file, the nearest valid word.
//! Does not own: what is right (see `raw` and `checked`). Start reading at [`ConfigError`].
//! Invariant: a message names one place and one thing to do.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Why a configuration was refused. Prints as `file:line:column: what`, the line, a caret, a hint.
#[derive(Debug)]
pub enum ConfigError {
    /// The file could not be read.
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file says something that cannot be.
    Invalid {
        /// Which file.
        path: PathBuf,
        /// What, and where in it.
        problem: Box<Problem>,
    },
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::Invalid { .. } => None,
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, source } => {
                write!(f, "{}: cannot be read: {source}", path.display())
            }
            Self::Invalid { path, problem } => problem.fmt_in(path, f),
        }
    }
}

/// One thing that is wrong, with its place.
#[derive(Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The line itself.
    pub source_line: String,
    /// How many characters of the line are meant; at least 1.
    pub width: usize,
    /// What is wrong.
    pub message: String,
    /// The nearest valid word, if one is near.
    pub nearest: Option<String>,
}

impl Problem {
    /// A problem with the bytes `span` of `text`.
    pub(super) fn at(text: &str, span: Option<Range<usize>>, message: String) -> Self {
        let span = span.unwrap_or(0..0);
        let start = floor_char_boundary(text, span.start);
        let before = text.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let rest = text.get(line_start..).unwrap_or_default();
        let source_line = rest.lines().next().unwrap_or_default().to_owned();
        let meant = text
            .get(start..floor_char_boundary(text, span.end))
            .unwrap_or_default();
        Self {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            source_line,
            width: meant
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .count()
                .max(1),
            message,
            nearest: None,
        }
    }

    /// The same, from what the TOML reader says.
    pub(super) fn from_toml(text: &str, error: &toml::de::Error) -> Self {
        let (message, nearest) = reword(error.message());
        let span = error.span().map(|span| narrow(text, span, error.message()));
        Self {
            nearest,
            ..Self::at(text, span, message)
        }
    }

    fn fmt_in(&self, path: &Path, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            line,
            column,
            source_line,
            width,
            message,
            nearest,
        } = self;
        let margin = " ".repeat(line.to_string().len());
        writeln!(f, "{}:{line}:{column}: {message}", path.display())?;
        writeln!(f, "{margin} |")?;
        writeln!(f, "{line} | {source_line}")?;
        write!(
            f,
            "{margin} | {}{}",
            " ".repeat(column - 1),
            "^".repeat(*width)
        )?;
        if let Some(nearest) = nearest {
            write!(f, " did you mean `{nearest}`?")?;
        }
        Ok(())
    }
}

/// Where the TOML reader blames a whole table for one unknown key, finds the key.
fn narrow(text: &str, span: Range<usize>, message: &str) -> Range<usize> {
    let unknown = message
        .strip_prefix("unknown field `")
        .and_then(|rest| rest.split('`').next());
    let Some(key) = unknown else { return span };
    let meant = text.get(span.clone()).unwrap_or_default();
    if meant.trim_matches('"') == key {
        return span;
    }
    let found = meant.find(key).map(|at| span.start + at);
    found.map_or(span, |start| start..start + key.len())
}

/// serde's words for an unknown word, as ours, with the nearest of those it expected.
fn reword(message: &str) -> (String, Option<String>) {
    let (kind, rest) = if let Some(rest) = message.strip_prefix("unknown field `") {
        ("unknown key", rest)
    } else if let Some(rest) = message.strip_prefix("unknown variant `") {
        ("unknown word", rest)
    } else {
        return (message.lines().next().unwrap_or_default().to_owned(), None);
    };
    let mut words = rest.split('`').step_by(2);
    let unknown = words.next().unwrap_or_default();
    let expected: Vec<&str> = rest.split('`').skip(2).step_by(2).collect();
    let nearest = nearest(unknown, &expected).map(str::to_owned);
    let mut text = format!("{kind} `{}`", unknown.escape_debug());
    if nearest.is_none() && !expected.is_empty() {
        text.push_str(", expected one of ");
        text.push_str(&expected.join(", "));
    }
    (text, nearest)
}

/// The valid word a person most likely meant.
fn nearest<'a>(unknown: &str, expected: &[&'a str]) -> Option<&'a str> {
    let lower = unknown.to_lowercase();
    expected
        .iter()
        .map(|word| (strsim::jaro_winkler(&lower, word), *word))
        .filter(|(likeness, _)| *likeness >= LIKENESS_MIN)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, word)| word)
}

fn floor_char_boundary(text: &str, at: usize) -> usize {
    let at = at.min(text.len());
    (0..=at)
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}

/// Below this likeness (0 to 1) a suggestion would be a guess.
const LIKENESS_MIN: f64 = 0.75;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_word_ignores_case_and_far_words() {
        assert_eq!(nearest("Shardz", &["shards", "limits"]), Some("shards"));
        assert_eq!(nearest("zzz", &["shards", "limits"]), None);
    }

    #[test]
    fn place_counts_characters_not_bytes() {
        let problem = Problem::at("a = 1\n\u{e9} = x\n", Some(11..12), "m".to_owned());
        assert_eq!((problem.line, problem.column, problem.width), (2, 5, 1));
    }
}
