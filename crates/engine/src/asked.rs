//! What another one has said, where no rule says anything.
//!
//! Owns: [`Question`], which of them there are ([`Engine::question_of_publish`] and those beside it), the answers a
//! Session has. Does not own: who is asked, how long an answer is good (see the server), what rules decide (see
//! `rights`). Start reading at [`Engine::question_of_publish`].
//! Invariants: without an answer nothing may be published or subscribed to; what an answer took away is not sent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use proto::Qos;
use proto::packet::{Connect, Publish, Subscribe};
use proto::topic::{matches, split_shared};

use crate::keys::SessionKey;
use crate::publish::is_server_topic;
use crate::sessions::Session;
use crate::{ConnectionKey, Engine, Principal, Request, Subject};

/// Something that no rule decides.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    /// May the Client publish there?
    Publish {
        /// To this Topic Name.
        topic: Arc<str>,
        /// At this QoS.
        qos: Qos,
        /// To be retained, or not.
        retain: bool,
    },
    /// May the Client subscribe, and be sent what its Subscription brings?
    Subscribe {
        /// To this Topic Filter.
        filter: Arc<str>,
    },
}

impl Question {
    fn text(&self) -> &str {
        match self {
            Self::Publish { topic, .. } => topic,
            Self::Subscribe { filter } => filter,
        }
    }
}

/// What was said to a [`Question`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// To which.
    pub question: Question,
    /// Yes, or no.
    pub is_allowed: bool,
    /// Until when it need not be asked again.
    pub until: Instant,
}

/// What was said about a Session.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    given: BTreeMap<Question, Given>,
    /// The same, oldest first.
    order: VecDeque<Question>,
    /// Of their topics.
    bytes: usize,
    /// Under which rules that was.
    epoch: u32,
    /// Subscriptions that are there, and were refused when they were asked about again.
    refused: BTreeSet<Arc<str>>,
    /// Whether its Will was asked about, and allowed.
    is_will_allowed: bool,
}

#[derive(Clone, Copy, Debug)]
struct Given {
    is_allowed: bool,
    until: Instant,
    /// Not used yet: good for what was asked about, however short its time is.
    is_new: bool,
}

impl Asked {
    /// Under the rules of `epoch`; what was said under others is forgotten.
    fn give(&mut self, answer: &Answer, epoch: u32) {
        if self.epoch != epoch {
            self.forget();
            self.epoch = epoch;
        }
        let given = Given {
            is_allowed: answer.is_allowed,
            until: answer.until,
            is_new: true,
        };
        if self.given.insert(answer.question.clone(), given).is_none() {
            self.bytes += answer.question.text().len();
            self.order.push_back(answer.question.clone());
        }
    }

    /// The oldest go where there are too many. Not while some are new: their packet needs all of them.
    fn trim(&mut self) {
        while self.order.len() > ANSWERS_PER_SESSION_MAX
            || self.bytes > ANSWER_BYTES_PER_SESSION_MAX
        {
            let Some(oldest) = self.order.pop_front() else {
                return;
            };
            self.bytes = self.bytes.saturating_sub(oldest.text().len());
            self.given.remove(&oldest);
        }
    }

    fn forget(&mut self) {
        self.given.clear();
        self.order.clear();
        self.bytes = 0;
    }

    /// Whether `question` need not be asked now.
    fn knows(&mut self, question: &Question, epoch: u32, now: Instant) -> bool {
        let found = self.given.get_mut(question);
        let found = found.filter(|_| self.epoch == epoch);
        found.is_some_and(|given| std::mem::take(&mut given.is_new) || now < given.until)
    }

    /// Another Will has come, which nobody was asked about.
    pub(crate) const fn forget_will(&mut self) {
        self.is_will_allowed = false;
    }

    pub(crate) fn forget_subscription(&mut self, filter: &str) {
        self.refused.remove(filter);
    }
}

impl Session {
    /// What was said to `request`, under the rules of `epoch`; where nothing was, that is no.
    pub(crate) fn is_allowed_by_answer(&self, request: Request<'_>, epoch: u32) -> bool {
        let asked = self.seldom().asked.as_ref();
        let question = match request {
            // It comes by a Subscription that was allowed; one of those that bring it still is.
            Request::Receive { topic } => {
                let Some(asked) = asked.filter(|asked| !asked.refused.is_empty()) else {
                    return true;
                };
                let brings = |filter: &str| {
                    let inner = split_shared(filter).map_or(filter, |(_, inner)| inner);
                    matches(inner, topic)
                };
                let filters = &self.filters;
                return filters.any(|filter| !asked.refused.contains(filter) && brings(filter));
            }
            Request::Publish { topic, qos, retain } => Question::Publish {
                topic: topic.into(),
                qos,
                retain,
            },
            Request::Subscribe { filter } => Question::Subscribe {
                filter: filter.into(),
            },
        };
        let asked = asked.filter(|asked| asked.epoch == epoch);
        let given = asked.and_then(|asked| asked.given.get(&question));
        given.is_some_and(|given| given.is_allowed)
    }

