//! Rights that a token brings along, over sockets.

use serde_json::{Value, json};
use vencejo_server::config::{self, Config};

use crate::client::{Raw, connect_flags_v5, packet, string, subscribe_v5};
use crate::durable::TempFolder;
use crate::{config, start};

const SECRET: &str = "a secret that is long enough to be one";

/// A token of `ann` for an hour, with these rights.
pub(crate) fn token(rights: Option<&Value>) -> String {
    use jsonwebtoken::{EncodingKey, Header, encode, get_current_timestamp};
    let mut claims = json!({ "sub": "ann", "exp": get_current_timestamp() + 3600 });
    if let Some(rights) = rights {
        claims["acl"] = rights.clone();
    }
    let key = EncodingKey::from_secret(SECRET.as_bytes());
    encode(&Header::default(), &claims, &key).expect("is signed")
}

/// Tokens with rights in `acl`, and these rules.
pub(crate) fn with_tokens(temp: &TempFolder, rules: &str) -> Config {
    std::fs::create_dir_all(temp.path()).expect("a temporary folder");
    let file = temp.path().join("key");
    std::fs::write(&file, SECRET).expect("is written");
    let text = format!(
        "[authentication.tokens]\nkey = {file:?}\nalgorithms = [\"HS256\"]\nrights_claim = \"acl\"\n{rules}"
    );
    let parsed = config::parse(&text, "test.toml".as_ref()).expect("a configuration");
    Config {
        authentication: parsed.authentication,
        authorization: parsed.authorization,
        ..config(2)
    }
}

fn auth_properties(token: &str) -> Vec<u8> {
    let properties = [&[0x15][..], &string("JWT"), &[0x16], &string(token)].concat();
    let len = properties.len();
    assert!((128..16384).contains(&len));
    let head = [
        u8::try_from(len & 0x7F).expect("7 bits") | 0x80,
        u8::try_from(len >> 7).expect("few"),
    ];
    [&head[..], &properties].concat()
}

/// Connects with `token` by AUTH; the client, and the Reason Code.
fn connect(address: std::net::SocketAddr, token: &str) -> (Raw, u8) {
    let body = [
        &b"\x00\x04MQTT\x05\x02\x00\x00"[..],
        &auth_properties(token),
        &string("client"),
    ];
    let mut client = Raw::open(address);
    client.say(&packet(0x10, &body.concat()));
    let code = client.hear()[3];
    (client, code)
}

fn subscribed(client: &mut Raw, filter: &str) -> u8 {
    client.say(&subscribe_v5(filter, 0));
    *client.hear().last().expect("a code")
}

fn publish_v5(topic: &str, payload: &[u8]) -> Vec<u8> {
    packet(0x30, &[&string(topic)[..], &[0], payload].concat())
}

/// A rule that is first stands above the token, another one below it, and what neither allows is denied.
#[test]
fn token_says_what_its_user_may_do_between_the_rules_of_the_file() {
    let temp = TempFolder::new();
    let rules = r#"
        [[authorization.rules]]
        effect = "deny"
        topics = ["plant/locked/#"]
        first = true
        [[authorization.rules]]
        effect = "deny"
        topics = ["plant/own/#"]
        [[authorization.rules]]
        effect = "allow"
        topics = ["common"]
    "#;
    let (_server, address) = start(with_tokens(&temp, rules));
    let rights = json!([{"effect": "allow", "topics": ["plant/#", "$SYS/#"]}]);
    let (mut client, code) = connect(address, &token(Some(&rights)));
    assert_eq!(code, 0);
    for (filter, code) in [
        ("plant/own/a", 0),
        ("plant/locked/a", 0x87),
        ("common", 0),
        ("other", 0x87),
        ("$SYS/broker/uptime", 0),
    ] {
        assert_eq!(subscribed(&mut client, filter), code, "{filter}");
    }
    // Without rights in it a token allows nothing by itself.
    let (mut client, code) = connect(address, &token(None));
    assert_eq!(code, 0);
    assert_eq!(subscribed(&mut client, "common"), 0);
    assert_eq!(subscribed(&mut client, "plant/own/a"), 0x87);
}

