//! The rules, asked for the Sessions of this shard: when something comes, and again when it leaves.
//!
//! Owns: [`Rights`], what rules apply to a Session, what is said of a refusal. Does not own: the rules (see
//! `rules`), what a refused Client is answered (see `publish`, `subscribe`). Start reading at
//! [`Rights::decide`]. Invariant: what is decided is decided by the rules that are in force now, also for a
//! Session whose Client is not connected.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::Message;
use proto::session::Queued;

use crate::keys::SessionKey;
use crate::output::{Denied, Output};
use crate::sessions::Session;
use crate::{ConnectionKey, Decision, Engine, Request, Rules, Subject};

/// The rules in force.
#[derive(Debug)]
pub(crate) struct Rights {
    rules: Arc<Rules>,
    /// Which, counted from 1; 0 is before any.
    epoch: u32,
    /// When the refusals that are told now began to be counted.
    told_since: Instant,
    told: u32,
}

/// The rules for some Clients only that are for the Client of a Session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Applying {
    numbers: Box<[u32]>,
    /// Of which rules.
    epoch: u32,
}

impl Session {
    fn subject(&self) -> Subject<'_> {
        Subject {
            principal: &self.principal,
            client_id: &self.client_id,
        }
    }
}

impl Rights {
    pub(crate) const fn new(rules: Arc<Rules>, now: Instant) -> Self {
        Self {
            rules,
            epoch: 1,
            told_since: now,
            told: 0,
        }
    }

    /// What the rules say to `request` of the Client of `session`. See [`Rules::decide`] for the cost.
    pub(crate) fn decide<'a>(&'a self, session: &'a Session, request: Request<'_>) -> Decision<'a> {
        let decision = self.decide_by_rules(session, request);
        if !decision.is_open() || !self.rules.asks_about(request) {
            return decision;
        }
        let is_allowed = session.is_allowed_by_answer(request, self.epoch);
        self.rules.answered(is_allowed)
    }

    /// The same, whatever another one says.
    fn decide_by_rules<'a>(&'a self, session: &'a Session, request: Request<'_>) -> Decision<'a> {
        if let Some(mount_point) = &session.principal.mount_point
            && !request.is_within(mount_point)
        {
            return Decision::OUTSIDE;
        }
        let subject = session.subject();
        if session.applying.epoch == self.epoch {
            let applying = &session.applying.numbers;
            return self.rules.decide(applying, subject, request);
        }
        let applying = self.rules.applying(subject);
        self.rules.decide(&applying, subject, request)
    }

    /// Whether another one is asked where no rule says anything.
    pub(crate) fn asks(&self) -> bool {
        self.rules.is_asking()
    }

    pub(crate) const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Whether no rule says anything to `request`, and another one may.
    pub(crate) fn is_open(&self, subject: Subject<'_>, request: Request<'_>) -> bool {
        let applying = self.rules.applying(subject);
        let decision = self.rules.decide(&applying, subject, request);
        decision.is_open() && self.rules.asks_about(request)
    }

    /// The same for the Client of `session`.
    pub(crate) fn is_open_for(&self, session: &Session, request: Request<'_>) -> bool {
        let decision = self.decide_by_rules(session, request);
        decision.is_open() && self.rules.asks_about(request)
    }

    pub(crate) fn may_receive(&self, session: &Session, topic: &str) -> bool {
        self.decide(session, Request::Receive { topic }).is_allowed
    }

    /// Whether the Session may be sent all that `filter` matches; false where that is to be asked for each topic, as it is
    /// where there are more than `rules_max` rules. O(rules).
    pub(crate) fn may_receive_all(
        &self,
        session: &Session,
        filter: &str,
        rules_max: usize,
    ) -> bool {
        session.applying.epoch == self.epoch
            && session.principal.mount_point.is_none()
            && self.rules.len() <= rules_max
            && self
                .rules
                .allows_all(&session.applying.numbers, session.subject(), filter)
    }

    /// Whether `queued` is to be looked at again before it leaves, and may not.
    pub(crate) fn denies_queued(&self, session: &Session, queued: &Queued) -> bool {
        queued.seq <= session.recheck_through && !self.may_receive(session, queued.message.topic())
    }

    /// Whether one more refusal may be told: the log is not for a Client to fill.
    fn may_tell(&mut self, now: Instant) -> bool {
        if now.saturating_duration_since(self.told_since) >= TOLD_PERIOD {
            self.told_since = now;
            self.told = 0;
        }
        self.told += 1;
        self.told <= TOLD_PER_PERIOD_MAX
    }
}

