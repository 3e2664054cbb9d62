//! QUIC against a Server that a test plays by hand: who is believed, that all bytes arrive, and how it ends.
//!
//! Owns: that Server. Does not own: its certificates (see `tls`). Start reading at [`serve`]. Invariant: what holds over TLS holds here.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Endpoint, RecvStream, SendStream};
use rustls::ServerConfig;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use vencejo_client::{
    ConnectError, Connection, DisconnectCause, Event, Events, Options, Tls, TlsVersion,
};

use crate::DEADLINE;
use crate::authority::Authority;
use crate::tls::{CONNACK, assert_arrived, large, publish_and_leave, server};

/// A connection as the Server sees it, once it has answered CONNECT.
struct Served {
    connection: quinn::Connection,
    writer: SendStream,
    reader: RecvStream,
}

/// Listens, takes one connection, what comes first, and answers with CONNACK.
fn serve(config: ServerConfig, at: SocketAddr) -> (u16, JoinHandle<Option<Served>>) {
    let crypto = QuicServerConfig::try_from(config).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    let endpoint = Endpoint::server(config, at).unwrap();
    let port = endpoint.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let connection = endpoint.accept().await?.await.ok()?;
        let (mut writer, mut reader) = connection.accept_bi().await.ok()?;
        let mut connect = [0; 512];
        let read = reader.read(&mut connect).await.ok()??;
        assert!(read > 0, "CONNECT");
        writer.write_all(CONNACK).await.ok()?;
        Some(Served {
            connection,
            writer,
            reader,
        })
    });
    (port, served)
}

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

async fn open(host: &str, port: u16, tls: Tls) -> Result<(Connection, Events), ConnectError> {
    let options = Options::new(host, port).tls(tls).quic();
    timeout(DEADLINE, Connection::connect(options))
        .await
        .unwrap()
}

async fn refused(port: u16, tls: Tls) -> String {
    let error = open("127.0.0.1", port, tls).await.unwrap_err();
    assert!(matches!(error, ConnectError::Tls(_)), "{error:?}");
    error.to_string()
}

#[tokio::test]
async fn a_connection_over_quic_offers_mqtt_and_one_stream() {
    let authority = Authority::new();
    let (port, served) = serve(server(&authority, "127.0.0.1", false), loopback());
    let (_client, _events) = open("127.0.0.1", port, authority.roots()).await.unwrap();
    let served = served.await.unwrap().unwrap();
    let data = served.connection.handshake_data().unwrap();
    let data = data.downcast::<quinn::crypto::rustls::HandshakeData>();
    assert_eq!(data.unwrap().protocol.as_deref(), Some(&b"mqtt"[..]));
}

#[tokio::test]
async fn over_quic_ipv6_is_spoken() {
    let authority = Authority::new();
    let at = (Ipv6Addr::LOCALHOST, 0).into();
    let (port, served) = serve(server(&authority, "::1", false), at);
    let (_client, _events) = open("::1", port, authority.roots()).await.unwrap();
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn over_quic_a_server_is_believed_as_over_tls() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (port, _) = serve(server(&stranger, "127.0.0.1", false), loopback());
    let error = refused(port, authority.roots()).await;
    assert!(error.contains("UnknownIssuer"), "{error}");
    let (port, _) = serve(server(&authority, "other.example", false), loopback());
    let error = refused(port, authority.roots()).await;
    assert!(error.contains("not valid for name"), "{error}");
    let (port, served) = serve(server(&authority, "other.example", false), loopback());
    open("127.0.0.1", port, authority.roots().skip_host_name())
        .await
        .unwrap();
    served.await.unwrap().unwrap();
}

#[tokio::test]
async fn over_quic_a_server_that_asks_for_a_certificate_gets_ours() {
    let authority = Authority::new();
    let (chain, key) = authority.files("client");
    let (port, served) = serve(server(&authority, "127.0.0.1", true), loopback());
    let tls = authority.roots().client_certificate(chain, key).unwrap();
    open("127.0.0.1", port, tls).await.unwrap();
    let served = served.await.unwrap().unwrap();
    assert!(served.connection.peer_identity().is_some());
    let (port, served) = serve(server(&authority, "127.0.0.1", true), loopback());
    let error = open("127.0.0.1", port, authority.roots())
        .await
        .unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    assert!(served.await.unwrap().is_none());
}

#[tokio::test]
async fn over_quic_other_protocols_and_older_tls_are_refused() {
    let authority = Authority::new();
    let (port, _) = serve(server(&authority, "127.0.0.1", false), loopback());
    let error = refused(port, authority.roots().alpn("h3")).await;
    assert!(error.contains("NoApplicationProtocol"), "{error}");
    let error = refused(port, authority.roots().version(TlsVersion::Tls12)).await;
    assert!(error.contains("TLS 1.3"), "{error}");
}

/// What the window does not take waits: nothing of it may be left behind or come twice, and DISCONNECT is the end.
#[tokio::test]
async fn over_quic_a_large_message_arrives_whole() {
    let authority = Authority::new();
    let (port, served) = serve(server(&authority, "127.0.0.1", false), loopback());
    let (client, _events) = open("127.0.0.1", port, authority.roots()).await.unwrap();
    let (publication, payload) = large();
    let published = publish_and_leave(client, publication);
    let mut served = served.await.unwrap().unwrap();
    let bytes = timeout(DEADLINE, served.reader.read_to_end(6_000_000))
        .await
        .unwrap()
        .unwrap();
    served.writer.finish().unwrap();
    published.await.unwrap();
    assert_arrived(&bytes, &payload);
}

/// The last words of a Server arrive, and a close without an error is the end of the stream, as with TCP.
#[tokio::test]
async fn over_quic_the_end_of_a_connection_is_told_as_over_tcp() {
    for says_why in [true, false] {
        let authority = Authority::new();
        let (port, served) = serve(server(&authority, "127.0.0.1", false), loopback());
        let (_client, mut events) = open("127.0.0.1", port, authority.roots()).await.unwrap();
        let mut served = served.await.unwrap().unwrap();
        if says_why {
            served.writer.write_all(&[0xE0, 2, 0x8B, 0]).await.unwrap();
            served.writer.finish().unwrap();
            served.writer.stopped().await.unwrap();
        }
        served.connection.close(0_u32.into(), b"");
        let event = timeout(DEADLINE, events.recv()).await.unwrap();
        let Some(Event::Disconnected(ended)) = event else {
            panic!("{event:?}");
        };
        match ended.cause {
            DisconnectCause::ByServer(_) if says_why => {}
            DisconnectCause::Closed if !says_why => {}
            cause => panic!("{cause:?}"),
        }
    }
}
