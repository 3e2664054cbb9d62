//! The table of keys against what the program reads, judges and takes for granted.

use std::collections::BTreeSet;

use super::*;
use crate::config::{Config, Layers, parse, raw::RawConfig};

/// What has to be there for a key of a table to be judged.
const CONTEXTS: [(&str, &str); 16] = [
    ("", ""),
    ("listeners", "[[listeners]]\naddress = \"127.0.0.1:1\"\n"),
    (
        "listeners.mode",
        "[[listeners]]\naddress = \"unix:/run/a\"\n",
    ),
    (
        "listeners.owner",
        "[[listeners]]\naddress = \"unix:/run/a\"\n",
    ),
    (
        "listeners.group",
        "[[listeners]]\naddress = \"unix:/run/a\"\n",
    ),
    (
        "listeners.tls",
        "[[listeners]]\naddress = \"127.0.0.1:1\"\ntls = { certificate = \"a\", key = \"b\" }\n",
    ),
    (
        "listeners.quic",
        "[[listeners]]\naddress = \"127.0.0.1:1\"\ntransport = \"quic\"\ntls = { certificate = \"a\", key = \"b\" }\n",
    ),
    (
        "authentication.tokens",
        "[authentication.tokens]\njwks = \"https://a\"\nalgorithms = [\"ES256\"]\n",
    ),
    (
        "authentication.http",
        "[authentication.http]\nurl = \"https://a\"\n",
    ),
    (
        "authentication.postgres",
        "[authentication.postgres]\nurl = \"postgres://a/b\"\nquery = \"${username}\"\n",
    ),
    (
        "authentication.mysql",
        "[authentication.mysql]\nurl = \"mysql://a/b\"\nquery = \"${username}\"\n",
    ),
    (
        "authentication.redis",
        "[authentication.redis]\nurl = \"redis://localhost\"\n",
    ),
    (
        "authentication.ldap",
        "[authentication.ldap]\nurl = \"ldap://localhost\"\nuser_dn = \"${username}\"\n",
    ),
    (
        "authorization.http",
        "[authorization.http]\nurl = \"https://a\"\n",
    ),
    (
        "authorization.rules",
        "[[authorization.rules]]\neffect = \"allow\"\ntopics = [\"a\"]\n",
    ),
    (
        "storage.levels",
        "[[storage.levels]]\nfilter = \"a\"\nlevel = \"memory\"\n",
    ),
];

fn context(path: &str) -> &'static str {
    let fits = |of: &&(&str, &str)| {
        let is_below = path
            .strip_prefix(of.0)
            .is_some_and(|rest| rest.starts_with('.'));
        of.0.is_empty() || is_below || path == of.0 && path.starts_with("listeners.")
    };
    let longest = CONTEXTS.iter().filter(fits).max_by_key(|(of, _)| of.len());
    longest.map_or("", |(_, text)| text)
}

/// Whether this build has what a key is about.
fn is_built(key: &Key) -> bool {
    parse(context(&key.path), "context.toml".as_ref()).is_ok()
}

/// The path with places in lists, as `--set` has it.
fn placed(path: &str) -> String {
    [
        "listeners.tls.certificates",
        "listeners",
        "authorization.rules",
        "authentication.client_ids",
        "storage.levels",
    ]
    .iter()
    .fold(path.to_owned(), |path, list| {
        let inner = list
            .strip_prefix("listeners.")
            .map_or(*list, |_| "listeners.0.tls.certificates");
        path.replace(&format!("{inner}."), &format!("{inner}.0."))
    })
}

fn judged(key: &Key, value: &str) -> Result<Config, String> {
    let mut layers = Layers::new();
    layers.text(context(&key.path), "context.toml".as_ref());
    layers
        .set(&format!("{}={value}", placed(&key.path)))
        .map_err(|error| error.to_string())?;
    layers.check().map_err(|error| error.to_string())
}

