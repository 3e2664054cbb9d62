//! WebSocket between the bytes of a connection and its packets, RFC 6455 and section 6 of MQTT.
//!
//! Owns: [`WebSocket`], what waits to be sent on its own behalf. Does not own: TCP and TLS below it (see `socket`),
//! what a frame may be (see `frames`), the request before them (see `opening`). Start reading at
//! [`WebSocket::read`]. Invariants: it holds no buffer while it is idle, a message is handed on as it arrives and
//! never gathered, and of Pings that could not be answered yet only the last one is kept.

mod frames;
mod opening;

use std::io::{self, ErrorKind, IoSlice, Read, Write};

use frames::{End, Frames};
use opening::Refusal;

use super::unsent::Written;

/// The state of WebSocket on one connection.
#[derive(Debug)]
pub(super) struct WebSocket {
    /// What is here of the request; `None` once the connection is open.
    request: Option<Vec<u8>>,
    frames: Frames,
    /// What is on its way to the peer, and how much of it is gone.
    outgoing: Vec<u8>,
    sent: usize,
    /// Payload of the Ping to be answered next.
    pong: Option<Vec<u8>>,
    /// What is to be said once what came before it is read.
    end: Option<End>,
    /// Whether a read would find something although nothing below brings an event.
    has_more: bool,
    /// Whether nothing of MQTT is sent any more.
    is_closing: bool,
    /// Whether a browser has opened it for a page that is not of this machine.
    is_of_foreign_page: bool,
}

impl WebSocket {
    /// Bytes it holds, its place included.
    pub(super) fn held_bytes(&self) -> usize {
        let request = self.request.as_ref().map_or(0, Vec::capacity);
        let pong = self.pong.as_ref().map_or(0, Vec::capacity);
        size_of::<Self>() + request + pong + self.outgoing.capacity()
    }

    /// One that waits for its request.
    pub(super) fn new() -> Self {
        Self {
            request: Some(Vec::new()),
            frames: Frames::default(),
            outgoing: Vec::new(),
            sent: 0,
            pong: None,
            end: None,
            has_more: false,
            is_closing: false,
            is_of_foreign_page: false,
        }
    }

    /// Whether a browser has opened it for a page that is not of this machine.
    pub(super) const fn is_of_foreign_page(&self) -> bool {
        self.is_of_foreign_page
    }

    /// Whether it has to be read again although no event comes.
    pub(super) const fn has_more(&self) -> bool {
        self.has_more
    }

    /// Whether there is something that [`Self::push`] has to send.
    pub(super) const fn is_pending(&self) -> bool {
        self.sent < self.outgoing.len() || self.pong.is_some()
    }

    /// Reads payload into `buffer`, which is also where it is taken apart. Zero bytes are the end.
    /// # Errors
    /// `InvalidData`: a rule was broken, and what the peer is told of it is pending. Others are those of `lower`.
    pub(super) fn read(&mut self, lower: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
        self.has_more = false;
        if let Some(end) = self.end.take() {
            return ended(end);
        }
        let mut taken = 0;
        while taken < TAKEN_BYTES_MAX {
            let read = lower.read(buffer)?;
            if read == 0 {
                return Ok(0);
            }
            taken += read;
            let is_full = read == buffer.len();
            let raw = buffer.get_mut(..read).unwrap_or_default();
            let Some(from) = self.open(raw)? else {
                continue;
            };
            raw.copy_within(from.., 0);
            let decoded = self
                .frames
                .decode(raw.get_mut(..read - from).unwrap_or_default());
            if let Some(pong) = decoded.pong {
                self.pong = Some(pong);
            }
            if let Some(end) = decoded.end {
                self.close(end.code);
                if decoded.len == 0 {
                    return ended(end);
                }
                self.end = Some(end);
            }
            if decoded.len > 0 {
                self.has_more = is_full || self.end.is_some();
                return Ok(decoded.len);
            }
        }
        // A peer that sends much that says nothing leaves room for others.
        Err(ErrorKind::Interrupted.into())
    }

    /// Goes on with the opening handshake, if it has not ended; returns how much of `bytes` belonged to it.
    fn open(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let Some(request) = &mut self.request else {
            return Ok(Some(0));
        };
        let before = request.len();
        let room = bytes.len().min(REQUEST_BYTES_MAX - before);
        request.extend_from_slice(bytes.get(..room).unwrap_or_default());
        match opening::answer(request) {
            Ok(Some(opened)) => {
                self.outgoing.extend_from_slice(opened.answer.as_bytes());
                self.is_of_foreign_page = opened.is_of_foreign_page;
                self.request = None;
                Ok(Some(opened.len.saturating_sub(before)))
            }
            Ok(None) if request.len() < REQUEST_BYTES_MAX => Ok(None),
            Ok(None) => Err(self.refuse(&opening::TOO_LONG)),
            Err(refusal) => Err(self.refuse(&refusal)),
        }
    }

    fn refuse(&mut self, refusal: &Refusal) -> io::Error {
        self.outgoing
            .extend_from_slice(refusal.response().as_bytes());
        self.is_closing = true;
        io::Error::new(ErrorKind::InvalidData, refusal.reason)
    }

