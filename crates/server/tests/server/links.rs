//! Listeners that choose who is asked.
//!
//! Owns: nothing but tests. Start reading at [`with_links`].
//! Invariant: `anna` is known to the password file, `ann` to the tokens.

use proto::packet::ReasonCode;
use vencejo_server::Server;
use vencejo_server::authentication::AnonymousPolicy;
use vencejo_server::config::{Address, Config, Link, ListenerConfig, Transport};

use crate::client::Raw;
use crate::durable::TempFolder;
use crate::logins::{PASSWORDS, answer_at, login};
use crate::own_rights::{token, with_tokens};
use crate::websocket::Web;

const BAD: u8 = ReasonCode::BadUserNameOrPassword.value();
const NOT_AUTHORIZED: u8 = ReasonCode::NotAuthorized.value();

/// Users in a password file and in tokens, and a listener of each of `links`.
fn with_links(temp: &TempFolder, links: &[Option<&[Link]>]) -> Config {
    let mut config = with_tokens(temp, "");
    let file = temp.path().join("passwords");
    std::fs::write(&file, PASSWORDS).expect("is written");
    config.authentication.password_file = Some(file);
    let listener = |links: &Option<&[Link]>| ListenerConfig {
        authentication: links.map(<[Link]>::to_vec),
        ..([127, 0, 0, 1], 0).into()
    };
    config.listeners = links.iter().map(listener).collect();
    config
}

const TOKENS: &[Link] = &[Link::Tokens];
const ONLY_PASSWORDS: &[Link] = &[Link::Passwords];

/// P12: who is asked says who gets in; what only others would believe is nothing there, and no way to be anonymous.
#[test]
fn a_listener_asks_nobody_but_whom_it_names() {
    let temp = TempFolder::new();
    let both = &[Link::Passwords, Link::Tokens];
    let links = [None, Some(TOKENS), Some(ONLY_PASSWORDS), Some(&both[..])];
    let server = Server::start(with_links(&temp, &links)).expect("the Server starts");
    let [all, tokens, passwords, both] = [0, 1, 2, 3].map(|number| server.listeners()[number]);
    let token = token(None);
    let by_password = |at| answer_at(at, Some("anna"), Some("secret word"));
    let by_token = |at| answer_at(at, Some("ann"), Some(&token));
    assert_eq!(
        [all, tokens, passwords, both].map(by_password),
        [0, BAD, 0, 0]
    );
    // In the last the file is asked first, which does not know this user.
    assert_eq!([all, tokens, passwords, both].map(by_token), [0, 0, BAD, 0]);
    for at in [all, tokens, passwords, both] {
        assert_eq!(answer_at(at, Some("nobody"), Some("word")), BAD);
        // From this machine, and no user.
        assert_eq!(answer_at(at, None, None), 0);
    }
}

/// Where links are named a User Name is somebody's, whether there are users yet or not.
#[test]
fn a_listener_that_asks_for_users_makes_no_user_anonymous_before_there_is_one() {
    let mut config = crate::config(2);
    let mut named = config.listeners[0].clone();
    named.authentication = Some(ONLY_PASSWORDS.to_vec());
    config.listeners.push(named);
    let server = Server::start(config).expect("the Server starts");
    let answer = |number: usize| answer_at(server.listeners()[number], Some("anna"), None);
    assert_eq!([answer(0), answer(1)], [0, BAD]);
}

#[test]
fn every_kind_of_listener_asks_whom_it_names() {
    let temp = TempFolder::new();
    let mut config = with_links(&temp, &[None]);
    let path = temp.path().join("mqtt.sock");
    let kinds = [
        ListenerConfig {
            address: Address::Unix(path.clone()),
            ..([127, 0, 0, 1], 0).into()
        },
        ListenerConfig {
            transport: Transport::WebSocket,
            ..([127, 0, 0, 1], 0).into()
        },
        ListenerConfig {
            sniff: true,
            ..([127, 0, 0, 1], 0).into()
        },
    ];
    for kind in kinds {
        config.listeners.push(ListenerConfig {
            name: format!("listener {}", config.listeners.len()),
            authentication: Some(TOKENS.to_vec()),
            ..kind
        });
    }
    let server = Server::start(config).expect("the Server starts");
    let token = token(None);
    for (user, password, code) in [("anna", "secret word", BAD), ("ann", token.as_str(), 0)] {
        let connect = login("client", Some(user), Some(password));
        let mut unix = Raw::unix(&path);
        unix.say(&connect);
        assert_eq!(unix.hear()[3], code, "Unix");
        let mut sniffed = Raw::open(server.listeners()[2]);
        sniffed.say(&connect);
        assert_eq!(sniffed.hear()[3], code, "sniffed");
        for address in [server.listeners()[1], server.listeners()[2]] {
            let mut web = Web::over(Raw::open(address).stream, "/mqtt");
            web.say(&connect);
            assert_eq!(web.hear(4)[3], code, "WebSocket");
        }
    }
}

