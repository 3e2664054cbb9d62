//! One port for everything: what a Client begins with says what it speaks.
//!
//! Owns: nothing but tests. Start reading at [`sniffing`].
//! Invariant: the second listener of a test is the one that sniffs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustls::{ClientConnection, StreamOwned};
use vencejo_server::config::{ClientCertificates, Config, ListenerConfig, Proxies};

use crate::authority::Authority;
use crate::canary::Canary;
use crate::client::{Raw, connect_v311, publish};
use crate::tls::{any, client_config, tls};
use crate::websocket::Web;
use crate::{config, start};

/// A plain listener, and one that sniffs; with TLS, too, if there is an authority.
fn sniffing(shards: u16, authority: Option<&Authority>) -> Config {
    let mut config = config(shards);
    config.listeners.push(ListenerConfig {
        name: "all".to_owned(),
        sniff: true,
        tls: authority.map(|authority| tls(authority.files("a", "localhost"))),
        ..([127, 0, 0, 1], 0).into()
    });
    config
}

fn secured(stream: TcpStream, authority: &Authority) -> StreamOwned<ClientConnection, TcpStream> {
    let name = "localhost".try_into().expect("a name");
    // WebSocket or MQTT inside: this one does not say.
    let mut config = (*any(authority)).clone();
    config.alpn_protocols.clear();
    let session = ClientConnection::new(config.into(), name).expect("a session");
    StreamOwned::new(session, stream)
}

/// A connection to `address`, with what a proxy says before all else.
fn open(address: SocketAddr, header: &[u8]) -> TcpStream {
    let mut client = Raw::open(address);
    client.say(header);
    client.stream
}

/// Clients of each kind, one after the other, each with a message for `subscriber`.
fn visit(address: SocketAddr, header: &[u8], authority: &Authority, subscriber: &mut Raw) {
    let large = vec![b'x'; 300_000];
    for round in 0..3 {
        let id = |kind: &str| format!("{kind}-{round}");
        let mut plain = Raw {
            stream: open(address, header),
        };
        plain.say(&connect_v311(&id("plain")));
        assert_eq!(plain.hear(), [0x20, 2, 0, 0]);
        plain.say(&publish("t", 0, &large));
        assert_eq!(subscriber.hear(), publish("t", 0, &large), "plain");

        let mut secure = Raw {
            stream: secured(open(address, header), authority),
        };
        secure.say(&connect_v311(&id("tls")));
        assert_eq!(secure.hear(), [0x20, 2, 0, 0]);
        secure.say(&publish("t", 0, &large));
        assert_eq!(subscriber.hear(), publish("t", 0, &large), "TLS");

        let mut web = Web::over(open(address, header), "/mqtt");
        web.say(&connect_v311(&id("ws")));
        assert_eq!(web.hear(4), [0x20, 2, 0, 0]);
        web.say(&publish("t", 0, &large));
        assert_eq!(subscriber.hear(), publish("t", 0, &large), "WebSocket");

        let mut secure_web = Web::over(secured(open(address, header), authority), "/");
        secure_web.say(&connect_v311(&id("wss")));
        assert_eq!(secure_web.hear(4), [0x20, 2, 0, 0]);
        secure_web.say(&publish("t", 0, &large));
        assert_eq!(subscriber.hear(), publish("t", 0, &large), "both");
    }
}

#[test]
fn clients_of_every_kind_are_served_at_one_port() {
    let authority = Authority::new();
    let (server, plain) = start(sniffing(3, Some(&authority)));
    let mut subscriber = Raw::v311(plain, "subscriber");
    subscriber.subscribe("t", 0);
    let all = server.listeners()[1];
    visit(all, b"", &authority, &mut subscriber);
}

#[test]
fn clients_of_every_kind_are_served_at_one_port_behind_a_proxy() {
    let authority = Authority::new();
    let mut config = sniffing(3, Some(&authority));
    config.listeners[1].proxy = Some(Proxies::From(vec!["127.0.0.1".parse().expect("one")]));
    let (server, plain) = start(config);
    let mut subscriber = Raw::v311(plain, "subscriber");
    subscriber.subscribe("t", 0);
    let all = server.listeners()[1];
    let header = b"PROXY TCP4 127.0.0.9 10.0.0.1 8080 1883\r\n";
    visit(all, header, &authority, &mut subscriber);
}

/// However little of its request comes at once, in the clear and inside of TLS.
#[test]
fn request_in_single_bytes_opens_websocket() {
    const REQUEST: &[u8] = b"GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
        Sec-WebSocket-Protocol: mqtt\r\nSec-WebSocket-Version: 13\r\n\r\n";
    let authority = Authority::new();
    let (server, _) = start(sniffing(1, Some(&authority)));
    let all = server.listeners()[1];
    let plain = Raw::open(all).stream;
    opens(plain, REQUEST);
    opens(secured(Raw::open(all).stream, &authority), REQUEST);
}

fn opens(mut stream: impl Read + Write, request: &[u8]) {
    for byte in request {
        stream.write_all(&[*byte]).expect("is read");
        stream.flush().expect("is read");
    }
    let mut answer = [0; 13];
    stream.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"HTTP/1.1 101 ");
}

/// P10: who begins with nothing that is known, or does not begin, goes; nobody else notices.
#[test]
fn what_is_no_beginning_ends_the_connection() {
    let mut config = sniffing(2, None);
    config.bounds.connect_timeout = Duration::from_millis(300);
    let (server, plain) = start(config);
    let all = server.listeners()[1];
    let canary = Canary::new(plain);
    for bytes in [
        &b"\x16\x03\x01\x02\x00"[..],
        b"SSH-2.0-OpenSSH\r\n",
        b"POST / HTTP/1.1\r\n",
        b"\0",
        b"\x20\x02\0\0",
        b"GE",
        b"",
    ] {
        let mut client = Raw::open(all);
        client.say(bytes);
        assert!(client.is_at_end(), "{bytes:?}");
        canary.sing();
    }
}

/// A certificate that is shown is looked at, also where not everybody needs one.
#[test]
fn certificates_are_asked_for_inside_of_tls() {
    let authority = Authority::new();
    let mut config = sniffing(1, Some(&authority));
    let tls = config.listeners[1].tls.as_mut().expect("TLS");
    tls.client_ca = Some(authority.path("ca.pem"));
    tls.client_certificates = ClientCertificates::Optional;
    let (server, _) = start(config);
    let all = server.listeners()[1];
    let open = |authority: &Authority, of: &Authority| {
        let own = of.files("client", "client");
        let config = client_config(authority, rustls::DEFAULT_VERSIONS, Some(&own));
        let name = "localhost".try_into().expect("a name");
        let session = ClientConnection::new(config, name).expect("a session");
        let mut stream = StreamOwned::new(session, Raw::open(all).stream);
        let mut connack = [0; 4];
        stream
            .write_all(&connect_v311("client"))
            .and_then(|()| stream.flush())
            .and_then(|()| stream.read_exact(&mut connack))
            .map(|()| connack)
    };
    let own = open(&authority, &authority).expect("is let in");
    assert_eq!(own, [0x20, 2, 0, 0]);
    let foreign = Authority::new();
    assert!(open(&authority, &foreign).is_err());
}
