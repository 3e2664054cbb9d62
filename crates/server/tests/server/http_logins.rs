//! Logins that a service decides on by HTTP: what it is asked, what its answers mean, and what it can do to us.

use std::sync::Arc;
use std::time::Duration;

use proto::packet::ReasonCode;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use vencejo_server::authentication::BanLimits;
use vencejo_server::config::{CertificateFiles, Config, parse};
use vencejo_server::{ReloadError, Server, StartError};

use crate::authority::Authority;
use crate::canary::Canary;
use crate::client::{Raw, connect_flags_v5, packet, string, subscribe_v5};
use crate::config;
use crate::durable::TempFolder;
use crate::logins::{answer, login};
use crate::service::{Reply, Service, json};

const BAD: u8 = ReasonCode::BadUserNameOrPassword.value();
const NOT_AUTHORIZED: u8 = ReasonCode::NotAuthorized.value();
const UNAVAILABLE: u8 = ReasonCode::ServerUnavailable.value();

/// A configuration that asks `url`, with `more` of how.
fn asking(url: &str, more: &str) -> Config {
    let text =
        format!("[authentication]\nanonymous = \"never\"\nhttp = {{ url = \"{url}\"{more} }}\n");
    let parsed = parse(&text, "test.toml".as_ref());
    let mut config = config(2);
    config.authentication = parsed.expect("is valid").authentication;
    config.authentication.bans = BanLimits {
        failures_max: 0,
        failures_per_address_max: 0,
        ..BanLimits::default()
    };
    config
}

fn start(service: &Service, more: &str) -> Server {
    Server::start(asking(&service.url("/mqtt"), more)).expect("the Server starts")
}

