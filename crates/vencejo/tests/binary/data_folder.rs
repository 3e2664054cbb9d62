//! The binary and its data folder: what outlives `kill -9`, who may use it, backups, alarms.
//!
//! Owns: exit codes and output around a data folder. Does not own: what is in it (see the server's tests).
//! Start reading at [`Served`]. Invariant: every process and every folder ends with its test.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};

/// A folder for one test; gone with it.
struct TempFolder(PathBuf);

impl TempFolder {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("vencejo-data-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_string_lossy().into_owned()
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// A server that uses a data folder; killed with its owner.
struct Served {
    child: Child,
    port: String,
    /// What it said at its start.
    greeting: String,
}

impl Served {
    fn start(data: &str) -> Self {
        let args = [
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--shards",
            "2",
            "--data",
        ];
        let mut child = vencejo(&[&args[..], &[data]].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let out = child.stdout.take().expect("standard output is a pipe");
        let mut greeting = String::new();
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            greeting.push_str(&line);
            greeting.push('\n');
            if line.contains(" pub ") {
                break;
            }
        }
        let (_, rest) = greeting
            .split_once("mqtt://127.0.0.1:")
            .expect("an address");
        let port = rest
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned();
        Self {
            child,
            port,
            greeting,
        }
    }

    fn tool(&self, name: &str, args: &[&str]) -> String {
        let output = run(&[&[name, "-p", &self.port], args].concat());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        text(&output.stdout)
    }
}

impl Drop for Served {
    /// With SIGKILL: whatever is kept was kept before.
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn vencejo(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vencejo"));
    command.args(args).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    vencejo(args).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const SESSION: [&str; 7] = ["-c", "-i", "keeper", "-q", "1", "-t", "jobs"];

/// A kept session with a message, and a retained message.
fn leave_state(served: &Served) {
    served.tool("sub", &[&SESSION[..], &["-E"]].concat());
    served.tool("pub", &["-t", "jobs", "-m", "one", "-q", "1"]);
    served.tool("pub", &["-t", "state", "-m", "on", "-q", "1", "-r"]);
}

fn find_state(served: &Served) {
    let greeting = &served.greeting;
    assert!(
        greeting.contains("1 sessions, 1 retained messages"),
        "{greeting}"
    );
    let found = served.tool("sub", &["-t", "state", "-C", "1", "-W", "20"]);
    assert_eq!(found, "on\n");
}

#[test]
fn state_outlives_kill_9_and_is_told_at_the_start() {
    let temp = TempFolder::new();
    let data = temp.path("data");
    let served = Served::start(&data);
    assert!(served.greeting.contains(&data), "{}", served.greeting);
    leave_state(&served);
    drop(served);
    find_state(&Served::start(&data));
}

#[test]
fn folder_in_use_is_refused_with_the_pid() {
    let temp = TempFolder::new();
    let data = temp.path("data");
    let served = Served::start(&data);
    let output = run(&["serve", "--listen", "127.0.0.1:0", "--data", &data]);
    assert_eq!(output.status.code(), Some(69));
    let expected = format!("in use by the process {}", served.child.id());
    let said = text(&output.stderr);
    assert!(said.contains(&expected), "{said}");
}

#[test]
fn backup_of_a_folder_in_use_and_at_rest_is_restored() {
    let temp = TempFolder::new();
    let data = temp.path("data");
    let served = Served::start(&data);
    leave_state(&served);
    let users = format!("{data}/users.toml");
    std::fs::write(users, "users = []\n").expect("is written");
    let [running, resting] = [temp.path("running"), temp.path("resting")];
    let output = run(&["backup", &running, "--data", &data]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    drop(served);
    let output = run(&["backup", &resting, "--data", &data]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    for (backup, name) in [(running, "first"), (resting, "second")] {
        let restored = temp.path(name);
        let output = run(&["restore", &backup, "--data", &restored]);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let users = std::fs::read_to_string(format!("{restored}/users.toml"));
        assert_eq!(users.expect("is restored, too"), "users = []\n");
        find_state(&Served::start(&restored));
        let output = run(&["restore", &backup, "--data", &restored]);
        assert_eq!(output.status.code(), Some(74));
        assert!(text(&output.stderr).contains("is not empty"));
    }
}

#[test]
fn a_folder_is_checked_counted_and_salvaged() {
    let temp = TempFolder::new();
    let data = temp.path("data");
    let served = Served::start(&data);
    leave_state(&served);
    let output = run(&["store", "check", &data]);
    assert_eq!(output.status.code(), Some(69), "in use by the server");
    drop(served);
    let output = run(&["store", "check", &data]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("sound: nothing is missing"), "{said}");
    let said = text(&run(&["store", "stat", &data]).stdout);
    let counts = "1 sessions, 1 retained messages, 1 queued messages for 1 deliveries";
    assert!(said.contains(counts), "{said}");
    assert!(said.contains("0000000001.seg"), "{said}");
    // In the first frame, with intact ones behind it.
    let segment = Path::new(&data).join("log/0000000001.seg");
    let mut bytes = std::fs::read(&segment).expect("a segment");
    bytes[40] ^= 0x10;
    std::fs::write(&segment, bytes).expect("is written");
    let output = run(&["store", "check", &data]);
    assert_eq!(output.status.code(), Some(65), "{}", text(&output.stdout));
    assert!(text(&output.stdout).contains("DAMAGE"));
    let new = temp.path("new");
    let output = run(&["store", "salvage", &data, &new]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("DAMAGE"));
    let served = Served::start(&new);
    assert!(served.greeting.contains("ALARM"), "{}", served.greeting);
    let found = served.tool("sub", &["-t", "state", "-C", "1", "-W", "20"]);
    assert_eq!(found, "on\n");
}

#[test]
fn damage_is_an_alarm_at_every_start_until_it_is_acknowledged() {
    let temp = TempFolder::new();
    let data = temp.path("data");
    let served = Served::start(&data);
    leave_state(&served);
    drop(served);
    let segment = Path::new(&data).join("log/0000000001.seg");
    let mut bytes = std::fs::read(&segment).expect("a segment");
    // In the first frame, with intact ones behind it.
    bytes[40] ^= 0x10;
    std::fs::write(&segment, bytes).expect("is written");
    let strict = temp.path("strict.toml");
    std::fs::write(&strict, "[storage]\nrecovery = \"strict\"\n").expect("is written");
    let output = run(&[
        "serve",
        "-c",
        &strict,
        "--listen",
        "127.0.0.1:0",
        "--data",
        &data,
    ]);
    assert_eq!(output.status.code(), Some(65), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("vencejo store salvage"));
    for _ in 0..2 {
        let served = Served::start(&data);
        assert!(served.greeting.contains("ALARM"), "{}", served.greeting);
        let alarms = served.tool("sub", &["-t", "$SYS/broker/alarms", "-C", "1", "-W", "20"]);
        assert!(alarms.contains("0000000001.seg"), "{alarms}");
    }
    let served = Served::start(&data);
    let output = run(&["store", "acknowledge", &data]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("0000000001.seg"));
    drop(served);
    let output = run(&["store", "acknowledge", &data]);
    assert_eq!(text(&output.stdout), "no alarms\n");
    let served = Served::start(&data);
    assert!(!served.greeting.contains("ALARM"), "{}", served.greeting);
}
