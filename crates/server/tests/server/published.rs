//! Published cases of memory (M), leaks (L), depth (R), computing time (U) and durability (D), done to our sockets with a
//! healthy pair beside them; those that have a room of their own are there (`exhaustion`, `isolation`, `memory`, `rounds`).
//!
//! Owns: one test a case. Does not own: crashes, rights (see `vulnerabilities`). Start reading at [`Beset`]. Invariant: a
//! case says whose it was.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use store::disk::fault::{FaultDisk, FaultPlan};
use vencejo_server::Server;
use vencejo_server::config::{Config, ListenerConfig, StorageConfig, Transport};

use crate::canary::Canary;
use crate::client::{
    Raw, connect_flags_v5, connect_v5, connect_v311, packet, publish, string, subscribe_v5,
};
use crate::exhaustion::rss_bytes;
use crate::{config, start};

/// A Server, and the pair beside what is done to it.
struct Beset {
    // Goes first: a Server that stops waits for who is connected.
    canary: Canary,
    server: Server,
}

impl Beset {
    fn new(config: Config) -> Self {
        let (server, address) = start(config);
        Self {
            canary: Canary::new(address),
            server,
        }
    }

    fn on(disk: &FaultDisk) -> Self {
        let config = Config {
            storage: StorageConfig {
                segment_bytes: 256 * 1024,
                ..StorageConfig::default()
            },
            ..config(2)
        };
        let server = Server::start_on(config, disk.clone()).expect("the Server starts");
        Self {
            canary: Canary::new(server.listeners()[0]),
            server,
        }
    }

    fn address(&self) -> SocketAddr {
        self.server.listeners()[0]
    }

    /// Ends as if its process did, and comes back with what is on the disk after a loss of power.
    fn without_power(self, disk: &FaultDisk) -> Self {
        let after = disk.crash(7);
        let Self { canary, server } = self;
        drop(canary);
        drop(server);
        Self::on(&after)
    }
}

/// CONNECT of 3.1.1 without Clean Session.
fn connect_kept(client_id: &str) -> Vec<u8> {
    packet(
        0x10,
        &[&b"\x00\x04MQTT\x04\x00\x00\x00"[..], &string(client_id)].concat(),
    )
}

/// PUBLISH of 5.0 at QoS 1 without properties; the Reason Code of its PUBACK.
fn answer(client: &mut Raw, first_byte: u8, topic: &str) -> u8 {
    let body = [&string(topic)[..], &[0, 9, 0], b"x"].concat();
    client.say(&packet(first_byte, &body));
    let puback = client.hear();
    assert_eq!(puback[0], 0x40, "{puback:?}");
    puback.get(4).copied().unwrap_or(0)
}

/// Class R, promise P9: mosquitto CVE-2019-11779, Moquette CVE-2026-95844. More levels than are taken are refused by each
/// packet that can bring them, with the Reason Code that says so.
#[test]
fn depth_is_refused_by_whatever_packet_it_comes() {
    let beset = Beset::new(config(2));
    let deep = "/".repeat(65_400);
    let mut client = Raw::v5(beset.address(), "deep", 0);
    client.say(&subscribe_v5(&deep, 1));
    assert_eq!(client.hear(), [0x90, 4, 0, 1, 0, 0x8F]);
    client.say(&packet(0xA2, &[&[0, 2, 0][..], &string(&deep)].concat()));
    assert_eq!(client.hear(), [0xB0, 4, 0, 2, 0, 0x11], "was never there");
    assert_eq!(answer(&mut client, 0x32, &deep), 0x90);
    assert_eq!(answer(&mut client, 0x33, &deep), 0x90, "nor retained");
    let will = [&[0][..], &string(&deep), &string("w")].concat();
    let mut dies = Raw::open(beset.address());
    dies.say(&connect_flags_v5(0x06, "dies", 0, &[], &will));
    assert_eq!(dies.hear()[3], 0x90);
    client.say(&[0xC0, 0]);
    assert_eq!(client.hear(), [0xD0, 0]);
    beset.canary.sing();
}

