//! What a configuration comes to, value by value, and where each comes from.
//!
//! Owns: [`Value`], [`Layers::values`], what differs between two. Does not own: the merge (see `layers`).
//! Start reading at [`Layers::values`]. Invariant: a secret is not shown.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::directories::without_passwords;
use super::keys::{self, Key, Kind, is_number};
use super::{Config, ConfigError, Layers, Origin, raw};

/// One value that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    /// Its key, with places in lists: `listeners.0.address`.
    pub path: String,
    /// As it would be written; stars for what is secret.
    pub shown: String,
    /// Where it comes from.
    pub origin: Origin,
    /// What tells it from another value, however it is written.
    meant: String,
}

/// What is at one key in two configurations that differ there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Which key.
    pub path: String,
    /// In the first one; `None` if there is nothing.
    pub before: Option<Value>,
    /// In the second one.
    pub after: Option<Value>,
}

impl Layers {
    /// Every value that counts, defaults among them, in the order of the documentation.
    /// # Errors
    /// It is no configuration.
    pub fn values(&self) -> Result<Vec<Value>, ConfigError> {
        let config = self.check()?;
        let merged = self.merged()?;
        let mut given = Vec::new();
        for (path, span, value) in leaves(merged.get_ref()) {
            if path.starts_with("listeners.") && !self.listens().is_empty() {
                continue;
            }
            let origin = self.origin_at(&span);
            given.push(value_of(path, value, origin));
        }
        for (place, address) in self.listens().iter().enumerate() {
            given.push(Value {
                path: format!("listeners.{place}.address"),
                shown: format!("\"{address}\""),
                origin: Origin::Flag("--listen"),
                meant: address.to_string(),
            });
        }
        Ok(with_defaults(given, &config))
    }
}

/// What differs between two lists of values, in the order of the first.
#[must_use]
pub fn differences(before: &[Value], after: &[Value]) -> Vec<Difference> {
    let at = |values: &[Value], path: &str| values.iter().find(|one| one.path == path).cloned();
    let new = after.iter().filter(|one| at(before, &one.path).is_none());
    let paths = before.iter().chain(new).map(|one| one.path.clone());
    let pairs = paths.map(|path| Difference {
        before: at(before, &path),
        after: at(after, &path),
        path,
    });
    let is_other = |pair: &Difference| {
        let meant = |value: &Option<Value>| value.as_ref().map(|value| value.meant.clone());
        meant(&pair.before) != meant(&pair.after)
    };
    pairs.filter(is_other).collect()
}

fn with_defaults(mut given: Vec<Value>, config: &Config) -> Vec<Value> {
    let mut values = Vec::new();
    for key in keys::all() {
        let is_here = |value: &Value| keys::find(&value.path).is_some_and(|of| of.path == key.path);
        let (here, rest): (Vec<Value>, Vec<Value>) = given.into_iter().partition(is_here);
        given = rest;
        let below = format!("{}.", key.path);
        let is_given = !here.is_empty() || given.iter().any(|one| one.path.starts_with(&below));
        if !is_given
            && is_always_there(&key.path)
            && let Some(value) = default_of(key, config)
        {
            values.push(value);
        }
        values.extend(here);
    }
    // Tables of one list stand together.
    let rank = |value: &Value| {
        let place = value
            .path
            .split('.')
            .find_map(|word| word.parse::<usize>().ok());
        let top = value.path.split('.').take_while(|word| !is_number(word));
        let top: Vec<&str> = top.collect();
        let known = keys::all().iter().position(|key| key.path == top.join("."));
        (known.unwrap_or(usize::MAX), place.unwrap_or(0))
    };
    values.sort_by_key(rank);
    values
}

/// Whether a key counts in every configuration: it stands in no list, and in no table that may be left out.
fn is_always_there(path: &str) -> bool {
    match path.split_once('.') {
        None => true,
        Some((table, key)) => ALWAYS.contains(&table) && !key.contains('.'),
    }
}

fn default_of(key: &Key, config: &Config) -> Option<Value> {
    if matches!(key.kind, Kind::Table) {
        return None;
    }
    if key.path == "listeners" {
        // As a file says it, so that a file which says the same does not differ.
        let address = config.listeners.first()?.address.to_string();
        return Some(Value {
            path: "listeners.0.address".to_owned(),
            shown: format!("\"{address}\""),
            origin: Origin::Default,
            meant: address,
        });
    }
    let shown = match key.path.as_str() {
        // These depend on the machine, or on another key.
        "shards" => config.shards.to_string(),
        "limits.login_threads" => config.bounds.login_threads.to_string(),
        "limits.unsent_bytes_max" => quoted_size(config.bounds.unsent_bytes_max as u64),
        "storage.disk_low_bytes" => quoted_size(config.storage.disk_low_bytes()),
        _ => key.default.clone()?,
    };
    let meant = meant(key, shown.trim_matches('"'));
    Some(Value {
        path: key.path.clone(),
        meant,
        shown,
        origin: Origin::Default,
    })
}

fn quoted_size(bytes: u64) -> String {
    format!("\"{}\"", keys::size(bytes))
}

fn value_of(path: String, value: &DeValue<'_>, origin: Origin) -> Value {
    let key = keys::find(&path);
    let is_secret = key.is_some_and(Key::is_secret);
    let written = written(value);
    let bare = match value {
        DeValue::String(text) => text.to_string(),
        _ => written.clone(),
    };
    Value {
        path,
        shown: if is_secret {
            "\"***\"".to_owned()
        } else {
            without_passwords(&written)
        },
        origin,
        meant: key.map_or_else(|| bare.clone(), |key| meant(key, &bare)),
    }
}

