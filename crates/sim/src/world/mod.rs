//! A Server, its disk, its network and its Clients in virtual time, all from one seed.
//!
//! Owns: [`World`], the loop over events, how a run ends. Does not own: what each side does (see the files of this
//! folder), what is right (see `checker`). Start reading at [`World::run`].
//! Invariant: the same seed gives the same run, to the last byte.

mod answers;
mod faults;
mod links;
mod peers;
mod persist;
mod turn;

use std::collections::BTreeMap;

use store::disk::fault::{FaultDisk, FaultPlan};

use crate::agenda::{Agenda, Event, Micros};
use crate::bug::Bug;
use crate::chance::Chance;
use crate::checker::{Checked, Checker, Outcome, violation};
use crate::disk::SimDisk;
use crate::figures::Figures;
use crate::scenario::Scenario;
use links::Link;
use peers::Peer;
use turn::Server;

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Clients do things of their own, and things fail.
    Active,
    /// Nothing fails any more; everyone returns and finishes. Perhaps there is one more crash before the end.
    Finishing { crashes_left: u32 },
    /// A new Client looks at the retained messages.
    Looking,
}

/// Everything there is.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) scenario: Scenario,
    pub(crate) chance: Chance,
    pub(crate) agenda: Agenda,
    pub(crate) checker: Checker,
    pub(crate) figures: Figures,
    pub(crate) bug: Option<Bug>,
    /// Counts what a bug has seen.
    pub(crate) spoiled: u64,
    pub(crate) server: Option<Server>,
    /// Number of the process that runs, or of the next one.
    pub(crate) process: u32,
    pub(crate) disk: SimDisk,
    pub(crate) links: BTreeMap<u64, Link>,
    next_link: u64,
    pub(crate) peers: Vec<Peer>,
    phase: Phase,
    finishing_since: Micros,
    /// Since when nothing moves.
    quiet_since: Option<Micros>,
    /// Retained messages that the Client of the end was given.
    found: BTreeMap<String, usize>,
    pub(crate) is_slow: bool,
    /// How far the calendar has been set forward, in seconds.
    pub(crate) jumped_seconds: u64,
    trace: Option<Vec<String>>,
}

impl World {
    pub(crate) fn new(seed: u64, bug: Option<Bug>, traces: bool) -> Self {
        let mut chance = Chance::new(seed);
        let scenario = Scenario::draw(seed, &mut chance);
        let disk = FaultDisk::new(chance.next(), FaultPlan::default());
        let mut peers: Vec<Peer> = scenario.roles.iter().cloned().map(Peer::new).collect();
        peers.push(Peer::new(peers::reader()));
        Self {
            checker: Checker::new(peers.len()),
            chance,
            agenda: Agenda::new(),
            figures: Figures::default(),
            bug,
            spoiled: 0,
            server: None,
            process: 1,
            disk: SimDisk::new(disk, bug),
            links: BTreeMap::new(),
            next_link: 1,
            peers,
            phase: Phase::Active,
            finishing_since: 0,
            quiet_since: None,
            found: BTreeMap::new(),
            is_slow: false,
            jumped_seconds: 0,
            trace: traces.then(Vec::new),
            scenario,
        }
    }

    /// Runs to the end, or to the first thing that is not as it should be.
    pub(crate) fn run(&mut self) -> Checked {
        self.begin();
        let result = self.run_all();
        self.count_up();
        result
    }

    fn run_all(&mut self) -> Checked {
        while let Some(event) = self.agenda.pop() {
            self.figures.events += 1;
            if self.figures.events > EVENTS_MAX {
                return violation("it never ends");
            }
            self.handle(event)?;
            if self.phase == Phase::Active {
                self.judge_active();
            } else if self.is_finished()? {
                return Ok(());
            }
        }
        violation("nothing happens any more, and not everything is finished")
    }

    fn begin(&mut self) {
        let scenario = format!("{:?}", self.scenario);
        self.say(|| scenario);
        self.agenda.after(0, Event::Start);
        for peer in 0..self.peers.len() - 1 {
            let after = self.chance.below(10_000);
            self.agenda.after(after, Event::Act { peer });
        }
        self.set_next_fault();
    }

    fn handle(&mut self, event: Event) -> Checked {
        match event {
            Event::Turn { process, shard } => self.turn(process, shard),
            Event::Write { process } => self.on_write(process),
            Event::Sync { process } => self.on_sync(process),
            Event::Load {
                process,
                shard,
                number,
            } => self.on_load(process, shard, number),
            Event::ToClient { link } => self.on_to_client(link),
            Event::ClientNotices { link } => {
                self.on_client_notices(link);
                Ok(())
            }
            Event::Start => self.start(),
            Event::Fault => self.fault(),
            Event::Rested { process } => {
                self.on_rested(process);
                Ok(())
            }
            Event::ToServer { link } => {
                self.on_to_server(link);
                Ok(())
            }
            Event::ServerNotices { link } => {
                self.on_server_notices(link);
                Ok(())
            }
            Event::Act { peer } => {
                self.act(peer);
                Ok(())
            }
            Event::Heal => {
                self.heal();
                Ok(())
            }
        }
    }

    /// Clients have done enough: what has failed is mended, and everyone finishes.
    fn judge_active(&mut self) {
        if self.agenda.now() < self.scenario.active_micros {
            return;
        }
        let crashes_left = self.chance.pick(&[0, 1, 1, 2]);
        self.finish_after(crashes_left);
        for peer in 0..self.peers.len() - 1 {
            self.agenda.after(0, Event::Act { peer });
        }
    }

