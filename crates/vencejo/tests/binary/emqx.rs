//! Configurations of EMQX, imported and served: what they meant is what happens.
//!
//! Owns: one file for each group of settings that people use, and what a client sees of it. Does not own: every key (unit tests),
//! what runs (see `imported`). Start reading at any test. Invariant: every process and folder ends with its test.

use crate::imported::{Imported, certificates, write};
use crate::program::{TempFolder, run, succeeded, text};

/// One listener over TCP, and none of those that EMQX has by itself.
const DOOR: &str =
    "listeners.tcp.default.bind = \"127.0.0.1:0\"\nlisteners.ws.default.enable = false\n";

/// Where the test has no rules, there is an acl.conf that allows everything: without one nothing would be.
fn served(folder: TempFolder, conf: &str) -> Imported {
    serving(folder, &format!("{DOOR}{conf}"))
}

/// The same with the listeners of the test.
fn serving(folder: TempFolder, conf: &str) -> Imported {
    if !folder.join("acl.conf").exists() {
        folder.write("acl.conf", "{allow, all}.\n");
    }
    Imported::serving("emqx", folder, conf)
}

#[test]
fn without_authentication_everybody_gets_in_and_limits_are_limits() {
    let conf = "mqtt {\n  max_packet_size = 200B\n  max_inflight = 7\n  max_mqueue_len = 50\n  session_expiry_interval = 2h\n\
                  retain_available = false\n  wildcard_subscription = true\n}\nflapping_detect.enable = false\nno.such.key = 1\n";
    let served = served(TempFolder::new(), conf);
    assert!(served.takes(0, "-t a"));
    assert!(served.takes(0, "-t a -u whoever -P whatever"));
    assert!(!served.takes(0, &format!("-t a -m {}", "y".repeat(300))));
    assert!(!served.takes(0, "-t a -r"));
    for line in [
        "maximum_inflight_messages = 7",
        "receive_maximum = 7",
        "queued_messages_max = 50",
        "overflow_policy = \"drop-oldest\"",
        "session_expiry_3x_seconds = 7200",
        "flapping_max = 0",
    ] {
        assert!(served.toml.contains(line), "{line}: {}", served.toml);
    }
    served.assert_row(
        "mqtt.max_packet_size = 200B",
        "kept",
        "maximum_packet_size_bytes",
    );
    served.assert_row("no.such.key = 1", "ignored", "nothing like it");
    served.assert_row("(no authentication)", "kept", "always");
}

#[test]
fn without_its_acl_conf_nothing_is_allowed() {
    let alone = Imported::serving("emqx", TempFolder::new(), DOOR);
    assert!(!alone.takes(0, "-t a"));
    alone.assert_row(
        "(no authorization.sources)",
        "changed",
        "nothing is allowed",
    );
    let none = format!("{DOOR}authorization.sources = []\n");
    let none = Imported::serving("emqx", TempFolder::new(), &none);
    assert!(none.takes(0, "-t a"));
}

#[test]
fn rules_beside_it_are_kept() {
    let folder = TempFolder::new();
    folder.write(
        "acl.conf",
        "%% of this machine\n{deny, {ipaddr, \"127.0.0.1\"}, publish, [\"locked/#\"]}.\n\
         {deny, {ipaddr, \"10.0.0.0/8\"}, all, [\"far\"]}.\n{allow, {clientid, {re, \"^dev-1$\"}}, publish, [\"only/${clientid}\"]}.\n\
         {deny, all, publish, [\"only/#\"]}.\n{allow, {username, {re, \"^x.*\"}}, all, [\"#\"]}.\n{deny, all, subscribe, [\"$SYS/#\", {eq, \"#\"}]}.\n{allow, all}.\n",
    );
    let served = served(folder, "authorization.no_match = deny\n");
    assert!(served.takes(0, "-t any"));
    assert!(served.takes(0, "-t far"));
    assert!(!served.takes(0, "-t locked/1"));
    assert!(served.takes(0, "-t only/dev-1 -i dev-1"));
    assert!(!served.takes(0, "-t only/dev-1 -i dev-2"));
    served.assert_row("acl.conf:2", "kept", "authorization.rules");
    served.assert_row("acl.conf:6", "ignored", "cannot be told by a name");
    served.assert_row("acl.conf:7", "changed", "a subscription to just #");
}

