//! Opening listeners: one socket for each shard on one port, or one for all.
//!
//! Owns: socket options, the proof that a port is ours. Does not own: accepting (see `shard::accept`).
//! Start reading at [`open`]. Invariant: a port that another program serves is never shared with it.

// [MQTT-4.2-1] [v3.1.1 MQTT-7.1.1-1] TCP: an ordered, lossless stream of bytes both ways.
use std::io;
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

/// One address, opened.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Where it listens, with the real port.
    pub(crate) address: SocketAddr,
    /// One socket for each shard, or one only.
    pub(crate) sockets: Vec<TcpListener>,
}

/// Opens `address` for `shard_count` shards. Where the system does not let sockets share a port there
/// is one socket for all of them.
/// # Errors
/// The address is in use or not ours to bind.
pub(crate) fn open(address: SocketAddr, shard_count: u16) -> io::Result<Opened> {
    // SO_REUSEPORT would share the port with a forgotten process without a word. So the first socket
    // binds without it, which succeeds only if nobody listens there, and takes it on afterwards.
    let first = bound(address, false)?;
    let address = first
        .local_addr()?
        .as_socket()
        .ok_or_else(|| io::Error::other("not an internet address"))?;
    let shares = shard_count > 1 && share_port(&first).is_ok();
    let mut sockets = vec![listening(first)?];
    for _ in 1..shard_count {
        let Ok(next) = bound(address, true).and_then(listening) else {
            break;
        };
        sockets.push(next);
    }
    if !shares || sockets.len() < usize::from(shard_count) {
        sockets.truncate(1);
    }
    Ok(Opened { address, sockets })
}

/// Sets what an accepted socket does not inherit from its listener.
pub(crate) fn prepare_accepted(socket: &TcpStream) {
    if cfg!(target_os = "linux") {
        return;
    }
    let result = socket
        .set_nodelay(true)
        .and_then(|()| keep_alive(&SockRef::from(socket)));
    if let Err(error) = result {
        tracing::debug!(%error, "socket options were not set");
    }
}

fn bound(address: SocketAddr, shares: bool) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if cfg!(unix) {
        socket.set_reuse_address(true)?;
    }
    if shares {
        share_port(&socket)?;
    }
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    keep_alive(&SockRef::from(&socket))?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Lets other sockets of ours bind the same port; the system spreads connections over them.
#[cfg(unix)]
fn share_port(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_port(true)
}

#[cfg(not(unix))]
fn share_port(_: &Socket) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A peer that has vanished is noticed even with MQTT's Keep Alive off.
fn keep_alive(socket: &SockRef<'_>) -> io::Result<()> {
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEP_ALIVE))
}

fn listening(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Connections the system holds for us before they are accepted.
const BACKLOG: i32 = 4096;
/// Silence after which the system asks whether the peer is still there.
const TCP_KEEP_ALIVE: std::time::Duration = std::time::Duration::from_secs(300);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_gets_a_socket_on_one_port() {
        let opened = open(([127, 0, 0, 1], 0).into(), 4).expect("a free port");
        assert_ne!(opened.address.port(), 0);
        assert!(matches!(opened.sockets.len(), 1 | 4));
        if cfg!(target_os = "linux") {
            assert_eq!(opened.sockets.len(), 4);
        }
    }

    #[test]
    fn port_of_another_server_is_not_shared() {
        let other = open(([127, 0, 0, 1], 0).into(), 2).expect("a free port");
        let error = open(other.address, 2).expect_err("in use");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
