//! SCRAM-SHA-256 by AUTH, over sockets.

use std::net::SocketAddr;

use proto::packet::ReasonCode;
use scram::ClientExchange;
use vencejo_server::Server;
use vencejo_server::authentication::{BanLimits, NewUser, StoredPassword, UserChange};
use vencejo_server::config::{Config, Link};
use vencejo_server::persist::{self, ControlAnswer, ControlRequest};

use crate::client::{Raw, connect_flags_v5, packet, string};
use crate::config;
use crate::durable::TempFolder;
use crate::logins::answer_at;

/// Method and data of an AUTH or a CONNECT.
fn properties(method: &str, data: &[u8]) -> Vec<u8> {
    let len = u16::try_from(data.len()).expect("short").to_be_bytes();
    [&[0x15][..], &string(method), &[0x16], &len, data].concat()
}

fn auth(reason: u8, data: &[u8]) -> Vec<u8> {
    let properties = properties("SCRAM-SHA-256", data);
    let len = u8::try_from(properties.len()).expect("short");
    let len: &[u8] = if len < 128 { &[len] } else { &[len, 1] };
    packet(0xF0, &[&[reason], len, &properties].concat())
}

fn connect(client_id: &str, data: &[u8]) -> Vec<u8> {
    connect_flags_v5(2, client_id, 0, &properties("SCRAM-SHA-256", data), &[])
}

/// The Authentication Data in what the Server says.
fn data_in(packet: &[u8]) -> Vec<u8> {
    let marks = [b"r=", b"v="].map(|mark| packet.windows(2).position(|at| at == mark));
    let begin = marks.into_iter().flatten().min().expect("a message");
    let len = usize::from(u16::from_be_bytes([packet[begin - 2], packet[begin - 1]]));
    packet[begin..begin + len].to_vec()
}

/// What became of a login: its Reason Code, and what the Server has said first.
struct Answer {
    client: Raw,
    code: u8,
    server_first: String,
}

impl Answer {
    /// What it says but for its nonce.
    fn shown(&self) -> &str {
        let at = self.server_first.find(",s=").expect("a salt");
        &self.server_first[at..]
    }
}

/// Logs in as `user`, or as far as it goes.
fn login(server: &Server, user: &str, password: &str) -> Answer {
    login_at(server.listeners()[0], user, password)
}

/// The same at a listener.
fn login_at(address: SocketAddr, user: &str, password: &str) -> Answer {
    let nonce = scram::nonce().expect("randomness");
    let (exchange, said) = ClientExchange::begin(user, password, &nonce);
    let mut client = Raw::open(address);
    client.say(&connect(user, &said));
    let heard = client.hear();
    if heard[0] == 0x20 {
        let code = heard[3];
        let server_first = String::new();
        return Answer {
            client,
            code,
            server_first,
        };
    }
    assert_eq!((heard[0], heard[2]), (0xF0, 0x18), "{heard:?}");
    go_on(client, exchange, &heard)
}

fn go_on(mut client: Raw, mut exchange: ClientExchange, heard: &[u8]) -> Answer {
    let server_first = data_in(heard);
    let said = exchange.on_server_first(&server_first).expect("a message");
    client.say(&auth(0x18, &said));
    let heard = client.hear();
    let code = match heard[0] {
        0x20 => heard[3],
        0xF0 | 0xE0 => heard[2],
        _ => panic!("{heard:?}"),
    };
    if code == 0 {
        exchange
            .on_server_final(&data_in(&heard))
            .expect("the true Server");
    }
    let server_first = String::from_utf8(server_first).expect("text");
    Answer {
        client,
        code,
        server_first,
    }
}

/// Proves again who it is.
fn again(client: Raw, user: &str, password: &str) -> Answer {
    let nonce = scram::nonce().expect("randomness");
    let (exchange, said) = ClientExchange::begin(user, password, &nonce);
    let mut client = client;
    client.say(&auth(0x19, &said));
    let heard = client.hear();
    assert_eq!((heard[0], heard[2]), (0xF0, 0x18), "{heard:?}");
    go_on(client, exchange, &heard)
}