/// Hashes of `secret` and `word` with the salt `peppercorn`, made by Python as EMQX makes them.
const USERS: &str = "user_id,password_hash,salt,is_superuser\nanna,0c15af1387effe4b43477b7baaf568a30c0f35acbf8687f01feaf6897c3fc79cdaa9b36009400182e12ca8adffed22be27bd9cb8748c86dbdf387dfc88e522ce,peppercorn,false\nroot,0c15af1387effe4b43477b7baaf568a30c0f35acbf8687f01feaf6897c3fc79cdaa9b36009400182e12ca8adffed22be27bd9cb8748c86dbdf387dfc88e522ce,peppercorn,true\n\
                     short,00ff,peppercorn,false\n";

#[test]
fn users_of_a_bootstrap_file_get_in_with_their_passwords() {
    let folder = TempFolder::new();
    folder.write("users.csv", USERS);
    folder.write(
        "acl.conf",
        "{allow, {user, \"anna\"}, publish, [\"own/${username}/#\"]}.\n",
    );
    let conf = "authentication = [{\n  mechanism = password_based, backend = built_in_database\n  user_id_type = username\n\
                  password_hash_algorithm { name = sha512, salt_position = suffix }\n  bootstrap_file = \"${EMQX_ETC_DIR}/users.csv\"\n\
                  bootstrap_type = hash\n}]\nauthorization { no_match = deny, deny_action = disconnect, cache.enable = true }\n";
    let served = served(folder, conf);
    assert!(served.takes(0, "-t own/anna/1 -u anna -P secret"));
    assert!(!served.takes(0, "-t other -u anna -P secret"));
    assert!(served.takes(0, "-t other -u root -P secret"));
    assert_eq!(served.publish(0, "-t own/anna/1 -u anna -P wrong").0, 134);
    assert_eq!(served.publish(0, "-t own/anna/1 -u short -P secret").0, 134);
    assert_eq!(served.publish(0, "-t own/anna/1").0, 135);
    served.assert_row("user \"short\"", "ignored", "vencejo user add \"short\"");
    served.assert_row(
        "deny_action = disconnect",
        "changed",
        "nobody is disconnected",
    );
    let (file, again) = (served.folder.path("emqx.conf"), served.folder.path("out"));
    assert_eq!(
        run(&["import", "emqx", &file, "-o", &again]).status.code(),
        Some(1)
    );
}

