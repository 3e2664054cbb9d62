//! Where values of the configuration come from: a file, the environment, `--set`, flags; the later wins.
//!
//! Owns: [`Layers`], how variables of the environment and `--set` name keys, the origin of every value. Does not own: what
//! keys there are (see `keys`), which values fit (see `checked`). Start reading at [`Layers::check`].
//! Invariant: what is wrong is said with the place it was written at.

use std::borrow::Cow;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize as _;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::directories::without_passwords;
use super::error::Words;
use super::keys::{self, Kind, PREFIX, is_number};
use super::{Config, ConfigError, Problem, raw::RawConfig};

/// Sources of values, each stronger than the one before it.
#[derive(Clone, Debug, Default)]
pub struct Layers {
    sources: Vec<Source>,
    listen: Vec<SocketAddr>,
}

/// One of them.
#[derive(Clone)]
struct Source {
    origin: Origin,
    /// All of a file, or one value.
    text: String,
    /// The key it is the value of; `None` for a file.
    path: Option<String>,
    /// Whether it is to be taken letter by letter.
    is_literal: bool,
}

impl fmt::Debug for Source {
    /// A value may be a secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.origin)
    }
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody has said anything.
    Default,
    /// A line of a file; from 1.
    File(PathBuf, usize),
    /// A variable of the environment.
    Variable(String),
    /// `--set`.
    Set,
    /// Another flag of the command line.
    Flag(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Variable(name) => f.write_str(name),
            Self::Set => f.write_str("--set"),
            Self::Flag(name) => f.write_str(name),
        }
    }
}

/// What a value has been merged to.
pub(super) type Merged<'a> = Spanned<DeTable<'a>>;

/// A problem, and the bytes of all sources that it is about.
struct Wrong {
    span: Option<Range<usize>>,
    error: ConfigError,
}

