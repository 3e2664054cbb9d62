//! The store as the Server uses it: one thread that writes, syncs and tells, one that reads queues.
//!
//! Owns: [`Persist`], the order write - sync - tell, as the server's persist thread has it. Does not own: bytes (see
//! `store::Log`), what waits for them (see `engine`). Start reading at [`World::on_write`].
//! Invariant: without a bug, nothing is told to be durable before the sync that covers it has returned.

use store::{Batch, EncodedGroup, Level, Log, LogError, LogReader, Record, Seq};

use super::World;
use crate::agenda::{Event, Micros};
use crate::bug::Bug;
use crate::checker::Checked;
use crate::disk::SimDisk;

/// The log and the threads around it.
#[derive(Debug)]
pub(crate) struct Persist {
    log: Log<SimDisk>,
    reader: LogReader<SimDisk>,
    open: EncodedGroup,
    open_last: Vec<Seq>,
    appended: Vec<Seq>,
    written: Vec<Seq>,
    durable: Vec<Seq>,
    unsynced_since: Option<Micros>,
    /// Whether a write or a sync is under way, or set.
    is_busy: bool,
    accepted_bytes: usize,
    has_more_to_clean: bool,
    looked_at: Option<Micros>,
    pub(crate) is_low: bool,
}

impl Persist {
    pub(crate) fn new(log: Log<SimDisk>, shards: usize) -> Self {
        let none = vec![Seq(0); shards];
        Self {
            reader: log.reader(),
            is_low: log.is_low(),
            log,
            open: EncodedGroup::new(),
            open_last: none.clone(),
            appended: none.clone(),
            written: none.clone(),
            durable: none,
            unsynced_since: None,
            is_busy: false,
            accepted_bytes: 0,
            has_more_to_clean: false,
            looked_at: None,
        }
    }

    /// Up to where a shard's batches are written and durable.
    pub(crate) fn progress(&self, shard: usize) -> (Seq, Seq) {
        let of = |all: &[Seq]| all.get(shard).copied().unwrap_or_default();
        (of(&self.written), of(&self.durable))
    }

    pub(crate) fn durable_of_any(&self) -> Seq {
        self.durable.iter().copied().max().unwrap_or_default()
    }

    pub(crate) fn is_pressed(&self) -> bool {
        self.open.bytes().len() > PRESSED_BYTES
    }

    pub(crate) fn is_quiet(&self) -> bool {
        self.open.is_empty() && self.durable == self.appended && !self.has_more_to_clean
    }

    pub(crate) const fn log(&self) -> &Log<SimDisk> {
        &self.log
    }

    fn push(&mut self, shard: usize, batch: &Batch, swaps: bool) {
        if swaps && !self.open.is_empty() {
            let before = std::mem::replace(&mut self.open, EncodedGroup::new());
            self.open.push(batch);
            self.open.append(&before);
        } else {
            self.open.push(batch);
        }
        for all in [&mut self.open_last, &mut self.appended] {
            if let Some(last) = all.get_mut(shard) {
                *last = batch.seq;
            }
        }
    }

    /// Writes the open group; returns whether it has to be synced now.
    fn write(&mut self, now: Micros) -> Result<bool, LogError> {
        let group = std::mem::replace(&mut self.open, EncodedGroup::new());
        self.accepted_bytes = group.bytes().len();
        if !group.is_empty() {
            self.log.write(&group)?;
            self.unsynced_since.get_or_insert(now);
            for (written, last) in self.written.iter_mut().zip(&mut self.open_last) {
                *written = (*written).max(std::mem::take(last));
            }
        }
        let waited = self.unsynced_since.map(|since| now - since);
        Ok(waited.is_some_and(|waited| group.level() == Level::Synced || waited >= UNSYNCED_MAX))
    }

    fn sync(&mut self) -> Result<(), LogError> {
        self.log.sync()?;
        self.unsynced_since = None;
        self.durable.clone_from(&self.written);
        Ok(())
    }

    /// What is done after each group: cleaning at the pace of what came, and a look at the disk.
    fn look_after(&mut self, now: Micros, calendar: store::UnixMillis) -> Result<(), LogError> {
        let budget = match self.accepted_bytes {
            0 => CLEAN_BYTES_MAX,
            accepted => (2 * accepted as u64).min(CLEAN_BYTES_MAX),
        };
        let cleaned = self.log.clean(budget)?;
        self.has_more_to_clean = cleaned.has_more;
        if cleaned.moved_bytes > 0 || cleaned.segments > 0 {
            self.unsynced_since.get_or_insert(now);
        }
        let is_due = self.looked_at.is_none_or(|at| now - at >= LOOK_MICROS);
        if is_due {
            self.looked_at = Some(now);
            self.log.tick(calendar)?;
        }
        self.is_low = self.log.is_low();
        Ok(())
    }
}

impl World {
    /// A shard gives a batch to its store.
    pub(crate) fn append(&mut self, shard: usize, mut batch: Batch) {
        if let Some(bug) = self.bug {
            bug.spoil(&mut batch.records, &mut self.spoiled);
        }
        for record in &batch.records {
            self.say(|| {
                format!(
                    "shard {shard} records in {}: {}",
                    batch.seq.0,
                    brief(record)
                )
            });
        }
        let swaps = self.bug == Some(Bug::SwapBatches);
        if let Some(server) = &mut self.server {
            server.persist.push(shard, &batch, swaps);
        }
        let after = self.chance.below(200);
        self.write_after(after);
    }

