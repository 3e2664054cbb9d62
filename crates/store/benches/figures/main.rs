//! The log against the bare disk: the figures it has to reach, as ratios taken in one run.
//!
//! Owns: the rows that need only the log. Does not own: the rows that need the server (see `killtest/src/bin/figures`).
//! Start reading at [`main`]. Invariants: what is compared is measured in turn, round by round, and the
//! median of the rounds counts; nothing is printed that was not measured in this run.
//!
//! `cargo bench -p vencejo-store --bench figures` takes about two minutes and 2 GB in the folder of
//! `FIGURES_DIR` or, if that is not set, `target/figures`; with `-- --big` the restart has 1,000,000
//! Sessions, 1,000,000 retained messages and 10,000,000 queued ones (about 3 GB, 5 minutes); with `-- --ends`
//! nothing is measured but starts of a small log with a spoilt end.
#![allow(clippy::unwrap_used, reason = "a bench has nobody to report to")]
#![allow(clippy::disallowed_methods, reason = "a bench measures time")]

mod starts;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use vencejo_store::disk::{Disk, DiskFile, RealDisk};
use vencejo_store::{
    Batch, EncodedGroup, Level, Log, LogOptions, MessageRecord, Record, Seq, SessionId,
    SessionRecord, Target,
};

/// That of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    let is_big = std::env::args().any(|argument| argument == "--big");
    let folder = std::env::var_os("FIGURES_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/figures"),
        PathBuf::from,
    );
    if std::env::args().any(|argument| argument == "--ends") {
        starts::ends(&folder);
        fs::remove_dir_all(&folder).unwrap();
        return;
    }
    let mut arguments = std::env::args().skip_while(|argument| argument != "--entry-bytes");
    if let Some(targets) = arguments.nth(1) {
        let folder = folder.with_extension("entries");
        println!("{}", entry_bytes(&folder, targets.parse().unwrap()));
        fs::remove_dir_all(&folder).unwrap();
        return;
    }
    println!("row  what                                                       measured     gate");
    if !is_big {
        commits(&folder);
        costs(&folder);
        amplification(&folder);
        fan_out(&folder);
        single(&folder);
        cleaning(&folder);
        turnover(&folder);
        entry_sizes();
    }
    starts::ends(&folder);
    starts::restart(&folder, is_big);
    fs::remove_dir_all(&folder).unwrap();
}

fn row(number: u32, what: &str, measured: f64, is_at_least: bool, gate: f64) {
    let is_met = if is_at_least {
        measured >= gate
    } else {
        measured <= gate
    };
    let sign = if is_at_least { ">=" } else { "<=" };
    let verdict = if is_met { "" } else { "  MISSED" };
    println!("{number:>3}  {what:<56} {measured:>10.3}  {sign} {gate}{verdict}");
}

/// Row 1: MB/s of group commits against pwrite and fdatasync of as many bytes.
fn commits(folder: &Path) {
    for (targets, name) in [(1, "k=1"), (10, "k=10")] {
        let mut bed = Bed::new(folder, LogOptions::default());
        let mut raw = Raw::new(folder);
        let mut ratios = Vec::new();
        for _ in 0..ROUNDS {
            let (mut of_log, mut of_raw) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..PER_ROUND {
                let group = bed.group(1024, targets, 64);
                let len = group.bytes().len() + 48;
                of_log += timed(|| bed.commit(&group));
                of_raw += timed(|| raw.commit(len));
            }
            ratios.push(of_raw.as_secs_f64() / of_log.as_secs_f64());
        }
        let what = format!("group commit, rate against the bare disk, {name}");
        row(1, &what, median(ratios), true, 0.70);
    }
}

/// Row 2: CPU of a commit as a multiple of encoding and checksum alone.
fn costs(folder: &Path) {
    for (targets, gate) in [(1, 10.0), (10, 13.0)] {
        let mut bed = Bed::new(folder, LogOptions::default());
        let mut ratios = Vec::new();
        for _ in 0..ROUNDS {
            let (mut of_log, mut of_null) = (0, 0);
            for _ in 0..PER_ROUND {
                let batches = bed.batches(1024, targets, 64);
                let mut group = EncodedGroup::new();
                of_null += on_cpu(|| {
                    for batch in &batches {
                        group.push(batch);
                    }
                    std::hint::black_box(crc32c::crc32c(group.bytes()));
                });
                group.clear(usize::MAX);
                of_log += on_cpu(|| {
                    for batch in &batches {
                        group.push(batch);
                    }
                    bed.commit(&group);
                });
            }
            ratios.push(of_log as f64 / of_null as f64);
        }
        let what = format!("CPU of a commit / of encoding and CRC, k={targets}, groups of 1,024");
        row(2, &what, median(ratios), false, gate);
    }
}

