//! Who a Client is, once that is found out.
//!
//! Owns: [`Identity`]. Does not own: how it is found out (see the authenticators), what it may do (see
//! `crate::authorization`). Start reading at [`Identity`]. Invariant: what stands in it was proven.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use engine::{Principal, Rules};

/// Who a Client has proven to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its user; `None` if it is anonymous.
    pub user: Option<Arc<str>>,
    /// Groups of the user.
    pub groups: BTreeSet<Arc<str>>,
    /// What else is known of the user.
    pub attributes: BTreeMap<Arc<str>, Arc<str>>,
    /// Whether the user is an administrator.
    pub is_administrator: bool,
    /// When the proof ends, and with it the connection.
    pub expires_at: Option<SystemTime>,
    /// Rules that the proof of the user has brought along, see [`crate::authorization::OwnRules`].
    pub own_rules: Option<Arc<Rules>>,
    /// Whether all that stands in the Server's own list of users, and changes with it.
    pub is_listed: bool,
}

impl Identity {
    /// A Client that proved nothing.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::default()
    }

    /// The same with where it comes from, as rules see it.
    pub(crate) fn principal(
        self,
        address: Option<IpAddr>,
        listener: Option<Arc<str>>,
        mount_point: Option<Arc<str>>,
    ) -> Principal {
        Principal {
            user: self.user,
            groups: self.groups,
            attributes: self.attributes,
            is_administrator: self.is_administrator,
            address,
            listener,
            mount_point,
            own_rules: self.own_rules,
            is_listed: self.is_listed,
        }
    }

    /// `principal`, which the Server's list knew, as it says this now; `None` if that is the same.
    pub(crate) fn of_now(&self, principal: &Principal) -> Option<Principal> {
        let is_same = principal.groups == self.groups
            && principal.attributes == self.attributes
            && principal.is_administrator == self.is_administrator;
        (!is_same).then(|| Principal {
            groups: self.groups.clone(),
            attributes: self.attributes.clone(),
            is_administrator: self.is_administrator,
            ..principal.clone()
        })
    }

    /// The user of this name, with nothing else known of it.
    #[must_use]
    pub fn of_user(name: &str) -> Self {
        Self {
            user: Some(name.into()),
            ..Self::default()
        }
    }
}
