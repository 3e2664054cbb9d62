//! The persist thread: what all shards have left is written, synced once, and told back.
//!
//! Owns: the log while the Server runs, the order write - sync - tell, the pace of cleaning.
//! Does not own: bytes (see `store::Log`), what waits for them (see `engine`).
//! Start reading at [`Writer::run`]. Invariants: nothing is called durable before the sync that covers it has
//! returned; a failed write or sync is never tried again: nothing is told any more, and the Server stops.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use store::disk::Disk;
use store::{Level, Log, LogError, LogStatus, Seq};

use super::alarming::Alarming;
use super::exchange::{Exchange, Group, Request, Taken};
use super::figures::{Figures, Measured};
use crate::shard::Shared;

/// The persist thread.
#[derive(Debug)]
pub(super) struct Writer<D: Disk> {
    log: Log<D>,
    exchange: Arc<Exchange>,
    figures: Arc<Figures>,
    shared: Arc<Shared>,
    group: Group,
    /// Up to where each shard's batches are written.
    written: Vec<Seq>,
    /// Up to where they are durable.
    durable: Vec<Seq>,
    /// Since when something is written and not synced.
    unsynced_since: Option<Instant>,
    /// The server stops: nothing is gained by waiting for more.
    is_hurried: bool,
    /// Whether shards wait for what is written, not only for what is durable.
    tells_written: bool,
    /// Whether the log has more to clean than one group's share.
    has_more_to_clean: bool,
    measured: Measured,
    looked_at: Option<Instant>,
    alarming: Alarming<D>,
    /// How much damage, and how many lost messages, alarms were raised for.
    damage_known: usize,
    unreadable_known: u64,
}

impl<D: Disk> Writer<D> {
    pub(super) fn new(
        log: Log<D>,
        exchange: Arc<Exchange>,
        figures: Arc<Figures>,
        shared: Arc<Shared>,
        alarming: Alarming<D>,
        tells_written: bool,
    ) -> Self {
        let none = vec![Seq(0); shared.mailboxes.len()];
        Self {
            log,
            exchange,
            figures,
            shared,
            group: Group {
                last: none.clone(),
                ..Group::default()
            },
            written: none.clone(),
            durable: none,
            unsynced_since: None,
            is_hurried: false,
            tells_written,
            has_more_to_clean: false,
            measured: Measured::default(),
            looked_at: None,
            alarming,
            damage_known: 0,
            unreadable_known: 0,
        }
    }

    /// Runs until the exchange is closed and everything in it is durable, or the disk fails.
    pub(super) fn run(mut self) {
        let ended = catch_unwind(AssertUnwindSafe(|| self.write_all()));
        let reason = match ended {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "the persist thread has panicked".to_owned(),
        };
        self.exchange.fail(&reason);
        self.shared.fail_store(&reason);
    }

    fn write_all(&mut self) -> Result<(), LogError> {
        self.look()?;
        loop {
            let patience = self.patience();
            let taken = self.exchange.take(&mut self.group, patience);
            if taken.was_pressed {
                self.wake_all();
            }
            let accepted_bytes = self.group.encoded.bytes().len();
            self.write_group()?;
            let hurries = |request: &Request| matches!(request, Request::Hurry);
            self.is_hurried |= taken.requests.iter().any(hurries);
            if self.is_sync_due(&taken) {
                self.sync()?;
            }
            self.group.clear();
            self.answer(taken.requests)?;
            if taken.is_closed {
                return Ok(());
            }
            self.clean(accepted_bytes)?;
            self.look()?;
        }
    }

    /// How long to wait for a batch before looking after what is left.
    fn patience(&self) -> Duration {
        if self.has_more_to_clean {
            return CLEAN_PAUSE;
        }
        match self.unsynced_since {
            Some(_) if self.is_hurried => Duration::ZERO,
            Some(since) => UNSYNCED_MAX.saturating_sub(since.elapsed()),
            None if self.exchange.is_low() => LOOK_INTERVAL,
            None => IDLE_PAUSE,
        }
    }

    fn write_group(&mut self) -> Result<(), LogError> {
        if self.group.encoded.is_empty() {
            return Ok(());
        }
        self.log.write(&self.group.encoded)?;
        // The log has asked for the free space if it has begun a segment.
        self.judge_space();
        self.unsynced_since.get_or_insert_with(Instant::now);
        for (shard, last) in self.group.last.iter().enumerate() {
            let Some(written) = self.written.get_mut(shard).filter(|_| last.0 > 0) else {
                continue;
            };
            *written = *last;
            self.exchange.set_written(shard, *last);
            if self.tells_written {
                wake(&self.shared, shard);
            }
        }
        Ok(())
    }

    /// Whether somebody waits for a sync, or what is written has waited long enough.
    fn is_sync_due(&self, taken: &Taken) -> bool {
        let Some(since) = self.unsynced_since else {
            return false;
        };
        self.group.encoded.level() == Level::Synced
            || taken.is_closed
            || self.is_hurried
            || since.elapsed() >= UNSYNCED_MAX
    }

