//! Clients of every kind come and go, again and again, and nothing of them stays.
//!
//! Owns: what a round is. Does not own: what one attack can hold (see `exhaustion`). Start reading at
//! [`rounds_of_every_kind_of_client_leave_nothing_behind`]. Invariant: what is measured is the process, which is this test's alone.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use store::MemoryStore;
use vencejo_server::Server;
use vencejo_server::authentication::{
    Attempt, Authentication, Authenticator, Decision, Exchange, Identity,
};
use vencejo_server::config::{ListenerConfig, Transport};

use crate::authority::Authority;
use crate::canary::Canary;
use crate::client::{
    Raw, connect_flags_v5, connect_v5, connect_v311, packet, publish, string, subscribe_v5,
    subscribe_v311,
};
use crate::exhaustion::rss_bytes;
use crate::tls::{Secured, any, secured, tls};
use crate::websocket::Web;

/// Lets in whoever is not called "wrong".
#[derive(Debug)]
struct AllButOne;

impl Authenticator for AllButOne {
    fn method(&self) -> Option<&str> {
        None
    }

    fn authenticate(&self, attempt: &Attempt<'_>, _: &mut Exchange) -> Option<Decision> {
        let user = attempt.user_name.unwrap_or("somebody");
        (user != "wrong").then(|| Decision::Allow {
            identity: Identity::anonymous(),
            data: None,
        })
    }
}

/// Where a Client comes in.
struct Doors {
    plain: SocketAddr,
    secure: SocketAddr,
    web: SocketAddr,
    trust: Arc<ClientConfig>,
}

