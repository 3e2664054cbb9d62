//! What carries the bytes of a connection below everything else: TCP, or a Unix socket.
//!
//! Owns: [`ByteStream`], that both are used alike. Does not own: what runs over it (see `shard::socket`), who is at
//! its other end (see `crate::peer`). Start reading at [`ByteStream`]. Invariant: it never blocks.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use nix::sys::socket::{MsgFlags, recv};

/// One connected stream.
#[derive(Debug)]
pub(crate) enum ByteStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl ByteStream {
    /// Looks at what there is to read, and leaves it there. Zero bytes are the end.
    /// # Errors
    /// As of any read.
    pub(crate) fn peek(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.peek(buffer),
            Self::Unix(unix) => Ok(recv(unix.as_raw_fd(), buffer, MsgFlags::MSG_PEEK)?),
        }
    }

    /// Shuts the sending side.
    /// # Errors
    /// The socket failed.
    pub(crate) fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.shutdown(Shutdown::Write),
            Self::Unix(unix) => unix.shutdown(Shutdown::Write),
        }
    }
}

impl Read for ByteStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.read(buffer),
            Self::Unix(unix) => unix.read(buffer),
        }
    }
}

impl Write for ByteStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.write(bytes),
            Self::Unix(unix) => unix.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.write_vectored(slices),
            Self::Unix(unix) => unix.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Source for ByteStream {
    fn register(&mut self, registry: &Registry, token: Token, on: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.register(registry, token, on),
            Self::Unix(unix) => unix.register(registry, token, on),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, on: Interest) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.reregister(registry, token, on),
            Self::Unix(unix) => unix.reregister(registry, token, on),
        }
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.deregister(registry),
            Self::Unix(unix) => unix.deregister(registry),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;

    use super::*;

    #[test]
    fn peeked_bytes_of_a_unix_socket_are_still_to_be_read() {
        let (mut peer, ours) = UnixStream::pair().expect("a pair");
        let mut ours = ByteStream::Unix(ours);
        let mut buffer = [0; 8];
        let nothing = ours.peek(&mut buffer).expect_err("nothing yet");
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        peer.write_all(b"abc").expect("is written");
        assert_eq!(ours.peek(&mut buffer).expect("peeks"), 3);
        assert_eq!(ours.read(&mut buffer).expect("reads"), 3);
        assert_eq!(&buffer[..3], b"abc");
        drop(peer);
        assert_eq!(ours.peek(&mut buffer).expect("the end"), 0);
    }
}
