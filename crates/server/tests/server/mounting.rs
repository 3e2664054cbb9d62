//! Clients of a mount point: they have their part of the tree, and there is no way out of it.
//!
//! Owns: nothing but tests. Start reading at [`start`].
//! Invariant: the first listener has no mount point; those of the others are `a/` and `b/`.

use std::net::SocketAddr;

use vencejo_server::Server;
use vencejo_server::config::{self, Config};

use crate::client::{
    Raw, connect_flags_v5, connect_v5, packet, publish, string, subscribe_v5, subscribe_v311,
};
use crate::durable::{TempFolder, durable};

/// A Server, and its listeners without a mount point, with `a/` and with `b/`.
fn start(shards: u16, set: impl FnOnce(&mut Config)) -> (Server, [SocketAddr; 3]) {
    let mut config = crate::config(shards);
    set(&mut config);
    start_with(config)
}

fn start_with(mut config: Config) -> (Server, [SocketAddr; 3]) {
    for mount_point in ["a/", "b/"] {
        let mut listener = config.listeners[0].clone();
        listener.name = mount_point.to_owned();
        listener.mount_point = Some(mount_point.to_owned());
        config.listeners.push(listener);
    }
    let server = Server::start(config).expect("the Server starts");
    let addresses = server.listeners().try_into().expect("three of them");
    (server, addresses)
}

#[test]
fn what_a_client_says_is_below_its_mount_point_and_what_it_hears_does_not_show_it() {
    let (_server, [all, a, b]) = start(3, |_| {});
    let mut watcher = Raw::v311(all, "watcher");
    watcher.subscribe("#", 0);
    for name in ["x", "y", "z"] {
        let mut one = Raw::v311(a, &format!("a-{name}"));
        one.subscribe("t/+", 0);
        let mut other = Raw::v311(b, &format!("b-{name}"));
        other.subscribe("#", 0);
        one.say(&publish("t/1", 0, b"of a"));
        assert_eq!(one.hear(), publish("t/1", 0, b"of a"));
        assert_eq!(watcher.hear(), publish("a/t/1", 0, b"of a"));
        other.say(&publish("t/1", 0, b"of b"));
        assert_eq!(other.hear(), publish("t/1", 0, b"of b"));
        assert_eq!(watcher.hear(), publish("b/t/1", 0, b"of b"));
        watcher.say(&publish("a/t/2", 0, b"of all"));
        assert_eq!(one.hear(), publish("t/2", 0, b"of all"));
        assert_eq!(watcher.hear(), publish("a/t/2", 0, b"of all"));
        // What is unsubscribed there does not come any more.
        one.say(&packet(0xA2, &[&[0, 2][..], &string("t/+")].concat()));
        assert_eq!(one.hear(), [0xB0, 2, 0, 2]);
        one.say(&publish("t/3", 0, b""));
        assert_eq!(watcher.hear(), publish("a/t/3", 0, b""));
        one.ping();
        other.ping();
    }
}

#[test]
fn retained_messages_and_wills_are_below_the_mount_point() {
    let (_server, [all, a, _]) = start(2, |_| {});
    let mut watcher = Raw::v311(all, "watcher");
    watcher.subscribe("#", 0);
    let mut client = Raw::open(a);
    let will = [string("gone"), string("bye")].concat();
    client.say(&connect_flags_v5(
        0x06,
        "client",
        0,
        &[],
        &[&[0][..], &will].concat(),
    ));
    assert_eq!(client.hear()[3], 0);
    client.say(&packet(0x31, &[&string("state")[..], &[0], b"on"].concat()));
    assert_eq!(watcher.hear(), publish("a/state", 0, b"on"));
    let mut late = Raw::v311(a, "late");
    late.subscribe("+", 0);
    let mut retained = publish("state", 0, b"on");
    retained[0] |= 1;
    assert_eq!(late.hear(), retained);
    drop(client);
    assert_eq!(watcher.hear(), publish("a/gone", 0, b"bye"));
    assert_eq!(late.hear(), publish("gone", 0, b"bye"));
}

