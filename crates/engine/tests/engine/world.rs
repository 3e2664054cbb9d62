//! A Server without sockets: shards, their rings, their stores and fake clients, all driven by hand.
//!
//! Owns: [`World`], [`Client`]. Does not own: what is tested, what a restart finds (see `recovery`).
//! Start reading at [`World::settle`].
//! Invariant: nothing happens in it but what a test asks for; time stands still until it is moved.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::recovery::Found;
use proto::connection::{Delivery, Outgoing};
use proto::packet::{
    Ack, ConnAck, Connect, Disconnect, Publish, PublishProperties, ReasonCode, RetainHandling,
    Subscribe, SubscriptionOptions, SubscriptionRequest, Unsubscribe, Will, WillProperties,
};
use proto::{PacketIdentifier, Qos, Version};
use store::{Batch, HeldStore, Load, Record, SessionId, Store, UnixMillis};
use vencejo_engine::{
    Actions, Config, ConnectRequest, ConnectionKey, Denied, Engine, Limits, Notation, Output,
    Principal, Rule, Rules, ShardIndex, ShardMessage, TopicPattern, Topics, Who, home_shard,
};

/// A Client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) key: ConnectionKey,
    pub(crate) shard: usize,
}

#[derive(Debug, Default)]
struct Inbox {
    packets: VecDeque<Outgoing>,
    closed: Option<ReasonCode>,
    /// Whether a CONNACK said Success.
    is_served: bool,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) engines: Vec<Engine>,
    pub(crate) stores: Vec<HeldStore>,
    pub(crate) now: Instant,
    /// Whether batches stay volatile until [`World::persist`].
    pub(crate) holds_store: bool,
    /// Whether the answers of the store stay with it until [`World::answer_loads`].
    pub(crate) holds_loads: bool,
    /// What the stores were asked for and have not answered.
    pub(crate) loading: BTreeMap<SessionId, Load>,
    /// Whether messages between shards stay in their rings until [`World::carry`].
    pub(crate) holds_rings: bool,
    /// Who connects.
    pub(crate) principal: Arc<Principal>,
    /// What the engines want to have logged.
    pub(crate) denied: Vec<Denied>,
    /// What [`World::connect`] speaks; 5.0 if not said otherwise.
    pub(crate) version: Version,
    inboxes: BTreeMap<ConnectionKey, Inbox>,
    rings: BTreeMap<(usize, usize), VecDeque<ShardMessage>>,
    /// What the engines are made with, whatever their shard.
    pub(crate) config: Config,
    /// An instant, and what the calendar said at it.
    calendar: (Instant, UnixMillis),
    /// What earlier processes have left in the log.
    past: Vec<Record>,
    /// The log of this process: the batches of all shards in the order in which they were appended.
    log: Vec<(usize, Batch)>,
    next_key: u64,
    next_packet_id: u16,
}

const SEED: u64 = 7;

/// The user that [`World::limit`] speaks of.
pub(crate) const LIMITED: &str = "limited";

/// Everyone may do everything, but for one user.
pub(crate) fn limited(publish: Option<&str>, subscribe: Option<&str>) -> Rules {
    let mut rules = Vec::new();
    let subscribing = Actions::SUBSCRIBE.and(Actions::RECEIVE);
    for (actions, filter) in [(Actions::PUBLISH, publish), (subscribing, subscribe)] {
        let Some(filter) = filter else { continue };
        let who = Who {
            users: [LIMITED.into()].into(),
            ..Who::default()
        };
        rules.push(Rule {
            actions,
            topics: at(filter),
            who: who.clone(),
            ..Rule::allow("the limited user may")
        });
        rules.push(Rule {
            actions,
            who,
            ..Rule::deny("the limited user may not")
        });
    }
    rules.push(Rule::allow("everyone may"));
    Rules::new(rules)
}

/// Topics that match `filter`.
pub(crate) fn at(filter: &str) -> Topics {
    let pattern = TopicPattern::parse(filter, Notation::Braces).expect("a pattern");
    Topics::Matching(vec![pattern])
}

