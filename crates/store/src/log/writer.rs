//! Frames to segments, segments to spares, spares to segments.
//!
//! Owns: [`Writer`]: the end of the log, rotation, spares, what is freed when. Does not own: records, which
//! segments are worth cleaning (see the parent). Start reading at [`Writer::append`].
//! Invariants: a name is durable before a frame in it counts; a segment is synced before the next one has a
//! frame; a segment is given up only when the frame that says so is durable, nobody reads it, and no
//! backup is being made; only files that began in this process and are in no backup are used again,
//! since no other can be known to have no second name: a sync of the folder that failed may have left one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use super::checkpoint::Checkpoint;
use super::files::{Files, SegmentFile};
use super::folder::{self, LOG_DIR};
use super::frame::{self, FrameHeader};
use super::options::{Doing, Failure, LogOptions, is_full};
use super::walk::Walk;
use crate::UnixMillis;
use crate::disk::{Disk, DiskFile};

/// The end of the log.
#[derive(Debug)]
pub(crate) struct Writer<D: Disk> {
    disk: D,
    segment_bytes: u64,
    spares_wanted: usize,
    disk_low_bytes: u64,
    log_id: u32,
    files: Arc<Files<D::File>>,
    /// Those that are needed, and those announced but not freed yet. The last is written to.
    segments: BTreeMap<u32, Segment>,
    /// The number of the last segment there ever was.
    last_segment: u32,
    spares: BTreeSet<u32>,
    next_lsn: u64,
    prev_crc: u32,
    durable_lsn: u64,
    /// Said in every frame: segments below are not needed.
    oldest: u32,
    /// Given up once this number is durable.
    announced: VecDeque<(u32, u64)>,
    /// Given up; somebody may still read them.
    retired: Vec<Retired<D::File>>,
    is_held: bool,
    checkpoint: Checkpoint<D::File>,
    space: Space,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    end: u64,
    is_reusable: bool,
    /// Something in it could not be read: to be kept when it is not needed any more.
    is_damaged: bool,
    has_hint: bool,
}

#[derive(Debug)]
struct Retired<F> {
    segment: u32,
    file: Arc<SegmentFile<F>>,
    facts: Segment,
}

/// What is known of the free space.
#[derive(Clone, Copy, Debug, Default)]
struct Space {
    free_bytes: u64,
    /// No spare could be made.
    is_full: bool,
    is_low: bool,
    asked_at: UnixMillis,
    is_due: bool,
}

