//! Looking at a log that nobody uses, and getting out of it what is intact.
//!
//! Owns: [`check`], [`stat`], [`salvage`], for an operator's commands. Does not own: how it is printed (see the
//! server), what a start does about damage (see `start`). Start reading at [`check`].
//! Invariants: nothing is changed in the folder that is looked at; what is found is what a start would find.

use std::collections::BTreeMap;
use std::io;

use super::folder::{self, SET_ASIDE_DIR};
use super::open::{Indexing, apply_values};
use super::options::{Doing, Failure, LogError, LogOptions, OpenError};
use super::report::{Damage, TornTail};
use super::scan::FrameAt;
use super::start::{Look, look};
use super::walk::{Visitor, Walk};
use super::{Log, Recovered};
use crate::codec::{RecordRef, Records};
use crate::disk::Disk;
use crate::{Alarm, Alarms, Counts, HashKeys, alarms};

/// What [`check`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Whether the folder says that it is a store; if not, and if there is no segment, it is none.
    pub has_marker: bool,
    /// Segments that belong to the log.
    pub segments: u64,
    /// Intact frames in them.
    pub frames: u64,
    /// Records in those.
    pub records: u64,
    /// Bytes of those frames.
    pub bytes: u64,
    /// An end that was being written: harmless, cut by the next start.
    pub torn_tail: Option<TornTail>,
    /// Damage that the next start would set aside, or refuse if recovery is strict.
    pub damage: Vec<Damage>,
    /// Places where an earlier start, or a salvage, has marked frames as missing.
    pub known_holes: u64,
    /// Alarms that nobody has acknowledged.
    pub alarms: Vec<Alarm>,
}

impl Checked {
    /// Whether every start would find everything that was ever acknowledged, as far as is known.
    #[must_use]
    pub const fn is_sound(&self) -> bool {
        self.damage.is_empty()
    }
}

/// Reads and checks every byte of the log in `disk`.
/// # Errors
/// [`OpenError`]: it cannot be read at all.
pub fn check<D: Disk>(disk: &D) -> Result<Checked, OpenError> {
    let mut indexing = Indexing::new(HashKeys([0, 0]));
    let Look {
        has_marker, walk, ..
    } = look(disk, None, &mut indexing)?;
    Ok(Checked {
        has_marker,
        segments: walk.segments.len() as u64,
        frames: walk.frames,
        records: walk.records,
        bytes: walk.bytes,
        torn_tail: walk.torn,
        damage: walk.damage,
        known_holes: walk.known_holes,
        alarms: open_alarms(disk)?,
    })
}

/// What [`stat`] counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// Each segment, oldest first.
    pub segments: Vec<SegmentStat>,
    /// Records of each kind that occurs, by name.
    pub kinds: BTreeMap<&'static str, KindStat>,
    /// What there is after all records.
    pub counts: Counts,
    /// Bytes of the records that count.
    pub live_bytes: u64,
    /// The number of the last frame.
    pub last_lsn: u64,
    /// The last number that is known to be durable.
    pub durable_lsn: u64,
    /// Files that are ready to become segments.
    pub spares: usize,
    /// Files that earlier starts have set aside, sorted.
    pub set_aside: Vec<String>,
}

/// A segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentStat {
    /// Its name in the data folder.
    pub file: String,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Bytes up to the end of its last frame.
    pub used_bytes: u64,
    /// Bytes of the records in it that count.
    pub live_bytes: u64,
    /// Frames in it.
    pub frames: u64,
    /// The number of the first.
    pub first_lsn: u64,
    /// The number of the last.
    pub last_lsn: u64,
}

