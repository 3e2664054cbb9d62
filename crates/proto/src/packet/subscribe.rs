//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 and 3.10), borrowing their Topic Filters.
//!
//! Owns: [`Subscribe`], [`Unsubscribe`], [`SubscriptionOptions`]. Does not own: Subscriptions.
//! Start reading at [`Subscribe`]. Invariant: every filter in a decoded packet is well-formed.

use super::acks::read_packet_id;
use super::property::{
    Allowed, Property, UserProperties, UserPropertyCollector, put_user_properties, read_properties,
};
use super::wire::{Reader, put_packet, put_prefixed, put_string, put_u16};
use super::{EncodeError, Malformed, PacketType};
use crate::topic;
use crate::{PacketIdentifier, Qos, Version};

/// How many Topic Filters one SUBSCRIBE or UNSUBSCRIBE may carry.
pub const FILTERS_MAX: usize = 10_000;

/// SUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe<'a> {
    /// Packet Identifier; SUBACK carries it back.
    pub packet_id: PacketIdentifier,
    /// Subscription Identifier for every filter of this packet, 1 to 268,435,455.
    pub subscription_identifier: Option<u32>,
    /// User Properties, in order.
    pub user_properties: UserProperties,
    /// What is asked for, in order; at least one.
    pub requests: Vec<SubscriptionRequest<'a>>,
}

/// One Topic Filter with its options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriptionRequest<'a> {
    /// A well-formed Topic Filter; may begin with `$share/`.
    pub filter: &'a str,
    /// Subscription Options.
    pub options: SubscriptionOptions,
}

/// Subscription Options, section 3.8.3.1; in 3.x only the QoS is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscriptionOptions {
    /// Maximum QoS.
    pub qos: Qos,
    /// No Local: do not send back what this Client published.
    pub no_local: bool,
    /// Retain As Published: keep the RETAIN flag on forwarding.
    pub retain_as_published: bool,
    /// Retain Handling.
    pub retain_handling: RetainHandling,
}

/// When Retained Messages are sent for a new Subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RetainHandling {
    /// 0: at every SUBSCRIBE.
    #[default]
    Send = 0,
    /// 1: only if the Subscription did not exist.
    SendIfNew = 1,
    /// 2: never.
    DoNotSend = 2,
}

impl SubscriptionOptions {
    fn from_byte(byte: u8, version: Version) -> Result<Self, Malformed> {
        // [MQTT-3.8.3-5] [v3.1.1 MQTT-3.8.3-4]
        let reserved = if version.has_properties() { 0xC0 } else { 0xFC };
        if byte & reserved != 0 {
            return Err(Malformed::SubscriptionOptions);
        }
        let qos = Qos::from_level(byte & 0b11).ok_or(Malformed::SubscriptionQos)?;
        let retain_handling = match (byte >> 4) & 0b11 {
            0 => RetainHandling::Send,
            1 => RetainHandling::SendIfNew,
            2 => RetainHandling::DoNotSend,
            _ => return Err(Malformed::RetainHandling),
        };
        let no_local = byte & 0x04 != 0;
        let retain_as_published = byte & 0x08 != 0;
        Ok(Self {
            qos,
            no_local,
            retain_as_published,
            retain_handling,
        })
    }

    const fn byte(self, version: Version) -> u8 {
        let qos = self.qos.level();
        if !version.has_properties() {
            return qos;
        }
        qos | (self.no_local as u8) << 2
            | (self.retain_as_published as u8) << 3
            | (self.retain_handling as u8) << 4
    }
}

impl<'a> Subscribe<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>, version: Version) -> Result<Self, Malformed> {
        let packet_id = read_packet_id(reader)?;
        let mut subscription_identifier = None;
        let mut users = UserPropertyCollector::default();
        if version.has_properties() {
            read_properties(reader, Allowed::SUBSCRIBE, |property| match property {
                Property::SubscriptionIdentifier(value) => subscription_identifier = Some(value),
                Property::UserProperty(name, value) => users.add(name, value),
                _ => {}
            })?;
        }
        let mut requests = Vec::new();
        while !reader.is_empty() {
            // [MQTT-3.8.3-1] [v3.1.1 MQTT-3.8.3-1]
            let filter = reader.string()?;
            let options = SubscriptionOptions::from_byte(reader.u8()?, version)?;
            let is_shared = topic::check_filter(filter)?;
            // [MQTT-3.8.3-4]
            if is_shared && options.no_local {
                return Err(Malformed::NoLocalOnShared);
            }
            if requests.len() >= FILTERS_MAX {
                return Err(Malformed::TooManyFilters);
            }
            requests.push(SubscriptionRequest { filter, options });
        }
        // [MQTT-3.8.3-2] [v3.1.1 MQTT-3.8.3-3]
        if requests.is_empty() {
            return Err(Malformed::SubscribeEmpty);
        }
        let user_properties = users.finish()?;
        Ok(Self {
            packet_id,
            subscription_identifier,
            user_properties,
            requests,
        })
    }

    pub(crate) fn put(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_packet(out, PacketType::Subscribe.first_byte(), |out| {
            put_u16(out, self.packet_id.get());
            if version.has_properties() {
                put_prefixed(out, |out| {
                    if let Some(value) = self.subscription_identifier {
                        Property::SubscriptionIdentifier(value).put(out)?;
                    }
                    put_user_properties(out, &self.user_properties)
                })?;
            }
            self.requests.iter().try_for_each(|request| {
                put_string(out, request.filter)?;
                out.push(request.options.byte(version));
                Ok(())
            })
        })
    }
}

/// UNSUBSCRIBE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsubscribe<'a> {
    /// Packet Identifier; UNSUBACK carries it back.
    pub packet_id: PacketIdentifier,
    /// User Properties, in order.
    pub user_properties: UserProperties,
    /// Well-formed Topic Filters, in order; at least one.
    pub filters: Vec<&'a str>,
}

impl<'a> Unsubscribe<'a> {
    pub(crate) fn read(reader: &mut Reader<'a>, version: Version) -> Result<Self, Malformed> {
        let packet_id = read_packet_id(reader)?;
        let mut users = UserPropertyCollector::default();
        if version.has_properties() {
            read_properties(reader, Allowed::UNSUBSCRIBE, |property| {
                if let Property::UserProperty(name, value) = property {
                    users.add(name, value);
                }
            })?;
        }
        let mut filters = Vec::new();
        while !reader.is_empty() {
            // [MQTT-3.10.3-1] [v3.1.1 MQTT-3.10.3-1]
            let filter = reader.string()?;
            topic::check_filter(filter)?;
            if filters.len() >= FILTERS_MAX {
                return Err(Malformed::TooManyFilters);
            }
            filters.push(filter);
        }
        // [MQTT-3.10.3-2] [v3.1.1 MQTT-3.10.3-2]
        if filters.is_empty() {
            return Err(Malformed::UnsubscribeEmpty);
        }
        Ok(Self {
            packet_id,
            user_properties: users.finish()?,
            filters,
        })
    }

    pub(crate) fn put(&self, version: Version, out: &mut Vec<u8>) -> Result<(), EncodeError> {
        put_packet(out, PacketType::Unsubscribe.first_byte(), |out| {
            put_u16(out, self.packet_id.get());
            if version.has_properties() {
                put_prefixed(out, |out| put_user_properties(out, &self.user_properties))?;
            }
            self.filters
                .iter()
                .try_for_each(|filter| put_string(out, filter))
        })
    }
}
