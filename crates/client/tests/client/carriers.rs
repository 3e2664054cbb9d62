//! A Client over TLS, secure WebSocket and QUIC, and with proofs by SCRAM, against our own server in this process.
//!
//! Owns: the listeners and users of each test. Does not own: whom TLS believes (see `tls`), Servers that lie
//! about a proof (see `authentication`). Start reading at [`a_client_lives_on_over_every_secured_way`].
//! Invariant: an application sees the same over each.

use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;
use vencejo_client::proto::Secret;
use vencejo_client::proto::packet::ReasonCode;
use vencejo_client::{
    Client, Error, Options, Outage, Publication, Qos, Reconnect, Refusal, ScramSha256, State, Tls,
    Version,
};
use vencejo_test::Broker;
use vencejo_test::server::Server;
use vencejo_test::server::authentication::{
    BoundKeys, NewUser, ScramKeys, StoredPassword, UserChange,
};
use vencejo_test::server::config::{
    CertificateFiles, ClientCertificates, Config, ListenerConfig, StorageConfig, TlsConfig,
    TlsVersion, Transport,
};
use vencejo_test::server::persist::{self, ControlAnswer, ControlRequest};

use crate::authority::Authority;
use crate::{DEADLINE, TempFolder};

/// Delays that suit a test.
const SOON: Reconnect = Reconnect {
    delay_min: Duration::from_millis(20),
    delay_max: Duration::from_millis(200),
    attempts_max: None,
};
/// Which listener, and what a URL calls it.
const WAYS: [(usize, &str); 3] = [(1, "mqtts"), (2, "wss"), (3, "quic")];

/// Certificates of a server and of a client, and who has signed them.
struct Certificates {
    authority: Authority,
    server: CertificateFiles,
    client: CertificateFiles,
}

impl Certificates {
    fn new() -> Self {
        let authority = Authority::new();
        let [server, client] = ["localhost", "client"].map(|name| {
            let (certificate, key) = authority.files(name);
            CertificateFiles { certificate, key }
        });
        Self {
            authority,
            server,
            client,
        }
    }

    /// A listener for each of [`WAYS`].
    fn listeners(&self) -> [ListenerConfig; 3] {
        [
            self.listener("tls", Transport::Stream),
            self.listener("wss", Transport::WebSocket),
            self.listener("quic", Transport::Quic),
        ]
    }

    /// A listener that asks for a certificate.
    fn listener(&self, name: &str, transport: Transport) -> ListenerConfig {
        ListenerConfig {
            name: name.to_owned(),
            tls: Some(TlsConfig {
                certificates: vec![self.server.clone()],
                client_ca: Some(self.authority.root_file()),
                client_certificates: ClientCertificates::Required,
                crl: None,
                min_version: TlsVersion::Tls12,
            }),
            transport,
            ..([127, 0, 0, 1], 0).into()
        }
    }

    fn roots(&self) -> Tls {
        // What the test connects to is an address.
        self.authority.roots().server_name("localhost")
    }

    fn own(&self) -> Tls {
        let CertificateFiles { certificate, key } = &self.client;
        self.roots().client_certificate(certificate, key).unwrap()
    }
}

async fn publish(client: &Client, payload: &str) {
    let publication = Publication::new("a/b", payload.to_owned(), Qos::ExactlyOnce);
    let published = timeout(DEADLINE, client.publish(publication)).await;
    assert!(!published.unwrap().unwrap().reason.is_error());
}

/// TLS, WebSocket inside of TLS, and QUIC: large messages go both ways at QoS 2, also after the server has ended the
/// connection.
#[tokio::test]
async fn a_client_lives_on_over_every_secured_way() {
    let certificates = Certificates::new();
    let broker = Broker::start_with(|config| {
        config.listeners.extend(certificates.listeners());
    });
    let server = broker.server().unwrap();
    for (at, scheme) in WAYS {
        for version in [Version::V5, Version::V311] {
            let url = format!("{scheme}://{}", server.listeners()[at]);
            let options = Options::from_url(&url)
                .unwrap()
                .tls(certificates.own())
                .reconnect(SOON)
                .client_id("me")
                .clean_start(false)
                .version(version);
            let client = Client::connect(options).await.unwrap();
            let mut messages = client.subscribe("a/b", Qos::ExactlyOnce).await.unwrap();
            for round in 0..3 {
                let payload = format!("{round}{}", "x".repeat(300_000));
                publish(&client, &payload).await;
                let message = timeout(DEADLINE, messages.next()).await.unwrap().unwrap();
                assert!(message.payload == payload, "{url}");
                let mut state = client.state();
                state.mark_unchanged();
                assert!(server.disconnect("me"), "{url}");
                let is_lost = |state: &State| matches!(state, State::Disconnected { .. });
                let lost = timeout(DEADLINE, state.wait_for(is_lost)).await;
                lost.unwrap().unwrap();
            }
            publish(&client, "the last").await;
            let message = timeout(DEADLINE, messages.next()).await.unwrap().unwrap();
            assert_eq!(message.payload, "the last", "{url}");
            client.disconnect().await;
        }
    }
}

