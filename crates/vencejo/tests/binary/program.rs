//! The program as the tests of the binary run it: a command, a process, a server, a folder to work in.
//!
//! Owns: what more than one file of these tests sets up. Does not own: what a file needs alone. Start reading at
//! [`Served`]. Invariant: every wait has a deadline, every process and every folder ends with its owner.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long anything may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Where the program is.
pub(crate) const VENCEJO: &str = env!("CARGO_BIN_EXE_vencejo");

/// A server that works in a folder, where its log is, too. Killed with its owner: whatever is kept was kept before.
pub(crate) struct Served {
    pub(crate) process: Running,
    /// What it said at its start, up to where its configuration comes from.
    pub(crate) greeting: String,
    /// Of its first listener over TCP; empty without one.
    pub(crate) port: String,
    log: PathBuf,
    /// Where no test has given one; it goes after the process.
    _folder: Option<TempFolder>,
}

impl Served {
    /// With everything in memory, at a port of its own.
    pub(crate) fn in_memory() -> Self {
        Self::in_memory_at("127.0.0.1:0")
    }

    pub(crate) fn in_memory_at(address: &str) -> Self {
        let folder = TempFolder::new();
        let args = ["--listen", address, "--shards", "2", "--level", "memory"];
        let served = Self::start(&folder, &args);
        Self {
            _folder: Some(folder),
            ..served
        }
    }

    /// `vencejo serve` with `args` in `folder`.
    #[track_caller]
    pub(crate) fn start(folder: &TempFolder, args: &[&str]) -> Self {
        let mut command = folder.vencejo(&["serve"]);
        command.args(args);
        Self::start_by(folder, command)
    }

    /// By a `command` that becomes a server.
    #[track_caller]
    pub(crate) fn start_by(folder: &TempFolder, mut command: Command) -> Self {
        let log = folder.join("log");
        command.stderr(File::create(&log).expect("a file"));
        let mut process = Running::start(command);
        let mut greeting = String::new();
        while let Some(line) = process.next_line() {
            greeting.push_str(&line);
            greeting.push('\n');
            if line.starts_with("  Config ") {
                break;
            }
        }
        let mut served = Self {
            process,
            greeting,
            port: String::new(),
            log,
            _folder: None,
        };
        let is_up = served.greeting.contains("\n  Config ");
        assert!(is_up, "{}{}", served.greeting, served.log());
        served.port = served.ports().into_iter().next().unwrap_or_default();
        served
    }

    /// What its listeners speak and where, in their order: `("mqtt", "127.0.0.1:1883")`. Those at a file are left out.
    pub(crate) fn listeners(&self) -> Vec<(&str, &str)> {
        let lines = self.greeting.lines();
        let urls =
            lines.filter_map(|line| line.strip_prefix("  MQTT")?.trim_start().split_once("://"));
        urls.map(|(scheme, rest)| (scheme, rest.split(['/', ' ']).next().unwrap_or_default()))
            .collect()
    }

    pub(crate) fn ports(&self) -> Vec<String> {
        let addresses = self.listeners().into_iter().map(|(_, address)| address);
        let ports = addresses.filter_map(|address| address.rsplit_once(':'));
        ports.map(|(_, port)| port.to_owned()).collect()
    }

    /// What it has logged by now.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("a log of text")
    }

    /// A tool, at its first listener.
    pub(crate) fn tool(&self, name: &str, args: &[&str]) -> Output {
        run(&[&[name, "-p", &self.port], args].concat())
    }

    /// What a tool prints that does what it is asked for.
    #[track_caller]
    pub(crate) fn ask(&self, name: &str, args: &[&str]) -> String {
        succeeded(&self.tool(name, args))
    }

    #[track_caller]
    pub(crate) fn publish(&self, args: &[&str]) {
        self.ask("pub", args);
    }

    /// A subscriber that is subscribed.
    #[track_caller]
    pub(crate) fn subscriber(&self, args: &[&str]) -> Running {
        let mut command = vencejo(&["sub", "-p", &self.port, "-d"]);
        command.args(args);
        let mut subscriber = Running::start_unheard(command);
        let line = subscriber.line_with("Subscribed");
        assert!(line.starts_with("Subscribed"), "{line}");
        subscriber
    }
}

/// A process whose standard output is read, and that ends with its owner.
pub(crate) struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    /// Until it is dropped a thread waits to kill a process that takes too long.
    watchdog: Option<mpsc::Sender<()>>,
}

