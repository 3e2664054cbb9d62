//! Certificate, password and ACL files that change under a thousand live connections.

use std::path::PathBuf;
use std::sync::Arc;

use vencejo_server::Server;
use vencejo_server::config::{AuthorizationConfig, Config};

use crate::authority::Authority;
use crate::client::{Raw, connect_v311, publish, string, subscribe_v311};
use crate::tls::{Secured, any, secured, tls};

/// Live connections: over TCP, and over TLS.
const PLAIN: usize = 700;
const SECURED: usize = 300;

/// A configuration with rules and passwords in files.
fn with_files(authority: &Authority, certificate: &str) -> (Config, Files) {
    let files = Files {
        acl: authority.path("acl"),
        passwords: authority.path("passwords"),
    };
    let mut config = secured(2, tls(authority.files(certificate, "localhost")));
    config.authorization = Some(AuthorizationConfig {
        acl_file: Some(files.acl.clone()),
        ..AuthorizationConfig::default()
    });
    config.authentication.password_file = Some(files.passwords.clone());
    (config, files)
}

struct Files {
    acl: PathBuf,
    passwords: PathBuf,
}

#[test]
fn nobody_is_dropped_and_a_right_that_was_taken_away_is_gone_at_once() {
    let authority = Authority::new();
    let (config, files) = with_files(&authority, "first");
    // Anonymous Clients: who is named `odd-...` reads by one line, the others by another.
    let lines = [
        "pattern read odd/%c",
        "topic read news/#",
        "topic write news/#",
    ];
    std::fs::write(&files.acl, lines.join("\n")).expect("a file");
    std::fs::write(&files.passwords, PASSWORDS[0]).expect("a file");
    let server = Server::start(config).expect("the Server starts");
    let (plain, secure) = (server.listeners()[0], server.listeners()[1]);
    let trusting = any(&authority);
    let mut over_tcp: Vec<Raw> = (0..PLAIN)
        .map(|n| {
            let mut client = Raw::v311(plain, &format!("plain-{n}"));
            client.subscribe(if n % 2 == 0 { "news/#" } else { "odd/+" }, 0);
            client
        })
        .collect();
    let mut over_tls: Vec<Secured> = (0..SECURED)
        .map(|n| {
            let client = Secured::connect(secure, Arc::clone(&trusting), &format!("tls-{n}"));
            let mut client = client.expect("is let in");
            client.say(&subscribe_v311("news/#", 0));
            assert_eq!(client.hear(5), [0x90, 3, 0, 1, 0]);
            client
        })
        .collect();
    let mut publisher = Raw::v311(plain, "publisher");
    let news = publish("news/a", 0, b"before");
    publisher.say(&news);
    for (n, client) in over_tcp.iter_mut().enumerate().filter(|(n, _)| n % 2 == 0) {
        assert_eq!(client.hear(), news, "plain-{n}");
    }
    for client in &mut over_tls {
        assert_eq!(client.hear(news.len()), news);
    }

    // All three files change; the right to read news is gone.
    let (changed, _) = with_files(&authority, "second");
    std::fs::write(&files.acl, [lines[0], lines[2]].join("\n")).expect("a file");
    std::fs::write(&files.passwords, PASSWORDS[1]).expect("a file");
    let reloaded = server.reload(changed).expect("is taken over");
    assert_eq!(reloaded.left, [""; 0]);
    publisher.say(&publish("news/a", 0, b"after"));
    publisher.ping();
    for client in &mut over_tcp {
        // Whatever was sent before comes first.
        client.ping();
    }
    for client in &mut over_tls {
        client.say(&[0xC0, 0]);
        assert_eq!(client.hear(2), [0xD0, 0]);
    }
    // And new ones meet the new files.
    assert_eq!(login(&server, "anna"), 4, "is in the file no more");
    assert_eq!(login(&server, "otto"), 0);
    Secured::connect(secure, any(&authority), "new").expect("the authority is the same");
}

/// The return code to a Client that gives the password `secret`.
fn login(server: &Server, user: &str) -> u8 {
    let mut client = Raw::open(server.listeners()[0]);
    let mut connect = connect_v311("login");
    // User Name and Password, in the flags and behind the Client Identifier.
    connect[9] |= 0xC0;
    connect.extend([string(user), string("secret")].concat());
    connect[1] = u8::try_from(connect.len() - 2).expect("short");
    client.say(&connect);
    client.hear()[3]
}

/// As mosquitto_passwd 2.0 writes them, for the password `secret`.
const PASSWORDS: [&str; 2] = [
    "anna:$7$101$M4oVbr/hebfTv2IZ$mkIDouR1P4cbRK44mnGBCr60nEtK1K66sTRHL5xfeRwT1YObOAvfhINFNL7AL/XVH5k7a5CdsxjyM6vQI3DYug==\n",
    "otto:$7$101$v0HAf5E2Gvi3AcQ2$/SZjhjOSNcR6JFfHS26KfMCdVVbYaOgT8xAIk3KQ8o2SCzZsZpfAS0xTORuYc//+u8JUVlGwFnxhVFrXjtD/Cw==\n",
];
