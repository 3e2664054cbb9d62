//! Whole files, and what becomes of each of their values.

use super::*;

fn made(text: &str) -> Taken {
    let path = Path::new("nanomq.conf");
    let mut settings = Settings::default();
    let read = match old::is_old(text) {
        true => old::read(path, text, &mut settings),
        false => hocon::read_line(path, 1, text, &Key::default(), &mut settings),
    };
    read.expect("is read");
    translate(
        settings,
        Path::new("/nowhere/nanomq.conf"),
        Path::new("/nowhere/out"),
    )
}

/// Keys that NanoMQ has.
const EVERY: &str = "system.parallel mqtt.max_packet_size mqtt.max_mqueue_len mqtt.max_inflight_window mqtt.retry_interval \
    mqtt.keepalive_multiplier mqtt.property_size mqtt.session.allow_anonymous mqtt.session.max_packet_size listeners.tcp.bind \
    listeners.tcp.enable listeners.tcp.x.bind listeners.ssl.bind listeners.ssl.verify_peer listeners.ws.bind listeners.wss.bind \
    auth.allow_anonymous auth.no_match auth.deny_action auth.cache.ttl auth.password.admin auth.acl.rules auth.acl.enable \
    auth.http_auth.auth_req.url auth.http_auth.timeout authorization.sources bridges.mqtt.x.server http_server.port webhook.url \
    log.level sqlite.disk_cache_size";
/// The same of lines before 0.14.
const EVERY_OLD: &str = "url daemon num_taskq_thread max_packet_size client_max_packet_size msq_len qos_duration keepalive_backoff \
    allow_anonymous acl_enable acl_nomatch enable_acl_cache acl_cache_ttl acl_deny_action tls.enable tls.url tls.keyfile \
    websocket.enable websocket.url websocket.tls_url http_server.enable auth.1.login auth.1.password auth.http.enable \
    auth.http.auth_req.url bridge.mqtt.x.address web.hook.enable log.to what_is_this";

#[test]
fn no_value_goes_without_a_row_whatever_it_is() {
    let values = [
        "\"\"",
        "true",
        "false",
        "0",
        "1",
        "-1",
        "x",
        "5s",
        "1MB",
        "\"a\\\"b\"",
        "127.0.0.1:1883",
        "deny",
        "http://x/y",
    ];
    let nested = [
        "[]",
        "{}",
        "[a, b]",
        "[{permit = allow}]",
        "[{permit = deny, topics = [\"a/#/b\"]}]",
        "${x}",
    ];
    for key in EVERY.split_whitespace() {
        for value in values.iter().chain(&nested) {
            check(&format!("{key} = {value}"), key, 1);
        }
    }
    for key in EVERY_OLD.split_whitespace() {
        for value in values {
            check(&format!("daemon=false\n{key}={value}"), key, 2);
        }
    }
}

fn check(text: &str, key: &str, line: usize) {
    let taken = made(text);
    let place = format!("nanomq.conf:{line}");
    let row = taken.rows.iter().find(|row| row.place == place);
    assert!(
        row.is_some_and(|row| row.option.starts_with(key)),
        "{text}: {:#?}",
        taken.rows
    );
    // A file that it names need not be there, but the form is right.
    let parsed = server::config::parse(&taken.toml, Path::new("t"));
    assert!(parsed.is_ok(), "{text}: {}", parsed.unwrap_err());
}

#[test]
fn the_form_of_a_file_is_told_by_its_keys() {
    for (text, is_old) in [
        ("url=nmq-tcp://0.0.0.0:1883\n", true),
        ("# x\nacl.rule.1={\"permit\": \"allow\"}\n", true),
        ("auth.1.login = a\n", true),
        ("mqtt.max_packet_size = 1KB\n", false),
        ("url = x\nlisteners.tcp {\n}\n", false),
        ("auth { allow_anonymous = true }\n", false),
        ("", false),
    ] {
        assert_eq!(old::is_old(text), is_old, "{text:?}");
    }
}

/// Lines that say more at once, beside all of the others.
const LINES: &[&str] = &[
    "listeners.tcp.\"a\\nb\" { bind = \"0.0.0.0:0\" }",
    "listeners.ssl { bind = \"0.0.0.0:1\", certfile = c, keyfile = k }",
    "listeners.ssl { verify_peer = true, cacertfile = ca }",
    "listeners.wss.bind = \"0.0.0.0:2/mqtt\"",
    "auth.password { a = b }",
    "auth.password.\"c:d\" = e",
    "auth.no_match = deny",
    "auth.allow_anonymous = false",
    "auth.acl.rules = [{permit = allow, topics = [\"a/${username}\"]}]",
    "auth.acl.rules += {permit = deny, ipaddr = x}",
    "auth.http_auth.auth_req.url = \"http://a.example/\"",
    "authorization.sources = [{type = simple, users = [{username = a, password = b}]}]",
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
        "\"127.0.0.1:1\"",
        "deny",
    ];
    let mut seed: u64 = 0x5eed;
    let mut draw = |of: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).expect("is small") % of
    };
    for round in 0..150 {
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
            let place = format!("nanomq.conf:{number}");
            assert!(
                taken.rows.iter().any(|row| row.place == place),
                "{number}: {text}"
            );
        }
    }
}

const NOTHING: &str = "effect = \"deny\"\ntopics = [\"#\", \"$SYS/#\"]";

