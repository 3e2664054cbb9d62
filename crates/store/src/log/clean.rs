//! Giving back the space of what does not count any more.
//!
//! Owns: [`Log::clean`]: which segment, how much at a time. Does not own: what counts (see the index), when
//! a file can go (see `writer`). Start reading at [`Log::clean`].
//! Invariants: the oldest segment first, so that what takes a record away never goes before the record;
//! what counts in a segment is written again, and durable, before the segment goes.

use super::folder;
use super::frame::{self, FrameHeader, HEADER_BYTES};
use super::options::{Doing, Failure, LogError, is_full};
use super::report::{Damage, DamageKind};
use super::scan::{self, Wanted};
use super::{Log, location};
use crate::Alarms;
use crate::codec::Records;
use crate::disk::{Disk, DiskFile};

/// What a call of [`Log::clean`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Bytes of records written again.
    pub moved_bytes: u64,
    /// Segments that go with the next sync.
    pub segments: u64,
    /// Whether there is more to do.
    pub has_more: bool,
}

/// How far the oldest segment is moved.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cursor {
    segment: u32,
    /// Of the frame.
    offset: u64,
    /// Bytes of its body that are done.
    done: usize,
    /// Next to nothing of the segment can be read.
    is_stuck: bool,
}

/// What may be done in one call.
#[derive(Debug)]
struct Budget {
    moved: u64,
    moved_max: u64,
    read: u64,
    read_max: u64,
}

impl Budget {
    const fn is_spent(&self) -> bool {
        self.moved >= self.moved_max || self.read >= self.read_max
    }
}

impl<D: Disk> Log<D> {
    /// How much [`Self::clean`] may move, for what was written since it was last called: twice that.
    #[must_use]
    pub const fn clean_budget(&self) -> u64 {
        self.accepted_bytes.saturating_mul(2)
    }

    /// Moves what counts out of the oldest segments, if the log has more than it should, at most
    /// `budget_bytes` and 1 MiB (and one record); gives up segments in which nothing counts. What it wrote is
    /// to be synced like everything else; a segment goes with the sync after the last of it was written.
    /// # Errors
    /// [`LogError`]
    pub fn clean(&mut self, budget_bytes: u64) -> Result<Cleaned, LogError> {
        self.attempt(|log| {
            log.accepted_bytes = 0;
            log.write_owed()?;
            log.clean_within(budget_bytes.min(MOVED_BYTES_MAX))
        })
    }

    fn clean_within(&mut self, moved_max: u64) -> Result<Cleaned, Failure> {
        let mut budget = Budget {
            moved: 0,
            moved_max,
            read: 0,
            read_max: moved_max.saturating_mul(4),
        };
        let mut segments = 0;
        let has_more = loop {
            let Some((segment, end)) = self.writer.oldest_ended() else {
                break false;
            };
            if self.cursor.segment != segment {
                self.cursor = Cursor {
                    segment,
                    ..Cursor::default()
                };
            }
            if self.cursor.offset >= end || self.index.lock().live_bytes_of(segment) == 0 {
                self.writer.announce();
                segments += 1;
            } else if self.cursor.is_stuck || !self.is_over() {
                break false;
            } else if budget.is_spent() {
                break true;
            } else {
                self.move_some(end, &mut budget)?;
            }
        };
        if self.writer.owes_mark() {
            self.begin_frame();
            self.append_frame()?;
        }
        Ok(Cleaned {
            moved_bytes: budget.moved,
            segments,
            has_more,
        })
    }

    /// Whether the log has more bytes than it should, or soon will.
    fn is_over(&self) -> bool {
        let segment = self.writer.segment_bytes();
        let live = self.index.lock().live_bytes();
        let of_live = live.saturating_mul(self.options.clean_percent) / 100;
        let limit = of_live.max(self.options.clean_segments.saturating_mul(segment));
        self.writer.bytes() + segment > limit
    }

    /// Moves what counts in the frames from the cursor on, or in a part of one, into one frame. Frames of one small
    /// record each would stay as large as they are otherwise, and the log be cleaned without an end.
    fn move_some(&mut self, end: u64, budget: &mut Budget) -> Result<(), Failure> {
        let mut frame = match self.read_frame() {
            Some(frame) => Some(frame),
            None => self.read_segment(end)?,
        };
        self.begin_frame();
        while let Some(found) = frame {
            budget.read += found.len() as u64;
            let is_full = self.take_frame(&found, budget);
            if is_full || self.cursor.offset >= end || budget.is_spent() {
                break;
            }
            // What cannot be read is looked at in the next round.
            frame = self.read_frame();
        }
        self.end_frame()
    }

    /// Takes what counts in the frame at the cursor; whether that filled the new one.
    fn take_frame(&mut self, frame: &[u8], budget: &mut Budget) -> bool {
        let header = FrameHeader::parse(frame).unwrap_or_default();
        if header.is_hole() {
            self.pass_frame(header.frame_bytes());
            return false;
        }
        let Cursor {
            segment,
            offset,
            done,
            ..
        } = self.cursor;
        let offset = u32::try_from(offset).expect("invariant: segments are below 4 GiB");
        let body_end = HEADER_BYTES + header.body_len as usize;
        let body = frame.get(HEADER_BYTES..body_end).unwrap_or_default();
        let index = self.index.lock();
        let mut next = None;
        for found in Records::new(body.get(done..).unwrap_or_default()) {
            // Not a record: recovery has said so.
            let Ok((start, len, record)) = found else {
                break;
            };
            if budget.is_spent() || self.buffer.len() >= self.options.frame_bytes_max() {
                next = Some(done + start);
                break;
            }
            if let Some(kept) = index.kept(location(segment, offset, done + start, len), &record) {
                let before = self.buffer.len();
                kept.encode(&mut self.buffer);
                budget.moved += (self.buffer.len() - before) as u64;
            }
        }
        drop(index);
        match next {
            Some(done) => self.cursor.done = done,
            None => self.pass_frame(header.frame_bytes()),
        }
        next.is_some()
    }

