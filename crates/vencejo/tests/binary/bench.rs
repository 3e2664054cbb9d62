//! `vencejo bench` as a process, against a broker in the process of the test.
//!
//! Owns: that each scenario measures what it says, and that what goes wrong is counted and said. Does not own: schedules and
//! statistics (unit tests). Start reading at [`every_scenario_delivers_what_was_due_once`]. Invariant: loads are tiny, every
//! wait has a deadline.
#![allow(clippy::panic, reason = "helpers of tests are tests as well")]

use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use vencejo_test::Broker;
use vencejo_test::client::blocking::Client;
use vencejo_test::client::{Publication, Qos};

use crate::program::{DEADLINE, TempFolder, text, vencejo};

fn bench(broker: &Broker, args: &str) -> Command {
    let mut command = vencejo(&["bench", &broker.url()]);
    command.args(args.split_whitespace());
    command.stdin(Stdio::null());
    command
}

/// What a run has said as JSON, and its exit code.
fn said(output: &Output) -> (Value, Option<i32>) {
    let said = serde_json::from_slice(&output.stdout);
    let said = said.unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
    (said, output.status.code())
}

fn run(broker: &Broker, args: &str) -> (Value, Option<i32>) {
    let args = format!("{args} --json --warmup 0.1 --duration 0.3 --threads 2");
    said(&bench(broker, &args).output().expect("the tool runs"))
}

fn count(said: &Value, name: &str) -> u64 {
    let counts = &said["runs"][0]["counts"];
    counts[name]
        .as_u64()
        .unwrap_or_else(|| panic!("no {name} in {counts}"))
}

/// Loads that deliver: what was due, and to how many each message goes.
#[test]
fn every_scenario_delivers_what_was_due_once() {
    let broker = Broker::start();
    for (args, due, received) in [
        ("pairs --clients 3 --rate 100", 40, 40),
        ("fan-in --clients 4 --rate 100 -q 0", 40, 40),
        ("fan-out --clients 5 --rate 20", 8, 40),
        ("shared --clients 4 --subscribers 3 --rate 100 -q 2", 40, 40),
        ("p2p-1K-1K-1K-1K --scale 0.005 --rate 100", 40, 40),
        ("fanout-5-1000-5-250K --scale 0.004 --rate 25", 10, 40),
        ("sharedsub-1K-5-1K-1K --scale 0.01 --rate 100", 40, 40),
        ("fanin-10-2-10-50", 20, 40),
    ] {
        let (said, code) = run(&broker, args);
        assert_eq!(code, Some(0), "{args}: {said}");
        for (name, wanted) in [
            ("due", due),
            ("sent", due),
            ("answered", due),
            ("expected", received),
            ("received", received),
        ] {
            assert_eq!(count(&said, name), wanted, "{args}: {name} of {said}");
        }
        let times = &said["runs"][0]["times"];
        // A quarter was the warm-up.
        let measured = times["delivered"]["count"].as_u64();
        assert!(
            measured < Some(received) && measured >= Some(received / 2),
            "{args}: {said}"
        );
        assert!(
            times["delivered"]["p99_us"].as_f64() > Some(0.0),
            "{args}: {said}"
        );
        assert_eq!(
            times["acknowledged"].is_null(),
            args.contains("-q 0"),
            "{args}"
        );
        assert_eq!(
            said["scenario"]["name"],
            args.split(' ').next().unwrap_or_default()
        );
    }
}

/// One message is on its way at a time, for 20 ms at least: the last of a hundred has waited for all before it, and says so.
#[test]
fn the_time_for_which_a_message_had_to_wait_is_counted() {
    let broker = Broker::start_with(|config| config.limits.receive_maximum = 1);
    broker.delay(Duration::from_millis(10));
    // A scenario alone is one for the server of the flags.
    let mut command = vencejo(&[]);
    let args = "--clients 1 --rate 200 --json --warmup 0 --duration 0.5 --threads 2";
    command.args(["bench", "pairs", "-L", &broker.url()]);
    command.args(args.split_whitespace());
    let (said, code) = said(&command.output().expect("the tool runs"));
    assert_eq!((code, count(&said, "received")), (Some(0), 100), "{said}");
    for kind in ["delivered", "acknowledged"] {
        let times = &said["runs"][0]["times"][kind];
        assert!(times["min_us"].as_f64() >= Some(20_000.0), "{kind}: {said}");
        // It was due after 495 ms, and 99 were before it.
        assert!(
            times["max_us"].as_f64() >= Some(1_400_000.0),
            "{kind}: {said}"
        );
    }
}