impl Running {
    #[track_caller]
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let out = BufReader::new(child.stdout.take().expect("standard output is a pipe"));
        let watchdog = Some(killed_at_the_deadline(child.id()));
        Self {
            child,
            out,
            watchdog,
        }
    }

    /// What it says to standard error is of no interest.
    #[track_caller]
    pub(crate) fn start_unheard(mut command: Command) -> Self {
        command.stderr(Stdio::null());
        Self::start(command)
    }

    /// The next line of standard output; empty at its end.
    pub(crate) fn line(&mut self) -> String {
        self.next_line().unwrap_or_default()
    }

    /// The first line that holds `text`; empty if none does.
    pub(crate) fn line_with(&mut self, text: &str) -> String {
        while let Some(line) = self.next_line() {
            if line.contains(text) {
                return line;
            }
        }
        String::new()
    }

    fn next_line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.out.read_line(&mut line).expect("a line of text");
        (read > 0).then(|| line.trim_end_matches('\n').to_owned())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    #[track_caller]
    pub(crate) fn signal(&self, name: &str) {
        assert!(kill(name, &[&self.pid().to_string()]), "kill");
    }

    /// The exit code, once it has ended by itself; none if it was killed, as it is at the deadline.
    pub(crate) fn code(&mut self) -> Option<i32> {
        let status = self.child.wait().expect("a process of ours");
        // Its number may be another's from now on.
        self.watchdog = None;
        status.code()
    }

    /// Ends it as its operator would.
    #[track_caller]
    pub(crate) fn stop(&mut self) {
        self.signal("TERM");
        assert_eq!(self.code(), Some(0));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Has a process killed at the deadline, unless what this returns is dropped before.
pub(crate) fn killed_at_the_deadline(pid: u32) -> mpsc::Sender<()> {
    let (watchdog, ended) = mpsc::channel();
    std::thread::spawn(move || {
        if ended.recv_timeout(DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout) {
            kill("KILL", &[&pid.to_string()]);
        }
    });
    watchdog
}

/// The next line of a `-d` subscriber that is not about packets.
pub(crate) fn message(subscriber: &mut Running) -> String {
    loop {
        let line = subscriber.line();
        if !line.starts_with("Client ") {
            return line;
        }
    }
}

/// Asks again until `is_right`, for as long as anything may take. What is asked sets the pace.
pub(crate) fn until(is_right: impl Fn() -> bool) -> bool {
    let started = Instant::now();
    while started.elapsed() < DEADLINE {
        if is_right() {
            return true;
        }
    }
    false
}

/// A folder for one test; gone with it.
pub(crate) struct TempFolder(PathBuf);

impl TempFolder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("vencejo-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // A process that was killed may have had the same number.
        fs::remove_dir_all(&path).ok();
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The same as text, for a command line.
    pub(crate) fn path(&self, name: &str) -> String {
        self.join(name).to_str().expect("is UTF-8").to_owned()
    }

    /// Writes a file, and the folders it is in; returns its path.
    #[track_caller]
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, bytes).expect("is written");
        self.path(name)
    }

    #[track_caller]
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.join(name)).expect("is there")
    }

    /// A command of the program that works in it.
    pub(crate) fn vencejo(&self, args: &[&str]) -> Command {
        let mut command = vencejo(args);
        command.current_dir(&self.0);
        command
    }

    /// Adds a user to its folder `data`.
    #[track_caller]
    pub(crate) fn add_user(&self, name: &str, password: &str) {
        let command = self.vencejo(&["user", "add", name, "--data", "data"]);
        succeeded(&fed(command, format!("{password}\n").as_bytes()));
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A command of the program.
pub(crate) fn vencejo(args: &[&str]) -> Command {
    let mut command = undisturbed(VENCEJO);
    command.args(args);
    command
}

/// A command of `program`, which is ours or starts it: nothing in the environment of the tests changes what ours does.
pub(crate) fn undisturbed(program: impl AsRef<OsStr>) -> Command {
    const NAMES: [&str; 6] = [
        "LISTEN_FDNAMES",
        "LISTEN_FDS",
        "LISTEN_PID",
        "MQTT_PASSWORD",
        "MQTT_PROFILE",
        "NOTIFY_SOCKET",
    ];
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("VENCEJO_") || NAMES.contains(&&*text) {
            command.env_remove(name);
        }
    }
    command.env("TZ", "UTC").stdin(Stdio::null());
    command
}

/// Our program under the name of one of mosquitto's tools. The link is below `links/` in the folder, in which its
/// configuration is looked for.
#[track_caller]
pub(crate) fn as_mosquittos(folder: &TempFolder, tool: &str, args: &[&str]) -> Output {
    let links = folder.join("links");
    fs::create_dir_all(&links).expect("a folder");
    let link = links.join(format!("mosquitto_{tool}"));
    // It may have been called so before.
    fs::remove_file(&link).ok();
    std::os::unix::fs::symlink(VENCEJO, &link).expect("a link");
    let mut command = undisturbed(link);
    command.args(args).env("XDG_CONFIG_HOME", &folder.0);
    output(command)
}

#[track_caller]
pub(crate) fn run(args: &[&str]) -> Output {
    output(vencejo(args))
}

#[track_caller]
pub(crate) fn output(mut command: Command) -> Output {
    command.output().expect("the program starts")
}

/// Runs it with `input` as its standard input.
#[track_caller]
pub(crate) fn fed(mut command: Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut stdin = child.stdin.take().expect("standard input is a pipe");
    stdin.write_all(input).expect("the program reads");
    drop(stdin);
    child.wait_with_output().expect("it ends")
}

/// What a program printed that has done what it was asked for.
#[track_caller]
pub(crate) fn succeeded(output: &Output) -> String {
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    out
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Sends a signal; whether it could.
pub(crate) fn kill(signal: &str, pids: &[&str]) -> bool {
    let status = Command::new("kill")
        .args(["-s", signal])
        .args(pids)
        .status();
    status.is_ok_and(|status| status.success())
}
