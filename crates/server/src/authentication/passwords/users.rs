//! The built-in users: a file in the data folder that the server writes itself.
//!
//! Owns: [`Users`], `users.toml`, [`UserChange`]. Does not own: who asks for a change (see `vencejo user` and the
//! control socket). Start reading at [`Users::apply`]. Invariants: a change is on the disk before it counts; a
//! crash leaves the old file or the new one; the file is for its owner only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};

use super::accounts::{Account, Accounts, is_user_name};
use super::scram_keys::{BoundKeys, ScramKeys};
use super::stored::StoredPassword;
use crate::authentication::{AuthenticationError, Identity};

/// The users of a data folder.
#[derive(Debug)]
pub struct Users {
    path: PathBuf,
    /// Keys for SCRAM that logins have left; `None` if nobody is to log in.
    scram: Option<Arc<ScramKeys>>,
    /// `None` as long as there never was a user.
    accounts: Mutex<Option<Arc<Accounts>>>,
}

/// What can be done to the users.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum UserChange {
    /// A new user.
    Add(NewUser),
    /// Another password.
    Password {
        /// Whose.
        name: String,
        /// The new one.
        password: StoredPassword,
        /// Keys of it for SCRAM.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scram: Option<BoundKeys>,
    },
    /// Other groups, which count at once for those who are connected.
    Groups {
        /// Whose.
        name: String,
        /// All of them.
        groups: BTreeSet<String>,
    },
    /// No such user any more.
    Remove {
        /// Which.
        name: String,
    },
}

/// A user that is to be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewUser {
    /// Its User Name.
    pub name: String,
    /// Its password.
    pub password: StoredPassword,
    /// Keys of it for SCRAM; without any, the first login by password leaves some.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scram: Option<BoundKeys>,
    /// Whether it is an administrator.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub administrator: bool,
    /// Its groups.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
    /// What else is known of it, for rules to ask.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// Why the users were not changed.
#[derive(Debug, thiserror::Error)]
pub enum UserError {
    /// The name is taken.
    #[error("there is a user {name:?} already")]
    Exists {
        /// Which.
        name: String,
    },
    /// There is no such user.
    #[error("there is no user {name:?}")]
    Unknown {
        /// Which.
        name: String,
    },
    /// No Client can have that name.
    #[error("{name:?} cannot be a user name: it is empty, too long, or has control characters")]
    Name {
        /// Which.
        name: String,
    },
    /// The file cannot be written; nothing has changed.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl UserError {
    /// Whether the change does not fit the users that are there, and nothing else is wrong.
    #[must_use]
    pub const fn is_unfit(&self) -> bool {
        match self {
            Self::Exists { .. } | Self::Unknown { .. } | Self::Name { .. } => true,
            Self::Write { .. } => false,
        }
    }
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsersFile {
    #[serde(default)]
    users: Vec<NewUser>,
}

impl UserChange {
    /// Whose user it is about.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Add(user) => &user.name,
            Self::Password { name, .. } | Self::Groups { name, .. } | Self::Remove { name } => name,
        }
    }
}

impl Users {
    /// Those of the data folder `data`; none if it has no such file.
    /// # Errors
    /// The file cannot be read, or says something that cannot be.
    pub fn open(data: &Path) -> Result<Self, AuthenticationError> {
        let path = data.join(FILE);
        let accounts = read(&path)?;
        Ok(Self {
            path,
            scram: None,
            accounts: Mutex::new(accounts),
        })
    }

    /// The same, to let them log in. Nobody else may use the folder.
    /// # Errors
    /// As with [`Self::open`], and of [`ScramKeys::open`].
    pub(crate) fn serve(data: &Path) -> Result<Self, AuthenticationError> {
        Ok(Self {
            scram: Some(Arc::new(ScramKeys::open(data)?)),
            ..Self::open(data)?
        })
    }

    /// Keys for SCRAM that logins have left.
    pub(crate) const fn scram(&self) -> Option<&Arc<ScramKeys>> {
        self.scram.as_ref()
    }

    /// Reads the file again. A wrong one changes nothing.
    /// # Errors
    /// As with [`Self::open`].
    pub(crate) fn read_again(&self) -> Result<(), AuthenticationError> {
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        *accounts = read(&self.path)?;
        Ok(())
    }

