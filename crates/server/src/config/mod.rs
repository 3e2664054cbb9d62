//! The configuration: text, then raw values, then a checked [`Config`], once.
//!
//! Owns: [`load`], [`parse`]. Does not own: what a limit does. Start reading at [`load`].
//! Invariant: a [`Config`] from a file is valid; a file that is not does not start a Server.

mod asking;
mod authorization;
mod checked;
mod directories;
mod effective;
mod error;
mod files;
mod http;
pub mod keys;
mod layers;
mod limit_table;
mod limits;
mod links;
mod listener_limits;
mod listeners;
mod pages;
mod quic;
mod raw;
mod storage;
mod template;
mod tls;
mod tokens;

use std::path::Path;

pub use asking::{AskConfig, OnError};
pub use authorization::AuthorizationConfig;
pub use checked::{AuthenticationConfig, Config, StopConfig};
pub use directories::{
    DirectoryServer, DirectoryUrl, LdapConfig, LdapSearch, LdapUser, RedisConfig, SqlConfig,
};
pub use effective::{Difference, Value, differences};
pub use error::{ConfigError, Problem};
pub use http::HttpConfig;
pub use layers::{Layers, Origin};
pub use limit_table::page as limits_page;
pub use limits::{FlappingLimits, Rates, ServerBounds};
pub use links::Link;
pub use listener_limits::ListenerLimits;
pub use listeners::{Address, FileAccess, ListenerConfig, Proxies, Transport, Versions};
pub use pages::{first_file, reference, schema};
pub use quic::QuicConfig;
pub use storage::{FilterLevel, Recovery, StorageConfig};
pub use template::{Placeholder, Template};
pub use tls::{CertificateFiles, ClientCertificates, TlsConfig, TlsVersion};
pub use tokens::{FetchConfig, TokenConfig, TokenKeys};

/// Reads and checks the configuration file at `path` (TOML).
/// # Errors
/// It cannot be read, or says something that cannot be; the error prints the place.
pub fn load(path: &Path) -> Result<Config, ConfigError> {
    let mut layers = Layers::new();
    layers.file(path)?;
    layers.check()
}

