//! What is made of the table of keys: the reference, the JSON Schema, a first file.
//!
//! Owns: their forms. Does not own: the table (see `keys`). Start reading at [`reference()`].
//! Invariant: nothing is said here of a key that the table does not say.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::keys::{self, Key, Kind};

/// The reference of all keys, as a part of a page in Markdown.
#[must_use]
pub fn reference() -> String {
    let mut page = String::new();
    let mut table = None;
    for key in keys::all() {
        let (parent, name) = key.path.rsplit_once('.').unwrap_or(("", &key.path));
        if table != Some(parent) {
            table = Some(parent);
            // Writing to a text cannot fail.
            write!(page, "\n### {}\n\n{COLUMNS}", title(parent)).ok();
        }
        let default = key.default.as_deref();
        let default = default.map_or_else(|| "-".to_owned(), |text| format!("`{text}`"));
        let reload = if key.is_reloaded() { "yes" } else { "no" };
        let (form, meaning) = (key.kind.words(), key.meaning);
        writeln!(
            page,
            "| `{name}` | {form} | {default} | {reload} | {meaning} |"
        )
        .ok();
    }
    page
}

/// A JSON Schema of the configuration, for editors.
#[must_use]
pub fn schema() -> Value {
    let mut root = object_of("");
    if let Value::Object(root) = &mut root {
        root.insert(
            "$schema".to_owned(),
            json!("https://json-schema.org/draft/2020-12/schema"),
        );
        root.insert("title".to_owned(), json!("The configuration of Vencejo"));
    }
    root
}

/// A file to begin with: every key with its default, commented out.
#[must_use]
pub fn first_file() -> String {
    let mut file = HEAD.to_owned();
    for table in ["", "limits", "authentication", "storage", "stop"] {
        if !table.is_empty() {
            write!(file, "\n[{table}]\n").ok();
        }
        let here = keys::all().iter().filter(|key| {
            let (parent, _) = key.path.rsplit_once('.').unwrap_or(("", &key.path));
            parent == table && !matches!(key.kind, Kind::Table | Kind::Tables)
        });
        for key in here {
            let name = key.path.rsplit('.').next().unwrap_or_default();
            let value = match (&key.default, key.kind) {
                (Some(default), _) => default.clone(),
                (None, Kind::Word(words)) => {
                    let words: Vec<String> =
                        words.iter().map(|word| format!("\"{word}\"")).collect();
                    words.join(" | ")
                }
                (None, _) => "...".to_owned(),
            };
            writeln!(
                file,
                "# {name} = {value}\n#     {}",
                key.meaning.replace('`', "")
            )
            .ok();
        }
        if table.is_empty() {
            file.push_str(LISTENERS);
        }
    }
    file.push_str(FOOT);
    file
}

fn title(table: &str) -> String {
    match (table, keys::find(table).map(|key| key.kind)) {
        ("", _) => "At the top of the file".to_owned(),
        (table, Some(Kind::Tables)) => format!("`[[{table}]]`"),
        (table, _) => format!("`[{table}]`"),
    }
}

/// The schema of what stands directly in `table`.
fn object_of(table: &str) -> Value {
    let mut properties = Map::new();
    for key in keys::all() {
        let (parent, name) = key.path.rsplit_once('.').unwrap_or(("", &key.path));
        if parent == table {
            properties.insert(name.to_owned(), schema_of(key));
        }
    }
    json!({ "type": "object", "additionalProperties": false, "properties": properties })
}

fn schema_of(key: &Key) -> Value {
    let mut schema = match key.kind {
        Kind::Whole(least, u64::MAX) => json!({ "type": "integer", "minimum": least }),
        Kind::Whole(least, most) => {
            json!({ "type": "integer", "minimum": least, "maximum": most })
        }
        Kind::Truth => json!({ "type": "boolean" }),
        Kind::Text | Kind::File => json!({ "type": "string" }),
        Kind::Size(..) => json!({ "oneOf": [
            { "type": "integer", "minimum": 0 },
            { "type": "string", "pattern": "^ *[0-9]+ *(B|KiB|MiB|GiB) *$" },
        ] }),
        Kind::Duration(..) => json!({ "oneOf": [
            { "type": "integer", "minimum": 0 },
            { "type": "string", "pattern": "^ *[0-9]+ *(ms|s|m|h|d) *$" },
        ] }),
        Kind::Word(words) => json!({ "enum": words }),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Words(words) => json!({ "type": "array", "items": { "enum": words } }),
        Kind::TextOrNumber => json!({ "type": ["string", "integer"] }),
        Kind::Table => object_of(&key.path),
        Kind::Tables => json!({ "type": "array", "items": object_of(&key.path) }),
        Kind::Map => {
            json!({ "type": "object", "additionalProperties": { "type": "string" } })
        }
    };
    if let Value::Object(schema) = &mut schema {
        schema.insert(
            "description".to_owned(),
            json!(key.meaning.replace('`', "")),
        );
        let default = key.default.as_deref().and_then(json_of);
        if let Some(default) = default {
            schema.insert("default".to_owned(), default);
        }
    }
    schema
}

