//! Users with passwords: the link of the chain that knows them.
//!
//! Owns: [`Passwords`], where the users come from. Does not own: the forms of a hash (see `stored`), the
//! threads that verify (see `super::verifiers`). Start reading at [`Passwords::authenticate`].
//! Invariants: a shard never hashes; an unknown user costs what a wrong password costs; nobody is let in
//! without a password.

mod accounts;
mod cache;
mod password_file;
mod scram_keys;
mod stored;
mod users;

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::Secret;
use proto::packet::ReasonCode;
use scram::Keys;

pub use accounts::{Account, Accounts, PasswordFileError};

pub(super) use accounts::is_user_name;
pub(crate) use password_file::Renewal;
pub use password_file::{PasswordFile, user_of};
pub(crate) use scram_keys::FILE as SCRAM_FILE;
pub use scram_keys::{BoundKeys, BoundKeysError, ScramKeys};
pub use stored::{StoredPassword, StoredPasswordError};
pub(crate) use users::FILE as USERS_FILE;
pub use users::{NewUser, UserChange, UserError, Users};

pub(super) use cache::VerifiedPasswords;

use super::AuthenticationError;
use super::{Attempt, Authenticator, Decision, Exchange, Identity, Work};

/// Knows users with passwords. One that it does not know is left to the next authenticator, after as much
/// work as a wrong password costs.
#[derive(Debug)]
pub struct Passwords {
    /// Those of a password file.
    file: Option<Arc<Accounts>>,
    /// Those of the data folder; they come first.
    users: Option<Arc<Users>>,
    verified: Arc<VerifiedPasswords>,
    /// Where a login leaves keys for SCRAM; `None` if there is no SCRAM.
    scram: Option<Arc<ScramKeys>>,
    /// What makes new hashes of old ones in the password file; `None` leaves it as it is.
    renewal: Option<Arc<Renewal>>,
    /// Chooses whose hash an unknown user is measured by.
    decoys: RandomState,
}

/// The users there are at one moment: those of the data folder, and those of a password file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known([Option<Arc<Accounts>>; 2]);

impl Passwords {
    /// Knows `users` and those of a password `file`. A password that fitted is not verified again for
    /// `lifetime`.
    #[must_use]
    pub fn new(file: Option<Arc<Accounts>>, users: Option<Arc<Users>>, lifetime: Duration) -> Self {
        Self {
            file,
            users,
            verified: Arc::new(VerifiedPasswords::new(lifetime)),
            scram: None,
            renewal: None,
            decoys: RandomState::new(),
        }
    }

    /// The same, and each login leaves keys for SCRAM in `keys`.
    pub(crate) fn leaving(mut self, keys: Option<Arc<ScramKeys>>) -> Self {
        self.scram = keys;
        self
    }

    /// The same, and a login makes new hashes of old ones by `renewal`.
    pub(crate) fn renewing(mut self, renewal: Option<Renewal>) -> Self {
        self.renewal = renewal.map(Arc::new);
        self
    }

    /// The keys by which the user `name` is judged, and who that is; for an unknown user, or one that has none yet, keys
    /// that no proof fits.
    pub(super) fn scram_keys(&self, keys: &ScramKeys, name: &str) -> (Keys, Option<Identity>) {
        let account = self.known().find(name);
        let account = account.as_ref();
        let found = account.map(|account| (account.kept(), account.scram.as_ref()));
        let (keys, is_known) = keys.of(name, found);
        let identity = account
            .filter(|_| is_known)
            .map(|account| account.identity.clone());
        (keys, identity)
    }

    fn known(&self) -> Known {
        Known::now(self.users.as_ref(), self.file.as_ref())
    }

    /// Whether a User Name means anything: there is, or was, a user.
    #[must_use]
    pub fn has_users(&self) -> bool {
        self.known().0.iter().any(Option::is_some)
    }
}