/// The calendar when a World begins.
const BEGAN_AT: UnixMillis = UnixMillis(1_800_000_000_000);

impl World {
    pub(crate) fn new() -> Self {
        Self::with(1, Limits::default())
    }

    pub(crate) fn speaking(version: Version) -> Self {
        let mut world = Self::new();
        world.version = version;
        world
    }

    pub(crate) fn with(shards: u16, limits: Limits) -> Self {
        Self::with_config(shards, limits, |config| {
            config.sys_interval = Duration::ZERO;
        })
    }

    /// One shard whose store cannot be asked for messages.
    pub(crate) fn without_loads(limits: Limits) -> Self {
        Self::with_config(1, limits, |config| {
            config.sys_interval = Duration::ZERO;
            config.can_load = false;
        })
    }

    pub(crate) fn with_config(shards: u16, limits: Limits, change: impl Fn(&mut Config)) -> Self {
        let now = start();
        let mut config = Config::new(ShardIndex(0), shards, SEED);
        config.limits = Arc::new(limits);
        config.started_at = BEGAN_AT;
        config.can_load = true;
        change(&mut config);
        Self {
            engines: engines(&config, now),
            stores: (0..shards).map(|_| HeldStore::new()).collect(),
            now,
            config,
            calendar: (now, BEGAN_AT),
            past: Vec::new(),
            log: Vec::new(),
            holds_store: false,
            holds_rings: false,
            holds_loads: false,
            loading: BTreeMap::new(),
            principal: Arc::default(),
            denied: Vec::new(),
            version: Version::V5,
            inboxes: BTreeMap::new(),
            rings: BTreeMap::new(),
            next_key: 1,
            next_packet_id: 0,
        }
    }

    /// These rules are in force in every shard.
    pub(crate) fn set_rules(&mut self, rules: Rules) {
        let rules = Arc::new(rules);
        for engine in &mut self.engines {
            engine.set_rules(Arc::clone(&rules));
        }
        self.config.rules = rules;
    }

    /// These limits count in every shard.
    pub(crate) fn set_limits(&mut self, limits: Limits) {
        self.set_limits_of(limits, []);
    }

    /// The same, with those that listeners have in place of them, by their names.
    pub(crate) fn set_limits_of<const N: usize>(
        &mut self,
        limits: Limits,
        by_listener: [(&str, Limits); N],
    ) {
        let by_listener = by_listener.map(|(name, limits)| (name.into(), Arc::new(limits)));
        self.config.limits = Arc::new(limits);
        self.config.limits_by_listener = by_listener.into_iter().collect();
        for engine in &mut self.engines {
            let (limits, by_listener) = (&self.config.limits, &self.config.limits_by_listener);
            engine.set_limits(Arc::clone(limits), by_listener.clone(), self.now);
        }
        self.settle();
    }

    /// Whoever connects from now on is this user.
    pub(crate) fn log_in(&mut self, user: &str) {
        self.principal = Arc::new(Principal {
            user: Some(user.into()),
            ..Principal::default()
        });
    }

    /// Whoever connects from now on is a user who may do this below these filters only, if any are given.
    pub(crate) fn limit(&mut self, publish: Option<&str>, subscribe: Option<&str>) {
        self.log_in(LIMITED);
        self.set_rules(limited(publish, subscribe));
    }

    /// Ends turns and carries what they put out until nothing moves any more.
    pub(crate) fn settle(&mut self) {
        loop {
            let mut moved = self.turn();
            if !self.holds_rings {
                let ready: Vec<_> = self.rings.keys().copied().collect();
                for link in ready {
                    moved |= self.carry_one(link);
                }
            }
            if !moved {
                return;
            }
        }
    }

    /// One turn of every shard. Returns whether anything came out.
    pub(crate) fn turn(&mut self) -> bool {
        let mut moved = false;
        for shard in 0..self.engines.len() {
            let has_work = self.engines[shard].has_work();
            self.engines[shard].end_turn(self.now);
            moved |= self.take_outputs(shard) || has_work;
        }
        moved
    }

