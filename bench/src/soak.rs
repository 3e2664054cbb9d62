//! Traffic of every kind for as long as one likes: nothing may be lost, and memory has to stay flat.
//!
//! Owns: what flows at once, the verdict. Does not own: flows (see `flow`), what stands (see `standing`).
//! Start reading at [`run`]. Invariant: every fault is told when it happens, and the verdict counts them all.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use crate::brokers::Broker;
use crate::flow::{Flow, Plan, Shape};
use crate::standing;
use crate::wire::Version;

/// What goes on at once, each at its rate: it is not about how much. And whether over TLS.
fn plans(piece: Duration) -> Vec<(Plan, bool)> {
    let steady = |name, shape, (publishers, subscribers), qos, rate, version| Plan {
        name,
        shape,
        publishers,
        subscribers,
        version,
        qos,
        keeps: false,
        payload_bytes: 200,
        window: 16_384,
        rate: Some(rate),
        is_exact: false,
        is_raw: false,
        warmup: Duration::ZERO,
        measured: piece,
    };
    let plain = [
        steady("qos0", Shape::Pairs, (20, 20), 0, 2000, Version::V311),
        steady("qos1", Shape::Pairs, (20, 20), 1, 1000, Version::V5),
        steady("qos2", Shape::Pairs, (20, 20), 2, 500, Version::V5),
        steady("fan-out", Shape::All, (1, 200), 1, 10, Version::V311),
        steady("shared", Shape::Shared, (20, 5), 1, 500, Version::V5),
    ];
    let secured = [
        steady("tls", Shape::Pairs, (20, 20), 1, 500, Version::V5),
        steady("tls-fan-out", Shape::All, (1, 50), 0, 10, Version::V311),
    ];
    let plain = plain.into_iter().map(|plan| (plan, false));
    plain
        .chain(secured.into_iter().map(|plan| (plan, true)))
        .collect()
}

/// Goes on for `time`; prints a line now and then. Returns whether all was well.
/// # Errors
/// As of the sockets.
pub(crate) fn run(broker: &Broker, time: Duration) -> io::Result<bool> {
    let piece = (time / PIECES).clamp(PIECE_MIN, PIECE_MAX);
    let until = Instant::now() + time;
    // What a broker needs at first is no growth.
    round(broker, piece)?;
    let process = broker.process();
    let settled = process.memory();
    let (mut deliveries, mut faults, mut most) = (0, 0, settled);
    println!("memory {} KiB after the first round", settled / 1024);
    while Instant::now() < until {
        let done = round(broker, piece)?;
        deliveries += done.deliveries;
        faults += done.faults;
        let memory = process.memory();
        most = most.max(memory);
        println!(
            "{deliveries} deliveries, {faults} lost, repeated or overtaken, memory {} KiB",
            memory / 1024
        );
    }
    let last = process.memory();
    let is_flat = last <= settled + settled / GROWTH_PART + GROWTH_BYTES;
    println!(
        "{}: {deliveries} deliveries, {faults} faults; memory {} KiB, {} KiB at most, {} KiB at the end{}",
        if is_flat && faults == 0 {
            "holds"
        } else {
            "FALLS"
        },
        settled / 1024,
        most / 1024,
        last / 1024,
        if is_flat { "" } else { ", which is not flat" }
    );
    Ok(is_flat && faults == 0)
}

#[derive(Clone, Copy, Debug, Default)]
struct Done {
    deliveries: u64,
    faults: u64,
}

/// All of it at once, with new connections: what flows, queues that fill and are drained, retained messages.
fn round(broker: &Broker, piece: Duration) -> io::Result<Done> {
    let (mut threads, mut done) = (Vec::new(), Done::default());
    let process = broker.process();
    for (plan, is_secured) in plans(piece) {
        let secured = broker.secured.as_ref().filter(|_| is_secured);
        let door = secured.unwrap_or(&broker.door).clone();
        threads.push(thread::spawn(move || {
            let outcome = Flow::begin(&door, plan)?.run(process)?;
            let faults = outcome.lost + outcome.misplaced;
            if faults > 0 {
                println!(
                    "{}: {} lost, {} misplaced",
                    plan.name, outcome.lost, outcome.misplaced
                );
            }
            Ok(Done {
                deliveries: outcome.all_deliveries,
                faults,
            })
        }));
    }
    let door = broker.door.clone();
    threads.push(thread::spawn(move || {
        let queued = standing::offline(&door, process, SESSIONS, MESSAGES)?;
        let retained = standing::retained(&door, process, RETAINED)?;
        Ok(Done {
            deliveries: queued.deliveries + retained.deliveries,
            faults: queued.lost + retained.lost,
        })
    }));
    for thread in threads {
        let of_one: io::Result<Done> = thread
            .join()
            .map_err(|_| io::Error::other("a thread of the soak has failed"))?;
        let of_one = of_one?;
        done.deliveries += of_one.deliveries;
        done.faults += of_one.faults;
    }
    Ok(done)
}

const PIECES: u32 = 20;
const PIECE_MIN: Duration = Duration::from_secs(3);
const PIECE_MAX: Duration = Duration::from_secs(60);
const SESSIONS: usize = 50;
const MESSAGES: usize = 100;
const RETAINED: usize = 500;
/// So much more than after the first round is still flat: a tenth, and what one page of the allocator may be.
const GROWTH_PART: u64 = 10;
const GROWTH_BYTES: u64 = 8 << 20;
