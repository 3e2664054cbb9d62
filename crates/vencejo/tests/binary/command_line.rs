//! The command line: `serve`, `pub`, `sub`, `demo` and the other tools, and what they do together.
//!
//! Owns: exit codes, output, what tools and server do together. Does not own: formats (unit tests), processes (see
//! `program`). Start reading at [`messages_pass_in_every_version_and_quality`]. Invariant: every wait has a deadline.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use crate::program::{
    DEADLINE, Running, Served, TempFolder, VENCEJO, fed, kill, output, run, succeeded, text,
    undisturbed, vencejo,
};

/// The next line of a `-d` subscriber that is not about packets.
fn message(subscriber: &mut Running) -> String {
    loop {
        let line = subscriber.line();
        if !line.starts_with("Client ") {
            return line;
        }
    }
}

#[test]
fn messages_pass_in_every_version_and_quality() {
    let served = Served::in_memory();
    for version in ["3.1", "3.1.1", "5"] {
        let filter = format!("v/{version}/#");
        let mut subscriber = served.subscriber(&["-t", &filter, "-q", "2", "-v", "-V", version]);
        for qos in ["0", "1", "2"] {
            for from in ["mqttv31", "mqttv311", "mqttv5"] {
                let topic = format!("v/{version}/{qos}");
                served.publish(&["-t", &topic, "-m", from, "-q", qos, "-V", from]);
                assert_eq!(message(&mut subscriber), format!("{topic} {from}"));
            }
        }
    }
}

#[test]
fn lines_of_standard_input_keep_their_order() {
    let served = Served::in_memory();
    for qos in ["0", "1", "2"] {
        let mut subscriber = served.subscriber(&["-t", "lines", "-q", qos]);
        let lines: String = (0..500).map(|number| format!("line {number}\n")).collect();
        let publisher = vencejo(&["pub", "-p", &served.port, "-t", "lines", "-q", qos, "-l"]);
        succeeded(&fed(publisher, lines.as_bytes()));
        for number in 0..500 {
            assert_eq!(message(&mut subscriber), format!("line {number}"));
        }
    }
}

