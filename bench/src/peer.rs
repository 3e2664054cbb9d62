//! One socket of the generator: bytes in, packets out of them, bytes to be sent.
//!
//! Owns: buffers, short writes, packets in pieces. Does not own: what packets mean, when it is read.
//! Start reading at [`Peer::read`]. Invariant: one write a flush, and none while the socket takes nothing.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use crate::wire::{self, Frame};

/// One connection to the broker.
#[derive(Debug)]
pub(crate) struct Peer {
    stream: TcpStream,
    out: Vec<u8>,
    sent: usize,
    /// The beginning of a packet whose rest has not arrived.
    kept: Vec<u8>,
    is_blocked: bool,
    pub(crate) is_dirty: bool,
}

impl Peer {
    /// Connects, and waits for that.
    /// # Errors
    /// As of the socket.
    pub(crate) fn connect(
        address: SocketAddr,
        registry: &Registry,
        token: usize,
    ) -> io::Result<Self> {
        let stream = std::net::TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        registry.register(
            &mut stream,
            Token(token),
            Interest::READABLE | Interest::WRITABLE,
        )?;
        Ok(Self {
            stream,
            out: Vec::new(),
            sent: 0,
            kept: Vec::new(),
            is_blocked: false,
            is_dirty: false,
        })
    }

    /// Where the next packet is put.
    pub(crate) const fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Bytes that the socket has not taken.
    pub(crate) const fn unsent(&self) -> usize {
        self.out.len() - self.sent
    }

    /// The socket takes bytes again.
    pub(crate) const fn on_writable(&mut self) -> bool {
        std::mem::replace(&mut self.is_blocked, false)
    }

    /// Reads all there is, and hands each packet that is whole to `take`, which may answer.
    /// # Errors
    /// As of the socket; `UnexpectedEof` if the broker has closed.
    pub(crate) fn read(
        &mut self,
        scratch: &mut [u8],
        mut take: impl FnMut(Frame<'_>, &mut Vec<u8>),
    ) -> io::Result<()> {
        loop {
            let kept = self.kept.len();
            let (front, room) = scratch.split_at_mut(kept);
            front.copy_from_slice(&self.kept);
            let len = match self.stream.read(room) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let is_all = len < room.len();
            let mut rest = scratch.get(..kept + len).unwrap_or_default();
            while let Some(frame) = wire::next_frame(rest) {
                let used = frame.len;
                take(frame, &mut self.out);
                rest = rest.get(used..).unwrap_or_default();
            }
            self.kept.clear();
            self.kept.extend_from_slice(rest);
            if is_all {
                return Ok(());
            }
        }
    }

    /// Sends what the socket takes.
    /// # Errors
    /// As of the socket.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        while self.sent < self.out.len() && !self.is_blocked {
            match self
                .stream
                .write(self.out.get(self.sent..).unwrap_or_default())
            {
                Ok(len) => self.sent += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_blocked = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        } else if self.sent > COMPACT_BYTES {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }
}

/// Sent bytes that are kept at most before what is left is moved.
const COMPACT_BYTES: usize = 256 * 1024;
