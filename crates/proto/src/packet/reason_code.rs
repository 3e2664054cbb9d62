//! Reason Codes (section 2.4): one byte that says how an operation went.
//!
//! Owns: every Reason Code, which packets may carry which, and the 3.x return codes they become.
//! Does not own: who decides on one. Start reading at [`ReasonCode`].
//! Invariant: a Reason Code is only written into a packet whose table lists it.

use std::fmt;

use super::PacketType;

macro_rules! reason_codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal, [$($packet:ident)*];)*) => {
        /// A Reason Code. Where the standard gives one value several names (0x00), the general one is used.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum ReasonCode { $(#[doc = $text] $name = $value,)* }

        impl ReasonCode {
            /// Every Reason Code, in numeric order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The Reason Code with this value, or `None` if the standard has none.
            #[must_use]
            pub const fn from_value(value: u8) -> Option<Self> {
                match value { $($value => Some(Self::$name),)* _ => None }
            }

            /// What it means, in the standard's words.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whether a packet of this type may carry it, section 2.4.
            #[must_use]
            pub const fn is_allowed_in(self, packet_type: PacketType) -> bool {
                match self { $(Self::$name => matches!(packet_type, $(PacketType::$packet)|*),)* }
            }
        }
    };
}

reason_codes! {
    Success = 0x00, "Success", [ConnAck PubAck PubRec PubRel PubComp SubAck UnsubAck Disconnect Auth];
    GrantedQos1 = 0x01, "Granted QoS 1", [SubAck];
    GrantedQos2 = 0x02, "Granted QoS 2", [SubAck];
    DisconnectWithWillMessage = 0x04, "Disconnect with Will Message", [Disconnect];
    NoMatchingSubscribers = 0x10, "No matching subscribers", [PubAck PubRec];
    NoSubscriptionExisted = 0x11, "No subscription existed", [UnsubAck];
    ContinueAuthentication = 0x18, "Continue authentication", [Auth];
    ReAuthenticate = 0x19, "Re-authenticate", [Auth];
    UnspecifiedError = 0x80, "Unspecified error", [ConnAck PubAck PubRec SubAck UnsubAck Disconnect];
    MalformedPacket = 0x81, "Malformed Packet", [ConnAck Disconnect];
    ProtocolError = 0x82, "Protocol Error", [ConnAck Disconnect];
    ImplementationSpecificError = 0x83, "Implementation specific error", [ConnAck PubAck PubRec SubAck UnsubAck Disconnect];
    UnsupportedProtocolVersion = 0x84, "Unsupported Protocol Version", [ConnAck];
    ClientIdentifierNotValid = 0x85, "Client Identifier not valid", [ConnAck];
    BadUserNameOrPassword = 0x86, "Bad User Name or Password", [ConnAck];
    NotAuthorized = 0x87, "Not authorized", [ConnAck PubAck PubRec SubAck UnsubAck Disconnect];
    ServerUnavailable = 0x88, "Server unavailable", [ConnAck];
    ServerBusy = 0x89, "Server busy", [ConnAck Disconnect];
    Banned = 0x8A, "Banned", [ConnAck];
    ServerShuttingDown = 0x8B, "Server shutting down", [Disconnect];
    BadAuthenticationMethod = 0x8C, "Bad authentication method", [ConnAck Disconnect];
    KeepAliveTimeout = 0x8D, "Keep Alive timeout", [Disconnect];
    SessionTakenOver = 0x8E, "Session taken over", [Disconnect];
    TopicFilterInvalid = 0x8F, "Topic Filter invalid", [SubAck UnsubAck Disconnect];
    TopicNameInvalid = 0x90, "Topic Name invalid", [ConnAck PubAck PubRec Disconnect];
    PacketIdentifierInUse = 0x91, "Packet Identifier in use", [PubAck PubRec SubAck UnsubAck];
    PacketIdentifierNotFound = 0x92, "Packet Identifier not found", [PubRel PubComp];
    ReceiveMaximumExceeded = 0x93, "Receive Maximum exceeded", [Disconnect];
    TopicAliasInvalid = 0x94, "Topic Alias invalid", [Disconnect];
    PacketTooLarge = 0x95, "Packet too large", [ConnAck Disconnect];
    MessageRateTooHigh = 0x96, "Message rate too high", [Disconnect];
    QuotaExceeded = 0x97, "Quota exceeded", [ConnAck PubAck PubRec SubAck Disconnect];
    AdministrativeAction = 0x98, "Administrative action", [Disconnect];
    PayloadFormatInvalid = 0x99, "Payload format invalid", [ConnAck PubAck PubRec Disconnect];
    RetainNotSupported = 0x9A, "Retain not supported", [ConnAck Disconnect];
    QosNotSupported = 0x9B, "QoS not supported", [ConnAck Disconnect];
    UseAnotherServer = 0x9C, "Use another server", [ConnAck Disconnect];
    ServerMoved = 0x9D, "Server moved", [ConnAck Disconnect];
    SharedSubscriptionsNotSupported = 0x9E, "Shared Subscriptions not supported", [SubAck Disconnect];
    ConnectionRateExceeded = 0x9F, "Connection rate exceeded", [ConnAck Disconnect];
    MaximumConnectTime = 0xA0, "Maximum connect time", [Disconnect];
    SubscriptionIdentifiersNotSupported = 0xA1, "Subscription Identifiers not supported", [SubAck Disconnect];
    WildcardSubscriptionsNotSupported = 0xA2, "Wildcard Subscriptions not supported", [SubAck Disconnect];
}

