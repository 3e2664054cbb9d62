//! Clients that prove nothing: let in from this machine, or as configured.
//!
//! Owns: [`Anonymous`], [`AnonymousPolicy`]. Does not own: passwords (none are checked here).
//! Start reading at [`Anonymous`]. Invariant: by default nobody from beyond loopback gets in.

use proto::packet::ReasonCode;

use super::{Attempt, Authenticator, Decision, Exchange, Identity};

/// From where Clients are let in without proof.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnonymousPolicy {
    /// From nowhere.
    Never,
    /// From this machine only.
    #[default]
    Loopback,
    /// From everywhere.
    Always,
}

/// Lets Clients in by where they come from. A User Name is not checked, so it is no user's.
#[derive(Clone, Copy, Debug)]
pub struct Anonymous {
    policy: AnonymousPolicy,
}

impl Anonymous {
    /// Lets Clients in as `policy` says.
    #[must_use]
    pub const fn new(policy: AnonymousPolicy) -> Self {
        Self { policy }
    }
}

impl Authenticator for Anonymous {
    fn method(&self) -> Option<&str> {
        None
    }

    fn authenticate(&self, attempt: &Attempt<'_>, _: &mut Exchange) -> Option<Decision> {
        let is_allowed = match self.policy {
            AnonymousPolicy::Never => false,
            AnonymousPolicy::Loopback => attempt.peer.ip().to_canonical().is_loopback(),
            AnonymousPolicy::Always => true,
        };
        if is_allowed {
            return Some(Decision::Allow {
                identity: Identity::anonymous(),
                data: None,
            });
        }
        // [MQTT-3.1.4-2] [v3.1.1 MQTT-3.1.4-2]
        Some(Decision::Deny(
            ReasonCode::NotAuthorized,
            "anonymous Clients are not let in from this address, see authentication.anonymous"
                .to_owned(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_let_in(policy: AnonymousPolicy, peer: &str) -> bool {
        let attempt = Attempt {
            client_id: "a",
            user_name: None,
            password: None,
            data: None,
            peer: peer.parse().expect("an address"),
            listener: "test",
            version: proto::Version::V5,
        };
        let decision = Anonymous::new(policy).authenticate(&attempt, &mut Exchange::default());
        matches!(decision, Some(Decision::Allow { .. }))
    }

    /// Verifies [MQTT-3.1.4-2]: a Client that fails the Server's checks is not let in.
    #[test]
    fn only_this_machine_is_let_in_by_default() {
        let policy = AnonymousPolicy::default();
        for peer in ["127.0.0.1:9", "[::1]:9", "[::ffff:127.0.0.1]:9"] {
            assert!(is_let_in(policy, peer), "{peer}");
        }
        assert!(!is_let_in(policy, "192.0.2.1:9"));
        assert!(is_let_in(AnonymousPolicy::Always, "192.0.2.1:9"));
        assert!(!is_let_in(AnonymousPolicy::Never, "127.0.0.1:9"));
    }
}