/// The same for values that mean the same.
fn meant(key: &Key, bare: &str) -> String {
    let meant = match key.kind {
        Kind::Size(..) => raw::bytes_of(bare).map(|bytes| bytes.to_string()),
        Kind::Duration(..) => raw::milliseconds_of(bare).map(|span| span.to_string()),
        _ => None,
    };
    meant.unwrap_or_else(|| bare.to_owned())
}

/// Everything below `table` that is no table itself: its path, its place, its value.
fn leaves<'t, 'a>(table: &'t DeTable<'a>) -> Vec<(String, Range<usize>, &'t DeValue<'a>)> {
    let mut found = Vec::new();
    let mut ahead: Vec<(String, &'t Spanned<DeValue<'a>>)> = table
        .iter()
        .map(|(key, value)| (key.get_ref().to_string(), value))
        .collect();
    while let Some((path, value)) = ahead.pop() {
        match value.get_ref() {
            DeValue::Table(below) => {
                let below = below.iter();
                ahead
                    .extend(below.map(|(key, value)| (format!("{path}.{}", key.get_ref()), value)));
            }
            DeValue::Array(list)
                if !list.is_empty() && list.iter().all(|one| one.get_ref().is_table()) =>
            {
                let places = list.iter().enumerate();
                ahead.extend(places.map(|(place, value)| (format!("{path}.{place}"), value)));
            }
            other => found.push((path, value.span(), other)),
        }
    }
    found.sort_by_key(|(_, span, _)| span.start);
    found
}

/// A value as TOML in one line.
fn written(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => toml::Value::String(text.to_string()).to_string(),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(when) => when.to_string(),
        DeValue::Array(list) => {
            let parts: Vec<String> = list.iter().map(|one| written(one.get_ref())).collect();
            format!("[{}]", parts.join(", "))
        }
        DeValue::Table(table) => {
            let parts = table.iter();
            let parts = parts
                .map(|(key, value)| format!("{} = {}", key.get_ref(), written(value.get_ref())));
            format!("{{ {} }}", parts.collect::<Vec<_>>().join(", "))
        }
    }
}

/// Tables that every configuration has.
const ALWAYS: [&str; 4] = ["limits", "authentication", "storage", "stop"];

#[cfg(test)]
mod tests {
    use super::*;

    fn layers(text: &str) -> Layers {
        let mut layers = Layers::new();
        layers.text(text, "vencejo.toml".as_ref());
        layers
    }

    fn line(values: &[Value], path: &str) -> String {
        let value = values.iter().find(|one| one.path == path);
        value.map_or_else(String::new, |one| format!("{} {}", one.shown, one.origin))
    }

    #[test]
    fn every_value_knows_where_it_comes_from() {
        let mut layers = layers("shards = 2\n[limits]\nreceive_maximum = 5\nsessions_max = 9\n");
        let variables = [("VENCEJO__LIMITS__SESSIONS_MAX", "10"), ("HOME", "/")];
        let variables = variables.map(|(name, value)| (name.into(), value.into()));
        layers.environment(variables.into_iter()).expect("are keys");
        layers.set("limits.maximum_qos=1").expect("is a key");
        layers.flag("--data", "storage.data", "here");
        layers.listen(&["127.0.0.1:0".parse().expect("an address")]);
        let values = layers.values().expect("is valid");
        for (path, expected) in [
            ("shards", "2 vencejo.toml:1"),
            ("limits.receive_maximum", "5 vencejo.toml:3"),
            ("limits.sessions_max", "10 VENCEJO__LIMITS__SESSIONS_MAX"),
            ("limits.maximum_qos", "1 --set"),
            ("storage.data", "\"here\" --data"),
            ("listeners.0.address", "\"127.0.0.1:0\" --listen"),
            ("limits.topic_levels_max", "128 default"),
            ("authentication.tokens.leeway", ""),
        ] {
            assert_eq!(line(&values, path), expected, "{path}");
        }
    }

    #[test]
    fn secrets_are_not_shown_but_their_change_is() {
        let with = |secret: &str| {
            let text = format!(
                "[authentication.http]\nurl = \"https://a\"\nheaders = {{ X-Key = \"{secret}\" }}"
            );
            layers(&text).values().expect("is valid")
        };
        let (one, other) = (with("hidden"), with("covered"));
        assert_eq!(
            line(&one, "authentication.http.headers.X-Key"),
            "\"***\" vencejo.toml:3"
        );
        assert!(!format!("{:?}", layers("a = \"hidden\"")).contains("hidden"));
        assert_eq!(differences(&one, &other).len(), 1);
    }

    #[test]
    fn only_what_means_something_else_differs() {
        let values = |text: &str| layers(text).values().expect("is valid");
        let default = values("");
        let same = values("[limits]\nmaximum_packet_size_bytes = 1048576\nconnect_timeout = 10\n");
        assert_eq!(differences(&default, &same), []);
        let same = values("[[listeners]]\naddress = \"127.0.0.1:1883\"");
        assert_eq!(differences(&default, &same), []);
        let other = values("[limits]\nconnect_timeout = 11\n[[listeners]]\naddress = \"[::1]:1\"");
        let paths = differences(&default, &other);
        let paths: Vec<&str> = paths.iter().map(|one| one.path.as_str()).collect();
        assert_eq!(paths, ["listeners.0.address", "limits.connect_timeout"]);
    }
}
