//! A shard and its store: batches out, what has become of them back, the queues that are on disk.
//!
//! Owns: when the engine hears of the store. Does not own: what waits for it (see `engine`), the thread that
//! writes (see `persist`). Start reading at [`Shard::take_from_store`].
//! Invariant: a shard sleeps only if it has seen all that the store has to say.

use std::sync::atomic::Ordering;

use store::{Batch, Seq, Store};

use super::Shard;

/// What a shard knows of its store.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stored {
    /// The last batch given to it.
    appended: Seq,
    /// Up to here the engine knows batches as handed to the system.
    written: Seq,
    /// Up to here the engine knows batches as durable.
    durable: Seq,
    /// Whether publishers are not read because the store has too much to write.
    pub(super) is_pressed: bool,
    /// Whether the disk is low, as the engine knows it.
    pub(super) is_low: bool,
}

impl<S: Store> Shard<S> {
    /// Gives the store what has to become durable.
    pub(super) fn persist(&mut self, batch: Batch) {
        self.stored.appended = batch.seq;
        if let Err(error) = self.store.append(batch) {
            self.shared.fail_store(&error.to_string());
        }
    }

    /// Tells the engine what has become durable since it was told last; returns whether anything has.
    pub(super) fn take_persisted(&mut self) -> bool {
        // In this order: what is durable was written before.
        let durable = self.store.durable();
        let written = self.store.written().max(durable);
        if written <= self.stored.written && durable <= self.stored.durable {
            return false;
        }
        self.stored.written = written;
        self.stored.durable = durable;
        self.has_news = true;
        self.engine.on_persisted(written, durable, self.now);
        true
    }

    /// Gives the engine the queued messages it has asked for; returns whether there were any answers.
    fn take_loaded(&mut self) -> bool {
        let mut has_loaded = false;
        while let Some(loaded) = self.store.poll_loaded() {
            self.guarded(|engine, now| engine.on_loaded(loaded, now));
            has_loaded = true;
        }
        self.has_news |= has_loaded;
        has_loaded
    }

    /// Takes what the store has to say, once in a turn.
    pub(super) fn take_from_store(&mut self) {
        let has_loaded = self.take_loaded();
        if self.take_persisted() || has_loaded {
            self.deliver();
        }
        let is_low = self.store.is_low();
        if is_low != self.stored.is_low {
            self.stored.is_low = is_low;
            self.engine.on_storage_low(is_low);
            if !is_low {
                self.resume_stalled();
            }
        }
    }

    /// Reads those again whose PUBLISH has waited for room on the disk.
    fn resume_stalled(&mut self) {
        let stalled = self.connections.iter();
        let stalled: Vec<_> = stalled
            .filter(|(_, connection)| connection.flags.is_stalled)
            .map(|(_, connection)| connection.key)
            .collect();
        for key in stalled {
            self.mark_ready(key);
        }
    }

    /// Reads publishers again, or not, as the store can take more.
    pub(super) fn judge_store(&mut self) {
        self.stored.is_pressed = self.store.is_pressed();
    }

    /// Whether the store has nothing to say that was not taken; asked once it wakes us if it has.
    pub(super) fn is_store_quiet(&self) -> bool {
        let stored = &self.stored;
        self.store.written() <= stored.written
            && self.store.durable() <= stored.durable
            && self.store.is_low() == stored.is_low
            && self.store.is_pressed() >= stored.is_pressed
    }

    /// Whether everything given to the store is durable, or never will be.
    pub(super) fn is_all_durable(&self) -> bool {
        self.stored.durable >= self.stored.appended || self.shared.is_failed.load(Ordering::SeqCst)
    }
}
