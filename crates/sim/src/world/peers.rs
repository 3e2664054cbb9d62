//! Clients that keep their side of every handshake, over lost connections and crashes of the Server.
//!
//! Owns: [`Peer`], what a Client does of its own. Does not own: how it answers (see `answers`), the network
//! (see `links`). Start reading at [`World::act`].
//! Invariant: a Client does what the standard asks of it, and nothing it forbids.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU16;

use bytes::Bytes;
use engine::home_shard;
use proto::packet::{Connect, Will, WillProperties};
use proto::{Qos, Version};

use super::World;
use super::links::{FromClient, Link};
use crate::agenda::{Event, Micros};
use crate::chance::Chance;
use crate::checker::{Checker, MessageId, Outcome, Published};
use crate::scenario::{Life, Role};

/// A message on its way to the Server.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) id: MessageId,
    pub(super) packet_id: u16,
    pub(super) qos: u8,
    pub(super) is_released: bool,
}

/// A Client.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(super) role: Role,
    pub(super) link: Option<u64>,
    pub(super) has_connack: bool,
    /// Whether it knows that the Server keeps its Session.
    pub(super) is_known: bool,
    /// Whether it asks for a new Session until it has one.
    pub(super) wants_clean: bool,
    pub(super) is_reading: bool,
    pub(super) sent: VecDeque<Sent>,
    /// QoS 2 messages it has, by the Packet Identifiers that wait for PUBREL.
    pub(super) unreleased: BTreeMap<u16, Option<MessageId>>,
    /// Those of them that may be of an earlier Session: one that lives briefly may have been replaced without the
    /// Client having seen it.
    pub(super) doubtful: BTreeSet<u16>,
    /// SUBSCRIBE (true) and UNSUBSCRIBE without an answer.
    pub(super) requests: BTreeMap<u16, (bool, String)>,
    pub(super) will: Option<(MessageId, bool)>,
    /// When it last got something on a connection that was served, and how far the calendar had jumped by then.
    pub(super) gone_at: Micros,
    pub(super) jumped_at: u64,
}

/// The Client that looks at the retained messages at the end.
pub(crate) fn reader() -> Role {
    Role {
        name: "reader".to_owned(),
        version: Version::V5,
        life: Life::Clean,
        publishes: false,
        filters: vec![("r/#".to_owned(), 1)],
        is_member: false,
        is_watcher: false,
        retained_qos: 1,
        has_will: false,
        receive_maximum: 20,
    }
}

/// A payload that tells which message it is; some are longer than a segment.
pub(crate) fn payload(id: MessageId, checker: &Checker) -> String {
    if checker
        .messages
        .get(id)
        .is_some_and(|message| message.is_empty)
    {
        return String::new();
    }
    let mut chance = Chance::new(id as u64);
    let more = match chance.below(40) {
        0 => chance.below(6_000),
        1..=9 => chance.below(500),
        _ => 0,
    };
    format!("{id}.{:1$}", "", usize::try_from(more).unwrap_or(0))
}

impl Peer {
    pub(crate) fn new(role: Role) -> Self {
        Self {
            role,
            link: None,
            has_connack: false,
            is_known: false,
            wants_clean: false,
            is_reading: true,
            sent: VecDeque::new(),
            unreleased: BTreeMap::new(),
            doubtful: BTreeSet::new(),
            requests: BTreeMap::new(),
            will: None,
            gone_at: 0,
            jumped_at: 0,
        }
    }

    /// Whether it is connected and waits for nothing.
    pub(crate) fn is_quiet(&self) -> bool {
        self.has_connack
            && self.is_reading
            && self.sent.is_empty()
            && self.requests.is_empty()
            && self.unreleased.len() == self.doubtful.len()
    }

    pub(crate) fn describe(&self) -> String {
        format!("{self:?}")
    }

    /// The lowest Packet Identifier that stands for nothing.
    fn free_id(&self) -> u16 {
        let is_free = |id: &u16| {
            self.sent.iter().all(|sent| sent.packet_id != *id) && !self.requests.contains_key(id)
        };
        (1..).find(is_free).unwrap_or(1)
    }
}

impl World {
    /// A Client does something of its own.
    pub(crate) fn act(&mut self, index: usize) {
        if self.is_active() {
            self.act_freely(index);
        } else {
            self.finish(index);
        }
        let after = self.chance.between(1, 2 * self.scenario.act_micros);
        self.agenda.after(after, Event::Act { peer: index });
    }

