//! Completions for shells, and pages of the manual, made of the flags.
//!
//! Owns: where they go. Does not own: the flags. Start reading at [`complete`]. Invariant: they say what this program takes,
//! no more and no less.

use std::fs;
use std::path::PathBuf;

use clap::{Args, Command, CommandFactory as _};
use clap_complete::Shell;

use crate::tools::Failure;
use crate::{Cli, serve};

/// Print completions for a shell
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
    /// Print help
    #[arg(long, short = 'h', short_alias = '?', action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// Print the page of the manual, or write the pages of all commands
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct ManArgs {
    /// The page of this command, like `sub` or `profile add`
    #[arg(value_name = "COMMAND", conflicts_with = "output")]
    command: Vec<String>,
    /// Write all pages into this folder
    #[arg(short = 'o', long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Print help
    #[arg(long, short = 'h', short_alias = '?', action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// `vencejo completions SHELL`.
#[expect(clippy::unnecessary_wraps, reason = "the shape that commands have")]
pub(crate) fn complete(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), NAME, &mut script);
    serve::print(&String::from_utf8_lossy(&script));
    Ok(())
}

/// `vencejo man`.
pub(crate) fn write(args: &ManArgs) -> Result<(), Failure> {
    // `help` says the same again, and has no page.
    let mut root = Cli::command().disable_help_subcommand(true);
    root.build();
    if let Some(folder) = &args.output {
        let failed =
            |error: std::io::Error| Failure::new(format!("error: {}: {error}", folder.display()));
        fs::create_dir_all(folder).map_err(failed)?;
        for command in all(root) {
            let file = folder.join(format!("{}.1", name_of(&command)));
            fs::write(file, page(command)?).map_err(failed)?;
        }
        return Ok(());
    }
    let mut command = root;
    for name in &args.command {
        let found = command.find_subcommand(name).cloned();
        let words = args.command.join(" ");
        command =
            found.ok_or_else(|| Failure::new(format!("error: there is no command {words}")))?;
    }
    serve::print(&String::from_utf8_lossy(&page(command)?));
    Ok(())
}

/// A command and those below it, for each of which there is a page that the one above names.
fn all(root: Command) -> Vec<Command> {
    let mut all = vec![root];
    let mut next = 0;
    while let Some(command) = all.get(next) {
        let below: Vec<Command> = command.get_subcommands().cloned().collect();
        all.extend(below);
        next += 1;
    }
    all
}

fn page(command: Command) -> Result<Vec<u8>, Failure> {
    let name = name_of(&command);
    let mut page = Vec::new();
    // Of itself it names the last word of a command, as if that were a program.
    let source = format!("{NAME} {}", env!("CARGO_PKG_VERSION"));
    let man = clap_mangen::Man::new(command).title(name).source(source);
    let made = man.render(&mut page);
    made.map_err(|error| Failure::new(format!("error: {error}")))?;
    Ok(page)
}

fn name_of(command: &Command) -> String {
    command.get_bin_name().unwrap_or(NAME).replace(' ', "-")
}

const NAME: &str = "vencejo";
