//! Keys for SCRAM beside the passwords they were made of.
//!
//! Owns: [`BoundKeys`], [`ScramKeys`]: the keys that logins by password have left, and what an unknown user is shown.
//! Does not own: the mechanism (see the crate `scram`), users and their passwords (see `accounts`). Start reading at
//! [`ScramKeys::of`]. Invariants: keys count only beside the very hash they were made with; a name is shown the same
//! salt and iterations whether there is such a user, was one, or will be.

use std::collections::HashMap;
use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::{digest, hmac, rand};
use data_encoding::BASE64;
use scram::{Iterations, Keys};

use super::stored::StoredPassword;
use super::users::replace_file;
use crate::authentication::AuthenticationError;

/// Keys, and which hash of a password they stand beside.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct BoundKeys {
    keys: Keys,
    /// So that somebody who changes the hash by hand has changed the password for SCRAM, too.
    beside: Mark,
}

/// The beginning of the SHA-256 of a stored password.
type Mark = [u8; 16];

/// The text of a file, or of a request, is no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("wanted keys like SCRAM-SHA-256$ITERATIONS:SALT$STORED:SERVER$BESIDE")]
pub struct BoundKeysError;

impl BoundKeys {
    /// Those of `password`, which is kept as `stored`. Takes milliseconds. `None` if SCRAM cannot be done with it: it is
    /// not text, or has characters that nobody can type.
    #[must_use]
    pub fn derive(password: &[u8], salt: &[u8; 16], stored: &StoredPassword) -> Option<Self> {
        let password = std::str::from_utf8(password).ok()?;
        let keys = Keys::derive(password, salt, Iterations::DEFAULT).ok()?;
        let beside = mark(stored);
        Some(Self { keys, beside })
    }

    fn keys_beside(&self, stored: &StoredPassword) -> Option<&Keys> {
        (self.beside == mark(stored)).then_some(&self.keys)
    }
}

fn mark(stored: &StoredPassword) -> Mark {
    let digest = digest::digest(&digest::SHA256, stored.expose().as_bytes());
    let mut mark = Mark::default();
    for (to, from) in mark.iter_mut().zip(digest.as_ref()) {
        *to = *from;
    }
    mark
}

impl From<BoundKeys> for String {
    fn from(bound: BoundKeys) -> Self {
        format!("{}${}", bound.keys.expose(), BASE64.encode(&bound.beside))
    }
}

impl TryFrom<String> for BoundKeys {
    type Error = BoundKeysError;

    fn try_from(text: String) -> Result<Self, BoundKeysError> {
        let (keys, beside) = text.rsplit_once('$').ok_or(BoundKeysError)?;
        let beside = BASE64.decode(beside.as_bytes()).ok();
        Ok(Self {
            keys: Keys::parse(keys).map_err(|_| BoundKeysError)?,
            beside: beside
                .and_then(|beside| beside.try_into().ok())
                .ok_or(BoundKeysError)?,
        })
    }
}

impl fmt::Debug for BoundKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoundKeys")
    }
}

/// The keys that logins by password have left, and the secret that salts are made of.
pub struct ScramKeys {
    secret: hmac::Key,
    /// `None` where there is no data folder: then they are forgotten with the process.
    file: Option<PathBuf>,
    learned: Mutex<HashMap<Arc<str>, BoundKeys>>,
    /// Held while a line is added, so that lines stay whole.
    writing: Mutex<()>,
}

impl ScramKeys {
    /// Those of the data folder `data`; begins the file if there is none.
    /// # Errors
    /// The file cannot be read or begun, or its first line is not what it was.
    pub fn open(data: &Path) -> Result<Self, AuthenticationError> {
        let path = data.join(FILE);
        if !path.try_exists().unwrap_or(true)
            && let Err(error) = begin(&path)
        {
            // A full disk keeps nobody from starting.
            let Some(in_memory) = Self::in_memory() else {
                return Err(unreadable(&path, error));
            };
            tracing::warn!(%error, "keys for SCRAM are not kept beyond this process");
            return Ok(in_memory);
        }
        let bytes = fs::read(&path).map_err(|source| unreadable(&path, source))?;
        // A crash can have left anything behind the last line that was synced.
        let text = String::from_utf8_lossy(&bytes);
        let secret = secret_in(&text)
            .ok_or_else(|| AuthenticationError::wrong(&path, 1, "wanted `secret` and 32 bytes"))?;
        let lines = text.lines().skip(1);
        let count = lines.clone().count();
        let learned: HashMap<Arc<str>, BoundKeys> = lines.filter_map(parse_line).collect();
        if count > 2 * learned.len() + LINES_SPARE {
            let kept: String = learned
                .iter()
                .map(|(name, keys)| line(name, keys))
                .collect();
            let head = text.lines().next().unwrap_or_default();
            replace_file(&path, format!("{head}\n{kept}").as_bytes())
                .map_err(|source| unreadable(&path, source))?;
        }
        Ok(Self {
            secret: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            file: Some(path),
            learned: Mutex::new(learned),
            writing: Mutex::default(),
        })
    }

