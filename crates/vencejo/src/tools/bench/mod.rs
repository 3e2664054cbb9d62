//! `vencejo bench`: load on a schedule for any server, and what can be said of two results.
//!
//! Owns: flags, what is asked of a server before it is measured, rounds, the result as JSON. Does not own: loads (see
//! `flow`, `storm`, `replay`), comparing (see `compare`), brokers side by side for developers (see the crate `bench`).
//! Start reading at [`run`]. Invariant: exit code 0 means that everything that was due has come, once and in order. ADR 0030.

mod compare;
mod figures;
mod flow;
mod ground;
mod ledger;
mod machine;
mod pace;
mod progress;
mod replay;
mod report;
mod scenarios;
mod schedule;
mod statistics;
mod storm;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, Subcommand};
use client::Options;
use jiff::Timestamp;
use proto::packet::{ConnAck, Disconnect, ReasonCode};
use proto::{Qos, Version};
use serde_json::{Value, json};

use super::args::{ConnectionArgs, parse_qos};
use super::properties::Properties;
use super::{Failure, connect};
use crate::printing::ManyObjects;
use crate::serve;
use compare::CompareArgs;
use figures::Outcome;
use ground::{Ground, server_version};
use ledger::MARK_BYTES;
use progress::Progress;
use replay::Replay;
use scenarios::{Changes, Listen, Load, OWN, SUITE, Scenario};
use schedule::{Rate, Scale};

const TOOL: &str = "bench";

/// Put load on a server and say how long things took: `vencejo bench mqtt://localhost pairs`
///
/// Each message is due at a time of a schedule that does not wait for the server, and what it takes is counted from then on.
/// `vencejo bench list` shows the scenarios. Exit code 3: it has measured, and something was lost, repeated, refused or out
/// of order, or a connection has ended.
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true, args_conflicts_with_subcommands = true)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    what: Option<What>,
    /// URL, HOST:PORT or host; as -L, -h and -p
    #[arg(value_name = "URL")]
    server: Option<String>,
    /// What to do: pairs, fan-in, fan-out, shared, connect, retained, or a name of the Open MQTT Benchmark Suite
    /// [default: pairs]
    #[arg(value_name = "SCENARIO")]
    scenario: Option<String>,
    #[command(flatten)]
    load: LoadArgs,
    /// Seconds that are measured; of `connect`, how long clients stay
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = parse_seconds)]
    duration: Duration,
    /// Seconds before that, which are not measured
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = parse_seconds)]
    warmup: Duration,
    /// Seconds after that, in which what is missing is waited for
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = parse_seconds)]
    drain: Duration,
    /// Measure so many times
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Threads of this program [default: one for each processor]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Topics begin with this
    #[arg(long, value_name = "TOPIC", default_value = "vencejo-bench")]
    prefix: String,
    /// Print JSON, with all that is needed to do it again
    #[arg(long)]
    json: bool,
    /// Add the same to this file
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    connection: ConnectionArgs,
}

/// How much of a scenario is done.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Load")]
struct LoadArgs {
    /// Clients on the side that the scenario is about
    #[arg(long, alias = "count", value_name = "COUNT", value_parser = clients())]
    clients: Option<u32>,
    /// Publishers
    #[arg(long, value_name = "COUNT", value_parser = clients())]
    publishers: Option<u32>,
    /// Subscribers
    #[arg(long, value_name = "COUNT", value_parser = clients())]
    subscribers: Option<u32>,
    /// In a second: messages of all publishers together; of `connect` connections, of `retained` subscriptions
    #[arg(long, value_name = "RATE")]
    rate: Option<Rate>,
    /// Retained messages of `retained`
    #[arg(long, value_name = "COUNT", value_parser = clients())]
    retained: Option<u32>,
    /// This part of the clients and the rate that the scenario names: 0.01
    #[arg(long, value_name = "PART")]
    scale: Option<Scale>,
    /// Bytes of a payload, 16 at least
    #[arg(long, alias = "payload-size", value_name = "BYTES", default_value_t = 16, value_parser = clap::value_parser!(u32).range(16..=268_435_455))]
    size: u32,
    /// Quality of Service: 0, 1 or 2
    #[arg(short = 'q', long, default_value = "1")]
    qos: String,
}

