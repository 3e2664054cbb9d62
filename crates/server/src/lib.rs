//! The shard loops, the listeners, the configuration: what gives the engine bytes and time.
//!
//! Owns: sockets, clocks, threads, buffers, authentication, authorization, the way a process starts and stops.
//! Does not own: the protocol (see `proto`), sessions and subscriptions (see `engine`), what is durable
//! (see `store`). Start reading at [`Server::start`], then `shard`. Invariant: no lock but the one around the
//! open group of the log, and no allocation by a claimed length, on the way of a message.

mod activation;
pub mod authentication;
pub mod authorization;
mod bounds;
mod byte_stream;
mod common_pace;
pub mod config;
mod config_files;
mod governor;
mod listener;
mod open_files;
pub mod outbound;
mod peer;
pub mod persist;
#[cfg(feature = "quic")]
mod quic;
mod reload;
mod server;
mod shard;
mod socket_file;
mod standing;
#[cfg(test)]
mod testing;
mod tls;
mod turnstile;
mod watch;

/// For fuzz targets only.
#[doc(hidden)]
pub mod fuzzing {
    pub use crate::shard::fuzzed::{Heard, header_len, open_websocket};
}

pub use activation::ActivationError;
pub use config_files::check_files;
pub use peer::{Origin, OriginError, Peer};
pub use reload::{ReloadError, Reloaded, Reloader};
pub use server::{Server, StartError, Stopped, Stopper};
pub use socket_file::SocketFileError;
pub use tls::TlsError;
pub use watch::Watcher;
