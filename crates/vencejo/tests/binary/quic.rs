//! The binary over QUIC: server and tools, with the files that `vencejo tls init` makes.
//!
//! Owns: what only the whole binary shows. Does not own: QUIC itself (see the server's and the client's tests).
//! Start reading at [`Served`]. Invariant: every process and every folder ends with its test.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

/// A server with the configuration of one test; killed, and its folder gone, with its owner.
struct Served {
    child: Child,
    folder: PathBuf,
    /// What it said at its start.
    greeting: String,
}

impl Served {
    /// With these lines for its second listener.
    fn start(name: &str, listener: &str) -> Self {
        let folder = format!("vencejo-quic-test-{}-{name}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let tls = folder.join("tls");
        let made = run(&["tls", "init", &tls.to_string_lossy()]);
        assert_eq!(made.status.code(), Some(0), "{}", text(&made.stderr));
        let plain = "[[listeners]]\naddress = \"127.0.0.1:0\"\n";
        let config = format!("{plain}{listener}").replace("{tls}", &tls.to_string_lossy());
        let file = folder.join("vencejo.toml");
        std::fs::write(&file, config).expect("a file");
        let mut child = vencejo(&["serve", "-c", &file.to_string_lossy(), "--level", "memory"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the binary starts");
        let out = child.stdout.take().expect("standard output is a pipe");
        let mut greeting = String::new();
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            greeting.push_str(&line);
            greeting.push('\n');
            if line.contains(" pub ") {
                break;
            }
        }
        Self {
            child,
            folder,
            greeting,
        }
    }

    /// The URL it has said, for a name that its certificate is for.
    fn url(&self) -> String {
        let rest = self.greeting.split_once("quic://127.0.0.1:");
        let (_, rest) = rest.expect("an address");
        let port = rest.split_whitespace().next().unwrap_or_default();
        format!("quic://localhost:{port}")
    }

    fn roots(&self) -> String {
        let roots = self.folder.join("tls/ca.pem");
        roots.to_string_lossy().into_owned()
    }

    /// How many threads are there for QUIC.
    #[cfg(target_os = "linux")]
    fn threads_of_quic(&self) -> usize {
        let tasks = format!("/proc/{}/task", self.child.id());
        let tasks = std::fs::read_dir(tasks).expect("it runs");
        let names = tasks.map(|task| {
            let task = task.expect("a thread").path().join("comm");
            std::fs::read_to_string(task).unwrap_or_default()
        });
        names
            .filter(|name| name.starts_with("vencejo-quic"))
            .count()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

fn vencejo(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vencejo"));
    command.args(args).stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    vencejo(args).output().expect("it runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

const QUIC: &str = r#"
[[listeners]]
address = "127.0.0.1:0"
name = "quic"
transport = "quic"
tls = { certificate = "{tls}/server.pem", key = "{tls}/server.key" }
"#;

#[test]
fn tools_speak_quic_with_the_flags_of_tls() {
    let served = Served::start("tools", QUIC);
    let (url, roots) = (served.url(), served.roots());
    let args = ["pub", "-L", &url, "--cafile", &roots, "-t", "t", "-q", "2"];
    let sent = run(&[&args[..], &["-r", "-m", "hello"]].concat());
    assert_eq!(sent.status.code(), Some(0), "{}", text(&sent.stderr));
    let with_topic = format!("{url}/t");
    let args = ["sub", "--url", &with_topic, "--cafile", &roots, "-C", "1"];
    let heard = run(&args);
    assert_eq!(text(&heard.stdout), "hello\n", "{}", text(&heard.stderr));
    // Whom nobody has vouched for, and a version that QUIC does not have.
    let stranger = run(&["pub", "-L", &url, "-t", "t", "-m", "x"]);
    assert_eq!(stranger.status.code(), Some(1));
    let old = ["--cafile", &roots, "--tls-version", "tlsv1.2"];
    let old = run(&[&["pub", "-L", &url, "-t", "t", "-m", "x"], &old[..]].concat());
    assert_eq!(old.status.code(), Some(1));
    assert!(
        text(&old.stderr).contains("TLS 1.3"),
        "{}",
        text(&old.stderr)
    );
}

#[cfg(target_os = "linux")]
#[test]
fn there_are_threads_for_quic_only_where_a_listener_speaks_it() {
    let served = Served::start("with", QUIC);
    // A thread has its name once it runs, and by then one has served somebody.
    let (url, roots) = (served.url(), served.roots());
    let sent = run(&["pub", "-L", &url, "--cafile", &roots, "-t", "t", "-m", "x"]);
    assert_eq!(sent.status.code(), Some(0), "{}", text(&sent.stderr));
    assert!(served.threads_of_quic() > 0);
    assert_eq!(Served::start("without", "").threads_of_quic(), 0);
}
