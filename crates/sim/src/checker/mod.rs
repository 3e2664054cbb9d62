//! What was acknowledged, and what may be seen because of it.
//!
//! Owns: [`Checker`]: every message published, every Session's Subscriptions and what it got. Does not own: what
//! must be true at the end (see `verdict`), Clients (see `world`). Start reading at [`Checker::on_delivery`].
//! Invariant: it knows only what was sent and seen, never what the Server has in mind.

mod verdict;

use std::collections::BTreeMap;

use proto::topic;

/// What is wrong, in a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Violation(pub(crate) String);

/// Whether everything is as it should be.
pub(crate) type Checked<T = ()> = Result<T, Violation>;

/// Says what is wrong.
pub(crate) fn violation<T>(what: impl Into<String>) -> Checked<T> {
    Err(Violation(what.into()))
}

/// A point in the order of everything that Clients did and saw.
pub(crate) type Tick = u64;

/// Number of a message, which its payload tells.
pub(crate) type MessageId = usize;

/// What a publisher knows of its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nothing yet.
    Open,
    /// The Server has taken it.
    Acknowledged(Tick),
    /// The Server has refused it; an earlier copy may have been taken.
    Refused,
    /// Nobody will ever answer.
    Unknown,
}

/// A message that a Client has published, or left as its Will.
#[derive(Clone, Debug)]
pub(crate) struct Published {
    pub(crate) publisher: usize,
    pub(crate) topic: String,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// An empty payload, which tells nobody which message it is.
    pub(crate) is_empty: bool,
    pub(crate) expires: bool,
    pub(crate) is_will: bool,
    /// The Server has refused a copy, whether its publisher has heard of that or not: it may be taken later,
    /// behind what was sent after it.
    pub(crate) was_refused: bool,
    /// From here on the Server can know it.
    pub(crate) sent: Tick,
    pub(crate) outcome: Outcome,
}

/// A Subscription from SUBSCRIBE to UNSUBACK.
#[derive(Clone, Debug)]
struct Stint {
    filter: String,
    qos: u8,
    acknowledged: Option<Tick>,
    leaving: Option<Tick>,
    left: Option<Tick>,
}

/// What a Client knows of its Session.
#[derive(Clone, Debug, Default)]
struct Session {
    stints: Vec<Stint>,
    /// Every message it got for a Subscription, not as a retained one: how often, and in which order first.
    got: BTreeMap<MessageId, usize>,
    first: Vec<MessageId>,
}

/// What a watcher of retained messages has seen on this connection, by Topic Name.
#[derive(Clone, Debug, Default)]
struct Watched {
    /// The last message that was seen.
    last: BTreeMap<String, MessageId>,
    /// The last that was acknowledged when the last SUBSCRIBE was sent, and when the one before was.
    bounds: [Option<BTreeMap<String, MessageId>>; 2],
}

#[derive(Debug, Default)]
pub(crate) struct Checker {
    tick: Tick,
    pub(crate) messages: Vec<Published>,
    sessions: Vec<Session>,
    watched: Vec<Watched>,
    /// Deliveries of messages that only a group subscribes to.
    of_group: BTreeMap<MessageId, usize>,
    pub(crate) deliveries: u64,
}

impl Checker {
    pub(crate) fn new(peers: usize) -> Self {
        Self {
            sessions: vec![Session::default(); peers],
            watched: vec![Watched::default(); peers],
            ..Self::default()
        }
    }

    /// The next point in the order.
    pub(crate) const fn next_tick(&mut self) -> Tick {
        self.tick += 1;
        self.tick
    }

    /// A message is about to be sent for the first time.
    pub(crate) fn on_publish(&mut self, mut message: Published) -> MessageId {
        message.sent = self.next_tick();
        self.messages.push(message);
        self.messages.len() - 1
    }

    /// A publisher knows what became of its message; the first it hears counts.
    pub(crate) fn on_outcome(&mut self, id: MessageId, outcome: Outcome) {
        if let Some(message) = self.messages.get_mut(id)
            && message.outcome == Outcome::Open
        {
            message.outcome = outcome;
        }
    }

    /// The Server refuses a copy of a message.
    pub(crate) fn on_refusal(&mut self, id: MessageId) {
        if let Some(message) = self.messages.get_mut(id) {
            message.was_refused = true;
        }
    }

