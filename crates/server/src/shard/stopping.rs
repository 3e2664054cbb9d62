//! How all shards stop together: wills and acknowledgements first, then every Client is told.
//!
//! Owns: [`Stopping`], [`Barriers`]. Does not own: what is published at a stop (see `engine`).
//! Start reading at [`Shard::go_on_stopping`]. Invariant: it ends within [`STOP_TIME_MAX`].

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use proto::packet::ReasonCode;
use store::Store;

use super::Shard;

/// How far a shard is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stopping {
    /// It serves.
    No,
    /// Its engine has published what a stop publishes; that is on its way to the other shards.
    Began(Instant),
    /// Every shard has sent that, and this one has taken it; its answers are on their way, and what it
    /// has to keep on its way to the disk.
    Drained(Instant),
    /// Every Client was told; connections close.
    Told(Instant),
}

/// How many shards have come how far.
#[derive(Debug, Default)]
pub(crate) struct Barriers {
    /// Shards that have everything the store had for them.
    pub(super) ready: AtomicUsize,
    /// Shards whose wills are in the rings.
    began: AtomicUsize,
    /// Shards that have taken all wills and have answered.
    drained: AtomicUsize,
}

impl<S: Store> Shard<S> {
    /// One step, if it is time for one. Called after the neighbours' rings were taken.
    pub(super) fn go_on_stopping(&mut self) {
        match self.stopping {
            Stopping::No => {
                if self.shared.is_stop_requested.load(Ordering::Acquire) {
                    self.begin_stop();
                }
            }
            Stopping::Began(until) => {
                if self.have_all(|barriers| &barriers.began, until) {
                    // Everything sent before the barrier is in our rings now.
                    self.take_parcels();
                    self.stopping = Stopping::Drained(until);
                    self.pass(|barriers| &barriers.drained);
                }
            }
            Stopping::Drained(until) => {
                if self.have_all(|barriers| &barriers.drained, until)
                    && (self.is_all_durable() || self.now + TELL_TIME >= until)
                {
                    self.take_parcels();
                    self.tell_all(until);
                }
            }
            Stopping::Told(_) => {}
        }
    }

    fn begin_stop(&mut self) {
        let until = self.now + STOP_TIME_MAX;
        tracing::info!(shard = self.links.own().0, "shard stops");
        self.acceptor.close();
        if self.shared.is_failed.load(Ordering::SeqCst) {
            // What a Will would change could not be kept: it is for the next start to publish.
            return self.tell_all(until);
        }
        self.engine.begin_stop(self.now);
        self.stopping = Stopping::Began(until);
        self.pass(|barriers| &barriers.began);
    }

    /// Settles and sends everything, then says so to all shards.
    fn pass(&mut self, barrier: impl Fn(&Barriers) -> &AtomicUsize) {
        self.has_news = true;
        self.settle();
        self.is_pressed = !self.links.flush();
        self.owes_barrier = true;
        self.pay_barrier(barrier);
    }

    /// Counts this shard once its rings have taken everything.
    fn pay_barrier(&mut self, barrier: impl Fn(&Barriers) -> &AtomicUsize) {
        if self.owes_barrier && !self.is_pressed {
            self.owes_barrier = false;
            barrier(&self.shared.barriers).fetch_add(1, Ordering::SeqCst);
            self.links.notify_all();
        }
    }

    /// Whether all shards have passed, or there is no more time to wait for them.
    fn have_all(&mut self, barrier: fn(&Barriers) -> &AtomicUsize, until: Instant) -> bool {
        self.pay_barrier(barrier);
        let passed = barrier(&self.shared.barriers).load(Ordering::SeqCst);
        passed >= self.links.shard_count() || self.now + TELL_TIME >= until
    }

    /// [MQTT-4.13.1-1] Every 5.0 Client hears why, then all connections close.
    fn tell_all(&mut self, until: Instant) {
        self.stopping = Stopping::Told(until);
        self.has_news = true;
        self.settle();
        let stop = &self.policy.stop;
        let reason = match stop.server_reference {
            Some(_) if stop.server_moved => ReasonCode::ServerMoved,
            Some(_) => ReasonCode::UseAnotherServer,
            None => ReasonCode::ServerShuttingDown,
        };
        self.engine
            .finish_stop(reason, stop.server_reference.as_deref());
        self.has_news = true;
        self.settle();
        let unserved: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.is_open())
            .map(|(_, connection)| connection.key)
            .collect();
        for key in unserved {
            self.begin_flushing(key);
        }
    }

    /// Whether nothing is left to do, or no time to do it.
    pub(super) fn has_stopped(&self) -> bool {
        match self.stopping {
            Stopping::Told(until) => self.connections.is_empty() || self.now >= until,
            _ => false,
        }
    }
}

/// A stop takes no longer than this.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);
/// What is kept of it for telling the Clients.
const TELL_TIME: Duration = Duration::from_secs(5);
