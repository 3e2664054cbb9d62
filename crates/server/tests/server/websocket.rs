//! WebSocket: what goes through it, and what abuse of it costs others. The rules of frames and of the request have
//! their rows where they are kept (`shard::websocket`); here are sockets.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};
use vencejo_server::config::{Config, ListenerConfig, Transport};

use crate::authority::Authority;
use crate::canary::Canary;
use crate::client::{Raw, TRICKLED_MAX, connect_v311, publish, subscribe_v311};
use crate::tls::{client_config, tls};
use crate::{config, start};

/// A plain listener, and one with WebSocket.
fn opened(shards: u16) -> Config {
    let mut config = config(shards);
    config.listeners.push(ListenerConfig {
        name: "web".to_owned(),
        transport: Transport::WebSocket,
        ..([127, 0, 0, 1], 0).into()
    });
    config
}

/// A Client that someone else has written.
pub(crate) struct Web<S: Read + Write> {
    socket: WebSocket<S>,
    /// Bytes of packets that nobody has asked for yet.
    heard: Vec<u8>,
}

impl Web<TcpStream> {
    fn open(address: SocketAddr) -> Self {
        Self::over(Raw::open(address).stream, "/mqtt")
    }
}

impl<S: Read + Write> Web<S> {
    pub(crate) fn over(stream: S, path: &str) -> Self {
        Self::from_page(stream, path, None)
    }

    /// As a browser does it for a page of `origin`.
    fn from_page(stream: S, path: &str, origin: Option<&str>) -> Self {
        let mut request = format!("ws://localhost{path}")
            .into_client_request()
            .expect("a request");
        let protocols = "mqtt".parse().expect("a value");
        request
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", protocols);
        if let Some(origin) = origin {
            let origin = origin.parse().expect("a value");
            request.headers_mut().insert("Origin", origin);
        }
        let (socket, response) = match tungstenite::client(request, stream) {
            Ok(opened) => opened,
            Err(error) => panic!("not opened: {error}"),
        };
        assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "mqtt");
        Self {
            socket,
            heard: Vec::new(),
        }
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) {
        let message = Message::binary(bytes.to_vec());
        self.socket.send(message).expect("the Server reads");
    }

    /// The next bytes of packets, whatever messages they came in.
    pub(crate) fn hear(&mut self, len: usize) -> Vec<u8> {
        while self.heard.len() < len {
            match self.socket.read().expect("the Server says") {
                Message::Binary(payload) => self.heard.extend_from_slice(&payload),
                Message::Pong(_) => {}
                other => panic!("{other:?}"),
            }
        }
        let rest = self.heard.split_off(len);
        std::mem::replace(&mut self.heard, rest)
    }

    fn connect(&mut self, client_id: &str) {
        self.say(&connect_v311(client_id));
        assert_eq!(self.hear(4), [0x20, 2, 0, 0]);
    }
}

/// Whoever has a page shown in a browser of this machine is not let in as if it was this machine.
#[test]
fn a_page_of_another_site_is_no_anonymous_client_of_this_machine() {
    let (server, _) = start(opened(1));
    let web = server.listeners()[1];
    let cases = [
        (None, 0),
        (Some("http://localhost:3000"), 0),
        (Some("https://example.com"), 5),
        (Some("null"), 5),
    ];
    for (origin, expected) in cases {
        let mut client = Web::from_page(Raw::open(web).stream, "/mqtt", origin);
        client.say(&connect_v311("page"));
        assert_eq!(client.hear(4), [0x20, 2, 0, expected], "{origin:?}");
    }
}

/// Verifies [MQTT-6.0.0-1] and [MQTT-6.0.0-4].
#[test]
fn clients_of_every_path_talk_to_one_another_and_to_plain_ones() {
    let (server, plain) = start(opened(3));
    let web = server.listeners()[1];
    let mut subscriber = Raw::v311(plain, "plain");
    subscriber.subscribe("t", 1);
    for path in ["/mqtt", "/", "/ws"] {
        // Of several, some have their home in another shard.
        for number in 0..6 {
            let name = format!("{path}-{number}");
            let mut client = Web::over(Raw::open(web).stream, path);
            client.connect(&name);
            client.say(&publish("t", 7, name.as_bytes()));
            assert_eq!(client.hear(4), [0x40, 2, 0, 7]);
            let packet = subscriber.hear();
            assert!(packet.ends_with(name.as_bytes()));
            subscriber.say(&[0x40, 2, packet[5], packet[6]]);
        }
    }
}

