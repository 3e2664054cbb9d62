//! Between shards: what leaves for another shard, what comes from one, and who has taken what.
//!
//! Owns: [`ShardMessage`], batches per turn, their numbers, the answers to them.
//! Does not own: rings and wake-ups (the server's), who wants a message (see `subscriptions`).
//! Start reading at [`Engine::on_shard_message`].
//! Invariant: a shard answers a batch only when all that it caused is durable here and taken where
//! it was passed on; so an acknowledgement that waits for the answer promises as much.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use proto::Message;
use store::Seq;

use crate::commits::Provisional;
use crate::counters::Counters;
use crate::full::FullThere;
use crate::keys::ShardSet;
use crate::output::Output;
use crate::pending::Wait;
use crate::retained::Stamp;
use crate::{Config, Engine, ShardIndex};

/// What one shard's engine says to another's; the server only carries it, in order.
#[derive(Debug)]
pub struct ShardMessage(Kind);

#[derive(Debug)]
enum Kind {
    /// What one turn has for the other shard.
    Batch { turn: u64, items: Vec<ShardItem> },
    /// Everything up to this turn's batch is taken.
    Taken { turn: u64 },
    /// The message that was passed on under this number is taken.
    PassedOn { pass: u64 },
    /// The sender's commits are durable up to this one.
    Committed { up_to: u64 },
}

/// One thing for another shard.
#[derive(Debug)]
pub(crate) enum ShardItem {
    /// A message to deliver, to store, or both.
    Publish(RoutedPublish),
    /// Whether the sender has a Non-shared Subscription to this Topic Filter.
    Interest { filter: Arc<str>, is_wanted: bool },
    /// How many members of a Shared Subscription the sender has.
    Members {
        group: Arc<str>,
        online: u32,
        total: u32,
    },
    /// Whether Sessions of the sender that want this Topic Filter are full, or its members of a Shared Subscription.
    Full {
        filter: Arc<str>,
        is_full: FullThere,
        since: Instant,
    },
    /// The sender asks what the receiver has counted.
    CountersWanted,
    /// The sender has announced all that it found at its start.
    Restored,
    /// What the sender has counted.
    Counters(Box<Counters>),
}

/// A message for the Sessions of another shard.
#[derive(Clone, Debug)]
pub(crate) struct RoutedPublish {
    pub(crate) message: Arc<Message>,
    /// Set if it is to be stored as retained message.
    pub(crate) retained: Option<Stamp>,
    /// Whether Non-shared Subscriptions get it.
    pub(crate) is_for_all: bool,
    /// Shared Subscriptions for one of whose members it is meant, `$share/name/filter`.
    pub(crate) groups: Vec<Arc<str>>,
    /// Keyed hash of the publisher's Client Identifier, where the choice of a member needs it.
    pub(crate) publisher_hash: u64,
    /// Set if it does not count yet.
    pub(crate) provisional: Option<Provisional>,
    /// Where it was before.
    pub(crate) trail: Trail,
    /// Set if a shard that failed passes it on: the number it wants the answer under.
    pub(crate) pass: Option<u64>,
}

/// Where a message for a Shared Subscription was before.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trail {
    /// Shards in which no member could take it.
    pub(crate) tried: ShardSet,
    /// The first of them in which one may have it, but has no room.
    pub(crate) full_in: Option<ShardIndex>,
}

impl ShardMessage {
    /// Bytes it takes on its way, without the messages in it.
    #[must_use]
    pub const fn memory_bytes(&self) -> usize {
        let items = match &self.0 {
            Kind::Batch { items, .. } => items.capacity(),
            _ => 0,
        };
        size_of::<Self>() + items * size_of::<ShardItem>()
    }
}

/// What a message from another shard has caused here.
#[derive(Debug, Default)]
pub(crate) struct Taking {
    /// Our own durable effects.
    pub(crate) wait: Wait,
    /// Where it was passed on.
    pub(crate) passes: Vec<u64>,
}

/// What this shard has sent to one other, and got back.
#[derive(Debug, Default)]
struct Neighbour {
    outbox: Vec<ShardItem>,
    sent_turn: u64,
    taken_turn: u64,
}

