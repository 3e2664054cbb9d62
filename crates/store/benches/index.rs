//! What a message costs in encoding and index, as a multiple of encoding and checksum alone.
//!
//! Owns: that ratio, without system calls. Does not own: what writing costs.
//! Start reading at `main`. Run with `cargo bench -p vencejo-store --bench index`. Invariant: both sides
//! of a ratio are measured in turns, in the same run; the lowest of several turns counts.

#![allow(
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::print_stdout,
    reason = "a program that measures and prints"
)]

use std::time::Instant;

use bytes::Bytes;
use vencejo_store::codec::Records;
use vencejo_store::{
    Batch, EncodedGroup, HashKeys, Index, Level, Location, MessageRecord, Record, Seq, SessionId,
    SessionRecord, Target,
};

fn main() {
    println!("ns per message: encode + CRC | and decode + index, enqueue and dequeue | ratio");
    for (sessions, backlog) in [(1_000, 0), (1, 1_000_000), (1_000_000, 0), (100_000, 10)] {
        for targets in [1, 10] {
            if targets <= sessions {
                measure(sessions, backlog, targets);
            }
        }
    }
    start_after_cleaning();
}

/// `backlog` entries wait in each queue while messages for `targets` Sessions come and go.
fn measure(sessions: u64, backlog: u64, targets: u64) {
    let mut log = Log::new();
    for id in 0..sessions {
        log.apply_all(&[put(id)]);
    }
    for seq in 1..=backlog {
        for first in (0..sessions).step_by(256) {
            let count = (sessions - first).min(256);
            log.apply_all(&[enqueue(first, count, sessions, seq)]);
        }
    }
    let mut next_seq = vec![backlog + 1; usize::try_from(sessions).unwrap_or(0)];
    let (mut alone, mut whole) = (f64::MAX, f64::MAX);
    let mut first = 0;
    for _ in 0..TURNS {
        let mut records = Vec::new();
        for _ in 0..MESSAGES {
            // Far from the one before.
            first = (first + 7_919) % sessions;
            let of = |number| usize::try_from((first + number) % sessions).unwrap_or(0);
            let seq = (0..targets).map(|number| next_seq[of(number)]).max();
            let seq = seq.unwrap_or(0);
            (0..targets).for_each(|number| next_seq[of(number)] = seq + 1);
            records.push(enqueue(first, targets, sessions, seq));
            for number in 0..targets {
                records.push(Record::Dequeue {
                    session: SessionId((first + number) % sessions),
                    first_seq: seq - backlog,
                    count: 1,
                });
            }
        }
        let batches = batches(records);
        alone = alone.min(per_message(|| log.encode(&batches)));
        whole = whole.min(per_message(|| log.apply(&batches)));
    }
    println!(
        "{sessions} sessions, {backlog} waiting in each, k = {targets}: {alone:.0} | {whole:.0} | {:.1}",
        whole / alone
    );
}

/// A recovery that finds the older half of a long queue behind the younger one, as the cleaner leaves it.
fn start_after_cleaning() {
    let half = 500_000;
    let seqs = (half + 1..=2 * half).chain(1..=half);
    let records = seqs.map(|seq| enqueue(0, 1, 1, seq));
    let batches = batches(records.collect());
    let mut ns = f64::MAX;
    for _ in 0..5 {
        let mut log = Log::new();
        let start = Instant::now();
        for group in batches.chunks(64) {
            log.apply(group);
        }
        ns = ns.min(start.elapsed().as_nanos() as f64 / (2 * half) as f64);
    }
    println!("recovery of a queue of 1,000,000, the older half moved: {ns:.0} ns an entry");
}

struct Log {
    index: Index,
    group: EncodedGroup,
    at: Location,
}

impl Log {
    fn new() -> Self {
        Self {
            index: Index::new(HashKeys([1, 2])),
            group: EncodedGroup::new(),
            at: Location::default(),
        }
    }

    /// Returns a checksum, so that nothing is left out.
    fn encode(&mut self, batches: &[Batch]) -> u32 {
        self.group.clear(1 << 24);
        for batch in batches {
            self.group.push(batch);
        }
        crc32c::crc32c(self.group.bytes())
    }

    fn apply(&mut self, batches: &[Batch]) -> u32 {
        let checksum = self.encode(batches);
        for (offset, len, record) in Records::new(self.group.bytes()).map_while(Result::ok) {
            self.at.offset = u32::try_from(offset).unwrap_or(0);
            self.at.len = u32::try_from(len).unwrap_or(0);
            self.index.apply(self.at, &record);
        }
        self.at.segment += 1;
        checksum
    }

    fn apply_all(&mut self, records: &[Record]) {
        self.apply(&batches(records.to_vec()));
        self.at.segment -= 1;
    }
}

fn per_message(mut work: impl FnMut() -> u32) -> f64 {
    let start = Instant::now();
    std::hint::black_box(work());
    start.elapsed().as_nanos() as f64 / MESSAGES as f64
}

fn batches(records: Vec<Record>) -> Vec<Batch> {
    records
        .chunks(16)
        .map(|records| Batch {
            seq: Seq(1),
            records: records.to_vec(),
            level: Level::Synced,
        })
        .collect()
}

fn put(id: u64) -> Record {
    Record::SessionPut(Box::new(SessionRecord {
        owner: None,
        peer: None,
        session: SessionId(id),
        client_id: "client".into(),
        expiry_seconds: 60,
        disconnected_at: None,
        queue_seq: 0,
        inbound_number: 0,
    }))
}

fn enqueue(first: u64, count: u64, sessions: u64, seq: u64) -> Record {
    let target = |number| Target {
        session: SessionId((first + number) % sessions),
        seq,
        qos: 1,
        retain: false,
        subscription_identifiers: None,
    };
    Record::Enqueue {
        message: MessageRecord {
            topic: Bytes::from_static(b"sensors/17/temperature"),
            properties: Bytes::new(),
            payload: Bytes::from_static(&[b'x'; 64]),
            qos: 1,
            retain: false,
            expiry: None,
        },
        targets: (0..count).map(target).collect(),
        origin: None,
    }
}

const MESSAGES: u64 = 1_024;
const TURNS: usize = 200;