/// Records of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindStat {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Counts what is in the log in `disk`.
/// # Errors
/// [`OpenError`]: it cannot be read at all.
pub fn stat<D: Disk>(disk: &D) -> Result<Stat, OpenError> {
    let mut counting = Counting::new();
    let Look { walk, listing, .. } = look(disk, None, &mut counting)?;
    let mut index = counting.indexing.index;
    // What a start would leave.
    let uncommitted = index.uncommitted();
    apply_values(&mut index, &uncommitted);
    index.finish_recovery();
    let segments = walk.segments.iter().map(|(&segment, found)| {
        let counted = counting.segments.get(&segment).cloned();
        SegmentStat {
            file: folder::segment_path(segment),
            file_bytes: found.file_bytes,
            used_bytes: found.end,
            live_bytes: index.live_bytes_of(segment),
            ..counted.unwrap_or_default()
        }
    });
    let mut set_aside = list_if_there(disk, SET_ASIDE_DIR)?;
    set_aside.sort();
    Ok(Stat {
        segments: segments.collect(),
        kinds: counting.kinds,
        counts: index.counts(),
        live_bytes: index.live_bytes(),
        last_lsn: walk.next_lsn - 1,
        durable_lsn: walk.known_durable,
        spares: listing.spares.len(),
        set_aside,
    })
}

/// What [`salvage`] wrote and could not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Salvaged {
    /// Frames written anew.
    pub frames: u64,
    /// Records in them.
    pub records: u64,
    /// Bytes of these records.
    pub bytes: u64,
    /// An end that was being written, and was left out.
    pub torn_tail: Option<TornTail>,
    /// What is missing; each is an alarm in the new folder, too.
    pub damage: Vec<Damage>,
}

/// Why nothing, or not everything, was salvaged. What was written is not to be used.
#[derive(Debug)]
pub enum SalvageError {
    /// The log cannot be read at all.
    Read(OpenError),
    /// There is something in the folder that is to be written.
    NotEmpty,
    /// The folder that is to be written cannot be.
    Write(LogError),
}

impl std::fmt::Display for SalvageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Read(error) => write!(f, "the log cannot be read: {error}"),
            Self::NotEmpty => f.write_str("the folder for what is salvaged is not empty"),
            Self::Write(error) => write!(f, "what is salvaged cannot be written: {error}"),
        }
    }
}

impl std::error::Error for SalvageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read(error) => Some(error),
            Self::NotEmpty => None,
            Self::Write(error) => Some(error),
        }
    }
}

/// Writes every intact frame of the log in `from` to a new log in the empty folder `to`, in order. It then has
/// no damage, and an alarm for each place where something is missing, the alarms of `from` included.
/// # Errors
/// [`SalvageError`]
pub fn salvage<D: Disk, E: Disk>(
    from: &D,
    to: &E,
    options: LogOptions,
) -> Result<Salvaged, SalvageError> {
    let now = options.now;
    if !to.list("").doing("list", "the new folder")?.is_empty() {
        return Err(SalvageError::NotEmpty);
    }
    let (log, _): (_, Recovered) = Log::open(to.clone(), options).map_err(|error| match error {
        OpenError::Disk { doing, error } => SalvageError::Write(LogError::Disk { doing, error }),
        other => SalvageError::Read(other),
    })?;
    let mut copying = Copying {
        log,
        frames: 0,
        bytes: 0,
        result: Ok(()),
    };
    let Look { walk, .. } = look(from, None, &mut copying).map_err(SalvageError::Read)?;
    let Copying {
        mut log,
        frames,
        bytes,
        result,
    } = copying;
    let result = result.and_then(|()| log.sync());
    result.map_err(SalvageError::Write)?;
    raise_alarms(from, to, &walk, now)?;
    Ok(Salvaged {
        frames,
        records: walk.records,
        bytes,
        torn_tail: walk.torn,
        damage: walk.damage,
    })
}

impl From<Failure> for SalvageError {
    fn from(failure: Failure) -> Self {
        Self::Write(failure.into())
    }
}

fn raise_alarms<D: Disk, E: Disk>(
    from: &D,
    to: &E,
    walk: &Walk,
    now: crate::UnixMillis,
) -> Result<(), SalvageError> {
    let earlier = open_alarms(from).map_err(|failure| SalvageError::Read(failure.into()))?;
    let mut alarms = Alarms::open(to.clone()).doing("open", "the alarms")?;
    for alarm in earlier {
        let raised = alarms.raise(&alarm.text, alarm.raised_at);
        raised.doing("raise", "an alarm")?;
    }
    for damage in &walk.damage {
        let raised = alarms.raise(&damage.to_string(), now);
        raised.doing("raise", "an alarm")?;
    }
    Ok(())
}

