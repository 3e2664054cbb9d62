//! What durable publishing costs on the whole broker: the figures it has to reach, as ratios taken in one run.
//!
//! Owns: the rows that need the server, what is compared with what. Does not own: the rows of the log alone
//! (the bench `figures` of the store), the load (`load`), the brokers (`brokers`), the bare disk (`disk`).
//! Start reading at [`run`]. Invariants: what is compared is measured in turn, round by round, each time with
//! a fresh broker in a fresh folder, and the median of the rounds counts; nothing is printed that was not
//! measured in this run.

mod brokers;
mod disk;
mod load;
mod monitor;
mod wire;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;

use crate::brokers::{Broker, Kind};
use crate::load::{Load, Measured, Pace};

/// Measures durable publishing on the whole broker, against the disk, against itself without a disk, and
/// against mosquitto.
#[derive(Debug, Parser)]
#[command(name = "figures")]
struct Arguments {
    /// Our program; a release build [default: beside this one]
    #[arg(long, value_name = "PATH")]
    broker: Option<PathBuf>,
    /// Another build of ours: only the two are compared
    #[arg(long, value_name = "PATH")]
    against: Option<PathBuf>,
    /// Where data folders are made, on a real disk [default: figures, beside this program]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// How often everything is measured; medians are printed
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// How long each time
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(3..=600))]
    seconds: u64,
    /// Shards of our own broker
    #[arg(long, default_value_t = 1)]
    shards: u16,
}

/// What a run needs to know.
#[derive(Debug)]
struct Plan {
    broker: PathBuf,
    folder: PathBuf,
    rounds: u32,
    lasts: Duration,
    shards: u16,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let plan = match plan(&arguments) {
        Ok(plan) => plan,
        Err(error) => {
            eprintln!("figures: {error}");
            return ExitCode::from(2);
        }
    };
    let done = run(&plan, arguments.against.as_deref());
    std::fs::remove_dir_all(&plan.folder).unwrap_or_default();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("figures: {error}");
            ExitCode::FAILURE
        }
    }
}

