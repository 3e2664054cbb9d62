//! TLS: what abuse of it costs others.
//!
//! Owns: nothing but tests. Does not own: Clients (see `super`). Start reading at any test.
//! Invariant: every wait has a deadline.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConnection, SupportedProtocolVersion};

use super::{Secured, any, client_config, secured, start_secured, tls};
use crate::authority::Authority;
use crate::canary::Canary;
use crate::client::{Raw, TRICKLED_MAX, connect_v311};
use crate::start;

/// What a Client knows of a handshake.
fn session(authority: &Authority, version: &'static SupportedProtocolVersion) -> ClientConnection {
    let name = ServerName::try_from("localhost").expect("a name");
    let config = client_config(authority, &[version], None);
    ClientConnection::new(config, name).expect("a configuration")
}

/// Reads what the Server says until `session` has something to say, and returns that.
fn next_flight(client: &mut Raw, session: &mut ClientConnection) -> Vec<u8> {
    while !session.wants_write() {
        session.read_tls(&mut client.stream).expect("a flight");
        session.process_new_packets().expect("a good flight");
    }
    let mut flight = Vec::new();
    while session.wants_write() {
        session.write_tls(&mut flight).expect("memory");
    }
    flight
}

/// What is wrong in any place: a record of nobody, one that cannot be opened, one that is too long, and a handshake that
/// begins again.
fn garbage() -> [(&'static str, Vec<u8>); 5] {
    let hello = [&[0x16, 3, 3, 0, 45][..], &old_hello()].concat();
    [
        ("no type", vec![0x7F; 600]),
        (
            "cannot be opened",
            [&[0x17, 3, 3, 0, 40][..], &[9; 40]].concat(),
        ),
        ("a record too long", vec![0x16, 3, 3, 0xFF, 0xFF]),
        (
            "no handshake",
            [&[0x16, 3, 3, 0, 9][..], &[0xFE; 9]].concat(),
        ),
        ("an old hello", hello),
    ]
}

/// A ClientHello that knows nothing beyond TLS 1.1.
fn old_hello() -> Vec<u8> {
    let mut hello = vec![3, 2];
    hello.extend_from_slice(&[7; 32]);
    hello.extend_from_slice(&[0, 0, 4, 0xC0, 0x13, 0, 0x2F, 1, 0, 0, 0]);
    let len = u8::try_from(hello.len()).expect("short");
    [&[1, 0, 0, len][..], &hello].concat()
}

/// A ClientHello of TLS 1.1, and bytes that are none at all.
#[test]
fn garbage_and_old_handshakes_are_ended_and_others_go_on() {
    let authority = Authority::new();
    let (_server, plain, secure) = start_secured(1, tls(authority.files("a", "localhost")));
    let canary = Canary::to_the_end(plain);
    let hello = old_hello();
    let hello_len = u8::try_from(hello.len()).expect("short");
    let cases: [(&str, Vec<u8>); 5] = [
        (
            "TLS 1.1",
            [&[0x16, 3, 1, 0, hello_len][..], &hello].concat(),
        ),
        ("MQTT", connect_v311("plain")),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        ("zeros", vec![0; 100]),
        ("a record too long", [0x16, 3, 3, 0xFF, 0xFF].to_vec()),
    ];
    for (what, bytes) in cases {
        let mut client = Raw::open(secure);
        client.say(&bytes);
        let mut answer = Vec::new();
        match client.stream.read_to_end(&mut answer) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{what}"),
        }
        // An alert at most.
        assert!(answer.is_empty() || answer[0] == 0x15, "{what}: {answer:?}");
        if what == "TLS 1.1" {
            // handshake_failure: it has not even said how it would sign.
            assert_eq!(answer.last(), Some(&40), "{answer:?}");
        }
        canary.sing();
    }
    // And behind a handshake.
    let mut client = Secured::connect(secure, any(&authority), "breaks").expect("is let in");
    client.stream.sock.write_all(&[0x17; 600]).expect("is read");
    let mut rest = Vec::new();
    let error = client.stream.read_to_end(&mut rest).expect_err("an alert");
    assert!(error.to_string().contains("alert"), "{error}");
    canary.sing();
}

