//! One socket of the generator: bytes in, packets out of them, bytes to be sent.
//!
//! Owns: buffers, short writes, packets in pieces. Does not own: what packets mean, when it is read, TLS (see `door`).
//! Start reading at [`Peer::read`]. Invariant: one write a flush, and none while the socket takes nothing.

use std::io::{self, ErrorKind, Read as _, Write as _};

use mio::Registry;

use crate::door::{Carrier, Door};
use crate::wire::{self, Frame};

/// One connection to the broker.
#[derive(Debug)]
pub(crate) struct Peer {
    carrier: Carrier,
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
    pub(crate) fn connect(door: &Door, registry: &Registry, token: usize) -> io::Result<Self> {
        door.connect(registry, token).map(Self::over)
    }

    /// Begins to connect: what it has to say is sent once the socket can be written.
    /// # Errors
    /// As of the socket.
    pub(crate) fn begin_to_connect(
        door: &Door,
        registry: &Registry,
        token: usize,
    ) -> io::Result<Self> {
        let carrier = door.begin_to_connect(registry, token)?;
        Ok(Self {
            is_blocked: true,
            ..Self::over(carrier)
        })
    }

    const fn over(carrier: Carrier) -> Self {
        Self {
            carrier,
            out: Vec::new(),
            sent: 0,
            kept: Vec::new(),
            is_blocked: false,
            is_dirty: false,
        }
    }

    /// Where the next packet is put.
    pub(crate) const fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Whether there is something that the socket has not taken.
    pub(crate) fn is_unsent(&self) -> bool {
        self.out.len() > self.sent || self.carrier.is_pending()
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
            let len = match self.carrier.read(room) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let is_all = len < room.len() && self.carrier.is_plain();
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
                .carrier
                .write(self.out.get(self.sent..).unwrap_or_default())
            {
                Ok(len) => self.sent += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_blocked = true,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        match self.carrier.flush() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_blocked = true,
            flushed => flushed?,
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
