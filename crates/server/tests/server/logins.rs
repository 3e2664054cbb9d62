//! Logins that take long, and what they cost the others.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use proto::packet::ReasonCode;
use store::MemoryStore;
use vencejo_server::authentication::{
    AnonymousPolicy, Attempt, Authentication, Authenticator, BanLimits, Decision, Exchange,
    Identity, NewUser, StoredPassword, UserChange, Work,
};
use vencejo_server::config::{Address, Config, ListenerConfig, StorageConfig};
use vencejo_server::persist::{self, ControlAnswer, ControlRequest};
use vencejo_server::{Origin, ReloadError, Server, StartError};

use crate::canary::Canary;
use crate::client::{Raw, connect_flags_v5, packet, publish, string, subscribe_v5};
use crate::config;
use crate::durable::TempFolder;

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
        let client_id: Arc<str> = attempt.client_id.into();
        let (begun, verdicts) = (self.begun.clone(), Arc::clone(&self.verdicts));
        Some(Decision::Wait(Work::new(move || {
            begun.send(()).expect("the test listens");
            let verdicts = verdicts.lock().expect("one thread");
            let is_known = verdicts.recv().expect("the test decides");
            match (is_known, &*client_id) {
                (true, _) => Some(Decision::Allow {
                    identity: Identity::of_user(&name),
                    data: None,
                }),
                (false, "guess") => Some(Decision::Deny(
                    ReasonCode::BadUserNameOrPassword,
                    "a wrong guess".to_owned(),
                )),
                (false, _) => None,
            }
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
    let canary = Canary::new(address);
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
    canary.sing();
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
    let canary = Canary::new(address);
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
    canary.sing();
}

/// What a Client has said counts though it closes before it is known who it is, over TCP and over a Unix socket.
#[test]
fn parked_client_that_has_closed_is_verified_over_every_kind_of_socket() {
    let temp = TempFolder::new();
    std::fs::create_dir_all(temp.path()).expect("a temporary folder");
    let path = temp.path().join("mqtt.sock");
    for shards in [1, 4] {
        let mut config = config(shards);
        config.listeners.push(ListenerConfig {
            name: "local".to_owned(),
            address: Address::Unix(path.clone()),
            ..([127, 0, 0, 1], 0).into()
        });
        let (server, begins, decide) = start(config);
        let address = server.listeners()[0];
        let mut watcher = Raw::v311(address, "watcher");
        watcher.subscribe("#", 0);
        let said = |name: &str| {
            let message = packet(0x30, &[&string("t")[..], &[0], name.as_bytes()].concat());
            [connect_as(name), message, vec![0xE0, 0]].concat()
        };
        for name in ["tcp", "unix"] {
            if name == "tcp" {
                let mut client = Raw::open(address);
                client.say(&said(name));
                begins.recv().expect("it is verified");
            } else {
                let mut client = Raw::unix(&path);
                client.say(&said(name));
                begins.recv().expect("it is verified");
            }
            // Whatever the end of it brings is looked at before this is answered, in every shard.
            for other in 0..8 {
                Raw::v5(address, &format!("other-{other}"), 0).ping();
            }
            decide.send(true).expect("is awaited");
            assert!(watcher.hear().ends_with(name.as_bytes()), "{name}");
        }
    }
}

/// CONNECT of 5.0 with Clean Start and what is proven with.
pub(crate) fn login(client_id: &str, user: Option<&str>, password: Option<&str>) -> Vec<u8> {
    let flag = |part: Option<&str>, flag: u8| part.map_or(0, |_| flag);
    let flags = 0x02 | flag(user, 0x80) | flag(password, 0x40);
    let more: Vec<u8> = [user, password]
        .into_iter()
        .flatten()
        .flat_map(string)
        .collect();
    connect_flags_v5(flags, client_id, 0, &[], &more)
}

/// The Reason Code in the CONNACK to a login.
pub(crate) fn answer(server: &Server, user: Option<&str>, password: Option<&str>) -> u8 {
    answer_at(server.listeners()[0], user, password)
}

/// The same at a listener.
pub(crate) fn answer_at(address: SocketAddr, user: Option<&str>, password: Option<&str>) -> u8 {
    let mut client = Raw::open(address);
    client.say(&login("client", user, password));
    client.hear()[3]
}

/// `anna` has the password `secret word`, in the form of mosquitto_passwd 2.0.
pub(crate) const PASSWORDS: &str = "# people\nanna:$7$101$ga50u/ymOANPKoXr$vx730TtoKGgWJOud1wY678BEmEn4PcaB/4/ctHSDwpFTwkHXKB+w46zLDr8htvV9ME+QCzZggGfnK6WC330fIg==\n";

/// Verifies [MQTT-3.1.4-2] [v3.1.1 MQTT-3.1.4-2]; class A: a known user without a password, or with another
/// user's, is nobody.
#[test]
fn password_file_lets_its_users_in_by_their_passwords_only() {
    let temp = TempFolder::new();
    std::fs::create_dir_all(temp.path()).expect("a temporary folder");
    let file = temp.path().join("passwords");
    std::fs::write(&file, PASSWORDS).expect("is written");
    let mut config = config(2);
    config.authentication.password_file = Some(file);
    let server = Server::start(config.clone()).expect("the Server starts");
    let bad = ReasonCode::BadUserNameOrPassword.value();
    // Once verified, once remembered.
    for _ in 0..2 {
        assert_eq!(answer(&server, Some("anna"), Some("secret word")), 0);
        assert_eq!(answer(&server, Some("anna"), Some("secret")), bad);
    }
    assert_eq!(answer(&server, Some("anna"), Some("")), bad);
    assert_eq!(answer(&server, Some("anna"), None), bad);
    assert_eq!(answer(&server, Some("otto"), Some("secret word")), bad);
    assert_eq!(answer(&server, Some(""), Some("")), bad);
    // From this machine, and no user.
    assert_eq!(answer(&server, None, None), 0);
    assert_eq!(answer(&server, None, Some("secret word")), 0);
    let mut old = Raw::open(server.listeners()[0]);
    let connect = [
        &b"\x00\x04MQTT\x04\x82\x00\x00"[..],
        &string("old"),
        &string("anna"),
    ]
    .concat();
    old.say(&packet(0x10, &connect));
    assert_eq!(old.hear(), [0x20, 2, 0, 4]);
    config.authentication.anonymous = AnonymousPolicy::Never;
    server.reload(config).expect("the file is right");
    assert_eq!(
        answer(&server, None, None),
        ReasonCode::NotAuthorized.value()
    );
    assert_eq!(answer(&server, Some("anna"), Some("secret word")), 0);
}

/// P17: a password file that is wrong, empty or gone starts no Server, and changes nothing in one that runs.
#[test]
fn wrong_password_file_starts_nothing_and_changes_nothing() {
    let temp = TempFolder::new();
    std::fs::create_dir_all(temp.path()).expect("a temporary folder");
    let file = temp.path().join("passwords");
    let mut config = config(2);
    config.authentication.password_file = Some(file.clone());
    let refused = Server::start(config.clone());
    assert!(
        matches!(refused, Err(StartError::Authentication(_))),
        "no file"
    );
    std::fs::write(&file, PASSWORDS).expect("is written");
    let server = Server::start(config.clone()).expect("the Server starts");
    for text in ["", "# nobody\n", "anna:\n", "anna:secret word\n"] {
        std::fs::write(&file, text).expect("is written");
        let refused = Server::start(config.clone());
        let error = refused.expect_err("is refused").to_string();
        assert!(error.contains("passwords:1: "), "{error}");
        assert!(!error.contains("secret word"), "{error}");
        let refused = server.reload(config.clone());
        assert!(
            matches!(refused, Err(ReloadError::Authentication(_))),
            "{text}"
        );
        assert_eq!(answer(&server, Some("anna"), Some("secret word")), 0);
        assert_eq!(answer(&server, Some("anna"), Some("")), 0x86);
    }
    let other = PASSWORDS.replace("anna", "otto");
    std::fs::write(&file, other).expect("is written");
    server.reload(config).expect("the file is right");
    assert_eq!(answer(&server, Some("anna"), Some("secret word")), 0x86);
    assert_eq!(answer(&server, Some("otto"), Some("secret word")), 0);
}

pub(crate) fn change(temp: &TempFolder, change: UserChange) -> ControlAnswer {
    let request = ControlRequest::User {
        change: Box::new(change),
    };
    let answer = persist::ask(temp.path(), &request).expect("an answer");
    answer.expect("the Server is there")
}

pub(crate) fn new_user(name: &str, password: &str) -> UserChange {
    UserChange::Add(NewUser {
        name: name.to_owned(),
        password: StoredPassword::new(password.as_bytes()).expect("is hashed"),
        scram: None,
        administrator: false,
        groups: ["people".to_owned()].into(),
        attributes: std::collections::BTreeMap::new(),
    })
}

#[test]
fn users_come_change_and_go_while_the_server_runs() {
    let temp = TempFolder::new();
    let mut config = crate::durable::durable(2);
    config.storage = StorageConfig {
        data: temp.path().to_owned(),
        ..config.storage
    };
    let server = Server::start(config.clone()).expect("the Server starts");
    // As long as there are no users, a name is only a name.
    assert_eq!(answer(&server, Some("anna"), Some("one")), 0);
    assert_eq!(change(&temp, new_user("anna", "one")), ControlAnswer::Done);
    assert_eq!(answer(&server, Some("anna"), Some("two")), 0x86);
    assert_eq!(answer(&server, Some("otto"), None), 0x86);
    let again = change(&temp, new_user("anna", "two"));
    assert!(matches!(again, ControlAnswer::Unfit { .. }), "{again:?}");
    let mut connected = Raw::open(server.listeners()[0]);
    let mut anonymous = Raw::v311(server.listeners()[0], "anonymous");
    connected.say(&login("connected", Some("anna"), Some("one")));
    assert_eq!(connected.hear()[3], 0);
    let password = StoredPassword::new(b"two").expect("is hashed");
    let name = "anna".to_owned();
    let changed = change(
        &temp,
        UserChange::Password {
            name,
            password,
            scram: None,
        },
    );
    assert_eq!(changed, ControlAnswer::Done);
    // Who was let in by what does not count any more has to come again.
    let disconnect = connected.hear();
    let reason = ReasonCode::NotAuthorized.value();
    assert_eq!((disconnect[0], disconnect[2]), (0xE0, reason));
    anonymous.ping();
    assert_eq!(answer(&server, Some("anna"), Some("one")), 0x86);
    assert_eq!(answer(&server, Some("anna"), Some("two")), 0);
    drop(server);
    let server = Server::start(config).expect("the Server starts");
    assert_eq!(answer(&server, Some("anna"), Some("two")), 0);
    let name = "anna".to_owned();
    let removed = change(&temp, UserChange::Remove { name });
    assert_eq!(removed, ControlAnswer::Done);
    // The last one is gone, and names still mean something.
    assert_eq!(answer(&server, Some("anna"), Some("two")), 0x86);
    assert_eq!(answer(&server, Some("anna"), Some("")), 0x86);
}

#[test]
fn who_fails_too_often_is_refused_at_once_until_the_ban_is_lifted() {
    let temp = TempFolder::new();
    let mut config = crate::durable::durable(2);
    config.storage.data = temp.path().to_owned();
    config.authentication.bans = BanLimits {
        failures_max: 3,
        ..BanLimits::default()
    };
    let server = Server::start(config).expect("the Server starts");
    for name in ["anna", "otto"] {
        assert_eq!(change(&temp, new_user(name, "word")), ControlAnswer::Done);
    }
    let _canary = Canary::new(server.listeners()[0]);
    for _ in 0..3 {
        assert_eq!(answer(&server, Some("anna"), Some("ward")), 0x86);
    }
    // Also with the right password: there is nothing to be learned.
    let banned = ReasonCode::Banned.value();
    assert_eq!(answer(&server, Some("anna"), Some("word")), banned);
    assert_eq!(answer(&server, Some("otto"), Some("word")), 0);
    assert_eq!(answer(&server, None, None), 0);
    let mut old = Raw::open(server.listeners()[0]);
    let connect = [
        &b"\x00\x04MQTT\x04\x82\x00\x00"[..],
        &string("old"),
        &string("anna"),
    ]
    .concat();
    old.say(&packet(0x10, &connect));
    assert_eq!(old.hear(), [0x20, 2, 0, 5]);
    let ask = |request| persist::ask(temp.path(), &request).expect("an answer");
    let Some(ControlAnswer::Bans { bans }) = ask(ControlRequest::Bans) else {
        panic!("no list of bans");
    };
    let found: Vec<_> = bans
        .iter()
        .map(|ban| (ban.address, ban.user.as_deref()))
        .collect();
    let here = Origin::Address([127, 0, 0, 1].into());
    assert_eq!(found, [(here, Some("anna"))]);
    let address = Some(here);
    let lifted = ask(ControlRequest::LiftBans { address });
    assert_eq!(lifted, Some(ControlAnswer::Lifted { count: 1 }));
    assert_eq!(answer(&server, Some("anna"), Some("word")), 0);
}

/// Many logins at once are not more guesses than one after the other.
#[test]
fn logins_that_wait_are_not_verified_once_their_user_is_banned() {
    let mut config = config(1);
    config.authentication.bans.failures_max = 2;
    let (server, begins, decide) = start(config);
    let address = server.listeners()[0];
    let canary = Canary::new(address);
    let mut first = Raw::open(address);
    first.say(&connect_as("guess"));
    begins.recv().expect("it is verified");
    let mut others: Vec<Raw> = (0..5)
        .map(|_| {
            let mut client = Raw::open(address);
            client.say(&connect_as("guess"));
            client
        })
        .collect();
    // So that all of them wait: the shard serves them in the order they came.
    Raw::v5(address, "nameless", 0).ping();
    decide.send(false).expect("is awaited");
    assert_eq!(first.hear()[3], ReasonCode::BadUserNameOrPassword.value());
    begins.recv().expect("it is verified");
    decide.send(false).expect("is awaited");
    let mut answers: Vec<u8> = others.iter_mut().map(|client| client.hear()[3]).collect();
    answers.sort_unstable();
    let (bad, banned) = (
        ReasonCode::BadUserNameOrPassword.value(),
        ReasonCode::Banned.value(),
    );
    assert_eq!(answers, [bad, banned, banned, banned, banned]);
    assert!(begins.try_recv().is_err(), "nobody else was verified");
    canary.sing();
}

/// A token of `user` for an hour, by HS256 and [`TOKEN_SECRET`].
fn token(user: &str) -> String {
    use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
    let exp = get_current_timestamp() + 3600;
    let claims = serde_json::json!({ "sub": user, "exp": exp });
    let key = EncodingKey::from_secret(TOKEN_SECRET.as_bytes());
    encode(&Header::default(), &claims, &key).expect("is signed")
}

const TOKEN_SECRET: &str = "a secret that is long enough to be one";

/// Verifies [MQTT-4.12.0-4] [MQTT-4.12.1-1] [MQTT-4.12.1-2]: a token lets its user in, and by AUTH again.
#[test]
fn token_lets_its_user_in_as_a_password_or_by_auth_and_nobody_without_one() {
    let temp = TempFolder::new();
    std::fs::create_dir_all(temp.path()).expect("a temporary folder");
    let file = temp.path().join("key");
    std::fs::write(&file, TOKEN_SECRET).expect("is written");
    let text = format!("[authentication.tokens]\nkey = {file:?}\nalgorithms = [\"HS256\"]\n");
    let parsed = vencejo_server::config::parse(&text, "test.toml".as_ref()).expect("is valid");
    let mut config = config(2);
    config.authentication = parsed.authentication;
    let server = Server::start(config).expect("the Server starts");
    let good = token("anna");
    let not_authorized = ReasonCode::NotAuthorized.value();
    assert_eq!(answer(&server, Some("anna"), Some(&good)), 0);
    assert_eq!(answer(&server, None, Some(&good)), 0);
    assert_eq!(answer(&server, Some("otto"), Some(&good)), not_authorized);
    let bad = &good[..good.len() - 2];
    assert_eq!(answer(&server, Some("anna"), Some(bad)), not_authorized);
    // A name is a user's here, and "word" is no token.
    assert_eq!(answer(&server, Some("anna"), Some("word")), 0x86);
    assert_eq!(answer(&server, None, None), 0);

    let auth = |first_byte, reason, data: &str| {
        let properties = [&[0x15][..], &string("JWT"), &[0x16], &string(data)].concat();
        let len = proto_length(properties.len());
        packet(first_byte, &[&[reason][..], &len, &properties].concat())
    };
    let connect = |data: &str| {
        let properties = [&[0x15][..], &string("JWT"), &[0x16], &string(data)].concat();
        let len = proto_length(properties.len());
        let body = [
            &b"\x00\x04MQTT\x05\x02\x00\x00"[..],
            &len,
            &properties,
            &string("auth"),
        ];
        packet(0x10, &body.concat())
    };
    let mut client = Raw::open(server.listeners()[0]);
    client.say(&connect(&good));
    assert_eq!(client.hear()[3], 0);
    client.say(&auth(0xF0, 0x19, &token("anna")));
    let answer = client.hear();
    assert_eq!((answer[0], answer[2]), (0xF0, 0), "{answer:x?}");
    client.ping();
    client.say(&auth(0xF0, 0x19, &token("otto")));
    let disconnect = client.hear();
    assert_eq!((disconnect[0], disconnect[2]), (0xE0, not_authorized));
    let mut forger = Raw::open(server.listeners()[0]);
    forger.say(&connect(bad));
    assert_eq!(forger.hear()[3], not_authorized);
}

/// A length as a Variable Byte Integer.
fn proto_length(len: usize) -> Vec<u8> {
    let made = packet(0, &vec![0; len]);
    made[1..made.len() - len].to_vec()
}

/// P12: what a first start shows of the Server to this machine is gone with the first user, for those who are
/// connected, too.
#[test]
fn first_user_closes_sys_to_clients_that_are_none() {
    let temp = TempFolder::new();
    let mut config = crate::durable::durable(2);
    config.storage.data = temp.path().to_owned();
    config.sys_interval = Duration::from_millis(20);
    let server = Server::start(config).expect("the Server starts");
    let mut watcher = Raw::v311(server.listeners()[0], "watcher");
    watcher.subscribe("last", 0);
    watcher.subscribe("$SYS/broker/uptime", 0);
    while watcher.hear().first() != Some(&0x30) {}
    assert_eq!(change(&temp, new_user("anna", "one")), ControlAnswer::Done);
    let mut late = Raw::v311(server.listeners()[0], "late");
    late.say(&crate::client::subscribe_v311("$SYS/#", 0));
    assert_eq!(late.hear(), [0x90, 3, 0, 1, 0x80]);
    let mut publisher = Raw::v311(server.listeners()[0], "publisher");
    publisher.say(&publish("last", 0, b"first"));
    while !watcher.hear().ends_with(b"first") {}
    // Many times over what is published of the Server.
    let told = std::time::Instant::now() + Duration::from_millis(200);
    while std::time::Instant::now() < told {
        publisher.say(&publish("last", 0, b"next"));
        let heard = watcher.hear();
        assert!(heard.ends_with(b"next"), "{heard:x?}");
    }
}

/// What a SUBSCRIBE to `a` is answered.
fn subscribed(client: &mut Raw) -> u8 {
    client.say(&subscribe_v5("a", 0));
    *client.hear().last().expect("a code")
}

/// Users that are changed by hand count with the reload, for those who are connected: groups at once, and who is gone
/// or has another password is disconnected.
#[test]
fn users_that_are_read_again_count_for_those_who_are_connected() {
    let temp = TempFolder::new();
    let mut config = crate::durable::durable(2);
    config.storage.data = temp.path().to_owned();
    let rules =
        "[[authorization.rules]]\neffect = \"allow\"\ngroups = [\"people\"]\ntopics = [\"a\"]\n";
    let parsed = vencejo_server::config::parse(rules, "test.toml".as_ref()).expect("is valid");
    config.authorization = parsed.authorization;
    let server = Server::start(config.clone()).expect("the Server starts");
    let mut clients = ["anna", "otto", "emil"].map(|name| {
        assert_eq!(change(&temp, new_user(name, "word")), ControlAnswer::Done);
        let mut client = Raw::open(server.listeners()[0]);
        client.say(&login(name, Some(name), Some("word")));
        assert_eq!(client.hear()[3], 0);
        assert_eq!(subscribed(&mut client), 0);
        client
    });
    let file = temp.path().join("users.toml");
    let text = std::fs::read_to_string(&file).expect("is there");
    let mut users: toml::Table = toml::from_str(&text).expect("is valid");
    let list = users["users"].as_array_mut().expect("a list");
    list[0]["groups"] = vec!["others"].into();
    list.remove(1);
    std::fs::write(&file, users.to_string()).expect("is written");
    server.reload(config).expect("the file is right");
    let refused = ReasonCode::NotAuthorized.value();
    let [anna, otto, emil] = &mut clients;
    assert_eq!(subscribed(anna), refused);
    let disconnect = otto.hear();
    assert_eq!((disconnect[0], disconnect[2]), (0xE0, refused));
    assert_eq!(subscribed(emil), 0);
}

/// Groups of a user change while it is connected, and nobody is disconnected for it.
#[test]
fn groups_of_a_user_count_at_once_for_those_who_are_connected() {
    let temp = TempFolder::new();
    let mut config = crate::durable::durable(2);
    config.storage.data = temp.path().to_owned();
    let rules =
        "[[authorization.rules]]\neffect = \"allow\"\ngroups = [\"people\"]\ntopics = [\"a\"]\n";
    let parsed = vencejo_server::config::parse(rules, "test.toml".as_ref()).expect("is valid");
    config.authorization = parsed.authorization;
    let server = Server::start(config).expect("the Server starts");
    assert_eq!(change(&temp, new_user("anna", "word")), ControlAnswer::Done);
    let groups = |name: &str, groups: &[&str]| {
        let groups = groups.iter().map(|group| (*group).to_owned()).collect();
        let name = name.to_owned();
        change(&temp, UserChange::Groups { name, groups })
    };
    let mut client = Raw::open(server.listeners()[0]);
    client.say(&login("client", Some("anna"), Some("word")));
    assert_eq!(client.hear()[3], 0);
    assert_eq!(subscribed(&mut client), 0);
    assert_eq!(groups("anna", &[]), ControlAnswer::Done);
    assert_eq!(subscribed(&mut client), ReasonCode::NotAuthorized.value());
    assert_eq!(groups("anna", &["others", "people"]), ControlAnswer::Done);
    assert_eq!(subscribed(&mut client), 0);
    assert!(matches!(groups("otto", &[]), ControlAnswer::Unfit { .. }));
    assert_eq!(answer(&server, Some("anna"), Some("word")), 0);
}

#[test]
fn user_that_is_gone_from_the_password_file_is_disconnected_by_the_reload() {
    let temp = TempFolder::new();
    std::fs::create_dir_all(temp.path()).expect("a temporary folder");
    let file = temp.path().join("passwords");
    let both = format!("{PASSWORDS}{}", PASSWORDS.replace("anna", "otto"));
    std::fs::write(&file, both).expect("is written");
    let mut config = config(2);
    config.authentication.password_file = Some(file.clone());
    let server = Server::start(config.clone()).expect("the Server starts");
    let mut clients = ["anna", "otto"].map(|name| {
        let mut client = Raw::open(server.listeners()[0]);
        client.say(&login(name, Some(name), Some("secret word")));
        assert_eq!(client.hear()[3], 0);
        client
    });
    std::fs::write(&file, PASSWORDS).expect("is written");
    server.reload(config).expect("the file is right");
    let [anna, otto] = &mut clients;
    let disconnect = otto.hear();
    let refused = ReasonCode::NotAuthorized.value();
    assert_eq!((disconnect[0], disconnect[2]), (0xE0, refused));
    anna.ping();
}
