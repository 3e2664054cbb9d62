//! Configurations of NanoMQ, imported and served: what they meant is what happens.
//!
//! Owns: one file for each group of settings that people use, and what a client sees of it. Does not own: every key (unit tests),
//! what runs (see `imported`). Start reading at any test. Invariant: every process and folder ends with its test.

use std::os::unix::fs::PermissionsExt;

use crate::imported::{Imported, certificates};
use crate::program::{TempFolder, run, text};

const DOOR: &str = "listeners.tcp { bind = \"127.0.0.1:0\" }\n";

fn served(folder: TempFolder, conf: &str) -> Imported {
    Imported::serving("nanomq", folder, &format!("{DOOR}{conf}"))
}

#[test]
fn everybody_gets_in_and_limits_are_limits() {
    let conf = "system { num_taskq_thread = 0, parallel = 0 }\nmqtt {\n  max_packet_size = 1KB\n  max_mqueue_len = 2048\n\
                  retry_interval = 10s\n  keepalive_multiplier = 1.25\n  property_size = 32\n}\nauth { allow_anonymous = true }\nno.such.key = 1\n";
    let served = served(TempFolder::new(), conf);
    assert!(served.takes(0, "-t a"));
    assert!(served.takes(0, "-t a -u whoever -P whatever"));
    assert!(!served.takes(0, &format!("-t a -m {}", "y".repeat(1100))));
    assert!(served.toml.contains("queued_messages_max = 2048"));
    served.assert_row(
        "mqtt.max_packet_size = 1KB",
        "kept",
        "maximum_packet_size_bytes",
    );
    served.assert_row("keepalive_multiplier", "changed", "one and a half");
    served.assert_row("allow_anonymous = true", "kept", "always");
    served.assert_row("no.such.key = 1", "ignored", "nothing like it");
}

#[test]
fn users_of_an_included_file_get_in_with_their_passwords() {
    let folder = TempFolder::new();
    folder.write(
        "nanomq_pwd.conf",
        "# users\nadmin: public\n\"the client\": hidden\n",
    );
    let conf =
        "auth {\n  allow_anonymous = false\n  password = {include \"DIR/nanomq_pwd.conf\"}\n}\n";
    let served = served(folder, conf);
    assert!(served.takes(0, "-t a -u admin -P public"));
    assert_eq!(served.publish(0, "-t a -u admin -P wrong").0, 134);
    assert_eq!(served.publish(0, "-t a").0, 135);
    assert!(!served.table.contains("hidden") && !served.toml.contains("hidden"));
    served.assert_row("nanomq_pwd.conf:2", "kept", "admin");
    served.assert_row("allow_anonymous = false", "kept", "never");
    let written = served.folder.join("out/nanomq.passwords");
    let mode = written.metadata().expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(
        !served
            .folder
            .read("out/nanomq.passwords")
            .contains("hidden")
    );
}

#[test]
fn rules_are_kept() {
    let folder = TempFolder::new();
    folder.write("pwd.conf", "anna: a\notto: o\n");
    folder.write(
        "acl.conf",
        "rules = [\n  # one\n  {\"permit\": \"allow\", \"username\": \"anna\", \"action\": \"publish\", \"topics\": [\"own/${username}/#\", \"in\"]}\n\
         {\"permit\": \"deny\", \"and\": [{\"username\": \"otto\"}, {\"ipaddr\": \"127.0.0.1\"}], \"action\": \"pubsub\", \"topics\": [\"news/#\"]}\n\
         {\"permit\": \"deny\", \"username\": \"#\", \"action\": \"subscribe\", \"topics\": [\"$SYS/#\"]}\n\
         {\"permit\": \"allow\", \"username\": \"otto\"}\n  {\"permit\": \"perhaps\"}\n]\n",
    );
    let conf = "auth {\n  allow_anonymous = false, no_match = deny, deny_action = ignore, cache = { max_size = 32, ttl = 1m }\n\
                  password = {include \"pwd.conf\"}\n  acl = {include \"acl.conf\"}\n}\n";
    let served = served(folder, conf);
    assert!(served.takes(0, "-t own/anna/x -u anna -P a"));
    assert!(!served.takes(0, "-t own/otto/x -u anna -P a"));
    assert!(served.takes(0, "-t anything -u otto -P o"));
    assert!(!served.takes(0, "-t news/1 -u otto -P o"));
    served.assert_row("permit = perhaps", "ignored", "no rule either");
    served.assert_row("auth.cache.ttl", "ignored", "asked each time");
}

