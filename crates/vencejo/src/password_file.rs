//! `vencejo passwd`: changes a password file as mosquitto has it, in the way of mosquitto_passwd.
//!
//! Owns: flags, the lines of the file. Does not own: what a line means, how the file is replaced (see
//! `server::authentication`). Start reading at [`run`]. Invariants: other lines stay as they are, comments
//! included; a file that a server would refuse is not written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;
use server::authentication::{Accounts, PasswordFile, StoredPassword, user_of};

use crate::serve;
use crate::storage::{failed, unfit};
use crate::tools::login::SecretArgs;
use crate::tools::{Failure, complain};
use crate::users::read_password;

/// Set, change or delete (-D) a password in a password file, as mosquitto_passwd does; a server reads it again at
/// SIGHUP
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct PasswdArgs {
    /// Make the file, or empty one that is there
    #[arg(short = 'c', conflicts_with = "delete")]
    create: bool,
    /// The password is the last argument; others on this machine can see it
    #[arg(short = 'b', requires = "password", conflicts_with_all = ["delete", "update"])]
    batch: bool,
    /// Delete the user
    #[arg(short = 'D')]
    delete: bool,
    /// Hash the passwords of a file that has them in the clear
    #[arg(short = 'U', conflicts_with_all = ["create", "delete"])]
    update: bool,
    /// The password file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The user name; its password is asked for, or is the first line of standard input
    #[arg(
        value_name = "USER",
        required_unless_present = "update",
        conflicts_with = "update"
    )]
    user: Option<String>,
    /// Its password, with -b
    #[arg(
        value_name = "PASSWORD",
        requires = "batch",
        allow_hyphen_values = true
    )]
    password: Option<String>,
    #[command(flatten)]
    secret: SecretArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print help
    #[arg(long, short = 'h', short_alias = '?', action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// `vencejo passwd ...`.
pub(crate) fn run(args: &PasswdArgs) -> Result<(), Failure> {
    let file = &args.file;
    let unwritable = |error| failed(&format!("{}: {error}", file.display()));
    if !args.create {
        read(file, fs::read_to_string(file))?;
    }
    let password = match &args.user {
        Some(user) if !args.delete => {
            check_name(user)?;
            Some(match &args.password {
                Some(password) => hash(password)?,
                None => read_password(user, &args.secret)?,
            })
        }
        _ => None,
    };
    // Only now: whoever types a password keeps nobody waiting.
    let held = PasswordFile::open(file).map_err(unwritable)?;
    let old = if args.create {
        String::new()
    } else {
        read(file, held.read())?
    };
    let (text, done) = match (&args.user, &password) {
        (None, _) => hashed(&old)?,
        (Some(user), None) => (without(&old, user)?, Done::Deleted(user)),
        (Some(user), Some(password)) => (with(&old, user, password), Done::Set(user)),
    };
    check(file, &text)?;
    held.replace(&text).map_err(unwritable)?;
    serve::print(&match args.json {
        true => done.object(file),
        false => done.line(),
    });
    Ok(())
}

/// What became of the file.
enum Done<'a> {
    Set(&'a str),
    Deleted(&'a str),
    /// So many passwords were in the clear.
    Hashed(u64),
}

impl Done<'_> {
    fn line(&self) -> String {
        match self {
            Self::Set(user) => format!("the password of {user} is set\n"),
            Self::Deleted(user) => format!("user {user} deleted\n"),
            Self::Hashed(count) => format!("{count} passwords hashed\n"),
        }
    }

    fn object(&self, file: &Path) -> String {
        let (outcome, user, count) = match self {
            Self::Set(user) => ("set", Some(user), 1),
            Self::Deleted(user) => ("deleted", Some(user), 0),
            Self::Hashed(count) => ("hashed", None, *count),
        };
        let value = json!({
            "file": file.display().to_string(),
            "user": user,
            "outcome": outcome,
            "passwords_hashed": count,
        });
        format!("{value}\n")
    }
}

