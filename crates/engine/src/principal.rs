//! Who a Client is, as far as rules can ask.
//!
//! Owns: [`Principal`]. Does not own: how that was found out (see the server), what it may do (see `rules`).
//! Start reading at [`Principal`]. Invariant: a Client that proved nothing has no user.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use store::{OwnerRecord, PeerRecord, SessionRecord};

use crate::Rules;

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
    /// What stands before all topics of the Client, and ends with `/`: it has this part of the tree only. A Session
    /// stays where it was made.
    pub mount_point: Option<Arc<str>>,
    /// Rules that have come with its proof, made by [`Rules::of_client`].
    pub own_rules: Option<Arc<Rules>>,
    /// Whether what is known of its user stands in the Server's own list, which may say something else later.
    pub is_listed: bool,
}

impl Principal {
    /// As the store keeps it, but for where it connected from.
    pub(crate) fn to_owner(&self) -> Option<OwnerRecord> {
        let attributes = self.attributes.iter();
        Some(OwnerRecord {
            user: Arc::clone(self.user.as_ref()?),
            is_administrator: self.is_administrator,
            groups: self.groups.iter().cloned().collect(),
            attributes: attributes
                .flat_map(|(name, value)| [Arc::clone(name), Arc::clone(value)])
                .collect(),
            is_listed: self.is_listed,
            rules: self.own_rules.as_ref().map(|rules| rules.to_texts()),
        })
    }

    /// As the store keeps where it connected from.
    pub(crate) fn to_peer(&self) -> Option<PeerRecord> {
        Some(PeerRecord {
            address: self.address,
            listener: Arc::clone(self.listener.as_ref()?),
            mount_point: self.mount_point.clone(),
        })
    }

    /// As the store kept it.
    pub(crate) fn from_record(record: &SessionRecord) -> Self {
        let peer = record.peer.as_ref();
        Self {
            address: peer.and_then(|peer| peer.address),
            listener: peer.map(|peer| Arc::clone(&peer.listener)),
            mount_point: peer.and_then(|peer| peer.mount_point.clone()),
            ..record
                .owner
                .as_ref()
                .map(Self::from_owner)
                .unwrap_or_default()
        }
    }

    fn from_owner(owner: &OwnerRecord) -> Self {
        let attributes = owner.attributes.chunks_exact(2);
        Self {
            user: Some(Arc::clone(&owner.user)),
            is_administrator: owner.is_administrator,
            groups: owner.groups.iter().cloned().collect(),
            attributes: attributes
                .filter_map(|pair| Some((pair.first()?.clone(), pair.get(1)?.clone())))
                .collect(),
            own_rules: owner
                .rules
                .as_deref()
                .map(|texts| Arc::new(Rules::from_texts(texts))),
            is_listed: owner.is_listed,
            ..Self::default()
        }
    }

    /// Bytes at the front of all its Topic Names that it does not see.
    #[must_use]
    pub fn hidden_topic_bytes(&self) -> u16 {
        let bytes = self.mount_point.as_ref().map_or(0, |mount| mount.len());
        u16::try_from(bytes).unwrap_or(u16::MAX)
    }

    /// Whether it connects from this machine.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.address
            .is_some_and(|address| address.to_canonical().is_loopback())
    }
}
