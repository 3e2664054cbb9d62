//! Logins that another machine decides on, and what becomes of them when it does not answer.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use proto::packet::ReasonCode;
use store::MemoryStore;
use tokio::sync::oneshot;
use vencejo_server::Server;
use vencejo_server::authentication::{
    Attempt, Authentication, Authenticator, Decision, Exchange, Identity,
};
use vencejo_server::config::{AskConfig, Config, OnError};
use vencejo_server::outbound::{Answer, AskError, BackEnd, Kept, Outbound};

use crate::client::{Raw, connect_flags_v5, packet, string};
use crate::config;

/// What the other machine says: whether a user is known, or nothing that can be used; dropped, it fails on us.
type Reply = oneshot::Sender<Result<bool, ()>>;

/// Asks the test about every Client with a User Name.
#[derive(Debug)]
struct Asks {
    machine: BackEnd<bool>,
    questions: mpsc::Sender<(String, Reply)>,
    ends: mpsc::Sender<String>,
}

/// Tells of the end of a question, whatever its end is.
struct Ends(mpsc::Sender<String>, String);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.send(std::mem::take(&mut self.1)).ok();
    }
}

impl Authenticator for Asks {
    fn method(&self) -> Option<&str> {
        None
    }

    fn authenticate(&self, attempt: &Attempt<'_>, exchange: &mut Exchange) -> Option<Decision> {
        let name = attempt.user_name?.to_owned();
        let password = attempt.password.map(proto::Secret::expose);
        let decide = {
            let name = name.clone();
            move |is_known: bool| {
                is_known.then(|| Decision::Allow {
                    identity: Identity::of_user(&name),
                    data: None,
                })
            }
        };
        let key = self.machine.key(&[Some(name.as_bytes()), password]);
        if let Some(known) = self.machine.known(key) {
            return decide(known);
        }
        let (questions, ends) = (self.questions.clone(), self.ends.clone());
        let client_id = attempt.client_id.to_owned();
        let question = async move {
            let _ends = Ends(ends, client_id.clone());
            let (reply, replied) = oneshot::channel();
            questions
                .send((client_id, reply))
                .expect("the test listens");
            let replied = replied.await.expect("a panic of this question only");
            let is_known = replied.map_err(|()| AskError("nonsense".to_owned()))?;
            let kept = if is_known { Kept::AsYes } else { Kept::AsNo };
            Ok(Answer {
                value: is_known,
                kept,
            })
        };
        Some(Decision::Wait(
            self.machine.ask(exchange, key, question, decide),
        ))
    }
}

/// Lets everyone in whose name is that of an old friend, or who has none.
#[derive(Debug)]
struct Friends;

impl Authenticator for Friends {
    fn method(&self) -> Option<&str> {
        None
    }

    fn authenticate(&self, attempt: &Attempt<'_>, _: &mut Exchange) -> Option<Decision> {
        let is_friend = attempt.user_name.is_none_or(|name| name == "friend");
        is_friend.then(|| Decision::Allow {
            identity: Identity::anonymous(),
            data: None,
        })
    }
}

/// A Server that asks the test.
struct Asked {
    server: Server,
    questions: mpsc::Receiver<(String, Reply)>,
    ends: mpsc::Receiver<String>,
    /// The questions of a back end end with it.
    outbound: Outbound,
}

impl Asked {
    fn start(config: Config, ask: &AskConfig) -> Self {
        let waiting_max = config.bounds.logins_waiting_max;
        let (questions, asked) = mpsc::channel();
        let (ended, ends) = mpsc::channel();
        let outbound = Outbound::default();
        let asks = Asks {
            machine: BackEnd::new("test", "machine", ask, waiting_max, &outbound),
            questions,
            ends: ended,
        };
        let authentication = Authentication::new(vec![Arc::new(asks), Arc::new(Friends)]);
        let server = Server::start_with(config, authentication, |_| MemoryStore::new());
        Self {
            server: server.expect("the Server starts"),
            questions: asked,
            ends,
            outbound,
        }
    }

