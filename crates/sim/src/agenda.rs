//! Virtual time and what is to happen in it.
//!
//! Owns: [`Agenda`], [`Event`]. Does not own: what an event does (see `world`). Start reading at [`Agenda::pop`].
//! Invariant: time never goes back; events of the same time come in the order in which they were set.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use store::{Load, UnixMillis};

/// Microseconds since the beginning of a run.
pub(crate) type Micros = u64;

/// Something that happens at a time. What belongs to a process of the Server carries its number and is nothing
/// once that process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Event {
    /// A shard wakes.
    Turn { process: u32, shard: usize },
    /// The persist thread writes what there is.
    Write { process: u32 },
    /// It has slept long enough.
    Rested { process: u32 },
    /// Its sync returns.
    Sync { process: u32 },
    /// The read thread answers a shard.
    Load {
        process: u32,
        shard: usize,
        number: usize,
    },
    /// The first packet that is on its way to the Server arrives.
    ToServer { link: u64 },
    /// The first packet that is on its way to a Client arrives.
    ToClient { link: u64 },
    /// The Server notices that a connection is gone.
    ServerNotices { link: u64 },
    /// The Client does.
    ClientNotices { link: u64 },
    /// A Client does something of its own.
    Act { peer: usize },
    /// Something fails.
    Fault,
    /// What has failed is whole again.
    Heal,
    /// The Server starts.
    Start,
}

#[derive(Debug)]
pub(crate) struct Agenda {
    now: Micros,
    set: u64,
    events: BinaryHeap<Reverse<(Micros, u64, Event)>>,
    origin: Instant,
    /// How far the calendar is from its beginning and `now`, in milliseconds.
    calendar_jump: i64,
    /// Loads under way, which are too large for an event.
    loads: Vec<Load>,
}

impl Agenda {
    pub(crate) fn new() -> Self {
        Self {
            now: 0,
            set: 0,
            events: BinaryHeap::new(),
            origin: origin(),
            calendar_jump: 0,
            loads: Vec::new(),
        }
    }

    pub(crate) const fn now(&self) -> Micros {
        self.now
    }

    /// The same as engines want it.
    pub(crate) fn instant(&self) -> Instant {
        self.origin + Duration::from_micros(self.now)
    }

    /// What the calendar says.
    pub(crate) const fn calendar(&self) -> UnixMillis {
        let millis = BEGAN_AT_MILLIS + self.now / 1000;
        UnixMillis(millis.saturating_add_signed(self.calendar_jump))
    }

    /// The calendar is set forward or back.
    pub(crate) const fn jump_calendar(&mut self, millis: i64) {
        self.calendar_jump += millis;
    }

    /// Everything stands still for this long, as in a machine that is suspended.
    pub(crate) const fn leap(&mut self, micros: Micros) {
        self.now += micros;
    }

    /// Sets `event` for `micros` from now.
    pub(crate) fn after(&mut self, micros: Micros, event: Event) {
        self.at(self.now + micros, event);
    }

    pub(crate) fn at(&mut self, time: Micros, event: Event) {
        self.set += 1;
        self.events.push(Reverse((time, self.set, event)));
    }

    /// Sets the answer of a load.
    pub(crate) fn load_after(&mut self, micros: Micros, process: u32, shard: usize, load: Load) {
        let number = self.loads.len();
        self.loads.push(load);
        let event = Event::Load {
            process,
            shard,
            number,
        };
        self.after(micros, event);
    }

    pub(crate) fn load(&self, number: usize) -> Option<Load> {
        self.loads.get(number).copied()
    }

    /// The next event; time goes on to it.
    pub(crate) fn pop(&mut self) -> Option<Event> {
        let Reverse((time, _, event)) = self.events.pop()?;
        self.now = self.now.max(time);
        Some(event)
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "virtual time needs one instant to begin from; only differences are looked at"
)]
fn origin() -> Instant {
    // Far enough from the beginning of this machine's time that intervals fit before it.
    Instant::now() + Duration::from_secs(1_000_000_000)
}

/// The calendar when a run begins.
const BEGAN_AT_MILLIS: u64 = 1_800_000_000_000;
