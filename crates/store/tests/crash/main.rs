//! The log against a disk that loses power, is killed, fails and fills up, and against a simple model.
//!
//! Owns: what must hold after a crash. Does not own: the model (`model`), what is written (`workload`), how the
//! disk fails (`vencejo_store::disk::fault`). Start reading at [`Run::reopen`].
//! Invariant: the model shares no code with the log.
#![allow(clippy::panic, reason = "a test says what it found")]

mod model;
mod workload;

use std::collections::BTreeMap;

use proptest::prelude::*;
use vencejo_store::disk::fault::{FaultDisk, FaultPlan};
use vencejo_store::{EncodedGroup, Level, Load, SessionId, UnixMillis};
use vencejo_store::{Log, LogOptions, OpenError, Recovered};

use model::{Model, ModelSession, Queued};
use workload::{Op, Writer, op};

/// One step of the thread that writes.
#[derive(Clone, Debug)]
enum Step {
    /// Writes these batches as one group, and syncs or not.
    Write { batches: Vec<Vec<Op>>, syncs: bool },
    /// Cleans with this budget, in bytes.
    Clean(u16),
    /// Makes a spare.
    Tick,
}

/// How a run of the log ends.
#[derive(Clone, Copy, Debug)]
struct End {
    /// At which call; beyond the last one: after it.
    at_call: u64,
    /// By a loss of power; else only the process ends.
    is_power: bool,
    /// What is left, and of the call.
    seed: u64,
}

/// A log on a disk, with all that it may be after a crash.
struct Run {
    disk: FaultDisk,
    options: LogOptions,
    messages: u64,
    /// The model after each number of batches since the last start.
    history: Vec<Model>,
    /// How many batches must be there after a loss of power, and after the end of the process alone.
    durable: usize,
    written: usize,
    has_lost_power: bool,
    segments_cleaned: u64,
    next_session: SessionId,
}

impl Run {
    fn new(seed: u64, segment_bytes: u64) -> Self {
        let mut options = LogOptions::with_segments_of(segment_bytes);
        options.disk_low_bytes = 0;
        // Cleans early and much.
        options.clean_segments = 1;
        options.clean_percent = 110;
        Self {
            disk: FaultDisk::new(seed, FaultPlan::default()),
            options,
            messages: 0,
            history: vec![Model::default()],
            durable: 0,
            written: 0,
            has_lost_power: false,
            segments_cleaned: 0,
            next_session: SessionId(1),
        }
    }

    /// Does `steps` until they are done or the disk fails; says whether it failed.
    fn work(&mut self, log: &mut Log<FaultDisk>, steps: &[Step]) -> bool {
        let model = self.history.last().expect("there is a first one").clone();
        let mut writer = Writer::new(model, self.next_session, self.messages);
        let mut group = EncodedGroup::new();
        for step in steps {
            let failed = match step {
                Step::Write { batches, syncs } => {
                    group.clear(usize::MAX);
                    for ops in batches {
                        group.push(&writer.batch(ops, Level::Synced));
                        self.history.push(writer.model.clone());
                    }
                    self.messages = writer.messages();
                    let mut result = log.write(&group).map(drop);
                    if result.is_ok() {
                        self.written = self.history.len() - 1;
                        if *syncs {
                            result = log.sync().map(drop);
                        }
                        if *syncs && result.is_ok() {
                            self.durable = self.written;
                        }
                    }
                    result.is_err()
                }
                Step::Clean(budget) => {
                    let cleaned = log.clean(u64::from(*budget));
                    self.segments_cleaned += cleaned.as_ref().map_or(0, |cleaned| cleaned.segments);
                    cleaned.is_err()
                }
                Step::Tick => log.tick(UnixMillis(0)).is_err(),
            };
            if failed {
                return true;
            }
        }
        false
    }

    /// Runs `steps` on an open log and ends as `end` says, in the middle of a call if it comes to that.
    /// Says whether it came to that.
    fn run_until(&mut self, mut log: Log<FaultDisk>, steps: &[Step], end: End) -> bool {
        let stop_at_call = Some(end.at_call);
        self.disk.set_plan(FaultPlan {
            stop_at_call,
            ..FaultPlan::default()
        });
        let failed = self.work(&mut log, steps);
        // If the last call was for a hint, nobody has noticed.
        let has_stopped = self.disk.is_stopped();
        assert!(has_stopped || !failed, "nothing else fails");
        drop(log);
        self.end(end);
        has_stopped
    }

