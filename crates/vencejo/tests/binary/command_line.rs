//! The command line: names that the program is called by, the demonstration, its pages, how it is stopped.
//!
//! Owns: what no other file of these tests does. Does not own: mistakes (see `mistakes`), messages (see `messages`). Start
//! reading at any test. Invariant: every wait has a deadline.

use std::process::Output;

use crate::program::{self, Running, Served, TempFolder, kill, run, succeeded, text, vencejo};

#[test]
fn the_demonstration_shows_a_first_message_and_leaves() {
    let said = succeeded(&run(&["demo", "--exit"]));
    assert!(said.contains("First message: demo/hello it works!"));
}

#[test]
fn the_demonstration_stays_up_with_its_devices() {
    let mut demo = Running::start_unheard(vencejo(&["demo"]));
    let line = demo.line_with("mqtt://");
    let address = line.split_once("127.0.0.1:").map_or("", |(_, rest)| rest);
    let port = address.split_whitespace().next().unwrap_or_default();
    demo.line_with("Ctrl-C");
    let args = [
        "sub",
        "-p",
        port,
        "-t",
        "home/+/status",
        "-v",
        "-C",
        "4",
        "-W",
        "20",
    ];
    let output = run(&args);
    let mut lines: Vec<String> = text(&output.stdout).lines().map(str::to_owned).collect();
    lines.sort();
    let expected =
        ["cellar", "garden", "kitchen", "lamp"].map(|name| format!("home/{name}/status online"));
    assert_eq!(lines, expected);
    demo.signal("INT");
    assert_eq!(demo.code(), Some(0));
}

/// `timeout` and some supervisors send a signal to a process and once more to its group.
#[test]
fn one_signal_that_comes_twice_stops_in_peace() {
    let mut served = Served::in_memory();
    let _subscriber = served.subscriber(&["-t", "a"]);
    let pid = served.process.pid().to_string();
    assert!(kill("TERM", &[&pid, &pid]), "kill");
    assert_eq!(served.process.code(), Some(0));
}

/// In a folder where nothing is configured.
fn as_mosquittos(tool: &str, args: &[&str]) -> Output {
    program::as_mosquittos(&TempFolder::new(), tool, args)
}

#[test]
fn called_as_mosquittos_tools_it_is_one_of_them() {
    let served = Served::in_memory();
    let port = ["-p", &served.port];
    let args = [&port[..], &["-t", "a", "-m", "x", "-r", "-q", "1", "-d"]].concat();
    succeeded(&as_mosquittos("pub", &args));
    let output = as_mosquittos(
        "sub",
        &[&port[..], &["-t", "a", "-C", "1", "-F", "%j"]].concat(),
    );
    // 3.1.1, as mosquitto has it: 5.0 would be the same here, but for refusals.
    assert!(
        text(&output.stdout).contains("\"retain\":1"),
        "{}",
        text(&output.stderr)
    );
    let output = as_mosquittos("sub", &port);
    assert_eq!(output.status.code(), Some(1));
    let said = "Error: You must specify a topic to subscribe to.\n\nUse 'mosquitto_sub --help' to see usage.\n";
    assert_eq!(text(&output.stderr), said);
    let output = as_mosquittos("pub", &["--nonsense"]);
    assert_eq!(output.status.code(), Some(1));
}

/// The command that the name stands for is no word of the line that was typed.
#[test]
fn called_as_mosquittos_tools_it_helps_by_their_names() {
    for (tool, flag) in [
        ("pub", "--stdin-line"),
        ("sub", "--random-filter"),
        ("rr", "--response-topic"),
    ] {
        let help = succeeded(&as_mosquittos(tool, &["--help"]));
        let usage = format!("Usage: mosquitto_{tool} [OPTIONS]\n");
        assert!(help.contains(&usage) && help.contains(flag), "{help}");
        let version = succeeded(&as_mosquittos(tool, &["--version"]));
        assert!(
            version.starts_with(&format!("mosquitto_{tool} of vencejo ")),
            "{version}"
        );
        let wrong = as_mosquittos(tool, &["--nonsense"]);
        assert!(
            text(&wrong.stderr).contains(&usage),
            "{}",
            text(&wrong.stderr)
        );
    }
}

#[test]
fn completions_and_pages_of_the_manual_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = run(&["completions", shell]);
        assert!(text(&output.stdout).contains("retained"), "{shell}");
    }
    let page = text(&run(&["man", "sub"]).stdout);
    assert!(page.contains(".TH") && page.contains("random"), "{page}");
    // At the foot of each page stands the program, and not the last word of the command.
    let page = text(&run(&["man", "user", "add"]).stdout);
    let head = page.lines().find(|line| line.starts_with(".TH"));
    let foot = concat!("\"vencejo ", env!("CARGO_PKG_VERSION"), "\"");
    assert!(head.is_some_and(|head| head.contains(foot)), "{head:?}");
    let folder = TempFolder::new();
    succeeded(&run(&["man", "-o", &folder.path("pages")]));
    for file in [
        "vencejo.1",
        "vencejo-serve.1",
        "vencejo-pub.1",
        "vencejo-config.1",
        "vencejo-config-explain.1",
        "vencejo-user-add.1",
    ] {
        assert!(folder.join("pages").join(file).is_file(), "{file}");
    }
}