/// Classes M and L: mosquitto CVE-2017-7654, CVE-2021-34431, CVE-2023-3592, FlashMQ 1.17. `ROUNDS=1000000` makes as many
/// connections of it, in some minutes if it is built for speed.
#[test]
fn rounds_of_every_kind_of_client_leave_nothing_behind() {
    let rounds = std::env::var("ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let rounds: usize = rounds.unwrap_or(6_000);
    let authority = Authority::new();
    let mut config = secured(2, tls(authority.files("a", "localhost")));
    config.listeners.push(ListenerConfig {
        name: "web".to_owned(),
        transport: Transport::WebSocket,
        ..([127, 0, 0, 1], 0).into()
    });
    config.sys_interval = Duration::from_millis(200);
    config.authentication.bans.failures_max = 0;
    let all_but_one = Authentication::new(vec![Arc::new(AllButOne)]);
    let server = Server::start_with(config, all_but_one, |_| MemoryStore::new());
    let server = server.expect("the Server starts");
    let doors = Doors {
        plain: server.listeners()[0],
        secure: server.listeners()[1],
        web: server.listeners()[2],
        trust: any(&authority),
    };
    let canary = Canary::to_the_end(doors.plain);
    let mut counted = Raw::v311(doors.plain, "watch");
    counted.subscribe("$SYS/broker/memory/#", 0);
    // All that can be kept at once is kept once: room that was made for it stays.
    for number in 0..97 {
        is_kept_for_a_second(doors.plain, &format!("round-{number}"));
    }
    removes_what_it_retained(doors.plain);
    let mut grown = Vec::new();
    for part in 0..PARTS {
        for number in 0..rounds / PARTS {
            round(&doors, number);
        }
        let held = settled(&mut counted, grown.first().map(|(held, _)| *held));
        grown.push((held, rss_bytes()));
        canary.sing();
        if std::env::var("ROUNDS").is_ok() {
            println!("{} connections: {grown:?}", (part + 1) * (rounds / PARTS));
        }
    }
    // What the allocator takes it takes in the first parts.
    let resident = grown[PARTS - 1].1.saturating_sub(grown[1].1);
    assert!(resident < 4 << 20, "{grown:?}");
}

/// Bytes held for peers, once they are no more than `before`, or have come to rest.
fn settled(watch: &mut Raw, before: Option<i64>) -> i64 {
    let began = Instant::now();
    let mut kinds = BTreeMap::new();
    loop {
        // All are said one after the other, what the program takes behind them.
        loop {
            let packet = watch.hear();
            let (topic, value) = said(&packet);
            match topic {
                "program" if kinds.len() == KINDS => break,
                "program" | "total" | "budget" | "step" => {}
                topic if topic.starts_with("steps/") => {}
                topic => drop(kinds.insert(topic.to_owned(), value.parse::<i64>().expect("bytes"))),
            }
        }
        let held: i64 = kinds.values().sum();
        // Kept Sessions have expired by then.
        let is_at_rest = began.elapsed() > Duration::from_secs(4);
        match before {
            None if is_at_rest => return held,
            Some(before) if held <= before + SLACK => return held,
            _ => {}
        }
        let patience = Duration::from_secs(30);
        assert!(
            began.elapsed() < patience,
            "{held} bytes stay, not {before:?}: {kinds:?}"
        );
    }
}

/// Topic below `$SYS/broker/memory/` and value of a PUBLISH at QoS 0.
pub(crate) fn said(packet: &[u8]) -> (&str, &str) {
    let body = &packet[2..];
    let len = usize::from(body[0]) << 8 | usize::from(body[1]);
    let text = |bytes| std::str::from_utf8(bytes).expect("a text");
    let topic = text(&body[2..2 + len]);
    let topic = topic.trim_start_matches("$SYS/broker/memory/");
    (topic, text(&body[2 + len..]))
}

/// One connection, of the kind whose turn it is.
fn round(doors: &Doors, number: usize) {
    let name = format!("round-{}", number % 97);
    let Doors { plain, web, .. } = *doors;
    match number % 16 {
        0 => in_peace(
            plain,
            &packet(
                0x10,
                &[&b"\x00\x06MQIsdp\x03\x02\x00\x00"[..], &string(&name)].concat(),
            ),
        ),
        1 => in_peace(plain, &connect_v311(&name)),
        2 => exactly_once(plain, &name),
        3 => vanishes_with_a_will(plain, &name),
        4 => is_kept_for_a_second(plain, &name),
        5 => is_not_let_in(plain, &name),
        6 => over_tls(doors, &name),
        7 => over_websocket(web, &name),
        8 => never_finishes_its_handshake(doors),
        9 => is_refused(plain, &connect_v5(&name, 0, b"\x21\x00\x00", &[])),
        10 => is_refused(
            plain,
            &connect_flags_v5(
                0x06,
                &name,
                0,
                &[],
                &[&b"\x02\x01\x02"[..], &string("w"), &string("x")].concat(),
            ),
        ),
        11 => is_refused(plain, &[0xC0, 0]),
        12 => drop(open_and_say(plain, &connect_v311(&name)[..5])),
        13 => breaks_the_protocol(plain, &name),
        14 => leaves_much_open(plain, &name),
        _ => is_taken_over(plain, &name),
    }
}

fn open_and_say(address: SocketAddr, bytes: &[u8]) -> Raw {
    let mut client = Raw::open(address);
    client.say(bytes);
    client
}

/// What is wrong is over, with or without an answer.
fn is_refused(address: SocketAddr, bytes: &[u8]) {
    let mut rest = Vec::new();
    // How it ends is not of interest here.
    open_and_say(address, bytes)
        .stream
        .read_to_end(&mut rest)
        .ok();
}

/// Subscribes, hears itself, retains something and takes it away, and leaves.
fn in_peace(address: SocketAddr, connect: &[u8]) {
    let mut client = open_and_say(address, connect);
    assert_eq!(client.hear(), [0x20, 2, 0, 0]);
    client.subscribe("rounds/1", 1);
    client.say(&publish("rounds/1", 5, b"x"));
    let both = [client.hear()[0], client.hear()[0]];
    assert!(both == [0x40, 0x32] || both == [0x32, 0x40], "{both:?}");
    client.say(&[0x40, 2, 0, 1]);
    for payload in [&b"kept"[..], b""] {
        client.say(&packet(0x31, &[&string("rounds/kept"), payload].concat()));
    }
    client.say(&[0xE0, 0]);
    assert!(client.is_at_end());
}

/// As often as removals are remembered.
fn removes_what_it_retained(address: SocketAddr) {
    let mut client = open_and_say(address, &connect_v311("remover"));
    assert_eq!(client.hear(), [0x20, 2, 0, 0]);
    for _ in 0..4_200 {
        for payload in [&b"kept"[..], b""] {
            client.say(&packet(0x31, &[&string("rounds/kept"), payload].concat()));
        }
    }
    client.ping();
}

/// A QoS 2 exchange with itself, with a Topic Alias.
fn exactly_once(address: SocketAddr, name: &str) {
    let mut client = open_and_say(address, &connect_v5(name, 0, &[], &[]));
    assert_eq!(client.hear()[3], 0);
    client.say(&subscribe_v5("rounds/2", 2));
    assert_eq!(client.hear()[0], 0x90);
    let body = [&string("rounds/2")[..], &[0, 9, 3, 0x23, 0, 1], b"x"].concat();
    client.say(&packet(0x34, &body));
    client.say(&[0x62, 2, 0, 9]);
    let mut open = 3;
    while open > 0 {
        let packet = client.hear();
        match packet[0] {
            0x34 => client.say(&[0x50, 2, 0, 1]),
            0x62 => client.say(&[0x70, 2, 0, 1]),
            0x50 => continue,
            0x70 => {}
            other => panic!("{other:#x}"),
        }
        open -= 1;
    }
    client.say(&[0xE0, 0]);
}

fn vanishes_with_a_will(address: SocketAddr, name: &str) {
    let will = [&b"\x00"[..], &string("rounds/will"), &string("x")].concat();
    let mut lost = open_and_say(address, &connect_flags_v5(0x06, name, 0, &[], &will));
    assert_eq!(lost.hear()[3], 0);
    lost.say(&subscribe_v5("$share/g/rounds/will", 1));
    assert_eq!(lost.hear()[0], 0x90);
}

/// A Session of a second, with a Subscription and a message that waits.
fn is_kept_for_a_second(address: SocketAddr, name: &str) {
    let second = [0x11, 0, 0, 0, 1];
    let mut kept = open_and_say(
        address,
        &connect_v5(&format!("kept-{name}"), 0, &second, &[]),
    );
    assert_eq!(kept.hear()[3], 0);
    kept.say(&subscribe_v5("rounds/+/later", 1));
    assert_eq!(kept.hear()[0], 0x90);
    kept.say(&[0xE0, 0]);
    assert!(kept.is_at_end());
    let mut publisher = open_and_say(address, &connect_v311(name));
    publisher.hear();
    publisher.say(&publish("rounds/4/later", 1, &[7; 200]));
    assert_eq!(publisher.hear(), [0x40, 2, 0, 1]);
}

fn is_not_let_in(address: SocketAddr, name: &str) {
    let user = [&string("wrong")[..], &string("password")].concat();
    let mut refused = open_and_say(address, &connect_flags_v5(0xC2, name, 0, &[], &user));
    assert_eq!(refused.hear()[3], 0x87);
    assert!(refused.is_at_end());
}

fn over_tls(doors: &Doors, name: &str) {
    let mut client =
        Secured::connect(doors.secure, Arc::clone(&doors.trust), name).expect("is let in");
    client.say(&subscribe_v311("rounds/6", 0));
    client.hear(5);
    client.say(&publish("rounds/6", 0, b"x"));
    assert_eq!(client.hear(13), publish("rounds/6", 0, b"x"));
    // Half of them vanish, and say nothing of it.
    if name.len().is_multiple_of(2) {
        client.say(&[0xE0, 0]);
    }
}

fn over_websocket(address: SocketAddr, name: &str) {
    let mut client = Web::over(Raw::open(address).stream, "/mqtt");
    client.say(&connect_v311(name));
    assert_eq!(client.hear(4), [0x20, 2, 0, 0]);
    client.say(&publish("rounds/7", 3, b"x"));
    assert_eq!(client.hear(4), [0x40, 2, 0, 3]);
    client.say(&[0xE0, 0]);
}

fn never_finishes_its_handshake(doors: &Doors) {
    let mut client = Secured::open(doors.secure, Arc::clone(&doors.trust), "localhost").stream;
    // It has written its first words, and waits for no answer.
    client
        .conn
        .write_tls(&mut client.sock)
        .expect("the Server reads");
    client.sock.flush().expect("a socket");
}

/// A packet with bits that have to be zero, in the middle of things.
fn breaks_the_protocol(address: SocketAddr, name: &str) {
    let mut client = open_and_say(address, &connect_v5(name, 0, &[], &[]));
    assert_eq!(client.hear()[3], 0);
    client.say(&subscribe_v5("rounds/#", 2));
    client.say(&[0x83, 2, 0, 1]);
    let mut rest = Vec::new();
    // How it ends is not of interest here.
    client.stream.read_to_end(&mut rest).ok();
}

/// QoS 2 messages that are not released, more of them to come than it takes, and half of a packet.
fn leaves_much_open(address: SocketAddr, name: &str) {
    let mut client = open_and_say(address, &connect_v311(name));
    assert_eq!(client.hear(), [0x20, 2, 0, 0]);
    client.subscribe("rounds/14", 2);
    for id in 1..=20 {
        let body = [&string("rounds/14")[..], &[0, id], &[7; 100]].concat();
        client.say(&packet(0x34, &body));
    }
    client.say(&packet(0x32, &[0; 500])[..200]);
    assert_ne!(client.hear().len(), 0);
}

fn is_taken_over(address: SocketAddr, name: &str) {
    let mut before = open_and_say(address, &connect_v311(name));
    before.hear();
    let mut after = open_and_say(address, &connect_v311(name));
    assert_eq!(after.hear(), [0x20, 2, 0, 0]);
    assert!(before.is_at_end());
}

const PARTS: usize = 4;
/// Of what is held, see `$SYS/broker/memory/`.
const KINDS: usize = 11;
/// What tables and the answers that are kept may differ by from part to part.
const SLACK: i64 = 64 * 1024;
