//! The way of one message: from its publisher to everyone who gets it.
//!
//! Owns: what a Client may publish, who gets a message, what its publisher is answered.
//! Does not own: how a Session takes it (see `delivery`), other shards' Sessions (see `routing`).
//! Start reading at [`Engine::on_publish`]. Invariant: the publisher is answered only when every
//! Session and shard that took the message has it safely.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use proto::connection::Outgoing;
use proto::packet::{Ack, Publish, ReasonCode};
use proto::{Message, PacketIdentifier, Qos, Version};
use store::{Expiry, Level, MessageRecord, Record};

use crate::commits::{Effect, Gate, Provisional, Publisher};
use crate::connections::Grant;
use crate::delivery::Terms;
use crate::full::QUEUE_FULL;
use crate::keys::{SessionKey, ShardSet};
use crate::pending::Wait;
use crate::retained::Stamp;
use crate::rights::Rights;
use crate::routing::{RoutedPublish, ShardItem, Taking, Trail};
use crate::sessions::Sessions;
use crate::shared_delivery::Chosen;
use crate::storage_low::STORAGE_LOW;
use crate::subscriptions::Matches;
use crate::{ConnectionKey, Engine, Request};

/// Who took a message.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Routed {
    pub(crate) wait: Wait,
    pub(crate) has_subscribers: bool,
    /// Set if it does not count before it is committed.
    pub(crate) provisional: Option<Provisional>,
}

/// Why a message is not taken.
pub(crate) enum Refusal {
    /// Answered in PUBACK or PUBREC; at QoS 0 and in 3.x dropped.
    Answer(ReasonCode),
    /// The same with Not authorized, because of this rule.
    NotAllowed(Arc<str>),
    /// The connection closes with this.
    Close(ReasonCode),
}

impl Engine {
    /// A PUBLISH from the Client, its Topic Alias already resolved. `buffer` is the shareable buffer
    /// it borrows from, if there is one.
    pub fn on_publish(
        &mut self,
        connection: ConnectionKey,
        publish: &Publish<'_>,
        buffer: Option<&Bytes>,
        now: Instant,
    ) {
        self.take_publish(connection, publish, buffer, (false, now));
    }

    /// The same where the next packet of the Client is a PUBLISH, too, which is given before anything else happens in this
    /// shard: this one may wait for it. It is done with when another one has come that is not like it, when
    /// [`Self::end_run`] is called, or the outputs are taken. A promise that is not kept delays it, no more.
    pub fn on_publish_of_many(
        &mut self,
        connection: ConnectionKey,
        publish: &Publish<'_>,
        buffer: Option<&Bytes>,
        now: Instant,
    ) {
        self.take_publish(connection, publish, buffer, (true, now));
    }

    pub(crate) const fn count_publish(&mut self, publish: &Publish<'_>) {
        self.counters.publishes_received += 1;
        self.work += 1;
        self.counters.publish_bytes_received += publish.payload.len() as u64;
    }

