//! CONNECT (section 3.1): who a Client is and what it asks of the Connection.
//!
//! Owns: [`Connect`], its Will, reading and writing both. Does not own: whether to accept it.
//! Start reading at [`Connect`]. Invariant: Will QoS and Will Retain exist only with a Will.

use std::num::{NonZeroU16, NonZeroU32};

use bytes::Bytes;

use super::property::{
    Allowed, Property, UserProperties, UserPropertyCollector, put_user_properties, read_properties,
};
use super::wire::{Reader, put_binary, put_packet, put_prefixed, put_string, put_u16};
use super::{EncodeError, Malformed, PacketType};
use crate::topic;
use crate::{Qos, Secret, Version};

/// CONNECT, of any version.
#[derive(Clone, Debug, PartialEq)]
pub struct Connect {
    /// The version the Client speaks; every later packet is read as this.
    pub version: Version,
    /// Clean Start; in 3.x Clean Session.
    pub clean_start: bool,
    /// Keep Alive in seconds; 0 turns it off.
    pub keep_alive_seconds: u16,
    /// Client Identifier; may be empty.
    pub client_id: String,
    /// The Will Message, if the Will Flag was set.
    pub will: Option<Will>,
    /// User Name.
    pub user_name: Option<String>,
    /// Password.
    pub password: Option<Secret>,
    /// Properties; the defaults in 3.x.
    pub properties: ConnectProperties,
}

/// CONNECT properties, section 3.1.2.11; an absent one is `None` or the standard's default.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectProperties {
    /// Session Expiry Interval in seconds; absent is 0, `u32::MAX` never expires.
    pub session_expiry_interval_seconds: Option<u32>,
    /// Receive Maximum; absent is 65,535.
    pub receive_maximum: Option<NonZeroU16>,
    /// Maximum Packet Size in bytes; absent is no limit.
    pub maximum_packet_size_bytes: Option<NonZeroU32>,
    /// Topic Alias Maximum; absent is 0.
    pub topic_alias_maximum: u16,
    /// Request Response Information; absent is false.
    pub request_response_information: bool,
    /// Request Problem Information; absent is true.
    pub request_problem_information: bool,
    /// User Properties, in order.
    pub user_properties: UserProperties,
    /// Authentication Method.
    pub authentication_method: Option<String>,
    /// Authentication Data.
    pub authentication_data: Option<Secret>,
}

impl Default for ConnectProperties {
    fn default() -> Self {
        Self {
            session_expiry_interval_seconds: None,
            receive_maximum: None,
            maximum_packet_size_bytes: None,
            topic_alias_maximum: 0,
            request_response_information: false,
            request_problem_information: true,
            user_properties: UserProperties::new(),
            authentication_method: None,
            authentication_data: None,
        }
    }
}

/// The Will Message a Client leaves with the Server.
#[derive(Clone, Debug, PartialEq)]
pub struct Will {
    /// Will Topic; a valid Topic Name.
    pub topic: String,
    /// Will Payload.
    pub payload: Bytes,
    /// Will QoS.
    pub qos: Qos,
    /// Will Retain.
    pub retain: bool,
    /// Will Properties.
    pub properties: WillProperties,
}

/// Will Properties, section 3.1.3.2.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WillProperties {
    /// Will Delay Interval in seconds; absent is 0.
    pub delay_interval_seconds: u32,
    /// Message Expiry Interval in seconds.
    pub message_expiry_interval_seconds: Option<u32>,
    /// The properties a subscriber gets unchanged and in this order, as encoded bytes: Payload Format
    /// Indicator, Content Type, Response Topic, Correlation Data, User Properties.
    pub forwarded: Bytes,
}

const FLAG_CLEAN_START: u8 = 0x02;
const FLAG_WILL: u8 = 0x04;
const FLAG_WILL_RETAIN: u8 = 0x20;
const FLAG_PASSWORD: u8 = 0x40;
const FLAG_USER_NAME: u8 = 0x80;

