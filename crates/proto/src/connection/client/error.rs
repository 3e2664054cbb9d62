//! What can go wrong on a Client's connection: the Server's mistakes, and requests it would refuse.
//!
//! Owns: [`ClientError`] (the connection ends) and [`SendError`] (one request is not sent).
//! Does not own: a refusal in CONNACK, which is an event. Start reading at [`ClientError`].
//! Invariant: every [`ClientError`] has the Reason Code for our DISCONNECT.

use std::fmt;

use crate::packet::{EncodeError, Malformed, PacketType, ReasonCode};

/// Why the Client ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientError {
    /// Bytes that can never become a packet.
    Malformed(Malformed),
    /// A packet that may not come now, or not from a Server.
    UnexpectedPacket(PacketType),
    /// No CONNACK in time.
    ConnAckTimeout,
    /// No PINGRESP in time.
    PingTimeout,
    /// Session Present without Session State here, [MQTT-3.2.2-4].
    SessionPresentWithoutState,
    /// More QoS 1 and 2 messages open than we announced.
    ReceiveMaximumExceeded,
    /// A Topic Alias above our maximum, or one that stands for nothing.
    TopicAliasInvalid,
    /// An Authentication Method we did not ask for.
    AuthenticationMethod,
}

impl ClientError {
    /// The Reason Code of our DISCONNECT.
    #[must_use]
    pub const fn reason_code(&self) -> ReasonCode {
        match self {
            Self::Malformed(Malformed::PacketTooLarge) => ReasonCode::PacketTooLarge,
            Self::Malformed(malformed) => match malformed.reason_code() {
                ReasonCode::UnsupportedProtocolVersion => ReasonCode::ProtocolError,
                reason => reason,
            },
            Self::ConnAckTimeout | Self::PingTimeout => ReasonCode::UnspecifiedError,
            Self::ReceiveMaximumExceeded => ReasonCode::ReceiveMaximumExceeded,
            Self::TopicAliasInvalid => ReasonCode::TopicAliasInvalid,
            Self::UnexpectedPacket(_)
            | Self::SessionPresentWithoutState
            | Self::AuthenticationMethod => ReasonCode::ProtocolError,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::UnexpectedPacket(packet_type) => {
                write!(f, "the server sent {} where it may not", packet_type.name())
            }
            Self::ConnAckTimeout => f.write_str("the server sent no CONNACK in time"),
            Self::PingTimeout => f.write_str("the server did not answer PINGREQ in time"),
            Self::SessionPresentWithoutState => {
                f.write_str("the server resumes a session that this client does not have")
            }
            Self::ReceiveMaximumExceeded => {
                f.write_str("the server sent more messages at once than Receive Maximum allows")
            }
            Self::TopicAliasInvalid => f.write_str("the server used a Topic Alias it may not use"),
            Self::AuthenticationMethod => {
                f.write_str("the server used another Authentication Method than CONNECT did")
            }
        }
    }
}

impl std::error::Error for ClientError {}

impl From<Malformed> for ClientError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// Why a request of ours is not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// A session to keep needs a Client Identifier before 5.0, [v3.1.1 MQTT-3.1.3-7].
    ClientIdMissing,
    /// No CONNACK yet, or the connection is over.
    NotConnected,
    /// The Server's Receive Maximum is used up for now.
    QuotaExhausted,
    /// All 65,535 Packet Identifiers are in use.
    NoPacketIdentifier,
    /// Larger than the Server's Maximum Packet Size.
    PacketTooLarge,
    /// The Server keeps no Retained Messages.
    RetainNotAvailable,
    /// QoS above the Server's Maximum QoS.
    QosNotSupported,
    /// The Server takes no wildcards.
    WildcardSubscriptionNotAvailable,
    /// The Server has no Shared Subscriptions.
    SharedSubscriptionNotAvailable,
    /// The Server takes no Subscription Identifiers.
    SubscriptionIdentifierNotAvailable,
    /// A Topic Alias above the Server's maximum, or one that stands for nothing.
    TopicAliasInvalid,
    /// AUTH without, or with another, Authentication Method than CONNECT had.
    AuthenticationMethod,
    /// The Topic Name or Topic Filter is not well-formed.
    Topic(Malformed),
    /// The packet cannot be written.
    Encode(EncodeError),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClientIdMissing => "a session to keep needs a client identifier",
            Self::NotConnected => "there is no connection",
            Self::QuotaExhausted => "the server's Receive Maximum is used up",
            Self::NoPacketIdentifier => "all Packet Identifiers are in use",
            Self::PacketTooLarge => "the packet is larger than the server accepts",
            Self::RetainNotAvailable => "the server keeps no retained messages",
            Self::QosNotSupported => "the server does not support this QoS",
            Self::WildcardSubscriptionNotAvailable => "the server takes no wildcard subscriptions",
            Self::SharedSubscriptionNotAvailable => "the server has no shared subscriptions",
            Self::SubscriptionIdentifierNotAvailable => {
                "the server takes no subscription identifiers"
            }
            Self::TopicAliasInvalid => "the server does not take this topic alias",
            Self::AuthenticationMethod => "CONNECT did not name this authentication method",
            Self::Topic(malformed) => malformed.text(),
            Self::Encode(error) => return error.fmt(f),
        })
    }
}

impl std::error::Error for SendError {}

impl From<EncodeError> for SendError {
    fn from(error: EncodeError) -> Self {
        Self::Encode(error)
    }
}

impl From<Malformed> for SendError {
    fn from(malformed: Malformed) -> Self {
        Self::Topic(malformed)
    }
}
