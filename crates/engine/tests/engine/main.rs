//! The engine as the server sees it: doors in, outputs out, no sockets and no clock.
#![allow(clippy::panic, reason = "a test that finds something else has failed")]

mod barrier_property;
mod bounds;
mod chaos;
mod crashes;
mod discards;
mod durability;
mod endings;
mod exactly_once;
mod flow;
mod full;
mod handshakes;
mod levels;
mod listener_limits;
mod owners;
mod property;
mod publish;
mod recovery;
mod regressions;
mod relimited;
mod restarts;
mod retained;
mod retained_crash;
mod retained_property;
mod rights;
mod sessions;
mod shards;
mod shared_away;
mod shared_property;
mod slices;
mod spilled;
mod spilled_property;
mod storage_low;
mod subscriptions;
mod wills;
mod world;
