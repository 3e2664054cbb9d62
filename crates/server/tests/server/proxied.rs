//! Connections through a proxy: who the Client is, and from whom that is believed.
//!
//! Owns: nothing but tests. Start reading at [`start_proxied`].
//! Invariant: the first listener has no proxy.

use std::io::Write;
use std::net::SocketAddr;
use std::time::Duration;

use vencejo_server::Server;
use vencejo_server::config::{Config, Proxies};

use crate::authority::Authority;
use crate::canary::Canary;
use crate::client::{Raw, connect_v311};
use crate::tls::{Secured, any, tls};
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
    let (_server, _, proxied) = start_proxied("127.0.0.0/8");
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

#[test]
fn nobody_but_a_listed_proxy_is_believed() {
    let (_server, plain, proxied) = start_proxied("192.0.2.1");
    let canary = Canary::new(plain);
    let mut stranger = Raw::open(proxied);
    assert!(stranger.is_at_end());
    // And where there is no proxy, its header is no packet.
    let mut client = Raw::open(plain);
    client.say(FROM_HERE);
    assert!(client.is_at_end());
    canary.sing();
}

/// P10: the time for CONNECT bounds the header, whatever trickles in.
#[test]
fn a_header_that_is_missing_or_wrong_ends_the_connection() {
    let mut config = proxied("127.0.0.1");
    config.bounds.connect_timeout = Duration::from_millis(300);
    let (server, plain) = start(config);
    let proxied = server.listeners()[1];
    let canary = Canary::new(plain);
    for header in [
        &connect_v311("client")[..],
        b"PROXY UNKNOWN\r\n",
        b"PROXY TCP4 192.0.2.7 10.0.0.1 8080 99999\r\n",
        b"PROXY TCP4 192",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xFF\xFF",
        b"",
    ] {
        let mut client = Raw::open(proxied);
        client.say(header);
        assert!(client.is_at_end(), "{header:?}");
        canary.sing();
    }
}
