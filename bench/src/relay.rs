//! A bare relay: bytes from publishers to subscribers, unread. What it costs is what the system costs.
//!
//! Owns: the hello, channels, batches. Does not own: MQTT, of which it knows nothing. Start reading at [`serve`].
//! Invariant: a turn reads everybody who has something, then writes each peer once.
//!
//! A hello is four bytes of [`MAGIC`], one that says who speaks, and three of the channel. Answers of subscribers go
//! back where a channel has one publisher, and only those of its first subscriber. Whoever spreads says no channel but how
//! long its messages are: each goes to one subscriber of the channel 0 and one of the channel 1, whichever.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

/// Who a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Publishes = 0,
    Subscribes = 1,
    Spreads = 2,
}

/// Appends the hello of a peer.
pub(crate) fn hello(role: Role, channel: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(MAGIC);
    out.push(role as u8);
    let channel = u32::try_from(channel).unwrap_or(0).to_be_bytes();
    out.extend_from_slice(channel.get(1..).unwrap_or_default());
}

#[derive(Debug)]
struct Peer {
    stream: TcpStream,
    hello: Vec<u8>,
    /// Who it is, and its channel, once it has said so.
    known: Option<(Role, usize)>,
    /// The beginning of a message to be spread.
    begun: Vec<u8>,
    out: Vec<u8>,
    sent: usize,
    is_dirty: bool,
    is_blocked: bool,
}

#[derive(Debug, Default)]
struct Channel {
    publishers: Vec<usize>,
    subscribers: Vec<usize>,
}

struct Relay {
    poll: Poll,
    peers: Vec<Option<Peer>>,
    channels: Vec<Channel>,
    dirty: Vec<usize>,
    scratch: Vec<u8>,
    /// Messages spread so far.
    spread: usize,
}

/// A free port of this machine.
/// # Errors
/// There is none.
pub(crate) fn listen() -> io::Result<TcpListener> {
    TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
}

/// Serves until the process ends.
/// # Errors
/// As of the sockets.
pub(crate) fn serve(mut listener: TcpListener) -> io::Result<()> {
    let poll = Poll::new()?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut relay = Relay {
        poll,
        peers: Vec::new(),
        channels: Vec::new(),
        dirty: Vec::new(),
        scratch: vec![0; SCRATCH_BYTES],
        spread: 0,
    };
    let mut events = Events::with_capacity(1024);
    loop {
        relay.poll.poll(&mut events, None)?;
        for event in &events {
            if event.token() == LISTENER {
                relay.accept(&listener)?;
                continue;
            }
            let at = event.token().0;
            if event.is_writable()
                && let Some(Some(peer)) = relay.peers.get_mut(at)
                && std::mem::take(&mut peer.is_blocked)
            {
                relay.mark_dirty(at);
            }
            if event.is_readable() && !relay.read(at) {
                relay.forget(at);
            }
        }
        relay.write();
    }
}

