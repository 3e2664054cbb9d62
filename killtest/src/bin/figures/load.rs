//! Publishers at QoS 1, each with at most one message in exchange and one offline session that keeps it.
//!
//! Owns: one thread with all their sockets, what is counted. Does not own: brokers, what is compared.
//! Start reading at [`measure`]. Invariants: a message that is due while the one before is in exchange counts
//! from when it was due; a figure counts only if one of the sessions then gives out all that was acknowledged
//! for it.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use crate::brokers::{Broker, Kind, SYS_SECONDS};
use crate::monitor::{Group, Monitor};
use crate::wire::{self, Link};

/// How it is loaded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) publishers: usize,
    pub(crate) pace: Pace,
    pub(crate) lasts: Duration,
}

/// When a publisher sends.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pace {
    /// When what it sent before is acknowledged.
    Closed,
    /// One after the other, so many messages a second of all.
    Rate(u32),
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    /// Messages acknowledged a second.
    pub(crate) rate: f64,
    /// From PUBLISH to PUBACK, sorted.
    pub(crate) latencies: Vec<Duration>,
    /// Of the broker, for each message, in microseconds.
    pub(crate) cpu_micros: f64,
    /// How often a thread of the broker went to sleep, for each message.
    pub(crate) sleeps: f64,
    /// What ours has synced at once, on average; nothing else tells.
    pub(crate) group: Option<Group>,
}

/// Loads `broker` and counts, after a time to warm up.
pub(crate) fn measure(broker: &Broker, kind: &Kind, load: Load) -> Result<Measured, String> {
    for number in 0..load.publishers {
        let mut link = Link::connect(broker.address, &session(number), false)?;
        link.subscribe(&topic(number), 1)?;
        link.leave()?;
    }
    let mut crowd = Crowd::connect(broker.address, kind, load)?;
    crowd.run(WARM_UP)?;
    let (used, acknowledged) = (broker.used()?, crowd.acknowledged());
    crowd.latencies.clear();
    if let Some(monitor) = &mut crowd.monitor {
        monitor.restart();
    }
    let began = Instant::now();
    crowd.run(load.lasts)?;
    let (took, used_after) = (began.elapsed(), broker.used()?);
    let messages = (crowd.acknowledged() - acknowledged) as f64;
    if messages == 0.0 {
        return Err(format!("nothing was acknowledged in {took:?}"));
    }
    let mut latencies = std::mem::take(&mut crowd.latencies);
    latencies.sort_unstable();
    let measured = Measured {
        rate: messages / took.as_secs_f64(),
        latencies,
        cpu_micros: (used_after.cpu - used.cpu).as_secs_f64() * 1e6 / messages,
        sleeps: (used_after.sleeps - used.sleeps) as f64 / messages,
        group: crowd.monitor.as_ref().and_then(|monitor| monitor.group()),
    };
    let owed = crowd
        .publishers
        .first()
        .map_or(0, |publisher| publisher.acknowledged);
    drop(crowd);
    let mut link = Link::connect(broker.address, &session(0), false)?;
    link.take_messages(owed)?;
    Ok(measured)
}

/// All publishers, and who listens to what the broker tells of itself.
#[derive(Debug)]
struct Crowd {
    poll: Poll,
    publishers: Vec<Publisher>,
    monitor: Option<Monitor>,
    latencies: Vec<Duration>,
    pace: Pace,
    /// At a rate: when the next message is due, and whose it is.
    due: (Instant, usize),
}

#[derive(Debug)]
struct Publisher {
    stream: TcpStream,
    packet: Vec<u8>,
    /// When the message in exchange was due.
    waits_since: Option<Instant>,
    /// When those after it were.
    owes_since: VecDeque<Instant>,
    acknowledged: u64,
}

impl Crowd {
    fn connect(address: SocketAddr, kind: &Kind, load: Load) -> Result<Self, String> {
        let mut crowd = Self {
            poll: Poll::new().map_err(text)?,
            publishers: Vec::new(),
            monitor: None,
            latencies: Vec::new(),
            pace: load.pace,
            due: (Instant::now(), 0),
        };
        for number in 0..load.publishers {
            let link = Link::connect(address, &format!("publisher-{number}"), true)?;
            let (stream, _) = crowd.watch(link, number)?;
            crowd.publishers.push(Publisher {
                stream,
                packet: wire::publish(&topic(number), &[b'x'; PAYLOAD_BYTES]),
                waits_since: None,
                owes_since: VecDeque::new(),
                acknowledged: 0,
            });
        }
        if let Kind::Ours(..) = kind {
            let mut link = Link::connect(address, "monitor", true)?;
            link.subscribe("$SYS/broker/store/#", 0)?;
            let (stream, rest) = crowd.watch(link, load.publishers)?;
            crowd.monitor = Some(Monitor::new(stream, rest));
        }
        if let Pace::Closed = load.pace {
            for publisher in &mut crowd.publishers {
                publisher.on_due(Instant::now())?;
            }
        }
        crowd.due.0 = Instant::now();
        Ok(crowd)
    }

