//! What the application has handed over to be published, until it is answered.
//!
//! Owns: the queue, what is in flight, who waits for which acknowledgement. Does not own: Packet Identifiers and
//! handshakes (see `proto::connection`), how much may be handed over (the permits of [`ToPublish`]).
//! Start reading at [`Outgoing::pump`]. Invariant: `in_flight` holds exactly what the Session State holds, in its order.

use std::collections::VecDeque;
use std::time::Instant;

use proto::connection::{ClientConnection, SendError};
use proto::packet::{Publish, PublishProperties, ReasonCode, ReasonProperties};
use proto::{PacketIdentifier, Qos, Version};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use crate::error::{Error, Mistake, Refusal};
use crate::{Options, Publication, Published, Uncertain};

/// A publication, and who waits for its answer.
#[derive(Debug)]
pub(crate) struct ToPublish {
    pub(crate) publication: Publication,
    pub(crate) done: Option<oneshot::Sender<Result<Published, Error>>>,
    /// Its share of the queue: given back when it is answered.
    pub(crate) permits: Option<[OwnedSemaphorePermit; 2]>,
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
    to_publish: ToPublish,
}

#[derive(Debug)]
pub(super) struct Outgoing {
    waiting: VecDeque<ToPublish>,
    in_flight: VecDeque<InFlight>,
    in_flight_max: usize,
    uncertain: Uncertain,
}

impl Outgoing {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            waiting: VecDeque::new(),
            in_flight: VecDeque::new(),
            in_flight_max: usize::from(options.bounds.in_flight_max.get()),
            uncertain: options.uncertain,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.in_flight.len()
    }

    pub(super) fn push(&mut self, to_publish: ToPublish) {
        self.waiting.push_back(to_publish);
    }

    /// Sends what the Server's Receive Maximum, our own maximum and the output allow, in order.
    pub(super) fn pump(
        &mut self,
        connection: &mut ClientConnection,
        now: Instant,
        out: &mut Vec<u8>,
    ) {
        while out.len() < OUT_BYTES_MAX && self.in_flight.len() < self.in_flight_max {
            let Some(to_publish) = self.waiting.front() else {
                return;
            };
            let sent = send(&to_publish.publication, connection, now, out);
            if matches!(sent, Err(Failed::NotNow)) {
                return;
            }
            let Some(to_publish) = self.waiting.pop_front() else {
                return;
            };
            match sent {
                Ok(Some(packet_id)) => self.in_flight.push_back(InFlight {
                    packet_id,
                    to_publish,
                }),
                Ok(None) => to_publish.answer(Ok(Published::unanswered())),
                Err(Failed::Mistake(mistake)) => to_publish.answer(Err(Error::Caller(mistake))),
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
        let Some(InFlight { to_publish, .. }) = position.and_then(|at| self.in_flight.remove(at))
        else {
            return;
        };
        // PUBCOMP: it has forgotten the identifier, since it has done all that it stood for.
        let is_done = reason == ReasonCode::PacketIdentifierNotFound;
        let reason = if is_done { ReasonCode::Success } else { reason };
        to_publish.answer(if reason.is_error() {
            Err(Error::Server(Refusal::Publish { reason, properties }))
        } else {
            Ok(Published {
                packet_id: Some(packet_id),
                reason,
                properties,
            })
        });
    }

    /// The Server knows nothing of what is in flight: QoS 1 is sent again as new, in order. Whether it has seen
    /// a QoS 2 message nobody knows.
    pub(super) fn on_session_lost(&mut self) {
        while let Some(InFlight { to_publish, .. }) = self.in_flight.pop_back() {
            let is_sent_again = to_publish.publication.qos == Qos::AtLeastOnce
                || self.uncertain == Uncertain::SendAgain;
            if is_sent_again {
                self.waiting.push_front(to_publish);
            } else {
                to_publish.answer(Err(Error::Server(Refusal::SessionLost)));
            }
        }
    }

    pub(super) fn end(&mut self, why: &Error) {
        let in_flight = self.in_flight.drain(..);
        let in_flight = in_flight.map(|in_flight| in_flight.to_publish);
        for to_publish in in_flight.chain(self.waiting.drain(..)) {
            to_publish.answer(Err(why.clone()));
        }
    }
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