    /// The Server is brought a copy of a message while its disk is low: what is to be retained is refused, with an
    /// answer that waits its turn and may never come.
    pub(crate) fn on_brought_while_low(&mut self, id: MessageId) {
        if let Some(message) = self.messages.get_mut(id) {
            message.was_refused |= message.retain && !message.is_empty;
        }
    }

    /// A publisher knows that its message was acknowledged.
    pub(crate) fn on_acknowledged(&mut self, id: MessageId) {
        let tick = self.next_tick();
        self.on_outcome(id, Outcome::Acknowledged(tick));
    }

    pub(crate) fn on_subscribe(&mut self, peer: usize, filter: &str, qos: u8) {
        let sent = self.next_tick();
        if qos == 0 {
            self.note_bounds(peer);
        }
        let session = self.session(peer);
        if let Some(stint) = session.open(filter) {
            if stint.leaving.is_none() {
                // Sent again, with the same QoS: it is the same one, whatever became of the first SUBSCRIBE.
                return;
            }
            stint.left = Some(sent);
        }
        session.stints.push(Stint {
            filter: filter.to_owned(),
            qos,
            acknowledged: None,
            leaving: None,
            left: None,
        });
    }

    pub(crate) fn on_suback(&mut self, peer: usize, filter: &str) {
        let tick = self.next_tick();
        if let Some(stint) = self.session(peer).open(filter) {
            stint.acknowledged.get_or_insert(tick);
        }
    }

    pub(crate) fn on_unsubscribe(&mut self, peer: usize, filter: &str) {
        let tick = self.next_tick();
        if let Some(stint) = self.session(peer).open(filter) {
            stint.leaving.get_or_insert(tick);
        }
    }

    pub(crate) fn on_unsuback(&mut self, peer: usize, filter: &str) {
        let tick = self.next_tick();
        if let Some(stint) = self.session(peer).open(filter) {
            stint.left = Some(tick);
        }
    }

    /// Whether the Client has this Subscription, as far as it knows; `None` if it waits for an answer that may
    /// never come.
    pub(crate) fn is_subscribed(&self, peer: usize, filter: &str) -> Option<bool> {
        let mut stints = self.sessions.get(peer)?.stints.iter();
        match stints.find(|stint| stint.is_open(filter)) {
            None => Some(false),
            Some(stint) if stint.acknowledged.is_some() && stint.leaving.is_none() => Some(true),
            Some(_) => None,
        }
    }

    /// Whether a SUBSCRIBE was sent and not undone, answered or not.
    pub(crate) fn wants(&self, peer: usize, filter: &str) -> bool {
        let stints = self.sessions.get(peer).map(|session| session.stints.iter());
        stints.is_some_and(|mut stints| {
            stints.any(|stint| stint.is_open(filter) && stint.leaving.is_none())
        })
    }

    /// A Session ends, or may end: nothing more is owed to it.
    pub(crate) fn on_session_ending(&mut self, peer: usize) {
        let tick = self.next_tick();
        for stint in &mut self.session(peer).stints {
            stint.leaving.get_or_insert(tick);
        }
    }

    /// A new Session has begun in the place of the one before.
    pub(crate) fn on_session_began(&mut self, peer: usize) {
        *self.session(peer) = Session::default();
    }

    /// A connection has begun.
    pub(crate) fn on_connected(&mut self, peer: usize) {
        if let Some(watched) = self.watched.get_mut(peer) {
            *watched = Watched::default();
        }
    }

    /// A PUBLISH that this Client has not got before in the same exchange.
    pub(crate) fn on_delivery(
        &mut self,
        peer: usize,
        topic: &str,
        id: MessageId,
        (qos, retain): (u8, bool),
    ) -> Checked {
        self.deliveries += 1;
        let Some(message) = self.messages.get(id) else {
            return violation(format!(
                "peer {peer} got message {id}, which was never sent"
            ));
        };
        if message.topic != topic || qos > message.qos {
            return violation(format!(
                "peer {peer} got message {id} at {topic} with QoS {qos}: it is {message:?}"
            ));
        }
        if qos == 0 {
            return self.check_watched(peer, id, retain);
        }
        if topic.starts_with("s/") {
            return self.note_of_group(id, qos);
        }
        let message = message.clone();
        self.check_wanted(peer, id, &message)?;
        if retain {
            return Ok(());
        }
        let session = self.session(peer);
        let count = session.got.entry(id).or_default();
        *count += 1;
        if *count == 1 {
            session.first.push(id);
        } else if qos == 2 {
            return violation(format!(
                "peer {peer} got message {id} at QoS 2 again: {message:?}"
            ));
        }
        Ok(())
    }

