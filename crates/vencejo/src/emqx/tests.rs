//! Whole files, and what becomes of each of their values.

use std::path::Path;

use super::*;

fn made(text: &str) -> Taken {
    let mut settings = Settings::default();
    hocon::read_line(
        Path::new("emqx.conf"),
        1,
        text,
        &Key::default(),
        &mut settings,
    )
    .expect("is HOCON");
    translate(
        settings,
        &["/nowhere/emqx.conf".into()],
        Path::new("/nowhere/out"),
    )
}

/// Keys that EMQX 5 has, but for those that need another one beside them to be told from nonsense.
const EVERY: &str = "mqtt.idle_timeout mqtt.max_packet_size mqtt.max_clientid_len mqtt.max_topic_levels mqtt.max_qos_allowed \
    mqtt.max_topic_alias mqtt.retain_available mqtt.wildcard_subscription mqtt.shared_subscription mqtt.shared_subscription_strategy \
    mqtt.exclusive_subscription mqtt.ignore_loop_deliver mqtt.strict_mode mqtt.response_information mqtt.server_keepalive \
    mqtt.keepalive_multiplier mqtt.max_subscriptions mqtt.upgrade_qos mqtt.max_inflight mqtt.retry_interval mqtt.max_awaiting_rel \
    mqtt.await_rel_timeout mqtt.session_expiry_interval mqtt.max_mqueue_len mqtt.mqueue_priorities mqtt.mqueue_default_priority \
    mqtt.mqueue_store_qos0 mqtt.use_username_as_clientid mqtt.peer_cert_as_username mqtt.peer_cert_as_clientid \
    retainer.enable retainer.msg_expiry_interval retainer.max_payload_size retainer.backend.max_retained_messages \
    retainer.backend.storage_type retainer.stop_publish_clear_msg flapping_detect.enable flapping_detect.max_count \
    flapping_detect.window_time flapping_detect.ban_time sys_topics.sys_msg_interval sys_topics.sys_heartbeat_interval \
    durable_sessions.enable node.data_dir node.name cluster.name log.console.level authorization.no_match \
    authorization.deny_action authorization.cache.enable authorization.sources authentication authentication.1.mechanism \
    authentication.1.backend authentication.1.url listeners.tcp.default listeners.tcp.x.bind listeners.tcp.default.enable \
    listeners.tcp.default.max_connections listeners.tcp.default.max_conn_rate listeners.tcp.default.messages_rate \
    listeners.tcp.default.bytes_rate listeners.tcp.default.mountpoint listeners.tcp.default.proxy_protocol \
    listeners.tcp.default.access_rules listeners.tcp.default.enable_authn listeners.tcp.default.authentication \
    listeners.tcp.default.zone listeners.tcp.default.tcp_options.nodelay listeners.ssl.x.ssl_options.verify \
    listeners.ws.default.websocket.mqtt_path listeners.quic.x.idle_timeout bridges.mqtt.x.server zones.x.mqtt.max_inflight";

#[test]
fn no_value_goes_without_a_row_whatever_it_is() {
    for value in [
        "\"\"",
        "true",
        "false",
        "0",
        "1",
        "-1",
        "x",
        "5s",
        "1MB",
        "infinity",
        "disabled",
        "[]",
        "{}",
        "[a, b]",
        "[{a = 1}]",
        "${x}",
        "\"10/s\"",
        "\"deny 10.0.0.0/8\"",
        "18446744073709551616",
        "\"a\\nb\\\"c\"",
        "\"site/\"",
        "cn",
        "allow",
    ] {
        for key in EVERY.split_whitespace() {
            let taken = made(&format!("{key} = {value}"));
            let row = taken.rows.iter().find(|row| row.place == "emqx.conf:1");
            assert!(
                row.is_some_and(|row| row.option.starts_with(key)),
                "{key} = {value}: {:#?}",
                taken.rows
            );
            // A file that it names need not be there, but the form is right.
            let parsed = server::config::parse(&taken.toml, Path::new("t"));
            assert!(parsed.is_ok(), "{key} = {value}: {}", parsed.unwrap_err());
        }
    }
}

