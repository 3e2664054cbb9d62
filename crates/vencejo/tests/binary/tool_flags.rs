//! Flags of `pub`, `sub` and `rr` that mosquitto's tools have since 2.1, and those that are ours alone.
//!
//! Owns: what they print, and what they write. Does not own: flags that can be compared with mosquitto's tools
//! (`interop/run flags`), how a payload is decoded (unit tests). Start reading at any test. Invariant: every wait has a deadline.

use std::os::unix::fs::PermissionsExt as _;

use crate::program::{
    Running, Served, TempFolder, as_mosquittos, output, run, succeeded, text, undisturbed,
};

/// All that a process still prints, until it ends with 0.
#[track_caller]
fn rest(mut process: Running) -> String {
    let mut rest = String::new();
    loop {
        let line = process.line();
        if line.is_empty() {
            break;
        }
        rest.push_str(&line);
        rest.push('\n');
    }
    assert_eq!(process.code(), Some(0), "{rest}");
    rest
}

#[test]
fn each_topic_is_subscribed_to_with_its_own_quality() {
    let served = Served::in_memory();
    let granted = |args: &[&str]| {
        let said = served.ask("sub", &[args, &["-d", "-E"]].concat());
        let line = said.lines().find(|line| line.starts_with("Subscribed"));
        line.and_then(|line| line.split_once("): "))
            .map(|(_, granted)| granted.to_owned())
    };
    let two = ["-t", "a", "-q", "0", "-t", "b", "-q", "2"];
    assert_eq!(granted(&two).as_deref(), Some("0, 2"));
    let all = ["-t", "a", "-t", "b", "-q", "1"];
    assert_eq!(granted(&all).as_deref(), Some("1, 1"));
    let wrong = served.tool("sub", &[&two[..], &["-t", "c", "-E"]].concat());
    assert_eq!(wrong.status.code(), Some(1));
    let said = text(&wrong.stderr);
    assert!(said.contains("-q is given 2 times for 3 topics"), "{said}");
    // To mosquitto's tools the last one counts.
    let folder = TempFolder::new();
    let line = [&["-p", &served.port, "-d", "-E"], &two[..]].concat();
    let said = succeeded(&as_mosquittos(&folder, "sub", &line));
    assert!(said.contains("): 2, 2"), "{said}");
}

#[test]
fn watched_topics_keep_their_lines() {
    let served = Served::in_memory();
    let watch = served.subscriber(&["-t", "w/#", "-v", "-w", "-C", "4"]);
    for (topic, payload) in [
        ("w/a", "1"),
        ("w/b", "two\nlines \x1b[2J"),
        ("w/a", "3"),
        ("w/c", "4"),
    ] {
        served.publish(&["-t", topic, "-m", payload, "-q", "1"]);
    }
    let seen = rest(watch);
    let mut at = 0;
    for piece in [
        "\x1b[2;1H\x1b[2Kw/a 1",
        "\x1b[3;1H\x1b[2Kw/b two\\nlines \\u{1b}[2J",
        "\x1b[2;1H\x1b[2Kw/a 3",
        "\x1b[4;1H\x1b[2Kw/c 4\x1b[5;1H",
    ] {
        let found = seen[at..].find(piece);
        assert!(found.is_some(), "{piece:?} in {seen:?}");
        at += found.unwrap_or_default() + piece.len();
    }
}

/// It begins with a clear screen that says where the messages come from.
#[test]
fn a_watch_begins_with_where_it_looks() {
    let served = Served::in_memory();
    let said = served.ask("sub", &["-t", "a", "-w", "-E"]);
    assert_eq!(said, "\x1b[2J\x1b[1;1H\x1b[2KBroker: localhost\x1b[2;1H");
}

#[test]
fn messages_are_counted_by_the_second() {
    let served = Served::in_memory();
    let mut rate = served.subscriber(&["-t", "r", "--message-rate", "-w", "-v"]);
    served.publish(&["-t", "r", "-m", "unseen", "-q", "1", "--repeat", "5"]);
    let mut counted = 0;
    while counted < 5 {
        let line = rate.line();
        assert!(!line.is_empty() && !line.contains("unseen"), "{line}");
        let count = line.strip_suffix(" msgs/s").map(str::parse::<u32>);
        assert!(count.is_some() || line.starts_with("Client "), "{line}");
        counted += count.map_or(0, |count| count.expect("a number"));
    }
    assert_eq!(counted, 5);
    rate.stop();
}

