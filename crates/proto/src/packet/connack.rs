//! CONNACK (section 3.2): the Server's answer to CONNECT.
//!
//! Owns: [`ConnAck`] and what it announces. Does not own: the decision it reports.
//! Start reading at [`ConnAck`]. Invariant: Session Present is 0 with any failure.

use std::num::{NonZeroU16, NonZeroU32};

use super::property::{
    Allowed, Property, UserProperties, UserPropertyCollector, put_user_properties, read_properties,
};
use super::wire::{Reader, put_packet, put_prefixed};
use super::{EncodeError, Malformed, PacketType, ReasonCode};
use crate::{Qos, Secret, Version};

/// CONNACK, of any version.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnAck {
    /// Session Present; never set by MQTT 3.1.
    pub session_present: bool,
    /// Connect Reason Code; in 3.x written as the return code it becomes.
    pub reason: ReasonCode,
    /// Properties; left out in 3.x.
    pub properties: ConnAckProperties,
}

/// CONNACK properties, section 3.2.2.3; an absent one has the standard's default.
#[derive(Clone, Debug, Default, PartialEq)]
#[allow(
    missing_docs,
    reason = "the names are the standard's, units are in them"
)]
pub struct ConnAckProperties {
    pub session_expiry_interval_seconds: Option<u32>,
    pub receive_maximum: Option<NonZeroU16>,
    pub maximum_qos: Option<Qos>,
    pub retain_available: Option<bool>,
    pub maximum_packet_size_bytes: Option<NonZeroU32>,
    pub assigned_client_id: Option<String>,
    pub topic_alias_maximum: Option<u16>,
    pub reason_string: Option<String>,
    pub user_properties: UserProperties,
    pub wildcard_subscription_available: Option<bool>,
    pub subscription_identifier_available: Option<bool>,
    pub shared_subscription_available: Option<bool>,
    pub server_keep_alive_seconds: Option<u16>,
    pub response_information: Option<String>,
    pub server_reference: Option<String>,
    pub authentication_method: Option<String>,
    pub authentication_data: Option<Secret>,
}

impl ConnAck {
    /// A refusal with nothing but its Reason Code.
    #[must_use]
    pub fn refusal(reason: ReasonCode) -> Self {
        Self {
            session_present: false,
            reason,
            properties: ConnAckProperties::default(),
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>, version: Version) -> Result<Self, Malformed> {
        let flags = reader.u8()?;
        // [MQTT-3.2.2-1]
        if flags & !1 != 0 {
            return Err(Malformed::ConnAckFlags);
        }
        let code = reader.u8()?;
        if !version.has_properties() {
            let reason =
                ReasonCode::from_connack_return_code(code).ok_or(Malformed::ReasonCodeInvalid)?;
            let properties = ConnAckProperties::default();
            // MQTT 3.1, section 3.2: the byte is reserved.
            let has_flags = version == Version::V311 && reason == ReasonCode::Success;
            return Ok(Self {
                session_present: has_flags && flags == 1,
                reason,
                properties,
            });
        }
        let reason = ReasonCode::from_value(code)
            .filter(|reason| reason.is_allowed_in(PacketType::ConnAck))
            .ok_or(Malformed::ReasonCodeInvalid)?;
        // A Server that speaks only 3.x answers a 5.0 CONNECT with two bytes.
        let properties = if reader.is_empty() {
            ConnAckProperties::default()
        } else {
            ConnAckProperties::read(reader)?
        };
        Ok(Self {
            session_present: flags == 1 && reason == ReasonCode::Success,
            reason,
            properties,
        })
    }

    pub(crate) fn put(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        // [MQTT-3.2.2-6] [v3.1.1 MQTT-3.2.2-4] No session is present in a refusal.
        let session_present = self.session_present && self.reason == ReasonCode::Success;
        if !version.has_properties() {
            let code = self
                .reason
                .connack_return_code()
                .ok_or(EncodeError::NotInThisVersion)?;
            // MQTT 3.1, section 3.2: the byte is reserved.
            let flags = u8::from(session_present && version == Version::V311);
            out.extend_from_slice(&[PacketType::ConnAck.first_byte(), 2, flags, code]);
            return Ok(());
        }
        put_packet(out, PacketType::ConnAck.first_byte(), |out| {
            out.extend_from_slice(&[u8::from(session_present), self.reason.value()]);
            put_prefixed(out, |out| self.properties.put(out))
        })
    }
}

impl ConnAckProperties {
    fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut read = Self::default();
        let mut users = UserPropertyCollector::default();
        read_properties(reader, Allowed::CONNACK, |property| match property {
            Property::UserProperty(name, value) => users.add(name, value),
            other => read.set(other),
        })?;
        read.user_properties = users.finish()?;
        Ok(read)
    }