impl Layers {
    /// Nothing but the defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the file at `path` (TOML).
    /// # Errors
    /// It cannot be read.
    pub fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        self.text(text, path);
        Ok(())
    }

    /// Adds the text of a file; `path` is where it came from.
    pub fn text(&mut self, text: impl Into<String>, path: &Path) {
        self.sources.push(Source {
            origin: Origin::File(path.to_owned(), 1),
            text: text.into(),
            path: None,
            is_literal: true,
        });
    }

    /// Adds the variables that begin with `VENCEJO__`: `VENCEJO__LIMITS__SESSIONS_MAX` is `limits.sessions_max`,
    /// `VENCEJO__LISTENERS__0__NAME` is of the first listener. One that ends with `_FILE` names a file that holds a text.
    /// # Errors
    /// One of them names no key, or cannot be read.
    pub fn environment(
        &mut self,
        variables: impl Iterator<Item = (OsString, OsString)>,
    ) -> Result<(), ConfigError> {
        let names = variables.filter_map(|(name, value)| Some((name.into_string().ok()?, value)));
        let mut ours: Vec<(String, OsString)> = names
            .filter(|(name, _)| name.starts_with("VENCEJO_"))
            .collect();
        ours.sort();
        let mut seen: Vec<String> = Vec::new();
        for (name, value) in ours {
            let given = |message: String| given(format!("environment variable {name}"), message);
            let Some(rest) = name.strip_prefix(PREFIX) else {
                if let Some(meant) = with_two_underscores(&name) {
                    return Err(given(format!(
                        "two underscores stand between names: {meant}"
                    )));
                }
                // Service managers make variables of their own with the name of a service.
                continue;
            };
            let (path, is_file) = variable_path(rest).map_err(given)?;
            if seen.contains(&path) {
                return Err(given(format!("{path} is given twice, also by a file")));
            }
            let value = value
                .into_string()
                .map_err(|_| given("the value is not UTF-8".to_owned()))?;
            let text = match is_file {
                false => value,
                true => std::fs::read_to_string(&value)
                    .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
                    .map_err(|error| given(format!("{value}: {error}")))?,
            };
            seen.push(path.clone());
            self.sources.push(Source {
                origin: Origin::Variable(name),
                text,
                path: Some(path),
                is_literal: is_file,
            });
        }
        Ok(())
    }

    /// Adds `key=value`.
    /// # Errors
    /// There is no such key.
    pub fn set(&mut self, text: &str) -> Result<(), ConfigError> {
        let given = |message: String| given(format!("--set {}", key_of(text)), message);
        let (path, value) = text
            .split_once('=')
            .ok_or_else(|| given("wanted key=value, like limits.sessions_max=1000".to_owned()))?;
        let path = path.trim();
        if keys::find(path).is_none() {
            return Err(given(unknown(path, str::to_owned)));
        }
        self.sources.push(Source {
            origin: Origin::Set,
            text: value.to_owned(),
            path: Some(path.to_owned()),
            is_literal: false,
        });
        Ok(())
    }

    /// Adds the value of a flag.
    pub fn flag(&mut self, flag: &'static str, path: &str, value: impl Into<String>) {
        self.sources.push(Source {
            origin: Origin::Flag(flag),
            text: value.into(),
            path: Some(path.to_owned()),
            is_literal: true,
        });
    }

    /// Listens there instead of what everything else says; nothing if there is no address.
    pub fn listen(&mut self, addresses: &[SocketAddr]) {
        self.listen = addresses.to_vec();
    }

    /// The configuration that all of it comes to.
    /// # Errors
    /// Something in it cannot be; the first is named.
    pub fn check(&self) -> Result<Config, ConfigError> {
        let merged = self.merged()?;
        let mut config = self.judged(merged).map_err(|wrong| wrong.error)?;
        if !self.listen.is_empty() {
            config.listeners = self
                .listen
                .iter()
                .map(|address| (*address).into())
                .collect();
        }
        Ok(config)
    }

    /// Everything in it that cannot be, as far as one thing can be told from another.
    #[must_use]
    pub fn problems(&self) -> Vec<ConfigError> {
        let mut merged = match self.merged() {
            Ok(merged) => merged,
            Err(error) => {
                let all = self.syntax();
                return if all.is_empty() { vec![error] } else { all };
            }
        };
        let mut found: Vec<ConfigError> = Vec::new();
        let mut spans: Vec<Range<usize>> = Vec::new();
        while found.len() < PROBLEMS_MAX {
            let Err(wrong) = self.judged(merged.clone()) else {
                break;
            };
            // What is wrong with a table from which something wrong was taken may be only that.
            let span = wrong.span.clone().unwrap_or_default();
            let is_new = spans.is_empty()
                || !span.is_empty() && spans.iter().all(|seen| !overlap(seen, &span));
            if !is_new {
                break;
            }
            found.push(wrong.error);
            if span.is_empty() || !take_out(merged.get_mut(), &span) {
                break;
            }
            spans.push(span);
        }
        found
    }

    /// All that is no TOML in the files.
    fn syntax(&self) -> Vec<ConfigError> {
        let files = self
            .sources
            .iter()
            .filter_map(|source| match &source.origin {
                Origin::File(path, _) => Some((path, source.text.as_str())),
                _ => None,
            });
        let problems = files.flat_map(|(path, text)| {
            let (_, errors) = DeTable::parse_recoverable(text);
            errors.into_iter().map(move |error| {
                let problem = Problem::from_toml(text, error.span(), error.message());
                invalid(path, problem)
            })
        });
        problems.take(PROBLEMS_MAX).collect()
    }

    /// All sources in one table; its spans are those of all texts one after the other.
    pub(super) fn merged(&self) -> Result<Merged<'_>, ConfigError> {
        let mut all = Spanned::new(0..0, DeTable::new());
        let mut base = 0;
        for source in &self.sources {
            match (&source.path, &source.origin) {
                (None, Origin::File(path, _)) => {
                    let table = DeTable::parse(&source.text).map_err(|error| {
                        let problem =
                            Problem::from_toml(&source.text, error.span(), error.message());
                        invalid(path, problem)
                    })?;
                    all = Spanned::new(
                        shifted(table.span(), base),
                        moved_table(table.into_inner(), base),
                    );
                }
                (Some(path), origin) => {
                    let span = base..base + source.text.len().max(1);
                    let words: Vec<&str> = path.split('.').collect();
                    let value = moved(source.value(path), base);
                    insert(all.get_mut(), &words, value, &span)
                        .map_err(|message| given(said_by(origin, path), message))?;
                }
                (None, _) => {}
            }
            base += source.text.len() + 1;
        }
        Ok(all)
    }

    fn judged(&self, merged: Merged<'_>) -> Result<Config, Wrong> {
        let raw = RawConfig::deserialize(toml::Deserializer::from(merged));
        let raw = raw.map_err(|error| self.wrong(error.span(), error.message(), true))?;
        Config::check(raw).map_err(|fault| self.wrong(fault.span, &fault.message, false))
    }

    /// `message` is serde's, or ours.
    fn wrong(&self, span: Option<Range<usize>>, message: &str, is_serde: bool) -> Wrong {
        let Some((source, local)) = self.source_at(span.clone().unwrap_or_default()) else {
            return Wrong {
                span,
                error: given("configuration".to_owned(), message.to_owned()),
            };
        };
        let error = match (&source.origin, &source.path) {
            (Origin::File(path, _), _) => {
                let local = span.is_some().then_some(local);
                let problem = match is_serde {
                    true => Problem::from_toml(&source.text, local, message),
                    false => Problem::at(&source.text, local, message.to_owned()),
                };
                invalid(path, problem)
            }
            (origin, path) => {
                let words = match is_serde {
                    true => Words::of_serde(message).without_passwords(),
                    false => without_passwords(message),
                };
                let path = path.as_deref().unwrap_or_default();
                let is_secret = keys::find(path).is_some_and(keys::Key::is_secret);
                let words = match is_secret {
                    true => "a header cannot hold this".to_owned(),
                    false => words,
                };
                given(said_by(origin, path), words)
            }
        };
        Wrong { span, error }
    }

    /// The source that these bytes of all are in, and where in it.
    fn source_at(&self, span: Range<usize>) -> Option<(&Source, Range<usize>)> {
        let mut base = 0;
        for source in &self.sources {
            let end = base + source.text.len() + 1;
            if (base..end).contains(&span.start) {
                let local_end = span.end.saturating_sub(base).min(source.text.len());
                return Some((source, span.start - base..local_end.max(span.start - base)));
            }
            base = end;
        }
        None
    }

    /// Where the value at `span` was written.
    pub(super) fn origin_at(&self, span: &Range<usize>) -> Origin {
        let Some((source, local)) = self.source_at(span.clone()) else {
            return Origin::Default;
        };
        match &source.origin {
            Origin::File(path, _) => {
                let before = source.text.get(..local.start).unwrap_or_default();
                Origin::File(path.clone(), before.matches('\n').count() + 1)
            }
            other => other.clone(),
        }
    }

    /// Where `--listen` says to listen.
    pub(super) fn listens(&self) -> &[SocketAddr] {
        &self.listen
    }
}

