//! A steady flow of messages, and what became of each.
//!
//! Owns: publishers, subscribers, windows, the count of what was lost, repeated and overtaken. Does not own: which
//! flow is wanted (see `scenarios`), the broker. Start reading at [`Flow::run`].
//! Invariants: with a closed window a publisher has no more than that many messages that are not delivered to all and
//! acknowledged; with a rate a message is stamped with the time at which it was due, late or not.

use std::io;
use std::time::{Duration, Instant};

use mio::{Events, Poll};

use crate::door::Door;
use crate::latency::Latency;
use crate::peer::Peer;
use crate::process::Process;
use crate::relay::{self, Role};
use crate::wire::{self, Frame, Publishing, Stamp, Version};

/// Who publishes to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Each publisher to a subscriber of its own.
    Pairs,
    /// Each publisher to every subscriber.
    All,
    /// Each publisher to one of the subscribers, who share.
    Shared,
    /// To any of so many topics, each of which one subscriber wants by name and another one by a wildcard.
    Table(usize),
}

/// What flows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// In Client Identifiers and topics, so that several can go on at once.
    pub(crate) name: &'static str,
    pub(crate) shape: Shape,
    pub(crate) publishers: usize,
    pub(crate) subscribers: usize,
    pub(crate) version: Version,
    pub(crate) qos: u8,
    /// Subscribers have Sessions that outlive their connections.
    pub(crate) keeps: bool,
    pub(crate) payload_bytes: usize,
    /// Messages of one publisher on their way.
    pub(crate) window: usize,
    /// Messages a second of all publishers, whatever is on its way.
    pub(crate) rate: Option<u64>,
    /// With a rate: whether it looks at the clock all the time, for a sleep is not that exact.
    pub(crate) is_exact: bool,
    /// No MQTT: the broker is the bare relay.
    pub(crate) is_raw: bool,
    pub(crate) warmup: Duration,
    pub(crate) measured: Duration,
}

/// What has become of a flow.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Deliveries in the time that was measured.
    pub(crate) deliveries: u64,
    pub(crate) took: Duration,
    /// CPU of the broker in that time.
    pub(crate) cpu: Duration,
    /// CPU of the generator.
    pub(crate) own_cpu: Duration,
    pub(crate) latency: Latency,
    /// Those of the warm-up and of the end included.
    pub(crate) all_deliveries: u64,
    /// Of all messages, too.
    pub(crate) lost: u64,
    /// Repeated, or after a later one.
    pub(crate) misplaced: u64,
}

/// One publisher.
#[derive(Debug)]
struct Publisher {
    publishing: Publishing,
    next: u64,
    /// The first that is not through.
    oldest: u64,
    /// By place in the window: what is still awaited of each message.
    awaited: Vec<u32>,
}

/// All that a packet can change.
#[derive(Debug)]
struct State {
    plan: Plan,
    publishers: Vec<Publisher>,
    /// The next number that a subscriber expects from a publisher, by both.
    expected: Vec<u64>,
    /// Publishers that may send.
    open: Vec<usize>,
    received: u64,
    misplaced: u64,
    latency: Latency,
    is_measuring: bool,
    now_nanos: u64,
}

/// A flow that goes on.
#[derive(Debug)]
pub(crate) struct Flow {
    poll: Poll,
    /// Publishers, then subscribers.
    peers: Vec<Peer>,
    dirty: Vec<usize>,
    state: State,
    scratch: Vec<u8>,
    began: Instant,
    is_over: bool,
    sent_at_rate: u64,
}

