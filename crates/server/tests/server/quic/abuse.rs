//! QUIC: what abuse of it costs others.
//!
//! Owns: nothing but tests. Does not own: Clients (see `super`). Start reading at any test.
//! Invariant: every wait has a deadline.

use std::io::{Read, Write};
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Endpoint, TransportConfig};
use tokio::time::timeout;

use super::{
    Over, RUNTIME, Relay, bytes, config_of, connect_with, outcome, over_quic, start_quic, within,
};
use crate::authority::Authority;
use crate::canary::Canary;
use crate::client::{PATIENCE, Raw, connect_v5, connect_v311, publish, subscribe_v311};
use crate::tls::tls;

/// P10: the time for CONNECT begins with the first datagram, whatever trickles in.
#[test]
fn over_quic_whoever_does_not_connect_is_ended_in_time() {
    let authority = Authority::new();
    let mut config = over_quic(1, tls(authority.files("a", "localhost")));
    config.bounds.connect_timeout = Duration::from_millis(500);
    let (_server, plain, quic) = start_quic(config);
    let _canary = Canary::new(plain);
    for what in ["no stream", "no byte", "half", "trickles"] {
        let began = Instant::now();
        let config = config_of(&authority, None, b"mqtt");
        let opened = connect_with(quic, config, TransportConfig::default());
        let (_endpoint, connection) = opened.expect("is let in");
        let (mut writer, _reader) = within(connection.open_bi()).expect("a stream");
        let connect = connect_v311("slow");
        match what {
            "no stream" => {}
            // A stream is only there with something in it: an empty end, or a byte.
            "no byte" => drop(within(writer.write(&[]))),
            "half" => within(writer.write_all(&connect[..8])).expect("is read"),
            _ => {
                let trickling = connection.clone();
                RUNTIME.spawn(async move {
                    for byte in connect.iter().cycle() {
                        let pause = Duration::from_millis(60);
                        let is_over = timeout(pause, trickling.closed()).await.is_ok();
                        // The first bytes only: it never ends.
                        if is_over || writer.write_all(&[*byte]).await.is_err() {
                            break;
                        }
                    }
                });
            }
        }
        within(connection.closed());
        let took = began.elapsed();
        assert!(took < Duration::from_secs(3), "{what}: {took:?}");
        assert!(took >= Duration::from_millis(450), "{what}: {took:?}");
    }
}

/// The same of handshakes: here the answers to the first flight never come.
#[test]
fn a_handshake_over_quic_that_stalls_gives_its_place_back() {
    let authority = Authority::new();
    let mut config = over_quic(1, tls(authority.files("a", "localhost")));
    config.listeners[1].connections_max = Some(1);
    config.bounds.connect_timeout = Duration::from_millis(500);
    let (_server, _, quic) = start_quic(config);
    let relay = Relay::new(quic);
    relay.is_down_cut.store(true, Ordering::SeqCst);
    let _context = RUNTIME.enter();
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a port");
    let crypto = QuicClientConfig::try_from(config_of(&authority, None, b"mqtt"));
    let config = quinn::ClientConfig::new(Arc::new(crypto.expect("TLS 1.3")));
    let began = Instant::now();
    let stalled = endpoint.connect_with(config, relay.address, "localhost");
    let _stalled = stalled.expect("can be tried");
    while !relay.has_answered.load(Ordering::SeqCst) {
        assert!(began.elapsed() < PATIENCE, "no answer");
        std::thread::yield_now();
    }
    relay.cut();
    let connect = connect_v5("next", 0, &[], &[]);
    let mut answers = Vec::new();
    while answers.last() != Some(&Ok(0)) && began.elapsed() < PATIENCE {
        let config = config_of(&authority, None, b"mqtt");
        answers.push(outcome(quic, config, &connect));
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(450), "{took:?}");
    let (last, others) = answers.split_last().expect("one at least");
    assert_eq!(last, &Ok(0));
    assert!(!others.is_empty() && others.iter().all(|one| *one == Ok(0x97)));
}

#[test]
fn over_quic_a_client_too_many_is_told_so() {
    let authority = Authority::new();
    let mut config = over_quic(2, tls(authority.files("a", "localhost")));
    config.listeners[1].connections_max = Some(2);
    let (_server, plain, quic) = start_quic(config);
    let first = Over::v311(quic, &authority, "first");
    let mut second = Over::v311(quic, &authority, "second");
    let mut third = Over::open(quic, &authority);
    third.say(&connect_v5("third", 0, &[], &[]));
    let connack = third.hear_all();
    assert_eq!((connack[0], connack[3]), (0x20, 0x97));
    Raw::v311(plain, "elsewhere").ping();
    second.ping();
    drop(third);
    first.leave();
    // Its place is free as soon as the shard has seen the end.
    let config = || config_of(&authority, None, b"mqtt");
    let mut answers = (0..1000).map(|_| outcome(quic, config(), &connect_v5("next", 0, &[], &[])));
    assert!(answers.any(|answer| answer == Ok(0)));
}

