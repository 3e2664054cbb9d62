//! How connections begin, are refused, and end.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use proto::packet::ReasonCode;
use store::MemoryStore;
use vencejo_server::authentication::{
    Anonymous, AnonymousPolicy, Attempt, Authentication, Authenticator, Challenge, Decision,
    Exchange,
};
use vencejo_server::{Server, StartError};

use crate::canary::Canary;
use crate::client::{
    PATIENCE, Raw, TRICKLED_MAX, connect_flags_v5, connect_v5, connect_v311, packet, publish,
    string, subscribe_v5, subscribe_v311,
};
use crate::{config, start};

#[test]
fn every_client_is_served_whatever_its_home_shard() {
    for shards in [1, 2, 4] {
        let (_server, address) = start(config(shards));
        let mut clients: Vec<Raw> = (0..32)
            .map(|n| Raw::v311(address, &format!("client-{n}")))
            .collect();
        for client in &mut clients {
            client.ping();
        }
    }
}

#[test]
fn packets_sent_behind_connect_move_with_the_connection() {
    let (_server, address) = start(config(4));
    for n in 0..16 {
        let mut client = Raw::open(address);
        let topic = format!("topic/{n}");
        let packets = [
            connect_v311(&format!("eager-{n}")),
            subscribe_v311(&topic, 0),
            publish(&topic, 0, b"hello"),
            vec![0xC0, 0],
        ];
        client.say(&packets.concat());
        assert_eq!(client.hear(), [0x20, 2, 0, 0]);
        // The answers to different packets may come in any order that keeps each one's own.
        let answers: BTreeSet<Vec<u8>> = (0..3).map(|_| client.hear()).collect();
        let expected = [
            vec![0x90, 3, 0, 1, 0],
            publish(&topic, 0, b"hello"),
            vec![0xD0, 0],
        ];
        assert_eq!(answers, BTreeSet::from(expected));
    }
}

#[test]
fn connect_may_come_byte_by_byte() {
    let (_server, address) = start(config(2));
    let mut client = Raw::open(address);
    for byte in connect_v5("slow-typist", 0, &[], &[]) {
        client.say(&[byte]);
    }
    assert_eq!(client.hear()[3], 0);
    for byte in subscribe_v5("a/b", 0) {
        client.say(&[byte]);
    }
    assert_eq!(client.hear(), [0x90, 4, 0, 1, 0, 0]);
}

#[test]
fn connect_that_does_not_become_complete_in_time_is_closed() {
    let mut config = config(1);
    config.bounds.connect_timeout = Duration::from_millis(200);
    let (_server, address) = start(config);
    let began = Instant::now();
    let mut silent = Raw::open(address);
    let mut unfinished = Raw::open(address);
    unfinished.say(&connect_v311("unfinished")[..12]);
    assert!(silent.is_at_end() && unfinished.is_at_end());
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert!(began.elapsed() < TRICKLED_MAX);
    // Nor does it help to say a byte now and then.
    let connect = connect_v311(&"x".repeat(100));
    let began = Instant::now();
    let pieces: Vec<Vec<u8>> = connect.iter().map(|byte| vec![*byte]).collect();
    Raw::open(address).trickle(&pieces);
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert!(began.elapsed() < TRICKLED_MAX);
    let mut served = Raw::v311(address, "in-time");
    served.ping();
}

/// Verifies [MQTT-3.1.2-22]: a silent Client is disconnected after one and a half Keep Alive times.
#[test]
fn silent_client_is_told_of_its_keep_alive_and_closed() {
    let (_server, address) = start(config(2));
    let began = Instant::now();
    let mut client = Raw::v5(address, "silent", 1);
    let disconnect = client.hear();
    assert_eq!(
        (disconnect[0], disconnect[2]),
        (0xE0, ReasonCode::KeepAliveTimeout.value())
    );
    assert!(client.is_at_end());
    assert!(began.elapsed() >= Duration::from_millis(1500));
}

#[test]
fn client_over_the_limit_hears_why_even_if_it_has_said_much() {
    let mut config = config(2);
    config.bounds.connections_max = 1;
    let (_server, address) = start(config);
    let mut served = Raw::v311(address, "served");
    let much = publish("a", 0, &[0; 100_000]);
    let mut v5 = Raw::open(address);
    v5.say(&[connect_v5("over-5", 0, &[], &[]), much.clone()].concat());
    let connack = v5.hear();
    assert_eq!(
        (connack[0], connack[3]),
        (0x20, ReasonCode::QuotaExceeded.value())
    );
    assert!(v5.is_at_end());
    let mut v311 = Raw::open(address);
    v311.say(&[connect_v311("over-3"), much].concat());
    assert_eq!(v311.hear(), [0x20, 2, 0, 3]);
    assert!(v311.is_at_end());
    served.ping();
}

