//! The Server over real sockets on loopback: what only sockets and threads can show.
//!
//! Owns: nothing but tests. Start reading at [`start`], then any test.
//! Invariant: every test waits for a condition with a deadline, never for a time.
#![allow(
    clippy::panic,
    reason = "a test fails by a panic, also in what tests share"
)]

mod accounting;
mod asking;
mod authority;
mod authorizing;
mod canary;
mod client;
mod connections;
mod delivery;
#[cfg(all(
    feature = "postgres",
    feature = "mysql",
    feature = "redis",
    feature = "ldap"
))]
mod directories;
mod durable;
mod ending_certificates;
mod exhaustion;
mod expiring;
mod http_logins;
mod http_rights;
mod ipv6;
mod isolation;
mod key_rotation;
mod limits;
mod links;
mod listeners;
mod logins;
mod memory;
mod mounting;
mod naming;
mod open_files;
mod operating;
mod own_rights;
mod proxied;
mod published;
#[cfg(feature = "quic")]
mod quic;
mod rates;
mod relimiting;
mod reload_under_load;
mod reloading;
mod rounds;
mod scram;
mod service;
mod sniffing;
mod stopping;
mod storage;
mod tls;
mod unix;
mod vulnerabilities;
mod watching;
mod websocket;
mod withheld;

use std::net::SocketAddr;
use std::num::NonZeroU16;

use vencejo_server::Server;
use vencejo_server::config::{Config, StorageConfig};

/// A configuration for a free port on loopback, with everything in memory.
fn config(shards: u16) -> Config {
    Config {
        listeners: vec![([127, 0, 0, 1], 0).into()],
        shards: NonZeroU16::new(shards).expect("at least one shard"),
        storage: StorageConfig::memory(),
        ..Config::default()
    }
}

fn start(config: Config) -> (Server, SocketAddr) {
    let server = Server::start(config).expect("the Server starts");
    let address = server.listeners()[0];
    (server, address)
}
