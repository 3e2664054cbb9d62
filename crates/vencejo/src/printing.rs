//! Flags of commands that print what they have found or done: `--json` and `--help`.
//!
//! Owns: their words. Does not own: what is printed. Start reading at [`OneObject`]. Invariant: they mean the same everywhere.

use clap::Args;

/// What is printed can be an object of JSON.
#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct OneObject {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Print help
    #[arg(long, short = 'h', short_alias = '?', action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// What is printed can be an object of JSON in each line.
#[derive(Args, Clone, Copy, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct ManyObjects {
    /// Print JSON, an object in each line
    #[arg(long)]
    pub(crate) json: bool,
    /// Print help
    #[arg(long, short = 'h', short_alias = '?', action = clap::ArgAction::Help)]
    help: Option<bool>,
}
