//! The data folder: made if it is not there, and used by one process at a time.
//!
//! Owns: [`DataFolder`], its lock and who holds it. Does not own: what is in it (see `store`).
//! Start reading at [`DataFolder::lock`]. Invariant: the lock ends with the process that holds it, however
//! that ends; a file without a lock on it says nothing.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A data folder that is ours until this is dropped.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    lock: File,
}

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another process has it.
    #[error("the data folder {} is in use by {}", path.display(), Holder(*pid))]
    InUse {
        /// Which folder.
        path: PathBuf,
        /// Which process, if it has said so.
        pid: Option<u32>,
    },
    /// There is none, where one was expected.
    #[error("there is no data folder {}", path.display())]
    Missing {
        /// Where.
        path: PathBuf,
    },
    /// It cannot be made, or not be written.
    #[error("the data folder {} cannot be used: {source}", path.display())]
    Unusable {
        /// Which folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl DataFolder {
    /// Makes the folder at `path` if it is not there, for this user only, and takes it for this process.
    /// # Errors
    /// Another process has it, or it cannot be made.
    pub fn lock(path: &Path) -> Result<Self, FolderError> {
        let unusable = |source| FolderError::Unusable {
            path: path.to_owned(),
            source,
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(unusable)?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK))
            .map_err(unusable)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(FolderError::InUse {
                    path: path.to_owned(),
                    pid: holder(file),
                });
            }
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        let folder = Self {
            path: path.to_owned(),
            lock: file,
        };
        folder.sign().map_err(unusable)?;
        Ok(folder)
    }

    /// The same for a folder that has to be there already.
    /// # Errors
    /// There is none, or another process has it.
    pub fn lock_existing(path: &Path) -> Result<Self, FolderError> {
        if path.is_dir() {
            return Self::lock(path);
        }
        Err(FolderError::Missing {
            path: path.to_owned(),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the number of this process in the lock file, for whoever comes next.
    fn sign(&self) -> io::Result<()> {
        let mut lock = &self.lock;
        lock.set_len(0)?;
        lock.write_all(format!("{}\n", std::process::id()).as_bytes())
    }
}

/// The process that holds the lock. It signs right after it has locked, so it is asked more than once.
fn holder(mut lock: File) -> Option<u32> {
    for _ in 0..HOLDER_TRIES {
        let mut text = String::new();
        if lock
            .rewind()
            .and_then(|()| lock.read_to_string(&mut text))
            .is_ok()
            && let Ok(pid) = text.trim().parse()
        {
            return Some(pid);
        }
        std::thread::sleep(HOLDER_PAUSE);
    }
    None
}

/// A process in words.
struct Holder(Option<u32>);

impl std::fmt::Display for Holder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(pid) => write!(f, "the process {pid}"),
            None => f.write_str("another process"),
        }
    }
}

/// The lock file in the data folder.
const LOCK: &str = "lock";
const HOLDER_TRIES: usize = 20;
const HOLDER_PAUSE: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::testing::TempFolder;

    #[test]
    fn folder_in_use_is_refused_with_the_pid_and_free_again_afterwards() {
        let temp = TempFolder::new();
        let path = temp.path().join("deeper/data");
        let first = DataFolder::lock(&path).expect("is free");
        let error = DataFolder::lock(&path).expect_err("is in use");
        let own = std::process::id();
        assert!(
            matches!(error, FolderError::InUse { pid: Some(pid), .. } if pid == own),
            "{error}"
        );
        assert!(error.to_string().contains(&format!("the process {own}")));
        drop(first);
        DataFolder::lock(&path).expect("is free again");
    }

    #[test]
    fn lock_file_that_nobody_holds_is_no_problem() {
        let temp = TempFolder::new();
        std::fs::write(temp.path().join(LOCK), "4711 and a torn line").expect("is written");
        drop(DataFolder::lock(temp.path()).expect("is free"));
        let text = std::fs::read_to_string(temp.path().join(LOCK)).expect("is read");
        assert_eq!(text, format!("{}\n", std::process::id()));
    }

    #[test]
    fn folder_and_lock_are_for_this_user_only() {
        let temp = TempFolder::new();
        let path = temp.path().join("data");
        let _folder = DataFolder::lock(&path).expect("is free");
        let mode = |path: &Path| {
            let metadata = std::fs::metadata(path).expect("is there");
            metadata.permissions().mode() & 0o777
        };
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join(LOCK)), 0o600);
    }

    #[test]
    fn folder_that_is_not_there_is_not_made_where_one_is_expected() {
        let temp = TempFolder::new();
        let path = temp.path().join("none");
        let error = DataFolder::lock_existing(&path).expect_err("is not there");
        assert!(matches!(error, FolderError::Missing { .. }), "{error}");
        assert!(!path.exists());
    }
}
