//! What stands in a broker: retained messages, queues of Sessions that are away, idle connections.
//!
//! Owns: filling and emptying it, and what that took. Does not own: flows (see `flow`), the broker.
//! Start reading at [`retained`], [`offline`], [`idle`]. Invariant: what was put in is counted when it comes out.

use std::io;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use crate::door::Door;
use crate::flow::{SCRATCH_BYTES, await_answers};
use crate::peer::Peer;
use crate::process::Process;
use crate::wire::{self, Publishing, Stamp, Version};

/// What it took to fill a broker, and to empty it again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing {
    /// Messages a second that were put in.
    pub(crate) filled: f64,
    /// Deliveries, how long they took, and the CPU of the broker for them.
    pub(crate) deliveries: u64,
    pub(crate) took: Duration,
    pub(crate) cpu: Duration,
    /// Memory by thing, in bytes.
    pub(crate) bytes: f64,
    /// What did not come out.
    pub(crate) lost: u64,
}

/// Some connections, and a place for what they read.
#[derive(Debug)]
pub(crate) struct Bench {
    poll: Poll,
    scratch: Vec<u8>,
    door: Door,
}

impl Bench {
    pub(crate) fn new(door: &Door) -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            scratch: vec![0; SCRATCH_BYTES],
            door: door.clone(),
        })
    }

    /// A connection with this Client Identifier that has subscribed to `filter`, if there is one.
    pub(crate) fn connect(
        &mut self,
        token: usize,
        client_id: &str,
        keeps: bool,
        filter: Option<(&str, u8)>,
    ) -> io::Result<Peer> {
        let mut peer = Peer::connect(&self.door, self.poll.registry(), token)?;
        wire::connect(VERSION, client_id, keeps, peer.out());
        if let Some((filter, qos)) = filter {
            wire::subscribe(VERSION, &[filter.to_owned()], qos, peer.out());
        }
        let answers = 1 + usize::from(filter.is_some());
        await_answers(&mut peer, answers, &mut self.scratch)?;
        Ok(peer)
    }

    /// Publishes to each topic at QoS 1, some at a time; returns how long it took until all were acknowledged.
    pub(crate) fn fill(
        &mut self,
        is_retained: bool,
        topics: impl Iterator<Item = String>,
    ) -> io::Result<(u64, Duration)> {
        let mut peer = self.connect(0, "bench-fill", false, None)?;
        let began = Instant::now();
        let (mut sent, mut acknowledged, mut heard_at) = (0_u64, 0_u64, Instant::now());
        let mut topics = topics.peekable();
        while topics.peek().is_some() || acknowledged < sent {
            while sent < acknowledged + FILL_WINDOW
                && let Some(topic) = topics.next()
            {
                let stamp = Stamp {
                    publisher: 0,
                    seq: sent,
                    due: 0,
                };
                let id = u16::try_from(sent % FILL_WINDOW + 1).unwrap_or(1);
                Publishing::new(VERSION, &topic, 1, is_retained, PAYLOAD_BYTES).put(
                    id,
                    stamp,
                    peer.out(),
                );
                sent += 1;
            }
            peer.on_writable();
            peer.flush()?;
            let before = acknowledged;
            peer.read(&mut self.scratch, |frame, _| {
                acknowledged += u64::from(frame.first >> 4 == 4);
            })?;
            if acknowledged != before {
                heard_at = Instant::now();
            } else if heard_at.elapsed() > STALL_MAX {
                return Err(io::Error::other("nothing is acknowledged any more"));
            }
        }
        Ok((sent, began.elapsed()))
    }

    /// So many retained messages.
    /// # Errors
    /// As of [`Self::fill`].
    pub(crate) fn fill_retained(&mut self, count: usize) -> io::Result<(u64, Duration)> {
        let topics = (0..count).map(|at| format!("retained/{}/{at}", at % 100));
        self.fill(true, topics)
    }

    /// A subscriber of all of them; returns how many it was sent.
    /// # Errors
    /// As of the sockets.
    pub(crate) fn take_retained(&mut self, wanted: u64) -> io::Result<u64> {
        let mut peer = self.connect(0, "bench-reader", false, None)?;
        wire::subscribe(VERSION, &["retained/#".to_owned()], 0, peer.out());
        peer.flush()?;
        self.drain(std::slice::from_mut(&mut peer), wanted)
    }

    /// So many connections with one Subscription each, that say nothing.
    /// # Errors
    /// As of the sockets.
    pub(crate) fn idle(&mut self, count: usize) -> io::Result<Vec<Peer>> {
        let one = |at| {
            let filter = format!("idle/{at}");
            self.connect(at, &format!("bench-idle-{at}"), true, Some((&filter, 1)))
        };
        (0..count).map(one).collect()
    }

    /// The same Clients again, all at once; returns how many were let in before nobody was for [`STALL_MAX`].
    /// # Errors
    /// As of the poll: a connection that fails is one that was not let in.
    pub(crate) fn come_back(&mut self, count: usize) -> io::Result<usize> {
        let mut peers = Vec::with_capacity(count);
        for at in 0..count {
            let mut peer = Peer::begin_to_connect(&self.door, self.poll.registry(), at)?;
            wire::connect(VERSION, &format!("bench-idle-{at}"), true, peer.out());
            peers.push(peer);
        }
        let mut events = Events::with_capacity(4096);
        let (mut let_in, mut heard_at) = (0, Instant::now());
        while let_in < count && heard_at.elapsed() < STALL_MAX {
            self.poll
                .poll(&mut events, Some(Duration::from_millis(10)))?;
            for event in &events {
                let Some(peer) = peers.get_mut(event.token().0) else {
                    continue;
                };
                if event.is_writable() {
                    peer.on_writable();
                    peer.flush().ok();
                }
                let before = let_in;
                let read = peer.read(&mut self.scratch, |frame, _| {
                    let is_success = frame.first >> 4 == 2 && frame.body.get(1) == Some(&0);
                    let_in += usize::from(is_success);
                });
                if read.is_ok() && let_in > before {
                    heard_at = Instant::now();
                }
            }
        }
        Ok(let_in)
    }

    /// Reads from `peers` until `wanted` messages have come or none comes any more; acknowledges QoS 1.
    pub(crate) fn drain(&mut self, peers: &mut [Peer], wanted: u64) -> io::Result<u64> {
        let mut events = Events::with_capacity(4096);
        let (mut came, mut heard_at) = (0_u64, Instant::now());
        // What has come along with the answers was read then: everybody is looked at once without an event.
        let mut ready: Vec<usize> = (0..peers.len()).collect();
        while came < wanted && heard_at.elapsed() < STALL_MAX {
            for at in ready.drain(..) {
                let Some(peer) = peers.get_mut(at) else {
                    continue;
                };
                peer.on_writable();
                peer.read(&mut self.scratch, |frame, out| {
                    if frame.first >> 4 != 3 {
                        return;
                    }
                    came += 1;
                    let split = wire::split_publish(VERSION, frame.first, frame.body);
                    if let Some((id, _)) = split.filter(|(id, _)| *id != 0) {
                        wire::acknowledge(0x40, id, out);
                    }
                    heard_at = Instant::now();
                })?;
                peer.flush()?;
            }
            self.poll
                .poll(&mut events, Some(Duration::from_millis(10)))?;
            ready.extend(events.iter().map(|event| event.token().0));
        }
        Ok(came)
    }
}

