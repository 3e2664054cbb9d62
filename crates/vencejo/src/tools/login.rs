//! Passwords that do not stand on the command line: in a file, in the environment, asked for.
//!
//! Owns: reading them. Does not own: which of several wins, how one is proven (see `args`). Start reading at
//! [`LoginArgs::password`]. Invariant: a password that is asked for is asked for once.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use clap::Args;

use super::Failure;

/// Where a password is, other than on the command line.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct SecretArgs {
    /// The password stands in this variable of the environment
    #[arg(long, value_name = "NAME", conflicts_with = "password_file")]
    pub(crate) password_env: Option<String>,
    /// The password is the first line of this file
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
}

impl SecretArgs {
    /// The password that these flags name.
    pub(crate) fn password(&self) -> Result<Option<String>, Failure> {
        match (&self.password_env, &self.password_file) {
            (Some(name), _) => of_environment(name).map(Some),
            (None, Some(path)) => of_file(path).map(Some),
            (None, None) => Ok(None),
        }
    }
}

/// Where the password of a connection comes from when it does not stand on the command line.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct LoginArgs {
    #[command(flatten)]
    pub(crate) secret: SecretArgs,
    /// Ask for the password
    #[arg(long, conflicts_with_all = ["password_env", "password_file"])]
    pub(crate) ask_password: bool,
}

impl LoginArgs {
    /// The password that these flags name.
    pub(crate) fn password(&self) -> Result<Option<String>, Failure> {
        match self.ask_password {
            true => asked().map(Some),
            false => self.secret.password(),
        }
    }
}

/// The value of a variable.
pub(crate) fn of_environment(name: &str) -> Result<String, Failure> {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => Ok(value),
        Ok(_) | Err(std::env::VarError::NotPresent) => Err(Failure::new(format!(
            "Error: there is no password in the variable {name}."
        ))),
        Err(error) => Err(Failure::new(format!("Error: {name}: {error}."))),
    }
}

/// The first line of a file.
pub(crate) fn of_file(path: &Path) -> Result<String, Failure> {
    let failed =
        |why: &dyn std::fmt::Display| Failure::new(format!("Error: {}: {why}.", path.display()));
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|error| failed(&error))?;
    // A device without an end is no password.
    let read = file.take(FILE_BYTES_MAX).read_to_string(&mut text);
    read.map_err(|error| failed(&error))?;
    let line = text.lines().next().unwrap_or_default();
    match line.is_empty() {
        true => Err(failed(&"there is no password in its first line")),
        false => Ok(line.to_owned()),
    }
}

fn asked() -> Result<String, Failure> {
    static ASKED: OnceLock<String> = OnceLock::new();
    if let Some(password) = ASKED.get() {
        return Ok(password.clone());
    }
    let password = rpassword::prompt_password("Password: ")
        .map_err(|error| Failure::new(format!("Error: the password: {error}.")))?;
    Ok(ASKED.get_or_init(|| password).clone())
}

/// More is no password.
const FILE_BYTES_MAX: u64 = 128 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_the_first_line_of_its_file() {
        let path = std::env::temp_dir().join(format!("vencejo-login-{}", std::process::id()));
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let args = SecretArgs {
                password_file: Some(path.clone()),
                ..SecretArgs::default()
            };
            args.password()
        };
        assert_eq!(read("se cret \r\nmore"), Ok(Some("se cret ".to_owned())));
        assert!(read("\nsecret").unwrap_err().text.contains("first line"));
        std::fs::remove_file(&path).unwrap();
        assert!(of_file(&path).is_err());
        assert!(of_environment("VENCEJO_NO_SUCH_VARIABLE").is_err());
        assert_eq!(LoginArgs::default().password(), Ok(None));
    }
}
