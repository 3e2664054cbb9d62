//! Connections whose CONNECT is verified on another thread.
//!
//! Owns: when a connection is parked, and how it goes on. Does not own: the threads and who is served first
//! (see `crate::authentication::Verifiers` and `crate::outbound`), what is decided (see the authenticators). Start reading at
//! [`Shard::park`]. Invariant: of a parked connection nothing is read, the engine knows nothing, and its
//! time to connect runs.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use engine::ConnectionKey;
use proto::connection::ConnectionError;
use proto::packet::ReasonCode;
use store::Store;

use super::connection::{Pending, Stage};
use super::{Command, Shard};
use crate::authentication::{
    BanLimits, Bans, Decision, Exchange, Job, Kind, Known, Verified, Work,
};
use crate::outbound::{Errand, Unmet};
use crate::peer::Peer;

impl<S: Store> Shard<S> {
    /// Lets the connection wait until `work` is done.
    pub(super) fn park(&mut self, key: ConnectionKey, pending: Pending, work: Work) {
        let Some(peer) = self.connection_mut(key).map(|found| found.peer) else {
            return;
        };
        let user = pending.connect.user_name.as_deref().unwrap_or_default();
        let user: Arc<str> = user.into();
        let is_banned = {
            let (shared, user) = (Arc::clone(&self.shared), Arc::clone(&user));
            move || shared.bans.is_banned(peer.origin(), &user, Instant::now())
        };
        let answer = self.on_answer(key, peer, user, pending.policy.ban_limits);
        let stub = pending.ticket.stub();
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        connection.stage = Stage::Parked(Box::new(pending));
        match work.0 {
            Kind::Computing(work) => {
                let job = Job {
                    stub,
                    is_banned: Box::new(is_banned),
                    work,
                    answer,
                };
                self.shared.verifiers.submit(peer.origin(), job);
            }
            Kind::Asking(lane, question) => {
                let errand = Errand {
                    stub,
                    question: Box::pin(async move {
                        if is_banned() {
                            return Verified::Banned;
                        }
                        Verified::Done(question.await)
                    }),
                    answer: Box::new(|answered| {
                        answer(answered.unwrap_or_else(|unmet| match unmet {
                            Unmet::Busy => Verified::Busy,
                            Unmet::Failed => Verified::Failed,
                        }));
                    }),
                };
                self.shared.outbound.submit(&lane, peer.origin(), errand);
            }
        }
    }

    /// What is done, on another thread, with what a verification has come to.
    fn on_answer(
        &self,
        key: ConnectionKey,
        peer: Peer,
        user: Arc<str>,
        ban_limits: BanLimits,
    ) -> Box<dyn FnOnce(Verified) + Send> {
        let own = usize::from(self.links.own().0);
        let (commander, shared) = (self.commander.clone(), Arc::clone(&self.shared));
        Box::new(move |verified| {
            // Many may be asked at once: each is counted before the next is verified.
            if let Verified::Done(Some(Decision::Deny(reason, _))) = verified {
                count_failure(&shared.bans, &ban_limits, peer, &user, reason);
            }
            // A shard that has ended serves nobody.
            if commander.send(Command::Verified { key, verified }).is_ok()
                && let Some(mailbox) = shared.mailboxes.get(own)
            {
                mailbox.wake();
            }
        })
    }

    /// The verification has come to an end; the connection may have ended before.
    pub(super) fn on_verified(&mut self, key: ConnectionKey, verified: Verified) {
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        let pending = match std::mem::replace(&mut connection.stage, Stage::AwaitingConnect) {
            Stage::Parked(pending) => pending,
            stage => {
                connection.stage = stage;
                return;
            }
        };
        // What came behind the CONNECT, and goes with the connection if it moves.
        let behind = connection.partial.take();
        // No packet is at work here that would end the connection whose verdict fails us.
        let decided = catch_unwind(AssertUnwindSafe(|| self.go_on(key, *pending, verified)));
        if decided.is_err() {
            self.on_panic(key, &[], 0);
        }
        if self.moving.is_some() {
            self.send_moving(&behind);
        } else {
            self.on_bytes(key, &behind);
            self.count(key);
            // What came meanwhile brings no event any more.
            self.mark_ready(key);
        }
        self.deliver();
    }

