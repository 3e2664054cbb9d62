//! From the files of a log to its frames in order: what counts, what is missing, what was torn.
//!
//! Owns: [`walk`]; the difference between a torn tail and damage. Does not own: what is done about it (see
//! `repair`), records. Start reading at [`walk`]. Invariants: changes nothing on the disk; a frame counts only
//! if every frame before it does, or is named as missing and was durable.
//!
//! What was known to be durable when a frame was written is in the frame, and in `CHECKPOINT`. A frame that is
//! missing and was known to be durable is damage: what follows it still counts. One that was not known to be
//! durable was never acknowledged: the log is cut there, whole frames after it included, since nothing
//! may survive that came after what is lost. Only the last segment can be cut: one is synced before the next
//! begins.

use std::collections::BTreeMap;
use std::io;

use super::files::Unread;
use super::folder::{self, Listing};
use super::frame::{self, FrameHeader, HEADER_BYTES};
use super::hint::Hint;
use super::options::{Doing, Failure, OpenError};
use super::report::{Damage, DamageKind, TornTail};
use super::scan::{self, FrameAt, Scan, Wanted};
use crate::disk::{Disk, DiskFile};

/// What a log's files hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Walk {
    /// The number of the log; `None` if there is no frame and no checkpoint.
    pub(crate) log_id: Option<u32>,
    /// Segments that count, by number.
    pub(crate) segments: BTreeMap<u32, FoundSegment>,
    /// Frames are to be marked as missing here.
    pub(crate) holes: Vec<Hole>,
    /// The last segment has bytes after its end that must never be read as frames.
    pub(crate) needs_cut: bool,
    /// Segments with bytes that cannot be read, and the checksum of what they read as.
    pub(crate) sick: BTreeMap<u32, u32>,
    /// Files that hold nothing of this log, by the number in their names.
    pub(crate) strays: Vec<u32>,
    /// Segments that are not needed any more, and such as were begun and not acknowledged.
    pub(crate) leftovers: Vec<u32>,
    /// Segments below this are not needed.
    pub(crate) oldest: u32,
    /// The number of the next frame.
    pub(crate) next_lsn: u64,
    /// What the next frame says of the one before it.
    pub(crate) prev_crc: u32,
    /// Everything up to here was durable before this start.
    pub(crate) known_durable: u64,
    /// Whether the next frame has to be written at once, since it says what no older one does.
    pub(crate) needs_mark: bool,
    /// Where frames begin in the last segment that are whole and were not known to be durable.
    pub(crate) unsure_from: Option<u64>,
    /// What to tell.
    pub(crate) torn: Option<TornTail>,
    /// What to tell.
    pub(crate) damage: Vec<Damage>,
    /// Ranges known to be missing already.
    pub(crate) known_holes: u64,
    /// Frames that count, and their bytes.
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    /// Records in them.
    pub(crate) records: u64,
    /// Segments that were not read, since a hint tells what is in them.
    pub(crate) by_hint: BTreeMap<u32, Unread>,
}

/// A segment that counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FoundSegment {
    /// Where its frames end.
    pub(crate) end: u64,
    /// Bytes of the file.
    pub(crate) file_bytes: u64,
}

/// What a start is told of the frames that count, in order.
pub(crate) trait Visitor {
    /// A frame; returns how many records are in it, or `None` if they cannot be read.
    fn on_frame(&mut self, segment: u32, frame: &FrameAt, body: &[u8]) -> Option<u64>;

    /// The same of a frame that a hint tells of, if hints are wanted; `records` is for [`super::hint::apply`].
    fn on_hint(&mut self, _segment: u32, _frame: &FrameAt, _records: &[u8]) -> u64 {
        0
    }

    /// Whether it has to see all frames once more, since it took in a part of one that cannot be read to
    /// its end; if so, it has forgotten everything else.
    fn begins_again(&mut self) -> bool;
}

/// Frames that are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hole {
    pub(crate) segment: u32,
    pub(crate) offset: u64,
    /// Bytes it takes in the file; more than the file has if the file ends here.
    pub(crate) bytes: u64,
    /// 0 if it is not known.
    pub(crate) first_lsn: u64,
    pub(crate) last_lsn: u64,
    /// Its place in [`Walk::damage`].
    pub(crate) damage: usize,
}

