//! Clients through a Unix socket: served like others, counted by their user, and from this machine.
//!
//! Owns: nothing but tests. Start reading at [`start_at`].
//! Invariant: the second listener is the Unix socket.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use vencejo_server::authentication::AnonymousPolicy;
use vencejo_server::config::{Address, Config, ListenerConfig, Proxies};
use vencejo_server::{Server, SocketFileError, StartError};

use crate::authority::Authority;
use crate::client::{Raw, connect_v311, packet, publish, string, subscribe_v311};
use crate::config;
use crate::durable::TempFolder;
use crate::tls::{any, tls};

fn with_socket(shards: u16, path: &Path) -> Config {
    let mut config = config(shards);
    config.listeners.push(ListenerConfig {
        name: "local".to_owned(),
        address: Address::Unix(path.to_owned()),
        ..([127, 0, 0, 1], 0).into()
    });
    config
}

fn socket_path(folder: &TempFolder) -> PathBuf {
    std::fs::create_dir_all(folder.path()).expect("a temporary folder");
    folder.path().join("mqtt.sock")
}

/// A Server with the path of its socket in `folder`.
fn start_at(folder: &TempFolder, set: impl FnOnce(&mut Config)) -> (Server, PathBuf) {
    let path = socket_path(folder);
    let mut config = with_socket(4, &path);
    set(&mut config);
    (Server::start(config).expect("the Server starts"), path)
}

/// Clients of all four shards, with messages small and large across both kinds of socket.
#[test]
fn clients_of_a_unix_socket_are_served_like_others() {
    let folder = TempFolder::new();
    let (server, path) = start_at(&folder, |config| {
        config.limits.maximum_packet_size_bytes = (8 << 20).try_into().expect("not zero");
    });
    let mut over_tcp = Raw::v311(server.listeners()[0], "tcp");
    over_tcp.subscribe("up/#", 0);
    let large = vec![b'x'; 5_000_000];
    for number in 0..8 {
        let mut client = Raw::unix(&path);
        let id = format!("unix-{number}");
        // CONNECT and what follows arrive together, and move to the home shard together.
        let all = [connect_v311(&id), subscribe_v311("down", 1)].concat();
        client.say(&all);
        assert_eq!(client.hear(), [0x20, 2, 0, 0]);
        assert_eq!(client.hear(), [0x90, 3, 0, 1, 1]);
        client.say(&publish("up/a", 0, &large));
        assert_eq!(over_tcp.hear(), publish("up/a", 0, &large));
        over_tcp.say(&publish("down", 0, &large));
        assert_eq!(client.hear(), publish("down", 0, &large));
        client.say(b"\xE0\0");
        assert!(client.is_at_end());
    }
}

#[test]
fn the_socket_goes_with_the_server() {
    let folder = TempFolder::new();
    let (server, path) = start_at(&folder, |_| {});
    let mut client = Raw::unix(&path);
    client.say(&connect_v311("client"));
    assert_eq!(client.hear(), [0x20, 2, 0, 0]);
    server.stop();
    assert!(client.is_at_end());
    server.join().expect("stops in peace");
    assert!(!path.exists());
}

#[test]
fn a_socket_that_answers_is_not_taken_and_one_that_does_not_is() {
    let folder = TempFolder::new();
    let path = socket_path(&folder);
    let other = UnixListener::bind(&path).expect("a free path");
    let error = Server::start(with_socket(1, &path)).expect_err("is in use");
    assert!(
        matches!(
            error,
            StartError::SocketFile {
                source: SocketFileError::InUse,
                ..
            }
        ),
        "{error}"
    );
    drop(other);
    let _server = Server::start(with_socket(1, &path)).expect("nobody answers");
    let mut client = Raw::unix(&path);
    client.say(&connect_v311("client"));
    assert_eq!(client.hear(), [0x20, 2, 0, 0]);
}

/// Verifies P12: what is let in from this machine only is let in here, unless the listener says otherwise.
#[test]
fn a_unix_socket_is_this_machine() {
    let folder = TempFolder::new();
    let (_server, path) = start_at(&folder, |config| {
        config.listeners[0].anonymous = Some(AnonymousPolicy::Never);
    });
    let mut client = Raw::unix(&path);
    client.say(&connect_v311("client"));
    assert_eq!(client.hear(), [0x20, 2, 0, 0]);
    let folder = TempFolder::new();
    let (_server, path) = start_at(&folder, |config| {
        config.listeners[1].anonymous = Some(AnonymousPolicy::Never);
    });
    let mut client = Raw::unix(&path);
    client.say(&connect_v311("client"));
    assert_eq!(client.hear(), [0x20, 2, 0, 5]);
}

#[test]
fn a_proxy_in_front_of_a_unix_socket_says_who_is_there() {
    let folder = TempFolder::new();
    let (_server, path) = start_at(&folder, |config| {
        config.listeners[1].proxy = Some(Proxies::Unix);
    });
    for (from, code) in [("192.0.2.7", 5), ("127.0.0.1", 0)] {
        let mut client = Raw::unix(&path);
        client.say(format!("PROXY TCP4 {from} 10.0.0.1 8080 1883\r\n").as_bytes());
        client.say(&connect_v311("client"));
        assert_eq!(client.hear(), [0x20, 2, 0, code], "{from}");
    }
}

#[test]
fn tls_runs_over_a_unix_socket() {
    let authority = Authority::new();
    let folder = TempFolder::new();
    let (_server, path) = start_at(&folder, |config| {
        config.listeners[1].tls = Some(tls(authority.files("a", "localhost")));
    });
    let name = "localhost".try_into().expect("a name");
    let session = rustls::ClientConnection::new(any(&authority), name).expect("a session");
    let stream = rustls::StreamOwned::new(session, Raw::unix(&path).stream);
    let mut client = Raw { stream };
    client.say(&connect_v311("client"));
    assert_eq!(client.hear(), [0x20, 2, 0, 0]);
}

/// Many users share one machine: the failures of one User Name ban nobody else.
#[test]
fn failures_ban_one_user_name_and_not_everybody_at_the_socket() {
    let folder = TempFolder::new();
    socket_path(&folder);
    let passwords = folder.path().join("passwords");
    std::fs::write(&passwords, ANNA).expect("is written");
    let (_server, path) = start_at(&folder, |config| {
        config.authentication.password_file = Some(passwords.clone());
        config.authentication.bans.failures_max = 2;
        config.authentication.bans.failures_per_address_max = 1;
    });
    let answer = |user: Option<&str>, password: &str| {
        let mut client = Raw::unix(&path);
        client.say(&match user {
            None => connect_v311("client"),
            Some(user) => {
                let fields = [string("client"), string(user), string(password)].concat();
                packet(
                    0x10,
                    &[b"\x00\x04MQTT\x04\xC2\x00\x00", &fields[..]].concat(),
                )
            }
        });
        client.hear()[3]
    };
    assert_eq!(answer(Some("anna"), "word"), 0);
    assert_eq!(answer(Some("anna"), "ward"), 4);
    assert_eq!(answer(Some("anna"), "ward"), 4);
    assert_eq!(answer(Some("anna"), "word"), 5);
    assert_eq!(answer(None, ""), 0);
}

/// Her password is `word`; as mosquitto_passwd writes it.
const ANNA: &str = "anna:$7$101$zty5aNysuL/y9Ve2$yTBXtcdFe1669VTraaCciz6FQXyWztbxVRZxzg8neEpbuQvvarHfuo4n8alzjnDt2JaUM8x34f5rtijkJ+9dng==\n";
