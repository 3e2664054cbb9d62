//! Configurations of mosquitto, imported and served: what they meant is what happens.
//!
//! Owns: one file for each group of options that people use, and what a client sees of it. Does not own: every option
//! (unit tests), what runs (see `imported`). Start reading at any test. Invariant: every process and folder ends with its test.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;

use crate::imported::{Imported, certificates, free_port, write, write_passwords};
use crate::program::{TempFolder, run, succeeded, text};

impl Imported {
    /// Imports `conf`, in which `DIR` is the folder.
    fn import(folder: TempFolder, conf: &str) -> Self {
        Self::of("mosquitto", folder, conf)
    }

    /// The same, and serves.
    fn serve(folder: TempFolder, conf: &str) -> Self {
        Self::serving("mosquitto", folder, conf)
    }

    /// Serves a mosquitto.conf as it is.
    fn serve_directly(folder: TempFolder, conf: &str) -> Self {
        write(&folder, "mosquitto.conf", conf);
        let mut imported = Self::not_yet(folder);
        let conf = imported.folder.path("mosquitto.conf");
        imported.start(&["--mosquitto-conf", &conf]);
        imported
    }
}

#[test]
fn an_empty_file_is_for_this_machine_only() {
    let imported = Imported::import(TempFolder::new(), "# nothing\n");
    assert!(
        imported.toml.contains("address = \"127.0.0.1:1883\""),
        "{}",
        imported.toml
    );
    assert!(imported.toml.contains("anonymous = \"loopback\""));
    assert!(!imported.toml.contains("0.0.0.0"));
}

#[test]
fn a_listener_alone_lets_nobody_in_without_proof() {
    let served = Imported::serve(TempFolder::new(), "listener 0 127.0.0.1\n");
    assert_eq!(served.publish(0, "-t a").0, 135);
    served.assert_row("(no allow_anonymous)", "kept", "never");
}

#[test]
fn a_listener_on_all_addresses_is_one_of_each_family() {
    let imported = Imported::import(TempFolder::new(), "listener 1883\nallow_anonymous true\n");
    assert!(
        imported.toml.contains("address = \"0.0.0.0:1883\""),
        "{}",
        imported.toml
    );
    let has_ipv6 = std::net::TcpListener::bind("[::]:0").is_ok();
    assert_eq!(imported.toml.contains("address = \"[::]:1883\""), has_ipv6);
    imported.assert_row(
        "allow_anonymous true",
        "kept",
        "whoever can reach it gets in",
    );
    let conf = "listener 1883\nsocket_domain ipv4\n";
    let imported = Imported::import(TempFolder::new(), conf);
    assert!(!imported.toml.contains("[::]"));
}

#[test]
fn anonymous_clients_get_in_where_they_did() {
    let conf = "listener 0 127.0.0.1\nallow_anonymous true\n";
    let served = Imported::serve(TempFolder::new(), conf);
    assert!(served.takes(0, "-t a"));
}

#[test]
fn port_and_bind_address_are_a_listener() {
    let conf = "port 0\nbind_address 127.0.0.1\nallow_anonymous true\n";
    let served = Imported::serve(TempFolder::new(), conf);
    assert!(served.takes(0, "-t a"));
    served.assert_row("bind_address 127.0.0.1", "kept", "127.0.0.1:0");
}

#[test]
fn names_of_hosts_become_their_addresses() {
    let conf = "listener 0 localhost\nsocket_domain ipv4\nallow_anonymous true\n";
    let served = Imported::serve(TempFolder::new(), conf);
    assert!(served.takes(0, "-t a"));
}

#[test]
fn users_of_a_password_file_get_in_with_their_passwords() {
    let folder = TempFolder::new();
    write_passwords(&folder, "passwd", &[("anna", "secret")]);
    let conf = "listener 0 127.0.0.1\nallow_anonymous false\npassword_file DIR/passwd\n";
    let served = Imported::serve(folder, conf);
    assert!(served.takes(0, "-t a -u anna -P secret"));
    assert_eq!(served.publish(0, "-t a -u anna -P wrong").0, 134);
    assert_eq!(served.publish(0, "-t a").0, 135);
}

