//! Delivery state of one Session (section 4.1, Session State): what outlives a Network Connection.
//!
//! Owns: Packet Identifiers of the sender, the QoS 1 and QoS 2 handshakes on both sides, the Receive
//! Maximum quota of the peer. Does not own: sockets, clocks, storage, subscriptions, queue limits.
//! Start reading at [`Outbound`] (we send) and [`Inbound`] (we receive).
//! Invariant: on one Network Connection no more PUBLISH packets above QoS 0 are unacknowledged than
//! the peer's Receive Maximum allows, and nothing that waits overtakes what is in flight.

mod inbound;
mod outbound;
mod packet_identifier;
mod spilled;

pub use inbound::{Inbound, InboundPublish};
pub use outbound::{
    Answered, Completed, InFlight, OnLoaded, Outbound, PubRecOutcome, Queued, Resend,
};
pub use spilled::Spilled;