/// The alarms nobody has acknowledged, without making a folder for them.
fn open_alarms<D: Disk>(disk: &D) -> Result<Vec<Alarm>, Failure> {
    if list_if_there(disk, alarms::DIR)?.is_empty() {
        return Ok(Vec::new());
    }
    let alarms = Alarms::open(disk.clone()).doing("read", "the alarms")?;
    Ok(alarms.list().to_vec())
}

fn list_if_there<D: Disk>(disk: &D, dir: &str) -> Result<Vec<String>, Failure> {
    match disk.list(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        result => result.doing("list", dir),
    }
}

/// Takes records in and counts them.
struct Counting {
    indexing: Indexing,
    segments: BTreeMap<u32, SegmentStat>,
    kinds: BTreeMap<&'static str, KindStat>,
}

impl Counting {
    fn new() -> Self {
        Self {
            indexing: Indexing::new(HashKeys([0, 0])),
            segments: BTreeMap::new(),
            kinds: BTreeMap::new(),
        }
    }
}

impl Visitor for Counting {
    fn on_frame(&mut self, segment: u32, frame: &FrameAt, body: &[u8]) -> Option<u64> {
        let records = self.indexing.on_frame(segment, frame, body)?;
        let lsn = frame.header.lsn;
        let of = self.segments.entry(segment).or_insert_with(|| SegmentStat {
            first_lsn: lsn,
            ..SegmentStat::default()
        });
        of.frames += 1;
        of.last_lsn = lsn;
        for (_, len, record) in Records::new(body).flatten() {
            let of = self.kinds.entry(kind_of(&record)).or_default();
            of.count += 1;
            of.bytes += len as u64;
        }
        Some(records)
    }

    fn begins_again(&mut self) -> bool {
        let begins_again = self.indexing.begins_again();
        if begins_again {
            self.segments.clear();
            self.kinds.clear();
        }
        begins_again
    }
}

/// Writes frames to another log.
struct Copying<E: Disk> {
    log: Log<E>,
    frames: u64,
    bytes: u64,
    result: Result<(), LogError>,
}

impl<E: Disk> Visitor for Copying<E> {
    fn on_frame(&mut self, _segment: u32, _frame: &FrameAt, body: &[u8]) -> Option<u64> {
        let mut records = 0;
        for record in Records::new(body) {
            record.ok()?;
            records += 1;
        }
        if self.result.is_ok() {
            self.result = self.log.write_body(body);
        }
        self.frames += 1;
        self.bytes += body.len() as u64;
        Some(records)
    }

    fn begins_again(&mut self) -> bool {
        false
    }
}

impl<D: Disk> Log<D> {
    /// Writes one frame with these records.
    fn write_body(&mut self, body: &[u8]) -> Result<(), LogError> {
        self.attempt(|log| {
            log.begin_frame();
            log.buffer.extend_from_slice(body);
            log.end_frame()
        })
    }
}

const fn kind_of(record: &RecordRef<'_>) -> &'static str {
    match record {
        RecordRef::SessionPut(_) => "SessionPut",
        RecordRef::SessionDelete { .. } => "SessionDelete",
        RecordRef::SubscriptionPut(_) => "SubscriptionPut",
        RecordRef::SubscriptionDelete { .. } => "SubscriptionDelete",
        RecordRef::Enqueue(_) => "Enqueue",
        RecordRef::Dequeue { .. } => "Dequeue",
        RecordRef::Release { .. } => "Release",
        RecordRef::RetainedPut { .. } => "RetainedPut",
        RecordRef::RetainedDelete { .. } => "RetainedDelete",
        RecordRef::InboundPut { .. } => "InboundPut",
        RecordRef::InboundDelete { .. } => "InboundDelete",
        RecordRef::WillPut(_) => "WillPut",
        RecordRef::WillDelete { .. } => "WillDelete",
    }
}
