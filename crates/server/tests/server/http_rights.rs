//! Rights that a service decides on by HTTP, where no rule says anything.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use proto::packet::ReasonCode;
use vencejo_server::Server;
use vencejo_server::config::{Config, parse};
use vencejo_server::persist::ControlAnswer;

use crate::canary::Canary;
use crate::client::{
    Raw, connect_flags_v5, connect_v5, packet, publish, string, subscribe_v5, subscribe_v311,
};
use crate::config;
use crate::durable::TempFolder;
use crate::logins::{change, new_user};
use crate::service::{Asked, Reply, Service, json};

const NOT_AUTHORIZED: u8 = ReasonCode::NotAuthorized.value();

/// Rules that say something about `local`, and a service that is asked about the rest, with `more` of how.
fn asking(url: &str, more: &str) -> Config {
    let text = format!(
        "[authorization]\nhttp = {{ url = \"{url}\"{more} }}\n\
         [[authorization.rules]]\neffect = \"allow\"\ntopics = [\"local/#\", \"canary\"]\n\
         [[authorization.rules]]\neffect = \"deny\"\ntopics = [\"secret/#\"]\n"
    );
    let mut config = config(2);
    config.authorization = parse(&text, "test.toml".as_ref())
        .expect("is valid")
        .authorization;
    config
}

fn start(service: &Service, more: &str) -> Server {
    Server::start(asking(&service.url("/rights"), more)).expect("the Server starts")
}

/// What a service says yes to: `publish a`.
#[derive(Clone, Default)]
struct Rights(Arc<Mutex<BTreeSet<String>>>);

impl Rights {
    fn of(rights: &[&str]) -> Self {
        let made = Self::default();
        made.set(rights);
        made
    }

    fn set(&self, rights: &[&str]) {
        *self.0.lock().expect("no panic") = rights.iter().map(|&one| one.to_owned()).collect();
    }

    fn service(&self) -> Service {
        let rights = self.clone();
        Service::start(move |asked| rights.reply(asked))
    }

    fn reply(&self, asked: &Asked) -> Reply {
        let text = |name: &str| asked.body[name].as_str().unwrap_or_default().to_owned();
        let wish = format!("{} {}", text("action"), text("topic"));
        let is_allowed = self.0.lock().expect("no panic").contains(&wish);
        json(if is_allowed {
            r#"{"result": "allow"}"#
        } else {
            r#"{"result": "ignore"}"#
        })
    }
}

