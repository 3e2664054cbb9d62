//! Durable records of the broker: what they are, how they reach the disk, how they come back.
//!
//! Owns: what must survive a restart, as plain values ([`Record`]), the promise of [`Store`], the log.
//! Does not own: what the records mean to MQTT (see the engine), threads (see the server).
//! Start reading at [`Store`]. Invariants: a batch is durable as a whole or not at all; batches become
//! durable in the order in which they were appended, those of other shards included: what was appended
//! before a durable batch is durable.

mod alarms;
pub mod codec;
pub mod disk;
mod group;
mod index;
mod log;
mod memory;
mod record;
mod recovered;
mod restoring;
#[cfg(test)]
mod testing;

pub use alarms::{Alarm, Alarms};
pub use group::EncodedGroup;
pub use index::{Counts, HashKeys, Index, Kept, Location};
pub use log::{
    Checked, Cleaned, Damage, DamageKind, KindStat, Log, LogError, LogOptions, LogReader,
    LogStatus, OpenError, Recovered, RecoveryMode, RecoveryReport, SalvageError, Salvaged,
    SegmentStat, Stat, TornTail, check, salvage, stat,
};
pub use memory::{HeldStore, MemoryStore};
pub use record::{
    Expiry, MessageRecord, Origin, OwnerRecord, PeerRecord, Record, SessionId, SessionRecord,
    SubscriptionRecord, Target, UnixMillis, WillRecord,
};
pub use recovered::{QueueExtent, RestoredSession};
pub use restoring::Restoring;

/// Number of a batch of one shard, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// How safe something has to be before it is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// In this process: gone when it ends.
    Memory,
    /// Handed to the operating system: survives the end of the process, not a loss of power.
    Written,
    /// On the disk: survives a loss of power.
    #[default]
    Synced,
}

/// The durable effects of one turn of one shard.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Its number; the batches of a shard are numbered without gaps.
    pub seq: Seq,
    /// What happened, in order.
    pub records: Vec<Record>,
    /// The level its records ask for at most; a batch of [`Level::Written`] need not be synced for
    /// itself.
    pub level: Level,
}

/// Where the batches of one shard go.
pub trait Store {
    /// Takes over `batch`; it is durable once [`Self::durable`] has reached its number. Never waits.
    /// # Errors
    /// The store can take no more; nothing of the batch is kept.
    fn append(&mut self, batch: Batch) -> Result<(), StoreError>;

    /// The number up to which every batch is handed to the operating system.
    fn written(&self) -> Seq;

    /// The number up to which every batch is durable.
    fn durable(&self) -> Seq;

    /// Whether so much waits to be written that publishers should not be read for now.
    fn is_pressed(&self) -> bool {
        false
    }

    /// Bytes of what waits to be written, of all shards.
    fn held_bytes(&self) -> usize {
        0
    }

    /// Whether the disk runs low: nothing that makes the log grow should be accepted for now.
    fn is_low(&self) -> bool {
        false
    }

    /// Asks for queued messages. The answer comes from [`Self::poll_loaded`], later or at once.
    fn load(&mut self, load: Load);

    /// The next answer to [`Self::load`].
    fn poll_loaded(&mut self) -> Option<Loaded>;
}

/// Which messages of a Session's queue are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// Whose queue.
    pub session: SessionId,
    /// The lowest number wanted.
    pub from_seq: u64,
    /// No more messages than this.
    pub messages_max: usize,
    /// No more bytes than this, but at least one message.
    pub bytes_max: usize,
}

/// Messages of a Session's queue, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Whose.
    pub session: SessionId,
    /// What was asked for.
    pub from_seq: u64,
    /// Those found. Fewer than asked for if the rest is not written yet or does not exist.
    pub messages: Vec<LoadedMessage>,
}

/// A message of a Session's queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedMessage {
    /// Its number, its QoS and the rest of what is particular to this Session.
    pub target: Target,
    /// The message.
    pub message: MessageRecord,
}

/// Why a batch was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The batch does not follow the one before it.
    OutOfOrder {
        /// The number that was due.
        expected: Seq,
        /// The number that came.
        found: Seq,
    },
    /// The disk has failed: nothing is known of what was not durable by then.
    Failed {
        /// What happened.
        error: String,
    },
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OutOfOrder { expected, found } => {
                write!(
                    f,
                    "batch {} came where batch {} was due",
                    found.0, expected.0
                )
            }
            Self::Failed { error } => write!(f, "the store has failed: {error}"),
        }
    }
}

impl std::error::Error for StoreError {}
