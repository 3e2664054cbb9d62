//! The doors of a server that only processes can show: Unix sockets, sockets that another process has opened.
//!
//! Owns: what server and tools do together there. Does not own: the doors (see `server`). Start reading at
//! [`Served`]. Invariant: every wait has a deadline, every process ends with its test.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// A folder that goes with its test.
struct TempFolder(PathBuf);

impl TempFolder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("vencejo-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("is written");
        path
    }
}

impl Drop for TempFolder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A process whose standard output is read, and that ends with its owner.
struct Running {
    child: Child,
    out: BufReader<ChildStdout>,
    /// Dropped with it; until then a thread waits to kill a process that takes too long.
    _watchdog: mpsc::Sender<()>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let out = BufReader::new(child.stdout.take().expect("standard output is a pipe"));
        let (watchdog, ended) = mpsc::channel::<()>();
        let pid = child.id().to_string();
        std::thread::spawn(move || {
            if ended.recv_timeout(DEADLINE) == Err(mpsc::RecvTimeoutError::Timeout) {
                Command::new("kill").args(["-9", &pid]).status().ok();
            }
        });
        Self {
            child,
            out,
            _watchdog: watchdog,
        }
    }

    /// The first line that holds `text`; the last one if none does.
    fn line_with(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.out.read_line(&mut line).expect("a line of text");
            if read == 0 || line.contains(text) {
                return line.trim_end().to_owned();
            }
        }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A server with this configuration.
fn serve(config: &Path) -> Command {
    let mut command = vencejo(&["serve", "--level", "memory", "--shards", "2", "-c"]);
    command.arg(config);
    command
}

fn vencejo(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vencejo"));
    command.args(args);
    command
}

fn output(mut command: Command) -> Output {
    command
        .stdin(Stdio::null())
        .output()
        .expect("the tool runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn start_at_socket(folder: &TempFolder) -> (Running, PathBuf, String) {
    let socket = folder.path("mqtt.sock");
    let config = folder.write(
        "vencejo.toml",
        &format!(
            "[[listeners]]\naddress = \"unix:{}\"\nmode = \"0600\"\n",
            socket.display()
        ),
    );
    let log = fs::File::create(folder.path("log")).expect("is made");
    let mut command = serve(&config);
    command.stderr(log);
    let mut server = Running::start(command);
    let line = server.line_with("unix:");
    (server, socket, line)
}

/// `--unix` is mosquitto's flag; the log says which user and process the Client is.
#[test]
fn tools_and_server_meet_at_a_unix_socket() {
    let folder = TempFolder::new("unix-socket");
    let (mut server, socket, line) = start_at_socket(&folder);
    assert!(
        line.contains("no password, only from this machine"),
        "{line}"
    );
    let unix = socket.to_str().expect("text");
    let mut command = vencejo(&["sub", "--unix", unix, "-t", "#", "-d"]);
    command.stderr(Stdio::null());
    let mut subscriber = Running::start(command);
    subscriber.line_with("Subscribed");
    let published = output(vencejo(&[
        "pub", "--unix", unix, "-t", "a", "-m", "through", "-q", "1",
    ]));
    assert!(published.status.success(), "{}", text(&published.stderr));
    assert_eq!(subscriber.line_with("through"), "through");
    let log = fs::read_to_string(folder.path("log")).expect("is there");
    let pid = format!("pid={}", subscriber.child.id());
    assert!(
        log.contains("peer=unix:uid=") && log.contains(&pid),
        "{log}"
    );
    server.signal("TERM");
    assert!(server.child.wait().expect("it ends").success());
    assert!(!socket.exists());
    let refused = output(vencejo(&["pub", "--unix", unix, "-t", "a", "-m", "b"]));
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains("There is no such file"), "{said}");
}

#[test]
fn a_socket_that_is_left_of_a_killed_server_is_replaced_and_a_file_is_not() {
    let folder = TempFolder::new("stale-socket");
    let (server, socket, _) = start_at_socket(&folder);
    server.signal("KILL");
    drop(server);
    assert!(socket.exists());
    let (_server, socket, _) = start_at_socket(&folder);
    let unix = socket.to_str().expect("text");
    let published = output(vencejo(&["pub", "--unix", unix, "-t", "a", "-m", "b"]));
    assert!(published.status.success(), "{}", text(&published.stderr));
    // While it answers, nobody takes its place.
    let config = folder.path("vencejo.toml");
    let second = output(serve(&config));
    assert_eq!(second.status.code(), Some(69));
    assert!(text(&second.stderr).contains("another program answers there"));
    let path = folder.write("precious", "file").display().to_string();
    let config = format!("[[listeners]]\naddress = \"unix:{path}\"\n");
    let wrong = output(serve(&folder.write("wrong.toml", &config)));
    assert_eq!(wrong.status.code(), Some(78), "{}", text(&wrong.stderr));
    assert_eq!(fs::read_to_string(path).expect("is there"), "file");
}

