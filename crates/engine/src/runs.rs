//! PUBLISH packets of one Client to one topic that come together, and are delivered together.
//!
//! Owns: [`Run`], [`Packets`], which PUBLISH may wait for the next one, how all go to a Session at once.
//! Does not own: what a PUBLISH goes through that does not (see `publish`), a delivery by itself (see `delivery`).
//! Start reading at [`Engine::join_run`].
//! Invariants: nothing else is looked at while a run is open, so what was found out for its first PUBLISH is true for all
//! of it; each Session and the publisher get just what they would have got had each come by itself, in that order.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use proto::connection::{Delivery, DeliveryRef, Outgoing};
use proto::packet::{Ack, PacketType, Publish, ReasonCode};
use proto::{Message, PacketIdentifier, Qos};
use store::Level;

use crate::delivery::Terms;
use crate::keys::SessionKey;
use crate::output::Output;
use crate::pending::Wait;
use crate::publish::reason_for;
use crate::sessions::Link;
use crate::subscriptions::{Grant, Matches};
use crate::{ConnectionKey, Engine};

/// Messages that are delivered together.
#[derive(Debug, Default)]
pub(crate) struct Run {
    messages: Vec<Arc<Message>>,
    /// Above QoS 0 the Packet Identifiers of their publisher.
    packet_ids: Vec<PacketIdentifier>,
    payload_bytes: u64,
    memory_bytes: usize,
}

impl Run {
    fn clear(&mut self) {
        self.messages.clear();
        self.packet_ids.clear();
        self.payload_bytes = 0;
        self.memory_bytes = 0;
    }
}

/// Packets of one kind for one Client, one for each message of a run.
#[derive(Debug)]
pub struct Packets {
    run: Rc<Run>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// PUBLISH.
    Messages {
        qos: Qos,
        /// That of the first message; each has the one that follows that of the one before.
        packet_id: Option<PacketIdentifier>,
        subscription_identifiers: Option<Arc<[u32]>>,
    },
    /// PUBACK or PUBREC.
    Acks(PacketType, ReasonCode),
}

impl Packets {
    /// The messages, in order, if it is those.
    pub fn deliveries(&self) -> impl Iterator<Item = DeliveryRef<'_>> {
        let (of, messages) = match &self.kind {
            Kind::Messages {
                qos,
                packet_id,
                subscription_identifiers,
            } => (
                (*qos, *packet_id, subscription_identifiers.as_ref()),
                &*self.run.messages,
            ),
            Kind::Acks(..) => ((Qos::AtMostOnce, None, None), &[][..]),
        };
        let (qos, first, subscription_identifiers) = of;
        let mut next = first;
        messages.iter().map(move |message| {
            let packet_id = next;
            next = next.map(PacketIdentifier::following);
            DeliveryRef {
                message,
                dup: false,
                qos,
                retain: false,
                packet_id,
                subscription_identifiers,
            }
        })
    }

    /// The acknowledgements, in order, if it is those.
    pub fn acks(&self) -> impl Iterator<Item = Outgoing> {
        let (packet_type, reason, ids) = match self.kind {
            Kind::Acks(packet_type, reason) => (packet_type, reason, &*self.run.packet_ids),
            Kind::Messages { .. } => (PacketType::PubAck, ReasonCode::Success, &[][..]),
        };
        ids.iter()
            .map(move |id| outgoing(packet_type, Ack::new(*id, reason)))
    }

    /// All of them one by one.
    pub fn packets(&self) -> impl Iterator<Item = Outgoing> {
        let deliveries = self.deliveries();
        let publishes = deliveries.map(|one| Outgoing::Publish(Delivery::from(one)));
        publishes.chain(self.acks())
    }
}

/// A run that may get more.
#[derive(Debug)]
pub(crate) struct OpenRun {
    from: (ConnectionKey, SessionKey),
    matches: Rc<Matches>,
    qos: Qos,
    /// How many more may join it.
    room: usize,
    run: Rc<Run>,
}

impl OpenRun {
    /// Whether `publish` is to be treated just as those before it.
    fn takes(&self, connection: ConnectionKey, publish: &Publish<'_>) -> bool {
        self.room > 0
            && self.from.0 == connection
            && self.qos == publish.qos
            && may_be_in_run(publish)
            && self.matches.topic() == publish.topic
    }
}

impl Engine {
    /// Takes a PUBLISH that is like those of the open run; false if there is none, or it is not.
    pub(crate) fn join_run(
        &mut self,
        connection: ConnectionKey,
        publish: &Publish<'_>,
        buffer: Option<&Bytes>,
        now: Instant,
    ) -> bool {
        let Some(open) = &mut self.open_run else {
            return false;
        };
        if !open.takes(connection, publish) {
            return false;
        }
        let Some(run) = Rc::get_mut(&mut open.run) else {
            return false;
        };
        if let (Qos::ExactlyOnce, Some(packet_id)) = (publish.qos, publish.packet_id) {
            let Some(session) = self.sessions.get_mut(open.from.1) else {
                return false;
            };
            let inbound = &mut session.receiving_mut().inbound;
            // One that was taken already is only answered.
            if inbound.contains(packet_id) {
                return false;
            }
            // Within the Receive Maximum, as the room for the run is.
            inbound.on_publish(packet_id);
        }
        let message = Message::from_publish(publish, buffer, now);
        run.payload_bytes += publish.payload.len() as u64;
        run.memory_bytes += message.memory_bytes();
        run.messages.push(Arc::new(message));
        run.packet_ids.extend(publish.packet_id);
        open.room -= 1;
        if run.memory_bytes >= RUN_BYTES_MAX {
            open.room = 0;
        }
        self.work += open.matches.rows.len() as u64;
        true
    }

