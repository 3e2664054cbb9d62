//! The broker under test as a child process: started, killed, started again.
//!
//! Owns: the command lines of the brokers, waiting until one answers. Does not own: when that happens. Start reading at [`Broker::start`].
//! Invariant: no child outlives its value, and no other process is ever touched.

use std::fs::{self, OpenOptions};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;

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
    /// Of our own broker.
    pub(crate) config: Option<PathBuf>,
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
                if let Some(config) = &plan.config {
                    command.arg("--config").arg(config);
                }
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
    pub(crate) fn wait(&mut self) -> Result<(), String> {
        let started = Instant::now();
        while started.elapsed() < START_MAX {
            if TcpStream::connect_timeout(&self.address, START_MAX).is_ok() {
                return Ok(());
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

/// How long a start may take.
const START_MAX: Duration = Duration::from_secs(60);