impl Connect {
    /// A CONNECT with this version and Client Identifier, clean, Keep Alive 60 s, nothing else.
    pub fn new(version: Version, client_id: impl Into<String>) -> Self {
        Self {
            version,
            clean_start: true,
            keep_alive_seconds: 60,
            client_id: client_id.into(),
            will: None,
            user_name: None,
            password: None,
            properties: ConnectProperties::default(),
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let version = read_version(reader)?;
        let flags = reader.u8()?;
        check_flags(flags, version)?;
        let keep_alive_seconds = reader.u16()?;
        let properties = if version.has_properties() {
            read_connect_properties(reader)?
        } else {
            ConnectProperties::default()
        };
        // [MQTT-3.1.3-1] [v3.1.1 MQTT-3.1.3-1] Client Identifier, Will, User Name, Password, in this
        // order. [MQTT-3.1.3-3] [MQTT-3.1.3-4] [v3.1.1 MQTT-3.1.3-3] [v3.1.1 MQTT-3.1.3-4] Present,
        // first, UTF-8. [MQTT-3.1.4-1] What does not fit this format is refused.
        let client_id = reader.string()?.to_owned();
        let will = if flags & FLAG_WILL != 0 {
            Some(Will::read(reader, flags, version)?)
        } else {
            None
        };
        // MQTT 3.1, section 3.1: the lengths win over the flags, so a missing field is no User Name.
        let absent = |reader: &Reader<'_>| version == Version::V31 && reader.is_empty();
        // [MQTT-3.1.2-16] [MQTT-3.1.2-17] [MQTT-3.1.3-12] [v3.1.1 MQTT-3.1.2-18]
        // [v3.1.1 MQTT-3.1.2-19] [v3.1.1 MQTT-3.1.3-11]
        let user_name = if flags & FLAG_USER_NAME != 0 && !absent(reader) {
            Some(reader.string()?.to_owned())
        } else {
            None
        };
        // [MQTT-3.1.2-18] [MQTT-3.1.2-19] [v3.1.1 MQTT-3.1.2-20] [v3.1.1 MQTT-3.1.2-21]
        let password = if flags & FLAG_PASSWORD != 0 && !absent(reader) {
            Some(Secret::new(reader.binary()?.to_vec()))
        } else {
            None
        };
        let clean_start = flags & FLAG_CLEAN_START != 0;
        Ok(Self {
            version,
            clean_start,
            keep_alive_seconds,
            client_id,
            will,
            user_name,
            password,
            properties,
        })
    }

    pub(crate) fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_packet(out, PacketType::Connect.first_byte(), |out| {
            put_string(
                out,
                if self.version == Version::V31 {
                    "MQIsdp"
                } else {
                    "MQTT"
                },
            )?;
            out.push(self.version.level());
            out.push(self.flags());
            put_u16(out, self.keep_alive_seconds);
            if self.version.has_properties() {
                put_prefixed(out, |out| self.properties.put(out))?;
            }
            put_string(out, &self.client_id)?;
            if let Some(will) = &self.will {
                will.put(self.version, out)?;
            }
            if let Some(user_name) = &self.user_name {
                put_string(out, user_name)?;
            }
            if let Some(password) = &self.password {
                put_binary(out, password.expose())?;
            }
            Ok(())
        })
    }

    fn flags(&self) -> u8 {
        let mut flags = 0;
        if self.clean_start {
            flags |= FLAG_CLEAN_START;
        }
        if let Some(will) = &self.will {
            flags |= FLAG_WILL | will.qos.level() << 3;
            if will.retain {
                flags |= FLAG_WILL_RETAIN;
            }
        }
        if self.password.is_some() {
            flags |= FLAG_PASSWORD;
        }
        if self.user_name.is_some() {
            flags |= FLAG_USER_NAME;
        }
        flags
    }
}

fn read_version(reader: &mut Reader<'_>) -> Result<Version, Malformed> {
    // [MQTT-3.1.2-1] [v3.1.1 MQTT-3.1.2-1]
    let name = reader.binary()?;
    if name != b"MQTT" && name != b"MQIsdp" {
        return Err(Malformed::ProtocolName);
    }
    // [MQTT-3.1.2-2] [v3.1.1 MQTT-3.1.2-2]
    match (name, reader.u8()?) {
        (b"MQIsdp", 3) => Ok(Version::V31),
        (b"MQTT", 4) => Ok(Version::V311),
        (b"MQTT", 5) => Ok(Version::V5),
        _ => Err(Malformed::ProtocolVersion),
    }
}

fn check_flags(flags: u8, version: Version) -> Result<(), Malformed> {
    // [MQTT-3.1.2-3] [v3.1.1 MQTT-3.1.2-3]
    if flags & 0x01 != 0 {
        return Err(Malformed::ConnectReservedFlag);
    }
    let will_qos = (flags >> 3) & 0b11;
    if flags & FLAG_WILL == 0 {
        // [MQTT-3.1.2-11] [v3.1.1 MQTT-3.1.2-11] [v3.1.1 MQTT-3.1.2-13]
        if will_qos != 0 {
            return Err(Malformed::WillQosWithoutWill);
        }
        // [MQTT-3.1.2-13] [v3.1.1 MQTT-3.1.2-15]
        if flags & FLAG_WILL_RETAIN != 0 {
            return Err(Malformed::WillRetainWithoutWill);
        }
    }
    // [MQTT-3.1.2-12] [v3.1.1 MQTT-3.1.2-14]
    if will_qos == 3 {
        return Err(Malformed::WillQosThree);
    }
    // [v3.1.1 MQTT-3.1.2-22] and MQTT 3.1, section 3.1: no Password without a User Name; 5.0 lifted this.
    if !version.has_properties() && flags & FLAG_PASSWORD != 0 && flags & FLAG_USER_NAME == 0 {
        return Err(Malformed::PasswordWithoutUserName);
    }
    Ok(())
}