#[test]
fn room_that_was_left_is_given_to_the_next() {
    let mut config = config(2);
    config.bounds.connections_max = 1;
    let (_server, address) = start(config);
    drop(Raw::v311(address, "first"));
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut next = Raw::open(address);
        next.say(&connect_v311("next"));
        if next.hear() == [0x20, 2, 0, 0] {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "the first connection still counts"
        );
    }
}

/// Verifies [MQTT-4.13.1-1]: a malformed packet ends the connection, and a 5.0 Client hears why.
#[test]
fn malformed_packet_is_answered_with_its_reason_and_closed() {
    let (_server, address) = start(config(2));
    let mut client = Raw::v5(address, "wrong", 0);
    let mut other = Raw::v5(address, "right", 0);
    client.say(&[0x36, 3, 0, 1, b'a']);
    let disconnect = client.hear();
    assert_eq!(
        (disconnect[0], disconnect[2]),
        (0xE0, ReasonCode::MalformedPacket.value())
    );
    let text = String::from_utf8_lossy(&disconnect).into_owned();
    assert!(text.contains("MQTT-3.3.1-4"), "{text}");
    assert!(client.is_at_end());
    other.ping();
}

#[test]
fn packet_above_the_announced_size_is_refused_by_its_header() {
    let (_server, address) = start(config(1));
    let mut client = Raw::v5(address, "large", 0);
    client.say(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F]);
    assert_eq!(client.hear()[2], ReasonCode::PacketTooLarge.value());
    assert!(client.is_at_end());
}

/// Verifies [MQTT-3.1.3-6] [MQTT-3.1.3-7]: a Client without a Client Identifier is given one of its own.
#[test]
fn assigned_client_identifiers_are_unique() {
    let (_server, address) = start(config(4));
    let mut clients: Vec<Raw> = (0..16).map(|_| Raw::open(address)).collect();
    let mut assigned = BTreeSet::new();
    for client in &mut clients {
        client.say(&connect_v5("", 0, &[], &[]));
        let connack = client.hear();
        assert_eq!(connack[3], 0);
        let text = String::from_utf8_lossy(&connack).into_owned();
        let start = text.find("auto-").expect("an assigned Client Identifier");
        assigned.insert(text[start..].to_owned());
    }
    assert_eq!(assigned.len(), clients.len());
}

/// Verifies [v3.1.1 MQTT-3.1.3-8]: an empty Client Identifier without Clean Session gets 0x02.
#[test]
fn empty_client_identifier_needs_clean_session() {
    let (_server, address) = start(config(1));
    let mut client = Raw::open(address);
    client.say(&packet(0x10, b"\x00\x04MQTT\x04\x00\x00\x00\x00\x00"));
    assert_eq!(client.hear(), [0x20, 2, 0, 2]);
    assert!(client.is_at_end());
}

#[test]
fn port_in_use_is_an_error_with_its_address() {
    let (_server, address) = start(config(2));
    let mut second = config(2);
    second.listeners = vec![address.into()];
    match Server::start(second) {
        Err(StartError::PortInUse { addr }) => assert_eq!(addr, address),
        other => panic!("{other:?}"),
    }
}

/// Panics for one User Name.
#[derive(Debug)]
struct Fragile(Anonymous);

impl Authenticator for Fragile {
    fn method(&self) -> Option<&str> {
        None
    }

    fn authenticate(&self, attempt: &Attempt<'_>, exchange: &mut Exchange) -> Option<Decision> {
        assert_ne!(
            attempt.user_name,
            Some("breaker"),
            "this user breaks the Server"
        );
        self.0.authenticate(attempt, exchange)
    }
}

