//! The vencejo.toml that somebody else's configuration becomes, as it grows.
//!
//! Owns: its tables, how they are written. Does not own: what goes into them (see `mosquitto`, `emqx`, `nanomq`). Start reading
//! at [`Target::toml`]. Invariant: a key is written once; the last that was said counts.

use std::fmt::Write as _;

/// Keys and their values, as TOML.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table(Vec<(&'static str, String)>);

impl Table {
    /// Says a text.
    pub(crate) fn text(&mut self, key: &'static str, value: impl AsRef<str>) {
        self.raw(key, quoted(value.as_ref()));
    }

    /// Says a list of texts.
    pub(crate) fn texts<T: AsRef<str>>(&mut self, key: &'static str, values: &[T]) {
        let values: Vec<String> = values.iter().map(|value| quoted(value.as_ref())).collect();
        self.raw(key, format!("[{}]", values.join(", ")));
    }

    /// Says what is TOML already.
    pub(crate) fn raw(&mut self, key: &'static str, value: impl ToString) {
        self.0.retain(|(known, _)| *known != key);
        self.0.push((key, value.to_string()));
    }

    /// Says all that another one says.
    pub(crate) fn extend(&mut self, other: &Self) {
        for (key, value) in &other.0 {
            self.raw(key, value);
        }
    }

    /// Says nothing of `key` any more.
    pub(crate) fn forget(&mut self, key: &str) {
        self.0.retain(|(known, _)| *known != key);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| *known == key);
        found.map(|(_, value)| value.as_str())
    }

    /// In one line.
    pub(crate) fn inline(&self) -> String {
        let parts: Vec<String> = self
            .0
            .iter()
            .map(|(key, value)| format!("{key} = {value}"))
            .collect();
        format!("{{ {} }}", parts.join(", "))
    }

    fn write_to(&self, text: &mut String) {
        for (key, value) in &self.0 {
            // Writing to a text cannot fail.
            writeln!(text, "{key} = {value}").ok();
        }
    }
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Target {
    pub(crate) top: Table,
    pub(crate) listeners: Vec<Table>,
    pub(crate) limits: Table,
    pub(crate) authentication: Table,
    pub(crate) client_ids: Vec<Table>,
    pub(crate) authorization: Table,
    pub(crate) rules: Vec<Table>,
    pub(crate) storage: Table,
}

impl Target {
    /// What is wrong with it, in words, apart from files that it names.
    pub(crate) fn fault(&self) -> Option<String> {
        let fault = server::config::parse(&self.toml("x", "x"), "x".as_ref()).err()?;
        let fault = fault.to_string();
        let first = fault.lines().next().unwrap_or_default();
        // Behind file, line and column.
        Some(
            first
                .splitn(4, ':')
                .last()
                .unwrap_or(first)
                .trim()
                .to_owned(),
        )
    }

    /// The text of the file; `what` was imported, `from` is where it comes from.
    pub(crate) fn toml(&self, what: &str, from: &str) -> String {
        let mut text = format!(
            "# Made by `vencejo import {what}` of {}.\n",
            from.escape_debug()
        );
        self.top.write_to(&mut text);
        for listener in &self.listeners {
            text.push_str("\n[[listeners]]\n");
            listener.write_to(&mut text);
        }
        for (name, table) in [
            ("limits", &self.limits),
            ("storage", &self.storage),
            ("authentication", &self.authentication),
        ] {
            if !table.is_empty() {
                // Writing to a text cannot fail.
                write!(text, "\n[{name}]\n").ok();
                table.write_to(&mut text);
            }
        }
        for rule in &self.client_ids {
            text.push_str("\n[[authentication.client_ids]]\n");
            rule.write_to(&mut text);
        }
        if !self.authorization.is_empty() {
            text.push_str("\n[authorization]\n");
            self.authorization.write_to(&mut text);
        }
        for rule in &self.rules {
            text.push_str("\n[[authorization.rules]]\n");
            rule.write_to(&mut text);
        }
        text
    }
}

/// A text as TOML has it.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from("\"");
    for one in text.chars() {
        match one {
            '"' | '\\' => quoted.extend(['\\', one]),
            one if one.is_control() => {
                // Writing to a text cannot fail.
                write!(quoted, "\\u{:04X}", u32::from(one)).ok();
            }
            one => quoted.push(one),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_a_text_holds_comes_back() {
        for text in ["a b", "C:\\x \"y\"", "tab\tbell\u{7}del\u{7f}", "ñ🦅"] {
            let mut target = Target::default();
            target.storage.text("data", "old");
            target.storage.text("data", text);
            let config = server::config::parse(&target.toml("m", "x\ny"), "t".as_ref()).unwrap();
            assert_eq!(config.storage.data.to_str(), Some(text));
        }
    }
}