fn change(temp: &TempFolder, change: UserChange) {
    let request = ControlRequest::User {
        change: Box::new(change),
    };
    let answer = persist::ask(temp.path(), &request).expect("an answer");
    assert_eq!(answer, Some(ControlAnswer::Done));
}

/// A user whose keys come with it, or with its first login by password.
fn add(temp: &TempFolder, name: &str, password: &str, has_keys: bool) {
    use vencejo_server::authentication::{BoundKeys, ScramKeys};
    let stored = StoredPassword::new(password.as_bytes()).expect("is hashed");
    let salt = ScramKeys::salt_in(temp.path(), name).expect("the Server has begun it");
    let keys = BoundKeys::derive(password.as_bytes(), &salt, &stored);
    let user = NewUser {
        name: name.to_owned(),
        password: stored,
        scram: keys.filter(|_| has_keys),
        administrator: false,
        groups: ["people".to_owned()].into(),
        attributes: std::collections::BTreeMap::new(),
    };
    change(temp, UserChange::Add(user));
}

fn durable(temp: &TempFolder) -> Config {
    let mut config = crate::durable::durable(2);
    config.storage.data = temp.path().to_owned();
    config
}

fn by_password(server: &Server, user: &str, password: &str) -> u8 {
    let mut client = Raw::open(server.listeners()[0]);
    let more = [string(user), string(password)].concat();
    client.say(&connect_flags_v5(0xC2, "other", 0, &[], &more));
    client.hear()[3]
}

const WRONG: u8 = ReasonCode::BadUserNameOrPassword.value();

/// Verifies [MQTT-4.12.0-2] [MQTT-4.12.0-3] [MQTT-4.12.0-4]: both sides prove that they know the password, and it is
/// not sent.
#[test]
fn user_logs_in_by_scram_and_hears_that_it_is_the_true_server() {
    let temp = TempFolder::new();
    let server = Server::start(durable(&temp)).expect("the Server starts");
    // As long as there are no users there is nobody to be.
    assert_eq!(login(&server, "anna", "word").code, 0x87);
    add(&temp, "anna", "word", true);
    for _ in 0..4 {
        let mut answer = login(&server, "anna", "word");
        assert_eq!(answer.code, 0);
        answer.client.ping();
    }
    assert_eq!(login(&server, "anna", "ward").code, WRONG);
    let password = StoredPassword::new(b"new").expect("is hashed");
    let name = "anna".to_owned();
    let scram = None;
    change(
        &temp,
        UserChange::Password {
            name,
            password,
            scram,
        },
    );
    for password in ["word", "new"] {
        assert_eq!(login(&server, "anna", password).code, WRONG);
    }
    // It has no keys now, until it has logged in by its password.
    assert_eq!(by_password(&server, "anna", "new"), 0);
    assert_eq!(login(&server, "anna", "new").code, 0);
    assert_eq!(login(&server, "anna", "word").code, WRONG);
}

/// P13: what an unknown user is asked and told is what a known one is, with keys or without, before and after a restart.
#[test]
fn unknown_user_is_asked_and_told_what_a_wrong_password_is() {
    let temp = TempFolder::new();
    let shown = |server: &Server| {
        ["anna", "otto", "nobody"].map(|name| {
            let answer = login(server, name, "wrong");
            assert_eq!(answer.code, WRONG, "{name}");
            answer.shown().to_owned()
        })
    };
    let server = Server::start(durable(&temp)).expect("the Server starts");
    add(&temp, "somebody", "word", true);
    let before = shown(&server);
    add(&temp, "anna", "word", true);
    add(&temp, "otto", "word", false);
    assert_eq!(shown(&server), before);
    assert_eq!(by_password(&server, "otto", "word"), 0);
    assert_eq!(login(&server, "otto", "word").code, 0);
    assert_eq!(shown(&server), before);
    drop(server);
    let server = Server::start(durable(&temp)).expect("the Server starts");
    assert_eq!(login(&server, "otto", "word").code, 0);
    assert_eq!(shown(&server), before);
    change(
        &temp,
        UserChange::Remove {
            name: "anna".to_owned(),
        },
    );
    assert_eq!(shown(&server), before);
}