#[test]
fn pbkdf2_is_verified_and_what_is_not_lets_nobody_in() {
    let folder = TempFolder::new();
    folder.write("users.json", r#"[{"user_id": "otto", "password_hash": "b1da919a2b40f9903ea55da61156bd6bc7ef7b8cd478a161459a1092f3b56fed", "salt": "peppercorn"}]"#);
    let conf = "authentication = {\n  mechanism = password_based, backend = built_in_database\n\
                  password_hash_algorithm { name = pbkdf2, mac_fun = sha256, iterations = 1000 }\n  bootstrap_file = \"etc/users.json\"\n}\n";
    let otto = served(folder, conf);
    assert!(otto.takes(0, "-t a -u otto -P word"));
    assert_eq!(otto.publish(0, "-t a -u otto -P other").0, 134);
    let conf = "authentication = [{mechanism = password_based, backend = mongodb, server = \"127.0.0.1:27017\"}]\n";
    let nobody = served(TempFolder::new(), conf);
    assert_eq!(nobody.publish(0, "-t a").0, 135);
    nobody.assert_row("backend = mongodb", "ignored", "nobody gets in by it");
}

/// Of `anna`, until 2100, signed by HS256 with [`SECRET`]; she may publish below `own`.
const TOKEN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ1c2VybmFtZSI6ImFubmEiLCJleHAiOjQxMDI0NDQ4MDAsImFjbCI6eyJwdWIiOlsib3duLyMiXSwic3ViIjpbXSwiYWxsIjpbXX19.6HpanTSDLSyPC1LdxfyGTpQkYmLvPR32YE4nx4050Ok";
const SECRET: &str = "a secret of more than thirty-two bytes";

#[test]
fn tokens_let_in_and_say_what_may_be_done() {
    let conf = format!(
        "authentication = [{{\n  mechanism = jwt, from = password, algorithm = \"hmac-based\", secret = \"{SECRET}\"\n\
           verify_claims {{ username = \"${{username}}\" }}\n}}]\nauthorization {{ no_match = deny, sources = [] }}\n"
    );
    let served = served(TempFolder::new(), &conf);
    assert!(served.takes(0, &format!("-t own/1 -u anna -P {TOKEN}")));
    assert!(!served.takes(0, &format!("-t other -u anna -P {TOKEN}")));
    assert!(!served.takes(0, &format!("-t own/1 -u otto -P {TOKEN}")));
    assert!(!served.takes(0, "-t own/1 -u anna -P no.to.ken"));
    assert!(!served.table.contains(SECRET), "{}", served.table);
    assert_eq!(served.folder.read("out/emqx.token.secret"), SECRET);
    served.assert_row("verify_claims.username", "kept", "user_claim");
}

#[test]
fn services_are_asked_by_http_and_nobody_gets_in_while_they_do_not_answer() {
    let conf = "authentication = [{\n  mechanism = password_based, backend = http, method = post\n  url = \"http://127.0.0.1:1/auth?id=1\"\n\
                  body { username = \"${username}\" }\n  headers { \"Content-Type\" = \"application/json\", Authorization = \"Bearer hidden\" }\n\
                  request_timeout = 2s, pool_size = 8\n}]\n\
                authorization { no_match = deny, sources = [{ type = http, method = post, url = \"http://127.0.0.1:1/acl\" }] }\n";
    let served = served(TempFolder::new(), conf);
    assert_eq!(served.publish(0, "-t a -u anna -P secret").0, 136);
    assert!(!served.table.contains("hidden"), "{}", served.table);
    assert_eq!(served.folder.read("out/emqx.http.bearer"), "hidden");
    served.assert_row("authentication.1.body.username", "changed", "client_id");
    served.assert_row(
        "authentication.1.headers.Authorization = ***",
        "kept",
        "bearer_file",
    );
}

#[test]
#[cfg(all(
    feature = "postgres",
    feature = "mysql",
    feature = "redis",
    feature = "ldap"
))]
fn databases_are_asked_where_they_were() {
    let conf = "authentication = [\n\
      { mechanism = password_based, backend = postgresql, server = \"127.0.0.1:1\", database = mqtt, username = me, password = hidden\n\
        password_hash_algorithm { name = sha512, salt_position = suffix }\n\
        query = \"SELECT password_hash, salt, is_superuser FROM mqtt_user WHERE username = ${username} LIMIT 1\" }\n\
      { mechanism = password_based, backend = mysql, server = \"127.0.0.1:1\", database = mqtt, username = me, password = hidden\n\
        query = \"SELECT password_hash FROM mqtt_user WHERE username = ${username}\" }\n\
      { mechanism = password_based, backend = redis, server = \"127.0.0.1:1\", database = 1, password = hidden\n\
        cmd = \"HMGET mqtt:${username} password_hash salt is_superuser\" }\n\
      { mechanism = password_based, backend = ldap, server = \"127.0.0.1:1\", username = \"cn=root,dc=x\", password = hidden\n\
        base_dn = \"uid=${username},ou=people,dc=x\", filter = \"(objectClass=mqttUser)\", method { type = bind } }\n]\n\
      authorization { no_match = deny, sources = [{ type = postgresql, server = \"127.0.0.1:1\", database = mqtt\n\
        query = \"SELECT permission, action, topic FROM mqtt_acl WHERE username = ${username}\" }] }\n";
    let served = served(TempFolder::new(), conf);
    assert_eq!(served.publish(0, "-t a -u anna -P secret").0, 136);
    assert_eq!(served.publish(0, "-t a").0, 135);
    assert!(!served.table.contains("hidden") && !served.toml.contains("hidden"));
    assert_eq!(served.folder.read("out/emqx.ldap.password"), "hidden");
    for part in [
        "postgres://me@127.0.0.1:1/mqtt",
        "$6$",
        "rights_query",
        "name_there AS username",
        "key = \"mqtt:${username}\"",
        "(&(uid=${username})(objectClass=mqttUser))",
    ] {
        assert!(served.toml.contains(part), "{part}: {}", served.toml);
    }
    served.assert_row("password_hash_algorithm.name", "kept", "verified here");
    served.assert_row(
        "(no authentication.2.password_hash_algorithm)",
        "changed",
        "nobody gets in",
    );
}

