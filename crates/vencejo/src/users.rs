//! `vencejo user`: the built-in users, of a server that runs or of a data folder.
//!
//! Owns: flags, asking for a password, what is printed. Does not own: the users and their file (see
//! `server::authentication`). Start reading at [`run`]. Invariant: a password is never an argument, and never
//! printed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;
use server::authentication::{
    BoundKeys, Identity, NewUser, ScramKeys, StoredPassword, UserChange, Users,
};
use server::persist::{ControlAnswer, ControlRequest, DataFolder};

use crate::serve;
use crate::storage::{DATA, ask, failed, in_use, unexpected, unfit};
use crate::tools::Failure;
use crate::tools::login::SecretArgs;

/// Add, change, remove and list the users of a server; it may run meanwhile. Exit code 1 where a name is taken or
/// unknown
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
    /// The data folder of the server
    #[arg(long, value_name = "DIR", default_value = DATA, global = true)]
    data: PathBuf,
    /// Print JSON; of `list` an object in each line
    #[arg(long, global = true)]
    json: bool,
    /// Print help
    #[arg(long, short = 'h', short_alias = '?', action = clap::ArgAction::Help, global = true)]
    help: Option<bool>,
}

#[derive(Subcommand, Clone, Debug)]
enum UserCommand {
    /// A new user; its password is asked for, or is the first line of standard input, if no flag says where it is
    Add(AddArgs),
    /// Another password for a user; those who are connected with the old one are disconnected
    Passwd(PasswdArgs),
    /// The groups of a user, all of them: none if none is named. They count at once for those who are connected
    Groups(GroupsArgs),
    /// No such user any more; those who are connected as this user are disconnected
    Rm(NameArgs),
    /// All users, their groups, and who is an administrator
    List,
}

#[derive(Args, Clone, Debug)]
struct AddArgs {
    /// Its user name
    name: String,
    /// It is an administrator: it may read $SYS
    #[arg(long)]
    admin: bool,
    /// A group it is in; may be repeated
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,
    /// What else is known of it, for rules to ask; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_attribute)]
    attribute: Vec<(String, String)>,
    /// Keep no keys for SCRAM-SHA-256 beside the hash of the password
    #[arg(long)]
    no_scram: bool,
    #[command(flatten)]
    secret: SecretArgs,
}

#[derive(Args, Clone, Debug)]
struct PasswdArgs {
    /// The user name
    name: String,
    /// Keep no keys for SCRAM-SHA-256 beside the hash of the password
    #[arg(long)]
    no_scram: bool,
    #[command(flatten)]
    secret: SecretArgs,
}

#[derive(Args, Clone, Debug)]
struct GroupsArgs {
    /// The user name
    name: String,
    /// A group it is in
    #[arg(value_name = "GROUP")]
    groups: Vec<String>,
}

#[derive(Args, Clone, Debug)]
struct NameArgs {
    /// The user name
    name: String,
}

/// `vencejo user ...`.
pub(crate) fn run(args: &UserArgs) -> Result<(), Failure> {
    let data = &args.data;
    let (change, outcome) = match &args.command {
        UserCommand::Add(add) => {
            let (password, scram) = read_keys(data, &add.name, add.no_scram, &add.secret)?;
            let user = NewUser {
                name: add.name.clone(),
                password,
                scram,
                administrator: add.admin,
                groups: add.group.iter().cloned().collect::<BTreeSet<_>>(),
                attributes: add.attribute.iter().cloned().collect::<BTreeMap<_, _>>(),
            };
            (UserChange::Add(user), "added")
        }
        UserCommand::Passwd(PasswdArgs {
            name,
            no_scram,
            secret,
        }) => {
            let (password, scram) = read_keys(data, name, *no_scram, secret)?;
            let change = UserChange::Password {
                name: name.clone(),
                password,
                scram,
            };
            (change, "changed")
        }
        UserCommand::Groups(GroupsArgs { name, groups }) => {
            let change = UserChange::Groups {
                name: name.clone(),
                groups: groups.iter().cloned().collect(),
            };
            (change, "changed")
        }
        UserCommand::Rm(NameArgs { name }) => {
            (UserChange::Remove { name: name.clone() }, "removed")
        }
        UserCommand::List => return list(data, args.json),
    };
    let name = change.name().to_owned();
    apply(data, change)?;
    serve::print(&match args.json {
        true => format!("{}\n", json!({ "name": name, "outcome": outcome })),
        false => format!("user {name} {outcome}\n"),
    });
    Ok(())
}

/// Through the server that uses `data`, or in the folder itself.
fn apply(data: &Path, change: UserChange) -> Result<(), Failure> {
    match ask(
        data,
        &ControlRequest::User {
            change: Box::new(change.clone()),
        },
    )? {
        Some(ControlAnswer::Done) => {}
        Some(other) => return Err(unexpected(&other)),
        None => {
            let folder = DataFolder::lock(data).map_err(|error| in_use(&error))?;
            let users = Users::open(folder.path()).map_err(|error| failed(&error))?;
            users.apply(&change).map_err(|error| {
                let tell = if error.is_unfit() { unfit } else { failed };
                tell(&error)
            })?;
        }
    }
    Ok(())
}

