//! `vencejo bench compare`: sets of runs beside the first of them, with what can be said of a difference.
//!
//! Owns: reading results, which figures are compared, the words. Does not own: the statistics (see `statistics`).
//! Start reading at [`run`]. Invariant: where the interval of a ratio holds 1, or where there are too few runs for one, no
//! difference is claimed.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use super::report::milliseconds;
use super::statistics::{Interval, median, median_interval, ratio};
use crate::serve;
use crate::tools::Failure;

/// Compare results of the same scenario with those of the first file; a file may hold several, as --out and >> leave them
#[derive(Args, Clone, Debug)]
#[command(disable_help_flag = true)]
pub(crate) struct CompareArgs {
    /// Results of --json or --out: the one to compare with, and one or more others
    #[arg(value_name = "FILE", num_args = 2.., required = true)]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Print help
    #[arg(long, short = 'h', short_alias = '?', action = clap::ArgAction::Help)]
    help: Option<bool>,
}

/// Runs of one scenario.
#[derive(Debug)]
struct Set {
    name: String,
    scenario: Value,
    server: String,
    runs: Vec<Value>,
}

/// Figures of one kind.
#[derive(Debug)]
struct Figure {
    what: String,
    unit: &'static str,
    /// How it is multiplied to be in that unit.
    factor: f64,
    pointer: String,
}

/// `vencejo bench compare`.
pub(super) fn run(args: &CompareArgs) -> Result<(), Failure> {
    let mut sets = Vec::new();
    for file in &args.files {
        let name = file.display().to_string();
        let failed = |error: String| Failure::new(format!("Error: {name}: {error}"));
        let text = fs::read_to_string(file).map_err(|error| failed(error.to_string()))?;
        sets.push(Set::read(&name, &text).map_err(failed)?);
    }
    let Some((first, others)) = sets.split_first() else {
        return Err(Failure::new("Error: nothing to compare."));
    };
    for other in others {
        if let Some(difference) = difference(&first.scenario, &other.scenario) {
            let (one, two) = (&first.name, &other.name);
            let text = format!("Error: {one} and {two} have not measured the same: {difference}.");
            return Err(Failure::new(text));
        }
    }
    let text = match args.json {
        true => format!("{:#}\n", as_json(first, others)),
        false => as_text(first, others),
    };
    serve::print(&text);
    Ok(())
}

impl Set {
    /// All results of a file, one after the other.
    fn read(name: &str, text: &str) -> Result<Self, String> {
        let mut set: Option<Self> = None;
        for document in serde_json::Deserializer::from_str(text).into_iter::<Value>() {
            let document = document.map_err(|error| format!("this is no result: {error}"))?;
            let scenario = &document["scenario"];
            let runs = document["runs"]
                .as_array()
                .filter(|_| document["format"] == FORMAT);
            let Some(runs) = runs.filter(|_| scenario.is_object()) else {
                return Err("this is no result of `vencejo bench --json`".to_owned());
            };
            match &mut set {
                None => {
                    let text =
                        |key: &str| document["server"][key].as_str().unwrap_or("?").to_owned();
                    set = Some(Self {
                        name: name.to_owned(),
                        scenario: scenario.clone(),
                        server: format!("{} at {}", text("version"), text("address")),
                        runs: runs.clone(),
                    });
                }
                Some(set) => {
                    if let Some(difference) = difference(&set.scenario, scenario) {
                        return Err(format!("it holds different scenarios: {difference}"));
                    }
                    set.runs.extend(runs.iter().cloned());
                }
            }
        }
        set.filter(|set| !set.runs.is_empty())
            .ok_or_else(|| "there is no result in it".to_owned())
    }

    /// One figure of all runs that have it.
    fn values(&self, figure: &Figure) -> Vec<f64> {
        let values = self
            .runs
            .iter()
            .filter_map(|run| run.pointer(&figure.pointer)?.as_f64());
        values.map(|value| value * figure.factor).collect()
    }

