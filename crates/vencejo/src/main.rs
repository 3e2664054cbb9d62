//! The one binary: the server, and the tools around it.
//!
//! Owns: which command runs, exit codes of usage errors, the allocator. Does not own: any MQTT.
//! Start reading at [`main`]. Invariant: data on standard output, diagnostics on standard error.

mod bans;
mod config;
mod conform;
mod demo;
mod doctor;
mod emqx;
mod explain;
mod file_watch;
mod import;
mod inspect;
mod losses;
mod manual;
mod mosquitto;
mod nanomq;
mod password_file;
mod port_owner;
mod printing;
mod serve;
mod storage;
mod tls;
mod tools;
mod users;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory as _, Parser, Subcommand};

use bans::BanArgs;
use config::ConfigArgs;
use conform::ConformanceArgs;
use demo::DemoArgs;
use doctor::DoctorArgs;
use explain::ExplainArgs;
use import::ImportArgs;
use losses::LossesArgs;
use manual::{CompletionsArgs, ManArgs};
use password_file::PasswdArgs;
use serve::ServeArgs;
use storage::{BackupArgs, RestoreArgs, StoreArgs};
use tls::TlsArgs;
use tools::args::{PubArgs, SubArgs};
use tools::bench::BenchArgs;
use tools::explore::ExploreArgs;
use tools::probe::ProbeArgs;
use tools::profile::ProfileArgs;
use tools::request::RrArgs;
use tools::retained::RetainedArgs;
use tools::{Failure, complain};
use users::UserArgs;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// An MQTT server (3.1, 3.1.1 and 5.0) and its tools. Without a command it serves with the defaults.
#[derive(Parser, Debug)]
#[command(name = "vencejo", version, disable_help_flag = true)]
struct Cli {
    /// Print help
    #[arg(long, short = 'h', short_alias = '?', action = clap::ArgAction::Help)]
    help: Option<bool>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    Serve(ServeArgs),
    Pub(Box<PubArgs>),
    Sub(Box<SubArgs>),
    Rr(Box<RrArgs>),
    Explore(Box<ExploreArgs>),
    Retained(RetainedArgs),
    Probe(Box<ProbeArgs>),
    Profile(ProfileArgs),
    Bench(Box<BenchArgs>),
    Conformance(ConformanceArgs),
    Doctor(Box<DoctorArgs>),
    Completions(CompletionsArgs),
    Man(ManArgs),
    Config(ConfigArgs),
    Import(ImportArgs),
    Demo(DemoArgs),
    Backup(BackupArgs),
    Restore(RestoreArgs),
    Store(StoreArgs),
    Explain(Box<ExplainArgs>),
    Tls(TlsArgs),
    User(UserArgs),
    Passwd(PasswdArgs),
    Ban(BanArgs),
    Losses(LossesArgs),
}

fn main() -> ExitCode {
    take_small_pages();
    let tool = tools::called::tool();
    let mut words: Vec<OsString> = std::env::args_os().collect();
    let mut parsed = parse(tool, &words);
    let file = parsed
        .as_ref()
        .ok()
        .and_then(|command| options_file(command.as_ref()?));
    let options = match tools::options_file::options(file, tool) {
        Ok(options) => options,
        Err(failure) => return report(Err(failure), false),
    };
    if !options.is_empty() {
        // Behind the name of the program and that of the command.
        let first = if tool.is_some() { 1 } else { 2 };
        words.splice(first..first, options);
        parsed = parse(tool, &words);
    }
    let command = match parsed {
        Ok(command) => command,
        Err(error) => return on_parse_error(&error, &words, tool),
    };
    match command.unwrap_or_else(|| Command::Serve(ServeArgs::default())) {
        Command::Serve(args) => report(serve::run(&args), false),
        Command::Config(args) => report(config::run(&args), false),
        Command::Import(args) => report(import::run(&args), false),
        Command::Demo(args) => report(demo::run(&args), false),
        Command::Backup(args) => report(storage::back_up(&args), false),
        Command::Restore(args) => report(storage::restore(&args), false),
        Command::Store(args) => report(storage::run(&args), false),
        Command::Explain(args) => report(explain::run(&args), false),
        Command::Tls(args) => report(tls::run(&args), false),
        Command::User(args) => report(users::run(&args), false),
        Command::Passwd(args) => report(password_file::run(&args), false),
        Command::Ban(args) => report(bans::run(&args), false),
        Command::Losses(args) => report(losses::run(&args), false),
        Command::Pub(args) => report(run(tools::publish::run(&args)), args.connection.quiet),
        Command::Sub(args) => report(run(tools::subscribe::run(&args)), args.connection.quiet),
        Command::Explore(args) => report(run(tools::explore::run(&args)), false),
        Command::Retained(args) => report(run(tools::retained::run(&args)), false),
        Command::Probe(args) => report(run(tools::probe::run(&args)), false),
        Command::Profile(args) => report(tools::profile::run(&args), false),
        Command::Bench(args) => report(tools::bench::run(&args), false),
        Command::Conformance(args) => report(conform::run(&args), false),
        Command::Doctor(args) => report(doctor::run(&args), false),
        Command::Completions(args) => report(manual::complete(&args), false),
        Command::Man(args) => report(manual::write(&args), false),
        Command::Rr(args) => report(run(tools::request::run(&args)), args.connection.quiet),
    }
}

