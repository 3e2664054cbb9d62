//! Why a Network Connection is closed by our side, with the Reason Code and the rule.
//!
//! Owns: [`ConnectionError`]. Does not own: how it is told to the peer (see `server`).
//! Start reading at [`ConnectionError`]. Invariant: every variant maps to one Reason Code.

use std::borrow::Cow;
use std::fmt;

use crate::Version;
use crate::packet::{Malformed, PacketType, ReasonCode};

/// Why our side closes the Connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionError {
    /// These bytes are no acceptable packet.
    Malformed(Malformed),
    /// The first packet was not CONNECT, [MQTT-3.1.0-1], [v3.1.1 MQTT-3.1.0-1].
    FirstPacketNotConnect,
    /// A second CONNECT, [MQTT-3.1.0-2], [v3.1.1 MQTT-3.1.0-2].
    SecondConnect,
    /// A packet that only a Server sends.
    ServerPacketFromClient(PacketType),
    /// A PUBLISH from a Client with a Subscription Identifier, [MQTT-3.3.4-6].
    SubscriptionIdentifierFromClient,
    /// A Topic Alias above the `maximum` we announced, [MQTT-3.2.2-17], [MQTT-3.3.2-9].
    TopicAliasAboveMaximum {
        /// The Topic Alias Maximum of the CONNACK.
        maximum: u16,
    },
    /// A Topic Alias that stands for nothing yet, section 3.3.2.3.4.
    TopicAliasUnknown,
    /// More QoS 1 and 2 PUBLISH packets open than the `maximum` we announced, [MQTT-3.3.4-7].
    ReceiveMaximumExceeded {
        /// The Receive Maximum of the CONNACK.
        maximum: u16,
    },
    /// More User Properties in a PUBLISH, or more bytes of properties, than are taken.
    TooManyProperties,
    /// Something other than AUTH or DISCONNECT during authentication, [MQTT-3.1.2-30].
    PacketDuringAuthentication(PacketType),
    /// AUTH without an Authentication Method in CONNECT, [MQTT-4.12.0-7].
    AuthWithoutMethod,
    /// AUTH with another Authentication Method than CONNECT, [MQTT-4.12.0-5], [MQTT-4.12.1-1].
    AuthMethodChanged,
    /// AUTH with a Reason Code that does not fit the exchange, [MQTT-4.12.0-3], [MQTT-4.12.1-1].
    AuthReasonCode,
    /// DISCONNECT sets a Session Expiry Interval where CONNECT had none, section 3.14.2.2.2.
    SessionExpiryFromZero,
    /// DISCONNECT with a Reason Code that only a Server sends, [MQTT-3.14.2-1].
    ServerReasonFromClient(ReasonCode),
    /// No complete CONNECT in time.
    ConnectTimeout,
    /// No complete packet within one and a half Keep Alive times, [MQTT-3.1.2-22],
    /// [v3.1.1 MQTT-3.1.2-24].
    KeepAliveTimeout,
    /// The Server's own decision.
    Refused {
        /// The Reason Code told to the peer.
        reason: ReasonCode,
        /// Why, for the Reason String and the log.
        text: Cow<'static, str>,
    },
}

impl From<Malformed> for ConnectionError {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl ConnectionError {
    /// The Server's own decision, as an error.
    pub fn refused(reason: ReasonCode, text: impl Into<Cow<'static, str>>) -> Self {
        Self::Refused {
            reason,
            text: text.into(),
        }
    }

    /// The Reason Code a 5.0 peer is told.
    #[must_use]
    pub const fn reason_code(&self) -> ReasonCode {
        match self {
            Self::Malformed(malformed) => malformed.reason_code(),
            Self::TopicAliasAboveMaximum { .. } => ReasonCode::TopicAliasInvalid,
            Self::ReceiveMaximumExceeded { .. } => ReasonCode::ReceiveMaximumExceeded,
            Self::KeepAliveTimeout => ReasonCode::KeepAliveTimeout,
            Self::TooManyProperties => ReasonCode::QuotaExceeded,
            Self::ConnectTimeout => ReasonCode::MaximumConnectTime,
            Self::Refused { reason, .. } => *reason,
            Self::FirstPacketNotConnect
            | Self::SecondConnect
            | Self::ServerPacketFromClient(_)
            | Self::SubscriptionIdentifierFromClient
            | Self::TopicAliasUnknown
            | Self::PacketDuringAuthentication(_)
            | Self::AuthWithoutMethod
            | Self::AuthMethodChanged
            | Self::AuthReasonCode
            | Self::SessionExpiryFromZero
            | Self::ServerReasonFromClient(_) => ReasonCode::ProtocolError,
        }
    }