impl Source {
    /// The value of a key, from a text that is not TOML as a whole.
    fn value(&self, path: &str) -> Spanned<DeValue<'_>> {
        let text = self.text.as_str();
        let all = 0..text.len().max(1);
        let whole = |value| Spanned::new(all.clone(), value);
        let as_text = || whole(DeValue::String(Cow::Borrowed(text)));
        let as_toml = || DeValue::parse(text).ok();
        match keys::find(path).map(|key| key.kind) {
            Some(Kind::Text | Kind::File | Kind::Word(_)) if self.is_literal => as_text(),
            Some(Kind::Text | Kind::File | Kind::Word(_)) => {
                let quoted = as_toml().filter(|value| value.get_ref().is_str());
                quoted.unwrap_or_else(as_text)
            }
            // `find` gives the table for what stands below it.
            Some(Kind::Map) => as_toml()
                .filter(|value| value.get_ref().is_table() && !self.is_literal)
                .unwrap_or_else(as_text),
            Some(Kind::Size(..) | Kind::Duration(..) | Kind::TextOrNumber) if !is_number(text) => {
                let quoted = as_toml().filter(|value| value.get_ref().is_str());
                quoted.unwrap_or_else(as_text)
            }
            Some(Kind::Texts | Kind::Words(_)) if !text.trim_start().starts_with('[') => {
                let mut list = DeArray::new();
                let parts = text.split(',').map(str::trim);
                for part in parts.filter(|part| !part.is_empty()) {
                    list.push(whole(DeValue::String(Cow::Borrowed(part))));
                }
                whole(DeValue::Array(list))
            }
            _ => as_toml().unwrap_or_else(as_text),
        }
    }
}

