//! A message for Shared Subscriptions: one member each, here or in another shard.
//!
//! Owns: asking for the choice and acting on it, also when the chosen shard's members have left.
//! Does not own: the choice itself (see `shared_subscriptions`). Start reading at
//! [`Engine::choose_members`]. Invariant: a message is delivered to one member of a group; once it is in
//! that member's queue it stays there, [MQTT-4.8.2-4].

use std::cell::Cell;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Instant;

use proto::Message;

use crate::commits::Gate;
use crate::delivery::Terms;
use crate::keys::SessionKey;
use crate::publish::may_receive;
use crate::routing::RoutedPublish;
use crate::sessions::Sessions;
use crate::shared_subscriptions::{Choice, ChooseInput};
use crate::subscriptions::{Matches, Subscription};
use crate::{Engine, ShardIndex};

/// Whom the Shared Subscriptions have chosen.
#[derive(Debug, Default)]
pub(crate) struct Chosen {
    /// Members of this shard.
    pub(crate) here: Vec<(SessionKey, Subscription)>,
    /// Shared Subscriptions whose member is in another shard.
    pub(crate) elsewhere: Vec<(ShardIndex, Arc<str>)>,
    pub(crate) publisher_hash: u64,
}

impl Chosen {
    pub(crate) fn groups_in(&self, shard: ShardIndex) -> Vec<Arc<str>> {
        let there = self.elsewhere.iter().filter(|(to, _)| *to == shard);
        there.map(|(_, group)| Arc::clone(group)).collect()
    }
}

/// How many members a choice has looked at: as many as there are, where none may have the message. A look counts as a
/// delivery.
#[derive(Debug, Default)]
struct Looks(Cell<u64>);

impl Looks {
    /// True, to stand in front of a condition.
    fn count(&self) -> bool {
        self.0.set(self.0.get() + 1);
        true
    }

    const fn all(&self) -> u64 {
        self.0.get()
    }
}

impl Engine {
    /// Chooses a member, here or in another shard, for each group.
    pub(crate) fn choose_members(
        &mut self,
        matches: &Matches,
        message: &Message,
        publisher: Option<SessionKey>,
    ) -> Chosen {
        let mut chosen = Chosen::default();
        if matches.groups.is_empty() {
            return chosen;
        }
        if self.config.shared_strategy.needs_publisher() {
            let client_id = publisher
                .and_then(|key| self.sessions.get(key))
                .map_or("", |session| &*session.client_id);
            chosen.publisher_hash = self.hasher.hash_one(client_id);
        }
        let input = self.choose_input(message, chosen.publisher_hash);
        let looks = Looks::default();
        for group in &matches.groups {
            let sessions = &self.sessions;
            let (rights, full) = (&self.rights, &self.full);
            let may = |key| may_receive(rights, sessions, key, matches.topic());
            let is_one = |key| looks.count() && !Self::is_full(full, key) && may(key);
            match self
                .shared
                .choose(*group, input, |key| in_flight(sessions, key), is_one)
            {
                Some(Choice::Local(key, subscription)) => chosen.here.push((key, subscription)),
                Some(Choice::Remote(shard)) => {
                    if let Some(name) = self.shared.key_of(*group) {
                        chosen.elsewhere.push((shard, name.into()));
                    }
                }
                // All are full: what nobody was told of goes to one of them.
                None => {
                    let any = |key| looks.count() && may(key);
                    let any = self.shared.choose_local(*group, input, |_| 0, any);
                    chosen.here.extend(any);
                }
            }
        }
        self.work += looks.all() + chosen.elsewhere.len() as u64;
        chosen
    }

    /// Another shard chose a member here. If none can take it, because they have left meanwhile, may not have it or have no
    /// room, it goes on to a shard that still has some, under the returned number.
    pub(crate) fn deliver_routed_group(
        &mut self,
        name: &Arc<str>,
        routed: &RoutedPublish,
        now: Instant,
    ) -> Option<u64> {
        let group = self.shared.find(name)?;
        let here = self.config.shard;
        let input = self.choose_input(&routed.message, routed.publisher_hash);
        let (rights, sessions, full) = (&self.rights, &self.sessions, &self.full);
        let (looks, has_full) = (Looks::default(), Cell::new(false));
        let may = |key| may_receive(rights, sessions, key, routed.message.topic());
        let is_one = |key| {
            let is_full = Self::is_full(full, key);
            has_full.set(has_full.get() || is_full && may(key));
            looks.count() && !is_full && may(key)
        };
        let in_flight = |key| in_flight(sessions, key);
        let mut trail = routed.trail;
        let is_new = trail.tried.insert(here);
        let mut member = self.shared.choose_local(group, input, in_flight, is_one);
        trail.full_in = trail.full_in.or_else(|| has_full.get().then_some(here));
        let next = if member.is_some() {
            None
        } else {
            // What nobody was told of goes to one that is full in the end.
            let next = self.shared.choose_next(group, input, trail.tried);
            next.or_else(|| trail.full_in.filter(|shard| is_new && *shard != here))
        };
        if member.is_none() && next.is_none() {
            let is_any = |key| looks.count() && may(key);
            member = self.shared.choose_local(group, input, |_| 0, is_any);
        }
        self.work += looks.all();
        if let Some(shard) = next {
            let again = RoutedPublish {
                message: Arc::clone(&routed.message),
                retained: None,
                is_for_all: false,
                groups: vec![Arc::clone(name)],
                publisher_hash: routed.publisher_hash,
                provisional: routed.provisional,
                trail,
                pass: None,
            };
            return Some(self.routing.pass_on(shard, again));
        }
        match member {
            Some((key, subscription)) => {
                let gate = routed.provisional.map(|provisional| provisional.gate);
                self.deliver_to_member(key, &routed.message, subscription, gate, now);
            }
            None => self.counters.publishes_dropped += 1,
        }
        None
    }

    pub(crate) fn deliver_to_member(
        &mut self,
        key: SessionKey,
        message: &Arc<Message>,
        subscription: Subscription,
        gate: Option<Gate>,
        now: Instant,
    ) {
        let terms = Terms {
            // [MQTT-4.8.2-3]
            qos: message.qos().min(subscription.qos),
            retain: subscription.retain_as_published && message.retain(),
            subscription_identifiers: subscription
                .subscription_identifier
                .map(|identifier| Arc::from([identifier])),
            gate,
        };
        self.deliver(key, message, terms, now);
    }

    fn choose_input(&self, message: &Message, publisher_hash: u64) -> ChooseInput {
        let topic_hash = if self.config.shared_strategy.needs_topic() {
            self.hasher.hash_one(message.topic())
        } else {
            0
        };
        ChooseInput {
            topic_hash,
            publisher_hash,
        }
    }
}

fn in_flight(sessions: &Sessions, key: SessionKey) -> u32 {
    let open = sessions.get(key).map_or(0, |session| {
        session.outbound.open_len() + session.outbound.waiting_len()
    });
    u32::try_from(open).unwrap_or(u32::MAX)
}