    /// Begins a run with what is known to go to `matches`, if all of it can; the PUBLISH itself has still to join it.
    pub(crate) fn begin_run(
        &mut self,
        from: (ConnectionKey, SessionKey),
        publish: &Publish<'_>,
        matches: &Rc<Matches>,
    ) -> bool {
        if !matches.remote.is_empty() || !may_be_in_run(publish) {
            return false;
        }
        let is_one_way = match &*matches.groups {
            [] => true,
            // [MQTT-4.6.0-6] [v3.1.1 MQTT-4.6.0-6] Who gets it both ways gets it in order: message by message. A choice
            // may have to look at all members, for each message, and nothing comes in between.
            [group] => {
                matches.rows.is_empty()
                    && self.shared.others(*group).next().is_none()
                    && self.shared.member_count(*group) <= MEMBERS_MAX
            }
            _ => false,
        };
        if !is_one_way {
            return false;
        }
        let room = self.run_room(from, publish.qos, matches).min(RUN_MAX);
        if room < 2 {
            return false;
        }
        self.open_run = Some(OpenRun {
            from,
            matches: Rc::clone(matches),
            qos: publish.qos,
            room,
            run: self.spare_run.take().unwrap_or_default(),
        });
        true
    }

    /// How many messages all who get them can be sent at once, so that nothing is acknowledged that nobody has.
    fn run_room(
        &mut self,
        (connection, publisher): (ConnectionKey, SessionKey),
        qos: Qos,
        matches: &Matches,
    ) -> usize {
        if qos == Qos::AtMostOnce {
            return RUN_MAX;
        }
        let Some(session) = self.sessions.get(publisher) else {
            return 0;
        };
        // Its messages may have to be committed, and its identifiers recorded.
        let is_recorded = self.config.levels.of(matches.topic()) > Level::Memory;
        if session.is_stored && is_recorded {
            return 0;
        }
        let mut room = RUN_MAX;
        if qos == Qos::ExactlyOnce {
            if session.is_stored {
                return 0;
            }
            let receiving = session.receiving();
            let released = usize::try_from(receiving.released).unwrap_or(usize::MAX);
            let open = receiving.inbound.len().saturating_add(released);
            let most = usize::from(self.told(connection).receive_maximum);
            room = room.min(most.saturating_sub(open));
        }
        let of_rows = matches.rows.iter().filter_map(|row| {
            let grant = row.for_session(Some(publisher))?;
            Some((row.session, grant.qos))
        });
        // Any member may be chosen for all.
        let groups = matches.groups.iter();
        let members = groups.flat_map(|group| self.shared.members(*group));
        let mut looks = 0;
        for (receiver, granted) in of_rows.chain(members) {
            looks += 1;
            if granted > Qos::AtMostOnce {
                room = room.min(self.room_at_once(receiver));
            }
            if room < 2 {
                break;
            }
        }
        self.work += looks / LOOKS_PER_UNIT;
        room
    }

    /// How many messages this Session can be sent at once.
    fn room_at_once(&self, key: SessionKey) -> usize {
        let session = self.sessions.get(key);
        let session = session.filter(|session| !session.is_durable());
        session.map_or(0, |session| {
            let has_room = |link: &Link| {
                link.takes_all_at_once() && link.burst_left(self.taken) >= 2 * RUN_BYTES_MAX
            };
            if session.link.as_ref().is_some_and(has_room) {
                usize::from(session.outbound.at_once_max())
            } else {
                0
            }
        })
    }

    /// Delivers the run, if one is open, and answers its publisher.
    #[inline]
    pub fn end_run(&mut self) {
        // Nearly always there is none.
        if self.open_run.is_some() {
            self.deliver_run();
        }
    }

