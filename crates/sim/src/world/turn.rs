//! One turn of a shard, as the server's loop does it: what has arrived goes in, what is to be done comes out.
//!
//! Owns: [`Server`], [`Shard`], the order of work in a turn. Does not own: what packets mean (see `engine`), the
//! threads of the store (see `persist`). Start reading at [`World::turn`].
//! Invariants: an engine hears only of what its shard can know; publishers are not read while a ring or the
//! store is full.

use std::collections::VecDeque;
use std::sync::Arc;

use engine::{ConnectRequest, Engine, Output, ShardIndex, ShardMessage};
use proto::packet::{
    Ack, Disconnect, Publish, PublishProperties, ReasonCode, RetainHandling, Subscribe,
    SubscriptionOptions, SubscriptionRequest, Unsubscribe,
};
use proto::{PacketIdentifier, Qos};
use store::{Loaded, Seq};

use super::World;
use super::answers::brief;
use super::links::{FromClient, ToClient, key_of, link_of};
use super::peers::payload;
use super::persist::Persist;
use crate::agenda::{Event, Micros};
use crate::bug::Bug;
use crate::checker::{Checked, violation};

/// A process of the Server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) shards: Vec<Shard>,
    pub(crate) persist: Persist,
    /// By sender and receiver.
    pub(crate) rings: Vec<Vec<VecDeque<ShardMessage>>>,
    pub(crate) is_serving: bool,
    pub(crate) ring_messages: u64,
}

#[derive(Debug)]
pub(crate) struct Shard {
    pub(crate) engine: Engine,
    /// When its next turn is.
    pub(crate) turn_at: Option<Micros>,
    pub(crate) loaded: VecDeque<Loaded>,
    /// Loads that were asked for and not answered.
    pub(crate) loading: usize,
    pub(crate) written: Seq,
    pub(crate) durable: Seq,
    pub(crate) is_low: bool,
    pub(crate) is_ready: bool,
}

impl Shard {
    pub(crate) const fn new(engine: Engine) -> Self {
        Self {
            engine,
            turn_at: None,
            loaded: VecDeque::new(),
            loading: 0,
            written: Seq(0),
            durable: Seq(0),
            is_low: false,
            is_ready: false,
        }
    }
}

impl Server {
    /// Whether nothing moves in it.
    pub(crate) fn is_quiet(&self) -> bool {
        self.is_serving
            && self.persist.is_quiet()
            && self.rings.iter().flatten().all(VecDeque::is_empty)
            && self.shards.iter().all(|shard| {
                !shard.engine.has_work() && shard.loaded.is_empty() && shard.loading == 0
            })
    }

    fn is_ring_full(&self, shard: usize) -> bool {
        let rings = self.rings.get(shard).into_iter().flatten();
        rings.map(VecDeque::len).any(|len| len >= RING_MESSAGES)
    }
}

impl World {
    /// Lets a shard have a turn soon.
    pub(crate) fn wake(&mut self, shard: usize) {
        let after = self.chance.below(300);
        self.wake_at(shard, self.agenda.now() + after);
    }

    fn wake_at(&mut self, shard: usize, at: Micros) {
        let process = self.process;
        let Some(found) = self.server.as_mut().and_then(|of| of.shards.get_mut(shard)) else {
            return;
        };
        if found.turn_at.is_none_or(|set| set > at) {
            found.turn_at = Some(at);
            self.agenda.at(at, Event::Turn { process, shard });
        }
    }

    pub(crate) fn turn(&mut self, process: u32, shard: usize) -> Checked {
        let now = self.agenda.now();
        let is_due = |found: &Shard| found.turn_at.is_some_and(|at| at <= now);
        if process != self.process || !self.shard(shard).is_some_and(|found| is_due(found)) {
            return Ok(());
        }
        if let Some(found) = self.shard(shard) {
            found.turn_at = None;
        }
        let (calendar, instant) = (self.agenda.calendar(), self.agenda.instant());
        if let Some(found) = self.shard(shard) {
            found.engine.on_calendar(calendar, instant);
        }
        let first = self.chance.place(3);
        for step in 0..3 {
            match (first + step) % 3 {
                0 => self.take_links(shard),
                1 => self.take_rings(shard),
                _ => self.take_news(shard),
            }
        }
        if let Some(found) = self.shard(shard) {
            let due = found.engine.poll_timeout();
            if found.engine.has_work() || due.is_some_and(|at| at <= instant) {
                found.engine.on_timeout(instant);
            }
            found.engine.end_turn(instant);
        }
        self.take_outputs(shard)?;
        self.go_on_starting(shard);
        self.set_next_turn(shard);
        Ok(())
    }