/// Runs the server with sockets open as systemd would: `script` makes a list `sockets` of (name, socket).
fn activated(config: &Path, script: &str) -> Command {
    const HAND_OVER: &str = r#"
import os, socket, sys
def tcp(name, family, host):
    s = socket.socket(family, socket.SOCK_STREAM)
    s.bind((host, 0))
    s.listen(16)
    return name, s
def unix(name, path):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.bind(path)
    s.listen(16)
    return name, s
exec(sys.argv[1])
# Out of the way first: 3 may be one of them.
high = [os.dup2(s.fileno(), 100 + i) for i, (_, s) in enumerate(sockets)]
for i, fd in enumerate(high):
    os.dup2(fd, 3 + i, inheritable=True)
os.environ["LISTEN_FDS"] = str(len(sockets))
os.environ["LISTEN_FDNAMES"] = ":".join(name for name, _ in sockets)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"#;
    let mut command = Command::new("python3");
    command.args(["-c", HAND_OVER, script]);
    command.arg(env!("CARGO_BIN_EXE_vencejo"));
    command.args(["serve", "--level", "memory", "--shards", "2", "-c"]);
    command.arg(config);
    command
}

const ALL_KINDS: &str = r#"
[[listeners]]
activation = "six"
[[listeners]]
activation = "local"
[[listeners]]
activation = "four"
name = "fourth"
"#;

/// Verifies that each listener takes the socket of its name, whatever their order, and leaves its file.
#[test]
fn sockets_that_systemd_has_opened_are_taken_by_their_names() {
    let folder = TempFolder::new("activation");
    let socket = folder.path("mqtt.sock");
    let unix = socket.to_str().expect("text");
    let config = folder.write("vencejo.toml", ALL_KINDS);
    let manager = UnixDatagram::bind(folder.path("notify")).expect("a socket");
    manager
        .set_read_timeout(Some(DEADLINE))
        .expect("a socket option");
    let script = format!(
        "sockets = [tcp('four', socket.AF_INET, '127.0.0.1'), unix('local', {unix:?}), \
         tcp('other', socket.AF_INET, '127.0.0.1'), tcp('six', socket.AF_INET6, '::1')]"
    );
    let mut command = activated(&config, &script);
    command.env("NOTIFY_SOCKET", folder.path("notify"));
    let mut server = Running::start(command);
    let port = |line: &str| {
        let rest = line.rsplit_once(':').map_or("", |(_, rest)| rest);
        rest.split(' ').next().unwrap_or_default().to_owned()
    };
    let six = port(&server.line_with("mqtt://[::1]:"));
    assert!(server.line_with("unix:").contains(unix));
    let four = port(&server.line_with("mqtt://127.0.0.1:"));
    let mut heard = [0; 64];
    let len = manager.recv(&mut heard).expect("it is told");
    assert!(text(&heard[..len]).contains("READY=1"));
    let doors: [&[&str]; 3] = [
        &["-h", "::1", "-p", &six],
        &["-h", "127.0.0.1", "-p", &four],
        &["--unix", unix],
    ];
    for door in doors {
        let message = ["pub", "-t", "a", "-m", "b", "-q", "1"];
        let published = output(vencejo(&[&message[..], door].concat()));
        let said = text(&published.stderr);
        assert!(published.status.success(), "{door:?}: {said}");
    }
    server.signal("TERM");
    let len = manager.recv(&mut heard).expect("it is told");
    assert!(text(&heard[..len]).contains("STOPPING=1"));
    assert!(server.child.wait().expect("it ends").success());
    // systemd has made it, and keeps it.
    assert!(socket.exists());
}

