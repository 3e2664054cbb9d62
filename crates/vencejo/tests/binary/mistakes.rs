//! Mistakes on the command line and in files: their words, and the exit codes.
//!
//! Owns: the tables. Does not own: mistakes in a configuration, one by one (unit tests). Start reading at [`assert_refused`].
//! Invariant: a mistake prints nothing to standard output.

use crate::program::{Served, TempFolder, message, run, text};

fn assert_refused(args: &[&str], code: i32, words: &str) {
    let output = run(args);
    assert_eq!(output.status.code(), Some(code), "{args:?}");
    let said = text(&output.stderr);
    assert!(said.contains(words), "{args:?}: {said}");
    assert_eq!(text(&output.stdout), "", "{args:?}");
}

#[test]
fn mistakes_come_with_what_to_do() {
    let cases: [(&[&str], i32, &str); 5] = [
        (
            &["pub", "-p", "1", "-t", "a", "-m", "b"],
            1,
            "Nothing listens at localhost port 1; is the server running?",
        ),
        (
            &["pub", "-h", "127.0.0.1:1883", "-t", "a", "-m", "b"],
            1,
            "Unable to connect (Lookup error.). There is no host \"127.0.0.1:1883\". The port goes to -p.",
        ),
        (
            &["sub", "-t", "a", "--cafile", "/nowhere/ca.crt"],
            1,
            "Error: /nowhere/ca.crt: No such file or directory",
        ),
        (
            &["serve", "--listen", "localhost:1884"],
            2,
            "wanted an address and a port, like 127.0.0.1:1884",
        ),
        (
            &["serve", "--listen", "203.0.113.9:1884", "--level", "memory"],
            69,
            "no network interface of this machine has that address",
        ),
    ];
    for (args, code, words) in cases {
        assert_refused(args, code, words);
    }
}

#[test]
fn mistakes_have_their_words_and_exit_codes() {
    let served = Served::in_memory();
    let cases: [(&[&str], i32, &str); 8] = [
        (
            &["pub", "-t", "a/#", "-m", "x"],
            1,
            "Error: Invalid publish topic 'a/#', does it contain '+' or '#'?",
        ),
        (
            &["pub", "-t", "a"],
            1,
            "Error: Both topic and message must be supplied.",
        ),
        (
            &["pub", "-p", "1", "-t", "a", "-m", "b"],
            1,
            "Error: Connection refused",
        ),
        (
            &["sub", "-t", "a", "-q", "3"],
            1,
            "Error: Invalid QoS given: 3",
        ),
        (
            &["sub", "-t", "a", "-F", "%z"],
            1,
            "Error: Invalid format specifier 'z'.",
        ),
        (
            &["sub", "--nonsense"],
            1,
            "unexpected argument '--nonsense'",
        ),
        (
            &["serve", "--nonsense"],
            2,
            "unexpected argument '--nonsense'",
        ),
        (
            &["serve", "-c", "no/such/file.toml"],
            78,
            "no/such/file.toml",
        ),
    ];
    for (args, code, words) in cases {
        assert_refused(args, code, words);
    }
    let address = format!("127.0.0.1:{}", served.port);
    let output = run(&["serve", "--listen", &address, "--level", "memory"]);
    assert_eq!(output.status.code(), Some(69));
    let said = text(&output.stderr);
    let expected = format!(
        "{} is used by vencejo (pid {}): stop it",
        served.port,
        served.process.pid()
    );
    assert!(
        said.starts_with(&expected) || !cfg!(target_os = "linux"),
        "{said}"
    );
}

#[test]
fn a_wrong_configuration_is_pointed_at() {
    let folder = TempFolder::new();
    let path = folder.write("wrong.toml", "shards = 2\n[limits]\nrecieve_maximum = 10\n");
    let output = run(&["serve", "-c", &path]);
    assert_eq!(output.status.code(), Some(78));
    let said = text(&output.stderr);
    assert!(
        said.contains(":3:1: unknown key `recieve_maximum`"),
        "{said}"
    );
    assert!(said.contains("did you mean `receive_maximum`?"), "{said}");
}

#[test]
fn a_word_that_no_flag_takes_is_pointed_at() {
    let cases: [(&[&str], &str); 4] = [
        (
            &["pub", "-t", "a", "-m", "b", "-pf", "yes"],
            "-pf takes no value.",
        ),
        (
            &["pub", "-t", "a", "-m", "b", "-r", "1"],
            "-r takes no value.",
        ),
        (&["sub", "-t", "a", "-nl", "true"], "-nl takes no value."),
        (
            &["pub", "-t", "a", "b"],
            "\"b\" belongs to no flag: a topic is -t, a message -m.",
        ),
    ];
    for (args, words) in cases {
        assert_refused(args, 1, words);
    }
    let served = Served::in_memory();
    let mut subscriber = served.subscriber(&["-t", "p", "-F", "%F %p", "-V", "5"]);
    served.publish(&["-t", "p", "-m", "x", "-pf", "1"]);
    assert_eq!(message(&mut subscriber), "1 x");
}