#[test]
fn shared_subscriptions_are_below_the_mount_point() {
    let (_server, [all, a, b]) = start(2, |_| {});
    let mut members: Vec<Raw> = ["one", "two"].map(|id| Raw::v5(a, id, 0)).into();
    for member in &mut members {
        member.say(&subscribe_v5("$share/g/jobs/#", 0));
        assert_eq!(member.hear()[0], 0x90);
    }
    let mut foreign = Raw::v5(b, "foreign", 0);
    foreign.say(&subscribe_v5("$share/g/jobs/#", 0));
    assert_eq!(foreign.hear()[0], 0x90);
    let mut publisher = Raw::v311(all, "publisher");
    for number in 0..10 {
        publisher.say(&publish(&format!("a/jobs/{number}"), 1, b""));
        assert_eq!(publisher.hear()[0], 0x40);
    }
    // Each to one of them, which is then seen by what comes between two answers to PINGREQ.
    let mut heard = 0;
    for member in &mut members {
        member.say(&[0xC0, 0]);
        loop {
            let packet = member.hear();
            if packet == [0xD0, 0] {
                break;
            }
            assert!(packet[4..].starts_with(b"jobs/"), "{packet:?}");
            heard += 1;
        }
    }
    assert_eq!(heard, 10);
    foreign.ping();
}

/// A Topic Alias stands for the topic without the mount point, both ways.
#[test]
fn aliases_stand_for_what_the_client_sees() {
    let (_server, [all, a, _]) = start(1, |_| {});
    let mut watcher = Raw::v311(all, "watcher");
    watcher.subscribe("#", 0);
    let mut client = Raw::open(a);
    // Topic Alias Maximum 5.
    client.say(&connect_v5("client", 0, &[0x22, 0, 5], &[]));
    assert_eq!(client.hear()[3], 0);
    client.say(&subscribe_v5("t", 0));
    assert_eq!(client.hear()[0], 0x90);
    let with_alias = |topic: &str| {
        let body = [&string(topic)[..], &[3, 0x23, 0, 1], b"x"].concat();
        packet(0x30, &body)
    };
    client.say(&with_alias("t"));
    assert_eq!(client.hear(), with_alias("t"));
    client.say(&with_alias(""));
    assert_eq!(client.hear(), with_alias(""));
    for _ in 0..2 {
        assert_eq!(watcher.hear(), publish("a/t", 0, b"x"));
    }
}

/// Class A: there is no way out of a mount point.
#[test]
fn nothing_outside_of_the_mount_point_is_reached() {
    let (_server, [all, a, _]) = start(1, |_| {});
    let mut watcher = Raw::v311(all, "watcher");
    watcher.subscribe("#", 0);
    let mut client = Raw::v5(a, "client", 0);
    for filter in ["$SYS/#", "$share/g/$SYS/#", "$x"] {
        client.say(&subscribe_v5(filter, 0));
        assert_eq!(client.hear(), [0x90, 4, 0, 1, 0, 0x87], "{filter}");
    }
    client.say(&subscribe_v5("#", 0));
    assert_eq!(client.hear(), [0x90, 4, 0, 1, 0, 0]);
    // [MQTT-4.7.2-1] holds for what the Client sees.
    watcher.say(&publish("a/$x", 0, b""));
    assert_eq!(watcher.hear(), publish("a/$x", 0, b""));
    for topic in ["$SYS/x", "$x"] {
        let body = [&string(topic)[..], &[0, 7, 0]].concat();
        client.say(&packet(0x32, &body));
        let puback = client.hear();
        assert_eq!((puback[0], puback[4]), (0x40, 0x87), "{topic}");
    }
    for topic in ["../b/x", "/b/x", "b/x"] {
        client.say(&packet(0x30, &[&string(topic)[..], &[0]].concat()));
        assert_eq!(watcher.hear(), publish(&format!("a/{topic}"), 0, b""));
        assert_eq!(
            client.hear(),
            packet(0x30, &[&string(topic)[..], &[0]].concat())
        );
    }
    client.ping();
}