#[test]
fn rules_in_erlang_are_kept_and_missing_ones_allow_nothing() {
    let folder = TempFolder::new();
    folder.write(
        "acl.conf",
        "%% rules\n{deny, all, publish, [\"locked\"]}.\n{allow, all}.\n",
    );
    let erlang = served(
        folder,
        "auth { allow_anonymous = true, acl = {include \"acl.conf\"} }\n",
    );
    assert!(erlang.takes(0, "-t any"));
    assert!(!erlang.takes(0, "-t locked"));
    erlang.assert_row("acl.conf:2", "kept", "authorization.rules");
    let missing = served(
        TempFolder::new(),
        "auth.acl = {include \"not-there.conf\"}\n",
    );
    assert!(!missing.takes(0, "-t any"));
    missing.assert_row("not-there.conf", "ignored", "nothing is allowed");
}

#[test]
fn an_included_file_without_rules_allows_nothing_where_no_match_denies() {
    let folder = TempFolder::new();
    folder.write("acl.conf", "%% nothing\n");
    let empty = served(
        folder,
        "auth { no_match = deny, acl = {include \"acl.conf\"} }\n",
    );
    assert!(!empty.takes(0, "-t a"));
    empty.assert_row("no_match = deny", "kept", "denied");
}

#[test]
fn tls_is_shared_by_websockets() {
    let folder = TempFolder::new();
    certificates(&folder);
    let conf = "listeners.ssl {\n  bind = \"127.0.0.1:0\"\n  keyfile = \"tls/server.key\"\n  certfile = \"DIR/tls/server.pem\"\n\
                  cacertfile = \"tls/ca.pem\"\n  verify_peer = true\n  fail_if_no_peer_cert = true\n}\nlisteners.wss { bind = \"127.0.0.1:0/mqtt\" }\n";
    let served = Imported::serving("nanomq", folder, conf);
    assert_eq!(served.ports.len(), 2);
    assert_eq!(
        served
            .toml
            .matches("client_certificates = \"required\"")
            .count(),
        2
    );
    let path = |name: &str| served.folder.path(&format!("tls/{name}"));
    let ca = format!("-t a --cafile {}", path("ca.pem"));
    assert!(!served.takes(0, &ca));
    assert!(served.takes(
        0,
        &format!(
            "{ca} --cert {} --key {}",
            path("client.pem"),
            path("client.key")
        )
    ));
}

#[test]
fn listeners_can_have_names_and_be_turned_off() {
    let conf = "listeners.tcp.one { bind = \"127.0.0.1:0\" }\nlisteners.tcp.two { bind = \"127.0.0.1:0\" }\nlisteners.ws { enable = false, bind = \"0.0.0.0:8083/mqtt\" }\n\
                listeners.ssl { bind = \"0.0.0.0:8883\", keyfile = \"k\", certfile = \"c\", key_password = hidden }\n";
    let served = Imported::serving("nanomq", TempFolder::new(), conf);
    assert_eq!(served.ports.len(), 2);
    assert!(served.toml.contains("name = \"tcp:two\"") && !served.toml.contains("8083"));
    served.assert_row("listeners.ws.bind", "ignored", "not enabled");
    served.assert_row("listeners.ssl.bind", "ignored", "without a password");
    assert!(!served.table.contains("hidden"));
}

#[test]
fn a_service_is_asked_by_http() {
    let conf = "auth {\n  allow_anonymous = true\n  http_auth = {\n    auth_req { url = \"http://127.0.0.1:1/mqtt/auth\", method = post\n\
                  headers.content-type = \"application/x-www-form-urlencoded\", params = {clientid = \"%c\", username = \"%u\", password = \"%P\"} }\n\
                  super_req { url = \"http://127.0.0.1:1/super\", method = post }\n    timeout = 2s\n    pool_size = 4\n  }\n}\n";
    let served = served(TempFolder::new(), conf);
    assert_eq!(served.publish(0, "-t a -u anna -P secret").0, 136);
    assert_eq!(served.publish(0, "-t a").0, 135);
    served.assert_row("auth_req.url", "changed", "authentication.http");
    served.assert_row("allow_anonymous = true", "changed", "never");
}

