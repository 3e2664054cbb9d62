//! What the application has handed over to be published, until it is answered.
//!
//! Owns: the queue, what is in flight, who waits for which acknowledgement. Does not own: Packet Identifiers and
//! handshakes (see `proto::connection`), how much may be handed over (the permits of [`ToPublish`]).
//! Start reading at [`Outgoing::pump`]. Invariant: `in_flight` holds exactly what the Session State holds, in its order.

use std::collections::VecDeque;
use std::time::Instant;

use proto::connection::{ClientConnection, ClientSession, SendError};
use proto::packet::{self, Packet, Publish, PublishProperties, ReasonCode, ReasonProperties};
use proto::{PacketIdentifier, Qos, Version};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::journal::{Journal, Kept, KeptPublication, Record};
use crate::error::{Error, Mistake, Refusal};
use crate::{Options, Publication, Published, Uncertain};

/// A publication, and who waits for its answer.
#[derive(Debug)]
pub(crate) struct ToPublish {
    pub(crate) publication: Publication,
    pub(crate) done: Option<oneshot::Sender<Result<Published, Error>>>,
    /// Its share of the queue: given back when it is answered.
    pub(crate) permits: Option<[OwnedSemaphorePermit; 2]>,
    /// Who waits until it is in the outbox, if there is one.
    pub(crate) kept: Option<oneshot::Sender<()>>,
}

/// With what it is known by in the journal.
#[derive(Debug)]
struct Entry {
    to_publish: ToPublish,
    /// None at QoS 0, and without an outbox.
    key: Option<u64>,
}

impl ToPublish {
    fn answer(self, result: Result<Published, Error>) {
        drop(self.permits);
        if let Some(done) = self.done {
            // Whoever dropped the other end does not want to know.
            done.send(result).ok();
        }
    }
}

#[derive(Debug)]
struct InFlight {
    packet_id: PacketIdentifier,
    entry: Entry,
}

#[derive(Debug)]
pub(super) struct Outgoing {
    waiting: VecDeque<Entry>,
    in_flight: VecDeque<InFlight>,
    in_flight_max: usize,
    uncertain: Uncertain,
    /// Where there is an outbox.
    journal: Option<Journal>,
}

