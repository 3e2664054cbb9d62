//! What fails, when, and how the Server comes back.
//!
//! Owns: the kinds of faults, starts of the Server. Does not own: what a crash leaves of a disk (see
//! `store::disk::fault`), cut connections (see `links`). Start reading at [`World::fault`].
//! Invariant: whatever the disk is left with, the Server starts, and has no damage to report.

use std::sync::Arc;

use engine::{Engine, UserTotals, home_shard};
use store::disk::fault::FaultPlan;
use store::{Level, Log, LogError, LogOptions, OpenError, Recovered};

use super::World;
use super::persist::Persist;
use super::turn::{Server, Shard};
use crate::agenda::Event;
use crate::bug::Bug;
use crate::checker::{Checked, violation};
use crate::disk::SimDisk;
use crate::scenario::shard_count;

impl World {
    pub(crate) fn set_next_fault(&mut self) {
        let every = self.scenario.faults.every_micros;
        if every > 0 {
            let after = self.chance.between(every / 4, 2 * every);
            self.agenda.after(after, Event::Fault);
        }
    }

    /// Something fails.
    pub(crate) fn fault(&mut self) -> Checked {
        if !self.is_active() {
            return Ok(());
        }
        self.set_next_fault();
        let weights = self.scenario.faults.weights;
        match self.chance.weighted(&weights) {
            0 => self.cut_power(),
            1 => self.kill(),
            2 => {
                let calls = self.chance.between(1, 60);
                self.plan(FaultPlan {
                    stop_at_call: Some(calls),
                    ..FaultPlan::default()
                });
            }
            3 => {
                let writes = self.chance.between(1, 10);
                self.plan(FaultPlan {
                    write_error_at: Some(writes),
                    ..FaultPlan::default()
                });
            }
            4 => {
                let syncs = self.chance.between(1, 10);
                self.plan(FaultPlan {
                    sync_error_at: Some(syncs),
                    ..FaultPlan::default()
                });
            }
            5 => self.fill_disk(),
            6 => {
                self.figures.slow_disks += 1;
                self.is_slow = true;
                self.heal_later();
            }
            7 => self.cut_some(),
            _ => self.leap(),
        }
        Ok(())
    }

    fn plan(&mut self, plan: FaultPlan) {
        self.say(|| format!("planned: {plan:?}"));
        self.disk.inner.set_plan(plan);
    }

    fn heal_later(&mut self) {
        let after = self.chance.between(5_000, 200_000);
        self.agenda.after(after, Event::Heal);
    }

    /// Nothing fails any more.
    pub(crate) fn heal(&mut self) {
        self.say(|| "what has failed is whole".to_owned());
        self.is_slow = false;
        self.disk.inner.set_plan(FaultPlan::default());
    }

    fn fill_disk(&mut self) {
        self.figures.full_disks += 1;
        let more = self.chance.below(6 * self.scenario.log.segment_bytes);
        let quota_bytes = Some(self.disk.inner.used_bytes() + more);
        self.plan(FaultPlan {
            quota_bytes,
            ..FaultPlan::default()
        });
        self.heal_later();
    }

    fn cut_some(&mut self) {
        let links: Vec<u64> = self.links.keys().copied().collect();
        for link in links {
            if self.chance.one_in(2) {
                self.cut(link);
            }
        }
    }

    /// The machine is suspended, or somebody sets its clock.
    fn leap(&mut self) {
        if self.chance.one_in(2) {
            self.figures.leaps += 1;
            let micros = self.chance.between(100_000, 5_000_000);
            self.agenda.leap(micros);
            // What Clients have still to do is not shorter for it.
            self.scenario.active_micros += micros;
        } else {
            self.figures.clock_jumps += 1;
            let forward = self.chance.below(20);
            let seconds = i64::try_from(forward).unwrap_or(0) - 10;
            self.jumped_seconds += seconds.max(0).unsigned_abs();
            self.say(|| format!("the calendar jumps by {seconds} s"));
            self.agenda.jump_calendar(1000 * seconds);
        }
    }

    /// Whichever crash this scenario allows.
    pub(crate) fn crash_at_will(&mut self) {
        if self.scenario.level == Level::Synced && self.chance.one_in(2) {
            self.cut_power();
        } else {
            self.kill();
        }
    }

    fn cut_power(&mut self) {
        self.figures.power_cuts += 1;
        self.say(|| "power cut".to_owned());
        let seed = self.chance.next();
        let left = self.disk.inner.crash(seed);
        self.end_process(SimDisk::new(left, self.bug));
    }

    fn kill(&mut self) {
        self.figures.kills += 1;
        self.say(|| "killed".to_owned());
        let left = self.disk.inner.kill();
        self.end_process(SimDisk::new(left, self.bug));
    }

