//! `--json` of the commands that do something: one object, or one in each line, with the same names everywhere.
//!
//! Owns: what these commands print for programs. Does not own: what they do (see the other files), `--json` of those that
//! only look (see there, too). Start reading at [`object`]. Invariant: an error is on standard error, with the exit code
//! that it has without `--json`.

use std::process::Output;

use serde_json::{Value, json};

use crate::program::{Served, TempFolder, fed, output, run, succeeded, text, vencejo};

/// The one object, in one line, that a command printed.
#[track_caller]
fn object(output: &Output) -> Value {
    let said = succeeded(output);
    assert_eq!(said.lines().count(), 1, "{said}");
    serde_json::from_str(&said).expect("JSON")
}

/// The objects that a command printed, one in each line, in the order of their text.
fn objects(output: &Output) -> Vec<Value> {
    let said = text(&output.stdout);
    let mut lines: Vec<&str> = said.lines().collect();
    lines.sort_unstable();
    let objects = lines.into_iter().map(serde_json::from_str);
    objects.collect::<Result<_, _>>().expect("JSON")
}

/// Nothing on standard output, and why on standard error.
#[track_caller]
fn failed(output: &Output, code: i32, why: &str) {
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(why), "{said}");
    assert_eq!(text(&output.stdout), "");
}

#[track_caller]
fn in_folder(folder: &TempFolder, args: &[&str]) -> Output {
    output(folder.vencejo(args))
}

/// A folder with a data folder that no server uses.
fn with_data() -> TempFolder {
    let folder = TempFolder::new();
    let args = ["--listen", "127.0.0.1:0", "--shards", "2", "--data", "data"];
    let mut served = Served::start(&folder, &args);
    served.publish(&["-t", "state", "-m", "on", "-q", "1", "-r"]);
    served.process.stop();
    folder
}

#[test]
fn backup_and_restore_say_which_folders_and_how_much() {
    let folder = with_data();
    let backup = ["backup", "copy", "--data", "data", "--json"];
    let made = object(&in_folder(&folder, &backup));
    assert_eq!(made["backup"], folder.path("copy"));
    assert_eq!(made["data"], "data");
    assert!(made["files"].as_u64() > Some(0) && made["bytes"].as_u64() > Some(0));
    let restore = ["restore", "copy", "--data", "again", "--json"];
    let restored = object(&in_folder(&folder, &restore));
    let expected = json!({
        "backup": "copy", "data": "again", "files": made["files"], "bytes": made["bytes"],
    });
    assert_eq!(restored, expected);
    failed(&in_folder(&folder, &restore), 74, "is not empty");
}

#[test]
fn salvage_says_what_is_intact_and_what_is_damaged() {
    let folder = with_data();
    let salvage = ["store", "salvage", "data", "new", "--json"];
    let whole = object(&in_folder(&folder, &salvage));
    assert_eq!(
        (&whole["data"], &whole["new"]),
        (&json!("data"), &json!("new"))
    );
    assert!(whole["records"].as_u64() > Some(0) && whole["frames"].as_u64() > Some(0));
    assert!(whole["bytes"].as_u64() > Some(0));
    assert_eq!(
        (&whole["damage"], &whole["torn_tail"]),
        (&json!([]), &Value::Null)
    );
    failed(&in_folder(&folder, &salvage), 74, "is not empty");
    let segment = folder.join("data/log/0000000001.seg");
    let mut bytes = std::fs::read(&segment).expect("a segment");
    bytes[40] ^= 0x10;
    std::fs::write(&segment, bytes).expect("is written");
    let salvage = ["store", "salvage", "data", "other", "--json"];
    let damaged = object(&in_folder(&folder, &salvage));
    let damage = damaged["damage"].as_array().into_iter().flatten();
    let mut damage = damage.filter_map(Value::as_str);
    assert!(damage.any(|of| of.contains("0000000001.seg")), "{damaged}");
}