/// What was subscribed to elsewhere brings nothing here: the Session of another mount point ends.
#[test]
fn session_of_another_mount_point_is_not_continued() {
    let (_server, [all, a, b]) = start(2, |_| {});
    assert_eq!(answer(all), NEW);
    assert_eq!(answer(all), OLD);
    assert_eq!(answer(a), NEW);
    assert_eq!(answer(a), OLD);
    assert_eq!(answer(b), NEW);
    assert_eq!(answer(all), NEW);
}

/// The same after a restart, which knows where a Session was made.
#[test]
fn mount_point_of_a_session_survives_a_restart() {
    let folder = TempFolder::new();
    let config = || {
        let mut config = durable(2);
        config.storage.data = folder.path().to_owned();
        config
    };
    let (server, [_, a, _]) = start_with(config());
    assert_eq!(answer(a), NEW);
    drop(server);
    let (server, [all, a, _]) = start_with(config());
    assert_eq!(answer(a), OLD);
    let mut publisher = Raw::v311(all, "publisher");
    publisher.say(&publish("a/t", 1, b"kept"));
    assert_eq!(publisher.hear()[0], 0x40);
    drop(server);
    let (_server, [_, a, b]) = start_with(config());
    let mut client = Raw::open(a);
    client.say(&connect_to_stay());
    assert_eq!(client.hear(), OLD);
    let message = client.hear();
    assert!(message[2..].starts_with(b"\0\x01t"), "{message:?}");
    assert_eq!(answer(b), NEW);
}

const NEW: [u8; 4] = [0x20, 2, 0, 0];
const OLD: [u8; 4] = [0x20, 2, 1, 0];

fn connect_to_stay() -> Vec<u8> {
    packet(
        0x10,
        &[b"\0\x04MQTT\x04\0\0\0", &string("client")[..]].concat(),
    )
}

/// CONNACK to a Client that comes to subscribe to everything.
fn answer(address: SocketAddr) -> Vec<u8> {
    let mut client = Raw::open(address);
    client.say(&connect_to_stay());
    let connack = client.hear();
    client.say(&subscribe_v311("#", 1));
    assert_eq!(client.hear()[0], 0x90);
    client.say(b"\xE0\0");
    assert!(client.is_at_end());
    connack
}

#[test]
fn rules_are_about_the_whole_topic() {
    let (_server, [_, a, _]) = start(1, |config| {
        let text =
            "[[authorization.rules]]\neffect = \"allow\"\ntopics = [\"a/open\", \"closed\"]\n";
        let rules = config::parse(text, "rules.toml".as_ref()).expect("is valid");
        config.authorization = rules.authorization;
    });
    let mut client = Raw::v5(a, "client", 0);
    for (topic, code) in [("open", 0x10), ("closed", 0x87)] {
        client.say(&packet(0x32, &[&string(topic)[..], &[0, 7, 0]].concat()));
        let puback = client.hear();
        assert_eq!(puback.get(4).copied().unwrap_or(0), code, "{topic}");
    }
}

#[test]
fn topic_that_gets_too_long_is_refused() {
    let (_server, [_, a, _]) = start(1, |_| {});
    let longest = "x".repeat(65_533);
    let mut client = Raw::v5(a, "client", 0);
    client.say(&packet(0x30, &[&string(&longest)[..], &[0]].concat()));
    client.ping();
    client.say(&packet(
        0x30,
        &[&string(&format!("{longest}x"))[..], &[0]].concat(),
    ));
    let disconnect = client.hear();
    assert_eq!((disconnect[0], disconnect[2]), (0xE0, 0x90));
    assert!(client.is_at_end());
}