/// Made by `mosquitto_passwd` 2.0.11.
const MADE: &str = "otto:$7$101$+XX6Z1YL9Yz67xYA$Rj/xZ5p+ykemia12shwB+N5cltHvyYwQ3x5LFxmNNStUjAtrDceadI5UGqzka2O2HLRjRIczQ4WOIWoyk9oMIQ==\n";

#[test]
fn hashes_of_mosquitto_are_verified() {
    let folder = TempFolder::new();
    folder.write("passwd", MADE);
    let conf = "listener 0 127.0.0.1\npassword_file DIR/passwd\n";
    let served = Imported::serve(folder, conf);
    assert!(served.takes(0, "-t a -u otto -P word"));
    assert_eq!(served.publish(0, "-t a -u otto -P other").0, 134);
}

#[test]
fn an_acl_file_allows_what_it_did() {
    let folder = TempFolder::new();
    write_passwords(&folder, "passwd", &[("anna", "a"), ("otto", "o")]);
    folder.write(
        "acl",
        "topic read news/#\nuser anna\ntopic write in/anna\npattern readwrite own/%u/#\n",
    );
    let conf =
        "listener 0 127.0.0.1\npassword_file DIR/passwd\nacl_file DIR/acl\nallow_anonymous true\n";
    let served = Imported::serve(folder, conf);
    assert!(served.takes(0, "-t in/anna -u anna -P a"));
    assert!(served.takes(0, "-t own/otto/x -u otto -P o"));
    assert!(!served.takes(0, "-t own/anna/x -u otto -P o"));
    assert!(!served.takes(0, "-t in/anna"));
}

#[test]
fn included_folders_count() {
    let folder = TempFolder::new();
    write_passwords(&folder, "passwd", &[("anna", "a")]);
    folder.write("conf.d/10-listener.conf", "listener 0 127.0.0.1\n");
    write(
        &folder,
        "conf.d/20-users.conf",
        "password_file DIR/passwd\n",
    );
    folder.write("conf.d/ignored.txt", "allow_anonymous true\n");
    let served = Imported::serve(folder, "include_dir DIR/conf.d\n");
    assert!(served.takes(0, "-t a -u anna -P a"));
    assert_eq!(served.publish(0, "-t a").0, 135);
    served.assert_row("20-users.conf:1", "kept", "password_file");
}

#[test]
fn websockets_are_a_transport() {
    let conf = "listener 0 127.0.0.1\nprotocol websockets\nallow_anonymous true\n\
                listener 0 127.0.0.1\nprotocol mqtt\n";
    let served = Imported::serve(TempFolder::new(), conf);
    assert_eq!(served.ports.len(), 2);
    assert!(served.takes(1, "-t a"));
    let stream = std::net::TcpStream::connect(format!("127.0.0.1:{}", served.ports[0]));
    let mut stream = stream.expect("it listens");
    let request = "GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Protocol: mqtt\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("is sent");
    let mut line = String::new();
    BufReader::new(stream)
        .read_line(&mut line)
        .expect("an answer");
    assert!(line.contains("101"), "{line}");
}

#[test]
fn a_unix_socket_is_one() {
    let conf = "listener 0 DIR/mqtt.sock\nallow_anonymous true\n";
    let served = Imported::serve(TempFolder::new(), conf);
    let socket = served.folder.path("mqtt.sock");
    succeeded(&run(&[
        "pub", "--unix", &socket, "-t", "a", "-m", "x", "-q", "1",
    ]));
}

const SECURED: &str = "certfile DIR/tls/server.pem\nkeyfile DIR/tls/server.key\n";

#[test]
fn tls_secures_a_listener() {
    let folder = TempFolder::new();
    certificates(&folder);
    let conf = format!(
        "listener 0 127.0.0.1\nallow_anonymous true\ncafile DIR/tls/ca.pem\ntls_version tlsv1.2\n{SECURED}"
    );
    let served = Imported::serve(folder, &conf);
    let ca = served.folder.path("tls/ca.pem");
    assert!(served.takes(0, &format!("-h localhost --cafile {ca} -t a")));
    assert!(!served.takes(0, "-t a"));
    served.assert_row("cafile", "ignored", "not asked for");
}

