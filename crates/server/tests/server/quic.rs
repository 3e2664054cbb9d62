//! QUIC: who gets in, and what arrives.
//!
//! Owns: [`Over`] (a Client of one stream), [`Relay`] (a network that can be cut). Does not own: what TLS has to say about
//! certificates in general (see `tls`). Start reading at [`over_quic`]. Invariant: every wait has a deadline.

mod abuse;
mod ending;

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

use quinn::crypto::rustls::{HandshakeData, QuicClientConfig};
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig};
use tokio::runtime::Runtime;
use tokio::time::timeout;
use vencejo_server::authentication::{AnonymousPolicy, CertificateUser};
use vencejo_server::config::{
    CertificateFiles, ClientCertificates, Config, ListenerConfig, TlsConfig, Transport,
};
use vencejo_server::{Server, StartError};

use crate::authority::Authority;
use crate::client::{
    PATIENCE, Raw, connect_v5, connect_v311, packet, publish, string, subscribe_v311,
};
use crate::tls::{client_config, tls};
use crate::{config, start};

/// A plain listener, and one of QUIC.
fn over_quic(shards: u16, tls: TlsConfig) -> Config {
    let mut config = config(shards);
    config.limits.maximum_packet_size_bytes = 8 * 1024 * 1024;
    config.listeners.push(ListenerConfig {
        name: "quic".to_owned(),
        tls: Some(tls),
        transport: Transport::Quic,
        ..([127, 0, 0, 1], 0).into()
    });
    config
}

/// A Server with both, and the two addresses.
fn start_quic(config: Config) -> (Server, SocketAddr, SocketAddr) {
    let (server, plain) = start(config);
    let quic = server.listeners()[1];
    (server, plain, quic)
}

/// What drives the Clients.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(1).enable_all();
    builder.build().expect("a runtime")
});

fn within<T>(what: impl Future<Output = T>) -> T {
    RUNTIME
        .block_on(async { timeout(PATIENCE, what).await })
        .expect("in time")
}

/// How Clients connect.
fn config_of(
    authority: &Authority,
    own: Option<&CertificateFiles>,
    alpn: &[u8],
) -> rustls::ClientConfig {
    let config = client_config(authority, &[&rustls::version::TLS13], own);
    let mut config = rustls::ClientConfig::clone(&config);
    config.alpn_protocols = vec![alpn.to_vec()];
    config
}

fn connect_with(
    address: SocketAddr,
    config: rustls::ClientConfig,
    transport: TransportConfig,
) -> Result<(Endpoint, Connection), ConnectionError> {
    let _context = RUNTIME.enter();
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a port");
    let crypto = QuicClientConfig::try_from(config).expect("TLS 1.3");
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport));
    let connecting = endpoint
        .connect_with(config, address, "localhost")
        .expect("can be tried");
    within(connecting).map(|connection| (endpoint, connection))
}

/// A Client over QUIC.
pub(crate) struct Over {
    endpoint: Endpoint,
    connection: Connection,
    writer: SendStream,
    reader: RecvStream,
}

impl Over {
    pub(crate) fn open(address: SocketAddr, authority: &Authority) -> Self {
        let config = config_of(authority, None, b"mqtt");
        Self::open_with(address, config, TransportConfig::default()).expect("is let in")
    }

    fn open_with(
        address: SocketAddr,
        config: rustls::ClientConfig,
        transport: TransportConfig,
    ) -> Result<Self, ConnectionError> {
        let (endpoint, connection) = connect_with(address, config, transport)?;
        let (writer, reader) = within(connection.open_bi())?;
        Ok(Self {
            endpoint,
            connection,
            writer,
            reader,
        })
    }

    /// Connects with 3.1.1 and waits for the CONNACK.
    fn v311(address: SocketAddr, authority: &Authority, client_id: &str) -> Self {
        let mut client = Self::open(address, authority);
        client.say(&connect_v311(client_id));
        assert_eq!(client.hear(4), [0x20, 2, 0, 0]);
        client
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) {
        within(self.writer.write_all(bytes)).expect("the Server reads");
    }