    /// Sends `slices` as messages of their own, until `lower` takes no more.
    /// # Errors
    /// Those of `lower`; `WouldBlock` if none of it was taken.
    pub(super) fn write(
        &mut self,
        lower: &mut impl Write,
        slices: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        let mut left: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.is_closing || self.request.is_some() {
            // Nothing of MQTT is said before the handshake and after a Close frame.
            return Ok(left);
        }
        if self.push(lower)? == Written::Blocked {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut total = 0;
        let mut bytes = slices.iter().map(|slice| &**slice);
        let mut rest: &[u8] = &[];
        while left > 0 {
            let mut room = left.min(MESSAGE_BYTES_MAX);
            frames::put_data_head(&mut self.outgoing, room);
            (left, total) = (left - room, total + room);
            while room > 0 {
                if rest.is_empty() {
                    rest = bytes.next().unwrap_or_default();
                    continue;
                }
                let (now, later) = rest.split_at(rest.len().min(room));
                self.outgoing.extend_from_slice(now);
                (rest, room) = (later, room - now.len());
            }
            if self.push(lower)? == Written::Blocked {
                break;
            }
        }
        Ok(total)
    }

    /// Sends what is pending.
    /// # Errors
    /// Those of `lower`.
    pub(super) fn push(&mut self, lower: &mut impl Write) -> io::Result<Written> {
        loop {
            let rest = self.outgoing.get(self.sent..).unwrap_or_default();
            if rest.is_empty() {
                self.sent = 0;
                self.outgoing.clear();
                let Some(pong) = self.pong.take() else {
                    self.outgoing = Vec::new();
                    return Ok(Written::All);
                };
                frames::put_pong(&mut self.outgoing, &pong);
                continue;
            }
            match lower.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(len) => self.sent += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Written::Blocked),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Says that nothing follows, if it was not said and there is anyone to say it to.
    pub(super) fn finish(&mut self) {
        if self.request.is_none() && !self.is_closing {
            self.close(frames::NORMAL);
        }
    }

    fn close(&mut self, code: u16) {
        if !std::mem::replace(&mut self.is_closing, true) {
            // RFC 6455, section 5.5.1: nothing follows a Close frame.
            self.pong = None;
            frames::put_close(&mut self.outgoing, code);
        }
    }
}

/// What a read says at the end.
fn ended(end: End) -> io::Result<usize> {
    match end.fault {
        Some(fault) => Err(io::Error::new(ErrorKind::InvalidData, fault)),
        None => Ok(0),
    }
}

/// The longest request, with all its header fields.
const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// Payload of one message that we send; longer packets are spread over several.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// A read that finds no payload gives up after so many bytes.
const TAKEN_BYTES_MAX: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    const REQUEST: &[u8] =
        b"GET /mqtt HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\
        Sec-WebSocket-Version: 13\r\n\r\n";

    /// What is below: input in pieces, and room for so much output.
    #[derive(Default)]
    struct Lower {
        input: VecDeque<Vec<u8>>,
        output: Vec<u8>,
        room: usize,
    }

    impl Read for Lower {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let Some(mut piece) = self.input.pop_front() else {
                return Err(ErrorKind::WouldBlock.into());
            };
            let len = piece.len().min(buffer.len());
            buffer[..len].copy_from_slice(&piece[..len]);
            let rest = piece.split_off(len);
            if !rest.is_empty() {
                self.input.push_front(rest);
            }
            Ok(len)
        }
    }

    impl Write for Lower {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let len = bytes.len().min(self.room);
            if len == 0 {
                return Err(ErrorKind::WouldBlock.into());
            }
            self.room -= len;
            self.output.extend_from_slice(&bytes[..len]);
            Ok(len)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A frame with a mask of zeros.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let len = u8::try_from(payload.len()).expect("a short payload");
        [&[first, 0x80 | len, 0, 0, 0, 0][..], payload].concat()
    }

    fn opened() -> (WebSocket, Lower) {
        let (mut socket, mut lower) = (WebSocket::new(), Lower::default());
        lower.input.push_back(REQUEST.to_vec());
        lower.room = 4096;
        let read = socket.read(&mut lower, &mut [0; 1024]);
        assert_eq!(read.expect_err("no payload").kind(), ErrorKind::WouldBlock);
        socket.push(&mut lower).expect("there is room");
        assert!(lower.output.starts_with(b"HTTP/1.1 101 "));
        lower.output.clear();
        (socket, lower)
    }