/// Lets the system give memory in pages of 4 KiB. The allocator asks for pages of 2 MiB where they can be had, and one
/// that is touched once is there as a whole: three times what a server needs that has little to do. A system that does not
/// let us say so gives what it gives.
fn take_small_pages() {
    #[cfg(target_os = "linux")]
    rustix::thread::disable_transparent_huge_pages(true).ok();
}

/// What a command line means to this program, or to the `tool` of mosquitto's that it is called by.
fn parse(tool: Option<&str>, words: &[OsString]) -> Result<Option<Command>, clap::Error> {
    match tool {
        Some(tool) => of_mosquittos(tool, words).map(Some),
        None => Cli::try_parse_from(tools::spelled::arguments(words.to_vec(), &Cli::command()))
            .map(|cli| cli.command),
    }
}

/// The file with more options that a command line names.
fn options_file(command: &Command) -> Option<&Path> {
    let file = match command {
        Command::Pub(args) => &args.options,
        Command::Sub(args) => &args.options,
        Command::Rr(args) => &args.options,
        _ => return None,
    };
    file.options_file.as_deref()
}

/// The command line of a program that is called as one of mosquitto's: the flags of `tool`, without its name before them.
fn of_mosquittos(tool: &str, words: &[OsString]) -> Result<Command, clap::Error> {
    let version = clap::Arg::new("version")
        .long("version")
        .action(clap::ArgAction::Version)
        .help("Print version");
    let root = clap::Command::new(tools::called::theirs(tool).unwrap_or("vencejo"))
        .version(concat!("of vencejo ", env!("CARGO_PKG_VERSION")))
        .disable_version_flag(true)
        .arg(version);
    Ok(match tool {
        "pub" => Command::Pub(Box::new(flags(root, words)?)),
        "sub" => Command::Sub(Box::new(flags(root, words)?)),
        _ => Command::Rr(Box::new(flags(root, words)?)),
    })
}

fn flags<T: Args>(root: clap::Command, words: &[OsString]) -> Result<T, clap::Error> {
    let command = T::augment_args(root);
    T::from_arg_matches(&command.try_get_matches_from(words)?)
}

/// Runs what waits for something on one thread.
fn run(future: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("Error: {error}.")))?;
    let result = runtime.block_on(future);
    // A thread may still wait for standard input, which nobody wants to wait for.
    runtime.shutdown_background();
    result
}

fn report(result: Result<(), Failure>, quiet: bool) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { text, code }) => {
            if !quiet && !text.is_empty() {
                complain(&text);
            }
            ExitCode::from(code)
        }
    }
}

