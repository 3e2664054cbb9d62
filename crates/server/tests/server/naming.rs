//! Listeners where a Client is called as its user.
//!
//! Owns: nothing but tests. Start reading at [`by_user`].
//! Invariant: the first listener of a test calls Clients as their users, the second one as they say.

use std::sync::Arc;

use proto::packet::ReasonCode;
use vencejo_server::Server;
use vencejo_server::authentication::{
    Attempt, Authentication, Authenticator, Decision, Exchange, Identity,
};
use vencejo_server::config::parse;

use crate::client::{Raw, connect_flags_v5, connect_v311, packet, string};
use crate::config;

/// Believes every User Name.
#[derive(Debug)]
struct Trusting;

impl Authenticator for Trusting {
    fn method(&self) -> Option<&str> {
        None
    }

    fn authenticate(&self, attempt: &Attempt<'_>, _: &mut Exchange) -> Option<Decision> {
        let identity = attempt.user_name.map(Identity::of_user);
        Some(Decision::Allow {
            identity: identity.unwrap_or_default(),
            data: None,
        })
    }
}

/// A Server with both listeners; only who is called as its user is let in by the rules.
fn by_user(shards: u16) -> Server {
    let rules = "[[authentication.client_ids]]\nanonymous = false\nlisteners = [\"127.0.0.1:0\"]\n\
                 patterns = [\"${username}\"]\n[[listeners]]\naddress = \"127.0.0.1:0\"\n";
    let mut config = config(shards);
    config.authentication = parse(rules, "t.toml".as_ref())
        .expect("is right")
        .authentication;
    let mut other = config.listeners[0].clone();
    other.name = "other".to_owned();
    config.listeners.push(other);
    config.listeners[0].client_id_from_user = true;
    let authentication = Authentication::new(vec![Arc::new(Trusting)]);
    Server::start_with(config, authentication, |_| store::MemoryStore::new())
        .expect("the Server starts")
}

/// 5.0 with a Session that stays: a Client that says `client_id`, and the CONNACK to it.
fn connect(server: &Server, listener: usize, client_id: &str, user: &str) -> (Raw, Vec<u8>) {
    let mut client = Raw::open(server.listeners()[listener]);
    let expiry = [0x11, 0, 0, 1, 0];
    client.say(&connect_flags_v5(
        0x80,
        client_id,
        0,
        &expiry,
        &string(user),
    ));
    let connack = client.hear();
    (client, connack)
}

/// Whether the CONNACK says that the Client is called `name`.
fn is_told(connack: &[u8], name: &str) -> bool {
    let property = [&[0x12][..], &string(name)].concat();
    connack.windows(property.len()).any(|at| at == property)
}

/// Verifies [MQTT-3.1.3-7] [MQTT-3.2.2-16]: who is called otherwise than it said is told how, and has the Session of its
/// user.
#[test]
fn a_client_is_called_as_its_user_and_told_so() {
    for shards in [1, 4] {
        let server = by_user(shards);
        for (client_id, is_known) in [("a", 0), ("", 1), ("b", 1)] {
            let (mut client, connack) = connect(&server, 0, client_id, "anna");
            assert_eq!(connack[2..4], [is_known, 0], "{client_id}");
            assert!(is_told(&connack, "anna"), "{client_id}");
            client.say(&[0xE0, 0]);
            assert!(client.is_at_end());
        }
        let (_client, connack) = connect(&server, 0, "anna", "anna");
        assert_eq!(connack[2..4], [1, 0]);
        assert!(!is_told(&connack, "anna"));
        let mut old = Raw::open(server.listeners()[0]);
        let body = [
            &b"\x00\x04MQTT\x04\x80\x00\x00"[..],
            &string("o"),
            &string("anna"),
        ];
        old.say(&packet(0x10, &body.concat()));
        assert_eq!(old.hear(), [0x20, 2, 1, 0]);
    }
}

/// P12: nobody takes over another user's connection or Session by what it says it is called.
#[test]
fn a_client_takes_over_from_its_own_user_and_from_nobody_else() {
    for shards in [1, 4] {
        let server = by_user(shards);
        let (mut anna, _) = connect(&server, 0, "a", "anna");
        let (mut otto, connack) = connect(&server, 0, "anna", "otto");
        assert!(is_told(&connack, "otto"));
        anna.ping();
        let (mut again, connack) = connect(&server, 0, "otto", "anna");
        assert!(is_told(&connack, "anna"));
        let taken_over = ReasonCode::SessionTakenOver.value();
        assert_eq!(anna.hear()[..3][2], taken_over);
        otto.ping();
        again.ping();
    }
}

#[test]
fn a_client_without_a_user_has_no_name_there_and_its_own_elsewhere() {
    let server = by_user(2);
    let mut client = Raw::open(server.listeners()[0]);
    client.say(&connect_v311("a"));
    assert_eq!(client.hear(), [0x20, 2, 0, 5]);
    Raw::v311(server.listeners()[1], "a").ping();
    let (_client, connack) = connect(&server, 1, "a", "anna");
    assert_eq!(connack[2..4], [0, 0]);
    assert!(!is_told(&connack, "anna"));
}
