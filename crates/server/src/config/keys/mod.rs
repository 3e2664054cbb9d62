//! Every key of the configuration as one table: its form, its default, what it means.
//!
//! Owns: [`Key`], [`Kind`], how a key is found by what a person typed. Does not own: the rows (see `rows` and beside it),
//! what is read (see `raw`) and judged (see `checked`). Start reading at [`all`]. Invariant: the table has the keys that the
//! file may have, no more and no less, and the defaults of the code.

mod limit_rows;
mod login_rows;
mod right_rows;
mod rows;

use std::sync::LazyLock;

use super::limit_table;

/// One key of the configuration.
#[derive(Clone, Debug)]
pub struct Key {
    /// Where it stands, from the top of the file: `limits.connections_max`. Lists have no numbers here.
    pub path: String,
    /// What may stand there.
    pub kind: Kind,
    /// What it is where nothing is said, as it would be written; `None` where nothing is then there.
    pub default: Option<String>,
    /// What it means, as a sentence.
    pub meaning: &'static str,
}

/// What may stand as the value of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number within these.
    Whole(u64, u64),
    /// `true` or `false`.
    Truth,
    /// Any text.
    Text,
    /// A text that names a file or a folder.
    File,
    /// A number of bytes within these, also as `"64KiB"`.
    Size(u64, u64),
    /// A time within these, in milliseconds; written in seconds or as `"500ms"`.
    Duration(u64, u64),
    /// One of these words.
    Word(&'static [&'static str]),
    /// A list of texts.
    Texts,
    /// A list of some of these words.
    Words(&'static [&'static str]),
    /// A text or a number.
    TextOrNumber,
    /// A table of its own, whose keys have rows, too.
    Table,
    /// A list of such tables: `[[listeners]]`.
    Tables,
    /// A table of names that are up to whoever writes it.
    Map,
}

impl Kind {
    /// In words for a person.
    #[must_use]
    pub fn words(self) -> String {
        let range = |least: String, most: u64, shown: String| match (least.as_str(), most) {
            ("0" | "0s", u64::MAX) => String::new(),
            (_, u64::MAX) => format!(", {least} or more"),
            _ => format!(" from {least} to {shown}"),
        };
        match self {
            Self::Whole(least, most) => {
                format!(
                    "whole number{}",
                    range(least.to_string(), most, most.to_string())
                )
            }
            Self::Truth => "true or false".to_owned(),
            Self::Text => "text".to_owned(),
            Self::File => "file".to_owned(),
            Self::Size(least, most) => {
                let least = if least == 0 {
                    "0".to_owned()
                } else {
                    size(least)
                };
                format!("size{}", range(least, most, size(most)))
            }
            Self::Duration(least, most) => {
                format!("duration{}", range(duration(least), most, duration(most)))
            }
            Self::Word(words) => format!("one of {}", quoted(words)),
            Self::Texts => "list of texts".to_owned(),
            Self::Words(words) => format!("list of {}", quoted(words)),
            Self::TextOrNumber => "text or number".to_owned(),
            Self::Table => "table".to_owned(),
            Self::Tables => "list of tables".to_owned(),
            Self::Map => "table of names and texts".to_owned(),
        }
    }
}

impl Key {
    /// Whether a reload takes a change over; else it counts from the next start.
    #[must_use]
    pub fn is_reloaded(&self) -> bool {
        match self.path.split_once('.') {
            Some(("listeners", key)) => !FIXED_OF_LISTENERS.contains(&key),
            Some(("limits", key)) => key != FIXED_OF_LIMITS,
            Some((section, _)) => RELOADED.contains(&section),
            None => RELOADED.contains(&self.path.as_str()) || self.path == "listeners",
        }
    }

    /// What `docs/limits.md` says of it, if it is a limit: of what, what it costs, what happens to one more.
    #[must_use]
    pub fn limit(&self) -> Option<[&'static str; 3]> {
        limit_table::facts(&self.path)
    }