    fn watch(&self, link: Link, token: usize) -> Result<(TcpStream, Vec<u8>), String> {
        let (stream, rest) = link.into_parts();
        stream.set_nonblocking(true).map_err(text)?;
        let mut stream = TcpStream::from_std(stream);
        self.poll
            .registry()
            .register(&mut stream, Token(token), Interest::READABLE)
            .map_err(text)?;
        Ok((stream, rest))
    }

    /// Goes on for so long.
    fn run(&mut self, lasts: Duration) -> Result<(), String> {
        let mut events = Events::with_capacity(1024);
        let until = Instant::now() + lasts;
        loop {
            let now = Instant::now();
            let rest = until.saturating_duration_since(now);
            if rest.is_zero() {
                return Ok(());
            }
            let patience = match self.pace {
                Pace::Closed => rest,
                Pace::Rate(rate) => {
                    self.send_due(rate, now)?;
                    // The system only knows milliseconds here, and whoever spins takes a core from the broker.
                    Duration::from_millis(1)
                }
            };
            match self.poll.poll(&mut events, Some(patience)) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                polled => polled.map_err(text)?,
            }
            for event in events.iter() {
                let Token(token) = event.token();
                match (self.publishers.get_mut(token), &mut self.monitor) {
                    (Some(publisher), _) => {
                        self.latencies.extend(publisher.on_readable(self.pace)?);
                    }
                    (None, Some(monitor)) => monitor.on_readable()?,
                    (None, None) => {}
                }
            }
        }
    }

    /// Sends what is due.
    fn send_due(&mut self, rate: u32, now: Instant) -> Result<(), String> {
        while self.due.0 <= now {
            let (at, number) = self.due;
            if let Some(publisher) = self.publishers.get_mut(number) {
                // That we are late is no fault of the broker.
                publisher.on_due(now)?;
            }
            let next = (number + 1) % self.publishers.len();
            self.due = (at + Duration::from_secs(1) / rate, next);
        }
        Ok(())
    }

    fn acknowledged(&self) -> u64 {
        self.publishers.iter().map(|of| of.acknowledged).sum()
    }
}

impl Publisher {
    /// Sends the message that is due since `at`, or owes it while there is one in exchange.
    fn on_due(&mut self, at: Instant) -> Result<(), String> {
        if self.waits_since.is_some() {
            self.owes_since.push_back(at);
            return Ok(());
        }
        self.waits_since = Some(at);
        match self.stream.write(&self.packet) {
            Ok(len) if len == self.packet.len() => Ok(()),
            // With one message in exchange its socket is empty.
            Ok(len) => Err(format!("only {len} bytes of a PUBLISH were taken")),
            Err(error) => Err(text(error)),
        }
    }

    /// Takes the PUBACK and sends what is due; returns how long it took.
    fn on_readable(&mut self, pace: Pace) -> Result<Option<Duration>, String> {
        let mut buffer = [0; 64];
        match self.stream.read(&mut buffer) {
            Ok(4) if buffer.starts_with(&PUBACK) => {}
            Ok(0) => return Err("closed by the broker".to_owned()),
            Ok(len) => return Err(format!("no PUBACK, but {:02x?}", buffer.get(..len))),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(text(error)),
        }
        let now = Instant::now();
        let since = self.waits_since.take();
        self.acknowledged += 1;
        let due = match pace {
            Pace::Closed => Some(now),
            Pace::Rate(_) => self.owes_since.pop_front(),
        };
        due.map_or(Ok(()), |at| self.on_due(at))?;
        Ok(since.map(|since| now.duration_since(since)))
    }
}

fn session(number: usize) -> String {
    format!("session-{number}")
}

fn topic(number: usize) -> String {
    format!("figures/{number}")
}

fn text(error: std::io::Error) -> String {
    error.to_string()
}

/// PUBACK for Packet Identifier 1.
const PUBACK: [u8; 4] = [0x40, 2, 0, 1];
/// Of each message.
pub(crate) const PAYLOAD_BYTES: usize = 64;
/// Long enough that what the broker tells of itself afterwards is of the load alone.
const WARM_UP: Duration = Duration::from_secs(2 * SYS_SECONDS);