/// An answer that is not due yet.
#[derive(Debug)]
struct Owed {
    to: ShardIndex,
    answer: Answer,
    taking: Taking,
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    /// To a batch. Turns are answered in order.
    Turn(u64),
    /// To a message passed on. Answered apart from its batch: two shards that pass messages on to each
    /// other would else wait for each other for ever.
    Pass(u64),
}

/// The state of this shard's links to the others.
#[derive(Debug)]
pub(crate) struct Routing {
    neighbours: Vec<Neighbour>,
    others: ShardSet,
    turn: u64,
    /// When the last interest was announced.
    interest_turn: u64,
    owed: VecDeque<Owed>,
    passes: u64,
    /// Shards that have not announced yet what they found at their start.
    unannounced: ShardSet,
    /// What this shard has announced of it.
    restored: Wait,
}

impl Routing {
    pub(crate) fn new(config: &Config) -> Self {
        let shards = (0..config.shard_count).map(ShardIndex);
        Self {
            neighbours: shards.clone().map(|_| Neighbour::default()).collect(),
            others: shards.filter(|shard| *shard != config.shard).collect(),
            turn: 1,
            interest_turn: 0,
            owed: VecDeque::new(),
            passes: 0,
            unannounced: ShardSet::EMPTY,
            restored: Wait::default(),
        }
    }

    pub(crate) const fn others(&self) -> ShardSet {
        self.others
    }

    /// Puts `item` into this turn's batch for `to`; what depends on it waits for the returned.
    pub(crate) fn send(&mut self, to: ShardIndex, item: ShardItem) -> Wait {
        let mut wait = Wait {
            turn: self.turn,
            ..Wait::default()
        };
        if let Some(neighbour) = self.neighbours.get_mut(usize::from(to.0)) {
            neighbour.outbox.push(item);
            wait.shards.insert(to);
        }
        wait
    }

    /// Passes a message on to `to`; returns the number its answer comes under.
    pub(crate) fn pass_on(&mut self, to: ShardIndex, publish: RoutedPublish) -> u64 {
        self.passes += 1;
        let pass = Some(self.passes);
        self.send(to, ShardItem::Publish(RoutedPublish { pass, ..publish }));
        self.passes
    }

    /// Announces interest to all others.
    pub(crate) fn announce(&mut self, item: impl Fn() -> ShardItem) {
        for shard in self.others.iter() {
            self.send(shard, item());
        }
        self.interest_turn = self.turn;
    }

    /// The other shards are starting, too.
    pub(crate) const fn begin_restore(&mut self) {
        self.unannounced = self.others;
    }

    /// All that this shard found at its start is announced.
    pub(crate) fn finish_restore(&mut self) {
        self.announce(|| ShardItem::Restored);
        self.restored = self.wait_for_interest();
    }

    /// Whether what every shard found at its start is known here, and what this one found everywhere.
    pub(crate) fn is_ready(&self) -> bool {
        self.unannounced.is_empty() && self.is_taken(&self.restored)
    }

    /// Every interest announced up to now, by whichever Session.
    pub(crate) const fn wait_for_interest(&self) -> Wait {
        Wait {
            shards: self.others,
            turn: self.interest_turn,
            written: Seq(0),
            persisted: Seq(0),
            gate: None,
        }
    }

    /// Everything that was sent or is about to be sent.
    pub(crate) fn wait_for_others(&self) -> Wait {
        Wait {
            shards: self.others,
            turn: self.turn,
            ..Wait::default()
        }
    }

    pub(crate) fn is_taken(&self, wait: &Wait) -> bool {
        wait.shards.is_empty()
            || wait.shards.iter().all(|shard| {
                self.neighbours
                    .get(usize::from(shard.0))
                    .is_none_or(|neighbour| {
                        let has_all = neighbour.taken_turn == neighbour.sent_turn;
                        neighbour.taken_turn >= wait.turn
                            || (has_all && neighbour.outbox.is_empty())
                    })
            })
    }
}

