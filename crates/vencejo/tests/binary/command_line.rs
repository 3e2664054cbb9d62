//! The binary from outside: `serve`, `pub`, `sub` and `demo` as processes, over real sockets.
//!
//! Owns: exit codes, output, what tools and server do together. Does not own: formats (unit tests).
//! Start reading at [`Served`]. Invariant: every wait has a deadline, every process ends with its test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// A process that ends with its owner.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    /// Dropped with it; until then a thread waits to kill a process that takes too long.
    _watchdog: mpsc::Sender<()>,
}

impl Running {
    fn start(args: &[&str]) -> Self {
        let mut child = vencejo(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let out = BufReader::new(child.stdout.take().expect("standard output is a pipe"));
        let (watchdog, ended) = mpsc::channel::<()>();
        let pid = child.id().to_string();
        std::thread::spawn(move || {
            if ended.recv_timeout(DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout) {
                Command::new("kill")
                    .args(["-s", "KILL", &pid])
                    .status()
                    .ok();
            }
        });
        Self {
            child,
            out,
            _watchdog: watchdog,
        }
    }

    /// The next line of standard output; empty at its end.
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("a line of text");
        line.trim_end_matches('\n').to_owned()
    }

    /// The first line that holds `text`.
    fn line_with(&mut self, text: &str) -> String {
        loop {
            let line = self.line();
            if line.contains(text) || line.is_empty() && self.has_ended() {
                return line;
            }
        }
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().is_ok_and(|status| status.is_some())
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill");
    }