/// mosquitto's tools leave with 1 where a flag is wrong; everything else with 2.
fn on_parse_error(error: &clap::Error, words: &[OsString], tool: Option<&str>) -> ExitCode {
    // Nothing can be said where standard error is closed.
    error.print().ok();
    let tool = tool.or_else(|| words.get(1)?.to_str());
    let is_tool = tool.is_some_and(|name| ["pub", "sub", "rr"].contains(&name));
    let hint = match hint(error) {
        None if is_tool => stray(error, words),
        hint => hint.map(str::to_owned),
    };
    if let Some(hint) = hint {
        complain(&format!("\nNote: {hint}"));
    }
    match error.exit_code() {
        0 => ExitCode::SUCCESS,
        _ if is_tool => ExitCode::FAILURE,
        _ => ExitCode::from(2),
    }
}

/// What a flag that mosquitto's programs have, and ours have not, comes to here.
fn hint(error: &clap::Error) -> Option<&'static str> {
    let Some(ContextValue::String(flag)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    match flag.as_str() {
        "-p" | "--port" => Some("a server is told where to listen with --listen 127.0.0.1:1884."),
        "--psk" | "--psk-identity" => Some("TLS is there with certificates only: --cafile."),
        "--ciphers" | "--tls-engine" | "--tls-engine-kpass-sha1" | "--keyform" => Some(
            "the TLS in this program chooses its ciphers itself and reads keys from PEM files.",
        ),
        _ => None,
    }
}

