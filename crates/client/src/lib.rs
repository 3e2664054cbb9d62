//! An async MQTT client for applications, on tokio: MQTT 5.0 and 3.1.1, over TCP, TLS, WebSocket, Unix sockets and QUIC.
//!
//! # From nothing to a working program
//!
//! ```sh
//! cargo new thermometer && cd thermometer
//! cargo add tokio --features macros,rt-multi-thread
//! cargo add vencejo-client --path ../vencejo/crates/client    # a clone of the repository beside it
//! vencejo &                                                   # or any other server on port 1883
//! ```
//!
//! `src/main.rs`:
//!
//! ```no_run
//! use vencejo_client::{Client, Error, Options, Publication, Qos};
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Error> {
//!     let client = Client::connect(Options::new("localhost", 1883)).await?;
//!
//!     // A stream of messages, whatever happens to the connection meanwhile.
//!     let mut temperatures = client.subscribe("sensors/+/temperature", Qos::AtLeastOnce).await?;
//!
//!     // Done when the server has it.
//!     let publication = Publication::new("sensors/kitchen/temperature", "21.5", Qos::AtLeastOnce);
//!     client.publish(publication).await?;
//!
//!     while let Some(message) = temperatures.next().await {
//!         println!("{}: {}", message.topic, String::from_utf8_lossy(&message.payload));
//!     }
//!     Ok(())
//! }
//! ```
//!
//! `cargo run` prints `sensors/kitchen/temperature: 21.5`, and then what others publish. Stop the server and start it
//! again: the program goes on.
//!
//! # From here
//!
//! - [`Options`]: who and where; [`Options::from_url`], [`Tls`], `Options::websocket`, `Options::quic`, [`Options::unix`]; a
//!   [`Will`]; proofs by [`Authenticator`].
//! - [`Client::publish`] awaits the acknowledgement, [`Client::hand_over`] does not; [`Queue`] bounds what waits;
//!   [`Outbox`] keeps it over the end of the program.
//! - [`Client::subscribe`] makes [`Messages`]; [`Acknowledge`] says when they are acknowledged; [`Inbox`] bounds them.
//! - [`Client::request`] and [`Client::respond`]: questions and answers.
//! - [`Client::state`]: the connection, as a value to watch; [`Reconnect`]: when it is made again.
//! - [`Error`]: who has to act, the caller, the server or the network.
//! - [`blocking`]: the same without an async runtime.
//! - [`Connection`]: one connection, for programs that decide themselves what its end means.
//!
//! What is promised when a connection breaks, and how that is shown: `docs/client.md` of the repository.
//!
//! Owns: the public names. Does not own: the protocol (see `proto::connection::ClientConnection`).
//! Start reading at [`Client`]. Invariant: a message above QoS 0 is acknowledged when the application has taken it, not
//! earlier, and in order.

mod authentication;
pub mod blocking;
mod bounds;
mod client;
mod connection;
mod core;
mod driver;
mod error;
mod fuzzed;
mod key_log;
mod message;
mod messages;
mod options;
mod outbox;
#[cfg(feature = "quic")]
mod quic;
mod run;
mod socket;
mod socks5;
mod tls;
mod url;
#[cfg(feature = "websocket")]
mod websocket;

use std::time::Instant;

/// For fuzz targets only.
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::fuzzed::Fuzzed;
}

pub use authentication::{AuthenticationError, Authenticator, Exchange, ScramSha256, Token};
pub use bounds::{Inbox, Queue, Uncertain, WhenInboxFull, WhenQueueFull};
pub use client::{Client, Handed, State};
pub use connection::{Connection, Disconnected, Event, Events, Published, Receipt, Subscription};
pub use core::Reconnect;
pub use error::{ConnectError, DisconnectCause, Error, Mistake, Outage, Refusal, RequestError};
pub use message::{Publication, ReceivedMessage};
pub use messages::{Acknowledge, Message, Messages};
pub use options::{Direction, Options, PacketLog};
pub use outbox::{Outbox, OutboxLevel};
pub use proto;
pub use proto::packet::{ReasonCode, Will};
pub use proto::{Qos, Secret, Version};
pub use socks5::Socks5;
pub use tls::{Tls, TlsError, TlsVersion};
pub use url::UrlError;

fn now() -> Instant {
    Instant::now()
}
