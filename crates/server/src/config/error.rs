//! What is wrong with a configuration, and where: for the person who wrote it.
//!
//! Owns: [`ConfigError`], its place in the file, the nearest valid word.
//! Does not own: what is right (see `raw` and `checked`). Start reading at [`ConfigError`].
//! Invariant: a message names one place and one thing to do.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::directories::without_passwords;

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
    /// A variable of the environment or a flag says something that cannot be.
    Given {
        /// Which.
        origin: String,
        /// What.
        message: String,
    },
}

impl std::error::Error for ConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::Invalid { .. } | Self::Given { .. } => None,
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
            Self::Given { origin, message } => write!(f, "{origin}: {message}"),
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
    /// What to do, if it can be told and is not the nearest word.
    pub hint: Option<String>,
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
        // What is shown on a terminal, or in the log, is no secret.
        let (shown, message) = if is_of_headers(before, &source_line) {
            (without_texts(&source_line), without_texts(&message))
        } else {
            (without_passwords(&source_line), message)
        };
        Self {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            source_line: shown,
            width: meant
                .lines()
                .next()
                .unwrap_or_default()
                .chars()
                .count()
                .max(1),
            message,
            nearest: None,
            hint: None,
        }
    }

    /// The same, from what the TOML reader says.
    pub(super) fn from_toml(text: &str, span: Option<Range<usize>>, message: &str) -> Self {
        let span = span.map(|span| narrow(text, span, message));
        let Words {
            message,
            nearest,
            hint,
        } = reword(message);
        let message = without_passwords(&message);
        Self {
            nearest,
            hint,
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
            hint,
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
        } else if let Some(hint) = hint {
            write!(f, " {hint}")?;
        }
        Ok(())
    }
}

/// Whether a line, with this before it, is about headers of requests: they are there to carry secrets.
fn is_of_headers(before: &str, line: &str) -> bool {
    let mut lines = before.lines().rev().map(str::trim_start);
    let table = lines.find(|line| line.starts_with('['));
    line.contains("headers") || table.is_some_and(|table| table.contains("headers"))
}

