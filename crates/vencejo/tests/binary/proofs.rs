//! The tools prove who they are without sending a password.
//!
//! Owns: `--auth-method` against a real server. Does not own: the exchange (see the tests of `client` and `server`).
//! Start reading at [`user_logs_in_by_scram_and_no_password_is_sent`]. Invariant: no password is seen in any output.

use std::process::Output;

use crate::program::{Served, TempFolder, run, text};

#[test]
fn user_logs_in_by_scram_and_no_password_is_sent() {
    let folder = TempFolder::new();
    let listen = ["--listen", "127.0.0.1:0", "--shards", "2"];
    let served = Served::start(&folder, &[&listen[..], &["--data", "data"]].concat());
    folder.add_user("anna", "secret word");
    let by_scram = ["--auth-method", "SCRAM-SHA-256", "-u", "anna"];
    let said = |output: &Output| text(&[&output.stdout[..], &output.stderr].concat());
    let publish = |args: &[&str]| {
        let message = ["-t", "a", "-m", "x", "-d"];
        served.tool("pub", &[&message[..], args].concat())
    };
    let good = publish(&[&by_scram[..], &["-P", "secret word"]].concat());
    assert_eq!(good.status.code(), Some(0), "{}", said(&good));
    assert!(!said(&good).contains("secret"), "{}", said(&good));
    let wrong = publish(&[&by_scram[..], &["-P", "other"]].concat());
    assert_eq!(wrong.status.code(), Some(134), "{}", said(&wrong));
    let by_password = publish(&["-u", "anna", "-P", "secret word"]);
    assert_eq!(by_password.status.code(), Some(0), "{}", said(&by_password));
}

#[test]
fn what_cannot_be_proven_is_a_mistake_on_the_command_line() {
    let scram = ["--auth-method", "SCRAM-SHA-256"];
    for (args, expected) in [
        (&["-u", "anna"][..], "needs a password"),
        (&["-P", "word"][..], "needs a user name"),
        (
            &["-u", "anna", "-P", "word", "-V", "3.1.1"][..],
            "needs MQTT 5.0",
        ),
    ] {
        let all = [&["pub", "-t", "a", "-m", "x"][..], &scram, args].concat();
        let output = run(&all);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(expected), "{said}");
    }
}
