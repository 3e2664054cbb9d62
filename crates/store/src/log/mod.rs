//! The log: all records of all shards in one order, in a row of files, and what is left of it after a crash.
//!
//! Owns: [`Log`], the writer's half. Does not own: threads, clocks (time is an argument), what records mean
//! (see the index). Start reading at [`Log::open`], then [`Log::write`]; `docs/storage-format.md` has the bytes.
//! Invariants: what precedes a durable frame is durable; after an error nothing more is written; the index
//! has seen exactly the records in the log, in its order.

mod checkpoint;
mod clean;
mod files;
mod folder;
mod frame;
mod hint;
mod inspect;
mod open;
mod options;
mod reader;
mod repair;
mod report;
mod scan;
mod start;
mod walk;
mod writer;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::codec::{self, Records};
use crate::disk::Disk;
use crate::{Counts, EncodedGroup, Index, Location, Record, UnixMillis};
use clean::Cursor;
use frame::HEADER_BYTES;
use hint::HintBuilder;
use options::Failure;
use writer::Writer;

pub use clean::Cleaned;
pub use inspect::{
    Checked, KindStat, SalvageError, Salvaged, SegmentStat, Stat, check, salvage, stat,
};
pub use open::Recovered;
pub use options::{LogError, LogOptions, OpenError, RecoveryMode};
pub use reader::LogReader;
pub use report::{Damage, DamageKind, RecoveryReport, TornTail};

/// The log, to be used by one thread.
#[derive(Debug)]
pub struct Log<D: Disk> {
    writer: Writer<D>,
    index: SharedIndex,
    reader: LogReader<D>,
    options: LogOptions,
    /// The frame that is being made.
    buffer: Vec<u8>,
    /// What recovery has to write and had no space for. Comes before anything else.
    owed: Vec<Record>,
    /// Of the segment that is written to.
    hint: HintBuilder,
    cursor: Cursor,
    accepted_bytes: u64,
    found_damage: Vec<Damage>,
    has_failed: bool,
}

/// The index, shared with readers.
#[derive(Clone, Debug)]
pub(crate) struct SharedIndex(Arc<Mutex<Index>>);

