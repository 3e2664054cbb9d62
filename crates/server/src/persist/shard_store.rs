//! The store as one shard sees it.
//!
//! Owns: [`ShardStore`]: encoding, the order of this shard's batches, loads. Does not own: the thread that
//! writes (see `writer`) and the one that reads (see `reader`). Start reading at [`ShardStore::append`].
//! Invariant: nothing here waits for the disk.

use std::sync::{Arc, mpsc};

use store::{Batch, EncodedGroup, Load, Loaded, Seq, Store, StoreError};

use super::exchange::Exchange;

/// What one shard gives its batches to.
#[derive(Debug)]
pub(crate) struct ShardStore {
    shard: usize,
    exchange: Arc<Exchange>,
    appended: Seq,
    /// Where a batch is encoded, before the lock is taken.
    staged: EncodedGroup,
    loads: mpsc::Sender<(usize, Load)>,
    loaded: mpsc::Receiver<Loaded>,
}

impl ShardStore {
    pub(super) const fn new(
        shard: usize,
        exchange: Arc<Exchange>,
        loads: mpsc::Sender<(usize, Load)>,
        loaded: mpsc::Receiver<Loaded>,
    ) -> Self {
        Self {
            shard,
            exchange,
            appended: Seq(0),
            staged: EncodedGroup::new(),
            loads,
            loaded,
        }
    }
}

impl Store for ShardStore {
    fn append(&mut self, batch: Batch) -> Result<(), StoreError> {
        if let Some(error) = self.exchange.failure() {
            let error = error.to_owned();
            return Err(StoreError::Failed { error });
        }
        let expected = Seq(self.appended.0 + 1);
        if batch.seq != expected {
            return Err(StoreError::OutOfOrder {
                expected,
                found: batch.seq,
            });
        }
        self.appended = expected;
        self.staged.push(&batch);
        self.exchange.append(self.shard, &self.staged, expected);
        self.staged.clear(STAGED_BYTES);
        Ok(())
    }

    fn written(&self) -> Seq {
        self.exchange.written(self.shard)
    }

    fn durable(&self) -> Seq {
        self.exchange.durable(self.shard)
    }

    fn is_pressed(&self) -> bool {
        self.exchange.is_pressed()
    }

    fn held_bytes(&self) -> usize {
        self.exchange.held_bytes()
    }

    fn is_low(&self) -> bool {
        self.exchange.is_low()
    }

    fn load(&mut self, load: Load) {
        // Without its reader the Server is about to stop.
        self.loads.send((self.shard, load)).ok();
    }

    fn poll_loaded(&mut self) -> Option<Loaded> {
        self.loaded.try_recv().ok()
    }
}

/// Space that is kept for the next batch.
const STAGED_BYTES: usize = 1024 * 1024;
