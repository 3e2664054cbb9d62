//! The tools prove who they are without sending a password.
//!
//! Owns: `--auth-method` against a real server. Does not own: the exchange (see the tests of `client` and `server`).
//! Start reading at [`user_logs_in_by_scram_and_no_password_is_sent`]. Invariant: every process and folder ends with its
//! test.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

/// A folder and the server that uses it; both end with their owner.
struct Served {
    data: PathBuf,
    child: Child,
    port: String,
}

impl Served {
    fn start() -> Self {
        let name = format!("vencejo-proofs-{}", std::process::id());
        let data = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&data).expect("a folder");
        let mut child = vencejo(&["serve", "--listen", "127.0.0.1:0", "--shards", "2"])
            .arg("--data")
            .arg(&data)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let out = child.stdout.take().expect("standard output is a pipe");
        let mut lines = BufReader::new(out).lines().map_while(Result::ok);
        let port = lines.find_map(|line| {
            let (_, rest) = line.split_once("mqtt://127.0.0.1:")?;
            Some(rest.split_whitespace().next()?.to_owned())
        });
        let port = port.expect("an address");
        Self { data, child, port }
    }

    fn add_user(&self, name: &str, password: &str) {
        let mut command = vencejo(&["user", "add", name, "--data"]);
        let command = command.arg(&self.data).stdin(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let mut input = child.stdin.take().expect("a pipe");
        writeln!(input, "{password}").expect("it listens");
        drop(input);
        assert!(child.wait().expect("it ends").success());
    }

    fn publish(&self, args: &[&str]) -> Output {
        let common = ["pub", "-p", &self.port, "-t", "a", "-m", "x", "-d"];
        let mut command = vencejo(&[&common[..], args].concat());
        command
            .stdin(Stdio::null())
            .output()
            .expect("the tool runs")
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        std::fs::remove_dir_all(&self.data).ok();
    }
}

fn vencejo(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vencejo"));
    command.args(args).env_remove("MQTT_PASSWORD");
    command
}

#[test]
fn user_logs_in_by_scram_and_no_password_is_sent() {
    let served = Served::start();
    served.add_user("anna", "secret word");
    let by_scram = ["--auth-method", "SCRAM-SHA-256", "-u", "anna"];
    let said = |output: &Output| {
        String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat())
            .into_owned()
    };
    let good = served.publish(&[&by_scram[..], &["-P", "secret word"]].concat());
    assert_eq!(good.status.code(), Some(0), "{}", said(&good));
    assert!(!said(&good).contains("secret"), "{}", said(&good));
    let wrong = served.publish(&[&by_scram[..], &["-P", "other"]].concat());
    assert_eq!(wrong.status.code(), Some(134), "{}", said(&wrong));
    let by_password = served.publish(&["-u", "anna", "-P", "secret word"]);
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
        let output = vencejo(&all).output().expect("the tool runs");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.contains(expected), "{text}");
    }
}
