//! What is kept on disk while the shards serve: one thread that writes, one that reads, one that answers.
//!
//! Owns: the data folder, the order of a start and of a stop. Does not own: bytes and files of the log (see
//! `store`), what is recorded and what waits for it (see `engine`). Start reading at `Opened::open`, then
//! `writer`. Invariants: one process at a time uses a data folder; when `Running::stop` returns, everything
//! that was appended is durable, or the Server has said that its store has failed.

mod alarming;
mod backup;
mod control;
mod exchange;
mod figures;
mod folder;
mod reader;
mod shard_store;
#[cfg(test)]
mod tests;
mod writer;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use store::disk::{Disk, RealDisk};
use store::{
    Alarm, Alarms, Level, Log, LogError, LogOptions, OpenError, Recovered, RecoveryMode,
    RecoveryReport, SalvageError, Salvaged, UnixMillis,
};

pub use backup::{BackedUp, BackupError, copy_folder, restore};
pub use control::{ControlAnswer, ControlRequest, SessionLosses, ask};
pub use figures::Status;
pub use folder::{DataFolder, FolderError};

pub(crate) use figures::Figures;
pub(crate) use shard_store::ShardStore;

use alarming::Alarming;
use control::{Control, ControlStop};
use exchange::Exchange;
pub(crate) use exchange::Hurry;
use reader::Reader;
use writer::Writer;

use crate::config::{Recovery, StorageConfig};
use crate::shard::Shared;

/// A log that is open, before any shard runs.
#[derive(Debug)]
pub(crate) struct Opened<D: Disk> {
    log: Log<D>,
    disk: D,
    /// Those that are open.
    alarms: Vec<Alarm>,
    figures: Arc<Figures>,
    /// Whether shards wait for what is written, not only for what is durable.
    tells_written: bool,
    /// Ours while this lives; `None` for a disk that is no folder.
    folder: Option<DataFolder>,
}

/// What a start has found.
#[derive(Clone, Debug)]
pub struct Restored {
    /// Sessions.
    pub sessions: usize,
    /// Retained messages.
    pub retained: usize,
    /// How long it took to read them.
    pub elapsed: Duration,
    /// What was read, and what was wrong with it.
    pub report: RecoveryReport,
    /// Alarms that nobody has acknowledged yet.
    pub alarms: Vec<String>,
}

/// The threads around the log.
#[derive(Debug)]
pub(crate) struct Running {
    exchange: Arc<Exchange>,
    threads: Vec<JoinHandle<()>>,
    control: Option<ControlStop>,
    /// Given back last.
    _folder: Option<DataFolder>,
}

impl<D: Disk> Opened<D> {
    /// Opens the log on `disk`, mends what a crash has left, and says what it found.
    /// # Errors
    /// The disk fails, or `storage` does not allow what it finds.
    pub(crate) fn open(
        disk: D,
        folder: Option<DataFolder>,
        storage: &StorageConfig,
    ) -> Result<(Self, Recovered, Restored), OpenError> {
        let began = Instant::now();
        let (log, recovered) = Log::open(disk.clone(), options(storage))?;
        let alarms = Alarms::open(disk.clone()).map_err(|error| OpenError::Disk {
            doing: "read the alarms".to_owned(),
            error,
        })?;
        let alarms = alarms.list().to_vec();
        let restored = Restored {
            sessions: recovered.sessions.len(),
            retained: recovered.retained.len(),
            elapsed: began.elapsed(),
            report: recovered.report.clone(),
            alarms: texts(&alarms),
        };
        restored.log();
        let levels = storage.levels.iter().map(|of| of.level);
        let opened = Self {
            log,
            disk,
            alarms,
            figures: Arc::default(),
            // Sessions that the store knows are kept at no less, see `engine::Levels`.
            tells_written: levels
                .chain([storage.level.max(Level::Written)])
                .any(|level| level == Level::Written),
            folder,
        };
        Ok((opened, recovered, restored))
    }

    /// What the store will say of itself.
    pub(crate) fn figures(&self) -> Arc<Figures> {
        Arc::clone(&self.figures)
    }

    /// Segments of the log: so many files are open.
    pub(crate) fn segment_count(&self) -> usize {
        self.log.status().segments
    }

