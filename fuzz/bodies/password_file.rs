//! Any bytes as a password file: users that are written and read again, or an error at one of its lines.
//!
//! Owns: [`run`]. Does not own: what reads the file (see `vencejo_server::authentication`).
//! Start reading at [`run`]. Invariant: no error shows what stands behind a colon.

use vencejo_server::authentication::{Accounts, PasswordFileError};

/// `data` is the file.
pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let accounts = match Accounts::parse(text) {
        Ok(accounts) => accounts,
        Err((line, error)) => {
            assert!((1..=text.lines().count().max(1)).contains(&line), "{error}");
            let line = text.lines().nth(line - 1).unwrap_or_default().trim();
            let name = line.split_once(':').map_or("", |(name, _)| name);
            // What an error holds beside a name are fixed words and numbers.
            match &error {
                PasswordFileError::Hash { user, .. } | PasswordFileError::Twice { user, .. } => {
                    assert_eq!(user, name, "{error}");
                }
                PasswordFileError::NoUser
                | PasswordFileError::UserName
                | PasswordFileError::Empty => {}
            }
            return;
        }
    };
    assert!(!accounts.is_empty());
    let mut again = String::new();
    for account in accounts.iter() {
        let name = account.identity.user.as_deref().expect("a user");
        assert_eq!(accounts.find(name).map(AsRef::as_ref), Some(account));
        again.push_str(&format!("{name}:{}\n", account.password.expose()));
    }
    assert_eq!(Accounts::parse(&again).as_ref(), Ok(&accounts));
}
