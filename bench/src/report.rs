//! What the runs say, as a table for people.
//!
//! Owns: ratios, Markdown, the part of a page between two marks. Does not own: figures (see `suite`).
//! Start reading at [`markdown`]. Invariant: what was not measured is a dash.

use std::fmt::Write as _;

use crate::brokers::Kind;
use crate::scenarios::{Load, Scenario};
use crate::suite::{Figures, Run, median};

/// The tables of all scenarios that were run.
pub(crate) fn markdown(scenarios: &[Scenario], runs: &[Run]) -> String {
    let mut text = String::new();
    costs(scenarios, runs, &mut text);
    shards(scenarios, runs, &mut text);
    others(scenarios, runs, &mut text);
    beside(scenarios, runs, &mut text);
    text
}

fn costs(scenarios: &[Scenario], runs: &[Run], text: &mut String) {
    text.push_str(
        "CPU of the broker for one delivery, in microseconds, and what that is of ours, with what is to be reached.\n\n\
         | scenario | ours | mosquitto | rumqttd | relay | mosquitto / ours | rumqttd / ours | relay / ours |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for scenario in scenarios.iter().filter(|one| one.of_one_shard.is_none()) {
        let cost = |kind| median(runs, scenario.name, kind, |one| one.cpu_us);
        let is_beside = matches!(scenario.load, Load::Beside(..));
        let Some(ours) = cost(Kind::Vencejo).filter(|_| !is_beside) else {
            continue;
        };
        let ratio = |kind| cost(kind).map(|other| other / ours);
        let [mosquitto, rumqttd] = scenario.targets;
        let relay = scenario.relay_target;
        let cells = [
            scenario.says.to_owned(),
            number(Some(ours)),
            number(cost(Kind::Mosquitto)),
            number(cost(Kind::Rumqttd)),
            number(cost(Kind::Relay)),
            reached(ratio(Kind::Mosquitto), mosquitto, ""),
            reached(ratio(Kind::Rumqttd), rumqttd, ""),
            reached(ratio(Kind::Relay).map(|part| part * 100.0), relay, " %"),
        ];
        writeln!(text, "| {} |", cells.join(" | ")).ok();
    }
}

fn shards(scenarios: &[Scenario], runs: &[Run], text: &mut String) {
    let cost = |name| median(runs, name, Kind::Vencejo, |one| one.cpu_us);
    let mut rows = String::new();
    for scenario in scenarios {
        let one = scenario.of_one_shard.and_then(cost);
        let (Some(one), Some(two)) = (one, cost(scenario.name)) else {
            continue;
        };
        let cells = [
            scenario.says.to_owned(),
            number(Some(one)),
            number(Some(two)),
            reached(Some(2.0 * one / two), Some(TWO_SHARDS), ""),
        ];
        writeln!(rows, "| {} |", cells.join(" | ")).ok();
    }
    if rows.is_empty() {
        return;
    }
    text.push_str(
        "\nTwo shards on both cores: CPU of ours for one delivery in microseconds, and how much more than one shard on one \
         core they carry where the generator takes nothing from them.\n\n\
         | scenario | one shard | two shards | carry |\n|---|---|---|---|\n",
    );
    text.push_str(&rows);
}

fn beside(scenarios: &[Scenario], runs: &[Run], text: &mut String) {
    let mut rows = String::new();
    let is_beside = |one: &&Scenario| matches!(one.load, Load::Beside(..));
    for scenario in scenarios.iter().filter(is_beside) {
        let all = |figure: fn(&Figures) -> Option<f64>, shown: fn(Option<f64>) -> String| {
            let of = |kind| shown(median(runs, scenario.name, kind, figure));
            [Kind::Vencejo, Kind::Mosquitto].map(of).join(" / ")
        };
        if !is_measured(runs, scenario) {
            continue;
        }
        let cells = [
            scenario.says.to_owned(),
            all(|one| one.cpu_us, number),
            all(|one| one.p50_us, whole),
            all(|one| one.p99_us, whole),
            all(|one| one.most_us, whole),
            all(|one| one.beside_seconds, number),
        ];
        writeln!(rows, "| {} |", cells.join(" | ")).ok();
    }
    if rows.is_empty() {
        return;
    }
    text.push_str(
        "\nA flow beside others: CPU for one delivery, the median, the 99th percentile and the longest of its latency in \
         microseconds, and the seconds until all others have what they want: ours / mosquitto.\n\n\
         | scenario | CPU | p50 | p99 | longest | others |\n|---|---|---|---|---|---|\n",
    );
    text.push_str(&rows);
}