/// So many retained messages, sent to one subscriber of all of them.
/// # Errors
/// As of the sockets.
pub(crate) fn retained(door: &Door, broker: Process, count: usize) -> io::Result<Standing> {
    let mut bench = Bench::new(door)?;
    let empty = broker.memory();
    let (sent, filling) = bench.fill_retained(count)?;
    let full = broker.memory();
    let (began, cpu) = (Instant::now(), broker.cpu());
    let came = bench.take_retained(sent)?;
    Ok(standing(
        (sent, filling),
        (came, began.elapsed(), broker.cpu().saturating_sub(cpu)),
        (empty, full),
        sent,
    ))
}

/// Kept Sessions that are away, with so many messages each in their queues; then they come back.
/// # Errors
/// As of the sockets.
pub(crate) fn offline(
    door: &Door,
    broker: Process,
    sessions: usize,
    messages: usize,
) -> io::Result<Standing> {
    let mut bench = Bench::new(door)?;
    for at in 0..sessions {
        let filter = format!("offline/{at}");
        let mut peer = bench.connect(at, &format!("bench-away-{at}"), true, Some((&filter, 1)))?;
        // DISCONNECT.
        peer.out().extend_from_slice(&[0xE0, 0]);
        peer.flush()?;
    }
    std::thread::sleep(Duration::from_millis(300));
    let empty = broker.memory();
    let all = (0..messages).flat_map(|_| (0..sessions).map(|at| format!("offline/{at}")));
    let (sent, filling) = bench.fill(false, all)?;
    let full = broker.memory();
    let (began, cpu) = (Instant::now(), broker.cpu());
    let mut peers = Vec::with_capacity(sessions);
    for at in 0..sessions {
        let mut peer = Peer::connect(door, bench.poll.registry(), at)?;
        wire::connect(VERSION, &format!("bench-away-{at}"), true, peer.out());
        peer.flush()?;
        peers.push(peer);
    }
    let came = bench.drain(&mut peers, sent)?;
    Ok(standing(
        (sent, filling),
        (came, began.elapsed(), broker.cpu().saturating_sub(cpu)),
        (empty, full),
        sent,
    ))
}

/// Connections with one Subscription each, that say nothing.
/// # Errors
/// As of the sockets.
pub(crate) fn idle(door: &Door, broker: Process, count: usize) -> io::Result<Standing> {
    let mut bench = Bench::new(door)?;
    let empty = broker.memory();
    let began = Instant::now();
    let peers = bench.idle(count)?;
    let filling = began.elapsed();
    std::thread::sleep(SETTLED_AFTER);
    let full = broker.memory();
    drop(peers);
    let count = count as u64;
    Ok(standing(
        (count, filling),
        (0, Duration::ZERO, Duration::ZERO),
        (empty, full),
        0,
    ))
}

fn standing(
    (sent, filling): (u64, Duration),
    (deliveries, took, cpu): (u64, Duration, Duration),
    (empty, full): (u64, u64),
    wanted: u64,
) -> Standing {
    Standing {
        filled: sent as f64 / filling.as_secs_f64().max(1e-9),
        deliveries,
        took,
        cpu,
        bytes: full.saturating_sub(empty) as f64 / sent.max(1) as f64,
        lost: wanted.saturating_sub(deliveries),
    }
}

/// What all of them speak.
const VERSION: Version = Version::V311;
const PAYLOAD_BYTES: usize = 64;
const FILL_WINDOW: u64 = 1000;
/// What was needed to connect is given back by then.
const SETTLED_AFTER: Duration = Duration::from_secs(3);
/// For so long nothing may come.
const STALL_MAX: Duration = Duration::from_secs(10);
