//! Topic Filters of rules, with places for what a Client is called.
//!
//! Owns: [`TopicPattern`], how it is written, what may take a place. Does not own: many of them (see `tree`).
//! Start reading at [`TopicPattern::parse`]. Invariant: what takes a place is part of one level: a name that
//! is empty or holds `+`, `#` or `/` takes none. An allowing rule then matches nothing there, a denying one
//! everything.

use std::fmt;
use std::sync::Arc;

use proto::topic::check_filter;

use super::{Effect, Subject};

/// A Topic Filter whose levels may hold places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPattern {
    levels: Vec<Level>,
}

/// How places are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    /// There are none.
    Plain,
    /// `${username}`, `${clientid}`, `${attribute.NAME}`.
    Braces,
    /// `%u` and `%c`, as mosquitto has them.
    Percent,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PatternError {
    /// Its levels are no Topic Filter, for this reason.
    Filter(String),
    /// There is no such place.
    UnknownPlace(String),
    /// It begins with `$share/`: a Shared Subscription is judged by what follows its name.
    Shared,
}

impl std::error::Error for PatternError {}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter(why) => f.write_str(why),
            Self::UnknownPlace(name) => {
                let name = name.escape_debug();
                write!(
                    f,
                    "unknown placeholder `{name}`, expected ${{username}}, ${{clientid}} or ${{attribute.NAME}}"
                )
            }
            Self::Shared => {
                f.write_str("a Shared Subscription is judged by the filter after $share/NAME/")
            }
        }
    }
}

/// One level of a pattern.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// As it stands.
    Literal(Box<str>),
    /// `+`
    Single,
    /// `#`
    Multi,
    /// Text and places.
    Template(Template),
}

/// A level with places.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Text(Box<str>),
    User,
    ClientId,
    Attribute(Arc<str>),
}

impl TopicPattern {
    /// Reads `text`, whose places are written in `notation`.
    /// # Errors
    /// It is no Topic Filter, or names a place that there is not.
    pub fn parse(text: &str, notation: Notation) -> Result<Self, PatternError> {
        let mut levels = Vec::new();
        let mut sample = String::new();
        for (number, level) in text.split('/').enumerate() {
            let level = Level::parse(level, notation)?;
            if number > 0 {
                sample.push('/');
            }
            level.push_sample(&mut sample);
            levels.push(level);
        }
        match check_filter(&sample) {
            Ok(false) => Ok(Self { levels }),
            Ok(true) => Err(PatternError::Shared),
            Err(malformed) => Err(PatternError::Filter(malformed.to_string())),
        }
    }

    /// The text that [`Self::parse`] reads as this, with places in braces.
    #[must_use]
    pub fn to_braces(&self) -> String {
        let mut text = String::new();
        for (number, level) in self.levels.iter().enumerate() {
            if number > 0 {
                text.push('/');
            }
            match level {
                Level::Literal(part) => text.push_str(part),
                Level::Single => text.push('+'),
                Level::Multi => text.push('#'),
                Level::Template(Template(parts)) => {
                    for part in parts {
                        match part {
                            Part::Text(part) => text.push_str(part),
                            Part::User => text.push_str("${username}"),
                            Part::ClientId => text.push_str("${clientid}"),
                            Part::Attribute(name) => {
                                text.push_str(&format!("${{attribute.{name}}}"));
                            }
                        }
                    }
                }
            }
        }
        text
    }