    fn act_freely(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        let Some(link) = peer.link else {
            let is_patient = matches!(peer.role.life, Life::Brief(_));
            if self.chance.one_in(if is_patient { 60 } else { 3 }) {
                let cleans = self.chance.one_in(30);
                self.connect(index, cleans);
            }
            return;
        };
        if !peer.has_connack {
            if self.chance.one_in(20) {
                self.cut(link);
            }
            return;
        }
        if !peer.is_reading && self.chance.one_in(4) {
            return self.read_again(index);
        }
        let subscribes = if peer.role.is_watcher { 30 } else { 8 };
        match self.chance.weighted(&[50, subscribes, 2, 2, 1, 2]) {
            0 => self.publish(index),
            1 => self.change_subscription(index),
            2 => self.leave(index),
            3 => self.cut(link),
            4 => self.take_over(index),
            _ => {
                self.figures.stalls += 1;
                if let Some(peer) = self.peers.get_mut(index) {
                    peer.is_reading = false;
                }
            }
        }
    }

    /// Comes back, reads, and does nothing else.
    fn finish(&mut self, index: usize) {
        let Some(peer) = self.peers.get(index) else {
            return;
        };
        if peer.link.is_none() {
            self.connect(index, false);
        } else if !peer.is_reading {
            self.read_again(index);
        }
    }

    pub(crate) fn connect(&mut self, index: usize, cleans: bool) {
        let Some(server) = self.server.as_ref().filter(|server| server.is_serving) else {
            return;
        };
        let shards = u16::try_from(server.shards.len()).unwrap_or(1);
        let will = self.new_will(index);
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        peer.wants_clean |= cleans && !peer.role.is_member && peer.role.life != Life::Clean;
        let is_clean = peer.wants_clean || peer.role.life == Life::Clean;
        let mut connect = Connect::new(peer.role.version, &peer.role.name);
        connect.clean_start = is_clean;
        connect.will = will;
        if peer.role.version == Version::V5 {
            let properties = &mut connect.properties;
            properties.receive_maximum = NonZeroU16::new(peer.role.receive_maximum);
            properties.session_expiry_interval_seconds = match peer.role.life {
                Life::Clean => None,
                Life::Brief(seconds) => Some(seconds),
                Life::Durable => Some(u32::MAX),
            };
        } else if peer.wants_clean {
            // In 3.1.1 such a Session would end with its connection.
            peer.wants_clean = false;
            connect.clean_start = false;
        }
        let wants_clean = peer.wants_clean;
        let shard = home_shard(&peer.role.name, self.scenario.seed, shards);
        let link = self.next_link;
        self.next_link += 1;
        self.figures.connects += 1;
        (peer.link, peer.has_connack, peer.is_reading) = (Some(link), false, true);
        self.links
            .insert(link, Link::new(index, usize::from(shard.0)));
        if wants_clean {
            self.checker.on_session_ending(index);
        }
        let will = self.peers.get(index).and_then(|peer| peer.will);
        self.say(|| {
            format!("peer {index} connects by link {link}, clean: {is_clean}, will: {will:?}")
        });
        self.send(link, FromClient::Connect(Box::new(connect)));
    }

    fn new_will(&mut self, index: usize) -> Option<Will> {
        let role = &self.peers.get(index)?.role;
        if !role.has_will {
            return None;
        }
        let version = role.version;
        let qos = self.chance.pick(&[1, 2, 2]);
        let is_delayed = version == Version::V5 && self.chance.one_in(4);
        let topic = format!("w/{index}");
        let id = self.checker.on_publish(Published {
            publisher: index,
            topic: topic.clone(),
            qos,
            retain: false,
            is_empty: false,
            expires: false,
            is_will: true,
            was_refused: false,
            sent: 0,
            outcome: Outcome::Open,
        });
        self.peers.get_mut(index)?.will = Some((id, is_delayed));
        Some(Will {
            topic,
            payload: Bytes::from(payload(id, &self.checker)),
            qos: Qos::from_level(qos)?,
            retain: false,
            properties: WillProperties {
                delay_interval_seconds: u32::from(is_delayed),
                ..WillProperties::default()
            },
        })
    }

