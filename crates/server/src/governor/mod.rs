//! The memory of the process: what all shards hold, how much it may be, and what is done about it.
//!
//! Owns: [`Governor`]: the sums of the shards, the budget, the step that is in force, what `$SYS` says of them.
//! Does not own: what is counted (see `shard::governed`, `engine::Memory`), how a step is carried out (see
//! `shard::governed`). Start reading at [`Governor::publish`].
//! Invariants: a shard writes its own sums only, once in a turn, and waits for nobody; one shard at a time takes a sample,
//! the others go on with what the last one has found.

mod budget;
mod machine;

use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

pub(crate) use budget::Budget;
pub(crate) use machine::Step;

use machine::Machine;

/// What bytes are held for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Connections: their places, what TLS and WebSocket keep of each.
    Connections,
    /// The beginnings of packets whose rest is not here yet, and what waits behind one that waits.
    Input,
    /// What was not sent yet.
    Unsent,
    /// Records of Sessions.
    Sessions,
    /// Wills.
    Wills,
    /// Subscriptions.
    Subscriptions,
    /// Retained messages and their index.
    Retained,
    /// All other messages, each once.
    Messages,
    /// Places in queues.
    Queues,
    /// What is on its way to other shards, without the messages.
    Rings,
    /// What is to be written to the log.
    Log,
}

impl Kind {
    pub(crate) const ALL: [Self; 11] = [
        Self::Connections,
        Self::Input,
        Self::Unsent,
        Self::Sessions,
        Self::Wills,
        Self::Subscriptions,
        Self::Retained,
        Self::Messages,
        Self::Queues,
        Self::Rings,
        Self::Log,
    ];

    const fn topic(self) -> &'static str {
        match self {
            Self::Connections => "memory/connections",
            Self::Input => "memory/input",
            Self::Unsent => "memory/unsent",
            Self::Sessions => "memory/sessions",
            Self::Wills => "memory/wills",
            Self::Subscriptions => "memory/subscriptions",
            Self::Retained => "memory/retained",
            Self::Messages => "memory/messages",
            Self::Queues => "memory/queues",
            Self::Rings => "memory/rings",
            Self::Log => "memory/log",
        }
    }
}

/// Bytes by [`Kind`], in its order; those of messages may be below zero in one shard, see `proto::live_message_bytes`.
pub(crate) type Sums = [i64; Kind::ALL.len()];

/// What one shard holds. A cache line of its own, so that shards do not disturb one another.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Slot {
    sums: [AtomicI64; Kind::ALL.len()],
    total: AtomicI64,
    /// What its loudest publisher has said since the last sample.
    loudest: AtomicU64,
    /// What its slowest reader holds.
    slowest: AtomicU64,
}

/// What all shards see.
#[derive(Debug)]
pub(crate) struct Governor {
    budget: Mutex<Budget>,
    slots: Box<[Slot]>,
    machine: Mutex<Machine>,
    started_at: Instant,
    sampled_at_ms: AtomicU64,
    /// With so much a sample is taken at once.
    next_mark: AtomicU64,
    /// The program itself; 0 until it was measured.
    base: AtomicU64,
    /// Of the budget, what may be held for those that have not logged in.
    unproven_max: AtomicU64,
    step: AtomicU8,
    allowance: AtomicU64,
    /// Connections that may still come in.
    entries: AtomicU64,
    /// Counts samples.
    window: AtomicU32,
    /// How often each step was taken.
    taken: [AtomicU64; Step::ALL.len()],
}

impl Governor {
    pub(crate) fn new(budget: Budget, shard_count: u16, now: Instant) -> Self {
        Self {
            machine: Mutex::new(Machine::new(budget.bytes)),
            budget: Mutex::new(budget),
            slots: (0..shard_count).map(|_| Slot::default()).collect(),
            started_at: now,
            sampled_at_ms: AtomicU64::new(0),
            next_mark: AtomicU64::new(Machine::new(budget.bytes).next_mark()),
            base: AtomicU64::new(0),
            unproven_max: AtomicU64::new(budget.bytes / UNPROVEN_PART),
            step: AtomicU8::new(0),
            allowance: AtomicU64::new(u64::MAX),
            entries: AtomicU64::new(u64::MAX),
            window: AtomicU32::new(0),
            taken: Default::default(),
        }
    }

    /// Says how much there may be.
    pub(crate) fn log(&self) {
        let budget = self.budget();
        tracing::info!(bytes = budget.bytes, reason = %budget.source(), "memory budget");
    }

