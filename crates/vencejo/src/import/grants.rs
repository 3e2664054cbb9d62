//! Rules about topics as EMQX and NanoMQ have them, as rules of ours.
//!
//! Owns: [`Grant`], [`Who`], what of a rule can be kept. Does not own: the forms they are written in (see `emqx::acl`,
//! `nanomq::people`). Start reading at [`take_over`]. Invariant: what cannot be kept allows less than it did, or denies more.

use std::collections::BTreeSet;

use super::hocon::{Key, Settings};
use super::rows::Outcome;
use super::target::{Table, Target};

/// Whether a rule allows or denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    Allow,
    Deny,
}

/// To whom a rule applies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    /// To those for whom one of these holds.
    Any(Vec<Conditions>),
    /// It cannot be said here, and why.
    Unknown(String),
}

/// What has to hold of a Client; `None` is no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Conditions {
    users: Option<BTreeSet<String>>,
    client_ids: Option<BTreeSet<String>>,
    addresses: Option<BTreeSet<String>>,
}

/// What becomes of who is denied, and of answers that are remembered, as `section` says it.
pub(crate) fn denials(settings: &mut Settings, section: &Key) {
    let at = section.then("deny_action");
    match settings.text(&at) {
        Some("disconnect") => settings.changed(
            &at,
            "what is denied is refused (0x87), and nobody is disconnected for it",
        ),
        _ => settings.kept(&at, "refused (0x87), and stays connected"),
    }
    let why = "rules are asked each time: that costs less than to remember";
    settings.rest(&section.then("cache"), Outcome::Ignored, why);
}

impl Who {
    pub(crate) fn everyone() -> Self {
        Self::Any(vec![Conditions::default()])
    }

    pub(crate) fn user(name: &str) -> Self {
        Self::Any(vec![Conditions {
            users: Some(BTreeSet::from([name.to_owned()])),
            ..Conditions::default()
        }])
    }

    pub(crate) fn client_id(name: &str) -> Self {
        Self::Any(vec![Conditions {
            client_ids: Some(BTreeSet::from([name.to_owned()])),
            ..Conditions::default()
        }])
    }

    pub(crate) fn addresses(all: &[String]) -> Self {
        Self::Any(vec![Conditions {
            addresses: Some(all.iter().cloned().collect()),
            ..Conditions::default()
        }])
    }

    /// Those of one of `all`.
    pub(crate) fn one_of(all: Vec<Self>) -> Self {
        let mut any = Vec::new();
        for who in all {
            match who {
                Self::Any(more) => any.extend(more),
                unknown @ Self::Unknown(_) => return unknown,
            }
        }
        Self::Any(any)
    }

    /// Those of each of `all`.
    pub(crate) fn all_of(all: Vec<Self>) -> Self {
        let mut any = vec![Conditions::default()];
        for who in all {
            let more = match who {
                Self::Any(more) => more,
                unknown @ Self::Unknown(_) => return unknown,
            };
            let mut both = Vec::new();
            for (one, other) in any
                .iter()
                .flat_map(|one| more.iter().map(move |other| (one, other)))
            {
                match one.and(other) {
                    Ok(joined) => both.extend(joined),
                    Err(why) => return Self::Unknown(why.to_owned()),
                }
            }
            if both.len() > ALTERNATIVES_MAX {
                return Self::Unknown("it is about too many at once".to_owned());
            }
            any = both;
        }
        Self::Any(any)
    }
}

impl Conditions {
    /// Both; `None` if that is nobody.
    fn and(&self, other: &Self) -> Result<Option<Self>, &'static str> {
        let names =
            |one: &Option<BTreeSet<String>>, other: &Option<BTreeSet<String>>| match (one, other) {
                (Some(one), Some(other)) => Some(one.intersection(other).cloned().collect()),
                (one, other) => one.clone().or_else(|| other.clone()),
            };
        let addresses = match (&self.addresses, &other.addresses) {
            (Some(one), Some(other)) if one != other => {
                return Err("an address cannot be in two networks at once here");
            }
            (one, other) => one.clone().or_else(|| other.clone()),
        };
        let both = Self {
            users: names(&self.users, &other.users),
            client_ids: names(&self.client_ids, &other.client_ids),
            addresses,
        };
        let is_nobody = [&both.users, &both.client_ids]
            .into_iter()
            .any(|names| names.as_ref().is_some_and(BTreeSet::is_empty));
        Ok((!is_nobody).then_some(both))
    }

    fn write_to(&self, rule: &mut Table) {
        for (key, names) in [
            ("users", &self.users),
            ("client_ids", &self.client_ids),
            ("addresses", &self.addresses),
        ] {
            if let Some(names) = names {
                rule.texts(key, &names.iter().collect::<Vec<_>>());
            }
        }
    }
}