fn list(data: &Path, as_json: bool) -> Result<(), Failure> {
    // The file is always whole, so nobody has to be asked.
    let users = Users::open(data).map_err(|error| failed(&error))?;
    let accounts = users.accounts().unwrap_or_default();
    let mut text = String::new();
    for account in accounts.iter() {
        let identity = &account.identity;
        if as_json {
            text.push_str(&format!("{}\n", object(identity)));
            continue;
        }
        text.push_str(identity.user.as_deref().unwrap_or_default());
        if identity.is_administrator {
            text.push_str("  administrator");
        }
        if !identity.groups.is_empty() {
            let groups: Vec<&str> = identity.groups.iter().map(AsRef::as_ref).collect();
            text.push_str(&format!("  groups: {}", groups.join(", ")));
        }
        for (name, value) in &identity.attributes {
            text.push_str(&format!("  {name}={value}"));
        }
        text.push('\n');
    }
    serve::print(&text);
    Ok(())
}

fn object(identity: &Identity) -> serde_json::Value {
    let groups: Vec<&str> = identity.groups.iter().map(AsRef::as_ref).collect();
    let attributes = identity.attributes.iter();
    let attributes: BTreeMap<&str, &str> = attributes
        .map(|(name, value)| (name.as_ref(), value.as_ref()))
        .collect();
    json!({
        "name": identity.user.as_deref(),
        "administrator": identity.is_administrator,
        "groups": groups,
        "attributes": attributes,
    })
}

/// Asks for a password: its hash, and its keys for SCRAM where it can have some.
fn read_keys(
    data: &Path,
    name: &str,
    no_scram: bool,
    secret: &SecretArgs,
) -> Result<(StoredPassword, Option<BoundKeys>), Failure> {
    let password = match secret.password()? {
        Some(password) => password,
        None => read_plain(name)?,
    };
    let stored = hash(&password)?;
    if no_scram {
        return Ok((stored, None));
    }
    if ScramKeys::salt_in(data, name).is_none()
        && let Ok(folder) = DataFolder::lock(data)
    {
        ScramKeys::open(folder.path()).map_err(|error| failed(&error))?;
    }
    let salt = ScramKeys::salt_in(data, name);
    let scram = salt.and_then(|salt| BoundKeys::derive(password.as_bytes(), &salt, &stored));
    Ok((stored, scram))
}

/// Asks for a password, which is hashed at once.
pub(crate) fn read_password(name: &str, secret: &SecretArgs) -> Result<StoredPassword, Failure> {
    match secret.password()? {
        Some(password) => hash(&password),
        None => hash(&read_plain(name)?),
    }
}

fn hash(password: &str) -> Result<StoredPassword, Failure> {
    StoredPassword::new(password.as_bytes()).map_err(|error| failure(&error))
}

fn failure(text: &str) -> Failure {
    Failure::new(format!("Error: {text}."))
}

/// Asks twice at a terminal; elsewhere it is the first line of standard input.
fn read_plain(name: &str) -> Result<String, Failure> {
    let password = if std::io::stdin().is_terminal() {
        let prompt = |text: String| {
            rpassword::prompt_password(text).map_err(|error| failure(&error.to_string()))
        };
        let password = prompt(format!("Password of {name}: "))?;
        if prompt("The same again: ".to_owned())? != password {
            return Err(failure("these are two passwords"));
        }
        password
    } else {
        let mut line = String::new();
        let read = std::io::stdin().lock().read_line(&mut line);
        read.map_err(|error| failure(&error.to_string()))?;
        line.trim_end_matches(['\r', '\n']).to_owned()
    };
    if password.is_empty() {
        return Err(failure("an empty password lets everyone in"));
    }
    Ok(password)
}

fn parse_attribute(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    let (name, value) = pair.ok_or_else(|| "wanted a name, = and a value".to_owned())?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_of_a_folder_that_no_server_uses_are_changed_there() {
        let name = format!("vencejo-users-{}", std::process::id());
        let data = std::env::temp_dir().join(name);
        let password = StoredPassword::new(b"word").unwrap();
        let user = NewUser {
            name: "anna".to_owned(),
            password: password.clone(),
            scram: None,
            administrator: true,
            groups: BTreeSet::new(),
            attributes: BTreeMap::from([parse_attribute("site=north=1").unwrap()]),
        };
        apply(&data, UserChange::Add(user.clone())).unwrap();
        let twice = apply(&data, UserChange::Add(user)).unwrap_err();
        assert_eq!(twice.code, 1, "{}", twice.text);
        list(&data, false).unwrap();
        list(&data, true).unwrap();
        let accounts = Users::open(&data).unwrap().accounts().unwrap();
        let identity = &accounts.find("anna").unwrap().identity;
        assert!(identity.is_administrator);
        assert_eq!(identity.attributes.get("site").unwrap().as_ref(), "north=1");
        let groups = |names: &[&str]| {
            let name = "anna".to_owned();
            let groups = names.iter().map(|name| (*name).to_owned()).collect();
            apply(&data, UserChange::Groups { name, groups }).unwrap();
            let accounts = Users::open(&data).unwrap().accounts().unwrap();
            let account = accounts.find("anna").unwrap();
            assert!(account.identity.is_administrator && account.password == password);
            account.identity.groups.len()
        };
        assert_eq!(
            [groups(&["ops", "staff"]), groups(&["ops"]), groups(&[])],
            [2, 1, 0]
        );
        let name = "anna".to_owned();
        apply(&data, UserChange::Remove { name: name.clone() }).unwrap();
        let password = UserChange::Password {
            name,
            password,
            scram: None,
        };
        let failure = apply(&data, password).unwrap_err();
        assert!(failure.text.contains("no user"), "{}", failure.text);
        assert_eq!(failure.code, 1);
        std::fs::remove_dir_all(data).unwrap();
        assert!(parse_attribute("site").is_err() && parse_attribute("=x").is_err());
    }
}