#[test]
fn retained_messages_that_go_come_or_are_refused_are_an_object_each() {
    let old = Served::in_memory();
    for (topic, payload) in [("house/a", "one"), ("house/b", "three")] {
        old.publish(&["-t", topic, "-m", payload, "-r", "-q", "1"]);
    }
    let of = |outcome: &str, dry_run: bool| {
        let of = |topic: &str, bytes: u64| {
            json!({
                "topic": topic, "bytes": bytes, "outcome": outcome, "reason": null, "dry_run": dry_run,
            })
        };
        vec![of("house/a", 3), of("house/b", 5)]
    };
    let new = Served::in_memory();
    let from = format!("mqtt://127.0.0.1:{}", old.port);
    let copy = ["import", "retained", &from, "-p", &new.port, "--json"];
    assert_eq!(objects(&run(&copy)), of("copied", false));
    let rm = ["retained", "rm", "house/#", "-p", &old.port, "--json"];
    let dry = run(&[&rm[..], &["--dry-run"]].concat());
    assert_eq!(objects(&dry), of("removed", true));
    let exported = run(&["retained", "export", "-p", &old.port]);
    let removed = run(&rm);
    assert_eq!(objects(&removed), of("removed", false));
    assert_eq!(text(&removed.stderr), "2 removed, 0 refused\n");
    let import = ["retained", "import", "-p", &old.port, "--json"];
    let imported = fed(vencejo(&import), &exported.stdout);
    assert_eq!(objects(&imported), of("imported", false));
}

#[test]
fn a_retained_message_that_a_server_refuses_is_an_object_with_the_reason() {
    let folder = TempFolder::new();
    let rules = "[[authorization.rules]]\neffect = \"allow\"\nactions = [\"publish\"]\ntopics = [\"house/#\"]\n";
    let config = folder.write("vencejo.toml", rules);
    let args = [
        "-c",
        &config,
        "--listen",
        "127.0.0.1:0",
        "--level",
        "memory",
    ];
    let served = Served::start(&folder, &args);
    let lines = "{\"topic\":\"garden\",\"payload\":\"x\",\"qos\":1}\n\
                 {\"topic\":\"house/a\",\"payload\":\"xy\",\"qos\":1}\n";
    let import = ["retained", "import", "-p", &served.port, "--json"];
    let output = fed(vencejo(&import), lines.as_bytes());
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("1 imported, 1 refused"), "{said}");
    let expected = [
        json!({
            "topic": "garden", "bytes": 1, "outcome": "refused", "reason": "Not authorized",
            "dry_run": false,
        }),
        json!({
            "topic": "house/a", "bytes": 2, "outcome": "imported", "reason": null, "dry_run": false,
        }),
    ];
    let mut said = objects(&output);
    said.sort_by_key(|of| of["topic"].to_string());
    assert_eq!(said, expected);
}

#[test]
fn certificates_say_their_files_and_how_long_they_last() {
    let folder = TempFolder::new();
    let init = ["tls", "init", "--name", "broker.example", "--json"];
    let made = object(&in_folder(&folder, &init));
    let until = made["until"].as_str().unwrap_or_default();
    assert_eq!(until.len(), "2026-01-01".len(), "{made}");
    let of = |is_new: bool, name: &str, common_name: &str, names: &[&str]| {
        json!({
            "authority": "tls/ca.pem",
            "is_new_authority": is_new,
            "certificate": format!("tls/{name}.pem"),
            "key": format!("tls/{name}.key"),
            "common_name": common_name,
            "names": names,
            "until": until,
        })
    };
    let names = ["broker.example"];
    assert_eq!(made, of(true, "server", "broker.example", &names));
    let again = object(&in_folder(&folder, &init));
    assert_eq!(again, of(false, "server", "broker.example", &names));
    let client = object(&in_folder(&folder, &["tls", "client", "anna", "--json"]));
    assert_eq!(client, of(false, "anna", "anna", &[]));
    let nowhere = ["tls", "client", "anna", "nowhere", "--json"];
    failed(
        &in_folder(&folder, &nowhere),
        1,
        "there is no nowhere/ca.pem",
    );
}

#[test]
fn a_password_file_says_what_became_of_it_and_no_password() {
    let folder = TempFolder::new();
    let of = |user: Option<&str>, outcome: &str, count: u64| json!({ "file": "people", "user": user, "outcome": outcome, "passwords_hashed": count });
    let set = ["passwd", "-c", "-b", "people", "anna", "word", "--json"];
    let said = in_folder(&folder, &set);
    assert!(
        !text(&said.stdout).contains("word\""),
        "{}",
        text(&said.stdout)
    );
    assert_eq!(object(&said), of(Some("anna"), "set", 1));
    let lines = folder.read("people") + "otto:clear\n";
    folder.write("people", lines);
    let hash = ["passwd", "-U", "people", "--json"];
    assert_eq!(object(&in_folder(&folder, &hash)), of(None, "hashed", 1));
    let delete = ["passwd", "-D", "people", "otto", "--json"];
    let said = in_folder(&folder, &delete);
    assert_eq!(object(&said), of(Some("otto"), "deleted", 0));
    failed(&in_folder(&folder, &delete), 1, "there is no user");
}

