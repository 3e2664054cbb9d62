//! Why bytes were refused: one variant for each misdeed, with its Reason Code and its rule.
//!
//! Owns: [`Malformed`], the cause the log, the counter and the peer are told.
//! Does not own: what is sent before closing (see `connection`). Start reading at [`Malformed`].
//! Invariant: every variant maps to one Reason Code and, per version, to the statement it breaks.

use std::fmt;

use super::ReasonCode;
use crate::Version;

macro_rules! misdeeds {
    ($($name:ident => $reason:ident, $v5:literal, $v3:literal, $text:literal;)*) => {
        /// Why a packet was refused. These bytes can never become an acceptable packet.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Malformed { $(#[doc = $text] $name,)* }

        impl Malformed {
            /// Every misdeed there is a name for.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The Reason Code a 5.0 peer is sent.
            #[must_use]
            pub const fn reason_code(self) -> ReasonCode {
                match self { $(Self::$name => ReasonCode::$reason,)* }
            }

            /// The number of the statement (or the section) that was broken, as `version` numbers it.
            #[must_use]
            pub const fn statement(self, version: Version) -> &'static str {
                match (self, version.has_properties()) { $(
                    (Self::$name, true) => $v5,
                    (Self::$name, false) => $v3,
                )* }
            }

            /// What was wrong, as a sentence for the Reason String and the log.
            #[must_use]
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

misdeeds! {
    Truncated => MalformedPacket, "4.13", "v3.1.1 MQTT-4.8.0-1", "a field ends beyond its packet";
    TrailingBytes => MalformedPacket, "4.13", "v3.1.1 MQTT-4.8.0-1", "bytes follow the last field of the packet";
    VariableByteIntegerTooLong => MalformedPacket, "1.5.5", "v3.1.1 2.2.3", "a Variable Byte Integer has more than four bytes";
    VariableByteIntegerNotMinimal => MalformedPacket, "MQTT-1.5.5-1", "v3.1.1 2.2.3", "a Variable Byte Integer is longer than its value needs";
    PacketTooLarge => PacketTooLarge, "MQTT-3.2.2-15", "v3.1.1 MQTT-4.8.0-1", "the packet is larger than the Maximum Packet Size";
    ReservedPacketType => MalformedPacket, "2.1.2", "v3.1.1 2.2.1", "the packet type is reserved";
    ReservedFlags => MalformedPacket, "MQTT-2.1.3-1", "v3.1.1 MQTT-2.2.2-2", "reserved flag bits of the Fixed Header are not as listed";
    Utf8 => MalformedPacket, "MQTT-1.5.4-1", "v3.1.1 MQTT-1.5.3-1", "a string is not well-formed UTF-8";
    NullCharacter => MalformedPacket, "MQTT-1.5.4-2", "v3.1.1 MQTT-1.5.3-2", "a string holds the null character U+0000";
    PacketIdentifierZero => ProtocolError, "MQTT-2.2.1-3", "v3.1.1 MQTT-2.3.1-1", "the Packet Identifier is zero";
    QosThree => MalformedPacket, "MQTT-3.3.1-4", "v3.1.1 MQTT-3.3.1-4", "both QoS bits are set";
    DupOnQos0 => MalformedPacket, "MQTT-3.3.1-2", "v3.1.1 MQTT-3.3.1-2", "DUP is set on a QoS 0 PUBLISH";
    TopicNameEmpty => ProtocolError, "MQTT-4.7.3-1", "v3.1.1 MQTT-4.7.3-1", "the Topic Name is empty and there is no Topic Alias";
    WildcardInTopicName => MalformedPacket, "MQTT-3.3.2-2", "v3.1.1 MQTT-3.3.2-2", "the Topic Name holds a wildcard character";
    TopicFilterEmpty => MalformedPacket, "MQTT-4.7.3-1", "v3.1.1 MQTT-4.7.3-1", "a Topic Filter is empty";
    TopicFilterMultiLevel => MalformedPacket, "MQTT-4.7.1-1", "v3.1.1 MQTT-4.7.1-2", "# is not the whole last level of the Topic Filter";
    TopicFilterSingleLevel => MalformedPacket, "MQTT-4.7.1-2", "v3.1.1 MQTT-4.7.1-3", "+ does not occupy a whole level of the Topic Filter";
    ShareNameInvalid => MalformedPacket, "MQTT-4.8.2-2", "v3.1.1 MQTT-4.8.0-1", "the ShareName is empty, holds a wildcard, or no Topic Filter follows it";
    NoLocalOnShared => ProtocolError, "MQTT-3.8.3-4", "v3.1.1 MQTT-4.8.0-1", "No Local is set on a Shared Subscription";
    ProtocolName => UnsupportedProtocolVersion, "MQTT-3.1.2-1", "v3.1.1 MQTT-3.1.2-1", "the protocol name is not MQTT";
    ProtocolVersion => UnsupportedProtocolVersion, "MQTT-3.1.2-2", "v3.1.1 MQTT-3.1.2-2", "the protocol version is not 3.1, 3.1.1 or 5.0";
    ConnectReservedFlag => MalformedPacket, "MQTT-3.1.2-3", "v3.1.1 MQTT-3.1.2-3", "the reserved CONNECT flag is set";
    WillQosWithoutWill => MalformedPacket, "MQTT-3.1.2-11", "v3.1.1 MQTT-3.1.2-13", "a Will QoS is set without the Will Flag";
    WillRetainWithoutWill => MalformedPacket, "MQTT-3.1.2-13", "v3.1.1 MQTT-3.1.2-15", "Will Retain is set without the Will Flag";
    WillQosThree => MalformedPacket, "MQTT-3.1.2-12", "v3.1.1 MQTT-3.1.2-14", "the Will QoS is 3";
    PasswordWithoutUserName => MalformedPacket, "3.1.2.9", "v3.1.1 MQTT-3.1.2-22", "there is a Password without a User Name";
    PropertyUnknown => MalformedPacket, "2.2.2.2", "v3.1.1 MQTT-4.8.0-1", "a property identifier does not exist";
    PropertyNotAllowed => MalformedPacket, "2.2.2.2", "v3.1.1 MQTT-4.8.0-1", "a property may not stand in this packet";
    PropertyRepeated => ProtocolError, "2.2.2.2", "v3.1.1 MQTT-4.8.0-1", "a property stands twice where it may stand once";
    PropertyValue => ProtocolError, "2.2.2.2", "v3.1.1 MQTT-4.8.0-1", "a property has a value it may not have";
    TooManyFilters => QuotaExceeded, "4.13.2", "v3.1.1 MQTT-4.8.0-1", "the packet has more Topic Filters than this implementation accepts";
    TooManyUserProperties => QuotaExceeded, "4.13.2", "v3.1.1 MQTT-4.8.0-1", "the packet has more User Properties than this implementation accepts";
    AuthenticationDataWithoutMethod => ProtocolError, "3.1.2.11.10", "v3.1.1 MQTT-4.8.0-1", "there is Authentication Data without an Authentication Method";
    AuthenticationMethodMissing => ProtocolError, "3.15.2.2.2", "v3.1.1 MQTT-4.8.0-1", "an AUTH packet has no Authentication Method";
    WildcardInResponseTopic => ProtocolError, "MQTT-3.3.2-14", "v3.1.1 MQTT-4.8.0-1", "the Response Topic is empty or holds a wildcard character";
    TopicAliasZero => TopicAliasInvalid, "MQTT-3.3.2-8", "v3.1.1 MQTT-4.8.0-1", "the Topic Alias is 0";
    ReasonCodeInvalid => MalformedPacket, "2.4", "v3.1.1 MQTT-4.8.0-1", "the Reason Code may not stand in this packet";
    SubscribeEmpty => ProtocolError, "MQTT-3.8.3-2", "v3.1.1 MQTT-3.8.3-3", "a SUBSCRIBE has no Topic Filter";
    UnsubscribeEmpty => ProtocolError, "MQTT-3.10.3-2", "v3.1.1 MQTT-3.10.3-2", "an UNSUBSCRIBE has no Topic Filter";
    SubscriptionOptions => MalformedPacket, "MQTT-3.8.3-5", "v3.1.1 MQTT-3.8.3-4", "reserved bits of the Subscription Options are set";
    SubscriptionQos => ProtocolError, "3.8.3.1", "v3.1.1 MQTT-3.8.3-4", "the maximum QoS of a Subscription is 3";
    RetainHandling => ProtocolError, "3.8.3.1", "v3.1.1 MQTT-3.8.3-4", "Retain Handling is 3";
    SubAckEmpty => MalformedPacket, "MQTT-3.8.4-6", "v3.1.1 MQTT-3.8.4-5", "an acknowledgement has no Reason Code";
    ConnAckFlags => MalformedPacket, "MQTT-3.2.2-1", "v3.1.1 3.2.2.1", "reserved Connect Acknowledge Flags are set";
    VersionHasNoSuchPacket => ProtocolError, "2.1.2", "v3.1.1 2.2.1", "this protocol version has no such packet";
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl std::error::Error for Malformed {}
