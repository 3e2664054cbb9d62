//! Messages by `pub`, `sub` and `rr`: what arrives, in which order, and what becomes of it when somebody leaves.
//!
//! Owns: what the tools and a server do together. Does not own: formats (unit tests), how a server is reached (see `ways`).
//! Start reading at [`messages_pass_in_every_version_and_quality`]. Invariant: every wait has a deadline.

use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use crate::program::{Running, Served, TempFolder, fed, message, output, succeeded, text, vencejo};

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
