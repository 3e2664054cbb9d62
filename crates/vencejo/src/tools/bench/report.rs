//! What a run has come to, for people.
//!
//! Owns: the table, the words for what went wrong. Does not own: figures (see `figures`), JSON's other parts (see `mod`).
//! Start reading at [`text`]. Invariant: what was lost, repeated, refused or late is said, whatever else is.

use hdrhistogram::Histogram;

use super::figures::Outcome;
use super::scenarios::grouped;

/// One run.
pub(super) fn text(outcome: &Outcome) -> String {
    let mut text = format!(
        "{:<14}{:>11}{:>11}{:>11}{:>11}{:>11}\n",
        "milliseconds", "50 %", "90 %", "99 %", "99.9 %", "max"
    );
    for (name, times) in &outcome.times {
        text.push_str(&row(name, times));
    }
    let counts = outcome
        .counts
        .iter()
        .filter(|(name, count)| *count > 0 && !is_fault(outcome, name));
    let counts: Vec<_> = counts
        .map(|(name, count)| format!("{name} {}", grouped(*count)))
        .collect();
    text.push_str(&format!(
        "\n{:.1} {}/s; {}\n",
        outcome.per_second,
        outcome.of,
        counts.join(", ")
    ));
    let faults = outcome.faults();
    if faults.is_empty() {
        text.push_str("nothing lost, repeated, out of order or refused\n");
    } else {
        let faults = faults
            .into_iter()
            .map(|(name, count)| format!("{} {}", name.replace('_', " "), grouped(count)));
        text.push_str(&format!(
            "WRONG: {}\n",
            faults.collect::<Vec<_>>().join(", ")
        ));
    }
    for (cause, count) in &outcome.causes {
        // What a server says is not trusted to be one line.
        let cause = cause.escape_debug();
        text.push_str(&format!("  {} x {cause}\n", grouped(*count)));
    }
    if let Some(note) = note(outcome) {
        text.push_str(&format!("Note: {note}\n"));
    }
    text
}

fn is_fault(outcome: &Outcome, name: &str) -> bool {
    outcome.faults().iter().any(|(fault, _)| *fault == name)
}

fn row(name: &str, times: &Histogram<u64>) -> String {
    let mut row = format!("{name:<14}");
    if times.is_empty() {
        return format!("{row}{:>11}\n", "-");
    }
    let quantiles = [0.5, 0.9, 0.99, 0.999].map(|of| times.value_at_quantile(of));
    for nanos in quantiles.into_iter().chain([times.max()]) {
        row.push_str(&format!("{:>11}", milliseconds(nanos as f64 / 1e6)));
    }
    row.push('\n');
    row
}

/// Three significant digits, more or less.
pub(super) fn milliseconds(value: f64) -> String {
    match value {
        value if value < 10.0 => format!("{value:.3}"),
        value if value < 100.0 => format!("{value:.2}"),
        value => format!("{value:.1}"),
    }
}

/// Where the times say more of this program than of the server.
pub(super) fn note(outcome: &Outcome) -> Option<String> {
    let of = |wanted: &str| {
        let found = outcome.times.iter().find(|(name, _)| *name == wanted);
        found.map(|(_, times)| times)
    };
    let late = of("generator")?.value_at_quantile(0.99);
    let (name, times) = outcome.times.first()?;
    let middle = times.value_at_quantile(0.5);
    (late > middle).then(|| {
        format!(
            "1 % of what was due was told to its sender {} ms late or more, longer than half of all took \
             to be {name}: times above the median say more of this machine than of the server",
            milliseconds(late as f64 / 1e6)
        )
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::tools::bench::figures::{add, histogram};

    fn outcome(delivered_ms: u64, late_ms: u64, lost: u64) -> Outcome {
        let of = |ms| {
            let mut times = histogram();
            add(&mut times, Duration::from_millis(ms));
            times
        };
        Outcome {
            times: vec![("delivered", of(delivered_ms)), ("generator", of(late_ms))],
            counts: vec![("sent", 12_000), ("lost", lost)],
            per_second: 1000.0,
            of: "deliveries",
            causes: BTreeMap::from([("a\nb".to_owned(), 2)]),
        }
    }

    #[test]
    fn what_went_wrong_is_said_first_and_in_one_line() {
        let text = text(&outcome(5, 1, 3));
        assert!(
            text.contains("1000.0 deliveries/s; sent 12,000\nWRONG: lost 3\n"),
            "{text}"
        );
        assert!(text.contains("2 x a\\nb"), "{text}");
        assert!(!text.contains("Note:"), "{text}");
        assert!(self::text(&outcome(5, 1, 0)).contains("nothing lost"));
    }

    #[test]
    fn a_generator_that_is_late_says_so() {
        assert!(text(&outcome(1, 5, 0)).contains("Note: 1 % of what was due"));
    }

    #[test]
    fn milliseconds_have_the_digits_that_mean_something() {
        let shown = [0.1234, 12.345, 1234.56].map(milliseconds);
        assert_eq!(shown, ["0.123", "12.35", "1234.6"]);
    }
}
