//! One rule: who may or may not do what, where.
//!
//! Owns: [`Rule`], [`Who`], [`Network`]. Does not own: the order of rules (see the parent), the form they are
//! written in (see the server). Start reading at [`Rule`].
//! Invariant: all conditions of a rule have to hold; of several values for one condition, one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use proto::Qos;

use super::{Request, Subject, TopicPattern};

/// Whether a rule allows or denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It allows.
    Allow,
    /// It denies.
    Deny,
}

/// A set of actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actions(u8);

impl Actions {
    /// To publish.
    pub const PUBLISH: Self = Self(1);
    /// To make a Subscription.
    pub const SUBSCRIBE: Self = Self(2);
    /// To be sent what was published.
    pub const RECEIVE: Self = Self(4);
    /// All of them.
    pub const ALL: Self = Self(7);

    /// As a number from 0 to 7.
    pub(super) const fn bits(self) -> u8 {
        self.0
    }

    /// Those that [`Self::bits`] has given this number.
    pub(super) fn from_bits(bits: u32) -> Option<Self> {
        let bits = u8::try_from(bits).ok()?;
        (bits <= Self::ALL.0).then_some(Self(bits))
    }

    /// Those of both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are among them.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What the log calls it: its name, or where it stands.
    pub name: Arc<str>,
    /// Whether it allows or denies.
    pub effect: Effect,
    /// What.
    pub actions: Actions,
    /// To whom.
    pub who: Who,
    /// Where.
    pub topics: Topics,
    /// It matches PUBLISH packets up to this QoS only, and Subscriptions get no higher one.
    pub qos_max: Option<Qos>,
    /// It matches PUBLISH packets with RETAIN, or without it, only.
    pub retain: Option<bool>,
    /// It is asked before the rules that have come with the proof of a Client, which come before all others.
    pub is_first: bool,
}

impl Rule {
    /// Everything is allowed to everyone; a place to begin.
    #[must_use]
    pub fn allow(name: &str) -> Self {
        Self {
            name: name.into(),
            effect: Effect::Allow,
            actions: Actions::ALL,
            who: Who::default(),
            topics: Topics::Every,
            qos_max: None,
            retain: None,
            is_first: false,
        }
    }

    /// Everything is denied to everyone.
    #[must_use]
    pub fn deny(name: &str) -> Self {
        Self {
            effect: Effect::Deny,
            ..Self::allow(name)
        }
    }

    /// Whether it says something to `request`, its topic apart.
    pub(super) fn fits(&self, request: Request<'_>) -> bool {
        match request {
            Request::Publish { qos, retain, .. } => {
                self.actions.contains(Actions::PUBLISH)
                    && self.qos_max.is_none_or(|most| qos <= most)
                    && self.retain.is_none_or(|wanted| wanted == retain)
            }
            Request::Subscribe { .. } => self.actions.contains(Actions::SUBSCRIBE),
            Request::Receive { .. } => self.actions.contains(Actions::RECEIVE),
        }
    }
}

/// Where a rule holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topics {
    /// Everywhere, also where a topic begins with `$`.
    Every,
    /// Where one of these matches.
    Matching(Vec<TopicPattern>),
}

impl Topics {
    /// Whether all that `filter` (without `$share/`) can match is among them.
    pub(super) fn cover(&self, filter: &str, subject: Subject<'_>, effect: Effect) -> bool {
        match self {
            Self::Every => true,
            Self::Matching(patterns) => patterns
                .iter()
                .any(|pattern| pattern.covers(filter, subject, effect)),
        }
    }

    /// Whether something that `filter` (without `$share/`) can match may be among them: false only where nothing is.
    pub(super) fn may_meet(&self, filter: &str) -> bool {
        match self {
            Self::Every => true,
            Self::Matching(patterns) => patterns.iter().any(|pattern| pattern.may_meet(filter)),
        }
    }
}

