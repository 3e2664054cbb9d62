//! Limits on who comes, how many and how fast: refused politely, and nobody else notices.
//!
//! Owns: limits of connections, rates, packets. Does not own: limits of the engine (see its own tests). Start reading
//! at any test. Invariant: a canary goes on beside each.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use vencejo_server::authentication::AnonymousPolicy;
use vencejo_server::config::{self, Config, Proxies, StorageConfig};
use vencejo_server::persist::{self, ControlAnswer, ControlRequest};
use vencejo_server::{Origin, Server};

use crate::canary::Canary;
use crate::client::{
    Raw, connect_flags_v5, connect_v5, connect_v311, packet, publish, string, subscribe_v5,
    subscribe_v311,
};
use crate::durable::TempFolder;
use crate::rates::named;
use crate::{config as in_memory, start};

/// A Server with these `[limits]`, and the pair beside what is tried.
struct Limited {
    // Goes first: a Server that stops waits for who is connected.
    canary: Canary,
    server: Server,
}

impl Limited {
    fn new(shards: u16, limits: &str) -> Self {
        Self::with(shards, limits, |_| {})
    }

    fn with(shards: u16, limits: &str, change: impl FnOnce(&mut Config)) -> Self {
        let text = format!("[limits]\n{limits}");
        let parsed = config::parse(&text, "test.toml".as_ref()).expect("a configuration");
        let mut config = Config {
            limits: parsed.limits,
            bounds: parsed.bounds,
            ..in_memory(shards)
        };
        change(&mut config);
        let (server, address) = start(config);
        Self {
            canary: Canary::new(address),
            server,
        }
    }

    fn address(&self) -> SocketAddr {
        self.server.listeners()[0]
    }
}

/// The Reason Code of the CONNACK that answers `connect`, and what stands behind it.
fn answer(address: SocketAddr, connect: &[u8]) -> (u8, Vec<u8>, Raw) {
    let mut client = Raw::open(address);
    client.say(connect);
    let connack = client.hear();
    assert_eq!(connack[0], 0x20, "{connack:?}");
    (connack[3], connack[4..].to_vec(), client)
}

/// Beside the two of the canary.
fn durable(client_id: &str) -> Vec<u8> {
    // Session Expiry Interval: for ever.
    connect_flags_v5(0x00, client_id, 0, b"\x11\xFF\xFF\xFF\xFF", &[])
}

/// Promise P14, class M.
#[test]
fn connections_of_one_address_are_bounded_and_a_take_over_is_not_one_more() {
    let limited = Limited::new(2, "connections_per_address_max = 4");
    let address = limited.address();
    let (reason, _, first) = answer(address, &connect_v5("first", 0, &[], &[]));
    let (_, _, _second) = answer(address, &connect_v311("second"));
    assert_eq!(reason, 0);
    let (reason, text, mut refused) = answer(address, &connect_v5("third", 0, &[], &[]));
    assert_eq!(reason, 0x97);
    let text = String::from_utf8_lossy(&text);
    assert!(
        text.contains("limit of connections of this address"),
        "{text}"
    );
    assert!(refused.is_at_end());
    assert_eq!(answer(address, &connect_v311("third")).0, 3);
    limited.canary.sing();
    // It has lost its connection without knowing, and comes again.
    let (reason, _, again) = answer(address, &connect_v5("first", 0, &[], &[]));
    assert_eq!(reason, 0);
    drop((first, again));
    // What has ended makes room.
    let patience = Instant::now() + Duration::from_secs(10);
    while answer(address, &connect_v5("third", 0, &[], &[])).0 != 0 {
        assert!(Instant::now() < patience, "the seats are not given back");
    }
}