#[test]
fn tls_asks_for_certificates_where_it_did() {
    let folder = TempFolder::new();
    certificates(&folder);
    let conf = "listeners.tcp.default.enable = false\nlisteners.ws.default.enable = false\nlisteners.ssl.default {\n  bind = \"127.0.0.1:0\"\n  ssl_options {\n\
                  certfile = \"etc/tls/server.pem\", keyfile = \"${EMQX_ETC_DIR}/tls/server.key\", cacertfile = \"tls/ca.pem\"\n\
                  verify = verify_peer, fail_if_no_peer_cert = true, versions = [\"tlsv1.3\", \"tlsv1.2\"], ciphers = []\n  }\n}\n";
    let served = serving(folder, conf);
    assert_eq!(served.ports.len(), 1);
    let path = |name: &str| served.folder.path(&format!("tls/{name}"));
    let ca = format!("-t a --cafile {}", path("ca.pem"));
    assert!(!served.takes(0, &ca));
    let shown = format!(
        "{ca} --cert {} --key {}",
        path("client.pem"),
        path("client.key")
    );
    assert!(served.takes(0, &shown), "{:?}", served.publish(0, &shown));
    served.assert_row("fail_if_no_peer_cert", "kept", "required");
    served.assert_row("ssl_options.ciphers", "ignored", "ciphers");
}

#[test]
fn a_listener_that_would_be_less_safe_is_left_out() {
    let conf = "listeners.ssl.crl { bind = 0, ssl_options { certfile = \"a\", keyfile = \"b\", cacertfile = \"c\", verify = verify_peer, enable_crl_check = true } }\n\
                listeners.ssl.locked { bind = 0, ssl_options { certfile = \"a\", keyfile = \"b\", password = hidden } }\n\
                listeners.tcp.tenant { bind = 0, mountpoint = \"${username}/\" }\nlisteners.tcp.unknown.bind = ${PORT}\n";
    let served = served(TempFolder::new(), conf);
    assert_eq!(served.ports.len(), 1);
    for row in [
        "ssl.crl.bind",
        "ssl.locked.bind",
        "tcp.tenant.bind",
        "tcp.unknown.bind",
    ] {
        served.assert_row(row, "ignored", "left out");
    }
    assert!(!served.table.contains("hidden"));
    served.assert_row("(no listeners.wss.default)", "ignored", "8084");
}

#[test]
fn who_may_not_come_from_somewhere_is_refused() {
    let conf = "listeners.tcp.default.access_rules = [\"deny 127.0.0.1\", \"allow all\"]\n";
    let refused = served(TempFolder::new(), conf);
    assert_eq!(refused.publish(0, "-t a").0, 133);
    let conf = "listeners.tcp.default.access_rules = [\"allow 127.0.0.0/8\", \"deny all\"]\nlisteners.tcp.default.max_conn_rate = \"100/s\"\n";
    let allowed = served(TempFolder::new(), conf);
    assert!(allowed.takes(0, "-t a"));
    allowed.assert_row("access_rules", "changed", "client_ids");
    allowed.assert_row("max_conn_rate", "kept", "connect_rate_max = 100");
}

