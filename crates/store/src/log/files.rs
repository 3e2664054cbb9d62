//! The open segments, shared by the writer and its readers.
//!
//! Owns: [`Files`], [`SegmentFile`]; which frames a start has not read, and the check of them when they are
//! wanted. Does not own: when a segment goes (see `writer`). Start reading at [`Files::read`].
//! Invariant: no byte of a frame is given to anybody before the whole frame was found as it was written.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

use super::frame::{self, FrameHeader};
use crate::Location;
use crate::disk::DiskFile;

/// The open files of the log, by segment.
#[derive(Debug)]
pub(crate) struct Files<F> {
    open: Mutex<BTreeMap<u32, Arc<SegmentFile<F>>>>,
    found: Mutex<Found>,
}

/// What was wanted and could not be had, by segment and offset.
#[derive(Debug, Default)]
struct Found {
    /// What was not told of yet.
    untold: BTreeMap<(u32, u32), DamagedPart>,
    /// What the disk did not give, [`UNREADABLE_MAX`] at most.
    unreadable: BTreeSet<(u32, u32)>,
}

/// A frame that is not as it was written, or a record that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DamagedPart {
    pub(crate) bytes: u32,
    /// The number of the frame, if it is known.
    pub(crate) lsn: Option<u64>,
}

/// Frames that a start has not read, one right behind the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unread {
    /// The number of the first.
    pub(crate) first_lsn: u64,
    /// Where they begin, ascending; then where the last one ends.
    pub(crate) bounds: Vec<u32>,
}

/// A segment.
#[derive(Debug)]
pub(crate) struct SegmentFile<F> {
    pub(crate) file: F,
    unchecked: Mutex<Unchecked>,
}

/// What is known of frames that a start has not read. 4 bytes and a bit or two each: there may be many.
#[derive(Debug, Default)]
struct Unchecked {
    frames: Unread,
    /// A bit for each that was found as it was written.
    is_whole: Vec<u64>,
    /// A bit for each that was found damaged; empty until one was.
    is_damaged: Vec<u64>,
}

/// What is known of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Known {
    Whole,
    Damaged,
    /// Nobody has read it; its place among the others.
    Nothing(usize, Range<u32>),
}

impl Unchecked {
    fn new(frames: Unread) -> Self {
        Self {
            is_whole: vec![0; frames.bounds.len().div_ceil(64)],
            is_damaged: Vec::new(),
            frames,
        }
    }

    /// What is known of the frame that this byte is in.
    fn find(&self, offset: u32) -> Known {
        let after = self.frames.bounds.partition_point(|&bound| bound <= offset);
        let place = after.checked_sub(1);
        let bound = |place| self.frames.bounds.get(place).copied();
        let Some((place, (begin, end))) =
            place.and_then(|at| Some((at, bound(at).zip(bound(after))?)))
        else {
            return Known::Whole;
        };
        if has(&self.is_whole, place) {
            Known::Whole
        } else if has(&self.is_damaged, place) {
            Known::Damaged
        } else {
            Known::Nothing(place, begin..end)
        }
    }

    fn set(&mut self, place: usize, is_whole: bool) {
        if !is_whole {
            self.is_damaged.resize(self.is_whole.len(), 0);
        }
        let bits = if is_whole {
            &mut self.is_whole
        } else {
            &mut self.is_damaged
        };
        if let Some(bits) = bits.get_mut(place / 64) {
            *bits |= 1 << (place % 64);
        }
    }
}

fn has(bits: &[u64], place: usize) -> bool {
    bits.get(place / 64)
        .is_some_and(|bits| bits >> (place % 64) & 1 == 1)
}

impl<F> SegmentFile<F> {
    pub(crate) fn new(file: F, unread: Unread) -> Self {
        Self {
            file,
            unchecked: Mutex::new(Unchecked::new(unread)),
        }
    }
}

impl<F: DiskFile> SegmentFile<F> {
    /// Whether a frame is as it was written.
    fn read_frame(&self, segment: u32, bounds: &Range<u32>) -> io::Result<bool> {
        let mut bytes = vec![0; bounds.len()];
        let read = read_twice(&self.file, &mut bytes, bounds.start)?;
        bytes.truncate(read);
        let header = FrameHeader::parse(&bytes);
        Ok(header.is_some_and(|header| {
            let is_all = header.segment == segment && header.frame_bytes() == bytes.len() as u64;
            is_all && !header.is_hole() && frame::check(&header, &bytes)
        }))
    }
}

impl<F> Files<F> {
    pub(crate) fn new(open: BTreeMap<u32, Arc<SegmentFile<F>>>) -> Self {
        Self {
            open: Mutex::new(open),
            found: Mutex::default(),
        }
    }

    /// The file of a segment, unless it was given up.
    pub(crate) fn file(&self, segment: u32) -> Option<Arc<SegmentFile<F>>> {
        lock(&self.open).get(&segment).cloned()
    }

