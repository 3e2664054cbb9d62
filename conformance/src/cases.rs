//! From `cases/*.toml` to cases: a row times its versions times its lists.
//!
//! Owns: the file format, the placeholders `{id}`, `{1}`, `{x1}`, the names of cases.
//! Does not own: the step language (see `steps`).
//! Start reading at [`load`]. Invariant: no two cases have the same name, and none the same steps.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::bytes::Version;
use crate::steps::{self, Step};

/// One run against the broker.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// File, version and sentence.
    pub(crate) name: String,
    /// The version its connections speak unless they say otherwise.
    pub(crate) version: Version,
    /// The statements it shows, for this version.
    pub(crate) statements: Vec<String>,
    /// Its steps.
    pub(crate) steps: Vec<Step>,
    /// Its own prefix for Client Identifiers and Topic Names.
    pub(crate) id: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    lists: BTreeMap<String, Vec<RawVariant>>,
    row: Vec<RawRow>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRow {
    name: String,
    version: OneOrMore,
    #[serde(default)]
    statements: Vec<String>,
    each: Option<RawList>,
    across: Option<RawList>,
    /// Names of the variants of `each` that are left out.
    #[serde(default)]
    except: Vec<String>,
    /// Names of the variants of `each` that are taken; all if empty.
    #[serde(default)]
    only: Vec<String>,
    steps: String,
}

impl RawRow {
    fn takes(&self, variant: &str) -> bool {
        let is_in = |names: &[String]| names.iter().any(|name| name == variant);
        !is_in(&self.except) && (self.only.is_empty() || is_in(&self.only))
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum RawList {
    Named(String),
    Here(Vec<RawVariant>),
}

/// A variant is its own name, or a name followed by the values of `{1}`, `{2}` ...
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum RawVariant {
    Value(String),
    NameAndValues(Vec<String>),
}

/// Reads every `.toml` file of `folder`; `nonce` makes this run's identifiers its own.
pub(crate) fn load(folder: &Path, nonce: &str) -> Result<Vec<Case>, String> {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut paths: Vec<_> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    paths.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "toml")
    });
    paths.sort();
    let mut files = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path);
        let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        files.push((stem.into_owned(), text));
    }
    read_all(files.into_iter(), nonce)
}

/// Reads files, each by its name and its text.
pub(crate) fn read_all(
    files: impl Iterator<Item = (String, String)>,
    nonce: &str,
) -> Result<Vec<Case>, String> {
    let mut cases = Vec::new();
    for (stem, text) in files {
        let read = read(&stem, &text, nonce, cases.len());
        cases.extend(read.map_err(|error| format!("{stem}: {error}"))?);
    }
    all_distinct(&cases)?;
    Ok(cases)
}

fn read(stem: &str, text: &str, nonce: &str, first_number: usize) -> Result<Vec<Case>, String> {
    let file: RawFile = toml::from_str(text).map_err(|error| error.to_string())?;
    let mut cases: Vec<Case> = Vec::new();
    for row in &file.row {
        let expanded = expand(row, &file.lists);
        let expanded = expanded.map_err(|error| format!("row {:?}: {error}", row.name))?;
        for (name, version, steps) in expanded {
            let id = format!("c{nonce}{}", first_number + cases.len());
            let steps = steps::parse(&steps.replace("{id}", &id));
            cases.push(Case {
                name: format!("{stem} v{}: {name}", version.name()),
                version,
                statements: statements_for(version, &row.statements),
                steps: steps.map_err(|error| format!("row {name:?}: {error}"))?,
                id,
            });
        }
    }
    Ok(cases)
}

/// Statements of 3.1.1 are marked `v3.1.1`; a row for both versions names both.
fn statements_for(version: Version, statements: &[String]) -> Vec<String> {
    let is_wanted =
        |statement: &&String| (version == Version::V5) == statement.starts_with("MQTT-");
    statements.iter().filter(is_wanted).cloned().collect()
}