#[test]
fn clients_connect_when_they_are_due_and_stay() {
    let broker = Broker::start();
    for args in [
        "connect --clients 20 --rate 200",
        "conn-tcp-10K-100 --scale 0.002 --rate 200",
    ] {
        let (said, code) = run(&broker, args);
        assert_eq!((code, count(&said, "answered")), (Some(0), 20), "{said}");
        assert_eq!(said["runs"][0]["times"]["connected"]["count"], 20, "{said}");
    }
}

#[test]
fn retained_messages_are_replayed_and_taken_away() {
    let broker = Broker::start();
    let (said, code) = run(&broker, "retained --clients 3 --rate 50 --retained 200");
    assert_eq!((code, count(&said, "received")), (Some(0), 600), "{said}");
    let times = &said["runs"][0]["times"];
    assert_eq!(
        (&times["replayed"]["count"], &times["delivered"]["count"]),
        (&3.into(), &600.into())
    );
    // Whoever subscribes now hears what is published now, and nothing else.
    let client = Client::connect(broker.options()).expect("connects");
    let mut messages = client
        .subscribe("vencejo-bench/#", Qos::AtLeastOnce)
        .expect("subscribes");
    let last = Publication::new("vencejo-bench/last", "x", Qos::AtLeastOnce);
    client.publish(last).expect("publishes");
    assert_eq!(
        messages
            .next()
            .map(|message| message.topic.clone())
            .as_deref(),
        Some("vencejo-bench/last")
    );
}

/// More than can be put there before it is stopped.
#[test]
fn what_may_be_left_on_a_server_that_goes_away_is_named() {
    let broker = Broker::start();
    let client = Client::connect(broker.options()).expect("connects");
    let mut messages = client
        .subscribe("vencejo-bench/#", Qos::AtMostOnce)
        .expect("subscribes");
    let mut command = bench(&broker, "retained --clients 1 --retained 1000000 --json");
    let tool = command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let tool = tool.spawn().expect("the tool runs");
    let first = messages.next().expect("it has begun");
    let room = first.topic.rsplit_once('/').expect("a number").0.to_owned();
    drop((messages, client, broker));
    let output = tool.wait_with_output().expect("it ends");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let left = format!("Retained messages below {room} may be left.");
    assert!(said.contains(&left), "{said}");
}

