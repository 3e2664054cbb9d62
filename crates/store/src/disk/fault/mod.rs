//! A disk in memory that fails by seed: for tests of what a crash or a bad disk costs.
//!
//! Owns: [`FaultDisk`], and the fault model below. Does not own: what is written to it.
//! Start reading at [`FaultDisk`]. Invariant: the same seeds and the same calls give the same bytes.
//!
//! # The fault model
//!
//! **Durable** are the bytes and the length of a file after [`DiskFile::sync`], and the names in a folder
//! after [`Disk::sync_dir`] of that folder, which is itself a name in the folder above it.
//!
//! **Loss of power** ([`FaultDisk::crash`]) keeps what is durable. Of the rest, the seed decides:
//! - all of it is lost; or all is kept; or what the calls up to one call did is kept, with a part of that call's;
//!   or each change is kept, lost or torn by itself, whatever its order;
//! - a torn write leaves its first bytes, or any of the 512-byte sectors it touches; a sector is never half
//!   written, so no torn write harms bytes beside it; a file can have its new length, with zeros in it,
//!   without the new bytes;
//! - a name that was made, changed or removed is as before or as after. A file whose name was not durable is
//!   gone although its bytes were; a folder that was not durable is gone with all that is in it; a file that
//!   was removed may be there again, as it was;
//! - a rename within a folder happened or did not. One into another folder needs both folders synced: by
//!   that of the new name alone, the file may keep the old name, too. It never has no name.
//!
//! **End of the process** ([`FaultDisk::kill`]) keeps what every call did that has returned, durable or not:
//! what was not durable still is not, and a loss of power after it may take it.
//!
//! **In the middle of a call:** [`FaultPlan::stop_at_call`] ends everything there: a write may have
//! written some of its first bytes, a change of names may have happened, nothing returns success any more.
//!
//! **Errors:** the n-th write, read, sync or change of names fails with EIO ([`FaultPlan`]). A write that fails
//! may have written its first bytes. After a sync that failed, what it was to make durable is lost or not,
//! as in a loss of power, and later syncs do not make up for it: files go on reading as if it was there.
//! A full disk ([`FaultPlan::quota_bytes`]) writes what fits and fails with ENOSPC; the length of a file counts
//! with holes; what a removed or replaced file took is free at once.
//!
//! **Bytes that rot:** [`FaultDisk::flip`] changes a byte where it lies.
//!
//! **Blocks that are sick:** after [`FaultDisk::spoil`], a block of 4096 bytes cannot be read (EIO), whoever opens
//! the file, until all of it was written by one call or the file was cut before it. What writes or cuts a part of
//! it fails, too, and changes nothing.
//!
//! Not modelled: a sync that lies, a sector that rots into another file's bytes, reads of fewer bytes than
//! there are (the trait excludes them), the loss of a write that made a block well, time (calls are counted instead).

mod chance;
mod crash;
mod image;
mod names;
mod sick;
mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Disk, DiskFile};
use state::State;

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Debug)]
pub struct FaultDisk {
    state: Arc<Mutex<State>>,
}

/// An open file of a [`FaultDisk`].
#[derive(Debug)]
pub struct FaultFile {
    disk: FaultDisk,
    file: u64,
}

/// What goes wrong. Calls are counted from 1, each kind by itself, from when the plan was set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// This call of any kind happens in part, or not, and everything from it on fails.
    pub stop_at_call: Option<u64>,
    /// This write (or change of a length) fails with EIO.
    pub write_error_at: Option<u64>,
    /// This sync of a file or folder fails with EIO.
    pub sync_error_at: Option<u64>,
    /// This read fails with EIO.
    pub read_error_at: Option<u64>,
    /// This creation, rename, removal or opening fails with EIO.
    pub name_error_at: Option<u64>,
    /// The calls of the kind that follow the one that failed fail, too.
    pub errors_last: bool,
    /// Bytes that all files may have together.
    pub quota_bytes: Option<u64>,
}

