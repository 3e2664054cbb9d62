//! Rules that come with the proof of a Client: in a token, from a database.
//!
//! Owns: [`Rules::of_client`], the form in which the store keeps them. Does not own: where they come from (see the
//! server), when they are asked (see the parent). Start reading at [`Rules::of_client`].
//! Invariant: what cannot be read again allows nothing.

use std::sync::Arc;

use proto::Qos;

use super::{Actions, Effect, Notation, Rule, Rules, TopicPattern, Topics, Who};

impl Rules {
    /// Rules for the one Client that they have come with: they name no other, and none of them is `first`.
    #[must_use]
    pub fn of_client(mut rules: Vec<Rule>) -> Self {
        for rule in &mut rules {
            rule.who = Who::default();
            rule.is_first = false;
        }
        Self::new(rules)
    }

    /// As the store keeps them: one text for each.
    pub(crate) fn to_texts(&self) -> Vec<Arc<str>> {
        self.rules.iter().map(|rule| to_text(rule).into()).collect()
    }

    /// As the store kept them. If one of them cannot be read, none is, and nothing is allowed by them.
    pub(crate) fn from_texts(texts: &[Arc<str>]) -> Self {
        let rules: Option<Vec<Rule>> = texts.iter().map(|text| from_text(text)).collect();
        Self::of_client(rules.unwrap_or_default())
    }
}

/// `a7t-- name pattern pattern`, with U+0000 for the blanks, which stands in no name and no topic.
fn to_text(rule: &Rule) -> String {
    let effect = match rule.effect {
        Effect::Allow => 'a',
        Effect::Deny => 'd',
    };
    let patterns: &[TopicPattern] = match &rule.topics {
        Topics::Every => &[],
        Topics::Matching(patterns) => patterns,
    };
    let kind = match &rule.topics {
        Topics::Every => 'e',
        Topics::Matching(_) => 't',
    };
    let qos_max = match rule.qos_max {
        None => '-',
        Some(Qos::AtMostOnce) => '0',
        Some(Qos::AtLeastOnce) => '1',
        Some(Qos::ExactlyOnce) => '2',
    };
    let retain = match rule.retain {
        None => '-',
        Some(false) => '0',
        Some(true) => '1',
    };
    let actions = rule.actions.bits();
    let name = rule.name.replace(END, "");
    let mut text = format!("{effect}{actions}{kind}{qos_max}{retain}{END}{name}");
    for pattern in patterns {
        text.push(END);
        text.push_str(&pattern.to_braces());
    }
    text
}

fn from_text(text: &str) -> Option<Rule> {
    let mut parts = text.split(END);
    let mut head = parts.next()?.chars();
    let effect = match head.next()? {
        'a' => Effect::Allow,
        'd' => Effect::Deny,
        _ => return None,
    };
    let actions = Actions::from_bits(head.next()?.to_digit(8)?)?;
    let kind = head.next()?;
    let qos_max = match head.next()? {
        '-' => None,
        level => Some(Qos::from_level(level.to_digit(3)?.try_into().ok()?)?),
    };
    let retain = match head.next()? {
        '-' => None,
        '0' => Some(false),
        '1' => Some(true),
        _ => return None,
    };
    let name = parts.next()?;
    let patterns: Result<Vec<TopicPattern>, _> = parts
        .map(|pattern| TopicPattern::parse(pattern, Notation::Braces))
        .collect();
    let patterns = patterns.ok()?;
    let topics = match kind {
        'e' if patterns.is_empty() => Topics::Every,
        't' => Topics::Matching(patterns),
        _ => return None,
    };
    Some(Rule {
        effect,
        actions,
        topics,
        qos_max,
        retain,
        ..Rule::allow(name)
    })
}

const END: char = '\0';

#[cfg(test)]
mod tests {
    use super::*;

    fn topics(patterns: &[&str]) -> Topics {
        let parsed = patterns
            .iter()
            .map(|text| TopicPattern::parse(text, Notation::Braces));
        Topics::Matching(parsed.collect::<Result<_, _>>().expect("patterns"))
    }

    #[test]
    fn what_the_store_keeps_is_the_same_rule_again() {
        let patterns = [
            "a/+/#",
            "x${username}y/${clientid}/${attribute.site}",
            "$SYS/é b",
            "/",
        ];
        for effect in [Effect::Allow, Effect::Deny] {
            for actions in 0..8 {
                for (qos_max, retain) in [
                    (None, None),
                    (Some(Qos::AtMostOnce), Some(false)),
                    (Some(Qos::AtLeastOnce), Some(true)),
                    (Some(Qos::ExactlyOnce), None),
                ] {
                    for topics in [Topics::Every, topics(&[]), topics(&patterns)] {
                        let rule = Rule {
                            effect,
                            actions: Actions::from_bits(actions).expect("is one"),
                            topics,
                            qos_max,
                            retain,
                            ..Rule::allow("token: rule 1")
                        };
                        assert_eq!(from_text(&to_text(&rule)), Some(rule));
                    }
                }
            }
        }
    }

    /// Class F: rules that are damaged allow nothing, also those among them that are not.
    #[test]
    fn rules_that_cannot_be_read_allow_nothing() {
        let good = to_text(&Rule::allow("good"));
        for bad in [
            "",
            "a7e--",
            "x7e--\0n",
            "a9e--\0n",
            "a7e--\0n\0a",
            "a7t3-\0n",
            "a7t-2\0n",
            "a7t--\0n\0a#",
        ] {
            assert_eq!(from_text(bad), None, "{bad:?}");
            let rules = Rules::from_texts(&[good.as_str().into(), bad.into()]);
            assert_eq!(rules, Rules::of_client(Vec::new()), "{bad:?}");
        }
    }

    #[test]
    fn rules_that_come_with_a_client_are_for_it_and_stand_behind_the_first() {
        let rule = Rule {
            who: Who {
                anonymous: Some(true),
                ..Who::default()
            },
            is_first: true,
            ..Rule::deny("all")
        };
        assert_eq!(
            Rules::of_client(vec![rule]),
            Rules::new(vec![Rule::deny("all")])
        );
    }
}
