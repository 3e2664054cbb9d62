//! What must be true when everything has been carried, made durable, read and answered.
//!
//! Owns: the checks of the end. Does not own: those of every step (see the module above).
//! Start reading at [`Checker::check_all`]. Invariant: each message is judged by what its publisher and its
//! subscribers know.

use std::collections::BTreeMap;

use super::{Checked, Checker, MessageId, Outcome, Session, Stint, violation};

impl Checker {
    /// Nothing acknowledged is lost, nothing at QoS 2 repeated, nothing out of order.
    pub(crate) fn check_all(&self) -> Checked {
        for (id, message) in self.messages.iter().enumerate() {
            let is_open = message.outcome == Outcome::Open && !message.is_will && message.qos > 0;
            if is_open {
                return violation(format!("message {id} was never answered: {message:?}"));
            }
        }
        for (peer, session) in self.sessions.iter().enumerate() {
            for stint in &session.stints {
                self.check_none_lost(peer, session, stint)?;
                self.check_order(peer, session, stint)?;
            }
        }
        self.check_group()
    }

    fn check_none_lost(&self, peer: usize, session: &Session, stint: &Stint) -> Checked {
        for (id, message) in self.messages.iter().enumerate() {
            let is_owed = matches!(message.outcome, Outcome::Acknowledged(_))
                && stint.must_want(message)
                && !message.expires
                && !message.is_empty
                && message.qos.min(stint.qos) > 0
                && !message.topic.starts_with("s/");
            if is_owed && !session.got.contains_key(&id) {
                return violation(format!(
                    "peer {peer} never got message {id}, which was acknowledged: {message:?}, {stint:?}"
                ));
            }
        }
        Ok(())
    }

    /// Messages of one Client and Topic Name come in the order in which they were sent. Only what was sent
    /// when the Subscription was there tells: what was sent before may come with a later copy.
    fn check_order(&self, peer: usize, session: &Session, stint: &Stint) -> Checked {
        let mut last: BTreeMap<(usize, &str), MessageId> = BTreeMap::new();
        for &id in &session.first {
            let Some(message) = self.messages.get(id) else {
                continue;
            };
            // A first copy that expires, or is refused, makes way for a second one.
            let is_free = message.is_will || message.expires || message.was_refused;
            if is_free || !stint.must_want(message) {
                continue;
            }
            let before = last.insert((message.publisher, &message.topic), id);
            if let Some(before) = before.filter(|before| *before > id) {
                return violation(format!("peer {peer} got {id} after {before}: {message:?}"));
            }
        }
        Ok(())
    }

    /// A message for a group goes to one of its members.
    fn check_group(&self) -> Checked {
        let members = self.sessions.iter().flat_map(|session| &session.stints);
        let since = members
            .filter(|stint| stint.filter.starts_with("$share/"))
            .map(|stint| stint.acknowledged)
            .collect::<Option<Vec<_>>>()
            .and_then(|all| all.into_iter().max());
        let Some(since) = since else { return Ok(()) };
        for (id, message) in self.messages.iter().enumerate() {
            let is_owed = message.topic.starts_with("s/")
                && message.qos > 0
                && !message.expires
                && message.sent > since
                && matches!(message.outcome, Outcome::Acknowledged(_));
            if is_owed && !self.of_group.contains_key(&id) {
                return violation(format!(
                    "no member of the group got message {id}, which was acknowledged: {message:?}"
                ));
            }
        }
        Ok(())
    }

    /// What a new Client is given as retained must be what was acknowledged last, or something that was sent
    /// later and never answered. `found` has a message, or `None` for one that cannot be told, for each Topic
    /// Name with one.
    pub(crate) fn check_retained(&self, found: &BTreeMap<String, MessageId>) -> Checked {
        let mut topics: BTreeMap<&str, Vec<MessageId>> = BTreeMap::new();
        for (id, message) in self.messages.iter().enumerate() {
            if message.retain {
                topics.entry(&message.topic).or_default().push(id);
            }
        }
        for (topic, ids) in topics {
            let found = found.get(topic).copied();
            // What was refused at first may have been taken behind what was sent after it.
            let late: Vec<_> = ids
                .iter()
                .filter_map(|id| Some((id, self.messages.get(*id)?)))
                .filter(|(_, message)| message.was_refused)
                .map(|(id, message)| (!message.is_empty).then_some(*id))
                .collect();
            let mut allowed = Vec::new();
            let mut is_known = false;
            for id in ids.into_iter().rev() {
                let Some(message) = self.messages.get(id) else {
                    continue;
                };
                allowed.push((!message.is_empty).then_some(id));
                is_known = matches!(message.outcome, Outcome::Acknowledged(_));
                if is_known {
                    break;
                }
            }
            if !is_known {
                allowed.push(None);
            }
            allowed.extend(late);
            if !allowed.contains(&found) {
                return violation(format!(
                    "{topic} has retained message {found:?}, which should be one of {allowed:?}"
                ));
            }
        }
        Ok(())
    }
}
