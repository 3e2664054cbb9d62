//! What a file of HOCON says: every value, where it stands, and what has become of it.
//!
//! Owns: [`Settings`], [`Key`], which of two values counts. Does not own: the form of a file (see the parent), what a key means
//! (see `emqx`, `nanomq`). Start reading at [`Settings`]. Invariants: no value goes without a row; what is secret is in none.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use crate::import::rows::{Outcome, Row};

/// The way to a value: the keys of the objects around it, and its own. Places in lists count from 1, as with EMQX.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(Vec<String>);

impl Key {
    /// `a.b.c`.
    pub(crate) fn of(dotted: &str) -> Self {
        Self::default().then(dotted)
    }

    /// This one and `a.b` below it.
    pub(crate) fn then(&self, dotted: &str) -> Self {
        let mut key = self.clone();
        key.0.extend(dotted.split('.').map(str::to_owned));
        key
    }

    /// This one and one more, which may hold dots.
    pub(crate) fn with(&self, name: impl Into<String>) -> Self {
        let mut key = self.clone();
        key.0.push(name.into());
        key
    }

    pub(crate) fn last(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }

    /// Whether one of its parts is `name`.
    pub(crate) fn holds(&self, name: &str) -> bool {
        self.0.iter().any(|part| part == name)
    }

    pub(crate) fn is_below(&self, other: &Self) -> bool {
        self.0.starts_with(&other.0)
    }

    /// The part behind `above`.
    fn next_behind(&self, above: &Self) -> Option<&str> {
        self.0.get(above.0.len()).map(String::as_str)
    }

    /// Whether its value is nobody's business: one of its parts says so, or it is a header of a request.
    fn is_secret(&self) -> bool {
        let last = self.last().to_ascii_lowercase();
        self.0.iter().any(|part| {
            let part = part.to_ascii_lowercase();
            let names_one = SECRETS.iter().any(|word| part.contains(word));
            names_one && !OPEN.iter().any(|word| part.starts_with(word))
                || part == "headers" && !PLAIN_HEADERS.contains(&last.as_str())
        })
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// A value that is no object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A text, a number, `true`: as it is written.
    Text(String),
    /// A list of these.
    List(Vec<String>),
    /// An object without anything in it.
    Nothing,
    /// `${a.b}`, which is not followed: it may name the environment of another process.
    Reference(String),
    /// A file that is included and was not taken over, and why.
    File(PathBuf, String),
}

/// A value in its place.
#[derive(Clone, Debug)]
struct Leaf {
    key: Key,
    place: String,
    value: Value,
    /// How its line is shown, where that has another key.
    shown: Option<String>,
    said: Option<(Outcome, String)>,
}

impl Leaf {
    const fn is_unclear(&self) -> bool {
        matches!(self.value, Value::Reference(_) | Value::File(..))
    }
}

/// Everything that is said.
#[derive(Debug, Default)]
pub(crate) struct Settings {
    leaves: Vec<Leaf>,
    /// Those that count.
    live: BTreeMap<Key, usize>,
    notes: Vec<Row>,
}

impl Settings {
    /// Says a value; what was said of `key` before counts no more.
    pub(crate) fn set(&mut self, key: Key, place: String, value: Value) {
        self.forget(&key, &place);
        self.live.insert(key.clone(), self.leaves.len());
        self.leaves.push(Leaf {
            key,
            place,
            value,
            shown: None,
            said: None,
        });
    }

    /// The same, of a line that has another key: its own, `as_key`, is shown.
    pub(crate) fn set_as(&mut self, key: Key, as_key: &Key, place: String, value: Value) {
        let shown = if key.is_secret() {
            format!("{as_key} = ***")
        } else {
            shown(as_key, &value)
        };
        self.set(key, place, value);
        if let Some(leaf) = self.leaves.last_mut() {
            leaf.shown = Some(shown);
        }
    }

    /// Begins a list: what was said of `key` and below before counts no more.
    pub(super) fn forget(&mut self, key: &Key, place: &str) {
        let below: Vec<Key> = self.keys_below(key).cloned().collect();
        for key in below {
            if let Some(number) = self.live.remove(&key)
                && let Some(leaf) = self.leaves.get_mut(number)
            {
                let why = format!("{place} says it again, and counts");
                leaf.said = Some((Outcome::Ignored, why));
            }
        }
    }

