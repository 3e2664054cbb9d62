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

use crate::door::{Door, Identity};
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
    /// Goes before every command line.
    pub(crate) prefix: Vec<String>,
    /// The same where it has more than one shard.
    pub(crate) prefix_of_shards: Vec<String>,
}

/// How one is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setup {
    /// What an acknowledgement of ours is worth.
    pub(crate) level: &'static str,
    /// Shards of ours.
    pub(crate) shards: u16,
    /// Whether it listens for TLS, too.
    pub(crate) is_secured: bool,
}

impl Setup {
    /// Everything in memory, on one core, unsecured.
    pub(crate) const PLAIN: Self = Self {
        level: "memory",
        shards: 1,
        is_secured: false,
    };
}

/// One that runs.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    folder: PathBuf,
    address: SocketAddr,
    /// By TCP alone.
    pub(crate) door: Door,
    /// By TLS.
    pub(crate) secured: Option<Door>,
}

impl Broker {
    /// Starts one in a new folder, and waits until it listens.
    /// # Errors
    /// It cannot be started, or does not listen within 20 seconds.
    pub(crate) fn start(
        kind: Kind,
        setup: Setup,
        programs: &Programs,
        folder: &Path,
    ) -> Result<Self, String> {
        let folder = folder.join(kind.name());
        let text = |error: std::io::Error| format!("{}: {error}", kind.name());
        fs::create_dir_all(&folder).map_err(text)?;
        let port = free_port().map_err(text)?;
        let secured = setup.is_secured.then(|| secured(&folder)).transpose();
        let secured = secured.map_err(text)?;
        let place = Place {
            folder: &folder,
            port,
            secured: secured.as_ref(),
        };
        let words = command_line(kind, setup, programs, &place).map_err(text)?;
        let prefix = if setup.shards > 1 {
            &programs.prefix_of_shards
        } else {
            &programs.prefix
        };
        let mut all = prefix.iter().cloned().chain(words);
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
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let broker = Self {
            child,
            address,
            door: Door::plain(address),
            secured: secured.map(|(_, _, door)| door),
            folder,
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

/// Where a broker is to listen for TLS, and with what.
type Secured = (u16, Identity, Door);

fn secured(folder: &Path) -> std::io::Result<Secured> {
    let (port, identity) = (free_port()?, Identity::new(folder)?);
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let door = Door::secured(address, &identity)?;
    Ok((port, identity, door))
}

/// What is a broker's own.
struct Place<'a> {
    folder: &'a Path,
    port: u16,
    secured: Option<&'a Secured>,
}

fn command_line(
    kind: Kind,
    setup: Setup,
    programs: &Programs,
    place: &Place<'_>,
) -> std::io::Result<Vec<String>> {
    let path = |path: &Path| path.display().to_string();
    let configuration = place.folder.join(match kind {
        Kind::Mosquitto => "mosquitto.conf",
        _ => "broker.toml",
    });
    let with = |text: String| fs::write(&configuration, text).map(|()| path(&configuration));
    Ok(match kind {
        Kind::Vencejo => {
            let file = with(vencejo_configuration(place))?;
            let mut words = vec![path(&programs.vencejo), "serve".to_owned()];
            words.extend(["-c".to_owned(), file]);
            words.extend(["--data".to_owned(), path(&place.folder.join("data"))]);
            words.extend(["--level".to_owned(), setup.level.to_owned()]);
            words.extend(["--shards".to_owned(), setup.shards.to_string()]);
            words.extend(["--log-level", "warn"].map(str::to_owned));
            words
        }
        Kind::Mosquitto => {
            let file = with(mosquitto_configuration(setup, place))?;
            vec![path(&programs.mosquitto), "-c".to_owned(), file]
        }
        Kind::Rumqttd => {
            let file = with(RUMQTTD.replace("PORT", &place.port.to_string()))?;
            vec![path(&programs.rumqttd), "-c".to_owned(), file]
        }
        Kind::Relay => vec![path(&std::env::current_exe()?), "relay".to_owned()],
    })
}

const START_MAX: Duration = Duration::from_secs(20);

/// Queues as long as the others have them, and twenty rules, of which the last one says what everybody may.
fn vencejo_configuration(place: &Place<'_>) -> String {
    let mut text = format!(
        "[limits]
queued_bytes_total_max = \"2GiB\"
retained_messages_max = 2000000

[[listeners]]
address = \"127.0.0.1:{}\"
",
        place.port
    );
    if let Some((port, identity, _)) = place.secured {
        let (certificate, key) = (&identity.certificate_file, &identity.key_file);
        let listener = format!(
            "
[[listeners]]
address = \"127.0.0.1:{port}\"
tls = {{ certificate = {certificate:?}, key = {key:?} }}
"
        );
        text.push_str(&listener);
    }
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

/// It keeps what it has in memory, and writes all of it into a file now and then: its own settings for that, if it is to
/// keep anything.
fn mosquitto_configuration(setup: Setup, place: &Place<'_>) -> String {
    let mut text = MOSQUITTO.replace("PORT", &place.port.to_string());
    if setup.level == Setup::PLAIN.level {
        text.push_str("persistence false\n");
    } else {
        let folder = place.folder.display();
        text.push_str(&format!(
            "persistence true\npersistence_location {folder}/\n"
        ));
    }
    if let Some((port, identity, _)) = place.secured {
        let listener = format!(
            "listener {port} 127.0.0.1\ncertfile {}\nkeyfile {}\n",
            identity.certificate_file.display(),
            identity.key_file.display()
        );
        text.push_str(&listener);
    }
    text
}

const MOSQUITTO: &str = "listener PORT 127.0.0.1
allow_anonymous true
user root
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
