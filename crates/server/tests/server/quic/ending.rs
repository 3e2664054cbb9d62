//! QUIC: how a connection ends, how it does not, and what is heard of it.
//!
//! Owns: nothing but tests. Does not own: Clients (see `super`). Start reading at any test.
//! Invariant: every wait has a deadline.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use quinn::TransportConfig;
use vencejo_server::authentication::AnonymousPolicy;
use vencejo_server::config::QuicConfig;

use super::{
    Over, RUNTIME, Relay, assert_closed_without_error, config_of, connect_with, over_quic,
    start_quic, within,
};
use crate::authority::Authority;
use crate::canary::Canary;
use crate::client::{
    Raw, connect_flags_v5, connect_v5, packet, publish, string, subscribe_v5, subscribe_v311,
};
use crate::tls::tls;

/// The last words of the Server come before the end.
#[test]
fn over_quic_a_refused_client_hears_why() {
    let authority = Authority::new();
    let mut config = over_quic(2, tls(authority.files("a", "localhost")));
    config.authentication.anonymous = AnonymousPolicy::Never;
    let (_server, _, quic) = start_quic(config);
    for n in 0..20 {
        let mut client = Over::open(quic, &authority);
        client.say(&connect_v5(&format!("nobody-{n}"), 0, &[], &[]));
        let connack = client.hear_all();
        assert_eq!((connack[0], connack[3]), (0x20, 0x87), "{connack:?}");
        assert_closed_without_error(&client.end());
    }
}

/// [MQTT-3.14.4-3] A DISCONNECT counts although the connection was closed right behind it.
#[test]
fn over_quic_what_was_said_before_the_end_counts() {
    let authority = Authority::new();
    let (_server, plain, quic) = start_quic(over_quic(2, tls(authority.files("a", "localhost"))));
    let mut watcher = Raw::v5(plain, "watcher", 0);
    watcher.say(&subscribe_v5("will/#", 0));
    assert_eq!(watcher.hear()[0], 0x90);
    for n in 0..20 {
        for leaves in [true, false] {
            let mut client = Over::open(quic, &authority);
            let name = format!("{}-{n}", if leaves { "leaves" } else { "vanishes" });
            let will = [&[0][..], &string(&format!("will/{name}")), &string("gone")];
            client.v5(&connect_flags_v5(0x06, &name, 0, &[], &will.concat()));
            client.say(&packet(0x30, &[&string("will/said")[..], &[0]].concat()));
            if leaves {
                client.say(&[0xE0, 0]);
                client.writer.finish().expect("is open");
                // Once it is there; what the shard does with it comes later.
                // It may have closed already.
                within(client.writer.stopped()).ok();
                client.connection.close(0_u32.into(), b"");
                assert_eq!(topic(&watcher.hear()), "will/said", "{name}");
            } else {
                assert_eq!(topic(&watcher.hear()), "will/said", "{name}");
                client.connection.close(0_u32.into(), b"");
                assert_eq!(topic(&watcher.hear()), format!("will/{name}"));
            }
        }
    }
}

fn topic(publish: &[u8]) -> String {
    let end = 4 + usize::from(publish[3]);
    String::from_utf8_lossy(&publish[4..end]).into_owned()
}

/// Without a Keep Alive of MQTT, too: QUIC notices that nothing comes.
#[test]
fn the_will_of_a_client_that_vanishes_over_quic_is_published() {
    let authority = Authority::new();
    let mut config = over_quic(2, tls(authority.files("a", "localhost")));
    config.listeners[1].quic = QuicConfig {
        idle_timeout: Duration::from_secs(1),
        keep_alive: Duration::from_millis(200),
    };
    let (_server, plain, quic) = start_quic(config);
    let mut watcher = Raw::v5(plain, "watcher", 0);
    watcher.say(&subscribe_v5("will", 0));
    assert_eq!(watcher.hear()[0], 0x90);
    let relay = Relay::new(quic);
    let mut client = Over::open(relay.address, &authority);
    let will = [&[0][..], &string("will"), &string("gone")].concat();
    client.v5(&connect_flags_v5(0x06, "vanishes", 0, &[], &will));
    relay.cut();
    assert!(watcher.hear().ends_with(b"gone"));
}

/// Keep Alive 0, and a Client that takes silence for the end: the Server gives it a sign of life in time.
#[test]
fn a_client_that_says_nothing_keeps_its_connection_over_quic() {
    let authority = Authority::new();
    let mut config = over_quic(1, tls(authority.files("a", "localhost")));
    config.listeners[1].quic.keep_alive = Duration::from_millis(100);
    let (_server, _, quic) = start_quic(config);
    let mut transport = TransportConfig::default();
    let idle = Duration::from_millis(800);
    transport.max_idle_timeout(Some(idle.try_into().expect("short")));
    let config = config_of(&authority, None, b"mqtt");
    let mut client = Over::open_with(quic, config, transport).expect("is let in");
    client.v5(&connect_v5("silent", 0, &[], &[]));
    let began = Instant::now();
    within(async {
        // As many as it takes to be past the time after which it would have ended.
        while client.connection.stats().frame_rx.ping < 20 {
            assert_eq!(client.connection.close_reason(), None);
            tokio::task::yield_now().await;
        }
    });
    assert!(began.elapsed() > idle);
    client.ping();
}

