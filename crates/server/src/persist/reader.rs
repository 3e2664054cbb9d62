//! The thread that reads queued messages back, while others are written.
//!
//! Owns: the order of loads, what happens when one fails. Does not own: where messages lie (see
//! `store::LogReader`), when they are wanted (see `engine`). Start reading at [`Reader::run`].
//! Invariant: every load is answered, or is tried again while the Server runs.

use std::collections::VecDeque;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use store::disk::Disk;
use store::{Load, Loaded, LogReader};

use super::exchange::{Exchange, Request};
use crate::shard::Shared;

/// The thread that reads.
#[derive(Debug)]
pub(super) struct Reader<D: Disk> {
    log: LogReader<D>,
    loads: mpsc::Receiver<(usize, Load)>,
    /// One for each shard.
    answers: Vec<mpsc::Sender<Loaded>>,
    exchange: Arc<Exchange>,
    shared: Arc<Shared>,
    /// Those that have failed, and when they are tried again.
    failed: VecDeque<(Instant, usize, Load)>,
}

impl<D: Disk> Reader<D> {
    pub(super) const fn new(
        log: LogReader<D>,
        loads: mpsc::Receiver<(usize, Load)>,
        answers: Vec<mpsc::Sender<Loaded>>,
        exchange: Arc<Exchange>,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            log,
            loads,
            answers,
            exchange,
            shared,
            failed: VecDeque::new(),
        }
    }

    /// Runs until no shard is left that could ask.
    pub(super) fn run(mut self) {
        loop {
            let next = match self.failed.front() {
                None => self
                    .loads
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
                Some((at, ..)) => {
                    let patience = at.saturating_duration_since(Instant::now());
                    self.loads.recv_timeout(patience)
                }
            };
            match next {
                Ok((shard, load)) => self.load(shard, load),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    if let Some((_, shard, load)) = self.failed.pop_front() {
                        self.load(shard, load);
                    }
                }
            }
        }
    }

    fn load(&mut self, shard: usize, load: Load) {
        match self.log.load(load) {
            Ok(loaded) => {
                if let Some(answers) = self.answers.get(shard) {
                    // A shard that has ended wants nothing.
                    answers.send(loaded).ok();
                }
                if let Some(mailbox) = self.shared.mailboxes.get(shard) {
                    mailbox.wake();
                }
            }
            Err(error) => {
                let text = format!(
                    "queued messages cannot be read, and their Clients wait: {error}; if it stays, \
                     restart the server: it sets damage aside"
                );
                self.exchange.request(Request::Raise(text));
                self.failed
                    .push_back((Instant::now() + RETRY_PAUSE, shard, load));
            }
        }
    }
}

/// Time until a load that has failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