fn expand(
    row: &RawRow,
    lists: &BTreeMap<String, Vec<RawVariant>>,
) -> Result<Vec<(String, Version, String)>, String> {
    let versions = match &row.version {
        OneOrMore::One(version) => vec![version.clone()],
        OneOrMore::More(versions) => versions.clone(),
    };
    let mut expanded = Vec::new();
    for version in versions {
        let version = Version::parse(&version)?;
        for (across_name, steps) in variants(row.across.as_ref(), lists, &row.steps, "x")? {
            let each = variants(row.each.as_ref(), lists, &steps, "")?;
            for (each_name, steps) in each {
                if row.each.is_some() && !row.takes(&each_name) {
                    continue;
                }
                let parts = [row.name.as_str(), &across_name, &each_name];
                let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
                expanded.push((parts.join(": "), version, steps));
            }
        }
    }
    Ok(expanded)
}

fn variants(
    list: Option<&RawList>,
    lists: &BTreeMap<String, Vec<RawVariant>>,
    steps: &str,
    prefix: &str,
) -> Result<Vec<(String, String)>, String> {
    let variants = match list {
        None => return Ok(vec![(String::new(), steps.to_owned())]),
        Some(RawList::Named(name)) => lists
            .get(name)
            .ok_or_else(|| format!("no list is called {name:?}"))?,
        Some(RawList::Here(variants)) => variants,
    };
    let mut expanded = Vec::new();
    for variant in variants {
        let (name, values) = match variant {
            RawVariant::Value(value) => (value, std::slice::from_ref(value)),
            RawVariant::NameAndValues(all) => all.split_first().ok_or("an empty variant")?,
        };
        let mut steps = steps.to_owned();
        for (index, value) in values.iter().enumerate() {
            steps = steps.replace(&format!("{{{prefix}{}}}", index + 1), value);
        }
        expanded.push((name.clone(), steps));
    }
    Ok(expanded)
}

fn all_distinct(cases: &[Case]) -> Result<(), String> {
    let mut names = BTreeSet::new();
    let mut contents = BTreeMap::new();
    for case in cases {
        if !names.insert(&case.name) {
            return Err(format!("two cases are called {:?}", case.name));
        }
        let lines: Vec<String> = case
            .steps
            .iter()
            .map(|step| step.text.replace(&case.id, "{id}"))
            .collect();
        let content = (case.version.name(), lines);
        if let Some(other) = contents.insert(content, &case.name) {
            return Err(format!("{:?} and {other:?} do the same", case.name));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_becomes_one_case_for_each_version_and_variant() {
        let text = r#"
            [lists]
            bad = [["NUL", "00"], ["a lone continuation byte", "80"]]
            [[row]]
            name = "Bad text"
            version = ["3.1.1", "5"]
            statements = ["MQTT-1.5.4-1", "v3.1.1 MQTT-1.5.3-1"]
            each = "bad"
            across = [["topic", "30"], ["filter", "82"]]
            steps = "send {x1} ( [ {1} ] s'{id}' )"
        "#;
        let cases = read("utf8", text, "n", 5).unwrap();
        assert_eq!(cases.len(), 8);
        assert_eq!(cases[0].name, "utf8 v3.1.1: Bad text: topic: NUL");
        assert_eq!(cases[0].statements, ["v3.1.1 MQTT-1.5.3-1"]);
        assert_eq!(cases[7].steps[0].text, "send 82 ( [ 80 ] s'cn12' )");
        assert_eq!(all_distinct(&cases), Ok(()));
    }

    #[test]
    fn cases_that_do_the_same_are_refused() {
        let text = r#"
            [[row]]
            name = "One"
            version = "5"
            steps = "connect"
            [[row]]
            name = "Other"
            version = "5"
            steps = "connect"
        "#;
        let cases = read("x", text, "n", 0).unwrap();
        assert!(all_distinct(&cases).unwrap_err().contains("do the same"));
    }

    #[test]
    fn the_cases_of_this_crate_load_and_are_enough() {
        let cases = load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cases"), "t").unwrap();
        assert!(cases.len() >= 600, "{} cases", cases.len());
    }
}