fn plan(arguments: &Arguments) -> Result<Plan, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let beside = |name: &str| own.with_file_name(name);
    let broker = arguments.broker.clone();
    let broker = broker.unwrap_or_else(|| beside("vencejo"));
    if !broker.is_file() {
        let advice = "cargo build --release -p vencejo";
        return Err(format!("there is no {}; {advice}", broker.display()));
    }
    let parent = arguments.folder.clone().unwrap_or_else(|| beside(""));
    let folder = parent.join(format!("figures-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let file_system = disk::file_system(&folder)?;
    println!(
        "{}, data on {file_system}, {} rounds of {} s, {} shards; each publisher has one message of {} bytes in \
         exchange\n{:>3}  {:<62} {:>9}  gate",
        broker.display(),
        arguments.rounds,
        arguments.seconds,
        arguments.shards,
        load::PAYLOAD_BYTES,
        "row",
        "what",
        "measured",
    );
    if ["tmpfs", "ramfs"].contains(&&*file_system) {
        eprintln!(
            "figures: a sync on {file_system} costs nothing: these figures say nothing of a disk"
        );
    }
    rlimit::increase_nofile_limit(u64::MAX).map_err(|error| error.to_string())?;
    Ok(Plan {
        broker,
        folder,
        rounds: arguments.rounds,
        lasts: Duration::from_secs(arguments.seconds),
        shards: arguments.shards,
    })
}

fn run(plan: &Plan, against: Option<&Path>) -> Result<(), String> {
    if let Some(other) = against {
        return compare(plan, other);
    }
    levels(plan)?;
    disk_bound(plan, 1, Pace::Closed)?;
    for rate in CALM_RATES {
        disk_bound(plan, CROWD, Pace::Rate(rate))?;
    }
    if brokers::has_mosquitto() {
        return peers(plan);
    }
    println!("  -  mosquitto is not installed: nothing to compare with");
    Ok(())
}

/// Row 4: what the levels cost.
fn levels(plan: &Plan) -> Result<(), String> {
    let kinds = ["memory", "written", "synced"].map(|level| plan.ours(level));
    let measured = plan.measure(&kinds, CROWD)?;
    let [memory, written, synced] = &measured[..] else {
        return Ok(());
    };
    let rate = |of: &Measured| of.rate;
    for (name, of, gate) in [("synced", synced, Some(0.5)), ("written", written, None)] {
        let ratio = ratio(of, memory, rate);
        let what = format!("rate of {CROWD} publishers, {name} / memory");
        row("4", &what, ratio, gate.map(Gate::AtLeast));
    }
    for (name, of) in [("memory", memory), ("written", written), ("synced", synced)] {
        details(name, of);
    }
    Ok(())
}

/// Rows 6 and 7: ours against the bare disk. Many publishers at their own pace would only show how long they
/// wait for one another; at a calm rate they show the broker.
fn disk_bound(plan: &Plan, publishers: usize, pace: Pace) -> Result<(), String> {
    let kind = plan.ours("synced");
    let (mut ours, mut bare, mut memory) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        if publishers == 1 {
            memory.push(plan.measure_once(&plan.ours("memory"), publishers, pace)?);
        }
        let measured = plan.measure_once(&kind, publishers, pace)?;
        let bytes = match publishers {
            1 => ROW_7_BYTES,
            _ => measured.group.map_or(1, |group| group.bytes),
        };
        let mut times = disk::sync_times(&plan.folder, bytes, plan.lasts)?;
        times.sort_unstable();
        ours.push(measured);
        bare.push(times);
    }
    let rounds = || ours.iter().zip(&bare);
    if publishers == 1 {
        let ratios = rounds().map(|(ours, times)| ours.rate * mean(times));
        row(
            "7",
            "rate of 1 publisher / 4 KiB writes with sync",
            median(ratios),
            Some(Gate::AtLeast(0.8)),
        );
        // What the two round trips, of the disk and of the network, leave at best.
        let sums = rounds()
            .zip(&memory)
            .map(|((ours, times), memory)| ours.rate * (mean(times) + 1.0 / memory.rate));
        row(
            "7",
            "the same / such writes and a round trip without a disk",
            median(sums),
            None,
        );
        details("memory", &memory);
    }
    let of_whom = match pace {
        Pace::Closed => format!("{publishers} publisher"),
        Pace::Rate(rate) => format!("{rate} messages/s"),
    };
    for (share, gate) in [(50, 2.2), (99, 3.0)] {
        let ratios = rounds().map(|(ours, times)| {
            percentile(&ours.latencies, share).as_secs_f64()
                / percentile(times, share).as_secs_f64()
        });
        let what = format!("p{share} from PUBLISH to PUBACK / of a sync, {of_whom}");
        row("6", &what, median(ratios), Some(Gate::AtMost(gate)));
    }
    details("synced", &ours);
    let of_bare = |of: fn(&[Duration]) -> f64| micros(median(bare.iter().map(|times| of(times))));
    println!(
        "     bare disk: p50 {}, p99 {}, mean {}",
        of_bare(|times| percentile(times, 50).as_secs_f64()),
        of_bare(|times| percentile(times, 99).as_secs_f64()),
        of_bare(mean),
    );
    Ok(())
}

/// The same load on mosquitto.
fn peers(plan: &Plan) -> Result<(), String> {
    let names = [
        "without persistence",
        "with persistence",
        "saving at every change, 1 s apart",
    ];
    let kinds = [
        plan.ours("memory"),
        plan.ours("synced"),
        Kind::Mosquitto("persistence false"),
        Kind::Mosquitto("persistence true"),
        Kind::Mosquitto("persistence true\nautosave_on_changes true\nautosave_interval 1"),
    ];
    let measured = plan.measure(&kinds, CROWD)?;
    let (ours, theirs) = measured.split_at(2);
    for (level, ours) in ["memory", "synced"].iter().zip(ours) {
        for (name, theirs) in names.iter().zip(theirs) {
            let what = format!("rate, ours {level} / mosquitto {name}");
            row("-", &what, ratio(ours, theirs, |of| of.rate), None);
        }
    }
    for (name, theirs) in names.iter().zip(theirs) {
        details(&format!("mosquitto {name}"), theirs);
    }
    Ok(())
}

/// Two builds of ours.
fn compare(plan: &Plan, other: &Path) -> Result<(), String> {
    let kinds = [plan.ours("synced"), Kind::Ours(other.to_owned(), "synced")];
    for publishers in [1, 16, CROWD] {
        let measured = plan.measure(&kinds, publishers)?;
        let [ours, others] = &measured[..] else {
            return Ok(());
        };
        for (name, of) in COMPARED {
            let what = format!("{name}, {publishers} publishers, this / the other");
            row("-", &what, ratio(ours, others, of), None);
        }
        details("this", ours);
        details("the other", others);
    }
    Ok(())
}