/// The users of a password file have no keys in it; the first login by password leaves them, and goes on counting
/// only as long as the line is the same.
#[test]
fn user_of_a_password_file_logs_in_by_scram_after_its_first_password() {
    let temp = TempFolder::new();
    std::fs::create_dir_all(temp.path()).expect("a temporary folder");
    let file = temp.path().join("passwords");
    let write = |password: &str| {
        let stored = StoredPassword::new(password.as_bytes()).expect("is hashed");
        std::fs::write(&file, format!("anna:{}\n", stored.expose())).expect("is written");
    };
    write("word");
    for data in [None, Some(temp.path().join("data"))] {
        let mut config = config(2);
        if let Some(data) = data {
            config = durable(&temp);
            config.storage.data = data;
        }
        config.authentication.password_file = Some(file.clone());
        write("word");
        let server = Server::start(config.clone()).expect("the Server starts");
        assert_eq!(login(&server, "anna", "word").code, WRONG);
        assert_eq!(by_password(&server, "anna", "word"), 0);
        assert_eq!(login(&server, "anna", "word").code, 0);
        write("new");
        server.reload(config).expect("the file is right");
        assert_eq!(login(&server, "anna", "word").code, WRONG);
    }
}

/// Verifies [MQTT-4.12.1-1] [MQTT-4.12.1-2]: a Client proves itself again while it is served, as the same user only.
#[test]
fn client_proves_itself_again_while_it_is_served() {
    let temp = TempFolder::new();
    let server = Server::start(durable(&temp)).expect("the Server starts");
    for name in ["anna", "otto"] {
        add(&temp, name, "word", true);
    }
    let mut answer = login(&server, "anna", "word");
    for _ in 0..2 {
        answer = again(answer.client, "anna", "word");
        assert_eq!(answer.code, 0);
        answer.client.ping();
    }
    for (user, password) in [("otto", "word"), ("anna", "ward"), ("nobody", "word")] {
        let answer = login(&server, "anna", "word");
        let mut answer = again(answer.client, user, password);
        assert_eq!(answer.code, 0x87, "{user}");
        assert!(answer.client.is_at_end());
    }
}

/// An exchange that began before its user was changed ends with what counts now.
#[test]
fn user_that_is_removed_in_the_middle_does_not_get_in() {
    let temp = TempFolder::new();
    let server = Server::start(durable(&temp)).expect("the Server starts");
    add(&temp, "anna", "word", true);
    let (exchange, said) = ClientExchange::begin("anna", "word", "abc");
    let mut client = Raw::open(server.listeners()[0]);
    client.say(&connect("anna", &said));
    let heard = client.hear();
    change(
        &temp,
        UserChange::Remove {
            name: "anna".to_owned(),
        },
    );
    assert_eq!(go_on(client, exchange, &heard).code, WRONG);
}

#[test]
fn wrong_proofs_are_counted_by_the_user_they_were_for() {
    let temp = TempFolder::new();
    let mut config = durable(&temp);
    config.authentication.bans = BanLimits {
        failures_max: 3,
        ..BanLimits::default()
    };
    let server = Server::start(config).expect("the Server starts");
    for name in ["anna", "otto"] {
        add(&temp, name, "word", true);
    }
    let served = login(&server, "anna", "word");
    for _ in 0..3 {
        assert_eq!(login(&server, "anna", "ward").code, WRONG);
    }
    let banned = ReasonCode::Banned.value();
    assert_eq!(login(&server, "anna", "word").code, banned);
    assert_eq!(by_password(&server, "anna", "word"), banned);
    assert_eq!(login(&server, "otto", "word").code, 0);
    let mut client = served.client;
    client.say(&auth(0x19, b"n,,n=anna,r=abc"));
    assert_eq!(client.hear()[2], 0x87);
    // Those of a Client that is served count, too.
    for _ in 0..3 {
        let answer = login(&server, "otto", "word");
        if answer.code == 0 {
            assert_eq!(again(answer.client, "otto", "ward").code, 0x87);
        }
    }
    assert_eq!(login(&server, "otto", "word").code, banned);
}