    /// Reads until there is no more, in pieces of `step`.
    fn drain(socket: &mut WebSocket, lower: &mut Lower, step: usize) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), vec![0; step]);
        while let Ok(len) = socket.read(lower, &mut buffer) {
            if len == 0 {
                break;
            }
            all.extend_from_slice(&buffer[..len]);
        }
        all
    }

    #[test]
    fn bytes_behind_the_request_are_frames() {
        let mut all = REQUEST.to_vec();
        all.extend(frame(0x82, b"first"));
        all.extend(frame(0x82, b"second"));
        for piece in [1, 7, 100, REQUEST.len(), REQUEST.len() + 3, all.len()] {
            for step in [64, 4096] {
                let (mut socket, mut lower) = (WebSocket::new(), Lower::default());
                lower.input = all.chunks(piece).map(<[u8]>::to_vec).collect();
                let payload = drain(&mut socket, &mut lower, step);
                assert_eq!(
                    payload, b"firstsecond",
                    "pieces of {piece}, reads of {step}"
                );
            }
        }
    }

    #[test]
    fn request_without_an_end_is_refused_at_its_limit() {
        let (mut socket, mut lower) = (WebSocket::new(), Lower::default());
        let request = [&REQUEST[..REQUEST.len() - 2], b"A: ", &[b'a'; 9000]].concat();
        lower.input.push_back(request);
        lower.room = 4096;
        let error = loop {
            match socket.read(&mut lower, &mut [0; 1000]) {
                Err(error) => break error,
                Ok(len) => assert_eq!(len, 0),
            }
        };
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        socket.push(&mut lower).expect("there is room");
        assert!(lower.output.starts_with(b"HTTP/1.1 431 "));
    }

    #[test]
    fn only_the_last_of_many_pings_is_answered_to_a_peer_that_takes_nothing() {
        let (mut socket, mut lower) = opened();
        lower.room = 0;
        for number in 0..=9 {
            lower.input.push_back(frame(0x89, &[number]));
        }
        assert!(drain(&mut socket, &mut lower, 1024).is_empty());
        assert_eq!(socket.push(&mut lower).expect("waits"), Written::Blocked);
        lower.input.push_back(frame(0x89, b"last"));
        drain(&mut socket, &mut lower, 1024);
        lower.room = 100;
        assert_eq!(socket.push(&mut lower).expect("goes on"), Written::All);
        assert_eq!(lower.output, b"\x8A\x01\x09\x8A\x04last");
        assert!(!socket.is_pending());
        assert_eq!(socket.outgoing.capacity(), 0);
    }

    #[test]
    fn bytes_that_say_nothing_are_not_read_for_ever() {
        let (mut socket, mut lower) = opened();
        for _ in 0..20_000 {
            lower.input.push_back(frame(0x8A, b""));
        }
        let read = socket.read(&mut lower, &mut [0; 1024]);
        assert_eq!(read.expect_err("gives up").kind(), ErrorKind::Interrupted);
        assert!(!lower.input.is_empty());
    }

    #[test]
    fn message_goes_out_whole_however_little_is_taken() {
        let message: Vec<u8> = (0..=255).cycle().take(150_000).collect();
        for step in [1000, 65_536, 1 << 20] {
            let (mut socket, mut lower) = opened();
            let mut taken = 0;
            while taken < message.len() || socket.is_pending() {
                lower.room = step;
                let rest = &message[taken..];
                let slices = [
                    IoSlice::new(&rest[..rest.len() / 3]),
                    IoSlice::new(&[]),
                    IoSlice::new(&rest[rest.len() / 3..]),
                ];
                match socket.write(&mut lower, &slices) {
                    Ok(len) => taken += len,
                    Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
                }
            }
            let (mut from, mut payload) = (&lower.output[..], Vec::new());
            while let [0x82, len, rest @ ..] = from {
                let (len, rest) = match len {
                    126 => (
                        usize::from(u16::from_be_bytes([rest[0], rest[1]])),
                        &rest[2..],
                    ),
                    127 => {
                        let len = u64::from_be_bytes(rest[..8].try_into().expect("eight bytes"));
                        (usize::try_from(len).expect("fits"), &rest[8..])
                    }
                    len => (usize::from(*len), rest),
                };
                payload.extend_from_slice(&rest[..len]);
                from = &rest[len..];
            }
            assert!(from.is_empty() && payload == message, "steps of {step}");
        }
    }

    #[test]
    fn close_is_answered_once_and_nothing_follows_it() {
        let (mut socket, mut lower) = opened();
        lower.input.push_back(frame(0x88, &[3, 0xE9]));
        let read = socket.read(&mut lower, &mut [0; 1024]);
        assert_eq!(read.expect("the end"), 0);
        socket.finish();
        let written = socket.write(&mut lower, &[IoSlice::new(b"late")]);
        assert_eq!(written.expect("is dropped"), 4);
        socket.push(&mut lower).expect("there is room");
        assert_eq!(lower.output, [0x88, 2, 3, 0xE9]);
    }

    #[test]
    fn fault_is_said_after_what_came_before_it() {
        let (mut socket, mut lower) = opened();
        lower
            .input
            .push_back([frame(0x82, b"heard"), frame(0x81, b"text")].concat());
        let mut buffer = [0; 1024];
        assert_eq!(socket.read(&mut lower, &mut buffer).expect("payload"), 5);
        assert!(socket.has_more());
        let error = socket.read(&mut lower, &mut buffer).expect_err("a fault");
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        socket.push(&mut lower).expect("there is room");
        assert_eq!(lower.output, [0x88, 2, 3, 0xEB]);
    }
}