    fn take_outputs(&mut self, shard: usize) -> bool {
        let mut moved = false;
        while let Some(output) = self.engines[shard].poll_output() {
            moved = true;
            match output {
                Output::Send { connection, packet } => {
                    let inbox = self.inboxes.entry(connection).or_default();
                    assert_eq!(inbox.closed, None, "{packet:?} after Close");
                    inbox.is_served |= matches!(
                        &packet,
                        Outgoing::ConnAck(connack) if connack.reason == ReasonCode::Success
                    );
                    inbox.packets.push_back(packet);
                }
                Output::SendAll {
                    connection,
                    packets,
                } => {
                    let inbox = self.inboxes.entry(connection).or_default();
                    assert_eq!(inbox.closed, None, "{packets:?} after Close");
                    inbox.packets.extend(packets.packets());
                    self.engines[shard].return_packets(packets);
                }
                Output::Close {
                    connection,
                    reason,
                    client_id,
                } => {
                    let inbox = self.inboxes.entry(connection).or_default();
                    inbox.closed = Some(reason);
                    assert!(client_id.is_some() || !inbox.is_served, "whose was it?");
                    self.engines[shard].on_closed(connection, self.now);
                }
                Output::ToShard { to, message } => {
                    let link = (shard, usize::from(to.0));
                    self.rings.entry(link).or_default().push_back(message);
                }
                Output::Lost(_) => {}
                Output::Denied(denied) => self.denied.push(*denied),
                Output::Load(load) => {
                    let is_first = self.loading.insert(load.session, load).is_none();
                    assert!(is_first, "two loads for one Session");
                    self.stores[shard].load(load);
                    if !self.holds_loads {
                        self.answer_loads(shard);
                    }
                }
                Output::Persist(batch) => {
                    self.log.push((shard, batch.clone()));
                    self.stores[shard]
                        .append(batch)
                        .expect("batches come in order");
                    if !self.holds_store {
                        self.persist_shard(shard);
                    }
                }
            }
        }
        moved
    }

    /// Gives the shard the answers of its store; it says how many there were.
    pub(crate) fn answer_loads(&mut self, shard: usize) -> usize {
        let store = &mut self.stores[shard];
        let loaded: Vec<_> = std::iter::from_fn(|| store.poll_loaded()).collect();
        let count = loaded.len();
        for loaded in loaded {
            self.loading.remove(&loaded.session);
            self.engines[shard].on_loaded(loaded, self.now);
        }
        count
    }

    /// Makes everything appended durable.
    pub(crate) fn persist(&mut self) {
        for shard in 0..self.engines.len() {
            self.persist_shard(shard);
        }
        self.settle();
    }

    /// The same for one shard, which only hears of it: what is durable follows the order of the log.
    pub(crate) fn persist_shard(&mut self, shard: usize) {
        let durable = self.stores[shard].release();
        self.engines[shard].on_persisted(durable, durable, self.now);
    }

    /// Hands everything appended to the operating system; nothing more is durable.
    pub(crate) fn write(&mut self) {
        for (engine, store) in self.engines.iter_mut().zip(&self.stores) {
            let written = store.batches().last().map(|batch| batch.seq);
            engine.on_persisted(written.unwrap_or_default(), store.durable(), self.now);
        }
        self.settle();
    }

    /// What the engines are made with when they are made again.
    pub(crate) fn change_config(&mut self, change: impl FnOnce(&mut Config)) {
        change(&mut self.config);
    }

    /// The machine loses its power and starts again, with `shard_count` shards: what was durable is found
    /// again, connections and rings are gone, and no time has passed. Clients keep what they received.
    pub(crate) fn crash(&mut self, shard_count: u16) {
        self.crash_keeping(shard_count, 0);
    }

    /// The same, but up to `more` batches are found that were not known to be durable.
    pub(crate) fn crash_keeping(&mut self, shard_count: u16, more: usize) {
        let is_durable =
            |(shard, batch): &(usize, Batch)| batch.seq <= self.stores[*shard].durable();
        let durable = self.log.iter().rposition(is_durable).map_or(0, |at| at + 1);
        let kept = self.log.drain(..).take(durable + more);
        self.past.extend(kept.flat_map(|(_, batch)| batch.records));
        let found = Found::in_log(&self.past);
        self.past.extend(found.repairs.iter().cloned());
        self.config.started_at = self.calendar_now();
        self.restart(shard_count, found);
    }

