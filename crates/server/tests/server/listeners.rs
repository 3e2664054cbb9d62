//! What holds at one listener and not at another.
//!
//! Owns: nothing but tests. Start reading at [`two`].
//! Invariant: the second listener of a test has no settings of its own.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use proto::{Qos, Version};
use vencejo_server::Server;
use vencejo_server::authentication::AnonymousPolicy;
use vencejo_server::config::{Config, ListenerConfig, ListenerLimits, Versions};

use crate::canary::Canary;
use crate::client::{
    Raw, connect_flags_v5, connect_v5, connect_v311, packet, string, subscribe_v5,
};
use crate::config;

/// Two listeners, the first as `set` has changed it.
fn two(set: impl FnOnce(&mut ListenerConfig)) -> Config {
    let mut config = config(2);
    config.listeners.push(([127, 0, 0, 1], 0).into());
    config.listeners[1].name = "second".to_owned();
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

/// PUBLISH of 5.0 with these properties.
fn publish_v5(qos: u8, topic: &str, packet_id: u16, properties: &[u8], payload: &[u8]) -> Vec<u8> {
    let packet_id = if qos == 0 {
        vec![]
    } else {
        packet_id.to_be_bytes().to_vec()
    };
    let len = u8::try_from(properties.len()).expect("few");
    let body = [&string(topic)[..], &packet_id, &[len], properties, payload];
    packet(0x30 | qos << 1, &body.concat())
}

/// A Client of 5.0, and its CONNACK.
fn connected(address: SocketAddr, connect: &[u8]) -> (Raw, Vec<u8>) {
    let mut client = Raw::open(address);
    client.say(connect);
    let connack = client.hear();
    assert_eq!((connack[0], connack[3]), (0x20, 0));
    (client, connack)
}

/// The Reason Code of the DISCONNECT that a Client hears.
fn goodbye(client: &mut Raw) -> u8 {
    let disconnect = client.hear();
    assert_eq!(disconnect[0], 0xE0, "{disconnect:?}");
    assert!(client.is_at_end());
    disconnect[2]
}

fn narrow(listener: &mut ListenerConfig) {
    listener.limits = ListenerLimits {
        maximum_packet_size_bytes: Some(200),
        receive_maximum: Some(2),
        topic_alias_maximum: Some(1),
        server_keep_alive_max_seconds: Some(30),
        session_expiry_max_seconds: Some(60),
        queued_messages_max: Some(2),
        subscriptions_per_session_max: Some(1),
        ..ListenerLimits::default()
    };
}

/// What CONNACK says of [`narrow`], each as it is written.
const SAID: [&[u8]; 5] = [
    b"\x27\x00\x00\x00\xC8",
    b"\x21\x00\x02",
    b"\x22\x00\x01",
    b"\x13\x00\x1E",
    b"\x11\x00\x00\x00\x3C",
];

fn says(connack: &[u8], property: &[u8]) -> bool {
    connack
        .windows(property.len())
        .any(|window| window == property)
}

/// Never expires, so that it is cut.
fn for_ever(client_id: &str) -> Vec<u8> {
    connect_flags_v5(0x02, client_id, 0, b"\x11\xFF\xFF\xFF\xFF", &[])
}

/// Verifies [MQTT-3.3.4-7], [MQTT-3.2.2-15], [MQTT-3.2.2-17]: whoever goes beyond what its listener has announced hears so,
/// and what the other listener's Clients do is as ever. Promise P14.
#[test]
fn limits_of_a_listener_are_announced_and_kept_by_it_alone() {
    let (_server, first, second) = start(narrow);
    let canary = Canary::new(second);
    for (address, is_narrow) in [(first, true), (second, false)] {
        let in_turn = |name: &str| format!("{name}-{is_narrow}");
        let (mut client, connack) = connected(address, &for_ever(&in_turn("told")));
        for property in SAID {
            assert_eq!(says(&connack, property), is_narrow, "{property:?}");
        }
        for packet_id in 1..=3 {
            client.say(&publish_v5(2, "x", packet_id, &[], b"x"));
        }
        // Two PUBREC, then the end, or a third.
        let answers: Vec<u8> = (0..3).map(|_| client.hear()[0]).collect();
        let third = if is_narrow { 0xE0 } else { 0x50 };
        assert_eq!(answers, [0x50, 0x50, third]);
        for (said, reason) in [
            (publish_v5(0, "x", 0, b"\x23\x00\x02", b"x"), 0x94),
            (publish_v5(0, "x", 0, &[], &[b'x'; 300]), 0x95),
        ] {
            let (mut client, _) = connected(address, &for_ever(&in_turn("told")));
            client.say(&said);
            if is_narrow {
                assert_eq!(goodbye(&mut client), reason);
            } else {
                client.ping();
            }
        }
        let (mut client, _) = connected(address, &for_ever(&in_turn("subscribes")));
        client.say(&subscribe_v5("one", 1));
        assert_eq!(client.hear(), [0x90, 4, 0, 1, 0, 1]);
        client.say(&subscribe_v5("two", 1));
        let granted = if is_narrow { 0x97 } else { 1 };
        assert_eq!(client.hear(), [0x90, 4, 0, 1, 0, granted]);
    }
    canary.sing();
}

/// Promise P5: what waits for a Session is bounded by the listener its Client came by last; its publisher is told, and no
/// other Session's messages are refused for it.
#[test]
fn the_queue_of_a_session_is_that_of_its_listener() {
    let (_server, first, second) = start(narrow);
    let canary = Canary::new(second);
    for address in [first, second] {
        let is_narrow = address == first;
        let topic = format!("queue/{is_narrow}");
        let (mut away, _) = connected(address, &for_ever(&topic));
        away.say(&subscribe_v5(&topic, 1));
        assert_eq!(away.hear()[0], 0x90);
        away.say(&[0xE0, 0]);
        assert!(away.is_at_end());
        let (mut publisher, _) = connected(second, &connect_v5("publisher", 0, &[], &[]));
        let mut kept = 0;
        for packet_id in 1..=6_u16 {
            publisher.say(&publish_v5(1, &topic, packet_id, &[], b"x"));
            let puback = publisher.hear();
            assert_eq!(puback[0], 0x40);
            match puback.get(4) {
                None => kept += 1,
                reason => assert_eq!(reason, Some(&0x97), "{puback:?}"),
            }
        }
        // Between shards more may be on their way, see `engine::queue`.
        let expected = if is_narrow { 2..=3 } else { 6..=6 };
        assert!(expected.contains(&kept), "{kept}");
    }
    canary.sing();
}

/// Verifies [MQTT-3.2.2-15]: a reload changes what a listener announces for whoever comes next, and nothing that it has
/// announced.
#[test]
fn limits_of_a_listener_change_at_a_reload_and_what_a_client_was_told_holds() {
    let (server, first, second) = start(|_| {});
    let canary = Canary::new(second);
    let (mut told, connack) = connected(first, &for_ever("told"));
    assert!(!says(&connack, SAID[0]));
    assert_eq!(
        server.reload(two(narrow)).expect("is taken over").left,
        [""; 0]
    );
    let wide = publish_v5(0, "x", 0, &[], &[b'x'; 300]);
    told.say(&wide);
    told.ping();
    // What is not announced counts at once.
    told.say(&subscribe_v5("one", 1));
    assert_eq!(told.hear(), [0x90, 4, 0, 1, 0, 1]);
    told.say(&subscribe_v5("two", 1));
    assert_eq!(told.hear(), [0x90, 4, 0, 1, 0, 0x97]);
    let (mut late, connack) = connected(first, &for_ever("late"));
    for property in SAID {
        assert!(says(&connack, property), "{property:?}");
    }
    late.say(&wide);
    assert_eq!(goodbye(&mut late), 0x95);
    let (_, connack) = connected(second, &for_ever("elsewhere"));
    assert!(!says(&connack, SAID[0]));
    server.reload(two(|_| {})).expect("is taken over");
    let (mut late, connack) = connected(first, &for_ever("late"));
    assert!(!says(&connack, SAID[0]));
    late.say(&wide);
    late.ping();
    canary.sing();
}

/// Verifies [MQTT-3.2.2-11]: at one listener QoS 2 is spoken, at the other one it is not.
#[test]
fn how_fast_and_at_which_qos_is_for_each_listener_to_say() {
    let (_server, slow, fast) = start(|listener| {
        listener.limits.publish_bytes_rate_max = Some(2_000);
        listener.limits.maximum_qos = Some(Qos::AtMostOnce);
    });
    let canary = Canary::new(fast);
    let (mut client, connack) = connected(slow, &for_ever("slow"));
    assert!(says(&connack, b"\x24\x00"));
    client.say(&publish_v5(1, "x", 1, &[], b"x"));
    assert_eq!(goodbye(&mut client), 0x9B);
    let (mut client, _) = connected(slow, &for_ever("client"));
    let began = Instant::now();
    for _ in 0..30 {
        client.say(&publish_v5(0, "x", 0, &[], &[b'x'; 100]));
    }
    client.ping();
    // A second's worth at once, the rest at the rate.
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(400), "{took:?}");
    let (mut client, _) = connected(fast, &for_ever("fast"));
    client.say(&publish_v5(1, "x", 1, &[], b"x"));
    assert_eq!(client.hear()[0], 0x40);
    canary.sing();
}
