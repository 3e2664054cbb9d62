//! Clients that prove nothing: let in from this machine, or as configured.
//!
//! Owns: [`Anonymous`], [`AnonymousPolicy`]. Does not own: passwords (none are checked here).
//! Start reading at [`Anonymous`]. Invariant: by default nobody from beyond loopback gets in.

use std::sync::Arc;

use proto::packet::ReasonCode;

use super::passwords::wrong;
use super::{Attempt, Authenticator, Decision, Exchange, Identity, Passwords};

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

/// Lets Clients in by where they come from. Where there are no users, a User Name is not looked at.
#[derive(Clone, Debug)]
pub struct Anonymous {
    policy: AnonymousPolicy,
    passwords: Option<Arc<Passwords>>,
    /// Whether a User Name stands for a user, whatever passwords there are.
    has_names: bool,
}

impl Anonymous {
    /// Lets Clients in as `policy` says.
    #[must_use]
    pub const fn new(policy: AnonymousPolicy) -> Self {
        Self {
            policy,
            passwords: None,
            has_names: false,
        }
    }

    /// The same where `passwords` knows the users: as soon as there are any, or where others know
    /// names, too (`has_names`), whoever says a User Name is not anonymous.
    #[must_use]
    pub const fn beside(
        policy: AnonymousPolicy,
        passwords: Arc<Passwords>,
        has_names: bool,
    ) -> Self {
        Self {
            policy,
            passwords: Some(passwords),
            has_names,
        }
    }
}

impl Authenticator for Anonymous {
    fn method(&self) -> Option<&str> {
        None
    }

    fn authenticate(&self, attempt: &Attempt<'_>, exchange: &mut Exchange) -> Option<Decision> {
        let passwords = self.passwords.as_ref();
        let has_users = || passwords.is_some_and(|passwords| passwords.has_users());
        if attempt.user_name.is_some() && (self.has_names || has_users()) {
            return Some(exchange.without_answer().unwrap_or_else(wrong));
        }
        let is_allowed = match attempt.anonymous.unwrap_or(self.policy) {
            AnonymousPolicy::Never => false,
            // A page of anybody's, shown by a browser here, is not this machine.
            AnonymousPolicy::Loopback => attempt.peer.is_local() && !attempt.is_for_others,
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
    use std::net::SocketAddr;

    use super::*;

    fn is_let_in(policy: AnonymousPolicy, peer: &str) -> bool {
        is_let_in_at(None, policy, peer)
    }

    fn is_let_in_at(
        anonymous: Option<AnonymousPolicy>,
        policy: AnonymousPolicy,
        peer: &str,
    ) -> bool {
        let attempt = Attempt {
            client_id: "a",
            user_name: None,
            password: None,
            data: None,
            peer: peer.parse::<SocketAddr>().expect("an address").into(),
            listener: "test",
            anonymous,
            is_for_others: false,
            certificate: None,
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

    #[test]
    fn what_a_listener_says_goes_before_what_the_server_says() {
        let (never, always) = (AnonymousPolicy::Never, AnonymousPolicy::Always);
        assert!(is_let_in_at(Some(always), never, "192.0.2.1:9"));
        assert!(!is_let_in_at(Some(never), always, "127.0.0.1:9"));
    }
}
