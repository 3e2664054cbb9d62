//! What is done as memory runs out, in which order, and when it is taken back.
//!
//! Owns: [`Step`], its marks, how much a publisher may say in a window. Does not own: how each step is carried out (see
//! `shard::governed`), what is counted (see `governor`). Start reading at [`Machine::on_sample`].
//! Invariants: a step is taken at its mark at once, and taken back one at a time, each after memory has been below the
//! lower mark of it for [`CALM`]; a publisher may always say something in a window, and memory that stays where it is lets
//! somebody in, so that none waits for ever.

use std::time::{Duration, Instant};

/// What is done, each with all that is before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// Nothing.
    #[default]
    Calm,
    /// The loudest publishers are read less, then more of them.
    Throttle,
    /// New connections are refused, those of known Sessions last.
    Refuse,
    /// Less is kept of what slow readers do not take; QoS 0 beyond it is dropped.
    Shed,
    /// Queues go to the disk, and what would grow in memory is refused.
    Spill,
    /// The slowest readers are disconnected.
    Disconnect,
}

impl Step {
    /// All but [`Step::Calm`], in order.
    pub(crate) const ALL: [Self; 5] = [
        Self::Throttle,
        Self::Refuse,
        Self::Shed,
        Self::Spill,
        Self::Disconnect,
    ];

    /// In how many steps one gets there.
    pub(crate) const fn number(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_number(number: u8) -> Self {
        let found = Self::ALL.into_iter().find(|step| step.number() == number);
        found.unwrap_or_default()
    }

    /// Its name in `$SYS`.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Throttle => "throttle",
            Self::Refuse => "refuse",
            Self::Shed => "shed",
            Self::Spill => "spill",
            Self::Disconnect => "disconnect",
        }
    }

    /// What a publisher may say in a window whatever happens: who says little is not among the loudest.
    const fn allowance_min(self) -> u64 {
        match self {
            Self::Calm | Self::Throttle => 4096,
            Self::Refuse => 1024,
            Self::Shed => 256,
            Self::Spill | Self::Disconnect => 64,
        }
    }

    /// Of the budget, in hundredths: where it is taken.
    const fn taken_at(self) -> u64 {
        match self {
            Self::Calm => 0,
            Self::Throttle => 70,
            Self::Refuse => 80,
            Self::Shed => 85,
            Self::Spill => 90,
            Self::Disconnect => 95,
        }
    }
}

/// The state.
#[derive(Debug)]
pub(crate) struct Machine {
    budget: u64,
    step: Step,
    /// Since when memory has been below the mark at which the step is taken back.
    below_since: Option<Instant>,
    /// Bytes a publisher may say in a window.
    allowance: u64,
    used_before: u64,
    /// How many connections may come in from now on, if that is to change.
    entries: Option<u64>,
    /// The most there was since connections are refused, or since some were let in, and when it was reached.
    highest: Option<(u64, Instant)>,
}

impl Machine {
    pub(crate) const fn new(budget: u64) -> Self {
        Self {
            budget,
            step: Step::Calm,
            below_since: None,
            allowance: u64::MAX,
            used_before: 0,
            entries: None,
            highest: None,
        }
    }

    /// The budget is another one from the next sample on.
    pub(crate) const fn set_budget(&mut self, budget: u64) {
        self.budget = budget;
    }

    pub(crate) const fn step(&self) -> Step {
        self.step
    }

    /// Where the next step is taken.
    pub(crate) fn next_mark(&self) -> u64 {
        let mut later = Step::ALL.into_iter().filter(|step| *step > self.step);
        later
            .next()
            .map_or(u64::MAX, |step| self.mark(step.taken_at()))
    }

    /// How many bytes of PUBLISH packets each publisher may say in a window before it is not read until the next;
    /// the one that exceeds it is still taken.
    pub(crate) const fn allowance(&self) -> u64 {
        self.allowance
    }

    /// How many connections may come in from now on; `None` leaves it as it is.
    pub(crate) const fn entries(&self) -> Option<u64> {
        self.entries
    }

