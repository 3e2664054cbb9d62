//! What the process takes of the system, and what it keeps of a rush that is over: the allocator is asked for it, for an
//! idle one gives nothing back.
//!
//! Owns: the memory of a process, as the system sees it, after connections with large beginnings of CONNECT are gone; its
//! pages. Does not own: what is counted as held (see the server's `accounting`), when the allocator is asked (see its
//! `shard::giving_back`). Start reading at the first test. Invariant: nothing is said to the server while it is waited for.

use std::fs;
use std::io::Write;
use std::net::TcpStream;

use crate::program::{Served, until};

#[test]
fn memory_of_a_rush_goes_back_to_the_system_while_nothing_happens() {
    let served = Served::in_memory();
    let before = resident(&served);
    let rush: Vec<TcpStream> = (0..RUSH).map(|_| begin(&served)).collect();
    // What the last of them has said may not be read yet.
    assert!(until(
        || resident(&served) > before + RUSH * HELD_BYTES / 4 * 3
    ));
    drop(rush);
    let most = before + RUSH * HELD_BYTES / 4;
    assert!(until(|| resident(&served) < most), "{before}, {most}");
}

/// Else each of 2 MiB that is touched once is there as a whole.
#[test]
fn memory_comes_in_small_pages() {
    let served = Served::in_memory();
    let status = status(&served);
    assert!(status.contains("\nTHP_enabled:\t0\n"), "{status}");
}

/// The beginning of a CONNECT of 256 KiB; nothing follows.
fn begin(served: &Served) -> TcpStream {
    let address = format!("127.0.0.1:{}", served.port);
    let mut stream = TcpStream::connect(address).expect("it listens");
    let mut bytes = vec![0x10, 0x80, 0x80, 0x10];
    bytes.extend_from_slice(b"\x00\x04MQTT");
    bytes.resize(HELD_BYTES, 4);
    stream.write_all(&bytes).expect("is taken");
    stream
}

/// Bytes of memory of its own.
fn resident(served: &Served) -> usize {
    let status = status(served);
    let line = status.lines().find(|line| line.starts_with("RssAnon:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().nth(1));
    let kibibytes: usize = kibibytes.expect("a figure").parse().expect("a number");
    kibibytes * 1024
}

/// What the system says of it.
fn status(served: &Served) -> String {
    let path = format!("/proc/{}/status", served.process.pid());
    fs::read_to_string(path).expect("it runs")
}

/// So many connections, less together than what those that have not logged in may hold.
const RUSH: usize = 80;
/// What each of them has said.
const HELD_BYTES: usize = 200_000;