/// Class C: in place of each flight of a handshake but the first, and behind half of one.
#[test]
fn garbage_inside_a_handshake_ends_it_and_others_go_on() {
    let authority = Authority::new();
    let (_server, plain, secure) = start_secured(1, tls(authority.files("a", "localhost")));
    let canary = Canary::to_the_end(plain);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (what, garbage) in garbage() {
            for place in ["in a flight", "behind it", "in place of the second"] {
                let what = format!("{:?}, {what}, {place}", version.version);
                let mut session = session(&authority, version);
                let mut client = Raw::open(secure);
                let hello = next_flight(&mut client, &mut session);
                let said = match place {
                    "in a flight" => {
                        let filled = garbage.iter().copied().cycle().take(2000);
                        hello[..hello.len() / 2]
                            .iter()
                            .copied()
                            .chain(filled)
                            .collect()
                    }
                    "behind it" => [&hello[..], &garbage].concat(),
                    _ => {
                        client.say(&hello);
                        // The Server has said all it has to say.
                        next_flight(&mut client, &mut session);
                        garbage.clone()
                    }
                };
                client.say(&said);
                is_ended(&mut client, &mut session, &what);
                canary.sing();
            }
        }
    }
}

/// What the Server says is at most an alert in the end, and nothing behind it.
fn is_ended(client: &mut Raw, session: &mut ClientConnection, what: &str) {
    let began = Instant::now();
    let mut alert = None;
    loop {
        match session.read_tls(&mut client.stream) {
            Ok(0) => break,
            Ok(_) => assert_eq!(alert, None, "{what}: there is more behind an alert"),
            Err(error) => break assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{what}"),
        }
        match session.process_new_packets() {
            Ok(_) => {}
            Err(rustls::Error::AlertReceived(said)) => alert = Some(said),
            Err(error) => panic!("{what}: {error}"),
        }
    }
    // Long before the time for CONNECT is over.
    assert!(began.elapsed() < ENDED_MAX, "{what}");
}

/// P10: the time for CONNECT includes the handshake, after each flight of it.
#[test]
fn a_handshake_that_stalls_is_ended_with_the_time_for_connect() {
    let authority = Authority::new();
    let (_server, secure, _canary) = start_impatient(&authority);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (what, flights, is_cut) in [
            ("nothing", 0, false),
            ("half a flight", 1, true),
            ("a flight", 1, false),
            ("half of the second", 2, true),
            ("both, and no CONNECT", 2, false),
        ] {
            let mut session = session(&authority, version);
            let mut client = Raw::open(secure);
            let began = Instant::now();
            for flight in 1..=flights {
                let bytes = next_flight(&mut client, &mut session);
                let is_whole = !is_cut || flight < flights;
                client.say(
                    &bytes[..if is_whole {
                        bytes.len()
                    } else {
                        bytes.len() / 2
                    }],
                );
            }
            client.stream.read_to_end(&mut Vec::new()).ok();
            let took = began.elapsed();
            assert!(took < TRICKLED_MAX, "{what}: {took:?}");
            assert!(took >= Duration::from_millis(250), "{what}: {took:?}");
        }
    }
}

/// P10: whatever trickles in, in any part of a handshake and behind it, the time runs from the beginning.
#[test]
fn a_handshake_that_trickles_is_ended_with_the_time_for_connect() {
    let authority = Authority::new();
    let (_server, secure, _canary) = start_impatient(&authority);
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for what in [
            "first flight",
            "records of a byte",
            "second flight",
            "CONNECT",
        ] {
            let mut session = session(&authority, version);
            let mut client = Raw::open(secure);
            let began = Instant::now();
            let mut flight = next_flight(&mut client, &mut session);
            let mut pieces: Vec<Vec<u8>> = Vec::new();
            match what {
                "first flight" => {}
                // Each of them complete.
                "records of a byte" => {
                    let record = |byte: &u8| vec![0x16, 3, 1, 0, 1, *byte];
                    pieces = flight[5..].iter().map(record).collect();
                }
                _ => {
                    client.say(&flight);
                    flight = next_flight(&mut client, &mut session);
                }
            }
            if what == "CONNECT" {
                client.say(&flight);
                while session.is_handshaking() {
                    session.read_tls(&mut client.stream).expect("a flight");
                    session.process_new_packets().expect("a good flight");
                }
                for byte in connect_v311(&"x".repeat(100)) {
                    session.writer().write_all(&[byte]).expect("memory");
                    pieces.push(next_flight(&mut client, &mut session));
                }
            } else if pieces.is_empty() {
                pieces = flight.iter().map(|byte| vec![*byte]).collect();
            }
            client.trickle(&pieces);
            let took = began.elapsed();
            assert!(took < TRICKLED_MAX, "{what}: {took:?}");
            assert!(took >= Duration::from_millis(250), "{what}: {took:?}");
        }
    }
}

