//! The bytes of a connection: of TCP or a Unix socket, of TLS over it, or of WebSocket over either.
//!
//! Owns: [`Socket`], what TLS keeps between two calls. Does not own: what is below (see `ByteStream`), when it is read or
//! written (see `receive`, `deliver`), what handshakes are made with (see `crate::tls`), frames (see `websocket`). Start reading at [`Socket`].
//! Invariants: a read that returns fewer bytes than there is room for leaves nothing behind that brings no event,
//! or says so ([`Socket::has_more`]); one read takes a bounded number of bytes from TCP; what TLS has taken to be
//! sent and TCP has not is pending ([`Socket::push`]) until it is gone.

use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};

use super::beginning::{self, Expected, Fault, Kind, TOLD_BY_BYTES};
use super::proxied::{self, Client, Source};
use super::unsent::Written;
use super::websocket::WebSocket;
use crate::authentication::ClientCertificate;
use crate::byte_stream::ByteStream;
use crate::config::Transport;

/// One connection's bytes.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    websocket: Option<Box<WebSocket>>,
    /// What is still to be found out before anything is read.
    front: Option<Box<Front>>,
    /// What the Client has shown to who is in front of us, and has taken TLS off: what that one shows us itself is not
    /// the Client's. `None` if TLS ends here.
    shown_before: Option<Box<Shown>>,
}

/// Until it is known what the Client speaks.
#[derive(Debug)]
struct Front {
    proxied: Proxied,
    /// What it may begin with.
    expected: Expected,
    /// The first bytes inside of TLS, while it is to be found out what they are.
    inside: Option<Vec<u8>>,
}

/// The certificate of a Client, if it has one.
#[derive(Debug)]
struct Shown(Option<Box<ClientCertificate>>);

/// Whether a proxy says who is there.
#[derive(Debug, PartialEq, Eq)]
enum Proxied {
    /// Nobody asks it, or it has been told.
    No,
    /// It has not yet.
    Awaited,
    /// It just has.
    By(Box<Client>),
    /// It speaks for itself, or does not know for whom. It goes on doing so.
    Itself,
}

/// The same without WebSocket.
#[derive(Debug)]
struct Stream {
    lower: ByteStream,
    tls: Option<Box<Tls>>,
}

/// The state of TLS.
#[derive(Debug)]
struct Tls {
    session: ServerConnection,
    /// Whether a read would find something although TCP brings no event.
    has_more: bool,
    /// What went wrong behind bytes that were read.
    failure: Option<io::Error>,
    /// Whether the peer was told that nothing follows.
    is_closing: bool,
}

impl Socket {
    /// Plain, or with a handshake before it if there is something to make one with; and what `transport` says inside.
    /// If it `sniffs`, its first bytes choose among all of them.
    /// # Errors
    /// TLS cannot be used as it is configured.
    pub(super) fn new(
        lower: ByteStream,
        is_proxied: bool,
        tls: Option<&Arc<ServerConfig>>,
        transport: Transport,
        sniffs: bool,
    ) -> io::Result<Self> {
        let expected = match (tls, transport) {
            _ if sniffs => Expected::Any(tls.cloned()),
            (Some(_), _) => Expected::Only(Kind::Tls),
            (None, Transport::WebSocket) => Expected::Only(Kind::Request),
            (None, Transport::Stream | Transport::Quic) => Expected::Only(Kind::Connect),
        };
        let tls = tls.filter(|_| !sniffs).map(Tls::new).transpose()?;
        let websocket = match transport {
            Transport::Stream | Transport::Quic => None,
            Transport::WebSocket => Some(Box::new(WebSocket::new())),
        };
        Ok(Self {
            stream: Stream { lower, tls },
            websocket,
            front: Some(Box::new(Front {
                proxied: if is_proxied {
                    Proxied::Awaited
                } else {
                    Proxied::No
                },
                expected,
                inside: None,
            })),
            shown_before: None,
        })
    }

