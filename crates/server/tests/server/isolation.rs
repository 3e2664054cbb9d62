//! What one Client does costs the others a bounded share of a turn: a canary goes on beside each flood.
//!
//! Owns: floods by Clients that are let in, storms of those that come and go. Does not own: single packets that are wrong
//! (see `vulnerabilities`), what is held in memory (see `exhaustion`). Start reading at any test. Invariant: the canary
//! judges; nothing here measures by itself.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;

use vencejo_server::Server;
use vencejo_server::config::Config;

use crate::canary::Canary;
use crate::client::{Raw, connect_flags_v5, connect_v5, connect_v311, packet, publish, string};
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

    fn address(&self) -> SocketAddr {
        self.server.listeners()[0]
    }
}

/// A SUBSCRIBE of 3.1.1 with so many filters below `prefix`, at QoS 0.
fn subscribe_many(prefix: &str, count: usize) -> Vec<u8> {
    let filters =
        (0..count).map(|number| [string(&format!("{prefix}/{number}")), vec![0]].concat());
    let body: Vec<u8> = filters.flatten().collect();
    packet(0x82, &[&[0, 1][..], &body].concat())
}

fn unsubscribe_many(prefix: &str, count: usize) -> Vec<u8> {
    let filters = (0..count).map(|number| string(&format!("{prefix}/{number}")));
    let body: Vec<u8> = filters.flatten().collect();
    packet(0xA2, &[&[0, 1][..], &body].concat())
}

/// Reads what comes until nothing does, so that nobody waits for it.
fn swallow(stream: &TcpStream) -> JoinHandle<u64> {
    let mut stream = stream.try_clone().expect("a handle");
    std::thread::spawn(move || {
        let (mut bytes, mut buffer) = (0, vec![0; 1 << 16]);
        while let Ok(len @ 1..) = stream.read(&mut buffer) {
            bytes += len as u64;
        }
        bytes
    })
}

/// Class U: 20,000 messages in few bytes, each for 200 Clients.
#[test]
fn a_flood_to_many_subscribers_leaves_room_for_others() {
    let beset = Beset::new(config(1));
    let mut readers = Vec::new();
    for number in 0..200 {
        let mut client = Raw::v311(beset.address(), &format!("reader-{number}"));
        client.subscribe("wide", 0);
        readers.push((swallow(&client.stream), client));
    }
    let mut publisher = Raw::v311(beset.address(), "publisher");
    let flood = publish("wide", 0, b"x").repeat(1000);
    for _ in 0..20 {
        publisher.say(&flood);
        beset.canary.sing();
    }
    publisher.ping();
}

/// Class U: as many Topic Filters in a packet as there may be, again and again, from several at once.
#[test]
fn packets_of_ten_thousand_filters_leave_room_for_others() {
    let beset = Beset::new(config(2));
    let mut greedy: Vec<_> = (0..4)
        .map(|number| Raw::v311(beset.address(), &format!("greedy-{number}")))
        .collect();
    for _ in 0..3 {
        for (number, client) in greedy.iter_mut().enumerate() {
            client.say(&subscribe_many(&format!("many/{number}"), 10_000));
            // What comes behind it is done behind it.
            client.say(&publish(&format!("many/{number}/9999"), 0, b"mine"));
        }
        for (number, client) in greedy.iter_mut().enumerate() {
            let suback = client.hear();
            assert_eq!((suback[0], suback.len()), (0x90, 10_000 + 2 + 3));
            assert_eq!(
                client.hear(),
                publish(&format!("many/{number}/9999"), 0, b"mine")
            );
        }
        beset.canary.sing();
        for (number, client) in greedy.iter_mut().enumerate() {
            client.say(&unsubscribe_many(&format!("many/{number}"), 10_000));
        }
        for client in &mut greedy {
            assert_eq!(client.hear(), [0xB0, 2, 0, 1]);
        }
        beset.canary.sing();
    }
}

