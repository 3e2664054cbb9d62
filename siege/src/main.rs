//! Does to a broker what hurts brokers, with a healthy pair beside it, and says what that cost whom.
//!
//! Owns: the command line, the phases of a siege, the verdict. Does not own: what is done (see [`sieges`]).
//! Start reading at [`besiege`]. Invariant: every broker that is started is stopped.

mod broker;
mod canary;
mod flood;
mod sieges;
mod swarm;
mod wire;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};

use crate::broker::{Broker, Kind, Plan};
use crate::canary::{Canary, Latency};
use crate::sieges::{Ground, Outcome, Siege};

/// Does to a broker what hurts brokers, with a healthy pair beside it.
///
/// For each siege a broker is started. It is let go when the time is over; five seconds later all has to be as before.
/// One line is printed for each; the exit code is 0 only if all of them hold.
#[derive(Debug, Parser)]
struct Args {
    /// Which; all of them if none is named.
    sieges: Vec<Siege>,
    /// Which broker.
    #[arg(long, value_enum, default_value = "vencejo")]
    kind: Kind,
    /// Its program.
    #[arg(long)]
    broker: Option<PathBuf>,
    /// How long each goes on.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Sizes are divided by this.
    #[arg(long, default_value_t = 1)]
    part: usize,
    /// Memory the broker may use, in MiB; ours is told.
    #[arg(long, default_value_t = 256)]
    budget_mib: u64,
    /// What an acknowledgement of ours is worth.
    #[arg(long, default_value = "memory")]
    level: String,
    /// Shards of ours.
    #[arg(long, default_value_t = 1)]
    shards: u16,
    /// Its configuration, in TOML; BUDGET is replaced by the bytes of the budget.
    #[arg(long, default_value = "limits.memory_max_bytes = BUDGET")]
    configuration: String,
    /// Goes before the command line of the broker, such as "taskset -c 0".
    #[arg(long, default_value = "")]
    prefix: String,
    /// Leaves the folders of the brokers where they are, and says where.
    #[arg(long)]
    keep: bool,
}

/// What one siege has shown.
#[derive(Debug)]
struct Report {
    outcome: Outcome,
    memory_before: u64,
    memory_most: u64,
    memory_after: u64,
    during: Latency,
    after: Latency,
}

impl Report {
    /// What is not as it has to be.
    fn faults(&self, budget: u64) -> Vec<String> {
        let mut faults = Vec::new();
        let mut check = |is_good: bool, fault: String| {
            if !is_good {
                faults.push(fault);
            }
        };
        check(
            self.memory_most <= budget / 10 * 11,
            format!("memory {} MiB", self.memory_most / MIB),
        );
        check(
            self.during.p99 < P99_MAX,
            format!("p99 {:?}", self.during.p99),
        );
        check(
            self.during.max < SLOWEST_MAX,
            format!("slowest {:?}", self.during.max),
        );
        check(
            self.outcome.lost == 0,
            format!("{} lost", self.outcome.lost),
        );
        check(
            self.after.count > 0 && self.after.p99 < NORMAL_MAX,
            format!("afterwards {:?}", self.after.p99),
        );
        let grown = self.memory_most.saturating_sub(self.memory_before);
        check(
            self.memory_after <= self.memory_before + grown / 2 || grown < 16 * MIB,
            format!("memory does not fall back: {} MiB", self.memory_after / MIB),
        );
        faults
    }

    fn print(&self, name: &str, faults: &[String]) {
        let Outcome {
            acknowledged,
            lost,
            refused,
            took,
            note,
        } = &self.outcome;
        let took = took.map(|took| format!(", {:.2} s", took.as_secs_f64()));
        let memory = |bytes: u64| bytes / MIB;
        let milliseconds = |time: Duration| time.as_secs_f64() * 1000.0;
        println!(
            "{name:15} {}: memory {} -> {} -> {} MiB; canary {:.1} / {:.1} / {:.1} ms, afterwards {:.1}; \
             {acknowledged} acknowledged, {lost} lost, {refused} refused{}{}{note}",
            if faults.is_empty() {
                "holds".to_owned()
            } else {
                format!("FALLS ({})", faults.join(", "))
            },
            memory(self.memory_before),
            memory(self.memory_most),
            memory(self.memory_after),
            milliseconds(self.during.median),
            milliseconds(self.during.p99),
            milliseconds(self.during.max),
            milliseconds(self.after.p99),
            took.unwrap_or_default(),
            if note.is_empty() { "" } else { "; " },
        );
    }
}

