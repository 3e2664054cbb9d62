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