/// Verifies [v3.1.1 MQTT-4.8.0-2]: an error in our own processing closes the connection it came from.
#[test]
fn panic_in_one_connection_closes_that_one_only() {
    let authentication = Authentication::new(vec![Arc::new(Fragile(Anonymous::new(
        AnonymousPolicy::Loopback,
    )))]);
    let server = Server::start_with(config(2), authentication, |_| MemoryStore::new())
        .expect("the Server starts");
    let address = server.listeners()[0];
    let canary = Canary::to_the_end(address);
    let mut others: Vec<Raw> = (0..8)
        .map(|n| Raw::v311(address, &format!("other-{n}")))
        .collect();
    for n in 0..8 {
        let mut breaker = Raw::open(address);
        let client_id = format!("breaker-{n}");
        breaker.say(&connect_flags_v5(
            0x82,
            &client_id,
            0,
            &[],
            &string("breaker"),
        ));
        let connack = breaker.hear();
        let reason = ReasonCode::ImplementationSpecificError.value();
        assert_eq!((connack[0], connack[3]), (0x20, reason));
        assert!(breaker.is_at_end());
        canary.sing();
    }
    for other in &mut others {
        other.ping();
    }
    canary.sing();
}

/// Verifies [MQTT-4.3.2-4] [MQTT-4.3.3-8] [MQTT-3.8.4-1]: what a Client is owed reaches it although its
/// DISCONNECT came in the same read.
#[test]
fn acknowledgements_leave_before_the_disconnect_behind_them() {
    for shards in [1, 2, 4] {
        let (_server, address) = start(config(shards));
        // On all shards, so that the answer has to wait for other shards.
        let mut watchers: Vec<Raw> = (0..8)
            .map(|n| Raw::v311(address, &format!("watcher-{n}")))
            .collect();
        for watcher in &mut watchers {
            watcher.subscribe("news", 1);
        }
        let publish = |first_byte, id| {
            let body = [&string("news")[..], &[0, id, 0], b"x"].concat();
            packet(first_byte, &body)
        };
        let said = [
            publish(0x32, 7),
            publish(0x34, 8),
            subscribe_v5("a", 1),
            vec![0xC0, 0],
            vec![0xE0, 0],
        ];
        let answers = [
            vec![0x40, 2, 0, 7],
            vec![0x50, 2, 0, 8],
            vec![0x90, 4, 0, 1, 0, 1],
            vec![0xD0, 0],
        ];
        for n in 0..8 {
            let mut client = Raw::v5(address, &format!("in-a-hurry-{n}"), 0);
            client.say(&said.concat());
            let heard: Vec<Vec<u8>> = (0..4).map(|_| client.hear()).collect();
            assert_eq!(heard, answers, "shards {shards}");
            assert!(client.is_at_end());
            let mut client = Raw::v5(address, &format!("in-pieces-{n}"), 0);
            for piece in said.concat().chunks(7) {
                client.say(piece);
            }
            let heard: Vec<Vec<u8>> = (0..4).map(|_| client.hear()).collect();
            assert_eq!(heard, answers, "shards {shards}");
            assert!(client.is_at_end());
        }
        // With CONNECT in the same write the connection may have to move first.
        for n in 0..8 {
            let mut client = Raw::open(address);
            let connect = connect_v5(&format!("at-once-{n}"), 0, &[], &[]);
            client.say(&[connect, said.concat()].concat());
            assert_eq!(client.hear()[3], 0);
            let heard: Vec<Vec<u8>> = (0..4).map(|_| client.hear()).collect();
            assert_eq!(heard, answers, "shards {shards}");
            assert!(client.is_at_end());
        }
    }
}

fn auth(reason: u8, method: &str, data: &str) -> Vec<u8> {
    let properties = [&[0x15][..], &string(method), &[0x16], &string(data)].concat();
    let len = u8::try_from(properties.len()).expect("few properties");
    packet(0xF0, &[&[reason, len][..], &properties].concat())
}

fn method_and_data(method: &str, data: &str) -> Vec<u8> {
    [&[0x15][..], &string(method), &[0x16], &string(data)].concat()
}

