//! Limits that a reload changes: what counts at once, what a Client was told, and that nobody notices.
//!
//! Owns: limits of the server. Does not own: those of the engine (see its test `relimited`). Start reading at any test.
//! Invariant: a canary goes on over every reload.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use vencejo_server::Server;
use vencejo_server::config::{self, Config};

use crate::canary::Canary;
use crate::client::{Raw, connect_v5, packet, publish, string, subscribe_v5};
use crate::rates::{client_of, named};
use crate::{config as in_memory, start};

/// `server` with these `[limits]` from now on; what has to wait for the next start.
fn relimit(server: &Server, shards: u16, limits: &str) -> Vec<&'static str> {
    let text = format!("[limits]\n{limits}");
    let parsed = config::parse(&text, "test.toml".as_ref()).expect("a configuration");
    let config = Config {
        limits: parsed.limits,
        bounds: parsed.bounds,
        sys_interval: Duration::from_millis(100),
        ..in_memory(shards)
    };
    server.reload(config).expect("is taken over").left
}

fn started(shards: u16) -> (Server, SocketAddr, Canary) {
    let (server, address) = start(Config {
        sys_interval: Duration::from_millis(100),
        ..in_memory(shards)
    });
    (server, address, Canary::new(address))
}

/// PUBLISH of 5.0 at QoS 0.
fn publish_v5(topic: &str, payload: &[u8]) -> Vec<u8> {
    packet(0x30, &[&string(topic)[..], &[0], payload].concat())
}

/// Verifies [MQTT-3.2.2-15]: the Maximum Packet Size is that of a Client's own CONNACK.
#[test]
fn what_a_client_was_told_holds_and_the_next_one_is_told_otherwise() {
    let (server, address, canary) = started(2);
    let mut told = Raw::v5(address, "told", 0);
    told.say(&subscribe_v5("wide", 0));
    assert_eq!(told.hear()[0], 0x90);
    // Accepted before, answered after it.
    let mut between = Raw::open(address);
    assert_eq!(
        relimit(&server, 2, "maximum_packet_size_bytes = 200"),
        [""; 0]
    );
    let wide = publish_v5("wide", &[b'x'; 300]);
    told.say(&wide);
    assert_eq!(told.hear(), wide);
    for client in [&mut between, &mut Raw::open(address)] {
        client.say(&connect_v5("late", 0, &[], &[]));
        let connack = client.hear();
        let announced = b"\x27\x00\x00\x00\xC8";
        assert!(connack.windows(5).any(|window| window == announced));
        client.say(&wide);
        let disconnect = client.hear();
        assert_eq!((disconnect[0], disconnect[2]), (0xE0, 0x95));
    }
    canary.sing();
}