    /// The machine or the process ends now.
    fn end(&mut self, end: End) {
        self.has_lost_power |= end.is_power;
        self.disk = if end.is_power {
            self.disk.crash(end.seed)
        } else {
            self.disk.kill()
        };
    }

    /// Opens the log, which ends at some calls of that if `ends` says so, and checks what is found: one of
    /// the models that may be, and nothing that looks like damage.
    fn reopen(&mut self, ends: &[End]) -> Log<FaultDisk> {
        for end in ends {
            let stop_at_call = Some(end.at_call);
            self.disk.set_plan(FaultPlan {
                stop_at_call,
                ..FaultPlan::default()
            });
            let opened = Log::open(self.disk.clone(), self.options.clone());
            if opened.is_err() {
                assert!(self.disk.is_stopped(), "{:?}", opened.err());
                self.end(*end);
            }
        }
        self.disk.set_plan(FaultPlan::default());
        let (log, recovered) = self.open().expect("a log always opens");
        assert_eq!(recovered.report.damage, [], "a crash is not damage");
        let found = found(&log, &recovered);
        let needed = if self.has_lost_power {
            self.durable
        } else {
            self.written
        };
        let allowed = self.history.iter().enumerate().skip(needed).rev();
        let matching = allowed
            .map(|(at, model)| (at, model.recovered()))
            .find(|(_, model)| *model == found);
        let Some((_, model)) = matching else {
            self.explain(&found);
        };
        self.next_session = recovered.next_session;
        let highest = model.sessions.keys().next_back();
        assert!(highest.is_none_or(|highest| *highest < self.next_session));
        // What a start has told is durable: the broker answers Clients by it.
        self.history = vec![model];
        self.durable = 0;
        self.written = 0;
        self.has_lost_power = false;
        log
    }

    fn open(&self) -> Result<(Log<FaultDisk>, Recovered), OpenError> {
        Log::open(self.disk.clone(), self.options.clone())
    }

    /// Fails with the nearest thing to what was found.
    fn explain(&self, found: &Model) -> ! {
        let models: Vec<_> = self.history.iter().map(Model::recovered).collect();
        if let Some(at) = models.iter().position(|model| model == found) {
            let (durable, written) = (self.durable, self.written);
            panic!(
                "only {at} batches are there: {durable} are durable, {written} are written, of {}, \
                 power lost: {}",
                models.len() - 1,
                self.has_lost_power
            );
        }
        let sessions = |model: &Model| model.sessions.keys().copied().collect::<Vec<_>>();
        let nearest = models
            .iter()
            .enumerate()
            .max_by_key(|(_, model)| {
                let equal =
                    |(id, of): &(&SessionId, &ModelSession)| found.sessions.get(id) == Some(of);
                let sessions = model.sessions.iter().filter(equal).count();
                sessions * 2 + usize::from(model.retained == found.retained)
            })
            .expect("there is a first one");
        let differing = found
            .sessions
            .iter()
            .filter(|(id, of)| nearest.1.sessions.get(id) != Some(of));
        let differing: Vec<_> = differing
            .map(|(id, of)| (of, nearest.1.sessions.get(id)))
            .collect();
        panic!(
            "no prefix of the batches gives this. Nearest: {} of {} ({} durable). Sessions {:?} and {:?}, \
             retained equal: {}, differing (found, expected): {differing:#?}",
            nearest.0,
            models.len() - 1,
            self.durable,
            sessions(found),
            sessions(nearest.1),
            nearest.1.retained == found.retained,
        );
    }
}

/// What a start has found, with every queue loaded.
fn found(log: &Log<FaultDisk>, recovered: &Recovered) -> Model {
    let reader = log.reader();
    let mut model = Model::default();
    for restored in &recovered.sessions {
        let session = restored.session.session;
        let mut queue = BTreeMap::new();
        if let Some(extent) = restored.queue {
            let loaded = reader
                .load(Load {
                    session,
                    from_seq: 0,
                    messages_max: usize::MAX,
                    bytes_max: usize::MAX,
                })
                .expect("the disk can be read");
            let seqs: Vec<u64> = loaded
                .messages
                .iter()
                .map(|found| found.target.seq)
                .collect();
            assert!(seqs.is_sorted(), "in order");
            assert_eq!(seqs.len() as u64, extent.count);
            assert_eq!(seqs.first(), Some(&extent.first_seq));
            assert_eq!(seqs.last(), Some(&extent.last_seq));
            for found in loaded.messages {
                let (target, message) = (found.target, found.message);
                let origin = None;
                let seq = target.seq;
                queue.insert(
                    seq,
                    Queued {
                        target,
                        message,
                        origin,
                    },
                );
            }
        }
        let subscriptions = restored.subscriptions.iter();
        let of = ModelSession {
            record: restored.session.clone(),
            subscriptions: subscriptions
                .map(|of| (of.filter.to_string(), of.clone()))
                .collect(),
            queue,
            released: restored.released.iter().copied().collect(),
            inbound: restored.inbound.iter().copied().collect(),
            will: restored.will.clone(),
        };
        assert!(model.sessions.insert(session, of).is_none(), "once");
    }
    for message in &recovered.retained {
        let before = model
            .retained
            .insert(message.topic.clone(), message.clone());
        assert!(before.is_none(), "once");
    }
    model
}

