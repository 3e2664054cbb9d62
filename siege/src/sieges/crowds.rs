//! Crowds: of filters, of clients that return, and of exchanges and packets that never end.
//!
//! Owns: [`Filters`], [`Reconnect`], [`Unreleased`], [`Connects`]. Does not own: messages that are owed.
//! Start reading at [`Filters`]. Invariant: nothing of them is kept by this side.

use std::io;
use std::time::{Duration, Instant};

use super::{Attack, Ground, Listeners, Outcome, PREPARE_MAX, end_sessions};
use crate::swarm::{Role, Swarm};
use crate::wire;

/// Clients with many wildcards.
pub(super) struct Filters {
    ground: Ground,
    swarm: Swarm,
    listeners: Listeners,
    took: Option<Duration>,
}

impl Filters {
    const EACH: usize = 500;

    pub(super) fn prepare(ground: Ground, clients: usize) -> io::Result<Self> {
        let of = |n: usize| {
            (0..Self::EACH)
                .map(|k| format!("site/{n}/+/device-{k}/#"))
                .collect()
        };
        Ok(Self {
            ground,
            swarm: Swarm::new(ground.address)?,
            listeners: Listeners::new((0..clients).map(of).collect(), 1),
            took: None,
        })
    }
}

impl Attack for Filters {
    fn attack(&mut self) -> io::Result<()> {
        let began = Instant::now();
        let clients = self.listeners.filters.len();
        for n in 0..clients {
            self.swarm
                .open(n, wire::connect(&format!("filters-{n}"), true, false))?;
        }
        let all = |listeners: &Listeners| listeners.answered >= clients * Self::EACH;
        if self.swarm.run(self.ground.most, &mut self.listeners, all)? {
            self.took = Some(began.elapsed());
        }
        Ok(())
    }

    fn relieve(&mut self) -> io::Result<Outcome> {
        self.swarm = Swarm::new(self.ground.address)?;
        Ok(Outcome {
            acknowledged: self.listeners.answered as u64 - self.listeners.refused,
            refused: self.listeners.refused,
            took: self.took,
            ..Outcome::default()
        })
    }
}

/// Sessions that come back all at once.
pub(super) struct Reconnect {
    ground: Ground,
    swarm: Swarm,
    listeners: Listeners,
    took: Option<Duration>,
    attempts: usize,
}

impl Reconnect {
    pub(super) fn prepare(ground: Ground, sessions: usize) -> io::Result<Self> {
        let mut swarm = Swarm::new(ground.address)?;
        let filters = (0..sessions).map(|n| vec![format!("own/{n}")]);
        let mut listeners = Listeners::new(filters.collect(), 1);
        // Not all at once yet.
        for n in 0..sessions {
            swarm.open(n, wire::connect(&format!("returns-{n}"), false, true))?;
            if n % 500 == 499 {
                swarm.run(PREPARE_MAX, &mut listeners, |all| all.answered > n)?;
            }
        }
        swarm.run(PREPARE_MAX, &mut listeners, |all| all.answered >= sessions)?;
        Ok(Self {
            ground,
            swarm,
            listeners,
            took: None,
            attempts: 0,
        })
    }
}

impl Attack for Reconnect {
    fn attack(&mut self) -> io::Result<()> {
        let sessions = self.listeners.filters.len();
        self.swarm = Swarm::new(self.ground.address)?;
        self.listeners.answered = 0;
        self.listeners.subscribes = false;
        let began = Instant::now();
        let until = began + self.ground.most;
        while self.listeners.answered < sessions && Instant::now() < until {
            for n in 0..sessions {
                if !self.swarm.is_open(n) {
                    self.swarm
                        .open(n, wire::connect(&format!("returns-{n}"), false, true))?;
                    self.attempts += 1;
                }
            }
            self.swarm
                .turn(Duration::from_millis(10), &mut self.listeners)?;
        }
        if self.listeners.answered >= sessions {
            self.took = Some(began.elapsed());
        }
        Ok(())
    }

