//! What peers claim, begin and never finish, or leave behind, holds no memory: published cases of other brokers.
//!
//! Owns: cases of memory (M) and of leaks (L). Does not own: what is allowed and counted (see the tests of memory). Start
//! reading at [`Beset::grown_by`]. Invariant: what is measured is the process, which is this test's alone.

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::time::Duration;

use vencejo_server::Server;
use vencejo_server::config::Config;

use crate::canary::Canary;
use crate::client::{
    Raw, connect_flags_v5, connect_v5, connect_v311, packet, string, subscribe_v5,
};
use crate::{config, start};

/// A Server, the pair beside it, and the memory of the process.
struct Beset {
    // Goes first: a Server that stops waits for who is connected.
    canary: Canary,
    server: Server,
}

impl Beset {
    fn new(config: Config) -> Self {
        let (server, address) = start(config);
        Self {
            canary: Canary::to_the_end(address),
            server,
        }
    }

    fn address(&self) -> SocketAddr {
        self.server.listeners()[0]
    }

    /// By how much memory the process has grown once the returned of `done` is there, and is held.
    fn grown_by<T>(&self, done: impl FnOnce(&Self) -> T) -> u64 {
        let before = rss_bytes();
        let held = done(self);
        self.canary.sing();
        let grown = rss_bytes().saturating_sub(before);
        drop(held);
        grown
    }
}

/// mosquitto CVE-2017-7651, NATS CVE-2026-58210, hmq #177: a length in a CONNECT that never ends.
#[test]
fn a_claimed_length_takes_no_memory() {
    let beset = Beset::new(config(2));
    let grown = beset.grown_by(|beset| {
        let unfinished = |number: usize| {
            let mut client = Raw::open(beset.address());
            // 1,048,000 bytes, of which a few come.
            client.say(&[&[0x10, 0xC0, 0xFB, 0x3F][..], b"\x00\x04MQTT\x05\x02"].concat());
            if number.is_multiple_of(50) {
                beset.canary.sing();
            }
            client
        };
        (0..500).map(unfinished).collect::<Vec<_>>()
    });
    // Claimed are 500 MiB; what a socket takes is a few KiB.
    assert!(grown < 16 << 20, "{grown} bytes for 500 claims");
}

/// mosquitto CVE-2023-0809, sol #15: a first packet that is no CONNECT, with a length.
#[test]
fn a_first_packet_that_is_no_connect_is_over_by_its_first_byte() {
    let beset = Beset::new(config(2));
    for first_byte in [0x30, 0x82, 0x32, 0x50, 0xF0, 0xC0] {
        let mut client = Raw::open(beset.address());
        client.say(&[first_byte, 0xFF, 0xFF, 0xFF, 0x7F]);
        while !client.hear().is_empty() {}
    }
    let mut large = Raw::open(beset.address());
    large.say(&[0x10, 0xFF, 0xFF, 0xFF, 0x7F]);
    while !large.hear().is_empty() {}
    beset.canary.sing();
}

/// EMQX CVE-2021-33175, RabbitMQ CVE-2021-22116, VerneMQ CVE-2021-33176: answers that are asked for and never read.
#[test]
fn answers_that_nobody_reads_end_the_reading() {
    let beset = Beset::new(config(1));
    let grown = beset.grown_by(|beset| {
        let mut client = Raw::v311(beset.address(), "deaf");
        let second = Some(Duration::from_secs(1));
        client
            .stream
            .set_write_timeout(second)
            .expect("a socket option");
        let pings = [0xC0, 0].repeat(1 << 16);
        let mut written = 0_usize;
        // Until nothing more is taken: what has no answer is not read.
        let error = loop {
            match client.stream.write(&pings) {
                Ok(len) => written += len,
                Err(error) => break error,
            }
            assert!(written < 256 << 20, "everything is read");
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        client
    });
    assert!(grown < 64 << 20, "{grown} bytes");
}

/// mosquitto CVE-2023-28366: QoS 2 messages that are begun and never released.
#[test]
fn exchanges_of_qos_2_that_never_end_are_bounded() {
    let beset = Beset::new(config(1));
    for connect in [connect_v311("endless"), connect_v5("endless", 0, &[], &[])] {
        let mut client = Raw::open(beset.address());
        client.say(&connect);
        let is_v5 = client.hear()[1] > 2;
        let mut taken = 0;
        for packet_id in 1..=2000_u16 {
            let properties: &[u8] = if is_v5 { &[0] } else { &[] };
            let body = [&b"\x00\x01e"[..], &packet_id.to_be_bytes(), properties].concat();
            if client.stream.write_all(&packet(0x34, &body)).is_err() {
                break;
            }
        }
        loop {
            let heard = client.hear();
            match heard.first() {
                Some(0x50) => taken += 1,
                Some(0xE0) => assert_eq!(heard[2], 0x93),
                _ => break,
            }
        }
        // The Receive Maximum.
        assert!(taken <= 1024, "{taken}");
    }
    beset.canary.sing();
}

/// Moquette CVE-2026-95845, mosquitto CVE-2024-8376: Sessions and Subscriptions, plain and shared, made and left.
#[test]
fn sessions_that_are_left_are_as_many_as_there_may_be() {
    let mut limited = config(1);
    limited.limits.sessions_max = 50;
    limited.limits.subscriptions_per_session_max = 3;
    let beset = Beset::new(limited);
    let mut refused = 0;
    for number in 0..200 {
        let mut client = Raw::open(beset.address());
        let forever = b"\x11\xFF\xFF\xFF\xFF";
        client.say(&connect_flags_v5(
            0,
            &format!("left-{number}"),
            0,
            forever,
            &[],
        ));
        let connack = client.hear();
        if connack[3] == 0x97 {
            refused += 1;
            continue;
        }
        assert_eq!(connack[3], 0);
        for (filter, reason) in [
            ("a", 1),
            ("$share/g/a", 1),
            ("a/#", 1),
            ("b", 0x97),
            ("a", 1),
        ] {
            client.say(&subscribe_v5(filter, 1));
            let suback = client.hear();
            assert_eq!(
                (suback[0], suback.last()),
                (0x90, Some(&reason)),
                "{filter}"
            );
        }
        let both = [string("a"), string("$share/g/a"), string("$share/g/never")].concat();
        client.say(&packet(0xA2, &[&[0, 2, 0][..], &both].concat()));
        assert_eq!(client.hear(), [0xB0, 6, 0, 2, 0, 0, 0, 0x11]);
    }
    // Two are those of the canary.
    assert_eq!(refused, 200 - 48);
    beset.canary.sing();
}

pub(crate) fn rss_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("of this system");
    let pages = statm.split(' ').nth(1).expect("the second");
    pages.parse::<u64>().expect("a number") * 4096
}