    /// Starts the threads; returns what each shard gives its batches to.
    /// # Errors
    /// The system has no thread for us.
    pub(crate) fn start(self, shared: &Arc<Shared>) -> io::Result<(Vec<ShardStore>, Running)> {
        let exchange = Arc::new(Exchange::new(shared.settings.shard_count));
        // Before the first PUBLISH can come.
        writer::judge_space(&exchange, &self.log);
        // And before `$SYS` is published for the first time.
        self.figures
            .update(&self.log.status(), &figures::Measured::default(), None);
        let (loads, wanted) = mpsc::channel();
        let mut stores = Vec::new();
        let mut answers = Vec::new();
        for shard in 0..usize::from(shared.settings.shard_count) {
            let (answer, loaded) = mpsc::channel();
            answers.push(answer);
            stores.push(ShardStore::new(
                shard,
                Arc::clone(&exchange),
                loads.clone(),
                loaded,
            ));
        }
        let alarming = Alarming::new(self.disk, Arc::clone(&self.figures), &self.alarms);
        let reader = Reader::new(
            self.log.reader(),
            wanted,
            answers,
            Arc::clone(&exchange),
            Arc::clone(shared),
        );
        let writer = Writer::new(
            self.log,
            Arc::clone(&exchange),
            Arc::clone(&self.figures),
            Arc::clone(shared),
            alarming,
            self.tells_written,
        );
        // It is started once.
        shared.hurry.set(Hurry::new(Arc::clone(&exchange))).ok();
        let mut running = Running {
            exchange: Arc::clone(&exchange),
            threads: Vec::new(),
            control: None,
            _folder: None,
        };
        running.spawn("vencejo-persist", move || writer.run())?;
        running.spawn("vencejo-load", move || reader.run())?;
        if let Some(folder) = self.folder {
            let control = Control {
                data: folder.path().to_owned(),
                exchange,
                figures: self.figures,
                shared: Arc::clone(shared),
            };
            running.start_control(control)?;
            running._folder = Some(folder);
        }
        Ok((stores, running))
    }
}

impl Running {
    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = std::thread::Builder::new().name(name.to_owned());
        self.threads.push(thread.spawn(run)?);
        Ok(())
    }

    fn start_control(&mut self, control: Control) -> io::Result<()> {
        match Control::open(&control.data) {
            Ok((listener, stop)) => {
                let is_over = stop.is_over();
                self.control = Some(stop);
                self.spawn("vencejo-control", move || control.run(&listener, &is_over))
            }
            Err(error) => {
                // Some file systems have no sockets. Everything else works without.
                tracing::warn!(%error, "no control socket: backup and acknowledge have to wait");
                Ok(())
            }
        }
    }

    /// Writes and syncs everything that was appended, ends the threads, gives the folder back. To be called
    /// when every shard has ended.
    pub(crate) fn stop(mut self) {
        if let Some(control) = self.control.take() {
            control.stop();
        }
        self.exchange.close();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a thread of the store has panicked");
            }
        }
    }
}

impl Restored {
    /// Says what was found, in the log.
    fn log(&self) {
        let elapsed_ms = u64::try_from(self.elapsed.as_millis()).unwrap_or(u64::MAX);
        let report = &self.report;
        tracing::info!(
            bytes = report.bytes,
            elapsed_ms,
            reason = %format_args!(
                "{} sessions, {} retained messages from {} records in {} segments",
                self.sessions, self.retained, report.records, report.segments
            ),
            "state restored"
        );
        if let Some(torn) = &report.torn_tail {
            tracing::warn!(reason = %torn, "the last write did not complete before the last end");
        }
        for alarm in &self.alarms {
            tracing::error!(
                error = alarm,
                "ALARM, shown until `vencejo store acknowledge`"
            );
        }
    }
}

/// Acknowledges the alarms of a folder that no Server uses; returns what they say.
/// # Errors
/// What the system says.
pub fn acknowledge(folder: &DataFolder) -> io::Result<Vec<String>> {
    let mut alarms = Alarms::open(RealDisk::open(folder.path())?)?;
    Ok(texts(&alarms.acknowledge()?))
}

/// Writes what is intact in a folder that no Server uses, and its users, to the new or empty folder `target`.
/// # Errors
/// [`SalvageError`]; what was written then is not to be used.
pub fn salvage(folder: &DataFolder, target: &Path) -> Result<Salvaged, SalvageError> {
    let doing = |path: &Path| format!("open {}", path.display());
    let from = RealDisk::open(folder.path()).map_err(|error| {
        let doing = doing(folder.path());
        SalvageError::Read(OpenError::Disk { doing, error })
    })?;
    let to = RealDisk::open(target).map_err(|error| {
        let doing = doing(target);
        SalvageError::Write(LogError::Disk { doing, error })
    })?;
    let salvaged = store::salvage(&from, &to, options(&StorageConfig::default()))?;
    backup::copy_users(folder.path(), target).map_err(|error| {
        let doing = "copy the users".to_owned();
        SalvageError::Write(LogError::Disk { doing, error })
    })?;
    Ok(salvaged)
}

fn texts(alarms: &[Alarm]) -> Vec<String> {
    alarms.iter().map(|alarm| alarm.text.clone()).collect()
}

fn options(storage: &StorageConfig) -> LogOptions {
    let random = RandomState::new();
    LogOptions {
        spares: storage.spares,
        recovery: match storage.recovery {
            Recovery::SetAside => RecoveryMode::SetAside,
            Recovery::Strict => RecoveryMode::Strict,
        },
        disk_low_bytes: storage.disk_low_bytes(),
        now: unix_millis(),
        random: [random.hash_one(0), random.hash_one(1)],
        ..LogOptions::with_segments_of(storage.segment_bytes.into())
    }
}

/// What the calendar says.
pub(crate) fn unix_millis() -> UnixMillis {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let millis = since.map_or(0, |since| since.as_millis());
    UnixMillis(u64::try_from(millis).unwrap_or(u64::MAX))
}