/// Datagrams that are none of QUIC, of another version of it, too short, and beginnings of handshakes that lead nowhere.
#[test]
fn garbage_datagrams_harm_nobody() {
    let authority = Authority::new();
    let (_server, plain, quic) = start_quic(over_quic(1, tls(authority.files("a", "localhost"))));
    let canary = Canary::new(plain);
    let mut beside = Over::v311(quic, &authority, "beside");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let mut initial = vec![0xC3, 0, 0, 0, 1, 8];
    initial.extend_from_slice(&[7; 8]);
    initial.extend_from_slice(&[8]);
    initial.extend_from_slice(&[9; 8]);
    initial.extend_from_slice(&[0, 0x44, 0x80]);
    initial.resize(1200, 0x55);
    let mut other_version = initial.clone();
    other_version[1..5].copy_from_slice(&[0xFA, 0xCE, 0xB0, 0x0C]);
    let mut random = 88_172_645_463_325_252_u64;
    let mut noise = |len: usize| -> Vec<u8> {
        (0..len)
            .map(|_| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random.to_le_bytes()[0]
            })
            .collect()
    };
    for round in 0..300 {
        for datagram in [
            connect_v311("plain"),
            vec![0; 1],
            vec![0x40; 1200],
            vec![0xFF; 65_000],
            noise(1200),
            noise(round),
            initial.clone(),
            other_version.clone(),
            initial[..600].to_vec(),
        ] {
            socket.send_to(&datagram, quic).expect("is sent");
        }
        if round % 50 == 0 {
            beside.ping();
            canary.sing();
        }
    }
    beside.ping();
    Over::v311(quic, &authority, "after").leave();
}

/// P15: many at once, more than one address may begin with, and all are let in.
#[test]
fn a_storm_of_handshakes_over_quic_leaves_room_for_others() {
    let authority = Authority::new();
    let (_server, plain, quic) = start_quic(over_quic(1, tls(authority.files("a", "localhost"))));
    let _canary = Canary::new(plain);
    let crypto = QuicClientConfig::try_from(config_of(&authority, None, b"mqtt"));
    let config = quinn::ClientConfig::new(Arc::new(crypto.expect("TLS 1.3")));
    let _context = RUNTIME.enter();
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a port");
    let clients: Vec<_> = (0..300)
        .map(|n| {
            let connecting = endpoint.connect_with(config.clone(), quic, "localhost");
            let connecting = connecting.expect("can be tried");
            RUNTIME.spawn(async move {
                let connection = connecting.await.expect("is let in");
                let (mut writer, mut reader) = connection.open_bi().await.expect("a stream");
                let connect = connect_v311(&format!("storm-{n}"));
                writer.write_all(&connect).await.expect("is read");
                let mut connack = [0; 4];
                let read = reader.read_exact(&mut connack).await;
                read.map(|()| connack)
            })
        })
        .collect();
    for client in clients {
        let connack = within(client).expect("no panic").expect("an answer");
        assert_eq!(connack, [0x20, 2, 0, 0]);
    }
}

/// P6, P10: Clients that say nothing of use are few at a time, and others come in when they are gone.
#[test]
fn over_quic_whoever_waits_with_connect_takes_no_more_than_a_share() {
    let authority = Authority::new();
    let mut config = over_quic(1, tls(authority.files("a", "localhost")));
    config.bounds.connect_timeout = Duration::from_secs(120);
    let (_server, plain, quic) = start_quic(config);
    let _canary = Canary::new(plain);
    let crypto = QuicClientConfig::try_from(config_of(&authority, None, b"mqtt"));
    let config = quinn::ClientConfig::new(Arc::new(crypto.expect("TLS 1.3")));
    let _context = RUNTIME.enter();
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a port");
    let silent: Vec<_> = (0..SHARE)
        .map(|_| {
            let connecting = endpoint.connect_with(config.clone(), quic, "localhost");
            let connection = within(connecting.expect("can be tried")).expect("is let in");
            let (mut writer, reader) = within(connection.open_bi()).expect("a stream");
            within(writer.write_all(&connect_v311("silent")[..1])).expect("is read");
            (connection, writer, reader)
        })
        .collect();
    let began = Instant::now();
    let connecting = endpoint.connect_with(config, quic, "localhost");
    let late = RUNTIME.spawn(connecting.expect("can be tried"));
    // What it sends first is thrown away, and sent again by it a second later.
    let mut beside = Raw::v311(plain, "beside");
    while began.elapsed() < Duration::from_millis(300) {
        beside.ping();
        assert!(!late.is_finished(), "one more was let in");
    }
    drop(silent);
    within(late).expect("no panic").expect("is let in");
}

/// So many of one address.
const SHARE: usize = 128;

/// Who reads nothing makes nothing grow but what it may.
#[test]
fn over_quic_whoever_reads_nothing_holds_up_nobody() {
    let authority = Authority::new();
    let (_server, plain, quic) = start_quic(over_quic(1, tls(authority.files("a", "localhost"))));
    let canary = Canary::new(plain);
    let mut stuck = Over::v311(quic, &authority, "stuck");
    stuck.say(&subscribe_v311("flood", 0));
    assert_eq!(stuck.hear(5), [0x90, 3, 0, 1, 0]);
    let mut flood = Raw::v311(plain, "flood");
    let packet = publish("flood", 0, &bytes(60_000));
    for n in 0..400 {
        flood.stream.write_all(&packet).expect("is read");
        if n % 100 == 0 {
            flood.ping();
            canary.sing();
        }
    }
    flood.ping();
    // It has got the first ones, and what did not fit was dropped whole.
    let mut first = vec![0; packet.len()];
    within(stuck.reader.read_exact(&mut first)).expect("the first");
    assert!(first == packet, "other bytes");
    let mut nothing = [0; 1];
    flood.stream.set_nonblocking(true).expect("an option");
    flood
        .stream
        .read(&mut nothing)
        .expect_err("nothing is left");
}
