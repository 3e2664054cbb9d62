//! SCRAM-SHA-256 by AUTH: a password is proven, and never sent.
//!
//! Owns: [`ScramSha256`]. Does not own: the messages and their proofs (see the crate `scram`), the keys (see
//! `passwords`). Start reading at [`ScramSha256::authenticate`]. Invariants: a shard computes three MACs a step and no
//! hash of a password; who is unknown is asked the same and fails at the same step as whoever has a wrong password.

use std::sync::Arc;

use proto::Secret;
use proto::packet::ReasonCode;
use scram::{ClientFirst, ServerExchange, WrongProof};

use super::passwords::{Passwords, ScramKeys, wrong};
use super::{Attempt, Authenticator, Decision, Exchange};

/// Lets users with passwords in who prove that they know them.
#[derive(Debug)]
pub struct ScramSha256 {
    passwords: Arc<Passwords>,
    keys: Arc<ScramKeys>,
}

impl ScramSha256 {
    /// For the users of `passwords`, by the `keys` that these have left.
    pub(crate) const fn new(passwords: Arc<Passwords>, keys: Arc<ScramKeys>) -> Self {
        Self { passwords, keys }
    }

    fn begin(&self, attempt: &Attempt<'_>, exchange: &mut Exchange) -> Decision {
        let data = attempt.data.map(Secret::expose).unwrap_or_default();
        let client_first = match ClientFirst::parse(data) {
            Ok(client_first) => client_first,
            Err(malformed) => return deny(malformed.to_string()),
        };
        let name = client_first.user();
        if attempt.user_name.is_some_and(|other| other != name) {
            return deny("the User Name is not the one that SCRAM is about".to_owned());
        }
        let Ok(nonce) = scram::nonce() else {
            let text = "the Server has no randomness".to_owned();
            return Decision::Deny(ReasonCode::ServerUnavailable, text);
        };
        exchange.claimed_user = Some(name.into());
        let (keys, _) = self.passwords.scram_keys(&self.keys, name);
        let (server, said) = ServerExchange::begin(client_first, keys, &nonce);
        exchange.scram = Some(Box::new(server));
        Decision::Continue(Some(Secret::new(said)))
    }

    fn finish(&self, attempt: &Attempt<'_>, server: ServerExchange) -> Decision {
        let data = attempt.data.map(Secret::expose).unwrap_or_default();
        let name = server.user().to_owned();
        let keys = server.keys().clone();
        let said = match server.finish(data) {
            Ok(said) => said,
            Err(WrongProof::Password) => return wrong(),
            Err(other) => return deny(other.to_string()),
        };
        // The user may have been changed or removed since.
        match self.passwords.scram_keys(&self.keys, &name) {
            (now, Some(identity)) if now == keys => Decision::Allow {
                identity,
                data: Some(Secret::new(said)),
            },
            _ => wrong(),
        }
    }
}

impl Authenticator for ScramSha256 {
    fn method(&self) -> Option<&str> {
        Some(scram::METHOD)
    }

    fn authenticate(&self, attempt: &Attempt<'_>, exchange: &mut Exchange) -> Option<Decision> {
        if !self.passwords.has_users() {
            return None;
        }
        Some(match exchange.scram.take() {
            None => self.begin(attempt, exchange),
            Some(server) => self.finish(attempt, *server),
        })
    }
}

fn deny(text: String) -> Decision {
    Decision::Deny(ReasonCode::NotAuthorized, text)
}
