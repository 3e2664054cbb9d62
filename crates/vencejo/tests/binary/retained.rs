//! `vencejo retained`: what it lists, removes and moves.
//!
//! Owns: a server with three of them. Does not own: how `sub` shows them (see `messages`). Start reading at [`with_retained`].
//! Invariant: what is expected has an order, whatever the server's is.

use std::process::Output;

use crate::program::{Served, fed, run, succeeded, text, vencejo};

/// Runs `vencejo retained`.
fn retained(served: &Served, args: &[&str]) -> Output {
    let (command, rest) = args.split_first().expect("a command");
    run(&[&["retained", command, "-p", &served.port], rest].concat())
}

/// What is printed, in an order of its own.
fn sorted(output: &Output) -> Vec<String> {
    let printed = text(&output.stdout);
    let mut lines: Vec<String> = printed.lines().map(|line| line.trim().to_owned()).collect();
    lines.sort();
    lines
}

/// A server that has three retained messages.
fn with_retained() -> Served {
    let served = Served::in_memory();
    for (topic, payload) in [("house/a", "one"), ("house/b", "two"), ("garden", "three")] {
        served.publish(&[
            "-t",
            topic,
            "-m",
            payload,
            "-r",
            "-q",
            "1",
            "-D",
            "publish",
            "content-type",
            "text",
        ]);
    }
    served
}

#[test]
fn retained_messages_are_listed_shown_and_removed() {
    let served = with_retained();
    let listed = retained(&served, &["ls", "house/#"]);
    assert_eq!(
        sorted(&listed),
        ["3  house/a", "3  house/b"],
        "{}",
        text(&listed.stderr)
    );
    assert_eq!(
        text(&retained(&served, &["get", "garden"]).stdout),
        "three\n"
    );
    assert_eq!(
        retained(&served, &["get", "nothing"]).status.code(),
        Some(1)
    );
    let dry = retained(&served, &["rm", "house/#", "--dry-run"]);
    assert_eq!(sorted(&dry), ["house/a", "house/b"]);
    assert_eq!(
        sorted(&retained(&served, &["ls"])).len(),
        3,
        "nothing is removed"
    );
    let removed = retained(&served, &["rm", "house/#"]);
    assert!(
        text(&removed.stderr).contains("2 removed, 0 refused"),
        "{}",
        text(&removed.stderr)
    );
    assert_eq!(sorted(&retained(&served, &["ls"])), ["5  garden"]);
}

#[test]
fn retained_messages_move_by_a_file_and_from_server_to_server() {
    let (old, new) = (with_retained(), Served::in_memory());
    let exported = retained(&old, &["export", "house/#"]);
    let import = vencejo(&["retained", "import", "-p", &new.port]);
    succeeded(&fed(import, &exported.stdout));
    let arrived = retained(&new, &["get", "house/b", "--json"]);
    let arrived: serde_json::Value = serde_json::from_slice(&arrived.stdout).expect("is JSON");
    let expected = serde_json::json!({ "topic": "house/b", "qos": 1, "payload": "two", "content_type": "text" });
    assert_eq!(arrived, expected);
    // The rest from server to server.
    let from = format!("mqtt://127.0.0.1:{}", old.port);
    succeeded(&run(&[
        "import", "retained", &from, "-p", &new.port, "-t", "garden",
    ]));
    assert_eq!(sorted(&retained(&new, &["ls"])).len(), 3);
}
