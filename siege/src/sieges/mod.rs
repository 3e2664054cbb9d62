//! What is done to a broker, and what it owes afterwards.
//!
//! Owns: the sieges. Does not own: the canary, the verdict (see `main`). Start reading at [`Siege`].
//! Invariant: `attack` ends in its time whatever the broker does; `relieve` leaves nothing behind in the broker.

mod crowds;
mod queues;
mod retained;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::ValueEnum;

use self::crowds::{Connects, Filters, Reconnect, Unreleased};
use self::queues::{Offline, Readers};
use self::retained::Retained;
use crate::flood::{Books, Flood, Manner, read_stamp};
use crate::swarm::{Role, Swarm};
use crate::wire;

/// Which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Siege {
    /// 200 publishers at full speed into a subscriber that never reads.
    Deaf,
    /// 20 publishers into 500 such subscribers.
    DeafMany,
    /// A flood of a million retained topics.
    Retained,
    /// A flood into the queues of 1,000 sessions that are away.
    Offline,
    /// 500,000 wildcard filters from 1,000 clients.
    Filters,
    /// Five subscribers to everything join over 300,000 retained messages.
    Joiners,
    /// 15,000 sessions reconnect at once.
    Reconnect,
    /// One client with 100,000 unfinished QoS 2 exchanges.
    Unreleased,
    /// 60 CONNECTs of a MiB that never end, again and again.
    ConnectsLarge,
    /// 5,000 CONNECTs that never end, 256 MiB of them.
    ConnectsMany,
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Messages that were acknowledged.
    pub(crate) acknowledged: u64,
    /// Of these, messages that did not arrive.
    pub(crate) lost: u64,
    /// Messages, or whatever it was, that were refused.
    pub(crate) refused: u64,
    /// How long the attack itself took, where that is a figure.
    pub(crate) took: Option<Duration>,
    /// What else there is to say.
    pub(crate) note: String,
}

/// Where it happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ground {
    pub(crate) address: SocketAddr,
    /// How long it goes on at most.
    pub(crate) most: Duration,
    /// Sizes are divided by this.
    pub(crate) part: usize,
}

/// A siege that goes on.
pub(crate) trait Attack {
    /// Does it.
    fn attack(&mut self) -> io::Result<()>;
    /// Ends it, looks at what is owed, and takes away what it has left.
    fn relieve(&mut self) -> io::Result<Outcome>;
}

impl Siege {
    /// Prepares what has to be there before.
    pub(crate) fn prepare(self, ground: Ground) -> io::Result<Box<dyn Attack>> {
        let part = |count: usize| (count / ground.part).max(1);
        Ok(match self {
            Self::Deaf => Box::new(Readers::prepare(ground, part(200), 1)?),
            Self::DeafMany => Box::new(Readers::prepare(ground, 20, part(500))?),
            Self::Retained => Box::new(Retained::prepare(ground, part(1_000_000), 0)?),
            Self::Joiners => Box::new(Retained::prepare(ground, part(300_000), 5)?),
            Self::Offline => Box::new(Offline::prepare(ground, part(1000))?),
            Self::Filters => Box::new(Filters::prepare(ground, part(1000))?),
            Self::Reconnect => Box::new(Reconnect::prepare(ground, part(15_000))?),
            Self::Unreleased => Box::new(Unreleased::prepare(ground, part(100_000))?),
            Self::ConnectsLarge => Box::new(Connects::prepare(ground, part(60), 1 << 20)?),
            Self::ConnectsMany => Box::new(Connects::prepare(ground, part(5000), 53_000)?),
        })
    }
}

/// Clients that subscribe, and take down what they get.
#[derive(Debug)]
struct Listeners {
    filters: Vec<Vec<String>>,
    qos: u8,
    answered: usize,
    refused: u64,
    seen: Vec<Books>,
    count: u64,
    repeated: u64,
    at: Instant,
    has_ended: Vec<bool>,
    subscribes: bool,
}

impl Listeners {
    fn new(filters: Vec<Vec<String>>, qos: u8) -> Self {
        Self {
            seen: vec![Books::default(); filters.len()],
            has_ended: vec![false; filters.len()],
            filters,
            qos,
            answered: 0,
            refused: 0,
            count: 0,
            repeated: 0,
            at: Instant::now(),
            subscribes: true,
        }
    }
}

