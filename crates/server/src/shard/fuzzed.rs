//! What fuzz targets feed of what strangers say before their first packet.
//!
//! Owns: [`header_len`], [`open_websocket`]. Does not own: what is checked (see `fuzz/bodies`). Start reading at
//! either. Invariant: nothing here is used by the Server.

use std::io::{self, ErrorKind, Read, Write};

use super::proxied;
use super::websocket::WebSocket;

/// The length of the header of the PROXY protocol at the front of `bytes`; nothing if it is not complete.
/// # Errors
/// There is none; why.
pub fn header_len(bytes: &[u8]) -> Result<Option<usize>, &'static str> {
    Ok(proxied::parse(bytes)?.map(|(_, len)| len))
}

/// What came out of a WebSocket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// Payload, in order.
    pub payload: Vec<u8>,
    /// Whether it ended because a rule was broken.
    pub is_broken: bool,
    /// What the peer was told.
    pub said: Vec<u8>,
}

/// Feeds `input` to a WebSocket in pieces of at most `piece` bytes, reads of it at most `room` bytes at once, and sends
/// what it has to say as it arises. Neither may be 0.
#[must_use]
pub fn open_websocket(input: &[u8], piece: usize, room: usize) -> Heard {
    let (mut socket, mut heard) = (WebSocket::new(), Heard::default());
    let mut lower = Lower { input, piece };
    let mut buffer = vec![0; room];
    loop {
        let read = socket.read(&mut lower, &mut buffer);
        // It takes everything.
        socket.push(&mut heard.said).ok();
        match read {
            Ok(0) => return heard,
            Ok(len) => {
                let payload = buffer.get(..len).unwrap_or_default();
                heard.payload.extend_from_slice(payload);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => {
                heard.is_broken = error.kind() == ErrorKind::InvalidData;
                return heard;
            }
        }
    }
}

/// What is below: it gives pieces, then nothing more.
struct Lower<'a> {
    input: &'a [u8],
    piece: usize,
}

impl Read for Lower<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let len = self.input.len().min(self.piece).min(buffer.len());
        if len == 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        let (now, later) = self.input.split_at(len);
        self.input = later;
        buffer.split_at_mut(len).0.copy_from_slice(now);
        Ok(len)
    }
}

impl Write for Lower<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
