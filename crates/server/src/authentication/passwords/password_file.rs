//! A password file as mosquitto has it, while it is changed.
//!
//! Owns: [`PasswordFile`], whose a line is, how a file is replaced, [`Renewal`]: old hashes that a login makes new ones
//! of. Does not own: what a line means (see `accounts`). Start reading at [`PasswordFile::open`]. Invariants: one process
//! changes a file at a time; it is replaced as a whole, keeps its owner, and is for that one only, and for its group if it was;
//! lines of others stay as they are.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::accounts::Account;
use super::stored::StoredPassword;

/// A password file that nobody else changes as long as this is held.
#[derive(Debug)]
pub struct PasswordFile {
    path: PathBuf,
    /// Locked. The file itself is another one after each change.
    folder: File,
}

impl PasswordFile {
    /// Waits until nobody else changes the file at `path`, be it there or not.
    /// # Errors
    /// Its folder cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        // A link stays one.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        let folder = File::open(folder.unwrap_or_else(|| Path::new(".")))?;
        folder.lock()?;
        Ok(Self { path, folder })
    }

    /// What is in it.
    /// # Errors
    /// It is not there, or cannot be read.
    pub fn read(&self) -> io::Result<String> {
        fs::read_to_string(&self.path)
    }

    /// Puts `text` in its place. A crash leaves the old one or the new one.
    /// # Errors
    /// It cannot be written, or belongs to somebody to whom we may not give it.
    pub fn replace(&self, text: &str) -> io::Result<()> {
        let mut draft = self.path.as_os_str().to_owned();
        draft.push(".draft");
        let draft = PathBuf::from(draft);
        match fs::remove_file(&draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut new = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&draft)?;
        let mut mode = 0o600;
        if let Ok(old) = fs::metadata(&self.path) {
            // A server of another user may read it as one of the file's group.
            mode |= old.mode() & 0o040;
            // Who may not give files away leaves it as it is, if it is somebody else's.
            let is_others =
                (old.uid(), old.gid()) != (new.metadata()?.uid(), new.metadata()?.gid());
            if is_others && let Err(error) = chown(&draft, Some(old.uid()), Some(old.gid())) {
                fs::remove_file(&draft)?;
                return Err(error);
            }
        }
        new.set_permissions(Permissions::from_mode(mode))?;
        new.write_all(text.as_bytes())?;
        new.sync_all()?;
        fs::rename(&draft, &self.path)?;
        self.folder.sync_all()
    }
}

/// Whose line of a password file this is, if it is anybody's.
#[must_use]
pub fn user_of(line: &str) -> Option<&str> {
    let line = line.trim();
    let (user, _) = line.split_once(':').filter(|_| !line.starts_with('#'))?;
    Some(user)
}

/// Makes new hashes of old ones, when a login has shown the password.
#[derive(Debug)]
pub(crate) struct Renewal {
    path: PathBuf,
    /// The file cannot be changed, and that was said.
    is_given_up: AtomicBool,
}

impl Renewal {
    pub(crate) const fn new(path: PathBuf) -> Self {
        Self {
            path,
            is_given_up: AtomicBool::new(false),
        }
    }

    /// Puts a new hash of `password`, which has just fitted, in the place of that of `account`, if it costs less to guess
    /// than a new one. Takes as long as a login.
    pub(super) fn renew(&self, account: &Account, password: &[u8]) {
        if account.password.is_as_good_as_new()
            || account.renewed.get().is_some()
            || self.is_given_up.load(Ordering::Relaxed)
        {
            return;
        }
        let user = account.identity.user.as_deref().unwrap_or_default();
        match self.replace(user, &account.password, password) {
            Ok(Some(new)) => {
                tracing::info!(user, "the hash of this password is a new one (argon2id)");
                // Another login of the same user can have been faster.
                account.renewed.set(new).ok();
            }
            // The file says something else by now, and counts when it is read again.
            Ok(None) => {}
            Err(error) => {
                if !self.is_given_up.swap(true, Ordering::Relaxed) {
                    let reason = self.path.display();
                    tracing::warn!(%reason, %error, "old hashes of passwords stay: the file cannot be changed");
                }
            }
        }
    }

