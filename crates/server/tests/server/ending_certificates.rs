//! Certificates of Clients, and lists of revoked ones, whose time is over.
//!
//! Owns: what TLS alone does not see. Does not own: certificates that are over in a full handshake (see `tls`). Start reading
//! at any test. Invariant: what is waited for comes, or the test fails.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustls::HandshakeKind;
use vencejo_server::config::{ClientCertificates, TlsConfig};

use crate::authority::Authority;
use crate::canary::Canary;
use crate::client::{PATIENCE, connect_v311};
use crate::start;
use crate::tls::{Secured, client_config, secured, tls};

fn asked_for_certificates(authority: &Authority) -> TlsConfig {
    TlsConfig {
        client_ca: Some(authority.path("ca.pem")),
        client_certificates: ClientCertificates::Required,
        ..tls(authority.files("server", "localhost"))
    }
}

/// Class F: a session of TLS that is taken up again shows no certificate, and nobody looks at it again but us.
#[test]
fn a_ticket_does_not_outlive_the_certificate() {
    let authority = Authority::new();
    let (server, plain) = start(secured(1, asked_for_certificates(&authority)));
    let canary = Canary::new(plain);
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let until = now.expect("it is later").as_secs() + 3;
    let own = authority.files_until("short", "short", until);
    let versions = [&rustls::version::TLS12, &rustls::version::TLS13];
    let configs = versions.map(|version| client_config(&authority, &[version], Some(&own)));
    let began = Instant::now();
    for config in configs.iter().cycle() {
        let mut client = Secured::open(server.listeners()[1], config.clone(), "localhost");
        client.say(&connect_v311("short"));
        let connack = client.hear(4);
        if connack == [0x20, 2, 0, 5] {
            let kind = client.stream.conn.handshake_kind();
            assert_eq!(kind, Some(HandshakeKind::Resumed));
            break;
        }
        assert_eq!(connack, [0x20, 2, 0, 0]);
        assert!(began.elapsed() < PATIENCE, "it is let in for ever");
    }
    // The other version is no other way in.
    for config in configs {
        let mut client = Secured::open(server.listeners()[1], config, "localhost");
        client.say(&connect_v311("short"));
        assert_eq!(client.hear(4), [0x20, 2, 0, 5]);
        canary.sing();
    }
}

/// Class F: who was revoked since is not on it.
#[test]
fn a_revocation_list_whose_time_is_over_lets_nobody_in() {
    let authority = Authority::new();
    let config = |year| {
        authority.list_until(year);
        TlsConfig {
            crl: Some(authority.path("crl.pem")),
            ..asked_for_certificates(&authority)
        }
    };
    let own = authority.files("good", "good");
    for (year, is_let_in) in [(2124, true), (2025, false)] {
        let (server, plain) = start(secured(1, config(year)));
        let canary = Canary::new(plain);
        let client = client_config(&authority, rustls::DEFAULT_VERSIONS, Some(&own));
        let attempt = Secured::connect(server.listeners()[1], client, "good");
        assert_eq!(attempt.is_ok(), is_let_in, "{year}");
        canary.sing();
    }
}