    /// Whether its value is not to be shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.path == "authentication.http.headers" || self.path == "authorization.http.headers"
    }

    /// The variable of the environment that sets it, for a key that stands in no list.
    #[must_use]
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}", self.path.replace('.', "__").to_uppercase())
    }
}

/// All of them, each table before what it holds.
pub fn all() -> &'static [Key] {
    static KEYS: LazyLock<Vec<Key>> = LazyLock::new(|| {
        let groups = rows::GROUPS.iter();
        let groups = groups.chain(limit_rows::GROUPS);
        let groups = groups.chain(login_rows::GROUPS).chain(right_rows::GROUPS);
        let keys = groups.flat_map(|(table, rows)| rows.iter().map(move |row| key(table, row)));
        keys.collect()
    });
    &KEYS
}

/// The key at `path`, in which places in lists may be numbers and names below a [`Kind::Map`] may be any.
#[must_use]
pub fn find(path: &str) -> Option<&'static Key> {
    let words = path.split('.').filter(|word| !is_number(word));
    let bare = words.collect::<Vec<_>>().join(".");
    let keys = all();
    let exact = keys.iter().find(|key| key.path == bare);
    exact.or_else(|| {
        let (parent, _) = bare.rsplit_once('.')?;
        let parent = keys.iter().find(|key| key.path == parent)?;
        (parent.kind == Kind::Map).then_some(parent)
    })
}

/// The path that a person most likely meant by one that is not there.
#[must_use]
pub fn nearest(path: &str) -> Option<&'static str> {
    let last = path.rsplit('.').next().unwrap_or_default();
    let likeness = |key: &Key| {
        let own = key.path.rsplit('.').next().unwrap_or_default();
        let whole = strsim::jaro_winkler(path, &key.path);
        // The right key in the wrong table, or without one.
        let part = strsim::jaro_winkler(last, own) - 0.02;
        whole.max(part)
    };
    let rated = all().iter().map(|key| (likeness(key), key));
    let best = rated.filter(|(likeness, _)| *likeness >= LIKENESS_MIN);
    let best = best.max_by(|a, b| a.0.total_cmp(&b.0));
    best.map(|(_, key)| key.path.as_str())
}

/// Whether a word of a path is a place in a list.
pub(super) fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

fn key(table: &str, row: &rows::Row) -> Key {
    let path = match table {
        "" => row.name.to_owned(),
        table => format!("{table}.{}", row.name),
    };
    let is_refused = path == "authorization.http.on_error";
    let default = match row.default {
        _ if is_refused => None,
        "" => limit_table::default_of(&path),
        text => Some(text.to_owned()),
    };
    let meaning = match is_refused {
        true => "Not for rights: without an answer nothing is allowed.",
        false => row.meaning,
    };
    Key {
        path,
        kind: row.kind,
        default,
        meaning,
    }
}

fn quoted(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("`\"{word}\"`")).collect();
    words.join(", ")
}

/// Bytes in the largest unit that leaves no rest.
pub(super) fn size(bytes: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// Milliseconds in the largest unit that leaves no rest.
pub(super) fn duration(milliseconds: u64) -> String {
    for (unit, factor) in [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1000),
    ] {
        if milliseconds >= factor && milliseconds.is_multiple_of(factor) {
            return format!("{}{unit}", milliseconds / factor);
        }
    }
    match milliseconds {
        0 => "0s".to_owned(),
        milliseconds => format!("{milliseconds}ms"),
    }
}

/// What variables of the environment that set keys begin with.
pub const PREFIX: &str = "VENCEJO__";
/// Tables that a reload takes over whole.
const RELOADED: [&str; 4] = ["authentication", "authorization", "stop", "limits"];
/// Keys of a listener that are its socket.
const FIXED_OF_LISTENERS: [&str; 5] = ["address", "activation", "mode", "owner", "group"];
/// The limit that is the number of threads that run.
const FIXED_OF_LIMITS: &str = "login_threads";
/// Below this likeness (0 to 1) a suggestion would be a guess.
const LIKENESS_MIN: f64 = 0.8;

#[cfg(test)]
mod tests;
