//! DISCONNECT (section 3.14): the last packet of a Connection.
//!
//! Owns: [`Disconnect`]. Does not own: what closing means for Will and Session.
//! Start reading at [`Disconnect`]. Invariant: a 3.x DISCONNECT is empty and comes from the Client.

use super::acks::read_reason;
use super::property::{
    Allowed, Property, UserProperties, UserPropertyCollector, put_user_properties, read_properties,
};
use super::wire::{Reader, put_packet, put_prefixed};
use super::{EncodeError, Malformed, PacketType, ReasonCode};
use crate::Version;

/// DISCONNECT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disconnect {
    /// Disconnect Reason Code; absent and in 3.x Success, which is Normal disconnection.
    pub reason: ReasonCode,
    /// Session Expiry Interval in seconds, from a Client only, [MQTT-3.14.2-2].
    pub session_expiry_interval_seconds: Option<u32>,
    /// Reason String.
    pub reason_string: Option<String>,
    /// User Properties, in order.
    pub user_properties: UserProperties,
    /// Server Reference.
    pub server_reference: Option<String>,
}

impl Disconnect {
    /// A DISCONNECT with this Reason Code and nothing else.
    #[must_use]
    pub const fn new(reason: ReasonCode) -> Self {
        Self {
            reason,
            session_expiry_interval_seconds: None,
            reason_string: None,
            user_properties: UserProperties::new(),
            server_reference: None,
        }
    }

    /// The Reason Code as DISCONNECT names it: there 0x00 is Normal disconnection.
    #[must_use]
    pub fn reason_text(&self) -> String {
        if self.reason == ReasonCode::Success {
            "0x00 Normal disconnection".to_owned()
        } else {
            self.reason.to_string()
        }
    }

    pub(crate) fn read(reader: &mut Reader<'_>, version: Version) -> Result<Self, Malformed> {
        let mut read = Self::new(ReasonCode::Success);
        if !version.has_properties() || reader.is_empty() {
            return Ok(read);
        }
        read.reason = read_reason(reader, PacketType::Disconnect)?;
        if reader.is_empty() {
            return Ok(read);
        }
        let mut users = UserPropertyCollector::default();
        read_properties(reader, Allowed::DISCONNECT, |property| match property {
            Property::SessionExpiryInterval(value) => {
                read.session_expiry_interval_seconds = Some(value);
            }
            Property::ReasonString(text) => read.reason_string = Some(text.to_owned()),
            Property::UserProperty(name, value) => users.add(name, value),
            Property::ServerReference(text) => read.server_reference = Some(text.to_owned()),
            _ => {}
        })?;
        read.user_properties = users.finish()?;
        Ok(read)
    }

    pub(crate) fn put(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        let first_byte = PacketType::Disconnect.first_byte();
        if !version.has_properties() || *self == Self::new(ReasonCode::Success) {
            out.extend_from_slice(&[first_byte, 0]);
            return Ok(());
        }
        // [MQTT-3.14.2-1]
        debug_assert!(
            self.reason.is_allowed_in(PacketType::Disconnect),
            "{:?}",
            self.reason
        );
        put_packet(out, first_byte, |out| {
            out.push(self.reason.value());
            put_prefixed(out, |out| {
                if let Some(value) = self.session_expiry_interval_seconds {
                    Property::SessionExpiryInterval(value).put(out)?;
                }
                if let Some(text) = &self.reason_string {
                    Property::ReasonString(text).put(out)?;
                }
                if let Some(text) = &self.server_reference {
                    Property::ServerReference(text).put(out)?;
                }
                put_user_properties(out, &self.user_properties)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_is_called_normal_disconnection() {
        let text = |reason| Disconnect::new(reason).reason_text();
        assert_eq!(text(ReasonCode::Success), "0x00 Normal disconnection");
        assert_eq!(
            text(ReasonCode::AdministrativeAction),
            "0x98 Administrative action"
        );
    }
}