impl SharedIndex {
    fn new(index: Index) -> Self {
        Self(Arc::new(Mutex::new(index)))
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the log is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogStatus {
    /// Segments that are there.
    pub segments: usize,
    /// Files that are ready to become segments.
    pub spares: usize,
    /// Bytes in the segments that are needed.
    pub bytes: u64,
    /// Bytes of the records that count.
    pub live_bytes: u64,
    /// Bytes that the disk has left.
    pub free_bytes: u64,
    /// Whether that is so little that nothing more should be accepted.
    pub is_low: bool,
    /// The number of the last frame.
    pub written_lsn: u64,
    /// The number of the last durable frame.
    pub durable_lsn: u64,
    /// What there is.
    pub counts: Counts,
    /// Damage found since the start, in what was intact then. Each is an alarm, too.
    pub damage: Vec<Damage>,
    /// Queued messages that could not be read and were left out.
    pub messages_unreadable: u64,
}

impl<D: Disk> Log<D> {
    /// Writes the batches of `group`, in frames cut between batches. Nothing of it is durable before
    /// [`Self::sync`].
    /// # Errors
    /// [`LogError`]: some of it may be in the log.
    pub fn write(&mut self, group: &EncodedGroup) -> Result<(), LogError> {
        self.attempt(|log| {
            log.write_owed()?;
            log.accepted_bytes += group.bytes().len() as u64;
            log.write_batches(group)
        })
    }

    /// Makes all that was written durable, and gives up segments that are not needed any more.
    /// # Errors
    /// [`LogError`]: it is not known what is durable of what was written since the last success.
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.attempt(|log| log.writer.sync())
    }

    /// What need not be done at once, and should be done about every second: a spare, the free space.
    /// # Errors
    /// [`LogError`]
    pub fn tick(&mut self, now: UnixMillis) -> Result<(), LogError> {
        self.options.now = now;
        self.attempt(|log| {
            log.tell_damaged()?;
            log.writer.tick(now)
        })
    }

    /// How the log is. O(segments).
    #[must_use]
    pub fn status(&self) -> LogStatus {
        let index = self.index.lock();
        LogStatus {
            segments: self.writer.segment_count(),
            spares: self.writer.spare_count(),
            bytes: self.writer.bytes(),
            live_bytes: index.live_bytes(),
            free_bytes: self.writer.free_bytes(),
            is_low: self.writer.is_low(),
            written_lsn: self.writer.written_lsn(),
            durable_lsn: self.writer.durable_lsn(),
            counts: index.counts(),
            damage: self.found_damage.clone(),
            messages_unreadable: self.reader.unreadable(),
        }
    }

    /// Whether the disk has so little space left that nothing more should be accepted.
    #[must_use]
    pub const fn is_low(&self) -> bool {
        self.writer.is_low()
    }

    /// Bytes that the disk had left when it was last asked.
    #[must_use]
    pub const fn free_bytes(&self) -> u64 {
        self.writer.free_bytes()
    }

    /// Reads queued messages, from any thread, while this one writes.
    #[must_use]
    pub fn reader(&self) -> LogReader<D> {
        self.reader.clone()
    }

    /// Ends the current segment, and keeps all segments as they are until [`Self::release_backup`]. Returns
    /// the names, in the data folder, of the files that make up a copy of the log as it is now: to be
    /// linked or copied, with the same names; nothing else of the folder belongs to a copy.
    /// # Errors
    /// [`LogError`]
    pub fn seal_for_backup(&mut self) -> Result<Vec<String>, LogError> {
        self.attempt(|log| {
            log.write_owed()?;
            let ended = log.writer.hold()?;
            let segments = ended.into_iter().map(folder::segment_path);
            Ok(std::iter::once(folder::FORMAT.to_owned())
                .chain(segments)
                .collect())
        })
    }

    /// The copy is made: segments can be given up again.
    /// # Errors
    /// [`LogError`]
    pub fn release_backup(&mut self) -> Result<(), LogError> {
        self.attempt(|log| log.writer.release())
    }

    /// After a failure nothing is tried any more.
    fn attempt<T>(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, LogError> {
        if self.has_failed {
            return Err(LogError::Failed);
        }
        let result = act(self);
        self.has_failed = result.is_err();
        Ok(result?)
    }

    fn write_batches(&mut self, group: &EncodedGroup) -> Result<(), Failure> {
        let max = self.options.frame_bytes_max();
        self.begin_frame();
        for batch in group.batches() {
            if self.buffer.len() > HEADER_BYTES && self.buffer.len() + batch.len() > max {
                self.end_frame()?;
                self.begin_frame();
            }
            self.buffer.extend_from_slice(batch);
        }
        self.end_frame()
    }

    /// Writes what recovery could not.
    fn write_owed(&mut self) -> Result<(), Failure> {
        if self.owed.is_empty() {
            return Ok(());
        }
        self.begin_frame();
        for record in &self.owed {
            codec::encode(record, &mut self.buffer);
        }
        // Taken in already, by recovery.
        self.append_frame()?;
        self.owed.clear();
        Ok(())
    }

    fn begin_frame(&mut self) {
        self.buffer.clear();
        self.buffer.shrink_to(2 * self.options.frame_bytes_max());
        self.buffer.resize(HEADER_BYTES, 0);
    }

    /// Writes the frame in the buffer, and the hint of the segment before if it begins one.
    fn append_frame(&mut self) -> Result<(u32, u32), Failure> {
        let (segment, offset) = self.writer.append(&mut self.buffer)?;
        if let Some((ended, hint)) = self.hint.push(segment, offset, &self.buffer) {
            self.writer.write_hint(ended, &hint);
        }
        Ok((segment, offset))
    }

    /// Writes the frame in the buffer, if there is something in it, and takes its records in.
    fn end_frame(&mut self) -> Result<(), Failure> {
        let body_bytes = self.buffer.len() - HEADER_BYTES;
        if body_bytes == 0 {
            return Ok(());
        }
        let (segment, offset) = self.append_frame()?;
        let body = self.buffer.get(HEADER_BYTES..HEADER_BYTES + body_bytes);
        let mut index = self.index.lock();
        apply(&mut index, segment, offset, body.unwrap_or_default())
            .expect("invariant: what was encoded can be decoded");
        drop(index);
        Ok(())
    }
}

/// Takes in the records of the frame at `offset`; returns how many.
fn apply(
    index: &mut Index,
    segment: u32,
    offset: u32,
    body: &[u8],
) -> Result<u64, codec::DecodeError> {
    let mut count = 0;
    for found in Records::new(body) {
        let (start, len, record) = found?;
        index.apply(location(segment, offset, start, len), &record);
        count += 1;
    }
    Ok(count)
}

/// Of a record that begins `start` bytes into the body of the frame at `offset`.
fn location(segment: u32, offset: u32, start: usize, len: usize) -> Location {
    let fits = "invariant: segments are below 4 GiB";
    Location {
        segment,
        offset: offset + u32::try_from(HEADER_BYTES + start).expect(fits),
        len: u32::try_from(len).expect(fits),
    }
}
