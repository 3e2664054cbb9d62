//! The binary over QUIC: server and tools, with the files that `vencejo tls init` makes.
//!
//! Owns: what only the whole binary shows. Does not own: QUIC itself (see the server's and the client's tests).
//! Start reading at [`tools_speak_quic_with_the_flags_of_tls`]. Invariant: nobody is trusted whom the files do not name.

use crate::program::{Served, TempFolder, run, succeeded, text};

/// A server with the configuration of one test.
struct Configured {
    served: Served,
    folder: TempFolder,
}

impl Configured {
    /// With these lines for its second listener.
    fn start(listener: &str) -> Self {
        let folder = TempFolder::new();
        let tls = folder.path("tls");
        succeeded(&run(&["tls", "init", &tls]));
        let plain = "[[listeners]]\naddress = \"127.0.0.1:0\"\n";
        let config = format!("{plain}{listener}").replace("{tls}", &tls);
        let config = folder.write("vencejo.toml", config);
        let served = Served::start(&folder, &["-c", &config, "--level", "memory"]);
        Self { served, folder }
    }

    /// The URL it has said, for a name that its certificate is for.
    fn url(&self) -> String {
        let listeners = self.served.listeners();
        let quic = listeners.iter().find(|(scheme, _)| *scheme == "quic");
        let (_, address) = quic.expect("a listener");
        address.replacen("127.0.0.1:", "quic://localhost:", 1)
    }

    fn roots(&self) -> String {
        self.folder.path("tls/ca.pem")
    }

    /// How many threads are there for QUIC.
    #[cfg(target_os = "linux")]
    fn threads_of_quic(&self) -> usize {
        let tasks = format!("/proc/{}/task", self.served.process.pid());
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

const QUIC: &str = r#"
[[listeners]]
address = "127.0.0.1:0"
name = "quic"
transport = "quic"
tls = { certificate = "{tls}/server.pem", key = "{tls}/server.key" }
"#;

#[test]
fn tools_speak_quic_with_the_flags_of_tls() {
    let served = Configured::start(QUIC);
    let (url, roots) = (served.url(), served.roots());
    let args = ["pub", "-L", &url, "--cafile", &roots, "-t", "t", "-q", "2"];
    let sent = run(&[&args[..], &["-r", "-m", "hello"]].concat());
    succeeded(&sent);
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
    let served = Configured::start(QUIC);
    // A thread has its name once it runs, and by then one has served somebody.
    let (url, roots) = (served.url(), served.roots());
    let sent = run(&["pub", "-L", &url, "--cafile", &roots, "-t", "t", "-m", "x"]);
    succeeded(&sent);
    assert!(served.threads_of_quic() > 0);
    assert_eq!(Configured::start("").threads_of_quic(), 0);
}
