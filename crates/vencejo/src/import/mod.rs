//! `vencejo import`: what another server had, taken over.
//!
//! Owns: which thing is imported. Does not own: how (see `mosquitto`, `emqx`, `nanomq`, `tools::retained`). Start reading at [`run`].
//! Invariant: what was there before stays as it is.

pub(crate) mod grants;
pub(crate) mod hocon;
pub(crate) mod rows;
pub(crate) mod target;
pub(crate) mod written;

use clap::{Args, Subcommand};

use crate::emqx::{self, EmqxArgs};
use crate::mosquitto::{self, MosquittoArgs};
use crate::nanomq::{self, NanomqArgs};
use crate::tools::Failure;
use crate::tools::retained::{self, CopyArgs};

/// Take over what another server has
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct ImportArgs {
    #[command(subcommand)]
    what: What,
    /// Print help
    #[arg(long, short = '?', action = clap::ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    Mosquitto(MosquittoArgs),
    Emqx(EmqxArgs),
    Nanomq(NanomqArgs),
    Retained(Box<CopyArgs>),
}

/// `vencejo import ...`.
pub(crate) fn run(args: &ImportArgs) -> Result<(), Failure> {
    match &args.what {
        What::Mosquitto(args) => mosquitto::run(args),
        What::Emqx(args) => emqx::run(args),
        What::Nanomq(args) => nanomq::run(args),
        What::Retained(args) => crate::run(retained::copy(args)),
    }
}
