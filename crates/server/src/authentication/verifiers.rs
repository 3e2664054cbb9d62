//! The threads that verify what takes long, so that no shard waits for it.
//!
//! Owns: [`Verifiers`], the order in which attempts are verified. Does not own: how one is verified (see the
//! authenticators), the connection that waits (see `shard::admit`). Start reading at [`Verifiers::submit`].
//! Invariant: every job that was taken is answered or its connection is gone; at most `waiting_max` wait.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::fair_queue::FairQueue;
use super::ticket::Stub;
use super::work::{Computation, Verified};
use crate::peer::Origin;

/// One attempt that waits.
pub(crate) struct Job {
    /// Whether its connection is still there.
    pub(crate) stub: Stub,
    /// Asked when its turn comes.
    pub(crate) is_banned: Box<dyn Fn() -> bool + Send>,
    pub(crate) work: Computation,
    pub(crate) answer: Box<dyn FnOnce(Verified) + Send>,
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Job")
    }
}

/// The threads, which begin with the first job.
#[derive(Debug)]
pub(crate) struct Verifiers {
    queue: Arc<Queue>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    threads_max: usize,
}

impl Verifiers {
    /// At most so many threads, and so many jobs that wait for them.
    pub(crate) fn new(threads_max: usize, waiting_max: usize) -> Self {
        Self {
            queue: Arc::new(Queue {
                state: Mutex::new(State {
                    waiting: FairQueue::new(waiting_max),
                    is_over: false,
                }),
                is_worth_a_look: Condvar::new(),
            }),
            threads: Mutex::default(),
            threads_max,
        }
    }

    /// So many jobs may wait from now on.
    pub(crate) fn set_waiting_max(&self, waiting_max: usize) {
        self.queue.lock().waiting.set_len_max(waiting_max);
    }

    /// Has `job` done when its turn comes. `origin` is where its Client connects from: every origin is served
    /// in turn, and where too many wait, the one with the most waits in vain.
    pub(crate) fn submit(&self, origin: Origin, job: Job) {
        if !self.has_threads() {
            return (job.answer)(Verified::Failed);
        }
        let mut state = self.queue.lock();
        let left_out = if state.is_over {
            Some(job)
        } else {
            state.waiting.push(origin.block(), job)
        };
        drop(state);
        self.queue.is_worth_a_look.notify_one();
        if let Some(job) = left_out {
            (job.answer)(Verified::Busy);
        }
    }

    /// Starts the threads, the first time. Whether there are some.
    fn has_threads(&self) -> bool {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        if threads.is_empty() {
            for number in 0..self.threads_max {
                let queue = Arc::clone(&self.queue);
                let thread = std::thread::Builder::new().name(format!("vencejo-verify-{number}"));
                match thread.spawn(move || queue.run()) {
                    Ok(thread) => threads.push(thread),
                    Err(error) => tracing::error!(%error, "no thread to verify logins on"),
                }
            }
        }
        !threads.is_empty()
    }

    /// Forgets what waits and ends the threads.
    pub(crate) fn stop(&self) {
        let mut state = self.queue.lock();
        state.is_over = true;
        let waiting = std::mem::replace(&mut state.waiting, FairQueue::new(0));
        drop(state);
        // Outside of the lock: a job holds what the shards share.
        drop(waiting);
        self.queue.is_worth_a_look.notify_all();
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        for thread in threads.drain(..) {
            // What a job panics with was caught.
            thread.join().ok();
        }
    }
}

#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    is_worth_a_look: Condvar,
}

#[derive(Debug)]
struct State {
    waiting: FairQueue<Job>,
    is_over: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        while let Some(job) = self.next() {
            // A connection that is gone is owed no work.
            if job.stub.is_gone() {
                continue;
            }
            if (job.is_banned)() {
                (job.answer)(Verified::Banned);
                continue;
            }
            let done = catch_unwind(AssertUnwindSafe(job.work));
            (job.answer)(done.map_or(Verified::Failed, Verified::Done));
        }
    }

    /// The next job; `None` when it is over.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.is_over {
                return None;
            }
            if let Some(job) = state.waiting.pop() {
                return Some(job);
            }
            let woken = self.is_worth_a_look.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::super::Decision;
    use super::super::ticket::Ticket;
    use super::*;

    fn address(last: u8) -> Origin {
        Origin::Address([192, 0, 2, last].into())
    }

    /// Submits `work`; the answer comes out of what is returned, if it comes.
    fn submit(
        verifiers: &Verifiers,
        ticket: &Ticket,
        work: impl FnOnce() -> Option<Decision> + Send + 'static,
    ) -> mpsc::Receiver<Verified> {
        let (answer, answered) = mpsc::channel();
        let job = Job {
            stub: ticket.stub(),
            is_banned: Box::new(|| false),
            work: Box::new(work),
            answer: Box::new(move |verified| answer.send(verified).expect("is awaited")),
        };
        verifiers.submit(address(1), job);
        answered
    }

    #[test]
    fn connection_that_is_gone_costs_no_work_and_a_panic_no_thread() {
        let verifiers = Verifiers::new(1, 8);
        let (open, gate) = mpsc::channel::<()>();
        let here = Ticket::new();
        let first = submit(&verifiers, &here, move || {
            gate.recv().expect("is opened");
            None
        });
        let gone = Ticket::new();
        let never = submit(&verifiers, &gone, || panic!("worked for nobody"));
        drop(gone);
        let broken = submit(&verifiers, &here, || panic!("on purpose"));
        let last = submit(&verifiers, &here, || None);
        open.send(()).expect("is awaited");
        assert!(matches!(first.recv(), Ok(Verified::Done(None))));
        assert!(matches!(broken.recv(), Ok(Verified::Failed)));
        assert!(matches!(last.recv(), Ok(Verified::Done(None))));
        assert!(never.recv().is_err(), "nobody is there to be answered");
        verifiers.stop();
        let late = submit(&verifiers, &here, || None);
        assert!(!matches!(late.recv(), Ok(Verified::Done(_))));
    }

    #[test]
    fn one_too_many_is_told_at_once() {
        let verifiers = Verifiers::new(1, 0);
        let here = Ticket::new();
        let refused = submit(&verifiers, &here, || None);
        assert!(matches!(refused.recv(), Ok(Verified::Busy)));
        verifiers.stop();
    }
}
