//! What was published, and what a test expects of it.
//!
//! Owns: [`Recorder`], [`Expectation`]. Does not own: how it is heard of (see the crate's root).
//! Start reading at [`Expectation::within`]. Invariant: a message fulfils one expectation.

use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use client::ReceivedMessage;
use client::proto::topic;
use tokio::runtime::Handle;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

/// What was published.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    recorded: Mutex<VecDeque<Recorded>>,
    came: Notify,
    /// Counts the ends of servers: what one does after its end is not seen.
    ends: AtomicU64,
}

#[derive(Debug)]
struct Recorded {
    message: ReceivedMessage,
    /// It has fulfilled an expectation.
    is_used: bool,
}

impl Recorder {
    /// Which server's messages are recorded at the moment.
    pub(crate) fn server(&self) -> u64 {
        self.ends.load(Ordering::SeqCst)
    }

    /// What the server does from here on is not recorded.
    pub(crate) fn end(&self) {
        self.ends.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn record(&self, server: u64, message: ReceivedMessage) {
        if server != self.server() {
            return;
        }
        let mut recorded = self.recorded();
        if recorded.len() >= RECORDED_MAX {
            recorded.pop_front();
        }
        recorded.push_back(Recorded {
            message,
            is_used: false,
        });
        drop(recorded);
        self.came.notify_waiters();
    }

    pub(crate) fn all(&self) -> Vec<ReceivedMessage> {
        let recorded = self.recorded();
        recorded.iter().map(|one| one.message.clone()).collect()
    }

    fn recorded(&self) -> MutexGuard<'_, VecDeque<Recorded>> {
        self.recorded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message that is to be published. See [`crate::Broker::expect_publish`].
#[derive(Debug)]
#[must_use = "nothing is expected until it is awaited"]
pub struct Expectation {
    filter: String,
    payload: Option<Vec<u8>>,
    recorder: Arc<Recorder>,
    handle: Handle,
}

impl Expectation {
    pub(crate) const fn new(filter: String, recorder: Arc<Recorder>, handle: Handle) -> Self {
        Self {
            filter,
            payload: None,
            recorder,
            handle,
        }
    }

    /// It has this payload, too.
    pub fn with(mut self, payload: impl AsRef<[u8]>) -> Self {
        self.payload = Some(payload.as_ref().to_vec());
        self
    }

    /// Waits so long for it, of real time, in any runtime.
    /// # Panics
    /// It has not come by then; says what has come instead.
    pub async fn within(self, patience: Duration) -> ReceivedMessage {
        let said = self.describe(patience);
        let recorder = Arc::clone(&self.recorder);
        let found = self.wait(patience).await.ok().flatten();
        found.unwrap_or_else(|| panic!("{said}; {}", instead(&recorder)))
    }

    /// The same for a test without a runtime.
    /// # Panics
    /// It has not come by then, or this is called within a runtime.
    pub fn within_blocking(self, patience: Duration) -> ReceivedMessage {
        let said = self.describe(patience);
        let recorder = Arc::clone(&self.recorder);
        let found = self.wait(patience).blocking_recv().ok().flatten();
        found.unwrap_or_else(|| panic!("{said}; {}", instead(&recorder)))
    }

    /// On the broker's own runtime, whose clock nobody pauses.
    fn wait(self, patience: Duration) -> oneshot::Receiver<Option<ReceivedMessage>> {
        let (sender, found) = oneshot::channel();
        let handle = self.handle.clone();
        drop(handle.spawn(async move {
            let found = timeout(patience, self.find()).await.ok();
            // A test that waits no more has seen enough.
            sender.send(found).ok();
        }));
        found
    }

    async fn find(&self) -> ReceivedMessage {
        loop {
            // Before looking: what comes in between is not missed.
            let came = self.recorder.came.notified();
            tokio::pin!(came);
            came.as_mut().enable();
            if let Some(message) = self.take() {
                return message;
            }
            came.await;
        }
    }

    fn take(&self) -> Option<ReceivedMessage> {
        let mut recorded = self.recorder.recorded();
        let found = recorded
            .iter_mut()
            .find(|one| !one.is_used && self.is_met_by(&one.message))?;
        found.is_used = true;
        Some(found.message.clone())
    }

    fn is_met_by(&self, message: &ReceivedMessage) -> bool {
        let payload = self.payload.as_deref();
        topic::matches(&self.filter, &message.topic)
            && payload.is_none_or(|payload| payload == message.payload)
    }

    fn describe(&self, patience: Duration) -> String {
        let payload = self.payload.as_deref().map(String::from_utf8_lossy);
        let payload = payload.map_or_else(String::new, |payload| format!(" of {payload:?}"));
        format!(
            "no publish{payload} to {:?} within {patience:?}",
            self.filter
        )
    }
}

/// What has come and fulfilled nothing.
fn instead(recorder: &Recorder) -> String {
    let recorded = recorder.recorded();
    let unused = recorded.iter().filter(|one| !one.is_used);
    let mut said = "published instead:".to_owned();
    for one in unused.clone().take(SHOWN_MAX) {
        let payload = String::from_utf8_lossy(&one.message.payload);
        let payload: String = payload.chars().take(SHOWN_CHARS_MAX).collect();
        // Writing to a String succeeds.
        write!(said, "\n  {} {payload:?}", one.message.topic).ok();
    }
    match unused.count() {
        0 => "nothing else was published".to_owned(),
        count if count > SHOWN_MAX => format!("{said}\n  and {} more", count - SHOWN_MAX),
        _ => said,
    }
}

/// Messages that are kept: more than a test looks at, fewer than fill its memory.
const RECORDED_MAX: usize = 100_000;
/// Messages that a failure names.
const SHOWN_MAX: usize = 20;
/// Characters of each payload.
const SHOWN_CHARS_MAX: usize = 60;