    /// Does `change`: it is durable, and counts for the next login, when this returns.
    /// # Errors
    /// It does not fit the users that are there, or cannot be written.
    pub fn apply(&self, change: &UserChange) -> Result<(), UserError> {
        // Held while the file is written, so that changes come one after the other.
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changed = accounts.as_deref().cloned().unwrap_or_default();
        let name = change.name();
        let unknown = || UserError::Unknown {
            name: name.to_owned(),
        };
        match change {
            UserChange::Add(user) if !is_user_name(&user.name) => {
                return Err(UserError::Name {
                    name: name.to_owned(),
                });
            }
            UserChange::Add(_) if changed.find(name).is_some() => {
                return Err(UserError::Exists {
                    name: name.to_owned(),
                });
            }
            UserChange::Add(user) => changed.add(user.clone().into()),
            UserChange::Password {
                password, scram, ..
            } => {
                let account = changed.find(name).ok_or_else(unknown)?;
                let identity = account.identity.clone();
                changed.add(Account::new(identity, password.clone(), scram.clone()));
            }
            UserChange::Groups { groups, .. } => {
                let account = changed.find(name).ok_or_else(unknown)?;
                let mut account = Account::clone(account);
                account.identity.groups =
                    groups.iter().map(|group| group.as_str().into()).collect();
                changed.add(account);
            }
            UserChange::Remove { .. } => {
                changed.find(name).ok_or_else(unknown)?;
                changed.remove(name);
            }
        }
        write(&self.path, &changed).map_err(|source| UserError::Write {
            path: self.path.clone(),
            source,
        })?;
        *accounts = Some(Arc::new(changed));
        Ok(())
    }

    /// Whether there is, or was, a user, also one that [`Self::read_again`] would find.
    pub(crate) fn has_file(&self) -> bool {
        self.accounts().is_some() || self.path.try_exists().unwrap_or(true)
    }