fn read_connect_properties(reader: &mut Reader<'_>) -> Result<ConnectProperties, Malformed> {
    let mut read = ConnectProperties::default();
    let mut users = UserPropertyCollector::default();
    read_properties(reader, Allowed::CONNECT, |property| match property {
        Property::SessionExpiryInterval(value) => {
            read.session_expiry_interval_seconds = Some(value);
        }
        Property::ReceiveMaximum(value) => read.receive_maximum = NonZeroU16::new(value),
        Property::MaximumPacketSize(value) => {
            read.maximum_packet_size_bytes = NonZeroU32::new(value);
        }
        Property::TopicAliasMaximum(value) => read.topic_alias_maximum = value,
        Property::RequestResponseInformation(value) => {
            read.request_response_information = value == 1;
        }
        Property::RequestProblemInformation(value) => read.request_problem_information = value == 1,
        Property::AuthenticationMethod(text) => read.authentication_method = Some(text.to_owned()),
        Property::AuthenticationData(bytes) => {
            read.authentication_data = Some(Secret::new(bytes.to_vec()));
        }
        Property::UserProperty(name, value) => users.add(name, value),
        _ => {}
    })?;
    read.user_properties = users.finish()?;
    if read.authentication_data.is_some() && read.authentication_method.is_none() {
        return Err(Malformed::AuthenticationDataWithoutMethod);
    }
    Ok(read)
}

impl ConnectProperties {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let defaults = Self::default();
        if let Some(value) = self.session_expiry_interval_seconds {
            Property::SessionExpiryInterval(value).put(out)?;
        }
        if let Some(value) = self.receive_maximum {
            Property::ReceiveMaximum(value.get()).put(out)?;
        }
        if let Some(value) = self.maximum_packet_size_bytes {
            Property::MaximumPacketSize(value.get()).put(out)?;
        }
        if self.topic_alias_maximum != 0 {
            Property::TopicAliasMaximum(self.topic_alias_maximum).put(out)?;
        }
        if self.request_response_information != defaults.request_response_information {
            Property::RequestResponseInformation(1).put(out)?;
        }
        if self.request_problem_information != defaults.request_problem_information {
            Property::RequestProblemInformation(0).put(out)?;
        }
        if let Some(method) = &self.authentication_method {
            Property::AuthenticationMethod(method).put(out)?;
        }
        if let Some(data) = &self.authentication_data {
            Property::AuthenticationData(data.expose()).put(out)?;
        }
        put_user_properties(out, &self.user_properties)
    }
}

impl Will {
    fn read(reader: &mut Reader<'_>, flags: u8, version: Version) -> Result<Self, Malformed> {
        // [MQTT-3.1.2-9] [v3.1.1 MQTT-3.1.2-9] Will Properties, Will Topic and Will Payload are all there.
        let properties = if version.has_properties() {
            WillProperties::read(reader)?
        } else {
            WillProperties::default()
        };
        // [MQTT-3.1.3-11] [v3.1.1 MQTT-3.1.3-10]
        let will_topic = reader.string()?;
        topic::check_name(will_topic)?;
        let payload = Bytes::copy_from_slice(reader.binary()?);
        let qos = Qos::from_level((flags >> 3) & 0b11).ok_or(Malformed::WillQosThree)?;
        let retain = flags & FLAG_WILL_RETAIN != 0;
        Ok(Self {
            topic: will_topic.to_owned(),
            payload,
            qos,
            retain,
            properties,
        })
    }

    fn put(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if version.has_properties() {
            put_prefixed(out, |out| self.properties.put(out))?;
        }
        put_string(out, &self.topic)?;
        put_binary(out, &self.payload)
    }
}

impl WillProperties {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut read = Self::default();
        let mut forwarded = Vec::new();
        let mut failed = false;
        read_properties(reader, Allowed::WILL, |property| match property {
            Property::WillDelayInterval(value) => read.delay_interval_seconds = value,
            Property::MessageExpiryInterval(value) => {
                read.message_expiry_interval_seconds = Some(value);
            }
            other => failed |= other.put(&mut forwarded).is_err(),
        })?;
        debug_assert!(!failed, "invariant: what was read can be written");
        read.forwarded = forwarded.into();
        Ok(read)
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if self.delay_interval_seconds != 0 {
            Property::WillDelayInterval(self.delay_interval_seconds).put(out)?;
        }
        if let Some(value) = self.message_expiry_interval_seconds {
            Property::MessageExpiryInterval(value).put(out)?;
        }
        out.extend_from_slice(&self.forwarded);
        Ok(())
    }
}
