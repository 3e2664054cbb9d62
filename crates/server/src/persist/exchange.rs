//! Where shards leave their batches, and where they see what has become of them.
//!
//! Owns: [`Exchange`]: the open group, the numbers up to which it was written and is durable, requests to the
//! persist thread. Does not own: files (see `writer`), the wake-up of shards (see `writer`).
//! Start reading at [`Exchange::append`]. Invariants: batches lie in a group in the order of `append`, those
//! of all shards; the lock is held for a copy of encoded bytes, never for a system call on a file.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::{Duration, Instant};

use store::{EncodedGroup, Seq};

/// What shards, the persist thread and the control thread share.
#[derive(Debug)]
pub(super) struct Exchange {
    open: Mutex<Open>,
    /// Wakes the persist thread.
    arrived: Condvar,
    /// Bytes in the open group.
    open_bytes: AtomicUsize,
    /// Bytes in the group that is being written.
    taken_bytes: AtomicUsize,
    progress: Box<[Progress]>,
    is_low: AtomicBool,
    failure: OnceLock<String>,
}

/// Batches that become durable together.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub(super) encoded: EncodedGroup,
    /// The last batch of each shard in it; 0 for none.
    pub(super) last: Vec<Seq>,
    /// When its first batch came.
    pub(super) began: Option<Instant>,
}

#[derive(Debug, Default)]
struct Open {
    group: Group,
    requests: Vec<Request>,
    is_closed: bool,
}

/// How far one shard's batches are. A cache line for each, so that shards do not disturb one another.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Progress {
    written: AtomicU64,
    durable: AtomicU64,
}

/// What the persist thread is asked, beside writing. Who asks hears nothing if it ends before.
#[derive(Debug)]
pub(super) enum Request {
    /// To end the current segment and to leave all that have ended alone until `Release`.
    Hold(mpsc::Sender<Result<Vec<String>, String>>),
    /// The end of `Hold`.
    Release,
    /// To sync from now on without waiting for more: everything stops.
    Hurry,
    /// To raise an alarm.
    Raise(String),
    /// To acknowledge all alarms.
    Acknowledge(mpsc::Sender<Result<Vec<String>, String>>),
}

/// What there was when the persist thread looked.
#[derive(Debug)]
pub(super) struct Taken {
    pub(super) requests: Vec<Request>,
    /// Whether shards may wait because so much was there.
    pub(super) was_pressed: bool,
    /// Whether nothing more comes.
    pub(super) is_closed: bool,
}

impl Exchange {
    pub(super) fn new(shard_count: u16) -> Self {
        let shard_count = usize::from(shard_count);
        let mut open = Open::default();
        open.group.last = vec![Seq(0); shard_count];
        Self {
            open: Mutex::new(open),
            arrived: Condvar::new(),
            open_bytes: AtomicUsize::new(0),
            taken_bytes: AtomicUsize::new(0),
            progress: (0..shard_count).map(|_| Progress::default()).collect(),
            is_low: AtomicBool::new(false),
            failure: OnceLock::new(),
        }
    }

    /// Adds the encoded batches of a shard, up to number `last`, to the open group.
    pub(super) fn append(&self, shard: usize, encoded: &EncodedGroup, last: Seq) {
        let mut open = self.lock();
        let was_empty = open.group.encoded.is_empty();
        open.group.encoded.append(encoded);
        if let Some(slot) = open.group.last.get_mut(shard) {
            *slot = last;
        }
        let bytes = open.group.encoded.bytes().len();
        self.open_bytes.store(bytes, Ordering::Relaxed);
        if was_empty {
            open.group.began = Some(Instant::now());
            drop(open);
            // The persist thread sleeps only over an empty group.
            self.arrived.notify_one();
        }
    }

    /// Whether so much waits that publishers should not be read.
    pub(super) fn is_pressed(&self) -> bool {
        self.open_bytes.load(Ordering::Relaxed) > PRESSED_BYTES
    }

    /// Bytes that wait to be written or are being written.
    pub(super) fn held_bytes(&self) -> usize {
        self.open_bytes.load(Ordering::Relaxed) + self.taken_bytes.load(Ordering::Relaxed)
    }

    /// Up to where a shard's batches are written.
    pub(super) fn written(&self, shard: usize) -> Seq {
        let progress = self.progress.get(shard);
        Seq(progress.map_or(0, |of| of.written.load(Ordering::Acquire)))
    }

    /// Up to where a shard's batches are durable.
    pub(super) fn durable(&self, shard: usize) -> Seq {
        let progress = self.progress.get(shard);
        Seq(progress.map_or(0, |of| of.durable.load(Ordering::Acquire)))
    }

    pub(super) fn set_written(&self, shard: usize, seq: Seq) {
        if let Some(progress) = self.progress.get(shard) {
            progress.written.store(seq.0, Ordering::Release);
        }
    }

    pub(super) fn set_durable(&self, shard: usize, seq: Seq) {
        if let Some(progress) = self.progress.get(shard) {
            progress.durable.store(seq.0, Ordering::Release);
        }
    }

    pub(super) fn is_low(&self) -> bool {
        self.is_low.load(Ordering::Acquire)
    }

