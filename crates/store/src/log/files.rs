//! The open segments, shared by the writer and its readers.
//!
//! Owns: [`Files`], [`SegmentFile`]; which frames a start has not read, and the check of them when they are
//! wanted. Does not own: when a segment goes (see `writer`). Start reading at [`SegmentFile::check`].
//! Invariant: no byte of a frame is given to anybody before the whole frame was found as it was written.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::frame::{self, FrameHeader};
use crate::Location;
use crate::disk::DiskFile;

/// The open files of the log, by segment.
#[derive(Debug)]
pub(crate) struct Files<F> {
    open: Mutex<BTreeMap<u32, Arc<SegmentFile<F>>>>,
    /// Segment and offset of frames that were wanted and found damaged.
    damaged: Mutex<BTreeSet<(u32, u32)>>,
}

/// A segment.
#[derive(Debug)]
pub(crate) struct SegmentFile<F> {
    pub(crate) file: F,
    unchecked: Mutex<Unchecked>,
}

/// Frames that nobody has read yet, one right behind the other. 4 bytes and a bit each: there may be many.
#[derive(Debug, Default)]
struct Unchecked {
    /// Where they begin, ascending; then where the last one ends.
    bounds: Vec<u32>,
    /// A bit for each that was found as it was written.
    is_checked: Vec<u64>,
}

impl Unchecked {
    /// The frame at `offset` that is not checked, by its place.
    fn find(&self, offset: u32) -> Option<usize> {
        let after = self.bounds.partition_point(|&bound| bound <= offset);
        let place = after.checked_sub(1).filter(|_| after < self.bounds.len())?;
        let bits = self.is_checked.get(place / 64)?;
        (bits >> (place % 64) & 1 == 0).then_some(place)
    }

    fn set_checked(&mut self, place: usize) {
        if let Some(bits) = self.is_checked.get_mut(place / 64) {
            *bits |= 1 << (place % 64);
        }
    }
}

impl<F> SegmentFile<F> {
    /// `bounds`: where the frames begin that nobody has read, and where the last one ends.
    pub(crate) fn new(file: F, bounds: Vec<u32>) -> Self {
        let is_checked = vec![0; bounds.len().div_ceil(64)];
        Self {
            file,
            unchecked: Mutex::new(Unchecked { bounds, is_checked }),
        }
    }
}

impl<F: DiskFile> SegmentFile<F> {
    /// Whether the frame with the record at `at` is as it was written; where it begins if not. Reads it if
    /// that is not known yet.
    fn check(&self, at: Location) -> io::Result<Result<(), u32>> {
        let (place, bounds) = {
            let unchecked = lock(&self.unchecked);
            let Some(place) = unchecked.find(at.offset) else {
                return Ok(Ok(()));
            };
            (
                place,
                unchecked.bounds.get(place..=place + 1).map(<[u32]>::to_vec),
            )
        };
        let Some(&[offset, end]) = bounds.as_deref() else {
            return Ok(Err(at.offset));
        };
        let mut bytes = vec![0; (end - offset) as usize];
        let read = self.file.read_at(&mut bytes, offset.into())?;
        bytes.truncate(read);
        let header = FrameHeader::parse(&bytes);
        let is_whole = header.is_some_and(|header| {
            let is_all = header.segment == at.segment && header.frame_bytes() == bytes.len() as u64;
            is_all && !header.is_hole() && frame::check(&header, &bytes)
        });
        if !is_whole {
            return Ok(Err(offset));
        }
        lock(&self.unchecked).set_checked(place);
        Ok(Ok(()))
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
    /// Whether the record at `at`, which is in `file`, can be read.
    pub(crate) fn check(&self, file: &SegmentFile<F>, at: Location) -> io::Result<bool> {
        let checked = file.check(at)?;
        if let Err(offset) = checked {
            lock(&self.damaged).insert((at.segment, offset));
        }
        Ok(checked.is_ok())
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
        let is_checked = vec![0; bounds.len().div_ceil(64)];
        let mut unchecked = Unchecked { bounds, is_checked };
        assert_eq!((unchecked.find(99), unchecked.find(2100)), (None, None));
        for place in 0..200 {
            let offset = 100 + 10 * u32::try_from(place).unwrap();
            assert_eq!(unchecked.find(offset), Some(place));
            assert_eq!(unchecked.find(offset + 9), Some(place));
            unchecked.set_checked(place);
            assert_eq!(unchecked.find(offset + 9), None);
        }
        assert_eq!(Unchecked::default().find(0), None);
    }
}