    /// The exit code, once it has ended by itself.
    fn code(&mut self) -> Option<i32> {
        let started = Instant::now();
        while started.elapsed() < DEADLINE {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        None
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A server on a port of its own.
struct Served {
    server: Running,
    port: String,
}

impl Served {
    fn start() -> Self {
        Self::start_at("127.0.0.1:0")
    }

    fn start_at(address: &str) -> Self {
        let mut server = Running::start(&[
            "serve", "--listen", address, "--shards", "2", "--level", "memory",
        ]);
        let line = server.line_with("mqtt://");
        let port = line.split_once("127.0.0.1:").map_or("", |(_, rest)| rest);
        let port = port
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned();
        assert_ne!(port, "", "no listener in {line:?}");
        Self { server, port }
    }

    fn tool(&self, name: &str, args: &[&str]) -> Output {
        vencejo(&[&[name, "-p", &self.port], args].concat())
            .stdin(Stdio::null())
            .output()
            .expect("the tool runs")
    }

    fn publish(&self, args: &[&str]) {
        let output = self.tool("pub", args);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }

    /// A subscriber that is subscribed.
    fn subscriber(&self, args: &[&str]) -> Running {
        let mut subscriber = Running::start(&[&["sub", "-p", &self.port, "-d"], args].concat());
        let line = subscriber.line_with("Subscribed");
        assert!(line.starts_with("Subscribed"), "{line}");
        subscriber
    }
}

fn vencejo(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vencejo"));
    command.args(args).env("TZ", "UTC");
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

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
    let served = Served::start();
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
    let served = Served::start();
    for qos in ["0", "1", "2"] {
        let mut subscriber =
            Running::start(&["sub", "-p", &served.port, "-t", "lines", "-q", qos, "-d"]);
        subscriber.line_with("Subscribed");
        let mut publisher = vencejo(&["pub", "-p", &served.port, "-t", "lines", "-q", qos, "-l"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("the tool runs");
        let lines: String = (0..500).map(|number| format!("line {number}\n")).collect();
        let mut input = publisher.stdin.take().expect("standard input is a pipe");
        input.write_all(lines.as_bytes()).expect("the tool reads");
        drop(input);
        assert!(publisher.wait().is_ok_and(|status| status.success()));
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
    let served = Served::start();
    let session = ["-c", "-i", "worker", "-q", "1", "-t", "jobs"];
    let output = served.tool("sub", &[&session[..], &["-E"]].concat());
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
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
    let served = Served::start();
    for topic in ["r/a", "r/b"] {
        served.publish(&["-t", topic, "-m", "kept", "-r", "-q", "1"]);
    }
    let output = served.tool(
        "sub",
        &["-t", "r/#", "-v", "-C", "1", "-T", "r/a", "-W", "20"],
    );
    assert_eq!(text(&output.stdout), "r/b kept\n");
    let output = served.tool(
        "sub",
        &["-t", "r/#", "-C", "2", "-W", "20", "--remove-retained"],
    );
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let output = served.tool("sub", &["-t", "r/#", "-v", "-W", "1"]);
    assert_eq!(
        (text(&output.stdout).as_str(), output.status.code()),
        ("", Some(27))
    );
    assert_eq!(text(&output.stderr), "Timed out\n");
}

#[test]
fn properties_travel() {
    let served = Served::start();
    let mut subscriber = served.subscriber(&["-t", "p", "-F", "%C|%P|%R|%D|%p"]);
    let flags = "-t p -m x -D publish content-type text -D publish user-property k v \
         -D publish user-property k w -D publish response-topic r -D publish correlation-data c";
    let flags: Vec<&str> = flags.split_whitespace().collect();
    served.publish(&flags);
    assert_eq!(message(&mut subscriber), "text|k:v k:w|r|c|x");
}

#[test]
fn a_subscriber_comes_back_after_the_server_does() {
    let mut served = Served::start();
    let port = served.port.clone();
    let mut subscriber = served.subscriber(&["-t", "again", "-q", "1"]);
    served.server.signal("TERM");
    assert_eq!(served.server.code(), Some(0));
    let served = Served::start_at(&format!("127.0.0.1:{port}"));
    assert!(subscriber.line_with("Subscribed").starts_with("Subscribed"));
    served.publish(&["-t", "again", "-m", "back", "-q", "1"]);
    assert_eq!(message(&mut subscriber), "back");
}

#[test]
fn a_will_speaks_for_a_killed_subscriber() {
    let served = Served::start();
    let mut watcher = served.subscriber(&["-t", "wills", "-v"]);
    let will = ["-t", "x", "--will-topic", "wills", "--will-payload", "gone"];
    let killed = served.subscriber(&will);
    killed.signal("KILL");
    assert_eq!(message(&mut watcher), "wills gone");
    let mut polite = served.subscriber(&will);
    polite.signal("TERM");
    assert_eq!(polite.code(), Some(0));
    served.publish(&["-t", "wills", "-m", "none before this"]);
    assert_eq!(message(&mut watcher), "wills none before this");
}

fn assert_refused(args: &[&str], code: i32, words: &str) {
    let output = vencejo(args).output().expect("it runs");
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
    let served = Served::start();
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
    let output = vencejo(&["serve", "--listen", &address, "--level", "memory"])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(69));
    let said = text(&output.stderr);
    let expected = format!(
        "{} is used by vencejo (pid {}): stop it",
        served.port,
        served.server.child.id()
    );
    assert!(
        said.starts_with(&expected) || !cfg!(target_os = "linux"),
        "{said}"
    );
}

#[test]
fn a_wrong_configuration_is_pointed_at() {
    let path = std::env::temp_dir().join(format!("vencejo-test-{}.toml", std::process::id()));
    std::fs::write(&path, "shards = 2\n[limits]\nrecieve_maximum = 10\n").expect("a file");
    let path_text = path.to_string_lossy().into_owned();
    let output = vencejo(&["serve", "-c", &path_text])
        .output()
        .expect("it runs");
    std::fs::remove_file(&path).expect("the file is there");
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
    let output = vencejo(&["demo", "--exit"]).output().expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("First message: demo/hello it works!"));
}

#[test]
fn the_demonstration_stays_up_with_its_devices() {
    let mut demo = Running::start(&["demo"]);
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
    let output = vencejo(&args).output().expect("it runs");
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
    let served = Served::start();
    let path = std::env::temp_dir().join(format!("vencejo-large-{}", std::process::id()));
    std::fs::write(&path, vec![b'x'; 2 * 1024 * 1024]).expect("a file");
    let output = served.tool("pub", &["-t", "a", "-f", &path.to_string_lossy()]);
    std::fs::remove_file(&path).expect("the file is there");
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

    let served = Served::start();
    let mut subscriber = served.subscriber(&["-t", "bytes", "-F", "%x"]);
    let output = vencejo(&["pub", "-p", &served.port, "-t", "bytes", "-m"])
        .arg(std::ffi::OsStr::from_bytes(&[0xff, 0x01, 0xfe]))
        .output()
        .expect("the tool runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert_eq!(message(&mut subscriber), "ff01fe");
}

#[test]
fn a_publisher_that_was_thrown_out_says_why() {
    let served = Served::start();
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
    let mut served = Served::start();
    let _subscriber = served.subscriber(&["-t", "a"]);
    let pid = served.server.child.id().to_string();
    let status = Command::new("kill")
        .args(["-s", "TERM", &pid, &pid])
        .status();
    assert!(status.is_ok_and(|status| status.success()), "kill");
    assert_eq!(served.server.code(), Some(0));
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
    let output = vencejo(&["pub", "-p", &port, "-t", "a", "-m", "b"])
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("trying again as 3.1.1"));
    assert_eq!(server.join().expect("it ends"), [5, 4]);
}

#[test]
fn a_closed_pipe_ends_a_subscriber_quietly() {
    let served = Served::start();
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
    let file = std::env::temp_dir().join(format!("vencejo-sighup-{}.toml", std::process::id()));
    let write = |anonymous: &str| {
        let text =
            format!("sys_interval = \"1s\"\n[authentication]\nanonymous = \"{anonymous}\"\n");
        std::fs::write(&file, text).expect("a temporary file");
    };
    write("loopback");
    let path = file.to_str().expect("a name of text");
    let args = ["-c", path, "--listen", "127.0.0.1:0", "--level", "memory"];
    let mut server = Running::start(&[&["serve"], &args[..]].concat());
    let line = server.line_with("mqtt://");
    let port = line.split_once("127.0.0.1:").map_or("", |(_, rest)| rest);
    let port = port
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned();
    let served = Served { server, port };
    served.publish(&["-t", "a", "-m", "b"]);
    let mut operator = served.subscriber(&["-t", "$SYS/broker/alarms"]);
    assert_eq!(operator.line_with("none"), "none");

    write("nobody");
    served.server.signal("HUP");
    let alarm = operator.line_with("not reloaded");
    assert!(alarm.contains(":3:13: unknown word `nobody`"), "{alarm}");
    served.publish(&["-t", "a", "-m", "b"]);

    write("never");
    served.server.signal("HUP");
    assert_eq!(operator.line_with("none"), "none");
    let refused = || served.tool("pub", &["-t", "a", "-m", "b"]).status.code() != Some(0);
    assert!(until(refused));
    std::fs::remove_file(&file).ok();
}

/// Our program under the name of one of mosquitto's tools.
fn as_mosquittos(tool: &str, args: &[&str]) -> Output {
    let folder = std::env::temp_dir().join(format!("vencejo-named-{}-{tool}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let link = folder.join(format!("mosquitto_{tool}"));
    std::fs::remove_file(&link).ok();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_vencejo"), &link).expect("a link");
    let output = Command::new(&link)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("the tool runs");
    std::fs::remove_dir_all(&folder).ok();
    output
}

#[test]
fn called_as_mosquittos_tools_it_is_one_of_them() {
    let served = Served::start();
    let port = ["-p", &served.port];
    let args = [&port[..], &["-t", "a", "-m", "x", "-r", "-q", "1", "-d"]].concat();
    let output = as_mosquittos("pub", &args);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
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

#[test]
fn a_request_gets_its_response_and_times_out_without_one() {
    let served = Served::start();
    let mut asker = Running::start(&[
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
    ]);
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
    let served = Served::start();
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
    vencejo(&[&["retained", command, "-p", &served.port], rest].concat())
        .stdin(Stdio::null())
        .output()
        .expect("the tool runs")
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
    let served = Served::start();
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
    let (old, new) = (with_retained(), Served::start());
    let exported = retained(&old, &["export", "house/#"]);
    let mut import = vencejo(&["retained", "import", "-p", &new.port])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the tool runs");
    let mut input = import.stdin.take().expect("a pipe");
    input.write_all(&exported.stdout).expect("the tool reads");
    drop(input);
    assert!(import.wait().is_ok_and(|status| status.success()));
    let arrived = retained(&new, &["get", "house/b", "--json"]);
    let arrived: serde_json::Value = serde_json::from_slice(&arrived.stdout).expect("is JSON");
    let expected = serde_json::json!({ "topic": "house/b", "qos": 1, "payload": "two", "content_type": "text" });
    assert_eq!(arrived, expected);
    // The rest from server to server.
    let from = format!("mqtt://127.0.0.1:{}", old.port);
    let copied = vencejo(&["import", "retained", &from, "-p", &new.port, "-t", "garden"])
        .output()
        .expect("the tool runs");
    assert_eq!(copied.status.code(), Some(0), "{}", text(&copied.stderr));
    assert_eq!(sorted(&retained(&new, &["ls"])).len(), 3);
}

#[test]
fn probe_says_what_a_server_supports_and_leaves_nothing_behind() {
    let served = Served::start();
    let server = format!("127.0.0.1:{}", served.port);
    let output = vencejo(&["probe", &server, "--json"])
        .output()
        .expect("the tool runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("is JSON");
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
    let nobody = vencejo(&["probe", "127.0.0.1:1"])
        .output()
        .expect("the tool runs");
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
    let output = vencejo(&["doctor", "--listen", &address, "--level", "memory"])
        .output()
        .expect("the tool runs");
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stdout);
    assert!(
        said.contains("BAD") && said.contains(&address) && said.contains("-> kill"),
        "{said}"
    );
    let output = vencejo(&["doctor", "--set", "storage.level=wrong", "--json"])
        .output()
        .expect("the tool runs");
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("is JSON");
    assert_eq!(
        (said[0]["what"].as_str(), said[0]["state"].as_str()),
        (Some("configuration"), Some("bad"))
    );
}

#[test]
fn completions_and_pages_of_the_manual_know_the_commands() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = vencejo(&["completions", shell])
            .output()
            .expect("the tool runs");
        assert!(text(&output.stdout).contains("retained"), "{shell}");
    }
    let page = text(
        &vencejo(&["man", "sub"])
            .output()
            .expect("the tool runs")
            .stdout,
    );
    assert!(page.contains(".TH") && page.contains("random"), "{page}");
    let folder = std::env::temp_dir().join(format!("vencejo-man-{}", std::process::id()));
    let output = vencejo(&["man", "-o"])
        .arg(&folder)
        .output()
        .expect("the tool runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for file in [
        "vencejo.1",
        "vencejo-serve.1",
        "vencejo-pub.1",
        "vencejo-config.1",
    ] {
        assert!(folder.join(file).is_file(), "{file}");
    }
    std::fs::remove_dir_all(&folder).ok();
}

/// Who is let in changes with the file, without a signal; a wrong file in between changes nothing.
#[test]
fn a_watched_file_is_taken_over_when_it_is_saved() {
    let file = std::env::temp_dir().join(format!("vencejo-watched-{}.toml", std::process::id()));
    let write = |anonymous: &str| {
        let text = format!(
            "[[listeners]]\naddress = \"127.0.0.1:0\"\n[authentication]\nanonymous = \"{anonymous}\"\n"
        );
        std::fs::write(&file, text).expect("is written");
    };
    write("always");
    let path = file.to_str().expect("is UTF-8");
    let mut server = Running::start(&[
        "serve", "-c", path, "--watch", "--shards", "1", "--level", "memory",
    ]);
    let line = server.line_with("mqtt://");
    let (_, port) = line.split_once("127.0.0.1:").expect("an address");
    let port = port.split_whitespace().next().expect("a port").to_owned();
    let code = || {
        let output = vencejo(&["pub", "-p", &port, "-t", "a", "-m", "b"]).output();
        output.expect("the tool runs").status.code()
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
    std::fs::remove_file(&file).ok();
}

#[test]
fn conformance_reports_what_a_server_keeps() {
    let served = Served::start();
    let server = format!("127.0.0.1:{}", served.port);
    let line = ["conformance", &server, "--filter", "will v5"];
    let output = vencejo(&line).output().expect("the tool runs");
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
    let output = vencejo(&[&line[..], &["--json"]].concat())
        .output()
        .expect("the tool runs");
    let said: serde_json::Value = serde_json::from_slice(&output.stdout).expect("is JSON");
    assert!(
        said["passed"].as_u64() > Some(5) && said["failed"] == 0,
        "{said}"
    );
    let nobody = vencejo(&["conformance", "127.0.0.1:1"])
        .output()
        .expect("the tool runs");
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
    let served = Served::start();
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
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
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
    let config = std::env::temp_dir().join(format!("vencejo-tools-ws-{}.toml", std::process::id()));
    let listener = "[[listeners]]\naddress = \"127.0.0.1:0\"\ntransport = \"websocket\"\n";
    std::fs::write(&config, listener).expect("is written");
    let path = config.to_str().expect("is UTF-8");
    let mut server = Running::start(&["serve", "-c", path, "--shards", "1", "--level", "memory"]);
    let line = server.line_with("ws://");
    let url = line
        .split_whitespace()
        .find(|word| word.starts_with("ws://"))
        .expect("a URL")
        .to_owned();
    let bare = url.trim_end_matches("/mqtt").to_owned();
    for url in [&url, &bare] {
        let output = vencejo(&["pub", "-L", url, "-t", "a", "-m", "x", "-r", "-q", "1"]).output();
        let output = output.expect("the tool runs");
        assert_eq!(
            output.status.code(),
            Some(0),
            "{url}: {}",
            text(&output.stderr)
        );
    }
    let output = vencejo(&["sub", "-L", &url, "-t", "a", "-C", "1", "-W", "20"]).output();
    assert_eq!(text(&output.expect("the tool runs").stdout), "x\n");
    std::fs::remove_file(&config).ok();
}