/// Who has no certificate to show, or does not believe the server's, hears that at once, and whose it is to mend.
#[tokio::test]
async fn a_client_that_is_not_let_in_says_why() {
    let (certificates, others) = (Certificates::new(), Certificates::new());
    let broker = Broker::start_with(|config| {
        config.listeners.extend(certificates.listeners());
    });
    let server = broker.server().unwrap();
    for (at, scheme) in WAYS {
        let url = format!("{scheme}://{}", server.listeners()[at]);
        let options = |tls| Options::from_url(&url).unwrap().tls(tls);
        let connect = async |tls| {
            let connected = timeout(DEADLINE, Client::connect(options(tls))).await;
            let error = connected.unwrap().unwrap_err();
            assert!(
                matches!(error, Error::Network(Outage::Connect(_))),
                "{url}: {error:?}"
            );
            error.to_string()
        };
        let unknown = connect(others.own()).await;
        assert!(
            unknown.contains("UnknownIssuer") || unknown.contains("unknown"),
            "{url}: {unknown}"
        );
        let bare = connect(certificates.roots()).await;
        assert!(bare.to_lowercase().contains("certificate"), "{url}: {bare}");
    }
}

/// A server with its data in `folder`, and the user anna.
fn server_with_anna(folder: &Path) -> Server {
    let config = Config {
        listeners: vec![([127, 0, 0, 1], 0).into()],
        storage: StorageConfig {
            data: folder.to_owned(),
            segment_bytes: 256 * 1024,
            spares: 0,
            disk_low_bytes: Some(0),
            ..StorageConfig::default()
        },
        ..Config::default()
    };
    let server = Server::start(config).unwrap();
    let stored = StoredPassword::new(b"word").unwrap();
    let salt = ScramKeys::salt_in(folder, "anna").unwrap();
    let user = NewUser {
        name: "anna".to_owned(),
        scram: BoundKeys::derive(b"word", &salt, &stored),
        password: stored,
        administrator: false,
        groups: ["people".to_owned()].into(),
        attributes: std::collections::BTreeMap::new(),
    };
    let request = ControlRequest::User {
        change: Box::new(UserChange::Add(user)),
    };
    let answer = persist::ask(folder, &request).unwrap();
    assert_eq!(answer, Some(ControlAnswer::Done));
    server
}

/// Verifies [MQTT-4.12.0-2] [MQTT-4.12.0-3] [MQTT-4.12.1-1]: the password is proven at each connection and again while
/// connected, with messages meanwhile; a wrong one is refused in the Server's words.
#[tokio::test]
async fn a_client_proves_its_password_to_our_server_at_every_connection() {
    let folder = TempFolder::new();
    let server = server_with_anna(folder.path());
    let address = server.listeners()[0];
    let options = |password: &'static str| {
        let proof = ScramSha256::new("anna", Secret::new(password));
        Options::new(address.ip().to_string(), address.port())
            .client_id("me")
            .reconnect(SOON)
            .authenticator(proof)
    };
    let client = Client::connect(options("word")).await.unwrap();
    let mut messages = client.subscribe("a/b", Qos::ExactlyOnce).await.unwrap();
    for round in 0..3 {
        let (proven, ()) = tokio::join!(
            timeout(DEADLINE, client.reauthenticate()),
            publish(&client, "meanwhile"),
        );
        proven.unwrap().unwrap();
        let message = timeout(DEADLINE, messages.next()).await.unwrap().unwrap();
        assert_eq!(message.payload, "meanwhile", "{round}");
        let mut state = client.state();
        assert!(server.disconnect("me"));
        let is_lost = |state: &State| matches!(state, State::Disconnected { .. });
        timeout(DEADLINE, state.wait_for(is_lost))
            .await
            .unwrap()
            .unwrap();
        let offline = client.reauthenticate().await;
        assert!(
            matches!(offline, Err(Error::Network(Outage::Offline))),
            "{offline:?}"
        );
        let is_back = |state: &State| matches!(state, State::Connected { .. });
        timeout(DEADLINE, state.wait_for(is_back))
            .await
            .unwrap()
            .unwrap();
    }
    let wrong = timeout(DEADLINE, Client::connect(options("ward")))
        .await
        .unwrap();
    match wrong.unwrap_err() {
        Error::Server(Refusal::Connect(connack)) => {
            assert_eq!(connack.reason, ReasonCode::BadUserNameOrPassword);
        }
        other => panic!("{other:?}"),
    }
    client.disconnect().await;
}