#[test]
fn certificates_of_clients_are_asked_for_and_name_users() {
    let folder = TempFolder::new();
    certificates(&folder);
    let conf = format!(
        "listener 0 127.0.0.1\ncafile DIR/tls/ca.pem\n{SECURED}require_certificate true\n\
         use_identity_as_username true\nacl_file DIR/acl\n"
    );
    folder.write("acl", "user device\ntopic own\n");
    let served = Imported::serve(folder, &conf);
    let path = |name: &str| served.folder.path(name);
    let ca = format!("-h localhost --cafile {}", path("tls/ca.pem"));
    let own = format!(
        "{ca} --cert {} --key {}",
        path("tls/client.pem"),
        path("tls/client.key")
    );
    assert!(served.takes(0, &format!("{own} -t own")));
    assert!(!served.takes(0, &format!("{own} -t other")));
    assert!(!served.takes(0, &format!("{ca} -t own")));
}

#[test]
fn per_listener_settings_keep_users_at_their_listener() {
    let folder = TempFolder::new();
    write_passwords(&folder, "inside", &[("anna", "a")]);
    write_passwords(&folder, "outside", &[("otto", "o")]);
    folder.write("acl", "user otto\ntopic write out/#\n");
    let conf = "per_listener_settings true\n\
                listener 0 127.0.0.1\nallow_anonymous true\n\
                listener 0 127.0.0.1\npassword_file DIR/inside\n\
                listener 0 127.0.0.1\npassword_file DIR/outside\nacl_file DIR/acl\n";
    // Rules name listeners by their addresses, so these need ports of their own.
    let ports: Vec<String> = (0..3).map(|_| free_port()).collect();
    let mut conf = conf.to_owned();
    for port in &ports {
        conf = conf.replacen("listener 0 ", &format!("listener {port} "), 1);
    }
    let served = Imported::serve(folder, &conf);
    assert!(served.takes(0, "-t any"));
    assert_eq!(served.publish(1, "-t any").0, 135);
    assert!(served.takes(1, "-t any -u anna -P a"));
    assert!(!served.takes(1, "-t any -u otto -P o"));
    assert!(served.takes(2, "-t out/1 -u otto -P o"));
    assert!(!served.takes(2, "-t in/1 -u otto -P o"));
    assert!(!served.takes(2, "-t out/1 -u anna -P a"));
}

#[test]
fn a_listener_without_users_of_its_own_lets_in_none_of_another() {
    let folder = TempFolder::new();
    write_passwords(&folder, "inside", &[("anna", "a")]);
    let conf = "per_listener_settings true\nclientid_prefixes dev-\n\
                listener ONE 127.0.0.1\nallow_anonymous true\n\
                listener TWO 127.0.0.1\npassword_file DIR/inside\n\
                listener SIX 127.0.0.1\nallow_anonymous true\nacl_file DIR/missing\n";
    let ports = ["ONE", "TWO", "SIX"].map(|name| (name, free_port()));
    let conf = ports.iter().fold(conf.to_owned(), |conf, (name, port)| {
        conf.replace(name, port)
    });
    let served = Imported::serve(folder, &conf);
    assert!(served.takes(0, "-t a -i dev-1"));
    assert!(!served.takes(0, "-t a -i other"));
    assert!(!served.takes(0, "-t a -i dev-1 -u anna -P a"));
    assert!(served.takes(1, "-t a -i dev-1 -u anna -P a"));
    assert!(!served.takes(1, "-t a -i other -u anna -P a"));
    // What cannot be read allows nothing.
    assert!(!served.takes(2, "-t a -i dev-1"));
    served.assert_row("acl_file", "ignored", "nothing is allowed");
}