    fn finish_after(&mut self, crashes_left: u32) {
        self.heal();
        self.say(|| "everyone finishes".to_owned());
        self.phase = Phase::Finishing { crashes_left };
        self.finishing_since = self.agenda.now();
    }

    pub(crate) fn is_active(&self) -> bool {
        self.phase == Phase::Active
    }

    /// Whether the run is over. Goes on to what is next when nothing moves any more.
    fn is_finished(&mut self) -> Checked<bool> {
        let now = self.agenda.now();
        if !self.is_quiet() {
            self.quiet_since = None;
            let elapsed = now - self.finishing_since;
            return if elapsed > FINISH_MICROS_MAX {
                violation(format!("it does not finish: {}", self.describe()))
            } else {
                Ok(false)
            };
        }
        let since = *self.quiet_since.get_or_insert(now);
        if now - since < QUIET_MICROS {
            return Ok(false);
        }
        self.quiet_since = None;
        match self.phase {
            Phase::Active => Ok(false),
            Phase::Finishing { crashes_left } => {
                self.checker.check_all()?;
                self.check_memory()?;
                if crashes_left > 0 {
                    self.finish_after(crashes_left - 1);
                    self.crash_at_will();
                } else {
                    self.phase = Phase::Looking;
                    self.finishing_since = now;
                    self.connect(self.peers.len() - 1, true);
                }
                Ok(false)
            }
            Phase::Looking => {
                let found = std::mem::take(&mut self.found);
                self.checker.check_retained(&found)?;
                self.check_disk()?;
                Ok(true)
            }
        }
    }

    /// Whether everyone is connected, and nothing is on its way.
    fn is_quiet(&self) -> bool {
        let is_looking = self.phase == Phase::Looking;
        let peers = self.peers.len() - usize::from(!is_looking);
        let mut all = self.peers.iter().take(peers);
        self.server.as_ref().is_some_and(Server::is_quiet)
            && self.links.values().all(Link::is_quiet)
            && all.all(Peer::is_quiet)
    }

    /// Queues are empty, and engines know it.
    fn check_memory(&self) -> Checked {
        for shard in self.server.iter().flat_map(|server| &server.shards) {
            let counters = shard.engine.counters();
            if counters.queued_messages != 0 || counters.queued_bytes != 0 {
                return violation(format!(
                    "{} messages of {} bytes are queued for nobody",
                    counters.queued_messages, counters.queued_bytes
                ));
            }
        }
        Ok(())
    }

    /// The log has shrunk to what counts.
    fn check_disk(&mut self) -> Checked {
        let Some(server) = &self.server else {
            return Ok(());
        };
        let status = server.persist.log().status();
        self.figures.segments_cleaned += status.segments as u64;
        let options = &self.scenario.log;
        let of_live = status.live_bytes * options.clean_percent / 100;
        let allowed = of_live + (options.clean_segments + 3) * options.segment_bytes.max(16_384);
        if status.bytes > allowed {
            return violation(format!(
                "the log has {} bytes, {} of which count",
                status.bytes, status.live_bytes
            ));
        }
        Ok(())
    }

    fn count_up(&mut self) {
        let messages = &self.checker.messages;
        let of = |fits: &dyn Fn(&Outcome) -> bool| {
            let fits = |message: &&crate::checker::Published| fits(&message.outcome);
            messages.iter().filter(fits).count() as u64
        };
        self.figures.runs = 1;
        self.figures.virtual_seconds = self.agenda.now() / 1_000_000;
        self.figures.messages = messages.len() as u64;
        self.figures.deliveries = self.checker.deliveries;
        self.figures.acknowledged = of(&|outcome| matches!(outcome, Outcome::Acknowledged(_)));
        self.figures.refused = of(&|outcome| *outcome == Outcome::Refused);
    }

    pub(crate) fn shard_count(&self) -> usize {
        self.server.as_ref().map_or(0, |server| server.shards.len())
    }

    /// Adds a line to the trace, if there is one.
    pub(crate) fn say(&mut self, what: impl FnOnce() -> String) {
        let now = self.agenda.now();
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>10} us  {}", now, what()));
        }
    }

    pub(crate) fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }

    /// What is not finished.
    fn describe(&self) -> String {
        let peers = self.peers.iter().filter(|peer| !peer.is_quiet());
        let peers: Vec<_> = peers.map(Peer::describe).collect();
        let links = self.links.iter().filter(|(_, link)| !link.is_quiet());
        let links: Vec<_> = links
            .map(|(id, link)| format!("link {id}: {link:?}"))
            .collect();
        let server = match &self.server {
            None => "no server".to_owned(),
            Some(server) if server.is_quiet() => "server quiet".to_owned(),
            Some(server) => format!("server busy, accepting: {}", server.is_serving),
        };
        format!("{server}; {}; {}", peers.join("; "), links.join("; "))
    }
}

/// A run with more has lost its way.
const EVENTS_MAX: u64 = 2_000_000;
/// Nothing moves any more when nothing has for this long.
const QUIET_MICROS: Micros = 5_000;
/// Everything is finished in this time once nothing fails any more.
const FINISH_MICROS_MAX: Micros = 120_000_000;