    fn publish(&mut self, index: usize) {
        let Some(peer) = self.peers.get(index).filter(|peer| peer.role.publishes) else {
            return;
        };
        if peer.sent.len() >= self.scenario.open_max {
            return;
        }
        let (packet_id, retained_qos) = (peer.free_id(), peer.role.retained_qos);
        let is_v5 = peer.role.version == Version::V5;
        let (topic, qos, retain) = match self.chance.below(10) {
            0..6 => (format!("t/{}", self.chance.below(4)), self.any_qos(), false),
            6..8 => (
                format!("s/m/{}", self.chance.below(2)),
                self.any_qos(),
                false,
            ),
            _ => (format!("r/{index}"), retained_qos, true),
        };
        let message = Published {
            publisher: index,
            is_empty: retain && self.chance.one_in(8),
            expires: !retain && is_v5 && self.chance.one_in(10),
            topic,
            qos,
            retain,
            is_will: false,
            was_refused: false,
            sent: 0,
            outcome: Outcome::Open,
        };
        let id = self.checker.on_publish(message);
        self.say(|| format!("peer {index} publishes {id} at QoS {qos}"));
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        let packet_id = (qos > 0).then_some(packet_id);
        if let Some(packet_id) = packet_id {
            peer.sent.push_back(Sent {
                id,
                packet_id,
                qos,
                is_released: false,
            });
        }
        self.tell(
            index,
            FromClient::Publish {
                id,
                packet_id,
                dup: false,
            },
        );
    }

    fn any_qos(&mut self) -> u8 {
        self.chance.pick(&[0, 1, 1, 1, 2, 2, 2, 2])
    }

    /// Subscribes or unsubscribes, mostly so that it is subscribed.
    pub(super) fn change_subscription(&mut self, index: usize) {
        let Some(peer) = self.peers.get(index) else {
            return;
        };
        if peer.role.filters.is_empty() {
            return;
        }
        let (filter, qos) = peer.role.filters[self.chance.place(peer.role.filters.len())].clone();
        let mut waiting = peer.requests.values();
        if waiting.any(|(_, waits)| *waits == filter) {
            return;
        }
        let packet_id = peer.free_id();
        let (is_member, is_watcher) = (peer.role.is_member, peer.role.is_watcher);
        let subscribes = match self.checker.is_subscribed(index, &filter) {
            Some(false) => true,
            Some(true) if is_member => return,
            Some(true) if is_watcher => self.chance.one_in(2),
            Some(true) => !self.chance.one_in(6),
            None => self.checker.wants(index, &filter),
        };
        self.say(|| format!("peer {index} subscribes to {filter}: {subscribes}"));
        let request = (subscribes, filter.clone());
        if let Some(peer) = self.peers.get_mut(index) {
            peer.requests.insert(packet_id, request);
        }
        let packet = if subscribes {
            self.figures.subscribes += 1;
            self.checker.on_subscribe(index, &filter, qos);
            FromClient::Subscribe {
                packet_id,
                filter,
                qos,
            }
        } else {
            self.checker.on_unsubscribe(index, &filter);
            FromClient::Unsubscribe { packet_id, filter }
        };
        self.tell(index, packet);
    }

    /// DISCONNECT.
    fn leave(&mut self, index: usize) {
        self.say(|| format!("peer {index} leaves"));
        self.tell(index, FromClient::Disconnect);
        if let Some(peer) = self.peers.get_mut(index) {
            peer.will = None;
        }
        self.end_link(index);
    }

    /// Connects anew while it is connected.
    fn take_over(&mut self, index: usize) {
        self.figures.take_overs += 1;
        self.end_link(index);
        self.connect(index, false);
    }

    /// The Client has no connection any more.
    pub(super) fn end_link(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        let Some(link) = peer.link.take() else { return };
        let was_served = std::mem::take(&mut peer.has_connack);
        peer.requests.clear();
        peer.is_reading = true;
        let (life, will) = (peer.role.life, peer.will.take());
        if life == Life::Clean {
            self.checker.on_session_ending(index);
        }
        // One with a delay may be cancelled by the next connection, one of a Session that nobody keeps may go
        // with the Server.
        if let Some((id, false)) = will
            && was_served
            && life == Life::Durable
        {
            self.figures.wills += 1;
            self.checker.on_acknowledged(id);
        }
        self.give_up(link);
        self.forget(link);
    }

    pub(crate) fn on_client_notices(&mut self, link: u64) {
        let Some(found) = self.links.get(&link).filter(|found| found.is_held) else {
            return;
        };
        let index = found.peer;
        self.say(|| format!("peer {index} notices that link {link} is gone"));
        self.end_link(index);
    }

    /// Sends a packet on the Client's connection.
    pub(super) fn tell(&mut self, index: usize, packet: FromClient) {
        if let Some(link) = self.peers.get(index).and_then(|peer| peer.link) {
            self.send(link, packet);
        }
    }

    fn read_again(&mut self, index: usize) {
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        peer.is_reading = true;
        if let Some(link) = peer.link {
            self.agenda.after(0, Event::ToClient { link });
        }
    }
}
