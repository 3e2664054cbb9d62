//! Kills a broker with SIGKILL again and again under load, and audits what it had acknowledged.
//!
//! Owns: the course of a run, the report. Does not own: the clients (`roles`), the books (`ledger`).
//! Start reading at [`main`]. Invariant: the exit code is 0 only if nothing acknowledged was lost, no
//! QoS 2 message repeated, nothing out of order, and every start succeeded.

mod broker;
mod client;
mod ledger;
mod random;
mod roles;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use proto::{Qos, Version};

use crate::broker::{Broker, Kind, Plan};
use crate::ledger::Findings;
use crate::random::Random;
use crate::roles::{Phase, Presence, Scene};

/// Kills a broker under load and audits what it had acknowledged.
#[derive(Debug, Parser)]
#[command(name = "killtest")]
struct Arguments {
    /// Which broker.
    #[arg(long, value_enum, default_value = "vencejo")]
    kind: Kind,
    /// Its binary [default: our debug build; mosquitto of the PATH]
    #[arg(long)]
    broker: Option<PathBuf>,
    /// How often it is killed while it serves.
    #[arg(long, default_value_t = 20)]
    kills: u32,
    /// Shards of our own broker.
    #[arg(long, default_value_t = 2)]
    shards: u16,
    /// For what is random here.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Publishers.
    #[arg(long, default_value_t = 4)]
    publishers: u32,
    /// Keep the folder with the broker's data and log.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("killtest: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool, String> {
    let folder = std::env::temp_dir().join(format!("killtest-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
    let plan = Plan {
        kind: arguments.kind,
        program: arguments
            .broker
            .clone()
            .unwrap_or_else(|| program(arguments.kind)),
        folder: folder.clone(),
        address: broker::free_address()?,
        shards: arguments.shards,
    };
    let scene = Scene::new(plan.address);
    let course = thread::scope(|scope| {
        let scene = &scene;
        for number in 0..arguments.publishers {
            let version = [Version::V5, Version::V311][usize::from(number % 2 == 1)];
            scope.spawn(move || roles::publisher(scene, &format!("pub{number}"), version));
        }
        for subscriber in SUBSCRIBERS {
            let (name, version, presence) = subscriber;
            scope.spawn(move || roles::subscriber(scene, name, version, presence));
        }
        scope.spawn(move || roles::mortal(scene, "mortal"));
        scope.spawn(move || roles::retainer(scene, "retainer"));
        scope.spawn(move || roles::changer(scene, "changer"));
        let course = course(arguments, &plan, scene);
        scene.enter(Phase::Leave);
        course
    });
    let kept = if arguments.keep {
        format!("kept: {}", folder.display())
    } else {
        std::fs::remove_dir_all(&folder).map_err(|error| error.to_string())?;
        String::new()
    };
    let course = course?;
    let findings = scene.ledger().audit();
    println!(
        "killtest: seed {}, {} kills, {} during recovery, {} spoilt tails, {} acknowledged, {} deliveries owed, \
         slowest start {} ms: {} lost, {} repeated, {} out of order, {} failed starts, {} other {kept}",
        arguments.seed,
        course.kills,
        course.kills_in_recovery,
        course.spoilt,
        scene.ledger().acknowledged_len(),
        findings.owed,
        course.slowest_start.as_millis(),
        findings.lost.len(),
        findings.repeated.len(),
        findings.disordered.len(),
        course.failed_starts,
        findings.broken.len(),
    );
    Ok(report(&findings) && course.failed_starts == 0)
}

/// What happened to the broker.
#[derive(Debug, Default)]
struct Course {
    kills: u32,
    kills_in_recovery: u32,
    spoilt: u32,
    failed_starts: u32,
    slowest_start: Duration,
}

/// Starts, kills, spoils, starts again; then lets everything come to its end.
fn course(arguments: &Arguments, plan: &Plan, scene: &Scene) -> Result<Course, String> {
    let mut random = Random::new(arguments.seed);
    let mut course = Course::default();
    let mut broker = Broker::start(plan)?;
    broker.wait()?;
    let until = Instant::now() + FINISH_MAX;
    while roles::READY.load(Ordering::SeqCst) < SUBSCRIBERS.len() && Instant::now() < until {
        thread::sleep(Duration::from_millis(5));
    }
    scene.enter(Phase::Work);
    for _ in 0..arguments.kills {
        thread::sleep(Duration::from_millis(100 + random.below(700)));
        broker.kill();
        course.kills += 1;
        if random.below(3) == 0 && broker::spoil_tail(plan, &mut random)?.is_some() {
            course.spoilt += 1;
        }
        if random.below(3) == 0 {
            broker = Broker::start(plan)?;
            thread::sleep(Duration::from_millis(random.below(40)));
            broker.kill();
            course.kills_in_recovery += 1;
        }
        broker = Broker::start(plan)?;
        match broker.wait() {
            Ok(took) => course.slowest_start = course.slowest_start.max(took),
            Err(error) => {
                eprintln!("killtest: {error}");
                course.failed_starts += 1;
                return Ok(course);
            }
        }
    }
    scene.enter(Phase::Finish);
    // Everything acknowledged comes, or nothing more does for a while.
    let (mut least, mut since) = (usize::MAX, Instant::now());
    let until = Instant::now() + FINISH_MAX;
    while Instant::now() < until {
        thread::sleep(Duration::from_millis(50));
        let missing = SUBSCRIBERS
            .iter()
            .map(|(name, _, presence)| scene.ledger().missing(name, presence.qos.level()))
            .sum();
        if missing < least {
            (least, since) = (missing, Instant::now());
        }
        if since.elapsed() > if missing == 0 { SETTLE } else { STALL } {
            break;
        }
    }
    Ok(course)
}

fn report(findings: &Findings) -> bool {
    let lists = [
        ("lost", &findings.lost),
        ("repeated", &findings.repeated),
        ("out of order", &findings.disordered),
        ("other", &findings.broken),
    ];
    for (what, list) in lists {
        for one in list.iter().take(SHOWN_MAX) {
            eprintln!("{what}: {one}");
        }
    }
    lists.iter().all(|(_, list)| list.is_empty())
}

fn program(kind: Kind) -> PathBuf {
    match kind {
        Kind::Vencejo => {
            let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(
                || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target")),
                PathBuf::from,
            );
            target.join("debug/vencejo")
        }
        Kind::Mosquitto | Kind::MosquittoAutosave => PathBuf::from("mosquitto"),
    }
}

const SUBSCRIBERS: [(&str, Version, Presence); 4] = [
    (
        "online2",
        Version::V5,
        Presence {
            qos: Qos::ExactlyOnce,
            is_mostly_away: false,
        },
    ),
    (
        "online1",
        Version::V311,
        Presence {
            qos: Qos::AtLeastOnce,
            is_mostly_away: false,
        },
    ),
    (
        "away2",
        Version::V311,
        Presence {
            qos: Qos::ExactlyOnce,
            is_mostly_away: true,
        },
    ),
    (
        "away1",
        Version::V5,
        Presence {
            qos: Qos::AtLeastOnce,
            is_mostly_away: true,
        },
    ),
];
/// How long the end may take.
const FINISH_MAX: Duration = Duration::from_secs(60);
/// Nothing more comes for so long: what could repeat has repeated.
const SETTLE: Duration = Duration::from_secs(2);
/// Something is missing and nothing comes for so long: it does not come.
const STALL: Duration = Duration::from_secs(10);
/// Findings shown of each kind.
const SHOWN_MAX: usize = 5;