impl ReasonCode {
    /// The byte on the wire.
    #[must_use]
    pub const fn value(self) -> u8 {
        self as u8
    }

    /// Whether it reports a failure (0x80 or greater).
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.value() >= 0x80
    }

    /// Whether a Client may send it in DISCONNECT; the others there are the Server's, section 3.14.2.1.
    #[must_use]
    pub const fn is_for_disconnect_of_client(self) -> bool {
        matches!(
            self,
            Self::Success
                | Self::DisconnectWithWillMessage
                | Self::UnspecifiedError
                | Self::MalformedPacket
                | Self::ProtocolError
                | Self::ImplementationSpecificError
                | Self::BadAuthenticationMethod
                | Self::TopicNameInvalid
                | Self::ReceiveMaximumExceeded
                | Self::TopicAliasInvalid
                | Self::PacketTooLarge
                | Self::MessageRateTooHigh
                | Self::QuotaExceeded
                | Self::AdministrativeAction
                | Self::PayloadFormatInvalid
        )
    }

    /// The 3.1 and 3.1.1 CONNACK return code for this refusal, or `None` where none applies and the
    /// connection closes without CONNACK, [v3.1.1 MQTT-3.2.2-6].
    #[must_use]
    pub const fn connack_return_code(self) -> Option<u8> {
        match self {
            Self::Success => Some(0),
            Self::UnsupportedProtocolVersion => Some(1),
            Self::ClientIdentifierNotValid => Some(2),
            Self::ServerUnavailable
            | Self::ServerBusy
            | Self::QuotaExceeded
            | Self::ConnectionRateExceeded
            | Self::UseAnotherServer
            | Self::ServerMoved => Some(3),
            Self::BadUserNameOrPassword => Some(4),
            Self::NotAuthorized | Self::Banned | Self::BadAuthenticationMethod => Some(5),
            _ => None,
        }
    }

    /// The Reason Code a 3.x CONNACK return code stands for, for the client side.
    #[must_use]
    pub const fn from_connack_return_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Success),
            1 => Some(Self::UnsupportedProtocolVersion),
            2 => Some(Self::ClientIdentifierNotValid),
            3 => Some(Self::ServerUnavailable),
            4 => Some(Self::BadUserNameOrPassword),
            5 => Some(Self::NotAuthorized),
            _ => None,
        }
    }
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:02X} {}", self.value(), self.text())
    }
}