/// What a word comes to that is neither a flag nor the value of one.
fn stray(error: &clap::Error, words: &[OsString]) -> Option<String> {
    let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    if error.kind() != ErrorKind::UnknownArgument || word.starts_with('-') {
        return None;
    }
    let at = words.iter().position(|other| other == word.as_str());
    let before = at.and_then(|at| words.get(at.checked_sub(1)?)?.to_str());
    Some(match before.filter(|before| before.starts_with('-')) {
        Some(flag) => format!("{flag} takes no value."),
        None => format!("{word:?} belongs to no flag: a topic is -t, a message -m."),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sub(line: &str) -> SubArgs {
        let words = ["vencejo", "sub"].into_iter().chain(line.split(' '));
        match Cli::try_parse_from(words).unwrap().command {
            Some(Command::Sub(args)) => *args,
            other => panic!("{other:?}"),
        }
    }

    fn publish(line: &str) -> PubArgs {
        let words = ["vencejo", "pub"].into_iter().chain(line.split(' '));
        match Cli::try_parse_from(words).unwrap().command {
            Some(Command::Pub(args)) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn mosquittos_everyday_flags_are_understood() {
        let args = publish(
            "-h example.org -p 1884 -t a/b -m -5 -q 1 -r -i me -u user -P secret -V mqttv311 -k 30 -d \
             --will-topic w --will-payload gone --will-qos 1 --will-retain --repeat 3 --repeat-delay 0.5 \
             --quiet --nodelay -A 127.0.0.1 -M 5 -x 10 -c",
        );
        assert_eq!(args.connection.host.as_deref(), Some("example.org"));
        assert_eq!(args.connection.port.as_deref(), Some("1884"));
        assert_eq!(args.payload.message.as_deref(), Some("-5".as_ref()));
        assert_eq!((args.repeat, args.max_inflight, args.retain), (3, 5, true));
        assert!(args.connection.debug && args.connection.will_retain);
        let args = sub(
            "-t a/# -t +/b -T a/c -U old -q 2 -v -C 3 -W 5 -F %p -N -R -E -I pre- -L mqtt://host/x \
             --retained-only --remove-retained --retain-as-published --retain-handling new",
        );
        assert_eq!(args.topic, ["a/#", "+/b"]);
        assert_eq!(args.filter_out, ["a/c"]);
        assert_eq!(args.unsubscribe, ["old"]);
        assert_eq!((args.count.as_deref(), args.timeout), (Some("3"), Some(5)));
        assert!(args.verbose && args.no_newline && args.exit_after_subscribe);
    }

    #[test]
    fn the_last_of_a_flag_counts_and_lists_grow() {
        let args = publish(
            "-q 0 -q 1 -t a -t b -m x -m y -h one -h two -r -r -D publish content-type a -D publish content-type b",
        );
        assert_eq!((args.qos.as_str(), args.topic.as_deref()), ("1", Some("b")));
        assert_eq!(args.connection.host.as_deref(), Some("two"));
        assert_eq!(args.connection.property.len(), 6);
        assert_eq!(sub("-t a -t b -C 1 -C 2").topic, ["a", "b"]);
    }

    #[test]
    fn properties_take_three_or_four_values() {
        let args = publish(
            "-t a -m b -D publish user-property k v -D publish content-type text -D connect receive-maximum 5 -r",
        );
        let expected =
            "publish user-property k v publish content-type text connect receive-maximum 5";
        assert_eq!(args.connection.property.join(" "), expected);
        assert!(args.retain);
    }

    #[test]
    fn long_flags_of_both_families_are_understood() {
        let args = publish(
            "--hostname h --topic t --message m --user u --password p --client-id c --no-clean",
        );
        assert_eq!(args.connection.host.as_deref(), Some("h"));
        assert_eq!(args.connection.username.as_deref(), Some("u"));
        assert_eq!(args.connection.id.as_deref(), Some("c"));
        assert!(args.connection.disable_clean_session);
    }

    /// Commands without `--json` are those that report nothing, or in a form of their own.
    #[test]
    fn every_command_that_reports_something_does_so_in_json() {
        const OTHERS: [&str; 11] = [
            "vencejo completions", // a script
            "vencejo config schema",
            "vencejo demo",    // for people
            "vencejo explore", // a terminal
            "vencejo man",     // pages
            "vencejo pub",
            "vencejo retained export", // prints nothing else
            "vencejo rr",              // -F json
            "vencejo serve",           // --log-format json
            "vencejo sub",             // -F json
            "vencejo",                 // serves
        ];
        let mut root = Cli::command().disable_help_subcommand(true);
        root.build();
        let mut waiting = vec![root];
        let mut without = Vec::new();
        while let Some(command) = waiting.pop() {
            let reports = !command.is_subcommand_required_set();
            let has_json = command
                .get_arguments()
                .any(|argument| argument.get_long() == Some("json"));
            if reports && !has_json {
                without.push(command.get_bin_name().unwrap_or("vencejo").to_owned());
            }
            waiting.extend(command.get_subcommands().cloned());
        }
        without.sort();
        let mut expected = OTHERS.to_vec();
        expected.sort_unstable();
        assert_eq!(without, expected);
    }

    #[test]
    fn no_command_serves() {
        assert!(Cli::try_parse_from(["vencejo"]).unwrap().command.is_none());
    }

    #[test]
    fn every_way_to_ask_for_help_gives_it() {
        for line in [
            "vencejo -h",
            "vencejo -?",
            "vencejo --help",
            "vencejo help",
            "vencejo help sub",
            "vencejo serve -h",
            "vencejo demo -h",
            "vencejo pub --help",
            "vencejo sub -?",
        ] {
            let help = Cli::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(help.exit_code(), 0, "{line}");
        }
    }

    #[test]
    fn every_command_helps() {
        let mut root = Cli::command().disable_help_subcommand(true);
        root.build();
        let mut waiting = vec![root];
        let mut asked = 0;
        while let Some(command) = waiting.pop() {
            let line = format!("{} --help", command.get_bin_name().unwrap_or("vencejo"));
            let help = Cli::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(help.exit_code(), 0, "{line}: {help}");
            asked += 1;
            waiting.extend(command.get_subcommands().cloned());
        }
        assert!(asked > 40, "{asked}");
    }

    #[test]
    fn a_flag_of_mosquitto_that_is_not_there_is_explained() {
        let cases = [
            ("vencejo serve -p 1884", Some("--listen")),
            ("vencejo --port 1884", Some("--listen")),
            ("vencejo pub -t a -m b --psk x", Some("--cafile")),
            ("vencejo sub -t a --ciphers x", Some("chooses its ciphers")),
            ("vencejo sub -t a --nonsense", None),
        ];
        for (line, expected) in cases {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
            let found = hint(&error);
            assert_eq!(found.is_some(), expected.is_some(), "{line}: {found:?}");
            let found = found.unwrap_or_default();
            assert!(
                found.contains(expected.unwrap_or_default()),
                "{line}: {found}"
            );
        }
    }
}