#[test]
fn payloads_are_shown_in_forms_of_their_own() {
    let folder = TempFolder::new();
    let served = Served::in_memory();
    let map = folder.write(
        "map.cbor",
        b"\xa2\x61t\xfb\x40\x35\x80\0\0\0\0\0\x61u\x63\xc2\xb0C",
    );
    let list = folder.write("list.msgpack", b"\x93\x01\xc3\xa1x");
    let mut cbor = served.subscriber(&["-t", "p", "-F", "cbor", "-v"]);
    let mut auto = served.subscriber(&["-t", "#", "-F", "auto", "--pretty", "-v"]);
    let mut msgpack = served.subscriber(&["-t", "p/m", "-F", "msgpack"]);
    served.publish(&["-t", "p", "-f", &map]);
    served.publish(&["-t", "p/m", "-f", &list]);
    served.publish(&["-t", "plain", "-m", "21.5"]);
    assert_eq!(cbor.line_with("p {"), "p {\"t\":21.5,\"u\":\"°C\"}");
    assert_eq!(msgpack.line_with("["), "[1,true,\"x\"]");
    assert_eq!(auto.line_with("p {"), "p {");
    assert_eq!(auto.line(), "\t\"t\":\t21.5,");
    assert_eq!(auto.line_with("p/m "), "p/m [1, true, \"x\"]");
    assert_eq!(auto.line_with("plain "), "plain 21.5");
    // What is not of the form is said, as mosquitto says it of JSON; the message counts.
    served.publish(&["-t", "kept", "-m", "text", "-r", "-q", "1"]);
    let wrong = served.tool("sub", &["-t", "kept", "-F", "sparkplug", "-C", "1"]);
    assert_eq!(wrong.status.code(), Some(0));
    assert_eq!(text(&wrong.stdout), "\n");
    let said = text(&wrong.stderr);
    let words = "Error: Message payload is not valid Sparkplug B";
    assert!(
        said.starts_with(words) && said.ends_with("on topic kept.\n"),
        "{said}"
    );
}

#[test]
fn a_response_says_how_long_it_took() {
    let served = Served::in_memory();
    served.publish(&["-t", "answer", "-m", "42", "-r", "-q", "1"]);
    let ask = ["-t", "ask", "-e", "answer", "-m", "?", "--latency"];
    let said = served.ask("rr", &ask);
    let (answer, latency) = said.split_once('\n').expect("two lines");
    assert_eq!(answer, "42");
    let time = latency
        .strip_prefix("Latency: ")
        .unwrap_or_default()
        .trim_end();
    let number = time.trim_end_matches(['n', 'µ', 'm', 's']);
    assert!(
        number.parse::<f64>().is_ok_and(|number| number > 0.0),
        "{said}"
    );
}

