//! How all shards start together: everything restored first, then every one accepts.
//!
//! Owns: [`Starting`]. Does not own: what is restored (see `engine`), how they stop (see `stopping`).
//! Start reading at [`Shard::go_on_starting`]. Invariant: no Client is served before every shard has what
//! the store had for it, and knows what the others want.

use std::sync::atomic::Ordering;
use std::sync::mpsc;

use store::Store;

use super::Shard;
use super::stopping::Stopping;

/// How far a shard is on its way to serve.
#[derive(Debug)]
pub(super) struct Starting {
    /// Hears that this shard accepts; `None` once it does.
    started: Option<mpsc::Sender<()>>,
    /// Whether the others know that this shard is ready.
    is_counted: bool,
}

impl Starting {
    pub(super) const fn new(started: mpsc::Sender<()>) -> Self {
        Self {
            started: Some(started),
            is_counted: false,
        }
    }
}

impl<S: Store> Shard<S> {
    /// One step, if it is time for one. Called after everything of the turn is on its way.
    pub(super) fn go_on_starting(&mut self) {
        if self.starting.started.is_none() || !matches!(self.stopping, Stopping::No) {
            return;
        }
        let ready = &self.shared.barriers.ready;
        if !self.starting.is_counted {
            if !self.engine.is_ready() {
                return;
            }
            self.starting.is_counted = true;
            ready.fetch_add(1, Ordering::SeqCst);
            self.links.notify_all();
        }
        if ready.load(Ordering::SeqCst) < self.links.shard_count() {
            return;
        }
        let Some(started) = self.starting.started.take() else {
            return;
        };
        if let Err(error) = self.acceptor.open(self.poll.registry()) {
            let reason = format!("a listener cannot be watched: {error}");
            self.shared.stop_because(&reason);
            return;
        }
        // Who starts us may have given up.
        started.send(()).ok();
    }
}