/// `pub -l` goes on where the server was when it comes back, as mosquitto_pub does, and loses nothing.
#[test]
fn lines_go_on_when_the_server_comes_back() {
    let mut broker = vencejo_test::Broker::start();
    let port = broker.addr().port().to_string();
    let mut publisher = vencejo(&["pub", "-p", &port, "-t", "lines", "-q", "2", "-l"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("the tool runs");
    let mut input = publisher.stdin.take().expect("standard input is a pipe");
    let patience = Duration::from_secs(20);
    for (number, fails) in [true, true, false].into_iter().enumerate() {
        let line = format!("line {number}\n");
        input.write_all(line.as_bytes()).expect("the tool reads");
        let seen = broker.expect_publish("lines").within_blocking(patience);
        assert_eq!(seen.payload, line.trim_end());
        if fails {
            broker.kill();
            broker.restart();
        }
    }
    drop(input);
    assert!(publisher.wait().is_ok_and(|status| status.success()));
    assert_eq!(broker.published().len(), 3);
}

#[test]
fn a_kept_session_loses_nothing_to_a_count() {
    let served = Served::in_memory();
    let session = ["-c", "-i", "worker", "-q", "1", "-t", "jobs"];
    served.ask("sub", &[&session[..], &["-E"]].concat());
    for job in ["a", "b", "c"] {
        served.publish(&["-t", "jobs", "-m", job, "-q", "1"]);
    }
    for job in ["a\n", "b\n", "c\n"] {
        let output = served.tool("sub", &[&session[..], &["-C", "1", "-W", "20"]].concat());
        assert_eq!(text(&output.stdout), job, "{}", text(&output.stderr));
    }
}

#[test]
fn retained_messages_are_shown_filtered_and_removed() {
    let served = Served::in_memory();
    for topic in ["r/a", "r/b"] {
        served.publish(&["-t", topic, "-m", "kept", "-r", "-q", "1"]);
    }
    let output = served.tool(
        "sub",
        &["-t", "r/#", "-v", "-C", "1", "-T", "r/a", "-W", "20"],
    );
    assert_eq!(text(&output.stdout), "r/b kept\n");
    served.ask(
        "sub",
        &["-t", "r/#", "-C", "2", "-W", "20", "--remove-retained"],
    );
    let output = served.tool("sub", &["-t", "r/#", "-v", "-W", "1"]);
    assert_eq!(
        (text(&output.stdout).as_str(), output.status.code()),
        ("", Some(27))
    );
    assert_eq!(text(&output.stderr), "Timed out\n");
}

#[test]
fn properties_travel() {
    let served = Served::in_memory();
    let mut subscriber = served.subscriber(&["-t", "p", "-F", "%C|%P|%R|%D|%p"]);
    let flags = "-t p -m x -D publish content-type text -D publish user-property k v \
         -D publish user-property k w -D publish response-topic r -D publish correlation-data c";
    let flags: Vec<&str> = flags.split_whitespace().collect();
    served.publish(&flags);
    assert_eq!(message(&mut subscriber), "text|k:v k:w|r|c|x");
}

#[test]
fn a_subscriber_comes_back_after_the_server_does() {
    let mut served = Served::in_memory();
    let port = served.port.clone();
    let mut subscriber = served.subscriber(&["-t", "again", "-q", "1"]);
    served.process.stop();
    let served = Served::in_memory_at(&format!("127.0.0.1:{port}"));
    assert!(subscriber.line_with("Subscribed").starts_with("Subscribed"));
    served.publish(&["-t", "again", "-m", "back", "-q", "1"]);
    assert_eq!(message(&mut subscriber), "back");
}

#[test]
fn a_will_speaks_for_a_killed_subscriber() {
    let served = Served::in_memory();
    let mut watcher = served.subscriber(&["-t", "wills", "-v"]);
    let will = ["-t", "x", "--will-topic", "wills", "--will-payload", "gone"];
    let killed = served.subscriber(&will);
    killed.signal("KILL");
    assert_eq!(message(&mut watcher), "wills gone");
    let mut polite = served.subscriber(&will);
    polite.stop();
    served.publish(&["-t", "wills", "-m", "none before this"]);
    assert_eq!(message(&mut watcher), "wills none before this");
}

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

#[test]
fn a_message_too_large_is_not_sent() {
    let served = Served::in_memory();
    let folder = TempFolder::new();
    let path = folder.write("large", vec![b'x'; 2 * 1024 * 1024]);
    let output = served.tool("pub", &["-t", "a", "-f", &path]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert_eq!(
        said,
        "Error: the packet is larger than the server accepts.\n"
    );
}

#[test]
fn a_payload_need_not_be_text() {
    use std::os::unix::ffi::OsStrExt;

    let served = Served::in_memory();
    let mut subscriber = served.subscriber(&["-t", "bytes", "-F", "%x"]);
    let mut command = vencejo(&["pub", "-p", &served.port, "-t", "bytes", "-m"]);
    command.arg(std::ffi::OsStr::from_bytes(&[0xff, 0x01, 0xfe]));
    succeeded(&output(command));
    assert_eq!(message(&mut subscriber), "ff01fe");
}

#[test]
fn a_publisher_that_was_thrown_out_says_why() {
    let served = Served::in_memory();
    let deep = "a/".repeat(200);
    // At QoS 0 nothing is answered, so only one that stays for a while hears of it.
    let stays = ["--repeat", "200", "--repeat-delay", "0.1"];
    let output = served.tool("pub", &[&["-t", &deep, "-m", "x"], &stays[..]].concat());
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("Topic Name invalid"), "{said}");
    let output = served.tool("sub", &["-t", &deep, "-W", "20"]);
    let said = text(&output.stderr);
    assert_eq!(
        said,
        "All subscription requests were denied: Topic Filter invalid.\n"
    );
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

/// A server that speaks 3.1.1 only; the protocol levels of the CONNECT packets it got.
fn old_server(listener: TcpListener) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut levels = Vec::new();
        for _ in 0..2 {
            let (mut socket, _) = listener.accept().expect("a connection");
            socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
            let mut connect = [0; 1024];
            let read = socket.read(&mut connect).expect("a CONNECT");
            // Fixed Header of two bytes, then the name: length, "MQTT".
            let level = connect[..read].get(8).copied().unwrap_or_default();
            levels.push(level);
            let code = u8::from(level != 4);
            socket
                .write_all(&[0x20, 2, 0, code])
                .expect("the client reads");
            // Until the client closes.
            socket.read_to_end(&mut Vec::new()).ok();
        }
        levels
    })
}