    fn restart(&mut self, shard_count: u16, found: Found) {
        self.rings.clear();
        self.loading.clear();
        self.config.shard_count = shard_count;
        self.config.first_session = found.next_session;
        self.engines = engines(&self.config, self.now);
        self.stores = (0..shard_count)
            .map(|_| HeldStore::after(&self.past))
            .collect();
        let mut homes = vec![Vec::new(); usize::from(shard_count)];
        for session in found.sessions {
            let home = home_shard(&session.session.client_id, SEED, shard_count);
            homes[usize::from(home.0)].push(session);
        }
        for (engine, sessions) in self.engines.iter_mut().zip(homes) {
            engine.restore(sessions, found.retained.clone(), self.now);
        }
        let holds_rings = std::mem::replace(&mut self.holds_rings, false);
        self.settle();
        self.holds_rings = holds_rings;
        assert!(self.engines.iter().all(Engine::is_ready));
        self.advance(0);
    }

    /// Everything in the log, what earlier processes left included.
    pub(crate) fn records(&self) -> Vec<Record> {
        let log = self.log.iter().flat_map(|(_, batch)| &batch.records);
        self.past.iter().chain(log).cloned().collect()
    }

    /// The calendar is set forward or back; the next restart notices.
    pub(crate) fn jump_clock(&mut self, seconds: i64) {
        let said = self.calendar.1.0.saturating_add_signed(seconds * 1000);
        self.calendar.1 = UnixMillis(said);
    }

    /// The engines hear what the calendar says.
    pub(crate) fn tell_calendar(&mut self) {
        let calendar = self.calendar_now();
        for engine in &mut self.engines {
            engine.on_calendar(calendar, self.now);
        }
    }

    fn calendar_now(&self) -> UnixMillis {
        let (at, said) = self.calendar;
        let passed = self.now.saturating_duration_since(at).as_millis();
        let passed = u64::try_from(passed).expect("a short test");
        UnixMillis(said.0 + passed)
    }

    /// Carries one message from one shard to another, if there is one.
    pub(crate) fn carry_one(&mut self, link: (usize, usize)) -> bool {
        let Some(message) = self.rings.get_mut(&link).and_then(VecDeque::pop_front) else {
            return false;
        };
        let from = ShardIndex(u16::try_from(link.0).expect("few shards"));
        self.engines[link.1].on_shard_message(from, message, self.now);
        self.take_outputs(link.1);
        true
    }

    /// The links with something in their ring.
    pub(crate) fn loaded_links(&self) -> Vec<(usize, usize)> {
        let loaded = self.rings.iter().filter(|(_, ring)| !ring.is_empty());
        loaded.map(|(link, _)| *link).collect()
    }

    pub(crate) fn advance(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
        for engine in &mut self.engines {
            engine.on_timeout(self.now);
        }
        self.settle();
    }

    pub(crate) fn packet_id(&mut self) -> PacketIdentifier {
        self.next_packet_id = self.next_packet_id % 60_000 + 1;
        id(self.next_packet_id)
    }

    /// Connects and settles; the CONNACK is the first packet received.
    pub(crate) fn connect_with(&mut self, connect: Connect) -> Client {
        let client = self.connect_unsettled(connect);
        self.settle();
        client
    }

    /// The same, without settling.
    pub(crate) fn connect_unsettled(&mut self, connect: Connect) -> Client {
        let shard_count = u16::try_from(self.engines.len()).expect("few shards");
        let shard = usize::from(home_shard(&connect.client_id, SEED, shard_count).0);
        let key = ConnectionKey(self.next_key << 32 | self.next_key);
        self.next_key += 1;
        self.inboxes.insert(key, Inbox::default());
        let request = ConnectRequest {
            connection: key,
            connect: Box::new(connect),
            assigned_client_id: false,
            authentication_data: None,
            principal: Arc::clone(&self.principal),
        };
        self.engines[shard].on_connect(request, self.now);
        Client { key, shard }
    }