/// The same where the operator allows whatever MQTT can say: it is matched, retained, replayed and removed without a stack.
#[test]
fn depth_that_is_allowed_is_matched_beside_others() {
    let mut allowed = config(2);
    allowed.limits.topic_levels_max = 65_535;
    let beset = Beset::new(allowed);
    let deep = "/".repeat(65_000);
    let wild = "+/".repeat(32_000);
    for (filter, topic) in [(&deep, &deep), (&wild, &"/".repeat(32_000))] {
        let mut client = Raw::v5(beset.address(), "deep", 0);
        client.say(&subscribe_v5(filter, 0));
        assert_eq!(client.hear(), [0x90, 4, 0, 1, 0, 0]);
        client.say(&packet(
            0x31,
            &[&string(topic)[..], &[0], b"retained"].concat(),
        ));
        let heard = client.hear();
        assert!(heard[0] == 0x30 && heard.ends_with(b"retained"));
        beset.canary.sing();
        let mut late = Raw::v5(beset.address(), "late", 0);
        late.say(&subscribe_v5(filter, 0));
        assert_eq!(late.hear()[0], 0x90);
        let heard = late.hear();
        assert!(heard[0] == 0x31 && heard.ends_with(b"retained"));
        client.say(&packet(0xA2, &[&[0, 2, 0][..], &string(filter)].concat()));
        assert_eq!(client.hear(), [0xB0, 4, 0, 2, 0, 0]);
        client.say(&packet(0x31, &[&string(topic)[..], &[0]].concat()));
        client.say(&[0xC0, 0]);
        assert_eq!(client.hear(), [0xD0, 0]);
        beset.canary.sing();
    }
}

/// Class M, promise P6: NATS CVE-2026-58210, GO-2026-4533: what comes by WebSocket before a login.
#[test]
fn what_comes_by_websocket_before_a_login_has_a_budget() {
    const REQUEST: &[u8] =
        b"GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";
    let mut narrow = config(2);
    narrow.bounds.unauthenticated_bytes_max = 1 << 20;
    narrow.listeners.push(ListenerConfig {
        name: "web".to_owned(),
        transport: Transport::WebSocket,
        ..([127, 0, 0, 1], 0).into()
    });
    let beset = Beset::new(narrow);
    let web = beset.server.listeners()[1];
    let before = rss_bytes();
    // A frame of 1,000,000 bytes with a CONNECT of as many, of which a fifth comes.
    let frame = [0x82, 0xFF, 0, 0, 0, 0, 0, 0x0F, 0x42, 0x40, 0, 0, 0, 0];
    let beginning = [
        &frame[..],
        b"\x10\xBC\x84\x3D\x00\x04MQTT\x05\x02\x00\x00\x00\xFF\xFF",
    ]
    .concat();
    let held: Vec<Raw> = (0..100)
        .map(|_| {
            let mut peer = Raw::open(web);
            peer.say(REQUEST);
            // It may have been ended before all is said.
            peer.stream.write_all(&beginning).unwrap_or_default();
            peer.stream.write_all(&[b'x'; 200_000]).unwrap_or_default();
            peer
        })
        .collect();
    beset.canary.sing();
    Raw::v5(beset.address(), "one more", 0).ping();
    let grown = rss_bytes().saturating_sub(before);
    drop(held);
    assert!(grown < 12 << 20, "{grown} bytes of 20 MB that were said");
}

/// Class U: tungstenite before 0.20.1: a header of WebSocket that is long.
#[test]
fn a_request_of_websocket_without_an_end_is_refused_beside_others() {
    let mut web = config(1);
    web.listeners.push(ListenerConfig {
        name: "web".to_owned(),
        transport: Transport::WebSocket,
        ..([127, 0, 0, 1], 0).into()
    });
    let beset = Beset::new(web);
    for piece in [&b"x"[..], b"\r\na: b", b"\r\n", b": "] {
        let mut peer = Raw::open(beset.server.listeners()[1]);
        peer.say(b"GET /mqtt HTTP/1.1\r\nHost: a");
        // It is refused before all of it is said.
        let all = piece.repeat(1 << 20);
        peer.stream.write_all(&all).unwrap_or_default();
        let mut heard = Vec::new();
        peer.stream.read_to_end(&mut heard).unwrap_or_default();
        assert!(!heard.starts_with(b"HTTP/1.1 101"), "{piece:?}");
        beset.canary.sing();
    }
}