impl Known {
    /// Those of now.
    pub(crate) fn now(users: Option<&Arc<Users>>, file: Option<&Arc<Accounts>>) -> Self {
        Self([users.and_then(|users| users.accounts()), file.cloned()])
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Account>> {
        let mut all = self.0.iter().flatten();
        all.find_map(|accounts| accounts.find(name)).cloned()
    }

    /// Whether it stands in the password file.
    fn is_of_file(&self, account: &Arc<Account>) -> bool {
        let [_, file] = &self.0;
        let name = account.identity.user.as_deref().unwrap_or_default();
        let found = file.as_ref().and_then(|file| file.find(name));
        found.is_some_and(|found| Arc::ptr_eq(found, account))
    }

    /// One of the hashes, always the same for a name: forms differ in what they cost, so the names of unknown
    /// users are spread over them as those of known ones are.
    fn decoy(&self, hash: u64) -> StoredPassword {
        let count: usize = self.0.iter().flatten().map(|accounts| accounts.len()).sum();
        let mut place = usize::try_from(hash % count.max(1) as u64).unwrap_or_default();
        for accounts in self.0.iter().flatten() {
            if let Some(account) = accounts.at(place) {
                return account.password.clone();
            }
            place = place.saturating_sub(accounts.len());
        }
        StoredPassword::dummy()
    }
}

impl Authenticator for Passwords {
    fn method(&self) -> Option<&str> {
        None
    }

    fn authenticate(&self, attempt: &Attempt<'_>, _: &mut Exchange) -> Option<Decision> {
        let name = attempt.user_name?;
        let password = attempt.password.cloned();
        let known = self.known();
        if known.0.iter().all(Option::is_none) {
            return None;
        }
        let Some(account) = known.find(name) else {
            let decoy = known.decoy(self.decoys.hash_one(name));
            return Some(Decision::Wait(Work::new(move || {
                // Whether it fits by accident or not: this user is unknown.
                let _fits = decoy.is(bytes(password.as_ref()));
                None
            })));
        };
        let mark = password.as_ref().and_then(|password| {
            let password = password.expose();
            self.verified.mark(name, password, &account.password)
        });
        if mark.is_some_and(|mark| self.verified.knows(&mark, Instant::now())) {
            return Some(allow(&account));
        }
        let verified = Arc::clone(&self.verified);
        let keys = self.scram.clone();
        let is_of_file = known.is_of_file(&account);
        let renewal = self.renewal.clone().filter(|_| is_of_file);
        Some(Decision::Wait(Work::new(move || {
            let fits = account.password.is(bytes(password.as_ref()));
            // No password is not an empty one.
            if !fits || password.is_none() {
                return Some(wrong());
            }
            if let Some(mark) = mark {
                verified.remember(mark, Instant::now());
            }
            if let (Some(renewal), Some(password)) = (renewal, &password) {
                renewal.renew(&account, password.expose());
            }
            if let (Some(keys), Some(password)) = (keys, &password) {
                learn(&keys, &account, password);
            }
            Some(allow(&account))
        })))
    }
}

/// Leaves keys for SCRAM, unless there are some. After this the user proves what it has sent up to now.
fn learn(keys: &ScramKeys, account: &Account, password: &Secret) {
    let name = account.identity.user.as_deref().unwrap_or_default();
    let found = Some((account.kept(), account.scram.as_ref()));
    if !keys.of(name, found).1 {
        keys.learn(name, password.expose(), account.kept());
    }
}

fn bytes(password: Option<&Secret>) -> &[u8] {
    password.map(Secret::expose).unwrap_or_default()
}

fn allow(account: &Account) -> Decision {
    Decision::Allow {
        identity: account.identity.clone(),
        data: None,
    }
}

/// The one answer to an unknown user and to a wrong password.
pub(super) fn wrong() -> Decision {
    Decision::Deny(
        ReasonCode::BadUserNameOrPassword,
        "unknown user, or wrong password".to_owned(),
    )
}

/// Reads the password file at `path`.
/// # Errors
/// It cannot be read, is empty, or has a line that is wrong; the error names it.
pub fn read_password_file(path: &Path) -> Result<Accounts, AuthenticationError> {
    let text = AuthenticationError::read(path)?;
    Accounts::parse(&text)
        .map_err(|(line, problem)| AuthenticationError::wrong(path, line, problem))
}

#[cfg(test)]
mod tests {
    use super::super::Kind;
    use proto::Version;