/// With the secrets a recorded connection can be read; nobody else gets them.
#[test]
fn the_secrets_of_tls_are_written_where_they_are_asked_for() {
    let folder = TempFolder::new();
    let tls = folder.path("tls");
    succeeded(&run(&["tls", "init", &tls]));
    let config = folder.write(
        "vencejo.toml",
        format!(
            "[[listeners]]\naddress = \"127.0.0.1:0\"\n\
             tls = {{ certificate = \"{tls}/server.pem\", key = \"{tls}/server.key\" }}\n"
        ),
    );
    let served = Served::start(&folder, &["-c", &config, "--level", "memory"]);
    let (ca, keys) = (format!("{tls}/ca.pem"), folder.path("keys"));
    let secured = ["-t", "a", "-m", "x", "--cafile", &ca, "--tls-keylog", &keys];
    let secrets = |words: &[&str]| {
        served.publish(&[&secured[..], words].concat());
        let written = folder.read("keys");
        let lines: Vec<String> = written.lines().map(str::to_owned).collect();
        lines
    };
    let first = secrets(&["--tls-version", "tlsv1.2"]);
    assert_eq!(first.len(), 1, "{first:?}");
    let words: Vec<&str> = first[0].split(' ').collect();
    let is_hex = |word: &str| word.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert_eq!(words.len(), 3);
    assert_eq!(
        (words[0], words[1].len(), words[2].len()),
        ("CLIENT_RANDOM", 64, 96)
    );
    assert!(is_hex(words[1]) && is_hex(words[2]), "{words:?}");
    // The next connection's stand behind them.
    let both = secrets(&["--tls-version", "tlsv1.3"]);
    assert_eq!(both[0], first[0]);
    let has = |label: &str| both.iter().any(|line| line.starts_with(label));
    assert!(
        has("CLIENT_TRAFFIC_SECRET_0 ") && has("SERVER_TRAFFIC_SECRET_0 "),
        "{both:?}"
    );
    let mode = folder
        .join("keys")
        .metadata()
        .expect("is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let plain = served.tool("pub", &["-t", "a", "-m", "x", "--tls-keylog", &keys]);
    let said = text(&plain.stderr);
    assert!(said.contains("--tls-keylog needs --cafile"), "{said}");
    let nowhere = [
        "-t",
        "a",
        "-m",
        "x",
        "--cafile",
        &ca,
        "--tls-keylog",
        "/nowhere/keys",
    ];
    let said = text(&served.tool("pub", &nowhere).stderr);
    assert!(said.contains("/nowhere/keys: No such file"), "{said}");
}

#[test]
fn options_come_from_a_file_before_those_of_the_line() {
    let folder = TempFolder::new();
    let served = Served::in_memory();
    let mut subscriber = served.subscriber(&["-t", "o/#", "-v"]);
    let options = format!(
        "# of a test\n-p {}\n-m from a file\n\n-t o/file\n",
        served.port
    );
    let file = folder.write("options", &options);
    succeeded(&run(&["pub", "-o", &file]));
    assert_eq!(subscriber.line_with(" from a"), "o/file from a file");
    succeeded(&run(&["pub", "-t", "o/line", "-o", &file]));
    assert_eq!(subscriber.line_with(" from a"), "o/line from a file");
    let wrong = run(&["sub", "-t", "a", "-o", "/nowhere/options"]);
    assert_eq!(wrong.status.code(), Some(1));
    let said = text(&wrong.stderr);
    assert!(
        said.starts_with("Error: /nowhere/options: No such file"),
        "{said}"
    );
    // A value that looks like it is one.
    succeeded(&run(&[
        "pub",
        "-o",
        &file,
        "-t",
        "o/value",
        "-m",
        "-o from a",
    ]));
    assert_eq!(subscriber.line_with(" from a"), "o/value -o from a");
    // mosquitto's tools read the one that has their name; ours do not.
    folder.write("mosquitto_pub", &options);
    succeeded(&as_mosquittos(&folder, "pub", &["-t", "o/theirs"]));
    assert_eq!(subscriber.line_with(" from a"), "o/theirs from a file");
    let mut ours = undisturbed(crate::program::VENCEJO);
    ours.args(["pub", "-t", "o/ours"]);
    ours.env("XDG_CONFIG_HOME", folder.path(""));
    assert_eq!(output(ours).status.code(), Some(1));
}

/// The connection is what a profile says, but for TLS.
#[test]
fn no_tls_leaves_out_what_a_profile_says_of_it() {
    let folder = TempFolder::new();
    let served = Served::in_memory();
    let with = |words: &[&str]| {
        let mut command = folder.vencejo(words);
        command.env("XDG_CONFIG_HOME", folder.path(""));
        output(command)
    };
    let tls = folder.path("tls");
    succeeded(&run(&["tls", "init", &tls]));
    let ca = format!("{tls}/ca.pem");
    let add = [
        "profile",
        "add",
        "home",
        "-h",
        "localhost",
        "-p",
        &served.port,
        "--cafile",
        &ca,
    ];
    succeeded(&with(&add));
    let publish = ["pub", "--profile", "home", "-t", "a", "-m", "x"];
    assert_eq!(with(&publish).status.code(), Some(1));
    succeeded(&with(&[&publish[..], &["--no-tls"]].concat()));
}