/// Class M: mosquitto CVE-2020-13849: a Keep Alive as long as the attacker likes, or none.
#[test]
fn a_keep_alive_is_no_longer_than_the_server_says() {
    let mut strict = config(2);
    strict.limits.server_keep_alive_max_seconds = Some(1);
    let beset = Beset::new(strict);
    for asked in [0, u16::MAX] {
        let mut client = Raw::open(beset.address());
        client.say(&connect_v5("stays", asked, &[], &[]));
        let connack = client.hear();
        let told = Instant::now();
        assert!(
            connack.windows(3).any(|bytes| bytes == [0x13, 0, 1]),
            "{connack:?}"
        );
        let end = client.hear();
        assert_eq!((end[0], end[2]), (0xE0, 0x8D), "{end:?}");
        let after = told.elapsed();
        assert!(after >= Duration::from_millis(1400), "{after:?}");
        assert!(client.is_at_end());
        beset.canary.sing();
    }
}

/// Class L: the notes of mosquitto 2.0.19 and 2.0.21: a SUBSCRIBE that is refused in the middle.
#[test]
fn subscribes_that_are_refused_leave_nothing() {
    let beset = Beset::new(config(1));
    let good: Vec<u8> = (0..20)
        .flat_map(|number| [&string(&format!("left/{number}/+"))[..], &[1]].concat())
        .collect();
    let shared: Vec<u8> = (0..20)
        .flat_map(|number| [&string(&format!("$share/g{number}/left/#"))[..], &[1]].concat())
        .collect();
    // Behind many that are right: a wildcard that is none, reserved bits, no end.
    let ends = [
        [&string("a/#/b")[..], &[1]].concat(),
        [&string("a")[..], &[0xC0]].concat(),
        vec![0, 9, b'a'],
    ];
    let round = |number: usize| {
        let mut client = Raw::open(beset.address());
        client.say(&connect_v311("refused"));
        assert_eq!(client.hear(), [0x20, 2, 0, 0]);
        let end = &ends[number % ends.len()];
        client.say(&packet(0x82, &[&[0, 1][..], &good, &shared, end].concat()));
        assert!(client.is_at_end());
    };
    (0..300).for_each(round);
    let before = rss_bytes();
    (0..1500).for_each(round);
    let grown = rss_bytes().saturating_sub(before);
    assert!(grown < 2 << 20, "{grown} bytes after 1500");
    beset.canary.sing();
}

/// Classes L and S: FlashMQ 1.26.0: a Receive Maximum of more than 32,767 is no negative number, and 0 is an error.
/// Verifies [MQTT-3.3.4-9].
#[test]
fn a_receive_maximum_is_what_it_says_whatever_it_is() {
    let beset = Beset::new(config(2));
    let mut publisher = Raw::v311(beset.address(), "publisher");
    for (number, at_once) in [(1_u16, 1), (2, 2), (0x7FFF, 5), (0x8000, 5), (0xFFFF, 5)] {
        let [high, low] = number.to_be_bytes();
        let mut client = Raw::open(beset.address());
        client.say(&connect_v5("window", 0, &[0x21, high, low], &[]));
        assert_eq!(client.hear()[3], 0);
        client.say(&subscribe_v5("window", 1));
        assert_eq!(client.hear()[0], 0x90);
        for id in 1..=5 {
            publisher.say(&publish("window", id, b"x"));
            assert_eq!(publisher.hear()[0], 0x40);
        }
        for _ in 0..at_once {
            assert_eq!(client.hear()[0], 0x32, "{number}");
        }
        client.say(&[0xC0, 0]);
        assert_eq!(client.hear(), [0xD0, 0], "{number}: no more than that");
        beset.canary.sing();
    }
    let mut client = Raw::open(beset.address());
    client.say(&connect_v5("none", 0, &[0x21, 0, 0], &[]));
    let connack = client.hear();
    assert!(connack.is_empty() || connack[3] == 0x82, "{connack:?}");
    beset.canary.sing();
}

