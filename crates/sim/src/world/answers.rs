//! What Clients answer to what the Server sends, and what they make of it.
//!
//! Owns: reading, the handshakes. Does not own: what Clients do of their own (see `peers`), what a delivery means
//! (see `checker`). Start reading at [`World::on_to_client`].
//! Invariant: an acknowledgement is for something that was sent, and a Packet Identifier stands for one message.

use proto::connection::{Delivery, Outgoing};
use proto::packet::{Ack, ConnAck, ReasonCode};

use super::World;
use super::links::{FromClient, ToClient};
use super::peers::payload;
use crate::checker::{Checked, Outcome, violation};
use crate::scenario::Life;

impl World {
    pub(crate) fn on_to_client(&mut self, link: u64) -> Checked {
        let Some(found) = self.links.get_mut(&link) else {
            return Ok(());
        };
        if found.readable < found.to_client.len() {
            found.readable += 1;
        }
        self.read(link)
    }

    /// Reads what has arrived.
    fn read(&mut self, link: u64) -> Checked {
        loop {
            let Some(found) = self.links.get_mut(&link).filter(|found| found.is_held) else {
                return Ok(());
            };
            let index = found.peer;
            let is_reading = self.peers.get(index).is_some_and(|peer| peer.is_reading);
            if found.readable == 0 || !is_reading {
                return Ok(());
            }
            found.readable -= 1;
            let shard = found.shard;
            match found.to_client.pop_front() {
                Some(ToClient::Packet(packet)) => self.on_packet(index, packet)?,
                Some(ToClient::End) => self.end_link(index),
                None => return Ok(()),
            }
            let was_congested = self
                .links
                .get(&link)
                .is_some_and(|found| found.is_congested);
            if was_congested {
                self.wake(shard);
            }
        }
    }

    fn on_packet(&mut self, index: usize, packet: Outgoing) -> Checked {
        self.say(|| format!("peer {index} gets {}", brief(&packet)));
        let (now, jumped) = (self.agenda.now(), self.jumped_seconds);
        if let Some(peer) = self.peers.get_mut(index).filter(|peer| peer.has_connack) {
            (peer.gone_at, peer.jumped_at) = (now, jumped);
        }
        match packet {
            Outgoing::ConnAck(connack) => self.on_connack(index, &connack),
            Outgoing::PubAck(ack) => self.on_acknowledgement(index, &ack, 1),
            Outgoing::PubRec(ack) => self.on_acknowledgement(index, &ack, 2),
            Outgoing::PubComp(ack) => self.on_pubcomp(index, ack.packet_id.get()),
            Outgoing::Publish(delivery) => self.on_delivery(index, &delivery),
            Outgoing::PubRel(ack) => {
                let packet_id = ack.packet_id.get();
                if let Some(peer) = self.peers.get_mut(index) {
                    peer.unreleased.remove(&packet_id);
                    peer.doubtful.remove(&packet_id);
                }
                self.tell(index, FromClient::PubComp(packet_id));
                Ok(())
            }
            Outgoing::SubAck(suback) => {
                let id = suback.packet_id.get();
                self.on_request_done(index, id, suback.reasons.first().copied())
            }
            Outgoing::UnsubAck(unsuback) => {
                let reasons = unsuback.reasons;
                self.on_request_done(index, unsuback.packet_id.get(), reasons.first().copied())
            }
            // The end of the connection follows.
            Outgoing::Disconnect(_) => Ok(()),
            other => violation(format!("peer {index} got {other:?}")),
        }
    }