#[test]
fn connections_of_one_user_are_bounded() {
    let (_server, address, canary) = named(2, "connections_per_user_max = 2");
    let connect =
        |client_id: &str, user: &str| connect_flags_v5(0x82, client_id, 0, &[], &string(user));
    let one = answer(address, &connect("one", "anna"));
    let two = answer(address, &connect("two", "anna"));
    assert_eq!((one.0, two.0), (0, 0));
    assert_eq!(answer(address, &connect("three", "anna")).0, 0x97);
    assert_eq!(answer(address, &connect("three", "otto")).0, 0);
    let again = answer(address, &connect("one", "anna"));
    assert_eq!(again.0, 0, "it takes over");
    drop(canary);
}

/// A CONNECT of `user` whose Session never expires.
fn of_user(user: &str, client_id: &str) -> Vec<u8> {
    let for_ever = b"\x11\xFF\xFF\xFF\xFF";
    connect_flags_v5(0x80, client_id, 0, for_ever, &string(user))
}

/// Verifies [MQTT-3.2.2-7]: Client Identifiers are free to invent, so a user may leave so many Sessions, in whatever shards,
/// and nobody else notices. Promise P14, class M.
#[test]
fn sessions_of_one_user_are_bounded() {
    let (_server, address, canary) = named(2, "sessions_per_user_max = 4");
    let mut kept = 0;
    for number in 0..40 {
        let (reason, _, mut client) = answer(address, &of_user("anna", &format!("a-{number}")));
        if reason == 0 {
            kept += 1;
            client.say(&[0xE0, 0]);
        } else {
            assert_eq!(reason, 0x97);
        }
        assert!(client.is_at_end());
    }
    assert_eq!(kept, 4);
    assert_eq!(answer(address, &of_user("anna", "a-0")).0, 0, "is hers");
    assert_eq!(answer(address, &of_user("otto", "o-0")).0, 0);
    for number in 0..8 {
        assert_eq!(answer(address, &durable(&format!("nobody-{number}"))).0, 0);
    }
    // A Session that ends with its connection makes room.
    let (reason, _, mut last) = answer(
        address,
        &connect_flags_v5(0x82, "a-1", 0, &[], &string("anna")),
    );
    assert_eq!(reason, 0, "in place of one of hers");
    last.say(&[0xE0, 0]);
    assert!(last.is_at_end());
    let patience = Instant::now() + Duration::from_secs(10);
    while answer(address, &of_user("anna", "a-40")).0 != 0 {
        assert!(Instant::now() < patience, "no room was made");
    }
    assert_eq!(answer(address, &of_user("anna", "a-41")).0, 0x97);
    canary.sing();
}

/// However many come at once, in however many shards. Promise P14, class M.
#[test]
fn a_storm_of_one_user_leaves_no_more_sessions_than_it_may_have() {
    let (_server, address, canary) = named(2, "sessions_per_user_max = 5");
    let storm = (0..8).map(|thread| {
        std::thread::spawn(move || {
            let taken = (0..20).filter(|number| {
                let client_id = format!("a-{thread}-{number}");
                answer(address, &of_user("anna", &client_id)).0 == 0
            });
            taken.count()
        })
    });
    let storm: Vec<_> = storm.collect();
    let taken = storm
        .into_iter()
        .map(|thread| thread.join().expect("no panic"));
    assert_eq!(taken.sum::<usize>(), 5);
    assert_eq!(answer(address, &of_user("otto", "otto")).0, 0);
    canary.sing();
}

