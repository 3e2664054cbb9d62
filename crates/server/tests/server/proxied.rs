//! Connections through a proxy: who the Client is, and from whom that is believed.
//!
//! Owns: nothing but tests. Start reading at [`start_proxied`].
//! Invariant: the first listener has no proxy.

use std::io::Write;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use vencejo_server::Server;
use vencejo_server::authentication::{AnonymousPolicy, CertificateUser};
use vencejo_server::config::{ClientCertificates, Config, Proxies};

use crate::authority::Authority;
use crate::canary::Canary;
use crate::client::{Raw, TRICKLED_MAX, connect_v311, packet, string, subscribe_v311};
use crate::tls::{Secured, any, client_config, tls};
use crate::{config, start};

const FROM_ELSEWHERE: &[u8] = b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 1883\r\n";
const FROM_HERE: &[u8] = b"PROXY TCP4 127.0.0.9 10.0.0.1 8080 1883\r\n";

/// A configuration with a second listener that takes connections from `proxy`.
fn proxied(proxy: &str) -> Config {
    let mut config = config(2);
    config.listeners.push(([127, 0, 0, 1], 0).into());
    config.listeners[1].name = "proxied".to_owned();
    config.listeners[1].proxy = Some(Proxies::From(vec![proxy.parse().expect("a network")]));
    config
}

fn start_proxied(proxy: &str) -> (Server, SocketAddr, SocketAddr) {
    let (server, plain) = start(proxied(proxy));
    let proxied = server.listeners()[1];
    (server, plain, proxied)
}

/// Verifies P12: without proof Clients of this machine are let in, so it matters that the proxy is not one.
#[test]
fn a_client_is_from_where_the_proxy_says() {
    let (_server, plain, proxied) = start_proxied("127.0.0.0/8");
    let _canary = Canary::to_the_end(plain);
    for piece in [1, 7, 1000] {
        let mut client = Raw::open(proxied);
        let all = [FROM_ELSEWHERE, &connect_v311("elsewhere")].concat();
        for piece in all.chunks(piece) {
            client.say(piece);
        }
        assert_eq!(client.hear(), [0x20, 2, 0, 5], "pieces of {piece}");
        let mut client = Raw::open(proxied);
        let all = [FROM_HERE, &connect_v311("here"), &[0xC0, 0]].concat();
        for piece in all.chunks(piece) {
            client.say(piece);
        }
        assert_eq!(client.hear(), [0x20, 2, 0, 0], "pieces of {piece}");
        assert_eq!(client.hear(), [0xD0, 0]);
    }
    // Version 2, with something added behind the addresses.
    let mut client = Raw::open(proxied);
    client.say(
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x11\xC0\0\x02\x07\x0A\0\0\x01\x1F\x90\x07\x5B\x04\0\x02ab",
    );
    client.say(&connect_v311("elsewhere"));
    assert_eq!(client.hear(), [0x20, 2, 0, 5]);
}

#[test]
fn tls_begins_behind_the_header() {
    let authority = Authority::new();
    let mut config = proxied("127.0.0.1");
    config.listeners[1].tls = Some(tls(authority.files("a", "localhost")));
    let (server, _) = start(config);
    let mut client = Secured::open(server.listeners()[1], any(&authority), "localhost");
    client.stream.sock.write_all(FROM_HERE).expect("is read");
    client.say(&connect_v311("here"));
    assert_eq!(client.hear(4), [0x20, 2, 0, 0]);
}

/// Version 2 with what it says of TLS: its flags, whether the certificate was good, and the Common Name.
fn header_of_tls(flags: u8, verified: u8, name: &str) -> Vec<u8> {
    let len = u8::try_from(name.len()).expect("short");
    let of_tls = [
        &[flags, 0, 0, 0, verified, 0x22, 0, len][..],
        name.as_bytes(),
    ]
    .concat();
    let len_of_tls = u8::try_from(of_tls.len()).expect("short");
    let addresses = [192, 0, 2, 7, 10, 0, 0, 1, 0x1F, 0x90, 7, 0x5B];
    [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0"[..],
        &[12 + 3 + len_of_tls],
        &addresses,
        &[0x20, 0, len_of_tls],
        &of_tls,
    ]
    .concat()
}

