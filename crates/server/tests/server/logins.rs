//! Logins that take long, and what they cost the others.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use proto::packet::ReasonCode;
use store::MemoryStore;
use vencejo_server::Server;
use vencejo_server::authentication::{
    Attempt, Authentication, Authenticator, Decision, Exchange, Identity, Work,
};
use vencejo_server::config::Config;

use crate::client::{Raw, connect_flags_v5, packet, publish, string, subscribe_v5};
use crate::config;

/// Verifies every Client with a User Name on another thread, one after the other, each when the test says how.
#[derive(Debug)]
struct Slow {
    begun: mpsc::Sender<()>,
    verdicts: Arc<Mutex<mpsc::Receiver<bool>>>,
}

impl Authenticator for Slow {
    fn method(&self) -> Option<&str> {
        None
    }

    fn authenticate(&self, attempt: &Attempt<'_>, _: &mut Exchange) -> Option<Decision> {
        let name: Arc<str> = attempt.user_name?.into();
        let (begun, verdicts) = (self.begun.clone(), Arc::clone(&self.verdicts));
        Some(Decision::Wait(Work::new(move || {
            begun.send(()).expect("the test listens");
            let verdicts = verdicts.lock().expect("one thread");
            let is_known = verdicts.recv().expect("the test decides");
            is_known.then(|| Decision::Allow {
                identity: Identity::of_user(&name),
                data: None,
            })
        })))
    }
}

/// Lets everyone without a User Name in.
#[derive(Debug)]
struct Nameless;

impl Authenticator for Nameless {
    fn method(&self) -> Option<&str> {
        None
    }

    fn authenticate(&self, attempt: &Attempt<'_>, _: &mut Exchange) -> Option<Decision> {
        attempt.user_name.is_none().then(|| Decision::Allow {
            identity: Identity::anonymous(),
            data: None,
        })
    }
}

/// A Server with one thread to verify on, who hears that a verification has begun, and who decides.
fn start(mut config: Config) -> (Server, mpsc::Receiver<()>, mpsc::Sender<bool>) {
    config.bounds.login_threads = 1;
    let (begun, begins) = mpsc::channel();
    let (decide, verdicts) = mpsc::channel();
    let verdicts = Arc::new(Mutex::new(verdicts));
    let slow = Slow { begun, verdicts };
    let authentication = Authentication::new(vec![Arc::new(slow), Arc::new(Nameless)]);
    let server = Server::start_with(config, authentication, |_| MemoryStore::new());
    (server.expect("the Server starts"), begins, decide)
}

/// CONNECT of 5.0 with a User Name.
fn connect_as(client_id: &str) -> Vec<u8> {
    connect_flags_v5(0x82, client_id, 0, &[], &string("somebody"))
}

#[test]
fn parked_client_goes_on_with_all_it_has_sent_and_holds_nobody_up() {
    for shards in [1, 4] {
        let (server, begins, decide) = start(config(shards));
        let address = server.listeners()[0];
        for n in 0..8 {
            let client_id = format!("parked-{n}");
            let mut parked = Raw::open(address);
            // In one read, in the middle of a packet, and in a read that comes later.
            let ahead = [connect_as(&client_id), subscribe_v5("a", 0)].concat();
            parked.say(&ahead[..ahead.len() - 3]);
            begins.recv().expect("it is verified");
            parked.say(&ahead[ahead.len() - 3..]);
            parked.say(&[0xC0, 0]);
            for other in 0..4 {
                Raw::v5(address, &format!("other-{other}"), 0).ping();
            }
            decide.send(true).expect("is awaited");
            assert_eq!(parked.hear()[3], 0, "CONNACK");
            assert_eq!(parked.hear(), [0x90, 4, 0, 1, 0, 0]);
            assert_eq!(parked.hear(), [0xD0, 0]);
            parked.say(&packet(0x30, &[&string("a")[..], &[0], b"x"].concat()));
            assert!(parked.hear().ends_with(b"x"));
        }
    }
}

/// Verifies [MQTT-3.1.4-6]: what comes behind a CONNECT that is refused in the end is not looked at.
#[test]
fn parked_client_that_nobody_knows_is_refused_and_what_it_sent_is_not_taken() {
    let (server, begins, decide) = start(config(2));
    let address = server.listeners()[0];
    let mut watcher = Raw::v311(address, "watcher");
    watcher.subscribe("#", 0);
    let mut parked = Raw::open(address);
    let unwanted = packet(0x30, &[&string("a")[..], &[0], b"unwanted"].concat());
    parked.say(&[connect_as("unknown"), unwanted].concat());
    begins.recv().expect("it is verified");
    decide.send(false).expect("is awaited");
    assert_eq!(parked.hear()[3], ReasonCode::NotAuthorized.value());
    assert!(parked.is_at_end());
    let mut publisher = Raw::v311(address, "publisher");
    publisher.say(&publish("b", 0, b"wanted"));
    assert!(watcher.hear().ends_with(b"wanted"));
}

#[test]
fn one_login_too_many_is_told_that_the_server_is_busy() {
    let mut config = config(1);
    config.bounds.logins_waiting_max = 1;
    let (server, begins, decide) = start(config);
    let address = server.listeners()[0];
    let mut first = Raw::open(address);
    first.say(&connect_as("first"));
    begins.recv().expect("it is verified");
    let mut waits = Raw::open(address);
    waits.say(&connect_as("waits"));
    let mut late = Raw::open(address);
    late.say(&connect_as("late"));
    assert_eq!(late.hear()[3], ReasonCode::ServerBusy.value());
    assert!(late.is_at_end());
    let mut old = Raw::open(address);
    let connect = [
        &b"\x00\x04MQTT\x04\x82\x00\x00"[..],
        &string("old"),
        &string("u"),
    ]
    .concat();
    old.say(&packet(0x10, &connect));
    assert_eq!(old.hear(), [0x20, 2, 0, 3]);
    for mut client in [first, waits] {
        decide.send(true).expect("is awaited");
        assert_eq!(client.hear()[3], 0);
    }
}

#[test]
fn time_to_connect_runs_while_a_client_is_parked_and_one_that_is_gone_is_not_verified() {
    let mut config = config(1);
    config.bounds.connect_timeout = Duration::from_millis(500);
    let (server, begins, decide) = start(config);
    let address = server.listeners()[0];
    let mut first = Raw::open(address);
    first.say(&connect_as("first"));
    begins.recv().expect("it is verified");
    let mut waits = Raw::open(address);
    waits.say(&connect_as("waits"));
    for client in [&mut first, &mut waits] {
        while !client.hear().is_empty() {}
    }
    let mut last = Raw::open(address);
    last.say(&connect_as("last"));
    // The first verification ends, for nobody; of the second nothing is to be seen.
    decide.send(true).expect("is awaited");
    begins.recv().expect("it is verified");
    decide.send(true).expect("is awaited");
    assert_eq!(last.hear()[3], 0);
    assert!(begins.try_recv().is_err(), "nobody else was verified");
}
