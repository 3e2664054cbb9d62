//! Durable records of the broker and their group commit.
//!
//! Owns: what must survive a restart, as plain values ([`Record`]), and the promise of [`Store`].
//! Does not own: what the records mean to MQTT (see the engine), files (none yet), threads.
//! Start reading at [`Store`]. Invariant: a batch is durable as a whole or not at all, and batches
//! become durable in the order of their sequence numbers.

mod memory;
mod record;

pub use memory::{HeldStore, MemoryStore};
pub use record::{MessageRecord, Record, SubscriptionRecord, Target, WillRecord};

/// Number of a batch of one shard, counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seq(pub u64);

/// The durable effects of one turn of one shard.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Its number; the batches of a shard are numbered without gaps.
    pub seq: Seq,
    /// What happened, in order.
    pub records: Vec<Record>,
}

/// Where batches go.
pub trait Store {
    /// Takes over `batch`; it is durable once [`Self::durable`] has reached its number.
    /// # Errors
    /// The store can take no more; nothing of the batch is kept.
    fn append(&mut self, batch: Batch) -> Result<(), StoreError>;

    /// The number up to which every batch is durable.
    fn durable(&self) -> Seq;
}

/// Why a batch was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The batch does not follow the one before it.
    OutOfOrder {
        /// The number that was due.
        expected: Seq,
        /// The number that came.
        found: Seq,
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
        }
    }
}

impl std::error::Error for StoreError {}