impl Flow {
    /// Connects and subscribes everybody.
    /// # Errors
    /// The broker does not take them.
    pub(crate) fn begin(door: &Door, plan: Plan) -> io::Result<Self> {
        let poll = Poll::new()?;
        let count = plan.publishers + plan.subscribers;
        let mut peers = Vec::with_capacity(count);
        let mut scratch = vec![0; SCRATCH_BYTES];
        for at in 0..count {
            let mut peer = Peer::connect(door, poll.registry(), at)?;
            introduce(&plan, at, peer.out());
            peer.flush()?;
            // An answer to everything that was asked, so that nothing is published too early.
            let answers = if plan.is_raw {
                0
            } else {
                1 + plan.filters_of(at).len().div_ceil(FILTERS_AT_ONCE)
            };
            await_answers(&mut peer, answers, &mut scratch)?;
            peers.push(peer);
        }
        if plan.is_raw {
            // The relay says nothing; it reads a hello in its next turn.
            std::thread::sleep(Duration::from_millis(200));
        }
        let publishers: Vec<_> = (0..plan.publishers)
            .map(|at| Publisher {
                publishing: publishing(&plan, at),
                next: 0,
                oldest: 0,
                awaited: vec![0; plan.window],
            })
            .collect();
        Ok(Self {
            poll,
            peers,
            dirty: Vec::new(),
            state: State {
                plan,
                open: (0..publishers.len()).collect(),
                publishers,
                expected: vec![0; plan.publishers * plan.subscribers],
                received: 0,
                misplaced: 0,
                latency: Latency::new(),
                is_measuring: false,
                now_nanos: 0,
            },
            scratch,
            began: Instant::now(),
            is_over: false,
            sent_at_rate: 0,
        })
    }

    /// Lets it flow, and then to its end.
    /// # Errors
    /// A socket failed, or nothing was delivered for [`STALL_MAX`].
    pub(crate) fn run(self, broker: Process) -> io::Result<Outcome> {
        let measured = self.state.plan.measured;
        self.run_until(broker, |started| started.elapsed() >= measured)
    }

    /// The same, measured until `is_over` says so, which hears when that began.
    /// # Errors
    /// As of [`Self::run`].
    pub(crate) fn run_until(
        mut self,
        broker: Process,
        mut is_over: impl FnMut(Instant) -> bool,
    ) -> io::Result<Outcome> {
        let plan = self.state.plan;
        let own = Process(std::process::id());
        self.began = Instant::now();
        let began = self.began;
        self.go_on_until(|| began.elapsed() >= plan.warmup)?;
        self.state.is_measuring = true;
        let (started, cpu, own_cpu) = (Instant::now(), broker.cpu(), own.cpu());
        let received = self.state.received;
        self.go_on_until(|| is_over(started))?;
        let took = started.elapsed();
        let cpu = broker.cpu().saturating_sub(cpu);
        let own_cpu = own.cpu().saturating_sub(own_cpu);
        let deliveries = self.state.received - received;
        self.state.is_measuring = false;
        self.is_over = true;
        let lost = self.drain()?;
        Ok(Outcome {
            deliveries,
            took,
            cpu,
            own_cpu,
            latency: self.state.latency,
            all_deliveries: self.state.received,
            lost,
            misplaced: self.state.misplaced,
        })
    }

    fn go_on_until(&mut self, mut is_over: impl FnMut() -> bool) -> io::Result<()> {
        let mut events = Events::with_capacity(4096);
        let (mut seen, mut seen_at) = (self.state.received, Instant::now());
        loop {
            self.turn(&mut events)?;
            if is_over() {
                return Ok(());
            }
            let now = Instant::now();
            if self.state.received != seen {
                (seen, seen_at) = (self.state.received, now);
            } else if now > seen_at + STALL_MAX {
                return Err(io::Error::other("nothing is delivered any more"));
            }
        }
    }

    /// Waits for what is on its way; what has not come then is lost.
    fn drain(&mut self) -> io::Result<u64> {
        let copies = self.state.plan.copies() as u64;
        let sent: u64 = self.state.publishers.iter().map(|one| one.next).sum();
        let until = Instant::now() + STALL_MAX;
        let mut events = Events::with_capacity(4096);
        while self.state.received < sent * copies && Instant::now() < until {
            self.turn(&mut events)?;
        }
        Ok((sent * copies).saturating_sub(self.state.received))
    }

    fn turn(&mut self, events: &mut Events) -> io::Result<()> {
        let plan = &self.state.plan;
        let timeout = match plan.rate {
            Some(_) if plan.is_exact => Duration::ZERO,
            Some(_) => Duration::from_millis(1),
            None => Duration::from_millis(10),
        };
        self.poll.poll(events, Some(timeout))?;
        self.state.now_nanos = nanos(self.began.elapsed());
        for event in &*events {
            let at = event.token().0;
            let Some(peer) = self.peers.get_mut(at) else {
                continue;
            };
            let may_write = event.is_writable() && peer.on_writable();
            if event.is_readable() {
                let state = &mut self.state;
                peer.read(&mut self.scratch, |frame, out| {
                    state.on_frame(at, &frame, out);
                })?;
            }
            if (may_write || peer.is_unsent()) && !std::mem::replace(&mut peer.is_dirty, true) {
                self.dirty.push(at);
            }
        }
        if !self.is_over {
            self.publish();
        }
        for at in self.dirty.drain(..) {
            if let Some(peer) = self.peers.get_mut(at) {
                peer.is_dirty = false;
                peer.flush()?;
            }
        }
        Ok(())
    }