    /// Returns whether that is news.
    pub(super) fn set_low(&self, is_low: bool) -> bool {
        self.is_low.swap(is_low, Ordering::AcqRel) != is_low
    }

    /// Why nothing is taken any more.
    pub(super) fn failure(&self) -> Option<&str> {
        self.failure.get().map(String::as_str)
    }

    /// Nothing is taken any more; the first reason is kept.
    pub(super) fn fail(&self, reason: &str) {
        self.failure.get_or_init(|| reason.to_owned());
    }

    /// Asks the persist thread for something.
    pub(super) fn request(&self, request: Request) {
        self.lock().requests.push(request);
        self.arrived.notify_one();
    }

    /// Says that no more batches come: once everything is written, the persist thread ends.
    pub(super) fn close(&self) {
        self.lock().is_closed = true;
        self.arrived.notify_one();
    }

    /// Waits for something to do, no longer than `patience`, and puts the open group in the place of `group`,
    /// which is to be empty.
    pub(super) fn take(&self, group: &mut Group, patience: Duration) -> Taken {
        let is_idle = |open: &mut Open| {
            open.group.encoded.is_empty() && open.requests.is_empty() && !open.is_closed
        };
        let waited = self
            .arrived
            .wait_timeout_while(self.lock(), patience, is_idle);
        let (mut open, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut open.group, group);
        let was_pressed = self.is_pressed();
        self.open_bytes.store(0, Ordering::Relaxed);
        let taken = group.encoded.bytes().len();
        self.taken_bytes.store(taken, Ordering::Relaxed);
        Taken {
            requests: std::mem::take(&mut open.requests),
            was_pressed,
            is_closed: open.is_closed,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // What is in it is whole: a panic can only come before or after the copy of a batch.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes what is written durable without waiting for more, since the server stops.
#[derive(Clone, Debug)]
pub(crate) struct Hurry(Arc<Exchange>);

impl Hurry {
    pub(super) const fn new(exchange: Arc<Exchange>) -> Self {
        Self(exchange)
    }

    pub(crate) fn hurry(&self) {
        self.0.request(Request::Hurry);
    }
}

impl Group {
    /// Empties it for the next time and keeps its space, within reason.
    pub(super) fn clear(&mut self) {
        self.encoded.clear(KEPT_BYTES);
        self.last.fill(Seq(0));
        self.began = None;
    }
}

/// With more than this in the open group, publishers are not read.
const PRESSED_BYTES: usize = 4 * 1024 * 1024;
/// Space that an empty group keeps.
const KEPT_BYTES: usize = 2 * PRESSED_BYTES;

#[cfg(test)]
mod tests {
    use store::{Batch, Level, Record};

    use super::*;

    fn encoded(bytes: usize) -> EncodedGroup {
        let mut group = EncodedGroup::new();
        let topic = vec![b'x'; bytes].into();
        group.push(&Batch {
            seq: Seq(1),
            records: vec![Record::RetainedDelete { topic }],
            level: Level::Synced,
        });
        group
    }

    fn empty(shard_count: usize) -> Group {
        Group {
            last: vec![Seq(0); shard_count],
            ..Group::default()
        }
    }

    #[test]
    fn group_has_all_batches_and_the_last_number_of_each_shard() {
        let exchange = Exchange::new(3);
        exchange.append(1, &encoded(10), Seq(4));
        exchange.append(0, &encoded(20), Seq(1));
        exchange.append(1, &encoded(30), Seq(5));
        let mut group = empty(3);
        exchange.take(&mut group, Duration::ZERO);
        assert_eq!(group.encoded.batch_count(), 3);
        assert_eq!(group.last, [Seq(1), Seq(5), Seq(0)]);
        group.clear();
        exchange.take(&mut group, Duration::ZERO);
        assert!(group.encoded.is_empty());
        assert_eq!(group.last, [Seq(0); 3]);
    }

    #[test]
    fn pressure_begins_with_a_full_group_and_ends_when_it_is_taken() {
        let exchange = Exchange::new(1);
        exchange.append(0, &encoded(PRESSED_BYTES / 2), Seq(1));
        assert!(!exchange.is_pressed());
        exchange.append(0, &encoded(PRESSED_BYTES / 2), Seq(2));
        assert!(exchange.is_pressed());
        let mut group = empty(1);
        assert!(exchange.take(&mut group, Duration::ZERO).was_pressed);
        assert!(!exchange.is_pressed());
    }

    #[test]
    fn sleeping_writer_is_woken_by_the_first_batch_and_by_the_end() {
        let exchange = Exchange::new(1);
        let patience = Duration::from_secs(60);
        std::thread::scope(|scope| {
            let taken = scope.spawn(|| {
                let mut group = empty(1);
                exchange.take(&mut group, patience);
                let batches = group.encoded.batch_count();
                group.clear();
                let end = exchange.take(&mut group, patience);
                (batches, end.is_closed)
            });
            exchange.append(0, &encoded(1), Seq(1));
            while exchange.open_bytes.load(Ordering::Relaxed) > 0 {
                std::thread::yield_now();
            }
            exchange.close();
            assert_eq!(taken.join().expect("no panic"), (1, true));
        });
    }
}
