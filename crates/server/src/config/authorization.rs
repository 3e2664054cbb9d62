//! `[authorization]`: what Clients may do, as rules.
//!
//! Owns: [`AuthorizationConfig`], the form of a rule. Does not own: what a rule decides (see `engine::Rules`),
//! the ACL file (see `crate::authorization`). Start reading at [`AuthorizationConfig`].
//! Invariant: every topic in it is a valid Topic Filter once its placeholders are taken.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use engine::{Actions, Effect, Notation, Rule, TopicPattern, Topics, Who};
use proto::Qos;
use toml::Spanned;

use super::checked::{Fault, within};
use super::http::{self, HttpConfig};
use super::listeners::ListenerConfig;
use super::raw::{RawAction, RawAuthorization, RawClientIds, RawEffect, RawHttp, RawRule};
use crate::authentication::{ClientIdPattern, ClientIdRule, ClientIds};

/// What Clients may do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AuthorizationConfig {
    /// mosquitto's ACL file, whose lines come after the rules. Default: none.
    pub acl_file: Option<PathBuf>,
    /// Rules in their order; the first that matches decides, and what none matches is denied. Those with `first` (default:
    /// false) come before the rights that a proof has brought along, the others after them. Default: none.
    pub rules: Vec<Rule>,
    /// A service that is asked by HTTP where no rule says anything. Default: none, what no rule allows is denied.
    pub http: Option<HttpConfig>,
}

impl AuthorizationConfig {
    /// Judges what was written; a rule may name one of `listeners`.
    pub(super) fn check(
        raw: Spanned<RawAuthorization>,
        listeners: &[ListenerConfig],
    ) -> Result<Self, Fault> {
        let span = raw.span();
        let raw = raw.into_inner();
        let mut rules = Vec::new();
        for (number, rule) in (1..).zip(raw.rules) {
            rules.push(check_rule(number, rule, listeners)?);
        }
        let acl_file = raw.acl_file.map(check_path).transpose()?;
        let http = raw.http.map(check_http).transpose()?;
        if rules.is_empty() && acl_file.is_none() && http.is_none() {
            let message = "[authorization] needs an acl_file, rules or http: without any, everything is denied";
            return Err(Fault {
                span: Some(span),
                message: message.to_owned(),
            });
        }
        Ok(Self {
            acl_file,
            rules,
            http,
        })
    }
}

/// Judges `[[authentication.client_ids]]`, which says who as rules do.
pub(super) fn check_client_ids(
    raw: Vec<RawClientIds>,
    listeners: &[ListenerConfig],
) -> Result<ClientIds, Fault> {
    let rules = (1..).zip(raw).map(|(number, raw)| {
        let name = match raw.name {
            Some(name) => filled("name", name)?,
            None => format!("client_ids {number}"),
        };
        if raw.patterns.get_ref().is_empty() {
            return Err(empty("patterns", &raw.patterns));
        }
        let parse = |pattern: Spanned<String>| {
            ClientIdPattern::parse(pattern.get_ref()).map_err(|error| Fault {
                span: Some(pattern.span()),
                message: format!("patterns: {error}"),
            })
        };
        let patterns: Result<_, Fault> = raw.patterns.into_inner().into_iter().map(parse).collect();
        let attributes = raw.attributes.into_iter();
        Ok(ClientIdRule {
            name: name.into(),
            patterns: patterns?,
            who: Who {
                users: names("users", raw.users)?,
                groups: names("groups", raw.groups)?,
                addresses: check_addresses(raw.addresses)?,
                listeners: check_listeners(raw.listeners, listeners)?,
                anonymous: raw.anonymous,
                administrator: raw.administrator,
                attributes: attributes
                    .map(|(name, value)| (name.into(), value.into()))
                    .collect(),
                ..Who::default()
            },
        })
    });
    rules.collect::<Result<_, _>>().map(ClientIds::new)
}

fn check_http(raw: Spanned<RawHttp>) -> Result<HttpConfig, Fault> {
    if raw.get_ref().on_error.is_some() {
        return Err(Fault {
            span: Some(raw.span()),
            message: "on_error is for logins: what nobody answers is denied".to_owned(),
        });
    }
    http::check(raw)
}

fn check_path(path: Spanned<String>) -> Result<PathBuf, Fault> {
    if path.get_ref().is_empty() {
        return Err(Fault {
            span: Some(path.span()),
            message: "acl_file must name a file".to_owned(),
        });
    }
    Ok(path.into_inner().into())
}