    /// Those that are there; `None` as long as there never was one.
    #[must_use]
    pub fn accounts(&self) -> Option<Arc<Accounts>> {
        let accounts = self.accounts.lock();
        accounts.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl From<NewUser> for Account {
    fn from(user: NewUser) -> Self {
        let attributes = user.attributes.into_iter();
        let identity = Identity {
            groups: user.groups.into_iter().map(Arc::from).collect(),
            attributes: attributes
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
            is_administrator: user.administrator,
            is_listed: true,
            ..Identity::of_user(&user.name)
        };
        Self::new(identity, user.password, user.scram)
    }
}

impl From<&Account> for NewUser {
    fn from(account: &Account) -> Self {
        let identity = &account.identity;
        let attributes = identity.attributes.iter();
        Self {
            name: identity.user.as_deref().unwrap_or_default().to_owned(),
            password: account.password.clone(),
            scram: account.scram.clone(),
            administrator: identity.is_administrator,
            groups: identity
                .groups
                .iter()
                .map(|group| group.as_ref().to_owned())
                .collect(),
            attributes: attributes
                .map(|(name, value)| (name.as_ref().to_owned(), value.as_ref().to_owned()))
                .collect(),
        }
    }
}

fn read(path: &Path) -> Result<Option<Arc<Accounts>>, AuthenticationError> {
    if !path.try_exists().unwrap_or(true) {
        return Ok(None);
    }
    let text = AuthenticationError::read(path)?;
    let wrong = |at: Option<usize>, problem: &str| {
        let before = at.and_then(|at| text.get(..at)).unwrap_or_default();
        AuthenticationError::wrong(path, before.matches('\n').count() + 1, problem)
    };
    let file: UsersFile = toml::from_str(&text)
        .map_err(|error| wrong(error.span().map(|span| span.start), error.message()))?;
    let mut accounts = Accounts::default();
    for user in file.users {
        if !is_user_name(&user.name) {
            return Err(wrong(
                None,
                "a user name is empty, too long, or has control characters",
            ));
        }
        if accounts.find(&user.name).is_some() {
            return Err(wrong(None, &format!("{:?} is there twice", user.name)));
        }
        accounts.add(user.into());
    }
    Ok(Some(Arc::new(accounts)))
}

fn write(path: &Path, accounts: &Accounts) -> io::Result<()> {
    let file = UsersFile {
        users: accounts.iter().map(NewUser::from).collect(),
    };
    let text = toml::to_string(&file).map_err(io::Error::other)?;
    replace_file(path, text.as_bytes())
}

/// Puts a file with this text in the place of `path`, for its owner only. A crash leaves the old one or the new one.
pub(super) fn replace_file(path: &Path, text: &[u8]) -> io::Result<()> {
    let draft = path.with_extension("draft");
    // What a crash has left has the wrong mode, perhaps.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

/// The file in the data folder.
pub(crate) const FILE: &str = "users.toml";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::testing::TempFolder;

    fn user(name: &str) -> NewUser {
        NewUser {
            name: name.to_owned(),
            password: StoredPassword::dummy(),
            scram: None,
            administrator: name == "root",
            groups: ["ops".to_owned()].into(),
            attributes: [("room".to_owned(), "7".to_owned())].into(),
        }
    }

    fn names(users: &Users) -> Vec<String> {
        let accounts = users.accounts().unwrap_or_default();
        let names = accounts
            .iter()
            .filter_map(|one| one.identity.user.as_deref());
        names.map(str::to_owned).collect()
    }

    #[test]
    fn users_are_what_was_last_written_and_nobody_else_can_read_them() {
        let temp = TempFolder::new();
        let users = Users::open(temp.path()).expect("is empty");
        assert_eq!(users.accounts(), None);
        for name in ["root", "anna", "otto"] {
            users.apply(&UserChange::Add(user(name))).expect("is new");
        }
        let twice = users.apply(&UserChange::Add(user("anna")));
        assert!(matches!(twice, Err(UserError::Exists { .. })), "{twice:?}");
        let forged = users.apply(&UserChange::Add(user("a\nb")));
        assert!(matches!(forged, Err(UserError::Name { .. })), "{forged:?}");
        let name = "anna".to_owned();
        users
            .apply(&UserChange::Remove { name: name.clone() })
            .expect("is there");
        let password = StoredPassword::new(b"word").expect("is hashed");
        let change = UserChange::Password {
            name,
            password: password.clone(),
            scram: None,
        };
        assert!(matches!(
            users.apply(&change),
            Err(UserError::Unknown { .. })
        ));
        let name = "otto".to_owned();
        users
            .apply(&UserChange::Password {
                name,
                password,
                scram: None,
            })
            .expect("is there");
        let again = Users::open(temp.path()).expect("is whole");
        assert_eq!(again.accounts(), users.accounts());
        assert_eq!(names(&again), ["root", "otto"]);
        let accounts = again.accounts().expect("there are some");
        let otto = accounts.find("otto").expect("is there");
        assert!(otto.password.is(b"word") && !otto.identity.is_administrator);
        assert_eq!(
            otto.identity.groups.len() + otto.identity.attributes.len(),
            2
        );
        assert!(
            accounts
                .find("root")
                .is_some_and(|root| root.identity.is_administrator)
        );
        let mode = fs::metadata(temp.path().join(FILE))
            .expect("is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn what_a_crash_has_left_of_a_change_is_not_read() {
        let temp = TempFolder::new();
        let users = Users::open(temp.path()).expect("is empty");
        users.apply(&UserChange::Add(user("anna"))).expect("is new");
        fs::write(temp.path().join("users.draft"), "[[users]]\nname = \"ev").expect("is written");
        let again = Users::open(temp.path()).expect("is whole");
        assert_eq!(names(&again), ["anna"]);
        again.apply(&UserChange::Add(user("otto"))).expect("is new");
        assert_eq!(
            names(&Users::open(temp.path()).expect("is whole")),
            ["anna", "otto"]
        );
    }

    /// Class F: a file that is not whole lets nobody in, and is told by its line.
    #[test]
    fn wrong_file_is_an_error_and_on_reload_the_old_users_stay() {
        let temp = TempFolder::new();
        let users = Users::open(temp.path()).expect("is empty");
        users.apply(&UserChange::Add(user("anna"))).expect("is new");
        let path = temp.path().join(FILE);
        let good = fs::read_to_string(&path).expect("is there");
        let cases = [
            (format!("{good}\n{good}"), "twice"),
            (good.replace("name", "nom"), "unknown field"),
            (good.replace("$argon2id$", "$1$"), "a hash begins with"),
            (format!("{good}\nadmin"), ":"),
        ];
        for (text, expected) in cases {
            fs::write(&path, &text).expect("is written");
            let said = users.read_again().expect_err("is refused").to_string();
            assert!(said.contains(expected), "{said}");
            assert_eq!(names(&users), ["anna"]);
            assert!(Users::open(temp.path()).is_err(), "{text}");
        }
        fs::remove_file(&path)
            .and_then(|()| fs::create_dir(&path))
            .expect("is made");
        assert!(Users::open(temp.path()).is_err());
    }
}
