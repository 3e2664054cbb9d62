//! mosquitto's ACL file.
//!
//! Owns: [`parse`]: its lines, their order, their meaning as rules. Does not own: when it is read.
//! Start reading at [`parse`]. Invariant: what mosquitto 2.0 denies is denied; a line that is not understood
//! is an error.
//!
//! Lines before the first `user` are for anonymous Clients, lines after one for that user; `pattern` lines are
//! for everyone, wherever they stand, and come last. Of each, `deny` lines come first. Whatever it says, a
//! Subscription is accepted, and brings what may be read. Where mosquitto lets a user name or Client
//! Identifier with `/` take a place of `%u` or `%c`, it takes none here: it could reach into another's topics.

use std::fmt;
use std::sync::Arc;

use engine::{Actions, Effect, Notation, Rule, TopicPattern, Topics, Who};

/// A line that is not understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclError {
    line: usize,
    what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    NotText,
    UnknownLine(String),
    NoTopic,
    UnknownAccess(String),
    NoUser,
    Topic(String, String),
}

impl AclError {
    /// The line, from 1.
    #[must_use]
    pub const fn line(&self) -> usize {
        self.line
    }
}

impl std::error::Error for AclError {}

impl fmt::Display for AclError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.what {
            What::NotText => f.write_str("the line is not UTF-8"),
            What::UnknownLine(word) => {
                let word = word.escape_debug();
                write!(
                    f,
                    "`{word}` begins no line, expected topic, pattern, user or #"
                )
            }
            What::NoTopic => f.write_str("the topic is missing"),
            What::UnknownAccess(word) => {
                let word = word.escape_debug();
                write!(
                    f,
                    "unknown access `{word}`, expected read, write, readwrite or deny"
                )
            }
            What::NoUser => f.write_str("the user name is missing"),
            What::Topic(topic, why) => write!(f, "`{}`: {why}", topic.escape_debug()),
        }
    }
}

/// Whose lines follow.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Section {
    Anonymous,
    User(Arc<str>),
    Pattern,
}

/// The lines of `bytes` as rules in the order in which mosquitto asks them; `name` is what the log calls the
/// file. Empty if it allows and denies nothing.
/// # Errors
/// A line is none that mosquitto has.
pub fn parse(bytes: &[u8], name: &str) -> Result<Vec<Rule>, AclError> {
    let mut section = Section::Anonymous;
    let mut found: Vec<(Section, Rule)> = Vec::new();
    for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
        let fault = |what| AclError { line: number, what };
        let line = std::str::from_utf8(line).map_err(|_| fault(What::NotText))?;
        let line = line.trim_end_matches(|end: char| end.is_ascii_whitespace());
        if line.starts_with('#') {
            continue;
        }
        let Some((word, rest)) = next_word(line) else {
            continue;
        };
        match word {
            "user" if rest.is_empty() => return Err(fault(What::NoUser)),
            "user" => section = Section::User(rest.into()),
            "topic" | "pattern" => {
                let is_pattern = word == "pattern";
                let of = if is_pattern {
                    Section::Pattern
                } else {
                    section.clone()
                };
                let mut rule = parse_rule(rest, is_pattern).map_err(fault)?;
                rule.name = format!("{name}:{number}").into();
                rule.who = who(&of, rest, rule.effect);
                found.push((of, rule));
            }
            other => return Err(fault(What::UnknownLine(other.to_owned()))),
        }
    }
    Ok(in_order(found, name))
}

/// The first word of `line`, and what follows the blanks after it.
fn next_word(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start_matches(' ');
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    (!word.is_empty()).then(|| (word, rest.trim_start_matches(' ')))
}

/// `[read|write|readwrite|deny] TOPIC`
fn parse_rule(rest: &str, is_pattern: bool) -> Result<Rule, What> {
    let (word, after) = next_word(rest).ok_or(What::NoTopic)?;
    // A word alone is a topic, whatever it says.
    let (access, topic) = if after.is_empty() {
        ("readwrite", word)
    } else {
        (word, after)
    };
    let (effect, actions) = match access {
        "read" => (Effect::Allow, Actions::RECEIVE),
        "write" => (Effect::Allow, Actions::PUBLISH),
        "readwrite" => (Effect::Allow, Actions::RECEIVE.and(Actions::PUBLISH)),
        "deny" => (Effect::Deny, Actions::RECEIVE.and(Actions::PUBLISH)),
        other => return Err(What::UnknownAccess(other.to_owned())),
    };
    let notation = if is_pattern {
        Notation::Percent
    } else {
        Notation::Plain
    };
    let pattern = TopicPattern::parse(topic, notation)
        .map_err(|error| What::Topic(topic.to_owned(), error.to_string()))?;
    Ok(Rule {
        effect,
        actions,
        topics: Topics::Matching(vec![pattern]),
        ..Rule::allow("")
    })
}

fn who(section: &Section, line: &str, effect: Effect) -> Who {
    match section {
        Section::Anonymous => Who {
            anonymous: Some(true),
            ..Who::default()
        },
        Section::User(user) => Who {
            users: [Arc::clone(user)].into(),
            ..Who::default()
        },
        Section::Pattern => Who {
            // mosquitto passes such a line over for a Client without a user name. One that allows allows it
            // nothing anyway.
            anonymous: (effect == Effect::Deny && line.contains("%u")).then_some(false),
            // For a Client with a name like a filter all patterns end in a refusal.
            plain_names: true,
            ..Who::default()
        },
    }
}

