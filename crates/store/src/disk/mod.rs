//! What the log asks of a disk, so that a real one and one that fails by seed can stand in for each other.
//!
//! Owns: [`Disk`], [`DiskFile`]: the few calls of a POSIX file system whose effect on a crash is known.
//! Does not own: what is written. Start reading at [`Disk`].
//! Invariant: nothing here promises more than POSIX does: bytes are safe only after [`DiskFile::sync`],
//! names only after [`Disk::sync_dir`].

pub mod fault;
mod real;

use std::io;

pub use real::{RealDisk, RealFile};

/// One folder, without folders in it but those that [`Disk::make_dir`] made. Names are relative to it,
/// with `/` between levels.
pub trait Disk: Clone + std::fmt::Debug + Send + Sync + 'static {
    /// An open file.
    type File: DiskFile;

    /// The names in the folder `dir` (empty for the top), in no order.
    /// # Errors
    /// What the system says.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;

    /// Makes the folder `dir` if it is not there, mode 0700.
    /// # Errors
    /// What the system says.
    fn make_dir(&self, dir: &str) -> io::Result<()>;

    /// Makes a new, empty file of mode 0600 and opens it for reading and writing.
    /// # Errors
    /// There is one already, or what the system says.
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file for reading and writing.
    /// # Errors
    /// There is none, or what the system says.
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// Gives a file another name, in place of whatever had that name. Open files stay open.
    /// # Errors
    /// What the system says.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Takes a name away.
    /// # Errors
    /// What the system says.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes the names in the folder `dir` (empty for the top) durable: creations, renames, removals.
    /// # Errors
    /// What the system says. As with [`DiskFile::sync`], it is not to be tried again.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;

    /// Bytes that can still be allocated.
    /// # Errors
    /// What the system says.
    fn free_bytes(&self) -> io::Result<u64>;
}

/// An open file. Calls may come from several threads.
pub trait DiskFile: std::fmt::Debug + Send + Sync + 'static {
    /// Fills as much of `buffer` as there are bytes from `offset` on; returns how many.
    /// # Errors
    /// What the system says.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`.
    /// # Errors
    /// What the system says; some of the bytes may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes what was written durable, with the length if that has changed (fdatasync).
    /// # Errors
    /// What was written since the last success is lost or not, nobody knows: never to be tried again.
    fn sync(&self) -> io::Result<()>;

    /// Bytes in the file.
    /// # Errors
    /// What the system says.
    fn len(&self) -> io::Result<u64>;

    /// Whether it has no bytes.
    /// # Errors
    /// What the system says.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Reserves space up to `len` and makes the file that long; what was not written reads as zeros.
    /// # Errors
    /// The disk is full, or what the system says.
    fn allocate(&self, len: u64) -> io::Result<()>;

    /// Cuts the file, or makes it longer with zeros.
    /// # Errors
    /// What the system says.
    fn set_len(&self, len: u64) -> io::Result<()>;
}