/// Class C: no message that a Client can make up is more than a refusal.
#[test]
fn messages_that_are_none_are_refused() {
    let temp = TempFolder::new();
    let mut config = durable(&temp);
    config.authentication.bans.failures_max = 0;
    config.authentication.bans.failures_per_address_max = 0;
    let server = Server::start(config).expect("the Server starts");
    add(&temp, "anna", "word", true);
    for said in [
        "",
        "n",
        "n,,x",
        "n,a,n=anna,r=x",
        "p=tls-exporter,,n=anna,r=x",
        "n,a=otto,n=anna,r=x",
        "n,,n=anna,r=",
    ] {
        let mut client = Raw::open(server.listeners()[0]);
        client.say(&connect("anna", said.as_bytes()));
        let connack = client.hear();
        assert_eq!((connack[0], connack[3]), (0x20, 0x87), "{said}");
        assert!(client.is_at_end());
    }
    for said in ["", "c", "c=biws,r=x,p=AAAA", "c=,r=,p="] {
        let mut client = Raw::open(server.listeners()[0]);
        client.say(&connect("anna", b"n,,n=anna,r=abc"));
        assert_eq!(client.hear()[0], 0xF0);
        client.say(&auth(0x18, said.as_bytes()));
        let connack = client.hear();
        assert_eq!((connack[0], connack[3]), (0x20, 0x87), "{said}");
    }
    // A User Name that is another one's.
    let mut client = Raw::open(server.listeners()[0]);
    let properties = properties("SCRAM-SHA-256", b"n,,n=anna,r=abc");
    client.say(&connect_flags_v5(
        0x82,
        "client",
        0,
        &properties,
        &string("otto"),
    ));
    assert_eq!(client.hear()[3], 0x87);
}

#[test]
fn scram_can_be_turned_off() {
    let temp = TempFolder::new();
    let mut config = durable(&temp);
    let server = Server::start(config.clone()).expect("the Server starts");
    add(&temp, "anna", "word", true);
    config.authentication.scram = false;
    server.reload(config).expect("is right");
    let bad_method = ReasonCode::BadAuthenticationMethod.value();
    assert_eq!(login(&server, "anna", "word").code, bad_method);
    assert_eq!(by_password(&server, "anna", "word"), 0);
}

/// A listener that does not name SCRAM does not offer it, and one that names nothing else takes no password. A reload that
/// takes it away leaves those who are there, who can prove themselves no more.
#[test]
fn scram_is_offered_where_the_listener_says_so() {
    let temp = TempFolder::new();
    let mut config = durable(&temp);
    for links in [vec![Link::Passwords], vec![Link::Scram]] {
        let mut listener = config.listeners[0].clone();
        listener.authentication = Some(links);
        config.listeners.push(listener);
    }
    let server = Server::start(config.clone()).expect("the Server starts");
    add(&temp, "anna", "word", true);
    let [all, passwords, scram] = [0, 1, 2].map(|number| server.listeners()[number]);
    let unsupported = ReasonCode::BadAuthenticationMethod.value();
    assert_eq!(login_at(all, "anna", "word").code, 0);
    assert_eq!(login_at(passwords, "anna", "word").code, unsupported);
    assert_eq!(login_at(scram, "anna", "word").code, 0);
    let (user, password) = (Some("anna"), Some("word"));
    assert_eq!(answer_at(all, user, password), 0);
    assert_eq!(answer_at(passwords, user, password), 0);
    assert_eq!(answer_at(scram, user, password), WRONG);

    let mut stays = again(login_at(scram, "anna", "word").client, "anna", "word");
    config.listeners[2].authentication = Some(vec![Link::Passwords]);
    server.reload(config).expect("is right");
    stays.client.ping();
    let nonce = scram::nonce().expect("randomness");
    let (_, said) = ClientExchange::begin("anna", "word", &nonce);
    stays.client.say(&auth(0x19, &said));
    let disconnect = stays.client.hear();
    assert_eq!((disconnect[0], disconnect[2]), (0xE0, unsupported));
}
