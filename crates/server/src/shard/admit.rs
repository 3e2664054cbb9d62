//! From CONNECT to the engine of the Session's home shard.
//!
//! Owns: when authentication is asked, Client Identifiers the Server assigns, the move to the home
//! shard. Does not own: the decision (see `crate::authentication`), CONNACK with Success (see `engine`).
//! Start reading at [`Shard::on_connect`]. Invariant: a connection moves at most once, with every
//! byte that was read from it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use engine::{ConnectRequest, ConnectionKey, Principal, ShardIndex, home_shard};
use proto::Version;
use proto::connection::{ConnectionError, Outgoing};
use proto::packet::{Auth, Connect, ReasonCode};
use store::Store;

use super::asking::Waits;
use super::connection::{
    Admission, Connection, Moving, Named, Pending, Stage, index_of, printable,
};
use super::links::Parcel;
use super::pace::{Pace, PaceLimits, PacesLimits};
use super::parked::{banned, count_failure};
use super::stopping::Stopping;
use super::{Shard, Shared, mounted};
use crate::authentication::{Decision, Exchange, Ticket};
use crate::peer::Peer;
use crate::turnstile::{Passed, Seat};

impl<S: Store> Shard<S> {
    /// The first packet of a connection.
    pub(super) fn on_connect(&mut self, key: ConnectionKey, connect: Box<Connect>) {
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        connection.seldom().claimed_client_id = Some(connect.client_id.as_str().into());
        let is_over_limit = connection.flags.is_over_limit;
        let queued_at = connection.flags.is_queued.then_some(connection.took_at);
        let listener = connection.listener;
        let origin = connection.peer.origin();
        let certificate = connection.socket.certificate();
        let is_for_others = connection.socket.is_for_others();
        let is_over = certificate
            .as_ref()
            .is_some_and(|one| one.is_over(SystemTime::now()));
        if is_over {
            let text = "the certificate of this Client has ended";
            return self.refuse(
                key,
                &ConnectionError::refused(ReasonCode::NotAuthorized, text),
            );
        }
        let of = self.policy.listener(listener);
        if of.is_some_and(|of| !of.versions.contains(connect.version)) {
            // [MQTT-3.1.2-2] [v3.1.1 MQTT-3.1.2-2]
            let reason = ReasonCode::UnsupportedProtocolVersion;
            let error = ConnectionError::refused(reason, "this version is not spoken here");
            return self.refuse(key, &error);
        }
        if let Some(error) = self.refusal(is_over_limit, &connect) {
            return self.refuse(key, &error);
        }
        let waited = queued_at.map_or(Duration::ZERO, |at| self.now.saturating_duration_since(at));
        let rate_max = of.map_or(0, |of| of.limits.connect_rate_max.unwrap_or(0));
        let (flapping, turnstile) = (&self.shared.flapping, &self.shared.turnstile);
        // What it will be called is not known yet where that is its user.
        let is_called_by_user = of.is_some_and(|of| of.client_id_from_user);
        let called = Some(connect.client_id.as_str()).filter(|_| !is_called_by_user);
        if flapping.is_banned(origin, called.unwrap_or_default(), self.now) {
            return self.refuse(key, &flaps());
        }
        let passed = turnstile.pass((listener, rate_max), origin, waited, self.now);
        if passed == Passed::No {
            let error = turnstile.put_off();
            return self.refuse(key, &error);
        }
        let user = connect.user_name.as_deref().unwrap_or_default();
        if self.shared.bans.is_banned(origin, user, self.now) {
            return self.refuse(key, &banned());
        }
        let data = connect.properties.authentication_data.clone();
        self.authenticate(
            key,
            Pending {
                connect,
                data,
                exchange: Exchange::default(),
                policy: Arc::clone(&self.policy),
                ticket: Ticket::new(),
                listener,
                is_stale: false,
                has_to_be_known: passed == Passed::IfKnown,
                user_changes: 0,
                certificate,
                is_for_others,
            },
        );
    }