    /// `used` bytes are held at `now`, and the loudest publisher has said `loudest` bytes since the last sample.
    pub(crate) fn on_sample(&mut self, used: u64, loudest: u64, now: Instant) {
        let reached = Step::ALL.into_iter().rev();
        let reached = reached
            .into_iter()
            .find(|step| used >= self.mark(step.taken_at()))
            .unwrap_or_default();
        if reached > self.step {
            self.step = reached;
            self.below_since = None;
        } else if self.step > Step::Calm {
            self.take_back(used, now);
        }
        self.allow(used, loudest);
        self.let_in(used, now);
        self.used_before = used;
    }

    fn take_back(&mut self, used: u64, now: Instant) {
        if used >= self.mark(self.step.taken_at() - LOWER) {
            self.below_since = None;
            return;
        }
        let since = *self.below_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= CALM {
            self.step = Step::from_number(self.step.number() - 1);
            self.below_since = Some(now);
        }
    }

    /// Memory may grow by less and less the nearer it is to where the next step begins. If it grows faster, each
    /// publisher may say half as much as the loudest has, then half of that; if not, half as much again.
    fn allow(&mut self, used: u64, loudest: u64) {
        if self.step == Step::Calm {
            self.allowance = u64::MAX;
            return;
        }
        let room = self.mark(Step::Refuse.taken_at()).saturating_sub(used) / APPROACH;
        let has_grown_too_much = used > self.used_before.saturating_add(room);
        self.allowance = if has_grown_too_much {
            (self.allowance.min(loudest) / 2).max(self.step.allowance_min())
        } else if self.allowance == u64::MAX {
            u64::MAX
        } else {
            self.allowance.saturating_add(self.allowance / 2 + 1)
        };
    }

    /// New connections are refused while memory grows. Once it has stood still for [`CALM`] so many may come in at once
    /// as what is left has room for many times: what fills memory may be there to stay, and is no reason to keep out for
    /// ever who would take it away.
    fn let_in(&mut self, used: u64, now: Instant) {
        if self.step < Step::Refuse {
            self.entries = Some(u64::MAX);
            self.highest = None;
            return;
        }
        self.entries = self.highest.is_none().then_some(0);
        let (highest, since) = *self.highest.get_or_insert((used, now));
        if used > highest + self.budget / WAVES {
            self.entries = Some(0);
            self.highest = Some((used, now));
        } else if now.saturating_duration_since(since) >= CALM {
            let left = self.mark(Step::Disconnect.taken_at());
            let room = left.saturating_sub(used) / APPROACH;
            self.entries = Some((room / ENTRY_BYTES).max(1));
            self.highest = Some((used, now));
        }
    }

    const fn mark(&self, hundredths: u64) -> u64 {
        self.budget / 100 * hundredths
    }
}

