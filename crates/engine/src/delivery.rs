//! From the queue of a Session through its window to its connection.
//!
//! Owns: what is sent now, what waits, what is discarded (expired, too large, receiver too slow).
//! Does not own: who gets a message (see `publish`), handshakes (see `proto::session`).
//! Start reading at [`Engine::deliver`]. Invariant: QoS 1 and 2 messages for a Session start in the
//! order they were published, also while it is congested or offline.

use std::sync::Arc;
use std::time::Instant;

use proto::connection::{Delivery, Outgoing};
use proto::packet::{Ack, OutgoingPublish, ReasonCode};
use proto::session::{Answered, PubRecOutcome, Queued, Resend};
use proto::{Message, PacketIdentifier, Qos, Version};
use store::{Record, Target};

use crate::commits::Gate;
use crate::keys::SessionKey;
use crate::losses::Loss;
use crate::pending::Wait;
use crate::sessions::{Link, Session};
use crate::{ConnectionKey, Engine};

/// How one message goes to one Session.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) qos: Qos,
    pub(crate) retain: bool,
    pub(crate) subscription_identifiers: Option<Arc<[u32]>>,
    /// Set if the message does not count before.
    pub(crate) gate: Option<Gate>,
}

impl Engine {
    /// Delivers `message` to one Session: now, or when the Session can take it. `terms.qos` is already
    /// the lower of the published and the granted one, [MQTT-3.8.4-8].
    pub(crate) fn deliver(
        &mut self,
        key: SessionKey,
        message: &Arc<Message>,
        terms: Terms,
        now: Instant,
    ) {
        if terms.qos == Qos::AtMostOnce {
            self.deliver_qos0(key, message, terms, now);
            return;
        }
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        // [v3.1.1 MQTT-3.1.2-5] [v3.1.1 MQTT-4.1.0-1] Kept for a Session that outlives its connection.
        if session.link.is_none() && !session.is_durable() {
            return;
        }
        if !session.is_durable() && self.deliver_at_once(key, message, &terms, now) {
            return;
        }
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let durable = session.stores(self.level, terms.qos).then_some(session.id);
        let queued = Queued {
            message: Arc::clone(message),
            subscription_identifiers: terms.subscription_identifiers.clone(),
            seq: 0,
            qos: terms.qos,
            retain: terms.retain,
            is_stored: durable.is_some(),
        };
        let Some(seq) = self.enqueue(key, queued, now) else {
            return;
        };
        if let Some(session) = durable {
            // What its Client has seen once it must not see again, should the message not count.
            if let (Some(gate), Qos::ExactlyOnce) = (terms.gate, terms.qos) {
                self.commits.hold(session, seq, gate);
            }
            self.targets.push(Target {
                session,
                seq,
                qos: terms.qos.level(),
                retain: terms.retain,
                subscription_identifiers: terms.subscription_identifiers,
            });
            self.copies += 1;
        }
        self.pump(key, now);
    }

    /// To a Session that ends with its connection, and takes what comes: it is sent now or never, so it is not queued
    /// and not kept. False if it has to wait.
    fn deliver_at_once(
        &mut self,
        key: SessionKey,
        message: &Arc<Message>,
        terms: &Terms,
        now: Instant,
    ) -> bool {
        let taken = self.taken;
        let Some(session) = self.sessions.get_mut(key) else {
            return false;
        };
        let Some(link) = session.link.as_mut().filter(|link| !link.is_congested) else {
            return false;
        };
        let mut delivery = Delivery {
            message: Arc::clone(message),
            dup: false,
            qos: terms.qos,
            retain: terms.retain,
            packet_id: Some(PacketIdentifier::FIRST),
            subscription_identifiers: terms.subscription_identifiers.clone(),
        };
        if !link.has_burst_left(taken)
            || message.is_expired(now)
            || is_too_large(link, &delivery, now)
        {
            return false;
        }
        let wait = link.wait_for_dropped();
        let Some(packet_id) = session.outbound.start_at_once(terms.qos, 1) else {
            return false;
        };
        delivery.packet_id = Some(packet_id);
        self.touch(key);
        self.send_queued(key, delivery, wait);
        true
    }

