//! What Clients may do: rules in an order, the first one that matches decides.
//!
//! Owns: [`Rules`], [`Decision`]. Does not own: who a Client is (see `principal`), what one rule says (see
//! `rule`), when it is asked (see `rights`). Start reading at [`Rules::decide`].
//! Invariant: what no rule matches is denied.

mod own;
mod pattern;
mod rule;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::HashMap;
use std::sync::Arc;

use proto::Qos;
use proto::topic::split_shared;

pub use pattern::{Notation, PatternError, TopicPattern};
pub use rule::{Actions, Effect, Network, NetworkError, Rule, Topics, Who};

use crate::Principal;
use crate::publish::is_server_topic;
use tree::Tree;

/// A Client, as rules see it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Who it is.
    pub principal: &'a Principal,
    /// Its Client Identifier.
    pub client_id: &'a str,
}

/// What a Client wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// Publish to a Topic Name.
    Publish {
        /// Which.
        topic: &'a str,
        /// At which QoS.
        qos: Qos,
        /// Whether it is to be retained.
        retain: bool,
    },
    /// Subscribe to a Topic Filter, with or without `$share/`.
    Subscribe {
        /// Which.
        filter: &'a str,
    },
    /// Be sent what was published to a Topic Name.
    Receive {
        /// Which.
        topic: &'a str,
    },
}

/// What the rules say to a [`Request`], and which of them said it.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'a> {
    /// Whether it may be done.
    pub is_allowed: bool,
    /// The rule that decided; `None` if none matched.
    pub rule: Option<&'a Rule>,
    /// Whether no rule was asked: it is not in the part of the tree that the Client has.
    pub is_outside: bool,
}

impl Decision<'_> {
    /// Not allowed, whatever rules there are.
    pub(crate) const OUTSIDE: Self = Decision {
        is_allowed: false,
        rule: None,
        is_outside: true,
    };

    /// Whether another one may be asked: no rule has decided, and none was left out.
    pub(crate) const fn is_open(&self) -> bool {
        self.rule.is_none() && !self.is_outside
    }

    /// The rule in words, for the log.
    #[must_use]
    pub fn reason(&self) -> Arc<str> {
        let none = if self.is_outside { OUTSIDE } else { NO_RULE };
        self.rule
            .map_or_else(|| none.into(), |rule| Arc::clone(&rule.name))
    }

    /// The highest QoS a Subscription gets.
    #[must_use]
    pub fn qos_max(&self) -> Qos {
        self.rule
            .and_then(|rule| rule.qos_max)
            .unwrap_or(Qos::ExactlyOnce)
    }
}

impl Request<'_> {
    /// Whether it is about topics below `mount_point` only. Names that begin with `$` are not for Topic Filters that
    /// begin with a wildcard, [MQTT-4.7.2-1]: below a mount point, where that cannot be seen, there are none.
    pub(crate) fn is_within(&self, mount_point: &str) -> bool {
        let topic = match self {
            Self::Publish { topic, .. } | Self::Receive { topic } => topic,
            Self::Subscribe { filter } => split_shared(filter).map_or(*filter, |(_, inner)| inner),
        };
        let rest = topic.strip_prefix(mount_point);
        rest.is_some_and(|rest| !rest.starts_with('$'))
    }
}

/// Rules, ready to be asked. Shared by all Clients: what differs between them is who they are, and the rules that
/// have come with their proof, which stand behind those that are `first` here and before all others.
#[derive(Debug)]
pub struct Rules {
    rules: Vec<Rule>,
    /// So many at the front are `first`.
    first: u32,
    tree: Tree,
    /// Rules about every topic, ascending.
    everywhere: Vec<u32>,
    /// Rules for users by name; each names no others.
    by_user: HashMap<Arc<str>, Vec<u32>>,
    /// Rules with any other condition on who the Client is.
    by_condition: Vec<u32>,
    /// What stands for the answer of another one, where that is asked: no, and yes.
    asked: Option<Box<[Rule; 2]>>,
}

impl Rules {
    /// `rules` in their order, but for those that are `first`, which go to the front. O(their length).
    #[must_use]
    pub fn new(mut rules: Vec<Rule>) -> Self {
        rules.sort_by_key(|rule| !rule.is_first);
        let mut made = Self {
            rules: Vec::new(),
            first: 0,
            tree: Tree::default(),
            everywhere: Vec::new(),
            by_user: HashMap::new(),
            by_condition: Vec::new(),
            asked: None,
        };
        for (number, rule) in (0..).zip(&rules) {
            made.first += u32::from(rule.is_first);
            match &rule.topics {
                Topics::Every => made.everywhere.push(number),
                Topics::Matching(patterns) => {
                    for pattern in patterns {
                        made.tree.insert(pattern, number, rule.effect);
                    }
                }
            }
            if !rule.who.users.is_empty() {
                for user in &rule.who.users {
                    let of_user = made.by_user.entry(Arc::clone(user)).or_default();
                    of_user.push(number);
                }
            } else if !rule.who.is_everyone() {
                made.by_condition.push(number);
            }
        }
        made.rules = rules;
        made
    }

    /// Everything is allowed to everyone.
    #[must_use]
    pub fn allow_all() -> Self {
        Self::new(vec![Rule::allow("everything is allowed")])
    }

    /// The same, and where none of them says anything, another one is asked, which is called `name`.
    #[must_use]
    pub fn asking(mut self, name: &str) -> Self {
        let no = Rule::deny(&format!("denied by {name}"));
        let yes = Rule::allow(&format!("allowed by {name}"));
        self.asked = Some(Box::new([no, yes]));
        self
    }

