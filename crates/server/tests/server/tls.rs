//! TLS: who gets in, who does not, and certificates that change meanwhile.
//!
//! Owns: [`Secured`], [`secured`], [`client_config`]. Does not own: abuse (see `abuse`), certificates (see `authority`).
//! Start reading at [`Secured`]. Invariant: of two listeners the second is the one with TLS.

mod abuse;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
};
use vencejo_server::authentication::{
    AnonymousPolicy, Attempt, Authentication, Authenticator, CertificateUser, Decision, Exchange,
    Identity,
};
use vencejo_server::config::{
    CertificateFiles, ClientCertificates, Config, ListenerConfig, TlsConfig, TlsVersion,
};
use vencejo_server::{ReloadError, Server, StartError};

use crate::authority::Authority;
use crate::canary::Canary;
use crate::client::{Raw, connect_v311, packet, publish, string, subscribe_v311};
use crate::{config, start};

/// TLS with this certificate, and nothing asked of Clients.
pub(crate) fn tls(certificate: CertificateFiles) -> TlsConfig {
    TlsConfig {
        certificates: vec![certificate],
        client_ca: None,
        client_certificates: ClientCertificates::None,
        crl: None,
        min_version: TlsVersion::Tls12,
    }
}

/// A plain listener, and one with `tls`.
pub(crate) fn secured(shards: u16, tls: TlsConfig) -> Config {
    let mut config = config(shards);
    config.listeners.push(ListenerConfig {
        name: "secure".to_owned(),
        tls: Some(tls),
        ..([127, 0, 0, 1], 0).into()
    });
    config
}

/// A Server with both, and the two addresses.
fn start_secured(shards: u16, tls: TlsConfig) -> (Server, SocketAddr, SocketAddr) {
    let (server, plain) = start(secured(shards, tls));
    let secure = server.listeners()[1];
    (server, plain, secure)
}

/// How a Client makes its handshakes.
pub(crate) fn client_config(
    authority: &Authority,
    versions: &[&'static SupportedProtocolVersion],
    own: Option<&CertificateFiles>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.root.clone()).expect("a root");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let chain = CertificateDer::pem_file_iter(&own.certificate).expect("a file");
            let chain = chain.map(|one| one.expect("a certificate")).collect();
            let key = PrivateKeyDer::from_pem_file(&own.key).expect("a key");
            builder.with_client_auth_cert(chain, key).expect("fits")
        }
    };
    config.alpn_protocols = vec![b"mqtt".to_vec()];
    Arc::new(config)
}

pub(crate) fn any(authority: &Authority) -> Arc<ClientConfig> {
    client_config(authority, rustls::DEFAULT_VERSIONS, None)
}

/// A Client over TLS.
pub(crate) struct Secured {
    pub(crate) stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Secured {
    pub(crate) fn open(address: SocketAddr, config: Arc<ClientConfig>, name: &'static str) -> Self {
        let stream = Raw::open(address).stream;
        let name = ServerName::try_from(name).expect("a name");
        let session = ClientConnection::new(config, name).expect("a configuration");
        Self {
            stream: StreamOwned::new(session, stream),
        }
    }

    /// Connects with 3.1.1 and waits for the CONNACK; what went wrong if it does not come.
    pub(crate) fn connect(
        address: SocketAddr,
        config: Arc<ClientConfig>,
        client_id: &str,
    ) -> Result<Self, String> {
        let mut client = Self::open(address, config, "localhost");
        let mut connack = [0; 4];
        client
            .stream
            .write_all(&connect_v311(client_id))
            .and_then(|()| client.stream.flush())
            .and_then(|()| client.stream.read_exact(&mut connack))
            .map_err(|error| error.to_string())?;
        assert_eq!(connack, [0x20, 2, 0, 0]);
        Ok(client)
    }

    pub(crate) fn say(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the Server reads");
        self.stream.flush().expect("the Server reads");
    }

    pub(crate) fn hear(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes).expect("the Server says");
        bytes
    }
}

