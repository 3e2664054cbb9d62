//! Network Connections: what is on its way in each direction, and how they end.
//!
//! Owns: [`Link`], [`FromClient`]. Does not own: who reads and writes (see `turn`, `peers`).
//! Start reading at [`Link`]. Invariant: packets of one direction arrive in their order, or not at all.

use std::collections::VecDeque;

use engine::ConnectionKey;
use proto::connection::Outgoing;
use proto::packet::Connect;

use super::World;
use crate::agenda::{Event, Micros};
use crate::checker::MessageId;

/// A packet from a Client.
#[derive(Clone, Debug)]
pub(crate) enum FromClient {
    Connect(Box<Connect>),
    Publish {
        id: MessageId,
        packet_id: Option<u16>,
        dup: bool,
    },
    PubAck(u16),
    PubRec(u16),
    PubRel(u16),
    PubComp(u16),
    Subscribe {
        packet_id: u16,
        filter: String,
        qos: u8,
    },
    Unsubscribe {
        packet_id: u16,
        filter: String,
    },
    Disconnect,
}

impl FromClient {
    /// Whether it makes room, or only answers, so that it need not wait behind a PUBLISH.
    pub(crate) const fn is_answer(&self) -> bool {
        matches!(
            self,
            Self::PubAck(_) | Self::PubRec(_) | Self::PubRel(_) | Self::PubComp(_)
        )
    }
}

/// What comes to a Client.
#[derive(Debug)]
pub(crate) enum ToClient {
    Packet(Outgoing),
    /// The Server has closed the connection.
    End,
}

/// One Network Connection.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) peer: usize,
    pub(crate) shard: usize,
    pub(crate) to_server: VecDeque<FromClient>,
    /// How many of them have arrived.
    pub(crate) arrived: usize,
    pub(crate) to_client: VecDeque<ToClient>,
    /// How many of them can be read.
    pub(crate) readable: usize,
    /// Whether the Server has it.
    pub(crate) is_served: bool,
    /// Whether the Client has it.
    pub(crate) is_held: bool,
    /// Whether the Server can notice that the Client does not have it any more.
    pub(crate) is_gone: bool,
    /// Whether the engine knows the connection.
    pub(crate) is_introduced: bool,
    pub(crate) is_congested: bool,
    /// Whether the network between the two sides is broken: nothing that is sent from now on arrives.
    is_cut: bool,
    last_to_server: Micros,
    last_to_client: Micros,
}

impl Link {
    pub(crate) const fn new(peer: usize, shard: usize) -> Self {
        Self {
            peer,
            shard,
            to_server: VecDeque::new(),
            arrived: 0,
            to_client: VecDeque::new(),
            readable: 0,
            is_served: true,
            is_held: true,
            is_gone: false,
            is_introduced: false,
            is_congested: false,
            is_cut: false,
            last_to_server: 0,
            last_to_client: 0,
        }
    }
}

impl Link {
    /// Whether nothing is on its way.
    pub(crate) fn is_quiet(&self) -> bool {
        self.to_server.is_empty() && self.to_client.is_empty() && self.is_served && self.is_held
    }
}

/// What engines call a link.
pub(crate) const fn key_of(link: u64) -> ConnectionKey {
    ConnectionKey(link << 32 | link)
}

pub(crate) const fn link_of(key: ConnectionKey) -> u64 {
    key.0 & 0xFFFF_FFFF
}

impl World {
    /// Sends a packet to the Server.
    pub(crate) fn send(&mut self, link: u64, packet: FromClient) {
        let delay = self.delay();
        let now = self.agenda.now();
        if let Some(found) = self.links.get_mut(&link).filter(|found| !found.is_cut) {
            found.to_server.push_back(packet);
            found.last_to_server = found.last_to_server.max(now + delay);
            let at = found.last_to_server;
            self.agenda.at(at, Event::ToServer { link });
        }
    }

    /// Sends something to a Client.
    pub(crate) fn send_back(&mut self, link: u64, what: ToClient) {
        let delay = self.delay();
        let now = self.agenda.now();
        if let Some(found) = self.links.get_mut(&link).filter(|found| !found.is_cut) {
            found.to_client.push_back(what);
            found.last_to_client = found.last_to_client.max(now + delay);
            let at = found.last_to_client;
            self.agenda.at(at, Event::ToClient { link });
        }
    }