#[test]
fn lines_of_before_0_14_are_read() {
    let conf = "## old\nurl=nmq-tcp://127.0.0.1:0\nnum_taskq_thread=4\nmax_packet_size=1\nmsq_len=64\nallow_anonymous=false\ntls.enable=false\n\
                tls.url=tls+nmq-tcp://0.0.0.0:8883\ntls.keyfile=/etc/certs/key.pem\nwebsocket.enable=false\n\
                websocket.url=nmq-ws://0.0.0.0:8083/mqtt\nwebsocket.tls_url=nmq-wss://0.0.0.0:8084/mqtt\n\
                auth.1.login = admin\nauth.1.password = hidden\nacl_enable=true\nacl_nomatch=deny\n\
                acl.rule.1={\"permit\": \"allow\", \"username\": \"admin\", \"action\": \"publish\", \"topics\": [\"in/#\"]}\nauth.http.enable = false\n\
                auth.http.auth_req.url = http://127.0.0.1:80/mqtt/auth\nbridge.mqtt.emqx.address=mqtt-tcp://broker.example:1883\n\
                bridge.mqtt.emqx.password=hidden\nno_such_key=1\n";
    let served = Imported::serving("nanomq", TempFolder::new(), conf);
    assert_eq!(served.ports.len(), 1);
    assert!(served.takes(0, "-t in/1 -u admin -P hidden"));
    assert!(!served.takes(0, "-t out -u admin -P hidden"));
    assert_eq!(served.publish(0, "-t in/1").0, 135);
    assert!(served.toml.contains("maximum_packet_size_bytes = 1024"));
    served.assert_row("url = nmq-tcp", "kept", "listens at");
    served.assert_row("websocket.tls_url", "ignored", "not enabled");
    served.assert_row(
        "bridge.mqtt.emqx.address",
        "ignored",
        "bridges are not there yet",
    );
    served.assert_row("no_such_key = 1", "ignored", "nothing like it");
    assert!(!served.table.contains("hidden"), "{}", served.table);
}

#[test]
fn sources_of_0_14_are_read() {
    let conf = "mqtt.session { allow_anonymous = false, max_packet_size = 10 }\nauthorization {\n  no_match = deny\n  sources = [\n\
                  { type = simple, enable = true, users = [{username = \"anna\", password = \"a\"}] }\n\
                  { type = file, enable = true, rules = [{\"permit\": \"allow\", \"topics\": [\"in\"]}] }\n\
                  { type = http, enable = false, url = \"http://x\" }\n  ]\n}\n";
    let served = served(TempFolder::new(), conf);
    assert!(served.takes(0, "-t in -u anna -P a"));
    assert!(!served.takes(0, "-t out -u anna -P a"));
    assert_eq!(served.publish(0, "-t in").0, 135);
    assert!(served.toml.contains("maximum_packet_size_bytes = 10240"));
}

#[test]
fn bridges_and_the_rest_are_named() {
    let conf = "bridges.mqtt.cloud {\n  server = \"mqtt-tcp://mqtt.example:1883\"\n  username = me\n  password = hidden\n  forwards = [{ remote_topic = \"a\", local_topic = \"b\" }]\n}\n\
                http_server { port = 8081, username = admin, password = hidden }\nwebhook { url = \"http://127.0.0.1:80\", events = [{event = \"on_client_connack\"}] }\n\
                sqlite { disk_cache_size = 102400 }\nlog { to = [file, console], level = warn, rotation { size = 10MB } }\n";
    let served = served(TempFolder::new(), conf);
    assert!(served.takes(0, "-t a"));
    for (row, why) in [
        ("bridges.mqtt.cloud.server", "\"cloud\", is left out"),
        ("bridges.mqtt.cloud.forwards", "of a bridge"),
        ("http_server.port", "no HTTP API"),
        ("webhook.url", "nothing like it"),
        ("sqlite.disk_cache_size", "on the disk already"),
        ("log.rotation.size", "standard error"),
    ] {
        served.assert_row(row, "ignored", why);
    }
    assert!(!served.table.contains("hidden"));
}

#[test]
fn what_is_not_known_of_users_lets_nobody_in() {
    let missing = served(
        TempFolder::new(),
        "auth { allow_anonymous = true, password = {include \"not-there.conf\"} }\n",
    );
    assert_eq!(missing.publish(0, "-t a").0, 135);
    missing.assert_row("allow_anonymous = true", "changed", "never");
    let unknown = served(TempFolder::new(), "auth.allow_anonymous = ${ANYBODY}\n");
    assert_eq!(unknown.publish(0, "-t a").0, 135);
    let folder = TempFolder::new();
    let wrong = folder.write("nanomq.conf", "mqtt {\n");
    let refused = run(&["import", "nanomq", &wrong]);
    assert_eq!(refused.status.code(), Some(78));
    assert!(
        text(&refused.stderr).contains("nanomq.conf:1:6: this object has no end"),
        "{}",
        text(&refused.stderr)
    );
}