/// Verifies [MQTT-3.8.4-6], [v3.1.1 MQTT-3.8.4-5]: the filters of a user are bounded over all of its Sessions; what is beyond
/// that is refused in SUBACK, and nobody else's is. Promise P14.
#[test]
fn subscriptions_of_one_user_are_bounded() {
    let (_server, address, canary) = named(2, "subscriptions_per_user_max = 6");
    let mut annas: Vec<Raw> = (0..4)
        .map(|number| answer(address, &of_user("anna", &format!("a-{number}"))).2)
        .collect();
    let mut granted = 0;
    for (number, anna) in annas.iter_mut().enumerate() {
        for filter in 0..4 {
            anna.say(&subscribe_v5(&format!("{number}/{filter}"), 1));
            match anna.hear()[..] {
                [0x90, 4, 0, 1, 0, 1] => granted += 1,
                ref suback => assert_eq!(suback, [0x90, 4, 0, 1, 0, 0x97]),
            }
        }
    }
    assert_eq!(granted, 6);
    let (_, _, mut otto) = answer(address, &of_user("otto", "otto"));
    let mut nobody = Raw::v311(address, "nobody");
    for filter in 0..8 {
        otto.say(&subscribe_v5(&filter.to_string(), 1));
        let granted = if filter < 6 { 1 } else { 0x97 };
        assert_eq!(otto.hear(), [0x90, 4, 0, 1, 0, granted]);
        nobody.subscribe(&filter.to_string(), 1);
    }
    // A CONNECT of 3.1.1 with a user name: flags, then who it is.
    let mut old = Raw::open(address);
    let connect = [
        &b"\x00\x04MQTT\x04\x82\x00\x00"[..],
        &string("old"),
        &string("anna"),
    ];
    old.say(&packet(0x10, &connect.concat()));
    assert_eq!(old.hear(), [0x20, 2, 0, 0]);
    old.say(&subscribe_v311("old", 1));
    assert_eq!(old.hear(), [0x90, 3, 0, 1, 0x80]);
    canary.sing();
}

/// Promises P14 and P20: whose Session is there goes first, and all others hear when to come again.
#[test]
fn who_connects_beyond_the_rate_is_put_off_and_known_sessions_go_first() {
    let limited = Limited::new(2, "connect_rate_max = 12");
    let address = limited.address();
    let mut known = Vec::new();
    for number in 0..5 {
        let name = format!("known-{number}");
        let (reason, _, client) = answer(address, &durable(&name));
        assert_eq!(reason, 0);
        drop(client);
        known.push(name);
    }
    // Until nobody gets in any more who is not known.
    let put_off = (0..100).find_map(|number| {
        let name = format!("new-{number}");
        let (reason, text, _) = answer(address, &connect_v5(&name, 0, &[], &[]));
        (reason != 0).then_some((reason, text))
    });
    let (reason, text) = put_off.expect("somebody is put off");
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(reason, 0x89);
    assert!(text.contains("try again in "), "{text}");
    assert_eq!(answer(address, &connect_v311("old")).0, 3);
    for name in known {
        assert_eq!(answer(address, &durable(&name)).0, 0, "{name} goes first");
    }
    limited.canary.sing();
}

#[test]
fn a_listener_has_a_rate_and_a_packet_size_of_its_own() {
    let limited = Limited::with(1, "", |config| {
        let mut narrow = config.listeners[0].clone();
        narrow.name = "narrow".to_owned();
        narrow.limits.connect_rate_max = Some(1);
        narrow.limits.maximum_packet_size_bytes = Some(200);
        config.listeners.push(narrow);
    });
    let narrow = limited.server.listeners()[1];
    let (reason, properties, mut client) = answer(narrow, &connect_v5("one", 0, &[], &[]));
    assert_eq!(reason, 0);
    // Maximum Packet Size, 3.2.2.3.6.
    let announced = b"\x27\x00\x00\x00\xC8";
    assert!(properties.windows(5).any(|window| window == announced));
    client.say(&packet(
        0x30,
        &[&b"\x00\x01a\x00"[..], &[b'x'; 300]].concat(),
    ));
    let disconnect = client.hear();
    assert_eq!((disconnect[0], disconnect[2]), (0xE0, 0x95));
    let (reason, ..) = answer(narrow, &connect_v5("two", 0, &[], &[]));
    assert_eq!(reason, 0x89);
    let wide = answer(limited.address(), &connect_v5("two", 0, &[], &[]));
    assert_eq!(wide.0, 0, "the other one is not asked");
}