    pub(crate) fn shard(&mut self, shard: usize) -> Option<&mut Shard> {
        self.server.as_mut()?.shards.get_mut(shard)
    }

    fn set_next_turn(&mut self, shard: usize) {
        let now = self.agenda.now();
        let instant = self.agenda.instant();
        let Some(found) = self.shard(shard) else {
            return;
        };
        if found.engine.has_work() {
            return self.wake(shard);
        }
        if let Some(due) = found.engine.poll_timeout() {
            let micros = due.saturating_duration_since(instant).as_micros();
            let micros = Micros::try_from(micros).unwrap_or(Micros::MAX);
            // What is far away is looked at again later.
            self.wake_at(shard, now + (micros + 1).min(FAR_MICROS));
        }
    }

    /// All shards that were restored know of the others: Clients are let in.
    fn go_on_starting(&mut self, shard: usize) {
        let Some(server) = &mut self.server else {
            return;
        };
        if server.is_serving {
            return;
        }
        if let Some(found) = server.shards.get_mut(shard) {
            found.is_ready = found.engine.is_ready();
        }
        server.is_serving = server.shards.iter().all(|found| found.is_ready);
        if server.is_serving {
            self.say(|| "the Server accepts".to_owned());
            for shard in 0..self.shard_count() {
                self.wake(shard);
            }
        }
    }

    /// What the store has to say.
    fn take_news(&mut self, shard: usize) {
        let instant = self.agenda.instant();
        let bug = self.bug;
        let Some(server) = &mut self.server else {
            return;
        };
        let (mut written, mut durable) = server.persist.progress(shard);
        if bug == Some(Bug::TellDurableOfOthers) {
            durable = durable.max(server.persist.durable_of_any());
            written = written.max(durable);
        }
        let is_low = server.persist.is_low;
        let Some(found) = server.shards.get_mut(shard) else {
            return;
        };
        while let Some(loaded) = found.loaded.pop_front() {
            found.engine.on_loaded(loaded, instant);
        }
        if written > found.written || durable > found.durable {
            (found.written, found.durable) = (written, durable);
            found.engine.on_persisted(written, durable, instant);
        }
        if is_low != found.is_low {
            found.is_low = is_low;
            found.engine.on_storage_low(is_low);
            self.wake(shard);
        }
    }

    /// Some of what the other shards have sent, in the order of each.
    fn take_rings(&mut self, shard: usize) {
        let instant = self.agenda.instant();
        let count = self.shard_count();
        let first = self.chance.place(count);
        for from in (0..count).map(|step| (first + step) % count) {
            let mut budget = 1 + self.chance.place(2 * RING_MESSAGES);
            while let Some(message) = self.take_from_ring(from, shard) {
                let index = ShardIndex(u16::try_from(from).unwrap_or(0));
                if let Some(found) = self.shard(shard) {
                    found.engine.on_shard_message(index, message, instant);
                }
                budget -= 1;
                if budget == 0 {
                    break;
                }
            }
            let server = self.server.as_ref();
            let ring = server.and_then(|server| server.rings.get(from)?.get(shard));
            if ring.is_some_and(|ring| !ring.is_empty()) {
                self.wake(shard);
            }
        }
    }

    fn take_from_ring(&mut self, from: usize, to: usize) -> Option<ShardMessage> {
        let bug = self.bug;
        let server = self.server.as_mut()?;
        let ring = server.rings.get_mut(from)?.get_mut(to)?;
        let message = ring.pop_front()?;
        server.ring_messages += 1;
        match bug {
            Some(Bug::LoseShardMessage) if server.ring_messages.is_multiple_of(10) => {
                ring.pop_front()
            }
            Some(Bug::SwapShardMessages) if ring.front().is_some() => {
                let next = ring.pop_front();
                ring.push_front(message);
                next
            }
            _ => Some(message),
        }
    }

    /// What has arrived from Clients.
    fn take_links(&mut self, shard: usize) {
        let Some(server) = self.server.as_ref().filter(|server| server.is_serving) else {
            return;
        };
        let is_pressed = server.is_ring_full(shard) || server.persist.is_pressed();
        let mut links: Vec<u64> = self
            .links
            .iter()
            .filter(|(_, link)| link.shard == shard && link.is_served)
            .map(|(id, _)| *id)
            .collect();
        let first = self.chance.place(links.len());
        links.rotate_left(first);
        for link in links {
            self.tell_congested(link);
            self.take_link(link, is_pressed);
        }
    }