    /// Begins an object: it is joined with one that was there, and takes the place of anything else.
    pub(super) fn open(&mut self, key: &Key, place: &str) {
        if let Some(number) = self.live.get(key).copied() {
            self.live.remove(key);
            if let Some(leaf) = self.leaves.get_mut(number) {
                let why = format!("{place} says something else, and counts");
                leaf.said = Some((Outcome::Ignored, why));
            }
        }
    }

    /// Adds to a list.
    pub(super) fn append(&mut self, key: &Key, place: String, text: String) {
        let mut all = match self.value(key) {
            Some(Value::List(all)) => all.clone(),
            Some(Value::Text(one)) => vec![one.clone()],
            _ => Vec::new(),
        };
        all.push(text);
        self.set(key.clone(), place, Value::List(all));
    }

    fn keys_below<'s>(&'s self, above: &'s Key) -> impl Iterator<Item = &'s Key> {
        let from = self.live.range(above.clone()..);
        from.map(|(key, _)| key)
            .take_while(|key| key.is_below(above))
    }

    fn leaf(&self, key: &Key) -> Option<&Leaf> {
        self.leaves.get(*self.live.get(key)?)
    }

    pub(crate) fn value(&self, key: &Key) -> Option<&Value> {
        self.leaf(key).map(|leaf| &leaf.value)
    }