#[test]
fn a_socket_that_is_not_there_or_does_not_listen_starts_nothing() {
    let folder = TempFolder::new("no-activation");
    let config = folder.write("vencejo.toml", "[[listeners]]\nactivation = \"mqtt\"\n");
    let two = "sockets = [tcp('mqtt', socket.AF_INET, '127.0.0.1')] * 2";
    let datagrams = "sockets = [('mqtt', socket.socket(socket.AF_INET, socket.SOCK_DGRAM))]";
    let closed = "sockets = [('mqtt', socket.socket(socket.AF_INET, socket.SOCK_STREAM))]";
    let cases = [
        (serve(&config), "it has given: none"),
        (
            activated(
                &config,
                "sockets = [tcp('web', socket.AF_INET, '127.0.0.1')]",
            ),
            "it has given: web",
        ),
        (activated(&config, two), "several sockets of this name"),
        (activated(&config, datagrams), "no TCP or Unix socket"),
        (activated(&config, closed), "it does not listen"),
    ];
    for (command, expected) in cases {
        let failed = output(command);
        let said = text(&failed.stderr);
        assert_eq!(failed.status.code(), Some(78), "{expected}: {said}");
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

const ONE_OF_EACH: &str = r#"
[[listeners]]
address = "127.0.0.1:0"
[[listeners]]
address = "127.0.0.1:0"
tls = { certificate = "tls/server.pem", key = "tls/server.key" }
[[listeners]]
address = "127.0.0.1:0"
transport = "websocket"
[[listeners]]
address = "127.0.0.1:0"
sniff = true
[[listeners]]
address = "127.0.0.1:0"
proxy = ["127.0.0.1"]
"#;

/// A server with a listener of each kind, and their addresses.
fn start_one_of_each(folder: &TempFolder) -> (Running, [String; 5]) {
    let made = vencejo(&["tls", "init"]).current_dir(&folder.0).output();
    assert!(made.expect("the tool runs").status.success());
    let config = folder.write("vencejo.toml", ONE_OF_EACH);
    let mut command = serve(&config);
    let log = fs::File::create(folder.path("log")).expect("is made");
    command.stderr(log).current_dir(&folder.0);
    let mut server = Running::start(command);
    let schemes = ["mqtt://", "mqtts://", "ws://", "mqtt, ws://", "mqtt://"];
    let addresses = schemes.map(|scheme| {
        let line = server.line_with(scheme);
        let (_, address) = line.split_once("://").expect("a URL");
        let address = address.split(['/', ' ']).next();
        address.unwrap_or_default().to_owned()
    });
    (server, addresses)
}

/// What it says a client may try leads to a name that the certificate is for.
#[test]
fn a_certificate_for_a_name_is_tried_by_that_name() {
    let folder = TempFolder::new("tls-init");
    let init = |names: &[&str]| {
        let mut tool = vencejo(&[&["tls", "init"], names].concat());
        let made = tool.current_dir(&folder.0).output();
        String::from_utf8(made.expect("the tool runs").stdout).expect("text")
    };
    let named = init(&["--name", "broker.example"]);
    assert!(named.contains("sub -h broker.example --cafile"), "{named}");
    let usual = init(&[]);
    assert!(usual.contains("sub -h localhost --cafile"), "{usual}");
}

const CONNECT: &[u8] = b"\x10\x0C\0\x04MQTT\x04\x02\0\0\0\0";
const HANDSHAKE: &[u8] = b"\x16\x03\x01\x02\0\x01\0\x01\xFC\x03\x03";

/// Which listener, what it is told, and what the log says.
const WRONG: [(usize, &[u8], &str); 6] = [
    (
        0,
        HANDSHAKE,
        "this listener speaks MQTT; the Client began with a handshake of TLS",
    ),
    (
        1,
        CONNECT,
        "this listener speaks TLS; the Client began with a CONNECT in the clear",
    ),
    (
        1,
        b"GET /mqtt HTTP/1.1\r\n",
        "this listener speaks TLS; the Client began with a request of HTTP in the clear",
    ),
    (
        2,
        CONNECT,
        "this listener speaks WebSocket; the Client began with a CONNECT",
    ),
    (
        3,
        b"SSH-2.0-OpenSSH_9.2p1\r\n",
        "the Client began with \"SSH-2.0-Open\"",
    ),
    (4, CONNECT, "the header of the PROXY protocol is wrong"),
];

/// What an operator reads when a Client knocks at the wrong door.
#[test]
fn the_log_says_what_a_client_began_with() {
    let folder = TempFolder::new("wrong-door");
    let (_server, addresses) = start_one_of_each(&folder);
    for (listener, bytes, expected) in WRONG {
        let mut client = TcpStream::connect(&addresses[listener]).expect("it listens");
        client.write_all(bytes).expect("is read");
        client.set_read_timeout(Some(DEADLINE)).expect("an option");
        // Until the server closes: then the log has it.
        let mut said = Vec::new();
        client.read_to_end(&mut said).ok();
        let log = fs::read_to_string(folder.path("log")).expect("is there");
        assert!(log.contains(expected), "{expected}: {log}");
    }
}

/// Who asks a port with TLS in the clear is told so, and the other way round.
#[test]
fn the_tools_say_that_tls_is_there_or_is_not() {
    let folder = TempFolder::new("wrong-tool");
    let (_server, addresses) = start_one_of_each(&folder);
    let (_, plain) = addresses[0].split_once(':').expect("a port");
    let (_, secure) = addresses[1].split_once(':').expect("a port");
    let in_the_clear = output(vencejo(&["pub", "-p", secure, "-t", "a", "-m", "b"]));
    let said = text(&in_the_clear.stderr);
    assert!(said.contains("the server speaks TLS there"), "{said}");
    let mut command = vencejo(&["pub", "-p", plain, "-t", "a", "-m", "b", "--cafile"]);
    command.arg(folder.path("tls/ca.pem"));
    let said = text(&output(command).stderr);
    assert!(said.contains("does it speak TLS at that port?"), "{said}");
}
