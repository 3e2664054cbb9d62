//! What other brokers were broken by, done to ours: one test a published case, or one row. Beside each, a healthy pair
//! goes on, and the process is the same afterwards.
//!
//! Owns: cases of crashes (C), of confused states (S), of rights (A), of failing open (F), of injection (X). Does
//! not own: memory and load. Start reading at [`Hostile`]. Invariant: a case says whose it was.

use std::io::Write;
use std::net::SocketAddr;

use vencejo_server::config::{self, Config, StorageConfig};
use vencejo_server::{Server, StartError};

use crate::canary::Canary;
use crate::client::{
    Raw, connect_flags_v5, connect_v5, connect_v311, packet, publish, string, subscribe_v5,
    subscribe_v311,
};
use crate::durable::TempFolder;
use crate::{config as in_memory, start};

/// A Server under attack, and the pair beside it.
struct Hostile {
    // Goes first: a Server that stops waits for who is connected.
    canary: Canary,
    server: Server,
}

impl Hostile {
    fn new(config: Config) -> Self {
        let (server, address) = start(config);
        Self {
            canary: Canary::to_the_end(address),
            server,
        }
    }

    /// One whose Server opens more as it goes on: files of its log, or threads that verify passwords.
    fn growing(config: Config) -> Self {
        let (server, address) = start(config);
        Self {
            canary: Canary::new(address),
            server,
        }
    }

    fn address(&self) -> SocketAddr {
        self.server.listeners()[0]
    }

    /// Says `bytes` behind a CONNECT of this version, or in place of one; the connection has to end, or to go on
    /// as if nothing was.
    fn attack(&self, version: Option<u8>, bytes: &[u8]) -> Raw {
        let mut client = Raw::open(self.address());
        match version {
            Some(5) => {
                client.say(&connect_v5("attacker", 0, &[], &[]));
                assert_eq!(client.hear()[..1], [0x20]);
            }
            Some(_) => {
                client.say(&connect_v311("attacker"));
                assert_eq!(client.hear()[..1], [0x20]);
            }
            None => {}
        }
        client.say(bytes);
        client
    }

    /// The same, and what has to come of it.
    fn try_it(&self, what: &str, version: Option<u8>, bytes: &[u8], outcome: Outcome) {
        let mut client = self.attack(version, bytes);
        if version.is_some() {
            // It may be closed already.
            client.stream.write_all(&[0xC0, 0]).unwrap_or_default();
        }
        let mut heard = Vec::new();
        let is_over = loop {
            match client.hear() {
                end if end.is_empty() => break true,
                pong if pong == [0xD0, 0] => break false,
                other => heard.push(other),
            }
        };
        let fits = match (outcome, &heard[..]) {
            (Outcome::Ended, []) => is_over,
            (Outcome::Told(reason), [last]) => is_over && last[0] == 0xE0 && last[2] == reason,
            (Outcome::NotLetIn(code), [last]) => is_over && last[0] == 0x20 && last[3] == code,
            (Outcome::Refused(code), [answer]) => {
                !is_over && answer[0] == 0x90 && answer[answer.len() - 1] == code
            }
            _ => false,
        };
        assert!(fits, "{what}: {outcome:?}, not {heard:?}, over: {is_over}");
        self.canary.sing();
    }
}

/// What has to come of a packet.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// The connection ends without a word.
    Ended,
    /// It ends with this reason in a DISCONNECT.
    Told(u8),
    /// It ends with this code in a CONNACK.
    NotLetIn(u8),
    /// Its one Topic Filter gets this code, and the connection goes on.
    Refused(u8),
}

/// Configuration with the `[authorization]` and `[authentication]` of `text`.
fn with(text: &str) -> Config {
    let parsed = config::parse(text, "test.toml".as_ref()).expect("a configuration");
    Config {
        authorization: parsed.authorization,
        authentication: parsed.authentication,
        ..in_memory(2)
    }
}