    fn set(&mut self, property: Property<'_>) {
        match property {
            Property::SessionExpiryInterval(value) => {
                self.session_expiry_interval_seconds = Some(value);
            }
            Property::ReceiveMaximum(value) => self.receive_maximum = NonZeroU16::new(value),
            Property::MaximumQos(value) => self.maximum_qos = Qos::from_level(value),
            Property::RetainAvailable(value) => self.retain_available = Some(value == 1),
            Property::MaximumPacketSize(value) => {
                self.maximum_packet_size_bytes = NonZeroU32::new(value);
            }
            Property::AssignedClientIdentifier(text) => self.assigned_client_id = Some(text.into()),
            Property::TopicAliasMaximum(value) => self.topic_alias_maximum = Some(value),
            Property::ReasonString(text) => self.reason_string = Some(text.into()),
            Property::WildcardSubscriptionAvailable(value) => {
                self.wildcard_subscription_available = Some(value == 1);
            }
            Property::SubscriptionIdentifierAvailable(value) => {
                self.subscription_identifier_available = Some(value == 1);
            }
            Property::SharedSubscriptionAvailable(value) => {
                self.shared_subscription_available = Some(value == 1);
            }
            Property::ServerKeepAlive(value) => self.server_keep_alive_seconds = Some(value),
            Property::ResponseInformation(text) => self.response_information = Some(text.into()),
            Property::ServerReference(text) => self.server_reference = Some(text.into()),
            Property::AuthenticationMethod(text) => self.authentication_method = Some(text.into()),
            Property::AuthenticationData(bytes) => {
                self.authentication_data = Some(Secret::new(bytes.to_vec()));
            }
            _ => {}
        }
    }

    fn put(&self, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let flag = |value: Option<bool>| value.map(u8::from);
        let numbers = [
            self.session_expiry_interval_seconds
                .map(Property::SessionExpiryInterval),
            self.receive_maximum
                .map(|value| Property::ReceiveMaximum(value.get())),
            self.maximum_qos
                .filter(|qos| *qos != Qos::ExactlyOnce)
                .map(|qos| Property::MaximumQos(qos.level())),
            flag(self.retain_available).map(Property::RetainAvailable),
            self.maximum_packet_size_bytes
                .map(|value| Property::MaximumPacketSize(value.get())),
            self.assigned_client_id
                .as_deref()
                .map(Property::AssignedClientIdentifier),
            self.topic_alias_maximum.map(Property::TopicAliasMaximum),
            flag(self.wildcard_subscription_available).map(Property::WildcardSubscriptionAvailable),
            flag(self.subscription_identifier_available)
                .map(Property::SubscriptionIdentifierAvailable),
            flag(self.shared_subscription_available).map(Property::SharedSubscriptionAvailable),
            self.server_keep_alive_seconds
                .map(Property::ServerKeepAlive),
            self.response_information
                .as_deref()
                .map(Property::ResponseInformation),
            self.server_reference
                .as_deref()
                .map(Property::ServerReference),
            self.authentication_method
                .as_deref()
                .map(Property::AuthenticationMethod),
            self.authentication_data
                .as_ref()
                .map(|data| Property::AuthenticationData(data.expose())),
            self.reason_string.as_deref().map(Property::ReasonString),
        ];
        numbers
            .iter()
            .flatten()
            .try_for_each(|property| property.put(out))?;
        put_user_properties(out, &self.user_properties)
    }
}