/// A value of TOML as one of JSON.
fn json_of(text: &str) -> Option<Value> {
    let table: toml::Table = toml::from_str(&format!("value = {text}")).ok()?;
    serde_json::to_value(table.get("value")?).ok()
}

const COLUMNS: &str = "| key | what | default | at reload | |\n|---|---|---|---|---|\n";

const HEAD: &str = "\
# The configuration of Vencejo. What stands here behind a # is the default, or shows the form where there is none.
#
#   vencejo config check -c FILE          says what is wrong with it
#   vencejo config explain KEY            says what a key means
#   vencejo serve -c FILE                 serves with it
#
# Durations are seconds, or \"500ms\", \"30s\", \"5m\", \"2h\", \"7d\"; sizes are bytes, or \"64KiB\", \"1MiB\", \"2GiB\".

";

const LISTENERS: &str = "
# Only from this machine. For others an address of this machine, or \"0.0.0.0:1883\", and users: see below.
[[listeners]]
address = \"127.0.0.1:1883\"

# With TLS; `vencejo tls init --name broker.example` makes the files.
# [[listeners]]
# address = \"0.0.0.0:8883\"
# tls = { certificate = \"tls/server.pem\", key = \"tls/server.key\" }
";

const FOOT: &str = "
# Users come from `vencejo user add NAME`. What they may do, the first rule that matches decides; without rules
# everybody may do everything.
# [[authorization.rules]]
# effect = \"allow\"
# topics = [\"devices/${username}/#\"]
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, parse};

    #[test]
    fn the_first_file_is_valid_and_changes_nothing() {
        let config = parse(&first_file(), "first.toml".as_ref()).expect("is valid");
        assert_eq!(config, Config::default());
    }

    /// Every key stands in it, and is valid once the # is taken away.
    #[test]
    fn what_is_commented_out_in_the_first_file_is_valid() {
        let file = first_file();
        let (head, rest) = file.split_once("\n\n").expect("a head");
        assert!(head.starts_with("# The configuration"));
        let lines = rest.lines().filter(|line| !line.contains("..."));
        let lines = lines.filter(|line| !line.starts_with("#     ") && !line.contains(" | "));
        let text: Vec<String> = lines
            .map(|line| match line.strip_prefix("# ") {
                Some(line) if line.contains(" = ") || line.starts_with('[') => line.to_owned(),
                Some(_) => String::new(),
                None => line.to_owned(),
            })
            .collect();
        let said = parse(&text.join("\n"), "first.toml".as_ref());
        assert!(said.is_ok(), "{}", said.expect_err("is wrong"));
    }

    #[test]
    fn the_schema_knows_every_key_and_no_other() {
        let schema = schema();
        let limits = &schema["properties"]["limits"];
        assert_eq!(limits["additionalProperties"], json!(false));
        assert_eq!(
            limits["properties"]["receive_maximum"]["maximum"],
            json!(65535)
        );
        assert_eq!(
            limits["properties"]["receive_maximum"]["default"],
            json!(1024)
        );
        let tls = &schema["properties"]["listeners"]["items"]["properties"]["tls"];
        let versions = &tls["properties"]["min_version"]["enum"];
        assert_eq!(*versions, json!(["1.2", "1.3"]));
        let count = schema.to_string().matches("\"description\"").count();
        assert_eq!(count, keys::all().len());
    }

    #[test]
    fn the_reference_in_the_documentation_is_what_the_table_says() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written.ends_with(&reference()),
            "run `cargo xtask configuration`"
        );
    }
}