/// Reads a log: all of it, or, if it has more than `hints_above_bytes`, hints instead of what they tell of.
pub(crate) fn walk<D: Disk>(
    disk: &D,
    listing: &Listing,
    checkpoint: Option<(u32, u64)>,
    hints_above_bytes: Option<u64>,
    visitor: &mut dyn Visitor,
) -> Result<Walk, OpenError> {
    let mut walker = Walker {
        disk,
        buffer: Vec::new(),
        loaded: None,
        out: Walk::default(),
        expected: None,
        previous: None,
        visitor,
        wants_hints: false,
    };
    let file_bytes = walker.find_log_id(listing, checkpoint)?;
    walker.wants_hints = hints_above_bytes.is_some_and(|above| file_bytes > above);
    if let Some((log_id, durable_lsn)) = checkpoint
        && walker.out.log_id == Some(log_id)
    {
        walker.out.known_durable = durable_lsn;
    }
    let last = walker.find_last(listing)?;
    walker.forward(listing, last.as_ref())?;
    walker.finish(listing, last.as_ref())?;
    Ok(walker.out)
}

struct Walker<'a, D> {
    disk: &'a D,
    buffer: Vec<u8>,
    /// The segment that is in the buffer.
    loaded: Option<u32>,
    out: Walk,
    /// The number that the next frame must have, once one was seen.
    expected: Option<u64>,
    /// The segment of the frame before, and where that ended.
    previous: Option<(u32, u64)>,
    visitor: &'a mut dyn Visitor,
    wants_hints: bool,
}

/// The last segment that has frames that count.
struct Last {
    segment: u32,
    /// Those.
    scan: Scan,
    /// How many whole frames after them do not count.
    dropped: u64,
}

