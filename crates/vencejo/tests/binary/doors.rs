//! The doors of a server that only processes can show: Unix sockets, sockets that another process has opened.
//!
//! Owns: what server and tools do together there. Does not own: the doors (see `server`). Start reading at
//! [`tools_and_server_meet_at_a_unix_socket`]. Invariant: every wait has a deadline.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;

use crate::program::{
    DEADLINE, Running, Served, TempFolder, VENCEJO, output, run, succeeded, text, undisturbed,
    vencejo,
};

const SERVE: [&str; 6] = ["serve", "--level", "memory", "--shards", "2", "-c"];

/// A server with this configuration.
fn serve(config: &str) -> Command {
    vencejo(&[&SERVE[..], &[config]].concat())
}

/// A server, and the socket it listens at.
fn start_at_socket(folder: &TempFolder) -> (Served, String) {
    let socket = folder.path("mqtt.sock");
    let listener = format!("[[listeners]]\naddress = \"unix:{socket}\"\nmode = \"0600\"\n");
    let config = folder.write("vencejo.toml", listener);
    (Served::start_by(folder, serve(&config)), socket)
}

/// `--unix` is mosquitto's flag; the log says which user and process the Client is.
#[test]
fn tools_and_server_meet_at_a_unix_socket() {
    let folder = TempFolder::new();
    let (mut server, unix) = start_at_socket(&folder);
    let mut lines = server.greeting.lines();
    let line = lines.find(|line| line.contains("unix:"));
    assert!(
        line.is_some_and(|line| line.contains("no password, only from this machine")),
        "{}",
        server.greeting
    );
    let command = vencejo(&["sub", "--unix", &unix, "-t", "#", "-d"]);
    let mut subscriber = Running::start_unheard(command);
    subscriber.line_with("Subscribed");
    let message = ["-t", "a", "-m", "through", "-q", "1"];
    succeeded(&run(&[&["pub", "--unix", &unix], &message[..]].concat()));
    assert_eq!(subscriber.line_with("through"), "through");
    let log = server.log();
    let pid = format!("pid={}", subscriber.pid());
    assert!(
        log.contains("peer=unix:uid=") && log.contains(&pid),
        "{log}"
    );
    server.process.stop();
    assert!(!Path::new(&unix).exists());
    let refused = run(&["pub", "--unix", &unix, "-t", "a", "-m", "b"]);
    let said = text(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains("There is no such file"), "{said}");
}

#[test]
fn a_socket_that_is_left_of_a_killed_server_is_replaced_and_a_file_is_not() {
    let folder = TempFolder::new();
    let (server, unix) = start_at_socket(&folder);
    drop(server);
    assert!(Path::new(&unix).exists());
    let (_server, unix) = start_at_socket(&folder);
    succeeded(&run(&["pub", "--unix", &unix, "-t", "a", "-m", "b"]));
    // While it answers, nobody takes its place.
    let config = folder.path("vencejo.toml");
    let second = output(serve(&config));
    assert_eq!(second.status.code(), Some(69));
    assert!(text(&second.stderr).contains("another program answers there"));
    let path = folder.write("precious", "file");
    let config = format!("[[listeners]]\naddress = \"unix:{path}\"\n");
    let wrong = output(serve(&folder.write("wrong.toml", &config)));
    assert_eq!(wrong.status.code(), Some(78), "{}", text(&wrong.stderr));
    assert_eq!(folder.read("precious"), "file");
}