/// Sections in their order with patterns last, and of each first what it denies.
fn in_order(mut found: Vec<(Section, Rule)>, name: &str) -> Vec<Rule> {
    if found.is_empty() {
        return Vec::new();
    }
    found.sort_by_key(|(section, rule)| {
        let is_pattern = *section == Section::Pattern;
        (is_pattern, rule.effect == Effect::Allow)
    });
    let mut rules: Vec<Rule> = found.into_iter().map(|(_, rule)| rule).collect();
    rules.push(Rule {
        actions: Actions::SUBSCRIBE,
        ..Rule::allow(&format!("{name}: every subscription, for what may be read"))
    });
    rules
}

#[cfg(test)]
mod tests {
    use engine::{Principal, Request, Rules, Subject};
    use proto::Qos;

    use super::*;

    const FILE: &[u8] = b"# everyone without a name\n\
        topic read news/#\n\
        topic write in box\n\
        topic deny news/secret\n\
        \n\
        user ann\r\n\
        topic a/#\n\
        topic deny a/private/#\n\
        topic  read   b c \n\
        user  bob the builder\n\
        topic write tools/+\n\
        pattern readwrite u/%u/#\n\
        pattern read c/x%c\n\
        pattern deny u/%u/locked\n\
        pattern read public\n";

    fn may(user: Option<&str>, client_id: &str, request: Request<'_>) -> (bool, String) {
        let rules = Rules::new(parse(FILE, "acl").expect("a file"));
        let principal = Principal {
            user: user.map(Arc::from),
            ..Principal::default()
        };
        let subject = Subject {
            principal: &principal,
            client_id,
        };
        let decision = rules.decide(&rules.applying(subject), subject, request);
        (decision.is_allowed, decision.reason().to_string())
    }

    fn reads(user: Option<&str>, client_id: &str, topic: &str) -> bool {
        may(user, client_id, Request::Receive { topic }).0
    }

    fn writes(user: Option<&str>, client_id: &str, topic: &str) -> bool {
        let (qos, retain) = (Qos::AtMostOnce, false);
        may(user, client_id, Request::Publish { topic, qos, retain }).0
    }

    #[test]
    fn each_section_is_for_its_clients_and_deny_comes_first() {
        assert!(reads(None, "x", "news/today"));
        assert!(!reads(None, "x", "news/secret"));
        assert!(!writes(None, "x", "news/today"));
        assert!(writes(None, "x", "in box"));
        let ann = Some("ann");
        assert!(!reads(ann, "x", "news/today"));
        assert!(reads(ann, "x", "a/b") && writes(ann, "x", "a/b"));
        assert!(!reads(ann, "x", "a/private/b") && !writes(ann, "x", "a/private"));
        assert!(reads(ann, "x", "b c") && !writes(ann, "x", "b c"));
        assert!(writes(Some("bob the builder"), "x", "tools/saw"));
        assert!(!writes(Some("bob"), "x", "tools/saw"));
    }

    #[test]
    fn patterns_are_for_everyone_with_a_plain_name() {
        assert!(writes(Some("eve"), "x", "u/eve/a"));
        assert!(!writes(Some("eve"), "x", "u/ann/a"));
        assert!(!writes(Some("eve"), "x", "u/eve/locked"));
        assert!(!writes(None, "x", "u//a") && !writes(None, "x", "u/%u/a"));
        assert!(reads(None, "7", "c/x7") && !reads(None, "7", "c/x8"));
        assert!(reads(None, "7", "public"));
        for name in ["+", "#", "a+b"] {
            assert!(!writes(Some(name), "x", "u/ann/a"));
            assert!(!reads(Some(name), "x", "public"), "{name}");
            assert!(!reads(None, name, "public"), "{name}");
        }
        // Stricter than mosquitto: it may read what is public, but no place is taken.
        assert!(!writes(Some("eve/a"), "x", "u/eve/a/b"));
        assert!(reads(Some("eve/a"), "x", "public"));
    }

    #[test]
    fn subscription_is_accepted_whatever_it_brings() {
        let (is_allowed, reason) = may(None, "x", Request::Subscribe { filter: "#" });
        assert!(is_allowed);
        assert_eq!(reason, "acl: every subscription, for what may be read");
        let topic = "news/secret";
        let (is_allowed, reason) = may(None, "x", Request::Receive { topic });
        assert_eq!((is_allowed, reason.as_str()), (false, "acl:4"));
    }

    #[test]
    fn line_that_is_not_understood_is_an_error_with_its_number() {
        for (text, expected) in [
            ("topic", "the topic is missing"),
            ("topic foo a", "unknown access `foo`"),
            ("\ttopic a", "`\\ttopic` begins no line"),
            ("bogus a", "`bogus` begins no line"),
            ("user", "the user name is missing"),
            ("topic read a/#/b", "`a/#/b`: "),
            ("topic read a # why", "`a # why`: "),
            ("topic readwrite a+", "`a+`: "),
        ] {
            let file = format!("topic a\n{text}\n");
            let error = parse(file.as_bytes(), "acl").expect_err(text);
            assert_eq!(error.line(), 2);
            assert!(error.to_string().contains(expected), "{error}");
        }
        for text in [
            "topic read",
            " topic a",
            "topic read $SYS/#",
            "topic read  a b ",
        ] {
            assert!(parse(text.as_bytes(), "acl").is_ok(), "{text}");
        }
        assert_eq!(
            parse(b"# none\nuser ann\n", "acl").map(|rules| rules.len()),
            Ok(0)
        );
    }
}