    fn tell_congested(&mut self, link: u64) {
        let instant = self.agenda.instant();
        let Some(found) = self.links.get_mut(&link) else {
            return;
        };
        let is_congested = found.to_client.len() > CONGESTED_PACKETS;
        if found.is_congested != is_congested && found.is_introduced {
            found.is_congested = is_congested;
            let shard = found.shard;
            if let Some(found) = self.shard(shard) {
                found
                    .engine
                    .on_congested(key_of(link), is_congested, instant);
            }
        }
    }

    fn take_link(&mut self, link: u64, is_pressed: bool) {
        let budget = 1 + self.chance.place(8);
        for taken in 0..budget {
            match self.next_from(link, is_pressed, taken) {
                Some(packet) => self.feed(link, &packet),
                None => break,
            }
        }
        let instant = self.agenda.instant();
        let Some(found) = self.links.get_mut(&link) else {
            return;
        };
        let (shard, is_done) = (found.shard, found.arrived == 0);
        if !found.is_served {
            return self.forget(link);
        }
        if is_done && found.is_gone {
            found.is_served = false;
            if let Some(found) = self.shard(shard) {
                found.engine.on_closed(key_of(link), instant);
            }
            self.forget(link);
        } else if !is_done {
            let after = self.chance.between(100, 2_000);
            self.wake_at(shard, self.agenda.now() + after);
        }
    }

    /// The next packet that can be taken, when `taken` were in this turn.
    fn next_from(&mut self, link: u64, is_pressed: bool, taken: usize) -> Option<FromClient> {
        let found = self.links.get(&link).filter(|found| found.is_served)?;
        if found.arrived == 0 {
            return None;
        }
        let server = self.server.as_ref()?;
        let engine = &server.shards.get(found.shard)?.engine;
        let publish = match found.to_server.front()? {
            FromClient::Publish { .. } if is_pressed => return None,
            // Nothing is sent once it is taken, so what is owed goes first.
            FromClient::Disconnect if taken > 0 || engine.is_holding(key_of(link)) => return None,
            FromClient::Publish { id, packet_id, dup } => Some((*id, *packet_id, *dup)),
            _ => None,
        };
        let mut place = 0;
        if let Some((id, packet_id, dup)) = publish
            && self.must_wait(link, id, packet_id, dup)
        {
            let found = self.links.get(&link)?;
            let mut arrived = found.to_server.iter().take(found.arrived);
            place = arrived.position(FromClient::is_answer)?;
        }
        let found = self.links.get_mut(&link)?;
        found.arrived -= 1;
        found.to_server.remove(place)
    }

    fn must_wait(&mut self, link: u64, id: usize, packet_id: Option<u16>, dup: bool) -> bool {
        let payload = payload(id, &self.checker);
        let now = self.agenda.instant();
        let Self {
            server,
            links,
            checker,
            ..
        } = self;
        let shard = links.get(&link).map(|found| found.shard);
        let server = server.as_mut();
        let shard = server.and_then(|server| server.shards.get_mut(shard?));
        let publish = publish(checker, id, packet_id, dup, &payload);
        match (shard, publish) {
            (Some(shard), Some(publish)) => {
                let hold = shard.engine.must_wait(key_of(link), &publish, now);
                hold.is_some()
            }
            _ => false,
        }
    }

    fn feed(&mut self, link: u64, packet: &FromClient) {
        self.say(|| format!("link {link} brings {packet:.60?}"));
        let (key, now) = (key_of(link), self.agenda.instant());
        let Self {
            server,
            links,
            checker,
            scenario,
            ..
        } = self;
        let Some(found) = links.get_mut(&link) else {
            return;
        };
        let server = server.as_mut();
        let Some(shard) = server.and_then(|server| server.shards.get_mut(found.shard)) else {
            return;
        };
        let engine = &mut shard.engine;
        match packet {
            FromClient::Connect(connect) => {
                found.is_introduced = true;
                let request = ConnectRequest {
                    connection: key,
                    connect: connect.clone(),
                    assigned_client_id: false,
                    authentication_data: None,
                    principal: Arc::clone(&scenario.principal),
                };
                engine.on_connect(request, now);
            }
            FromClient::Publish { id, packet_id, dup } => {
                if shard.is_low {
                    checker.on_brought_while_low(*id);
                }
                let payload = payload(*id, checker);
                if let Some(publish) = publish(checker, *id, *packet_id, *dup, &payload) {
                    engine.on_publish_of_many(key, &publish, None, now);
                }
            }
            FromClient::PubAck(id) => engine.on_puback(key, &success(*id), now),
            FromClient::PubRec(id) => engine.on_pubrec(key, &success(*id), now),
            FromClient::PubRel(id) => engine.on_pubrel(key, &success(*id), now),
            FromClient::PubComp(id) => engine.on_pubcomp(key, &success(*id), now),
            FromClient::Subscribe {
                packet_id,
                filter,
                qos,
            } => engine.on_subscribe(key, &subscribe(*packet_id, filter, *qos), now),
            FromClient::Unsubscribe { packet_id, filter } => {
                let unsubscribe = Unsubscribe {
                    packet_id: packet_identifier(*packet_id),
                    user_properties: Vec::new(),
                    filters: vec![filter],
                };
                engine.on_unsubscribe(key, &unsubscribe, now);
            }
            FromClient::Disconnect => {
                engine.on_disconnect(key, &Disconnect::new(ReasonCode::Success), now);
                found.is_served = false;
            }
        }
    }