fn step() -> impl Strategy<Value = Step> {
    let batch = || prop::collection::vec(op(), 0..5);
    prop_oneof![
        8 => (prop::collection::vec(batch(), 1..4), any::<bool>())
            .prop_map(|(batches, syncs)| Step::Write { batches, syncs }),
        2 => (0..20_000_u16).prop_map(Step::Clean),
        1 => Just(Step::Tick),
    ]
}

fn end() -> impl Strategy<Value = End> {
    let at_call = prop_oneof![3 => 1..12_u64, 3 => 1..80_u64, 1 => Just(u64::MAX)];
    (at_call, any::<bool>(), any::<u64>()).prop_map(|(at_call, is_power, seed)| End {
        at_call,
        is_power,
        seed,
    })
}

/// What one life of the log does, how it ends, and how the starts after it end that do not succeed.
fn life() -> impl Strategy<Value = (Vec<Step>, End, Vec<End>)> {
    (
        prop::collection::vec(step(), 0..25),
        end(),
        prop::collection::vec(end(), 0..3),
    )
}

proptest! {
    /// Acknowledged is there, what is there was appended, in order, as a prefix; over several lives, with
    /// crashes in the middle of calls and of starts.
    #[test]
    fn after_every_crash_a_prefix_with_all_that_was_acknowledged_is_there(
        lives in prop::collection::vec(life(), 1..5),
        large in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let mut run = Run::new(seed, if large { 1 << 16 } else { 1 << 12 });
        let mut log = run.reopen(&[]);
        for (steps, end, ends) in &lives {
            run.run_until(log, steps, *end);
            log = run.reopen(ends);
        }
    }
}

/// Work that begins segments, cleans, and has batches that were synced and such that were not.
fn fixed_steps() -> Vec<Step> {
    let write = |batches: Vec<Vec<Op>>, syncs| Step::Write { batches, syncs };
    let enqueue = |size| Op::Enqueue { sessions: 3, size };
    let new_session = || Op::NewSession {
        ends_with_connection: false,
    };
    let mut steps = vec![
        write(vec![vec![new_session()], vec![new_session()]], true),
        write(vec![vec![Op::Subscribe(0, 1), Op::Retain(1, 300)]], false),
    ];
    for round in 0..8 {
        steps.push(write(
            vec![vec![enqueue(900)], vec![enqueue(700)]],
            round % 2 == 0,
        ));
        let dequeue = |session| Op::Dequeue { session, count: 2 };
        let origin = Op::EnqueueOfOrigin {
            publisher: 0,
            sessions: 2,
            size: 30,
        };
        steps.push(write(
            vec![vec![dequeue(0), origin], vec![dequeue(1)]],
            round == 5,
        ));
        steps.push(Step::Clean(8000));
        if round % 3 == 2 {
            steps.push(Step::Tick);
            steps.push(write(vec![vec![Op::Commit(0), Op::Release(1)]], true));
        }
    }
    steps
}

/// The same as above, with nothing left to chance but what a crash leaves.
#[test]
fn a_crash_at_each_call_of_a_fixed_work_is_survived() {
    let mut at_call = 1;
    let segments_cleaned = loop {
        let mut has_stopped = false;
        let mut segments_cleaned = 0;
        for seed in 0..4 {
            let mut run = Run::new(seed, 1 << 12);
            let log = run.reopen(&[]);
            let is_power = seed > 0;
            let end = End {
                at_call,
                is_power,
                seed,
            };
            has_stopped |= run.run_until(log, &fixed_steps(), end);
            segments_cleaned += run.segments_cleaned;
            let again = End {
                at_call: at_call % 30 + 1,
                is_power,
                seed: seed + 100,
            };
            let log = run.reopen(&[again]);
            drop(log);
        }
        if !has_stopped {
            break segments_cleaned;
        }
        at_call += 1;
    };
    assert!(at_call > 100, "only {at_call} calls");
    assert!(segments_cleaned > 0, "nothing was cleaned");
}