/// What is tried, by which version it is said (or in place of CONNECT), and what has to come of it.
type Row = (&'static str, Option<u8>, Vec<u8>, Outcome);

fn rows_of_publish() -> Vec<Row> {
    use Outcome::{Ended, Told};
    let invalid = packet(0x30, b"\x00\x02\xC3\x28\x00x");
    let surrogate = packet(0x30, b"\x00\x03\xED\xA0\x80\x00x");
    let nameless = packet(0x30, b"\x00\x00\x00x");
    let twice = packet(0x30, b"\x00\x01a\x04\x01\x00\x01\x00x");
    let foreign = packet(0x30, b"\x00\x01a\x05\x11\x00\x00\x00\x01x");
    let long = packet(0x30, b"\x00\x01a\x7Fx");
    let unnumbered = packet(0x32, b"\x00\x01a");
    let zero = packet(0x32, b"\x00\x01a\x00\x00\x00x");
    let three = packet(0x36, b"\x00\x01a\x00\x01\x00x");
    vec![
        (
            "mosquitto CVE-2017-7653: UTF-8",
            Some(5),
            invalid,
            Told(0x81),
        ),
        ("CVE-2017-7653: a surrogate", Some(5), surrogate, Told(0x81)),
        (
            "mosquitto CVE-2021-34432: no topic",
            Some(5),
            nameless,
            Told(0x82),
        ),
        ("a property twice", Some(5), twice, Told(0x82)),
        ("a property of others", Some(5), foreign, Told(0x81)),
        ("properties too long", Some(5), long, Told(0x81)),
        ("NanoMQ #2270: no identifier", Some(4), unnumbered, Ended),
        ("NanoMQ CVE-2025-59947: zero", Some(5), zero, Told(0x82)),
        ("NanoMQ: QoS 3", Some(5), three, Told(0x81)),
    ]
}

fn rows_of_subscribe() -> Vec<Row> {
    use Outcome::{Refused, Told};
    let deep = subscribe_v5(&"/".repeat(65_400), 0);
    let nothing = packet(0x82, &[0, 1, 0]);
    let from_nothing = packet(0xA2, &[0, 1, 0]);
    let reserved = packet(0x82, b"\x00\x01\x00\x00\x01a\xC0");
    let share = |filter| subscribe_v5(filter, 0);
    vec![
        (
            "mosquitto CVE-2019-11779: depth",
            Some(5),
            deep,
            Refused(0x8F),
        ),
        (
            "Moquette CVE-2026-95843",
            Some(5),
            share("$share//a"),
            Told(0x81),
        ),
        (
            "CVE-2026-95843: no filter",
            Some(5),
            share("$share/g"),
            Told(0x81),
        ),
        (
            "CVE-2026-95843: wildcard",
            Some(5),
            share("$share/+/a"),
            Told(0x81),
        ),
        ("SUBSCRIBE to nothing", Some(5), nothing, Told(0x82)),
        ("UNSUBSCRIBE from it", Some(5), from_nothing, Told(0x82)),
        ("reserved bits", Some(5), reserved, Told(0x81)),
        ("a filter with NUL", Some(5), share("a\0b"), Told(0x81)),
    ]
}

fn rows_of_connect() -> Vec<Row> {
    use Outcome::{Ended, NotLetIn, Told};
    let again = connect_v5("again", 0, &[], &[]);
    let qos_3 = packet(
        0x10,
        b"\x00\x04MQTT\x04\x1E\x00\x00\x00\x01a\x00\x01w\x00\x01x",
    );
    let no_will = packet(0x10, b"\x00\x04MQTT\x04\x06\x00\x00\x00\x01a");
    let no_password = packet(0x10, b"\x00\x04MQTT\x05\x42\x00\x00\x00\x00\x01a");
    let reserved = packet(0x10, b"\x00\x04MQTT\x04\x03\x00\x00\x00\x01a");
    let nobody = packet(0x10, b"\x00\x04MQTX\x04\x02\x00\x00\x00\x01a");
    let endless = vec![0x10, 0xFF, 0xFF, 0xFF, 0xFF, 1];
    let all_length = vec![0xF0, 0xFF, 0xFF, 0xFF, 0x7F];
    let connack = || vec![0x20, 2, 0, 0];
    vec![
        ("RMQTT CVE-2024-36856: twice", Some(5), again, Told(0x82)),
        ("a will with QoS 3", None, qos_3, Ended),
        ("a will that is not there", None, no_will, Ended),
        (
            "a password that is not there",
            None,
            no_password,
            NotLetIn(0x81),
        ),
        ("the reserved flag", None, reserved, Ended),
        ("a protocol of nobody", None, nobody, Ended),
        ("hmq #177: five bytes of length", None, endless, Ended),
        ("ActiveMQ CVE-2019-0222", None, all_length, Ended),
        ("mosquitto CVE-2021-28166", None, connack(), Ended),
        ("the same, later", Some(5), connack(), Told(0x82)),
        ("sol #15: PUBACK first", None, vec![0x40, 2, 0, 1], Ended),
        (
            "sol #15: SUBSCRIBE first",
            None,
            subscribe_v311("a", 0),
            Ended,
        ),
        (
            "CVE-2024-10525: SUBACK",
            Some(5),
            vec![0x90, 3, 0, 1, 0],
            Told(0x82),
        ),
        (
            "AUTH without a method",
            Some(5),
            vec![0xF0, 2, 0x19, 0],
            Told(0x82),
        ),
    ]
}

/// Class C: packets that stopped a whole broker.
#[test]
fn malformed_packets_end_their_own_connection_only() {
    let hostile = Hostile::new(in_memory(2));
    let rows = [rows_of_publish(), rows_of_subscribe(), rows_of_connect()];
    for (what, version, bytes, outcome) in rows.into_iter().flatten() {
        hostile.try_it(what, version, &bytes, outcome);
    }
}

/// Class C: packets that are cut anywhere, and garbage behind a CONNECT.
#[test]
fn packets_that_are_cut_anywhere_harm_nobody() {
    let hostile = Hostile::new(in_memory(2));
    let properties = [
        &[0x11, 0, 0, 0, 9, 0x21, 0, 5][..],
        &[0x26],
        &string("k"),
        &string("v"),
    ]
    .concat();
    let connect = connect_v5("cut", 9, &properties, &[]);
    for len in 1..connect.len() {
        drop(hostile.attack(None, &connect[..len]));
    }
    let subscribe = subscribe_v5("a/+/#", 1);
    for len in 1..subscribe.len() {
        drop(hostile.attack(Some(5), &subscribe[..len]));
    }
    hostile.canary.sing();
}

/// mosquitto CVE-2018-12543, Aedes GHSA-52qw-whmv-87c5, CVE-2024-8376: names that are special to a program, and
/// filters of both kinds in one packet.
#[test]
fn names_that_are_special_elsewhere_are_names() {
    let hostile = Hostile::new(in_memory(2));
    for name in [
        "$",
        "$x",
        "$x/y",
        "__proto__",
        "constructor",
        "toString/__proto__",
        "/",
        "//",
        "\u{FEFF}",
        "a b",
    ] {
        let mut client = hostile.attack(Some(4), &subscribe_v311(name, 0));
        assert_eq!(client.hear(), [0x90, 3, 0, 1, 0], "{name:?}");
        client.say(&publish(name, 0, b"x"));
        assert_eq!(client.hear(), publish(name, 0, b"x"), "{name:?}");
        let mut named = Raw::v311(hostile.address(), name);
        named.ping();
        hostile.canary.sing();
    }
    let both = |first: u8, more: &[u8]| {
        let filters = ["$share/g/mixed", "mixed", "$share/g/mixed"];
        let filters = filters.map(|filter| [&string(filter)[..], more].concat());
        packet(first, &[&[0, 9, 0][..], &filters.concat()].concat())
    };
    let mut client = hostile.attack(Some(5), &both(0x82, &[0]));
    assert_eq!(client.hear(), [0x90, 6, 0, 9, 0, 0, 0, 0]);
    client.say(&both(0xA2, &[]));
    let unsuback = client.hear();
    assert_eq!(unsuback[..5], [0xB0, 6, 0, 9, 0]);
    assert_eq!(unsuback[5..7], [0, 0], "both were there");
    hostile.canary.sing();
}

/// mosquitto CVE-2019-11778: a will that is delayed for longer than its session lives.
#[test]
fn a_will_delayed_beyond_its_session_comes_with_the_end_of_it() {
    let hostile = Hostile::new(in_memory(2));
    let mut watcher = Raw::v311(hostile.address(), "watcher");
    watcher.subscribe("will", 0);
    let will = [
        &[5, 0x18, 0, 0, 0, 60][..],
        &string("will"),
        &string("gone"),
    ]
    .concat();
    let mut client = Raw::open(hostile.address());
    client.say(&connect_flags_v5(
        0x06,
        "mortal",
        0,
        &[0x11, 0, 0, 0, 1],
        &will,
    ));
    assert_eq!(client.hear()[3], 0);
    drop(client);
    assert_eq!(watcher.hear(), publish("will", 0, b"gone"));
    hostile.canary.sing();
}

/// FlashMQ 1.15.1: take-overs that race one another.
#[test]
fn take_overs_that_race_leave_one_connection() {
    let hostile = Hostile::new(in_memory(2));
    let address = hostile.address();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                for _ in 0..50 {
                    let mut client = Raw::open(address);
                    client.say(&connect_v311("one"));
                    // Refused, or ended by the next one: none is on its way any more.
                    client.hear();
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no connection is refused");
    }
    let mut last = Raw::v311(address, "one");
    last.ping();
    hostile.canary.sing();
}

/// wolfMQTT #506, mosquitto CVE-2023-28366: one QoS 2 message again and again, never released.
#[test]
fn a_qos_2_message_sent_again_and_again_comes_once() {
    let hostile = Hostile::new(in_memory(2));
    let mut subscriber = Raw::v311(hostile.address(), "subscriber");
    subscriber.subscribe("once", 0);
    let message = |first: u8| packet(first, &[&string("once")[..], &[0, 7], b"x"].concat());
    let mut client = hostile.attack(Some(4), &message(0x34));
    assert_eq!(client.hear(), [0x50, 2, 0, 7]);
    for _ in 0..500 {
        client.say(&message(0x3C));
        assert_eq!(client.hear(), [0x50, 2, 0, 7]);
    }
    assert_eq!(subscriber.hear(), publish("once", 0, b"x"));
    client.say(&[0x62, 2, 0, 7]);
    assert_eq!(client.hear(), [0x70, 2, 0, 7]);
    client.say(&publish("once", 0, b"next"));
    assert_eq!(subscriber.hear(), publish("once", 0, b"next"));
    hostile.canary.sing();
}

/// mosquitto CVE-2017-7650, Moquette CVE-2026-85724, RabbitMQ CVE-2026-44838: a name with a wildcard, a separator, or
/// what means something in a regular expression, where the rule has a placeholder.
#[test]
fn a_name_does_not_widen_the_rule_that_holds_it() {
    let rules = "[[authorization.rules]]\neffect = \"allow\"\ntopics = [\"own/${clientid}/#\"]\n\
                 [[authorization.rules]]\neffect = \"allow\"\ntopics = [\"canary\"]\n";
    let hostile = Hostile::new(with(rules));
    let mut victim = Raw::v311(hostile.address(), "victim");
    victim.subscribe("own/victim/#", 1);
    for name in [
        "+",
        "#",
        "+/#",
        "victim/#",
        "victim/",
        "/",
        ".*",
        "v.*m",
        "[a-z]*",
        "victim|x",
        "${clientid}",
        "$clientid",
    ] {
        let mut client = Raw::open(hostile.address());
        client.say(&connect_v5(name, 0, &[], &[]));
        assert_eq!(client.hear()[3], 0, "{name}");
        for filter in [
            "own/+/#",
            "own/#",
            "#",
            "own/victim/#",
            "$share/g/own/victim/#",
        ] {
            client.say(&subscribe_v5(filter, 0));
            assert_eq!(client.hear(), [0x90, 4, 0, 1, 0, 0x87], "{name}: {filter}");
        }
        let body = [&string("own/victim/a")[..], &[0, 5, 0], b"x"].concat();
        client.say(&packet(0x32, &body));
        let puback = client.hear();
        assert_eq!((puback[0], puback[4]), (0x40, 0x87), "{name}");
    }
    victim.ping();
    hostile.canary.sing();
}

/// NATS CVE-2026-33217: what is internal is not for Clients to write, by any packet. What follows it on its way comes
/// first.
#[test]
fn internal_topics_take_nothing_from_clients() {
    let hostile = Hostile::new(in_memory(2));
    // They are there to be read.
    let mut reader = Raw::v311(hostile.address(), "reader");
    reader.subscribe("$SYS/broker/version", 0);
    assert_ne!(reader.hear().len(), 0);
    let mut watcher = Raw::v311(hostile.address(), "watcher");
    watcher.subscribe("$SYS/broker/forged", 0);
    watcher.subscribe("fence", 0);
    for (first, id) in [(0x31, &[][..]), (0x32, &[0, 1]), (0x34, &[0, 2])] {
        let body = [&string("$SYS/broker/forged")[..], id, b"x"].concat();
        let mut client = hostile.attack(Some(4), &packet(first, &body));
        client.say(&[0x62, 2, 0, 2, 0xC0, 0]);
        while ![&[][..], &[0xD0, 0]].contains(&&client.hear()[..]) {}
        drop(hostile.attack(Some(4), &publish("fence", 0, &[first])));
        assert_eq!(watcher.hear(), publish("fence", 0, &[first]));
    }
    dies_with(&hostile, "$SYS/broker/forged");
    dies_with(&hostile, "fence");
    assert_eq!(watcher.hear(), publish("fence", 0, b"w"));
    // Nor is it kept for those who come later.
    let mut late = Raw::v311(hostile.address(), "late");
    late.subscribe("$SYS/broker/forged", 0);
    late.ping();
    hostile.canary.sing();
}

/// A Client that comes with a will of `topic`, breaks the protocol, and is gone; always the same one, so that what one
/// leaves goes the way of what the one before has left.
fn dies_with(hostile: &Hostile, topic: &str) {
    let will = [&[0][..], &string(topic), &string("w")].concat();
    let mut client = Raw::open(hostile.address());
    client.say(&connect_flags_v5(0x06, "dies", 0, &[], &will));
    // A will may be reason enough not to let it in.
    if client.hear()[3] == 0 {
        client.say(&[0x00, 0]);
    }
    while !client.hear().is_empty() {}
}

/// Moquette CVE-2026-85058, Aedes CVE-2018-3778: a will is a message of its Client.
#[test]
fn a_will_needs_the_right_to_publish_it() {
    let rules = "[[authorization.rules]]\neffect = \"deny\"\nactions = [\"publish\"]\ntopics = [\"secret/#\"]\n\
                 [[authorization.rules]]\neffect = \"allow\"\ntopics = [\"#\"]\n";
    let hostile = Hostile::new(with(rules));
    let mut watcher = Raw::v311(hostile.address(), "watcher");
    watcher.subscribe("secret/#", 0);
    watcher.subscribe("open", 0);
    for _ in 0..20 {
        dies_with(&hostile, "secret/a");
        dies_with(&hostile, "open");
        // The one before goes the same way, and would come first.
        assert_eq!(watcher.hear(), publish("open", 0, b"w"));
    }
    hostile.canary.sing();
}

/// NATS CVE-2026-58209, mosquitto CVE-2021-34434: what a Client may not have does not come by the queue or as a
/// retained message either.
#[test]
fn retained_and_queued_messages_know_the_rule_that_denies() {
    let temp = TempFolder::new();
    let allow = "[[authorization.rules]]\neffect = \"allow\"\ntopics = [\"#\"]\n";
    let deny = "[[authorization.rules]]\neffect = \"deny\"\nactions = [\"receive\"]\ntopics = [\"secret/#\"]\n";
    let mut before = with(allow);
    before.storage = StorageConfig {
        data: temp.path().to_owned(),
        segment_bytes: 256 * 1024,
        ..StorageConfig::default()
    };
    let hostile = Hostile::growing(before.clone());
    let connect = [&b"\x00\x04MQTT\x04\x00\x00\x00"[..], &string("keeper")].concat();
    let mut keeper = Raw::open(hostile.address());
    keeper.say(&packet(0x10, &connect));
    keeper.hear();
    keeper.subscribe("+/a", 1);
    drop(keeper);
    let mut publisher = Raw::v311(hostile.address(), "publisher");
    for (first, topic) in [(0x33, "secret/a"), (0x33, "open/a")] {
        publisher.say(&packet(
            first,
            &[&string(topic)[..], &[0, 1], b"x"].concat(),
        ));
        assert_eq!(publisher.hear(), [0x40, 2, 0, 1]);
    }
    let after = Config {
        authorization: with(&format!("{deny}{allow}")).authorization,
        ..before
    };
    hostile.server.reload(after).expect("is taken over");
    let mut keeper = Raw::open(hostile.address());
    keeper.say(&packet(0x10, &connect));
    assert_eq!(keeper.hear(), [0x20, 2, 1, 0]);
    let queued = keeper.hear();
    assert!(
        queued.windows(6).any(|bytes| bytes == b"open/a"),
        "{queued:?}"
    );
    keeper.say(&[0x40, 2, queued[10], queued[11]]);
    keeper.ping();
    let mut newcomer = Raw::v311(hostile.address(), "newcomer");
    newcomer.subscribe("+/a", 0);
    assert_eq!(newcomer.hear()[4..10], *b"open/a");
    newcomer.ping();
    hostile.canary.sing();
}

/// Moquette CVE-2026-95847: Client Identifiers that collide once they are keys or file names.
#[test]
fn client_identifiers_do_not_collide_whatever_they_hold() {
    let temp = TempFolder::new();
    let mut config = in_memory(2);
    config.storage = StorageConfig {
        data: temp.path().to_owned(),
        segment_bytes: 256 * 1024,
        ..StorageConfig::default()
    };
    let names = [
        "a", "A", "a ", " a", "a/b", "a_b", "a%2Fb", "../a", "a\u{301}", "\u{E1}", "a:b", "a\\b",
    ];
    let connect = |name: &str| {
        packet(
            0x10,
            &[&b"\x00\x04MQTT\x04\x00\x00\x00"[..], &string(name)].concat(),
        )
    };
    let hostile = Hostile::growing(config.clone());
    for (n, name) in names.iter().enumerate() {
        let mut client = Raw::open(hostile.address());
        client.say(&connect(name));
        assert_eq!(client.hear(), [0x20, 2, 0, 0], "{name:?} is new");
        client.subscribe(&format!("n/{n}"), 1);
    }
    let Hostile { server, canary } = hostile;
    drop(canary);
    server.stop();
    server.join().expect("stops in peace");
    let hostile = Hostile::growing(config);
    let mut publisher = Raw::v311(hostile.address(), "publisher");
    for (n, name) in names.iter().enumerate() {
        let mut client = Raw::open(hostile.address());
        client.say(&connect(name));
        assert_eq!(client.hear(), [0x20, 2, 1, 0], "{name:?} is known");
        publisher.say(&publish(&format!("n/{n}"), 0, b"x"));
        assert_eq!(client.hear(), publish(&format!("n/{n}"), 0, b"x"));
    }
}

/// mosquitto CVE-2018-12550, -12551, -20145, Moquette CVE-2026-95848: security that is missing, empty or blank.
#[test]
fn security_that_says_nothing_is_not_an_open_door() {
    let temp = TempFolder::new();
    std::fs::create_dir_all(temp.path()).expect("a folder");
    let path = temp.path().join("file");
    let acl = format!(
        "[authorization]\nacl_file = {:?}\n",
        path.display().to_string()
    );
    let passwords = format!(
        "[authentication]\npassword_file = {:?}\n",
        path.display().to_string()
    );
    let hash = "anna:$7$101$M4oVbr/hebfTv2IZ$mkIDouR1P4cbRK44mnGBCr60nEtK1K66sTRHL5xfeRwT1YObOAvfhINFNL7AL/XVH5k7a5CdsxjyM6vQI3DYug==";
    let blank = format!("{hash}\n\n:\n");
    let unhashed = format!("{hash}\notto:\n");
    let cases = [
        ("no ACL file", &acl, None),
        ("an empty ACL file", &acl, Some("")),
        ("an ACL file of comments", &acl, Some("# nothing\n\n")),
        ("no password file", &passwords, None),
        ("an empty password file", &passwords, Some("")),
        ("a user without a name", &passwords, Some(blank.as_str())),
        (
            "a user without a password",
            &passwords,
            Some(unhashed.as_str()),
        ),
        (
            "a password that is not hashed",
            &passwords,
            Some("anna:secret\n"),
        ),
    ];
    for (what, text, content) in cases {
        match content {
            Some(content) => std::fs::write(&path, content).expect("a file"),
            None => std::fs::remove_file(&path).unwrap_or_default(),
        }
        let error = Server::start(with(text)).expect_err(what);
        let is_of_it = matches!(
            error,
            StartError::Authentication(_) | StartError::Authorization(_)
        );
        assert!(is_of_it, "{what}: {error:?}");
    }
}

/// RabbitMQ CVE-2016-9877: a user who leaves the password out.
#[test]
fn a_known_user_without_a_password_is_not_let_in() {
    let temp = TempFolder::new();
    std::fs::create_dir_all(temp.path()).expect("a folder");
    let path = temp.path().join("passwords");
    let hash = "anna:$7$101$M4oVbr/hebfTv2IZ$mkIDouR1P4cbRK44mnGBCr60nEtK1K66sTRHL5xfeRwT1YObOAvfhINFNL7AL/XVH5k7a5CdsxjyM6vQI3DYug==\n";
    std::fs::write(&path, hash).expect("a file");
    let text = format!(
        "[authentication]\npassword_file = {:?}\n",
        path.display().to_string()
    );
    let hostile = Hostile::growing(with(&text));
    for (flags, more) in [
        (0x82, string("anna")),
        (0xC2, [string("anna"), string("")].concat()),
        (0xC2, [string("anna"), string("Secret")].concat()),
        (0xC2, [string("ANNA"), string("secret")].concat()),
    ] {
        let mut client = Raw::open(hostile.address());
        client.say(&connect_flags_v5(flags, "c", 0, &[], &more));
        assert_eq!(client.hear()[3], 0x86, "{more:?}");
        hostile.canary.sing();
    }
}