/// Class A: who the proxy has seen a certificate of is its user, and nobody else is.
#[test]
fn certificate_that_the_proxy_has_seen_names_the_user() {
    let mut config = proxied("127.0.0.1");
    config.authentication.certificate_user = Some(CertificateUser::CommonName);
    let (server, plain) = start(config);
    let _canary = Canary::to_the_end(plain);
    let address = server.listeners()[1];
    let answer = |header: &[u8], user: Option<&str>| {
        let mut client = Raw::open(address);
        client.say(header);
        client.say(&match user {
            None => connect_v311("client"),
            Some(user) => {
                let fields = [string("client"), string(user)].concat();
                packet(0x10, &[b"\0\x04MQTT\x04\x82\0\0", &fields[..]].concat())
            }
        });
        client.hear()[3]
    };
    let shown = header_of_tls(7, 0, "pump");
    assert_eq!(answer(&shown, None), 0);
    assert_eq!(answer(&shown, Some("pump")), 0);
    assert_ne!(answer(&shown, Some("valve")), 0);
    for (flags, verified) in [(7, 1), (1, 0), (0, 0), (6, 0)] {
        let header = header_of_tls(flags, verified, "pump");
        assert_ne!(answer(&header, None), 0, "{flags} {verified}");
        assert_ne!(answer(&header, Some("pump")), 0, "{flags} {verified}");
    }
    assert_ne!(answer(FROM_ELSEWHERE, Some("pump")), 0);
    // And nobody but the proxy can say so.
    assert_ne!(answer(&header_of_tls(7, 0, "a\nb"), None), 0);
}

/// The certificate by which a proxy shows itself to us is not that of its Clients.
#[test]
fn certificate_of_the_proxy_itself_is_nobody() {
    let authority = Authority::new();
    let mut config = proxied("127.0.0.1");
    config.authentication.certificate_user = Some(CertificateUser::CommonName);
    let mut of_proxy = tls(authority.files("a", "localhost"));
    of_proxy.client_ca = Some(authority.path("ca.pem"));
    of_proxy.client_certificates = ClientCertificates::Required;
    config.listeners[1].tls = Some(of_proxy);
    let (server, _) = start(config);
    let own = authority.files("proxy", "proxy");
    for (header, code) in [
        (header_of_tls(7, 0, "pump"), 0),
        // Its Client spoke TLS, and showed nothing.
        (header_of_tls(1, 0, "pump"), 5),
    ] {
        let config = client_config(&authority, rustls::DEFAULT_VERSIONS, Some(&own));
        let mut client = Secured::open(server.listeners()[1], config, "localhost");
        client.stream.sock.write_all(&header).expect("is read");
        client.say(&connect_v311("client"));
        assert_eq!(client.hear(4), [0x20, 2, 0, code]);
    }
}