#[test]
fn users_and_profiles_say_their_name_and_what_became_of_them() {
    let folder = TempFolder::new();
    let of = |outcome: &str| json!({ "name": "anna", "outcome": outcome });
    let user = |words: &[&str]| {
        let args = [&["user"], words, &["--data", "data", "--json"]].concat();
        fed(folder.vencejo(&args), b"word\n")
    };
    assert_eq!(object(&user(&["add", "anna"])), of("added"));
    failed(&user(&["add", "anna"]), 1, "anna");
    assert_eq!(object(&user(&["passwd", "anna"])), of("changed"));
    assert_eq!(object(&user(&["groups", "anna", "ops"])), of("changed"));
    assert_eq!(object(&user(&["list"]))["groups"], json!(["ops"]));
    assert_eq!(object(&user(&["rm", "anna"])), of("removed"));
    let profile = |words: &[&str]| {
        let mut command = folder.vencejo(&[&["profile"], words, &["--json"]].concat());
        command.env("XDG_CONFIG_HOME", folder.join("config"));
        output(command)
    };
    assert_eq!(
        object(&profile(&["add", "anna", "mqtt://here"])),
        of("added")
    );
    assert_eq!(object(&profile(&["rm", "anna"])), of("removed"));
    failed(&profile(&["rm", "anna"]), 1, "there is no profile");
}

#[test]
fn lifted_bans_are_counted() {
    let folder = TempFolder::new();
    let args = ["--listen", "127.0.0.1:0", "--data", "data"];
    let served = Served::start(&folder, &args);
    let lift = ["ban", "lift", "--data", "data", "--json"];
    let said = in_folder(&folder, &lift);
    assert_eq!(object(&said), json!({ "bans_lifted": 0 }));
    drop(served);
    failed(&in_folder(&folder, &lift), 69, "no server uses data");
}

#[test]
fn files_that_are_made_are_named() {
    let folder = TempFolder::new();
    let init = ["config", "init", "--json"];
    let said: Value = serde_json::from_str(&succeeded(&in_folder(&folder, &init))).expect("JSON");
    let expected = json!({ "file": "vencejo.toml", "outcome": "written" });
    assert_eq!(said, expected);
    failed(&in_folder(&folder, &init), 1, "is there already");
    folder.write("mosquitto.conf", "listener 1883 127.0.0.1\n");
    let import = [
        "import",
        "mosquitto",
        "mosquitto.conf",
        "-o",
        "out",
        "--json",
    ];
    for (more, expected) in [
        (&["--dry-run"][..], json!([])),
        (&[], json!(["out/vencejo.toml"])),
    ] {
        let said = succeeded(&in_folder(&folder, &[&import, more].concat()));
        let said: Value = serde_json::from_str(&said).expect("JSON");
        assert_eq!(said["files_written"], expected);
        assert_eq!(said["dry_run"], !more.is_empty());
        assert_eq!(said["rows"][0]["outcome"], "kept");
    }
    assert!(folder.join("out/vencejo.toml").exists());
    failed(&in_folder(&folder, &import), 1, "is there already");
}

#[test]
fn a_decision_is_explained_wherever_the_flag_stands() {
    let folder = TempFolder::new();
    let config = folder.write("vencejo.toml", "");
    let wish = ["publish", "house/a"];
    let before = [&["explain", "-c", &config, "--json"], &wish[..]].concat();
    let behind = [&["explain", "-c", &config], &wish[..], &["--json"]].concat();
    let said = object(&in_folder(&folder, &before));
    assert_eq!(said["allowed"], true);
    assert_eq!(object(&in_folder(&folder, &behind)), said);
}

#[test]
fn scenarios_of_bench_are_listed() {
    let listed = objects(&run(&["bench", "list", "--json"]));
    let pairs = listed.iter().find(|scenario| scenario["name"] == "pairs");
    let pairs = pairs.expect("is one of them");
    assert_eq!(pairs["is_suite"], false);
    assert!(pairs["says"].as_str().is_some_and(|says| !says.is_empty()));
    assert!(listed.iter().any(|scenario| scenario["is_suite"] == true));
}
