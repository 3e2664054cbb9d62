//! Scenarios, brokers and rounds: all brokers in turn, so that what disturbs one disturbs them all.
//!
//! Owns: the order, what is kept of each run. Does not own: what is said of it (see `report`).
//! Start reading at [`run`]. Invariant: of the figures of one broker and scenario the medians count.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::beside;
use crate::brokers::{Broker, Kind, Programs, Setup};
use crate::flow::{Flow, Outcome, Plan};
use crate::process::Process;
use crate::scenarios::{Load, Scenario};
use crate::standing::{self, Standing};

/// What one run has shown; what does not apply is not there.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Figures {
    /// CPU of the broker for one delivery, in microseconds.
    pub(crate) cpu_us: Option<f64>,
    /// Deliveries a second.
    pub(crate) rate: Option<f64>,
    /// Messages a second put in.
    pub(crate) fill_rate: Option<f64>,
    /// Calls of the system for one delivery.
    pub(crate) calls: Option<f64>,
    /// Memory by thing, in bytes.
    pub(crate) bytes: Option<f64>,
    pub(crate) p50_us: Option<f64>,
    pub(crate) p99_us: Option<f64>,
    /// The longest latency.
    pub(crate) most_us: Option<f64>,
    /// How long what went on beside took, in seconds.
    pub(crate) beside_seconds: Option<f64>,
    /// Part of its core that the generator used.
    pub(crate) generator: Option<f64>,
    pub(crate) lost: u64,
    pub(crate) misplaced: u64,
}

/// One run.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) scenario: &'static str,
    pub(crate) broker: &'static str,
    pub(crate) round: u32,
    #[serde(flatten)]
    pub(crate) figures: Figures,
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) rounds: u32,
    pub(crate) measured: Duration,
}

/// Runs all of them; `told` hears of each run, and of each that has failed.
pub(crate) fn run(
    scenarios: &[Scenario],
    kinds: &[Kind],
    programs: &Programs,
    folder: &Path,
    extent: Extent,
    mut told: impl FnMut(&str, Kind, &Result<Figures, String>),
) -> Vec<Run> {
    let mut runs = Vec::new();
    for round in 0..extent.rounds {
        for scenario in scenarios {
            let mut kinds: Vec<_> = kinds
                .iter()
                .filter(|kind| scenario.is_for(**kind))
                .collect();
            let turned = round as usize % kinds.len().max(1);
            kinds.rotate_left(turned);
            for kind in kinds {
                let counts_calls = round == 0;
                let result = run_one(scenario, *kind, programs, folder, extent, counts_calls);
                told(scenario.name, *kind, &result);
                if let Ok(figures) = result {
                    runs.push(Run {
                        scenario: scenario.name,
                        broker: kind.name(),
                        round,
                        figures,
                    });
                }
            }
        }
    }
    runs
}

fn run_one(
    scenario: &Scenario,
    kind: Kind,
    programs: &Programs,
    folder: &Path,
    extent: Extent,
    counts_calls: bool,
) -> Result<Figures, String> {
    let text = |error: io::Error| error.to_string();
    let broker = Broker::start(kind, scenario.setup, programs, folder)?;
    let process = broker.process();
    let door = broker.secured.as_ref().unwrap_or(&broker.door);
    match scenario.load {
        Load::Flow(plan) => {
            let plan = Plan {
                is_raw: kind == Kind::Relay,
                measured: extent.measured,
                ..plan
            };
            let empty = process.memory();
            let flow = Flow::begin(door, plan).map_err(text)?;
            let held = process.memory().saturating_sub(empty);
            let outcome = flow.run(process).map_err(text)?;
            let calls = if counts_calls {
                drop(broker);
                calls_of(kind, scenario.setup, plan, programs, folder)
            } else {
                None
            };
            Ok(Figures {
                calls,
                bytes: plan.table_len().map(|len| held as f64 / len as f64),
                ..flow_figures(&outcome)
            })
        }
        Load::Beside(others, plan) => {
            let plan = Plan {
                measured: extent.measured,
                ..plan
            };
            let found = beside::run(door, process, others, plan).map_err(text)?;
            let mut figures = flow_figures(&found.flow);
            if let Some((took, missing)) = found.others {
                // What the others cost is in it.
                figures.cpu_us = None;
                figures.beside_seconds = Some(took.as_secs_f64());
                figures.lost += missing;
            }
            Ok(figures)
        }
        Load::Retained(count) => standing::retained(door, process, count)
            .map(|found| standing_figures(&found))
            .map_err(text),
        Load::Offline(sessions, messages) => standing::offline(door, process, sessions, messages)
            .map(|found| standing_figures(&found))
            .map_err(text),
        Load::Idle(count) => standing::idle(door, process, count)
            .map(|found| standing_figures(&found))
            .map_err(text),
    }
}

