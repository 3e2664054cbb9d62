//! Texts with placeholders that a login fills: `${username}`, `${clientid}`, `${address}`, `${dn}`.
//!
//! Owns: [`Template`], [`Placeholder`]. Does not own: how a value is made harmless where it is put (see who
//! fills it). Start reading at [`Template::parse`]. Invariant: a value is never looked through for placeholders.

use std::fmt::Write as _;

/// What a login knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placeholder {
    /// `${username}`: User Name.
    UserName,
    /// `${clientid}`: Client Identifier; empty where the Server assigns one.
    ClientId,
    /// `${address}`: where the Client connects from, without the port; empty by a Unix socket.
    Address,
    /// `${dn}`: the name of the user's entry in a directory.
    Dn,
}

/// A text with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Value(Placeholder),
}

impl Placeholder {
    /// As it is written.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::UserName => "${username}",
            Self::ClientId => "${clientid}",
            Self::Address => "${address}",
            Self::Dn => "${dn}",
        }
    }
}

impl Template {
    /// Reads `text`, in which the `allowed` placeholders may stand.
    /// # Errors
    /// Another one stands there, or one that has no end.
    pub(crate) fn parse(text: &str, allowed: &[Placeholder]) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, from) = rest.split_at(at);
            let end = from.find('}').ok_or("a placeholder has no end")?;
            let (word, after) = from.split_at(end + 1);
            let known = allowed.iter().find(|one| one.word() == word);
            let Some(placeholder) = known else {
                let words: Vec<&str> = allowed.iter().map(|one| one.word()).collect();
                let words = words.join(", ");
                return Err(format!("unknown placeholder `{word}`, there is {words}"));
            };
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Value(*placeholder));
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// Whether `placeholder` stands in it.
    #[must_use]
    pub fn has(&self, placeholder: Placeholder) -> bool {
        self.parts.contains(&Part::Value(placeholder))
    }

    /// The text with `value` of each placeholder in its place.
    #[must_use]
    pub fn fill(&self, mut value: impl FnMut(Placeholder) -> String) -> String {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(part) => text.push_str(part),
                Part::Value(placeholder) => text.push_str(&value(*placeholder)),
            }
        }
        text
    }

    /// As an SQL statement whose parameters are numbered `$1`, `$2`, and what each of them is.
    #[must_use]
    pub fn numbered(&self) -> (String, Vec<Placeholder>) {
        let mut of: Vec<Placeholder> = Vec::new();
        let statement = self.fill(|placeholder| {
            let known = of.iter().position(|one| *one == placeholder);
            let at = known.unwrap_or_else(|| {
                of.push(placeholder);
                of.len() - 1
            });
            let mut mark = String::new();
            // Writing to a String does not fail.
            write!(mark, "${}", at + 1).ok();
            mark
        });
        (statement, of)
    }

    /// As an SQL statement whose parameters are `?`, and what each of them is.
    #[must_use]
    pub fn marked(&self) -> (String, Vec<Placeholder>) {
        let mut of = Vec::new();
        let statement = self.fill(|placeholder| {
            of.push(placeholder);
            "?".to_owned()
        });
        (statement, of)
    }

    /// Whether a placeholder stands between quotation marks, where SQL takes it for a text.
    #[must_use]
    pub(super) fn is_quoted(&self) -> bool {
        let mut open = None;
        for part in &self.parts {
            match part {
                Part::Value(_) if open.is_some() => return true,
                Part::Value(_) => {}
                Part::Text(text) => {
                    for character in text.chars().filter(|one| matches!(one, '\'' | '"' | '`')) {
                        open = match open {
                            None => Some(character),
                            Some(mark) if mark == character => None,
                            open => open,
                        };
                    }
                }
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Placeholder; 3] = [
        Placeholder::UserName,
        Placeholder::ClientId,
        Placeholder::Address,
    ];

    fn template(text: &str) -> Template {
        Template::parse(text, &ALL).expect("is a template")
    }

    #[test]
    fn value_is_put_where_its_placeholder_stands_and_not_read_again() {
        let filled = template("a:${username}:${clientid}${username}").fill(|one| match one {
            Placeholder::UserName => "${clientid}".to_owned(),
            _ => "$x".to_owned(),
        });
        assert_eq!(filled, "a:${clientid}:$x${clientid}");
        assert_eq!(
            template("$ {x} }").fill(|_| panic!("nothing to fill")),
            "$ {x} }"
        );
    }

    #[test]
    fn statement_has_parameters_where_placeholders_stood() {
        let query = template("SELECT a WHERE b = ${clientid} AND c IN (${username}, ${clientid})");
        let (text, of) = query.numbered();
        assert_eq!(text, "SELECT a WHERE b = $1 AND c IN ($2, $1)");
        assert_eq!(of, [Placeholder::ClientId, Placeholder::UserName]);
        let (text, of) = query.marked();
        assert_eq!(text, "SELECT a WHERE b = ? AND c IN (?, ?)");
        assert_eq!(of.len(), 3);
    }

    #[test]
    fn unknown_and_quoted_placeholders_are_found() {
        for text in ["${user}", "${dn}", "${username", "${}"] {
            assert!(Template::parse(text, &ALL).is_err(), "{text}");
        }
        for text in ["'${username}'", "\"it's ${username}\"", "`a`'${username}"] {
            assert!(template(text).is_quoted(), "{text}");
        }
        for text in [
            "${username}",
            "'it''s' = ${username}",
            "\"a'b\" = ${username} 'x'",
        ] {
            assert!(!template(text).is_quoted(), "{text}");
        }
    }
}