    fn on_connack(&mut self, index: usize, connack: &ConnAck) -> Checked {
        let (now, jumped) = (self.agenda.now(), self.jumped_seconds);
        let Some(peer) = self.peers.get_mut(index) else {
            return Ok(());
        };
        if connack.reason != ReasonCode::Success {
            return violation(format!("peer {index} was refused: {:?}", connack.reason));
        }
        let may_be_gone = match peer.role.life {
            Life::Clean => true,
            Life::Durable => peer.wants_clean,
            Life::Brief(seconds) => {
                let elapsed = now - peer.gone_at + 1_000_000 * (jumped - peer.jumped_at);
                peer.wants_clean || elapsed >= u64::from(seconds) * 1_000_000
            }
        };
        let must_be_gone = peer.wants_clean || peer.role.life == Life::Clean;
        if connack.session_present && must_be_gone {
            return violation(format!(
                "peer {index} got an old Session where it wanted none"
            ));
        }
        if peer.is_known && !connack.session_present && !may_be_gone {
            return violation(format!("the Session of peer {index} is lost"));
        }
        peer.has_connack = true;
        (peer.gone_at, peer.jumped_at) = (now, jumped);
        peer.wants_clean = false;
        let was_known = std::mem::replace(&mut peer.is_known, true);
        self.checker.on_connected(index);
        if connack.session_present {
            self.figures.resumed += 1;
            if was_known && may_be_gone {
                peer.doubtful = peer.unreleased.keys().copied().collect();
                self.checker.on_session_ending(index);
            }
            self.send_again(index);
        } else if was_known {
            self.begin_session(index);
        }
        if index + 1 == self.peers.len() {
            self.change_subscription(index);
        }
        Ok(())
    }

    /// The Server knows nothing of the Session, so neither does the Client.
    fn begin_session(&mut self, index: usize) {
        self.checker.on_session_began(index);
        let Some(peer) = self.peers.get_mut(index) else {
            return;
        };
        peer.unreleased.clear();
        peer.doubtful.clear();
        for sent in std::mem::take(&mut peer.sent) {
            self.checker.on_outcome(sent.id, Outcome::Unknown);
        }
    }

    /// Everything that is not finished, in order.
    fn send_again(&mut self, index: usize) {
        let sent = self.peers.get(index).map(|peer| peer.sent.clone());
        for sent in sent.into_iter().flatten() {
            let packet = if sent.is_released {
                FromClient::PubRel(sent.packet_id)
            } else {
                FromClient::Publish {
                    id: sent.id,
                    packet_id: Some(sent.packet_id),
                    dup: true,
                }
            };
            self.tell(index, packet);
        }
    }

    /// A message is refused, whether the Client will ever get the answer or not.
    pub(super) fn note_refusal(&mut self, link: u64, packet: &Outgoing) {
        let (Outgoing::PubAck(ack) | Outgoing::PubRec(ack)) = packet else {
            return;
        };
        if ack.reason != ReasonCode::QuotaExceeded {
            return;
        }
        let peer = self.links.get(&link).map(|link| link.peer);
        let Some(peer) = peer.and_then(|peer| self.peers.get(peer)) else {
            return;
        };
        let packet_id = ack.packet_id.get();
        if let Some(sent) = peer.sent.iter().find(|sent| sent.packet_id == packet_id) {
            self.checker.on_refusal(sent.id);
        }
    }

    /// PUBACK, PUBREC.
    fn on_acknowledgement(&mut self, index: usize, ack: &Ack, qos: u8) -> Checked {
        let packet_id = ack.packet_id.get();
        let Some(peer) = self.peers.get_mut(index) else {
            return Ok(());
        };
        let mut all = peer.sent.iter_mut();
        let Some(sent) = all.find(|sent| sent.packet_id == packet_id && sent.qos == qos) else {
            return violation(format!("peer {index} got {ack:?} for nothing"));
        };
        let id = sent.id;
        let is_refused = ack.reason == ReasonCode::QuotaExceeded;
        if ack.reason.is_error() && !is_refused {
            return violation(format!("peer {index} got {ack:?}"));
        }
        sent.is_released = true;
        if qos == 1 || is_refused {
            peer.sent.retain(|sent| sent.packet_id != packet_id);
        }
        if is_refused {
            self.checker.on_outcome(id, Outcome::Refused);
            return Ok(());
        }
        self.checker.on_acknowledged(id);
        if qos == 2 {
            self.tell(index, FromClient::PubRel(packet_id));
        }
        Ok(())
    }