    /// Lets the persist thread write, if it has nothing to do.
    pub(crate) fn write_after(&mut self, micros: Micros) {
        let process = self.process;
        let Some(server) = &mut self.server else {
            return;
        };
        if !std::mem::replace(&mut server.persist.is_busy, true) {
            self.agenda.after(micros, Event::Write { process });
        }
    }

    /// The persist thread writes what there is.
    pub(crate) fn on_write(&mut self, process: u32) -> Checked {
        let now = self.agenda.now();
        let bug = self.bug;
        let Some(server) = self.server.as_mut().filter(|_| process == self.process) else {
            return Ok(());
        };
        let must_sync = match server.persist.write(now) {
            Ok(must_sync) => must_sync,
            Err(error) => return self.on_store_error(&error),
        };
        if bug == Some(Bug::AckBeforeSync) {
            server.persist.durable.clone_from(&server.persist.written);
        }
        self.wake_all();
        if must_sync {
            let most = self.scenario.sync_micros * if self.is_slow { 200 } else { 1 };
            let after = self.chance.below(most);
            self.agenda.after(after, Event::Sync { process });
            return Ok(());
        }
        self.after_group()
    }

    /// The sync returns.
    pub(crate) fn on_sync(&mut self, process: u32) -> Checked {
        let Some(server) = self.server.as_mut().filter(|_| process == self.process) else {
            return Ok(());
        };
        if let Err(error) = server.persist.sync() {
            return self.on_store_error(&error);
        }
        let durable = server.persist.durable.clone();
        self.say(|| format!("durable: {durable:?}"));
        self.wake_all();
        self.after_group()
    }

    fn after_group(&mut self) -> Checked {
        let (now, calendar) = (self.agenda.now(), self.agenda.calendar());
        let Some(server) = &mut self.server else {
            return Ok(());
        };
        let persist = &mut server.persist;
        let was_low = persist.is_low;
        if let Err(error) = persist.look_after(now, calendar) {
            return self.on_store_error(&error);
        }
        persist.is_busy = false;
        let has_more = !persist.open.is_empty();
        let (is_unsynced, cleans) = (persist.unsynced_since.is_some(), persist.has_more_to_clean);
        let is_low = persist.is_low;
        self.figures.low_disks += u64::from(is_low && !was_low);
        if is_low != was_low {
            self.wake_all();
        }
        if has_more {
            self.write_after(0);
        } else if cleans {
            self.rest_for(CLEAN_PAUSE);
        } else if is_unsynced {
            self.rest_for(UNSYNCED_MAX);
        } else if is_low {
            self.rest_for(LOOK_MICROS);
        }
        Ok(())
    }

    /// The persist thread sleeps no longer than this; a batch wakes it.
    pub(crate) fn rest_for(&mut self, micros: Micros) {
        let process = self.process;
        self.agenda.after(micros, Event::Rested { process });
    }

    pub(crate) fn on_rested(&mut self, process: u32) {
        if process == self.process {
            self.write_after(0);
        }
    }

    pub(crate) fn on_load(&mut self, process: u32, shard: usize, number: usize) -> Checked {
        let skips = self.bug == Some(Bug::SkipLoaded);
        let load = self.agenda.load(number);
        let Some(server) = self.server.as_mut().filter(|_| process == self.process) else {
            return Ok(());
        };
        let Some(load) = load else { return Ok(()) };
        match server.persist.reader.load(load) {
            Ok(mut loaded) => {
                if skips && !loaded.messages.is_empty() {
                    loaded.messages.remove(0);
                }
                if let Some(found) = server.shards.get_mut(shard) {
                    found.loading -= 1;
                    found.loaded.push_back(loaded);
                }
                self.figures.loads += 1;
                self.wake(shard);
                Ok(())
            }
            Err(error) => self.on_store_error(&LogError::Disk {
                doing: "load".to_owned(),
                error,
            }),
        }
    }

    pub(crate) fn wake_all(&mut self) {
        for shard in 0..self.shard_count() {
            self.wake(shard);
        }
    }
}

/// A record in a few words.
fn brief(record: &Record) -> String {
    match record {
        Record::Enqueue {
            message,
            targets,
            origin,
        } => {
            let text: String = String::from_utf8_lossy(&message.payload)
                .chars()
                .take_while(|digit| *digit != '.')
                .collect();
            let targets = targets.iter().map(|target| (target.session.0, target.seq));
            let targets: Vec<_> = targets.collect();
            format!("Enqueue {text} for {targets:?}, origin {origin:?}")
        }
        other => format!("{other:.130?}"),
    }
}

/// With more in the open group, publishers are not read.
const PRESSED_BYTES: usize = 16 * 1024;
/// What nobody waits for is synced after this time.
const UNSYNCED_MAX: Micros = 1_000_000;
/// Between two looks at the disk.
const LOOK_MICROS: Micros = 1_000_000;
/// Between two steps of cleaning while nobody writes.
const CLEAN_PAUSE: Micros = 5_000;
/// Bytes moved by one step of cleaning.
const CLEAN_BYTES_MAX: u64 = 1024 * 1024;