    fn relieve(&mut self) -> io::Result<Outcome> {
        let sessions = self.listeners.filters.len();
        self.swarm = Swarm::new(self.ground.address)?;
        end_sessions(self.ground.address, "returns", sessions)?;
        Ok(Outcome {
            acknowledged: self.listeners.answered as u64,
            refused: self.listeners.refused,
            took: self.took,
            note: format!("{} attempts for {sessions} sessions", self.attempts),
            ..Outcome::default()
        })
    }
}

/// QoS 2 messages that are never released.
pub(super) struct Unreleased {
    ground: Ground,
    most: usize,
    sent: usize,
    received: u64,
    ended: u64,
}

impl Unreleased {
    #[expect(clippy::unnecessary_wraps, reason = "as the others")]
    pub(super) fn prepare(ground: Ground, most: usize) -> io::Result<Self> {
        Ok(Self {
            ground,
            most,
            sent: 0,
            received: 0,
            ended: 0,
        })
    }
}

impl Role for Unreleased {
    fn on_packet(&mut self, _: usize, first: u8, _: &[u8], _: &mut Vec<u8>) {
        self.received += u64::from(first >> 4 == 5);
    }

    fn on_drained(&mut self, _: usize, out: &mut Vec<u8>) {
        for _ in 0..100 {
            if self.sent < self.most {
                self.sent += 1;
                let id = u16::try_from(self.sent % 65_535).unwrap_or_default() + 1;
                wire::publish(out, "unreleased", 2, id, false, &[b'x'; 256]);
            }
        }
    }

    fn on_end(&mut self, _: usize) {
        self.ended += 1;
    }
}

impl Attack for Unreleased {
    fn attack(&mut self) -> io::Result<()> {
        let mut swarm = Swarm::new(self.ground.address)?;
        let until = Instant::now() + self.ground.most;
        // It comes again whenever it is thrown out.
        while self.sent < self.most && Instant::now() < until {
            if !swarm.is_open(0) {
                swarm.open(0, wire::connect("unreleased-0", false, true))?;
            }
            swarm.turn(Duration::from_millis(10), self)?;
        }
        Ok(())
    }

    fn relieve(&mut self) -> io::Result<Outcome> {
        end_sessions(self.ground.address, "unreleased", 1)?;
        Ok(Outcome {
            acknowledged: self.received,
            note: format!("{} sent, disconnected {} times", self.sent, self.ended),
            ..Outcome::default()
        })
    }
}

/// CONNECTs that are never complete.
pub(super) struct Connects {
    ground: Ground,
    count: usize,
    hello: Vec<u8>,
    opened: usize,
}

struct Silent;

impl Role for Silent {
    fn on_packet(&mut self, _: usize, _: u8, _: &[u8], _: &mut Vec<u8>) {}
}

impl Connects {
    #[expect(clippy::unnecessary_wraps, reason = "as the others")]
    pub(super) fn prepare(ground: Ground, count: usize, len: usize) -> io::Result<Self> {
        // All of a long user name and password but the last byte.
        let mut hello = vec![0x10];
        wire::put_length(&mut hello, len - 8);
        hello.extend_from_slice(b"\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x06client");
        hello.resize(len - 8, b'x');
        Ok(Self {
            ground,
            count,
            hello,
            opened: 0,
        })
    }
}

impl Attack for Connects {
    fn attack(&mut self) -> io::Result<()> {
        let mut swarm = Swarm::new(self.ground.address)?;
        let until = Instant::now() + self.ground.most;
        while Instant::now() < until {
            for n in 0..self.count {
                if !swarm.is_open(n) {
                    swarm.open(n, self.hello.clone())?;
                    self.opened += 1;
                }
                if n % 100 == 0 {
                    swarm.turn(Duration::ZERO, &mut Silent)?;
                }
            }
            swarm.turn(Duration::from_millis(10), &mut Silent)?;
        }
        Ok(())
    }

    fn relieve(&mut self) -> io::Result<Outcome> {
        Ok(Outcome {
            note: format!("{} opened", self.opened),
            ..Outcome::default()
        })
    }
}