    /// What [`Self::salt_of`] says in the data folder `data`, which may be in use; `None` if nothing was begun there.
    #[must_use]
    pub fn salt_in(data: &Path, name: &str) -> Option<[u8; 16]> {
        let text = fs::read(data.join(FILE)).ok()?;
        let secret = secret_in(&String::from_utf8_lossy(&text))?;
        let keys = Self {
            secret: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            file: None,
            learned: Mutex::default(),
            writing: Mutex::default(),
        };
        Some(keys.salt_of(name))
    }

    /// Some that are forgotten with the process; `None` if the system has no randomness.
    pub(crate) fn in_memory() -> Option<Self> {
        let mut secret = Secret::default();
        rand::fill(&mut secret).ok()?;
        Some(Self {
            secret: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            file: None,
            learned: Mutex::default(),
            writing: Mutex::default(),
        })
    }

    /// The salt of whoever has this name, always the same.
    #[must_use]
    pub fn salt_of(&self, name: &str) -> [u8; 16] {
        let mut salt = [0; 16];
        for (to, from) in salt.iter_mut().zip(self.made_of("salt", name)) {
            *to = from;
        }
        salt
    }

    /// The keys of the user `name`, whose password is kept as `stored`: those `beside` it, or those that a login has
    /// left. Otherwise, also for `None`, keys that look alike and no proof fits. Costs the same.
    pub(super) fn of(
        &self,
        name: &str,
        user: Option<(&StoredPassword, Option<&BoundKeys>)>,
    ) -> (Keys, bool) {
        let nobody = Keys::of_nobody(
            &self.salt_of(name),
            Iterations::DEFAULT,
            self.made_of("nobody", name),
        );
        let learned = self.learned(name);
        // An unknown user is compared with something, too.
        let dummy = StoredPassword::dummy();
        let (stored, beside) = user.unwrap_or((&dummy, None));
        let found = beside.or(learned.as_ref());
        let found = found.and_then(|bound| bound.keys_beside(stored));
        // Keys beside a hash that was changed by hand give way to those that a login has left.
        let found = found.or_else(|| learned.as_ref()?.keys_beside(stored));
        match found {
            Some(keys) => (keys.clone(), true),
            None => (nobody, false),
        }
    }

    /// Keeps keys of `password`, which was verified to be what is `stored` for `name`. Takes milliseconds, for the
    /// threads that verify.
    pub(super) fn learn(&self, name: &str, password: &[u8], stored: &StoredPassword) {
        let Some(keys) = BoundKeys::derive(password, &self.salt_of(name), stored) else {
            return;
        };
        if let Some(path) = &self.file {
            let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            // Not synced: what a crash takes is learned again.
            let added = OpenOptions::new().append(true).open(path);
            let added = added.and_then(|mut file| file.write_all(line(name, &keys).as_bytes()));
            if let Err(error) = added {
                tracing::warn!(%error, "keys for SCRAM are not kept beyond this process");
            }
        }
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        learned.insert(name.into(), keys);
    }

    fn learned(&self, name: &str) -> Option<BoundKeys> {
        let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        learned.get(name).cloned()
    }

    fn made_of(&self, what: &str, name: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(what.as_bytes());
        context.update(&[0]);
        context.update(name.as_bytes());
        let tag = context.sign();
        let tag = tag.as_ref().try_into();
        tag.expect("invariant: HMAC-SHA-256 makes 32 bytes")
    }
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramKeys")
    }
}

type Secret = [u8; 32];

fn begin(path: &Path) -> io::Result<()> {
    let mut secret = Secret::default();
    rand::fill(&mut secret).map_err(|_| io::Error::other("the system has no randomness"))?;
    replace_file(
        path,
        format!("{SECRET}{}\n", BASE64.encode(&secret)).as_bytes(),
    )
}

fn secret_in(text: &str) -> Option<Secret> {
    let secret = text.lines().next()?.strip_prefix(SECRET)?;
    BASE64.decode(secret.as_bytes()).ok()?.try_into().ok()
}

/// User names have no control characters.
fn line(name: &str, keys: &BoundKeys) -> String {
    format!("{name}\t{}\n", String::from(keys.clone()))
}

fn parse_line(line: &str) -> Option<(Arc<str>, BoundKeys)> {
    let (name, keys) = line.split_once('\t')?;
    Some((name.into(), keys.to_owned().try_into().ok()?))
}

fn unreadable(path: &Path, source: io::Error) -> AuthenticationError {
    AuthenticationError::Unreadable {
        path: path.to_owned(),
        source,
    }
}