#[test]
fn a_rate_counts_at_once_and_who_waits_for_an_old_one_goes_on() {
    let (server, address, canary) = named(2, "publish_rate_per_user_max = 1");
    let mut subscriber = Raw::v311(address, "subscriber");
    subscriber.subscribe("fast", 0);
    let (_, mut anna) = client_of(address, "anna", "anna");
    let many: Vec<u8> = (0..50).flat_map(|_| publish_v5("fast", b"x")).collect();
    let began = Instant::now();
    anna.say(&many);
    assert_eq!(subscriber.hear()[0], 0x30);
    // By the old rate it would take 49 seconds.
    relimit(&server, 2, "");
    for _ in 1..50 {
        assert_eq!(subscriber.hear()[0], 0x30);
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    relimit(&server, 2, "publish_rate_max = 100");
    let began = Instant::now();
    anna.say(&many);
    anna.say(&many);
    anna.say(&many);
    for _ in 0..150 {
        assert_eq!(subscriber.hear()[0], 0x30);
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(300), "{took:?}");
    canary.sing();
}

/// What was said before is paid for at the rate that is there now.
#[test]
fn who_is_far_ahead_of_a_rate_goes_on_at_once_by_a_higher_one() {
    for (low, high) in [
        ("subscribe_rate_max = 1", "subscribe_rate_max = 1000"),
        (
            "subscribe_rate_max = 1",
            "subscribe_rate_total_max = 100000",
        ),
        (
            "subscribe_rate_total_max = 1",
            "subscribe_rate_total_max = 1000",
        ),
        (
            "subscribe_rate_per_user_max = 1",
            "subscribe_rate_per_user_max = 1000",
        ),
    ] {
        let (server, address, canary) = named(2, low);
        let (_, mut anna) = client_of(address, "anna", "anna");
        let filters = [&string("a")[..], &[0]].concat().repeat(60);
        anna.say(&packet(0x82, &[&[0, 1, 0][..], &filters].concat()));
        assert_eq!(anna.hear()[0], 0x90);
        relimit(&server, 2, high);
        let began = Instant::now();
        for _ in 0..2 {
            anna.say(&subscribe_v5("a", 0));
            assert_eq!(anna.hear()[0], 0x90, "{low}, then {high}");
        }
        anna.ping();
        let took = began.elapsed();
        assert!(
            took < Duration::from_secs(2),
            "{low}, then {high}: {took:?}"
        );
        canary.sing();
    }
}

/// Promise P14: who has more unsent than may be now goes on, and gets it.
#[test]
fn fewer_unsent_bytes_than_there_are_drop_nobody() {
    const MESSAGES: u32 = 16_000;
    let (server, address) = start(in_memory(1));
    relimit(
        &server,
        1,
        "congested_bytes = \"32MiB\"\nunsent_bytes_max = \"64MiB\"",
    );
    let mut reader = Raw::v311(address, "reader");
    reader.subscribe("much", 0);
    let mut publisher = Raw::v311(address, "publisher");
    for number in 0..MESSAGES {
        let payload = [&number.to_be_bytes()[..], &[b'x'; 1000]].concat();
        publisher.say(&publish("much", 0, &payload));
    }
    publisher.ping();
    let lower = "congested_bytes = \"64KiB\"\nunsent_bytes_max = \"128KiB\"";
    relimit(&server, 1, lower);
    // Whoever is written to is looked at, too.
    relimit(&server, 1, &format!("{lower}\nclient_id_length_max = 20"));
    reader.say(&[0xC0, 0]);
    for number in 0..MESSAGES {
        let heard = reader.hear();
        assert_eq!(
            heard.get(9..13),
            Some(&number.to_be_bytes()[..]),
            "{number}"
        );
    }
    assert_eq!(reader.hear(), [0xD0, 0]);
    reader.ping();
}

#[test]
fn connections_that_came_before_their_limit_count_and_stay() {
    let (server, address, canary) = named(2, "");
    let (_, mut one) = client_of(address, "anna", "one");
    let (_, mut two) = client_of(address, "anna", "two");
    assert_eq!(relimit(&server, 2, "connections_per_user_max = 1"), [""; 0]);
    assert_eq!(client_of(address, "anna", "three").0, 0x97);
    assert_eq!(client_of(address, "otto", "otto").0, 0);
    one.ping();
    two.ping();
    relimit(&server, 2, "connections_per_user_max = 3");
    let (reason, mut three) = client_of(address, "anna", "three");
    assert_eq!(reason, 0);
    three.ping();
    assert_eq!(client_of(address, "anna", "four").0, 0x97);
    canary.sing();
}

#[test]
fn what_users_have_counts_from_a_reload_on_and_stays() {
    let (server, address, canary) = named(2, "");
    let mut clients = ["one", "two", "three"].map(|name| client_of(address, "anna", name).1);
    for client in &mut clients {
        client.say(&subscribe_v5("a", 1));
        assert_eq!(client.hear()[5], 1);
    }
    let limits = "sessions_per_user_max = 2\nsubscriptions_per_user_max = 4";
    assert_eq!(relimit(&server, 2, limits), [""; 0]);
    assert_eq!(client_of(address, "anna", "four").0, 0x97);
    assert_eq!(client_of(address, "otto", "otto").0, 0);
    for (client, granted) in clients.iter_mut().zip([1, 0x97, 0x97]) {
        client.say(&subscribe_v5("b", 1));
        assert_eq!(client.hear()[5], granted);
    }
    relimit(&server, 2, "");
    assert_eq!(client_of(address, "anna", "four").0, 0);
    canary.sing();
}

/// Promise P14.
#[test]
fn fewer_connections_than_there_are_drop_nobody() {
    let (server, address, canary) = started(2);
    let mut clients: Vec<Raw> = (0..6)
        .map(|number| Raw::v311(address, &format!("stays-{number}")))
        .collect();
    relimit(&server, 2, "connections_max = 4");
    let answer = || {
        let mut client = Raw::open(address);
        client.say(&connect_v5("late", 0, &[], &[]));
        client.hear()[3]
    };
    assert_eq!(answer(), 0x97);
    for client in &mut clients {
        client.ping();
    }
    relimit(&server, 2, "");
    assert_eq!(answer(), 0);
    canary.sing();
}

#[test]
fn the_budget_of_memory_is_another_one_at_once() {
    let (server, address, canary) = started(2);
    let mut watch = Raw::v311(address, "watch");
    watch.subscribe("$SYS/broker/memory/budget", 0);
    relimit(&server, 2, "memory_max_bytes = \"64MiB\"");
    let patience = Instant::now() + Duration::from_secs(10);
    while watch.hear() != publish("$SYS/broker/memory/budget", 0, b"67108864") {
        assert!(Instant::now() < patience, "the budget stays as it was");
    }
    canary.sing();
}

#[test]
fn the_one_limit_that_waits_for_the_next_start_is_named_and_the_others_count() {
    let (server, address, canary) = started(2);
    let limits = "login_threads = 7\nclient_id_length_max = 20";
    assert_eq!(relimit(&server, 2, limits), ["limits.login_threads"]);
    let mut client = Raw::open(address);
    client.say(&connect_v5(&"x".repeat(21), 0, &[], &[]));
    assert_eq!(client.hear()[3], 0x85);
    canary.sing();
}
