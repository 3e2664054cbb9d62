//! What the application asks of a Client's connection: publish, subscribe, authenticate, leave.
//!
//! Owns: what the Server announced, held against each request before it is written.
//! Does not own: answers to the Server's packets (see [`super`]). Start reading at
//! [`ClientConnection::publish`]. Invariant: a request that fails leaves no trace in the output.

use std::time::Instant;

use super::session::{Awaits, Outbound};
use super::{ClientConnection, Phase, SendError};
use crate::packet::{
    self, Auth, Disconnect, Packet, Property, Publish, PublishProperties, Subscribe,
    SubscriptionRequest, TopicAliasUse, Unsubscribe, UserProperties,
};
use crate::{PacketIdentifier, Qos, Version, topic};

impl ClientConnection {
    /// Appends a PUBLISH; `publish.packet_id` is chosen here and returned. [MQTT-3.3.1-2] DUP is 0.
    /// # Errors
    /// [`SendError::QuotaExhausted`]: try again after a
    /// [`ClientEvent::Published`](crate::connection::ClientEvent::Published). Anything else: the Server
    /// does not take this one. `out` is as it was.
    pub fn publish(
        &mut self,
        publish: &Publish<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<Option<PacketIdentifier>, SendError> {
        self.check_connected()?;
        let topic = self.check_publish(publish)?;
        // The whole name, where the packet has an alias in its place.
        let aliased = publish.properties.topic_alias.map(|_| topic.to_owned());
        let mut sent = Publish {
            dup: false,
            packet_id: None,
            ..*publish
        };
        if publish.qos != Qos::AtMostOnce {
            // [MQTT-3.3.4-7] [MQTT-4.9.0-2] Never more open than the Server's Receive Maximum.
            if self.send_quota == 0 || self.session.outbound.iter().any(|kept| !kept.is_sent) {
                return Err(SendError::QuotaExhausted);
            }
            let free = self.session.free_packet_id();
            sent.packet_id = Some(free.ok_or(SendError::NoPacketIdentifier)?);
        }
        let start = out.len();
        self.put_publish(&sent, now, out)?;
        if let Some(packet_id) = sent.packet_id {
            let is_aliased = sent.properties.topic_alias.is_some();
            let packet = if is_aliased || self.automatic_aliases.is_enabled() {
                let topic = aliased.as_deref().unwrap_or(sent.topic);
                without_alias(&sent, topic, self.version)?
            } else {
                out.get(start..).unwrap_or_default().to_vec()
            };
            let awaits = if sent.qos == Qos::ExactlyOnce {
                Awaits::Receipt
            } else {
                Awaits::Acknowledgement
            };
            self.session.outbound.push_back(Outbound {
                packet_id,
                awaits,
                packet,
                is_sent: true,
                takes_quota: true,
            });
            self.send_quota -= 1;
        }
        if let Some((alias, topic)) = publish.properties.topic_alias.zip(aliased) {
            self.topic_aliases_out.insert(alias, topic);
        }
        Ok(sent.packet_id)
    }

    /// Appends the packet, with a Topic Alias if one is to be chosen here.
    fn put_publish(
        &mut self,
        publish: &Publish<'_>,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        if let Some(alias) = publish.properties.topic_alias {
            self.put(&Packet::Publish(*publish), now, out)?;
            // It stands for something else from now on.
            self.automatic_aliases.forget(alias);
            return Ok(());
        }
        let Some(used) = self.automatic_aliases.assign(publish.topic) else {
            return self.put(&Packet::Publish(*publish), now, out);
        };
        let (topic, alias) = match used {
            TopicAliasUse::Define(alias) => (publish.topic, alias),
            TopicAliasUse::Replace(alias) => ("", alias),
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        let aliased = Publish {
            topic,
            properties: publish.properties.with_topic_alias(alias, &mut scratch),
            ..*publish
        };
        let written = self.put(&Packet::Publish(aliased), now, out);
        self.scratch = scratch;
        if written.is_err() && matches!(used, TopicAliasUse::Define(_)) {
            self.automatic_aliases.forget(alias);
        }
        written
    }

    /// What the Server announced, checked before the packet is written; returns the whole Topic Name.
    fn check_publish<'a>(&'a self, publish: &Publish<'a>) -> Result<&'a str, SendError> {
        // [MQTT-3.2.2-14] No RETAIN where it is not available.
        if publish.retain && self.announced.retain_available == Some(false) {
            return Err(SendError::RetainNotAvailable);
        }
        // [MQTT-3.2.2-11] No QoS above Maximum QoS.
        if self
            .announced
            .maximum_qos
            .is_some_and(|maximum| publish.qos > maximum)
        {
            return Err(SendError::QosNotSupported);
        }
        let Some(alias) = publish.properties.topic_alias else {
            topic::check_name(publish.topic)?;
            return Ok(publish.topic);
        };
        // [MQTT-3.2.2-17] [MQTT-3.2.2-18] [MQTT-3.3.2-9] None above the Server's Topic Alias Maximum.
        if alias > self.announced.topic_alias_maximum.unwrap_or(0) {
            return Err(SendError::TopicAliasInvalid);
        }
        if publish.topic.is_empty() {
            return self
                .topic_aliases_out
                .get(&alias)
                .map(String::as_str)
                .ok_or(SendError::TopicAliasInvalid);
        }
        topic::check_name(publish.topic)?;
        Ok(publish.topic)
    }

    /// Appends a SUBSCRIBE and returns its Packet Identifier.
    /// # Errors
    /// A filter is not well-formed, or the Server announced that it does not do this.
    pub fn subscribe(
        &mut self,
        requests: &[SubscriptionRequest<'_>],
        subscription_identifier: Option<u32>,
        user_properties: &UserProperties,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<PacketIdentifier, SendError> {
        self.check_connected()?;
        for request in requests {
            let is_shared = topic::check_filter(request.filter)?;
            if is_shared && self.announced.shared_subscription_available == Some(false) {
                return Err(SendError::SharedSubscriptionNotAvailable);
            }
            let is_wildcard = request.filter.contains(['+', '#']);
            if is_wildcard && self.announced.wildcard_subscription_available == Some(false) {
                return Err(SendError::WildcardSubscriptionNotAvailable);
            }
        }
        if subscription_identifier.is_some()
            && self.announced.subscription_identifier_available == Some(false)
        {
            return Err(SendError::SubscriptionIdentifierNotAvailable);
        }
        let packet_id = self
            .session
            .free_packet_id()
            .ok_or(SendError::NoPacketIdentifier)?;
        let subscribe = Subscribe {
            packet_id,
            subscription_identifier,
            user_properties: user_properties.clone(),
            requests: requests.to_vec(),
        };
        self.put(&Packet::Subscribe(subscribe), now, out)?;
        self.session.requests.insert(packet_id);
        Ok(packet_id)
    }

    /// Appends an UNSUBSCRIBE and returns its Packet Identifier.
    /// # Errors
    /// A filter is not well-formed, or the packet is too large.
    pub fn unsubscribe(
        &mut self,
        filters: &[&str],
        user_properties: &UserProperties,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<PacketIdentifier, SendError> {
        self.check_connected()?;
        filters
            .iter()
            .try_for_each(|filter| topic::check_filter(filter).map(|_| ()))?;
        let packet_id = self
            .session
            .free_packet_id()
            .ok_or(SendError::NoPacketIdentifier)?;
        let user_properties = user_properties.clone();
        let unsubscribe = Unsubscribe {
            packet_id,
            user_properties,
            filters: filters.to_vec(),
        };
        self.put(&Packet::Unsubscribe(unsubscribe), now, out)?;
        self.session.requests.insert(packet_id);
        Ok(packet_id)
    }

    /// Appends an AUTH: an answer during CONNECT, or the start of a re-authentication after CONNACK.
    /// # Errors
    /// CONNECT had no Authentication Method, or another one.
    pub fn send_auth(
        &mut self,
        auth: &Auth,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        // [MQTT-4.12.0-5] [MQTT-4.12.0-7] [MQTT-4.12.1-1]
        let is_allowed = self.phase != Phase::Closed
            && self.authentication_method.is_some()
            && auth.method == self.authentication_method;
        if !is_allowed {
            return Err(SendError::AuthenticationMethod);
        }
        self.put(&Packet::Auth(Box::new(auth.clone())), now, out)
    }

    /// Appends a DISCONNECT, after which nothing is sent. [MQTT-3.14.4-1] [v3.1.1 MQTT-3.14.4-2]
    /// # Errors
    /// Not connected, or the packet is too large.
    pub fn disconnect(
        &mut self,
        disconnect: &Disconnect,
        now: Instant,
        out: &mut Vec<u8>,
    ) -> Result<(), SendError> {
        self.check_connected()?;
        self.put(&Packet::Disconnect(disconnect.clone()), now, out)?;
        self.phase = Phase::Closed;
        Ok(())
    }

    fn check_connected(&self) -> Result<(), SendError> {
        // [MQTT-3.1.2-30] Before CONNACK nothing but AUTH and DISCONNECT.
        if self.is_connected() {
            Ok(())
        } else {
            Err(SendError::NotConnected)
        }
    }
}

/// `publish` with its whole topic and no Topic Alias, which would mean nothing on another connection.
fn without_alias(
    publish: &Publish<'_>,
    topic: &str,
    version: Version,
) -> Result<Vec<u8>, SendError> {
    let mut raw = Vec::new();
    for property in publish.properties.iter() {
        if !matches!(property, Property::TopicAlias(_)) {
            property.put(&mut raw)?;
        }
    }
    let properties = PublishProperties::parse(&raw)?;
    let mut packet = Vec::new();
    packet::encode(
        &Packet::Publish(Publish {
            topic,
            properties,
            ..*publish
        }),
        version,
        &mut packet,
    )?;
    Ok(packet)
}