fn others(scenarios: &[Scenario], runs: &[Run], text: &mut String) {
    text.push_str(
        "\nDeliveries a second (k is a thousand), the median and the 99th percentile of the latency in microseconds, calls of the \
         system for one delivery: ours / mosquitto / rumqttd / relay.\n\n\
         | scenario | a second | p50 | p99 | calls |\n|---|---|---|---|---|\n",
    );
    for scenario in scenarios {
        let all = |figure: fn(&Figures) -> Option<f64>, shown: fn(Option<f64>) -> String| {
            let of = |kind| shown(median(runs, scenario.name, kind, figure));
            [Kind::Vencejo, Kind::Mosquitto, Kind::Rumqttd, Kind::Relay]
                .map(of)
                .join(" / ")
        };
        if !matches!(scenario.load, Load::Flow(_)) || !is_measured(runs, scenario) {
            continue;
        }
        let cells = [
            scenario.says.to_owned(),
            all(|one| one.rate, thousands),
            all(|one| one.p50_us, whole),
            all(|one| one.p99_us, whole),
            all(|one| one.calls, number),
        ];
        writeln!(text, "| {} |", cells.join(" | ")).ok();
    }
    text.push_str(
        "\nWhat stands in the broker: put in a second, taken out a second, resident bytes of each: ours / mosquitto / rumqttd.\n\n\
         | scenario | in | out | bytes |\n|---|---|---|---|\n",
    );
    for scenario in scenarios.iter().filter(|one| is_measured(runs, one)) {
        let all = |figure: fn(&Figures) -> Option<f64>, shown: fn(Option<f64>) -> String| {
            let of = |kind| shown(median(runs, scenario.name, kind, figure));
            [Kind::Vencejo, Kind::Mosquitto, Kind::Rumqttd]
                .map(of)
                .join(" / ")
        };
        if median(runs, scenario.name, Kind::Vencejo, |one| one.bytes).is_none() {
            continue;
        }
        let cells = [
            scenario.says.to_owned(),
            all(|one| one.fill_rate, thousands),
            all(|one| one.rate, thousands),
            all(|one| one.bytes, whole),
        ];
        writeln!(text, "| {} |", cells.join(" | ")).ok();
    }
}

fn is_measured(runs: &[Run], scenario: &Scenario) -> bool {
    runs.iter().any(|run| run.scenario == scenario.name)
}

fn number(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
}

fn whole(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"))
}

fn thousands(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{:.0}k", value / 1000.0))
}

/// A ratio, and what it is to be; in bold where it is not.
fn reached(found: Option<f64>, target: Option<f64>, unit: &str) -> String {
    let Some(found) = found else {
        return "-".to_owned();
    };
    let shown = if unit.is_empty() {
        format!("{found:.1}")
    } else {
        format!("{found:.0}{unit}")
    };
    match target {
        None => shown,
        Some(target) if found >= target => format!("{shown} (of {target}{unit})"),
        Some(target) => format!("**{shown}** (of {target}{unit})"),
    }
}

/// `page` with `table` between the two marks; `None` if they are not there.
pub(crate) fn inserted(page: &str, table: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGINS)?;
    let (_, after) = rest.split_once(ENDS)?;
    Some(format!("{before}{BEGINS}\n\n{table}\n{ENDS}{after}"))
}

/// So much more two shards are to carry.
const TWO_SHARDS: f64 = 1.6;

const BEGINS: &str = "<!-- cargo xtask bench: begins -->";
const ENDS: &str = "<!-- cargo xtask bench: ends -->";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_that_is_not_reached_is_bold_and_what_was_not_measured_a_dash() {
        assert_eq!(reached(Some(31.04), Some(31.0), ""), "31.0 (of 31)");
        assert_eq!(reached(Some(33.0), Some(34.0), " %"), "**33 %** (of 34 %)");
        assert_eq!(reached(Some(2.0), None, ""), "2.0");
        assert_eq!(reached(None, Some(1.0), ""), "-");
    }

    #[test]
    fn table_takes_the_place_of_the_one_before_and_the_rest_of_the_page_stays() {
        let page = format!("a\n{BEGINS}\nold\n{ENDS}\nb\n");
        let new = inserted(&page, "| new |\n").expect("the marks are there");
        assert_eq!(new, format!("a\n{BEGINS}\n\n| new |\n\n{ENDS}\nb\n"));
        assert_eq!(inserted("no marks", "x"), None);
    }
}