    fn take_outputs(&mut self, shard: usize) -> Checked {
        while let Some(output) = self.shard(shard).and_then(|of| of.engine.poll_output()) {
            match output {
                Output::Send { connection, packet } => {
                    let link = link_of(connection);
                    self.say(|| format!("link {link} is sent {}", brief(&packet)));
                    self.note_refusal(link, &packet);
                    self.send_back(link, ToClient::Packet(packet));
                }
                Output::SendAll {
                    connection,
                    packets,
                } => {
                    let link = link_of(connection);
                    for packet in packets.packets() {
                        self.say(|| format!("link {link} is sent {}", brief(&packet)));
                        self.send_back(link, ToClient::Packet(packet));
                    }
                    if let Some(of) = self.shard(shard) {
                        of.engine.return_packets(packets);
                    }
                }
                Output::Close {
                    connection, reason, ..
                } => {
                    let link = link_of(connection);
                    self.say(|| format!("link {link} is closed: {reason:?}"));
                    if !is_expected(reason) {
                        return violation(format!("link {link} was closed: {reason:?}"));
                    }
                    if let Some(found) = self.links.get_mut(&link) {
                        found.is_served = false;
                    }
                    self.send_back(link, ToClient::End);
                    self.forget(link);
                }
                Output::ToShard { to, message } => {
                    let to = usize::from(to.0);
                    let server = self.server.as_mut();
                    let ring = server.and_then(|server| server.rings.get_mut(shard)?.get_mut(to));
                    if let Some(ring) = ring {
                        ring.push_back(message);
                    }
                    self.wake(to);
                }
                Output::Persist(batch) => self.append(shard, batch),
                // Everything is allowed here.
                Output::Denied(_) | Output::Lost(_) => {}
                Output::Load(load) => {
                    let after = self.chance.below(2_000);
                    let process = self.process;
                    if let Some(found) = self.shard(shard) {
                        found.loading += 1;
                    }
                    self.agenda.load_after(after, process, shard, load);
                }
            }
        }
        Ok(())
    }
}

/// Clients keep to the protocol, so the Server has few reasons to close.
const fn is_expected(reason: ReasonCode) -> bool {
    matches!(reason, ReasonCode::SessionTakenOver)
}

fn publish<'a>(
    checker: &'a crate::checker::Checker,
    id: usize,
    packet_id: Option<u16>,
    dup: bool,
    payload: &'a str,
) -> Option<Publish<'a>> {
    let message = checker.messages.get(id)?;
    let mut properties = PublishProperties::default();
    properties.message_expiry_interval_seconds = message.expires.then_some(1);
    Some(Publish {
        dup,
        qos: Qos::from_level(message.qos)?,
        retain: message.retain,
        topic: &message.topic,
        packet_id: packet_id.map(packet_identifier),
        properties,
        payload: payload.as_bytes(),
    })
}

fn subscribe(packet_id: u16, filter: &str, qos: u8) -> Subscribe<'_> {
    let options = SubscriptionOptions {
        qos: Qos::from_level(qos).expect("invariant: 0, 1 or 2"),
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    };
    Subscribe {
        packet_id: packet_identifier(packet_id),
        subscription_identifier: None,
        user_properties: Vec::new(),
        requests: vec![SubscriptionRequest { filter, options }],
    }
}

fn success(packet_id: u16) -> Ack {
    Ack::new(packet_identifier(packet_id), ReasonCode::Success)
}

fn packet_identifier(number: u16) -> PacketIdentifier {
    PacketIdentifier::new(number).expect("invariant: Clients count from 1")
}

/// With more on its way to a Client, it is congested.
const CONGESTED_PACKETS: usize = 8;
/// With more in a ring, its publishers are not read.
const RING_MESSAGES: usize = 8;
/// Timers that are later than this are looked at again then.
const FAR_MICROS: Micros = 3_600_000_000;
