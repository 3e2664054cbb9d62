//! Rates: what is said too fast is not read, and nothing of it is lost; alone, and together with others.
//!
//! Owns: rates of connections, of users and of all there are. Does not own: how many there are (see `limits`). Start
//! reading at any test. Invariant: whoever is not too fast does not notice.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use store::MemoryStore;
use vencejo_server::Server;
use vencejo_server::authentication::{
    Attempt, Authentication, Authenticator, Decision, Exchange, Identity,
};
use vencejo_server::config::{self, Config};

use crate::canary::Canary;
use crate::client::{Raw, connect_flags_v5, publish, string, subscribe_v311};
use crate::config as in_memory;

/// Lets everyone in as whom he says he is, and who says nothing as nobody.
#[derive(Debug)]
pub(crate) struct Named;

impl Authenticator for Named {
    fn method(&self) -> Option<&str> {
        None
    }

    fn authenticate(&self, attempt: &Attempt<'_>, _: &mut Exchange) -> Option<Decision> {
        let identity = attempt
            .user_name
            .map_or_else(Identity::anonymous, Identity::of_user);
        Some(Decision::Allow {
            identity,
            data: None,
        })
    }
}

/// A Server with these `[limits]` where everybody is who he says, and the pair beside what is tried.
pub(crate) fn named(shards: u16, limits: &str) -> (Server, SocketAddr, Canary) {
    let text = format!("[limits]\n{limits}");
    let parsed = config::parse(&text, "test.toml".as_ref()).expect("a configuration");
    let config = Config {
        limits: parsed.limits,
        bounds: parsed.bounds,
        sys_interval: Duration::from_millis(100),
        ..in_memory(shards)
    };
    let named = Authentication::new(vec![Arc::new(Named)]);
    let server =
        Server::start_with(config, named, |_| MemoryStore::new()).expect("the Server starts");
    let address = server.listeners()[0];
    (server, address, Canary::new(address))
}

/// A Client of `user`, and the Reason Code of its CONNACK.
pub(crate) fn client_of(address: SocketAddr, user: &str, client_id: &str) -> (u8, Raw) {
    let mut client = Raw::open(address);
    client.say(&connect_flags_v5(0x82, client_id, 0, &[], &string(user)));
    let reason = client.hear()[3];
    (reason, client)
}

/// PUBLISH of 5.0 at QoS 0, without properties.
fn publish_v5(topic: &str, payload: &[u8]) -> Vec<u8> {
    publish(topic, 0, &[&[0], payload].concat())
}

/// Says so many messages in one write, and returns how long a subscriber had to wait for all of them.
fn hears_all(publishers: &mut [Raw], topic: &str, count: u16, subscriber: &mut Raw) -> Duration {
    let began = Instant::now();
    for publisher in &mut *publishers {
        let all: Vec<u8> = (0..count)
            .flat_map(|number| publish_v5(topic, &number.to_be_bytes()))
            .collect();
        publisher.say(&all);
    }
    for _ in 0..usize::from(count) * publishers.len() {
        assert_eq!(subscriber.hear()[0], 0x30);
    }
    began.elapsed()
}

/// Promises P5 and P14: the limit on a user is on all of its connections together, in whatever shards, and on nobody else.
#[test]
fn connections_of_one_user_publish_at_one_rate_together() {
    let (_server, address, canary) = named(2, "publish_rate_per_user_max = 200");
    let mut subscriber = Raw::v311(address, "subscriber");
    subscriber.subscribe("fast/#", 0);
    let of = |user: &str, number: usize| client_of(address, user, &format!("{user}-{number}")).1;
    let mut annas: Vec<Raw> = (0..4).map(|number| of("anna", number)).collect();
    let took = hears_all(&mut annas, "fast/anna", 100, &mut subscriber);
    // A second's worth at once, the other 200 at the rate.
    assert!(took >= Duration::from_millis(800), "{took:?}");
    assert!(took < Duration::from_secs(6), "{took:?}");
    let mut ottos = [of("otto", 0)];
    let took = hears_all(&mut ottos, "fast/otto", 150, &mut subscriber);
    assert!(took < Duration::from_millis(500), "another user: {took:?}");
    // To come again is no way around it.
    let (_, again) = client_of(address, "anna", "anna-again");
    let took = hears_all(&mut [again], "fast/anna", 150, &mut subscriber);
    assert!(took >= Duration::from_millis(200), "{took:?}");
    for anna in &mut annas {
        anna.ping();
    }
    canary.sing();
}

