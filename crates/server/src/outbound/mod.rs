//! Questions to other machines: asked off the shards, bounded, and given up in time.
//!
//! Owns: [`Outbound`] (the runtime they are asked on, and what is counted), [`BackEnd`] (one machine that is
//! asked). Does not own: what is asked and what an answer means (see the authenticators). Start reading at
//! [`BackEnd::ask`]. Invariants: a machine that does not answer costs a bounded number of tasks and no thread;
//! no answer is never a yes.

mod back_end;
mod breaker;
mod cache;
mod http;
mod lane;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime};

pub(crate) use back_end::without_answer;
pub use back_end::{Answer, AskError, BackEnd, Kept, QuestionKey};
pub use http::HttpError;

use crate::authentication::FetchedKeys;
use crate::peer::Origin;

pub(crate) use back_end::Asker;
pub(crate) use http::{HttpAnswer, HttpClient};
pub(crate) use lane::{Errand, Lane, Question, Unmet, caught};

/// Where questions of one Server are asked. The threads begin with the first one.
#[derive(Debug, Default)]
pub struct Outbound {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    runtime: Option<Runtime>,
    is_over: bool,
    /// Empties the lanes, of those that are still there.
    enders: Vec<Ender>,
    figures: BTreeMap<&'static str, Arc<Figures>>,
    /// Of all back ends that are still there.
    silences: Vec<Weak<Silence>>,
    /// Hides where a machine is, which may be said with a password.
    hasher: RandomState,
    key_sets: KeySets,
}

/// Keys of tokens that are fetched.
type KeySets = Arc<Mutex<Vec<Weak<FetchedKeys>>>>;

/// Ends a lane; `false` if it is gone.
type Ender = Box<dyn Fn(bool) -> bool + Send>;

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("State")
    }
}

/// What has become of the questions to one back end, whatever was reloaded.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// Questions that went out.
    pub(crate) asked: AtomicU64,
    /// Those that were not answered.
    pub(crate) failed: AtomicU64,
    /// Answers that were known.
    pub(crate) cached: AtomicU64,
    /// Questions that were not put, because the last ones were not answered.
    pub(crate) spared: AtomicU64,
    /// How many of that name do not answer now: after a reload there may be two for a while.
    silent: AtomicU64,
}

/// Whether one of them does not answer; when it is dropped, nobody waits for its answers.
#[derive(Debug)]
pub(crate) struct Silence {
    figures: Arc<Figures>,
    /// Stands for where it is.
    machine: u64,
    is_silent: AtomicBool,
}