#[test]
fn rules_of_which_none_is_left_allow_nothing_where_no_match_denies() {
    for rules in [
        "rules = [{permit = allow, username = a, topics = [\"${ip}/x\"]}]",
        "rules = [{permit = alow, username = a}]",
        "rules = [{permit = allow, action = read}]",
    ] {
        let taken = made(&format!("auth {{ no_match = deny, acl {{ {rules} }} }}"));
        let is_closed = taken.toml.contains(NOTHING) && !taken.toml.contains("effect = \"allow\"");
        assert!(is_closed, "{rules}: {}", taken.toml);
    }
}

/// Those rules that allow, and whether one denies everything.
fn allowed(text: &str) -> (usize, bool) {
    let taken = made(text);
    let allow = taken.toml.matches("effect = \"allow\"").count();
    (allow, taken.toml.contains(NOTHING))
}

#[test]
fn a_rule_of_which_something_is_not_known_allows_nothing() {
    for (rules, expected) in [
        // One that allows is no rule, and those behind it are.
        (
            "[{permit = allow, username = ${A}, topics = [\"#\"]}]",
            (0, true),
        ),
        ("[{permit = allow, topics = [\"joe/a\", ${T}]}]", (0, true)),
        (
            "[{permit = allow, or = [{username = ${A}}, {username = b}]}]",
            (0, true),
        ),
        (
            "[{permit = allow, and = [{username = ${A}}, {clientid = b}]}]",
            (0, true),
        ),
        (
            "[{permit = allow, username = ${A}}, {permit = allow, username = b}]",
            (1, false),
        ),
        // One that may deny denies everything.
        (
            "[{permit = ${X}, username = a}, {permit = allow, username = b}]",
            (1, true),
        ),
        (
            "[{permit = deny, action = ${X}}, {permit = allow, username = b}]",
            (1, true),
        ),
        ("[${X}, {permit = allow, username = b}]", (1, true)),
        ("${R}", (0, true)),
    ] {
        let text = format!("auth {{ no_match = deny, acl.rules = {rules} }}");
        assert_eq!(allowed(&text), expected, "{rules}");
        let taken = made(&text);
        let denies = taken.toml.find(NOTHING);
        let allows = taken.toml.find("effect = \"allow\"");
        assert!(
            denies.is_none() || allows.is_none_or(|at| Some(at) > denies),
            "{rules}"
        );
        assert!(taken.toml.contains("anonymous"), "{rules}");
    }
    for text in [
        "auth.acl.enable = ${X}",
        "auth = ${X}",
        "auth.acl = ${X}",
        "authorization.sources = ${X}",
        "authorization.sources = [{type = ${X}, rules = [{permit = deny}]}]",
        "authorization.sources = [{type = file, rules = ${X}}]",
        "auth { include \"/nowhere/x.conf\" }",
        "include \"/nowhere/x.conf\"",
    ] {
        let taken = made(text);
        let first = taken
            .toml
            .find("[[authorization.rules]]")
            .map(|at| &taken.toml[at..]);
        let is_closed =
            first.is_some_and(|rules| rules.lines().nth(2) == Some("effect = \"deny\""));
        assert!(is_closed && allowed(text).1, "{text}: {}", taken.toml);
        let why = "nothing is allowed";
        assert!(taken.rows.iter().any(|row| row.why.contains(why)), "{text}");
    }
}

#[test]
fn a_file_that_cannot_be_read_lets_in_nobody_without_proof() {
    // A folder is nothing that anybody can read, be it root.
    let taken = made("include \"/\"\nauth { allow_anonymous = true }");
    assert!(
        taken.toml.contains("anonymous = \"never\""),
        "{}",
        taken.toml
    );
    assert!(taken.toml.contains(NOTHING), "{}", taken.toml);
}

#[test]
fn within_others_a_client_identifier_is_looked_at_first() {
    let rule = |who: &str| made(&format!("auth.acl.rules = [{{permit = allow, {who}}}]")).toml;
    let within = rule("or = [{username = a, clientid = b}]");
    assert!(
        within.contains("client_ids = [\"b\"]") && !within.contains("users = "),
        "{within}"
    );
    let within = rule("and = [{ipaddr = \"10.0.0.1\", username = a}]");
    assert!(
        within.contains("users = [\"a\"]") && !within.contains("addresses = "),
        "{within}"
    );
    let above = rule("username = a, clientid = b");
    assert!(
        above.contains("users = [\"a\"]") && !above.contains("client_ids = "),
        "{above}"
    );
}

#[test]
fn a_websocket_does_not_open_with_what_is_not_known_of_the_tls_that_it_takes() {
    let ssl = "bind = \"127.0.0.1:1\", certfile = c, keyfile = k";
    for (more, own, opens) in [
        ("", "", true),
        (", verify_peer = ${V}", "", false),
        (", fail_if_no_peer_cert = ${V}", "", false),
        (", include \"/\"", "", false),
        // It does not matter where nothing of it is taken.
        (", verify_peer = ${V}", ", verify_peer = false", true),
        (", handshake_timeout = ${V}", "", true),
    ] {
        let text = format!(
            "listeners.ssl {{ {ssl}{more} }}\nlisteners.wss {{ bind = \"127.0.0.1:2\"{own} }}"
        );
        let taken = made(&text);
        assert_eq!(
            taken.toml.contains("name = \"wss\""),
            opens,
            "{text}: {}",
            taken.toml
        );
    }
}