/// The file in the data folder.
pub(crate) const FILE: &str = "scram.keys";
const SECRET: &str = "secret\t";
/// So many lines that are not needed any more are left.
const LINES_SPARE: usize = 100;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::testing::TempFolder;

    fn stored(password: &str) -> StoredPassword {
        StoredPassword::new(password.as_bytes()).expect("is hashed")
    }

    /// The text that a client is shown for `name`, and whether there are keys.
    fn shown(keys: &ScramKeys, name: &str, user: Option<&StoredPassword>) -> (String, bool) {
        let (keys, is_known) = keys.of(name, user.map(|stored| (stored, None)));
        let text = keys.expose();
        let (shown, _) = text.rsplit_once('$').expect("a text form");
        (shown.to_owned(), is_known)
    }

    /// P13: what is shown of a name says nothing of whether there is such a user, also after a restart.
    #[test]
    fn name_is_shown_the_same_before_it_is_a_user_while_it_is_one_and_after_a_restart() {
        let temp = TempFolder::new();
        let keys = ScramKeys::open(temp.path()).expect("is begun");
        let word = stored("word");
        let (before, is_known) = shown(&keys, "anna", None);
        assert!(!is_known);
        assert_eq!(shown(&keys, "anna", Some(&word)), (before.clone(), false));
        keys.learn("anna", b"word", &word);
        assert_eq!(shown(&keys, "anna", Some(&word)), (before.clone(), true));
        assert_eq!(shown(&keys, "anna", None), (before.clone(), false));
        let again = ScramKeys::open(temp.path()).expect("is whole");
        assert_eq!(shown(&again, "anna", Some(&word)), (before.clone(), true));
        assert_ne!(shown(&again, "otto", None).0, before);
        let other = ScramKeys::in_memory().expect("there is randomness");
        assert_ne!(shown(&other, "anna", None).0, before);
        let mode = fs::metadata(temp.path().join(FILE)).expect("is there");
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
    }

    /// Class A: an old password is none for SCRAM either, whoever has changed it and where.
    #[test]
    fn keys_count_only_beside_the_hash_they_were_made_with() {
        let keys = ScramKeys::in_memory().expect("there is randomness");
        let (old, new) = (stored("old"), stored("new"));
        keys.learn("anna", b"old", &old);
        assert!(!keys.of("anna", Some((&new, None))).1);
        let salt = keys.salt_of("anna");
        let beside = BoundKeys::derive(b"old", &salt, &old).expect("a password");
        assert!(!keys.of("anna", Some((&new, Some(&beside)))).1);
        keys.learn("anna", b"new", &new);
        assert!(keys.of("anna", Some((&new, Some(&beside)))).1);
        assert!(keys.of("anna", Some((&old, Some(&beside)))).1);
    }

    #[test]
    fn what_a_crash_has_left_is_passed_over_and_a_lost_secret_is_told() {
        let temp = TempFolder::new();
        let path = temp.path().join(FILE);
        let word = stored("word");
        let keys = ScramKeys::open(temp.path()).expect("is begun");
        for _ in 0..=LINES_SPARE + 2 {
            keys.learn("anna", b"word", &word);
        }
        keys.learn("otto", b"word", &word);
        let mut text = fs::read(&path).expect("is there");
        text.extend_from_slice(b"otto\tSCRAM-SHA-256$16384:\xff\0\0\0");
        fs::write(&path, &text).expect("is written");
        let again = ScramKeys::open(temp.path()).expect("is usable");
        for name in ["anna", "otto"] {
            assert!(again.of(name, Some((&word, None))).1, "{name}");
        }
        let lines = fs::read_to_string(&path).expect("is text again");
        assert_eq!(lines.lines().count(), 3, "{lines}");
        for text in ["", "anna\tx\n", "secret\tAAAA\n"] {
            fs::write(&path, text).expect("is written");
            let said = ScramKeys::open(temp.path())
                .expect_err("is refused")
                .to_string();
            assert!(said.contains("scram.keys:1: "), "{said}");
        }
    }

    #[test]
    fn password_that_is_no_text_has_no_keys() {
        let word = stored("word");
        assert!(BoundKeys::derive(b"\xff", &[0; 16], &word).is_none());
        assert!(BoundKeys::derive(b"\x07", &[0; 16], &word).is_none());
        let keys = BoundKeys::derive(b"word", &[0; 16], &word).expect("a password");
        assert_eq!(
            BoundKeys::try_from(String::from(keys.clone())),
            Ok(keys.clone())
        );
        assert_eq!(format!("{keys:?}"), "BoundKeys");
        for bad in ["", "$", "SCRAM-SHA-256$1:a$b:c$d"] {
            assert_eq!(BoundKeys::try_from(bad.to_owned()), Err(BoundKeysError));
        }
    }
}