#[test]
fn clients_of_every_version_talk_to_one_another_and_to_plain_ones() {
    let authority = Authority::new();
    let (_server, plain, secure) = start_secured(3, tls(authority.files("a", "localhost")));
    let mut subscriber = Raw::v311(plain, "plain");
    subscriber.subscribe("t", 1);
    let versions = [&rustls::version::TLS12, &rustls::version::TLS13];
    for (n, version) in versions.iter().enumerate() {
        let config = client_config(&authority, &[version], None);
        // Of several, some have their home in another shard.
        for more in 0..6 {
            let name = format!("tls-{n}-{more}");
            let mut client =
                Secured::connect(secure, Arc::clone(&config), &name).expect("is let in");
            let session = &client.stream.conn;
            assert_eq!(session.protocol_version(), Some(version.version));
            assert_eq!(session.alpn_protocol(), Some(&b"mqtt"[..]));
            client.say(&publish("t", 7, name.as_bytes()));
            assert_eq!(client.hear(4), [0x40, 2, 0, 7]);
            let packet = subscriber.hear();
            assert!(packet.ends_with(name.as_bytes()));
            subscriber.say(&[0x40, 2, packet[5], packet[6]]);
        }
    }
}

/// What TLS has taken and TCP has not is neither lost nor sent twice.
#[test]
fn large_messages_arrive_whole_at_readers_that_are_slow() {
    let authority = Authority::new();
    let mut config = secured(2, tls(authority.files("a", "localhost")));
    config.limits.maximum_packet_size_bytes = 8 * 1024 * 1024;
    let (server, _) = start(config);
    let secure = server.listeners()[1];
    let mut reader = Secured::connect(secure, any(&authority), "reader").expect("is let in");
    reader.say(&subscribe_v311("large", 0));
    assert_eq!(reader.hear(5), [0x90, 3, 0, 1, 0]);
    let payload: Vec<u8> = (0..5_000_000_u32)
        .map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1] ^ n.to_le_bytes()[2])
        .collect();
    let packet = publish("large", 0, &payload);
    let mut writer = Secured::connect(secure, any(&authority), "writer").expect("is let in");
    // Nothing is read meanwhile: the sockets are full long before this is all.
    writer.say(&packet);
    writer.say(&[0xC0, 0]);
    assert_eq!(writer.hear(2), [0xD0, 0]);
    assert!(reader.hear(packet.len()) == packet, "other bytes");
    // And many small ones in one turn.
    let many: Vec<u8> = (0..3000_u32)
        .flat_map(|n| publish("large", 0, &n.to_be_bytes()))
        .collect();
    writer.say(&many);
    assert!(reader.hear(many.len()) == many, "other bytes");
}

/// Without close_notify a Client cannot tell an end from an attack.
#[test]
fn the_end_of_a_connection_is_said() {
    let authority = Authority::new();
    let (_server, _, secure) = start_secured(1, tls(authority.files("a", "localhost")));
    let mut client = Secured::connect(secure, any(&authority), "leaves").expect("is let in");
    client.say(&[0xE0, 0]);
    let mut rest = Vec::new();
    client.stream.read_to_end(&mut rest).expect("close_notify");
    assert_eq!(rest, [0; 0]);
}

#[test]
fn a_client_that_comes_again_makes_half_a_handshake() {
    let authority = Authority::new();
    let (_server, _, secure) = start_secured(2, tls(authority.files("a", "localhost")));
    let config = any(&authority);
    let mut first = Secured::connect(secure, Arc::clone(&config), "first").expect("is let in");
    first.say(&[0xC0, 0]);
    first.hear(2);
    let second = Secured::connect(secure, config, "second").expect("is let in");
    let kind = second.stream.conn.handshake_kind();
    assert_eq!(kind, Some(HandshakeKind::Resumed));
}

#[test]
fn the_certificate_is_the_one_for_the_name_that_was_asked_for() {
    let authority = Authority::new();
    let mut config = tls(authority.files("a", "localhost"));
    config
        .certificates
        .push(authority.files("b", "broker.example"));
    let (_server, _, secure) = start_secured(1, config);
    for name in ["localhost", "broker.example"] {
        let mut client = Secured::open(secure, any(&authority), name);
        client.say(&connect_v311(name));
        assert_eq!(client.hear(4), [0x20, 2, 0, 0], "{name}");
    }
    let mut other = Secured::open(secure, any(&authority), "other.example");
    let error = other
        .stream
        .write_all(b"x")
        .expect_err("the first one is shown");
    assert!(error.to_string().contains("not valid for name"), "{error}");
}

