//! What holds at one listener and not at another.
//!
//! Owns: nothing but tests. Start reading at [`two`].
//! Invariant: the second listener of a test has no settings of its own.

use std::net::SocketAddr;

use proto::Version;
use vencejo_server::Server;
use vencejo_server::authentication::AnonymousPolicy;
use vencejo_server::config::{Config, ListenerConfig, Versions};

use crate::client::{Raw, connect_v5, connect_v311};
use crate::config;

/// Two listeners, the first as `set` has changed it.
fn two(set: impl FnOnce(&mut ListenerConfig)) -> Config {
    let mut config = config(2);
    config.listeners.push(([127, 0, 0, 1], 0).into());
    set(&mut config.listeners[0]);
    config
}

/// A Server with both.
fn start(set: impl FnOnce(&mut ListenerConfig)) -> (Server, SocketAddr, SocketAddr) {
    let server = Server::start(two(set)).expect("the Server starts");
    let (first, second) = (server.listeners()[0], server.listeners()[1]);
    (server, first, second)
}

/// Verifies [MQTT-3.1.2-2] and [v3.1.1 MQTT-3.1.2-2]: a version that is not spoken is refused, and the Client hears why.
#[test]
fn a_listener_speaks_the_versions_it_is_given() {
    let only = |version: Version| -> Versions { [version].into_iter().collect() };
    let (_server, only_v5, all) = start(|listener| listener.versions = only(Version::V5));
    let mut client = Raw::open(only_v5);
    client.say(&connect_v311("old"));
    assert_eq!(client.hear(), [0x20, 2, 0, 1]);
    assert!(client.is_at_end());
    Raw::v5(only_v5, "new", 0).ping();
    Raw::v311(all, "old").ping();
    let (_server, only_v311, _) = start(|listener| listener.versions = only(Version::V311));
    let mut client = Raw::open(only_v311);
    client.say(&connect_v5("new", 0, &[], &[]));
    let connack = client.hear();
    assert_eq!((connack[0], connack[3]), (0x20, 0x84));
    Raw::v311(only_v311, "old").ping();
}

#[test]
fn who_is_let_in_without_proof_is_for_each_listener_to_say() {
    let never = Some(AnonymousPolicy::Never);
    let (server, closed, open) = start(|listener| listener.anonymous = never);
    let mut client = Raw::open(closed);
    client.say(&connect_v311("client"));
    assert_eq!(client.hear(), [0x20, 2, 0, 5]);
    Raw::v311(open, "client").ping();
    // A reload counts for whoever comes next.
    server.reload(two(|_| {})).expect("is taken over");
    Raw::v311(closed, "client").ping();
}

#[test]
fn the_limit_of_a_listener_leaves_the_others_alone() {
    let (_server, narrow, wide) = start(|listener| listener.connections_max = Some(1));
    let mut first = Raw::v311(narrow, "first");
    let mut second = Raw::open(narrow);
    second.say(&connect_v5("second", 0, &[], &[]));
    let connack = second.hear();
    assert_eq!((connack[0], connack[3]), (0x20, 0x97));
    assert!(second.is_at_end());
    drop(second);
    first.ping();
    Raw::v311(wide, "second").ping();
    // Whoever leaves makes room, as soon as its end is noticed.
    first.say(&[0xE0, 0]);
    assert!(first.is_at_end());
    drop(first);
    let is_in = || {
        let mut client = Raw::open(narrow);
        client.say(&connect_v311("third"));
        client.hear() == [0x20, 2, 0, 0]
    };
    assert!((0..10_000).any(|_| is_in()), "no room was made");
}
