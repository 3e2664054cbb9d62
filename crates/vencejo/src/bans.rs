//! `vencejo ban`: who is not listened to for a while, and the end of that.
//!
//! Owns: flags and what is printed. Does not own: bans (see `server::authentication`). Start reading at
//! [`run`]. Invariant: User Names, which strangers choose, are printed escaped.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::json;
use server::Origin;
use server::authentication::Ban;
use server::persist::{ControlAnswer, ControlRequest};

use crate::serve;
use crate::storage::{DATA, ask, unexpected};
use crate::tools::Failure;

/// Show or lift the bans of those that failed to log in, or connected, too often
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct BanArgs {
    #[command(subcommand)]
    command: BanCommand,
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
enum BanCommand {
    /// The bans in force, those that end first in front
    List,
    /// Forget the failures of an address, of a user of this machine (uid:1000), or of all
    Lift {
        /// Whose; all without one
        address: Option<Origin>,
    },
}

/// `vencejo ban ...`.
pub(crate) fn run(args: &BanArgs) -> Result<(), Failure> {
    let request = match args.command {
        BanCommand::List => ControlRequest::Bans,
        BanCommand::Lift { address } => ControlRequest::LiftBans { address },
    };
    let text = match ask(&args.data, &request)? {
        Some(ControlAnswer::Bans { bans }) => bans
            .iter()
            .map(if args.json { object } else { line })
            .collect(),
        Some(ControlAnswer::Lifted { count }) if args.json => {
            format!("{}\n", json!({ "bans_lifted": count }))
        }
        Some(ControlAnswer::Lifted { count: 1 }) => "1 ban lifted\n".to_owned(),
        Some(ControlAnswer::Lifted { count }) => format!("{count} bans lifted\n"),
        Some(other) => return Err(unexpected(&other)),
        None => {
            let data = args.data.display();
            return Err(Failure {
                text: format!("Error: no server uses {data}; bans end with it."),
                code: serve::EX_UNAVAILABLE,
            });
        }
    };
    serve::print(&text);
    Ok(())
}

fn object(ban: &Ban) -> String {
    let value = json!({
        "address": ban.address.to_string(),
        "user": ban.user,
        "client_id": ban.client_id,
        "ends_in_seconds": ban.ends_in_seconds,
    });
    format!("{value}\n")
}

fn line(ban: &Ban) -> String {
    let user = match (&ban.user, &ban.client_id) {
        (Some(user), _) => format!("user {}", user.escape_debug()),
        (None, Some(client_id)) => {
            format!("client {}, connects too often", client_id.escape_debug())
        }
        (None, None) => "all users".to_owned(),
    };
    let (address, seconds) = (ban.address, ban.ends_in_seconds);
    format!("{address}  {user}  ends in {seconds} s\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Class X: a name cannot forge a line.
    #[test]
    fn names_that_strangers_chose_are_escaped() {
        let mut ban = Ban {
            address: Origin::Address([192, 0, 2, 1].into()),
            user: Some("a\n10.0.0.1".to_owned()),
            client_id: None,
            ends_in_seconds: 7,
        };
        assert_eq!(line(&ban), "192.0.2.1  user a\\n10.0.0.1  ends in 7 s\n");
        let expected = "{\"address\":\"192.0.2.1\",\"client_id\":null,\"ends_in_seconds\":7,\"user\":\"a\\n10.0.0.1\"}\n";
        assert_eq!(object(&ban), expected);
        ban.user = None;
        ban.client_id = Some("c\n".to_owned());
        let expected = "192.0.2.1  client c\\n, connects too often  ends in 7 s\n";
        assert_eq!(line(&ban), expected);
        ban.client_id = None;
        assert_eq!(line(&ban), "192.0.2.1  all users  ends in 7 s\n");
    }
}