fn read(file: &Path, text: io::Result<String>) -> Result<String, Failure> {
    text.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => ": -c makes it",
            _ => "",
        };
        failed(&format!("{}: {error}{hint}", file.display()))
    })
}

fn hash(password: &str) -> Result<StoredPassword, Failure> {
    if password.is_empty() {
        return Err(unfit(&"an empty password lets everyone in"));
    }
    StoredPassword::new(password.as_bytes()).map_err(|error| unfit(&error))
}

/// A name that would be another one, or a comment, when the file is read.
fn check_name(user: &str) -> Result<(), Failure> {
    let is_plain = !user.starts_with('#') && user.trim() == user && !user.is_empty();
    if is_plain && !user.contains(':') && !user.chars().any(char::is_control) {
        return Ok(());
    }
    let text = "in a password file, a user name does not begin with #, is not empty, and has no colon, no spaces \
                around it and no control characters";
    Err(unfit(&text))
}

/// `text` in which `user` has `password`.
fn with(text: &str, user: &str, password: &StoredPassword) -> String {
    let new = format!("{user}:{}", password.expose());
    let mut is_there = false;
    let mut lines: Vec<&str> = Vec::new();
    for line in text.lines() {
        if user_of(line) != Some(user) {
            lines.push(line);
        } else if !is_there {
            is_there = true;
            lines.push(&new);
        }
    }
    if !is_there {
        lines.push(&new);
    }
    joined(&lines)
}

fn without(text: &str, user: &str) -> Result<String, Failure> {
    let lines: Vec<&str> = text.lines().collect();
    let others: Vec<&str> = lines
        .iter()
        .copied()
        .filter(|line| user_of(line) != Some(user))
        .collect();
    if others.len() == lines.len() {
        return Err(unfit(&format!("there is no user {user:?} in the file")));
    }
    Ok(joined(&others))
}

/// `text` in which every password is hashed, and how many were not.
fn hashed(text: &str) -> Result<(String, Done<'static>), Failure> {
    let mut count = 0;
    let mut lines = Vec::new();
    for line in text.lines() {
        let of = user_of(line).zip(line.trim().split_once(':'));
        match of {
            Some((user, (_, password))) if StoredPassword::parse(password).is_err() => {
                // What looks like a hash may be a damaged one, and is not a password.
                if password.starts_with('$') {
                    lines.push(line.to_owned());
                    continue;
                }
                lines.push(format!("{user}:{}", hash(password)?.expose()));
                count += 1;
            }
            _ => lines.push(line.to_owned()),
        }
    }
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    Ok((joined(&lines), Done::Hashed(count)))
}