#[cfg(feature = "quic")]
#[test]
fn a_listener_of_quic_asks_whom_it_names() {
    use crate::authority::Authority;
    use crate::quic::Over;

    let temp = TempFolder::new();
    let authority = Authority::new();
    let mut config = with_links(&temp, &[None]);
    config.listeners.push(ListenerConfig {
        name: "quic".to_owned(),
        transport: Transport::Quic,
        tls: Some(crate::tls::tls(authority.files("a", "localhost"))),
        authentication: Some(TOKENS.to_vec()),
        ..([127, 0, 0, 1], 0).into()
    });
    let server = Server::start(config).expect("the Server starts");
    let token = token(None);
    for (user, password, code) in [("anna", "secret word", BAD), ("ann", token.as_str(), 0)] {
        let mut client = Over::open(server.listeners()[1], &authority);
        client.say(&login("client", Some(user), Some(password)));
        assert_eq!(client.hear_packet()[3], code);
    }
}

/// Reload: from now on others are asked, and whoever is there stays.
#[test]
fn reload_moves_the_links_of_a_listener_under_those_who_are_there() {
    let temp = TempFolder::new();
    let mut config = with_links(&temp, &[Some(ONLY_PASSWORDS)]);
    config.authentication.anonymous = AnonymousPolicy::Never;
    let server = Server::start(config.clone()).expect("the Server starts");
    let at = server.listeners()[0];
    let mut anna = Raw::open(at);
    anna.say(&login("anna's", Some("anna"), Some("secret word")));
    assert_eq!(anna.hear()[3], 0);
    let token = token(None);
    let answers = || {
        let by_password = answer_at(at, Some("anna"), Some("secret word"));
        (by_password, answer_at(at, Some("ann"), Some(&token)))
    };
    assert_eq!(answers(), (0, BAD));
    config.listeners[0].authentication = Some(TOKENS.to_vec());
    server.reload(config.clone()).expect("is right");
    assert_eq!(answers(), (BAD, 0));
    assert_eq!(answer_at(at, None, None), NOT_AUTHORIZED);
    config.listeners[0].authentication = None;
    server.reload(config).expect("is right");
    assert_eq!(answers(), (0, 0));
    anna.ping();
}

/// P17: a listener that the file leaves out stays open until the next start, and asks whom it asked; a link that is gone
/// opens nothing.
#[test]
fn a_listener_that_is_left_out_asks_what_is_left_of_its_links() {
    let temp = TempFolder::new();
    let mut config = with_links(&temp, &[None]);
    let path = temp.path().join("mqtt.sock");
    config.listeners.push(ListenerConfig {
        name: "local".to_owned(),
        address: Address::Unix(path.clone()),
        authentication: Some(TOKENS.to_vec()),
        ..([127, 0, 0, 1], 0).into()
    });
    let server = Server::start(config.clone()).expect("the Server starts");
    let token = token(None);
    let answer = |user, password| {
        let mut client = Raw::unix(&path);
        client.say(&login("client", Some(user), Some(password)));
        client.hear()[3]
    };
    assert_eq!(
        [answer("ann", &token), answer("anna", "secret word")],
        [0, BAD]
    );
    config.listeners.truncate(1);
    config.authentication.tokens = None;
    let left = server.reload(config).expect("is right").left;
    assert_eq!(left, ["listeners"]);
    assert_eq!(
        [answer("ann", &token), answer("anna", "secret word")],
        [BAD, BAD]
    );
}
