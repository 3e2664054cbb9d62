//! `vencejo losses`: which sessions have lost messages, and why.
//!
//! Owns: flags and what is printed. Does not own: when something is lost (see `engine`). Start reading at [`run`].
//! Invariant: Client Identifiers, which strangers choose, are printed escaped.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use server::persist::{ControlAnswer, ControlRequest, SessionLosses};

use crate::serve;
use crate::storage::{DATA, ask, unexpected};
use crate::tools::Failure;

/// Show the sessions that have lost most messages: their queue was full, or they were too slow for QoS 0
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct LossesArgs {
    /// How many sessions are shown
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    count: usize,
    /// Print JSON, an object in each line
    #[arg(long)]
    json: bool,
    /// The data folder of the server
    #[arg(long, value_name = "DIR", default_value = DATA)]
    data: PathBuf,
    /// Print help
    #[arg(long, short = 'h', short_alias = '?', action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// `vencejo losses ...`.
pub(crate) fn run(args: &LossesArgs) -> Result<(), Failure> {
    let request = ControlRequest::Losses { count: args.count };
    let text: String = match ask(&args.data, &request)? {
        Some(ControlAnswer::Losses { sessions }) => sessions
            .iter()
            .map(if args.json { object } else { line })
            .collect(),
        Some(other) => return Err(unexpected(&other)),
        None => {
            let data = args.data.display();
            return Err(Failure {
                text: format!(
                    "Error: no server uses {data}; what is lost is counted while it runs."
                ),
                code: serve::EX_UNAVAILABLE,
            });
        }
    };
    serve::print(&text);
    Ok(())
}

fn object(session: &SessionLosses) -> String {
    let value = json!({
        "client_id": session.client_id,
        "queue_full": session.queue_full,
        "congested": session.congested,
        "too_large": session.too_large,
    });
    format!("{value}\n")
}

fn line(session: &SessionLosses) -> String {
    let client_id = session.client_id.escape_debug();
    let (queue_full, congested, too_large) =
        (session.queue_full, session.congested, session.too_large);
    format!(
        "{client_id}  queue full {queue_full}  too slow for QoS 0 {congested}  too large {too_large}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Class X: a name cannot forge a line.
    #[test]
    fn sessions_that_have_lost_messages_are_named_escaped_with_the_reasons() {
        let session = SessionLosses {
            client_id: "a\nb".to_owned(),
            queue_full: 1,
            congested: 2,
            too_large: 3,
        };
        assert_eq!(
            line(&session),
            "a\\nb  queue full 1  too slow for QoS 0 2  too large 3\n"
        );
    }
}
