//! Users that log in with a password, and mosquitto's password file they can come from.
//!
//! Owns: [`Account`], [`Accounts`], [`PasswordFileError`]. Does not own: a login (see `super`). Start reading
//! at [`Accounts::parse`]. Invariant: every name stands for one account; no error shows a hash or a password.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use super::scram_keys::BoundKeys;
use super::stored::{StoredPassword, StoredPasswordError};
use crate::authentication::Identity;

/// One user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Who that is; its user is never `None`.
    pub identity: Identity,
    /// What it proves that with.
    pub password: StoredPassword,
    /// Keys of the same for SCRAM.
    pub scram: Option<BoundKeys>,
    /// The hash that a login has put in the place of `password` since it was read.
    pub(super) renewed: OnceLock<StoredPassword>,
}

impl Account {
    /// A user that proves itself with `password`.
    #[must_use]
    pub const fn new(
        identity: Identity,
        password: StoredPassword,
        scram: Option<BoundKeys>,
    ) -> Self {
        Self {
            identity,
            password,
            scram,
            renewed: OnceLock::new(),
        }
    }

    /// What its password is kept as by now.
    pub(super) fn kept(&self) -> &StoredPassword {
        self.renewed.get().unwrap_or(&self.password)
    }

    /// Whether `later`, the same user as it was read later, has the same password.
    pub(crate) fn has_password_of(&self, later: &Self) -> bool {
        self.password == later.password || *self.kept() == later.password
    }
}

/// Users by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    accounts: Vec<Arc<Account>>,
    places: HashMap<Arc<str>, usize>,
}

/// What is wrong with a password file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PasswordFileError {
    /// A line without a colon, or with nothing before it.
    #[error("wanted a user name, a colon and a hash")]
    NoUser,
    /// A name no Client can say: too long, or with a character that MQTT does not carry.
    #[error("no client can have this user name")]
    UserName,
    /// What follows the name is no hash.
    #[error("the hash of {user:?}: {source}")]
    Hash {
        /// Whose.
        user: String,
        /// Why not.
        source: StoredPasswordError,
    },
    /// The name stands in an earlier line.
    #[error("{user:?} stands in line {first} already")]
    Twice {
        /// Whose.
        user: String,
        /// Which line.
        first: usize,
    },
    /// No user at all: whoever names such a file has lost one.
    #[error("the file has no user in it")]
    Empty,
}

impl Accounts {
    /// Reads mosquitto's password file: lines of `user:hash`, comments after `#`, empty lines.
    /// # Errors
    /// The number of the first line that is wrong, from 1, and why.
    pub fn parse(text: &str) -> Result<Self, (usize, PasswordFileError)> {
        let mut accounts = Self::default();
        let mut lines = HashMap::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let account = account(line).map_err(|error| (number, error))?;
            let name = account.identity.user.clone().unwrap_or_default();
            if let Some(first) = lines.insert(Arc::clone(&name), number) {
                let user = name.as_ref().to_owned();
                return Err((number, PasswordFileError::Twice { user, first }));
            }
            accounts.add(account);
        }
        if accounts.is_empty() {
            return Err((1, PasswordFileError::Empty));
        }
        Ok(accounts)
    }

    /// Takes `account` in, in place of one of the same name.
    pub(super) fn add(&mut self, account: Account) {
        let name = account.identity.user.clone().unwrap_or_default();
        match self
            .places
            .get(&name)
            .and_then(|at| self.accounts.get_mut(*at))
        {
            Some(place) => *place = Arc::new(account),
            None => {
                self.places.insert(name, self.accounts.len());
                self.accounts.push(Arc::new(account));
            }
        }
    }

    /// Takes out the account of this name. O(accounts).
    pub(super) fn remove(&mut self, name: &str) {
        let accounts = std::mem::take(&mut self.accounts);
        self.places.clear();
        for account in accounts {
            if account.identity.user.as_deref() != Some(name) {
                self.add(Arc::unwrap_or_clone(account));
            }
        }
    }

    /// The account of this name. O(1).
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Arc<Account>> {
        self.accounts.get(*self.places.get(name)?)
    }

    /// All of them, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Account> {
        self.accounts.iter().map(AsRef::as_ref)
    }

    /// The one at this place, for whoever wants any.
    pub(super) fn at(&self, place: usize) -> Option<&Account> {
        self.accounts.get(place).map(AsRef::as_ref)
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.accounts.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.accounts.is_empty()
    }
}

fn account(line: &str) -> Result<Account, PasswordFileError> {
    let (name, hash) = line.split_once(':').ok_or(PasswordFileError::NoUser)?;
    if name.is_empty() {
        return Err(PasswordFileError::NoUser);
    }
    if !is_user_name(name) {
        return Err(PasswordFileError::UserName);
    }
    let password = StoredPassword::parse(hash).map_err(|source| PasswordFileError::Hash {
        user: name.to_owned(),
        source,
    })?;
    let identity = Identity {
        is_listed: true,
        ..Identity::of_user(name)
    };
    Ok(Account::new(identity, password, None))
}

/// Whether a Client can have this User Name: section 1.5.4, and nothing that would forge a line of a file.
pub(in crate::authentication) fn is_user_name(name: &str) -> bool {
    let is_plain = name.chars().all(|character| !character.is_control());
    (1..=usize::from(u16::MAX)).contains(&name.len()) && is_plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "$argon2id$v=19$m=8192,t=2,p=1$c29tZXNhbHQxNmJ5dGVzIQ$PW8VycJoqU+gGnp+b6ucL4xRrMFi2fQhszRFYmnX5jw";

    #[test]
    fn users_comments_and_empty_lines_are_read() {
        let text =
            format!("# people\n\nanna:{HASH}\r\n  otto:{HASH}  \n#x:{HASH}\nmüller@b c:{HASH}");
        let accounts = Accounts::parse(&text).expect("is a password file");
        let names: Vec<_> = accounts
            .iter()
            .filter_map(|one| one.identity.user.clone())
            .collect();
        assert_eq!(names, ["anna", "otto", "müller@b c"].map(Arc::from));
        assert!(accounts.find("anna").is_some());
        assert!(accounts.find("x").is_none() && accounts.find("").is_none());
    }

    /// Class F: an empty file, or a line without a password, never lets anybody in.
    #[test]
    fn wrong_lines_are_told_by_their_number_and_without_what_they_hide() {
        let good = format!("anna:{HASH}\n");
        let cases = [
            ("\n# nobody\n".to_owned(), 1, "no user in it"),
            (String::new(), 1, "no user in it"),
            (format!("{good}otto"), 2, "a colon"),
            (format!("{good}\n:{HASH}"), 3, "a colon"),
            (format!("{good}otto:"), 2, "\"otto\": a hash begins with"),
            (format!("{good}otto:opensesame"), 2, "in the clear"),
            (format!("{good}otto:$7$101$opensesame$"), 2, "damaged"),
            (format!("{good}o\tto:{HASH}"), 2, "user name"),
            (
                format!("{good}{good}"),
                2,
                "\"anna\" stands in line 1 already",
            ),
        ];
        for (text, line, expected) in cases {
            let (number, error) = Accounts::parse(&text).expect_err("is refused");
            let said = error.to_string();
            assert_eq!(number, line, "{text:?} {said}");
            assert!(said.contains(expected), "{text:?}: {said}");
            assert!(!said.contains("opensesame"), "{said}");
        }
    }
}