impl<D: Disk> Walker<'_, D> {
    /// What most of the first frames say that are whole: no payload of a message can be there, and what is
    /// damaged tells nothing. Where none is whole, the checkpoint tells. Returns the bytes of all segments.
    fn find_log_id(
        &mut self,
        listing: &Listing,
        checkpoint: Option<(u32, u64)>,
    ) -> Result<u64, OpenError> {
        let mut file_bytes = 0;
        let mut votes: BTreeMap<u32, usize> = BTreeMap::new();
        for &id in &listing.segments {
            let path = folder::segment_path(id);
            let file = self.disk.open(&path).doing("open", &path)?;
            file_bytes += file.len().doing("measure", &path)?;
            // What cannot be read here is met again, and told, when the whole segment is read.
            let header = self.first_frame(&file).ok().flatten();
            if let Some(header) = header.filter(|header| header.segment == id) {
                *votes.entry(header.log_id).or_default() += 1;
            }
        }
        let winner = votes.into_iter().max_by_key(|&(_, count)| count);
        let winner = winner.map(|(log_id, _)| log_id);
        self.out.log_id = winner.or_else(|| checkpoint.map(|(log_id, _)| log_id));
        Ok(file_bytes)
    }

    /// The header of the frame that `file` begins with, if that is whole.
    fn first_frame(&mut self, file: &D::File) -> io::Result<Option<FrameHeader>> {
        self.buffer.resize(HEADER_BYTES, 0);
        let read = file.read_at(&mut self.buffer, 0)?;
        self.buffer.truncate(read);
        let Some(header) = FrameHeader::parse(&self.buffer) else {
            return Ok(None);
        };
        let whole = header.frame_bytes();
        if !header.is_hole() && whole <= file.len()? {
            self.buffer
                .resize(usize::try_from(whole).unwrap_or(HEADER_BYTES), 0);
            let read = file.read_at(&mut self.buffer, 0)?;
            self.buffer.truncate(read);
        }
        Ok(frame::check(&header, &self.buffer).then_some(header))
    }

    fn load(&mut self, segment: u32) -> Result<Scan, OpenError> {
        let path = folder::segment_path(segment);
        let file = self.disk.open(&path).doing("open", &path)?;
        self.loaded = None;
        if folder::read_all(&file, &mut self.buffer).doing("read", &path)? {
            self.out.sick.insert(segment, crc32c::crc32c(&self.buffer));
        }
        self.loaded = Some(segment);
        let log_id = self.out.log_id;
        let scan = scan::scan(&self.buffer, Wanted { segment, log_id });
        if let Some(version) = scan.newer_version {
            let version = version.into();
            return Err(OpenError::NewerVersion {
                file: path,
                version,
            });
        }
        let first = scan.frames.first();
        self.out.log_id = log_id.or_else(|| first.map(|frame| frame.header.log_id));
        Ok(scan)
    }

    /// Goes back from the end to the first segment with frames that count.
    fn find_last(&mut self, listing: &Listing) -> Result<Option<Last>, OpenError> {
        for &segment in listing.segments.iter().rev() {
            let mut scan = self.load(segment)?;
            let known = scan.frames.iter().map(|frame| match frame.header {
                header if header.is_hole() => header.lsn,
                header => header.durable_lsn,
            });
            self.out.known_durable = known.fold(self.out.known_durable, u64::max);
            let counting = counting_frames(&scan.frames, self.out.known_durable);
            let dropped = (scan.frames.len() - counting) as u64;
            scan.frames.truncate(counting);
            if counting > 0 {
                let oldest = scan.frames.iter().map(|frame| frame.header.oldest_segment);
                self.out.oldest = oldest.max().unwrap_or(0);
                return Ok(Some(Last {
                    segment,
                    scan,
                    dropped,
                }));
            }
            if dropped > 0 || self.is_fresh(&scan) {
                self.out.leftovers.push(segment);
                if self.out.torn.is_none() && (dropped > 0 || scan.is_torn) {
                    self.out.torn = Some(TornTail {
                        segment,
                        offset: 0,
                        frames_dropped: dropped,
                    });
                }
            } else {
                self.out.strays.push(segment);
            }
        }
        Ok(None)
    }

    /// Whether a segment without frames looks like one in which none was ever whole: empty, used before, or
    /// with the first bytes of a frame.
    fn is_fresh(&self, scan: &Scan) -> bool {
        let head = self.buffer.get(..HEADER_BYTES).unwrap_or(&self.buffer);
        let written = head
            .iter()
            .rposition(|&byte| byte != 0)
            .map_or(0, |last| last + 1);
        let magic = frame::MAGIC.to_le_bytes();
        let begins = magic.get(..written).unwrap_or(&magic);
        scan.is_torn || head.starts_with(begins)
    }

    /// Visits all frames that count.
    fn forward(&mut self, listing: &Listing, last: Option<&Last>) -> Result<(), OpenError> {
        let Some(last) = last else {
            return Ok(());
        };
        for &segment in listing.segments.range(..=last.segment) {
            let is_last = segment == last.segment;
            if !is_last && let Some(hint) = self.load_hint(segment, listing)? {
                self.visit_hint(segment, &hint)?;
                continue;
            }
            let is_here = is_last && self.loaded == Some(segment);
            let again = if is_here {
                None
            } else {
                Some(self.load(segment)?)
            };
            let frames = match &again {
                Some(scan) if !is_last => &scan.frames,
                Some(scan) if !scan.frames.starts_with(&last.scan.frames) => {
                    return Err(read_twice(segment).into());
                }
                _ => &last.scan.frames,
            };
            if frames.is_empty() {
                self.out.strays.push(segment);
                continue;
            }
            if segment < self.out.oldest {
                self.out.leftovers.push(segment);
                continue;
            }
            self.begin_segment(segment, frames);
            for frame in frames {
                self.on_frame(segment, frame, None);
            }
            let found = FoundSegment {
                end: frames.last().map_or(0, FrameAt::end),
                file_bytes: self.buffer.len() as u64,
            };
            self.out.segments.insert(segment, found);
        }
        Ok(())
    }

    /// The hint of `segment`, if it is to be believed: if it is whole, and the file begins and ends with the
    /// frames that it tells of.
    fn load_hint(&self, segment: u32, listing: &Listing) -> Result<Option<Hint>, Failure> {
        if !self.wants_hints || !listing.hints.contains(&segment) {
            return Ok(None);
        }
        let Some(file) = folder::open_if_there(self.disk, &folder::hint_path(segment))? else {
            return Ok(None);
        };
        // One that cannot be read is as good as none.
        let bytes = folder::read_file(&file).unwrap_or_default();
        let Some(hint) = Hint::parse(bytes, segment, self.out.log_id.unwrap_or(0)) else {
            return Ok(None);
        };
        let path = folder::segment_path(segment);
        let file = self.disk.open(&path).doing("open", &path)?;
        let header_at = |offset: u64| -> io::Result<Option<FrameHeader>> {
            let mut head = [0; HEADER_BYTES];
            let read = file.read_at(&mut head, offset)?;
            Ok(head.get(..read).and_then(FrameHeader::parse))
        };
        let frames = [hint.frames.first(), hint.frames.last()];
        for frame in frames.into_iter().flatten() {
            // What cannot be read here is met again, and told, when the whole segment is read.
            if header_at(frame.offset.into()).ok() != Some(Some(frame.header)) {
                return Ok(None);
            }
        }
        // The segment was perhaps written on after the hint.
        let Ok(after) = header_at(hint.end()) else {
            return Ok(None);
        };
        let goes_on = after.is_some_and(|header| header.segment == segment);
        let is_short = file.len().doing("measure", &path)? < hint.end();
        Ok(Some(hint).filter(|_| !goes_on && !is_short))
    }

    fn visit_hint(&mut self, segment: u32, hint: &Hint) -> Result<(), Failure> {
        if segment < self.out.oldest {
            self.out.leftovers.push(segment);
            return Ok(());
        }
        self.begin_segment(segment, &hint.frames);
        for (frame, records) in hint.iter() {
            self.on_frame(segment, frame, Some(records));
        }
        let path = folder::segment_path(segment);
        let file = self.disk.open(&path).doing("open", &path)?;
        let found = FoundSegment {
            end: hint.end(),
            file_bytes: file.len().doing("measure", &path)?,
        };
        self.out.segments.insert(segment, found);
        let begins = hint.frames.iter().map(|frame| frame.offset);
        // Fits, or the hint would not have been read: no frame begins beyond what 32 bits can tell.
        let end = u32::try_from(hint.end()).unwrap_or(u32::MAX);
        let first = hint.frames.first();
        let unread = Unread {
            first_lsn: first.map_or(0, |frame| frame.header.lsn),
            bounds: begins.chain([end]).collect(),
        };
        self.out.by_hint.insert(segment, unread);
        Ok(())
    }

    fn begin_segment(&mut self, segment: u32, frames: &[FrameAt]) {
        let is_first = self.previous.is_none();
        if is_first && segment > self.out.oldest && self.out.oldest > 0 {
            let last = frames
                .first()
                .map_or(0, |frame| frame.header.first_lsn().saturating_sub(1));
            self.out.damage.push(Damage {
                segment,
                offset: 0,
                bytes: 0,
                kind: DamageKind::SegmentsMissing,
                missing: Some((None, last)),
                set_aside: None,
            });
            self.out.oldest = segment;
            self.out.needs_mark = true;
        }
    }

    /// `hinted`: the records as a hint tells them; without it, the segment is in the buffer.
    fn on_frame(&mut self, segment: u32, frame: &FrameAt, hinted: Option<&[u8]>) {
        let first = frame.header.first_lsn();
        let in_segment = self.previous.filter(|previous| previous.0 == segment);
        let gap_from = in_segment.map_or(0, |previous| previous.1);
        match self.expected {
            Some(expected) if first > expected => {
                self.on_missing(segment, frame, gap_from, expected);
            }
            None if frame.offset > 0 => self.on_missing(segment, frame, gap_from, 0),
            _ => {}
        }
        self.expected = Some(frame.header.lsn + 1);
        self.previous = Some((segment, frame.end()));
        self.out.frames += 1;
        self.out.bytes += frame.header.frame_bytes();
        if frame.header.is_hole() {
            self.out.known_holes += 1;
            self.out.prev_crc = 0;
            return;
        }
        self.out.prev_crc = frame.header.crc;
        if frame.header.lsn > self.out.known_durable && self.out.unsure_from.is_none() {
            self.out.unsure_from = Some(frame.offset.into());
        }
        let records = match hinted {
            Some(records) => Some(self.visitor.on_hint(segment, frame, records)),
            None => {
                let body = self.buffer.get(frame.body()).unwrap_or_default();
                self.visitor.on_frame(segment, frame, body)
            }
        };
        self.out.records += records.unwrap_or(0);
        if records.is_none() {
            self.out.prev_crc = 0;
            let hole = Hole {
                segment,
                offset: frame.offset.into(),
                bytes: frame.header.frame_bytes(),
                first_lsn: frame.header.lsn,
                last_lsn: frame.header.lsn,
                damage: self.out.damage.len(),
            };
            self.add_hole(hole, DamageKind::Undecodable);
        }
    }

    /// Frames from `first` (0: not known) on are missing before `frame`, which follows them.
    fn on_missing(&mut self, segment: u32, frame: &FrameAt, gap_from: u64, first: u64) {
        let offset = u64::from(frame.offset);
        let is_here = offset > gap_from;
        let (segment, offset, bytes) = match self.previous {
            _ if is_here => (segment, gap_from, offset - gap_from),
            Some((segment, end)) => (segment, end, HEADER_BYTES as u64),
            // The first frame of the first segment: nothing is known to be before it.
            None => return,
        };
        self.add_hole(
            Hole {
                segment,
                offset,
                bytes,
                first_lsn: first,
                last_lsn: frame.header.first_lsn() - 1,
                damage: self.out.damage.len(),
            },
            if is_here {
                DamageKind::Changed
            } else {
                DamageKind::EndMissing
            },
        );
    }

    fn add_hole(&mut self, hole: Hole, kind: DamageKind) {
        self.out.damage.push(Damage {
            segment: hole.segment,
            offset: hole.offset,
            bytes: hole.bytes,
            kind,
            missing: Some((
                (hole.first_lsn > 0).then_some(hole.first_lsn),
                hole.last_lsn,
            )),
            set_aside: None,
        });
        self.out.holes.push(hole);
    }

    /// What is missing at the end.
    fn finish(&mut self, listing: &Listing, last: Option<&Last>) -> Result<(), Failure> {
        let expected = self.expected.unwrap_or(1);
        let known = self.out.known_durable;
        self.out.next_lsn = expected.max(known + 1);
        let lost = (expected <= known).then_some((expected, known));
        match (last, lost) {
            (Some(last), Some((first_lsn, last_lsn))) => {
                self.add_hole(
                    Hole {
                        segment: last.segment,
                        offset: last.scan.end(),
                        bytes: HEADER_BYTES as u64,
                        first_lsn,
                        last_lsn,
                        damage: self.out.damage.len(),
                    },
                    DamageKind::EndMissing,
                );
                self.out.prev_crc = 0;
                self.out.needs_cut = true;
                // They may hold what was lost.
                self.out
                    .strays
                    .extend(self.out.leftovers.iter().filter(|&&id| id > last.segment));
                self.out.leftovers.retain(|&id| id < last.segment);
            }
            (Some(last), None) => {
                self.out.needs_cut = last.scan.is_torn || last.dropped > 0;
                if self.out.needs_cut {
                    self.out.torn = Some(TornTail {
                        segment: last.segment,
                        offset: last.scan.end(),
                        frames_dropped: last.dropped,
                    });
                }
            }
            (None, Some((first_lsn, last_lsn))) => {
                self.out.strays.append(&mut self.out.leftovers);
                let next = listing.segments.last().map_or(1, |id| id + 1);
                self.out.oldest = next;
                self.out.needs_mark = true;
                self.out.damage.push(Damage {
                    segment: next,
                    offset: 0,
                    bytes: 0,
                    kind: DamageKind::SegmentsMissing,
                    missing: Some((Some(first_lsn), last_lsn)),
                    set_aside: None,
                });
            }
            (None, None) => {}
        }
        self.report_strays()
    }

    fn report_strays(&mut self) -> Result<(), Failure> {
        for &segment in &self.out.strays {
            let path = folder::segment_path(segment);
            let file = self.disk.open(&path).doing("open", &path)?;
            self.out.damage.push(Damage {
                segment,
                offset: 0,
                bytes: file.len().doing("measure", &path)?,
                kind: DamageKind::Foreign,
                missing: None,
                set_aside: None,
            });
        }
        Ok(())
    }
}

/// A segment was not the same when it was read again.
fn read_twice(segment: u32) -> Failure {
    Failure {
        doing: format!("read {}", folder::segment_path(segment)),
        error: io::Error::other("the same bytes were read differently"),
    }
}

/// How many of the frames of the last segment count: up to the first that is missing and was not durable.
fn counting_frames(frames: &[FrameAt], known_durable: u64) -> usize {
    let mut expected = None;
    let mut end = 0;
    for (index, frame) in frames.iter().enumerate() {
        let first = frame.header.first_lsn();
        let is_missing = match expected {
            Some(expected) => first > expected && expected > known_durable,
            // The segment before was synced up to here.
            None => u64::from(frame.offset) > end && first > known_durable + 1,
        };
        if is_missing {
            return index;
        }
        expected = Some(frame.header.lsn + 1);
        end = frame.end();
    }
    frames.len()
}
