//! What one shard's engine is told once, at its start.
//!
//! Owns: [`Config`], [`Levels`]. Does not own: the file it may come from. Start reading at [`Config`].
//! Invariant: every shard of a process gets the same values but for `shard`: a copy of one [`Config`].

use std::sync::Arc;
use std::time::Duration;

use proto::Message;
use store::{Level, SessionId, UnixMillis};

use crate::{Limits, LimitsByListener, Rules, ShardIndex, SharedStrategy, UserTotals};

/// How this shard runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which shard this is, counted from 0.
    pub shard: ShardIndex,
    /// How many there are.
    pub shard_count: u16,
    /// Secret key of every hash over what strangers choose; the same in all shards.
    pub hash_seed: u64,
    /// Bounds and switches.
    pub limits: Arc<Limits>,
    /// What some listeners have in place of them.
    pub limits_by_listener: LimitsByListener,
    /// What users have in all shards; the same in all shards of a process.
    pub user_totals: Arc<UserTotals>,
    /// How the member of a Shared Subscription that gets a message is chosen.
    pub shared_strategy: SharedStrategy,
    /// How often `$SYS` topics are published; zero turns them off. Default 10 s.
    pub sys_interval: Duration,
    /// What `$SYS/broker/version` says.
    pub version_text: String,
    /// Response Information is this followed by the Client Identifier; `None` gives none. 3.2.2.3.15.
    pub response_topic_prefix: Option<String>,
    /// How safe something is before it is acknowledged.
    pub levels: Levels,
    /// What Clients may do, until other rules are in force.
    pub rules: Arc<Rules>,
    /// What the calendar says at the time the engine is made with.
    pub started_at: UnixMillis,
    /// No Session in the store has this number or a higher one.
    pub first_session: SessionId,
    /// Whether the store can be asked for queued messages, so that they need not stay in memory.
    pub can_load: bool,
}

impl Config {
    /// One shard of `shard_count`, everything else at its default.
    #[must_use]
    pub fn new(shard: ShardIndex, shard_count: u16, hash_seed: u64) -> Self {
        Self {
            shard,
            shard_count: shard_count.max(1),
            hash_seed,
            limits: Arc::new(Limits::default()),
            limits_by_listener: LimitsByListener::default(),
            user_totals: Arc::default(),
            shared_strategy: SharedStrategy::default(),
            sys_interval: Duration::from_secs(10),
            version_text: concat!("vencejo version ", env!("CARGO_PKG_VERSION")).to_owned(),
            response_topic_prefix: Some("response/".to_owned()),
            levels: Levels::default(),
            rules: Arc::new(Rules::allow_all()),
            started_at: UnixMillis(0),
            first_session: SessionId(1),
            can_load: false,
        }
    }
}

/// How safe something is before it is acknowledged. Default: on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    /// Sessions, their Subscriptions and handshakes, and every message that no filter names.
    /// [`Level::Memory`]: a new Session is not recorded at all, and so no message for it.
    pub default: Level,
    /// Messages whose Topic Name matches a Topic Filter; the first that matches counts.
    pub filters: Vec<(String, Level)>,
}

impl Levels {
    /// The level of a message. O(1) where there are no filters, else O(filters).
    #[must_use]
    pub fn of(&self, topic: &str) -> Level {
        self.filters
            .iter()
            .find(|(filter, _)| proto::topic::matches(filter, topic))
            .map_or(self.default, |(_, level)| *level)
    }

    /// The same of a message, whose Topic Name is looked at only where there are filters.
    pub(crate) fn of_message(&self, message: &Message) -> Level {
        if self.filters.is_empty() {
            return self.default;
        }
        self.of(message.topic())
    }

    /// What a Session that the store knows is kept at.
    pub(crate) fn of_sessions(&self) -> Level {
        self.default.max(Level::Written)
    }
}