    fn hear(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        within(self.reader.read_exact(&mut bytes)).expect("the Server says");
        bytes
    }

    /// The next packet, which is a short one.
    pub(crate) fn hear_packet(&mut self) -> Vec<u8> {
        let mut packet = self.hear(2);
        assert!(packet[1] < 0x80, "{packet:?}");
        let body = self.hear(usize::from(packet[1]));
        packet.extend_from_slice(&body);
        packet
    }

    /// Connects with 5.0 and waits for the CONNACK.
    fn v5(&mut self, connect: &[u8]) {
        self.say(connect);
        let connack = self.hear_packet();
        assert_eq!((connack[0], connack[3]), (0x20, 0), "{connack:?}");
    }

    fn ping(&mut self) {
        self.say(&[0xC0, 0]);
        assert_eq!(self.hear(2), [0xD0, 0]);
    }

    /// Everything up to the end of the stream.
    fn hear_all(&mut self) -> Vec<u8> {
        within(self.reader.read_to_end(usize::MAX)).expect("an orderly end")
    }

    /// How the connection has ended, which it has to.
    fn end(&self) -> ConnectionError {
        within(self.connection.closed())
    }

    /// Ends in good order.
    fn leave(mut self) {
        self.say(&[0xE0, 0]);
        self.hear_all();
        assert_closed_without_error(&self.end());
    }
}

/// A network between a Client and the Server that can be cut.
struct Relay {
    address: SocketAddr,
    is_up_cut: Arc<AtomicBool>,
    is_down_cut: Arc<AtomicBool>,
    /// Whether the Server has said anything.
    has_answered: Arc<AtomicBool>,
}

impl Relay {
    fn new(to: SocketAddr) -> Self {
        let outer = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let inner = UdpSocket::bind("127.0.0.1:0").expect("a port");
        inner.connect(to).expect("an address");
        let address = outer.local_addr().expect("an address");
        let relay = Self {
            address,
            is_up_cut: Arc::default(),
            is_down_cut: Arc::default(),
            has_answered: Arc::default(),
        };
        let [up, down] = [&relay.is_up_cut, &relay.is_down_cut].map(Arc::clone);
        let has_answered = Arc::clone(&relay.has_answered);
        let mut buffer = [0; 2048];
        let [outer_too, inner_too] = [&outer, &inner].map(|one| one.try_clone().expect("a copy"));
        let (client, of_client) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            while let Ok((len, from)) = outer.recv_from(&mut buffer) {
                client.send(from).ok();
                if !up.load(Ordering::SeqCst) {
                    inner.send(&buffer[..len]).ok();
                }
            }
        });
        std::thread::spawn(move || {
            let client = of_client.recv().expect("it speaks first");
            let mut buffer = [0; 2048];
            while let Ok(len) = inner_too.recv(&mut buffer) {
                has_answered.store(true, Ordering::SeqCst);
                if !down.load(Ordering::SeqCst) {
                    outer_too.send_to(&buffer[..len], client).ok();
                }
            }
        });
        relay
    }

    fn cut(&self) {
        self.is_down_cut.store(true, Ordering::SeqCst);
        self.is_up_cut.store(true, Ordering::SeqCst);
    }
}

fn assert_closed_without_error(end: &ConnectionError) {
    match end {
        ConnectionError::ApplicationClosed(close) => assert_eq!(close.error_code, 0_u32.into()),
        other => panic!("{other:?}"),
    }
}

fn bytes(len: u32) -> Vec<u8> {
    (0..len)
        .map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1] ^ n.to_le_bytes()[2])
        .collect()
}