const DYNAMIC: &str = r##"{
  "defaultACLAccess": {"publishClientSend": false, "publishClientReceive": true, "subscribe": false, "unsubscribe": true},
  "clients": [
    {"username": "admin", "roles": [{"rolename": "all"}], "encoded_password": "HASH"},
    {"username": "sensor", "groups": [{"groupname": "sensors"}], "encoded_password": "HASH", "clientid": "sensor-1"},
    {"username": "gone", "disabled": true, "encoded_password": "HASH"}
  ],
  "groups": [
    {"groupname": "sensors", "roles": [{"rolename": "sensor"}], "clients": [{"username": "sensor"}]},
    {"groupname": "nobody", "roles": [{"rolename": "news"}]}
  ],
  "roles": [
    {"rolename": "all", "acls": [{"acltype": "publishClientSend", "topic": "#", "allow": true}]},
    {"rolename": "sensor", "acls": [
      {"acltype": "publishClientSend", "topic": "sensors/#", "allow": true, "priority": 0},
      {"acltype": "publishClientSend", "topic": "sensors/locked", "allow": false, "priority": 5}]},
    {"rolename": "news", "acls": [{"acltype": "publishClientSend", "topic": "news", "allow": true}]}
  ],
  "anonymousGroup": "nobody"
}"##;

#[test]
fn dynamic_security_becomes_users_and_rules() {
    let folder = TempFolder::new();
    write_passwords(&folder, "one", &[("a", "secret")]);
    let line = folder.read("one");
    let hash = line.trim().split_once(':').expect("a user").1;
    folder.write("dynamic-security.json", DYNAMIC.replace("HASH", hash));
    let conf = "listener 0 127.0.0.1\nallow_anonymous true\nplugin /usr/lib/mosquitto_dynamic_security.so\n\
                plugin_opt_config_file DIR/dynamic-security.json\n";
    let served = Imported::serve(folder, conf);
    assert!(served.takes(0, "-t any -u admin -P secret"));
    assert!(served.takes(0, "-t sensors/1 -u sensor -P secret -i sensor-1"));
    assert!(!served.takes(0, "-t sensors/locked -u sensor -P secret -i sensor-1"));
    assert!(!served.takes(0, "-t any -u sensor -P secret -i sensor-1"));
    assert_eq!(
        served
            .publish(0, "-t sensors/1 -u sensor -P secret -i other")
            .0,
        133
    );
    assert_ne!(served.publish(0, "-t any -u gone -P secret").0, 0);
    assert!(served.takes(0, "-t news"));
    assert!(!served.takes(0, "-t any"));
    served.assert_row("dynamic security", "ignored", "\"gone\": it is disabled");
}

#[test]
fn a_plugin_that_is_not_there_leaves_no_door_open() {
    let conf = "listener 0 127.0.0.1\nallow_anonymous true\nauth_plugin /usr/lib/go-auth.so\nauth_opt_pg_password hidden\n";
    let served = Imported::serve(TempFolder::new(), conf);
    assert_eq!(served.publish(0, "-t a").0, 135);
    served.assert_row("allow_anonymous true", "changed", "never");
    assert!(!served.table.contains("hidden"), "{}", served.table);
}

#[test]
fn a_listener_with_psk_is_left_out_and_not_opened_in_the_clear() {
    let conf =
        "listener 0 127.0.0.1\nallow_anonymous true\nlistener 8884 127.0.0.1\npsk_hint hint\n";
    let served = Imported::serve(TempFolder::new(), conf);
    assert_eq!(served.ports.len(), 1);
    served.assert_row("listener 8884", "ignored", "not with PSK");
    served.assert_row("psk_hint", "ignored", "left out");
    let imported = Imported::import(
        TempFolder::new(),
        "listener 8884\npsk_hint a\npsk_file DIR/psk\n",
    );
    assert!(
        imported.toml.contains("127.0.0.1:1883"),
        "{}",
        imported.toml
    );
    imported.assert_row("psk_file", "ignored", "PSK");
}

#[test]
fn bridges_are_reported_with_where_they_went() {
    let conf = "listener 0 127.0.0.1\nallow_anonymous true\nconnection cloud\naddress mqtt.example:8883\n\
                topic sensors/# out 1\ntopic commands/# in 1\nremote_username me\nremote_password hidden\n\
                bridge_cafile DIR/ca.pem\ntry_private false\nstart_type automatic\nnotifications false\ncleansession true\n";
    let served = Imported::serve(TempFolder::new(), conf);
    assert!(served.takes(0, "-t a"));
    served.assert_row(
        "connection cloud",
        "ignored",
        "mqtt.example:8883 with sensors/# out 1; commands/# in 1",
    );
    served.assert_row("remote_password", "ignored", "bridge");
    assert!(!served.table.contains("hidden"));
}

