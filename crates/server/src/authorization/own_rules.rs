//! Rules that a proof brings along: of a token, of a row of a database.
//!
//! Owns: [`OwnRules`], the forms in which they are written. Does not own: who believes them (see the
//! authenticators), where they stand among other rules (see `engine::Rules`). Start reading at
//! [`OwnRules::from_json`]. Invariant: what is not understood is an error, never a rule left out.

use std::sync::Arc;

use engine::{Actions, Effect, Notation, Rule, Rules, TopicPattern, Topics};
use proto::Qos;
use serde::Deserialize;
use serde_json::Value;

/// Rules that come with a proof, while they are gathered.
#[derive(Debug, Default)]
pub struct OwnRules {
    rules: Vec<Rule>,
}

/// Rules that come with a proof and are not understood. It says which, and nothing of what stands there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnRulesError {
    /// Neither of the forms.
    #[error("the rights are in no known form")]
    Form,
    /// A rule is wrong.
    #[error("rule {0} of the rights is not understood")]
    Rule(usize),
    /// There are more than [`OwnRules::MAX`].
    #[error("there are too many rules in the rights")]
    TooMany,
}

/// One rule as it is written in words: all a database has of it.
#[derive(Clone, Debug, Default)]
pub struct OwnRule<'a> {
    /// What the log calls it; a number otherwise.
    pub name: Option<&'a str>,
    /// `allow` or `deny`.
    pub effect: &'a str,
    /// Of `publish`, `subscribe`, `receive`, `all`; empty means all.
    pub actions: Vec<&'a str>,
    /// Topic Filters with the places `${username}`, `${clientid}` and `${attribute.NAME}`; one at least.
    pub topics: Vec<&'a str>,
    /// As in the configuration: for rules that allow.
    pub qos_max: Option<u8>,
    /// As in the configuration.
    pub retain: Option<bool>,
}

impl OwnRules {
    /// As many a proof may bring along.
    pub const MAX: usize = 1000;

    /// Takes one more; `source` is where they come from, for the log.
    /// # Errors
    /// It is not understood, or is one too many.
    pub fn push(&mut self, source: &str, rule: &OwnRule<'_>) -> Result<(), OwnRulesError> {
        let number = self.rules.len() + 1;
        if number > Self::MAX {
            return Err(OwnRulesError::TooMany);
        }
        let rule = checked(source, number, rule).ok_or(OwnRulesError::Rule(number))?;
        self.rules.push(rule);
        Ok(())
    }

    /// Ready to be asked.
    #[must_use]
    pub fn into_rules(self) -> Arc<Rules> {
        Arc::new(Rules::of_client(self.rules))
    }

    /// Those of a claim: a list of rules as the configuration has them, or one of the two forms of EMQX.
    /// # Errors
    /// It is none of them, or one of the rules is not understood.
    pub fn from_json(source: &str, claim: &Value) -> Result<Self, OwnRulesError> {
        let mut rules = Self::default();
        match claim {
            Value::Array(list) => {
                for (number, one) in (1..).zip(list) {
                    let wrong = |_| OwnRulesError::Rule(number);
                    if one.get("permission").is_some() {
                        let one = EmqxRule::deserialize(one).map_err(wrong)?;
                        let rule = one.rule().ok_or(OwnRulesError::Rule(number))?;
                        rules.push(source, &rule)?;
                    } else {
                        let one = JsonRule::deserialize(one).map_err(wrong)?;
                        rules.push(source, &one.rule())?;
                    }
                }
            }
            Value::Object(_) => {
                let lists = EmqxLists::deserialize(claim).map_err(|_| OwnRulesError::Form)?;
                let EmqxLists {
                    publish,
                    subscribe,
                    all,
                } = &lists;
                for (action, topics) in
                    [("publish", publish), ("subscribe", subscribe), ("all", all)]
                {
                    if topics.is_empty() {
                        continue;
                    }
                    let number = rules.rules.len() + 1;
                    let topics = topics
                        .iter()
                        .map(|topic| exact(topic))
                        .collect::<Option<_>>();
                    let rule = OwnRule {
                        name: Some(action),
                        effect: "allow",
                        actions: vec![action],
                        topics: topics.ok_or(OwnRulesError::Rule(number))?,
                        ..OwnRule::default()
                    };
                    rules.push(source, &rule)?;
                }
            }
            _ => return Err(OwnRulesError::Form),
        }
        Ok(rules)
    }
}