    /// Why nobody is asked about this CONNECT.
    fn refusal(&self, is_over_limit: bool, connect: &Connect) -> Option<ConnectionError> {
        let refused = |reason, text| Some(ConnectionError::refused(reason, text));
        if !matches!(self.stopping, Stopping::No) {
            return refused(ReasonCode::ServerUnavailable, "the Server is shutting down");
        }
        if is_over_limit {
            let over = &self.shared.turnstile.over_connections;
            over.fetch_add(1, Ordering::Relaxed);
            return refused(ReasonCode::QuotaExceeded, "limit of connections reached");
        }
        // [v3.1.1 MQTT-3.1.3-8] and MQTT 3.1, section 3.1: 1 to 23 characters.
        let needs_client_id = match connect.version {
            Version::V31 => true,
            Version::V311 => !connect.clean_start,
            Version::V5 => false,
        };
        if connect.client_id.is_empty() && needs_client_id {
            let text = "an empty Client Identifier needs Clean Session";
            return refused(ReasonCode::ClientIdentifierNotValid, text);
        }
        None
    }

    /// One step of the authentication of `pending`.
    pub(super) fn authenticate(&mut self, key: ConnectionKey, mut pending: Pending) {
        let Some(peer) = self.connection_mut(key).map(|found| found.peer) else {
            return;
        };
        pending.user_changes = self.shared.user_changes();
        let policy = Arc::clone(&pending.policy);
        let method = pending.connect.properties.authentication_method.clone();
        let authentication = policy.authentication.at(pending.listener);
        let (attempt, exchange) = pending.attempt(peer);
        let decision = authentication.authenticate(method.as_deref(), &attempt, exchange);
        if let Decision::Deny(reason, _) = decision {
            self.count_failure(&pending, peer, reason);
        } else if self.is_claim_banned(&pending.exchange, peer) {
            return self.refuse(key, &banned());
        }
        self.on_decision(key, pending, decision);
    }

    /// What an authenticator has decided on `pending`.
    pub(super) fn on_decision(&mut self, key: ConnectionKey, pending: Pending, decision: Decision) {
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        let (peer, listener) = (connection.peer, connection.listener);
        match decision {
            Decision::Allow { identity, data } => {
                let mount_point = pending.policy.mount_point(listener);
                let of = pending.policy.listener(listener);
                let is_called_by_user = of.is_some_and(|of| of.client_id_from_user);
                let listener = of.map(|of| Arc::clone(&of.name));
                let expires_at = identity.expires_at;
                let has_to_be_known = pending.has_to_be_known;
                let mut connect = pending.connect;
                if let (Some(mount_point), Some(will)) = (&mount_point, &mut connect.will)
                    && let Err(error) = mounted::will(will, mount_point)
                {
                    return self.refuse(key, &error);
                }
                // Where it comes from says nothing where it may speak for others.
                let address = peer.ip().filter(|_| !pending.is_for_others);
                let principal = identity.principal(address, listener, mount_point);
                let principal = shared_with_last(&mut self.last_principal, principal);
                let user = principal.user.as_deref().filter(|_| is_called_by_user);
                if is_called_by_user && user.is_none() {
                    return self.refuse(key, &nameless());
                }
                let named = self.name(&mut connect, user);
                let ids = &pending.policy.client_ids;
                if let Some(rule) = ids.refusing(&principal, &connect.client_id) {
                    return self.refuse_client_id(key, peer, &connect.client_id, &rule.name);
                }
                self.admit(
                    key,
                    Admission {
                        connect,
                        named,
                        data,
                        expires_at,
                        principal,
                        has_to_be_known,
                        user_changes: pending.user_changes,
                        is_asked: false,
                    },
                );
            }
            Decision::Continue(data) => {
                // [MQTT-4.12.0-2]
                let method = pending.connect.properties.authentication_method.as_deref();
                let method = method.unwrap_or_default();
                let auth = Auth::new(ReasonCode::ContinueAuthentication, method, data);
                connection.stage = Stage::Authenticating(Box::new(pending));
                self.send(key, &Outgoing::Auth(Box::new(auth)));
            }
            Decision::Wait(work) => self.park(key, pending, work),
            // [MQTT-4.12.0-4]
            Decision::Deny(reason, text) => {
                self.refuse(key, &ConnectionError::refused(reason, text));
            }
        }
    }

    /// The user is who it says, and may not be called that.
    fn refuse_client_id(&mut self, key: ConnectionKey, peer: Peer, client_id: &str, rule: &str) {
        let client_id = printable(client_id);
        tracing::info!(%peer, client_id, reason = rule, "Client Identifier is not for this user");
        let text = "this user may not use this Client Identifier";
        let reason = ReasonCode::ClientIdentifierNotValid;
        self.refuse(key, &ConnectionError::refused(reason, text));
    }

