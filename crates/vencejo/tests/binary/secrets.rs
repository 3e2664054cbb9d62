//! What a server writes to its log while clients show secrets and say what they like.
//!
//! Owns: promise P13 of the log. Does not own: files and their modes (see `persist`, `passwords::users`).
//! Start reading at [`nothing_secret_and_nothing_forged_is_in_the_log`]. Invariant: the log of every level is looked at.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(30);
const PASSWORD: &str = "Sesame-hunter2";
const WRONG: &str = "Wrong-hunter3";
const PAYLOAD: &str = "Payload-nobody-reads";
const SECRET: &str = "a-secret-of-tokens-that-is-long-enough";

/// A folder of its own.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // It may be gone.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// A server that ends with its test.
struct Served {
    child: Child,
    port: String,
}

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Served {
    fn start(folder: &Folder, log_format: &str) -> Self {
        let log = std::fs::File::create(folder.0.join("log")).expect("a file");
        let mut child = vencejo(folder)
            .args(["serve", "-c", "vencejo.toml", "--listen", "127.0.0.1:0"])
            .args(["--data", "data", "--log-level", "trace"])
            .args(["--log-format", log_format])
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .expect("the binary starts");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        while !line.contains("mqtt://") {
            line.clear();
            assert!(out.read_line(&mut line).expect("a line") > 0, "it starts");
        }
        let port = line.split("127.0.0.1:").nth(1).expect("a port");
        let port = port.split_whitespace().next().expect("a port").to_owned();
        // What else it prints has to go somewhere.
        std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
        Self { child, port }
    }

    /// Says `bytes`, and what is answered until the end or a whole packet.
    fn say(&self, bytes: &[&[u8]]) -> Vec<u8> {
        let mut stream = TcpStream::connect(format!("127.0.0.1:{}", self.port)).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("an option");
        stream.write_all(&bytes.concat()).expect("is sent");
        stream.shutdown(std::net::Shutdown::Write).expect("is open");
        let mut answer = Vec::new();
        // It may be reset.
        stream.read_to_end(&mut answer).ok();
        answer
    }

    fn log(self, folder: &Folder) -> String {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", "TERM", &pid]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill");
        let mut served = self;
        served.child.wait().expect("it ends");
        std::fs::read_to_string(folder.0.join("log")).expect("is text")
    }
}

fn vencejo(folder: &Folder) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vencejo"));
    command.current_dir(&folder.0);
    command
}

fn string(text: &str) -> Vec<u8> {
    let len = u16::try_from(text.len()).expect("short");
    [&len.to_be_bytes()[..], text.as_bytes()].concat()
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let len = u8::try_from(body.len()).expect("short");
    assert!(len < 128);
    [&[first, len][..], body].concat()
}

/// CONNECT of 3.1.1 with these.
fn connect(client_id: &str, user: &str, password: &str) -> Vec<u8> {
    let head = b"\x00\x04MQTT\x04\xC2\x00\x00";
    let body = [
        &head[..],
        &string(client_id),
        &string(user),
        &string(password),
    ];
    packet(0x10, &body.concat())
}

/// P13: neither secrets nor payloads, and what peers chose is escaped.
#[test]
fn nothing_secret_and_nothing_forged_is_in_the_log() {
    for format in ["text", "json"] {
        let name = format!("vencejo-secrets-{}-{format}", std::process::id());
        let folder = Folder(std::env::temp_dir().join(name));
        std::fs::create_dir_all(&folder.0).expect("a folder");
        std::fs::write(folder.0.join("secret"), SECRET).expect("a file");
        std::fs::write(
            folder.0.join("vencejo.toml"),
            "[authentication]\ntokens = { key = \"secret\", algorithms = [\"HS256\"] }\n",
        )
        .expect("a file");
        let mut add = vencejo(&folder)
            .args(["user", "add", "anna", "--data", "data"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut stdin = add.stdin.take().expect("a pipe");
        writeln!(stdin, "{PASSWORD}").expect("is read");
        drop(stdin);
        assert!(add.wait().expect("it ends").success());
        let served = Served::start(&folder, format);
        let publish = packet(0x30, &[string("t"), PAYLOAD.into()].concat());
        let good = connect("good", "anna", PASSWORD);
        let answer = served.say(&[&good, &publish, &[0xE0, 0]]);
        assert_eq!(answer.get(..4), Some(&[0x20, 2, 0, 0][..]), "{answer:?}");
        served.say(&[&connect("bad", "anna", WRONG)]);
        // As are most who mistake the one field for the other.
        served.say(&[&connect("swapped", PASSWORD, "anna")]);
        let token = "eyJhbGciOiJIUzI1NiJ9.hunter4.hunter5";
        served.say(&[&connect("token", "anna", token)]);
        let forged = "x\n2026-01-01T00:00:00Z  INFO forged peer=1.2.3.4\u{1b}[31m";
        served.say(&[&connect(forged, "anna", PASSWORD), &[0xE0, 0]]);
        served.say(&[&connect("named", forged, WRONG)]);
        let topic = packet(
            0x32,
            &[string("a\u{7f}\u{85}\n"), vec![0, 1], PAYLOAD.into()].concat(),
        );
        served.say(&[&good, &topic]);
        // Broken in the middle of what is secret.
        served.say(&[&good[..good.len() - 3]]);
        let log = served.log(&folder);
        for secret in [PASSWORD, WRONG, PAYLOAD, SECRET, "hunter4", "hunter5"] {
            assert!(!log.contains(secret), "{secret} in {log}");
        }
        assert!(log.contains("good") && log.contains("anna"), "{log}");
        assert!(log.contains("forged"), "the name is told: {log}");
        let forged = log
            .lines()
            .find(|line| line.contains("INFO forged") && line.starts_with("2026-01-01"));
        assert_eq!(forged, None);
        let control = |c: char| c.is_control() && c != '\n';
        assert!(!log.contains(control), "{log:?}");
        if format == "json" {
            assert!(
                log.lines()
                    .all(|line| line.starts_with('{') && line.ends_with('}'))
            );
        }
    }
}