    /// What the store says makes the process end: it is never tried again.
    pub(crate) fn on_store_error(&mut self, error: &LogError) -> Checked {
        self.say(|| format!("the store has failed: {error}"));
        if self.disk.inner.is_stopped() {
            self.figures.power_cuts_in_calls += 1;
            self.cut_power();
            return Ok(());
        }
        let LogError::Disk { doing, error } = error else {
            return violation("the log is used after it has failed");
        };
        if error.kind() == std::io::ErrorKind::StorageFull {
            self.kill();
            return Ok(());
        }
        let is_planned = self.disk.inner.has_plan();
        if !is_planned {
            return violation(format!(
                "the disk is whole, and the store fails: {doing}: {error}"
            ));
        }
        if doing.starts_with("sync") {
            self.figures.sync_errors += 1;
        } else {
            self.figures.write_errors += 1;
        }
        self.kill();
        Ok(())
    }

    fn end_process(&mut self, disk: SimDisk) {
        self.server = None;
        self.process += 1;
        self.disk = disk;
        self.end_all_links();
        let after = self.chance.between(100, 30_000);
        self.agenda.after(after, Event::Start);
    }

    /// The Server starts, if it does not run.
    pub(crate) fn start(&mut self) -> Checked {
        if self.server.is_some() {
            return Ok(());
        }
        if self.is_active() && self.chance.one_in(4) && self.process > 1 {
            let calls = self.chance.between(1, 80);
            let stop_at_call = Some(calls).filter(|_| self.scenario.level == Level::Synced);
            self.plan(FaultPlan {
                stop_at_call,
                ..FaultPlan::default()
            });
        }
        let options = LogOptions {
            now: self.agenda.calendar(),
            random: [self.chance.next(), self.chance.next()],
            ..self.scenario.log.clone()
        };
        match Log::open(self.disk.clone(), options) {
            Ok((log, recovered)) => self.serve(log, recovered),
            Err(error) => self.on_open_error(&error),
        }
    }

    fn on_open_error(&mut self, error: &OpenError) -> Checked {
        if self.disk.inner.is_stopped() {
            self.figures.crashes_in_recovery += 1;
            self.cut_power();
            return Ok(());
        }
        if let OpenError::Disk { doing, error } = error
            && self.disk.inner.has_plan()
        {
            self.say(|| format!("no start: {doing}: {error}"));
            self.kill();
            return Ok(());
        }
        violation(format!("the Server does not start: {error}"))
    }

    fn serve(&mut self, log: Log<SimDisk>, found: Recovered) -> Checked {
        let report = &found.report;
        self.say(|| format!("started: {report:?}"));
        for session in &found.sessions {
            self.say(|| {
                let record = &session.session;
                let will = session
                    .will
                    .as_ref()
                    .map(|will| (&will.message.payload, will.delay_seconds));
                format!(
                    "restored: {record:?}, queue {:?}, inbound {:?}, will {will:?}",
                    session.queue, session.inbound
                )
            });
        }
        if let Some(damage) = report.damage.first() {
            return violation(format!("damage where there was none: {damage}"));
        }
        self.figures.restarts += u64::from(report.records > 0);
        self.figures.torn_tails += u64::from(report.torn_tail.is_some());
        self.figures.segments_by_hint += report.segments_by_hint;
        let count = shard_count(&mut self.chance);
        self.figures.shard_counts_changed += u64::from(count != self.scenario.shards);
        self.scenario.shards = count;
        let engines = self.restore(count, &found);
        let shards = usize::from(count);
        self.server = Some(Server {
            shards: engines.into_iter().map(Shard::new).collect(),
            persist: Persist::new(log, shards),
            rings: (0..shards)
                .map(|_| (0..shards).map(|_| Default::default()).collect())
                .collect(),
            is_serving: self.bug == Some(Bug::ServeBeforeReady),
            ring_messages: 0,
        });
        self.wake_all();
        self.rest_for(1_000_000);
        Ok(())
    }

    /// The engines, each with the Sessions it is the home of.
    fn restore(&self, count: u16, found: &Recovered) -> Vec<Engine> {
        let now = self.agenda.instant();
        let seed = self.scenario.seed;
        let mut engines = Vec::new();
        let user_totals = Arc::<UserTotals>::default();
        for shard in 0..count {
            let mut config = self.scenario.engine(shard, count);
            config.user_totals = Arc::clone(&user_totals);
            config.started_at = self.agenda.calendar();
            config.first_session = Bug::next_session(self.bug, found.next_session);
            let mut engine = Engine::new(config, now);
            let is_home = |client_id: &str| home_shard(client_id, seed, count).0 == shard;
            let sessions = found.sessions.iter();
            let sessions = sessions.filter(|found| is_home(&found.session.client_id));
            engine.restore(sessions.cloned().collect(), found.retained.clone(), now);
            engines.push(engine);
        }
        engines
    }
}