    /// Whether another one is asked where no rule says anything.
    #[must_use]
    pub const fn is_asking(&self) -> bool {
        self.asked.is_some()
    }

    /// Whether that one is asked about `request`: what the Server says of itself is for rules to give.
    #[must_use]
    pub fn asks_about(&self, request: Request<'_>) -> bool {
        let topic = match request {
            Request::Publish { topic, .. } | Request::Receive { topic } => topic,
            Request::Subscribe { filter } => {
                split_shared(filter).map_or(filter, |(_, inner)| inner)
            }
        };
        self.is_asking() && !is_server_topic(topic)
    }

    /// What that one has said.
    pub(crate) fn answered(&self, is_allowed: bool) -> Decision<'_> {
        let rules = self.asked.as_deref();
        Decision {
            is_allowed,
            rule: rules.map(|[no, yes]| if is_allowed { yes } else { no }),
            is_outside: false,
        }
    }

    /// The rules for some Clients only that are for this one, ascending. O(rules of its user + rules with
    /// other conditions).
    #[must_use]
    pub fn applying(&self, subject: Subject<'_>) -> Box<[u32]> {
        let of_user = subject.principal.user.as_ref();
        let of_user = of_user.and_then(|user| self.by_user.get(user));
        let candidates = of_user.into_iter().chain([&self.by_condition]).flatten();
        let mut applying: Vec<u32> = candidates
            .copied()
            .filter(|number| {
                let rule = self.rule(*number);
                rule.is_some_and(|rule| rule.who.includes(subject))
            })
            .collect();
        applying.sort_unstable();
        applying.into()
    }

    /// What the rules say to `request`; `applying` is what [`Self::applying`] says of the same `subject`.
    /// O(levels of the topic * rules that could match), for a Subscription O(rules).
    #[must_use]
    pub fn decide<'a>(
        &'a self,
        applying: &[u32],
        subject: Subject<'a>,
        request: Request<'_>,
    ) -> Decision<'a> {
        let found = self.find(applying, subject, request);
        if let Some(own) = &subject.principal.own_rules
            && found.is_none_or(|(number, _)| number >= self.first)
            && let Some((_, rule)) = own.find(&[], subject, request)
        {
            return decided(Some(rule));
        }
        decided(found.map(|(_, rule)| rule))
    }

    /// Whether everything that `filter` (without `$share/`) matches may be received, as each of it would be decided; false
    /// where that cannot be said of all at once. O(rules).
    pub(crate) fn allows_all(&self, applying: &[u32], subject: Subject<'_>, filter: &str) -> bool {
        if subject.principal.own_rules.is_some() {
            return false;
        }
        for (number, rule) in (0..).zip(&self.rules) {
            let is_asked = rule.fits(Request::Receive { topic: filter })
                && (rule.who.is_everyone() || applying.binary_search(&number).is_ok());
            match rule.effect {
                _ if !is_asked => {}
                Effect::Deny if rule.topics.may_meet(filter) => return false,
                Effect::Allow if rule.topics.cover(filter, subject, Effect::Allow) => return true,
                Effect::Deny | Effect::Allow => {}
            }
        }
        false
    }

    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.rules.len()
    }

    /// The first of them that says something to `request`.
    fn find(
        &self,
        applying: &[u32],
        subject: Subject<'_>,
        request: Request<'_>,
    ) -> Option<(u32, &Rule)> {
        match request {
            Request::Subscribe { filter } => self.find_by_filter(applying, subject, filter),
            Request::Publish { topic, .. } | Request::Receive { topic } => {
                self.find_by_topic(applying, subject, topic, request)
            }
        }
    }

    fn find_by_topic(
        &self,
        applying: &[u32],
        subject: Subject<'_>,
        topic: &str,
        request: Request<'_>,
    ) -> Option<(u32, &Rule)> {
        let mut first: Option<(u32, &Rule)> = None;
        let mut look_at = |numbers: &[u32]| {
            for number in numbers {
                if first.is_some_and(|(best, _)| best <= *number) {
                    return;
                }
                if let Some(rule) = self.rule(*number)
                    && rule.fits(request)
                    && (rule.who.is_everyone() || applying.binary_search(number).is_ok())
                {
                    first = Some((*number, rule));
                    return;
                }
            }
        };
        look_at(&self.everywhere);
        self.tree.visit(topic, subject, &mut look_at);
        first
    }

    /// An allowing rule has to allow all that `filter` can match. A denying one counts if it denies all of
    /// that; what it denies of it is denied again whenever something is sent.
    fn find_by_filter(
        &self,
        applying: &[u32],
        subject: Subject<'_>,
        filter: &str,
    ) -> Option<(u32, &Rule)> {
        let filter = split_shared(filter).map_or(filter, |(_, inner)| inner);
        (0..).zip(&self.rules).find(|(number, rule)| {
            rule.actions.contains(Actions::SUBSCRIBE)
                && (rule.who.is_everyone() || applying.binary_search(number).is_ok())
                && rule.topics.cover(filter, subject, rule.effect)
        })
    }

    fn rule(&self, number: u32) -> Option<&Rule> {
        self.rules.get(usize::try_from(number).ok()?)
    }
}

impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        self.rules == other.rules
    }
}

impl Eq for Rules {}

fn decided(rule: Option<&Rule>) -> Decision<'_> {
    Decision {
        is_allowed: rule.is_some_and(|rule| rule.effect == Effect::Allow),
        rule,
        is_outside: false,
    }
}

/// What is said where no rule matches.
const NO_RULE: &str = "no rule allows it";
/// What is said where none is asked.
const OUTSIDE: &str = "it is outside of the mount point, or its name begins with $ there";
