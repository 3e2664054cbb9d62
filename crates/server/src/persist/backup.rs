//! Copies of the log and of the users: taken from a folder that is in use or not, and laid down in a new one.
//!
//! Owns: [`link_held`], [`copy_folder`], [`restore`]. Does not own: which files may be taken (see
//! `store::Log::seal_for_backup`). Start reading at [`link_held`]. Invariant: a backup is complete when it has its last
//! name: it is made beside the place where it is to be, and moved there; users are readable to their owner only.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::folder::{DataFolder, FolderError};
use crate::authentication::{SCRAM_FILE, USERS_FILE};

/// What a backup holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BackedUp {
    /// Files of the log, and that of the users.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// Why there is no backup, or none was laid down.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Something is there already.
    #[error("{} is not empty", path.display())]
    NotEmpty {
        /// Where.
        path: PathBuf,
    },
    /// There is no log in it.
    #[error("{} has no log in it: it is no backup and no data folder", path.display())]
    NoLog {
        /// Where.
        path: PathBuf,
    },
    /// The target folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was read or written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Makes a backup in `target` of these files of a data folder, which nobody changes, and of its users, whose file
/// is never changed but replaced, with their keys for SCRAM: by hard links, or by copies where `target` is on another disk. O(files) where it
/// can be linked.
/// # Errors
/// `target` is not empty, or the system refuses; then there is no backup.
pub(super) fn link_held(
    data: &Path,
    names: &[String],
    target: &Path,
) -> Result<BackedUp, BackupError> {
    let mut names = names.to_vec();
    names.extend(users_of(data));
    lay_down(data, &names, target, |from, to| {
        // A file that lines are added to is not what it was, if it is linked.
        if from.ends_with(SCRAM_FILE) {
            return copy(from, to);
        }
        match fs::hard_link(from, to) {
            Ok(()) => fs::metadata(to).map(|metadata| metadata.len()),
            Err(error) if cannot_link(&error) => copy(from, to),
            Err(error) => Err(error),
        }
    })
}

/// Makes a backup in `target` of a data folder that no process uses. O(bytes): the log goes on in its last
/// file, so it is copied.
/// # Errors
/// As above, or there is no log.
pub fn copy_folder(folder: &DataFolder, target: &Path) -> Result<BackedUp, BackupError> {
    let names = names_of(folder.path())?;
    lay_down(folder.path(), &names, target, copy)
}

/// Makes the data folder `target` of the backup `backup`.
/// # Errors
/// `target` is not empty, or `backup` is none, or the system refuses.
pub fn restore(backup: &Path, target: &Path) -> Result<BackedUp, BackupError> {
    let names = names_of(backup)?;
    lay_down(backup, &names, target, copy)
}

/// The files of the log in `folder`, relative to it.
fn names_of(folder: &Path) -> Result<Vec<String>, BackupError> {
    let no_log = || BackupError::NoLog {
        path: folder.to_owned(),
    };
    let log = folder.join(LOG);
    let mut names = Vec::new();
    for entry in fs::read_dir(&log).map_err(|_| no_log())? {
        let entry = entry.map_err(|source| failed(&log, source))?;
        if let Some(name) = entry.file_name().to_str()
            && (name.ends_with(".seg") || name.ends_with(".hint"))
        {
            names.push(format!("{LOG}/{name}"));
        }
    }
    if names.is_empty() {
        return Err(no_log());
    }
    if folder.join(FORMAT).exists() {
        names.push(FORMAT.to_owned());
    }
    names.sort_unstable();
    names.extend(users_of(folder));
    Ok(names)
}

/// Copies the users of one folder to another one, if there are any.
pub(super) fn copy_users(from: &Path, to: &Path) -> io::Result<()> {
    for name in users_of(from) {
        let target = to.join(&name);
        copy(&from.join(name), &target)?;
        fs::set_permissions(&target, Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// The files of the users that are there.
fn users_of(folder: &Path) -> Vec<String> {
    let files = [USERS_FILE, SCRAM_FILE].into_iter();
    let files = files.filter(|name| folder.join(name).exists());
    files.map(str::to_owned).collect()
}

fn lay_down(
    from: &Path,
    names: &[String],
    target: &Path,
    put: impl Fn(&Path, &Path) -> io::Result<u64>,
) -> Result<BackedUp, BackupError> {
    if fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(BackupError::NotEmpty {
            path: target.to_owned(),
        });
    }
    let mut draft = target.as_os_str().to_owned();
    draft.push(".draft");
    let draft = PathBuf::from(draft);
    // Whatever was there was never finished.
    if draft.exists() {
        fs::remove_dir_all(&draft).map_err(|source| failed(&draft, source))?;
    }
    let log = draft.join(LOG);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&log)
        .map_err(|source| failed(&log, source))?;
    let mut done = BackedUp::default();
    for name in names {
        let source = from.join(name);
        done.bytes += put(&source, &draft.join(name)).map_err(|error| failed(&source, error))?;
        done.files += 1;
    }
    for users in users_of(&draft).iter().map(|name| draft.join(name)) {
        // Whatever may have become of it meanwhile.
        fs::set_permissions(&users, Permissions::from_mode(0o600))
            .map_err(|source| failed(&users, source))?;
    }
    for dir in [&log, &draft] {
        sync_dir(dir)?;
    }
    // An empty folder in its place is replaced.
    fs::rename(&draft, target).map_err(|source| failed(target, source))?;
    let parent = target.parent().filter(|path| !path.as_os_str().is_empty());
    sync_dir(parent.unwrap_or_else(|| Path::new(".")))?;
    Ok(done)
}

fn copy(from: &Path, to: &Path) -> io::Result<u64> {
    let bytes = fs::copy(from, to)?;
    File::open(to)?.sync_all()?;
    Ok(bytes)
}

fn sync_dir(dir: &Path) -> Result<(), BackupError> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(|source| failed(dir, source))
}

