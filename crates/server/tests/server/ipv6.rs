//! IPv6: every way in over `::1`, and who counts as a Client of this machine.
//!
//! Owns: nothing but tests. Start reading at [`served`]. Invariant: the one listener of a test is at `::1`.

use std::net::{Ipv6Addr, SocketAddr};

use rustls::{ClientConnection, StreamOwned};
use vencejo_server::Server;
use vencejo_server::config::{ListenerConfig, Proxies, Transport};

use crate::authority::Authority;
use crate::client::{Raw, connect_v311};
use crate::tls::{Secured, any, tls};
use crate::websocket::Web;
use crate::{config, start};

/// A Server with one listener, as `set` has changed it.
fn served(set: impl FnOnce(&mut ListenerConfig)) -> (Server, SocketAddr) {
    let mut config = config(2);
    config.listeners = vec![SocketAddr::from((Ipv6Addr::LOCALHOST, 0)).into()];
    set(&mut config.listeners[0]);
    let (server, address) = start(config);
    assert!(address.is_ipv6());
    (server, address)
}

#[test]
fn clients_over_ipv6_are_of_this_machine_with_tls_and_without() {
    let (_plain, address) = served(|_| {});
    Raw::v311(address, "plain").ping();
    let authority = Authority::new();
    let files = authority.files("a", "localhost");
    let (_secured, address) = served(|listener| listener.tls = Some(tls(files)));
    Secured::connect(address, any(&authority), "tls").expect("is let in");
}

#[test]
fn clients_over_ipv6_come_by_websocket() {
    let (_server, address) = served(|listener| listener.transport = Transport::WebSocket);
    let mut client = Web::over(Raw::open(address).stream, "/mqtt");
    client.say(&connect_v311("web"));
    assert_eq!(client.hear(4), [0x20, 2, 0, 0]);
}

#[test]
fn clients_over_ipv6_of_every_kind_are_served_at_one_port() {
    let authority = Authority::new();
    let files = authority.files("a", "localhost");
    let (_server, address) = served(|listener| {
        listener.sniff = true;
        listener.tls = Some(tls(files));
    });
    Raw::v311(address, "plain").ping();
    Secured::connect(address, any(&authority), "tls").expect("is let in");
    let mut web = Web::over(Raw::open(address).stream, "/mqtt");
    web.say(&connect_v311("web"));
    assert_eq!(web.hear(4), [0x20, 2, 0, 0]);
    let name = "localhost".try_into().expect("a name");
    let mut config = (*any(&authority)).clone();
    config.alpn_protocols.clear();
    let session = ClientConnection::new(config.into(), name).expect("a session");
    let stream = StreamOwned::new(session, Raw::open(address).stream);
    let mut both = Web::over(stream, "/mqtt");
    both.say(&connect_v311("both"));
    assert_eq!(both.hear(4), [0x20, 2, 0, 0]);
}

/// Verifies P12: without proof Clients of this machine are let in, by whichever of its addresses, and no others.
#[test]
fn a_client_over_ipv6_is_from_where_the_proxy_says() {
    let listed = vec!["::1".parse().expect("a network")];
    let (_server, address) = served(|listener| listener.proxy = Some(Proxies::From(listed)));
    for (from, code) in [
        ("::1", 0),
        ("::ffff:127.0.0.9", 0),
        ("2001:db8::7", 5),
        ("::ffff:192.0.2.7", 5),
        ("fe80::1", 5),
        // It has been one, and is nobody's.
        ("::127.0.0.1", 5),
    ] {
        let from: Ipv6Addr = from.parse().expect("an address");
        let of_version_1 = format!("PROXY TCP6 {from} 2001:db8::1 8080 1883\r\n");
        let of_version_2 = [
            &b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24"[..],
            &from.octets(),
            &Ipv6Addr::LOCALHOST.octets(),
            &[0x1F, 0x90, 7, 0x5B],
        ]
        .concat();
        for header in [of_version_1.into_bytes(), of_version_2] {
            let mut client = Raw::open(address);
            client.say(&[header, connect_v311("client")].concat());
            assert_eq!(client.hear(), [0x20, 2, 0, code], "{from}");
        }
    }
    let listed = vec!["127.0.0.1".parse().expect("a network")];
    let (_server, address) = served(|listener| listener.proxy = Some(Proxies::From(listed)));
    assert!(Raw::open(address).is_at_end(), "another one is listed");
}
