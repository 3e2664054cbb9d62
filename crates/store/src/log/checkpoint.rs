//! How far the log was durable when it was last asked: what tells a lost end from a torn one.
//!
//! Owns: the file `CHECKPOINT`. Does not own: what is made of it. Start reading at [`Checkpoint::read`].
//! Invariants: it never says more than is durable; it is written after each sync of the log and never
//! synced itself but at a start, so it survives the process exactly and a loss of power roughly.
//!
//! Two slots, 4096 bytes apart, written in turn: magic u32 | crc32c u32 | log_id u32 | 0 u32 | count u64 |
//! durable_lsn u64. The checksum covers what follows it. The slot with the larger count is the later one.

use super::folder;
use super::frame::LSN_MAX;
use super::options::{Doing, Failure};
use crate::disk::{Disk, DiskFile};

/// The open file.
#[derive(Debug)]
pub(crate) struct Checkpoint<F> {
    /// `None` if the disk is too full to have one.
    file: Option<F>,
    count: u64,
    /// What was found: the log, and how far it was durable.
    pub(crate) found: Option<(u32, u64)>,
}

impl<F: DiskFile> Checkpoint<F> {
    /// Reads what there is.
    pub(crate) fn read<D: Disk<File = F>>(disk: &D) -> Result<Self, Failure> {
        let file = folder::open_if_there(disk, NAME)?;
        let bytes = match &file {
            Some(file) => folder::read_file(file).doing("read", NAME)?,
            None => Vec::new(),
        };
        let slots = [0, SLOT_DISTANCE].map(|at| bytes.get(at..).and_then(parse));
        let latest = slots.into_iter().flatten().max_by_key(|slot| slot.1);
        Ok(Self {
            file,
            count: latest.map_or(0, |slot| slot.1),
            found: latest.map(|(log_id, _, durable_lsn)| (log_id, durable_lsn)),
        })
    }

    /// Makes the file if it is not there. Its name is not durable by that.
    pub(crate) fn make<D: Disk<File = F>>(&mut self, disk: &D) -> Result<(), Failure> {
        if self.file.is_none() {
            self.file = match disk.create(NAME) {
                Err(error) if super::options::is_full(&error) => None,
                result => Some(result.doing("make", NAME)?),
            };
        }
        Ok(())
    }

    /// Notes that the log is durable up to `durable_lsn`.
    pub(crate) fn write(&mut self, log_id: u32, durable_lsn: u64) -> Result<(), Failure> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        self.count += 1;
        let mut slot = [0; SLOT_BYTES];
        slot[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        slot[8..12].copy_from_slice(&log_id.to_le_bytes());
        slot[16..24].copy_from_slice(&self.count.to_le_bytes());
        slot[24..32].copy_from_slice(&durable_lsn.to_le_bytes());
        let crc = crc32c::crc32c(&slot[8..]);
        slot[4..8].copy_from_slice(&crc.to_le_bytes());
        let offset = if self.count.is_multiple_of(2) {
            0
        } else {
            SLOT_DISTANCE
        };
        match file.write_at(&slot, offset as u64) {
            // Better none than an old one: nothing is lost but some knowledge.
            Err(error) if super::options::is_full(&error) => {
                self.file = None;
                Ok(())
            }
            result => result.doing("write", NAME),
        }
    }

    /// Makes what was written durable.
    pub(crate) fn sync(&self) -> Result<(), Failure> {
        self.file
            .as_ref()
            .map_or(Ok(()), |file| file.sync().doing("sync", NAME))
    }
}

/// Log, count, durable number.
fn parse(bytes: &[u8]) -> Option<(u32, u64, u64)> {
    let slot: &[u8; SLOT_BYTES] = bytes.first_chunk()?;
    let u32_at = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|i| slot[at + i]));
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    let is_whole = u32_at(0) == MAGIC && u32_at(4) == crc32c::crc32c(&slot[8..]);
    let slot = is_whole.then(|| (u32_at(8), u64_at(16), u64_at(24)));
    slot.filter(|slot| slot.1.max(slot.2) <= LSN_MAX)
}

/// Of the file, in the data folder.
pub(crate) const NAME: &str = "CHECKPOINT";
const MAGIC: u32 = u32::from_le_bytes(*b"vchk");
const SLOT_BYTES: usize = 32;
const SLOT_DISTANCE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::fault::{FaultDisk, FaultPlan};

    #[test]
    fn the_later_of_two_slots_counts_and_a_damaged_one_does_not() {
        let disk = FaultDisk::new(1, FaultPlan::default());
        let mut checkpoint = Checkpoint::read(&disk).unwrap();
        assert_eq!(checkpoint.found, None);
        checkpoint.make(&disk).unwrap();
        checkpoint.write(5, 10).unwrap();
        checkpoint.write(5, 20).unwrap();
        assert_eq!(Checkpoint::read(&disk).unwrap().found, Some((5, 20)));
        assert!(disk.flip(NAME, 30, 1));
        let mut checkpoint = Checkpoint::read(&disk).unwrap();
        assert_eq!(checkpoint.found, Some((5, 10)));
        checkpoint.write(5, 30).unwrap();
        assert_eq!(Checkpoint::read(&disk).unwrap().found, Some((5, 30)));
    }
}