/// Whose groups change while it is asked what its Will may do has to come again: it was asked about who it was.
#[test]
fn user_that_changes_while_its_will_is_asked_about_has_to_come_again() {
    use vencejo_server::authentication::UserChange;

    let temp = TempFolder::new();
    let (asks, asked) = mpsc::channel();
    let (answer, answers) = mpsc::channel::<()>();
    let both = Mutex::new((asks, answers));
    let service = Service::start(move |_| {
        let both = both.lock().expect("no panic");
        both.0.send(()).expect("the test listens");
        both.1.recv().expect("the test decides");
        json(r#"{"result": "allow"}"#)
    });
    let mut config = asking(&service.url("/rights"), "");
    config.storage = crate::durable::durable(2).storage;
    config.storage.data = temp.path().to_owned();
    let server = Server::start(config).expect("the Server starts");
    assert_eq!(change(&temp, new_user("anna", "word")), ControlAnswer::Done);
    let more = [
        &[0][..],
        &string("w"),
        &string("x"),
        &string("anna"),
        &string("word"),
    ]
    .concat();
    let mut client = Raw::open(server.listeners()[0]);
    client.say(&connect_flags_v5(0xC6, "client", 0, &[], &more));
    asked.recv().expect("is asked");
    let groups = ["others".to_owned()].into();
    let name = "anna".to_owned();
    let changed = change(&temp, UserChange::Groups { name, groups });
    assert_eq!(changed, ControlAnswer::Done);
    answer.send(()).expect("is awaited");
    assert_eq!(client.hear()[3], NOT_AUTHORIZED);
    assert!(client.is_at_end());
}

fn publish_v5(topic: &str, payload: &[u8]) -> Vec<u8> {
    packet(0x30, &[&string(topic)[..], &[0], payload].concat())
}

fn publish_qos1_v5(topic: &str, packet_id: u8, payload: &[u8]) -> Vec<u8> {
    packet(
        0x32,
        &[&string(topic)[..], &[0, packet_id, 0], payload].concat(),
    )
}

/// The Reason Code of the PUBACK that is next; 0x10 says that nobody subscribes.
fn puback(client: &mut Raw) -> u8 {
    let heard = client.hear();
    assert_eq!(heard[0], 0x40, "{heard:x?}");
    heard.get(4).copied().unwrap_or(0)
}

#[test]
fn service_decides_what_no_rule_does_and_is_told_all_that_is_known() {
    let rights = Rights::of(&["publish a", "subscribe a"]);
    let service = rights.service();
    let server = start(&service, "");
    let mut client = Raw::v5(server.listeners()[0], "c1", 0);
    client.say(&subscribe_v5("a", 1));
    assert_eq!(client.hear().last(), Some(&1));
    let body = service.asked().body;
    let expected = serde_json::json!({
        "action": "subscribe", "topic": "a", "qos": null, "retain": null, "client_id": "c1",
        "user_name": null, "groups": [], "attributes": {}, "address": "127.0.0.1",
        "listener": body["listener"],
    });
    assert_eq!(body, expected);
    client.say(&publish_qos1_v5("a", 1, b"x"));
    let body = service.asked().body;
    assert_eq!(
        (&body["action"], &body["qos"], &body["retain"]),
        (&"publish".into(), &1.into(), &false.into())
    );
    let heard = [client.hear(), client.hear()];
    assert!(heard.iter().any(|one| one.ends_with(b"x")) && heard.iter().any(|one| one[0] == 0x40));
    client.say(&publish_qos1_v5("b", 2, b"x"));
    assert_eq!(puback(&mut client), NOT_AUTHORIZED);
    client.say(&subscribe_v5("#", 0));
    assert_eq!(client.hear().last(), Some(&NOT_AUTHORIZED));
    // What a rule decides is nothing to ask about.
    let before = service.count();
    client.say(&publish_qos1_v5("local/a", 3, b"x"));
    assert_eq!(puback(&mut client), 0x10);
    client.say(&publish_qos1_v5("secret/a", 4, b"x"));
    assert_eq!(puback(&mut client), NOT_AUTHORIZED);
    client.say(&publish_qos1_v5("$SYS/a", 5, b"x"));
    assert_eq!(puback(&mut client), NOT_AUTHORIZED);
    assert_eq!(service.count(), before);
}

/// Verifies [MQTT-4.6.0-5]: what comes behind a packet that is asked about keeps its place.
#[test]
fn order_is_kept_while_a_service_is_asked_whatever_the_pieces() {
    let topics: Vec<String> = (0..20).map(|n| format!("t{n}")).collect();
    let wishes: Vec<String> = topics
        .iter()
        .map(|topic| format!("publish {topic}"))
        .collect();
    let rights = Rights::of(&wishes.iter().map(String::as_str).collect::<Vec<_>>());
    rights
        .0
        .lock()
        .expect("no panic")
        .insert("subscribe +".to_owned());
    for (shards, piece) in [(1, usize::MAX), (4, 7), (1, 1)] {
        let service = rights.service();
        let mut config = asking(&service.url("/"), "");
        config.shards = std::num::NonZeroU16::new(shards).expect("not zero");
        let server = Server::start(config).expect("the Server starts");
        let mut subscriber = Raw::v5(server.listeners()[0], "s", 0);
        subscriber.say(&subscribe_v5("+", 0));
        assert_eq!(subscriber.hear().last(), Some(&0));
        let mut publisher = Raw::open(server.listeners()[0]);
        let mut stream = connect_v5("p", 0, &[], &[]);
        for (n, topic) in (0..).zip(&topics) {
            stream.extend(publish_qos1_v5(topic, n + 1, &[n]));
            stream.extend(publish_v5("denied", b"x"));
        }
        stream.extend([0xC0, 0]);
        for piece in stream.chunks(piece.min(stream.len())) {
            publisher.say(piece);
        }
        assert_eq!(publisher.hear()[3], 0, "CONNACK");
        for n in 0..20_u8 {
            let puback = publisher.hear();
            assert_eq!((puback[0], puback[3]), (0x40, n + 1), "{puback:x?}");
            assert_eq!(subscriber.hear().last(), Some(&n));
        }
        assert_eq!(publisher.hear(), [0xD0, 0]);
    }
}

#[test]
fn more_messages_than_may_be_open_can_wait_for_a_service_one_after_the_other() {
    let service = Service::start(|_| json(r#"{"result": "allow"}"#));
    let mut config = asking(&service.url("/"), ", cache = { allow = 0 }");
    config.limits.receive_maximum = 2;
    let server = Server::start(config).expect("the Server starts");
    let mut client = Raw::v5(server.listeners()[0], "c", 0);
    for round in 0..10_u8 {
        for qos in [0x32, 0x34] {
            let body = [&string("a")[..], &[0, round + 1, 0], b"x"].concat();
            client.say(&packet(qos, &body));
            let heard = client.hear();
            assert_eq!(
                heard[0],
                if qos == 0x32 { 0x40 } else { 0x50 },
                "{heard:x?}"
            );
            if qos == 0x34 {
                client.say(&[0x62, 2, 0, round + 1]);
                assert_eq!(client.hear()[0], 0x70);
            }
        }
    }
    assert_eq!(service.count(), 20);
}

#[test]
fn answers_are_good_for_their_time_and_forgotten_at_a_reload() {
    let rights = Rights::of(&["publish a"]);
    let service = rights.service();
    let more = ", cache = { allow = \"1h\", deny = \"1h\" }";
    let server = start(&service, more);
    let mut client = Raw::v5(server.listeners()[0], "c", 0);
    for n in 1..10 {
        client.say(&publish_qos1_v5("a", n, b"x"));
        assert_eq!(puback(&mut client), 0x10);
        client.say(&publish_qos1_v5("b", n, b"x"));
        assert_eq!(puback(&mut client), NOT_AUTHORIZED);
    }
    assert_eq!(service.count(), 2);
    rights.set(&["publish b"]);
    server
        .reload(asking(&service.url("/rights"), more))
        .expect("is valid");
    client.say(&publish_qos1_v5("a", 1, b"x"));
    assert_eq!(puback(&mut client), NOT_AUTHORIZED);
    client.say(&publish_qos1_v5("b", 2, b"x"));
    assert_eq!(puback(&mut client), 0x10);
    // Without the service there is nobody to allow it.
    let mut without = asking(&service.url("/rights"), more);
    without.authorization.as_mut().expect("is there").http = None;
    server.reload(without).expect("is valid");
    client.say(&publish_qos1_v5("b", 3, b"x"));
    assert_eq!(puback(&mut client), NOT_AUTHORIZED);
}

/// Sends through `publisher` until `subscriber` hears it, or no longer does.
fn until_heard(publisher: &mut Raw, subscriber: &mut Raw, is_wanted: bool) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        assert!(Instant::now() < until, "heard: {}", !is_wanted);
        publisher.say(&publish("local/b", 0, b"x"));
        publisher.ping();
        // Everything before it was sent by then.
        subscriber.say(&[0xC0, 0]);
        let mut is_heard = false;
        loop {
            let heard = subscriber.hear();
            if heard == [0xD0, 0] {
                break;
            }
            is_heard |= heard[0] == 0x30;
        }
        if is_heard == is_wanted {
            return;
        }
    }
}

/// P11: a right that the service takes away is gone for what is subscribed to already, and comes back.
#[test]
fn subscription_is_asked_about_again_and_brings_what_is_allowed_at_the_time() {
    let rights = Rights::of(&["subscribe #"]);
    let service = rights.service();
    let more = ", cache = { allow = \"1s\", deny = \"1s\" }";
    let mut config = asking(&service.url("/"), more);
    // To publish is for rules, to receive for the service.
    let text = "[[authorization.rules]]\neffect = \"allow\"\nactions = [\"publish\"]\ntopics = [\"local/#\"]\n";
    let parsed = parse(text, "test.toml".as_ref())
        .expect("is valid")
        .authorization;
    config.authorization.as_mut().expect("is there").rules = parsed.expect("is there").rules;
    // So that what was published is sent before the publisher is answered.
    config.shards = std::num::NonZeroU16::MIN;
    let server = Server::start(config.clone()).expect("the Server starts");
    let mut publisher = Raw::v311(server.listeners()[0], "p");
    let mut subscriber = Raw::v311(server.listeners()[0], "s");
    subscriber.subscribe("#", 0);
    until_heard(&mut publisher, &mut subscriber, true);
    rights.set(&[]);
    until_heard(&mut publisher, &mut subscriber, false);
    rights.set(&["subscribe #"]);
    until_heard(&mut publisher, &mut subscriber, true);
    // A reload asks at once, however long an answer was good for.
    let long = asking(
        &service.url("/"),
        ", cache = { allow = \"1h\", deny = \"1h\" }",
    );
    let http = long.authorization.and_then(|of| of.http);
    config.authorization.as_mut().expect("is there").http = http;
    server.reload(config.clone()).expect("is valid");
    until_heard(&mut publisher, &mut subscriber, true);
    rights.set(&[]);
    server.reload(config).expect("is valid");
    until_heard(&mut publisher, &mut subscriber, false);
    // Nobody was dropped.
    subscriber.ping();
}

/// P11: a Session that its Client comes back to brings only what it may have by then.
#[test]
fn session_that_is_resumed_is_asked_about_before_anything_of_it_is_sent() {
    let rights = Rights::of(&["subscribe a", "subscribe b", "publish a", "publish b"]);
    let service = rights.service();
    let server = start(&service, ", cache = { allow = 0, deny = 0 }");
    let address = server.listeners()[0];
    let expiry = [0x11, 0, 0, 0xFF, 0xFF];
    let resume = || {
        let mut client = Raw::open(address);
        client.say(&connect_flags_v5(0, "s", 0, &expiry, &[]));
        (client.hear()[2], client)
    };
    let (_, mut client) = resume();
    for filter in ["a", "b"] {
        client.say(&subscribe_v5(filter, 1));
        assert_eq!(client.hear().last(), Some(&1));
    }
    client.say(&[0xE0, 0]);
    assert!(client.is_at_end());
    let mut publisher = Raw::v5(address, "p", 0);
    for (n, topic) in (1..).zip(["a", "b"]) {
        publisher.say(&publish_qos1_v5(topic, n, topic.as_bytes()));
        assert_eq!(puback(&mut publisher), 0);
    }
    rights.set(&["subscribe b"]);
    let (is_present, mut client) = resume();
    assert_eq!(is_present, 1);
    assert!(client.hear().ends_with(b"b"));
    client.ping();
}

#[test]
fn will_is_asked_about_when_its_client_connects() {
    let rights = Rights::of(&["publish will/good", "subscribe will/+"]);
    let service = rights.service();
    let server = start(&service, "");
    let address = server.listeners()[0];
    let mut subscriber = Raw::v5(address, "s", 0);
    subscriber.say(&subscribe_v5("will/+", 0));
    assert_eq!(subscriber.hear().last(), Some(&0));
    for topic in ["will/bad", "will/good"] {
        let will = [&[0][..], &string(topic), &string("gone")].concat();
        let mut client = Raw::open(address);
        client.say(&connect_flags_v5(0x06, topic, 0, &[], &will));
        assert_eq!(client.hear()[3], 0);
        client.ping();
        drop(client);
    }
    assert_eq!(subscriber.hear(), publish_v5("will/good", b"gone"));
}

/// Class M: what nobody answers is denied in time, and costs nobody else anything.
#[test]
fn service_that_is_silent_denies_in_time_and_holds_nobody_up() {
    let service = Service::start(|_| Reply::Silence);
    let more = ", timeout = \"300ms\", breaker = { failures = 0 }";
    let server = start(&service, more);
    let address = server.listeners()[0];
    let canary = Canary::new(address);
    for reply in [
        Reply::Silence,
        Reply::Trickle,
        Reply::Flood(10 << 20),
        Reply::Json(500, String::new()),
    ] {
        service.behave(move |_| reply.clone());
        let mut clients: Vec<Raw> = (0..50)
            .map(|n| Raw::v5(address, &format!("c{n}"), 0))
            .collect();
        for client in &mut clients {
            client.say(&publish_qos1_v5("a", 1, b"x"));
            client.say(&subscribe_v5("a", 0));
        }
        canary.sing();
        for client in &mut clients {
            assert_eq!(puback(client), NOT_AUTHORIZED);
            assert_eq!(client.hear().last(), Some(&NOT_AUTHORIZED));
            client.ping();
        }
        canary.sing();
    }
}

/// Clients that go while a service is asked leave nothing behind, and their questions end.
#[test]
fn client_that_goes_in_the_middle_takes_its_question_along() {
    let service = Service::start(|_| Reply::Silence);
    let server = start(&service, ", at_once = 1, timeout = \"1h\"");
    let address = server.listeners()[0];
    for n in 0..5 {
        let mut client = Raw::v311(address, &format!("c{n}"));
        client.say(&publish("a", 0, b"x"));
        service.asked();
        let socket = socket2::SockRef::from(&client.stream);
        socket
            .set_linger(Some(Duration::ZERO))
            .expect("a socket option");
        drop(client);
    }
    service.behave(|_| json(r#"{"result": "allow"}"#));
    let mut client = Raw::v311(address, "last");
    client.say(&subscribe_v311("a", 0));
    assert_eq!(client.hear(), [0x90, 3, 0, 1, 0]);
}

/// Each answer counts once where none is kept; a packet needs all of its own.
#[test]
fn subscribe_of_many_filters_and_some_twice_is_asked_about_once() {
    let service = Service::start(|_| json(r#"{"result": "allow"}"#));
    let server = start(&service, ", cache = { allow = 0, deny = 0 }");
    let mut client = Raw::v311(server.listeners()[0], "c");
    let mut body = vec![0, 1];
    for n in 0..600 {
        body.extend([&string(&format!("f/{}", n % 300))[..], &[0]].concat());
    }
    client.say(&packet(0x82, &body));
    let suback = client.hear();
    let granted = suback.iter().rev().take(600);
    assert!(granted.copied().all(|code| code == 0), "{suback:x?}");
    let before = service.count();
    assert!((300..400).contains(&before), "{before}");
    // Whoever unsubscribes is not asked about again.
    let filters: Vec<u8> = (0..300).flat_map(|n| string(&format!("f/{n}"))).collect();
    client.say(&packet(0xA2, &[&[0, 2][..], &filters].concat()));
    while client.hear()[0] != 0xB0 {}
}

/// P12: what the Server says of itself is not for others to give away.
#[test]
fn service_is_not_asked_about_sys() {
    let service = Service::start(|_| json(r#"{"result": "allow"}"#));
    let server = start(&service, "");
    let mut client = Raw::v5(server.listeners()[0], "c", 0);
    for filter in ["$SYS/#", "$share/g/$SYS/#", "$SYS/broker/uptime"] {
        client.say(&subscribe_v5(filter, 0));
        assert_eq!(client.hear().last(), Some(&NOT_AUTHORIZED), "{filter}");
    }
    assert_eq!(service.count(), 0);
}
