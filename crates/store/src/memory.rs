//! Stores without a disk: one that answers at once, one that answers when a test says so.
//!
//! Owns: [`MemoryStore`], [`HeldStore`]. Does not own: records. Start reading at [`MemoryStore`].
//! Invariant: [`Store::durable`] never moves back.

use std::collections::{BTreeMap, VecDeque};

use crate::{Batch, Load, Loaded, LoadedMessage, Record, Seq, SessionId, Store, StoreError};

/// Keeps nothing but a count: durable as long as the process lives, since the engine holds the state.
#[derive(Debug, Default)]
pub struct MemoryStore {
    appended: Seq,
    record_count: u64,
}

impl MemoryStore {
    /// A store that has taken nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many records it has taken.
    #[must_use]
    pub const fn record_count(&self) -> u64 {
        self.record_count
    }
}

impl Store for MemoryStore {
    fn append(&mut self, batch: Batch) -> Result<(), StoreError> {
        self.appended = following(self.appended, &batch)?;
        self.record_count += batch.records.len() as u64;
        Ok(())
    }

    fn written(&self) -> Seq {
        self.appended
    }

    fn durable(&self) -> Seq {
        self.appended
    }

    /// Keeps no message, so it has none: with it, the engine keeps every queue in memory.
    fn load(&mut self, _load: Load) {}

    fn poll_loaded(&mut self) -> Option<Loaded> {
        None
    }
}

/// Keeps every batch, and calls it durable only when told to: for tests of what must wait.
#[derive(Debug, Default)]
pub struct HeldStore {
    appended: Seq,
    durable: Seq,
    batches: Vec<Batch>,
    /// What earlier processes have left, and the batches that are durable: queued messages by number.
    queues: BTreeMap<SessionId, BTreeMap<u64, LoadedMessage>>,
    loaded: VecDeque<Loaded>,
}

impl HeldStore {
    /// A store that has taken nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A store that has taken nothing yet but finds the records of an earlier process.
    #[must_use]
    pub fn after(past: &[Record]) -> Self {
        let mut store = Self::default();
        past.iter().for_each(|record| store.enter(record));
        store
    }

    /// Makes everything taken so far durable; returns the new durable number.
    pub fn release(&mut self) -> Seq {
        let batches = std::mem::take(&mut self.batches);
        let durable = usize::try_from(self.durable.0).unwrap_or(usize::MAX);
        for record in batches
            .iter()
            .skip(durable)
            .flat_map(|batch| &batch.records)
        {
            self.enter(record);
        }
        self.batches = batches;
        self.durable = self.appended;
        self.durable
    }

    /// Every batch taken, oldest first.
    #[must_use]
    pub fn batches(&self) -> &[Batch] {
        &self.batches
    }

    fn enter(&mut self, record: &Record) {
        match record {
            Record::Enqueue {
                message, targets, ..
            } => {
                for target in targets {
                    let (target, message) = (target.clone(), message.clone());
                    let queue = self.queues.entry(target.session).or_default();
                    queue.insert(target.seq, LoadedMessage { target, message });
                }
            }
            Record::Dequeue {
                session,
                first_seq,
                count,
            } => {
                if let Some(queue) = self.queues.get_mut(session) {
                    let numbers = *first_seq..first_seq + count;
                    queue.extract_if(numbers, |_, _| true).for_each(drop);
                }
            }
            Record::Release { session, seq } => {
                if let Some(queue) = self.queues.get_mut(session) {
                    queue.remove(seq);
                }
            }
            Record::SessionDelete { session } => drop(self.queues.remove(session)),
            _ => {}
        }
    }
}

impl Store for HeldStore {
    fn append(&mut self, batch: Batch) -> Result<(), StoreError> {
        self.appended = following(self.appended, &batch)?;
        self.batches.push(batch);
        Ok(())
    }

    fn written(&self) -> Seq {
        self.durable
    }

    fn durable(&self) -> Seq {
        self.durable
    }

    /// Knows only what is durable.
    fn load(&mut self, load: Load) {
        let mut bytes = 0;
        let queue = self.queues.get(&load.session).into_iter();
        let messages = queue
            .flat_map(|queue| queue.range(load.from_seq..))
            .map(|(_, loaded)| loaded.clone())
            .take_while(|loaded| {
                let is_first = bytes == 0;
                bytes += loaded.message.payload.len() + loaded.message.topic.len();
                is_first || bytes <= load.bytes_max
            })
            .take(load.messages_max)
            .collect();
        self.loaded.push_back(Loaded {
            session: load.session,
            from_seq: load.from_seq,
            messages,
        });
    }

    fn poll_loaded(&mut self) -> Option<Loaded> {
        self.loaded.pop_front()
    }
}

fn following(appended: Seq, batch: &Batch) -> Result<Seq, StoreError> {
    let expected = Seq(appended.0 + 1);
    if batch.seq == expected {
        Ok(expected)
    } else {
        Err(StoreError::OutOfOrder {
            expected,
            found: batch.seq,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(seq: u64) -> Batch {
        Batch {
            seq: Seq(seq),
            ..Batch::default()
        }
    }

    #[test]
    fn the_memory_store_is_durable_at_once_and_wants_batches_in_order() {
        let mut store = MemoryStore::new();
        assert_eq!(store.append(batch(1)), Ok(()));
        assert_eq!(store.durable(), Seq(1));
        let expected = StoreError::OutOfOrder {
            expected: Seq(2),
            found: Seq(3),
        };
        assert_eq!(store.append(batch(3)), Err(expected));
    }

    #[test]
    fn the_held_store_is_durable_only_when_it_is_released() {
        let mut store = HeldStore::new();
        assert_eq!(store.append(batch(1)), Ok(()));
        assert_eq!(store.durable(), Seq(0));
        assert_eq!(store.release(), Seq(1));
        assert_eq!(store.durable(), Seq(1));
    }
}