#[test]
fn whatever_authentication_is_nobody_gets_in_without_proof_unless_it_is_off() {
    for (text, word) in [
        ("", "always"),
        ("authentication = []", "always"),
        (
            "authentication = [{mechanism = jwt, enable = false}]",
            "always",
        ),
        ("authentication = ${x}", "never"),
        ("authentication = what", "never"),
        ("authentication { include \"not-there\" }", "never"),
        ("authentication = [{mechanism = gssapi}]", "never"),
        (
            "authentication = [{mechanism = jwt, from = username, secret = x}]",
            "never",
        ),
        (
            "authentication.1.mechanism = scram\nauthentication.1.backend = built_in_database",
            "never",
        ),
        (
            "authentication = [{mechanism = password_based, backend = http, url = \"http://127.0.0.1/\", precondition = \"a\"}]",
            "never",
        ),
    ] {
        let taken = made(text);
        let line = format!("[authentication]\nanonymous = {word:?}");
        let is_there =
            taken.toml.contains(&line) || taken.toml.contains(&format!("\nanonymous = {word:?}\n"));
        assert!(is_there, "{text}: {}", taken.toml);
    }
}

#[test]
fn a_source_that_cannot_be_asked_lets_those_behind_it_allow_nothing() {
    let rules = "rules = \"{deny, all, publish, [\\\"a\\\"]}. {allow, all}.\"";
    let whole = made(&format!(
        "authorization.sources = [{{type = file, {rules}}}]"
    ));
    assert_eq!(
        whole.toml.matches("effect = \"allow\"").count(),
        2,
        "{}",
        whole.toml
    );
    let cut = made(&format!(
        "authorization.sources = [{{type = mongodb}}, {{type = file, {rules}}}]"
    ));
    assert_eq!(
        cut.toml.matches("effect = \"allow\"").count(),
        0,
        "{}",
        cut.toml
    );
    assert_eq!(
        cut.toml.matches("effect = \"deny\"").count(),
        1,
        "{}",
        cut.toml
    );
    let off = made(&format!(
        "authorization.sources = [{{type = mongodb, enable = false}}, {{type = file, {rules}}}]"
    ));
    assert_eq!(
        off.toml.matches("effect = \"allow\"").count(),
        2,
        "{}",
        off.toml
    );
    let wrong = made("authorization.sources = [{type = file, path = \"/nowhere/acl.conf\"}]");
    assert!(
        wrong
            .toml
            .contains("effect = \"deny\"\ntopics = [\"#\", \"$SYS/#\"]"),
        "{}",
        wrong.toml
    );
}

#[test]
fn a_file_that_cannot_be_read_lets_in_nobody_without_proof_and_allows_nothing() {
    // A folder is nothing that anybody can read, be it root.
    for text in ["", "authentication = []\n", "authorization.sources = []\n"] {
        let taken = made(&format!("{text}include \"/\""));
        assert!(
            taken.toml.contains("anonymous = \"never\""),
            "{text}: {}",
            taken.toml
        );
        assert!(
            !taken.toml.contains("effect = \"allow\""),
            "{text}: {}",
            taken.toml
        );
        assert!(
            taken.toml.contains("effect = \"deny\""),
            "{text}: {}",
            taken.toml
        );
    }
}

