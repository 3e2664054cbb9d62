//! What the Server hands to a Connection to be sent.
//!
//! Owns: [`Outgoing`], [`Delivery`]. Does not own: how it is written (see `server`).
//! Start reading at [`Outgoing`]. Invariant: shaped as MQTT 5.0; the version decides what remains.

use std::sync::Arc;

use crate::packet::{Ack, Auth, ConnAck, Disconnect, SubAck, UnsubAck};
use crate::{Message, PacketIdentifier, Qos};

/// One packet from Server to Client.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs, reason = "the names are the standard's")]
pub enum Outgoing {
    ConnAck(Box<ConnAck>),
    Publish(Delivery),
    PubAck(Ack),
    PubRec(Ack),
    PubRel(Ack),
    PubComp(Ack),
    SubAck(SubAck),
    UnsubAck(UnsubAck),
    PingResp,
    Disconnect(Box<Disconnect>),
    Auth(Box<Auth>),
}

/// One message for one Client, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryRef<'a> {
    /// The message, shared by all who get it.
    pub message: &'a Arc<Message>,
    /// DUP: whether this PUBLISH was sent before, [MQTT-3.3.1-1], [MQTT-3.3.1-3].
    pub dup: bool,
    /// QoS of this delivery.
    pub qos: Qos,
    /// RETAIN of this delivery.
    pub retain: bool,
    /// Present exactly if `qos` is above 0.
    pub packet_id: Option<PacketIdentifier>,
    /// Subscription Identifiers of all matching Subscriptions that have one.
    pub subscription_identifiers: Option<&'a Arc<[u32]>>,
}

impl<'a> From<&'a Delivery> for DeliveryRef<'a> {
    fn from(delivery: &'a Delivery) -> Self {
        Self {
            message: &delivery.message,
            dup: delivery.dup,
            qos: delivery.qos,
            retain: delivery.retain,
            packet_id: delivery.packet_id,
            subscription_identifiers: delivery.subscription_identifiers.as_ref(),
        }
    }
}

impl From<DeliveryRef<'_>> for Delivery {
    fn from(delivery: DeliveryRef<'_>) -> Self {
        Self {
            message: Arc::clone(delivery.message),
            dup: delivery.dup,
            qos: delivery.qos,
            retain: delivery.retain,
            packet_id: delivery.packet_id,
            subscription_identifiers: delivery.subscription_identifiers.cloned(),
        }
    }
}

/// One message for one Client.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivery {
    /// The message, shared by all who get it.
    pub message: Arc<Message>,
    /// DUP: whether this PUBLISH was sent before, [MQTT-3.3.1-1], [MQTT-3.3.1-3].
    pub dup: bool,
    /// QoS of this delivery.
    pub qos: Qos,
    /// RETAIN of this delivery.
    pub retain: bool,
    /// Present exactly if `qos` is above 0.
    pub packet_id: Option<PacketIdentifier>,
    /// Subscription Identifiers of all matching Subscriptions that have one.
    pub subscription_identifiers: Option<Arc<[u32]>>,
}