    /// A Client of this name that says CONNECT.
    fn connect(&self, client_id: &str, user: &str) -> Raw {
        let mut client = Raw::open(self.server.listeners()[0]);
        client.say(&connect_flags_v5(0x82, client_id, 0, &[], &string(user)));
        client
    }

    /// What is asked next.
    fn question(&self) -> (String, Reply) {
        self.questions.recv().expect("a question")
    }

    fn reply(&self, to: &str, reply: Result<bool, ()>) {
        let (about, replies) = self.question();
        assert_eq!(about, to);
        replies.send(reply).expect("is awaited");
    }
}

fn ask() -> AskConfig {
    AskConfig {
        timeout: Duration::from_secs(60),
        ..AskConfig::default()
    }
}

#[test]
fn client_another_machine_is_asked_about_waits_and_holds_nobody_up() {
    for shards in [1, 4] {
        let asked = Asked::start(config(shards), &ask());
        let mut waits = asked.connect("waits", "anna");
        let (about, reply) = asked.question();
        assert_eq!(about, "waits");
        for other in 0..4 {
            let client_id = format!("other-{other}");
            Raw::v5(asked.server.listeners()[0], &client_id, 0).ping();
        }
        reply.send(Ok(true)).expect("is awaited");
        assert_eq!(waits.hear()[3], 0, "CONNACK");
        waits.ping();
        let mut unknown = asked.connect("unknown", "otto");
        asked.reply("unknown", Ok(false));
        assert_eq!(unknown.hear()[3], ReasonCode::NotAuthorized.value());
        // Both answers are known now.
        assert_eq!(asked.connect("again", "anna").hear()[3], 0);
        let no = ReasonCode::NotAuthorized.value();
        assert_eq!(asked.connect("again", "otto").hear()[3], no);
        assert!(asked.questions.try_recv().is_err(), "it was asked again");
    }
}

/// Is gone at once, in a way that shows.
fn reset(client: Raw) {
    let socket = socket2::SockRef::from(&client.stream);
    socket
        .set_linger(Some(Duration::ZERO))
        .expect("a socket option");
}

#[test]
fn no_more_is_asked_at_once_than_is_configured_and_nothing_for_who_is_gone() {
    let ask = AskConfig {
        at_once: 1,
        ..ask()
    };
    let mut config = config(1);
    config.bounds.logins_waiting_max = 2;
    let asked = Asked::start(config, &ask);
    let first = asked.connect("first", "a");
    let (_, unheard) = asked.question();
    let gone = asked.connect("gone", "b");
    let mut second = asked.connect("second", "c");
    // So that both wait: the shard serves them in the order they came.
    Raw::v5(asked.server.listeners()[0], "nameless", 0).ping();
    let mut late = asked.connect("late", "d");
    assert_eq!(late.hear()[3], ReasonCode::ServerBusy.value());
    assert!(asked.questions.try_recv().is_err(), "two at once");
    // Whoever waits and goes is not asked about; whose question is under way takes it along.
    reset(gone);
    reset(first);
    assert_eq!(asked.ends.recv().expect("it ends"), "first");
    assert!(unheard.is_closed());
    asked.reply("second", Ok(true));
    assert_eq!(second.hear()[3], 0);
    assert_eq!(asked.ends.recv().expect("it ends"), "second");
}