/// Whether a file has to be copied because it cannot have a second name there.
fn cannot_link(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::CrossesDevices
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::Unsupported
            | io::ErrorKind::TooManyLinks
    )
}

fn failed(path: &Path, source: io::Error) -> BackupError {
    BackupError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Where the log is in a data folder.
const LOG: &str = "log";
/// Which format it has.
const FORMAT: &str = "FORMAT";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::TempFolder;

    /// A data folder with two segments and what does not belong in a backup.
    fn data(temp: &TempFolder) -> DataFolder {
        let folder = DataFolder::lock(&temp.path().join("data")).expect("is free");
        let log = folder.path().join(LOG);
        fs::create_dir(&log).expect("is made");
        for (name, bytes) in [
            ("0000000001.seg", "one"),
            ("0000000002.seg", "three"),
            ("spare-1", ""),
        ] {
            fs::write(log.join(name), bytes).expect("is written");
        }
        fs::write(folder.path().join("FORMAT"), "vencejo").expect("is written");
        fs::write(folder.path().join("CHECKPOINT"), "1").expect("is written");
        folder
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).expect("is there");
        let mut names: Vec<String> = entries
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .into_string()
                    .expect("UTF-8")
            })
            .collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn backup_has_the_log_and_its_format_and_is_laid_down_again() {
        let temp = TempFolder::new();
        let folder = data(&temp);
        let backup = temp.path().join("backup");
        let done = copy_folder(&folder, &backup).expect("is made");
        assert_eq!(
            done,
            BackedUp {
                files: 3,
                bytes: 15
            }
        );
        assert_eq!(names(&backup), ["FORMAT", "log"]);
        assert_eq!(
            names(&backup.join(LOG)),
            ["0000000001.seg", "0000000002.seg"]
        );
        let restored = temp.path().join("restored");
        fs::create_dir(&restored).expect("an empty folder");
        assert_eq!(restore(&backup, &restored).expect("is laid down"), done);
        let text = fs::read_to_string(restored.join("log/0000000002.seg")).expect("is there");
        assert_eq!(text, "three");
        assert_eq!(names(temp.path()), ["backup", "data", "restored"]);
    }

    /// P13, and class F: a restored Server does not begin open because its users were left behind.
    #[test]
    fn backup_has_the_users_and_nobody_else_can_read_them() {
        let temp = TempFolder::new();
        let folder = data(&temp);
        let users = folder.path().join(USERS_FILE);
        fs::write(&users, "users = []").expect("is written");
        let cold = temp.path().join("cold");
        assert_eq!(copy_folder(&folder, &cold).expect("is made").files, 4);
        let live = temp.path().join("live");
        let held = ["log/0000000001.seg".to_owned()];
        link_held(folder.path(), &held, &live).expect("is made");
        for backup in [cold, live] {
            let copied = backup.join(USERS_FILE);
            assert_eq!(fs::read_to_string(&copied).expect("is there"), "users = []");
            fs::set_permissions(&copied, Permissions::from_mode(0o644)).expect("is ours");
            let restored = backup.with_extension("restored");
            restore(&backup, &restored).expect("is laid down");
            let metadata = fs::metadata(restored.join(USERS_FILE)).expect("is there");
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
        }
    }

    /// Lines are added to the keys for SCRAM while they are in use, and the backup stays what it was.
    #[test]
    fn backup_has_the_keys_for_scram_as_they_were() {
        let temp = TempFolder::new();
        let folder = data(&temp);
        let keys = folder.path().join(SCRAM_FILE);
        fs::write(&keys, "before").expect("is written");
        let backup = temp.path().join("backup");
        link_held(folder.path(), &[], &backup).expect("is made");
        fs::write(&keys, "before, and after").expect("is written");
        let copied = fs::read_to_string(backup.join(SCRAM_FILE)).expect("is there");
        assert_eq!(copied, "before");
    }

    #[test]
    fn held_files_are_linked() {
        use std::os::unix::fs::MetadataExt;
        let temp = TempFolder::new();
        let folder = data(&temp);
        let backup = temp.path().join("backup");
        let held = ["log/0000000001.seg".to_owned()];
        link_held(folder.path(), &held, &backup).expect("is made");
        let inode = |path: PathBuf| fs::metadata(path).expect("is there").ino();
        let name = "log/0000000001.seg";
        assert_eq!(inode(folder.path().join(name)), inode(backup.join(name)));
        assert_eq!(names(&backup.join(LOG)), ["0000000001.seg"]);
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_is_made_of_what_is_no_backup() {
        let temp = TempFolder::new();
        let folder = data(&temp);
        let backup = temp.path().join("backup");
        copy_folder(&folder, &backup).expect("is made");
        let error = restore(&backup, folder.path()).expect_err("is not empty");
        assert!(matches!(error, BackupError::NotEmpty { .. }), "{error}");
        let error = copy_folder(&folder, &backup).expect_err("is not empty");
        assert!(matches!(error, BackupError::NotEmpty { .. }), "{error}");
        let none = temp.path().join("none");
        let error = restore(temp.path(), &none).expect_err("is no backup");
        assert!(matches!(error, BackupError::NoLog { .. }), "{error}");
        assert!(!none.exists());
    }
}