    fn deliver_qos0(
        &mut self,
        key: SessionKey,
        message: &Arc<Message>,
        terms: Terms,
        now: Instant,
    ) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let Some(link) = &session.link else { return };
        if message.is_expired(now) {
            self.counters.messages_expired += 1;
            return;
        }
        // [MQTT-4.3.1-1] [v3.1.1 MQTT-4.3.1-1]
        let delivery = Delivery {
            message: Arc::clone(message),
            dup: false,
            qos: Qos::AtMostOnce,
            retain: terms.retain,
            packet_id: None,
            subscription_identifiers: terms.subscription_identifiers,
        };
        // A connection whose packets wait for the store is congested, too.
        if link.is_congested || link.held.len() >= HELD_MAX {
            self.lose(key, Loss::Congested);
        } else if is_too_large(link, &delivery, now) {
            self.lose(key, Loss::TooLarge);
        } else {
            self.send_delivery(key, delivery, Wait::default());
        }
    }

    fn send_delivery(&mut self, key: SessionKey, delivery: Delivery, wait: Wait) {
        self.counters.publishes_sent += 1;
        self.counters.publish_bytes_sent += delivery.message.payload().len() as u64;
        self.emit(key, Outgoing::Publish(delivery), wait);
    }

    /// Sends what the Session's window and connection can take: first what has to be sent again, then
    /// what waits.
    pub(crate) fn pump(&mut self, key: SessionKey, now: Instant) {
        self.refresh_rights(key);
        while self.may_send_more(key) && (self.resend_one(key, now) || self.start_one(key, now)) {}
        self.resume_replays(key);
        self.want_load(key);
    }

    /// Whether the burst of this Session may go on. If not, it does once the server has taken the outputs
    /// and could say that the connection is congested.
    fn may_send_more(&mut self, key: SessionKey) -> bool {
        let taken = self.taken;
        let Some(session) = self.sessions.get_mut(key) else {
            return false;
        };
        let Some(link) = &mut session.link else {
            return false;
        };
        if link.has_burst_left(taken) {
            return true;
        }
        if !std::mem::replace(&mut session.is_paced, true) {
            self.paced.push(key);
        }
        false
    }

    /// Goes on with the queues that had to wait for the outputs to be taken.
    pub(crate) fn run_paced(&mut self, now: Instant) {
        for key in std::mem::take(&mut self.paced) {
            if let Some(session) = self.sessions.get_mut(key) {
                session.is_paced = false;
                self.pump(key, now);
            }
        }
    }

    /// Sends a delivery from the queue, as part of the Session's burst.
    fn send_queued(&mut self, key: SessionKey, delivery: Delivery, wait: Wait) {
        if let Some(link) = self.sessions.link_mut(key) {
            link.add_to_burst(delivery.message.memory_bytes());
        }
        self.send_delivery(key, delivery, wait);
    }

    /// [MQTT-4.4.0-1] [v3.1.1 MQTT-4.4.0-1]
    fn resend_one(&mut self, key: SessionKey, now: Instant) -> bool {
        let Some(session) = self.sessions.get_mut(key) else {
            return false;
        };
        let Some(link) = session.link.as_ref().filter(|link| !link.is_congested) else {
            return false;
        };
        match session.outbound.poll_resend() {
            None => false,
            Some(Resend::PubRel(packet_id)) => {
                let ack = Ack::new(packet_id, ReasonCode::Success);
                let wait = self.wait_for_batch();
                self.emit(key, Outgoing::PubRel(ack), wait);
                true
            }
            Some(Resend::Publish(again)) => {
                // [MQTT-3.3.1-1] [v3.1.1 MQTT-3.3.1-1]
                let delivery = delivery_of(&again.queued, again.packet_id, true);
                let wait = self.commits.wait_of_delivery(session.id, again.queued.seq);
                let is_denied = self.rights.denies_queued(session, &again.queued);
                if is_denied || is_too_large(link, &delivery, now) {
                    let why = if is_denied {
                        Why::Denied
                    } else {
                        Why::TooLarge
                    };
                    self.discard_in_flight(key, again.packet_id, why, now);
                } else {
                    self.send_queued(key, delivery, wait);
                }
                true
            }
        }
    }

    /// [MQTT-3.1.2-25] As if it had been sent and acknowledged.
    fn discard_in_flight(
        &mut self,
        key: SessionKey,
        packet_id: PacketIdentifier,
        why: Why,
        now: Instant,
    ) {
        let discarded = self
            .sessions
            .get_mut(key)
            .and_then(|session| session.outbound.discard_in_flight(packet_id));
        if let Some(queued) = discarded {
            self.on_discarded(key, &queued, why, now);
        }
    }

    fn on_discarded(&mut self, key: SessionKey, queued: &Queued, why: Why, now: Instant) {
        match why {
            Why::Expired => self.counters.messages_expired += 1,
            Why::TooLarge => self.lose(key, Loss::TooLarge),
            // Counts and tells.
            Why::Denied => drop(self.check_receive(key, &queued.message, now)),
        }
        self.on_dropped(key, queued);
    }

    /// Starts, or discards, the first waiting message. Returns whether there may be more to do.
    fn start_one(&mut self, key: SessionKey, now: Instant) -> bool {
        let Some(session) = self.sessions.get_mut(key) else {
            return false;
        };
        let Some(link) = session.link.as_ref().filter(|link| !link.is_congested) else {
            return false;
        };
        let Some(next) = session.outbound.next_waiting() else {
            return false;
        };
        let why = if self.rights.denies_queued(session, next) {
            Some(Why::Denied)
        } else {
            why_not_started(link, next, now)
        };
        if let Some(why) = why {
            let discarded = self
                .sessions
                .get_mut(key)
                .and_then(|session| session.outbound.discard_next());
            if let Some(queued) = discarded {
                self.on_discarded(key, &queued, why, now);
            }
            return true;
        }
        let dropped = link.wait_for_dropped();
        let id = session.id;
        let Some(started) = session.outbound.start_next() else {
            return false;
        };
        let seq = started.queued.seq;
        // [MQTT-4.3.2-2] [MQTT-4.3.3-2] [v3.1.1 MQTT-4.3.2-1] [v3.1.1 MQTT-3.3.1-3] DUP is ours to set.
        let delivery = delivery_of(&started.queued, started.packet_id, false);
        let is_stored = started.queued.is_stored;
        // A QoS 2 identifier must not be forgotten once the Client has seen it.
        let wait = if is_stored && delivery.qos == Qos::ExactlyOnce {
            let wait = self.commits.wait_of_delivery(id, seq);
            self.wait_for_enqueued().and(wait)
        } else {
            dropped
        };
        self.send_queued(key, delivery, wait);
        true
    }

    /// The batch that holds everything queued up to now.
    fn wait_for_enqueued(&self) -> Wait {
        if self.targets.is_empty() {
            self.wait_for_batch()
        } else {
            Wait::for_batch(self.next_batch(), self.config.levels.of_sessions())
        }
    }

    /// PUBACK from the Client. [MQTT-4.3.2-3]
    pub fn on_puback(&mut self, connection: ConnectionKey, ack: &Ack, now: Instant) {
        let Some(key) = self.on_packet(connection) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        match session.outbound.on_puback(ack.packet_id) {
            Some(Answered::Kept(queued)) => self.on_dequeued(key, &queued),
            Some(Answered::SentOnce) => self.touch(key),
            None => return,
        }
        self.go_on(key, now);
    }

    /// The Client has answered: what waits may go on.
    fn go_on(&mut self, key: SessionKey, now: Instant) {
        let session = self.sessions.get(key);
        let is_idle = |of: &Session| of.outbound.has_nothing_to_send() && !of.is_replay_due();
        if !session.is_some_and(is_idle) {
            // It is a delivery, of what was published long ago.
            self.work += 1;
            self.pump(key, now);
        }
    }

    /// PUBREC from the Client. [MQTT-4.3.3-4] [v3.1.1 MQTT-4.3.3-1]
    pub fn on_pubrec(&mut self, connection: ConnectionKey, ack: &Ack, now: Instant) {
        let Some(key) = self.on_packet(connection) else {
            return;
        };
        let version = self.version_of(connection);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let is_error = version == Version::V5 && ack.reason.is_error();
        let pubrel = |reason| Outgoing::PubRel(Ack::new(ack.packet_id, reason));
        match session.outbound.on_pubrec(ack.packet_id, is_error) {
            PubRecOutcome::Release(answered) => {
                let wait = match answered {
                    Answered::Kept(queued) => self.on_released(key, &queued),
                    Answered::SentOnce => Wait::default(),
                };
                self.emit(key, pubrel(ReasonCode::Success), wait);
            }
            PubRecOutcome::ReleaseAgain => {
                let wait = self.wait_for_batch();
                self.emit(key, pubrel(ReasonCode::Success), wait);
            }
            // [MQTT-4.4.0-2] [MQTT-4.8.2-6] The Client refused it: it is over, and goes to nobody else.
            PubRecOutcome::Refused(answered) => {
                if let Answered::Kept(queued) = answered {
                    self.on_dequeued(key, &queued);
                }
                self.pump(key, now);
            }
            // A refused message has no PUBREL; an unknown identifier is said to be unknown.
            PubRecOutcome::Unknown if is_error => {}
            PubRecOutcome::Unknown => {
                self.emit(
                    key,
                    pubrel(ReasonCode::PacketIdentifierNotFound),
                    Wait::default(),
                );
            }
        }
    }

    /// The Client has a QoS 2 message: gives its bytes back; its number stays until PUBCOMP.
    fn on_released(&mut self, key: SessionKey, queued: &Queued) -> Wait {
        let charge = Session::charge(&queued.message);
        let Some(session) = self.sessions.get_mut(key) else {
            return Wait::default();
        };
        session.queued_bytes = session.queued_bytes.saturating_sub(charge);
        self.counters.queued_bytes = self.counters.queued_bytes.saturating_sub(charge as u64);
        self.counters.queued_messages = self.counters.queued_messages.saturating_sub(1);
        if !queued.is_stored {
            return Wait::default();
        }
        let session = session.id;
        // The discard must be durable before PUBREL is sent, or a crash would repeat the message.
        self.record(Record::Release {
            session,
            seq: queued.seq,
        })
    }

    /// PUBCOMP from the Client.
    pub fn on_pubcomp(&mut self, connection: ConnectionKey, ack: &Ack, now: Instant) {
        let Some(key) = self.on_packet(connection) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let Some(completed) = session.outbound.on_pubcomp(ack.packet_id) else {
            return;
        };
        if completed.is_stored {
            let session = session.id;
            self.record_dequeued(session, completed.seq);
        }
        self.go_on(key, now);
    }

    /// Unsent bytes of a connection went above or below the mark.
    pub fn on_congested(&mut self, connection: ConnectionKey, congested: bool, now: Instant) {
        self.end_run();
        let Some(key) = self
            .connections
            .get(connection)
            .map(|connection| connection.session)
        else {
            return;
        };
        if let Some(link) = self.sessions.link_mut(key) {
            link.is_congested = congested;
        }
        if !congested {
            self.pump(key, now);
        }
    }
}

