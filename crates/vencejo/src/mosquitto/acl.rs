//! mosquitto's ACL file of one listener, as rules that are for this listener only.
//!
//! Owns: [`rules`]. Does not own: the file for all listeners, which is taken as it is (see `server::authorization`).
//! Start reading at [`rules`]. Invariant: sections in their order with patterns last, and of each first what it denies, as
//! mosquitto asks them.

use crate::import::target::Table;

/// Whose lines these are.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Section {
    Anonymous,
    User(String),
    Pattern,
}

/// The lines of `text` as rules for Clients of `listeners`; `name` is what the log calls them.
/// # Errors
/// A line is none that mosquitto has.
pub(super) fn rules(text: &str, name: &str, listeners: &[String]) -> Result<Vec<Table>, String> {
    let mut section = Section::Anonymous;
    let mut found: Vec<(bool, bool, Table)> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim_end();
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let wrong = |why: &str| format!("{name}:{number}: {why}");
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim_start();
        let of = match word {
            "user" if rest.is_empty() => return Err(wrong("the user name is missing")),
            "user" => {
                section = Section::User(rest.to_owned());
                continue;
            }
            "topic" => section.clone(),
            "pattern" => Section::Pattern,
            other => return Err(wrong(&format!("`{}` begins no line", other.escape_debug()))),
        };
        let (access, topic) = match rest.split_once(' ') {
            Some((access, topic)) => (access, topic.trim_start()),
            None => ("readwrite", rest),
        };
        if topic.is_empty() {
            return Err(wrong("the topic is missing"));
        }
        let (effect, actions): (_, &[&str]) = match access {
            "read" => ("allow", &["receive"]),
            "write" => ("allow", &["publish"]),
            "readwrite" => ("allow", &["publish", "receive"]),
            "deny" => ("deny", &["publish", "receive"]),
            other => return Err(wrong(&format!("unknown access `{}`", other.escape_debug()))),
        };
        let mut rule = Table::default();
        rule.text("name", format!("{name}:{number}"));
        rule.text("effect", effect);
        rule.texts("actions", actions);
        let is_pattern = of == Section::Pattern;
        rule.texts("topics", &[topic_of(topic, is_pattern)]);
        match of {
            Section::Anonymous => rule.raw("anonymous", true),
            Section::User(user) => rule.texts("users", &[user]),
            Section::Pattern => {}
        }
        rule.texts("listeners", listeners);
        found.push((is_pattern, effect == "allow", rule));
    }
    found.sort_by_key(|(is_pattern, is_allow, _)| (*is_pattern, *is_allow));
    let mut rules: Vec<Table> = found.into_iter().map(|(_, _, rule)| rule).collect();
    rules.push(everything(
        &format!("{name}: every subscription"),
        Some("subscribe"),
        listeners,
    ));
    Ok(rules)
}

/// A rule that allows an action, or all, on every topic.
pub(super) fn everything(name: &str, action: Option<&str>, listeners: &[String]) -> Table {
    let mut rule = Table::default();
    rule.text("name", name);
    rule.text("effect", "allow");
    if let Some(action) = action {
        rule.texts("actions", &[action]);
    }
    rule.texts("topics", &["#", "$SYS/#"]);
    rule.texts("listeners", listeners);
    rule
}

/// A topic in our notation.
pub(super) fn topic_of(topic: &str, has_places: bool) -> String {
    if !has_places {
        return topic.to_owned();
    }
    topic
        .replace("%u", "${username}")
        .replace("%c", "${clientid}")
}
