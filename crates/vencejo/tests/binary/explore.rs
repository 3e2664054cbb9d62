//! `vencejo explore` in a terminal: what it draws, what keys do, how it leaves the terminal.
//!
//! Owns: the pseudo-terminal. Does not own: what stands where on the screen (unit tests). Start reading at [`Explored`].
//! Invariant: every wait has a deadline, every process ends with its test.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Instant;

use rustix::fs::OFlags;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use vencejo_test::Broker;
use vencejo_test::client::blocking::Client;
use vencejo_test::client::{Publication, Qos};
use vencejo_test::server::config;

use crate::program::{DEADLINE, killed_at_the_deadline, run, text, vencejo};

const OTHER_SCREEN: &str = "\x1b[?1049h";
const OWN_SCREEN: &str = "\x1b[?1049l";

/// The program in a terminal of 110 by 30.
struct Explored {
    child: Child,
    master: File,
    terminal: File,
    /// How the terminal was before.
    before: Termios,
    output: mpsc::Receiver<Vec<u8>>,
    seen: String,
}

impl Explored {
    fn start(args: &[&str]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&master)
            .and_then(|()| unlockpt(&master))
            .expect("is ours");
        let name = ptsname(&master, Vec::new()).expect("has a name");
        let no_terminal = i32::try_from(OFlags::NOCTTY.bits()).expect("a small number");
        let terminal = File::options()
            .read(true)
            .write(true)
            .custom_flags(no_terminal)
            .open(name.to_str().expect("a path"))
            .expect("its other end");
        let size = Winsize {
            ws_row: 30,
            ws_col: 110,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&terminal, size).expect("has a size");
        let before = tcgetattr(&terminal).expect("has settings");
        let end = || Stdio::from(OwnedFd::from(terminal.try_clone().expect("another handle")));
        let child = vencejo(&["explore"])
            .args(args)
            .env("TERM", "xterm-256color")
            .env_remove("NO_COLOR")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .expect("the binary starts");
        let master = File::from(master);
        let mut reader = master.try_clone().expect("another handle");
        let (sender, output) = mpsc::channel();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            while let Ok(count) = reader.read(&mut buffer) {
                if count == 0 || sender.send(buffer[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self {
            child,
            master,
            terminal,
            before,
            output,
            seen: String::new(),
        }
    }

    /// Waits until `text` has been drawn since the last time.
    fn wait_for(&mut self, text: &str) {
        let started = Instant::now();
        while !self.seen.contains(text) {
            let left = DEADLINE.saturating_sub(started.elapsed());
            let more = self.output.recv_timeout(left);
            assert!(more.is_ok(), "no {text:?} in {:?}", self.seen);
            let more = more.unwrap_or_default();
            self.seen.push_str(&String::from_utf8_lossy(&more));
        }
        let (_, rest) = self.seen.split_once(text).unwrap_or_default();
        self.seen = rest.to_owned();
    }

    fn keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("is typed");
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(status.is_ok_and(|status| status.success()), "kill");
    }

    /// Waits for its end; it has to leave the terminal as it was.
    fn end(mut self, code: i32) {
        self.wait_for(OWN_SCREEN);
        let watchdog = killed_at_the_deadline(self.child.id());
        let status = self.child.wait().expect("a child");
        drop(watchdog);
        assert_eq!(status.code(), Some(code), "{:?}", self.seen);
        let after = tcgetattr(&self.terminal).expect("has settings");
        let modes = |of: &Termios| (of.local_modes, of.input_modes, of.output_modes);
        assert_eq!(modes(&after), modes(&self.before));
    }
}

impl Drop for Explored {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn broker() -> (Broker, String, Client) {
    let broker = Broker::start();
    let url = format!("mqtt://{}", broker.addr());
    let client = Client::connect(broker.options()).expect("connects");
    (broker, url, client)
}

fn publish(client: &Client, topic: &str, payload: &str) {
    let publication = Publication::new(topic, payload.to_owned(), Qos::AtLeastOnce).retain(true);
    client.publish(publication).expect("is published");
}

#[test]
fn the_tree_is_drawn_and_the_terminal_given_back() {
    let (_broker, url, client) = broker();
    publish(&client, "house/light", "shining");
    let mut explored = Explored::start(&[&url]);
    explored.wait_for(OTHER_SCREEN);
    explored.wait_for("(1)");
    explored.keys("\rj");
    explored.wait_for("shining");
    publish(&client, "house/light", "DARK\x1b]0;x\x07");
    explored.wait_for("DARK\\u{1b}]0;x\\u{7}");
    explored.keys("q");
    explored.end(0);
}

#[test]
fn signals_give_the_terminal_back() {
    let (_broker, url, _client) = broker();
    for signal in ["TERM", "INT", "HUP"] {
        let mut explored = Explored::start(&[&url]);
        explored.wait_for("Nothing has come yet.");
        explored.signal(signal);
        explored.end(0);
    }
}

#[test]
fn what_is_published_and_cleared_there_reaches_the_server() {
    let (_broker, url, client) = broker();
    publish(&client, "house/light", "on");
    let mut explored = Explored::start(&[&url, "-t", "house/#"]);
    explored.wait_for("(1)");
    explored.keys("\rjp");
    explored.wait_for("Payload");
    // The payload as it was, and more; then RETAIN. What has changed is drawn.
    explored.keys("ce more\t\t \r");
    explored.wait_for("ce more");
    explored.keys("x");
    explored.wait_for("Clear the retained message of house/light? y/n");
    explored.keys("y");
    explored.wait_for("1 retained messages cleared");
    explored.keys("\x03");
    explored.end(0);
}

/// At QoS 0 nobody would hear that it may not.
#[test]
fn what_it_may_not_clear_is_said() {
    let broker = Broker::start_with(|config| {
        let text = "[[authorization.rules]]\neffect = \"deny\"\nactions = [\"publish\"]\n\
            topics = [\"#\"]\nclient_ids = [\"explorer\"]\n\
            [[authorization.rules]]\neffect = \"allow\"\ntopics = [\"#\"]";
        let parsed = config::parse(text, "test.toml".as_ref()).expect("a configuration");
        config.authorization = parsed.authorization;
    });
    let client = Client::connect(broker.options()).expect("connects");
    publish(&client, "house/light", "on");
    let url = format!("mqtt://{}", broker.addr());
    let mut explored = Explored::start(&[&url, "-t", "house/#", "-i", "explorer"]);
    explored.wait_for("(1)");
    explored.keys("\rjx");
    explored.wait_for("Clear the retained message of house/light? y/n");
    explored.keys("y");
    explored.wait_for("0 retained messages cleared, not all: Not authorized");
    explored.keys("\x03");
    explored.end(0);
}

#[test]
fn a_connection_that_is_lost_is_told_and_made_again() {
    let (mut broker, url, client) = broker();
    publish(&client, "house", "on");
    let mut explored = Explored::start(&[&url]);
    explored.wait_for("house");
    broker.kill();
    explored.wait_for("NOT CONNECTED");
    broker.restart();
    explored.wait_for("connected, MQTT 5.0");
    explored.keys("q");
    explored.end(0);
}

#[test]
fn without_a_terminal_it_says_so() {
    let output = run(&["explore", "mqtt://127.0.0.1:1"]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("explore draws on a terminal"), "{said}");
    assert_eq!(output.stdout, b"");
}