    fn take_publish(
        &mut self,
        connection: ConnectionKey,
        publish: &Publish<'_>,
        buffer: Option<&Bytes>,
        (is_followed, now): (bool, Instant),
    ) {
        if self.join_run(connection, publish, buffer, now) {
            self.count_publish(publish);
            return;
        }
        let Some(key) = self.on_packet(connection) else {
            return;
        };
        self.count_publish(publish);
        // Before anything else: what was taken is not refused, or its Client would use the identifier for another
        // message, and that would be taken for this one.
        if self.is_repeated(key, publish) {
            self.answer_repeated(key, publish);
            return;
        }
        let known = self.recall_granted(connection, publish);
        if known.is_none()
            && let Err(refusal) = self.check_publish(connection, publish)
        {
            self.on_refusal(connection, key, publish, refusal, now);
            return;
        }
        // One of another version has waited, see `storage_low`.
        if self.lacks_storage(key, publish) && self.version_of(connection) == Version::V5 {
            self.counters.dropped_storage_low += 1;
            let reason = (ReasonCode::QuotaExceeded, Some(STORAGE_LOW));
            self.refuse_publish(connection, key, publish, reason, now);
            return;
        }
        if self.version_of(connection) == Version::V5 && self.lacks_room(key, publish, now) {
            self.counters.refused_queue_full += 1;
            let reason = (ReasonCode::QuotaExceeded, Some(QUEUE_FULL));
            self.refuse_publish(connection, key, publish, reason, now);
            return;
        }
        if is_followed
            && let Some(matches) = &known
            && self.begin_run((connection, key), publish, matches)
        {
            let has_joined = self.join_run(connection, publish, buffer, now);
            assert!(has_joined, "invariant: a run begins with one that fits it");
            return;
        }
        // [MQTT-3.3.4-1] [v3.1.1 MQTT-3.3.4-1]
        match (publish.qos, publish.packet_id) {
            (Qos::AtLeastOnce, Some(packet_id)) => {
                let Some(routed) =
                    self.route_publish((connection, key), publish, known, buffer, now)
                else {
                    return;
                };
                let ack = Ack::new(packet_id, reason_for(routed.has_subscribers));
                let wait = match routed.provisional {
                    Some(one) => self.commit(key, Effect::Number, one, routed.wait),
                    None => routed.wait,
                };
                // [MQTT-4.3.2-4] [MQTT-4.3.2-5] [v3.1.1 MQTT-4.3.2-2] Afterwards the identifier is free.
                self.emit(key, Outgoing::PubAck(ack), wait);
            }
            (Qos::ExactlyOnce, Some(packet_id)) => {
                let from = (connection, key);
                self.on_publish_qos2(from, (publish, packet_id), known, buffer, now);
            }
            _ => {
                self.route_publish((connection, key), publish, known, buffer, now);
            }
        }
    }

    /// Who gets it, if its Client was found to be allowed just such a PUBLISH before and nothing has changed since.
    fn recall_granted(
        &self,
        connection: ConnectionKey,
        publish: &Publish<'_>,
    ) -> Option<Rc<Matches>> {
        let connection = self.connections.get(connection)?;
        if connection.grant != Some(Grant::of(publish, self.rights.epoch())) {
            return None;
        }
        self.subscriptions.recall(&connection.memo, publish.topic)
    }

    fn on_refusal(
        &mut self,
        connection: ConnectionKey,
        key: SessionKey,
        publish: &Publish<'_>,
        refusal: Refusal,
        now: Instant,
    ) {
        match refusal {
            Refusal::Answer(reason) => {
                self.counters.refused_topics += 1;
                self.refuse_publish(connection, key, publish, (reason, None), now);
            }
            Refusal::NotAllowed(rule) => {
                self.counters.dropped_not_authorized += 1;
                self.tell_denied(key, request_of(publish), rule, now);
                let reason = (ReasonCode::NotAuthorized, None);
                self.refuse_publish(connection, key, publish, reason, now);
            }
            Refusal::Close(reason) => {
                let is_topic = reason == ReasonCode::TopicNameInvalid;
                self.counters.refused_topics += u64::from(is_topic);
                self.close(connection, reason, now);
            }
        }
    }

