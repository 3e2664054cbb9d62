//! A run: clients at work while a broker ends and starts again, then the audit.
//!
//! Owns: who takes part, the course of a run, the report. Does not own: the clients (`roles`), the books
//! (`ledger`), how the broker ends (`kills`, `power`). Start reading at [`run`].
//! Invariant: what is reported was counted after everything open had time to come to its end.

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use proto::{Qos, Version};

use crate::ledger::Findings;
use crate::random::Random;
use crate::roles::{self, Phase, Presence, Scene};

/// A broker that ends suddenly and starts again on what it left.
pub(crate) trait Subject {
    /// Starts it, and waits until it accepts connections.
    fn start(&mut self) -> Result<(), String>;

    /// Lets it begin to start, and ends it meanwhile; whether it did.
    fn end_in_start(&mut self, random: &mut Random) -> Result<bool, String>;

    /// Ends it without a warning, and does to its files what may happen to them then.
    fn end(&mut self, random: &mut Random) -> Result<(), String>;
}

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Script {
    pub(crate) address: SocketAddr,
    pub(crate) seed: u64,
    /// How often the broker ends while it serves.
    pub(crate) ends: u32,
    pub(crate) publishers: u32,
}

/// What a run has shown.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) ends: u32,
    pub(crate) ends_in_start: u32,
    pub(crate) failed_starts: u32,
    slowest_start: Duration,
    acknowledged: usize,
    pub(crate) findings: Findings,
}

/// Runs clients against `subject`, which ends again and again, and audits what it had acknowledged.
pub(crate) fn run(script: Script, subject: &mut impl Subject) -> Result<Outcome, String> {
    let scene = Scene::new(script.address);
    let course = thread::scope(|scope| {
        let scene = &scene;
        for number in 0..script.publishers {
            let version = [Version::V5, Version::V311][usize::from(number % 2 == 1)];
            scope.spawn(move || roles::publisher(scene, &format!("pub{number}"), version));
        }
        for (name, version, presence) in SUBSCRIBERS {
            scope.spawn(move || roles::subscriber(scene, name, version, presence));
        }
        scope.spawn(move || roles::mortal(scene, "mortal"));
        scope.spawn(move || roles::retainer(scene, "retainer"));
        scope.spawn(move || roles::changer(scene, "changer"));
        let course = course(script, subject, scene);
        scene.enter(Phase::Leave);
        course
    });
    let mut outcome = course?;
    outcome.acknowledged = scene.ledger().acknowledged_len();
    outcome.findings = scene.ledger().audit();
    Ok(outcome)
}

/// Starts, ends, starts again; then lets everything come to its end.
fn course(script: Script, subject: &mut impl Subject, scene: &Scene) -> Result<Outcome, String> {
    let mut random = Random::new(script.seed);
    let mut outcome = Outcome {
        ends: 0,
        ends_in_start: 0,
        failed_starts: 0,
        slowest_start: Duration::ZERO,
        acknowledged: 0,
        findings: Findings::default(),
    };
    subject.start()?;
    let until = Instant::now() + FINISH_MAX;
    while scene.subscribed() < SUBSCRIBERS.len() && Instant::now() < until {
        thread::sleep(Duration::from_millis(5));
    }
    scene.enter(Phase::Work);
    for _ in 0..script.ends {
        thread::sleep(Duration::from_millis(100 + random.below(700)));
        subject.end(&mut random)?;
        outcome.ends += 1;
        if random.below(3) == 0 && subject.end_in_start(&mut random)? {
            outcome.ends_in_start += 1;
        }
        let started = Instant::now();
        if let Err(error) = subject.start() {
            eprintln!("killtest: {error}");
            outcome.failed_starts += 1;
            return Ok(outcome);
        }
        outcome.slowest_start = outcome.slowest_start.max(started.elapsed());
    }
    scene.enter(Phase::Finish);
    finish(scene);
    Ok(outcome)
}

/// Everything acknowledged comes, or nothing more does for a while.
fn finish(scene: &Scene) {
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
            return;
        }
    }
}

impl Outcome {
    /// The counts that every run has.
    pub(crate) fn counts(&self) -> String {
        format!(
            "{} acknowledged, {} deliveries owed, slowest start {} ms: {} lost, {} repeated, \
             {} out of order, {} failed starts, {} other",
            self.acknowledged,
            self.findings.owed,
            self.slowest_start.as_millis(),
            self.findings.lost.len(),
            self.findings.repeated.len(),
            self.findings.disordered.len(),
            self.failed_starts,
            self.findings.broken.len(),
        )
    }

    /// Whether nothing is wrong; shows the first of what is.
    pub(crate) fn is_clean(&self) -> bool {
        let lists = [
            ("lost", &self.findings.lost),
            ("repeated", &self.findings.repeated),
            ("out of order", &self.findings.disordered),
            ("other", &self.findings.broken),
        ];
        for (what, list) in lists {
            for one in list.iter().take(SHOWN_MAX) {
                eprintln!("{what}: {one}");
            }
        }
        lists.iter().all(|(_, list)| list.is_empty()) && self.failed_starts == 0
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