    /// Looks at what the Client begins with, once.
    fn begin(&mut self, front: &mut Front) -> io::Result<()> {
        let mut first = [0; TOLD_BY_BYTES];
        let len = self.stream.lower.peek(&mut first)?;
        let first = first.get(..len).unwrap_or_default();
        // What has still to come brings an event.
        let kind = front.expected.judge(first)?;
        let kind = kind.ok_or(ErrorKind::WouldBlock)?;
        let Expected::Any(tls) = std::mem::replace(&mut front.expected, Expected::Nothing) else {
            return Ok(());
        };
        match (kind, tls) {
            (Kind::Tls, Some(config)) => {
                self.stream.tls = Some(Tls::new(&config)?);
                front.inside = Some(Vec::new());
                // A step of a handshake is counted by who reads next.
                Err(ErrorKind::Interrupted.into())
            }
            (Kind::Request, _) => {
                self.websocket = Some(Box::new(WebSocket::new()));
                Ok(())
            }
            (Kind::Connect | Kind::Tls, _) => Ok(()),
        }
    }

    /// Reads while something is still to be found out; what that was is gone afterwards.
    fn read_front(&mut self, front: &mut Front, buffer: &mut [u8]) -> io::Result<usize> {
        if front.proxied == Proxied::Awaited {
            front.proxied = match proxied::take(&mut self.stream.lower)? {
                Source::Client(mut client) => {
                    if let Some(secured) = client.secured.take() {
                        self.shown_before = Some(Box::new(Shown(secured.certificate)));
                    }
                    Proxied::By(Box::new(client))
                }
                // What it shows is its own, and names no Client.
                Source::Proxy => {
                    self.shown_before = Some(Box::new(Shown(None)));
                    Proxied::Itself
                }
            };
        }
        if !matches!(front.expected, Expected::Nothing) {
            self.begin(front)?;
        }
        match front.inside.take() {
            Some(kept) => self.begin_inside(front, kept, buffer),
            None => self.read_on(buffer),
        }
    }

    fn read_on(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.websocket {
            None => self.stream.read(buffer),
            Some(websocket) => websocket.read(&mut self.stream, buffer),
        }
    }

    /// The same inside of TLS, where bytes cannot be looked at and left: `kept` has those that were read before.
    fn begin_inside(
        &mut self,
        front: &mut Front,
        mut kept: Vec<u8>,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        // With those kept it still fits.
        let room = buffer.len().saturating_sub(kept.len());
        let room = buffer.get_mut(..room).unwrap_or_default();
        let read = self.stream.read(room);
        let fresh = match &read {
            Ok(len) => room.get(..*len).unwrap_or_default(),
            Err(_) => &[],
        };
        kept.extend_from_slice(fresh);
        match (read, Kind::of(&kept)) {
            (Ok(0), _) => Ok(0),
            (Err(error), _) => {
                front.inside = Some(kept);
                Err(error)
            }
            (Ok(_), Err(fault)) => Err(fault.into()),
            (Ok(_), Ok(None)) => {
                front.inside = Some(kept);
                let has_more = self.stream.tls.as_ref().is_some_and(|tls| tls.has_more);
                let then = if has_more {
                    ErrorKind::Interrupted
                } else {
                    ErrorKind::WouldBlock
                };
                Err(then.into())
            }
            // It is one by its first byte, so nothing was kept before.
            (Ok(len), Ok(Some(Kind::Connect))) => Ok(len),
            (Ok(_), Ok(Some(Kind::Request))) => {
                let websocket = self.websocket.insert(Box::new(WebSocket::new()));
                let mut all = io::Cursor::new(kept).chain(&mut self.stream);
                websocket.read(&mut all, buffer)
            }
            (Ok(_), Ok(Some(Kind::Tls))) => Err(Fault::Unknown(beginning::seen(&kept)).into()),
        }
    }

    /// The same of a Client that has shown `certificate` to who has taken TLS off.
    pub(super) fn shown_before(mut self, certificate: Option<Box<ClientCertificate>>) -> Self {
        if certificate.is_some() {
            self.shown_before = Some(Box::new(Shown(certificate)));
        }
        self
    }

    /// Nothing is to be found out any more, and who the Client is was told.
    fn leave_front(&mut self) {
        let is_over = |front: &Front| {
            front.proxied == Proxied::No
                && matches!(front.expected, Expected::Nothing)
                && front.inside.is_none()
        };
        if self.front.as_deref().is_some_and(is_over) {
            self.front = None;
        }
    }

    /// What brings events.
    pub(super) const fn source(&mut self) -> &mut ByteStream {
        &mut self.stream.lower
    }