#[derive(Subcommand, Clone, Debug)]
enum What {
    Compare(CompareArgs),
    /// Show the scenarios
    List(ManyObjects),
}

/// How long, and with what messages.
#[derive(Clone, Copy, Debug)]
struct Extent {
    qos: Qos,
    size: usize,
    warm_up: Duration,
    duration: Duration,
}

/// `vencejo bench`.
pub(crate) fn run(args: &BenchArgs) -> Result<(), Failure> {
    match &args.what {
        Some(What::Compare(args)) => return compare::run(args),
        Some(What::List(args)) => {
            serve::print(&match args.json {
                true => listed_json(),
                false => list(),
            });
            return Ok(());
        }
        None => {}
    }
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = args.threads {
        builder.worker_threads(usize::from(threads));
    }
    let runtime = builder.enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(format!("Error: {error}.")))?;
    let result = runtime.block_on(measure(args));
    runtime.shutdown_background();
    result
}

async fn measure(args: &BenchArgs) -> Result<(), Failure> {
    let usage = |text: String| Failure::usage(TOOL, text);
    let (server, name) = args.places();
    let scenario = Scenario::named(name).map_err(usage)?;
    let scenario = scenario.changed(&args.load.changes()).map_err(usage)?;
    let qos = parse_qos(&args.load.qos);
    let extent = Extent {
        qos: qos.ok_or_else(|| usage(format!("Invalid QoS given: {}", args.load.qos)))?,
        size: usize::try_from(args.load.size).unwrap_or(MARK_BYTES),
        warm_up: args.warmup,
        duration: args.duration,
    };
    if proto::topic::check_name(&args.prefix).is_err() || args.prefix.starts_with('$') {
        return Err(usage(format!(
            "Topics cannot begin with '{}'.",
            args.prefix
        )));
    }
    open_files(scenario.clients())?;
    let (options, is_version_chosen) = options_of(args, server, &scenario)?;
    let began = Timestamp::now();
    let (options, server) = ask_server(args, options, is_version_chosen, &scenario, extent).await?;
    let ground = Ground::new(options, client_prefix(args), &args.prefix, args.drain);
    let stopping = tokio::spawn(stop_on_interrupt(Arc::clone(&ground.stop)));
    let mut progress = Progress::new(args.connection.quiet);
    let mut told = format!(
        "{}\n{}\n",
        scenario.says(),
        heading(extent, &scenario, &server)
    );
    let mut outcomes = Vec::new();
    for round in 0..args.runs {
        let outcome = one_run(&ground, &scenario, extent, round, &mut progress).await;
        progress.clear();
        let outcome = outcome?;
        if !args.json {
            serve::print(&format!("{told}\n{}", report::text(&outcome)));
            told.clear();
        }
        outcomes.push(outcome);
    }
    stopping.abort();
    let result = result(args, &scenario, extent, &server, began, &outcomes);
    if args.json {
        serve::print(&format!("{result:#}\n"));
    }
    if let Some(path) = &args.out {
        let failed = |error| Failure::new(format!("Error: {}: {error}.", path.display()));
        let file = std::fs::File::options()
            .append(true)
            .create(true)
            .open(path);
        let written = file.and_then(|mut file| file.write_all(format!("{result:#}\n").as_bytes()));
        written.map_err(failed)?;
    }
    match outcomes.iter().any(|outcome| !outcome.faults().is_empty()) {
        true => Err(Failure {
            text: String::new(),
            code: NOT_AS_DUE,
        }),
        false => Ok(()),
    }
}