impl Link {
    /// Whether its Session may be sent more before the server takes the outputs, which it has done `taken` times.
    pub(crate) const fn has_burst_left(&mut self, taken: u64) -> bool {
        if self.burst_began != taken {
            self.burst_began = taken;
            self.burst_bytes = 0;
        }
        self.burst_left(taken) > 0
    }

    /// How many bytes more it may be sent before that.
    pub(crate) const fn burst_left(&self, taken: u64) -> usize {
        if self.burst_began == taken {
            BURST_BYTES_MAX.saturating_sub(self.burst_bytes as usize)
        } else {
            BURST_BYTES_MAX
        }
    }

    pub(crate) fn add_to_burst(&mut self, bytes: usize) {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.burst_bytes = self.burst_bytes.saturating_add(bytes);
    }
}

/// Why a message from the queue is not sent.
#[derive(Clone, Copy, Debug)]
enum Why {
    Expired,
    TooLarge,
    /// The rights of the Client have changed since it was queued.
    Denied,
}

fn why_not_started(link: &Link, next: &Queued, now: Instant) -> Option<Why> {
    // [MQTT-3.3.2-5] Checked when the delivery starts; afterwards it is finished whatever the time,
    // [MQTT-4.3.3-7].
    if next.message.is_expired(now) {
        return Some(Why::Expired);
    }
    let has_limit = link.maximum_packet_size_bytes.is_some();
    let delivery = has_limit.then(|| delivery_of(next, PacketIdentifier::FIRST, false));
    delivery
        .is_some_and(|delivery| is_too_large(link, &delivery, now))
        .then_some(Why::TooLarge)
}