    /// [MQTT-4.3.3-8] [v3.1.1 MQTT-4.3.3-2]
    fn on_publish_qos2(
        &mut self,
        (connection, key): (ConnectionKey, SessionKey),
        (publish, packet_id): (&Publish<'_>, PacketIdentifier),
        known: Option<Rc<Matches>>,
        buffer: Option<&Bytes>,
        now: Instant,
    ) {
        if !self.open_inbound(connection, key, packet_id, now) {
            return;
        }
        let from = (connection, key);
        let Some(routed) = self.route_publish(from, publish, known, buffer, now) else {
            return;
        };
        let wait = self.commit_publish(key, packet_id, routed.provisional, routed.wait);
        let ack = Ack::new(packet_id, reason_for(routed.has_subscribers));
        self.emit(key, Outgoing::PubRec(ack), wait);
    }

    /// Whether it is a QoS 2 message that was taken already, and only its PUBREC is wanted.
    pub(crate) fn is_repeated(&self, key: SessionKey, publish: &Publish<'_>) -> bool {
        let session = self.sessions.get(key);
        let packet_id = publish
            .packet_id
            .filter(|_| publish.qos == Qos::ExactlyOnce);
        session
            .zip(packet_id)
            .is_some_and(|(session, packet_id)| session.receiving().inbound.contains(packet_id))
    }

    /// [MQTT-4.3.3-10] [v3.1.1 MQTT-4.3.3-2]
    fn answer_repeated(&mut self, key: SessionKey, publish: &Publish<'_>) {
        if let Some(packet_id) = publish.packet_id {
            let wait = self
                .wait_for_all()
                .and(self.wait_of_inbound(key, packet_id));
            let ack = Ack::new(packet_id, ReasonCode::Success);
            self.emit(key, Outgoing::PubRec(ack), wait);
        }
    }

    /// Notes the identifier of a QoS 2 message; one more than the Receive Maximum closes the connection
    /// and is `false`.
    fn open_inbound(
        &mut self,
        connection: ConnectionKey,
        key: SessionKey,
        packet_id: PacketIdentifier,
        now: Instant,
    ) -> bool {
        let inbound_max = usize::from(self.told(connection).receive_maximum);
        let Some(session) = self.sessions.get_mut(key) else {
            return false;
        };
        let receiving = session.receiving_mut();
        let released_len = usize::try_from(receiving.released).unwrap_or(usize::MAX);
        let open_len = receiving.inbound.len().saturating_add(released_len);
        if open_len >= inbound_max {
            self.close(connection, ReasonCode::ReceiveMaximumExceeded, now);
            return false;
        }
        receiving.inbound.on_publish(packet_id);
        self.touch(key);
        true
    }

    /// PUBREL from the Client. [MQTT-4.3.3-11] [MQTT-4.3.3-13] [v3.1.1 MQTT-4.3.3-2]
    pub fn on_pubrel(&mut self, connection: ConnectionKey, ack: &Ack, _now: Instant) {
        let Some(key) = self.on_packet(connection) else {
            return;
        };
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let is_known = session.receiving_mut().inbound.on_pubrel(ack.packet_id);
        self.touch(key);
        let wait = self.release_inbound(key, ack.packet_id, is_known);
        let reason = if is_known {
            ReasonCode::Success
        } else {
            ReasonCode::PacketIdentifierNotFound
        };
        self.emit(
            key,
            Outgoing::PubComp(Ack::new(ack.packet_id, reason)),
            wait,
        );
    }

    pub(crate) fn check_publish(
        &self,
        connection: ConnectionKey,
        publish: &Publish<'_>,
    ) -> Result<(), Refusal> {
        let Some(connection) = self.connections.get(connection) else {
            return Ok(());
        };
        // [MQTT-3.2.2-11] A QoS above the Maximum QoS announced.
        if publish.qos > connection.told.maximum_qos {
            return Err(Refusal::Close(ReasonCode::QosNotSupported));
        }
        // [MQTT-3.2.2-14]
        if publish.retain && !connection.told.retain_available {
            return Err(Refusal::Close(ReasonCode::RetainNotSupported));
        }
        if self.limits.exceeds_topic(publish.topic) {
            let is_answered = connection.version == Version::V5 && publish.qos != Qos::AtMostOnce;
            let reason = ReasonCode::TopicNameInvalid;
            return Err(if is_answered {
                Refusal::Answer(reason)
            } else {
                Refusal::Close(reason)
            });
        }
        if is_server_topic(publish.topic) {
            return Err(Refusal::NotAllowed(SERVER_TOPIC.into()));
        }
        let Some(session) = self.sessions.get(connection.session) else {
            return Ok(());
        };
        let decision = self.rights.decide(session, request_of(publish));
        if decision.is_allowed {
            Ok(())
        } else {
            Err(Refusal::NotAllowed(decision.reason()))
        }
    }

    /// [v3.1.1 MQTT-3.3.5-2] A message that may not be published is dropped, and
    /// acknowledged as its QoS asks: with a Reason Code where the version has one.
    fn refuse_publish(
        &mut self,
        connection: ConnectionKey,
        key: SessionKey,
        publish: &Publish<'_>,
        (reason, text): (ReasonCode, Option<&str>),
        now: Instant,
    ) {
        self.counters.publishes_dropped += 1;
        let Some(packet_id) = publish.packet_id else {
            return;
        };
        let mut ack = Ack::new(packet_id, reason);
        if let Some(text) = text {
            ack = ack.with_reason_string(text);
        }
        let mut wait = self.wait_for_all();
        if publish.qos == Qos::AtLeastOnce {
            self.emit(key, Outgoing::PubAck(ack), wait);
            return;
        }
        if self.version_of(connection) != Version::V5 {
            // A 3.x Client goes on with PUBREL, which has to find the identifier.
            if !self.open_inbound(connection, key, packet_id, now) {
                return;
            }
            self.level = self.config.levels.default;
            let provisional = self.provisional(Publisher::Once(key), false);
            wait = self.commit_publish(key, packet_id, provisional, wait);
        }
        self.emit(key, Outgoing::PubRec(ack), wait);
    }

    /// `known` is who gets it, where that is known. Returns `None` if the message was refused and that was answered.
    fn route_publish(
        &mut self,
        (connection, key): (ConnectionKey, SessionKey),
        publish: &Publish<'_>,
        known: Option<Rc<Matches>>,
        buffer: Option<&Bytes>,
        now: Instant,
    ) -> Option<Routed> {
        // A retained message owns its payload, or it would keep the buffer it came in alive.
        let buffer = buffer.filter(|_| !publish.retain);
        let message = Arc::new(Message::from_publish(publish, buffer, now));
        if publish.retain {
            self.make_retained_room(now);
            if self.retained.check_limits(&message).is_err() || !self.may_retain(&message) {
                self.refuse_retained(connection, key, publish, now);
                return None;
            }
        }
        let matches = known.unwrap_or_else(|| self.find_matches(connection, publish));
        let publisher = match publish.qos {
            Qos::AtMostOnce => Publisher::None,
            Qos::AtLeastOnce => Publisher::InOrder(key),
            Qos::ExactlyOnce => Publisher::Once(key),
        };
        Some(self.route_to(&matches, &message, (Some(key), publisher), now))
    }

    /// Who gets what is published to this topic, noted for the next time.
    fn find_matches(&mut self, connection: ConnectionKey, publish: &Publish<'_>) -> Rc<Matches> {
        let Some(connection) = self.connections.get_mut(connection) else {
            return self.matches(publish.topic);
        };
        let (rights, sessions) = (&self.rights, &self.sessions);
        // What another one has allowed is allowed for a time.
        let grant = Grant::of(publish, rights.epoch());
        connection.grant = (!rights.asks()).then_some(grant);
        let memo = &mut connection.memo;
        self.subscriptions
            .matches_with(memo, publish.topic, |key, topic| {
                may_receive(rights, sessions, key, topic)
            })
    }

    /// A message that cannot be retained is not taken at all, or its publisher would believe that it is:
    /// Quota exceeded where its version has that. Nobody gets it.
    fn refuse_retained(
        &mut self,
        connection: ConnectionKey,
        key: SessionKey,
        publish: &Publish<'_>,
        now: Instant,
    ) {
        // The identifier is not in use: nothing was taken with it.
        if let (Qos::ExactlyOnce, Some(packet_id), Some(session)) =
            (publish.qos, publish.packet_id, self.sessions.get_mut(key))
        {
            session.receiving_mut().inbound.forget(packet_id);
        }
        self.counters.dropped_retained_full += 1;
        let reason = (ReasonCode::QuotaExceeded, None);
        self.refuse_publish(connection, key, publish, reason, now);
    }

    /// Who gets a message on `topic`, of those who may.
    pub(crate) fn matches(&mut self, topic: &str) -> Rc<Matches> {
        let (rights, sessions) = (&self.rights, &self.sessions);
        self.subscriptions.matches_for(topic, |key, topic| {
            may_receive(rights, sessions, key, topic)
        })
    }

    /// Stores and delivers `message`, here and in other shards.
    pub(crate) fn route(
        &mut self,
        message: &Arc<Message>,
        from: Option<SessionKey>,
        publisher: Publisher,
        now: Instant,
    ) -> Routed {
        let matches = self.matches(message.topic());
        self.route_to(&matches, message, (from, publisher), now)
    }

    fn route_to(
        &mut self,
        matches: &Matches,
        message: &Arc<Message>,
        (from, publisher): (Option<SessionKey>, Publisher),
        now: Instant,
    ) -> Routed {
        self.begin_routing(message);
        // What is not recorded counts at once, and promises nothing over a crash.
        let publisher = match self.level {
            Level::Memory => Publisher::None,
            _ => publisher,
        };
        let (retained, wait) = self.retain(message, now);
        let is_only_here =
            retained.is_none() && matches.groups.is_empty() && matches.remote.is_empty();
        let (provisional, wait) = if is_only_here {
            let provisional = self.provisional(publisher, false);
            let gate = provisional.map(|provisional| provisional.gate);
            self.deliver_rows(matches, message, from, gate, now);
            (provisional, wait)
        } else {
            self.route_beyond(matches, message, (from, publisher), (retained, wait), now)
        };
        let wait = if self.targets.is_empty() {
            wait
        } else {
            wait.and(self.record_enqueued(message, provisional))
        };
        Routed {
            wait,
            has_subscribers: !matches.is_empty(),
            provisional,
        }
    }

    /// Delivers a message that others get beside the Non-shared Subscriptions of this shard, and gives it to the shards
    /// where they are.
    fn route_beyond(
        &mut self,
        matches: &Matches,
        message: &Arc<Message>,
        (from, publisher): (Option<SessionKey>, Publisher),
        (retained, mut wait): (Option<Stamp>, Wait),
        now: Instant,
    ) -> (Option<Provisional>, Wait) {
        let chosen = self.choose_members(matches, message, from);
        let shards = self.shards_for(matches, retained, &chosen);
        let provisional = self.provisional(publisher, !shards.is_empty());
        let gate = provisional.map(|provisional| provisional.gate);
        self.deliver_rows(matches, message, from, gate, now);
        for (key, subscription) in &chosen.here {
            self.deliver_to_member(*key, message, *subscription, gate, now);
        }
        for shard in shards.iter() {
            let publish = RoutedPublish {
                message: Arc::clone(message),
                retained,
                is_for_all: matches.remote.contains(shard),
                groups: chosen.groups_in(shard),
                publisher_hash: chosen.publisher_hash,
                provisional,
                trail: Trail::default(),
                pass: None,
            };
            wait = wait.and(self.routing.send(shard, ShardItem::Publish(publish)));
        }
        (provisional, wait)
    }

    /// What follows is recorded as `message` asks for.
    pub(crate) fn begin_routing(&mut self, message: &Message) {
        self.targets.clear();
        self.copies = 0;
        self.level = self.config.levels.of_message(message);
    }

    /// A message from another shard.
    pub(crate) fn on_routed_publish(&mut self, routed: &RoutedPublish, now: Instant) -> Taking {
        let message = &routed.message;
        self.begin_routing(message);
        let mut passes = Vec::new();
        let retained = routed
            .retained
            .map(|stamp| self.apply_retained(message, stamp));
        if routed.is_for_all {
            let matches = self.matches(message.topic());
            let gate = routed.provisional.map(|provisional| provisional.gate);
            self.deliver_rows(&matches, message, None, gate, now);
        }
        for group in &routed.groups {
            passes.extend(self.deliver_routed_group(group, routed, now));
        }
        let wait = self.record_enqueued(message, routed.provisional);
        Taking {
            wait: wait.and(retained.unwrap_or_default()),
            passes,
        }
    }

    fn deliver_rows(
        &mut self,
        matches: &Matches,
        message: &Arc<Message>,
        publisher: Option<SessionKey>,
        gate: Option<Gate>,
        now: Instant,
    ) {
        self.work += matches.rows.len() as u64;
        // [MQTT-4.5.0-1] [MQTT-3.3.2-3] [v3.1.1 MQTT-4.5.0-1] [v3.1.1 MQTT-3.3.2-3]
        for row in matches.rows.iter() {
            let Some(grant) = row.for_session(publisher) else {
                continue;
            };
            let terms = Terms {
                // [MQTT-3.8.4-8] [v3.1.1 MQTT-3.8.4-6]
                qos: message.qos().min(grant.qos),
                // [MQTT-3.3.1-12] [MQTT-3.3.1-13] [v3.1.1 MQTT-3.3.1-9]
                retain: grant.retain_as_published && message.retain(),
                subscription_identifiers: grant.subscription_identifiers.cloned(),
                gate,
            };
            self.copies = 0;
            self.deliver(row.session, message, terms, now);
        }
        // From here on a Session may be among the targets already.
        self.copies = 1;
    }

    /// The other shards that get the message.
    fn shards_for(&self, matches: &Matches, retained: Option<Stamp>, chosen: &Chosen) -> ShardSet {
        let mut shards = matches.remote;
        if retained.is_some() {
            shards = shards.union(self.routing.others());
        }
        for (shard, _) in &chosen.elsewhere {
            shards.insert(*shard);
        }
        shards
    }

    /// One record for all durable Sessions that took `message`.
    pub(crate) fn record_enqueued(
        &mut self,
        message: &Message,
        provisional: Option<Provisional>,
    ) -> Wait {
        if self.targets.is_empty() {
            return Wait::default();
        }
        let targets = std::mem::take(&mut self.targets);
        let message = self.message_record(message);
        // A Client sees the identifier of a QoS 2 delivery, whatever the message is worth.
        let has_handshake = targets.iter().any(|target| target.qos > 1);
        let level = if has_handshake {
            self.level.max(self.config.levels.of_sessions())
        } else {
            self.level
        };
        let record = Record::Enqueue {
            message,
            targets,
            origin: provisional.map(|provisional| provisional.origin),
        };
        self.record_at(level, record);
        self.wait_at(self.level)
    }

    /// `message` as the store keeps it. Copies topic and properties, shares a large payload.
    pub(crate) fn message_record(&self, message: &Message) -> MessageRecord {
        let payload = message
            .shared_payload()
            .cloned()
            .unwrap_or_else(|| Bytes::copy_from_slice(message.payload()));
        let expiry = message.expiry();
        MessageRecord {
            topic: Bytes::copy_from_slice(message.topic().as_bytes()),
            properties: Bytes::copy_from_slice(message.forwarded_properties()),
            payload,
            qos: message.qos().level(),
            retain: message.retain(),
            expiry: expiry.map(|(accepted_at, interval_seconds)| Expiry {
                accepted_at: self.unix_millis(accepted_at),
                interval_seconds,
            }),
        }
    }
}

/// `$SYS` is the Server's: no Client may publish there.
pub(crate) fn is_server_topic(name: impl AsRef<[u8]>) -> bool {
    name.as_ref()
        .strip_prefix(b"$SYS")
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

pub(crate) fn may_receive(
    rights: &Rights,
    sessions: &Sessions,
    key: SessionKey,
    topic: &str,
) -> bool {
    let session = sessions.get(key);
    session.is_some_and(|session| rights.may_receive(session, topic))
}

const fn request_of<'a>(publish: &Publish<'a>) -> Request<'a> {
    Request::Publish {
        topic: publish.topic,
        qos: publish.qos,
        retain: publish.retain,
    }
}

/// What is said of a PUBLISH to `$SYS`.
const SERVER_TOPIC: &str = "$SYS is the Server's";

/// What its publisher is told of a message that was taken.
pub(crate) const fn reason_for(has_subscribers: bool) -> ReasonCode {
    if has_subscribers {
        ReasonCode::Success
    } else {
        ReasonCode::NoMatchingSubscribers
    }
}