    /// Mostly short, sometimes long.
    fn delay(&mut self) -> Micros {
        let delay = self.scenario.delay_micros;
        match self.chance.below(40) {
            0 => self.chance.below(40 * delay),
            _ => self.chance.below(delay),
        }
    }

    pub(crate) fn on_to_server(&mut self, link: u64) {
        let Some(found) = self.links.get_mut(&link) else {
            return;
        };
        if found.arrived < found.to_server.len() {
            found.arrived += 1;
            let shard = found.shard;
            self.wake(shard);
        }
    }

    /// The network between a Client and the Server breaks: each side notices in its own time, and what was on
    /// its way arrives in part.
    pub(crate) fn cut(&mut self, link: u64) {
        self.figures.cuts += 1;
        let kinds = self.chance.below(6);
        let soon = |world: &mut Self| world.chance.between(10, 3_000);
        let late = |world: &mut Self| world.chance.between(50_000, 400_000);
        let (server, client) = match kinds {
            0 => (late(self), soon(self)),
            1 => (soon(self), late(self)),
            _ => (soon(self), soon(self)),
        };
        self.figures.half_open += u64::from(kinds < 2);
        self.lose_packets(link);
        self.agenda.after(server, Event::ServerNotices { link });
        self.agenda.after(client, Event::ClientNotices { link });
    }

    /// Of what is on its way, only the first part arrives, and nothing that is sent from now on.
    fn lose_packets(&mut self, link: u64) {
        let Some(found) = self.links.get_mut(&link) else {
            return;
        };
        let (arrived, readable) = (found.arrived, found.readable);
        let (to_server, to_client) = (found.to_server.len(), found.to_client.len());
        let keeps = arrived + self.chance.place(to_server - arrived + 1);
        found.to_server.truncate(keeps);
        let keeps = readable + self.chance.place(to_client - readable + 1);
        found.to_client.truncate(keeps);
        // Events of what was lost find nothing.
        found.is_cut = true;
    }

    /// The Client has given the connection up: what it had sent arrives, then the Server notices.
    pub(crate) fn give_up(&mut self, link: u64) {
        let (now, delay) = (self.agenda.now(), self.delay());
        if let Some(found) = self.links.get_mut(&link) {
            found.is_held = false;
            found.to_client.clear();
            found.readable = 0;
            // One that comes after a later connection would end the Session that the Client goes on with.
            if let Some(FromClient::Connect(connect)) = found.to_server.front()
                && connect.clean_start
            {
                found.to_server.clear();
                found.arrived = 0;
            }
            if !found.is_cut {
                let at = found.last_to_server.max(now + delay);
                self.agenda.at(at, Event::ServerNotices { link });
            }
        }
    }

    pub(crate) fn on_server_notices(&mut self, link: u64) {
        if let Some(found) = self.links.get_mut(&link) {
            found.is_gone = true;
            let shard = found.shard;
            self.wake(shard);
        }
    }

    /// The process has ended: what it had sent arrives in part, then the end.
    pub(crate) fn end_all_links(&mut self) {
        let links: Vec<u64> = self.links.keys().copied().collect();
        for link in links {
            self.lose_packets(link);
            let is_held = self.links.get_mut(&link).is_some_and(|found| {
                found.is_served = false;
                found.to_server.clear();
                found.arrived = 0;
                found.is_held
            });
            if is_held {
                let micros = match self.chance.below(8) {
                    0 => self.chance.between(30_000, 300_000),
                    _ => self.chance.between(100, 5_000),
                };
                self.agenda.after(micros, Event::ClientNotices { link });
            } else {
                self.links.remove(&link);
            }
        }
    }

    /// Forgets a connection that neither side has.
    pub(crate) fn forget(&mut self, link: u64) {
        let found = self.links.get(&link);
        if found.is_some_and(|found| !found.is_served && !found.is_held) {
            self.links.remove(&link);
        }
    }
}
