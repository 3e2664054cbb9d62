//! Keys of tokens that are published by HTTP, and change.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use data_encoding::BASE64URL_NOPAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use proto::packet::ReasonCode;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};
use vencejo_server::Server;
use vencejo_server::config::{Config, parse};

use crate::authority::Authority;
use crate::client::Raw;
use crate::config;
use crate::http_logins::tls_of;
use crate::logins::{answer, login};
use crate::service::{Reply, Service};

const NOT_AUTHORIZED: u8 = ReasonCode::NotAuthorized.value();
const UNAVAILABLE: u8 = ReasonCode::ServerUnavailable.value();

/// Who signs tokens, with one key after the other.
struct Signer {
    kid: &'static str,
    pair: KeyPair,
}

impl Signer {
    fn new(kid: &'static str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
        Self { kid, pair }
    }

    /// Its public key, as it is published.
    fn jwk(&self) -> Value {
        // 0x04, then both coordinates.
        let point = self.pair.public_key_raw();
        let text = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
        json!({ "kty": "EC", "crv": "P-256", "kid": self.kid, "use": "sig",
            "x": text(&point[1..33]), "y": text(&point[33..65]) })
    }

    fn token(&self, user: &str) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.kid.to_owned());
        let claims = json!({ "sub": user, "exp": get_current_timestamp() + 3600 });
        let key = EncodingKey::from_ec_pem(self.pair.serialize_pem().as_bytes());
        encode(&header, &claims, &key.expect("a key")).expect("is signed")
    }
}

/// What is published now.
type Published = Arc<Mutex<Reply>>;

fn publish(published: &Published, signers: &[&Signer]) {
    let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
    let text = json!({ "keys": keys }).to_string();
    *published.lock().expect("no panic") = Reply::Json(200, text);
}

fn publisher(
    published: &Published,
) -> impl Fn(&crate::service::Asked) -> Reply + Send + Sync + use<> {
    let published = Arc::clone(published);
    move |_| published.lock().expect("no panic").clone()
}

/// A configuration that believes what is published at `url`, fetched as `more` says.
fn believing(url: &str, more: &str) -> Config {
    let text = format!(
        "[authentication]\nanonymous = \"never\"\n\
         tokens = {{ jwks = \"{url}\", algorithms = [\"ES256\"]{more} }}\n"
    );
    let mut config = config(2);
    config.authentication = parse(&text, "test.toml".as_ref())
        .expect("is valid")
        .authentication;
    config.authentication.bans.failures_max = 0;
    config
}

#[test]
fn keys_are_fetched_before_the_first_login_is_answered_and_follow_a_rotation() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let published = Published::new(Mutex::new(Reply::Silence));
    publish(&published, &[&old]);
    let service = Service::start(publisher(&published));
    let more = ", refresh_min = \"100ms\"";
    let server = Server::start(believing(&service.url("/keys"), more)).expect("the Server starts");
    assert_eq!(answer(&server, Some("anna"), Some(&old.token("anna"))), 0);
    assert!(service.asked().head.starts_with("GET /keys HTTP/1.1\r\n"));
    // Nobody fetches them for each login.
    for _ in 0..3 {
        assert_eq!(answer(&server, None, Some(&old.token("anna"))), 0);
    }
    assert_eq!(service.count(), 1);
    // A key that is not there is looked for, when the last look is long enough ago.
    publish(&published, &[&new]);
    let until = Instant::now() + Duration::from_secs(20);
    while answer(&server, None, Some(&new.token("anna"))) != 0 {
        assert!(Instant::now() < until, "the new key is never found");
    }
    assert_eq!(service.count(), 2);
    assert_eq!(
        answer(&server, None, Some(&old.token("anna"))),
        NOT_AUTHORIZED
    );
    assert_eq!(answer(&server, None, Some(&new.token("anna"))), 0);
}

#[test]
fn unknown_keys_fetch_no_more_often_than_is_configured() {
    let (good, other) = (Signer::new("good"), Signer::new("other"));
    let published = Published::new(Mutex::new(Reply::Silence));
    publish(&published, &[&good]);
    let service = Service::start(publisher(&published));
    let more = ", refresh_min = \"1h\"";
    let server = Server::start(believing(&service.url("/keys"), more)).expect("the Server starts");
    assert_eq!(answer(&server, None, Some(&good.token("anna"))), 0);
    for _ in 0..50 {
        assert_eq!(
            answer(&server, None, Some(&other.token("anna"))),
            NOT_AUTHORIZED
        );
    }
    assert_eq!(service.count(), 1);
    assert_eq!(answer(&server, None, Some("eyJ.b.c")), NOT_AUTHORIZED);
}

#[test]
fn keys_are_fetched_again_by_themselves_and_one_that_is_gone_counts_no_more() {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let published = Published::new(Mutex::new(Reply::Silence));
    publish(&published, &[&old, &new]);
    let service = Service::start(publisher(&published));
    let more = ", refresh = \"100ms\", refresh_min = \"1h\"";
    let server = Server::start(believing(&service.url("/keys"), more)).expect("the Server starts");
    for signer in [&old, &new] {
        assert_eq!(answer(&server, None, Some(&signer.token("anna"))), 0);
    }
    for (signers, left) in [(&[&new][..], 0), (&[], NOT_AUTHORIZED)] {
        publish(&published, signers);
        let before = service.count();
        // One that was on its way may still be of before.
        while service.count() < before + 2 {
            service.asked();
        }
        assert_eq!(
            answer(&server, None, Some(&old.token("anna"))),
            NOT_AUTHORIZED
        );
        assert_eq!(answer(&server, None, Some(&new.token("anna"))), left);
    }
}

