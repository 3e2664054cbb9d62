//! A Client that is served proves again who it is.
//!
//! Owns: when that is asked and what it comes to. Does not own: the decision (see `crate::authentication`), the first
//! proof (see `admit`). Start reading at [`Shard::reauthenticate`].
//! Invariant: no connection becomes another user's.

use std::sync::Arc;

use engine::ConnectionKey;
use proto::Secret;
use proto::connection::{ConnectionError, Outgoing};
use proto::packet::{Auth, PacketType, ReasonCode};
use store::Store;

use super::Shard;
use super::admit::instant_of;
use super::parked::count_failure;
use crate::authentication::{Attempt, Decision, Exchange, Identity};

impl<S: Store> Shard<S> {
    /// [MQTT-4.12.1-1] [MQTT-4.12.1-2] One step of it.
    pub(super) fn reauthenticate(&mut self, key: ConnectionKey, auth: &Auth) {
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        let mut exchange = match connection.seldom().reauthentication.take() {
            Some(exchange) if auth.reason == ReasonCode::ContinueAuthentication => exchange,
            _ => Box::default(),
        };
        exchange.is_again = true;
        let Some(decision) = self.judge_again(key, auth, &mut exchange) else {
            return;
        };
        let refused = |reason, text: &'static str| ConnectionError::refused(reason, text);
        match decision {
            // [MQTT-4.12.1-2]
            Decision::Deny(reason, text) => {
                self.count_failure_of_served(key, &exchange, reason);
                let fits = reason.is_allowed_in(PacketType::Disconnect);
                let reason = if fits {
                    reason
                } else {
                    ReasonCode::NotAuthorized
                };
                self.refuse(key, &ConnectionError::refused(reason, text));
            }
            _ if self.is_claim_of_served_banned(key, &exchange) => {
                let text = "too many logins have failed: try again later";
                self.refuse(key, &refused(ReasonCode::NotAuthorized, text));
            }
            Decision::Allow { identity, data } => self.take_again(key, auth, identity, data),
            Decision::Continue(data) => {
                if let Some(connection) = self.connection_mut(key) {
                    connection.seldom().reauthentication = Some(exchange);
                }
                let answer = answer(auth, ReasonCode::ContinueAuthentication, data);
                self.send(key, &answer);
            }
            Decision::Wait(_) => {
                let text = "a re-authentication cannot wait";
                self.refuse(key, &refused(ReasonCode::NotAuthorized, text));
            }
        }
    }

    /// What the authenticators of the moment say to this step.
    fn judge_again(
        &mut self,
        key: ConnectionKey,
        auth: &Auth,
        exchange: &mut Exchange,
    ) -> Option<Decision> {
        let client_id = self.engine.client_id_of(key).unwrap_or_default().to_owned();
        let connection = self.connection_mut(key)?;
        let (peer, listener) = (connection.peer, connection.listener);
        let version = connection.protocol.version();
        let certificate = connection.socket.certificate();
        let is_for_others = connection.socket.is_for_others();
        let attempt = Attempt {
            client_id: &client_id,
            user_name: None,
            password: None,
            data: auth.data.as_ref(),
            peer,
            listener: self.policy.listener_name(listener),
            anonymous: self.policy.anonymous(listener),
            is_for_others,
            certificate: certificate.as_ref(),
            version,
        };
        let authentication = self.policy.authentication.at(listener);
        Some(authentication.authenticate(auth.method.as_deref(), &attempt, exchange))
    }

    /// The Client is who it says: the same user as before, or it has to go.
    fn take_again(
        &mut self,
        key: ConnectionKey,
        auth: &Auth,
        identity: Identity,
        data: Option<Secret>,
    ) {
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        let (peer, listener) = (connection.peer, connection.listener);
        let address = peer.ip().filter(|_| !connection.socket.is_for_others());
        let mount_point = connection.mount_point().cloned();
        let expires_at = identity.expires_at.map(|at| instant_of(at, self.now));
        let listener = self.policy.listener(listener);
        let listener = listener.map(|listener| Arc::clone(&listener.name));
        let principal = Arc::new(identity.principal(address, listener, mount_point));
        if !self.engine.on_reauthenticated(key, &principal) {
            let text = "the Client has shown that it is another user";
            let error = ConnectionError::refused(ReasonCode::NotAuthorized, text);
            return self.refuse(key, &error);
        }
        if let Some(connection) = self.connection_mut(key) {
            connection.seldom().expires_at = expires_at;
            connection.leave_seldom();
            connection.principal = Some(principal);
        }
        // Of a Session that is stored that is durable, too.
        self.has_news = true;
        self.arm(key);
        self.send(key, &answer(auth, ReasonCode::Success, data));
    }

    /// A wrong proof counts, whoever has let the Client in before.
    fn count_failure_of_served(
        &mut self,
        key: ConnectionKey,
        exchange: &Exchange,
        reason: ReasonCode,
    ) {
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        let peer = connection.peer;
        let served = connection.principal.clone();
        let served = served.as_ref().and_then(|served| served.user.as_deref());
        let user = exchange.claimed_user.as_deref().or(served);
        let (bans, limits) = (&self.shared.bans, &self.policy.ban_limits);
        count_failure(bans, limits, peer, user.unwrap_or_default(), reason);
    }

    fn is_claim_of_served_banned(&mut self, key: ConnectionKey, exchange: &Exchange) -> bool {
        let peer = self.connection_mut(key).map(|connection| connection.peer);
        peer.is_some_and(|peer| self.is_claim_banned(exchange, peer))
    }
}

fn answer(to: &Auth, reason: ReasonCode, data: Option<Secret>) -> Outgoing {
    let method = to.method.as_deref().unwrap_or_default();
    Outgoing::Auth(Box::new(Auth::new(reason, method, data)))
}