/// As in `[[authorization.rules]]`, but for who it is about.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct JsonRule {
    name: Option<String>,
    effect: String,
    actions: Option<Vec<String>>,
    topics: Vec<String>,
    qos_max: Option<u8>,
    retain: Option<bool>,
}

impl JsonRule {
    fn rule(&self) -> OwnRule<'_> {
        // An empty list is a rule about nothing, which is not what leaving it out says.
        let nothing = vec![""];
        OwnRule {
            name: self.name.as_deref(),
            effect: &self.effect,
            actions: match &self.actions {
                None => Vec::new(),
                Some(actions) if actions.is_empty() => nothing,
                Some(actions) => actions.iter().map(String::as_str).collect(),
            },
            topics: self.topics.iter().map(String::as_str).collect(),
            qos_max: self.qos_max,
            retain: self.retain,
        }
    }
}

/// EMQX's older form: filters by what is allowed there.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmqxLists {
    #[serde(default, rename = "pub")]
    publish: Vec<String>,
    #[serde(default, rename = "sub")]
    subscribe: Vec<String>,
    #[serde(default)]
    all: Vec<String>,
}

/// One rule of EMQX's newer form.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EmqxRule {
    permission: String,
    action: String,
    topic: Option<String>,
    #[serde(default)]
    topics: Vec<String>,
    qos: Option<OneOrMany>,
    retain: Option<EmqxRetain>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(u8),
    Many(Vec<u8>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum EmqxRetain {
    Flag(bool),
    Word(String),
}

impl EmqxRule {
    fn rule(&self) -> Option<OwnRule<'_>> {
        let qos_max = match &self.qos {
            None => None,
            Some(OneOrMany::One(0)) => Some(0),
            // Which QoS are allowed is a highest one here.
            Some(OneOrMany::One(_)) => return None,
            Some(OneOrMany::Many(levels)) => match levels.as_slice() {
                [0] => Some(0),
                [0, 1] => Some(1),
                [0, 1, 2] => None,
                _ => return None,
            },
        };
        let retain = match &self.retain {
            None => None,
            Some(EmqxRetain::Flag(flag)) => Some(*flag),
            Some(EmqxRetain::Word(word)) => match word.as_str() {
                "all" => None,
                "true" => Some(true),
                "false" => Some(false),
                _ => return None,
            },
        };
        let topics = self.topic.iter().chain(&self.topics);
        Some(OwnRule {
            name: None,
            effect: &self.permission,
            actions: vec![&self.action],
            topics: topics.map(|topic| exact(topic)).collect::<Option<_>>()?,
            qos_max,
            retain,
        })
    }
}

/// A filter of EMQX, where `eq ` before it says that its wildcards are none: a Topic Name says the same. `None`
/// for one with wildcards, which would be about a Subscription to just that.
fn exact(topic: &str) -> Option<&str> {
    match topic.strip_prefix("eq ") {
        None => Some(topic),
        Some(name) => (!name.contains(['+', '#'])).then_some(name),
    }
}

