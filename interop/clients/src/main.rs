//! Our client beside rumqttc, in one run: throughput, allocations, lines of user code for the same five tasks.
//!
//!     cargo run --release --manifest-path interop/clients/Cargo.toml -- HOST PORT [MESSAGES [ROUNDS]]
//!
//! Owns: the measuring. Does not own: the broker, which somebody has started, nor the tasks (see `ours` and `theirs`).
//! Start reading at [`main`]. Invariant: both do the same with the same bounds, in turns, and are counted the same way.

mod ours;
mod theirs;

use std::alloc::System;
use std::error::Error;
use std::time::{Duration, Instant};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::time::timeout;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Messages above QoS 0 on their way at once, in both.
const IN_FLIGHT: u16 = 100;
/// How long one measurement, or one task, may take.
const PATIENCE: Duration = Duration::from_secs(120);
const PAYLOAD: [u8; 64] = [b'x'; 64];

/// What one run of one client came to.
struct Figures {
    per_second: f64,
    allocations: f64,
    bytes: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (host, port, rest) = match arguments.as_slice() {
        [host, port, rest @ ..] => (host.as_str(), port.parse()?, rest),
        _ => return Err("usage: interop-clients HOST PORT [MESSAGES [ROUNDS]]".into()),
    };
    let count = rest.first().map_or(Ok(50_000), |text| text.parse())?;
    let rounds = rest.get(1).map_or(Ok(5), |text| text.parse())?;
    tasks(host, port).await?;
    for qos in 0..=2 {
        let (mut own, mut other) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let topic = format!("clients/{qos}/{}", own.len());
            own.push(measure(count, ours::stream(host, port, qos, &topic, count)).await?);
            other.push(measure(count, theirs::stream(host, port, qos, &topic, count)).await?);
        }
        say(qos, "vencejo-client", own);
        say(qos, "rumqttc", other);
    }
    Ok(())
}

/// Each task is run by both, and its lines are counted.
async fn tasks(host: &str, port: u16) -> Result<()> {
    println!("lines of user code, without blank lines and comments");
    let names = ["publish", "two streams", "request", "a thousand", "stay"];
    let mut totals = [0, 0];
    for (at, name) in names.into_iter().enumerate() {
        match at {
            0 => run(ours::publish(host, port), theirs::publish(host, port)).await?,
            1 => run(ours::streams(host, port), theirs::streams(host, port)).await?,
            2 => run(ours::request(host, port), theirs::request(host, port)).await?,
            3 => run(ours::thousand(host, port), theirs::thousand(host, port)).await?,
            _ => run(ours::stay(host, port), theirs::stay(host, port)).await?,
        }
        let lines =
            [include_str!("ours.rs"), include_str!("theirs.rs")].map(|text| lines(text, at));
        println!(
            "  {name:12} vencejo-client {:3}  rumqttc {:3}",
            lines[0], lines[1]
        );
        totals = [totals[0] + lines[0], totals[1] + lines[1]];
    }
    println!(
        "  {:12} vencejo-client {:3}  rumqttc {:3}",
        "together", totals[0], totals[1]
    );
    Ok(())
}

async fn run(
    ours: impl Future<Output = Result<()>>,
    theirs: impl Future<Output = Result<()>>,
) -> Result<()> {
    timeout(PATIENCE, ours).await??;
    timeout(PATIENCE, theirs).await?
}

/// Lines between the `at`-th mark and the next.
fn lines(text: &str, at: usize) -> usize {
    let task = text.split("// task").nth(at + 1).unwrap_or_default();
    let lines = task.lines().skip(1).map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with("//"))
        .count()
}

async fn measure(count: u32, stream: impl Future<Output = Result<Duration>>) -> Result<Figures> {
    let region = Region::new(ALLOCATOR);
    let start = Instant::now();
    let elapsed = timeout(PATIENCE, stream).await??;
    let change = region.change();
    let count = f64::from(count);
    assert!(elapsed <= start.elapsed(), "measured inside");
    Ok(Figures {
        per_second: count / elapsed.as_secs_f64(),
        allocations: (change.allocations + change.reallocations) as f64 / count,
        bytes: change.bytes_allocated as f64 / count,
    })
}

fn say(qos: u8, name: &str, figures: Vec<Figures>) {
    let median = |value: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = figures.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        (
            values[0],
            values[values.len() / 2],
            values[values.len() - 1],
        )
    };
    let (low, per_second, high) = median(|figures| figures.per_second);
    let (_, allocations, _) = median(|figures| figures.allocations);
    let (_, bytes, _) = median(|figures| figures.bytes);
    println!(
        "QoS {qos} {name:15} {per_second:8.0} messages/s ({low:.0} to {high:.0}), \
         {allocations:5.1} allocations and {bytes:6.0} bytes for each"
    );
}
