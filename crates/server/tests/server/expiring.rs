//! What a Client has shown ends, and its connection with it, unless it shows it again.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use vencejo_server::Server;
use vencejo_server::authentication::{
    Attempt, Authentication, Authenticator, Decision, Exchange, Identity,
};
use vencejo_server::config::Config;

use crate::client::{Raw, connect_v5, connect_v311, packet, string};
use crate::config;

/// How long what a Client shows first counts.
const BRIEF: Duration = Duration::from_millis(400);

/// Lets everybody in for a moment; with the method `AGAIN`, whoever says the name of its user stays.
#[derive(Debug)]
struct Brief(Option<&'static str>);

impl Authenticator for Brief {
    fn method(&self) -> Option<&str> {
        self.0
    }

    fn authenticate(&self, attempt: &Attempt<'_>, _: &mut Exchange) -> Option<Decision> {
        let data = attempt.data.map(text_of);
        let (user, lasts) = match data {
            Some(ref user) if user != "first" => (user.as_str(), Duration::from_secs(3600)),
            _ => ("user", BRIEF),
        };
        let identity = Identity {
            expires_at: Some(SystemTime::now() + lasts),
            ..Identity::of_user(user)
        };
        Some(Decision::Allow {
            identity,
            data: None,
        })
    }
}

fn text_of(secret: &proto::Secret) -> String {
    String::from_utf8_lossy(secret.expose()).into_owned()
}

fn start() -> Server {
    start_with(config(2))
}

fn start_with(config: Config) -> Server {
    let both =
        [None, Some("AGAIN")].map(|method| -> Arc<dyn Authenticator> { Arc::new(Brief(method)) });
    let authentication = Authentication::new(both.into());
    Server::start_with(config, authentication, |_| store::MemoryStore::new())
        .expect("the Server starts")
}

/// AUTH with 0x19, the method `AGAIN` and this data.
fn again(user: &str) -> Vec<u8> {
    let properties = [&[0x15][..], &string("AGAIN"), &[0x16], &string(user)].concat();
    let len = u8::try_from(properties.len()).expect("short");
    packet(0xF0, &[&[0x19, len][..], &properties].concat())
}

/// CONNECT with the method, shown for the first time.
fn connect_with_method(client: &mut Raw) {
    let properties = [&[0x15][..], &string("AGAIN"), &[0x16], &string("first")].concat();
    client.say(&connect_v5("client", 0, &properties, &[]));
    let connack = client.hear();
    assert_eq!((connack[0], connack[3]), (0x20, 0));
}

/// Section 3.14.2.1: Maximum connect time.
#[test]
fn a_connection_ends_with_what_its_client_has_shown() {
    let server = start();
    let began = Instant::now();
    let mut client = Raw::v5(server.listeners()[0], "v5", 0);
    let disconnect = client.hear();
    assert_eq!(
        (disconnect[0], disconnect[2]),
        (0xE0, 0xA0),
        "{disconnect:?}"
    );
    assert!(client.is_at_end());
    let took = began.elapsed();
    assert!(took >= BRIEF.mul_f32(0.9), "{took:?}");
    assert!(took < BRIEF * 10, "{took:?}");
    let mut older = Raw::open(server.listeners()[0]);
    older.say(&connect_v311("v311"));
    assert_eq!(older.hear(), [0x20, 2, 0, 0]);
    assert!(older.is_at_end());
}

/// It is not read meanwhile, for what it has said takes half a minute at its rate.
#[test]
fn a_connection_that_is_ahead_of_its_rate_ends_in_time_too() {
    let mut config = config(2);
    config.bounds.subscribe_rate_max = 1;
    let server = start_with(config);
    let began = Instant::now();
    let mut client = Raw::v5(server.listeners()[0], "ahead", 0);
    let filters = [&string("a")[..], &[0]].concat().repeat(30);
    client.say(&packet(0x82, &[&[0, 1, 0][..], &filters].concat()));
    assert_eq!(client.hear()[0], 0x90);
    let disconnect = client.hear();
    assert_eq!(
        (disconnect[0], disconnect[2]),
        (0xE0, 0xA0),
        "{disconnect:?}"
    );
    let took = began.elapsed();
    assert!(took < BRIEF * 10, "{took:?}");
}

#[test]
fn a_client_that_shows_it_again_stays() {
    let server = start();
    let mut client = Raw::open(server.listeners()[0]);
    let began = Instant::now();
    connect_with_method(&mut client);
    client.say(&again("user"));
    let auth = client.hear();
    assert_eq!((auth[0], auth[2]), (0xF0, 0), "{auth:?}");
    // Another one, whose time comes later, has ended: so would this one have.
    let mut other = Raw::v5(server.listeners()[0], "other", 0);
    assert_eq!(other.hear()[0], 0xE0);
    assert!(began.elapsed() >= BRIEF.mul_f32(0.9));
    client.ping();
}

#[test]
fn a_client_does_not_become_another_user() {
    let server = start();
    let mut client = Raw::open(server.listeners()[0]);
    connect_with_method(&mut client);
    client.say(&again("somebody else"));
    let disconnect = client.hear();
    assert_eq!(
        (disconnect[0], disconnect[2]),
        (0xE0, 0x87),
        "{disconnect:?}"
    );
    assert!(client.is_at_end());
}