    /// What ought not to be: "lost 3".
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for name in super::figures::FAULTS {
            let counts = self
                .runs
                .iter()
                .filter_map(|run| run["counts"][name].as_u64());
            let sum: u64 = counts.sum();
            if sum > 0 {
                faults.push(format!("{} {sum}", name.replace('_', " ")));
            }
        }
        faults
    }

    /// What there is to compare, in the order in which it is told.
    fn figures(&self) -> Vec<Figure> {
        let mut figures = Vec::new();
        let Some(run) = self.runs.first() else {
            return figures;
        };
        for kind in ["delivered", "acknowledged", "connected", "replayed"] {
            if run["times"][kind]["count"].as_u64().unwrap_or(0) == 0 {
                continue;
            }
            for (key, words) in SHOWN {
                figures.push(Figure {
                    what: format!("{kind}, {words}"),
                    unit: "ms",
                    factor: 0.001,
                    pointer: format!("/times/{kind}/{key}"),
                });
            }
        }
        figures.push(Figure {
            what: format!("{}/s", run["of"].as_str().unwrap_or("events")),
            unit: "/s",
            factor: 1.0,
            pointer: "/per_second".to_owned(),
        });
        figures
    }
}

/// The first key in which two scenarios differ.
fn difference(one: &Value, two: &Value) -> Option<String> {
    let (one, two) = (one.as_object()?, two.as_object()?);
    let keys = one.keys().chain(two.keys());
    let mut different = keys.filter(|key| one.get(*key) != two.get(*key));
    different.next().map(|key| {
        let shown = |of: Option<&Value>| of.map_or_else(|| "none".to_owned(), ToString::to_string);
        format!(
            "{key} is {} and {}",
            shown(one.get(key)),
            shown(two.get(key))
        )
    })
}

fn as_text(first: &Set, others: &[Set]) -> String {
    let mut text = format!("{}\n", first.scenario["name"].as_str().unwrap_or("?"));
    for set in [first].into_iter().chain(others) {
        let faults = match set.faults() {
            faults if faults.is_empty() => String::new(),
            faults => format!(", WRONG: {}", faults.join(", ")),
        };
        let server = set.server.escape_debug();
        text.push_str(&format!(
            "  {}: {} runs, {server}{faults}\n",
            set.name,
            set.runs.len()
        ));
    }
    for other in others {
        text.push_str(&format!("\n{} beside {}\n", other.name, first.name));
        for figure in first.figures() {
            let (old, new) = (first.values(&figure), other.values(&figure));
            let (before, after) = (middle(&old, figure.unit), middle(&new, figure.unit));
            let verdict = verdict(&old, &new);
            text.push_str(&format!(
                "  {:<22} {before:>28} {after:>28}  {verdict}\n",
                figure.what
            ));
        }
    }
    text.push_str(METHOD);
    text
}

/// A median, and where it is.
fn middle(values: &[f64], unit: &str) -> String {
    let Some(middle) = median(values) else {
        return "-".to_owned();
    };
    let shown = |value: f64| match unit {
        "ms" => milliseconds(value),
        _ => format!("{value:.1}"),
    };
    let interval = median_interval(values).map_or_else(String::new, |of| {
        format!(" [{} to {}]", shown(of.low), shown(of.high))
    });
    format!("{}{interval}", shown(middle))
}

/// What can be said of the difference.
fn verdict(old: &[f64], new: &[f64]) -> String {
    match ratio(old, new) {
        None => "cannot be compared".to_owned(),
        Some((_, None)) => {
            format!(
                "no difference can be told from {} and {} runs",
                old.len(),
                new.len()
            )
        }
        Some((estimate, Some(of))) if of.is_of_one() => {
            format!(
                "no difference can be told: {estimate:.3} times [{:.3} to {:.3}]",
                of.low, of.high
            )
        }
        Some((estimate, Some(of))) => {
            format!("{estimate:.3} times [{:.3} to {:.3}]", of.low, of.high)
        }
    }
}

impl Interval {
    /// Whether it holds 1: that nothing has changed.
    fn is_of_one(&self) -> bool {
        self.low <= 1.0 && self.high >= 1.0
    }

    fn as_json(&self) -> Value {
        json!({ "low": self.low, "high": self.high, "coverage": self.coverage })
    }
}

fn as_json(first: &Set, others: &[Set]) -> Value {
    let of = |set: &Set, figure: &Figure| {
        let values = set.values(figure);
        let interval = median_interval(&values).map(|of| of.as_json());
        json!({ "median": median(&values), "interval": interval, "runs": values.len() })
    };
    let comparisons = others.iter().map(|other| {
        let figures = first.figures().into_iter().map(|figure| {
            let found = ratio(&first.values(&figure), &other.values(&figure));
            let interval = found.and_then(|(_, interval)| interval);
            json!({
                "what": figure.what, "unit": figure.unit, "old": of(first, &figure), "new": of(other, &figure),
                "ratio": found.map(|(estimate, _)| estimate), "interval": interval.map(|of| of.as_json()),
                "differs": interval.is_some_and(|of| !of.is_of_one()),
            })
        });
        json!({
            "old": first.name, "new": other.name, "old_faults": first.faults(), "new_faults": other.faults(),
            "figures": figures.collect::<Vec<_>>(),
        })
    });
    let comparisons: Vec<_> = comparisons.collect();
    json!({ "scenario": first.scenario, "method": METHOD.trim(), "comparisons": comparisons })
}