impl Outgoing {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            in_flight_max: usize::from(options.bounds.in_flight_max.get()),
            uncertain: options.uncertain,
            journal: None,
        }
    }

    /// Takes up what an earlier program has left, and from now on keeps a journal.
    pub(super) fn restore(&mut self, kept: Kept, version: Version, session: &mut ClientSession) {
        self.journal = Some(Journal::from_key(kept.last_key));
        for (key, kept) in kept.publications {
            let packet_id = kept
                .packet_id
                .filter(|packet_id| is_restored(*packet_id, &kept, version, session));
            let entry = Entry {
                to_publish: ToPublish {
                    publication: kept.publication,
                    done: None,
                    permits: None,
                    kept: None,
                },
                key: Some(key),
            };
            match packet_id {
                Some(packet_id) => self.in_flight.push_back(InFlight { packet_id, entry }),
                None => self.waiting.push_back(entry),
            }
        }
    }

    /// What is not kept yet.
    pub(super) const fn journal_mut(&mut self) -> Option<&mut Journal> {
        self.journal.as_mut()
    }

    fn note(&mut self, record: impl FnOnce(u64) -> Record, key: Option<u64>) {
        if let (Some(journal), Some(key)) = (&mut self.journal, key) {
            journal.push(record(key));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.in_flight.len()
    }

    pub(super) fn push(&mut self, mut to_publish: ToPublish) {
        let kept = to_publish.kept.take();
        let is_kept = to_publish.publication.qos != Qos::AtMostOnce;
        let journal = self.journal.as_mut().filter(|_| is_kept);
        // Without one, whoever waits for it is told by its end.
        let key = journal.map(|journal| journal.put(&to_publish.publication, kept));
        self.waiting.push_back(Entry { to_publish, key });
    }

    /// Sends what the Server's Receive Maximum, our own maximum and the output allow, in order.
    pub(super) fn pump(
        &mut self,
        connection: &mut ClientConnection,
        now: Instant,
        out: &mut Vec<u8>,
    ) {
        while out.len() < OUT_BYTES_MAX && self.in_flight.len() < self.in_flight_max {
            let Some(entry) = self.waiting.front() else {
                return;
            };
            let publication = &entry.to_publish.publication;
            let sent = send(publication, connection, now, out);
            if matches!(sent, Err(Failed::NotNow)) {
                return;
            }
            let Some(entry) = self.waiting.pop_front() else {
                return;
            };
            match sent {
                Ok(Some(packet_id)) => {
                    self.note(|key| Record::Sent { key, packet_id }, entry.key);
                    self.in_flight.push_back(InFlight { packet_id, entry });
                }
                Ok(None) => entry.to_publish.answer(Ok(Published::unanswered())),
                Err(Failed::Mistake(mistake)) => {
                    self.note(|key| Record::Done { key }, entry.key);
                    entry.to_publish.answer(Err(Error::Caller(mistake)));
                }
                Err(Failed::NotNow) => {}
            }
        }
    }

    /// The Server has answered for good.
    pub(super) fn on_published(
        &mut self,
        packet_id: PacketIdentifier,
        reason: ReasonCode,
        properties: Option<Box<ReasonProperties>>,
    ) {
        let position = self
            .in_flight
            .iter()
            .position(|in_flight| in_flight.packet_id == packet_id);
        let found = position.and_then(|at| self.in_flight.remove(at));
        let Some(InFlight { entry, .. }) = found else {
            return;
        };
        let Entry { to_publish, key } = entry;
        self.note(|key| Record::Done { key }, key);
        // PUBCOMP: it has forgotten the identifier, since it has done all that it stood for.
        let is_done = reason == ReasonCode::PacketIdentifierNotFound;
        let reason = if is_done { ReasonCode::Success } else { reason };
        to_publish.answer(if reason.is_error() {
            Err(Error::Server(Refusal::Publish {
                packet_id,
                reason,
                properties,
            }))
        } else {
            Ok(Published {
                packet_id: Some(packet_id),
                reason,
                properties,
            })
        });
    }

    /// PUBREC has come.
    pub(super) fn on_received(&mut self, packet_id: PacketIdentifier) {
        let mut in_flight = self.in_flight.iter();
        let found = in_flight.find(|in_flight| in_flight.packet_id == packet_id);
        let key = found.and_then(|in_flight| in_flight.entry.key);
        self.note(|key| Record::Received { key }, key);
    }

    /// The Server knows nothing of what is in flight: QoS 1 is sent again as new, in order. Whether it has seen
    /// a QoS 2 message nobody knows.
    pub(super) fn on_session_lost(&mut self) {
        while let Some(InFlight { entry, .. }) = self.in_flight.pop_back() {
            let publication = &entry.to_publish.publication;
            let is_sent_again =
                publication.qos == Qos::AtLeastOnce || self.uncertain == Uncertain::SendAgain;
            if is_sent_again {
                self.waiting.push_front(entry);
                continue;
            }
            if entry.to_publish.done.is_none() {
                tracing::warn!(
                    topic = publication.topic,
                    "whether a message of an earlier program has arrived is not known"
                );
            }
            self.note(|key| Record::Done { key }, entry.key);
            let lost = Error::Server(Refusal::SessionLost);
            entry.to_publish.answer(Err(lost));
        }
    }

    pub(super) fn end(&mut self, why: &Error) {
        let in_flight = self.in_flight.drain(..);
        let in_flight = in_flight.map(|in_flight| in_flight.entry);
        for entry in in_flight.chain(self.waiting.drain(..)) {
            entry.to_publish.answer(Err(why.clone()));
        }
    }
}

/// Puts what an earlier program has sent back into the Session State; what cannot be there is sent as new.
fn is_restored(
    packet_id: PacketIdentifier,
    kept: &KeptPublication,
    version: Version,
    session: &mut ClientSession,
) -> bool {
    if kept.is_received {
        return session.restore_release(packet_id);
    }
    let publication = &kept.publication;
    let raw = if version == Version::V5 {
        publication.properties.as_slice()
    } else {
        &[]
    };
    let Ok(properties) = PublishProperties::parse(raw) else {
        return false;
    };
    let publish = Publish {
        dup: false,
        qos: publication.qos,
        retain: publication.retain,
        topic: &publication.topic,
        packet_id: Some(packet_id),
        properties,
        payload: &publication.payload,
    };
    let mut packet = Vec::new();
    let encoded = packet::encode(&Packet::Publish(publish), version, &mut packet);
    encoded.is_ok() && session.restore_publish(packet_id, publication.qos, packet)
}

enum Failed {
    NotNow,
    Mistake(Mistake),
}

fn send(
    publication: &Publication,
    connection: &mut ClientConnection,
    now: Instant,
    out: &mut Vec<u8>,
) -> Result<Option<PacketIdentifier>, Failed> {
    let raw = if connection.version() == Version::V5 {
        publication.properties.as_slice()
    } else {
        &[]
    };
    let properties = PublishProperties::parse(raw);
    let properties = properties.map_err(|error| Failed::Mistake(Mistake::Properties(error)))?;
    let publish = Publish {
        dup: false,
        qos: publication.qos,
        retain: publication.retain,
        topic: &publication.topic,
        packet_id: None,
        properties,
        payload: &publication.payload,
    };
    connection
        .publish(&publish, now, out)
        .map_err(|error| match error {
            SendError::QuotaExhausted | SendError::NoPacketIdentifier | SendError::NotConnected => {
                Failed::NotNow
            }
            error => Failed::Mistake(Mistake::Request(error)),
        })
}

/// Unsent bytes above which nothing more is written.
const OUT_BYTES_MAX: usize = 64 * 1024;
