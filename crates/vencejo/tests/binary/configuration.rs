//! `vencejo config` and the sources of a configuration, by the binary from outside.
//!
//! Owns: exit codes, what is printed, that `serve` and `config` see the same. Does not own: keys (unit tests of the server).
//! Start reading at [`a_first_file_is_written_once_and_is_right`].
//! Invariant: what the environment says to the tests, it does not say to the program.

use std::process::Output;
use std::time::Instant;

use crate::program::{DEADLINE, Served, TempFolder, output, text};

/// Runs it in `folder` with `variables`.
fn vencejo(folder: &TempFolder, line: &str, variables: &[(&str, &str)]) -> Output {
    let args: Vec<&str> = line.split(' ').collect();
    let mut command = folder.vencejo(&args);
    command.envs(variables.iter().copied());
    output(command)
}

fn out(output: &Output) -> String {
    text(&output.stdout)
}

fn err(output: &Output) -> String {
    text(&output.stderr)
}

#[test]
fn a_first_file_is_written_once_and_is_right() {
    let folder = TempFolder::new();
    let first = vencejo(&folder, "config init", &[]);
    assert_eq!(first.status.code(), Some(0), "{}", err(&first));
    let again = vencejo(&folder, "config init", &[]);
    assert_eq!(again.status.code(), Some(1));
    assert!(err(&again).contains("vencejo.toml is there already"));
    let checked = vencejo(&folder, "config check -c vencejo.toml", &[]);
    assert_eq!(checked.status.code(), Some(0), "{}", err(&checked));
    assert_eq!(out(&checked), "vencejo.toml: the configuration is right\n");
    // It says what would be without it.
    let diff = vencejo(&folder, "config diff vencejo.toml --json", &[]);
    assert_eq!((out(&diff).as_str(), diff.status.code()), ("[]\n", Some(0)));
}

#[test]
fn check_says_all_that_is_wrong_and_leaves_with_78() {
    let folder = TempFolder::new();
    let text = "sharts = 1\n[limits]\nmaximum_qos = 7\n";
    folder.write("wrong.toml", text);
    let checked = vencejo(&folder, "config check -c wrong.toml", &[]);
    assert_eq!(checked.status.code(), Some(78));
    let said = err(&checked);
    assert!(
        said.contains("wrong.toml:1:1: unknown key `sharts`"),
        "{said}"
    );
    assert!(said.contains("did you mean `shards`?"), "{said}");
    assert!(
        said.contains("wrong.toml:3:15: maximum_qos must be from 0 to 2"),
        "{said}"
    );
    let json = vencejo(&folder, "config check -c wrong.toml --json", &[]);
    assert_eq!(json.status.code(), Some(78));
    assert!(out(&json).contains("\"valid\": false") && err(&json).is_empty());
    let tls = "[[listeners]]\naddress = \"127.0.0.1:0\"\ntls = { certificate = \"a\", key = \"b\" }\n\
               [authentication]\npassword_file = \"missing\"\n";
    folder.write("files.toml", tls);
    let checked = vencejo(&folder, "config check -c files.toml", &[]);
    assert_eq!(checked.status.code(), Some(78));
    let said = err(&checked);
    assert!(
        said.contains("listener 127.0.0.1:0") && said.contains("missing"),
        "{said}"
    );
}

#[test]
fn show_says_where_each_value_comes_from() {
    let folder = TempFolder::new();
    folder.write("a.toml", "shards = 2\n");
    let line = "config show --origin -c a.toml --set limits.maximum_qos=1 --data here";
    let shown = vencejo(&folder, line, &[("VENCEJO__LIMITS__SESSIONS_MAX", "77")]);
    let said = out(&shown);
    for (value, origin) in [
        ("shards = 2", "# a.toml:1"),
        (
            "limits.sessions_max = 77",
            "# VENCEJO__LIMITS__SESSIONS_MAX",
        ),
        ("limits.maximum_qos = 1", "# --set"),
        ("storage.data = \"here\"", "# --data"),
        ("limits.receive_maximum = 1024", "# default"),
    ] {
        let line = said.lines().find(|line| line.starts_with(value));
        assert!(
            line.is_some_and(|line| line.ends_with(origin)),
            "{value}: {said}"
        );
    }
    let json = vencejo(&folder, "config show --json limits.sessions_max", &[]);
    assert!(out(&json).contains("\"value\": 1000000"), "{}", out(&json));
}

#[test]
fn explain_says_what_a_key_means_and_where_a_word_was_meant() {
    let folder = TempFolder::new();
    let said = out(&vencejo(&folder, "config explain receive_maximum", &[]));
    assert!(said.starts_with("limits.receive_maximum\n"), "{said}");
    assert!(said.contains("from 1 to 65535") && said.contains("VENCEJO__LIMITS__RECEIVE_MAXIMUM"));
    let unknown = vencejo(&folder, "config explain limits.recieve_maximum", &[]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(err(&unknown).contains("did you mean limits.receive_maximum?"));
    let schema: serde_json::Value =
        serde_json::from_slice(&vencejo(&folder, "config schema", &[]).stdout).expect("is JSON");
    assert_eq!(schema["properties"]["shards"]["maximum"], 64);
}

#[test]
fn serve_takes_the_environment_and_set_and_refuses_what_names_nothing() {
    let folder = TempFolder::new();
    let wrong = vencejo(&folder, "serve", &[("VENCEJO__SHARTS", "1")]);
    assert_eq!(wrong.status.code(), Some(78));
    assert!(
        err(&wrong).contains("did you mean `VENCEJO__SHARDS`?"),
        "{}",
        err(&wrong)
    );
    let wrong = vencejo(&folder, "serve --set shards=0", &[]);
    assert_eq!(wrong.status.code(), Some(78));
    assert_eq!(err(&wrong), "--set shards: shards must be from 1 to 64\n");
    // An address that nobody has: what was taken from the environment is what was tried.
    let variables = [
        ("VENCEJO__LISTENERS__0__ADDRESS", "192.0.2.1:1"),
        ("VENCEJO__STORAGE__LEVEL", "memory"),
    ];
    let tried = vencejo(&folder, "serve", &variables);
    assert_eq!(tried.status.code(), Some(69));
    assert!(err(&tried).contains("192.0.2.1:1"), "{}", err(&tried));
}

/// Limits change at SIGHUP, and the one that cannot is named in the log.
#[test]
fn sighup_takes_limits_over_and_says_which_one_waits_for_the_next_start() {
    let folder = TempFolder::new();
    let write = |limits: &str| folder.write("vencejo.toml", format!("[limits]\n{limits}\n"));
    let path = write("memory_max_bytes = \"100MiB\"");
    let args = ["-c", &path, "--listen", "127.0.0.1:0", "--level", "memory"];
    let served = Served::start(&folder, &args);
    let wait_for = |text: &str| {
        let until = Instant::now() + DEADLINE;
        while !served.log().contains(text) {
            assert!(Instant::now() < until, "no {text}: {}", served.log());
            std::thread::yield_now();
        }
    };
    wait_for("bytes=104857600");
    write("memory_max_bytes = \"200MiB\"");
    served.process.signal("HUP");
    wait_for("configuration reloaded");
    let log = served.log();
    assert!(log.contains("bytes=209715200"), "{log}");
    assert!(!log.contains("at the next start only"), "{log}");
    write("memory_max_bytes = \"200MiB\"\nlogin_threads = 9");
    served.process.signal("HUP");
    wait_for("these settings change at the next start only");
    let log = served.log();
    assert!(log.contains("limits.login_threads"), "{log}");
}