/// A NAT that forgets, or another network: the connection goes on from where the Client is now.
#[test]
fn a_client_that_moves_to_another_port_stays_connected() {
    let authority = Authority::new();
    let (_server, _, quic) = start_quic(over_quic(2, tls(authority.files("a", "localhost"))));
    let mut client = Over::v311(quic, &authority, "moves");
    client.say(&subscribe_v311("t", 0));
    assert_eq!(client.hear(5), [0x90, 3, 0, 1, 0]);
    let before = client.endpoint.local_addr().expect("an address");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    {
        let _context = RUNTIME.enter();
        client.endpoint.rebind(socket).expect("another port");
    }
    assert_ne!(client.endpoint.local_addr().expect("an address"), before);
    client.say(&publish("t", 0, b"still here"));
    assert_eq!(client.hear(15), publish("t", 0, b"still here"));
    client.leave();
}

/// [MQTT-4.13.1-1] Also over QUIC every 5.0 Client hears why.
#[test]
fn a_server_that_stops_tells_its_clients_over_quic() {
    let authority = Authority::new();
    let (server, _, quic) = start_quic(over_quic(2, tls(authority.files("a", "localhost"))));
    let mut clients: Vec<Over> = (0..20)
        .map(|n| {
            let mut client = Over::open(quic, &authority);
            client.v5(&connect_v5(&format!("client-{n}"), 0, &[], &[]));
            client
        })
        .collect();
    let config = config_of(&authority, None, b"mqtt");
    let idle = connect_with(quic, config, TransportConfig::default()).expect("is let in");
    let began = Instant::now();
    server.stop();
    server.join().expect("stopped in peace");
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "{:?}",
        began.elapsed()
    );
    for client in &mut clients {
        let last = client.hear_all();
        assert_eq!((last[0], last[2]), (0xE0, 0x8B), "{last:?}");
        assert_closed_without_error(&client.end());
    }
    within(idle.1.closed());
    // Its port is free.
    UdpSocket::bind(quic).expect("nobody is there");
}

/// Who takes nothing of the last answer has no connection once the shard is through with it.
#[test]
fn over_quic_who_takes_no_answer_keeps_nothing() {
    let authority = Authority::new();
    let (_server, plain, quic) = start_quic(over_quic(1, tls(authority.files("a", "localhost"))));
    let _canary = Canary::new(plain);
    let mut transport = TransportConfig::default();
    transport.stream_receive_window(0_u32.into());
    let config = config_of(&authority, None, b"mqtt");
    let mut client = Over::open_with(quic, config, transport).expect("is let in");
    client.say(&packet(0x10, b"\x00\x04MQTT\x09\x02\x00\x00\x00\x01a"));
    assert_closed_without_error(&client.end());
}

/// A DISCONNECT counts also where the Server had something to say to a Client that is gone.
#[test]
fn over_quic_a_busy_subscriber_that_leaves_has_left() {
    let authority = Authority::new();
    let (_server, plain, quic) = start_quic(over_quic(2, tls(authority.files("a", "localhost"))));
    let mut watcher = Raw::v5(plain, "watcher", 0);
    watcher.say(&subscribe_v5("will/#", 0));
    assert_eq!(watcher.hear()[0], 0x90);
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let flood = std::thread::spawn(move || {
        let mut flood = Raw::v311(plain, "flood");
        while !over.load(Ordering::SeqCst) {
            for _ in 0..20 {
                flood.say(&publish("flood", 0, b"x"));
            }
            flood.ping();
        }
        flood.say(&publish("will/end", 0, b""));
        flood.ping();
    });
    for n in 0..30 {
        let mut client = Over::open(quic, &authority);
        let will = [&[0][..], &string("will/published"), &string("gone")].concat();
        client.v5(&connect_flags_v5(0x06, &format!("busy-{n}"), 0, &[], &will));
        client.say(&subscribe_v5("flood", 0));
        client.hear(200);
        client.say(&[0xE0, 0]);
        client.writer.finish().expect("is open");
        // It may have closed already.
        within(client.writer.stopped()).ok();
        client.connection.close(0_u32.into(), b"");
    }
    is_over.store(true, Ordering::SeqCst);
    flood.join().expect("goes on");
    assert_eq!(topic(&watcher.hear()), "will/end");
}