    /// Counts a proof that was wrong; that nothing was shown is none.
    fn count_failure(&self, pending: &Pending, peer: Peer, reason: ReasonCode) {
        let connect = &pending.connect;
        let has_shown = connect.user_name.is_some()
            || connect.password.is_some()
            || connect.properties.authentication_method.is_some();
        if has_shown {
            let user = connect.user_name.as_deref();
            let user = user.or(pending.exchange.claimed_user.as_deref());
            count_failure(
                &self.shared.bans,
                &pending.policy.ban_limits,
                peer,
                user.unwrap_or_default(),
                reason,
            );
        }
    }

    /// Whether too many have failed to be who this Client says it is, in an exchange that has just told us.
    pub(super) fn is_claim_banned(&self, exchange: &Exchange, peer: Peer) -> bool {
        let user = exchange.claimed_user.as_deref();
        user.is_some_and(|user| self.shared.bans.is_banned(peer.origin(), user, self.now))
    }

    /// Gives the Client its name: its `user`, where that is how Clients are called, or a new one if it has none.
    fn name(&mut self, connect: &mut Connect, user: Option<&str>) -> Named {
        match user {
            // Who has this name is this user, so the Session it names is its own, [MQTT-3.2.2-16].
            Some(user) if user == connect.client_id => Named::Itself,
            Some(user) => {
                connect.client_id = user.to_owned();
                Named::ByUser
            }
            None if connect.client_id.is_empty() => {
                connect.client_id = self.assign_client_id();
                Named::Anew
            }
            None => Named::Itself,
        }
    }

    /// [MQTT-3.1.3-6] [MQTT-3.1.3-7] [v3.1.1 MQTT-3.1.3-6] A Client Identifier no other Client has.
    fn assign_client_id(&mut self) -> String {
        self.assigned_client_ids += 1;
        let prefix = &self.shared.settings.client_id_prefix;
        format!(
            "{prefix}-{}-{}",
            self.links.own().0,
            self.assigned_client_ids
        )
    }

    /// Lets the engine of the home shard have the connection.
    fn admit(&mut self, key: ConnectionKey, admission: Admission) {
        let settings = &self.shared.settings;
        let client_id = &admission.connect.client_id;
        let home = home_shard(client_id, settings.hash_seed, settings.shard_count);
        if home == self.links.own() {
            self.serve(key, admission);
        } else {
            self.move_away(key, home, admission);
        }
    }

    /// Tells the engine of a connection whose Session lives here.
    pub(super) fn serve(&mut self, key: ConnectionKey, admission: Admission) {
        let now = self.now;
        if let Some((reason, text)) = self.lacks_memory(&admission.connect.client_id) {
            return self.refuse(key, &ConnectionError::refused(reason, text));
        }
        let asks = self.policy.asked.is_some() && !admission.is_asked;
        let questions = asks.then(|| {
            let (connect, principal) = (&admission.connect, &admission.principal);
            self.engine.questions_of_connect(connect, principal)
        });
        if let Some(questions) = questions.filter(|questions| !questions.is_empty()) {
            if let Some(connection) = self.connection_mut(key) {
                connection.stage = Stage::Asking(Box::new(admission));
                self.ask(key, questions, Waits::Connect);
            }
            return;
        }
        let Some(peer) = self.connection_mut(key).map(|found| found.peer) else {
            return;
        };
        let seat = match self.take_seat(peer, &admission) {
            Ok(seat) => seat,
            Err(error) => return self.refuse(key, &error),
        };
        let listener = self.connection_mut(key).map(|found| found.listener);
        let limits = listener.and_then(|listener| self.policy.listener(listener));
        let limits = limits.map(|of| Arc::clone(&of.server_limits));
        let pace = self.pace_of(key, admission.principal.user.as_ref());
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        connection.stage = Stage::Served;
        connection.seat = seat;
        // A reload may have come since it was accepted; from here on it is told.
        if let Some(limits) = limits {
            connection.protocol.set_limits(limits);
        }
        let seldom = connection.seldom();
        seldom.pace = pace;
        seldom.expires_at = admission.expires_at.map(|at| instant_of(at, now));
        seldom.claimed_client_id = None;
        connection.leave_seldom();
        connection.principal = Some(Arc::clone(&admission.principal));
        let hidden = admission.principal.hidden_topic_bytes();
        connection.protocol.hide_topic_prefix(hidden);
        let user = admission.principal.user.as_deref();
        tracing::info!(
            %peer,
            client_id = printable(&admission.connect.client_id),
            user = user.map(printable),
            protocol = %admission.connect.version,
            shard = self.links.own().0,
            "client connects"
        );
        let is_v5 = admission.connect.version == Version::V5;
        let request = ConnectRequest {
            connection: key,
            connect: admission.connect,
            assigned_client_id: match admission.named {
                Named::Itself => false,
                Named::Anew => true,
                // Older Clients cannot be told, and have a name of their own for the Session they want to keep.
                Named::ByUser => is_v5,
            },
            authentication_data: admission.data,
            principal: admission.principal,
        };
        self.has_news = true;
        self.engine.on_connect(request, self.now);
    }

