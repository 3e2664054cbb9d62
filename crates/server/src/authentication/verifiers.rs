//! The threads that verify what takes long, so that no shard waits for it.
//!
//! Owns: [`Verifiers`], the order in which attempts are verified. Does not own: how one is verified (see the
//! authenticators), the connection that waits (see `shard::admit`). Start reading at [`Verifiers::submit`].
//! Invariant: every job that was taken is answered or its connection is gone; at most `waiting_max` wait.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::JoinHandle;

use super::Decision;
use crate::peer::Origin;

/// What is done off the shards; `None` asks the next authenticator.
pub struct Work(Box<dyn FnOnce() -> Option<Decision> + Send>);

impl Work {
    /// Decides by `work`, which may take long.
    pub fn new(work: impl FnOnce() -> Option<Decision> + Send + 'static) -> Self {
        Self(Box::new(work))
    }

    /// Does it, here and now.
    pub(crate) fn run(self) -> Option<Decision> {
        (self.0)()
    }
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Work")
    }
}

/// What a connection that waits is told.
#[derive(Debug)]
pub(crate) enum Verified {
    /// It was verified; `None` asks the next authenticator.
    Done(Option<Decision>),
    /// Too many wait.
    Busy,
    /// It is not wanted any more: others have failed too often.
    Banned,
    /// The verification has failed on it, which says nothing of the Client.
    Failed,
}

/// One attempt that waits.
pub(crate) struct Job {
    /// Dropped with the connection.
    pub(crate) connection: Weak<()>,
    /// Asked when its turn comes.
    pub(crate) is_banned: Box<dyn Fn() -> bool + Send>,
    pub(crate) work: Work,
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
            if job.connection.strong_count() == 0 {
                continue;
            }
            if (job.is_banned)() {
                (job.answer)(Verified::Banned);
                continue;
            }
            let done = catch_unwind(AssertUnwindSafe(|| job.work.run()));
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

/// Items of many origins, of which each is served in turn.
#[derive(Debug)]
struct FairQueue<T> {
    of: HashMap<Origin, VecDeque<T>>,
    /// Origins of which something waits, each once.
    turns: VecDeque<Origin>,
    len: usize,
    len_max: usize,
}

impl<T> FairQueue<T> {
    fn new(len_max: usize) -> Self {
        Self {
            of: HashMap::new(),
            turns: VecDeque::new(),
            len: 0,
            len_max,
        }
    }

    /// Takes `item` in; returns what has no room: it, or the newest of the origin of which the most waits.
    /// O(1), or O(origins) while it is full.
    fn push(&mut self, origin: Origin, item: T) -> Option<T> {
        let mut left_out = None;
        if self.len >= self.len_max {
            let own = self.of.get(&origin).map_or(0, VecDeque::len);
            let longest = self.of.iter().max_by_key(|(_, items)| items.len());
            let Some(greedy) = longest
                .filter(|(_, items)| items.len() > own + 1)
                .map(|(address, _)| *address)
            else {
                return Some(item);
            };
            // At least one of it stays, so its turn does.
            left_out = self.of.get_mut(&greedy).and_then(VecDeque::pop_back);
            self.len -= usize::from(left_out.is_some());
        }
        let items = self.of.entry(origin).or_default();
        if items.is_empty() {
            self.turns.push_back(origin);
        }
        items.push_back(item);
        self.len += 1;
        left_out
    }

    fn pop(&mut self) -> Option<T> {
        let origin = self.turns.pop_front()?;
        let items = self.of.get_mut(&origin)?;
        let item = items.pop_front();
        if items.is_empty() {
            self.of.remove(&origin);
        } else {
            self.turns.push_back(origin);
        }
        self.len -= usize::from(item.is_some());
        item
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn address(last: u8) -> Origin {
        Origin::Address([192, 0, 2, last].into())
    }

    fn drained(mut queue: FairQueue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop()).collect()
    }

    #[test]
    fn every_origin_is_served_in_turn() {
        let mut queue = FairQueue::new(100);
        for item in ["a1", "a2", "a3"] {
            assert_eq!(queue.push(address(1), item), None);
        }
        queue.push(address(2), "b1");
        queue.push(address(3), "c1");
        queue.push(address(2), "b2");
        assert_eq!(drained(queue), ["a1", "b1", "c1", "a2", "b2", "a3"]);
    }

    #[test]
    fn where_too_many_wait_the_greediest_origin_waits_in_vain() {
        let mut queue = FairQueue::new(3);
        for item in ["a1", "a2", "a3"] {
            assert_eq!(queue.push(address(1), item), None);
        }
        assert_eq!(queue.push(address(1), "a4"), Some("a4"));
        assert_eq!(queue.push(address(2), "b1"), Some("a3"));
        // Nobody else has more than one more.
        assert_eq!(queue.push(address(2), "b2"), Some("b2"));
        assert_eq!(queue.push(address(3), "c1"), Some("a2"));
        assert_eq!(drained(queue), ["a1", "b1", "c1"]);
        assert_eq!(FairQueue::new(0).push(address(1), "none"), Some("none"));
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_origin() {
        let block = |text: &str| text.parse::<Origin>().expect("an address").block();
        assert_eq!(block("2001:db8::1"), block("2001:db8::ffff:1:2:3"));
        assert_ne!(block("2001:db8::1"), block("2001:db8:0:1::1"));
        assert_eq!(block("::ffff:192.0.2.1"), address(1));
    }

    /// Submits `work`; the answer comes out of what is returned, if it comes.
    fn submit(
        verifiers: &Verifiers,
        connection: &Arc<()>,
        work: impl FnOnce() -> Option<Decision> + Send + 'static,
    ) -> mpsc::Receiver<Verified> {
        let (answer, answered) = mpsc::channel();
        let job = Job {
            connection: Arc::downgrade(connection),
            is_banned: Box::new(|| false),
            work: Work::new(work),
            answer: Box::new(move |verified| answer.send(verified).expect("is awaited")),
        };
        verifiers.submit(address(1), job);
        answered
    }

    #[test]
    fn connection_that_is_gone_costs_no_work_and_a_panic_no_thread() {
        let verifiers = Verifiers::new(1, 8);
        let (open, gate) = mpsc::channel::<()>();
        let here = Arc::new(());
        let first = submit(&verifiers, &here, move || {
            gate.recv().expect("is opened");
            None
        });
        let gone = Arc::new(());
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
        let here = Arc::new(());
        let refused = submit(&verifiers, &here, || None);
        assert!(matches!(refused.recv(), Ok(Verified::Busy)));
        verifiers.stop();
    }
}