    fn note_of_group(&mut self, id: MessageId, qos: u8) -> Checked {
        let count = self.of_group.entry(id).or_default();
        *count += 1;
        if qos == 2 && *count > 1 {
            return violation(format!("the group got message {id} at QoS 2 again"));
        }
        Ok(())
    }

    /// A message must have been wanted at some time after it was sent.
    fn check_wanted(&mut self, peer: usize, id: MessageId, message: &Published) -> Checked {
        let session = self.session(peer);
        let mut stints = session.stints.iter();
        let fits = |stint: &Stint| topic::matches(&stint.filter, &message.topic);
        if stints.any(|stint| fits(stint) && (message.retain || stint.may_want(message))) {
            return Ok(());
        }
        violation(format!(
            "peer {peer} got message {id}, which it had no Subscription for: {message:?}, {:?}",
            session.stints
        ))
    }

    /// What a watcher of retained messages sees never goes back: neither behind what it has seen, nor behind
    /// what was acknowledged before it asked.
    fn check_watched(&mut self, peer: usize, id: MessageId, retain: bool) -> Checked {
        let Some(message) = self
            .messages
            .get(id)
            .filter(|message| message.is_latest_only())
        else {
            return Ok(());
        };
        let Some(watched) = self.watched.get_mut(peer) else {
            return Ok(());
        };
        let last = watched.last.insert(message.topic.clone(), id);
        // One that was not answered may come again after a crash that has kept what followed it.
        let is_answered = message.outcome != Outcome::Open;
        if let Some(last) = last.filter(|last| *last > id && is_answered) {
            return violation(format!(
                "peer {peer} saw {id} at {} after {last}",
                message.topic
            ));
        }
        let bound = watched.bounds.iter().flatten().last();
        match bound.and_then(|bound| bound.get(&message.topic)) {
            Some(bound) if retain && *bound > id => violation(format!(
                "peer {peer} was given retained message {id} at {}, and {bound} was acknowledged before it asked",
                message.topic
            )),
            _ => Ok(()),
        }
    }

    /// What is acknowledged when a watcher asks.
    fn note_bounds(&mut self, peer: usize) {
        let mut bounds = BTreeMap::new();
        for (id, message) in self.messages.iter().enumerate() {
            let is_acknowledged = matches!(message.outcome, Outcome::Acknowledged(_));
            if message.is_latest_only() && is_acknowledged {
                bounds.insert(message.topic.clone(), id);
            }
        }
        if let Some(watched) = self.watched.get_mut(peer) {
            let before = watched.bounds[0].replace(bounds);
            watched.bounds[1] = before;
        }
    }

    fn session(&mut self, peer: usize) -> &mut Session {
        self.sessions
            .get_mut(peer)
            .expect("invariant: as many Sessions as peers")
    }
}

impl Published {
    /// Whether it is one of a row of retained messages that come from one Client at QoS 2, so that each is
    /// routed once, and one after the other; one that was refused may come in later.
    fn is_latest_only(&self) -> bool {
        self.retain && self.qos == 2 && !self.is_will && !self.was_refused
    }
}

impl Session {
    fn open(&mut self, filter: &str) -> Option<&mut Stint> {
        self.stints.iter_mut().find(|stint| stint.is_open(filter))
    }
}

impl Stint {
    fn is_open(&self, filter: &str) -> bool {
        self.filter == filter && self.left.is_none()
    }

    /// Whether the Server may have taken `message` for it.
    fn may_want(&self, message: &Published) -> bool {
        self.left.is_none_or(|left| message.sent < left)
    }

    /// Whether the Server must have.
    fn must_want(&self, message: &Published) -> bool {
        let is_there = self.acknowledged.is_some_and(|since| since < message.sent);
        is_there && self.leaving.is_none() && topic::matches(&self.filter, &message.topic)
    }
}