/// Row 3: bytes handed to the disk for each byte of message, 16 bytes counted for each queue entry.
fn amplification(folder: &Path) {
    for (payload, gate) in [(64, 1.6), (1024, 1.1)] {
        let mut bed = Bed::new(folder, LogOptions::default());
        let before = bytes_written();
        let mut accepted = 0;
        for _ in 0..200 {
            let group = bed.group(64, 1, payload);
            accepted += 64 * (TOPIC_BYTES + payload + 16) as u64;
            bed.commit(&group);
        }
        let measured = (bytes_written() - before) as f64 / accepted as f64;
        let what = format!("write amplification, groups of 64, {payload} B");
        row(3, &what, measured, false, gate);
    }
    // A third of what is written stays, so that cleaning has something to move.
    let mut bed = Bed::new(folder, LogOptions::with_segments_of(4 << 20));
    bed.keeps_every = 3;
    let (mut before, mut accepted) = (0, 0);
    for turn in 0..1500 {
        if turn == 500 {
            (before, accepted) = (bytes_written(), 0);
        }
        let group = bed.group(256, 1, 256);
        accepted += group.bytes().len() as u64;
        bed.commit(&group);
        bed.drop_kept(40_000);
    }
    let measured = (bytes_written() - before) as f64 / accepted as f64;
    row(
        3,
        "write amplification, steady state with cleaning",
        measured,
        false,
        2.0,
    );
}

/// Row 5: messages a second with ten targets against one.
fn fan_out(folder: &Path) {
    let mut beds = [1, 10].map(|_| Bed::new(folder, LogOptions::default()));
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let mut took = [Duration::ZERO; 2];
        for _ in 0..PER_ROUND {
            for (place, targets) in [(0, 1), (1, 10)] {
                let batches = beds[place].batches(1024, targets, 64);
                took[place] += timed(|| {
                    let mut group = EncodedGroup::new();
                    for batch in &batches {
                        group.push(batch);
                    }
                    beds[place].commit(&group);
                });
            }
        }
        ratios.push(took[0].as_secs_f64() / took[1].as_secs_f64());
    }
    row(
        5,
        "durable rate, k=10 / k=1, 64 B, groups of 1,024",
        median(ratios),
        true,
        0.60,
    );
}

/// Row 7: one message at a time against one 4 KiB fdatasync at a time.
fn single(folder: &Path) {
    let mut bed = Bed::new(folder, LogOptions::default());
    let mut raw = Raw::new(folder);
    let mut ratios = Vec::new();
    for _ in 0..ROUNDS {
        let (mut of_log, mut of_raw) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..4 * PER_ROUND {
            let group = bed.group(1, 1, 64);
            of_log += timed(|| bed.commit(&group));
            of_raw += timed(|| raw.commit(4096));
        }
        ratios.push(of_raw.as_secs_f64() / of_log.as_secs_f64());
    }
    row(
        7,
        "one message at a time / 4 KiB fdatasync, rate",
        median(ratios),
        true,
        0.80,
    );
}

/// Row 8: p99 of a commit while the log is cleaned against one that has nothing to clean.
fn cleaning(folder: &Path) {
    // Segments of one size: to begin one costs more than a commit, with and without cleaning.
    let options = LogOptions::with_segments_of(4 << 20);
    let mut quiet = Bed::new(folder, options.clone());
    let mut busy = Bed::new(folder, options);
    busy.keeps_every = 3;
    for _ in 0..300 {
        let group = busy.group(256, 1, 256);
        busy.commit(&group);
        busy.drop_kept(30_000);
    }
    let (mut of_quiet, mut of_busy, mut moved) = (Vec::new(), Vec::new(), 0);
    for _ in 0..600 {
        let group = quiet.group(256, 1, 256);
        of_quiet.push(timed(|| quiet.commit(&group)));
        let group = busy.group(256, 1, 256);
        of_busy.push(timed(|| busy.commit(&group)));
        moved += busy.moved;
        busy.drop_kept(30_000);
    }
    assert!(moved > 0, "nothing was cleaned");
    let ratio = p99(of_busy).as_secs_f64() / p99(of_quiet).as_secs_f64();
    row(
        8,
        "p99 of a commit, while cleaning / not",
        ratio,
        false,
        1.5,
    );
}

