//! Opening listeners: one socket for each shard on one port, or one for all.
//!
//! Owns: [`Listening`], socket options, the proof that a port is ours. Does not own: accepting (see
//! `shard::accept`), files of Unix sockets (see `crate::socket_file`).
//! Start reading at [`open`]. Invariant: a port that another program serves is never shared with it.

// [MQTT-4.2-1] [v3.1.1 MQTT-7.1.1-1] TCP: an ordered, lossless stream of bytes both ways.
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::path::{Path, PathBuf};

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener};
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::activation::{self, ActivationError, Inherited};
use crate::byte_stream::ByteStream;
use crate::config::{Address, ListenerConfig, Transport};
use crate::peer::Peer;
use crate::socket_file::{self, SocketFile, SocketFileError};

/// One address, opened.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Where it listens, with the real port.
    pub(crate) address: Address,
    /// One socket for each shard, or one only.
    pub(crate) sockets: Vec<Listening>,
    /// That of QUIC, which has no other.
    pub(crate) datagrams: Option<UdpSocket>,
    /// What goes with it.
    pub(crate) file: Option<SocketFile>,
}

/// A socket that connections come by.
#[derive(Debug)]
pub(crate) enum Listening {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listening {
    /// The next connection, and who has made it.
    /// # Errors
    /// As of accepting; `WouldBlock`: there is none.
    pub(crate) fn accept(&self) -> io::Result<(ByteStream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                prepare_accepted(&stream);
                Ok((ByteStream::Tcp(stream), address.into()))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept()?;
                let peer = Peer::of_unix(&stream);
                Ok((ByteStream::Unix(stream), peer))
            }
        }
    }

    /// Says with `token` when there are connections.
    /// # Errors
    /// The system cannot watch it.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.register(registry, token, Interest::READABLE),
            Self::Unix(listener) => listener.register(registry, token, Interest::READABLE),
        }
    }
}

/// Why a listener cannot be opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    Network(SocketAddr, io::Error),
    Unix(PathBuf, SocketFileError),
    Inherited(String, ActivationError),
}

/// Opens what `config` says for `shard_count` shards.
/// # Errors
/// The address is in use or not ours to bind.
pub(crate) fn open(config: &ListenerConfig, shard_count: u16) -> Result<Opened, OpenError> {
    match &config.address {
        Address::Network(address) if config.transport == Transport::Quic => {
            open_datagrams(*address).map_err(|error| OpenError::Network(*address, error))
        }
        Address::Network(address) => {
            open_network(*address, shard_count).map_err(|error| OpenError::Network(*address, error))
        }
        Address::Unix(path) => {
            // One for all: connections of a Unix socket cannot be spread by the system.
            let opened = socket_file::open(path, &config.file, BACKLOG);
            let (listener, file) = opened.map_err(|error| OpenError::Unix(path.clone(), error))?;
            Ok(Opened {
                address: config.address.clone(),
                sockets: vec![Listening::Unix(UnixListener::from_std(listener))],
                datagrams: None,
                file: Some(file),
            })
        }
        Address::Inherited(name) => {
            let opened = activation::take(name).and_then(inherited);
            opened.map_err(|error| OpenError::Inherited(name.clone(), error))
        }
    }
}

/// What the service manager has opened: one socket for all shards, and its file is not ours to take away.
fn inherited(socket: Inherited) -> Result<Opened, ActivationError> {
    let unusable = |source| ActivationError::Unusable { source };
    let (address, socket) = match socket {
        Inherited::Tcp(tcp) => {
            let address = Address::Network(tcp.local_addr().map_err(unusable)?);
            let socket = SockRef::from(&tcp);
            socket
                .set_tcp_nodelay(true)
                .and_then(|()| keep_alive(&socket))
                .map_err(unusable)?;
            (address, Listening::Tcp(TcpListener::from_std(tcp)))
        }
        Inherited::Unix(unix) => {
            let address = unix.local_addr().map_err(unusable)?;
            let path = address.as_pathname().unwrap_or_else(|| Path::new(""));
            let address = Address::Unix(path.to_owned());
            (address, Listening::Unix(UnixListener::from_std(unix)))
        }
    };
    Ok(Opened {
        address,
        sockets: vec![socket],
        datagrams: None,
        file: None,
    })
}

#[cfg(feature = "quic")]
fn open_datagrams(address: SocketAddr) -> io::Result<Opened> {
    let socket = crate::quic::bind(address)?;
    Ok(Opened {
        address: Address::Network(socket.local_addr()?),
        sockets: Vec::new(),
        datagrams: Some(socket),
        file: None,
    })
}

/// The configuration has no such listener then.
#[cfg(not(feature = "quic"))]
fn open_datagrams(_: SocketAddr) -> io::Result<Opened> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Opens `address` for `shard_count` shards. Where the system does not let sockets share a port there
/// is one socket for all of them.
/// # Errors
/// The address is in use or not ours to bind.
fn open_network(address: SocketAddr, shard_count: u16) -> io::Result<Opened> {
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
    Ok(Opened {
        address: Address::Network(address),
        sockets,
        datagrams: None,
        file: None,
    })
}

/// Sets what an accepted socket does not inherit from its listener.
fn prepare_accepted(socket: &TcpStream) {
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

fn listening(socket: Socket) -> io::Result<Listening> {
    socket.listen(BACKLOG)?;
    Ok(Listening::Tcp(TcpListener::from_std(socket.into())))
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
        let opened = open_network(([127, 0, 0, 1], 0).into(), 4).expect("a free port");
        let address = opened.address.network().expect("an address");
        assert_ne!(address.port(), 0);
        assert!(matches!(opened.sockets.len(), 1 | 4));
        if cfg!(target_os = "linux") {
            assert_eq!(opened.sockets.len(), 4);
        }
    }

    #[test]
    fn port_of_another_server_is_not_shared() {
        let other = open_network(([127, 0, 0, 1], 0).into(), 2).expect("a free port");
        let address = other.address.network().expect("an address");
        let error = open_network(address, 2).expect_err("in use");
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