impl<D: Disk> Writer<D> {
    /// Goes on where `walk` ended.
    pub(crate) fn open(
        disk: D,
        options: &LogOptions,
        walk: &Walk,
        listing: &folder::Listing,
        checkpoint: Checkpoint<D::File>,
    ) -> Result<Self, Failure> {
        let mut files = BTreeMap::new();
        let mut segments = BTreeMap::new();
        for (&id, found) in &walk.segments {
            let unchecked = walk.by_hint.get(&id).cloned().unwrap_or_default();
            let path = folder::segment_path(id);
            let file = disk.open(&path).doing("open", &path)?;
            files.insert(id, Arc::new(SegmentFile::new(file, unchecked)));
            let facts = Segment {
                end: found.end,
                is_reusable: false,
                is_damaged: false,
                has_hint: listing.hints.contains(&id),
            };
            segments.insert(id, facts);
        }
        let last_segment = match segments.last_key_value() {
            Some((&id, _)) => id,
            None => listing.segments.last().copied().unwrap_or(0),
        };
        let first = segments.first_key_value().map(|(&id, _)| id);
        let oldest = walk.oldest.max(first.unwrap_or(last_segment + 1));
        let mut writer = Self {
            disk,
            segment_bytes: options
                .segment_bytes
                .clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX),
            spares_wanted: options.spares,
            disk_low_bytes: options.disk_low_bytes,
            log_id: walk.log_id.unwrap_or_else(|| new_log_id(options.random)),
            files: Arc::new(Files::new(files)),
            segments,
            last_segment,
            spares: BTreeSet::new(),
            next_lsn: walk.next_lsn,
            prev_crc: walk.prev_crc,
            durable_lsn: walk.next_lsn - 1,
            oldest,
            announced: VecDeque::new(),
            retired: Vec::new(),
            is_held: false,
            checkpoint,
            space: Space::default(),
        };
        for &spare in &listing.spares {
            folder::remove_if_there(&writer.disk, &folder::spare_path(spare))?;
        }
        writer.checkpoint.write(writer.log_id, writer.durable_lsn)?;
        writer.checkpoint.sync()?;
        writer.ask_space()?;
        writer.space.asked_at = options.now;
        writer.space.is_due = false;
        Ok(writer)
    }

    /// Writes the frame in `buffer`, whose header is filled in here. Returns its segment and where in it the
    /// frame begins.
    pub(crate) fn append(&mut self, buffer: &mut Vec<u8>) -> Result<(u32, u32), Failure> {
        let bytes = (buffer.len() as u64).next_multiple_of(frame::ALIGNMENT as u64);
        let end = self.segments.last_key_value().map(|(_, facts)| facts.end);
        if end.is_none_or(|end| end > 0 && end + bytes > self.segment_bytes) {
            self.rotate()?;
        }
        let segment = self.last_segment;
        let end = self.segments.get(&segment).map_or(0, |facts| facts.end);
        let header = FrameHeader {
            segment,
            lsn: self.next_lsn,
            durable_lsn: self.durable_lsn,
            prev_crc: self.prev_crc,
            log_id: self.log_id,
            oldest_segment: self.oldest,
            ..FrameHeader::default()
        };
        let crc = frame::seal(buffer, header);
        let path = folder::segment_path(segment);
        let file = self.files.file(segment);
        let file = file.expect("invariant: the last segment is open");
        file.file.write_at(buffer, end).doing("write", &path)?;
        self.prev_crc = crc;
        self.next_lsn += 1;
        if let Some(facts) = self.segments.get_mut(&segment) {
            facts.end = end + bytes;
        }
        let offset = u32::try_from(end).expect("invariant: segments are below 4 GiB");
        Ok((segment, offset))
    }

    /// Writes a frame without records, for what its header says.
    pub(crate) fn append_mark(&mut self) -> Result<(), Failure> {
        self.append(&mut vec![0; frame::HEADER_BYTES]).map(|_| ())
    }

    /// Makes all frames durable.
    pub(crate) fn sync(&mut self) -> Result<(), Failure> {
        if self.durable_lsn + 1 == self.next_lsn {
            return self.free();
        }
        let file = self.files.file(self.last_segment);
        let file = file.expect("invariant: the last segment is open");
        file.file
            .sync()
            .doing("sync", &folder::segment_path(self.last_segment))?;
        self.durable_lsn = self.next_lsn - 1;
        self.checkpoint.write(self.log_id, self.durable_lsn)?;
        self.free()
    }

    /// Begins a segment.
    pub(crate) fn rotate(&mut self) -> Result<(), Failure> {
        self.sync()?;
        let spare = match self.spares.pop_first() {
            Some(spare) => spare,
            None => self.make_spare()?,
        };
        let segment = self.last_segment + 1;
        let path = folder::segment_path(segment);
        self.disk
            .rename(&folder::spare_path(spare), &path)
            .doing("make", &path)?;
        self.disk.sync_dir(LOG_DIR).doing("sync", LOG_DIR)?;
        let file = self.disk.open(&path).doing("open", &path)?;
        self.files.insert(segment, file);
        let facts = Segment {
            end: 0,
            is_reusable: true,
            is_damaged: false,
            has_hint: false,
        };
        self.segments.insert(segment, facts);
        self.last_segment = segment;
        // Only here it can have become less by much: the space of a segment is reserved as a whole.
        self.ask_space()?;
        self.space.is_due = true;
        Ok(())
    }

    /// Says in the frames from now on that the oldest segment is not needed. It is given up when the next
    /// frame is durable.
    pub(crate) fn announce(&mut self) {
        let mut needed = self.segments.range(self.oldest..).map(|(&id, _)| id);
        let (gone, next) = (needed.next(), needed.next());
        if let (Some(gone), Some(next)) = (gone, next) {
            self.announced.push_back((gone, self.next_lsn));
            self.oldest = next;
        }
    }

    /// Whether an announcement is in no frame yet.
    pub(crate) fn owes_mark(&self) -> bool {
        self.announced
            .back()
            .is_some_and(|&(_, lsn)| lsn == self.next_lsn)
    }

    /// Gives up what was announced and can go.
    fn free(&mut self) -> Result<(), Failure> {
        if self.is_held {
            return Ok(());
        }
        while let Some((segment, _)) = self.announced.pop_front_if(|of| of.1 <= self.durable_lsn) {
            let file = self.files.remove(segment);
            if let (Some(file), Some(facts)) = (file, self.segments.remove(&segment)) {
                self.retired.push(Retired {
                    segment,
                    file,
                    facts,
                });
            }
        }
        let retired = std::mem::take(&mut self.retired);
        let (free, read): (Vec<_>, Vec<_>) = retired
            .into_iter()
            .partition(|retired| Arc::strong_count(&retired.file) == 1);
        self.retired = read;
        for retired in free {
            self.give_up(&retired)?;
        }
        Ok(())
    }

    fn give_up(&mut self, retired: &Retired<D::File>) -> Result<(), Failure> {
        let path = folder::segment_path(retired.segment);
        if retired.facts.has_hint {
            folder::remove_if_there(&self.disk, &folder::hint_path(retired.segment))?;
        }
        if retired.facts.is_damaged {
            let aside = format!("{}/{:010}.seg.read", folder::SET_ASIDE_DIR, retired.segment);
            return self.disk.rename(&path, &aside).doing("move", &path);
        }
        if !retired.facts.is_reusable || self.spares.len() >= self.spares_wanted {
            self.space.is_due = true;
            return self.disk.remove(&path).doing("remove", &path);
        }
        let spare = self.free_spare_number();
        self.disk
            .rename(&path, &folder::spare_path(spare))
            .doing("rename", &path)?;
        self.spares.insert(spare);
        Ok(())
    }

    /// Makes a file that has the space of a segment; returns its number.
    fn make_spare(&mut self) -> Result<u32, Failure> {
        let spare = self.free_spare_number();
        let path = folder::spare_path(spare);
        let result = self
            .disk
            .create(&path)
            .and_then(|file| file.allocate(self.segment_bytes));
        if let Err(error) = &result
            && is_full(error)
        {
            self.space.is_full = true;
            folder::remove_if_there(&self.disk, &path)?;
        }
        result.doing("make", &path)?;
        self.space.is_full = false;
        Ok(spare)
    }

    fn free_spare_number(&self) -> u32 {
        (1..)
            .find(|number| !self.spares.contains(number))
            .unwrap_or(u32::MAX)
    }

    /// What need not be done at once: one more spare if there are too few, the free space if it was not
    /// asked for a second.
    pub(crate) fn tick(&mut self, now: UnixMillis) -> Result<(), Failure> {
        self.free()?;
        let is_due = self.space.is_due || now.0.abs_diff(self.space.asked_at.0) >= ASK_MILLIS;
        if self.spares.len() < self.spares_wanted && (!self.space.is_full || is_due) {
            match self.make_spare() {
                Err(failure) if failure.is_full() => {}
                result => {
                    self.spares.insert(result?);
                }
            }
        } else if self.spares.len() >= self.spares_wanted {
            // Segments that were given back have become spares: the next ones have their space.
            self.space.is_full = false;
        }
        if is_due {
            self.ask_space()?;
            self.space.asked_at = now;
            self.space.is_due = false;
        }
        Ok(())
    }

    fn ask_space(&mut self) -> Result<(), Failure> {
        let free = self
            .disk
            .free_bytes()
            .doing("ask for the free space of", "the data folder")?;
        self.space.free_bytes = free;
        // It is over only when there is some more, so that it does not change with every message.
        let enough = if self.space.is_low {
            self.disk_low_bytes.saturating_add(self.disk_low_bytes / 16)
        } else {
            self.disk_low_bytes
        };
        self.space.is_low = free < enough;
        Ok(())
    }

    /// Ends the current segment, gives up none until [`Self::release`], and returns those that are ended.
    pub(crate) fn hold(&mut self) -> Result<Vec<u32>, Failure> {
        let end = self
            .segments
            .last_key_value()
            .map_or(0, |(_, facts)| facts.end);
        if end > 0 {
            self.rotate()?;
        }
        self.is_held = true;
        let current = self.last_segment;
        let ended = self.segments.range_mut(self.oldest..current);
        Ok(ended
            .map(|(&id, facts)| {
                facts.is_reusable = false;
                id
            })
            .collect())
    }

    /// Ends what [`Self::hold`] began.
    pub(crate) fn release(&mut self) -> Result<(), Failure> {
        self.is_held = false;
        self.free()
    }

    /// Something in this segment could not be read: it is kept when it is given up, and read as a whole by the
    /// next start.
    pub(crate) fn note_damage(&mut self, segment: u32) -> Result<(), Failure> {
        let Some(facts) = self.segments.get_mut(&segment) else {
            return Ok(());
        };
        facts.is_damaged = true;
        facts.has_hint = false;
        folder::remove_if_there(&self.disk, &folder::hint_path(segment))
    }

    /// This segment is kept when it is given up, since a file like it is not to be written to.
    pub(crate) fn keep_aside(&mut self, segment: u32) {
        if let Some(facts) = self.segments.get_mut(&segment) {
            facts.is_damaged = true;
        }
    }

    /// Puts a hint beside a segment that is ended. Nothing waits for it to be durable; whatever fails, there is
    /// none, and the log goes on.
    pub(crate) fn write_hint(&mut self, segment: u32, bytes: &[u8]) {
        let Some(facts) = self.segments.get_mut(&segment) else {
            return;
        };
        let path = folder::hint_path(segment);
        let draft = format!("{path}{}", folder::DRAFT);
        let file = folder::create_anew(&self.disk, &draft);
        let written = file.and_then(|file| file.write_at(bytes, 0));
        if written.is_ok() {
            // Also if this fails: the name was perhaps given.
            facts.has_hint = true;
        }
        if written
            .and_then(|()| self.disk.rename(&draft, &path))
            .is_err()
        {
            self.space.is_due = true;
            // If it stays, it counts for nothing, and the next start removes it.
            self.disk.remove(&draft).ok();
        }
    }

    /// The oldest segment that is needed and not written to, and where it ends.
    pub(crate) fn oldest_ended(&self) -> Option<(u32, u64)> {
        let (&id, facts) = self.segments.range(self.oldest..).next()?;
        (id < self.last_segment).then_some((id, facts.end))
    }

    /// Bytes in all segments that are needed.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments
            .range(self.oldest..)
            .map(|(_, facts)| facts.end)
            .sum()
    }

    /// How many segments there are, those to be given up included.
    pub(crate) fn segment_count(&self) -> usize {
        self.segments.len() + self.retired.len()
    }

    pub(crate) fn spare_count(&self) -> usize {
        self.spares.len()
    }

    /// Of a segment, rounded to what is possible.
    pub(crate) const fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    pub(crate) const fn log_id(&self) -> u32 {
        self.log_id
    }

    pub(crate) const fn free_bytes(&self) -> u64 {
        self.space.free_bytes
    }

    pub(crate) const fn is_low(&self) -> bool {
        self.space.is_low || self.space.is_full
    }

    pub(crate) const fn written_lsn(&self) -> u64 {
        self.next_lsn - 1
    }

    pub(crate) const fn durable_lsn(&self) -> u64 {
        self.durable_lsn
    }

    pub(crate) const fn disk(&self) -> &D {
        &self.disk
    }

    pub(crate) const fn files(&self) -> &Arc<Files<D::File>> {
        &self.files
    }
}

fn new_log_id(random: [u64; 2]) -> u32 {
    let mixed = random[0] ^ random[0] >> 32 ^ random[1].rotate_left(16);
    u32::try_from(mixed & u64::from(u32::MAX))
        .unwrap_or(1)
        .max(1)
}

/// The free space is asked for when this has passed.
const ASK_MILLIS: u64 = 1_000;
const SEGMENT_BYTES_MIN: u64 = 4096;
/// So that with one frame that is too large, offsets still fit 32 bits.
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