    fn on_pubcomp(&mut self, index: usize, packet_id: u16) -> Checked {
        let Some(peer) = self.peers.get_mut(index) else {
            return Ok(());
        };
        let mut all = peer.sent.iter();
        if !all.any(|sent| sent.packet_id == packet_id && sent.is_released) {
            return violation(format!("peer {index} got PUBCOMP {packet_id} for nothing"));
        }
        peer.sent.retain(|sent| sent.packet_id != packet_id);
        Ok(())
    }

    fn on_request_done(
        &mut self,
        index: usize,
        packet_id: u16,
        reason: Option<ReasonCode>,
    ) -> Checked {
        let Some(peer) = self.peers.get_mut(index) else {
            return Ok(());
        };
        let Some((subscribes, filter)) = peer.requests.remove(&packet_id) else {
            return violation(format!("peer {index} got {reason:?} for nothing"));
        };
        match (subscribes, reason) {
            (_, Some(reason)) if reason.is_error() => {
                return violation(format!("peer {index} got {reason:?} for {filter}"));
            }
            (true, _) => self.checker.on_suback(index, &filter),
            (false, _) => self.checker.on_unsuback(index, &filter),
        }
        Ok(())
    }

    fn on_delivery(&mut self, index: usize, delivery: &Delivery) -> Checked {
        let text = String::from_utf8_lossy(delivery.message.payload()).into_owned();
        let id = text
            .split('.')
            .next()
            .and_then(|number| number.parse().ok());
        let topic = delivery.message.topic();
        let (qos, retain) = (delivery.qos.level(), delivery.retain);
        if id.is_none() && !text.is_empty() {
            return violation(format!(
                "peer {index} got a payload that nobody sent: {text}"
            ));
        }
        if let Some(id) = id.filter(|id| text != payload(*id, &self.checker)) {
            return violation(format!("peer {index} got {id} with another payload"));
        }
        let packet_id = delivery.packet_id.map_or(0, |id| id.get());
        let Some(peer) = self.peers.get_mut(index) else {
            return Ok(());
        };
        if qos == 2 {
            let is_doubtful = peer.doubtful.remove(&packet_id);
            match peer.unreleased.insert(packet_id, id) {
                Some(before) if before != id && is_doubtful => {}
                Some(before) if before != id => {
                    return violation(format!(
                        "peer {index}: Packet Identifier {packet_id} stands for {before:?} and {id:?}"
                    ));
                }
                Some(_) => {
                    self.tell(index, FromClient::PubRec(packet_id));
                    return Ok(());
                }
                None => {}
            }
        }
        if index + 1 == self.peers.len()
            && let Some(id) = id
        {
            self.found.insert(topic.to_owned(), id);
        }
        if let Some(id) = id {
            self.checker.on_delivery(index, topic, id, (qos, retain))?;
        }
        match qos {
            1 => self.tell(index, FromClient::PubAck(packet_id)),
            2 => self.tell(index, FromClient::PubRec(packet_id)),
            _ => {}
        }
        Ok(())
    }
}

/// A packet in a few words.
pub(crate) fn brief(packet: &Outgoing) -> String {
    match packet {
        Outgoing::Publish(delivery) => {
            let text = String::from_utf8_lossy(delivery.message.payload()).into_owned();
            format!(
                "PUBLISH {} at {} {:?} QoS {} retain {} dup {}",
                text.split('.').next().unwrap_or_default(),
                delivery.message.topic(),
                delivery.packet_id,
                delivery.qos.level(),
                delivery.retain,
                delivery.dup
            )
        }
        other => format!("{other:?}"),
    }
}