#[test]
fn service_is_asked_all_that_is_known_and_what_it_says_is_who_the_client_is() {
    let service = Service::start(|asked| match asked.body["user_name"].as_str() {
        Some("anna") if asked.body["password"] == "word" => json(
            r#"{"result": "allow", "groups": ["ops"], "attributes": {"site": "north"}, "more": 1}"#,
        ),
        Some("anna") => json(r#"{"result": "deny", "reason": "not\ntoday"}"#),
        Some("root") => json(r#"{"result": "allow", "is_superuser": true, "user": "toor"}"#),
        _ => json(r#"{"result": "ignore"}"#),
    });
    let mut config = asking(
        &service.url("/mqtt?from=test"),
        ", headers = { X-From = \"me\" }",
    );
    let text = "[[authorization.rules]]\neffect = \"allow\"\ngroups = [\"ops\"]\n\
                topics = [\"${attribute.site}/#\"]\n";
    let parsed = parse(text, "test.toml".as_ref()).expect("is valid");
    config.authorization = parsed.authorization;
    config.sys_interval = Duration::from_millis(20);
    let server = Server::start(config).expect("the Server starts");
    let mut anna = Raw::open(server.listeners()[0]);
    anna.say(&login("c1", Some("anna"), Some("word")));
    assert_eq!(anna.hear()[3], 0);
    let asked = service.asked();
    let expected = serde_json::json!({
        "client_id": "c1", "user_name": "anna", "password": "word", "address": "127.0.0.1",
        "listener": asked.body["listener"], "version": "5.0", "certificate": null,
    });
    assert_eq!(asked.body, expected);
    assert!(
        asked.head.starts_with("POST /mqtt?from=test HTTP/1.1\r\n"),
        "{}",
        asked.head
    );
    assert!(asked.head.contains("x-from: me"), "{}", asked.head);
    for (filter, granted) in [("north/a", 0), ("south/a", 0x87)] {
        anna.say(&subscribe_v5(filter, 0));
        assert_eq!(anna.hear().last(), Some(&granted), "{filter}");
    }
    let mut refused = Raw::open(server.listeners()[0]);
    refused.say(&login("c1", Some("anna"), Some("ward")));
    let connack = refused.hear();
    assert_eq!(connack[3], BAD);
    assert!(
        String::from_utf8_lossy(&connack).ends_with("nottoday"),
        "{connack:x?}"
    );
    let mut root = Raw::open(server.listeners()[0]);
    root.say(&login("c2", Some("root"), None));
    assert_eq!(root.hear()[3], 0);
    root.say(&subscribe_v5("$SYS/broker/outbound/asked", 0));
    assert_eq!(root.hear().last(), Some(&0));
    assert_eq!(root.hear()[0] & 0xF0, 0x30);
    assert_eq!(answer(&server, Some("otto"), Some("word")), BAD);
    // Who shows nothing is nothing to ask about.
    let before = service.count();
    assert_eq!(answer(&server, None, None), NOT_AUTHORIZED);
    assert_eq!(service.count(), before);
}

#[test]
fn password_that_is_no_text_arrives_as_it_is() {
    let service = Service::start(|asked| {
        let is_right = asked.body["password_base64"] == "/wD+" && asked.body["password"].is_null();
        json(if is_right {
            r#"{"result": "allow"}"#
        } else {
            r#"{"result": "deny"}"#
        })
    });
    let server = start(&service, "");
    let mut client = Raw::open(server.listeners()[0]);
    let rest = [&string("anna")[..], b"\x00\x03\xff\x00\xfe"].concat();
    client.say(&connect_flags_v5(0xC2, "c", 0, &[], &rest));
    assert_eq!(client.hear()[3], 0);
}

#[test]
fn only_an_answer_in_known_words_lets_somebody_in() {
    let service = Service::start(|_| Reply::Json(204, String::new()));
    let server = start(
        &service,
        ", cache = { allow = 0, deny = 0 }, breaker = { failures = 0 }",
    );
    let status = |status: u16| Reply::Json(status, r#"{"result": "allow"}"#.to_owned());
    let raw = |text: &str| Reply::Raw(text.as_bytes().to_vec());
    let past = r#"{"result": "allow", "expires": 1000000000}"#;
    let cases = [
        (Reply::Json(204, String::new()), 0),
        (json(r#"{"result":"allow"}"#), 0),
        (
            json(
                r#"{"result":"allow","acl":[{"permission":"allow","action":"publish","topic":"a"}]}"#,
            ),
            0,
        ),
        (status(401), BAD),
        (status(403), NOT_AUTHORIZED),
        (json(past), NOT_AUTHORIZED),
        (status(201), UNAVAILABLE),
        (status(301), UNAVAILABLE),
        (
            raw("HTTP/1.1 302 X\r\nLocation: /allow\r\nContent-Length: 0\r\n\r\n"),
            UNAVAILABLE,
        ),
        (status(404), UNAVAILABLE),
        (status(500), UNAVAILABLE),
        (json(""), UNAVAILABLE),
        (json("allow"), UNAVAILABLE),
        (json("{}"), UNAVAILABLE),
        (json(r#"{"result":"Allow"}"#), UNAVAILABLE),
        (json(r#"{"result":true}"#), UNAVAILABLE),
        (json(r#"[{"result":"allow"}]"#), UNAVAILABLE),
        (
            json(r#"{"result":"allow","administrator":"yes"}"#),
            UNAVAILABLE,
        ),
        (json(r#"{"result":"allow","groups":"ops"}"#), UNAVAILABLE),
        (json(r#"{"result":"allow","user":"a\nb"}"#), UNAVAILABLE),
        (json(r#"{"result":"allow","user":""}"#), UNAVAILABLE),
        (json(r#"{"result":"allow","expires":-1}"#), UNAVAILABLE),
        (json(r#"{"result":"allow","expires":1e300}"#), UNAVAILABLE),
        (
            json(
                r#"{"result":"allow","acl":[{"permission":"maybe","action":"publish","topic":"a"}]}"#,
            ),
            UNAVAILABLE,
        ),
        (json(r#"{"result":"allow"} and more"#), UNAVAILABLE),
        (
            raw("HTTP/1.1 200 X\r\nContent-Length: 20\r\n\r\n{\"result\""),
            UNAVAILABLE,
        ),
        (raw("HTTP/1.1 200 X\r\nContent-"), UNAVAILABLE),
        (raw("SSH-2.0-OpenSSH_9\r\n"), UNAVAILABLE),
        (raw(""), UNAVAILABLE),
    ];
    for (reply, expected) in cases {
        let shown = format!("{reply:?}");
        service.behave(move |_| reply.clone());
        assert_eq!(
            answer(&server, Some("anna"), Some("word")),
            expected,
            "{shown}"
        );
    }
}

#[test]
fn answer_is_good_for_its_time_and_no_longer_than_a_configuration() {
    let service = Service::start(|asked| match asked.body["password"].as_str() {
        Some("word") => json(r#"{"result": "allow"}"#),
        _ => json(r#"{"result": "deny"}"#),
    });
    let server = start(&service, ", cache = { allow = \"1h\", deny = \"1h\" }");
    for _ in 0..3 {
        assert_eq!(answer(&server, Some("anna"), Some("word")), 0);
        assert_eq!(answer(&server, Some("anna"), Some("ward")), BAD);
        assert_eq!(answer(&server, Some("anna"), None), BAD);
        assert_eq!(answer(&server, Some("otto"), Some("word")), 0);
    }
    assert_eq!(service.count(), 4);
    // Revoked there, and reloaded here.
    service.behave(|_| json(r#"{"result": "deny"}"#));
    assert_eq!(answer(&server, Some("anna"), Some("word")), 0);
    let same = asking(
        &service.url("/mqtt"),
        ", cache = { allow = \"1h\", deny = \"1h\" }",
    );
    server.reload(same).expect("is valid");
    assert_eq!(answer(&server, Some("anna"), Some("word")), BAD);
    let uncached = asking(&service.url("/mqtt"), ", cache = { allow = 0, deny = 0 }");
    server.reload(uncached).expect("is valid");
    let before = service.count();
    for _ in 0..3 {
        assert_eq!(answer(&server, Some("anna"), Some("word")), BAD);
    }
    assert_eq!(service.count(), before + 3);
}

/// The connection ends when what the service has said does.
#[test]
fn connection_ends_when_the_service_has_said_that_it_does() {
    let service = Service::start(|_| {
        let now = std::time::SystemTime::now();
        let since = now
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970");
        let ends = since.as_secs_f64() + 0.5;
        json(&format!(r#"{{"result": "allow", "expires": {ends}}}"#))
    });
    let server = start(&service, "");
    let mut client = Raw::open(server.listeners()[0]);
    client.say(&login("c", Some("anna"), Some("word")));
    assert_eq!(client.hear()[3], 0);
    let disconnect = client.hear();
    let reason = ReasonCode::MaximumConnectTime.value();
    assert_eq!((disconnect[0], disconnect[2]), (0xE0, reason));
    // The answer was not kept for longer.
    assert_eq!(answer(&server, Some("anna"), Some("word")), 0);
    assert_eq!(service.count(), 2);
}

/// Class M, C: a service that hangs, drips, pours, or is not there costs the logins it decides on, and nothing else.
#[test]
fn service_that_misbehaves_costs_its_logins_and_nobody_else() {
    let service = Service::start(|_| Reply::Silence);
    let more = ", timeout = \"200ms\", breaker = { failures = 0 }";
    let mut config = asking(&service.url("/mqtt"), more);
    config.authentication.anonymous = vencejo_server::authentication::AnonymousPolicy::Loopback;
    let server = Server::start(config).expect("the Server starts");
    let canary = Canary::new(server.listeners()[0]);
    for reply in [Reply::Silence, Reply::Trickle, Reply::Flood(10 << 20)] {
        service.behave(move |_| reply.clone());
        let mut clients: Vec<Raw> = (0..100)
            .map(|n| {
                let mut client = Raw::open(server.listeners()[0]);
                client.say(&login(&format!("c{n}"), Some("anna"), Some("word")));
                client
            })
            .collect();
        canary.sing();
        for client in &mut clients {
            assert_eq!(client.hear()[3], UNAVAILABLE);
        }
        canary.sing();
    }
    let url = service.url("/mqtt");
    drop(service);
    let server = Server::start(asking(&url, more)).expect("the Server starts");
    assert_eq!(answer(&server, Some("anna"), Some("word")), UNAVAILABLE);
}

/// A service that is away is not waited for at each login, and is asked again when it is back.
#[test]
fn service_that_is_away_is_left_in_peace_and_asked_again_when_it_is_back() {
    let service = Service::start(|_| json(r#"{"result": "allow"}"#));
    let (address, url) = (service.address, service.url("/mqtt"));
    drop(service);
    let more = ", breaker = { failures = 2, pause = \"50ms\" }";
    let server = Server::start(asking(&url, more)).expect("the Server starts");
    for _ in 0..4 {
        assert_eq!(answer(&server, Some("anna"), Some("word")), UNAVAILABLE);
    }
    let service = Service::start_at(address, None, |_| json(r#"{"result": "allow"}"#));
    let mut count = 0;
    while answer(&server, Some("anna"), Some("word")) != 0 {
        count += 1;
        assert!(count < 100_000, "it is never asked again");
    }
    assert_eq!(service.count(), 1);
}

/// What the service says of one Client is said of nobody else: an answer that decides nothing opens no breaker.
#[test]
fn service_that_does_not_understand_one_client_is_asked_about_all_others() {
    let service = Service::start(|asked| match asked.body["user_name"].as_str() {
        Some("anna") => json(r#"{"result": "allow"}"#),
        Some("otto") => json(r#"{"result": "allow", "acl": "broken"}"#),
        _ => Reply::Json(422, String::new()),
    });
    let server = start(&service, ", breaker = { failures = 2, pause = \"1h\" }");
    for _ in 0..5 {
        for user in ["otto", "emil"] {
            assert_eq!(answer(&server, Some(user), Some("word")), UNAVAILABLE);
        }
    }
    assert_eq!(answer(&server, Some("anna"), Some("word")), 0);
}

/// Who has no name would share rights and Sessions with everybody without one.
#[test]
fn service_that_lets_in_nobody_by_name_lets_in_nobody() {
    let service = Service::start(|_| json(r#"{"result": "allow"}"#));
    let server = start(&service, ", cache = { allow = 0, deny = 0 }");
    assert_eq!(answer(&server, None, Some("word")), UNAVAILABLE);
    service.behave(|_| json(r#"{"result": "allow", "user": "anna"}"#));
    assert_eq!(answer(&server, None, Some("word")), 0);
}

/// Class M: what waits for its turn is small, whatever a Client shows.
#[test]
fn client_that_shows_too_much_is_not_asked_about() {
    let service = Service::start(|_| json(r#"{"result": "allow"}"#));
    let server = start(&service, "");
    let long = "\u{1}".repeat(65_000);
    assert_eq!(answer(&server, Some("anna"), Some(&long)), BAD);
    assert_eq!(service.count(), 0);
    assert_eq!(answer(&server, Some("anna"), Some(&"a".repeat(30_000))), 0);
}

#[test]
fn local_users_are_not_asked_about_and_come_in_while_the_service_is_away() {
    let temp = TempFolder::new();
    std::fs::create_dir_all(temp.path()).expect("a temporary folder");
    let file = temp.path().join("passwords");
    let hash = vencejo_server::authentication::StoredPassword::new(b"word").expect("is hashed");
    std::fs::write(&file, format!("anna:{}\n", hash.expose())).expect("is written");
    let service = Service::start(|_| json(r#"{"result": "allow"}"#));
    let mut config = asking(&service.url("/"), ", on_error = \"next\"");
    config.authentication.password_file = Some(file);
    let server = Server::start(config).expect("the Server starts");
    assert_eq!(answer(&server, Some("anna"), Some("ward")), BAD);
    assert_eq!(answer(&server, Some("anna"), Some("word")), 0);
    assert_eq!(service.count(), 0);
    assert_eq!(answer(&server, Some("otto"), Some("word")), 0);
    service.behave(|_| Reply::Json(500, String::new()));
    assert_eq!(answer(&server, Some("anna"), Some("word")), 0);
    // Left to the next one, and there is none: that says nothing of this user, and counts for no ban.
    assert_eq!(answer(&server, Some("emil"), Some("word")), UNAVAILABLE);
    assert_eq!(answer(&server, Some("anna"), Some("ward")), BAD);
}

pub(crate) fn tls_of(files: &CertificateFiles) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_file_iter(&files.certificate).expect("a file");
    let chain = chain.map(|one| one.expect("a certificate")).collect();
    let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::DEFAULT_VERSIONS)
        .expect("versions")
        .with_no_client_auth();
    Arc::new(builder.with_single_cert(chain, key).expect("fits"))
}

/// Class A: a service that somebody else plays is told no password.
#[test]
fn service_is_told_nothing_before_it_has_shown_the_right_certificate() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let files = ours.files("service", "localhost");
    let address = ([127, 0, 0, 1], 0).into();
    let service = Service::start_at(address, Some(tls_of(&files)), |_| {
        json(r#"{"result": "allow"}"#)
    });
    let secret = ours.path("secret");
    std::fs::write(&secret, "a secret\n").expect("is written");
    let more = |authority: &Authority| {
        let root = authority.path("ca.pem");
        format!(", ca = {root:?}, bearer_file = {secret:?}, breaker = {{ failures = 0 }}")
    };
    let server = start(&service, &more(&ours));
    assert_eq!(answer(&server, Some("anna"), Some("word")), 0);
    let head = service.asked().head;
    assert!(head.contains("authorization: Bearer a secret"), "{head}");
    let url = service.url("/").replace("localhost", "127.0.0.1");
    for (url, authority) in [(service.url("/"), &theirs), (url, &ours)] {
        server
            .reload(asking(&url, &more(authority)))
            .expect("is valid");
        assert_eq!(answer(&server, Some("anna"), Some("word")), UNAVAILABLE);
    }
    assert_eq!(service.count(), 1);
}

/// P17: what a service is asked with is there, or nothing starts and nothing changes.
#[test]
fn files_of_a_service_that_cannot_be_used_start_nothing_and_change_nothing() {
    let temp = TempFolder::new();
    std::fs::create_dir_all(temp.path()).expect("a temporary folder");
    let file = temp.path().join("file");
    let service = Service::start(|_| json(r#"{"result": "allow"}"#));
    let server = start(&service, "");
    for text in [None, Some(""), Some("\n"), Some("a\u{7f}b")] {
        if let Some(text) = text {
            std::fs::write(&file, text).expect("is written");
        }
        for key in ["bearer_file", "ca"] {
            let config = asking(&service.url("/"), &format!(", {key} = {file:?}"));
            let error = Server::start(config.clone()).expect_err("is refused");
            assert!(matches!(error, StartError::Authentication(_)), "{error}");
            assert!(
                error.to_string().contains(file.to_str().expect("UTF-8")),
                "{error}"
            );
            let error = server.reload(config).expect_err("is refused");
            assert!(matches!(error, ReloadError::Authentication(_)), "{error}");
        }
    }
    assert_eq!(answer(&server, Some("anna"), Some("word")), 0);
}

/// 2,000 logins at once, each decided by the service, and two Clients beside who do not notice.
#[test]
fn storm_of_logins_is_asked_about_in_turn_and_stalls_no_shard() {
    let service = Service::start(|asked| match asked.body["password"].as_str() {
        Some("word") => json(r#"{"result": "allow"}"#),
        _ => json(r#"{"result": "deny"}"#),
    });
    let mut config = asking(&service.url("/"), "");
    config.authentication.anonymous = vencejo_server::authentication::AnonymousPolicy::Loopback;
    let server = Server::start(config).expect("the Server starts");
    let address = server.listeners()[0];
    let canary = Canary::new(address);
    let mut clients: Vec<Raw> = Vec::new();
    for n in 0..2000 {
        let mut client = Raw::open(address);
        let password = if n % 10 == 0 { "ward" } else { "word" };
        client.say(&login(
            &format!("c{n}"),
            Some(&format!("user-{n}")),
            Some(password),
        ));
        clients.push(client);
        if n % 500 == 0 {
            canary.sing();
        }
    }
    for (n, client) in clients.iter_mut().enumerate() {
        let expected = if n % 10 == 0 { BAD } else { 0 };
        assert_eq!(client.hear()[3], expected, "{n}");
        if n % 500 == 0 {
            canary.sing();
        }
    }
    assert_eq!(service.count(), 2000);
    clients[1].say(&subscribe_v5("a", 0));
    clients[1].hear();
    clients[2].say(&packet(0x30, &[&string("a")[..], &[0], b"x"].concat()));
    assert!(clients[1].hear().ends_with(b"x"));
}