/// Memory has to be so long below a step's lower mark before it is taken back.
pub(crate) const CALM: Duration = Duration::from_millis(500);
/// Hundredths of the budget from the mark at which a step is taken down to that at which it is taken back.
const LOWER: u64 = 8;
/// In one window memory may come nearer to the next step by one part in so many of what is left.
const APPROACH: u64 = 16;
/// Memory that moves by no more than one part of the budget in so many stands still.
const WAVES: u64 = 1024;
/// What a connection may come to take until it is seen.
const ENTRY_BYTES: u64 = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_millis(50);

    #[test]
    fn steps_are_taken_in_order_each_at_its_mark() {
        let now = Instant::now();
        let mut machine = Machine::new(1000);
        for (used, step) in [
            (699, Step::Calm),
            (700, Step::Throttle),
            (800, Step::Refuse),
            (850, Step::Shed),
            (900, Step::Spill),
            (950, Step::Disconnect),
            (5000, Step::Disconnect),
        ] {
            machine.on_sample(used, 0, now);
            assert_eq!(machine.step(), step, "{used}");
        }
        let mut machine = Machine::new(1000);
        machine.on_sample(951, 0, now);
        assert_eq!(machine.step(), Step::Disconnect, "at once");
    }

    #[test]
    fn steps_are_taken_back_one_after_the_other_once_it_is_calm() {
        let start = Instant::now();
        let mut machine = Machine::new(1000);
        machine.on_sample(1000, 0, start);
        let mut seen = Vec::new();
        for turn in 0..200 {
            machine.on_sample(100, 0, start + WINDOW * turn);
            if seen.last() != Some(&machine.step()) {
                seen.push(machine.step());
            }
        }
        let mut all: Vec<_> = Step::ALL.into_iter().rev().collect();
        all.push(Step::Calm);
        assert_eq!(seen, all);
    }

    #[test]
    fn step_is_kept_while_memory_is_between_its_marks_and_time_begins_anew_above() {
        let mut now = Instant::now();
        let mut machine = Machine::new(1000);
        machine.on_sample(950, 0, now);
        for _ in 0..100 {
            now += CALM;
            machine.on_sample(870, 0, now);
            assert_eq!(machine.step(), Step::Disconnect);
        }
        for _ in 0..100 {
            machine.on_sample(860, 0, now);
            now += CALM / 2;
            machine.on_sample(870, 0, now);
            assert_eq!(machine.step(), Step::Disconnect);
        }
        machine.on_sample(860, 0, now);
        machine.on_sample(860, 0, now + CALM);
        assert_eq!(machine.step(), Step::Spill);
    }

    #[test]
    fn loudest_are_cut_first_and_more_of_them_as_long_as_memory_grows() {
        let now = Instant::now();
        let mut machine = Machine::new(1_000_000);
        machine.on_sample(690_000, 5_000, now);
        assert_eq!(machine.allowance(), u64::MAX);
        machine.on_sample(710_000, 64_000, now);
        assert_eq!(machine.allowance(), 32_000);
        machine.on_sample(730_000, 32_000, now);
        assert_eq!(machine.allowance(), 16_000);
        for used in (740_000..800_000).step_by(10_000) {
            machine.on_sample(used, 16_000, now);
        }
        assert_eq!(machine.allowance(), 4096, "who says little goes on");
        for used in (800_000..1_000_000).step_by(1_000) {
            machine.on_sample(used, 16_000, now);
        }
        assert_eq!(machine.allowance(), 64, "never nothing");
    }

    #[test]
    fn connections_are_refused_while_memory_grows_and_a_few_come_in_once_it_stands_still() {
        let mut now = Instant::now();
        let mut machine = Machine::new(256 << 20);
        let at = |hundredths: u64| (256 << 20) / 100 * hundredths;
        machine.on_sample(at(79), 0, now);
        assert_eq!(machine.entries(), Some(u64::MAX));
        for hundredths in 80..92 {
            now += WINDOW;
            machine.on_sample(at(hundredths), 0, now);
            assert_eq!(machine.entries(), Some(0), "it grows");
        }
        let mut entries = Vec::new();
        for turn in 0..40 {
            now += WINDOW;
            // Waves are no growth.
            machine.on_sample(at(91) + turn % 3 * 10_000, 0, now);
            entries.extend(machine.entries());
        }
        assert_eq!(entries.len(), 4, "{entries:?}");
        assert!(
            entries.iter().all(|some| (20..100).contains(some)),
            "{entries:?}"
        );
        // However full it is, who would make room comes in.
        machine.on_sample(at(99), 0, now);
        assert_eq!(machine.entries(), Some(0));
        machine.on_sample(at(99), 0, now + CALM);
        assert_eq!(machine.entries(), Some(1));
        machine.on_sample(at(99), 0, now + CALM + WINDOW);
        assert_eq!(machine.entries(), None, "it still may");
    }

    #[test]
    fn memory_that_does_not_grow_slows_nobody_down_for_long() {
        let now = Instant::now();
        let mut machine = Machine::new(1_000_000);
        machine.on_sample(750_000, 10_000, now);
        assert_eq!(machine.allowance(), 5_000);
        let mut windows = 0;
        while machine.allowance() < 1_000_000 {
            machine.on_sample(750_000, 50, now);
            windows += 1;
        }
        assert!(windows < 30, "{windows}");
        assert_eq!(machine.step(), Step::Throttle);
    }
}