/// Checks the configuration `text`; `path` is where it came from, for the error.
/// # Errors
/// It says something that cannot be.
pub fn parse(text: &str, path: &Path) -> Result<Config, ConfigError> {
    let mut layers = Layers::new();
    layers.text(text, path);
    layers.check()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authentication::AnonymousPolicy;

    fn error(text: &str) -> String {
        parse(text, Path::new("vencejo.toml"))
            .expect_err("is refused")
            .to_string()
    }

    #[test]
    fn unknown_key_is_pointed_at_with_the_nearest_word() {
        let text = "shards = 2\n[limits]\nrecieve_maximum = 10\n";
        let expected = "vencejo.toml:3:1: unknown key `recieve_maximum`\n  |\n3 | recieve_maximum = 10\n  | \
                        ^^^^^^^^^^^^^^^ did you mean `receive_maximum`?";
        assert_eq!(error(text), expected);
    }

    #[test]
    fn unknown_word_is_pointed_at_with_the_nearest_word() {
        let text = "[authentication]\nanonymous = \"loopbak\"\n";
        let expected = "vencejo.toml:2:13: unknown word `loopbak`\n  |\n2 | anonymous = \"loopbak\"\n  |             \
                        ^^^^^^^^^ did you mean `loopback`?";
        assert_eq!(error(text), expected);
    }

    #[test]
    fn value_of_a_wrong_form_says_which_forms_are_right() {
        let text = "[limits]\nconnect_timeout = \"10 years\"\n";
        let expected = "vencejo.toml:2:19: invalid value: string \"10 years\", expected seconds, or a duration \
                        like \"500ms\", \"30s\", \"5m\", \"2h\", \"7d\"\n  |\n2 | connect_timeout = \"10 years\"\n  \
                        |                   ^^^^^^^^^^";
        assert_eq!(error(text), expected);
    }

    #[test]
    fn value_out_of_range_is_pointed_at() {
        let expected =
            "vencejo.toml:1:10: shards must be from 1 to 64\n  |\n1 | shards = 0\n  |          ^";
        assert_eq!(error("shards = 0"), expected);
        assert!(
            error("[limits]\nmaximum_qos = 3").contains("2:15: maximum_qos must be from 0 to 2")
        );
        assert!(error("[limits]\nreceive_maximum = 0").contains("receive_maximum must be from 1"));
    }

    #[test]
    fn moving_needs_a_place_to_move_to() {
        let expected = "vencejo.toml:2:16: server_moved needs a server_reference: where to\n  |\n2 | server_moved = \
                        true\n  |                ^^^^";
        assert_eq!(error("[stop]\nserver_moved = true\n"), expected);
    }

    #[test]
    fn one_packet_fits_the_unsent_bytes_whatever_its_size() {
        let text = "[limits]\nmaximum_packet_size_bytes = \"256MiB\"\n";
        let config = parse(text, Path::new("vencejo.toml")).expect("is valid");
        let packet = usize::try_from(config.limits.maximum_packet_size_bytes).expect("fits");
        assert!(config.bounds.unsent_bytes_max >= config.bounds.congested_bytes + packet);
    }

    #[test]
    fn broken_toml_and_wrong_addresses_are_pointed_at() {
        assert!(error("shards = \n").starts_with("vencejo.toml:1:"));
        let address = error("[[listeners]]\naddress = \"localhost\"\n");
        assert!(
            address.starts_with("vencejo.toml:2:11: invalid value: string \"localhost\""),
            "{address}"
        );
        let twice =
            "[[listeners]]\naddress = \"127.0.0.1:1\"\n[[listeners]]\naddress = \"127.0.0.1:1\"\n";
        assert!(
            error(twice).contains("127.0.0.1:1 is listed twice"),
            "{}",
            error(twice)
        );
    }

    #[test]
    fn wrong_values_are_told_in_words_of_the_file() {
        let cases = [
            (
                "shards = \"two\"",
                "expected a whole number from 0 to 65535",
            ),
            ("shards = -1", "expected a whole number from 0 to 65535"),
            (
                "[limits]\nqueued_messages_max = -5",
                "expected a whole number, 0 or more",
            ),
            ("[limits]\nretain_available = 1", "expected true or false"),
            (
                "listeners = \"127.0.0.1:1883\"",
                "expected a list: [[listeners]]",
            ),
            (
                "[listeners]\naddress = \"127.0.0.1:1883\"",
                "expected a list: [[listeners]]",
            ),
            (
                "[[listeners]]\nport = 1883",
                "unknown key `port`, expected one of name, address, tls",
            ),
            ("limits = 3", "expected a table"),
            (
                "[authentication]\nanonymous = true",
                "expected a word in quotes",
            ),
            ("receive_maximum = 10", "^ it belongs in [limits]"),
            (
                "[limits]\nshards = 2",
                "^ it belongs at the top of the file, before the first [table]",
            ),
            ("listener 1883", "^ the file is TOML: key = value"),
            (
                "[storage]\nlevels = [{ filter = \"a/#/b\", level = \"memory\" }]",
                "filter: ",
            ),
            ("[storage]\ndata = \"\"", "data must name a folder"),
            (
                "[storage]\nsegment_bytes = \"4KiB\"",
                "segment_bytes must be from 1048576",
            ),
            ("[storage]\nlevel = \"sync\"", "did you mean `synced`?"),
            (
                "[stop]\nserver_reference = \"\"",
                "server_reference must name another Server",
            ),
            (
                "[authorization]",
                "[authorization] needs an acl_file, rules or http",
            ),
            (
                "[authorization]\nacl_file = \"\"",
                "2:12: acl_file must name a file",
            ),
        ];
        for (text, expected) in cases {
            let said = error(text);
            assert!(said.contains(expected), "{text}: {said}");
        }
    }

    #[test]
    fn wrong_pattern_of_client_identifiers_is_pointed_at() {
        let cases = [
            ("patterns = []", "2:12: patterns is empty"),
            ("patterns = [\"a*b\"]", "2:13: patterns: `*` stands"),
            ("patterns = [\"${clientid}\"]", "2:13: patterns: unknown"),
            ("users = [\"ann\"]", "missing field `patterns`"),
            (
                "patterns = [\"*\"]\nlisteners = [\"lan\"]",
                "3:14: listeners: there is no such listener",
            ),
        ];
        for (text, expected) in cases {
            let said = error(&format!("[[authentication.client_ids]]\n{text}"));
            assert!(said.contains(expected), "{text}: {said}");
        }
    }

    #[test]
    fn wrong_rule_is_pointed_at() {
        let cases = [
            ("topics = [\"a/#/b\"]", "4:11: topics: "),
            (
                "topics = [\"a/${user}\"]",
                "4:11: topics: unknown placeholder `${user}`",
            ),
            (
                "topics = [\"$share/g/a\"]",
                "4:11: topics: a Shared Subscription",
            ),
            ("topics = []", "4:10: topics is empty"),
            ("name = \"x\"", "missing field `topics`"),
            ("topics = [\"a\"]\nusers = []", "5:9: users is empty"),
            (
                "topics = [\"a\"]\nusers = [\"\"]",
                "5:10: users: a name is not empty",
            ),
            (
                "topics = [\"a\"]\nlisteners = [\"lan\"]",
                "5:14: listeners: there is no such listener, only 127.0.0.1:1883",
            ),
            ("topics = [\"a\"]\nactions = []", "5:11: actions is empty"),
            (
                "topics = [\"a\"]\nactions = [\"publsh\"]",
                "did you mean `publish`?",
            ),
            (
                "topics = [\"a\"]\naddresses = [\"10.0.0.0/33\"]",
                "5:14: addresses: wanted an address",
            ),
            (
                "topics = [\"a\"]\nqos_max = 3",
                "5:11: qos_max must be from 0 to 2",
            ),
            ("topics = [\"a\"]\nuser = \"ann\"", "did you mean `users`?"),
        ];
        for (text, expected) in cases {
            let said = error(&format!(
                "[authorization]\n[[authorization.rules]]\neffect = \"allow\"\n{text}\n"
            ));
            assert!(said.contains(expected), "{text}: {said}");
        }
        let said =
            error("[[authorization.rules]]\neffect = \"deny\"\ntopics = [\"a\"]\nqos_max = 1\n");
        assert!(
            said.contains("4:11: qos_max is for rules that allow"),
            "{said}"
        );
    }

    #[test]
    fn listeners_that_would_be_less_safe_than_they_look_are_wrong() {
        let cases = [
            (
                "[[listeners]]\naddress = \"127.0.0.1:1\"\nname = \"\"",
                "name must say something",
            ),
            (
                "[[listeners]]\naddress = \"127.0.0.1:1\"\ntls = { certificate = \"a\" }",
                "a certificate needs its key",
            ),
            (
                "[[listeners]]\naddress = \"127.0.0.1:1\"\ntls = {}",
                "tls needs a certificate",
            ),
            (
                "[[listeners]]\naddress = \"127.0.0.1:1\"\n\
                 tls = { certificate = \"a\", key = \"b\", client_certificates = \"required\" }",
                "client_certificates needs a client_ca",
            ),
            (
                "[[listeners]]\naddress = \"127.0.0.1:1\"\n\
                 tls = { certificate = \"a\", key = \"b\", crl = \"c\" }",
                "crl counts for nothing",
            ),
        ];
        for (text, expected) in cases {
            let said = error(text);
            assert!(said.contains(expected), "{text}: {said}");
        }
    }

    #[test]
    fn wrong_values_of_authentication_are_told_in_words_of_the_file() {
        let cases = [
            ("password_file = \"\"", "password_file must name a file"),
            ("ban = \"0s\"", "ban must be from 1s to 30d"),
            ("failures_window = \"90d\"", "failures_window must be from"),
            ("failures_max = -1", "expected a whole number from 0"),
            (
                "tokens = { algorithms = [\"HS256\"] }",
                "tokens need a key or a jwks",
            ),
            (
                "tokens = { key = \"k\", jwks = \"k\", algorithms = [\"HS256\"] }",
                "one of the two",
            ),
            (
                "tokens = { key = \"k\", refresh = \"1h\", algorithms = [\"ES256\"] }",
                "are for a jwks that is a URL",
            ),
            (
                "tokens = { jwks = \"http://id.example/keys\", algorithms = [\"ES256\"] }",
                "2:19: this would travel in plain text",
            ),
            (
                "tokens = { jwks = \"https://id.example/\", algorithms = [\"HS256\"] }",
                "what is published is no secret",
            ),
            (
                "tokens = { jwks = \"https://id.example/\", stale_max = 0, algorithms = [\"ES256\"] }",
                "stale_max must be from",
            ),
            (
                "tokens = { key = \"k\", algorithms = [] }",
                "must name one at least",
            ),
            (
                "tokens = { key = \"k\", algorithms = [\"none\"] }",
                "algorithms are of HS256",
            ),
            (
                "tokens = { key = \"k\", algorithms = [\"HS256\", \"RS256\"] }",
                "algorithms must be of one family",
            ),
            (
                "tokens = { key = \"k\", algorithms = [\"HS256\"], rights_claim = \"\" }",
                "2:62: rights_claim must name a claim",
            ),
        ];
        for (text, expected) in cases {
            let said = error(&format!("[authentication]\n{text}"));
            assert!(said.contains(expected), "{text}: {said}");
        }
    }

    #[test]
    fn wrong_value_of_a_service_by_http_is_pointed_at() {
        let cases = [
            ("http = {}", "missing field `url`"),
            (
                "http = { url = \"auth.example\" }",
                "2:16: wanted a URL like",
            ),
            ("http = { url = \"ftp://a\" }", "2:16: wanted a URL like"),
            (
                "http = { url = \"https://me:secret@a/\" }",
                "do not belong in a URL",
            ),
            (
                "http = { url = \"http://auth.example/\" }",
                "2:16: this would travel in plain text",
            ),
            (
                "http = { url = \"http://127.0.0.1.example/\" }",
                "this would travel in plain text",
            ),
            (
                "http = { url = \"https://a\", headers = { \"a b\" = \"c\" } }",
                "this is no name of a header",
            ),
            (
                "http = { url = \"https://a\", headers = { Host = \"c\" } }",
                "2:41: this header is ours to set",
            ),
            (
                "http = { url = \"https://a\", headers = { X = \"a\\nb\" } }",
                "2:45: a header cannot hold this",
            ),
            (
                "http = { url = \"https://a\", key = \"k\" }",
                "a certificate needs its key",
            ),
            (
                "http = { url = \"https://a\", timeout = 0 }",
                "2:39: timeout must be from 10ms",
            ),
            (
                "http = { url = \"https://a\", at_once = 0 }",
                "2:39: at_once must be from 1",
            ),
            (
                "http = { url = \"https://a\", on_error = \"allow\" }",
                "unknown word `allow`",
            ),
            (
                "http = { url = \"https://a\", cache = { allow = \"2d\" } }",
                "2:47: allow must be from",
            ),
            (
                "http = { url = \"https://a\", breaker = { pause = 0 } }",
                "2:49: pause must be from",
            ),
        ];
        for (text, expected) in cases {
            let said = error(&format!("[authentication]\n{text}"));
            assert!(said.contains(expected), "{text}: {said}");
        }
    }

    #[test]
    fn service_for_rights_has_no_other_answer_than_its_own() {
        let said = error("[authorization]\nhttp = { url = \"https://a\", on_error = \"next\" }");
        assert!(said.contains("2:8: on_error is for logins"), "{said}");
    }

    #[test]
    fn wrong_value_of_a_listener_is_pointed_at() {
        let cases = [
            ("transport = \"websockets\"", "did you mean `websocket`?"),
            ("versions = []", "3:12: versions must name one at least"),
            ("proxy = []", "3:9: proxy must name one address at least"),
            (
                "transport = \"quic\"",
                "3:13: QUIC is always secured: the listener needs tls",
            ),
            (
                "quic = { keep_alive = 10 }",
                "3:8: quic is for a transport = \"quic\"",
            ),
            ("mode = \"0660\"", "3:8: mode, owner and group are for"),
            ("group = \"mqtt\"", "3:9: mode, owner and group are for"),
            ("activation = \"mqtt\"", "3:14: activation takes the place"),
            (
                "mount_point = \"a\"",
                "3:15: mount_point must be the beginning",
            ),
            (
                "mount_point = \"\"",
                "3:15: mount_point must be the beginning",
            ),
            ("mount_point = \"a/#/\"", "3:15: mount_point must be"),
            ("mount_point = \"$SYS/\"", "3:15: mount_point must be"),
            (
                "sniff = true\ntransport = \"stream\"",
                "3:9: sniff finds the transport out",
            ),
            (
                "sniff = true\ntls = { certificate = \"a\", key = \"b\", client_ca = \"c\" }",
                "3:9: sniff lets clients in without TLS",
            ),
            (
                "proxy = [\"10.0.0.0/33\"]",
                "3:10: proxy: wanted an address",
            ),
            ("versions = [\"5\"]", "did you mean `5.0`?"),
            (
                "connections_max = 0",
                "3:19: connections_max must be from 1",
            ),
        ];
        for (text, expected) in cases {
            let said = error(&format!("[[listeners]]\naddress = \"127.0.0.1:1\"\n{text}"));
            assert!(said.contains(expected), "{text}: {said}");
        }
    }

    #[test]
    fn wrong_value_of_a_unix_socket_is_pointed_at() {
        let long = format!("address = \"unix:/{}\"", "a".repeat(107));
        let cases = [
            ("address = \"unix:\"", "a Unix socket like"),
            (long.as_str(), "at most 107 bytes"),
            (
                "address = \"unix:a\"\nmode = \"888\"",
                "3:8: mode must be three digits from 0 to 7",
            ),
            (
                "address = \"unix:a\"\nmode = \"+66\"",
                "3:8: mode must be three digits from 0 to 7",
            ),
            (
                "address = \"unix:a\"\nmode = 660",
                "3:8: invalid type: integer `660`",
            ),
            (
                "address = \"unix:a\"\nmode = \"1660\"",
                "mode must be three digits",
            ),
            (
                "address = \"unix:a\"\nowner = true",
                "3:9: a name or a number",
            ),
            (
                "address = \"unix:a\"\nproxy = [\"10.0.0.1\"]",
                "3:9: proxy of a Unix socket is [\"unix\"]",
            ),
            (
                "address = \"127.0.0.1:1\"\nproxy = [\"unix\"]",
                "proxy: wanted an address",
            ),
            (
                "address = \"unix:a\"\n[[listeners]]\naddress = \"unix:a\"",
                "listener unix:a is listed twice",
            ),
            ("name = \"a\"", "a listener needs an address, or"),
            ("activation = \"\"", "2:14: activation must be the"),
            ("activation = \"a:b\"", "2:14: activation must be the"),
            (
                "activation = \"a\"\n[[listeners]]\nactivation = \"a\"",
                "listener activation:a is listed twice",
            ),
        ];
        for (text, expected) in cases {
            let said = error(&format!("[[listeners]]\n{text}"));
            assert!(said.contains(expected), "{text}: {said}");
        }
    }

    #[test]
    fn wrong_value_of_a_listener_of_quic_is_pointed_at() {
        let tls = "tls = { certificate = \"a\", key = \"b\" }\ntransport = \"quic\"";
        let cases = [
            (
                "quic = { idle_timeout = \"10ms\" }",
                "5:25: idle_timeout must be from 1s to 1d",
            ),
            (
                "quic = { idle_timeout = \"2d\" }",
                "5:25: idle_timeout must be from 1s to 1d",
            ),
            (
                "quic = { keep_alive = \"10ms\" }",
                "5:23: keep_alive must be 0 (never) or 100ms",
            ),
            (
                "quic = { keep_alive = 60 }",
                "5:23: keep_alive must be shorter than idle_timeout",
            ),
            (
                "quic = { idle_timeout = 10 }",
                "5:25: keep_alive must be shorter than idle_timeout",
            ),
            ("quic = { keepalive = 1 }", "did you mean `keep_alive`?"),
            (
                "proxy = [\"10.0.0.1\"]",
                "5:9: there is no header of the PROXY protocol before QUIC",
            ),
        ];
        for (text, expected) in cases {
            let listener = "[[listeners]]\naddress = \"127.0.0.1:1\"\n";
            let said = error(&format!("{listener}{tls}\n{text}"));
            assert!(said.contains(expected), "{text}: {said}");
        }
        let said = error(&format!("[[listeners]]\naddress = \"unix:a\"\n{tls}"));
        assert!(said.contains("QUIC needs an address and a port"), "{said}");
        let listener = |address| format!("[[listeners]]\naddress = \"{address}\"\n{tls}\n");
        let one = listener("127.0.0.1:1");
        let said = error(&format!("{one}{one}"));
        assert!(said.contains("127.0.0.1:1 is listed twice"), "{said}");
        // The ports of UDP are others than those of TCP.
        let both = format!("{one}name = \"q\"\n[[listeners]]\naddress = \"127.0.0.1:1\"");
        let both = parse(&both, "t".as_ref()).expect("is valid");
        assert_eq!(both.listeners[0].transport, Transport::Quic);
        assert_eq!(both.listeners[0].quic, QuicConfig::default());
    }

    #[test]
    fn unreadable_file_is_named() {
        let error = load(Path::new("/nowhere/vencejo.toml"))
            .expect_err("is not there")
            .to_string();
        assert!(
            error.starts_with("/nowhere/vencejo.toml: cannot be read: "),
            "{error}"
        );
    }

    #[test]
    fn empty_file_is_the_default() {
        let config = parse("", Path::new("vencejo.toml")).expect("is valid");
        assert_eq!(config, Config::default());
        assert_eq!(config.listeners, [([127, 0, 0, 1], 1883).into()]);
    }

    #[test]
    fn every_limit_can_be_set() {
        let text = include_str!("every_key.toml");
        let mut config = parse(text, Path::new("every_key.toml")).expect("is valid");
        let mut default = Config::default();
        // Lists of what has no default.
        let listeners = std::mem::take(&mut config.listeners);
        default.listeners.clear();
        let secure = listeners[1].tls.as_ref().expect("TLS");
        assert_eq!(secure.certificates.len(), 2);
        assert_eq!(secure.client_certificates, ClientCertificates::Optional);
        assert_eq!(secure.min_version, TlsVersion::Tls13);
        assert!(secure.client_ca.is_some() && secure.crl.is_some());
        assert_eq!(listeners[1].transport, Transport::WebSocket);
        assert_eq!(listeners[0].anonymous, Some(AnonymousPolicy::Never));
        assert!(listeners[0].client_id_from_user);
        let named = [Link::Http, Link::Tokens];
        assert_eq!(listeners[0].authentication.as_deref(), Some(&named[..]));
        assert_eq!(
            listeners[0].versions,
            [proto::Version::V5].into_iter().collect()
        );
        assert_eq!(listeners[0].connections_max, Some(500));
        let proxies = listeners[0].proxy.as_ref();
        let proxy = ([10, 0, 0, 1], 9).into();
        assert!(proxies.is_some_and(|proxies| proxies.contains(&proxy)));
        let address = Address::Unix("/run/vencejo/mqtt.sock".into());
        assert_eq!(listeners[2].address, address);
        let file = FileAccess {
            mode: 0o600,
            owner: Some("0".to_owned()),
            group: Some("mqtt".to_owned()),
        };
        assert_eq!(listeners[2].file, file);
        assert_eq!(listeners[2].proxy, Some(Proxies::Unix));
        assert!(listeners[3].sniff);
        assert_eq!(listeners[3].mount_point.as_deref(), Some("sites/north/"));
        assert_eq!(listeners[3].address, Address::Inherited("mqtt".to_owned()));
        assert_eq!(listeners[4].transport, Transport::Quic);
        let quic = QuicConfig {
            idle_timeout: std::time::Duration::from_secs(40),
            keep_alive: std::time::Duration::from_secs(10),
        };
        assert_eq!(listeners[4].quic, quic);
        let changed = format!("{config:?}").replace("listeners: [], ", "");
        let default = format!("{default:?}").replace("listeners: [], ", "");
        let words = |text: &str| text.split(", ").map(str::to_owned).collect::<Vec<_>>();
        for (changed, default) in words(&changed).iter().zip(words(&default)) {
            assert_ne!(*changed, default, "a key of every_key.toml changes nothing");
        }
    }
}