#[test]
fn a_password_file_is_that_of_one_database_and_its_superusers_those_of_all_listeners() {
    let folder = std::env::temp_dir().join(format!("vencejo-emqx-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    for name in ["one", "two"] {
        let users = format!("user_id,password,is_superuser\n{name},secret,true\n");
        std::fs::write(folder.join(name), users).expect("is written");
    }
    let database = |name: &str| {
        let file = match name {
            "" => String::new(),
            name => format!(", bootstrap_file = {:?}", folder.join(name)),
        };
        format!("[{{mechanism = password_based, backend = built_in_database{file}}}]")
    };
    let of = |all: &str, own: &str| {
        made(&format!(
            "authentication = {}\nlisteners.tcp.default.authentication = {}",
            database(all),
            database(own)
        ))
    };
    let files = |taken: &Taken| {
        taken
            .files
            .iter()
            .filter(|(path, _)| path.ends_with("emqx.passwords"))
            .count()
    };
    let both = of("one", "two");
    assert_eq!(files(&both), 1, "{:?}", both.files);
    assert!(both.toml.contains("users = [\"one\"]"), "{}", both.toml);
    let is_said = both
        .rows
        .iter()
        .any(|row| row.why.contains("another authenticator has it"));
    assert!(is_said, "{:#?}", both.rows);
    // Users that are made anew would get in where those of the file do.
    let is_refused = |taken: &Taken| {
        taken
            .rows
            .iter()
            .any(|row| row.why.contains("nobody gets in by it"))
    };
    assert!(is_refused(&of("one", "")) && is_refused(&of("", "two")) && !is_refused(&of("", "")));
    // A rule holds at all listeners.
    let own = made(&format!(
        "listeners.tcp.default.authentication = {}",
        database("two")
    ));
    assert_eq!(files(&own), 1);
    assert!(!own.toml.contains("superusers of EMQX"), "{}", own.toml);
    std::fs::remove_dir_all(&folder).expect("is there");
}

/// Users in a database, and rights by SQL there behind the source that is `first`.
#[cfg(feature = "postgres")]
fn rights_behind(first: &str) -> String {
    let taken = made(&format!(
        "authentication = [{{mechanism = password_based, backend = postgresql, server = \"127.0.0.1:5432\", database = d, username = u, password = p,\
         query = \"SELECT password_hash FROM users WHERE name = ${{username}}\", password_hash_algorithm {{ name = plain, salt_position = disable }} }}]\n\
         authorization {{ no_match = deny, sources = [{first}, {{type = postgresql, server = \"127.0.0.1:5432\", database = d, username = u, password = p,\
         query = \"SELECT permission, action, topic FROM rights WHERE name = ${{username}}\"}}] }}"
    ));
    taken.toml
}

#[test]
#[cfg(feature = "postgres")]
fn what_denies_everything_stands_before_rights_by_sql() {
    let allows = "{type = file, rules = \"{allow, all, publish, [\\\"a\\\"]}.\"}";
    assert!(
        rights_behind(allows).contains("rights_query"),
        "{}",
        rights_behind(allows)
    );
    for source in [
        "{type = file, path = \"/nowhere/acl.conf\"}",
        "{type = file, rules = \"{deny, {ipaddr, \\\"nowhere\\\"}, all, [\\\"a\\\"]}.\"}",
    ] {
        let toml = rights_behind(source);
        let first = "effect = \"deny\"\ntopics = [\"#\", \"$SYS/#\"]\nfirst = true";
        assert!(toml.contains(first), "{source}: {toml}");
    }
}

/// The rules that an acl.conf with this one rule becomes, without their names.
fn rules(text: &str) -> String {
    let text = text.replace('"', "\\\"");
    let taken = made(&format!(
        "authorization {{ no_match = deny, sources = [{{type = file, rules = \"{text}\"}}] }}"
    ));
    let at = taken
        .toml
        .find("[[authorization.rules]]")
        .unwrap_or(taken.toml.len());
    taken.toml[at..]
        .replace("[[authorization.rules]]\nname = \"rules:1\"\n", "")
        .trim()
        .to_owned()
}

#[test]
fn rules_that_cannot_be_said_allow_less_and_deny_more() {
    for (rule, expected) in [
        (
            "{allow, {user, \"a\"}, all, [\"t\"]}.",
            "effect = \"allow\"\ntopics = [\"t\"]\nusers = [\"a\"]",
        ),
        (
            "{deny, {user, {re, \"^a.*\"}}, all, [\"t\"]}.",
            "effect = \"deny\"\ntopics = [\"t\"]",
        ),
        (
            "{deny, {user, {re, \"^a-1$\"}}, all, [\"t\"]}.",
            "effect = \"deny\"\ntopics = [\"t\"]\nusers = [\"a-1\"]",
        ),
        (
            "{deny, all, {publish, {qos, 1}}, [\"t\"]}.",
            "effect = \"deny\"\nactions = [\"publish\"]\ntopics = [\"t\"]",
        ),
        (
            "{deny, all, publish, [\"x/${cert_subject}/y\"]}.",
            "effect = \"deny\"\nactions = [\"publish\"]\ntopics = [\"x/+/y\"]",
        ),
        (
            "{allow, all, subscribe, [{eq, \"a/#\"}]}.",
            "effect = \"allow\"\nactions = [\"subscribe\"]\ntopics = [\"a/#\"]",
        ),
        (
            "{allow, {'and', [{user, \"a\"}, {'or', [{client, \"b\"}, {client, \"c\"}]}]}, all, [\"t\"]}.",
            "effect = \"allow\"\ntopics = [\"t\"]\nusers = [\"a\"]\nclient_ids = [\"b\"]\n\neffect = \"allow\"\ntopics = [\"t\"]\nusers = [\"a\"]\nclient_ids = [\"c\"]",
        ),
    ] {
        assert_eq!(rules(rule), expected, "{rule}");
    }
}

#[test]
fn rules_that_cannot_be_kept_leave_nothing_allowed() {
    // Nothing is left of these, and what no rule allows is denied.
    for rule in [
        "{allow, {user, {re, \"^a.*\"}}, all, [\"t\"]}.",
        "{allow, all, {publish, [{qos, 1}]}, [\"t\"]}.",
        "{allow, all, publish, [\"${cert_subject}\"]}.",
        "{allow, {'and', [{user, \"a\"}, {user, \"b\"}]}, all, [\"t\"]}.",
        "{allow, all, publish, [\"a/#/b\"]}.",
        "{allow, {ipaddr, \"nowhere\"}, all, [\"t\"]}.",
    ] {
        assert_eq!(
            rules(rule),
            "[[authorization.rules]]\nname = \"no_match = deny\"\neffect = \"deny\"\ntopics = [\"#\", \"$SYS/#\"]",
            "{rule}"
        );
    }
    // A file that is not understood is no file.
    for rule in [
        "{allow}.",
        "{perhaps, all}.",
        "{allow, all, all, \"t\"}.",
        "{allow, all",
    ] {
        assert!(
            made(&format!(
                "authorization {{ no_match = deny, sources = [{{type = file, rules = \"{}\"}}] }}",
                rule.replace('"', "\\\"")
            ))
            .toml
            .contains("effect = \"deny\""),
            "{rule}"
        );
    }
}

/// Lines that say more at once, beside all of the others.
const LINES: &[&str] = &[
    "listeners.tcp.\"a\\nb\".bind = 0",
    "listeners.ssl.x { bind = 0, ssl_options { certfile = c, keyfile = k } }",
    "listeners.ssl.x.ssl_options.verify = verify_peer",
    "listeners.ssl.x.ssl_options.cacertfile = ca",
    "authentication = [{mechanism = password_based, backend = built_in_database}]",
    "authentication.1 { mechanism = jwt, secret = \"a secret of more than thirty-two bytes\" }",
    "authentication.2 { mechanism = password_based, backend = http, url = \"http://a.example/\", headers { X = y } }",
    "authentication.3 { mechanism = password_based, backend = redis, server = r, cmd = \"HMGET a:${username} password_hash\" }",
    "authentication.4 { mechanism = password_based, backend = mysql, server = m, query = \"SELECT password_hash FROM t WHERE a = ${username}\" }",
    "authentication.5 { mechanism = password_based, backend = ldap, server = l, base_dn = \"uid=${username},dc=x\" }",
    "listeners.tcp.default.authentication = [{mechanism = scram, backend = built_in_database}]",
    "listeners.ws.default.authentication = [{mechanism = jwt, use_jwks = true, endpoint = \"http://h/k\"}]",
    "authorization.sources = [{type = file, rules = \"{allow, all}.\"}]",
    "authorization.sources.2 { type = http, url = \"https://a.example/\" }",
    "authorization.no_match = deny",
    "mqtt.use_username_as_clientid = true",
    "mqtt.peer_cert_as_username = cn",
];

#[test]
fn whatever_is_said_together_is_a_configuration() {
    let keys: Vec<&str> = EVERY.split_whitespace().collect();
    let values = [
        "true",
        "false",
        "0",
        "7",
        "x",
        "5s",
        "1MB",
        "[]",
        "{}",
        "${x}",
        "\"10/s\"",
        "\"127.0.0.1:1\"",
        "disabled",
    ];
    let mut seed: u64 = 0x5eed;
    let mut draw = |of: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).expect("is small") % of
    };
    for round in 0..300 {
        let mut text = String::new();
        for _ in 0..round % 12 {
            let line = match draw(2) {
                0 => LINES[draw(LINES.len())].to_owned(),
                _ => format!(
                    "{} = {}",
                    keys[draw(keys.len())],
                    values[draw(values.len())]
                ),
            };
            text.push_str(&line);
            text.push('\n');
        }
        let taken = made(&text);
        let parsed = server::config::parse(&taken.toml, Path::new("t"));
        assert!(
            parsed.is_ok(),
            "{text}: {}: {}",
            parsed.unwrap_err(),
            taken.toml
        );
        for number in 1..=text.lines().count() {
            let place = format!("emqx.conf:{number}");
            assert!(
                taken.rows.iter().any(|row| row.place == place),
                "{number}: {text}"
            );
        }
    }
}
