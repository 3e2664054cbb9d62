//! A thread that says what is due, at the time at which it is due.
//!
//! Owns: waiting for a time more exactly than timers of an async runtime do. Does not own: what is due (see `schedule`),
//! who does it. Start reading at [`Pace::begin`]. Invariant: it never waits for whoever has to act.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::figures::{add, histogram};
use super::schedule::Schedule;

/// One that runs. Its end is a distribution: how late it was.
#[derive(Debug)]
pub(super) struct Pace {
    thread: JoinHandle<Histogram<u64>>,
}

impl Pace {
    /// Tells senders the numbers of their messages, from `began` on, until all are told or `stop` is set.
    pub(super) fn begin(
        schedule: Schedule,
        began: Instant,
        senders: Vec<UnboundedSender<u64>>,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let thread = tokio::task::spawn_blocking(move || tell(&schedule, began, &senders, &stop));
        Self { thread }
    }

    /// How late it has been.
    pub(super) async fn end(self) -> Histogram<u64> {
        self.thread.await.unwrap_or_else(|_| histogram())
    }
}

fn tell(
    schedule: &Schedule,
    began: Instant,
    senders: &[UnboundedSender<u64>],
    stop: &AtomicBool,
) -> Histogram<u64> {
    let mut late = histogram();
    let mut number = 0;
    while let Some(due) = schedule.due(number) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let now = Instant::now();
        let wait = (began + due).saturating_duration_since(now);
        if !wait.is_zero() {
            std::thread::sleep(wait.min(STOP_WITHIN));
            continue;
        }
        let (sender, sequence) = schedule.split(number);
        let sender = usize::try_from(sender)
            .ok()
            .and_then(|sender| senders.get(sender));
        // A sender that is gone has lost its connection, which is counted there.
        if let Some(sender) = sender {
            sender.send(sequence).ok();
        }
        add(&mut late, now.saturating_duration_since(began + due));
        number += 1;
    }
    late
}

const STOP_WITHIN: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::tools::bench::schedule::Rate;

    #[tokio::test]
    async fn each_sender_is_told_its_messages_in_order() {
        let schedule = Schedule::for_time(
            Rate::per_second(10_000),
            3,
            Duration::ZERO,
            Duration::from_millis(5),
        );
        let (senders, mut told): (Vec<_>, Vec<_>) =
            (0..3).map(|_| mpsc::unbounded_channel()).unzip();
        let pace = Pace::begin(schedule, Instant::now(), senders, Arc::default());
        assert_eq!(pace.end().await.len(), 50);
        for (sender, told) in told.iter_mut().enumerate() {
            let mut sequences = Vec::new();
            while let Some(sequence) = told.recv().await {
                sequences.push(sequence);
            }
            let count = schedule.count_of(u32::try_from(sender).unwrap());
            assert_eq!(sequences, (0..count).collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn a_stop_ends_it_early() {
        let schedule = Schedule::for_time(
            "0.001".parse().unwrap(),
            1,
            Duration::ZERO,
            Duration::from_secs(5000),
        );
        let stop = Arc::new(AtomicBool::new(true));
        let (sender, _told) = mpsc::unbounded_channel();
        let pace = Pace::begin(schedule, Instant::now(), vec![sender], stop);
        assert_eq!(pace.end().await.len(), 0);
    }
}