/// Classes S and D: EMQX #16296: a Packet Identifier that is in use is not given to another message, not even after a loss of
/// power.
#[test]
fn packet_identifiers_in_use_are_not_given_again_after_a_loss_of_power() {
    let disk = FaultDisk::new(16, FaultPlan::default());
    let beset = Beset::on(&disk);
    let mut keeper = Raw::open(beset.address());
    keeper.say(&connect_kept("keeper"));
    assert_eq!(keeper.hear(), [0x20, 2, 0, 0]);
    keeper.subscribe("a", 1);
    let mut publisher = Raw::v311(beset.address(), "publisher");
    let say = |publisher: &mut Raw, id: u16| {
        publisher.say(&publish("a", id, &id.to_be_bytes()));
        assert_eq!(publisher.hear()[0], 0x40);
    };
    let identifier = |packet: &[u8]| (packet[5], packet[6]);
    (1..=3).for_each(|id| say(&mut publisher, id));
    let sent: Vec<_> = (0..3).map(|_| keeper.hear()).collect();
    beset.canary.sing();
    let beset = beset.without_power(&disk);
    let mut keeper = Raw::open(beset.address());
    keeper.say(&connect_kept("keeper"));
    assert_eq!(keeper.hear(), [0x20, 2, 1, 0]);
    let mut publisher = Raw::v311(beset.address(), "publisher");
    (4..=6).for_each(|id| say(&mut publisher, id));
    let again: Vec<_> = (0..6).map(|_| keeper.hear()).collect();
    for (before, after) in sent.iter().zip(&again) {
        assert_eq!(identifier(before), identifier(after));
        assert_eq!(before[7..], after[7..], "the same message");
    }
    let mut identifiers: Vec<_> = again.iter().map(|packet| identifier(packet)).collect();
    identifiers.sort_unstable();
    identifiers.dedup();
    assert_eq!(identifiers.len(), 6, "{again:?}");
    beset.canary.sing();
}

/// Classes C and D: mosquitto #3702: messages that are kept for a Client that is taken away in the middle of them.
#[test]
fn what_is_kept_for_a_session_that_ends_goes_and_nothing_else() {
    let disk = FaultDisk::new(37, FaultPlan::default());
    let beset = Beset::on(&disk);
    for name in ["goes", "stays"] {
        let mut client = Raw::open(beset.address());
        client.say(&connect_kept(name));
        assert_eq!(client.hear(), [0x20, 2, 0, 0]);
        client.subscribe("a", 1);
        client.say(&[0xE0, 0]);
        assert!(client.is_at_end());
    }
    let mut publisher = Raw::v311(beset.address(), "publisher");
    for id in 1..=20 {
        publisher.say(&publish("a", id, &id.to_be_bytes()));
        assert_eq!(publisher.hear()[0], 0x40);
    }
    // In flight, and then taken over by one that wants nothing of it.
    let mut goes = Raw::open(beset.address());
    goes.say(&connect_kept("goes"));
    assert_eq!(goes.hear(), [0x20, 2, 1, 0]);
    assert_eq!(goes.hear()[0], 0x32);
    let mut clean = Raw::v311(beset.address(), "goes");
    clean.ping();
    beset.canary.sing();
    let beset = beset.without_power(&disk);
    let mut goes = Raw::open(beset.address());
    goes.say(&connect_kept("goes"));
    assert_eq!(goes.hear(), [0x20, 2, 0, 0], "it is new");
    goes.ping();
    let mut stays = Raw::open(beset.address());
    stays.say(&connect_kept("stays"));
    assert_eq!(stays.hear(), [0x20, 2, 1, 0]);
    for id in 1..=20_u16 {
        let heard = stays.hear();
        assert_eq!(heard[7..], id.to_be_bytes(), "{heard:?}");
    }
    beset.canary.sing();
}