    /// Who it is has changed: what was said of publishing counts no more, and Subscriptions are asked about again by
    /// who connects.
    pub(crate) fn forget_answers(&mut self) {
        if let Some(asked) = self.asked_mut() {
            asked.forget();
        }
    }

    /// Whether its Will was asked about, and allowed.
    pub(crate) fn is_will_allowed_by_answer(&self) -> bool {
        let asked = self.seldom().asked.as_ref();
        asked.is_some_and(|asked| asked.is_will_allowed)
    }
}

impl Engine {
    /// What has to be asked before this PUBLISH is given to [`Self::on_publish`].
    pub fn question_of_publish(
        &mut self,
        connection: ConnectionKey,
        publish: &Publish<'_>,
        now: Instant,
    ) -> Option<Question> {
        if !self.rights.asks() || is_server_topic(publish.topic) {
            return None;
        }
        let key = self.session_of(connection)?;
        let request = Request::Publish {
            topic: publish.topic,
            qos: publish.qos,
            retain: publish.retain,
        };
        if !self.is_undecided(key, request) {
            return None;
        }
        let question = Question::Publish {
            topic: publish.topic.into(),
            qos: publish.qos,
            retain: publish.retain,
        };
        (!self.knows(key, &question, now)).then_some(question)
    }

    /// What has to be asked before this SUBSCRIBE is given to [`Self::on_subscribe`].
    pub fn questions_of_subscribe(
        &mut self,
        connection: ConnectionKey,
        subscribe: &Subscribe<'_>,
        now: Instant,
    ) -> Vec<Question> {
        let Some(key) = self.session_of(connection).filter(|_| self.rights.asks()) else {
            return Vec::new();
        };
        // Each once: a new answer counts once.
        let filters: BTreeSet<&str> = subscribe.requests.iter().map(|of| of.filter).collect();
        let mut questions = Vec::new();
        for filter in filters {
            if self.is_undecided(key, Request::Subscribe { filter }) {
                let question = Question::Subscribe {
                    filter: filter.into(),
                };
                if !self.knows(key, &question, now) {
                    questions.push(question);
                }
            }
        }
        questions
    }

    /// What has to be asked before the CONNECT of `principal` is given to [`Self::on_connect`]: about its Will, and the
    /// Subscriptions of the Session that it goes on with. Their answers are for [`Self::on_answers_before`].
    #[must_use]
    pub fn questions_of_connect(&self, connect: &Connect, principal: &Principal) -> Vec<Question> {
        if !self.rights.asks() {
            return Vec::new();
        }
        let subject = Subject {
            principal,
            client_id: &connect.client_id,
        };
        let mut questions = Vec::new();
        if let Some(will) = &connect.will {
            let request = Request::Publish {
                topic: &will.topic,
                qos: will.qos,
                retain: will.retain,
            };
            if self.rights.is_open(subject, request) {
                questions.push(Question::Publish {
                    topic: will.topic.as_str().into(),
                    qos: will.qos,
                    retain: will.retain,
                });
            }
        }
        let found = self.sessions.find(&connect.client_id);
        let found = found.and_then(|key| self.sessions.get(key));
        let is_resumed =
            |session: &&Session| !connect.clean_start && session.principal.user == principal.user;
        for filter in found
            .filter(is_resumed)
            .into_iter()
            .flat_map(|of| of.filters.iter())
        {
            let request = Request::Subscribe { filter: &filter };
            if self.rights.is_open(subject, request) {
                questions.push(Question::Subscribe { filter });
            }
        }
        questions
    }

    /// The Subscriptions of this Client that no rule decides on.
    #[must_use]
    pub fn undecided_subscriptions(&self, connection: ConnectionKey) -> Vec<Arc<str>> {
        let key = self.session_of(connection).filter(|_| self.rights.asks());
        let Some((key, session)) = key.and_then(|key| Some((key, self.sessions.get(key)?))) else {
            return Vec::new();
        };
        let is_undecided =
            |filter: &Arc<str>| self.is_undecided(key, Request::Subscribe { filter });
        session.filters.iter().filter(is_undecided).collect()
    }

    /// Whether this is one of them.
    #[must_use]
    pub fn is_undecided_subscription(&self, connection: ConnectionKey, filter: &str) -> bool {
        let key = self.session_of(connection).filter(|_| self.rights.asks());
        key.is_some_and(|key| {
            let session = self.sessions.get(key);
            session.is_some_and(|session| session.filters.contains(filter))
                && self.is_undecided(key, Request::Subscribe { filter })
        })
    }

