//! AUTH (section 3.15): one step of an enhanced authentication exchange, 5.0 only.
//!
//! Owns: [`Auth`]. Does not own: the exchange (see `connection`). Start reading at [`Auth`].
//! Invariant: only Success, Continue authentication and Re-authenticate stand in it.

use super::acks::read_reason;
use super::property::{
    Allowed, Property, UserProperties, UserPropertyCollector, put_user_properties, read_properties,
};
use super::wire::{Reader, put_packet, put_prefixed};
use super::{EncodeError, Malformed, PacketType, ReasonCode};
use crate::{Secret, Version};

/// AUTH.
#[derive(Clone, Debug, PartialEq)]
pub struct Auth {
    /// Authenticate Reason Code.
    pub reason: ReasonCode,
    /// Authentication Method; absent only in the two-byte form, which then means Success.
    pub method: Option<String>,
    /// Authentication Data.
    pub data: Option<Secret>,
    /// Reason String.
    pub reason_string: Option<String>,
    /// User Properties, in order.
    pub user_properties: UserProperties,
}

impl Auth {
    /// An AUTH of this method with this data.
    #[must_use]
    pub fn new(reason: ReasonCode, method: impl Into<String>, data: Option<Secret>) -> Self {
        let method = Some(method.into());
        Self {
            reason,
            method,
            data,
            reason_string: None,
            user_properties: UserProperties::new(),
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        let mut read = Self::new(ReasonCode::Success, "", None);
        read.method = None;
        // Section 3.15.2.1: Remaining Length 0 is Success without properties.
        if reader.is_empty() {
            return Ok(read);
        }
        read.reason = read_reason(reader, PacketType::Auth)?;
        let mut users = UserPropertyCollector::default();
        read_properties(reader, Allowed::AUTH, |property| match property {
            Property::AuthenticationMethod(text) => read.method = Some(text.to_owned()),
            Property::AuthenticationData(bytes) => read.data = Some(Secret::new(bytes.to_vec())),
            Property::ReasonString(text) => read.reason_string = Some(text.to_owned()),
            Property::UserProperty(name, value) => users.add(name, value),
            _ => {}
        })?;
        read.user_properties = users.finish()?;
        if read.method.is_none() {
            return Err(Malformed::AuthenticationMethodMissing);
        }
        Ok(read)
    }

    pub(crate) fn put(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        if !version.has_properties() {
            return Err(EncodeError::NotInThisVersion);
        }
        // [MQTT-3.15.2-1]
        debug_assert!(
            self.reason.is_allowed_in(PacketType::Auth),
            "{:?}",
            self.reason
        );
        if self.method.is_none() {
            out.extend_from_slice(&[PacketType::Auth.first_byte(), 0]);
            return Ok(());
        }
        put_packet(out, PacketType::Auth.first_byte(), |out| {
            out.push(self.reason.value());
            put_prefixed(out, |out| {
                let properties = [
                    self.method.as_deref().map(Property::AuthenticationMethod),
                    self.data
                        .as_ref()
                        .map(|data| Property::AuthenticationData(data.expose())),
                    self.reason_string.as_deref().map(Property::ReasonString),
                ];
                properties
                    .iter()
                    .flatten()
                    .try_for_each(|property| property.put(out))?;
                put_user_properties(out, &self.user_properties)
            })
        })
    }
}