/// Class U: a Session with as many Subscriptions as it may have is taken over, resumed and ended.
#[test]
fn a_session_of_ten_thousand_subscriptions_comes_and_goes_beside_others() {
    let beset = Beset::new(config(1));
    for _ in 0..5 {
        let connect = connect_flags_v5(0x02, "heavy", 0, b"\x11\x00\x00\x00\x3C", &[]);
        let mut heavy = Raw::open(beset.address());
        heavy.say(&connect);
        assert_eq!(heavy.hear()[3], 0);
        let filters =
            (0..10_000).map(|n| [string(&format!("$share/g/heavy/{n}")), vec![0]].concat());
        let body: Vec<u8> = filters.flatten().collect();
        heavy.say(&packet(0x82, &[&[0, 1, 0][..], &body].concat()));
        assert_eq!(heavy.hear()[0], 0x90);
        // Taken over, then lost, then resumed; the next round ends it by Clean Start.
        for _ in 0..3 {
            let connect = connect_flags_v5(0x00, "heavy", 0, b"\x11\x00\x00\x00\x3C", &[]);
            let mut again = Raw::open(beset.address());
            again.say(&connect);
            let connack = again.hear();
            assert_eq!((connack[0], connack[2], connack[3]), (0x20, 1, 0));
        }
        beset.canary.sing();
    }
}

/// Class U: `#` over 20,000 retained messages, by several who join at once.
#[test]
fn replays_of_everything_retained_leave_room_for_others() {
    let beset = Beset::new(config(2));
    let mut publisher = Raw::v311(beset.address(), "publisher");
    for thousand in 0..20 {
        let mut all = Vec::new();
        for number in 0..1000 {
            let topic = format!("retained/{thousand}/{number}");
            all.extend(packet(0x31, &[&string(&topic)[..], b"x"].concat()));
        }
        publisher.say(&all);
    }
    publisher.ping();
    let mut joining: Vec<_> = (0..5)
        .map(|number| Raw::v311(beset.address(), &format!("joining-{number}")))
        .collect();
    for client in &mut joining {
        client.say(&packet(
            0x82,
            &[&[0, 1][..], &string("retained/#"), &[0]].concat(),
        ));
    }
    for client in &mut joining {
        assert_eq!(client.hear(), [0x90, 3, 0, 1, 0]);
        for _ in 0..20_000 {
            assert_eq!(client.hear()[0], 0x31);
        }
        beset.canary.sing();
    }
}

/// Classes U and M: 1,000 Clients vanish at one moment, and each has a Will that 50 others get.
#[test]
fn a_thousand_wills_at_once_leave_room_for_others() {
    let beset = Beset::new(config(2));
    let mut readers = Vec::new();
    for number in 0..50 {
        let mut client = Raw::v311(beset.address(), &format!("reader-{number}"));
        client.subscribe("wills/+", 0);
        readers.push(client);
    }
    let mut doomed = Vec::new();
    for number in 0..1000 {
        let mut client = Raw::open(beset.address());
        let will = [string(&format!("wills/{number}")), string("gone")].concat();
        let body = [
            &b"\x00\x04MQTT\x04\x06\x00\x00"[..],
            &string(&format!("doomed-{number}")),
            &will,
        ]
        .concat();
        client.say(&packet(0x10, &body));
        doomed.push(client);
    }
    for client in &mut doomed {
        assert_eq!(client.hear(), [0x20, 2, 0, 0]);
    }
    drop(doomed);
    for client in &mut readers {
        for _ in 0..1000 {
            assert_eq!(client.hear()[0], 0x30);
        }
    }
    beset.canary.sing();
}

/// Class U: more connections than are written in one turn all get what is for them, in order.
#[test]
fn what_is_for_more_connections_than_one_turn_writes_arrives_in_order() {
    let beset = Beset::new(config(1));
    let mut readers = Vec::new();
    for number in 0..2500 {
        let mut client = Raw::open(beset.address());
        client.say(&connect_v311(&format!("reader-{number}")));
        client.say(&packet(
            0x82,
            &[&[0, 1][..], &string("wide"), &[0]].concat(),
        ));
        readers.push(client);
    }
    for client in &mut readers {
        assert_eq!(client.hear(), [0x20, 2, 0, 0]);
        assert_eq!(client.hear(), [0x90, 3, 0, 1, 0]);
    }
    let mut publisher = Raw::v311(beset.address(), "publisher");
    for number in 0..5 {
        publisher.say(&publish("wide", 0, &[number]));
    }
    for client in &mut readers {
        for number in 0..5 {
            assert_eq!(client.hear(), publish("wide", 0, &[number]));
        }
    }
    beset.canary.sing();
}