/// Promise P5, class M: what is too fast is not read, and nothing of it is lost.
#[test]
fn a_publisher_ahead_of_its_rate_is_not_read_and_loses_nothing() {
    let limited = Limited::new(1, "publish_rate_max = 2000");
    let address = limited.address();
    let mut subscriber = Raw::v311(address, "subscriber");
    subscriber.subscribe("fast", 0);
    let mut publisher = Raw::v311(address, "publisher");
    let fast = |number: u16| publish("fast", 0, &[number.to_be_bytes(); 50].concat());
    let began = Instant::now();
    for number in 0..4000_u16 {
        publisher.say(&fast(number));
    }
    for number in 0..4000_u16 {
        assert_eq!(subscriber.hear(), fast(number));
    }
    // A second's worth at once, the rest at the rate; what comes in one read is taken whole.
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(400), "{took:?}");
    publisher.ping();
    limited.canary.sing();
}

/// Class M, and promise P14: who comes and goes is banned, and the ban is listed and lifted.
#[test]
fn a_client_that_comes_and_goes_is_banned_but_never_one_of_this_machine() {
    let temp = TempFolder::new();
    let limited = Limited::with(2, "flapping_max = 3", |config| {
        config.storage = StorageConfig {
            data: temp.path().into(),
            ..StorageConfig::default()
        };
        let mut proxied = config.listeners[0].clone();
        proxied.name = "proxied".to_owned();
        proxied.anonymous = Some(AnonymousPolicy::Always);
        proxied.proxy = Some(Proxies::From(vec![
            "127.0.0.0/8".parse().expect("a network"),
        ]));
        config.listeners.push(proxied);
    });
    let proxied = limited.server.listeners()[1];
    let come = |client_id: &str, from: &str| {
        let mut client = Raw::open(proxied);
        client.say(format!("PROXY TCP4 {from} 10.0.0.1 8080 1883\r\n").as_bytes());
        client.say(&connect_v5(client_id, 0, &[], &[]));
        client.hear()[3]
    };
    for _ in 0..3 {
        assert_eq!(come("flapping", "192.0.2.1"), 0);
    }
    assert_eq!(come("flapping", "192.0.2.1"), 0x8A);
    assert_eq!(come("flapping", "192.0.2.2"), 0, "only from there");
    assert_eq!(come("quiet", "192.0.2.1"), 0, "only this one");
    // Without a name of its own none is counted, and this machine never is.
    for _ in 0..6 {
        assert_eq!(come("", "192.0.2.1"), 0);
        assert_eq!(answer(limited.address(), &connect_v311("local")).0, 0);
    }
    let ask = |request| persist::ask(temp.path(), &request).expect("an answer");
    let Some(ControlAnswer::Bans { bans }) = ask(ControlRequest::Bans) else {
        panic!("no list of bans");
    };
    let there = "192.0.2.1".parse::<Origin>().expect("an address");
    let [ban] = &bans[..] else {
        panic!("one ban: {bans:?}");
    };
    let who = (ban.address, ban.client_id.as_deref(), ban.user.as_deref());
    assert_eq!(who, (there, Some("flapping"), None));
    let address = Some(there);
    let lifted = ask(ControlRequest::LiftBans { address });
    assert_eq!(lifted, Some(ControlAnswer::Lifted { count: 1 }));
    assert_eq!(come("flapping", "192.0.2.1"), 0, "it is lifted");
    limited.canary.sing();
}

/// Class U.
#[test]
fn a_subscriber_ahead_of_its_rate_is_not_read() {
    let limited = Limited::new(1, "subscribe_rate_max = 20");
    let mut client = Raw::v311(limited.address(), "eager");
    let began = Instant::now();
    for _ in 0..31 {
        client.say(&subscribe_v311("a", 0));
        assert_eq!(client.hear()[0], 0x90);
    }
    assert!(began.elapsed() >= Duration::from_millis(300));
}