    /// From where the Client comes, once a proxy has said so.
    pub(super) fn take_source(&mut self) -> Option<Client> {
        let front = self.front.as_mut()?;
        if !matches!(front.proxied, Proxied::By(_)) {
            return None;
        }
        let proxied = std::mem::replace(&mut front.proxied, Proxied::No);
        self.leave_front();
        match proxied {
            Proxied::By(client) => Some(*client),
            Proxied::No | Proxied::Awaited | Proxied::Itself => None,
        }
    }

    /// Whether who has connected may speak for somebody who is not of this machine: a browser that has opened it for a page
    /// of another one, or a proxy that does not say for whom.
    pub(super) fn is_for_others(&self) -> bool {
        let (front, websocket) = (self.front.as_ref(), self.websocket.as_ref());
        front.is_some_and(|front| front.proxied == Proxied::Itself)
            || websocket.is_some_and(|websocket| websocket.is_of_foreign_page())
    }

    /// Whether it has to be read again although no event comes.
    pub(super) fn has_more(&self) -> bool {
        let websocket = self.websocket.as_ref();
        websocket.is_some_and(|websocket| websocket.has_more())
            || self.stream.tls.as_ref().is_some_and(|tls| tls.has_more)
    }

    /// Bytes that TLS and WebSocket hold of this connection, as they were measured.
    pub(super) fn state_bytes(&self) -> usize {
        let tls = match &self.stream.tls {
            None => 0,
            Some(tls) if tls.session.is_handshaking() => size_of::<Tls>() + HANDSHAKE_BYTES,
            Some(_) => size_of::<Tls>() + TLS_BYTES,
        };
        tls + self.websocket.as_ref().map_or(0, |one| one.held_bytes())
    }

    /// Whether there is a handshake that has not ended.
    pub(super) fn is_handshaking(&self) -> bool {
        let tls = self.stream.tls.as_ref();
        tls.is_some_and(|tls| tls.session.is_handshaking())
    }

    /// Whom the certificate names that the peer has shown, once the handshake has ended.
    pub(super) fn certificate(&self) -> Option<ClientCertificate> {
        if let Some(shown) = &self.shown_before {
            return shown.0.as_deref().cloned();
        }
        let tls = self.stream.tls.as_ref()?;
        let shown = tls.session.peer_certificates()?.first()?;
        Some(ClientCertificate::of(shown))
    }

    /// Whether TLS or WebSocket has something to send, of its own or of what it was given.
    pub(super) fn is_pending(&self) -> bool {
        let websocket = self.websocket.as_ref();
        websocket.is_some_and(|websocket| websocket.is_pending())
            || self
                .stream
                .tls
                .as_ref()
                .is_some_and(|tls| tls.session.wants_write())
    }

    /// Hands TCP what TLS and WebSocket have to send.
    /// # Errors
    /// The socket failed.
    pub(super) fn push(&mut self) -> io::Result<Written> {
        if let Some(websocket) = &mut self.websocket
            && websocket.push(&mut self.stream)? == Written::Blocked
        {
            return Ok(Written::Blocked);
        }
        self.stream.push()
    }

    /// Tells the peer that nothing follows, and shuts the sending side once that is sent.
    /// # Errors
    /// The socket failed.
    pub(super) fn shut(&mut self) -> io::Result<Written> {
        if let Some(websocket) = &mut self.websocket {
            websocket.finish();
            if websocket.push(&mut self.stream)? == Written::Blocked {
                return Ok(Written::Blocked);
            }
        }
        let Stream { lower, tls } = &mut self.stream;
        if let Some(tls) = tls {
            if !std::mem::replace(&mut tls.is_closing, true) {
                tls.session.send_close_notify();
            }
            if tls.push(lower)? == Written::Blocked {
                return Ok(Written::Blocked);
            }
        }
        lower.shutdown_write()?;
        Ok(Written::All)
    }

