//! A folder of the operating system.
//!
//! Owns: [`RealDisk`], [`RealFile`]: modes of files, what to do where a file system lacks a call.
//! Does not own: what is written, when it is synced. Start reading at [`RealDisk::open`].
//! Invariant: files are of mode 0600 and folders of mode 0700; no call is repeated after an error but one
//! that a signal broke off.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Disk, DiskFile};

/// A folder of the operating system.
#[derive(Clone, Debug)]
pub struct RealDisk {
    root: Arc<Path>,
}

/// An open file in it.
#[derive(Debug)]
pub struct RealFile(File);

impl RealDisk {
    /// The folder `root`; it is made if it is not there (its parents, too), and kept as it is if it is.
    /// # Errors
    /// What the system says.
    pub fn open(root: &Path) -> io::Result<Self> {
        if !root.is_dir() {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(FOLDER_MODE).create(root)?;
            if let Some(parent) = root
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty())
            {
                File::open(parent)?.sync_all()?;
            }
        }
        Ok(Self { root: root.into() })
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() {
            self.root.to_path_buf()
        } else {
            self.root.join(name)
        }
    }
}

impl Disk for RealDisk {
    type File = RealFile;

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.path(dir))? {
            // A name that is no UTF-8 is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn make_dir(&self, dir: &str) -> io::Result<()> {
        match DirBuilder::new().mode(FOLDER_MODE).create(self.path(dir)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            result => result,
        }
    }

    fn create(&self, name: &str) -> io::Result<RealFile> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        let file = options.mode(FILE_MODE).open(self.path(name))?;
        Ok(RealFile(file))
    }

    fn open(&self, name: &str) -> io::Result<RealFile> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).open(self.path(name))?;
        Ok(RealFile(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(from), self.path(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        File::open(self.path(dir))?.sync_all()
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let facts = rustix::fs::statvfs(&*self.root)?;
        Ok(facts.f_bavail.saturating_mul(facts.f_frsize))
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.0.read_at(rest, offset + done as u64) {
                Ok(0) => break,
                Ok(more) => done += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let now = self.len()?;
        reserve(&self.0, now.max(len))?;
        if now < len { self.set_len(len) } else { Ok(()) }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

/// Reserves space for the first `len` bytes; a file system that cannot do that is taken as it is.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn reserve(file: &File, len: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    use rustix::io::Errno;
    loop {
        return match fallocate(file, FallocateFlags::empty(), 0, len) {
            Err(Errno::INTR) => continue,
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            result => Ok(result?),
        };
    }
}

/// Reserves nothing: there is no call for it that means the same.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn reserve(_file: &File, _len: u64) -> io::Result<()> {
    Ok(())
}

const FILE_MODE: u32 = 0o600;
const FOLDER_MODE: u32 = 0o700;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("vencejo-disk-{name}-{}", std::process::id()));
        if path.exists() {
            fs::remove_dir_all(&path).unwrap();
        }
        path
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn files_and_folders_are_for_their_owner_only() {
        let root = folder("modes");
        let disk = RealDisk::open(&root).unwrap();
        disk.make_dir("log").unwrap();
        disk.make_dir("log").unwrap();
        drop(disk.create("log/a").unwrap());
        assert_eq!(mode(&root), 0o700);
        assert_eq!(mode(&root.join("log")), 0o700);
        assert_eq!(mode(&root.join("log/a")), 0o600);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_was_allocated_reads_as_zeros_and_what_was_written_as_written() {
        let root = folder("bytes");
        let disk = RealDisk::open(&root).unwrap();
        let file = disk.create("a").unwrap();
        assert!(disk.create("a").is_err(), "it is there already");
        file.write_at(b"abc", 0).unwrap();
        file.allocate(4096).unwrap();
        file.sync().unwrap();
        assert_eq!(file.len().unwrap(), 4096);
        let mut bytes = [1; 5000];
        assert_eq!(file.read_at(&mut bytes, 1).unwrap(), 4095);
        assert_eq!(&bytes[..4], b"bc\0\0");
        file.set_len(2).unwrap();
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 2);
        assert_eq!(file.read_at(&mut bytes, 9).unwrap(), 0);
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn an_open_file_keeps_its_bytes_when_its_name_goes_to_another() {
        let root = folder("names");
        let disk = RealDisk::open(&root).unwrap();
        let (a, b) = (disk.create("a").unwrap(), disk.create("b").unwrap());
        a.write_at(b"a", 0).unwrap();
        b.write_at(b"b", 0).unwrap();
        disk.rename("a", "b").unwrap();
        disk.sync_dir("").unwrap();
        assert_eq!(disk.list("").unwrap(), ["b"]);
        let mut byte = [0];
        b.read_at(&mut byte, 0).unwrap();
        assert_eq!(&byte, b"b");
        disk.open("b").unwrap().read_at(&mut byte, 0).unwrap();
        assert_eq!(&byte, b"a");
        disk.remove("b").unwrap();
        assert!(disk.list("").unwrap().is_empty());
        assert!(disk.free_bytes().unwrap() > 0);
        fs::remove_dir_all(root).unwrap();
    }
}