    use super::*;

    fn accounts(lines: &[(&str, &str)]) -> Accounts {
        let lines: Vec<String> = lines
            .iter()
            .map(|(name, hash)| format!("{name}:{hash}\n"))
            .collect();
        Accounts::parse(&lines.concat()).expect("is a password file")
    }

    fn ask(passwords: &Passwords, name: Option<&str>, password: Option<&str>) -> Option<Decision> {
        let password = password.map(|password| Secret::new(password.to_owned()));
        let attempt = Attempt {
            client_id: "a",
            user_name: name,
            password: password.as_ref(),
            data: None,
            peer: ([127, 0, 0, 1], 9).into(),
            version: Version::V5,
            listener: "tcp",
            is_for_others: false,
            certificate: None,
            anonymous: None,
        };
        passwords.authenticate(&attempt, &mut Exchange::default())
    }

    /// What comes out in the end, and whether it took a verification.
    fn verdict(passwords: &Passwords, name: &str, password: Option<&str>) -> (&'static str, bool) {
        let word = |decision: Option<Decision>| match decision {
            Some(Decision::Allow { .. }) => "allow",
            Some(Decision::Deny(ReasonCode::BadUserNameOrPassword, _)) => "deny",
            None => "next",
            other => panic!("{other:?}"),
        };
        match ask(passwords, Some(name), password) {
            Some(Decision::Wait(Work(Kind::Computing(work)))) => (word(work()), true),
            decision => (word(decision), false),
        }
    }

    /// P13: who is unknown costs a verification, as a wrong password does; only a right one may be remembered.
    #[test]
    fn unknown_user_and_wrong_password_are_verified_alike_and_a_right_one_once() {
        let file = accounts(&[(
            "anna",
            &StoredPassword::new(b"word").expect("is hashed").expose(),
        )]);
        let passwords = Passwords::new(Some(file.into()), None, Duration::from_secs(60));
        for _ in 0..2 {
            assert_eq!(verdict(&passwords, "nobody", Some("word")), ("next", true));
            assert_eq!(verdict(&passwords, "nobody", None), ("next", true));
            assert_eq!(verdict(&passwords, "anna", Some("ward")), ("deny", true));
            assert_eq!(verdict(&passwords, "anna", None), ("deny", true));
        }
        assert_eq!(verdict(&passwords, "anna", Some("word")), ("allow", true));
        assert_eq!(verdict(&passwords, "anna", Some("word")), ("allow", false));
        assert_eq!(verdict(&passwords, "anna", Some("ward")), ("deny", true));
        assert!(ask(&passwords, None, Some("word")).is_none());
        let forgetful = accounts(&[("anna", &StoredPassword::dummy().expose())]);
        let forgetful = Passwords::new(Some(forgetful.into()), None, Duration::ZERO);
        assert_eq!(verdict(&forgetful, "anna", Some("word")), ("deny", true));
        let nobody = Passwords::new(None, None, Duration::ZERO);
        assert_eq!(verdict(&nobody, "anna", Some("word")), ("next", false));
    }

    /// P13: the time that an unknown name takes is that of some user, and does not change.
    #[test]
    fn unknown_users_are_measured_by_hashes_of_all_forms_there_are() {
        let cheap = "$7$101$ga50u/ymOANPKoXr$vx730TtoKGgWJOud1wY678BEmEn4PcaB/4/ctHSDwpFTwkHXKB+w46zLDr8htvV9ME+QCzZggGfnK6WC330fIg==";
        let costly = StoredPassword::dummy().expose();
        let file = accounts(&[("anna", cheap), ("otto", &costly)]);
        let passwords = Passwords::new(Some(file.into()), None, Duration::ZERO);
        let decoy = |name: String| {
            let known = passwords.known();
            let hash = passwords.decoys.hash_one(name.as_str());
            assert_eq!(known.decoy(hash), known.decoy(hash));
            known.decoy(hash).expose() == cheap
        };
        let cheap = (0..200).filter(|n| decoy(format!("unknown-{n}"))).count();
        assert!((40..160).contains(&cheap), "{cheap} of 200");
    }
}