    fn budget(&self) -> Budget {
        *self.budget.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There may be so much from now on; what is done about it is found at the next sample.
    pub(crate) fn set_budget(&self, budget: Budget) {
        let current = self.budget.lock();
        let before = std::mem::replace(
            &mut *current.unwrap_or_else(PoisonError::into_inner),
            budget,
        );
        if before == budget {
            return;
        }
        let machine = self.machine.lock();
        let mut machine = machine.unwrap_or_else(PoisonError::into_inner);
        machine.set_budget(budget.bytes);
        self.next_mark.store(machine.next_mark(), Ordering::Relaxed);
        drop(machine);
        let unproven_max = budget.bytes / UNPROVEN_PART;
        self.unproven_max.store(unproven_max, Ordering::Relaxed);
        self.log();
    }

    /// The process has `resident` bytes: what is not held for peers is the program itself, or was freed and is kept by the
    /// allocator. The least there ever was of it is the program.
    pub(crate) fn on_resident(&self, resident: u64) {
        // A budget that the program alone exhausts would let nobody in.
        let found = resident
            .saturating_sub(self.counted())
            .min(self.budget().bytes / 2);
        let base = match self.base.load(Ordering::Relaxed) {
            0 => found,
            before => before.min(found),
        };
        self.base.store(base, Ordering::Relaxed);
    }

    /// What a shard holds at the end of a turn, and what its loudest publisher has said in this window. Takes a sample if
    /// it is time for one.
    pub(crate) fn publish(&self, shard: usize, sums: &Sums, loudest: u64, now: Instant) {
        let Some(slot) = self.slots.get(shard) else {
            return;
        };
        for (shared, own) in slot.sums.iter().zip(sums) {
            shared.store(*own, Ordering::Relaxed);
        }
        slot.total.store(sums.iter().sum(), Ordering::Relaxed);
        slot.loudest.store(loudest, Ordering::Relaxed);
        let now_ms = now.saturating_duration_since(self.started_at).as_millis();
        let now_ms = u64::try_from(now_ms).unwrap_or(u64::MAX);
        let before = self.sampled_at_ms.load(Ordering::Relaxed);
        let is_due = now_ms >= before.saturating_add(WINDOW_MS);
        // What comes in at full speed is more than a step in a window.
        if is_due || self.used() >= self.next_mark.load(Ordering::Relaxed) {
            self.sample(now_ms, now);
        }
    }

    fn sample(&self, now_ms: u64, now: Instant) {
        // Who takes a sample is not waited for.
        let mut machine = match self.machine.try_lock() {
            Ok(machine) => machine,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        let loudest = self.slots.iter();
        let loudest = loudest
            .map(|slot| slot.loudest.load(Ordering::Relaxed))
            .max();
        let used = self.used();
        let before = machine.step();
        machine.on_sample(used, loudest.unwrap_or(0), now);
        let step = machine.step();
        self.step.store(step.number(), Ordering::Relaxed);
        self.next_mark.store(machine.next_mark(), Ordering::Relaxed);
        self.allowance.store(machine.allowance(), Ordering::Relaxed);
        if let Some(entries) = machine.entries() {
            self.entries.store(entries, Ordering::Relaxed);
        }
        self.window.fetch_add(1, Ordering::Relaxed);
        self.sampled_at_ms.store(now_ms, Ordering::Relaxed);
        self.tell(before, step, used);
    }

    /// Counts and logs what has changed.
    fn tell(&self, before: Step, after: Step, used: u64) {
        for (step, count) in Step::ALL.into_iter().zip(&self.taken) {
            if step > before && step <= after {
                count.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(bytes = used, reason = sentence(step), "memory runs low");
            }
        }
        if after < before {
            let reason = sentence(before);
            tracing::info!(bytes = used, reason, "memory has room, no more of this");
        }
    }

    /// What all shards hold.
    fn counted(&self) -> u64 {
        let totals = self.slots.iter();
        let total: i64 = totals.map(|slot| slot.total.load(Ordering::Relaxed)).sum();
        u64::try_from(total).unwrap_or(0)
    }

    fn used(&self) -> u64 {
        self.counted() + self.base.load(Ordering::Relaxed)
    }

    /// The step in force.
    pub(crate) fn step(&self) -> Step {
        Step::from_number(self.step.load(Ordering::Relaxed))
    }

    /// Whether a connection may come in, of those for whom nothing is kept. It counts as one.
    pub(crate) fn let_in(&self) -> bool {
        let one_less = |entries: u64| entries.checked_sub(1);
        let entries = &self.entries;
        let taken = entries.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        taken.is_ok()
    }

    /// What a publisher may say in a window, see `Machine::allowance`.
    pub(crate) fn allowance(&self) -> u64 {
        self.allowance.load(Ordering::Relaxed)
    }

    /// How many bytes the budget has for those that have not logged in.
    pub(crate) fn unproven_max(&self) -> u64 {
        self.unproven_max.load(Ordering::Relaxed)
    }

    /// The number of the window.
    pub(crate) fn window(&self) -> u32 {
        self.window.load(Ordering::Relaxed)
    }

    /// Whether the slowest reader of this shard, which holds `bytes`, is the slowest of all.
    pub(crate) fn is_slowest(&self, shard: usize, bytes: u64) -> bool {
        if let Some(slot) = self.slots.get(shard) {
            slot.slowest.store(bytes, Ordering::Relaxed);
        }
        let slowest = self.slots.iter();
        let slowest = slowest
            .map(|slot| slot.slowest.load(Ordering::Relaxed))
            .max();
        slowest.is_none_or(|slowest| bytes >= slowest)
    }

    /// What `$SYS/broker/` says.
    pub(crate) fn topics(&self) -> Vec<(&'static str, String)> {
        let bytes = |kind: usize| {
            let all = self.slots.iter().filter_map(|slot| slot.sums.get(kind));
            all.map(|sum| sum.load(Ordering::Relaxed))
                .sum::<i64>()
                .max(0)
        };
        let kinds = Kind::ALL.into_iter().enumerate();
        let mut topics: Vec<_> = kinds
            .map(|(number, kind)| (kind.topic(), bytes(number).to_string()))
            .collect();
        let base = self.base.load(Ordering::Relaxed);
        topics.push(("memory/program", base.to_string()));
        topics.push(("memory/total", self.used().to_string()));
        topics.push(("memory/budget", self.budget().bytes.to_string()));
        topics.push(("memory/step", self.step().name().to_owned()));
        for (step, count) in TAKEN_TOPICS.into_iter().zip(&self.taken) {
            topics.push((step, count.load(Ordering::Relaxed).to_string()));
        }
        topics
    }
}

/// What is done in this step, for the log.
const fn sentence(step: Step) -> &'static str {
    match step {
        Step::Calm => "nothing",
        Step::Throttle => "the loudest publishers are read less",
        Step::Refuse => {
            "new connections are refused while memory grows, those of known sessions last"
        }
        Step::Shed => "less is kept for slow readers, QoS 0 beyond that is dropped",
        Step::Spill => "queues go to the disk, and nothing new is kept in memory",
        Step::Disconnect => "the slowest readers are disconnected",
    }
}

const TAKEN_TOPICS: [&str; Step::ALL.len()] = [
    "memory/steps/throttle",
    "memory/steps/refuse",
    "memory/steps/shed",
    "memory/steps/spill",
    "memory/steps/disconnect",
];
/// So much of the budget is for those that have not logged in: 24 MiB, the default of the limit, of 768.
const UNPROVEN_PART: u64 = 32;
/// Between two samples.
const WINDOW_MS: u64 = 50;
/// The same.
pub(crate) const WINDOW: Duration = Duration::from_millis(WINDOW_MS);

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(bytes: i64) -> Sums {
        let mut sums = Sums::default();
        sums[0] = bytes;
        sums
    }