#[test]
fn a_client_over_quic_is_served_as_any_other() {
    let authority = Authority::new();
    let (_server, plain, quic) = start_quic(over_quic(2, tls(authority.files("a", "localhost"))));
    let mut subscriber = Over::v311(quic, &authority, "subscriber");
    let data = subscriber.connection.handshake_data().expect("has ended");
    let data = data.downcast::<HandshakeData>().expect("of rustls");
    assert_eq!(data.protocol.as_deref(), Some(&b"mqtt"[..]));
    subscriber.say(&subscribe_v311("t", 2));
    assert_eq!(subscriber.hear(5), [0x90, 3, 0, 1, 2]);
    let mut over = Over::v311(quic, &authority, "over");
    let mut beside = Raw::v311(plain, "beside");
    // QoS 2, both ways over QUIC.
    over.say(&packet(
        0x34,
        &[&string("t")[..], &[0, 7], b"twice?"].concat(),
    ));
    assert_eq!(over.hear(4), [0x50, 2, 0, 7]);
    over.say(&[0x62, 2, 0, 7]);
    assert_eq!(over.hear(4), [0x70, 2, 0, 7]);
    let delivery = subscriber.hear(13);
    assert_eq!((delivery[0], &delivery[7..]), (0x34, &b"twice?"[..]));
    subscriber.say(&[0x50, 2, delivery[5], delivery[6]]);
    assert_eq!(subscriber.hear(4), [0x62, 2, delivery[5], delivery[6]]);
    subscriber.say(&[0x70, 2, delivery[5], delivery[6]]);
    // From TCP to QUIC.
    beside.say(&publish("t", 0, b"x"));
    assert_eq!(subscriber.hear(6), publish("t", 0, b"x"));
    for client in [subscriber, over] {
        client.leave();
    }
}

/// What one side has no room for waits on the other, and is neither lost nor sent twice.
#[test]
fn large_messages_over_quic_arrive_whole_at_readers_that_are_slow() {
    let authority = Authority::new();
    let (_server, plain, quic) = start_quic(over_quic(2, tls(authority.files("a", "localhost"))));
    let mut reader = Over::v311(quic, &authority, "reader");
    reader.say(&subscribe_v311("large", 0));
    assert_eq!(reader.hear(5), [0x90, 3, 0, 1, 0]);
    let mut beside = Raw::v311(plain, "beside");
    beside.subscribe("large", 0);
    let mut writer = Over::v311(quic, &authority, "writer");
    for len in [300_000, 5_000_000] {
        let packet = publish("large", 0, &bytes(len));
        writer.say(&packet);
        // Nothing is read meanwhile: every window is shut long before this is all.
        writer.ping();
        assert!(reader.hear(packet.len()) == packet, "other bytes");
        assert!(beside.hear() == packet, "other bytes");
    }
    let many: Vec<u8> = (0..3000_u32)
        .flat_map(|n| publish("large", 0, &n.to_be_bytes()))
        .collect();
    writer.say(&many);
    assert!(reader.hear(many.len()) == many, "other bytes");
}

#[test]
fn over_quic_whoever_does_not_offer_mqtt_is_refused() {
    let authority = Authority::new();
    let (_server, _, quic) = start_quic(over_quic(1, tls(authority.files("a", "localhost"))));
    let config = config_of(&authority, None, b"h3");
    let refused = connect_with(quic, config, TransportConfig::default());
    let error = refused.map(drop).expect_err("no protocol in common");
    // The alert no_application_protocol.
    assert!(error.to_string().contains("120"), "{error}");
}

/// Who connects, and with a CONNACK or without comes to know the outcome.
fn outcome(quic: SocketAddr, config: rustls::ClientConfig, connect: &[u8]) -> Result<u8, String> {
    let opened = Over::open_with(quic, config, TransportConfig::default());
    let mut client = opened.map_err(|error| error.to_string())?;
    let mut connack = [0; 4];
    // A handshake may turn out to have failed only now.
    let told = within(async {
        client.writer.write_all(connect).await.ok();
        client.reader.read_exact(&mut connack).await
    });
    match told {
        Ok(()) => Ok(connack[3]),
        Err(_) => Err(client.end().to_string()),
    }
}

