//! From the frames of a log to what the engines start with.
//!
//! Owns: [`Recovered`]; which records do not count any more after a restart. Does not own: finding the frames
//! (see `start`), what counts in which order (see the index). Start reading at [`Log::open`].
//! Invariant: what is dropped here is dropped in the log, too, before this returns, or before anything else is
//! written if there is no space for it now.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::files::{Files, SegmentFile};
use super::hint::{self, HintBuilder};
use super::options::{Doing, Failure, LogOptions, OpenError};
use super::reader::LogReader;
use super::report::RecoveryReport;
use super::scan::FrameAt;
use super::start::start;
use super::walk::Visitor;
use super::{Cursor, Log, RecoveryMode, SharedIndex, location};
use crate::codec::{self, RecordRef, Records};
use crate::disk::{Disk, DiskFile};
use crate::index::AHEAD;
use crate::{
    HashKeys, Index, Location, MessageRecord, Record, RestoredSession, Restoring, SessionId,
};

/// What a start found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The Sessions that go on, by number.
    pub sessions: Vec<RestoredSession>,
    /// The retained messages.
    pub retained: Vec<MessageRecord>,
    /// The number for the next Session.
    pub next_session: SessionId,
    /// What was found, and done about it.
    pub report: RecoveryReport,
}

impl<D: Disk> Log<D> {
    /// Opens the log in `disk`, or begins one. Whatever bytes are there, it opens, unless recovery is strict.
    /// Only one process may have it open: that is for the caller to see to.
    /// # Errors
    /// [`OpenError`]
    pub fn open(disk: D, options: LogOptions) -> Result<(Self, Recovered), OpenError> {
        let hints_above_bytes = match options.recovery {
            RecoveryMode::SetAside => Some(options.hints_above_bytes),
            // It refuses damage that it has not looked for, neither.
            RecoveryMode::Strict => None,
        };
        let (mut log, mut recovered) =
            Self::open_once(disk.clone(), options.clone(), hints_above_bytes)?;
        if !log.writer.files().take_damaged().is_empty() {
            // As if there were no hints. Nothing was written yet but what is found in order again.
            drop(log);
            let first = recovered.report;
            (log, recovered) = Self::open_once(disk, options, None)?;
            recovered.report.damage.splice(..0, first.damage);
            recovered.report.torn_tail = first.torn_tail.or(recovered.report.torn_tail);
            recovered.report.known_holes = first.known_holes;
        }
        match log.write_owed().and_then(|()| log.writer.sync()) {
            Err(failure) if failure.is_full() => {}
            result => result?,
        }
        Ok((log, recovered))
    }

    fn open_once(
        disk: D,
        options: LogOptions,
        hints_above_bytes: Option<u64>,
    ) -> Result<(Self, Recovered), OpenError> {
        let mut indexing = Indexing::new(HashKeys(options.random));
        let (writer, mut report) = start(&disk, &options, hints_above_bytes, &mut indexing)?;
        let mut index = indexing.index;
        let mut owed = index.uncommitted();
        report.uncommitted_dropped = owed.len() as u64;
        apply_values(&mut index, &owed);
        index.finish_recovery();
        let (mut sessions, retained) = restore(&index, writer.files())?;
        let mut deletes = Vec::new();
        sessions.retain(|restored| {
            let goes_on = restored.session.expiry_seconds > 0;
            if !goes_on {
                let session = restored.session.session;
                deletes.push(Record::SessionDelete { session });
            }
            goes_on
        });
        report.sessions_ended = deletes.len() as u64;
        apply_values(&mut index, &deletes);
        owed.extend(deletes);
        let recovered = Recovered {
            sessions,
            retained,
            next_session: index.next_session(),
            report,
        };
        let index = SharedIndex::new(index);
        let log = Self {
            reader: LogReader::new(index.clone(), Arc::clone(writer.files())),
            hint: HintBuilder::new(writer.segment_bytes()),
            writer,
            index,
            options,
            buffer: Vec::new(),
            owed,
            cursor: Cursor::default(),
            accepted_bytes: 0,
            found_damage: Vec::new(),
            has_failed: false,
        };
        Ok((log, recovered))
    }
}

/// Takes in all of a frame or nothing, since what has a part that cannot be read is passed over by later starts.
#[derive(Debug)]
pub(super) struct Indexing {
    pub(super) index: Index,
    keys: HashKeys,
    /// Segment and offset of frames that are no row of records.
    unreadable: BTreeSet<(u32, u32)>,
    begins_again: bool,
}

impl Indexing {
    pub(super) fn new(keys: HashKeys) -> Self {
        Self {
            index: Index::new(keys),
            keys,
            unreadable: BTreeSet::new(),
            begins_again: false,
        }
    }
}

