//! SUBSCRIBE and UNSUBSCRIBE of many Topic Filters, and long queues that go, done in slices: one in a turn.
//!
//! Owns: [`Sliced`], whose turn it is. Does not own: what is done for one Topic Filter (see `subscribe`). Start reading at
//! [`Engine::slice`]. Invariants: a Client gets one answer, when all of its packet is done; nothing that comes after it on
//! its connection is looked at before; a packet whose connection is gone is done no further.

use std::ops::Range;
use std::time::Instant;

use proto::PacketIdentifier;
use proto::connection::Outgoing;
use proto::packet::{ReasonCode, SubAck, SubscriptionOptions, SubscriptionRequest, UnsubAck};
use proto::session::Outbound;

use crate::keys::SessionKey;
use crate::pending::Wait;
use crate::{ConnectionKey, Engine};

/// A packet that is done in slices.
#[derive(Debug)]
pub(crate) struct Sliced {
    connection: ConnectionKey,
    packet_id: PacketIdentifier,
    asked: Asked,
    /// All Topic Filters, one behind the other: a text for each would take several times as much.
    text: String,
    /// Where each ends.
    ends: Vec<usize>,
    /// How many are done.
    done: usize,
    reasons: Vec<ReasonCode>,
    wait: Wait,
}

/// What is asked for.
#[derive(Debug)]
enum Asked {
    Subscribe {
        identifier: Option<u32>,
        options: Vec<SubscriptionOptions>,
        /// Which of them are to be sent what is retained, once the SUBACK has its place.
        replays: Vec<usize>,
    },
    Unsubscribe,
}

impl Sliced {
    /// A SUBSCRIBE.
    pub(crate) fn subscribe(
        connection: ConnectionKey,
        packet_id: PacketIdentifier,
        identifier: Option<u32>,
        requests: &[SubscriptionRequest<'_>],
    ) -> Self {
        let asked = Asked::Subscribe {
            identifier,
            options: requests.iter().map(|request| request.options).collect(),
            replays: Vec::new(),
        };
        let filters = requests.iter().map(|request| request.filter);
        Self::new(connection, packet_id, asked, filters)
    }

    /// An UNSUBSCRIBE.
    pub(crate) fn unsubscribe(
        connection: ConnectionKey,
        packet_id: PacketIdentifier,
        filters: &[&str],
    ) -> Self {
        let filters = filters.iter().copied();
        Self::new(connection, packet_id, Asked::Unsubscribe, filters)
    }

    fn new<'a>(
        connection: ConnectionKey,
        packet_id: PacketIdentifier,
        asked: Asked,
        filters: impl Iterator<Item = &'a str>,
    ) -> Self {
        let (mut text, mut ends) = (String::new(), Vec::new());
        for filter in filters {
            text.push_str(filter);
            ends.push(text.len());
        }
        Self {
            connection,
            packet_id,
            asked,
            reasons: Vec::with_capacity(ends.len()),
            text,
            ends,
            done: 0,
            wait: Wait::default(),
        }
    }

    fn filter(&self, index: usize) -> &str {
        let end_of = |index: usize| self.ends.get(index).copied().unwrap_or_default();
        let start = index.checked_sub(1).map_or(0, end_of);
        let range: Range<usize> = start..end_of(index);
        self.text.get(range).unwrap_or_default()
    }

    fn is_done(&self) -> bool {
        self.done >= self.ends.len()
    }
}

impl Engine {
    /// Does `sliced` one slice a turn, from this one on.
    pub(crate) fn slice(&mut self, sliced: Sliced) {
        if let Some(connection) = self.connections.get_mut(sliced.connection) {
            connection.is_slicing = true;
        }
        self.sliced.push_back(sliced);
    }

    /// Whether a packet of this connection is being done: what came after it has to wait.
    #[must_use]
    pub fn is_slicing(&self, connection: ConnectionKey) -> bool {
        // Nearly always there is none at all.
        !self.sliced.is_empty()
            && self
                .connections
                .get(connection)
                .is_some_and(|connection| connection.is_slicing)
    }

    /// Does a slice of the one whose turn it is.
    pub(crate) fn run_slices(&mut self, now: Instant) {
        let Some(mut sliced) = self.sliced.pop_front() else {
            return;
        };
        let Some(key) = self.session_of(sliced.connection) else {
            return;
        };
        self.refresh_rights(key);
        if !sliced.is_done() {
            self.run_slice(key, &mut sliced, now);
            if sliced.is_done() {
                self.answer_sliced(key, &mut sliced);
            }
        } else if let Asked::Subscribe { replays, .. } = &mut sliced.asked {
            let from = replays.len().saturating_sub(FILTERS_PER_SLICE);
            for index in replays.split_off(from) {
                let filter = sliced.filter(index);
                self.start_replay(key, filter, sliced.wait);
            }
            self.begin_replays();
        }
        let has_replays =
            matches!(&sliced.asked, Asked::Subscribe { replays, .. } if !replays.is_empty());
        if !sliced.is_done() || has_replays {
            self.sliced.push_back(sliced);
        } else if let Some(connection) = self.connections.get_mut(sliced.connection) {
            connection.is_slicing = false;
        }
    }

    /// Lets go of the queue of a Session that has ended, a part a turn where it is long: a million messages take a
    /// tenth of a second.
    pub(crate) fn shed(&mut self, outbound: Outbound) {
        if outbound.waiting_len() > MESSAGES_PER_SLICE {
            self.shedding.push_back(outbound);
        }
    }

    /// Lets go of a part of such a queue.
    pub(crate) fn run_shedding(&mut self) {
        if let Some(outbound) = self.shedding.front_mut() {
            self.work += MESSAGES_PER_SLICE as u64;
            if !outbound.shed(MESSAGES_PER_SLICE) {
                self.shedding.pop_front();
            }
        }
    }

    fn run_slice(&mut self, key: SessionKey, sliced: &mut Sliced, now: Instant) {
        let until = (sliced.done + FILTERS_PER_SLICE).min(sliced.ends.len());
        for index in sliced.done..until {
            let filter = sliced.filter(index);
            let (reason, wait, is_replayed) = match &sliced.asked {
                Asked::Subscribe {
                    identifier,
                    options,
                    ..
                } => {
                    let options = options.get(index).copied().unwrap_or_default();
                    let request = SubscriptionRequest { filter, options };
                    self.subscribe_one(key, &request, *identifier, now)
                }
                Asked::Unsubscribe => {
                    let (reason, wait) = self.unsubscribe_one(key, filter);
                    (reason, wait, false)
                }
            };
            sliced.reasons.push(reason);
            sliced.wait = sliced.wait.and(wait);
            if let Asked::Subscribe { replays, .. } = &mut sliced.asked
                && is_replayed
            {
                replays.push(index);
            }
        }
        sliced.done = until;
    }

    fn answer_sliced(&mut self, key: SessionKey, sliced: &mut Sliced) {
        let reasons = std::mem::take(&mut sliced.reasons);
        let packet_id = sliced.packet_id;
        let packet = match &sliced.asked {
            Asked::Subscribe { .. } => Outgoing::SubAck(SubAck {
                packet_id,
                reasons,
                properties: None,
            }),
            Asked::Unsubscribe => Outgoing::UnsubAck(UnsubAck {
                packet_id,
                reasons,
                properties: None,
            }),
        };
        self.emit(key, packet, sliced.wait);
    }
}

/// So many messages are let go of in one turn.
const MESSAGES_PER_SLICE: usize = 4096;
/// So many Topic Filters are looked at in one turn: a millisecond, about.
pub(crate) const FILTERS_PER_SLICE: usize = 512;