async fn one_run(
    ground: &Ground,
    scenario: &Scenario,
    extent: Extent,
    round: u32,
    progress: &mut Progress,
) -> Result<Outcome, Failure> {
    match &scenario.load {
        Load::Flow(flow) => flow::run(ground, flow, extent, round, progress).await,
        Load::Connect { clients, rate } => {
            storm::run(ground, (*clients, *rate), extent, progress).await
        }
        Load::Retained {
            messages,
            clients,
            rate,
        } => {
            let replay = Replay {
                messages: *messages,
                clients: *clients,
                rate: *rate,
            };
            replay::run(ground, replay, extent, round, progress).await
        }
    }
}

impl BenchArgs {
    /// The server and the scenario; a scenario alone is one for the server that flags name.
    fn places(&self) -> (Option<&str>, &str) {
        match (self.server.as_deref(), self.scenario.as_deref()) {
            (Some(name), None) if Scenario::named(name).is_ok() => (None, name),
            (server, scenario) => (server, scenario.unwrap_or("pairs")),
        }
    }
}

impl LoadArgs {
    const fn changes(&self) -> Changes {
        Changes {
            clients: self.clients,
            publishers: self.publishers,
            subscribers: self.subscribers,
            rate: self.rate,
            retained: self.retained,
            scale: self.scale,
        }
    }
}

/// The connection that the flags ask for, and whether they name its version.
fn options_of(
    args: &BenchArgs,
    server: Option<&str>,
    scenario: &Scenario,
) -> Result<(Options, bool), Failure> {
    let usage = |text: String| Failure::usage(TOOL, text);
    let mut connection = args.connection.clone();
    if let Some(server) = server {
        connection.name_server(server);
    }
    let unused = [
        (connection.disable_clean_session, "-c"),
        (connection.will_topic.is_some(), "--will-topic"),
        (connection.debug, "-d"),
    ];
    if let Some((_, flag)) = unused.iter().find(|(is_set, _)| *is_set) {
        return Err(usage(format!("{flag} means nothing to bench.")));
    }
    let properties = Properties::parse(&connection.property).map_err(usage)?;
    let made = connection.connection(TOOL, properties)?;
    let mut options = made.options;
    if let Some(version) = scenario.suite {
        if !made.is_version_chosen {
            options = options.version(version);
        }
        if connection.keepalive.is_none() {
            options = options.keep_alive_seconds(KEEP_ALIVE_OF_SUITE);
        }
    }
    Ok((options, made.is_version_chosen))
}

fn client_prefix(args: &BenchArgs) -> String {
    let (id, prefix) = (&args.connection.id, &args.connection.id_prefix);
    id.clone().unwrap_or_else(|| {
        let prefix = prefix.as_deref().unwrap_or("bench-");
        format!("{prefix}{}", std::process::id())
    })
}

/// What is known of a server.
#[derive(Debug)]
struct ServerSaid {
    address: String,
    /// Of MQTT.
    mqtt: &'static str,
    /// What it calls itself.
    version: Option<String>,
}

/// Connects once, to hear whether the server can do what it will be asked for, and how clients are to connect.
async fn ask_server(
    args: &BenchArgs,
    options: Options,
    is_version_chosen: bool,
    scenario: &Scenario,
    extent: Extent,
) -> Result<(Options, ServerSaid), Failure> {
    let first = options
        .clone()
        .client_id(format!("{}-0", client_prefix(args)));
    let (client, mut events) = connect(&first, is_version_chosen, args.connection.quiet).await?;
    let version = client.version();
    let said = can_do(client.connack(), scenario, extent);
    let server = ServerSaid {
        address: match options.unix_path() {
            Some(path) => format!("unix:{}", path.display()),
            None => format!("{}:{}", options.address().0, options.address().1),
        },
        mqtt: match version {
            Version::V31 => "3.1",
            Version::V311 => "3.1.1",
            Version::V5 => "5.0",
        },
        version: server_version(&client, &mut events).await,
    };
    // Nothing depends on how it ends.
    client
        .disconnect(Disconnect::new(ReasonCode::Success))
        .await
        .ok();
    said.map_err(|text| Failure::new(format!("Error: {text}")))?;
    Ok((options.version(version), server))
}