/// Runs the server with sockets open as systemd would: `script` makes a list `sockets` of (name, socket).
fn activated(config: &str, script: &str) -> Command {
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
    let mut command = undisturbed("python3");
    command.args(["-c", HAND_OVER, script, VENCEJO]);
    command.args(SERVE).arg(config);
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
    let folder = TempFolder::new();
    let unix = folder.path("mqtt.sock");
    let config = folder.write("vencejo.toml", ALL_KINDS);
    let manager = UnixDatagram::bind(folder.join("notify")).expect("a socket");
    manager
        .set_read_timeout(Some(DEADLINE))
        .expect("a socket option");
    let script = format!(
        "sockets = [tcp('four', socket.AF_INET, '127.0.0.1'), unix('local', {unix:?}), \
         tcp('other', socket.AF_INET, '127.0.0.1'), tcp('six', socket.AF_INET6, '::1')]"
    );
    let mut command = activated(&config, &script);
    command.env("NOTIFY_SOCKET", folder.join("notify"));
    let mut server = Served::start_by(&folder, command);
    let lines = server.greeting.lines();
    let doors: Vec<&str> = lines.filter(|line| line.starts_with("  MQTT")).collect();
    let expected = ["mqtt://[::1]:", &unix, "mqtt://127.0.0.1:"];
    assert_eq!(doors.len(), expected.len(), "{doors:?}");
    for (door, expected) in doors.iter().zip(expected) {
        assert!(door.contains(expected), "{door}");
    }
    let ports = server.ports();
    let [six, four] = &ports[..] else {
        panic!("{}", server.greeting)
    };
    let mut heard = [0; 64];
    let len = manager.recv(&mut heard).expect("it is told");
    assert!(text(&heard[..len]).contains("READY=1"));
    let doors: [&[&str]; 3] = [
        &["-h", "::1", "-p", six],
        &["-h", "127.0.0.1", "-p", four],
        &["--unix", &unix],
    ];
    for door in doors {
        let message = ["pub", "-t", "a", "-m", "b", "-q", "1"];
        succeeded(&run(&[&message[..], door].concat()));
    }
    server.process.signal("TERM");
    let len = manager.recv(&mut heard).expect("it is told");
    assert!(text(&heard[..len]).contains("STOPPING=1"));
    assert_eq!(server.process.code(), Some(0));
    // systemd has made it, and keeps it.
    assert!(Path::new(&unix).exists());
}

#[test]
fn a_socket_that_is_not_there_or_does_not_listen_starts_nothing() {
    let folder = TempFolder::new();
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
fn start_one_of_each(folder: &TempFolder) -> (Served, Vec<String>) {
    succeeded(&output(folder.vencejo(&["tls", "init"])));
    folder.write("vencejo.toml", ONE_OF_EACH);
    let server = Served::start(folder, &[&SERVE[1..], &["vencejo.toml"]].concat());
    let (schemes, addresses): (Vec<&str>, Vec<&str>) = server.listeners().into_iter().unzip();
    assert_eq!(schemes, ["mqtt", "mqtts", "ws", "mqtt, ws", "mqtt"]);
    let addresses = addresses.into_iter().map(str::to_owned).collect();
    (server, addresses)
}

/// What it says a client may try leads to a name that the certificate is for.
#[test]
fn a_certificate_for_a_name_is_tried_by_that_name() {
    let folder = TempFolder::new();
    let init = |names: &[&str]| {
        let tool = folder.vencejo(&[&["tls", "init"], names].concat());
        succeeded(&output(tool))
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
    let folder = TempFolder::new();
    let (server, addresses) = start_one_of_each(&folder);
    for (listener, bytes, expected) in WRONG {
        let mut client = TcpStream::connect(&addresses[listener]).expect("it listens");
        client.write_all(bytes).expect("is read");
        client.set_read_timeout(Some(DEADLINE)).expect("an option");
        // Until the server closes: then the log has it.
        let mut said = Vec::new();
        client.read_to_end(&mut said).ok();
        let log = server.log();
        assert!(log.contains(expected), "{expected}: {log}");
    }
}

/// Who asks a port with TLS in the clear is told so, and the other way round.
#[test]
fn the_tools_say_that_tls_is_there_or_is_not() {
    let folder = TempFolder::new();
    let (_server, addresses) = start_one_of_each(&folder);
    let (_, plain) = addresses[0].split_once(':').expect("a port");
    let (_, secure) = addresses[1].split_once(':').expect("a port");
    let in_the_clear = run(&["pub", "-p", secure, "-t", "a", "-m", "b"]);
    let said = text(&in_the_clear.stderr);
    assert!(said.contains("the server speaks TLS there"), "{said}");
    let mut command = vencejo(&["pub", "-p", plain, "-t", "a", "-m", "b", "--cafile"]);
    command.arg(folder.path("tls/ca.pem"));
    let said = text(&output(command).stderr);
    assert!(said.contains("does it speak TLS at that port?"), "{said}");
}