    /// The last look at who is let in: here it is known what Session it has.
    fn take_seat(
        &self,
        peer: Peer,
        admission: &Admission,
    ) -> Result<Option<Box<Seat>>, ConnectionError> {
        let Shared {
            turnstile,
            flapping,
            ..
        } = &*self.shared;
        let client_id = &admission.connect.client_id;
        if admission.has_to_be_known
            && !(self.engine.has_session(client_id) && turnstile.pass_known(self.now))
        {
            return Err(turnstile.put_off());
        }
        let origin = peer.origin();
        let is_counted = !origin.is_local() && admission.named != Named::Anew;
        if is_counted
            && flapping.on_failure(origin, client_id, &self.policy.bounds.flapping, self.now)
        {
            let client_id = printable(client_id);
            tracing::warn!(%peer, client_id, "a client connects too often: it is refused for a while");
        }
        if is_counted && flapping.is_banned(origin, client_id, self.now) {
            return Err(flaps());
        }
        let user = admission.principal.user.as_ref();
        if user.is_some_and(|user| !turnstile.pass_user(user, self.now)) {
            return Err(turnstile.put_off());
        }
        let takes_over = self.engine.is_connected(client_id);
        turnstile.sit(origin, user, takes_over)
    }

    /// How fast a connection of `user` may be, alone and together with others.
    pub(super) fn pace_of(&mut self, key: ConnectionKey, user: Option<&Arc<str>>) -> Option<Pace> {
        let listener = self.connection_mut(key).map(|found| found.listener);
        let of = listener.and_then(|listener| self.policy.listener(listener));
        let common_paces = &self.shared.common_paces;
        let PacesLimits {
            own,
            of_user,
            of_all,
        } = self.policy.bounds.paces;
        let own = of.map_or(own, |of| PaceLimits {
            publishes: of.limits.publish_rate_max.map_or(own.publishes, u64::from),
            bytes: of
                .limits
                .publish_bytes_rate_max
                .map_or(own.bytes, |bytes| bytes as u64),
            filters: of.limits.subscribe_rate_max.map_or(own.filters, u64::from),
        });
        let user = user.filter(|_| !of_user.is_none());
        let user = user.map(|user| (of_user, common_paces.of_user(user, self.now)));
        let all = (of_all, Arc::clone(&common_paces.of_all));
        Pace::new(own, user.into_iter().chain([all]), common_paces.began)
    }

    /// Takes the connection apart, to be sent to `home` once it is known what else was read.
    fn move_away(&mut self, key: ConnectionKey, home: ShardIndex, admission: Admission) {
        if self.connection_mut(key).is_none() {
            return;
        }
        let mut connection = self.connections.remove(index_of(key));
        self.discount(&mut connection);
        if let Err(error) = self.poll.registry().deregister(connection.socket.source()) {
            tracing::error!(peer = %connection.peer, %error, "socket cannot be moved");
            self.shared.leave(connection.listener);
            return;
        }
        let Connection {
            socket,
            listener,
            protocol,
            peer,
            unsent,
            ..
        } = *connection;
        let moving = Moving {
            socket,
            listener,
            protocol,
            peer,
            admission,
            unsent,
            rest: Vec::new(),
        };
        self.moving = Some((home, Box::new(moving)));
    }