#[test]
fn topics_of_a_mount_point_are_below_it() {
    let conf = "listeners.tcp.site { bind = \"127.0.0.1:0\", mountpoint = \"site/\" }\n";
    let served = served(TempFolder::new(), conf);
    assert!(served.takes(1, "-t a -r"));
    let output = run(&[
        "sub",
        "-p",
        &served.ports[0],
        "-t",
        "site/#",
        "-C",
        "1",
        "-W",
        "20",
        "-v",
    ]);
    assert_eq!(text(&output.stdout), "site/a x\n");
}

#[test]
#[cfg(feature = "quic")]
fn quic_and_websocket_are_transports() {
    let folder = TempFolder::new();
    certificates(&folder);
    let conf = "listeners.ws.default { bind = \"127.0.0.1:0\", websocket.mqtt_path = \"/mqtt\" }\nlisteners.tcp.default.bind = \"127.0.0.1:0\"\n\
                listeners.quic.fast { bind = \"127.0.0.1:0\", keep_alive_interval = 10s\n\
                  ssl_options { certfile = \"tls/server.pem\", keyfile = \"tls/server.key\" } }\n";
    let served = serving(folder, conf);
    assert!(served.takes(0, "-t a"));
    assert!(
        served.toml.contains("transport = \"quic\"")
            && served.toml.contains("keep_alive = \"10s\"")
    );
    served.assert_row("listeners.ws.default.bind", "kept", "ws:default");
}

#[test]
fn what_else_emqx_does_is_named() {
    let conf = "include \"more.conf\"\nbridges.mqtt.cloud { server = \"mqtt.example:1883\", password = hidden }\nrule_engine { ignore_sys_message = true }\n\
                gateway.stomp.enable = true\ndashboard.listeners.http.bind = 18083\nnode.cookie = hidden\n\
                cluster.discovery_strategy = manual\nlog.console.level = debug\nzones.fast.mqtt.max_inflight = 5\n";
    let folder = TempFolder::new();
    folder.write("more.conf", "sys_topics.sys_msg_interval = 20s\n");
    let served = served(folder, conf);
    assert!(served.takes(0, "-t a"));
    for (row, why) in [
        ("bridges.mqtt.cloud.server", "bridges"),
        ("rule_engine.", "no engine of rules"),
        ("gateway.stomp.enable", "MQTT is all"),
        ("dashboard.", "no page"),
        ("cluster.", "one node"),
        ("log.console.level", "standard error"),
        ("zones.fast", "not taken over"),
    ] {
        served.assert_row(row, "ignored", why);
    }
    served.assert_row("more.conf:1", "kept", "sys_interval");
    assert!(!served.table.contains("hidden"));
}

#[test]
fn of_several_files_the_last_counts_and_faults_are_pointed_at() {
    let folder = TempFolder::new();
    write(
        &folder,
        "base.hocon",
        "mqtt { max_inflight = 5, max_topic_levels = 9 }\nlisteners.tcp.default.bind = 18833\n",
    );
    write(&folder, "emqx.conf", "mqtt.max_inflight = 6\n");
    let (base, conf) = (folder.path("base.hocon"), folder.path("emqx.conf"));
    let dry = succeeded(&run(&[
        "import",
        "emqx",
        &base,
        &conf,
        "--dry-run",
        "--json",
    ]));
    let said: serde_json::Value = serde_json::from_str(&dry).expect("is JSON");
    let toml = said["toml"].as_str().expect("is a text");
    assert!(
        toml.contains("maximum_inflight_messages = 6") && toml.contains("topic_levels_max = 9"),
        "{toml}"
    );
    assert_eq!(said["rows"][0]["outcome"], "ignored");
    let wrong = folder.write("wrong.conf", "mqtt {\n  max_inflight = [1\n}\n");
    let refused = run(&["import", "emqx", &wrong]);
    assert_eq!(refused.status.code(), Some(78));
    assert!(
        text(&refused.stderr).contains("wrong.conf:3:1: there is nothing to end here"),
        "{}",
        text(&refused.stderr)
    );
    assert_eq!(
        run(&["import", "emqx", "/nowhere/emqx.conf"]).status.code(),
        Some(78)
    );
}
