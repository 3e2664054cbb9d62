//! Queued messages from the log, while another thread writes it.
//!
//! Owns: [`LogReader`]. Does not own: the index, the files (see `writer`). Start reading at [`LogReader::load`].
//! Invariant: a file that a record is to be read from is held before the index is let go, so it is not used
//! for another segment meanwhile.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::SharedIndex;
use super::files::{Files, SegmentFile};
use crate::codec::RecordRef;
use crate::disk::Disk;
use crate::{Load, Loaded, LoadedMessage, Location, SessionId};

/// Reads from a log. Clones read from the same one.
#[derive(Debug)]
pub struct LogReader<D: Disk> {
    index: SharedIndex,
    files: Arc<Files<D::File>>,
    unreadable: Arc<AtomicU64>,
}

impl<D: Disk> Clone for LogReader<D> {
    fn clone(&self) -> Self {
        Self {
            index: self.index.clone(),
            files: Arc::clone(&self.files),
            unreadable: Arc::clone(&self.unreadable),
        }
    }
}

/// An entry of a queue, and the file it is in, unless that was lost.
type Entry<F> = (u64, Location, Option<Arc<SegmentFile<F>>>);

impl<D: Disk> LogReader<D> {
    pub(crate) fn new(index: SharedIndex, files: Arc<Files<D::File>>) -> Self {
        Self {
            index,
            files,
            unreadable: Arc::default(),
        }
    }

    /// Reads what is wanted. A message that cannot be read any more is left out and counted, and those behind it
    /// are read instead: nothing found means that there is nothing more. Reads the disk once for each message.
    /// # Errors
    /// What the system says, where so much cannot be read that it is not the bytes that are damaged.
    pub fn load(&self, load: Load) -> io::Result<Loaded> {
        let mut messages = Vec::new();
        let mut part = load;
        while messages.is_empty() {
            let entries = self.entries(part);
            let Some((last_seq, ..)) = entries.last() else {
                break;
            };
            part.from_seq = last_seq.saturating_add(1);
            self.read_all(load.session, &entries, &mut messages)?;
        }
        Ok(Loaded {
            session: load.session,
            from_seq: load.from_seq,
            messages,
        })
    }

    /// Reads those of `entries` that can be read.
    fn read_all(
        &self,
        session: SessionId,
        entries: &[Entry<D::File>],
        messages: &mut Vec<LoadedMessage>,
    ) -> io::Result<()> {
        let mut buffer = Vec::new();
        for (seq, at, file) in entries {
            let len = at.len as usize;
            buffer.resize(len.max(buffer.len()), 0);
            let bytes = buffer.get_mut(..len).unwrap_or_default();
            let is_whole = match file {
                Some(file) => self.files.read(file, *at, bytes)?,
                None => false,
            };
            match message(bytes, session, *seq).filter(|_| is_whole) {
                Some(message) => messages.push(message),
                None => {
                    self.unreadable.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }

    /// How many messages could not be read.
    pub(crate) fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    fn entries(&self, load: Load) -> Vec<Entry<D::File>> {
        let index = self.index.lock();
        let mut bytes = 0;
        let entries = index.entries(load.session, load.from_seq);
        entries
            .take_while(|(_, at)| {
                let is_first = bytes == 0;
                bytes += at.len as usize;
                is_first || bytes <= load.bytes_max
            })
            .take(load.messages_max)
            .map(|(seq, at)| (seq, at, self.files.file(at.segment)))
            .collect()
    }
}

/// The message in `bytes` as it is for `session`.
fn message(bytes: &[u8], session: SessionId, seq: u64) -> Option<LoadedMessage> {
    let Ok((RecordRef::Enqueue(enqueue), _)) = RecordRef::decode(bytes) else {
        return None;
    };
    let mut targets = enqueue.targets();
    let target = targets.find(|target| target.session == session && target.seq == seq)?;
    Some(LoadedMessage {
        target: target.to_record(),
        message: enqueue.message.to_record(),
    })
}