#[test]
fn state_is_kept_in_the_folder_of_mosquitto() {
    let conf = "listener 0 127.0.0.1\nallow_anonymous true\npersistence true\npersistence_location DIR/state/\n\
                persistence_file mosquitto.db\nautosave_interval 1800\npersistent_client_expiration 14d\n";
    let served = Imported::serve(TempFolder::new(), conf);
    assert!(served.takes(0, "-t kept -r"));
    assert!(served.folder.join("state/vencejo").is_dir());
    assert!(
        served.toml.contains("session_expiry_3x_seconds = 1209600"),
        "{}",
        served.toml
    );
    served.assert_row("mosquitto.db", "ignored", "");
}

#[test]
fn without_persistence_nothing_is_written() {
    let conf = "listener 0 127.0.0.1\nallow_anonymous true\npersistence false\n";
    let served = Imported::serve(TempFolder::new(), conf);
    assert!(served.takes(0, "-t a -r"));
    assert!(!served.folder.join("vencejo-data").exists());
}

#[test]
fn limits_are_limits() {
    let conf = "listener 0 127.0.0.1\nallow_anonymous true\nmax_packet_size 200\nmax_inflight_messages 7\n\
                max_queued_messages 50\nmax_keepalive 90\nmax_connections 10\nretain_available false\nsys_interval 30\n\
                max_queued_bytes 0\nmax_inflight_bytes 1\nmemory_limit 0\n";
    let served = Imported::serve(TempFolder::new(), conf);
    assert!(served.takes(0, "-t a"));
    let long = "y".repeat(300);
    assert!(!served.takes(0, &format!("-t a -m {long}")));
    assert!(!served.takes(0, "-t a -r"));
    for line in [
        "maximum_inflight_messages = 7",
        "queued_messages_max = 50",
        "connections_max = 10",
    ] {
        assert!(served.toml.contains(line), "{line}: {}", served.toml);
    }
    served.assert_row("max_queued_bytes 0", "changed", "default");
    served.assert_row("max_inflight_bytes 1", "ignored", "counted");
}

#[test]
fn qos_above_the_maximum_of_a_listener_is_refused() {
    let conf =
        "listener PORT 127.0.0.1\nallow_anonymous true\nmax_qos 0\nlistener OTHER 127.0.0.1\n";
    let conf = conf
        .replace("PORT", &free_port())
        .replace("OTHER", &free_port());
    let served = Imported::serve(TempFolder::new(), &conf);
    assert!(served.takes(0, "-t a -q 0"));
    assert!(!served.takes(0, "-t a -q 1"));
    assert!(served.takes(1, "-t a -q 2"), "as ever at the other one");
    served.assert_row("max_qos 0", "kept", "maximum_qos");
}

#[test]
fn topics_of_a_mount_point_are_below_it() {
    let conf = "listener PORT 127.0.0.1\nallow_anonymous true\nmount_point site/\nlistener OTHER 127.0.0.1\n";
    let conf = conf
        .replace("PORT", &free_port())
        .replace("OTHER", &free_port());
    let served = Imported::serve(TempFolder::new(), &conf);
    assert!(served.takes(0, "-t a -r"));
    let output = run(&[
        "sub",
        "-p",
        &served.ports[1],
        "-t",
        "site/#",
        "-C",
        "1",
        "-W",
        "20",
        "-v",
    ]);
    assert_eq!(text(&output.stdout), "site/a x\n");
    let conf = "listener 0 127.0.0.1\nmount_point site\n";
    let imported = Imported::import(TempFolder::new(), conf);
    imported.assert_row("mount_point site", "ignored", "has to end with /");
}

#[test]
fn the_user_name_can_be_the_client_identifier() {
    let folder = TempFolder::new();
    write_passwords(&folder, "passwd", &[("anna", "a")]);
    let conf = "listener 0 127.0.0.1\npassword_file DIR/passwd\nuse_username_as_clientid true\nclientid_prefixes an\n";
    let served = Imported::serve(folder, conf);
    let (code, said) = served.publish(0, "-t a -u anna -P a -i anything");
    assert_eq!(code, 0, "{said}");
    served.assert_row("use_username_as_clientid", "kept", "client_id_from_user");
}

