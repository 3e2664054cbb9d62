//! TLS against a Server that a test plays by hand: who is believed, who is not, and that all bytes arrive.
//!
//! Owns: that Server. Does not own: anything of MQTT beyond one exchange (see `driver`).
//! Start reading at [`serve`]. Invariant: who is believed is believed by a certificate of the test.

use std::sync::Arc;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use vencejo_client::proto::Qos;
use vencejo_client::proto::packet::{Disconnect, ReasonCode};
use vencejo_client::{ConnectError, Connection, Options, Publication, Tls, TlsError, TlsVersion};

use crate::DEADLINE;
use crate::authority::Authority;

/// CONNACK of 5.0 with Success.
pub(crate) const CONNACK: &[u8] = &[0x20, 3, 0, 0, 0];

/// A Server with a certificate for `name`, that asks for one of a client if `asks` says so.
pub(crate) fn server(authority: &Authority, name: &str, asks: bool) -> ServerConfig {
    let (certificate, key) = authority.sign(name);
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone()).unwrap();
    let builder = if asks {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
        builder.with_client_cert_verifier(verifier.unwrap())
    } else {
        builder.with_no_client_auth()
    };
    let mut config = builder
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"mqtt".to_vec()];
    config
}

/// A publication that takes many turns of the socket, with its payload.
pub(crate) fn large() -> (Publication, Vec<u8>) {
    let payload: Vec<u8> = (0..5_000_000_u32)
        .map(|number| number.to_le_bytes()[0] ^ number.to_le_bytes()[2])
        .collect();
    let publication = Publication::new("large", payload.clone(), Qos::AtMostOnce);
    (publication, payload)
}

/// Publishes it, and says goodbye.
pub(crate) fn publish_and_leave(client: Connection, publication: Publication) -> JoinHandle<()> {
    tokio::spawn(async move {
        client.publish(publication).await.unwrap();
        let goodbye = Disconnect::new(ReasonCode::Success);
        client.disconnect(goodbye).await.unwrap();
    })
}

/// That `bytes` end with the payload, whole, and DISCONNECT.
#[track_caller]
pub(crate) fn assert_arrived(bytes: &[u8], payload: &[u8]) {
    let at = bytes
        .windows(64)
        .position(|window| window == &payload[..64]);
    let at = at.unwrap();
    assert!(bytes[at..at + payload.len()] == *payload, "other bytes");
    assert_eq!(bytes[at + payload.len()..][..1], [0xE0], "DISCONNECT");
}

/// Listens for one connection, takes what comes first and answers with CONNACK.
async fn serve(config: ServerConfig) -> (u16, JoinHandle<Option<TlsStream<TcpStream>>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (socket, _) = listener.accept().await.unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let mut stream = acceptor.accept(socket).await.ok()?;
        let mut connect = [0; 512];
        let read = stream.read(&mut connect).await.ok()?;
        assert!(read > 0, "CONNECT");
        stream.write_all(CONNACK).await.ok()?;
        stream.flush().await.ok()?;
        Some(stream)
    });
    (port, served)
}

async fn connect(port: u16, tls: Tls) -> Result<Connection, ConnectError> {
    let options = Options::new("127.0.0.1", port).tls(tls);
    let connected = timeout(DEADLINE, Connection::connect(options))
        .await
        .unwrap();
    connected.map(|(client, _)| client)
}

fn handshake_error(result: Result<Connection, ConnectError>) -> String {
    match result {
        Err(ConnectError::Tls(TlsError::Handshake(error))) => error.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_server_whose_certificate_is_believed_is_connected_to_with_every_version() {
    let authority = Authority::new();
    for version in [None, Some(TlsVersion::Tls12), Some(TlsVersion::Tls13)] {
        let (port, served) = serve(server(&authority, "127.0.0.1", false)).await;
        let mut tls = authority.roots().alpn("mqtt");
        if let Some(version) = version {
            tls = tls.version(version);
        }
        connect(port, tls).await.unwrap();
        let stream = served.await.unwrap().unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"mqtt"[..]));
    }
}

#[tokio::test]
async fn a_server_that_a_stranger_has_vouched_for_is_not_believed() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (port, _) = serve(server(&stranger, "127.0.0.1", false)).await;
    let error = handshake_error(connect(port, authority.roots()).await);
    assert!(error.contains("UnknownIssuer"), "{error}");
    let (port, _) = serve(server(&stranger, "127.0.0.1", false)).await;
    let error = handshake_error(connect(port, authority.roots().skip_host_name()).await);
    assert!(error.contains("UnknownIssuer"), "{error}");
    let (port, _) = serve(server(&stranger, "127.0.0.1", false)).await;
    connect(port, authority.roots().skip_verification())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_certificate_for_another_host_is_believed_only_on_demand() {
    let authority = Authority::new();
    let (port, _) = serve(server(&authority, "other.example", false)).await;
    let error = handshake_error(connect(port, authority.roots()).await);
    assert!(error.contains("not valid for name"), "{error}");
    let (port, _) = serve(server(&authority, "other.example", false)).await;
    connect(port, authority.roots().skip_host_name())
        .await
        .unwrap();
    let (port, _) = serve(server(&authority, "other.example", false)).await;
    connect(port, authority.roots().server_name("other.example"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_gets_ours() {
    let authority = Authority::new();
    let (chain, key) = authority.files("client");
    let (port, served) = serve(server(&authority, "127.0.0.1", true)).await;
    let tls = authority.roots().client_certificate(chain, key).unwrap();
    connect(port, tls).await.unwrap();
    let stream = served.await.unwrap().unwrap();
    assert_eq!(
        stream.get_ref().1.peer_certificates().map(<[_]>::len),
        Some(1)
    );
    // TLS 1.3 tells of a missing one only after the handshake.
    let (port, served) = serve(server(&authority, "127.0.0.1", true)).await;
    let error = connect(port, authority.roots()).await.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
    assert!(served.await.unwrap().is_none());
}

/// TLS keeps what the socket does not take: nothing of it may be left behind or come twice.
#[tokio::test]
async fn a_large_message_arrives_whole() {
    let authority = Authority::new();
    let (port, served) = serve(server(&authority, "127.0.0.1", false)).await;
    let client = connect(port, authority.roots()).await.unwrap();
    let (publication, payload) = large();
    let published = publish_and_leave(client, publication);
    let mut stream = served.await.unwrap().unwrap();
    let mut bytes = Vec::new();
    timeout(DEADLINE, stream.read_to_end(&mut bytes))
        .await
        .unwrap()
        .unwrap();
    published.await.unwrap();
    assert_arrived(&bytes, &payload);
}

#[test]
fn files_that_are_no_certificates_are_named() {
    let authority = Authority::new();
    let path = authority.folder.write("noise.pem", "noise");
    let error = Tls::new().root_file(&path).unwrap_err().to_string();
    assert!(
        error.contains("noise.pem: there is no certificate in it"),
        "{error}"
    );
    let error = Tls::new().root_file("/nowhere").unwrap_err();
    assert!(matches!(error, TlsError::File { .. }), "{error:?}");
    assert!(Tls::new().root_folder(authority.folder.path()).is_ok());
    std::fs::remove_file(authority.root_file()).unwrap();
    assert!(Tls::new().root_folder(authority.folder.path()).is_err());
    let key = authority.folder.write("none.key", "noise");
    let (certificate, _) = authority.sign("client");
    std::fs::write(&path, certificate.pem()).unwrap();
    let error = Tls::new().client_certificate(&path, &key).unwrap_err();
    assert!(
        error.to_string().contains("there is no key in it"),
        "{error}"
    );
}