    pub(super) fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// Whether every Topic Name that `filter` matches is matched by this too. O(length).
    pub(super) fn covers(&self, filter: &str, subject: Subject<'_>, effect: Effect) -> bool {
        // [MQTT-4.7.2-1] A leading wildcard does not reach `$` topics.
        let is_wild = matches!(self.levels.first(), Some(Level::Single | Level::Multi));
        if is_wild && filter.starts_with('$') {
            return false;
        }
        let mut levels = filter.split('/');
        for own in &self.levels {
            match (own, levels.next()) {
                (Level::Multi, _) => return true,
                (_, None | Some("#")) => return false,
                (Level::Single, Some(_)) => {}
                (Level::Literal(own), Some(level)) if **own == *level => {}
                (Level::Template(own), Some(level)) if own.covers(level, subject, effect) => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }
}

impl TopicPattern {
    /// Whether there may be a Topic Name that both this and `filter` match: false only where there is none. O(length).
    pub(super) fn may_meet(&self, filter: &str) -> bool {
        // [MQTT-4.7.2-1] A leading wildcard does not reach `$` topics.
        if let Some(Level::Literal(first)) = self.levels.first()
            && first.starts_with('$')
            && filter.starts_with(['+', '#'])
        {
            return false;
        }
        let mut levels = filter.split('/');
        for own in &self.levels {
            match (own, levels.next()) {
                (Level::Multi, _) | (_, Some("#")) => return true,
                (_, None) => return false,
                (Level::Literal(own), Some(level)) if level != "+" && **own != *level => {
                    return false;
                }
                (Level::Literal(_) | Level::Single | Level::Template(_), Some(_)) => {}
            }
        }
        matches!(levels.next(), None | Some("#"))
    }
}

impl Level {
    fn parse(text: &str, notation: Notation) -> Result<Self, PatternError> {
        match text {
            "+" => return Ok(Self::Single),
            "#" => return Ok(Self::Multi),
            _ => {}
        }
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, place, after)) = next_place(rest, notation)? {
            if !before.is_empty() {
                parts.push(Part::Text(before.into()));
            }
            parts.push(place);
            rest = after;
        }
        if parts.is_empty() {
            return Ok(Self::Literal(text.into()));
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        Ok(Self::Template(Template(parts)))
    }

    /// What the level is like once its places are taken.
    fn push_sample(&self, sample: &mut String) {
        match self {
            Self::Literal(text) => sample.push_str(text),
            Self::Single => sample.push('+'),
            Self::Multi => sample.push('#'),
            Self::Template(Template(parts)) => {
                for part in parts {
                    match part {
                        Part::Text(text) => sample.push_str(text),
                        _ => sample.push('x'),
                    }
                }
            }
        }
    }
}

/// The first place in `text`, what is before it, and what is after it.
fn next_place(text: &str, notation: Notation) -> Result<Option<(&str, Part, &str)>, PatternError> {
    match notation {
        Notation::Plain => Ok(None),
        Notation::Percent => {
            let found = [("%u", Part::User), ("%c", Part::ClientId)]
                .into_iter()
                .filter_map(|(mark, part)| Some((text.find(mark)?, part)))
                .min_by_key(|(at, _)| *at);
            Ok(found.and_then(|(at, part)| Some((text.get(..at)?, part, text.get(at + 2..)?))))
        }
        Notation::Braces => {
            let Some((before, rest)) = text.split_once("${") else {
                return Ok(None);
            };
            let unknown = |name: &str| PatternError::UnknownPlace(format!("${{{name}"));
            let (name, after) = rest.split_once('}').ok_or_else(|| unknown(rest))?;
            let part = match name {
                "username" => Part::User,
                "clientid" => Part::ClientId,
                _ => match name.strip_prefix("attribute.") {
                    Some(attribute) if !attribute.is_empty() => Part::Attribute(attribute.into()),
                    _ => return Err(unknown(&format!("{name}}}"))),
                },
            };
            Ok(Some((before, part, after)))
        }
    }
}

impl Template {
    /// Whether it is `level` of a Topic Name once its places are taken.
    pub(super) fn is(&self, level: &str, subject: Subject<'_>, effect: Effect) -> bool {
        let mut rest = level;
        for part in &self.0 {
            match part.text(subject).and_then(|text| rest.strip_prefix(text)) {
                Some(after) => rest = after,
                None => return effect == Effect::Deny && self.lacks_a_name(subject),
            }
        }
        rest.is_empty()
    }

    /// Whether all that `level` of a Topic Filter stands for is that.
    fn covers(&self, level: &str, subject: Subject<'_>, effect: Effect) -> bool {
        match level {
            "+" => effect == Effect::Deny && self.lacks_a_name(subject),
            _ => self.is(level, subject, effect),
        }
    }

    fn lacks_a_name(&self, subject: Subject<'_>) -> bool {
        self.0.iter().any(|part| part.text(subject).is_none())
    }
}

impl Part {
    /// What stands there for this Client; `None` where nothing may.
    fn text<'a>(&'a self, subject: Subject<'a>) -> Option<&'a str> {
        let name = match self {
            Self::Text(text) => return Some(text),
            Self::User => subject.principal.user.as_deref()?,
            Self::ClientId => subject.client_id,
            Self::Attribute(name) => subject.principal.attributes.get(name)?,
        };
        (!name.is_empty() && !name.contains(['+', '#', '/'])).then_some(name)
    }
}