    /// A Client of [`Self::version`] whose Session never expires; its CONNACK is taken.
    pub(crate) fn connect(&mut self, client_id: &str) -> Client {
        self.resume(client_id).0
    }

    /// The same, with Session Present.
    pub(crate) fn resume(&mut self, client_id: &str) -> (Client, bool) {
        let mut connect = durable(client_id);
        connect.version = self.version;
        let client = self.connect_with(connect);
        let connack = self.connack(client);
        assert_eq!(connack.reason, ReasonCode::Success);
        (client, connack.session_present)
    }

    /// A clean Client of [`Self::version`] without anything special; its CONNACK is taken.
    pub(crate) fn connect_clean(&mut self, client_id: &str) -> Client {
        let client = self.connect_with(Connect::new(self.version, client_id));
        assert_eq!(self.connack(client).reason, ReasonCode::Success);
        client
    }

    /// A 3.1.1 Client; its CONNACK is taken.
    pub(crate) fn connect_311(&mut self, client_id: &str, clean_session: bool) -> Client {
        let mut connect = Connect::new(Version::V311, client_id);
        connect.clean_start = clean_session;
        let client = self.connect_with(connect);
        assert_eq!(self.connack(client).reason, ReasonCode::Success);
        client
    }

    pub(crate) fn connack(&mut self, client: Client) -> ConnAck {
        match self.next(client) {
            Some(Outgoing::ConnAck(connack)) => *connack,
            other => panic!("expected CONNACK, found {other:?}"),
        }
    }

    /// The next packet for this Client.
    pub(crate) fn next(&mut self, client: Client) -> Option<Outgoing> {
        self.inboxes.get_mut(&client.key)?.packets.pop_front()
    }

    /// Everything that has come for this Client.
    pub(crate) fn received(&mut self, client: Client) -> Vec<Outgoing> {
        std::iter::from_fn(|| self.next(client)).collect()
    }

    /// The PUBLISH packets among everything that has come for this Client.
    pub(crate) fn deliveries(&mut self, client: Client) -> Vec<Delivery> {
        let packets = self.received(client).into_iter();
        packets
            .filter_map(|packet| match packet {
                Outgoing::Publish(delivery) => Some(delivery),
                _ => None,
            })
            .collect()
    }

    /// The payloads of everything that has come for this Client.
    pub(crate) fn payloads(&mut self, client: Client) -> Vec<String> {
        self.deliveries(client).iter().map(payload).collect()
    }

    /// Acknowledges whatever comes, to the end of every handshake; returns the deliveries in order.
    pub(crate) fn drain(&mut self, client: Client) -> Vec<Delivery> {
        let mut deliveries = Vec::new();
        loop {
            let packets = self.received(client);
            if packets.is_empty() {
                return deliveries;
            }
            for packet in packets {
                match packet {
                    Outgoing::Publish(delivery) => {
                        self.acknowledge(client, &delivery);
                        deliveries.push(delivery);
                    }
                    Outgoing::PubRel(ack) => {
                        self.pubcomp(client, ack.packet_id.get());
                    }
                    _ => {}
                }
            }
        }
    }

    fn acknowledge(&mut self, client: Client, delivery: &Delivery) {
        match (delivery.qos, delivery.packet_id) {
            (Qos::AtLeastOnce, Some(packet_id)) => self.puback(client, packet_id.get()),
            (Qos::ExactlyOnce, Some(packet_id)) => self.pubrec(client, packet_id.get()),
            _ => {}
        }
    }

    pub(crate) fn closed(&self, client: Client) -> Option<ReasonCode> {
        self.inboxes.get(&client.key).and_then(|inbox| inbox.closed)
    }

    pub(crate) fn engine(&mut self, client: Client) -> &mut Engine {
        &mut self.engines[client.shard]
    }

