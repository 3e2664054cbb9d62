//! What a delivery costs beside the system, by how many Subscriptions there are: any of their topics, two of them match.
//!
//! Owns: those figures. Does not own: the scenario over sockets (see `bench run table-1m`). Start reading at `main`.
//! Run with `cargo bench -p rooms --bench table`. Invariant: who receives is the same whatever the number of Subscriptions.

#![allow(
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    reason = "a program that measures and prints"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{Notation, Rule, Rules, TopicPattern, Topics, Who};
use proto::{Qos, Version};
use rooms::{Bed, publish};
use store::Level;

/// As of the server.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    println!("subscriptions | ns per delivery");
    for count in [200, 1_000, 10_000, 100_000, 1_000_000] {
        let cost = measure(count);
        println!(
            "{count} | {:.0}",
            cost.as_nanos() as f64 / (PER_TURN * COPIES) as f64
        );
    }
}

/// The median of many turns.
fn measure(count: usize) -> Duration {
    let mut bed = Bed::new(Level::Memory);
    bed.engine.set_rules(twenty_rules());
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|_| bed.connect(Version::V311, false))
        .collect();
    let receivers: Vec<_> = (0..OWNERS + DASHBOARDS)
        .map(|_| bed.connect(Version::V311, false))
        .collect();
    let (owners, dashboards) = receivers.split_at(OWNERS);
    for device in 0..count {
        let owner = owners[device % OWNERS];
        bed.subscribe(owner, &topic_of(device), Qos::AtMostOnce);
    }
    for site in 0..SITES {
        let dashboard = dashboards[site % DASHBOARDS];
        bed.subscribe(dashboard, &format!("site/{site}/#"), Qos::AtMostOnce);
    }
    let mut chosen = 1;
    let mut turn = || {
        let read: Vec<Vec<u8>> = publishers
            .iter()
            .map(|_| {
                (0..WINDOW)
                    .flat_map(|_| any_publish(&mut chosen, count))
                    .collect()
            })
            .collect();
        let began = Instant::now();
        for (publisher, bytes) in publishers.iter().zip(&read) {
            bed.take(*publisher, bytes);
        }
        bed.end_turn();
        let took = began.elapsed();
        let sent: usize = receivers.iter().map(|one| bed.sent(*one).len()).sum();
        assert!(sent > PER_TURN * COPIES * 64, "everybody gets it");
        receivers.iter().for_each(|one| bed.sent(*one).clear());
        took
    };
    for _ in 0..WARMUP {
        turn();
    }
    let mut turns: Vec<_> = (0..TURNS).map(|_| turn()).collect();
    turns.sort_unstable();
    turns[TURNS / 2]
}

/// Those of the server that is measured: the last one says what everybody may.
fn twenty_rules() -> Arc<Rules> {
    let rule = |number: usize| {
        let text = match number {
            19 => "#".to_owned(),
            _ => format!("private/{number}/#"),
        };
        let pattern = TopicPattern::parse(&text, Notation::Braces).expect("a pattern");
        let mut who = Who::default();
        if number < 19 {
            who.users.insert(format!("user-{number}").as_str().into());
        }
        Rule {
            topics: Topics::Matching(vec![pattern]),
            who,
            ..Rule::allow("a rule")
        }
    };
    Arc::new(Rules::new((0..20).map(rule).collect()))
}

/// A message on the topic of one of the devices, as if by chance.
fn any_publish(chosen: &mut u64, count: usize) -> Vec<u8> {
    *chosen ^= *chosen << 13;
    *chosen ^= *chosen >> 7;
    *chosen ^= *chosen << 17;
    let device = usize::try_from(*chosen % count as u64).unwrap_or(0);
    publish(Version::V311, &topic_of(device), Qos::AtMostOnce, 1)
}

fn topic_of(device: usize) -> String {
    format!("site/{}/device/{device}/state", device % SITES)
}

const PUBLISHERS: usize = 20;
const OWNERS: usize = 200;
const DASHBOARDS: usize = 10;
const SITES: usize = 100;
/// Messages of one publisher in a turn.
const WINDOW: usize = 64;
const PER_TURN: usize = PUBLISHERS * WINDOW;
const COPIES: usize = 2;
const WARMUP: usize = 200;
const TURNS: usize = 400;