    /// Who is at the other end of this connection, for who is asked about it.
    #[must_use]
    pub fn subject_of(&self, connection: ConnectionKey) -> Option<(Arc<Principal>, Arc<str>)> {
        let session = self.sessions.get(self.session_of(connection)?)?;
        Some((
            Arc::clone(&session.principal),
            Arc::clone(&session.client_id),
        ))
    }

    /// Answers about the Client of this connection.
    pub fn on_answers(&mut self, connection: ConnectionKey, answers: &[Answer]) {
        self.end_run();
        if let Some(key) = self.session_of(connection) {
            self.take_answers(key, answers);
        }
    }

    /// What was asked about is done: of what was said about the Client no more is kept than others may keep.
    pub fn trim_answers(&mut self, connection: ConnectionKey) {
        if let Some(key) = self.session_of(connection)
            && let Some(session) = self.sessions.get_mut(key)
            && let Some(asked) = session.asked_mut()
        {
            asked.trim();
        }
    }

    /// Answers to [`Self::questions_of_connect`], before the CONNECT.
    pub fn on_answers_before(&mut self, client_id: &str, answers: &[Answer]) {
        self.end_run();
        if let Some(key) = self.sessions.find(client_id) {
            self.take_answers(key, answers);
        }
    }

    /// The Will of the CONNECT that was just given to [`Self::on_connect`] was asked about, and is allowed.
    pub fn allow_will(&mut self, connection: ConnectionKey) {
        if let Some(key) = self.session_of(connection)
            && let Some(session) = self.sessions.get_mut(key)
        {
            session.asked_or_default().is_will_allowed = true;
            self.touch(key);
        }
    }

    fn take_answers(&mut self, key: SessionKey, answers: &[Answer]) {
        let epoch = self.rights.epoch();
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let mut has_changed = false;
        for answer in answers {
            let asked = session.asked_or_default();
            asked.give(answer, epoch);
            let Question::Subscribe { filter } = &answer.question else {
                continue;
            };
            has_changed |= if answer.is_allowed {
                asked.refused.remove(filter)
            } else {
                session.filters.contains(filter)
                    && session
                        .asked_or_default()
                        .refused
                        .insert(Arc::clone(filter))
            };
        }
        if has_changed {
            session.recheck_through = session.outbound.last_seq();
            self.subscriptions.forget_matches();
        }
        self.touch(key);
    }

    fn is_undecided(&self, key: SessionKey, request: Request<'_>) -> bool {
        let session = self.sessions.get(key);
        session.is_some_and(|session| self.rights.is_open_for(session, request))
    }

    fn knows(&mut self, key: SessionKey, question: &Question, now: Instant) -> bool {
        let epoch = self.rights.epoch();
        let session = self.sessions.get_mut(key);
        let asked = session.and_then(Session::asked_mut);
        asked.is_some_and(|asked| asked.knows(question, epoch, now))
    }
}

/// So many answers are kept for a Session; the oldest is asked for again.
const ANSWERS_PER_SESSION_MAX: usize = 256;
/// And so many bytes of their topics.
const ANSWER_BYTES_PER_SESSION_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(topic: &str, until: Instant) -> Answer {
        Answer {
            question: Question::Subscribe {
                filter: topic.into(),
            },
            is_allowed: true,
            until,
        }
    }

    #[test]
    fn answers_of_a_session_are_bounded_in_number_and_bytes_once_they_are_used() {
        let now = crate::testing::start();
        let mut asked = Asked::default();
        for n in 0..1000 {
            asked.give(&answer(&n.to_string(), now), 1);
        }
        // None is lost before its packet was handled.
        assert!((0..1000).all(|n| asked.knows(&answer(&n.to_string(), now).question, 1, now)));
        asked.trim();
        assert_eq!(asked.given.len(), ANSWERS_PER_SESSION_MAX);
        for n in 0..100 {
            asked.give(&answer(&format!("{n}{}", "x".repeat(1000)), now), 1);
            asked.trim();
        }
        assert!(asked.bytes <= ANSWER_BYTES_PER_SESSION_MAX);
        let bytes: usize = asked.given.keys().map(|of| of.text().len()).sum();
        assert_eq!((asked.bytes, asked.order.len()), (bytes, asked.given.len()));
    }

    #[test]
    fn answer_counts_once_however_short_its_time_is_and_under_its_rules_only() {
        let now = crate::testing::start();
        let mut asked = Asked::default();
        let short = answer("a", now);
        asked.give(&short, 1);
        assert!(asked.knows(&short.question, 1, now));
        assert!(!asked.knows(&short.question, 1, now));
        let long = answer("a", now + std::time::Duration::from_secs(1));
        asked.give(&long, 1);
        assert!(asked.knows(&long.question, 1, now) && asked.knows(&long.question, 1, now));
        assert!(!asked.knows(&long.question, 1, long.until));
        assert!(!asked.knows(&long.question, 2, now), "other rules");
        asked.give(&answer("b", now), 2);
        assert!(!asked.knows(&long.question, 2, now));
    }
}
