//! Rules over real sockets: what a Client is told, and what a reload changes for those that are connected.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proto::packet::ReasonCode;
use store::MemoryStore;
use vencejo_server::authentication::{
    Attempt, Authentication, Authenticator, Decision, Exchange, Identity,
};
use vencejo_server::config::{self, AuthorizationConfig, Config};
use vencejo_server::{ReloadError, Server, StartError};

use crate::client::{Raw, packet, publish, string, subscribe_v5, subscribe_v311};
use crate::{config, start};

/// What the `[authorization]` in `text` says, with free ports and everything in memory.
fn with_rules(shards: u16, text: &str) -> Config {
    let parsed = config::parse(text, "test.toml".as_ref()).expect("a configuration");
    Config {
        authorization: parsed.authorization,
        ..config(shards)
    }
}

/// A configuration with this ACL file.
fn with_acl(shards: u16, acl_file: &Path) -> Config {
    Config {
        authorization: Some(AuthorizationConfig {
            acl_file: Some(acl_file.to_owned()),
            ..AuthorizationConfig::default()
        }),
        ..config(shards)
    }
}

/// A file for one test, gone with it.
struct AclFile(PathBuf);

impl AclFile {
    fn new(name: &str, text: &str) -> Self {
        let name = format!("vencejo-acl-{name}-{}", std::process::id());
        let file = Self(std::env::temp_dir().join(name));
        file.write(text);
        file
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).expect("a temporary file");
    }
}

impl Drop for AclFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

/// A PUBLISH of MQTT 5 at QoS 1.
fn publish_v5(topic: &str, packet_id: u16, payload: &[u8]) -> Vec<u8> {
    let body = [&string(topic)[..], &packet_id.to_be_bytes(), &[0], payload];
    packet(0x32, &body.concat())
}

const RULES: &str = r#"
    [[authorization.rules]]
    name = "own topics"
    effect = "allow"
    topics = ["own/${clientid}/#"]

    [[authorization.rules]]
    name = "news"
    effect = "allow"
    actions = ["subscribe"]
    topics = ["news/#"]
    qos_max = 0
"#;

#[test]
fn client_is_told_what_it_may_not_do_in_the_words_of_its_version() {
    let (_server, address) = start(with_rules(2, RULES));
    let refused = ReasonCode::NotAuthorized.value();
    let mut five = Raw::v5(address, "five", 0);
    five.say(&publish_v5("own/five/a", 1, b"x"));
    assert_eq!(
        five.hear()[..2],
        [0x40, 3],
        "PUBACK with a Reason Code: nobody has subscribed"
    );
    five.say(&publish_v5("own/other/a", 2, b"x"));
    assert_eq!(five.hear(), [0x40, 3, 0, 2, refused]);
    for (filter, code) in [
        ("own/five/#", 1),
        ("own/#", refused),
        ("news/#", 0),
        ("#", refused),
    ] {
        five.say(&subscribe_v5(filter, 1));
        let suback = five.hear();
        assert_eq!(
            (suback[0], *suback.last().expect("a code")),
            (0x90, code),
            "{filter}"
        );
    }
    let mut three = Raw::v311(address, "three");
    three.say(&publish("own/other/a", 3, b"x"));
    assert_eq!(three.hear(), [0x40, 2, 0, 3], "acknowledged, and dropped");
    three.say(&subscribe_v311("own/#", 1));
    assert_eq!(three.hear().last(), Some(&0x80));
    three.say(&publish("own/five/a", 4, b"x"));
    assert_eq!(three.hear(), [0x40, 2, 0, 4]);
    five.ping();
}

/// P11: a right revoked by a reload acts at once for everyone who is connected, and drops nobody.
#[test]
fn revoked_right_acts_at_once_for_everyone_connected() {
    let acl = AclFile::new("revoked", "topic #\n");
    let (server, address) = start(with_acl(2, &acl.0));
    let mut readers: Vec<Raw> = (0..100)
        .map(|n| Raw::v311(address, &format!("reader-{n}")))
        .collect();
    for reader in &mut readers {
        reader.subscribe("#", 0);
    }
    let mut publisher = Raw::v311(address, "publisher");
    publisher.say(&publish("b", 1, b"before"));
    assert_eq!(publisher.hear(), [0x40, 2, 0, 1]);
    for reader in &mut readers {
        assert!(reader.hear().ends_with(b"before"));
    }
    acl.write("topic a\ntopic write b\n");
    server
        .reload(with_acl(2, &acl.0))
        .expect("the file is right");
    publisher.say(&publish("b", 2, b"secret"));
    assert_eq!(publisher.hear(), [0x40, 2, 0, 2]);
    publisher.say(&publish("a", 3, b"after"));
    assert_eq!(publisher.hear(), [0x40, 2, 0, 3]);
    for reader in &mut readers {
        assert!(reader.hear().ends_with(b"after"));
    }
}