/// Row 9: the folder over ten turnovers of a backlog, and when it is empty.
fn turnover(folder: &Path) {
    let options = LogOptions::with_segments_of(8 << 20);
    let segment = options.segment_bytes as f64;
    let mut bed = Bed::new(folder, options);
    bed.keeps_every = 1;
    let mut worst: f64 = 0.0;
    for turn in 0..10 * BACKLOG_GROUPS {
        let group = bed.group(512, 1, 256);
        bed.commit(&group);
        bed.drop_kept(BACKLOG_GROUPS * 512);
        if turn > BACKLOG_GROUPS {
            let status = bed.log.status();
            worst = worst
                .max((bed.disk_bytes() as f64 - 4.0 * segment) / status.live_bytes.max(1) as f64);
        }
    }
    row(
        9,
        "(disk - 4 segments) / live, ten turnovers",
        worst,
        false,
        2.5,
    );
    bed.drop_kept(0);
    let group = bed.group(0, 1, 64);
    bed.commit(&group);
    // As the persist thread does it every second while there is nothing else to do.
    for _ in 0..60 {
        bed.log.clean(1 << 20).unwrap();
        bed.log.sync().unwrap();
    }
    let segments = bed.log.status().segments as f64;
    row(
        9,
        "segments once the backlog is empty",
        segments,
        false,
        4.0,
    );
}

/// Row 11: each in a process of its own, whose memory holds nothing else.
fn entry_sizes() {
    for (targets, gate) in [(1_u32, 40.0), (4, 16.0)] {
        let program = std::env::current_exe().unwrap();
        let output = std::process::Command::new(program)
            .args(["--entry-bytes", &targets.to_string()])
            .output()
            .unwrap();
        let measured = String::from_utf8(output.stdout).unwrap();
        let what = format!("resident bytes of a queue entry in the index, k={targets}");
        row(11, &what, measured.trim().parse().unwrap(), false, gate);
    }
}

/// Resident bytes that a million queue entries add, each.
fn entry_bytes(folder: &Path, targets: u64) -> f64 {
    let mut bed = Bed::new(folder, LogOptions::default());
    bed.keeps_every = 1;
    let group = bed.group(1000, targets, 64);
    bed.commit(&group);
    let (before, counted) = (resident(), bed.log.status().counts.entries);
    for _ in 0..1000 / targets {
        let group = bed.group(1000, targets, 64);
        bed.commit(&group);
        bed.kept.clear();
    }
    (resident() - before) as f64 / (bed.log.status().counts.entries - counted) as f64
}

/// A log in a folder of its own, and what is in its queues.
struct Bed {
    log: Log<RealDisk>,
    disk: RealDisk,
    path: PathBuf,
    next_seq: u64,
    /// Messages, by number, that are not taken back yet.
    open: std::collections::VecDeque<(u64, u64)>,
    kept: std::collections::VecDeque<(u64, u64)>,
    /// One message in so many stays until [`Self::drop_kept`]; 0 for none.
    keeps_every: u64,
    dropped: Vec<Record>,
    moved: u64,
}

impl Bed {
    fn new(folder: &Path, options: LogOptions) -> Self {
        static NUMBER: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = folder.join(number.to_string());
        fs::create_dir_all(&path).unwrap();
        let disk = RealDisk::open(&path).unwrap();
        let (log, _) = Log::open(disk.clone(), options).unwrap();
        let mut bed = Self {
            log,
            disk,
            path,
            next_seq: 0,
            open: std::collections::VecDeque::new(),
            kept: std::collections::VecDeque::new(),
            keeps_every: 0,
            dropped: Vec::new(),
            moved: 0,
        };
        let mut group = EncodedGroup::new();
        for session in 1..=QUEUES {
            group.push(&batch(vec![session_record(session)]));
        }
        bed.commit(&group);
        bed
    }

    /// `messages` messages, and the acknowledgements of as many before them.
    fn batches(&mut self, messages: u64, targets: u64, payload: usize) -> Vec<Batch> {
        let mut batches = Vec::new();
        while self.open.len() as u64 > 2048 {
            let (seq, targets) = self.open.pop_front().unwrap();
            self.dropped.extend(dequeues(seq, targets));
        }
        if !self.dropped.is_empty() {
            batches.push(batch(std::mem::take(&mut self.dropped)));
        }
        for _ in 0..messages {
            self.next_seq += 1;
            let seq = self.next_seq;
            let first = seq % QUEUES;
            let targets_of = (0..targets).map(|place| target(1 + (first + place) % QUEUES, seq));
            batches.push(batch(vec![Record::Enqueue {
                message: message(TOPIC, payload),
                targets: targets_of.collect(),
                origin: None,
            }]));
            if self.keeps_every > 0 && seq.is_multiple_of(self.keeps_every) {
                self.kept.push_back((seq, targets));
            } else {
                self.open.push_back((seq, targets));
            }
        }
        batches
    }

