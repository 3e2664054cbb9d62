//! Which Client Identifiers a user may use.
//!
//! Owns: [`ClientIds`], how a pattern is written and matched. Does not own: whose a Session is once it is there (see the
//! engine), the form of the configuration (see `config`). Start reading at [`ClientIds::refusing`].
//! Invariant: what takes a place, or stands where `*` does, holds no `+`, `#` or `/`.

use std::fmt;
use std::sync::Arc;

use engine::{Principal, Subject, Who};

/// Rules in their order; the first that is about a Client decides. One that none is about may use any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientIds(Vec<ClientIdRule>);

/// Who has to use one of these Client Identifiers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdRule {
    /// What the log calls it: its name, or where it stands.
    pub name: Arc<str>,
    /// Whom it is about.
    pub who: Who,
    /// What they may use.
    pub patterns: Vec<ClientIdPattern>,
}

/// Text with the places `${username}` and `${attribute.NAME}`, and `*` at its end for whatever follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientIdPattern {
    parts: Vec<Part>,
    is_open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    User,
    Attribute(String),
}

/// Why a text is no pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientIdPatternError {
    /// There is nothing in it.
    Empty,
    /// There is no such place.
    UnknownPlace,
    /// `*` stands for the end, and for nothing else.
    Star,
}

impl std::error::Error for ClientIdPatternError {}

impl fmt::Display for ClientIdPatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "a pattern is not empty",
            Self::UnknownPlace => "unknown placeholder, expected ${username} or ${attribute.NAME}",
            Self::Star => "`*` stands at the end only",
        })
    }
}

impl ClientIds {
    /// These rules, in this order.
    #[must_use]
    pub const fn new(rules: Vec<ClientIdRule>) -> Self {
        Self(rules)
    }

    /// The rule by which this Client may not use this Client Identifier; `None` if it may.
    #[must_use]
    pub fn refusing(&self, principal: &Principal, client_id: &str) -> Option<&ClientIdRule> {
        let subject = Subject {
            principal,
            client_id,
        };
        let rule = self.0.iter().find(|rule| rule.who.includes(subject))?;
        let may = rule
            .patterns
            .iter()
            .any(|one| one.matches(principal, client_id));
        (!may).then_some(rule)
    }
}

impl ClientIdPattern {
    /// Reads a pattern.
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, ClientIdPatternError> {
        let (text, is_open) = match text.strip_suffix('*') {
            Some(before) => (before, true),
            None => (text, false),
        };
        if text.contains('*') {
            return Err(ClientIdPatternError::Star);
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("${") {
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let unknown = ClientIdPatternError::UnknownPlace;
            let (name, after) = after.split_once('}').ok_or(unknown)?;
            parts.push(match (name, name.strip_prefix("attribute.")) {
                ("username", _) => Part::User,
                (_, Some(attribute)) if !attribute.is_empty() => {
                    Part::Attribute(attribute.to_owned())
                }
                _ => return Err(unknown),
            });
            rest = after;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        if parts.is_empty() && !is_open {
            return Err(ClientIdPatternError::Empty);
        }
        Ok(Self { parts, is_open })
    }

    fn matches(&self, principal: &Principal, client_id: &str) -> bool {
        let mut rest = client_id;
        for part in &self.parts {
            let text = match part {
                Part::Text(text) => Some(text.as_str()),
                Part::User => plain(principal.user.as_deref()),
                Part::Attribute(name) => {
                    plain(principal.attributes.get(name.as_str()).map(AsRef::as_ref))
                }
            };
            match text.and_then(|text| rest.strip_prefix(text)) {
                Some(after) => rest = after,
                None => return false,
            }
        }
        if self.is_open {
            !is_wild(rest)
        } else {
            rest.is_empty()
        }
    }
}

fn plain(name: Option<&str>) -> Option<&str> {
    name.filter(|name| !name.is_empty() && !is_wild(name))
}

/// Whether it could mean more than itself, or another level, in a topic that is made of it.
fn is_wild(text: &str) -> bool {
    text.contains(['+', '#', '/'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(pattern: &str, user: Option<&str>, client_id: &str) -> bool {
        let rule = ClientIdRule {
            name: "rule".into(),
            who: Who::default(),
            patterns: vec![ClientIdPattern::parse(pattern).expect("a pattern")],
        };
        let principal = Principal {
            user: user.map(Into::into),
            attributes: [("site".into(), "north".into())].into(),
            ..Principal::default()
        };
        ClientIds::new(vec![rule])
            .refusing(&principal, client_id)
            .is_none()
    }

    /// P12 and class A: no name, and nothing behind it, reaches into the identifiers or topics of others.
    #[test]
    fn places_and_stars_take_what_is_plain_only() {
        for (pattern, user, client_id, expected) in [
            ("${username}", Some("ann"), "ann", true),
            ("${username}", Some("ann"), "ann2", false),
            ("${username}", Some("ann"), "eve", false),
            ("${username}", None, "", false),
            ("${username}", Some("a/b"), "a/b", false),
            ("${username}", Some("+"), "+", false),
            ("${username}-*", Some("ann"), "ann-1", true),
            ("${username}-*", Some("ann"), "ann-", true),
            ("${username}-*", Some("ann"), "ann-1/2", false),
            ("${username}-*", Some("ann"), "ann-#", false),
            ("${username}-*", Some("ann"), "anna-1", false),
            ("x-${attribute.site}", Some("ann"), "x-north", true),
            ("x-${attribute.none}", Some("ann"), "x-", false),
            ("*", None, "anything", true),
            ("fixed", None, "fixed", true),
        ] {
            assert_eq!(
                may(pattern, user, client_id),
                expected,
                "{pattern} {client_id}"
            );
        }
        for (bad, expected) in [
            ("", ClientIdPatternError::Empty),
            ("a*b", ClientIdPatternError::Star),
            ("${clientid}", ClientIdPatternError::UnknownPlace),
            ("${attribute.}", ClientIdPatternError::UnknownPlace),
            ("${username", ClientIdPatternError::UnknownPlace),
        ] {
            assert_eq!(ClientIdPattern::parse(bad), Err(expected), "{bad}");
        }
    }

    #[test]
    fn first_rule_about_a_client_decides_and_without_one_it_may_use_any() {
        let rule = |name: &str, anonymous, pattern| ClientIdRule {
            name: name.into(),
            who: Who {
                anonymous,
                ..Who::default()
            },
            patterns: vec![ClientIdPattern::parse(pattern).expect("a pattern")],
        };
        let rules = vec![
            rule("first", Some(false), "${username}"),
            rule("second", Some(false), "*"),
        ];
        let rules = ClientIds::new(rules);
        let ann = Principal {
            user: Some("ann".into()),
            ..Principal::default()
        };
        let name = |found: Option<&ClientIdRule>| found.map(|rule| Arc::clone(&rule.name));
        assert_eq!(name(rules.refusing(&ann, "eve")), Some("first".into()));
        assert_eq!(name(rules.refusing(&ann, "ann")), None);
        assert_eq!(name(rules.refusing(&Principal::default(), "eve")), None);
    }
}