/// Puts `value` at `path` below `table`, in place of what is there.
fn insert<'a>(
    table: &mut DeTable<'a>,
    path: &[&str],
    value: Spanned<DeValue<'a>>,
    span: &Range<usize>,
) -> Result<(), String> {
    let Some((first, rest)) = path.split_first() else {
        return Ok(());
    };
    if rest.is_empty() {
        table.remove(*first);
        table.insert(
            Spanned::new(span.clone(), Cow::Owned((*first).to_owned())),
            value,
        );
        return Ok(());
    }
    let is_list = rest.first().is_some_and(|next| is_number(next));
    if !table.contains_key(*first) {
        let empty = match is_list {
            true => DeValue::Array(DeArray::new()),
            false => DeValue::Table(DeTable::new()),
        };
        let key = Spanned::new(span.clone(), Cow::Owned((*first).to_owned()));
        table.insert(key, Spanned::new(span.clone(), empty));
    }
    let below = table.get_mut(*first).map(Spanned::get_mut);
    match (below, rest) {
        (Some(DeValue::Table(below)), _) if !is_list => insert(below, rest, value, span),
        (Some(DeValue::Array(list)), [place, rest @ ..]) if is_list => {
            insert_in_list(list, (first, place), rest, value, span)
        }
        (Some(DeValue::Array(_)), _) => Err(format!(
            "{first} is a list: wanted a place in it, like {first}.0"
        )),
        _ => Err(format!("{first} is not a list")),
    }
}

fn insert_in_list<'a>(
    list: &mut DeArray<'a>,
    (name, place): (&str, &str),
    rest: &[&str],
    value: Spanned<DeValue<'a>>,
    span: &Range<usize>,
) -> Result<(), String> {
    let count = list.len();
    let at = place.parse().ok().filter(|at: &usize| *at <= count);
    let at = at.ok_or_else(|| {
        format!("there is no {name}.{place}: {count} are there, the next one is {name}.{count}")
    })?;
    if at == count {
        list.push(Spanned::new(span.clone(), DeValue::Table(DeTable::new())));
    }
    let Some(element) = list.get_mut(at) else {
        return Ok(());
    };
    match element.get_mut() {
        _ if rest.is_empty() => *element = value,
        DeValue::Table(table) => return insert(table, rest, value, span),
        _ => return Err(format!("{name}.{place} is not a table")),
    }
    Ok(())
}

/// Takes out the innermost value that `span` is in, or whose name it is in.
fn take_out(table: &mut DeTable<'_>, span: &Range<usize>) -> bool {
    for (_, value) in table.iter_mut() {
        let is_done = match value.get_mut() {
            DeValue::Table(below) => take_out(below, span),
            DeValue::Array(list) => list.iter_mut().any(|element| match element.get_mut() {
                DeValue::Table(below) => take_out(below, span),
                _ => false,
            }),
            _ => false,
        };
        if is_done {
            return true;
        }
    }
    let is_meant = |place: &Range<usize>| place.start <= span.start && span.end <= place.end;
    let found = table
        .iter()
        .find(|(key, value)| is_meant(&key.span()) || is_meant(&value.span()))
        .map(|(key, _)| key.get_ref().to_string());
    found.is_some_and(|key| table.remove(key.as_str()).is_some())
}

fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    a.start < b.end && b.start < a.end
}

fn shifted(span: Range<usize>, base: usize) -> Range<usize> {
    span.start + base..span.end + base
}

/// The same value, `base` bytes further on.
fn moved(value: Spanned<DeValue<'_>>, base: usize) -> Spanned<DeValue<'_>> {
    let span = shifted(value.span(), base);
    let value = match value.into_inner() {
        DeValue::Table(table) => DeValue::Table(moved_table(table, base)),
        DeValue::Array(mut list) => {
            for element in list.iter_mut() {
                let taken = std::mem::replace(element, Spanned::new(0..0, DeValue::Boolean(false)));
                *element = moved(taken, base);
            }
            DeValue::Array(list)
        }
        other => other,
    };
    Spanned::new(span, value)
}

fn moved_table(table: DeTable<'_>, base: usize) -> DeTable<'_> {
    let entries = table.into_iter().map(|(key, value)| {
        let span = shifted(key.span(), base);
        (Spanned::new(span, key.into_inner()), moved(value, base))
    });
    entries.collect()
}

/// The key that a variable means, and whether its value is the name of a file.
fn variable_path(rest: &str) -> Result<(String, bool), String> {
    let path = rest.to_lowercase().replace("__", ".");
    if let Some(key) = keys::find(&path) {
        return Ok((in_map(key, path), false));
    }
    if let Some(path) = path.strip_suffix("_file") {
        match keys::find(path) {
            Some(key) if matches!(key.kind, Kind::Text | Kind::Map) => {
                return Ok((in_map(key, path.to_owned()), true));
            }
            Some(key) if key.kind == Kind::File => {
                let name = format!("{PREFIX}{}", path.replace('.', "__").to_uppercase());
                return Err(format!("{} is the name of a file itself: {name}", key.path));
            }
            _ => {}
        }
    }
    Err(unknown(&path, |path| {
        format!("{PREFIX}{}", path.replace('.', "__").to_uppercase())
    }))
}

/// Names of headers have hyphens where names of variables cannot.
fn in_map(key: &keys::Key, path: String) -> String {
    match path.rsplit_once('.') {
        Some((table, name)) if key.is_secret() && path != key.path => {
            format!("{table}.{}", name.replace('_', "-"))
        }
        _ => path,
    }
}

/// What was meant by a variable with one underscore between names, if that is a key.
fn with_two_underscores(name: &str) -> Option<String> {
    let rest = name.strip_prefix("VENCEJO_")?.to_lowercase();
    let meant = keys::all()
        .iter()
        .find(|key| key.path.replace('.', "_") == rest)?;
    Some(meant.variable())
}

fn unknown(path: &str, shown: impl Fn(&str) -> String) -> String {
    match keys::nearest(path) {
        Some(nearest) => format!(
            "there is no key `{path}`, did you mean `{}`?",
            shown(nearest)
        ),
        None => format!("there is no key `{path}`"),
    }
}

fn said_by(origin: &Origin, path: &str) -> String {
    match origin {
        Origin::Variable(name) => format!("environment variable {name}"),
        Origin::Set => format!("--set {path}"),
        other => other.to_string(),
    }
}

fn key_of(text: &str) -> &str {
    text.split('=').next().unwrap_or_default()
}

fn given(origin: String, message: String) -> ConfigError {
    ConfigError::Given { origin, message }
}

fn invalid(path: &Path, problem: Problem) -> ConfigError {
    ConfigError::Invalid {
        path: path.to_owned(),
        problem: Box::new(problem),
    }
}

/// So many problems are told at once.
const PROBLEMS_MAX: usize = 20;

#[cfg(test)]
mod tests;