    /// Ends the connections of `user`, whose proof does not count any more; those that prove it now have to
    /// prove it again. With the first user, what was open for a first start is closed.
    pub(super) fn on_user_changed(&mut self, user: &str) {
        if let Some(rules) = self.policy.rules_with_users.clone() {
            self.has_news = true;
            self.guarded(|engine, _| engine.set_rules(rules));
        }
        let mut ended = Vec::new();
        for (_, connection) in &mut self.connections {
            match &mut connection.stage {
                Stage::Served => {
                    let principal = connection.principal.as_ref();
                    if principal.is_some_and(|principal| principal.user.as_deref() == Some(user)) {
                        ended.push(connection.key);
                    }
                }
                Stage::Asking(admission) if admission.principal.user.as_deref() == Some(user) => {
                    ended.push(connection.key);
                }
                Stage::Parked(pending) if pending.connect.user_name.as_deref() == Some(user) => {
                    pending.is_stale = true;
                }
                _ => {}
            }
        }
        for key in ended {
            let text = "this user was changed or removed";
            self.refuse(
                key,
                &ConnectionError::refused(ReasonCode::NotAuthorized, text),
            );
        }
        self.deliver();
    }

    /// What is known of users was read again: it counts at once, and whose password is another one, or who is gone, has
    /// to come again.
    pub(super) fn on_users_read(&mut self, before: &Known, now: &Known) {
        let mut ended = Vec::new();
        let is_changed = |user: &str| before.find(user) != now.find(user);
        for (_, connection) in &mut self.connections {
            match &mut connection.stage {
                Stage::Parked(pending) => {
                    let user = pending.connect.user_name.as_deref();
                    pending.is_stale |= user.is_some_and(is_changed);
                }
                // What it may do is being asked of who it was.
                Stage::Asking(admission) => {
                    let principal = Some(&admission.principal).filter(|of| of.is_listed);
                    let user = principal.and_then(|of| of.user.as_deref());
                    if user.is_some_and(is_changed) {
                        ended.push(connection.key);
                    }
                }
                _ => {}
            }
            let principal = connection.principal.as_ref().filter(|of| of.is_listed);
            let Some((principal, user)) = principal.and_then(|of| Some((of, of.user.as_ref()?)))
            else {
                continue;
            };
            match (before.find(user), now.find(user)) {
                (Some(old), Some(new)) if old.has_password_of(&new) => {
                    if let Some(changed) = new.identity.of_now(principal) {
                        connection.principal = Some(Arc::new(changed));
                    }
                }
                _ => ended.push(connection.key),
            }
        }
        self.has_news = true;
        // Sessions whose Clients are gone have users, too.
        self.guarded(|engine, _| {
            engine.on_users_changed(|principal| {
                let user = principal.user.as_ref().filter(|_| principal.is_listed)?;
                now.find(user)?.identity.of_now(principal)
            });
        });
        for key in ended {
            let text = "this user was changed or removed";
            let error = ConnectionError::refused(ReasonCode::NotAuthorized, text);
            self.refuse(key, &error);
        }
        self.deliver();
    }

    fn go_on(&mut self, key: ConnectionKey, mut pending: Pending, verified: Verified) {
        match verified {
            Verified::Busy => {
                let text = "too many logins wait";
                self.refuse(key, &ConnectionError::refused(ReasonCode::ServerBusy, text));
            }
            Verified::Banned => self.refuse(key, &banned()),
            Verified::Failed => {
                let text = "this login could not be verified";
                self.refuse(
                    key,
                    &ConnectionError::refused(ReasonCode::ServerUnavailable, text),
                );
            }
            // Others decide now, or by other users.
            Verified::Done(_)
                if pending.is_stale || !Arc::ptr_eq(&pending.policy, &self.policy) =>
            {
                pending.is_stale = false;
                pending.policy = Arc::clone(&self.policy);
                pending.data = pending.connect.properties.authentication_data.clone();
                pending.exchange = Exchange::default();
                self.authenticate(key, pending);
            }
            Verified::Done(None) => {
                pending.exchange.link += 1;
                self.authenticate(key, pending);
            }
            Verified::Done(Some(decision)) => self.on_decision(key, pending, decision),
        }
    }
}

/// Counts a login that has failed for `reason`, if that says that a proof was wrong.
pub(super) fn count_failure(
    bans: &Bans,
    limits: &BanLimits,
    peer: Peer,
    user: &str,
    reason: ReasonCode,
) {
    let is_wrong = matches!(
        reason,
        ReasonCode::BadUserNameOrPassword | ReasonCode::NotAuthorized
    );
    if is_wrong && bans.on_failure(peer.origin(), user, limits, Instant::now()) {
        tracing::warn!(%peer, "logins are refused for a while: too many have failed");
    }
}

/// Why a login is refused at once.
pub(super) fn banned() -> ConnectionError {
    let text = "too many logins have failed: try again later";
    ConnectionError::refused(ReasonCode::Banned, text)
}