/// A topic of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Topic {
    pub(crate) filter: String,
    /// Wildcards stand for themselves: it is about a Subscription to just this.
    pub(crate) is_exact: bool,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    /// File and line.
    pub(crate) place: String,
    /// As it is written.
    pub(crate) shown: String,
    pub(crate) effect: Effect,
    pub(crate) who: Who,
    /// `publish`, `subscribe`; all if there is none.
    pub(crate) action: Option<&'static str>,
    pub(crate) topics: Vec<Topic>,
    /// The only QoS it is about; any if there is none.
    pub(crate) qos: Vec<i64>,
    pub(crate) retain: Option<bool>,
}

/// Which rules are taken, and where they stand.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Order {
    /// Before the rights that a proof brings along.
    pub(crate) is_first: bool,
    /// Something that would have been asked before is not there: nothing is allowed any more.
    pub(crate) denies_only: bool,
}

/// Makes rules of `grants`, each with its row.
pub(crate) fn take_over(
    settings: &mut Settings,
    target: &mut Target,
    grants: Vec<Grant>,
    order: Order,
) {
    for grant in grants {
        let (place, shown) = (grant.place.clone(), grant.shown.clone());
        let (rules, outcome, why) = rules_of(grant, order);
        settings.note_at(place, shown, outcome, why);
        target.rules.extend(rules);
    }
}

/// A rule by which nobody may do anything; `why` is its name. `is_first`: it stands before the rights that a proof brings along.
pub(crate) fn nothing(why: &str, is_first: bool) -> Table {
    let mut rule = Table::default();
    rule.text("name", plain(why));
    rule.text("effect", "deny");
    rule.texts("topics", &EVERYWHERE);
    if is_first {
        rule.raw("first", true);
    }
    rule
}

/// A rule by which everybody may do everything but what begins with `$`; `why` is its name.
pub(crate) fn everything(why: &str) -> Table {
    let mut rule = Table::default();
    rule.text("name", why);
    rule.text("effect", "allow");
    rule.texts("topics", &["#"]);
    rule
}

fn rules_of(grant: Grant, order: Order) -> (Vec<Table>, Outcome, String) {
    let is_deny = grant.effect == Effect::Deny;
    let left_out = |why: String| (Vec::new(), Outcome::Ignored, why);
    if order.denies_only && !is_deny {
        return left_out(
            "what is asked before it is not there, and might have denied it".to_owned(),
        );
    }
    let mut remarks: Vec<String> = Vec::new();
    let any = match grant.who.clone() {
        Who::Any(any) if any.is_empty() => return left_out("it is about nobody".to_owned()),
        Who::Any(any) => any,
        Who::Unknown(why) if is_deny => {
            remarks.push(format!("denies it to everyone: {why}"));
            vec![Conditions::default()]
        }
        Who::Unknown(why) => return left_out(format!("it allows nothing: {why}")),
    };
    let mut topics = Vec::new();
    for topic in &grant.topics {
        match topic_of(topic, is_deny) {
            Ok((filter, remark)) => {
                topics.push(filter);
                remarks.extend(remark);
            }
            Err(why) => remarks.push(why),
        }
    }
    if topics.is_empty() {
        remarks.dedup();
        let why = if remarks.is_empty() {
            "it names no topic".to_owned()
        } else {
            remarks.join("; ")
        };
        return left_out(why);
    }
    let qos_max = match qos_max(&grant.qos, is_deny) {
        Ok((most, remark)) => {
            remarks.extend(remark);
            most
        }
        Err(why) => return left_out(why),
    };
    let base = base(&grant, is_deny, &topics, qos_max, order);
    let mut rules = Vec::new();
    for conditions in any {
        let mut rule = base.clone();
        conditions.write_to(&mut rule);
        match fault_of(&rule) {
            None => rules.push(rule),
            Some(fault) if is_deny => {
                remarks.push(format!("denies everything: {fault}"));
                rules.push(nothing(&grant.place, order.is_first));
            }
            Some(fault) => return left_out(format!("it allows nothing: {fault}")),
        }
    }
    remarks.dedup();
    match remarks.is_empty() {
        true => (rules, Outcome::Kept, "[[authorization.rules]]".to_owned()),
        false => (
            rules,
            Outcome::Changed,
            format!("[[authorization.rules]]; {}", remarks.join("; ")),
        ),
    }
}

