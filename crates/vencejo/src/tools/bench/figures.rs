//! What a run has shown: times, and counts of what went right and wrong.
//!
//! Owns: [`Times`], [`Tally`] while it runs, [`Outcome`] afterwards. Does not own: what is printed (see `report`).
//! Start reading at [`Outcome`]. Invariant: what is due ends in exactly one of sent and unsent, what was sent in one of
//! answered, refused and unanswered, and what had to come in one of come and lost.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

/// Times of one kind, from whatever task they come.
#[derive(Debug)]
pub(super) struct Times(Vec<Mutex<Histogram<u64>>>);

impl Times {
    /// For clients that are counted on from 0.
    pub(super) fn new() -> Self {
        Self((0..PARTS).map(|_| Mutex::new(histogram())).collect())
    }

    /// `client` took so long.
    pub(super) fn add(&self, client: u32, time: Duration) {
        let part = usize::try_from(client).unwrap_or(0) % PARTS;
        if let Some(part) = self.0.get(part) {
            let mut part = part.lock().unwrap_or_else(PoisonError::into_inner);
            add(&mut part, time);
        }
    }

    /// All of them.
    pub(super) fn sum(&self) -> Histogram<u64> {
        let mut sum = histogram();
        for part in &self.0 {
            let part = part.lock().unwrap_or_else(PoisonError::into_inner);
            // It grows as it has to.
            sum.add(&*part).ok();
        }
        sum
    }
}

