//! How many bytes of each segment still count.
//!
//! Owns: [`Segments`]. Does not own: which records these are. Start reading at [`Segments::add`].
//! Invariant: the total is the sum over all segments.

use super::Location;

#[derive(Debug, Default)]
pub(super) struct Segments {
    /// Ascending by segment; few, and mostly the last is meant.
    live: Vec<(u32, u64)>,
    total: u64,
}

impl Segments {
    pub(super) fn add(&mut self, at: Location) {
        self.total += u64::from(at.len);
        match self.search(at.segment) {
            Ok(place) => self.live[place].1 += u64::from(at.len),
            Err(place) => self.live.insert(place, (at.segment, u64::from(at.len))),
        }
    }

    /// Takes away what [`Self::add`] added.
    pub(super) fn subtract(&mut self, at: Location) {
        let place = self.search(at.segment);
        let place = place.expect("invariant: what is taken away was added");
        self.live[place].1 -= u64::from(at.len);
        self.total -= u64::from(at.len);
        if self.live[place].1 == 0 {
            self.live.remove(place);
        }
    }

    pub(super) fn live_bytes(&self, segment: u32) -> u64 {
        self.search(segment).map_or(0, |place| self.live[place].1)
    }

    pub(super) const fn total(&self) -> u64 {
        self.total
    }

    fn search(&self, segment: u32) -> Result<usize, usize> {
        match self.live.last() {
            Some(&(last, _)) if last == segment => Ok(self.live.len() - 1),
            Some(&(last, _)) if last < segment => Err(self.live.len()),
            _ => self.live.binary_search_by_key(&segment, |&(of, _)| of),
        }
    }
}
