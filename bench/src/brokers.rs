//! The brokers that are measured: how each is started, and that it is stopped.
//!
//! Owns: their configurations, free ports, the core they run on. Does not own: what is done to them.
//! Start reading at [`Broker::start`]. Invariant: every broker that is started is stopped, by its own process.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use clap::ValueEnum;

use crate::process::Process;

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Kind {
    /// Ours.
    Vencejo,
    /// That of Debian.
    Mosquitto,
    /// The one of the Rust crate, which `cargo xtask bench` installs.
    Rumqttd,
    /// Bytes in, bytes out: what the system costs.
    Relay,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Vencejo => "vencejo",
            Self::Mosquitto => "mosquitto",
            Self::Rumqttd => "rumqttd",
            Self::Relay => "relay",
        }
    }
}

/// Where programs are, and on which core they run.
#[derive(Clone, Debug)]
pub(crate) struct Programs {
    pub(crate) vencejo: PathBuf,
    pub(crate) mosquitto: PathBuf,
    pub(crate) rumqttd: PathBuf,
    /// What an acknowledgement of ours is worth.
    pub(crate) level: &'static str,
    /// Goes before every command line.
    pub(crate) prefix: Vec<String>,
}

/// One that runs.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    folder: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Broker {
    /// Starts one in a new folder, and waits until it listens.
    /// # Errors
    /// It cannot be started, or does not listen within 20 seconds.
    pub(crate) fn start(kind: Kind, programs: &Programs, folder: &Path) -> Result<Self, String> {
        let folder = folder.join(kind.name());
        let text = |error: std::io::Error| format!("{}: {error}", kind.name());
        fs::create_dir_all(&folder).map_err(text)?;
        let port = free_port().map_err(text)?;
        let words = command_line(kind, programs, &folder, port).map_err(text)?;
        let mut all = programs.prefix.iter().cloned().chain(words);
        let program = all.next().unwrap_or_default();
        let log = fs::File::create(folder.join("log")).map_err(text)?;
        let mut child = Command::new(&program)
            .args(all)
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{program}: {error}"))?;
        let told = (kind == Kind::Relay).then(|| told_port(&mut child));
        let port = told.flatten().unwrap_or(port);
        let broker = Self {
            child,
            folder,
            address: SocketAddr::from(([127, 0, 0, 1], port)),
        };
        broker.wait()?;
        Ok(broker)
    }

    fn wait(&self) -> Result<(), String> {
        let until = Instant::now() + START_MAX;
        while TcpStream::connect(self.address).is_err() {
            if Instant::now() > until {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                return Err(format!("{} does not listen: {log}", self.folder.display()));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Its process. Where it was started by another program, that has become it.
    pub(crate) fn process(&self) -> Process {
        Process(self.child.id())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        fs::remove_dir_all(&self.folder).ok();
    }
}

/// A port that nobody has, for brokers that cannot say which one they took.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// The port in the first line that the relay prints.
fn told_port(child: &mut Child) -> Option<u16> {
    let mut line = String::new();
    BufReader::new(child.stdout.take()?)
        .read_line(&mut line)
        .ok()?;
    line.trim().rsplit(':').next()?.parse().ok()
}

fn command_line(
    kind: Kind,
    programs: &Programs,
    folder: &Path,
    port: u16,
) -> std::io::Result<Vec<String>> {
    let path = |path: &Path| path.display().to_string();
    let configuration = folder.join(match kind {
        Kind::Mosquitto => "mosquitto.conf",
        _ => "broker.toml",
    });
    let with = |text: String| fs::write(&configuration, text).map(|()| path(&configuration));
    Ok(match kind {
        Kind::Vencejo => {
            let file = with(vencejo_configuration())?;
            let mut words = vec![path(&programs.vencejo), "serve".to_owned()];
            words.extend(["-c".to_owned(), file]);
            words.extend(["--listen".to_owned(), format!("127.0.0.1:{port}")]);
            words.extend(["--data".to_owned(), path(&folder.join("data"))]);
            words.extend(["--level".to_owned(), programs.level.to_owned()]);
            words.extend(["--shards", "1", "--log-level", "warn"].map(str::to_owned));
            words
        }
        Kind::Mosquitto => {
            let file = with(MOSQUITTO.replace("PORT", &port.to_string()))?;
            vec![path(&programs.mosquitto), "-c".to_owned(), file]
        }
        Kind::Rumqttd => {
            let file = with(RUMQTTD.replace("PORT", &port.to_string()))?;
            vec![path(&programs.rumqttd), "-c".to_owned(), file]
        }
        Kind::Relay => vec![path(&std::env::current_exe()?), "relay".to_owned()],
    })
}

const START_MAX: Duration = Duration::from_secs(20);

/// Queues as long as the others have them, and twenty rules, of which the last one says what everybody may.
fn vencejo_configuration() -> String {
    let mut text = "[limits]
queued_bytes_total_max = \"2GiB\"
retained_messages_max = 2000000
"
    .to_owned();
    for number in 0..19 {
        let rule = format!(
            "
[[authorization.rules]]
effect = \"allow\"
users = [\"user-{number}\"]
topics = [\"private/{number}/#\"]
"
        );
        text.push_str(&rule);
    }
    text.push_str(
        "
[[authorization.rules]]
effect = \"allow\"
topics = [\"#\"]
",
    );
    text
}

const MOSQUITTO: &str = "listener PORT 127.0.0.1
allow_anonymous true
persistence false
log_type none
max_queued_messages 0
max_inflight_messages 0
set_tcp_nodelay true
sys_interval 0
";

const RUMQTTD: &str = r#"id = 0

[router]
id = 0
max_connections = 20010
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10

[v4.1]
name = "v4-1"
listen = "127.0.0.1:PORT"
next_connection_delay_ms = 0

    [v4.1.connections]
    connection_timeout_ms = 60000
    max_payload_size = 20480
    max_inflight_count = 500
    dynamic_filters = true
"#;