/// Counted while it runs.
#[derive(Debug)]
pub(super) struct Tally {
    pub(super) delivered: Times,
    pub(super) acknowledged: Times,
    pub(super) sent: AtomicU64,
    pub(super) unsent: AtomicU64,
    pub(super) answered: AtomicU64,
    pub(super) refused: AtomicU64,
    /// Deliveries that what was sent has to come to.
    pub(super) owed: AtomicU64,
    pub(super) come: AtomicU64,
    /// Of those, what was due after the warm-up.
    pub(super) measured: AtomicU64,
    pub(super) repeated: AtomicU64,
    pub(super) overtaken: AtomicU64,
    pub(super) strange: AtomicU64,
    pub(super) ended: AtomicU64,
    /// When the last came, in nanoseconds from the beginning.
    last: AtomicU64,
    causes: Mutex<BTreeMap<String, u64>>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self {
            delivered: Times::new(),
            acknowledged: Times::new(),
            sent: AtomicU64::new(0),
            unsent: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            owed: AtomicU64::new(0),
            come: AtomicU64::new(0),
            measured: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            overtaken: AtomicU64::new(0),
            strange: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            last: AtomicU64::new(0),
            causes: Mutex::default(),
        }
    }

    /// Something went wrong, and why.
    pub(super) fn blame(&self, cause: String) {
        let mut causes = self.causes.lock().unwrap_or_else(PoisonError::into_inner);
        if causes.len() < CAUSES_MAX || causes.contains_key(&cause) {
            *causes.entry(cause).or_default() += 1;
        }
    }

    /// Something came so long after the beginning.
    pub(super) fn on_last(&self, since: Duration) {
        let nanos = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        self.last.fetch_max(nanos, Ordering::Relaxed);
    }

    /// When the last came.
    pub(super) fn last(&self) -> Duration {
        Duration::from_nanos(self.last.load(Ordering::Relaxed))
    }

    pub(super) fn causes(&self) -> BTreeMap<String, u64> {
        self.causes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Adds 1.
pub(super) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// How many.
pub(super) fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

/// What one run has come to.
#[derive(Debug)]
pub(super) struct Outcome {
    /// By what took it: "delivered", "acknowledged", "connected", "replayed", "generator".
    pub(super) times: Vec<(&'static str, Histogram<u64>)>,
    /// By name, in the order in which they are told.
    pub(super) counts: Vec<(&'static str, u64)>,
    /// What is to be as high as possible, in a second.
    pub(super) per_second: f64,
    /// What `per_second` counts.
    pub(super) of: &'static str,
    /// Why something went wrong, and how often.
    pub(super) causes: BTreeMap<String, u64>,
}

impl Outcome {
    /// The counts that ought to be 0 and are not.
    pub(super) fn faults(&self) -> Vec<(&'static str, u64)> {
        let is_fault = |(name, count): &&(&str, u64)| FAULTS.contains(name) && *count > 0;
        self.counts.iter().filter(is_fault).copied().collect()
    }

    pub(super) fn as_json(&self) -> Value {
        let times = self.times.iter().map(|(name, times)| {
            let mut of = json!({
                "count": times.len(), "mean_us": us(times.mean()), "min_us": us(times.min() as f64),
                "max_us": us(times.max() as f64),
            });
            for (key, quantile) in QUANTILES {
                of[*key] = json!(us(times.value_at_quantile(*quantile) as f64));
            }
            ((*name).to_owned(), of)
        });
        let times: serde_json::Map<_, _> = times.collect();
        let counts = self
            .counts
            .iter()
            .map(|(name, count)| ((*name).to_owned(), json!(count)));
        let counts: serde_json::Map<_, _> = counts.collect();
        json!({
            "times": times, "per_second": self.per_second, "of": self.of, "counts": counts,
            "causes": self.causes,
        })
    }
}

/// Nanoseconds as microseconds, to a thousandth.
fn us(nanos: f64) -> f64 {
    nanos.round() / 1000.0
}

pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new(DIGITS).expect("invariant: so many digits are allowed")
}

pub(super) fn add(histogram: &mut Histogram<u64>, time: Duration) {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    // It grows as it has to.
    histogram.record(nanos.min(NANOS_MAX)).ok();
}

/// Quantiles that are told, by their names in JSON.
pub(super) const QUANTILES: &[(&str, f64)] = &[
    ("p50_us", 0.5),
    ("p75_us", 0.75),
    ("p90_us", 0.9),
    ("p95_us", 0.95),
    ("p99_us", 0.99),
    ("p99_9_us", 0.999),
    ("p99_99_us", 0.9999),
];
/// Counts that ought to be 0.
pub(super) const FAULTS: [&str; 8] = [
    "unsent",
    "unanswered",
    "refused",
    "lost",
    "repeated",
    "out_of_order",
    "foreign",
    "disconnected",
];
/// Significant digits of a time.
const DIGITS: u8 = 3;
/// A day.
const NANOS_MAX: u64 = 24 * 3600 * 1_000_000_000;
/// Histograms that share the work.
const PARTS: usize = 8;
/// Different causes that are told.
const CAUSES_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_all_clients_are_one_distribution() {
        let times = Times::new();
        for client in 0..1000 {
            times.add(client, Duration::from_micros(u64::from(client) + 1));
        }
        times.add(0, Duration::MAX);
        let sum = times.sum();
        assert_eq!(sum.len(), 1001);
        let median = sum.value_at_quantile(0.5);
        assert!((500_000..=501_500).contains(&median), "{median}");
        assert!(sum.max() >= NANOS_MAX - NANOS_MAX / 1000);
    }

    #[test]
    fn only_what_went_wrong_is_a_fault() {
        let outcome = Outcome {
            times: vec![("delivered", histogram())],
            counts: vec![
                ("sent", 5),
                ("lost", 2),
                ("repeated", 0),
                ("disconnected", 1),
            ],
            per_second: 1.0,
            of: "deliveries",
            causes: BTreeMap::new(),
        };
        assert_eq!(outcome.faults(), [("lost", 2), ("disconnected", 1)]);
        let said = outcome.as_json();
        assert_eq!(
            (
                &said["counts"]["lost"],
                &said["times"]["delivered"]["count"]
            ),
            (&json!(2), &json!(0))
        );
    }

    #[test]
    fn causes_are_as_many_as_there_may_be() {
        let tally = Tally::new();
        for number in 0..100 {
            tally.blame(format!("cause {}", number % 40));
        }
        assert_eq!(tally.causes().len(), CAUSES_MAX);
        assert_eq!(tally.causes()["cause 0"], 3);
    }
}