#[test]
fn bytes_of_one_user_are_counted_together() {
    let (_server, address, canary) = named(2, "publish_bytes_rate_per_user_max = \"20KiB\"");
    let mut subscriber = Raw::v311(address, "subscriber");
    subscriber.subscribe("wide", 0);
    let mut annas: Vec<Raw> = ["one", "two"]
        .map(|name| client_of(address, "anna", name).1)
        .into();
    let began = Instant::now();
    for anna in &mut annas {
        for _ in 0..20 {
            anna.say(&publish_v5("wide", &[b'x'; 1000]));
        }
    }
    for _ in 0..40 {
        assert_eq!(subscriber.hear()[0], 0x30);
    }
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(700), "{took:?}");
    canary.sing();
}

/// Promise P2: at the limit on all together each has its share, and who says less than that does not notice.
#[test]
fn all_connections_publish_at_one_rate_together_and_the_loudest_waits() {
    let (_server, address, canary) = named(2, "publish_rate_total_max = 8000");
    let mut subscriber = Raw::v311(address, "subscriber");
    subscriber.subscribe("fast", 0);
    let loud = client_of(address, "anna", "loud").1;
    let took = hears_all(&mut [loud], "fast", 16_000, &mut subscriber);
    assert!(took >= Duration::from_millis(800), "{took:?}");
    canary.sing();
}

/// What comes in one read was taken whole, however much it was.
#[test]
fn what_comes_in_one_read_is_taken_at_the_rate_too() {
    let (_server, address, canary) = named(1, "publish_rate_max = 2000\nsubscribe_rate_max = 20");
    let mut subscriber = Raw::v311(address, "subscriber");
    subscriber.subscribe("a", 0);
    let mut client = Raw::v311(address, "eager");
    let many: Vec<u8> = (0..31).flat_map(|_| subscribe_v311("b", 0)).collect();
    let began = Instant::now();
    client.say(&[&many[..], &publish("a", 0, b"last")].concat());
    for _ in 0..21 {
        assert_eq!(client.hear()[0], 0x90);
    }
    let took = began.elapsed();
    assert_eq!(subscriber.hear(), publish("a", 0, b"last"));
    let waited = began.elapsed();
    assert!(
        waited >= Duration::from_millis(400),
        "{took:?}, then {waited:?}"
    );
    canary.sing();
}

#[test]
fn a_listener_has_a_rate_of_filters_of_its_own() {
    let text = "[limits]\nsubscribe_rate_max = 1000000\n\
        [[listeners]]\naddress = \"127.0.0.1:0\"\nsubscribe_rate_max = 20";
    let parsed = config::parse(text, "test.toml".as_ref()).expect("a configuration");
    let server = Server::start(Config {
        listeners: [parsed.listeners, in_memory(1).listeners].concat(),
        bounds: parsed.bounds,
        ..in_memory(1)
    });
    let server = server.expect("the Server starts");
    let canary = Canary::new(server.listeners()[1]);
    let time = |address| {
        let mut client = Raw::v311(address, "eager");
        let began = Instant::now();
        for _ in 0..31 {
            client.subscribe("a", 0);
        }
        began.elapsed()
    };
    let took = time(server.listeners()[0]);
    assert!(took >= Duration::from_millis(300), "{took:?}");
    let took = time(server.listeners()[1]);
    assert!(took < Duration::from_millis(300), "{took:?}");
    canary.sing();
}

/// Promise P14.
#[test]
fn a_user_that_connects_beyond_its_rate_is_put_off_and_no_other() {
    let (_server, address, canary) = named(2, "connect_rate_per_user_max = 3");
    let reasons: Vec<u8> = (0..5)
        .map(|number| client_of(address, "anna", &format!("anna-{number}")).0)
        .collect();
    assert_eq!(reasons, [0, 0, 0, 0x89, 0x89]);
    assert_eq!(client_of(address, "otto", "otto").0, 0);
    Raw::v311(address, "nobody").ping();
    canary.sing();
}