/// One siege, from the start of the broker to its end.
fn besiege(siege: Siege, plan: &Plan, args: &Args) -> Result<Report, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut broker = Broker::start(plan)?;
    let ground = Ground {
        address: broker.address,
        most: Duration::from_secs(args.seconds),
        part: args.part.max(1),
    };
    let canary = Canary::start(broker.address)?;
    let memory_before = broker.memory.now();
    let mut attack = siege.prepare(ground).map_err(text)?;
    let began = Instant::now();
    attack.attack().map_err(text)?;
    let over = Instant::now();
    std::thread::sleep(RECOVERY);
    let normal = Instant::now();
    std::thread::sleep(RECOVERY / 2);
    let after = canary.between(normal, Instant::now());
    let during = canary.between(began, over);
    let outcome = attack.relieve().map_err(text)?;
    drop(attack);
    let until = Instant::now() + FALL;
    let grown = broker.memory.most().saturating_sub(memory_before);
    while broker.memory.now() > memory_before + grown / 4 && Instant::now() < until {
        std::thread::sleep(RECOVERY / 10);
    }
    let report = Report {
        outcome,
        memory_before,
        memory_most: broker.memory.most(),
        memory_after: broker.memory.now(),
        during,
        after,
    };
    match broker.ended() {
        Some(status) => Err(format!("the broker has ended by itself: {status}")),
        None => Ok(report),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    // Both ends of a connection are in one machine, but not in one process.
    if let Err(error) = rlimit::increase_nofile_limit(FILES) {
        eprintln!("siege: {error}");
    }
    let sieges = if args.sieges.is_empty() {
        Siege::value_variants().to_vec()
    } else {
        args.sieges.clone()
    };
    let mut is_good = true;
    for siege in sieges {
        let name = siege
            .to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned());
        let folder = std::env::temp_dir().join(format!("siege-{}-{name}", std::process::id()));
        let plan = Plan {
            kind: args.kind,
            program: args.broker.clone().unwrap_or_else(|| match args.kind {
                Kind::Vencejo => "target/release/vencejo".into(),
                Kind::Mosquitto => "/usr/sbin/mosquitto".into(),
            }),
            folder: folder.clone(),
            level: args.level.clone(),
            shards: args.shards,
            configuration: args
                .configuration
                .replace("BUDGET", &(args.budget_mib * MIB).to_string()),
            prefix: args.prefix.split_whitespace().map(str::to_owned).collect(),
        };
        match besiege(siege, &plan, &args) {
            Ok(report) => {
                let faults = report.faults(args.budget_mib * MIB);
                report.print(&name, &faults);
                is_good &= faults.is_empty();
            }
            Err(error) => {
                println!("{name:15} FALLS ({error})");
                is_good = false;
            }
        }
        if args.keep {
            println!("{name:15} is in {}", folder.display());
        } else {
            // What cannot be removed stays.
            std::fs::remove_dir_all(&folder).ok();
        }
    }
    if is_good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

const MIB: u64 = 1024 * 1024;
/// Open files of this process.
const FILES: u64 = 64 * 1024;
/// Bounds of the canary while the siege goes on.
const P99_MAX: Duration = Duration::from_millis(250);
const SLOWEST_MAX: Duration = Duration::from_secs(2);
/// And so long after its end all is as before.
const RECOVERY: Duration = Duration::from_secs(5);
const NORMAL_MAX: Duration = Duration::from_millis(50);
/// Memory falls back within this.
const FALL: Duration = Duration::from_secs(30);