impl Relay {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let token = Token(self.peers.len());
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll
                .registry()
                .register(&mut stream, token, interest)?;
            self.peers.push(Some(Peer {
                stream,
                hello: Vec::new(),
                known: None,
                begun: Vec::new(),
                out: Vec::new(),
                sent: 0,
                is_dirty: false,
                is_blocked: false,
            }));
        }
    }

    /// Whether the peer is still there.
    fn read(&mut self, at: usize) -> bool {
        let mut scratch = std::mem::take(&mut self.scratch);
        let is_there = loop {
            let Some(Some(peer)) = self.peers.get_mut(at) else {
                break true;
            };
            match peer.stream.read(&mut scratch) {
                Ok(0) => break false,
                Ok(len) => {
                    self.pass_on(at, scratch.get(..len).unwrap_or_default());
                    if len < scratch.len() {
                        break true;
                    }
                }
                Err(error) => break error.kind() == ErrorKind::WouldBlock,
            }
        };
        self.scratch = scratch;
        is_there
    }

    fn pass_on(&mut self, from: usize, mut bytes: &[u8]) {
        let Some(Some(peer)) = self.peers.get_mut(from) else {
            return;
        };
        if peer.known.is_none() {
            let missing = (HELLO_BYTES - peer.hello.len()).min(bytes.len());
            let (more, rest) = bytes.split_at(missing);
            peer.hello.extend_from_slice(more);
            bytes = rest;
            self.introduce(from);
        }
        if bytes.is_empty() {
            return;
        }
        let known = self.peers.get(from).and_then(|peer| peer.as_ref()?.known);
        let Some((role, channel)) = known else {
            return;
        };
        if role == Role::Spreads {
            return self.pass_around(from, channel, bytes);
        }
        let Some(channel) = self.channels.get(channel) else {
            return;
        };
        let to: &[usize] = match (role, &*channel.publishers) {
            (Role::Subscribes, [_]) if channel.subscribers.first() == Some(&from) => {
                &channel.publishers
            }
            (Role::Subscribes, _) => &[],
            (Role::Publishes | Role::Spreads, _) => &channel.subscribers,
        };
        for at in to {
            if let Some(Some(peer)) = self.peers.get_mut(*at) {
                peer.out.extend_from_slice(bytes);
                if !std::mem::replace(&mut peer.is_dirty, true) {
                    self.dirty.push(*at);
                }
            }
        }
    }

    /// Each message to one of the channel 0 and to one of the channel 1.
    fn pass_around(&mut self, from: usize, message_bytes: usize, bytes: &[u8]) {
        let Some(Some(peer)) = self.peers.get_mut(from) else {
            return;
        };
        peer.begun.extend_from_slice(bytes);
        let mut all = std::mem::take(&mut peer.begun);
        let whole = all.len() - all.len() % message_bytes.max(1);
        for message in all
            .get(..whole)
            .unwrap_or_default()
            .chunks(message_bytes.max(1))
        {
            self.spread = self.spread.wrapping_add(1);
            for channel in self.channels.get(..2).unwrap_or_default() {
                let chosen = self.spread.wrapping_mul(SPREAD_BY) >> 16;
                let Some(at) = channel
                    .subscribers
                    .get(chosen % channel.subscribers.len().max(1))
                else {
                    continue;
                };
                if let Some(Some(peer)) = self.peers.get_mut(*at) {
                    peer.out.extend_from_slice(message);
                    if !std::mem::replace(&mut peer.is_dirty, true) {
                        self.dirty.push(*at);
                    }
                }
            }
        }
        all.drain(..whole);
        if let Some(Some(peer)) = self.peers.get_mut(from) {
            peer.begun = all;
        }
    }

    /// Finds out who a peer is, once its hello is whole.
    fn introduce(&mut self, at: usize) {
        let Some(Some(peer)) = self.peers.get_mut(at) else {
            return;
        };
        let [b'H', b'E', b'L', b'O', role, high, middle, low] = *peer.hello else {
            return;
        };
        let channel = u32::from_be_bytes([0, high, middle, low]) as usize;
        let role = match role {
            0 => Role::Publishes,
            1 => Role::Subscribes,
            _ => Role::Spreads,
        };
        peer.known = Some((role, channel));
        if role == Role::Spreads {
            return;
        }
        if self.channels.len() <= channel {
            self.channels.resize_with(channel + 1, Channel::default);
        }
        if let Some(channel) = self.channels.get_mut(channel) {
            let members = if role == Role::Subscribes {
                &mut channel.subscribers
            } else {
                &mut channel.publishers
            };
            members.push(at);
        }
    }

    fn write(&mut self) {
        for at in std::mem::take(&mut self.dirty) {
            let Some(Some(peer)) = self.peers.get_mut(at) else {
                continue;
            };
            peer.is_dirty = false;
            if peer.is_blocked {
                continue;
            }
            let unsent = peer.out.get(peer.sent..).unwrap_or_default();
            match peer.stream.write(unsent) {
                Ok(len) => peer.sent += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => {
                    self.forget(at);
                    continue;
                }
            }
            peer.is_blocked = peer.sent < peer.out.len();
            if !peer.is_blocked {
                peer.out.clear();
                peer.sent = 0;
            }
        }
    }

    fn mark_dirty(&mut self, at: usize) {
        if let Some(Some(peer)) = self.peers.get_mut(at)
            && !std::mem::replace(&mut peer.is_dirty, true)
        {
            self.dirty.push(at);
        }
    }

    fn forget(&mut self, at: usize) {
        let peer = self.peers.get_mut(at).and_then(Option::take);
        for channel in &mut self.channels {
            channel.publishers.retain(|one| *one != at);
            channel.subscribers.retain(|one| *one != at);
        }
        drop(peer);
    }
}

const MAGIC: &[u8; 4] = b"HELO";
const HELLO_BYTES: usize = 8;
/// As if by chance.
const SPREAD_BY: usize = 0x9E37_79B9_7F4A_7C15;
const LISTENER: Token = Token(usize::MAX);
const SCRATCH_BYTES: usize = 64 * 1024;