    /// Reads what nobody wants to understand any more.
    /// # Errors
    /// As of any read.
    pub(super) fn discard(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.lower.read(buffer)
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(mut front) = self.front.take() else {
            return self.read_on(buffer);
        };
        let read = self.read_front(&mut front, buffer);
        self.front = Some(front);
        self.leave_front();
        read
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.websocket {
            None => self.stream.write(bytes),
            Some(websocket) => websocket.write(&mut self.stream, &[IoSlice::new(bytes)]),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.websocket {
            None => self.stream.write_vectored(slices),
            Some(websocket) => websocket.write(&mut self.stream, slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Stream {
    fn push(&mut self) -> io::Result<Written> {
        match &mut self.tls {
            None => Ok(Written::All),
            Some(tls) => tls.push(&mut self.lower),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.lower.read(buffer),
            Some(tls) => tls.read(&mut self.lower, buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.lower.write(bytes),
            Some(tls) => tls.write(&mut self.lower, &[IoSlice::new(bytes)]),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.lower.write_vectored(slices),
            Some(tls) => tls.write(&mut self.lower, slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Tls {
    fn new(config: &Arc<ServerConfig>) -> io::Result<Box<Self>> {
        let session = ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?;
        Ok(Box::new(Self {
            session,
            has_more: false,
            failure: None,
            is_closing: false,
        }))
    }

    /// Fills the buffer as far as there are bytes, and takes what TLS says among them.
    fn read(&mut self, tcp: &mut impl ReadWrite, buffer: &mut [u8]) -> io::Result<usize> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        self.has_more = false;
        let (mut filled, mut taken) = (0, 0);
        let end = loop {
            let room = buffer.get_mut(filled..).unwrap_or_default();
            if room.is_empty() {
                return Ok(filled);
            }
            match self.session.reader().read(room) {
                // The peer has said that nothing follows, or has gone without a word.
                Ok(0) => break Ok(()),
                Ok(len) => {
                    filled += len;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => break Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => break Err(error),
            }
            if taken >= TAKEN_BYTES_MAX {
                // A peer that sends much that says nothing leaves room for others.
                break Err(ErrorKind::Interrupted.into());
            }
            match self.session.read_tls(tcp) {
                Ok(len) => taken += len,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => break Err(error),
            }
            if let Err(error) = self.session.process_new_packets() {
                // Why, for the peer; whether it arrives changes nothing.
                self.session.write_tls(tcp).map(drop).unwrap_or_default();
                break Err(io::Error::new(ErrorKind::InvalidData, error));
            }
        };
        match end {
            end if filled == 0 => end.map(|()| 0),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(filled),
            end => {
                self.has_more = true;
                self.failure = end
                    .err()
                    .filter(|error| error.kind() != ErrorKind::Interrupted);
                Ok(filled)
            }
        }
    }

    /// Takes bytes until TCP takes no more.
    fn write(&mut self, tcp: &mut impl ReadWrite, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.push(tcp)? == Written::Blocked {
            return Err(ErrorKind::WouldBlock.into());
        }
        let (mut total, mut place, mut offset) = (0, 0, 0);
        while let Some(slice) = slices.get(place) {
            if offset == slice.len() {
                (place, offset) = (place + 1, 0);
                continue;
            }
            let mut writer = self.session.writer();
            let mut taken = if offset == 0 {
                writer.write_vectored(slices.get(place..).unwrap_or_default())?
            } else {
                writer.write(slice.get(offset..).unwrap_or_default())?
            };
            if taken == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            total += taken;
            while let Some(slice) = slices.get(place).filter(|_| taken > 0) {
                let now = taken.min(slice.len() - offset);
                (taken, offset) = (taken - now, offset + now);
                if offset == slice.len() {
                    (place, offset) = (place + 1, 0);
                }
            }
            if self.push(tcp)? == Written::Blocked {
                break;
            }
        }
        Ok(total)
    }

    fn push(&mut self, tcp: &mut impl ReadWrite) -> io::Result<Written> {
        while self.session.wants_write() {
            match self.session.write_tls(tcp) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Written::Blocked),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Written::All)
    }
}

/// What TLS runs over.
trait ReadWrite: Read + Write {}
impl<T: Read + Write> ReadWrite for T {}

/// Bytes taken from TCP in one read of TLS: some more than the largest record.
const TAKEN_BYTES_MAX: usize = 64 * 1024;

/// What TLS keeps beside its place while it shakes hands.
const HANDSHAKE_BYTES: usize = 10 * 1024;
/// The same afterwards.
const TLS_BYTES: usize = 6 * 1024;