#[test]
fn a_client_without_a_good_certificate_is_refused_where_one_is_required() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let revoked = authority.revoked_files("revoked", "revoked");
    let config = TlsConfig {
        client_ca: Some(authority.path("ca.pem")),
        client_certificates: ClientCertificates::Required,
        crl: Some(authority.path("crl.pem")),
        ..tls(authority.files("a", "localhost"))
    };
    let (_server, plain, secure) = start_secured(1, config);
    let canary = Canary::to_the_end(plain);
    let good = authority.files("good", "good");
    let foreign = stranger.files("foreign", "foreign");
    let expired = authority.expired_files("expired", "expired");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let attempt = |own: Option<&CertificateFiles>| {
            let config = client_config(&authority, &[version], own);
            Secured::connect(secure, config, "client").map(drop)
        };
        assert_eq!(attempt(Some(&good)), Ok(()));
        let cases = [
            ("missing", None, "CertificateRequired"),
            ("foreign", Some(&foreign), "UnknownCA"),
            ("expired", Some(&expired), "CertificateExpired"),
            ("revoked", Some(&revoked), "CertificateRevoked"),
        ];
        for (what, own, expected) in cases {
            let error = attempt(own).expect_err(what);
            // TLS 1.2 has no alert of its own for a missing one.
            let fits = error.contains(expected) || error.contains("HandshakeFailure");
            assert!(fits, "{what}: {error}");
            canary.sing();
        }
    }
}

/// Lets in whoever has shown a certificate for its Client Identifier.
#[derive(Debug)]
struct ByCertificate;

impl Authenticator for ByCertificate {
    fn method(&self) -> Option<&str> {
        None
    }

    fn authenticate(&self, attempt: &Attempt<'_>, _: &mut Exchange) -> Option<Decision> {
        let name = attempt.certificate?.common_name.as_deref()?;
        (attempt.client_id == name).then(|| Decision::Allow {
            identity: Identity::of_user(name),
            data: None,
        })
    }
}

#[test]
fn an_authenticator_knows_whom_the_certificate_names() {
    let authority = Authority::new();
    let config = secured(
        2,
        TlsConfig {
            client_ca: Some(authority.path("ca.pem")),
            client_certificates: ClientCertificates::Optional,
            ..tls(authority.files("a", "localhost"))
        },
    );
    let chain = Authentication::new(vec![Arc::new(ByCertificate)]);
    let server = Server::start_with(config, chain, |_| store::MemoryStore::new());
    let server = server.expect("the Server starts");
    let secure = server.listeners()[1];
    let own = authority.files("pump", "pump");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = client_config(&authority, &[version], Some(&own));
        // The second one comes again with a ticket.
        for _ in 0..2 {
            let pump = Secured::connect(secure, Arc::clone(&config), "pump");
            pump.expect("is let in").say(&[0xE0, 0]);
        }
        let none = client_config(&authority, &[version], None);
        for (config, client_id) in [(config, "other"), (none, "pump")] {
            let mut client = Secured::open(secure, config, "localhost");
            client.say(&connect_v311(client_id));
            assert_eq!(client.hear(4), [0x20, 2, 0, 5], "{client_id}");
        }
    }
    let mut plain = Raw::open(server.listeners()[0]);
    plain.say(&connect_v311("pump"));
    assert_eq!(plain.hear(), [0x20, 2, 0, 5]);
}

/// P12: the certificate is the proof, and what it does not say is nobody's to say.
#[test]
fn the_name_in_a_certificate_is_the_user() {
    let authority = Authority::new();
    let mut config = secured(
        2,
        TlsConfig {
            client_ca: Some(authority.path("ca.pem")),
            client_certificates: ClientCertificates::Optional,
            ..tls(authority.files("a", "localhost"))
        },
    );
    config.authentication.anonymous = AnonymousPolicy::Never;
    config.authentication.certificate_user = Some(CertificateUser::CommonName);
    let (server, _) = start(config);
    let secure = server.listeners()[1];
    let versions = [&rustls::version::TLS13];
    let [pump, valve] = ["pump", "valve"].map(|name| authority.files(name, name));
    let answer = |own: Option<&CertificateFiles>, user_name: Option<&str>| {
        let config = client_config(&authority, &versions, own);
        let mut client = Secured::open(secure, config, "localhost");
        let flags = if user_name.is_some() { 0x82 } else { 0x02 };
        let user_name = user_name.map(string).unwrap_or_default();
        let head = [&b"\x00\x04MQTT\x04"[..], &[flags, 0, 0], &string("client")];
        client.say(&packet(0x10, &[&head.concat()[..], &user_name].concat()));
        client.hear(4)[3]
    };
    assert_eq!(answer(Some(&pump), None), 0);
    assert_eq!(answer(Some(&pump), Some("pump")), 0);
    assert_eq!(answer(Some(&valve), Some("valve")), 0);
    assert_eq!(answer(Some(&valve), Some("pump")), 5);
    assert_eq!(answer(None, Some("pump")), 4);
    assert_eq!(answer(None, None), 5);
}

