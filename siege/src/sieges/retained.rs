//! Retained messages: many of them, and many who want them.
//!
//! Owns: [`Retained`]. Does not own: their publishers' books (see `crate::flood`).
//! Start reading at [`Retained`]. Invariant: none is left afterwards.

use std::io;
use std::time::{Duration, Instant};

use super::{
    Attack, DRAIN_MAX, Ground, Listeners, Outcome, PREPARE_MAX, QUIET, Topic, flood, reasons, stop,
};
use crate::flood::{Books, Flood, Manner};
use crate::swarm::{Role, Swarm};
use crate::wire;

/// Retained messages, and subscribers that want them all.
pub(super) struct Retained {
    ground: Ground,
    publishers: Swarm,
    flood: Flood<Topic>,
    joiners: usize,
    took: Option<Duration>,
    seen: Vec<Books>,
}

impl Retained {
    const PUBLISHERS: usize = 4;

    pub(super) fn prepare(ground: Ground, topics: usize, joiners: usize) -> io::Result<Self> {
        let manner = Manner {
            qos: 1,
            is_retained: true,
            window: 256,
            payload_len: 64,
            most: topics / Self::PUBLISHERS,
        };
        let topic: Topic = Box::new(|n, number, topic| {
            topic.push_str(&format!(
                "site/{}/device/{}/{n}/state",
                number / 1000,
                number % 1000
            ));
        });
        let (publishers, flood) = flood(ground.address, Self::PUBLISHERS, manner, topic)?;
        let mut prepared = Self {
            ground,
            publishers,
            flood,
            joiners,
            took: None,
            seen: Vec::new(),
        };
        if joiners > 0 {
            prepared
                .publishers
                .run(PREPARE_MAX, &mut prepared.flood, Flood::is_done)?;
        }
        Ok(prepared)
    }

    /// So many subscribe to all, and read until nothing more comes.
    fn join(&mut self, count: usize) -> io::Result<Duration> {
        let began = Instant::now();
        let mut swarm = Swarm::new(self.ground.address)?;
        let mut listeners = Listeners::new(vec![vec!["site/#".to_owned()]; count], 0);
        for n in 0..count {
            swarm.open(n, wire::connect(&format!("joiner-{n}"), true, false))?;
        }
        let all = self.flood.acknowledged_count * count as u64;
        let until = Instant::now() + DRAIN_MAX;
        while listeners.count < all && listeners.at.elapsed() < QUIET && Instant::now() < until {
            // Who is refused comes again, as a client would.
            for n in 0..count {
                if !swarm.is_open(n) {
                    swarm.open(n, wire::connect(&format!("joiner-{n}"), true, false))?;
                }
            }
            swarm.turn(Duration::from_millis(10), &mut listeners)?;
        }
        let took = listeners.at - began;
        self.seen = listeners.seen;
        Ok(took)
    }
}

impl Attack for Retained {
    fn attack(&mut self) -> io::Result<()> {
        if self.joiners > 0 {
            self.took = Some(self.join(self.joiners)?);
            return Ok(());
        }
        let began = Instant::now();
        let most = self.ground.most;
        if self.publishers.run(most, &mut self.flood, Flood::is_done)? {
            self.took = Some(began.elapsed());
        }
        stop(&mut self.publishers, &mut self.flood)
    }

    fn relieve(&mut self) -> io::Result<Outcome> {
        if self.joiners == 0 {
            self.join(1)?;
        }
        let lost = self
            .seen
            .iter()
            .map(|seen| self.flood.acknowledged.missing_in(seen));
        let outcome = Outcome {
            acknowledged: self.flood.acknowledged_count,
            lost: lost.sum(),
            refused: self.flood.refused,
            took: self.took,
            note: reasons(&self.flood),
        };
        // An empty one takes each of them away.
        let mut remove = Remove {
            next: [0; Self::PUBLISHERS],
            most: self.flood.sent / Self::PUBLISHERS + 1,
            answers: 0,
            sent: 0,
        };
        let mut swarm = Swarm::new(self.ground.address)?;
        for n in 0..Self::PUBLISHERS {
            swarm.open(n, wire::connect(&format!("remover-{n}"), true, false))?;
        }
        let until = Instant::now() + DRAIN_MAX;
        while !remove.is_done() && Instant::now() < until {
            for n in 0..Self::PUBLISHERS {
                if !swarm.is_open(n) {
                    swarm.open(n, wire::connect(&format!("remover-{n}"), true, false))?;
                }
            }
            swarm.turn(Duration::from_millis(10), &mut remove)?;
        }
        Ok(outcome)
    }
}

/// Publishers that take retained messages away, a window at a time.
struct Remove {
    next: [usize; Retained::PUBLISHERS],
    most: usize,
    sent: usize,
    answers: usize,
}

impl Remove {
    fn is_done(&self) -> bool {
        self.answers == self.sent && self.next.iter().all(|next| *next >= self.most)
    }
}

impl Role for Remove {
    fn on_packet(&mut self, n: usize, first: u8, body: &[u8], out: &mut Vec<u8>) {
        match first >> 4 {
            2 if body.get(1) == Some(&0) => {}
            4 => self.answers += 1,
            _ => return,
        }
        let window = if first >> 4 == 2 { 200 } else { 1 };
        for _ in 0..window {
            let number = self.next[n];
            if number >= self.most {
                return;
            }
            self.next[n] += 1;
            self.sent += 1;
            let topic = format!("site/{}/device/{}/{n}/state", number / 1000, number % 1000);
            let id = u16::try_from(number % 60_000).unwrap_or_default() + 1;
            wire::publish(out, &topic, 1, id, true, b"");
        }
    }
}