/// P12: the certificate is the proof, over QUIC as over TCP.
#[test]
fn over_quic_certificates_of_clients_are_judged_and_name_users() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let revoked = authority.revoked_files("revoked", "revoked");
    let mut config = over_quic(
        2,
        TlsConfig {
            client_ca: Some(authority.path("ca.pem")),
            client_certificates: ClientCertificates::Required,
            crl: Some(authority.path("crl.pem")),
            ..tls(authority.files("a", "localhost"))
        },
    );
    config.authentication.anonymous = AnonymousPolicy::Never;
    config.authentication.certificate_user = Some(CertificateUser::CommonName);
    let (_server, plain, quic) = start_quic(config);
    let pump = authority.files("pump", "pump");
    let foreign = stranger.files("foreign", "foreign");
    let expired = authority.expired_files("expired", "expired");
    let plain_connect = connect_v311("client");
    let attempt = |own: Option<&CertificateFiles>, connect: &[u8]| {
        outcome(quic, config_of(&authority, own, b"mqtt"), connect)
    };
    assert_eq!(attempt(Some(&pump), &plain_connect), Ok(0));
    // Alerts of TLS, RFC 8446, section 6.
    for (what, own, alert) in [
        ("missing", None, "116"),
        ("foreign", Some(&foreign), "48"),
        ("expired", Some(&expired), "45"),
        ("revoked", Some(&revoked), "44"),
    ] {
        let error = attempt(own, &plain_connect).expect_err(what);
        assert!(error.contains(alert), "{what}: {error}");
    }
    let as_user = |user: &str| {
        let head = [&b"\x00\x04MQTT\x04\x82\x00\x00"[..], &string("client")];
        packet(0x10, &[&head.concat()[..], &string(user)].concat())
    };
    assert_eq!(attempt(Some(&pump), &as_user("pump")), Ok(0));
    assert_eq!(attempt(Some(&pump), &as_user("valve")), Ok(5));
    let mut beside = Raw::open(plain);
    beside.say(&plain_connect);
    assert_eq!(beside.hear(), [0x20, 2, 0, 5]);
}

#[test]
fn over_quic_the_certificate_is_the_one_for_the_name_that_was_asked_for() {
    let authority = Authority::new();
    let other = authority.files("other", "other.example");
    let mut config = tls(other);
    config.certificates.push(authority.files("a", "localhost"));
    let (_server, _, quic) = start_quic(over_quic(1, config));
    Over::v311(quic, &authority, "asks for localhost").leave();
}

/// Early data could be played again by whoever has seen it: it is never taken.
#[test]
fn a_client_that_comes_again_over_quic_sends_nothing_early() {
    let authority = Authority::new();
    let (_server, _, quic) = start_quic(over_quic(1, tls(authority.files("a", "localhost"))));
    let mut config = config_of(&authority, None, b"mqtt");
    config.enable_early_data = true;
    let crypto = QuicClientConfig::try_from(config).expect("TLS 1.3");
    let config = quinn::ClientConfig::new(Arc::new(crypto));
    let _context = RUNTIME.enter();
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a port");
    let connect = || endpoint.connect_with(config.clone(), quic, "localhost");
    let first = within(connect().expect("can be tried")).expect("is let in");
    let (mut writer, mut reader) = within(first.open_bi()).expect("a stream");
    within(writer.write_all(&connect_v311("first"))).expect("is read");
    within(reader.read_exact(&mut [0; 4])).expect("CONNACK");
    // It has the tickets now: they come right behind the handshake.
    let early = connect().expect("can be tried").into_0rtt();
    assert!(early.is_err(), "there are keys for early data");
}

#[test]
fn a_second_stream_cannot_be_opened() {
    let authority = Authority::new();
    let (_server, _, quic) = start_quic(over_quic(1, tls(authority.files("a", "localhost"))));
    let mut client = Over::v311(quic, &authority, "one");
    let connection = client.connection.clone();
    let second = RUNTIME.spawn(async move { connection.open_bi().await.map(drop) });
    let connection = client.connection.clone();
    let one_way = RUNTIME.spawn(async move { connection.open_uni().await.map(drop) });
    for _ in 0..20 {
        client.ping();
    }
    assert!(!second.is_finished() && !one_way.is_finished());
    assert_eq!(client.connection.max_datagram_size(), None);
    client.leave();
    // They hear of the end.
    assert!(within(second).expect("no panic").is_err());
    assert!(within(one_way).expect("no panic").is_err());
}