/// A rule without those to whom it applies.
fn base(
    grant: &Grant,
    is_deny: bool,
    topics: &[String],
    qos_max: Option<i64>,
    order: Order,
) -> Table {
    let mut rule = Table::default();
    rule.text("name", &grant.place);
    rule.text("effect", if is_deny { "deny" } else { "allow" });
    if let Some(action) = grant.action {
        rule.texts("actions", &[action]);
    }
    rule.texts("topics", topics);
    if let Some(most) = qos_max {
        rule.raw("qos_max", most);
    }
    if let Some(retain) = grant.retain.filter(|_| grant.action != Some("subscribe")) {
        rule.raw("retain", retain);
    }
    if order.is_first {
        rule.raw("first", true);
    }
    rule
}

/// A topic in our notation, and what is to be said of it; or why there is none.
fn topic_of(topic: &Topic, is_deny: bool) -> Result<(String, Option<String>), String> {
    let filter = &topic.filter;
    if topic.is_exact && filter.contains(['+', '#']) {
        return match is_deny {
            true => Err(format!(
                "a subscription to just {filter} is not told from others: what it brings is judged by its topic"
            )),
            false => Ok((
                filter.clone(),
                Some(format!(
                    "allows what {filter} matches, not only a subscription to just that"
                )),
            )),
        };
    }
    let mut made = Vec::new();
    let mut remark = None;
    for level in filter.split('/') {
        let level = level.replace("${client_attrs.", "${attribute.");
        let is_known = level.split("${").skip(1).all(|rest| {
            let name = rest.split('}').next().unwrap_or_default();
            ["clientid", "username"].contains(&name) || name.starts_with("attribute.")
        });
        if level.contains("${attribute.") {
            remark =
                Some("attributes of a client come with its proof: see docs/users.md".to_owned());
        }
        match is_known {
            true => made.push(level),
            false if is_deny => {
                remark = Some(format!("{level} is any level"));
                made.push("+".to_owned());
            }
            false => return Err(format!("{level} stands for nothing here")),
        }
    }
    Ok((made.join("/"), remark))
}

/// The highest QoS of a rule that allows. Up to it every QoS is allowed here.
fn qos_max(qos: &[i64], is_deny: bool) -> Result<(Option<i64>, Option<String>), String> {
    let mut qos = qos.to_vec();
    qos.sort_unstable();
    qos.dedup();
    match qos.as_slice() {
        [] | [0, 1, 2] => Ok((None, None)),
        _ if is_deny => Ok((None, Some("denies it at every QoS".to_owned()))),
        [0] => Ok((Some(0), None)),
        [0, 1] => Ok((Some(1), None)),
        _ => Err("it allows nothing: a rule allows every QoS up to a highest one".to_owned()),
    }
}

/// What is wrong with a rule, in words.
fn fault_of(rule: &Table) -> Option<String> {
    let mut target = Target::default();
    target.rules.push(rule.clone());
    target.fault()
}

/// A name that a rule can have.
fn plain(text: &str) -> String {
    text.chars()
        .filter(|one| !one.is_control())
        .take(200)
        .collect()
}

/// Ways in which one rule may be about somebody.
const ALTERNATIVES_MAX: usize = 64;
/// All topics, those that begin with `$SYS/` with them.
const EVERYWHERE: [&str; 2] = ["#", "$SYS/#"];