/// Verifies [MQTT-4.12.0-2] [MQTT-4.12.0-3] [MQTT-4.12.1-1] [MQTT-4.12.1-2]: the exchange before CONNACK
/// and a re-authentication after it.
#[test]
fn authentication_exchange_goes_on_until_it_is_decided() {
    let mut config = config(4);
    config.authentication.test_method = true;
    let (_server, address) = start(config);
    for n in 0..8 {
        let mut client = Raw::open(address);
        let properties = method_and_data(Challenge::METHOD, "hello");
        client.say(&connect_v5(&format!("proven-{n}"), 0, &properties, &[]));
        assert_eq!(client.hear(), auth(0x18, Challenge::METHOD, "challenge-1"));
        client.say(&auth(0x18, Challenge::METHOD, "response-1"));
        let connack = client.hear();
        assert_eq!((connack[0], connack[3]), (0x20, 0));
        assert!(String::from_utf8_lossy(&connack).contains("allowed"));
        client.say(&auth(0x19, Challenge::METHOD, "hello"));
        assert_eq!(client.hear(), auth(0x18, Challenge::METHOD, "challenge-1"));
        client.ping();
        client.say(&auth(0x18, Challenge::METHOD, "response-1"));
        assert_eq!(client.hear(), auth(0x00, Challenge::METHOD, "allowed"));
        client.say(&auth(0x19, Challenge::METHOD, "deny"));
        let disconnect = client.hear();
        assert_eq!(
            (disconnect[0], disconnect[2]),
            (0xE0, ReasonCode::NotAuthorized.value())
        );
        assert!(client.is_at_end());
    }
}

/// Verifies [MQTT-4.12.0-1]: an Authentication Method that is not supported gets 0x8C.
#[test]
fn unknown_authentication_method_and_failed_proof_are_refused() {
    let mut config = config(1);
    config.authentication.test_method = true;
    let (_server, address) = start(config);
    for (method, data, reason) in [
        ("SCRAM-SHA-1", "x", ReasonCode::BadAuthenticationMethod),
        (Challenge::METHOD, "deny", ReasonCode::NotAuthorized),
    ] {
        let mut client = Raw::open(address);
        client.say(&connect_v5(
            "unproven",
            0,
            &method_and_data(method, data),
            &[],
        ));
        let connack = client.hear();
        assert_eq!((connack[0], connack[3]), (0x20, reason.value()));
        assert!(client.is_at_end());
    }
}

#[test]
fn client_that_asks_without_listening_is_not_read_until_it_listens() {
    const PINGS: usize = 8 * 1024 * 1024;
    let mut config = config(2);
    config.bounds.congested_bytes = 1024;
    config.bounds.unsent_bytes_max = 256 * 1024;
    let (_server, address) = start(config);
    let mut client = Raw::v311(address, "talker");
    let mut writing = client.stream.try_clone().expect("a second handle");
    let (progress, is_blocked) = mpsc::channel();
    let writer = thread::spawn(move || {
        for _ in 0..PINGS / 4096 {
            writing
                .write_all(&[0xC0, 0].repeat(4096))
                .expect("is read in the end");
            progress.send(()).expect("the test listens");
        }
    });
    let stall = Duration::from_millis(300);
    while is_blocked.recv_timeout(stall).is_ok() {}
    assert!(
        !writer.is_finished(),
        "everything was read from a Client that does not listen"
    );
    let mut heard = vec![0; 2 * PINGS];
    client.stream.read_exact(&mut heard).expect("every answer");
    assert!(heard.chunks(2).all(|answer| answer == [0xD0, 0]));
    writer.join().expect("everything was written");
}

/// Verifies [MQTT-3.1.4-3]: of many connections with one Client Identifier the last one stays, and every
/// other one hears that its Session was taken over.
#[test]
fn storm_of_take_overs_leaves_one_connection() {
    const STORM: usize = 100;
    for shards in [1, 4] {
        let (_server, address) = start(config(shards));
        let mut clients: Vec<Raw> = (0..STORM).map(|_| Raw::open(address)).collect();
        for client in &mut clients {
            client.say(&connect_v5("the-same", 0, &[], &[]));
        }
        let ends: Vec<thread::JoinHandle<Option<Raw>>> = clients
            .into_iter()
            .map(|mut client| {
                thread::spawn(move || {
                    assert_eq!(client.hear()[..1], [0x20]);
                    client.say(&[0xC0, 0]);
                    let answer = client.hear();
                    if answer == [0xD0, 0] {
                        return Some(client);
                    }
                    assert_eq!(answer[2], ReasonCode::SessionTakenOver.value());
                    assert!(client.is_at_end());
                    None
                })
            })
            .collect();
        // Only when all have arrived is it known which one is the last.
        let answered: Vec<Raw> = ends
            .into_iter()
            .filter_map(|end| end.join().expect("as expected"))
            .collect();
        let is_served = |mut client: Raw| {
            client.say(&[0xC0, 0]);
            client.hear() == [0xD0, 0]
        };
        assert_eq!(
            answered
                .into_iter()
                .map(is_served)
                .filter(|is_served| *is_served)
                .count(),
            1
        );
    }
}