fn check_rule(number: usize, raw: RawRule, listeners: &[ListenerConfig]) -> Result<Rule, Fault> {
    let effect = match raw.effect {
        RawEffect::Allow => Effect::Allow,
        RawEffect::Deny => Effect::Deny,
    };
    let qos_max = match &raw.qos_max {
        Some(level) if effect == Effect::Deny => {
            return Err(Fault {
                span: Some(level.span()),
                message: "qos_max is for rules that allow".to_owned(),
            });
        }
        Some(level) => Qos::from_level(within("qos_max", level, 0..=2)?),
        None => None,
    };
    let name = match raw.name {
        Some(name) => filled("name", name)?,
        None => format!("rule {number}"),
    };
    Ok(Rule {
        name: name.into(),
        effect,
        actions: check_actions(raw.actions)?,
        topics: check_topics(raw.topics)?,
        qos_max,
        retain: raw.retain,
        is_first: raw.first,
        who: Who {
            users: names("users", raw.users)?,
            groups: names("groups", raw.groups)?,
            client_ids: names("client_ids", raw.client_ids)?,
            addresses: check_addresses(raw.addresses)?,
            listeners: check_listeners(raw.listeners, listeners)?,
            anonymous: raw.anonymous,
            administrator: raw.administrator,
            attributes: raw
                .attributes
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            ..Who::default()
        },
    })
}

/// To subscribe is to be sent what is published, too. All where nothing is said.
fn check_actions(actions: Option<Spanned<Vec<RawAction>>>) -> Result<Actions, Fault> {
    let Some(actions) = actions else {
        return Ok(Actions::ALL);
    };
    let one = |action: &RawAction| match action {
        RawAction::Publish => Actions::PUBLISH,
        RawAction::Subscribe => Actions::SUBSCRIBE.and(Actions::RECEIVE),
        RawAction::Receive => Actions::RECEIVE,
    };
    let all = actions.get_ref().iter().map(one).reduce(Actions::and);
    all.ok_or_else(|| empty("actions", &actions))
}

fn check_topics(topics: Spanned<Vec<Spanned<String>>>) -> Result<Topics, Fault> {
    if topics.get_ref().is_empty() {
        return Err(empty("topics", &topics));
    }
    let parse = |topic: Spanned<String>| {
        TopicPattern::parse(topic.get_ref(), Notation::Braces).map_err(|error| Fault {
            span: Some(topic.span()),
            message: format!("topics: {error}"),
        })
    };
    let patterns: Result<_, Fault> = topics.into_inner().into_iter().map(parse).collect();
    Ok(Topics::Matching(patterns?))
}

fn check_addresses(
    addresses: Option<Spanned<Vec<Spanned<String>>>>,
) -> Result<Vec<engine::Network>, Fault> {
    let Some(addresses) = addresses else {
        return Ok(Vec::new());
    };
    if addresses.get_ref().is_empty() {
        return Err(empty("addresses", &addresses));
    }
    let parse = |address: Spanned<String>| {
        let network = address.get_ref().parse();
        network.map_err(|error: engine::NetworkError| Fault {
            span: Some(address.span()),
            message: format!("addresses: {error}"),
        })
    };
    addresses.into_inner().into_iter().map(parse).collect()
}

/// One that is misspelt would make a rule that never counts.
fn check_listeners(
    list: Option<Spanned<Vec<Spanned<String>>>>,
    listeners: &[ListenerConfig],
) -> Result<BTreeSet<Arc<str>>, Fault> {
    let is_known = |name: &Spanned<String>| listeners.iter().any(|one| one.name == *name.get_ref());
    let mut all = list.iter().flat_map(|list| list.get_ref());
    if let Some(name) = all.find(|name| !is_known(name)) {
        let names: Vec<&str> = listeners.iter().map(|one| one.name.as_str()).collect();
        return Err(Fault {
            span: Some(name.span()),
            message: format!(
                "listeners: there is no such listener, only {}",
                names.join(", ")
            ),
        });
    }
    names("listeners", list)
}

/// A condition that nothing fits would make a rule that never counts, which nobody means.
fn names(
    key: &str,
    list: Option<Spanned<Vec<Spanned<String>>>>,
) -> Result<BTreeSet<Arc<str>>, Fault> {
    let Some(list) = list else {
        return Ok(BTreeSet::new());
    };
    if list.get_ref().is_empty() {
        return Err(empty(key, &list));
    }
    let names = list.into_inner().into_iter();
    names.map(|name| filled(key, name).map(Arc::from)).collect()
}

fn filled(key: &str, name: Spanned<String>) -> Result<String, Fault> {
    if name.get_ref().is_empty() {
        return Err(Fault {
            span: Some(name.span()),
            message: format!("{key}: a name is not empty"),
        });
    }
    Ok(name.into_inner())
}

fn empty<T>(key: &str, list: &Spanned<T>) -> Fault {
    Fault {
        span: Some(list.span()),
        message: format!("{key} is empty: leave it out, or say which"),
    }
}