/// Does what [`super::apply`] does, many records at a time, for a start, which goes through all Sessions at once.
/// While the log is written, looking each record up twice was not shown to pay.
fn apply_ahead(
    index: &mut Index,
    segment: u32,
    offset: u32,
    body: &[u8],
) -> Result<u64, codec::DecodeError> {
    let mut ahead = Vec::with_capacity(AHEAD);
    let mut count = 0;
    for found in Records::new(body) {
        let (start, len, record) = found?;
        ahead.push((location(segment, offset, start, len), record));
        count += 1;
        if ahead.len() == AHEAD {
            index.apply_all(&ahead);
            ahead.clear();
        }
    }
    index.apply_all(&ahead);
    Ok(count)
}

impl Visitor for Indexing {
    fn on_frame(&mut self, segment: u32, frame: &FrameAt, body: &[u8]) -> Option<u64> {
        if self.unreadable.contains(&(segment, frame.offset)) {
            return None;
        }
        let records = apply_ahead(&mut self.index, segment, frame.offset, body).ok();
        if records.is_none() {
            self.unreadable.insert((segment, frame.offset));
            self.begins_again = true;
        }
        records
    }

    fn on_hint(&mut self, segment: u32, frame: &FrameAt, records: &[u8]) -> u64 {
        hint::apply(&mut self.index, segment, frame.offset, records)
    }

    fn begins_again(&mut self) -> bool {
        if self.begins_again {
            self.index = Index::new(self.keys);
        }
        std::mem::take(&mut self.begins_again)
    }
}

/// Takes in records that only take others away: they are nowhere, and never count.
pub(super) fn apply_values(index: &mut Index, records: &[Record]) {
    let mut bytes = Vec::new();
    for record in records {
        bytes.clear();
        codec::encode(record, &mut bytes);
        let (record, _) = RecordRef::decode(&bytes).expect("invariant: it was encoded");
        index.apply(Location::default(), &record);
    }
}

/// Reads the records with text in them.
fn restore<F: DiskFile>(
    index: &Index,
    files: &Files<F>,
) -> Result<(Vec<RestoredSession>, Vec<MessageRecord>), Failure> {
    let mut restoring = Restoring::with_capacity(index);
    let mut window = Window::default();
    for at in index.keyed_locations() {
        let bytes = window.read(files, at)?;
        // It was decoded a moment ago, and it counts, or the index would not have named it.
        if let Ok((record, _)) = RecordRef::decode(bytes) {
            restoring.take_live(&record);
        }
    }
    Ok(restoring.finish(index))
}

/// A piece of a segment: many small records that are asked for in their order cost few reads.
#[derive(Debug, Default)]
struct Window {
    segment: u32,
    offset: usize,
    bytes: Vec<u8>,
    /// A segment of which nothing is read that is not asked for, since that has failed.
    sick: Option<u32>,
}

impl Window {
    /// The bytes at `at`; none if they are not there any more.
    fn read<F: DiskFile>(&mut self, files: &Files<F>, at: Location) -> Result<&[u8], Failure> {
        let (offset, len) = (at.offset as usize, at.len as usize);
        let path = super::folder::segment_path(at.segment);
        let Some(file) = files.file(at.segment) else {
            return Ok(&[]);
        };
        if !files.check(&file, at).doing("read", &path)? {
            return Ok(&[]);
        }
        let is_inside = |window: &Self| {
            let end = window.offset + window.bytes.len();
            at.segment == window.segment && offset >= window.offset && offset + len <= end
        };
        if !is_inside(self) {
            self.segment = at.segment;
            self.offset = offset;
            if !self.read_ahead(&file, at) {
                self.bytes.resize(len, 0);
                if !files
                    .read(&file, at, &mut self.bytes)
                    .doing("read", &path)?
                {
                    self.bytes.clear();
                }
            }
        }
        let start = offset - self.offset;
        Ok(self.bytes.get(start..start + len).unwrap_or_default())
    }

    /// Fills the window from `at` on; not if something there cannot be read.
    fn read_ahead<F: DiskFile>(&mut self, file: &SegmentFile<F>, at: Location) -> bool {
        if self.sick == Some(at.segment) {
            return false;
        }
        self.bytes.resize(WINDOW_BYTES.max(at.len as usize), 0);
        match file.file.read_at(&mut self.bytes, at.offset.into()) {
            Ok(read) => {
                self.bytes.truncate(read);
                true
            }
            Err(_) => {
                self.sick = Some(at.segment);
                false
            }
        }
    }
}

const WINDOW_BYTES: usize = 256 * 1024;
