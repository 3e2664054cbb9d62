//! What an idle Client costs a whole Server, as the allocator knows it.
//!
//! Owns: the bound on a connection with its Session and one Subscription. Does not own: what of it the engine holds (see
//! the engine's tests), what the system holds for a socket. Start reading at
//! [`idle_client_with_a_subscription_takes_1400_bytes_at_most`]. Invariant: one test, for the allocator counts the
//! whole process.

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::num::NonZeroU16;

use cap::Cap;
use vencejo_server::Server;
use vencejo_server::config::{Config, StorageConfig};

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// With a Session that is kept, and a topic of its own.
#[test]
fn idle_client_with_a_subscription_takes_1400_bytes_at_most() {
    let clients = rlimit::increase_nofile_limit(2 * CLIENTS_MAX + 500).expect("a limit");
    let clients = CLIENTS_MAX.min(clients.saturating_sub(500) / 2);
    let config = Config {
        listeners: vec![([127, 0, 0, 1], 0).into()],
        shards: NonZeroU16::MIN,
        storage: StorageConfig::memory(),
        ..Config::default()
    };
    let server = Server::start(config).expect("the Server starts");
    let address = server.listeners()[0];
    // What is kept once is there, and tables are as large as they are with so many.
    let before: Vec<_> = (0..clients / 2)
        .map(|number| idle(address, number))
        .collect();
    let held = ALLOCATOR.allocated();
    let more: Vec<_> = (clients / 2..clients)
        .map(|number| idle(address, number))
        .collect();
    let each = (ALLOCATOR.allocated() - held) / more.len();
    println!("{each} bytes each of {clients}");
    assert!(each <= 1_400, "{each} bytes each of {clients}");
    drop((before, more));
}

fn idle(address: SocketAddr, number: u64) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the Server accepts");
    let client_id = format!("idle-{number:06}");
    let mut packet = vec![0x10, 12 + 11, 0, 4];
    packet.extend_from_slice(b"MQTT\x04\x00\x0E\x10\x00\x0B");
    packet.extend_from_slice(client_id.as_bytes());
    let topic = format!("idle/{number:06}/set");
    packet.extend_from_slice(&[0x82, 2 + 2 + 15 + 1, 0, 1, 0, 15]);
    packet.extend_from_slice(topic.as_bytes());
    packet.push(1);
    stream.write_all(&packet).expect("the Server reads");
    let mut answers = [0; 9];
    stream.read_exact(&mut answers).expect("the Server answers");
    assert_eq!(answers, [0x20, 2, 0, 0, 0x90, 3, 0, 1, 1]);
    stream
}

/// Both ends are in this process.
const CLIENTS_MAX: u64 = 6_000;