#[test]
fn an_optional_certificate_may_be_missing_but_not_bad() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let config = TlsConfig {
        client_ca: Some(authority.path("ca.pem")),
        client_certificates: ClientCertificates::Optional,
        ..tls(authority.files("a", "localhost"))
    };
    let (_server, _, secure) = start_secured(1, config);
    let attempt = |own: Option<&CertificateFiles>| {
        let config = client_config(&authority, rustls::DEFAULT_VERSIONS, own);
        Secured::connect(secure, config, "client").map(drop)
    };
    assert_eq!(attempt(None), Ok(()));
    assert_eq!(attempt(Some(&authority.files("good", "good"))), Ok(()));
    attempt(Some(&stranger.files("foreign", "foreign"))).expect_err("a stranger's");
}

#[test]
fn an_older_version_than_configured_is_refused() {
    let authority = Authority::new();
    let config = TlsConfig {
        min_version: TlsVersion::Tls13,
        ..tls(authority.files("a", "localhost"))
    };
    let (_server, _, secure) = start_secured(1, config);
    let old = client_config(&authority, &[&rustls::version::TLS12], None);
    let error = Secured::connect(secure, old, "old").map(drop);
    let error = error.expect_err("is too old");
    assert!(error.contains("ProtocolVersion"), "{error}");
}

#[test]
fn a_reload_shows_new_certificates_and_drops_nobody() {
    let authority = Authority::new();
    let before = secured(2, tls(authority.files("a", "localhost")));
    let (server, _) = start(before.clone());
    let secure = server.listeners()[1];
    let mut stays = Secured::connect(secure, any(&authority), "stays").expect("is let in");
    let successor = Authority::new();
    let mut after = before;
    after.listeners[1].tls = Some(tls(successor.files("a", "localhost")));
    let reloaded = server.reload(after.clone()).expect("is taken over");
    assert_eq!(reloaded.left, [""; 0]);
    Secured::connect(secure, any(&successor), "new").expect("is let in");
    Secured::connect(secure, any(&authority), "old")
        .map(drop)
        .expect_err("an unknown root");
    stays.say(&[0xC0, 0]);
    assert_eq!(stays.hear(2), [0xD0, 0]);
    // A key that does not fit: all stays as it is.
    let mut broken = after;
    let certificate = CertificateFiles {
        key: authority.files("other", "localhost").key,
        ..successor.files("b", "localhost")
    };
    broken.listeners[1].tls = Some(tls(certificate));
    let error = server.reload(broken).expect_err("does not fit");
    assert!(matches!(error, ReloadError::Tls { .. }), "{error:?}");
    assert!(error.to_string().contains("does not go with"), "{error}");
    Secured::connect(secure, any(&successor), "still").expect("is let in");
}

#[test]
fn a_listener_that_cannot_be_secured_does_not_open() {
    let authority = Authority::new();
    let good = authority.files("a", "localhost");
    let noise = authority.path("noise.pem");
    std::fs::write(&noise, "noise").expect("a file");
    let missing = || authority.path("missing.pem");
    let cases = [
        (
            "missing.pem",
            CertificateFiles {
                certificate: missing(),
                ..good.clone()
            },
        ),
        (
            "noise.pem: there is no certificate",
            CertificateFiles {
                certificate: noise.clone(),
                ..good.clone()
            },
        ),
        (
            "noise.pem: there is no key",
            CertificateFiles {
                key: noise.clone(),
                ..good.clone()
            },
        ),
        (
            "does not go with",
            CertificateFiles {
                key: authority.files("b", "localhost").key,
                ..good.clone()
            },
        ),
    ];
    for (expected, certificate) in cases {
        let error = Server::start(secured(1, tls(certificate))).expect_err("is not safe");
        assert!(matches!(error, StartError::Tls { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("listener secure: "), "{text}");
        assert!(text.contains(expected), "{text}");
    }
    for config in [
        TlsConfig {
            client_ca: Some(noise),
            ..tls(good.clone())
        },
        TlsConfig {
            client_ca: Some(authority.path("ca.pem")),
            crl: Some(missing()),
            ..tls(good)
        },
    ] {
        Server::start(secured(1, config)).expect_err("is not safe");
    }
}
