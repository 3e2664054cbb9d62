//! Connections that wait for what a service says they may do.
//!
//! Owns: when it is asked, what waits meanwhile, when it is asked again. Does not own: what is asked and what an answer
//! means (see `crate::authorization`), what no rule decides (see `engine`). Start reading at [`Shard::await_answers`].
//! Invariants: of a connection that waits nothing is read, so its packets keep their order; it waits for one set of
//! answers at a time; an answer of a service that is not the configured one any more counts for nothing.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{Answer, ConnectionKey, Engine, Question};
use proto::connection::Event;
use proto::packet::Unsubscribe;
use proto::{PacketIdentifier, Qos};
use store::Store;

use super::connection::{Admission, Stage, printable};
use super::{Command, Shard};
use crate::authentication::Ticket;
use crate::authorization::{HttpRights, no_answer};
use crate::outbound::{Errand, Unmet};

/// What a service has said.
#[derive(Debug)]
pub(crate) struct Answered {
    /// About whose Client.
    key: ConnectionKey,
    /// Which service.
    service: Arc<HttpRights>,
    answers: Vec<Answer>,
    waits: Waits,
    /// Whether it was not asked, for too many wait.
    is_busy: bool,
}

/// What waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Waits {
    /// A CONNECT, and its time runs.
    Connect,
    /// The packet at the front of what was read.
    Packet,
    /// Nothing: it is asked again.
    Nothing,
}

/// Subscriptions that are asked about again.
#[derive(Debug, Default)]
pub(super) struct Reasks {
    due: BTreeMap<(Instant, u64), (ConnectionKey, Arc<str>)>,
    /// The same by connection.
    known: BTreeMap<(u64, Arc<str>), (Instant, u64)>,
    number: u64,
    /// One more holds it for each that is under way.
    under_way: Arc<()>,
}

impl Reasks {
    /// When there is something to do.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let (next, _) = self.due.keys().next()?;
        let earliest = if self.is_full() {
            now + FULL_PAUSE
        } else {
            now
        };
        Some((*next).max(earliest))
    }

    fn is_full(&self) -> bool {
        Arc::strong_count(&self.under_way) > UNDER_WAY_MAX
    }

    fn add(&mut self, key: ConnectionKey, filter: &Arc<str>, at: Instant) {
        let entry = self.known.entry((key.0, Arc::clone(filter)));
        if let std::collections::btree_map::Entry::Vacant(entry) = entry {
            self.number += 1;
            entry.insert((at, self.number));
            let due = (key, Arc::clone(filter));
            self.due.insert((at, self.number), due);
        }
    }

    fn pop(&mut self, now: Instant) -> Option<(ConnectionKey, Arc<str>)> {
        let entry = self
            .due
            .first_entry()
            .filter(|entry| entry.key().0 <= now)?;
        let (key, filter) = entry.remove();
        self.known.remove(&(key.0, Arc::clone(&filter)));
        Some((key, filter))
    }

    fn forget_all(&mut self) {
        self.due.clear();
        self.known.clear();
    }

    /// Tells the engine that the Client unsubscribes; then nothing is asked about that.
    pub(super) fn unsubscribe(
        &mut self,
        engine: &mut Engine,
        key: ConnectionKey,
        unsubscribe: &Unsubscribe<'_>,
        now: Instant,
    ) {
        for filter in &unsubscribe.filters {
            if let Some(at) = self.known.remove(&(key.0, Arc::from(*filter))) {
                self.due.remove(&at);
            }
        }
        engine.on_unsubscribe(key, unsubscribe, now);
    }

    /// The connection is gone, and nothing is asked for it.
    pub(super) fn forget(&mut self, key: ConnectionKey) {
        if self.known.is_empty() {
            return;
        }
        let own = (key.0, Arc::from(""))..(key.0 + 1, Arc::from(""));
        while let Some((filter, at)) = self.known.range(own.clone()).next() {
            let (filter, at) = (filter.clone(), *at);
            self.known.remove(&filter);
            self.due.remove(&at);
        }
    }
}

