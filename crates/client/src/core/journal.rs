//! What has to be known of publications after the end of the program, as a list of facts.
//!
//! Owns: [`Record`], [`Kept`], which is what a list of them amounts to. Does not own: files (see `outbox`), when a fact
//! is one (see `outgoing`). Start reading at [`Kept::apply`]. Invariant: a publication is kept from [`Record::Put`] to
//! [`Record::Done`].

use std::collections::BTreeMap;

use proto::PacketIdentifier;
use tokio::sync::oneshot;

use crate::Publication;

/// One fact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// It was handed over. Keys rise.
    Put { key: u64, publication: Publication },
    /// It was sent, with this Packet Identifier, which it keeps.
    Sent {
        key: u64,
        packet_id: PacketIdentifier,
    },
    /// PUBREC: the PUBLISH is not sent again.
    Received { key: u64 },
    /// It is answered.
    Done { key: u64 },
}

/// A publication that an earlier program has left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeptPublication {
    pub(crate) publication: Publication,
    pub(crate) packet_id: Option<PacketIdentifier>,
    pub(crate) is_received: bool,
}

/// All of them, by their keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) publications: BTreeMap<u64, KeptPublication>,
    pub(crate) last_key: u64,
}

impl Kept {
    pub(crate) fn apply(&mut self, record: Record) {
        match record {
            Record::Put { key, publication } => {
                self.last_key = self.last_key.max(key);
                let kept = KeptPublication {
                    publication,
                    packet_id: None,
                    is_received: false,
                };
                self.publications.insert(key, kept);
            }
            Record::Sent { key, packet_id } => {
                if let Some(kept) = self.publications.get_mut(&key) {
                    kept.packet_id = Some(packet_id);
                    kept.is_received = false;
                }
            }
            Record::Received { key } => {
                if let Some(kept) = self.publications.get_mut(&key) {
                    kept.is_received = true;
                }
            }
            Record::Done { key } => {
                self.publications.remove(&key);
            }
        }
    }
}

/// Facts that are not kept yet. Nothing that rests on them may leave before.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    records: Vec<Record>,
    /// Who waits for them.
    waiting: Vec<oneshot::Sender<()>>,
    last_key: u64,
}

impl Journal {
    pub(super) const fn from_key(last_key: u64) -> Self {
        Self {
            records: Vec::new(),
            waiting: Vec::new(),
            last_key,
        }
    }

    /// A publication, from which its key comes.
    pub(super) fn put(
        &mut self,
        publication: &Publication,
        kept: Option<oneshot::Sender<()>>,
    ) -> u64 {
        self.last_key += 1;
        self.records.push(Record::Put {
            key: self.last_key,
            publication: publication.clone(),
        });
        self.waiting.extend(kept);
        self.last_key
    }

    pub(super) fn push(&mut self, record: Record) {
        self.records.push(record);
    }

    /// What is to be kept now.
    pub(crate) fn take(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.records)
    }

    /// It is kept.
    pub(crate) fn on_kept(&mut self) {
        for waiting in self.waiting.drain(..) {
            // Whoever waited may have gone.
            waiting.send(()).ok();
        }
    }
}
