//! Which program listens at an address, as far as this system tells us (Linux: /proc).
//!
//! Owns: reading `/proc/net/tcp` and `/proc/*/fd`. Does not own: what to do about it.
//! Start reading at [`find`]. Invariant: an answer is a hint; whatever cannot be read is skipped.

use std::fs;
use std::net::{SocketAddr, TcpListener};

/// A program that holds a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) name: String,
    pub(crate) pid: u32,
}

/// The program that listens at this port, if it can be told.
pub(crate) fn find(port: u16) -> Option<Owner> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|table| listening_inodes(&table, port))
        .collect();
    if inodes.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?;
    processes.filter_map(Result::ok).find_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let files = fs::read_dir(process.path().join("fd")).ok()?;
        let holds = files.filter_map(Result::ok).any(|file| {
            fs::read_link(file.path()).is_ok_and(|target| {
                let target = target.to_string_lossy();
                inodes.iter().any(|inode| *target == *inode)
            })
        });
        if !holds {
            return None;
        }
        let name = fs::read_to_string(process.path().join("comm")).ok()?;
        Some(Owner {
            name: name.trim().to_owned(),
            pid,
        })
    })
}

/// What the links in `/proc/*/fd` say for the sockets that listen at `port`.
fn listening_inodes(table: &str, port: u16) -> Vec<String> {
    const LISTEN: &str = "0A";
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
            let is_ours = u16::from_str_radix(local_port, 16) == Ok(port);
            let inode = fields.get(9)?;
            (is_ours && fields.get(3) == Some(&LISTEN)).then(|| format!("socket:[{inode}]"))
        })
        .collect()
}

/// What to say about an address in use: who has it, and what to do.
pub(crate) fn advice(address: SocketAddr) -> String {
    let who = find(address.port()).map_or_else(
        || "another program".to_owned(),
        |Owner { name, pid }| format!("{name} (pid {pid})"),
    );
    let port = address.port();
    let free = free_port_after(address)
        .map_or_else(String::new, |free| format!(", or use --listen {free}"));
    format!("{port} is used by {who}: stop it{free}")
}

fn free_port_after(address: SocketAddr) -> Option<SocketAddr> {
    (address.port().checked_add(1)?..=u16::MAX)
        .take(PORTS_TRIED_MAX)
        .map(|port| SocketAddr::new(address.ip(), port))
        .find(|address| TcpListener::bind(address).is_ok())
}

const PORTS_TRIED_MAX: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_owner_of_a_port_is_this_program() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let owner = find(address.port()).expect("Linux tells");
        assert_eq!(owner.pid, std::process::id());
        let advice = advice(address);
        let expected = format!(
            "{} is used by {} (pid {}): stop it",
            address.port(),
            owner.name,
            owner.pid
        );
        assert!(advice.starts_with(&expected), "{advice}");
        assert!(advice.contains(", or use --listen 127.0.0.1:"), "{advice}");
    }

    #[test]
    fn only_listening_sockets_of_the_port_count() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
             0: 0100007F:075B 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1\n\
             1: 0100007F:075B 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1\n\
             2: 0100007F:075C 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4713 1\n";
        assert_eq!(listening_inodes(table, 1883), ["socket:[4711]"]);
    }
}