    fn publish(&mut self) {
        match self.state.plan.rate {
            None => {
                for at in std::mem::take(&mut self.state.open) {
                    self.fill_window(at);
                }
            }
            Some(rate) => self.publish_due(rate),
        }
    }

    fn fill_window(&mut self, at: usize) {
        let window = self.state.plan.window as u64;
        let now = self.state.now_nanos;
        let Some(publisher) = self.state.publishers.get(at) else {
            return;
        };
        for _ in publisher.next..publisher.oldest + window {
            self.send(at, now);
        }
    }

    fn publish_due(&mut self, rate: u64) {
        let publishers = self.state.publishers.len().max(1) as u64;
        loop {
            let due = self.sent_at_rate * 1_000_000_000 / rate;
            if due > self.state.now_nanos {
                return;
            }
            let at = usize::try_from(self.sent_at_rate % publishers).unwrap_or(0);
            self.sent_at_rate += 1;
            self.send(at, due);
        }
    }

    fn send(&mut self, at: usize, due: u64) {
        let plan = self.state.plan;
        let awaited = plan.awaited();
        let (Some(publisher), Some(peer)) =
            (self.state.publishers.get_mut(at), self.peers.get_mut(at))
        else {
            return;
        };
        let slot = slot_of(publisher.next, plan.window);
        if let Some(place) = publisher.awaited.get_mut(slot) {
            *place = awaited;
        }
        let stamp = Stamp {
            publisher: u32::try_from(at).unwrap_or(u32::MAX),
            seq: publisher.next,
            due,
        };
        let packet_id = packet_id_of(slot);
        if let (Shape::Table(topics), false) = (plan.shape, plan.is_raw) {
            let topic = device_topic(any_of(topics, stamp));
            Publishing::new(plan.version, &topic, plan.qos, false, plan.payload_bytes).put(
                packet_id,
                stamp,
                peer.out(),
            );
        } else {
            publisher.publishing.put(packet_id, stamp, peer.out());
        }
        publisher.next += 1;
        if !std::mem::replace(&mut peer.is_dirty, true) {
            self.dirty.push(at);
        }
    }
}

impl Plan {
    /// Deliveries and acknowledgements that end a message.
    fn awaited(&self) -> u32 {
        u32::try_from(self.copies() + usize::from(self.qos > 0)).unwrap_or(u32::MAX)
    }

    /// Subscriptions that stand in the broker, if it is about these.
    pub(crate) const fn table_len(&self) -> Option<usize> {
        match self.shape {
            Shape::Table(topics) if topics >= 1000 => Some(topics),
            _ => None,
        }
    }

    /// Deliveries of one message.
    const fn copies(&self) -> usize {
        match self.shape {
            Shape::All => self.subscribers,
            Shape::Pairs | Shape::Shared => 1,
            Shape::Table(_) => 2,
        }
    }

    /// What a peer subscribes to; publishers to nothing.
    fn filters_of(&self, at: usize) -> Vec<String> {
        let Some(subscriber) = at.checked_sub(self.publishers) else {
            return Vec::new();
        };
        match self.shape {
            Shape::Pairs => vec![topic(self, subscriber)],
            Shape::All => vec![format!("bench/{}/#", self.name)],
            Shape::Shared => vec![format!("$share/group/bench/{}/#", self.name)],
            // The last ones look at whole sites.
            Shape::Table(topics) => match self.subscribers.checked_sub(DASHBOARDS) {
                Some(owners) if subscriber < owners => (subscriber..topics)
                    .step_by(owners)
                    .map(device_topic)
                    .collect(),
                owners => (subscriber - owners.unwrap_or(0)..SITES)
                    .step_by(DASHBOARDS)
                    .map(|site| format!("site/{site}/#"))
                    .collect(),
            },
        }
    }
}

