//! The blocks of one file that cannot be read.
//!
//! Owns: [`Sick`]: which they are, and which calls fail over them. Does not own: when one becomes so (see
//! [`super::FaultDisk::spoil`]). Start reading at [`Sick`]. Invariant: a block is well again only when all of it
//! was written, or the file ends before it.

use std::collections::BTreeSet;
use std::ops::Range;

/// Blocks of a file, by number.
#[derive(Clone, Debug, Default)]
pub(super) struct Sick(BTreeSet<u64>);

impl Sick {
    pub(super) fn spoil(&mut self, offset: u64) {
        self.0.insert(offset / BLOCK_BYTES);
    }

    /// Whether these bytes can be read.
    pub(super) fn can_read(&self, bytes: Range<u64>) -> bool {
        let blocks = bytes.start / BLOCK_BYTES..bytes.end.div_ceil(BLOCK_BYTES);
        blocks.is_empty() || self.0.range(blocks).next().is_none()
    }

    /// Whether these bytes can be written: the system reads what is beside them in their blocks.
    pub(super) fn can_write(&self, bytes: &Range<u64>) -> bool {
        let (first, end) = (bytes.start / BLOCK_BYTES, bytes.end / BLOCK_BYTES);
        let is_well = |block: u64| !self.0.contains(&block);
        (bytes.start.is_multiple_of(BLOCK_BYTES) || is_well(first))
            && (bytes.end.is_multiple_of(BLOCK_BYTES) || is_well(end))
    }

    /// These bytes were written.
    pub(super) fn write(&mut self, bytes: &Range<u64>) {
        let whole = bytes.start.div_ceil(BLOCK_BYTES)..bytes.end / BLOCK_BYTES;
        self.0.retain(|block| !whole.contains(block));
    }

    /// The file has this length now.
    pub(super) fn set_len(&mut self, len: u64) {
        self.0.split_off(&len.div_ceil(BLOCK_BYTES));
    }
}

/// What a disk reads and writes as a whole.
const BLOCK_BYTES: u64 = 4096;
