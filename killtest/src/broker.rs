//! The broker under test as a child process: started, killed, its last file spoilt, started again.
//!
//! Owns: the command lines of the brokers, waiting until one answers, damage to a log's tail.
//! Does not own: when that happens. Start reading at [`Broker::start`].
//! Invariant: no child outlives its value, and no other process is ever touched.

use std::fs::{self, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::random::Random;

/// Which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Ours.
    Vencejo,
    /// mosquitto with persistence.
    Mosquitto,
    /// mosquitto with persistence, saving at every change.
    MosquittoAutosave,
}

/// How to run it.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) program: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) address: SocketAddr,
    pub(crate) shards: u16,
}

/// A running broker.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    address: SocketAddr,
}

impl Broker {
    /// Starts it; it may not be ready yet.
    pub(crate) fn start(plan: &Plan) -> Result<Self, String> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(plan.folder.join("broker.log"))
            .map_err(|error| error.to_string())?;
        let mut command = Command::new(&plan.program);
        match plan.kind {
            Kind::Vencejo => {
                let (address, shards) = (plan.address.to_string(), plan.shards.to_string());
                command.args(["serve", "--listen", &address, "--shards", &shards, "--data"]);
                command.arg(plan.folder.join("data"));
            }
            Kind::Mosquitto | Kind::MosquittoAutosave => {
                command.arg("-c").arg(mosquitto_conf(plan)?);
            }
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{}: {error}", plan.program.display()))?;
        Ok(Self {
            child,
            address: plan.address,
        })
    }

    /// Waits until it accepts connections.
    pub(crate) fn wait(&mut self) -> Result<Duration, String> {
        let started = Instant::now();
        while started.elapsed() < START_MAX {
            if TcpStream::connect_timeout(&self.address, START_MAX).is_ok() {
                return Ok(started.elapsed());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("the broker ended by itself: {status}"));
            }
            thread::sleep(Duration::from_millis(2));
        }
        Err(format!("the broker does not answer within {START_MAX:?}"))
    }

    /// SIGKILL.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself; then there is nothing left to kill.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port of loopback that nobody uses at the moment.
pub(crate) fn free_address() -> Result<SocketAddr, String> {
    TcpListener::bind(("127.0.0.1", 0))
        .and_then(|listener| listener.local_addr())
        .map_err(|error| error.to_string())
}

fn mosquitto_conf(plan: &Plan) -> Result<PathBuf, String> {
    let path = plan.folder.join("mosquitto.conf");
    let (address, folder) = (plan.address, plan.folder.display());
    let mut text = format!(
        "listener {} {}\nallow_anonymous true\npersistence true\npersistence_location {folder}/\n\
         max_queued_messages 0\nmax_inflight_messages 100\n",
        address.port(),
        address.ip()
    );
    if let Ok(user) = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")) {
        text.push_str(&format!("user {user}\n"));
    } else {
        text.push_str("user root\n");
    }
    if plan.kind == Kind::MosquittoAutosave {
        text.push_str("autosave_on_changes true\nautosave_interval 1\n");
    }
    fs::write(&path, text).map_err(|error| error.to_string())?;
    Ok(path)
}

/// What a crash in the middle of a write leaves: bytes that were never acknowledged behind the last that
/// were. Only our own log is spoilt. Returns what was done.
pub(crate) fn spoil_tail(plan: &Plan, random: &mut Random) -> Result<Option<String>, String> {
    if plan.kind != Kind::Vencejo {
        return Ok(None);
    }
    let Some(path) = last_segment(&plan.folder.join("data/log")) else {
        return Ok(None);
    };
    let mut spoil = || -> std::io::Result<String> {
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let end = bytes
            .iter()
            .rposition(|byte| *byte != 0)
            .map_or(0, |at| at + 1);
        // Room for zeros that belong to the last frame.
        let at = end + 64;
        let garbage = match random.below(3) {
            // The beginning of a frame, cut off.
            0 => bytes
                .get(..40.min(bytes.len()))
                .unwrap_or_default()
                .to_vec(),
            // A frame that was whole elsewhere.
            1 => bytes.get(..end.min(4096)).unwrap_or_default().to_vec(),
            _ => (0..1 + random.below(300)).map(|_| random.byte()).collect(),
        };
        file.seek(SeekFrom::Start(at as u64))?;
        file.write_all(&garbage)?;
        Ok(format!("{} bytes of garbage at {at}", garbage.len()))
    };
    spoil().map(Some).map_err(|error| error.to_string())
}

fn last_segment(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    let segments = entries.filter_map(|entry| Some(entry.ok()?.path()));
    segments
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .max()
}

/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(60);
