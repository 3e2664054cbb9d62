//! The brokers under load as child processes, each in a fresh folder.
//!
//! Owns: their configurations, what the system says of their processes. Does not own: the load.
//! Start reading at [`Broker::start`]. Invariant: no child outlives its value, and no other process is touched.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// What runs, and how safe what it acknowledges is.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Ours, by its program and level.
    Ours(PathBuf, &'static str),
    /// mosquitto, and what its configuration says of persistence.
    Mosquitto(&'static str),
}

/// A running broker.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    folder: PathBuf,
    pub(crate) address: SocketAddr,
}

/// What a process has used so far, all its threads together.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    pub(crate) cpu: Duration,
    /// How often a thread went to sleep.
    pub(crate) sleeps: u64,
}

impl Broker {
    /// Starts it in a new folder below `folder`, and waits until it answers.
    pub(crate) fn start(kind: &Kind, folder: &Path, shards: u16) -> Result<Self, String> {
        let address = TcpListener::bind(("127.0.0.1", 0))
            .and_then(|listener| listener.local_addr())
            .map_err(|error| error.to_string())?;
        let folder = folder.join(format!("broker-{}", address.port()));
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let mut command = command(kind, &folder, address, shards)?;
        let log = fs::File::create(folder.join("log.txt")).map_err(|error| error.to_string())?;
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(log).spawn();
        let child = child.map_err(|error| format!("{kind:?}: {error}"))?;
        let mut broker = Self {
            child,
            folder,
            address,
        };
        broker.wait()?;
        Ok(broker)
    }

    fn wait(&mut self) -> Result<(), String> {
        let until = Instant::now() + START_MAX;
        while Instant::now() < until {
            if TcpStream::connect_timeout(&self.address, START_MAX).is_ok() {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                let said = fs::read_to_string(self.folder.join("log.txt")).unwrap_or_default();
                return Err(format!("the broker ended by itself: {status}\n{said}"));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Err(format!("the broker does not answer within {START_MAX:?}"))
    }

    /// What it has used so far.
    pub(crate) fn used(&self) -> Result<Used, String> {
        used(self.child.id()).map_err(|error| format!("what the broker has used: {error}"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to kill.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
        fs::remove_dir_all(&self.folder).unwrap_or_default();
    }
}

/// Whether there is a mosquitto to compare with.
pub(crate) fn has_mosquitto() -> bool {
    let mut command = Command::new(MOSQUITTO);
    command.arg("-h").stdin(Stdio::null());
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok()
}

fn command(
    kind: &Kind,
    folder: &Path,
    address: SocketAddr,
    shards: u16,
) -> Result<Command, String> {
    let conf = folder.join("broker.conf");
    let (text, command) = match kind {
        Kind::Ours(program, level) => {
            let mut command = Command::new(program);
            command.args(["serve", "--log-level", "warn", "--level", level]);
            command.args(["--listen", &address.to_string()]);
            command.args(["--shards", &shards.to_string(), "--data"]);
            command.arg(folder.join("data")).arg("-c").arg(&conf);
            (format!("sys_interval = \"{}s\"\n", SYS_SECONDS), command)
        }
        Kind::Mosquitto(persistence) => {
            let mut command = Command::new(MOSQUITTO);
            command.arg("-c").arg(&conf);
            let user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned());
            let text = format!(
                "listener {} {}\nallow_anonymous true\nuser {user}\nlog_type error\nset_tcp_nodelay true\n\
                 max_queued_messages 0\npersistence_location {}/\n{persistence}\n",
                address.port(),
                address.ip(),
                folder.display()
            );
            (text, command)
        }
    };
    fs::write(&conf, text).map_err(|error| error.to_string())?;
    Ok(command)
}

fn used(process: u32) -> std::io::Result<Used> {
    let mut used = Used::default();
    for thread in fs::read_dir(format!("/proc/{process}/task"))? {
        let thread = thread?.path();
        let spent = fs::read_to_string(thread.join("schedstat"))?;
        used.cpu += Duration::from_nanos(first_number(&spent));
        let status = fs::read_to_string(thread.join("status"))?;
        let mut lines = status.lines();
        used.sleeps += lines
            .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))
            .map_or(0, first_number);
    }
    Ok(used)
}

fn first_number(text: &str) -> u64 {
    let word = text.split_whitespace().next();
    word.and_then(|word| word.parse().ok()).unwrap_or(0)
}

/// How often ours tells of itself.
pub(crate) const SYS_SECONDS: u64 = 1;
/// By the search path; Debian has it in a folder that not everybody's has.
const MOSQUITTO: &str = "mosquitto";
/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(30);