fn checked(source: &str, number: usize, written: &OwnRule<'_>) -> Option<Rule> {
    let effect = match written.effect {
        "allow" => Effect::Allow,
        "deny" => Effect::Deny,
        _ => return None,
    };
    let qos_max = match written.qos_max {
        Some(_) if effect == Effect::Deny => return None,
        Some(level) => Some(Qos::from_level(level)?),
        None => None,
    };
    let actions = written.actions.iter().map(|word| match *word {
        "publish" => Some(Actions::PUBLISH),
        "subscribe" => Some(Actions::SUBSCRIBE.and(Actions::RECEIVE)),
        "receive" => Some(Actions::RECEIVE),
        "all" => Some(Actions::ALL),
        _ => None,
    });
    let actions = actions.collect::<Option<Vec<_>>>()?;
    let actions = actions.into_iter().reduce(Actions::and);
    let patterns = written.topics.iter();
    let patterns = patterns.map(|text| TopicPattern::parse(text, Notation::Braces));
    let patterns: Vec<_> = patterns.collect::<Result<_, _>>().ok()?;
    if patterns.is_empty() {
        return None;
    }
    let name = match written.name {
        Some(name) if name.is_empty() || name.chars().any(char::is_control) => return None,
        Some(name) if name.len() > NAME_BYTES_MAX => return None,
        Some(name) => format!("{source}: {name}"),
        None => format!("{source}: rule {number}"),
    };
    Some(Rule {
        effect,
        actions: actions.unwrap_or(Actions::ALL),
        topics: Topics::Matching(patterns),
        qos_max,
        retain: written.retain,
        ..Rule::allow(&name)
    })
}