/// Verifies [MQTT-6.0.0-2]: packets may lie across messages, and several in one.
#[test]
fn packets_need_not_end_where_messages_do() {
    let (server, _) = start(opened(2));
    let mut client = Web::open(server.listeners()[1]);
    let mut all = connect_v311("pieces");
    all.extend(subscribe_v311("t", 0));
    all.extend(publish("t", 0, b"hello"));
    all.extend([0xC0, 0]);
    for byte in &all {
        client.say(&[*byte]);
    }
    let mut expected = vec![0x20, 2, 0, 0, 0x90, 3, 0, 1, 0];
    expected.extend(publish("t", 0, b"hello"));
    expected.extend([0xD0, 0]);
    assert_eq!(client.hear(expected.len()), expected);
    // And all of it at once.
    let mut client = Web::open(server.listeners()[1]);
    client.say(&all);
    assert_eq!(client.hear(expected.len()), expected);
}

/// What WebSocket has taken and TCP has not is neither lost nor sent twice, with TLS below and without.
#[test]
fn large_messages_arrive_whole_at_readers_that_are_slow() {
    let authority = Authority::new();
    let mut config = opened(2);
    config.limits.maximum_packet_size_bytes = 8 * 1024 * 1024;
    config.listeners.push(ListenerConfig {
        name: "secure-web".to_owned(),
        transport: Transport::WebSocket,
        tls: Some(tls(authority.files("a", "localhost"))),
        ..([127, 0, 0, 1], 0).into()
    });
    let (server, _) = start(config);
    go_through_large(
        Web::open(server.listeners()[1]),
        Web::open(server.listeners()[1]),
    );
    let secure = || {
        let mut config = (*client_config(&authority, rustls::DEFAULT_VERSIONS, None)).clone();
        // What a browser offers.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = "localhost".try_into().expect("a name");
        let session = ClientConnection::new(config.into(), name).expect("a configuration");
        let stream = Raw::open(server.listeners()[2]).stream;
        Web::over(StreamOwned::new(session, stream), "/mqtt")
    };
    go_through_large(secure(), secure());
}

fn go_through_large<S: Read + Write>(mut reader: Web<S>, mut writer: Web<S>) {
    reader.connect("reader");
    reader.say(&subscribe_v311("large", 0));
    assert_eq!(reader.hear(5), [0x90, 3, 0, 1, 0]);
    writer.connect("writer");
    for len in [300_000, 5_000_000_u32] {
        let payload: Vec<u8> = (0..len)
            .map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1] ^ n.to_le_bytes()[2])
            .collect();
        let packet = publish("large", 0, &payload);
        // Nothing is read meanwhile: the sockets are full long before this is all.
        writer.say(&packet);
        writer.say(&[0xC0, 0]);
        assert_eq!(writer.hear(2), [0xD0, 0]);
        assert!(reader.hear(packet.len()) == packet, "other bytes");
    }
    let many: Vec<u8> = (0..3000_u32)
        .flat_map(|n| publish("large", 0, &n.to_be_bytes()))
        .collect();
    writer.say(&many);
    assert!(reader.hear(many.len()) == many, "other bytes");
}

