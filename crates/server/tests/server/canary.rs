//! A healthy pair beside what is done to a Server: it never stops, and was never slow; and nothing of what was done stays.
//!
//! Owns: [`Canary`], its bounds, [`Held`]. Does not own: what is done. Start reading at [`Canary::new`].
//! Invariant: a canary whose bounds were broken fails its test, at the latest when it is dropped.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::client::{PATIENCE, Raw, publish};

/// A publisher and a subscriber that go on by themselves, and how long each message took.
pub(crate) struct Canary {
    songs: Arc<Songs>,
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
    before: Option<Held>,
}

/// What the process holds open: of the Server, and of the test that plays its Clients.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    descriptors: Vec<PathBuf>,
    threads: Vec<String>,
}

impl Held {
    /// Where the process is this test's alone: under `cargo test` others come and go in it.
    fn now() -> Option<Self> {
        let mode = std::env::var("NEXTEST_EXECUTION_MODE").ok()?;
        // The one by which they are listed is gone with the list.
        let open = |folder| std::fs::read_dir(folder).expect("Linux").flatten();
        let descriptors = open("/proc/self/fd").filter_map(|entry| entry.path().read_link().ok());
        let names = open("/proc/self/task")
            .filter_map(|entry| std::fs::read_to_string(entry.path().join("comm")).ok());
        (mode == "process-per-test").then(|| Self {
            descriptors: descriptors.collect(),
            threads: names.collect(),
        })
    }

    fn is_within(&self, before: &Self) -> bool {
        self.descriptors.len() <= before.descriptors.len()
            && self.threads.len() <= before.threads.len()
    }
}

#[derive(Default)]
struct Songs {
    took: Mutex<Vec<Duration>>,
    is_sung: Condvar,
}

impl Songs {
    fn lock(&self) -> MutexGuard<'_, Vec<Duration>> {
        self.took.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Canary {
    /// One that also sees, once it is dropped, that the process holds no descriptor and no thread that it does not hold now:
    /// for where neither a file nor a thread is opened for good, and Clients go before it does.
    pub(crate) fn to_the_end(address: SocketAddr) -> Self {
        let mut canary = Self::new(address);
        canary.before = Held::now();
        canary
    }

    pub(crate) fn new(address: SocketAddr) -> Self {
        let mut subscriber = Raw::v311(address, "canary-subscriber");
        subscriber.subscribe("canary", 0);
        let mut publisher = Raw::v311(address, "canary-publisher");
        let songs = Arc::new(Songs::default());
        let sung = Arc::clone(&songs);
        let (end, is_over) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            while is_over.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                let began = Instant::now();
                publisher.say(&publish("canary", 0, b"tweet"));
                assert_eq!(subscriber.hear(), publish("canary", 0, b"tweet"));
                sung.lock().push(began.elapsed());
                sung.is_sung.notify_all();
            }
        });
        Self {
            songs,
            end: Some(end),
            thread: Some(thread),
            before: None,
        }
    }

    /// Waits for one that begins after this.
    pub(crate) fn sing(&self) {
        let took = self.songs.lock();
        // The next may be on its way already.
        let enough = took.len() + 2;
        let (took, waited) = self
            .songs
            .is_sung
            .wait_timeout_while(took, PATIENCE, |took| took.len() < enough)
            .unwrap_or_else(PoisonError::into_inner);
        drop(took);
        assert!(!waited.timed_out(), "the canary is silent");
    }

    /// Waits until the process holds no more than when this began: everything that came since is over, and gone.
    fn is_all_given_back(&self) {
        let Some(before) = &self.before else {
            return;
        };
        let began = Instant::now();
        while let Some(now) = Held::now().filter(|now| !now.is_within(before)) {
            assert!(began.elapsed() < PATIENCE, "{now:?} stays of {before:?}");
            self.sing();
        }
    }

    /// How long one took in the middle, and how long the slowest.
    pub(crate) fn median_and_slowest(&self) -> (Duration, Duration) {
        let mut took = self.songs.lock().clone();
        took.sort_unstable();
        (took[took.len() / 2], took[took.len() - 1])
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.sing();
            self.is_all_given_back();
            let (median, slowest) = self.median_and_slowest();
            assert!(median <= MEDIAN_MAX, "the canary's median: {median:?}");
            assert!(slowest < SLOWEST_MAX, "the canary's slowest: {slowest:?}");
        }
        drop(self.end.take());
        let sang = self.thread.take().expect("it is joined once").join();
        assert!(sang.is_ok() || std::thread::panicking(), "it has died");
    }
}

/// Between one and the next.
const PAUSE: Duration = Duration::from_millis(1);
/// Promise P2.
const MEDIAN_MAX: Duration = Duration::from_millis(50);
const SLOWEST_MAX: Duration = Duration::from_secs(2);