    /// The statement or section that was broken, as `version` numbers it; empty for our own decisions.
    #[must_use]
    pub const fn statement(&self, version: Version) -> &'static str {
        let (v5, v3) = match self {
            Self::Malformed(malformed) => return malformed.statement(version),
            Self::FirstPacketNotConnect => ("MQTT-3.1.0-1", "v3.1.1 MQTT-3.1.0-1"),
            Self::SecondConnect => ("MQTT-3.1.0-2", "v3.1.1 MQTT-3.1.0-2"),
            Self::ServerPacketFromClient(_) => ("2.1.2", "v3.1.1 MQTT-4.8.0-1"),
            Self::SubscriptionIdentifierFromClient => ("MQTT-3.3.4-6", ""),
            Self::TopicAliasAboveMaximum { .. } => ("MQTT-3.2.2-17", ""),
            Self::TopicAliasUnknown => ("3.3.2.3.4", ""),
            Self::ReceiveMaximumExceeded { .. } => ("MQTT-3.3.4-7", ""),
            Self::PacketDuringAuthentication(_) => ("MQTT-3.1.2-30", ""),
            Self::AuthWithoutMethod => ("MQTT-4.12.0-7", ""),
            Self::AuthMethodChanged => ("MQTT-4.12.0-5", ""),
            Self::AuthReasonCode => ("MQTT-4.12.0-3", ""),
            Self::SessionExpiryFromZero => ("3.14.2.2.2", ""),
            Self::ServerReasonFromClient(_) => ("MQTT-3.14.2-1", ""),
            Self::KeepAliveTimeout => ("MQTT-3.1.2-22", "v3.1.1 MQTT-3.1.2-24"),
            Self::ConnectTimeout => ("3.1.4", "v3.1.1 3.1.4"),
            Self::TooManyProperties | Self::Refused { .. } => ("", ""),
        };
        if version.has_properties() { v5 } else { v3 }
    }
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::FirstPacketNotConnect => f.write_str("the first packet is not a CONNECT"),
            Self::SecondConnect => f.write_str("a second CONNECT on one Network Connection"),
            Self::ServerPacketFromClient(packet) => {
                write!(f, "a Client does not send {}", packet.name())
            }
            Self::SubscriptionIdentifierFromClient => {
                f.write_str("a Client does not send Subscription Identifiers in a PUBLISH")
            }
            Self::TopicAliasAboveMaximum { maximum } => {
                write!(
                    f,
                    "the Topic Alias is above the Topic Alias Maximum {maximum}"
                )
            }
            Self::TooManyProperties => {
                f.write_str("more properties in a PUBLISH than are taken here")
            }
            Self::TopicAliasUnknown => f.write_str("the Topic Alias stands for no Topic Name yet"),
            Self::ReceiveMaximumExceeded { maximum } => {
                write!(
                    f,
                    "more PUBLISH packets are open than the Receive Maximum {maximum}"
                )
            }
            Self::PacketDuringAuthentication(packet) => {
                write!(
                    f,
                    "{} before the authentication exchange has ended",
                    packet.name()
                )
            }
            Self::AuthWithoutMethod => {
                f.write_str("AUTH, but CONNECT had no Authentication Method")
            }
            Self::AuthMethodChanged => {
                f.write_str("the Authentication Method is not the one of CONNECT")
            }
            Self::AuthReasonCode => f.write_str("this AUTH Reason Code does not fit the exchange"),
            Self::SessionExpiryFromZero => {
                f.write_str("DISCONNECT sets a Session Expiry Interval where CONNECT had none")
            }
            Self::ServerReasonFromClient(reason) => {
                write!(f, "a Client does not send DISCONNECT with {reason}")
            }
            Self::ConnectTimeout => f.write_str("no complete CONNECT in time"),
            Self::KeepAliveTimeout => {
                f.write_str("no complete packet within one and a half Keep Alive times")
            }
            Self::Refused { text, .. } => f.write_str(text),
        }
    }
}

impl std::error::Error for ConnectionError {}