/// What a server announces against what it will be asked for.
fn can_do(connack: &ConnAck, scenario: &Scenario, extent: Extent) -> Result<(), String> {
    let of = &connack.properties;
    if let Some(most) = of.maximum_qos.filter(|most| *most < extent.qos) {
        return Err(format!(
            "the server takes QoS {} at most; say -q.",
            most.level()
        ));
    }
    if let Some(most) = of.maximum_packet_size_bytes
        && extent.size.saturating_add(OVERHEAD_BYTES)
            > usize::try_from(most.get()).unwrap_or(usize::MAX)
    {
        return Err(format!(
            "the server takes packets of {most} bytes at most; say --size."
        ));
    }
    let (is_shared, is_wild) = match &scenario.load {
        Load::Flow(flow) => (
            flow.listen == Listen::Shared,
            matches!(flow.listen, Listen::All | Listen::Shared),
        ),
        Load::Connect { .. } => (false, false),
        Load::Retained { .. } if of.retain_available == Some(false) => {
            return Err("the server keeps no retained messages.".to_owned());
        }
        Load::Retained { .. } => (false, true),
    };
    if is_shared && of.shared_subscription_available == Some(false) {
        return Err("the server has no shared subscriptions.".to_owned());
    }
    if is_wild && of.wildcard_subscription_available == Some(false) {
        return Err("the server has no wildcard subscriptions.".to_owned());
    }
    Ok(())
}

/// Each connection is a file.
fn open_files(clients: u32) -> Result<(), Failure> {
    let wanted = u64::from(clients) + FILES_BESIDE;
    let allowed = rlimit::increase_nofile_limit(wanted).unwrap_or(u64::MAX);
    if allowed < wanted {
        let text = format!(
            "Error: {} clients need {wanted} open files, and this program may have {allowed}: ulimit -n {wanted}",
            scenarios::grouped(u64::from(clients))
        );
        return Err(Failure::new(text));
    }
    Ok(())
}

/// The first time in peace, with what has to be taken away taken away; the second time at once.
async fn stop_on_interrupt(stop: Arc<AtomicBool>) {
    while tokio::signal::ctrl_c().await.is_ok() {
        if stop.swap(true, Ordering::Relaxed) {
            std::process::exit(i32::from(ground::INTERRUPTED));
        }
    }
}

/// What stands above the table.
fn heading(extent: Extent, scenario: &Scenario, server: &ServerSaid) -> String {
    let (size, qos) = (extent.size, extent.qos.level());
    let (warm_up, duration) = (extent.warm_up.as_secs_f64(), extent.duration.as_secs_f64());
    let what = match &scenario.load {
        Load::Flow(_) => {
            format!("{size} bytes at QoS {qos}, {duration} s after {warm_up} s of warm-up")
        }
        Load::Connect { .. } => format!("staying for {duration} s"),
        Load::Retained { .. } => format!("{size} bytes at QoS {qos}"),
    };
    let version = server
        .version
        .as_deref()
        .unwrap_or("which does not say what it is");
    let version = version.escape_debug();
    format!(
        "{what}, MQTT {} at {} ({version})",
        server.mqtt, server.address
    )
}

/// Everything, for programs and for whoever does it again.
fn result(
    args: &BenchArgs,
    scenario: &Scenario,
    extent: Extent,
    server: &ServerSaid,
    began: Timestamp,
    outcomes: &[Outcome],
) -> Value {
    let mut of = scenario.as_json();
    of["qos"] = json!(extent.qos.level());
    of["size_bytes"] = json!(extent.size);
    of["warmup_seconds"] = json!(extent.warm_up.as_secs_f64());
    of["duration_seconds"] = json!(extent.duration.as_secs_f64());
    of["scale"] = json!(args.load.scale.map_or(1.0, Scale::as_f64));
    let runs = outcomes.iter().map(|outcome| {
        let mut run = outcome.as_json();
        run["note"] = json!(report::note(outcome));
        run
    });
    json!({
        "format": compare::FORMAT,
        "program": concat!("vencejo ", env!("CARGO_PKG_VERSION")),
        "command": machine::command(std::env::args_os()),
        "began": began.to_string(),
        "machine": machine::machine(),
        "threads": args.threads,
        "server": { "address": server.address, "mqtt": server.mqtt, "version": server.version },
        "scenario": of,
        "runs": runs.collect::<Vec<_>>(),
    })
}