fn flow_figures(outcome: &Outcome) -> Figures {
    let deliveries = outcome.deliveries.max(1) as f64;
    let micros = |nanos: u64| Some(nanos as f64 / 1000.0);
    Figures {
        cpu_us: Some(outcome.cpu.as_secs_f64() * 1e6 / deliveries),
        rate: Some(deliveries / outcome.took.as_secs_f64()),
        p50_us: micros(outcome.latency.at(500)),
        p99_us: micros(outcome.latency.at(990)),
        most_us: micros(outcome.latency.at(1000)),
        generator: Some(outcome.own_cpu.as_secs_f64() / outcome.took.as_secs_f64()),
        lost: outcome.lost,
        misplaced: outcome.misplaced,
        ..Figures::default()
    }
}

/// In a run of its own: to be counted costs a call its time.
fn calls_of(
    kind: Kind,
    setup: Setup,
    plan: Plan,
    programs: &Programs,
    folder: &Path,
) -> Option<f64> {
    let broker = Broker::start(kind, setup, programs, folder).ok()?;
    let process: Process = broker.process();
    let flow = Flow::begin(&broker.door, plan).ok()?;
    let calls = process.count_calls()?;
    // The warm-up and the end are counted, too, and so are their deliveries.
    let outcome = flow.run(process);
    let counted = calls.end()?;
    let outcome = outcome.ok()?;
    Some(counted as f64 / outcome.all_deliveries.max(1) as f64)
}

fn standing_figures(found: &Standing) -> Figures {
    let deliveries = found.deliveries as f64;
    let has_deliveries = found.deliveries > 0;
    Figures {
        cpu_us: has_deliveries.then(|| found.cpu.as_secs_f64() * 1e6 / deliveries),
        rate: has_deliveries.then(|| deliveries / found.took.as_secs_f64().max(1e-9)),
        fill_rate: Some(found.filled),
        bytes: Some(found.bytes),
        lost: found.lost,
        ..Figures::default()
    }
}

/// The median of one figure, by scenario and broker.
pub(crate) fn median(
    runs: &[Run],
    scenario: &str,
    kind: Kind,
    figure: impl Fn(&Figures) -> Option<f64>,
) -> Option<f64> {
    let of_it = |run: &&Run| run.scenario == scenario && run.broker == kind.name();
    let mut values: Vec<f64> = runs
        .iter()
        .filter(of_it)
        .filter_map(|run| figure(&run.figures))
        .collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len().checked_sub(1)? / 2;
    let upper = values.len() / 2;
    Some((values.get(middle)? + values.get(upper)?) / 2.0)
}

/// What went wrong in ours.
pub(crate) fn faults(runs: &[Run]) -> BTreeMap<&'static str, (u64, u64)> {
    let mut faults = BTreeMap::new();
    for run in runs.iter().filter(|run| run.broker == Kind::Vencejo.name()) {
        let Figures {
            lost, misplaced, ..
        } = run.figures;
        if lost + misplaced > 0 {
            let sum: &mut (u64, u64) = faults.entry(run.scenario).or_default();
            *sum = (sum.0 + lost, sum.1 + misplaced);
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_of(cpu_us: f64) -> Run {
        Run {
            scenario: "pairs-q0",
            broker: "vencejo",
            round: 0,
            figures: Figures {
                cpu_us: Some(cpu_us),
                ..Figures::default()
            },
        }
    }

    #[test]
    fn median_is_the_middle_of_the_runs_of_one_broker_and_scenario() {
        let found = |runs: &[Run]| median(runs, "pairs-q0", Kind::Vencejo, |one| one.cpu_us);
        assert_eq!(found(&[]), None);
        assert_eq!(found(&[3.0, 1.0, 2.0].map(run_of)), Some(2.0));
        assert_eq!(found(&[4.0, 1.0].map(run_of)), Some(2.5));
        let other = median(&[run_of(1.0)], "pairs-q0", Kind::Relay, |one| one.cpu_us);
        assert_eq!(other, None);
    }

    #[test]
    fn losses_of_ours_are_faults() {
        let mut run = run_of(1.0);
        assert!(faults(&[run]).is_empty());
        run.figures.lost = 2;
        assert_eq!(faults(&[run, run])["pairs-q0"], (4, 0));
        run.broker = "mosquitto";
        assert!(faults(&[run]).is_empty());
    }
}