#[test]
fn a_server_of_old_is_spoken_to_in_its_version() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener
        .local_addr()
        .expect("an address")
        .port()
        .to_string();
    let server = old_server(listener);
    let output = run(&["pub", "-p", &port, "-t", "a", "-m", "b"]);
    succeeded(&output);
    assert!(text(&output.stderr).contains("trying again as 3.1.1"));
    assert_eq!(server.join().expect("it ends"), [5, 4]);
}

#[test]
fn a_closed_pipe_ends_a_subscriber_quietly() {
    let served = Served::in_memory();
    let mut subscriber = vencejo(&["sub", "-p", &served.port, "-t", "pipe"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(subscriber.stdout.take());
    // Retained, so that it does not matter who comes first.
    served.publish(&["-t", "pipe", "-m", "x", "-r"]);
    let output = subscriber.wait_with_output().expect("it ends");
    assert_eq!(
        (output.status.code(), text(&output.stderr).as_str()),
        (Some(141), "")
    );
}

/// Asks again until `is_right`, for as long as anything may take.
fn until(is_right: impl Fn() -> bool) -> bool {
    let started = Instant::now();
    while started.elapsed() < DEADLINE {
        if is_right() {
            return true;
        }
    }
    false
}

#[test]
fn sighup_takes_over_a_right_file_and_a_wrong_one_changes_nothing() {
    let folder = TempFolder::new();
    let write = |anonymous: &str| {
        let text =
            format!("sys_interval = \"1s\"\n[authentication]\nanonymous = \"{anonymous}\"\n");
        folder.write("vencejo.toml", text)
    };
    let path = write("loopback");
    let args = ["-c", &path, "--listen", "127.0.0.1:0", "--level", "memory"];
    let served = Served::start(&folder, &args);
    served.publish(&["-t", "a", "-m", "b"]);
    let mut operator = served.subscriber(&["-t", "$SYS/broker/alarms"]);
    assert_eq!(operator.line_with("none"), "none");

    write("nobody");
    served.process.signal("HUP");
    let alarm = operator.line_with("not reloaded");
    assert!(alarm.contains(":3:13: unknown word `nobody`"), "{alarm}");
    served.publish(&["-t", "a", "-m", "b"]);

    write("never");
    served.process.signal("HUP");
    assert_eq!(operator.line_with("none"), "none");
    let refused = || served.tool("pub", &["-t", "a", "-m", "b"]).status.code() != Some(0);
    assert!(until(refused));
}

/// Our program under the name of one of mosquitto's tools.
fn as_mosquittos(tool: &str, args: &[&str]) -> Output {
    let folder = TempFolder::new();
    let link = folder.path(&format!("mosquitto_{tool}"));
    std::os::unix::fs::symlink(VENCEJO, &link).expect("a link");
    let mut command = undisturbed(link);
    command.args(args);
    output(command)
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

#[test]
fn a_request_gets_its_response_and_times_out_without_one() {
    let served = Served::in_memory();
    let mut asker = Running::start_unheard(vencejo(&[
        "rr",
        "-p",
        &served.port,
        "-t",
        "ask",
        "-e",
        "answers",
        "-m",
        "6*7",
        "-q",
        "1",
        "-v",
        "-W",
        "30",
    ]));
    // It is retained: whether the asker has subscribed already does not matter.
    served.publish(&["-t", "answers", "-m", "42", "-q", "1", "-r"]);
    assert_eq!(asker.line(), "answers 42");
    assert_eq!(asker.code(), Some(0));
    let output = served.tool(
        "rr",
        &["-t", "ask", "-e", "nobody/answers", "-m", "?", "-W", "1"],
    );
    assert_eq!(output.status.code(), Some(27));
    let output = served.tool(
        "rr",
        &["-t", "ask", "-e", "answers", "-m", "?", "-F", "json"],
    );
    assert!(
        text(&output.stdout).contains("\"payload\":\"42\""),
        "{}",
        text(&output.stdout)
    );
}

/// The response topic travels with the request, for whoever answers.
#[test]
fn a_request_says_where_the_response_is_awaited() {
    let served = Served::in_memory();
    let mut subscriber = served.subscriber(&["-t", "ask", "-F", "%R %p", "-C", "1"]);
    let output = served.tool(
        "rr",
        &[
            "-t",
            "ask",
            "-e",
            "answers/1",
            "-m",
            "?",
            "-W",
            "1",
            "-q",
            "1",
        ],
    );
    assert_eq!(output.status.code(), Some(27));
    assert_eq!(message(&mut subscriber), "answers/1 ?");
}

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

#[test]
fn probe_says_what_a_server_supports_and_leaves_nothing_behind() {
    let served = Served::in_memory();
    let server = format!("127.0.0.1:{}", served.port);
    let said = succeeded(&run(&["probe", &server, "--json"]));
    let said: serde_json::Value = serde_json::from_str(&said).expect("is JSON");
    let of = |what: &str| {
        let findings = said["findings"].as_array().expect("a list");
        let found = findings.iter().find(|one| one["what"] == what);
        found.map_or_else(String::new, |one| one["value"].to_string())
    };
    for what in [
        "MQTT 3.1",
        "MQTT 3.1.1",
        "MQTT 5.0",
        "QoS 2 round trip",
        "Shared subscription",
        "Retained message",
    ] {
        assert!(of(what).starts_with("\"yes"), "{what}: {}", of(what));
    }
    assert_eq!(of("Receive Maximum"), "1024");
    // The server takes packets of 1 MiB.
    assert_eq!(of("Largest payload tried and taken"), "\"1 MB\"");
    assert!(
        of("$SYS/broker/version").contains("encejo"),
        "{}",
        of("$SYS/broker/version")
    );
    assert_eq!(
        sorted(&retained(&served, &["ls", "vencejo-probe/#"])).len(),
        0
    );
    let nobody = run(&["probe", "127.0.0.1:1"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(
        text(&nobody.stderr).contains("Connection refused"),
        "{}",
        text(&nobody.stderr)
    );
}

#[test]
fn doctor_names_what_is_bad_and_what_mends_it() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let output = run(&["doctor", "--listen", &address, "--level", "memory"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(
        said.contains("BAD") && said.contains(&address) && said.contains("-> kill"),
        "{said}"
    );
    let output = run(&["doctor", "--set", "storage.level=wrong", "--json"]);
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("is JSON");
    assert_eq!(
        (said[0]["what"].as_str(), said[0]["state"].as_str()),
        (Some("configuration"), Some("bad"))
    );
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

/// Who is let in changes with the file, without a signal; a wrong file in between changes nothing.
#[test]
fn a_watched_file_is_taken_over_when_it_is_saved() {
    let folder = TempFolder::new();
    let write = |anonymous: &str| {
        let text = format!(
            "[[listeners]]\naddress = \"127.0.0.1:0\"\n[authentication]\nanonymous = \"{anonymous}\"\n"
        );
        folder.write("vencejo.toml", text)
    };
    let path = write("always");
    let args = ["-c", &path, "--watch", "--shards", "1", "--level", "memory"];
    let served = Served::start(&folder, &args);
    let code = || {
        let output = served.tool("pub", &["-t", "a", "-m", "b"]);
        output.status.code()
    };
    let wait_for = |wanted: i32| {
        let started = Instant::now();
        while code() != Some(wanted) {
            assert!(started.elapsed() < DEADLINE, "not {wanted} in time");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    assert_eq!(code(), Some(0));
    write("never");
    wait_for(135);
    write("nevr");
    write("always");
    wait_for(0);
}

#[test]
fn conformance_reports_what_a_server_keeps() {
    let served = Served::in_memory();
    let server = format!("127.0.0.1:{}", served.port);
    let line = ["conformance", &server, "--filter", "will v5"];
    let output = run(&line);
    let said = text(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{said}{}",
        text(&output.stderr)
    );
    assert!(
        said.contains(" passed") && said.contains("statements are kept"),
        "{said}"
    );
    let output = run(&[&line[..], &["--json"]].concat());
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("is JSON");
    assert!(
        said["passed"].as_u64() > Some(5) && said["failed"] == 0,
        "{said}"
    );
    let nobody = run(&["conformance", "127.0.0.1:1"]);
    assert_eq!(nobody.status.code(), Some(1));
}

/// A SOCKS5 proxy that takes one connection without a login; returns its address.
fn socks_proxy() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        let (mut client, _) = listener.accept().expect("a connection");
        let mut head = [0; 3];
        client.read_exact(&mut head).expect("a greeting");
        client.write_all(&[5, 0]).expect("an answer");
        let mut request = [0; 5];
        client.read_exact(&mut request).expect("a request");
        let mut rest = vec![0; usize::from(request[4]) + 2];
        client.read_exact(&mut rest).expect("a name and a port");
        let (name, port) = rest.split_at(rest.len() - 2);
        let port = u16::from_be_bytes([port[0], port[1]]);
        let name = String::from_utf8_lossy(name).into_owned();
        let mut server = std::net::TcpStream::connect((name.as_str(), port)).expect("the server");
        client
            .write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
            .expect("an answer");
        let (mut from, mut to) = (
            client.try_clone().expect("a copy"),
            server.try_clone().expect("a copy"),
        );
        std::thread::spawn(move || std::io::copy(&mut from, &mut to).ok());
        std::io::copy(&mut server, &mut client).ok();
    });
    address
}

#[test]
fn a_message_goes_by_a_socks5_proxy() {
    let served = Served::in_memory();
    let proxy = format!("socks5h://{}", socks_proxy());
    let output = served.tool(
        "pub",
        &[
            "-h",
            "localhost",
            "--proxy",
            &proxy,
            "-t",
            "a",
            "-m",
            "x",
            "-r",
            "-q",
            "1",
        ],
    );
    succeeded(&output);
    let output = served.tool("sub", &["-t", "a", "-C", "1", "-W", "20"]);
    assert_eq!(text(&output.stdout), "x\n");
    let output = served.tool("pub", &["--proxy", "http://a", "-t", "a", "-m", "x"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("socks5h://"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn the_tools_go_over_websocket() {
    let folder = TempFolder::new();
    let listener = "[[listeners]]\naddress = \"127.0.0.1:0\"\ntransport = \"websocket\"\n";
    let path = folder.write("vencejo.toml", listener);
    let args = ["-c", &path, "--shards", "1", "--level", "memory"];
    let served = Served::start(&folder, &args);
    let mut words = served.greeting.split_whitespace();
    let url = words.find(|word| word.starts_with("ws://")).expect("a URL");
    let bare = url.trim_end_matches("/mqtt");
    for url in [url, bare] {
        let sent = run(&["pub", "-L", url, "-t", "a", "-m", "x", "-r", "-q", "1"]);
        succeeded(&sent);
    }
    let heard = run(&["sub", "-L", url, "-t", "a", "-C", "1", "-W", "20"]);
    assert_eq!(text(&heard.stdout), "x\n");
}