    /// A text, a number, `true`.
    pub(crate) fn text(&self, key: &Key) -> Option<&str> {
        match self.value(key)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// `true` or `false`, in one of the words of HOCON.
    pub(crate) fn truth(&self, key: &Key) -> Option<bool> {
        self.text(key).and_then(super::units::truth)
    }

    /// A list of texts; a text with commas is one, too.
    pub(crate) fn texts(&self, key: &Key) -> Vec<String> {
        match self.value(key) {
            Some(Value::List(all)) => all.clone(),
            Some(Value::Text(text)) => {
                let all = text.split(',').map(|one| one.trim().to_owned());
                all.filter(|one| !one.is_empty()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Where a value stands: file and line.
    pub(crate) fn place(&self, key: &Key) -> String {
        let first = self.keys_below(key).filter_map(|key| self.leaf(key));
        // Keys come by their names, values by their lines.
        let number = |leaf: &&Leaf| self.live.get(&leaf.key).copied();
        first
            .min_by_key(number)
            .map(|leaf| leaf.place.clone())
            .unwrap_or_default()
    }

    /// Whether anything is said of `key` or below it.
    pub(crate) fn has(&self, key: &Key) -> bool {
        self.keys_below(key).next().is_some()
    }

    /// The names right below `key`, in the order of the file.
    pub(crate) fn names_below(&self, key: &Key) -> Vec<String> {
        let mut found: Vec<(usize, &str)> = Vec::new();
        for (below, number) in self.live.range(key.clone()..) {
            if !below.is_below(key) {
                break;
            }
            let Some(name) = below.next_behind(key) else {
                continue;
            };
            match found.last_mut() {
                // Those with the same name stand together.
                Some((first, known)) if *known == name => *first = (*first).min(*number),
                _ => found.push((*number, name)),
            }
        }
        found.sort_unstable();
        found.into_iter().map(|(_, name)| name.to_owned()).collect()
    }

    /// The objects of a list, or of an object whose keys are numbers, in their order.
    pub(crate) fn elements(&self, key: &Key) -> Vec<Key> {
        let mut numbers: Vec<usize> = self
            .names_below(key)
            .iter()
            .filter_map(|name| name.parse().ok())
            .collect();
        numbers.sort_unstable();
        numbers
            .into_iter()
            .map(|number| key.with(number.to_string()))
            .collect()
    }

    /// Whether something of what is said here cannot be known: a substitution, or a file that was not read.
    pub(crate) fn is_unclear(&self, key: &Key) -> bool {
        let mut leaves = self.keys_below(key).filter_map(|key| self.leaf(key));
        leaves.any(Leaf::is_unclear)
    }

    /// The same, apart from what is below `other`.
    pub(crate) fn is_unclear_but(&self, key: &Key, other: &Key) -> bool {
        let leaves = self.keys_below(key).filter(|key| !key.is_below(other));
        let mut leaves = leaves.filter_map(|key| self.leaf(key));
        leaves.any(Leaf::is_unclear)
    }

    /// Whether the value right here cannot be known.
    pub(crate) fn is_unclear_at(&self, key: &Key) -> bool {
        self.leaf(key).is_some_and(Leaf::is_unclear)
    }

    /// Whether more may be said of `key` that is not known: an object around it is a substitution, or includes a file that was
    /// not read.
    pub(crate) fn is_hidden(&self, key: &Key) -> bool {
        (0..key.0.len()).any(|length| {
            let above = Key(key.0.iter().take(length).cloned().collect());
            self.is_unclear_at(&above) || self.is_unclear_at(&above.with("include"))
        })
    }

    pub(crate) fn kept(&mut self, key: &Key, why: impl Into<String>) {
        self.say(key, Outcome::Kept, why.into());
    }

    pub(crate) fn changed(&mut self, key: &Key, why: impl Into<String>) {
        self.say(key, Outcome::Changed, why.into());
    }

    pub(crate) fn ignored(&mut self, key: &Key, why: impl Into<String>) {
        self.say(key, Outcome::Ignored, why.into());
    }

    fn say(&mut self, key: &Key, outcome: Outcome, why: String) {
        if let Some(number) = self.live.get(key)
            && let Some(leaf) = self.leaves.get_mut(*number)
        {
            leaf.said = Some((outcome, why));
        }
    }

    /// The same of everything at `key` and below it of which nothing is said yet.
    pub(crate) fn rest(&mut self, key: &Key, outcome: Outcome, why: &str) {
        let below: Vec<usize> = self
            .live
            .range(key.clone()..)
            .take_while(|(below, _)| below.is_below(key))
            .map(|(_, number)| *number)
            .collect();
        for number in below {
            if let Some(leaf) = self.leaves.get_mut(number)
                && leaf.said.is_none()
            {
                leaf.said = Some((outcome, why.to_owned()));
            }
        }
    }

    /// Says again what became of all at `key` and below it.
    pub(crate) fn all_ignored(&mut self, key: &Key, why: &str) {
        let below: Vec<Key> = self.keys_below(key).cloned().collect();
        for key in below {
            self.ignored(&key, why);
        }
    }

    /// Says what no line says.
    pub(crate) fn note(
        &mut self,
        option: impl Into<String>,
        outcome: Outcome,
        why: impl Into<String>,
    ) {
        self.note_at(String::new(), option, outcome, why);
    }

    /// Says what a line of another file says.
    pub(crate) fn note_at(
        &mut self,
        place: String,
        option: impl Into<String>,
        outcome: Outcome,
        why: impl Into<String>,
    ) {
        self.notes.push(Row {
            place,
            option: option.into(),
            outcome,
            why: why.into(),
        });
    }

    /// How many values were said, be it that they count no more.
    pub(super) const fn count(&self) -> usize {
        self.leaves.len()
    }

    /// Says an object without anything in it; what is there already stays.
    pub(super) fn nothing(&mut self, key: Key, place: String) {
        if !self.has(&key) {
            return self.set(key, place, Value::Nothing);
        }
        self.leaves.push(Leaf {
            key,
            place,
            value: Value::Nothing,
            shown: None,
            said: None,
        });
    }

    /// A row for each value, in the order of the file, and then what no line says.
    pub(crate) fn into_rows(self) -> Vec<Row> {
        let rows = self.leaves.into_iter().map(|leaf| {
            let (outcome, why) = match (leaf.said, &leaf.value) {
                (Some(said), _) => said,
                (None, Value::Reference(_)) => (
                    Outcome::Ignored,
                    "what it stands for is not known here: write the value".to_owned(),
                ),
                (None, Value::File(_, why)) => (Outcome::Ignored, why.clone()),
                (None, Value::Nothing) => (Outcome::Ignored, "it says nothing".to_owned()),
                (None, _) => (Outcome::Ignored, "there is nothing like it here".to_owned()),
            };
            Row {
                option: leaf.shown.unwrap_or_else(|| shown(&leaf.key, &leaf.value)),
                place: leaf.place,
                outcome,
                why,
            }
        });
        let mut rows: Vec<Row> = rows.collect();
        rows.extend(self.notes);
        rows
    }
}

/// A value as it is written, without what is secret, and not longer than a line.
fn shown(key: &Key, value: &Value) -> String {
    let value = match value {
        Value::Nothing => "{}".to_owned(),
        Value::File(path, _) => format!("{:?}", path.display().to_string()),
        _ if key.is_secret() => "***".to_owned(),
        Value::Text(text) | Value::Reference(text) => without_login(text),
        Value::List(all) => format!("[{}]", all.join(", ")),
    };
    let value = value.escape_debug().to_string();
    let short: String = value.chars().take(SHOWN_CHARS).collect();
    let more = if short.len() < value.len() { "..." } else { "" };
    format!(
        "{key} = {}{more}",
        short.replace("\\\"", "\"").replace("\\'", "'")
    )
}

/// `scheme://user:password@host` without the password.
fn without_login(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let host = rest.split('/').next().unwrap_or_default();
    match host.rsplit_once('@') {
        Some((login, _)) => format!("{scheme}://***{}", &rest[login.len()..]),
        None => text.to_owned(),
    }
}

/// What names a secret, anywhere in a key.
const SECRETS: [&str; 7] = [
    "password",
    "passwd",
    "secret",
    "token",
    "cookie",
    "api_key",
    "private_key",
];
/// What does not, though it looks so.
const OPEN: [&str; 3] = ["password_hash", "password_attribute", "secret_base64"];
/// Headers without a secret.
const PLAIN_HEADERS: [&str; 3] = ["accept", "content-type", "headers"];
/// Of a value.
const SHOWN_CHARS: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> Value {
        Value::Text(value.to_owned())
    }

    #[test]
    fn what_is_said_last_counts_and_all_of_it_has_a_row() {
        let mut settings = Settings::default();
        let key = Key::of("a.b");
        settings.set(key.clone(), "x:1".to_owned(), text("1"));
        settings.set(Key::of("a.c"), "x:2".to_owned(), text("2"));
        settings.set(key.clone(), "x:3".to_owned(), text("3"));
        assert_eq!(settings.text(&key), Some("3"));
        assert_eq!(settings.names_below(&Key::of("a")), ["c", "b"]);
        settings.kept(&key, "as it is");
        let rows = settings.into_rows();
        let said: Vec<(&str, &str)> = rows
            .iter()
            .map(|row| (row.option.as_str(), row.why.as_str()))
            .collect();
        assert_eq!(
            said,
            [
                ("a.b = 1", "x:3 says it again, and counts"),
                ("a.c = 2", "there is nothing like it here"),
                ("a.b = 3", "as it is"),
            ]
        );
    }

    #[test]
    fn what_is_not_known_hides_what_is_below_it_and_nothing_beside() {
        let file = || Value::File(PathBuf::from("x"), "is not there".to_owned());
        let reference = || Value::Reference("${x}".to_owned());
        for (key, value, hidden) in [
            ("include", file(), true),
            ("a.include", file(), true),
            ("a", reference(), true),
            ("a.b", reference(), true),
            ("a.b.include", file(), true),
            ("a.b.c.include", file(), false),
            ("a.d.include", file(), false),
            ("a.d", reference(), false),
            ("include", text("x"), false),
        ] {
            let mut settings = Settings::default();
            settings.set(Key::of(key), "x:1".to_owned(), value);
            assert_eq!(settings.is_hidden(&Key::of("a.b.c")), hidden, "{key}");
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        for (key, value, expected) in [
            ("a.password", "x", "a.password = ***"),
            ("auth.password.admin", "public", "auth.password.admin = ***"),
            ("a.secret", "x", "a.secret = ***"),
            (
                "a.password_hash_algorithm.name",
                "sha256",
                "a.password_hash_algorithm.name = sha256",
            ),
            ("a.url", "http://u:p@h/x@y", "a.url = http://***@h/x@y"),
            ("a.url", "http://h/x", "a.url = http://h/x"),
        ] {
            assert_eq!(shown(&Key::of(key), &text(value)), expected);
        }
        let long = shown(&Key::of("a"), &text(&"é".repeat(100)));
        assert_eq!(
            long.chars().count(),
            "a = ".len() + SHOWN_CHARS + "...".len()
        );
    }

    #[test]
    fn the_login_of_a_header_is_not_shown() {
        let key = Key::of("authentication.1.headers").with("Authorization");
        assert_eq!(
            shown(&key, &text("Bearer x")),
            "authentication.1.headers.Authorization = ***"
        );
        let key = Key::of("authorization.no_match");
        assert_eq!(
            shown(&key, &text("allow")),
            "authorization.no_match = allow"
        );
    }
}