/// Where there are no rules, who has a token may do what it says, and a Client without one everything, as before.
#[test]
fn without_rules_a_token_limits_its_user() {
    let temp = TempFolder::new();
    let (_server, address) = start(with_tokens(&temp, ""));
    for (rights, code) in [
        (Some(json!({"sub": ["a/#", "$SYS/#"]})), 0),
        (Some(json!([])), 0x87),
        (None, 0x87),
    ] {
        let (mut client, connack) = connect(address, &token(rights.as_ref()));
        assert_eq!(connack, 0);
        assert_eq!(subscribed(&mut client, "a/+"), code, "{rights:?}");
        assert_eq!(subscribed(&mut client, "b"), 0x87);
        assert_eq!(subscribed(&mut client, "$SYS/broker/uptime"), 0x87);
    }
    let mut anonymous = Raw::v5(address, "anonymous", 0);
    assert_eq!(subscribed(&mut anonymous, "b"), 0);
}

/// Class F: a token whose rights are not understood lets nobody in, whether it comes by AUTH or in Password.
#[test]
fn token_whose_rights_are_not_understood_is_refused() {
    let temp = TempFolder::new();
    let (_server, address) = start(with_tokens(&temp, ""));
    let bad = token(Some(&json!([{"effect": "allow", "topics": ["a/#/b"]}])));
    assert_eq!(connect(address, &bad).1, 0x87);
    let mut client = Raw::open(address);
    client.say(&connect_flags_v5(
        0xC2,
        "client",
        0,
        &[],
        &[string("ann"), string(&bad)].concat(),
    ));
    assert_eq!(client.hear()[3], 0x87);
    let good = token(Some(&json!({"all": ["a/#"]})));
    let mut client = Raw::open(address);
    client.say(&connect_flags_v5(
        0xC2,
        "client",
        0,
        &[],
        &[string("ann"), string(&good)].concat(),
    ));
    assert_eq!(client.hear()[3], 0);
    assert_eq!(subscribed(&mut client, "a/b"), 0);
}

/// Verifies [MQTT-4.12.1-1]; P11: a token that is shown by a re-authentication takes the place of the old one with
/// all it allowed, and one that is not understood ends the connection.
#[test]
fn rights_of_a_new_token_count_at_once() {
    let temp = TempFolder::new();
    let (_server, address) = start(with_tokens(&temp, ""));
    let both = token(Some(&json!({"all": ["#"]})));
    let (mut client, _) = connect(address, &both);
    assert_eq!(subscribed(&mut client, "#"), 0);
    let again = |rights: &Value| {
        let token = token(Some(rights));
        packet(0xF0, &[&[0x19][..], &auth_properties(&token)].concat())
    };
    client.say(&again(&json!({"all": ["a"]})));
    let auth = client.hear();
    assert_eq!((auth[0], auth[2]), (0xF0, 0), "{auth:?}");
    let mut publisher = Raw::v5(address, "publisher", 0);
    for topic in ["b", "a"] {
        publisher.say(&publish_v5(topic, topic.as_bytes()));
    }
    assert!(client.hear().ends_with(b"a"));
    assert_eq!(subscribed(&mut client, "#"), 0x87);
    client.say(&again(&json!("everything")));
    let disconnect = client.hear();
    assert_eq!((disconnect[0], disconnect[2]), (0xE0, 0x87));
    assert!(client.is_at_end());
}

/// P12: who may use a Client Identifier is said by the user that is proven; 3.x hears 2.
#[test]
fn client_identifier_that_is_not_for_this_user_is_refused() {
    let temp = TempFolder::new();
    let rule = "[[authentication.client_ids]]\nanonymous = false\npatterns = [\"${username}\", \"${username}-*\"]\n";
    let (_server, address) = start(with_tokens(&temp, rule));
    let token = token(None);
    let connack = |version: u8, client_id: &str| {
        let properties: &[u8] = if version == 5 { &[0] } else { &[] };
        let secret = [string("ann"), string(&token)].concat();
        let body = [
            &b"\x00\x04MQTT"[..],
            &[version, 0xC2, 0, 0],
            properties,
            &string(client_id),
            &secret,
        ];
        let mut client = Raw::open(address);
        client.say(&packet(0x10, &body.concat()));
        client.hear()[3]
    };
    for (client_id, five, three) in [
        ("ann", 0, 0),
        ("ann-2", 0, 0),
        ("ann-2/3", 0x85, 2),
        ("eve", 0x85, 2),
        ("", 0x85, 2),
    ] {
        assert_eq!(connack(5, client_id), five, "{client_id}");
        assert_eq!(connack(4, client_id), three, "{client_id}");
    }
    Raw::v5(address, "anonymous", 0).ping();
}