impl Engine {
    /// From now on these rules are in force, for everyone: also for what waits, for what is retained, and for
    /// Wills. Nobody is told; a Subscription that is not allowed any more brings nothing. O(what is cached).
    ///
    /// # Panics
    /// At the 2^32nd change: no Server lives for so long.
    pub fn set_rules(&mut self, rules: Arc<Rules>) {
        self.end_run();
        self.rights.rules = rules;
        let next = self.rights.epoch.checked_add(1);
        self.rights.epoch = next.expect("invariant: rules change less than 2^32 times");
        self.subscriptions.forget_matches();
    }

    /// Finds the rules that apply to a Session, unless they are known; what waits in its queue is then looked
    /// at again before it leaves.
    pub(crate) fn refresh_rights(&mut self, key: SessionKey) {
        let rights = &self.rights;
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if session.applying.epoch == rights.epoch {
            return;
        }
        session.applying = Applying {
            numbers: rights.rules.applying(session.subject()),
            epoch: rights.epoch,
        };
        session.recheck_through = session.outbound.last_seq();
    }

    /// The Client of this Session has connected, as `principal`. What that may not have any more, it does not get.
    pub(crate) fn set_principal(&mut self, key: SessionKey, principal: &Arc<crate::Principal>) {
        let rights = &self.rights;
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let before = std::mem::replace(&mut session.principal, Arc::clone(principal));
        if let Some(link) = &session.link
            && let Some(connection) = self.connections.get_mut(link.connection)
        {
            connection.grant = None;
        }
        // What is asked at each decision, and not once in `applying`.
        let is_named_alike = before.user == principal.user
            && before.attributes == principal.attributes
            && before.own_rules == principal.own_rules;
        let applying = Applying {
            numbers: rights.rules.applying(session.subject()),
            epoch: rights.epoch,
        };
        if !is_named_alike || before.groups != principal.groups {
            // It was said of somebody else.
            session.forget_answers();
        }
        if applying != session.applying || !is_named_alike {
            session.recheck_through = session.outbound.last_seq();
            session.applying = applying;
            if !session.filters.is_empty() {
                self.subscriptions.forget_matches();
            }
        }
    }

    /// [MQTT-4.12.1-1] The Client of this connection has shown again who it is. False if it is another user now,
    /// which no connection can become; nothing changes then.
    pub fn on_reauthenticated(
        &mut self,
        connection: ConnectionKey,
        principal: &Arc<crate::Principal>,
    ) -> bool {
        self.end_run();
        let Some(key) = self.connections.get(connection).map(|of| of.session) else {
            return false;
        };
        let user = self.sessions.get(key).map(|of| &of.principal.user);
        if user != Some(&principal.user) {
            return false;
        }
        self.change_principal(key, principal);
        true
    }

    /// What is known of users has changed: `known` says what it is now of each Client that has a Session, or
    /// `None` where it is the same. O(Sessions).
    pub fn on_users_changed(
        &mut self,
        mut known: impl FnMut(&crate::Principal) -> Option<crate::Principal>,
    ) {
        self.end_run();
        for key in self.sessions.keys() {
            let session = self.sessions.get(key);
            if let Some(principal) = session.and_then(|session| known(&session.principal)) {
                self.change_principal(key, &Arc::new(principal));
            }
        }
    }

    /// The same, while its Client is connected or gone; durable where the Session is.
    fn change_principal(&mut self, key: SessionKey, principal: &Arc<crate::Principal>) {
        let session = self.sessions.get(key);
        let before = session.map(|session| Arc::clone(&session.principal));
        self.set_principal(key, principal);
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        if session.is_stored && before.as_ref() != Some(principal) {
            self.record_session(key, session.disconnected_at);
        }
    }

    /// Whether this Session may be sent `message`; if not, that is told.
    pub(crate) fn check_receive(
        &mut self,
        key: SessionKey,
        message: &Message,
        now: Instant,
    ) -> bool {
        let Some(session) = self.sessions.get(key) else {
            return false;
        };
        let request = Request::Receive {
            topic: message.topic(),
        };
        let decision = self.rights.decide(session, request);
        if decision.is_allowed {
            return true;
        }
        let rule = decision.reason();
        self.counters.publishes_dropped += 1;
        self.counters.dropped_not_authorized += 1;
        self.tell_denied(key, request, rule, now);
        false
    }

    /// Has the refusal of `request` logged, unless there were many lately.
    pub(crate) fn tell_denied(
        &mut self,
        key: SessionKey,
        request: Request<'_>,
        rule: Arc<str>,
        now: Instant,
    ) {
        if !self.rights.may_tell(now) {
            return;
        }
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let connection: Option<ConnectionKey> = session.link.as_ref().map(|link| link.connection);
        let denied = Denied::new(Arc::clone(&session.client_id), connection, request, rule);
        self.outputs.push_back(Output::Denied(Box::new(denied)));
    }
}

/// For so long refusals are counted.
const TOLD_PERIOD: Duration = Duration::from_secs(1);
/// So many of them are told in that time.
const TOLD_PER_PERIOD_MAX: u32 = 10;