/// Promise P20: a storm of Clients that connect, each with a Session of its own, at once and again and again.
#[test]
fn a_storm_of_connects_leaves_room_for_others() {
    let beset = Beset::new(config(2));
    let address = beset.address();
    for round in 0..3 {
        let mut storm = Vec::new();
        for number in 0..1000 {
            let mut client = Raw::open(address);
            let flags = if round == 0 { 0x02 } else { 0x00 };
            let name = format!("storm-{number}");
            client.say(&connect_flags_v5(
                flags,
                &name,
                0,
                b"\x11\x00\x00\x00\x3C",
                &[],
            ));
            storm.push(client);
        }
        for client in &mut storm {
            assert_eq!(client.hear()[3], 0, "let in");
        }
        beset.canary.sing();
    }
}

/// mosquitto CVE-2021-41039, class U: User Properties of one byte, as many as a packet holds.
#[test]
fn a_packet_full_of_user_properties_ends_its_connection_only() {
    let beset = Beset::new(config(1));
    let properties = b"\x26\x00\x01n\x00\x01v".repeat(140_000);
    let mut section = Vec::new();
    let mut rest = properties.len();
    while rest > 0 {
        let more = if rest > 127 { 0x80 } else { 0 };
        section.push(u8::try_from(rest & 0x7F).expect("7 bits") | more);
        rest >>= 7;
    }
    let body = [&b"\x00\x01a"[..], &section, &properties].concat();
    let flood = packet(0x30, &body);
    for _ in 0..20 {
        let mut client = Raw::open(beset.address());
        client.say(&connect_v5("attacker", 0, &[], &[]));
        assert_eq!(client.hear()[0], 0x20);
        client.stream.write_all(&flood).unwrap_or_default();
        let disconnect = client.hear();
        assert_eq!((disconnect[0], disconnect[2]), (0xE0, 0x97));
    }
    beset.canary.sing();
}

/// SUBSCRIBEs of 50 filters each, `count` of them.
fn subscribe_often(who: &str, count: usize) -> Vec<u8> {
    let packets = (0..count).map(|_| subscribe_many(who, 50));
    packets.flatten().collect()
}

/// Clients that say a lot at once and read nothing.
struct Crowd(Vec<Raw>);

impl Crowd {
    fn new(address: SocketAddr, count: usize) -> Self {
        let raw = |number| Raw::v311(address, &format!("crowd-{number}"));
        Self((0..count).map(raw).collect())
    }

    /// As much as each of their sockets takes is enough.
    fn say(&mut self, packets: usize) {
        for (number, one) in self.0.iter_mut().enumerate() {
            one.stream.set_nonblocking(true).expect("a socket");
            let said = subscribe_often(&format!("crowd/{number}"), packets);
            assert!(one.stream.write(&said).expect("a socket") > 0);
        }
    }

    /// How many of their SUBSCRIBEs were answered since it was asked for the last time.
    fn answered(&mut self) -> usize {
        let mut bytes = 0;
        for one in &mut self.0 {
            while let Ok(len @ 1..) = one.stream.read(&mut [0; 4096]) {
                bytes += len;
            }
        }
        bytes / SUBACK_OF_50
    }
}

/// Bytes of a SUBACK for 50 filters.
const SUBACK_OF_50: usize = 54;

/// Class U: who says a few words is not behind all that a crowd has to say. Counted, not timed.
#[test]
fn few_words_go_before_a_crowd_that_is_not_done() {
    let (_server, address) = start(config(1));
    let mut quiet = Raw::v311(address, "quiet");
    let mut crowd = Crowd::new(address, 60);
    crowd.say(60);
    // By then each of the crowd has been heard once.
    quiet.ping();
    let mut most = 0;
    for _ in 0..5 {
        crowd.answered();
        quiet.ping();
        most = most.max(crowd.answered());
    }
    // In one round each of the crowd has some 5 of its packets handled, and in one turn all of them have some 80.
    assert!(most < 800, "{most} before a ping");
}

/// Class U: the same where it has waited as little as each of the crowd: in front of it are a few packets of each, not all
/// that each has said. Counted, not timed.
#[test]
fn few_words_wait_for_a_slice_of_each_in_front_of_them() {
    let (_server, address) = start(config(1));
    let mut quiet = Raw::v311(address, "quiet");
    let mut crowd = Crowd::new(address, 200);
    crowd.say(20);
    quiet.ping();
    let answered = crowd.answered();
    // Two packets of each, and in each of the turns in which these are handled some 20 of those that had their slice.
    assert!(answered < 1_500, "{answered} of 4,000 before a ping");
}