impl Silence {
    pub(crate) fn is_silent(&self) -> bool {
        self.is_silent.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, is_silent: bool) {
        if self.is_silent.swap(is_silent, Ordering::Relaxed) == is_silent {
            return;
        }
        if is_silent {
            self.figures.silent.fetch_add(1, Ordering::Relaxed);
        } else {
            self.figures.silent.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Silence {
    fn drop(&mut self) {
        self.set(false);
    }
}

impl Outbound {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where to ask; `None` once it is over, or if the system gives no threads.
    pub(crate) fn handle(&self) -> Option<Handle> {
        let mut state = self.lock();
        if state.is_over {
            return None;
        }
        if state.runtime.is_none() {
            let runtime = Builder::new_multi_thread()
                .worker_threads(WORKER_THREADS)
                // Names of hosts are looked up on these.
                .max_blocking_threads(BLOCKING_THREADS_MAX)
                .thread_name("vencejo-outbound")
                .enable_all()
                .build();
            match runtime {
                Ok(runtime) => state.runtime = Some(runtime),
                Err(error) => tracing::error!(%error, "no threads to ask other machines on"),
            }
        }
        state
            .runtime
            .as_ref()
            .map(|runtime| runtime.handle().clone())
    }

    /// Has `errand` run when its turn comes in `lane`. `origin` is where its Client connects from.
    pub(crate) fn submit<T: Send + 'static>(
        &self,
        lane: &Arc<Lane<T>>,
        origin: Origin,
        errand: Errand<T>,
    ) {
        match self.handle() {
            Some(handle) => lane.submit(&handle, origin, errand),
            None => (errand.answer)(Err(Unmet::Failed)),
        }
    }

    /// What is counted of the back end of this name.
    pub(crate) fn figures(&self, name: &'static str) -> Arc<Figures> {
        Arc::clone(self.lock().figures.entry(name).or_default())
    }

    /// Whether the machine at this place, one of those that `figures` count, answers: of one that has not done so before a
    /// reload that is not known to have changed.
    pub(crate) fn silence(&self, figures: &Arc<Figures>, machine: &str) -> Arc<Silence> {
        let mut state = self.lock();
        let silence = Silence {
            figures: Arc::clone(figures),
            machine: state.hasher.hash_one(machine),
            is_silent: AtomicBool::new(false),
        };
        state.silences.retain(|one| one.strong_count() > 0);
        let is_known = |one: Arc<Silence>| {
            let is_same = Arc::ptr_eq(&one.figures, figures) && one.machine == silence.machine;
            is_same && one.is_silent()
        };
        let mut all = state.silences.iter().filter_map(Weak::upgrade);
        silence.set(all.any(is_known));
        let silence = Arc::new(silence);
        state.silences.push(Arc::downgrade(&silence));
        silence
    }

    /// The keys that are fetched now, for others that need the same.
    pub(crate) fn key_sets(&self) -> KeySets {
        Arc::clone(&self.lock().key_sets)
    }

    /// Sees to it that what waits in `lane` is forgotten when it is over.
    pub(crate) fn ends<T: Send + 'static>(&self, lane: &Arc<Lane<T>>) {
        let lane = Arc::downgrade(lane);
        let ender = move |is_over: bool| {
            let Some(lane) = lane.upgrade() else {
                return false;
            };
            if is_over {
                lane.end();
            }
            true
        };
        let mut state = self.lock();
        state.enders.retain(|ender| ender(false));
        state.enders.push(Box::new(ender));
    }

    /// What `$SYS` says, and the alarms.
    pub(crate) fn topics(&self) -> (Vec<(&'static str, String)>, Vec<String>) {
        let state = self.lock();
        if state.figures.is_empty() {
            return (Vec::new(), Vec::new());
        }
        let sum = |of: fn(&Figures) -> &AtomicU64| {
            let all = state
                .figures
                .values()
                .map(|figures| of(figures).load(Ordering::Relaxed));
            all.sum::<u64>().to_string()
        };
        let topics = vec![
            ("outbound/asked", sum(|figures| &figures.asked)),
            ("outbound/failed", sum(|figures| &figures.failed)),
            ("outbound/cached", sum(|figures| &figures.cached)),
            ("outbound/spared", sum(|figures| &figures.spared)),
        ];
        let open = state
            .figures
            .iter()
            .filter(|(_, figures)| figures.silent.load(Ordering::Relaxed) > 0);
        let alarms = open
            .map(|(name, _)| format!("{name} does not answer"))
            .collect();
        (topics, alarms)
    }

    /// Gives up what is asked, forgets what waits, and ends the threads.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.is_over = true;
        let enders = std::mem::take(&mut state.enders);
        let runtime = state.runtime.take();
        drop(state);
        // Outside of the lock: what waits holds what the shards share.
        for ender in enders {
            ender(true);
        }
        let Some(runtime) = runtime else { return };
        // Whoever stops a Server may be at home on another runtime, where nothing may wait. A name that the
        // system still looks up is not waited for longer than this.
        let end = move || runtime.shutdown_timeout(STOP_MAX);
        if let Ok(thread) = std::thread::Builder::new().spawn(end) {
            thread.join().ok();
        }
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Threads that questions are asked on: they wait more than they work.
const WORKER_THREADS: usize = 2;
/// Threads that the system's search for names of hosts may hold.
const BLOCKING_THREADS_MAX: usize = 8;
/// How long a search for a name may hold up the end.
const STOP_MAX: Duration = Duration::from_secs(1);
