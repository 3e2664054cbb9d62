//! Our own broker as a child process, when no other is named.
//!
//! Owns: starting `vencejo serve` on a free port, learning the port, stopping it.
//! Does not own: the cases.
//! Start reading at [`Broker::start`]. Invariant: the child does not outlive the value.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long the broker may take to say where it listens.
const START_DEADLINE: Duration = Duration::from_secs(10);

/// A running broker.
#[derive(Debug)]
pub(crate) struct Broker {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Broker {
    /// Starts the binary at `path` with two shards on a free port of loopback.
    pub(crate) fn start(path: &Path) -> Result<Self, String> {
        let mut command = Command::new(path);
        command.args(["serve", "--listen", "127.0.0.1:0", "--shards", "2"]);
        // Every run begins with nothing.
        command.args(["--level", "memory"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let child = command
            .spawn()
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let mut broker = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        broker.address = broker.learn_address()?;
        Ok(broker)
    }

    /// Reads standard output up to the line with the address, and keeps it drained after that.
    fn learn_address(&mut self) -> Result<SocketAddr, String> {
        let stdout = self
            .child
            .stdout
            .take()
            .ok_or("the broker has no standard output")?;
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(address) = address_in(&line) {
                    // The receiver is gone once the address is known.
                    sender.send(address).unwrap_or_default();
                }
            }
        });
        receiver
            .recv_timeout(START_DEADLINE)
            .map_err(|_| format!("no line with mqtt://ADDRESS:PORT within {START_DEADLINE:?}"))
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing left to stop.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let (_, rest) = line.split_once("mqtt://")?;
    let end = rest.find(|c: char| !(c.is_ascii_hexdigit() || ".:[]".contains(c)));
    rest.get(..end.unwrap_or(rest.len()))?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_found_in_its_line() {
        let address = SocketAddr::from(([127, 0, 0, 1], 4711));
        assert_eq!(
            address_in("listening on mqtt://127.0.0.1:4711 (2 shards)"),
            Some(address)
        );
        assert_eq!(address_in("mqtt://127.0.0.1:4711"), Some(address));
        assert_eq!(address_in("no address here"), None);
    }
}