    fn pass_frame(&mut self, bytes: u64) {
        self.cursor.offset += bytes;
        self.cursor.done = 0;
    }

    /// The frame at the cursor; `None` if it cannot be read, or is not as it was written.
    fn read_frame(&self) -> Option<Vec<u8>> {
        let Cursor {
            segment, offset, ..
        } = self.cursor;
        let file = self.writer.files().file(segment);
        let file = file.expect("invariant: a segment that is needed is open");
        let mut head = [0; HEADER_BYTES];
        let read = file.file.read_at(&mut head, offset).ok()?;
        let header = FrameHeader::parse(head.get(..read)?)?;
        if header.segment != segment {
            return None;
        }
        if header.is_hole() {
            return frame::check(&header, &head).then(|| head.to_vec());
        }
        let len = file.file.len().ok()?.saturating_sub(offset);
        let len = header.frame_bytes().min(len);
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        let read = file.file.read_at(&mut bytes, offset).ok()?;
        bytes.truncate(read);
        frame::check(&header, &bytes).then_some(bytes)
    }

    /// The frame at the cursor, if it is there when the whole segment is read; if not, something has changed since
    /// the start: tells, and goes on behind it.
    fn read_segment(&mut self, end: u64) -> Result<Option<Vec<u8>>, Failure> {
        let segment = self.cursor.segment;
        let at = self.cursor.offset;
        let file = self.writer.files().file(segment);
        let file = file.expect("invariant: a segment that is needed is open");
        let mut bytes = Vec::new();
        if folder::read_all(&file.file, &mut bytes).is_err() {
            // What is wrong may be gone at the next start: nothing is given up for it.
            self.cursor.is_stuck = true;
            self.writer.keep_aside(segment);
            self.on_damage(damage(segment, at, end - at, DamageKind::Unreadable))?;
            return Ok(None);
        }
        let log_id = Some(self.writer.log_id());
        let frames = scan::scan(&bytes, Wanted { segment, log_id }).frames;
        if let Some(frame) = frames.iter().find(|frame| u64::from(frame.offset) == at) {
            let bytes = bytes.get(frame.offset as usize..).unwrap_or_default();
            let len = usize::try_from(frame.header.frame_bytes()).unwrap_or(usize::MAX);
            return Ok(Some(bytes.get(..len).unwrap_or(bytes).to_vec()));
        }
        let next = frames.iter().find(|frame| u64::from(frame.offset) > at);
        let next_offset = next.map_or(end, |frame| frame.offset.into());
        self.cursor = Cursor {
            segment,
            offset: next_offset,
            ..Cursor::default()
        };
        let before = frames.iter().rfind(|frame| u64::from(frame.offset) < at);
        let behind = next.map(|frame| frame.header);
        let missing = behind
            .or_else(|| self.first_header(segment + 1))
            .map(|next| {
                let first = before.map(|frame| frame.header.lsn + 1);
                (first, next.first_lsn().saturating_sub(1))
            });
        self.writer.note_damage(segment)?;
        self.on_damage(Damage {
            missing,
            ..damage(segment, at, next_offset - at, DamageKind::Changed)
        })?;
        Ok(None)
    }

    /// Of the first frame of a segment, which nobody has to have checked: it is for what is told only.
    fn first_header(&self, segment: u32) -> Option<FrameHeader> {
        let file = self.writer.files().file(segment)?;
        let mut head = [0; HEADER_BYTES];
        file.file.read_at(&mut head, 0).ok()?;
        let header = FrameHeader::parse(&head)?;
        (header.segment == segment && header.log_id == self.writer.log_id()).then_some(header)
    }

    /// Tells of what was found damaged since the start by who wanted it.
    pub(super) fn tell_damaged(&mut self) -> Result<(), Failure> {
        for ((segment, offset), part) in self.writer.files().take_damaged() {
            self.writer.note_damage(segment)?;
            let (offset, bytes) = (offset.into(), part.bytes.into());
            self.on_damage(Damage {
                missing: part.lsn.map(|lsn| (Some(lsn), lsn)),
                ..damage(segment, offset, bytes, DamageKind::Changed)
            })?;
        }
        Ok(())
    }

    fn on_damage(&mut self, damage: Damage) -> Result<(), Failure> {
        let is_known = self.found_damage.iter().any(|known| {
            let place = |of: &Damage| (of.segment, of.offset, of.kind);
            place(known) == place(&damage)
        });
        if is_known {
            return Ok(());
        }
        let mut alarms = Alarms::open(self.writer.disk().clone()).doing("open", "the alarms")?;
        match alarms.raise(&damage.to_string(), self.options.now) {
            Err(error) if is_full(&error) => {}
            result => result.doing("raise", "an alarm")?,
        }
        self.found_damage.push(damage);
        Ok(())
    }
}

const fn damage(segment: u32, offset: u64, bytes: u64, kind: DamageKind) -> Damage {
    Damage {
        segment,
        offset,
        bytes,
        kind,
        missing: None,
        set_aside: None,
    }
}

/// Moved in one call, at most.
const MOVED_BYTES_MAX: u64 = 1 << 20;
