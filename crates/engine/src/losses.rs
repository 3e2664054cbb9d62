//! Messages that a Session should have had and has not, by reason.
//!
//! Owns: [`Loss`], [`Lost`], the counts of each Session, what the log is told now and then. Does not own: when something is
//! lost (see `queue` and `delivery`). Start reading at [`Engine::lose`].
//! Invariant: nothing is dropped on its way to a Session that is not counted there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::keys::SessionKey;
use crate::output::Output;
use crate::sessions::Session;
use crate::{ConnectionKey, Engine};

/// Why a message is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The queue of the Session was full.
    QueueFull,
    /// QoS 0, and its Client did not keep up.
    Congested,
    /// It is larger than its Client takes.
    TooLarge,
}

impl Loss {
    /// In words, for the log.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::QueueFull => "its queue is full",
            Self::Congested => "it does not keep up, at QoS 0",
            Self::TooLarge => "larger than it takes",
        }
    }
}

/// What one Session has lost since it began, or since the start of the Server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lost {
    /// Because its queue was full.
    pub queue_full: u64,
    /// At QoS 0, because its Client did not keep up.
    pub congested: u64,
    /// Because its Client does not take packets so large.
    pub too_large: u64,
}

impl Lost {
    /// All of it.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.queue_full + self.congested + self.too_large
    }
}

/// A Session that has lost messages, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loser {
    /// Its Client Identifier.
    pub client_id: Arc<str>,
    /// Its Network Connection, if it has one.
    pub connection: Option<ConnectionKey>,
    /// Why it has lost the last of them.
    pub loss: Loss,
    /// How many it has lost up to now, for whatever reason.
    pub total: u64,
}

impl Session {
    fn lost_total(&self) -> u64 {
        self.seldom().lost.as_ref().map_or(0, |lost| lost.total())
    }
}

impl Engine {
    /// A message for this Session is dropped.
    pub(crate) fn lose(&mut self, key: SessionKey, loss: Loss) {
        self.counters.publishes_dropped += 1;
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let lost = session.seldom_mut().lost.get_or_insert_default();
        let (of_session, of_all) = match loss {
            Loss::QueueFull => (&mut lost.queue_full, &mut self.counters.dropped_queue_full),
            Loss::Congested => (&mut lost.congested, &mut self.counters.dropped_congested),
            Loss::TooLarge => (&mut lost.too_large, &mut self.counters.dropped_too_large),
        };
        *of_session += 1;
        *of_all += 1;
        self.last_loss = Some((key, loss));
        self.touch(key);
    }

    /// Has the log told who has lost something last, not more often than it can be read.
    pub(crate) fn tell_loss(&mut self, now: Instant) {
        let Some((key, loss)) = self.last_loss else {
            return;
        };
        if self
            .loss_told_at
            .is_some_and(|at| now < at + TOLD_AGAIN_AFTER)
        {
            return;
        }
        self.last_loss = None;
        self.loss_told_at = Some(now);
        if let Some(session) = self.sessions.get(key) {
            let loser = Loser {
                client_id: Arc::clone(&session.client_id),
                connection: session.link.as_ref().map(|link| link.connection),
                loss,
                total: session.lost_total(),
            };
            self.outputs.push_back(Output::Lost(Box::new(loser)));
        }
    }

    /// Sessions that have lost messages, those that lost most first, `count` at most. O(Sessions).
    #[must_use]
    pub fn losers(&self, count: usize) -> Vec<(Arc<str>, Lost)> {
        let keys = self.sessions.keys();
        let sessions = keys.into_iter().filter_map(|key| self.sessions.get(key));
        let losers = sessions.filter(|session| session.lost_total() > 0);
        let mut losers: Vec<_> = losers
            .filter_map(|session| {
                Some((
                    Arc::clone(&session.client_id),
                    **session.seldom().lost.as_ref()?,
                ))
            })
            .collect();
        losers.sort_by(|one, other| {
            let by_total = other.1.total().cmp(&one.1.total());
            by_total.then_with(|| one.0.cmp(&other.0))
        });
        losers.truncate(count);
        losers
    }
}

/// One line of the log in so much time.
const TOLD_AGAIN_AFTER: Duration = Duration::from_secs(1);
