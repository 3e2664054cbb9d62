//! Many connections on one thread, each as fast or as deaf as its scenario wants it.
//!
//! Owns: sockets, their buffers, readiness. Does not own: what is said (see [`Role`]).
//! Start reading at [`Swarm::turn`]. Invariant: what waits to be sent for one connection is bounded by its role,
//! which is asked for more only when all of it is gone.

use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::wire;

/// What connections do; `n` is the number of one, `out` what it says next.
pub(crate) trait Role {
    /// A packet has come.
    fn on_packet(&mut self, n: usize, first: u8, body: &[u8], out: &mut Vec<u8>);
    /// All that was to be said is said.
    fn on_drained(&mut self, _n: usize, _out: &mut Vec<u8>) {}
    /// It has ended, by the broker's will.
    fn on_end(&mut self, _n: usize) {}
}

/// One connection.
#[derive(Debug)]
struct Link {
    stream: TcpStream,
    out: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
    is_deaf: bool,
    waits_for_room: bool,
}

/// Connections by number.
#[derive(Debug)]
pub(crate) struct Swarm {
    address: SocketAddr,
    poll: Poll,
    events: Events,
    links: Vec<Option<Link>>,
    buffer: Vec<u8>,
}

impl Swarm {
    /// None yet, to this broker.
    pub(crate) fn new(address: SocketAddr) -> io::Result<Self> {
        Ok(Self {
            address,
            poll: Poll::new()?,
            events: Events::with_capacity(4096),
            links: Vec::new(),
            buffer: vec![0; 1 << 18],
        })
    }

    /// One more, or a dead one again; it says `hello` once it is open.
    pub(crate) fn open(&mut self, n: usize, hello: Vec<u8>) -> io::Result<()> {
        let mut stream = TcpStream::connect(self.address)?;
        // Not everybody takes it before the connection is open.
        stream.set_nodelay(true).ok();
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll
            .registry()
            .register(&mut stream, Token(n), interest)?;
        if self.links.len() <= n {
            self.links.resize_with(n + 1, || None);
        }
        self.links[n] = Some(Link {
            stream,
            out: hello,
            sent: 0,
            input: Vec::new(),
            is_deaf: false,
            waits_for_room: true,
        });
        Ok(())
    }

    /// Whether it is open, or about to be.
    pub(crate) fn is_open(&self, n: usize) -> bool {
        self.links.get(n).is_some_and(Option::is_some)
    }

    /// It reads nothing any more, or again.
    pub(crate) fn set_deaf(&mut self, n: usize, is_deaf: bool, role: &mut impl Role) {
        if let Some(Some(link)) = self.links.get_mut(n) {
            link.is_deaf = is_deaf;
        }
        if !is_deaf {
            // What was readable meanwhile is not told again.
            self.read(n, role);
        }
    }

    /// Lets go of it, without a word.
    pub(crate) fn close(&mut self, n: usize) {
        if let Some(link) = self.links.get_mut(n) {
            *link = None;
        }
    }

    /// Does what can be done, and waits for at most `wait` if that is nothing.
    pub(crate) fn turn(&mut self, wait: Duration, role: &mut impl Role) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            polled => polled?,
        }
        let ready: Vec<_> = self
            .events
            .iter()
            .map(|event| (event.token().0, event.is_readable(), event.is_writable()))
            .collect();
        for (n, is_readable, is_writable) in ready {
            if is_writable {
                if let Some(Some(link)) = self.links.get_mut(n) {
                    link.waits_for_room = false;
                }
                self.write(n, role);
            }
            if is_readable {
                self.read(n, role);
            }
        }
        Ok(())
    }

    /// Turns until `is_done`, or until the time is over; whether it was done.
    pub(crate) fn run<R: Role>(
        &mut self,
        most: Duration,
        role: &mut R,
        mut is_done: impl FnMut(&R) -> bool,
    ) -> io::Result<bool> {
        let until = Instant::now() + most;
        while !is_done(role) {
            if Instant::now() >= until {
                return Ok(false);
            }
            self.turn(Duration::from_millis(10), role)?;
        }
        Ok(true)
    }

    fn write(&mut self, n: usize, role: &mut impl Role) {
        let Some(Some(link)) = self.links.get_mut(n) else {
            return;
        };
        // So often at most, so that no connection keeps the thread to itself.
        for _ in 0..4 {
            if link.waits_for_room {
                return;
            }
            if link.sent == link.out.len() {
                link.out.clear();
                link.sent = 0;
                role.on_drained(n, &mut link.out);
                if link.out.is_empty() {
                    return;
                }
            }
            match link.stream.write(&link.out[link.sent..]) {
                Ok(len) => link.sent += len,
                Err(error) if error.kind() == ErrorKind::WouldBlock => link.waits_for_room = true,
                Err(error) if error.kind() == ErrorKind::NotConnected => link.waits_for_room = true,
                Err(_) => return self.end(n, role),
            }
        }
    }

    fn read(&mut self, n: usize, role: &mut impl Role) {
        let Some(Some(link)) = self.links.get_mut(n) else {
            return;
        };
        loop {
            if link.is_deaf {
                break;
            }
            match link.stream.read(&mut self.buffer) {
                Ok(0) => return self.end(n, role),
                Ok(len) => {
                    link.input.extend_from_slice(&self.buffer[..len]);
                    let mut used = 0;
                    while let Some((first, body, len)) = wire::next_packet(&link.input[used..]) {
                        role.on_packet(n, first, body, &mut link.out);
                        used += len;
                    }
                    link.input.drain(..used);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::NotConnected => break,
                Err(_) => return self.end(n, role),
            }
        }
        self.write(n, role);
    }

    fn end(&mut self, n: usize, role: &mut impl Role) {
        self.close(n);
        role.on_end(n);
    }
}