/// Class A, RabbitMQ CVE-2026-67411: a proxy that speaks for itself, as haproxy does for Clients of a Unix socket too, is not
/// this machine, however near it is, and what it shows is not a Client's.
#[test]
fn a_proxy_that_does_not_say_for_whom_is_not_this_machine() {
    const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    let authority = Authority::new();
    let mut config = proxied("127.0.0.1");
    config.authentication.certificate_user = Some(CertificateUser::CommonName);
    let mut of_proxy = tls(authority.files("a", "localhost"));
    of_proxy.client_ca = Some(authority.path("ca.pem"));
    of_proxy.client_certificates = ClientCertificates::Optional;
    config.listeners.push(config.listeners[1].clone());
    config.listeners[2].tls = Some(of_proxy);
    config.listeners.push(config.listeners[1].clone());
    config.listeners[3].anonymous = Some(AnonymousPolicy::Always);
    let (server, plain) = start(config);
    let canary = Canary::new(plain);
    let [_, proxied, secure, open] = server.listeners()[..] else {
        panic!("four listeners");
    };
    let mut client = Raw::open(proxied);
    client.say(&[LOCAL, &connect_v311("local")].concat());
    assert_eq!(client.hear(), [0x20, 2, 0, 5]);
    let own = authority.files("proxy", "proxy");
    let own = client_config(&authority, rustls::DEFAULT_VERSIONS, Some(&own));
    let mut client = Secured::open(secure, own, "localhost");
    client.stream.sock.write_all(LOCAL).expect("is read");
    client.say(&connect_v311("local"));
    assert_eq!(client.hear(4), [0x20, 2, 0, 5]);
    // Where everybody is let in it is, and reads nothing that is for this machine only.
    let mut client = Raw::open(open);
    client.say(&[LOCAL, &connect_v311("local")].concat());
    assert_eq!(client.hear(), [0x20, 2, 0, 0]);
    for (filter, code) in [("$SYS/#", 0x80), ("t", 0)] {
        client.say(&subscribe_v311(filter, 0));
        assert_eq!(client.hear(), [0x90, 3, 0, 1, code], "{filter}");
    }
    canary.sing();
}

#[test]
fn nobody_but_a_listed_proxy_is_believed() {
    let (_server, plain, proxied) = start_proxied("192.0.2.1");
    let canary = Canary::to_the_end(plain);
    let mut stranger = Raw::open(proxied);
    assert!(stranger.is_at_end());
    // And where there is no proxy, its header is no packet.
    let mut client = Raw::open(plain);
    client.say(FROM_HERE);
    assert!(client.is_at_end());
    canary.sing();
}

/// P10: the time for CONNECT bounds the header.
#[test]
fn a_header_that_is_missing_or_wrong_ends_the_connection() {
    let mut config = proxied("127.0.0.1");
    config.bounds.connect_timeout = Duration::from_millis(300);
    let (server, plain) = start(config);
    let proxied = server.listeners()[1];
    let canary = Canary::to_the_end(plain);
    for header in [
        &connect_v311("client")[..],
        b"PROXY UNKNOWN\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 99999\r\n",
        b"PROXY TCP4 192",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xFF\xFF",
        b"",
    ] {
        let began = Instant::now();
        let mut client = Raw::open(proxied);
        client.say(header);
        assert!(client.is_at_end(), "{header:?}");
        let took = began.elapsed();
        assert!(took < TRICKLED_MAX, "{header:?}: {took:?}");
        canary.sing();
    }
}

/// P10: whatever trickles in, of a header and behind it, the time runs from the beginning.
#[test]
fn a_header_that_trickles_ends_the_connection() {
    let mut config = proxied("127.0.0.1");
    config.bounds.connect_timeout = Duration::from_millis(300);
    let (server, plain) = start(config);
    let _canary = Canary::to_the_end(plain);
    let long = "1234:".repeat(7);
    let one = format!("PROXY TCP6 {long}5678 {long}9abc 8080 1883\r\n");
    // Version 2, with 100 bytes added behind the addresses.
    let two = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x73"[..],
        &[127, 0, 0, 9, 10, 0, 0, 1, 0x1F, 0x90, 7, 0x5B, 4, 0, 100],
        &[b'x'; 100],
    ]
    .concat();
    let connect = connect_v311(&"x".repeat(100));
    for (what, first, trickling) in [
        ("version 1", &b""[..], one.as_bytes()),
        ("version 2", b"", &two),
        ("CONNECT", FROM_HERE, &connect),
        ("CONNECT behind version 2", &two, &connect),
    ] {
        let began = Instant::now();
        let mut client = Raw::open(server.listeners()[1]);
        client.say(first);
        let pieces: Vec<Vec<u8>> = trickling.iter().map(|byte| vec![*byte]).collect();
        client.trickle(&pieces);
        let took = began.elapsed();
        assert!(took < TRICKLED_MAX, "{what}: {took:?}");
        assert!(took >= Duration::from_millis(250), "{what}: {took:?}");
    }
}