    /// Sends the connection that [`Self::move_away`] took apart; `rest` is what follows its CONNECT.
    pub(super) fn send_moving(&mut self, rest: &[u8]) {
        if let Some((home, mut moving)) = self.moving.take() {
            moving.rest.extend_from_slice(rest);
            self.links.push_parcel(home, Parcel::Moving(moving));
        }
    }

    /// A connection whose Session lives here arrives.
    pub(super) fn on_moving(&mut self, moving: Moving) {
        let Moving {
            socket,
            listener,
            protocol,
            peer,
            admission,
            unsent,
            rest,
        } = moving;
        let mut connection = Connection::new(socket, listener, protocol, peer, self.now);
        connection.unsent = unsent;
        let Some(key) = self.insert(connection) else {
            return;
        };
        self.arm(key);
        self.count(key);
        self.mark_dirty(key);
        // TLS may have read more from TCP than it has given us.
        self.mark_ready(key);
        let refusal = self.refusal(false, &admission.connect);
        match refusal.or_else(|| changed_since(admission.user_changes, &self.shared)) {
            Some(error) => self.refuse(key, &error),
            None => {
                // The packet that led here was read in another shard, so its failure is caught here.
                let served = catch_unwind(AssertUnwindSafe(|| self.serve(key, admission)));
                if served.is_err() {
                    self.on_panic(key, &[], 0);
                }
                self.on_bytes(key, &rest);
            }
        }
        self.deliver();
    }

    /// The Client's next step in an exchange, or the first of a re-authentication.
    pub(super) fn on_auth(&mut self, key: ConnectionKey, auth: Auth) {
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        match std::mem::replace(&mut connection.stage, Stage::AwaitingConnect) {
            Stage::Authenticating(mut pending) => {
                pending.data = auth.data;
                self.authenticate(key, *pending);
            }
            stage => {
                connection.stage = stage;
                self.reauthenticate(key, &auth);
            }
        }
    }
}

/// Why a Client without a user is not served where that would be its name.
fn nameless() -> ConnectionError {
    let text = "here a Client is called as its user, and this one has shown none";
    ConnectionError::refused(ReasonCode::NotAuthorized, text)
}

/// Why one is refused that comes and goes.
fn flaps() -> ConnectionError {
    let text = "this client connects too often: try again later";
    ConnectionError::refused(ReasonCode::Banned, text)
}

/// Why a Client whose user was found out so long ago has to come again: that user may have been changed or removed while
/// the connection was on its way, and neither shard had it when they were told.
fn changed_since(user_changes: u64, shared: &Shared) -> Option<ConnectionError> {
    let text = "users were changed meanwhile: try again";
    let error = ConnectionError::refused(ReasonCode::ServerBusy, text);
    (user_changes != shared.user_changes()).then_some(error)
}

/// `principal`, or `last` if that is the same: Clients of one user, or of none, from one address are held as one.
fn shared_with_last(last: &mut Arc<Principal>, principal: Principal) -> Arc<Principal> {
    if **last != principal {
        *last = Arc::new(principal);
    }
    Arc::clone(last)
}

/// When the calendar will say `at`; now, if it has.
pub(super) fn instant_of(at: SystemTime, now: Instant) -> Instant {
    let after = at.duration_since(SystemTime::now()).unwrap_or_default();
    now.checked_add(after).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::server::shared_for_tests;

    #[test]
    fn clients_that_are_the_same_to_all_rules_are_held_as_one() {
        let of = |user: &str| Principal {
            user: Some(user.into()),
            ..Principal::default()
        };
        let mut last = Arc::default();
        let first = shared_with_last(&mut last, of("ann"));
        let second = shared_with_last(&mut last, of("ann"));
        assert!(Arc::ptr_eq(&first, &second));
        let other = shared_with_last(&mut last, of("bob"));
        assert_eq!(*other, of("bob"));
        assert_eq!(*first, of("ann"));
    }

    /// A user that is removed while its connection is between two shards does not get in: neither of them had it when
    /// they were told.
    #[test]
    fn user_that_is_changed_on_the_way_to_another_shard_has_to_come_again() {
        let shared = shared_for_tests(2, &Config::default());
        let asked = shared.user_changes();
        assert!(changed_since(asked, &shared).is_none());
        shared.users_changed();
        assert!(changed_since(asked, &shared).is_some());
        assert!(changed_since(shared.user_changes(), &shared).is_none());
    }
}
