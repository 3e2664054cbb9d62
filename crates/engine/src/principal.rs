//! Who a Client is, as far as rules can ask.
//!
//! Owns: [`Principal`]. Does not own: how that was found out (see the server), what it may do (see `rules`).
//! Start reading at [`Principal`]. Invariant: a Client that proved nothing has no user.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use store::OwnerRecord;

/// Who a Client is, and where it comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Principal {
    /// Its user, proven; `None` if it is anonymous.
    pub user: Option<Arc<str>>,
    /// Groups of the user.
    pub groups: BTreeSet<Arc<str>>,
    /// What else is known of the user.
    pub attributes: BTreeMap<Arc<str>, Arc<str>>,
    /// Whether the user is an administrator.
    pub is_administrator: bool,
    /// Where it connects from; `None` if that is no address.
    pub address: Option<IpAddr>,
    /// The name of the listener it connected to.
    pub listener: Option<Arc<str>>,
}

impl Principal {
    /// As the store keeps it: the user, and not where it connected from.
    pub(crate) fn to_owner(&self) -> Option<OwnerRecord> {
        let attributes = self.attributes.iter();
        Some(OwnerRecord {
            user: Arc::clone(self.user.as_ref()?),
            is_administrator: self.is_administrator,
            groups: self.groups.iter().cloned().collect(),
            attributes: attributes
                .flat_map(|(name, value)| [Arc::clone(name), Arc::clone(value)])
                .collect(),
        })
    }

    /// As the store kept it.
    pub(crate) fn from_owner(owner: &OwnerRecord) -> Self {
        let attributes = owner.attributes.chunks_exact(2);
        Self {
            user: Some(Arc::clone(&owner.user)),
            is_administrator: owner.is_administrator,
            groups: owner.groups.iter().cloned().collect(),
            attributes: attributes
                .filter_map(|pair| Some((pair.first()?.clone(), pair.get(1)?.clone())))
                .collect(),
            ..Self::default()
        }
    }

    /// Whether it connects from this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.address
            .is_some_and(|address| address.to_canonical().is_loopback())
    }
}