impl<S: Store> Shard<S> {
    /// Lets the connection wait for the answers to `questions`.
    pub(super) fn await_answers(&mut self, key: ConnectionKey, questions: Vec<Question>) {
        if let Some(connection) = self.connection_mut(key) {
            connection.flags.is_asking = true;
            self.ask(key, questions, Waits::Packet);
        }
    }

    /// Asks `questions`; the answers come as a command.
    pub(super) fn ask(&mut self, key: ConnectionKey, questions: Vec<Question>, waits: Waits) {
        let Some(service) = self.policy.asked.clone() else {
            return;
        };
        let own = usize::from(self.links.own().0);
        let (commander, shared) = (self.commander.clone(), Arc::clone(&self.shared));
        let subject = self.engine.subject_of(key);
        let slot = (waits == Waits::Nothing).then(|| Arc::clone(&self.reasks.under_way));
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        let subject = match &connection.stage {
            Stage::Asking(admission) => {
                let client_id = Arc::from(admission.connect.client_id.as_str());
                Some((Arc::clone(&admission.principal), client_id))
            }
            _ => subject,
        };
        let Some((principal, client_id)) = subject else {
            return;
        };
        let stub = connection
            .seldom()
            .ticket
            .get_or_insert_with(Ticket::new)
            .stub();
        let origin = connection.peer.origin();
        let unasked = questions.clone();
        let errand = Errand {
            stub,
            question: Box::pin(service.ask(questions, principal, client_id)),
            answer: {
                let service = Arc::clone(&service);
                Box::new(move |answered: Result<Vec<Answer>, Unmet>| {
                    drop(slot);
                    let answered = Answered {
                        key,
                        service,
                        is_busy: answered.is_err(),
                        answers: answered
                            .unwrap_or_else(|_| unasked.into_iter().map(no_answer).collect()),
                        waits,
                    };
                    // A shard that has ended serves nobody.
                    if commander.send(Command::Answered(answered)).is_ok()
                        && let Some(mailbox) = shared.mailboxes.get(own)
                    {
                        mailbox.wake();
                    }
                })
            },
        };
        self.shared.outbound.submit(&service.lane(), origin, errand);
    }

    /// The service has said something; the connection may have ended before.
    pub(super) fn on_answered(&mut self, answered: Answered) {
        let Answered {
            key,
            service,
            mut answers,
            waits,
            is_busy,
        } = answered;
        let is_current = self.policy.asked.as_ref();
        let is_current = is_current.is_some_and(|current| Arc::ptr_eq(current, &service));
        if !is_current {
            answers.clear();
        }
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        match std::mem::replace(&mut connection.stage, Stage::AwaitingConnect) {
            Stage::Asking(admission) => {
                // No packet is at work here that would end the connection whose answers fail us.
                let gone_on = catch_unwind(AssertUnwindSafe(|| {
                    self.go_on_connecting(key, *admission, &answers, is_current);
                }));
                if gone_on.is_err() {
                    self.on_panic(key, &[], 0);
                }
            }
            stage => {
                connection.stage = stage;
                self.has_news = true;
                // What could not even be asked again is as it was, for a while.
                if !(is_busy && waits == Waits::Nothing) {
                    self.guarded(|engine, _| engine.on_answers(key, &answers));
                }
            }
        }
        let mut is_handled = true;
        if waits == Waits::Packet
            && let Some(connection) = self.connection_mut(key)
        {
            connection.flags.is_asking = false;
            self.look_again(key);
            // Its turn may be over before all of the packet was handled.
            let is_slicing = self.engine.is_slicing(key);
            let connection = self.connection_mut(key);
            is_handled = connection.is_some_and(|found| {
                !is_slicing && !found.flags.has_to_wait() && !found.flags.is_unfinished
            });
            if is_handled {
                self.guarded(|engine, _| engine.trim_answers(key));
            }
        }
        self.ask_again_later(key, &answers, is_handled);
        self.deliver();
    }