#[test]
fn machine_that_does_not_answer_is_left_in_peace_and_what_is_configured_counts() {
    let config = config(1);
    for on_error in [OnError::Deny, OnError::Next] {
        let ask = AskConfig {
            failures_max: 2,
            pause: Duration::from_secs(3600),
            on_error,
            ..ask()
        };
        let asked = Asked::start(config.clone(), &ask);
        let expected = match on_error {
            OnError::Deny => ReasonCode::ServerUnavailable.value(),
            OnError::Next => 0,
        };
        for _ in 0..2 {
            let mut client = asked.connect("friend", "friend");
            asked.reply("friend", Err(()));
            assert_eq!(client.hear()[3], expected);
        }
        for _ in 0..3 {
            assert_eq!(asked.connect("friend", "friend").hear()[3], expected);
        }
        let mut old = Raw::open(asked.server.listeners()[0]);
        let connect = [
            &b"\x00\x04MQTT\x04\x82\x00\x00"[..],
            &string("old"),
            &string("anna"),
        ];
        old.say(&packet(0x10, &connect.concat()));
        // "Server unavailable", also where others were asked, and do not know it.
        assert_eq!(old.hear(), [0x20, 2, 0, 3]);
        assert!(asked.questions.try_recv().is_err(), "it is asked still");
    }
}

#[test]
fn machine_that_answers_again_is_asked_again_after_one_question_has_tried() {
    let ask = AskConfig {
        failures_max: 1,
        pause: Duration::ZERO,
        ..ask()
    };
    let asked = Asked::start(config(1), &ask);
    let unavailable = ReasonCode::ServerUnavailable.value();
    let mut client = asked.connect("first", "anna");
    asked.reply("first", Err(()));
    assert_eq!(client.hear()[3], unavailable);
    let mut probe = asked.connect("probe", "anna");
    let (_, reply) = asked.question();
    assert_eq!(asked.connect("spared", "anna").hear()[3], unavailable);
    reply.send(Ok(true)).expect("is awaited");
    assert_eq!(probe.hear()[3], 0);
    let mut last = asked.connect("last", "otto");
    asked.reply("last", Ok(true));
    assert_eq!(last.hear()[3], 0);
}

#[test]
fn question_that_fails_on_us_or_takes_too_long_costs_its_client_only() {
    let ask = AskConfig {
        at_once: 1,
        timeout: Duration::from_millis(100),
        failures_max: 0,
        ..ask()
    };
    let asked = Asked::start(config(1), &ask);
    let unavailable = ReasonCode::ServerUnavailable.value();
    for _ in 0..3 {
        let mut broken = asked.connect("broken", "anna");
        drop(asked.question());
        assert_eq!(broken.hear()[3], unavailable);
        let mut slow = asked.connect("slow", "anna");
        let (_, unheard) = asked.question();
        assert_eq!(slow.hear()[3], unavailable);
        assert!(unheard.is_closed(), "nobody waits for it");
    }
}

#[test]
fn server_stops_at_once_while_it_asks_and_others_wait() {
    let ask = AskConfig {
        at_once: 1,
        ..ask()
    };
    let asked = Asked::start(config(2), &ask);
    let _clients: Vec<Raw> = (0..8)
        .map(|n| asked.connect(&format!("c{n}"), "anna"))
        .collect();
    let (_, unheard) = asked.question();
    let Asked {
        server,
        ends,
        outbound,
        ..
    } = asked;
    drop(server);
    assert!(unheard.is_closed());
    // What was begun has ended, and what can begin another is gone.
    assert!(ends.iter().count() >= 1);
    drop(outbound);
}

#[test]
fn many_logins_at_once_are_asked_in_turn_and_all_answered() {
    let ask = AskConfig {
        at_once: 4,
        ..ask()
    };
    let asked = Asked::start(config(2), &ask);
    let mut clients: Vec<Raw> = (0..64)
        .map(|n| asked.connect(&format!("c{n}"), &format!("user-{n}")))
        .collect();
    let under_way: Vec<_> = (0..4).map(|_| asked.question()).collect();
    let rest = asked.questions.recv_timeout(Duration::ZERO);
    assert!(rest.is_err(), "a fifth at once");
    for (_, reply) in under_way {
        reply.send(Ok(true)).expect("is awaited");
    }
    for _ in 4..64 {
        let (_, reply) = asked.question();
        reply.send(Ok(true)).expect("is awaited");
    }
    assert!(clients.iter_mut().all(|client| client.hear()[3] == 0));
}