/// What a result is marked with.
pub(super) const FORMAT: u32 = 1;
/// Quantiles that are compared.
const SHOWN: [(&str, &str); 5] = [
    ("p50_us", "50 %"),
    ("p90_us", "90 %"),
    ("p99_us", "99 %"),
    ("p99_9_us", "99.9 %"),
    ("max_us", "max"),
];
const METHOD: &str = "
Medians over the runs; in brackets where they are, at 95 % at least, by order statistics (of 6 runs on).
A ratio is the middle of all ratios of two runs, its brackets those of Mann and Whitney (4 runs on each side).
";

#[cfg(test)]
mod tests {
    use super::*;

    fn result(name: &str, medians_us: &[f64], lost: u64) -> String {
        let runs = medians_us.iter().map(|median| {
            json!({
                "times": { "delivered": {
                    "count": 5, "p50_us": median, "p90_us": 1.0, "p99_us": 1.0, "p99_9_us": 1.0, "max_us": 2.0,
                } },
                "per_second": 1000.0, "of": "deliveries", "counts": { "lost": lost, "sent": 7 },
            })
        });
        let runs: Vec<_> = runs.collect();
        let server = json!({ "version": "one\u{1b}", "address": "here:1" });
        json!({ "format": 1, "scenario": { "name": name, "rate": 5 }, "server": server, "runs": runs })
            .to_string()
    }

    fn set(text: &str) -> Set {
        Set::read("a.json", text).unwrap()
    }

    #[test]
    fn results_that_follow_each_other_in_a_file_are_one_set() {
        let text = format!(
            "{}\n{}",
            result("pairs", &[1.0, 2.0], 1),
            result("pairs", &[3.0], 2)
        );
        let set = set(&text);
        assert_eq!(
            (set.runs.len(), set.faults()),
            (3, vec!["lost 4".to_owned()])
        );
        assert_eq!(set.values(&set.figures()[0]), [0.001, 0.002, 0.003]);
    }

    #[test]
    fn what_is_no_result_or_another_scenario_is_refused() {
        let mixed = format!(
            "{}{}",
            result("pairs", &[1.0], 0),
            result("fan-in", &[1.0], 0)
        );
        for (text, words) in [
            ("", "no result in it"),
            ("{}", "no result of"),
            ("[1", "this is no result"),
            (mixed.as_str(), "name is \"pairs\" and \"fan-in\""),
            (&result("pairs", &[], 0), "no result in it"),
        ] {
            let error = Set::read("a", text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_difference_is_claimed_only_where_it_can_be_told() {
        let four = [100.0, 101.0, 102.0, 103.0];
        let [near, far] = [1.005, 2.0].map(|by| four.map(|value| value * by));
        assert!(
            verdict(&four, &far).starts_with("2.000 times ["),
            "{}",
            verdict(&four, &far)
        );
        assert!(verdict(&four, &near).starts_with("no difference can be told: 1.005"));
        assert_eq!(
            verdict(&four[..3], &far[..3]),
            "no difference can be told from 3 and 3 runs"
        );
        assert_eq!(verdict(&four, &[0.0]), "cannot be compared");
    }

    #[test]
    fn both_sides_and_the_method_are_printed() {
        let old = set(&result(
            "pairs",
            &[100.0, 101.0, 102.0, 103.0, 104.0, 105.0],
            0,
        ));
        let new = set(&result("pairs", &[200.0, 202.0, 204.0, 206.0], 3));
        let text = as_text(&old, &[new]);
        for words in [
            "6 runs",
            "WRONG: lost 12",
            "delivered, 50 %",
            "[0.100 to 0.105]",
            "1.98",
            "order statistics",
            "one\\u{1b} at here:1",
        ] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let new = set(&result("pairs", &[200.0, 202.0, 204.0, 206.0], 3));
        let said = as_json(&old, &[new]);
        let figures = said["comparisons"][0]["figures"].as_array().unwrap();
        assert_eq!(
            (&figures[0]["differs"], &figures[1]["differs"]),
            (&json!(true), &json!(false))
        );
    }
}