impl Plan {
    fn ours(&self, level: &'static str) -> Kind {
        Kind::Ours(self.broker.clone(), level)
    }

    /// Each of `kinds` in each round; the order turns with the round.
    fn measure(&self, kinds: &[Kind], publishers: usize) -> Result<Vec<Vec<Measured>>, String> {
        let mut measured = vec![Vec::new(); kinds.len()];
        for round in 0..self.rounds as usize {
            for place in 0..kinds.len() {
                let place = (place + round) % kinds.len();
                if let (Some(kind), Some(of)) = (kinds.get(place), measured.get_mut(place)) {
                    of.push(self.measure_once(kind, publishers, Pace::Closed)?);
                }
            }
        }
        Ok(measured)
    }

    fn measure_once(&self, kind: &Kind, publishers: usize, pace: Pace) -> Result<Measured, String> {
        let broker = Broker::start(kind, &self.folder, self.shards)?;
        let load = Load {
            publishers,
            pace,
            lasts: self.lasts,
        };
        load::measure(&broker, kind, load).map_err(|error| format!("{kind:?}: {error}"))
    }
}

/// What a figure has to be.
#[derive(Clone, Copy, Debug)]
enum Gate {
    AtLeast(f64),
    AtMost(f64),
}

fn row(number: &str, what: &str, measured: f64, gate: Option<Gate>) {
    let verdict = |is_met| if is_met { "met" } else { "MISSED" };
    let gate = match gate {
        Some(Gate::AtLeast(least)) => format!(">= {least:.2}  {}", verdict(measured >= least)),
        Some(Gate::AtMost(most)) => format!("<= {most:.2}  {}", verdict(measured <= most)),
        None => "-".to_owned(),
    };
    println!("{number:>3}  {what:<62} {measured:>9.3}  {gate}");
}

/// What is behind a ratio.
fn details(name: &str, rounds: &[Measured]) {
    let middle = |of: Figure| median(rounds.iter().map(of));
    let at = |share| {
        micros(median(
            rounds
                .iter()
                .map(|of| percentile(&of.latencies, share).as_secs_f64()),
        ))
    };
    let groups = rounds.iter().filter_map(|of| of.group);
    let groups: Vec<_> = groups.map(|of| (of.bytes, of.batches)).collect();
    let of_groups = if groups.is_empty() {
        String::new()
    } else {
        format!(
            "; a group: {:.0} bytes, {:.1} batches",
            median(groups.iter().map(|of| of.0 as f64)),
            median(groups.iter().map(|of| of.1))
        )
    };
    println!(
        "     {name}: {:.0} messages/s, p50 {}, p99 {}; a message: {:.1} us CPU, {:.2} sleeps{of_groups}",
        middle(|of| of.rate),
        at(50),
        at(99),
        middle(|of| of.cpu_micros),
        middle(|of| of.sleeps),
    );
}

/// The median of one side over the other, round by round.
fn ratio(ours: &[Measured], others: &[Measured], of: Figure) -> f64 {
    median(
        ours.iter()
            .zip(others)
            .map(|(ours, others)| of(ours) / of(others)),
    )
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Of sorted times.
fn percentile(times: &[Duration], share: usize) -> Duration {
    let at = times.len() * share / 100;
    times.get(at).copied().unwrap_or_default()
}

/// In seconds.
fn mean(times: &[Duration]) -> f64 {
    times.iter().sum::<Duration>().as_secs_f64() / times.len().max(1) as f64
}

fn micros(seconds: f64) -> String {
    format!("{:.0} us", seconds * 1e6)
}

type Figure = fn(&Measured) -> f64;

/// What two builds are compared by.
const COMPARED: [(&str, Figure); 5] = [
    ("rate", |of| of.rate),
    ("p50", |of| percentile(&of.latencies, 50).as_secs_f64()),
    ("p99", |of| percentile(&of.latencies, 99).as_secs_f64()),
    ("CPU a message", |of| of.cpu_micros),
    ("sleeps of threads a message", |of| of.sleeps),
];
/// Publishers of the rows that ask for many.
const CROWD: usize = 1024;
/// Messages a second of all of them at which a broker has time left.
const CALM_RATES: [u32; 2] = [1000, 8000];
/// What row 7 is measured against.
const ROW_7_BYTES: usize = 4096;