const NAME_BYTES_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use engine::{Principal, Request, Subject};
    use serde_json::json;

    use super::*;

    /// What the rules of `claim` say to `ann` with the Client Identifier `c1`.
    fn said(claim: &Value, request: Request<'_>) -> String {
        let own = OwnRules::from_json("token", claim).expect("is understood");
        let principal = Principal {
            user: Some("ann".into()),
            own_rules: Some(own.into_rules()),
            ..Principal::default()
        };
        let subject = Subject {
            principal: &principal,
            client_id: "c1",
        };
        let none = Rules::new(Vec::new());
        let decision = none.decide(&[], subject, request);
        let word = if decision.is_allowed {
            "allowed"
        } else {
            "denied"
        };
        format!("{word} by {}", decision.reason())
    }

    fn publish(topic: &str, qos: u8, retain: bool) -> Request<'_> {
        Request::Publish {
            topic,
            qos: Qos::from_level(qos).expect("a QoS"),
            retain,
        }
    }

    #[test]
    fn list_of_rules_is_read_as_in_the_configuration() {
        let claim = json!([
            {"effect": "deny", "topics": ["devices/${clientid}/locked/#"], "name": "locked"},
            {"effect": "allow", "actions": ["publish"], "topics": ["devices/${clientid}/#"], "qos_max": 1, "retain": false},
            {"effect": "allow", "actions": ["receive"], "topics": ["news/#"]},
            {"effect": "allow", "actions": ["subscribe"], "topics": ["to/${username}"]}
        ]);
        for (request, expected) in [
            (
                publish("devices/c1/locked/a", 0, false),
                "denied by token: locked",
            ),
            (
                publish("devices/c1/a", 1, false),
                "allowed by token: rule 2",
            ),
            (
                publish("devices/c1/a", 2, false),
                "denied by no rule allows it",
            ),
            (
                publish("devices/c1/a", 0, true),
                "denied by no rule allows it",
            ),
            (
                publish("devices/c2/a", 0, false),
                "denied by no rule allows it",
            ),
            (
                Request::Receive { topic: "news/a" },
                "allowed by token: rule 3",
            ),
            (
                Request::Subscribe { filter: "news/a" },
                "denied by no rule allows it",
            ),
            (
                Request::Subscribe { filter: "to/ann" },
                "allowed by token: rule 4",
            ),
            (
                Request::Receive { topic: "to/ann" },
                "allowed by token: rule 4",
            ),
        ] {
            assert_eq!(said(&claim, request), expected, "{request:?}");
        }
        let nothing = publish("a", 0, false);
        assert_eq!(said(&json!([]), nothing), "denied by no rule allows it");
    }

    #[test]
    fn both_forms_of_emqx_are_read() {
        let lists = json!({"pub": ["up/${username}"], "sub": ["down/#"], "all": ["both/${clientid}", "eq x"]});
        for (request, expected) in [
            (publish("up/ann", 2, true), "allowed by token: publish"),
            (publish("down/a", 0, false), "denied by no rule allows it"),
            (
                Request::Subscribe { filter: "down/+" },
                "allowed by token: subscribe",
            ),
            (
                Request::Receive { topic: "down/a" },
                "allowed by token: subscribe",
            ),
            (publish("both/c1", 0, false), "allowed by token: all"),
            (Request::Receive { topic: "x" }, "allowed by token: all"),
        ] {
            assert_eq!(said(&lists, request), expected, "{request:?}");
        }
        let list = json!([
            {"permission": "deny", "action": "all", "topic": "a/locked"},
            {"permission": "allow", "action": "publish", "topics": ["a/#"], "qos": [0, 1], "retain": "false"},
            {"permission": "allow", "action": "subscribe", "topic": "eq a/b", "qos": [0, 1, 2], "retain": "all"}
        ]);
        for (request, expected) in [
            (publish("a/locked", 0, false), "denied by token: rule 1"),
            (publish("a/x", 1, false), "allowed by token: rule 2"),
            (publish("a/x", 2, false), "denied by no rule allows it"),
            (publish("a/x", 1, true), "denied by no rule allows it"),
            (
                Request::Receive { topic: "a/b" },
                "allowed by token: rule 3",
            ),
            (
                Request::Receive { topic: "a/locked" },
                "denied by token: rule 1",
            ),
        ] {
            assert_eq!(said(&list, request), expected, "{request:?}");
        }
    }

    /// Class F: a rule that is left out could be one that denies.
    #[test]
    fn what_is_not_understood_is_an_error() {
        let one = |rule: Value| {
            (
                json!([{"effect": "allow", "topics": ["a"]}, rule]),
                OwnRulesError::Rule(2),
            )
        };
        let form = |claim: Value| (claim, OwnRulesError::Form);
        for (claim, expected) in [
            form(json!("a/#")),
            form(json!(null)),
            form(json!({"pub": "a/#"})),
            form(json!({"publish": ["a/#"]})),
            (json!({"pub": ["eq a/#"]}), OwnRulesError::Rule(1)),
            (json!({"pub": ["a/#/b"]}), OwnRulesError::Rule(1)),
            one(json!({"effect": "allow"})),
            one(json!({"effect": "allow", "topics": []})),
            one(json!({"effect": "allow", "topics": ["a"], "actions": []})),
            one(json!({"effect": "allow", "topics": ["a"], "actions": ["connect"]})),
            one(json!({"effect": "allow", "topics": ["a"], "users": ["ann"]})),
            one(json!({"effect": "maybe", "topics": ["a"]})),
            one(json!({"effect": "deny", "topics": ["a"], "qos_max": 1})),
            one(json!({"effect": "allow", "topics": ["a"], "qos_max": 3})),
            one(json!({"effect": "allow", "topics": ["a"], "name": "a\nb"})),
            one(json!({"effect": "allow", "topics": ["${password}"]})),
            one(json!({"effect": "allow", "topics": ["$share/g/a"]})),
            one(json!({"permission": "allow", "action": "publish"})),
            one(json!({"permission": "allow", "action": "publish", "topic": "a", "qos": 1})),
            one(json!({"permission": "allow", "action": "publish", "topic": "a", "qos": [1, 2]})),
            one(json!({"permission": "deny", "action": "publish", "topic": "a", "qos": [0]})),
            one(json!({"permission": "allow", "action": "publish", "topic": "a", "retain": "no"})),
            one(json!({"permission": "allow", "action": "pub", "topic": "a"})),
            one(json!({"permission": "allow", "action": "publish", "topic": "eq +"})),
            one(json!("allow")),
        ] {
            let found = OwnRules::from_json("token", &claim).map(|_| ());
            assert_eq!(found, Err(expected), "{claim}");
        }
        let many = vec![json!({"effect": "allow", "topics": ["a"]}); OwnRules::MAX + 1];
        let found = OwnRules::from_json("token", &Value::Array(many)).map(|_| ());
        assert_eq!(found, Err(OwnRulesError::TooMany));
    }
}
