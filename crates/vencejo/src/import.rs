//! `vencejo import`: what another server had, taken over.
//!
//! Owns: which thing is imported. Does not own: how (see `mosquitto`). Start reading at [`run`].
//! Invariant: what was there before stays as it is.

use clap::{Args, Subcommand};

use crate::mosquitto::{self, MosquittoArgs};
use crate::tools::Failure;

/// Take over what another server has
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct ImportArgs {
    #[command(subcommand)]
    what: What,
    /// Print help
    #[arg(long, short = 'h', short_alias = '?', action = clap::ArgAction::Help, global = true)]
    help: Option<bool>,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    Mosquitto(MosquittoArgs),
}

/// `vencejo import ...`.
pub(crate) fn run(args: &ImportArgs) -> Result<(), Failure> {
    match &args.what {
        What::Mosquitto(args) => mosquitto::run(args),
    }
}