    pub(crate) fn insert(&self, segment: u32, file: F) {
        let file = Arc::new(SegmentFile::new(file, Unread::default()));
        lock(&self.open).insert(segment, file);
    }

    pub(crate) fn remove(&self, segment: u32) -> Option<Arc<SegmentFile<F>>> {
        let of_others = |&(of, _): &(u32, u32)| of != segment;
        lock(&self.found).unreadable.retain(of_others);
        lock(&self.open).remove(&segment)
    }

    /// What was found damaged since this was last asked, by segment and offset.
    pub(crate) fn take_damaged(&self) -> BTreeMap<(u32, u32), DamagedPart> {
        std::mem::take(&mut lock(&self.found).untold)
    }

    /// Takes note of damage; `error` is why it could not be read.
    fn note(
        &self,
        (segment, offset): (u32, u32),
        part: DamagedPart,
        error: Option<io::Error>,
    ) -> io::Result<()> {
        let mut found = lock(&self.found);
        if let Some(error) = error {
            if !is_of_bytes(&error) || found.unreadable.len() >= UNREADABLE_MAX {
                return Err(error);
            }
            found.unreadable.insert((segment, offset));
        }
        found.untold.insert((segment, offset), part);
        Ok(())
    }
}

impl<F: DiskFile> Files<F> {
    /// Fills `bytes` with the record at `at`, which is in `file`; returns whether it could be read. What cannot be
    /// is damage, and is not tried again.
    /// # Errors
    /// What the system says, if it is of something else than the bytes, or if so much cannot be read that it is the
    /// disk or the way to it.
    pub(crate) fn read(
        &self,
        file: &SegmentFile<F>,
        at: Location,
        bytes: &mut [u8],
    ) -> io::Result<bool> {
        let place = (at.segment, at.offset);
        if !self.check(file, at)? || lock(&self.found).unreadable.contains(&place) {
            return Ok(false);
        }
        match read_twice(&file.file, bytes, at.offset) {
            Ok(read) => Ok(read == bytes.len()),
            Err(error) => {
                let part = DamagedPart {
                    bytes: at.len,
                    lsn: None,
                };
                self.note(place, part, Some(error))?;
                Ok(false)
            }
        }
    }

    /// Whether the frame of the record at `at`, which is in `file`, is as it was written. Reads it if that is not
    /// known yet.
    /// # Errors
    /// As with [`Self::read`].
    pub(crate) fn check(&self, file: &SegmentFile<F>, at: Location) -> io::Result<bool> {
        let (place, bounds, first_lsn) = {
            let unchecked = lock(&file.unchecked);
            match unchecked.find(at.offset) {
                Known::Whole => return Ok(true),
                Known::Damaged => return Ok(false),
                Known::Nothing(place, bounds) => (place, bounds, unchecked.frames.first_lsn),
            }
        };
        let (is_whole, error) = match file.read_frame(at.segment, &bounds) {
            Ok(is_whole) => (is_whole, None),
            Err(error) => (false, Some(error)),
        };
        if !is_whole {
            let part = DamagedPart {
                bytes: bounds.end - bounds.start,
                lsn: Some(first_lsn + place as u64),
            };
            self.note((at.segment, bounds.start), part, error)?;
        }
        lock(&file.unchecked).set(place, is_whole);
        Ok(is_whole)
    }
}

/// What cannot be read can, perhaps, when it is asked for again.
fn read_twice<F: DiskFile>(file: &F, bytes: &mut [u8], offset: u32) -> io::Result<usize> {
    file.read_at(bytes, offset.into())
        .or_else(|_| file.read_at(bytes, offset.into()))
}

/// Whether these bytes cannot be read, or are not what the file system knows them to be.
fn is_of_bytes(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::IO | Errno::BADMSG))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Frames and records that may be unreadable before nothing more is taken for damage.
const UNREADABLE_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_unchecked_from_its_first_byte_to_its_last_until_it_is_checked() {
        let bounds: Vec<u32> = (0..=200).map(|place| 100 + 10 * place).collect();
        let first_lsn = 1;
        let mut unchecked = Unchecked::new(Unread { first_lsn, bounds });
        assert_eq!(unchecked.find(99), Known::Whole);
        assert_eq!(unchecked.find(2100), Known::Whole);
        for place in 0..200 {
            let offset = 100 + 10 * u32::try_from(place).unwrap();
            let nothing = Known::Nothing(place, offset..offset + 10);
            assert_eq!(unchecked.find(offset), nothing);
            assert_eq!(unchecked.find(offset + 9), nothing);
            let is_whole = place % 3 > 0;
            unchecked.set(place, is_whole);
            let known = if is_whole {
                Known::Whole
            } else {
                Known::Damaged
            };
            assert_eq!(unchecked.find(offset + 9), known);
        }
        assert_eq!(Unchecked::default().find(0), Known::Whole);
    }
}