/// How many calls there were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Of any kind, those that failed included.
    pub all: u64,
    /// Of [`DiskFile::write_at`], [`DiskFile::set_len`], [`DiskFile::allocate`].
    pub writes: u64,
    /// Of [`DiskFile::sync`] and [`Disk::sync_dir`].
    pub syncs: u64,
    /// Of [`DiskFile::read_at`], [`DiskFile::len`], [`Disk::list`].
    pub reads: u64,
    /// Of [`Disk::create`], [`Disk::open`], [`Disk::rename`], [`Disk::remove`], [`Disk::make_dir`].
    pub names: u64,
    /// Bytes of all writes that succeeded.
    pub written_bytes: u64,
}

impl FaultDisk {
    /// An empty disk. `seed` decides what is left of a call that failed.
    #[must_use]
    pub fn new(seed: u64, plan: FaultPlan) -> Self {
        Self::from_state(State::new(seed, plan))
    }

    /// From now on, this goes wrong; the counts of [`Self::calls`] begin anew.
    pub fn set_plan(&self, plan: FaultPlan) {
        self.state().set_plan(plan);
    }

    /// What a machine finds here if it loses its power now: another disk, that has no plan.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        Self::from_state(self.state().crash(seed))
    }

    /// What the next process finds here if this one ends now: another disk, that has no plan.
    #[must_use]
    pub fn kill(&self) -> Self {
        Self::from_state(self.state().kill())
    }

    /// From now on, every call fails, as after [`FaultPlan::stop_at_call`].
    pub fn stop(&self) {
        self.state().is_stopped = true;
    }

    /// Whether [`FaultPlan::stop_at_call`] was reached, or [`Self::stop`] called.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.state().is_stopped
    }

    /// Whether something was planned to go wrong.
    #[must_use]
    pub fn has_plan(&self) -> bool {
        self.state().has_plan()
    }

    /// How many calls there were since the plan was set.
    #[must_use]
    pub fn calls(&self) -> Calls {
        self.state().calls
    }

    /// Bytes of all files.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state().used_bytes()
    }

    /// The names of all files, with their folders, sorted.
    #[must_use]
    pub fn file_names(&self) -> Vec<String> {
        self.state().names.live.keys().cloned().collect()
    }

    /// All that is in a file, if there is one.
    #[must_use]
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        self.state().contents(name)
    }

    /// Puts a file there, and its folders, as if all of it had always been: durable, and no call.
    pub fn plant(&self, name: &str, bytes: &[u8]) {
        self.state().plant(name, bytes);
    }

    /// Flips bits of a byte where it lies; false if there is no such byte.
    #[must_use]
    pub fn flip(&self, name: &str, offset: u64, bits: u8) -> bool {
        self.state().flip(name, offset, bits)
    }

    /// From now on, the block with this byte cannot be read; false if there is no such byte.
    #[must_use]
    pub fn spoil(&self, name: &str, offset: u64) -> bool {
        self.state().spoil(name, offset)
    }

    fn from_state(state: State) -> Self {
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, file: u64) -> FaultFile {
        FaultFile {
            disk: self.clone(),
            file,
        }
    }
}

impl Disk for FaultDisk {
    type File = FaultFile;

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.state().list(dir)
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        self.state().make_dir(dir)
    }

    fn create(&self, name: &str) -> io::Result<FaultFile> {
        let file = self.state().create(name)?;
        Ok(self.file(file))
    }

    fn open(&self, name: &str) -> io::Result<FaultFile> {
        let file = self.state().open(name)?;
        Ok(self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.state().rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.state().remove(name)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.state().sync_dir(dir)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        Ok(self.state().free_bytes())
    }
}

impl Drop for FaultFile {
    fn drop(&mut self) {
        self.disk.state().close(self.file);
    }
}

impl DiskFile for FaultFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.state().read(self.file, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.state().write(self.file, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.state().sync(self.file)
    }

    fn len(&self) -> io::Result<u64> {
        self.disk.state().len(self.file)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.set_len(self.file, len, true)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.set_len(self.file, len, false)
    }
}