impl State {
    fn on_frame(&mut self, at: usize, frame: &Frame<'_>, out: &mut Vec<u8>) {
        let packet_id = || wire::packet_id(frame.body).unwrap_or_default();
        match frame.first >> 4 {
            3 => self.on_delivery(at, frame, out),
            // PUBACK and PUBCOMP end it for a publisher.
            4 | 7 => self.on_step(at, usize::from(packet_id()).wrapping_sub(1)),
            5 => wire::acknowledge(0x62, packet_id(), out),
            6 => wire::acknowledge(0x70, packet_id(), out),
            _ => {}
        }
    }

    fn on_delivery(&mut self, at: usize, frame: &Frame<'_>, out: &mut Vec<u8>) {
        let split = wire::split_publish(self.plan.version, frame.first, frame.body);
        let Some((packet_id, payload)) = split else {
            return;
        };
        match frame.first >> 1 & 3 {
            0 => {}
            1 => wire::acknowledge(0x40, packet_id, out),
            _ => wire::acknowledge(0x50, packet_id, out),
        }
        let Some(stamp) = Stamp::read(payload) else {
            return;
        };
        self.received += 1;
        if self.is_measuring {
            self.latency.add(self.now_nanos.saturating_sub(stamp.due));
        }
        let publisher = stamp.publisher as usize;
        let row = at.saturating_sub(self.plan.publishers) * self.plan.publishers;
        if let Some(expected) = self.expected.get_mut(row + publisher) {
            self.misplaced += u64::from(stamp.seq < *expected);
            *expected = stamp.seq + 1;
        }
        self.on_step(publisher, slot_of(stamp.seq, self.plan.window));
    }

    /// One of the things has come that a message of this publisher waits for.
    fn on_step(&mut self, at: usize, slot: usize) {
        let Some(publisher) = self.publishers.get_mut(at) else {
            return;
        };
        if let Some(awaited) = publisher.awaited.get_mut(slot) {
            *awaited = awaited.saturating_sub(1);
        }
        let before = publisher.oldest;
        while publisher.oldest < publisher.next {
            let slot = slot_of(publisher.oldest, self.plan.window);
            if publisher.awaited.get(slot).is_some_and(|left| *left > 0) {
                break;
            }
            publisher.oldest += 1;
        }
        if publisher.oldest != before && self.open.last() != Some(&at) {
            self.open.push(at);
        }
    }
}

/// What a peer says first: CONNECT, and SUBSCRIBE if it subscribes; or a hello for the relay.
fn introduce(plan: &Plan, at: usize, out: &mut Vec<u8>) {
    if plan.is_raw {
        let subscriber = at.checked_sub(plan.publishers);
        let (role, channel) = match (plan.shape, subscriber) {
            (Shape::Table(_), Some(subscriber)) => {
                let is_owner = subscriber + DASHBOARDS < plan.subscribers;
                (Role::Subscribes, usize::from(!is_owner))
            }
            (Shape::Table(_), None) => (Role::Spreads, publishing(plan, at).len()),
            (Shape::Pairs, Some(subscriber)) => (Role::Subscribes, subscriber),
            (Shape::Pairs, None) => (Role::Publishes, at),
            (Shape::All | Shape::Shared, Some(_)) => (Role::Subscribes, 0),
            (Shape::All | Shape::Shared, None) => (Role::Publishes, 0),
        };
        return relay::hello(role, channel, out);
    }
    let keeps = plan.keeps && at >= plan.publishers;
    wire::connect(
        plan.version,
        &format!("bench-{}-{at}", plan.name),
        keeps,
        out,
    );
    for filters in plan.filters_of(at).chunks(FILTERS_AT_ONCE) {
        wire::subscribe(plan.version, filters, plan.qos, out);
    }
}

/// Waits, without a poll, until so many packets have come.
/// # Errors
/// The broker refuses, closes, or says nothing.
pub(crate) fn await_answers(peer: &mut Peer, count: usize, scratch: &mut [u8]) -> io::Result<()> {
    let until = Instant::now() + STALL_MAX;
    let (mut left, mut is_refused) = (count, false);
    while left > 0 {
        // What the socket did not take at once.
        peer.on_writable();
        peer.flush()?;
        peer.read(scratch, |frame, _| {
            left = left.saturating_sub(1);
            is_refused |= match frame.first >> 4 {
                2 => frame.body.get(1) != Some(&0),
                9 => frame.body.last().is_some_and(|code| *code > 2),
                _ => false,
            };
        })?;
        if is_refused {
            return Err(io::Error::other("the broker refuses a client"));
        }
        if Instant::now() > until {
            return Err(io::Error::other("the broker does not answer"));
        }
        if left > 0 {
            std::thread::yield_now();
        }
    }
    Ok(())
}