impl Role for Listeners {
    fn on_packet(&mut self, n: usize, first: u8, body: &[u8], out: &mut Vec<u8>) {
        match first >> 4 {
            2 if !self.subscribes && body.get(1) == Some(&0) => self.answered += 1,
            2 if body.get(1) == Some(&0) => {
                for (id, some) in (1..).zip(self.filters[n].chunks(50)) {
                    out.extend(wire::subscribe(id, some, self.qos));
                }
            }
            2 => self.refused += 1,
            9 => {
                let codes = body.get(3..).unwrap_or_default();
                self.answered += codes.len();
                self.refused += codes.iter().filter(|code| **code >= 0x80).count() as u64;
            }
            3 => {
                self.at = Instant::now();
                if let Some((id, payload)) = wire::read_publish(first, body) {
                    if let Some(id) = id {
                        wire::puback(out, id);
                    }
                    let stamp = read_stamp(payload);
                    if stamp.is_some_and(|(publisher, number)| self.seen[n].note(publisher, number))
                    {
                        self.count += 1;
                    } else {
                        self.repeated += 1;
                    }
                }
            }
            _ => {}
        }
    }

    fn on_end(&mut self, n: usize) {
        self.has_ended[n] = true;
    }
}

/// Reads until nothing has come for a while; those that are gone come back to their sessions.
fn drain(swarm: &mut Swarm, listeners: &mut Listeners, name: &str) -> io::Result<()> {
    listeners.at = Instant::now();
    listeners.subscribes = false;
    let until = Instant::now() + DRAIN_MAX;
    while listeners.at.elapsed() < QUIET && Instant::now() < until {
        for n in 0..listeners.filters.len() {
            if !swarm.is_open(n) {
                swarm.open(n, wire::connect(&format!("{name}-{n}"), false, true))?;
            }
        }
        swarm.turn(Duration::from_millis(10), listeners)?;
    }
    Ok(())
}

/// Ends the sessions of this name.
fn end_sessions(address: SocketAddr, name: &str, count: usize) -> io::Result<()> {
    struct Ends {
        open: usize,
    }
    impl Role for Ends {
        fn on_packet(&mut self, _: usize, first: u8, _: &[u8], out: &mut Vec<u8>) {
            if first >> 4 == 2 {
                out.extend_from_slice(wire::END_SESSION);
            }
        }
        fn on_end(&mut self, _: usize) {
            self.open -= 1;
        }
    }
    let mut swarm = Swarm::new(address)?;
    let mut next = 0;
    let mut ends = Ends { open: 0 };
    let until = Instant::now() + DRAIN_MAX;
    while (next < count || ends.open > 0) && Instant::now() < until {
        while next < count && ends.open < 500 {
            swarm.open(next, wire::connect(&format!("{name}-{next}"), true, false))?;
            next += 1;
            ends.open += 1;
        }
        swarm.turn(Duration::from_millis(10), &mut ends)?;
    }
    Ok(())
}

type Topic = Box<dyn FnMut(usize, usize, &mut String)>;

/// Connects `count` publishers.
fn flood(
    address: SocketAddr,
    count: usize,
    manner: Manner,
    topic: Topic,
) -> io::Result<(Swarm, Flood<Topic>)> {
    let mut swarm = Swarm::new(address)?;
    for n in 0..count {
        swarm.open(n, wire::connect(&format!("flood-{n}"), true, false))?;
    }
    Ok((swarm, Flood::new(count, manner, topic)))
}

/// Stops a flood, and waits for the answers that are under way.
fn stop(swarm: &mut Swarm, flood: &mut Flood<Topic>) -> io::Result<()> {
    flood.is_over = true;
    swarm.run(QUIET, flood, |flood| flood.open() == 0)?;
    Ok(())
}

fn reasons(flood: &Flood<Topic>) -> String {
    let mut text = format!("{} sent, {} without an answer", flood.sent, flood.open());
    for (reason, count) in &flood.reasons {
        text.push_str(&format!(", {count} refused with {reason:#04x}"));
    }
    if flood.ended > 0 {
        text.push_str(&format!(", {} publishers disconnected", flood.ended));
    }
    text
}

/// What has to be there before may take so long.
const PREPARE_MAX: Duration = Duration::from_secs(60);
/// What is owed may take so long to come.
const DRAIN_MAX: Duration = Duration::from_secs(120);
/// After so long without a message nothing more comes.
const QUIET: Duration = Duration::from_secs(3);