/// The words that `serde` names where one is unknown.
fn expected_by_serde(text: &str) -> BTreeSet<String> {
    let error = toml::from_str::<RawConfig>(text).expect_err("is unknown");
    let message = error.message().to_owned();
    let (_, expected) = message
        .split_once(", expected ")
        .unwrap_or_else(|| panic!("{text}: {message}"));
    expected
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// A row for each key that the file may have, and none for another: whoever adds a key adds a row to `keys/rows.rs`,
/// `keys/login_rows.rs` or `keys/limit_rows.rs`.
#[test]
fn the_table_has_the_keys_that_the_file_may_have() {
    let tables = all()
        .iter()
        .filter(|key| matches!(key.kind, Kind::Table | Kind::Tables));
    let tables = tables
        .map(|key| (key.path.as_str(), key.kind))
        .chain([("", Kind::Table)]);
    for (table, kind) in tables {
        let lists = [
            "listeners",
            "authorization.rules",
            "authentication.client_ids",
        ];
        let text = match kind {
            _ if table.is_empty() => "zzzz = 1".to_owned(),
            Kind::Tables => format!("[[{table}]]\nzzzz = 1"),
            _ => {
                let list = lists
                    .iter()
                    .find(|list| table.starts_with(&format!("{list}.")));
                list.map_or_else(String::new, |list| format!("[[{list}]]\n"))
                    + &format!("[{table}]\nzzzz = 1")
            }
        };
        let text = text.replace("[[listeners.tls", "[[listeners]]\n[[listeners.tls");
        let expected = expected_by_serde(&text);
        let here = all()
            .iter()
            .filter_map(|key| match key.path.rsplit_once('.') {
                Some((parent, name)) if parent == table => Some(name.to_owned()),
                None if table.is_empty() => Some(key.path.clone()),
                _ => None,
            });
        assert_eq!(here.collect::<BTreeSet<_>>(), expected, "keys of [{table}]");
    }
}

#[test]
fn words_of_the_table_are_those_that_the_file_may_have() {
    for key in all() {
        let (Kind::Word(words) | Kind::Words(words)) = key.kind else {
            continue;
        };
        let unknown = if matches!(key.kind, Kind::Word(_)) {
            "zzzz"
        } else {
            "[\"zzzz\"]"
        };
        let said = judged(key, unknown).expect_err("is unknown");
        let said = said
            .split_once("expected one of ")
            .unwrap_or_else(|| panic!("{said}"))
            .1;
        let expected: Vec<&str> = said.split(", ").collect();
        assert_eq!(words, expected, "{}", key.path);
    }
}

/// What is there whatever this is built with, is judged in the tests here.
#[test]
fn only_users_in_databases_may_be_missing() {
    for key in all().iter().filter(|key| !is_built(key)) {
        let parts = ["postgres", "mysql", "redis", "ldap"];
        assert!(
            parts.iter().any(|part| key.path.contains(part)),
            "{}",
            key.path
        );
    }
}

#[test]
fn defaults_of_the_table_are_those_of_the_code() {
    for key in all().iter().filter(|key| is_built(key)) {
        let Some(default) = &key.default else {
            continue;
        };
        let without = parse(context(&key.path), "context.toml".as_ref()).expect("is valid");
        let with = judged(key, default).unwrap_or_else(|error| panic!("{error}"));
        // Of this one the file says that nothing is said.
        let mut with = with;
        if key.path == "storage.disk_low_bytes" {
            assert_eq!(
                with.storage.disk_low_bytes(),
                without.storage.disk_low_bytes()
            );
            with.storage.disk_low_bytes = None;
        }
        assert_eq!(with, without, "{}", key.path);
    }
}

#[test]
fn values_outside_of_the_range_of_the_table_are_refused_and_its_ends_are_not() {
    // What fits depends on another key, too.
    let dependent = [
        "limits.unsent_bytes_max",
        "listeners.quic.keep_alive",
        "listeners.quic.idle_timeout",
    ];
    for key in all().iter().filter(|key| is_built(key)) {
        let (least, most, unit) = match key.kind {
            Kind::Whole(least, most) => (least, most, ""),
            Kind::Size(least, most) => (least, most, "B"),
            Kind::Duration(least, most) => (least, most, "ms"),
            _ => continue,
        };
        let ends = [(least, least.checked_sub(1)), (most, most.checked_add(1))];
        for (inside, outside) in ends {
            if inside < u64::MAX && !dependent.contains(&key.path.as_str()) {
                let said = judged(key, &format!("{inside}{unit}"));
                assert!(said.is_ok(), "{} {inside}: {said:?}", key.path);
            }
            let outside = outside.filter(|outside| *outside < i64::MAX as u64);
            // Two thousandths of a second are no whole number of seconds.
            if let Some(outside) = outside {
                assert!(
                    judged(key, &format!("{outside}{unit}")).is_err(),
                    "{} {outside}",
                    key.path
                );
            }
        }
    }
}

#[test]
fn keys_are_found_with_places_in_lists_and_with_names_of_maps() {
    let path = |text| find(text).map(|key| key.path.as_str());
    assert_eq!(
        path("listeners.0.tls.certificates.1.key"),
        Some("listeners.tls.certificates.key")
    );
    let headers = Some("authentication.http.headers");
    assert_eq!(path("authentication.http.headers.x-key"), headers);
    assert_eq!(path("limits.zzzz"), None);
    assert_eq!(path("limits.sessions_max.x"), None);
    assert_eq!(
        nearest("limits.recieve_maximum"),
        Some("limits.receive_maximum")
    );
    assert_eq!(nearest("receive_maximum"), Some("limits.receive_maximum"));
    assert_eq!(nearest("zzzz"), None);
}

#[test]
fn forms_are_said_in_words() {
    let words = |path| find(path).map(|key| key.kind.words()).unwrap_or_default();
    assert_eq!(words("shards"), "whole number from 1 to 64");
    assert_eq!(words("limits.sessions_max"), "whole number");
    assert_eq!(words("storage.segment_bytes"), "size from 1MiB to 1GiB");
    assert_eq!(words("authentication.ban"), "duration from 1s to 30d");
    assert_eq!(
        words("storage.recovery"),
        "one of `\"set-aside\"`, `\"strict\"`"
    );
}
