//! The disk of the simulation: one that fails by seed, and bugs of who uses it.
//!
//! Owns: [`SimDisk`]. Does not own: the fault model (see `store::disk::fault`). Start reading at [`SimDisk`].
//! Invariant: without a bug it is a [`FaultDisk`].

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use store::disk::fault::{FaultDisk, FaultFile};
use store::disk::{Disk, DiskFile};

use crate::bug::Bug;

/// A disk. Clones are the same one.
#[derive(Clone, Debug)]
pub(crate) struct SimDisk {
    pub(crate) inner: FaultDisk,
    bug: Option<Bug>,
    syncs: Arc<AtomicU64>,
}

/// An open file of it.
#[derive(Debug)]
pub(crate) struct SimFile {
    inner: FaultFile,
    bug: Option<Bug>,
    syncs: Arc<AtomicU64>,
}

impl SimDisk {
    pub(crate) fn new(inner: FaultDisk, bug: Option<Bug>) -> Self {
        Self {
            inner,
            bug,
            syncs: Arc::default(),
        }
    }

    fn file(&self, inner: FaultFile) -> SimFile {
        SimFile {
            inner,
            bug: self.bug,
            syncs: Arc::clone(&self.syncs),
        }
    }
}

/// What is left of the error of a sync.
fn judge(bug: Option<Bug>, result: io::Result<()>) -> io::Result<()> {
    match bug {
        Some(Bug::IgnoreSyncError) => Ok(()),
        _ => result,
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.inner.list(dir)
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        self.inner.make_dir(dir)
    }

    fn create(&self, name: &str) -> io::Result<SimFile> {
        self.inner.create(name).map(|file| self.file(file))
    }

    fn open(&self, name: &str) -> io::Result<SimFile> {
        self.inner.open(name).map(|file| self.file(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        if self.bug == Some(Bug::SkipDirectorySync) {
            return Ok(());
        }
        judge(self.bug, self.inner.sync_dir(dir))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.inner.free_bytes()
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.inner.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.inner.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        let number = self.syncs.fetch_add(1, Ordering::Relaxed);
        if self.bug == Some(Bug::SkipSync) && number.is_multiple_of(3) {
            return Ok(());
        }
        judge(self.bug, self.inner.sync())
    }

    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.inner.allocate(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }
}