    /// Makes durable what is written, and tells the shards whose batches that were.
    fn sync(&mut self) -> Result<(), LogError> {
        self.log.sync()?;
        self.unsynced_since = None;
        let shards = self.written.iter().zip(&mut self.durable).enumerate();
        for (shard, (written, durable)) in
            shards.filter(|(_, (written, durable))| *written > *durable)
        {
            self.measured.batches += written.0 - durable.0;
            *durable = *written;
            self.exchange.set_durable(shard, *written);
            wake(&self.shared, shard);
        }
        self.measured.groups += 1;
        let waited = self
            .group
            .began
            .map_or(Duration::ZERO, |began| began.elapsed());
        self.measured.lag_max = self.measured.lag_max.max(waited);
        Ok(())
    }

    /// Moves live records out of the oldest segments, at the pace at which new ones come.
    fn clean(&mut self, accepted_bytes: usize) -> Result<(), LogError> {
        let budget = match accepted_bytes {
            // Nobody is in a hurry.
            0 => CLEAN_BYTES_MAX,
            accepted => (2 * accepted).min(CLEAN_BYTES_MAX),
        };
        let cleaned = self.log.clean(budget as u64)?;
        self.has_more_to_clean = cleaned.has_more;
        if cleaned.moved_bytes > 0 || cleaned.segments > 0 {
            // Only when that is durable, the space is given back.
            self.unsynced_since.get_or_insert_with(Instant::now);
        }
        Ok(())
    }

    fn answer(&mut self, requests: Vec<Request>) -> Result<(), LogError> {
        for request in requests {
            match request {
                Request::Hold(answer) => {
                    let names = self.log.seal_for_backup()?;
                    if answer.send(Ok(names)).is_err() {
                        self.log.release_backup()?;
                    }
                }
                // Minded already.
                Request::Hurry => {}
                Request::Release => self.log.release_backup()?,
                Request::Raise(text) => self.alarming.raise(&text),
                Request::Acknowledge(answer) => {
                    let done = self.alarming.acknowledge();
                    let done = done.map(|alarms| super::texts(&alarms));
                    // Who asked may be gone.
                    answer.send(done.map_err(|error| error.to_string())).ok();
                }
            }
        }
        Ok(())
    }

    /// Looks at the disk and the log, now and then, for `$SYS` and for shards that must not fill the disk.
    fn look(&mut self) -> Result<(), LogError> {
        let now = Instant::now();
        let elapsed = self.looked_at.map(|at| now.duration_since(at));
        if elapsed.is_some_and(|elapsed| elapsed < LOOK_INTERVAL) {
            return Ok(());
        }
        self.looked_at = Some(now);
        self.log.tick(super::unix_millis())?;
        let status = self.log.status();
        self.judge_damage(&status);
        self.judge_space();
        self.figures.update(&status, &self.measured, elapsed);
        self.measured.lag_max = Duration::ZERO;
        Ok(())
    }

    /// Tells of damage that was found since the start.
    fn judge_damage(&mut self, status: &LogStatus) {
        if status.damage.len() > self.damage_known {
            self.damage_known = status.damage.len();
            self.alarming.refresh();
        }
        if status.messages_unreadable > self.unreadable_known {
            self.unreadable_known = status.messages_unreadable;
            self.alarming.raise(
                "queued messages cannot be read any more and were left out; \
                 `vencejo store check` says where the log is damaged",
            );
        }
    }

    /// Lets all shards know when the disk begins or ends to be low.
    fn judge_space(&self) {
        if judge_space(&self.exchange, &self.log) {
            self.wake_all();
        }
    }

    fn wake_all(&self) {
        for mailbox in self.shared.mailboxes.iter() {
            mailbox.notify();
        }
    }
}

/// Says whether the disk is low; returns whether that is news.
pub(super) fn judge_space<D: Disk>(exchange: &Exchange, log: &Log<D>) -> bool {
    let is_low = log.is_low();
    let is_news = exchange.set_low(is_low);
    if is_news && is_low {
        tracing::error!(
            bytes = log.free_bytes(),
            error = "the disk runs low",
            "ALARM: messages to be kept are refused until there is room"
        );
    } else if is_news {
        tracing::info!(bytes = log.free_bytes(), "the disk has room again");
    }
    is_news
}

/// Wakes a shard if it sleeps; awake, it looks by itself before it sleeps.
fn wake(shared: &Shared, shard: usize) {
    if let Some(mailbox) = shared.mailboxes.get(shard) {
        mailbox.notify();
    }
}

/// What nobody waits for is synced after this time.
pub(super) const UNSYNCED_MAX: Duration = Duration::from_secs(1);
/// Between two looks at the disk.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Without anything to do, the disk is looked at this often.
const IDLE_PAUSE: Duration = Duration::from_secs(5);
/// Between two steps of cleaning while nobody writes.
const CLEAN_PAUSE: Duration = Duration::from_millis(5);
/// Bytes moved by one step of cleaning.
const CLEAN_BYTES_MAX: usize = 1024 * 1024;