#[test]
fn options_of_logs_and_processes_are_named_and_change_nothing() {
    let conf = "pid_file /run/m.pid\nuser mosquitto\nlog_dest file /var/log/m.log\nlog_type all\nlog_timestamp true\n\
                connection_messages true\nset_tcp_nodelay true\nupgrade_outgoing_qos true\nqueue_qos0_messages true\n\
                allow_zero_length_clientid true\nauto_id_prefix auto-\nno_such_option 1\nlistener 0 127.0.0.1\n\
                allow_anonymous true\nciphers ALL\nbind_interface\n";
    let conf = conf.replace("bind_interface\n", "");
    let served = Imported::serve(TempFolder::new(), &conf);
    assert!(served.takes(0, "-t a"));
    for (option, outcome) in [
        ("pid_file", "ignored"),
        ("user mosquitto", "ignored"),
        ("log_type all", "changed"),
        ("set_tcp_nodelay", "kept"),
        ("upgrade_outgoing_qos", "ignored"),
        ("queue_qos0_messages", "ignored"),
        ("no_such_option 1", "ignored"),
        ("ciphers ALL", "ignored"),
    ] {
        served.assert_row(option, outcome, "");
    }
    // No line goes without a row.
    for line in conf.lines() {
        assert!(served.table.contains(line), "{line}");
    }
}

#[test]
fn a_mosquitto_conf_is_served_as_it_is() {
    let folder = TempFolder::new();
    write_passwords(&folder, "inside", &[("anna", "a")]);
    write_passwords(&folder, "outside", &[("otto", "o")]);
    let conf = "per_listener_settings true\nlistener ONE 127.0.0.1\npassword_file DIR/inside\n\
                listener TWO 127.0.0.1\npassword_file DIR/outside\nupgrade_outgoing_qos true\n";
    let conf = conf
        .replace("ONE", &free_port())
        .replace("TWO", &free_port());
    let served = Imported::serve_directly(folder, &conf);
    assert!(served.takes(0, "-t a -u anna -P a"));
    assert!(!served.takes(1, "-t a -u anna -P a"));
    assert!(served.takes(1, "-t a -u otto -P o"));
    assert!(
        served.log().contains("upgrade_outgoing_qos true"),
        "{}",
        served.log()
    );
    let written = served.folder.join("vencejo-data/mosquitto.passwords");
    let mode = written.metadata().expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn nothing_that_is_there_is_written_over() {
    let imported = Imported::import(TempFolder::new(), "listener 1883 127.0.0.1\n");
    let (file, out) = (
        imported.folder.path("mosquitto.conf"),
        imported.folder.path("out"),
    );
    let again = run(&["import", "mosquitto", &file, "-o", &out]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        text(&again.stderr).contains("is there already"),
        "{}",
        text(&again.stderr)
    );
    let dry = run(&["import", "mosquitto", &file, "--dry-run", "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&dry.stdout).expect("is JSON");
    assert_eq!(said["rows"][0]["outcome"], "kept");
    let missing = run(&["import", "mosquitto", "/nowhere/mosquitto.conf"]);
    assert_eq!(missing.status.code(), Some(78));
}

#[test]
fn what_the_file_names_and_is_not_there_is_said() {
    let folder = TempFolder::new();
    let conf = "listener 1883 127.0.0.1\npassword_file DIR/missing\n";
    write(&folder, "mosquitto.conf", conf);
    let (file, out) = (folder.path("mosquitto.conf"), folder.path("out"));
    let output = run(&["import", "mosquitto", &file, "-o", &out]);
    assert_eq!(output.status.code(), Some(78));
    assert!(
        text(&output.stderr).contains("missing"),
        "{}",
        text(&output.stderr)
    );
    // The table says so, too, and nobody is told to serve with it.
    let said = text(&output.stdout);
    let row = said.lines().find(|line| line.contains("password_file"));
    assert!(
        row.is_some_and(|row| row.contains("No such file") && row.contains("no server starts")),
        "{said}"
    );
    assert!(!said.contains("serves with it"), "{said}");
    assert!(
        said.contains("is written, and does not serve yet"),
        "{said}"
    );
}
