//! Queues: of clients that do not read, and of sessions that are away.
//!
//! Owns: [`Readers`], [`Offline`]. Does not own: those who fill them (see `crate::flood`).
//! Start reading at [`Readers`]. Invariant: what is owed is looked at in the end, however long the queue.

use std::io;
use std::time::{Duration, Instant};

use super::{
    Attack, Ground, Listeners, Outcome, PREPARE_MAX, Topic, drain, end_sessions, flood, reasons,
    stop,
};
use crate::flood::{Books, Flood, Manner};
use crate::swarm::Swarm;
use crate::wire;

/// Subscribers that do not read, and those who fill their queues.
pub(super) struct Readers {
    ground: Ground,
    swarm: Swarm,
    listeners: Listeners,
    publishers: Swarm,
    flood: Flood<Topic>,
}

impl Readers {
    pub(super) fn prepare(ground: Ground, publishers: usize, readers: usize) -> io::Result<Self> {
        let mut swarm = Swarm::new(ground.address)?;
        let mut listeners = Listeners::new(vec![vec!["flood/#".to_owned()]; readers], 1);
        for n in 0..readers {
            swarm.open(n, wire::connect(&format!("deaf-{n}"), false, true))?;
        }
        swarm.run(PREPARE_MAX, &mut listeners, |all| all.answered == readers)?;
        for n in 0..readers {
            swarm.set_deaf(n, true, &mut listeners);
        }
        let manner = Manner {
            qos: 1,
            is_retained: false,
            window: 16,
            payload_len: 256,
            most: usize::MAX,
        };
        let topic: Topic = Box::new(|n, _, topic| topic.push_str(&format!("flood/{n}")));
        let (publishers, flood) = flood(ground.address, publishers, manner, topic)?;
        Ok(Self {
            ground,
            swarm,
            listeners,
            publishers,
            flood,
        })
    }
}

impl Attack for Readers {
    fn attack(&mut self) -> io::Result<()> {
        self.publishers
            .run(self.ground.most, &mut self.flood, |_| false)?;
        stop(&mut self.publishers, &mut self.flood)
    }

    fn relieve(&mut self) -> io::Result<Outcome> {
        let readers = self.listeners.filters.len();
        // A PUBLISH without an answer may be on its way to the others; its publisher is gone.
        self.publishers = Swarm::new(self.ground.address)?;
        for n in 0..readers {
            self.swarm.set_deaf(n, false, &mut self.listeners);
        }
        drain(&mut self.swarm, &mut self.listeners, "deaf")?;
        let lost = self
            .listeners
            .seen
            .iter()
            .map(|seen| self.flood.acknowledged.missing_in(seen));
        let outcome = Outcome {
            acknowledged: self.flood.acknowledged_count,
            lost: lost.sum(),
            refused: self.flood.refused,
            took: None,
            note: reasons(&self.flood),
        };
        self.swarm = Swarm::new(self.ground.address)?;
        end_sessions(self.ground.address, "deaf", readers)?;
        Ok(outcome)
    }
}

/// Sessions that are away, and a flood into their queues.
pub(super) struct Offline {
    ground: Ground,
    publishers: Swarm,
    flood: Flood<Topic>,
    sessions: usize,
    took: Option<Duration>,
}

impl Offline {
    const PUBLISHERS: usize = 8;

    pub(super) fn prepare(ground: Ground, sessions: usize) -> io::Result<Self> {
        let mut swarm = Swarm::new(ground.address)?;
        let filters = (0..sessions).map(|n| vec![format!("queue/{n}")]);
        let mut listeners = Listeners::new(filters.collect(), 1);
        for n in 0..sessions {
            swarm.open(n, wire::connect(&format!("away-{n}"), false, true))?;
        }
        swarm.run(PREPARE_MAX, &mut listeners, |all| all.answered == sessions)?;
        let manner = Manner {
            qos: 1,
            is_retained: false,
            window: 256,
            payload_len: 64,
            most: usize::MAX,
        };
        let topic: Topic = Box::new(move |n, number, topic| {
            let session = (number * Self::PUBLISHERS + n) % sessions;
            topic.push_str(&format!("queue/{session}"));
        });
        let (publishers, flood) = flood(ground.address, Self::PUBLISHERS, manner, topic)?;
        Ok(Self {
            ground,
            publishers,
            flood,
            sessions,
            took: None,
        })
    }
}

impl Attack for Offline {
    fn attack(&mut self) -> io::Result<()> {
        let most = self.ground.most;
        self.publishers.run(most, &mut self.flood, |_| false)?;
        stop(&mut self.publishers, &mut self.flood)?;
        self.publishers = Swarm::new(self.ground.address)?;
        Ok(())
    }

    fn relieve(&mut self) -> io::Result<Outcome> {
        let mut swarm = Swarm::new(self.ground.address)?;
        let mut listeners = Listeners::new(vec![Vec::new(); self.sessions], 1);
        let began = Instant::now();
        drain(&mut swarm, &mut listeners, "away")?;
        self.took = Some(listeners.at - began);
        // Each message was for one of them.
        let mut all = Books::default();
        for seen in &listeners.seen {
            all.add(seen);
        }
        let outcome = Outcome {
            acknowledged: self.flood.acknowledged_count,
            lost: self.flood.acknowledged.missing_in(&all),
            refused: self.flood.refused,
            took: self.took,
            note: format!("{}; the time is that of the drain", reasons(&self.flood)),
        };
        drop(swarm);
        end_sessions(self.ground.address, "away", self.sessions)?;
        Ok(outcome)
    }
}