impl Engine {
    /// A message from the engine of another shard.
    pub fn on_shard_message(&mut self, from: ShardIndex, message: ShardMessage, now: Instant) {
        self.end_run();
        match message.0 {
            Kind::Batch { turn, items } => {
                let mut taking = Taking::default();
                for item in items {
                    self.on_shard_item(from, item, &mut taking, now);
                }
                self.owe(from, Answer::Turn(turn), taking);
                self.answer_shards();
            }
            Kind::PassedOn { pass } => {
                for owed in &mut self.routing.owed {
                    owed.taking.passes.retain(|waited| *waited != pass);
                }
                self.answer_shards();
            }
            Kind::Taken { turn } => {
                if let Some(neighbour) = self.routing.neighbours.get_mut(usize::from(from.0)) {
                    neighbour.taken_turn = neighbour.taken_turn.max(turn);
                }
                self.release();
            }
            Kind::Committed { up_to } => self.on_committed(from, up_to),
        }
    }

    /// Tells all others up to where the commits of this shard are durable.
    pub(crate) fn tell_committed(&mut self, up_to: u64) {
        for to in self.routing.others.iter() {
            let message = ShardMessage(Kind::Committed { up_to });
            self.outputs.push_back(Output::ToShard { to, message });
        }
    }

    fn owe(&mut self, to: ShardIndex, answer: Answer, taking: Taking) {
        self.routing.owed.push_back(Owed { to, answer, taking });
    }

    fn on_shard_item(
        &mut self,
        from: ShardIndex,
        item: ShardItem,
        batch: &mut Taking,
        now: Instant,
    ) {
        match item {
            ShardItem::Publish(publish) => {
                let taking = self.on_routed_publish(&publish, now);
                if let Some(pass) = publish.pass {
                    self.owe(from, Answer::Pass(pass), taking);
                } else {
                    batch.wait = batch.wait.and(taking.wait);
                    batch.passes.extend(taking.passes);
                }
            }
            ShardItem::Interest { filter, is_wanted } => {
                self.subscriptions.set_remote(&filter, from, is_wanted);
            }
            ShardItem::Members {
                group,
                online,
                total,
            } => {
                self.on_members(from, &group, online, total);
            }
            ShardItem::Full {
                filter,
                is_full,
                since,
            } => self.on_full_elsewhere(from, &filter, (is_full, since)),
            ShardItem::CountersWanted => self.on_counters_wanted(from),
            ShardItem::Counters(counters) => self.on_counters(from, *counters, now),
            ShardItem::Restored => {
                self.routing.unannounced.remove(from);
            }
        }
    }

    /// Gives every answer whose effects are safe; to batches oldest first for each shard.
    pub(crate) fn answer_shards(&mut self) {
        let mut blocked = ShardSet::EMPTY;
        let owed = std::mem::take(&mut self.routing.owed);
        for owed in owed {
            let is_turn = matches!(owed.answer, Answer::Turn(_));
            let is_safe = self.is_over(&owed.taking.wait) && owed.taking.passes.is_empty();
            if !is_safe || (is_turn && blocked.contains(owed.to)) {
                if is_turn {
                    blocked.insert(owed.to);
                }
                self.routing.owed.push_back(owed);
                continue;
            }
            // What this shard sent before it knew what it has now taken must arrive first, or a message
            // could miss both the replay and the live way.
            self.flush_shard(owed.to);
            let message = ShardMessage(match owed.answer {
                Answer::Turn(turn) => Kind::Taken { turn },
                Answer::Pass(pass) => Kind::PassedOn { pass },
            });
            self.outputs.push_back(Output::ToShard {
                to: owed.to,
                message,
            });
        }
    }

    /// Sends this turn's batches.
    pub(crate) fn flush_shards(&mut self) {
        for shard in self.routing.others.iter() {
            self.flush_shard(shard);
        }
    }

    fn flush_shard(&mut self, to: ShardIndex) {
        let turn = self.routing.turn;
        let Some(neighbour) = self.routing.neighbours.get_mut(usize::from(to.0)) else {
            return;
        };
        if neighbour.outbox.is_empty() {
            return;
        }
        neighbour.sent_turn = turn;
        self.counters.shard_messages_sent += neighbour.outbox.len() as u64;
        let items = std::mem::take(&mut neighbour.outbox);
        let message = ShardMessage(Kind::Batch { turn, items });
        self.outputs.push_back(Output::ToShard { to, message });
        // No two batches for a shard share a number.
        self.routing.turn += 1;
    }
}