    /// The Network Connection is lost.
    pub(crate) fn lose(&mut self, client: Client) {
        let now = self.now;
        self.engine(client).on_closed(client.key, now);
        self.inboxes.remove(&client.key);
        self.settle();
    }

    pub(crate) fn disconnect(&mut self, client: Client, disconnect: &Disconnect) {
        let now = self.now;
        self.engine(client)
            .on_disconnect(client.key, disconnect, now);
        self.settle();
    }

    pub(crate) fn subscribe(&mut self, client: Client, filter: &str, qos: u8) -> Vec<ReasonCode> {
        self.subscribe_with(client, filter, options(qos), None)
    }

    /// Subscribes and settles; returns the Reason Codes of SUBACK if it came, and leaves the rest.
    pub(crate) fn subscribe_with(
        &mut self,
        client: Client,
        filter: &str,
        options: SubscriptionOptions,
        subscription_identifier: Option<u32>,
    ) -> Vec<ReasonCode> {
        let subscribe = Subscribe {
            packet_id: self.packet_id(),
            subscription_identifier,
            user_properties: Vec::new(),
            requests: vec![SubscriptionRequest { filter, options }],
        };
        self.send_subscribe(client, &subscribe)
    }

    pub(crate) fn send_subscribe(
        &mut self,
        client: Client,
        subscribe: &Subscribe<'_>,
    ) -> Vec<ReasonCode> {
        let now = self.now;
        self.engine(client).on_subscribe(client.key, subscribe, now);
        self.settle();
        self.take(client, |packet| match packet {
            Outgoing::SubAck(suback) if suback.packet_id == subscribe.packet_id => {
                Some(suback.reasons.clone())
            }
            _ => None,
        })
        .unwrap_or_default()
    }

    pub(crate) fn unsubscribe(&mut self, client: Client, filter: &str) -> Vec<ReasonCode> {
        let packet_id = self.packet_id();
        let unsubscribe = Unsubscribe {
            packet_id,
            user_properties: Vec::new(),
            filters: vec![filter],
        };
        let now = self.now;
        self.engine(client)
            .on_unsubscribe(client.key, &unsubscribe, now);
        self.settle();
        self.take(client, |packet| match packet {
            Outgoing::UnsubAck(unsuback) => Some(unsuback.reasons.clone()),
            _ => None,
        })
        .unwrap_or_default()
    }

    /// Takes the first packet that `fits` out of what has come for this Client.
    pub(crate) fn take<T>(
        &mut self,
        client: Client,
        fits: impl Fn(&Outgoing) -> Option<T>,
    ) -> Option<T> {
        let packets = &mut self.inboxes.get_mut(&client.key)?.packets;
        let (index, found) = packets
            .iter()
            .enumerate()
            .find_map(|(index, packet)| Some((index, fits(packet)?)))?;
        packets.remove(index);
        Some(found)
    }

    /// Carries what is in the rings, without a turn.
    pub(crate) fn carry_all(&mut self) {
        for link in self.loaded_links() {
            self.carry_one(link);
        }
    }

    /// Publishes without settling: whatever comes next finds it done.
    pub(crate) fn send_publish(&mut self, client: Client, publish: &Publish<'_>) {
        let now = self.now;
        self.engine(client)
            .on_publish_of_many(client.key, publish, None, now);
    }

    /// Publishes with a fresh Packet Identifier and settles.
    pub(crate) fn publish(&mut self, client: Client, topic: &str, qos: u8, payload: &str) {
        let packet_id = self.packet_id();
        self.send_publish(client, &publish(topic, qos, payload, packet_id));
        self.settle();
    }

    pub(crate) fn publish_retained(&mut self, client: Client, topic: &str, qos: u8, payload: &str) {
        let packet_id = self.packet_id();
        let publish = Publish {
            retain: true,
            ..publish(topic, qos, payload, packet_id)
        };
        self.send_publish(client, &publish);
        self.settle();
    }

    /// Publishes a retained message with a Message Expiry Interval and settles.
    pub(crate) fn publish_expiring(&mut self, client: Client, topic: &str, seconds: u32) {
        let packet_id = self.packet_id();
        let mut publish = publish(topic, 1, "expires", packet_id);
        publish.retain = true;
        publish.properties.message_expiry_interval_seconds = Some(seconds);
        self.send_publish(client, &publish);
        self.settle();
    }

