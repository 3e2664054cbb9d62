//! When a machine that does not answer is left in peace.
//!
//! Owns: [`Breaker`]. Does not own: the clock, the question, what is answered meanwhile (see `super::back_end`).
//! Start reading at [`Breaker::admit`]. Invariant: while it is open at most one question at a time goes out, and
//! none before the pause is over.

use std::time::{Duration, Instant};

/// Counts failures in a row, and stops asking for a while when there are too many.
#[derive(Debug)]
pub(super) struct Breaker {
    failures_max: u32,
    pause: Duration,
    state: State,
    /// When a failure was worth telling.
    told: Option<Instant>,
}

#[derive(Debug)]
enum State {
    /// Everything is asked; so many questions in a row have failed.
    Closed { failures: u32 },
    /// Nothing is asked until then.
    Open { until: Instant },
    /// One question is out, to see whether it is answered.
    HalfOpen,
}

/// What is done with a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    /// It is asked.
    Ask,
    /// It is asked, and no other one until it is known what became of it.
    Probe,
    /// It is not asked.
    Spare,
}

/// What has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// A question has failed, and nothing was said of failures for as long as a pause.
    Failing,
    /// Nothing is asked from now on.
    Opened,
    /// Everything is asked again.
    Closed,
}

impl Breaker {
    /// Opens after `failures_max` failures in a row (0: never), each time for `pause`.
    pub(super) const fn new(failures_max: u32, pause: Duration) -> Self {
        Self {
            failures_max,
            pause,
            state: State::Closed { failures: 0 },
            told: None,
        }
    }

    /// One that has opened before and is past its pause: the next question tries.
    pub(super) const fn opened(mut self, now: Instant) -> Self {
        self.state = State::Open { until: now };
        self
    }

    /// What to do with a question that comes now.
    pub(super) fn admit(&mut self, now: Instant) -> Admitted {
        match self.state {
            State::Closed { .. } => Admitted::Ask,
            State::Open { until } if until <= now => {
                self.state = State::HalfOpen;
                Admitted::Probe
            }
            State::Open { .. } | State::HalfOpen => Admitted::Spare,
        }
    }

    /// A question was answered.
    pub(super) fn on_answer(&mut self) -> Option<Change> {
        let was_closed = matches!(self.state, State::Closed { .. });
        self.state = State::Closed { failures: 0 };
        (!was_closed).then_some(Change::Closed)
    }

    /// A question was not answered.
    pub(super) fn on_failure(&mut self, admitted: Admitted, now: Instant) -> Option<Change> {
        let until = now + self.pause;
        match &mut self.state {
            State::Closed { failures } => {
                *failures = failures.saturating_add(1);
                if self.failures_max > 0 && *failures >= self.failures_max {
                    self.state = State::Open { until };
                    return Some(Change::Opened);
                }
                let is_news = self.told.is_none_or(|told| told + self.pause <= now);
                is_news.then(|| {
                    self.told = Some(now);
                    Change::Failing
                })
            }
            State::HalfOpen if admitted == Admitted::Probe => {
                self.state = State::Open { until };
                None
            }
            // It was asked before.
            State::Open { .. } | State::HalfOpen => None,
        }
    }

    /// Nobody wants to know any more what a question comes to: the next one may probe.
    pub(super) fn on_given_up(&mut self, admitted: Admitted, now: Instant) {
        if admitted == Admitted::Probe && matches!(self.state, State::HalfOpen) {
            self.state = State::Open { until: now };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(10);

    fn opened(now: Instant) -> Breaker {
        let mut breaker = Breaker::new(3, PAUSE);
        for change in [Some(Change::Failing), None] {
            assert_eq!(breaker.admit(now), Admitted::Ask);
            assert_eq!(breaker.on_failure(Admitted::Ask, now), change);
        }
        assert_eq!(breaker.on_failure(Admitted::Ask, now), Some(Change::Opened));
        breaker
    }

    #[test]
    fn failures_in_a_row_open_it_and_an_answer_between_starts_the_count_again() {
        let now = Instant::now();
        let mut breaker = Breaker::new(2, PAUSE);
        for number in 0..5 {
            let change = breaker.on_failure(Admitted::Ask, now);
            assert_eq!(change, (number == 0).then_some(Change::Failing));
            assert_eq!(breaker.on_answer(), None);
        }
        assert_eq!(breaker.on_failure(Admitted::Ask, now), None);
        assert_eq!(breaker.on_failure(Admitted::Ask, now), Some(Change::Opened));
        let mut never = Breaker::new(0, PAUSE);
        for number in 0..100 {
            let change = never.on_failure(Admitted::Ask, now);
            assert_eq!(change, (number == 0).then_some(Change::Failing));
        }
        assert_eq!(never.admit(now), Admitted::Ask);
    }

    #[test]
    fn first_failure_is_worth_telling_and_then_one_in_a_pause() {
        let now = Instant::now();
        let mut breaker = Breaker::new(0, PAUSE);
        let mut at = |after| breaker.on_failure(Admitted::Ask, now + after);
        assert_eq!(at(Duration::ZERO), Some(Change::Failing));
        assert_eq!(at(PAUSE / 2), None);
        assert_eq!(at(PAUSE), Some(Change::Failing));
        assert_eq!(at(PAUSE * 3 / 2), None);
        // Where the first one opens it, that is what is told.
        let mut strict = Breaker::new(1, PAUSE);
        assert_eq!(strict.on_failure(Admitted::Ask, now), Some(Change::Opened));
    }

    #[test]
    fn open_one_asks_nothing_until_the_pause_is_over_and_then_one_question_at_a_time() {
        let now = Instant::now();
        let mut breaker = opened(now);
        // Those that were under way when it opened move nothing.
        assert_eq!(breaker.on_failure(Admitted::Ask, now + PAUSE / 2), None);
        assert_eq!(
            breaker.admit(now + PAUSE - Duration::from_millis(1)),
            Admitted::Spare
        );
        assert_eq!(breaker.admit(now + PAUSE), Admitted::Probe);
        assert_eq!(breaker.admit(now + PAUSE), Admitted::Spare);
        assert_eq!(breaker.on_failure(Admitted::Ask, now + PAUSE), None);
        assert_eq!(breaker.admit(now + PAUSE), Admitted::Spare);
        // The probe fails: once more from the start.
        assert_eq!(breaker.on_failure(Admitted::Probe, now + PAUSE), None);
        assert_eq!(breaker.admit(now + PAUSE), Admitted::Spare);
        assert_eq!(breaker.admit(now + 2 * PAUSE), Admitted::Probe);
        assert_eq!(breaker.on_answer(), Some(Change::Closed));
        assert_eq!(breaker.admit(now + 2 * PAUSE), Admitted::Ask);
    }

    #[test]
    fn probe_that_nobody_waits_for_leaves_its_place_to_the_next_question() {
        let now = Instant::now();
        let mut breaker = opened(now);
        assert_eq!(breaker.admit(now + PAUSE), Admitted::Probe);
        breaker.on_given_up(Admitted::Ask, now + PAUSE);
        assert_eq!(breaker.admit(now + PAUSE), Admitted::Spare);
        breaker.on_given_up(Admitted::Probe, now + PAUSE);
        assert_eq!(breaker.admit(now + PAUSE), Admitted::Probe);
    }
}
