//! Mistakes planted in the Server, to see that the checker finds them.
//!
//! Owns: [`Bug`], what each does to records. Does not own: where the others act (see `disk`, `world`).
//! Start reading at [`Bug`]. Invariant: without a bug nothing here changes anything.

use store::{Record, SessionId};

/// A mistake that the Server could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// What is written is called durable before it is synced.
    AckBeforeSync,
    /// Syncing a folder does nothing.
    SkipDirectorySync,
    /// Every third sync of a file does nothing.
    SkipSync,
    /// A sync that failed counts as one that did not.
    IgnoreSyncError,
    /// The last record of a batch of several is dropped.
    DropLastRecord,
    /// That PUBREC came is not recorded.
    ForgetPubrec,
    /// Packet Identifiers of QoS 2 messages from Clients are not recorded.
    ForgetInbound,
    /// Every fifth acknowledgement of a queued message is not recorded.
    ForgetDequeue,
    /// Every third Subscription is not recorded.
    ForgetSubscription,
    /// That a Subscription was removed is not recorded.
    ForgetUnsubscribe,
    /// Every third retained message is not recorded.
    ForgetRetained,
    /// That a Will Message was published is not recorded.
    ForgetWillPublished,
    /// Every third Will Message is not recorded.
    ForgetWill,
    /// After a restart, Sessions are numbered from 1 again.
    NumberSessionsAgain,
    /// Clients are served before the shards know what the others have restored.
    ServeBeforeReady,
    /// Every tenth message from one shard to another is lost.
    LoseShardMessage,
    /// Two messages from one shard to another change places.
    SwapShardMessages,
    /// What is durable of one shard is told to all.
    TellDurableOfOthers,
    /// Two batches of one group change places.
    SwapBatches,
    /// The first message that is read from a queue on disk is left out.
    SkipLoaded,
}

impl Bug {
    /// All there are.
    pub const ALL: [Self; 20] = [
        Self::AckBeforeSync,
        Self::SkipDirectorySync,
        Self::SkipSync,
        Self::IgnoreSyncError,
        Self::DropLastRecord,
        Self::ForgetPubrec,
        Self::ForgetInbound,
        Self::ForgetDequeue,
        Self::ForgetSubscription,
        Self::ForgetUnsubscribe,
        Self::ForgetRetained,
        Self::ForgetWillPublished,
        Self::ForgetWill,
        Self::NumberSessionsAgain,
        Self::ServeBeforeReady,
        Self::LoseShardMessage,
        Self::SwapShardMessages,
        Self::TellDurableOfOthers,
        Self::SwapBatches,
        Self::SkipLoaded,
    ];

    /// What it is called on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AckBeforeSync => "ack-before-sync",
            Self::SkipDirectorySync => "skip-directory-sync",
            Self::SkipSync => "skip-sync",
            Self::IgnoreSyncError => "ignore-sync-error",
            Self::DropLastRecord => "drop-last-record",
            Self::ForgetPubrec => "forget-pubrec",
            Self::ForgetInbound => "forget-inbound",
            Self::ForgetDequeue => "forget-dequeue",
            Self::ForgetSubscription => "forget-subscription",
            Self::ForgetUnsubscribe => "forget-unsubscribe",
            Self::ForgetRetained => "forget-retained",
            Self::ForgetWillPublished => "forget-will-published",
            Self::ForgetWill => "forget-will",
            Self::NumberSessionsAgain => "number-sessions-again",
            Self::ServeBeforeReady => "serve-before-ready",
            Self::LoseShardMessage => "lose-shard-message",
            Self::SwapShardMessages => "swap-shard-messages",
            Self::TellDurableOfOthers => "tell-durable-of-others",
            Self::SwapBatches => "swap-batches",
            Self::SkipLoaded => "skip-loaded",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|bug| bug.name() == name)
    }

    /// Does to the records of a batch what this bug does. `count` counts records over the whole run.
    pub(crate) fn spoil(self, records: &mut Vec<Record>, count: &mut u64) {
        if self == Self::DropLastRecord && records.len() > 1 {
            records.pop();
        }
        records.retain(|record| {
            let Some(every) = self.forgets(record) else {
                return true;
            };
            *count += 1;
            !count.is_multiple_of(every)
        });
    }

    /// Whether such a record is one that this bug forgets, and each how many of them.
    const fn forgets(self, record: &Record) -> Option<u64> {
        match (self, record) {
            (Self::ForgetPubrec, Record::Release { .. })
            | (Self::ForgetInbound, Record::InboundPut { .. })
            | (Self::ForgetUnsubscribe, Record::SubscriptionDelete { .. })
            | (Self::ForgetWillPublished, Record::WillDelete { .. }) => Some(1),
            (Self::ForgetSubscription, Record::SubscriptionPut(_))
            | (Self::ForgetRetained, Record::RetainedPut { .. })
            | (Self::ForgetWill, Record::WillPut(_)) => Some(3),
            (Self::ForgetDequeue, Record::Dequeue { .. }) => Some(5),
            _ => None,
        }
    }

    /// The number for the next Session after a restart.
    pub(crate) fn next_session(bug: Option<Self>, found: SessionId) -> SessionId {
        match bug {
            Some(Self::NumberSessionsAgain) => SessionId(1),
            _ => found,
        }
    }
}