#[test]
fn last_keys_count_while_none_can_be_fetched_but_not_for_ever_and_over_a_reload() {
    let signer = Signer::new("a");
    let published = Published::new(Mutex::new(Reply::Silence));
    publish(&published, &[&signer]);
    let service = Service::start(publisher(&published));
    let more = ", refresh = \"100ms\", refresh_min = \"100ms\"";
    let config = believing(&service.url("/keys"), more);
    let server = Server::start(config.clone()).expect("the Server starts");
    let token = signer.token("anna");
    assert_eq!(answer(&server, None, Some(&token)), 0);
    let two = format!("{{\"keys\": [{0}, {0}]}}", signer.jwk());
    let failures = [
        Reply::Json(500, String::new()),
        Reply::Json(200, "{}".to_owned()),
        Reply::Json(200, "[]".to_owned()),
        Reply::Json(200, two),
        Reply::Json(302, String::new()),
        Reply::Raw(b"HTTP/1.1 200 X\r\nContent-Length: 9\r\n\r\n{".to_vec()),
        Reply::Flood(10 << 20),
    ];
    for failure in failures {
        *published.lock().expect("no panic") = failure;
        let before = service.count();
        while service.count() < before + 2 {
            service.asked();
        }
        assert_eq!(answer(&server, None, Some(&token)), 0);
        server.reload(config.clone()).expect("is valid");
        assert_eq!(answer(&server, None, Some(&token)), 0);
    }
    let forgetful = believing(
        &service.url("/keys"),
        &format!("{more}, stale_max = \"100ms\""),
    );
    server.reload(forgetful).expect("is valid");
    assert_eq!(
        answer(&server, None, Some(&token)),
        UNAVAILABLE,
        "others know no keys yet"
    );
    publish(&published, &[&signer]);
    let until = Instant::now() + Duration::from_secs(20);
    while answer(&server, None, Some(&token)) != 0 {
        assert!(Instant::now() < until, "they are never fetched again");
    }
    *published.lock().expect("no panic") = Reply::Json(500, String::new());
    while answer(&server, None, Some(&token)) == 0 {
        assert!(Instant::now() < until, "they count for ever");
    }
    assert_eq!(answer(&server, None, Some(&token)), UNAVAILABLE);
}

/// P17: a Server whose keys cannot be fetched starts, and lets nobody in by a token.
#[test]
fn without_keys_no_token_is_good_until_they_can_be_fetched() {
    let signer = Signer::new("a");
    let published = Published::new(Mutex::new(Reply::Silence));
    publish(&published, &[&signer]);
    let service = Service::start(publisher(&published));
    let (address, url) = (service.address, service.url("/keys"));
    drop(service);
    let more = ", refresh_min = \"100ms\", timeout = \"100ms\"";
    let server = Server::start(believing(&url, more)).expect("the Server starts");
    for _ in 0..5 {
        assert_eq!(
            answer(&server, None, Some(&signer.token("anna"))),
            UNAVAILABLE
        );
    }
    let _service = Service::start_at(address, None, publisher(&published));
    let until = Instant::now() + Duration::from_secs(20);
    while answer(&server, None, Some(&signer.token("anna"))) != 0 {
        assert!(Instant::now() < until, "it is never asked again");
    }
}

/// Class A: keys are believed from who shows the right certificate only.
#[test]
fn keys_of_somebody_else_who_plays_the_publisher_are_not_believed() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let signer = Signer::new("a");
    let published = Published::new(Mutex::new(Reply::Silence));
    publish(&published, &[&signer]);
    let start = |authority: &Authority| {
        let files = authority.files("publisher", "localhost");
        let address = ([127, 0, 0, 1], 0).into();
        Service::start_at(address, Some(tls_of(&files)), publisher(&published))
    };
    let more = format!(", ca = {:?}, refresh_min = \"1h\"", ours.path("ca.pem"));
    for (authority, expected) in [(&ours, 0), (&theirs, UNAVAILABLE)] {
        let service = start(authority);
        let server = Server::start(believing(&service.url("/keys"), &more));
        let server = server.expect("the Server starts");
        assert_eq!(answer(&server, None, Some(&signer.token("anna"))), expected);
    }
}

#[test]
fn client_that_waits_for_keys_holds_nobody_up() {
    let signer = Signer::new("a");
    let published = Published::new(Mutex::new(Reply::Silence));
    let service = Service::start(publisher(&published));
    let mut config = believing(
        &service.url("/keys"),
        ", timeout = \"500ms\", refresh_min = \"100ms\"",
    );
    config.authentication.anonymous = vencejo_server::authentication::AnonymousPolicy::Loopback;
    let server = Server::start(config).expect("the Server starts");
    let mut waits: Vec<Raw> = (0..20)
        .map(|n| {
            let mut client = Raw::open(server.listeners()[0]);
            client.say(&login(&format!("w{n}"), None, Some(&signer.token("anna"))));
            client
        })
        .collect();
    for other in 0..4 {
        Raw::v5(server.listeners()[0], &format!("other-{other}"), 0).ping();
    }
    publish(&published, &[&signer]);
    // The fetch that hangs ends, or its time does; the next one brings them.
    for client in &mut waits {
        let reason = client.hear()[3];
        assert!(reason == 0 || reason == UNAVAILABLE, "{reason}");
    }
    let until = Instant::now() + Duration::from_secs(20);
    while answer(&server, None, Some(&signer.token("anna"))) != 0 {
        assert!(Instant::now() < until, "they are never fetched");
    }
}
