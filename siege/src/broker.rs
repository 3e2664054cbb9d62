//! The broker under siege as a child process, and its memory.
//!
//! Owns: command lines, waiting until it answers, [`Memory`]. Does not own: what is done to it.
//! Start reading at [`Broker::start`]. Invariant: no child outlives its value, and no other process is touched.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use clap::ValueEnum;

/// Which broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Ours.
    Vencejo,
    /// Debian's mosquitto.
    Mosquitto,
}

/// How it is run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) kind: Kind,
    pub(crate) program: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) level: String,
    pub(crate) shards: u16,
    /// Of ours.
    pub(crate) configuration: String,
    /// What goes before its command line, such as `taskset`.
    pub(crate) prefix: Vec<String>,
}

/// A running broker.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) memory: Memory,
}

impl Broker {
    /// Starts it, and waits until it takes connections.
    pub(crate) fn start(plan: &Plan) -> Result<Self, String> {
        let text = |error: std::io::Error| error.to_string();
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(text)?;
        let address = listener.local_addr().map_err(text)?;
        drop(listener);
        fs::create_dir_all(&plan.folder).map_err(text)?;
        let log = File::create(plan.folder.join("broker.log")).map_err(text)?;
        let arguments = match plan.kind {
            Kind::Vencejo => vencejo(plan, address)?,
            Kind::Mosquitto => mosquitto(plan, address)?,
        };
        let program = plan.program.display().to_string();
        let mut words = plan
            .prefix
            .iter()
            .cloned()
            .chain([program])
            .chain(arguments);
        let mut command = Command::new(words.next().unwrap_or_default());
        let child = command
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{}: {error}", plan.program.display()))?;
        let memory = Memory::watch(child.id());
        let mut broker = Self {
            child,
            address,
            memory,
        };
        let until = Instant::now() + START_MAX;
        while TcpStream::connect_timeout(&address, START_MAX).is_err() {
            if let Some(status) = broker.ended() {
                return Err(format!("the broker ended by itself: {status}"));
            }
            if Instant::now() > until {
                return Err(format!("the broker does not answer within {START_MAX:?}"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(broker)
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        Some(status.to_string())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn vencejo(plan: &Plan, address: SocketAddr) -> Result<Vec<String>, String> {
    let configuration = plan.folder.join("vencejo.toml");
    fs::write(&configuration, &plan.configuration).map_err(|error| error.to_string())?;
    let data = plan.folder.join("data");
    let path = |path: &Path| path.display().to_string();
    let words = [
        "serve",
        "-c",
        &path(&configuration),
        "--listen",
        &address.to_string(),
        "--data",
    ]
    .map(str::to_owned);
    let more = [
        &path(&data),
        "--level",
        &plan.level,
        "--shards",
        &plan.shards.to_string(),
        "--log-level",
        "warn",
    ]
    .map(str::to_owned);
    Ok(words.into_iter().chain(more).collect())
}

fn mosquitto(plan: &Plan, address: SocketAddr) -> Result<Vec<String>, String> {
    let configuration = plan.folder.join("mosquitto.conf");
    let text = format!(
        "listener {} {}\nallow_anonymous true\nmax_queued_messages 1000\nset_tcp_nodelay true\nuser root\n",
        address.port(),
        address.ip()
    );
    fs::write(&configuration, text).map_err(|error| error.to_string())?;
    Ok(vec!["-c".to_owned(), configuration.display().to_string()])
}

/// Resident memory of a process, looked at all the time.
#[derive(Debug)]
pub(crate) struct Memory {
    process_id: u32,
    most: Arc<AtomicU64>,
    is_over: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Memory {
    fn watch(process_id: u32) -> Self {
        let (most, is_over) = (
            Arc::new(AtomicU64::new(0)),
            Arc::new(AtomicBool::new(false)),
        );
        let (seen, over) = (Arc::clone(&most), Arc::clone(&is_over));
        let thread = std::thread::spawn(move || {
            while !over.load(Ordering::Relaxed) {
                seen.fetch_max(resident(process_id), Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Self {
            process_id,
            most,
            is_over,
            thread: Mutex::new(Some(thread)),
        }
    }

    /// Bytes now.
    pub(crate) fn now(&self) -> u64 {
        resident(self.process_id)
    }

    /// The most there were.
    pub(crate) fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // It cannot fail.
            thread.join().ok();
        }
    }
}

fn resident(process_id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process_id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}

/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(20);