#[test]
fn the_end_of_a_connection_is_said_with_a_close_frame() {
    let (server, _) = start(opened(1));
    let mut client = Web::open(server.listeners()[1]);
    client.connect("leaves");
    client.say(&[0xE0, 0]);
    let Ok(Message::Close(Some(close))) = client.socket.read() else {
        panic!("no Close frame");
    };
    assert_eq!(u16::from(close.code), 1000);
    // And the other way round.
    let mut client = Web::open(server.listeners()[1]);
    client.connect("leaves");
    client.socket.close(None).expect("is sent");
    let end = loop {
        match client.socket.read() {
            Ok(Message::Close(_)) => {}
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert!(matches!(end, tungstenite::Error::ConnectionClosed), "{end}");
}

#[test]
fn a_ping_of_websocket_is_answered() {
    let (server, _) = start(opened(1));
    let mut client = Web::open(server.listeners()[1]);
    client.connect("pings");
    let ping = Message::Ping(b"are you there"[..].into());
    client.socket.send(ping).expect("is sent");
    let pong = client.socket.read().expect("an answer");
    assert_eq!(pong, Message::Pong(b"are you there"[..].into()));
}

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\
                       Sec-WebSocket-Version: 13\r\n\r\n";

/// Verifies [MQTT-6.0.0-1] and [MQTT-6.0.0-3], and of RFC 6455 one rule of each kind, at the socket: the peer hears
/// what it did, its connection ends, and a pair beside it goes on.
#[test]
fn whoever_breaks_a_rule_hears_it_and_hurts_nobody() {
    let (server, plain) = start(opened(2));
    let canary = Canary::to_the_end(plain);
    let frames: &[(&str, &[u8], u16)] = &[
        ("text", &[0x81, 0x81, 0, 0, 0, 0, b'a'], 1003),
        ("not masked", &[0x82, 1, b'a'], 1002),
        ("compressed", &[0xC2, 0x81, 0, 0, 0, 0, b'a'], 1002),
        ("reserved opcode", &[0x83, 0x80, 0, 0, 0, 0], 1002),
        ("fragmented ping", &[0x09, 0x80, 0, 0, 0, 0], 1002),
        (
            "too long",
            &[0x82, 0xFF, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            1009,
        ),
        ("status 1006", &[0x88, 0x82, 0, 0, 0, 0, 3, 0xEE], 1002),
    ];
    for (what, frame, code) in frames {
        for is_served in [false, true] {
            let mut peer = Raw::open(server.listeners()[1]);
            peer.say(REQUEST.as_bytes());
            if is_served {
                let connect = connect_v311("breaks");
                let len = u8::try_from(connect.len()).expect("short");
                peer.say(&[&[0x82, 0x80 | len, 0, 0, 0, 0][..], &connect].concat());
            }
            peer.say(frame);
            let mut heard = Vec::new();
            peer.stream.read_to_end(&mut heard).expect("the end");
            let [high, low] = code.to_be_bytes();
            assert!(heard.ends_with(&[0x88, 2, high, low]), "{what}: {heard:?}");
            canary.sing();
        }
    }
    let requests = [
        ("", "\u{1}\u{2}", "400"),
        ("mqtt\r\n", "chat\r\n", "400"),
        ("GET", "POST", "405"),
        ("/mqtt", "/other", "404"),
        ("Upgrade: websocket\r\n", "", "426"),
    ];
    for (from, to, status) in requests {
        let mut peer = Raw::open(server.listeners()[1]);
        peer.say(REQUEST.replacen(from, to, 1).as_bytes());
        let mut heard = String::new();
        peer.stream.read_to_string(&mut heard).expect("the end");
        assert!(heard.starts_with(&format!("HTTP/1.1 {status} ")), "{heard}");
        canary.sing();
    }
}

/// P10: no complete CONNECT in time.
#[test]
fn a_request_that_never_ends_has_the_time_of_a_connect() {
    let mut config = opened(1);
    config.bounds.connect_timeout = Duration::from_millis(300);
    let (server, plain) = start(config);
    let canary = Canary::to_the_end(plain);
    let began = Instant::now();
    let mut silent = Raw::open(server.listeners()[1]);
    let mut slow = Raw::open(server.listeners()[1]);
    slow.say(b"GET /mqtt HTTP/1.1\r\nHost: a\r\n");
    let mut idle = Web::open(server.listeners()[1]);
    canary.sing();
    assert!(silent.is_at_end());
    assert!(slow.is_at_end());
    let end = idle.socket.read().expect("a Close frame");
    assert!(matches!(end, Message::Close(Some(_))), "{end:?}");
    let took = began.elapsed();
    assert!(took < TRICKLED_MAX, "{took:?}");
    canary.sing();
}

/// P10: whatever trickles in, in the request and behind it, the time runs from the beginning.
#[test]
fn a_request_that_trickles_has_the_time_of_a_connect() {
    let mut config = opened(1);
    config.bounds.connect_timeout = Duration::from_millis(300);
    let (server, plain) = start(config);
    let _canary = Canary::to_the_end(plain);
    let connect = connect_v311(&"x".repeat(100));
    let bytes = |all: &[u8]| all.iter().map(|byte| vec![*byte]).collect();
    let cases: [(&str, &str, Vec<Vec<u8>>); 4] = [
        ("a request", "", bytes(REQUEST.as_bytes())),
        (
            "frames",
            REQUEST,
            connect
                .iter()
                .map(|byte| vec![0x82, 0x81, 0, 0, 0, 0, *byte])
                .collect(),
        ),
        (
            "a frame",
            REQUEST,
            bytes(&[&[0x82, 0x80 | 114, 0, 0, 0, 0][..], &connect].concat()),
        ),
        ("pings", REQUEST, vec![vec![0x89, 0x80, 0, 0, 0, 0]; 100]),
    ];
    for (what, first, pieces) in cases {
        let began = Instant::now();
        let mut peer = Raw::open(server.listeners()[1]);
        peer.say(first.as_bytes());
        peer.trickle(&pieces);
        let took = began.elapsed();
        assert!(took < TRICKLED_MAX, "{what}: {took:?}");
        assert!(took >= Duration::from_millis(250), "{what}: {took:?}");
    }
}