fn delivery_of(queued: &Queued, packet_id: PacketIdentifier, dup: bool) -> Delivery {
    Delivery {
        message: Arc::clone(&queued.message),
        dup,
        qos: queued.qos,
        retain: queued.retain,
        packet_id: Some(packet_id),
        subscription_identifiers: queued.subscription_identifiers.clone(),
    }
}

/// [MQTT-3.1.2-24] [MQTT-3.1.2-25] Whether the Client cannot take this packet.
fn is_too_large(link: &Link, delivery: &Delivery, now: Instant) -> bool {
    let Some(maximum) = link.maximum_packet_size_bytes else {
        return false;
    };
    let publish = OutgoingPublish {
        message: &delivery.message,
        dup: delivery.dup,
        qos: delivery.qos,
        retain: delivery.retain,
        packet_id: delivery.packet_id,
        topic_alias: None,
        message_expiry_interval_seconds: delivery.message.remaining_expiry_seconds(now),
        subscription_identifiers: delivery
            .subscription_identifiers
            .as_deref()
            .unwrap_or_default(),
        hidden_topic_bytes: link.hidden_topic_bytes,
    };
    publish.encoded_len(link.version) > maximum.get()
}

/// One Session is sent no more than this, and a message, from its queue before the server takes the
/// outputs. Well below the mark for congestion, so that what is unsent stays near the mark.
pub(crate) const BURST_BYTES_MAX: usize = 256 * 1024;
/// Packets that wait on one connection before QoS 0 is dropped.
pub(crate) const HELD_MAX: usize = 4096;