#[test]
fn a_reload_shows_new_certificates_over_quic_and_drops_nobody() {
    let authority = Authority::new();
    let before = over_quic(2, tls(authority.files("a", "localhost")));
    let (server, _, quic) = start_quic(before.clone());
    let mut stays = Over::v311(quic, &authority, "stays");
    let successor = Authority::new();
    let mut after = before;
    after.listeners[1].tls = Some(tls(successor.files("a", "localhost")));
    after.listeners[1].connections_max = Some(3);
    let reloaded = server.reload(after.clone()).expect("is taken over");
    assert_eq!(reloaded.left, [""; 0]);
    let _new = Over::v311(quic, &successor, "new");
    let config = config_of(&authority, None, b"mqtt");
    let old = connect_with(quic, config, TransportConfig::default());
    let error = old.map(drop).expect_err("an unknown root");
    assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    stays.ping();
    // A key that does not fit: all stays as it is.
    let mut broken = after.clone();
    broken.listeners[1].tls = Some(tls(CertificateFiles {
        key: authority.files("other", "localhost").key,
        ..successor.files("b", "localhost")
    }));
    let error = server.reload(broken).expect_err("does not fit");
    assert!(error.to_string().contains("does not go with"), "{error}");
    let _third = Over::v311(quic, &successor, "third");
    // The limit counts as well, and those who were there before it.
    let mut over = Over::open(quic, &successor);
    over.say(&connect_v5("over", 0, &[], &[]));
    assert_eq!(over.hear_all()[3], 0x97);
    // What carries the packets cannot change; nothing else takes the port.
    after.listeners[1].transport = Transport::Stream;
    let left = server.reload(after).expect("is taken over").left;
    assert_eq!(left, ["listeners"]);
    stays.ping();
}

#[test]
fn a_port_of_udp_that_is_taken_is_an_error() {
    let authority = Authority::new();
    let taken = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let mut config = over_quic(1, tls(authority.files("a", "localhost")));
    config.listeners[1].address = address.into();
    let error = Server::start(config.clone()).expect_err("is in use");
    assert!(matches!(error, StartError::Listen { addr, .. } if addr == address));
    assert!(
        error
            .to_string()
            .ends_with("another program has this port of UDP")
    );
    drop(taken);
    // A Server is as alone there as any other program.
    let (_server, _) = start(config.clone());
    let error = Server::start(config).expect_err("is in use");
    assert!(matches!(error, StartError::Listen { .. }), "{error}");
}

/// Ports of UDP and of TCP are two things.
#[test]
fn one_port_number_serves_tcp_and_quic_also_with_ipv6() {
    let authority = Authority::new();
    let (first, plain) = start(config(1));
    drop(first);
    let mut config = over_quic(1, tls(authority.files("a", "localhost")));
    let address: SocketAddr = (std::net::Ipv6Addr::LOCALHOST, plain.port()).into();
    config.listeners[0].address = address.into();
    config.listeners[1].address = address.into();
    let (_server, plain, quic) = start_quic(config);
    assert_eq!(plain, quic);
    Raw::v311(plain, "over-tcp").ping();
    let _context = RUNTIME.enter();
    let endpoint = Endpoint::client((std::net::Ipv6Addr::LOCALHOST, 0).into()).expect("a port");
    let crypto = QuicClientConfig::try_from(config_of(&authority, None, b"mqtt"));
    let config = quinn::ClientConfig::new(Arc::new(crypto.expect("TLS 1.3")));
    let connecting = endpoint.connect_with(config, quic, "localhost");
    let connection = within(connecting.expect("can be tried")).expect("is let in");
    let (mut writer, mut reader) = within(connection.open_bi()).expect("a stream");
    within(writer.write_all(&connect_v311("over-udp"))).expect("is read");
    within(reader.read_exact(&mut [0; 4])).expect("CONNACK");
}