/// `text` with stars for what stands in quotes.
fn without_texts(text: &str) -> String {
    let mut open = None;
    let mut is_escaped = false;
    let hide = |one: char| {
        let is_end = open == Some(one) && !is_escaped;
        is_escaped = one == '\\' && !is_escaped;
        match open {
            Some(_) if is_end => open = None,
            Some(_) => return '*',
            None if matches!(one, '"' | '\'') => open = Some(one),
            None => {}
        }
        one
    };
    text.chars().map(hide).collect()
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

/// What the TOML reader says, in words for a person.
pub(super) struct Words {
    message: String,
    nearest: Option<String>,
    hint: Option<String>,
}

impl Words {
    pub(super) fn of_serde(message: &str) -> Self {
        reword(message)
    }

    /// In one line.
    pub(super) fn without_passwords(&self) -> String {
        let mut line = without_passwords(&self.message);
        if let Some(nearest) = &self.nearest {
            line.push_str(&format!(", did you mean `{nearest}`?"));
        } else if let Some(hint) = &self.hint {
            line.push_str(&format!(": {hint}"));
        }
        line
    }
}

/// serde's words as ours; for an unknown word with the nearest of those it expected.
fn reword(message: &str) -> Words {
    let (kind, rest) = if let Some(rest) = message.strip_prefix("unknown field `") {
        ("unknown key", rest)
    } else if let Some(rest) = message.strip_prefix("unknown variant `") {
        ("unknown word", rest)
    } else {
        return reword_value(message.lines().next().unwrap_or_default());
    };
    let unknown = rest.split('`').next().unwrap_or_default();
    let expected: Vec<&str> = rest.split('`').skip(2).step_by(2).collect();
    let hint = match kind {
        "unknown key" => home_of(unknown).map(|home| format!("it belongs {home}")),
        _ => None,
    };
    // A key that is right elsewhere is no misspelling.
    let nearest = match hint {
        Some(_) => None,
        None => nearest(unknown, &expected).map(str::to_owned),
    };
    let mut message = format!("{kind} `{}`", unknown.escape_debug());
    if nearest.is_none() && hint.is_none() {
        match expected.as_slice() {
            [] => {}
            [only] => message.push_str(&format!(", expected {only}")),
            several => message.push_str(&format!(", expected one of {}", several.join(", "))),
        }
    }
    Words {
        message,
        nearest,
        hint,
    }
}

/// Words of Rust and of the TOML reader, as words of the file.
fn reword_value(message: &str) -> Words {
    let hint = message
        .starts_with("key with no value")
        .then(|| "the file is TOML: key = value".to_owned());
    let message = match message.rsplit_once("expected ") {
        Some((what, "u8")) => format!("{what}expected a whole number from 0 to 255"),
        Some((what, "u16")) => format!("{what}expected a whole number from 0 to 65535"),
        Some((what, "u32")) => format!("{what}expected a whole number from 0 to 4294967295"),
        Some((what, "usize")) => format!("{what}expected a whole number, 0 or more"),
        Some((what, "a boolean")) => format!("{what}expected true or false"),
        Some((what, "a string")) => format!("{what}expected a text in quotes"),
        Some((what, "a sequence")) => format!("{what}expected a list: [[listeners]]"),
        Some((what, rust)) if rust.starts_with("struct Raw") => format!("{what}expected a table"),
        _ if message == "wanted string or table" => "expected a word in quotes".to_owned(),
        _ => message.to_owned(),
    };
    Words {
        message,
        nearest: None,
        hint,
    }
}

/// Where a key that stands in the wrong table belongs.
fn home_of(key: &str) -> Option<String> {
    let every_key: toml::Table = toml::from_str(include_str!("every_key.toml")).ok()?;
    if every_key.contains_key(key) {
        return Some("at the top of the file, before the first [table]".to_owned());
    }
    every_key.iter().find_map(|(table, value)| {
        let keys = value.as_table()?;
        keys.contains_key(key).then(|| format!("in [{table}]"))
    })
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
    fn headers_of_requests_are_not_shown() {
        let line = |text: &str| {
            let start = text.rfind('\n').map_or(0, |at| at + 1);
            let message = "invalid type: string \"Bearer x\", expected a table".to_owned();
            let problem = Problem::at(text, Some(start..start + 1), message);
            (problem.source_line, problem.message)
        };
        let hidden = "invalid type: string \"********\", expected a table";
        let (shown, message) = line("[a]\nhttp = { headers = { A = \"Bearer \\\"x\", B = 'é' } }");
        assert_eq!(
            shown,
            "http = { headers = { A = \"**********\", B = '*' } }"
        );
        assert_eq!(message, hidden);
        let (shown, message) = line("[authentication.http.headers]\nA = \"Bearer x\"");
        assert_eq!(
            (shown.as_str(), message.as_str()),
            ("A = \"********\"", hidden)
        );
        let (shown, _) = line("[x.headers]\nA = \"b\"\n[y]\nurl = \"http://a\"");
        assert_eq!(shown, "url = \"http://a\"");
    }

    #[test]
    fn nearest_word_ignores_case_and_far_words() {
        assert_eq!(nearest("Shardz", &["shards", "limits"]), Some("shards"));
        assert_eq!(nearest("zzz", &["shards", "limits"]), None);
    }

    #[test]
    fn key_of_another_table_is_sent_home() {
        assert_eq!(home_of("receive_maximum").as_deref(), Some("in [limits]"));
        let top = home_of("shards").unwrap_or_default();
        assert!(top.starts_with("at the top of the file"), "{top}");
        assert_eq!(home_of("max_connections"), None);
    }

    #[test]
    fn place_counts_characters_not_bytes() {
        let problem = Problem::at("a = 1\n\u{e9} = x\n", Some(11..12), "m".to_owned());
        assert_eq!((problem.line, problem.column, problem.width), (2, 5, 1));
    }
}
