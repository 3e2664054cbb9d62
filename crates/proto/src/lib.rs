//! MQTT 3.1, 3.1.1 and 5.0 as values: bytes and `now` in; packets, events and deadlines out.
//!
//! Owns: packets of all three versions in one tree, Topic Names and Topic Filters, one Network
//! Connection (server and client side), the delivery state of one Session, Application Messages.
//! Does not own: sockets, clocks, threads, randomness, other clients, durable storage.
//! Start reading at [`packet::decode`], then [`connection`] and [`session`].
//! Invariant: nothing here blocks, reads a clock, or allocates by a length a peer only claimed.
#![warn(clippy::indexing_slicing, clippy::iter_over_hash_type)]

pub mod connection;
mod ledger;
pub mod message;
pub mod packet;
pub mod session;
#[cfg(test)]
mod testing;
pub mod topic;
mod version;

pub use ledger::live_message_bytes;
pub use message::Message;
pub use version::{PacketIdentifier, Qos, Secret, Version};