/// A Server that waits 300 ms for a CONNECT, and where its TLS is.
fn start_impatient(authority: &Authority) -> (vencejo_server::Server, SocketAddr, Canary) {
    let mut config = secured(1, tls(authority.files("a", "localhost")));
    config.bounds.connect_timeout = Duration::from_millis(300);
    let (server, plain) = start(config);
    let secure = server.listeners()[1];
    (server, secure, Canary::to_the_end(plain))
}

/// P15: a thousand at once, and all are let in; on a machine that is so busy that one waits for 2 s, it is put off, and
/// comes again.
#[test]
fn a_storm_of_handshakes_leaves_room_for_others() {
    let authority = Authority::new();
    let (_server, plain, secure) = start_secured(1, tls(authority.files("a", "localhost")));
    let _canary = Canary::to_the_end(plain);
    let config = any(&authority);
    let begin = || {
        let mut client = Secured::open(secure, Arc::clone(&config), "localhost");
        let Secured { stream } = &mut client;
        stream.conn.write_tls(&mut stream.sock).expect("is sent");
        client
    };
    let mut storm: Vec<Secured> = (0..1000).map(|_| begin()).collect();
    let mut put_off = 0;
    for (n, client) in storm.iter_mut().enumerate() {
        loop {
            client.say(&connect_v311(&format!("storm-{n}")));
            match client.hear(4)[..] {
                [0x20, 2, 0, 0] => break,
                [0x20, 2, 0, 3] => put_off += 1,
                ref other => panic!("{other:?}"),
            }
            assert!(put_off < 1000, "it never ends");
            *client = begin();
        }
    }
}

/// P15: ten thousand are taken from one that says something now and then, and one that says nothing else is ended,
/// however often it comes again.
#[test]
fn a_flood_of_key_updates_leaves_room_for_others() {
    let authority = Authority::new();
    let (_server, plain, secure) = start_secured(1, tls(authority.files("a", "localhost")));
    let canary = Canary::to_the_end(plain);
    let config = client_config(&authority, &[&rustls::version::TLS13], None);
    let connect = || Secured::connect(secure, Arc::clone(&config), "flood").expect("is let in");
    let mut flood = connect();
    let mut taken = 0;
    while taken < 10_000 {
        for _ in 0..IN_A_ROW_MAX {
            flood.stream.conn.refresh_traffic_keys().expect("TLS 1.3");
        }
        // What comes behind them can be read with the last of their keys only.
        flood.say(&[0xC0, 0]);
        assert_eq!(flood.hear(2), [0xD0, 0], "behind {taken}");
        taken += IN_A_ROW_MAX;
    }
    canary.sing();
    for n in 0..50 {
        let mut flood = connect();
        for _ in 0..200 {
            flood.stream.conn.refresh_traffic_keys().expect("TLS 1.3");
        }
        // It may be ended before all is said.
        let end = flood.stream.flush();
        let end = end.and_then(|()| flood.stream.read_to_end(&mut Vec::new()));
        let is_silent = end.is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        assert!(!is_silent, "{n} goes on");
        canary.sing();
    }
}

/// KeyUpdates with nothing between them that are taken from one connection.
const IN_A_ROW_MAX: u32 = 32;
/// What is wrong is ended for that, and not because it is late.
const ENDED_MAX: Duration = Duration::from_secs(5);
