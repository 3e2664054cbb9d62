//! engine.
#![warn(clippy::indexing_slicing, clippy::iter_over_hash_type)]
#![allow(
    dead_code,
    unused_imports,
    reason = "used by the doors of the engine, not all there yet"
)]

mod keys;
mod retained;
mod shared_subscriptions;
mod subscriptions;

pub use keys::{ConnectionKey, SHARD_COUNT_MAX, SessionKey, ShardIndex};
pub use retained::{RetainedLimits, RetainedRefusal, Stamp};
pub use shared_subscriptions::SharedStrategy;