fn joined(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Whether a server would read it; that nobody is left is told, and done.
fn check(file: &Path, text: &str) -> Result<(), Failure> {
    if text.lines().all(|line| user_of(line).is_none()) {
        complain("Warning: nobody is left in it; a server refuses such a file.");
        return Ok(());
    }
    match Accounts::parse(text) {
        Ok(_) => Ok(()),
        Err((line, error)) => {
            let file = file.display();
            let text = format!("{file}: nothing is changed, line {line} would be wrong: {error}");
            Err(unfit(&text))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const OTHER: &str = "$6$HKOeX+qQWTBForBy$PfJnGHkORi6tVwcMZYwsFLg3IUsLCg9MX6rgNYyc1xuQ04xGUwfSoEP0SYKuComivN8GUmMbM/sPvsuhhRhLAg==";

    fn args(line: &str, file: &Path) -> PasswdArgs {
        use clap::Parser;

        #[derive(Parser)]
        struct Cli {
            #[command(flatten)]
            args: PasswdArgs,
        }
        let file = file.to_str().unwrap();
        let words = line
            .split(' ')
            .map(|word| if word == "FILE" { file } else { word });
        Cli::parse_from(std::iter::once("passwd").chain(words)).args
    }

    /// A file of its own, away when it is dropped.
    struct Temp(PathBuf);

    impl Temp {
        fn new(name: &str) -> Self {
            let name = format!("vencejo-passwd-{name}-{}", std::process::id());
            Self(std::env::temp_dir().join(name))
        }

        fn text(&self) -> String {
            fs::read_to_string(&self.0).unwrap()
        }
    }

    impl Drop for Temp {
        fn drop(&mut self) {
            fs::remove_file(&self.0).ok();
        }
    }

    #[test]
    fn file_is_made_changed_and_shortened_as_by_mosquitto_passwd() {
        let temp = Temp::new("made");
        let file = &temp.0;
        let run = |line: &str| run(&args(line, file));
        assert_eq!(
            run("-b FILE anna word").unwrap_err().code,
            74,
            "there is no file"
        );
        run("-c -b FILE anna word").unwrap();
        fs::write(file, format!("# people\n{}\nemil:{OTHER}\n", temp.text())).unwrap();
        run("-b FILE otto -secret").unwrap();
        run("-b FILE anna other").unwrap();
        let text = temp.text();
        assert!(text.starts_with("# people\nanna:$argon2id$"), "{text}");
        assert!(text.contains(&format!("\nemil:{OTHER}\n")), "{text}");
        let accounts = Accounts::parse(&text).unwrap();
        assert_eq!(accounts.len(), 3);
        let is = |user: &str, word: &[u8]| accounts.find(user).unwrap().password.is(word);
        assert!(is("anna", b"other") && is("otto", b"-secret") && is("emil", b"secret word"));
        assert_eq!(
            fs::metadata(file).unwrap().permissions().mode() & 0o777,
            0o600
        );
        // Its group may go on reading it, and nobody else begins to.
        fs::set_permissions(file, Permissions::from_mode(0o644)).unwrap();
        run("-b FILE anna other").unwrap();
        assert_eq!(
            fs::metadata(file).unwrap().permissions().mode() & 0o777,
            0o640
        );
        run("-D FILE anna").unwrap();
        let unknown = run("-D FILE anna").unwrap_err();
        assert!(
            unknown.code == 1 && unknown.text.contains("no user"),
            "{}",
            unknown.text
        );
        assert!(!temp.text().contains("anna"));
        run("-c -b FILE last one").unwrap();
        assert_eq!(Accounts::parse(&temp.text()).unwrap().len(), 1);
    }

    #[test]
    fn passwords_in_the_clear_are_hashed_and_hashes_stay() {
        let temp = Temp::new("hashed");
        fs::write(&temp.0, format!("anna:a word: two\nemil:{OTHER}\n#x:y\n")).unwrap();
        run(&args("-U FILE", &temp.0)).unwrap();
        let accounts = Accounts::parse(&temp.text()).unwrap();
        assert!(accounts.find("anna").unwrap().password.is(b"a word: two"));
        assert!(temp.text().ends_with(&format!("emil:{OTHER}\n#x:y\n")));
    }

    /// Class F: what a server would refuse, or read as something else, is not written.
    #[test]
    fn name_that_would_forge_a_line_and_file_that_is_wrong_change_nothing() {
        let temp = Temp::new("wrong");
        let good = format!("emil:{OTHER}\n");
        fs::write(&temp.0, &good).unwrap();
        for name in ["a:b", "#a", "a\nb", "a\tb", ""] {
            let mut args = args("-b FILE name word", &temp.0);
            args.user = Some(name.to_owned());
            assert_eq!(run(&args).unwrap_err().code, 1, "{name:?}");
        }
        assert_eq!(run(&args("-b FILE anna ", &temp.0)).unwrap_err().code, 1);
        assert_eq!(temp.text(), good);
        fs::write(&temp.0, "emil:opensesame\n").unwrap();
        let failure = run(&args("-b FILE anna word", &temp.0)).unwrap_err();
        assert!(failure.text.contains("line 1"), "{}", failure.text);
        assert!(!failure.text.contains("opensesame"));
        assert_eq!(temp.text(), "emil:opensesame\n");
    }
}