fn list() -> String {
    let lines = |names: &[(&str, &str)]| -> String {
        let lines = names
            .iter()
            .map(|(name, says)| format!("  {name:<26} {says}\n"));
        lines.collect()
    };
    format!(
        "{}\nThe Open MQTT Benchmark Suite, payloads of 16 bytes at QoS 1 (--scale 0.01 does a part of it; it measures 1800 \
         seconds, --duration 1800), and names of the same form with other numbers:\n{}",
        lines(&OWN),
        lines(&SUITE)
    )
}

fn listed_json() -> String {
    let object = |(name, says): &(&str, &str), is_suite: bool| {
        let value = json!({ "name": name, "says": says, "is_suite": is_suite });
        format!("{value}\n")
    };
    let own = OWN.iter().map(|scenario| object(scenario, false));
    own.chain(SUITE.iter().map(|scenario| object(scenario, true)))
        .collect()
}

fn clients() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(scenarios::CLIENTS_MAX))
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.strip_suffix('s').unwrap_or(text).parse().ok();
    let seconds = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds
        .filter(|time| *time <= TIME_MAX)
        .ok_or_else(|| "wanted seconds, like 10 or 0.5".to_owned())
}

/// It has measured, but not everything has come, once and in order.
const NOT_AS_DUE: u8 = 3;
/// A month.
const TIME_MAX: Duration = Duration::from_secs(31 * 24 * 3600);
const KEEP_ALIVE_OF_SUITE: u16 = 300;
/// Fixed header, Topic Name and properties, generously.
const OVERHEAD_BYTES: usize = 128;
/// Files beside those of clients.
const FILES_BESIDE: u64 = 64;

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    /// A scenario, what a server announces, and the words for it.
    type Case = (&'static str, fn(&mut ConnAck), &'static str);

    #[test]
    fn what_a_server_cannot_do_is_said_before_it_is_asked() {
        let extent = Extent {
            qos: Qos::ExactlyOnce,
            size: 1000,
            warm_up: Duration::ZERO,
            duration: Duration::ZERO,
        };
        let said = |scenario: &str, change: fn(&mut ConnAck)| {
            let mut connack = ConnAck::refusal(ReasonCode::Success);
            change(&mut connack);
            can_do(&connack, &Scenario::named(scenario).unwrap(), extent)
        };
        assert_eq!(said("shared", |_| {}), Ok(()));
        let cases: [Case; 5] = [
            (
                "pairs",
                |of| of.properties.maximum_qos = Some(Qos::AtLeastOnce),
                "QoS 1 at most",
            ),
            (
                "pairs",
                |of| of.properties.maximum_packet_size_bytes = NonZeroU32::new(1000),
                "packets of 1000 bytes",
            ),
            (
                "retained",
                |of| of.properties.retain_available = Some(false),
                "no retained",
            ),
            (
                "shared",
                |of| of.properties.shared_subscription_available = Some(false),
                "no shared",
            ),
            (
                "fan-in",
                |of| of.properties.wildcard_subscription_available = Some(false),
                "no wildcard",
            ),
        ];
        for (scenario, change, words) in cases {
            let refusal = said(scenario, change).unwrap_err();
            assert!(refusal.contains(words), "{scenario}: {refusal}");
        }
    }

    #[test]
    fn the_list_names_every_scenario() {
        let list = list();
        for (name, _) in OWN.iter().chain(&SUITE) {
            assert!(list.contains(name), "{name}");
        }
    }

    #[test]
    fn seconds_are_those_that_can_be_waited_for() {
        assert_eq!(parse_seconds("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_seconds("10s"), Ok(Duration::from_secs(10)));
        for text in ["", "s", "-1", "nan", "1e9", "soon"] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }
}