    fn group(&mut self, messages: u64, targets: u64, payload: usize) -> EncodedGroup {
        let mut group = EncodedGroup::new();
        for batch in self.batches(messages, targets, payload) {
            group.push(&batch);
        }
        group
    }

    /// As the persist thread does it.
    fn commit(&mut self, group: &EncodedGroup) {
        self.log.write(group).unwrap();
        let budget = self.log.clean_budget();
        self.moved = self.log.clean(budget).unwrap().moved_bytes;
        self.log.sync().unwrap();
    }

    /// Takes the oldest kept messages back until `most` are left.
    fn drop_kept(&mut self, most: u64) {
        while self.kept.len() as u64 > most {
            let (seq, targets) = self.kept.pop_front().unwrap();
            self.dropped.extend(dequeues(seq, targets));
        }
        if most == 0 {
            while let Some((seq, targets)) = self.open.pop_front() {
                self.dropped.extend(dequeues(seq, targets));
            }
        }
    }

    fn disk_bytes(&self) -> u64 {
        files(&self.path.join("log"))
            .iter()
            .map(|(_, len)| len)
            .sum()
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.disk.remove("raw").unwrap();
    }
}

/// The bare disk: one file, written from front to back again and again.
struct Raw {
    disk: RealDisk,
    file: <RealDisk as Disk>::File,
    at: u64,
    bytes: Vec<u8>,
}

impl Raw {
    fn new(folder: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        let disk = RealDisk::open(folder).unwrap();
        let file = disk.create("raw").unwrap();
        file.allocate(RAW_BYTES).unwrap();
        Self {
            disk,
            file,
            at: 0,
            bytes: vec![7; 8 << 20],
        }
    }

    fn commit(&mut self, len: usize) {
        if self.at + len as u64 > RAW_BYTES {
            self.at = 0;
        }
        self.file.write_at(&self.bytes[..len], self.at).unwrap();
        self.file.sync().unwrap();
        self.at += len as u64;
    }
}

fn batch(records: Vec<Record>) -> Batch {
    Batch {
        seq: Seq(0),
        records,
        level: Level::Synced,
    }
}

fn dequeues(seq: u64, targets: u64) -> impl Iterator<Item = Record> {
    let first = seq % QUEUES;
    (0..targets).map(move |place| Record::Dequeue {
        session: SessionId(1 + (first + place) % QUEUES),
        first_seq: seq,
        count: 1,
    })
}

fn session_record(session: u64) -> Record {
    Record::SessionPut(Box::new(SessionRecord {
        owner: None,
        peer: None,
        session: SessionId(session),
        client_id: format!("client-{session:08}").into(),
        expiry_seconds: 3600,
        disconnected_at: None,
        queue_seq: 0,
        inbound_number: 0,
    }))
}

fn target(session: u64, seq: u64) -> Target {
    Target {
        session: SessionId(session),
        seq,
        qos: 1,
        retain: false,
        subscription_identifiers: None,
    }
}

fn message(topic: &str, payload: usize) -> MessageRecord {
    MessageRecord {
        topic: Bytes::copy_from_slice(topic.as_bytes()),
        properties: Bytes::new(),
        payload: Bytes::from(vec![b'x'; payload]),
        qos: 1,
        retain: false,
        expiry: None,
    }
}

fn timed(act: impl FnOnce()) -> Duration {
    let started = Instant::now();
    act();
    started.elapsed()
}

/// Nanoseconds this thread was on a CPU.
fn on_cpu(act: impl FnOnce()) -> u64 {
    let read = || {
        let at = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        u64::try_from(at.tv_sec * 1_000_000_000 + at.tv_nsec).unwrap()
    };
    let before = read();
    act();
    read() - before
}

/// Bytes this process has caused to be written.
fn bytes_written() -> u64 {
    let text = fs::read_to_string("/proc/self/io").unwrap();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("write_bytes: "));
    line.unwrap().parse().unwrap()
}

fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap();
    text.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| (entry.path(), entry.metadata().unwrap().len()))
        .collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn p99(mut values: Vec<Duration>) -> Duration {
    values.sort_unstable();
    values[values.len() * 99 / 100]
}

const TOPIC: &str = "site/17/device/4711/temperature";
const TOPIC_BYTES: usize = TOPIC.len();
/// Sessions that get messages.
const QUEUES: u64 = 1000;
const ROUNDS: usize = 5;
const PER_ROUND: usize = 40;
const RAW_BYTES: u64 = 64 << 20;
/// Groups of 512 messages in the backlog that is turned over.
const BACKLOG_GROUPS: u64 = 300;