/// To whom a rule applies. What is empty or `None` is no condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Who {
    /// User names.
    pub users: BTreeSet<Arc<str>>,
    /// Groups, one of which is the user's.
    pub groups: BTreeSet<Arc<str>>,
    /// Client Identifiers.
    pub client_ids: BTreeSet<Arc<str>>,
    /// Where it connects from.
    pub addresses: Vec<Network>,
    /// Names of listeners, one of which it connected to.
    pub listeners: BTreeSet<Arc<str>>,
    /// Whether it is anonymous.
    pub anonymous: Option<bool>,
    /// Whether it connects from this machine.
    pub loopback: Option<bool>,
    /// Whether its user is an administrator.
    pub administrator: Option<bool>,
    /// Attributes that its user has, with these values.
    pub attributes: BTreeMap<Arc<str>, Arc<str>>,
    /// Whether neither its user name nor its Client Identifier may hold `+` or `#`.
    pub plain_names: bool,
    /// Whether rules have come with its proof.
    pub own_rules: Option<bool>,
}

impl Who {
    /// Whether there is no condition at all.
    #[must_use]
    pub fn is_everyone(&self) -> bool {
        self.users.is_empty() && self.is_everyone_but_users()
    }

    fn is_everyone_but_users(&self) -> bool {
        self.groups.is_empty()
            && self.client_ids.is_empty()
            && self.addresses.is_empty()
            && self.listeners.is_empty()
            && self.anonymous.is_none()
            && self.loopback.is_none()
            && self.administrator.is_none()
            && self.attributes.is_empty()
            && !self.plain_names
            && self.own_rules.is_none()
    }

    /// Whether this Client is meant.
    #[must_use]
    pub fn includes(&self, subject: Subject<'_>) -> bool {
        let who = subject.principal;
        let user = who.user.as_deref();
        let is_dangerous = |name: &str| name.contains(['+', '#']);
        (self.users.is_empty() || user.is_some_and(|user| self.users.contains(user)))
            && (self.groups.is_empty() || !self.groups.is_disjoint(&who.groups))
            && (self.client_ids.is_empty() || self.client_ids.contains(subject.client_id))
            && (self.addresses.is_empty()
                || who.address.is_some_and(|address| {
                    self.addresses
                        .iter()
                        .any(|network| network.contains(address))
                }))
            && (self.listeners.is_empty()
                || who
                    .listener
                    .as_ref()
                    .is_some_and(|listener| self.listeners.contains(listener)))
            && self.anonymous.is_none_or(|wanted| wanted == user.is_none())
            && self
                .loopback
                .is_none_or(|wanted| wanted == who.is_loopback())
            && self
                .administrator
                .is_none_or(|wanted| wanted == who.is_administrator)
            && self
                .attributes
                .iter()
                .all(|(name, value)| who.attributes.get(name) == Some(value))
            && self
                .own_rules
                .is_none_or(|wanted| wanted == who.own_rules.is_some())
            && !(self.plain_names
                && (user.is_some_and(is_dangerous) || is_dangerous(subject.client_id)))
    }
}

/// A range of addresses, as `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix_bits: u8,
}

/// A text that is no range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkError;

impl std::error::Error for NetworkError {}

impl std::fmt::Display for NetworkError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("wanted an address, or a range of them like 10.0.0.0/8 or fd00::/8")
    }
}

impl std::str::FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, prefix) = match text.split_once('/') {
            None => (text, None),
            Some((address, prefix)) => (address, Some(prefix)),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError)?;
        let bits = if address.is_ipv4() { 32 } else { 128 };
        let prefix_bits = match prefix {
            None => bits,
            Some(prefix) => prefix.parse().map_err(|_| NetworkError)?,
        };
        if prefix_bits > bits {
            return Err(NetworkError);
        }
        Ok(Self {
            address,
            prefix_bits,
        })
    }
}

impl Network {
    /// Whether `address` is in it; one of version 4 that is written as version 6 counts as what it is.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(of), IpAddr::V4(one)) => {
                let differs = u32::from(of) ^ u32::from(one);
                differs.leading_zeros() >= u32::from(self.prefix_bits)
            }
            (IpAddr::V6(of), IpAddr::V6(one)) => {
                let differs = u128::from(of) ^ u128::from(one);
                differs.leading_zeros() >= u32::from(self.prefix_bits)
            }
            _ => false,
        }
    }
}
