//! The open segments, shared by the writer and its readers.
//!
//! Owns: [`Files`], [`SegmentFile`]; which frames a start has not read, and the check of them when they are
//! wanted. Does not own: when a segment goes (see `writer`). Start reading at [`Files::check`].
//! Invariant: no byte of a frame is given to anybody before the whole frame was found as it was written.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::frame::{self, FrameHeader};
use crate::Location;
use crate::disk::DiskFile;

/// The open files of the log, by segment.
#[derive(Debug)]
pub(crate) struct Files<F> {
    open: Mutex<BTreeMap<u32, Arc<SegmentFile<F>>>>,
    /// Segment and offset of frames that were wanted and found damaged, and were not told of yet.
    damaged: Mutex<BTreeSet<(u32, u32)>>,
}

/// A segment.
#[derive(Debug)]
pub(crate) struct SegmentFile<F> {
    pub(crate) file: F,
    unchecked: Mutex<Unchecked>,
}

/// Frames that a start has not read, one right behind the other. 4 bytes and a bit or two each: there may be many.
#[derive(Debug, Default)]
struct Unchecked {
    /// Where they begin, ascending; then where the last one ends.
    bounds: Vec<u32>,
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
    fn new(bounds: Vec<u32>) -> Self {
        Self {
            is_whole: vec![0; bounds.len().div_ceil(64)],
            is_damaged: Vec::new(),
            bounds,
        }
    }

    /// What is known of the frame that this byte is in.
    fn find(&self, offset: u32) -> Known {
        let after = self.bounds.partition_point(|&bound| bound <= offset);
        let place = after.checked_sub(1);
        let bound = |place| self.bounds.get(place).copied();
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
    /// `bounds`: where the frames begin that nobody has read, and where the last one ends.
    pub(crate) fn new(file: F, bounds: Vec<u32>) -> Self {
        Self {
            file,
            unchecked: Mutex::new(Unchecked::new(bounds)),
        }
    }
}

impl<F: DiskFile> SegmentFile<F> {
    /// Whether a frame is as it was written.
    fn read_frame(&self, segment: u32, bounds: &Range<u32>) -> io::Result<bool> {
        let mut bytes = vec![0; bounds.len()];
        let read = self.file.read_at(&mut bytes, bounds.start.into())?;
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
            damaged: Mutex::default(),
        }
    }

    /// The file of a segment, unless it was given up.
    pub(crate) fn file(&self, segment: u32) -> Option<Arc<SegmentFile<F>>> {
        lock(&self.open).get(&segment).cloned()
    }

    pub(crate) fn insert(&self, segment: u32, file: F) {
        lock(&self.open).insert(segment, Arc::new(SegmentFile::new(file, Vec::new())));
    }

    pub(crate) fn remove(&self, segment: u32) -> Option<Arc<SegmentFile<F>>> {
        lock(&self.open).remove(&segment)
    }

    /// Those found since this was last asked.
    pub(crate) fn take_damaged(&self) -> BTreeSet<(u32, u32)> {
        std::mem::take(&mut lock(&self.damaged))
    }
}

impl<F: DiskFile> Files<F> {
    /// Whether the record at `at`, which is in `file`, can be read: whether its frame is as it was written. Reads
    /// that if it is not known yet.
    pub(crate) fn check(&self, file: &SegmentFile<F>, at: Location) -> io::Result<bool> {
        let (place, bounds) = match lock(&file.unchecked).find(at.offset) {
            Known::Whole => return Ok(true),
            Known::Damaged => return Ok(false),
            Known::Nothing(place, bounds) => (place, bounds),
        };
        let is_whole = file.read_frame(at.segment, &bounds)?;
        if !is_whole {
            lock(&self.damaged).insert((at.segment, bounds.start));
        }
        lock(&file.unchecked).set(place, is_whole);
        Ok(is_whole)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_unchecked_from_its_first_byte_to_its_last_until_it_is_checked() {
        let bounds: Vec<u32> = (0..=200).map(|place| 100 + 10 * place).collect();
        let mut unchecked = Unchecked::new(bounds);
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