fn publishing(plan: &Plan, at: usize) -> Publishing {
    let topic = match plan.shape {
        // Of the relay, to which a topic means nothing.
        Shape::Table(_) => device_topic(A_DEVICE + at),
        Shape::Pairs | Shape::All | Shape::Shared => topic(plan, at),
    };
    Publishing::new(plan.version, &topic, plan.qos, false, plan.payload_bytes)
}

fn topic(plan: &Plan, publisher: usize) -> String {
    format!("bench/{}/{publisher}", plan.name)
}

fn device_topic(device: usize) -> String {
    format!("site/{}/device/{device}/state", device % SITES)
}

/// One of so many, as if by chance.
fn any_of(count: usize, stamp: Stamp) -> usize {
    let mixed = (stamp.seq << 16 | u64::from(stamp.publisher)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 16;
    usize::try_from(mixed % count.max(1) as u64).unwrap_or(0)
}

fn slot_of(seq: u64, window: usize) -> usize {
    usize::try_from(seq % window.max(1) as u64).unwrap_or(0)
}

/// Unique among those on their way: none has the place of another.
fn packet_id_of(slot: usize) -> u16 {
    u16::try_from(slot % 65_535 + 1).unwrap_or(1)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Filters of one SUBSCRIBE.
const FILTERS_AT_ONCE: usize = 50;
/// Subscribers of whole sites in a table.
pub(crate) const DASHBOARDS: usize = 10;
const SITES: usize = 100;
/// One whose topic is as long as that of most in a table of a million.
const A_DEVICE: usize = 100_000;
/// For so long nothing may be delivered.
const STALL_MAX: Duration = Duration::from_secs(5);
/// Bytes of one read.
pub(crate) const SCRATCH_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(shape: Shape, qos: u8) -> Plan {
        Plan {
            name: "test",
            shape,
            publishers: if shape == Shape::All { 1 } else { 3 },
            subscribers: match shape {
                Shape::Table(_) => 3 + DASHBOARDS,
                _ => 3,
            },
            version: Version::V311,
            qos,
            keeps: false,
            payload_bytes: 64,
            window: 8,
            rate: None,
            is_exact: true,
            is_raw: true,
            warmup: Duration::ZERO,
            measured: Duration::from_millis(20),
        }
    }

    #[test]
    fn flow_through_the_relay_arrives_whole_and_in_order() {
        let listener = relay::listen().expect("a port is free");
        let address = listener.local_addr().expect("it listens");
        std::thread::spawn(move || relay::serve(listener));
        let both = [Shape::Pairs, Shape::All];
        let acknowledged = both.into_iter().flat_map(|shape| [(shape, 1), (shape, 2)]);
        let unacknowledged = [Shape::Pairs, Shape::All, Shape::Table(100)].map(|shape| (shape, 0));
        for (shape, qos) in unacknowledged.into_iter().chain(acknowledged) {
            let flow = Flow::begin(&Door::plain(address), plan(shape, qos));
            let flow = flow.expect("the relay takes it");
            let outcome = flow.run(Process(std::process::id())).expect("it flows");
            let sent_and_wrong = (outcome.deliveries > 0, outcome.lost, outcome.misplaced);
            assert_eq!(sent_and_wrong, (true, 0, 0), "{shape:?} at QoS {qos}");
        }
    }

    #[test]
    fn every_topic_of_a_table_is_wanted_by_name_once_and_by_a_wildcard_once() {
        let plan = plan(Shape::Table(1000), 0);
        let all = (0..plan.publishers + plan.subscribers).flat_map(|at| plan.filters_of(at));
        let mut filters: Vec<_> = all.collect();
        filters.sort();
        let mut wanted: Vec<_> = (0..1000).map(device_topic).collect();
        wanted.extend((0..SITES).map(|site| format!("site/{site}/#")));
        wanted.sort();
        assert_eq!(filters, wanted);
    }
}