/// P17: a file that is wrong, empty or gone starts no Server, and changes nothing in one that runs.
#[test]
fn wrong_acl_file_starts_nothing_and_changes_nothing() {
    let acl = AclFile::new("wrong", "topic read a/#/b\n");
    let refused = Server::start(with_acl(2, &acl.0));
    assert!(matches!(refused, Err(StartError::Authorization(_))));
    acl.write("topic #\ntopic $SYS/#\n");
    let mut config = with_acl(2, &acl.0);
    config.sys_interval = Duration::from_millis(50);
    let (server, address) = start(config.clone());
    let mut client = Raw::v311(address, "client");
    client.subscribe("a", 0);
    for text in [Some(""), Some("topic deny #\ntopic bogus a\n"), None] {
        match text {
            Some(text) => acl.write(text),
            None => std::fs::remove_file(&acl.0).expect("it is there"),
        }
        let refused = server.reload(config.clone());
        assert!(matches!(refused, Err(ReloadError::Authorization(_))));
        client.say(&publish("a", 1, b"x"));
        let heard = [client.hear(), client.hear()];
        assert!(heard.iter().any(|packet| packet.ends_with(b"x")));
    }
    client.subscribe("$SYS/broker/alarms", 0);
    while !contains(&client.hear(), b"configuration not reloaded: ") {}
    acl.write("topic #\ntopic $SYS/#\n");
    server.reload(config).expect("the file is right again");
    while !client.hear().ends_with(b"none") {}
}

fn contains(packet: &[u8], text: &[u8]) -> bool {
    assert!(!packet.is_empty(), "the end of the stream");
    packet.windows(text.len()).any(|window| window == text)
}

#[test]
fn rule_for_a_listener_is_for_those_who_came_by_it() {
    let text = r#"
        [[listeners]]
        name = "inside"
        address = "127.0.0.1:0"
        [[listeners]]
        name = "outside"
        address = "127.0.0.1:0"
        [[authorization.rules]]
        effect = "allow"
        topics = ["a"]
        listeners = ["inside"]
    "#;
    let parsed = config::parse(text, "test.toml".as_ref()).expect("a configuration");
    let server = Server::start(Config {
        listeners: parsed.listeners,
        authorization: parsed.authorization,
        ..config(2)
    });
    let server = server.expect("the Server starts");
    for (address, code) in server.listeners().into_iter().zip([0, 0x80]) {
        // Some of them move to another shard.
        for n in 0..8 {
            let mut client = Raw::v311(address, &format!("client-{n}"));
            client.say(&subscribe_v311("a", 0));
            assert_eq!(client.hear().last(), Some(&code));
        }
    }
}

/// Takes everyone for the user whose name it gives.
#[derive(Debug)]
struct Believes;

impl Authenticator for Believes {
    fn method(&self) -> Option<&str> {
        None
    }

    fn authenticate(&self, attempt: &Attempt<'_>, _: &mut Exchange) -> Option<Decision> {
        Some(Decision::Allow {
            identity: attempt
                .user_name
                .map_or_else(Identity::anonymous, Identity::of_user),
            data: None,
        })
    }
}

/// A CONNECT with Clean Start and a User Name.
fn connect_as(user: &str, client_id: &str, version: u8) -> Vec<u8> {
    let properties: &[u8] = if version == 5 { &[0] } else { &[] };
    let body = [
        &b"\x00\x04MQTT"[..],
        &[version, 0x82, 0, 0],
        properties,
        &string(client_id),
        &string(user),
    ];
    packet(0x10, &body.concat())
}

/// P12: the Client Identifier of another user's Session is refused in the words of each version.
#[test]
fn client_identifier_of_another_user_is_refused() {
    let authentication = Authentication::new(vec![Arc::new(Believes)]);
    let server = Server::start_with(config(2), authentication, |_| MemoryStore::new());
    let server = server.expect("the Server starts");
    let address = server.listeners()[0];
    let connect = |user, version| {
        let mut client = Raw::open(address);
        client.say(&connect_as(user, "device", version));
        let code = client.hear()[3];
        (client, code)
    };
    let (mut owner, code) = connect("ann", 5);
    assert_eq!(code, 0);
    assert_eq!(connect("eve", 5).1, 0x85);
    assert_eq!(connect("eve", 4).1, 2);
    owner.ping();
    assert_eq!(connect("ann", 4).1, 0);
    // DISCONNECT: taken over.
    assert_eq!(owner.hear()[..3], [0xE0, 2, 0x8E]);
}