#[test]
fn a_result_says_how_to_do_it_again() {
    let broker = Broker::start();
    let (said, code) = run(
        &broker,
        "pairs --clients 2 --rate 50 -V 3.1.1 -u me -P hidden --runs 2",
    );
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(said["runs"].as_array().map(Vec::len), Some(2));
    assert_eq!(
        (&said["format"], &said["server"]["mqtt"]),
        (&1.into(), &"3.1.1".into())
    );
    let text = said.to_string();
    assert!(!text.contains("hidden"), "{text}");
    for part in [
        "--rate",
        "\"cpus\"",
        "\"kernel\"",
        "\"began\"",
        "\"warmup_seconds\":0.1",
        "vencejo 0.",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn what_cannot_be_measured_is_said_with_what_to_do() {
    let broker = Broker::start_with(|config| config.limits.sessions_max = 3);
    let failed = |args: &str| {
        let output = bench(&broker, args).output().expect("the tool runs");
        (output.status.code(), text(&output.stderr))
    };
    for (args, code, words) in [
        ("fanin", 1, "Did you mean fan-in?"),
        (
            "connect --publishers 3",
            1,
            "--publishers means nothing to connect",
        ),
        ("pairs -c -i me", 1, "-c means nothing to bench"),
        ("pairs -q 3", 1, "Invalid QoS given: 3"),
        ("pairs --prefix a/#", 1, "Topics cannot begin with"),
        ("pairs --size 5", 2, "16..=268435455"),
        ("pairs --size 2000000", 1, "say --size"),
        ("pairs --clients 5", 151, "clients were let in before"),
    ] {
        let (found, said) = failed(args);
        assert!(
            found == Some(code) && said.contains(words),
            "{args}: {found:?} {said}"
        );
    }
    let nobody = vencejo(&[])
        .args(["bench", "127.0.0.1:1"])
        .output()
        .expect("the tool runs");
    let words = text(&nobody.stderr);
    assert!(
        nobody.status.code() == Some(1) && words.contains("Connection refused"),
        "{words}"
    );
}

/// A run that goes on while the test does something to it.
struct Running(Option<Child>);

impl Running {
    /// Begun, and in the middle of it.
    fn begun(broker: &Broker, args: &str) -> Self {
        let mut command = bench(broker, args);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let running = Self(Some(child.expect("the tool runs")));
        for _ in 0..5 {
            broker.expect_publish("#").within_blocking(DEADLINE);
        }
        running
    }

    fn end(mut self) -> Output {
        let child = self.0.take().expect("it runs");
        child.wait_with_output().expect("it ends")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

const LONG: &str = "pairs --clients 2 --rate 100 --warmup 0 --duration 4 --drain 0.5";

#[test]
fn connections_that_end_and_what_is_lost_with_them_are_counted_and_said() {
    let broker = Broker::start();
    let running = Running::begun(&broker, LONG);
    broker.cut();
    let output = running.end();
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(3), "{said}");
    for words in [
        "WRONG: ",
        "unsent ",
        "disconnected 4",
        "a subscriber: ",
        "a publisher: ",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn a_message_that_comes_twice_is_counted_and_said() {
    let broker = Broker::start();
    let running = Running::begun(&broker, &format!("{LONG} --json"));
    let seen = broker.published().first().cloned().expect("one is there");
    let client = Client::connect(broker.options()).expect("connects");
    let twice = Publication::new(seen.topic.clone(), seen.payload.clone(), Qos::AtLeastOnce);
    client.publish(twice).expect("publishes");
    let stranger = Publication::new(seen.topic, "who are you?", Qos::AtLeastOnce);
    client.publish(stranger).expect("publishes");
    let (said, code) = said(&running.end());
    assert_eq!(
        (code, count(&said, "repeated"), count(&said, "foreign")),
        (Some(3), 1, 1),
        "{said}"
    );
    assert_eq!(
        (count(&said, "received"), count(&said, "lost")),
        (400, 0),
        "{said}"
    );
}

#[test]
fn results_are_compared_with_what_can_be_told() {
    let broker = Broker::start();
    let folder = TempFolder::new();
    let [one, other] = ["one.json", "other.json"].map(|file| folder.path(file));
    let (short, long) = ("--warmup 0 --duration 0.1", "--runs 2");
    for args in [
        format!("pairs --clients 1 --rate 100 {short} {long} --out {one}"),
        format!("pairs --clients 1 --rate 100 {short} {long} --out {one}"),
        format!("fan-in --clients 1 --rate 100 {short} --out {other}"),
    ] {
        let output = bench(&broker, &args).output().expect("the tool runs");
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    }
    let compare = |files: &[&str]| {
        let mut command = vencejo(&[]);
        command.args(["bench", "compare"]).args(files);
        command.output().expect("the tool runs")
    };
    // The same four runs twice: nothing differs.
    let output = compare(&[&one, &one]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        said.contains("4 runs") && said.contains("no difference can be told"),
        "{said}"
    );
    let output = compare(&[&one, &one, "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).expect("is JSON");
    assert_eq!(
        said["comparisons"][0]["figures"][0]["differs"], false,
        "{said}"
    );
    let output = compare(&[&one, &other]);
    let said = text(&output.stderr);
    assert!(
        output.status.code() == Some(1) && said.contains("not measured the same"),
        "{said}"
    );
    assert_eq!(compare(&[&one]).status.code(), Some(2));
}