    /// The new one; nothing if the file does not say `old` of this user any more.
    fn replace(
        &self,
        user: &str,
        old: &StoredPassword,
        password: &[u8],
    ) -> io::Result<Option<StoredPassword>> {
        let new = StoredPassword::new(password).map_err(io::Error::other)?;
        let file = PasswordFile::open(&self.path)?;
        let text = file.read()?;
        let mut is_found = false;
        let lines = text.split_inclusive('\n').map(|line| {
            let hash = line.trim().split_once(':').map(|(_, hash)| hash);
            let stored = hash.and_then(|hash| StoredPassword::parse(hash).ok());
            if user_of(line) == Some(user) && stored.as_ref() == Some(old) {
                is_found = true;
                return format!("{user}:{}\n", new.expose());
            }
            line.to_owned()
        });
        let text: String = lines.collect();
        if !is_found {
            return Ok(None);
        }
        file.replace(&text)?;
        Ok(Some(new))
    }
}

#[cfg(test)]
mod tests {
    use super::super::accounts::Accounts;
    use super::*;
    use crate::testing::TempFolder;

    /// Of the password "password".
    const OLD: &str = "$6$hvHsDVvxTO3ias8A$ifNLF8C8IKUiZYP9l4BUYPQ+WO53mEGBy+TyJCbJYyjQ4vEeiVYM+0D0QJ9EK+Fo1doPrupWcN/YNd8pAnS37A==";

    fn renew(path: &Path, user: &str) -> Accounts {
        let text = fs::read_to_string(path).expect("a file");
        let accounts = Accounts::parse(&text).expect("is a password file");
        let account = accounts.find(user).expect("a user");
        Renewal::new(path.to_owned()).renew(account, b"password");
        accounts
    }

    #[test]
    fn an_old_hash_is_replaced_and_nothing_else() {
        let folder = TempFolder::new();
        let path = folder.path().join("passwords");
        let text = format!("# people\n\nanna:{OLD}\n otto:{OLD}\n");
        fs::write(&path, &text).expect("is written");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("is ours");
        let before = renew(&path, "anna");
        let after = fs::read_to_string(&path).expect("a file");
        let [comment, empty, anna, otto] = after.lines().collect::<Vec<_>>()[..] else {
            panic!("{after}");
        };
        assert_eq!((comment, empty), ("# people", ""));
        assert_eq!(otto, format!(" otto:{OLD}"));
        assert!(anna.starts_with("anna:$argon2id$"), "{anna}");
        let new = Accounts::parse(&after).expect("is a password file");
        let (old, new) = (before.find("anna"), new.find("anna"));
        let (old, new) = (old.expect("a user"), new.expect("a user"));
        assert!(new.password.is(b"password") && !new.password.is(b"Password"));
        // Nobody has another password by that.
        assert!(old.has_password_of(new) && old != new);
        let mode = fs::metadata(&path).expect("a file").mode();
        assert_eq!(mode & 0o777, 0o640);
        // It is as good as new now.
        renew(&path, "anna");
        assert_eq!(fs::read_to_string(&path).expect("a file"), after);
    }

    /// Somebody may have given the user another password since the file was read.
    #[test]
    fn a_hash_that_was_changed_meanwhile_stays() {
        let folder = TempFolder::new();
        let path = folder.path().join("passwords");
        fs::write(&path, format!("anna:{OLD}\n")).expect("is written");
        let accounts = Accounts::parse(&format!("anna:{OLD}\n")).expect("is a password file");
        let account = accounts.find("anna").expect("a user");
        let other = format!("anna:{}\n", StoredPassword::dummy().expose());
        fs::write(&path, &other).expect("is written");
        Renewal::new(path.clone()).renew(account, b"password");
        assert_eq!(fs::read_to_string(&path).expect("a file"), other);
        assert!(account.renewed.get().is_none());
    }

    #[test]
    fn a_file_that_cannot_be_changed_is_tried_once() {
        let folder = TempFolder::new();
        let accounts = Accounts::parse(&format!("anna:{OLD}\n")).expect("is a password file");
        let account = accounts.find("anna").expect("a user");
        let path = folder.path().join("passwords");
        let renewal = Renewal::new(path.clone());
        renewal.renew(account, b"password");
        let text = format!("anna:{OLD}\n");
        fs::write(&path, &text).expect("is written");
        renewal.renew(account, b"password");
        assert_eq!(fs::read_to_string(&path).expect("a file"), text);
    }
}