    #[test]
    fn sum_of_all_shards_is_what_counts_and_time_passes_between_samples() {
        let start = Instant::now();
        let budget = Budget::new(Some(1000));
        let governor = Governor::new(budget, 2, start);
        governor.publish(0, &sums(400), 0, start + WINDOW);
        assert_eq!(governor.window(), 1);
        governor.publish(0, &sums(500), 0, start + WINDOW);
        assert_eq!(governor.window(), 1, "too early");
        assert_eq!(governor.step(), Step::Calm);
        governor.publish(1, &sums(350), 0, start + WINDOW);
        assert_eq!(governor.step(), Step::Shed, "at once");
        governor.publish(1, &sums(351), 0, start + WINDOW);
        assert_eq!(governor.window(), 2);
        let topics = governor.topics();
        let value = |name| topics.iter().find(|(topic, _)| *topic == name);
        let value = |name| value(name).map(|(_, value)| value.as_str());
        assert_eq!(value("memory/total"), Some("851"));
        assert_eq!(value("memory/step"), Some("shed"));
        assert_eq!(value("memory/steps/refuse"), Some("1"));
        assert_eq!(value("memory/steps/spill"), Some("0"));
    }

    #[test]
    fn program_itself_counts_but_never_for_more_than_half() {
        let governor = Governor::new(Budget::new(Some(1000)), 1, Instant::now());
        governor.publish(0, &sums(100), 0, Instant::now());
        governor.on_resident(5000);
        assert_eq!(governor.used(), 600);
        governor.on_resident(300);
        assert_eq!(governor.used(), 300);
        governor.on_resident(400);
        assert_eq!(
            governor.used(),
            300,
            "what was freed and is kept is not held"
        );
    }

    #[test]
    fn slowest_reader_of_all_shards_is_found() {
        let governor = Governor::new(Budget::new(Some(1000)), 2, Instant::now());
        assert!(governor.is_slowest(0, 10));
        assert!(governor.is_slowest(1, 20));
        assert!(!governor.is_slowest(0, 10));
    }
}
