//! Questions to one machine: how many are under way, and which is next.
//!
//! Owns: [`Lane`], [`Errand`]. Does not own: the threads (see [`super::Outbound`]), what is asked. Start reading
//! at [`Lane::submit`]. Invariants: at most `at_once` questions are under way, and none for somebody who is
//! gone; every errand is answered, or nobody waits for it.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;

use tokio::runtime::Handle;

use crate::authentication::{FairQueue, Stub};
use crate::peer::Origin;

/// What is asked; it begins when it is polled.
pub(crate) type Question<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A question, and who waits for its answer.
pub(crate) struct Errand<T> {
    /// Whether somebody waits for it.
    pub(crate) stub: Stub,
    pub(crate) question: Question<T>,
    pub(crate) answer: Box<dyn FnOnce(Result<T, Unmet>) + Send>,
}

impl<T> fmt::Debug for Errand<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Errand")
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unmet {
    /// Too many wait.
    Busy,
    /// We have failed on it.
    Failed,
}

/// Questions to one machine, of which each origin has its turn.
#[derive(Debug)]
pub(crate) struct Lane<T> {
    at_once: usize,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    waiting: FairQueue<Errand<T>>,
    under_way: usize,
    is_over: bool,
}

impl<T: Send + 'static> Lane<T> {
    /// At most `at_once` questions are under way, and `waiting_max` wait for their turn.
    pub(crate) fn new(at_once: usize, waiting_max: usize) -> Self {
        Self {
            at_once,
            state: Mutex::new(State {
                waiting: FairQueue::new(waiting_max),
                under_way: 0,
                is_over: false,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `errand` run at once, or when its turn comes.
    pub(crate) fn submit(self: &Arc<Self>, handle: &Handle, origin: Origin, errand: Errand<T>) {
        let mut state = self.lock();
        if state.is_over {
            drop(state);
            return (errand.answer)(Err(Unmet::Failed));
        }
        if state.under_way < self.at_once {
            state.under_way += 1;
            drop(state);
            let lane = Arc::clone(self);
            handle.spawn(async move { lane.run(errand).await });
            return;
        }
        let left_out = state.waiting.push(origin.block(), errand);
        drop(state);
        if let Some(left_out) = left_out {
            (left_out.answer)(Err(Unmet::Busy));
        }
    }

    /// Forgets what waits, and takes nothing more.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.is_over = true;
        let waiting = std::mem::replace(&mut state.waiting, FairQueue::new(0));
        drop(state);
        drop(waiting);
    }

    /// One errand after the other, until none waits.
    async fn run(self: Arc<Self>, first: Errand<T>) {
        let mut next = Some(first);
        while let Some(errand) = next {
            // What an answer panics with is no reason to ask fewer at once for ever.
            caught(ask(errand)).await;
            next = self.next();
        }
    }

    /// The next one; without one there is a place free.
    fn next(&self) -> Option<Errand<T>> {
        let mut state = self.lock();
        let next = state.waiting.pop();
        if next.is_none() {
            state.under_way -= 1;
        }
        next
    }
}

async fn ask<T>(errand: Errand<T>) {
    let Errand {
        mut stub,
        question,
        answer,
    } = errand;
    // Who is gone is owed nothing, and what was begun for it is dropped.
    let answered = tokio::select! {
        biased;
        () = stub.gone() => return,
        answered = caught(question) => answered,
    };
    answer(answered.ok_or(Unmet::Failed));
}

/// What `future` comes to; `None` if it panics.
pub(crate) async fn caught<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = Box::pin(future);
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        match polled {
            Ok(polled) => polled.map(Some),
            Err(_) => Poll::Ready(None),
        }
    })
    .await
}
