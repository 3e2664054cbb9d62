//! One Network Connection: what may be sent when, limits both ways, Keep Alive, Topic Aliases.
//!
//! Owns: [`ServerConnection`], [`ClientConnection`], their errors and what they hand in and out.
//! Does not own: sockets, clocks, the Session (see `session`), other clients.
//! Start reading at [`ServerConnection::next_event`]. Invariant: dies with the socket; nothing of it
//! is carried to the next Network Connection, [MQTT-3.3.2-7].

mod client;
mod error;
mod outgoing;
mod server;
mod topic_alias;

pub use client::{
    ClientConnection, ClientError, ClientEvent, ClientSession, ClientTimeouts, SendError,
};
pub use error::ConnectionError;
pub use outgoing::{Delivery, DeliveryRef, Outgoing};
pub use server::{Event, SHORT_ACK_BYTES, ServerConnection, ServerLimits, is_publish};