    /// A CONNECT goes on with what was said of its Will, and of the Subscriptions of its Session.
    fn go_on_connecting(
        &mut self,
        key: ConnectionKey,
        mut admission: Admission,
        answers: &[Answer],
        is_current: bool,
    ) {
        let is_will = |answer: &&Answer| matches!(answer.question, Question::Publish { .. });
        let will = answers.iter().find(is_will).map(|answer| answer.is_allowed);
        if will == Some(false) {
            self.refuse_will(key, &mut admission);
        }
        let client_id = admission.connect.client_id.clone();
        self.guarded(|engine, _| engine.on_answers_before(&client_id, answers));
        // Another service is to be asked all of it.
        admission.is_asked = is_current;
        self.serve(key, admission);
        if will == Some(true) {
            self.guarded(|engine, _| engine.allow_will(key));
        }
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        let behind = connection.partial.take();
        self.on_bytes(key, &behind);
        // What came meanwhile brings no event any more.
        self.mark_ready(key);
    }

    /// A Will that may not be published is none.
    fn refuse_will(&mut self, key: ConnectionKey, admission: &mut Admission) {
        let Some(will) = admission.connect.will.take() else {
            return;
        };
        let Some(connection) = self.connection_mut(key) else {
            return;
        };
        tracing::warn!(
            peer = %connection.peer,
            client_id = printable(&admission.connect.client_id),
            topic = printable(&will.topic),
            reason = HttpRights::NAME,
            "will not allowed"
        );
    }

    fn ask_again_later(&mut self, key: ConnectionKey, answers: &[Answer], is_handled: bool) {
        let earliest = self.now + REASK_MIN;
        for answer in answers {
            if let Question::Subscribe { filter } = &answer.question
                && (!is_handled || self.engine.is_undecided_subscription(key, filter))
            {
                self.reasks.add(key, filter, answer.until.max(earliest));
            }
        }
    }

    /// Asks about Subscriptions whose answers have run out.
    pub(super) fn ask_again(&mut self) {
        while !self.reasks.is_full()
            && let Some((key, filter)) = self.reasks.pop(self.now)
        {
            let undecided = self.engine.is_undecided_subscription(key, &filter);
            if undecided && self.connection_mut(key).is_some() {
                self.ask(key, vec![Question::Subscribe { filter }], Waits::Nothing);
            }
        }
    }

    /// Everything that was said before a reload is asked about again, now.
    pub(super) fn ask_all_again(&mut self) {
        self.reasks.forget_all();
        if self.policy.asked.is_none() {
            return;
        }
        let served = self
            .connections
            .iter()
            .filter(|(_, found)| found.is_served());
        let keys: Vec<ConnectionKey> = served.map(|(_, found)| found.key).collect();
        for key in keys {
            for filter in self.engine.undecided_subscriptions(key) {
                self.reasks.add(key, &filter, self.now);
            }
        }
    }
}

/// So many are asked about again at once.
const UNDER_WAY_MAX: usize = 16;
/// When they are, it is looked again after this.
const FULL_PAUSE: Duration = Duration::from_millis(20);
/// What has to be asked about a packet, and by what a PUBLISH was counted.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) questions: Vec<Question>,
    pub(super) qos: Qos,
    pub(super) packet_id: Option<PacketIdentifier>,
}

/// What has to be asked before the engine is told of `event`.
pub(super) fn questions(
    engine: &mut Engine,
    key: ConnectionKey,
    event: &Event<'_>,
    now: Instant,
) -> Option<Open> {
    match event {
        Event::Publish(publish) => {
            let question = engine.question_of_publish(key, publish, now)?;
            Some(Open {
                questions: vec![question],
                qos: publish.qos,
                packet_id: publish.packet_id,
            })
        }
        Event::Subscribe(subscribe) => {
            let questions = engine.questions_of_subscribe(key, subscribe, now);
            (!questions.is_empty()).then_some(Open {
                questions,
                qos: Qos::AtMostOnce,
                packet_id: None,
            })
        }
        _ => None,
    }
}

/// A Subscription is not asked about more often.
const REASK_MIN: Duration = Duration::from_secs(1);