    fn deliver_run(&mut self) {
        let Some(open) = self.open_run.take() else {
            return;
        };
        let OpenRun {
            from: (_, publisher),
            matches,
            qos,
            run,
            ..
        } = open;
        let Some(first) = run.messages.first() else {
            return self.return_run(run);
        };
        let now = first.accepted_at();
        let mut wait = Wait::default();
        // [MQTT-4.5.0-1] [MQTT-3.3.2-3] [v3.1.1 MQTT-4.5.0-1] [v3.1.1 MQTT-3.3.2-3]
        for row in matches.rows.iter() {
            let Some(grant) = row.for_session(Some(publisher)) else {
                continue;
            };
            // [MQTT-3.8.4-8] [v3.1.1 MQTT-3.8.4-6]
            let qos = qos.min(grant.qos);
            if self.deliver_all_at_once(row.session, &run, qos, grant) {
                continue;
            }
            for message in &run.messages {
                let terms = Terms {
                    qos,
                    retain: false,
                    subscription_identifiers: grant.subscription_identifiers.cloned(),
                    gate: None,
                };
                self.begin_routing(message);
                self.deliver(row.session, message, terms, now);
                wait = wait.and(self.record_enqueued(message, None));
            }
        }
        if !matches.groups.is_empty() {
            for message in &run.messages {
                self.begin_routing(message);
                let chosen = self.choose_members(&matches, message, Some(publisher));
                for (key, subscription) in &chosen.here {
                    self.deliver_to_member(*key, message, *subscription, None, now);
                }
                wait = wait.and(self.record_enqueued(message, None));
            }
        }
        // [MQTT-3.3.4-1] [v3.1.1 MQTT-3.3.4-1]
        let packet_type = match qos {
            Qos::AtMostOnce => return self.return_run(run),
            Qos::AtLeastOnce => PacketType::PubAck,
            Qos::ExactlyOnce => PacketType::PubRec,
        };
        self.touch(publisher);
        let reason = reason_for(!matches.is_empty());
        self.answer_run(publisher, run, (packet_type, reason), wait);
    }

    /// Sends all of `run` to one Session; false if it cannot take all of it now.
    fn deliver_all_at_once(
        &mut self,
        key: SessionKey,
        run: &Rc<Run>,
        qos: Qos,
        grant: Grant<'_>,
    ) -> bool {
        let taken = self.taken;
        let Some(session) = self.sessions.get_mut(key) else {
            return true;
        };
        let is_durable = session.is_durable();
        let Some(link) = session.link.as_mut() else {
            return qos == Qos::AtMostOnce || !is_durable;
        };
        if !link.takes_all_at_once() {
            return false;
        }
        let connection = link.connection;
        let mut packet_id = None;
        if qos > Qos::AtMostOnce {
            if is_durable || !link.has_burst_left(taken) {
                return false;
            }
            let count = u16::try_from(run.messages.len()).unwrap_or(u16::MAX);
            packet_id = session.outbound.start_at_once(qos, count);
            if packet_id.is_none() {
                return false;
            }
            link.add_to_burst(run.memory_bytes);
            self.touch(key);
        }
        self.counters.publishes_sent += run.messages.len() as u64;
        self.counters.publish_bytes_sent += run.payload_bytes;
        self.outputs.push_back(Output::SendAll {
            connection,
            packets: Packets {
                run: Rc::clone(run),
                kind: Kind::Messages {
                    qos,
                    packet_id,
                    subscription_identifiers: grant.subscription_identifiers.cloned(),
                },
            },
        });
        true
    }

    /// Acknowledges all of `run` once `wait` is over.
    fn answer_run(
        &mut self,
        publisher: SessionKey,
        run: Rc<Run>,
        (packet_type, reason): (PacketType, ReasonCode),
        wait: Wait,
    ) {
        let is_over = self.is_over(&wait);
        let link = self.sessions.link(publisher);
        let free = link.filter(|link| is_over && link.held.is_empty());
        if let Some(link) = free {
            let packets = Packets {
                run,
                kind: Kind::Acks(packet_type, reason),
            };
            let connection = link.connection;
            let output = Output::SendAll {
                connection,
                packets,
            };
            return self.outputs.push_back(output);
        }
        for packet_id in &run.packet_ids {
            let ack = Ack::new(*packet_id, reason);
            self.emit(publisher, outgoing(packet_type, ack), wait);
        }
        self.return_run(run);
    }

    /// These packets were sent: the memory of their run is used for the next one.
    pub fn return_packets(&mut self, packets: Packets) {
        self.return_run(packets.run);
    }

    fn return_run(&mut self, mut run: Rc<Run>) {
        if let Some(last) = Rc::get_mut(&mut run) {
            last.clear();
            self.spare_run = Some(run);
        }
    }
}

/// Whether it is one of those that nothing is looked at for but who gets it.
const fn may_be_in_run(publish: &Publish<'_>) -> bool {
    let bytes = publish.topic.len() + publish.properties.len_bytes() + publish.payload.len();
    !publish.retain
        && publish.properties.message_expiry_interval_seconds.is_none()
        && bytes + size_of::<Message>() < RUN_BYTES_MAX
}

fn outgoing(packet_type: PacketType, ack: Ack) -> Outgoing {
    match packet_type {
        PacketType::PubRec => Outgoing::PubRec(ack),
        _ => Outgoing::PubAck(ack),
    }
}

/// At so many Sessions is looked, for room, in the time that a delivery takes.
const LOOKS_PER_UNIT: u64 = 8;
/// Members of a Shared Subscription at which is looked before a run.
const MEMBERS_MAX: usize = 64;
/// Messages of one run.
const RUN_MAX: usize = 32;
/// Bytes of them, about, the last one not counted, which is no larger: what a connection has unsent is looked at after each
/// run only.
const RUN_BYTES_MAX: usize = 16 * 1024;