    pub(crate) fn puback(&mut self, client: Client, packet_id: u16) {
        let (now, ack) = (self.now, Ack::new(id(packet_id), ReasonCode::Success));
        self.engine(client).on_puback(client.key, &ack, now);
        self.settle();
    }

    pub(crate) fn pubrec(&mut self, client: Client, packet_id: u16) {
        let (now, ack) = (self.now, Ack::new(id(packet_id), ReasonCode::Success));
        self.engine(client).on_pubrec(client.key, &ack, now);
        self.settle();
    }

    pub(crate) fn pubrel(&mut self, client: Client, packet_id: u16) {
        let (now, ack) = (self.now, Ack::new(id(packet_id), ReasonCode::Success));
        self.engine(client).on_pubrel(client.key, &ack, now);
        self.settle();
    }

    pub(crate) fn pubcomp(&mut self, client: Client, packet_id: u16) {
        let (now, ack) = (self.now, Ack::new(id(packet_id), ReasonCode::Success));
        self.engine(client).on_pubcomp(client.key, &ack, now);
        self.settle();
    }

    pub(crate) fn congest(&mut self, client: Client, congested: bool) {
        let now = self.now;
        self.engine(client).on_congested(client.key, congested, now);
        self.settle();
    }
}

fn engines(config: &Config, now: Instant) -> Vec<Engine> {
    let engine = |shard| {
        let mut config = config.clone();
        config.shard = ShardIndex(shard);
        Engine::new(config, now)
    };
    (0..config.shard_count).map(engine).collect()
}

/// The same as [`durable`], with a retained Will.
pub(crate) fn with_will_at(client_id: &str, topic: &str, delay_interval_seconds: u32) -> Connect {
    let mut connect = durable(client_id);
    connect.will = Some(Will {
        topic: topic.to_owned(),
        payload: "gone".into(),
        qos: Qos::AtLeastOnce,
        retain: true,
        properties: WillProperties {
            delay_interval_seconds,
            ..WillProperties::default()
        },
    });
    connect
}

/// A 5.0 CONNECT that resumes and whose Session never expires.
pub(crate) fn durable(client_id: &str) -> Connect {
    let mut connect = Connect::new(Version::V5, client_id);
    connect.clean_start = false;
    connect.properties.session_expiry_interval_seconds = Some(u32::MAX);
    connect
}

pub(crate) fn publish<'a>(
    topic: &'a str,
    qos: u8,
    payload: &'a str,
    packet_id: PacketIdentifier,
) -> Publish<'a> {
    let qos = Qos::from_level(qos).expect("0, 1 or 2");
    Publish {
        dup: false,
        qos,
        retain: false,
        topic,
        packet_id: (qos != Qos::AtMostOnce).then_some(packet_id),
        properties: PublishProperties::default(),
        payload: payload.as_bytes(),
    }
}

pub(crate) fn options(qos: u8) -> SubscriptionOptions {
    SubscriptionOptions {
        qos: Qos::from_level(qos).expect("0, 1 or 2"),
        no_local: false,
        retain_as_published: false,
        retain_handling: RetainHandling::Send,
    }
}

/// A Client Identifier that lives in this shard, of so many.
pub(crate) fn name_in(shard: usize, shards: u16, what: &str) -> String {
    let mut names = (0..).map(|number| format!("{what}-{number}"));
    let is_there = |name: &String| usize::from(home_shard(name, SEED, shards).0) == shard;
    names.find(is_there).expect("some name")
}

pub(crate) fn id(number: u16) -> PacketIdentifier {
    PacketIdentifier::new(number).expect("not zero")
}

pub(crate) fn payload(delivery: &Delivery) -> String {
    String::from_utf8_lossy(delivery.message.payload()).into_owned()
}

#[allow(
    clippy::disallowed_methods,
    reason = "tests need one instant to begin from"
)]
fn start() -> Instant {
    Instant::now()
}
